/* gemm_x86.h - matrix products over blocks of 32 for x86: the loops that AVX2, AVX-VNNI and AVX-512-VNNI have in common.
 *
 * The file that includes this one defines first how weights and activations, four bytes to a lane, are multiplied and
 * summed over a block (vectors.h has the types):
 *     vint q8_weights(vint w)                              signed bytes as dot() wants them for `bytes`
 *     vint dot_start(const bool bytes, int32_t offset)     the sum of a block before its eight dot() calls
 *     vint dot(const bool bytes, vint sum, vint w, vint x) + w * x;  w: nibbles, 0 to 15, or what q8_weights() gave
 *     vint dot_end(const bool bytes, vint sum, int32_t offset)
 *     vfloat sum_to_float(vint sum)                        what dot_end() gave
 *     Q4_PANEL, Q4K_PANEL, Q6K_PANEL, Q8_PANEL             rows from which on unpacking a chunk once pays; more than
 *                                                          MOST_ROWS: never
 *     PACKED_CHUNK                                         blocks of a chunk that is not unpacked
 * Unsigned weights are 8 or 128 too high; the offset, -8 times the sum of the activations, takes that back once.  And for
 * Q6_K, whose codes, 0 to 63, are 32 too high, which the sums of the halves take back:
 *     struct scales_6, scales_6_of(vint pairs)             the scale codes of both halves, out of 16-bit pairs
 *     sum_6, QUADS_6                                       what a block sums up in; fours of k that dot_6() takes, 2 or 4
 *     sum_6 start_6(const int16_t *offsets, const struct scales_6 *s)
 *     sum_6 dot_6(const int half, sum_6 sum, const vint w[QUADS_6], const vint x[QUADS_6], const int16_t *offsets,
 *                 const struct scales_6 *s)                + scale code of the half * (w * x)
 *     vfloat end_6(sum_6 sum)
 *
 * A step takes ROWS rows x NV registers of channels over one block, with ROWS * NV integer sums in registers.  Each activation
 * broadcast serves NV dot products, each register of weights ROWS of them.  All rows pass over a chunk of blocks before the next
 * chunk, so that it is read from L1; for many rows its codes are unpacked once, by the step of the first rows, which leaves them
 * in a panel. */
#ifndef GEMM_X86_H
#define GEMM_X86_H

#include <stdbool.h>

#include "weights_x86.h"

enum {
    MAX_ROWS = LANES_V == 16 ? 8 : 4,           /* rows of a step                                   */
    PANEL_CHUNK = 16,                           /* blocks of a panel, whose codes are 8 or 16 KiB    */
    NEAR = 8                                    /* blocks ahead that a single pass fetches           */
};

/* What a row has summed up so far in a register of channels.  Arrays of floats stay in memory, in L1, and leave the registers to the
 * integer sums; those of 256 bits are few enough for the compiler to choose. */
#if LANES_V == 16
typedef float part_sum[LANES_V];
#else
typedef vfloat part_sum;
#endif

INLINE int panel_rows(const enum format f) { return f == Q4 ? Q4_PANEL : f == Q8 ? Q8_PANEL : f == Q4K ? Q4K_PANEL : Q6K_PANEL; }

/* A block as dot() wants it. */
struct panel_block { uint8_t q[QUADS][2][sizeof(vint)]; struct scales scales; } __attribute__((aligned(64)));

/* Where a step finds its weights: packed; packed, to be left in the panel; in the panel. */
enum source { PACKED, TO_PANEL, PANEL };

/* Quad j of a register of packed weights at q, as dot() wants it. */
INLINE vint weight(const enum format f, const uint8_t *q, int j) { return f == Q8 ? q8_weights(codes(f, q, j)) : codes(f, q, j); }

/* The activations of a step: of the first row; rows follow each other. */
struct rows { const int8_t *q; const float *scale; const int32_t *offset; const int16_t *halves; };

/* offset * scale of ROWS rows, fours at a time: a group has as many behind the first one. */
INLINE void times_offsets(const int ROWS, float t[MAX_ROWS], const struct rows *x)
{
    if (ROWS == 1) t[0] = (float)x->offset[0] * x->scale[0];
    else for (int r = 0; r < ROWS; r += 4) {
        const __m128 offset = _mm_cvtepi32_ps(_mm_loadu_si128((const __m128i *)(x->offset + r)));
        _mm_storeu_ps(t + r, _mm_mul_ps(offset, _mm_loadu_ps(x->scale + r)));
    }
}

/* Quad j of register v of a block, packed at w or in a panel. */
INLINE vint quad(const enum source from, const enum format f, struct panel_block *block, const uint8_t *w, int j, int v)
{
    if (from == PANEL) return load_v(block->q[j][v]);
    const vint q = weight(f, w, j);
    if (from == TO_PANEL) store_v(block->q[j][v], q);
    return q;
}

