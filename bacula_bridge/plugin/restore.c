/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore.h.  The File Daemon's order for one file is: start_file,
 * create_file, [OPEN, WRITE and SEEK], set_attributes, [CLOSE], [xacl], end_file.
 * Everything is made in create_file and stays open until end_file, which applies
 * the attributes when nothing can touch them any more.  Regular files and nodes
 * are answered EXTRACT, directories, symlinks and hard links CREATED, nothing ever
 * CORE: after a CREATED file the daemon would write a CORE file through us.
 */
#include "restore.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "layout.h"
#include "restore_attributes.h"
#include "restore_directories.h"
#include "restore_make.h"
#include "restore_place.h"
#include "restore_report.h"

/* The file being restored. */
struct current {
  enum fb_kind kind;
  int fd; /* FB_KIND_FILE: for writing; symlinks and nodes: O_PATH; else -1 */
  bool open;
  bool failed; /* a write failed */
  bool whole;  /* the daemon has all of it behind it: attributes may follow */
  bool had_layout; /* ahead of its data */
  bool is_stub;    /* it was saved without its data */
  off_t offset;
  off_t end; /* of what was written so far */
  char *name; /* Bacula's name, for messages */
  size_t path_at, path_len; /* the part of name below the place */
  struct fb_attributes attributes;
};

struct fb_restore {
  struct fb_report report;
  struct fb_directories directories;
  struct fb_place place;
  char *work_dir;
  bool place_failed;
  struct current file;
  struct fb_layout_ahead ahead; /* of the next file */
  struct fb_summary summary;
};

struct fb_restore *fb_restore_new(const struct fb_host *host, const char *where,
                                  const char *work_dir) {
  struct fb_restore *r = calloc(1, sizeof(*r));
  if (r == NULL)
    return NULL;
  r->report.host = host;
  r->file.fd = -1;
  r->work_dir = strdup(work_dir != NULL ? work_dir : "");
  if (r->work_dir == NULL || fb_place_init(&r->place, where, &r->directories, &r->report) < 0) {
    free(r->work_dir);
    free(r);
    return NULL;
  }
  fb_directories_init(&r->directories, r->work_dir, r->place.where);
  return r;
}

void fb_restore_set_summary(struct fb_restore *r, const struct fb_summary *summary) {
  r->summary = *summary;
}

static const char *path_of(const struct current *file) { return file->name + file->path_at; }

static void say_failure(struct fb_restore *r, const char *what, int error) {
  char shown[FB_PRINTABLE_BYTES];
  fb_report_error(&r->report, "%s: %s: %s",
                  fb_printable(r->file.name, strlen(r->file.name), shown, sizeof(shown)), what,
                  strerror(error));
}

/* Forgets the current file without giving it attributes. */
static void drop_file(struct fb_restore *r) {
  struct current *file = &r->file;
  if (file->fd >= 0 && close(file->fd) < 0 && errno != EINTR)
    say_failure(r, "could not be written to the end", errno);
  free(file->name);
  *file = (struct current){.fd = -1, .attributes = file->attributes};
}

void fb_restore_free(struct fb_restore *r) {
  if (r == NULL)
    return;
  drop_file(r);
  fb_attributes_free(&r->file.attributes);
  fb_place_free(&r->place);
  fb_directories_free(&r->directories);
  free(r->work_dir);
  free(r);
}

bRC fb_restore_start_file(struct fb_restore *r, const char *command) {
  bRC rc = fb_restore_end_file(r); /* of a file whose end was never told */
  fb_layout_take_command(&r->ahead, command);
  return rc;
}

/* Names the file and finds its path; false if that is not below the place. */
static bool take_name(struct fb_restore *r, const struct restore_pkt *rp) {
  struct current *file = &r->file;
  const char *path;
  char shown[FB_PRINTABLE_BYTES];
  file->name = strdup(rp->ofname != NULL ? rp->ofname : "");
  if (file->name == NULL)
    return false;
  if (!fb_place_relative(&r->place, file->name, &path, &file->path_len)) {
    fb_report_error(&r->report, "%s: not restored, because this is no path below %s",
                    fb_printable(file->name, strlen(file->name), shown, sizeof(shown)),
                    r->place.where_len != 0 ? r->place.where : "/");
    return false;
  }
  file->path_at = (size_t)(path - file->name);
  bool has_slash = file->path_len > 0 && path[file->path_len - 1] == '/';
  if (rp->type == FT_DIREND)
    file->path_len -= has_slash;
  else if (has_slash || file->path_len == 0) {
    say_failure(r, "not restored, because only a directory may have this name", EINVAL);
    return false;
  }
  return true;
}

