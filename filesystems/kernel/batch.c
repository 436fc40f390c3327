/* SPDX-License-Identifier: Apache-2.0 */
/* The order of the rows of a batch: by shard, then by class, then as the class wants it. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

static int compare_linked(const void *left, const void *right) {
    const struct row *a = *(struct row *const *)left;
    const struct row *b = *(struct row *const *)right;
    if (a->hash != b->hash) {
        return a->hash < b->hash ? -1 : 1;
    }
    return (a->ino > b->ino) - (a->ino < b->ino);
}

static int compare_directories(const void *left, const void *right) {
    const struct row *a = *(struct row *const *)left;
    const struct row *b = *(struct row *const *)right;
    return (a->depth < b->depth) - (a->depth > b->depth);
}

/* Fill walk->order with the rows of the chunks in their order, and counts with the size of each
 * group: shards x CLASSES numbers. A counting sort, since there are few groups. */
int batch_order(struct fw_walk *walk, struct chunk *chunks, uint32_t *counts) {
    size_t groups = (size_t)walk->options.shards * CLASSES;
    uint32_t *next = malloc(groups * sizeof *next);
    if (next == NULL) {
        return ENOMEM;
    }
    memset(counts, 0, groups * sizeof *counts);
    for (struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->rows; i++) {
            counts[chunk->group[i]]++;
        }
    }
    uint32_t start = 0;
    for (size_t i = 0; i < groups; i++) {
        next[i] = start;
        start += counts[i];
    }
    for (struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next) {
        for (uint32_t i = 0; i < chunk->rows; i++) {
            walk->order[next[chunk->group[i]]++] = &chunk->row[i];
        }
    }
    /* Every next now stands at the end of its group. */
    for (size_t i = 0; i < groups; i++) {
        struct row **group = walk->order + (next[i] - counts[i]);
        if (i % CLASSES == CLASS_LINKED && counts[i] > 1) {
            qsort(group, counts[i], sizeof *group, compare_linked);
        } else if (i % CLASSES == CLASS_DIRECTORY && counts[i] > 1) {
            qsort(group, counts[i], sizeof *group, compare_directories);
        }
    }
    free(next);
    return 0;
}
