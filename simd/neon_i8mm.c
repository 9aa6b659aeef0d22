/* neon_i8mm.c - matrix products with smmla: 2 rows x 2 channels x 8 products in an instruction (ARMv8.6). */
#include <arm_neon.h>

/* Numbers of two rows and 4 channels: row 0 channel 0, row 0 channel 1, row 1 channel 0, row 1 channel 1; then channels 2, 3. */
struct pair { float32x4_t c01, c23; };

/* What is the same for both rows. */
typedef struct pair factor;
static inline factor factor_of(float32x4_t v)
{
    const float64x2_t twos = vreinterpretq_f64_f32(v);
    return (factor){ vreinterpretq_f32_f64(vdupq_laneq_f64(twos, 0)), vreinterpretq_f32_f64(vdupq_laneq_f64(twos, 1)) };
}

#include "gemm_neon.h"

/* 16 * (nibble - 8), and sums that become floats by subtraction: neon_dotprod.c. */
static const int32x4_t start_q4 = { 0x49400000, 0x49400000, 0x49400000, 0x49400000 };
static const int32x4_t start_q8 = { 0x4B400000, 0x4B400000, 0x4B400000, 0x4B400000 };
static const int32x4_t start_q6k = { 0x4A400000, 0x4A400000, 0x4A400000, 0x4A400000 };

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

/* a's first 8 bytes, b's first 8; their others. */
INLINE void store_halves(int8_t *to, int8x16_t a, int8x16_t b)
{
    vst1q_s8(to, vreinterpretq_s8_s64(vzip1q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b))));
    vst1q_s8(to + 16, vreinterpretq_s8_s64(vzip2q_s64(vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b))));
}
/* Numbers of four rows, each twice, as often as a register has channels. */
INLINE void store_twice(float *to, float32x4_t v)
{
    vst1q_f32(to, vzip1q_f32(v, v));
    vst1q_f32(to + 4, vzip2q_f32(v, v));
}

/* Rows in pairs: 8 numbers of the first, 8 of the second.  Of a pair's scales and offsets a block has 4 floats. */
INLINE struct rows rows_in_pairs(struct room *room, const struct q8rows *x, size_t at, int n_blocks, int rows, bool offsets)
{
    const int8_t *q = x->q + at * QBLOCK;
    for (int b = 0; b < n_blocks; b++) {
        for (int r = 0; r < rows; r += 2) {
            const int8_t *two = q + (b * ROW_GROUP + r) * QBLOCK;
            int8_t *to = room->q + (b * PANEL_ROWS + r) * QBLOCK;
            store_halves(to, vld1q_s8(two), vld1q_s8(two + QBLOCK));
            store_halves(to + 32, vld1q_s8(two + 16), vld1q_s8(two + QBLOCK + 16));
        }
        for (int r = 0; r < PANEL_ROWS; r += 4) {
            const size_t from = at + (size_t)(b * ROW_GROUP + r);
            const int to = 2 * (b * PANEL_ROWS + r);
            const float32x4_t scale = vld1q_f32(x->scale + from);
            store_twice(room->scale + to, scale);
            if (offsets) store_twice(room->offset + to, vmulq_f32(to_float(vld1q_s32(x->offset + from)), scale));
        }
    }
    return (struct rows){ room->q, room->scale, room->offset };
}

/* s + the 16 products from k on; v: weights of k .. k+15; x: a pair's numbers of k .. k+7, then the others. */
struct sums { int32x4_t c01, c23; };
INLINE struct sums add_half(struct sums s, const int8x16_t v[4], const int8_t *x)
{
    const int8x16_t k0 = vld1q_s8(x), k8 = vld1q_s8(x + 16);
    s.c01 = vmmlaq_s32(s.c01, k0, v[0]);
    s.c23 = vmmlaq_s32(s.c23, k0, v[1]);
    s.c01 = vmmlaq_s32(s.c01, k8, v[2]);
    s.c23 = vmmlaq_s32(s.c23, k8, v[3]);
    return s;
}
INLINE struct sums first_half(const int32x4_t *start, const int8x16_t v[4], const int8_t *x)
{
    return add_half((struct sums){ reload(start), reload(start) }, v, x);
}
INLINE struct pair floats_of(struct sums s, float zero)
{
    const float32x4_t z = vdupq_n_f32(zero);
    return (struct pair){ vsubq_f32(vreinterpretq_f32_s32(s.c01), z), vsubq_f32(vreinterpretq_f32_s32(s.c23), z) };
}

