/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The attributes of docs/formats/attributes.md: the stream, written from a descriptor
 * and read back item by item, and what takes its place where there is nothing but times.
 */
#ifndef FOREBAY_BLOB_H
#define FOREBAY_BLOB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define FB_BLOB_CHUNK_BYTES_MAX 262144

/* A finished stream: chunks one after another in data. */
struct fb_blob {
  uint8_t *data;
  size_t size;
  size_t capacity;
  uint32_t chunk_count;
};

/* An xattr that listxattr does not show, and the value that means the same as none (or
 * NULL).  An array ends with a name of NULL. */
struct fb_unlisted {
  const char *name;
  const char *unset;
};

/* Builds the stream for the open file fd (O_PATH for symlinks and special files:
 * their xattrs are read through /proc/self/fd) whose attributes are st and
 * stx (btime; NULL if unknown).  Beside the xattrs that are listed it has those of
 * unlisted (NULL: none) that the file has.  The buffer of blob is reused.  The stream is empty if
 * the file has no xattrs and fb_short_fits().  Returns 0, or
 * -errno if nothing could be built (ENOMEM).  An xattr that cannot be read becomes
 * a LOST item; *lost counts them, *lost_errno is the first one's errno. */
int fb_blob_build(struct fb_blob *blob, int fd, const struct stat *st, const struct statx *stx,
                  const struct fb_unlisted *unlisted, unsigned *lost, int *lost_errno);

/* Can the nanoseconds of these attributes go where only devices have a number? */
bool fb_short_fits(const struct stat *st);
/* The st_rdev that carries them. */
uint64_t fb_short_rdev(const struct stat *st);

/* The chunk that begins at *offset; advances *offset.  False at the end. */
bool fb_blob_next_chunk(const struct fb_blob *blob, size_t *offset, const uint8_t **chunk,
                        uint32_t *size);

void fb_blob_free(struct fb_blob *blob);

enum { FB_ITEM_STAT = 1, FB_ITEM_XATTR = 2, FB_ITEM_LOST = 3, FB_ITEM_END = 255 };

struct fb_item {
  uint16_t tag;
  const char *name; /* not NUL-terminated */
  uint16_t name_len;
  const uint8_t *value;
  uint32_t value_len;
};

struct fb_stat {
  uint32_t mode, nlink, uid, gid;
  uint64_t rdev, size, ino;
  int64_t atime_s, mtime_s, ctime_s, btime_s;
  uint32_t atime_ns, mtime_ns, ctime_ns, btime_ns;
  uint32_t flags;
};

/* Checks a whole chunk (magic, version, number, lengths, CRC).  0 or -EBADMSG. */
int fb_blob_check(const uint8_t *chunk, size_t size, uint16_t number);

/* The next item of a checked chunk; *offset starts at 0.  1, 0 at the end, or
 * -EBADMSG. */
int fb_blob_item(const uint8_t *chunk, size_t size, size_t *offset, struct fb_item *item);

/* The xattr of that name in a stream whose chunks are checked; false if it has none. */
bool fb_blob_find_xattr(const struct fb_blob *stream, const char *name, struct fb_item *item);

int fb_blob_stat(const struct fb_item *item, struct fb_stat *out);

/* Takes the nanoseconds out of the record of a file that has no stream.  False: it
 * carries none, so that there must be a stream. */
bool fb_short_take(const struct stat *record, struct fb_stat *out);

/* CRC-32 (IEEE 802.3), as zlib's crc32(): start with crc = 0. */
uint32_t fb_crc32(uint32_t crc, const void *data, size_t size);

#endif
