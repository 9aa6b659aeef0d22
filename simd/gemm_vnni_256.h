/* gemm_vnni_256.h - matrix products by vpdpbusd on 256-bit registers, in either of its two encodings.
 *
 * The file that includes this one defines first
 *     VPDPBUSD                                             the instruction, with the encoding that its CPUs know */
#ifndef GEMM_VNNI_256_H
#define GEMM_VNNI_256_H

#include <stdbool.h>

#include "vectors.h"

/* sum + w * x of four unsigned and four signed bytes a lane */
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    (void)bytes;
    __asm__(VPDPBUSD " %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));        /* gcc 12 copies and spills the sums of the intrinsic */
    return sum;
}

/* The bits of 1.5 * 2^23: an integer below 2^22 added to them is added to that number, and a subtraction leaves its float.
 * Dot products and conversions have the same two ports on Intel's cores, additions another one. */
INLINE vint sum_of(vint start) { return _mm256_add_epi32(start, all_4(0x4B400000)); }
INLINE vfloat sum_to_float(vint sum) { return sub_f(_mm256_castsi256_ps(sum), broadcast_f(12582912.0f)); }

enum { Q4_PANEL = 16, Q8_PANEL = 24, Q4K_PANEL = 12, Q6K_PANEL = 12, PACKED_CHUNK = 32 };

#include "gemm_vnni.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

#endif