/* acc[r] += block.  w: where it is packed */
INLINE void step(const int ROWS, const int NV, const enum format f, const enum source from, part_sum (*acc)[2],
                 struct panel_block *block, const uint8_t *const w[2], const struct rows *x)
{
    const struct scales *s = &block->scales;
    vint sum[MAX_ROWS][2];
    sum_6 sum6[MAX_ROWS][2];
    if (f == Q6K) {
UNROLL
        for (int r = 0; r < ROWS; r++)
UNROLL
            for (int v = 0; v < NV; v++) sum6[r][v] = start_6(x->halves + 2 * r, &s->codes[v]);
UNROLL
        for (int j = 0; j < QUADS; j += QUADS_6) {
            vint wj[2][QUADS_6], xj[QUADS_6];
UNROLL
            for (int v = 0; v < NV; v++)
UNROLL
                for (int i = 0; i < QUADS_6; i++) wj[v][i] = quad(from, f, block, w[v], j + i, v);
UNROLL
            for (int r = 0; r < ROWS; r++) {
UNROLL
                for (int i = 0; i < QUADS_6; i++) xj[i] = broadcast_4(x->q + r * QBLOCK + 4 * (j + i));
UNROLL
                for (int v = 0; v < NV; v++) sum6[r][v] = dot_6(j / (QUADS / 2), sum6[r][v], wj[v], xj, x->halves + 2 * r, &s->codes[v]);
            }
        }
    } else {
UNROLL
        for (int r = 0; r < ROWS; r++)
UNROLL
            for (int v = 0; v < NV; v++) sum[r][v] = dot_start(f == Q8, f == Q4K ? 0 : x->offset[r]);
UNROLL
        for (int i = 0; i < QUADS; i++) {
            const int j = i / 2 + i % 2 * (QUADS / 2);      /* the two nibbles of a byte one after the other */
            vint wj[2];
UNROLL
            for (int v = 0; v < NV; v++) wj[v] = quad(from, f, block, w[v], j, v);
UNROLL
            for (int r = 0; r < ROWS; r++) {
                const vint xj = broadcast_4(x->q + r * QBLOCK + 4 * j);
UNROLL
                for (int v = 0; v < NV; v++) sum[r][v] = dot(f == Q8, sum[r][v], wj[v], xj);
            }
        }
    }
    float t[MAX_ROWS];
    if (f == Q4K) times_offsets(ROWS, t, x);
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int v = 0; v < NV; v++) {
            float *at = (float *)&acc[r][v];
            const vfloat isum = f == Q6K ? end_6(sum6[r][v]) : sum_to_float(dot_end(f == Q8, sum[r][v], f == Q4K ? 0 : x->offset[r]));
            vfloat a = fma_f(isum, mul_f(s->d[v], broadcast_f(x->scale[r])), load_f(at));
            if (f == Q4K) a = fma_f(broadcast_f(t[r]), s->min[v], a);
            store_f(at, a);
        }
}

/* Blocks b0 .. b1-1 of ROWS rows from row r on, all in one group; acc goes on from what y holds when b0 > 0. */
INLINE void rows_by_blocks(const int ROWS, const int NV, const enum format f, const enum source from, float *y, size_t ldy,
                           const struct q8rows *x, int r, const struct weights *packed,
                           struct panel_block *panel, struct ahead *ahead, int b0, int b1)
{
    part_sum acc[MAX_ROWS][2] __attribute__((aligned(64)));
    struct super super = { { zero_f() }, { zero_f() } };
    struct panel_block own;
UNROLL
    for (int i = 0; i < ROWS; i++)
UNROLL
        for (int v = 0; v < NV; v++)
            store_f((float *)&acc[i][v], b0 ? load_f(y + (size_t)i * ldy + v * LANES_V) : zero_f());
    size_t at = q8_index(x, r, b0);
    for (int b = b0; b < b1; b++, at += ROW_GROUP) {
        struct panel_block *block = from == PACKED ? &own : panel + (b - b0);
        const uint8_t *w[2] = { 0 };
UNROLL
        for (int v = 0; v < NV; v++) w[v] = packed->q[v] + (size_t)b * block_bytes(f);
        fetch_ahead(f, ahead);
        if (from != PANEL) {
            if (super_bytes(f) && b % SUPER == 0) load_super(f, NV, &super, packed, b);
            load_scales(f, NV, &block->scales, &super, packed, b);
        }
        const struct rows rows = { x->q + at * QBLOCK, x->scale + at, x->offset + at, x->halves + at * 2 };
        step(ROWS, NV, f, from, acc, block, w, &rows);
    }
UNROLL
    for (int i = 0; i < ROWS; i++)
UNROLL
        for (int v = 0; v < NV; v++) store_f(y + (size_t)i * ldy + v * LANES_V, load_f((float *)&acc[i][v]));
}

