/* SPDX-License-Identifier: Apache-2.0 */
/* Directories in memory and the bound on open descriptors.
 *
 * A directory stays open until its last child has been opened and its last entry is done. Beyond
 * the bound the least recently used one that no thread is in is closed, those already read before
 * those that are not, and opened again when a task comes back to it. Threads inside directories
 * hold at most two each (a parent and the child being opened), and the bound is above that, so
 * there is always one to close. Where the process or the system has none left all the same, a
 * thread gives back what it holds and waits for its turn; no subtree is lost for it.
 */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

int descriptors_init(struct descriptors *descriptors) {
    pthread_condattr_t attributes;
    int error = pthread_condattr_init(&attributes);
    if (error != 0) {
        return error;
    }
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    error = pthread_cond_init(&descriptors->released, &attributes);
    pthread_condattr_destroy(&attributes);
    if (error == 0) {
        error = pthread_mutex_init(&descriptors->lock, NULL);
    }
    if (error == 0) {
        error = pthread_mutex_init(&descriptors->scarce, NULL);
    }
    return error;
}

void descriptors_destroy(struct descriptors *descriptors) {
    pthread_mutex_destroy(&descriptors->scarce);
    pthread_mutex_destroy(&descriptors->lock);
    pthread_cond_destroy(&descriptors->released);
}

/* Make a directory with one reference and one use; the parent gets a reference. */
struct directory *directory_new(struct directory *parent, const char *name, uint32_t name_size) {
    struct directory *directory = calloc(1, sizeof *directory + name_size + 1);
    if (directory == NULL) {
        return NULL;
    }
    atomic_init(&directory->references, 1);
    atomic_init(&directory->uses, 1);
    directory->descriptor = HANDLE_NONE;
    directory->unread = true;
    directory->name_size = name_size;
    memcpy(directory->name, name, name_size);
    if (parent != NULL) {
        directory_reference(parent);
        directory->parent = parent;
        directory->parent_inode = parent->inode;
        directory->path_size = parent->path_size + (parent->path_size > 0) + name_size;
        directory->depth = (uint16_t)(parent->depth + 1);
    }
    return directory;
}

void directory_reference(struct directory *directory) {
    atomic_fetch_add_explicit(&directory->references, 1, memory_order_relaxed);
}

/* A loop, not a recursion: a chain may be 32,767 directories deep. */
void directory_release(struct directory *directory) {
    while (directory != NULL && atomic_fetch_sub(&directory->references, 1) == 1) {
        struct directory *parent = directory->parent;
        free(directory);
        directory = parent;
    }
}

/* The lists; the lock is held. */
static void list_add(struct descriptors *descriptors, struct directory *directory) {
    int which = directory->unread;
    directory->next = NULL;
    directory->previous = descriptors->last[which];
    *(directory->previous ? &directory->previous->next : &descriptors->first[which]) = directory;
    descriptors->last[which] = directory;
}

static void list_remove(struct descriptors *descriptors, struct directory *directory) {
    int which = directory->unread;
    *(directory->previous ? &directory->previous->next : &descriptors->first[which]) =
        directory->next;
    *(directory->next ? &directory->next->previous : &descriptors->last[which]) =
        directory->previous;
    directory->previous = directory->next = NULL;
}

static void pin(struct descriptors *descriptors, struct directory *directory) {
    if (directory->pins++ == 0) {
        descriptors->pinned++;
        if (directory->descriptor != HANDLE_NONE) {
            list_remove(descriptors, directory);
        }
    }
}

/* Take the descriptor of a directory that nobody needs or that is to make room. */
static handle detach(struct descriptors *descriptors, struct directory *directory) {
    handle descriptor = directory->descriptor;
    directory->descriptor = HANDLE_NONE;
    descriptors->open--;
    return descriptor;
}

static handle detach_oldest(struct descriptors *descriptors) {
    for (int which = 0; which < 2; which++) {
        struct directory *directory = descriptors->first[which];
        if (directory != NULL) {
            list_remove(descriptors, directory);
            return detach(descriptors, directory);
        }
    }
    return HANDLE_NONE;
}

