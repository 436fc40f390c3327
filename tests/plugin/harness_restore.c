/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * A File Daemon for the restore side: reads a script from stdin and makes the calls
 * in the daemon's order.  Arguments are separated by blanks; names and data are in
 * hexadecimal, "-" for NULL.
 *
 *   new WHERE WORK_DIR        setid UID GID           cancel
 *   file TYPE MODE UID GID ATIME MTIME RDEV SIZE REPLACE OFNAME OLNAME [INO COMMAND]
 *                                                                  start and create
 *   object BYTES              a restore object, as it is given before a restore
 *   statfs MAGIC              what fstatfs() answers for every filesystem from now on
 *   swap PATH                 another process moves PATH over the next symlink or node made
 *   data OFFSET BYTES         [SEEK,] WRITE           blob BYTES   kept for end
 *   end                       set_attributes ... end_file
 *   abandon                   the daemon gives the file up: end_file alone
 *   endjob
 *
 * Called with "threads WHERE WORK_DIR COUNT" it restores the same directories in
 * two threads instead, one restore job each.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "restore.h"

#define LINE_BYTES_MAX (4 << 20)
#define BLOBS_MAX 128

static bool is_canceled_now;

/* What a user does who may write the directory, in the shortest of moments: right
 * after the call that made the name and before the next one. */
static char *swap_from;

static void swap_in(int dir_fd, const char *name) {
  if (swap_from != NULL && renameat(AT_FDCWD, swap_from, dir_fd, name) < 0)
    exit(5);
  free(swap_from);
  swap_from = NULL;
}

/* These stand before the C library's. */
int symlinkat(const char *target, int dir_fd, const char *name) {
  int rc = (int)syscall(SYS_symlinkat, target, dir_fd, name);
  if (rc == 0)
    swap_in(dir_fd, name);
  return rc;
}

int mknodat(int dir_fd, const char *name, mode_t mode, dev_t device) {
  if (device != (unsigned)device) { /* libc refuses what the kernel has no bits for */
    errno = EINVAL;
    return -1;
  }
  int rc = (int)syscall(SYS_mknodat, dir_fd, name, mode, (unsigned)device);
  if (rc == 0)
    swap_in(dir_fd, name);
  return rc;
}

/* Of what kind the restore place is said to be; 0: as it is. */
static unsigned long filesystem_magic;

int fstatfs(int fd, struct statfs *to) {
  int rc = (int)syscall(SYS_fstatfs, fd, to);
  if (rc == 0 && filesystem_magic != 0)
    to->f_type = (__typeof__(to->f_type))filesystem_magic;
  return rc;
}

static void message(void *context, int type, const char *text) {
  (void)context;
  flockfile(stdout);
  printf("message %d ", type);
  for (; *text != '\0'; text++)
    printf("%02x", (unsigned char)*text);
  printf("\n");
  funlockfile(stdout);
}

static int32_t file_index(void *context) {
  (void)context;
  return 0;
}

static bool is_canceled(void *context) {
  (void)context;
  return is_canceled_now;
}

static const struct fb_host HOST = {
    .message = message, .file_index = file_index, .is_canceled = is_canceled};

static int digit(char c) { return c <= '9' ? c - '0' : c - 'a' + 10; }

static size_t unhex(const char *hex, char **bytes) {
  if (hex == NULL || strcmp(hex, "-") == 0) {
    *bytes = NULL;
    return 0;
  }
  size_t size = strlen(hex) / 2;
  *bytes = malloc(size + 1);
  for (size_t i = 0; i < size; i++) {
    (*bytes)[i] = (char)(digit(hex[2 * i]) << 4 | digit(hex[2 * i + 1]));
  }
  (*bytes)[size] = '\0';
  return size;
}

struct core {
  struct fb_restore *restore;
  struct restore_pkt rp;
  char *ofname, *olname;
  int64_t offset;
  struct {
    char *bytes;
    size_t size;
  } blobs[BLOBS_MAX];
  int blob_count;
};

static struct io_pkt io(struct core *core, int func, char *buf, int count, int whence,
                        int64_t offset) {
  /* The daemon presets status -1 and does not clear io_errno. */
  struct io_pkt pkt = {.pkt_size = sizeof(pkt), .func = func,     .buf = buf,
                       .count = count,          .whence = whence, .offset = offset,
                       .status = -1,            .io_errno = 4242, .pkt_end = sizeof(pkt)};
  fb_restore_io(core->restore, &pkt);
  if (pkt.io_errno == 4242)
    printf("unset io_errno\n");
  if (pkt.status < 0)
    printf("io %d failed %d\n", func, pkt.io_errno);
  return pkt;
}

