/* amx.c - matrix products for AMX, whose tile instructions multiply 16 rows of activations by 16 channels at once.
 *
 * tdpbssd gives the integer sums of a block, 16 rows x 16 channels of them (Intel SDM vol. 2, TDPBSSD).  Tiles and vectors
 * share no registers: sums go through memory that stays in L1, and AVX-512 scales and adds them up.  Sums and scaling take
 * turns over a batch of blocks, since for some hundred cycles after each tile instruction a float multiplication finds one
 * port instead of two.  Activations are read where they are: a group of rows is as high as a tile.
 * A chunk of weights, two tiles of channels wide, is unpacked once for all rows; the float sums lie side by side meanwhile,
 * for rows of y are a power of 2 apart in most models and would push each other out of the caches. */
#include "attend_x86.h"

/* Sums of the halves of a Q6_K block, below 2^17, times their scale codes: floats hold both and their sum exactly. */
struct scales_6 { vfloat half[2]; };
INLINE struct scales_6 scales_6_of(vint pairs)
{
    return (struct scales_6){ { to_float(low_halves(pairs)), to_float(high_halves(pairs)) } };
}

#include "weights_x86.h"

enum {
    TILE_ROWS = 16,
    LEAST_ROWS = 10,            /* fewer are done by vectors,                                       */
    LEAST_LEFT = 9,             /* and fewer behind whole tiles, which cost more there: weights are unpacked twice */
    CHUNK = 4,                  /* blocks that are unpacked at a time: 4 KiB of codes               */
    BATCH = 4                   /* sums between two turns: 16 KiB                                   */
};
_Static_assert((int)TILE_ROWS == ROW_GROUP && CHUNK % BATCH == 0 && SUPER % CHUNK == 0 && TILES_V == 2,
               "tiles of rows are groups; chunks lie within super-blocks; registers are tiles of channels");

/* Integer sums of a block: one of all 32 products, but for Q6_K one of either half. */
INLINE int sums_of_block(const enum format f) { return f == Q6K ? 2 : 1; }

struct work {
    int8_t w[CHUNK][2][QUADS][64];                      /* [block][channels][k / 4][channel][k % 4] */
    struct scales scales[CHUNK];
    int32_t isum[BATCH][2][2][TILE_ROWS][TILE_N];       /* [sum][rows][channels][row][channel]      */
    float acc[MOST_ROWS / TILE_ROWS][2][TILE_ROWS][TILE_N];
} __attribute__((aligned(64)));

/* The operand of ldtilecfg.  Tiles 0 to 3: sums of two tiles of rows, times two of channels; 4 and 5: rows; 6 and 7: channels. */
struct tile_config { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; };
#define CONFIG(k) { .palette = 1, .row_bytes = { 64, 64, 64, 64, k, k, 64, 64 }, .rows = { 16, 16, 16, 16, 16, 16, (k) / 4, (k) / 4 } }
static const struct tile_config blocks = CONFIG(QBLOCK), halves = CONFIG(QBLOCK / 2);

