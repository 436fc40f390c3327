/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See layout.h.
 */
#include "layout.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "layout_ceph.h"
#include "wire.h"

/* statfs: CEPH_SUPER_MAGIC, FUSE_SUPER_MAGIC of linux/magic.h; LL_SUPER_MAGIC of Lustre. */
#define CEPH_MAGIC 0x00c36400u
#define FUSE_MAGIC 0x65735546u
#define LUSTRE_MAGIC 0x0BD00BD0u

/* O_LOV_DELAY_CREATE of lustre_user.h: no objects yet, the layout comes by setxattr. */
#define LUSTRE_DELAY_CREATE (O_NOCTTY | FASYNC)

#define CEPH_FILE "ceph.file.layout"
#define CEPH_DIR "ceph.dir.layout"
#define CEPH_PIN "ceph.dir.pin"
#define CEPH_QUOTA_BYTES "ceph.quota.max_bytes"
#define CEPH_QUOTA_FILES "ceph.quota.max_files"

/* forebay:layout=1:KIND:INO:CRC:DATA, numbers and data in hexadecimal. */
#define COMMAND_HEAD "forebay:layout=1:"
#define COMMAND_HEAD_LEN (sizeof(COMMAND_HEAD) - 1)
#define COMMAND_NUMBERS_LEN 28 /* "c:" 16 digits ":" 8 digits ":" */
#define COMMAND_INO_AT 2
#define COMMAND_CRC_AT 19

enum fb_layout_kind fb_layout_kind(int dir_fd) {
  struct statfs fs;
  char path[40];
  if (fstatfs(dir_fd, &fs) < 0)
    return FB_LAYOUT_NONE;
  switch ((uint32_t)fs.f_type) {
  case CEPH_MAGIC:
    return FB_LAYOUT_CEPH;
  case LUSTRE_MAGIC:
    return FB_LAYOUT_LUSTRE;
  case FUSE_MAGIC:
    snprintf(path, sizeof(path), "/proc/self/fd/%d", dir_fd);
    return getxattr(path, "ceph.dir.rctime", NULL, 0) > 0 ? FB_LAYOUT_CEPH : FB_LAYOUT_NONE;
  default:
    return FB_LAYOUT_NONE;
  }
}

/* -- Backup -- */

const struct fb_unlisted *fb_layout_unlisted(enum fb_layout_kind kind) {
  /* The kernel's client answers 0 and -1 where ceph-fuse says that there is none. */
  static const struct fb_unlisted of_ceph[] = {{CEPH_DIR, NULL},
                                               {CEPH_QUOTA_BYTES, "0"},
                                               {CEPH_QUOTA_FILES, "0"},
                                               {CEPH_PIN, "-1"},
                                               {NULL, NULL}};
  return kind == FB_LAYOUT_CEPH ? of_ceph : NULL;
}

static int keep(struct fb_layout *layout, enum fb_layout_kind kind, const void *data,
                size_t size) {
  layout->data = malloc(size);
  if (layout->data == NULL)
    return -ENOMEM;
  memcpy(layout->data, data, size);
  layout->size = size;
  layout->kind = kind;
  return 0;
}

static int read_ceph(struct fb_layout *layout, int fd) {
  uint8_t text[FB_CEPH_TEXT_BYTES_MAX];
  ssize_t size = fgetxattr(fd, CEPH_FILE, text, sizeof(text));
  if (size < 0)
    return errno == ENODATA || errno == ENOTSUP ? 0 : -errno;
  if (size == 0)
    return 0;
  /* Also if it is not to be understood here: the restore says so. */
  return keep(layout, FB_LAYOUT_CEPH, text, (size_t)size);
}

static int read_lustre(struct fb_layout *layout, const struct fb_blob *blob) {
  const struct fb_lustre_changes none = {0};
  struct fb_lustre_about about;
  struct fb_item lov;
  size_t size;
  if (!fb_blob_find_xattr(blob, FB_LUSTRE_XATTR, &lov) || lov.value_len == 0)
    return 0;
  uint8_t *rebuilt = malloc(lov.value_len);
  if (rebuilt == NULL)
    return -ENOMEM;
  int rc = 0;
  /* What cannot be rebuilt is in the stream as it is; the restore says what is wrong. */
  if (fb_lustre_rebuild(lov.value, lov.value_len, &none, rebuilt, &size, &about) == FB_LUSTRE_OK)
    rc = keep(layout, FB_LAYOUT_LUSTRE, rebuilt, size);
  free(rebuilt);
  return rc;
}

