/* test_stream.c - weights that do not stay in memory: the same bits as with all of them in it, each byte read once a pass, and a
 * sentence when the file fails: the n-th read gives an error, too little, or comes late; the file is cut short or changes.
 * The linker puts __wrap_pread of this file in the place of the system's (Makefile). */
#define _GNU_SOURCE             /* O_DIRECT */
#include "testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "denoise.h"
#include "plan.h"
#include "probe.h"
#include "quantize.h"

#define DATA "tests/data/checkpoints/"

/* ---- faults of reading ---- */

enum effect { NOTHING, ERROR, SHORT, SLOW, NO_DIRECT, VANISHED };
static struct { atomic_int effect, after; } fault;              /* from read number `after` on */

static void arm(enum effect effect, int after)
{
    atomic_store(&fault.after, after);
    atomic_store(&fault.effect, (int)effect);
}

ssize_t __real_pread(int fd, void *p, size_t n, off_t at);
ssize_t __real_pread64(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread(int fd, void *p, size_t n, off_t at);
ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at);

static ssize_t faulty(int fd, void *p, size_t n, off_t at)
{
    const int effect = atomic_load(&fault.effect);
    const bool direct = fcntl(fd, F_GETFL) & O_DIRECT;
    if (effect == NOTHING || (effect != NO_DIRECT && atomic_fetch_sub(&fault.after, 1) > 0)) return __real_pread64(fd, p, n, at);
    switch ((enum effect)effect) {
    case ERROR: errno = EIO; return -1;
    case VANISHED: return 0;
    case SHORT: return __real_pread64(fd, p, direct ? n / 2 & ~(size_t)511 : (n + 1) / 2, at);
    case SLOW: usleep(1000); return __real_pread64(fd, p, n, at);
    default: break;
    }
    errno = EINVAL;                             /* NO_DIRECT */
    return direct ? -1 : __real_pread64(fd, p, n, at);
}
ssize_t __wrap_pread(int fd, void *p, size_t n, off_t at) { return faulty(fd, p, n, at); }
ssize_t __wrap_pread64(int fd, void *p, size_t n, off_t at) { return faulty(fd, p, n, at); }

/* ---- models ---- */

static const char *const names[] = { "llada-tiny", "llada-tied", "llada-gqa", "llada-tiny-bf16" };

static const char *pack(const char *name, const struct quant_format *f)
{
    struct unmask_err err;
    struct quantize_report report;
    char in[100];
    snprintf(in, sizeof in, DATA "%s", name);
    OK(quantize_file(in, scratch("packed.gguf"),
                     &(struct quantize_options){ .format = f, .threads = 2, .force = true, .packed = true }, &report, &err), err);
    return scratch("packed.gguf");
}

enum { RING = 20000 };

/* A model of which about `limit` bytes stay. */
static struct unmask_model *open_part(const char *path, uint64_t limit)
{
    struct unmask_err err;
    struct unmask_model *m;
    OK(model_prepare(&m, path, NULL, &err), err);
    model_divide(m, limit);
    OK(model_load(m, RING, 2, &err), err);
    return m;
}

/* ---- the ring ---- */

static void every_byte_comes_in_order(void **state)
{
    (void)state;
    enum { TILE = 192, PARTS = 5, START = 64 };
    static const int n_tiles[PARTS] = { 7, 1, 30, 2, 13 };
    static uint8_t bytes[(7 + 1 + 30 + 2 + 13) * TILE + PARTS * START];
    struct unmask_err err;
    struct file f;
    struct stream_part parts[PARTS];
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 2654435761u >> 24);
    OK(file_open(&f, scratch_write("bytes", bytes, sizeof bytes), &err), err);
    uint64_t at = 0;
    for (int i = 0; i < PARTS; i++) {
        parts[i] = (struct stream_part){ &f, at += START, TILE, n_tiles[i] };
        at += (uint64_t)n_tiles[i] * TILE;
    }
    for (size_t ring = 1; ring < 40000; ring *= 3) {
        struct stream *s;
        OK(stream_open(&s, parts, PARTS, ring, &err), err);
        unsigned noise = (unsigned)ring;
        for (int round = 0; round < 40; round++) {
            noise = noise * 1103515245u + 12345u;
            const int first = round % 3 == 2 ? (int)(noise >> 16) % PARTS : 0;
            const int last = round % 5 == 4 ? (int)(noise >> 20) % PARTS : PARTS - 1;
            for (int p = first; p <= last; p++) {
                stream_seek(s, p);
                for (int tile = 0; tile < n_tiles[p]; tile++) {
                    const int unit = stream_unit(s, p), start = tile / unit * unit;
                    const int of = n_tiles[p] - start < unit ? n_tiles[p] - start : unit;
                    const uint8_t *t = stream_take(s, p, tile);
                    assert_non_null(t);
                    assert_int_equal((uintptr_t)t % 64, parts[p].offset % 64);
                    assert_memory_equal(t, bytes + parts[p].offset + (size_t)tile * TILE, TILE);
                    stream_give(s, p, tile, 1, (uint64_t)of);
                }
            }
        }
        assert_true(stream_drain(s));
        assert_false(stream_failed(s, NULL));
        stream_close(s);
    }
    file_close(&f);
}

