/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore_object.h.
 */
#include "restore_object.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "blob.h"

#define HEAD "forebay-layouts 1\n"
#define LAYOUT_BYTES_MAX (FB_OBJECT_BYTES_MAX / 2 - 64 * FB_OBJECT_LAYOUTS_MAX)
#define LINE_BYTES_MAX 64 /* of a line but for the layout in it */
#define CEPH_CLUSTER "ceph.cluster_fsid"
#define UUID_LEN 36

static const char *const NAMES[] = {
    [FB_LAYOUT_NONE] = "none", [FB_LAYOUT_CEPH] = "ceph", [FB_LAYOUT_LUSTRE] = "lustre"};

/* -- Backup -- */

static struct fb_tally_entry *find(struct fb_tally *tally, const struct fb_layout *layout) {
  uint32_t crc = fb_crc32(0, layout->data, layout->size);
  for (size_t i = 0; i < tally->count; i++) {
    struct fb_tally_entry *entry = &tally->entries[i];
    if (entry->crc == crc && entry->size == layout->size &&
        memcmp(entry->data, layout->data, layout->size) == 0)
      return entry;
  }
  if (tally->count == FB_OBJECT_LAYOUTS_MAX ||
      layout->size > LAYOUT_BYTES_MAX - tally->layout_bytes)
    return NULL;
  if (tally->entries == NULL)
    tally->entries = calloc(FB_OBJECT_LAYOUTS_MAX, sizeof(*tally->entries));
  uint8_t *data = tally->entries != NULL ? malloc(layout->size) : NULL;
  if (data == NULL)
    return NULL;
  memcpy(data, layout->data, layout->size);
  tally->layout_bytes += layout->size;
  struct fb_tally_entry *entry = &tally->entries[tally->count++];
  *entry = (struct fb_tally_entry){.crc = crc, .size = (uint32_t)layout->size, .data = data};
  return entry;
}

void fb_tally_file(struct fb_tally *tally, const struct fb_layout *layout, uint64_t bytes) {
  if (layout->kind == FB_LAYOUT_NONE || layout->size == 0)
    return;
  tally->kind = layout->kind;
  struct fb_tally_entry *entry = find(tally, layout);
  *(entry != NULL ? &entry->files : &tally->other_files) += 1;
  *(entry != NULL ? &entry->bytes : &tally->other_bytes) += bytes;
}

void fb_tally_directory(struct fb_tally *tally, const struct fb_blob *stream) {
  enum fb_layout_kind kind = fb_layout_of_directory(stream);
  if (kind == FB_LAYOUT_NONE)
    return;
  tally->kind = kind;
  tally->directories++;
}

bool fb_tally_is_empty(const struct fb_tally *tally) { return tally->kind == FB_LAYOUT_NONE; }

static void put_identity(enum fb_layout_kind kind, const char *root, char *out) {
  char found[FB_IDENTITY_BYTES] = {0};
  strcpy(out, "-");
  if (kind == FB_LAYOUT_CEPH && getxattr(root, CEPH_CLUSTER, found, sizeof(found)) == UUID_LEN &&
      strspn(found, "0123456789abcdef-") >= UUID_LEN)
    snprintf(out, FB_IDENTITY_BYTES, "%.*s", UUID_LEN, found);
}

char *fb_tally_text(const struct fb_tally *tally, const char *root, size_t *size) {
  static const char digits[] = "0123456789abcdef";
  const size_t room =
      2 * tally->layout_bytes + (tally->count + 4) * LINE_BYTES_MAX + FB_IDENTITY_BYTES;
  char identity[FB_IDENTITY_BYTES];
  char *text = malloc(room);
  if (text == NULL)
    return NULL;
  put_identity(tally->kind, root, identity);
  char *to = text;
  to += snprintf(to, room, HEAD "filesystem %s %s\ndirectories %" PRIu64 "\n",
                 NAMES[tally->kind], identity, tally->directories);
  for (size_t i = 0; i < tally->count; i++) {
    const struct fb_tally_entry *entry = &tally->entries[i];
    to += sprintf(to, "layout %" PRIu64 " %" PRIu64 " ", entry->files, entry->bytes);
    for (size_t at = 0; at < entry->size; at++) {
      *to++ = digits[entry->data[at] >> 4];
      *to++ = digits[entry->data[at] & 15];
    }
    *to++ = '\n';
  }
  to += sprintf(to, "others %" PRIu64 " %" PRIu64 "\n", tally->other_files, tally->other_bytes);
  uint32_t crc = fb_crc32(0, text, (size_t)(to - text));
  to += sprintf(to, "end %08" PRIx32 "\n", crc);
  *size = (size_t)(to - text);
  return text;
}