/* The same for any number of rows up to MAX_ROWS.  A last tile alone (NV == 1) is rare: its rows go one by one, for the sake of
 * what compiles. */
INLINE void some_rows_by_blocks(int rows, const int NV, const enum format f, const enum source from, float *y, size_t ldy,
                                const struct q8rows *x, int r, const struct weights *packed,
                                struct panel_block *panel, struct ahead *ahead, int b0, int b1)
{
    if (NV == 1) {
        for (int i = 0; i < rows; i++) rows_by_blocks(1, 1, f, from, y + (size_t)i * ldy, ldy, x, r + i, packed, panel, ahead, b0, b1);
        return;
    }
#define CASE(n) case n: if (n <= MAX_ROWS) rows_by_blocks(n, NV, f, from, y, ldy, x, r, packed, panel, ahead, b0, b1); break;
    switch (rows) { CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) }
#undef CASE
}

/* At most MOST_ROWS rows times the tiles of one step.  Sums lie side by side until all blocks are added up: rows of y are a
 * power of 2 apart in most models, and would push each other out of the caches between chunks. */
INLINE void rows_by_tiles(const int NV, const enum format f, float *y, size_t ldy, const struct q8rows *x,
                          int row0, int row1, const struct weights *packed, const struct weights *next)
{
    const int nb = x->k / QBLOCK, n = row1 - row0;
    struct panel_block panel[PANEL_CHUNK];
    float sums[MOST_ROWS][2 * LANES_V] __attribute__((aligned(64)));
    const bool unpacked = NV == 2 && panel_rows(f) <= MOST_ROWS && n >= panel_rows(f);
    const int chunk = unpacked ? PANEL_CHUNK : PACKED_CHUNK;
    const int passes = (n + MAX_ROWS - 1) / MAX_ROWS, distance = passes > 1 ? chunk : NEAR;
    struct ahead ahead = { .next = next, .nb = nb, .every = passes, .left = passes };
    ahead_at(f, &ahead, distance < nb ? packed : next, distance < nb ? distance : 0);
    for (int b0 = 0; b0 < nb; b0 += chunk) {
        const int b1 = b0 + chunk < nb ? b0 + chunk : nb;
        for (int r = 0; r < n; r += MAX_ROWS) {
            const int rows = n - r < MAX_ROWS ? n - r : MAX_ROWS;
            if (!unpacked) some_rows_by_blocks(rows, NV, f, PACKED, sums[r], 2 * LANES_V, x, row0 + r, packed, NULL, &ahead, b0, b1);
            else if (r == 0) rows_by_blocks(MAX_ROWS, NV, f, TO_PANEL, sums[r], 2 * LANES_V, x, row0, packed, panel, &ahead, b0, b1);
            else some_rows_by_blocks(rows, NV, f, PANEL, sums[r], 2 * LANES_V, x, row0 + r, packed, panel, &ahead, b0, b1);
        }
    }
    for (int r = 0; r < n; r++)
        for (int v = 0; v < NV; v++) store_f(y + (size_t)(row0 + r) * ldy + v * LANES_V, load_f(sums[r] + v * LANES_V));
}

INLINE void gemm_blocks(const enum format f, float *y, size_t ldy, const struct q8rows *x, int row0, int row1,
                        const uint8_t *w, int n_tiles)
{
    const int nb = x->k / QBLOCK;
    const size_t tile_bytes = tile_bytes_of(f, nb);
    for (; n_tiles >= TILES_V; n_tiles -= TILES_V, w += TILES_V * tile_bytes, y += 2 * LANES_V) {
        const struct weights packed = weights_of(f, w, nb, tile_bytes), next = weights_of(f, w + TILES_V * tile_bytes, nb, tile_bytes);
        for (int r = row0; r < row1; r += MOST_ROWS)
            rows_by_tiles(2, f, y, ldy, x, r, row1 - r < MOST_ROWS ? row1 : r + MOST_ROWS, &packed, &next);
    }
    if (n_tiles > 0) {
        const struct weights packed = weights_of(f, w, nb, tile_bytes);
        for (int r = row0; r < row1; r += MOST_ROWS)
            rows_by_tiles(1, f, y, ldy, x, r, row1 - r < MOST_ROWS ? row1 : r + MOST_ROWS, &packed, &packed);
    }
}

/* The descriptor of a format: gemm_NAME. */
#define GEMM_BLOCKS(name, f)                                                                                                        \
    static void gemm_##name##_run(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)    \
    {                                                                                                                              \
        gemm_blocks(f, y, ldy, x, row0, row1, w, n_tiles);                                                                         \
    }                                                                                                                              \
    static const struct gemm_int8 gemm_##name = { gemm_##name##_run };

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
