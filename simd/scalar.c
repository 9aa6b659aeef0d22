/* scalar.c - every kernel as its formula: the definition of the bits that the other sets return (kernels.h).
 * Written to be read; speed is the other files' business. */
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "f16.h"
#include "kernels.h"
#include "pack.h"
#include "sleef_scalar.h"

static float max_of(float a, float b) { return a > b ? a : b; }
static float exp_of(float x) { return Sleef_finz_expf1_u10purecfma(x); }
static float exp_or_0(bool bf16, float x) { return x < (bf16 ? EXP_LEAST_BF16 : EXP_LEAST) ? 0 : exp_of(x); }

/* 16 running sums to one: 16 -> 8 -> 4 -> 2 -> 1. */
static float fold(float s[LANES])
{
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) s[i] += s[i + half];
    return s[0];
}

/* ---- matrix products */

/* Four bits of the weights that lie as in q4. */
static int nibble(const uint8_t *block, int c, int k)
{
    const uint8_t pair = block[(k % 16 / 4 * TILE_N + c) * 4 + k % 4];
    return k < 16 ? pair & 15 : pair >> 4;
}

/* What a format makes of k, a weight's place in block b, of channel c of a tile of nb blocks: an integer. */
typedef int weight_fn(const uint8_t *tile, int nb, int b, int c, int k);

static int q4_weight(const uint8_t *tile, int nb, int b, int c, int k) { (void)nb; return nibble(tile + b * Q4_BYTES, c, k) - 8; }
static int q4k_weight(const uint8_t *tile, int nb, int b, int c, int k) { (void)nb; return nibble(tile + b * Q4_BYTES, c, k); }
static int q8_weight(const uint8_t *tile, int nb, int b, int c, int k)
{
    (void)nb;
    return (int8_t)tile[b * Q8_BYTES + (k / 4 * TILE_N + c) * 4 + k % 4];
}
static int q6k_weight(const uint8_t *tile, int nb, int b, int c, int k)
{
    const uint8_t *block = tile + b * Q6K_BYTES, four = block[Q4_BYTES + (k % 8 / 4 * TILE_N + c) * 4 + k % 4];
    const int8_t scale = (int8_t)tile[nb * Q6K_BYTES + b * SCALES_BYTES + 2 * c + k / 16];
    return scale * ((nibble(block, c, k) | (four >> k / 8 * 2 & 3) << 4) - 32);
}

static float f16_at(const uint8_t *p, int i) { uint16_t v; memcpy(&v, p + 2 * i, 2); return f16_to_f32(v); }

/* What isum is multiplied by, but for the activations' scale: in *min what their sum is. */
typedef float scale_fn(const uint8_t *tile, int nb, int b, int c, float *min);

static float q4_scale(const uint8_t *tile, int nb, int b, int c, float *min)
{
    (void)min;
    return f16_at(tile + nb * Q4_BYTES, b * TILE_N + c);
}
static float q8_scale(const uint8_t *tile, int nb, int b, int c, float *min)
{
    (void)min;
    return f16_at(tile + nb * Q8_BYTES, b * TILE_N + c);
}
static float q4k_scale(const uint8_t *tile, int nb, int b, int c, float *min)
{
    const uint8_t *codes = tile + nb * Q4_BYTES + b * SCALES_BYTES;
    const uint8_t *super = tile + nb * (Q4_BYTES + SCALES_BYTES) + b / SUPER * Q4K_SUPER_BYTES;
    *min = f16_at(super, TILE_N + c) / 8 * (float)codes[TILE_N + c];
    return f16_at(super, c) * (float)codes[c];
}
static float q6k_scale(const uint8_t *tile, int nb, int b, int c, float *min)
{
    (void)min;
    return f16_at(tile + nb * (Q6K_BYTES + SCALES_BYTES) + b / SUPER * Q6K_SUPER_BYTES, c);
}

/* A format as the tile of its product sees it: min says that a multiple of the activations' sum is added. */
struct blocks { const struct quant_format *format; weight_fn *weight; scale_fn *scale; bool min; };
static const struct blocks q4 = { &format_q4_0, q4_weight, q4_scale, false }, q8 = { &format_q8_0, q8_weight, q8_scale, false };
static const struct blocks q4k = { &format_q4_k, q4k_weight, q4k_scale, true }, q6k = { &format_q6_k, q6k_weight, q6k_scale, false };

