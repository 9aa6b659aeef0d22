/* pack.c - from the rows of a file to tiles of 16 interleaved channels, and back.  Layouts: pack.h. */
#include "pack.h"

#include <string.h>

enum { RUN = 4, GROUPS_Q4 = QBLOCK / 2 / RUN, GROUPS_Q8 = QBLOCK / RUN };      /* bytes side by side; such runs in a block */

static size_t round64(size_t n) { return (n + 63) & ~(size_t)63; }

/* ---- blocks of 32 with an f16 scale: runs of 4 bytes of a channel side by side, all scales behind the last block.
 * Packed byte (j*16 + c)*4 + i of a block is byte 4j + i of channel c's block, for both formats: Q4_0 in files pairs
 * k and k + 16 in a byte too. */

static size_t block_tile_bytes(int k, int groups)
{
    return round64((size_t)(k / QBLOCK) * TILE_N * (size_t)(groups * RUN + 2));
}
static size_t q4_tile_bytes(int k) { return block_tile_bytes(k, GROUPS_Q4); }
static size_t q8_tile_bytes(int k) { return block_tile_bytes(k, GROUPS_Q8); }

static void pack_blocks(uint8_t *dst, const void *const rows[TILE_N], int k, int groups)
{
    const size_t nb = (size_t)(k / QBLOCK), block = (size_t)groups * RUN, file_block = 2 + block;
    uint8_t *scales = dst + nb * block * TILE_N;
    memset(dst, 0, block_tile_bytes(k, groups));
    for (size_t c = 0; c < TILE_N; c++) {
        if (!rows[c]) continue;
        const uint8_t *src = rows[c];
        for (size_t b = 0; b < nb; b++, src += file_block) {
            memcpy(scales + (b * TILE_N + c) * 2, src, 2);
            for (size_t j = 0; j < (size_t)groups; j++)
                memcpy(dst + b * block * TILE_N + (j * TILE_N + c) * RUN, src + 2 + j * RUN, RUN);
        }
    }
}

static void unpack_blocks(uint8_t *dst, const uint8_t *tile, size_t c, int k, int groups)
{
    const size_t nb = (size_t)(k / QBLOCK), block = (size_t)groups * RUN, file_block = 2 + block;
    const uint8_t *scales = tile + nb * block * TILE_N;
    for (size_t b = 0; b < nb; b++, dst += file_block) {
        memcpy(dst, scales + (b * TILE_N + c) * 2, 2);
        for (size_t j = 0; j < (size_t)groups; j++)
            memcpy(dst + 2 + j * RUN, tile + b * block * TILE_N + (j * TILE_N + c) * RUN, RUN);
    }
}

static void q4_pack(void *dst, const void *const rows[TILE_N], int k) { pack_blocks(dst, rows, k, GROUPS_Q4); }
static void q8_pack(void *dst, const void *const rows[TILE_N], int k) { pack_blocks(dst, rows, k, GROUPS_Q8); }
static void q4_unpack(void *dst, const void *tile, int c, int k) { unpack_blocks(dst, tile, (size_t)c, k, GROUPS_Q4); }
static void q8_unpack(void *dst, const void *tile, int c, int k) { unpack_blocks(dst, tile, (size_t)c, k, GROUPS_Q8); }

static bool block_scales_finite(const uint8_t *tile, int k, int groups)
{
    const size_t nb = (size_t)(k / QBLOCK);
    const uint8_t *scales = tile + nb * (size_t)(groups * RUN) * TILE_N;
    bool finite = true;
    for (size_t i = 0; i < nb * TILE_N; i++) finite &= (scales[2 * i + 1] & 0x7C) != 0x7C;      /* exponent of all ones */
    return finite;
}
static bool q4_finite(const void *tile, int k) { return block_scales_finite(tile, k, GROUPS_Q4); }
static bool q8_finite(const void *tile, int k) { return block_scales_finite(tile, k, GROUPS_Q8); }

/* ---- plain numbers of 2 or 4 bytes: [k][16] */

static size_t tile_bytes_2(int k) { return round64((size_t)k * TILE_N * 2); }
static size_t tile_bytes_4(int k) { return (size_t)k * TILE_N * 4; }

static void pack_plain(uint8_t *dst, const void *const rows[TILE_N], int k, size_t bytes)
{
    memset(dst, 0, round64((size_t)k * TILE_N * bytes));
    for (size_t c = 0; c < TILE_N; c++) {
        const uint8_t *src = rows[c];
        for (size_t i = 0; src && i < (size_t)k; i++) memcpy(dst + (i * TILE_N + c) * bytes, src + i * bytes, bytes);
    }
}

static void unpack_plain(uint8_t *dst, const uint8_t *tile, size_t c, int k, size_t bytes)
{
    for (size_t i = 0; i < (size_t)k; i++) memcpy(dst + i * bytes, tile + (i * TILE_N + c) * bytes, bytes);
}

static void pack_2(void *dst, const void *const rows[TILE_N], int k) { pack_plain(dst, rows, k, 2); }
static void pack_4(void *dst, const void *const rows[TILE_N], int k) { pack_plain(dst, rows, k, 4); }
static void unpack_2(void *dst, const void *tile, int c, int k) { unpack_plain(dst, tile, (size_t)c, k, 2); }
static void unpack_4(void *dst, const void *tile, int c, int k) { unpack_plain(dst, tile, (size_t)c, k, 4); }

static bool no_scales(const void *tile, int k)
{
    (void)tile;
    (void)k;
    return true;
}

const struct pack_format pack_formats[] = {
    { &format_q4_0, q4_tile_bytes, q4_pack, q4_unpack, q4_finite },
    { &format_q8_0, q8_tile_bytes, q8_pack, q8_unpack, q8_finite },
    { &format_f32,  tile_bytes_4,  pack_4,  unpack_4, no_scales },
    { &format_f16,  tile_bytes_2,  pack_2,  unpack_2, no_scales },
    { &format_bf16, tile_bytes_2,  pack_2,  unpack_2, no_scales },
    { NULL, NULL, NULL, NULL, NULL }
};

const struct pack_format *pack_format_of(const struct quant_format *f)
{
    for (const struct pack_format *p = pack_formats; p->format; p++)
        if (p->format == f) return p;
    return NULL;
}

const struct pack_format *pack_format_by_gguf_type(uint32_t type)
{
    for (const struct pack_format *p = pack_formats; p->format; p++)
        if (pack_gguf_type(p) == type) return p;
    return NULL;
}
