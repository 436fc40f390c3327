/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See layout_ceph.h.
 */
#include "layout_ceph.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* CEPH_MIN_STRIPE_UNIT of include/ceph_fs.h: units and objects are multiples of it. */
#define STRIPE_UNIT_BYTES_MIN 65536u

#define NUMBER_DIGITS_MAX 19

enum { HAS_UNIT = 1, HAS_COUNT = 2, HAS_SIZE = 4, HAS_POOL = 8, HAS_NAMESPACE = 16 };

struct piece {
  const char *text;
  size_t size;
};

static bool is(struct piece piece, const char *word) {
  return piece.size == strlen(word) && memcmp(piece.text, word, piece.size) == 0;
}

static bool take_u32(struct piece value, uint32_t *out) {
  uint64_t number = 0;
  if (value.size == 0 || value.size > 10)
    return false;
  for (size_t i = 0; i < value.size; i++) {
    if (value.text[i] < '0' || value.text[i] > '9')
      return false;
    number = number * 10 + (uint64_t)(value.text[i] - '0');
  }
  *out = (uint32_t)number;
  return number <= UINT32_MAX;
}

/* A name of what can stand in such a text: no blank, no control character. */
static bool take_name(struct piece value, char out[FB_CEPH_NAME_BYTES_MAX + 1]) {
  if (value.size == 0 || value.size > FB_CEPH_NAME_BYTES_MAX)
    return false;
  for (size_t i = 0; i < value.size; i++)
    if (value.text[i] <= ' ' || value.text[i] > '~' || value.text[i] == '=')
      return false;
  memcpy(out, value.text, value.size);
  out[value.size] = '\0';
  return true;
}

/* The bit of the key, 0 for what is none or has no such value. */
static unsigned take_pair(struct piece key, struct piece value, struct fb_ceph_layout *out) {
  if (is(key, "stripe_unit"))
    return take_u32(value, &out->stripe_unit) ? HAS_UNIT : 0;
  if (is(key, "stripe_count"))
    return take_u32(value, &out->stripe_count) ? HAS_COUNT : 0;
  if (is(key, "object_size"))
    return take_u32(value, &out->object_size) ? HAS_SIZE : 0;
  if (is(key, "pool"))
    return take_name(value, out->pool) ? HAS_POOL : 0;
  if (is(key, "pool_namespace"))
    return take_name(value, out->pool_namespace) ? HAS_NAMESPACE : 0;
  return 0;
}

static bool is_possible(const struct fb_ceph_layout *layout) {
  return layout->stripe_count != 0 && layout->stripe_unit != 0 && layout->object_size != 0 &&
         layout->stripe_unit % STRIPE_UNIT_BYTES_MIN == 0 &&
         layout->object_size % layout->stripe_unit == 0;
}

bool fb_ceph_parse(const uint8_t *text, size_t size, struct fb_ceph_layout *out) {
  const char *at = (const char *)text;
  unsigned seen = 0;
  memset(out, 0, sizeof(*out));
  if (size == 0 || size >= FB_CEPH_TEXT_BYTES_MAX)
    return false;
  for (size_t left = size; left > 0;) {
    const char *blank = memchr(at, ' ', left);
    size_t length = blank != NULL ? (size_t)(blank - at) : left;
    const char *sign = memchr(at, '=', length);
    if (sign == NULL)
      return false;
    struct piece key = {at, (size_t)(sign - at)};
    struct piece value = {sign + 1, length - key.size - 1};
    unsigned bit = take_pair(key, value, out);
    if (bit == 0 || (seen & bit) != 0)
      return false;
    seen |= bit;
    if (blank != NULL && ++length == left) /* a blank that nothing follows */
      return false;
    at += length;
    left -= length;
  }
  const unsigned needed = HAS_UNIT | HAS_COUNT | HAS_SIZE;
  bool pool_fits = (seen & HAS_NAMESPACE) == 0 || (seen & HAS_POOL) != 0;
  return (seen & needed) == needed && pool_fits && is_possible(out);
}

size_t fb_ceph_format(const struct fb_ceph_layout *layout, bool with_pool,
                      char out[FB_CEPH_TEXT_BYTES_MAX]) {
  bool has_pool = with_pool && layout->pool[0] != '\0';
  bool has_namespace = has_pool && layout->pool_namespace[0] != '\0';
  int length = snprintf(out, FB_CEPH_TEXT_BYTES_MAX,
                        "stripe_unit=%" PRIu32 " stripe_count=%" PRIu32 " object_size=%" PRIu32
                        "%s%s%s%s",
                        layout->stripe_unit, layout->stripe_count, layout->object_size,
                        has_pool ? " pool=" : "", has_pool ? layout->pool : "",
                        has_namespace ? " pool_namespace=" : "",
                        has_namespace ? layout->pool_namespace : "");
  return (size_t)length; /* at most 91 bytes of keys and numbers, and two names */
}

_Static_assert(FB_CEPH_TEXT_BYTES_MAX > 96 + 2 * FB_CEPH_NAME_BYTES_MAX, "a layout's text fits");

bool fb_ceph_same_stripes(const struct fb_ceph_layout *a, const struct fb_ceph_layout *b) {
  return a->stripe_unit == b->stripe_unit && a->stripe_count == b->stripe_count &&
         a->object_size == b->object_size;
}

bool fb_ceph_same_pool(const struct fb_ceph_layout *a, const struct fb_ceph_layout *b) {
  return strcmp(a->pool, b->pool) == 0 && strcmp(a->pool_namespace, b->pool_namespace) == 0;
}

bool fb_ceph_is_number(const uint8_t *text, size_t size) {
  if (size == 0 || size > NUMBER_DIGITS_MAX)
    return false;
  for (size_t i = 0; i < size; i++)
    if (text[i] < '0' || text[i] > '9')
      return false;
  return true;
}
