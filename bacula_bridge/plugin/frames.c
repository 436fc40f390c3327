/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See frames.h and docs/formats/stream-protocol.md.
 */
#include "frames.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "blob.h"
#include "wire.h"

#define PAYLOAD_BYTES_FIRST 65536
#define ENTRY_FLAGS_KNOWN \
  (FB_ENTRY_DELETED | FB_ENTRY_LIST_FAILED | FB_ENTRY_STAT_FAILED | FB_ENTRY_PATH_TOO_LONG | \
   FB_ENTRY_MOUNT_POINT | FB_ENTRY_EXCLUDED)

__attribute__((format(printf, 2, 3))) static int refuse(char *error, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  vsnprintf(error, FB_ERROR_BYTES, fmt, args);
  va_end(args);
  return -1;
}

void fb_parser_init(struct fb_parser *parser) { memset(parser, 0, sizeof *parser); }

void fb_parser_free(struct fb_parser *parser) {
  free(parser->payload);
  memset(parser, 0, sizeof *parser);
}

bool fb_parser_is_midway(const struct fb_parser *parser) { return parser->header_have != 0; }

static int parse_header(struct fb_parser *parser, char *error) {
  const uint8_t *h = parser->header;
  if (fb_get_u32(h) != FB_FRAME_MAGIC)
    return refuse(error, "a frame begins with 0x%08" PRIX32 " instead of FBS1", fb_get_u32(h));
  parser->type = fb_get_u16(h + 4);
  parser->payload_size = fb_get_u32(h + 8);
  parser->crc = fb_get_u32(h + 12);
  parser->payload_have = 0;
  if (fb_get_u16(h + 6) != 0)
    return refuse(error, "a frame of type %u has its reserved field set", parser->type);
  if (parser->type < FB_HELLO || parser->type > FB_ABORT)
    return refuse(error, "a frame has the unknown type %u", parser->type);
  if (parser->payload_size > FB_PAYLOAD_BYTES_MAX)
    return refuse(error, "a frame of type %u announces %" PRIu32 " bytes; at most %u are allowed",
                  parser->type, parser->payload_size, FB_PAYLOAD_BYTES_MAX);
  return 0;
}

/* Grows with what has come, not with what was announced. */
static int reserve_payload(struct fb_parser *parser, size_t bytes, char *error) {
  if (bytes <= parser->payload_capacity)
    return 0;
  size_t capacity = parser->payload_capacity ? parser->payload_capacity : PAYLOAD_BYTES_FIRST;
  while (capacity < bytes)
    capacity *= 2;
  uint8_t *grown = realloc(parser->payload, capacity);
  if (grown == NULL)
    return refuse(error, "no memory for a frame of %" PRIu32 " bytes", parser->payload_size);
  parser->payload = grown;
  parser->payload_capacity = capacity;
  return 0;
}

int fb_parser_feed(struct fb_parser *parser, const uint8_t *data, size_t size, size_t *used,
                   struct fb_frame *frame, char *error) {
  *used = 0;
  if (parser->header_have < FB_FRAME_HEADER_BYTES) {
    size_t take = FB_FRAME_HEADER_BYTES - parser->header_have;
    if (take > size)
      take = size;
    if (take > 0)
      memcpy(parser->header + parser->header_have, data, take);
    parser->header_have += take;
    *used = take;
    if (parser->header_have < FB_FRAME_HEADER_BYTES)
      return 0;
    if (parse_header(parser, error) < 0)
      return -1;
  }
  size_t take = parser->payload_size - parser->payload_have;
  if (take > size - *used)
    take = size - *used;
  if (take > 0) {
    if (reserve_payload(parser, parser->payload_have + take, error) < 0)
      return -1;
    memcpy(parser->payload + parser->payload_have, data + *used, take);
    parser->payload_have += (uint32_t)take;
    *used += take;
  }
  if (parser->payload_have < parser->payload_size)
    return 0;
  uint32_t crc = fb_crc32(0, parser->payload, parser->payload_size);
  if (crc != parser->crc)
    return refuse(error,
                  "the checksum of a frame of type %u is 0x%08" PRIX32 ", its bytes give 0x%08" PRIX32,
                  parser->type, parser->crc, crc);
  parser->header_have = 0;
  *frame = (struct fb_frame){parser->type, parser->payload_size, parser->payload};
  return 1;
}

