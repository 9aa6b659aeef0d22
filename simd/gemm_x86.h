/* gemm_x86.h - matrix products over blocks of 32 for x86: the loops that AVX2, AVX-VNNI and AVX-512-VNNI have in common.
 *
 * The file that includes this one defines first how weights and activations, four bytes to a lane, are multiplied and
 * summed over a block (vectors.h has the types):
 *     vint q8_weights(vint w)                              signed bytes as dot() wants them for `bytes`
 *     vint dot_start(const bool bytes, int32_t offset)     the sum of a block before its eight dot() calls
 *     vint dot(const bool bytes, vint sum, vint w, vint x) + w * x;  w: nibbles, 0 to 15, or what q8_weights() gave
 *     vint dot_end(const bool bytes, vint sum, int32_t offset)
 * Unsigned weights are 8 or 128 too high; the offset, -8 times the sum of the activations, takes that back once.
 *
 * A step takes ROWS rows x NV registers of channels over one block: ROWS * NV integer sums in registers, the float sums
 * in memory that stays in L1.  Each activation broadcast serves NV dot products, each register of weights ROWS of them.
 * All rows pass over a chunk of blocks before the next chunk, so that it is read from L1; for many rows its nibbles are
 * unpacked once, into a panel. */
#ifndef GEMM_X86_H
#define GEMM_X86_H

#include <stdbool.h>

#include "vectors.h"

enum {
    MAX_ROWS = LANES_V == 16 ? 8 : 4,           /* rows of a step                                   */
    TILES_V = 2 * LANES_V / TILE_N,             /* tiles that two registers span: 1 or 2            */
    CHUNK = 64 / TILES_V,                       /* blocks of a panel, which is 32 KiB                */
    PANEL_ROWS = 48,                            /* from which on unpacking beforehand pays          */
    QUADS = QBLOCK / 4,
    Q4_BLOCK = QBLOCK / 2 * TILE_N, Q8_BLOCK = QBLOCK * TILE_N,
    AHEAD = 2048                                /* bytes to prefetch before the place that is read  */
};

enum source { NIBBLES, BYTES, PANEL };          /* packed q4, packed q8, or q4 as a panel           */

/* The weights of one step: where each of the two registers finds its channels. */
struct weights { const uint8_t *q[2], *scales[2]; };

struct panel {
    uint8_t q[CHUNK][QUADS][2][sizeof(vint)];
    float scale[CHUNK][2][LANES_V];
} __attribute__((aligned(64)));

/* Two registers from tile w on.  NV == 1: a last tile alone, where registers are as wide as a tile. */
INLINE struct weights weights_of(const uint8_t *w, int nb, size_t block_bytes, size_t tile_bytes)
{
    const uint8_t *second = TILES_V == 2 ? w + tile_bytes : w + sizeof(vint);
    const uint8_t *scales = w + (size_t)nb * block_bytes;
    return (struct weights){ { w, second }, { scales, TILES_V == 2 ? scales + tile_bytes : scales + 2 * LANES_V } };
}

INLINE void prefetch(const uint8_t *block, size_t bytes)
{
    for (size_t line = 0; line < bytes; line += 64) __builtin_prefetch(block + AHEAD + line);
}

INLINE vint weight(const enum source from, const uint8_t *q, int j)
{
    if (from == NIBBLES) return j < QUADS / 2 ? low_nibbles(load_v(q + j * 64)) : high_nibbles(load_v(q + (j - QUADS / 2) * 64));
    return from == BYTES ? q8_weights(load_v(q + j * 64)) : load_v(q + (size_t)j * 2 * sizeof(vint));
}

/* acc[r] += block: isum * (scale_w * scale_x) by fma.  q, scale, offset: of the first row; rows follow each other. */
INLINE void step(const int ROWS, const int NV, const enum source from, float (*acc)[2 * LANES_V],
                 const uint8_t *const w[2], const vfloat scale_w[2], const int8_t *q, const float *scale, const int32_t *offset)
{
    vint sum[MAX_ROWS][2];
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int v = 0; v < NV; v++) sum[r][v] = dot_start(from == BYTES, offset[r]);
UNROLL
    for (int i = 0; i < QUADS; i++) {
        const int j = i / 2 + i % 2 * (QUADS / 2);      /* the two nibbles of a byte one after the other */
        vint w2[2];
UNROLL
        for (int v = 0; v < NV; v++) w2[v] = weight(from, w[v], j);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const vint x = broadcast_4(q + r * QBLOCK + 4 * j);
UNROLL
            for (int v = 0; v < NV; v++) sum[r][v] = dot(from == BYTES, sum[r][v], w2[v], x);
        }
    }
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int v = 0; v < NV; v++) {
            const vfloat isum = to_float(dot_end(from == BYTES, sum[r][v], offset[r]));
            float *a = acc[r] + v * LANES_V;
            store_f(a, fma_f(isum, mul_f(scale_w[v], broadcast_f(scale[r])), load_f(a)));
        }
}

