/* avx2.c - kernels for AVX2 with FMA and F16C (x86-64-v3).  Contracts: kernels.h. */
#include <float.h>
#include <immintrin.h>
#include <math.h>
#include <sleef.h>
#include <stdbool.h>
#include <string.h>

#include "kernels.h"
#include "vectors.h"

/* All ones in the lanes below n, for the end of a row. */
INLINE __m256i lanes_below(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* 16 running sums to one, in the order of kernels.h: 16 -> 8 -> 4 -> 2 -> 1. */
INLINE float fold(__m256 low, __m256 high)
{
    const __m256 s8 = _mm256_add_ps(low, high);
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

INLINE float largest(__m256 a)
{
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/* ---- matrix products over blocks of 32 */

/* Nibbles: eight products with an activation (at most 15 * 127), in pairs, stay below 2^15, so that one widening addition
 * serves a whole block.
 * Bytes: vpmaddubsw wants one unsigned side: |w| (at most 128) times x with w's sign.  Two such products stay below 2^15;
 * the sign goes to x because x is never -128. */
INLINE vint q8_weights(vint w) { return w; }
INLINE vint dot_start(const bool bytes, int32_t offset) { (void)bytes, (void)offset; return _mm256_setzero_si256(); }
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    if (bytes) {
        const vint pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    } else {
        sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(w, x));
    }
    __asm__("" : "+x"(sum));                            /* else gcc 12 puts the additions off and spills every product */
    return sum;
}
INLINE vint dot_end(const bool bytes, vint sum, int32_t offset)
{
    return bytes ? sum : _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), all_4(offset));
}

#include "gemm_x86.h"

static void gemm_q4_avx2(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)
{
    gemm_blocks(NIBBLES, y, ldy, x, row0, row1, w, n_tiles);
}

static void gemm_q8_avx2(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)
{
    gemm_blocks(BYTES, y, ldy, x, row0, row1, w, n_tiles);
}

double int8_peak_avx2(long rounds);
double int8_peak_avx2(long rounds) { return dot_peak(rounds); }

/* ---- matrix products over plain numbers: ROWS rows x 16 channels, all sums in registers */

enum plain { F32, F16, BF16 };

INLINE __m256 load_plain(const enum plain type, const uint8_t *w, size_t i)
{
    if (type == F32) return _mm256_loadu_ps((const float *)(const void *)(w + 4 * i));
    const __m128i half = _mm_loadu_si128((const __m128i *)(w + 2 * i));
    return type == F16 ? _mm256_cvtph_ps(half) : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

INLINE void plain_rows_by_tile(const int ROWS, const enum plain type, float *y, size_t ldy, const float *x, size_t ldx, const uint8_t *w, int k)
{
    __m256 acc[6][2];
UNROLL
    for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = _mm256_setzero_ps();
    for (size_t i = 0; i < (size_t)k; i++) {
        const __m256 w0 = load_plain(type, w, i * TILE_N), w1 = load_plain(type, w, i * TILE_N + 8);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const __m256 a = _mm256_broadcast_ss(x + (size_t)r * ldx + i);
            acc[r][0] = _mm256_fmadd_ps(a, w0, acc[r][0]);
            acc[r][1] = _mm256_fmadd_ps(a, w1, acc[r][1]);
        }
    }
UNROLL
    for (int r = 0; r < ROWS; r++) {
        _mm256_storeu_ps(y + (size_t)r * ldy, acc[r][0]);
        _mm256_storeu_ps(y + (size_t)r * ldy + 8, acc[r][1]);
    }
}

INLINE void gemm_plain(const enum plain type, float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const uint8_t *w, int n_tiles, int k)
{
    const size_t tile_bytes = ((size_t)k * TILE_N * (type == F32 ? 4 : 2) + 63) & ~(size_t)63;
    for (int t = 0; t < n_tiles; t++, w += tile_bytes, y += TILE_N)
        for (int r = row0; r < row1; ) {
            const int left = row1 - r;
            float *yr = y + (size_t)r * ldy;
            const float *xr = x + (size_t)r * ldx;
            switch (left) {
            case 1:  plain_rows_by_tile(1, type, yr, ldy, xr, ldx, w, k); r += 1; break;
            case 2:  plain_rows_by_tile(2, type, yr, ldy, xr, ldx, w, k); r += 2; break;
            case 3:  plain_rows_by_tile(3, type, yr, ldy, xr, ldx, w, k); r += 3; break;
            case 4:
            case 8:  plain_rows_by_tile(4, type, yr, ldy, xr, ldx, w, k); r += 4; break;
            case 5:  plain_rows_by_tile(5, type, yr, ldy, xr, ldx, w, k); r += 5; break;
            default: plain_rows_by_tile(6, type, yr, ldy, xr, ldx, w, k); r += 6; break;
            }
        }
}

