/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore_attributes.h and docs/formats/attributes.md.
 */
#include "restore_attributes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "layout.h"

#define ACL_PREFIX "system.posix_acl_"
#define ACCESS_ACL ACL_PREFIX "access"
#define XATTR_LIST_BYTES_SHORT 1024

void fb_attributes_begin(struct fb_attributes *attributes, const struct stat *record) {
  struct fb_blob buffer = attributes->stream;
  buffer.size = 0;
  buffer.chunk_count = 0;
  *attributes = (struct fb_attributes){
      .stat = {.mode = record->st_mode,
               .uid = record->st_uid,
               .gid = record->st_gid,
               .size = (uint64_t)record->st_size,
               .atime_s = record->st_atim.tv_sec,
               .mtime_s = record->st_mtim.tv_sec},
      .stream = buffer,
  };
  attributes->complete = fb_short_take(record, &attributes->stat);
}

void fb_attributes_free(struct fb_attributes *attributes) { fb_blob_free(&attributes->stream); }

static int append(struct fb_blob *stream, const uint8_t *chunk, size_t size) {
  if (stream->capacity - stream->size < size) {
    size_t capacity = stream->capacity != 0 ? stream->capacity : 1024;
    while (capacity - stream->size < size)
      capacity *= 2;
    uint8_t *data = realloc(stream->data, capacity);
    if (data == NULL)
      return -ENOMEM;
    stream->data = data;
    stream->capacity = capacity;
  }
  memcpy(stream->data + stream->size, chunk, size);
  stream->size += size;
  stream->chunk_count++;
  return 0;
}

static uint32_t little_u32(const uint8_t *from) {
  return from[0] | (uint32_t)from[1] << 8 | (uint32_t)from[2] << 16 | (uint32_t)from[3] << 24;
}

/* Looks at the items of a checked chunk; returns NULL or what is wrong. */
static const char *take_items(struct fb_attributes *a, const uint8_t *chunk, size_t size) {
  struct fb_item item;
  size_t offset = 0;
  while (fb_blob_item(chunk, size, &offset, &item) > 0) {
    if (a->complete)
      return "goes on after its end";
    bool first = a->item_count == 0;
    if (first != (item.tag == FB_ITEM_STAT))
      return "has no STAT item at its beginning, or several";
    if (first) {
      struct fb_stat stat;
      if (fb_blob_stat(&item, &stat) < 0)
        return "has a STAT item that is none";
      a->stat = stat;
    } else if (item.tag == FB_ITEM_END) {
      if (item.value_len != 4 || little_u32(item.value) != a->item_count)
        return "has lost items";
      a->complete = true;
    }
    a->lost_count += item.tag == FB_ITEM_LOST;
    a->item_count++;
  }
  return NULL;
}

/* One chunk at the beginning of data; its size, or 0 if it is not one. */
static size_t take_chunk(struct fb_attributes *a, const uint8_t *data, size_t left) {
  size_t size = left;
  /* A record holds one chunk; several in one are fine if their headers say so. */
  if (left >= 16 && little_u32(data + 8) < left - 16)
    size = 16 + (size_t)little_u32(data + 8);
  if (a->complete) {
    a->damage = "goes on after its end";
    return 0;
  }
  if (a->stream.size + size > FB_ATTRIBUTES_BYTES_MAX) {
    a->damage = "is longer than any that a backup makes";
    return 0;
  }
  if (fb_blob_check(data, size, (uint16_t)a->stream.chunk_count) < 0) {
    a->damage = "is damaged (wrong checksum, length or order)";
    return 0;
  }
  a->damage = take_items(a, data, size);
  if (a->damage == NULL && append(&a->stream, data, size) < 0)
    a->damage = "does not fit into memory";
  return a->damage == NULL ? size : 0;
}

void fb_attributes_add(struct fb_attributes *attributes, const uint8_t *data, size_t size) {
  while (size > 0 && attributes->damage == NULL) {
    size_t taken = take_chunk(attributes, data, size);
    data += taken;
    size -= taken;
  }
  if (attributes->damage != NULL)
    attributes->complete = false;
}

const char *fb_attributes_shortcoming(const struct fb_attributes *attributes) {
  if (attributes->complete)
    return NULL;
  if (attributes->damage != NULL)
    return attributes->damage;
  return attributes->stream.size != 0 ? "is cut off" : "is missing";
}

/* The file that gets its attributes. */
struct target {
  int fd;
  enum fb_kind kind;
  bool path_only;
  char proc_path[40]; /* leads to the inode of fd itself, also if that is a symlink */
  struct fb_report *report;
  const char *path;
  size_t path_len;
};

