/* test_model_name.c - names of models taken apart and put together by GGUF's naming rule. */
#include "testing.h"

#include "model_name.h"

static void parse(struct model_name *m, const char *name) { model_name_parse(m, str_of(name)); }

static void names_are_taken_apart(void **state)
{
    (void)state;
    static const struct { const char *name, *base, *size, *finetune, *version, *file; } rows[] = {
        { "LLaDA-8B-Instruct", "LLaDA", "8B", "Instruct", "", "LLaDA-8B-Instruct-v1.0-Q4_0.gguf" },
        { "LLaDA-8B-Base", "LLaDA", "8B", "Base", "", "LLaDA-8B-Base-v1.0-Q4_0.gguf" },
        { "LLaDA-1.5", "LLaDA-1.5", "", "", "", "LLaDA-1.5-v1.0-Q4_0.gguf" },
        { "LLaDA-MoE-7B-A1B-Instruct-v2", "LLaDA-MoE", "7B", "A1B-Instruct", "v2", "LLaDA-MoE-7B-A1B-Instruct-v2-Q4_0.gguf" },
        { "Dream-v0-Instruct-7b", "Dream", "7B", "Instruct", "v0", "Dream-7B-Instruct-v0-Q4_0.gguf" },
        { "mixtral-8x7B", "mixtral", "8X7B", "", "", "mixtral-8X7B-v1.0-Q4_0.gguf" },
        { "0.5b", "0.5b", "", "", "", "0.5b-v1.0-Q4_0.gguf" },
        { "My model: 3/4", "My-model-3-4", "", "", "", "My-model-3-4-v1.0-Q4_0.gguf" },
        { "../../etc", "..-..-etc", "", "", "", "..-..-etc-v1.0-Q4_0.gguf" },
        { "", "", "", "", "", "model-v1.0-Q4_0.gguf" },
        { "---", "", "", "", "", "model-v1.0-Q4_0.gguf" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct model_name m;
        char file[256];
        parse(&m, rows[i].name);
        assert_string_equal(m.base, rows[i].base);
        assert_string_equal(m.size, rows[i].size);
        assert_string_equal(m.finetune, rows[i].finetune);
        assert_string_equal(m.version, rows[i].version);
        model_name_file(&m, "q4_0", file);
        assert_string_equal(file, rows[i].file);
    }
}

static void sizes_have_two_digits(void **state)
{
    (void)state;
    static const struct { uint64_t n; const char *label; } rows[] = {
        { 207000, "207K" }, { 6032640, "6.0M" }, { 8015581184, "8.0B" }, { 16000000000, "16B" },
        { 999, "1.0K" }, { 0, "0.0K" }, { 2000000000000, "2.0T" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct model_name m;
        model_name_size(&m, rows[i].n);
        assert_string_equal(m.size, rows[i].label);
    }
}

static void texts_of_any_kind_give_a_file_name(void **state)
{
    (void)state;
    char file[256];
    struct model_name m = { "a/b\n\xC3\xA4 c", "8 B", "", "v1" };
    model_name_file(&m, "q4_k_m", file);
    assert_string_equal(file, "a-b-c-8-B-v1-Q4_K_M.gguf");
    char long_name[1001];
    memset(long_name, 'x', 1000);
    long_name[1000] = 0;
    parse(&m, long_name);
    model_name_file(&m, "q4_0", file);
    assert_true(strlen(file) < 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_taken_apart),
        cmocka_unit_test(sizes_have_two_digits),
        cmocka_unit_test(texts_of_any_kind_give_a_file_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
