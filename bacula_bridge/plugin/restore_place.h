/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The restore place: the directory below which everything is made, the way from
 * there to a file's directory, and what stands in the way.
 */
#ifndef FOREBAY_RESTORE_PLACE_H
#define FOREBAY_RESTORE_PLACE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "layout.h"
#include "restore_directories.h"
#include "restore_report.h"

/* The longest path that is taken from a volume. */
#define FB_PLACE_PATH_BYTES_MAX 131072

struct fb_place {
  char *where; /* without a "/" at its end; "" for the original place */
  size_t where_len;
  int root_fd; /* O_PATH; -1 until fb_place_open() */
  struct fb_directories *directories;
  struct fb_report *report;
  /* The directory of the last file: the next one mostly lies there too. */
  char *last_dir;
  size_t last_dir_len, last_dir_capacity;
  int last_dir_fd;
  bool last_dir_asked; /* its layouts are known */
  enum fb_layout_kind last_dir_layouts;
};

/* 0 or -ENOMEM. */
int fb_place_init(struct fb_place *place, const char *where,
                  struct fb_directories *directories, struct fb_report *report);
void fb_place_free(struct fb_place *place);

/* Opens the place, and makes it if it is missing.  0 or -errno; once open it
 * stays so. */
int fb_place_open(struct fb_place *place);

/* The part of a name of Bacula's below the place; false if it does not lie there
 * or is no path (empty, "." or ".." components). */
bool fb_place_relative(const struct fb_place *place, const char *name, const char **path,
                       size_t *path_len);

/* The directory dir of the place as an O_PATH descriptor that the place keeps
 * (valid until the next call), or -errno.  Missing ones are made and marked; with
 * take_away a file that stands there is removed first, and a symlink too unless the
 * place is the original one, and marks that no entry covers end with the job. */
int fb_place_directory(struct fb_place *place, const char *dir, size_t dir_len,
                       bool take_away);

/* What kind of layouts the directory of the last file has: asked once for each that a file
 * with a layout is restored to. */
enum fb_layout_kind fb_place_layouts(struct fb_place *place);

/* Forgets the directory of the last file. */
void fb_place_forget(struct fb_place *place);

/* After EACCES: gives a directory of our own u+rwx until the end of the job.
 * False if that is not the reason. */
bool fb_place_loosen(struct fb_place *place, int dir_fd, const char *dir, size_t dir_len);

/* Removes whatever stands at name in dir_fd, a directory only if it is empty.
 * 0 (also if nothing is there) or -errno. */
int fb_place_clear(int dir_fd, const char *name);

#endif
