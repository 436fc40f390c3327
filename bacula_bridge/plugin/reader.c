/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See reader.h.
 */
#include "reader_pool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "threads.h"

static void release_block(struct fb_reader *r, struct block *block) {
  if (--block->entries_left > 0)
    return;
  r->ring_bytes -= block->bytes;
  free(block);
}

/* Chunks get a quarter of the memory, small files the rest. */
static void divide_memory(struct fb_reader *r, const struct fb_accept *accept) {
  uint64_t chunks = accept->prefetch_bytes / 4 / FB_CHUNK_BYTES;
  if (chunks > 2 * (uint64_t)accept->threads)
    chunks = 2 * (uint64_t)accept->threads;
  if (chunks < 2)
    chunks = 2;
  fb_chunks_init(&r->ahead, (unsigned)chunks);
  fb_chunks_init(&r->promoted, 1);
  uint64_t used = r->ahead.limit * (uint64_t)FB_CHUNK_BYTES;
  r->memory_bytes_max = accept->prefetch_bytes > used ? accept->prefetch_bytes - used : 0;
}

int fb_reader_start(struct fb_reader **reader, int root_fd, const struct fb_accept *accept,
                    enum fb_hsm hsm) {
  struct fb_reader *r = calloc(1, sizeof *r);
  if (r == NULL)
    return ENOMEM;
  r->source.large_file_bytes = accept->large_file_bytes;
  r->source.inode_mask = accept->inode_mask;
  r->source.snapshot_ns = accept->snapshot_ns;
  r->source.stop = &r->stop;
  r->source.hsm = hsm;
  fb_prefetch_source_set_root(&r->source, root_fd);
  r->opening_max = FB_OPENING_MIN;
  r->lease_wait_ms = fb_pool_lease_wait_ms();
  r->window = accept->window_entries;
  r->ring = calloc(r->window, sizeof *r->ring);
  r->cells = calloc(FB_AHEAD_ENTRIES_MAX, sizeof *r->cells);
  r->threads = calloc(accept->threads, sizeof *r->threads);
  pthread_mutex_init(&r->lock, NULL);
  fb_condition_init(&r->work);
  fb_condition_init(&r->ready);
  fb_condition_init(&r->retry);
  divide_memory(r, accept);
  int rc = r->ring == NULL || r->cells == NULL || r->threads == NULL ? ENOMEM : 0;
  for (size_t i = 0; r->cells != NULL && i < FB_AHEAD_ENTRIES_MAX; i++)
    r->cells[i].item.fd = -1;
  while (rc == 0 && r->thread_count < accept->threads) {
    rc = fb_thread_start(&r->threads[r->thread_count], fb_pool_main, r);
    if (rc == 0)
      r->thread_count++;
  }
  if (r->thread_count > 0) /* fewer threads are slower, not wrong */
    rc = 0;
  if (rc != 0) {
    fb_reader_free(r);
    return rc;
  }
  *reader = r;
  return 0;
}

void fb_reader_stop(struct fb_reader *reader) {
  pthread_mutex_lock(&reader->lock);
  atomic_store(&reader->stop, true);
  pthread_cond_broadcast(&reader->work);
  pthread_cond_broadcast(&reader->ready);
  pthread_cond_broadcast(&reader->retry);
  pthread_mutex_unlock(&reader->lock);
}

void fb_reader_free(struct fb_reader *r) {
  if (r == NULL)
    return;
  fb_reader_stop(r);
  for (unsigned i = 0; i < r->thread_count; i++)
    pthread_join(r->threads[i], NULL);
  for (uint64_t p = r->head; p < r->tail; p++)
    release_block(r, r->ring[p % r->window].block);
  for (size_t i = 0; r->cells != NULL && i < FB_AHEAD_ENTRIES_MAX; i++)
    fb_prefetch_free(&r->cells[i].item);
  fb_chunks_free(&r->ahead);
  fb_chunks_free(&r->promoted);
  pthread_cond_destroy(&r->work);
  pthread_cond_destroy(&r->ready);
  pthread_cond_destroy(&r->retry);
  pthread_mutex_destroy(&r->lock);
  free(r->threads);
  free(r->cells);
  free(r->ring);
  free(r);
}

