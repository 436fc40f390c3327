/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The content of one regular file as Bacula reads it.
 *
 * Covers: small files from memory, large ones from chunks, offsets of sparse ones,
 * the hash, and files that shrink or fail half-way.  Does not cover: the job log.
 *
 * A small file was read before its attributes went out, so a change is in both.  A
 * large one has promised its size by then: if it shrank, zeros stand for what is
 * gone (a sparse one gets one zero byte at its end), for at restore a file must
 * have the size of its attributes.  If it cannot be read on, it stops there: the
 * restore reports a file that is shorter than its attributes say (restore.c) and
 * leaves it with mode 0600 and the time of the restore.
 */
#ifndef FOREBAY_CONTENT_H
#define FOREBAY_CONTENT_H

#include "reader.h"
#include "xxh3.h"

struct fb_content {
  struct fb_prefetch *item; /* NULL: nothing is to be read */
  struct fb_reader *reader;
  size_t extent;
  uint64_t extent_used;
  uint64_t data_used;
  uint64_t position; /* behind the last byte handed out */
  bool is_at_end;
  bool is_padding;
  struct fb_xxh3 hash; /* of a large file; a small one has it already */
};

void fb_content_start(struct fb_content *content, struct fb_prefetch *item,
                      struct fb_reader *reader);
/* Up to size bytes that belong at *offset; 0 at the end, -ECANCELED if stopped. */
ssize_t fb_content_read(struct fb_content *content, uint8_t *to, size_t size, uint64_t *offset);
/* Has it been read to its end, or is there nothing to read? */
bool fb_content_is_whole(const struct fb_content *content);
/* After the last read: completes status, error, hash and data_size of the item. */
void fb_content_judge(struct fb_content *content, struct fb_prefetch *item);

#endif
