/* gemm_neon.h - what the NEON matrix products over packed blocks share: the walk over tiles, k and rows.
 * Each set gives its panel: 4 channels of a tile times 1 to 8 rows of a group, over a chunk of k.  The vector pipes are what
 * all of it waits for.  So for more rows than a panel's a chunk is unpacked once, and loads replace what would be done again.
 *
 * The file that includes this one defines first
 *     factor, factor factor_of(float32x4_t v)      a number of each of 4 channels as its panels multiply by it */
#ifndef GEMM_NEON_H
#define GEMM_NEON_H

#include <arm_neon.h>
#include <stdbool.h>
#include <string.h>

#include "pack.h"

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("unroll")        /* so that arrays of sums become registers */
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

enum {
    QUADS = 4, QUAD = TILE_N / QUADS,   /* quads of a tile; channels of a quad: the lanes of a 128-bit register */
    PANEL_ROWS = 8,                     /* most rows of a panel: half a group, whose sums fill the registers      */
    SECOND_PANEL = PANEL_ROWS + 1, NEVER = 0,           /* from how many rows on chunks are unpacked         */
    CHUNK = 16                          /* blocks of k at a time: activations (4 KiB) and weights, packed (9 KiB at most) or
                                           unpacked (12), stay in the first-level cache until all rows have used them */
};

/* Bytes of a block of a tile, of what a channel has for it behind all blocks, of a super-block; whether offsets take part. */
struct layout { int block, scale, super; bool min; };
static const struct layout layout_q4 = { Q4_BYTES, 2, 0, false }, layout_q4k = { Q4_BYTES, 1, Q4K_SUPER_BYTES, true };
static const struct layout layout_q8 = { Q8_BYTES, 2, 0, false }, layout_q6k = { Q6K_BYTES, 2, Q6K_SUPER_BYTES, false };

/* Weights of a block for 4 channels: byte 4c + i of v[j] is k = 4j + i of channel c. */
struct weights { int8x16_t v[QBLOCK / 4]; };

INLINE struct weights load_q8(const uint8_t *w)
{
    struct weights q;
    UNROLL for (int j = 0; j < QBLOCK / 4; j++) q.v[j] = vld1q_s8((const int8_t *)w + j * TILE_N * 4);
    return q;
}