/* A string at *offset; out gets a NUL behind it. */
static int take_string(const struct fb_frame *frame, size_t *offset, char *out, size_t bytes_max,
                       size_t *len) {
  if (frame->size - *offset < 2)
    return -1;
  size_t bytes = fb_get_u16(frame->payload + *offset);
  if (frame->size - *offset - 2 < bytes || bytes > bytes_max)
    return -1;
  const uint8_t *from = frame->payload + *offset + 2;
  if (memchr(from, 0, bytes) != NULL)
    return -1;
  memcpy(out, from, bytes);
  out[bytes] = 0;
  *offset += 2 + bytes;
  *len = bytes;
  return 0;
}

/* What is behind the strings of an ACCEPT whose flags say that a snapshot is read. */
static int take_snapshot(const struct fb_frame *frame, size_t *offset, struct fb_accept *accept) {
  size_t length;
  if (take_string(frame, offset, accept->read_root, FB_ROOT_BYTES_MAX, &length) < 0 ||
      frame->size - *offset < 16)
    return -1;
  const uint64_t mask = fb_get_u64(frame->payload + *offset);
  accept->inode_mask = mask != 0 ? mask : UINT64_MAX;
  accept->snapshot_ns = (int64_t)fb_get_u64(frame->payload + *offset + 8);
  *offset += 16;
  return accept->read_root[0] == '/' ? 0 : -1;
}

int fb_accept_parse(const struct fb_frame *frame, struct fb_accept *accept, char *error) {
  const uint8_t *p = frame->payload;
  size_t offset = 44, run_id_len, note_len;
  if (frame->size < offset)
    return refuse(error, "ACCEPT has %" PRIu32 " bytes, too few", frame->size);
  if (fb_get_u16(p) != FB_PROTOCOL_VERSION)
    return refuse(error, "the bridge speaks version %u of the stream protocol, this plugin %u: "
                  "install the same release of Forebay on both sides", fb_get_u16(p),
                  FB_PROTOCOL_VERSION);
  accept->run_number = fb_get_u64(p + 4);
  accept->epoch = fb_get_u64(p + 12);
  accept->threads = fb_get_u32(p + 20);
  accept->window_entries = fb_get_u32(p + 24);
  accept->prefetch_bytes = fb_get_u64(p + 28);
  accept->large_file_bytes = fb_get_u64(p + 36);
  if (take_string(frame, &offset, accept->run_id, FB_RUN_ID_BYTES_MAX, &run_id_len) < 0 ||
      take_string(frame, &offset, accept->root, FB_ROOT_BYTES_MAX, &accept->root_len) < 0 ||
      take_string(frame, &offset, accept->note, FB_NOTE_BYTES_MAX, &note_len) < 0)
    return refuse(error, "the strings of ACCEPT do not fit its length");
  const uint16_t flags = fb_get_u16(p + 2);
  if ((flags & ~FB_ACCEPT_SNAPSHOT) != 0)
    return refuse(error, "ACCEPT has unknown flags 0x%X", flags);
  memcpy(accept->read_root, accept->root, accept->root_len + 1);
  accept->inode_mask = UINT64_MAX;
  accept->snapshot_ns = INT64_MAX;
  if ((flags & FB_ACCEPT_SNAPSHOT) != 0 && take_snapshot(frame, &offset, accept) < 0)
    return refuse(error, "ACCEPT names a snapshot that is none");
  if (offset != frame->size)
    return refuse(error, "the strings of ACCEPT do not fit its length");
  if (accept->threads < 1 || accept->threads > FB_THREADS_MAX)
    return refuse(error, "ACCEPT asks for %" PRIu32 " reader threads; 1 to %u are allowed",
                  accept->threads, FB_THREADS_MAX);
  if (accept->window_entries < 1 || accept->window_entries > FB_WINDOW_ENTRIES_MAX)
    return refuse(error, "ACCEPT sets a window of %" PRIu32 " entries; 1 to %u are allowed",
                  accept->window_entries, FB_WINDOW_ENTRIES_MAX);
  if (accept->prefetch_bytes < FB_PREFETCH_BYTES_MIN ||
      accept->prefetch_bytes > FB_PREFETCH_BYTES_MAX)
    return refuse(error, "ACCEPT sets %" PRIu64 " bytes of prefetch; %" PRIu64 " to %" PRIu64
                  " are allowed", accept->prefetch_bytes, FB_PREFETCH_BYTES_MIN,
                  FB_PREFETCH_BYTES_MAX);
  if (accept->large_file_bytes < 1 || accept->large_file_bytes > FB_LARGE_FILE_BYTES_MAX)
    return refuse(error, "ACCEPT calls files of %" PRIu64 " bytes large; 1 to %" PRIu64
                  " are allowed", accept->large_file_bytes, FB_LARGE_FILE_BYTES_MAX);
  if (accept->root[0] != '/')
    return refuse(error, "the root in ACCEPT is not an absolute path");
  while (accept->root_len > 1 && accept->root[accept->root_len - 1] == '/')
    accept->root[--accept->root_len] = 0;
  return 0;
}

