/* checkasm.c - hold every kernel of every set that this CPU runs to the bits of the scalar one.
 *
 *     checkasm [--seed N] [--only PATTERN] [--slack N] [--bench] [--list]
 * PATTERN: set/kernel with * and ?, as in avx2/gemm_*.  slack: bytes between an array and its unreadable page, for an
 * emulator whose masked loads touch what the mask leaves out.
 *
 * Each array lies between two unreadable pages, first with its end at the upper one, then with its start at the lower
 * one, and the rest of its page is watched; inputs are made read-only before a kernel runs; outputs start as poison, and all of
 * them is compared, gaps between rows too.  Random numbers restart for each kernel, so one alone replays as in a full run.
 * Last, a hash of the scalar outputs for a fixed seed: sets are compared on one machine, the hash compares machines.
 * A NaN equals every NaN: which one an operation returns is the CPU's choice. */
#define _GNU_SOURCE
#include <fnmatch.h>
#include <inttypes.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <sleef.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "cpu.h"
#include "f16.h"
#include "kernels.h"
#include "pack.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* Scalar outputs for seed 1, made with SLEEF 3.5.1 (exp's bits may change between its versions). */
static const uint64_t GOLDEN = 0x138a160ec26341e5ull;

enum { POISON = 0x99, MAX_BUFFERS = 64, MAX_NAME = 64 };

enum place { AT_END, AT_START, PLACES };        /* which unreadable page an array touches */

struct buffer { uint8_t *map, *data; size_t body, bytes; bool output; };

static struct {
    uint64_t seed, rng, hash;
    char name[MAX_NAME];                        /* "avx2/add" */
    const char *only;
    bool hashing, bench, failed_now;
    size_t slack;
    enum place place;
    int passed, failed;
    struct buffer buffers[MAX_BUFFERS];
    int n_buffers;
    sigjmp_buf crash;
    volatile sig_atomic_t armed;
} T;

/* ---- random numbers: integers only, so that every machine draws the same */

static uint32_t rnd(void)
{
    T.rng ^= T.rng << 13;
    T.rng ^= T.rng >> 7;
    T.rng ^= T.rng << 17;
    return (uint32_t)(T.rng >> 32);
}
static int below(int n) { return (int)(rnd() % (uint32_t)n); }
static float uniform(void) { return (float)(rnd() >> 8) / 8388608.0f - 1.0f; }                  /* [-1, 1) */

static const float specials[] = {
    0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, -1e-45f, 1.17549435e-38f, 3.4028235e38f, -3.4028235e38f,
    1.0f, -1.0f, 88.7f, -103.9f, 1e-30f
};

enum fill { ORDINARY, SPECIAL, TINY, HUGE_VALUES, TIES, SAME, FILLS };      /* TIES: halves, which quantization rounds to even */

static float draw(enum fill f)
{
    switch (f) {
    case SPECIAL:     return below(4) ? uniform() : specials[below(ARRAY_LEN(specials))];
    case TINY:        return uniform() * 1e-38f;
    case HUGE_VALUES: return uniform() * 3e38f;
    case TIES:        return below(16) ? (float)(below(253) - 126) * 0.5f : 127.0f;
    case SAME:        return 0.25f;
    default:          return uniform() * 4;
    }
}

/* ---- buffers */

static void failure(const char *what)
{
    if (!T.failed_now) printf("FAIL %s: %s (rerun with --seed %" PRIu64 " --only %s)\n", T.name, what, T.seed, T.name);
    T.failed_now = true;
}

static void *buffer(size_t bytes, bool output)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), body = (bytes + 2 * T.slack + page) / page * page;
    if (T.n_buffers == MAX_BUFFERS) abort();
    uint8_t *map = mmap(NULL, body + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED || mprotect(map + page, body, PROT_READ | PROT_WRITE)) { perror("mmap"); exit(1); }
    memset(map + page, POISON, body);
    uint8_t *data = map + page + (T.place == AT_END ? body - bytes - T.slack : T.slack);
    T.buffers[T.n_buffers++] = (struct buffer){ map, data, body, bytes, output };
    return data;
}
static void *input(size_t bytes) { return buffer(bytes, false); }
static void *output(size_t bytes) { return buffer(bytes, true); }

