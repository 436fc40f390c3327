/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * A File Daemon's core in small: drives the plugin through backup jobs in the
 * order of bacula-fd 15.0.3, N jobs at a time, and writes down what it got.
 *
 * Usage: harness_backup [KEY=VALUE ...]
 *   jobs=N          concurrent jobs, shards 0 to N-1
 *   dataset=NAME  socket=PATH  out=DIR
 *   options=TEXT    event 28 (then the command has no socket=)
 *   command=TEXT    instead of the one made of the above
 *   level=F  accurate=0  jobid=N (of shard 0)  count=BYTES per READ
 *   cancel=FILES    event 14 from another thread once a job has had that many files
 *   pause=FILES     before that file the job waits until the file DIR/go exists
 *   skew=1          FileIndex runs ahead: a record that the plugin did not ask for
 *   version=N       interface version shown to loadPlugin
 *   fault=eio:INO:OFFSET     reads of that inode from there on fail
 *   fault=shrink:INO:SIZE    its first read finds it cut to that size
 *   fault=grow:INO:BYTES     so many bytes are appended right after its first read
 *   fault=chmod:INO:MODE     its mode (decimal) changes right after its first read
 *   fault=rewrite:INO:BYTES  so many bytes become "z" right after its first read, and its
 *                            mtime is put back
 *   fault=list:INO:ERRNO     the names of its xattrs cannot be had
 *   fault=mark:INO:0         the time (ns) of its first read goes to DIR/read_ns
 *   delay=US  hold=N  settle=FILES:THREADS     see harness_calls.h
 *   lustre=1  fault=version:INO:N              see harness_lustre.h
 *   hsm=TEXT        a part of the command
 *   record=1        DIR/preads gets "INO OFFSET SIZE" for each pread
 * Link with -Wl,--wrap=pread64, which the faults need, and those of the other headers.
 *
 * DIR/K.dump has a line per message ("M type text") and at its end "E" with the
 * job's end; DIR/K.files has a line per file ("F" and the fields that dump_file()
 * names).  Byte strings are in hexadecimal, "-" if empty.  DIR/calls and DIR/opening
 * have what harness_calls.h has counted.
 */
#include <errno.h>
#include <inttypes.h>
#include <dirent.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "abi.h"

int loadPlugin(bInfo *info, bFuncs *functions, pInfo **out_info, pFuncs **out_functions);
int unloadPlugin(void);

struct settings {
  unsigned jobs, first_job_id, count, version;
  char level;
  int accurate;
  long cancel, pause, skew, delay, hold, lustre, record;
  const char *dataset, *socket, *out, *options, *command, *fault, *settle, *hsm;
};

static struct settings settings = {.jobs = 1,
                                   .first_job_id = 100,
                                   .count = 65536,
                                   .version = FD_PLUGIN_INTERFACE_VERSION,
                                   .level = 'F',
                                   .cancel = -1,
                                   .pause = -1,
                                   .dataset = "data",
                                   .out = "."};
static pFuncs *plugin;
static atomic_bool fault_is_spent;

#include "harness_lustre.h"
#include "harness_calls.h"

static void mark_time(void) {
  char path[4096];
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  snprintf(path, sizeof path, "%s/read_ns", settings.out);
  FILE *file = fopen(path, "w");
  if (file == NULL)
    abort();
  fprintf(file, "%lld", (long long)now.tv_sec * 1000000000 + now.tv_nsec);
  fclose(file);
}

/* The descriptor is for reading only. */
static void append_zeros(const char *path, long long bytes) {
  struct stat st;
  if (stat(path, &st) != 0 || truncate(path, st.st_size + bytes) != 0)
    abort();
}

static void rewrite(const char *path, long long bytes) {
  struct stat st;
  FILE *file = fopen(path, "r+");
  if (file == NULL || fstat(fileno(file), &st) != 0)
    abort();
  while (bytes-- > 0)
    fputc('z', file);
  const struct timespec times[2] = {st.st_atim, st.st_mtim};
  if (fflush(file) != 0 || futimens(fileno(file), times) != 0)
    abort();
  fclose(file);
}

ssize_t __real_pread64(int fd, void *to, size_t size, off_t offset);
ssize_t __wrap_pread64(int fd, void *to, size_t size, off_t offset);

static void record_read(int fd, size_t size, off_t offset) {
  struct stat st;
  if (settings.record == 0)
    return;
  FILE *to = write_to("preads", "a");
  if (fstat(fd, &st) != 0)
    abort();
  fprintf(to, "%ju %jd %zu\n", (uintmax_t)st.st_ino, (intmax_t)offset, size);
  fclose(to);
}

