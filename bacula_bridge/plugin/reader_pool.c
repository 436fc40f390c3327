/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See reader_pool.h.
 */
#include "reader_pool.h"

#include <stdio.h>

#include "threads.h"

/* Threads that found nothing to do sleep until so few entries are left: to wake one for
 * each entry that the job took would cost more than to open it. */
#define WAKE_ENTRIES (FB_AHEAD_ENTRIES_MAX / 2)
/* How often the head asks again for what nobody announces. */
#define RETRY_POLL_MS 100
/* Beyond the time that the kernel gives the holder of a lease. */
#define LEASE_SPARE_S 5
#define LEASE_BREAK_S_DEFAULT 45
#define LEASE_BREAK_S_MAX 600

static bool expects_large(const struct fb_reader *r, const struct slot *slot) {
  return fb_pool_is_readable(&slot->entry) && !slot->follower && S_ISREG(slot->entry.mode) &&
         slot->entry.size >= r->source.large_file_bytes;
}

/* What the next entry may need in memory. */
static uint64_t hint_bytes(const struct fb_reader *r, const struct slot *slot) {
  if (slot->follower || slot->entry.error != 0 || !S_ISREG(slot->entry.mode) ||
      slot->entry.size >= r->source.large_file_bytes)
    return 0;
  return slot->entry.size;
}

static bool can_claim(const struct fb_reader *r) {
  if (r->claimed == r->tail || r->claimed - r->head >= FB_AHEAD_ENTRIES_MAX)
    return false;
  if (r->claimed == r->head)
    return true;
  const struct slot *slot = &r->ring[r->claimed % r->window];
  if (expects_large(r, slot) && r->open_large >= FB_OPEN_LARGE_MAX)
    return false;
  return r->memory_bytes + hint_bytes(r, slot) <= r->memory_bytes_max;
}

/* May one more thread open an entry?  (No entry is open if none is claimed, so the
 * head always may.) */
static bool may_open(const struct fb_reader *r) {
  return can_claim(r) && r->opening < r->opening_max;
}

void fb_pool_wants_more(struct fb_reader *r) {
  if (r->opening < r->opening_max || r->opening_max == r->thread_count)
    return;
  r->opening_max += 1 + r->opening_max / 2;
  if (r->opening_max > r->thread_count)
    r->opening_max = r->thread_count;
  pthread_cond_signal(&r->work);
}

/* A thread found nothing to open.  If that is since all that may be open is open, there
 * are more threads at it than the job needs. */
static void wants_fewer(struct fb_reader *r) {
  if (r->claimed - r->head >= FB_AHEAD_ENTRIES_MAX && r->opening_max > FB_OPENING_MIN)
    r->opening_max--;
}

void fb_pool_count_large(struct fb_reader *r, struct cell *cell, bool counts) {
  r->open_large += (unsigned)counts - (unsigned)cell->counts_large;
  cell->counts_large = counts;
}

/* Gives back all that the cell holds and leaves it for the time when it is the
 * head, to be read in chunks then, since it has no memory reserved any more.  The
 * lock is held at call and return, not meanwhile. */
static void put_off(struct fb_reader *r, struct cell *cell) {
  struct fb_prefetch *item = &cell->item;
  const struct fb_entry entry = item->entry;
  const bool follower = item->follower;
  cell->state = CELL_CLAIMED;
  r->memory_bytes -= item->reserved_bytes;
  pthread_mutex_unlock(&r->lock);
  fb_prefetch_clear(item);
  pthread_mutex_lock(&r->lock);
  item->entry = entry;
  item->follower = follower;
  fb_pool_count_large(r, cell, false);
  cell->state = CELL_PUT_OFF;
  pthread_cond_broadcast(&r->work);
}

/* Puts off a large file, none of which has been read, to have its descriptor for
 * the head.  False: there is none. */
static bool take_descriptor(struct fb_reader *r) {
  uint64_t position = r->large_cursor > r->head ? r->large_cursor : r->head + 1;
  for (; position < r->claimed; position++) {
    struct cell *cell = fb_pool_cell(r, position);
    if (cell->state == CELL_READY && cell->item.fd >= 0) {
      put_off(r, cell);
      return true;
    }
  }
  return false;
}

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

bool fb_pool_fill(struct fb_reader *r, struct fb_prefetch *item, uint64_t position,
                  bool name_only) {
  uint64_t until = 0;
  for (;;) {
    pthread_mutex_unlock(&r->lock);
    fb_prefetch_fill(item, &r->source, name_only);
    pthread_mutex_lock(&r->lock);
    if (item->retry == FB_RETRY_NONE || atomic_load(&r->stop))
      return true;
    if (position != r->head)
      return false;
    if (item->retry == FB_RETRY_DESCRIPTOR && take_descriptor(r))
      continue;
    uint64_t now = now_ms();
    if (until == 0)
      until = now + (item->retry == FB_RETRY_LEASE ? r->lease_wait_ms : FB_DESCRIPTOR_WAIT_MS);
    if (now >= until)
      return true;
    fb_condition_wait_ms(&r->retry, &r->lock, RETRY_POLL_MS);
  }
}

