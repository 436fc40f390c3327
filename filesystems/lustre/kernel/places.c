/* SPDX-License-Identifier: Apache-2.0 */
/* A set of places to look at: a hash table of rows, and its rows as blocks of bytes.
 *
 * Rows lie one behind the other in chunks that never move; the table has their addresses. Names
 * are chosen by whoever uses the filesystem, so the hash is keyed (SipHash-1-3). A block is rows
 * one behind the other, little-endian, as docs/filesystems/lustre.md describes them:
 *   sequence 8, FID 16, kind 1, flags 1 (0x1: a FID is behind the header), length of the name 2,
 *   [FID that a TREE is about 16], name
 */
#include "changelog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define UNIT_BYTES 8u /* rows begin at multiples of that, addresses count them */
#ifndef CHUNK_UNITS /* the fuzzer has small ones: room for the longest row, and others */
#define CHUNK_UNITS (1u << 17)
#endif
#define CHUNKS_MAX (1u << 15) /* of 1 MiB: addresses have 32 bits */
#ifndef SLOTS_MIN
#define SLOTS_MIN (1u << 10)
#endif
#define BLOCK_HAS_ABOUT 0x1u

struct slot {
    uint32_t tag;     /* of the hash */
    uint32_t address; /* 0: free */
};

struct chunk {
    uint32_t used; /* units */
    uint64_t units[CHUNK_UNITS];
};

struct fl_places {
    uint64_t key[2];
    struct slot *slots;
    uint32_t slots_mask, rows;
    struct chunk **chunks;
    uint32_t chunks_count, chunks_room;
    uint64_t looks, bytes;
    int was_off;
};

static uint64_t rotated(uint64_t value, unsigned bits) {
    return value << bits | value >> (64 - bits);
}

