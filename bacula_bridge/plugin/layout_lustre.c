/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * See layout_lustre.h.  The numbers are those of lustre_user.h
 * (lustre/include/uapi/linux/lustre in Lustre 2.15 and 2.17): struct lov_user_md_v1 and _v3,
 * struct lov_comp_md_v1 and lov_comp_md_entry_v1.  They are in host order, which is
 * little-endian wherever this plugin runs (abi.h).
 */
#include "layout_lustre.h"

#include <string.h>

#include "wire.h"

#define MAGIC_V1 0x0BD10BD0u
#define MAGIC_V3 0x0BD30BD0u
#define MAGIC_SPECIFIC 0x0BD50BD0u /* as V3, with OSTs that somebody chose */
#define MAGIC_COMPOSITE 0x0BD60BD0u
#define MAGIC_FOREIGN 0x0BD70BD0u

#define V1_BYTES 32u
#define V3_BYTES 48u
#define POOL_BYTES 16u /* with a NUL */
#define OBJECT_BYTES 24u
#define HEAD_BYTES 32u
#define ENTRY_BYTES 48u

#define PATTERN_RAID0 0x1u
#define PATTERN_MDT 0x100u
#define PATTERN_OVERSTRIPED 0x200u
#define PATTERN_FOREIGN 0x400u
#define PATTERN_HOLE 0x40000000u
#define PATTERN_RELEASED 0x80000000u

#define FLAG_STALE 0x1u
#define FLAG_PREFER_READ 0x2u
#define FLAG_PREFER_WRITE 0x4u
#define FLAG_OFFLINE 0x8u
#define FLAG_INIT 0x10u
#define FLAG_NOSYNC 0x20u
#define FLAG_EXTENSION 0x40u
#define FLAGS_KEPT (FLAG_PREFER_READ | FLAG_PREFER_WRITE | FLAG_EXTENSION)
#define FLAGS_KNOWN (FLAGS_KEPT | FLAG_STALE | FLAG_OFFLINE | FLAG_INIT | FLAG_NOSYNC)

#define STRIPES_MAX 2000u     /* LOV_MAX_STRIPE_COUNT */
#define STRIPES_ALL 0xffffu   /* (u16)-1; -2 to -32 mean so many on every OST (2.17) */
#define STRIPES_SPECIAL 0xffe0u
#define OST_ANY 0xffffu

/* A plain layout, or the one of a component. */
struct plain {
  uint32_t pattern, stripe_size;
  uint16_t stripe_count;
  uint8_t pool[POOL_BYTES];
};

struct component {
  uint32_t id, flags, offset, size;
  uint64_t start, end;
};

static bool take_pool(const uint8_t *from, uint8_t pool[POOL_BYTES]) {
  const uint8_t *end = memchr(from, 0, POOL_BYTES);
  if (end == NULL)
    return false;
  for (const uint8_t *c = from; c < end; c++)
    if (*c <= ' ' || *c > '~')
      return false;
  memset(pool, 0, POOL_BYTES);
  memcpy(pool, from, (size_t)(end - from));
  return true;
}

static enum fb_lustre_verdict check_pattern(struct plain *plain) {
  plain->pattern &= ~(PATTERN_RELEASED | PATTERN_HOLE);
  switch (plain->pattern) {
  case 0:
    plain->pattern = PATTERN_RAID0;
    return FB_LUSTRE_OK;
  case PATTERN_RAID0:
  case PATTERN_MDT:
    return FB_LUSTRE_OK;
  case PATTERN_OVERSTRIPED:
  case PATTERN_RAID0 | PATTERN_OVERSTRIPED:
    plain->pattern = PATTERN_RAID0 | PATTERN_OVERSTRIPED;
    return FB_LUSTRE_OK;
  case PATTERN_FOREIGN:
    return FB_LUSTRE_FOREIGN;
  default:
    return FB_LUSTRE_UNKNOWN;
  }
}

/* All size bytes at lov: objects follow, one for each stripe, or none (not instantiated,
 * released, a directory's). */
