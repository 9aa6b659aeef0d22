/* test_calibrate.c - moments and their factor, rounding with feedback, masks, the model's own text, importance files. */
#include "testing.h"

#include <math.h>

#include "calibrate.h"
#include "feedback.h"
#include "gguf.h"
#include "imatrix.h"
#include "mem.h"
#include "quantize.h"
#include "readers.h"
#include "reading.h"
#include "rng.h"
#include "self_text.h"

#define DATA "tests/data/checkpoints/"

static struct quantize_report report;

static float value(uint64_t i) { return noise_f32(noise_bits(noise_prefix(7, NOISE_WEIGHTS, 0, 0, i), 0)) - 0.5f; }

/* n inputs of k values that hang together, as those of a model do. */
static float *make_inputs(int n, int k)
{
    float *x = test_malloc((size_t)n * (size_t)k * sizeof *x);
    for (int r = 0; r < n; r++)
        for (int c = 0; c < k; c++)
            x[r * k + c] = value((uint64_t)(r * k + c)) + (c ? 0.9f * x[r * k + c - 1] : 0)
                         + (c % 7 == 0 ? 3 * value((uint64_t)(1000000 + r)) : 0);
    return x;
}

struct bench { struct kernels kernels; struct pool *pool; struct moments *m; float *x; int n, k; };

static void open_bench(struct bench *b, int n, int k, int threads, const char *isa)
{
    struct unmask_err err;
    *b = (struct bench){ .n = n, .k = k, .x = make_inputs(n, k) };
    assert_non_null(kernels_init(&b->kernels, isa));
    OK(pool_open(&b->pool, threads, &err) && moments_open(&b->m, k, &err), err);
    for (int at = 0; at < n; at += MOMENT_ROWS)
        OK(moments_add(b->m, &b->kernels, b->pool, b->x + (size_t)at * (size_t)k, (size_t)k, n - at < MOMENT_ROWS ? n - at : MOMENT_ROWS,
                       &err), err);
}

static void close_bench(struct bench *b)
{
    moments_close(b->m);
    pool_close(b->pool);
    test_free(b->x);
}

static double entry(const struct moments *m, int row, int column)
{
    return (double)moments_tile(m, column / TILE_N)[row * TILE_N + column % TILE_N];
}

/* ---- moments --------------------------------------------------------------------------------------- */

static void the_factor_gives_the_moments_again(void **state)
{
    (void)state;
    enum { N = 300, K = 90 };                   /* K: no multiple of a tile */
    const double damping = 0.03;
    static double h[K][K];
    struct unmask_err err;
    struct bench b;
    open_bench(&b, N, K, 2, "auto");
    double mean = 0, worst = 0;
    for (int i = 0; i < K; i++)
        for (int j = 0; j < K; j++)
            for (int r = 0; r < N; r++) h[i][j] += (double)b.x[r * K + i] * (double)b.x[r * K + j];
    float squares[K];
    moments_squares(b.m, squares);
    for (int i = 0; i < K; i++) {
        assert_true(fabs((double)squares[i] - h[i][i] / N) < 1e-4 * h[i][i] / N);
        mean += h[i][i] / K;
    }
    OK(moments_factor(b.m, &b.kernels, b.pool, damping, &err), err);
    const float *d = moments_d(b.m);
    for (int i = 0; i < K; i++)
        for (int j = i; j < K; j++) {
            double sum = 0;
            for (int m = j; m < K; m++) sum += entry(b.m, i, m) * (double)d[m] * N * entry(b.m, j, m);
            const double want = h[i][j] + (i == j ? damping * mean : 0), off = fabs(sum - want) / mean;
            worst = off > worst ? off : worst;
        }
    if (worst > 1e-3) fail_msg("off by %g of the mean", worst);
    for (int i = 0; i < K; i++) assert_true(entry(b.m, i, i) == 1 && (double)d[i] * N >= damping * mean * 0.999);
    close_bench(&b);
}