static float *floats(size_t n, enum fill f)
{
    float *x = input(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = draw(f);
    return x;
}

/* A second array that holds the same, for what a kernel changes in place. */
static float *copy(const float *x, size_t n)
{
    float *y = output(n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

/* All inputs are drawn: from here on a write to one is a crash. */
static void freeze(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < T.n_buffers; i++)
        if (!T.buffers[i].output && mprotect(T.buffers[i].map + page, T.buffers[i].body, PROT_READ)) exit(1);
}

/* Unmap everything; the part of each page beside its array must still be poison. */
static void release(void)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    for (int i = 0; i < T.n_buffers; i++) {
        const struct buffer *b = &T.buffers[i];
        const uint8_t *body = b->map + page;
        for (size_t at = 0; at < b->body; at++) {
            if (body + at == b->data) at += b->bytes;                   /* over the array; bytes < body */
            if (at < b->body && body[at] != POISON) { failure("writes beside an array"); break; }
        }
        munmap(b->map, b->body + 2 * page);
    }
    T.n_buffers = 0;
}

static void add_to_hash(uint32_t word)
{
    for (int i = 0; i < 4; i++) T.hash = (T.hash ^ (word >> (8 * i) & 255)) * 0x100000001B3ull;   /* FNV-1a */
}

/* Compare words; as floats any two NaN are the same. */
static void same_words(const char *what, const void *ref, const void *got, size_t n, bool as_float)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t r, g;
        memcpy(&r, (const uint8_t *)ref + 4 * i, 4);
        memcpy(&g, (const uint8_t *)got + 4 * i, 4);
        if (as_float && isnan(f32_from_bits(r))) r = 0x7FC00000;
        if (as_float && isnan(f32_from_bits(g))) g = 0x7FC00000;
        if (T.hashing) add_to_hash(r);
        if (r == g) continue;
        char s[160];
        snprintf(s, sizeof s, "%s differs at element %zu of %zu: %08" PRIx32 " (%g) instead of %08" PRIx32 " (%g)", what, i, n,
                 g, (double)f32_from_bits(g), r, (double)f32_from_bits(r));
        failure(s);
        return;
    }
}
static void same_floats(const char *what, const float *ref, const float *got, size_t n) { same_words(what, ref, got, n, true); }

/* ---- measuring */

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median time of a call over 15 batches of about 2 ms, reference and kernel in turns, and what a unit of work costs. */
#define BENCH(units, unit, ref_call, new_call) do { if (T.bench) {                                                        \
        double t_[2][15];                                                                                                   \
        int n_[2] = { 1, 1 };                                                                                               \
        for (int r_ = -1; r_ < 15; r_++) {                                                                                  \
            double a_ = now_ns();                                                                                           \
            for (int i_ = 0; i_ < n_[0]; i_++) { ref_call; }                                                                \
            double b_ = now_ns();                                                                                           \
            for (int i_ = 0; i_ < n_[1]; i_++) { new_call; }                                                                \
            double c_ = now_ns();                                                                                           \
            if (r_ < 0) n_[0] = 1 + (int)(2e6 / (b_ - a_ + 1)), n_[1] = 1 + (int)(2e6 / (c_ - b_ + 1));                   \
            else t_[0][r_] = (b_ - a_) / n_[0], t_[1][r_] = (c_ - b_) / n_[1];                                              \
        }                                                                                                                   \
        bench_line(t_[0], t_[1], (double)(units), unit);                                                                    \
    } } while (0)

static void bench_line(double ref[15], double new[15], double units, const char *unit)
{
    qsort(ref, 15, sizeof *ref, by_value);
    qsort(new, 15, sizeof *new, by_value);
    printf("     %-28s %10.0f ns  %8.3f ns per %s  %7.1f x scalar\n", T.name, new[7], new[7] / units, unit, ref[7] / new[7]);
}

/* ---- matrix products: packed weights of every byte value, at every tile edge */

enum weights { ANY_BYTE, EXTREME, WILD_SCALES, WEIGHT_KINDS };          /* EXTREME: -128, 127 and activations of +-127 only */

static uint16_t draw_scale(enum weights kind)
{
    static const uint16_t wild[] = { 0, 0x8000, 0x0001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0x7E00 };
    if (kind == WILD_SCALES && below(3) == 0) return wild[below(ARRAY_LEN(wild))];
    const uint32_t u = rnd();
    return (uint16_t)(0x2000 + (u & 0x97FF));            /* between 2^-7 and 1/2, either sign */
}

/* Where a block of a file has f16 scales; -1: none. */
static const struct { const struct quant_format *format; int f16[2]; } scale_places[] = {
    { &format_q4_0, { offsetof(struct block_q4_0, d), -1 } }, { &format_q8_0, { offsetof(struct block_q8_0, d), -1 } },
    { &format_q4_k, { offsetof(struct block_q4_k, d), offsetof(struct block_q4_k, dmin) } },
    { &format_q6_k, { offsetof(struct block_q6_k, d), -1 } },
};