static void gemm_f32_avx2(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(F32, y, ldy, x, ldx, row0, row1, w, n_tiles, k);
}
static void gemm_f16_avx2(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(F16, y, ldy, x, ldx, row0, row1, w, n_tiles, k);
}
static void gemm_bf16_avx2(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(BF16, y, ldy, x, ldx, row0, row1, w, n_tiles, k);
}

/* ---- rows */

/* -8 times the sum of 32 int8: as unsigned bytes 128 higher, which vpsadbw adds up. */
INLINE int32_t offset_of(__m256i q)
{
    const __m256i s4 = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    const __m128i s2 = _mm_add_epi32(_mm256_castsi256_si128(s4), _mm256_extracti128_si256(s4, 1));
    return -8 * (_mm_cvtsi128_si32(_mm_add_epi32(s2, _mm_unpackhi_epi64(s2, s2))) - 128 * QBLOCK);
}

static void quantize_q8_avx2(struct q8rows *y, int row, const float *x)
{
    const __m256 sign = _mm256_set1_ps(-0.0f), top = _mm256_set1_ps(FLT_MAX);
    for (int b = 0; b < y->k / QBLOCK; b++, x += QBLOCK) {
        const size_t at = q8_index(y, row, b);
        __m256 v[4], amax4 = _mm256_setzero_ps();
        for (int i = 0; i < 4; i++) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            v[i] = _mm256_and_ps(v[i], _mm256_cmp_ps(v[i], v[i], _CMP_ORD_Q));          /* NaN counts as 0 */
            v[i] = _mm256_max_ps(_mm256_min_ps(v[i], top), _mm256_xor_ps(top, sign));
            amax4 = _mm256_max_ps(amax4, _mm256_andnot_ps(sign, v[i]));
        }
        const float amax = largest(amax4);
        const bool tiny = amax < 1e-30f;
        const __m256 inv = _mm256_set1_ps(tiny ? 0 : 127.0f / amax);
        __m256i n[4];
        for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv));
        const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
        const __m256i q = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(y->q + at * QBLOCK), q);
        y->scale[at] = tiny ? 0 : amax / 127.0f;
        y->offset[at] = offset_of(q);
    }
}

static void rms_norm_avx2(float *y, const float *x, const float *w, int n, float eps)
{
    __m256 sum[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    int i = 0;
    for (; i + 16 <= n; i += 16)
        for (int h = 0; h < 2; h++) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * h);
            sum[h] = _mm256_fmadd_ps(v, v, sum[h]);
        }
    for (int h = 0; i + 8 * h < n; h++) {                               /* absent lanes add 0 * 0 */
        const __m256 v = _mm256_maskload_ps(x + i + 8 * h, lanes_below(n - i - 8 * h));
        sum[h] = _mm256_fmadd_ps(v, v, sum[h]);
    }
    const float r = 1.0f / sqrtf(fold(sum[0], sum[1]) / (float)n + eps);
    const __m256 r8 = _mm256_set1_ps(r);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), r8), _mm256_loadu_ps(w + i)));
    for (; i < n; i++) y[i] = (x[i] * r) * w[i];
}

static void rope_avx2(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i += 8) {
        const __m256i live = lanes_below(half - i);
        const __m256 a = _mm256_maskload_ps(x + i, live), b = _mm256_maskload_ps(x + half + i, live);
        const __m256 c = _mm256_maskload_ps(cos + i, live), s = _mm256_maskload_ps(sin + i, live);
        _mm256_maskstore_ps(x + i, live, _mm256_fmsub_ps(a, c, _mm256_mul_ps(b, s)));
        _mm256_maskstore_ps(x + half + i, live, _mm256_fmadd_ps(b, c, _mm256_mul_ps(a, s)));
    }
}

INLINE __m256 swiglu8(__m256 gate, __m256 up)
{
    const __m256 e = Sleef_finz_expf8_u10avx2(_mm256_xor_ps(gate, _mm256_set1_ps(-0.0f)));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(_mm256_set1_ps(1.0f), e)), up);
}

static void swiglu_avx2(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, swiglu8(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i == n) return;
    const __m256i live = lanes_below(n - i);
    _mm256_maskstore_ps(y + i, live, swiglu8(_mm256_maskload_ps(gate + i, live), _mm256_maskload_ps(up + i, live)));
}

