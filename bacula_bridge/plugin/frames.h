/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The frames of docs/formats/stream-protocol.md: bytes to frames, frames to
 * entries, receipts to bytes.
 *
 * Covers: every length, checksum, number, path and order that the page demands.
 * Does not cover: sockets and time (link.c), what an entry leads to (backup.c).
 * Every function that can refuse writes one sentence into an error buffer of
 * FB_ERROR_BYTES.
 */
#ifndef FOREBAY_FRAMES_H
#define FOREBAY_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FB_PROTOCOL_VERSION 2
#define FB_FRAME_MAGIC 0x31534246u
#define FB_FRAME_HEADER_BYTES 16
#define FB_PAYLOAD_BYTES_MAX 1048576
#define FB_FRAME_BYTES_MAX (FB_FRAME_HEADER_BYTES + FB_PAYLOAD_BYTES_MAX)
#define FB_ENTRY_BYTES 64
#define FB_ENTRIES_PER_FRAME_MAX 8192
#define FB_RECEIPT_BYTES 128
#define FB_RECEIPTS_PER_FRAME_MAX 4096
#define FB_RECEIPTS_FRAME_BYTES(count) \
  (FB_FRAME_HEADER_BYTES + 8 + (size_t)(count) * FB_RECEIPT_BYTES)
#define FB_DONE_FRAME_BYTES (FB_FRAME_HEADER_BYTES + 32)
#define FB_PATH_BYTES_MAX 65535
#define FB_ROOT_BYTES_MAX 4095
#define FB_RUN_ID_BYTES_MAX 255
#define FB_NOTE_BYTES_MAX 1500
#define FB_THREADS_MAX 256
#define FB_WINDOW_ENTRIES_MAX 1048576
#define FB_PREFETCH_BYTES_MIN ((uint64_t)1 << 20)
#define FB_PREFETCH_BYTES_MAX ((uint64_t)4 << 30)
#define FB_LARGE_FILE_BYTES_MAX ((uint64_t)64 << 20)
#define FB_ERROR_BYTES 1024
/* HELLO: fixed part and four strings. */
#define FB_HELLO_STRING_BYTES_MAX 1024
#define FB_HELLO_FRAME_BYTES_MAX (FB_FRAME_HEADER_BYTES + 24 + 4 * (2 + FB_HELLO_STRING_BYTES_MAX))
#define FB_ABORT_FRAME_BYTES_MAX (FB_FRAME_HEADER_BYTES + 2 + FB_ERROR_BYTES)

enum fb_frame_type {
  FB_HELLO = 1,
  FB_ACCEPT = 2,
  FB_REFUSE = 3,
  FB_ENTRIES = 4,
  FB_KEEPALIVE = 5,
  FB_END = 6,
  FB_RECEIPTS = 7,
  FB_DONE = 8,
  FB_DONE_ACK = 9,
  FB_ABORT = 10
};

enum fb_entry_flag {
  FB_ENTRY_DELETED = 0x1,
  FB_ENTRY_LIST_FAILED = 0x2,
  FB_ENTRY_STAT_FAILED = 0x4,
  FB_ENTRY_PATH_TOO_LONG = 0x8,
  FB_ENTRY_MOUNT_POINT = 0x10, /* another filesystem's root is all that is recorded */
  FB_ENTRY_EXCLUDED = 0x20     /* holds Forebay's own state: nothing below is recorded */
};

enum fb_status {
  FB_SAVED = 1,
  FB_LINK = 2,
  FB_CHANGED = 3,
  FB_UNREADABLE = 4,
  FB_VANISHED = 5,
  FB_REPLACED = 6,
  FB_SKIPPED = 7,
  FB_SCAN_ERROR = 8,
  FB_DELETED = 9,
  FB_RELEASED = 10, /* by HSM, and not recalled */
  FB_STUB = 11      /* the same, saved without its data */
};

struct fb_frame {
  uint16_t type;
  uint32_t size;
  const uint8_t *payload; /* the parser's; valid until it is fed again */
};

struct fb_parser {
  uint8_t header[FB_FRAME_HEADER_BYTES];
  size_t header_have;
  uint8_t *payload;
  size_t payload_capacity;
  uint32_t payload_have;
  uint32_t payload_size;
  uint16_t type;
  uint32_t crc;
};

#define FB_ACCEPT_SNAPSHOT 0x1u

