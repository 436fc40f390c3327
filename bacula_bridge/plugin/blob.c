/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See blob.h and docs/formats/attributes.md.
 */
#include "blob.h"

#include <errno.h>
#include <limits.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#define BLOB_MAGIC 0x31414246u
#define BLOB_VERSION 1
#define CHUNK_HEADER_BYTES 16
#define ITEM_HEADER_BYTES 8
#define STAT_VALUE_BYTES 96
#define STAT_BTIME_KNOWN 0x1u

#define NS_MAX 999999999

/* st_rdev of what is no device: the mark, mtime ns, atime ns.  Bacula's LStat takes 63
 * bits of it. */
#define SHORT_NS_BITS 30
#define SHORT_NS_MASK ((UINT64_C(1) << SHORT_NS_BITS) - 1)
#define SHORT_MARK (UINT64_C(5) << 60)
#define SHORT_MARK_MASK (UINT64_C(15) << 60)

/* What one file may carry.  Beyond it xattrs are LOST with E2BIG: ext4 and Lustre
 * allow 64 KiB in all, only XFS and ZFS would let a user pile up more. */
#define BLOB_BYTES_MAX ((size_t)16 << 20)

/* Most lists of names fit this; a longer one is read into the heap. */
#define XATTR_LIST_BYTES_SHORT 1024

