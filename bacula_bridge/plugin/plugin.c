/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The door to the File Daemon: loadPlugin, unloadPlugin and the entry points.
 *
 * Covers: checks of the interface and of every packet, the context of a job,
 * events, the choice between backup and restore.  Does not cover: what either does
 * (backup.c, restore.c).
 *
 * One context per job, whose entry points run on the job's thread; the cancel event
 * alone comes on another one, hence the lock round the pointer to the backup.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "abi.h"
#include "backup.h"
#include "command.h"
#include "host.h"
#include "restore.h"
#include "restore_object.h"

#define NAME_BYTES_MAX 256
#define EXPORT __attribute__((visibility("default")))

struct job_context {
  bpContext *core;
  const bFuncs *functions;
  struct fb_host host;
  pthread_mutex_t lock; /* guards backup and canceled */
  struct fb_backup *backup;
  bool canceled;
  bool has_command; /* the FileSet names this plugin */
  bool said_fatal;
  struct fb_restore *restore;
  struct fb_summary summary; /* restore objects come before the place is told */
  char socket_path[FB_SOCKET_BYTES_MAX + 1]; /* of the Plugin Options */
};

/* Set once at load, before any job; the daemon's table lives as long as it. */
static const bFuncs *daemon_functions;

static void host_message(void *context, int type, const char *text) {
  struct job_context *job = context;
  job->functions->JobMessage(job->core, "forebay-fd", 0, type, 0, "%s", text);
}

static int32_t get_int(struct job_context *job, int32_t variable) {
  int value = 0;
  if (job->functions->getBaculaValue(job->core, variable, &value) != bRC_OK)
    return 0;
  return value;
}

/* The daemon's own string, copied: it may change with the job. */
static void get_text(struct job_context *job, int32_t variable, char *out, size_t size) {
  char *value = NULL;
  out[0] = 0;
  if (job->functions->getBaculaValue(job->core, variable, &value) == bRC_OK && value != NULL)
    snprintf(out, size, "%s", value);
}

static int32_t host_file_index(void *context) { return get_int(context, bVarFileIndex); }

static bool host_is_canceled(void *context) { return get_int(context, bVarIsCanceled) != 0; }

static struct job_context *context_of(bpContext *ctx) {
  return ctx != NULL ? ctx->plugin_context : NULL;
}

static bRC fatal(struct job_context *job, const char *text) {
  job->said_fatal = true;
  fb_say(&job->host, M_FATAL, "forebay: %s", text);
  return bRC_Error;
}

/* A packet of another size is of another Bacula: nothing in it can be trusted. */
static bRC refuse_packet(struct job_context *job, const char *name) {
  char text[256];
  if (job == NULL || job->said_fatal)
    return bRC_Error;
  snprintf(text, sizeof text,
           "the File Daemon's %s has another size than in Bacula 15.0: install the plugin that was "
           "built for this release",
           name);
  return fatal(job, text);
}

#define PACKET_IS_OURS(packet) \
  ((packet) != NULL && (packet)->pkt_size == (int32_t)sizeof *(packet) && \
   (packet)->pkt_end == (int32_t)sizeof *(packet))

static bRC new_plugin(bpContext *ctx) {
  struct job_context *job = calloc(1, sizeof *job);
  if (job == NULL)
    return bRC_Error;
  job->core = ctx;
  job->functions = daemon_functions;
  job->host = (struct fb_host){job, host_message, host_file_index, host_is_canceled};
  pthread_mutex_init(&job->lock, NULL);
  ctx->plugin_context = job;
  return bRC_OK;
}

static void drop_backup(struct job_context *job) {
  pthread_mutex_lock(&job->lock);
  struct fb_backup *backup = job->backup;
  job->backup = NULL;
  pthread_mutex_unlock(&job->lock);
  fb_backup_free(backup);
}

static bRC free_plugin(bpContext *ctx) {
  struct job_context *job = context_of(ctx);
  if (job == NULL)
    return bRC_OK;
  drop_backup(job);
  fb_restore_free(job->restore);
  pthread_mutex_destroy(&job->lock);
  free(job);
  ctx->plugin_context = NULL;
  return bRC_OK;
}