int fb_layout_read(struct fb_layout *layout, enum fb_layout_kind kind, int fd,
                   const struct fb_blob *blob) {
  fb_layout_free(layout);
  return kind == FB_LAYOUT_CEPH ? read_ceph(layout, fd) : read_lustre(layout, blob);
}

void fb_layout_free(struct fb_layout *layout) {
  free(layout->data);
  *layout = (struct fb_layout){0};
}

void fb_layout_stripes(const struct fb_layout *layout, const struct fb_blob *blob,
                       struct fb_stripes *out) {
  struct fb_ceph_layout ceph;
  struct fb_item lov;
  out->count = 0;
  if (layout->kind == FB_LAYOUT_LUSTRE && fb_blob_find_xattr(blob, FB_LUSTRE_XATTR, &lov))
    fb_lustre_stripes(lov.value, lov.value_len, out);
  if (layout->kind == FB_LAYOUT_CEPH && fb_ceph_parse(layout->data, layout->size, &ceph))
    fb_stripes_add(out, &(struct fb_stripe_range){
                            .end = UINT64_MAX,
                            .stripe_bytes = ceph.stripe_unit,
                            .objects = ceph.stripe_count,
                            .stripes_per_object = ceph.object_size / ceph.stripe_unit});
}

/* Over all that a command tells. */
static uint32_t checksum(char kind, uint64_t ino, const uint8_t *data, size_t size) {
  uint8_t head[9];
  head[0] = (uint8_t)kind;
  fb_put_u64(head + 1, ino);
  return fb_crc32(fb_crc32(0, head, sizeof(head)), data, size);
}

int fb_layout_command(const struct fb_layout *layout, uint64_t ino, char **buffer,
                      size_t *capacity) {
  static const char digits[] = "0123456789abcdef";
  const char kind = layout->kind == FB_LAYOUT_CEPH ? 'c' : 'l';
  const size_t head = COMMAND_HEAD_LEN + COMMAND_NUMBERS_LEN;
  const size_t needed = head + 2 * layout->size + 1;
  if (needed > *capacity) {
    char *grown = realloc(*buffer, needed);
    if (grown == NULL)
      return -ENOMEM;
    *buffer = grown;
    *capacity = needed;
  }
  snprintf(*buffer, needed, COMMAND_HEAD "%c:%016" PRIx64 ":%08" PRIx32 ":", kind, ino,
           checksum(kind, ino, layout->data, layout->size));
  char *to = *buffer + head;
  for (size_t i = 0; i < layout->size; i++) {
    *to++ = digits[layout->data[i] >> 4];
    *to++ = digits[layout->data[i] & 15];
  }
  *to = '\0';
  return 0;
}

/* -- Restore -- */

static int digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_number(const char *text, size_t digits, uint64_t *out) {
  *out = 0;
  for (size_t i = 0; i < digits; i++) {
    int value = digit(text[i]);
    if (value < 0)
      return false;
    *out = *out << 4 | (uint64_t)value;
  }
  return true;
}

static bool take_data(struct fb_layout_ahead *ahead, const char *text) {
  size_t length = strnlen(text, 2 * FB_LAYOUT_BYTES_MAX + 1);
  if (length == 0 || length > 2 * FB_LAYOUT_BYTES_MAX || length % 2 != 0)
    return false;
  for (size_t i = 0; i < length / 2; i++) {
    uint64_t byte;
    if (!take_number(text + 2 * i, 2, &byte))
      return false;
    ahead->data[i] = (uint8_t)byte;
  }
  ahead->size = length / 2;
  return true;
}

