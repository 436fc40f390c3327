/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for their deadline.
 *
 * Covers: what each operation costs, the queues of metadata targets, requests by deadline, counts.
 * Does not cover: reading and answering requests (main.c).
 *
 * A target serves `concurrency` operations at once, in the order in which they came (0: any
 * number). Each operation beyond it that is in flight makes service `overload_percent` longer.
 */
#ifndef LATENCY_PENDING_H
#define LATENCY_PENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PENDING_MAX 16384
#define CONCURRENCY_MAX 1024
#define QUEUES_MAX 11 /* TARGETS_MAX and the root above them */
#define REQUEST_BYTES_MAX 512
#define OPCODES_MAX 64
#define DELAY_MAX_US 100000000 /* 100 s */
#define OVERLOAD_PERCENT_MAX 10000
#define NS_PER_US 1000

struct costs {
    uint64_t metadata_us;
    uint64_t read_us;     /* of one READ */
    uint64_t read_mib_us; /* and more for each MiB of it */
    uint64_t concurrency;
    uint64_t overload_percent;
};

struct request {
    uint64_t deadline_ns;
    uint32_t queue; /* NO_QUEUE: none */
    uint32_t length;
    _Alignas(8) char bytes[REQUEST_BYTES_MAX];
};

#define NO_QUEUE UINT32_MAX

struct counts {
    uint64_t operations[OPCODES_MAX];
    uint64_t by_queue[QUEUES_MAX];
    uint64_t bytes_read;
    uint64_t in_flight_high;
};

bool pending_prepare(void);
bool pending_is_full(void);
uint32_t pending_count(void);
uint64_t pending_next_ns(void); /* the earliest deadline; UINT64_MAX if nothing waits */

/* When an operation that arrives now on a target's queue is done. */
uint64_t metadata_deadline(const struct costs *costs, uint32_t queue, uint64_t now_ns);

/* Keep a copy of a request until its deadline. Not if pending_is_full(). */
void pending_add(const void *bytes, uint32_t length, uint32_t queue, uint64_t deadline_ns,
                 struct counts *counts);

/* The request with the earliest deadline, if that has passed. Valid until the next call. */
const struct request *pending_take(uint64_t now_ns);

#endif