/* A block of any bytes, or of those that give the lowest and highest weights, with scales. */
static void draw_block(uint8_t *block, const struct quant_format *f, enum weights kind)
{
    for (int i = 0; i < f->block_bytes; i++)
        block[i] = kind != EXTREME ? (uint8_t)rnd()
                 : f == &format_q8_0 || (f == &format_q6_k && i >= 192) ? (below(2) ? 0x80 : 0x7F) : (below(2) ? 0 : 0xFF);
    for (size_t p = 0; p < ARRAY_LEN(scale_places); p++)
        for (size_t i = 0; scale_places[p].format == f && i < 2; i++) {
            const int at = scale_places[p].f16[i];
            if (at >= 0) memcpy(block + at, &(uint16_t){ draw_scale(kind) }, 2);
        }
}

/* Packed tiles; what was packed comes back when it is unpacked. */
static uint8_t *draw_weights(const struct quant_format *f, int k, int n_tiles, enum weights kind)
{
    enum { MOST = 8704 * 34 / 32 };
    static uint8_t rows[TILE_N][MOST], again[MOST];
    const struct pack_format *pack = pack_format_of(f);
    const size_t tile_bytes = pack->tile_bytes(k), n_blocks = (size_t)(k / f->block), row_bytes = n_blocks * (size_t)f->block_bytes;
    uint8_t *w = input(tile_bytes * (size_t)n_tiles);
    if (row_bytes > MOST) abort();
    for (int t = 0; t < n_tiles; t++) {
        const void *source[TILE_N];
        for (size_t c = 0; c < TILE_N; c++) {
            for (size_t b = 0; b < n_blocks; b++) draw_block(rows[c] + b * (size_t)f->block_bytes, f, kind);
            source[c] = rows[c];
        }
        pack->pack_tile(w + (size_t)t * tile_bytes, source, k);
        for (int c = 0; c < TILE_N; c++) {
            pack->unpack_row(again, w + (size_t)t * tile_bytes, c, k);
            if (memcmp(again, rows[c], row_bytes) != 0) failure("a row comes back from its tile with other bytes");
        }
    }
    return w;
}

static struct q8rows draw_rows(int rows, int k, enum weights kind)
{
    const size_t n = (size_t)((rows + ROW_GROUP - 1) / ROW_GROUP) * (size_t)(k / QBLOCK) * ROW_GROUP;
    struct q8rows x = { input(n * QBLOCK), input(n * 4), input(n * 4), input(n * 4), k };
    for (size_t b = 0; b < n; b++) {
        int sum[2] = { 0 };
        for (size_t i = 0; i < QBLOCK; i++) {
            const int q = kind == EXTREME ? below(2) * 254 - 127 : below(255) - 127;
            x.q[b * QBLOCK + i] = (int8_t)q;
            sum[i / 16] += q;
        }
        x.scale[b] = kind == WILD_SCALES && below(8) == 0 ? 0 : uniform();
        x.offset[b] = -8 * (sum[0] + sum[1]);
        for (size_t h = 0; h < 2; h++) x.halves[2 * b + h] = (int16_t)(-8 * sum[h]);
    }
    return x;
}

static void check_gemm_int8(const struct gemm_int8 *ref, const struct gemm_int8 *new, const struct quant_format *format)
{
    static const struct { int row0, row1, tiles, k; } shapes[] = {
        { 0, 0, 1, 32 }, { 0, 1, 1, 32 }, { 0, 1, 2, 64 }, { 0, 2, 3, 96 }, { 0, 3, 1, 160 }, { 0, 4, 2, 128 }, { 0, 5, 1, 64 },
        { 0, 6, 3, 32 }, { 0, 7, 1, 96 }, { 0, 8, 4, 256 }, { 0, 9, 1, 64 }, { 0, 12, 2, 96 }, { 0, 15, 3, 32 }, { 0, 16, 2, 64 },
        { 0, 17, 1, 288 }, { 0, 24, 3, 32 }, { 0, 31, 1, 64 }, { 0, 33, 2, 32 }, { 16, 17, 2, 64 }, { 16, 24, 1, 96 },
        { 16, 37, 3, 64 }, { 32, 36, 2, 1056 }, { 0, 40, 5, 2080 }, { 0, 45, 2, 544 }, { 16, 171, 3, 288 }, { 0, 700, 2, 64 },
        { 0, 13, 3, 8480 },                             /* more than two of the longest chunks of blocks */
    };
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (enum weights kind = 0; kind < WEIGHT_KINDS; kind++) {
            const int row1 = shapes[s].row1, tiles = shapes[s].tiles, k = (shapes[s].k + format->block - 1) / format->block * format->block;
            const size_t ldy = (size_t)(tiles * TILE_N + (s & 1 ? TILE_N : 0)), n = (size_t)row1 * ldy;
            const uint8_t *w = draw_weights(format, k, tiles, kind);
            const struct q8rows x = draw_rows(row1, k, kind);
            float *a = output(n * 4), *b = output(n * 4);
            freeze();
            ref->run(a, ldy, &x, shapes[s].row0, row1, w, tiles);
            new->run(b, ldy, &x, shapes[s].row0, row1, w, tiles);
            same_floats("y", a, b, n);
            release();
        }
    if (!T.bench) return;
    const int rows = 32, k = 1024, tiles = 8;
    const uint8_t *w = draw_weights(format, k, tiles, ANY_BYTE);
    const struct q8rows x = draw_rows(rows, k, ANY_BYTE);
    float *a = output((size_t)rows * (size_t)tiles * TILE_N * 4);
    BENCH((double)rows * tiles * TILE_N * k * 1e-3, "1000 multiply-adds", ref->run(a, (size_t)tiles * TILE_N, &x, 0, rows, w, tiles),
          new->run(a, (size_t)tiles * TILE_N, &x, 0, rows, w, tiles));
    release();
}

