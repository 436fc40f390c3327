/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See command.h.
 */
#include "command.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PLUGIN_PREFIX "forebay:"

static int refuse(char *error, const char *form, const char *what, const char *text, size_t len) {
  snprintf(error, FB_COMMAND_ERROR_BYTES, "%s \"%.*s\": write %s", what,
           (int)(len < 200 ? len : 200), text, form);
  return -1;
}

/* Digits only, without a sign, a blank or an overflow. */
static bool take_number(const char **text, uint32_t max, uint32_t *number) {
  const char *p = *text;
  uint32_t value = 0;
  if (*p < '0' || *p > '9')
    return false;
  for (; *p >= '0' && *p <= '9'; p++) {
    value = value * 10 + (uint32_t)(*p - '0');
    if (value > max)
      return false;
  }
  *text = p;
  *number = value;
  return true;
}

static bool take_shard(const char *value, size_t len, struct fb_command *command) {
  const char *p = value;
  return take_number(&p, FB_SHARDS_MAX, &command->shard) && *p++ == '/' &&
         take_number(&p, FB_SHARDS_MAX, &command->shard_count) && p == value + len &&
         command->shard < command->shard_count;
}

static bool take_text(const char *value, size_t len, char *out, size_t bytes_max) {
  if (len == 0 || len > bytes_max)
    return false;
  for (size_t i = 0; i < len; i++)
    if ((unsigned char)value[i] < 0x20 || value[i] == 0x7f)
      return false;
  memcpy(out, value, len);
  out[len] = 0;
  return true;
}

static bool take_socket(const char *value, size_t len, char *out) {
  return len > 0 && value[0] == '/' && take_text(value, len, out, FB_SOCKET_BYTES_MAX);
}

static bool is_value(const char *value, size_t len, const char *word) {
  return len == strlen(word) && memcmp(value, word, len) == 0;
}

static bool take_hsm(const char *value, size_t len, enum fb_hsm *hsm) {
  static const char *const words[] = {
      [FB_HSM_SKIP] = "skip", [FB_HSM_STUB] = "stub", [FB_HSM_RECALL] = "recall"};
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    if (is_value(value, len, words[i])) {
      *hsm = (enum fb_hsm)i;
      return true;
    }
  }
  return false;
}

static bool is_key(const char *key, const char *equals, const char *name) {
  return is_value(key, (size_t)(equals - key), name);
}

int fb_command_parse(const char *text, struct fb_command *command, char *error) {
  bool has_dataset = false, has_shard = false, has_socket = false, has_hsm = false;
  memset(command, 0, sizeof *command);
  if (strncmp(text, PLUGIN_PREFIX, strlen(PLUGIN_PREFIX)) != 0)
    return refuse(error, FB_COMMAND_FORM, "not a command of this plugin:", text, strlen(text));
  const char *part = text + strlen(PLUGIN_PREFIX);
  for (;;) {
    size_t len = strcspn(part, ":");
    const char *equals = memchr(part, '=', len);
    if (equals == NULL)
      return refuse(error, FB_COMMAND_FORM, "a part without a value in the plugin command:", text,
                    strlen(text));
    const char *value = equals + 1;
    size_t value_len = (size_t)(part + len - value);
    bool *seen, good;
    if (is_key(part, equals, "dataset")) {
      seen = &has_dataset;
      good = take_text(value, value_len, command->dataset, FB_DATASET_BYTES_MAX);
    } else if (is_key(part, equals, "shard")) {
      seen = &has_shard;
      good = take_shard(value, value_len, command);
    } else if (is_key(part, equals, "socket")) {
      seen = &has_socket;
      good = take_socket(value, value_len, command->socket_path);
    } else if (is_key(part, equals, "hsm")) {
      seen = &has_hsm;
      good = take_hsm(value, value_len, &command->hsm);
    } else {
      return refuse(error, FB_COMMAND_FORM, "an unknown key in the plugin command:", part, len);
    }
    if (*seen)
      return refuse(error, FB_COMMAND_FORM, "a key twice in the plugin command:", part, len);
    if (!good)
      return refuse(error, FB_COMMAND_FORM ", K from 0 to N-1, N up to 1024, PATH absolute",
                    "a bad value in the plugin command:", part, len);
    *seen = true;
    if (part[len] == 0)
      break;
    part += len + 1;
  }
  if (!has_dataset || !has_shard)
    return refuse(error, FB_COMMAND_FORM, "dataset or shard is missing in the plugin command:",
                  text, strlen(text));
  return 0;
}

int fb_options_parse(const char *text, char socket_path[FB_SOCKET_BYTES_MAX + 1], char *error) {
  const char *key = PLUGIN_PREFIX "socket=";
  size_t len = strlen(text);
  while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
    len--;
  if (strncmp(text, key, strlen(key)) != 0 ||
      !take_socket(text + strlen(key), len - strlen(key), socket_path))
    return refuse(error, FB_OPTIONS_FORM, "cannot use the Plugin Options", text, len);
  return 0;
}