static void start(struct core *core, char **argv) {
  struct restore_pkt *rp = &core->rp;
  *rp = (struct restore_pkt){.pkt_size = sizeof(*rp), .pkt_end = sizeof(*rp)};
  rp->type = atoi(argv[1]);
  rp->statp.st_mode = (mode_t)strtoul(argv[2], NULL, 8);
  rp->statp.st_uid = (uid_t)strtoul(argv[3], NULL, 10);
  rp->statp.st_gid = (gid_t)strtoul(argv[4], NULL, 10);
  rp->statp.st_atime = strtoll(argv[5], NULL, 10);
  rp->statp.st_mtime = strtoll(argv[6], NULL, 10);
  rp->statp.st_rdev = strtoull(argv[7], NULL, 10);
  rp->statp.st_size = strtoll(argv[8], NULL, 10);
  rp->replace = argv[9][0];
  unhex(argv[10], &core->ofname);
  unhex(argv[11], &core->olname);
  rp->ofname = core->ofname;
  rp->olname = core->olname;
  rp->create_status = CF_ERROR;
  char *command = NULL;
  rp->statp.st_ino = argv[12] != NULL ? strtoull(argv[12], NULL, 10) : 0;
  unhex(argv[12] != NULL ? argv[13] : NULL, &command);
  fb_restore_start_file(core->restore, command != NULL ? command : "forebay:dataset=d:shard=1/1");
  free(command);
  bRC rc = fb_restore_create_file(core->restore, rp);
  printf("create %d %d\n", rc, rp->create_status);
  core->offset = 0;
  if (rp->create_status == CF_EXTRACT)
    io(core, IO_OPEN, NULL, 0, 0, 0);
}

static void write_data(struct core *core, char **argv) {
  char *bytes;
  size_t size = unhex(argv[2], &bytes);
  int64_t offset = strtoll(argv[1], NULL, 10);
  if (core->rp.create_status == CF_EXTRACT) {
    if (offset != core->offset) {
      struct io_pkt seek = io(core, IO_SEEK, NULL, 0, SEEK_SET, offset);
      printf("seek %lld\n", (long long)seek.offset);
    }
    struct io_pkt written = io(core, IO_WRITE, bytes, (int)size, 0, 0);
    printf("write %d\n", written.status);
    if (written.status >= 0)
      core->offset = offset + (int64_t)size;
  }
  free(bytes);
}

static void forget_file(struct core *core) {
  for (int i = 0; i < core->blob_count; i++)
    free(core->blobs[i].bytes);
  core->blob_count = 0;
  free(core->ofname);
  free(core->olname);
  core->ofname = core->olname = NULL;
}

static void finish(struct core *core, bool given_up) {
  int status = core->rp.create_status;
  if (!given_up && (status == CF_EXTRACT || status == CF_CREATED)) {
    fb_restore_set_attributes(core->restore, &core->rp);
    if (core->rp.create_status != 0)
      printf("set_attributes wants the core: %d\n", core->rp.create_status);
    if (status == CF_EXTRACT) {
      printf("size %lld\n", (long long)io(core, IO_SEEK, NULL, 0, SEEK_END, 0).offset);
      io(core, IO_CLOSE, NULL, 0, 0, 0);
    }
    core->ofname[0] = '*'; /* the daemon's name is gone by now */
    for (int i = 0; i < core->blob_count; i++) {
      struct xacl_pkt xacl = {.pkt_size = sizeof(xacl),
                              .func = BXATTR_RESTORE,
                              .count = (int)core->blobs[i].size,
                              .content = core->blobs[i].bytes,
                              .pkt_end = sizeof(xacl)};
      fb_restore_xacl(core->restore, &xacl);
    }
  }
  fb_restore_end_file(core->restore);
  forget_file(core);
}

static void keep_blob(struct core *core, char **argv) {
  char *bytes;
  size_t size = unhex(argv[1], &bytes);
  /* Exactly as long as it is, so that AddressSanitizer sees a read beyond it. */
  char *exact = malloc(size != 0 ? size : 1);
  if (size != 0)
    memcpy(exact, bytes, size);
  free(bytes);
  core->blobs[core->blob_count].bytes = exact;
  core->blobs[core->blob_count++].size = size;
}

