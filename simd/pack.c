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

/* None of n f16 has an exponent of all ones. */
static bool f16_finite(const uint8_t *f16, int n)
{
    bool finite = true;
    for (size_t i = 0; i < (size_t)n; i++) finite &= (f16[2 * i + 1] & 0x7C) != 0x7C;
    return finite;
}

static bool q4_finite(const void *tile, int k)
{
    return f16_finite((const uint8_t *)tile + (size_t)(k / QBLOCK) * Q4_BYTES, k / QBLOCK * TILE_N);
}

static bool q8_finite(const void *tile, int k)
{
    return f16_finite((const uint8_t *)tile + (size_t)(k / QBLOCK) * Q8_BYTES, k / QBLOCK * TILE_N);
}

/* ---- super-blocks of 256 */

enum { HALF = QBLOCK / 2 };

/* Where in a tile the codes of the scales begin, and the f16 behind them. */
static size_t codes_at(int k, size_t block) { return (size_t)(k / QBLOCK) * block; }
static size_t super_at(int k, size_t block) { return (size_t)(k / QBLOCK) * (block + SCALES_BYTES); }

/* Nibbles k and k + 16 of block `to` share a byte; in files nibbles k of two blocks do. */
static void put_nibbles(uint8_t *tile, size_t block, size_t b, size_t c, const uint8_t nibble[QBLOCK])
{
    uint8_t *dst = tile + b * block + c * RUN;
    for (size_t i = 0; i < HALF; i++) dst[i / RUN * TILE_N * RUN + i % RUN] = (uint8_t)(nibble[i] | nibble[i + HALF] << 4);
}
static void get_nibbles(uint8_t nibble[QBLOCK], const uint8_t *tile, size_t block, size_t b, size_t c)
{
    const uint8_t *src = tile + b * block + c * RUN;
    for (size_t i = 0; i < HALF; i++) {
        nibble[i] = src[i / RUN * TILE_N * RUN + i % RUN] & 15;
        nibble[i + HALF] = src[i / RUN * TILE_N * RUN + i % RUN] >> 4;
    }
}

static size_t q4k_tile_bytes(int k) { return round64(super_at(k, Q4_BYTES) + (size_t)(k / KBLOCK) * Q4K_SUPER_BYTES); }

static void q4k_pack(void *dst, const void *const rows[TILE_N], int k)
{
    uint8_t *tile = dst, *codes = tile + codes_at(k, Q4_BYTES), *super = tile + super_at(k, Q4_BYTES);
    memset(dst, 0, q4k_tile_bytes(k));
    for (size_t c = 0; c < TILE_N; c++) {
        const uint8_t *src = rows[c];
        for (size_t s = 0; src && s < (size_t)(k / KBLOCK); s++, src += sizeof(struct block_q4_k)) {
            struct block_q4_k block;
            memcpy(&block, src, sizeof block);
            memcpy(super + s * Q4K_SUPER_BYTES + 2 * c, &block.d, 2);
            memcpy(super + s * Q4K_SUPER_BYTES + 2 * (TILE_N + c), &block.dmin, 2);
            for (size_t g = 0; g < SUPER; g++) {
                const size_t b = s * SUPER + g;
                uint8_t nibble[QBLOCK];
                int scale, minimum;
                q4_k_get_codes(&block, (int)g, &scale, &minimum);
                codes[b * SCALES_BYTES + c] = (uint8_t)scale;
                codes[b * SCALES_BYTES + TILE_N + c] = (uint8_t)minimum;
                for (size_t i = 0; i < QBLOCK; i++) nibble[i] = block.q[g / 2 * QBLOCK + i] >> g % 2 * 4 & 15;
                put_nibbles(tile, Q4_BYTES, b, c, nibble);
            }
        }
    }
}

