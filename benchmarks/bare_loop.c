/* SPDX-License-Identifier: Apache-2.0 */
/* The limit that a walk is compared with: getdents64 and statx of every name, nothing kept.
 *
 * Covers: one thread, depth first with openat, buffers of 64 KiB, all that the kernel asks statx
 * for. Prints {"inodes": N, "wall_s": S, "cpu_s": S}; the root counts as an inode.
 * Does not cover: trees deeper than the limit of open files; they end with an error.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define DIRENTS_BYTES 65536u

/* The system's struct linux_dirent64, which no header exports. */
struct record {
    uint64_t ino;
    int64_t off;
    uint16_t size;
    uint8_t type;
    char name[];
};

struct level {
    struct level *above;
    int descriptor;
    uint32_t size, offset;
    _Alignas(8) char bytes[DIRENTS_BYTES];
};

static struct level *unused; /* so that memory is asked for once per depth, not per directory */

static void fail(const char *what, const char *name) {
    fprintf(stderr, "bare_loop: %s %s: %s\n", what, name, strerror(errno));
    exit(1);
}

static struct level *enter(struct level *above, const char *name) {
    struct level *level = unused;
    if (level != NULL) {
        unused = level->above;
    } else if ((level = malloc(sizeof *level)) == NULL) {
        fail("malloc", name);
    }
    level->above = above;
    level->size = level->offset = 0;
    level->descriptor = openat(above != NULL ? above->descriptor : AT_FDCWD, name,
                               O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (level->descriptor < 0) {
        fail("openat", name);
    }
    return level;
}

static struct level *leave(struct level *level) {
    struct level *above = level->above;
    close(level->descriptor);
    level->above = unused;
    unused = level;
    return above;
}

/* The next name of the directory, or NULL at its end. */
static const struct record *next(struct level *level) {
    if (level->offset == level->size) {
        long size = syscall(SYS_getdents64, level->descriptor, level->bytes, DIRENTS_BYTES);
        if (size < 0) {
            fail("getdents64", "");
        }
        if (size == 0) {
            return NULL;
        }
        level->size = (uint32_t)size;
        level->offset = 0;
    }
    const struct record *record = (const void *)(level->bytes + level->offset);
    level->offset += record->size;
    return record;
}

static uint64_t walk(const char *root) {
    struct level *level = enter(NULL, root);
    uint64_t inodes = 1;
    while (level != NULL) {
        const struct record *record = next(level);
        if (record == NULL) {
            level = leave(level);
            continue;
        }
        if (strcmp(record->name, ".") == 0 || strcmp(record->name, "..") == 0) {
            continue;
        }
        struct statx attributes;
        if (statx(level->descriptor, record->name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
                  STATX_BASIC_STATS | STATX_BTIME, &attributes) != 0) {
            fail("statx", record->name);
        }
        inodes++;
        if (S_ISDIR(attributes.stx_mode)) {
            level = enter(level, record->name);
        }
    }
    return inodes;
}

static double wall_s(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static double seconds(struct timeval time) {
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static double cpu_s(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: bare_loop DIRECTORY\n");
        return 2;
    }
    double wall = wall_s();
    double cpu = cpu_s();
    uint64_t inodes = walk(argv[1]);
    printf("{\"inodes\": %llu, \"wall_s\": %.6f, \"cpu_s\": %.6f}\n", (unsigned long long)inodes,
           wall_s() - wall, cpu_s() - cpu);
    return 0;
}