static void begin(struct core *core, char **argv) {
  char *where, *work_dir;
  unhex(argv[1], &where);
  unhex(argv[2], &work_dir);
  core->restore = fb_restore_new(&HOST, where, work_dir);
  free(where);
  free(work_dir);
}

static void add_object(struct core *core, char **argv) {
  static struct fb_summary summary; /* of one job, as this process is */
  char *bytes;
  size_t size = unhex(argv[1], &bytes);
  char *exact = malloc(size != 0 ? size : 1);
  if (size != 0)
    memcpy(exact, bytes, size);
  free(bytes);
  fb_summary_add(&summary, exact, size);
  free(exact);
  fb_restore_set_summary(core->restore, &summary);
}

static void run_line(struct core *core, char *line) {
  char *argv[16] = {0};
  int argc = 0;
  for (char *word = strtok(line, " \n"); word != NULL && argc < 16; word = strtok(NULL, " \n"))
    argv[argc++] = word;
  if (argc == 0)
    return;
  if (strcmp(argv[0], "new") == 0)
    begin(core, argv);
  else if (strcmp(argv[0], "setid") == 0) {
    if (setgroups(0, NULL) < 0 || setresgid(atoi(argv[2]), atoi(argv[2]), atoi(argv[2])) < 0 ||
        setresuid(atoi(argv[1]), atoi(argv[1]), atoi(argv[1])) < 0)
      exit(3);
  } else if (strcmp(argv[0], "cancel") == 0)
    is_canceled_now = true;
  else if (strcmp(argv[0], "object") == 0)
    add_object(core, argv);
  else if (strcmp(argv[0], "statfs") == 0)
    filesystem_magic = strtoul(argv[1], NULL, 0);
  else if (strcmp(argv[0], "swap") == 0)
    unhex(argv[1], &swap_from);
  else if (strcmp(argv[0], "file") == 0)
    start(core, argv);
  else if (strcmp(argv[0], "data") == 0)
    write_data(core, argv);
  else if (strcmp(argv[0], "blob") == 0 && core->blob_count < BLOBS_MAX)
    keep_blob(core, argv);
  else if (strcmp(argv[0], "end") == 0)
    finish(core, false);
  else if (strcmp(argv[0], "abandon") == 0)
    finish(core, true);
  else if (strcmp(argv[0], "endjob") == 0) {
    fb_restore_end_job(core->restore);
    fb_restore_free(core->restore);
    core->restore = NULL;
  } else
    exit(4);
}

struct worker {
  const char *where, *work_dir;
  int first, count;
};

static void *restore_in_thread(void *argument) {
  struct worker *worker = argument;
  struct core core = {.restore = fb_restore_new(&HOST, worker->where, worker->work_dir)};
  for (int i = 0; i < worker->count; i++) {
    bool is_dir = i % 3 == 2;
    char name[4096];
    core.rp = (struct restore_pkt){.type = is_dir ? FT_DIREND : FT_REGE, .replace = 'a'};
    core.rp.statp.st_mode = is_dir ? S_IFDIR | 0755 : S_IFREG | 0644;
    core.rp.statp.st_mtime = 1000000 + i;
    snprintf(name, sizeof(name), "%s/d%d/e%d/f%d%s", worker->where, i % 5, i % 7,
             2 * i + worker->first, is_dir ? "/" : "");
    core.rp.ofname = core.ofname = strdup(name);
    fb_restore_start_file(core.restore, "");
    fb_restore_create_file(core.restore, &core.rp);
    if (core.rp.create_status != CF_EXTRACT && core.rp.create_status != CF_CREATED)
      printf("create failed %s\n", name);
    finish(&core, false);
  }
  fb_restore_end_job(core.restore);
  fb_restore_free(core.restore);
  return NULL;
}

static int run_threads(char **argv) {
  struct worker workers[2];
  pthread_t threads[2];
  for (int i = 0; i < 2; i++) {
    workers[i] = (struct worker){argv[2], argv[3], i, atoi(argv[4])};
    pthread_create(&threads[i], NULL, restore_in_thread, &workers[i]);
  }
  for (int i = 0; i < 2; i++)
    pthread_join(threads[i], NULL);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 5 && strcmp(argv[1], "threads") == 0)
    return run_threads(argv);
  struct core core = {0};
  char *line = malloc(LINE_BYTES_MAX);
  while (fgets(line, LINE_BYTES_MAX, stdin) != NULL) {
    run_line(&core, line);
    fflush(stdout);
  }
  free(line);
  fb_restore_free(core.restore);
  forget_file(&core);
  return 0;
}