/* ---- whole models ---- */

struct logits { float x[40 * 512]; };
static bool keep_row(void *user, int position, const float *row)
{
    memcpy(((struct logits *)user)->x + (size_t)position * 512, row, 512 * sizeof *row);
    return true;
}

static bool pass(const struct unmask_model *m, int threads, int n, struct logits *out, struct unmask_err *err)
{
    struct unmask_session *s;
    int32_t ids[40];
    for (int i = 0; i < n; i++) ids[i] = i % 3 ? (i * 37 + 11) % 480 : m->h.mask_id;
    OK(unmask_session_open(&s, m, threads, err), *err);
    const bool ok = unmask_forward(s, ids, (size_t)n, NULL, &(struct unmask_taps){ .user = out, .logits = keep_row }, err);
    unmask_session_close(s);
    return ok;
}

/* Where all matrices stay in memory, the embedding alone may be left in the file: rows that come again, pass after pass. */
static void an_embedding_alone_is_looked_up(void **state)
{
    (void)state;
    static struct logits a, b;
    static int32_t ids[40];
    struct unmask_err err;
    struct unmask_session *s;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *path = pack(names[i], &format_q8_0);
        struct unmask_model *whole = open_part(path, UINT64_MAX), *m = open_part(path, whole->weight_bytes - 1);
        if (whole->h.tied_head) assert_true(m->n_stream > 0 && !m->embed_file);
        else {
            assert_true(m->n_stream == 0 && m->embed_file);
            assert_true(forward_bytes(m, 40, 1, forward_away(m), 2)
                        > forward_bytes(m, 40, 1, (struct away){ false, false }, 2) + 500 * model_embed_scratch(m));
            OK(unmask_session_open(&s, m, 2, &err), err);
            for (int round = 0; round < 3; round++) {
                for (int k = 0; k < 40; k++) ids[k] = k % 3 ? (k * 37 + 11 + round * 5) % 480 : m->h.mask_id;
                struct unmask_session *reference;
                OK(unmask_session_open(&reference, whole, 2, &err), err);
                OK(unmask_forward(reference, ids, 40, NULL, &(struct unmask_taps){ .user = &a, .logits = keep_row }, &err), err);
                unmask_session_close(reference);
                OK(unmask_forward(s, ids, 40, NULL, &(struct unmask_taps){ .user = &b, .logits = keep_row }, &err), err);
                assert_memory_equal(&a, &b, sizeof a);
            }
            assert_int_equal(truncate(path, 100000), 0);
            assert_false(unmask_forward(s, ids, 40, NULL, &(struct unmask_taps){ .user = &b, .logits = keep_row }, &err));
            expect_err(&err, "E-FILE-004", "packed.gguf", NULL);
            unmask_session_close(s);
        }
        unmask_close(m);
        unmask_close(whole);
    }
}

static bool keep_4096(void *user, int position, const float *row)
{
    memcpy((float *)user + (size_t)position * 4096, row, 4096 * sizeof *row);
    return true;
}

/* Of an embedding in the file only some rows are kept, each at its id's place modulo their number: ids of one place are told apart. */
static void tokens_that_share_a_place_keep_their_rows(void **state)
{
    (void)state;
    enum { N = 8 };
    static const int32_t ids[N] = { 7, 519, 7, 1031, 3591, 519, 512, 0 };
    static float rows[2][N * 4096];
    struct unmask_err err;
    OK(quantize_file("models/unmask-demo-6M-v1.0-Q8_0.gguf", scratch("vocabulary.gguf"),
                     &(struct quantize_options){ .format = &format_q8_0, .threads = 2, .force = true, .packed = true },
                     &(struct quantize_report){ 0 }, &err), err);
    for (int part = 0; part < 2; part++) {
        struct unmask_model *m = open_part(scratch("vocabulary.gguf"), part ? 0 : UINT64_MAX);
        struct unmask_session *s;
        assert_true(m->h.n_vocab == 4096 && (m->embed_file != NULL) == part);
        OK(unmask_session_open(&s, m, 2, &err), err);
        OK(unmask_forward(s, ids, N, NULL, &(struct unmask_taps){ .user = rows[part], .logits = keep_4096 }, &err), err);
        unmask_session_close(s);
        unmask_close(m);
    }
    assert_memory_equal(rows[0], rows[1], sizeof rows[0]);
}

