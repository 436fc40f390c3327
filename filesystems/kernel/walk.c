/* SPDX-License-Identifier: Apache-2.0 */
/* The life of a walk: check what was asked for, start the threads, give batches, free. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000U
#endif

uint64_t monotonic_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void deadline_after(struct timespec *deadline, uint32_t milliseconds) {
    uint64_t then = monotonic_ns() + (uint64_t)milliseconds * 1000000u;
    deadline->tv_sec = (time_t)(then / 1000000000u);
    deadline->tv_nsec = (long)(then % 1000000000u);
}

/* End the walk early; failure is an errno, or 0 for a cancellation. The first reason counts. */
void walk_end(struct fw_walk *walk, int failure) {
    if (failure != 0) {
        int none = 0;
        atomic_compare_exchange_strong(&walk->failure, &none, failure);
    }
    atomic_store(&walk->ending, true);
    /* Each lock is taken so that nobody can be between looking at the flag and waiting. */
    pthread_mutex_lock(&walk->idle_lock);
    pthread_cond_broadcast(&walk->work);
    pthread_cond_broadcast(&walk->unparked);
    pthread_mutex_unlock(&walk->idle_lock);
    pthread_mutex_lock(&walk->queue.lock);
    pthread_cond_broadcast(&walk->queue.not_full);
    pthread_cond_broadcast(&walk->queue.not_empty);
    pthread_mutex_unlock(&walk->queue.lock);
    pthread_mutex_lock(&walk->descriptors.lock);
    pthread_cond_broadcast(&walk->descriptors.released);
    pthread_mutex_unlock(&walk->descriptors.lock);
}

static bool options_are_sound(const struct fw_options *options) {
    return options->threads <= FW_THREADS_MAX && options->threads_start <= FW_THREADS_MAX &&
           options->latency_target_ns <= FW_LATENCY_TARGET_NS_MAX && options->shards >= 1 &&
           options->shards <= FW_SHARDS_MAX && options->batch_rows >= 1 &&
           options->batch_rows <= FW_BATCH_ROWS_MAX && options->target <= UINT16_MAX &&
           (options->descriptors_max == 0 || (options->descriptors_max >= FW_DESCRIPTORS_MIN &&
                                              options->descriptors_max <= FW_DESCRIPTORS_MAX));
}

/* Count the components; false if the path could lead anywhere but below the root. */
static bool path_is_sound(const char *path, uint32_t size, uint16_t *depth) {
    *depth = 0;
    if (size > FW_PATH_BYTES_MAX || (size > 0 && memchr(path, '\0', size) != NULL)) {
        return false;
    }
    for (uint32_t offset = 0; size > 0 && offset <= size; (*depth)++) {
        const char *begin = path + offset;
        const char *slash = offset < size ? memchr(begin, '/', size - offset) : NULL;
        uint32_t length = slash ? (uint32_t)(slash - begin) : size - offset;
        if (length == 0 || (length == 1 && begin[0] == '.') ||
            (length == 2 && begin[0] == '.' && begin[1] == '.')) {
            return false;
        }
        offset += length + 1;
    }
    return true;
}

static uint32_t default_descriptors(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur / 2 > DESCRIPTORS_DEFAULT_MAX) {
        return DESCRIPTORS_DEFAULT_MAX;
    }
    uint32_t half = (uint32_t)(limit.rlim_cur / 2);
    return half > FW_DESCRIPTORS_MIN ? half : FW_DESCRIPTORS_MIN;
}

static int open_root(struct fw_walk *walk, const char *path) {
    handle descriptor;
    int error = walk->source->open_root(walk, path, &descriptor);
    if (error != 0) {
        return error;
    }
    walk->root = directory_new(NULL, "", 0);
    if (walk->root == NULL) {
        walk->source->close(walk, descriptor);
        return ENOMEM;
    }
    struct directory *root = walk->root;
    root->descriptor = descriptor;
    struct statx attributes;
    error = walk->source->attributes(walk, descriptor, NULL, &attributes);
    if (error != 0) {
        return error;
    }
    root->opened = true;
    root->identified = true;
    root->device = statx_device(&attributes);
    root->inode = root->parent_inode = attributes.stx_ino;
    root->pins = 1; /* for the whole walk, so that it is never closed */
    walk->descriptors.pinned = walk->descriptors.open = walk->descriptors.open_high = 1;
    walk->root_mount_known = attributes.stx_mask & STATX_MNT_ID;
    walk->root_mount = attributes.stx_mnt_id;
    return 0;
}

