/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * The attributes stream and paths below a root, one command per run:
 *
 *   build PATH                    prints "lost COUNT ERRNO" and each chunk as "chunk HEX"
 *   short MODE MTIME ATIME        their nanoseconds; prints "fits YES RDEV" (RDEV in hexadecimal)
 *   take MODE RDEV                prints "none" or "MTIME ATIME"
 *   check NUMBER                  stdin: a chunk in hexadecimal; prints its items
 *   crc                           stdin: hexadecimal; prints the CRC-32
 *   fuzz ROUNDS SEED              mutated chunks through check and item
 *   open ROOT FLAG                stdin: a path in hexadecimal; FLAG dir, path or file
 *   parent ROOT                   as open, fb_open_parent; prints the name, too
 *   make ROOT MODE REPLACE        as open, fb_make_parent
 *
 * Results of the last three are "0 /real/path" or "-errno".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "beneath.h"
#include "blob.h"
#include "hex.h"

static int build(const char *path) {
  struct fb_blob blob = {0};
  struct stat st;
  struct statx stx;
  unsigned lost;
  int lost_errno;
  if (lstat(path, &st) < 0)
    return 2;
  bool plain = S_ISREG(st.st_mode) || S_ISDIR(st.st_mode);
  int fd = open(path, O_NOFOLLOW | (plain ? O_RDONLY : O_PATH));
  if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &stx) < 0)
    return 2;
  /* Twice, to show that the buffer can be used again. */
  for (int i = 0; i < 2; i++)
    if (fb_blob_build(&blob, fd, &st, &stx, NULL, &lost, &lost_errno) < 0)
      return 3;
  printf("lost %u %d\n", lost, lost_errno);
  const uint8_t *chunk;
  uint32_t size;
  for (size_t at = 0; fb_blob_next_chunk(&blob, &at, &chunk, &size);) {
    printf("chunk ");
    print_hex(chunk, size);
    printf("\n");
  }
  fb_blob_free(&blob);
  close(fd);
  return 0;
}

static int make_short(char **argv) {
  struct stat st = {.st_mode = (mode_t)strtoul(argv[2], NULL, 8),
                    .st_mtim.tv_nsec = atol(argv[3]),
                    .st_atim.tv_nsec = atol(argv[4])};
  printf("fits %d %llx\n", fb_short_fits(&st), (unsigned long long)fb_short_rdev(&st));
  return 0;
}

static int take_short(char **argv) {
  const struct stat st = {.st_mode = (mode_t)strtoul(argv[2], NULL, 8),
                          .st_rdev = strtoull(argv[3], NULL, 16)};
  struct fb_stat out = {.mtime_ns = 1, .atime_ns = 2};
  if (fb_short_take(&st, &out))
    printf("%u %u\n", out.mtime_ns, out.atime_ns);
  else if (out.mtime_ns == 1 && out.atime_ns == 2)
    printf("none\n");
  return 0;
}

static void print_items(const uint8_t *chunk, size_t size) {
  struct fb_item item;
  size_t offset = 0;
  int rc;
  while ((rc = fb_blob_item(chunk, size, &offset, &item)) > 0) {
    printf("item %u %.*s ", item.tag, item.name_len, item.name);
    struct fb_stat st;
    if (item.tag == FB_ITEM_STAT && fb_blob_stat(&item, &st) == 0)
      printf("%o %u %u %u %lld.%09u %lld.%09u ino %llu flags %u", st.mode, st.nlink, st.uid,
             st.gid, (long long)st.atime_s, st.atime_ns, (long long)st.mtime_s, st.mtime_ns,
             (unsigned long long)st.ino, st.flags);
    else
      print_hex(item.value, item.value_len);
    printf("\n");
  }
  printf("items end %d\n", rc);
}

static int check(int number) {
  uint8_t *chunk;
  size_t size = read_hex(&chunk);
  int rc = fb_blob_check(chunk, size, (uint16_t)number);
  printf("check %d\n", rc);
  if (rc == 0)
    print_items(chunk, size);
  free(chunk);
  return 0;
}

