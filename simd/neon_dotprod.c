/* neon_dotprod.c - matrix products with ARMv8.2 sdot: 4 sums of 4 products in an instruction (Cortex-A76, Pi 5). */
#include "gemm_neon.h"

/* Integer sums become floats by subtraction, not by scvtf, which the A76 runs at a quarter of the rate: a sum s that
 * starts from the bits of 1.5 * 2^23 ends as the bits of 1.5 * 2^23 + s while |s| < 2^22, and 32 * 127 * 128 is less.
 * With 1.5 * 2^19 the units are sixteenths, so nibbles may stay in the upper half of their bytes; with 1.5 * 2^21, quarters. */
static const int32_t start_q4[4] = { 0x49400000, 0x49400000, 0x49400000, 0x49400000 };
static const int32_t start_q8[4] = { 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000 };
static const int32_t start_q6k[4] = { 0x4A400000, 0x4A400000, 0x4A400000, 0x4A400000 };

INLINE float32x4_t dot32(const struct weights *w, const int8_t *x, const int32_t *start, float zero)
{
    const int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 16);
    int32x4_t s = reload(start);
    s = vdotq_laneq_s32(s, w->v[0], x0, 0);
    s = vdotq_laneq_s32(s, w->v[1], x0, 1);
    s = vdotq_laneq_s32(s, w->v[2], x0, 2);
    s = vdotq_laneq_s32(s, w->v[3], x0, 3);
    s = vdotq_laneq_s32(s, w->v[4], x1, 0);
    s = vdotq_laneq_s32(s, w->v[5], x1, 1);
    s = vdotq_laneq_s32(s, w->v[6], x1, 2);
    s = vdotq_laneq_s32(s, w->v[7], x1, 3);
    return vsubq_f32(vreinterpretq_f32_s32(s), vdupq_n_f32(zero));
}
INLINE float32x4_t dot_q4(const struct weights *w, const int8_t *x, const struct scales *s) { (void)s; return dot32(w, x, start_q4, 0x1.8p19f); }
INLINE float32x4_t dot_q8(const struct weights *w, const int8_t *x, const struct scales *s) { (void)s; return dot32(w, x, start_q8, 0x1.8p23f); }

/* The sums of the halves times their codes: below 2^24 all along, so exact in float. */
INLINE float32x4_t dot_q6k(const struct weights *w, const int8_t *x, const struct scales *s)
{
    const int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 16);
    const float32x4_t zero = vdupq_n_f32(0x1.8p21f);
    int32x4_t a = reload(start_q6k), b = reload(start_q6k);
    a = vdotq_laneq_s32(a, w->v[0], x0, 0);
    b = vdotq_laneq_s32(b, w->v[4], x1, 0);
    a = vdotq_laneq_s32(a, w->v[1], x0, 1);
    b = vdotq_laneq_s32(b, w->v[5], x1, 1);
    a = vdotq_laneq_s32(a, w->v[2], x0, 2);
    b = vdotq_laneq_s32(b, w->v[6], x1, 2);
    a = vdotq_laneq_s32(a, w->v[3], x0, 3);
    b = vdotq_laneq_s32(b, w->v[7], x1, 3);
    const float32x4_t first = vsubq_f32(vreinterpretq_f32_s32(a), zero), second = vsubq_f32(vreinterpretq_f32_s32(b), zero);
    return vfmaq_f32(vmulq_f32(first, s->half[0]), second, s->half[1]);
}

INLINE void panel_q4(const struct panel *p, int rows) { panel_by_rows(p, rows, dot_q4, READ_Q4(load_q4_high)); }
INLINE void panel_q8(const struct panel *p, int rows) { panel_by_rows(p, rows, dot_q8, READ_Q8(load_q8)); }
INLINE void panel_q4k(const struct panel *p, int rows) { panel_by_rows(p, rows, dot_q8, READ_Q4K(load_q4_unsigned)); }
INLINE void panel_q6k(const struct panel *p, int rows) { panel_by_rows(p, rows, dot_q6k, READ_Q6K(load_q6k_high)); }

GEMM_OF_PANEL(q4, 1)
GEMM_OF_PANEL(q8, 1)
GEMM_OF_PANEL(q4k, 1)
GEMM_OF_PANEL(q6k, 1)

extern const struct kernels kernels_neon_dotprod;
const struct kernels kernels_neon_dotprod = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
