/* SPDX-License-Identifier: Apache-2.0 */
#include "namespace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Inode numbers: the root is 1. Tree t begins at 1, or at 2 + t * per_tree where there are targets;
 * in a tree come its directories, numbered level by level, then the files of directory 0, 1, ... */

static char *content_pool;

static uint64_t tree_begin(const struct shape *shape, uint64_t tree) {
    return shape->targets == 0 ? ROOT_INODE : ROOT_INODE + 1 + tree * shape->per_tree;
}

const char *shape_complete(struct shape *shape) {
    if (shape->targets > TARGETS_MAX) {
        return "too many targets";
    }
    if (shape->fanout > FANOUT_MAX || shape->files > FANOUT_MAX) {
        return "too many names in a directory";
    }
    if (shape->depth > 0 && shape->fanout == 0) {
        return "depth needs a fanout";
    }
    uint64_t level = 1;
    shape->inner = 0;
    shape->directories = 1;
    for (uint64_t depth = 0; depth < shape->depth; depth++) {
        shape->inner = shape->directories;
        level *= shape->fanout; /* below FANOUT_MAX * INODES_MAX */
        shape->directories += level;
        if (shape->directories > INODES_MAX) {
            return "too many inodes";
        }
    }
    if (shape->directories > INODES_MAX / (shape->files + 1)) {
        return "too many inodes";
    }
    shape->per_tree = shape->directories * (shape->files + 1);
    shape->inodes = shape->targets == 0 ? shape->per_tree : 1 + shape->targets * shape->per_tree;
    return NULL;
}

static uint64_t directories_in(const struct shape *shape, uint64_t number) {
    return number < shape->inner ? shape->fanout : 0;
}

bool node_at(const struct shape *shape, uint64_t inode, struct node *node) {
    if (inode < ROOT_INODE || inode - ROOT_INODE >= shape->inodes) {
        return false;
    }
    *node = (struct node){.inode = inode, .is_directory = true};
    if (shape->targets > 0 && inode == ROOT_INODE) {
        node->target = (uint32_t)shape->targets;
        node->children = shape->targets;
        return true;
    }
    uint64_t from_first = inode - tree_begin(shape, 0);
    node->target = (uint32_t)(from_first / shape->per_tree);
    uint64_t number = from_first % shape->per_tree;
    if (number < shape->directories) {
        node->number = number;
        node->children = directories_in(shape, number) + shape->files;
    } else {
        node->is_directory = false;
        node->number = number - shape->directories;
    }
    return true;
}

uint64_t child_at(const struct shape *shape, const struct node *directory, uint64_t number,
                  char name[NAME_BYTES]) {
    if (directory->target == shape->targets && shape->targets > 0) {
        snprintf(name, NAME_BYTES, "t%u", (unsigned)number);
        return tree_begin(shape, number);
    }
    uint64_t begin = tree_begin(shape, directory->target);
    uint64_t below = directories_in(shape, directory->number);
    if (number < below) {
        snprintf(name, NAME_BYTES, "d%0*u", NAME_DIGITS, (unsigned)number);
        return begin + directory->number * shape->fanout + 1 + number;
    }
    number -= below;
    snprintf(name, NAME_BYTES, "f%0*u", NAME_DIGITS, (unsigned)number);
    return begin + shape->directories + directory->number * shape->files + number;
}

uint64_t child_named(const struct shape *shape, const struct node *directory, const char *name) {
    if (!directory->is_directory || name[0] == '\0') {
        return 0;
    }
    char *end;
    unsigned long number = strtoul(name + 1, &end, 10);
    if (name[0] == 'f') {
        number += directories_in(shape, directory->number);
    }
    if (*end != '\0' || number >= directory->children) {
        return 0;
    }
    /* Only the name that child_at() gives counts: no other spelling of the number. */
    char spelled[NAME_BYTES];
    uint64_t inode = child_at(shape, directory, number, spelled);
    return strcmp(spelled, name) == 0 ? inode : 0;
}

bool content_prepare(void) {
    size_t bytes = (CONTENT_PERIOD + READ_BYTES_MAX + 7) & ~(size_t)7;
    content_pool = malloc(bytes);
    if (content_pool == NULL) {
        return false;
    }
    uint64_t state = 0;
    for (size_t at = 0; at < CONTENT_PERIOD; at += sizeof state) { /* splitmix64 */
        uint64_t mixed = (state += 0x9e3779b97f4a7c15);
        mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
        mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
        mixed ^= mixed >> 31;
        memcpy(content_pool + at, &mixed, sizeof mixed);
    }
    memcpy(content_pool + CONTENT_PERIOD, content_pool, READ_BYTES_MAX);
    return true;
}

const char *content_at(uint64_t inode, uint64_t offset) {
    uint64_t begin = inode % CONTENT_PERIOD * 7919;
    return content_pool + (begin + offset % CONTENT_PERIOD) % CONTENT_PERIOD;
}