static uint64_t next_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void put_u32(uint8_t *to, uint32_t value) {
  for (int i = 0; i < 4; i++)
    to[i] = (uint8_t)(value >> 8 * i);
}

/* Half of the chunks get a right checksum and length, so that the items behind are
 * reached. */
static int fuzz(int rounds, uint64_t seed) {
  uint64_t state = seed * 2654435761u + 1;
  unsigned good = 0, items = 0;
  for (int round = 0; round < rounds; round++) {
    size_t size = next_random(&state) % 400;
    uint8_t *chunk = malloc(size != 0 ? size : 1);
    for (size_t i = 0; i < size; i++) {
      uint64_t value = next_random(&state);
      /* Mostly small numbers: lengths that nearly fit. */
      chunk[i] = (uint8_t)(value % 4 == 0 ? value >> 8 : (value >> 8) % 3);
    }
    if (size >= 16) {
      memcpy(chunk, "FBA1\1\0\0\0", 8);
      put_u32(chunk + 8, (uint32_t)size - 16);
      put_u32(chunk + 12, fb_crc32(0, chunk + 16, size - 16));
      if (round % 2 == 0)
        chunk[next_random(&state) % size] ^= (uint8_t)(1u << next_random(&state) % 8);
    }
    struct fb_item item;
    size_t offset = 0;
    good += fb_blob_check(chunk, size, 0) == 0;
    while (fb_blob_item(chunk, size, &offset, &item) > 0) {
      struct fb_stat st;
      items++;
      fb_blob_stat(&item, &st);
      fb_crc32(0, item.name, item.name_len);
      fb_crc32(0, item.value, item.value_len);
    }
    free(chunk);
  }
  printf("good %u items %u\n", good, items);
  return 0;
}

static void print_opened(int fd) {
  if (fd < 0) {
    printf("%d\n", fd);
    return;
  }
  char link[64], real[40000];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, real, sizeof(real) - 1);
  printf("0 %.*s\n", length > 0 ? (int)length : 0, real);
  close(fd);
}

static int resolve(int argc, char **argv) {
  uint8_t *path;
  const char *name = NULL;
  size_t name_len = 0, path_len = read_hex(&path);
  int root_fd = open(argv[2], O_PATH | O_DIRECTORY), fd;
  if (root_fd < 0)
    return 2;
  if (strcmp(argv[1], "open") == 0) {
    int flags = strcmp(argv[3], "dir") == 0    ? O_RDONLY | O_DIRECTORY
                : strcmp(argv[3], "path") == 0 ? O_PATH
                                               : O_RDONLY;
    fd = fb_open_beneath(root_fd, (char *)path, path_len, flags, 0);
  } else if (argc == 5) {
    fd = fb_make_parent(root_fd, (char *)path, path_len, (mode_t)strtoul(argv[3], NULL, 8),
                        atoi(argv[4]), &name, &name_len);
  } else {
    fd = fb_open_parent(root_fd, (char *)path, path_len, &name, &name_len);
  }
  if (fd >= 0 && name != NULL)
    printf("name %.*s\n", (int)name_len, name);
  print_opened(fd);
  free(path);
  close(root_fd);
  return 0;
}

int main(int argc, char **argv) {
  if (argc == 3 && strcmp(argv[1], "build") == 0)
    return build(argv[2]);
  if (argc == 5 && strcmp(argv[1], "short") == 0)
    return make_short(argv);
  if (argc == 4 && strcmp(argv[1], "take") == 0)
    return take_short(argv);
  if (argc == 3 && strcmp(argv[1], "check") == 0)
    return check(atoi(argv[2]));
  if (argc == 4 && strcmp(argv[1], "fuzz") == 0)
    return fuzz(atoi(argv[2]), strtoull(argv[3], NULL, 10));
  if (argc == 2 && strcmp(argv[1], "crc") == 0) {
    uint8_t *bytes;
    size_t size = read_hex(&bytes);
    printf("%u\n", fb_crc32(0, bytes, size));
    free(bytes);
    return 0;
  }
  return argc >= 3 ? resolve(argc, argv) : 2;
}
