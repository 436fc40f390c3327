/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what reads Lustre changelog records: every byte that a client library could hand out, and
 * every byte of a block that a change log could have.
 *
 * LLVMFuzzerTestOneInput() is for libFuzzer (-DLIBFUZZER); without it main() mutates seeds by
 * itself (tests/plugin/fuzz_main.h). An input is a byte that says what it is, then records, each
 * behind its length (2 bytes), or a block.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "changelog.h"

#define RECORDS_MAX 512
#define BLOCK_ROOM 1100 /* so small that there are several */
#define INPUT_BYTES_MAX 65536

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
  const uint8_t *data;
  size_t size, at;
};

static void check(int is_good) {
  if (!is_good)
    abort();
}

/* As the library does: the record is on the heap, with room for the largest. */
static int receive(void *opened, void **record) {
  struct input *input = opened;
  if (input->size - input->at < 2)
    return input->size > input->at ? -5 : 1;
  size_t size = fl_get16(input->data + input->at), left = input->size - input->at - 2;
  input->at += 2;
  size = size < left ? size : left;
  *record = calloc(1, FL_RECORD_BYTES_MAX);
  if (size > 0)
    memcpy(*record, input->data + input->at, size < FL_RECORD_BYTES_MAX ? size : FL_RECORD_BYTES_MAX);
  input->at += size;
  return 0;
}

static int release(void **record) {
  free(*record);
  *record = NULL;
  return 0;
}

/* Reads all that a decoded record leads to, so that a sanitizer sees each access. */
static void use_record(const uint8_t *data, size_t size) {
  struct fl_record record;
  uint64_t sum = 0;
  uint8_t *exact = malloc(size > 0 ? size : 1); /* no byte to spare */
  if (size > 0)
    memcpy(exact, data, size);
  if (fl_decode(exact, size, &record) == 0) {
    check(memchr(record.name, 0, record.name_size) == NULL);
    for (size_t i = 0; i < record.name_size; i++)
      sum += record.name[i];
    for (size_t i = 0; i < record.source_name_size; i++)
      sum += record.source_name[i];
    for (size_t i = 0; i < FL_FID_BYTES; i++)
      sum += record.target[i] + record.parent[i];
    for (size_t i = 0; record.source != NULL && i < FL_FID_BYTES; i++)
      sum += record.source[i] + record.source_parent[i];
  }
  check(sum != UINT64_MAX);
  free(exact);
}

/* What is stored is loaded again, and is the same then. */
static void use_places(const struct fl_places *places) {
  struct fl_block block = {0};
  struct fl_places *again = fl_places_new(3, 4);
  uint8_t *out = malloc(BLOCK_ROOM);
  uint64_t newest = 0, count = 0, bytes = 0;
  int more = 1;
  while (more) {
    more = fl_places_store(places, 0, 1, out, BLOCK_ROOM, &block);
    check(block.size <= BLOCK_ROOM && (!more || block.count > 0));
    check(fl_places_load(again, out, block.size, block.count, 0) == 0);
    count += block.count;
    bytes += block.size;
  }
  check(count == fl_places_count(places) && count == fl_places_count(again));
  check(bytes <= fl_places_bytes(places));
  check(fl_places_newest(again, count / 2, &newest) == 0);
  check(newest != 0 || count == 0);
  free(out);
  fl_places_free(again);
}

static void use_records(struct fl_records *records) {
  uint32_t count = fl_records_count(records), run = 0;
  size_t size;
  struct fl_places *places = fl_places_new(1, 2);
  for (uint32_t i = 0; i < count; i++) {
    const uint8_t *data = fl_records_bytes(records, i, &size);
    use_record(data, size);
  }
  while (run < count)
    run = fl_records_run(records, run, count, 0) + 1;
  check(fl_places_add(places, records, 0, count / 2) == 0);
  check(fl_places_add(places, records, count / 2, count) == 0);
  use_places(places);
  fl_places_free(places);
}

static void use_block(const uint8_t *data, size_t size) {
  struct fl_places *places = fl_places_new(1, 2);
  uint8_t *exact = malloc(size > 0 ? size : 1);
  if (size > 0)
    memcpy(exact, data, size);
  fl_places_load(places, exact, size, UINT64_MAX, 0);
  fl_places_load(places, exact, size, 3, 1);
  use_places(places); /* the rows before what is wrong */
  free(exact);
  fl_places_free(places);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 1)
    return 0;
  if (data[0] & 1) {
    use_block(data + 1, size - 1);
    return 0;
  }
  struct input input = {data + 1, size - 1, 0};
  struct fl_records *records = fl_records_new(RECORDS_MAX, (size_t)data[0] << 8);
  int64_t detail = 0;
  use_record(data + 1, size - 1);
  int ended = fl_records_receive(records, receive, release, &input, &detail);
  check(ended != FL_UNREADABLE || detail > FL_RECORD_BYTES_MAX);
  check(ended != FL_FAILED || detail == -5);
  use_records(records);
  fl_records_free(records);
  return 0;
}

#ifndef LIBFUZZER
static const uint32_t odd_numbers[] = {0,      1,      6,      8,          0x7f,        0xff,
                                       0x1000, 0x2000, 0xf000, 0x7fffffff, 0x80000000u, 0xffffffffu};

#include "fuzz_main.h"

static void finish(uint8_t *data, size_t size) {
  (void)data;
  (void)size;
}
#endif
