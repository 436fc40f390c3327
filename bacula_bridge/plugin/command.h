/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The plugin command, `forebay:dataset=NAME:shard=K/N[:socket=PATH][:hsm=POLICY]`, and the
 * File Daemon's Plugin Options.
 */
#ifndef FOREBAY_COMMAND_H
#define FOREBAY_COMMAND_H

#include <stdint.h>
#include <sys/un.h>

#include "layout.h"

#define FB_COMMAND_FORM "forebay:dataset=NAME:shard=K/N[:socket=PATH][:hsm=skip|stub|recall]"
#define FB_OPTIONS_FORM "forebay:socket=PATH"
#define FB_DATASET_BYTES_MAX 255
#define FB_SHARDS_MAX 1024
#define FB_SOCKET_BYTES_MAX (sizeof((struct sockaddr_un *)0)->sun_path - 1)
#define FB_SOCKET_DEFAULT "/run/forebay/bridge.sock"
#define FB_COMMAND_ERROR_BYTES 512

struct fb_command {
  char dataset[FB_DATASET_BYTES_MAX + 1];
  uint32_t shard;
  uint32_t shard_count;
  char socket_path[FB_SOCKET_BYTES_MAX + 1]; /* empty: not given */
  enum fb_hsm hsm; /* skip, if not given */
};

/* 0, or -1 with a sentence in error (FB_COMMAND_ERROR_BYTES). */
int fb_command_parse(const char *text, struct fb_command *command, char *error);
int fb_options_parse(const char *text, char socket_path[FB_SOCKET_BYTES_MAX + 1], char *error);

#endif
