/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * libFuzzer on what reads lustre.lov and the plugin command that carries a layout on a volume.
 * An even first byte: the rest is a lustre.lov; an odd one: a command.
 */
#include "../plugin/fuzz_layouts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1)
    return 0;
  uint8_t *exact = malloc(size - 1 != 0 ? size - 1 : 1); /* so that its end is seen */
  memcpy(exact, data + 1, size - 1);
  if ((data[0] & 1) == 0)
    use_lustre(exact, size - 1);
  else
    use_command(exact, size - 1);
  free(exact);
  return 0;
}
