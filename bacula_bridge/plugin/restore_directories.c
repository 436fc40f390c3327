/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore_directories.h.  The file holds records of a fixed head, the path and,
 * for entries, the attributes stream.  Every head names the next record of its
 * chain; a chain is kept in the order of the notes, so that of two entries for one
 * directory the later wins.
 */
#include "restore_directories.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "beneath.h"

struct record {
  int64_t next; /* offset in the file, 0 for none */
  uint32_t note;
  uint32_t mode;
  uint32_t path_len;
  uint32_t stream_len;
  uint32_t lost_count;
  uint32_t complete; /* the attributes are known, though there may be no stream */
  struct fb_stat stat;
};

/* Record offsets begin here, so that 0 can mean "none". */
#define FIRST_RECORD 16

void fb_directories_init(struct fb_directories *directories, const char *work_dir,
                         const char *where) {
  *directories = (struct fb_directories){
      .work_dir = work_dir, .where = where, .fd = -1, .end = FIRST_RECORD};
}

static void forget(struct fb_directories *d) {
  if (d->fd >= 0)
    close(d->fd);
  free(d->depths);
  fb_directories_init(d, d->work_dir, d->where);
}

void fb_directories_free(struct fb_directories *directories) { forget(directories); }

static int open_temporary(const char *work_dir) {
  const char *dir = work_dir != NULL && work_dir[0] != '\0' ? work_dir : "/tmp";
  int fd = open(dir, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
  if (fd >= 0)
    return fd;
  char name[4096];
  int length = snprintf(name, sizeof(name), "%s/forebay-directories.XXXXXX", dir);
  if (length < 0 || (size_t)length >= sizeof(name))
    return -ENAMETOOLONG;
  fd = mkostemp(name, O_CLOEXEC);
  if (fd < 0)
    return -errno;
  unlink(name);
  return fd;
}

static int write_all(int fd, const void *data, size_t size, off_t at) {
  const char *from = data;
  while (size > 0) {
    ssize_t written = pwrite(fd, from, size, at);
    if (written < 0 && errno != EINTR)
      return -errno;
    if (written > 0) {
      from += written;
      at += written;
      size -= (size_t)written;
    }
  }
  return 0;
}

static int read_all(int fd, void *data, size_t size, off_t at) {
  char *to = data;
  while (size > 0) {
    ssize_t got = pread(fd, to, size, at);
    if (got == 0)
      return -EIO;
    if (got < 0 && errno != EINTR)
      return -errno;
    if (got > 0) {
      to += got;
      at += got;
      size -= (size_t)got;
    }
  }
  return 0;
}

static size_t depth_of(const char *path, size_t path_len) {
  size_t depth = path_len != 0 ? 1 : 0;
  for (size_t i = 0; i < path_len; i++)
    depth += path[i] == '/';
  return depth;
}

static int reach_depth(struct fb_directories *d, size_t depth) {
  if (depth < d->depth_count)
    return 0;
  size_t count = depth + 16;
  struct fb_depth *depths = realloc(d->depths, count * sizeof(*depths));
  if (depths == NULL)
    return -ENOMEM;
  memset(depths + d->depth_count, 0, (count - d->depth_count) * sizeof(*depths));
  d->depths = depths;
  d->depth_count = count;
  return 0;
}

static int link_record(struct fb_directories *d, struct fb_chain *chain, off_t at) {
  if (chain->first == 0) {
    chain->first = at;
  } else {
    int64_t next = at;
    int rc = write_all(d->fd, &next, sizeof(next), chain->last);
    if (rc < 0)
      return rc;
  }
  chain->last = at;
  return 0;
}

int fb_directories_note(struct fb_directories *d, enum fb_note note, const char *path,
                        size_t path_len, mode_t mode, const struct fb_attributes *attributes) {
  if (d->fd < 0)
    d->fd = open_temporary(d->work_dir);
  if (d->fd < 0) {
    int error = d->fd;
    d->fd = -1;
    return error;
  }
  struct record record = {.note = note, .mode = mode, .path_len = (uint32_t)path_len};
  if (attributes != NULL) {
    record.stat = attributes->stat;
    record.lost_count = attributes->lost_count;
    record.complete = attributes->complete;
    record.stream_len = attributes->complete ? (uint32_t)attributes->stream.size : 0;
  }
  size_t depth = depth_of(path, path_len);
  int rc = reach_depth(d, depth);
  off_t at = d->end;
  if (rc == 0)
    rc = write_all(d->fd, &record, sizeof(record), at);
  if (rc == 0)
    rc = write_all(d->fd, path, path_len, at + (off_t)sizeof(record));
  if (rc == 0 && record.stream_len != 0)
    rc = write_all(d->fd, attributes->stream.data, record.stream_len,
                   at + (off_t)(sizeof(record) + path_len));
  if (rc < 0)
    return rc;
  struct fb_depth *chains = &d->depths[depth];
  rc = link_record(d, note == FB_NOTE_ENTRY ? &chains->entries : &chains->repairs, at);
  if (rc == 0)
    d->end = at + (off_t)(sizeof(record) + path_len + record.stream_len);
  return rc;
}

/* What is opened is a directory below the place, reached without a link.  That it is
 * the inode of the note is not compared: the numbers of some file systems (FUSE) do
 * not last as long as a job.  A user who may write the directory above can only move
 * a directory here that this user may write as well. */
void fb_directories_apply_entry(int root_fd, const char *name, size_t path_at, size_t path_len,
                                const struct fb_attributes *attributes,
                                struct fb_report *report) {
  const char *path = name + path_at;
  bool path_only = false;
  int fd = fb_open_beneath(root_fd, path, path_len, O_RDONLY | O_DIRECTORY, 0);
  if (fd == -EACCES) { /* ours, but not readable: its mode can be set all the same */
    path_only = true;
    fd = fb_open_beneath(root_fd, path, path_len, O_PATH | O_DIRECTORY, 0);
  }
  if (fd < 0) {
    char shown[FB_PRINTABLE_BYTES];
    fb_report_warning(report, "%s: the directory could not be opened to set its attributes: %s",
                      fb_printable(name, path_at + path_len, shown, sizeof(shown)),
                      strerror(-fd));
    return;
  }
  fb_attributes_apply(attributes, FB_KIND_DIRECTORY, fd, path_only, report, name,
                      path_at + path_len);
  close(fd);
}

static void repair(int root_fd, const struct record *record, const char *path) {
  int fd = fb_open_beneath(root_fd, path, record->path_len, O_PATH | O_DIRECTORY, 0);
  if (fd < 0) /* gone since: a file of the backup took its place */
    return;
  struct stat st;
  char link[40];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  bool still_ours = fstat(fd, &st) == 0 && st.st_uid == geteuid();
  if (record->note == FB_NOTE_MADE) {
    if (still_ours && (st.st_mode & (S_ISUID | S_IRWXU)) == FB_MARKED_MODE)
      chmod(link, (st.st_mode & S_ISGID) | S_IRWXU);
  } else if (still_ours && (st.st_mode & 07777) == (record->mode | S_IRWXU)) {
    chmod(link, record->mode);
  }
  close(fd);
}

/* Buffers that all records share. */
struct reader {
  const char *where;
  size_t where_len;
  char *name; /* where, "/" and the path */
  size_t name_capacity;
  struct fb_attributes attributes;
};

/* A buffer of at least size bytes in place of buffer; NULL without memory. */
static void *grow(void *buffer, size_t *capacity, size_t size) {
  if (buffer != NULL && *capacity >= size)
    return buffer;
  void *grown = realloc(buffer, size + 256);
  if (grown != NULL)
    *capacity = size + 256;
  return grown;
}

static int read_record(int fd, off_t at, struct record *record, struct reader *reader) {
  int rc = read_all(fd, record, sizeof(*record), at);
  if (rc < 0)
    return rc;
  struct fb_blob *stream = &reader->attributes.stream;
  size_t path_at = reader->where_len + 1;
  char *name = grow(reader->name, &reader->name_capacity, path_at + record->path_len);
  if (name == NULL)
    return -ENOMEM;
  memcpy(name, reader->where, reader->where_len);
  name[reader->where_len] = '/';
  reader->name = name;
  uint8_t *data = grow(stream->data, &stream->capacity, record->stream_len);
  if (data == NULL)
    return -ENOMEM;
  stream->data = data;
  rc = read_all(fd, name + path_at, record->path_len, at + (off_t)sizeof(*record));
  if (rc == 0)
    rc = read_all(fd, stream->data, record->stream_len,
                  at + (off_t)(sizeof(*record) + record->path_len));
  stream->size = record->stream_len;
  reader->attributes.stat = record->stat;
  reader->attributes.lost_count = record->lost_count;
  reader->attributes.complete = record->complete != 0;
  return rc;
}

static int follow(struct fb_directories *d, off_t at, int root_fd, struct reader *reader,
                  struct fb_report *report) {
  while (at != 0) {
    struct record record;
    int rc = read_record(d->fd, at, &record, reader);
    if (rc < 0)
      return rc;
    if (record.note == FB_NOTE_ENTRY)
      fb_directories_apply_entry(root_fd, reader->name, reader->where_len + 1, record.path_len,
                                 &reader->attributes, report);
    else
      repair(root_fd, &record, reader->name + reader->where_len + 1);
    at = record.next;
  }
  return 0;
}

void fb_directories_finish(struct fb_directories *d, int root_fd, struct fb_report *report) {
  struct reader reader = {.where = d->where, .where_len = strlen(d->where)};
  int rc = 0;
  for (size_t depth = d->depth_count; depth > 0 && rc == 0; depth--) {
    rc = follow(d, d->depths[depth - 1].repairs.first, root_fd, &reader, report);
    if (rc == 0)
      rc = follow(d, d->depths[depth - 1].entries.first, root_fd, &reader, report);
  }
  if (rc < 0)
    fb_report_error(report,
                    "The attributes of some directories were not restored: their temporary "
                    "file in %s could not be read: %s. Restore the directories again.",
                    d->work_dir, strerror(-rc));
  free(reader.name);
  fb_attributes_free(&reader.attributes);
  forget(d);
}
