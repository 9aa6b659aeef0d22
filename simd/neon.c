/* neon.c - every kernel with ARMv8.0 Advanced SIMD (Cortex-A53, A72: Pi 3, Pi 4).
 * The 16 running sums of kernels.h are 4 registers; maxima are a compare and a select, as a > b ? a : b. */
#include "gemm_neon_rows.h"

#include <float.h>
#include <math.h>
#include <sleef.h>

INLINE float32x4_t exp4(float32x4_t x) { return Sleef_finz_expf4_u10advsimd(x); }
INLINE float32x4_t exp_or_0(const float least, float32x4_t x)          /* kernels.h: e(x) of attend */
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(exp4(x)), vcltq_f32(x, vdupq_n_f32(least))));
}
INLINE float32x4_t max4(float32x4_t a, float32x4_t b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }

/* The last n < 4 numbers of a row, zeros behind them; a full load would read past the row. */
INLINE float32x4_t load_part(const float *x, int n)
{
    float part[4] = { 0 };
    for (int i = 0; i < n; i++) part[i] = x[i];
    return vld1q_f32(part);
}

INLINE void store_part(float *y, float32x4_t v, int n)
{
    float part[4];
    vst1q_f32(part, v);
    for (int i = 0; i < n; i++) y[i] = part[i];
}

INLINE float fold(const float32x4_t s[4])
{
    const float32x4_t four = vaddq_f32(vaddq_f32(s[0], s[2]), vaddq_f32(s[1], s[3]));
    const float32x2_t two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
    return vget_lane_f32(two, 0) + vget_lane_f32(two, 1);
}

/* ---- matrix products, int8.  smull/smlal multiply 8 bytes to 16 bits at a time, in one of the A72's two pipes; what
 * gathers the 16-bit sums runs in the other. */

/* nibble - 8: so 32 products with |x| <= 127 stay within 32 * 8 * 127 = 32512 and sum up in 16 bits. */
INLINE struct weights load_q4(const uint8_t *w)
{
    const uint8x16_t low = vdupq_n_u8(15);
    const int8x16_t eight = vdupq_n_s8(8);
    struct weights q;
    UNROLL for (int j = 0; j < 4; j++) {
        const uint8x16_t pair = vld1q_u8(w + j * TILE_N * 4);
        q.v[j] = vsubq_s8(vreinterpretq_s8_u8(vandq_u8(pair, low)), eight);
        q.v[4 + j] = vsubq_s8(vreinterpretq_s8_u8(vshrq_n_u8(pair, 4)), eight);
    }
    return q;
}

/* Four numbers of a row, as often as there are channels in a quad. */
#define SPREAD(x, j) vreinterpretq_s8_s32(vdupq_laneq_s32(vreinterpretq_s32_s8(x), j))

/* Channels 0, 1 in *lo and 2, 3 in *hi, each as 4 sums of 16 bits. */
INLINE void first4(int16x8_t *lo, int16x8_t *hi, int8x16_t w, int8x16_t x)
{
    *lo = vmull_s8(vget_low_s8(w), vget_low_s8(x));
    *hi = vmull_high_s8(w, x);
}
INLINE void next4(int16x8_t *lo, int16x8_t *hi, int8x16_t w, int8x16_t x)
{
    *lo = vmlal_s8(*lo, vget_low_s8(w), vget_low_s8(x));
    *hi = vmlal_high_s8(*hi, w, x);
}

INLINE float32x4_t dot_q4(const struct weights *w, const int8_t *x, const struct scales *s)
{
    (void)s;
    const int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 16);
    int16x8_t lo, hi, lo1, hi1;
    first4(&lo, &hi, w->v[0], SPREAD(x0, 0));
    first4(&lo1, &hi1, w->v[4], SPREAD(x1, 0));
    next4(&lo, &hi, w->v[1], SPREAD(x0, 1));
    next4(&lo1, &hi1, w->v[5], SPREAD(x1, 1));
    next4(&lo, &hi, w->v[2], SPREAD(x0, 2));
    next4(&lo1, &hi1, w->v[6], SPREAD(x1, 2));
    next4(&lo, &hi, w->v[3], SPREAD(x0, 3));
    next4(&lo1, &hi1, w->v[7], SPREAD(x1, 3));
    return vcvtq_f32_s32(vpaddq_s32(vpaddlq_s16(vaddq_s16(lo, lo1)), vpaddlq_s16(vaddq_s16(hi, hi1))));
}

