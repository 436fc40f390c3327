/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore_place.h.
 */
#include "restore_place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "beneath.h"

/* How often one step is tried again after what stood in the way was dealt with. */
#define STEP_TRIES_MAX 4

int fb_place_init(struct fb_place *place, const char *where,
                  struct fb_directories *directories, struct fb_report *report) {
  *place = (struct fb_place){
      .root_fd = -1, .last_dir_fd = -1, .directories = directories, .report = report};
  place->where = strdup(where != NULL ? where : "");
  if (place->where == NULL)
    return -ENOMEM;
  place->where_len = strlen(place->where);
  while (place->where_len > 0 && place->where[place->where_len - 1] == '/')
    place->where[--place->where_len] = '\0';
  return 0;
}

void fb_place_forget(struct fb_place *place) {
  if (place->last_dir_fd >= 0)
    close(place->last_dir_fd);
  place->last_dir_fd = -1;
}

void fb_place_free(struct fb_place *place) {
  fb_place_forget(place);
  if (place->root_fd >= 0)
    close(place->root_fd);
  free(place->last_dir);
  free(place->where);
}

/* The administrator named this path: links in it are followed. */
static int make_where(char *where) {
  for (char *slash = where; slash != NULL;) {
    slash = strchr(slash + 1, '/');
    if (slash != NULL)
      *slash = '\0';
    int rc = mkdir(where, 0755);
    int error = errno;
    if (slash != NULL)
      *slash = '/';
    struct stat st;
    /* A directory that is there may answer EROFS or EACCES as well. */
    if (rc < 0 && error != EEXIST && slash == NULL &&
        (stat(where, &st) < 0 || !S_ISDIR(st.st_mode)))
      return -error;
  }
  return 0;
}

int fb_place_open(struct fb_place *place) {
  if (place->root_fd >= 0)
    return 0;
  const char *where = place->where_len != 0 ? place->where : "/";
  int fd = open(where, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT) {
    int rc = make_where(place->where);
    if (rc < 0)
      return rc;
    fd = open(where, O_PATH | O_DIRECTORY | O_CLOEXEC);
  }
  if (fd < 0)
    return -errno;
  place->root_fd = fd;
  return 0;
}

bool fb_place_relative(const struct fb_place *place, const char *name, const char **path,
                       size_t *path_len) {
  if (name == NULL || strncmp(name, place->where, place->where_len) != 0)
    return false;
  const char *rest = name + place->where_len;
  if (*rest != '/')
    return false;
  rest += strspn(rest, "/");
  size_t length = strnlen(rest, FB_PLACE_PATH_BYTES_MAX + 1);
  if (length > FB_PLACE_PATH_BYTES_MAX)
    return false;
  *path = rest;
  *path_len = length;
  for (const char *part = rest; length != 0;) {
    const char *slash = memchr(part, '/', (size_t)(rest + length - part));
    size_t part_len = (size_t)((slash != NULL ? slash : rest + length) - part);
    bool only_end = part_len == 0 && part != rest && slash == NULL;
    if (!only_end && (part_len == 0 || (part_len == 1 && part[0] == '.') ||
                      (part_len == 2 && part[0] == '.' && part[1] == '.')))
      return false;
    if (slash == NULL)
      break;
    part = slash + 1;
  }
  return true;
}