int fb_reason_parse(const struct fb_frame *frame, char *out, char *error) {
  if (frame->size < 2 || fb_get_u16(frame->payload) != frame->size - 2)
    return refuse(error, "the reason in a frame of type %u does not fit its length", frame->type);
  char printable[FB_PRINTABLE_BYTES];
  fb_escape_text((const char *)frame->payload + 2, frame->size - 2, printable);
  snprintf(out, FB_ERROR_BYTES, "%.*s", FB_ERROR_BYTES - 1, printable);
  return 0;
}

int fb_entries_begin(const struct fb_frame *frame, struct fb_stream_state *state,
                     struct fb_entries *entries, char *error) {
  if (frame->size < 8)
    return refuse(error, "ENTRIES has %" PRIu32 " bytes, too few", frame->size);
  uint32_t count = fb_get_u32(frame->payload);
  uint32_t path_bytes = fb_get_u32(frame->payload + 4);
  if (count < 1 || count > FB_ENTRIES_PER_FRAME_MAX)
    return refuse(error, "ENTRIES announces %" PRIu32 " entries; 1 to %u are allowed", count,
                  FB_ENTRIES_PER_FRAME_MAX);
  if ((uint64_t)8 + (uint64_t)count * FB_ENTRY_BYTES + path_bytes != frame->size)
    return refuse(error, "ENTRIES with %" PRIu32 " entries and %" PRIu32
                  " bytes of paths does not fit its length %" PRIu32, count, path_bytes,
                  frame->size);
  state->crc = fb_crc32(state->crc, frame->payload, frame->size);
  entries->record = frame->payload + 8;
  entries->path = (const char *)frame->payload + 8 + (size_t)count * FB_ENTRY_BYTES;
  entries->left = count;
  entries->path_bytes_left = path_bytes;
  return 0;
}