/* Neither as one assignment nor in a loop: those gcc makes through memory. */
INLINE struct weights load_unpacked(const struct weights *w)
{
    return (struct weights){ { w->v[0], w->v[1], w->v[2], w->v[3], w->v[4], w->v[5], w->v[6], w->v[7] } };
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

/* 0 to 15 */
INLINE struct weights load_q4_unsigned(const uint8_t *w)
{
    struct weights q;
    UNROLL for (int j = 0; j < 4; j++) {
        const uint8x16_t pair = vld1q_u8(w + j * TILE_N * 4);
        q.v[j] = vreinterpretq_s8_u8(vandq_u8(pair, vdupq_n_u8(15)));
        q.v[4 + j] = vreinterpretq_s8_u8(vshrq_n_u8(pair, 4));
    }
    return q;
}

/* 4 * (code - 32): the two high bits, the upper of them flipped, at the top of a byte, and the nibble inserted below. */
INLINE struct weights load_q6k_high(const uint8_t *w)
{
    struct weights q;
    UNROLL for (int j = 0; j < 2; j++) {
        const uint8x16_t four = veorq_u8(vld1q_u8(w + Q4_BYTES + j * TILE_N * 4), vdupq_n_u8(0xAA));
        const uint8x16_t high[4] = { vshlq_n_u8(four, 6), vshlq_n_u8(four, 4), vshlq_n_u8(four, 2), four };
        UNROLL for (int t = 0; t < 2; t++) {
            const uint8x16_t pair = vld1q_u8(w + (2 * t + j) * TILE_N * 4);
            q.v[2 * t + j] = vreinterpretq_s8_u8(vsriq_n_u8(high[t], vshlq_n_u8(pair, 4), 2));
            q.v[4 + 2 * t + j] = vreinterpretq_s8_u8(vsriq_n_u8(high[2 + t], vandq_u8(pair, vdupq_n_u8(0xF0)), 2));
        }
    }
    return q;
}

/* code - 32 */
INLINE struct weights load_q6k(const uint8_t *w)
{
    struct weights q = load_q6k_high(w);
    UNROLL for (int j = 0; j < 8; j++) q.v[j] = vshrq_n_s8(q.v[j], 2);
    return q;
}

/* What the sums of a block are multiplied by: all of them; of Q6_K, what the sums of the halves are before.
 * min: of Q4_K, what the activations' offsets are multiplied by; of Q6_K, -Q6K_ZERO * half[0]. */
struct scales { factor d, min, half[2]; };
struct super { float32x4_t d, min; };           /* d and dmin / 8 */
#define Q6K_ZERO 0x1.8p21f                      /* what sums of Q6_K start from, where they are the bits of floats */

/* Where a chunk of 4 channels lies in a tile: first channel, with layout.block and 32 bytes to the next block,
 * layout.super to the next super-block. */
struct packed { const uint8_t *w, *scale, *super; };

/* The same, unpacked: what the set's load and the format's scales make of it. */
struct unpacked { struct weights weights[CHUNK]; struct scales scales[CHUNK]; };

/* Rows of a chunk as the set's panels take them, and where the set puts what it makes for that.
 * offset: offset * scale, if the format has use for it. */
struct rows { const int8_t *q; const float *scale, *offset; };
struct room { int8_t q[CHUNK * PANEL_ROWS * QBLOCK]; float scale[CHUNK * PANEL_ROWS * 2], offset[CHUNK * PANEL_ROWS * 2]; };

/* Between chunks the running sums lie in y. */
struct panel {
    float *y; size_t ldy;               /* first row, first channel                                          */
    int live;                           /* rows to store; a panel may compute more of the group              */
    bool first;                         /* first chunk: sums start from 0 and not from y                     */
    int n_blocks;
    struct rows rows;
    struct packed packed;
    const struct unpacked *unpacked;    /* the same weights, where they have been unpacked                   */
};

INLINE float32x4_t load_f16(const uint8_t *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(p))); }

/* |v| < 2^22.  Not by scvtf, which the A76 runs at a quarter of the rate of others: the bits of 1.5 * 2^23 + v. */
INLINE float32x4_t to_float(int32x4_t v)
{
    return vsubq_f32(vreinterpretq_f32_s32(vaddq_s32(v, vdupq_n_s32(0x4B400000))), vdupq_n_f32(0x1.8p23f));
}

INLINE float32x4_t load_u8(const uint8_t *p)
{
    uint32_t four;
    memcpy(&four, p, 4);
    return to_float(vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four)))))));
}

typedef void scales_fn(struct scales *s, const uint8_t *codes, const struct super *super);
typedef struct super super_fn(const uint8_t *super);

INLINE struct super no_super(const uint8_t *super) { (void)super; return (struct super){ vdupq_n_f32(0), vdupq_n_f32(0) }; }
INLINE struct super super_q4k(const uint8_t *super)
{
    return (struct super){ load_f16(super), vmulq_n_f32(load_f16(super + 2 * TILE_N), 0.125f) };
}
INLINE struct super super_q6k(const uint8_t *super) { return (struct super){ load_f16(super), vdupq_n_f32(0) }; }