static bool may_have_names(const struct fb_entry *e) {
  return fb_pool_is_readable(e) && e->nlink > 1 && !S_ISDIR(e->mode);
}

/* Copies the paths of a frame once; the entries point into the copy. */
static int take_entries(struct fb_reader *r, struct fb_entries *entries,
                        struct fb_stream_state *state, char *error) {
  size_t bytes = sizeof(struct block) + entries->path_bytes_left;
  struct block *block = malloc(bytes + 1);
  if (block == NULL) {
    snprintf(error, FB_ERROR_BYTES, "no memory for the entries of a frame");
    return -1;
  }
  *block = (struct block){1, bytes}; /* the one is ours until the end */
  memcpy(block->data, entries->path, entries->path_bytes_left);
  const char *base = entries->path;
  r->ring_bytes += bytes;
  struct fb_entry entry;
  int rc;
  while ((rc = fb_entries_next(entries, state, &entry, error)) > 0) {
    if (r->tail - r->head >= r->window) {
      snprintf(error, FB_ERROR_BYTES, "the bridge sent more than the %llu entries of its window",
               (unsigned long long)r->window);
      rc = -1;
      break;
    }
    entry.path = block->data + (entry.path - base);
    bool follower = r->has_previous && may_have_names(&entry) && r->previous.ino == entry.ino &&
                    (r->previous.mode & S_IFMT) == (entry.mode & S_IFMT);
    r->ring[r->tail % r->window] = (struct slot){entry, block, follower};
    block->entries_left++;
    r->tail++;
    r->has_previous = may_have_names(&entry);
    r->previous = entry;
  }
  release_block(r, block);
  return rc;
}

int fb_reader_push(struct fb_reader *reader, const struct fb_frame *frame,
                   struct fb_stream_state *state, char *error) {
  struct fb_entries entries;
  if (fb_entries_begin(frame, state, &entries, error) < 0)
    return -1;
  pthread_mutex_lock(&reader->lock);
  int rc = take_entries(reader, &entries, state, error);
  if (fb_pool_is_to_wake(reader)) /* who is woken wakes the next */
    pthread_cond_signal(&reader->work);
  pthread_mutex_unlock(&reader->lock);
  return rc;
}

void fb_reader_finish(struct fb_reader *reader) {
  pthread_mutex_lock(&reader->lock);
  reader->finished = true;
  pthread_cond_signal(&reader->ready);
  pthread_mutex_unlock(&reader->lock);
}

bool fb_reader_has_room(struct fb_reader *reader) {
  pthread_mutex_lock(&reader->lock);
  bool room = reader->ring_bytes < FB_RING_BYTES_MAX;
  pthread_mutex_unlock(&reader->lock);
  return room;
}

enum fb_next fb_reader_next(struct fb_reader *r, long timeout_ms, struct fb_prefetch **item,
                            bool *starved) {
  enum fb_next next = FB_NEXT_WAIT;
  pthread_mutex_lock(&r->lock);
  for (int round = 0; round < 2; round++) {
    struct cell *cell = fb_pool_cell(r, r->head);
    if (atomic_load(&r->stop)) {
      next = FB_NEXT_STOPPED;
    } else if (r->head < r->claimed && cell->state == CELL_READY) {
      *item = &cell->item;
      next = FB_NEXT_ITEM;
    } else if (r->finished && r->head == r->tail) {
      next = FB_NEXT_END;
    }
    if (next != FB_NEXT_WAIT || timeout_ms == 0)
      break;
    fb_pool_wants_more(r);
    if (round == 0)
      fb_condition_wait_ms(&r->ready, &r->lock, timeout_ms);
  }
  *starved = r->head == r->tail;
  pthread_mutex_unlock(&r->lock);
  return next;
}