static bool is_understood(struct fb_layout_ahead *ahead) {
  const struct fb_lustre_changes none = {0};
  struct fb_lustre_about about;
  struct fb_ceph_layout layout;
  size_t size;
  if (ahead->kind == FB_LAYOUT_CEPH)
    return fb_ceph_parse(ahead->data, ahead->size, &layout);
  return fb_lustre_rebuild(ahead->data, ahead->size, &none, ahead->scratch, &size, &about) ==
         FB_LUSTRE_OK;
}

static bool take(struct fb_layout_ahead *ahead, const char *text) {
  uint64_t crc;
  if (strnlen(text, COMMAND_NUMBERS_LEN) != COMMAND_NUMBERS_LEN || text[1] != ':' ||
      text[COMMAND_CRC_AT - 1] != ':' || text[COMMAND_NUMBERS_LEN - 1] != ':' ||
      !take_number(text + COMMAND_INO_AT, 16, &ahead->ino) ||
      !take_number(text + COMMAND_CRC_AT, 8, &crc) || !take_data(ahead, text + COMMAND_NUMBERS_LEN))
    return false;
  ahead->kind = text[0] == 'c'   ? FB_LAYOUT_CEPH
                : text[0] == 'l' ? FB_LAYOUT_LUSTRE
                                 : FB_LAYOUT_NONE;
  return ahead->kind != FB_LAYOUT_NONE &&
         crc == checksum(text[0], ahead->ino, ahead->data, ahead->size) && is_understood(ahead);
}

void fb_layout_take_command(struct fb_layout_ahead *ahead, const char *command) {
  ahead->kind = FB_LAYOUT_NONE;
  ahead->is_damaged = false;
  ahead->size = 0;
  if (command == NULL || strncmp(command, COMMAND_HEAD, COMMAND_HEAD_LEN) != 0)
    return;
  if (take(ahead, command + COMMAND_HEAD_LEN))
    return;
  ahead->kind = FB_LAYOUT_NONE;
  ahead->is_damaged = true;
}

int fb_layout_open_flags(const struct fb_layout_ahead *ahead, enum fb_layout_kind target) {
  return ahead->kind == FB_LAYOUT_LUSTRE && target == FB_LAYOUT_LUSTRE ? LUSTRE_DELAY_CREATE : 0;
}

/* A file or directory by its descriptor, or by its link in /proc. */
struct target {
  int fd;
  const char *proc_path;
};

/* 0 or errno. */
static int set_xattr(const struct target *t, const char *name, const void *value, size_t size) {
  int rc = t->proc_path != NULL ? setxattr(t->proc_path, name, value, size, 0)
                                : fsetxattr(t->fd, name, value, size, 0);
  return rc == 0 ? 0 : errno;
}

/* There is nothing of the kind here, whatever the value. */
static bool is_elsewhere(int error) {
  return error == ENOTSUP || error == ENODATA || error == ENOTTY || error == ENOSYS;
}

/* May another value do? */
static bool may_adapt(int error) {
  return !is_elsewhere(error) && error != EPERM && error != EACCES && error != EROFS;
}

/* Are there fewer OSTs than stripes?  What passes (EIO, ENOSPC) is no reason to spread a file. */
static bool is_too_wide(int error) {
  return error == EINVAL || error == ERANGE || error == EFBIG;
}

static enum fb_layout_outcome refused(int error) {
  return is_elsewhere(error) ? FB_LAYOUT_ELSEWHERE : FB_LAYOUT_DEFAULTED;
}

/* One setxattr of the whole text: no invalid combination on the way. */
static enum fb_layout_outcome set_ceph(const struct target *t, const char *name,
                                       const struct fb_ceph_layout *layout, int *error) {
  char text[FB_CEPH_TEXT_BYTES_MAX];
  int first = set_xattr(t, name, text, fb_ceph_format(layout, true, text));
  if (first == 0)
    return FB_LAYOUT_KEPT;
  *error = first;
  if (layout->pool[0] != '\0' && may_adapt(first) &&
      set_xattr(t, name, text, fb_ceph_format(layout, false, text)) == 0)
    return FB_LAYOUT_ADAPTED;
  return refused(first);
}

/* What the file has is asked first: to change it is dearer than to ask, also where each question
 * goes to the metadata server (Linux's client), and mostly it is the same. */
