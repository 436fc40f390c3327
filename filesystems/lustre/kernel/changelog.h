/* SPDX-License-Identifier: Apache-2.0 */
/* The changelog kernel: drain records from the client library, decode them, gather what they make
 * us look at as a set of places.
 *
 * Covers: records in memory, the set, its rows as bytes.
 * Does not cover: which records are missing (changelog.py), what is durable when (log.py).
 *
 * Nothing here keeps state of its own or starts threads: an object is used by one thread at a time.
 * Functions return 0 or a negative errno unless they say otherwise. The part between the two marks
 * is also what build_kernel.py gives to cffi, so it holds plain declarations only.
 */
#ifndef FOREBAY_CHANGELOG_H
#define FOREBAY_CHANGELOG_H

#include <stddef.h>
#include <stdint.h>

/* cdef begin */
enum fl_limits {
    FL_FID_BYTES = 16,
    FL_HEADER_BYTES = 64,      /* struct changelog_rec without its extensions */
    FL_RECORD_BYTES_MAX = 952, /* CR_MAXSIZE; the library allocates so much for each record */
    FL_BLOCK_ROW_BYTES = 28,   /* of a row in a block, without FID about and name */
    FL_BLOCK_ROW_BYTES_MAX = 996
};

/* What is wrong with a record. */
enum fl_malformed {
    FL_NO_HEADER = 1,
    FL_TOO_LONG = 2,
    FL_EXTENSIONS_CUT = 3,
    FL_NAMES_CUT = 4
};

/* How receiving ended; FL_FAILED and FL_MALFORMED say more in `detail`. */
enum fl_received {
    FL_FULL = 0,
    FL_END = 1,
    FL_FAILED = 2,      /* detail: what the library returned */
    FL_NO_MEMORY = 3,   /* the library said so */
    FL_UNREADABLE = 4   /* detail: the bytes that the record says it has */
};

enum fl_kind { FL_ENTRY = 2, FL_TREE = 3, FL_INODE = 4 }; /* looks.Kind */

/* A record; pointers lead into its bytes. Without the rename extension the last three are NULL. */
struct fl_record {
    uint64_t number, time;
    uint32_t kind;
    uint16_t flags, name_size, source_name_size;
    const uint8_t *target, *parent, *name, *source, *source_parent, *source_name;
};

/* What was written. */
struct fl_block {
    uint64_t cursor;
    uint64_t count, newest; /* rows, and their newest sequence */
    size_t size;
};

typedef int (*fl_receive)(void *opened, void **record); /* llapi_changelog_recv */
typedef int (*fl_release)(void **record);               /* llapi_changelog_free */

struct fl_records;
struct fl_places;

/* Decode one record; returns 0 or an fl_malformed. Bytes behind it are padding. */
int fl_decode(const uint8_t *data, size_t size, struct fl_record *record);

/* Room for so many records, at least one. NULL: no memory. */
struct fl_records *fl_records_new(uint32_t count_max, size_t bytes_max);
void fl_records_free(struct fl_records *records);
uint32_t fl_records_count(const struct fl_records *records);
/* Copy a record, as long as its header says; returns 0, an fl_malformed, or -ENOSPC. */
int fl_records_append(struct fl_records *records, const uint8_t *data, size_t available);
/* Append what the library gives until its end or until there is no room; returns an fl_received. */
int fl_records_receive(struct fl_records *records, fl_receive receive, fl_release release,
                       void *opened, int64_t *detail);
/* The bytes of a record below count. */
const uint8_t *fl_records_bytes(const struct fl_records *records, uint32_t at, size_t *size);
/* The first record from `at` to `end` that does not follow the one before it, of that number (0:
 * whatever comes follows); `end` if all do. */
uint32_t fl_records_run(const struct fl_records *records, uint32_t at, uint32_t end,
                        uint64_t number);

/* A set of places. The key is secret, so that nobody makes names that collide. NULL: no memory. */
struct fl_places *fl_places_new(uint64_t key0, uint64_t key1);
void fl_places_free(struct fl_places *places);
/* Take in what records make us look at (looks.py says what). */
int fl_places_add(struct fl_places *places, const struct fl_records *records, uint32_t at,
                  uint32_t end);
int fl_places_was_off(const struct fl_places *places); /* a marker said that nothing was recorded */
/* Take in the rows of a block that are newer than a sequence; -EBADMSG: it is no block. */
int fl_places_load(struct fl_places *places, const uint8_t *data, size_t size, uint64_t count,
                   uint64_t since);
uint64_t fl_places_count(const struct fl_places *places);
uint64_t fl_places_bytes(const struct fl_places *places); /* at most, as blocks */
uint64_t fl_places_memory(const struct fl_places *places); /* bytes */
/* Find after which sequence there are at most so many; 0 if all are. */
int fl_places_newest(const struct fl_places *places, uint64_t count_max, uint64_t *sequence);
/* Write rows newer than `since`, with `sequence` where theirs is older, from block->cursor (0 at
 * first) on. Returns 1 if there are more than had room, which is at least FL_BLOCK_ROW_BYTES_MAX. */
int fl_places_store(const struct fl_places *places, uint64_t since, uint64_t sequence,
                    uint8_t *out, size_t room, struct fl_block *block);
/* cdef end */

/* Of the set, for looks.c. */
enum {
    FL_IS_LOOK = 0x1,
    FL_IS_PLAIN = 0x2, /* of an inode: it is no directory */
    FL_IS_GONE = 0x4,  /* of an inode: its last name was removed */
    FL_HAS_ABOUT = 0x8
};

struct fl_row {
    uint64_t hash, sequence;
    uint8_t fid[FL_FID_BYTES], about[FL_FID_BYTES];
    uint16_t name_size;
    uint8_t kind, marks;
    uint8_t name[];
};

/* Find a row, or make one without marks (*is_new). NULL: no memory. */
struct fl_row *fl_row_of(struct fl_places *places, const uint8_t *fid, uint8_t kind,
                         const uint8_t *name, uint16_t name_size, int *is_new);
/* Find a row; NULL: there is none. */
struct fl_row *fl_row_find(const struct fl_places *places, const uint8_t *fid, uint8_t kind,
                           const uint8_t *name, uint16_t name_size);
void fl_row_mark(struct fl_places *places, struct fl_row *row, uint8_t marks);
/* Note which inode a look is about (NULL: whatever it is); about several: whatever they are. */
void fl_row_tell(struct fl_row *row, int is_new, const uint8_t *about);
void fl_places_set_off(struct fl_places *places);

static inline uint16_t fl_get16(const uint8_t *data) {
    return (uint16_t)(data[0] | data[1] << 8);
}

static inline uint32_t fl_get32(const uint8_t *data) {
    return fl_get16(data) | (uint32_t)fl_get16(data + 2) << 16;
}

static inline uint64_t fl_get64(const uint8_t *data) {
    return fl_get32(data) | (uint64_t)fl_get32(data + 4) << 32;
}

#endif
