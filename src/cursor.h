/* cursor.h - a bounds-checked reader over bytes in memory; nothing else interprets file bytes.
 * Little-endian.  Every take returns false (or NULL), without a step, when fewer bytes remain. */
#ifndef CURSOR_H
#define CURSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct str { const char *s; size_t n; };        /* borrowed, not terminated */
static inline struct str str_of(const char *s) { return (struct str){ s, strlen(s) }; }

struct cursor { const uint8_t *base, *p, *end; };

static inline struct cursor cursor_over(const void *bytes, size_t n)
{
    const uint8_t *b = bytes;
    return (struct cursor){ b, b, b + n };
}

static inline uint64_t cursor_offset(const struct cursor *c) { return (uint64_t)(c->p - c->base); }
static inline uint64_t cursor_left(const struct cursor *c) { return (uint64_t)(c->end - c->p); }

static inline const uint8_t *cursor_take(struct cursor *c, uint64_t n)
{
    if (n > cursor_left(c)) return NULL;        /* compare lengths; never form p + n first */
    const uint8_t *at = c->p;
    c->p += n;
    return at;
}

static inline bool cursor_bytes(struct cursor *c, void *dst, size_t n)
{
    const uint8_t *at = cursor_take(c, n);
    if (at && n) memcpy(dst, at, n);
    return at != NULL;
}

static inline bool cursor_u32(struct cursor *c, uint32_t *v)
{
    const uint8_t *b = cursor_take(c, 4);
    if (b) *v = (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
    return b != NULL;
}

static inline bool cursor_u64(struct cursor *c, uint64_t *v)
{
    uint32_t lo, hi;
    if (cursor_left(c) < 8 || !cursor_u32(c, &lo) || !cursor_u32(c, &hi)) return false;
    *v = (uint64_t)hi << 32 | lo;
    return true;
}

#endif
