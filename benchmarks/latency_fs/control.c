/* SPDX-License-Identifier: Apache-2.0 */
#include "control.h"

#include "handlers.h"

#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define LINE_BYTES 128

struct costs costs;
struct counts counts;

_Noreturn void fail(const char *what, const char *why) {
    fprintf(stderr, "latency_fs: %s: %s\n", what, why);
    exit(1);
}

static const struct {
    uint32_t opcode;
    const char *name;
} KINDS[] = {
    {FUSE_LOOKUP, "lookup"},
    {FUSE_GETATTR, "getattr"},
    {FUSE_OPENDIR, "opendir"},
    {FUSE_READDIR, "readdir"},
    {FUSE_READDIRPLUS, "readdirplus"},
    {FUSE_OPEN, "open"},
    {FUSE_READ, "read"},
    {FUSE_LISTXATTR, "listxattr"},
    {FUSE_GETXATTR, "getxattr"},
    {FUSE_READLINK, "readlink"},
    {STATX_OPCODE, "statx"},
    {FUSE_STATFS, "statfs"},
    {FUSE_FLUSH, "flush"},
    {FUSE_RELEASE, "release"},
    {FUSE_RELEASEDIR, "releasedir"},
    {FUSE_FORGET, "forget"},
    {FUSE_BATCH_FORGET, "batch_forget"},
    {FUSE_INIT, "init"},
    {FUSE_INTERRUPT, "interrupt"},
    {FUSE_DESTROY, "destroy"},
    {FUSE_IOCTL, "ioctl"},
    {FUSE_LSEEK, "lseek"},
};

void print_counts(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double cpu_s = (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                   (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
    uint64_t named = 0, all = 0;
    printf("{\"operations\": {");
    for (size_t kind = 0; kind < sizeof KINDS / sizeof KINDS[0]; kind++) {
        uint64_t count = counts.operations[KINDS[kind].opcode];
        named += count;
        printf("\"%s\": %llu, ", KINDS[kind].name, (unsigned long long)count);
    }
    for (size_t opcode = 0; opcode < OPCODES_MAX; opcode++) {
        all += counts.operations[opcode];
    }
    printf("\"other\": %llu}, \"by_target\": [", (unsigned long long)(all - named));
    for (uint64_t queue = 0; queue <= serving.shape.targets; queue++) {
        printf("%s%llu", queue ? ", " : "", (unsigned long long)counts.by_queue[queue]);
    }
    printf("], \"in_flight_high\": %llu, \"bytes_read\": %llu, \"cpu_s\": %.6f}\n",
           (unsigned long long)counts.in_flight_high, (unsigned long long)counts.bytes_read, cpu_s);
    fflush(stdout);
}

/* "counts", or "NAME VALUE" with what a test changes while it is mounted. */
static void obey(char *line) {
    if (strcmp(line, "counts") == 0) {
        print_counts();
        return;
    }
    char name[LINE_BYTES];
    unsigned long long value;
    uint64_t *cost = NULL;
    if (sscanf(line, "%127s %llu", name, &value) == 2 && value <= DELAY_MAX_US) {
        if (strcmp(name, "metadata-us") == 0) {
            cost = &costs.metadata_us;
        } else if (strcmp(name, "read-us") == 0) {
            cost = &costs.read_us;
        } else if (strcmp(name, "read-mib-us") == 0) {
            cost = &costs.read_mib_us;
        }
    }
    if (cost == NULL) {
        fail("no such command", line);
    }
    *cost = value;
    puts("{}");
    fflush(stdout);
}

bool take_commands(void) {
    static char line[LINE_BYTES];
    static size_t used;
    ssize_t got = read(STDIN_FILENO, line + used, sizeof line - 1 - used);
    if (got <= 0) {
        return false;
    }
    used += (size_t)got;
    line[used] = '\0';
    for (char *end; (end = strchr(line, '\n')) != NULL;) {
        *end = '\0';
        obey(line);
        used -= (size_t)(end + 1 - line);
        memmove(line, end + 1, used + 1);
    }
    if (used == sizeof line - 1) {
        fail("a command is too long", line);
    }
    return true;
}