INLINE void scales_f16(struct scales *s, const uint8_t *scale, const struct super *super)
{
    (void)super;
    s->d = factor_of(load_f16(scale));
}
INLINE void scales_q4k(struct scales *s, const uint8_t *codes, const struct super *super)
{
    s->d = factor_of(vmulq_f32(super->d, load_u8(codes)));
    s->min = factor_of(vmulq_f32(super->min, load_u8(codes + TILE_N)));
}
INLINE void scales_q6k(struct scales *s, const uint8_t *codes, const struct super *super)
{
    const int32x4_t pairs = vreinterpretq_s32_s16(vmovl_s8(vreinterpret_s8_u8(vld1_u8(codes))));
    const float32x4_t first = to_float(vshrq_n_s32(vshlq_n_s32(pairs, 16), 16));
    s->d = factor_of(super->d);
    s->min = factor_of(vmulq_n_f32(first, -Q6K_ZERO));
    s->half[0] = factor_of(first);
    s->half[1] = factor_of(to_float(vshrq_n_s32(pairs, 16)));
}

/* How a format's blocks are read. */
#define READ_Q4(load)   load, scales_f16, no_super
#define READ_Q8(load)   load, scales_f16, no_super
#define READ_Q4K(load)  load, scales_q4k, super_q4k
#define READ_Q6K(load)  load, scales_q6k, super_q6k

/* A load at every use, where the compiler would keep the four in a register and copy it: the copy would take a slot
 * of the arithmetic pipes, the load does not. */
INLINE int32x4_t reload(const int32x4_t *four) { return *(const volatile int32x4_t *)four; }
INLINE float32x4_t reload_f(const float32x4_t *four) { return *(const volatile float32x4_t *)four; }

