/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * A stand-in for a Lustre client, as far as single files go, for harness_backup.c alone.  Link
 * with -Wl,--wrap= for ioctl and lseek64.
 *
 *   lustre=1        the tree is on Lustre: the xattr KEPT_LOV of a file is shown as lustre.lov; its
 *                   HSM state is the number in user.hsm (none: 0), its data version that in
 *                   user.version (none: 7); "EIO" there fails
 *   fault=version:INO:N      the data version of that inode is N after its first read
 *
 * To read from a file with an xattr user.released, or to look for its holes, recalls it:
 * DIR/recalled gets its inode number.
 */
#ifndef FOREBAY_HARNESS_LUSTRE_H
#define FOREBAY_HARNESS_LUSTRE_H

#include <sys/ioctl.h>
#include <sys/xattr.h>

#define LUSTRE_MAGIC 0x0BD00BD0
#define SHOWN_LOV "lustre.lov"
#define KEPT_LOV "user.lov12" /* of the same length */
#define HSM_STATE_GET 0x802066d3ul
#define DATA_VERSION 0x801066daul
#define VERSION_DEFAULT 7

static FILE *write_to(const char *name, const char *mode);

static atomic_ulong ioctl_calls, version_now;

int __real_ioctl(int fd, unsigned long request, void *argument);
int __wrap_ioctl(int fd, unsigned long request, void *argument);
off_t __real_lseek64(int fd, off_t offset, int whence);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
ssize_t __real_fgetxattr(int fd, const char *name, void *value, size_t size);

/* Data is wanted. */
static void note_recall(int fd) {
  struct stat st;
  if (settings.lustre == 0 || __real_fgetxattr(fd, "user.released", NULL, 0) < 0)
    return;
  FILE *to = write_to("recalled", "a");
  if (fstat(fd, &st) != 0)
    abort();
  fprintf(to, "%ju\n", (uintmax_t)st.st_ino);
  fclose(to);
}

off_t __wrap_lseek64(int fd, off_t offset, int whence) {
  if (whence == SEEK_HOLE || whence == SEEK_DATA)
    note_recall(fd);
  return __real_lseek64(fd, offset, whence);
}

static const char *kept_name(const char *name) {
  return settings.lustre != 0 && strcmp(name, SHOWN_LOV) == 0 ? KEPT_LOV : name;
}

static void show_names(char *names, ssize_t length) {
  for (char *at = names; settings.lustre != 0 && at < names + length; at += strlen(at) + 1)
    if (strcmp(at, KEPT_LOV) == 0)
      memcpy(at, SHOWN_LOV, sizeof SHOWN_LOV);
}

/* The number in an xattr; false with errno. */
static bool take_number(int fd, const char *name, unsigned long *number) {
  char text[32] = "";
  if (__real_fgetxattr(fd, name, text, sizeof text - 1) < 0)
    return true;
  if (strcmp(text, "EIO") == 0) {
    errno = EIO;
    return false;
  }
  *number = strtoul(text, NULL, 10);
  return true;
}

int __wrap_ioctl(int fd, unsigned long request, void *argument) {
  unsigned long number;
  atomic_fetch_add(&ioctl_calls, 1);
  if (settings.lustre == 0)
    return __real_ioctl(fd, request, argument);
  if (request == HSM_STATE_GET) {
    number = 0;
    if (!take_number(fd, "user.hsm", &number))
      return -1;
    memset(argument, 0, 32);
    *(uint32_t *)argument = (uint32_t)number;
    return 0;
  }
  if (request == DATA_VERSION) {
    number = VERSION_DEFAULT;
    if (!take_number(fd, "user.version", &number))
      return -1;
    if (atomic_load(&version_now) != 0)
      number = atomic_load(&version_now);
    memset(argument, 0, 16);
    *(uint64_t *)argument = number;
    return 0;
  }
  errno = ENOTTY;
  return -1;
}

#endif
