/* test_verify.c - damage that `verify` must see: flipped bits, cut files, numbers that are none, checksums of other files. */
#include "testing.h"

#include <math.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "checksum.h"
#include "f16.h"
#include "gguf.h"
#include "quantize.h"
#include "verify.h"

static struct verify_tensor found[64];

static bool verify_path(const char *path, int threads, struct unmask_err *err)
{
    struct checkpoint *c;
    const struct verify_options o = { .threads = threads };
    if (!checkpoint_open(&c, path, err)) return false;
    assert_true(c->n_tensors <= ARRAY_LEN(found));
    const bool ok = verify_checkpoint(c, &o, found, err);
    checkpoint_close(c);
    return ok;
}

static const char *make(const char *in, const char *name, const struct quant_format *f)
{
    struct quantize_report report;
    struct unmask_err err;
    const char *path = scratch(name);
    const struct quantize_options o = { .format = f, .threads = 2, .force = true };
    OK(quantize_file(in, path, &o, &report, &err), err);
    return path;
}
static const char *make_tiny(const char *name, const struct quant_format *f) { return make("tests/data/checkpoints/llada-tiny", name, f); }

static void flip(const char *path, uint64_t at, int bit)
{
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    const int c = fgetc(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    fputc(c ^ 1 << bit, f);
    assert_int_equal(fclose(f), 0);
}

static void every_format_is_good(void **state)
{
    (void)state;
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        struct unmask_err err;
        const char *path = make_tiny("good.gguf", *f);
        for (int threads = 1; threads < 4; threads++) OK(verify_path(path, threads, &err), err);
        for (int i = 0; i < 30; i++) {
            assert_int_equal(found[i].sum, VERIFY_SAME);
            assert_int_equal(found[i].n_nonfinite, 0);
        }
    }
}

static void sums_follow_the_bytes_from_file_to_file(void **state)
{
    (void)state;
    struct unmask_err err;
    char q8[512];
    snprintf(q8, sizeof q8, "%s", make_tiny("q8.gguf", &format_q8_0));
    OK(verify_path(make(q8, "again.gguf", &format_f32), 2, &err), err);
    for (int i = 0; i < 30; i++) assert_int_equal(found[i].sum, VERIFY_SAME);
}

/* In each tensor the first, the last and some bits between. */
static void one_bit_is_found(void **state)
{
    (void)state;
    const char *path = make_tiny("flip.gguf", &format_q4_0);
    struct unmask_err err;
    struct checkpoint *c;
    OK(checkpoint_open(&c, path, &err), err);
    uint32_t random = 1;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        for (int k = 0; k < 8; k++) {
            random = random * 1664525 + 1013904223;
            const uint64_t at = t->offset + (k == 0 ? 0 : k == 1 ? t->bytes - 1 : random % t->bytes);
            const int bit = (int)(random >> 29);
            flip(path, at, bit);
            if (verify_path(path, 2, &err)) fail_msg("bit %d of byte %llu is another and nobody sees it", bit, (unsigned long long)at);
            expect_err(&err, "E-VFY-001", t->name, "another SHA-256", NULL);
            assert_int_equal(err.status, UNMASK_ECHECK);
            for (size_t o = 0; o < c->n_tensors; o++) assert_int_equal(found[o].sum, o == i ? VERIFY_DIFFERENT : VERIFY_SAME);
            flip(path, at, bit);
        }
    }
    flip(path, c->tensors[3].offset, 0);
    flip(path, c->tensors[9].offset, 0);
    assert_false(verify_path(path, 2, &err));
    expect_err(&err, "E-VFY-001", c->tensors[3].name, "1 more tensors are damaged", NULL);
    checkpoint_close(c);
}

/* Every length up to the data, then around the ends of the tensors and some between. */
static void every_cut_is_seen(void **state)
{
    (void)state;
    const char *path = make_tiny("cut.gguf", &format_q4_0);
    struct unmask_err err;
    struct checkpoint *c;
    OK(checkpoint_open(&c, path, &err), err);
    const struct tensor *last = &c->tensors[c->n_tensors - 1];
    const uint64_t data = c->tensors[0].offset;
    for (uint64_t n = last->offset + last->bytes; n-- > 0; ) {
        bool edge = n < data || n % 251 == 0;
        for (size_t i = 0; i < c->n_tensors && !edge; i++) edge = n + 1 >= c->tensors[i].offset && n <= c->tensors[i].offset + 1;
        if (!edge && n + 1 != last->offset + last->bytes) continue;
        assert_int_equal(truncate(path, (off_t)n), 0);
        if (verify_path(path, 1, &err)) fail_msg("cut at %llu bytes and nobody sees it", (unsigned long long)n);
        if (err.status != UNMASK_EMODEL) expect_err(&err, "status 3", NULL);
    }
    checkpoint_close(c);
}

/* ---- files made by hand: two tensors of 64 values, checksums as given ---------------------------- */

struct made { const struct quant_format *format; const void *bytes; size_t n; const char *keys[4]; const char *sums[4]; };

