/* test_json.c - JSON from outside: strict grammar, no duplicates, limits before anything is built. */
#include "testing.h"

#include "json.h"

static void refused(const char *text, size_t n, int depth, const char *id, const char *part)
{
    struct unmask_err err;
    json_t *j = json_parse(text, n, "config.json", depth, &err);
    if (j) fail_msg("accepted: %.60s", text);
    expect_err(&err, id, "config.json", part, NULL);
}

static const char small[] =
    "{\"architectures\": [\"LLaDAModelLM\"], \"d_model\": 64, \"eps\": 1e-5, \"tied\": false, "
    "\"none\": null, \"text\": \"\\u00e9\\ud83d\\ude00\\n\"}";

static void ordinary_text_is_parsed(void **state)
{
    (void)state;
    struct unmask_err err;
    json_t *j = json_parse(small, sizeof small - 1, "config.json", JSON_DEPTH, &err);
    OK(j, err);
    assert_int_equal(json_integer_value(json_object_get(j, "d_model")), 64);
    assert_string_equal(json_string_value(json_object_get(j, "text")), "\xc3\xa9\xf0\x9f\x98\x80\n");
    assert_true(json_is_null(json_object_get(j, "none")));
    json_decref(j);
}

static void every_truncation_is_an_error(void **state)
{
    (void)state;
    for (size_t n = 0; n < sizeof small - 1; n++) refused(small, n, JSON_DEPTH, "E-JSON-001", "byte ");
}

static void what_is_not_strict_json_is_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *part; } bad[] = {
        { "x", "byte 1" }, { "{\"a\": 1,}", "byte 9" }, { "{'a': 1}", NULL }, { "{\"a\": NaN}", NULL }, { "{\"a\": Infinity}", NULL },
        { "{\"a\": 1} // no", NULL }, { "/* no */ {}", NULL }, { "{\"a\": 1e400}", "overflow" },
        { "{\"a\": 0x10}", NULL }, { "{\"a\": +1}", NULL },
        { "{\"a\": 01}", NULL }, { "{\"a\": .5}", NULL }, { "{\"a\": 1.}", NULL }, { "{\"a\": tru}", NULL }, { "{} {}", "end of file" },
        { "\xef\xbb\xbf{}", "byte order mark" }, { "{\"a\": \"\x01\"}", NULL }, { "{\"a\": \"\\x\"}", NULL }, { "{\"a\"}", NULL },
        { "{\"a\": \"\xff\"}", "0xff" }, { "{\"a\": \"\xc0\xaf\"}", NULL },
        { "{\"a\": \"\xed\xa0\x80\"}", NULL }, { "{\"a\": \"\\ud800\"}", NULL },
        { "{\"a\": \"\\u0000\"}", "\\u0000 in a string, need text without NUL" },
        { "{\"a\": 1, \"a\": 2}", "duplicate" }, { "{\"b\": {\"a\": 1, \"a\": 1}}", "duplicate" },
        { "{\"a\": 1]", NULL }, { "]]]]", NULL },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) refused(bad[i].text, strlen(bad[i].text), JSON_DEPTH, "E-JSON-001", bad[i].part);
    refused("{\0\"\0a\0", 6, JSON_DEPTH, "E-JSON-001", NULL);       /* UTF-16 */
}

static void depth_is_limited_before_parsing(void **state)
{
    (void)state;
    enum { N = 100000 };
    static char deep[N];
    struct unmask_err err;
    memset(deep, '[', N);
    refused(deep, N, JSON_DEPTH, "E-JSON-002", "byte 64");
    for (size_t i = 0; i + 5 <= N; i += 5) memcpy(deep + i, "{\"a\":", 5);
    refused(deep, N, 4, "E-JSON-002", "at most 4");
    static const char brackets_in_text[] = "{\"a\": \"[[[[[[\\\"[[[[[[[\"}";
    json_t *j = json_parse(brackets_in_text, sizeof brackets_in_text - 1, "t", 1, &err);
    OK(j, err);
    json_decref(j);
    static const char exactly[] = "[[[[]], [[]]]]";
    j = json_parse(exactly, sizeof exactly - 1, "t", 4, &err);
    OK(j, err);
    json_decref(j);
}

static void size_is_limited_before_parsing(void **state)
{
    (void)state;
    enum { N = 16 << 20 };
    char *many = test_malloc(N);
    for (size_t i = 0; i < N; i += 2) memcpy(many + i, "0,", 2);
    many[0] = '[';
    refused(many, N, JSON_DEPTH, "E-JSON-003", "values");
    test_free(many);
    refused("", (size_t)JSON_BYTES + 1, JSON_DEPTH, "E-JSON-003", "67108864");
}