/* c + a * b.  Asm, since gcc copies what the intrinsic returns. */
INLINE float32x4_t fma_in_place(float32x4_t c, float32x4_t a, float32x4_t b)
{
    __asm__("fmla %0.4s, %1.4s, %2.4s" : "+w"(c) : "w"(a), "w"(b));
    return c;
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

typedef struct weights load_fn(const uint8_t *w);

/* The scales of block b; those of its super-block too, if it is the first one of it. */
INLINE void scales_at(struct scales *s, const struct packed *p, const struct layout l, int b, struct super *now, scales_fn *scales,
                      super_fn *super)
{
    if (l.super && b % SUPER == 0) *now = super(p->super + b / SUPER * l.super);
    scales(s, p->scale + b * SCALES_BYTES, now);
}

INLINE void unpack(struct unpacked *to, const struct packed *from, int n_blocks, const struct layout l, load_fn *load, scales_fn *scales,
                   super_fn *super)
{
    struct super now = no_super(from->super);
    for (int b = 0; b < n_blocks; b++) {
        to->weights[b] = load(from->w + b * l.block);
        scales_at(&to->scales[b], from, l, b, &now, scales, super);
    }
}

typedef void panel_fn(const struct panel *p, int rows, const bool unpacked);

/* What the set makes of PANEL_ROWS rows of a chunk, of which `rows` are multiplied; at: the first one's first block.
 * offsets: whether they take part. */
typedef struct rows rows_fn(struct room *room, const struct q8rows *x, size_t at, int n_blocks, int rows, bool offsets);

/* Rows beyond the live ones are computed and dropped: the group has them, and a panel of constant height is fast. */
INLINE int height(int live, int least) { return live > 4 ? 8 : live > 2 ? 4 : live > 1 ? 2 : least; }
INLINE void panel_of_height(const struct panel *p, int rows, const bool unpacked, panel_fn *run, int least)
{
    if (rows == 8) run(p, 8, unpacked);
    else if (rows == 4) run(p, 4, unpacked);
    else if (rows == 2 || least > 1) run(p, 2, unpacked);
    else run(p, 1, unpacked);
}

/* A chunk of a tile's channels 4 * quad .. 4 * quad + 3, from block b of nb on. */
INLINE struct packed quad_of_tile(const uint8_t *tile, const struct layout l, int nb, int b, int quad)
{
    const uint8_t *scales = tile + (size_t)nb * (size_t)l.block, *super = scales + (size_t)nb * SCALES_BYTES;
    const int c = quad * QUAD;
    return (struct packed){ .w = tile + (size_t)b * (size_t)l.block + c * 4, .scale = scales + b * SCALES_BYTES + c * l.scale,
                            .super = super + b / SUPER * l.super + c * 2 };
}

/* Some rows times a tile. */
typedef void unpack_fn(struct unpacked *to, const struct packed *from, int n_blocks);

INLINE void rows_by_tile(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const uint8_t *tile, const bool unpacked,
                         const struct layout l, int least, rows_fn *rows_of, panel_fn *run, unpack_fn *unpack_quad)
{
    const int nb = x->k / QBLOCK;
    struct packed packed[QUADS];
    struct unpacked weights[QUADS];
    struct room room;
    for (int b = 0; b < nb || b == 0; b += CHUNK) {
        const int n_blocks = nb - b < CHUNK ? nb - b : CHUNK;
        for (int i = 0; i < QUADS; i++) {
            packed[i] = quad_of_tile(tile, l, nb, b, i);
            if (unpacked) unpack_quad(&weights[i], &packed[i], n_blocks);
        }
        for (int row = row0; row < row1; row += PANEL_ROWS) {
            const int live = row1 - row < PANEL_ROWS ? row1 - row : PANEL_ROWS, rows = height(live, least);
            const struct rows x_rows = rows_of(&room, x, q8_index(x, row, b), n_blocks, rows, l.min);
            for (int i = 0; i < QUADS; i++)
                panel_of_height(&(struct panel){ .y = y + (size_t)row * ldy + i * QUAD, .ldy = ldy, .live = live, .first = b == 0,
                                                 .n_blocks = n_blocks, .rows = x_rows, .packed = packed[i], .unpacked = &weights[i] },
                                rows, unpacked, run, least);
        }
    }
}

INLINE void gemm_tiles(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const uint8_t *w, int n_tiles,
                       const struct layout l, int least, int unpack_from, rows_fn *rows_of, panel_fn *run, unpack_fn *unpack_quad)
{
    const size_t nb = (size_t)(x->k / QBLOCK);
    const size_t tile_bytes = (nb * (size_t)(l.block + SCALES_BYTES) + nb / SUPER * (size_t)l.super + 63) & ~(size_t)63;
    for (int t = 0; t < n_tiles; t++, w += tile_bytes, y += TILE_N) {
        if (unpack_from && row1 - row0 >= unpack_from) rows_by_tile(y, ldy, x, row0, row1, w, true, l, least, rows_of, run, unpack_quad);
        else rows_by_tile(y, ldy, x, row0, row1, w, false, l, least, rows_of, run, unpack_quad);
    }
}

/* The descriptor of a format: PANEL and ROWS of the set, LEAST rows (1 or 2) of a panel, sums over a block, and how blocks are
 * read: READ_*().  Chunks are unpacked for unpack_from rows and more. */
#define GEMM_OF_PANEL(format, unpack_from, dot, ...)                                                                    \
    INLINE void panel_##format(const struct panel *p, int rows, const bool unpacked)                                   \
    {                                                                                                                  \
        PANEL(p, rows, unpacked, layout_##format, dot, __VA_ARGS__);                                                   \
    }                                                                                                                  \
    INLINE void unpack_##format(struct unpacked *to, const struct packed *from, int n_blocks)                          \
    {                                                                                                                  \
        unpack(to, from, n_blocks, layout_##format, __VA_ARGS__);                                                      \
    }                                                                                                                  \
    static void gemm_##format##_run(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w,   \
                                    int n_tiles)                                                                       \
    {                                                                                                                  \
        gemm_tiles(y, ldy, x, row0, row1, w, n_tiles, layout_##format, LEAST, unpack_from, ROWS, panel_##format,       \
                   unpack_##format);                                                                                   \
    }                                                                                                                  \
    static const struct gemm_int8 gemm_##format = { gemm_##format##_run };

#endif