/* Rows that are looked up are looked at, too. */
static void a_damaged_row_in_the_file_is_an_error(void **state)
{
    (void)state;
    enum { TOKEN = 11 };
    static const int32_t good[] = { 10, 12 }, bad[] = { 10, TOKEN };
    static const uint8_t nan[] = { 0, 0x7E };
    struct unmask_err err;
    struct checkpoint *c;
    struct unmask_session *s;
    const char *path = pack("llada-tiny", &format_q8_0);
    OK(checkpoint_open(&c, path, &err), err);
    const struct tensor *embed = checkpoint_tensor(c, "token_embd.weight");
    FILE *f = fopen(path, "r+b");               /* the scale of a block of the token's row */
    fseek(f, (long)(embed->offset + TOKEN * quant_row_bytes(embed->format, embed->shape[0])), SEEK_SET);
    assert_int_equal(fwrite(nan, 1, sizeof nan, f), sizeof nan);
    fclose(f);
    checkpoint_close(c);
    struct unmask_model *m = open_part(path, 0);
    assert_non_null(m->embed_file);
    OK(unmask_session_open(&s, m, 1, &err), err);
    OK(unmask_forward(s, good, 2, NULL, &(struct unmask_taps){ .user = NULL }, &err), err);
    assert_false(unmask_forward(s, bad, 2, NULL, &(struct unmask_taps){ .user = NULL }, &err));
    expect_err(&err, "E-ARCH-007", "packed.gguf", "embedding of token 11", NULL);
    unmask_session_close(s);
    unmask_close(m);
}

static int open_files(void)
{
    int n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void what_a_session_opened_it_closes(void **state)
{
    (void)state;
    static struct logits out;
    struct unmask_err err;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 0);
    const int before = open_files();
    for (int i = 0; i < 3; i++) OK(pass(m, 2, 4, &out, &err), err);
    assert_int_equal(open_files(), before);
    unmask_close(m);
    assert_true(open_files() < before);
}

/* No file of ours has an embedding that is no head in tiles; one that has is unpacked, with a budget too. */
static void a_packed_embedding_becomes_rows(void **state)
{
    (void)state;
    static struct logits a, b;
    struct unmask_err err;
    struct unmask_model *whole, *m;
    static char file[1 << 20];
    FILE *f = fopen(pack("llada-tiny", &format_q8_0), "r+b");
    const size_t n = fread(file, 1, sizeof file, f);
    const char *const tensors[] = { "token_embd.weight", "blk.0.attn_q.weight" };
    long type[2] = { 0 };                       /* behind the name, in its last place: number of dimensions, two of 8 bytes, type */
    for (int i = 0; i < 2; i++)
        for (size_t at = 0; at + 64 < n; at++)
            if (!memcmp(file + at, tensors[i], strlen(tensors[i]))) type[i] = (long)(at + strlen(tensors[i]) + 4 + 2 * 8);
    fseek(f, type[0], SEEK_SET);
    fwrite(file + type[1], 1, 4, f);
    struct checkpoint *c;                       /* rows read as tiles: numbers without sense, but none without a finite scale */
    OK(checkpoint_open(&c, scratch("packed.gguf"), &err), err);
    const struct tensor *embed = checkpoint_tensor(c, tensors[0]);
    for (uint64_t i = 0; i < embed->bytes; i++) file[embed->offset + i] = (char)(file[embed->offset + i] & ~0x40);
    fseek(f, (long)embed->offset, SEEK_SET);
    fwrite(file + embed->offset, 1, (size_t)embed->bytes, f);
    fclose(f);
    checkpoint_close(c);
    OK(unmask_open(&whole, scratch("packed.gguf"), NULL, &err), err);
    OK(unmask_open(&m, scratch("packed.gguf"), &(struct unmask_open_options){ .memory_budget = 1u << 30 }, &err), err);
    OK(pass(whole, 2, 40, &a, &err), err);
    OK(pass(m, 2, 40, &b, &err), err);
    assert_memory_equal(&a, &b, sizeof a);
    unmask_close(m);
    unmask_close(whole);
}

static void streamed_models_compute_the_same(void **state)
{
    (void)state;
    static struct logits a, b;
    struct unmask_err err;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *path = pack(names[i], i == 3 ? &format_bf16 : i == 1 ? &format_q4_0 : &format_q8_0);
        struct unmask_model *whole = open_part(path, UINT64_MAX);
        assert_int_equal(whole->n_stream, 0);
        OK(pass(whole, 2, 40, &a, &err), err);
        for (int part = 0; part < 4; part++) {
            struct unmask_model *m = open_part(path, whole->weight_bytes * (uint64_t)part / 4);
            assert_true(m->n_stream > 0 && (part > 0 || m->n_stream == 7 * m->h.n_layer));
            for (int threads = 1; threads <= 3; threads++) {
                memset(&b, 0, sizeof b);
                OK(pass(m, threads, 40, &b, &err), err);
                assert_memory_equal(&a, &b, sizeof a);
            }
            unmask_close(m);
        }
        unmask_close(whole);
    }
}

/* Weights that stay in several files come from their own ones. */
static void a_split_model_computes_the_same(void **state)
{
    (void)state;
    static struct logits a, b;
    struct unmask_err err;
    OK(quantize_file(DATA "llada-tiny", scratch("split.gguf"),
                     &(struct quantize_options){ .format = &format_q8_0, .threads = 2, .packed = true, .split_bytes = 60000 },
                     &(struct quantize_report){ 0 }, &err), err);
    struct unmask_model *whole = open_part(pack("llada-tiny", &format_q8_0), UINT64_MAX), *m = NULL;
    OK(pass(whole, 2, 40, &a, &err), err);
    char first[100];
    for (int n = 2; n < 9; n++) {
        snprintf(first, sizeof first, "split-00001-of-%05d.gguf", n);
        if (access(scratch(first), F_OK) == 0) m = open_part(scratch(first), 0);
    }
    assert_non_null(m);
    assert_ptr_not_equal(m->stream[0].file, m->stream[m->n_stream - 1].file);
    OK(pass(m, 2, 40, &b, &err), err);
    assert_memory_equal(&a, &b, sizeof a);
    unmask_close(m);
    unmask_close(whole);
}