static int push_start(struct fw_walk *walk, size_t index, const struct fw_pending *start) {
    uint16_t depth;
    if (!path_is_sound(start->path, start->path_size, &depth)) {
        return EINVAL;
    }
    const char *path = start->path_size > 0 ? start->path : "";
    struct directory *directory = directory_new(walk->root, path, start->path_size);
    if (directory == NULL) {
        return ENOMEM;
    }
    directory->start = true;
    directory->continued = (struct fw_identity){.device = start->device, .inode = start->inode};
    directory->depth = depth;
    directory_use(walk->root);
    struct task task = {.kind = TASK_READ, .directory = directory, .cookie = start->cookie};
    task_push(&walk->threads[index % atomic_load(&walk->threads_ready)], &task);
    return 0;
}

/* The last start directory is pushed first, since threads take the newest task first. */
static int push_starts(struct fw_walk *walk, const struct fw_pending *starts, size_t count) {
    int error = 0;
    for (size_t i = count; i > 0 && error == 0; i--) {
        error = push_start(walk, i - 1, &starts[i - 1]);
    }
    if (error == 0 && (walk->options.flags & FW_INCLUDE_ROOT)) {
        struct task task = {.kind = TASK_ROOT_ROW, .directory = walk->root};
        directory_reference(walk->root);
        directory_use(walk->root);
        task_push(&walk->threads[0], &task);
    }
    return error != 0 ? error : atomic_load(&walk->failure);
}

static struct fw_identity *copy_identities(const struct fw_identity *from, size_t count) {
    struct fw_identity *copy = malloc((count + 1) * sizeof *copy);
    if (copy != NULL && count > 0) {
        memcpy(copy, from, count * sizeof *copy);
        identities_sort(copy, count);
    }
    return copy;
}

static void free_options(struct fw_walk *walk) {
    free(walk->order);
    free(walk->excluded);
    free(walk->elsewhere);
}

static int copy_options(struct fw_walk *walk, const struct fw_options *options) {
    walk->options = *options;
    walk->source = options->cephfs != NULL ? &source_cephfs : &source_system;
    if (walk->options.descriptors_max == 0) {
        walk->options.descriptors_max = default_descriptors();
    }
    if (walk->options.inode_mask == 0) {
        walk->options.inode_mask = UINT64_MAX;
    }
    uint32_t rows = options->batch_rows;
    walk->chunk_rows = rows < CHUNK_ROWS_MAX ? rows : CHUNK_ROWS_MAX;
    walk->order = malloc(rows * sizeof *walk->order);
    walk->excluded = copy_identities(options->excluded, options->excluded_count);
    walk->elsewhere = copy_identities(options->elsewhere, options->elsewhere_count);
    if (walk->order == NULL || walk->excluded == NULL || walk->elsewhere == NULL) {
        return ENOMEM;
    }
    return 0;
}

static int initialise_locks(struct fw_walk *walk) {
    uint32_t chunks = (walk->options.batch_rows + walk->chunk_rows - 1) / walk->chunk_rows;
    /* Twice as many as a batch needs, since chunks may be full of paths before they are of rows.
     * A full queue always holds a batch, so producers and consumer can't both wait. */
    int error = queue_init(&walk->queue, 2 * chunks);
    if (error == 0) {
        error = descriptors_init(&walk->descriptors);
    }
    if (error == 0) {
        error = pthread_mutex_init(&walk->frontier.lock, NULL);
    }
    if (error == 0) {
        error = pthread_mutex_init(&walk->idle_lock, NULL);
    }
    if (error == 0) {
        error = pthread_cond_init(&walk->work, NULL);
    }
    return error != 0 ? error : pthread_cond_init(&walk->unparked, NULL);
}