ssize_t __wrap_pread64(int fd, void *to, size_t size, off_t offset) {
  char kind[8], path[64];
  unsigned long long ino;
  long long number;
  struct stat st;
  note_recall(fd);
  record_read(fd, size, offset);
  if (settings.fault == NULL ||
      sscanf(settings.fault, "%7[^:]:%llu:%lld", kind, &ino, &number) != 3 || fstat(fd, &st) != 0 ||
      st.st_ino != ino)
    return __real_pread64(fd, to, size, offset);
  if (strcmp(kind, "eio") == 0 && offset + (off_t)size > number) {
    if (offset >= number) {
      errno = EIO;
      return -1;
    }
    return __real_pread64(fd, to, (size_t)(number - offset), offset);
  }
  if (strcmp(kind, "eio") == 0 || atomic_exchange(&fault_is_spent, true))
    return __real_pread64(fd, to, size, offset);
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  if (strcmp(kind, "mark") == 0)
    mark_time();
  if (strcmp(kind, "shrink") == 0 && truncate(path, number) != 0)
    abort();
  ssize_t n = __real_pread64(fd, to, size, offset);
  if (strcmp(kind, "version") == 0)
    atomic_store(&version_now, (unsigned long)number);
  if (strcmp(kind, "grow") == 0)
    append_zeros(path, number);
  if (strcmp(kind, "rewrite") == 0)
    rewrite(path, number);
  if (strcmp(kind, "chmod") == 0 && chmod(path, (mode_t)number) != 0)
    abort();
  return n;
}

struct job {
  bpContext context;
  unsigned shard;
  FILE *dump, *file_dump; /* two, for messages come in the middle of a file */
  pthread_t thread, canceller;
  pthread_mutex_t lock;
  pthread_cond_t changed;
  long files;      /* guarded by lock */
  bool over;       /* guarded by lock */
  atomic_bool canceled;
  atomic_bool failed;
  int32_t file_index;
  char name[64], command[1024];
};

static void put_hex(FILE *to, const void *data, size_t size) {
  const unsigned char *byte = data;
  if (size == 0)
    fputc('-', to);
  for (size_t i = 0; i < size; i++)
    fprintf(to, "%02x", byte[i]);
}

static bRC get_value(bpContext *ctx, int32_t variable, void *value) {
  struct job *job = ctx->core_context;
  switch (variable) {
  case bVarJobId:
    *(int *)value = settings.first_job_id == 0 ? 0 : (int)(settings.first_job_id + job->shard);
    return bRC_OK;
  case bVarLevel:
    *(int *)value = settings.level;
    return bRC_OK;
  case bVarSinceTime:
    *(int *)value = 1700000000;
    return bRC_OK;
  case bVarAccurate:
    *(int *)value = settings.accurate;
    return bRC_OK;
  case bVarFileIndex:
    *(int *)value = job->file_index;
    return bRC_OK;
  case bVarIsCanceled:
    *(int *)value = atomic_load(&job->canceled);
    return bRC_OK;
  case bVarJobName:
    *(char **)value = job->name;
    return bRC_OK;
  case bVarClient:
    *(const char **)value = "mover-fd";
    return bRC_OK;
  case bVarPrevJobName:
    *(const char **)value = settings.level == 'F' ? "" : "previous.2026-01-01_00.00.00_03";
    return bRC_OK;
  default:
    return bRC_Error;
  }
}

__attribute__((format(printf, 6, 7))) static bRC job_message(bpContext *ctx, const char *file,
                                                             int line, int type, int64_t mtime,
                                                             const char *fmt, ...) {
  struct job *job = ctx->core_context;
  char text[4096];
  va_list args;
  (void)file, (void)line, (void)mtime;
  if (!pthread_equal(pthread_self(), job->thread))
    abort(); /* only the job's thread may speak */
  va_start(args, fmt);
  vsnprintf(text, sizeof text, fmt, args);
  va_end(args);
  fprintf(job->dump, "M %d ", type);
  put_hex(job->dump, text, strlen(text));
  fputc('\n', job->dump);
  if (type == M_FATAL)
    atomic_store(&job->failed, true);
  return bRC_OK;
}

static bool is_over(struct job *job) {
  return atomic_load(&job->canceled) || atomic_load(&job->failed);
}

static bRC event(struct job *job, uint32_t type, void *value) {
  bEvent e = {type};
  return plugin->handlePluginEvent(&job->context, &e, value);
}

