/* weights_x86.h - packed weights (pack.h) as the x86 matrix products read them: two registers of channels side by side.
 *
 * The file that includes this one defines first what its products make of Q6_K's scale codes of both halves of a block:
 *     struct scales_6, scales_6_of(vint pairs)             out of 16-bit pairs */
#ifndef WEIGHTS_X86_H
#define WEIGHTS_X86_H

#include "pack.h"
#include "vectors.h"

enum {
    TILES_V = 2 * LANES_V / TILE_N,             /* tiles that two registers span: 1 or 2            */
    MOST_ROWS = 128,                            /* whose float sums are kept at a time              */
    QUADS = QBLOCK / 4
};

enum format { Q4, Q8, Q4K, Q6K };

INLINE size_t block_bytes(const enum format f) { return f == Q8 ? Q8_BYTES : f == Q6K ? Q6K_BYTES : Q4_BYTES; }
INLINE size_t super_bytes(const enum format f) { return f == Q4K ? Q4K_SUPER_BYTES : f == Q6K ? Q6K_SUPER_BYTES : 0; }

/* pack_format.tile_bytes() without a call. */
INLINE size_t tile_bytes_of(const enum format f, int nb)
{
    return ((size_t)nb * (block_bytes(f) + SCALES_BYTES) + (size_t)(nb / SUPER) * super_bytes(f) + 63) & ~(size_t)63;
}

/* The weights of one step: where each of the two registers finds its channels, in blocks, in what each block has behind
 * them, and in what each super-block has. */
struct weights { const uint8_t *q[2], *scales[2], *super[2]; };

/* What a block's sums are multiplied by. */
struct scales { vfloat d[2], min[2]; struct scales_6 codes[2]; };
struct super { vfloat d[2], min[2]; };          /* d, dmin / 8 */

/* Two registers from tile w on.  NV == 1: a last tile alone, where registers are as wide as a tile. */
INLINE struct weights weights_of(const enum format f, const uint8_t *w, int nb, size_t tile_bytes)
{
    const size_t scales = (size_t)nb * block_bytes(f), super = scales + (size_t)nb * SCALES_BYTES;
    const uint8_t *next = w + tile_bytes;
    if (TILES_V == 2) return (struct weights){ { w, next }, { w + scales, next + scales }, { w + super, next + super } };
    const size_t half = f == Q4K ? LANES_V : 2 * LANES_V;       /* codes have one byte there, not two */
    return (struct weights){ { w, w + sizeof(vint) }, { w + scales, w + scales + half }, { w + super, w + super + 2 * LANES_V } };
}

/* What is fetched into the cache beforehand: a block for every `every` steps, some blocks on; after the last one of these tiles
 * the first ones of those that follow. */
struct ahead { const uint8_t *q[TILES_V], *scales[TILES_V]; const struct weights *next; int blocks, nb, every, left; };

INLINE void ahead_at(const enum format f, struct ahead *a, const struct weights *packed, int b)
{
    a->blocks = a->nb - b;
    for (int t = 0; t < TILES_V; t++) {
        a->q[t] = packed->q[t] + (size_t)b * block_bytes(f);
        a->scales[t] = packed->scales[t] + (size_t)b * SCALES_BYTES;
    }
}

INLINE void fetch_ahead(const enum format f, struct ahead *a)
{
    if (--a->left) return;
    a->left = a->every;
    if (a->blocks == 0) ahead_at(f, a, a->next, 0);
    a->blocks--;
    for (int t = 0; t < TILES_V; t++) {
        for (size_t line = 0; line < block_bytes(f); line += 64) __builtin_prefetch(a->q[t] + line);
        __builtin_prefetch(a->scales[t]);
        a->q[t] += block_bytes(f);
        a->scales[t] += SCALES_BYTES;
    }
}

/* Codes of quad j of a register of packed weights at q: signed bytes for Q8, 0 to 15 for Q4 and Q4K, 0 to 63 for Q6K. */
INLINE vint codes(const enum format f, const uint8_t *q, int j)
{
    if (f == Q8) return load_v(q + j * 64);
    const vint nibbles = j < QUADS / 2 ? low_nibbles(load_v(q + j * 64)) : high_nibbles(load_v(q + (j - QUADS / 2) * 64));
    return f == Q6K ? or_v(nibbles, bits_5_4(load_v(q + Q4_BYTES + j % 2 * 64), j / 2)) : nibbles;
}

INLINE void load_super(const enum format f, const int NV, struct super *super, const struct weights *packed, int b)
{
    const size_t at = (size_t)(b / SUPER) * super_bytes(f);
UNROLL
    for (int v = 0; v < NV; v++) {
        super->d[v] = from_f16(packed->super[v] + at);
        if (f == Q4K) super->min[v] = mul_f(from_f16(packed->super[v] + at + 2 * TILE_N), broadcast_f(0.125f));
    }
}

INLINE void load_scales(const enum format f, const int NV, struct scales *s, const struct super *super, const struct weights *packed, int b)
{
UNROLL
    for (int v = 0; v < NV; v++) {
        const uint8_t *at = packed->scales[v] + (size_t)b * SCALES_BYTES;
        if (f == Q4 || f == Q8) s->d[v] = from_f16(at);
        if (f == Q4K) {
            s->d[v] = mul_f(super->d[v], from_u8(at));
            s->min[v] = mul_f(super->min[v], from_u8(at + TILE_N));
        }
        if (f == Q6K) {
            s->d[v] = super->d[v];
            s->codes[v] = scales_6_of(from_i8(at));
        }
    }
}

#endif