/* Bytes of weights reach -128: 2 * 127 * 128 = 32512 fits 16 bits, a third product does not. */
INLINE float32x4_t dot_q8(const struct weights *w, const int8_t *x, const struct scales *s)
{
    (void)s;
    const int8x16_t x0 = vld1q_s8(x), x1 = vld1q_s8(x + 16);
    int16x8_t lo[4], hi[4];
    first4(&lo[0], &hi[0], w->v[0], SPREAD(x0, 0));
    first4(&lo[1], &hi[1], w->v[2], SPREAD(x0, 2));
    next4(&lo[0], &hi[0], w->v[1], SPREAD(x0, 1));
    next4(&lo[1], &hi[1], w->v[3], SPREAD(x0, 3));
    first4(&lo[2], &hi[2], w->v[4], SPREAD(x1, 0));
    first4(&lo[3], &hi[3], w->v[6], SPREAD(x1, 2));
    next4(&lo[2], &hi[2], w->v[5], SPREAD(x1, 1));
    next4(&lo[3], &hi[3], w->v[7], SPREAD(x1, 3));
    const int32x4_t s0 = vpadalq_s16(vpadalq_s16(vpaddlq_s16(lo[0]), lo[1]), lo[2]);
    const int32x4_t s1 = vpadalq_s16(vpadalq_s16(vpaddlq_s16(hi[0]), hi[1]), hi[2]);
    return vcvtq_f32_s32(vpaddq_s32(vpadalq_s16(s0, lo[3]), vpadalq_s16(s1, hi[3])));
}

/* The sums of the halves times their codes: below 2^24 all along, so exact in float. */
INLINE float32x4_t dot_q6k(const struct weights *w, const int8_t *x, const struct scales *s)
{
    float32x4_t sum[2];
    UNROLL for (int h = 0; h < 2; h++) {
        const int8x16_t xh = vld1q_s8(x + 16 * h);
        const int8x16_t *v = w->v + 4 * h;
        int16x8_t lo, hi;
        first4(&lo, &hi, v[0], SPREAD(xh, 0));
        next4(&lo, &hi, v[1], SPREAD(xh, 1));
        next4(&lo, &hi, v[2], SPREAD(xh, 2));
        next4(&lo, &hi, v[3], SPREAD(xh, 3));
        sum[h] = vcvtq_f32_s32(vpaddq_s32(vpaddlq_s16(lo), vpaddlq_s16(hi)));
    }
    return vfmaq_f32(vmulq_f32(sum[0], s->half[0]), sum[1], s->half[1]);
}

GEMM_OF_PANEL(q4, SECOND_PANEL, dot_q4, READ_Q4(load_q4))
GEMM_OF_PANEL(q8, NEVER, dot_q8, READ_Q8(load_q8))
GEMM_OF_PANEL(q4k, SECOND_PANEL, dot_q4, READ_Q4K(load_q4_unsigned))
GEMM_OF_PANEL(q6k, SECOND_PANEL, dot_q6k, READ_Q6K(load_q6k))

/* ---- matrix products, float: 4 rows x 16 channels at a time */

enum { FLOAT_ROWS = 4 };

typedef float32x4_t load4_fn(const uint8_t *w, int i);         /* numbers i .. i+3 */
INLINE float32x4_t load4_f32(const uint8_t *w, int i) { return vreinterpretq_f32_u8(vld1q_u8(w + 4 * i)); }
INLINE float32x4_t load4_f16(const uint8_t *w, int i) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(w + 2 * i))); }
INLINE float32x4_t load4_bf16(const uint8_t *w, int i)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(w + 2 * i)), 16));
}

INLINE void float_panel(float *y, size_t ldy, const float *x, size_t ldx, const uint8_t *w, int k, int rows, int bytes,
                        load4_fn *load4)
{
    float32x4_t acc[FLOAT_ROWS][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < 4; v++) acc[r][v] = vdupq_n_f32(0);
    for (int i = 0; i < k; i++, w += TILE_N * bytes) {
        const float32x4_t w0 = load4(w, 0), w1 = load4(w, 4), w2 = load4(w, 8), w3 = load4(w, 12);
        UNROLL for (int r = 0; r < rows; r++) {
            const float xr = x[(size_t)r * ldx + (size_t)i];
            acc[r][0] = vfmaq_n_f32(acc[r][0], w0, xr);
            acc[r][1] = vfmaq_n_f32(acc[r][1], w1, xr);
            acc[r][2] = vfmaq_n_f32(acc[r][2], w2, xr);
            acc[r][3] = vfmaq_n_f32(acc[r][3], w3, xr);
        }
    }
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < 4; v++) vst1q_f32(y + (size_t)r * ldy + 4 * v, acc[r][v]);
}