/* Integers beyond int64 become real numbers of nearly the same value; tokenizers use one for "no limit". */
static void wide_integers_become_real(void **state)
{
    (void)state;
    static const struct { const char *digits; double value; } wide[] = {
        { "1000000000000000019884624838656", 1e30 }, { "-9223372036854775809", -9223372036854775809.0 }, { "18446744073709551616", 0x1p64 },
    };
    char text[128];
    struct unmask_err err;
    for (size_t i = 0; i < ARRAY_LEN(wide); i++) {
        const int n = snprintf(text, sizeof text, "[1, %s, \"%s\"]", wide[i].digits, wide[i].digits);
        json_t *j = json_parse(text, (size_t)n, "t", 1, &err);
        OK(j, err);
        const json_t *v = json_array_get(j, 1);
        assert_true(json_is_real(v));
        const double ratio = json_real_value(v) / wide[i].value;
        assert_true(ratio > 1 - 1e-12 && ratio < 1 + 1e-12);
        assert_string_equal(json_string_value(json_array_get(j, 2)), wide[i].digits);
        json_decref(j);
    }
    json_t *j = json_parse("[9223372036854775807]", 21, "t", 1, &err);
    OK(j, err);
    assert_true(json_is_integer(json_array_get(j, 0)) && json_integer_value(json_array_get(j, 0)) == INT64_MAX);
    json_decref(j);
    char *zeros = test_malloc(100000);          /* does not fit a double either */
    memset(zeros, '7', 100000);
    zeros[0] = '[';
    zeros[99999] = ']';
    refused(zeros, 100000, 1, "E-JSON-001", "overflow");
    test_free(zeros);
}

static int allocations_left;
static void *few_times(size_t n) { return allocations_left-- > 0 ? malloc(n) : NULL; }

/* Text is not called wrong because there was no memory to read it, but where jansson does so itself: inside a string. */
static void memory_that_runs_out_is_no_fault_of_the_text(void **state)
{
    static const char text[] = "{\"a\":[1,{\"b\":null}]}";
    int n = 0, told = 0;
    (void)state;
    json_set_alloc_funcs(few_times, free);
    for (bool done = false; !done; n++) {
        struct unmask_err err;
        allocations_left = n;
        json_t *v = json_parse(text, strlen(text), "f.json", JSON_DEPTH, &err);
        done = v != NULL;
        json_decref(v);
        told += !done && !strcmp(err.id, "E-MEM-001");
    }
    json_set_alloc_funcs(malloc, free);
    assert_true(n > 8);
    assert_true(told >= n - 3);                 /* two keys, and the one that succeeds */
}

static void a_file_is_read_whole_or_refused(void **state)
{
    (void)state;
    struct unmask_err err;
    json_t *j = json_read(scratch_write("good.json", small, sizeof small - 1), &err);
    OK(j, err);
    json_decref(j);
    assert_null(json_read(scratch_write("bad.json", "{\"a\" 1}", 7), &err));
    expect_err(&err, "E-JSON-001", "bad.json", "byte 6", NULL);
    const char *path = scratch_write("huge.json", "", 0);
    assert_int_equal(truncate(path, (off_t)JSON_BYTES + 1), 0);
    assert_null(json_read(path, &err));
    expect_err(&err, "E-FILE-005", "huge.json", "67108864", NULL);
    assert_null(json_read(scratch("none.json"), &err));
    expect_err(&err, "E-FILE-001", "none.json", NULL);
}

static void text_of_ours_is_utf8_whatever_it_was(void **state)
{
    (void)state;
    const struct { const char *text; size_t n; const char *want; } cases[] = {
        { "", 0, "" }, { "h\xC3\xA9", 3, "h\xC3\xA9" },
        { "\xFF", 1, "\xEF\xBF\xBD" }, { "a\xFF\xC3\xA9\x80z", 6, "a\xEF\xBF\xBD\xC3\xA9\xEF\xBF\xBDz" },
        { "a\xE2\x82", 3, "a\xEF\xBF\xBD\xEF\xBF\xBD" }, { "\xED\xA0\x80", 3, "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *j = json_text(cases[i].text, cases[i].n);
        assert_string_equal(json_string_value(j), cases[i].want);
        json_decref(j);
    }
    json_t *nul = json_text("a\0\xFF", 3);
    assert_int_equal(json_string_length(nul), 5);
    json_decref(nul);
}

static int clean(void **state) { (void)state; scratch_remove(); return 0; }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_text_is_parsed),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(what_is_not_strict_json_is_refused),
        cmocka_unit_test(depth_is_limited_before_parsing),
        cmocka_unit_test(size_is_limited_before_parsing),
        cmocka_unit_test(wide_integers_become_real),
        cmocka_unit_test(memory_that_runs_out_is_no_fault_of_the_text),
        cmocka_unit_test(a_file_is_read_whole_or_refused),
        cmocka_unit_test(text_of_ours_is_utf8_whatever_it_was),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
