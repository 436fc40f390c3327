/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Layouts: what is saved of them, how a layout goes to the volume ahead of the data, and what
 * a restored file or directory is given.
 *
 * Covers: the system calls, the rule by which a layout is adapted
 * (docs/formats/attributes.md).  Does not cover: the formats of the filesystems (layout_ceph.c,
 * layout_lustre.c), what the job log says (restore_report.c).
 */
#ifndef FOREBAY_LAYOUT_H
#define FOREBAY_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "blob.h"
#include "layout_lustre.h"
#include "stripes.h"

/* The longest layout that goes ahead of a file's data. */
#define FB_LAYOUT_BYTES_MAX FB_LUSTRE_LOV_BYTES_MAX

enum fb_layout_kind { FB_LAYOUT_NONE, FB_LAYOUT_CEPH, FB_LAYOUT_LUSTRE };

/* What a backup does with a released file, whose data only the archive of the filesystem's HSM
 * has and to read it would recall: leave it out, save all but its data, read it. */
enum fb_hsm { FB_HSM_SKIP, FB_HSM_STUB, FB_HSM_RECALL };

/* Whose directory is this?  For the kernel's clients fstatfs() says it; of a FUSE mount one
 * more call asks whether it is ceph-fuse.  Takes O_PATH descriptors. */
enum fb_layout_kind fb_layout_kind(int dir_fd);

/* -- Backup -- */

/* What is to be known of a file before its data is written. */
struct fb_layout {
  enum fb_layout_kind kind;
  uint8_t *data;
  size_t size;
};

/* What CephFS keeps of a directory beside listed xattrs, for fb_blob_build(); NULL elsewhere. */
const struct fb_unlisted *fb_layout_unlisted(enum fb_layout_kind kind);

/* Takes the layout of the open regular file fd in a tree of this kind, whose xattrs are blob;
 * NONE if it has none that could be given to a new file.  0 or -errno: it could not be read. */
int fb_layout_read(struct fb_layout *layout, enum fb_layout_kind kind, int fd,
                   const struct fb_blob *blob);
void fb_layout_free(struct fb_layout *layout);

/* Where the data of a file lies whose layout and xattrs were just read. */
void fb_layout_stripes(const struct fb_layout *layout, const struct fb_blob *blob,
                       struct fb_stripes *out);

/* The plugin command that carries the layout of inode ino, in *buffer.  0 or -ENOMEM. */
int fb_layout_command(const struct fb_layout *layout, uint64_t ino, char **buffer,
                      size_t *capacity);

/* -- Restore -- */

/* The layout that came with the plugin command of the next file. */
struct fb_layout_ahead {
  enum fb_layout_kind kind;
  bool is_damaged; /* there was one, but not to be understood */
  uint64_t ino;    /* of the file it belongs to */
  size_t size;
  uint8_t data[FB_LAYOUT_BYTES_MAX];
  uint8_t scratch[FB_LAYOUT_BYTES_MAX];
};

/* What became of a layout, the gravest last. */
enum fb_layout_outcome {
  FB_LAYOUT_KEPT,      /* as it was saved, or there was none */
  FB_LAYOUT_MIRRORED,  /* the same, and mirrors wait for their data */
  FB_LAYOUT_ELSEWHERE, /* the target has no such layouts */
  FB_LAYOUT_ADAPTED,   /* without its pool, or on as many OSTs as there are */
  FB_LAYOUT_DEFAULTED, /* refused: the target's own */
  FB_LAYOUT_STRANGE,   /* damaged, foreign or of a later release: the target's own */
  FB_LAYOUT_LATE,      /* it is only behind the data, where it cannot be set any more */
  FB_LAYOUT_OUTCOMES
};

/* Reads a plugin command as it comes from a volume. */
void fb_layout_take_command(struct fb_layout_ahead *ahead, const char *command);

/* What a file must be opened with, beside O_CREAT, to be given this layout in a directory of
 * that kind. */
int fb_layout_open_flags(const struct fb_layout_ahead *ahead, enum fb_layout_kind target);

/* Gives the layout to the file *fd that was just made with those flags in a directory of
 * that kind, before its data.  *error: the first errno if it was not kept.  Returns the
 * outcome, or -errno if the file cannot be written to now.  *fd may be another afterwards, or
 * -1 with an error. */
int fb_layout_apply_file(struct fb_layout_ahead *ahead, enum fb_layout_kind target, int *fd,
                         int *error);

/* Is this an xattr that is set here and nowhere else? */
bool fb_layout_is_xattr(const char *name);

/* Gives a directory the default layout, quotas and pin of its stream.  proc_path is NULL, or
 * leads to the directory if fd is an O_PATH one. */
enum fb_layout_outcome fb_layout_apply_directory(const struct fb_blob *stream, int fd,
                                                 const char *proc_path, int *error);

/* Whose the default layout, quota or pin in a directory's stream is; NONE: it has none. */
enum fb_layout_kind fb_layout_of_directory(const struct fb_blob *stream);

/* What is to be said of a regular file whose layout came behind its data only: KEPT for
 * nothing. */
enum fb_layout_outcome fb_layout_of_late_stream(const struct fb_blob *stream);

#endif
