/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Bytes in hexadecimal between a harness and its test.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

/* Exactly as long as it is, so that AddressSanitizer sees a read beyond it. */
static size_t read_hex(uint8_t **bytes) {
  char *text = NULL;
  size_t capacity = 0;
  ssize_t length = getline(&text, &capacity, stdin);
  size_t size = length > 0 ? (size_t)length / 2 : 0;
  *bytes = malloc(size != 0 ? size : 1);
  for (size_t i = 0; i < size; i++)
    (*bytes)[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
  free(text);
  return size;
}

static void print_hex(const void *data, size_t size) {
  for (size_t i = 0; i < size; i++)
    printf("%02x", ((const uint8_t *)data)[i]);
}
