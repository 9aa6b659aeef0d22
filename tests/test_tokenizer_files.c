/* test_tokenizer_files.c - tokenizer.json, the files beside it, GGUF metadata: what they mean, and what is refused. */
#include "tokenizing.h"

#include <sys/stat.h>
#include "gguf.h"
#include "rng.h"

/* ---- tokenizer.json ---- */

#define SPLIT "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+" \
    "|\\\\p{N}{1,3}" \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define PRE "{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT "," LEVEL "]}"
#define VOCAB "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"abc\":4,\"1\":8}"
#define ADDED "[{\"id\":5,\"content\":\"<s>\",\"special\":true},{\"id\":6,\"content\":\"<tool>\",\"special\":false}]"

static const char base[] = "{\"added_tokens\":" ADDED ",\"normalizer\":null,\"pre_tokenizer\":" PRE ",\"decoder\":{\"type\":\"ByteLevel\"},"
    "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"byte_fallback\":false,"
    "\"ignore_merges\":false,\"vocab\":" VOCAB ",\"merges\":[\"a b\",\"ab c\"]}}";

/* A scratch folder with base, `find` replaced (NULL: as it is), and tokenizer_config.json (NULL: none). */
static const char *folder_with(const char *find, const char *replace, const char *config)
{
    char *text = malloc(sizeof base + strlen(replace ? replace : "") + 1);
    const char *at = find ? strstr(base, find) : NULL;
    if (find && !at) fail_msg("\"%s\" is not in the base text", find);
    if (find) sprintf(text, "%.*s%s%s", (int)(at - base), base, replace, at + strlen(find));
    else memcpy(text, base, sizeof base);
    mkdir(scratch("t"), 0700);
    scratch_write("t/tokenizer.json", text, strlen(text));
    if (config) scratch_write("t/tokenizer_config.json", config, strlen(config));
    else remove(scratch("t/tokenizer_config.json"));
    free(text);
    return scratch("t");
}

static void merges_have_two_forms_and_ids_may_have_gaps(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(folder_with("[\"a b\",\"ab c\"]", "[[\"a\",\"b\"],[\"ab\",\"c\"]]", NULL));
    expect_text(t, "abcab<tool>1b", (int32_t[]){ 4, 3, 6, 8, 1 }, 5);
    enum token_type type;
    assert_int_equal(tokenizer_token(t, 7, &type).n, 0);
    assert_int_equal(type, TOKEN_UNUSED);
    struct text_out out = { 0 };
    struct token_decoder d = { 0 };
    OK(tokenizer_decode(t, &d, (int32_t[]){ 7, 4, 5, 7 }, 4, false, &out, &err), err);
    assert_string_equal(out.s, "abc");
    out.n = 0;
    OK(tokenizer_merge(t, 1, &out, &err), err);
    assert_string_equal(out.s, "ab c");
    assert_int_equal(tokenizer_n_merges(t), 2);
    assert_false(tokenizer_merge(t, 2, &out, &err));
    mem_free(out.s);
    tokenizer_close(t);
}

static void whole_pieces_ignore_merges_when_the_file_says_so(void **state)
{
    (void)state;
    /* "abc" without the merge "ab c": joined only as a whole piece. */
    struct tokenizer *t = open_folder(folder_with("[\"a b\",\"ab c\"]", "[\"a b\"]", NULL));
    expect_text(t, "abc", (int32_t[]){ 3, 2 }, 2);
    tokenizer_close(t);
    t = open_folder(folder_with("\"ignore_merges\":false,\"vocab\":" VOCAB ",\"merges\":[\"a b\",\"ab c\"]",
                                "\"ignore_merges\":true,\"vocab\":" VOCAB ",\"merges\":[\"a b\"]", NULL));
    assert_true(tokenizer_ignores_merges(t));
    expect_text(t, "abc", (int32_t[]){ 4 }, 1);
    expect_text(t, "abca", (int32_t[]){ 3, 2, 0 }, 3);
    tokenizer_close(t);
    /* Not where the piece is a special token: text never becomes one. */
    static const char special[] = "{\"added_tokens\":[{\"id\":4,\"content\":\"abc\",\"special\":true}],\"normalizer\":null,"
        "\"pre_tokenizer\":" PRE ",\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":\"BPE\",\"dropout\":null,"
        "\"byte_fallback\":false,\"ignore_merges\":true,\"vocab\":" VOCAB ",\"merges\":[\"a b\"]}}";
    scratch_write("t/tokenizer.json", special, strlen(special));
    t = open_folder(scratch("t"));
    expect_text(t, "abc", (int32_t[]){ 3, 2 }, 2);
    tokenizer_close(t);
}

