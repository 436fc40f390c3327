/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See prefetch.h.
 */
#include "prefetch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "beneath.h"
#include "chunks.h"
#include "lustre_file.h"
#include "xxh3.h"

#define KEEP_BYTES_MAX 16384 /* of each buffer, for the next entry */
#define DATA_BYTES_MIN 512
#define READ_STEP_BYTES 1048576
#define EXTENTS_FIRST 16

ssize_t fb_read_at(int fd, uint8_t *to, size_t size, uint64_t offset, int *error) {
  size_t got = 0;
  *error = 0;
  while (got < size) {
    ssize_t n = pread(fd, to + got, size - got, (off_t)(offset + got));
    if (n == 0)
      break;
    if (n > 0)
      got += (size_t)n;
    else if (errno != EINTR) {
      *error = errno;
      break;
    }
  }
  return (ssize_t)got;
}

bool fb_stat_moved(const struct stat *before, const struct stat *now) {
  return before->st_size != now->st_size || before->st_mtim.tv_sec != now->st_mtim.tv_sec ||
         before->st_mtim.tv_nsec != now->st_mtim.tv_nsec ||
         before->st_ctim.tv_sec != now->st_ctim.tv_sec ||
         before->st_ctim.tv_nsec != now->st_ctim.tv_nsec;
}

static bool has_another_version(const struct fb_prefetch *item, int fd) {
  return item->data_version != 0 && fb_lustre_data_version(fd) != item->data_version;
}

bool fb_prefetch_moved(const struct fb_prefetch *item, int fd) {
  struct stat now;
  return fstat(fd, &now) < 0 || fb_stat_moved(&item->st, &now) || has_another_version(item, fd);
}

/* Before the first byte of size is read. */
static void note_version(struct fb_prefetch *item, const struct fb_prefetch_source *source, int fd,
                         uint64_t size) {
  item->data_version =
      source->layouts == FB_LAYOUT_LUSTRE && size > 0 ? fb_lustre_data_version(fd) : 0;
}

static void stat_from_statx(struct stat *st, const struct statx *x) {
  memset(st, 0, sizeof *st);
  st->st_dev = makedev(x->stx_dev_major, x->stx_dev_minor);
  st->st_rdev = makedev(x->stx_rdev_major, x->stx_rdev_minor);
  st->st_ino = x->stx_ino;
  st->st_mode = x->stx_mode;
  st->st_nlink = x->stx_nlink;
  st->st_uid = x->stx_uid;
  st->st_gid = x->stx_gid;
  st->st_size = (off_t)x->stx_size;
  st->st_blksize = (blksize_t)x->stx_blksize;
  st->st_blocks = (blkcnt_t)x->stx_blocks;
  st->st_atim = (struct timespec){x->stx_atime.tv_sec, x->stx_atime.tv_nsec};
  st->st_mtim = (struct timespec){x->stx_mtime.tv_sec, x->stx_mtime.tv_nsec};
  st->st_ctim = (struct timespec){x->stx_ctime.tv_sec, x->stx_ctime.tv_nsec};
}

static void fail(struct fb_prefetch *item, enum fb_status status, int error) {
  item->status = status;
  item->error = error;
}

/* An error of an open or of what follows it, in terms of a receipt. */
static void fail_with(struct fb_prefetch *item, int error) {
  if (error == ENOENT || error == ENOTDIR || error == ESTALE)
    fail(item, FB_VANISHED, error);
  else if (error == ELOOP || error == ENXIO || error == EXDEV)
    fail(item, FB_REPLACED, error); /* a symlink or a socket stands in its place */
  else
    fail(item, FB_UNREADABLE, error);
  if (error == EMFILE || error == ENFILE) /* says nothing about the file */
    item->retry = FB_RETRY_DESCRIPTOR;
}

