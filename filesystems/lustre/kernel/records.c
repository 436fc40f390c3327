/* SPDX-License-Identifier: Apache-2.0 */
/* Changelog records: from bytes to what they say.
 *
 * The layout is that of struct changelog_rec and its extensions in Lustre's lustre_user.h: 64
 * bytes, then the extensions that cr_flags names, in a fixed order, then names. What is done about
 * those that cannot be understood is said in records.py.
 */
#include "changelog.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    CLF_RENAME = 0x2000,
    CLF_JOBID = 0x4000,
    CLF_EXTRA_FLAGS = 0x8000,
    CLFE_UIDGID = 0x1,
    CLFE_NID = 0x2,
    CLFE_OPEN = 0x4,
    CLFE_XATTR = 0x8,
    CLFE_NID_BE = 0x10, /* no bytes of its own: it says how those of NID are to be read */
    CLFE_KNOWN = 0x1f
};

struct fl_records {
    uint32_t count, count_max;
    size_t used, bytes_max;
    uint32_t *ends; /* of each record, in data */
    uint8_t *data;
};

/* Header and extensions, but for the extra ones. */
static size_t fixed_bytes(uint16_t flags) {
    return FL_HEADER_BYTES + (flags & CLF_RENAME ? 32u : 0u) + (flags & CLF_JOBID ? 32u : 0u) +
           (flags & CLF_EXTRA_FLAGS ? 8u : 0u);
}

static size_t extra_bytes(uint64_t extra) {
    return (extra & CLFE_UIDGID ? 16u : 0u) + (extra & CLFE_NID ? 24u : 0u) +
           (extra & CLFE_OPEN ? 4u : 0u) + (extra & CLFE_XATTR ? 256u : 0u);
}

/* Find where the names begin and end; *extra are the extra flags, 0 if there are none. */
static int measure(const uint8_t *data, size_t size, size_t *begin, size_t *end, uint64_t *extra) {
    *extra = 0;
    if (size < FL_HEADER_BYTES)
        return FL_NO_HEADER;
    uint16_t flags = fl_get16(data + 2);
    *begin = fixed_bytes(flags);
    if (flags & CLF_EXTRA_FLAGS) {
        if (size < *begin)
            return FL_EXTENSIONS_CUT;
        *extra = fl_get64(data + *begin - 8);
        *begin += extra_bytes(*extra);
    }
    *end = *begin + fl_get16(data);
    return *end > size ? FL_NAMES_CUT : 0;
}

static int is_name(const uint8_t *name, size_t size) {
    if (size <= 2 && size > 0 && name[0] == '.' && name[size - 1] == '.')
        return 0;
    return memchr(name, '/', size) == NULL && memchr(name, 0, size) == NULL;
}

static void split_names(struct fl_record *record, size_t size) {
    const uint8_t *name = record->name, *nul = memchr(name, 0, size);
    size_t first = nul == NULL ? size : (size_t)(nul - name);
    size_t second = nul == NULL ? 0 : size - first - 1;
    record->source_name = second == 0 ? name : nul + 1; /* left out where both are the same */
    if (second == 0)
        second = first;
    if (!is_name(name, first) || !is_name(record->source_name, second))
        first = second = 0;
    record->name_size = (uint16_t)first;
    record->source_name_size = (uint16_t)second;
}

int fl_decode(const uint8_t *data, size_t size, struct fl_record *record) {
    size_t begin = 0, end = 0;
    uint64_t extra = 0;
    if (size > FL_RECORD_BYTES_MAX)
        return FL_TOO_LONG;
    int code = measure(data, size, &begin, &end, &extra);
    if (code != 0)
        return code;
    size_t names = extra > CLFE_KNOWN ? 0 : end - begin; /* where they are is not known */
    memset(record, 0, sizeof *record);
    record->flags = fl_get16(data + 2);
    record->kind = fl_get32(data + 4);
    record->number = fl_get64(data + 8);
    record->time = fl_get64(data + 24);
    record->target = data + 32;
    record->parent = data + 48;
    record->name = data + begin;
    if (record->flags & CLF_RENAME) {
        record->source = data + 64;
        record->source_parent = data + 80;
        split_names(record, names);
    } else {
        record->name_size = (uint16_t)(is_name(record->name, names) ? names : 0);
    }
    return 0;
}

struct fl_records *fl_records_new(uint32_t count_max, size_t bytes_max) {
    struct fl_records *records = calloc(1, sizeof *records);
    if (records == NULL)
        return NULL;
    if (bytes_max < FL_RECORD_BYTES_MAX)
        bytes_max = FL_RECORD_BYTES_MAX;
    if (bytes_max > UINT32_MAX)
        bytes_max = UINT32_MAX; /* ends[] counts so far */
    records->count_max = count_max > 0 ? count_max : 1;
    records->bytes_max = bytes_max;
    records->ends = malloc(records->count_max * sizeof *records->ends);
    records->data = malloc(bytes_max);
    if (records->ends == NULL || records->data == NULL) {
        fl_records_free(records);
        return NULL;
    }
    return records;
}

void fl_records_free(struct fl_records *records) {
    if (records == NULL)
        return;
    free(records->ends);
    free(records->data);
    free(records);
}

uint32_t fl_records_count(const struct fl_records *records) { return records->count; }

static int has_room(const struct fl_records *records) {
    return records->count < records->count_max &&
           records->bytes_max - records->used >= FL_RECORD_BYTES_MAX;
}

int fl_records_append(struct fl_records *records, const uint8_t *data, size_t available) {
    size_t begin = 0, end = 0;
    uint64_t extra = 0;
    if (!has_room(records))
        return -ENOSPC;
    int code = measure(data, available, &begin, &end, &extra);
    if (end > FL_RECORD_BYTES_MAX)
        return FL_TOO_LONG;
    if (code != 0)
        return code;
    memcpy(records->data + records->used, data, end);
    records->used += end;
    records->ends[records->count++] = (uint32_t)records->used;
    return 0;
}

int fl_records_receive(struct fl_records *records, fl_receive receive, fl_release release,
                       void *opened, int64_t *detail) {
    while (has_room(records)) {
        void *record = NULL;
        int code = receive(opened, &record);
        if (code != 0) {
            *detail = code;
            return code < 0 ? FL_FAILED : FL_END;
        }
        if (record == NULL)
            return FL_NO_MEMORY;
        int wrong = fl_records_append(records, record, FL_RECORD_BYTES_MAX);
        if (wrong != 0) {
            size_t begin = 0, end = 0;
            uint64_t extra = 0;
            measure(record, FL_RECORD_BYTES_MAX, &begin, &end, &extra);
            *detail = (int64_t)end;
        }
        release(&record);
        if (wrong != 0)
            return FL_UNREADABLE;
    }
    return FL_FULL;
}

const uint8_t *fl_records_bytes(const struct fl_records *records, uint32_t at, size_t *size) {
    size_t begin = at == 0 ? 0 : records->ends[at - 1];
    *size = records->ends[at] - begin;
    return records->data + begin;
}

uint32_t fl_records_run(const struct fl_records *records, uint32_t at, uint32_t end,
                        uint64_t number) {
    for (; at < end; at++) {
        size_t size;
        uint64_t next = fl_get64(fl_records_bytes(records, at, &size) + 8);
        if (number != 0 && next != number + 1)
            break;
        number = next;
    }
    return at;
}