static void generate(const struct unmask_model *m, const char *reuse, const char *store,
                     float cfg, float temperature, struct unmask_result *r)
{
    static const int32_t prompt[] = { 480, 17, 33, 99, 250, 3, 77 };
    struct unmask_err err;
    struct unmask_session *s;
    struct unmask_options o;
    OK(unmask_session_open(&s, m, 2, &err), err);
    unmask_options_default(m, &o);
    o.gen_length = 24;
    o.block_length = 8;
    o.threshold = 0.02f;
    o.early_stop = false;
    o.cfg_scale = cfg;
    o.temperature = temperature;
    o.reuse = reuse;
    o.store = store;
    OK(unmask_generate(s, prompt, ARRAY_LEN(prompt), &o, NULL, NULL, r, &err), err);
    unmask_session_close(s);
}

static void streamed_models_write_the_same(void **state)
{
    (void)state;
    const char *path = pack("llada-gqa", &format_q8_0);
    struct unmask_model *whole = open_part(path, UINT64_MAX), *m = open_part(path, whole->weight_bytes / 3);
    for (const struct reuse_profile *p = reuse_profiles; p->name; p++)
        for (int how = 0; how < 3; how++) {
            const int cfg = how == 1;
            const char *store = how == 2 ? "hidden" : NULL;
            struct unmask_result a, b;
            generate(whole, p->name, store, cfg ? 0.5f : 0, cfg ? 0.7f : 0, &a);
            generate(m, p->name, store, cfg ? 0.5f : 0, cfg ? 0.7f : 0, &b);
            assert_int_equal(a.passes, b.passes);
            assert_memory_equal(a.canvas, b.canvas, (size_t)a.n_canvas * sizeof *a.canvas);
            assert_memory_equal(a.confidence + a.n_prompt, b.confidence + b.n_prompt,
                                (size_t)(a.n_canvas - a.n_prompt) * sizeof *a.confidence);
            unmask_result_free(&a);
            unmask_result_free(&b);
        }
    unmask_close(whole);
    unmask_close(m);
}

/* Two branches and more rows than a resident pass takes at a time: still one visit for each matrix. */
static void each_byte_is_read_once_a_pass(void **state)
{
    (void)state;
    enum { N = 200, PASSES = 6 };
    struct unmask_err err;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 40000);
    uint64_t streamed = 0;
    for (int i = 0; i < m->n_stream; i++) streamed += (uint64_t)m->stream[i].n_tiles * m->stream[i].tile_bytes;
    struct pool *pool;
    struct forward *f;
    struct row_store *store[2];
    static int32_t ids[N];
    static int need[40];
    float *x = test_malloc(2 * N * (size_t)m->h.n_embd * sizeof *x);
    for (int i = 0; i < N; i++) ids[i] = (i * 31) % 480;
    for (int i = 0; i < 40; i++) need[i] = i * 7;
    OK(pool_open(&pool, 2, &err) && forward_open(&f, m, N, 2, pool, &err), err);
    for (int b = 0; b < 2; b++) OK(row_store_open(&store[b], forward_store_kind(m), &m->h, N, (struct store_layers){ .n = 0 }, &err), err);
    const uint64_t ahead = stream_bytes(m->stream, m->n_stream, m->ring_bytes);
    for (int i = 0; i < PASSES; i++)
        assert_true(forward_pass(f, &(struct pass){ .n_branches = 2, .ids = { ids, ids }, .store = { store[0], store[1] },
                                                    .n_keys = N, .n_rows = N, .need = i % 2 ? need : NULL, .n_need = 40, .x = x }));
    const uint64_t read = forward_bytes_read(f);
    assert_true(read >= PASSES * streamed && read <= PASSES * streamed + ahead);
    for (int b = 0; b < 2; b++) row_store_close(store[b]);
    forward_close(f);
    pool_close(pool);
    test_free(x);
    unmask_close(m);
}

/* ---- faults ---- */

static void a_read_that_fails_is_an_error(void **state)
{
    (void)state;
    static struct logits out;
    struct unmask_err err;
    for (int vanished = 0; vanished < 2; vanished++)
        for (int after = 0; after < 60; after += after < 10 ? 1 : 7) {
            struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 0);
            arm(vanished ? VANISHED : ERROR, after);
            const bool ok = pass(m, 2, 40, &out, &err);
            arm(NOTHING, 0);
            if (after < 20) assert_false(ok);
            if (!ok)
                expect_err(&err, vanished ? "E-FILE-004" : "E-FILE-003", "packed.gguf", vanished ? "the end of the file" : "bytes ", NULL);
            if (!ok) assert_int_equal(err.status, UNMASK_EIO);
            unmask_close(m);
        }
}

