/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See content.h.
 */
#include "content.h"

#include <errno.h>
#include <string.h>

void fb_content_start(struct fb_content *content, struct fb_prefetch *item,
                      struct fb_reader *reader) {
  content->item = item;
  content->reader = reader;
  content->extent = 0;
  content->extent_used = 0;
  content->data_used = 0;
  content->position = 0;
  content->is_at_end = false;
  content->is_padding = false;
  if (item != NULL && item->large)
    fb_xxh3_init(&content->hash);
}

static ssize_t read_small(struct fb_content *c, uint8_t *to, size_t size, uint64_t *offset) {
  const struct fb_prefetch *item = c->item;
  const struct fb_extent whole = {0, item->data_size};
  const struct fb_extent *extents = item->sparse ? item->extents : &whole;
  const size_t count = item->sparse ? item->extent_count : 1;
  if (c->extent == count)
    return 0;
  const struct fb_extent *extent = &extents[c->extent];
  uint64_t left = extent->size - c->extent_used;
  size_t take = left < size ? (size_t)left : size;
  memcpy(to, item->data + c->data_used, take);
  *offset = extent->offset + c->extent_used;
  c->data_used += take;
  c->extent_used += take;
  if (c->extent_used == extent->size) {
    c->extent++;
    c->extent_used = 0;
  }
  return (ssize_t)take;
}

static ssize_t read_padding(struct fb_content *c, uint8_t *to, size_t size, uint64_t *offset) {
  const uint64_t end = (uint64_t)c->item->st.st_size;
  if (c->position >= end)
    return 0;
  if (c->item->sparse)
    c->position = end - 1;
  uint64_t left = end - c->position;
  size_t take = left < size ? (size_t)left : size;
  memset(to, 0, take);
  *offset = c->position;
  return (ssize_t)take;
}

static ssize_t read_large(struct fb_content *c, uint8_t *to, size_t size, uint64_t *offset) {
  struct fb_prefetch *item = c->item;
  if (!c->is_padding) {
    bool ended_early;
    ssize_t n = fb_reader_read_large(c->reader, item, to, size, offset, &ended_early);
    if (n == -ECANCELED)
      return n;
    if (n < 0) {
      item->status = FB_UNREADABLE;
      item->error = (int)-n;
      return 0;
    }
    if (!ended_early)
      return n;
    item->status = FB_CHANGED;
    c->is_padding = true;
  }
  return read_padding(c, to, size, offset);
}

ssize_t fb_content_read(struct fb_content *c, uint8_t *to, size_t size, uint64_t *offset) {
  if (c->item == NULL || c->is_at_end)
    return 0;
  if (!c->item->large) {
    ssize_t n = read_small(c, to, size, offset);
    c->is_at_end = n == 0;
    return n;
  }
  ssize_t n = read_large(c, to, size, offset);
  if (n > 0) {
    fb_xxh3_update(&c->hash, to, (size_t)n);
    c->position = *offset + (uint64_t)n;
    c->item->data_size += (size_t)n;
  }
  c->is_at_end = n == 0;
  return n;
}

bool fb_content_is_whole(const struct fb_content *c) { return c->item == NULL || c->is_at_end; }

void fb_content_judge(struct fb_content *c, struct fb_prefetch *item) {
  if (c->item == NULL)
    return;
  if (!c->is_at_end && item->status != FB_UNREADABLE) {
    /* The daemon gave up on this file: what it has is a part. */
    item->status = FB_UNREADABLE;
    item->error = EIO;
  }
  if (!item->large)
    return;
  if (item->status == FB_SAVED && fb_prefetch_moved(item, item->fd))
    item->status = FB_CHANGED;
  fb_xxh3_final(&c->hash, item->hash);
}
