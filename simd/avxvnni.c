/* avxvnni.c - matrix products for AVX-VNNI: vpdpbusd on 256-bit registers. */
#include <stdbool.h>

#include "vectors.h"

/* vpdpbusd adds four products of an unsigned and a signed byte to each lane: w without its sign bit's meaning, 128 higher. */
INLINE vint q8_weights(vint w) { return flip_signs(w); }
INLINE vint dot_start(const bool bytes, int32_t offset) { return all_4(bytes ? offset * 16 : offset); }
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    (void)bytes;
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(x));         /* gcc 12 copies and spills the sums of the intrinsic */
    return sum;
}
INLINE vint dot_end(const bool bytes, vint sum, int32_t offset) { (void)bytes, (void)offset; return sum; }

#include "gemm_x86.h"

static void gemm_q4_avxvnni(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)
{
    gemm_blocks(NIBBLES, y, ldy, x, row0, row1, w, n_tiles);
}

static void gemm_q8_avxvnni(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)
{
    gemm_blocks(BYTES, y, ldy, x, row0, row1, w, n_tiles);
}

double int8_peak_avxvnni(long rounds);
double int8_peak_avxvnni(long rounds) { return dot_peak(rounds); }

static const struct gemm_int8 gemm_q4 = { gemm_q4_avxvnni }, gemm_q8 = { gemm_q8_avxvnni };

const struct kernels kernels_avxvnni = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8 };
