/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore_make.h.  What stands at a file's name is unlinked and the file made
 * anew with O_EXCL: an old file's other names and its open readers keep the old
 * contents, and no link is ever written through.
 */
#include "restore_make.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include "beneath.h"

/* How often a file is tried again after what stood in the way was dealt with. */
#define MAKE_TRIES_MAX 4

enum fb_kind fb_make_kind(const struct restore_pkt *rp) {
  mode_t mode = rp->statp.st_mode;
  switch (rp->type) {
  case FT_REG:
  case FT_REGE:
    return FB_KIND_FILE;
  case FT_DIREND:
    return FB_KIND_DIRECTORY;
  case FT_LNK:
    return FB_KIND_SYMLINK;
  case FT_LNKSAVED:
    return FB_KIND_HARD_LINK;
  case FT_SPEC:
  case FT_RAW:
  case FT_FIFO:
    return S_ISFIFO(mode) || S_ISCHR(mode) || S_ISBLK(mode) || S_ISSOCK(mode)
               ? FB_KIND_SPECIAL
               : FB_KIND_NONE;
  default:
    return FB_KIND_NONE;
  }
}

bool fb_make_is_stub(const struct restore_pkt *rp) {
  return rp->type == FT_REGE && rp->statp.st_size > 0;
}

/* What is being made; for hard links also where the first name is. */
struct making {
  enum fb_kind kind;
  const struct restore_pkt *rp;
  const struct fb_layout_ahead *layout;
  int open_flags; /* of a regular file, for its layout */
  int first_dir_fd;
  char first_name[NAME_MAX + 1];
};

/* NULL to go on, or why what stands there is left as it is.  Compares like
 * Bacula's own restore, in whole seconds. */
static const char *reason_to_skip(const struct restore_pkt *rp, const struct stat *there) {
  if (fb_make_is_stub(rp) && S_ISREG(there->st_mode) && there->st_size > 0)
    return "Saved without its data, which is perhaps here";
  bool is_marked =
      S_ISDIR(there->st_mode) && (there->st_mode & (S_ISUID | S_IRWXU)) == FB_MARKED_MODE;
  if (rp->replace == REPLACE_ALWAYS || is_marked)
    return NULL;
  if (rp->replace == REPLACE_IFNEWER)
    return rp->statp.st_mtime <= there->st_mtime ? "Not newer" : NULL;
  if (rp->replace == REPLACE_IFOLDER)
    return rp->statp.st_mtime >= there->st_mtime ? "Not older" : NULL;
  return "Already exists"; /* never, and whatever else a packet may say */
}

/* Splits a path into its directory and its name (copied). */
static int split_path(const char *path, size_t path_len, size_t *dir_len,
                      char name[NAME_MAX + 1]) {
  const char *slash = memrchr(path, '/', path_len);
  size_t name_at = slash != NULL ? (size_t)(slash - path) + 1 : 0;
  if (path_len - name_at > NAME_MAX)
    return -ENAMETOOLONG;
  *dir_len = name_at > 0 ? name_at - 1 : 0;
  memcpy(name, path + name_at, path_len - name_at);
  name[path_len - name_at] = '\0';
  return 0;
}

static bool is_same_inode(int one_fd, const char *one, int other_fd, const char *other) {
  struct stat a, b;
  return fstatat(one_fd, one, &a, AT_SYMLINK_NOFOLLOW) == 0 &&
         fstatat(other_fd, other, &b, AT_SYMLINK_NOFOLLOW) == 0 && a.st_ino == b.st_ino &&
         a.st_dev == b.st_dev;
}

static int make_link(const struct making *m, int dir_fd, const char *name) {
  if (linkat(m->first_dir_fd, m->first_name, dir_fd, name, 0) == 0)
    return 0;
  int error = errno;
  if (error == EEXIST && is_same_inode(m->first_dir_fd, m->first_name, dir_fd, name))
    return 0;
  return -error;
}

/* Whether fd, opened by name, is what was just made under that name: who may write
 * the directory can move another inode there in between, and it would be given the
 * owner of the file restored.  Where the server maps root to another user (NFS), what
 * is made belongs to the directory's owner: that does if only the owner may write
 * the directory, for then the owner alone can have moved the inode there. */
static bool is_as_made(const struct making *m, int dir_fd, int fd) {
  const struct restore_pkt *rp = m->rp;
  bool is_link = m->kind == FB_KIND_SYMLINK;
  mode_t type = is_link ? S_IFLNK : rp->statp.st_mode & S_IFMT;
  struct stat st, dir;
  if (fstat(fd, &st) < 0 || fstat(dir_fd, &dir) < 0)
    return false;
  if ((st.st_mode & S_IFMT) != type || st.st_nlink != 1)
    return false;
  if (st.st_uid != geteuid() &&
      (st.st_uid != dir.st_uid || (dir.st_mode & (S_IWGRP | S_IWOTH)) != 0))
    return false;
  if (is_link) {
    const char *wanted = rp->olname != NULL ? rp->olname : "";
    char text[PATH_MAX];
    ssize_t length = readlinkat(fd, "", text, sizeof(text));
    return length >= 0 && (size_t)length == strlen(wanted) &&
           memcmp(text, wanted, (size_t)length) == 0;
  }
  return (type != S_IFCHR && type != S_IFBLK) || st.st_rdev == rp->statp.st_rdev;
}

