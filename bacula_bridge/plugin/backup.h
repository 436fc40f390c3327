/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The backup side: one stream from the bridge becomes the files of one Bacula job.
 *
 * Covers: the conversation (HELLO to DONE_ACK), what Bacula gets of each entry, the
 * job log, receipts.  Does not cover: the daemon's interface (plugin.c).
 *
 * Every way to an incomplete job ends in exactly one M_FATAL, unless the job was
 * cancelled.  All functions but fb_backup_cancel() run on the job's thread.
 */
#ifndef FOREBAY_BACKUP_H
#define FOREBAY_BACKUP_H

#include "abi.h"
#include "command.h"
#include "host.h"

/* What makes Bacula count an error and end the job "OK -- with warnings". */
#define FB_MESSAGE_FILE_WARNING M_ERROR
/* Lines about single files in one job log; the run's report has them all. */
#define FB_FILE_WARNINGS_SAID_MAX 100
/* Lines about mount points and Forebay's own directories in one job log. */
#define FB_NOT_DESCENDED_SAID_MAX 100

struct fb_backup;

struct fb_job {
  char level; /* F, D or I */
  uint32_t job_id;
  int64_t since;
  const char *name; /* unique */
  const char *previous_name;
  const char *client;
};

/* Starts to connect.  NULL: M_FATAL has been said. */
struct fb_backup *fb_backup_new(const struct fb_host *host, const struct fb_command *command,
                                const struct fb_job *job);
/* Waits for the bridge's ACCEPT. */
bRC fb_backup_begin(struct fb_backup *b);
bRC fb_backup_start_file(struct fb_backup *b, struct save_pkt *sp);
bRC fb_backup_io(struct fb_backup *b, struct io_pkt *io);
bRC fb_backup_xacl(struct fb_backup *b, struct xacl_pkt *xacl);
/* More while files are to come; otherwise the bridge has every receipt. */
bRC fb_backup_end_file(struct fb_backup *b);
/* Event 4: an incomplete stream that nobody has complained about is M_FATAL. */
void fb_backup_end_job(struct fb_backup *b);
/* Ends every wait; from any thread. */
void fb_backup_cancel(struct fb_backup *b);
void fb_backup_free(struct fb_backup *b);

#endif