/* One output: row r of x times channel c of a tile. */
static float dot_blocks(const struct q8rows *x, int r, const uint8_t *tile, int c, const struct blocks *f)
{
    const int nb = x->k / QBLOCK;
    float acc = 0;
    for (int b = 0; b < nb; b++) {
        const size_t at = q8_index(x, r, b);
        const int8_t *q = x->q + at * QBLOCK;
        int32_t isum = 0;
        float min;
        for (int k = 0; k < QBLOCK; k++) isum += f->weight(tile, nb, b, c, k) * q[k];
        acc = fmaf((float)isum, f->scale(tile, nb, b, c, &min) * x->scale[at], acc);
        if (f->min) acc = fmaf((float)x->offset[at] * x->scale[at], min, acc);
    }
    return acc;
}

static void gemm_blocks(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const uint8_t *w, int n_tiles,
                        const struct blocks *f)
{
    const size_t tile_bytes = pack_format_of(f->format)->tile_bytes(x->k);
    for (int t = 0; t < n_tiles; t++)
        for (int r = row0; r < row1; r++)
            for (int c = 0; c < TILE_N; c++)
                y[(size_t)r * ldy + (size_t)(t * TILE_N + c)] = dot_blocks(x, r, w + (size_t)t * tile_bytes, c, f);
}

#define GEMM_BLOCKS(f)                                                                                                             \
    static void gemm_##f##_scalar(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)    \
    {                                                                                                                              \
        gemm_blocks(y, ldy, x, row0, row1, w, n_tiles, &f);                                                                        \
    }                                                                                                                              \
    static const struct gemm_int8 gemm_##f = { gemm_##f##_scalar };
GEMM_BLOCKS(q4) GEMM_BLOCKS(q8) GEMM_BLOCKS(q4k) GEMM_BLOCKS(q6k)

static float load_f32(const uint8_t *p) { float v; memcpy(&v, p, 4); return v; }
static float load_f16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return f16_to_f32(v); }
static float load_bf16(const uint8_t *p) { uint16_t v; memcpy(&v, p, 2); return bf16_to_f32(v); }

static void gemm_plain(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const uint8_t *w, int n_tiles,
                       int k, size_t bytes, float (*load)(const uint8_t *p))
{
    const size_t tile_bytes = ((size_t)k * TILE_N * bytes + 63) & ~(size_t)63;
    for (int t = 0; t < n_tiles; t++, w += tile_bytes)
        for (int r = row0; r < row1; r++)
            for (int c = 0; c < TILE_N; c++) {
                float acc = 0;
                for (int i = 0; i < k; i++)
                    acc = fmaf(x[(size_t)r * ldx + (size_t)i], load(w + ((size_t)i * TILE_N + (size_t)c) * bytes), acc);
                y[(size_t)r * ldy + (size_t)(t * TILE_N + c)] = acc;
            }
}

static void gemm_f32_scalar(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(y, ldy, x, ldx, row0, row1, w, n_tiles, k, 4, load_f32);
}
static void gemm_f16_scalar(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(y, ldy, x, ldx, row0, row1, w, n_tiles, k, 2, load_f16);
}
static void gemm_bf16_scalar(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(y, ldy, x, ldx, row0, row1, w, n_tiles, k, 2, load_bf16);
}

/* ---- rows */

/* What quantization takes a value for: NaN as 0, infinities as the largest number of their sign. */
static float clipped(float x) { return isnan(x) ? 0 : x > FLT_MAX ? FLT_MAX : x < -FLT_MAX ? -FLT_MAX : x; }

static void quantize_q8_scalar(struct q8rows *y, int row, const float *x)
{
    for (int b = 0; b < y->k / QBLOCK; b++, x += QBLOCK) {
        const size_t at = q8_index(y, row, b);
        float amax = 0;
        for (int i = 0; i < QBLOCK; i++) amax = max_of(fabsf(clipped(x[i])), amax);
        /* below 1e-30 the reciprocal nears infinity, and such a block adds nothing to any sum */
        const bool tiny = amax < 1e-30f;
        const float inv = tiny ? 0 : 127.0f / amax;
        int sum[2] = { 0 };             /* of either half */
        for (int i = 0; i < QBLOCK; i++) {
            const int q = (int)rintf(clipped(x[i]) * inv);               /* the default mode: to even */
            y->q[at * QBLOCK + (size_t)i] = (int8_t)(q > 127 ? 127 : q < -127 ? -127 : q);
            sum[i / 16] += y->q[at * QBLOCK + (size_t)i];
        }
        y->scale[at] = tiny ? 0 : amax / 127.0f;
        y->offset[at] = -8 * (sum[0] + sum[1]);
        for (size_t h = 0; h < 2; h++) y->halves[2 * at + h] = (int16_t)(-8 * sum[h]);
    }
}

static void rms_norm_scalar(float *y, const float *x, const float *w, int n, float eps)
{
    float sum[LANES] = { 0 };
    for (int i = 0; i < n; i++) sum[i % LANES] = fmaf(x[i], x[i], sum[i % LANES]);
    const float r = 1.0f / sqrtf(fold(sum) / (float)n + eps);
    for (int i = 0; i < n; i++) y[i] = (x[i] * r) * w[i];
}

