/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See chunks.h.
 */
#include "chunks.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "prefetch.h"
#include "threads.h"

bool fb_next_extent(int fd, uint64_t size, uint64_t *offset, uint64_t *end) {
  if (*offset >= size)
    return false;
  off_t data = lseek(fd, (off_t)*offset, SEEK_DATA);
  if (data < 0 && errno == ENXIO)
    return false;
  if (data < 0) {
    *end = size;
    return true;
  }
  if ((uint64_t)data >= size)
    return false;
  off_t hole = lseek(fd, data, SEEK_HOLE);
  /* A file that changes meanwhile may give anything: an extent has a byte at least. */
  *end = hole > data && (uint64_t)hole < size ? (uint64_t)hole : size;
  *offset = (uint64_t)data;
  return true;
}

void fb_chunks_init(struct fb_chunks *chunks, unsigned limit) {
  memset(chunks, 0, sizeof *chunks);
  chunks->limit = limit < 1 ? 1 : limit > FB_CHUNKS_MAX ? FB_CHUNKS_MAX : limit;
  chunks->allowed = chunks->limit < FB_CHUNKS_MIN ? chunks->limit : FB_CHUNKS_MIN;
  fb_condition_init(&chunks->quiet);
}

void fb_chunks_free(struct fb_chunks *chunks) {
  for (unsigned i = 0; i < FB_CHUNKS_MAX; i++)
    free(chunks->chunk[i].data);
  for (unsigned i = 0; i < chunks->spares; i++)
    free(chunks->spare[i]);
  pthread_cond_destroy(&chunks->quiet);
}

void fb_chunks_start(struct fb_chunks *chunks, int fd, uint64_t size, bool sparse,
                     const struct fb_stripes *stripes) {
  chunks->fd = fd;
  chunks->size = size;
  chunks->sparse = sparse;
  chunks->stripes = *stripes;
  chunks->next_offset = 0;
  chunks->extent_end = sparse ? 0 : size;
  chunks->planning = false;
  chunks->planned_all = false;
  chunks->head = 0;
  chunks->count = 0;
  chunks->untaken = 0;
  chunks->ready = 0;
  chunks->active = true;
}

static bool may_plan(const struct fb_chunks *chunks) {
  return chunks->active && !chunks->planning && !chunks->planned_all &&
         chunks->count < chunks->allowed;
}

bool fb_chunks_has_work(const struct fb_chunks *chunks) {
  return chunks->active && (chunks->untaken > 0 || may_plan(chunks));
}

/* Where the next piece is; want 0: none is left.  planning keeps others out. */
static void plan(struct fb_chunks *chunks, struct fb_chunk *next) {
  uint64_t *offset = &next->offset;
  *next = (struct fb_chunk){.offset = chunks->next_offset, .object = FB_OBJECT_ANY};
  if (chunks->next_offset >= chunks->size)
    return;
  if (chunks->sparse && chunks->next_offset >= chunks->extent_end &&
      !fb_next_extent(chunks->fd, chunks->size, offset, &chunks->extent_end)) {
    /* A hole at the end: one zero byte fixes the size at restore. */
    *offset = chunks->size - 1;
    next->want = 1;
    next->hole_byte = true;
    chunks->next_offset = chunks->size;
    return;
  }
  uint64_t end = fb_stripes_piece_end(&chunks->stripes, *offset, FB_CHUNK_BYTES, &next->object);
  if (end > chunks->extent_end)
    end = chunks->extent_end;
  next->want = (uint32_t)(end - *offset);
  chunks->next_offset = end;
}

/* One more piece behind the others.  Of a sparse file without the lock meanwhile, since SEEK_DATA
 * may ask a server. */
static void plan_one(struct fb_chunks *chunks, pthread_mutex_t *lock) {
  struct fb_chunk next;
  chunks->planning = true;
  if (chunks->sparse)
    pthread_mutex_unlock(lock);
  plan(chunks, &next);
  if (chunks->sparse)
    pthread_mutex_lock(lock);
  chunks->planning = false;
  chunks->planned_all = chunks->next_offset >= chunks->size;
  if (next.want == 0 || !chunks->active)
    return;
  chunks->chunk[(chunks->head + chunks->count) % FB_CHUNKS_MAX] = next;
  chunks->count++;
  chunks->untaken++;
}

