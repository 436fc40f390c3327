/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * main() of a fuzzer without libFuzzer: mutates seeds by itself, the same for the same arguments:
 *   PROGRAM ITERATIONS RANDOM_SEED SEED_FILE...
 * Included by one file, which says what inputs look like:
 *   INPUT_BYTES_MAX, odd_numbers[] (u32 that are worth to be tried), and
 *   finish(data, size): the last touch to a mutated input.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define SEEDS_MAX 64

static uint64_t random_state;

static uint64_t next_random(void) { /* xorshift64* */
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * UINT64_C(0x2545F4914F6CDD1D);
}

static size_t below(size_t bound) { return bound == 0 ? 0 : (size_t)(next_random() % bound); }

static void finish(uint8_t *data, size_t size);

static size_t mutate_once(uint8_t *data, size_t size) {
  size_t at = below(size), length = 1 + below(64);
  switch (below(6)) {
  case 0:
    data[at] ^= (uint8_t)(1u << below(8));
    return size;
  case 1:
    data[at] = (uint8_t)next_random();
    return size;
  case 2:
    if (size - at >= 4)
      fb_put_u32(data + at, odd_numbers[below(sizeof odd_numbers / sizeof *odd_numbers)]);
    return size;
  case 3: /* cut out */
    if (length > size - at - 1)
      return size;
    memmove(data + at, data + at + length, size - at - length);
    return size - length;
  case 4: /* repeat */
    if (length > size - at || size + length > INPUT_BYTES_MAX)
      return size;
    memmove(data + at + length, data + at, size - at);
    return size + length;
  default: /* cut off */
    return below(8) == 0 ? at + 1 : size;
  }
}

int main(int argc, char **argv) {
  static uint8_t seed[SEEDS_MAX][INPUT_BYTES_MAX], input[INPUT_BYTES_MAX];
  size_t seed_size[SEEDS_MAX], seeds = 0;
  if (argc < 4)
    return 2;
  unsigned long iterations = strtoul(argv[1], NULL, 10);
  random_state = strtoull(argv[2], NULL, 10) * 2 + 1;
  for (int i = 3; i < argc && seeds < SEEDS_MAX; i++) {
    FILE *file = fopen(argv[i], "rb");
    if (file == NULL)
      return 2;
    seed_size[seeds] = fread(seed[seeds], 1, INPUT_BYTES_MAX, file);
    fclose(file);
    LLVMFuzzerTestOneInput(seed[seeds], seed_size[seeds]);
    seeds += seed_size[seeds] > 1;
  }
  for (unsigned long i = 0; seeds > 0 && i < iterations; i++) {
    size_t chosen = below(seeds), size = seed_size[chosen];
    memcpy(input, seed[chosen], size);
    for (size_t n = 1 + below(4); n > 0; n--)
      size = mutate_once(input, size);
    finish(input, size);
    LLVMFuzzerTestOneInput(input, size);
  }
  printf("%lu inputs from %zu seeds\n", iterations, seeds);
  return 0;
}
