/* utf8.h - one code point at a time; strict (no overlong forms, surrogates or values above U+10FFFF). */
#ifndef UTF8_H
#define UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of the character at s (n left) and its code point; 0 when invalid or incomplete. */
static inline size_t utf8_decode(const char *s, size_t n, uint32_t *cp)
{
    const uint8_t *u = (const uint8_t *)s;
    if (n == 0) return 0;
    if (u[0] < 0x80) { *cp = u[0]; return 1; }
    const size_t len = u[0] >= 0xC2 && u[0] <= 0xDF ? 2 : (u[0] & 0xF0) == 0xE0 ? 3 : u[0] >= 0xF0 && u[0] <= 0xF4 ? 4 : 0;
    if (len == 0 || len > n) return 0;
    uint32_t c = u[0] & (0xFFu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if ((u[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (u[i] & 0x3Fu);
    }
    if ((len == 3 && (c < 0x800 || (c >= 0xD800 && c <= 0xDFFF))) || (len == 4 && (c < 0x10000 || c > 0x10FFFF))) return 0;
    *cp = c;
    return len;
}

/* May a terminal be given cp?  Not controls, nor the marks that turn the direction of text around. */
static inline bool utf8_shown(uint32_t cp)
{
    return !(cp < 0x20 || (cp >= 0x7F && cp < 0xA0) || (cp >= 0x202A && cp <= 0x202E) || (cp >= 0x2066 && cp <= 0x2069));
}

/* Write cp to out[4]; returns the number of bytes. */
static inline size_t utf8_encode(uint32_t cp, char *out)
{
    if (cp < 0x80) { out[0] = (char)cp; return 1; }
    if (cp < 0x800) { out[0] = (char)(0xC0 | cp >> 6); out[1] = (char)(0x80 | (cp & 0x3F)); return 2; }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12); out[1] = (char)(0x80 | (cp >> 6 & 0x3F)); out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18); out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F)); out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

/* Bytes of a byte order mark at the start of a text: 3, or 0. */
static inline size_t utf8_mark(const char *s, size_t n)
{
    uint32_t cp;
    const size_t len = utf8_decode(s, n, &cp);
    return len && cp == 0xFEFF ? len : 0;
}

/* Offset of the first byte that is not valid UTF-8, or n. */
static inline size_t utf8_valid(const char *s, size_t n)
{
    uint32_t cp;
    size_t i = 0, len;
    while (i < n && (len = utf8_decode(s + i, n - i, &cp)) > 0) i += len;
    return i;
}

#endif