int fw_start(const char *root, const struct fw_options *options, const struct fw_pending *starts,
             size_t starts_count, struct fw_walk **result) {
    *result = NULL;
    if (!options_are_sound(options)) {
        return -EINVAL;
    }
    struct fw_walk *walk =
        aligned_alloc(CACHE_LINE, (sizeof *walk + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (walk == NULL) {
        return -ENOMEM;
    }
    memset(walk, 0, sizeof *walk);
    walk->started_ns = monotonic_ns();
    int error = copy_options(walk, options);
    if (error == 0) {
        error = initialise_locks(walk);
        if (error != 0) { /* glibc's never fail; what was made before is leaked then */
            free_options(walk);
            free(walk);
            return -error;
        }
        error = threads_init(walk);
        if (error == 0) {
            error = open_root(walk, root);
        }
        if (error == 0) {
            error = push_starts(walk, starts, starts_count);
        }
        if (error == 0) {
            error = threads_start(walk);
        }
        if (error == 0) {
            *result = walk;
            return 0;
        }
        fw_free(walk);
        return -error;
    }
    free_options(walk);
    free(walk);
    return -error;
}

int fw_next(struct fw_walk *walk, struct ArrowArray *batch, uint32_t *counts,
            uint32_t timeout_ms) {
    struct chunk *chunks = NULL;
    uint32_t rows = 0;
    int result = queue_take(walk, timeout_ms, &chunks, &rows);
    if (result != FW_BATCH) {
        return result;
    }
    int error = batch_order(walk, chunks, counts);
    if (error == 0) {
        size_t path_bytes = 0;
        for (const struct chunk *chunk = chunks; chunk != NULL; chunk = chunk->next) {
            path_bytes += chunk->path_bytes;
        }
        error = batch_export(walk, rows, path_bytes, batch);
    }
    queue_recycle(&walk->queue, chunks);
    if (error != 0) {
        walk_end(walk, error);
        return -error;
    }
    return FW_BATCH;
}

int fw_frontier(struct fw_walk *walk, size_t index, struct fw_pending *item) {
    struct frontier *frontier = &walk->frontier;
    pthread_mutex_lock(&frontier->lock);
    bool exists = index < frontier->count;
    if (exists) {
        *item = frontier->items[index];
    }
    pthread_mutex_unlock(&frontier->lock);
    return exists;
}

static uint64_t value_of(atomic_ullong *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void fw_stats(struct fw_walk *walk, struct fw_stats *stats) {
    *stats = (struct fw_stats){0};
    threads_stats(walk, stats);
    for (uint32_t i = 0; i < stats->threads; i++) {
        struct thread *thread = &walk->threads[i];
        struct counters *counters = &thread->counters;
        stats->entries += value_of(&counters->entries);
        stats->directories += value_of(&counters->directories);
        stats->bytes += value_of(&counters->bytes);
        stats->errors += value_of(&counters->errors);
        stats->vanished += value_of(&counters->vanished);
        stats->reopened += value_of(&counters->reopened);
        stats->steals += value_of(&counters->steals);
        stats->splits += value_of(&counters->splits);
        uint32_t high = atomic_load_explicit(&thread->deque.high, memory_order_relaxed);
        stats->pending_high = high > stats->pending_high ? high : stats->pending_high;
    }
    pthread_mutex_lock(&walk->descriptors.lock);
    stats->descriptors_high = walk->descriptors.open_high;
    pthread_mutex_unlock(&walk->descriptors.lock);
    pthread_mutex_lock(&walk->queue.lock);
    stats->chunks_high = walk->queue.chunks_high;
    uint64_t end = walk->queue.finished_ns != 0 ? walk->queue.finished_ns : monotonic_ns();
    pthread_mutex_unlock(&walk->queue.lock);
    stats->nanoseconds = end - walk->started_ns;
}

void fw_cancel(struct fw_walk *walk) {
    walk_end(walk, 0);
}

void fw_free(struct fw_walk *walk) {
    if (walk == NULL) {
        return;
    }
    walk_end(walk, 0);
    threads_free(walk);
    if (walk->root != NULL) {
        walk->source->close(walk, walk->root->descriptor);
        directory_release(walk->root);
    }
    for (size_t i = 0; i < walk->frontier.count; i++) {
        free((char *)walk->frontier.items[i].path);
    }
    free(walk->frontier.items);
    queue_destroy(&walk->queue);
    descriptors_destroy(&walk->descriptors);
    pthread_mutex_destroy(&walk->frontier.lock);
    pthread_mutex_destroy(&walk->idle_lock);
    pthread_cond_destroy(&walk->work);
    pthread_cond_destroy(&walk->unparked);
    free_options(walk);
    free(walk);
}

uint64_t fw_mix64(uint64_t ino, uint64_t seed) {
    return mix64(ino, seed);
}
