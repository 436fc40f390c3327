/* SPDX-License-Identifier: Apache-2.0 */
/* Work stealing: a deque of tasks per thread, the owner takes the newest, thieves the oldest.
 *
 * Own work is depth-first, so what waits is bounded by the entries of one buffer times the depth;
 * the oldest task of a victim is the one with most work behind it.
 */
#include "internal.h"

#include <stdlib.h>

#define DEQUE_TASKS_INITIAL 256u

int deque_init(struct deque *deque) {
    deque->ring = malloc(DEQUE_TASKS_INITIAL * sizeof *deque->ring);
    if (deque->ring == NULL) {
        return ENOMEM;
    }
    deque->capacity = DEQUE_TASKS_INITIAL;
    deque->head = 0;
    atomic_init(&deque->count, 0);
    atomic_init(&deque->high, 0);
    return pthread_mutex_init(&deque->lock, NULL);
}

void deque_destroy(struct deque *deque) {
    if (deque->ring != NULL) {
        free(deque->ring);
        pthread_mutex_destroy(&deque->lock);
    }
}

/* Double the ring; the lock is held. */
static bool deque_grow(struct deque *deque) {
    uint32_t count = atomic_load_explicit(&deque->count, memory_order_relaxed);
    if (deque->capacity > UINT32_MAX / 2) {
        return false;
    }
    struct task *ring = malloc((size_t)deque->capacity * 2 * sizeof *ring);
    if (ring == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < count; i++) {
        ring[i] = deque->ring[(deque->head + i) & (deque->capacity - 1)];
    }
    free(deque->ring);
    deque->ring = ring;
    deque->capacity *= 2;
    deque->head = 0;
    return true;
}

static bool deque_add(struct deque *deque, const struct task *task) {
    bool added = true;
    pthread_mutex_lock(&deque->lock);
    uint32_t count = atomic_load_explicit(&deque->count, memory_order_relaxed);
    if (count == deque->capacity) {
        added = deque_grow(deque);
    }
    if (added) {
        deque->ring[(deque->head + count) & (deque->capacity - 1)] = *task;
        count++;
        atomic_store_explicit(&deque->count, count, memory_order_relaxed);
        if (count > atomic_load_explicit(&deque->high, memory_order_relaxed)) {
            atomic_store_explicit(&deque->high, count, memory_order_relaxed);
        }
    }
    pthread_mutex_unlock(&deque->lock);
    return added;
}

static bool deque_remove(struct fw_walk *walk, struct deque *deque, bool newest,
                         struct task *task) {
    if (atomic_load_explicit(&deque->count, memory_order_relaxed) == 0) {
        return false;
    }
    pthread_mutex_lock(&deque->lock);
    uint32_t count = atomic_load_explicit(&deque->count, memory_order_relaxed);
    if (count > 0) {
        uint32_t position = newest ? deque->head + count - 1 : deque->head;
        *task = deque->ring[position & (deque->capacity - 1)];
        if (!newest) {
            deque->head = (deque->head + 1) & (deque->capacity - 1);
        }
        atomic_store_explicit(&deque->count, count - 1, memory_order_relaxed);
        atomic_fetch_sub(&walk->queued, 1);
    }
    pthread_mutex_unlock(&deque->lock);
    return count > 0;
}

/* Takes over the task's reference and uses, also when it fails (then the walk is over). */
void task_push(struct thread *thread, const struct task *task) {
    struct fw_walk *walk = thread->walk;
    atomic_fetch_add(&walk->outstanding, 1);
    /* Counted before it can be taken, so that the count never falls below zero. */
    atomic_fetch_add(&walk->queued, 1);
    if (!deque_add(&thread->deque, task)) {
        struct task dropped = *task;
        atomic_fetch_sub(&walk->queued, 1);
        walk_end(walk, ENOMEM);
        task_drop(walk, &dropped);
        task_done(walk);
        return;
    }
    /* Pairs with idle_wait: it raises idle and then looks at queued, here it is the other way
     * round, both sequentially consistent, so one of the two sees the other. */
    if (atomic_load(&walk->idle) > 0) {
        pthread_mutex_lock(&walk->idle_lock);
        pthread_cond_signal(&walk->work);
        pthread_mutex_unlock(&walk->idle_lock);
    }
}

static bool steal(struct thread *thread, struct task *task) {
    struct fw_walk *walk = thread->walk;
    uint32_t count = atomic_load(&walk->threads_ready);
    thread->random = mix64(thread->random, 0);
    uint32_t victim = (uint32_t)(thread->random % count);
    for (uint32_t i = 0; i < count; i++, victim = victim + 1 == count ? 0 : victim + 1) {
        struct thread *other = &walk->threads[victim];
        if (other != thread && deque_remove(walk, &other->deque, false, task)) {
            count_add(&thread->counters.steals, 1);
            return true;
        }
    }
    return false;
}

/* Wait for a task to appear anywhere; false when there will be none. */
static bool idle_wait(struct thread *thread) {
    struct fw_walk *walk = thread->walk;
    pthread_mutex_lock(&walk->idle_lock);
    atomic_fetch_add(&walk->idle, 1);
    while (atomic_load(&walk->queued) == 0 && atomic_load(&walk->outstanding) > 0 &&
           !walk_ending(walk) && !thread_is_surplus(thread)) {
        pthread_cond_wait(&walk->work, &walk->idle_lock);
    }
    atomic_fetch_sub(&walk->idle, 1);
    pthread_mutex_unlock(&walk->idle_lock);
    return atomic_load(&walk->outstanding) > 0 && !walk_ending(walk);
}

bool task_take(struct thread *thread, struct task *task) {
    struct fw_walk *walk = thread->walk;
    while (!walk_ending(walk)) {
        if (thread_is_surplus(thread)) {
            thread_park(thread);
        }
        if (deque_remove(walk, &thread->deque, true, task) || steal(thread, task)) {
            return true;
        }
        if (!idle_wait(thread)) {
            return false;
        }
    }
    return false;
}

/* Call after the task has pushed whatever follows from it; the last one wakes everybody. */
void task_done(struct fw_walk *walk) {
    if (atomic_fetch_sub(&walk->outstanding, 1) == 1) {
        pthread_mutex_lock(&walk->idle_lock);
        pthread_cond_broadcast(&walk->work);
        pthread_cond_broadcast(&walk->unparked);
        pthread_mutex_unlock(&walk->idle_lock);
    }
}

void dirents_release(struct dirents *dirents) {
    if (dirents != NULL && atomic_fetch_sub(&dirents->references, 1) == 1) {
        free(dirents);
    }
}

/* Give back what a task owns without running it. */
void task_drop(struct fw_walk *walk, struct task *task) {
    struct directory *directory = task->directory;
    if (task->kind == TASK_READ && !directory->opened) {
        directory_unuse(walk, directory->parent);
    }
    dirents_release(task->dirents);
    directory_unuse(walk, directory);
    directory_release(directory);
}