static void check_gemm_q4(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_int8(ref->gemm_q4, new->gemm_q4, &format_q4_0);
}

static void check_gemm_q8(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_int8(ref->gemm_q8, new->gemm_q8, &format_q8_0);
}

static void check_gemm_q4k(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_int8(ref->gemm_q4k, new->gemm_q4k, &format_q4_k);
}

static void check_gemm_q6k(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_int8(ref->gemm_q6k, new->gemm_q6k, &format_q6_k);
}

static void check_gemm_float(const struct gemm_float *ref, const struct gemm_float *new, const struct quant_format *format)
{
    static const struct { int row0, row1, tiles, k; } shapes[] = {
        { 0, 0, 1, 1 }, { 0, 1, 1, 1 }, { 0, 1, 2, 31 }, { 0, 2, 1, 33 }, { 0, 3, 2, 2 }, { 0, 4, 1, 16 }, { 0, 5, 3, 7 },
        { 0, 6, 1, 17 }, { 0, 7, 2, 5 }, { 0, 8, 1, 64 }, { 0, 13, 1, 3 }, { 8, 16, 2, 31 }, { 8, 11, 1, 1 }, { 0, 17, 2, 9 },
        { 0, 32, 1, 96 },
    };
    const size_t bytes = (size_t)format->block_bytes;
    for (size_t s = 0; s < ARRAY_LEN(shapes); s++)
        for (enum fill f = 0; f <= HUGE_VALUES; f++) {
            const int row1 = shapes[s].row1, tiles = shapes[s].tiles, k = shapes[s].k;
            const size_t ldy = (size_t)(tiles * TILE_N), ldx = (size_t)k + s % 3, n = (size_t)row1 * ldy;
            const size_t tile_bytes = pack_format_of(format)->tile_bytes(k);
            uint8_t *w = input(tile_bytes * (size_t)tiles);
            for (size_t i = 0; i < tile_bytes * (size_t)tiles; i += bytes) {
                const float v = draw(f);
                const uint32_t u = bytes == 4 ? f32_bits(v) : format == &format_f16 ? f32_to_f16(v) : f32_to_bf16(v);
                memcpy(w + i, &u, bytes);                                /* low bytes first on every machine that we run on */
            }
            const float *x = floats(row1 > 0 ? (size_t)(row1 - 1) * ldx + (size_t)k : 0, f);
            float *a = output(n * 4), *b = output(n * 4);
            freeze();
            ref->run(a, ldy, x, ldx, shapes[s].row0, row1, w, tiles, k);
            new->run(b, ldy, x, ldx, shapes[s].row0, row1, w, tiles, k);
            same_floats("y", a, b, n);
            release();
        }
    if (!T.bench) return;
    const int rows = 32, k = 512, tiles = 8;
    const uint8_t *w = input(pack_format_of(format)->tile_bytes(k) * (size_t)tiles);
    const float *x = floats((size_t)rows * (size_t)k, ORDINARY);
    float *a = output((size_t)rows * (size_t)tiles * TILE_N * 4);
    BENCH((double)rows * tiles * TILE_N * k * 1e-3, "1000 multiply-adds",
          ref->run(a, (size_t)tiles * TILE_N, x, (size_t)k, 0, rows, w, tiles, k),
          new->run(a, (size_t)tiles * TILE_N, x, (size_t)k, 0, rows, w, tiles, k));
    release();
}

static void check_gemm_f32(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_float(ref->gemm_f32, new->gemm_f32, &format_f32);
}