static uint32_t crc_add(uint32_t crc, const unsigned char *data, size_t size) {
  crc = ~crc;
  for (size_t i = 0; i < size; i++) {
    crc ^= data[i];
    for (int bit = 0; bit < 8; bit++)
      crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
  }
  return ~crc;
}

/* Reads the content as the core does; extents are "offset:size," with neighbours
 * joined. */
static bool dump_content(struct job *job, const struct save_pkt *sp) {
  struct io_pkt io;
  unsigned char *buffer = malloc(settings.count);
  uint64_t total = 0, start = 0, end = 0;
  uint32_t crc = 0;
  bool good = buffer != NULL;
  memset(&io, 0, sizeof io);
  io.pkt_size = io.pkt_end = sizeof io;
  io.fname = sp->fname;
  io.func = IO_OPEN;
  io.status = -1;
  good = good && plugin->pluginIO(&job->context, &io) == bRC_OK && io.status >= 0;
  fputc(' ', job->file_dump);
  while (good && !is_over(job)) {
    io.func = IO_READ;
    io.count = (int32_t)settings.count;
    io.buf = (char *)buffer;
    io.status = -1;
    plugin->pluginIO(&job->context, &io);
    good = io.status >= 0;
    if (io.status <= 0)
      break;
    uint64_t at = (sp->flags & FO_OFFSETS) != 0 ? (uint64_t)io.offset : total;
    if (at != end || total == 0) {
      if (total > 0)
        fprintf(job->file_dump, "%" PRIu64 ":%" PRIu64 ",", start, end - start);
      start = at;
    }
    end = at + (uint64_t)io.status;
    total += (uint64_t)io.status;
    crc = crc_add(crc, buffer, (size_t)io.status);
  }
  fprintf(job->file_dump, "%" PRIu64 ":%" PRIu64 ", %08" PRIx32, start, end - start, crc);
  io.func = IO_CLOSE;
  plugin->pluginIO(&job->context, &io);
  free(buffer);
  return good;
}

static void dump_xacl(struct job *job, int func) {
  struct xacl_pkt xacl;
  memset(&xacl, 0, sizeof xacl);
  xacl.pkt_size = xacl.pkt_end = sizeof xacl;
  xacl.func = func;
  fputc(' ', job->file_dump);
  for (bool any = false;; any = true) {
    if (plugin->handleXACLdata(&job->context, &xacl) != bRC_OK || xacl.count == 0) {
      fputs(any ? "" : "-", job->file_dump);
      return;
    }
    put_hex(job->file_dump, xacl.content, (size_t)xacl.count);
    fputc('.', job->file_dump);
  }
}

/* F index type fname link LinkFI flags mode ino nlink uid gid rdev size atime mtime cmd
 *   extents crc acl xattr */
static void dump_object(struct job *job, const struct save_pkt *sp) {
  fprintf(job->dump, "O ");
  put_hex(job->dump, sp->restore_obj.name, strlen(sp->restore_obj.name));
  fputc(' ', job->dump);
  put_hex(job->dump, sp->restore_obj.object, (size_t)sp->restore_obj.length);
  fputc('\n', job->dump);
  job->file_index++; /* it counts as a file */
}

static bool dump_file(struct job *job, struct save_pkt *sp) {
  const struct stat *st = &sp->statp;
  fprintf(job->file_dump, "F %" PRId32 " %" PRId32 " ", job->file_index + 1, sp->type);
  put_hex(job->file_dump, sp->fname, strlen(sp->fname));
  fputc(' ', job->file_dump);
  put_hex(job->file_dump, sp->link, strlen(sp->link));
  fprintf(job->file_dump, " %" PRId32 " %" PRIu64 " %o %ju %ju %u %u %ju %jd %jd %jd ", sp->LinkFI,
          sp->flags, st->st_mode, (uintmax_t)st->st_ino, (uintmax_t)st->st_nlink, st->st_uid,
          st->st_gid, (uintmax_t)st->st_rdev, (intmax_t)st->st_size, (intmax_t)st->st_atime,
          (intmax_t)st->st_mtime);
  put_hex(job->file_dump, sp->cmd, strlen(sp->cmd));
  job->file_index += 1 + (int32_t)settings.skew;
  bool good = true;
  if (sp->no_read)
    fputs(" - -", job->file_dump);
  else
    good = dump_content(job, sp);
  if (good) {
    dump_xacl(job, BACL_BACKUP);
    dump_xacl(job, BXATTR_BACKUP);
  }
  fputc('\n', job->file_dump);
  return good;
}

