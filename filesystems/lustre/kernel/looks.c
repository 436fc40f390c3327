/* SPDX-License-Identifier: Apache-2.0 */
/* What records make us look at: the rules of looks.py, which says why. */
#include "changelog.h"

#include <errno.h>
#include <string.h>

enum type {
    MARK, CREAT, MKDIR, HLINK, SLINK, MKNOD, UNLNK, RMDIR, RENME, RNMTO, OPEN, CLOSE, LYOUT, TRUNC,
    SATTR, XATTR, HSM, MTIME, CTIME, ATIME, MIGRT, FLRW, RESYNC, GXATR, NOPEN, TYPES
};
enum action { ANYTHING, DATA, MADE, LINK, DIRECTORY, MOVED, SKIPPED };

enum {
    LAST_LINK = 0x1,    /* of UNLNK; of RENME: the last one of what was overwritten */
    CLM_FINI = 0x20000  /* of a MARK: nothing is recorded from here on */
};

static const uint8_t ACTIONS[TYPES] = {
    [MARK] = SKIPPED,  [CREAT] = MADE,     [MKDIR] = DIRECTORY, [HLINK] = LINK,
    [SLINK] = MADE,    [MKNOD] = MADE,     [UNLNK] = LINK,      [RMDIR] = DIRECTORY,
    [RENME] = MOVED,   [RNMTO] = ANYTHING, [OPEN] = SKIPPED,    [CLOSE] = DATA,
    [LYOUT] = DATA,    [TRUNC] = DATA,     [SATTR] = DATA,      [XATTR] = DATA,
    [HSM] = DATA,      [MTIME] = DATA,     [CTIME] = DATA,      [ATIME] = DATA,
    [MIGRT] = MOVED,   [FLRW] = DATA,      [RESYNC] = DATA,     [GXATR] = SKIPPED,
    [NOPEN] = SKIPPED,
};

static const uint8_t ZERO_FID[FL_FID_BYTES];

static int is_fid(const uint8_t *fid) {
    return fid != NULL && memcmp(fid, ZERO_FID, FL_FID_BYTES) != 0;
}

static int mark_inode(struct fl_places *places, const uint8_t *fid, uint8_t marks) {
    int is_new;
    if (!is_fid(fid))
        return 0;
    struct fl_row *row = fl_row_of(places, fid, FL_INODE, NULL, 0, &is_new);
    if (row == NULL)
        return -ENOMEM;
    fl_row_mark(places, row, marks);
    return 0;
}

static int add_inode(struct fl_places *places, const uint8_t *fid) {
    return mark_inode(places, fid, FL_IS_LOOK);
}

static int is_plain(const struct fl_places *places, const uint8_t *fid) {
    const struct fl_row *row = fl_row_find(places, fid, FL_INODE, NULL, 0);
    return row != NULL && (row->marks & FL_IS_PLAIN);
}

static int add_name(struct fl_places *places, const uint8_t *parent, uint8_t kind,
                    const uint8_t *name, uint16_t size, const uint8_t *about) {
    int is_new;
    struct fl_row *row = fl_row_of(places, parent, kind, name, size, &is_new);
    if (row == NULL)
        return -ENOMEM;
    fl_row_mark(places, row, FL_IS_LOOK);
    fl_row_tell(row, is_new, about);
    return 0;
}

/* about NULL: whatever it is. */
static int add_tree(struct fl_places *places, const uint8_t *parent, const uint8_t *name,
                    uint16_t size, const uint8_t *about) {
    if (!is_fid(parent))
        return 0;
    if (!is_fid(about))
        about = NULL;
    if (about != NULL && is_plain(places, about))
        return add_name(places, parent, FL_ENTRY, name, size, NULL);
    return add_name(places, parent, FL_TREE, name, size, about);
}

static int take_anything(struct fl_places *places, const struct fl_record *record) {
    int code = add_inode(places, record->target);
    if (code == 0)
        code = add_inode(places, record->source);
    if (code == 0)
        code = add_tree(places, record->parent, record->name, record->name_size, NULL);
    if (code == 0)
        code = add_tree(places, record->source_parent, record->source_name,
                        record->source_name_size, NULL);
    return code;
}

static int take_data(struct fl_places *places, const struct fl_record *record) {
    int code = add_inode(places, record->target);
    if (code == 0 && record->kind == LYOUT && !is_plain(places, record->target))
        code = add_tree(places, record->target, NULL, 0, record->target);
    return code;
}

static int take_link(struct fl_places *places, const struct fl_record *record) {
    int is_last = record->kind == UNLNK && (record->flags & LAST_LINK);
    uint8_t marks = is_last ? FL_IS_PLAIN | FL_IS_GONE : FL_IS_PLAIN | FL_IS_LOOK;
    int code = mark_inode(places, record->target, marks);
    if (code != 0)
        return code;
    return add_name(places, record->parent, FL_ENTRY, record->name, record->name_size, NULL);
}

static int take_made(struct fl_places *places, const struct fl_record *record) {
    int code = mark_inode(places, record->target, FL_IS_PLAIN);
    if (code != 0)
        return code;
    return add_name(places, record->parent, FL_ENTRY, record->name, record->name_size, NULL);
}

static int take_moved(struct fl_places *places, const struct fl_record *record) {
    const uint8_t *about = record->kind == RENME ? record->source : NULL;
    uint8_t marks = FL_IS_LOOK;
    if (record->kind == RENME && (record->flags & LAST_LINK))
        marks = record->source == NULL ? 0 : FL_IS_GONE; /* of old servers: target is the moved */
    int code = add_tree(places, record->parent, record->name, record->name_size, about);
    if (code == 0)
        code = add_tree(places, record->source_parent, record->source_name,
                        record->source_name_size, about);
    if (code == 0)
        code = add_inode(places, record->source);
    if (code == 0)
        code = mark_inode(places, record->target, marks);
    return code;
}

static int take(struct fl_places *places, const struct fl_record *record) {
    enum action action = record->kind < TYPES ? (enum action)ACTIONS[record->kind] : ANYTHING;
    if (action == SKIPPED) {
        if (record->kind == MARK && (fl_get32(record->target) & CLM_FINI))
            fl_places_set_off(places);
        return 0;
    }
    if (action == DATA)
        return take_data(places, record);
    if (action == ANYTHING || record->name_size == 0)
        return take_anything(places, record);
    switch (action) {
    case MADE:
        return take_made(places, record);
    case LINK:
        return take_link(places, record);
    case DIRECTORY:
        return add_name(places, record->parent, FL_TREE, record->name, record->name_size, NULL);
    default:
        return take_moved(places, record);
    }
}

int fl_places_add(struct fl_places *places, const struct fl_records *records, uint32_t at,
                  uint32_t end) {
    for (; at < end; at++) {
        size_t size;
        struct fl_record record;
        const uint8_t *data = fl_records_bytes(records, at, &size);
        if (fl_decode(data, size, &record) != 0)
            return -EBADMSG; /* never: what was appended was measured */
        int code = take(places, &record);
        if (code != 0)
            return code;
    }
    return 0;
}
