/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See backup.h.
 */
#include "backup.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "content.h"
#include "log.h"
#include "restore_object.h"
#include "session.h"

static char plugin_name[] = "forebay:"; /* not const: save_pkt's type */
static char object_name[] = FB_OBJECT_NAME;

/* The first name of an inode with several, once Bacula has it. */
struct first_name {
  bool is_saved;
  char *fname;
  size_t capacity;
  int32_t file_index;
  uint64_t ino; /* as the entry told it */
  struct stat st;
  int64_t read_ns;
};

struct fb_backup {
  const struct fb_host *host;
  struct fb_session *session;
  struct fb_log log;
  struct fb_content content;
  struct fb_prefetch *current; /* what Bacula is being given */
  bool is_link;
  bool is_started; /* by startBackupFile */
  bool is_done;    /* DONE_ACK came */
  bool said_fatal;
  int32_t file_index;
  struct first_name first;
  char *fname;
  size_t fname_capacity;
  char *command; /* of a file with a layout */
  size_t command_capacity;
  size_t blob_offset;
  struct fb_tally tally;
  char *object; /* it is to be sent, or is being sent: the last of the job */
  size_t object_size;
  uint64_t files, bytes, sockets;
};

/* Ends the job: M_FATAL once, nothing for a cancelled job. */
static bRC give_up(struct fb_backup *b) {
  char reason[FB_ERROR_BYTES];
  if (fb_session_reason(b->session, reason) && !b->said_fatal) {
    b->said_fatal = true;
    fb_say(b->host, M_FATAL, "forebay: %s: %s", b->log.label, reason);
  }
  return bRC_Error;
}

static bRC fail(struct fb_backup *b, const char *reason) {
  fb_session_fail(b->session, reason);
  return give_up(b);
}

static int grow(char **buffer, size_t *capacity, size_t bytes) {
  if (bytes <= *capacity)
    return 0;
  char *grown = realloc(*buffer, bytes * 2);
  if (grown == NULL)
    return -1;
  *buffer = grown;
  *capacity = bytes * 2;
  return 0;
}

/* root + "/" + path, with a further '/' behind a directory. */
static int make_fname(struct fb_backup *b, const struct fb_entry *e) {
  const struct fb_accept *accept = fb_session_accept(b->session);
  size_t root_len = accept->root_len == 1 ? 0 : accept->root_len;
  if (grow(&b->fname, &b->fname_capacity, root_len + e->path_len + 3) < 0)
    return -1;
  char *p = b->fname;
  memcpy(p, accept->root, root_len);
  p += root_len;
  *p++ = '/';
  memcpy(p, e->path, e->path_len);
  p += e->path_len;
  if (S_ISDIR(e->mode) && e->error == 0 && e->path_len > 0)
    *p++ = '/';
  *p = 0;
  return 0;
}

static void attributes_to_receipt(struct fb_receipt *receipt, const struct stat *st) {
  receipt->size = (uint64_t)st->st_size;
  receipt->atime_s = st->st_atim.tv_sec;
  receipt->mtime_s = st->st_mtim.tv_sec;
  receipt->ctime_s = st->st_ctim.tv_sec;
  receipt->atime_ns = (uint32_t)st->st_atim.tv_nsec;
  receipt->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
  receipt->ctime_ns = (uint32_t)st->st_ctim.tv_nsec;
  receipt->mode = st->st_mode;
  receipt->uid = st->st_uid;
  receipt->gid = st->st_gid;
  receipt->nlink = st->st_nlink > UINT32_MAX ? UINT32_MAX : (uint32_t)st->st_nlink;
  receipt->rdev = st->st_rdev;
}

/* Ends an entry of which nothing goes to Bacula. */
static bool leave_out(struct fb_backup *b, struct fb_prefetch *item, enum fb_status status,
                      int error) {
  struct fb_receipt receipt = {.number = item->entry.number,
                               .ino = item->entry.ino,
                               .mode = item->entry.mode,
                               .status = status,
                               .error = error};
  return fb_session_release(b->session, item, &receipt);
}