/* A disk that comes back serves the session that it failed. */
static void a_session_outlives_a_read_that_fails(void **state)
{
    (void)state;
    static const int32_t prompt[] = { 5 };
    struct unmask_session *s;
    struct unmask_options o;
    struct unmask_result r;
    struct unmask_err err;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 0);
    unmask_options_default(m, &o);
    o.gen_length = o.block_length = 8;
    OK(unmask_session_open(&s, m, 1, &err), err);
    for (int i = 0; i < 3; i++) {
        if (i == 1) arm(ERROR, 0);
        const bool ok = unmask_generate(s, prompt, 1, &o, NULL, NULL, &r, &err);
        arm(NOTHING, 0);
        if (i == 1) assert_false(ok);
        else OK(ok, err);
        unmask_result_free(&r);
    }
    unmask_session_close(s);
    unmask_close(m);
}

static void odd_reads_change_nothing(void **state)
{
    (void)state;
    static struct logits a, b;
    static const enum effect effects[] = { SHORT, SLOW, NO_DIRECT };
    struct unmask_err err;
    const char *path = pack("llada-gqa", &format_q4_0);
    struct unmask_model *m = open_part(path, 0);
    OK(pass(m, 2, 33, &a, &err), err);
    for (size_t i = 0; i < ARRAY_LEN(effects); i++)
        for (int after = 0; after < 8; after += 7) {
            arm(effects[i], after);
            const bool ok = pass(m, 2, 33, &b, &err);
            arm(NOTHING, 0);
            OK(ok, err);
            assert_memory_equal(&a, &b, 33 * 512 * sizeof(float));
        }
    unmask_close(m);
}

/* The file is cut short, overwritten, removed or replaced while a session lasts. */
static void a_file_that_changes_is_noticed(void **state)
{
    (void)state;
    static const int32_t ids[] = { 5, 6, 7, 8 };
    static struct logits out;
    struct unmask_err err;
    for (int how = 0; how < 8; how++) {         /* from 4 on: matrices alone are in the file, for the embedding is the head */
        struct unmask_model *m = open_part(pack(how < 4 ? "llada-tiny" : "llada-tied", &format_q8_0), 0);
        const struct unmask_taps taps = { .user = &out, .logits = keep_row };
        struct unmask_session *s;
        OK(unmask_session_open(&s, m, 2, &err), err);
        OK(unmask_forward(s, ids, 4, NULL, &taps, &err), err);
        const char *path = scratch("packed.gguf");
        if (how % 4 == 0) assert_int_equal(truncate(path, 100000), 0);
        if (how % 4 == 1) {
            FILE *f = fopen(path, "r+b");
            fputc('G', f);
            fclose(f);
        }
        if (how % 4 == 2) unlink(path);
        if (how % 4 == 3) {
            rename(path, scratch("old.gguf"));
            scratch_write("packed.gguf", "other", 5);
        }
        const bool ok = unmask_forward(s, ids, 4, NULL, &taps, &err);
        if (how % 4 >= 2) {                     /* the old file is still there for those who have it open, and for new sessions */
            OK(ok, err);
            OK(pass(m, 1, 4, &out, &err), err);
        } else {
            assert_false(ok);
            expect_err(&err, "E-FILE-004", "packed.gguf", NULL);
            assert_false(unmask_forward(s, ids, 4, NULL, &taps, &err));
        }
        unmask_session_close(s);
        unlink(scratch("packed.gguf"));
        unmask_close(m);
    }
}

/* Reading alone, for measurements: what went wrong is told as a pass would. */
static void reading_alone_tells_why_it_fails(void **state)
{
    (void)state;
    struct unmask_err err;
    struct pool *pool;
    struct forward *f;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 0);
    OK(pool_open(&pool, 1, &err) && forward_open(&f, m, 4, 1, pool, &err), err);
    assert_true(forward_drain(f) && !forward_failed(f, &err));
    assert_int_equal(truncate(scratch("packed.gguf"), 100000), 0);
    assert_false(forward_drain(f));
    assert_true(forward_failed(f, &err));
    expect_err(&err, "E-FILE-004", "packed.gguf", NULL);
    forward_close(f);
    pool_close(pool);
    unmask_close(m);
}

/* A generation stops with the error, and the step's result is thrown away. */
static void a_generation_stops(void **state)
{
    (void)state;
    static const int32_t prompt[] = { 480, 17, 33 };
    struct unmask_err err;
    struct unmask_session *s;
    struct unmask_options o;
    struct unmask_result r;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 0);
    OK(unmask_session_open(&s, m, 2, &err), err);
    unmask_options_default(m, &o);
    o.gen_length = 16;
    arm(ERROR, 100);
    assert_false(unmask_generate(s, prompt, 3, &o, NULL, NULL, &r, &err));
    expect_err(&err, "E-FILE-003", "packed.gguf", NULL);
    assert_null(r.canvas);
    double nats;
    assert_false(unmask_likelihood(s, prompt, 3, prompt, 3, 4, 0, 1, &nats, &err));
    expect_err(&err, "E-FILE-003", "packed.gguf", NULL);
    arm(NOTHING, 0);
    unmask_session_close(s);
    unmask_close(m);
}