INLINE void float_tiles(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const uint8_t *w,
                        int n_tiles, int k, int bytes, load4_fn *load4)
{
    const size_t tile_bytes = ((size_t)k * TILE_N * (size_t)bytes + 63) & ~(size_t)63;
    for (int t = 0; t < n_tiles; t++, w += tile_bytes, y += TILE_N) {
        int r = row0;
        for (; r + FLOAT_ROWS <= row1; r += FLOAT_ROWS)
            float_panel(y + (size_t)r * ldy, ldy, x + (size_t)r * ldx, ldx, w, k, FLOAT_ROWS, bytes, load4);
        for (; r < row1; r++)
            float_panel(y + (size_t)r * ldy, ldy, x + (size_t)r * ldx, ldx, w, k, 1, bytes, load4);
    }
}

#define GEMM_FLOAT(format, bytes)                                                                                      \
    static void gemm_##format##_run(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1,              \
                                    const void *w, int n_tiles, int k)                                                 \
    {                                                                                                                  \
        float_tiles(y, ldy, x, ldx, row0, row1, w, n_tiles, k, bytes, load4_##format);                                 \
    }                                                                                                                  \
    static const struct gemm_float gemm_##format = { gemm_##format##_run };

GEMM_FLOAT(f32, 4)
GEMM_FLOAT(f16, 2)
GEMM_FLOAT(bf16, 2)

/* ---- rows */

/* NaN as 0, infinities as the largest number of their sign. */
INLINE float32x4_t finite4(float32x4_t x)
{
    const float32x4_t most = vdupq_n_f32(FLT_MAX);
    const uint32x4_t number = vceqq_f32(x, x);
    const float32x4_t bounded = vminq_f32(vmaxq_f32(x, vnegq_f32(most)), most);
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(bounded), number));
}

static void quantize_q8_neon(struct q8rows *y, int row, const float *x)
{
    const int32x4_t top = vdupq_n_s32(127);
    for (int b = 0; b < y->k / QBLOCK; b++, x += QBLOCK) {
        const size_t at = q8_index(y, row, b);
        float32x4_t v[8], most = vdupq_n_f32(0);
        UNROLL for (int i = 0; i < 8; i++) {
            v[i] = finite4(vld1q_f32(x + 4 * i));
            most = vmaxq_f32(most, vabsq_f32(v[i]));
        }
        const float amax = vmaxvq_f32(most), inv = amax < 1e-30f ? 0 : 127.0f / amax;
        int16x8_t q[4];
        UNROLL for (int i = 0; i < 4; i++) {
            const int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(v[2 * i], inv)), c = vcvtnq_s32_f32(vmulq_n_f32(v[2 * i + 1], inv));
            q[i] = vcombine_s16(vmovn_s32(vmaxq_s32(vminq_s32(a, top), vnegq_s32(top))),
                                vmovn_s32(vmaxq_s32(vminq_s32(c, top), vnegq_s32(top))));
        }
        vst1q_s8(y->q + at * QBLOCK, vcombine_s8(vmovn_s16(q[0]), vmovn_s16(q[1])));
        vst1q_s8(y->q + at * QBLOCK + 16, vcombine_s8(vmovn_s16(q[2]), vmovn_s16(q[3])));
        y->scale[at] = amax < 1e-30f ? 0 : amax / 127.0f;
        const int first = -8 * vaddvq_s16(vaddq_s16(q[0], q[1])), second = -8 * vaddvq_s16(vaddq_s16(q[2], q[3]));
        y->offset[at] = first + second;
        y->halves[2 * at] = (int16_t)first;
        y->halves[2 * at + 1] = (int16_t)second;
    }
}

static void rms_norm_neon(float *y, const float *x, const float *w, int n, float eps)
{
    float32x4_t s[4];
    UNROLL for (int v = 0; v < 4; v++) s[v] = vdupq_n_f32(0);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        UNROLL for (int v = 0; v < 4; v++) {
            const float32x4_t a = vld1q_f32(x + i + 4 * v);
            s[v] = vfmaq_f32(s[v], a, a);
        }
    for (int v = 0; i < n; i += 4, v++) {
        const float32x4_t a = n - i < 4 ? load_part(x + i, n - i) : vld1q_f32(x + i);
        s[v] = vfmaq_f32(s[v], a, a);
    }
    const float r = 1.0f / sqrtf(fold(s) / (float)n + eps);
    for (i = 0; i + 4 <= n; i += 4) vst1q_f32(y + i, vmulq_f32(vmulq_n_f32(vld1q_f32(x + i), r), vld1q_f32(w + i)));
    for (; i < n; i++) y[i] = (x[i] * r) * w[i];
}

