/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the walker kernel share.
 *
 * Who may touch what. A directory is referenced by its children for their whole life and by tasks;
 * `uses` counts the tasks that still need its descriptor. `descriptor`, `pins` and the list links
 * are guarded by descriptors.lock. `position` and `unread` belong to the one task that reads the
 * directory. Locks are leaves but for `scarce`, which is taken before descriptors.lock.
 */
#ifndef FOREBAY_KERNEL_INTERNAL_H
#define FOREBAY_KERNEL_INTERNAL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#include "pace.h"
#include "walk.h"

#define DIRENTS_BYTES 65536u
#define SPLIT_PARTS_MAX 64u
#define SPLIT_PARTS_PER_IDLE 4u
#define SPLIT_ENTRIES_MIN 20u
#define CHUNK_ROWS_MAX 2048u
#define CHUNK_PATH_BYTES 262144u
/* How long a walk bears it that nothing in the process gives a descriptor back. */
#ifndef DESCRIPTOR_WAIT_MS_MAX /* a test has less patience */
#define DESCRIPTOR_WAIT_MS_MAX 30000u
#endif
#define DESCRIPTOR_WAIT_MS 100u
#define DESCRIPTORS_DEFAULT_MAX 4096u
#define CACHE_LINE 128

/* Values of the flags column (docs/formats/inode-schema.md). */
enum row_flag {
    ROW_STAT_FAILED = 0x1,
    ROW_LIST_FAILED = 0x2,
    ROW_MOUNT_POINT = 0x4,
    ROW_PATH_TOO_LONG = 0x8,
    ROW_EXCLUDED = 0x10
};

/* An open directory: a file descriptor, or a pointer to what stands for one in cephfs.c. */
typedef intptr_t handle;
#define HANDLE_NONE ((handle)-1)

enum row_class { CLASS_PLAIN = 0, CLASS_LINKED = 1, CLASS_DIRECTORY = 2, CLASSES = 3 };

struct directory {
    struct directory *parent; /* NULL for the root; else referenced */
    atomic_uint references;
    atomic_uint uses;

    struct directory *previous, *next; /* in a list of closable directories */
    handle descriptor;                 /* HANDLE_NONE: closed */
    uint32_t pins;

    uint64_t position; /* d_off at which the open descriptor stands */
    bool unread;       /* more names may follow */
    bool opened;       /* has been opened once; from then on only reopened */
    bool start;        /* name has any number of components, below the root */
    bool identified;   /* device and inode are known */
    bool skipped;      /* excluded: is not to be read */

    uint64_t device, inode, parent_inode;
    struct fw_identity continued; /* start: what the cookie belongs to; both 0: not known */
    uint32_t path_size;
    uint32_t name_size;
    uint16_t depth;
    char name[]; /* NUL-terminated */
};

/* Two cache lines. */
struct row {
    _Alignas(64) uint64_t ino;
    uint64_t parent, rdev, size, blocks, hash;
    int64_t atime, mtime, ctime, btime;
    const char *path; /* into the chunk */
    uint32_t mode, uid, gid, nlink;
    int32_t error;
    uint16_t path_size, depth, shard, flags;
    bool has_btime;
};

struct chunk {
    struct chunk *next;
    uint32_t rows, path_bytes;
    uint16_t group[CHUNK_ROWS_MAX]; /* of each row: shard x CLASSES + class */
    struct row row[CHUNK_ROWS_MAX];
    char paths[CHUNK_PATH_BYTES];
};

/* The system's struct linux_dirent64, which no header exports. Behind the name of a record there
 * may be more, which is its source's. */
struct record {
    uint64_t ino;
    int64_t off;
    uint16_t size;
    uint8_t type;
    char name[];
};

/* One answer of getdents64, shared by the tasks that stat its parts. */
struct dirents {
    atomic_uint references;
    uint32_t size;
    _Alignas(8) char bytes[DIRENTS_BYTES];
};

enum task_kind { TASK_ROOT_ROW, TASK_READ, TASK_STAT };

/* Owns one reference and one use of its directory; a first TASK_READ also a use of the parent. */
struct task {
    enum task_kind kind;
    struct directory *directory;
    struct dirents *dirents; /* TASK_STAT: the entries from begin to end */
    uint32_t begin, end;
    uint64_t cookie; /* TASK_READ */
};