static void say_not_made(struct fb_restore *r, const struct restore_pkt *rp, int error) {
  char link[FB_PRINTABLE_BYTES], first[FB_PRINTABLE_BYTES];
  const char *olname = rp->olname != NULL ? rp->olname : "";
  if (r->file.kind == FB_KIND_HARD_LINK)
    fb_report_error(&r->report, "%s: could not be made a hard link to %s: %s%s",
                    fb_printable(r->file.name, strlen(r->file.name), link, sizeof(link)),
                    fb_printable(olname, strlen(olname), first, sizeof(first)),
                    strerror(error),
                    error == ENOENT ? "; its data goes by that name: restore both" : "");
  else if (error == ENOTEMPTY)
    say_failure(r, "a directory that is not empty stands in the way; move it and restore again",
                error);
  else if (error == ELOOP)
    say_failure(r, "a symlink stands at or above this path and is not followed; remove it, or "
                   "restore elsewhere", error);
  else
    say_failure(r, "could not be made", error);
}

/* Opens the place once for the job; where it cannot be had, nothing can. */
static bool has_place(struct fb_restore *r) {
  if (r->place_failed)
    return false;
  bool is_new = r->place.root_fd < 0;
  int rc = fb_place_open(&r->place);
  if (rc == 0 && is_new)
    fb_report_summary(&r->report, &r->summary,
                      r->place.where_len != 0 ? fb_layout_kind(r->place.root_fd)
                                              : r->summary.kind);
  if (rc < 0) {
    char shown[FB_PRINTABLE_BYTES];
    r->place_failed = true;
    fb_say(r->report.host, M_FATAL,
           "The restore place %s could not be opened or made: %s. Name another with Where.",
           fb_printable(r->place.where, r->place.where_len, shown, sizeof(shown)),
           strerror(-rc));
  }
  return rc == 0;
}

/* The record that came last could be another file's, if one was lost on the volume.
 * Bacula's attributes have room for 63 bits of the number. */
static void match_layout(struct fb_restore *r, const struct restore_pkt *rp) {
  if (r->ahead.kind != FB_LAYOUT_NONE &&
      ((r->ahead.ino ^ rp->statp.st_ino) & (uint64_t)INT64_MAX) != 0) {
    r->ahead.kind = FB_LAYOUT_NONE;
    r->ahead.is_damaged = true;
  }
}

/* Right after the file was made, before its data; 0 or -errno. */
static int apply_layout(struct fb_restore *r) {
  struct current *file = &r->file;
  struct fb_layout_ahead *ahead = &r->ahead;
  int error;
  if (file->kind != FB_KIND_FILE || (ahead->kind == FB_LAYOUT_NONE && !ahead->is_damaged))
    return 0;
  int outcome = fb_layout_apply_file(ahead, fb_place_layouts(&r->place), &file->fd, &error);
  file->had_layout = true;
  ahead->kind = FB_LAYOUT_NONE; /* it is for one file */
  ahead->is_damaged = false;
  if (outcome < 0)
    return outcome;
  if (outcome != FB_LAYOUT_KEPT)
    fb_report_layout(&r->report, (enum fb_layout_outcome)outcome, error, file->name,
                     strlen(file->name));
  return 0;
}

bRC fb_restore_create_file(struct fb_restore *r, struct restore_pkt *rp) {
  struct current *file = &r->file;
  const char *skip = NULL;
  rp->create_status = CF_ERROR;
  fb_restore_end_file(r);
  if (rp->type == FT_DELETED) {
    rp->create_status = CF_SKIP;
    return bRC_OK;
  }
  if (!has_place(r) || !take_name(r, rp)) {
    drop_file(r);
    return bRC_OK;
  }
  file->kind = fb_make_kind(rp);
  if (file->kind == FB_KIND_NONE) {
    say_failure(r, "not restored, because its kind is unknown", EINVAL);
    drop_file(r);
    return bRC_OK;
  }
  match_layout(r, rp);
  int rc = fb_make(&r->place, file->kind, rp, &r->ahead, path_of(file), file->path_len, &file->fd,
                   &skip);
  if (rc == 0)
    rc = apply_layout(r);
  if (skip != NULL) {
    fb_report_skip(&r->report, skip, file->name, strlen(file->name));
    r->report.stubs_left_out += fb_make_is_stub(rp) && rp->replace == REPLACE_ALWAYS;
    rp->create_status = CF_SKIP;
    drop_file(r);
  } else if (rc < 0) {
    say_not_made(r, rp, -rc);
    drop_file(r);
  } else {
    bool has_data = file->kind == FB_KIND_FILE || file->kind == FB_KIND_SPECIAL;
    fb_attributes_begin(&file->attributes, &rp->statp);
    file->is_stub = fb_make_is_stub(rp);
    file->whole = !has_data;
    rp->create_status = has_data ? CF_EXTRACT : CF_CREATED;
  }
  return bRC_OK;
}

