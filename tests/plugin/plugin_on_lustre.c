/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Makes a forebay-fd.so believe, in a real File Daemon, that everything is on a Lustre: the stand-in
 * of harness_lustre.h.  Linked with the plugin's sources and -Wl,--wrap= for what is wrapped there
 * and here; OUT_DIR is where it writes what was recalled.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

static const struct {
  long lustre;
} settings = {1};

#include "harness_lustre.h"

int __real_fstatfs64(int fd, struct statfs *to);
int __wrap_fstatfs64(int fd, struct statfs *to);
ssize_t __real_pread64(int fd, void *to, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *to, size_t size, off_t offset);
ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t size);
ssize_t __real_flistxattr(int fd, char *names, size_t size);
ssize_t __wrap_flistxattr(int fd, char *names, size_t size);

static FILE *write_to(const char *name, const char *mode) {
  char path[4096];
  snprintf(path, sizeof path, "%s/%s", OUT_DIR, name);
  FILE *file = fopen(path, mode);
  if (file == NULL)
    abort();
  return file;
}

int __wrap_fstatfs64(int fd, struct statfs *to) {
  int rc = __real_fstatfs64(fd, to);
  to->f_type = LUSTRE_MAGIC;
  return rc;
}

ssize_t __wrap_pread64(int fd, void *to, size_t size, off_t offset) {
  note_recall(fd);
  return __real_pread64(fd, to, size, offset);
}

ssize_t __wrap_fgetxattr(int fd, const char *name, void *value, size_t size) {
  return __real_fgetxattr(fd, kept_name(name), value, size);
}

ssize_t __wrap_flistxattr(int fd, char *names, size_t size) {
  ssize_t length = __real_flistxattr(fd, names, size);
  show_names(names, size != 0 ? length : 0);
  return length;
}
