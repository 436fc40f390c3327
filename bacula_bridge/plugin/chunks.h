/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * One large file, read in pieces by several threads and handed out in order.
 *
 * Covers: the plan (1 MiB pieces at multiples of 1 MiB, or as the file is striped; for
 * sparse files the extents of SEEK_DATA), a bounded window of buffers, and which of
 * them is read next: one on the object that the fewest threads read from.  Does not
 * cover: which thread works when (reader.c), what a short file means (backup.c).
 */
#ifndef FOREBAY_CHUNKS_H
#define FOREBAY_CHUNKS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stripes.h"

#define FB_CHUNK_BYTES 1048576
#define FB_CHUNKS_MAX 64
/* So many pieces are read ahead also when nobody has to wait: what is handed out next should
 * still be in a processor's cache. */
#define FB_CHUNKS_MIN 2

struct fb_chunk {
  uint64_t offset;
  uint32_t want;
  uint32_t got; /* less than want: the file ended or error is set */
  int error;
  bool ready;
  uint8_t *data;
  uint64_t object;
  bool taken;     /* by a thread that reads it or has */
  bool hole_byte; /* not read: the zero that fixes the size of a file with a hole at its end */
};

/* Everything but the pread happens under the lock of the owner. */
struct fb_chunks {
  int fd;
  uint64_t size;
  bool sparse;
  struct fb_stripes stripes;
  bool active;
  bool planning;
  bool planned_all;
  uint64_t next_offset; /* where the plan goes on */
  uint64_t extent_end;  /* end of the extent that is being cut */
  unsigned limit;       /* pieces in memory at a time, up to FB_CHUNKS_MAX */
  unsigned allowed;     /* of them now: more while the head is waited for, fewer while all are read */
  unsigned head;
  unsigned count;
  unsigned untaken; /* of count */
  unsigned ready;
  unsigned busy; /* threads within fb_chunks_work() */
  pthread_cond_t quiet;
  struct fb_chunk chunk[FB_CHUNKS_MAX];
  uint8_t *spare[FB_CHUNKS_MAX]; /* buffers, the one used last on top */
  unsigned spares;
};

/* The next extent of data at or after *offset of a file of size bytes: its start in
 * *offset, its end in *end.  False when only a hole is left.  A filesystem that
 * cannot tell has one extent. */
bool fb_next_extent(int fd, uint64_t size, uint64_t *offset, uint64_t *end);

void fb_chunks_init(struct fb_chunks *chunks, unsigned limit);
void fb_chunks_free(struct fb_chunks *chunks);
/* The descriptor stays the caller's and must live until fb_chunks_stop(). stripes is copied. */
void fb_chunks_start(struct fb_chunks *chunks, int fd, uint64_t size, bool sparse,
                     const struct fb_stripes *stripes);
/* Is there a piece that a thread could plan and read now? */
bool fb_chunks_has_work(const struct fb_chunks *chunks);
/* Plans and reads one piece; the lock is held at call and return, not while it reads.
 * Signals work when the next piece may be planned. */
void fb_chunks_work(struct fb_chunks *chunks, pthread_mutex_t *lock, pthread_cond_t *work);
/* The piece to hand out next; NULL if it is not there yet.  *at_end: all are out. */
struct fb_chunk *fb_chunks_head(struct fb_chunks *chunks, bool *at_end);
void fb_chunks_pop(struct fb_chunks *chunks);
/* The head is waited for: if all that may be read is being read, let there be more.  True: so a
 * thread has something to do. */
bool fb_chunks_want_more(struct fb_chunks *chunks);
/* Waits for the threads within and forgets the file. */
void fb_chunks_stop(struct fb_chunks *chunks, pthread_mutex_t *lock);

#endif