static const uint32_t CRC_TABLE[256] = {
    0x00000000, 0x77073096, 0xee0e612c, 0x990951ba, 0x076dc419, 0x706af48f, 0xe963a535, 0x9e6495a3,
    0x0edb8832, 0x79dcb8a4, 0xe0d5e91e, 0x97d2d988, 0x09b64c2b, 0x7eb17cbd, 0xe7b82d07, 0x90bf1d91,
    0x1db71064, 0x6ab020f2, 0xf3b97148, 0x84be41de, 0x1adad47d, 0x6ddde4eb, 0xf4d4b551, 0x83d385c7,
    0x136c9856, 0x646ba8c0, 0xfd62f97a, 0x8a65c9ec, 0x14015c4f, 0x63066cd9, 0xfa0f3d63, 0x8d080df5,
    0x3b6e20c8, 0x4c69105e, 0xd56041e4, 0xa2677172, 0x3c03e4d1, 0x4b04d447, 0xd20d85fd, 0xa50ab56b,
    0x35b5a8fa, 0x42b2986c, 0xdbbbc9d6, 0xacbcf940, 0x32d86ce3, 0x45df5c75, 0xdcd60dcf, 0xabd13d59,
    0x26d930ac, 0x51de003a, 0xc8d75180, 0xbfd06116, 0x21b4f4b5, 0x56b3c423, 0xcfba9599, 0xb8bda50f,
    0x2802b89e, 0x5f058808, 0xc60cd9b2, 0xb10be924, 0x2f6f7c87, 0x58684c11, 0xc1611dab, 0xb6662d3d,
    0x76dc4190, 0x01db7106, 0x98d220bc, 0xefd5102a, 0x71b18589, 0x06b6b51f, 0x9fbfe4a5, 0xe8b8d433,
    0x7807c9a2, 0x0f00f934, 0x9609a88e, 0xe10e9818, 0x7f6a0dbb, 0x086d3d2d, 0x91646c97, 0xe6635c01,
    0x6b6b51f4, 0x1c6c6162, 0x856530d8, 0xf262004e, 0x6c0695ed, 0x1b01a57b, 0x8208f4c1, 0xf50fc457,
    0x65b0d9c6, 0x12b7e950, 0x8bbeb8ea, 0xfcb9887c, 0x62dd1ddf, 0x15da2d49, 0x8cd37cf3, 0xfbd44c65,
    0x4db26158, 0x3ab551ce, 0xa3bc0074, 0xd4bb30e2, 0x4adfa541, 0x3dd895d7, 0xa4d1c46d, 0xd3d6f4fb,
    0x4369e96a, 0x346ed9fc, 0xad678846, 0xda60b8d0, 0x44042d73, 0x33031de5, 0xaa0a4c5f, 0xdd0d7cc9,
    0x5005713c, 0x270241aa, 0xbe0b1010, 0xc90c2086, 0x5768b525, 0x206f85b3, 0xb966d409, 0xce61e49f,
    0x5edef90e, 0x29d9c998, 0xb0d09822, 0xc7d7a8b4, 0x59b33d17, 0x2eb40d81, 0xb7bd5c3b, 0xc0ba6cad,
    0xedb88320, 0x9abfb3b6, 0x03b6e20c, 0x74b1d29a, 0xead54739, 0x9dd277af, 0x04db2615, 0x73dc1683,
    0xe3630b12, 0x94643b84, 0x0d6d6a3e, 0x7a6a5aa8, 0xe40ecf0b, 0x9309ff9d, 0x0a00ae27, 0x7d079eb1,
    0xf00f9344, 0x8708a3d2, 0x1e01f268, 0x6906c2fe, 0xf762575d, 0x806567cb, 0x196c3671, 0x6e6b06e7,
    0xfed41b76, 0x89d32be0, 0x10da7a5a, 0x67dd4acc, 0xf9b9df6f, 0x8ebeeff9, 0x17b7be43, 0x60b08ed5,
    0xd6d6a3e8, 0xa1d1937e, 0x38d8c2c4, 0x4fdff252, 0xd1bb67f1, 0xa6bc5767, 0x3fb506dd, 0x48b2364b,
    0xd80d2bda, 0xaf0a1b4c, 0x36034af6, 0x41047a60, 0xdf60efc3, 0xa867df55, 0x316e8eef, 0x4669be79,
    0xcb61b38c, 0xbc66831a, 0x256fd2a0, 0x5268e236, 0xcc0c7795, 0xbb0b4703, 0x220216b9, 0x5505262f,
    0xc5ba3bbe, 0xb2bd0b28, 0x2bb45a92, 0x5cb36a04, 0xc2d7ffa7, 0xb5d0cf31, 0x2cd99e8b, 0x5bdeae1d,
    0x9b64c2b0, 0xec63f226, 0x756aa39c, 0x026d930a, 0x9c0906a9, 0xeb0e363f, 0x72076785, 0x05005713,
    0x95bf4a82, 0xe2b87a14, 0x7bb12bae, 0x0cb61b38, 0x92d28e9b, 0xe5d5be0d, 0x7cdcefb7, 0x0bdbdf21,
    0x86d3d2d4, 0xf1d4e242, 0x68ddb3f8, 0x1fda836e, 0x81be16cd, 0xf6b9265b, 0x6fb077e1, 0x18b74777,
    0x88085ae6, 0xff0f6a70, 0x66063bca, 0x11010b5c, 0x8f659eff, 0xf862ae69, 0x616bffd3, 0x166ccf45,
    0xa00ae278, 0xd70dd2ee, 0x4e048354, 0x3903b3c2, 0xa7672661, 0xd06016f7, 0x4969474d, 0x3e6e77db,
    0xaed16a4a, 0xd9d65adc, 0x40df0b66, 0x37d83bf0, 0xa9bcae53, 0xdebb9ec5, 0x47b2cf7f, 0x30b5ffe9,
    0xbdbdf21c, 0xcabac28a, 0x53b39330, 0x24b4a3a6, 0xbad03605, 0xcdd70693, 0x54de5729, 0x23d967bf,
    0xb3667a2e, 0xc4614ab8, 0x5d681b02, 0x2a6f2b94, 0xb40bbe37, 0xc30c8ea1, 0x5a05df1b, 0x2d02ef8d,
};

uint32_t fb_crc32(uint32_t crc, const void *data, size_t size) {
  const uint8_t *byte = data;
  crc = ~crc;
  while (size-- > 0)
    crc = CRC_TABLE[(crc ^ *byte++) & 0xff] ^ (crc >> 8);
  return ~crc;
}

/* Little-endian, at any alignment. */
static void put_u16(uint8_t *to, uint16_t value) {
  to[0] = (uint8_t)value;
  to[1] = (uint8_t)(value >> 8);
}

static void put_u32(uint8_t *to, uint32_t value) {
  put_u16(to, (uint16_t)value);
  put_u16(to + 2, (uint16_t)(value >> 16));
}

static void put_u64(uint8_t *to, uint64_t value) {
  put_u32(to, (uint32_t)value);
  put_u32(to + 4, (uint32_t)(value >> 32));
}

static uint16_t get_u16(const uint8_t *from) { return (uint16_t)(from[0] | from[1] << 8); }

