/* gemm_neon.h - what the NEON matrix products over packed Q4_0 and Q8_0 share: the walk over tiles, rows and k.
 * Each set gives its panel: 4 channels of a tile times 1 to 8 rows of a group, over a chunk of k. */
#ifndef GEMM_NEON_H
#define GEMM_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <string.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")        /* so that arrays of sums become registers */
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

enum {
    QUAD = 4,                           /* channels of a panel: the lanes of a 128-bit register              */
    Q4_BYTES = QBLOCK / 2 * TILE_N,     /* a block of a tile                                                 */
    Q8_BYTES = QBLOCK * TILE_N,
    CHUNK = 32                          /* blocks of k at a time: activations (8 KiB) and weights (9 or 17 KiB)
                                           stay in the first-level cache until the four quads have used them */
};

/* Between chunks the running sums lie in y. */
struct panel {
    float *y; size_t ldy;               /* first row, first channel                                          */
    int live;                           /* rows to store; a panel may compute more of the group              */
    bool first;                         /* first chunk: sums start from 0 and not from y                     */
    int n_blocks, block_bytes;
    const int8_t *q;                    /* first row: 32 bytes to the next row, 256 to the next block        */
    const float *scale;                 /* first row: 8 floats to the next block                             */
    const uint8_t *w, *w_scale;         /* first channel: block_bytes and 32 bytes to the next block         */
};

/* Weights of a block for 4 channels: byte 4c + i of v[j] is k = 4j + i of channel c. */
struct weights { int8x16_t v[QBLOCK / 4]; };

INLINE struct weights load_q8(const uint8_t *w)
{
    struct weights q;
    UNROLL for (int j = 0; j < QBLOCK / 4; j++) q.v[j] = vld1q_s8((const int8_t *)w + j * TILE_N * 4);
    return q;
}

/* 16 * (nibble - 8): flipping the top bit of a nibble makes it two's complement. */
INLINE struct weights load_q4_high(const uint8_t *w)
{
    struct weights q;
    UNROLL for (int j = 0; j < 4; j++) {
        const int8x16_t pair = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(w + j * TILE_N * 4), vdupq_n_u8(0x88)));
        q.v[j] = vshlq_n_s8(pair, 4);
        q.v[4 + j] = vandq_s8(pair, vdupq_n_s8((int8_t)0xF0));
    }
    return q;
}

INLINE float32x4_t load_scales(const uint8_t *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p)));
}

/* A load at every use, where the compiler would keep the four in a register and copy it: the copy would take a slot
 * of the arithmetic pipes, the load does not. */
INLINE int32x4_t reload(const int32_t four[4])
{
    int32x4_t v;
    __asm__ volatile("ldr %q0, %1" : "=w"(v) : "m"(*(const int32_t (*)[4])four));
    return v;
}

INLINE void load_sums(float32x4_t *acc, const struct panel *p, int rows)
{
    UNROLL for (int r = 0; r < rows; r++)
        acc[r] = p->first || r >= p->live ? vdupq_n_f32(0) : vld1q_f32(p->y + (size_t)r * p->ldy);
}

INLINE void store_sums(const float32x4_t *acc, const struct panel *p, int rows)
{
    UNROLL for (int r = 0; r < rows; r++)
        if (r < p->live) vst1q_f32(p->y + (size_t)r * p->ldy, acc[r]);
}

/* One row of a block: sums over the 32 products of each channel, as floats. */
typedef float32x4_t dot_fn(const struct weights *w, const int8_t *x);
typedef struct weights load_fn(const uint8_t *w);

INLINE void panel_by_rows(const struct panel *p, int rows, load_fn *load, dot_fn *dot)
{
    float32x4_t acc[ROW_GROUP];
    const int8_t *q = p->q;
    const float *scale = p->scale;
    const uint8_t *w = p->w, *w_scale = p->w_scale;
    load_sums(acc, p, rows);
    for (int b = 0; b < p->n_blocks; b++) {
        const struct weights weights = load(w);
        const float32x4_t ws = load_scales(w_scale);
        UNROLL for (int r = 0; r < rows; r++)
            acc[r] = vfmaq_f32(acc[r], dot(&weights, q + r * QBLOCK), vmulq_n_f32(ws, scale[r]));
        q += ROW_GROUP * QBLOCK;
        scale += ROW_GROUP;
        w += p->block_bytes;
        w_scale += 2 * TILE_N;
    }
    store_sums(acc, p, rows);
}

typedef void panel_fn(const struct panel *p, int rows);

/* Rows beyond the live ones are computed and dropped: the group has them, and a panel of constant height is fast. */
INLINE void panel_of_rows(const struct panel *p, panel_fn *run, int least)
{
    if (p->live > 4) run(p, 8);
    else if (p->live > 2) run(p, 4);
    else if (p->live > 1 || least > 1) run(p, 2);
    else run(p, 1);
}

INLINE void gemm_group(float *y, size_t ldy, const struct q8rows *x, int row, int live, const uint8_t *tile,
                       int block_bytes, panel_fn *run, int least)
{
    const int nb = x->k / QBLOCK;
    const uint8_t *scales = tile + (size_t)nb * (size_t)block_bytes;
    for (int b = 0; b < nb || b == 0; b += CHUNK) {
        const size_t at = q8_index(x, row, b);
        for (int c = 0; c < TILE_N; c += QUAD)
            panel_of_rows(&(struct panel){
                .y = y + (size_t)row * ldy + c, .ldy = ldy, .live = live, .first = b == 0,
                .n_blocks = nb - b < CHUNK ? nb - b : CHUNK, .block_bytes = block_bytes,
                .q = x->q + at * QBLOCK, .scale = x->scale + at,
                .w = tile + (size_t)b * (size_t)block_bytes + c * 4, .w_scale = scales + (b * TILE_N + c) * 2 }, run, least);
    }
}

INLINE void gemm_tiles(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const uint8_t *w, int n_tiles,
                       int block_bytes, panel_fn *run, int least)
{
    const size_t tile_bytes = ((size_t)(x->k / QBLOCK) * (size_t)(block_bytes + 2 * TILE_N) + 63) & ~(size_t)63;
    for (int t = 0; t < n_tiles; t++, w += tile_bytes, y += TILE_N)
        for (int row = row0; row < row1; row += ROW_GROUP)
            gemm_group(y, ldy, x, row, row1 - row < ROW_GROUP ? row1 - row : ROW_GROUP, w, block_bytes, run, least);
}

/* The descriptor of a format out of a set's panel for it, which is given at least `least` rows (1 or 2). */
#define GEMM_OF_PANEL(format, bytes, least)                                                                             \
    static void gemm_##format##_run(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w,   \
                                    int n_tiles)                                                                       \
    {                                                                                                                  \
        gemm_tiles(y, ldy, x, row0, row1, w, n_tiles, bytes, panel_##format, least);                                   \
    }                                                                                                                  \
    static const struct gemm_int8 gemm_##format = { gemm_##format##_run };

#endif
