/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Fuzzes the plugin's frame parser: every byte that a bridge could send.
 *
 * LLVMFuzzerTestOneInput() is for libFuzzer (-DLIBFUZZER -fsanitize=fuzzer); without it main()
 * mutates seeds by itself, the same for the same arguments:
 *   fuzz_frames ITERATIONS RANDOM_SEED SEED_FILE...
 * Half of the mutated inputs get correct checksums again, or nothing behind them
 * would ever be reached.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"
#include "frames.h"
#include "wire.h"

#define INPUT_BYTES_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads what the plugin would, so that a sanitizer sees each access. */
static uint64_t use_entries(const struct fb_frame *frame, struct fb_stream_state *state,
                            char *error) {
  struct fb_entries entries;
  struct fb_entry entry;
  uint64_t sum = 0;
  if (fb_entries_begin(frame, state, &entries, error) < 0)
    return 0;
  while (fb_entries_next(&entries, state, &entry, error) > 0) {
    char text[FB_PRINTABLE_BYTES];
    sum += strlen(fb_escape_text(entry.path, entry.path_len, text));
    for (uint32_t i = 0; i < entry.path_len; i++)
      sum += (unsigned char)entry.path[i];
  }
  return sum;
}

static uint64_t use_frame(const struct fb_frame *frame, struct fb_stream_state *state,
                          char *error) {
  struct fb_accept accept;
  char reason[FB_ERROR_BYTES];
  switch (frame->type) {
  case FB_ACCEPT:
    return fb_accept_parse(frame, &accept, error) == 0
               ? strlen(accept.run_id) + strlen(accept.root) + accept.root_len
               : 0;
  case FB_REFUSE:
  case FB_ABORT:
    return fb_reason_parse(frame, reason, error) == 0 ? strlen(reason) : 0;
  case FB_ENTRIES:
    return use_entries(frame, state, error);
  case FB_END:
    return (uint64_t)fb_end_check(frame, state, error);
  default:
    return 0;
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct fb_parser parser;
  struct fb_stream_state state = {0};
  char error[FB_ERROR_BYTES] = "";
  volatile uint64_t sum = 0;
  if (size < 1)
    return 0;
  /* The first byte says in what pieces the rest arrives. */
  size_t piece = data[0] == 0 ? size : data[0];
  data++;
  size--;
  fb_parser_init(&parser);
  for (size_t at = 0; at < size;) {
    size_t take = size - at < piece ? size - at : piece;
    /* On the heap with no byte to spare: a read past the piece is seen. */
    uint8_t *bytes = malloc(take);
    memcpy(bytes, data + at, take);
    size_t offset = 0;
    int rc = 1;
    while (rc > 0 && offset < take) {
      struct fb_frame frame;
      size_t used;
      rc = fb_parser_feed(&parser, bytes + offset, take - offset, &used, &frame, error);
      if (used > take - offset)
        abort();
      offset += used;
      if (rc > 0)
        sum += use_frame(&frame, &state, error);
    }
    free(bytes);
    if (rc < 0)
      break;
    at += take;
  }
  if (strnlen(error, sizeof error) == sizeof error)
    abort();
  fb_parser_free(&parser);
  return 0;
}

#ifndef LIBFUZZER
static const uint32_t odd_numbers[] = {0,      1,        0x7f,       0x80,        0xff,       0x7fff,
                                       0xffff, 0x100000, 0x7fffffff, 0x80000000u, 0xffffffffu};

#include "fuzz_main.h"

static void repair_checksums(uint8_t *data, size_t size) {
  for (size_t at = 1; size - at > FB_FRAME_HEADER_BYTES;) {
    uint32_t bytes = fb_get_u32(data + at + 8);
    if (bytes > size - at - FB_FRAME_HEADER_BYTES)
      return;
    fb_put_u32(data + at, FB_FRAME_MAGIC);
    fb_put_u32(data + at + 12, fb_crc32(0, data + at + FB_FRAME_HEADER_BYTES, bytes));
    at += FB_FRAME_HEADER_BYTES + bytes;
    if (at >= size)
      return;
  }
}

static void finish(uint8_t *data, size_t size) {
  if (below(2) == 0)
    repair_checksums(data, size);
}
#endif
