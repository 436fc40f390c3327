/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See beneath.h.  A path is resolved in pieces: as much as fits PATH_MAX with one
 * openat2, or, where the kernel or a sandbox has no openat2, one component at a
 * time with O_NOFOLLOW, which follows no link either ("..", the only other way
 * out, is refused before the first call).
 */
#include "beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* How often a component may change under us (made, removed, replaced by others)
 * before we give up on it. */
#define FB_RACE_RETRIES_MAX 16

/* 0, or why this path is not one: -EXDEV for "..", and a leading "/", -EINVAL
 * for an empty or "." component or a NUL byte. */
static int check_path(const char *path, size_t path_len) {
  if (path_len == 0)
    return 0;
  if (path[0] == '/')
    return -EXDEV;
  if (memchr(path, '\0', path_len) != NULL)
    return -EINVAL;
  size_t start = 0;
  while (start <= path_len) {
    const char *slash = memchr(path + start, '/', path_len - start);
    size_t end = slash != NULL ? (size_t)(slash - path) : path_len;
    size_t length = end - start;
    if (length == 0 || (length == 1 && path[start] == '.'))
      return -EINVAL;
    if (length == 2 && path[start] == '.' && path[start + 1] == '.')
      return -EXDEV;
    if (length > NAME_MAX)
      return -ENAMETOOLONG;
    start = end + 1;
  }
  return 0;
}

static int open_with_openat2(int dir_fd, const char *path, int flags, mode_t mode) {
  struct open_how how = {
      .flags = (uint64_t)(unsigned)flags,
      .mode = (flags & (O_CREAT | __O_TMPFILE)) != 0 ? (mode & 07777) : 0,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS,
  };
  int fd;
  do
    fd = (int)syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
  while (fd < 0 && errno == EINTR);
  return fd < 0 ? -errno : fd;
}

static int open_component(int dir_fd, const char *name, int flags, mode_t mode) {
  int fd;
  do
    fd = openat(dir_fd, name, flags, mode);
  while (fd < 0 && errno == EINTR);
  return fd < 0 ? -errno : fd;
}

/* A symlink opened with O_DIRECTORY and O_NOFOLLOW gives ENOTDIR; callers need to
 * tell it from a file. */
static int name_the_link(int dir_fd, const char *path, int error) {
  struct stat st;
  if (error == -ENOTDIR && fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
      S_ISLNK(st.st_mode))
    return -ELOOP;
  return error;
}

/* The length of the longest beginning of path that ends with a whole component
 * and fits piece_max bytes (a component always does: see check_path). */
static size_t piece_length(const char *path, size_t path_len, size_t piece_max) {
  if (path_len <= piece_max)
    return path_len;
  size_t length = piece_max;
  while (length > 0 && path[length] != '/')
    length--;
  return length;
}

static size_t component_length(const char *path, size_t path_len) {
  const char *slash = memchr(path, '/', path_len);
  return slash != NULL ? (size_t)(slash - path) : path_len;
}

static int open_in_pieces(int root_fd, const char *path, size_t path_len, int flags,
                          mode_t mode, bool has_openat2) {
  char piece[PATH_MAX];
  int dir_fd = root_fd;
  for (;;) {
    size_t length = has_openat2 ? piece_length(path, path_len, PATH_MAX - 1)
                                : component_length(path, path_len);
    memcpy(piece, path, length);
    piece[length] = '\0';
    bool last = length == path_len;
    int piece_flags = last ? flags : O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
    int fd = has_openat2 ? open_with_openat2(dir_fd, piece, piece_flags, mode)
                         : open_component(dir_fd, piece, piece_flags, mode);
    if (fd < 0 && (piece_flags & O_DIRECTORY) != 0)
      fd = name_the_link(dir_fd, piece, fd);
    if (dir_fd != root_fd)
      close(dir_fd);
    if (fd < 0 || last)
      return fd;
    dir_fd = fd;
    path += length + 1;
    path_len -= length + 1;
  }
}

