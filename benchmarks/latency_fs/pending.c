/* SPDX-License-Identifier: Apache-2.0 */
#include "pending.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static struct request *requests; /* touched, and so in memory, only as far as ever used at once */
static uint32_t free_slots[PENDING_MAX];
static uint32_t free_count;
static uint32_t heap[PENDING_MAX]; /* slots, the earliest deadline first */
static uint32_t waiting;
static uint32_t taken = PENDING_MAX; /* the slot given out last, to be freed at the next call */

/* When each server of a queue is free: operations go to its servers in turn. */
static uint64_t free_at_ns[QUEUES_MAX][CONCURRENCY_MAX];
static uint64_t arrived[QUEUES_MAX];
static uint64_t in_flight[QUEUES_MAX];

bool pending_prepare(void) {
    requests = malloc(PENDING_MAX * sizeof *requests);
    while (free_count < PENDING_MAX) {
        free_slots[free_count] = PENDING_MAX - 1 - free_count;
        free_count++;
    }
    return requests != NULL;
}

bool pending_is_full(void) {
    return free_count == 0;
}

uint32_t pending_count(void) {
    return waiting;
}

uint64_t pending_next_ns(void) {
    return waiting == 0 ? UINT64_MAX : requests[heap[0]].deadline_ns;
}

uint64_t metadata_deadline(const struct costs *costs, uint32_t queue, uint64_t now_ns) {
    assert(queue < QUEUES_MAX);
    uint64_t servers = costs->concurrency;
    uint64_t service_ns = costs->metadata_us * NS_PER_US;
    if (servers == 0) {
        return now_ns + service_ns;
    }
    uint64_t present = in_flight[queue] + 1;
    uint64_t beyond = present > servers ? present - servers : 0;
    service_ns += service_ns / 100 * beyond * costs->overload_percent;
    uint64_t *server = &free_at_ns[queue][arrived[queue]++ % servers];
    *server = (*server > now_ns ? *server : now_ns) + service_ns;
    return *server;
}

static bool earlier(uint32_t a, uint32_t b) {
    return requests[a].deadline_ns < requests[b].deadline_ns;
}

void pending_add(const void *bytes, uint32_t length, uint32_t queue, uint64_t deadline_ns,
                 struct counts *counts) {
    assert(length <= REQUEST_BYTES_MAX && !pending_is_full());
    uint32_t slot = free_slots[--free_count];
    struct request *request = &requests[slot];
    request->deadline_ns = deadline_ns;
    request->queue = queue;
    request->length = length;
    memcpy(request->bytes, bytes, length);
    if (queue != NO_QUEUE) {
        in_flight[queue]++;
    }
    uint32_t at = waiting++;
    for (; at > 0 && earlier(slot, heap[(at - 1) / 2]); at = (at - 1) / 2) {
        heap[at] = heap[(at - 1) / 2];
    }
    heap[at] = slot;
    if (waiting > counts->in_flight_high) {
        counts->in_flight_high = waiting;
    }
}

const struct request *pending_take(uint64_t now_ns) {
    if (taken != PENDING_MAX) {
        free_slots[free_count++] = taken;
        taken = PENDING_MAX;
    }
    if (waiting == 0 || requests[heap[0]].deadline_ns > now_ns) {
        return NULL;
    }
    taken = heap[0];
    uint32_t last = heap[--waiting], at = 0, below;
    while ((below = 2 * at + 1) < waiting) {
        if (below + 1 < waiting && earlier(heap[below + 1], heap[below])) {
            below++;
        }
        if (!earlier(heap[below], last)) {
            break;
        }
        heap[at] = heap[below];
        at = below;
    }
    heap[at] = last;
    if (requests[taken].queue != NO_QUEUE) {
        in_flight[requests[taken].queue]--;
    }
    return &requests[taken];
}