static void rope_scalar(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i++) {
        const float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos[i], -(b * sin[i]));
        x[i + half] = fmaf(b, cos[i], a * sin[i]);
    }
}

static void swiglu_scalar(float *y, const float *gate, const float *up, int n)
{
    for (int i = 0; i < n; i++) y[i] = gate[i] / (1.0f + exp_of(-gate[i])) * up[i];
}

static void add_scalar(float *y, const float *x, int n)
{
    for (int i = 0; i < n; i++) y[i] += x[i];
}

/* ---- attention */

/* Scores of keys j0 .. j0+n-1 for query q; masked ones are -inf. */
static void scores(float *s, const struct attend_args *a, const float *q, int j0, int n)
{
    for (int j = 0; j < n; j++) {
        const float *k = a->k + (size_t)((j0 + j) / LANES) * (size_t)a->head_dim * LANES + (j0 + j) % LANES;
        float dot = 0;
        for (int d = 0; d < a->head_dim; d++) dot = fmaf(q[d], k[d * LANES], dot);
        s[j] = a->mask && !a->mask[j0 + j] ? -INFINITY : a->scale * dot;
    }
}

static void attend_row(float *y, const struct attend_args *a, const float *q, bool bf16)
{
    float m = -INFINITY, l[LANES] = { 0 }, acc[MAX_HEAD_DIM] = { 0 };
    for (int j0 = 0; j0 < a->n_keys; j0 += KEY_TILE) {
        const int n = a->n_keys - j0 < KEY_TILE ? a->n_keys - j0 : KEY_TILE;
        float s[KEY_TILE], m_new = m;
        scores(s, a, q, j0, n);
        for (int j = 0; j < n; j++) m_new = max_of(m_new, s[j]);
        if (m_new == -INFINITY) continue;                               /* no key so far */
        const float c = exp_or_0(bf16, m - m_new);
        for (int i = 0; i < LANES; i++) l[i] *= c;
        for (int d = 0; d < a->head_dim; d++) {
            acc[d] *= c;
            if (bf16 && c != 1 && fabsf(acc[d]) < SUM_LEAST) acc[d] = 0;
        }
        for (int j = 0; j < n; j++) {
            const float e = exp_or_0(bf16, s[j] - m_new), p = bf16 ? bf16_near(e) : e;
            const float *v = a->v + (size_t)(j0 + j) * (size_t)a->head_dim;
            l[j % LANES] += p;
            for (int d = 0; d < a->head_dim; d++) acc[d] = fmaf(p, v[d], acc[d]);
        }
        m = m_new;
    }
    const float sum = fold(l);
    for (int d = 0; d < a->head_dim; d++) y[d] = m == -INFINITY ? 0 : acc[d] / sum;
}

static void attend_scalar(const struct attend_args *a)
{
    for (int r = 0; r < a->n_rows; r++) attend_row(a->y + (size_t)r * a->ldy, a, a->q + (size_t)r * a->ldq, false);
}

static void attend_bf16_scalar(const struct attend_args *a)
{
    for (int r = 0; r < a->n_rows; r++) attend_row(a->y + (size_t)r * a->ldy, a, a->q + (size_t)r * a->ldq, true);
}

/* ---- logits */

static float argmax_scalar(const float *x, int n, int32_t *index)
{
    float best = -INFINITY;
    *index = -1;
    for (int i = 0; i < n; i++)
        if (x[i] > best) {
            best = x[i];
            *index = i;
        }
    return best;
}

static float sum_exp_scalar(const float *x, int n, float max, float *moment)
{
    float sum[LANES] = { 0 }, weighted[LANES] = { 0 };
    for (int i = 0; i < n; i++) {
        const float t = x[i] - max, e = exp_of(t);
        sum[i % LANES] += e;
        weighted[i % LANES] = fmaf(e, t > -128 ? t : -128, weighted[i % LANES]);
    }
    *moment = fold(weighted);
    return fold(sum);
}

static const struct gemm_float gemm_f32 = { gemm_f32_scalar }, gemm_f16 = { gemm_f16_scalar }, gemm_bf16 = { gemm_bf16_scalar };

const struct kernels kernels_scalar = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k,
    .gemm_f32 = &gemm_f32, .gemm_f16 = &gemm_f16, .gemm_bf16 = &gemm_bf16,
    .quantize_q8 = quantize_q8_scalar, .rms_norm = rms_norm_scalar, .rope = rope_scalar, .swiglu = swiglu_scalar,
    .add = add_scalar, .attend = attend_scalar, .attend_bf16 = attend_bf16_scalar, .argmax = argmax_scalar, .sum_exp = sum_exp_scalar,
};