static const char *write_made(const struct made *m)
{
    static const char *const names[] = { "a", "b" };
    const char *path = scratch("made.gguf");
    struct unmask_err err;
    struct gguf_writer *w;
    struct outfile o;
    unlink(path);
    OK(gguf_writer_new(&w, &err), err);
    OK(gguf_put_str(w, "general.architecture", str_of("llada"), &err), err);
    for (int i = 0; i < 4 && m->keys[i]; i++) OK(gguf_put_str(w, m->keys[i], str_of(m->sums[i]), &err), err);
    for (int i = 0; i < 2; i++) OK(gguf_put_tensor(w, names[i], m->format, 2, (uint64_t[4]){ 32, 2, 1, 1 }, &err), err);
    OK(outfile_open(&o, path, true, 0, &err) && gguf_write_header(w, &o, &err), err);
    for (int i = 0; i < 2; i++) OK(outfile_write(&o, m->bytes, m->n, &err) && gguf_write_padding(w, &o, &err), err);
    OK(outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    return path;
}

static void numbers_that_are_none(void **state)
{
    (void)state;
    struct unmask_err err;
    float x[64] = { 0 };
    uint16_t h[64] = { 0 };
    struct block_q8_0 q[2] = { 0 };
    x[40] = NAN, x[63] = -INFINITY;
    assert_false(verify_path(write_made(&(struct made){ &format_f32, x, sizeof x, { 0 }, { 0 } }), 2, &err));
    expect_err(&err, "E-VFY-002", "2 such values, the first at row 1, column 8", "(a)", "1 more tensors", NULL);
    assert_int_equal(err.status, UNMASK_ECHECK);
    assert_int_equal(found[1].n_nonfinite, 2);
    h[0] = 0x7C00;
    assert_false(verify_path(write_made(&(struct made){ &format_f16, h, sizeof h, { 0 }, { 0 } }), 1, &err));
    expect_err(&err, "E-VFY-002", "1 such values, the first at row 0, column 0", NULL);
    q[1].d = 0xFE00;                            /* the scale of a block */
    assert_false(verify_path(write_made(&(struct made){ &format_q8_0, q, sizeof q, { 0 }, { 0 } }), 1, &err));
    expect_err(&err, "E-VFY-002", "32 such values, the first at row 1, column 0", NULL);
    q[1].d = 0x0001, q[1].q[0] = -128;
    OK(verify_path(write_made(&(struct made){ &format_q8_0, q, sizeof q, { 0 }, { 0 } }), 1, &err), err);
    assert_int_equal(found[0].sum, VERIFY_NO_SUM);
}

static void checksums_of_something_else(void **state)
{
    (void)state;
    struct unmask_err err;
    struct sha256_ctx sha;
    struct checksum_text sum;
    const float x[64] = { 1 };
    sha256_init(&sha);
    sha256_update(&sha, sizeof x, (const uint8_t *)x);
    checksum_end(&sha, &sum);
    const struct { struct made m; const char *id, *part, *part2; } rows[] = {
        { { &format_f32, x, sizeof x, { "unmask.sha256.a", "unmask.sha256.b" }, { sum.s, sum.s } }, NULL, NULL, NULL },
        { { &format_f32, x, sizeof x, { "unmask.sha256.a" }, { sum.s } }, "E-VFY-003", "(b)", "checksums of 1 tensors" },
        { { &format_f32, x, sizeof x, { "unmask.sha256.a", "unmask.sha256.b", "unmask.sha256.c" }, { sum.s, sum.s, sum.s } },
          "E-VFY-003", "unmask.sha256.c", "no such tensor" },
        { { &format_f32, x, sizeof x, { "unmask.sha256.a", "unmask.sha256.b" }, { sum.s, "12" } },
          "E-VFY-003", "unmask.sha256.b", "64 hexadecimal digits" },
        { { &format_f32, x, sizeof x, { "unmask.sha256." }, { sum.s } }, "E-VFY-003", "no such tensor", "changed after" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const bool ok = verify_path(write_made(&rows[i].m), 2, &err);
        if (!rows[i].id) OK(ok, err);
        else {
            assert_false(ok);
            expect_err(&err, rows[i].id, rows[i].part, rows[i].part2, NULL);
        }
    }
}

static bool stop_at_once(void *user, uint64_t done, uint64_t total)
{
    (void)user;
    assert_true(done <= total);
    return false;
}

static void it_can_be_stopped(void **state)
{
    (void)state;
    struct unmask_err err;
    struct checkpoint *c;
    OK(checkpoint_open(&c, make_tiny("stop.gguf", &format_f32), &err), err);
    const struct verify_options o = { .threads = 1, .on_progress = stop_at_once };
    assert_false(verify_checkpoint(c, &o, found, &err));
    expect_err(&err, "E-RUN-001", NULL);
    checkpoint_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_is_good),
        cmocka_unit_test(sums_follow_the_bytes_from_file_to_file),
        cmocka_unit_test(one_bit_is_found),
        cmocka_unit_test(every_cut_is_seen),
        cmocka_unit_test(numbers_that_are_none),
        cmocka_unit_test(checksums_of_something_else),
        cmocka_unit_test(it_can_be_stopped),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