static void check_gemm_f16(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_float(ref->gemm_f16, new->gemm_f16, &format_f16);
}

static void check_gemm_bf16(const struct kernels *ref, const struct kernels *new)
{
    check_gemm_float(ref->gemm_bf16, new->gemm_bf16, &format_bf16);
}

/* ---- rows */

static void check_quantize_q8(const struct kernels *ref, const struct kernels *new)
{
    for (int k = 0; k <= 5 * QBLOCK; k += QBLOCK)
        for (enum fill f = 0; f < FILLS; f++)
            for (int row = 0; row <= 10; row += 5) {
                const size_t n = (size_t)(row / ROW_GROUP + 1) * (size_t)(k / QBLOCK) * ROW_GROUP;
                const float *x = floats((size_t)k, f);
                struct q8rows a = { output(n * QBLOCK), output(n * 4), output(n * 4), output(n * 4), k };
                struct q8rows b = { output(n * QBLOCK), output(n * 4), output(n * 4), output(n * 4), k };
                freeze();
                ref->quantize_q8(&a, row, x);
                new->quantize_q8(&b, row, x);
                same_words("q (in words)", a.q, b.q, n * QBLOCK / 4, false);
                same_words("scale", a.scale, b.scale, n, true);
                same_words("offset", a.offset, b.offset, n, false);
                same_words("halves (in words)", a.halves, b.halves, n, false);
                release();
            }
    if (!T.bench) return;
    const int k = 4096;
    const float *x = floats((size_t)k, ORDINARY);
    struct q8rows a = { output((size_t)k * ROW_GROUP), output((size_t)k), output((size_t)k), output((size_t)k), k };
    BENCH(k, "value", ref->quantize_q8(&a, 3, x), new->quantize_q8(&a, 3, x));
    release();
}

/* Lengths around every lane count, and a long row. */
static int next_length(int n) { return n < 70 ? n + 1 : n == 70 ? 1031 : 1032; }
#define EACH_LENGTH(n) for (int n = 0; n < 1032; n = next_length(n))

static void check_rms_norm(const struct kernels *ref, const struct kernels *new)
{
    EACH_LENGTH(n)
        for (enum fill f = 0; f < FILLS; f++) {
            const float *x = floats((size_t)n, f), *w = floats((size_t)n, f == SPECIAL ? SPECIAL : ORDINARY);
            float *a = output((size_t)n * 4), *b = output((size_t)n * 4), *c = copy(x, (size_t)n);
            freeze();
            ref->rms_norm(a, x, w, n, 1e-5f);
            new->rms_norm(b, x, w, n, 1e-5f);
            new->rms_norm(c, c, w, n, 1e-5f);
            same_floats("y", a, b, (size_t)n);
            same_floats("y in the place of x", a, c, (size_t)n);
            release();
        }
    if (!T.bench) return;
    const int n = 4096;
    const float *x = floats((size_t)n, ORDINARY), *w = floats((size_t)n, ORDINARY);
    float *a = output((size_t)n * 4);
    BENCH(n, "value", ref->rms_norm(a, x, w, n, 1e-5f), new->rms_norm(a, x, w, n, 1e-5f));
    release();
}

static void check_rope(const struct kernels *ref, const struct kernels *new)
{
    for (int half = 0; half <= 70; half++)
        for (enum fill f = 0; f <= HUGE_VALUES; f++) {
            const float *x = floats((size_t)(2 * half), f), *c = floats((size_t)half, ORDINARY);
            const float *s = floats((size_t)half, f == SPECIAL ? SPECIAL : ORDINARY);
            float *a = copy(x, (size_t)(2 * half)), *b = copy(x, (size_t)(2 * half));
            freeze();
            ref->rope(a, c, s, half);
            new->rope(b, c, s, half);
            same_floats("x", a, b, (size_t)(2 * half));
            release();
        }
    if (!T.bench) return;
    const float *c = floats(64, SAME), *s = floats(64, SAME);
    float *a = copy(floats(128, ORDINARY), 128);
    BENCH(128, "value", ref->rope(a, c, s, 64), new->rope(a, c, s, 64));
    release();
}