void fb_reader_promote(struct fb_reader *r, struct fb_prefetch *item) {
  pthread_mutex_lock(&r->lock);
  r->memory_bytes -= item->reserved_bytes;
  item->reserved_bytes = 0;
  if (item->entry.size < r->source.large_file_bytes) {
    /* The head may always be read; the memory is counted all the same. */
    item->reserved_bytes = item->entry.size;
    r->memory_bytes += item->reserved_bytes;
  }
  fb_pool_fill(r, item, r->head, false);
  fb_pool_count_memory(r, item);
  if (item->large) {
    r->promoted_active = true;
    fb_pool_start_large(&r->promoted, item);
  }
  pthread_mutex_unlock(&r->lock);
}

static struct fb_chunks *chunks_of_head(struct fb_reader *r) {
  return r->promoted_active ? &r->promoted : &r->ahead;
}

/* The chunk to hand out.  A promoted file has no other thread than this one. */
static int wait_for_chunk(struct fb_reader *r, struct fb_prefetch *item) {
  while (r->chunk == NULL) {
    if (atomic_load(&r->stop))
      return -ECANCELED;
    if (!r->promoted_active && r->ahead_item != item) {
      fb_condition_wait_ms(&r->ready, &r->lock, 1000);
      continue;
    }
    struct fb_chunks *chunks = chunks_of_head(r);
    bool at_end;
    r->chunk = fb_chunks_head(chunks, &at_end);
    r->chunk_used = 0;
    if (r->chunk != NULL)
      return 1;
    if (at_end)
      return 0;
    if (r->promoted_active && fb_chunks_has_work(chunks)) {
      fb_chunks_work(chunks, &r->lock, &r->work);
    } else {
      if (fb_chunks_want_more(chunks))
        pthread_cond_signal(&r->work);
      fb_condition_wait_ms(&r->ready, &r->lock, 1000);
    }
  }
  return 1;
}

ssize_t fb_reader_read_large(struct fb_reader *r, struct fb_prefetch *item, uint8_t *to,
                             size_t size, uint64_t *offset, bool *ended_early) {
  *ended_early = false;
  pthread_mutex_lock(&r->lock);
  int rc = wait_for_chunk(r, item);
  struct fb_chunk *chunk = r->chunk;
  pthread_mutex_unlock(&r->lock);
  if (rc <= 0)
    return rc;
  size_t take = chunk->got - r->chunk_used;
  if (take == 0) { /* got less than wanted, and that is handed out */
    *ended_early = chunk->error == 0;
    return -chunk->error;
  }
  if (take > size)
    take = size;
  memcpy(to, chunk->data + r->chunk_used, take);
  *offset = chunk->offset + r->chunk_used;
  r->chunk_used += (uint32_t)take;
  if (r->chunk_used == chunk->want) {
    pthread_mutex_lock(&r->lock);
    r->chunk = NULL;
    fb_chunks_pop(chunks_of_head(r));
    pthread_cond_signal(&r->work);
    pthread_mutex_unlock(&r->lock);
  }
  return (ssize_t)take;
}

void fb_reader_release(struct fb_reader *r, struct fb_prefetch *item) {
  pthread_mutex_lock(&r->lock);
  struct cell *cell = fb_pool_cell(r, r->head);
  if (r->promoted_active) {
    fb_chunks_stop(&r->promoted, &r->lock);
    r->promoted_active = false;
  } else if (r->ahead_item == item) {
    fb_chunks_stop(&r->ahead, &r->lock);
    r->ahead_item = NULL;
  }
  r->chunk = NULL;
  r->memory_bytes -= item->reserved_bytes;
  pthread_mutex_unlock(&r->lock);
  fb_prefetch_clear(item);
  pthread_mutex_lock(&r->lock);
  fb_pool_count_large(r, cell, false);
  cell->state = CELL_FREE;
  release_block(r, cell->block);
  r->head++;
  if (r->large_cursor < r->head)
    r->large_cursor = r->head;
  fb_pool_find_large(r);
  if (fb_pool_is_to_wake(r))
    pthread_cond_signal(&r->work);
  pthread_mutex_unlock(&r->lock);
}