static void add_avx2(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

/* ---- attention: ROWS query rows pass over the keys together, so that each key and value is loaded once for all */

enum { ATTEND_ROWS = 4, MAX_DIM = 256 };

struct attend_state {
    float s[ATTEND_ROWS][KEY_TILE];             /* scores, then probabilities, of one tile */
    float acc[ATTEND_ROWS][MAX_DIM], l[ATTEND_ROWS][LANES], m[ATTEND_ROWS], c[ATTEND_ROWS];
};

/* s = scale * q k for n keys from j0 on; -inf for masked and absent ones up to the end of the tile. */
INLINE void score_tile(const int ROWS, struct attend_state *st, const struct attend_args *a, int row, int j0, int n)
{
    const float *k = a->k + (size_t)(j0 / LANES) * (size_t)a->head_dim * LANES;
    for (int j = 0; j < KEY_TILE; j += LANES, k += (size_t)a->head_dim * LANES) {
        __m256 dot[ATTEND_ROWS][2];
UNROLL
        for (int r = 0; r < ROWS; r++) dot[r][0] = dot[r][1] = _mm256_setzero_ps();
        for (int d = 0; j < n && d < a->head_dim; d++) {
            const __m256 k0 = _mm256_loadu_ps(k + (size_t)d * LANES), k1 = _mm256_loadu_ps(k + (size_t)d * LANES + 8);
UNROLL
            for (int r = 0; r < ROWS; r++) {
                const __m256 q = _mm256_broadcast_ss(a->q + (size_t)(row + r) * a->ldq + d);
                dot[r][0] = _mm256_fmadd_ps(q, k0, dot[r][0]);
                dot[r][1] = _mm256_fmadd_ps(q, k1, dot[r][1]);
            }
        }
        const __m256 scale = _mm256_set1_ps(a->scale);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            _mm256_storeu_ps(st->s[r] + j, _mm256_mul_ps(scale, dot[r][0]));
            _mm256_storeu_ps(st->s[r] + j + 8, _mm256_mul_ps(scale, dot[r][1]));
        }
    }
    if (!a->mask && n == KEY_TILE) return;
    uint8_t attended[KEY_TILE] = { 0 };
    if (a->mask) memcpy(attended, a->mask + j0, (size_t)n);
    else memset(attended, 1, (size_t)n);
    for (int j = 0; j < KEY_TILE; j += 8) {
        const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(attended + j)));
        const __m256 out = _mm256_castsi256_ps(_mm256_cmpeq_epi32(bytes, _mm256_setzero_si256()));
        for (int r = 0; r < ROWS; r++)
            _mm256_storeu_ps(st->s[r] + j, _mm256_blendv_ps(_mm256_loadu_ps(st->s[r] + j), _mm256_set1_ps(-INFINITY), out));
    }
}

/* Running maximum, exp and running sums of one row; false if no key was attended so far. */
INLINE bool softmax_tile(struct attend_state *st, int r)
{
    float *s = st->s[r], *l = st->l[r];
    __m256 max = _mm256_loadu_ps(s);
    for (int j = 8; j < KEY_TILE; j += 8) max = _mm256_max_ps(max, _mm256_loadu_ps(s + j));
    const float tile_max = largest(max), m = st->m[r] > tile_max ? st->m[r] : tile_max;
    if (m == -INFINITY) return false;
    st->c[r] = _mm256_cvtss_f32(Sleef_finz_expf8_u10avx2(_mm256_set1_ps(st->m[r] - m)));
    st->m[r] = m;
    for (int i = 0; i < LANES; i++) l[i] *= st->c[r];
    for (int j = 0; j < KEY_TILE; j += 8) {
        const __m256 p = Sleef_finz_expf8_u10avx2(_mm256_sub_ps(_mm256_loadu_ps(s + j), _mm256_set1_ps(m)));
        _mm256_storeu_ps(s + j, p);
        _mm256_storeu_ps(l + j % LANES, _mm256_add_ps(_mm256_loadu_ps(l + j % LANES), p));
    }
    return true;
}

/* acc = acc * c + p v over n values from v on, for VECTORS * 8 elements of the head. */
INLINE void value_tile(const int ROWS, const int VECTORS, struct attend_state *st, const float *v, size_t dim, size_t d, int n)
{
    __m256 acc[ATTEND_ROWS][2];
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < VECTORS; i++)
            acc[r][i] = _mm256_mul_ps(_mm256_loadu_ps(st->acc[r] + d + 8 * i), _mm256_set1_ps(st->c[r]));
    for (int j = 0; j < n; j++) {
        __m256 v2[2];
UNROLL
        for (int i = 0; i < VECTORS; i++) v2[i] = _mm256_loadu_ps(v + (size_t)j * dim + d + 8 * i);
UNROLL
        for (int r = 0; r < ROWS; r++)
UNROLL
            for (int i = 0; i < VECTORS; i++) acc[r][i] = _mm256_fmadd_ps(_mm256_broadcast_ss(st->s[r] + j), v2[i], acc[r][i]);
    }
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < VECTORS; i++) _mm256_storeu_ps(st->acc[r] + d + 8 * i, acc[r][i]);
}

