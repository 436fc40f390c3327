/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The restore side: makes files below the restore place from what Bacula hands
 * back.  Needs no bridge.  One fb_restore per restore job.
 */
#ifndef FOREBAY_RESTORE_H
#define FOREBAY_RESTORE_H

#include "abi.h"
#include "host.h"
#include "restore_object.h"

struct fb_restore;

/* where: the job's Where (may be NULL, "" or "/" for the original place);
 * work_dir: for the temporary file of directory attributes.  NULL without memory. */
struct fb_restore *fb_restore_new(const struct fb_host *host, const char *where,
                                  const char *work_dir);
/* What the restore objects said; it is told once the place is known. */
void fb_restore_set_summary(struct fb_restore *r, const struct fb_summary *summary);
bRC fb_restore_start_file(struct fb_restore *r, const char *command);
bRC fb_restore_create_file(struct fb_restore *r, struct restore_pkt *rp);
bRC fb_restore_io(struct fb_restore *r, struct io_pkt *io);
bRC fb_restore_set_attributes(struct fb_restore *r, struct restore_pkt *rp);
bRC fb_restore_xacl(struct fb_restore *r, struct xacl_pkt *xacl);
bRC fb_restore_end_file(struct fb_restore *r);
/* Event 6: applies the directories' attributes, deepest first. */
void fb_restore_end_job(struct fb_restore *r);
void fb_restore_free(struct fb_restore *r);

#endif