static void inputs_that_are_always_zero_do_no_harm(void **state)
{
    (void)state;
    enum { K = 64 };
    static float x[8][K];
    struct unmask_err err;
    struct bench b;
    for (int used = 0; used < 2; used++) {      /* none at all; half of them */
        open_bench(&b, 1, K, 1, "auto");
        moments_close(b.m);
        OK(moments_open(&b.m, K, &err), err);
        for (int r = 0; used && r < 8; r++)
            for (int c = 0; c < K; c += 2) x[r][c] = value((uint64_t)(r * K + c));
        OK(moments_add(b.m, &b.kernels, b.pool, x[0], K, 8, &err) && moments_factor(b.m, &b.kernels, b.pool, 0.05, &err), err);
        for (int c = 0; c < K; c++) assert_true(isfinite(moments_d(b.m)[c]) && moments_d(b.m)[c] > 0);
        close_bench(&b);
    }
}

/* ---- feedback ---------------------------------------------------------------------------------------- */

static const struct quant_format *const with_feedback[] = { &format_q4_0, &format_q4_k, &format_q6_k };

static void values_are_those_that_readers_see(void **state)
{
    (void)state;
    for (size_t f = 0; f < ARRAY_LEN(with_feedback); f++) {
        const struct quant_format *to = with_feedback[f];
        float x[KBLOCK], w[KBLOCK], got[KBLOCK], want[KBLOCK];
        _Alignas(2) uint8_t block[512];
        memset(block, 0xA5, sizeof block);
        for (int i = 0; i < to->block; i++) {
            x[i] = value((uint64_t)i) * (i % 5 == 0 ? 4 : 1);
            w[i] = 1 + value((uint64_t)(500 + i));
        }
        to->fit_block(block, x, w);
        for (int i = 0; i < to->block; i++) want[i] = to->put_value(block, i, x[i]);
        to->dequantize_row(got, block, (size_t)to->block);
        assert_memory_equal(got, want, (size_t)to->block * sizeof *got);
        uint8_t searched[512];
        to->search_row(searched, x, w, (size_t)to->block);
        assert_memory_equal(block, searched, (size_t)to->block_bytes);  /* without feedback the two ways are one */
    }
}

static double cost_of(const struct bench *b, const float *w, const float *v, int rows)
{
    double sum = 0;
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < b->n; i++) {
            double y = 0;
            for (int c = 0; c < b->k; c++) y += ((double)w[r * b->k + c] - (double)v[r * b->k + c]) * (double)b->x[i * b->k + c];
            sum += y * y / b->n;
        }
    return sum;
}

/* The error that is told is that of the products, and it is smaller than that of rounding each block alone. */
static void feedback_loses_less(void **state)
{
    (void)state;
    enum { ROWS = 13, K = 512, N = 700 };
    struct unmask_err err;
    for (size_t f = 0; f < ARRAY_LEN(with_feedback); f++) {
        const struct quant_format *to = with_feedback[f];
        struct bench b;
        open_bench(&b, N, K, 2, "auto");
        OK(moments_factor(b.m, &b.kernels, b.pool, 1e-4, &err), err);
        float *w = test_malloc(ROWS * K * sizeof *w), *v = test_malloc(ROWS * K * sizeof *v), *e = test_malloc(ROWS * K * sizeof *e);
        uint8_t *dst[ROWS], *out = test_calloc(ROWS, (size_t)(K / to->block * to->block_bytes));
        for (int i = 0; i < ROWS * K; i++) w[i] = value((uint64_t)(9000000 + i));
        for (int r = 0; r < ROWS; r++) dst[r] = out + (size_t)r * (size_t)(K / to->block * to->block_bytes);
        void *scratch_room = mem_aligned(feedback_scratch(to, K), &err);
        double told = 0;
        feedback_rows(b.m, &b.kernels, to, w, ROWS, K, dst, scratch_room, &told);
        to->dequantize_row(v, out, ROWS * K);
        const double real = cost_of(&b, w, v, ROWS);
        for (int i = 0; i < ROWS * K; i++) e[i] = w[i] - v[i];
        const double by_factor = feedback_cost(b.m, &b.kernels, e, ROWS, K, scratch_room);
        assert_true(fabs(told - real) < 0.02 * real && fabs(by_factor - told) < 1e-3 * told);
        to->quantize_row(out, w, ROWS * K);
        to->dequantize_row(v, out, ROWS * K);
        const double plain = cost_of(&b, w, v, ROWS);
        if (!(real < 0.6 * plain)) fail_msg("%s: %g with feedback, %g without", to->name, real, plain);
        mem_free(scratch_room);
        test_free(w);
        test_free(v);
        test_free(e);
        test_free(out);
        close_bench(&b);
    }
}