/* Close outside the lock: on a network filesystem it may be a message. */
static void close_detached(struct fw_walk *walk, handle descriptor) {
    struct descriptors *descriptors = &walk->descriptors;
    if (descriptor != HANDLE_NONE) {
        walk->source->close(walk, descriptor);
        pthread_mutex_lock(&descriptors->lock);
        pthread_cond_broadcast(&descriptors->released);
        pthread_mutex_unlock(&descriptors->lock);
    }
}

static void unpin(struct fw_walk *walk, struct directory *directory) {
    struct descriptors *descriptors = &walk->descriptors;
    handle descriptor = HANDLE_NONE;
    pthread_mutex_lock(&descriptors->lock);
    if (--directory->pins == 0) {
        descriptors->pinned--;
        if (directory->descriptor != HANDLE_NONE) {
            if (atomic_load(&directory->uses) == 0) {
                descriptor = detach(descriptors, directory);
            } else {
                list_add(descriptors, directory);
            }
        }
    }
    pthread_mutex_unlock(&descriptors->lock);
    close_detached(walk, descriptor);
}

void directory_use(struct directory *directory) {
    atomic_fetch_add_explicit(&directory->uses, 1, memory_order_relaxed);
}

/* The last use closes the descriptor, unless another thread is passing through it just now. */
void directory_unuse(struct fw_walk *walk, struct directory *directory) {
    struct descriptors *descriptors = &walk->descriptors;
    if (atomic_fetch_sub(&directory->uses, 1) != 1) {
        return;
    }
    handle descriptor = HANDLE_NONE;
    pthread_mutex_lock(&descriptors->lock);
    if (directory->pins == 0 && directory->descriptor != HANDLE_NONE) {
        list_remove(descriptors, directory);
        descriptor = detach(descriptors, directory);
    }
    pthread_mutex_unlock(&descriptors->lock);
    close_detached(walk, descriptor);
}

/* Make room for one more descriptor; false: every open one has a thread in it. */
static bool slot_take(struct fw_walk *walk) {
    struct descriptors *descriptors = &walk->descriptors;
    handle descriptor = HANDLE_NONE;
    pthread_mutex_lock(&descriptors->lock);
    bool room = descriptors->open < descriptors->open_max;
    if (!room) {
        descriptor = detach_oldest(descriptors);
        room = descriptor != HANDLE_NONE;
    }
    if (room) {
        descriptors->open++;
        if (descriptors->open > descriptors->open_high) {
            descriptors->open_high = descriptors->open;
        }
    }
    pthread_mutex_unlock(&descriptors->lock);
    close_detached(walk, descriptor);
    return room;
}

static void slot_give(struct descriptors *descriptors) {
    pthread_mutex_lock(&descriptors->lock);
    descriptors->open--;
    pthread_cond_broadcast(&descriptors->released);
    pthread_mutex_unlock(&descriptors->lock);
}

/* Open a directory that is pinned and closed, through its nearest open ancestor. */
static int reopen(struct thread *thread, struct directory *directory, handle *opened) {
    struct fw_walk *walk = thread->walk;
    struct descriptors *descriptors = &walk->descriptors;
    if (!slot_take(walk)) {
        return EMFILE;
    }
    pthread_mutex_lock(&descriptors->lock);
    struct directory *ancestor = directory->parent;
    while (ancestor->descriptor == HANDLE_NONE) {
        ancestor = ancestor->parent; /* ends at the root, which is always open */
    }
    pin(descriptors, ancestor);
    handle base = ancestor->descriptor;
    pthread_mutex_unlock(&descriptors->lock);

    int error;
    if (directory->opened) {
        error = open_again(walk, directory, ancestor, base, opened);
        count_add(&thread->counters.reopened, 1);
    } else {
        error = open_first(walk, directory, base, opened);
    }
    unpin(walk, ancestor);
    if (error != 0) {
        slot_give(descriptors);
    }
    return error;
}

