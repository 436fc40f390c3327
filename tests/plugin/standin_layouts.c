/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * A stand-in for a mounted CephFS or Lustre, as far as layouts go: a FUSE filesystem that
 * passes everything through to a directory, and has the xattrs of layouts with the rules that
 * the real ones have for them, as the documents and sources tell those.  It proves what the
 * plugin asks for and when, not that a real filesystem agrees.
 *
 *   standin_layouts ceph|lustre|plain BACKING MOUNT
 *
 * ceph: ceph.dir.rctime; ceph.file.layout of a file, settable while it is empty; of a directory
 * ceph.dir.layout, ceph.quota.max_bytes and _files (once there, nothing can be created in it),
 * ceph.dir.pin: ENODATA unless set.  None is listed.  There are the pools cephfs_data and fast.
 * What is kept as EIO cannot be read.
 *
 * lustre: lustre.lov, listed.  A file created without O_LOV_DELAY_CREATE has the default at
 * once, and then keeps it; one with it takes no data before it has one, by setxattr or by being
 * opened once more after it was closed: the metadata server hears of no second open for writing.
 * There is the pool fast, and there are 4 OSTs.
 *
 * Everything is kept in xattrs user.standin.NAME below BACKING.
 */
#define FUSE_USE_VERSION 314
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#define OSTS 4
#define CEPH_DEFAULT "stripe_unit=4194304 stripe_count=1 object_size=4194304 pool=cephfs_data"
#define KEPT "user.standin."
#define NAME_BYTES_MAX 256

static const char *backing;
static bool is_ceph, is_lustre;

struct real {
  char path[PATH_MAX];
};

static struct real real(const char *path) {
  struct real r;
  if ((size_t)snprintf(r.path, sizeof r.path, "%s%s", backing, path) >= sizeof r.path)
    abort();
  return r;
}

static int result(int rc) { return rc < 0 ? -errno : 0; }

static struct real kept(const char *name) {
  struct real r;
  snprintf(r.path, sizeof r.path, KEPT "%.200s", name);
  return r;
}

static bool is_ours(const char *name) {
  return (is_ceph && strncmp(name, "ceph.", 5) == 0) ||
         (is_lustre && strncmp(name, "lustre.", 7) == 0);
}

static bool has(const char *path, const char *name) {
  return lgetxattr(real(path).path, kept(name).path, NULL, 0) >= 0;
}

/* -- Ceph -- */

/* The whole text in one, as the metadata server takes it. */
static int check_ceph(const char *value, size_t size, char *whole) {
  char text[512], *at = text, *word;
  unsigned long unit = 0, count = 0, object = 0;
  char pool[100] = "";
  if (size >= sizeof text)
    return -EINVAL;
  memcpy(text, value, size);
  text[size] = 0;
  while ((word = strsep(&at, " ")) != NULL)
    if (sscanf(word, "stripe_unit=%lu", &unit) != 1 &&
        sscanf(word, "stripe_count=%lu", &count) != 1 &&
        sscanf(word, "object_size=%lu", &object) != 1 && sscanf(word, "pool=%99s", pool) != 1)
      return -EINVAL;
  if (unit == 0 || unit % 65536 != 0 || count == 0 || object == 0 || object % unit != 0)
    return -EINVAL;
  if (pool[0] != 0 && strcmp(pool, "cephfs_data") != 0 && strcmp(pool, "fast") != 0)
    return -ENOENT;
  return snprintf(whole, 512, "stripe_unit=%lu stripe_count=%lu object_size=%lu pool=%s", unit,
                  count, object, pool[0] != 0 ? pool : "cephfs_data");
}

static int set_ceph(const char *path, const char *name, const char *value, size_t size) {
  struct stat st;
  char whole[512];
  if (lstat(real(path).path, &st) < 0)
    return -errno;
  bool is_layout = strcmp(name, "ceph.file.layout") == 0 || strcmp(name, "ceph.dir.layout") == 0;
  if (is_layout) {
    if (S_ISREG(st.st_mode) != (name[5] == 'f'))
      return -EINVAL;
    if (S_ISREG(st.st_mode) && st.st_size > 0)
      return -ENOTEMPTY;
    int length = check_ceph(value, size, whole);
    if (length < 0)
      return length;
    return result(lsetxattr(real(path).path, kept(name).path, whole, (size_t)length, 0));
  }
  if (!S_ISDIR(st.st_mode) || size == 0 || size > 20 || strspn(value, "-0123456789") < size)
    return -EINVAL;
  return result(lsetxattr(real(path).path, kept(name).path, value, size, 0));
}