static void machines_and_threads_give_the_same_bytes(void **state)
{
    (void)state;
    enum { ROWS = 5, K = 96, N = 200 };
    static const struct { int threads; const char *isa; } rows[] = { { 1, "scalar" }, { 1, "auto" }, { 3, "auto" } };
    struct unmask_err err;
    uint8_t first[ROWS * K], out[ROWS * K];
    float w[ROWS * K];
    for (int i = 0; i < ROWS * K; i++) w[i] = value((uint64_t)(77 + i));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        open_bench(&b, N, K, rows[i].threads, rows[i].isa);
        OK(moments_factor(b.m, &b.kernels, b.pool, 0.05, &err), err);
        uint8_t *dst[ROWS];
        for (int r = 0; r < ROWS; r++) dst[r] = out + r * (K / 32 * 18);
        void *room = mem_aligned(feedback_scratch(&format_q4_0, K), &err);
        double ee = 0;
        feedback_rows(b.m, &b.kernels, &format_q4_0, w, ROWS, K, dst, room, &ee);
        if (i == 0) memcpy(first, out, ROWS * (K / 32 * 18));
        assert_memory_equal(first, out, ROWS * (K / 32 * 18));
        mem_free(room);
        close_bench(&b);
    }
}

/* ---- what reads the embedding -------------------------------------------------------------------------- */

/* h += a^T a, a: the rows of a matrix of the first layer times the norm before it. */
static void add_rows(double *h, const struct arch *a, const struct checkpoint *c, const struct hparams *hp,
                     enum tensor_role norm, enum tensor_role role)
{
    enum { K = 64, ROWS = 256 };
    struct unmask_err err;
    static float g[K], w[ROWS * K];
    const struct tensor *n = arch_tensor(a, c, hp, norm, 0, &err), *m = arch_tensor(a, c, hp, role, 0, &err);
    assert_true(n && m && n->format == &format_f32 && m->format == &format_f32 && m->bytes <= sizeof w && hp->n_embd == K);
    OK(checkpoint_read(n, 0, g, (size_t)n->bytes, &err) && checkpoint_read(m, 0, w, (size_t)m->bytes, &err), err);
    for (size_t r = 0; r < m->bytes / sizeof *w / K; r++)
        for (int i = 0; i < K; i++)
            for (int j = 0; j < K; j++)
                h[i * K + j] += (double)g[i] * (double)g[j] * (double)w[r * K + (size_t)i] * (double)w[r * K + (size_t)j];
}

static void the_first_layer_reads_the_embedding(void **state)
{
    (void)state;
    enum { K = 64 };
    static double h[K * K];
    struct unmask_err err;
    struct checkpoint *c;
    struct hparams hp;
    struct pool *pool;
    struct kernels kernels;
    struct moments *m;
    assert_non_null(kernels_init(&kernels, "auto"));
    OK(pool_open(&pool, 2, &err) && checkpoint_open(&c, DATA "llada-tiny", &err), err);
    const struct arch *a = arch_of(c, &err);
    OK(a && arch_hparams(a, c, &hp, &err) && readers_moments(&m, a, c, &hp, &kernels, pool, &err), err);
    const enum tensor_role roles[] = { T_Q, T_K, T_V, T_GATE, T_UP };
    for (size_t i = 0; i < ARRAY_LEN(roles); i++) add_rows(h, a, c, &hp, i < 3 ? T_ATTN_NORM : T_FFN_NORM, roles[i]);
    for (int i = 0; i < K; i++)
        for (int j = i; j < K; j++) assert_true(fabs(entry(m, i, j) - h[i * K + j]) < 1e-5 * sqrt(h[i * K + i] * h[j * K + j]));
    moments_close(m);
    checkpoint_close(c);
    pool_close(pool);
}