/* Pin a directory and see that it is open. */
static int enter(struct thread *thread, struct directory *directory, handle *descriptor) {
    struct fw_walk *walk = thread->walk;
    struct descriptors *descriptors = &walk->descriptors;
    pthread_mutex_lock(&descriptors->lock);
    pin(descriptors, directory);
    *descriptor = directory->descriptor;
    pthread_mutex_unlock(&descriptors->lock);
    if (*descriptor != HANDLE_NONE) {
        return 0;
    }
    handle opened = HANDLE_NONE;
    int error = reopen(thread, directory, &opened);
    if (error != 0) {
        unpin(walk, directory);
        return error;
    }
    pthread_mutex_lock(&descriptors->lock);
    bool surplus = directory->descriptor != HANDLE_NONE; /* another thread was faster */
    if (surplus) {
        descriptors->open--;
    } else {
        directory->descriptor = opened;
        directory->position = 0;
    }
    *descriptor = directory->descriptor;
    pthread_mutex_unlock(&descriptors->lock);
    close_detached(walk, surplus ? opened : HANDLE_NONE);
    return 0;
}

static int enter_once(struct thread *thread, struct directory *directory, handle *descriptor) {
    if (directory->opened) {
        return enter(thread, directory, descriptor);
    }
    /* The parent first: it has more children to come, so it pays to have it open itself. */
    handle parent;
    int error = enter(thread, directory->parent, &parent);
    if (error == 0) {
        error = enter(thread, directory, descriptor);
        unpin(thread->walk, directory->parent);
    }
    return error;
}

static bool is_scarcity(int error) {
    return error == EMFILE || error == ENFILE;
}

/* Free a descriptor or wait for one; false when waiting has lasted too long. Time counts only
 * while no thread of this walk is in a directory: those that are will come out of it. Only the
 * first try goes without waiting, since what is freed may be what this thread just opened. */
static bool wait_for_descriptor(struct fw_walk *walk, bool first, uint32_t *waited_ms) {
    struct descriptors *descriptors = &walk->descriptors;
    pthread_mutex_lock(&descriptors->lock);
    handle descriptor = detach_oldest(descriptors);
    if (descriptor != HANDLE_NONE) {
        pthread_mutex_unlock(&descriptors->lock);
        close_detached(walk, descriptor);
        pthread_mutex_lock(&descriptors->lock);
    }
    if ((descriptor == HANDLE_NONE || !first) && !walk_ending(walk)) {
        bool alone = descriptors->pinned <= 1; /* the root is always pinned */
        struct timespec deadline;
        deadline_after(&deadline, DESCRIPTOR_WAIT_MS);
        int result =
            pthread_cond_timedwait(&descriptors->released, &descriptors->lock, &deadline);
        if (result == ETIMEDOUT && alone) {
            *waited_ms += DESCRIPTOR_WAIT_MS;
        }
    }
    pthread_mutex_unlock(&descriptors->lock);
    return *waited_ms < DESCRIPTOR_WAIT_MS_MAX;
}

/* Open (if need be) and pin a directory; 0 or the errno for which it can't be listed. */
int directory_enter(struct thread *thread, struct directory *directory, handle *descriptor) {
    struct fw_walk *walk = thread->walk;
    int error = enter_once(thread, directory, descriptor);
    if (is_scarcity(error)) {
        uint32_t waited_ms = 0;
        pthread_mutex_lock(&walk->descriptors.scarce);
        for (bool first = true; is_scarcity(error) && !walk_ending(walk); first = false) {
            if (!wait_for_descriptor(walk, first, &waited_ms)) {
                walk_end(walk, error);
                break;
            }
            error = enter_once(thread, directory, descriptor);
        }
        pthread_mutex_unlock(&walk->descriptors.scarce);
    }
    if (error == 0 && !directory->opened) {
        directory->opened = true; /* by its reader, before any other task of it exists */
    }
    return error;
}

void directory_leave(struct fw_walk *walk, struct directory *directory) {
    unpin(walk, directory);
}

/* Write the path from the root, without a terminator; at most FW_PATH_BYTES_MAX bytes. */
void directory_path(const struct directory *directory, char *path) {
    uint32_t end = directory->path_size;
    for (; directory->path_size > 0; directory = directory->parent) {
        end -= directory->name_size;
        memcpy(path + end, directory->name, directory->name_size);
        if (end > 0) {
            path[--end] = '/';
        }
    }
}
