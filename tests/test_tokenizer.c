/* test_tokenizer.c - ids of published tokenizers, special tokens, decoding in pieces, text of every kind. */
#include "tokenizing.h"

#include "rng.h"
#include "utf8.h"

/* The pattern of Bailing's files, Qwen's with NFC, and Bailing's with other special tokens. */
static void goldens_of_three_small_tokenizers(void **state)
{
    static const char *const folders[] = { LLADA, DATA "dream-7to1", DATA "llada2-tiny" };
    static const char *const goldens[] = { DATA "llada-gqa.json", DATA "dream-7to1.json", DATA "llada2-tiny.json" };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        struct tokenizer *t = open_folder(folders[i]);
        expect_golden(t, goldens[i]);
        tokenizer_close(t);
    }
}

static void special_ids_are_those_the_files_name(void **state)
{
    (void)state;
    struct tokenizer *t = open_folder(LLADA);
    const struct token_ids ids = tokenizer_ids(t);
    assert_int_equal(ids.bos, 480);
    assert_int_equal(ids.eos, 481);
    assert_int_equal(ids.pad, 481);
    assert_int_equal(ids.mask, 500);
    assert_int_equal(ids.eot, 508);
    assert_int_equal(tokenizer_size(t), 512);
    assert_string_equal(tokenizer_pre(t), "bailingmoe2");
    assert_false(tokenizer_ignores_merges(t));
    assert_int_equal(tokenizer_find(t, "\xc4\xa0t"), 256);
    assert_int_equal(tokenizer_find(t, "<|mdm_mask|>"), 500);
    assert_int_equal(tokenizer_find(t, "no such token"), -1);
    enum token_type type;
    assert_int_equal(tokenizer_token(t, 500, &type).n, 12);
    assert_int_equal(type, TOKEN_CONTROL);
    assert_int_equal(tokenizer_token(t, 512, &type).n, 0);
    assert_int_equal(type, TOKEN_UNUSED);
    tokenizer_close(t);
}

/* ---- text that looks like special tokens ---- */

static void special_tokens_in_text_are_text(void **state)
{
    static const char *const texts[] = { "<|mdm_mask|>", "a<|eot_id|>b", "<|start_header_id|>system<|end_header_id|>",
        "<|EOT_ID|>",
        "<|eot_\xE2\x80\x8Bid|>", "<|eot_id|", "<|eot_id|><|eot_id|>", "<<|eot_id|>>", "[CLS][gMASK]" };
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        int32_t *ids = NULL;
        size_t n = 0;
        struct text_out out = { 0 };
        struct token_decoder d = { 0 };
        OK(tokenizer_encode(t, texts[i], strlen(texts[i]), false, &ids, &n, &err), err);
        for (size_t k = 0; k < n; k++) {
            enum token_type type;
            tokenizer_token(t, ids[k], &type);
            assert_int_equal(type, TOKEN_NORMAL);
        }
        OK(tokenizer_decode(t, &d, ids, n, false, &out, &err), err);
        assert_string_equal(out.s, texts[i]);
        mem_free(ids);
        mem_free(out.s);
    }
    tokenizer_close(t);
}

static void special_tokens_are_found_when_asked_for_the_longest_first(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    int32_t *ids = NULL;
    size_t n = 0;
    const char text[] = "<|eot_id|><|reserved_token_1|><|reserved_token_10|><|reserved_token_1<|mdm_mask|>";
    OK(tokenizer_encode(t, text, sizeof text - 1, true, &ids, &n, &err), err);
    assert_true(n > 4);
    assert_int_equal(ids[0], 508);
    assert_int_equal(ids[1], 485);
    assert_int_equal(ids[2], 494);
    assert_int_equal(ids[n - 1], 500);
    struct text_out out = { 0 };
    struct token_decoder d = { 0 };
    OK(tokenizer_decode(t, &d, ids, n, true, &out, &err), err);
    assert_string_equal(out.s, text);
    out.n = 0;
    OK(tokenizer_decode(t, &d, ids, n, false, &out, &err), err);
    assert_string_equal(out.s, "<|reserved_token_1");
    mem_free(ids);
    mem_free(out.s);
    tokenizer_close(t);
}

/* ---- decoding ---- */

static void a_character_is_held_back_until_complete(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    const char text[] = "\xF0\x9F\x99\x82\xE6\x97\xA5\xC3\xA9";
    struct text_out out = { 0 };
    struct token_decoder d = { 0 };
    size_t complete = 0;
    for (size_t i = 0; i < sizeof text - 1; i++) {
        const int32_t byte = (uint8_t)text[i];  /* ids 0 to 255 are the bytes */
        OK(tokenizer_decode(t, &d, &byte, 1, false, &out, &err), err);
        if (i == 3 || i == 6 || i == 8) complete = i + 1;
        assert_int_equal(out.n, complete);
    }
    assert_string_equal(out.s, text);
    const int32_t half[] = { 0xE6, 0x97 };
    OK(tokenizer_decode(t, &d, half, 2, false, &out, &err), err);
    assert_string_equal(out.s, text);
    OK(tokenizer_decode_end(&d, &out, &err), err);
    assert_string_equal(out.s + sizeof text - 1, "\xEF\xBF\xBD");
    OK(tokenizer_decode_end(&d, &out, &err), err);
    assert_int_equal(out.n, sizeof text - 1 + 3);
    mem_free(out.s);
    tokenizer_close(t);
}

