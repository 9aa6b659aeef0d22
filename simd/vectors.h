/* vectors.h - the few vector operations that the x86 kernels share, on the widest registers that a file is compiled for:
 * 8 lanes with AVX2, 16 with AVX-512. */
#ifndef VECTORS_H
#define VECTORS_H

#include <immintrin.h>
#include <string.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* Before a loop of constant length over arrays of registers: without it they live in memory. */
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

#ifdef __AVX512F__

typedef __m512i vint;
typedef __m512 vfloat;
enum { LANES_V = 16 };

INLINE vint load_v(const void *p) { return _mm512_loadu_si512(p); }
INLINE void store_v(void *p, vint v) { _mm512_storeu_si512(p, v); }
INLINE vint all_4(int32_t x) { return _mm512_set1_epi32(x); }
INLINE vint low_nibbles(vint v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE vint high_nibbles(vint v) { return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15)); }
INLINE vint flip_signs(vint v) { return _mm512_xor_si512(v, _mm512_set1_epi8(-128)); }
INLINE vfloat to_float(vint v) { return _mm512_cvtepi32_ps(v); }
INLINE vfloat load_f(const float *p) { return _mm512_loadu_ps(p); }
INLINE void store_f(float *p, vfloat v) { _mm512_storeu_ps(p, v); }
INLINE vfloat zero_f(void) { return _mm512_setzero_ps(); }
INLINE vfloat broadcast_f(float x) { return _mm512_set1_ps(x); }
INLINE vfloat mul_f(vfloat a, vfloat b) { return _mm512_mul_ps(a, b); }
INLINE vfloat fma_f(vfloat a, vfloat b, vfloat c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vfloat from_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }

#else

typedef __m256i vint;
typedef __m256 vfloat;
enum { LANES_V = 8 };

INLINE vint load_v(const void *p) { return _mm256_loadu_si256((const __m256i *)p); }
INLINE void store_v(void *p, vint v) { _mm256_storeu_si256((__m256i *)p, v); }
INLINE vint all_4(int32_t x) { return _mm256_set1_epi32(x); }
INLINE vint low_nibbles(vint v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE vint high_nibbles(vint v) { return _mm256_and_si256(_mm256_srli_epi16(v, 4), _mm256_set1_epi8(15)); }
INLINE vint flip_signs(vint v) { return _mm256_xor_si256(v, _mm256_set1_epi8(-128)); }
INLINE vfloat to_float(vint v) { return _mm256_cvtepi32_ps(v); }
INLINE vfloat load_f(const float *p) { return _mm256_loadu_ps(p); }
INLINE void store_f(float *p, vfloat v) { _mm256_storeu_ps(p, v); }
INLINE vfloat zero_f(void) { return _mm256_setzero_ps(); }
INLINE vfloat broadcast_f(float x) { return _mm256_set1_ps(x); }
INLINE vfloat mul_f(vfloat a, vfloat b) { return _mm256_mul_ps(a, b); }
INLINE vfloat fma_f(vfloat a, vfloat b, vfloat c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vfloat from_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }

#endif

/* Four bytes to every lane. */
INLINE vint broadcast_4(const void *p) { int32_t v; memcpy(&v, p, 4); return all_4(v); }

#endif
