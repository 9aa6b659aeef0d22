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
enum { Q4_PANEL = 16, Q8_PANEL = 24, Q4K_PANEL = 12, Q6K_PANEL = 12 };

/* Codes of Q6_K: 16 products stay below 2^17, times their scale below 2^23: floats hold both halves and their sum exactly. */
enum { QUADS_6 = 4 };
typedef vfloat sum_6;
struct scales_6 { vfloat half[2]; };
INLINE struct scales_6 scales_6_of(vint pairs)
{
    return (struct scales_6){ { to_float(_mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16)), to_float(_mm256_srai_epi32(pairs, 16)) } };
}
INLINE sum_6 start_6(const int16_t *offsets, const struct scales_6 *s) { (void)offsets, (void)s; return zero_f(); }
INLINE sum_6 dot_6(const int half, sum_6 sum, const vint w[QUADS_6], const vint x[QUADS_6], const int16_t *offsets, const struct scales_6 *s)
{
    vint part = _mm256_add_epi32(madd_16(broadcast_4(offsets), all_4(half ? 4 << 16 : 4)), all_4(FLOAT_ZERO));
UNROLL
    for (int i = 0; i < QUADS_6; i++) part = dot(false, part, w[i], x[i]);
    return fma_f(sum_to_float(part), s->half[half], sum);
}
INLINE vfloat end_6(sum_6 sum) { return sum; }

#include "gemm_x86.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

double int8_peak_avxvnni(long rounds);
double int8_peak_avxvnni(long rounds) { return dot_peak(rounds); }


const struct kernels kernels_avxvnni = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
