/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * What a restore tells the job log: single messages up to a bound, the rest and
 * what every unprivileged restore meets as counts at the end of the job.
 */
#ifndef FOREBAY_RESTORE_REPORT_H
#define FOREBAY_RESTORE_REPORT_H

#include <stddef.h>
#include <stdint.h>

#include "host.h"
#include "layout.h"
#include "restore_object.h"

/* Messages about single files in one job: the Director needs seconds for ten
 * thousands of them. */
#define FB_REPORT_MESSAGES_MAX 100

/* The xattr of a file that was restored without its data: its size in digits. */
#define FB_STUB_MARK "user.forebay.no_data"

/* Room for a path in a message, which Bacula cuts at 2,000 bytes. */
#define FB_PRINTABLE_BYTES 800

struct fb_report {
  const struct fb_host *host;
  unsigned messages; /* errors and warnings said */
  unsigned skips;    /* skipped files named: they do not use up the others' bound */
  uint64_t errors_left_out, warnings_left_out, skips_left_out;
  uint64_t owners_denied;     /* chown refused: not root */
  uint64_t xattrs_denied;     /* trusted. and security. xattrs refused: not root */
  uint64_t without_stream;    /* files whose attributes stream was missing or damaged */
  uint64_t lost_at_backup;    /* xattrs that the backup could not read */
  uint64_t stubs, stubs_unmarked; /* files saved without their data, and so restored */
  uint64_t stubs_left_out;        /* of them not: what is there may have the data */
  uint64_t layouts[FB_LAYOUT_OUTCOMES]; /* what became of them */
};

void fb_report_error(struct fb_report *report, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void fb_report_warning(struct fb_report *report, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A file left as it is because of the job's replace mode. */
void fb_report_skip(struct fb_report *report, const char *why, const char *path,
                    size_t path_len);
/* The attributes stream of path is missing or damaged: a warning for the first. */
void fb_report_without_stream(struct fb_report *report, const char *why, const char *path,
                              size_t path_len);
/* path was saved without its data, of which there were size bytes, and is empty: an error for the
 * first.  mark_error: 0, or why it was not marked. */
void fb_report_stub(struct fb_report *report, uint64_t size, int mark_error, const char *path,
                    size_t path_len);
/* What became of the layout of path; error is an errno or 0.  A warning for the first of a
 * sort that asks for somebody to look. */
void fb_report_layout(struct fb_report *report, enum fb_layout_outcome outcome, int error,
                      const char *path, size_t path_len);
/* What the restore objects say, before anything is restored; target: of the restore place. */
void fb_report_summary(const struct fb_report *report, const struct fb_summary *summary,
                       enum fb_layout_kind target);
/* The counts, at the end of the job; they start again at 0. */
void fb_report_end(struct fb_report *report);

/* Writes bytes for people: control characters and what is no UTF-8 as \xNN, cut
 * at the size of out (at least 8 bytes).  Returns out. */
const char *fb_printable(const char *bytes, size_t length, char *out, size_t out_size);

#endif
