/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The text by which CephFS tells and takes a layout.
 *
 * Covers: reading it with every bound checked, writing it with or without its pool, numbers of
 * quotas and pins.  Does not cover: any system call (layout.c).
 */
#ifndef FOREBAY_LAYOUT_CEPH_H
#define FOREBAY_LAYOUT_CEPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest text that is read or written. */
#define FB_CEPH_TEXT_BYTES_MAX 512
#define FB_CEPH_NAME_BYTES_MAX 128

struct fb_ceph_layout {
  uint32_t stripe_unit, stripe_count, object_size;
  char pool[FB_CEPH_NAME_BYTES_MAX + 1]; /* "" if the text names none */
  char pool_namespace[FB_CEPH_NAME_BYTES_MAX + 1];
};

/* Reads "stripe_unit=N stripe_count=N object_size=N pool=NAME [pool_namespace=NAME]".  False:
 * it is something else, or a layout that no file can have. */
bool fb_ceph_parse(const uint8_t *text, size_t size, struct fb_ceph_layout *out);

/* The same text; without its pool also without the namespace, which is the pool's.  Returns
 * its length. */
size_t fb_ceph_format(const struct fb_ceph_layout *layout, bool with_pool,
                      char out[FB_CEPH_TEXT_BYTES_MAX]);

/* Are both striped alike, wherever their objects lie? */
bool fb_ceph_same_stripes(const struct fb_ceph_layout *a, const struct fb_ceph_layout *b);
bool fb_ceph_same_pool(const struct fb_ceph_layout *a, const struct fb_ceph_layout *b);

/* Is it a number of at most 19 digits, as quotas and pins are? */
bool fb_ceph_is_number(const uint8_t *text, size_t size);

#endif