static void await_go(void) {
  char path[4096], buffer[4096];
  snprintf(path, sizeof path, "%s/go", settings.out);
  int fd = inotify_init1(IN_CLOEXEC);
  if (fd < 0 || inotify_add_watch(fd, settings.out, IN_CREATE) < 0)
    abort();
  FILE *waiting = NULL;
  char flag[4096];
  snprintf(flag, sizeof flag, "%s/waiting", settings.out);
  if ((waiting = fopen(flag, "w")) == NULL)
    abort();
  fclose(waiting);
  while (access(path, F_OK) != 0)
    if (read(fd, buffer, sizeof buffer) <= 0)
      abort();
  close(fd);
}

enum { CANCEL_FILES_MAX = 10 }; /* a job has so many files at most before it sees the event */

static void count_file(struct job *job, bool over) {
  pthread_mutex_lock(&job->lock);
  job->files += !over;
  job->over = over;
  pthread_cond_broadcast(&job->changed);
  /* The other thread may be slow: the job goes on for some files, not to its end. */
  while (settings.cancel >= 0 && !over && job->files >= settings.cancel + CANCEL_FILES_MAX &&
         !atomic_load(&job->canceled))
    pthread_cond_wait(&job->changed, &job->lock);
  pthread_mutex_unlock(&job->lock);
}

static void *cancel_main(void *argument) {
  struct job *job = argument;
  pthread_mutex_lock(&job->lock);
  while (job->files < settings.cancel && !job->over)
    pthread_cond_wait(&job->changed, &job->lock);
  bool over = job->over;
  if (!over) {
    atomic_store(&job->canceled, true);
    pthread_cond_broadcast(&job->changed);
  }
  pthread_mutex_unlock(&job->lock);
  if (!over) {
    event(job, bEventCancelCommand, NULL);
  }
  return NULL;
}

static void save_files(struct job *job) {
  for (;;) {
    struct save_pkt sp;
    memset(&sp, 0, sizeof sp);
    sp.pkt_size = sp.pkt_end = sizeof sp;
    sp.portable = true;
    sp.cmd = job->command;
    settle_before(job->file_index);
    if (settings.pause == job->file_index)
      await_go();
    if (is_over(job) || plugin->startBackupFile(&job->context, &sp) != bRC_OK)
      return;
    if (sp.type == FT_RESTORE_FIRST) {
      dump_object(job, &sp);
      if (plugin->endBackupFile(&job->context) != bRC_More)
        return;
      continue;
    }
    if (sp.type == 0 || sp.fname == NULL)
      abort();
    if (!dump_file(job, &sp))
      fprintf(job->dump, "M %d -\n", M_ERROR); /* the core's own "Read error" */
    count_file(job, false);
    if (is_over(job) || plugin->endBackupFile(&job->context) != bRC_More)
      return;
  }
}

static void *job_main(void *argument) {
  struct job *job = argument;
  char *command = job->command, start[128];
  const size_t room = sizeof job->command;
  job->thread = pthread_self();
  if (settings.command != NULL)
    snprintf(command, room, "%s", settings.command);
  else
    snprintf(command, room, "forebay:dataset=%s:shard=%u/%u%s%s%s%s", settings.dataset,
             job->shard, settings.jobs, settings.options == NULL ? ":socket=" : "",
             settings.options == NULL ? settings.socket : "", settings.hsm != NULL ? ":hsm=" : "",
             settings.hsm != NULL ? settings.hsm : "");
  snprintf(start, sizeof start, "JobId=%u Job=%s", settings.first_job_id, job->name);
  if (plugin->newPlugin(&job->context) != bRC_OK)
    abort();
  bool cancels = settings.cancel >= 0;
  if (cancels && pthread_create(&job->canceller, NULL, cancel_main, job) != 0)
    abort();
  event(job, bEventJobStart, start);
  if (settings.level != 'F')
    event(job, 13, (void *)(intptr_t)1700000000);
  event(job, bEventLevel, (void *)(intptr_t)settings.level);
  event(job, bEventPluginCommand, command);
  if (settings.options != NULL)
    event(job, bEventPluginOptions, (void *)(intptr_t)settings.options);
  event(job, bEventEndFileSet, NULL);
  if (!is_over(job)) {
    event(job, bEventStartBackupJob, NULL);
    bool estimate = settings.first_job_id == 0;
    if (event(job, estimate ? bEventEstimateCommand : bEventBackupCommand, command) == bRC_OK)
      save_files(job);
  }
  event(job, bEventEndBackupJob, NULL);
  count_file(job, true);
  if (cancels)
    pthread_join(job->canceller, NULL);
  if (!atomic_load(&job->canceled))
    event(job, bEventJobEnd, NULL);
  plugin->freePlugin(&job->context);
  fprintf(job->dump, "E %s\n", atomic_load(&job->canceled) ? "A"
                               : atomic_load(&job->failed) ? "f"
                                                           : "T");
  return NULL;
}