/* Rows that no layer can take end a reading: nothing is learnt from the texts before them alone. */
static void an_overflow_ends_a_reading(void **state)
{
    (void)state;
    enum { N = 8 };
    const int32_t ids[N] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    struct unmask_err err;
    struct checkpoint *c;
    struct hparams h;
    struct pool *pool;
    struct reading r;
    struct reading_set set = { 0 };
    OK(pool_open(&pool, 2, &err) && checkpoint_open(&c, DATA "llada-tiny", &err), err);
    const struct arch *a = arch_of(c, &err);
    OK(a && arch_hparams(a, c, &h, &err) && reading_set_add(&set, ids, N, 0, &err) && reading_set_add(&set, ids, N, 0, &err), err);
    OK(reading_open(&r, a, c, &h, pool, &set, &err) && reading_embed(&r, set.ids, &err) && reading_layer(&r, 0, NULL, NULL, &err), err);
    r.x[0] = 1e20f;
    assert_false(reading_layer(&r, 1, NULL, NULL, &err));
    expect_err(&err, "E-ARCH-010", "llada-tiny", "position 0", "finite numbers", NULL);
    reading_close(&r);
    reading_set_free(&set);
    checkpoint_close(c);
    pool_close(pool);
}

/* ---- texts --------------------------------------------------------------------------------------------- */

static void masks_come_at_eight_levels(void **state)
{
    (void)state;
    enum { TEXTS = 16, LENGTH = 44, GIVEN = 4, MASK = 99 };
    struct unmask_err err;
    struct reading_set s = { 0 };
    int32_t ids[LENGTH], *masked, *again;
    int seen = 0;
    for (int i = 0; i < LENGTH; i++) ids[i] = i;
    for (int t = 0; t < TEXTS; t++) OK(reading_set_add(&s, ids, LENGTH, GIVEN, &err), err);
    OK(calibration_mask(&s, MASK, 5, &masked, &err) && calibration_mask(&s, MASK, 5, &again, &err), err);
    assert_memory_equal(masked, again, s.n_ids * sizeof *masked);
    for (int t = 0; t < TEXTS; t++) {
        int n = 0;
        for (int i = 0; i < LENGTH; i++) {
            const int32_t id = masked[t * LENGTH + i];
            assert_true(id == i || (id == MASK && i >= GIVEN));
            n += id == MASK;
        }
        assert_true(n > 0 && n % 5 == 0);
        seen |= 1 << n / 5;
    }
    assert_int_equal(seen, 0x1FE);              /* 5, 10, ... 40 of the 40 that are not given */
    mem_free(masked);
    mem_free(again);
    reading_set_free(&s);
}

static void random_ids_are_any_but_the_mask(void **state)
{
    (void)state;
    enum { VOCAB = 9, N = 6400 };
    struct unmask_err err;
    const struct hparams h = { .n_vocab = VOCAB, .n_ctx = 50 };
    for (int32_t mask = -1; mask < VOCAB; mask += 5) {          /* none, inside, last */
        struct reading_set s = { 0 };
        int n[VOCAB] = { 0 }, *masked;
        OK(calibration_draw(&s, &h, mask, 3, N, &err) && calibration_mask(&s, mask, 3, &masked, &err), err);
        assert_int_equal(s.n_ids, N);
        assert_int_equal(s.texts[1].n, 50);
        for (size_t i = 0; i < s.n_ids; i++) n[s.ids[i]]++;
        for (int id = 0; id < VOCAB; id++) assert_true(id == mask ? n[id] == 0 : n[id] > N / VOCAB / 2 && n[id] < N / VOCAB * 2);
        assert_int_equal(memcmp(masked, s.ids, N * sizeof *masked) != 0, mask >= 0);
        mem_free(masked);
        reading_set_free(&s);
    }
}

static void a_model_writes_its_own_text(void **state)
{
    (void)state;
    struct unmask_err err;
    struct checkpoint *c;
    struct hparams h;
    struct tokenizer *t;
    struct reading_set set[2];
    OK(checkpoint_open(&c, DATA "llada-tiny", &err), err);
    const struct arch *a = arch_of(c, &err);
    OK(a && arch_hparams(a, c, &h, &err) && tokenizer_open(&t, c, &err), err);
    for (int i = 0; i < 2; i++) {
        struct pool *pool;
        OK(pool_open(&pool, i ? 3 : 1, &err), err);
        OK(self_text(&set[i], a, c, &h, t, pool, 1, 1000, NULL, NULL, &err), err);
        pool_close(pool);
    }
    assert_true(set[0].n_ids >= 1000 && set[0].n_ids < 1200);
    assert_int_equal(set[0].n_ids, set[1].n_ids);
    assert_memory_equal(set[0].ids, set[1].ids, set[0].n_ids * sizeof *set[0].ids);
    int asked = 0;
    for (size_t i = 0; i < set[0].n_texts; i++) asked += set[0].texts[i].n_given > 1;
    assert_true(asked > 0 && asked < (int)set[0].n_texts);      /* some in the chat template, some not */
    for (size_t i = 0; i < set[0].n_ids; i++) assert_true(set[0].ids[i] != h.mask_id && set[0].ids[i] >= 0 && set[0].ids[i] < h.n_vocab);
    for (int i = 0; i < 2; i++) reading_set_free(&set[i]);
    tokenizer_close(t);
    checkpoint_close(c);
}

