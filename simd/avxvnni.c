/* avxvnni.c - matrix products for AVX-VNNI: vpdpbusd on 256-bit registers. */
#define VPDPBUSD "%{vex%} vpdpbusd"

#include "gemm_vnni_256.h"

double int8_peak_avxvnni(long rounds);
double int8_peak_avxvnni(long rounds) { return dot_peak(rounds); }

const struct kernels kernels_avxvnni = { .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k };
