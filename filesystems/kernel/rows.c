/* SPDX-License-Identifier: Apache-2.0 */
/* Rows on their way out: a small chunk per thread, and the bounded queue to the consumer.
 *
 * Chunks are small because every thread has one open; fw_next merges them to full batches. A full
 * queue stops the threads: that is the back-pressure.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define NS_PER_S INT64_C(1000000000)
#define SURELY_IN_RANGE_S INT64_C(9000000000) /* any nanoseconds added still fit 64 bits */

int queue_init(struct queue *queue, uint32_t chunks_max) {
    queue->chunks_max = chunks_max;
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error != 0) {
        return error;
    }
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&queue->not_empty, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error == 0) {
        error = pthread_cond_init(&queue->not_full, NULL);
    }
    if (error == 0) {
        error = pthread_mutex_init(&queue->lock, NULL);
    }
    return error;
}

static void chunks_free(struct chunk *chunk) {
    while (chunk != NULL) {
        struct chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
}

void queue_destroy(struct queue *queue) {
    chunks_free(queue->first);
    chunks_free(queue->unused);
    pthread_mutex_destroy(&queue->lock);
    pthread_cond_destroy(&queue->not_full);
    pthread_cond_destroy(&queue->not_empty);
}

static struct chunk *chunk_take(struct queue *queue) {
    pthread_mutex_lock(&queue->lock);
    struct chunk *chunk = queue->unused;
    if (chunk != NULL) {
        queue->unused = chunk->next;
        queue->unused_count--;
    }
    pthread_mutex_unlock(&queue->lock);
    if (chunk == NULL) {
        chunk = aligned_alloc(_Alignof(struct chunk), sizeof *chunk);
    }
    if (chunk != NULL) {
        chunk->next = NULL;
        chunk->rows = 0;
        chunk->path_bytes = 0;
    }
    return chunk;
}

/* Hand the thread's chunk to the consumer; waits while the queue is full. */
void chunk_flush(struct thread *thread) {
    struct fw_walk *walk = thread->walk;
    struct queue *queue = &walk->queue;
    struct chunk *chunk = thread->chunk;
    thread->chunk = NULL;
    if (chunk == NULL) {
        return;
    }
    pthread_mutex_lock(&queue->lock);
    atomic_fetch_add(&queue->blocked, 1);
    while (queue->chunks >= queue->chunks_max && !walk_ending(walk)) {
        pthread_cond_wait(&queue->not_full, &queue->lock);
    }
    atomic_fetch_sub(&queue->blocked, 1);
    if (chunk->rows == 0 || walk_ending(walk)) {
        pthread_mutex_unlock(&queue->lock);
        free(chunk);
        return;
    }
    *(queue->last ? &queue->last->next : &queue->first) = chunk;
    queue->last = chunk;
    queue->chunks++;
    queue->rows += chunk->rows;
    if (queue->chunks > queue->chunks_high) {
        queue->chunks_high = queue->chunks;
    }
    if (queue->rows >= walk->options.batch_rows || queue->chunks >= queue->chunks_max) {
        pthread_cond_signal(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
}

/* Begin a row with its path and place: of a name in the directory that the thread's prefix stands
 * for, or of that directory itself (name NULL). The attributes are not set yet. NULL: the walk is
 * ending. */
struct row *row_new(struct thread *thread, const struct directory *directory, const char *name,
                    uint32_t name_size) {
    struct fw_walk *walk = thread->walk;
    uint32_t prefix_size = name != NULL ? thread->prefix_size : directory->path_size;
    uint32_t size = prefix_size + name_size;
    uint32_t stored = size > FW_PATH_BYTES_MAX ? FW_PATH_BYTES_MAX : size;
    struct chunk *chunk = thread->chunk;
    if (chunk == NULL || chunk->rows == walk->chunk_rows ||
        chunk->path_bytes + stored > CHUNK_PATH_BYTES) {
        chunk_flush(thread);
        if (walk_ending(walk)) {
            return NULL;
        }
        chunk = thread->chunk = chunk_take(&walk->queue);
        if (chunk == NULL) {
            walk_end(walk, ENOMEM);
            return NULL;
        }
    }
    struct row *row = &chunk->row[chunk->rows++];
    char *path = chunk->paths + chunk->path_bytes;
    chunk->path_bytes += stored;
    uint32_t from_prefix = prefix_size < stored ? prefix_size : stored;
    memcpy(path, thread->prefix, from_prefix);
    if (stored > from_prefix) {
        memcpy(path + from_prefix, name, stored - from_prefix);
    }
    row->path = path;
    row->path_size = (uint16_t)stored;
    row->parent = name != NULL ? directory->inode : directory->parent_inode;
    row->depth = (uint16_t)(directory->depth + (name != NULL));
    row->flags = size > FW_PATH_BYTES_MAX ? ROW_PATH_TOO_LONG : 0;
    row->error = size > FW_PATH_BYTES_MAX ? ENAMETOOLONG : 0;
    return row;
}

static int64_t saturated_ns(const struct statx_timestamp *time) {
    if (time->tv_sec > -SURELY_IN_RANGE_S && time->tv_sec < SURELY_IN_RANGE_S) {
        return time->tv_sec * NS_PER_S + (int64_t)time->tv_nsec;
    }
    __int128 value = (__int128)time->tv_sec * NS_PER_S + time->tv_nsec;
    if (value > INT64_MAX) {
        return INT64_MAX;
    }
    return value < INT64_MIN ? INT64_MIN : (int64_t)value;
}

void row_set_attributes(struct row *row, const struct statx *attributes) {
    row->ino = attributes->stx_ino;
    row->mode = attributes->stx_mode;
    row->uid = attributes->stx_uid;
    row->gid = attributes->stx_gid;
    row->nlink = attributes->stx_nlink;
    bool device = S_ISCHR(attributes->stx_mode) || S_ISBLK(attributes->stx_mode);
    row->rdev = device ? makedev(attributes->stx_rdev_major, attributes->stx_rdev_minor) : 0;
    row->size = attributes->stx_size;
    row->blocks = attributes->stx_blocks;
    row->atime = saturated_ns(&attributes->stx_atime);
    row->mtime = saturated_ns(&attributes->stx_mtime);
    row->ctime = saturated_ns(&attributes->stx_ctime);
    row->has_btime = attributes->stx_mask & STATX_BTIME;
    row->btime = row->has_btime ? saturated_ns(&attributes->stx_btime) : 0;
}

/* Instead of the attributes: what is known without them, and why there are none. */
void row_set_failed(struct row *row, uint64_t ino, uint32_t mode, uint16_t flag, int error) {
    row_set_attributes(row, &(struct statx){.stx_ino = ino, .stx_mode = (uint16_t)mode});
    row->flags |= flag;
    row->error = error;
}

/* Settle what follows from the other columns: shard and class; count the row. */
void row_finish(struct thread *thread, struct row *row) {
    const struct fw_options *options = &thread->walk->options;
    struct counters *counters = &thread->counters;
    row->ino &= options->inode_mask;
    row->parent &= options->inode_mask;
    row->hash = mix64(row->ino, options->seed);
    row->shard = (uint16_t)(row->hash % options->shards);
    enum row_class row_class = CLASS_PLAIN;
    if (row->error != 0) {
        count_add(&counters->errors, 1);
    } else if (S_ISDIR(row->mode)) {
        row_class = CLASS_DIRECTORY;
    } else if (row->nlink > 1) {
        row_class = CLASS_LINKED;
    }
    struct chunk *chunk = thread->chunk; /* the row is its last one */
    chunk->group[chunk->rows - 1] = (uint16_t)(row->shard * CLASSES + row_class);
    if (S_ISREG(row->mode)) {
        count_add(&counters->bytes, row->size);
    }
    if (!(row->flags & ROW_LIST_FAILED)) {
        count_add(&counters->entries, 1);
    }
    thread->rows_unreported++;
}

/* Count towards the budget; once per buffer, not per row, since all threads write it. */
void rows_report(struct thread *thread) {
    struct fw_walk *walk = thread->walk;
    uint64_t made = thread->rows_unreported;
    thread->rows_unreported = 0;
    uint64_t rows = atomic_fetch_add_explicit(&walk->rows, made, memory_order_relaxed) + made;
    if (walk->options.budget_rows > 0 && rows >= walk->options.budget_rows) {
        atomic_store_explicit(&walk->stopping, true, memory_order_relaxed);
    }
}

/* A thread is to be started, by the caller of the walk or by a thread that is at work. */
void thread_announced(struct fw_walk *walk) {
    pthread_mutex_lock(&walk->queue.lock);
    walk->queue.threads_alive++;
    pthread_mutex_unlock(&walk->queue.lock);
}

/* It could not be started. */
void thread_renounced(struct fw_walk *walk) {
    pthread_mutex_lock(&walk->queue.lock);
    walk->queue.threads_alive--;
    pthread_mutex_unlock(&walk->queue.lock);
}

/* The last act of a thread. The last thread ends the stream of batches. */
void thread_finished(struct thread *thread) {
    struct queue *queue = &thread->walk->queue;
    chunk_flush(thread);
    pthread_mutex_lock(&queue->lock);
    if (--queue->threads_alive == 0) {
        queue->finished_ns = monotonic_ns();
        pthread_cond_broadcast(&queue->not_empty);
    }
    pthread_mutex_unlock(&queue->lock);
}

/* Take chunks for one batch. FW_BATCH, FW_END, FW_TIMEOUT or a negative errno. */
int queue_take(struct fw_walk *walk, uint32_t timeout_ms, struct chunk **chunks, uint32_t *rows) {
    struct queue *queue = &walk->queue;
    struct timespec deadline;
    deadline_after(&deadline, timeout_ms);
    int waited = 0;
    pthread_mutex_lock(&queue->lock);
    while (queue->rows < walk->options.batch_rows && queue->chunks < queue->chunks_max &&
           queue->threads_alive > 0 && !walk_ending(walk) && waited == 0) {
        waited = pthread_cond_timedwait(&queue->not_empty, &queue->lock, &deadline);
    }
    int result = FW_TIMEOUT;
    if (walk_ending(walk)) {
        int failure = atomic_load(&walk->failure);
        result = failure != 0 ? -failure : -ECANCELED;
    } else if (queue->rows >= walk->options.batch_rows || queue->chunks >= queue->chunks_max ||
               queue->threads_alive == 0) {
        result = queue->first != NULL ? FW_BATCH : FW_END;
    }
    if (result == FW_BATCH) {
        struct chunk *last = NULL;
        *chunks = queue->first;
        *rows = 0;
        while (queue->first != NULL &&
               *rows + queue->first->rows <= walk->options.batch_rows) {
            last = queue->first;
            *rows += last->rows;
            queue->rows -= last->rows;
            queue->chunks--;
            queue->first = last->next;
        }
        last->next = NULL; /* a chunk holds at most batch_rows rows, so there is one */
        if (queue->first == NULL) {
            queue->last = NULL;
        }
        pthread_cond_broadcast(&queue->not_full);
    }
    pthread_mutex_unlock(&queue->lock);
    return result;
}

void queue_recycle(struct queue *queue, struct chunk *chunks) {
    pthread_mutex_lock(&queue->lock);
    while (chunks != NULL && queue->unused_count < queue->chunks_max) {
        struct chunk *next = chunks->next;
        chunks->next = queue->unused;
        queue->unused = chunks;
        queue->unused_count++;
        chunks = next;
    }
    pthread_mutex_unlock(&queue->lock);
    chunks_free(chunks);
}