static uint32_t get_u32(const uint8_t *from) {
  return get_u16(from) | (uint32_t)get_u16(from + 2) << 16;
}

static uint64_t get_u64(const uint8_t *from) {
  return get_u32(from) | (uint64_t)get_u32(from + 4) << 32;
}

/* The stream while it is being written: where the current chunk began and how
 * many items all chunks hold. */
struct writer {
  struct fb_blob *blob;
  size_t chunk_start;
  uint32_t item_count;
};

static int reserve(struct fb_blob *blob, size_t more) {
  if (blob->capacity - blob->size >= more)
    return 0;
  size_t capacity = blob->capacity != 0 ? blob->capacity : 512;
  while (capacity - blob->size < more)
    capacity *= 2;
  uint8_t *data = realloc(blob->data, capacity);
  if (data == NULL)
    return -ENOMEM;
  blob->data = data;
  blob->capacity = capacity;
  return 0;
}

static void finish_chunk(struct writer *w) {
  uint8_t *head = w->blob->data + w->chunk_start;
  size_t length = w->blob->size - w->chunk_start - CHUNK_HEADER_BYTES;
  put_u32(head, BLOB_MAGIC);
  put_u16(head + 4, BLOB_VERSION);
  put_u16(head + 6, (uint16_t)w->blob->chunk_count);
  put_u32(head + 8, (uint32_t)length);
  put_u32(head + 12, fb_crc32(0, head + CHUNK_HEADER_BYTES, length));
  w->blob->chunk_count++;
}

static int begin_chunk(struct writer *w) {
  if (reserve(w->blob, CHUNK_HEADER_BYTES) < 0)
    return -ENOMEM;
  w->chunk_start = w->blob->size;
  w->blob->size += CHUNK_HEADER_BYTES;
  return 0;
}

/* Room for an item of value_max bytes in the current or in a new chunk; *value is
 * where the value goes.  finish_item() keeps it, otherwise nothing was written. */
static int begin_item(struct writer *w, const char *name, size_t name_len, size_t value_max,
                      uint8_t **value) {
  size_t bytes = ITEM_HEADER_BYTES + name_len + value_max;
  if (w->blob->size - w->chunk_start + bytes > FB_BLOB_CHUNK_BYTES_MAX) {
    finish_chunk(w);
    if (begin_chunk(w) < 0)
      return -ENOMEM;
  }
  if (reserve(w->blob, bytes) < 0)
    return -ENOMEM;
  uint8_t *item = w->blob->data + w->blob->size;
  if (name_len != 0)
    memcpy(item + ITEM_HEADER_BYTES, name, name_len);
  *value = item + ITEM_HEADER_BYTES + name_len;
  return 0;
}

static void finish_item(struct writer *w, uint16_t tag, size_t name_len, size_t value_len) {
  uint8_t *item = w->blob->data + w->blob->size;
  put_u16(item, tag);
  put_u16(item + 2, (uint16_t)name_len);
  put_u32(item + 4, (uint32_t)value_len);
  w->blob->size += ITEM_HEADER_BYTES + name_len + value_len;
  w->item_count++;
}

static int put_stat(struct writer *w, const struct stat *st, const struct statx *stx) {
  uint8_t *v;
  if (begin_item(w, "", 0, STAT_VALUE_BYTES, &v) < 0)
    return -ENOMEM;
  bool has_btime = stx != NULL && (stx->stx_mask & STATX_BTIME) != 0;
  put_u32(v, st->st_mode);
  put_u32(v + 4, st->st_nlink > UINT32_MAX ? UINT32_MAX : (uint32_t)st->st_nlink);
  put_u32(v + 8, st->st_uid);
  put_u32(v + 12, st->st_gid);
  put_u64(v + 16, st->st_rdev);
  put_u64(v + 24, (uint64_t)st->st_size);
  put_u64(v + 32, st->st_ino);
  put_u64(v + 40, (uint64_t)st->st_atim.tv_sec);
  put_u64(v + 48, (uint64_t)st->st_mtim.tv_sec);
  put_u64(v + 56, (uint64_t)st->st_ctim.tv_sec);
  put_u64(v + 64, has_btime ? (uint64_t)stx->stx_btime.tv_sec : 0);
  put_u32(v + 72, (uint32_t)st->st_atim.tv_nsec);
  put_u32(v + 76, (uint32_t)st->st_mtim.tv_nsec);
  put_u32(v + 80, (uint32_t)st->st_ctim.tv_nsec);
  put_u32(v + 84, has_btime ? stx->stx_btime.tv_nsec : 0);
  put_u32(v + 88, has_btime ? STAT_BTIME_KNOWN : 0);
  put_u32(v + 92, 0);
  finish_item(w, FB_ITEM_STAT, 0, STAT_VALUE_BYTES);
  return 0;
}