static void rope_neon(float *x, const float *cos, const float *sin, int half)
{
    int i = 0;
    for (; i + 4 <= half; i += 4) {
        const float32x4_t a = vld1q_f32(x + i), b = vld1q_f32(x + i + half), c = vld1q_f32(cos + i), s = vld1q_f32(sin + i);
        vst1q_f32(x + i, vfmaq_f32(vnegq_f32(vmulq_f32(b, s)), a, c));
        vst1q_f32(x + i + half, vfmaq_f32(vmulq_f32(a, s), b, c));
    }
    for (; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + half] = fmaf(b, cos[i], a * sin[i]);
    }
}

INLINE float32x4_t swiglu4(float32x4_t gate, float32x4_t up)
{
    return vmulq_f32(vdivq_f32(gate, vaddq_f32(vdupq_n_f32(1), exp4(vnegq_f32(gate)))), up);
}

static void swiglu_neon(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, swiglu4(vld1q_f32(gate + i), vld1q_f32(up + i)));
    if (i < n) store_part(y + i, swiglu4(load_part(gate + i, n - i), load_part(up + i, n - i)), n - i);
}

static void add_neon(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 4 <= n; i += 4) vst1q_f32(y + i, vaddq_f32(vld1q_f32(y + i), vld1q_f32(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

/* ---- attention: GROUP query rows pass over the keys together, tile by tile, so that keys and values come into L1 once for all of
 * them; BATCH rows share every load */

enum { BATCH = 4, GROUP = 64 };

/* What a query row carries from tile to tile. */
struct attend_row { float m; float32x4_t l[4]; float acc[MAX_HEAD_DIM]; float p[KEY_TILE]; };

/* CALL(row, how many) for the rows of a group, a batch at a time. */
#define BY_BATCHES(rows, CALL)                                      \
    do {                                                            \
        int r_ = 0;                                                 \
        for (; r_ + BATCH <= (rows); r_ += BATCH) CALL(r_, BATCH);  \
        if (r_ + 2 <= (rows)) { CALL(r_, 2); r_ += 2; }             \
        if (r_ < (rows)) CALL(r_, 1);                               \
    } while (0)

/* p = scores of the 16 keys from j0 + j, -inf where `dead` says so. */
INLINE void score_part(struct attend_row *row, const struct attend_args *a, const float *q, int j0, int j, const uint32_t *dead, int rows)
{
    const float32x4_t none = vdupq_n_f32(-INFINITY);
    const float *k = a->k + (size_t)(j0 + j) * (size_t)a->head_dim;
    float32x4_t s[BATCH][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < 4; v++) s[r][v] = vdupq_n_f32(0);
    for (int d = 0; d < a->head_dim; d++, k += LANES)
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int v = 0; v < 4; v++)
                s[r][v] = vfmaq_n_f32(s[r][v], vld1q_f32(k + 4 * v), q[(size_t)r * a->ldq + (size_t)d]);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int v = 0; v < 4; v++)
            vst1q_f32(row[r].p + j + 4 * v, vbslq_f32(vld1q_u32(dead + j + 4 * v), none, vmulq_n_f32(s[r][v], a->scale)));
}

/* Scores of the n keys of a tile, -inf behind the last one too. */
INLINE void score(struct attend_row *row, const struct attend_args *a, const float *q, int j0, int n, const uint32_t *dead, int rows)
{
    for (int j = 0; j < n; j += LANES) {
#define SCORE(r, m) score_part(row + (r), a, q + (size_t)(r) * a->ldq, j0, j, dead, m)
        BY_BATCHES(rows, SCORE);
    }
}

/* kernels.h: bf16_near() of numbers that are 0 or not below BF16_LEAST. */
INLINE float32x4_t bf16_near4(float32x4_t x)
{
    return vreinterpretq_f32_u32(vandq_u32(vaddq_u32(vreinterpretq_u32_f32(x), vdupq_n_u32(0x8000)), vdupq_n_u32(0xffff0000)));
}

/* Scores to exp(score - m'), the sums l brought along; false if no key has been seen so far. */
INLINE bool soften(const bool bf16, struct attend_row *row, int n, int dim)
{
    const float LEAST = bf16 ? EXP_LEAST_BF16 : EXP_LEAST;
    const int lanes = (n + LANES - 1) / LANES * LANES;
    float32x4_t top = vdupq_n_f32(row->m);
    for (int j = 0; j < lanes; j += 4) top = max4(top, vld1q_f32(row->p + j));
    const float m = vmaxvq_f32(top);
    if (m == -INFINITY) return false;
    const float c = vgetq_lane_f32(exp_or_0(LEAST, vdupq_n_f32(row->m - m)), 0);
    row->m = m;
    if (c != 1) {                               /* the maximum has risen */
        for (int v = 0; v < 4; v++) row->l[v] = vmulq_n_f32(row->l[v], c);
        for (int d = 0; d < dim; d += 4) {
            const float32x4_t acc = vmulq_n_f32(vld1q_f32(row->acc + d), c);
            const uint32x4_t small = vcaltq_f32(acc, vdupq_n_f32(SUM_LEAST));
            vst1q_f32(row->acc + d, bf16 ? vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(acc), small)) : acc);
        }
    }
    for (int j = 0; j < lanes; j += LANES)
        for (int v = 0; v < 4; v++) {
            const float32x4_t e = exp_or_0(LEAST, vsubq_f32(vld1q_f32(row->p + j + 4 * v), vdupq_n_f32(m))), p = bf16 ? bf16_near4(e) : e;
            vst1q_f32(row->p + j + 4 * v, p);
            row->l[v] = vaddq_f32(row->l[v], p);
        }
    return true;
}