int fb_place_clear(int dir_fd, const char *name) {
  if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
    return 0;
  if (errno != EISDIR && errno != EPERM)
    return -errno;
  int error = errno; /* EPERM is what POSIX has for a directory; other reasons stay */
  if (unlinkat(dir_fd, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
    return 0;
  return errno == ENOTDIR ? -error : -errno;
}

static void note(struct fb_place *place, enum fb_note kind, const char *path, size_t path_len,
                 mode_t mode) {
  char shown[FB_PRINTABLE_BYTES];
  int rc = fb_directories_note(place->directories, kind, path, path_len, mode, NULL);
  if (rc < 0)
    fb_report_warning(place->report,
                      "%s: this directory keeps a temporary mode, because %s holds no room "
                      "for a note about it: %s",
                      fb_printable(path, path_len, shown, sizeof(shown)),
                      place->directories->work_dir, strerror(-rc));
}

bool fb_place_loosen(struct fb_place *place, int dir_fd, const char *dir, size_t dir_len) {
  struct stat st;
  char link[40];
  if (fstat(dir_fd, &st) < 0 || st.st_uid != geteuid() ||
      (st.st_mode & S_IRWXU) == S_IRWXU)
    return false;
  snprintf(link, sizeof(link), "/proc/self/fd/%d", dir_fd);
  if (chmod(link, (st.st_mode & 07777) | S_IRWXU) < 0)
    return false;
  note(place, FB_NOTE_LOOSENED, dir, dir_len, st.st_mode & 07777);
  return true;
}

/* Makes the one directory name in dir_fd; its O_PATH descriptor or -errno. */
static int make_one(int dir_fd, const char *name, size_t name_len, bool take_links) {
  char pair[NAME_MAX + 3]; /* fb_make_parent makes the parent of "name/x" */
  const char *last;
  size_t last_len;
  memcpy(pair, name, name_len);
  memcpy(pair + name_len, "/x", 2);
  return fb_make_parent(dir_fd, pair, name_len + 2, FB_MARKED_MODE, take_links, &last,
                        &last_len);
}

/* One step down: the directory path[start, end) in dir_fd. */
static int step(struct fb_place *place, int dir_fd, const char *path, size_t start, size_t end,
                bool take_away) {
  const char *name = path + start;
  size_t name_len = end - start;
  size_t above_len = start > 0 ? start - 1 : 0;
  /* In the original place a link above the tree may be how this machine is laid out
   * (/home -> /data/home): it is an error there, never replaced. */
  bool take_links = take_away && place->where_len != 0;
  int fd = -ENOENT;
  if (name_len > NAME_MAX)
    return -ENAMETOOLONG;
  for (int tries = 0; tries < STEP_TRIES_MAX; tries++) {
    fd = fb_open_beneath(dir_fd, name, name_len, O_PATH | O_DIRECTORY, 0);
    if (fd == -ENOENT || (take_away && fd == -ENOTDIR) || (take_links && fd == -ELOOP)) {
      char file[NAME_MAX + 1];
      memcpy(file, name, name_len);
      file[name_len] = '\0';
      int rc = fd == -ENOTDIR && unlinkat(dir_fd, file, 0) < 0 ? -errno : 0;
      fd = rc < 0 ? rc : make_one(dir_fd, name, name_len, take_links);
      /* With another replace mode than always the mark must outlast the job: a later
       * job that brings this directory's entry (shards are restored by one job each,
       * their directories by one more) would take it for one that was there before. */
      if (fd >= 0 && take_away)
        note(place, FB_NOTE_MADE, path, end, 0);
    }
    if (fd != -EACCES || !fb_place_loosen(place, dir_fd, path, above_len))
      return fd;
  }
  return fd;
}

static int walk(struct fb_place *place, const char *dir, size_t dir_len, bool take_away) {
  int fd = fb_open_beneath(place->root_fd, dir, 0, O_PATH | O_DIRECTORY, 0);
  for (size_t start = 0; fd >= 0 && start < dir_len;) {
    const char *slash = memchr(dir + start, '/', dir_len - start);
    size_t end = slash != NULL ? (size_t)(slash - dir) : dir_len;
    int next = step(place, fd, dir, start, end, take_away);
    close(fd);
    fd = next;
    start = end + 1;
  }
  return fd;
}

static int remember(struct fb_place *place, const char *dir, size_t dir_len, int fd) {
  if (place->last_dir_capacity < dir_len + 1) {
    char *grown = realloc(place->last_dir, dir_len + 256);
    if (grown == NULL) {
      close(fd);
      return -ENOMEM;
    }
    place->last_dir = grown;
    place->last_dir_capacity = dir_len + 256;
  }
  memcpy(place->last_dir, dir, dir_len);
  place->last_dir_len = dir_len;
  place->last_dir_fd = fd;
  place->last_dir_asked = false;
  return fd;
}

enum fb_layout_kind fb_place_layouts(struct fb_place *place) {
  if (place->last_dir_fd < 0)
    return FB_LAYOUT_NONE;
  if (!place->last_dir_asked)
    place->last_dir_layouts = fb_layout_kind(place->last_dir_fd);
  place->last_dir_asked = true;
  return place->last_dir_layouts;
}

int fb_place_directory(struct fb_place *place, const char *dir, size_t dir_len,
                       bool take_away) {
  if (place->last_dir_fd >= 0 && place->last_dir_len == dir_len &&
      memcmp(place->last_dir, dir, dir_len) == 0)
    return place->last_dir_fd;
  fb_place_forget(place);
  int fd = fb_open_beneath(place->root_fd, dir, dir_len, O_PATH | O_DIRECTORY, 0);
  if (fd == -ENOENT || fd == -EACCES || (take_away && (fd == -ELOOP || fd == -ENOTDIR)))
    fd = walk(place, dir, dir_len, take_away);
  return fd < 0 ? fd : remember(place, dir, dir_len, fd);
}