/* A further name: the same inode as the first, or else it stands for itself. */
static bool prepare_link(struct fb_backup *b, struct fb_prefetch *item) {
  b->is_link = false;
  if (!item->follower || item->entry.ino != b->first.ino)
    b->first.is_saved = false;
  if (item->follower && item->status == FB_SAVED && item->needs_data) {
    if (!b->first.is_saved)
      fb_reader_promote(fb_session_reader(b->session), item);
    else if (item->st.st_dev == b->first.st.st_dev && item->st.st_ino == b->first.st.st_ino)
      b->is_link = true;
    else
      item->status = FB_REPLACED;
  }
  return b->is_link;
}

/* It is no fault of the file, and the next ones would fare the same. */
static void fail_without_descriptors(struct fb_backup *b, int error) {
  char reason[FB_ERROR_BYTES], name[FB_PRINTABLE_BYTES];
  struct rlimit limit = {0, 0};
  fb_escape_text(b->fname, strlen(b->fname), name);
  getrlimit(RLIMIT_NOFILE, &limit);
  if (error == ENFILE)
    snprintf(reason, sizeof reason,
             "cannot open %.600s: the machine is at its limit of open files: raise fs.file-max "
             "(sysctl) and run the job again", name);
  else
    snprintf(reason, sizeof reason,
             "cannot open %.600s: the File Daemon is at its limit of %ju open files: raise "
             "LimitNOFILE of the File Daemon's service, restart it and run the job again",
             name, (uintmax_t)limit.rlim_cur);
  fb_session_fail(b->session, reason);
}

enum decision { SEND, LEFT_OUT, BROKEN };

/* What becomes of the head entry. */
static enum decision decide(struct fb_backup *b, struct fb_prefetch *item) {
  const struct fb_entry *e = &item->entry;
  if (make_fname(b, e) < 0) {
    fb_session_fail(b->session, "no memory for a file name");
    return BROKEN;
  }
  fb_log_not_descended(&b->log, b->fname, e);
  if (e->error != 0) {
    fb_log_scan_error(&b->log, b->fname, e);
    return leave_out(b, item, FB_SCAN_ERROR, e->error) ? LEFT_OUT : BROKEN;
  }
  if ((e->flags & FB_ENTRY_DELETED) != 0)
    return SEND;
  if (S_ISSOCK(e->mode)) {
    b->sockets++;
    return leave_out(b, item, FB_SKIPPED, 0) ? LEFT_OUT : BROKEN;
  }
  prepare_link(b, item);
  if (item->status == FB_SAVED || item->status == FB_CHANGED || item->status == FB_STUB)
    return SEND;
  if (item->status == FB_RELEASED) {
    b->log.released++;
    return leave_out(b, item, FB_RELEASED, 0) ? LEFT_OUT : BROKEN;
  }
  if (!fb_session_is_up(b->session))
    return BROKEN;
  if (item->retry == FB_RETRY_DESCRIPTOR) {
    fail_without_descriptors(b, item->error);
    return BROKEN;
  }
  fb_log_not_saved(&b->log, b->fname, item->status, item->error);
  return leave_out(b, item, item->status, item->error) ? LEFT_OUT : BROKEN;
}

/* After all that Bacula gets: the bridge makes the receipts durable. */
static bRC finish(struct fb_backup *b) {
  if (!fb_session_finish(b->session, b->bytes, b->log.warnings + b->log.released))
    return give_up(b);
  b->is_done = true;
  fb_log_summary(&b->log, b->files, b->bytes, b->sockets);
  return bRC_OK;
}

/* Is there still something for Bacula? */
static bool is_more(const struct fb_backup *b) { return b->current != NULL || b->object != NULL; }

/* The next entry that Bacula gets becomes current, behind the last one the restore object.  OK
 * with neither: the stream is complete and the bridge has acknowledged it. */
