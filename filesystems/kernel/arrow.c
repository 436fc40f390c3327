/* SPDX-License-Identifier: Apache-2.0 */
/* Rows to Arrow columns, handed over through the Arrow C data interface.
 *
 * A batch is two blocks of memory: the columns, and the zeros of the columns that a POSIX tree
 * does not have (never touched, so the system never backs them). An importer may take children
 * out of the batch, so each of them holds a reference to the blocks.
 */
#include "internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define ALIGNMENT 64u

enum column {
    PATH, INO, FID, PARENT, MODE, UID, GID, NLINK, RDEV, SIZE, BLOCKS, ATIME, MTIME, CTIME, BTIME,
    TARGET, LAYOUT, FLAGS, ERROR, DEPTH, SHARD, COLUMNS
};

static const struct {
    const char *name;
    const char *format;
    uint32_t bytes; /* of one value; for PATH of one offset */
    bool nullable;
} COLUMN[COLUMNS] = {
    [PATH] = {"path", "z", 4, false},     [INO] = {"ino", "L", 8, false},
    [FID] = {"fid", "w:16", 16, true},    [PARENT] = {"parent", "L", 8, false},
    [MODE] = {"mode", "I", 4, false},     [UID] = {"uid", "I", 4, false},
    [GID] = {"gid", "I", 4, false},       [NLINK] = {"nlink", "I", 4, false},
    [RDEV] = {"rdev", "L", 8, false},     [SIZE] = {"size", "L", 8, false},
    [BLOCKS] = {"blocks", "L", 8, false}, [ATIME] = {"atime", "l", 8, false},
    [MTIME] = {"mtime", "l", 8, false},   [CTIME] = {"ctime", "l", 8, false},
    [BTIME] = {"btime", "l", 8, true},    [TARGET] = {"target", "S", 2, false},
    [LAYOUT] = {"layout", "i", 4, true},  [FLAGS] = {"flags", "I", 4, false},
    [ERROR] = {"error", "i", 4, false},   [DEPTH] = {"depth", "S", 2, false},
    [SHARD] = {"shard", "S", 2, false},
};

struct blocks {
    atomic_uint references;
    void *columns, *zeros;
    size_t columns_bytes, zeros_bytes;
};

struct column_export {
    struct ArrowArray array;
    const void *buffers[3];
};

struct batch_export {
    struct blocks blocks;
    struct column_export column[COLUMNS];
    struct ArrowArray *children[COLUMNS];
    const void *buffers[1];
};

#ifndef __SANITIZE_ADDRESS__
/* Zeros, straight from the system: malloc keeps blocks of this size once one was freed, a set of
 * them for each thread that ever made or released a batch. NULL: there is no memory. */
static void *block_map(size_t size) {
    void *block =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block == MAP_FAILED ? NULL : block;
}

static void block_unmap(void *block, size_t size) {
    if (block != NULL) {
        munmap(block, size);
    }
}
#else /* which sees what is wrong only around blocks of malloc */
static void *block_map(size_t size) {
    return calloc(size, 1);
}

static void block_unmap(void *block, size_t size) {
    (void)size;
    free(block);
}
#endif

static void blocks_unmap(const struct blocks *blocks) {
    block_unmap(blocks->columns, blocks->columns_bytes);
    block_unmap(blocks->zeros, blocks->zeros_bytes);
}

/* The batch_export lives as long as anything refers to it; children and parent each do. */
static void release_blocks(struct batch_export *export) {
    if (atomic_fetch_sub(&export->blocks.references, 1) == 1) {
        blocks_unmap(&export->blocks);
        free(export);
    }
}

static void release_column(struct ArrowArray *array) {
    struct batch_export *export = array->private_data;
    array->release = NULL;
    release_blocks(export);
}

static void release_batch(struct ArrowArray *array) {
    struct batch_export *export = array->private_data;
    for (int i = 0; i < COLUMNS; i++) {
        struct ArrowArray *child = &export->column[i].array;
        if (child->release != NULL) { /* else the importer moved it out */
            child->release(child);
        }
    }
    array->release = NULL;
    release_blocks(export);
}