static void check_swiglu(const struct kernels *ref, const struct kernels *new)
{
    EACH_LENGTH(n)
        for (enum fill f = 0; f < FILLS; f++)
            for (int alias = 0; alias < 3; alias++) {                   /* y apart, y is gate, y is up */
                const float *gate = floats((size_t)n, f), *up = floats((size_t)n, f);
                float *a = alias ? copy(alias == 1 ? gate : up, (size_t)n) : output((size_t)n * 4);
                float *b = alias ? copy(a, (size_t)n) : output((size_t)n * 4);
                freeze();
                ref->swiglu(a, alias == 1 ? a : gate, alias == 2 ? a : up, n);
                new->swiglu(b, alias == 1 ? b : gate, alias == 2 ? b : up, n);
                same_floats("y", a, b, (size_t)n);
                release();
            }
    if (!T.bench) return;
    const int n = 4096;
    const float *gate = floats((size_t)n, ORDINARY), *up = floats((size_t)n, ORDINARY);
    float *a = output((size_t)n * 4);
    BENCH(n, "value", ref->swiglu(a, gate, up, n), new->swiglu(a, gate, up, n));
    release();
}

static void check_add(const struct kernels *ref, const struct kernels *new)
{
    EACH_LENGTH(n)
        for (enum fill f = 0; f < FILLS; f++) {
            const float *x = floats((size_t)n, f), *y = floats((size_t)n, f);
            float *a = copy(y, (size_t)n), *b = copy(y, (size_t)n);
            freeze();
            ref->add(a, x, n);
            new->add(b, x, n);
            same_floats("y", a, b, (size_t)n);
            release();
        }
    if (!T.bench) return;
    const int n = 4096;
    const float *x = floats((size_t)n, TINY);
    float *a = copy(x, (size_t)n);
    BENCH(n, "value", ref->add(a, x, n), new->add(a, x, n));
    release();
}

/* ---- attention */

enum masks { NO_MASK, SOME, FIRST_TILE_OUT, NONE_ATTENDED, MASKS };

static const uint8_t *draw_mask(enum masks kind, int n)
{
    if (kind == NO_MASK) return NULL;
    uint8_t *mask = input((size_t)n);
    for (int j = 0; j < n; j++)
        mask[j] = (uint8_t)(kind == NONE_ATTENDED || (kind == FIRST_TILE_OUT && j < KEY_TILE) ? 0 : below(3) ? 1 + below(255) : 0);
    return mask;
}

typedef void attend_fn(const struct attend_args *a);

static float *numbers(size_t n, enum fill f, bool bf16)
{
    float *x = floats(n, f);
    for (size_t i = 0; bf16 && i < n; i++) x[i] = bf16_near(x[i]);
    return x;
}

/* Values of `faint` are so small that, times what is left of an older tile's weight, they are below SUM_LEAST. */
static void one_attend(attend_fn *ref, attend_fn *new, bool bf16, int rows, int keys, int dim, enum masks kind, enum fill f, bool faint)
{
    const size_t ldq = (size_t)dim + 3, ldy = (size_t)dim + 5, d = (size_t)dim;
    /* one draw per statement, here and everywhere: within one, C leaves the order of calls open */
    struct attend_args a = { .ldy = ldy, .ldq = ldq, .scale = 0.37f, .n_rows = rows, .n_keys = keys, .head_dim = dim };
    a.q = numbers((size_t)(rows - 1) * ldq + d, f, bf16);
    a.k = numbers((size_t)((keys + 15) / 16) * d * LANES, f, bf16);
    float *v = numbers((size_t)keys * d, f, bf16);
    for (size_t i = 0; faint && i < (size_t)keys * d; i++) v[i] = bf16_near(v[i] * 0x1p-50f);
    a.v = v;
    a.mask = draw_mask(kind, keys);
    struct attend_args b = a;
    const size_t n = (size_t)(rows - 1) * ldy + d;
    a.y = output(n * 4);
    b.y = output(n * 4);
    struct attend_args c = a;
    c.y = copy(a.q, (size_t)(rows - 1) * ldq + d);
    c.q = c.y;
    c.ldy = ldq;
    freeze();
    ref(&a);
    new(&b);
    new(&c);
    same_floats("y", a.y, b.y, n);
    for (int r = 0; r < rows; r++) same_floats("y in the place of q", a.y + (size_t)r * ldy, c.y + (size_t)r * ldq, d);
    release();
}

/* Scores of 0 and `score`: below EXP_LEAST, or EXP_LEAST_BF16, the second key, whose value is huge, has no weight at all; above it has some. */
static void key_far_below(attend_fn *new, float score, bool counts)
{
    enum { DIM = 8 };
    float *q = input(DIM * 4), *k = input(DIM * LANES * 4), *v = input(2 * DIM * 4), *y = output(DIM * 4);
    for (int i = 0; i < 2 * DIM; i++) v[i] = i < DIM ? 0 : 0x1p100f;
    for (int i = 0; i < DIM * LANES; i++) k[i] = i == 1 ? score : 0;
    for (int i = 0; i < DIM; i++) q[i] = i == 0;
    freeze();
    new(&(struct attend_args){ .y = y, .ldy = DIM, .q = q, .ldq = DIM, .k = k, .v = v,
                               .scale = 1, .n_rows = 1, .n_keys = 2, .head_dim = DIM });
    if ((y[0] != 0) != counts) failure("a key whose score is far below the best one's has the wrong weight");
    release();
}