struct deque {
    pthread_mutex_t lock;
    struct task *ring;
    uint32_t capacity, head; /* capacity is a power of two; head is the oldest task */
    atomic_uint count;
    atomic_uint high;
};

struct counters {
    atomic_ullong entries, directories, bytes, errors, vanished, reopened, steals, splits;
    atomic_ullong waits, wait_ns; /* of the calls that were timed */
};

struct thread {
    struct fw_walk *walk;
    pthread_t handle;
    bool started;
    uint32_t index;
    uint32_t untimed; /* calls to come that are not timed */
    struct deque deque;
    struct chunk *chunk;
    struct dirents *spare;
    uint64_t random;
    uint32_t rows_unreported; /* not yet in walk->rows */
    uint32_t prefix_size;
    char *prefix; /* FW_PATH_BYTES_MAX + 2 bytes */
    _Alignas(CACHE_LINE) struct counters counters;
};

struct descriptors {
    pthread_mutex_t lock;
    pthread_cond_t released;
    pthread_mutex_t scarce; /* held by the one thread that may insist while there are none */
    uint32_t open, open_max, open_high, pinned;
    /* Closable directories, least recently used first: read to the end, and not. */
    struct directory *first[2], *last[2];
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty, not_full;
    struct chunk *first, *last, *unused;
    uint32_t chunks, chunks_max, chunks_high, unused_count;
    atomic_uint blocked; /* threads that wait for room */
    uint64_t rows;
    uint32_t threads_alive;
    uint64_t finished_ns; /* 0: runs */
};

/* Of a walk whose number of threads adapts; the lock guards all but next_ns. */
struct pacing {
    pthread_mutex_t lock;
    struct pace pace;
    uint64_t last_ns, idle_ns;
    atomic_ullong next_ns; /* when to look again */
};

struct frontier {
    pthread_mutex_t lock;
    struct fw_pending *items;
    size_t count, capacity;
};

struct fw_walk {
    struct fw_options options;
    const struct source *source;
    struct fw_identity *excluded, *elsewhere;
    struct directory *root;
    uint64_t root_mount;
    bool root_mount_known;
    uint64_t started_ns;
    uint32_t chunk_rows;
    uint32_t threads_max;
    bool adaptive;
    struct thread *threads;    /* threads_max of them */
    atomic_uint threads_ready; /* so many can hold tasks; all of them but perhaps the last run */
    struct pacing pacing;

    struct descriptors descriptors;
    struct queue queue;
    struct frontier frontier;
    struct row **order; /* scratch of fw_next: batch_rows pointers */

    pthread_mutex_t idle_lock;
    pthread_cond_t work, unparked;
    atomic_uint active; /* threads that may work; changes under idle_lock */
    _Alignas(CACHE_LINE) atomic_uint idle;
    _Alignas(CACHE_LINE) atomic_uint queued; /* tasks in all deques */
    atomic_ullong outstanding;               /* tasks queued or running */
    _Alignas(CACHE_LINE) atomic_ullong rows;
    atomic_bool stopping; /* budget reached: begin and read nothing more */
    atomic_bool ending;   /* cancelled or failed: drop everything */
    atomic_int failure;   /* errno that broke the walk */
};

/* Where directories and attributes come from. All but read return 0 or an errno. */
struct source {
    uint32_t record_bytes_max; /* a buffer with less room than this is full */
    uint64_t cookie_mark; /* in the device of a frontier's cookie: it means nothing to others */
    uint32_t thread_stack_bytes;
    uint32_t threads_automatic_max;
    int (*open_root)(struct fw_walk *walk, const char *path, handle *directory);
    /* Open a directory, never through a symlink; to read it, or to go on to what is below it. */
    int (*open)(struct fw_walk *walk, handle base, const char *name, bool to_read,
                handle *directory);
    void (*close)(struct fw_walk *walk, handle directory);
    /* Of a name in the directory, or of the directory itself (name NULL). */
    int (*attributes)(struct fw_walk *walk, handle directory, const char *name,
                      struct statx *attributes);
    /* Of a name that was read. */
    int (*entry)(struct fw_walk *walk, handle directory, const struct record *record,
                 struct statx *attributes);
    int (*seek)(struct fw_walk *walk, handle directory, uint64_t cookie);
    /* Fill the buffer with records: their bytes, 0 at the end, or a negative errno. */
    long (*read)(struct fw_walk *walk, handle directory, struct dirents *dirents);
};

extern const struct source source_system; /* system.c */
extern const struct source source_cephfs; /* cephfs.c */