/* Is it a plain layout, and is its head all there? */
static enum fb_lustre_verdict check_head(const uint8_t *lov, size_t size, size_t *head) {
  if (size < 4)
    return FB_LUSTRE_DAMAGED;
  uint32_t magic = fb_get_u32(lov);
  if (magic == MAGIC_FOREIGN)
    return FB_LUSTRE_FOREIGN;
  if (magic != MAGIC_V1 && magic != MAGIC_V3 && magic != MAGIC_SPECIFIC)
    return FB_LUSTRE_UNKNOWN;
  *head = magic == MAGIC_V1 ? V1_BYTES : V3_BYTES;
  return size < *head ? FB_LUSTRE_DAMAGED : FB_LUSTRE_OK;
}

static enum fb_lustre_verdict take_plain(const uint8_t *lov, size_t size, struct plain *out) {
  size_t head;
  enum fb_lustre_verdict verdict = check_head(lov, size, &head);
  if (verdict != FB_LUSTRE_OK)
    return verdict;
  *out = (struct plain){.pattern = fb_get_u32(lov + 4),
                        .stripe_size = fb_get_u32(lov + 24),
                        .stripe_count = fb_get_u16(lov + 28)};
  bool is_special = out->stripe_count >= STRIPES_SPECIAL;
  if (!is_special && out->stripe_count > STRIPES_MAX)
    return FB_LUSTRE_DAMAGED;
  if (size != head && (is_special || size != head + OBJECT_BYTES * out->stripe_count))
    return FB_LUSTRE_DAMAGED;
  if (head == V3_BYTES && !take_pool(lov + V1_BYTES, out->pool))
    return FB_LUSTRE_DAMAGED;
  return check_pattern(out);
}

/* Changes it as it may be, and says what there was to change. */
static void adapt(struct plain *plain, bool is_extension, const struct fb_lustre_changes *changes,
                  struct fb_lustre_about *about) {
  bool has_stripes = plain->pattern != PATTERN_MDT && !is_extension && plain->stripe_count > 1;
  about->has_pool |= plain->pool[0] != 0;
  about->has_stripes |= has_stripes;
  if (changes->without_pool)
    memset(plain->pool, 0, POOL_BYTES);
  if (has_stripes && changes->all_osts) {
    plain->stripe_count = STRIPES_ALL;
    plain->pattern = PATTERN_RAID0;
  }
}

/* Never longer than what it was read from. */
static size_t put_plain(const struct plain *plain, uint8_t *out) {
  size_t size = plain->pool[0] != 0 ? V3_BYTES : V1_BYTES;
  memset(out, 0, size);
  fb_put_u32(out, plain->pool[0] != 0 ? MAGIC_V3 : MAGIC_V1);
  fb_put_u32(out + 4, plain->pattern);
  fb_put_u32(out + 24, plain->stripe_size);
  fb_put_u16(out + 28, plain->stripe_count);
  fb_put_u16(out + 30, OST_ANY);
  if (plain->pool[0] != 0)
    memcpy(out + V1_BYTES, plain->pool, POOL_BYTES);
  return size;
}

static struct component take_component(const uint8_t *entry) {
  return (struct component){.id = fb_get_u32(entry),
                            .flags = fb_get_u32(entry + 4),
                            .start = fb_get_u64(entry + 8),
                            .end = fb_get_u64(entry + 16),
                            .offset = fb_get_u32(entry + 24),
                            .size = fb_get_u32(entry + 28)};
}

static uint32_t mirror_of(const struct component *c) { return c->id >> 16; }

static bool is_later_mirror(const uint8_t *lov, uint32_t count, uint32_t mirror) {
  for (uint32_t i = 0; i < count; i++) {
    struct component c = take_component(lov + HEAD_BYTES + i * ENTRY_BYTES);
    if (mirror_of(&c) == mirror)
      return false;
  }
  return true;
}

