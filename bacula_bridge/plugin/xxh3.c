/* SPDX-License-Identifier: AGPL-3.0-or-later */
#include "xxh3.h"

#include <endian.h>
#include <string.h>
#if defined(__SSE2__) && !defined(FB_XXH3_SCALAR)
#include <emmintrin.h>
#endif

#define PRIME32_1 UINT64_C(0x9E3779B1)
#define PRIME32_2 UINT64_C(0x85EBCA77)
#define PRIME32_3 UINT64_C(0xC2B2AE3D)
#define PRIME64_1 UINT64_C(0x9E3779B185EBCA87)
#define PRIME64_2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define PRIME64_3 UINT64_C(0x165667B19E3779F9)
#define PRIME64_4 UINT64_C(0x85EBCA77C2B2AE63)
#define PRIME64_5 UINT64_C(0x27D4EB2F165667C5)
#define PRIME_MX1 UINT64_C(0x165667919E3779F9)
#define PRIME_MX2 UINT64_C(0x9FB21C651E98DF25)

#define SECRET_BYTES 192
#define STRIPE_BYTES FB_XXH3_STRIPE_BYTES
#define STRIPES_PER_BLOCK ((SECRET_BYTES - STRIPE_BYTES) / 8)
#define SHORT_BYTES_MAX 240

