/* gemm_vnni_512.h - matrix products by vpdpbusd on 512-bit registers.
 *
 * The file that includes this one defines first the rows of panels and PACKED_CHUNK as gemm_x86.h says. */
#ifndef GEMM_VNNI_512_H
#define GEMM_VNNI_512_H

#include <stdbool.h>

#include "vectors.h"

/* sum + w * x of four unsigned and four signed bytes a lane */
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    (void)bytes;
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));         /* gcc 12 copies and spills the sums of the intrinsic */
    return sum;
}
INLINE vint sum_of(vint start) { return start; }
INLINE vfloat sum_to_float(vint sum) { return to_float(sum); }

#include "gemm_vnni.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

#endif
