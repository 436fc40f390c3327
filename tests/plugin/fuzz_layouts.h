/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * What a fuzzer does with bytes that pass for layouts, and what must hold of any: for fuzz_layouts.c
 * here and the targets of libFuzzer in tests/fuzz.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "layout_ceph.h"
#include "wire.h"

#define PIECE_BYTES_MAX 1048576u

/* From wherever a file is read: the piece has bytes, and no more than its buffer. */
static inline void use_stripes(const struct fb_stripes *stripes) {
  if (stripes->count > FB_STRIPE_RANGES_MAX)
    abort();
  for (unsigned i = 0; i <= stripes->count; i++) {
    const uint64_t base = i < stripes->count ? stripes->range[i].start : (uint64_t)INT64_MAX - 9;
    uint64_t offset = base > 3 ? base - 3 : 0, object;
    for (unsigned pieces = 0; pieces < 4 && offset < INT64_MAX; pieces++) {
      uint64_t end = fb_stripes_piece_end(stripes, offset, PIECE_BYTES_MAX, &object);
      if (end <= offset || end - offset > PIECE_BYTES_MAX)
        abort();
      offset = end;
    }
  }
}

/* What was rebuilt is a layout, is no longer than what it was made from, and is not changed
 * by being rebuilt once more. */
static inline void use_lustre(const uint8_t *lov, size_t size) {
  struct fb_stripes stripes;
  bool is_released;
  fb_lustre_find_released(lov, size, &is_released);
  fb_lustre_stripes(lov, size, &stripes);
  use_stripes(&stripes);
  for (unsigned way = 0; way < 3; way++) {
    const struct fb_lustre_changes changes = {.without_pool = way == 1, .all_osts = way == 2};
    struct fb_lustre_about about, again_about;
    size_t out_size, again_size;
    uint8_t *out = malloc(size != 0 ? size : 1);
    if (fb_lustre_rebuild(lov, size, &changes, out, &out_size, &about) == FB_LUSTRE_OK) {
      uint8_t *exact = malloc(out_size), *again = malloc(out_size);
      memcpy(exact, out, out_size);
      if (out_size > size || about.mirrors == 0 ||
          fb_lustre_rebuild(exact, out_size, &changes, again, &again_size, &again_about) !=
              FB_LUSTRE_OK ||
          again_size != out_size || memcmp(again, exact, out_size) != 0 ||
          again_about.mirrors != about.mirrors)
        abort();
      free(exact);
      free(again);
    }
    free(out);
  }
}

static inline void use_ceph(const uint8_t *text, size_t size) {
  const struct fb_layout saved = {
      .kind = FB_LAYOUT_CEPH, .data = (uint8_t *)(uintptr_t)text, .size = size};
  const struct fb_blob no_blob = {0};
  struct fb_stripes stripes;
  fb_layout_stripes(&saved, &no_blob, &stripes);
  use_stripes(&stripes);
  struct fb_ceph_layout layout, again;
  char out[FB_CEPH_TEXT_BYTES_MAX];
  fb_ceph_is_number(text, size);
  if (!fb_ceph_parse(text, size, &layout))
    return;
  size_t length = fb_ceph_format(&layout, true, out);
  if (!fb_ceph_parse((const uint8_t *)out, length, &again) || !fb_ceph_same_pool(&layout, &again) ||
      !fb_ceph_same_stripes(&layout, &again))
    abort();
  length = fb_ceph_format(&layout, false, out);
  if (!fb_ceph_parse((const uint8_t *)out, length, &again) || again.pool[0] != '\0' ||
      !fb_ceph_same_stripes(&layout, &again))
    abort();
}

/* As it comes, and with what would be its checksum: nothing behind that would ever be
 * reached. */
static inline void use_command(const uint8_t *bytes, size_t size) {
  static struct fb_layout_ahead ahead;
  char *text = malloc(size + 1), *made = NULL;
  size_t capacity = 0;
  memcpy(text, bytes, size);
  text[size] = '\0';
  fb_layout_take_command(&ahead, text);
  struct fb_layout layout = {.kind = (size & 1) != 0 ? FB_LAYOUT_CEPH : FB_LAYOUT_LUSTRE,
                             .data = (uint8_t *)(uintptr_t)bytes,
                             .size = size};
  if (fb_layout_command(&layout, size * 7, &made, &capacity) < 0)
    abort();
  fb_layout_take_command(&ahead, made);
  if (ahead.kind != FB_LAYOUT_NONE &&
      (ahead.kind != layout.kind || ahead.ino != size * 7 || ahead.size != size ||
       memcmp(ahead.data, bytes, size) != 0))
    abort();
  free(made);
  free(text);
}
