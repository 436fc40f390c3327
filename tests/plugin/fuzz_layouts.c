/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Fuzzes what reads layouts: every byte that a user's xattr or a volume could hold.  The first
 * byte says which: a lustre.lov, a text of CephFS, a plugin command.  A short, repeatable run
 * (libFuzzer's are in tests/fuzz): main() mutates seeds by itself:
 *   fuzz_layouts ITERATIONS RANDOM_SEED SEED_FILE...
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_layouts.h"

#define INPUT_BYTES_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