/* acc += p V for `width` vectors of head_dim from d. */
INLINE void mix_part(struct attend_row *row, const struct attend_args *a, int j0, int n, int d, int rows, int width)
{
    const float *v = a->v + (size_t)j0 * (size_t)a->head_dim + d;
    float32x4_t acc[BATCH][4];
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < width; i++) acc[r][i] = vld1q_f32(row[r].acc + d + 4 * i);
    for (int j = 0; j < n; j++, v += a->head_dim)
        UNROLL for (int r = 0; r < rows; r++)
            UNROLL for (int i = 0; i < width; i++) acc[r][i] = vfmaq_n_f32(acc[r][i], vld1q_f32(v + 4 * i), row[r].p[j]);
    UNROLL for (int r = 0; r < rows; r++)
        UNROLL for (int i = 0; i < width; i++) vst1q_f32(row[r].acc + d + 4 * i, acc[r][i]);
}

INLINE void mix(struct attend_row *row, const struct attend_args *a, int j0, int n, int rows)
{
    int d = 0;
#define MIX_4(r, m) mix_part(row + (r), a, j0, n, d, m, 4)
#define MIX_2(r, m) mix_part(row + (r), a, j0, n, d, m, 2)
    for (; d + LANES <= a->head_dim; d += LANES) BY_BATCHES(rows, MIX_4);
    for (; d < a->head_dim; d += 8) BY_BATCHES(rows, MIX_2);
}

INLINE void attend_group(const bool bf16, const struct attend_args *a, int r0, int rows)
{
    struct attend_row row[GROUP];
    for (int r = 0; r < rows; r++) {
        row[r].m = -INFINITY;
        memset(row[r].l, 0, sizeof row[r].l);
        memset(row[r].acc, 0, (size_t)a->head_dim * sizeof row[r].acc[0]);
    }
    for (int j0 = 0; j0 < a->n_keys; j0 += KEY_TILE) {
        const int n = a->n_keys - j0 < KEY_TILE ? a->n_keys - j0 : KEY_TILE;
        uint32_t dead[KEY_TILE];
        for (int j = 0; j < KEY_TILE; j++) dead[j] = j >= n || (a->mask && !a->mask[j0 + j]) ? UINT32_MAX : 0;
        score(row, a, a->q + (size_t)r0 * a->ldq, j0, n, dead, rows);
        bool any = false;                       /* the same answer for every row: the mask decides it */
        for (int r = 0; r < rows; r++) any = soften(bf16, &row[r], n, a->head_dim);
        if (any) mix(row, a, j0, n, rows);
    }
    for (int r = 0; r < rows; r++) {
        float *y = a->y + (size_t)(r0 + r) * a->ldy;
        const float32x4_t sum = vdupq_n_f32(row[r].m == -INFINITY ? 1 : fold(row[r].l));
        for (int d = 0; d < a->head_dim; d += 4) vst1q_f32(y + d, vdivq_f32(vld1q_f32(row[r].acc + d), sum));
    }
}