static void check_attention(attend_fn *ref, attend_fn *new, bool bf16)
{
    key_far_below(new, -38, true);
    key_far_below(new, -38.25f, !bf16);
    key_far_below(new, -86.5f, !bf16);
    key_far_below(new, -87, !bf16);
    key_far_below(new, -88, false);
    key_far_below(new, -95, false);
    static const int keys[] = { 0, 1, 2, 15, 16, 17, 31, 48, 63, 64, 65, 79, 80, 81, 127, 128, 130, 200, 257 };
    static const int dims[] = { 8, 16, 24, 40, 64, 96, 128, 256 };
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        for (size_t d = 0; d < ARRAY_LEN(dims); d++) {
            const int rows = 1 + below(11);
            for (enum masks kind = 0; kind < MASKS; kind++)
                one_attend(ref, new, bf16, rows, keys[i], dims[d], kind, kind == SOME ? SAME : ORDINARY, bf16 && kind == NO_MASK);
        }
    for (int rows = 1; rows < 20; rows++)
        one_attend(ref, new, bf16, rows, 70 + rows, 32, rows % MASKS, rows % 2 ? TINY : ORDINARY, false);
    static const int many[] = { 63, 64, 65, 130 };                  /* rows around what passes over the keys together */
    for (size_t i = 0; i < ARRAY_LEN(many); i++) one_attend(ref, new, bf16, many[i], 150, 72, i % MASKS, ORDINARY, false);
    if (!T.bench) return;
    const int rows = 64, n_keys = 512, dim = 128;
    struct attend_args a = { .ldy = (size_t)dim, .ldq = (size_t)dim, .scale = 0.0884f, .n_rows = rows, .n_keys = n_keys, .head_dim = dim };
    a.q = numbers((size_t)(rows * dim), ORDINARY, bf16);
    a.k = numbers((size_t)(n_keys * dim), ORDINARY, bf16);
    a.v = numbers((size_t)(n_keys * dim), ORDINARY, bf16);
    a.y = output((size_t)(rows * dim) * 4);
    BENCH(2e-3 * rows * n_keys * dim, "1000 multiply-adds", ref(&a), new(&a));
    release();
}

static void check_attend(const struct kernels *ref, const struct kernels *new) { check_attention(ref->attend, new->attend, false); }
static void check_attend_bf16(const struct kernels *ref, const struct kernels *new)
{
    check_attention(ref->attend_bf16, new->attend_bf16, true);
}

/* ---- logits */

static void one_argmax(const struct kernels *ref, const struct kernels *new, const float *x, int n)
{
    int32_t *i = output(4), *j = output(4);
    float *a = output(4), *b = output(4);
    freeze();
    *a = ref->argmax(x, n, i);
    *b = new->argmax(x, n, j);
    same_words("the largest value", a, b, 1, false);
    same_words("index", i, j, 1, false);
    release();
}

static void check_argmax(const struct kernels *ref, const struct kernels *new)
{
    EACH_LENGTH(n)
        for (enum fill f = 0; f < FILLS; f++) one_argmax(ref, new, floats((size_t)n, f), n);
    for (int n = 1; n < 70; n++)                                        /* the largest value twice; only NaN and -inf */
        for (int kind = 0; kind < 3; kind++) {
            float *x = input((size_t)n * 4);
            for (int i = 0; i < n; i++) x[i] = kind == 0 ? uniform() : below(2) ? NAN : -INFINITY;
            for (int twice = 0; kind < 2 && twice < 2; twice++) x[below(n)] = 3;
            one_argmax(ref, new, x, n);
        }
    if (!T.bench) return;
    const int n = 8192;
    const float *x = floats((size_t)n, ORDINARY);
    int32_t at;
    BENCH(n, "value", ref->argmax(x, n, &at), new->argmax(x, n, &at));
    release();
}

static void check_sum_exp(const struct kernels *ref, const struct kernels *new)
{
    EACH_LENGTH(n)
        for (enum fill f = 0; f < FILLS; f++) {
            const float *x = floats((size_t)n, f), max = draw(f);
            float *a = output(8), *b = output(8);
            freeze();
            a[0] = ref->sum_exp(x, n, max, a + 1);
            b[0] = new->sum_exp(x, n, max, b + 1);
            same_floats("the sum and the moment", a, b, 2);
            release();
        }
    if (!T.bench) return;
    const int n = 8192;
    const float *x = floats((size_t)n, ORDINARY);
    float moment;
    BENCH(n, "value", ref->sum_exp(x, n, 4, &moment), new->sum_exp(x, n, 4, &moment));
    release();
}

