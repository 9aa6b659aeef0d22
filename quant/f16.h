/* f16.h - half-precision and bfloat16 <-> float32 by bit arithmetic; rounds to nearest even. */
#ifndef F16_H
#define F16_H

#include <stdint.h>
#include <string.h>

static inline uint32_t f32_bits(float x) { uint32_t u; memcpy(&u, &x, 4); return u; }
static inline float f32_from_bits(uint32_t u) { float x; memcpy(&x, &u, 4); return x; }

/* The place of the first value in x[i..n) that is infinite or NaN; n: there is none.  Adding one to an exponent of ones, which
 * those have, carries into the sign's place; loops of a known length become vectors. */
static inline size_t f32_nonfinite(const float *x, size_t i, size_t n)
{
    enum { STRIDE = 32 };
    for (uint32_t any = 0; n - i >= STRIDE; i += STRIDE) {
        for (int k = 0; k < STRIDE; k++) any |= (f32_bits(x[i + (size_t)k]) & 0x7F800000) + 0x00800000;
        if (any >> 31) break;
    }
    while (i < n && (f32_bits(x[i]) & 0x7F800000) != 0x7F800000) i++;
    return i;
}

static inline float f16_to_f32(uint16_t h)
{
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3FF;
    if (e == 31) return f32_from_bits(sign | 0x7F800000 | m << 13);             /* infinity, NaN */
    if (e) return f32_from_bits(sign | (e + 112) << 23 | m << 13);
    return f32_from_bits(sign | f32_bits((float)m * 0x1p-24f));                 /* zero, subnormal */
}

static inline uint16_t f32_to_f16(float x)
{
    const uint32_t u = f32_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7FFFFFFF;
    if (a > 0x7F800000) return (uint16_t)(sign | 0x7E00);                        /* NaN, quiet */
    if (a >= 0x477FF000) return (uint16_t)(sign | 0x7C00);                       /* rounds to infinity */
    if (a < 0x38800000) {                                                        /* subnormal or zero: 2^-24 units */
        const float scaled = f32_from_bits(a) * 0x1p24f;                         /* exact */
        uint32_t n = (uint32_t)scaled;
        const float rest = scaled - (float)n;
        n += rest > 0.5f || (rest == 0.5f && (n & 1));
        return (uint16_t)(sign | n);
    }
    return (uint16_t)(sign | ((a - 0x38000000 + 0xFFF + (a >> 13 & 1)) >> 13));
}

/* The same, but what is a number stays one: at most 65504. */
static inline uint16_t f32_to_f16_number(float x)
{
    const uint16_t h = f32_to_f16(x);
    return (h & 0x7FFF) == 0x7C00 && (f32_bits(x) & 0x7F800000) != 0x7F800000 ? (uint16_t)(h - 1) : h;
}

static inline float bf16_to_f32(uint16_t h) { return f32_from_bits((uint32_t)h << 16); }

static inline uint16_t f32_to_bf16(float x)
{
    const uint32_t u = f32_bits(x);
    if ((u & 0x7FFFFFFF) > 0x7F800000) return (uint16_t)(u >> 16 | 0x40);       /* NaN, quiet */
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

#endif