/* *keeps_atime: reading leaves the file's atime alone. */
static int open_entry(const struct fb_entry *e, int root_fd, bool name_only, bool *keeps_atime) {
  *keeps_atime = false;
  if (name_only || (!S_ISREG(e->mode) && !S_ISDIR(e->mode)))
    return fb_open_beneath(root_fd, e->path, e->path_len, O_PATH, 0);
  const int flags = O_RDONLY | O_NONBLOCK;
  int fd = fb_open_beneath(root_fd, e->path, e->path_len, flags | O_NOATIME, 0);
  *keeps_atime = fd >= 0;
  if (fd == -EPERM) /* O_NOATIME is for the owner and root */
    fd = fb_open_beneath(root_fd, e->path, e->path_len, flags, 0);
  if (fd == -EACCES && S_ISDIR(e->mode)) /* its attributes need no right to read it */
    fd = fb_open_beneath(root_fd, e->path, e->path_len, O_PATH, 0);
  return fd;
}

static void read_target(struct fb_prefetch *item, int fd) {
  item->target = malloc(PATH_MAX);
  if (item->target == NULL) {
    fail(item, FB_UNREADABLE, ENOMEM);
    return;
  }
  ssize_t n = readlinkat(fd, "", item->target, PATH_MAX - 1);
  if (n < 0)
    fail_with(item, errno);
  else
    item->target[n] = 0;
}

static int add_extent(struct fb_prefetch *item, uint64_t offset, uint64_t size) {
  if (item->extent_count == item->extent_capacity) {
    size_t grown = item->extent_capacity ? item->extent_capacity * 2 : EXTENTS_FIRST;
    struct fb_extent *extents = realloc(item->extents, grown * sizeof *extents);
    if (extents == NULL)
      return -ENOMEM;
    item->extents = extents;
    item->extent_capacity = grown;
  }
  item->extents[item->extent_count++] = (struct fb_extent){offset, size};
  return 0;
}

/* Reads [offset, offset + size) behind what is there already.  False: the file
 * ended (its size is corrected) or could not be read. */
static bool read_piece(struct fb_prefetch *item, int fd, const atomic_bool *stop, uint64_t offset,
                       uint64_t size) {
  while (size > 0) {
    size_t step = size < READ_STEP_BYTES ? (size_t)size : READ_STEP_BYTES;
    int error = atomic_load(stop) ? ECANCELED : 0;
    ssize_t n = error ? 0 : fb_read_at(fd, item->data + item->data_size, step, offset, &error);
    if (error != 0) {
      fail(item, FB_UNREADABLE, error);
      return false;
    }
    item->data_size += (size_t)n;
    offset += (uint64_t)n;
    size -= (uint64_t)n;
    if ((size_t)n < step) {
      /* It shrank: what Bacula gets is the file of the bytes that were read. */
      item->st.st_size = (off_t)offset;
      item->status = FB_CHANGED;
      return false;
    }
  }
  return true;
}

static void read_sparse(struct fb_prefetch *item, int fd, const atomic_bool *stop) {
  const uint64_t size = (uint64_t)item->st.st_size;
  uint64_t offset = 0, end = 0, data_end = 0;
  while (fb_next_extent(fd, size, &offset, &end)) {
    size_t before = item->data_size;
    bool whole = read_piece(item, fd, stop, offset, end - offset);
    size_t got = item->data_size - before;
    if (item->status == FB_UNREADABLE)
      return;
    if (got > 0 && add_extent(item, offset, got) < 0) {
      fail(item, FB_UNREADABLE, ENOMEM);
      return;
    }
    if (got > 0)
      data_end = offset + got;
    if (!whole)
      break;
    offset = end;
  }
  /* The one zero byte that fixes the size at restore; a file that shrank may end in
   * a hole as well. */
  if (data_end >= (uint64_t)item->st.st_size)
    return;
  item->data[item->data_size++] = 0;
  if (add_extent(item, (uint64_t)item->st.st_size - 1, 1) < 0)
    fail(item, FB_UNREADABLE, ENOMEM);
}