static bRC prepare_next(struct fb_backup *b) {
  struct fb_prefetch *item;
  b->current = NULL;
  b->is_started = false;
  for (;;) {
    enum fb_next next = fb_session_next(b->session, &item);
    if (next == FB_NEXT_STOPPED)
      return give_up(b);
    if (next == FB_NEXT_END)
      break;
    enum decision decision = decide(b, item);
    if (decision == BROKEN)
      return give_up(b);
    if (decision == SEND) {
      b->current = item;
      return bRC_OK;
    }
  }
  if (fb_tally_is_empty(&b->tally))
    return finish(b);
  b->object = fb_tally_text(&b->tally, fb_session_accept(b->session)->root, &b->object_size);
  return b->object != NULL ? bRC_OK : fail(b, "no memory for the restore object");
}

struct fb_backup *fb_backup_new(const struct fb_host *host, const struct fb_command *command,
                                const struct fb_job *job) {
  char error[FB_ERROR_BYTES] = "no memory";
  struct fb_backup *b = calloc(1, sizeof *b);
  const struct fb_hello hello = {.level = job->level,
                                 .shard = command->shard,
                                 .shard_count = command->shard_count,
                                 .job_id = job->job_id,
                                 .since = job->since,
                                 .dataset = command->dataset,
                                 .job = job->name,
                                 .previous_job = job->previous_name,
                                 .client = job->client};
  if (b != NULL) {
    b->host = host;
    fb_log_init(&b->log, host, command);
    b->session = fb_session_start(host, command, &hello, error);
    if (b->session != NULL)
      return b;
  }
  fb_say(host, M_FATAL, "forebay: dataset %s, shard %" PRIu32 "/%" PRIu32 ": %s",
         command->dataset, command->shard, command->shard_count, error);
  free(b);
  return NULL;
}

bRC fb_backup_begin(struct fb_backup *b) {
  if (!fb_session_wait_accept(b->session))
    return give_up(b);
  const struct fb_accept *accept = fb_session_accept(b->session);
  char text[FB_PRINTABLE_BYTES];
  fb_say(b->host, M_INFO, "forebay: %s: joined run %" PRIu64 " (%.255s)", b->log.label,
         accept->run_number, fb_escape_text(accept->run_id, strlen(accept->run_id), text));
  if (accept->note[0] != 0)
    fb_say(b->host, M_INFO, "forebay: %s: %s", b->log.label,
           fb_escape_text(accept->note, strlen(accept->note), text));
  /* The first file is waited for here: an empty stream must end before the daemon
   * asks for a file, which it takes for the end of the job, good or bad. */
  return prepare_next(b);
}

static void fill_deleted(struct fb_backup *b, struct save_pkt *sp) {
  memset(&sp->statp, 0, sizeof sp->statp);
  sp->statp.st_mode = b->current->entry.mode;
  sp->statp.st_ino = b->current->entry.ino;
  sp->statp.st_nlink = 1;
  sp->type = FT_DELETED;
  sp->no_read = true;
}

static void fill_packet(struct fb_backup *b, struct save_pkt *sp) {
  struct fb_prefetch *item = b->current;
  mode_t mode = item->st.st_mode;
  sp->statp = item->st;
  sp->no_read = true;
  if (item->blob.size == 0 && fb_short_fits(&item->st))
    sp->statp.st_rdev = fb_short_rdev(&item->st);
  if (b->is_link) {
    /* The content is that of the first name, and so are the attributes. */
    sp->statp = b->first.st;
    sp->type = FT_LNKSAVED;
    sp->link = b->first.fname;
    sp->LinkFI = b->first.file_index;
  } else if (S_ISREG(mode) && item->st.st_size > 0 && item->status != FB_STUB) {
    sp->type = FT_REG;
    sp->no_read = false;
    if (item->sparse)
      sp->flags |= FO_OFFSETS;
  } else if (S_ISREG(mode)) {
    sp->type = FT_REGE;
  } else if (S_ISDIR(mode)) {
    sp->type = FT_DIREND;
  } else if (S_ISLNK(mode)) {
    sp->type = FT_LNK;
    sp->link = item->target;
  } else {
    sp->type = FT_SPEC;
  }
}