static void byte_level_alone_cuts_as_gpt2_does(void **state)
{
    (void)state;
    struct tokenizer *t = open_folder(folder_with(PRE, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", NULL));
    assert_string_equal(tokenizer_pre(t), "gpt-2");
    expect_text(t, "abc1", (int32_t[]){ 4, 8 }, 2);
    tokenizer_close(t);
}

/* U+180E is no white space in Unicode, though PCRE2 takes it for one: it goes with the punctuation after it. */
static void mongolian_vowel_separator_is_not_white_space(void **state)
{
    (void)state;
    struct tokenizer *t = open_folder(folder_with(VOCAB ",\"merges\":[\"a b\",\"ab c\"]",
        "{\"\xC3\xA1\":0,\"\xC5\x82\":1,\"\xC4\xB0\":2,\"\xC3\xA1\xC5\x82\":3,\"\xC3\xA1\xC5\x82\xC4\xB0\":4,"
        "\"!\":7,\"\xC3\xA1\xC5\x82\xC4\xB0!\":8},"
        "\"merges\":[\"\xC3\xA1 \xC5\x82\",\"\xC3\xA1\xC5\x82 \xC4\xB0\",\"\xC3\xA1\xC5\x82\xC4\xB0 !\"]", NULL));
    expect_text(t, "\xE1\xA0\x8E!", (int32_t[]){ 8 }, 1);
    tokenizer_close(t);
}

struct bad_file { const char *find, *replace, *config, *id, *part; };

static void expect_refused(const struct bad_file *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct unmask_err err;
        struct tokenizer *t;
        if (tokenizer_open_folder(&t, folder_with(rows[i].find, rows[i].replace, rows[i].config),
                                  &err)) fail_msg("row %zu: opened", i);
        if (strcmp(err.id, rows[i].id)) print_error("row %zu\n", i);
        expect_err(&err, rows[i].id, rows[i].part, "/t/tokenizer", NULL);
        assert_int_equal(err.status, UNMASK_EMODEL);
    }
}

static void fields_of_another_type_are_named(void **state)
{
    static const struct bad_file rows[] = {
        { VOCAB, "[1]", NULL, "E-TOK-002", "$.model.vocab" },
        { VOCAB, "null", NULL, "E-TOK-002", "$.model.vocab" },
        { "\"a\":0", "\"a\":\"0\"", NULL, "E-TOK-002", "$.model.vocab[\"a\"]" },
        { "\"a\":0", "\"a\":1.5", NULL, "E-TOK-002", "$.model.vocab[\"a\"]" },
        { "\"a\":0", "\"a\":null", NULL, "E-TOK-002", "found null" },
        { "[\"a b\",\"ab c\"]", "{}", NULL, "E-TOK-002", "$.model.merges" },
        { "\"ignore_merges\":false", "\"ignore_merges\":1", NULL, "E-TOK-002", "$.model.ignore_merges" },
        { "\"byte_fallback\":false", "\"byte_fallback\":true", NULL, "E-TOK-002", "$.model.byte_fallback" },
        { "\"dropout\":null", "\"dropout\":0.1", NULL, "E-TOK-002", "$.model.dropout" },
        { "\"dropout\":null", "\"end_of_word_suffix\":\"</w>\"", NULL, "E-TOK-002", "$.model.end_of_word_suffix" },
        { ADDED, "{}", NULL, "E-TOK-002", "$.added_tokens" },
        { ADDED, "[7]", NULL, "E-TOK-002", "$.added_tokens[0]" },
        { "\"id\":6", "\"id\":\"6\"", NULL, "E-TOK-002", "$.added_tokens[1].id" },
        { "\"content\":\"<tool>\"", "\"content\":[]", NULL, "E-TOK-002", "$.added_tokens[1].content" },
        { "\"special\":false", "\"special\":0", NULL, "E-TOK-002", "$.added_tokens[1].special" },
        { "\"special\":false", "\"special\":false,\"lstrip\":true", NULL, "E-TOK-002", "$.added_tokens[1].lstrip" },
        { "\"behavior\":\"Isolated\"", "\"behavior\":\"MergedWithNext\"", NULL, "E-TOK-002", "behavior" },
        { "\"invert\":false", "\"invert\":true", NULL, "E-TOK-002", "invert" },
        { "\"use_regex\":false", "\"use_regex\":true", NULL, "E-TOK-002", "use_regex" },
        { "\"add_prefix_space\":false", "\"add_prefix_space\":true", NULL, "E-TOK-002", "add_prefix_space" },
        { "\"pretokenizers\":[" SPLIT, "\"pretokenizers\":[" LEVEL "," SPLIT, NULL, "E-TOK-002",
            "$.pre_tokenizer.pretokenizers" },
        { NULL, NULL, "[]", "E-TOK-002", "$" },
        { NULL, NULL, "{\"bos_token\":7}", "E-TOK-002", "$.bos_token" },
        { NULL, NULL, "{\"chat_template\":7}", "E-TOK-002", "$.chat_template" },
        { NULL, NULL, "{\"added_tokens_decoder\":{\"9x\":{\"content\":\"<y>\"}}}", "E-TOK-002", "9x" },
        { NULL, NULL, "{\"added_tokens_decoder\":{\"9\":{\"content\":1}}}", "E-TOK-002", "content" },
        { NULL, NULL, "{\"added_tokens_decoder\":{\"9\":{\"content\":\"<y>\",\"special\":1}}}", "E-TOK-002", "special" },
        { NULL, NULL, "{\"added_tokens_decoder\":{\"9\":{\"content\":\"<y>\",\"rstrip\":true}}}", "E-TOK-002", "rstrip" },
    };
    (void)state;
    expect_refused(rows, ARRAY_LEN(rows));
}

static void other_kinds_of_tokenizer_are_refused(void **state)
{
    static const struct bad_file rows[] = {
        { "\"type\":\"BPE\"", "\"type\":\"Unigram\"", NULL, "E-TOK-003", "Unigram" },
        { "\"normalizer\":null", "\"normalizer\":{\"type\":\"NFKC\"}", NULL, "E-TOK-003", "NFKC" },
        { "\"decoder\":{\"type\":\"ByteLevel\"}", "\"decoder\":{\"type\":\"Metaspace\"}", NULL, "E-TOK-003", "$.decoder" },
        { PRE, "null", NULL, "E-TOK-003", "$.pre_tokenizer" },
        { PRE, "{\"type\":\"Whitespace\"}", NULL, "E-TOK-003", "Whitespace" },
        { SPLIT, "{\"type\":\"Digits\"}", NULL, "E-TOK-003", "Digits" },
        { "{1,3}", "{1,2}", NULL, "E-TOK-004", "llama-bpe" },
        { "(?i:'s|", "(a+)+b|(?i:'s|", NULL, "E-TOK-004", "(a+)+b" },
    };
    (void)state;
    expect_refused(rows, ARRAY_LEN(rows));
}

static void a_vocabulary_must_hold_together(void **state)
{
    static const struct bad_file rows[] = {
        { "\"a\":0", "\"a\":2147483648", NULL, "E-TOK-005", "2147483648" },
        { "\"a\":0", "\"a\":4194304", NULL, "E-TOK-005", "0 to 4194303" },
        { "\"a\":0", "\"a\":-1", NULL, "E-TOK-005", "-1" },
        { "\"id\":6", "\"id\":9000000", NULL, "E-TOK-005", "$.added_tokens[1]" },
        { "\"a\":0", "\"a\":1", NULL, "E-TOK-006", "id 1 is" },
        { "\"id\":6", "\"id\":4", NULL, "E-TOK-006", "id 4 is \"abc\" and \"<tool>\"" },
        { "\"content\":\"<tool>\"", "\"content\":\"abc\"", NULL, "E-TOK-006", "\"abc\" has ids 4 and 6" },
        { "\"id\":6,\"content\":\"<tool>\"", "\"id\":5,\"content\":\"<s>\"", NULL, "E-TOK-006", "<s>" },
        { "\"a\":0", "\"\":0,\"a\":10", NULL, "E-TOK-007", "0 bytes" },
        { "\"content\":\"<tool>\"", "\"content\":\"\"", NULL, "E-TOK-007", "$.added_tokens[1]" },
        { "\"a b\"", "\"ab\"", NULL, "E-TOK-008", "$.model.merges[0]" },
        { "\"a b\"", "\"a b c\"", NULL, "E-TOK-008", "a b c" },
        { "\"a b\"", "\" b\"", NULL, "E-TOK-008", "$.model.merges[0]" },
        { "\"a b\"", "[\"a\"]", NULL, "E-TOK-008", "$.model.merges[0]" },
        { "\"a b\"", "7", NULL, "E-TOK-008", "$.model.merges[0]" },
        { "\"ab c\"", "\"ab x\"", NULL, "E-TOK-008", "\"x\"" },
        { "\"ab c\"", "\"a c\"", NULL, "E-TOK-008", "\"ac\"" },
        { NULL, NULL, "{\"mask_token\":\"<mask>\"}", "E-TOK-009", "<mask>" },
        { NULL, NULL, "{\"eos_token\":{\"content\":\"<e>\"}}", "E-TOK-009", "$.eos_token" },
        { NULL, NULL, "{\"added_tokens_decoder\":{\"5\":{\"content\":\"<t>\"}}}", "E-TOK-006", "<t>" },
    };
    (void)state;
    expect_refused(rows, ARRAY_LEN(rows));
}

/* Added tokens are looked for at every byte of a text, so that long ones would make every text slow. */
static void long_added_tokens_are_refused(void **state)
{
    static const struct { size_t n; const char *found; } cases[] = { { 512, NULL }, { 513, "513 bytes" }, { 1 << 20, "1048576 bytes" } };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct unmask_err err;
        struct tokenizer *t = NULL;
        char *replace = malloc(cases[i].n + 32);
        strcpy(replace, "\"content\":\"");
        memset(replace + 11, 'x', cases[i].n);
        strcpy(replace + 11 + cases[i].n, "\"");
        const bool ok = tokenizer_open_folder(&t, folder_with("\"content\":\"<tool>\"", replace, NULL), &err);
        assert_int_equal(ok, cases[i].found == NULL);
        if (!ok) expect_err(&err, "E-TOK-007", cases[i].found, NULL);
        tokenizer_close(t);
        free(replace);
    }
}

