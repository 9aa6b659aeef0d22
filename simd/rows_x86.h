/* rows_x86.h - kernels over one row that spend their time in exp, for AVX2 and AVX-512. */
#ifndef ROWS_X86_H
#define ROWS_X86_H

#include "vectors.h"

INLINE vfloat swiglu_v(vfloat gate, vfloat up)
{
    return mul_f(div_f(gate, add_f(broadcast_f(1.0f), exp_f(negate_f(gate)))), up);
}

INLINE void swiglu_row(float *y, const float *gate, const float *up, int n)
{
    int i = 0;
    for (; i + LANES_V <= n; i += LANES_V) store_f(y + i, swiglu_v(load_f(gate + i), load_f(up + i)));
    if (i < n) store_lanes(y + i, swiglu_v(load_lanes(gate + i, n - i), load_lanes(up + i, n - i)), n - i);
}

INLINE float sum_exp_row(const float *x, int n, float max)
{
    float sums[LANES] __attribute__((aligned(64)));
    vfloat sum[LANES / LANES_V];
UNROLL
    for (int h = 0; h < LANES / LANES_V; h++) sum[h] = zero_f();
    int i = 0;
    for (; i + LANES <= n; i += LANES)
UNROLL
        for (int h = 0; h < LANES / LANES_V; h++)
            sum[h] = add_f(sum[h], exp_f(sub_f(load_f(x + i + h * LANES_V), broadcast_f(max))));
UNROLL
    for (int h = 0; h < LANES / LANES_V; h++) store_f(sums + h * LANES_V, sum[h]);
    float e[LANES_V] __attribute__((aligned(64)));
    for (int at = 0; i < n; i++, at = (at + 1) % LANES_V) {            /* the end of the row, each element to its own sum */
        if (at == 0) store_f(e, exp_f(sub_f(load_lanes(x + i, n - i < LANES_V ? n - i : LANES_V), broadcast_f(max))));
        sums[i % LANES] += e[at];
    }
    return fold(sums);
}

#endif