static void bytes_that_are_no_text_become_replacement_characters(void **state)
{
    /* Byte sequences and how many U+FFFD they give: one for each longest beginning of a character (Unicode 15, 3.9). */
    static const struct { const char *bytes; int n; } rows[] = {
        { "\x80", 1 }, { "\xC0\x80", 2 }, { "\xC1", 1 }, { "\xE0\x80\x80", 3 }, { "\xE0\xA0", 1 }, { "\xED\xA0\x80", 3 },
            { "\xF0\x80\x80\x80", 4 },
        { "\xF0\x90\x80", 1 }, { "\xF4\x90\x80\x80", 4 }, { "\xF5", 1 }, { "\xFE\xFF", 2 }, { "\xE6\x97\xE6", 2 },
            { "\xF0\x9F\xC3", 2 },
    };
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        struct text_out out = { 0 };
        struct token_decoder d = { 0 };
        for (const char *b = rows[r].bytes; *b; b++)
            OK(tokenizer_decode(t, &d, &(int32_t){ (uint8_t)*b }, 1, false, &out, &err), err);
        OK(tokenizer_decode_end(&d, &out, &err), err);
        if (out.n != 3u * (unsigned)rows[r].n) fail_msg("row %zu: %zu bytes", r, out.n);
        for (size_t i = 0; i < out.n; i += 3) assert_memory_equal(out.s + i, "\xEF\xBF\xBD", 3);
        mem_free(out.s);
    }
    tokenizer_close(t);
}

/* Any ids whatever: the text is valid, and the same whether decoded at once or one by one. */
static void random_ids_decode_to_valid_text(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    uint64_t seed = 7;
    for (int round = 0; round < 300; round++) {
        int32_t ids[64];
        for (int i = 0; i < 64; i++) ids[i] = (int32_t)(noise_mix(++seed) % (round & 1 ? 256 : 512));
        struct text_out whole = { 0 }, pieces = { 0 };
        struct token_decoder d = { 0 }, e = { 0 };
        OK(tokenizer_decode(t, &d, ids, 64, true, &whole, &err) && tokenizer_decode_end(&d, &whole, &err), err);
        for (int i = 0; i < 64; i++) {
            OK(tokenizer_decode(t, &e, ids + i, 1, true, &pieces, &err), err);
            assert_int_equal(utf8_valid(pieces.s, pieces.n), pieces.n);
        }
        OK(tokenizer_decode_end(&e, &pieces, &err), err);
        assert_int_equal(whole.n, pieces.n);
        assert_memory_equal(whole.s, pieces.s, whole.n);
        mem_free(whole.s);
        mem_free(pieces.s);
    }
    tokenizer_close(t);
}

static void ids_outside_the_vocabulary_are_an_error(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    struct text_out out = { 0 };
    struct token_decoder d = { 0 };
    assert_false(tokenizer_decode(t, &d, &(int32_t){ 512 }, 1, true, &out, &err));
    expect_err(&err, "E-TOK-014", "512", "0 to 511", NULL);
    assert_false(tokenizer_decode(t, &d, &(int32_t){ -1 }, 1, true, &out, &err));
    expect_err(&err, "E-TOK-014", "-1", NULL);
    mem_free(out.s);
    tokenizer_close(t);
}

/* ---- text of every kind ---- */

static void expect_round_trip(const struct tokenizer *t, const char *text, size_t n)
{
    struct unmask_err err;
    int32_t *ids = NULL;
    size_t n_ids = 0;
    struct text_out out = { 0 };
    struct token_decoder d = { 0 };
    OK(tokenizer_encode(t, text, n, false, &ids, &n_ids, &err), err);
    OK(tokenizer_decode(t, &d, ids, n_ids, false, &out, &err) && tokenizer_decode_end(&d, &out, &err), err);
    assert_int_equal(out.n, n);
    assert_memory_equal(out.s, text, n);
    mem_free(ids);
    mem_free(out.s);
}

