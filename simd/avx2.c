/* avx2.c - kernels for AVX2 with FMA and F16C (x86-64-v3).  Contracts: kernels.h. */
#include <float.h>
#include <immintrin.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>

#include "kernels.h"
#include "vectors.h"

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
INLINE vfloat sum_to_float(vint sum) { return to_float(sum); }
enum { Q4_PANEL = 12, Q8_PANEL = INT_MAX, Q4K_PANEL = 12, Q6K_PANEL = 12, PACKED_CHUNK = 32 };

/* Codes of Q6_K: four products (at most 63 * 127), in two pairs, stay below 2^15; pairs times their scale are one widening
 * multiplication. */
enum { QUADS_6 = 2 };
typedef vint sum_6;
struct scales_6 { vint half[2], both; };        /* both: 4 times, as pairs */
INLINE struct scales_6 scales_6_of(vint pairs)
{
    return (struct scales_6){ { _mm256_blend_epi16(pairs, _mm256_slli_epi32(pairs, 16), 0xAA),
                                _mm256_blend_epi16(pairs, _mm256_srli_epi32(pairs, 16), 0x55) },
                              _mm256_slli_epi16(pairs, 2) };
}
INLINE sum_6 start_6(const int16_t *offsets, const struct scales_6 *s) { return _mm256_madd_epi16(broadcast_4(offsets), s->both); }
INLINE sum_6 dot_6(const int half, sum_6 sum, const vint w[QUADS_6], const vint x[QUADS_6],
                   const int16_t *offsets, const struct scales_6 *s)
{
    (void)offsets;
    const vint pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]));
    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, s->half[half]));
    __asm__("" : "+x"(sum));
    return sum;
}
INLINE vfloat end_6(sum_6 sum) { return to_float(sum); }

#include "attend_x86.h"
#include "gemm_x86.h"
#include "plain_x86.h"
#include "rows_x86.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

double int8_peak_avx2(long rounds);
double int8_peak_avx2(long rounds) { return dot_peak(rounds); }

/* ---- kernels whose loops all x86 sets share */

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

/* -8 times the sum of the first 16 of 32 int8 in lane 0, of the others in lane 1: as unsigned bytes 128 higher, which
 * vpsadbw adds up. */
INLINE __m128i offsets_of(__m256i q)
{
    const __m256i s4 = _mm256_sad_epu8(_mm256_xor_si256(q, _mm256_set1_epi8(-128)), _mm256_setzero_si256());
    const __m128i low = _mm256_castsi256_si128(s4), high = _mm256_extracti128_si256(s4, 1);
    const __m128i s2 = _mm_add_epi32(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
    return _mm_slli_epi32(_mm_sub_epi32(_mm_set1_epi32(128 * 16), _mm_shuffle_epi32(s2, _MM_SHUFFLE(3, 1, 2, 0))), 3);
}

/* In every lane the largest size of its four numbers; where one is not finite, it is larger than FLT_MAX as an integer. */
INLINE __m256i sizes_of(const __m256 v[4])
{
    __m256i size = _mm256_setzero_si256();
UNROLL
    for (int i = 0; i < 4; i++) size = _mm256_max_epi32(size, _mm256_and_si256(_mm256_castps_si256(v[i]), all_4(INT32_MAX)));
    return size;
}

/* NaN to 0, infinities to the largest number of their sign. */
INLINE void make_finite(__m256 v[4])
{
    const __m256 top = _mm256_set1_ps(FLT_MAX);
UNROLL
    for (int i = 0; i < 4; i++) {
        v[i] = _mm256_and_ps(v[i], _mm256_cmp_ps(v[i], v[i], _CMP_ORD_Q));
        v[i] = _mm256_max_ps(_mm256_min_ps(v[i], top), negate_f(top));
    }
}

static void quantize_q8_avx2(struct q8rows *y, int row, const float *x)
{
    for (int b = 0; b < y->k / QBLOCK; b++, x += QBLOCK) {
        const size_t at = q8_index(y, row, b);
        __m256 v[4];
UNROLL
        for (int i = 0; i < 4; i++) v[i] = _mm256_loadu_ps(x + 8 * i);
        __m256i sizes = sizes_of(v);
        if (_mm256_movemask_epi8(_mm256_cmpgt_epi32(sizes, _mm256_castps_si256(_mm256_set1_ps(FLT_MAX))))) {
            make_finite(v);
            sizes = sizes_of(v);
        }
        const float amax = largest(_mm256_castsi256_ps(sizes));
        const bool tiny = amax < 1e-30f;
        const __m256 inv = _mm256_set1_ps(tiny ? 0 : 127.0f / amax);
        __m256i n[4];
UNROLL
        for (int i = 0; i < 4; i++) n[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], inv));
        const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
        const __m256i q = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
        _mm256_storeu_si256((__m256i *)(y->q + at * QBLOCK), q);
        y->scale[at] = tiny ? 0 : amax / 127.0f;
        const __m128i offsets = offsets_of(q);
        y->offset[at] = _mm_cvtsi128_si32(offsets) + _mm_extract_epi32(offsets, 1);
        _mm_storeu_si32(y->halves + 2 * at, _mm_packs_epi32(offsets, offsets));
    }
}

