/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See restore_report.h.
 */
#include "restore_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "abi.h"

#define MESSAGE_BYTES_MAX 2000

/* How many bytes the UTF-8 character at the beginning of bytes has; 0 if it is
 * none (also overlong forms, surrogates and control characters above 0x7f). */
static size_t utf8_length(const unsigned char *bytes, size_t left) {
  size_t length = bytes[0] < 0x80   ? 1
                  : bytes[0] < 0xc2 ? 0
                  : bytes[0] < 0xe0 ? 2
                  : bytes[0] < 0xf0 ? 3
                  : bytes[0] < 0xf5 ? 4
                                    : 0;
  if (length > left)
    return 0;
  for (size_t i = 1; i < length; i++)
    if ((bytes[i] & 0xc0) != 0x80)
      return 0;
  if ((bytes[0] == 0xc2 && bytes[1] < 0xa0) || (bytes[0] == 0xe0 && bytes[1] < 0xa0) ||
      (bytes[0] == 0xed && bytes[1] >= 0xa0) || (bytes[0] == 0xf0 && bytes[1] < 0x90) ||
      (bytes[0] == 0xf4 && bytes[1] >= 0x90))
    return 0;
  return length;
}

const char *fb_printable(const char *bytes, size_t length, char *out, size_t out_size) {
  const unsigned char *in = (const unsigned char *)bytes;
  size_t used = 0;
  for (size_t i = 0; i < length;) {
    size_t whole = utf8_length(in + i, length - i);
    bool plain = whole > 1 || (whole == 1 && in[i] >= 0x20 && in[i] != 0x7f && in[i] != '\\');
    size_t needed = plain ? whole : 4;
    if (used + needed + sizeof("...") > out_size) {
      memcpy(out + used, "...", sizeof("..."));
      return out;
    }
    if (plain)
      memcpy(out + used, in + i, whole);
    else
      snprintf(out + used, 5, "\\x%02x", in[i]);
    used += needed;
    i += plain ? whole : 1;
  }
  out[used] = '\0';
  return out;
}

static void say_unless_full(struct fb_report *report, int type, unsigned *said,
                            uint64_t *left_out, const char *fmt, va_list args) {
  char text[MESSAGE_BYTES_MAX];
  if (*said >= FB_REPORT_MESSAGES_MAX) {
    (*left_out)++;
    return;
  }
  (*said)++;
  vsnprintf(text, sizeof(text), fmt, args);
  fb_say(report->host, type, "%s", text);
}

void fb_report_error(struct fb_report *report, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  say_unless_full(report, M_ERROR, &report->messages, &report->errors_left_out, fmt, args);
  va_end(args);
}

void fb_report_warning(struct fb_report *report, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  say_unless_full(report, M_WARNING, &report->messages, &report->warnings_left_out, fmt, args);
  va_end(args);
}

static void report_skip(struct fb_report *report, const char *fmt, ...) {
  va_list args;
  va_start(args, fmt);
  say_unless_full(report, M_SKIPPED, &report->skips, &report->skips_left_out, fmt, args);
  va_end(args);
}

void fb_report_skip(struct fb_report *report, const char *why, const char *path,
                    size_t path_len) {
  char shown[FB_PRINTABLE_BYTES];
  report_skip(report, "File skipped. %s: %s", why,
              fb_printable(path, path_len, shown, sizeof(shown)));
}

void fb_report_without_stream(struct fb_report *report, const char *why, const char *path,
                              size_t path_len) {
  char shown[FB_PRINTABLE_BYTES];
  if (report->without_stream++ > 0)
    return;
  fb_report_warning(report,
                    "%s: its attributes stream %s: xattrs and ACLs are not restored, times "
                    "perhaps in whole seconds only. Further files like it are counted at the "
                    "end of the job.",
                    fb_printable(path, path_len, shown, sizeof(shown)), why);
}

void fb_report_stub(struct fb_report *report, uint64_t size, int mark_error, const char *path,
                    size_t path_len) {
  char shown[FB_PRINTABLE_BYTES];
  report->stubs_unmarked += mark_error != 0;
  if (report->stubs++ > 0)
    return;
  fb_report_error(report,
                  "%s: HSM had released this file, and it was saved without its %" PRIu64
                  " bytes of data (hsm=stub): it is restored empty, with the xattr " FB_STUB_MARK
                  "%s%s; its data is in the archive of the filesystem that it came from. Further "
                  "files like it are counted at the end of the job.",
                  fb_printable(path, path_len, shown, sizeof(shown)), size,
                  mark_error != 0 ? " missing: " : "", mark_error != 0 ? strerror(mark_error) : "");
}

static void say_stubs(const struct fb_report *report) {
  if (report->stubs > 1)
    fb_say(report->host, M_WARNING,
           "%" PRIu64 " files in all were saved without their data and are restored empty; %" PRIu64
           " of them could not be given the xattr " FB_STUB_MARK ".",
           report->stubs, report->stubs_unmarked);
  if (report->stubs_left_out != 0)
    fb_say(report->host, M_WARNING,
           "%" PRIu64 " files that were saved without their data were left as they are, because "
           "what is there is not empty.",
           report->stubs_left_out);
}