static enum fb_layout_outcome apply_ceph(const struct fb_layout_ahead *ahead, int fd, int *error) {
  struct fb_ceph_layout saved, now;
  uint8_t text[FB_CEPH_TEXT_BYTES_MAX];
  ssize_t size = fgetxattr(fd, CEPH_FILE, text, sizeof(text));
  if (size < 0) {
    *error = errno;
    return refused(*error);
  }
  if (!fb_ceph_parse(ahead->data, ahead->size, &saved))
    return FB_LAYOUT_STRANGE;
  if (fb_ceph_parse(text, (size_t)size, &now) && fb_ceph_same_stripes(&saved, &now) &&
      fb_ceph_same_pool(&saved, &now))
    return FB_LAYOUT_KEPT;
  const struct target t = {.fd = fd};
  return set_ceph(&t, CEPH_FILE, &saved, error);
}

/* As saved, then without its pool, then on as many OSTs as there are. */
static enum fb_layout_outcome set_lustre(const struct target *t, const uint8_t *lov,
                                         size_t lov_size, uint8_t *scratch, int *error) {
  const struct fb_lustre_changes ways[] = {
      {0}, {.without_pool = true}, {.without_pool = true, .all_osts = true}};
  struct fb_lustre_about about;
  size_t size;
  *error = 0;
  for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
    if (fb_lustre_rebuild(lov, lov_size, &ways[i], scratch, &size, &about) != FB_LUSTRE_OK)
      return FB_LAYOUT_STRANGE;
    if ((i == 1 && !about.has_pool) || (i == 2 && (!about.has_stripes || !is_too_wide(*error))))
      continue;
    int rc = set_xattr(t, FB_LUSTRE_XATTR, scratch, size);
    if (rc == 0 && i > 0)
      return FB_LAYOUT_ADAPTED;
    if (rc == 0)
      return about.mirrors > 1 ? FB_LAYOUT_MIRRORED : FB_LAYOUT_KEPT;
    if (*error == 0)
      *error = rc;
    if (!may_adapt(rc))
      break;
  }
  return refused(*error);
}

/* What was opened to wait for a layout takes no data without one; opened once more it gets
 * the directory's.  Not before it is closed: while a client has a file open for writing, it
 * does not tell the metadata server of one more open (ll_file_open() of Lustre's
 * llite/file.c).  0 or -errno, and *fd is -1 then. */
static int open_anew(int *fd) {
  char path[40];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
  int pin = open(path, O_PATH | O_CLOEXEC);
  int error = errno;
  close(*fd);
  *fd = -1;
  if (pin < 0)
    return -error;
  snprintf(path, sizeof(path), "/proc/self/fd/%d", pin);
  *fd = open(path, O_WRONLY | O_CLOEXEC);
  error = errno;
  close(pin);
  return *fd < 0 ? -error : 0;
}

int fb_layout_apply_file(struct fb_layout_ahead *ahead, enum fb_layout_kind target, int *fd,
                         int *error) {
  *error = 0;
  if (ahead->is_damaged)
    return FB_LAYOUT_STRANGE;
  if (ahead->kind == FB_LAYOUT_NONE)
    return FB_LAYOUT_KEPT;
  if (target != ahead->kind)
    return FB_LAYOUT_ELSEWHERE;
  if (ahead->kind == FB_LAYOUT_CEPH)
    return (int)apply_ceph(ahead, *fd, error);
  const struct target t = {.fd = *fd};
  enum fb_layout_outcome outcome =
      set_lustre(&t, ahead->data, ahead->size, ahead->scratch, error);
  if (outcome == FB_LAYOUT_KEPT || outcome == FB_LAYOUT_MIRRORED || outcome == FB_LAYOUT_ADAPTED)
    return (int)outcome;
  int rc = open_anew(fd);
  return rc < 0 ? rc : (int)outcome;
}

bool fb_layout_is_xattr(const char *name) {
  static const char *const prefixes[] = {"lustre.", "ceph.file.layout", "ceph.dir.layout",
                                         "ceph.dir.pin", "ceph.quota."};
  for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++)
    if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
      return true;
  return strcmp(name, "trusted.lov") == 0; /* lustre.lov again, as root sees it */
}