/* Where xattrs are read from: the descriptor, or, if it is an O_PATH one, its link
 * in /proc, which leads to the very inode, also to a symlink itself. */
struct xattr_source {
  int fd;
  bool through_proc;
  char proc_path[40];
};

static ssize_t list_names(struct xattr_source *from, char *names, size_t size) {
  if (!from->through_proc) {
    ssize_t length = flistxattr(from->fd, names, size);
    if (length >= 0 || errno != EBADF)
      return length;
    from->through_proc = true;
    snprintf(from->proc_path, sizeof(from->proc_path), "/proc/self/fd/%d", from->fd);
  }
  return listxattr(from->proc_path, names, size);
}

static ssize_t read_value(const struct xattr_source *from, const char *name, void *value,
                          size_t size) {
  return from->through_proc ? getxattr(from->proc_path, name, value, size)
                            : fgetxattr(from->fd, name, value, size);
}

struct listing {
  struct xattr_source from;
  char names[XATTR_LIST_BYTES_SHORT];
  ssize_t length;
  int error; /* errno if length is negative */
};

static void list_xattrs(struct listing *listing, int fd) {
  listing->from = (struct xattr_source){.fd = fd};
  listing->length = list_names(&listing->from, listing->names, sizeof(listing->names));
  listing->error = listing->length < 0 ? errno : 0;
}

static bool has_no_xattrs(const struct listing *listing) {
  return listing->length == 0 || listing->error == ENOTSUP;
}

struct losses {
  unsigned count;
  int first_errno;
};

static int put_lost(struct writer *w, const char *name, size_t name_len, int error,
                    struct losses *losses) {
  uint8_t *value;
  if (losses->count++ == 0)
    losses->first_errno = error;
  if (begin_item(w, name, name_len, 4, &value) < 0)
    return -ENOMEM;
  put_u32(value, (uint32_t)error);
  finish_item(w, FB_ITEM_LOST, name_len, 4);
  return 0;
}

/* unlisted is NULL for what was listed. */
static int put_xattr(struct writer *w, const struct xattr_source *from, const char *name,
                     size_t name_len, const struct fb_unlisted *unlisted, struct losses *losses) {
  const char *unset = unlisted != NULL ? unlisted->unset : NULL;
  uint8_t *value;
  /* Asking for the size first costs a call; a value rarely needs more than this. */
  size_t value_max = 256;
  if (w->blob->size + XATTR_SIZE_MAX > BLOB_BYTES_MAX)
    return put_lost(w, name, name_len, E2BIG, losses);
  for (;;) {
    if (begin_item(w, name, name_len, value_max, &value) < 0)
      return -ENOMEM;
    ssize_t length = read_value(from, name, value, value_max);
    if (length >= 0 && unset != NULL && (size_t)length == strlen(unset) &&
        memcmp(value, unset, (size_t)length) == 0)
      return 0;
    if (length >= 0) {
      finish_item(w, FB_ITEM_XATTR, name_len, (size_t)length);
      return 0;
    }
    if (errno == ENODATA) /* removed since it was listed, or not there */
      return 0;
    if (errno == ENOTSUP && unlisted != NULL) /* another filesystem is mounted there */
      return 0;
    if (errno != ERANGE || value_max == XATTR_SIZE_MAX)
      return put_lost(w, name, name_len, errno, losses);
    value_max = XATTR_SIZE_MAX;
  }
}

static int put_listed_xattrs(struct writer *w, const struct xattr_source *from,
                             const char *names, size_t size, struct losses *losses) {
  const char *end = names + size;
  while (names < end) {
    size_t length = strnlen(names, (size_t)(end - names));
    if (length == (size_t)(end - names)) /* no NUL: not a list that a kernel made */
      return put_lost(w, "", 0, EIO, losses);
    int rc = 0;
    if (length > 0 && length <= XATTR_NAME_MAX)
      rc = put_xattr(w, from, names, length, NULL, losses);
    if (rc < 0)
      return rc;
    names += length + 1;
  }
  return 0;
}