/* NULL: nothing is said of a single file. */
static const char *sentence_of(enum fb_layout_outcome outcome) {
  switch (outcome) {
  case FB_LAYOUT_ADAPTED:
    return "its layout was adapted (without its pool, or on all OSTs), because the target refused "
           "it as it was saved";
  case FB_LAYOUT_DEFAULTED:
    return "the target refused its layout, quota or pin, and it has the target's own";
  case FB_LAYOUT_STRANGE:
    return "its layout is damaged, foreign or of a later release, and it has the target's own";
  case FB_LAYOUT_LATE:
    return "its layout came behind its data (a plugin of before saved it so), and it has the "
           "target's own";
  default:
    return NULL;
  }
}

void fb_report_layout(struct fb_report *report, enum fb_layout_outcome outcome, int error,
                      const char *path, size_t path_len) {
  char shown[FB_PRINTABLE_BYTES];
  const char *sentence = sentence_of(outcome);
  if (report->layouts[outcome]++ > 0 || sentence == NULL)
    return;
  fb_report_warning(report,
                    "%s: %s%s%s. The data is restored. Further files like it are counted at the "
                    "end of the job.",
                    fb_printable(path, path_len, shown, sizeof(shown)), sentence,
                    error != 0 ? ": " : "", error != 0 ? strerror(error) : "");
}

static const char *name_of(enum fb_layout_kind kind) {
  return kind == FB_LAYOUT_CEPH ? "CephFS" : "Lustre";
}

void fb_report_summary(const struct fb_report *report, const struct fb_summary *summary,
                       enum fb_layout_kind target) {
  if (summary->unknown != 0)
    fb_say(report->host, M_INFO,
           "forebay: %u summaries of layouts are damaged or of a later release; nothing that is "
           "restored depends on them",
           summary->unknown);
  if (summary->files == 0 && summary->directories == 0)
    return;
  const char *name = name_of(summary->kind);
  fb_say(report->host, M_INFO,
         "forebay: the jobs saved %" PRIu64 " files with a layout (of %" PRIu64 " kinds or more) "
         "and %" PRIu64 " directories with a default layout, quota or pin of their own on %s%s%s%s%s%s",
         summary->files, summary->layouts, summary->directories, name,
         summary->identity[0] != '\0' ? " " : "", summary->identity,
         summary->kind == target ? "" : "; the restore place is on no ", 
         summary->kind == target ? "" : name,
         summary->kind == target ? "" : ", so that files get its own layout");
}

static void say_layouts(const struct fb_report *report) {
  const uint64_t *count = report->layouts;
  for (int outcome = 0; outcome < FB_LAYOUT_OUTCOMES; outcome++)
    if (count[outcome] > 1 && sentence_of((enum fb_layout_outcome)outcome) != NULL)
      fb_say(report->host, M_WARNING, "%" PRIu64 " files or directories in all: %s.",
             count[outcome], sentence_of((enum fb_layout_outcome)outcome));
  if (count[FB_LAYOUT_ELSEWHERE] != 0)
    fb_say(report->host, M_INFO,
           "%" PRIu64 " files or directories were saved with a layout, quota or pin that the "
           "target filesystem does not have: they have the target's own.",
           count[FB_LAYOUT_ELSEWHERE]);
  if (count[FB_LAYOUT_MIRRORED] != 0)
    fb_say(report->host, M_INFO,
           "%" PRIu64 " files have several mirrors, of which one has the data: run lfs mirror "
           "resync on them.",
           count[FB_LAYOUT_MIRRORED]);
}

void fb_report_end(struct fb_report *report) {
  const struct fb_host *host = report->host;
  if (report->errors_left_out != 0)
    fb_say(host, M_ERROR, "%" PRIu64 " more errors were left out of this log.",
           report->errors_left_out);
  if (report->warnings_left_out != 0)
    fb_say(host, M_WARNING, "%" PRIu64 " more warnings were left out of this log.",
           report->warnings_left_out);
  if (report->skips_left_out != 0)
    fb_say(host, M_INFO, "%" PRIu64 " more files were skipped, as the replace mode says.",
           report->skips_left_out);
  if (report->owners_denied != 0)
    fb_say(host, M_WARNING,
           "%" PRIu64 " files could not be given their owner or group and were left to the "
           "File Daemon's user (without setuid and setgid bits): run the restore with a File "
           "Daemon that runs as root to get owners back.",
           report->owners_denied);
  if (report->xattrs_denied != 0)
    fb_say(host, M_WARNING,
           "%" PRIu64 " trusted. and security. xattrs could not be set: run the restore with "
           "a File Daemon that runs as root to get them back.",
           report->xattrs_denied);
  if (report->without_stream > 1)
    fb_say(host, M_WARNING,
           "%" PRIu64 " files in all had no complete attributes stream: times in whole "
           "seconds, no xattrs or ACLs.",
           report->without_stream);
  if (report->lost_at_backup != 0)
    fb_say(host, M_WARNING,
           "%" PRIu64 " xattrs are not in the backup, because they could not be read then.",
           report->lost_at_backup);
  say_layouts(report);
  say_stubs(report);
  *report = (struct fb_report){.host = host};
}