/* By hand: gcc 12's intrinsics do not tell the compiler that they read memory.  Tiles are numbered in the instruction. */
#define TILE_LOAD(tile, from, stride) __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #tile : : "r"(from), "r"((long)(stride)) : "memory")
#define TILE_STORE(tile, to) __asm__ volatile("tilestored %%tmm" #tile ", (%0,%1,1)" : : "r"(to), "r"(64l) : "memory")
#define TILE_PRODUCT(sum, rows, channels) \
    __asm__ volatile("tilezero %%tmm" #sum "\n\ttdpbssd %%tmm" #channels ", %%tmm" #rows ", %%tmm" #sum : :)

INLINE void configure(const struct tile_config *c) { __asm__ volatile("ldtilecfg %0" : : "m"(*c)); }
INLINE void release(void) { __asm__ volatile("tilerelease" : : : "memory"); }

/* Quad j of a register of packed weights at q, as integers: codes of Q6_K are 32 too high, those of Q4_0 8.  Of these bits 3 to 7
 * become what bit 3 is not, by a matrix that has a byte for each bit, bit 0 last (Intel SDM vol. 2, GF2P8AFFINEQB). */
INLINE vint signed_weight(const enum format f, const uint8_t *q, int j)
{
    if (f == Q4) {
        const vint pairs = load_v(q + j % (QUADS / 2) * 64);
        return j < QUADS / 2 ? _mm512_gf2p8affine_epi64_epi8(pairs, _mm512_set1_epi64(0x0102040808080808), 0xF8)
                             : _mm512_gf2p8affine_epi64_epi8(pairs, _mm512_set1_epi64(0x1020408080808080), 0xF8);
    }
    return f == Q6K ? _mm512_sub_epi8(codes(f, q, j), _mm512_set1_epi8(32)) : codes(f, q, j);
}

INLINE void unpack(struct work *t, const enum format f, const struct weights *packed, int b0, int b1)
{
    struct super super;
    if (super_bytes(f)) load_super(f, 2, &super, packed, b0);
    for (int b = b0; b < b1; b++) {
        for (int v = 0; v < 2; v++)
UNROLL
            for (int j = 0; j < QUADS; j++) store_v(t->w[b - b0][v][j], signed_weight(f, packed->q[v] + (size_t)b * block_bytes(f), j));
        load_scales(f, 2, &t->scales[b - b0], &super, packed, b);
    }
}

/* isum of `sums` sums from w on.  A sum is stored when the next product needs its tile: it takes long to come out.  Weights are
 * fetched block by block in between: the CPU waits for no more than 16 lines at a time. */
INLINE void multiply(struct work *t, const enum format f, const int row_tiles, const int8_t *const x[2],
                     int8_t (*w)[2][QUADS][64], int sums, struct ahead *ahead)
{
    const int per = sums_of_block(f);
    for (int s = 0; s < sums; s++) {
        const int at = s / per * TILE_ROWS * QBLOCK + s % per * QBLOCK / 2, quad = s % per * QUADS / 2;
        if (s % per == 0) fetch_ahead(f, ahead);
        TILE_LOAD(4, x[0] + at, QBLOCK);
        TILE_LOAD(6, w[s / per][0][quad], 64);
        if (s > 0) TILE_STORE(0, t->isum[s - 1][0][0]);
        TILE_PRODUCT(0, 4, 6);
        TILE_LOAD(7, w[s / per][1][quad], 64);
        if (s > 0) TILE_STORE(1, t->isum[s - 1][0][1]);
        TILE_PRODUCT(1, 4, 7);
        if (row_tiles == 1) continue;
        TILE_LOAD(5, x[1] + at, QBLOCK);
        if (s > 0) TILE_STORE(2, t->isum[s - 1][1][0]);
        TILE_PRODUCT(2, 5, 6);
        if (s > 0) TILE_STORE(3, t->isum[s - 1][1][1]);
        TILE_PRODUCT(3, 5, 7);
    }
    TILE_STORE(0, t->isum[sums - 1][0][0]);
    TILE_STORE(1, t->isum[sums - 1][0][1]);
    if (row_tiles == 1) return;
    TILE_STORE(2, t->isum[sums - 1][1][0]);
    TILE_STORE(3, t->isum[sums - 1][1][1]);
}

/* acc += isum * scales over some blocks, tile i of rows times tile v of channels. */
INLINE void add_scaled(float (*acc)[TILE_N], const enum format f, const int32_t (*isum)[2][2][TILE_ROWS][TILE_N], int i, int v,
                       const struct scales *s, const float *scale, const int32_t *offset, int n_blocks)
{
    vfloat a[TILE_ROWS];
UNROLL
    for (int r = 0; r < TILE_ROWS; r++) a[r] = load_f(acc[r]);
    for (int b = 0; b < n_blocks; b++, s++, isum += sums_of_block(f), scale += ROW_GROUP, offset += ROW_GROUP) {
        float times_offset[TILE_ROWS] __attribute__((aligned(64)));
        if (f == Q4K) store_f(times_offset, mul_f(to_float(load_v(offset)), load_f(scale)));
UNROLL
        for (int r = 0; r < TILE_ROWS; r++) {
            vfloat sum = to_float(load_v(isum[0][i][v][r]));
            if (f == Q6K) sum = fma_f(to_float(load_v(isum[1][i][v][r])), s->codes[v].half[1], mul_f(sum, s->codes[v].half[0]));
            a[r] = fma_f(sum, mul_f(s->d[v], broadcast_f(scale[r])), a[r]);
            if (f == Q4K) a[r] = fma_f(broadcast_f(times_offset[r]), s->min[v], a[r]);
        }
    }
UNROLL
    for (int r = 0; r < TILE_ROWS; r++) store_f(acc[r], a[r]);
}

/* One or two tiles of rows, from row r on, over the blocks of a chunk. */
INLINE void rows_by_chunk(struct work *t, const enum format f, const int row_tiles, float (*acc)[2][TILE_ROWS][TILE_N],
                          const struct q8rows *x, int r, int b0, int b1, struct ahead *ahead)
{
    const int step = BATCH / sums_of_block(f);
    for (int b = b0; b < b1; b += step) {
        const int n = b1 - b < step ? b1 - b : step;
        const size_t at[2] = { q8_index(x, r, b), row_tiles == 2 ? q8_index(x, r + TILE_ROWS, b) : 0 };
        multiply(t, f, row_tiles, (const int8_t *const[2]){ x->q + at[0] * QBLOCK, x->q + at[1] * QBLOCK },
                 t->w + (b - b0), n * sums_of_block(f), ahead);
        for (int i = 0; i < row_tiles; i++)
            for (int v = 0; v < 2; v++)
                add_scaled(acc[i][v], f, (const int32_t (*)[2][2][TILE_ROWS][TILE_N])t->isum, i, v,
                           t->scales + (b - b0), x->scale + at[i], x->offset + at[i], n);
    }
}

/* At most MOST_ROWS rows times two tiles of channels. */
INLINE void rows_by_tiles(struct work *t, const enum format f, float *y, size_t ldy, const struct q8rows *x, int row0, int row1,
                          const struct weights *packed, const struct weights *next)
{
    const int nb = x->k / QBLOCK, rows = row1 - row0, tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, passes = (tiles + 1) / 2;
    struct ahead ahead = { .next = next, .nb = nb, .every = passes, .left = passes };
    ahead_at(f, &ahead, CHUNK < nb ? packed : next, CHUNK < nb ? CHUNK : 0);
    memset(t->acc, 0, (size_t)tiles * sizeof t->acc[0]);
    for (int b0 = 0; b0 < nb; b0 += CHUNK) {
        const int b1 = b0 + CHUNK < nb ? b0 + CHUNK : nb;
        unpack(t, f, packed, b0, b1);
        for (int i = 0; i < tiles; i += 2)
            if (i + 1 < tiles) rows_by_chunk(t, f, 2, t->acc + i, x, row0 + i * TILE_ROWS, b0, b1, &ahead);
            else rows_by_chunk(t, f, 1, t->acc + i, x, row0 + i * TILE_ROWS, b0, b1, &ahead);
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < 2; v++) store_f(y + (size_t)(row0 + r) * ldy + v * TILE_N, load_f(t->acc[r / TILE_ROWS][v][r % TILE_ROWS]));
}

INLINE void gemm_blocks(const enum format f, float *y, size_t ldy, const struct q8rows *x, int row0, int row1,
                        const uint8_t *w, int n_tiles, const struct gemm_int8 *vectors)
{
    const int nb = x->k / QBLOCK, pairs = n_tiles / 2, left = (row1 - row0) % TILE_ROWS;
    const int end = left < (row1 - row0 < TILE_ROWS ? LEAST_ROWS : LEAST_LEFT) ? row1 - left : row1;
    const size_t tile_bytes = tile_bytes_of(f, nb);
    struct work t;
    if (end > row0) {
        configure(f == Q6K ? &halves : &blocks);
        for (int i = 0; i < pairs; i++) {
            const uint8_t *at = w + (size_t)i * 2 * tile_bytes;
            const struct weights packed = weights_of(f, at, nb, tile_bytes), next = weights_of(f, at + 2 * tile_bytes, nb, tile_bytes);
            for (int r = row0; r < end; r += MOST_ROWS)
                rows_by_tiles(&t, f, y + (size_t)i * 2 * TILE_N, ldy, x, r, end - r < MOST_ROWS ? end : r + MOST_ROWS, &packed, &next);
        }
        release();
    }
    if (n_tiles % 2 && end > row0) vectors->run(y + (size_t)pairs * 2 * TILE_N, ldy, x, row0, end, w + (size_t)pairs * 2 * tile_bytes, 1);
    if (row1 > end) vectors->run(y, ldy, x, end, row1, w, n_tiles);
}

extern const struct kernels kernels_avx512vnni;

/* The descriptor of a format: gemm_NAME. */
#define GEMM_BLOCKS(name, f)                                                                                                        \
    static void gemm_##name##_run(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles)    \
    {                                                                                                                              \
        gemm_blocks(f, y, ldy, x, row0, row1, w, n_tiles, kernels_avx512vnni.gemm_##name);                                         \
    }                                                                                                                              \
    static const struct gemm_int8 gemm_##name = { gemm_##name##_run };
GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

double int8_peak_amx(long rounds);
double int8_peak_amx(long rounds)
{
    configure(&blocks);
    for (long round = 0; round < rounds; round++) {
        TILE_PRODUCT(0, 4, 6);
        TILE_PRODUCT(1, 4, 7);
        TILE_PRODUCT(2, 5, 6);
        TILE_PRODUCT(3, 5, 7);
    }
    release();
    return 2.0 * (double)rounds * 4 * TILE_ROWS * TILE_N * QBLOCK;
}

static void attend_bf16_amx(const struct attend_args *a) { attend_rows(PAIRS, a); }

const struct kernels kernels_amx = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k, .attend_bf16 = attend_bf16_amx,
};
