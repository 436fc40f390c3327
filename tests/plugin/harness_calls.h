/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The system calls by which the plugin looks at files, and its threads that open them,
 * for harness_backup.c alone.  Link with -Wl,--wrap= for statx, fstat64, flistxattr,
 * fgetxattr, fstatfs64, syscall and pthread_cond_wait.
 *
 *   delay=US                every opening takes so long, as on a filesystem far away
 *   hold=N                  every opening waits until N of them go on at a time
 *   settle=FILES:THREADS    before that file and before the one SETTLE_FILES later the (one)
 *                           job waits until all that may be ahead is open and the THREADS
 *                           of the pool sleep; DIR/opening gets a line then and one at the
 *                           end: the most openings at a time since the line before
 *
 * DIR/calls counts the calls.
 */
#ifndef FOREBAY_HARNESS_CALLS_H
#define FOREBAY_HARNESS_CALLS_H

#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>

#include "reader.h"

#define SETTLE_FILES 300 /* more than half of what is open ahead: the threads are awake again */
#define AWAIT_MS_MAX 60000

static atomic_ulong openat2_calls, statx_calls, fstat_calls, flistxattr_calls, fgetxattr_calls,
    fstatfs_calls;
static atomic_uint opening_now, opening_most, asleep;
static atomic_bool is_let_go;

int __real_statx(int fd, const char *path, int flags, unsigned mask, struct statx *to);
int __wrap_statx(int fd, const char *path, int flags, unsigned mask, struct statx *to);
int __real_fstat64(int fd, struct stat *to);
int __wrap_fstat64(int fd, struct stat *to);
ssize_t __real_flistxattr(int fd, char *names, size_t size);
ssize_t __wrap_flistxattr(int fd, char *names, size_t size);
ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t size);
int __real_fstatfs64(int fd, struct statfs *to);
int __wrap_fstatfs64(int fd, struct statfs *to);
long __real_syscall(long number, long a, long b, long c, long d);
long __wrap_syscall(long number, long a, long b, long c, long d);
int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);

static void rest_us(long us) {
  const struct timespec time = {us / 1000000, us % 1000000 * 1000};
  nanosleep(&time, NULL);
}

/* One more millisecond of waiting for what must come. */
static void await_ms(unsigned *waited) {
  if (++*waited > AWAIT_MS_MAX)
    abort();
  rest_us(1000);
}

int __wrap_statx(int fd, const char *path, int flags, unsigned mask, struct statx *to) {
  atomic_fetch_add(&statx_calls, 1);
  return __real_statx(fd, path, flags, mask, to);
}

int __wrap_fstat64(int fd, struct stat *to) {
  atomic_fetch_add(&fstat_calls, 1);
  return __real_fstat64(fd, to);
}

ssize_t __wrap_flistxattr(int fd, char *names, size_t size) {
  unsigned long long ino;
  struct stat st;
  int error;
  atomic_fetch_add(&flistxattr_calls, 1);
  if (settings.fault != NULL && sscanf(settings.fault, "list:%llu:%d", &ino, &error) == 2 &&
      __real_fstat64(fd, &st) == 0 && st.st_ino == ino) {
    errno = error;
    return -1;
  }
  ssize_t length = __real_flistxattr(fd, names, size);
  show_names(names, size != 0 ? length : 0);
  return length;
}

ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t size) {
  atomic_fetch_add(&fgetxattr_calls, 1);
  return __real_fgetxattr(fd, kept_name(name), value, size);
}

int __wrap_fstatfs64(int fd, struct statfs *to) {
  atomic_fetch_add(&fstatfs_calls, 1);
  int rc = __real_fstatfs64(fd, to);
  if (settings.lustre != 0)
    to->f_type = LUSTRE_MAGIC;
  return rc;
}

static long open_slowly(long number, long a, long b, long c, long d) {
  unsigned now = atomic_fetch_add(&opening_now, 1) + 1, most = atomic_load(&opening_most);
  while (now > most && !atomic_compare_exchange_weak(&opening_most, &most, now))
    continue;
  if (now >= (unsigned long)settings.hold)
    atomic_store(&is_let_go, true);
  for (unsigned waited = 0; !atomic_load(&is_let_go);)
    await_ms(&waited);
  if (settings.delay > 0)
    rest_us(settings.delay);
  long result = __real_syscall(number, a, b, c, d);
  int error = errno;
  atomic_fetch_sub(&opening_now, 1);
  atomic_fetch_add(&openat2_calls, 1);
  errno = error;
  return result;
}

/* The plugin makes one system call that libc has no function for. */
long __wrap_syscall(long number, long a, long b, long c, long d) {
  return number == SYS_openat2 ? open_slowly(number, a, b, c, d)
                               : __real_syscall(number, a, b, c, d);
}

/* Only threads of the pool wait for ever. */
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock) {
  atomic_fetch_add(&asleep, 1);
  int rc = __real_pthread_cond_wait(condition, lock);
  atomic_fetch_sub(&asleep, 1);
  return rc;
}

static FILE *write_to(const char *name, const char *mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", settings.out, name);
  FILE *file = fopen(path, mode);
  if (file == NULL)
    abort();
  return file;
}

static void note_most(void) {
  FILE *to = write_to("opening", "a");
  fprintf(to, "%u\n", atomic_exchange(&opening_most, 0));
  fclose(to);
}

static void settle_before(long file) {
  long settled;
  unsigned threads, waited = 0;
  if (settings.settle == NULL || sscanf(settings.settle, "%ld:%u", &settled, &threads) != 2 ||
      (file != settled && file != settled + SETTLE_FILES))
    return;
  while (atomic_load(&openat2_calls) != (unsigned long)file + FB_AHEAD_ENTRIES_MAX ||
         atomic_load(&asleep) != threads)
    await_ms(&waited);
  note_most();
}

static void write_calls(void) {
  FILE *file = write_to("calls", "w");
  fprintf(file, "openat2 %lu\nstatx %lu\nfstat %lu\nflistxattr %lu\n", openat2_calls, statx_calls,
          fstat_calls, flistxattr_calls);
  fprintf(file, "fgetxattr %lu\nfstatfs %lu\nioctl %lu\n", fgetxattr_calls, fstatfs_calls,
          ioctl_calls);
  fclose(file);
  if (settings.settle != NULL)
    note_most();
}

#endif