static inline uint64_t mix64(uint64_t ino, uint64_t seed) {
    uint64_t z = ino + seed + UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

/* Each counter has one writer, its thread; readers only need some recent value. */
static inline void count_add(atomic_ullong *counter, uint64_t value) {
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + value,
                          memory_order_relaxed);
}

static inline bool walk_ending(struct fw_walk *walk) {
    return atomic_load_explicit(&walk->ending, memory_order_relaxed);
}

static inline bool walk_stopping(struct fw_walk *walk) {
    return atomic_load_explicit(&walk->stopping, memory_order_relaxed);
}

/* Whether the thread is one of those that should not work just now. */
static inline bool thread_is_surplus(const struct thread *thread) {
    return thread->index >= atomic_load_explicit(&thread->walk->active, memory_order_relaxed);
}

/* walk.c */
uint64_t monotonic_ns(void);
void walk_end(struct fw_walk *walk, int failure);
void deadline_after(struct timespec *deadline, uint32_t milliseconds);

/* threads.c */
int threads_init(struct fw_walk *walk);
int threads_start(struct fw_walk *walk);
void threads_free(struct fw_walk *walk);
void threads_stats(struct fw_walk *walk, struct fw_stats *stats);
void thread_park(struct thread *thread);
void timing_end(struct thread *thread, uint64_t began_ns);

/* Before a call: the time, or 0 where this one is not to be timed. */
static inline uint64_t timing_begin(struct thread *thread) {
    if (thread->untimed > 0) {
        thread->untimed--;
        return 0;
    }
    return monotonic_ns();
}

/* tasks.c */
int deque_init(struct deque *deque);
void deque_destroy(struct deque *deque);
void task_push(struct thread *thread, const struct task *task);
bool task_take(struct thread *thread, struct task *task);
void task_done(struct fw_walk *walk);
void task_drop(struct fw_walk *walk, struct task *task);
void dirents_release(struct dirents *dirents);

/* directories.c */
int descriptors_init(struct descriptors *descriptors);
void descriptors_destroy(struct descriptors *descriptors);
struct directory *directory_new(struct directory *parent, const char *name, uint32_t name_size);
void directory_reference(struct directory *directory);
void directory_release(struct directory *directory);
void directory_use(struct directory *directory);
void directory_unuse(struct fw_walk *walk, struct directory *directory);
int directory_enter(struct thread *thread, struct directory *directory, handle *descriptor);
void directory_leave(struct fw_walk *walk, struct directory *directory);
void directory_path(const struct directory *directory, char *path);

/* opening.c */
int open_first(struct fw_walk *walk, struct directory *directory, handle base,
               handle *descriptor);
int open_again(struct fw_walk *walk, struct directory *directory, struct directory *ancestor,
               handle base, handle *descriptor);
bool walk_is_foreign(const struct fw_walk *walk, const struct statx *attributes);
void identities_sort(struct fw_identity *identities, size_t count);
bool walk_is_excluded(const struct fw_walk *walk, uint64_t device, uint64_t inode);
bool walk_is_elsewhere(const struct fw_walk *walk, uint64_t device, uint64_t inode);
uint64_t statx_device(const struct statx *attributes);

/* listing.c */
void task_run(struct thread *thread, struct task *task);

/* rows.c */
int queue_init(struct queue *queue, uint32_t chunks_max);
void queue_destroy(struct queue *queue);
struct row *row_new(struct thread *thread, const struct directory *directory, const char *name,
                    uint32_t name_size);
void row_set_attributes(struct row *row, const struct statx *attributes);
void row_set_failed(struct row *row, uint64_t ino, uint32_t mode, uint16_t flag, int error);
void row_finish(struct thread *thread, struct row *row);
void rows_report(struct thread *thread);
void chunk_flush(struct thread *thread);
void thread_announced(struct fw_walk *walk);
void thread_renounced(struct fw_walk *walk);
void thread_finished(struct thread *thread);
int queue_take(struct fw_walk *walk, uint32_t timeout_ms, struct chunk **chunks, uint32_t *rows);
void queue_recycle(struct queue *queue, struct chunk *chunks);

/* batch.c */
int batch_order(struct fw_walk *walk, struct chunk *chunks, uint32_t *counts);

/* arrow.c */
int batch_export(struct fw_walk *walk, uint32_t rows, size_t path_bytes,
                 struct ArrowArray *batch);

#endif
