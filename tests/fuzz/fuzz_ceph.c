/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * libFuzzer on what reads the xattrs of CephFS: layouts, quotas and pins.
 */
#include "../plugin/fuzz_layouts.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *exact = malloc(size != 0 ? size : 1); /* so that its end is seen */
  memcpy(exact, data, size);
  use_ceph(exact, size);
  free(exact);
  return 0;
}
