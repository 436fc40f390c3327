/* SPDX-License-Identifier: Apache-2.0 */
/* A namespace that is computed from inode numbers: nothing is stored, whatever its size.
 *
 * Covers: which inodes a shape has, their names, parents and children; what files contain.
 * Does not cover: FUSE (handlers.c).
 */
#ifndef LATENCY_NAMESPACE_H
#define LATENCY_NAMESPACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ROOT_INODE 1
#define TARGETS_MAX 10
#define INODES_MAX ((uint64_t)1 << 40)
#define DEPTH_MAX 64
#define NAME_DIGITS 7
#define FANOUT_MAX 10000000 /* what fits NAME_DIGITS */
#define NAME_BYTES 16
#define CONTENT_PERIOD 4194301 /* a prime below 4 MiB: no two aligned chunks are alike */
#define READ_BYTES_MAX (1 << 20)

/* A tree: `fanout` directories in each directory down to `depth` levels, `files` files in every
 * one. With targets > 0 there are so many trees, below t0, t1, ... in the root. */
struct shape {
    uint64_t targets, fanout, depth, files, size_bytes;
    uint64_t inner, directories, per_tree, inodes; /* computed */
};

struct node {
    uint64_t inode;
    uint64_t number;   /* of the directory or file in its tree */
    uint64_t children; /* names in it; "." and ".." are not listed */
    uint32_t target;   /* whose tree; shape.targets for a root that only holds targets */
    bool is_directory;
};

/* Fill in what is computed. NULL, or what is wrong with the shape. */
const char *shape_complete(struct shape *shape);

/* False if there is no such inode. */
bool node_at(const struct shape *shape, uint64_t inode, struct node *node);

/* The inode and the name of a directory's child; number < directory->children. */
uint64_t child_at(const struct shape *shape, const struct node *directory, uint64_t number,
                  char name[NAME_BYTES]);

/* The inode of a name, or 0. */
uint64_t child_named(const struct shape *shape, const struct node *directory, const char *name);

/* Make the pool that all content is taken from. False: no memory. */
bool content_prepare(void);

/* Where the content of a file begins at an offset; READ_BYTES_MAX bytes can be read there. */
const char *content_at(uint64_t inode, uint64_t offset);

#endif
