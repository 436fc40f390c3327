/* SPDX-License-Identifier: Apache-2.0 */
/* The walker kernel: enumerate directories with threads, give their entries as Arrow batches.
 *
 * Covers: one walk, which is one lease: start directories in, batches and a frontier out.
 * Does not cover: what a row means (docs/formats/inode-schema.md), leases, segments.
 *
 * One thread calls fw_next; fw_stats and fw_cancel may be called from any thread. Functions
 * return 0 or a negative errno unless they say otherwise. The part between the two marks is also
 * what build_kernel.py gives to cffi, so it holds plain declarations only.
 */
#ifndef FOREBAY_WALK_H
#define FOREBAY_WALK_H

#include <stddef.h>
#include <stdint.h>

#include "arrow_c.h"

/* cdef begin */
enum fw_limits {
    FW_THREADS_MAX = 256,
    FW_THREADS_AUTOMATIC_MAX = 128,
    FW_LATENCY_TARGET_NS_MAX = 2000000000,
    FW_SHARDS_MAX = 1024,
    FW_BATCH_ROWS_MAX = 1048576,
    FW_PATH_BYTES_MAX = 65535,
    FW_DESCRIPTORS_MIN = 8,
    FW_DESCRIPTORS_MAX = 65536
};

enum fw_option_flags {
    FW_INCLUDE_ROOT = 0x1,   /* emit the row of the root itself */
    FW_ONE_FILESYSTEM = 0x2, /* record the roots of other mounts, do not descend into them */
    FW_DONT_SYNC = 0x4,      /* AT_STATX_DONT_SYNC: attributes may be those of a client's cache */
    FW_BIRTH_TIMES = 0x8     /* with cephfs: rows have them, as the mount's rows do */
};

enum fw_next_result { FW_END = 0, FW_BATCH = 1, FW_TIMEOUT = 2 };

struct fw_identity {
    uint64_t device; /* st_dev */
    uint64_t inode;
};

struct fw_pending {
    const char *path;   /* relative to the root, not NUL-terminated; empty: the root */
    uint32_t path_size; /* bytes */
    uint64_t cookie;    /* d_off of the last name already listed; 0: from the beginning */
    /* The directory that the cookie belongs to: where another one stands at the path by now, that
     * one is listed from its beginning. Both 0: not known, the cookie is taken as it is. */
    uint64_t device, inode;
};

struct fw_cephfs; /* a client of CephFS, mounted by libcephfs */

struct fw_options {
    /* 1 to FW_THREADS_MAX, fewer where descriptors_max is small; or 0: as many as help, up to
     * FW_THREADS_AUTOMATIC_MAX. The next two count for 0 only. */
    uint32_t threads;
    uint32_t threads_start;     /* to begin with; 0: the cores, at most 8 */
    uint64_t latency_target_ns; /* fewer threads where calls take longer; 0: none */
    uint32_t shards;          /* 1 to FW_SHARDS_MAX */
    uint64_t seed;            /* of the shard function */
    uint64_t budget_rows;     /* 0: none */
    uint32_t batch_rows;      /* 1 to FW_BATCH_ROWS_MAX */
    uint32_t descriptors_max; /* 0: half of RLIMIT_NOFILE, at most 4096 */
    uint32_t target;          /* for the column of this name, below 65536 */
    uint32_t flags;
    const struct fw_identity *excluded; /* directories to record, not to descend into */
    size_t excluded_count;
    /* Directories that another target's walker is to list: recorded, and put into the frontier with
     * their identity. As a start directory each is listed like any other. */
    const struct fw_identity *elsewhere;
    size_t elsewhere_count;
    uint64_t inode_mask;      /* bits of inode numbers that rows have; 0: all */
    struct fw_cephfs *cephfs; /* walk its directory, not the root's path; NULL: system calls */
    uint64_t device;          /* with cephfs: st_dev of the mount that the rows are of */
};

struct fw_stats {
    uint64_t entries;     /* rows made, but for LIST_FAILED ones */
    uint64_t directories; /* directories read to their end */
    uint64_t bytes;       /* sizes of regular files, counted for each name */
    uint64_t errors;      /* rows whose error is not 0 */
    uint64_t vanished;    /* names that were gone when their attributes were asked for */
    uint64_t reopened;    /* directories closed for want of descriptors and opened again */
    uint64_t steals;      /* tasks that another thread took over */
    uint64_t splits;      /* buffers of one directory shared among idle threads */
    uint64_t nanoseconds; /* since the start, or from start to end */
    uint64_t latency_ns;  /* of calls that waited, smoothed; 0: not measured */
    uint32_t threads;     /* threads that were started */
    uint32_t threads_active;   /* that work at once, now */
    uint32_t threads_high;     /* most that did */
    uint32_t backoffs;         /* times their number was halved because calls took too long */
    uint32_t descriptors_high; /* most directories open at once */
    uint32_t pending_high;     /* most tasks waiting in the deque of one thread */
    uint32_t chunks_high;      /* most chunks of rows waiting for the consumer */
};

struct fw_walk;

/* What is the same of a CephFS directory whoever looks at it. */
struct fw_cephfs_root {
    uint64_t inode;
    int64_t mtime_s, ctime_s;
    uint32_t mtime_ns, ctime_ns;
    uint32_t mode, uid, gid;
};

/* Load libcephfs and mount a directory by its path in the filesystem. The cluster, the user and
 * the keyring are taken from where libcephfs looks for them; id is the user's name without
 * "client.", or NULL. Waits for the cluster up to about timeout_s, but nothing ends it earlier.
 * On failure `said` tells what was tried. */
int fw_cephfs_mount(const char *library, const char *id, const char *path, uint32_t timeout_s,
                    struct fw_cephfs **mounted, char *said, size_t said_size);
/* A virtual attribute of the mounted directory: its size, or a negative errno. */
int fw_cephfs_xattr(struct fw_cephfs *mounted, const char *name, char *value, size_t size);
int fw_cephfs_look(struct fw_cephfs *mounted, struct fw_cephfs_root *root);
void fw_cephfs_version(struct fw_cephfs *mounted, int version[3]);
/* All walks of it must have been freed. */
void fw_cephfs_unmount(struct fw_cephfs *mounted);

/* Open the root and start the threads. The options and start directories are copied. */
int fw_start(const char *root, const struct fw_options *options, const struct fw_pending *starts,
             size_t starts_count, struct fw_walk **walk);
/* Give the next batch, grouped by shard and class, and its counts: shards x 3 numbers.
 * FW_TIMEOUT: nothing within timeout_ms. The batch is the caller's and may outlive the walk. */
int fw_next(struct fw_walk *walk, struct ArrowArray *batch, uint32_t *counts,
            uint32_t timeout_ms);
/* After FW_END: directories not begun or read in part; 1 and the item, or 0 past the last.
 * The path belongs to the walk. */
int fw_frontier(struct fw_walk *walk, size_t index, struct fw_pending *item);
void fw_stats(struct fw_walk *walk, struct fw_stats *stats);
/* Stop soon; what is not delivered is dropped. */
void fw_cancel(struct fw_walk *walk);
/* Cancel, join the threads, free everything but batches already given out. */
void fw_free(struct fw_walk *walk);
int fw_schema(struct ArrowSchema *schema);
uint64_t fw_mix64(uint64_t ino, uint64_t seed);
/* cdef end */

#endif
