/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Records preads, and holds the first ones back until so many wait at a time.  Linked into the
 * plugin's sources with -Wl,--wrap=pread64 and called by test_stripes.py.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define RECORDS_MAX 65536

struct pread_record {
  uint64_t offset, size;
};

struct pread_record preads_made[RECORDS_MAX];
unsigned preads_count, preads_gate;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t came = PTHREAD_COND_INITIALIZER;

ssize_t __real_pread64(int fd, void *to, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *to, size_t size, off_t offset);
void preads_reset(unsigned gate);

/* Forgets all; the next ones wait until gate of them are there. */
void preads_reset(unsigned gate) {
  pthread_mutex_lock(&guard);
  preads_count = 0;
  preads_gate = gate;
  pthread_mutex_unlock(&guard);
}

ssize_t __wrap_pread64(int fd, void *to, size_t size, off_t offset) {
  pthread_mutex_lock(&guard);
  if (preads_count < RECORDS_MAX)
    preads_made[preads_count++] = (struct pread_record){(uint64_t)offset, size};
  pthread_cond_broadcast(&came);
  while (preads_count < preads_gate)
    pthread_cond_wait(&came, &guard);
  pthread_mutex_unlock(&guard);
  return __real_pread64(fd, to, size, offset);
}