/* Makes the name in dir_fd; 0 or -errno, -EEXIST if something stands there. */
static int make_name(const struct making *m, int dir_fd, const char *name, int *fd) {
  const struct restore_pkt *rp = m->rp;
  const mode_t mode = rp->statp.st_mode;
  int rc;
  if (m->kind == FB_KIND_HARD_LINK)
    return make_link(m, dir_fd, name);
  if (m->kind == FB_KIND_FILE) {
    *fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | m->open_flags,
                 0600);
    return *fd < 0 ? -errno : 0;
  }
  if (m->kind == FB_KIND_SYMLINK)
    rc = symlinkat(rp->olname != NULL ? rp->olname : "", dir_fd, name);
  else /* of what is no device st_rdev may hold times, which libc refuses as a number */
    rc = mknodat(dir_fd, name, (mode & S_IFMT) | 0600,
                 S_ISCHR(mode) || S_ISBLK(mode) ? rp->statp.st_rdev : 0);
  if (rc < 0)
    return -errno;
  /* O_PATH: nothing happens to a device or FIFO by it. */
  *fd = openat(dir_fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
  if (*fd < 0)
    return -errno;
  if (is_as_made(m, dir_fd, *fd))
    return 0;
  close(*fd);
  *fd = -1;
  return -EEXIST;
}

/* As make_name, after removing what stands there if the replace mode says so. */
static int make_or_replace(const struct making *m, int dir_fd, const char *name, int *fd,
                           const char **skip) {
  int rc = -EEXIST;
  for (int tries = 0; tries < MAKE_TRIES_MAX && rc == -EEXIST; tries++) {
    struct stat there;
    rc = make_name(m, dir_fd, name, fd);
    if (rc != -EEXIST || fstatat(dir_fd, name, &there, AT_SYMLINK_NOFOLLOW) < 0)
      continue;
    *skip = reason_to_skip(m->rp, &there);
    if (*skip != NULL)
      return -ECANCELED;
    int cleared = fb_place_clear(dir_fd, name);
    if (cleared < 0)
      return cleared;
  }
  return rc;
}

static int make_below(struct fb_place *place, struct making *m, const char *path,
                      size_t path_len, int *fd, const char **skip) {
  char name[NAME_MAX + 1];
  size_t dir_len;
  int rc = split_path(path, path_len, &dir_len, name);
  if (rc < 0)
    return rc;
  for (int tries = 0; tries < MAKE_TRIES_MAX; tries++) {
    int dir_fd = fb_place_directory(place, path, dir_len, m->rp->replace == REPLACE_ALWAYS);
    if (dir_fd < 0)
      return dir_fd;
    if (m->kind == FB_KIND_FILE && m->layout->kind != FB_LAYOUT_NONE)
      m->open_flags = fb_layout_open_flags(m->layout, fb_place_layouts(place));
    rc = make_or_replace(m, dir_fd, name, fd, skip);
    if (rc == -ENOENT) /* the directory has been removed since the last file */
      fb_place_forget(place);
    else if (rc != -EACCES || !fb_place_loosen(place, dir_fd, path, dir_len))
      return rc;
  }
  return rc;
}

static int make_directory(struct fb_place *place, const struct restore_pkt *rp,
                          const char *path, size_t path_len, const char **skip) {
  bool always = rp->replace == REPLACE_ALWAYS;
  if (!always) {
    struct stat there;
    int fd = fb_open_beneath(place->root_fd, path, path_len, O_PATH, 0);
    if (fd >= 0) {
      *skip = fstat(fd, &there) == 0 ? reason_to_skip(rp, &there) : NULL;
      close(fd);
      if (*skip != NULL)
        return -ECANCELED;
    }
  }
  int fd = fb_place_directory(place, path, path_len, always);
  return fd < 0 ? fd : 0; /* the place keeps this descriptor */
}

static int make_hard_link(struct fb_place *place, struct making *m, const char *path,
                          size_t path_len, const char **skip) {
  const char *first, *name;
  size_t first_len, name_len;
  int fd; /* stays unset: a link needs none */
  if (!fb_place_relative(place, m->rp->olname, &first, &first_len) || first_len == 0)
    return -EINVAL;
  m->first_dir_fd = fb_open_parent(place->root_fd, first, first_len, &name, &name_len);
  if (m->first_dir_fd < 0)
    return m->first_dir_fd;
  memcpy(m->first_name, name, name_len);
  m->first_name[name_len] = '\0';
  int rc = make_below(place, m, path, path_len, &fd, skip);
  close(m->first_dir_fd);
  return rc;
}

int fb_make(struct fb_place *place, enum fb_kind kind, const struct restore_pkt *rp,
            const struct fb_layout_ahead *layout, const char *path, size_t path_len, int *fd,
            const char **skip) {
  struct making m = {.kind = kind, .rp = rp, .layout = layout, .first_dir_fd = -1};
  *fd = -1;
  *skip = NULL;
  if (kind == FB_KIND_DIRECTORY)
    return make_directory(place, rp, path, path_len, skip);
  if (kind == FB_KIND_HARD_LINK)
    return make_hard_link(place, &m, path, path_len, skip);
  return make_below(place, &m, path, path_len, fd, skip);
}
