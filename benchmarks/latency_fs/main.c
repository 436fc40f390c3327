/* SPDX-License-Identifier: Apache-2.0 */
/* A FUSE filesystem whose operations take the time they are told to.
 *
 * Covers: options, the mount, its end.
 * Does not cover: the loop (loop.c), the names (namespace.c), the answers (handlers.c).
 *
 * The server lives as long as its stdin: at its end it unmounts. It prints one JSON object per
 * line.
 */
#include "control.h"
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#define TIMER_SLACK_NS 1000

static void stop(int number) {
    (void)number;
    stopping = 1;
}

static uint64_t number_of(const char *name, const char *text, uint64_t most) {
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value > most) {
        fail(name, "not a number in range");
    }
    return value;
}

static const char *take_options(int argc, char **argv) {
    const struct {
        const char *name;
        uint64_t most;
        uint64_t *value;
    } numbers[] = {
        {"targets", TARGETS_MAX, &serving.shape.targets},
        {"fanout", FANOUT_MAX, &serving.shape.fanout},
        {"depth", DEPTH_MAX, &serving.shape.depth},
        {"files", FANOUT_MAX, &serving.shape.files},
        {"size-bytes", (uint64_t)1 << 50, &serving.shape.size_bytes},
        {"timeout-ms", DELAY_MAX_US, &serving.timeout_ms},
        {"readdirplus", 1, &serving.readdirplus},
        {"page-cache", 1, &serving.page_cache},
        {"metadata-us", DELAY_MAX_US, &costs.metadata_us},
        {"read-us", DELAY_MAX_US, &costs.read_us},
        {"read-mib-us", DELAY_MAX_US, &costs.read_mib_us},
        {"concurrency", CONCURRENCY_MAX, &costs.concurrency},
        {"overload-percent", OVERLOAD_PERCENT_MAX, &costs.overload_percent},
    };
    enum { COUNT = sizeof numbers / sizeof numbers[0] };
    struct option known[COUNT + 1] = {0};
    for (int at = 0; at < COUNT; at++) {
        known[at] = (struct option){numbers[at].name, required_argument, NULL, 0};
    }
    int at;
    while (getopt_long(argc, argv, "", known, &at) == 0) {
        *numbers[at].value = number_of(numbers[at].name, optarg, numbers[at].most);
    }
    if (optind != argc - 1) {
        fail("usage", "latency_fs [--OPTION NUMBER]... MOUNTPOINT");
    }
    return argv[optind];
}

/* The server stands for another machine: this one's load must not make it slower. Where that is not
 * permitted, clients that it wakes take the CPU from it. */
static bool prefer_this_process(void) {
    struct sched_param lowest = {.sched_priority = sched_get_priority_min(SCHED_FIFO)};
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS);
    return sched_setscheduler(0, SCHED_FIFO, &lowest) == 0;
}

static void mount_on(const char *mountpoint, int device) {
    char data[160];
    snprintf(
        data, sizeof data,
        "fd=%d,rootmode=40000,user_id=%u,group_id=%u,default_permissions,allow_other,max_read=%d",
        device, getuid(), getgid(), READ_BYTES_MAX);
    if (mount("forebay-latency", mountpoint, "fuse.forebay-latency",
              MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME, data) != 0) {
        fail(mountpoint, strerror(errno));
    }
}

int main(int argc, char **argv) {
    const char *mountpoint = take_options(argc, argv);
    const char *wrong = shape_complete(&serving.shape);
    if (wrong != NULL) {
        fail("shape", wrong);
    }
    if (!pending_prepare() || (serving.shape.size_bytes > 0 && !content_prepare())) {
        fail("starting", "no memory");
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    int device = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (device < 0) {
        fail("/dev/fuse", strerror(errno));
    }
    struct fuse_session *session = session_on(device);
    mount_on(mountpoint, device);
    bool preferred = prefer_this_process();
    printf("{\"inodes\": %llu, \"preferred\": %s}\n", (unsigned long long)serving.shape.inodes,
           preferred ? "true" : "false");
    fflush(stdout);
    if (!serve(session, device)) {
        umount2(mountpoint, MNT_DETACH); /* whoever mounted it is gone */
    }
    print_counts();
    fuse_session_destroy(session);
    return 0;
}