/* ---- the walk over sets and kernels */

static void on_signal(int sig)
{
    if (!T.armed) _exit(128 + sig);
    siglongjmp(T.crash, sig);
}

static void check(void (*run)(const struct kernels *ref, const struct kernels *new), const struct kernels *ref, const struct kernels *new)
{
    const bool bench = T.bench;
    T.failed_now = false;
    for (T.place = 0; T.place < PLACES; T.place++) {
        T.bench = bench && !T.failed_now && T.place == PLACES - 1;
        T.rng = T.seed * 2654435761u + 88172645463325252ull;
        const int sig = sigsetjmp(T.crash, 1);
        if (sig) {
            failure(strsignal(sig));
        } else {
            T.armed = 1;
            run(ref, new);
        }
        T.armed = 0;
        release();
    }
    T.bench = bench;
}

static void check_set(const struct kernel_set *set)
{
#define CHECK(m)                                                                                        \
    snprintf(T.name, sizeof T.name, "%s/%s", set->name, #m);                                            \
    if (set->kernels->m && fnmatch(T.only, T.name, 0) == 0) {                                           \
        struct kernels ref = *kernel_sets[0].kernels, new = ref;                                        \
        new.m = set->kernels->m;                                                                        \
        check(check_##m, &ref, &new);                                                                   \
        if (T.failed_now) T.failed++; else T.passed++;                                                  \
        printf("%-4s %s\n", T.failed_now ? "FAIL" : "ok", T.name);                                      \
    }
    KERNELS(CHECK)
}

/* The scalar set once more, with a fixed seed, hashed. */
static void check_hash(void)
{
    const struct kernels *scalar = kernel_sets[0].kernels;
    T.seed = 1;
    T.hash = 0xCBF29CE484222325ull;
    T.hashing = true;
    T.bench = false;
    snprintf(T.name, sizeof T.name, "scalar/*");
#define HASH(m) check(check_##m, scalar, scalar);
    KERNELS(HASH)
    const bool same_sleef = SLEEF_VERSION_MAJOR == 3 && SLEEF_VERSION_MINOR == 5;
    if (T.hash == GOLDEN) {
        T.passed++;
        printf("ok   hash of the scalar outputs\n");
    } else if (same_sleef) {
        T.failed++;
        printf("FAIL hash of the scalar outputs: %016" PRIx64 " instead of %016" PRIx64 "\n", T.hash, GOLDEN);
    } else {
        printf("note hash of the scalar outputs: %016" PRIx64 "; the stored one was made with SLEEF 3.5\n", T.hash);
    }
}

int main(int argc, char **argv)
{
    const unsigned cpu = cpu_detect();
    bool list = false;
    T.seed = (uint64_t)time(NULL);
    T.only = "*";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--bench")) T.bench = true;
        else if (!strcmp(argv[i], "--list")) list = true;
        else if (!strcmp(argv[i], "--only") && i + 1 < argc) T.only = argv[++i];
        else if (!strcmp(argv[i], "--slack") && i + 1 < argc) T.slack = (size_t)strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc) T.seed = strtoull(argv[++i], NULL, 0);
        else return fprintf(stderr, "usage: checkasm [--seed N] [--only SET/KERNEL] [--slack N] [--bench] [--list]\n"), 2;
    }
#define LIST(m) if (s->kernels->m) printf("%s/%s\n", s->name, #m);
    if (list) {
        for (const struct kernel_set *s = kernel_sets; s->name; s++) { KERNELS(LIST) }
        return 0;
    }
    struct sigaction act = { .sa_handler = on_signal };
    const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE };
    for (size_t i = 0; i < ARRAY_LEN(fatal); i++) sigaction(fatal[i], &act, NULL);
    char model[64];
    cpu_model_name(model, sizeof model);
    printf("%s, seed %" PRIu64 "\n", model, T.seed);
    for (const struct kernel_set *s = kernel_sets; s->name; s++)
        if ((s->needs & cpu) == s->needs) check_set(s);
    if (!strcmp(T.only, "*")) check_hash();
    printf("%d passed, %d failed", T.passed, T.failed);
    const char *lead = "; this CPU lacks ";
    for (const struct kernel_set *s = kernel_sets; s->name; s++)
        if ((s->needs & cpu) != s->needs) { printf("%s%s", lead, s->name); lead = ", "; }
    putchar('\n');
    return T.failed != 0;
}
