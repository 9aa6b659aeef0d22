/* vectors.h - the few vector operations that the x86 kernels share, on the widest registers that a file is compiled for:
 * 8 lanes with AVX2, 16 with AVX-512 unless the file that includes this one defines VECTORS_OF_256_BITS first. */
#ifndef VECTORS_H
#define VECTORS_H

#include <immintrin.h>
#include <sleef.h>
#include <string.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* Before a loop of constant length over arrays of registers: without it they live in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

/* All ones in the lanes below n, for the end of a row. */
INLINE __m256i lanes_below(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

INLINE float largest_8(__m256 a)
{
    const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

/* 16 running sums to one, in the order of kernels.h: 16 -> 8 -> 4 -> 2 -> 1. */
INLINE float fold(const float *sums)
{
    const __m256 s8 = _mm256_add_ps(_mm256_loadu_ps(sums), _mm256_loadu_ps(sums + 8));
    const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}

#if defined __AVX512F__ && !defined VECTORS_OF_256_BITS

typedef __m512i vint;
typedef __m512 vfloat;
#define LANES_V 16

INLINE vint load_v(const void *p) { return _mm512_loadu_si512(p); }
INLINE void store_v(void *p, vint v) { _mm512_storeu_si512(p, v); }
INLINE vint all_4(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vint low_nibbles(vint v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE vint high_nibbles(vint v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
INLINE vint or_v(vint a, vint b) { return _mm512_or_si512(a, b); }
/* Bits 2t+1 and 2t of every byte to bits 5 and 4. */
INLINE vint bits_5_4(vint v, const int t)
{
    return _mm512_and_si512(t < 2 ? _mm512_slli_epi16(v, 4 - 2 * t) : _mm512_srli_epi16(v, 2 * t - 4), _mm512_set1_epi8(0x30));
}
INLINE vint madd_16(vint a, vint b) { return _mm512_madd_epi16(a, b); }
INLINE vint from_i8(const void *p) { return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p)); }     /* to 16 bits */
INLINE vint times_16(vint v) { return _mm512_slli_epi32(v, 4); }
INLINE vint low_halves(vint pairs) { return _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16); }    /* signed 16-bit numbers to 32 bits */
INLINE vint high_halves(vint pairs) { return _mm512_srai_epi32(pairs, 16); }
INLINE vint flip_signs(vint v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
INLINE vfloat to_float(vint v) { return _mm512_cvtepi32_ps(v); }
INLINE vfloat load_f(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store_f(float *p, vfloat v) { _mm512_storeu_ps(p, v); }
INLINE vfloat zero_f(void) { return _mm512_setzero_ps(); }
INLINE vfloat broadcast_f(float x) { return _mm512_set1_ps(x); }
INLINE vfloat mul_f(vfloat a, vfloat b) { return _mm512_mul_ps(a, b); }
INLINE vfloat fma_f(vfloat a, vfloat b, vfloat c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vfloat from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
INLINE vfloat from_u8(const void *p) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p))); }
INLINE vfloat from_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
INLINE vfloat add_f(vfloat a, vfloat b) { return _mm512_add_ps(a, b); }
INLINE vfloat sub_f(vfloat a, vfloat b) { return _mm512_sub_ps(a, b); }
INLINE vfloat div_f(vfloat a, vfloat b) { return _mm512_div_ps(a, b); }
INLINE vfloat max_f(vfloat a, vfloat b) { return _mm512_max_ps(a, b); }
INLINE vfloat exp_f(vfloat a) { return Sleef_finz_expf16_u10avx512f(a); }
INLINE vfloat zero_below(float least, vfloat x, vfloat v)       /* v where x >= least */
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, broadcast_f(least), _CMP_NLT_UQ), v);
}
INLINE vfloat zero_small(float least, vfloat v)         /* v where |v| >= least */
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(_mm512_abs_ps(v), broadcast_f(least), _CMP_NLT_UQ), v);
}
INLINE vint bits_f(vfloat v) { return _mm512_castps_si512(v); }
INLINE vfloat float_of(vint bits) { return _mm512_castsi512_ps(bits); }
INLINE vint add_4(vint a, vint b) { return _mm512_add_epi32(a, b); }
INLINE vint and_v(vint a, vint b) { return _mm512_and_si512(a, b); }
INLINE vint upper_half(vint v) { return _mm512_srli_epi32(v, 16); }
INLINE vfloat negate_f(vfloat a) { return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32(INT32_MIN))); }
/* a where the mask is all ones, b where it is 0 */
INLINE vfloat choose(vint mask, vfloat a, vfloat b) { return _mm512_mask_blend_ps(_mm512_test_epi32_mask(mask, mask), b, a); }
/* The first n lanes, 1 <= n <= LANES_V; the others are 0, or stay as they are in memory. */
INLINE vfloat load_lanes(const float *p, int n) { return _mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p); }
INLINE void store_lanes(float *p, vfloat v, int n) { _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), v); }
INLINE float largest(vfloat a)
{
    const __m256 high = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a), 1));
    return largest_8(_mm256_max_ps(_mm512_castps512_ps256(a), high));
}

