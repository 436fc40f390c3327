/* SPDX-License-Identifier: Apache-2.0 */
/* How many threads should work at once: a pure state machine, without clock, threads or locks.
 *
 * Covers: totals of what was done so far in, a number of threads out. build_kernel.py gives it to
 * cffi as well, so that tests can drive it with simulated servers.
 * Does not cover: measuring (timing.c), starting and parking threads (threads.c).
 */
#ifndef FOREBAY_PACE_H
#define FOREBAY_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* cdef begin */
/* What has been done since the beginning, by all threads. */
struct pace_totals {
    uint64_t now_ns;
    uint64_t done;    /* rows made, directories read */
    uint64_t waits;   /* calls that waited for a server or a disk, of those that were timed */
    uint64_t wait_ns; /* how long they took together */
    uint64_t idle_ns; /* how long active threads had no work, or no room for their rows */
};

struct pace_window {
    uint64_t elapsed_ns, done, waits, idle_ns;
    double rate;       /* done per ns */
    double latency_ns; /* of the calls that waited; 0: none did */
};

enum pace_trial {
    PACE_NONE,
    PACE_CLIMB,   /* doubling, at the beginning and after every success */
    PACE_ROUTINE, /* a few more or fewer */
    PACE_HALVING  /* since calls became slower */
};

struct pace {
    uint32_t active; /* the result */
    uint32_t active_min, active_max;
    double target_ns; /* 0: none */

    uint32_t high;       /* most that were active */
    uint32_t backoffs;   /* times the number was halved because calls took too long */
    double latency_ns;   /* smoothed */

    enum pace_trial trial;
    uint32_t before;     /* the number that a trial is compared with */
    double rate_before;
    uint32_t slow;       /* windows in a row in which they were */
    uint32_t ceiling;    /* up to here the number creeps up again, which it reached before */
    bool climbing;       /* nothing is known yet: double the number */
    bool upwards;        /* the next routine trial */
    double rate_held;    /* since this number of threads was settled on, smoothed; 0: not known */
    double latency_held; /* when it was settled on */
    uint64_t hold_ns, hold_until_ns;
    uint64_t settled_ns; /* what was done before belongs to another number of threads */
    bool begun;
    struct pace_totals begin; /* of the window */
};

/* known: the start is where an earlier walk ended, not a mere guess. */
void pace_init(struct pace *pace, uint32_t start, bool known, uint32_t active_min,
               uint32_t active_max, uint64_t target_ns);
/* Look at the totals, which never fall, and settle pace->active. Call it every 10 to 50 ms. */
void pace_step(struct pace *pace, const struct pace_totals *totals);
/* cdef end */

#endif