/* ---- whole files ----------------------------------------------------------------------------------------- */

struct seen { int n, feedback, better; };

static void on_tensor(void *user, const struct quantize_tensor *t)
{
    struct seen *s = user;
    s->n++;
    s->feedback += !strcmp(t->method, "feedback");
    s->better += t->output_error < t->output_error_plain;       /* false where they are not measured */
}

static void calibrated_files(void **state)
{
    (void)state;
    static const struct { const char *from; const struct quant_format *to; int matrices; bool search; } rows[] = {
        /* All but down and head; not a tied embedding. */
        { DATA "llada-tiny", &format_q4_0, 19, true }, { DATA "llada-tied", &format_q4_0, 12, true },
        { DATA "llada-tiny", &format_q4_0, 23, false }, { DATA "llada-tied", &format_q4_0, 14, false },
        { DATA "llada-k256", &format_q4_k, 16, false }, { DATA "llada-k256", &format_q6_k, 16, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct unmask_err err;
        struct seen seen = { 0 };
        struct quantize_options o = {
            .format = rows[i].to, .threads = 1, .force = true, .search = rows[i].search,
            .own_text = rows[i].search ? 0 : 2000, .calibration_name = rows[i].search ? NULL : "self",
            .measure = true, .on_tensor = on_tensor, .user = &seen };
        OK(quantize_file(rows[i].from, scratch("one.gguf"), &o, &report, &err), err);
        assert_int_equal(seen.feedback, rows[i].matrices);
        assert_int_equal(seen.better, rows[i].matrices);
        o.threads = 3;
        OK(quantize_file(rows[i].from, scratch("three.gguf"), &o, &report, &err), err);
        same_file(scratch("one.gguf"), scratch("three.gguf"));
        struct checkpoint *c;
        struct str method, source;
        int64_t tokens = 0;
        OK(checkpoint_open(&c, scratch("one.gguf"), &err) && meta_str(c, "unmask.quantize.method", true, &method, &err)
           && meta_str(c, "unmask.calibration.source", true, &source, &err)
           && meta_int(c, "unmask.calibration.tokens", 1, 1 << 20, true, &tokens, &err), err);
        assert_true(method.n == 8 && !memcmp(method.s, "feedback", 8)
                    && source.n == (rows[i].search ? 10 : 4) && tokens == (rows[i].search ? 4096 : 2000));
        checkpoint_close(c);
        o = (struct quantize_options){ .format = rows[i].to, .threads = 2, .force = true };       /* a copy keeps its notes */
        OK(quantize_file(scratch("one.gguf"), scratch("copy.gguf"), &o, &report, &err), err);
        same_file(scratch("one.gguf"), scratch("copy.gguf"));
        o.format = &format_f32;                 /* what is made of it anew does not */
        OK(quantize_file(scratch("one.gguf"), scratch("wide.gguf"), &o, &report, &err)
           && checkpoint_open(&c, scratch("wide.gguf"), &err), err);
        assert_null(checkpoint_meta(c, "unmask.quantize.method"));
        checkpoint_close(c);
    }
}

static bool stop(void *user, const struct quantize_progress *p)
{
    return p->stage != QUANTIZE_CALIBRATING || --*(int *)user > 0;
}

static void a_calibration_can_be_stopped(void **state)
{
    (void)state;
    for (int at = 1; at < 200; at += 30) {
        struct unmask_err err;
        int left = at;
        const struct quantize_options o = { .format = &format_q4_0, .threads = 2, .force = true,
                                            .own_text = 2000, .on_progress = stop, .user = &left };
        assert_false(quantize_file(DATA "llada-tiny", scratch("stopped.gguf"), &o, &report, &err));
        expect_err(&err, "E-RUN-001", NULL);
        assert_int_equal(access(scratch("stopped.gguf"), F_OK), -1);
    }
}

/* ---- importance -------------------------------------------------------------------------------------------- */

static void put_u32(char **p, uint32_t v)
{
    memcpy(*p, &v, 4);
    *p += 4;
}

static void put_name(char **p, const char *name)
{
    put_u32(p, (uint32_t)strlen(name));
    memcpy(*p, name, strlen(name));
    *p += strlen(name);
}

/* Two entries; the second holds `bad` in its last column.  Returns the size. */
static size_t make_dat(char *file, float bad, bool tail)
{
    static const char *const names[] = { "blk.0.attn_q.weight", "blk.1.ffn_down.weight" };
    static const uint32_t columns[] = { 64, 160 };
    char *p = file;
    put_u32(&p, 2);
    for (int e = 0; e < 2; e++) {
        put_name(&p, names[e]);
        put_u32(&p, 4);                         /* calls: values are times that */
        put_u32(&p, columns[e]);
        for (uint32_t i = 0; i < columns[e]; i++) {
            const float v = e == 1 && i + 1 == columns[e] ? bad : 4 * (float)(i + 1);
            memcpy(p, &v, 4);
            p += 4;
        }
    }
    if (tail) {
        put_u32(&p, 12);
        put_name(&p, "wiki.txt");
    }
    return (size_t)(p - file);
}

static void both_forms_of_importance_files_are_read(void **state)
{
    (void)state;
    char file[4096];
    struct unmask_err err;
    struct imatrix m, again;
    for (int tail = 0; tail < 2; tail++) {
        OK(imatrix_read(&m, scratch_write("a.dat", file, make_dat(file, 8, tail)), &err), err);
        assert_int_equal(m.n, 2);
        assert_int_equal(m.chunks, tail ? 12 : 0);
        assert_string_equal(m.dataset, tail ? "wiki.txt" : "");
        const struct imatrix_entry *e = imatrix_find(&m, "blk.1.ffn_down.weight");
        assert_true(e && e->k == 160 && e->squares[0] == 1 && e->squares[158] == 159 && e->squares[159] == 2);
        if (!tail) imatrix_free(&m);
    }
    struct outfile o;
    OK(outfile_open(&o, scratch("a.gguf"), true, 0, &err) && imatrix_write(&m, &o, &err) && outfile_commit(&o, &err), err);
    OK(imatrix_read(&again, scratch("a.gguf"), &err), err);
    assert_int_equal(again.n, 2);
    assert_string_equal(again.dataset, "wiki.txt");
    for (size_t i = 0; i < m.n; i++) {
        const struct imatrix_entry *e = imatrix_find(&again, m.entries[i].name);
        assert_true(e && e->k == m.entries[i].k);
        assert_memory_equal(e->squares, m.entries[i].squares, e->k * sizeof(float));
    }
    imatrix_free(&again);
    imatrix_free(&m);
}

static void bad_importance_files_are_refused(void **state)
{
    (void)state;
    char file[4096];
    struct unmask_err err;
    struct imatrix m;
    const size_t n = make_dat(file, 8, false);
    for (size_t cut = 0; cut < n; cut += cut < 64 ? 1 : 37) {
        assert_false(imatrix_read(&m, scratch_write("cut.dat", file, cut), &err));
        expect_err(&err, "E-QNT-010", "cut.dat", NULL);
    }
    assert_false(imatrix_read(&m, scratch_write("nan.dat", file, make_dat(file, NAN, false)), &err));
    expect_err(&err, "E-QNT-010", "blk.1.ffn_down.weight", "column 159", NULL);
    assert_false(imatrix_read(&m, scratch_write("minus.dat", file, make_dat(file, -1, false)), &err));
    expect_err(&err, "E-QNT-010", NULL);
    char *p = file;
    put_u32(&p, 2);
    for (int e = 0; e < 2; e++) {
        put_name(&p, "blk.0.attn_q.weight");
        put_u32(&p, 1);
        put_u32(&p, 1);
        put_u32(&p, 0x3F800000);                /* 1.0f */
    }
    assert_false(imatrix_read(&m, scratch_write("twice.dat", file, (size_t)(p - file)), &err));
    expect_err(&err, "E-QNT-010", "twice.dat", "blk.0.attn_q.weight", "entries 1 and 2", NULL);
    const struct quantize_options o = { .format = &format_f32, .threads = 1, .force = true };
    OK(quantize_file(DATA "llada-tied", scratch("model.gguf"), &o, &report, &err), err);
    assert_false(imatrix_read(&m, scratch("model.gguf"), &err));
    expect_err(&err, "E-QNT-010", "general.type", "need imatrix", NULL);
}

static void importance_weighs_columns(void **state)
{
    (void)state;
    char file[4096];
    struct unmask_err err;
    struct imatrix m;
    struct seen seen = { 0 };
    OK(imatrix_read(&m, scratch_write("a.dat", file, make_dat(file, 8, false)), &err), err);
    struct quantize_options o = { .format = &format_q4_0, .threads = 2, .force = true,
                                  .importance = &m, .calibration_name = "a.dat", .on_tensor = on_tensor, .user = &seen };
    OK(quantize_file(DATA "llada-tiny", scratch("weighed.gguf"), &o, &report, &err), err);
    struct checkpoint *c;
    struct str method;
    OK(checkpoint_open(&c, scratch("weighed.gguf"), &err) && meta_str(c, "unmask.quantize.method", true, &method, &err), err);
    assert_true(method.n == 10 && !memcmp(method.s, "importance", 10));
    checkpoint_close(c);
    m.entries[0].k = 63;
    assert_false(quantize_file(DATA "llada-tiny", scratch("weighed.gguf"), &o, &report, &err));
    expect_err(&err, "E-QNT-010", "blk.0.attn_q.weight", "63 columns", "another model", NULL);
    imatrix_free(&m);
}

/* What a calibration saves is what another run weighs by. */
static void importance_can_be_saved(void **state)
{
    (void)state;
    struct unmask_err err;
    struct imatrix found = { 0 };
    const struct quantize_options o = { .format = &format_q4_0, .threads = 2, .force = true,
                                        .own_text = 1000, .calibration_name = "self", .save_importance = &found };
    OK(quantize_file(DATA "llada-tiny", scratch("a.gguf"), &o, &report, &err), err);
    assert_int_equal(found.n, 22);              /* 7 matrices of 3 layers, and the head */
    const struct imatrix_entry *q = imatrix_find(&found, "blk.2.attn_q.weight"), *v = imatrix_find(&found, "blk.2.attn_v.weight");
    assert_true(q && v && q->k == 64);
    assert_memory_equal(q->squares, v->squares, q->k * sizeof(float));
    for (size_t i = 0; i < found.n; i++)
        for (size_t k = 0; k < found.entries[i].k; k++) assert_true(found.entries[i].squares[k] > 0);
    struct imatrix again = { 0 };               /* whatever the file is made of */
    struct quantize_options wide = o;
    wide.format = &format_f16;
    wide.save_importance = &again;
    OK(quantize_file(DATA "llada-tiny", scratch("b.gguf"), &wide, &report, &err), err);
    assert_int_equal(again.n, 22);
    assert_memory_equal(imatrix_find(&again, "output.weight")->squares, imatrix_find(&found, "output.weight")->squares, 64 * sizeof(float));
    imatrix_free(&again);
    imatrix_free(&found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_factor_gives_the_moments_again),
        cmocka_unit_test(inputs_that_are_always_zero_do_no_harm),
        cmocka_unit_test(values_are_those_that_readers_see),
        cmocka_unit_test(feedback_loses_less),
        cmocka_unit_test(machines_and_threads_give_the_same_bytes),
        cmocka_unit_test(the_first_layer_reads_the_embedding),
        cmocka_unit_test(an_overflow_ends_a_reading),
        cmocka_unit_test(masks_come_at_eight_levels),
        cmocka_unit_test(random_ids_are_any_but_the_mask),
        cmocka_unit_test(a_model_writes_its_own_text),
        cmocka_unit_test(calibrated_files),
        cmocka_unit_test(a_calibration_can_be_stopped),
        cmocka_unit_test(both_forms_of_importance_files_are_read),
        cmocka_unit_test(bad_importance_files_are_refused),
        cmocka_unit_test(importance_weighs_columns),
        cmocka_unit_test(importance_can_be_saved),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