/* A longer canvas, or room that was given back, begins another stream: what a run read is still the difference. */
static void a_session_counts_what_all_its_streams_read(void **state)
{
    (void)state;
    static const int lengths[] = { 8, 40, 20, 40, 30 };
    static const int32_t ids[40];
    struct unmask_err err;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 40000);
    struct unmask_session *s;
    uint64_t streamed = 0, before = 0;
    for (int i = 0; i < m->n_stream; i++) streamed += (uint64_t)m->stream[i].n_tiles * m->stream[i].tile_bytes;
    const uint64_t ahead = 2 * stream_bytes(m->stream, m->n_stream, m->ring_bytes);         /* of the pass, and of the one before */
    OK(unmask_session_open(&s, m, 2, &err), err);
    assert_int_equal(session_bytes_read(s), 0);
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        if (i == 3) session_release(s);
        OK(unmask_forward(s, ids, (size_t)lengths[i], NULL, &(struct unmask_taps){ .user = NULL }, &err), err);
        const uint64_t now = session_bytes_read(s);
        assert_true(now + ahead >= before + streamed && now <= before + streamed + ahead);
        before = now;
    }
    unmask_session_close(s);
    unmask_close(m);
}

/* A forked child has no threads of the session's to wait for. */
static void a_forked_child_can_close(void **state)
{
    (void)state;
    static const int32_t ids[] = { 5, 6, 7, 8 };
    static struct logits out;
    const struct unmask_taps taps = { .user = &out, .logits = keep_row };
    struct unmask_err err;
    struct unmask_session *s;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_q8_0), 0);
    OK(unmask_session_open(&s, m, 3, &err) && unmask_forward(s, ids, 4, NULL, &taps, &err), err);
    for (int i = 0; i < 5; i++) {
        int how = 0;
        const pid_t child = fork();
        if (child == 0) {
            alarm(20);
            unmask_session_close(s);
            unmask_close(m);
            _exit(7);
        }
        assert_int_equal(waitpid(child, &how, 0), child);
        assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 7);
        OK(unmask_forward(s, ids, 4, NULL, &taps, &err), err);
    }
    unmask_session_close(s);
    unmask_close(m);
}

/* ---- budgets ---- */