/* What the daemon writes before each file to find the plugin at restore: the name will
 * do, and a record of at most 20 bytes is not compressed on its way.  It is also all that
 * comes back before the data, so that a layout goes there. */
static char *command_of(struct fb_backup *b) {
  const struct fb_prefetch *item = b->current;
  const bool is_deleted = (item->entry.flags & FB_ENTRY_DELETED) != 0;
  if (is_deleted || b->is_link || item->layout.kind == FB_LAYOUT_NONE)
    return plugin_name;
  return fb_layout_command(&item->layout, item->st.st_ino, &b->command, &b->command_capacity) < 0
             ? NULL
             : b->command;
}

bRC fb_backup_start_file(struct fb_backup *b, struct save_pkt *sp) {
  if (b->is_done)
    return bRC_Stop;
  if (!is_more(b) || b->is_started || !fb_session_is_up(b->session))
    return b->is_started ? fail(b, "the File Daemon asked for a file before the last one ended")
                         : give_up(b);
  if (b->object != NULL) {
    sp->type = FT_RESTORE_FIRST;
    sp->restore_obj.name = object_name;
    sp->restore_obj.object = b->object;
    sp->restore_obj.length = (int32_t)b->object_size;
    b->is_started = true;
    return bRC_OK;
  }
  sp->fname = b->fname;
  sp->link = b->fname;
  if ((b->current->entry.flags & FB_ENTRY_DELETED) != 0)
    fill_deleted(b, sp);
  else
    fill_packet(b, sp);
  sp->cmd = command_of(b);
  if (sp->cmd == NULL)
    return fail(b, "no memory for the layout of a file");
  b->is_started = true;
  b->blob_offset = 0;
  b->file_index = b->host->file_index(b->host->context) + 1;
  fb_content_start(&b->content, sp->no_read ? NULL : b->current,
                   fb_session_reader(b->session));
  return bRC_OK;
}

bRC fb_backup_io(struct fb_backup *b, struct io_pkt *io) {
  io->status = 0;
  io->io_errno = 0;
  io->lerror = 0;
  io->win32 = false;
  if (io->func == IO_OPEN || io->func == IO_CLOSE)
    return bRC_OK;
  if (io->func == IO_READ && b->is_started && io->count > 0 && io->buf != NULL) {
    uint64_t offset = 0;
    ssize_t n = fb_session_is_up(b->session)
                    ? fb_content_read(&b->content, (uint8_t *)io->buf, (size_t)io->count, &offset)
                    : -ECANCELED;
    if (n >= 0) {
      io->status = (int32_t)n;
      io->offset = (int64_t)offset;
      return bRC_OK;
    }
    io->io_errno = (int32_t)-n;
    io->status = -1;
    return give_up(b);
  }
  io->status = -1;
  io->io_errno = EINVAL;
  return fail(b, "the File Daemon asked for something else than to read the file");
}

bRC fb_backup_xacl(struct fb_backup *b, struct xacl_pkt *xacl) {
  const uint8_t *chunk;
  uint32_t size;
  xacl->count = 0;
  xacl->content = NULL;
  if (xacl->func == BXATTR_BACKUP && b->is_started && !b->is_link &&
      fb_blob_next_chunk(&b->current->blob, &b->blob_offset, &chunk, &size)) {
    xacl->content = (char *)(uintptr_t)chunk;
    xacl->count = (int32_t)size;
  }
  return bRC_OK;
}

/* Remembers the name that was just saved for the names that follow. */
static void remember_first(struct fb_backup *b, const struct fb_prefetch *item) {
  if (item->entry.nlink < 2 || S_ISDIR(item->entry.mode))
    return;
  size_t bytes = strlen(b->fname) + 1;
  if (grow(&b->first.fname, &b->first.capacity, bytes) < 0)
    return; /* then the next name is saved as a file of its own */
  memcpy(b->first.fname, b->fname, bytes);
  b->first.file_index = b->file_index;
  b->first.ino = item->entry.ino;
  b->first.st = item->st;
  b->first.read_ns = item->read_ns;
  b->first.is_saved = true;
}