/* Room for size bytes and one more; what was there is lost. */
static bool make_room(struct fb_prefetch *item, uint64_t size) {
  item->data_size = 0;
  if (item->data_capacity > size)
    return true;
  size_t capacity = (size_t)size + 1;
  if (capacity <= KEEP_BYTES_MAX)
    for (capacity = DATA_BYTES_MIN; capacity <= size;)
      capacity *= 2;
  free(item->data);
  item->data = malloc(capacity);
  item->data_capacity = item->data != NULL ? capacity : 0;
  return item->data != NULL;
}

static void hash_content(struct fb_prefetch *item) {
  struct fb_xxh3 hash;
  fb_xxh3_init(&hash);
  fb_xxh3_update(&hash, item->data, item->data_size);
  fb_xxh3_final(&hash, item->hash);
}

static void read_content(struct fb_prefetch *item, int fd, const atomic_bool *stop) {
  if (!make_room(item, (uint64_t)item->st.st_size)) {
    fail(item, FB_UNREADABLE, ENOMEM);
    return;
  }
  if (item->sparse)
    read_sparse(item, fd, stop);
  else
    read_piece(item, fd, stop, 0, (uint64_t)item->st.st_size);
  if (item->status == FB_SAVED && fb_prefetch_moved(item, fd))
    item->status = FB_CHANGED;
  hash_content(item);
}

static bool has_hole(int fd, const struct stat *st) {
  if ((uint64_t)st->st_blocks * 512 >= (uint64_t)st->st_size)
    return false;
  /* Compressed files and files within their inode have few blocks and no hole. */
  off_t hole = lseek(fd, 0, SEEK_HOLE);
  return hole >= 0 && hole < st->st_size;
}

/* A value is read into room for the longest one: what is left over goes back. */
static void trim_blob(struct fb_blob *blob) {
  if (blob->capacity <= KEEP_BYTES_MAX || blob->size == 0)
    return;
  uint8_t *data = realloc(blob->data, blob->size);
  if (data == NULL)
    return;
  blob->data = data;
  blob->capacity = blob->size;
}

static void add_blob(struct fb_prefetch *item, const struct fb_prefetch_source *source, int fd,
                     const struct statx *stx) {
  const bool is_dir = S_ISDIR(item->st.st_mode);
  int rc = fb_blob_build(&item->blob, fd, &item->st, stx,
                         is_dir ? fb_layout_unlisted(source->layouts) : NULL, &item->lost_xattrs,
                         &item->lost_errno);
  trim_blob(&item->blob);
  if (rc == 0 && S_ISREG(item->st.st_mode)) {
    int lost = -fb_layout_read(&item->layout, source->layouts, fd, &item->blob);
    if (lost != 0 && item->lost_xattrs++ == 0)
      item->lost_errno = lost;
  }
  if (rc < 0)
    fail(item, FB_UNREADABLE, -rc);
}

/* Leaves the descriptor to the item if the content is still to be read. */
static void fill_from(struct fb_prefetch *item, const struct fb_prefetch_source *source, int fd,
                      const struct statx *stx) {
  if (S_ISLNK(item->st.st_mode))
    read_target(item, fd);
  if (S_ISREG(item->st.st_mode)) {
    uint64_t size = (uint64_t)item->st.st_size;
    note_version(item, source, fd, size);
    item->sparse = size > 0 && has_hole(fd, &item->st);
    item->large = size >= source->large_file_bytes || size > item->reserved_bytes;
    if (size == 0)
      item->large = false;
    if (!item->large)
      read_content(item, fd, source->stop);
  }
  if (item->status != FB_SAVED && item->status != FB_CHANGED)
    return;
  add_blob(item, source, fd, stx);
  if (item->status == FB_UNREADABLE)
    item->large = false;
  if (item->large)
    item->fd = fd;
}