static void budgets_are_kept(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *m;
    struct unmask_session *s;
    const char *path = pack("llada-tiny", &format_f32);
    struct unmask_open_options o = { .memory_budget = 1000, .threads = 2, .context = 64 };
    assert_false(unmask_open(&m, path, &o, &err));
    expect_err(&err, "E-MEM-002", "packed.gguf", "a budget of 0.0 MiB", "--memory", NULL);
    assert_int_equal(err.status, UNMASK_EMEMORY);
    assert_false(unmask_open(&m, DATA "llada-tiny", &o, &err));
    expect_err(&err, "E-MEM-002", "unmask quantize " DATA "llada-tiny model-q4_0.gguf q4_0 --layout packed", NULL);
    OK(quantize_file(DATA "llada-tiny", scratch("q8.gguf"), &(struct quantize_options){ .format = &format_q8_0 },
                     &(struct quantize_report){ 0 }, &err), err);
    assert_false(unmask_open(&m, scratch("q8.gguf"), &o, &err));
    expect_err(&err, "E-MEM-002", "Packed it runs in", "q8.gguf packed.gguf --layout packed", NULL);
    o.reuse = "faster";
    assert_false(unmask_open(&m, path, &o, &err));
    expect_err(&err, "E-GEN-001", "faster", NULL);
    o.reuse = NULL;

    OK(model_prepare(&m, path, &o, &err), err);
    const struct plan_need need = plan_need_of(m, &o);
    const struct memory_plan all = plan_memory(m, &need, 0);
    assert_true(all.fits && all.streamed == 0 && all.least < all.total && all.weights == all.resident);
    for (int i = 0; i <= 4; i++) {
        const uint64_t budget = all.least + (all.total - all.least) * (uint64_t)i / 4;
        const struct memory_plan p = plan_memory(m, &need, budget);
        assert_true(p.fits && p.total <= budget);
        assert_true((p.streamed > 0) == (i < 4));
        assert_int_equal(p.resident + p.streamed + p.in_file, p.weights);
        assert_int_equal(p.total, p.program + p.resident + p.ring + p.store + p.work);
        if (p.streamed) assert_int_equal(p.ring, stream_bytes(m->stream, m->n_stream, p.ring_asked));
    }
    assert_false(plan_memory(m, &need, all.least - (512 << 10)).fits);          /* half a MiB of it is for what varies, at most, */
    assert_true(plan_memory(m, &need, all.least - (64 << 10)).fits);            /* and some of it at least */
    unmask_close(m);

    m = open_part(path, UINT64_MAX);
    struct plan_need rows = need;
    rows.logits = true;
    m->taken = 1 << 20;
    /* Fits, for so long a canvas and no longer. */
    m->budget = m->taken + plan_store_bytes(m, &rows) + plan_work_bytes(m, &rows, (struct away){ false, false });
    OK(unmask_session_open(&s, m, 2, &err), err);
    static int32_t ids[250];
    static struct logits out;
    double nats;
    OK(unmask_forward(s, ids, 40, NULL, &(struct unmask_taps){ .user = &out, .logits = keep_row }, &err), err);
    assert_false(unmask_forward(s, ids, 250, NULL, &(struct unmask_taps){ .user = NULL }, &err));
    expect_err(&err, "E-MEM-003", "250 positions", "--context 250", NULL);
    OK(unmask_forward(s, ids, 30, NULL, &(struct unmask_taps){ .user = &out, .logits = keep_row }, &err), err);
    OK(unmask_likelihood(s, ids, 30, ids, 10, 1, 0, 0, &nats, &err), err);
    assert_false(unmask_likelihood(s, ids, 30, ids, 34, 1, 1, 0, &nats, &err));         /* guidance takes two blocks of logits */
    expect_err(&err, "E-MEM-003", "64 positions", "guidance", NULL);           /* which is what is missing, not length */

    /* A second session finds only what the first one left, and all of it once that is gone. */
    struct unmask_session *second;
    OK(unmask_session_open(&second, m, 2, &err), err);
    OK(unmask_forward(s, ids, 40, NULL, &(struct unmask_taps){ .user = &out, .logits = keep_row }, &err), err);
    assert_false(unmask_forward(second, ids, 40, NULL, &(struct unmask_taps){ .user = &out, .logits = keep_row }, &err));
    expect_err(&err, "E-MEM-003", "40 positions", "Other sessions", NULL);
    assert_null(strstr(err.hint, "--context"));
    unmask_session_close(s);
    OK(unmask_forward(second, ids, 40, NULL, &(struct unmask_taps){ .user = &out, .logits = keep_row }, &err), err);

    /* The same call is allowed, or refused, as often as it is made; what is kept of another run makes room. */
    struct unmask_options noisy, plain;
    struct unmask_result r;
    unmask_options_default(m, &plain);
    plain.gen_length = plain.block_length = 32;
    noisy = plain;
    noisy.temperature = 1;
    m->budget = m->taken + plan_store_bytes(m, &need) + plan_work_bytes(m, &need, (struct away){ false, false });
    for (int i = 0; i < 2; i++) {
        OK(unmask_generate(second, ids, 32, &plain, NULL, NULL, &r, &err), err);
        unmask_result_free(&r);
        assert_false(unmask_generate(second, ids, 32, &noisy, NULL, NULL, &r, &err));
        expect_err(&err, "E-MEM-003", "64 positions", NULL);
    }
    OK(unmask_generate(second, ids, 32, &plain, NULL, NULL, &r, &err), err);
    unmask_result_free(&r);
    m->budget = m->taken + second->bytes + 2 * LOGIT_ROWS * logits_stride(m) * sizeof(float);
    OK(unmask_likelihood(second, ids, 8, ids, 8, 1, 1, 0, &nats, &err), err);           /* alone it fits, beside 64 positions it does not */
    assert_true(forward_max_tokens(second->f) == 16 && !second->work);
    m->budget = 0;
    OK(unmask_generate(second, ids, 32, &plain, NULL, NULL, &r, &err), err);
    unmask_result_free(&r);
    assert_non_null(second->work);
    OK(unmask_forward(second, ids, 8, NULL, &(struct unmask_taps){ .user = NULL }, &err), err);
    assert_null(second->work);                  /* where something else is done, room for runs is given back */
    unmask_session_close(second);
    assert_int_equal(*m->in_sessions, 0);
    unmask_close(m);
}

/* Bytes that a session has open now. */
static uint64_t held(const struct unmask_session *s)
{
    const struct unmask_model *m = s->m;
    uint64_t bytes = forward_bytes(m, forward_max_tokens(s->f), forward_max_branches(s->f), forward_away(m), pool_threads(s->pool))
                   + (s->work ? denoise_work_bytes(m, s->work_tokens, s->work_need) : 0);
    for (int b = 0; b < MAX_BRANCHES; b++)
        if (s->store[b]) bytes += row_store_bytes(s->store_kind, &m->h, row_store_max_tokens(s->store[b]), s->store_layers);
    return bytes;
}

static void run_of(struct unmask_session *s, int length, float cfg, const char *store)
{
    static const int32_t prompt[1];
    struct unmask_err err;
    struct unmask_result r;
    struct unmask_options o;
    unmask_options_default(s->m, &o);
    o.gen_length = length - 1;
    o.block_length = 50;
    o.threshold = 1e-6f;
    o.cfg_scale = cfg;
    o.reuse = "fast";
    o.store = store;
    OK(unmask_generate(s, prompt, 1, &o, NULL, NULL, &r, &err), err);
    unmask_result_free(&r);
}

/* What a guided run leaves is counted, also when a longer one without guidance came; the same run again asks for the same. */
static void a_session_holds_no_more_than_it_asked_for(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *m = open_part(pack("llada-tiny", &format_f32), UINT64_MAX);
    struct unmask_session *s;
    OK(unmask_session_open(&s, m, 2, &err), err);
    run_of(s, 150, 1, "kv_f32");
    for (int i = 0; i < 3; i++) {
        run_of(s, 200, 0, "kv_f32");
        assert_true(s->store[1] && held(s) <= s->bytes);
    }
    session_release(s);
    run_of(s, 200, 0, "kv_f32");
    const uint64_t first = s->bytes;
    run_of(s, 200, 0, "kv_f32");
    assert_int_equal(s->bytes, first);
    run_of(s, 100, 0, "kv_i8");                 /* other rows, but the longer run's work space */
    assert_true(held(s) <= s->bytes);
    unmask_session_close(s);
    unmask_close(m);
}

