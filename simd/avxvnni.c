/* avxvnni.c - matrix products for AVX-VNNI: vpdpbusd on 256-bit registers. */
#include <stdbool.h>

#include "vectors.h"

/* vpdpbusd adds four products of an unsigned and a signed byte to each lane: w without its sign bit's meaning, 128 higher. */
INLINE vint q8_weights(vint w) { return flip_signs(w); }
/* The bits of 1.5 * 2^23: an integer below 2^22 added to them is added to that number, and a subtraction leaves its float.
 * Dot products and conversions have the same two ports on Intel's cores, additions another one. */
enum { FLOAT_ZERO = 0x4B400000 };
INLINE vint dot_start(const bool bytes, int32_t offset)
{
    return _mm256_add_epi32(bytes ? _mm256_slli_epi32(all_4(offset), 4) : all_4(offset), all_4(FLOAT_ZERO));
}
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    (void)bytes;
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));         /* gcc 12 copies and spills the sums of the intrinsic */
    return sum;
}
INLINE vint dot_end(const bool bytes, vint sum, int32_t offset) { (void)bytes, (void)offset; return sum; }
INLINE vfloat sum_to_float(vint sum) { return sub_f(_mm256_castsi256_ps(sum), broadcast_f(12582912.0f)); }
enum { Q4_PANEL = 24, Q8_PANEL = 24, Q4K_PANEL = 24, Q6K_PANEL = 12 };

/* Codes of Q6_K: 16 products stay below 2^17, times their scale below 2^24. */
enum { QUADS_6 = 4 };
INLINE vint scale_6(vint pairs, const int half) { return _mm256_srai_epi32(half ? pairs : _mm256_slli_epi32(pairs, 16), 16); }
INLINE vint dot_6(vint sum, const vint w[QUADS_6], const vint x[QUADS_6], vint scale)
{
    vint part = all_4(0);
UNROLL
    for (int i = 0; i < QUADS_6; i++) part = dot(false, part, w[i], x[i]);
    return _mm256_add_epi32(sum, _mm256_mullo_epi32(part, scale));
}

#include "gemm_x86.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

double int8_peak_avxvnni(long rounds);
double int8_peak_avxvnni(long rounds) { return dot_peak(rounds); }


const struct kernels kernels_avxvnni = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