static void parse(int argc, char **argv) {
  const struct {
    const char *key;
    const char **text;
    long *number;
    unsigned *count;
  } keys[] = {{"dataset", &settings.dataset, NULL, NULL}, {"socket", &settings.socket, NULL, NULL},
              {"out", &settings.out, NULL, NULL},         {"options", &settings.options, NULL, NULL},
              {"command", &settings.command, NULL, NULL}, {"fault", &settings.fault, NULL, NULL},
              {"settle", &settings.settle, NULL, NULL}, {"hsm", &settings.hsm, NULL, NULL},
              {"lustre", NULL, &settings.lustre, NULL}, {"record", NULL, &settings.record, NULL},
              {"delay", NULL, &settings.delay, NULL},     {"hold", NULL, &settings.hold, NULL},
              {"cancel", NULL, &settings.cancel, NULL},
              {"pause", NULL, &settings.pause, NULL},     {"skew", NULL, &settings.skew, NULL},
              {"jobs", NULL, NULL, &settings.jobs},       {"count", NULL, NULL, &settings.count},
              {"jobid", NULL, NULL, &settings.first_job_id},
              {"version", NULL, NULL, &settings.version}};
  for (int i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (value == NULL)
      abort();
    *value++ = 0;
    if (strcmp(argv[i], "level") == 0)
      settings.level = *value;
    if (strcmp(argv[i], "accurate") == 0)
      settings.accurate = atoi(value);
    for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
      if (strcmp(argv[i], keys[k].key) != 0)
        continue;
      if (keys[k].text != NULL)
        *keys[k].text = value;
      if (keys[k].number != NULL)
        *keys[k].number = atol(value);
      if (keys[k].count != NULL)
        *keys[k].count = (unsigned)atol(value);
    }
  }
}

static unsigned open_descriptors(void) {
  unsigned count = 0;
  DIR *d = opendir("/proc/self/fd");
  while (d != NULL && readdir(d) != NULL)
    count++;
  if (d != NULL)
    closedir(d);
  return count;
}

int main(int argc, char **argv) {
  static bFuncs functions = {.size = sizeof(bFuncs),
                             .version = FD_PLUGIN_INTERFACE_VERSION,
                             .getBaculaValue = get_value,
                             .JobMessage = job_message};
  parse(argc, argv);
  bInfo info = {sizeof info, settings.version};
  pInfo *plugin_info = NULL;
  if (loadPlugin(&info, &functions, &plugin_info, &plugin) != bRC_OK)
    return 3;
  if (strcmp(plugin_info->magic, FD_PLUGIN_MAGIC) != 0 || plugin_info->size != sizeof *plugin_info ||
      strcmp(plugin_info->license, "AGPLv3") != 0 || plugin->size != sizeof *plugin)
    return 4;
  struct job *jobs = calloc(settings.jobs, sizeof *jobs);
  unsigned before = open_descriptors();
  for (unsigned k = 0; k < settings.jobs; k++) {
    char path[4096];
    jobs[k].context.core_context = &jobs[k];
    jobs[k].shard = k;
    pthread_mutex_init(&jobs[k].lock, NULL);
    pthread_cond_init(&jobs[k].changed, NULL);
    snprintf(jobs[k].name, sizeof jobs[k].name, "job%u.2026-02-03_04.05.06_07", k);
    snprintf(path, sizeof path, "%s/%u.dump", settings.out, k);
    if ((jobs[k].dump = fopen(path, "w")) == NULL)
      return 5;
    snprintf(path, sizeof path, "%s/%u.files", settings.out, k);
    if ((jobs[k].file_dump = fopen(path, "w")) == NULL)
      return 5;
  }
  pthread_t *threads = calloc(settings.jobs, sizeof *threads);
  for (unsigned k = 0; k < settings.jobs; k++)
    if (pthread_create(&threads[k], NULL, job_main, &jobs[k]) != 0)
      return 6;
  for (unsigned k = 0; k < settings.jobs; k++) {
    pthread_join(threads[k], NULL);
    pthread_mutex_destroy(&jobs[k].lock);
    pthread_cond_destroy(&jobs[k].changed);
    fclose(jobs[k].dump);
    fclose(jobs[k].file_dump);
  }
  free(threads);
  free(jobs);
  write_calls();
  unloadPlugin();
  return open_descriptors() == before ? 0 : 7; /* a descriptor was left open */
}
