/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The restore object: what the files of one job have in common.
 *
 * Covers: counting the layouts of a job as its files go, the text that goes to the catalog
 * behind them (docs/formats/restore-object.md), reading it before a restore.  Does not cover:
 * giving layouts back: each comes with its own file (layout.h), since a restore of a single
 * file is given no restore objects.
 */
#ifndef FOREBAY_RESTORE_OBJECT_H
#define FOREBAY_RESTORE_OBJECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define FB_OBJECT_NAME "forebay.layouts"
/* One record of Bacula takes 1,000,000 bytes; more ends the job. */
#define FB_OBJECT_BYTES_MAX 900000
#define FB_OBJECT_LAYOUTS_MAX 1024
#define FB_IDENTITY_BYTES 64

/* -- Backup -- */

struct fb_tally_entry {
  uint32_t crc;
  uint32_t size;
  uint8_t *data;
  uint64_t files, bytes;
};

/* All zeroes to begin with. */
struct fb_tally {
  enum fb_layout_kind kind;
  struct fb_tally_entry *entries; /* FB_OBJECT_LAYOUTS_MAX of them, once there is one */
  size_t count;
  size_t layout_bytes;                /* of all entries */
  uint64_t other_files, other_bytes; /* of files whose layouts found no room */
  uint64_t directories;              /* with a default layout, quota or pin of their own */
};

/* Counts a file that was saved with this layout and so many bytes of data. */
void fb_tally_file(struct fb_tally *tally, const struct fb_layout *layout, uint64_t bytes);
/* Counts a directory, if its stream has anything of the kind. */
void fb_tally_directory(struct fb_tally *tally, const struct fb_blob *stream);
bool fb_tally_is_empty(const struct fb_tally *tally);
/* The text, with a NUL behind it, to be freed; NULL without memory.  root: the tree's. */
char *fb_tally_text(const struct fb_tally *tally, const char *root, size_t *size);
void fb_tally_free(struct fb_tally *tally);

/* -- Restore -- */

/* The objects of all jobs that are restored, added up.  All zeroes to begin with. */
struct fb_summary {
  enum fb_layout_kind kind;
  char identity[FB_IDENTITY_BYTES]; /* of the filesystem; empty if it has none that is known */
  uint64_t layouts, files, directories;
  unsigned unknown; /* objects that are damaged or of a later release */
};

void fb_summary_add(struct fb_summary *summary, const char *object, size_t size);

#endif
