/* pack.h - packed weights: 16 output channels interleaved, so that one vector lane is one output.
 * A matrix of n rows (channels) and k columns is ceil(n / 16) tiles that follow each other; missing channels are 0.
 *
 *   q4   k/32 blocks of 256 bytes, then k/32 x 16 f16 scales
 *        byte (j*16 + c)*4 + i of a block, j, i < 4:  low nibble k = 4j + i, high nibble k = 16 + 4j + i, of channel c
 *   q8   k/32 blocks of 512 bytes, then k/32 x 16 f16 scales
 *        byte (j*16 + c)*4 + i of a block, j < 8, i < 4:  k = 4j + i of channel c, signed
 *   q4k  k/32 blocks of 256 bytes as in q4; k/32 x (16 scale codes, 16 minimum codes), a byte each; then for each
 *        super-block of 256 k: 16 f16 d, 16 f16 dmin            4.63 bits a weight; the file's 4.5 with 6 bits a code
 *   q6k  k/32 blocks of 384 bytes; k/32 x 16 x 2 scale codes, signed bytes, of the two halves of a block; then for each
 *        super-block: 16 f16 d                                  6.56 bits a weight, as in the file
 *        the first 256 bytes of a block hold bits 3..0 of the codes, as in q4
 *        byte 256 + (j*16 + c)*4 + i, j < 2:  bits 5..4 of k = 8t + 4j + i in bits 2t+1, 2t, t < 4
 *   f32, f16, bf16   [k][16]
 *
 * Tiles start on 64-byte boundaries when the first does: tile_bytes is rounded up to 64. */
#ifndef PACK_H
#define PACK_H

#include <stdbool.h>

#include "kernels.h"

enum {
    Q4_BYTES = QBLOCK / 2 * TILE_N, Q8_BYTES = QBLOCK * TILE_N, Q6K_BYTES = Q4_BYTES + QBLOCK / 4 * TILE_N,    /* of a block of a tile */
    SUPER = KBLOCK / QBLOCK,            /* blocks of a super-block                                          */
    SCALES_BYTES = 2 * TILE_N,          /* what each block has behind the last block, in all four           */
    Q4K_SUPER_BYTES = 4 * TILE_N, Q6K_SUPER_BYTES = 2 * TILE_N          /* what each super-block has behind that */
};

struct pack_format {
    const struct quant_format *format;
    const char *kernel;                 /* its matrix product: a name in KERNELS, and where it is           */
    const struct gemm_int8 *(*gemm_int8)(const struct kernels *k);      /* NULL: float activations          */
    const struct gemm_float *(*gemm_float)(const struct kernels *k);    /* NULL: int8 activations           */
    size_t (*tile_bytes)(int k);
    /* rows[c]: row of channel c in the file's layout, or NULL for a missing channel. */
    void (*pack_tile)(void *dst, const void *const rows[TILE_N], int k);
    /* Channel c of a tile in the file's layout again, for embedding look-ups and for copies that lose nothing. */
    void (*unpack_row)(void *dst, const void *tile, int c, int k);
    /* Nothing in the tile is infinite or NaN: no scale, or no number of a format without scales. */
    bool (*finite)(const void *tile, int k);
};

extern const struct pack_format pack_formats[]; /* one row per format that kernels know; a NULL format ends it */
const struct pack_format *pack_format_of(const struct quant_format *f);         /* NULL: no kernel for it */

/* Tensor type ids of packed matrices in GGUF files: "UM", the number of this layout, and the format's own id, so that other
 * readers, and builds that lay tiles out otherwise, refuse such a tensor instead of misreading it. */
enum { PACK_GGUF_TYPE = 0x554D0100 };
static inline uint32_t pack_gguf_type(const struct pack_format *p) { return PACK_GGUF_TYPE | p->format->gguf_type; }
const struct pack_format *pack_format_by_gguf_type(uint32_t type);              /* NULL: none, or not a packed one */

static inline int tiles_of(int n) { return (n + TILE_N - 1) / TILE_N; }

#endif
