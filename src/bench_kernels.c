/* bench_kernels.c - time the block matrix products alone: packed weights times quantized rows, for the matrices of LLaDA-8B and
 * of the embedded model, as a share of what the same instructions reach on registers.  That peak is measured between the runs,
 * because the clock and the neighbours of a machine change.  Each run takes another matrix out of 160 MB, so that weights come
 * from memory as in a pass. */
#include "bench.h"

#include <string.h>

#include "kernels.h"
#include "mem.h"
#include "pack.h"
#include "pool.h"
#include "rng.h"

enum { LEAST_RUNS = 5, MOST_RUNS = 2000, ITEM_MACS = 4 << 20, PEAK_ROUNDS = 20000 };
static const double case_seconds = 0.3;         /* what a case may take beyond LEAST_RUNS */
static const size_t rotated_bytes = (size_t)160 << 20;

static const struct { int k, n; } shapes[] = {
    { 4096, 4096 }, { 4096, 12288 }, { 12288, 4096 },                   /* LLaDA-8B: attention; gate and up; down */
    { 256, 256 }, { 256, 512 }, { 512, 256 },                           /* the embedded model                     */
};

/* Packed weights in tiles, enough for several matrices of n rows, and activations. */
struct bench {
    const struct kernel_set *set;
    struct pool *pool;
    struct unmask_err *err;
    json_t *rows;
    const struct pack_format *pack;
    const struct gemm_int8 *gemm;
    int m, k, n;
    size_t n_tiles, first_tile;                 /* in all; of the matrix of this run */
    uint8_t *w;
    struct q8rows x;
    float *y;
    double operations[64];                      /* of the peak, per thread */
};

/* ---- input: random; the first DISTINCT tiles again and again ---- */

static bool draw_weights(struct bench *b)
{
    enum { DISTINCT = 16 };
    const struct quant_format *f = b->pack->format;
    const size_t tile = b->pack->tile_bytes(b->k), matrix = (size_t)(b->n / TILE_N);
    const size_t blocks = (size_t)(b->k / f->block), row = quant_row_bytes(f, (uint64_t)b->k);
    b->n_tiles = (rotated_bytes / tile / matrix + 1) * matrix;
    mem_free(b->w);
    b->w = mem_aligned(b->n_tiles * tile, b->err);
    uint8_t *rows = b->w ? mem_aligned(TILE_N * row, b->err) : NULL;
    if (!rows) return false;
    for (size_t t = 0; t < b->n_tiles; t++) {
        const void *source[TILE_N];
        for (size_t c = 0; c < TILE_N; c++) source[c] = rows + c * row;
        if (t < DISTINCT) {
            bench_fill_of(f)(rows, 0, t * TILE_N * blocks, TILE_N * blocks);
            b->pack->pack_tile(b->w + t * tile, source, b->k);
        } else memcpy(b->w + t * tile, b->w + t % DISTINCT * tile, tile);
    }
    mem_free(rows);
    return true;
}

static bool draw_rows(struct bench *b)
{
    const size_t blocks = (size_t)((b->m + ROW_GROUP - 1) / ROW_GROUP) * ROW_GROUP * (size_t)(b->k / QBLOCK);
    b->x.k = b->k;
    if (!(b->x.q = mem_aligned(blocks * QBLOCK, b->err)) || !(b->x.scale = mem_aligned(blocks * sizeof(float), b->err))
        || !(b->x.offset = mem_aligned(blocks * sizeof(int32_t), b->err))
        || !(b->x.halves = mem_aligned(blocks * 2 * sizeof(int16_t), b->err))
        || !(b->y = mem_aligned((size_t)b->m * (size_t)b->n * sizeof(float), b->err))) return false;
    for (size_t i = 0; i < blocks; i++) {
        int sum[2] = { 0 };
        for (size_t j = 0; j < QBLOCK; j++) sum[j / 16] += b->x.q[i * QBLOCK + j] = (int8_t)((int)(noise_mix(i * QBLOCK + j) % 255) - 127);
        b->x.scale[i] = 0x1p-7f;
        b->x.offset[i] = -8 * (sum[0] + sum[1]);
        for (size_t h = 0; h < 2; h++) b->x.halves[2 * i + h] = (int16_t)(-8 * sum[h]);
    }
    return true;
}