void fb_prefetch_source_set_root(struct fb_prefetch_source *source, int root_fd) {
  struct statx stx;
  source->root_fd = root_fd;
  source->root_mount_known = statx(root_fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &stx) == 0 &&
                             (stx.stx_mask & STATX_MNT_ID) != 0;
  source->root_mount = source->root_mount_known ? stx.stx_mnt_id : 0;
  source->layouts = fb_layout_kind(root_fd);
}

static int read_attributes(int fd, const struct fb_prefetch_source *source, struct statx *stx) {
  const unsigned mask = STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID;
  int rc = statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW, mask, stx) < 0 ? -errno : 0;
  stx->stx_ino &= source->inode_mask;
  return rc;
}

/* Is it what the scan saw?  An inode number says so on the root's filesystem only,
 * but for what the scan itself found to be mounted there. */
static bool is_expected(const struct fb_entry *e, const struct fb_prefetch_source *source,
                        const struct statx *stx) {
  bool elsewhere = source->root_mount_known && (stx->stx_mask & STATX_MNT_ID) != 0 &&
                   stx->stx_mnt_id != source->root_mount &&
                   (e->flags & FB_ENTRY_MOUNT_POINT) == 0;
  return !elsewhere && stx->stx_ino == e->ino && (stx->stx_mode & S_IFMT) == (e->mode & S_IFMT);
}

/* What changes from then on has a later ctime, but for the granularity of that. */
static int64_t read_time_ns(const struct fb_prefetch_source *source) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  int64_t now_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
  return now_ns < source->snapshot_ns ? now_ns : source->snapshot_ns;
}

/* Is it this very time?  One that the scan could not express is another one. */
static bool is_at(const struct statx_timestamp *t, int64_t ns) {
  int64_t value;
  return !__builtin_mul_overflow(t->tv_sec, INT64_C(1000000000), &value) &&
         !__builtin_add_overflow(value, (int64_t)t->tv_nsec, &value) && value == ns;
}

/* A small file that nobody has touched since the scan takes one look, after it was
 * read: what has the scan's size, mtime and ctime then had them all the while.
 * (A change within the clock's granularity shows nowhere; read_ns keeps it due.)
 * What is read before it is known to be that file goes nowhere, and pread takes nothing
 * out of what stands in its place: it fails for FIFOs, terminals and tapes.  False: nothing is held, and it is to be read with a look before as well. */
static bool fill_untouched(struct fb_prefetch *item, const struct fb_prefetch_source *source,
                           int fd) {
  const struct fb_entry *e = &item->entry;
  struct statx stx;
  if (!S_ISREG(e->mode) || e->mtime_ns == 0 || e->ctime_ns == 0 ||
      e->size >= source->large_file_bytes || e->size > item->reserved_bytes)
    return false;
  item->read_ns = read_time_ns(source);
  note_version(item, source, fd, e->size);
  if (make_room(item, e->size) && read_piece(item, fd, source->stop, 0, e->size) &&
      read_attributes(fd, source, &stx) == 0 && is_expected(e, source, &stx) && stx.stx_size == e->size &&
      is_at(&stx.stx_mtime, e->mtime_ns) && is_at(&stx.stx_ctime, e->ctime_ns) &&
      !has_another_version(item, fd)) {
    stat_from_statx(&item->st, &stx);
    if (!has_hole(fd, &item->st)) {
      hash_content(item);
      add_blob(item, source, fd, &stx);
      return true;
    }
  }
  item->data_size = 0;
  item->status = FB_SAVED;
  item->error = 0;
  return false;
}

/* Has HSM released it, and may it not be recalled?  If that cannot be told the item has failed. */
static bool is_released(struct fb_prefetch *item, const struct fb_prefetch_source *source, int fd) {
  if (source->layouts != FB_LAYOUT_LUSTRE || source->hsm == FB_HSM_RECALL ||
      !S_ISREG(item->entry.mode))
    return false;
  int rc = fb_lustre_is_released(fd);
  if (rc < 0)
    fail_with(item, -rc);
  return rc > 0;
}

