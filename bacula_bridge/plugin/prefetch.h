/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * One entry, opened and read ahead: what Bacula is going to get of it.
 *
 * Covers: open below the root, the check that it is the inode the entry tells and on
 * the root's filesystem, attributes, the whole content of a small file.  Does not
 * cover: the content of a large one (chunks.c), order and memory over several
 * entries (reader.c).
 */
#ifndef FOREBAY_PREFETCH_H
#define FOREBAY_PREFETCH_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "blob.h"
#include "frames.h"
#include "layout.h"

/* Why an entry could not be opened yet. */
enum fb_retry { FB_RETRY_NONE, FB_RETRY_DESCRIPTOR, FB_RETRY_LEASE };

/* A piece of content; the pieces of a small file stand one behind the other. */
struct fb_extent {
  uint64_t offset;
  uint64_t size;
};

struct fb_prefetch {
  struct fb_entry entry; /* its path belongs to the reader */
  bool follower;         /* a further name of the inode just before it in the stream */
  bool needs_data;       /* a follower: opened and checked, not read */
  bool large;            /* fd is open, the content is to be read in chunks */
  bool sparse;           /* the content goes with offsets */
  enum fb_status status; /* SAVED, CHANGED, STUB or why nothing can be sent */
  int error;             /* errno, positive */
  enum fb_retry retry;   /* what error may pass with, if asked again */
  unsigned lost_xattrs;
  int lost_errno;
  int fd; /* -1 unless large */
  struct stat st;
  uint64_t data_version; /* of Lustre, before the first byte was read; 0: not known */
  int64_t read_ns; /* when it was begun to be read: CLOCK_REALTIME, ns */
  struct fb_blob blob;
  struct fb_layout layout; /* of a regular file */
  char *target; /* of a symlink */
  uint8_t *data;
  size_t data_size, data_capacity;
  struct fb_extent *extents; /* NULL: one extent at 0 */
  size_t extent_count, extent_capacity;
  uint8_t hash[16];
  uint64_t reserved_bytes; /* of the reader's memory */
};

struct fb_prefetch_source {
  int root_fd;
  bool root_mount_known; /* not before Linux 5.8 */
  uint64_t root_mount;
  enum fb_layout_kind layouts; /* whose tree it is */
  enum fb_hsm hsm;             /* what becomes of released files */
  uint64_t large_file_bytes;
  uint64_t inode_mask; /* bits of an inode number that are the entry's */
  int64_t snapshot_ns; /* what is read is of this time at the latest */
  const atomic_bool *stop;
};

/* Sets the root's descriptor, which stays the caller's, its mount and the kind of layouts. */
void fb_prefetch_source_set_root(struct fb_prefetch_source *source, int root_fd);
/* Opens and reads; a regular file that needs more than reserved_bytes or has
 * large_file_bytes becomes large.  name_only: opens and checks, no more.  With
 * item->retry set nothing is held, and it may be called again. */
void fb_prefetch_fill(struct fb_prefetch *item, const struct fb_prefetch_source *source, bool name_only);
/* Gives back what fill took, but for small buffers that the next entry can use. */
void fb_prefetch_clear(struct fb_prefetch *item);
void fb_prefetch_free(struct fb_prefetch *item);

/* Reads size bytes at offset unless the file ends or fails before; returns the
 * bytes read, *error is 0 or an errno. */
ssize_t fb_read_at(int fd, uint8_t *to, size_t size, uint64_t offset, int *error);
/* Has size, mtime or ctime moved? */
bool fb_stat_moved(const struct stat *before, const struct stat *now);
/* Has the open file moved since it was looked at, by its attributes or its data version? */
bool fb_prefetch_moved(const struct fb_prefetch *item, int fd);

#endif
