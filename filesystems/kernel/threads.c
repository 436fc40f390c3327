/* SPDX-License-Identifier: Apache-2.0 */
/* The threads of a walk: how many there are, and how many of them work at once.
 *
 * With a fixed number all work from the beginning. Else a few do, and time some of their calls;
 * whichever finds that it is time to looks at what all have done, asks pace.c, and starts, parks
 * or wakes others. It takes no thread of its own, and where all are in slow calls, each looks
 * before it makes another. A parked thread keeps nothing that the walk would wait for.
 */
#include "internal.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Beside the root: a parent and its child pinned, and two descriptors on the way to them. */
#define DESCRIPTORS_PER_THREAD 4u
#define DESCRIPTORS_ON_THE_WAY 2u

#ifndef LOOK_NS /* a test looks more often */
#define LOOK_NS UINT64_C(10000000)
#endif
#define START_THREADS_MAX 8u /* without being asked, however many cores there are */
/* What takes less was answered from a cache, and says nothing about a server or a disk. */
#define WAIT_NS_MIN UINT64_C(50000)
#define UNTIMED_CALLS 15u /* after a quick one; a clock costs as much as a tenth of a call */

static uint32_t cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        return (uint32_t)CPU_COUNT(&set);
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than the set can hold */
    return online > 0 ? (uint32_t)online : 1;
}

static void *thread_main(void *argument) {
    struct thread *thread = argument;
    struct task task;
    while (task_take(thread, &task)) {
        task_run(thread, &task);
        task_done(thread->walk);
    }
    thread_finished(thread);
    return NULL;
}

/* Give the next thread what it needs to hold tasks, so that others may look for some there. */
static int thread_prepare(struct fw_walk *walk) {
    uint32_t index = atomic_load(&walk->threads_ready);
    struct thread *thread = &walk->threads[index];
    thread->walk = walk;
    thread->index = index;
    thread->random = index;
    thread->untimed = walk->adaptive ? 0 : UINT32_MAX;
    thread->prefix = malloc(FW_PATH_BYTES_MAX + 2);
    if (thread->prefix == NULL) {
        return ENOMEM;
    }
    int error = deque_init(&thread->deque);
    if (error != 0) {
        free(thread->prefix);
        return error;
    }
    atomic_store(&walk->threads_ready, index + 1);
    return 0;
}