static int put_xattrs(struct writer *w, struct listing *listing, struct losses *losses) {
  struct xattr_source *from = &listing->from;
  if (has_no_xattrs(listing))
    return 0;
  if (listing->length > 0)
    return put_listed_xattrs(w, from, listing->names, (size_t)listing->length, losses);
  if (listing->error != ERANGE)
    return put_lost(w, "", 0, listing->error, losses);
  char *list = malloc(XATTR_LIST_MAX);
  if (list == NULL)
    return -ENOMEM;
  ssize_t length = list_names(from, list, XATTR_LIST_MAX);
  int rc = length >= 0 ? put_listed_xattrs(w, from, list, (size_t)length, losses)
                       : put_lost(w, "", 0, errno, losses);
  free(list);
  return rc;
}

static int put_unlisted(struct writer *w, const struct xattr_source *from,
                        const struct fb_unlisted *unlisted, struct losses *losses) {
  int rc = 0;
  for (; rc == 0 && unlisted != NULL && unlisted->name != NULL; unlisted++)
    rc = put_xattr(w, from, unlisted->name, strlen(unlisted->name), unlisted, losses);
  return rc;
}

bool fb_short_fits(const struct stat *st) {
  return !S_ISCHR(st->st_mode) && !S_ISBLK(st->st_mode) && st->st_atim.tv_nsec >= 0 &&
         st->st_atim.tv_nsec <= NS_MAX && st->st_mtim.tv_nsec >= 0 &&
         st->st_mtim.tv_nsec <= NS_MAX;
}

uint64_t fb_short_rdev(const struct stat *st) {
  return SHORT_MARK | (uint64_t)st->st_mtim.tv_nsec << SHORT_NS_BITS |
         (uint64_t)st->st_atim.tv_nsec;
}

bool fb_short_take(const struct stat *record, struct fb_stat *out) {
  const uint64_t rdev = record->st_rdev;
  const uint32_t mtime_ns = (uint32_t)(rdev >> SHORT_NS_BITS & SHORT_NS_MASK);
  const uint32_t atime_ns = (uint32_t)(rdev & SHORT_NS_MASK);
  if (S_ISCHR(record->st_mode) || S_ISBLK(record->st_mode) ||
      (rdev & SHORT_MARK_MASK) != SHORT_MARK || mtime_ns > NS_MAX || atime_ns > NS_MAX)
    return false;
  out->mtime_ns = mtime_ns;
  out->atime_ns = atime_ns;
  return true;
}

int fb_blob_build(struct fb_blob *blob, int fd, const struct stat *st, const struct statx *stx,
                  const struct fb_unlisted *unlisted, unsigned *lost, int *lost_errno) {
  struct writer w = {.blob = blob};
  struct losses losses = {0};
  struct listing listing;
  uint8_t *value;
  blob->size = 0;
  blob->chunk_count = 0;
  *lost = 0;
  *lost_errno = 0;
  list_xattrs(&listing, fd);
  if (has_no_xattrs(&listing) && fb_short_fits(st) && unlisted == NULL)
    return 0;
  if (begin_chunk(&w) < 0 || put_stat(&w, st, stx) < 0 || put_xattrs(&w, &listing, &losses) < 0 ||
      put_unlisted(&w, &listing.from, unlisted, &losses) < 0 ||
      begin_item(&w, "", 0, 4, &value) < 0) {
    blob->size = 0;
    blob->chunk_count = 0;
    return -ENOMEM;
  }
  if (w.item_count == 1 && fb_short_fits(st)) { /* STAT alone: none was there */
    blob->size = 0;
    return 0;
  }
  put_u32(value, w.item_count);
  finish_item(&w, FB_ITEM_END, 0, 4);
  finish_chunk(&w);
  *lost = losses.count;
  *lost_errno = losses.first_errno;
  return 0;
}

bool fb_blob_next_chunk(const struct fb_blob *blob, size_t *offset, const uint8_t **chunk,
                        uint32_t *size) {
  if (*offset >= blob->size)
    return false;
  *chunk = blob->data + *offset;
  *size = CHUNK_HEADER_BYTES + get_u32(*chunk + 8);
  *offset += *size;
  return true;
}