/* A pair of rows of a block: sums over the 32 products of each channel, as floats. */
typedef struct pair dot_fn(const struct weights *w, const int8_t *x, const struct scales *s);
INLINE struct pair dot32(const struct weights *w, const int8_t *x, const int32x4_t *start, float zero)
{
    return floats_of(add_half(first_half(start, w->v, x), w->v + 4, x + 32), zero);
}
INLINE struct pair dot_q4(const struct weights *w, const int8_t *x, const struct scales *s)
{
    (void)s;
    return dot32(w, x, &start_q4, 0x1.8p19f);
}
INLINE struct pair dot_q8(const struct weights *w, const int8_t *x, const struct scales *s)
{
    (void)s;
    return dot32(w, x, &start_q8, 0x1.8p23f);
}

/* As in neon_dotprod.c. */
INLINE struct pair dot_q6k(const struct weights *w, const int8_t *x, const struct scales *s)
{
    const struct sums first = first_half(&start_q6k, w->v, x);
    const struct pair second = floats_of(first_half(&start_q6k, w->v + 4, x + 32), Q6K_ZERO);
    const float32x4_t c01 = fma_in_place(reload_f(&s->min.c01), vreinterpretq_f32_s32(first.c01), s->half[0].c01);
    const float32x4_t c23 = fma_in_place(reload_f(&s->min.c23), vreinterpretq_f32_s32(first.c23), s->half[0].c23);
    return (struct pair){ vfmaq_f32(c01, second.c01, s->half[1].c01), vfmaq_f32(c23, second.c23, s->half[1].c23) };
}

INLINE void panel_by_pairs(const struct panel *p, int rows, const bool unpacked, const struct layout l, dot_fn *dot, load_fn *load,
                           scales_fn *scales, super_fn *super)
{
    float32x4_t sums[PANEL_ROWS];
    struct pair acc[PANEL_ROWS / 2];
    const int8_t *q = p->rows.q;
    const float *scale = p->rows.scale, *offset = p->rows.offset;
    struct super now = no_super(NULL);
    struct scales own;
    load_sums(sums, p, rows);
    UNROLL for (int i = 0; i < rows / 2; i++) {
        acc[i].c01 = vcombine_f32(vget_low_f32(sums[2 * i]), vget_low_f32(sums[2 * i + 1]));
        acc[i].c23 = vcombine_f32(vget_high_f32(sums[2 * i]), vget_high_f32(sums[2 * i + 1]));
    }
    for (int b = 0; b < p->n_blocks; b++) {
        const struct weights w = unpacked ? load_unpacked(&p->unpacked->weights[b]) : load(p->packed.w + b * l.block);
        if (!unpacked) scales_at(&own, &p->packed, l, b, &now, scales, super);
        const struct scales *s = unpacked ? &p->unpacked->scales[b] : &own;
        UNROLL for (int i = 0; i < rows / 2; i++) {
            const struct pair isum = dot(&w, q + 2 * i * QBLOCK, s);
            const float32x4_t si = vld1q_f32(scale + 4 * i);
            acc[i].c01 = vfmaq_f32(acc[i].c01, isum.c01, vmulq_f32(s->d.c01, si));
            acc[i].c23 = vfmaq_f32(acc[i].c23, isum.c23, vmulq_f32(s->d.c23, si));
            if (l.min) {
                const float32x4_t oi = vld1q_f32(offset + 4 * i);
                acc[i].c01 = vfmaq_f32(acc[i].c01, oi, s->min.c01);
                acc[i].c23 = vfmaq_f32(acc[i].c23, oi, s->min.c23);
            }
        }
        q += PANEL_ROWS * QBLOCK;
        scale += PANEL_ROWS * 2;
        offset += PANEL_ROWS * 2;
    }
    UNROLL for (int i = 0; i < rows / 2; i++) {
        sums[2 * i] = vcombine_f32(vget_low_f32(acc[i].c01), vget_low_f32(acc[i].c23));
        sums[2 * i + 1] = vcombine_f32(vget_high_f32(acc[i].c01), vget_high_f32(acc[i].c23));
    }
    store_sums(sums, p, rows);
}

enum { LEAST = 2 };                             /* a single row takes its neighbour along */
#define PANEL panel_by_pairs
#define ROWS rows_in_pairs

GEMM_OF_PANEL(q4, SECOND_PANEL, dot_q4, READ_Q4(load_q4_pairs))
GEMM_OF_PANEL(q8, SECOND_PANEL, dot_q8, READ_Q8(load_q8_pairs))
GEMM_OF_PANEL(q4k, SECOND_PANEL, dot_q8, READ_Q4K(load_q4k_pairs))
GEMM_OF_PANEL(q6k, SECOND_PANEL, dot_q6k, READ_Q6K(load_q6k_pairs))

extern const struct kernels kernels_neon_i8mm;
const struct kernels kernels_neon_i8mm = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