/* Start a thread that is ready, with all signals blocked: those are the caller's. */
static int thread_start(struct fw_walk *walk, uint32_t index) {
    struct thread *thread = &walk->threads[index];
    sigset_t all;
    sigset_t before;
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0) {
        return error;
    }
    error = pthread_attr_setstacksize(&attributes, walk->source->thread_stack_bytes);
    thread_announced(walk);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    if (error == 0) {
        error = pthread_create(&thread->handle, &attributes, thread_main, thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    thread->started = error == 0;
    if (error != 0) {
        thread_renounced(walk);
    }
    return error;
}

int threads_init(struct fw_walk *walk) {
    const struct fw_options *options = &walk->options;
    uint32_t affordable = (options->descriptors_max - 1) / DESCRIPTORS_PER_THREAD;
    uint32_t wanted = options->threads;
    uint32_t usual = cores();
    usual = usual < START_THREADS_MAX ? usual : START_THREADS_MAX;
    walk->adaptive = wanted == 0;
    if (walk->adaptive) {
        wanted = walk->source->threads_automatic_max;
    }
    walk->threads_max = wanted < affordable ? wanted : affordable;
    uint32_t active = walk->threads_max;
    if (walk->adaptive) {
        bool known = options->threads_start > 0;
        pace_init(&walk->pacing.pace, known ? options->threads_start : usual, known,
                  options->latency_target_ns > 0 ? 1 : usual, walk->threads_max,
                  options->latency_target_ns);
        active = walk->pacing.pace.active;
    }
    atomic_init(&walk->active, active);
    walk->pacing.last_ns = walk->started_ns;
    walk->descriptors.open_max =
        options->descriptors_max - walk->threads_max * DESCRIPTORS_ON_THE_WAY;
    size_t size = walk->threads_max * sizeof *walk->threads;
    walk->threads = aligned_alloc(CACHE_LINE, size);
    if (walk->threads == NULL) {
        return ENOMEM;
    }
    memset(walk->threads, 0, size);
    int error = pthread_mutex_init(&walk->pacing.lock, NULL);
    for (uint32_t i = 0; i < active && error == 0; i++) {
        error = thread_prepare(walk);
    }
    return error;
}

int threads_start(struct fw_walk *walk) {
    int error = 0;
    /* Not threads_ready: the first threads may be making others ready already. */
    uint32_t count = walk->adaptive ? walk->pacing.pace.high : walk->threads_max;
    pthread_mutex_lock(&walk->pacing.lock);
    for (uint32_t i = 0; i < count && error == 0; i++) {
        error = thread_start(walk, i);
    }
    pthread_mutex_unlock(&walk->pacing.lock);
    return error;
}

static void thread_free(struct fw_walk *walk, struct thread *thread) {
    struct deque *deque = &thread->deque;
    for (uint32_t i = 0; i < atomic_load(&deque->count); i++) {
        task_drop(walk, &deque->ring[(deque->head + i) & (deque->capacity - 1)]);
    }
    deque_destroy(deque);
    free(thread->prefix);
    free(thread->spare);
    free(thread->chunk);
}

/* A thread is started by one before it, so whoever might still add to them has been joined. */
void threads_free(struct fw_walk *walk) {
    if (walk->threads == NULL) {
        return;
    }
    for (uint32_t i = 0; i < atomic_load(&walk->threads_ready); i++) {
        if (walk->threads[i].started) {
            pthread_join(walk->threads[i].handle, NULL);
        }
    }
    for (uint32_t i = 0; i < atomic_load(&walk->threads_ready); i++) {
        thread_free(walk, &walk->threads[i]);
    }
    pthread_mutex_destroy(&walk->pacing.lock);
    free(walk->threads);
}

/* Let so many threads work; those that are too many park before their next few calls. */
static void activate(struct fw_walk *walk, uint32_t wanted) {
    struct pace *pace = &walk->pacing.pace;
    for (uint32_t i = atomic_load(&walk->threads_ready); i < wanted; i++) {
        if (thread_prepare(walk) != 0 || thread_start(walk, i) != 0) {
            pace->active = pace->active_max = wanted = i; /* then it must do with these */
        }
    }
    pthread_mutex_lock(&walk->idle_lock);
    uint32_t before = atomic_exchange(&walk->active, wanted);
    /* Also those that wait for tasks: which of them would be woken for one must work. */
    pthread_cond_broadcast(wanted > before ? &walk->unparked : &walk->work);
    pthread_mutex_unlock(&walk->idle_lock);
}

/* Wait until the thread may work, or the walk is over. */
void thread_park(struct thread *thread) {
    struct fw_walk *walk = thread->walk;
    chunk_flush(thread);
    pthread_mutex_lock(&walk->idle_lock);
    while (thread_is_surplus(thread) && atomic_load(&walk->outstanding) > 0 &&
           !walk_ending(walk)) {
        pthread_cond_wait(&walk->unparked, &walk->idle_lock);
    }
    pthread_mutex_unlock(&walk->idle_lock);
}

static uint64_t value_of(const atomic_ullong *counter) {
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static struct pace_totals totals(struct fw_walk *walk, uint64_t now) {
    struct pacing *pacing = &walk->pacing;
    uint64_t idle = atomic_load_explicit(&walk->idle, memory_order_relaxed) +
                    atomic_load_explicit(&walk->queue.blocked, memory_order_relaxed);
    pacing->idle_ns += idle * (now - pacing->last_ns);
    pacing->last_ns = now;
    struct pace_totals totals = {.now_ns = now, .idle_ns = pacing->idle_ns};
    uint32_t count = atomic_load(&walk->threads_ready);
    for (uint32_t i = 0; i < count; i++) {
        const struct counters *counters = &walk->threads[i].counters;
        totals.done += value_of(&counters->entries) + value_of(&counters->directories);
        totals.waits += value_of(&counters->waits);
        totals.wait_ns += value_of(&counters->wait_ns);
    }
    return totals;
}

/* Settle the number of threads if it is time to and no other thread is about it. */
static void look(struct fw_walk *walk, uint64_t now) {
    struct pacing *pacing = &walk->pacing;
    if (now < atomic_load_explicit(&pacing->next_ns, memory_order_relaxed) ||
        pthread_mutex_trylock(&pacing->lock) != 0) {
        return;
    }
    /* Others may have looked since the caller read the clock. */
    if (now >= atomic_load_explicit(&pacing->next_ns, memory_order_relaxed)) {
        struct pace_totals done = totals(walk, now);
        pace_step(&pacing->pace, &done);
        if (pacing->pace.active != atomic_load_explicit(&walk->active, memory_order_relaxed)) {
            activate(walk, pacing->pace.active);
        }
        atomic_store_explicit(&pacing->next_ns, now + LOOK_NS, memory_order_relaxed);
    }
    pthread_mutex_unlock(&pacing->lock);
}

/* A call that began then has come back. */
void timing_end(struct thread *thread, uint64_t began_ns) {
    if (!thread->walk->adaptive) {
        thread->untimed = UINT32_MAX;
        return;
    }
    uint64_t now = monotonic_ns();
    uint64_t took = now - began_ns;
    thread->untimed = took < WAIT_NS_MIN ? UNTIMED_CALLS : 0;
    if (took >= WAIT_NS_MIN) {
        count_add(&thread->counters.waits, 1);
        count_add(&thread->counters.wait_ns, took);
    }
    look(thread->walk, now);
}

void threads_stats(struct fw_walk *walk, struct fw_stats *stats) {
    stats->threads = atomic_load(&walk->threads_ready);
    stats->threads_active = atomic_load(&walk->active);
    stats->threads_high = stats->threads;
    if (walk->adaptive) {
        pthread_mutex_lock(&walk->pacing.lock);
        stats->threads_high = walk->pacing.pace.high;
        stats->backoffs = walk->pacing.pace.backoffs;
        stats->latency_ns = (uint64_t)walk->pacing.pace.latency_ns;
        pthread_mutex_unlock(&walk->pacing.lock);
    }
}