static void too_many_merges_are_refused(void **state)
{
    enum { N = (2 << 20) + 1 };
    (void)state;
    struct unmask_err err;
    struct tokenizer *t;
    char *replace = malloc(6 * N), *at = replace;
    for (int i = 0; i < N; i++) at += sprintf(at, "%s0", i ? "," : "[");
    strcpy(at, "]");
    assert_false(tokenizer_open_folder(&t, folder_with("[\"a b\",\"ab c\"]", replace, NULL), &err));
    expect_err(&err, "E-TOK-010", "2097153 merges", NULL);
    free(replace);
}

static void a_folder_without_tokenizer_is_an_error(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t;
    mkdir(scratch("empty"), 0700);
    assert_false(tokenizer_open_folder(&t, scratch("empty"), &err));
    expect_err(&err, "E-TOK-001", "tokenizer.json", NULL);
    assert_false(tokenizer_open_folder(&t, scratch("nowhere"), &err));
    expect_err(&err, "E-FILE-001", "nowhere", NULL);
}

static void text_that_the_vocabulary_cannot_spell_is_an_error(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *t = open_folder(folder_with(NULL, NULL, NULL));
    int32_t *ids = NULL;
    size_t n = 0;
    assert_false(tokenizer_encode(t, "abz", 3, false, &ids, &n, &err));
    expect_err(&err, "E-TOK-011", "0x7A", NULL);
    mem_free(ids);
    tokenizer_close(t);
}