/* Does component number i follow what stands before it?  Extents of a mirror go upwards, and
 * what has none (a self-extending layout has such ones) stands beside an extension. */
static bool is_in_order(const uint8_t *lov, uint32_t i, const struct component *c,
                        const struct component *before) {
  if (c->start > c->end || (c->start == c->end && c->start == UINT64_MAX))
    return false;
  if (i == 0)
    return true;
  if (c->offset < before->offset + before->size) /* their sum was checked */
    return false;
  if (mirror_of(c) != mirror_of(before))
    return is_later_mirror(lov, i, mirror_of(c));
  return c->start >= before->end;
}

static void put_entry(uint8_t *entry, const struct component *c, size_t offset, size_t size) {
  memset(entry, 0, ENTRY_BYTES);
  fb_put_u32(entry, c->id);
  fb_put_u32(entry + 4, c->flags & FLAGS_KEPT);
  fb_put_u64(entry + 8, c->start);
  fb_put_u64(entry + 16, c->end);
  fb_put_u32(entry + 24, (uint32_t)offset);
  fb_put_u32(entry + 28, (uint32_t)size);
}

static void put_head(uint8_t *out, size_t size, uint32_t entries, uint16_t mirrors) {
  memset(out, 0, HEAD_BYTES);
  fb_put_u32(out, MAGIC_COMPOSITE);
  fb_put_u32(out + 4, (uint32_t)size);
  fb_put_u16(out + 14, (uint16_t)entries);
  fb_put_u16(out + 16, (uint16_t)(mirrors - 1));
}

static enum fb_lustre_verdict rebuild_composite(const uint8_t *lov, size_t size,
                                                const struct fb_lustre_changes *changes,
                                                uint8_t *out, size_t *out_size,
                                                struct fb_lustre_about *about) {
  if (size < HEAD_BYTES || fb_get_u32(lov + 4) > size)
    return FB_LUSTRE_DAMAGED;
  const uint32_t end = fb_get_u32(lov + 4), entries = fb_get_u16(lov + 14);
  const uint32_t body = HEAD_BYTES + entries * ENTRY_BYTES;
  struct component before = {0};
  size_t used = body;
  if (entries == 0 || body > end)
    return FB_LUSTRE_DAMAGED;
  for (uint32_t i = 0; i < entries; i++) {
    struct plain plain;
    struct component c = take_component(lov + HEAD_BYTES + i * ENTRY_BYTES);
    if ((c.flags & ~FLAGS_KNOWN) != 0)
      return FB_LUSTRE_UNKNOWN;
    if (c.offset < body || c.offset > end || c.size > end - c.offset ||
        !is_in_order(lov, i, &c, &before))
      return FB_LUSTRE_DAMAGED;
    enum fb_lustre_verdict verdict = take_plain(lov + c.offset, c.size, &plain);
    if (verdict != FB_LUSTRE_OK)
      return verdict;
    if (plain.pattern == PATTERN_MDT && c.start != 0) /* the MDT holds the beginning only */
      return FB_LUSTRE_DAMAGED;
    if (i == 0 || mirror_of(&c) != mirror_of(&before))
      about->mirrors++;
    adapt(&plain, (c.flags & FLAG_EXTENSION) != 0, changes, about);
    /* In place of components that follow one another and are no longer, this fits. */
    size_t written = put_plain(&plain, out + used);
    put_entry(out + HEAD_BYTES + i * ENTRY_BYTES, &c, used, written);
    used += written;
    before = c;
  }
  put_head(out, used, entries, about->mirrors);
  *out_size = used;
  return FB_LUSTRE_OK;
}

