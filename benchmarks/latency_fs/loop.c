/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "loop.h"

#include "control.h"

#include <errno.h>
#include <linux/fuse.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RECEIVE_BYTES (READ_BYTES_MAX + 65536)
#define RECEIVE_BURST 64      /* requests received before deadlines are looked at again */
#define UNASKED_ROUNDS_MAX 64 /* rounds with work before stdin is looked at again */
#define NS_PER_S 1000000000

/* From so many requests in flight on, the server wakes once in a tick, not for each arrival and
 * each deadline: that halves its CPU. An operation then takes up to two ticks longer, never less.
 */
#define TICKING_FROM 8
#define TICK_NS 20000

#ifndef PARALLEL_DIROPS
#define PARALLEL_DIROPS 1
#endif

volatile sig_atomic_t stopping;
static bool introducing; /* the INIT request is being answered */

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

/* Without FUSE_PARALLEL_DIROPS Linux allows one LOOKUP or READDIR per directory at a time. libfuse
 * up to 3.16 cannot ask for it, so it is set in the answer to INIT, whatever the version. */
static ssize_t write_answer(int device, struct iovec *parts, int count, void *data) {
    (void)data;
    if (introducing && count == 2 && parts[1].iov_len >= FUSE_COMPAT_22_INIT_OUT_SIZE) {
        struct fuse_init_out *answer = parts[1].iov_base;
        if (PARALLEL_DIROPS) {
            answer->flags |= FUSE_PARALLEL_DIROPS;
        }
    }
    return writev(device, parts, count);
}

static ssize_t read_request(int device, void *buffer, size_t size, void *data) {
    (void)data;
    return read(device, buffer, size);
}

struct fuse_session *session_on(int device) {
    static const struct fuse_custom_io io = {.writev = write_answer, .read = read_request};
    static char *words[] = {"latency_fs", NULL};
    struct fuse_args arguments = FUSE_ARGS_INIT(1, words);
    struct fuse_lowlevel_ops operations = handlers();
    struct fuse_session *session =
        fuse_session_new(&arguments, &operations, sizeof operations, NULL);
    if (session == NULL || fuse_session_custom_io(session, &io, device) != 0) {
        fail("libfuse", "no session");
    }
    return session;
}

static void handle(struct fuse_session *session, const void *bytes, size_t length) {
    /* libfuse does not write to it. */
    struct fuse_buf buffer = {.size = length, .mem = (void *)(uintptr_t)bytes};
    fuse_session_process_buf(session, &buffer);
}

/* Whose queue an operation on this inode goes to. */
static uint32_t queue_of(uint64_t inode) {
    struct node node;
    return node_at(&serving.shape, inode, &node) ? node.target : 0;
}

/* Handle a request now, if it costs nothing, or keep it until its deadline. */
static void receive(struct fuse_session *session, const char *bytes, size_t length) {
    struct fuse_in_header header;
    memcpy(&header, bytes, sizeof header);
    counts.operations[header.opcode < OPCODES_MAX ? header.opcode : 0]++;
    uint64_t now = now_ns();
    uint32_t queue = NO_QUEUE;
    uint64_t deadline;
    switch (header.opcode) {
    case FUSE_INTERRUPT: /* every request is answered soon anyway */
        return;
    case FUSE_INIT:
        introducing = true;
        handle(session, bytes, length);
        introducing = false;
        return;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_RELEASE:
    case FUSE_RELEASEDIR:
    case FUSE_FLUSH:
    case FUSE_STATFS:
    case FUSE_IOCTL: /* ENOSYS; no operation on a server elsewhere either */
    case FUSE_LSEEK:
    case STATX_OPCODE: /* libfuse answers ENOSYS, and Linux never asks again */
    case FUSE_DESTROY:
        handle(session, bytes, length);
        return;
    case FUSE_READ: {
        struct fuse_read_in asked;
        if (length < sizeof header + sizeof asked) {
            fail("READ", "a request is too short");
        }
        memcpy(&asked, bytes + sizeof header, sizeof asked);
        counts.bytes_read += asked.size;
        deadline = now + costs.read_us * NS_PER_US +
                   costs.read_mib_us * NS_PER_US * asked.size / (1 << 20);
        break;
    }
    default:
        queue = queue_of(header.nodeid);
        counts.by_queue[queue]++;
        deadline = metadata_deadline(&costs, queue, now);
    }
    if (length > REQUEST_BYTES_MAX) { /* none that a read-only filesystem without links gets */
        fail("receive", "a request is too long");
    }
    pending_add(bytes, (uint32_t)length, queue, deadline, &counts);
}

/* Receive what is there. The number of requests, or -1 when the filesystem is unmounted. */
static int receive_all(struct fuse_session *session, int device) {
    static char buffer[RECEIVE_BYTES];
    int received = 0;
    while (received < RECEIVE_BURST && !pending_is_full()) {
        ssize_t got = read(device, buffer, sizeof buffer);
        if (got < 0 && errno == EAGAIN) {
            return received;
        }
        if (got < 0 && (errno == EINTR || errno == ENOENT)) { /* ENOENT: withdrawn by the client */
            continue;
        }
        if (got < 0 && errno == ENODEV) {
            return -1;
        }
        if (got < (ssize_t)sizeof(struct fuse_in_header)) {
            fail("reading a request", strerror(errno));
        }
        receive(session, buffer, (size_t)got);
        received++;
    }
    return received;
}

/* Sleep until there is something to receive, a deadline or tick passes, or a command comes; not at
 * all if `busy`. False if stdin has ended. */
static bool wait_for_work(int device, uint64_t now, bool busy) {
    struct pollfd waited[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                              {.fd = device, .events = POLLIN}};
    bool ticking = busy || pending_count() >= TICKING_FROM;
    uint64_t next = pending_next_ns();
    uint64_t left = busy ? 0 : ticking ? TICK_NS : next > now ? next - now : 0;
    struct timespec timeout = {.tv_sec = (time_t)(left / NS_PER_S),
                               .tv_nsec = (long)(left % NS_PER_S)};
    bool until = ticking || next != UINT64_MAX;
    if (ppoll(waited, ticking ? 1 : 2, until ? &timeout : NULL, NULL) < 0 && errno != EINTR) {
        fail("ppoll", strerror(errno));
    }
    return waited[0].revents == 0 || take_commands();
}

bool serve(struct fuse_session *session, int device) {
    int rounds = 0;
    while (!stopping) {
        int worked = receive_all(session, device);
        if (worked < 0) {
            return true;
        }
        uint64_t now = now_ns();
        const struct request *due;
        for (; (due = pending_take(now)) != NULL; worked++) {
            handle(session, due->bytes, due->length);
        }
        rounds = worked > 0 ? rounds + 1 : 0;
        if (rounds % UNASKED_ROUNDS_MAX == 0 && !wait_for_work(device, now, worked > 0)) {
            return false;
        }
    }
    return false;
}
