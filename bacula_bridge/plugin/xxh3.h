/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * XXH3-128, seed 0, default secret, streaming: written from the published xxHash
 * specification.  Covers: the canonical (big-endian) digest of any length.  Does
 * not cover: seeds, custom secrets, the 64-bit variant.
 */
#ifndef FOREBAY_XXH3_H
#define FOREBAY_XXH3_H

#include <stddef.h>
#include <stdint.h>

#define FB_XXH3_BUFFER_BYTES 256
#define FB_XXH3_STRIPE_BYTES 64

struct fb_xxh3 {
  uint64_t acc[8];
  uint64_t total;
  size_t stripes_in_block;
  size_t buffered;
  uint8_t buffer[FB_XXH3_BUFFER_BYTES];
  uint8_t tail[FB_XXH3_STRIPE_BYTES]; /* the last stripe that left the buffer */
};

void fb_xxh3_init(struct fb_xxh3 *state);
void fb_xxh3_update(struct fb_xxh3 *state, const void *data, size_t size);
/* Writes the digest of what was fed so far; the state can be fed further. */
void fb_xxh3_final(const struct fb_xxh3 *state, uint8_t digest[16]);

#endif