int fb_open_beneath(int root_fd, const char *path, size_t path_len, int flags, mode_t mode) {
  flags |= O_CLOEXEC | O_NOFOLLOW;
  int rc = check_path(path, path_len);
  if (rc < 0)
    return rc;
  if (path_len == 0)
    return open_component(root_fd, ".", flags, mode);
#ifdef FB_TEST_WITHOUT_OPENAT2
  return open_in_pieces(root_fd, path, path_len, flags, mode, false);
#else
  int fd = open_in_pieces(root_fd, path, path_len, flags, mode, true);
  if (fd == -ENOSYS)
    fd = open_in_pieces(root_fd, path, path_len, flags, mode, false);
  return fd;
#endif
}

/* Splits path into its directory (*dir_len bytes, 0 for the root) and its name. */
static int split(const char *path, size_t path_len, size_t *dir_len, const char **name,
                 size_t *name_len) {
  int rc = path_len == 0 ? -EINVAL : check_path(path, path_len);
  if (rc < 0)
    return rc;
  const char *slash = memrchr(path, '/', path_len);
  *dir_len = slash != NULL ? (size_t)(slash - path) : 0;
  *name = slash != NULL ? slash + 1 : path;
  *name_len = path_len - (size_t)(*name - path);
  return 0;
}

int fb_open_parent(int root_fd, const char *path, size_t path_len, const char **name,
                   size_t *name_len) {
  size_t dir_len;
  int rc = split(path, path_len, &dir_len, name, name_len);
  if (rc < 0)
    return rc;
  return fb_open_beneath(root_fd, path, dir_len, O_PATH | O_DIRECTORY, 0);
}

/* Gives a directory that was just made its whole mode: mkdir cuts it by the umask
 * and drops the setuid bit. */
static int finish_directory(int dir_fd, const char *name, mode_t mode) {
  int fd = open_component(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
  if (fd < 0)
    return fd;
  struct stat st;
  int rc = 0;
  /* Somebody may have put another directory in its place: leave that alone. */
  if (fstat(fd, &st) < 0)
    rc = -errno;
  else if (st.st_uid == geteuid() && fchmod(fd, mode & 07777) < 0)
    rc = -errno;
  close(fd);
  return rc;
}

/* Opens the directory name in dir_fd, making it first if it is missing. */
static int enter_or_make(int dir_fd, const char *name, mode_t mode, int replace_links) {
  int fd = -ENOENT;
  for (int attempt = 0; attempt < FB_RACE_RETRIES_MAX; attempt++) {
    fd = open_component(dir_fd, name, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    fd = name_the_link(dir_fd, name, fd);
    if (fd == -ELOOP && replace_links) {
      if (unlinkat(dir_fd, name, 0) < 0 && errno != ENOENT)
        return -errno;
    } else if (fd != -ENOENT) {
      return fd;
    }
    if (mkdirat(dir_fd, name, mode & 0777) == 0) {
      int rc = finish_directory(dir_fd, name, mode);
      if (rc < 0 && rc != -ENOENT && rc != -ENOTDIR && rc != -ELOOP)
        return rc;
    } else if (errno != EEXIST) {
      return -errno;
    }
  }
  return fd;
}

int fb_make_parent(int root_fd, const char *path, size_t path_len, mode_t mode,
                   int replace_links, const char **name, size_t *name_len) {
  int fd = fb_open_parent(root_fd, path, path_len, name, name_len);
  if (fd != -ENOENT && !(fd == -ELOOP && replace_links))
    return fd;
  size_t dir_len;
  int rc = split(path, path_len, &dir_len, name, name_len);
  if (rc < 0)
    return rc;
  int dir_fd = root_fd;
  size_t start = 0;
  while (start < dir_len) {
    char component[NAME_MAX + 1];
    size_t length = component_length(path + start, dir_len - start);
    memcpy(component, path + start, length);
    component[length] = '\0';
    fd = enter_or_make(dir_fd, component, mode, replace_links);
    if (dir_fd != root_fd)
      close(dir_fd);
    if (fd < 0)
      return fd;
    dir_fd = fd;
    start += length + 1;
  }
  if (dir_fd == root_fd)
    return fb_open_beneath(root_fd, path, 0, O_PATH | O_DIRECTORY, 0);
  return dir_fd;
}
