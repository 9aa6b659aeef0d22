/* test_checkpoint.c - opening by content, and the typed getters on every type of value. */
#include "testing.h"

#include <math.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "gguf.h"
#include "names.h"
#include "reader.h"

static struct unmask_err err;

static struct meta meta(const char *key, enum meta_type type)
{
    return (struct meta){ .key = str_of(key), .type = type };
}

/* A GGUF file with these keys. */
static struct checkpoint *open_with(const struct meta *metas, size_t n)
{
    struct gguf_writer *w;
    struct outfile o;
    struct checkpoint *c;
    const char *path = scratch("m.gguf");
    OK(gguf_writer_new(&w, &err), err);
    for (size_t i = 0; i < n; i++) OK(gguf_put_meta(w, &metas[i], &err), err);
    OK(outfile_open(&o, path, true, gguf_writer_bytes(w), &err), err);
    OK(gguf_write_header(w, &o, &err), err);
    OK(outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    OK(checkpoint_open(&c, path, &err), err);
    return c;
}

static void integers_of_every_width(void **state)
{
    (void)state;
    static const enum meta_type types[] = { META_U8, META_I8, META_U16, META_I16, META_U32, META_I32, META_U64, META_I64 };
    struct meta m[ARRAY_LEN(types)];
    int64_t v;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        m[i] = meta(meta_type_name(types[i]), types[i]);
        m[i].v.i = i % 2 ? -(int64_t)i : (int64_t)i + 100;
    }
    struct checkpoint *c = open_with(m, ARRAY_LEN(types));
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        OK(meta_int(c, meta_type_name(types[i]), INT64_MIN, INT64_MAX, true, &v, &err), err);
        assert_int_equal(v, m[i].v.i);
    }
    checkpoint_close(c);
}

static void integers_out_of_range(void **state)
{
    (void)state;
    struct meta m[3] = { meta("n", META_U32), meta("huge", META_U64), meta("minus", META_I64) };
    int64_t v = 5;
    m[0].v.u = 513;
    m[1].v.u = UINT64_MAX;
    m[2].v.i = -1;
    struct checkpoint *c = open_with(m, 3);
    OK(meta_int(c, "n", 1, 513, true, &v, &err), err);
    assert_int_equal(v, 513);
    v = 5;
    assert_false(meta_int(c, "n", 1, 512, false, &v, &err));
    expect_err(&err, "E-META-003", "m.gguf", "(n, byte 24)", "found 513", "need 1 to 512", NULL);
    assert_int_equal(err.status, UNMASK_EMODEL);
    assert_false(meta_int(c, "huge", INT64_MIN, INT64_MAX, true, &v, &err));
    expect_err(&err, "E-META-003", "huge", "found 18446744073709551615", NULL);
    assert_false(meta_int(c, "minus", 0, INT64_MAX, true, &v, &err));
    expect_err(&err, "E-META-003", "minus", "found -1", NULL);
    assert_int_equal(v, 5);
    checkpoint_close(c);
}

static void floats(void **state)
{
    (void)state;
    const double bad[] = { (double)NAN, (double)INFINITY, -(double)INFINITY, 0, -1 };
    struct meta m[3 + ARRAY_LEN(bad)] = { meta("f", META_F32), meta("d", META_F64), meta("n", META_U32) };
    static const char *const names[] = { "nan", "inf", "-inf", "zero", "minus" };
    double v = 5;
    m[0].v.f = 0.25;
    m[1].v.f = 1e-5;
    m[2].v.u = 3;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        m[3 + i] = meta(names[i], i % 2 ? META_F32 : META_F64);
        m[3 + i].v.f = bad[i];
    }
    struct checkpoint *c = open_with(m, ARRAY_LEN(m));
    OK(meta_float(c, "f", 0, 1, true, &v, &err), err);
    assert_true(v == 0.25);
    OK(meta_float(c, "d", 0, 1, true, &v, &err), err);
    assert_true(v == 1e-5);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(meta_float(c, names[i], 1e-12, 1, true, &v, &err));
        expect_err(&err, "E-META-003", names[i], "need 1e-12 to 1", NULL);
    }
    assert_false(meta_float(c, "n", 0, 10, true, &v, &err));     /* a GGUF file has the type that it should have */
    expect_err(&err, "E-META-002", "(n, byte", "found u32", "need a floating-point number", NULL);
    assert_true(v == 1e-5);
    checkpoint_close(c);
}

