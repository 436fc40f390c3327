/* SPDX-License-Identifier: Apache-2.0 */
/* Receive requests, and have each handled when its deadline has passed.
 *
 * Covers: what each kind of request costs, waiting, INIT's answer.
 * Does not cover: the answers (handlers.c), deadlines (pending.c).
 *
 * No handler ever sleeps: any number of requests may be in flight. One thread does it all: two
 * system calls take nearly all the CPU of an operation, and a second thread would add the cost of
 * waking it.
 */
#ifndef LATENCY_LOOP_H
#define LATENCY_LOOP_H

#include "handlers.h"

#include <signal.h>

extern volatile sig_atomic_t stopping;

/* The session on a device (opened with O_NONBLOCK). */
struct fuse_session *session_on(int device);

/* Serve until the filesystem is unmounted (true), or stdin ends or `stopping` is set (false). */
bool serve(struct fuse_session *session, int device);

#endif