/* Event 9.  Everything that could make the job smaller than the shard is fatal. */
static bRC begin_backup(struct job_context *job, const char *text) {
  char error[FB_COMMAND_ERROR_BYTES];
  char name[NAME_BYTES_MAX], previous[NAME_BYTES_MAX], client[NAME_BYTES_MAX];
  struct fb_command command;
  if (text == NULL || fb_command_parse(text, &command, error) < 0)
    return fatal(job, text == NULL ? "the plugin command is missing" : error);
  if (job->backup != NULL)
    return fatal(job, "the FileSet names two shards: one job is one shard, so keep one Plugin line");
  if (get_int(job, bVarAccurate) != 0)
    return fatal(job, "Accurate = yes would delete names that moved between shards: set "
                      "Accurate = no in the Job");
  int32_t level = get_int(job, bVarLevel);
  if (level != 'F' && level != 'D' && level != 'I')
    return fatal(job, "this level is not supported: run a Full, Differential or Incremental");
  if (command.socket_path[0] == 0)
    snprintf(command.socket_path, sizeof command.socket_path, "%s",
             job->socket_path[0] != 0 ? job->socket_path : FB_SOCKET_DEFAULT);
  get_text(job, bVarJobName, name, sizeof name);
  get_text(job, bVarPrevJobName, previous, sizeof previous);
  get_text(job, bVarClient, client, sizeof client);
  const struct fb_job values = {.level = (char)level,
                                .job_id = (uint32_t)get_int(job, bVarJobId),
                                .since = level == 'F' ? 0 : get_int(job, bVarSinceTime),
                                .name = name,
                                .previous_name = previous,
                                .client = client};
  struct fb_backup *backup = fb_backup_new(&job->host, &command, &values);
  if (backup == NULL) {
    job->said_fatal = true;
    return bRC_Error;
  }
  pthread_mutex_lock(&job->lock);
  job->backup = backup;
  if (job->canceled)
    fb_backup_cancel(backup);
  pthread_mutex_unlock(&job->lock);
  return fb_backup_begin(backup);
}

static bRC begin_restore(struct job_context *job) {
  char where[4096], work_dir[4096], regex[16];
  if (job->restore != NULL)
    return bRC_OK;
  get_text(job, bVarWhere, where, sizeof where);
  get_text(job, bVarWorkingDir, work_dir, sizeof work_dir);
  /* With RegexWhere the names come ready-made and absolute. */
  get_text(job, bVarRegexWhere, regex, sizeof regex);
  job->restore = fb_restore_new(&job->host, regex[0] != 0 ? NULL : where, work_dir);
  if (job->restore == NULL)
    return fatal(job, "no memory for the restore");
  fb_restore_set_summary(job->restore, &job->summary);
  return bRC_OK;
}

/* NULL once all have come.  Of another plugin, if the object names none. */
static bRC take_object(struct job_context *job, const struct restore_object_pkt *object) {
  if (object == NULL)
    return bRC_OK;
  if (!PACKET_IS_OURS(object))
    return refuse_packet(job, "restore_object_pkt");
  if (object->object_name != NULL && strcmp(object->object_name, FB_OBJECT_NAME) == 0)
    fb_summary_add(&job->summary, object->object,
                   object->object_len > 0 ? (size_t)object->object_len : 0);
  return bRC_OK;
}

static bRC take_options(struct job_context *job, const char *text) {
  char error[FB_COMMAND_ERROR_BYTES];
  if (text != NULL && fb_options_parse(text, job->socket_path, error) == 0)
    return bRC_OK;
  return fatal(job, text == NULL ? "the Plugin Options are empty" : error);
}

static void cancel(struct job_context *job) {
  pthread_mutex_lock(&job->lock);
  job->canceled = true;
  if (job->backup != NULL)
    fb_backup_cancel(job->backup);
  pthread_mutex_unlock(&job->lock);
}

/* Event 4: the last moment at which an incomplete job can still be made to fail. */
static void end_backup(struct job_context *job) {
  pthread_mutex_lock(&job->lock);
  bool canceled = job->canceled;
  pthread_mutex_unlock(&job->lock);
  if (canceled || host_is_canceled(job) || job->said_fatal)
    return;
  if (job->backup != NULL)
    fb_backup_end_job(job->backup);
  else if (job->has_command && get_int(job, bVarJobId) != 0)
    fatal(job, "the File Daemon never ran the plugin command: nothing was saved");
}

static bRC handle_event(bpContext *ctx, bEvent *event, void *value) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || event == NULL)
    return bRC_Error;
  switch (event->event_type) {
  case bEventPluginCommand:
    job->has_command = true;
    return bRC_OK;
  case bEventPluginOptions:
    return take_options(job, value);
  case bEventBackupCommand:
    return begin_backup(job, value);
  case bEventEstimateCommand:
    fb_say(&job->host, M_INFO,
           "forebay: an estimate would have to scan the dataset: see `forebay scan` instead");
    return bRC_OK;
  case bEventCancelCommand:
    cancel(job);
    return bRC_OK;
  case bEventEndBackupJob:
    end_backup(job);
    return bRC_OK;
  case bEventRestoreObject:
    return take_object(job, value);
  case bEventStartRestoreJob:
    return begin_restore(job);
  case bEventEndRestoreJob:
    if (job->restore != NULL)
      fb_restore_end_job(job->restore);
    return bRC_OK;
  default:
    return bRC_OK;
  }
}

