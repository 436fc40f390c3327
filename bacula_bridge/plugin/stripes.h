/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * On which objects the bytes of a file lie, as far as that decides how it is read.
 *
 * Covers: where a piece that begins at an offset should end, which object it lies on.  Does not
 * cover: reading layouts (layout_lustre.c, layout.c), the plan of a whole file (chunks.c).
 */
#ifndef FOREBAY_STRIPES_H
#define FOREBAY_STRIPES_H

#include <stdbool.h>
#include <stdint.h>

/* Components of a layout that are known; behind them, as where nothing is known. */
#define FB_STRIPE_RANGES_MAX 32
/* Stripes and components of Lustre (LOV_MIN_STRIPE_SIZE) and CephFS (CEPH_MIN_STRIPE_UNIT) are
 * multiples of it; what is not is no reason to read a file byte by byte. */
#define FB_STRIPE_BYTES_MIN 65536u
/* On several objects, or nobody knows on which. */
#define FB_OBJECT_ANY UINT64_MAX

/* [start, end) of a file in stripes of so many bytes, counted from the beginning of the file, round
 * and round on objects. */
struct fb_stripe_range {
  uint64_t start, end;
  uint32_t stripe_bytes;       /* 0: one object has all of it */
  uint32_t objects;            /* at least 1 */
  uint32_t stripes_per_object; /* then come other objects; 0: they have no bound */
};

struct fb_stripes {
  unsigned count; /* 0: nothing is known */
  struct fb_stripe_range range[FB_STRIPE_RANGES_MAX]; /* upwards, without overlaps */
};

/* Adds a range behind the others.  False, and nothing is added: it is none, or there are
 * FB_STRIPE_RANGES_MAX. */
bool fb_stripes_add(struct fb_stripes *stripes, const struct fb_stripe_range *range);

/* Where a piece at offset ends that has at most bytes_max bytes (a multiple of
 * FB_STRIPE_BYTES_MIN): at the end of a stripe, or, of stripes that are longer, at a multiple of
 * bytes_max within one.  *object tells objects of one file apart. */
uint64_t fb_stripes_piece_end(const struct fb_stripes *stripes, uint64_t offset, uint32_t bytes_max,
                              uint64_t *object);

#endif
