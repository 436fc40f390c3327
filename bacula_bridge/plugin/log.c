/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See log.h.
 */
#include "log.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "abi.h"
#include "backup.h"

void fb_log_init(struct fb_log *log, const struct fb_host *host,
                 const struct fb_command *command) {
  log->host = host;
  log->warnings = 0;
  log->not_descended = 0;
  log->released = 0;
  log->stubs = 0;
  snprintf(log->label, sizeof log->label, "dataset %s, shard %" PRIu32 "/%" PRIu32,
           command->dataset, command->shard, command->shard_count);
}

/* before + the name + after, unless enough has been said. */
__attribute__((format(printf, 4, 5))) static void warn(struct fb_log *log, const char *before,
                                                       const char *fname, const char *fmt, ...) {
  char name[FB_PRINTABLE_BYTES], after[256];
  log->warnings++;
  if (log->warnings == FB_FILE_WARNINGS_SAID_MAX + 1)
    fb_say(log->host, M_WARNING,
           "forebay: %s: more files have warnings than the %d above: the run's report lists all",
           log->label, FB_FILE_WARNINGS_SAID_MAX);
  if (log->warnings > FB_FILE_WARNINGS_SAID_MAX)
    return;
  va_list args;
  va_start(args, fmt);
  vsnprintf(after, sizeof after, fmt, args);
  va_end(args);
  fb_say(log->host, FB_MESSAGE_FILE_WARNING, "forebay: %s%s%s", before,
         fb_escape_text(fname, strlen(fname), name), after);
}

static const char *text_of(int error, char buffer[128]) {
  return strerror_r(error, buffer, 128); /* GNU's, which gives the text back */
}

void fb_log_scan_error(struct fb_log *log, const char *fname, const struct fb_entry *entry) {
  char buffer[128];
  const char *text = text_of(entry->error, buffer);
  if ((entry->flags & FB_ENTRY_PATH_TOO_LONG) != 0)
    warn(log, "not saved, the path is longer than 65,535 bytes: ", fname, ": %s", text);
  else if ((entry->flags & FB_ENTRY_LIST_FAILED) != 0)
    warn(log, "the scan could not list all of ", fname, ", names in it may be missing: %s", text);
  else
    warn(log, "not saved, the scan could not read the attributes of ", fname, ": %s", text);
}

void fb_log_not_saved(struct fb_log *log, const char *fname, enum fb_status status, int error) {
  char buffer[128];
  if (status == FB_REPLACED)
    warn(log, "not saved, another file has taken the name since the scan: ", fname, "%s%s",
         error != 0 ? ": " : "", error != 0 ? text_of(error, buffer) : "");
  else if (status == FB_VANISHED)
    warn(log, "not saved, vanished since the scan: ", fname, ": %s", text_of(error, buffer));
  else
    warn(log, "could not read ", fname, ": %s", text_of(error, buffer));
}

void fb_log_changed(struct fb_log *log, const char *fname) {
  warn(log, "changed while it was read, saved as it was read: ", fname, "%s", "");
}

void fb_log_lost_xattrs(struct fb_log *log, const char *fname, unsigned count, int error) {
  char buffer[128];
  warn(log, "saved without some extended attributes: ", fname, ": %u could not be read: %s", count,
       text_of(error, buffer));
}

void fb_log_not_descended(struct fb_log *log, const char *fname, const struct fb_entry *entry) {
  char name[FB_PRINTABLE_BYTES];
  if ((entry->flags & (FB_ENTRY_MOUNT_POINT | FB_ENTRY_EXCLUDED)) == 0)
    return;
  if (++log->not_descended > FB_NOT_DESCENDED_SAID_MAX)
    return;
  fb_say(log->host, M_INFO, "forebay: %s: %s", fb_escape_text(fname, strlen(fname), name),
         (entry->flags & FB_ENTRY_MOUNT_POINT) != 0
             ? "another filesystem is mounted here and is not part of this backup"
             : "left out, it holds Forebay's own state");
}

/* What hsm=skip leaves out is not in the backup at all, which should not pass for a good one;
 * who writes hsm=stub has asked for what it does. */
static void say_released(const struct fb_log *log) {
  if (log->released > 0)
    fb_say(log->host, FB_MESSAGE_FILE_WARNING,
           "forebay: %s: not saved, %" PRIu64 " names of files that HSM has released, since to read "
           "them would recall them: hsm=stub in the plugin command saves all but their data, "
           "hsm=recall reads them",
           log->label, log->released);
  if (log->stubs > 0)
    fb_say(log->host, M_WARNING,
           "forebay: %s: %" PRIu64 " files that HSM has released are saved without their data "
           "(hsm=stub), which only the archive of the filesystem has",
           log->label, log->stubs);
}

void fb_log_summary(const struct fb_log *log, uint64_t files, uint64_t bytes, uint64_t sockets) {
  if (log->not_descended > FB_NOT_DESCENDED_SAID_MAX)
    fb_say(log->host, M_INFO,
           "forebay: %s: %" PRIu64 " more mount points and directories of Forebay's own state are "
           "not part of this backup",
           log->label, log->not_descended - FB_NOT_DESCENDED_SAID_MAX);
  say_released(log);
  fb_say(log->host, M_INFO,
         "forebay: %s: complete: %" PRIu64 " names sent, %" PRIu64 " bytes of data, %" PRIu64
         " warnings, %" PRIu64 " sockets left out",
         log->label, files, bytes, log->warnings, sockets);
}
