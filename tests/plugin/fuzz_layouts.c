/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Fuzzes what reads layouts: every byte that a user's xattr or a volume could hold.  The first
 * byte says which: a lustre.lov, a text of CephFS, a plugin command.
 *
 * LLVMFuzzerTestOneInput() is for libFuzzer (-DLIBFUZZER -fsanitize=fuzzer); without it main()
 * mutates seeds by itself, the same for the same arguments:
 *   fuzz_layouts ITERATIONS RANDOM_SEED SEED_FILE...
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "layout.h"
#include "layout_ceph.h"
#include "wire.h"

#define INPUT_BYTES_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What was rebuilt is a layout, is no longer than what it was made from, and is not changed
 * by being rebuilt once more. */
static void use_lustre(const uint8_t *lov, size_t size) {
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

static void use_ceph(const uint8_t *text, size_t size) {
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
static void use_command(const uint8_t *bytes, size_t size) {
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1)
    return 0;
  uint8_t *exact = malloc(size); /* without the first byte, and so that its end is seen */
  memcpy(exact, data + 1, size - 1);
  uint8_t *shrunk = realloc(exact, size > 1 ? size - 1 : 1);
  if (data[0] % 3 == 0)
    use_lustre(shrunk, size - 1);
  else if (data[0] % 3 == 1)
    use_ceph(shrunk, size - 1);
  else
    use_command(shrunk, size - 1);
  free(shrunk);
  return 0;
}

#ifndef LIBFUZZER
static const uint32_t odd_numbers[] = {
    0,           1,           2,           31,          32,          47,          48,
    80,          0xffff,      0x10000,     0x7fffffff,  0x80000000u, 0xffffffffu, 0x0BD10BD0u,
    0x0BD30BD0u, 0x0BD50BD0u, 0x0BD60BD0u, 0x0BD70BD0u, 0x80000001u, 0x100,       0x400};

#include "fuzz_main.h"

/* Texts get other characters of texts, too. */
static void finish(uint8_t *data, size_t size) {
  static const char words[] = "0123456789abcdef=: _";
  if (below(4) == 0)
    data[below(size)] = (uint8_t)words[below(sizeof words - 1)];
}
#endif
