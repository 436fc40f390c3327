/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * What backup.c and restore.c need of the File Daemon, so that both run in a
 * test harness without one.
 */
#ifndef FOREBAY_HOST_H
#define FOREBAY_HOST_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

struct fb_host {
  void *context; /* handed back to every call */
  /* One line for the job log; type is M_FATAL ... M_INFO of abi.h.  The text is
   * data, never a format. */
  void (*message)(void *context, int type, const char *text);
  /* FileIndex of the last record sent; the current file gets this + 1. */
  int32_t (*file_index)(void *context);
  bool (*is_canceled)(void *context);
};

/* Formats at most 2,000 bytes (Bacula cuts there) and hands them to message(). */
void fb_say(const struct fb_host *host, int type, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