static void warn(const struct target *t, const char *what, int error) {
  char shown[FB_PRINTABLE_BYTES];
  fb_report_warning(t->report, "%s: %s could not be set: %s",
                    fb_printable(t->path, t->path_len, shown, sizeof(shown)), what,
                    strerror(error));
}

static int change_owner(const struct target *t, uid_t uid, gid_t gid) {
  return fchownat(t->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) == 0 ? 0 : errno;
}

static int change_mode(const struct target *t, mode_t mode) {
  int rc = t->path_only ? chmod(t->proc_path, mode) : fchmod(t->fd, mode);
  return rc == 0 ? 0 : errno;
}

/* Sets owner and group; takes the bits out of *mode that would lend the rights of
 * another owner or group than the saved one. */
static void apply_owner(const struct target *t, const struct fb_stat *stat, mode_t *mode) {
  int error = change_owner(t, stat->uid, stat->gid);
  if (error == 0)
    return;
  *mode &= ~(mode_t)S_ISUID;
  /* Without privilege the group may still be one of ours. */
  bool has_group = change_owner(t, (uid_t)-1, stat->gid) == 0;
  if (!has_group && t->kind != FB_KIND_DIRECTORY)
    *mode &= ~(mode_t)S_ISGID;
  if (error == EPERM)
    t->report->owners_denied++;
  else
    warn(t, "its owner", error);
}

static ssize_t list_xattrs(const struct target *t, char *names, size_t size) {
  return t->path_only ? listxattr(t->proc_path, names, size) : flistxattr(t->fd, names, size);
}

static int set_xattr(const struct target *t, const char *name, const void *value, size_t size) {
  int rc = t->path_only ? setxattr(t->proc_path, name, value, size, 0)
                        : fsetxattr(t->fd, name, value, size, 0);
  return rc == 0 ? 0 : errno;
}

static int remove_xattr(const struct target *t, const char *name) {
  int rc = t->path_only ? removexattr(t->proc_path, name) : fremovexattr(t->fd, name);
  return rc == 0 || errno == ENODATA ? 0 : errno;
}

static bool begins_with(const char *name, const char *prefix) {
  return strncmp(name, prefix, strlen(prefix)) == 0;
}

/* Whether an xattr that the stream does not name is taken away: what users,
 * administrators and inheritance put there, but not what the file system or a
 * security module keeps there for itself (labels, layouts). */
static bool is_removable(const char *name) {
  static const char *const kept[] = {"trusted.lov", "trusted.lma",  "trusted.lmv",
                                     "trusted.link", "trusted.fid", "trusted.som",
                                     "trusted.hsm",  "trusted.dmv", "trusted.overlay."};
  for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++)
    if (begins_with(name, kept[i]))
      return false;
  return begins_with(name, "user.") || begins_with(name, "trusted.") ||
         begins_with(name, ACL_PREFIX) || strcmp(name, "security.capability") == 0;
}

static bool is_named(const struct fb_blob *stream, const char *name) {
  const uint8_t *chunk;
  uint32_t size;
  size_t length = strlen(name);
  for (size_t at = 0; fb_blob_next_chunk(stream, &at, &chunk, &size);) {
    struct fb_item item;
    for (size_t offset = 0; fb_blob_item(chunk, size, &offset, &item) > 0;)
      if ((item.tag == FB_ITEM_XATTR || item.tag == FB_ITEM_LOST) && item.name_len == length &&
          memcmp(item.name, name, length) == 0)
        return true;
  }
  return false;
}

/* Counts or remembers why an xattr could not be set. */
static void note_xattr_error(const struct target *t, const char *name, int error, int *first) {
  if ((error == EPERM || error == EACCES) &&
      (begins_with(name, "trusted.") || begins_with(name, "security.")))
    t->report->xattrs_denied++;
  else if (*first == 0)
    *first = error;
}

static void remove_listed(const struct target *t, const struct fb_attributes *a,
                          const char *names, size_t size, int *first_error) {
  for (const char *end = names + size; names < end; names += strnlen(names, end - names) + 1) {
    if (memchr(names, '\0', (size_t)(end - names)) == NULL)
      return;
    /* Without a stream nothing is known of the xattrs, but an ACL that a new file
     * inherited is surely not what its mode was saved with. */
    bool unwanted = a->complete ? is_removable(names) && !is_named(&a->stream, names)
                                : strcmp(names, ACCESS_ACL) == 0;
    int error = unwanted ? remove_xattr(t, names) : 0;
    if (error != 0)
      note_xattr_error(t, names, error, first_error);
  }
}