/* The path of an entry that may be opened: no component leads up or nowhere. */
static bool path_is_valid(const char *path, size_t size) {
  if (size == 0)
    return true;
  if (memchr(path, 0, size) != NULL)
    return false;
  for (size_t start = 0; start <= size;) {
    const char *slash = start < size ? memchr(path + start, '/', size - start) : NULL;
    size_t len = slash != NULL ? (size_t)(slash - path) - start : size - start;
    const char *name = path + start;
    if (len == 0 || (len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
      return false;
    start += len + 1;
  }
  return true;
}

static bool type_is_known(uint32_t mode) {
  return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) ||
         S_ISCHR(mode) || S_ISBLK(mode);
}

static int check_entry(struct fb_stream_state *state, const struct fb_entry *e, char *error) {
  bool deleted = (e->flags & FB_ENTRY_DELETED) != 0;
  if (e->number != state->entry_count)
    return refuse(error, "entry %" PRIu64 " came where %" PRIu64 " was due", e->number,
                  state->entry_count);
  if ((e->flags & ~(uint32_t)ENTRY_FLAGS_KNOWN) != 0)
    return refuse(error, "entry %" PRIu64 " has unknown flags 0x%" PRIX32, e->number, e->flags);
  if (e->error < 0)
    return refuse(error, "entry %" PRIu64 " has the negative error %" PRId32, e->number, e->error);
  /* A path that was cut is for the job log only; its end may look like anything. */
  bool cut = e->error != 0 && (e->flags & FB_ENTRY_PATH_TOO_LONG) != 0;
  if (cut ? memchr(e->path, 0, e->path_len) != NULL : !path_is_valid(e->path, e->path_len))
    return refuse(error, "entry %" PRIu64 " has an invalid path", e->number);
  if (deleted && (e->error != 0 || e->path_len == 0))
    return refuse(error, "entry %" PRIu64 " is deleted and cannot be so", e->number);
  if (e->error == 0 && !type_is_known(e->mode))
    return refuse(error, "entry %" PRIu64 " has the unknown type 0%" PRIo32, e->number, e->mode);
  if (e->path_len == 0 && e->error == 0 && !S_ISDIR(e->mode))
    return refuse(error, "entry %" PRIu64 " is the root and no directory", e->number);
  bool directory = S_ISDIR(e->mode) && !deleted;
  if (state->saw_directory && !directory)
    return refuse(error, "entry %" PRIu64 " is no directory and follows one", e->number);
  /* Failed entries stand among the first class of a stream, directories included. */
  if (directory && e->error == 0)
    state->saw_directory = true;
  state->entry_count++;
  return 0;
}

int fb_entries_next(struct fb_entries *entries, struct fb_stream_state *state,
                    struct fb_entry *entry, char *error) {
  if (entries->left == 0) {
    if (entries->path_bytes_left != 0)
      return refuse(error, "ENTRIES has %" PRIu32 " bytes of paths too many",
                    entries->path_bytes_left);
    return 0;
  }
  const uint8_t *r = entries->record;
  *entry = (struct fb_entry){.number = fb_get_u64(r),
                             .ino = fb_get_u64(r + 8),
                             .size = fb_get_u64(r + 16),
                             .mode = fb_get_u32(r + 24),
                             .nlink = fb_get_u32(r + 28),
                             .path_len = fb_get_u32(r + 32),
                             .error = (int32_t)fb_get_u32(r + 36),
                             .flags = fb_get_u32(r + 40),
                             .mtime_ns = (int64_t)fb_get_u64(r + 48),
                             .ctime_ns = (int64_t)fb_get_u64(r + 56),
                             .path = entries->path};
  if (fb_get_u32(r + 44) != 0)
    return refuse(error, "entry %" PRIu64 " has its reserved field set", entry->number);
  if (entry->path_len > FB_PATH_BYTES_MAX || entry->path_len > entries->path_bytes_left)
    return refuse(error, "the path of entry %" PRIu64 " is longer than the frame", entry->number);
  if (check_entry(state, entry, error) < 0)
    return -1;
  entries->record += FB_ENTRY_BYTES;
  entries->path += entry->path_len;
  entries->path_bytes_left -= entry->path_len;
  entries->left--;
  return 1;
}

int fb_end_check(const struct fb_frame *frame, const struct fb_stream_state *state, char *error) {
  if (frame->size != 16 || fb_get_u32(frame->payload + 12) != 0)
    return refuse(error, "END has %" PRIu32 " bytes or its reserved field set", frame->size);
  if (fb_get_u64(frame->payload) != state->entry_count)
    return refuse(error, "END counts %" PRIu64 " entries, %" PRIu64 " came",
                  fb_get_u64(frame->payload), state->entry_count);
  if (fb_get_u32(frame->payload + 8) != state->crc)
    return refuse(error, "the checksum of END is 0x%08" PRIX32 ", the entries give 0x%08" PRIX32,
                  fb_get_u32(frame->payload + 8), state->crc);
  return 0;
}

static size_t seal(uint8_t *frame, uint16_t type, size_t payload_bytes) {
  fb_put_u32(frame, FB_FRAME_MAGIC);
  fb_put_u16(frame + 4, type);
  fb_put_u16(frame + 6, 0);
  fb_put_u32(frame + 8, (uint32_t)payload_bytes);
  fb_put_u32(frame + 12, fb_crc32(0, frame + FB_FRAME_HEADER_BYTES, payload_bytes));
  return FB_FRAME_HEADER_BYTES + payload_bytes;
}

static size_t put_string(uint8_t *to, const char *text, size_t bytes) {
  fb_put_u16(to, (uint16_t)bytes);
  memcpy(to + 2, text, bytes);
  return 2 + bytes;
}

size_t fb_hello_encode(uint8_t *out, const struct fb_hello *hello) {
  const char *strings[] = {hello->dataset, hello->job, hello->previous_job, hello->client};
  uint8_t *p = out + FB_FRAME_HEADER_BYTES;
  fb_put_u16(p, FB_PROTOCOL_VERSION);
  fb_put_u16(p + 2, (uint16_t)(unsigned char)hello->level);
  fb_put_u32(p + 4, hello->shard);
  fb_put_u32(p + 8, hello->shard_count);
  fb_put_u32(p + 12, hello->job_id);
  fb_put_u64(p + 16, (uint64_t)hello->since);
  size_t bytes = 24;
  for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
    size_t len = strlen(strings[i]);
    if (len > FB_HELLO_STRING_BYTES_MAX)
      return 0;
    bytes += put_string(p + bytes, strings[i], len);
  }
  return seal(out, FB_HELLO, bytes);
}