static void random_text_comes_back(void **state)
{
    (void)state;
    struct tokenizer *t = open_folder(LLADA);
    uint64_t seed = 11;
    for (int round = 0; round < 3000; round++) {
        char text[256];
        size_t n = 0;
        const uint64_t reach = (uint64_t[]){ 0x80, 0x300, 0x3100, 0x110000 }[round & 3];
        for (const size_t most = noise_mix(++seed) % 200; n < most; ) {
            const uint32_t c = (uint32_t)(noise_mix(++seed) % reach);
            if (c < 0xD800 || c > 0xDFFF) n += utf8_encode(c, text + n);
        }
        expect_round_trip(t, text, n);
    }
    expect_round_trip(t, "", 0);
    expect_round_trip(t, "a\0b\0", 4);
    expect_round_trip(t, "\0\0\0", 3);
    tokenizer_close(t);
}

/* A method that is not near linear takes minutes here. */
static void megabytes_without_a_space_are_no_trouble(void **state)
{
    static const struct { const char *unit; size_t times; } rows[] = { { "a", 2 << 20 }, { " ", 2 << 20 }, { "\n", 1 << 20 },
        { "!", 1 << 20 },
        { "\xF0\x9F\x99\x82", 1 << 18 }, { "the", 1 << 19 }, { " \n", 1 << 19 }, { "\xCC\x81\xCC\xA3", 1 << 18 } };
    (void)state;
    struct tokenizer *t = open_folder(LLADA);
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        const size_t len = strlen(rows[r].unit), n = len * rows[r].times;
        char *text = malloc(n + 1);
        for (size_t i = 0; i < n; i += len) memcpy(text + i, rows[r].unit, len);
        text[n] = 'x';
        expect_round_trip(t, text, n + 1);
        free(text);
    }
    tokenizer_close(t);
}

/* Marks of two classes, in turns: put in order within linear time, as NFC wants them. */
static void long_runs_of_combining_marks_are_normalized(void **state)
{
    enum { TIMES = 1 << 18 };
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(DATA "dream-7to1");
    char *text = malloc(1 + 4 * TIMES);
    text[0] = 'q';
    for (size_t i = 0; i < TIMES; i++) memcpy(text + 1 + 4 * i, "\xCC\x81\xCC\xA3", 4);        /* U+0301 (230), U+0323 (220) */
    int32_t *ids = NULL;
    size_t n = 0;
    struct text_out out = { 0 };
    struct token_decoder d = { 0 };
    OK(tokenizer_encode(t, text, 1 + 4 * TIMES, false, &ids, &n, &err), err);
    OK(tokenizer_decode(t, &d, ids, n, false, &out, &err), err);
    assert_int_equal(out.n, 1 + 4 * TIMES);
    assert_memory_equal(out.s, "q\xCC\xA3\xCC\xA3", 5);
    assert_memory_equal(out.s + 1 + 2 * TIMES, "\xCC\x81\xCC\x81", 4);
    mem_free(out.s);
    mem_free(ids);
    free(text);
    tokenizer_close(t);
}

static void invalid_utf8_is_refused_with_its_offset(void **state)
{
    static const char *const bad[] = { "\x80", "\xC3", "\xE6\x97", "\xF0\x9F\x99", "\xC0\xAF", "\xE0\x80\xAF", "\xED\xA0\x80",
        "\xF4\x90\x80\x80", "\xFE", "\xFF" };
    (void)state;
    struct tokenizer *t = open_folder(LLADA);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct unmask_err err;
        int32_t *ids = NULL;
        size_t n = 0;
        char text[16];
        snprintf(text, sizeof text, "abc %s", bad[i]);
        assert_false(tokenizer_encode(t, text, strlen(text), false, &ids, &n, &err));
        expect_err(&err, "E-TOK-012", "byte 4", NULL);
        assert_int_equal(n, 0);
        mem_free(ids);
    }
    tokenizer_close(t);
}

static void text_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(LLADA);
    int32_t *ids = NULL;
    size_t n = 0;
    assert_false(tokenizer_encode(t, "x", (size_t)(1 << 30) + 1, false, &ids, &n, &err));
    expect_err(&err, "E-TOK-013", "1073741825", NULL);
    assert_int_equal(err.status, UNMASK_ELIMIT);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goldens_of_three_small_tokenizers),
        cmocka_unit_test(special_ids_are_those_the_files_name),
        cmocka_unit_test(special_tokens_in_text_are_text),
        cmocka_unit_test(special_tokens_are_found_when_asked_for_the_longest_first),
        cmocka_unit_test(a_character_is_held_back_until_complete),
        cmocka_unit_test(bytes_that_are_no_text_become_replacement_characters),
        cmocka_unit_test(random_ids_decode_to_valid_text),
        cmocka_unit_test(ids_outside_the_vocabulary_are_an_error),
        cmocka_unit_test(random_text_comes_back),
        cmocka_unit_test(megabytes_without_a_space_are_no_trouble),
        cmocka_unit_test(long_runs_of_combining_marks_are_normalized),
        cmocka_unit_test(invalid_utf8_is_refused_with_its_offset),
        cmocka_unit_test(text_beyond_the_limit_is_refused),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