/* Writes all of it at the current offset; 0 or errno. */
static int write_data(struct current *file, const char *data, size_t size) {
  /* A hole at the end of a file is saved as the one zero byte that fixes the size:
   * make it a hole again. */
  if (size == 1 && data[0] == '\0' && file->offset > file->end) {
    if (ftruncate(file->fd, file->offset + 1) < 0)
      return errno;
    file->end = ++file->offset;
    return 0;
  }
  while (size > 0) {
    ssize_t written = pwrite(file->fd, data, size, file->offset);
    if (written < 0 && errno != EINTR)
      return errno;
    if (written == 0)
      return ENOSPC;
    if (written > 0) {
      data += written;
      file->offset += written;
      size -= (size_t)written;
      if (file->end < file->offset)
        file->end = file->offset;
    }
  }
  return 0;
}

/* 0 or errno. */
static int seek(struct current *file, const struct io_pkt *io) {
  int64_t base = 0, to;
  struct stat st;
  if (io->whence == SEEK_CUR)
    base = file->offset;
  else if (io->whence == SEEK_END && fstat(file->fd, &st) == 0)
    base = st.st_size;
  else if (io->whence == SEEK_END)
    return errno;
  else if (io->whence != SEEK_SET)
    return EINVAL;
  if (__builtin_add_overflow(base, io->offset, &to) || to < 0)
    return EINVAL;
  file->offset = to;
  return 0;
}

/* OPEN, WRITE and SEEK of a regular file; 0 or errno. */
static int file_io(struct current *file, struct io_pkt *io) {
  int error;
  switch (io->func) {
  case IO_OPEN:
    file->open = true;
    file->offset = 0;
    return 0;
  case IO_WRITE:
    if (!file->open)
      return EBADF;
    if (io->count < 0 || (io->buf == NULL && io->count > 0))
      return EINVAL;
    error = write_data(file, io->buf, (size_t)io->count);
    file->failed |= error != 0;
    io->status = error == 0 ? io->count : -1;
    return error;
  case IO_SEEK:
    error = seek(file, io);
    io->offset = error == 0 ? file->offset : -1;
    return error;
  default:
    return EINVAL;
  }
}

bRC fb_restore_io(struct fb_restore *r, struct io_pkt *io) {
  struct current *file = &r->file;
  int error = 0;
  io->status = 0;
  if (io->func == IO_CLOSE)
    file->open = false; /* fd stays for the attributes */
  else if (file->kind == FB_KIND_FILE)
    error = file_io(file, io);
  else if (file->kind == FB_KIND_SPECIAL && io->func == IO_OPEN)
    error = 0; /* there is nothing to open: the node is made */
  else if (file->kind == FB_KIND_SPECIAL && io->func == IO_SEEK)
    io->offset = 0;
  else
    error = EBADF;
  if (error != 0) {
    io->status = -1;
    if (io->func == IO_SEEK)
      io->offset = -1;
  }
  io->io_errno = error;
  io->lerror = 0;
  io->win32 = false;
  return bRC_OK;
}

/* Comes after the data.  A file that the daemon gave up (a write failed, the job was
 * cancelled) keeps the mode 0600 and the time of now: with the saved time it would
 * look like the whole file. */
bRC fb_restore_set_attributes(struct fb_restore *r, struct restore_pkt *rp) {
  const struct fb_host *host = r->report.host;
  rp->create_status = 0; /* the daemon is to set nothing: end_file does */
  if (r->file.kind == FB_KIND_FILE)
    r->file.whole = !r->file.failed && !host->is_canceled(host->context);
  else
    r->file.whole = true;
  return bRC_OK;
}

