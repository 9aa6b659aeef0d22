/* plain_x86.h - matrix products over weights in f32, f16 and bf16, for AVX2 and AVX-512: ROWS rows x NV registers of channels,
 * all sums in registers. */
#ifndef PLAIN_X86_H
#define PLAIN_X86_H

#include "vectors.h"

enum plain { F32, F16, BF16 };
enum { PLAIN_ROWS = LANES_V == 16 ? 8 : 6, PLAIN_TILES = 2 * LANES_V / TILE_N };

INLINE vfloat load_plain(const enum plain type, const uint8_t *w)
{
    return type == F32 ? load_f((const float *)(const void *)w) : type == F16 ? from_f16(w) : from_bf16(w);
}

INLINE void plain_step(const int ROWS, const int NV, const enum plain type, float *y, size_t ldy, const float *x, size_t ldx,
                       const uint8_t *w, size_t tile_bytes, int k)
{
    const size_t bytes = type == F32 ? 4 : 2;
    const uint8_t *w2[2] = { w, LANES_V == TILE_N ? w + tile_bytes : w + LANES_V * bytes };
    vfloat acc[PLAIN_ROWS][2];
UNROLL
    for (int r = 0; r < ROWS; r++) acc[r][0] = acc[r][1] = zero_f();
    for (size_t i = 0; i < (size_t)k; i++) {
        vfloat v[2];
UNROLL
        for (int h = 0; h < NV; h++) v[h] = load_plain(type, w2[h] + i * TILE_N * bytes);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const vfloat a = broadcast_f(x[(size_t)r * ldx + i]);
UNROLL
            for (int h = 0; h < NV; h++) acc[r][h] = fma_f(a, v[h], acc[r][h]);
        }
    }
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int h = 0; h < NV; h++) store_f(y + (size_t)r * ldy + h * LANES_V, acc[r][h]);
}

INLINE void plain_rows(const int NV, const enum plain type, float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1,
                       const uint8_t *w, size_t tile_bytes, int k)
{
    for (int r = row0; r < row1; r += PLAIN_ROWS) {
        float *yr = y + (size_t)r * ldy;
        const float *xr = x + (size_t)r * ldx;
        switch (row1 - r < PLAIN_ROWS ? row1 - r : PLAIN_ROWS) {
#define CASE(m) case m: if (m <= PLAIN_ROWS) plain_step(m, NV, type, yr, ldy, xr, ldx, w, tile_bytes, k); break;
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#undef CASE
        }
    }
}

INLINE void gemm_plain(const enum plain type, float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const uint8_t *w,
                       int n_tiles, int k)
{
    const size_t tile_bytes = ((size_t)k * TILE_N * (type == F32 ? 4 : 2) + 63) & ~(size_t)63;
    for (; n_tiles >= PLAIN_TILES; n_tiles -= PLAIN_TILES, w += PLAIN_TILES * tile_bytes, y += 2 * LANES_V)
        plain_rows(2, type, y, ldy, x, ldx, row0, row1, w, tile_bytes, k);
    if (n_tiles > 0) plain_rows(1, type, y, ldy, x, ldx, row0, row1, w, tile_bytes, k);
}

#endif