static void q4k_unpack(void *dst, const void *tile, int channel, int k)
{
    const uint8_t *from = tile, *codes = from + codes_at(k, Q4_BYTES), *super = from + super_at(k, Q4_BYTES);
    const size_t c = (size_t)channel;
    for (size_t s = 0; s < (size_t)(k / KBLOCK); s++) {
        struct block_q4_k block = { .d = 0 };
        memcpy(&block.d, super + s * Q4K_SUPER_BYTES + 2 * c, 2);
        memcpy(&block.dmin, super + s * Q4K_SUPER_BYTES + 2 * (TILE_N + c), 2);
        for (size_t g = 0; g < SUPER; g++) {
            const size_t b = s * SUPER + g;
            uint8_t nibble[QBLOCK];
            q4_k_set_codes(&block, (int)g, codes[b * SCALES_BYTES + c], codes[b * SCALES_BYTES + TILE_N + c]);
            get_nibbles(nibble, from, Q4_BYTES, b, c);
            for (size_t i = 0; i < QBLOCK; i++) block.q[g / 2 * QBLOCK + i] |= (uint8_t)(nibble[i] << g % 2 * 4);
        }
        memcpy((uint8_t *)dst + s * sizeof block, &block, sizeof block);
    }
}

static bool q4k_finite(const void *tile, int k)
{
    return f16_finite((const uint8_t *)tile + super_at(k, Q4_BYTES), k / KBLOCK * 2 * TILE_N);
}

static size_t q6k_tile_bytes(int k) { return round64(super_at(k, Q6K_BYTES) + (size_t)(k / KBLOCK) * Q6K_SUPER_BYTES); }

/* Bits 5..4 of the codes of a block; four k that are 8 apart share a byte. */
static void put_high(uint8_t *tile, size_t b, size_t c, const uint8_t high[QBLOCK])
{
    uint8_t *dst = tile + b * Q6K_BYTES + Q4_BYTES + c * RUN;
    for (size_t i = 0; i < 2 * RUN; i++)
        dst[i / RUN * TILE_N * RUN + i % RUN] = (uint8_t)(high[i] | high[i + 8] << 2 | high[i + 16] << 4 | high[i + 24] << 6);
}
static void get_high(uint8_t high[QBLOCK], const uint8_t *tile, size_t b, size_t c)
{
    const uint8_t *src = tile + b * Q6K_BYTES + Q4_BYTES + c * RUN;
    for (size_t i = 0; i < QBLOCK; i++) high[i] = src[i % 8 / RUN * TILE_N * RUN + i % RUN] >> i / 8 * 2 & 3;
}

/* In files a half of 128 values has 64 bytes of nibbles and 32 of high bits; block g is quarter q = g % 4 of it. */
enum { QUARTERS = 4 };
static size_t q6k_low(size_t g) { return g / QUARTERS * 64 + g % 2 * QBLOCK; }
static int q6k_low_shift(size_t g) { return g % QUARTERS < 2 ? 0 : 4; }
static size_t q6k_high(size_t g) { return g / QUARTERS * QBLOCK; }
static int q6k_high_shift(size_t g) { return (int)(g % QUARTERS) * 2; }

static void q6k_pack(void *dst, const void *const rows[TILE_N], int k)
{
    uint8_t *tile = dst, *codes = tile + codes_at(k, Q6K_BYTES), *super = tile + super_at(k, Q6K_BYTES);
    memset(dst, 0, q6k_tile_bytes(k));
    for (size_t c = 0; c < TILE_N; c++) {
        const uint8_t *src = rows[c];
        for (size_t s = 0; src && s < (size_t)(k / KBLOCK); s++, src += sizeof(struct block_q6_k)) {
            struct block_q6_k block;
            memcpy(&block, src, sizeof block);
            memcpy(super + s * Q6K_SUPER_BYTES + 2 * c, &block.d, 2);
            for (size_t g = 0; g < SUPER; g++) {
                const size_t b = s * SUPER + g;
                uint8_t nibble[QBLOCK], high[QBLOCK];
                memcpy(codes + b * SCALES_BYTES + 2 * c, block.scale + 2 * g, 2);
                for (size_t i = 0; i < QBLOCK; i++) nibble[i] = block.low[q6k_low(g) + i] >> q6k_low_shift(g) & 15;
                for (size_t i = 0; i < QBLOCK; i++) high[i] = block.high[q6k_high(g) + i] >> q6k_high_shift(g) & 3;
                put_nibbles(tile, Q6K_BYTES, b, c, nibble);
                put_high(tile, b, c, high);
            }
        }
    }
}