struct fb_accept {
  uint64_t run_number;
  uint64_t epoch;
  uint32_t threads;
  uint32_t window_entries;
  uint64_t prefetch_bytes;
  uint64_t large_file_bytes;
  char run_id[FB_RUN_ID_BYTES_MAX + 1];
  char root[FB_ROOT_BYTES_MAX + 1];
  size_t root_len;
  char note[FB_NOTE_BYTES_MAX + 1]; /* for the job log; may be empty */
  /* Where the root is read: root, or a snapshot of it, in which inode_mask are the bits of an
   * inode number that are the live one's, and in which nothing is later than snapshot_ns. */
  char read_root[FB_ROOT_BYTES_MAX + 1];
  uint64_t inode_mask;
  int64_t snapshot_ns; /* INT64_MAX: no snapshot */
};

struct fb_hello {
  char level;
  uint32_t shard;
  uint32_t shard_count;
  uint32_t job_id;
  int64_t since;
  const char *dataset;
  const char *job;
  const char *previous_job;
  const char *client;
};

struct fb_entry {
  uint64_t number;
  uint64_t ino;
  uint64_t size;
  uint32_t mode;
  uint32_t nlink;
  int32_t error;
  uint32_t flags;
  uint32_t path_len;
  int64_t mtime_ns, ctime_ns; /* at the scan, since 1970; 0: unknown */
  const char *path; /* not NUL-terminated; within the frame's payload */
};

/* What must hold from one ENTRIES frame to the next. */
struct fb_stream_state {
  uint64_t entry_count;
  uint32_t crc;
  bool saw_directory;
};

/* A walk over the entries of one frame. */
struct fb_entries {
  const uint8_t *record;
  const char *path;
  uint32_t left;
  uint32_t path_bytes_left;
};

struct fb_receipt {
  uint64_t number, ino, size, data_bytes;
  int64_t atime_s, mtime_s, ctime_s;
  uint32_t atime_ns, mtime_ns, ctime_ns;
  uint32_t mode, uid, gid, nlink;
  int32_t file_index;
  uint32_t status;
  int32_t error;
  uint64_t rdev;
  uint8_t hash[16];
  int64_t read_ns; /* when reading began, since 1970; 0: nothing was read */
};

void fb_parser_init(struct fb_parser *parser);
void fb_parser_free(struct fb_parser *parser);
/* Takes bytes up to the end of a frame; *used says how many.  1: *frame is
 * complete; 0: more bytes are needed; -1: refused, the stream is beyond repair. */
int fb_parser_feed(struct fb_parser *parser, const uint8_t *data, size_t size, size_t *used,
                   struct fb_frame *frame, char *error);
/* True in the middle of a frame: an end of file here cuts it. */
bool fb_parser_is_midway(const struct fb_parser *parser);

int fb_accept_parse(const struct fb_frame *frame, struct fb_accept *accept, char *error);
/* The reason of REFUSE or ABORT, made printable, into out (FB_ERROR_BYTES). */
int fb_reason_parse(const struct fb_frame *frame, char *out, char *error);
/* Starts a walk and adds the payload to the running checksum. */
int fb_entries_begin(const struct fb_frame *frame, struct fb_stream_state *state,
                     struct fb_entries *entries, char *error);
/* 1: *entry is the next one; 0: the frame is at its end; -1: refused. */
int fb_entries_next(struct fb_entries *entries, struct fb_stream_state *state,
                    struct fb_entry *entry, char *error);
int fb_end_check(const struct fb_frame *frame, const struct fb_stream_state *state, char *error);

/* The encoders return the length of the whole frame.  fb_hello_encode returns 0 if
 * a string is over FB_HELLO_STRING_BYTES_MAX. */
size_t fb_hello_encode(uint8_t *out, const struct fb_hello *hello);
size_t fb_abort_encode(uint8_t *out, const char *reason);
size_t fb_keepalive_encode(uint8_t *out);
/* payload_crc is the running checksum over all RECEIPTS payloads. */
size_t fb_done_encode(uint8_t *out, uint64_t receipts, uint32_t payload_crc, uint64_t data_bytes,
                      uint64_t warnings);
void fb_receipt_encode(uint8_t *record, const struct fb_receipt *receipt);
/* Completes a RECEIPTS frame whose records already stand behind its 24 first bytes
 * and adds its payload to *payload_crc. */
size_t fb_receipts_seal(uint8_t *frame, uint32_t count, uint32_t *payload_crc);

/* For people: control bytes and backslashes become \ooo, a long text keeps its
 * beginning and its end.  Returns out. */
#define FB_PRINTABLE_BYTES 1600
char *fb_escape_text(const char *text, size_t size, char out[FB_PRINTABLE_BYTES]);

#endif
