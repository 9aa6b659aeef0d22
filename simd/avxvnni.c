/* avxvnni.c - matrix products for AVX-VNNI: vpdpbusd on 256-bit registers. */
#include <stdbool.h>

#include "vectors.h"

/* sum + w * x of four unsigned and four signed bytes a lane */
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    (void)bytes;
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));         /* gcc 12 copies and spills the sums of the intrinsic */
    return sum;
}

/* The bits of 1.5 * 2^23: an integer below 2^22 added to them is added to that number, and a subtraction leaves its float.
 * Dot products and conversions have the same two ports on Intel's cores, additions another one. */
INLINE vint sum_of(vint start) { return _mm256_add_epi32(start, all_4(0x4B400000)); }
INLINE vfloat sum_to_float(vint sum) { return sub_f(_mm256_castsi256_ps(sum), broadcast_f(12582912.0f)); }

enum { Q4_PANEL = 16, Q8_PANEL = 24, Q4K_PANEL = 12, Q6K_PANEL = 12 };

#include "gemm_vnni.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

double int8_peak_avxvnni(long rounds);
double int8_peak_avxvnni(long rounds) { return dot_peak(rounds); }

const struct kernels kernels_avxvnni = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