#else

typedef __m256i vint;
typedef __m256 vfloat;
#define LANES_V 8

INLINE vint load_v(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store_v(void *p, vint v) { _mm256_storeu_si256((__m256i *)p, v); }
INLINE vint all_4(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vint low_nibbles(vint v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE vint high_nibbles(vint v) { return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15)); }
INLINE vint or_v(vint a, vint b) { return _mm256_or_si256(a, b); }
/* Bits 2t+1 and 2t of every byte to bits 5 and 4. */
INLINE vint bits_5_4(vint v, const int t)
{
    return _mm256_and_si256(t < 2 ? _mm256_slli_epi16(v, 4 - 2 * t) : _mm256_srli_epi16(v, 2 * t - 4), _mm256_set1_epi8(0x30));
}
INLINE vint madd_16(vint a, vint b) { return _mm256_madd_epi16(a, b); }
INLINE vint from_i8(const void *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)); }        /* to 16 bits */
INLINE vint times_16(vint v) { return _mm256_slli_epi32(v, 4); }
INLINE vint low_halves(vint pairs) { return _mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16); }    /* signed 16-bit numbers to 32 bits */
INLINE vint high_halves(vint pairs) { return _mm256_srai_epi32(pairs, 16); }
INLINE vint flip_signs(vint v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
INLINE vfloat to_float(vint v) { return _mm256_cvtepi32_ps(v); }
INLINE vfloat load_f(const float *p) { return _mm256_loadu_ps(p); }
INLINE void store_f(float *p, vfloat v) { _mm256_storeu_ps(p, v); }
INLINE vfloat zero_f(void) { return _mm256_setzero_ps(); }
INLINE vfloat broadcast_f(float x) { return _mm256_set1_ps(x); }
INLINE vfloat mul_f(vfloat a, vfloat b) { return _mm256_mul_ps(a, b); }
INLINE vfloat fma_f(vfloat a, vfloat b, vfloat c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vfloat from_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
INLINE vfloat from_u8(const void *p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadu_si64(p))); }
INLINE vfloat from_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
INLINE vfloat add_f(vfloat a, vfloat b) { return _mm256_add_ps(a, b); }
INLINE vfloat sub_f(vfloat a, vfloat b) { return _mm256_sub_ps(a, b); }
INLINE vfloat div_f(vfloat a, vfloat b) { return _mm256_div_ps(a, b); }
INLINE vfloat max_f(vfloat a, vfloat b) { return _mm256_max_ps(a, b); }
INLINE vfloat exp_f(vfloat a) { return Sleef_finz_expf8_u10avx2(a); }
INLINE vfloat zero_below(float least, vfloat x, vfloat v) { return _mm256_and_ps(v, _mm256_cmp_ps(x, broadcast_f(least), _CMP_NLT_UQ)); }
INLINE vfloat zero_small(float least, vfloat v)         /* v where |v| >= least */
{
    return _mm256_and_ps(v, _mm256_cmp_ps(_mm256_andnot_ps(_mm256_set1_ps(-0.0f), v), broadcast_f(least), _CMP_NLT_UQ));
}
INLINE vint bits_f(vfloat v) { return _mm256_castps_si256(v); }
INLINE vfloat float_of(vint bits) { return _mm256_castsi256_ps(bits); }
INLINE vint add_4(vint a, vint b) { return _mm256_add_epi32(a, b); }
INLINE vint and_v(vint a, vint b) { return _mm256_and_si256(a, b); }
INLINE vint upper_half(vint v) { return _mm256_srli_epi32(v, 16); }
INLINE vfloat negate_f(vfloat a) { return _mm256_xor_ps(a, _mm256_set1_ps(-0.0f)); }
INLINE vfloat choose(vint mask, vfloat a, vfloat b) { return _mm256_blendv_ps(b, a, _mm256_castsi256_ps(mask)); }
INLINE vfloat load_lanes(const float *p, int n) { return n == LANES_V ? load_f(p) : _mm256_maskload_ps(p, lanes_below(n)); }
INLINE void store_lanes(float *p, vfloat v, int n)
{
    if (n == LANES_V) store_f(p, v);
    else _mm256_maskstore_ps(p, lanes_below(n), v);
}
INLINE float largest(vfloat a) { return largest_8(a); }

#endif

/* kernels.h: e(a) of attend.  exp() sees nothing below EXP_LEAST, where its own steps would be subnormal and slow. */
INLINE vfloat exp_or_0(const float least, vfloat a) { return zero_below(least, a, exp_f(max_f(a, broadcast_f(least)))); }

/* kernels.h: bf16_near() of numbers that are 0 or not below BF16_LEAST. */
INLINE vfloat bf16_near_v(vfloat v) { return float_of(and_v(add_4(bits_f(v), all_4(0x8000)), all_4((int32_t)0xffff0000))); }

/* Four bytes to every lane. */
INLINE vint broadcast_4(const void *p) { int32_t v; memcpy(&v, p, 4); return all_4(v); }

#endif