static bRC start_backup_file(bpContext *ctx, struct save_pkt *sp) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || !PACKET_IS_OURS(sp))
    return refuse_packet(job, "save_pkt");
  return job->backup != NULL ? fb_backup_start_file(job->backup, sp) : bRC_Stop;
}

static bRC end_backup_file(bpContext *ctx) {
  struct job_context *job = context_of(ctx);
  return job != NULL && job->backup != NULL ? fb_backup_end_file(job->backup) : bRC_Error;
}

static bRC plugin_io(bpContext *ctx, struct io_pkt *io) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || !PACKET_IS_OURS(io))
    return refuse_packet(job, "io_pkt");
  if (job->backup != NULL)
    return fb_backup_io(job->backup, io);
  if (job->restore != NULL)
    return fb_restore_io(job->restore, io);
  io->status = -1;
  io->io_errno = EINVAL;
  return bRC_Error;
}

static bRC handle_xacl(bpContext *ctx, struct xacl_pkt *xacl) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || !PACKET_IS_OURS(xacl))
    return refuse_packet(job, "xacl_pkt");
  bool restoring = xacl->func == BACL_RESTORE || xacl->func == BXATTR_RESTORE;
  if (restoring)
    return job->restore != NULL ? fb_restore_xacl(job->restore, xacl) : bRC_Error;
  return job->backup != NULL ? fb_backup_xacl(job->backup, xacl) : bRC_Error;
}

static bRC start_restore_file(bpContext *ctx, const char *command) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || begin_restore(job) != bRC_OK)
    return bRC_Error;
  return fb_restore_start_file(job->restore, command);
}

static bRC end_restore_file(bpContext *ctx) {
  struct job_context *job = context_of(ctx);
  return job != NULL && job->restore != NULL ? fb_restore_end_file(job->restore) : bRC_Error;
}

static bRC create_file(bpContext *ctx, struct restore_pkt *rp) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || job->restore == NULL || !PACKET_IS_OURS(rp))
    return refuse_packet(job, "restore_pkt");
  return fb_restore_create_file(job->restore, rp);
}

static bRC set_file_attributes(bpContext *ctx, struct restore_pkt *rp) {
  struct job_context *job = context_of(ctx);
  if (job == NULL || job->restore == NULL || !PACKET_IS_OURS(rp))
    return refuse_packet(job, "restore_pkt");
  return fb_restore_set_attributes(job->restore, rp);
}

/* Asked with Accurate = yes only, which begin_backup() refuses. */
static bRC check_file(bpContext *ctx, char *fname) {
  (void)ctx;
  (void)fname;
  return bRC_OK;
}

static bRC value_is_unknown(bpContext *ctx, int32_t variable, void *value) {
  (void)ctx;
  (void)variable;
  (void)value;
  return bRC_OK;
}

static pInfo plugin_info = {
    .size = sizeof(pInfo),
    .version = FD_PLUGIN_INTERFACE_VERSION,
    .magic = FD_PLUGIN_MAGIC,
    .license = "AGPLv3",
    .author = "The Forebay project",
    .date = "2026",
    .plugin_version = "0.1.0",
    .description = "Forebay: one shard of a parallel filesystem",
};

static pFuncs plugin_functions = {
    .size = sizeof(pFuncs),
    .version = FD_PLUGIN_INTERFACE_VERSION,
    .newPlugin = new_plugin,
    .freePlugin = free_plugin,
    .getPluginValue = value_is_unknown,
    .setPluginValue = value_is_unknown,
    .handlePluginEvent = handle_event,
    .startBackupFile = start_backup_file,
    .endBackupFile = end_backup_file,
    .startRestoreFile = start_restore_file,
    .endRestoreFile = end_restore_file,
    .pluginIO = plugin_io,
    .createFile = create_file,
    .setFileAttributes = set_file_attributes,
    .checkFile = check_file,
    .handleXACLdata = handle_xacl,
};

EXPORT int loadPlugin(bInfo *info, bFuncs *functions, pInfo **out_info, pFuncs **out_functions);
EXPORT int unloadPlugin(void);

int loadPlugin(bInfo *info, bFuncs *functions, pInfo **out_info, pFuncs **out_functions) {
  if (info == NULL || functions == NULL || info->version != FD_PLUGIN_INTERFACE_VERSION ||
      functions->size != sizeof(bFuncs)) {
    fprintf(stderr,
            "forebay-fd: built for plugin interface %d with %zu bytes of functions (Bacula 15.0), "
            "but this File Daemon has %u with %u: install the plugin built for this release\n",
            FD_PLUGIN_INTERFACE_VERSION, sizeof(bFuncs), info != NULL ? info->version : 0,
            functions != NULL ? functions->size : 0);
    return bRC_Error;
  }
  daemon_functions = functions;
  *out_info = &plugin_info;
  *out_functions = &plugin_functions;
  return bRC_OK;
}

int unloadPlugin(void) { return bRC_OK; }