enum fb_lustre_verdict fb_lustre_rebuild(const uint8_t *lov, size_t size,
                                         const struct fb_lustre_changes *changes, uint8_t *out,
                                         size_t *out_size, struct fb_lustre_about *about) {
  struct plain plain;
  *about = (struct fb_lustre_about){0};
  *out_size = 0;
  if (size < 4 || size > FB_LUSTRE_LOV_BYTES_MAX)
    return FB_LUSTRE_DAMAGED;
  if (fb_get_u32(lov) == MAGIC_COMPOSITE)
    return rebuild_composite(lov, size, changes, out, out_size, about);
  enum fb_lustre_verdict verdict = take_plain(lov, size, &plain);
  if (verdict != FB_LUSTRE_OK)
    return verdict;
  if (plain.pattern == PATTERN_MDT) /* only a component lies on an MDT */
    return FB_LUSTRE_DAMAGED;
  about->mirrors = 1;
  adapt(&plain, false, changes, about);
  *out_size = put_plain(&plain, out);
  return FB_LUSTRE_OK;
}

static enum fb_lustre_verdict see_pattern(const uint8_t *lov, size_t size, bool *is_released) {
  size_t head;
  enum fb_lustre_verdict verdict = check_head(lov, size, &head);
  if (verdict != FB_LUSTRE_OK)
    return verdict;
  *is_released |= (fb_get_u32(lov + 4) & PATTERN_RELEASED) != 0;
  return FB_LUSTRE_OK;
}

enum fb_lustre_verdict fb_lustre_find_released(const uint8_t *lov, size_t size,
                                               bool *is_released) {
  *is_released = false;
  if (size < 4 || fb_get_u32(lov) != MAGIC_COMPOSITE)
    return see_pattern(lov, size, is_released);
  if (size < HEAD_BYTES || HEAD_BYTES + fb_get_u16(lov + 14) * (size_t)ENTRY_BYTES > size)
    return FB_LUSTRE_DAMAGED;
  enum fb_lustre_verdict worst = FB_LUSTRE_OK;
  for (uint32_t i = 0; i < fb_get_u16(lov + 14); i++) {
    struct component c = take_component(lov + HEAD_BYTES + i * ENTRY_BYTES);
    enum fb_lustre_verdict verdict = FB_LUSTRE_DAMAGED;
    if (c.offset <= size && c.size <= size - c.offset)
      verdict = see_pattern(lov + c.offset, c.size, is_released);
    if (verdict > worst)
      worst = verdict;
  }
  return *is_released ? FB_LUSTRE_OK : worst;
}

static void add_stripes(struct fb_stripes *out, const struct plain *plain, uint64_t start,
                        uint64_t end) {
  struct fb_stripe_range range = {.start = start, .end = end, .objects = 1};
  if (plain->pattern != PATTERN_MDT && plain->stripe_count != 1) {
    range.stripe_bytes = plain->stripe_size;
    range.objects = plain->stripe_count;
    if (plain->stripe_count == 0 || plain->stripe_count > STRIPES_MAX || plain->stripe_size == 0)
      return;
  }
  fb_stripes_add(out, &range);
}

void fb_lustre_stripes(const uint8_t *lov, size_t size, struct fb_stripes *out) {
  struct plain plain;
  bool has_mirror = false;
  uint32_t mirror = 0;
  out->count = 0;
  if (size >= 4 && fb_get_u32(lov) != MAGIC_COMPOSITE) {
    if (take_plain(lov, size, &plain) == FB_LUSTRE_OK)
      add_stripes(out, &plain, 0, UINT64_MAX);
    return;
  }
  if (size < HEAD_BYTES || HEAD_BYTES + fb_get_u16(lov + 14) * (size_t)ENTRY_BYTES > size)
    return;
  for (uint32_t i = 0; i < fb_get_u16(lov + 14); i++) {
    struct component c = take_component(lov + HEAD_BYTES + i * ENTRY_BYTES);
    if ((c.flags & FLAG_INIT) == 0 || (c.flags & FLAG_STALE) != 0 ||
        (has_mirror && mirror_of(&c) != mirror))
      continue;
    has_mirror = true;
    mirror = mirror_of(&c);
    if (c.offset <= size && c.size <= size - c.offset &&
        take_plain(lov + c.offset, c.size, &plain) == FB_LUSTRE_OK)
      add_stripes(out, &plain, c.start, c.end);
  }
}