static int get_ceph(const char *path, const char *name, char *value, size_t size) {
  struct stat st;
  const char *fixed = NULL;
  ssize_t length = lgetxattr(real(path).path, kept(name).path, value, size);
  if (length == 3 && size >= 3 && memcmp(value, "EIO", 3) == 0)
    return -EIO;
  if (length >= 0)
    return (int)length;
  if (errno != ENODATA || lstat(real(path).path, &st) < 0)
    return -errno;
  if (S_ISREG(st.st_mode) && strcmp(name, "ceph.file.layout") == 0)
    fixed = CEPH_DEFAULT;
  if (S_ISDIR(st.st_mode) && strcmp(name, "ceph.dir.rctime") == 0)
    fixed = "1700000000.090000000";
  if (fixed == NULL)
    return -ENODATA;
  if (size != 0 && size < strlen(fixed))
    return -ERANGE;
  if (size != 0)
    memcpy(value, fixed, strlen(fixed));
  return (int)strlen(fixed);
}

/* -- Lustre -- */

static uint32_t u32(const char *at) {
  uint32_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

static uint16_t u16(const char *at) {
  uint16_t value;
  memcpy(&value, at, sizeof value);
  return value;
}

/* A new file's: no objects, no OST, nothing of the old one. */
static int check_plain(const char *lov, size_t size) {
  static const char zeros[16];
  size_t wanted = size >= 4 && u32(lov) == 0x0BD30BD0u ? 48 : 32;
  if (size != wanted || (u32(lov) != 0x0BD10BD0u && u32(lov) != 0x0BD30BD0u))
    return -EINVAL;
  if (memcmp(lov + 8, zeros, 16) != 0 || u16(lov + 30) != 0xffff)
    return -EINVAL;
  if ((u32(lov + 4) & ~0x301u) != 0 || u32(lov + 24) % 65536 != 0)
    return -EINVAL;
  if (u16(lov + 28) > OSTS && u16(lov + 28) != 0xffff)
    return -ERANGE;
  return size == 48 && strncmp(lov + 32, "fast", 16) != 0 ? -ENOENT : 0;
}

static int check_lustre(const char *lov, size_t size) {
  if (size < 32 || u32(lov) != 0x0BD60BD0u)
    return check_plain(lov, size);
  if (u32(lov + 4) != size || u32(lov + 8) != 0 || u16(lov + 12) != 0 || u16(lov + 14) == 0)
    return -EINVAL;
  for (unsigned i = 0; i < u16(lov + 14); i++) {
    const char *entry = lov + 32 + i * 48;
    if ((u32(entry + 4) & ~0x46u) != 0 || u32(entry + 32) != 0)
      return -EINVAL;
    int rc = check_plain(lov + u32(entry + 24), u32(entry + 28));
    if (rc < 0)
      return rc;
  }
  return 0;
}

static int give_default_lov(const char *path) {
  static const char lov[56] = "\xd0\x0b\xd1\x0b\x01\0\0\0\1\2\3\4\5\6\7\x8"
                              "\1\2\3\4\5\6\7\x8\0\0\x10\0\1\0\0\0";
  return result(lsetxattr(real(path).path, KEPT "lustre.lov", lov, sizeof lov, 0));
}

static int set_lustre(const char *path, const char *name, const char *value, size_t size) {
  struct stat st;
  if (strcmp(name, "lustre.lov") != 0)
    return -EOPNOTSUPP;
  if (lstat(real(path).path, &st) < 0)
    return -errno;
  if (S_ISREG(st.st_mode) && has(path, name))
    return -EEXIST;
  int rc = check_lustre(value, size);
  return rc < 0 ? rc : result(lsetxattr(real(path).path, KEPT "lustre.lov", value, size, 0));
}

/* -- The filesystem -- */

static void *begin(struct fuse_conn_info *connection, struct fuse_config *config) {
  (void)connection;
  config->use_ino = 1;
  config->attr_timeout = config->entry_timeout = config->negative_timeout = 0;
  return NULL;
}

static int do_getattr(const char *path, struct stat *st, struct fuse_file_info *info) {
  (void)info;
  return result(lstat(real(path).path, st));
}

static int do_readdir(const char *path, void *buffer, fuse_fill_dir_t fill, off_t offset,
                      struct fuse_file_info *info, enum fuse_readdir_flags flags) {
  (void)offset, (void)info, (void)flags;
  struct dirent **names;
  int count = scandir(real(path).path, &names, NULL, alphasort);
  for (int i = 0; i < count; i++) {
    fill(buffer, names[i]->d_name, NULL, 0, 0);
    free(names[i]);
  }
  if (count >= 0)
    free(names);
  return count < 0 ? -errno : 0;
}

/* A quota that is there before the files is in their way. */
static int check_room(const char *path) {
  char above[PATH_MAX];
  snprintf(above, sizeof above, "%s", path);
  char *slash = strrchr(above, '/');
  slash[slash == above ? 1 : 0] = 0;
  return is_ceph && has(above, "ceph.quota.max_files") ? -EDQUOT : 0;
}

static int take_owner(const char *path) {
  const struct fuse_context *who = fuse_get_context();
  return result(lchown(real(path).path, who->uid, who->gid));
}

static int do_mkdir(const char *path, mode_t mode) {
  int rc = check_room(path);
  if (rc == 0)
    rc = result(mkdir(real(path).path, mode));
  return rc < 0 ? rc : take_owner(path);
}

/* How many have an inode open for writing. */
#define WRITTEN_MAX 64
static struct {
  ino_t ino;
  unsigned writers;
} written[WRITTEN_MAX];
static pthread_mutex_t written_lock = PTHREAD_MUTEX_INITIALIZER;

/* Returns how many there were before. */
static unsigned count_writer(int fd, int change) {
  struct stat st;
  if (fstat(fd, &st) < 0)
    abort();
  pthread_mutex_lock(&written_lock);
  size_t place = WRITTEN_MAX;
  for (size_t i = 0; i < WRITTEN_MAX; i++)
    if (written[i].writers != 0 && written[i].ino == st.st_ino)
      place = i;
  for (size_t i = 0; place == WRITTEN_MAX && i < WRITTEN_MAX; i++)
    if (written[i].writers == 0)
      place = i;
  if (place == WRITTEN_MAX)
    abort();
  unsigned before = written[place].writers;
  written[place].ino = st.st_ino;
  if (change > 0 || before != 0)
    written[place].writers = before + (unsigned)change;
  pthread_mutex_unlock(&written_lock);
  return before;
}

/* At close(), which waits for it, as it does not for a release. */
static int do_flush(const char *path, struct fuse_file_info *info) {
  (void)path;
  if (is_lustre && (fcntl((int)info->fh, F_GETFL) & O_ACCMODE) != O_RDONLY)
    count_writer((int)info->fh, -1);
  return 0;
}

static int do_create(const char *path, mode_t mode, struct fuse_file_info *info) {
  int rc = check_room(path);
  if (rc < 0)
    return rc;
  int fd = open(real(path).path, O_RDWR | O_CREAT | O_EXCL, mode);
  if (fd < 0)
    return -errno;
  info->fh = (uint64_t)fd;
  if (is_lustre)
    count_writer(fd, 1);
  rc = take_owner(path);
  /* Of O_LOV_DELAY_CREATE, O_NOCTTY | FASYNC, the first half does not reach a filesystem. */
  if (rc == 0 && is_lustre && (info->flags & FASYNC) == 0)
    rc = give_default_lov(path);
  return rc;
}

static int do_open(const char *path, struct fuse_file_info *info) {
  int fd = open(real(path).path, (info->flags & O_ACCMODE) == O_RDONLY ? O_RDONLY : O_RDWR);
  if (fd < 0)
    return -errno;
  info->fh = (uint64_t)fd;
  if (is_lustre && (info->flags & O_ACCMODE) != O_RDONLY && count_writer(fd, 1) == 0 &&
      !has(path, "lustre.lov"))
    return give_default_lov(path);
  return 0;
}

static int do_release(const char *path, struct fuse_file_info *info) {
  (void)path;
  return result(close((int)info->fh));
}

static int do_read(const char *path, char *to, size_t size, off_t offset,
                   struct fuse_file_info *info) {
  (void)path;
  ssize_t n = pread((int)info->fh, to, size, offset);
  return n < 0 ? -errno : (int)n;
}

static int do_write(const char *path, const char *from, size_t size, off_t offset,
                    struct fuse_file_info *info) {
  if (is_lustre && !has(path, "lustre.lov"))
    return -EBADF;
  ssize_t n = pwrite((int)info->fh, from, size, offset);
  return n < 0 ? -errno : (int)n;
}

static int do_truncate(const char *path, off_t size, struct fuse_file_info *info) {
  (void)info;
  return result(truncate(real(path).path, size));
}

static int do_unlink(const char *path) { return result(unlink(real(path).path)); }
static int do_rmdir(const char *path) { return result(rmdir(real(path).path)); }

static int do_symlink(const char *target, const char *path) {
  int rc = result(symlink(target, real(path).path));
  return rc < 0 ? rc : take_owner(path);
}

static int do_readlink(const char *path, char *to, size_t size) {
  ssize_t n = readlink(real(path).path, to, size - 1);
  if (n >= 0)
    to[n] = 0;
  return n < 0 ? -errno : 0;
}

static int do_link(const char *from, const char *to) {
  return result(link(real(from).path, real(to).path));
}

static int do_chmod(const char *path, mode_t mode, struct fuse_file_info *info) {
  (void)info;
  return result(chmod(real(path).path, mode));
}

static int do_chown(const char *path, uid_t uid, gid_t gid, struct fuse_file_info *info) {
  (void)info;
  return result(lchown(real(path).path, uid, gid));
}

static int do_utimens(const char *path, const struct timespec times[2],
                      struct fuse_file_info *info) {
  (void)info;
  return result(utimensat(AT_FDCWD, real(path).path, times, AT_SYMLINK_NOFOLLOW));
}

static int do_setxattr(const char *path, const char *name, const char *value, size_t size,
                       int flags) {
  if (is_ours(name))
    return is_ceph ? set_ceph(path, name, value, size) : set_lustre(path, name, value, size);
  return result(lsetxattr(real(path).path, name, value, size, flags));
}

static int do_getxattr(const char *path, const char *name, char *value, size_t size) {
  if (is_ours(name) && is_ceph)
    return get_ceph(path, name, value, size);
  ssize_t n = lgetxattr(real(path).path, is_ours(name) ? kept(name).path : name, value, size);
  return n < 0 ? -errno : (int)n;
}

static int do_listxattr(const char *path, char *list, size_t size) {
  char names[65536];
  size_t used = 0;
  ssize_t length = llistxattr(real(path).path, names, sizeof names);
  if (length < 0)
    return -errno;
  for (char *name = names; name < names + length; name += strlen(name) + 1) {
    const char *shown = strncmp(name, KEPT, strlen(KEPT)) == 0 ? name + strlen(KEPT) : name;
    if (shown != name && !is_lustre) /* CephFS lists none of them */
      continue;
    size_t bytes = strlen(shown) + 1;
    if (size != 0 && used + bytes > size)
      return -ERANGE;
    if (size != 0)
      memcpy(list + used, shown, bytes);
    used += bytes;
  }
  return (int)used;
}

static int do_removexattr(const char *path, const char *name) {
  return is_ours(name) ? -EOPNOTSUPP : result(lremovexattr(real(path).path, name));
}

int main(int argc, char **argv) {
  static const struct fuse_operations operations = {
      .init = begin,           .getattr = do_getattr,   .readdir = do_readdir,
      .mkdir = do_mkdir,       .create = do_create,     .open = do_open,
      .flush = do_flush,
      .release = do_release,   .read = do_read,         .write = do_write,
      .truncate = do_truncate, .unlink = do_unlink,     .rmdir = do_rmdir,
      .symlink = do_symlink,   .readlink = do_readlink, .link = do_link,
      .chmod = do_chmod,       .chown = do_chown,       .utimens = do_utimens,
      .setxattr = do_setxattr, .getxattr = do_getxattr, .listxattr = do_listxattr,
      .removexattr = do_removexattr};
  if (argc != 4)
    return 2;
  is_ceph = strcmp(argv[1], "ceph") == 0;
  is_lustre = strcmp(argv[1], "lustre") == 0;
  backing = argv[2];
  prctl(PR_SET_PDEATHSIG, SIGTERM); /* then libfuse unmounts */
  umask(0);
  char *arguments[] = {argv[0], "-f", "-s", "-o", "default_permissions,allow_other", argv[3], NULL};
  return fuse_main(6, arguments, &operations, NULL);
}
