/* tokenizing.h - what the tests of tokenizers share: goldens, and ids of a text. */
#ifndef TOKENIZING_H
#define TOKENIZING_H

#include "testing.h"

#include "json.h"
#include "mem.h"
#include "tokenizer.h"

#define DATA "tests/data/tokenizers/"
#define LLADA "tests/data/checkpoints/llada-gqa"

static inline struct tokenizer *open_folder(const char *path)
{
    struct unmask_err err;
    struct tokenizer *t;
    OK(tokenizer_open_folder(&t, path, &err), err);
    return t;
}

static inline void expect_ids(const struct tokenizer *t, const json_t *one, size_t number, const char *file)
{
    struct unmask_err err;
    int32_t *ids = NULL;
    size_t n = 0;
    const json_t *text = json_object_get(one, "text"), *want = json_object_get(one, "ids");
    OK(tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids, &n, &err), err);
    bool same = n == json_array_size(want);
    for (size_t i = 0; same && i < n; i++) same = ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s, case %zu: other ids for \"%s\"", file, number, json_string_value(text));
    mem_free(ids);
}

static inline void expect_golden(const struct tokenizer *t, const char *file)
{
    struct unmask_err err;
    json_t *golden = json_read(file, &err);
    OK(golden, err);
    const json_t *cases = json_object_get(golden, "cases");
    assert_true(json_array_size(cases) >= 40);
    for (size_t i = 0; i < json_array_size(cases); i++) expect_ids(t, json_array_get(cases, i), i, file);
    json_decref(golden);
}

static inline void expect_text(const struct tokenizer *t, const char *text, const int32_t *want, size_t n_want)
{
    struct unmask_err err;
    int32_t *ids = NULL;
    size_t n = 0;
    OK(tokenizer_encode(t, text, strlen(text), false, &ids, &n, &err), err);
    assert_int_equal(n, n_want);
    assert_memory_equal(ids, want, n * sizeof *want);
    mem_free(ids);
}

#endif