void fb_tally_free(struct fb_tally *tally) {
  for (size_t i = 0; i < tally->count; i++)
    free(tally->entries[i].data);
  free(tally->entries);
  *tally = (struct fb_tally){0};
}

/* -- Restore -- */

/* What is left of a text. */
struct rest {
  const char *at;
  const char *end;
};

static bool take_word(struct rest *rest, const char *word) {
  size_t length = strlen(word);
  if ((size_t)(rest->end - rest->at) < length || memcmp(rest->at, word, length) != 0)
    return false;
  rest->at += length;
  return true;
}

static bool take_number(struct rest *rest, char behind, uint64_t *out) {
  const char *begin = rest->at;
  *out = 0;
  for (; rest->at < rest->end && *rest->at >= '0' && *rest->at <= '9'; rest->at++)
    if (__builtin_mul_overflow(*out, 10, out) ||
        __builtin_add_overflow(*out, (uint64_t)(*rest->at - '0'), out))
      return false;
  bool is_number = rest->at > begin && rest->at < rest->end && *rest->at == behind;
  rest->at += is_number;
  return is_number;
}

/* Everything up to a newline, of these characters. */
static bool take_line(struct rest *rest, const char *allowed, const char **begin, size_t *length) {
  *begin = rest->at;
  while (rest->at < rest->end && *rest->at != '\0' && strchr(allowed, *rest->at) != NULL)
    rest->at++;
  *length = (size_t)(rest->at - *begin);
  return *length > 0 && take_word(rest, "\n");
}

static bool is_whole(const char *object, size_t size) {
  static const char form[] = "end 00000000\n";
  const size_t length = sizeof(form) - 1;
  char wanted[32];
  if (size < length || size > FB_OBJECT_BYTES_MAX)
    return false;
  snprintf(wanted, sizeof(wanted), "end %08" PRIx32 "\n", fb_crc32(0, object, size - length));
  return memcmp(object + size - length, wanted, length) == 0;
}

static bool take(struct fb_summary *one, struct rest rest) {
  const char *text;
  size_t length;
  uint64_t files, bytes;
  if (!take_word(&rest, HEAD) || !take_word(&rest, "filesystem "))
    return false;
  one->kind = take_word(&rest, "ceph ")     ? FB_LAYOUT_CEPH
              : take_word(&rest, "lustre ") ? FB_LAYOUT_LUSTRE
                                            : FB_LAYOUT_NONE;
  if (one->kind == FB_LAYOUT_NONE || !take_line(&rest, "0123456789abcdef-", &text, &length) ||
      length >= sizeof(one->identity))
    return false;
  if (length > 1)
    memcpy(one->identity, text, length);
  if (!take_word(&rest, "directories ") || !take_number(&rest, '\n', &one->directories))
    return false;
  for (; take_word(&rest, "layout "); one->layouts++) {
    if (!take_number(&rest, ' ', &files) || !take_number(&rest, ' ', &bytes) ||
        !take_line(&rest, "0123456789abcdef", &text, &length) ||
        __builtin_add_overflow(one->files, files, &one->files))
      return false;
  }
  return take_word(&rest, "others ") && take_number(&rest, ' ', &files) &&
         take_number(&rest, '\n', &bytes) && take_word(&rest, "end ") &&
         !__builtin_add_overflow(one->files, files, &one->files);
}

void fb_summary_add(struct fb_summary *summary, const char *object, size_t size) {
  struct fb_summary one = {0};
  /* The daemon may count the NUL that the Storage Daemon puts behind an object. */
  while (object != NULL && size > 0 && object[size - 1] == '\0')
    size--;
  if (object == NULL || !is_whole(object, size) ||
      !take(&one, (struct rest){object, object + size})) {
    summary->unknown++;
    return;
  }
  summary->kind = one.kind;
  memcpy(summary->identity, one.identity, sizeof(one.identity));
  /* Jobs of one chain have the same layouts: their number is that of the job with most. */
  if (one.layouts > summary->layouts)
    summary->layouts = one.layouts;
  summary->files += one.files;
  summary->directories += one.directories;
}