static void config_names_special_tokens_and_template(void **state)
{
    (void)state;
    struct tokenizer *t = open_folder(folder_with(NULL, NULL,
                                                  "{\"bos_token\":{\"content\":\"<s>\"},\"eos_token\":\"<tool>\",\"pad_token\":null,"
        "\"added_tokens_decoder\":{\"5\":{\"content\":\"<s>\",\"special\":true},\"20\":{\"content\":\"<new>\",\"special\":true}},"
        "\"chat_template\":[{\"name\":\"rag\",\"template\":\"R\"},{\"name\":\"default\",\"template\":\"D\"}]}"));
    const struct token_ids ids = tokenizer_ids(t);
    assert_int_equal(ids.bos, 5);
    assert_int_equal(ids.eos, 6);
    assert_int_equal(ids.pad, -1);
    assert_int_equal(tokenizer_find(t, "<new>"), 20);
    assert_int_equal(tokenizer_size(t), 21);
    assert_int_equal(tokenizer_chat_template(t).n, 1);
    assert_int_equal(tokenizer_chat_template(t).s[0], 'D');
    enum token_type type;
    tokenizer_token(t, 6, &type);
    assert_int_equal(type, TOKEN_CONTROL);      /* it has a role, so no text gives it */
    tokenizer_close(t);
    scratch_write("t/chat_template.jinja", "J!", 2);
    scratch_write("t/special_tokens_map.json", "{\"pad_token\":\"<s>\"}", 19);
    scratch_write("t/config.json", "{\"mask_token_id\":20,\"eos_token_id\":[1,2],\"vocab_size\":32}", 57);
    t = open_folder(scratch("t"));
    assert_int_equal(tokenizer_ids(t).pad, 5);
    assert_int_equal(tokenizer_ids(t).mask, 20);
    assert_int_equal(tokenizer_ids(t).eos, 6);
    assert_int_equal(tokenizer_size(t), 32);
    assert_int_equal(tokenizer_chat_template(t).n, 2);
    tokenizer_close(t);
    remove(scratch("t/chat_template.jinja"));
    remove(scratch("t/special_tokens_map.json"));
    remove(scratch("t/config.json"));
}