void fb_blob_free(struct fb_blob *blob) {
  free(blob->data);
  memset(blob, 0, sizeof(*blob));
}

int fb_blob_check(const uint8_t *chunk, size_t size, uint16_t number) {
  if (size < CHUNK_HEADER_BYTES || size > FB_BLOB_CHUNK_BYTES_MAX)
    return -EBADMSG;
  size_t length = size - CHUNK_HEADER_BYTES;
  if (get_u32(chunk) != BLOB_MAGIC || get_u16(chunk + 4) != BLOB_VERSION ||
      get_u16(chunk + 6) != number || get_u32(chunk + 8) != length ||
      get_u32(chunk + 12) != fb_crc32(0, chunk + CHUNK_HEADER_BYTES, length))
    return -EBADMSG;
  struct fb_item item;
  size_t offset = 0;
  int rc;
  while ((rc = fb_blob_item(chunk, size, &offset, &item)) > 0)
    continue;
  return rc;
}

int fb_blob_item(const uint8_t *chunk, size_t size, size_t *offset, struct fb_item *item) {
  if (size < CHUNK_HEADER_BYTES || *offset > size - CHUNK_HEADER_BYTES)
    return -EBADMSG;
  size_t left = size - CHUNK_HEADER_BYTES - *offset;
  if (left == 0)
    return 0;
  if (left < ITEM_HEADER_BYTES)
    return -EBADMSG;
  const uint8_t *at = chunk + CHUNK_HEADER_BYTES + *offset;
  item->tag = get_u16(at);
  item->name_len = get_u16(at + 2);
  item->value_len = get_u32(at + 4);
  left -= ITEM_HEADER_BYTES;
  if (item->name_len > left || item->value_len > left - item->name_len)
    return -EBADMSG;
  item->name = (const char *)at + ITEM_HEADER_BYTES;
  item->value = at + ITEM_HEADER_BYTES + item->name_len;
  if (item->tag == FB_ITEM_XATTR &&
      (item->name_len == 0 || item->name_len > XATTR_NAME_MAX ||
       item->value_len > XATTR_SIZE_MAX || memchr(item->name, '\0', item->name_len) != NULL))
    return -EBADMSG;
  *offset += ITEM_HEADER_BYTES + item->name_len + item->value_len;
  return 1;
}

bool fb_blob_find_xattr(const struct fb_blob *stream, const char *name, struct fb_item *item) {
  const uint8_t *chunk;
  uint32_t size;
  size_t length = strlen(name);
  for (size_t at = 0; fb_blob_next_chunk(stream, &at, &chunk, &size);)
    for (size_t offset = 0; fb_blob_item(chunk, size, &offset, item) > 0;)
      if (item->tag == FB_ITEM_XATTR && item->name_len == length &&
          memcmp(item->name, name, length) == 0)
        return true;
  return false;
}

int fb_blob_stat(const struct fb_item *item, struct fb_stat *out) {
  const uint8_t *v = item->value;
  if (item->tag != FB_ITEM_STAT || item->value_len != STAT_VALUE_BYTES)
    return -EBADMSG;
  *out = (struct fb_stat){
      .mode = get_u32(v),
      .nlink = get_u32(v + 4),
      .uid = get_u32(v + 8),
      .gid = get_u32(v + 12),
      .rdev = get_u64(v + 16),
      .size = get_u64(v + 24),
      .ino = get_u64(v + 32),
      .atime_s = (int64_t)get_u64(v + 40),
      .mtime_s = (int64_t)get_u64(v + 48),
      .ctime_s = (int64_t)get_u64(v + 56),
      .btime_s = (int64_t)get_u64(v + 64),
      .atime_ns = get_u32(v + 72),
      .mtime_ns = get_u32(v + 76),
      .ctime_ns = get_u32(v + 80),
      .btime_ns = get_u32(v + 84),
      .flags = get_u32(v + 88),
  };
  if (out->atime_ns > NS_MAX || out->mtime_ns > NS_MAX || out->ctime_ns > NS_MAX ||
      out->btime_ns > NS_MAX)
    return -EBADMSG;
  return 0;
}