static void q6k_unpack(void *dst, const void *tile, int channel, int k)
{
    const uint8_t *from = tile, *codes = from + codes_at(k, Q6K_BYTES), *super = from + super_at(k, Q6K_BYTES);
    const size_t c = (size_t)channel;
    for (size_t s = 0; s < (size_t)(k / KBLOCK); s++) {
        struct block_q6_k block = { .d = 0 };
        memcpy(&block.d, super + s * Q6K_SUPER_BYTES + 2 * c, 2);
        for (size_t g = 0; g < SUPER; g++) {
            const size_t b = s * SUPER + g;
            uint8_t nibble[QBLOCK], high[QBLOCK];
            memcpy(block.scale + 2 * g, codes + b * SCALES_BYTES + 2 * c, 2);
            get_nibbles(nibble, from, Q6K_BYTES, b, c);
            get_high(high, from, b, c);
            for (size_t i = 0; i < QBLOCK; i++) block.low[q6k_low(g) + i] |= (uint8_t)(nibble[i] << q6k_low_shift(g));
            for (size_t i = 0; i < QBLOCK; i++) block.high[q6k_high(g) + i] |= (uint8_t)(high[i] << q6k_high_shift(g));
        }
        memcpy((uint8_t *)dst + s * sizeof block, &block, sizeof block);
    }
}

static bool q6k_finite(const void *tile, int k)
{
    return f16_finite((const uint8_t *)tile + super_at(k, Q6K_BYTES), k / KBLOCK * TILE_N);
}

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

static bool f16_tile_finite(const void *tile, int k) { return f16_finite(tile, k * TILE_N); }

static bool bf16_tile_finite(const void *tile, int k)
{
    const uint8_t *p = tile;
    bool finite = true;
    for (size_t i = 0; i < (size_t)k * TILE_N; i++) finite &= ((p[2 * i] | p[2 * i + 1] << 8) & 0x7F80) < 0x7F80;
    return finite;
}

static bool f32_tile_finite(const void *tile, int k)
{
    const uint8_t *p = tile;
    bool finite = true;
    for (size_t i = 0; i < (size_t)k * TILE_N; i++) finite &= ((p[4 * i + 2] | p[4 * i + 3] << 8) & 0x7F80) < 0x7F80;
    return finite;
}

/* ---- the table */

#define INT8(m) static const struct gemm_int8 *m(const struct kernels *k) { return k->m; }
#define FLOAT(m) static const struct gemm_float *m(const struct kernels *k) { return k->m; }
INT8(gemm_q4) INT8(gemm_q8) INT8(gemm_q4k) INT8(gemm_q6k) FLOAT(gemm_f32) FLOAT(gemm_f16) FLOAT(gemm_bf16)

const struct pack_format pack_formats[] = {
    { &format_q4_0, "gemm_q4",   gemm_q4,  NULL,      q4_tile_bytes,  q4_pack,  q4_unpack,  q4_finite },
    { &format_q4_k, "gemm_q4k",  gemm_q4k, NULL,      q4k_tile_bytes, q4k_pack, q4k_unpack, q4k_finite },
    { &format_q6_k, "gemm_q6k",  gemm_q6k, NULL,      q6k_tile_bytes, q6k_pack, q6k_unpack, q6k_finite },
    { &format_q8_0, "gemm_q8",   gemm_q8,  NULL,      q8_tile_bytes,  q8_pack,  q8_unpack,  q8_finite },
    { &format_f32,  "gemm_f32",  NULL,     gemm_f32,  tile_bytes_4,   pack_4,   unpack_4,   f32_tile_finite },
    { &format_f16,  "gemm_f16",  NULL,     gemm_f16,  tile_bytes_2,   pack_2,   unpack_2,   f16_tile_finite },
    { &format_bf16, "gemm_bf16", NULL,     gemm_bf16, tile_bytes_2,   pack_2,   unpack_2,   bf16_tile_finite },
    { NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL }
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