/* "a b", "ab c" would spell token 4 out of pieces of a text. */
static void pieces_are_never_joined_to_a_special_token(void **state)
{
    static const struct { const char *config; enum token_type type; } rows[] = {
        { "{\"added_tokens_decoder\":{\"4\":{\"content\":\"abc\",\"special\":true}}}", TOKEN_CONTROL },
        { "{\"mask_token\":\"abc\"}", TOKEN_CONTROL },
        { "{\"eos_token\":\"abc\",\"added_tokens_decoder\":{\"4\":{\"content\":\"abc\",\"special\":false}}}", TOKEN_CONTROL },
        { "{\"pad_token\":\"abc\"}", TOKEN_NORMAL },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tokenizer *t = open_folder(folder_with(NULL, NULL, rows[i].config));
        enum token_type type;
        tokenizer_token(t, 4, &type);
        assert_int_equal(type, rows[i].type);
        if (type == TOKEN_NORMAL) expect_text(t, "abcab", (int32_t[]){ 4, 3 }, 2);
        else expect_text(t, "abcab", (int32_t[]){ 3, 2, 3 }, 3);
        assert_int_equal(tokenizer_n_merges(t), 2);
        tokenizer_close(t);
    }
    /* What tokenizer.json lists stays what it says. */
    struct tokenizer *t = open_folder(folder_with(NULL, NULL,
        "{\"added_tokens_decoder\":{\"6\":{\"content\":\"<tool>\",\"special\":true,\"lstrip\":true}}}"));
    expect_text(t, "ab<tool>", (int32_t[]){ 3, 6 }, 2);
    tokenizer_close(t);
}

