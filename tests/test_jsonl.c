/* test_jsonl.c - JSON lines: blank lines, the last line, lines of any length, and what is no object. */
#include "testing.h"

#include "jsonl.h"
#include "mem.h"
#include "utf8.h"

static void lines_are_read_one_by_one(void **state)
{
    (void)state;
    struct unmask_err err;
    struct jsonl j;
    json_t *o;
    const char text[] = "\n{\"text\":\"a\"}\r\n  \t\n{\"text\":\"\\u00e9\"}\n\n{\"text\":\"last\"}";
    const char *const want[] = { "a", "\xC3\xA9", "last" };
    OK(jsonl_open(&j, scratch_write("a.jsonl", text, sizeof text - 1), &err), err);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        OK(jsonl_next(&j, &o, &err), err);
        assert_non_null(o);
        assert_string_equal(json_string_value(jsonl_string(&j, o, "text", &err)), want[i]);
        json_decref(o);
    }
    assert_int_equal(j.number, 6);
    OK(jsonl_next(&j, &o, &err), err);
    assert_null(o);
    jsonl_close(&j);
}

static void a_line_may_be_long(void **state)
{
    enum { N = 1 << 20 };
    (void)state;
    struct unmask_err err;
    struct jsonl j;
    json_t *o;
    char *text = malloc(N + 32);
    memset(text, 'x', N + 32);
    memcpy(text, "{\"text\":\"", 9);
    memcpy(text + 9 + N, "\"}\n", 3);
    OK(jsonl_open(&j, scratch_write("a.jsonl", text, N + 12), &err), err);
    OK(jsonl_next(&j, &o, &err), err);
    assert_int_equal(json_string_length(jsonl_string(&j, o, "text", &err)), N);
    json_decref(o);
    jsonl_close(&j);
    free(text);
}

static void texts_may_hold_nul(void **state)
{
    (void)state;
    struct unmask_err err;
    struct jsonl j;
    json_t *o;
    static const char text[] = "{\"text\":\"a\\u0000b\"}\n{\"te\\u0000xt\":\"\"}\n";
    OK(jsonl_open(&j, scratch_write("a.jsonl", text, sizeof text - 1), &err), err);
    OK(jsonl_next(&j, &o, &err), err);
    const json_t *v = jsonl_string(&j, o, "text", &err);
    assert_int_equal(json_string_length(v), 3);
    assert_memory_equal(json_string_value(v), "a\0b", 3);
    json_decref(o);
    assert_false(jsonl_next(&j, &o, &err));
    expect_err(&err, "E-CLI-012", "line 2", "found \\u0000 in a key", NULL);
    jsonl_close(&j);
}

static void a_byte_order_mark_begins_a_file_only(void **state)
{
    (void)state;
    struct unmask_err err;
    struct jsonl j;
    json_t *o;
    static const char mark[] = "\xEF\xBB\xBF{\"text\":\"a\"}\n\xEF\xBB\xBF{}\n", alone[] = "\xEF\xBB\xBF\n{\"text\":\"b\"}",
        wrong[] = "\xEF\xBB\xBF{x";
    OK(jsonl_open(&j, scratch_write("a.jsonl", mark, sizeof mark - 1), &err), err);
    OK(jsonl_next(&j, &o, &err), err);
    assert_string_equal(json_string_value(jsonl_string(&j, o, "text", &err)), "a");
    json_decref(o);
    assert_false(jsonl_next(&j, &o, &err));
    expect_err(&err, "E-CLI-012", "line 2", NULL);
    jsonl_close(&j);
    OK(jsonl_open(&j, scratch_write("a.jsonl", alone, sizeof alone - 1), &err), err);
    OK(jsonl_next(&j, &o, &err), err);
    assert_string_equal(json_string_value(jsonl_string(&j, o, "text", &err)), "b");
    json_decref(o);
    jsonl_close(&j);
    OK(jsonl_open(&j, scratch_write("a.jsonl", wrong, sizeof wrong - 1), &err), err);
    assert_false(jsonl_next(&j, &o, &err));
    expect_err(&err, "E-CLI-012", "line 1, byte 5", NULL);
    jsonl_close(&j);
}

