/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Lustre's layout of a file as the xattr lustre.lov holds it.
 *
 * Covers: reading one with every length checked, and the same layout as one that a new file
 * can be given.  Does not cover: any system call (layout.c), which OSTs there are.
 */
#ifndef FOREBAY_LAYOUT_LUSTRE_H
#define FOREBAY_LAYOUT_LUSTRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stripes.h"

#define FB_LUSTRE_XATTR "lustre.lov"
/* The longest one. */
#define FB_LUSTRE_LOV_BYTES_MAX 65536

enum fb_lustre_verdict {
  FB_LUSTRE_OK,
  FB_LUSTRE_DAMAGED, /* its lengths, numbers or extents contradict each other */
  FB_LUSTRE_FOREIGN, /* the file's data lies in another system */
  FB_LUSTRE_UNKNOWN  /* of a later release: a magic, pattern or flag without a name here */
};

/* What may be changed about a layout. */
struct fb_lustre_changes {
  bool without_pool;
  bool all_osts; /* where there was more than one stripe: as many as there are OSTs */
};

/* What there is to change, and to know. */
struct fb_lustre_about {
  bool has_pool;
  bool has_stripes; /* somewhere more than one */
  uint16_t mirrors;
};

/* Writes the layout of lov (size bytes) to out, which has room for size bytes, less what
 * belongs to the old file alone: objects, OST numbers, generations, what is instantiated,
 * stale or released.  *out_size is at most size. */
enum fb_lustre_verdict fb_lustre_rebuild(const uint8_t *lov, size_t size,
                                         const struct fb_lustre_changes *changes, uint8_t *out,
                                         size_t *out_size, struct fb_lustre_about *about);

/* Looks for a component that HSM has released.  With OK *is_released says whether there is one,
 * with anything else it cannot be told. */
enum fb_lustre_verdict fb_lustre_find_released(const uint8_t *lov, size_t size,
                                               bool *is_released);

/* Where the data of the file lies that has this layout: of a mirrored one in the first mirror that
 * is not stale.  What cannot be told, or was never written, is left out. */
void fb_lustre_stripes(const uint8_t *lov, size_t size, struct fb_stripes *out);

#endif
