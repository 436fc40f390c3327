/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See stripes.h.
 */
#include "stripes.h"

#include <stddef.h>

#define OBJECT_BITS 56 /* of an object's number within its range; the range's stands above */

bool fb_stripes_add(struct fb_stripes *stripes, const struct fb_stripe_range *range) {
  const uint64_t before = stripes->count > 0 ? stripes->range[stripes->count - 1].end : 0;
  if (stripes->count == FB_STRIPE_RANGES_MAX || range->start >= range->end ||
      range->start < before || range->objects == 0 || range->start % FB_STRIPE_BYTES_MIN != 0 ||
      (range->end % FB_STRIPE_BYTES_MIN != 0 && range->end != UINT64_MAX) ||
      range->stripe_bytes % FB_STRIPE_BYTES_MIN != 0)
    return false;
  stripes->range[stripes->count++] = *range;
  return true;
}

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* The end of the block of that size in which offset lies, counted from base. */
static uint64_t block_end(uint64_t offset, uint64_t base, uint64_t bytes) {
  uint64_t end = base + (offset - base) / bytes * bytes;
  return __builtin_add_overflow(end, bytes, &end) ? UINT64_MAX : end;
}

static uint64_t object_of(const struct fb_stripe_range *range, unsigned number, uint64_t offset) {
  uint64_t object = 0;
  if (range->stripe_bytes != 0) {
    const uint64_t stripe = offset / range->stripe_bytes;
    object = stripe % range->objects;
    if (range->stripes_per_object != 0)
      object += stripe / range->objects / range->stripes_per_object * range->objects;
  }
  return (uint64_t)number << OBJECT_BITS | (object & ((UINT64_C(1) << OBJECT_BITS) - 1));
}

uint64_t fb_stripes_piece_end(const struct fb_stripes *stripes, uint64_t offset, uint32_t bytes_max,
                              uint64_t *object) {
  unsigned number = 0;
  *object = FB_OBJECT_ANY;
  while (number < stripes->count && stripes->range[number].end <= offset)
    number++;
  const uint64_t plain_end = block_end(offset, 0, bytes_max);
  if (number == stripes->count)
    return plain_end;
  const struct fb_stripe_range *range = &stripes->range[number];
  if (offset < range->start)
    return least(plain_end, range->start);
  const uint64_t stripe = range->stripe_bytes;
  if (stripe != 0 && stripe < bytes_max) {
    const uint64_t stripes_in_it = bytes_max / stripe;
    if (stripes_in_it == 1)
      *object = object_of(range, number, offset);
    return least(block_end(offset, 0, stripes_in_it * stripe), range->end);
  }
  *object = object_of(range, number, offset);
  if (stripe == 0)
    return least(plain_end, range->end);
  const uint64_t stripe_start = offset / stripe * stripe;
  return least(least(block_end(offset, stripe_start, bytes_max), block_end(offset, 0, stripe)),
               range->end);
}
