/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * What is to be done with directories at the end of a restore job, deepest first:
 * kept in an unlinked temporary file, so that memory does not grow with their
 * number.
 */
#ifndef FOREBAY_RESTORE_DIRECTORIES_H
#define FOREBAY_RESTORE_DIRECTORIES_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "restore_attributes.h"
#include "restore_report.h"

/* A directory that a restore made and that still waits for its attributes carries
 * this mode: the setuid bit means nothing on a directory. */
#define FB_MARKED_MODE 04700

enum fb_note {
  FB_NOTE_MADE = 1,     /* made as a parent: 0700 if no entry says otherwise; only if
                         * the job replaces always, see restore_place.c */
  FB_NOTE_LOOSENED = 2, /* u+rwx was added: back to the given mode */
  FB_NOTE_ENTRY = 3     /* in the backup: its attributes */
};

/* The notes of one depth and sort, one after another in the file. */
struct fb_chain {
  off_t first, last; /* 0: none */
};

struct fb_depth {
  struct fb_chain repairs; /* MADE and LOOSENED: done before the entries */
  struct fb_chain entries;
};

struct fb_directories {
  const char *work_dir; /* the owner keeps this and where alive */
  const char *where;    /* the restore place, for messages */
  int fd;               /* -1 until the first note */
  off_t end;
  struct fb_depth *depths;
  size_t depth_count;
};

void fb_directories_init(struct fb_directories *directories, const char *work_dir,
                         const char *where);
/* mode counts for LOOSENED, attributes for ENTRY.  0 or -errno. */
int fb_directories_note(struct fb_directories *directories, enum fb_note note,
                        const char *path, size_t path_len, mode_t mode,
                        const struct fb_attributes *attributes);
/* Gives one directory its attributes now: the path_len bytes at name + path_at,
 * where name is what messages call it. */
void fb_directories_apply_entry(int root_fd, const char *name, size_t path_at, size_t path_len,
                                const struct fb_attributes *attributes,
                                struct fb_report *report);
/* Does what was noted, and forgets it. */
void fb_directories_finish(struct fb_directories *directories, int root_fd,
                           struct fb_report *report);
void fb_directories_free(struct fb_directories *directories);

#endif