/* Blocks b0 .. b1-1 of ROWS rows from row r on, all in one group; acc goes on from what y holds when b0 > 0. */
INLINE void rows_by_blocks(const int ROWS, const int NV, const enum source from, float *y, size_t ldy,
                           const struct q8rows *x, int r, const struct weights *packed, const struct panel *panel, int b0, int b1)
{
    float acc[MAX_ROWS][2 * LANES_V] __attribute__((aligned(64)));
    const size_t block_bytes = from == NIBBLES ? Q4_BLOCK : Q8_BLOCK;
    for (int i = 0; i < ROWS; i++)
        for (int v = 0; v < NV; v++)
            store_f(acc[i] + v * LANES_V, b0 ? load_f(y + (size_t)i * ldy + v * LANES_V) : zero_f());
    size_t at = q8_index(x, r, b0);
    for (int b = b0; b < b1; b++, at += ROW_GROUP) {
        const uint8_t *w[2] = { 0 };
        vfloat scale_w[2];
UNROLL
        for (int v = 0; v < NV; v++) {
            w[v] = from == PANEL ? panel->q[b - b0][0][v] : packed->q[v] + (size_t)b * block_bytes;
            scale_w[v] = from == PANEL ? load_f(panel->scale[b - b0][v]) : from_f16(packed->scales[v] + (size_t)b * 2 * TILE_N);
            if (from != PANEL && (TILES_V == 2 || v == 0)) prefetch(w[v], block_bytes);
        }
        step(ROWS, NV, from, acc, w, scale_w, x->q + at * QBLOCK, x->scale + at, x->offset + at);
    }
    for (int i = 0; i < ROWS; i++)
        for (int v = 0; v < NV; v++) store_f(y + (size_t)i * ldy + v * LANES_V, load_f(acc[i] + v * LANES_V));
}

/* The same for any number of rows up to MAX_ROWS. */
INLINE void some_rows_by_blocks(int rows, const int NV, const enum source from, float *y, size_t ldy,
                                const struct q8rows *x, int r, const struct weights *packed, const struct panel *panel, int b0, int b1)
{
#define CASE(n) case n: if (n <= MAX_ROWS) rows_by_blocks(n, NV, from, y, ldy, x, r, packed, panel, b0, b1); break;
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}

INLINE void unpack(struct panel *panel, const int NV, const struct weights *packed, int b0, int b1)
{
    for (int b = b0; b < b1; b++)
UNROLL
        for (int v = 0; v < NV; v++) {
            const uint8_t *w = packed->q[v] + (size_t)b * Q4_BLOCK;
            if (TILES_V == 2 || v == 0) prefetch(w, Q4_BLOCK);
UNROLL
            for (int j = 0; j < QUADS; j++) store_v(panel->q[b - b0][j][v], weight(NIBBLES, w, j));
            store_f(panel->scale[b - b0][v], from_f16(packed->scales[v] + (size_t)b * 2 * TILE_N));
        }
}

/* All rows times the tiles of one step. */
INLINE void rows_by_tiles(const int NV, const enum source from, float *y, size_t ldy, const struct q8rows *x,
                          int row0, int row1, const struct weights *packed)
{
    const int nb = x->k / QBLOCK;
    struct panel panel;
    for (int b0 = 0; b0 < nb; b0 += CHUNK) {
        const int b1 = b0 + CHUNK < nb ? b0 + CHUNK : nb;
        const bool unpacked = from == NIBBLES && row1 - row0 >= PANEL_ROWS;
        if (unpacked) unpack(&panel, NV, packed, b0, b1);
        for (int r = row0; r < row1; r += MAX_ROWS) {
            const int rows = row1 - r < MAX_ROWS ? row1 - r : MAX_ROWS;
            float *yr = y + (size_t)r * ldy;
            if (unpacked) some_rows_by_blocks(rows, NV, PANEL, yr, ldy, x, r, packed, &panel, b0, b1);
            else some_rows_by_blocks(rows, NV, from, yr, ldy, x, r, packed, NULL, b0, b1);
        }
    }
}

INLINE void gemm_blocks(const enum source from, float *y, size_t ldy, const struct q8rows *x, int row0, int row1,
                        const uint8_t *w, int n_tiles)
{
    const int nb = x->k / QBLOCK;
    const size_t block_bytes = from == NIBBLES ? Q4_BLOCK : Q8_BLOCK;
    const size_t tile_bytes = ((size_t)nb * (block_bytes + 2 * TILE_N) + 63) & ~(size_t)63;
    for (; n_tiles >= TILES_V; n_tiles -= TILES_V, w += TILES_V * tile_bytes, y += 2 * LANES_V) {
        const struct weights packed = weights_of(w, nb, block_bytes, tile_bytes);
        rows_by_tiles(2, from, y, ldy, x, row0, row1, &packed);
    }
    if (n_tiles > 0) {
        const struct weights packed = weights_of(w, nb, block_bytes, tile_bytes);
        rows_by_tiles(1, from, y, ldy, x, row0, row1, &packed);
    }
}

/* kernel_set.int8_peak: as many independent sums as hide the latency of a dot product. */
INLINE double dot_peak(long rounds)
{
    enum { SUMS = LANES_V == 16 ? 16 : 10 };
    vint sum[SUMS], w = all_4(0x03050709), x = all_4(0x0B0D0F11);
    int32_t offset = 8;
    __asm__ volatile("" : "+r"(offset));
UNROLL
    for (int i = 0; i < SUMS; i++) sum[i] = all_4(i);
    for (long round = 0; round < rounds; round++) {
UNROLL
        for (int j = 0; j < QUADS; j++)
UNROLL
            for (int i = 0; i < SUMS; i++) {
                __asm__ volatile("" : "+v"(x));         /* a new x to the compiler, which else multiplies once for all */
                sum[i] = dot(false, sum[i], w, x);
            }
UNROLL
        for (int i = 0; i < SUMS; i++) sum[i] = dot_end(false, sum[i], offset);
    }
UNROLL
    for (int i = 0; i < SUMS; i++) __asm__ volatile("" : : "v"(sum[i]));
    return 2.0 * (double)rounds * SUMS * QUADS * (double)sizeof(vint);
}

#endif
