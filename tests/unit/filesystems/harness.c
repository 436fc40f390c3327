/* SPDX-License-Identifier: Apache-2.0 */
/* Drive the walker kernel without Python, for the sanitizers.
 *
 * Usage: harness MODE ROOT THREADS BUDGET_ROWS BATCH_ROWS DESCRIPTORS_MAX
 * walk: walk and follow the frontiers; prints rows, the sum of their inodes, and errors.
 * cancel: cancel from another thread after each number of batches up to 20.
 * scarce: walk after all descriptors of the process but five have been taken.
 * none: walk after all of them but the root's have been taken; must fail, not hang.
 *
 * With HARNESS_LIBCEPHFS in the environment the walk is by that library, of ROOT in CephFS.
 *
 * With THREADS 0 another number of threads works every few calls: linked with --wrap=pace_step.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "pace.h"
#include "walk.h"

#define SHARDS 7u
#define TIMEOUT_MS 20u
#define COLUMN_INO 1
#define COLUMN_ERROR 18

struct totals {
    unsigned long long rows, inodes, errors;
};

struct watcher {
    struct fw_walk *walk;
    atomic_bool stop;
};

void __real_pace_step(struct pace *pace, const struct pace_totals *totals);
void __wrap_pace_step(struct pace *pace, const struct pace_totals *totals);

/* Step as ever, then let some number of threads work all the same; called under a lock. */
void __wrap_pace_step(struct pace *pace, const struct pace_totals *totals) {
    static uint32_t number = 1;
    __real_pace_step(pace, totals);
    number = number * 1664525u + 1013904223u;
    uint32_t most = pace->active_max < 12 ? pace->active_max : 12;
    pace->active = 1 + (number >> 16) % most;
    pace->high = pace->active > pace->high ? pace->active : pace->high;
}

static void fail(const char *what, int error) {
    fprintf(stderr, "harness: %s: %s\n", what, strerror(error));
    exit(1);
}

/* Look at the figures all the time, as a progress bar would. */
static void *watch(void *argument) {
    struct watcher *watcher = argument;
    struct fw_stats stats;
    while (!atomic_load(&watcher->stop)) {
        fw_stats(watcher->walk, &stats);
    }
    return NULL;
}

static void *cancel(void *argument) {
    fw_cancel(argument);
    return NULL;
}

static void add_batch(struct ArrowArray *batch, const uint32_t *counts, struct totals *totals) {
    const uint64_t *inodes = batch->children[COLUMN_INO]->buffers[1];
    const int32_t *errors = batch->children[COLUMN_ERROR]->buffers[1];
    uint64_t counted = 0;
    for (uint32_t i = 0; i < SHARDS * 3; i++) {
        counted += counts[i];
    }
    if (counted != (uint64_t)batch->length) {
        fail("the counts do not cover the batch", EINVAL);
    }
    for (int64_t i = 0; i < batch->length; i++) {
        totals->inodes += inodes[i];
        totals->errors += errors[i] != 0;
    }
    totals->rows += counted;
    /* As an importer may do: take a child out, release the batch, then the child. */
    struct ArrowArray child = *batch->children[0];
    batch->children[0]->release = NULL;
    batch->release(batch);
    child.release(&child);
}

static struct fw_pending *copy_frontier(struct fw_walk *walk, size_t *count) {
    struct fw_pending *items = NULL;
    struct fw_pending item;
    for (*count = 0; fw_frontier(walk, *count, &item); (*count)++) {
        items = realloc(items, (*count + 1) * sizeof *items);
        char *path = malloc(item.path_size + 1);
        if (items == NULL || path == NULL) {
            fail("memory", ENOMEM);
        }
        memcpy(path, item.path, item.path_size);
        item.path = path;
        items[*count] = item;
    }
    return items;
}

static void free_frontier(struct fw_pending *items, size_t count) {
    for (size_t i = 0; i < count; i++) {
        free((char *)items[i].path);
    }
    free(items);
}

