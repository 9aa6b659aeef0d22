/* neon_i8mm.c - matrix products with smmla: 2 rows x 2 channels x 8 products in an instruction (ARMv8.6). */
#include "gemm_neon.h"

/* 16 * (nibble - 8), and sums that become floats by subtraction: neon_dotprod.c. */
static const int32_t start_q4[4] = { 0x49400000, 0x49400000, 0x49400000, 0x49400000 };
static const int32_t start_q8[4] = { 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000 };
static const int32_t start_q6k[4] = { 0x4A400000, 0x4A400000, 0x4A400000, 0x4A400000 };

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
INLINE struct weights load_q4k_pairs(const uint8_t *w) { return pair_up(load_q4_unsigned(w)); }
INLINE struct weights load_q6k_pairs(const uint8_t *w) { return pair_up(load_q6k_high(w)); }

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

/* Of channels 0, 1 and of 2, 3, for both rows. */
INLINE struct pair pair_of_channels(float32x4_t v)
{
    return (struct pair){ vcombine_f32(vget_low_f32(v), vget_low_f32(v)), vcombine_f32(vget_high_f32(v), vget_high_f32(v)) };
}
/* Of two rows, for both channels. */
INLINE float32x4_t pair_of_rows(const float *two)
{
    const float32x2_t s = vld1_f32(two);
    return vzip1q_f32(vcombine_f32(s, s), vcombine_f32(s, s));
}

/* Sums that begin with those of the 16 products from k on; v: weights of k .. k+15. */
struct sums { int32x4_t lo, hi; };
INLINE struct sums add_half(struct sums s, const int8x16_t *v, int8x16_t k0, int8x16_t k8)
{
    s.lo = vmmlaq_s32(s.lo, k0, v[0]);
    s.hi = vmmlaq_s32(s.hi, k0, v[1]);
    s.lo = vmmlaq_s32(s.lo, k8, v[2]);
    s.hi = vmmlaq_s32(s.hi, k8, v[3]);
    return s;
}
INLINE struct pair floats_of(struct sums s, float zero)
{
    const float32x4_t z = vdupq_n_f32(zero);
    return (struct pair){ vsubq_f32(vreinterpretq_f32_s32(s.lo), z), vsubq_f32(vreinterpretq_f32_s32(s.hi), z) };
}

/* The sums of a block for two rows as floats; of Q6_K, the sums of the halves times their codes, exact all along. */
typedef struct pair dot_pair_fn(const struct weights *w, const int8_t *x, const struct scales *s);
INLINE struct pair dot_pair(const struct weights *w, const int8_t *x, const struct scales *s, const bool halves,
                            const int32_t *start, float zero)
{
    const int8x16_t a0 = vld1q_s8(x), a1 = vld1q_s8(x + 16), b0 = vld1q_s8(x + QBLOCK), b1 = vld1q_s8(x + QBLOCK + 16);
    struct sums sum = add_half((struct sums){ reload(start), reload(start) }, w->v, first_halves(a0, b0), second_halves(a0, b0));
    if (!halves) return floats_of(add_half(sum, w->v + 4, first_halves(a1, b1), second_halves(a1, b1)), zero);
    const struct pair first = floats_of(sum, zero), code = pair_of_channels(s->half[0]), code1 = pair_of_channels(s->half[1]);
    sum = add_half((struct sums){ reload(start), reload(start) }, w->v + 4, first_halves(a1, b1), second_halves(a1, b1));
    const struct pair second = floats_of(sum, zero);
    return (struct pair){ vfmaq_f32(vmulq_f32(first.c01, code.c01), second.c01, code1.c01),
                          vfmaq_f32(vmulq_f32(first.c23, code.c23), second.c23, code1.c23) };
}

INLINE void add_scaled(struct pair *acc, struct pair sums, float32x4_t weights, float32x4_t rows)
{
    const struct pair w = pair_of_channels(weights);
    acc->c01 = vfmaq_f32(acc->c01, sums.c01, vmulq_f32(w.c01, rows));
    acc->c23 = vfmaq_f32(acc->c23, sums.c23, vmulq_f32(w.c23, rows));
}

INLINE struct pair dot_q4(const struct weights *w, const int8_t *x, const struct scales *s) { return dot_pair(w, x, s, false, start_q4, 0x1.8p19f); }
INLINE struct pair dot_q8(const struct weights *w, const int8_t *x, const struct scales *s) { return dot_pair(w, x, s, false, start_q8, 0x1.8p23f); }
INLINE struct pair dot_q6k(const struct weights *w, const int8_t *x, const struct scales *s) { return dot_pair(w, x, s, true, start_q6k, Q6K_ZERO); }

INLINE void panel_by_pairs(const struct panel *p, int rows, const bool unpacked, const struct layout l, dot_pair_fn *dot, load_fn *load,
                           scales_fn *scales, super_fn *super)
{
    float32x4_t sums[ROW_GROUP];
    struct pair acc[ROW_GROUP / 2];
    const int8_t *q = p->q;
    const float *scale = p->scale, *offset = p->offset;
    struct super now = no_super(NULL);
    struct scales own;
    load_sums(sums, p, rows);
    UNROLL for (int i = 0; i < rows / 2; i++) {
        acc[i].c01 = vcombine_f32(vget_low_f32(sums[2 * i]), vget_low_f32(sums[2 * i + 1]));
        acc[i].c23 = vcombine_f32(vget_high_f32(sums[2 * i]), vget_high_f32(sums[2 * i + 1]));
    }
    for (int b = 0; b < p->n_blocks; b++) {
        const struct weights w = unpacked ? p->unpacked->weights[b] : load(p->packed.w + b * l.block);
        if (!unpacked) scales_at(&own, &p->packed, l, b, &now, scales, super);
        const struct scales *s = unpacked ? &p->unpacked->scales[b] : &own;
        UNROLL for (int i = 0; i < rows / 2; i++) {
            add_scaled(&acc[i], dot(&w, q + 2 * i * QBLOCK, s), s->d, pair_of_rows(scale + 2 * i));
            if (l.min) {
                const struct pair m = pair_of_channels(s->min);
                const float32x4_t t = pair_of_rows(offset + 2 * i);
                acc[i].c01 = vfmaq_f32(acc[i].c01, t, m.c01);
                acc[i].c23 = vfmaq_f32(acc[i].c23, t, m.c23);
            }
        }
        q += ROW_GROUP * QBLOCK;
        scale += ROW_GROUP;
        offset += ROW_GROUP;
    }
    UNROLL for (int i = 0; i < rows / 2; i++) {
        sums[2 * i] = vcombine_f32(vget_low_f32(acc[i].c01), vget_low_f32(acc[i].c23));
        sums[2 * i + 1] = vcombine_f32(vget_high_f32(acc[i].c01), vget_high_f32(acc[i].c23));
    }
    store_sums(sums, p, rows);
}

/* A single row takes its neighbour along. */
GEMM_OF_PANEL(q4, 2, SECOND_GROUP, panel_by_pairs, dot_q4, READ_Q4(load_q4_pairs))
GEMM_OF_PANEL(q8, 2, SECOND_GROUP, panel_by_pairs, dot_q8, READ_Q8(load_q8_pairs))
GEMM_OF_PANEL(q4k, 2, SECOND_GROUP, panel_by_pairs, dot_q8, READ_Q4K(load_q4k_pairs))
GEMM_OF_PANEL(q6k, 2, SECOND_GROUP, panel_by_pairs, dot_q6k, READ_Q6K(load_q6k_pairs))

extern const struct kernels kernels_neon_i8mm;
const struct kernels kernels_neon_i8mm = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