size_t fb_abort_encode(uint8_t *out, const char *reason) {
  size_t len = strnlen(reason, FB_ERROR_BYTES);
  return seal(out, FB_ABORT, put_string(out + FB_FRAME_HEADER_BYTES, reason, len));
}

size_t fb_keepalive_encode(uint8_t *out) { return seal(out, FB_KEEPALIVE, 0); }

size_t fb_done_encode(uint8_t *out, uint64_t receipts, uint32_t payload_crc, uint64_t data_bytes,
                      uint64_t warnings) {
  uint8_t *p = out + FB_FRAME_HEADER_BYTES;
  fb_put_u64(p, receipts);
  fb_put_u32(p + 8, payload_crc);
  fb_put_u32(p + 12, 0);
  fb_put_u64(p + 16, data_bytes);
  fb_put_u64(p + 24, warnings);
  return seal(out, FB_DONE, 32);
}

void fb_receipt_encode(uint8_t *r, const struct fb_receipt *receipt) {
  fb_put_u64(r, receipt->number);
  fb_put_u64(r + 8, receipt->ino);
  fb_put_u64(r + 16, receipt->size);
  fb_put_u64(r + 24, receipt->data_bytes);
  fb_put_u64(r + 32, (uint64_t)receipt->atime_s);
  fb_put_u64(r + 40, (uint64_t)receipt->mtime_s);
  fb_put_u64(r + 48, (uint64_t)receipt->ctime_s);
  fb_put_u32(r + 56, receipt->atime_ns);
  fb_put_u32(r + 60, receipt->mtime_ns);
  fb_put_u32(r + 64, receipt->ctime_ns);
  fb_put_u32(r + 68, receipt->mode);
  fb_put_u32(r + 72, receipt->uid);
  fb_put_u32(r + 76, receipt->gid);
  fb_put_u32(r + 80, receipt->nlink);
  fb_put_u32(r + 84, (uint32_t)receipt->file_index);
  fb_put_u32(r + 88, receipt->status);
  fb_put_u32(r + 92, (uint32_t)receipt->error);
  fb_put_u64(r + 96, receipt->rdev);
  memcpy(r + 104, receipt->hash, sizeof receipt->hash);
  fb_put_u64(r + 120, (uint64_t)receipt->read_ns);
}

size_t fb_receipts_seal(uint8_t *frame, uint32_t count, uint32_t *payload_crc) {
  uint8_t *p = frame + FB_FRAME_HEADER_BYTES;
  size_t bytes = 8 + (size_t)count * FB_RECEIPT_BYTES;
  fb_put_u32(p, count);
  fb_put_u32(p + 4, 0);
  *payload_crc = fb_crc32(*payload_crc, p, bytes);
  return seal(frame, FB_RECEIPTS, bytes);
}

static size_t escape(char *to, unsigned char c) {
  if (c >= 0x20 && c != 0x7f && c != '\\') {
    to[0] = (char)c;
    return 1;
  }
  to[0] = '\\';
  to[1] = (char)('0' + (c >> 6));
  to[2] = (char)('0' + (c >> 3 & 7));
  to[3] = (char)('0' + (c & 7));
  return 4;
}

char *fb_escape_text(const char *text, size_t size, char out[FB_PRINTABLE_BYTES]) {
  char escaped[4];
  size_t bytes = 0, o = 0;
  for (size_t i = 0; i < size && bytes < FB_PRINTABLE_BYTES; i++)
    bytes += escape(escaped, (unsigned char)text[i]);
  bool whole = bytes < FB_PRINTABLE_BYTES;
  /* The middle of what is too long gives way; every byte may have become four. */
  const size_t half = FB_PRINTABLE_BYTES / 8 - 2;
  for (size_t i = 0; i < size; i++) {
    if (!whole && i == half && size > 2 * half) {
      memcpy(out + o, "...", 3);
      o += 3;
      i = size - half;
    }
    o += escape(out + o, (unsigned char)text[i]);
  }
  out[o] = 0;
  return out;
}