static int walk_once(const char *root, const struct fw_options *options,
                     struct fw_pending **starts, size_t *starts_count, struct totals *totals) {
    struct watcher watcher = {0};
    int result = fw_start(root, options, *starts, *starts_count, &watcher.walk);
    free_frontier(*starts, *starts_count);
    *starts = NULL;
    *starts_count = 0;
    if (result != 0) {
        return result;
    }
    pthread_t thread;
    if (pthread_create(&thread, NULL, watch, &watcher) != 0) {
        fail("pthread_create", errno);
    }
    struct ArrowArray batch;
    uint32_t counts[SHARDS * 3];
    while ((result = fw_next(watcher.walk, &batch, counts, TIMEOUT_MS)) > 0) {
        if (result == FW_BATCH) {
            add_batch(&batch, counts, totals);
        }
    }
    atomic_store(&watcher.stop, true);
    pthread_join(thread, NULL);
    if (result == FW_END) {
        *starts = copy_frontier(watcher.walk, starts_count);
    }
    fw_free(watcher.walk);
    return result;
}

static int walk_all(const char *root, struct fw_options *options) {
    struct totals totals = {0};
    struct fw_pending *starts = calloc(1, sizeof *starts);
    size_t starts_count = 1;
    options->flags |= FW_INCLUDE_ROOT;
    starts->path = strdup("");
    while (starts_count > 0) {
        int result = walk_once(root, options, &starts, &starts_count, &totals);
        if (result != FW_END) {
            printf("failed %d\n", -result);
            return 0;
        }
        options->flags &= ~(uint32_t)FW_INCLUDE_ROOT;
    }
    free_frontier(starts, starts_count);
    printf("%llu %llu %llu\n", totals.rows, totals.inodes, totals.errors);
    return 0;
}

static int cancel_all(const char *root, const struct fw_options *options) {
    struct fw_pending start = {.path = ""};
    for (int batches = 0; batches < 20; batches++) {
        struct fw_walk *walk;
        struct totals totals = {0};
        struct ArrowArray batch;
        uint32_t counts[SHARDS * 3];
        int result = fw_start(root, options, &start, 1, &walk);
        if (result != 0) {
            fail("fw_start", -result);
        }
        for (int i = 0; i < batches; i++) {
            if (fw_next(walk, &batch, counts, TIMEOUT_MS) == FW_BATCH) {
                add_batch(&batch, counts, &totals);
            }
        }
        pthread_t thread;
        if (pthread_create(&thread, NULL, cancel, walk) != 0) {
            fail("pthread_create", errno);
        }
        while ((result = fw_next(walk, &batch, counts, TIMEOUT_MS)) > 0) {
            if (result == FW_BATCH) {
                add_batch(&batch, counts, &totals);
            }
        }
        pthread_join(thread, NULL);
        fw_free(walk);
    }
    printf("cancelled\n");
    return 0;
}

/* Leave room for so many descriptors: fill the lower numbers, forbid the higher ones. */
static void leave_descriptors(unsigned room) {
    int last = open("/dev/null", O_RDONLY | O_CLOEXEC);
    struct rlimit limit = {.rlim_cur = (rlim_t)last + 1 + room, .rlim_max = (rlim_t)last + 1 + room};
    if (last < 0 || setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        fail("setrlimit", errno);
    }
}

static struct fw_cephfs *mount_cephfs(const char *library, const char *root) {
    struct fw_cephfs *mounted;
    char said[512] = "";
    int result = fw_cephfs_mount(library, NULL, root, 1, &mounted, said, sizeof said);
    if (result != 0) {
        fail(said, -result);
    }
    return mounted;
}

static int run(const char *mode, const char *root, struct fw_options *options) {
    if (strcmp(mode, "cancel") == 0) {
        return cancel_all(root, options);
    }
    if (strcmp(mode, "scarce") == 0) {
        leave_descriptors(5);
    } else if (strcmp(mode, "none") == 0) {
        leave_descriptors(1);
    } else if (strcmp(mode, "walk") != 0) {
        fail(mode, EINVAL);
    }
    return walk_all(root, options);
}

int main(int argc, char **argv) {
    if (argc != 7) {
        fprintf(stderr, "usage: harness MODE ROOT THREADS BUDGET BATCH DESCRIPTORS\n");
        return 2;
    }
    struct fw_options options = {
        .threads = (uint32_t)atoi(argv[3]),
        .shards = SHARDS,
        .seed = 42,
        .budget_rows = (uint64_t)atoi(argv[4]),
        .batch_rows = (uint32_t)atoi(argv[5]),
        .descriptors_max = (uint32_t)atoi(argv[6]),
        .flags = FW_ONE_FILESYSTEM,
    };
    const char *library = getenv("HARNESS_LIBCEPHFS");
    if (library != NULL) {
        options.cephfs = mount_cephfs(library, argv[2]);
    }
    int result = run(argv[1], argv[2], &options);
    fw_cephfs_unmount(options.cephfs);
    return result;
}
