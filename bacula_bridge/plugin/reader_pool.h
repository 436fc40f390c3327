/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The state of a reader and its pool of threads, for reader.c alone.
 *
 * Covers: which entry is opened and read when, what it may take of memory and
 * descriptors, who waits.  Does not cover: entries in and out (reader.c).
 *
 * Positions count entries since the beginning of the stream: head <= large_cursor
 * <= claimed <= tail.  Memory is reserved when an entry is claimed, in the order of
 * the stream and by the size of the scan; a file that has outgrown it is read in
 * chunks, so a thread never waits for memory while it holds a file, and the head
 * may always be claimed.  Attribute streams and lists of extents are counted when
 * they are there; two small buffers that each cell keeps (16 KiB at most) are not.
 *
 * An entry that cannot be opened now (no descriptor, a lease, large beyond the
 * bound) is put off: it holds nothing until it is the head, which alone may wait.
 */
#ifndef FOREBAY_READER_POOL_H
#define FOREBAY_READER_POOL_H

#include <pthread.h>

#include "chunks.h"
#include "reader.h"

/* So many threads open entries also when the job has never to wait. */
#define FB_OPENING_MIN 2

/* Paths of the entries of one frame, freed with the last of them. */
struct block {
  size_t entries_left;
  size_t bytes;
  char data[];
};

struct slot {
  struct fb_entry entry;
  struct block *block;
  bool follower;
};

enum cell_state { CELL_FREE, CELL_CLAIMED, CELL_PUT_OFF, CELL_READY };

struct cell {
  enum cell_state state;
  bool counts_large; /* in open_large */
  struct block *block;
  struct fb_prefetch item;
};

struct fb_reader {
  struct fb_prefetch_source source;
  atomic_bool stop;
  pthread_t *threads;
  unsigned thread_count;
  pthread_mutex_t lock; /* guards what follows */
  pthread_cond_t work;  /* for the pool */
  pthread_cond_t ready; /* for the job's thread */
  pthread_cond_t retry; /* for who waits on behalf of the head; stop wakes it */
  struct slot *ring;
  uint64_t window;
  size_t ring_bytes;
  struct cell *cells; /* FB_AHEAD_ENTRIES_MAX */
  uint64_t head, large_cursor, claimed, tail;
  /* Threads that open entries now, and how many may: more while the job has to wait for
   * the head, fewer while all that may be open is open. */
  unsigned opening, opening_max;
  bool finished;
  bool has_previous; /* the entry before tail could be a first name */
  struct fb_entry previous;
  uint64_t memory_bytes, memory_bytes_max;
  uint64_t lease_wait_ms;
  unsigned open_large;
  struct fb_chunks ahead;     /* the pool's large file */
  struct fb_prefetch *ahead_item;
  struct fb_chunks promoted;  /* the head's, if a promoted follower is large */
  bool promoted_active;
  struct fb_chunk *chunk;     /* being handed out */
  uint32_t chunk_used;
};
static inline struct cell *fb_pool_cell(struct fb_reader *r, uint64_t position) {
  return &r->cells[position % FB_AHEAD_ENTRIES_MAX];
}

static inline bool fb_pool_is_readable(const struct fb_entry *e) {
  return e->error == 0 && (e->flags & FB_ENTRY_DELETED) == 0 && !S_ISSOCK(e->mode);
}

/* The thread of the pool; the argument is the reader. */
void *fb_pool_main(void *argument);
/* How long the head waits for the holder of a lease. */
uint64_t fb_pool_lease_wait_ms(void);

/* What follows is called with the lock held. */

/* Opens and reads, as often as it takes if it is the head, without the lock
 * meanwhile.  False: it would have to wait and is not the head. */
bool fb_pool_fill(struct fb_reader *r, struct fb_prefetch *item, uint64_t position,
                  bool name_only);
/* Counts the memory that is known to be needed only after fb_pool_fill(). */
void fb_pool_count_memory(struct fb_reader *r, struct fb_prefetch *item);
void fb_pool_count_large(struct fb_reader *r, struct cell *cell, bool counts);
/* Begins to read a large file, along its stripes. */
void fb_pool_start_large(struct fb_chunks *chunks, const struct fb_prefetch *item);
/* Gives the pool the first large file, once everything before it is open. */
void fb_pool_find_large(struct fb_reader *r);
/* The job waits for the head: if all that may be opening entries are, let there be more. */
void fb_pool_wants_more(struct fb_reader *r);
/* Is there enough to do for a thread that sleeps? */
bool fb_pool_is_to_wake(struct fb_reader *r);

#endif