static void rms_norm_avx2(float *y, const float *x, const float *w, int n, float eps)
{
    __m256 sum[2] = { _mm256_setzero_ps(), _mm256_setzero_ps() };
    int i = 0;
    for (; i + 16 <= n; i += 16)
UNROLL
        for (int h = 0; h < 2; h++) {
            const __m256 v = _mm256_loadu_ps(x + i + 8 * h);
            sum[h] = _mm256_fmadd_ps(v, v, sum[h]);
        }
    for (int h = 0; i + 8 * h < n; h++) {                               /* absent lanes add 0 * 0 */
        const __m256 v = _mm256_maskload_ps(x + i + 8 * h, lanes_below(n - i - 8 * h));
        sum[h] = _mm256_fmadd_ps(v, v, sum[h]);
    }
    float sums[LANES];
    _mm256_storeu_ps(sums, sum[0]);
    _mm256_storeu_ps(sums + 8, sum[1]);
    const float r = 1.0f / sqrtf(fold(sums) / (float)n + eps);
    const __m256 r8 = _mm256_set1_ps(r);
    for (i = 0; i + 8 <= n; i += 8)
        _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_mul_ps(_mm256_loadu_ps(x + i), r8), _mm256_loadu_ps(w + i)));
    for (; i < n; i++) y[i] = (x[i] * r) * w[i];
}

static void rope_avx2(float *x, const float *cos, const float *sin, int half)
{
    for (int i = 0; i < half; i += LANES_V) {
        const int n = half - i < LANES_V ? half - i : LANES_V;
        const vfloat a = load_lanes(x + i, n), b = load_lanes(x + half + i, n), c = load_lanes(cos + i, n), s = load_lanes(sin + i, n);
        store_lanes(x + i, _mm256_fmsub_ps(a, c, mul_f(b, s)), n);
        store_lanes(x + half + i, fma_f(b, c, mul_f(a, s)), n);
    }
}

static void swiglu_avx2(float *y, const float *gate, const float *up, int n) { swiglu_row(y, gate, up, n); }

static void add_avx2(float *y, const float *x, int n)
{
    int i = 0;
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_add_ps(_mm256_loadu_ps(y + i), _mm256_loadu_ps(x + i)));
    for (; i < n; i++) y[i] += x[i];
}

static void attend_avx2(const struct attend_args *a) { attend_rows(FLOAT32, a); }
static void attend_bf16_avx2(const struct attend_args *a) { attend_rows(SINGLES, a); }

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

static float sum_exp_avx2(const float *x, int n, float max, float *moment) { return sum_exp_row(x, n, max, moment); }

static const struct gemm_float gemm_f32 = { gemm_f32_avx2 }, gemm_f16 = { gemm_f16_avx2 }, gemm_bf16 = { gemm_bf16_avx2 };

const struct kernels kernels_avx2 = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k,
    .gemm_f32 = &gemm_f32, .gemm_f16 = &gemm_f16, .gemm_bf16 = &gemm_bf16,
    .quantize_q8 = quantize_q8_avx2, .rms_norm = rms_norm_avx2, .rope = rope_avx2, .swiglu = swiglu_avx2,
    .add = add_avx2, .attend = attend_avx2, .attend_bf16 = attend_bf16_avx2, .argmax = argmax_avx2, .sum_exp = sum_exp_avx2,
};
