/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Threads inside somebody else's daemon: no signal reaches them, their stacks are
 * small, and their conditions go by the monotonic clock.
 */
#ifndef FOREBAY_THREADS_H
#define FOREBAY_THREADS_H

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define FB_THREAD_STACK_BYTES ((size_t)1 << 20)

/* 0 or an errno, as pthread_create. */
static inline int fb_thread_start(pthread_t *thread, void *(*main)(void *), void *argument) {
  pthread_attr_t attributes;
  sigset_t all, before;
  int rc = pthread_attr_init(&attributes);
  if (rc != 0)
    return rc;
  pthread_attr_setstacksize(&attributes, FB_THREAD_STACK_BYTES);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  rc = pthread_create(thread, &attributes, main, argument);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  return rc;
}

static inline void fb_condition_init(pthread_cond_t *condition) {
  pthread_condattr_t attributes;
  pthread_condattr_init(&attributes);
  pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
  pthread_cond_init(condition, &attributes);
  pthread_condattr_destroy(&attributes);
}

static inline void fb_condition_wait_ms(pthread_cond_t *condition, pthread_mutex_t *lock,
                                        long timeout_ms) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  t.tv_sec += timeout_ms / 1000;
  t.tv_nsec += timeout_ms % 1000 * 1000000L;
  if (t.tv_nsec >= 1000000000L) {
    t.tv_sec++;
    t.tv_nsec -= 1000000000L;
  }
  pthread_cond_timedwait(condition, lock, &t);
}

#endif