static void what_is_no_object_is_an_error_with_its_line(void **state)
{
    static const char *const bad[] = { "{\"text\":", "[1]", "7", "{\"text\":\"a\"}}", "\x01", "{\"text\":\"\xFF\"}",
        "{\"a\":1,\"a\":2}" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct unmask_err err;
        struct jsonl j;
        json_t *o;
        char text[64];
        const int n = snprintf(text, sizeof text, "{\"text\":\"a\"}\n%s\n", bad[i]);
        OK(jsonl_open(&j, scratch_write("a.jsonl", text, (size_t)n), &err), err);
        OK(jsonl_next(&j, &o, &err), err);
        assert_null(jsonl_string(&j, o, "q", &err));
        expect_err(&err, "E-CLI-012", "line 1", "\"q\"", NULL);
        json_decref(o);
        assert_false(jsonl_next(&j, &o, &err));
        expect_err(&err, "E-CLI-012", "line 2", "a.jsonl", NULL);
        assert_null(o);
        jsonl_close(&j);
    }
}

static void files_that_cannot_be_read_are_errors(void **state)
{
    (void)state;
    struct unmask_err err;
    struct jsonl j = { 0 };
    json_t *o;
    assert_false(jsonl_open(&j, scratch("none.jsonl"), &err));
    expect_err(&err, "E-FILE-001", "none.jsonl", NULL);
    OK(jsonl_open(&j, "/tmp", &err), err);
    assert_false(jsonl_next(&j, &o, &err));
    expect_err(&err, "E-FILE-003", "/tmp", NULL);
    jsonl_close(&j);
}

static void the_line_is_named_before_what_an_error_names(void **state)
{
    static const char hostile[] = "ev\x1b[31mil\xff.jsonl", shown[] = "ev\\x1b[31mil\\xff.jsonl, line 7";
    (void)state;
    struct unmask_err err;
    char path[300];
    err_set(&err, E_EVAL_MODELS, &(struct err_info){ .found = "another tokenizer" });
    assert_false(jsonl_at(hostile, 7, &err));
    assert_string_equal(err.file, shown);
    assert_false(err_set(&err, E_TOK_BYTE, &(struct err_info){ .file = "tokenizer.json" }));
    assert_false(jsonl_at(hostile, 7, &err));
    expect_err(&err, "E-TOK-011", shown, "line 7: tokenizer.json: ", NULL);
    assert_false(err_set(&err, E_MODEL_OUTPUT, &(struct err_info){ .need = "finite logits" }));
    assert_false(jsonl_at(hostile, 7, &err));   /* whatever the line is */
    assert_string_equal(err.file, "");
    memset(path, 'p', sizeof path - 1);         /* the line is seen behind a long path, and nothing is cut inside a character */
    path[sizeof path - 1] = 0;
    assert_false(err_set(&err, E_TOK_BYTE, &(struct err_info){ .file = "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9"
        "\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9\xC3\xA9" }));
    assert_false(jsonl_at(path, 1234567, &err));
    expect_err(&err, "E-TOK-011", "ppp, line 1234567: \xC3\xA9", NULL);
    assert_int_equal(utf8_valid(err.file, strlen(err.file)), strlen(err.file));
    assert_false(jsonl_at(path, 1, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_read_one_by_one),
        cmocka_unit_test(a_line_may_be_long),
        cmocka_unit_test(texts_may_hold_nul),
        cmocka_unit_test(a_byte_order_mark_begins_a_file_only),
        cmocka_unit_test(what_is_no_object_is_an_error_with_its_line),
        cmocka_unit_test(files_that_cannot_be_read_are_errors),
        cmocka_unit_test(the_line_is_named_before_what_an_error_names),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
