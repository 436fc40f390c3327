/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The lines of the job log about single files: counted all, said up to a bound.
 */
#ifndef FOREBAY_LOG_H
#define FOREBAY_LOG_H

#include "command.h"
#include "frames.h"
#include "host.h"

struct fb_log {
  const struct fb_host *host;
  uint64_t warnings;
  uint64_t not_descended;
  uint64_t released; /* names left out, because HSM has released their files */
  uint64_t stubs;    /* files saved without their data for the same reason */
  char label[FB_DATASET_BYTES_MAX + 64]; /* dataset and shard */
};

void fb_log_init(struct fb_log *log, const struct fb_host *host, const struct fb_command *command);
void fb_log_scan_error(struct fb_log *log, const char *fname, const struct fb_entry *entry);
void fb_log_not_saved(struct fb_log *log, const char *fname, enum fb_status status, int error);
void fb_log_changed(struct fb_log *log, const char *fname);
void fb_log_lost_xattrs(struct fb_log *log, const char *fname, unsigned count, int error);
/* What the scan did not go into: one line, unless it is an ordinary entry. */
void fb_log_not_descended(struct fb_log *log, const char *fname, const struct fb_entry *entry);
void fb_log_summary(const struct fb_log *log, uint64_t files, uint64_t bytes, uint64_t sockets);

#endif
