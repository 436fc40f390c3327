/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Reads ahead of the File Daemon: entries go in as the bridge sends them, opened
 * and read files come out in the same order.
 *
 * Covers: the ring of entries (at most the window that the bridge was promised),
 * the pool of threads, the bounds on memory and descriptors.  Does not cover: one file
 * (prefetch.c), one large file (chunks.c), what Bacula gets (backup.c).
 */
#ifndef FOREBAY_READER_H
#define FOREBAY_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frames.h"
#include "prefetch.h"

/* Files that are opened ahead of the one that Bacula is reading. */
#define FB_AHEAD_ENTRIES_MAX 512
/* Paths in memory; beyond it entries wait in the socket. */
#define FB_RING_BYTES_MAX ((size_t)64 << 20)

/* Large files that are open at a time in a job, the head not counted: each holds a
 * descriptor of the File Daemon. */
#define FB_OPEN_LARGE_MAX 16
/* How long the head waits for a descriptor that others give back. */
#ifndef FB_DESCRIPTOR_WAIT_MS
#define FB_DESCRIPTOR_WAIT_MS 30000
#endif

struct fb_reader;

enum fb_next { FB_NEXT_ITEM, FB_NEXT_WAIT, FB_NEXT_END, FB_NEXT_STOPPED };

/* Returns 0 or an errno.  root_fd stays the caller's and must outlive the reader. */
int fb_reader_start(struct fb_reader **reader, int root_fd, const struct fb_accept *accept,
                    enum fb_hsm hsm);
/* Ends every wait; from any thread. */
void fb_reader_stop(struct fb_reader *reader);
void fb_reader_free(struct fb_reader *reader);

/* On the receiving thread: takes the entries of one frame.  -1: refused. */
int fb_reader_push(struct fb_reader *reader, const struct fb_frame *frame,
                   struct fb_stream_state *state, char *error);
void fb_reader_finish(struct fb_reader *reader);
bool fb_reader_has_room(struct fb_reader *reader);

/* On the job's thread.  The head of the line, opened and read; it stays the head
 * until fb_reader_release().  With timeout_ms 0 WAIT is returned if it is not
 * there yet, otherwise after that time.  *starved: nothing has come from the
 * bridge that could be read. */
enum fb_next fb_reader_next(struct fb_reader *reader, long timeout_ms, struct fb_prefetch **item,
                            bool *starved);
/* Reads a follower whole after all, since the name before it was not saved. */
void fb_reader_promote(struct fb_reader *reader, struct fb_prefetch *item);
/* The next bytes of a large head: up to size of them to *offset of the file.
 * Returns their number, 0 at the end, or -errno.  *ended_early: the file ended
 * before its size. */
ssize_t fb_reader_read_large(struct fb_reader *reader, struct fb_prefetch *item, uint8_t *to,
                             size_t size, uint64_t *offset, bool *ended_early);
void fb_reader_release(struct fb_reader *reader, struct fb_prefetch *item);

#endif