static void attend_neon(const struct attend_args *a)
{
    for (int r = 0; r < a->n_rows; r += GROUP) attend_group(false, a, r, a->n_rows - r < GROUP ? a->n_rows - r : GROUP);
}

static void attend_bf16_neon(const struct attend_args *a)
{
    for (int r = 0; r < a->n_rows; r += GROUP) attend_group(true, a, r, a->n_rows - r < GROUP ? a->n_rows - r : GROUP);
}

/* ---- logits */

/* Each of the 16 lanes keeps its first best; then the best lane, the lowest index among equals. */
static float argmax_neon(const float *x, int n, int32_t *index)
{
    float32x4_t best[4];
    int32x4_t at[4], here[4];
    const int32_t lane[4] = { 0, 1, 2, 3 };
    UNROLL for (int v = 0; v < 4; v++) {
        best[v] = vdupq_n_f32(-INFINITY);
        at[v] = vdupq_n_s32(-1);
        here[v] = vaddq_s32(vld1q_s32(lane), vdupq_n_s32(4 * v));
    }
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        UNROLL for (int v = 0; v < 4; v++) {
            const float32x4_t a = vld1q_f32(x + i + 4 * v);
            const uint32x4_t more = vcgtq_f32(a, best[v]);
            best[v] = vbslq_f32(more, a, best[v]);
            at[v] = vbslq_s32(more, here[v], at[v]);
            here[v] = vaddq_s32(here[v], vdupq_n_s32(LANES));
        }
    float top = -INFINITY, value[LANES];
    int32_t first = -1, where[LANES];
    UNROLL for (int v = 0; v < 4; v++) {
        vst1q_f32(value + 4 * v, best[v]);
        vst1q_s32(where + 4 * v, at[v]);
    }
    for (int j = 0; j < LANES; j++)
        if (value[j] > top || (value[j] == top && where[j] < first)) {
            top = value[j];
            first = where[j];
        }
    for (; i < n; i++)
        if (x[i] > top) {
            top = x[i];
            first = i;
        }
    *index = first;
    return top;
}

/* e = exp(x - max) into *sum, e * max(x - max, -128) into *weight */
INLINE void add_exp(float32x4_t x, float max, float32x4_t *sum, float32x4_t *weight)
{
    const float32x4_t t = vsubq_f32(x, vdupq_n_f32(max)), e = exp4(t), lowest = vdupq_n_f32(-128);
    *sum = vaddq_f32(*sum, e);
    *weight = vfmaq_f32(*weight, e, vbslq_f32(vcgtq_f32(t, lowest), t, lowest));
}

static float sum_exp_neon(const float *x, int n, float max, float *moment)
{
    float32x4_t s[4], w[4];
    UNROLL for (int v = 0; v < 4; v++) s[v] = w[v] = vdupq_n_f32(0);
    int i = 0;
    for (; i + LANES <= n; i += LANES)
        UNROLL for (int v = 0; v < 4; v++) add_exp(vld1q_f32(x + i + 4 * v), max, &s[v], &w[v]);
    for (int v = 0; i + 4 <= n; i += 4, v++) add_exp(vld1q_f32(x + i), max, &s[v], &w[v]);
    if (i < n) {
        float32x4_t *sum = &s[i % LANES / 4], *weight = &w[i % LANES / 4], more = *sum, heavier = *weight;
        float part[4];
        add_exp(load_part(x + i, n - i), max, &more, &heavier);
        vst1q_f32(part, *sum);
        store_part(part, more, n - i);
        *sum = vld1q_f32(part);
        vst1q_f32(part, *weight);
        store_part(part, heavier, n - i);
        *weight = vld1q_f32(part);
    }
    *moment = fold(w);
    return fold(s);
}

extern const struct kernels kernels_neon;
const struct kernels kernels_neon = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k,
    .gemm_f32 = &gemm_f32, .gemm_f16 = &gemm_f16, .gemm_bf16 = &gemm_bf16,
    .quantize_q8 = quantize_q8_neon, .rms_norm = rms_norm_neon, .rope = rope_neon, .swiglu = swiglu_neon,
    .add = add_neon, .attend = attend_neon, .attend_bf16 = attend_bf16_neon, .argmax = argmax_neon, .sum_exp = sum_exp_neon,
};
