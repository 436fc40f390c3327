/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See chunks.h.
 */
#include "chunks.h"

#include <errno.h>
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

void fb_chunks_start(struct fb_chunks *chunks, int fd, uint64_t size, bool sparse) {
  chunks->fd = fd;
  chunks->size = size;
  chunks->sparse = sparse;
  chunks->next_offset = 0;
  chunks->extent_end = sparse ? 0 : size;
  chunks->planning = false;
  chunks->planned_all = false;
  chunks->head = 0;
  chunks->count = 0;
  chunks->ready = 0;
  chunks->active = true;
}

bool fb_chunks_has_work(const struct fb_chunks *chunks) {
  return chunks->active && !chunks->planning && !chunks->planned_all &&
         chunks->count < chunks->allowed;
}

/* The bytes [*offset, *offset + *want) come next; want 0: none are left.  Without
 * the lock, since SEEK_DATA may ask a server; planning keeps others out. */
static void plan(struct fb_chunks *chunks, uint64_t *offset, uint32_t *want, bool *hole_byte) {
  *want = 0;
  *hole_byte = false;
  *offset = chunks->next_offset;
  if (chunks->next_offset >= chunks->size)
    return;
  if (chunks->sparse && chunks->next_offset >= chunks->extent_end &&
      !fb_next_extent(chunks->fd, chunks->size, offset, &chunks->extent_end)) {
    /* A hole at the end: one zero byte fixes the size at restore. */
    *offset = chunks->size - 1;
    *want = 1;
    *hole_byte = true;
    chunks->next_offset = chunks->size;
    return;
  }
  uint64_t end = (*offset / FB_CHUNK_BYTES + 1) * FB_CHUNK_BYTES;
  if (end > chunks->extent_end)
    end = chunks->extent_end;
  *want = (uint32_t)(end - *offset);
  chunks->next_offset = end;
}

static void read_chunk(int fd, struct fb_chunk *chunk) {
  if (chunk->data == NULL)
    chunk->data = malloc(FB_CHUNK_BYTES);
  if (chunk->data == NULL) {
    chunk->error = ENOMEM;
    return;
  }
  ssize_t n = fb_read_at(fd, chunk->data, chunk->want, chunk->offset, &chunk->error);
  chunk->got = (uint32_t)n;
}

void fb_chunks_work(struct fb_chunks *chunks, pthread_mutex_t *lock, pthread_cond_t *work) {
  uint64_t offset;
  uint32_t want;
  bool hole_byte;
  chunks->busy++;
  chunks->planning = true;
  pthread_mutex_unlock(lock);
  plan(chunks, &offset, &want, &hole_byte);
  pthread_mutex_lock(lock);
  chunks->planning = false;
  chunks->planned_all = chunks->next_offset >= chunks->size;
  if (want > 0 && chunks->active) {
    struct fb_chunk *chunk = &chunks->chunk[(chunks->head + chunks->count) % FB_CHUNKS_MAX];
    chunks->count++;
    chunk->offset = offset;
    chunk->want = want;
    chunk->got = 0;
    chunk->error = 0;
    chunk->ready = false;
    chunk->data = chunks->spares > 0 ? chunks->spare[--chunks->spares] : NULL;
    if (fb_chunks_has_work(chunks))
      pthread_cond_signal(work);
    pthread_mutex_unlock(lock);
    if (hole_byte && (chunk->data != NULL || (chunk->data = malloc(FB_CHUNK_BYTES)) != NULL)) {
      chunk->data[0] = 0;
      chunk->got = 1;
    } else {
      read_chunk(chunks->fd, chunk);
    }
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