static struct fb_chunk *chunk_at(struct fb_chunks *chunks, unsigned position) {
  return &chunks->chunk[(chunks->head + position) % FB_CHUNKS_MAX];
}

static unsigned readers_of(struct fb_chunks *chunks, uint64_t object) {
  unsigned readers = 0;
  for (unsigned i = 0; object != FB_OBJECT_ANY && i < chunks->count; i++) {
    const struct fb_chunk *other = chunk_at(chunks, i);
    readers += other->taken && !other->ready && other->object == object;
  }
  return readers;
}

/* Of the pieces on the object that the fewest read from, the first; NULL if all are taken. */
static struct fb_chunk *take(struct fb_chunks *chunks) {
  struct fb_chunk *chosen = NULL;
  unsigned fewest = UINT_MAX;
  for (unsigned i = 0; chunks->untaken > 0 && fewest > 0 && i < chunks->count; i++) {
    struct fb_chunk *chunk = chunk_at(chunks, i);
    unsigned readers = chunk->taken ? UINT_MAX : readers_of(chunks, chunk->object);
    if (readers < fewest) {
      fewest = readers;
      chosen = chunk;
    }
  }
  if (chosen != NULL) {
    chosen->taken = true;
    chunks->untaken--;
  }
  return chosen;
}

static void read_chunk(int fd, struct fb_chunk *chunk) {
  if (chunk->data == NULL)
    chunk->data = malloc(FB_CHUNK_BYTES);
  if (chunk->data == NULL) {
    chunk->error = ENOMEM;
  } else if (chunk->hole_byte) {
    chunk->data[0] = 0;
    chunk->got = 1;
  } else {
    chunk->got = (uint32_t)fb_read_at(fd, chunk->data, chunk->want, chunk->offset, &chunk->error);
  }
}

void fb_chunks_work(struct fb_chunks *chunks, pthread_mutex_t *lock, pthread_cond_t *work) {
  chunks->busy++;
  while (may_plan(chunks)) {
    plan_one(chunks, lock);
    if (chunks->sparse) /* the others need not wait for more */
      break;
  }
  struct fb_chunk *chunk = chunks->active ? take(chunks) : NULL;
  if (chunk != NULL) {
    chunk->data = chunks->spares > 0 ? chunks->spare[--chunks->spares] : NULL;
    if (fb_chunks_has_work(chunks))
      pthread_cond_signal(work);
    pthread_mutex_unlock(lock);
    read_chunk(chunks->fd, chunk);
    pthread_mutex_lock(lock);
    chunk->ready = true;
    if (++chunks->ready == chunks->count && chunks->count == chunks->allowed &&
        chunks->allowed > FB_CHUNKS_MIN)
      chunks->allowed--;
  }
  if (--chunks->busy == 0)
    pthread_cond_broadcast(&chunks->quiet);
}

struct fb_chunk *fb_chunks_head(struct fb_chunks *chunks, bool *at_end) {
  struct fb_chunk *chunk = &chunks->chunk[chunks->head];
  *at_end = chunks->count == 0 && chunks->planned_all && !chunks->planning;
  return chunks->count > 0 && chunk->ready ? chunk : NULL;
}

static void keep_buffer(struct fb_chunks *chunks, struct fb_chunk *chunk) {
  if (chunk->data != NULL)
    chunks->spare[chunks->spares++] = chunk->data;
  chunk->data = NULL;
}

void fb_chunks_pop(struct fb_chunks *chunks) {
  keep_buffer(chunks, &chunks->chunk[chunks->head]);
  chunks->head = (chunks->head + 1) % FB_CHUNKS_MAX;
  chunks->count--;
  chunks->ready--;
}

bool fb_chunks_want_more(struct fb_chunks *chunks) {
  if (chunks->count < chunks->allowed || chunks->allowed == chunks->limit)
    return false;
  chunks->allowed += 1 + chunks->allowed / 2;
  if (chunks->allowed > chunks->limit)
    chunks->allowed = chunks->limit;
  return fb_chunks_has_work(chunks);
}

void fb_chunks_stop(struct fb_chunks *chunks, pthread_mutex_t *lock) {
  chunks->active = false;
  while (chunks->busy > 0)
    pthread_cond_wait(&chunks->quiet, lock);
  for (unsigned i = 0; i < FB_CHUNKS_MAX; i++)
    keep_buffer(chunks, &chunks->chunk[i]);
}