static void remove_others(const struct target *t, const struct fb_attributes *a,
                          int *first_error) {
  char short_list[XATTR_LIST_BYTES_SHORT];
  ssize_t length = list_xattrs(t, short_list, sizeof(short_list));
  if (length >= 0) {
    remove_listed(t, a, short_list, (size_t)length, first_error);
    return;
  }
  if (errno != ERANGE) {
    if (errno != ENOTSUP)
      *first_error = errno;
    return;
  }
  char *list = malloc(XATTR_LIST_MAX);
  length = list != NULL ? list_xattrs(t, list, XATTR_LIST_MAX) : -1;
  if (length >= 0)
    remove_listed(t, a, list, (size_t)length, first_error);
  else
    *first_error = errno;
  free(list);
}

/* Sets the ACLs of the stream, or everything but them. */
static void set_streamed(const struct target *t, const struct fb_blob *stream, bool acls,
                         int *first_error) {
  const uint8_t *chunk;
  uint32_t size;
  for (size_t at = 0; fb_blob_next_chunk(stream, &at, &chunk, &size);) {
    struct fb_item item;
    for (size_t offset = 0; fb_blob_item(chunk, size, &offset, &item) > 0;) {
      char name[XATTR_NAME_MAX + 1];
      if (item.tag != FB_ITEM_XATTR)
        continue;
      memcpy(name, item.name, item.name_len);
      name[item.name_len] = '\0';
      if (begins_with(name, ACL_PREFIX) != acls || fb_layout_is_xattr(name))
        continue;
      int error = set_xattr(t, name, item.value, item.value_len);
      if (error != 0)
        note_xattr_error(t, name, error, first_error);
    }
  }
}

static void apply_xattrs(const struct target *t, const struct fb_attributes *a) {
  int first_error = 0;
  /* Away with the others first: ext4 has room for few. */
  if (a->complete || t->kind != FB_KIND_DIRECTORY)
    remove_others(t, a, &first_error);
  if (a->complete) {
    set_streamed(t, &a->stream, false, &first_error);
    /* An ACL changes the mode, too, and may take away our right to set the others. */
    set_streamed(t, &a->stream, true, &first_error);
    t->report->lost_at_backup += a->lost_count;
  }
  if (first_error != 0)
    warn(t, "some of its xattrs or ACLs", first_error);
}

/* After all files of the directory are there: a quota would stop them. */
static void apply_layout(const struct target *t, const struct fb_attributes *a) {
  int error;
  enum fb_layout_outcome outcome =
      fb_layout_apply_directory(&a->stream, t->fd, t->path_only ? t->proc_path : NULL, &error);
  if (outcome != FB_LAYOUT_KEPT)
    fb_report_layout(t->report, outcome, error, t->path, t->path_len);
}

/* A directory of ours that we may not write refuses user. xattrs. */
static void open_up(const struct target *t) {
  struct stat st;
  if (t->kind == FB_KIND_DIRECTORY && fstat(t->fd, &st) == 0 && st.st_uid == geteuid() &&
      (st.st_mode & S_IRWXU) != S_IRWXU)
    change_mode(t, (st.st_mode & 07777) | S_IRWXU);
}

void fb_attributes_apply(const struct fb_attributes *attributes, enum fb_kind kind, int fd,
                         bool path_only, struct fb_report *report, const char *path,
                         size_t path_len) {
  const struct fb_stat *stat = &attributes->stat;
  struct target t = {.fd = fd,
                     .kind = kind,
                     .path_only = path_only,
                     .report = report,
                     .path = path,
                     .path_len = path_len};
  snprintf(t.proc_path, sizeof(t.proc_path), "/proc/self/fd/%d", fd);
  mode_t mode = stat->mode & 07777;
  open_up(&t);
  if (kind == FB_KIND_DIRECTORY && attributes->complete && !attributes->without_layout)
    apply_layout(&t, attributes); /* it takes the right to write, as user. xattrs do */
  apply_owner(&t, stat, &mode);
  apply_xattrs(&t, attributes);
  if (kind != FB_KIND_SYMLINK) {
    int error = change_mode(&t, mode);
    if (error != 0)
      warn(&t, "its mode", error);
  }
  struct timespec times[2] = {
      {.tv_sec = stat->atime_s, .tv_nsec = stat->atime_ns},
      {.tv_sec = stat->mtime_s, .tv_nsec = stat->mtime_ns},
  };
  int rc = path_only ? utimensat(AT_FDCWD, t.proc_path, times, 0) : futimens(fd, times);
  if (rc < 0)
    warn(&t, "its times", errno);
}