static void free_rows(struct bench *b)
{
    mem_free(b->x.q);
    mem_free(b->x.scale);
    mem_free(b->x.offset);
    mem_free(b->x.halves);
    mem_free(b->y);
    b->x = (struct q8rows){ NULL, NULL, NULL, NULL, 0 };
    b->y = NULL;
}

/* ---- one case ---- */

/* Tiles of an item, in pairs: items of some tens of microseconds, as a pass hands them out. */
static int tiles_of_item(const struct bench *b)
{
    const int step = (int)(ITEM_MACS / ((int64_t)b->m * b->k * TILE_N)) & ~1;
    return step < 2 ? 2 : step;
}

static void product_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct bench *b = arg;
    const int step = tiles_of_item(b), tile = item * step, left = b->n / TILE_N - tile;
    b->gemm->run(b->y + (size_t)tile * TILE_N, (size_t)b->n, &b->x, 0, b->m,
                 b->w + (b->first_tile + (size_t)tile) * b->pack->tile_bytes(b->k), left < step ? left : step);
}

static void peak_item(void *arg, int item, int worker)
{
    (void)worker;
    struct bench *b = arg;
    b->operations[item] = b->set->int8_peak(PEAK_ROUNDS);
}

/* Operations per second on the registers of all threads. */
static double peak(struct bench *b)
{
    const int n = pool_threads(b->pool) < 64 ? pool_threads(b->pool) : 64;
    double operations = 0;
    const double start = timing_now();
    pool_run(b->pool, peak_item, b, n);
    const double seconds = timing_now() - start;
    for (int i = 0; i < n; i++) operations += b->operations[i];
    return operations / seconds;
}

static double product(struct bench *b)
{
    const int step = tiles_of_item(b), tiles = b->n / TILE_N;
    const double start = timing_now();
    pool_run(b->pool, product_item, b, (tiles + step - 1) / step);
    b->first_tile = (b->first_tile + (size_t)tiles) % b->n_tiles;
    return 2.0 * b->m * b->k * b->n / (timing_now() - start);
}

static bool one_case(void *user, int m, struct unmask_err *err)
{
    struct bench *b = user;
    b->m = m;
    double *rates = mem_zalloc(2 * MOST_RUNS, sizeof *rates, err), *peaks = rates ? rates + MOST_RUNS : NULL;
    bool ok = rates && draw_rows(b);
    int n = 0;
    if (ok) {
        product(b);
        for (const double start = timing_now(); n < MOST_RUNS && (n < LEAST_RUNS || timing_now() - start < case_seconds); n++) {
            peaks[n] = b->set->int8_peak ? peak(b) : 0;
            rates[n] = product(b);
        }
        const double gops = 1e-9 * timing_median(rates, n), peak_gops = 1e-9 * timing_median(peaks, n);
        json_t *share = peak_gops > 0 ? json_real(gops / peak_gops) : json_null();
        json_array_append_new(b->rows, json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:f,s:f,s:o}", "kernel", b->pack->kernel,
            "format", b->pack->format->name, "isa", b->set->name, "m", b->m, "k", b->k, "n", b->n, "threads", pool_threads(b->pool),
            "gops", gops, "peak_gops", peak_gops, "share", share));
    }
    free_rows(b);
    mem_free(rates);
    return ok;
}

bool bench_kernels(const struct settings *s, json_t *rows, struct unmask_err *err)
{
    struct kernels k;
    struct bench b = { .err = err, .rows = rows };
    const char *isa = kernels_init(&k, s->isa);
    if (!isa)
        return fail(err, E_GEN_VALUE, .field = "isa", .found = s->isa,
                    .need = "a set that this CPU has", .hint = "`unmask version` lists them");
    for (b.set = kernel_sets; strcmp(b.set->name, isa); ) b.set++;
    bool ok = pool_open(&b.pool, s->threads, err);
    for (b.pack = pack_formats; b.pack->format; b.pack++)
        for (size_t i = 0; ok && b.pack->gemm_int8 && i < sizeof shapes / sizeof *shapes; i++) {
            b.gemm = b.pack->gemm_int8(&k);
            b.k = shapes[i].k;
            b.n = shapes[i].n;
            b.first_tile = 0;
            ok = draw_weights(&b)
                && bench_each_size(s->tokens, "1,2,4,8,16,32,64,128,512", 4096, ", like 4,32,128", one_case, &b, err);
        }
    mem_free(b.w);
    pool_close(b.pool);
    return ok;
}
