/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See host.h.
 */
#include "host.h"

#include <stdio.h>
#include <string.h>

#define MESSAGE_BYTES_MAX 2000

void fb_say(const struct fb_host *host, int type, const char *fmt, ...) {
  char text[MESSAGE_BYTES_MAX];
  va_list args;
  va_start(args, fmt);
  vsnprintf(text, sizeof text - 1, fmt, args);
  va_end(args);
  /* A message of the job log ends its line itself. */
  size_t len = strlen(text);
  if (len == 0 || text[len - 1] != '\n') {
    text[len] = '\n';
    text[len + 1] = 0;
  }
  host->message(host->context, type, text);
}
