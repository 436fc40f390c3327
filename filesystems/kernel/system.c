/* SPDX-License-Identifier: Apache-2.0 */
/* Directories by system calls: openat, getdents64, statx. */
#include "internal.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000U
#endif

#define STATX_MASK (STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
/* A dirent is at most 19 + 256 bytes, rounded up. */
#define DIRENT_BYTES_MAX 280u
#define STACK_BYTES 262144u

static int statx_retrying(handle descriptor, const char *name, int flags,
                          struct statx *attributes) {
    int result;
    do {
        result = statx((int)descriptor, name, flags | AT_NO_AUTOMOUNT, STATX_MASK, attributes);
    } while (result != 0 && errno == EINTR);
    return result == 0 ? 0 : errno;
}

static int openat_retrying(handle base, const char *name, int flags, handle *descriptor) {
    int result;
    do {
        result = openat((int)base, name, flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    } while (result < 0 && errno == EINTR);
    *descriptor = result;
    return result >= 0 ? 0 : errno;
}

static int system_open_root(struct fw_walk *walk, const char *path, handle *descriptor) {
    (void)walk;
    int result;
    do {
        result = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    } while (result < 0 && errno == EINTR);
    *descriptor = result;
    return result >= 0 ? 0 : errno;
}

/* Without touching the access time where we are allowed to. O_PATH looks up only: search
 * permission is enough, and no server is asked to open. */
static int system_open(struct fw_walk *walk, handle base, const char *name, bool to_read,
                       handle *descriptor) {
    (void)walk;
    if (!to_read) {
        return openat_retrying(base, name, O_PATH, descriptor);
    }
    int error = openat_retrying(base, name, O_RDONLY | O_NONBLOCK | O_NOATIME, descriptor);
    if (error == EPERM) {
        error = openat_retrying(base, name, O_RDONLY | O_NONBLOCK, descriptor);
    }
    return error;
}

static void system_close(struct fw_walk *walk, handle descriptor) {
    (void)walk;
    close((int)descriptor);
}

static int system_attributes(struct fw_walk *walk, handle descriptor, const char *name,
                             struct statx *attributes) {
    (void)walk;
    return statx_retrying(descriptor, name != NULL ? name : "",
                          name != NULL ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH, attributes);
}

static int system_entry(struct fw_walk *walk, handle descriptor, const struct record *record,
                        struct statx *attributes) {
    int flags = AT_SYMLINK_NOFOLLOW;
    if (walk->options.flags & FW_DONT_SYNC) {
        flags |= AT_STATX_DONT_SYNC;
    }
    return statx_retrying(descriptor, record->name, flags, attributes);
}

static int system_seek(struct fw_walk *walk, handle descriptor, uint64_t cookie) {
    (void)walk;
    return lseek((int)descriptor, (off_t)cookie, SEEK_SET) < 0 ? errno : 0;
}

static long system_read(struct fw_walk *walk, handle descriptor, struct dirents *dirents) {
    (void)walk;
    long size;
    do {
        size = syscall(SYS_getdents64, (int)descriptor, dirents->bytes, DIRENTS_BYTES);
    } while (size < 0 && errno == EINTR);
    return size < 0 ? -errno : size;
}

const struct source source_system = {
    .record_bytes_max = DIRENT_BYTES_MAX,
    .thread_stack_bytes = STACK_BYTES,
    .threads_automatic_max = FW_THREADS_AUTOMATIC_MAX,
    .open_root = system_open_root,
    .open = system_open,
    .close = system_close,
    .attributes = system_attributes,
    .entry = system_entry,
    .seek = system_seek,
    .read = system_read,
};
