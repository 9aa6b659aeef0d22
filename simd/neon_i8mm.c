/* neon_i8mm.c - matrix products with smmla: 2 rows x 2 channels x 8 products in an instruction (ARMv8.6). */
#include "gemm_neon.h"

/* 16 * (nibble - 8), and sums that become floats by subtraction: neon_dotprod.c. */
static const int32_t start_q4[4] = { 0x49400000, 0x49400000, 0x49400000, 0x49400000 };
static const int32_t start_q8[4] = { 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000 };

/* Runs of 4 bytes to runs of 8: v[2j] holds channels 0, 1 and v[2j + 1] channels 2, 3 of k = 8j .. 8j+7. */
INLINE struct weights pair_up(struct weights q)
{
    struct weights p;
    UNROLL for (int j = 0; j < 8; j += 2) {
        const int32x4_t a = vreinterpretq_s32_s8(q.v[j]), b = vreinterpretq_s32_s8(q.v[j + 1]);
        p.v[j] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
        p.v[j + 1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
    }
    return p;
}
INLINE struct weights load_q4_pairs(const uint8_t *w) { return pair_up(load_q4_high(w)); }
INLINE struct weights load_q8_pairs(const uint8_t *w) { return pair_up(load_q8(w)); }

/* Two rows of a block: 8 numbers of the first, 8 of the second. */
INLINE int8x16_t first_halves(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}
INLINE int8x16_t second_halves(int8x16_t a, int8x16_t b)
{
    return vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b)));
}

/* The sums of two rows: lanes are row 0 channel 0, row 0 channel 1, row 1 channel 0, row 1 channel 1; then channels 2, 3. */
struct pair { float32x4_t c01, c23; };

INLINE void add_block(struct pair *acc, const struct weights *w, float32x4_t ws, const int8_t *x, const float *scale,
                      const int32_t *start, float zero)
{
    const int8x16_t a0 = vld1q_s8(x), a1 = vld1q_s8(x + 16), b0 = vld1q_s8(x + QBLOCK), b1 = vld1q_s8(x + QBLOCK + 16);
    const int8x16_t k0 = first_halves(a0, b0), k8 = second_halves(a0, b0);
    const int8x16_t k16 = first_halves(a1, b1), k24 = second_halves(a1, b1);
    const float32x2_t s = vld1_f32(scale);
    const float32x4_t xs = vzip1q_f32(vcombine_f32(s, s), vcombine_f32(s, s));
    int32x4_t lo = reload(start), hi = reload(start);
    lo = vmmlaq_s32(lo, k0, w->v[0]);
    hi = vmmlaq_s32(hi, k0, w->v[1]);
    lo = vmmlaq_s32(lo, k8, w->v[2]);
    hi = vmmlaq_s32(hi, k8, w->v[3]);
    lo = vmmlaq_s32(lo, k16, w->v[4]);
    hi = vmmlaq_s32(hi, k16, w->v[5]);
    lo = vmmlaq_s32(lo, k24, w->v[6]);
    hi = vmmlaq_s32(hi, k24, w->v[7]);
    const float32x4_t w01 = vcombine_f32(vget_low_f32(ws), vget_low_f32(ws));
    const float32x4_t w23 = vcombine_f32(vget_high_f32(ws), vget_high_f32(ws));
    acc->c01 = vfmaq_f32(acc->c01, vsubq_f32(vreinterpretq_f32_s32(lo), vdupq_n_f32(zero)), vmulq_f32(w01, xs));
    acc->c23 = vfmaq_f32(acc->c23, vsubq_f32(vreinterpretq_f32_s32(hi), vdupq_n_f32(zero)), vmulq_f32(w23, xs));
}

INLINE void panel_by_pairs(const struct panel *p, int rows, load_fn *load, const int32_t *start, float zero)
{
    float32x4_t sums[ROW_GROUP];
    struct pair acc[ROW_GROUP / 2];
    const int8_t *q = p->q;
    const float *scale = p->scale;
    const uint8_t *w = p->w, *w_scale = p->w_scale;
    load_sums(sums, p, rows);
    UNROLL for (int i = 0; i < rows / 2; i++) {
        acc[i].c01 = vcombine_f32(vget_low_f32(sums[2 * i]), vget_low_f32(sums[2 * i + 1]));
        acc[i].c23 = vcombine_f32(vget_high_f32(sums[2 * i]), vget_high_f32(sums[2 * i + 1]));
    }
    for (int b = 0; b < p->n_blocks; b++) {
        const struct weights weights = load(w);
        const float32x4_t ws = load_scales(w_scale);
        UNROLL for (int i = 0; i < rows / 2; i++)
            add_block(&acc[i], &weights, ws, q + 2 * i * QBLOCK, scale + 2 * i, start, zero);
        q += ROW_GROUP * QBLOCK;
        scale += ROW_GROUP;
        w += p->block_bytes;
        w_scale += 2 * TILE_N;
    }
    UNROLL for (int i = 0; i < rows / 2; i++) {
        sums[2 * i] = vcombine_f32(vget_low_f32(acc[i].c01), vget_low_f32(acc[i].c23));
        sums[2 * i + 1] = vcombine_f32(vget_high_f32(acc[i].c01), vget_high_f32(acc[i].c23));
    }
    store_sums(sums, p, rows);
}

INLINE void panel_q4(const struct panel *p, int rows) { panel_by_pairs(p, rows, load_q4_pairs, start_q4, 0x1.8p19f); }
INLINE void panel_q8(const struct panel *p, int rows) { panel_by_pairs(p, rows, load_q8_pairs, start_q8, 0x1.8p23f); }

/* A single row takes its neighbour along. */
GEMM_OF_PANEL(q4, Q4_BYTES, 2)
GEMM_OF_PANEL(q8, Q8_BYTES, 2)

extern const struct kernels kernels_neon_i8mm;
const struct kernels kernels_neon_i8mm = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8 };