INLINE void attend_rows(const int ROWS, const struct attend_args *a, int row)
{
    struct attend_state st;
    const size_t dim = (size_t)a->head_dim;
    memset(st.acc, 0, sizeof st.acc);
    memset(st.l, 0, sizeof st.l);
    for (int r = 0; r < ROWS; r++) st.m[r] = -INFINITY;
    for (int j0 = 0; j0 < a->n_keys; j0 += KEY_TILE) {
        const int n = a->n_keys - j0 < KEY_TILE ? a->n_keys - j0 : KEY_TILE;
        bool any = true;
        score_tile(ROWS, &st, a, row, j0, n);
        for (int r = 0; r < ROWS; r++) any &= softmax_tile(&st, r);
        if (!any) continue;                             /* the mask is common to all rows, so they are all without keys */
        const float *v = a->v + (size_t)j0 * dim;
        size_t d = 0;
        for (; d + 16 <= dim; d += 16) value_tile(ROWS, 2, &st, v, dim, d, n);
        if (d < dim) value_tile(ROWS, 1, &st, v, dim, d, n);
    }
    for (int r = 0; r < ROWS; r++) {
        const __m256 sum = _mm256_set1_ps(fold(_mm256_loadu_ps(st.l[r]), _mm256_loadu_ps(st.l[r] + 8)));
        for (size_t d = 0; d < dim; d += 8)
            _mm256_storeu_ps(a->y + (size_t)(row + r) * a->ldy + d,
                             st.m[r] == -INFINITY ? _mm256_setzero_ps() : _mm256_div_ps(_mm256_loadu_ps(st.acc[r] + d), sum));
    }
}

static void attend_avx2(const struct attend_args *a)
{
    int row = 0;
    for (; row + ATTEND_ROWS <= a->n_rows; row += ATTEND_ROWS) attend_rows(ATTEND_ROWS, a, row);
    for (; row < a->n_rows; row++) attend_rows(1, a, row);
}

/* ---- logits */

/* The largest value first, then the first place that has it. */
static float argmax_avx2(const float *x, int n, int32_t *index)
{
    const __m256 lowest = _mm256_set1_ps(-INFINITY);
    __m256 max[2] = { lowest, lowest };
    int i = 0;
    for (; i + 16 <= n; i += 16)                        /* max_ps(NaN, m) is m */
        for (int h = 0; h < 2; h++) max[h] = _mm256_max_ps(_mm256_loadu_ps(x + i + 8 * h), max[h]);
    float best = largest(_mm256_max_ps(max[0], max[1]));
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    *index = -1;
    if (best == -INFINITY) return best;
    const __m256 best8 = _mm256_set1_ps(best);
    i = 0;
    while (i + 8 <= n && !_mm256_movemask_ps(_mm256_cmp_ps(_mm256_loadu_ps(x + i), best8, _CMP_EQ_OQ))) i += 8;
    while (x[i] != best) i++;
    *index = i;
    return x[i];                                        /* not best: that may be a zero of the other sign */
}

static float sum_exp_avx2(const float *x, int n, float max)
{
    const __m256 max8 = _mm256_set1_ps(max);
    __m256 sum[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    for (int i = 0; i < n; i += 8) {
        const __m256i live = lanes_below(n - i);
        const __m256 e = Sleef_finz_expf8_u10avx2(_mm256_sub_ps(_mm256_maskload_ps(x + i, live), max8));
        sum[i / 8 % 2] = _mm256_add_ps(sum[i / 8 % 2], _mm256_and_ps(e, _mm256_castsi256_ps(live)));
    }
    return fold(sum[0], sum[1]);
}

static const struct gemm_int8 gemm_q4 = { gemm_q4_avx2 }, gemm_q8 = { gemm_q8_avx2 };
static const struct gemm_float gemm_f32 = { gemm_f32_avx2 }, gemm_f16 = { gemm_f16_avx2 }, gemm_bf16 = { gemm_bf16_avx2 };

const struct kernels kernels_avx2 = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_f32 = &gemm_f32, .gemm_f16 = &gemm_f16, .gemm_bf16 = &gemm_bf16,
    .quantize_q8 = quantize_q8_avx2, .rms_norm = rms_norm_avx2, .rope = rope_avx2, .swiglu = swiglu_avx2,
    .add = add_avx2, .attend = attend_avx2, .argmax = argmax_avx2, .sum_exp = sum_exp_avx2,
};