static void fill_released(struct fb_prefetch *item, const struct fb_prefetch_source *source,
                          int fd, const struct statx *stx) {
  item->status = source->hsm == FB_HSM_STUB ? FB_STUB : FB_RELEASED;
  if (item->status == FB_STUB)
    add_blob(item, source, fd, stx);
}

/* As it is now, looked at before it is read and after. */
static void fill_from_now(struct fb_prefetch *item, const struct fb_prefetch_source *source, int fd,
                          bool name_only, bool released) {
  struct statx stx;
  item->read_ns = read_time_ns(source);
  int rc = read_attributes(fd, source, &stx);
  if (rc < 0) {
    fail_with(item, -rc);
    return;
  }
  stat_from_statx(&item->st, &stx);
  if (!is_expected(&item->entry, source, &stx))
    fail(item, FB_REPLACED, 0);
  else if (released)
    fill_released(item, source, fd, &stx);
  else if (!name_only)
    fill_from(item, source, fd, &stx);
}

/* A lease of another process (Samba, the NFS server) is being broken by our open. */
static void fail_leased(struct fb_prefetch *item, const struct fb_prefetch_source *source) {
  const struct fb_entry *e = &item->entry;
  struct statx stx;
  int fd = fb_open_beneath(source->root_fd, e->path, e->path_len, O_PATH, 0);
  int rc = fd < 0 ? fd : read_attributes(fd, source, &stx);
  if (rc < 0) {
    fail_with(item, -rc);
  } else if (!is_expected(e, source, &stx)) {
    fail(item, FB_REPLACED, 0);
  } else {
    fail(item, FB_UNREADABLE, EAGAIN);
    item->retry = FB_RETRY_LEASE;
  }
  if (fd >= 0)
    close(fd);
}

void fb_prefetch_fill(struct fb_prefetch *item, const struct fb_prefetch_source *source, bool name_only) {
  const struct fb_entry *e = &item->entry;
  item->status = FB_SAVED;
  item->error = 0;
  item->retry = FB_RETRY_NONE;
  item->needs_data = name_only;
  bool keeps_atime;
  int fd = open_entry(e, source->root_fd, name_only, &keeps_atime);
  if (fd == -EAGAIN && S_ISREG(e->mode)) {
    fail_leased(item, source);
    return;
  }
  if (fd < 0) {
    fail_with(item, -fd);
    return;
  }
  /* Before anything reads from it or looks for its holes. */
  const bool released = !name_only && is_released(item, source, fd);
  /* A read that moves the atime comes after the look at it. */
  if (item->status == FB_SAVED &&
      (released || !keeps_atime || !fill_untouched(item, source, fd)))
    fill_from_now(item, source, fd, name_only, released);
  if (item->fd != fd)
    close(fd);
}

void fb_prefetch_clear(struct fb_prefetch *item) {
  struct fb_blob blob = item->blob;
  uint8_t *data = item->data;
  size_t data_capacity = item->data_capacity;
  if (item->fd >= 0)
    close(item->fd);
  free(item->target);
  free(item->extents);
  fb_layout_free(&item->layout);
  if (blob.capacity > KEEP_BYTES_MAX)
    fb_blob_free(&blob);
  if (data_capacity > KEEP_BYTES_MAX) {
    free(data);
    data = NULL;
    data_capacity = 0;
  }
  blob.size = 0;
  blob.chunk_count = 0;
  memset(item, 0, sizeof *item);
  item->blob = blob;
  item->data = data;
  item->data_capacity = data_capacity;
  item->fd = -1;
}

void fb_prefetch_free(struct fb_prefetch *item) {
  fb_prefetch_clear(item);
  fb_blob_free(&item->blob);
  free(item->data);
  item->data = NULL;
  item->data_capacity = 0;
}
