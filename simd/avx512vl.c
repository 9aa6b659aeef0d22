/* avx512vl.c - the matrix products of avxvnni.c in AVX-512's encoding, for CPUs that know no other (Ice Lake, Zen 4): to test and to
 * measure 256-bit registers there, where 512-bit ones are what is chosen. */
#define VECTORS_OF_256_BITS
#define VPDPBUSD "%{evex%} vpdpbusd"

#include "gemm_vnni_256.h"

double int8_peak_avx512vl(long rounds);
double int8_peak_avx512vl(long rounds) { return dot_peak(rounds); }

const struct kernels kernels_avx512vl = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