/* The specification's default secret: every mode reads its keys from it. */
static const uint8_t secret[SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

struct pair {
  uint64_t low;
  uint64_t high;
};

static uint32_t read32(const uint8_t *p) {
  uint32_t v;
  memcpy(&v, p, sizeof v);
  return le32toh(v);
}

static uint64_t read64(const uint8_t *p) {
  uint64_t v;
  memcpy(&v, p, sizeof v);
  return le64toh(v);
}

static struct pair multiply(uint64_t a, uint64_t b) {
  unsigned __int128 product = (unsigned __int128)a * b;
  return (struct pair){(uint64_t)product, (uint64_t)(product >> 64)};
}

static uint64_t multiply_fold(uint64_t a, uint64_t b) {
  struct pair p = multiply(a, b);
  return p.low ^ p.high;
}

static uint64_t avalanche(uint64_t h) {
  h ^= h >> 37;
  h *= PRIME_MX1;
  return h ^ (h >> 32);
}

static uint64_t avalanche_xxh64(uint64_t h) {
  h ^= h >> 33;
  h *= PRIME64_2;
  h ^= h >> 29;
  h *= PRIME64_3;
  return h ^ (h >> 32);
}

static struct pair hash_1_to_3(const uint8_t *in, size_t len) {
  uint32_t low = ((uint32_t)in[0] << 16) | ((uint32_t)in[len >> 1] << 24) | in[len - 1] |
                 ((uint32_t)len << 8);
  uint32_t swapped = __builtin_bswap32(low);
  uint32_t high = (swapped << 13) | (swapped >> 19);
  return (struct pair){avalanche_xxh64((uint64_t)low ^ (read32(secret) ^ read32(secret + 4))),
                       avalanche_xxh64((uint64_t)high ^ (read32(secret + 8) ^ read32(secret + 12)))};
}

static struct pair hash_4_to_8(const uint8_t *in, size_t len) {
  uint64_t both = read32(in) + ((uint64_t)read32(in + len - 4) << 32);
  uint64_t keyed = both ^ (read64(secret + 16) ^ read64(secret + 24));
  struct pair m = multiply(keyed, PRIME64_1 + ((uint64_t)len << 2));
  m.high += m.low << 1;
  m.low ^= m.high >> 3;
  m.low ^= m.low >> 35;
  m.low *= PRIME_MX2;
  m.low ^= m.low >> 28;
  m.high = avalanche(m.high);
  return m;
}

static struct pair hash_9_to_16(const uint8_t *in, size_t len) {
  uint64_t low = read64(in), high = read64(in + len - 8);
  struct pair m = multiply(low ^ high ^ read64(secret + 32) ^ read64(secret + 40), PRIME64_1);
  m.low += (uint64_t)(len - 1) << 54;
  high ^= read64(secret + 48) ^ read64(secret + 56);
  m.high += high + (uint64_t)(uint32_t)high * (PRIME32_2 - 1);
  m.low ^= __builtin_bswap64(m.high);
  struct pair h = multiply(m.low, PRIME64_2);
  h.high += m.high * PRIME64_2;
  h.low = avalanche(h.low);
  h.high = avalanche(h.high);
  return h;
}

static uint64_t mix16(const uint8_t *in, const uint8_t *key) {
  return multiply_fold(read64(in) ^ read64(key), read64(in + 8) ^ read64(key + 8));
}

static struct pair mix32(struct pair acc, const uint8_t *a, const uint8_t *b, const uint8_t *key) {
  acc.low += mix16(a, key);
  acc.low ^= read64(b) + read64(b + 8);
  acc.high += mix16(b, key + 16);
  acc.high ^= read64(a) + read64(a + 8);
  return acc;
}

static struct pair finish_medium(struct pair acc, size_t len) {
  uint64_t low = acc.low + acc.high;
  uint64_t high = acc.low * PRIME64_1 + acc.high * PRIME64_4 + (uint64_t)len * PRIME64_2;
  return (struct pair){avalanche(low), 0 - avalanche(high)};
}

static struct pair hash_17_to_128(const uint8_t *in, size_t len) {
  struct pair acc = {(uint64_t)len * PRIME64_1, 0};
  for (size_t i = (len - 1) / 32 + 1; i-- > 0;)
    acc = mix32(acc, in + 16 * i, in + len - 16 * (i + 1), secret + 32 * i);
  return finish_medium(acc, len);
}

static struct pair hash_129_to_240(const uint8_t *in, size_t len) {
  struct pair acc = {(uint64_t)len * PRIME64_1, 0};
  for (size_t i = 0; i < 128; i += 32) acc = mix32(acc, in + i, in + i + 16, secret + i);
  acc.low = avalanche(acc.low);
  acc.high = avalanche(acc.high);
  for (size_t i = 128; i + 32 <= len; i += 32)
    acc = mix32(acc, in + i, in + i + 16, secret + 3 + i - 128);
  acc = mix32(acc, in + len - 16, in + len - 32, secret + 103);
  return finish_medium(acc, len);
}

static struct pair hash_short(const uint8_t *in, size_t len) {
  if (len == 0)
    return (struct pair){avalanche_xxh64(read64(secret + 64) ^ read64(secret + 72)),
                         avalanche_xxh64(read64(secret + 80) ^ read64(secret + 88))};
  if (len <= 3) return hash_1_to_3(in, len);
  if (len <= 8) return hash_4_to_8(in, len);
  if (len <= 16) return hash_9_to_16(in, len);
  if (len <= 128) return hash_17_to_128(in, len);
  return hash_129_to_240(in, len);
}

/* What is hashed is nearly all accumulate(); two lanes at a time do four times as much. */
#if defined(__SSE2__) && !defined(FB_XXH3_SCALAR)

typedef __m128i lanes[4];

static inline __m128i load(const void *p) {
  return _mm_loadu_si128(p);
}

static inline void accumulate_lanes(lanes acc, const uint8_t *in, const uint8_t *key) {
  for (unsigned i = 0; i < 4; i++) {
    __m128i value = load(in + 16 * i);
    __m128i keyed = _mm_xor_si128(value, load(key + 16 * i));
    __m128i product = _mm_mul_epu32(keyed, _mm_srli_epi64(keyed, 32));
    __m128i swapped = _mm_shuffle_epi32(value, _MM_SHUFFLE(1, 0, 3, 2));
    acc[i] = _mm_add_epi64(acc[i], _mm_add_epi64(product, swapped));
  }
}

static inline void scramble_lanes(lanes acc) {
  const uint8_t *key = secret + SECRET_BYTES - STRIPE_BYTES;
  const __m128i prime = _mm_set1_epi32((int)PRIME32_1);
  for (unsigned i = 0; i < 4; i++) {
    __m128i v = _mm_xor_si128(acc[i], _mm_srli_epi64(acc[i], 47));
    v = _mm_xor_si128(v, load(key + 16 * i));
    __m128i high = _mm_mul_epu32(_mm_srli_epi64(v, 32), prime);
    acc[i] = _mm_add_epi64(_mm_mul_epu32(v, prime), _mm_slli_epi64(high, 32));
  }
}

#else

typedef uint64_t lanes[8];

static void accumulate_lanes(lanes acc, const uint8_t *in, const uint8_t *key) {
  for (unsigned i = 0; i < 8; i++) {
    uint64_t value = read64(in + 8 * i);
    uint64_t keyed = value ^ read64(key + 8 * i);
    acc[i ^ 1] += value;
    acc[i] += (keyed & UINT32_MAX) * (keyed >> 32);
  }
}

static void scramble_lanes(lanes acc) {
  const uint8_t *key = secret + SECRET_BYTES - STRIPE_BYTES;
  for (unsigned i = 0; i < 8; i++)
    acc[i] = (acc[i] ^ (acc[i] >> 47) ^ read64(key + 8 * i)) * PRIME32_1;
}

#endif

static void accumulate(uint64_t acc[8], const uint8_t *in, const uint8_t *key) {
  lanes a;
  memcpy(a, acc, sizeof a);
  accumulate_lanes(a, in, key);
  memcpy(acc, a, sizeof a);
}

static void consume(uint64_t acc[8], size_t *stripes_in_block, const uint8_t *in, size_t stripes) {
  lanes a;
  size_t stripe = *stripes_in_block;
  memcpy(a, acc, sizeof a);
  for (; stripes > 0; stripes--, in += STRIPE_BYTES) {
    accumulate_lanes(a, in, secret + 8 * stripe);
    if (++stripe == STRIPES_PER_BLOCK) {
      scramble_lanes(a);
      stripe = 0;
    }
  }
  memcpy(acc, a, sizeof a);
  *stripes_in_block = stripe;
}

static uint64_t merge(const uint64_t acc[8], const uint8_t *key, uint64_t start) {
  for (unsigned i = 0; i < 4; i++)
    start += multiply_fold(acc[2 * i] ^ read64(key + 16 * i),
                           acc[2 * i + 1] ^ read64(key + 16 * i + 8));
  return avalanche(start);
}

void fb_xxh3_init(struct fb_xxh3 *state) {
  static const uint64_t start[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3,
                                    PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
  memcpy(state->acc, start, sizeof start);
  state->total = 0;
  state->stripes_in_block = 0;
  state->buffered = 0;
}

void fb_xxh3_update(struct fb_xxh3 *state, const void *data, size_t size) {
  const uint8_t *in = data;
  if (size == 0) return;
  state->total += size;
  size_t space = FB_XXH3_BUFFER_BYTES - state->buffered;
  if (size <= space) {
    memcpy(state->buffer + state->buffered, in, size);
    state->buffered += size;
    return;
  }
  /* More follows than the buffer holds: whatever is consumed here cannot be the
   * last stripe, which has rules of its own. */
  if (state->buffered > 0) {
    memcpy(state->buffer + state->buffered, in, space);
    in += space;
    size -= space;
    consume(state->acc, &state->stripes_in_block, state->buffer,
            FB_XXH3_BUFFER_BYTES / STRIPE_BYTES);
    memcpy(state->tail, state->buffer + FB_XXH3_BUFFER_BYTES - STRIPE_BYTES, STRIPE_BYTES);
  }
  if (size > FB_XXH3_BUFFER_BYTES) {
    size_t stripes = (size - 1) / STRIPE_BYTES;
    consume(state->acc, &state->stripes_in_block, in, stripes);
    in += stripes * STRIPE_BYTES;
    size -= stripes * STRIPE_BYTES;
    memcpy(state->tail, in - STRIPE_BYTES, STRIPE_BYTES);
  }
  memcpy(state->buffer, in, size);
  state->buffered = size;
}

static struct pair finish_long(const struct fb_xxh3 *state) {
  uint64_t acc[8];
  size_t stripes_in_block = state->stripes_in_block;
  memcpy(acc, state->acc, sizeof acc);
  consume(acc, &stripes_in_block, state->buffer, (state->buffered - 1) / STRIPE_BYTES);
  uint8_t last[STRIPE_BYTES];
  if (state->buffered >= STRIPE_BYTES) {
    memcpy(last, state->buffer + state->buffered - STRIPE_BYTES, STRIPE_BYTES);
  } else {
    size_t before = STRIPE_BYTES - state->buffered;
    memcpy(last, state->tail + STRIPE_BYTES - before, before);
    memcpy(last + before, state->buffer, state->buffered);
  }
  accumulate(acc, last, secret + SECRET_BYTES - STRIPE_BYTES - 7);
  return (struct pair){
      merge(acc, secret + 11, state->total * PRIME64_1),
      merge(acc, secret + SECRET_BYTES - STRIPE_BYTES - 11, ~(state->total * PRIME64_2))};
}

void fb_xxh3_final(const struct fb_xxh3 *state, uint8_t digest[16]) {
  struct pair h = state->total <= SHORT_BYTES_MAX ? hash_short(state->buffer, state->total)
                                                  : finish_long(state);
  uint64_t high = htobe64(h.high), low = htobe64(h.low);
  memcpy(digest, &high, 8);
  memcpy(digest + 8, &low, 8);
}
