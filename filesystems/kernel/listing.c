/* SPDX-License-Identifier: Apache-2.0 */
/* Running tasks: read a directory, stat its names, make rows and further tasks.
 *
 * getdents64 is serial per descriptor, so a directory has one reader at a time; what it has read
 * is shared among idle threads. The rest of a directory is pushed before its children, so that
 * own work stays depth-first and what waits does not grow with the width of a directory.
 */
#include "internal.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#ifndef STATX_ATTR_AUTOMOUNT
#define STATX_ATTR_AUTOMOUNT 0x1000
#endif

static const struct record *record_at(const struct dirents *dirents, uint32_t offset) {
    return (const struct record *)(const void *)(dirents->bytes + offset);
}

static bool is_dot_or_dotdot(const char *name) {
    return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

static struct dirents *dirents_take(struct thread *thread) {
    struct dirents *dirents = thread->spare;
    thread->spare = NULL;
    if (dirents == NULL) {
        dirents = malloc(sizeof *dirents);
        if (dirents != NULL) {
            atomic_init(&dirents->references, 1);
        } else {
            walk_end(thread->walk, ENOMEM);
        }
    }
    return dirents;
}

/* Keep the buffer for the next directory unless parts of it are still with other tasks. */
static void dirents_give(struct thread *thread, struct dirents *dirents) {
    if (thread->spare == NULL && atomic_load(&dirents->references) == 1) {
        thread->spare = dirents;
    } else {
        dirents_release(dirents);
    }
}

static void frontier_add(struct fw_walk *walk, const struct directory *directory,
                         uint64_t cookie) {
    struct frontier *frontier = &walk->frontier;
    /* What was not opened in this walk goes back as it came; with 0 where it was only found. */
    struct fw_identity identity = directory->continued;
    if (directory->opened) {
        identity = (struct fw_identity){.device = directory->device, .inode = directory->inode};
        if (cookie != 0) {
            identity.device ^= walk->source->cookie_mark;
        }
    }
    char *path = malloc((size_t)directory->path_size + 1);
    bool added = path != NULL;
    pthread_mutex_lock(&frontier->lock);
    if (added && frontier->count == frontier->capacity) {
        size_t capacity = frontier->capacity ? frontier->capacity * 2 : 256;
        struct fw_pending *items = realloc(frontier->items, capacity * sizeof *items);
        added = items != NULL;
        if (added) {
            frontier->items = items;
            frontier->capacity = capacity;
        }
    }
    if (added) {
        directory_path(directory, path);
        frontier->items[frontier->count++] = (struct fw_pending){.path = path,
                                                                 .path_size = directory->path_size,
                                                                 .cookie = cookie,
                                                                 .device = identity.device,
                                                                 .inode = identity.inode};
    }
    pthread_mutex_unlock(&frontier->lock);
    if (!added) {
        free(path);
        walk_end(walk, ENOMEM);
    }
}

/* Put the directory's path, with a slash behind it, where row_new takes it from. */
static void set_prefix(struct thread *thread, const struct directory *directory) {
    directory_path(directory, thread->prefix);
    thread->prefix_size = directory->path_size;
    if (thread->prefix_size > 0) {
        thread->prefix[thread->prefix_size++] = '/';
    }
}

static void list_failed(struct thread *thread, const struct directory *directory, int error) {
    set_prefix(thread, directory);
    struct row *row = row_new(thread, directory, NULL, 0);
    if (row != NULL) {
        row_set_failed(row, directory->inode, S_IFDIR, ROW_LIST_FAILED, error);
        row_finish(thread, row);
    }
    rows_report(thread);
}

static void push_child(struct thread *thread, struct directory *parent, const char *name,
                       uint32_t name_size, const struct statx *attributes) {
    struct directory *child = directory_new(parent, name, name_size);
    if (child == NULL) {
        walk_end(thread->walk, ENOMEM);
        return;
    }
    child->device = statx_device(attributes);
    child->inode = attributes->stx_ino;
    /* Opening an automount point mounts what belongs there, so another directory is expected. */
    child->identified = !(attributes->stx_attributes & STATX_ATTR_AUTOMOUNT);
    if (walk_is_elsewhere(thread->walk, child->device, child->inode)) {
        child->continued = (struct fw_identity){.device = child->device, .inode = child->inode};
        frontier_add(thread->walk, child, 0);
        directory_release(child);
        return;
    }
    directory_use(parent);
    struct task task = {.kind = TASK_READ, .directory = child};
    task_push(thread, &task);
}

static void list_entry(struct thread *thread, struct directory *directory, handle descriptor,
                       const struct record *record) {
    struct fw_walk *walk = thread->walk;
    uint32_t name_size = (uint32_t)strlen(record->name);
    /* Linux refuses such names since 5.4; before, a broken filesystem could lead us astray. */
    if (name_size == 0 || memchr(record->name, '/', name_size) != NULL) {
        list_failed(thread, directory, EIO);
        return;
    }
    struct row *row = row_new(thread, directory, record->name, name_size);
    if (row == NULL) {
        return;
    }
    struct statx attributes;
    uint64_t began_ns = timing_begin(thread);
    int error = walk->source->entry(walk, descriptor, record, &attributes);
    if (began_ns != 0) {
        timing_end(thread, began_ns);
    }
    if (error != 0) {
        row_set_failed(row, record->ino, DTTOIF(record->type), ROW_STAT_FAILED, error);
        if (error == ENOENT) {
            count_add(&thread->counters.vanished, 1);
        }
        row_finish(thread, row);
        return;
    }
    row_set_attributes(row, &attributes);
    if (walk_is_foreign(walk, &attributes)) {
        row->flags |= ROW_MOUNT_POINT;
    } else if (S_ISDIR(attributes.stx_mode) && !(row->flags & ROW_PATH_TOO_LONG)) {
        if (walk_is_excluded(walk, statx_device(&attributes), attributes.stx_ino)) {
            row->flags |= ROW_EXCLUDED;
        } else {
            push_child(thread, directory, record->name, name_size, &attributes);
        }
    }
    row_finish(thread, row);
}

static void push_part(struct thread *thread, struct directory *directory, struct dirents *dirents,
                      uint32_t begin, uint32_t end) {
    struct task task = {.kind = TASK_STAT, .directory = directory, .dirents = dirents,
                        .begin = begin, .end = end};
    atomic_fetch_add(&dirents->references, 1);
    directory_reference(directory);
    directory_use(directory);
    task_push(thread, &task);
}

/* Share the entries from begin to end among the threads that wait, if they are worth it. Returns
 * the new end of what is left to this thread. */
static uint32_t split(struct thread *thread, struct directory *directory, struct dirents *dirents,
                      uint32_t begin, uint32_t end, uint32_t idle) {
    uint32_t entries = 0;
    for (uint32_t offset = begin; offset < end; offset += record_at(dirents, offset)->size) {
        entries++;
    }
    uint32_t parts = entries / SPLIT_ENTRIES_MIN;
    uint32_t parts_max = (idle + 1) * SPLIT_PARTS_PER_IDLE;
    parts = parts < parts_max ? parts : parts_max;
    parts = parts < SPLIT_PARTS_MAX ? parts : SPLIT_PARTS_MAX;
    if (parts < 2) {
        return end;
    }
    uint32_t entries_each = (entries + parts - 1) / parts;
    uint32_t own_end = end;
    uint32_t part_begin = begin;
    uint32_t offset = begin;
    for (uint32_t i = 1; offset < end; i++) {
        offset += record_at(dirents, offset)->size;
        if (i % entries_each != 0 && offset < end) {
            continue;
        }
        if (part_begin == begin) {
            own_end = offset;
        } else {
            push_part(thread, directory, dirents, part_begin, offset);
        }
        part_begin = offset;
    }
    count_add(&thread->counters.splits, 1);
    return own_end;
}

static void list_entries(struct thread *thread, struct directory *directory, handle descriptor,
                         struct dirents *dirents, uint32_t begin, uint32_t end) {
    struct fw_walk *walk = thread->walk;
    set_prefix(thread, directory);
    uint32_t offset = begin;
    for (uint32_t i = 0; offset < end && !walk_ending(walk); i++) {
        if (i % 4 == 0) {
            uint32_t idle = atomic_load_explicit(&walk->idle, memory_order_relaxed);
            if (idle > 0) {
                end = split(thread, directory, dirents, offset, end, idle);
            }
            if (thread_is_surplus(thread)) { /* it parks next; another one takes the rest */
                push_part(thread, directory, dirents, offset, end);
                break;
            }
        }
        const struct record *record = record_at(dirents, offset);
        offset += record->size;
        if (!is_dot_or_dotdot(record->name)) {
            list_entry(thread, directory, descriptor, record);
        }
    }
    rows_report(thread);
}

/* Check the records and find where reading goes on behind the last one. */
static bool records_are_sound(const struct dirents *dirents, uint64_t *cookie) {
    for (uint32_t offset = 0; offset < dirents->size;) {
        const struct record *record = record_at(dirents, offset);
        uint32_t left = dirents->size - offset;
        if (left <= offsetof(struct record, name) || record->size > left ||
            record->size <= offsetof(struct record, name) || record->size % 8 != 0 ||
            memchr(record->name, '\0', record->size - offsetof(struct record, name)) == NULL) {
            return false;
        }
        *cookie = (uint64_t)record->off;
        offset += record->size;
    }
    return true;
}

/* Read one buffer; the number of bytes, 0 at the end, or a negative errno. */
static long read_buffer(struct thread *thread, struct directory *directory, handle descriptor,
                        struct dirents *dirents) {
    struct fw_walk *walk = thread->walk;
    uint64_t began_ns = monotonic_ns();
    long size = walk->source->read(walk, descriptor, dirents);
    timing_end(thread, began_ns);
    if (size <= 0) {
        return size;
    }
    dirents->size = (uint32_t)size;
    return records_are_sound(dirents, &directory->position) ? size : -EIO;
}

static void push_continuation(struct thread *thread, struct directory *directory) {
    struct task task = {
        .kind = TASK_READ, .directory = directory, .cookie = directory->position};
    directory_reference(directory);
    directory_use(directory);
    task_push(thread, &task);
}

/* Read and list an open directory from the cookie on, until its end or a full buffer. Behind a
 * buffer that was not full there is usually nothing more; where there is, the filesystem gives
 * short buffers, and from then on every one is taken for full. */
static void read_directory(struct thread *thread, struct directory *directory, handle descriptor,
                           uint64_t cookie) {
    struct fw_walk *walk = thread->walk;
    bool expect_more = cookie != 0;
    if (directory->position != cookie) {
        int error = walk->source->seek(walk, descriptor, cookie);
        if (error != 0) {
            directory->unread = false;
            list_failed(thread, directory, error);
            return;
        }
        directory->position = cookie;
    }
    while (!walk_ending(walk)) {
        if (walk_stopping(walk)) {
            frontier_add(walk, directory, directory->position);
            return;
        }
        struct dirents *dirents = dirents_take(thread);
        if (dirents == NULL) {
            return;
        }
        long size = read_buffer(thread, directory, descriptor, dirents);
        if (size <= 0) {
            directory->unread = false;
            dirents_give(thread, dirents);
            if (size < 0) {
                list_failed(thread, directory, (int)-size);
            } else {
                count_add(&thread->counters.directories, 1);
            }
            return;
        }
        bool hand_on = expect_more || (uint32_t)size + walk->source->record_bytes_max > DIRENTS_BYTES;
        if (hand_on) {
            push_continuation(thread, directory); /* from here on another thread may read it */
        }
        list_entries(thread, directory, descriptor, dirents, 0, (uint32_t)size);
        dirents_give(thread, dirents);
        if (hand_on) {
            return;
        }
        expect_more = true;
    }
}

/* Whether another directory has taken the place of the one that an earlier walk read in part. Its
 * names would be looked for behind an offset of the other's, and those before it be lost. */
static bool is_replaced(const struct fw_walk *walk, const struct directory *directory) {
    const struct fw_identity *continued = &directory->continued;
    uint64_t device = directory->device ^ walk->source->cookie_mark;
    return (continued->device != 0 || continued->inode != 0) &&
           (continued->device != device || continued->inode != directory->inode);
}

static void run_read(struct thread *thread, struct task *task) {
    struct fw_walk *walk = thread->walk;
    struct directory *directory = task->directory;
    if (walk_stopping(walk)) {
        frontier_add(walk, directory, task->cookie);
        task_drop(walk, task);
        return;
    }
    bool first = !directory->opened;
    handle descriptor;
    int error = directory_enter(thread, directory, &descriptor);
    if (first) {
        directory_unuse(walk, directory->parent);
    }
    if (error == 0) {
        if (!directory->skipped) {
            uint64_t cookie = first && is_replaced(walk, directory) ? 0 : task->cookie;
            read_directory(thread, directory, descriptor, cookie);
        }
        directory_leave(walk, directory);
    } else if (!walk_ending(walk)) {
        list_failed(thread, directory, error);
    }
    directory_unuse(walk, directory);
    directory_release(directory);
}

/* Rows for names that can't be looked at since their directory can't be opened again. */
static void entries_failed(struct thread *thread, const struct task *task, int error) {
    set_prefix(thread, task->directory);
    for (uint32_t offset = task->begin; offset < task->end;) {
        const struct record *record = record_at(task->dirents, offset);
        offset += record->size;
        if (is_dot_or_dotdot(record->name)) {
            continue;
        }
        struct row *row =
            row_new(thread, task->directory, record->name, (uint32_t)strlen(record->name));
        if (row == NULL) {
            return;
        }
        row_set_failed(row, record->ino, DTTOIF(record->type), ROW_STAT_FAILED, error);
        row_finish(thread, row);
    }
    rows_report(thread);
}

static void run_stat(struct thread *thread, struct task *task) {
    struct fw_walk *walk = thread->walk;
    handle descriptor;
    int error = directory_enter(thread, task->directory, &descriptor);
    if (error == 0) {
        list_entries(thread, task->directory, descriptor, task->dirents, task->begin, task->end);
        directory_leave(walk, task->directory);
    } else if (!walk_ending(walk)) {
        entries_failed(thread, task, error);
    }
    task_drop(walk, task);
}

static void run_root_row(struct thread *thread, struct task *task) {
    struct fw_walk *walk = thread->walk;
    struct directory *root = task->directory;
    set_prefix(thread, root);
    struct row *row = row_new(thread, root, NULL, 0);
    if (row != NULL) {
        struct statx attributes;
        int error = walk->source->attributes(walk, root->descriptor, NULL, &attributes);
        if (error != 0) {
            row_set_failed(row, root->inode, S_IFDIR, ROW_STAT_FAILED, error);
        } else {
            row_set_attributes(row, &attributes);
            if (walk_is_excluded(walk, root->device, root->inode)) {
                row->flags |= ROW_EXCLUDED;
            }
        }
        row_finish(thread, row);
        rows_report(thread);
    }
    task_drop(walk, task);
}

void task_run(struct thread *thread, struct task *task) {
    switch (task->kind) {
    case TASK_ROOT_ROW:
        run_root_row(thread, task);
        break;
    case TASK_READ:
        run_read(thread, task);
        break;
    case TASK_STAT:
        run_stat(thread, task);
        break;
    }
}