static size_t aligned(size_t size) {
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static size_t bitmap_bytes(uint32_t rows) {
    return ((size_t)rows + 7) / 8;
}

/* Lay the columns out in one block. */
static bool blocks_allocate(struct batch_export *export, uint32_t rows, size_t path_bytes,
                            char **paths, uint8_t **btime_bitmap) {
    size_t size = aligned(path_bytes) + aligned(bitmap_bytes(rows));
    for (int i = 0; i < COLUMNS; i++) {
        size += aligned(((size_t)rows + (i == PATH)) * COLUMN[i].bytes);
    }
    struct blocks *blocks = &export->blocks;
    blocks->columns_bytes = size + ALIGNMENT;
    /* One area of zeros serves as values and as validity bitmap of every absent column. */
    blocks->zeros_bytes = ((size_t)rows + 1) * COLUMN[FID].bytes;
    blocks->columns = block_map(blocks->columns_bytes);
    blocks->zeros = block_map(blocks->zeros_bytes);
    if (blocks->columns == NULL || blocks->zeros == NULL) {
        blocks_unmap(blocks);
        return false;
    }
    const char *zeros = blocks->zeros;
    char *block = blocks->columns;
    block += -(uintptr_t)block % ALIGNMENT; /* nothing, of a mapping */
    *paths = block;
    block += aligned(path_bytes);
    *btime_bitmap = (uint8_t *)block;
    block += aligned(bitmap_bytes(rows));
    for (int i = 0; i < COLUMNS; i++) {
        bool absent = i == FID || i == LAYOUT;
        export->column[i].buffers[0] = absent ? zeros : NULL;
        export->column[i].buffers[1] = absent ? zeros : block;
        block += absent ? 0 : aligned(((size_t)rows + (i == PATH)) * COLUMN[i].bytes);
    }
    export->column[PATH].buffers[2] = *paths;
    export->column[BTIME].buffers[0] = *btime_bitmap;
    return true;
}

/* Copy the rows, in their order. Row by row, since a row is two cache lines and the order jumps.
 * Returns how many have no btime. */
static uint32_t fill_columns(const struct fw_walk *walk, struct batch_export *export,
                             uint32_t rows, char *paths, uint8_t *btime_bitmap) {
#define VALUES(type, name, which) type *const name = (type *)export->column[which].buffers[1]
    VALUES(int32_t, path, PATH);
    VALUES(uint64_t, ino, INO);
    VALUES(uint64_t, parent, PARENT);
    VALUES(uint32_t, mode, MODE);
    VALUES(uint32_t, uid, UID);
    VALUES(uint32_t, gid, GID);
    VALUES(uint32_t, nlink, NLINK);
    VALUES(uint64_t, rdev, RDEV);
    VALUES(uint64_t, size, SIZE);
    VALUES(uint64_t, blocks, BLOCKS);
    VALUES(int64_t, atime, ATIME);
    VALUES(int64_t, mtime, MTIME);
    VALUES(int64_t, ctime, CTIME);
    VALUES(int64_t, btime, BTIME);
    VALUES(uint16_t, target, TARGET);
    VALUES(uint32_t, flags, FLAGS);
    VALUES(int32_t, error, ERROR);
    VALUES(uint16_t, depth, DEPTH);
    VALUES(uint16_t, shard, SHARD);
#undef VALUES
    uint32_t offset = 0;
    uint32_t btime_nulls = 0;
    for (uint32_t i = 0; i < rows; i++) {
        const struct row *row = walk->order[i];
        if (i + 8 < rows) {
            __builtin_prefetch(walk->order[i + 8]);
            __builtin_prefetch((const char *)walk->order[i + 8] + 64);
        }
        path[i] = (int32_t)offset;
        memcpy(paths + offset, row->path, row->path_size);
        offset += row->path_size;
        ino[i] = row->ino;
        parent[i] = row->parent;
        mode[i] = row->mode;
        uid[i] = row->uid;
        gid[i] = row->gid;
        nlink[i] = row->nlink;
        rdev[i] = row->rdev;
        size[i] = row->size;
        blocks[i] = row->blocks;
        atime[i] = row->atime;
        mtime[i] = row->mtime;
        ctime[i] = row->ctime;
        btime[i] = row->btime;
        btime_bitmap[i / 8] |= (uint8_t)(row->has_btime << (i % 8));
        btime_nulls += !row->has_btime;
        target[i] = (uint16_t)walk->options.target;
        flags[i] = row->flags;
        error[i] = row->error;
        depth[i] = row->depth;
        shard[i] = row->shard;
    }
    path[rows] = (int32_t)offset;
    return btime_nulls;
}

/* Export the rows in walk->order as one record batch that owns its memory. */
int batch_export(struct fw_walk *walk, uint32_t rows, size_t path_bytes,
                 struct ArrowArray *batch) {
    /* At most chunks_max chunks of CHUNK_PATH_BYTES: 256 MiB, far from what offsets can say. */
    assert(path_bytes <= INT32_MAX);
    struct batch_export *export = calloc(1, sizeof *export);
    char *paths;
    uint8_t *btime_bitmap;
    if (export == NULL || !blocks_allocate(export, rows, path_bytes, &paths, &btime_bitmap)) {
        free(export);
        return ENOMEM;
    }
    uint32_t btime_nulls = fill_columns(walk, export, rows, paths, btime_bitmap);
    atomic_init(&export->blocks.references, COLUMNS + 1);
    for (int i = 0; i < COLUMNS; i++) {
        struct column_export *column = &export->column[i];
        bool absent = i == FID || i == LAYOUT;
        export->children[i] = &column->array;
        column->array = (struct ArrowArray){
            .length = rows,
            .null_count = absent ? rows : i == BTIME ? btime_nulls : 0,
            .n_buffers = i == PATH ? 3 : 2,
            .buffers = column->buffers,
            .release = release_column,
            .private_data = export,
        };
    }
    *batch = (struct ArrowArray){
        .length = rows,
        .n_buffers = 1,
        .n_children = COLUMNS,
        .buffers = export->buffers,
        .children = export->children,
        .release = release_batch,
        .private_data = export,
    };
    return 0;
}

/* Metadata as the interface encodes it: number of pairs, then length and bytes of each, native
 * byte order. */
#define METADATA_KEY "forebay.schema"
#define METADATA_VALUE "1"

struct schema_export {
    struct ArrowSchema child[COLUMNS];
    struct ArrowSchema *children[COLUMNS];
    char metadata[3 * sizeof(int32_t) + sizeof METADATA_KEY - 1 + sizeof METADATA_VALUE - 1];
};

static void release_schema_child(struct ArrowSchema *schema) {
    schema->release = NULL; /* lives in its parent, points to constants only */
}

static void release_schema(struct ArrowSchema *schema) {
    for (int64_t i = 0; i < schema->n_children; i++) {
        if (schema->children[i]->release != NULL) {
            schema->children[i]->release(schema->children[i]);
        }
    }
    free(schema->private_data);
    schema->release = NULL;
}

static char *put(char *to, const void *bytes, size_t size) {
    memcpy(to, bytes, size);
    return to + size;
}

int fw_schema(struct ArrowSchema *schema) {
    struct schema_export *export = calloc(1, sizeof *export);
    if (export == NULL) {
        return -ENOMEM;
    }
    const int32_t pairs = 1;
    const int32_t key_size = sizeof METADATA_KEY - 1;
    const int32_t value_size = sizeof METADATA_VALUE - 1;
    char *end = put(export->metadata, &pairs, sizeof pairs);
    end = put(end, &key_size, sizeof key_size);
    end = put(end, METADATA_KEY, sizeof METADATA_KEY - 1);
    end = put(end, &value_size, sizeof value_size);
    put(end, METADATA_VALUE, sizeof METADATA_VALUE - 1);
    for (int i = 0; i < COLUMNS; i++) {
        export->children[i] = &export->child[i];
        export->child[i] = (struct ArrowSchema){
            .format = COLUMN[i].format,
            .name = COLUMN[i].name,
            .flags = COLUMN[i].nullable ? ARROW_FLAG_NULLABLE : 0,
            .release = release_schema_child,
        };
    }
    *schema = (struct ArrowSchema){
        .format = "+s",
        .name = "",
        .metadata = export->metadata,
        .n_children = COLUMNS,
        .children = export->children,
        .release = release_schema,
        .private_data = export,
    };
    return 0;
}