/* The status of what was sent, and its one warning. */
static void judge(struct fb_backup *b, struct fb_prefetch *item) {
  if (b->is_link) {
    /* It is a link all the same; the ctime in the receipt keeps it due. */
    item->status = FB_LINK;
    if (fb_stat_moved(&b->first.st, &item->st))
      fb_log_changed(&b->log, b->fname);
    return;
  }
  fb_content_judge(&b->content, item);
  if (item->status == FB_UNREADABLE) {
    fb_log_not_saved(&b->log, b->fname, item->status, item->error);
  } else if (item->lost_xattrs > 0) {
    fb_log_lost_xattrs(&b->log, b->fname, item->lost_xattrs, item->lost_errno);
    if (item->status != FB_STUB)
      item->status = FB_CHANGED; /* its data is whole, and can be restored */
    item->error = item->lost_errno;
  } else if (item->status == FB_CHANGED) {
    fb_log_changed(&b->log, b->fname);
  }
}

static void count_layout(struct fb_backup *b, const struct fb_prefetch *item) {
  if (S_ISDIR(item->st.st_mode))
    fb_tally_directory(&b->tally, &item->blob);
  else
    fb_tally_file(&b->tally, &item->layout, item->data_size);
}

bRC fb_backup_end_file(struct fb_backup *b) {
  struct fb_prefetch *item = b->current;
  if (!is_more(b) || !b->is_started)
    return fail(b, "the File Daemon ended a file that it had not begun");
  if (!fb_session_is_up(b->session))
    return give_up(b);
  if (b->object != NULL) {
    free(b->object);
    b->object = NULL;
    return finish(b);
  }
  /* The index is what the receipt promises, so it must be the one Bacula used. */
  bool is_sent = b->host->file_index(b->host->context) == b->file_index;
  if ((!is_sent || !fb_content_is_whole(&b->content)) && b->host->is_canceled(b->host->context))
    return bRC_Error; /* the daemon has ended the job itself, and has said why */
  if (!is_sent)
    return fail(b, "the File Daemon gave a file another FileIndex than expected");
  struct fb_receipt receipt = {
      .number = item->entry.number, .ino = item->entry.ino, .file_index = b->file_index};
  if ((item->entry.flags & FB_ENTRY_DELETED) != 0) {
    receipt.status = FB_DELETED;
    receipt.mode = item->entry.mode;
  } else {
    judge(b, item);
    attributes_to_receipt(&receipt, b->is_link ? &b->first.st : &item->st);
    receipt.read_ns = b->is_link ? b->first.read_ns : item->read_ns;
    receipt.status = item->status;
    receipt.error = item->error;
    if (!b->is_link && (item->status == FB_SAVED || item->status == FB_CHANGED))
      count_layout(b, item);
    if (!b->is_link && S_ISREG(item->st.st_mode)) {
      receipt.data_bytes = item->data_size;
      memcpy(receipt.hash, item->hash, sizeof receipt.hash);
    }
    b->log.stubs += item->status == FB_STUB;
    if (!b->is_link && (item->status == FB_SAVED || item->status == FB_CHANGED ||
                        item->status == FB_STUB))
      remember_first(b, item);
  }
  b->files++;
  b->bytes += receipt.data_bytes;
  if (!fb_session_release(b->session, item, &receipt))
    return give_up(b);
  bRC rc = prepare_next(b);
  return rc == bRC_OK && is_more(b) ? bRC_More : rc;
}

void fb_backup_end_job(struct fb_backup *b) {
  if (b->is_done || fb_session_is_canceled(b->session))
    return;
  fail(b, "the File Daemon ended the job before the stream was complete");
}

void fb_backup_cancel(struct fb_backup *b) { fb_session_cancel(b->session); }

void fb_backup_free(struct fb_backup *b) {
  if (b == NULL)
    return;
  fb_session_free(b->session);
  fb_tally_free(&b->tally);
  free(b->object);
  free(b->first.fname);
  free(b->command);
  free(b->fname);
  free(b);
}
