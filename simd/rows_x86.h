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

INLINE float sum_exp_row(const float *x, int n, float max, float *moment)
{
    float sums[LANES] __attribute__((aligned(64))), weighted[LANES] __attribute__((aligned(64)));
    const vfloat lowest = broadcast_f(-128);
    vfloat sum[LANES / LANES_V], weight[LANES / LANES_V];
UNROLL
    for (int h = 0; h < LANES / LANES_V; h++) sum[h] = weight[h] = zero_f();
    int i = 0;
    for (; i + LANES <= n; i += LANES)
UNROLL
        for (int h = 0; h < LANES / LANES_V; h++) {
            const vfloat t = sub_f(load_f(x + i + h * LANES_V), broadcast_f(max)), e = exp_f(t);
            sum[h] = add_f(sum[h], e);
            weight[h] = fma_f(e, max_f(t, lowest), weight[h]);         /* max_f(NaN, a) is a */
        }
UNROLL
    for (int h = 0; h < LANES / LANES_V; h++) {
        store_f(sums + h * LANES_V, sum[h]);
        store_f(weighted + h * LANES_V, weight[h]);
    }
    for (int left; (left = n - i) > 0; i += LANES_V) {                  /* the end of the row, each element to its own sum */
        float e[LANES_V] __attribute__((aligned(64))), w[LANES_V] __attribute__((aligned(64)));
        const int at = i % LANES, lanes = left < LANES_V ? left : LANES_V;
        const vfloat t = sub_f(load_lanes(x + i, lanes), broadcast_f(max)), p = exp_f(t);
        store_f(e, add_f(load_f(sums + at), p));
        store_f(w, fma_f(p, max_f(t, lowest), load_f(weighted + at)));
        memcpy(sums + at, e, (size_t)lanes * sizeof *e);
        memcpy(weighted + at, w, (size_t)lanes * sizeof *w);
    }
    *moment = fold(weighted);
    return fold(sums);
}

#endif