static void every_getter_refuses_every_other_type(void **state)
{
    (void)state;
    struct meta m[META_F64 + 1];
    for (int i = 0; i <= META_F64; i++) m[i] = meta(meta_type_name((enum meta_type)i), (enum meta_type)i);
    m[META_STRING].v.s = str_of("text");
    m[META_ARRAY].item_type = META_STRING;
    struct checkpoint *c = open_with(m, ARRAY_LEN(m));
    for (int i = 0; i <= META_F64; i++) {
        const char *key = meta_type_name((enum meta_type)i);
        int64_t n;
        double f;
        bool b;
        struct str s;
        const bool is_float = i == META_F32 || i == META_F64, is_bool = i == META_BOOL, is_str = i == META_STRING;
        const bool is_int = !is_float && !is_bool && !is_str && i != META_ARRAY;
        assert_int_equal(meta_int(c, key, -9, 9, true, &n, &err), is_int);
        if (!is_int) expect_err(&err, "E-META-002", key, "need an integer", NULL);
        assert_int_equal(meta_float(c, key, -9, 9, true, &f, &err), is_float);
        if (!is_float) expect_err(&err, "E-META-002", key, "need a floating-point number", NULL);
        assert_int_equal(meta_bool(c, key, true, &b, &err), is_bool);
        if (!is_bool) expect_err(&err, "E-META-002", key, "need a boolean", NULL);
        assert_int_equal(meta_str(c, key, true, &s, &err), is_str);
        if (!is_str) expect_err(&err, "E-META-002", key, "need a string", NULL);
    }
    struct str s;
    OK(meta_str(c, "string", true, &s, &err), err);
    assert_int_equal(s.n, 4);
    assert_memory_equal(s.s, "text", 4);
    uint64_t at = 0;
    assert_false(meta_next_string(checkpoint_meta(c, "array"), &at, &s));
    assert_false(meta_next_string(checkpoint_meta(c, "u32"), &at, &s));
    checkpoint_close(c);
}

static void absent_keys(void **state)
{
    (void)state;
    struct checkpoint *c = open_with(NULL, 0);
    int64_t n = 1;
    double f = 2;
    bool b = true;
    struct str s = str_of("x");
    OK(meta_int(c, "k", 0, 9, false, &n, &err), err);
    OK(meta_float(c, "k", 0, 9, false, &f, &err), err);
    OK(meta_bool(c, "k", false, &b, &err), err);
    OK(meta_str(c, "k", false, &s, &err), err);
    assert_true(n == 1 && f == 2 && b && s.n == 1);
    assert_false(meta_int(c, "k", 0, 9, true, &n, &err));
    expect_err(&err, "E-META-001", "m.gguf", "(k)", "required key is missing", NULL);
    assert_false(err.has_offset);
    assert_false(meta_float(c, "k", 0, 9, true, &f, &err));
    assert_false(meta_bool(c, "k", true, &b, &err));
    assert_false(meta_str(c, "k", true, &s, &err));
    expect_err(&err, "E-META-001", "(k)", NULL);
    assert_null(checkpoint_tensor(c, "w"));
    checkpoint_close(c);
}

/* In config.json a whole number may stand for a float, and errors name that file without an offset. */
static void folders_differ(void **state)
{
    (void)state;
    struct meta m[2] = { meta("rope_theta", META_I64), meta("vocab_size", META_STRING) };
    struct checkpoint_reader r = { 0 };
    struct checkpoint c = { .kind = CHECKPOINT_FOLDER, .path = "some/folder", .metas = m, .n_metas = 2, .reader = &r };
    double f;
    int64_t n;
    m[0].v.i = 10000;
    OK(names_init(&r.meta_names, 2, &err), err);
    for (size_t i = 0; i < 2; i++) assert_true(names_add(&r.meta_names, m[i].key.s, m[i].key.n, &(size_t){ i }));
    OK(meta_float(&c, "rope_theta", 1, 1e9, true, &f, &err), err);
    assert_true(f == 10000);
    assert_false(meta_int(&c, "vocab_size", 0, 9, true, &n, &err));
    expect_err(&err, "E-META-002", "some/folder/config.json", "(vocab_size)", "found string", NULL);
    names_free(&r.meta_names);
}

static void names(void **state)
{
    (void)state;
    enum { N = 5000 };
    static char text[N][8];
    struct names t = { 0 };
    size_t v;
    assert_false(names_find(&t, "x", 1, &v));
    OK(names_init(&t, N, &err), err);
    for (size_t i = 0; i < N; i++) {
        snprintf(text[i], sizeof text[i], "n%zu", i);
        assert_true(names_add(&t, text[i], strlen(text[i]), &(size_t){ i }));
    }
    for (size_t i = 0; i < N; i++) {
        v = N;
        assert_false(names_add(&t, text[i], strlen(text[i]), &v));
        assert_int_equal(v, i);
        assert_true(names_find(&t, text[i], strlen(text[i]), &v));
        assert_int_equal(v, i);
    }
    assert_false(names_find(&t, "n", 1, &v));
    assert_false(names_find(&t, "n5000", 5, &v));
    names_free(&t);
    names_free(&t);
}

static void paths_that_hold_no_model(void **state)
{
    (void)state;
    struct checkpoint *c;
    assert_false(checkpoint_open(&c, scratch("missing"), &err));
    expect_err(&err, "E-FILE-001", "missing", NULL);
    assert_false(checkpoint_open(&c, "/dev/zero", &err));
    expect_err(&err, "E-FILE-002", "a device", NULL);
    assert_int_equal(mkfifo(scratch("fifo"), 0600), 0);
    assert_false(checkpoint_open(&c, scratch("fifo"), &err));
    expect_err(&err, "E-FILE-002", "a pipe", NULL);
    assert_int_equal(err.status, UNMASK_EIO);
    checkpoint_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_of_every_width),
        cmocka_unit_test(integers_out_of_range),
        cmocka_unit_test(floats),
        cmocka_unit_test(every_getter_refuses_every_other_type),
        cmocka_unit_test(absent_keys),
        cmocka_unit_test(folders_differ),
        cmocka_unit_test(names),
        cmocka_unit_test(paths_that_hold_no_model),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
