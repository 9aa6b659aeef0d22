/* gemm_neon.h - what the NEON matrix products over packed blocks share: the walk over tiles, k and rows.
 * Each set gives its panel: 4 channels of a tile times 1 to 8 rows of a group, over a chunk of k.  The vector pipes are what
 * all of it waits for.  So for more rows than a group's a chunk is unpacked once, and loads replace what would be done again. */
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
    SECOND_GROUP = ROW_GROUP + 1, NEVER = 0,            /* from how many rows on chunks are unpacked         */
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
struct scales { float32x4_t d, min, half[2]; };
struct super { float32x4_t d, min; };           /* d and dmin / 8 */
#define Q6K_ZERO 0x1.8p21f                      /* what sums of Q6_K start from, where they are the bits of floats */

/* Where a chunk of 4 channels lies in a tile: first channel, with layout.block and 32 bytes to the next block,
 * layout.super to the next super-block. */
struct packed { const uint8_t *w, *scale, *super; };

/* The same, unpacked: what the set's load and the format's scales make of it. */
struct unpacked { struct weights weights[CHUNK]; struct scales scales[CHUNK]; };

/* Between chunks the running sums lie in y. */
struct panel {
    float *y; size_t ldy;               /* first row, first channel                                          */
    int live;                           /* rows to store; a panel may compute more of the group              */
    bool first;                         /* first chunk: sums start from 0 and not from y                     */
    int n_blocks;
    const int8_t *q;                    /* first row: 32 bytes to the next row, 256 to the next block        */
    const float *scale;                 /* first row: 8 floats to the next block                             */
    const float *offset;                /* the same; offset * scale                                          */
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

INLINE void scales_f16(struct scales *s, const uint8_t *scale, const struct super *super) { (void)super; s->d = load_f16(scale); }
INLINE void scales_q4k(struct scales *s, const uint8_t *codes, const struct super *super)
{
    s->d = vmulq_f32(super->d, load_u8(codes));
    s->min = vmulq_f32(super->min, load_u8(codes + TILE_N));
}
INLINE void scales_q6k(struct scales *s, const uint8_t *codes, const struct super *super)
{
    const int32x4_t pairs = vreinterpretq_s32_s16(vmovl_s8(vreinterpret_s8_u8(vld1_u8(codes))));
    s->d = super->d;
    s->half[0] = to_float(vshrq_n_s32(vshlq_n_s32(pairs, 16), 16));
    s->half[1] = to_float(vshrq_n_s32(pairs, 16));
    s->min = vmulq_n_f32(s->half[0], -Q6K_ZERO);
}

/* How a format's blocks are read. */
#define READ_Q4(load)   load, scales_f16, no_super
#define READ_Q8(load)   load, scales_f16, no_super
#define READ_Q4K(load)  load, scales_q4k, super_q4k
#define READ_Q6K(load)  load, scales_q6k, super_q6k

/* A load at every use, where the compiler would keep the four in a register and copy it: the copy would take a slot
 * of the arithmetic pipes, the load does not. */
INLINE int32x4_t reload(const int32_t four[4])
{
    int32x4_t v;
    __asm__ volatile("ldr %q0, %1" : "=w"(v) : "m"(*(const int32_t (*)[4])four));
    return v;
}
/* fma(c, d, fma(a, b, *start)): the same. */
INLINE float32x4_t fma_from(const float32x4_t *start, float32x4_t a, float32x4_t b, float32x4_t c, float32x4_t d)
{
    float32x4_t v;
    __asm__ volatile("ldr %q0, %1\n\tfmla %0.4s, %2.4s, %3.4s\n\tfmla %0.4s, %4.4s, %5.4s"
                     : "=&w"(v) : "m"(*start), "w"(a), "w"(b), "w"(c), "w"(d));
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
typedef float32x4_t dot_fn(const struct weights *w, const int8_t *x, const struct scales *s);
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

INLINE void panel_by_rows(const struct panel *p, int rows, const bool unpacked, const struct layout l, dot_fn *dot, load_fn *load,
                          scales_fn *scales, super_fn *super)
{
    float32x4_t acc[ROW_GROUP];
    const int8_t *q = p->q;
    const float *scale = p->scale, *offset = p->offset;
    struct super now = no_super(NULL);
    struct scales own;
    load_sums(acc, p, rows);
    for (int b = 0; b < p->n_blocks; b++) {
        const struct weights w = unpacked ? p->unpacked->weights[b] : load(p->packed.w + b * l.block);
        if (!unpacked) scales_at(&own, &p->packed, l, b, &now, scales, super);
        const struct scales *s = unpacked ? &p->unpacked->scales[b] : &own;
        UNROLL for (int r = 0; r < rows; r++) {
            acc[r] = vfmaq_f32(acc[r], dot(&w, q + r * QBLOCK, s), vmulq_n_f32(s->d, scale[r]));
            if (l.min) acc[r] = vfmaq_n_f32(acc[r], s->min, offset[r]);
        }
        q += ROW_GROUP * QBLOCK;
        scale += ROW_GROUP;
        offset += ROW_GROUP;
    }
    store_sums(acc, p, rows);
}

typedef void panel_fn(const struct panel *p, int rows, const bool unpacked);

/* Rows beyond the live ones are computed and dropped: the group has them, and a panel of constant height is fast. */
INLINE void panel_of_rows(const struct panel *p, const bool unpacked, panel_fn *run, int least)
{
    if (p->live > 4) run(p, 8, unpacked);
    else if (p->live > 2) run(p, 4, unpacked);
    else if (p->live > 1 || least > 1) run(p, 2, unpacked);
    else run(p, 1, unpacked);
}

/* offset * scale of the rows of a group. */
INLINE void times_offsets(float *t, const int32_t *offset, const float *scale, int n_blocks)
{
    for (int i = 0; i < n_blocks * ROW_GROUP; i += 4) vst1q_f32(t + i, vmulq_f32(to_float(vld1q_s32(offset + i)), vld1q_f32(scale + i)));
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
                         const struct layout l, int least, panel_fn *run, unpack_fn *unpack_quad)
{
    const int nb = x->k / QBLOCK;
    struct packed packed[QUADS];
    struct unpacked room[QUADS];
    float offsets[CHUNK * ROW_GROUP];
    for (int b = 0; b < nb || b == 0; b += CHUNK) {
        const int n_blocks = nb - b < CHUNK ? nb - b : CHUNK;
        for (int i = 0; i < QUADS; i++) {
            packed[i] = quad_of_tile(tile, l, nb, b, i);
            if (unpacked) unpack_quad(&room[i], &packed[i], n_blocks);
        }
        for (int row = row0; row < row1; row += ROW_GROUP) {
            const size_t at = q8_index(x, row, b);
            if (l.min) times_offsets(offsets, x->offset + at, x->scale + at, n_blocks);
            for (int i = 0; i < QUADS; i++)
                panel_of_rows(&(struct panel){
                    .y = y + (size_t)row * ldy + i * QUAD, .ldy = ldy, .live = row1 - row < ROW_GROUP ? row1 - row : ROW_GROUP,
                    .first = b == 0, .n_blocks = n_blocks, .q = x->q + at * QBLOCK, .scale = x->scale + at, .offset = offsets,
                    .packed = packed[i], .unpacked = &room[i] }, unpacked, run, least);
        }
    }
}

INLINE void gemm_tiles(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const uint8_t *w, int n_tiles,
                       const struct layout l, int least, int unpack_from, panel_fn *run, unpack_fn *unpack_quad)
{
    const size_t nb = (size_t)(x->k / QBLOCK);
    const size_t tile_bytes = (nb * (size_t)(l.block + SCALES_BYTES) + nb / SUPER * (size_t)l.super + 63) & ~(size_t)63;
    for (int t = 0; t < n_tiles; t++, w += tile_bytes, y += TILE_N) {
        if (unpack_from && row1 - row0 >= unpack_from) rows_by_tile(y, ldy, x, row0, row1, w, true, l, least, run, unpack_quad);
        else rows_by_tile(y, ldy, x, row0, row1, w, false, l, least, run, unpack_quad);
    }
}

/* The descriptor of a format: of the set's panel, which is given at least `least` rows (1 or 2), its sums over a block, and how
 * blocks are read: READ_*().  Chunks are unpacked for unpack_from rows and more. */
#define GEMM_OF_PANEL(format, least, unpack_from, by, dot, ...)                                                         \
    INLINE void panel_##format(const struct panel *p, int rows, const bool unpacked)                                   \
    {                                                                                                                  \
        by(p, rows, unpacked, layout_##format, dot, __VA_ARGS__);                                                      \
    }                                                                                                                  \
    INLINE void unpack_##format(struct unpacked *to, const struct packed *from, int n_blocks)                          \
    {                                                                                                                  \
        unpack(to, from, n_blocks, layout_##format, __VA_ARGS__);                                                      \
    }                                                                                                                  \
    static void gemm_##format##_run(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w,   \
                                    int n_tiles)                                                                       \
    {                                                                                                                  \
        gemm_tiles(y, ldy, x, row0, row1, w, n_tiles, layout_##format, least, unpack_from, panel_##format,             \
                   unpack_##format);                                                                                   \
    }                                                                                                                  \
    static const struct gemm_int8 gemm_##format = { gemm_##format##_run };

#endif
