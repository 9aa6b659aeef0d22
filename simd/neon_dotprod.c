/* neon_dotprod.c - matrix products with ARMv8.2 sdot: 4 sums of 4 products in an instruction (Cortex-A76, Pi 5). */
#include "gemm_neon_rows.h"

/* Integer sums become floats by subtraction, not by scvtf, which the A76 runs at a quarter of the rate: a sum s that
 * starts from the bits of 1.5 * 2^23 ends as the bits of 1.5 * 2^23 + s while |s| < 2^22, and 32 * 127 * 128 is less.
 * With 1.5 * 2^19 the units are sixteenths, so nibbles may stay in the upper half of their bytes; with 1.5 * 2^21, quarters. */
static const int32x4_t start_q4 = { 0x49400000, 0x49400000, 0x49400000, 0x49400000 };
static const int32x4_t start_q8 = { 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000 };
static const int32x4_t start_q6k = { 0x4A400000, 0x4A400000, 0x4A400000, 0x4A400000 };

/* s + the products of 16 numbers */
INLINE int32x4_t dot16(int32x4_t s, const int8x16_t w[4], int8x16_t x)
{
    s = vdotq_laneq_s32(s, w[0], x, 0);
    s = vdotq_laneq_s32(s, w[1], x, 1);
    s = vdotq_laneq_s32(s, w[2], x, 2);
    return vdotq_laneq_s32(s, w[3], x, 3);
}
INLINE float32x4_t dot32(const struct weights *w, const int8_t *x, const int32x4_t *start, float zero)
{
    const int32x4_t first = dot16(reload(start), w->v, vld1q_s8(x));
    return vsubq_f32(vreinterpretq_f32_s32(dot16(first, w->v + 4, vld1q_s8(x + 16))), vdupq_n_f32(zero));
}
INLINE float32x4_t dot_q4(const struct weights *w, const int8_t *x, const struct scales *s)
{
    (void)s;
    return dot32(w, x, &start_q4, 0x1.8p19f);
}
INLINE float32x4_t dot_q8(const struct weights *w, const int8_t *x, const struct scales *s)
{
    (void)s;
    return dot32(w, x, &start_q8, 0x1.8p23f);
}

/* The sums of the halves times their codes: below 2^24 all along, so exact in float.  The zero of the first half goes within the
 * multiplication: (zero + sum) * code - zero * code is rounded once. */
INLINE float32x4_t dot_q6k(const struct weights *w, const int8_t *x, const struct scales *s)
{
    const float32x4_t first = vreinterpretq_f32_s32(dot16(reload(&start_q6k), w->v, vld1q_s8(x)));
    const float32x4_t second = vreinterpretq_f32_s32(dot16(reload(&start_q6k), w->v + 4, vld1q_s8(x + 16)));
    return vfmaq_f32(fma_in_place(reload_f(&s->min), first, s->half[0]), vsubq_f32(second, vdupq_n_f32(Q6K_ZERO)), s->half[1]);
}

GEMM_OF_PANEL(q4, SECOND_PANEL, dot_q4, READ_Q4(load_q4_high))
GEMM_OF_PANEL(q8, NEVER, dot_q8, READ_Q8(load_q8))
GEMM_OF_PANEL(q4k, SECOND_PANEL, dot_q8, READ_Q4K(load_q4_unsigned))
GEMM_OF_PANEL(q6k, SECOND_PANEL, dot_q6k, READ_Q6K(load_q6k_high))

extern const struct kernels kernels_neon_dotprod;
const struct kernels kernels_neon_dotprod = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
