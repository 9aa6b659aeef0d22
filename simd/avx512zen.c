/* avx512zen.c - the matrix products of avx512vnni.c for AMD's cores, Zen 4 and later.  Their ands and shifts have pipes beside those
 * of vpdpbusd, so that unpacking anew for each step costs less than a panel in L1, and sums stay in registers for longer. */
#include <limits.h>

enum { Q4_PANEL = INT_MAX, Q8_PANEL = INT_MAX, Q4K_PANEL = INT_MAX, Q6K_PANEL = INT_MAX, PACKED_CHUNK = 128 };

#include "attend_x86.h"
#include "gemm_vnni_512.h"

double int8_peak_avx512zen(long rounds);
double int8_peak_avx512zen(long rounds) { return dot_peak(rounds); }

static void attend_bf16_avx512zen(const struct attend_args *a) { attend_rows(PAIRS, a); }

const struct kernels kernels_avx512zen = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k, .attend_bf16 = attend_bf16_avx512zen,
};
