/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The parsers of layouts, one command per run; bytes come and go in hexadecimal:
 *
 *   lustre WITHOUT_POOL ALL_OSTS             stdin: a lustre.lov; prints "VERDICT POOL STRIPES
 *                                            MIRRORS BYTES"
 *   ceph                                     stdin: a text; prints "none", or the text and the
 *                                            text without its pool, a line each
 *   number                                   stdin: a value; prints 0 or 1
 *   command KIND INO                         stdin: a layout (KIND ceph or lustre); prints the
 *                                            command
 *   ahead                                    stdin: a command; prints "KIND DAMAGED INO BYTES"
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hex.h"
#include "layout.h"
#include "layout_ceph.h"

static void rebuild(char **argv, const uint8_t *lov, size_t size) {
  const struct fb_lustre_changes changes = {.without_pool = atoi(argv[2]),
                                            .all_osts = atoi(argv[3])};
  struct fb_lustre_about about;
  uint8_t *out = malloc(size != 0 ? size : 1);
  size_t out_size;
  enum fb_lustre_verdict verdict = fb_lustre_rebuild(lov, size, &changes, out, &out_size, &about);
  printf("%d %d %d %u ", verdict, about.has_pool, about.has_stripes, about.mirrors);
  print_hex(out, verdict == FB_LUSTRE_OK ? out_size : 0);
  printf("\n");
  free(out);
}

static void parse_ceph(const uint8_t *text, size_t size) {
  struct fb_ceph_layout layout;
  char out[FB_CEPH_TEXT_BYTES_MAX];
  if (!fb_ceph_parse(text, size, &layout)) {
    printf("none\n");
    return;
  }
  for (int with_pool = 1; with_pool >= 0; with_pool--) {
    size_t length = fb_ceph_format(&layout, with_pool, out);
    printf("%.*s\n", (int)length, out);
  }
}

static void make_command(char **argv, const uint8_t *data, size_t size) {
  bool is_ceph = strcmp(argv[2], "ceph") == 0;
  struct fb_layout layout = {.kind = is_ceph ? FB_LAYOUT_CEPH : FB_LAYOUT_LUSTRE,
                             .data = (uint8_t *)(uintptr_t)data,
                             .size = size};
  char *buffer = NULL;
  size_t capacity = 0;
  /* Twice, to show that the buffer can be used again. */
  for (int i = 0; i < 2; i++)
    if (fb_layout_command(&layout, strtoull(argv[3], NULL, 10), &buffer, &capacity) < 0)
      exit(3);
  printf("%s\n", buffer);
  free(buffer);
}

static void take_command(const uint8_t *bytes, size_t size) {
  struct fb_layout_ahead *ahead = calloc(1, sizeof *ahead);
  char *text = malloc(size + 1);
  memcpy(text, bytes, size);
  text[size] = '\0';
  fb_layout_take_command(ahead, text);
  printf("%d %d %llu ", ahead->kind, ahead->is_damaged, (unsigned long long)ahead->ino);
  print_hex(ahead->data, ahead->kind != FB_LAYOUT_NONE ? ahead->size : 0);
  printf("\n");
  free(text);
  free(ahead);
}

int main(int argc, char **argv) {
  uint8_t *bytes;
  size_t size = read_hex(&bytes);
  if (argc == 4 && strcmp(argv[1], "lustre") == 0)
    rebuild(argv, bytes, size);
  else if (argc == 2 && strcmp(argv[1], "ceph") == 0)
    parse_ceph(bytes, size);
  else if (argc == 2 && strcmp(argv[1], "number") == 0)
    printf("%d\n", fb_ceph_is_number(bytes, size));
  else if (argc == 4 && strcmp(argv[1], "command") == 0)
    make_command(argv, bytes, size);
  else if (argc == 2 && strcmp(argv[1], "ahead") == 0)
    take_command(bytes, size);
  else
    return 2;
  free(bytes);
  return 0;
}