void fb_pool_count_memory(struct fb_reader *r, struct fb_prefetch *item) {
  uint64_t more = item->blob.capacity + item->layout.size +
                  item->extent_capacity * sizeof *item->extents;
  item->reserved_bytes += more;
  r->memory_bytes += more;
}

void fb_pool_start_large(struct fb_chunks *chunks, const struct fb_prefetch *item) {
  struct fb_stripes stripes;
  fb_layout_stripes(&item->layout, &item->blob, &stripes);
  fb_chunks_start(chunks, item->fd, (uint64_t)item->st.st_size, item->sparse, &stripes);
}

void fb_pool_find_large(struct fb_reader *r) {
  while (r->ahead_item == NULL && r->large_cursor < r->claimed) {
    struct cell *cell = fb_pool_cell(r, r->large_cursor);
    if (cell->state != CELL_READY)
      return;
    r->large_cursor++;
    if (!cell->item.large)
      continue;
    r->ahead_item = &cell->item;
    fb_pool_start_large(&r->ahead, &cell->item);
    pthread_cond_broadcast(&r->work);
  }
}

/* Opens and reads the entry of a cell that this thread has claimed. */
static void fill_cell(struct fb_reader *r, struct cell *cell, uint64_t position) {
  struct fb_prefetch *item = &cell->item;
  bool is_filled = !fb_pool_is_readable(&item->entry) ||
                   fb_pool_fill(r, item, position, item->follower);
  bool fits = !item->large || cell->counts_large || r->open_large < FB_OPEN_LARGE_MAX;
  if (!is_filled || (!fits && position != r->head)) {
    put_off(r, cell);
    return;
  }
  fb_pool_count_memory(r, item);
  fb_pool_count_large(r, cell, item->large);
  cell->state = CELL_READY;
  fb_pool_find_large(r);
  if (may_open(r))
    pthread_cond_signal(&r->work);
  if (position == r->head)
    pthread_cond_signal(&r->ready);
}

static void read_entry(struct fb_reader *r) {
  uint64_t position = r->claimed++;
  struct slot *slot = &r->ring[position % r->window];
  struct cell *cell = fb_pool_cell(r, position);
  struct fb_prefetch *item = &cell->item;
  cell->state = CELL_CLAIMED;
  cell->block = slot->block;
  item->entry = slot->entry;
  item->follower = slot->follower;
  item->reserved_bytes = hint_bytes(r, slot);
  r->memory_bytes += item->reserved_bytes;
  fb_pool_count_large(r, cell, expects_large(r, slot));
  r->opening++;
  if (may_open(r))
    pthread_cond_signal(&r->work);
  fill_cell(r, cell, position);
  r->opening--;
}

static bool head_is_put_off(struct fb_reader *r) {
  return r->head < r->claimed && fb_pool_cell(r, r->head)->state == CELL_PUT_OFF;
}

void *fb_pool_main(void *argument) {
  struct fb_reader *r = argument;
  pthread_mutex_lock(&r->lock);
  while (!atomic_load(&r->stop)) {
    if (fb_chunks_has_work(&r->ahead)) {
      if (may_open(r)) /* this one opens nothing for now */
        pthread_cond_signal(&r->work);
      fb_chunks_work(&r->ahead, &r->lock, &r->work);
      pthread_cond_signal(&r->ready);
    } else if (head_is_put_off(r)) {
      fb_pool_cell(r, r->head)->state = CELL_CLAIMED;
      if (may_open(r)) /* this one may have to wait */
        pthread_cond_signal(&r->work);
      fill_cell(r, fb_pool_cell(r, r->head), r->head);
    } else if (may_open(r)) {
      read_entry(r);
    } else {
      wants_fewer(r);
      pthread_cond_wait(&r->work, &r->lock);
    }
  }
  pthread_mutex_unlock(&r->lock);
  return NULL;
}

uint64_t fb_pool_lease_wait_ms(void) {
  unsigned seconds;
  FILE *file = fopen("/proc/sys/fs/lease-break-time", "re");
  if (file == NULL || fscanf(file, "%u", &seconds) != 1 || seconds > LEASE_BREAK_S_MAX)
    seconds = LEASE_BREAK_S_DEFAULT;
  if (file != NULL)
    fclose(file);
  return ((uint64_t)seconds + LEASE_SPARE_S) * 1000;
}

bool fb_pool_is_to_wake(struct fb_reader *r) {
  return head_is_put_off(r) || (r->claimed - r->head <= WAKE_ENTRIES && may_open(r));
}
