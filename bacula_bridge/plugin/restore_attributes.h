/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The attributes of one restored file: collected from the chunks that Bacula hands
 * back, applied to an open descriptor.
 */
#ifndef FOREBAY_RESTORE_ATTRIBUTES_H
#define FOREBAY_RESTORE_ATTRIBUTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "blob.h"
#include "restore_report.h"

/* The longest stream that is taken; the backup side stops at about 16 MiB. */
#define FB_ATTRIBUTES_BYTES_MAX ((size_t)20 << 20)

enum fb_kind {
  FB_KIND_NONE = 0, /* nothing is being restored, or it was skipped */
  FB_KIND_FILE,
  FB_KIND_DIRECTORY,
  FB_KIND_SYMLINK,
  FB_KIND_SPECIAL,
  FB_KIND_HARD_LINK
};

struct fb_attributes {
  struct fb_stat stat;   /* Bacula's record until the stream's STAT replaced it */
  bool complete;         /* END came, and everything before it; or there is no stream */
  const char *damage;    /* NULL, or what is wrong with the stream */
  uint32_t item_count;
  uint32_t lost_count;   /* LOST items among them */
  bool without_layout;   /* of a directory: no layout, quota and pin: files are to come */
  struct fb_blob stream; /* the chunks so far */
};

/* Starts a file; the buffer is kept from one to the next. */
void fb_attributes_begin(struct fb_attributes *attributes, const struct stat *record);
/* Takes what one xattr record of the volume holds, which nobody has checked. */
void fb_attributes_add(struct fb_attributes *attributes, const uint8_t *data, size_t size);
/* NULL for a complete stream, else what is wrong, to follow "its attributes stream". */
const char *fb_attributes_shortcoming(const struct fb_attributes *attributes);
void fb_attributes_free(struct fb_attributes *attributes);

/* Owner, xattrs and ACLs, mode, times, in this order.  fd is an O_PATH descriptor
 * if path_only (symlinks, special files, directories that cannot be read); path is
 * for messages. */
void fb_attributes_apply(const struct fb_attributes *attributes, enum fb_kind kind, int fd,
                         bool path_only, struct fb_report *report, const char *path,
                         size_t path_len);

#endif