static void sip_round(uint64_t v[4]) {
    v[0] += v[1];
    v[1] = rotated(v[1], 13) ^ v[0];
    v[0] = rotated(v[0], 32);
    v[2] += v[3];
    v[3] = rotated(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotated(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotated(v[1], 17) ^ v[2];
    v[2] = rotated(v[2], 32);
}

static void sip_word(uint64_t v[4], uint64_t word) {
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
}

/* The first word says how long the rest is. */
static uint64_t hash_of(const uint64_t key[2], const uint8_t *fid, uint8_t kind,
                        const uint8_t *name, uint16_t size) {
    uint64_t v[4] = {key[0] ^ UINT64_C(0x736f6d6570736575), key[1] ^ UINT64_C(0x646f72616e646f6d),
                     key[0] ^ UINT64_C(0x6c7967656e657261), key[1] ^ UINT64_C(0x7465646279746573)};
    sip_word(v, (uint64_t)size << 8 | kind);
    sip_word(v, fl_get64(fid));
    sip_word(v, fl_get64(fid + 8));
    uint32_t at = 0;
    for (; at + 8u <= size; at += 8)
        sip_word(v, fl_get64(name + at));
    if (at < size) {
        uint8_t last[8] = {0};
        memcpy(last, name + at, size - at);
        sip_word(v, fl_get64(last));
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 3; i++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

struct fl_places *fl_places_new(uint64_t key0, uint64_t key1) {
    struct fl_places *places = calloc(1, sizeof *places);
    if (places == NULL)
        return NULL;
    places->key[0] = key0;
    places->key[1] = key1;
    places->slots = calloc(SLOTS_MIN, sizeof *places->slots);
    places->slots_mask = SLOTS_MIN - 1;
    if (places->slots == NULL) {
        free(places);
        return NULL;
    }
    return places;
}

void fl_places_free(struct fl_places *places) {
    if (places == NULL)
        return;
    for (uint32_t i = 0; i < places->chunks_count; i++)
        free(places->chunks[i]);
    free(places->chunks);
    free(places->slots);
    free(places);
}

static struct fl_row *row_at(const struct fl_places *places, uint32_t address) {
    struct chunk *chunk = places->chunks[address / CHUNK_UNITS];
    return (struct fl_row *)&chunk->units[address % CHUNK_UNITS];
}

static uint32_t row_units(uint16_t name_size) {
    return (uint32_t)((offsetof(struct fl_row, name) + name_size + UNIT_BYTES - 1) / UNIT_BYTES);
}

static int is_row(const struct fl_row *row, uint64_t hash, const uint8_t *fid, uint8_t kind,
                  const uint8_t *name, uint16_t size) {
    return row->hash == hash && row->kind == kind && row->name_size == size &&
           memcmp(row->fid, fid, FL_FID_BYTES) == 0 &&
           (size == 0 || memcmp(row->name, name, size) == 0);
}

/* The slot of a row, or the free one where it would be. */
static struct slot *slot_of(const struct fl_places *places, uint64_t hash, const uint8_t *fid,
                            uint8_t kind, const uint8_t *name, uint16_t size) {
    uint32_t at = (uint32_t)hash & places->slots_mask;
    for (;; at = (at + 1) & places->slots_mask) {
        struct slot *slot = &places->slots[at];
        if (slot->address == 0)
            return slot;
        if (slot->tag == (uint32_t)(hash >> 32) &&
            is_row(row_at(places, slot->address), hash, fid, kind, name, size))
            return slot;
    }
}

static int grow(struct fl_places *places) {
    if (places->slots_mask > UINT32_MAX / 2)
        return -ENOMEM;
    uint32_t mask = places->slots_mask * 2 + 1;
    struct slot *slots = calloc((size_t)mask + 1, sizeof *slots);
    if (slots == NULL)
        return -ENOMEM;
    for (uint32_t i = 0; i <= places->slots_mask; i++) {
        struct slot old = places->slots[i];
        if (old.address == 0)
            continue;
        uint32_t at = (uint32_t)row_at(places, old.address)->hash & mask;
        while (slots[at].address != 0)
            at = (at + 1) & mask;
        slots[at] = old;
    }
    free(places->slots);
    places->slots = slots;
    places->slots_mask = mask;
    return 0;
}

static int add_chunk(struct fl_places *places) {
    if (places->chunks_count == CHUNKS_MAX)
        return -ENOMEM;
    if (places->chunks_count == places->chunks_room) {
        uint32_t room = places->chunks_room == 0 ? 16 : places->chunks_room * 2;
        struct chunk **chunks = realloc(places->chunks, room * sizeof *chunks);
        if (chunks == NULL)
            return -ENOMEM;
        places->chunks = chunks;
        places->chunks_room = room;
    }
    struct chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        return -ENOMEM;
    chunk->used = places->chunks_count == 0 ? 1 : 0; /* no row has address 0 */
    places->chunks[places->chunks_count++] = chunk;
    return 0;
}

/* Find room for a row; 0: no memory. */
static uint32_t address_for(struct fl_places *places, uint32_t units) {
    struct chunk *last = places->chunks_count == 0 ? NULL : places->chunks[places->chunks_count - 1];
    if (last == NULL || CHUNK_UNITS - last->used < units) {
        if (add_chunk(places) != 0)
            return 0;
        last = places->chunks[places->chunks_count - 1];
    }
    uint32_t address = (places->chunks_count - 1) * CHUNK_UNITS + last->used;
    last->used += units;
    return address;
}

struct fl_row *fl_row_of(struct fl_places *places, const uint8_t *fid, uint8_t kind,
                         const uint8_t *name, uint16_t size, int *is_new) {
    uint64_t hash = hash_of(places->key, fid, kind, name, size);
    struct slot *slot = slot_of(places, hash, fid, kind, name, size);
    *is_new = slot->address == 0;
    if (!*is_new)
        return row_at(places, slot->address);
    if (places->rows >= places->slots_mask / 3 * 2) {
        if (grow(places) != 0)
            return NULL;
        slot = slot_of(places, hash, fid, kind, name, size);
    }
    uint32_t address = address_for(places, row_units(size));
    if (address == 0)
        return NULL;
    struct fl_row *row = row_at(places, address);
    memset(row, 0, offsetof(struct fl_row, name));
    row->hash = hash;
    memcpy(row->fid, fid, FL_FID_BYTES);
    row->kind = kind;
    row->name_size = size;
    if (size > 0)
        memcpy(row->name, name, size);
    slot->tag = (uint32_t)(hash >> 32);
    slot->address = address;
    places->rows++;
    return row;
}

struct fl_row *fl_row_find(const struct fl_places *places, const uint8_t *fid, uint8_t kind,
                           const uint8_t *name, uint16_t size) {
    uint64_t hash = hash_of(places->key, fid, kind, name, size);
    struct slot *slot = slot_of(places, hash, fid, kind, name, size);
    return slot->address == 0 ? NULL : row_at(places, slot->address);
}

static int is_look(const struct fl_row *row) {
    return (row->marks & (FL_IS_LOOK | FL_IS_GONE)) == FL_IS_LOOK;
}

void fl_row_mark(struct fl_places *places, struct fl_row *row, uint8_t marks) {
    int before = is_look(row);
    row->marks |= marks;
    int after = is_look(row);
    uint64_t bytes = FL_BLOCK_ROW_BYTES + (uint64_t)row->name_size +
                     (row->kind == FL_TREE ? (uint64_t)FL_FID_BYTES : 0);
    if (after && !before) {
        places->looks++;
        places->bytes += bytes;
    } else if (before && !after) {
        places->looks--;
        places->bytes -= bytes;
    }
}

void fl_row_tell(struct fl_row *row, int is_new, const uint8_t *about) {
    if (is_new && about != NULL) {
        memcpy(row->about, about, FL_FID_BYTES);
        row->marks |= FL_HAS_ABOUT;
    } else if (about == NULL || memcmp(row->about, about, FL_FID_BYTES) != 0) {
        row->marks &= (uint8_t)~FL_HAS_ABOUT;
    }
}

void fl_places_set_off(struct fl_places *places) { places->was_off = 1; }

int fl_places_was_off(const struct fl_places *places) { return places->was_off; }

uint64_t fl_places_count(const struct fl_places *places) { return places->looks; }

uint64_t fl_places_bytes(const struct fl_places *places) { return places->bytes; }

uint64_t fl_places_memory(const struct fl_places *places) {
    return places->chunks_count * (uint64_t)sizeof(struct chunk) +
           ((uint64_t)places->slots_mask + 1) * sizeof(struct slot);
}

/* Take in a row that is whole: about is NULL, or 16 bytes. */
static int load_row(struct fl_places *places, const uint8_t *head, const uint8_t *about,
                    const uint8_t *name) {
    int is_new;
    uint64_t sequence = fl_get64(head);
    struct fl_row *row =
        fl_row_of(places, head + 8, head[24], name, fl_get16(head + 26), &is_new);
    if (row == NULL)
        return -ENOMEM;
    fl_row_mark(places, row, FL_IS_LOOK);
    if (row->sequence < sequence)
        row->sequence = sequence;
    fl_row_tell(row, is_new, about);
    return 0;
}

/* How long a row of a block is; 0 if it is none. */
static size_t row_bytes(const uint8_t *head, size_t left) {
    if (left < FL_BLOCK_ROW_BYTES)
        return 0;
    uint8_t kind = head[24], flags = head[25];
    size_t name = fl_get16(head + 26);
    size_t size = FL_BLOCK_ROW_BYTES + name + (flags & BLOCK_HAS_ABOUT ? FL_FID_BYTES : 0);
    int is_good = kind == FL_TREE || (kind == FL_ENTRY && flags == 0) ||
                  (kind == FL_INODE && flags == 0 && name == 0);
    return is_good && flags <= BLOCK_HAS_ABOUT && size <= FL_BLOCK_ROW_BYTES_MAX && size <= left
               ? size
               : 0;
}

int fl_places_load(struct fl_places *places, const uint8_t *data, size_t size, uint64_t count,
                   uint64_t since) {
    size_t at = 0;
    for (; count > 0; count--) {
        size_t step = row_bytes(data + at, size - at);
        if (step == 0)
            return -EBADMSG;
        const uint8_t *head = data + at, *rest = head + FL_BLOCK_ROW_BYTES;
        const uint8_t *about = head[25] & BLOCK_HAS_ABOUT ? rest : NULL;
        at += step;
        if (fl_get64(head) <= since)
            continue;
        int code = load_row(places, head, about, about == NULL ? rest : rest + FL_FID_BYTES);
        if (code != 0)
            return code;
    }
    return at == size ? 0 : -EBADMSG;
}

/* The next row at or behind an address; NULL at the end. */
static const struct fl_row *next_row(const struct fl_places *places, uint64_t *address) {
    uint64_t at = *address == 0 ? 1 : *address;
    while (at / CHUNK_UNITS < places->chunks_count &&
           at % CHUNK_UNITS >= places->chunks[at / CHUNK_UNITS]->used)
        at = (at / CHUNK_UNITS + 1) * CHUNK_UNITS;
    *address = at;
    return at / CHUNK_UNITS < places->chunks_count ? row_at(places, (uint32_t)at) : NULL;
}

static int compare_numbers(const void *one, const void *other) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

int fl_places_newest(const struct fl_places *places, uint64_t count_max, uint64_t *sequence) {
    uint64_t address = 0, count = 0;
    const struct fl_row *row;
    *sequence = 0;
    if (places->looks <= count_max)
        return 0;
    uint64_t *sequences = malloc(places->looks * sizeof *sequences);
    if (sequences == NULL)
        return -ENOMEM;
    for (; (row = next_row(places, &address)) != NULL; address += row_units(row->name_size))
        if (is_look(row))
            sequences[count++] = row->sequence;
    qsort(sequences, count, sizeof *sequences, compare_numbers);
    *sequence = sequences[count - count_max - 1];
    free(sequences);
    return 0;
}

static void put64(uint8_t *out, uint64_t value) {
    for (unsigned i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> 8 * i);
}

static size_t store_row(const struct fl_row *row, uint64_t sequence, uint8_t *out) {
    int has_about = row->kind == FL_TREE && (row->marks & FL_HAS_ABOUT);
    uint8_t *end = out + FL_BLOCK_ROW_BYTES;
    put64(out, sequence);
    memcpy(out + 8, row->fid, FL_FID_BYTES);
    out[24] = row->kind;
    out[25] = has_about ? BLOCK_HAS_ABOUT : 0;
    out[26] = (uint8_t)row->name_size;
    out[27] = (uint8_t)(row->name_size >> 8);
    if (has_about) {
        memcpy(end, row->about, FL_FID_BYTES);
        end += FL_FID_BYTES;
    }
    memcpy(end, row->name, row->name_size);
    return (size_t)(end + row->name_size - out);
}

int fl_places_store(const struct fl_places *places, uint64_t since, uint64_t sequence,
                    uint8_t *out, size_t room, struct fl_block *block) {
    const struct fl_row *row;
    block->size = 0;
    block->count = block->newest = 0;
    for (; (row = next_row(places, &block->cursor)) != NULL;
         block->cursor += row_units(row->name_size)) {
        uint64_t newest = row->sequence > sequence ? row->sequence : sequence;
        if (!is_look(row) || newest <= since)
            continue;
        if (room - block->size < FL_BLOCK_ROW_BYTES_MAX)
            return 1;
        block->size += store_row(row, newest, out + block->size);
        block->newest = newest > block->newest ? newest : block->newest;
        block->count++;
    }
    return 0;
}