/* Every session has room and a ring of its own; rows of logits that the caller keeps are there once. */
static void sessions_are_planned_for(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *m;
    struct quantize_report report;
    const struct unmask_open_options o = { .threads = 2, .context = 64, .reuse = "fast" };
    OK(quantize_file("models/unmask-demo-6M-v1.0-Q8_0.gguf", scratch("demo.gguf"),
                     &(struct quantize_options){ .format = &format_f32, .requantize = true, .packed = true }, &report, &err), err);
    OK(model_prepare(&m, scratch("demo.gguf"), &o, &err), err);
    const struct plan_need one = plan_need_of(m, &o);
    struct plan_need two = one;
    two.sessions = 2;
    two.logit_rows = 5;
    const uint64_t rows = 5 * logits_stride(m) * sizeof(float), slack = 256 << 10;         /* what the process has varies */
    const struct memory_plan a = plan_memory(m, &one, 0), b = plan_memory(m, &two, 0);
    assert_true(one.sessions == 1 && one.logit_rows == 0);
    assert_true(b.store == 2 * a.store && b.work == 2 * a.work + rows && b.ring == 0 && b.kept == rows && a.kept == 0);
    const struct memory_plan c = plan_memory(m, &one, a.least + slack), d = plan_memory(m, &two, b.least + slack);
    assert_true(c.fits && d.fits && c.streamed && d.streamed);
    assert_true(c.ring && d.ring == 2 * c.ring && d.store == 2 * c.store && d.work == 2 * c.work + rows);
    assert_true(b.least + slack > a.least + c.ring + c.store + c.work + rows);
    struct unmask_open_options with_guidance = o;
    with_guidance.guidance = true;
    const struct plan_need guided = plan_need_of(m, &with_guidance);
    assert_true(guided.logits && plan_store_bytes(m, &guided) == 2 * a.store);
    assert_true(plan_memory(m, &guided, 0).work > a.work + 2 * LOGIT_ROWS * logits_stride(m) * sizeof(float));
    assert_int_equal(plan_need_of(m, &(struct unmask_open_options){ .context = 1 << 20 }).n_tokens, m->h.n_ctx);
    unmask_close(m);
    /* Rows of logits that the caller keeps are not for sessions to have. */
    OK(unmask_open(&m, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .without_tokenizer = true, .logit_rows = 20000 },
                   &err), err);
    assert_true(m->taken > 20000 * logits_stride(m) * sizeof(float));
    unmask_close(m);
}

/* What is timed are whole passes, whatever numbers made-up weights are in a format. */
static void passes_of_every_format_are_timed(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *m;
    struct probe *p;
    double seconds;
    for (size_t i = 0; quant_formats[i]; i++) {
        OK(quantize_file("models/unmask-demo-6M-v1.0-Q8_0.gguf", scratch("timed.gguf"),
                         &(struct quantize_options){ .format = quant_formats[i], .threads = 2, .force = true, .requantize = true },
                         &(struct quantize_report){ 0 }, &err), err);
        OK(model_prepare(&m, scratch("timed.gguf"), NULL, &err), err);
        const struct plan_need need = plan_need_of(m, &(struct unmask_open_options){ .context = 32, .threads = 2 });
        OK(probe_open(&p, m, &need, 64 << 20, &err), err);
        OK(probe_pass(p, 32, 8, &seconds, &err), err);
        assert_true(seconds > 0);
        probe_close(p);
        model_close(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_comes_in_order),
        cmocka_unit_test(streamed_models_compute_the_same),
        cmocka_unit_test(a_split_model_computes_the_same),
        cmocka_unit_test(an_embedding_alone_is_looked_up),
        cmocka_unit_test(tokens_that_share_a_place_keep_their_rows),
        cmocka_unit_test(a_damaged_row_in_the_file_is_an_error),
        cmocka_unit_test(what_a_session_opened_it_closes),
        cmocka_unit_test(a_packed_embedding_becomes_rows),
        cmocka_unit_test(streamed_models_write_the_same),
        cmocka_unit_test(each_byte_is_read_once_a_pass),
        cmocka_unit_test(a_read_that_fails_is_an_error),
        cmocka_unit_test(a_session_outlives_a_read_that_fails),
        cmocka_unit_test(odd_reads_change_nothing),
        cmocka_unit_test(a_file_that_changes_is_noticed),
        cmocka_unit_test(reading_alone_tells_why_it_fails), cmocka_unit_test(a_forked_child_can_close),
        cmocka_unit_test(a_generation_stops),
        cmocka_unit_test(a_session_counts_what_all_its_streams_read),
        cmocka_unit_test(budgets_are_kept),
        cmocka_unit_test(sessions_are_planned_for),
        cmocka_unit_test(a_session_holds_no_more_than_it_asked_for),
        cmocka_unit_test(passes_of_every_format_are_timed),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