static void odd_spellings_mean_the_same(void **state)
{
    static const struct { const char *find, *replace; } rows[] = {
        { VOCAB, " { \"a\" : 0 ,\n\t\"\\u0062\":1,\"c\":2, \"\\u0061b\" :3 ,\"abc\":4,\"1\":8 } " },
        { "[\"a b\",\"ab c\"]", "[ [ \"\\u0061\" , \"\\u0062\" ] , [\"a\\u0062\",\"\\u0063\"]\r\n]" },
        { "[\"a b\",\"ab c\"]", "[\"\\u0061\\u0020b\",[\"ab\",\"c\"]]" },
        { "\"vocab\"", "\"voc\\u0061b\"" },
        { "\"model\":{", "\"x\":{\"vocab\":{},\"merges\":[\"]\\\"\"]},\"model\":{" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct tokenizer *t = open_folder(folder_with(rows[i].find, rows[i].replace, NULL));
        expect_text(t, "abcab<tool>1b", (int32_t[]){ 4, 3, 6, 8, 1 }, 5);
        tokenizer_close(t);
    }
}

static void broken_json_is_refused_wherever_it_breaks(void **state)
{
    static const struct { const char *find, *replace; } rows[] = {
        { VOCAB, VOCAB "," }, { "\"a\":0,", "\"a\":00," }, { "\"a\":0,", "\"a\":0,," }, { "\"a\":0,", "\"a\":- 0," },
            { "\"a\":0,", "\"a\"0," },
        { "\"1\":8}", "\"1\":8,}" }, { "\"a\":0", "\"a\n\":0" }, { "\"a\":0", "\"a\x80\":0" }, { "\"a\":0", "\"a\":0,\"a\":0" },
            { "\"a\":0", "\"a\\u0000\":0" },
        { "\"ab c\"]", "\"ab c\"" }, { "\"ab c\"]", "\"ab c\",]" }, { "\"ab c\"]}}", "\"ab c\"]}}x" },
            { "\"ab c\"]", "\"ab c\"],\"vocab\":{}" },
        { "\"ignore_merges\":false", "\"ignore_merges\":falsch" }, { "\"ignore_merges\":false,", "]" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct unmask_err err;
        struct tokenizer *t;
        if (tokenizer_open_folder(&t, folder_with(rows[i].find, rows[i].replace, NULL), &err)) fail_msg("row %zu: opened", i);
        if (strncmp(err.id, "E-JSON", 6)) fail_msg("row %zu: %s %s", i, err.id, err.what);
    }
}

/* What opens is JSON to jansson too, with the same vocabulary. */
static void expect_same_vocabulary(const struct tokenizer *t, const char *text, size_t n)
{
    struct unmask_err err;
    const char *key;
    json_t *root = json_parse(text, n, "edited", JSON_DEPTH, &err),
        *vocab = json_object_get(json_object_get(root, "model"), "vocab"), *id;
    OK(root, err);
    json_object_foreach(vocab, key, id) assert_int_equal(tokenizer_find(t, key), json_integer_value(id));
    assert_int_equal(tokenizer_n_merges(t), json_array_size(json_object_get(json_object_get(root, "model"), "merges")));
    json_decref(root);
}

/* Any edit of a file gives a tokenizer or an error, and what opens can be used. */
static void random_edits_never_crash(void **state)
{
    (void)state;
    struct unmask_err err;
    uint64_t seed = 3;
    int opened = 0;
    folder_with(NULL, NULL, NULL);
    for (int round = 0; round < 4000; round++) {
        char text[sizeof base];
        size_t n = sizeof base - 1;
        memcpy(text, base, sizeof base);
        const size_t at = noise_mix(++seed) % n, other = noise_mix(++seed) % n, len = 1 + noise_mix(++seed) % 12;
        switch (round % 4) {
        case 0: text[at] = (char)noise_mix(++seed); break;
        case 1: text[at] = "\"{}[],:0-9abntu\\"[noise_mix(++seed) % 16]; break;
        case 2: if (at + len < n) { memmove(text + at, text + at + len, n - at - len); n -= len; } break;
        default: if (at + len < n && other + len < n) memmove(text + at, text + other, len); break;
        }
        scratch_write("t/tokenizer.json", text, n);
        struct tokenizer *t;
        if (!tokenizer_open_folder(&t, scratch("t"), &err)) {
            assert_true(err.id[0]);
            continue;
        }
        int32_t *ids = NULL;
        size_t n_ids = 0;
        struct text_out out = { 0 };
        struct token_decoder d = { 0 };
        if (tokenizer_encode(t, "abcab<s><tool>1", 15, true, &ids, &n_ids, &err)) OK(tokenizer_decode(t, &d, ids, n_ids, true,
            &out, &err), err);
        expect_same_vocabulary(t, text, n);
        opened++;
        mem_free(ids);
        mem_free(out.s);
        tokenizer_close(t);
    }
    assert_true(opened > 100 && opened < 3900);
}

/* ---- GGUF ---- */

/* A GGUF file that holds t, written with the public accessors alone; `leave_out` (or NULL) is a key that is not written. */
static const char *gguf_of(const struct tokenizer *t, const char *leave_out, const char *pre)
{
    struct unmask_err err;
    struct gguf_writer *w;
    struct outfile o;
    const int n = tokenizer_size(t);
    struct str *tokens = calloc((size_t)n, sizeof *tokens), *merges = calloc(tokenizer_n_merges(t) + 1, sizeof *merges);
    char (*holes)[16] = calloc((size_t)n, sizeof *holes);
    int32_t *types = calloc((size_t)n, sizeof *types);
    struct text_out *texts = calloc(tokenizer_n_merges(t) + 1, sizeof *texts);
    for (int id = 0; id < n; id++) {
        enum token_type type;
        tokens[id] = tokenizer_token(t, id, &type);
        types[id] = (int32_t)type;
        if (!tokens[id].n) tokens[id] = (struct str){ holes[id], (size_t)sprintf(holes[id], "[PAD%d]", id) };
    }
    for (size_t i = 0; i < tokenizer_n_merges(t); i++) {
        OK(tokenizer_merge(t, i, &texts[i], &err), err);
        merges[i] = (struct str){ texts[i].s, texts[i].n };
    }
    const struct token_ids ids = tokenizer_ids(t);
    const struct { const char *key; int32_t id; } roles[] = { { "tokenizer.ggml.bos_token_id", ids.bos },
        { "tokenizer.ggml.eos_token_id", ids.eos },
        { "tokenizer.ggml.eot_token_id", ids.eot }, { "tokenizer.ggml.padding_token_id", ids.pad },
            { "tokenizer.ggml.mask_token_id", ids.mask } };
    const struct str model = str_of("gpt2"), name = str_of(pre);
    OK(gguf_writer_new(&w, &err), err);
#define PUT(call, key, ...) do { if (!leave_out || strcmp(leave_out, key)) OK(call(w, key, __VA_ARGS__, &err), err); } while (0)
    PUT(gguf_put_str, "tokenizer.ggml.model", model);
    PUT(gguf_put_str, "tokenizer.ggml.pre", name);
    PUT(gguf_put_strs, "tokenizer.ggml.tokens", tokens, (size_t)n);
    PUT(gguf_put_i32s, "tokenizer.ggml.token_type", types, (size_t)n);
    PUT(gguf_put_strs, "tokenizer.ggml.merges", merges, tokenizer_n_merges(t));
    PUT(gguf_put_bool, TOKENIZER_KEY_IGNORE_MERGES, tokenizer_ignores_merges(t));
    PUT(gguf_put_bool, TOKENIZER_KEY_NFC, tokenizer_normalizes(t));
    for (size_t i = 0; i < ARRAY_LEN(roles); i++)
        if (roles[i].id >= 0) PUT(gguf_put_u32, roles[i].key, (uint32_t)roles[i].id);
    if (tokenizer_chat_template(t).n) PUT(gguf_put_str, "tokenizer.chat_template", tokenizer_chat_template(t));
#undef PUT
    OK(outfile_open(&o, scratch("t.gguf"), true, 0, &err), err);
    OK(gguf_write_header(w, &o, &err) && outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    for (size_t i = 0; i < tokenizer_n_merges(t); i++) mem_free(texts[i].s);
    free(texts);
    free(types);
    free(holes);
    free(merges);
    free(tokens);
    return scratch("t.gguf");
}

static bool open_gguf(struct tokenizer **t, const char *path, struct unmask_err *err)
{
    struct checkpoint *c;
    OK(checkpoint_open(&c, path, err), *err);
    const bool ok = tokenizer_open(t, c, err);
    checkpoint_close(c);
    return ok;
}

static void a_gguf_file_holds_the_same_tokenizer(void **state)
{
    static const char *const folders[] = { LLADA, DATA "dream-7to1", DATA "llada2-tiny" };
    static const char *const goldens[] = { DATA "llada-gqa.json", DATA "dream-7to1.json", DATA "llada2-tiny.json" };
    (void)state;
    struct unmask_err err;
    for (size_t i = 0; i < ARRAY_LEN(folders); i++) {
        struct tokenizer *a = open_folder(folders[i]), *b;
        OK(open_gguf(&b, gguf_of(a, NULL, tokenizer_pre(a)), &err), err);
        expect_golden(b, goldens[i]);
        assert_int_equal(tokenizer_size(a), tokenizer_size(b));
        assert_int_equal(tokenizer_n_merges(a), tokenizer_n_merges(b));
        const struct token_ids x = tokenizer_ids(a), y = tokenizer_ids(b);
        assert_memory_equal(&x, &y, sizeof x);
        for (int id = 0; id < tokenizer_size(a); id++) {
            enum token_type p, q;
            const struct str s = tokenizer_token(a, id, &p), r = tokenizer_token(b, id, &q);
            assert_int_equal(p, q);
            assert_int_equal(s.n, r.n);
            assert_memory_equal(s.s, r.s, s.n);
        }
        assert_int_equal(tokenizer_chat_template(a).n, tokenizer_chat_template(b).n);
        tokenizer_close(a);
        tokenizer_close(b);
    }
}

static void gguf_files_without_a_key_are_refused_by_its_name(void **state)
{
    static const struct { const char *key, *pre, *id, *part; } rows[] = {
        { "tokenizer.ggml.model", "qwen2", "E-TOK-001", "tokenizer.ggml.model" },
        { "tokenizer.ggml.tokens", "qwen2", "E-TOK-001", "tokenizer.ggml.tokens" },
        { "tokenizer.ggml.merges", "qwen2", "E-TOK-001", "tokenizer.ggml.merges" },
        { "tokenizer.ggml.pre", "qwen2", "E-TOK-004", "no such key" },
        { NULL, "deepseek-r1-qwen", "E-TOK-004", "deepseek-r1-qwen" },
    };
    (void)state;
    struct tokenizer *a = open_folder(DATA "dream-7to1"), *b;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct unmask_err err;
        assert_false(open_gguf(&b, gguf_of(a, rows[i].key, rows[i].pre), &err));
        expect_err(&err, rows[i].id, rows[i].part, NULL);
    }
    tokenizer_close(a);
}

/* What published files leave out: a llama-bpe vocabulary ignores merges, a qwen2 one normalizes, roles are control tokens. */
static void absent_gguf_keys_mean_what_published_files_take_for_granted(void **state)
{
    (void)state;
    struct unmask_err err;
    struct tokenizer *a = open_folder(DATA "dream-7to1"), *b;
    OK(open_gguf(&b, gguf_of(a, TOKENIZER_KEY_IGNORE_MERGES, "llama-bpe"), &err), err);
    assert_true(tokenizer_ignores_merges(b));
    tokenizer_close(b);
    OK(open_gguf(&b, gguf_of(a, TOKENIZER_KEY_NFC, "qwen2"), &err), err);
    assert_true(tokenizer_normalizes(b));
    tokenizer_close(b);
    OK(open_gguf(&b, gguf_of(a, "tokenizer.ggml.token_type", "bailingmoe"), &err), err);
    enum token_type type;
    tokenizer_token(b, tokenizer_ids(b).mask, &type);
    assert_int_equal(type, TOKEN_CONTROL);
    tokenizer_close(b);
    tokenizer_close(a);
}

struct bad_gguf { const char *tokens[3]; int32_t types[3]; size_t n_types; const char *merge, *model, *id, *part; };

static void gguf_arrays_must_hold_together(void **state)
{
    static const struct bad_gguf rows[] = {
        { { "a", "b", "ab" }, { 1, 1, 1 }, 2, "a b", "gpt2", "E-TOK-002", "2 items" },
        { { "a", "b", "ab" }, { 1, 1, 9 }, 3, "a b", "gpt2", "E-TOK-002", "9 for id 2" },
        { { "a", "b", "ab" }, { 1, 1, 1 }, 3, "ab", "gpt2", "E-TOK-008", "merges[0]" },
        { { "a", "b", "ab" }, { 1, 1, 1 }, 3, "a b", "llama", "E-TOK-003", "llama" },
        { { "a", "a", "ab" }, { 1, 1, 1 }, 3, "a b", "gpt2", "E-TOK-006", "has ids 0 and 1" },
        { { "a", "", "ab" }, { 1, 1, 1 }, 3, "a b", "gpt2", "E-TOK-007", "id 1" },
        { { "a", "<0x-1>", "ab" }, { 1, 6, 1 }, 3, "a b", "gpt2", "E-TOK-007", "<0x-1>" },
        { { "a", "<0xZZ>", "ab" }, { 1, 6, 1 }, 3, "a b", "gpt2", "E-TOK-007", "<0xZZ>" },
        { { "a", "<0x1>", "ab" }, { 1, 6, 1 }, 3, "a b", "gpt2", "E-TOK-007", "<0x1>" },
        { { "a", "<0x100>", "ab" }, { 1, 6, 1 }, 3, "a b", "gpt2", "E-TOK-007", "<0x100>" },
    };
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct unmask_err err;
        struct gguf_writer *w;
        struct outfile o;
        struct tokenizer *t;
        struct str tokens[3], merge = str_of(rows[i].merge);
        for (int k = 0; k < 3; k++) tokens[k] = str_of(rows[i].tokens[k]);
        OK(gguf_writer_new(&w, &err), err);
        OK(gguf_put_str(w, "tokenizer.ggml.model", str_of(rows[i].model), &err)
           && gguf_put_str(w, "tokenizer.ggml.pre", str_of("qwen2"), &err)
           && gguf_put_strs(w, "tokenizer.ggml.tokens", tokens, 3, &err)
           && gguf_put_i32s(w, "tokenizer.ggml.token_type", rows[i].types, rows[i].n_types, &err)
           && gguf_put_strs(w, "tokenizer.ggml.merges", &merge, 1, &err), err);
        OK(outfile_open(&o, scratch("bad.gguf"), true, 0, &err), err);
        OK(gguf_write_header(w, &o, &err) && outfile_commit(&o, &err), err);
        gguf_writer_free(w);
        if (open_gguf(&t, scratch("bad.gguf"), &err)) fail_msg("row %zu: opened", i);
        expect_err(&err, rows[i].id, rows[i].part, "bad.gguf", NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_have_two_forms_and_ids_may_have_gaps),
        cmocka_unit_test(whole_pieces_ignore_merges_when_the_file_says_so),
        cmocka_unit_test(byte_level_alone_cuts_as_gpt2_does),
        cmocka_unit_test(mongolian_vowel_separator_is_not_white_space),
        cmocka_unit_test(fields_of_another_type_are_named),
        cmocka_unit_test(other_kinds_of_tokenizer_are_refused),
        cmocka_unit_test(a_vocabulary_must_hold_together),
        cmocka_unit_test(long_added_tokens_are_refused),
        cmocka_unit_test(too_many_merges_are_refused),
        cmocka_unit_test(a_folder_without_tokenizer_is_an_error),
        cmocka_unit_test(text_that_the_vocabulary_cannot_spell_is_an_error),
        cmocka_unit_test(config_names_special_tokens_and_template),
        cmocka_unit_test(pieces_are_never_joined_to_a_special_token),
        cmocka_unit_test(odd_spellings_mean_the_same),
        cmocka_unit_test(broken_json_is_refused_wherever_it_breaks),
        cmocka_unit_test(random_edits_never_crash),
        cmocka_unit_test(a_gguf_file_holds_the_same_tokenizer),
        cmocka_unit_test(gguf_files_without_a_key_are_refused_by_its_name),
        cmocka_unit_test(absent_gguf_keys_mean_what_published_files_take_for_granted),
        cmocka_unit_test(gguf_arrays_must_hold_together),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
