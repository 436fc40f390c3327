/* SPDX-License-Identifier: AGPL-3.0-or-later
 *
 * Little-endian integers at any alignment.
 */
#ifndef FOREBAY_WIRE_H
#define FOREBAY_WIRE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

static inline uint16_t fb_get_u16(const uint8_t *p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return le16toh(v);
}

static inline uint32_t fb_get_u32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return le32toh(v);
}

static inline uint64_t fb_get_u64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return le64toh(v);
}

static inline void fb_put_u16(uint8_t *p, uint16_t v) {
  v = htole16(v);
  memcpy(p, &v, sizeof v);
}

static inline void fb_put_u32(uint8_t *p, uint32_t v) {
  v = htole32(v);
  memcpy(p, &v, sizeof v);
}

static inline void fb_put_u64(uint8_t *p, uint64_t v) {
  v = htole64(v);
  memcpy(p, &v, sizeof v);
}

#endif
