/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Counts the system calls by which the plugin looks at files, for harness_backup.c
 * alone.  Link with -Wl,--wrap= for statx, fstat64, flistxattr and syscall.
 */
#ifndef FOREBAY_HARNESS_CALLS_H
#define FOREBAY_HARNESS_CALLS_H

#include <sys/stat.h>
#include <sys/syscall.h>

static atomic_ulong openat2_calls, statx_calls, fstat_calls, flistxattr_calls;

int __real_statx(int fd, const char *path, int flags, unsigned mask, struct statx *to);
int __wrap_statx(int fd, const char *path, int flags, unsigned mask, struct statx *to);
int __real_fstat64(int fd, struct stat *to);
int __wrap_fstat64(int fd, struct stat *to);
ssize_t __real_flistxattr(int fd, char *names, size_t size);
ssize_t __wrap_flistxattr(int fd, char *names, size_t size);
long __real_syscall(long number, long a, long b, long c, long d);
long __wrap_syscall(long number, long a, long b, long c, long d);

int __wrap_statx(int fd, const char *path, int flags, unsigned mask, struct statx *to) {
  atomic_fetch_add(&statx_calls, 1);
  return __real_statx(fd, path, flags, mask, to);
}

int __wrap_fstat64(int fd, struct stat *to) {
  atomic_fetch_add(&fstat_calls, 1);
  return __real_fstat64(fd, to);
}

ssize_t __wrap_flistxattr(int fd, char *names, size_t size) {
  atomic_fetch_add(&flistxattr_calls, 1);
  return __real_flistxattr(fd, names, size);
}

/* The plugin makes one system call that libc has no function for. */
long __wrap_syscall(long number, long a, long b, long c, long d) {
  if (number == SYS_openat2)
    atomic_fetch_add(&openat2_calls, 1);
  return __real_syscall(number, a, b, c, d);
}

static void write_calls(void) {
  char path[4096];
  snprintf(path, sizeof path, "%s/calls", settings.out);
  FILE *file = fopen(path, "w");
  if (file == NULL)
    abort();
  fprintf(file, "openat2 %lu\nstatx %lu\nfstat %lu\nflistxattr %lu\n", openat2_calls, statx_calls,
          fstat_calls, flistxattr_calls);
  fclose(file);
}

#endif