/* The gravest of several, and its error. */
struct worst {
  enum fb_layout_outcome outcome;
  int error;
};

static void note(struct worst *worst, enum fb_layout_outcome outcome, int error) {
  if (outcome > worst->outcome) {
    worst->outcome = outcome;
    worst->error = error;
  }
}

static void apply_default_lov(const struct target *t, const struct fb_item *lov,
                              struct worst *worst) {
  uint8_t *scratch = malloc(lov->value_len != 0 ? lov->value_len : 1);
  if (scratch == NULL) {
    note(worst, FB_LAYOUT_DEFAULTED, ENOMEM);
    return;
  }
  int error;
  enum fb_layout_outcome outcome = set_lustre(t, lov->value, lov->value_len, scratch, &error);
  /* No data waits in a directory for its mirrors. */
  note(worst, outcome == FB_LAYOUT_MIRRORED ? FB_LAYOUT_KEPT : outcome, error);
  free(scratch);
}

static void apply_number(const struct target *t, const struct fb_blob *stream, const char *name,
                         struct worst *worst) {
  struct fb_item item;
  if (!fb_blob_find_xattr(stream, name, &item))
    return;
  if (!fb_ceph_is_number(item.value, item.value_len)) {
    note(worst, FB_LAYOUT_STRANGE, 0);
    return;
  }
  int error = set_xattr(t, name, item.value, item.value_len);
  if (error != 0)
    note(worst, refused(error), error);
}

enum fb_layout_kind fb_layout_of_directory(const struct fb_blob *stream) {
  static const char *const of_ceph[] = {CEPH_DIR, CEPH_PIN, CEPH_QUOTA_BYTES, CEPH_QUOTA_FILES};
  struct fb_item item;
  for (size_t i = 0; i < sizeof(of_ceph) / sizeof(of_ceph[0]); i++)
    if (fb_blob_find_xattr(stream, of_ceph[i], &item))
      return FB_LAYOUT_CEPH;
  return fb_blob_find_xattr(stream, FB_LUSTRE_XATTR, &item) ? FB_LAYOUT_LUSTRE : FB_LAYOUT_NONE;
}

enum fb_layout_outcome fb_layout_apply_directory(const struct fb_blob *stream, int fd,
                                                 const char *proc_path, int *error) {
  const struct target t = {.fd = fd, .proc_path = proc_path};
  struct worst worst = {FB_LAYOUT_KEPT, 0};
  struct fb_ceph_layout layout;
  struct fb_item item;
  if (fb_blob_find_xattr(stream, FB_LUSTRE_XATTR, &item))
    apply_default_lov(&t, &item, &worst);
  if (fb_blob_find_xattr(stream, CEPH_DIR, &item)) {
    int refusal = 0;
    if (fb_ceph_parse(item.value, item.value_len, &layout))
      note(&worst, set_ceph(&t, CEPH_DIR, &layout, &refusal), refusal);
    else
      note(&worst, FB_LAYOUT_STRANGE, 0);
  }
  apply_number(&t, stream, CEPH_QUOTA_BYTES, &worst);
  apply_number(&t, stream, CEPH_QUOTA_FILES, &worst);
  apply_number(&t, stream, CEPH_PIN, &worst);
  *error = worst.error;
  return worst.outcome;
}

enum fb_layout_outcome fb_layout_of_late_stream(const struct fb_blob *stream) {
  const struct fb_lustre_changes none = {0};
  struct fb_lustre_about about;
  struct fb_item lov;
  size_t size;
  if (!fb_blob_find_xattr(stream, FB_LUSTRE_XATTR, &lov) || lov.value_len == 0)
    return FB_LAYOUT_KEPT;
  uint8_t *rebuilt = malloc(lov.value_len);
  bool fits = rebuilt != NULL && fb_lustre_rebuild(lov.value, lov.value_len, &none, rebuilt, &size,
                                                   &about) == FB_LUSTRE_OK;
  free(rebuilt);
  return fits ? FB_LAYOUT_LATE : FB_LAYOUT_STRANGE;
}