bRC fb_restore_xacl(struct fb_restore *r, struct xacl_pkt *xacl) {
  struct current *file = &r->file;
  if (xacl->func == BXATTR_RESTORE && xacl->count > 0 && xacl->content != NULL &&
      file->kind != FB_KIND_NONE && file->kind != FB_KIND_HARD_LINK)
    fb_attributes_add(&file->attributes, (const uint8_t *)xacl->content, (size_t)xacl->count);
  return bRC_OK;
}

/* Notes a directory for the end of the job. */
static void end_directory(struct fb_restore *r) {
  struct current *file = &r->file;
  int rc = fb_directories_note(&r->directories, FB_NOTE_ENTRY, path_of(file), file->path_len, 0,
                               &file->attributes);
  if (rc == 0)
    return;
  say_failure(r, "its attributes could not be kept for the end of the job and were set at once; "
                 "its times may be wrong, and a layout, quota or pin is not set", -rc);
  file->attributes.without_layout = true; /* a quota would be in the way of what is to come */
  fb_directories_apply_entry(r->place.root_fd, file->name, file->path_at, file->path_len,
                             &file->attributes, &r->report);
}

/* Whether a regular file has the size it was saved with.  The daemon compares sizes
 * only if it is answered CORE, so that what could not be read at backup or is lost
 * on a volume would pass for the whole file. */
static bool has_its_size(struct fb_restore *r) {
  struct current *file = &r->file;
  uint64_t saved = file->attributes.stat.size, came;
  struct stat st;
  char shown[FB_PRINTABLE_BYTES];
  if (fstat(file->fd, &st) < 0) {
    say_failure(r, "its size could not be checked; restore it again", errno);
    return false;
  }
  came = (uint64_t)st.st_size;
  if (came == saved || (file->is_stub && came == 0))
    return true;
  fb_report_error(&r->report,
                  "%s: the backup of this file is %s: %" PRIu64 " of %" PRIu64 " bytes came; "
                  "take it from another run",
                  fb_printable(file->name, strlen(file->name), shown, sizeof(shown)),
                  came < saved ? "incomplete" : "damaged", came, saved);
  return false;
}

/* An empty file that is not the saved one: it has its attributes, and a mark that can be looked
 * for.  After them, since they take away what the stream does not name. */
static void mark_stub(struct fb_restore *r) {
  struct current *file = &r->file;
  char text[24];
  int length = snprintf(text, sizeof(text), "%" PRIu64, file->attributes.stat.size);
  int rc = fsetxattr(file->fd, FB_STUB_MARK, text, (size_t)length, 0);
  fb_report_stub(&r->report, file->attributes.stat.size, rc < 0 ? errno : 0, file->name,
                 strlen(file->name));
}

/* A layout that is in the stream alone cannot be set any more. */
static void say_late_layout(struct fb_restore *r) {
  struct current *file = &r->file;
  enum fb_layout_outcome outcome = fb_layout_of_late_stream(&file->attributes.stream);
  if (outcome != FB_LAYOUT_KEPT && fb_place_layouts(&r->place) == FB_LAYOUT_LUSTRE)
    fb_report_layout(&r->report, outcome, 0, file->name, strlen(file->name));
}

bRC fb_restore_end_file(struct fb_restore *r) {
  struct current *file = &r->file;
  if (file->kind == FB_KIND_FILE && file->whole)
    file->whole = has_its_size(r); /* if not, it is left like a file with a failed write */
  if (file->kind != FB_KIND_NONE && file->kind != FB_KIND_HARD_LINK && file->whole) {
    size_t name_len = strlen(file->name);
    const char *why = fb_attributes_shortcoming(&file->attributes);
    if (why != NULL)
      fb_report_without_stream(&r->report, why, file->name, name_len);
    if (file->kind == FB_KIND_FILE && !file->had_layout)
      say_late_layout(r);
    if (file->kind == FB_KIND_DIRECTORY)
      end_directory(r);
    else
      fb_attributes_apply(&file->attributes, file->kind, file->fd, file->kind != FB_KIND_FILE,
                          &r->report, file->name, name_len);
    if (file->is_stub)
      mark_stub(r);
  }
  drop_file(r);
  return bRC_OK;
}

void fb_restore_end_job(struct fb_restore *r) {
  fb_restore_end_file(r);
  fb_place_forget(&r->place);
  if (r->place.root_fd >= 0)
    fb_directories_finish(&r->directories, r->place.root_fd, &r->report);
  fb_report_end(&r->report);
}
