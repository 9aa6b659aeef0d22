/* tokenizer_json.c - tokenizer.json of a Hugging Face folder: byte-level BPE only; whatever would change ids and is
 * not understood is refused.  The parse tree is freed before the loader returns. */
#include "tokenizer_parts.h"

#include <errno.h>
#include <sys/stat.h>

#include "file.h"

bool tokenizer_wrong_field(const char *file, const char *path, const json_t *found, const char *need, struct unmask_err *err)
{
    static const char *const kinds[] = { "an object", "an array", "a string", "an integer", "a real number",
                                         "true", "false", "null" };
    return fail(err, E_TOK_FIELD, .file = file, .field = path, .need = need, .found = !found ? "nothing"
        : json_is_string(found) ? FMT("\"%s\"", QUOTE(json_string_value(found), json_string_length(found)))
        : json_is_integer(found) ? FMT("%lld", (long long)json_integer_value(found)) : kinds[json_typeof(found)]);
}

static bool is_null(const json_t *v) { return !v || json_is_null(v); }
static bool is(const json_t *v, const char *text) { return json_is_string(v) && !strcmp(json_string_value(v), text); }
static struct str string_of(const json_t *v) { return (struct str){ json_string_value(v), json_string_length(v) }; }

/* An optional flag that must have the value `want`, because another would change ids. */
static bool need_flag(const char *file, const json_t *o, const char *key, const char *path, bool absent, bool want,
                      struct unmask_err *err)
{
    const json_t *v = json_object_get(o, key);
    const bool value = v ? json_is_true(v) : absent;
    if ((v && !json_is_boolean(v)) || value != want)
        return tokenizer_wrong_field(file, FMT("%s.%s", path, key), v, want ? "true" : "false", err);
    return true;
}

static bool unsupported(const char *file, const char *path, const json_t *type, const char *need, struct unmask_err *err)
{
    return fail(err, E_TOK_KIND, .file = file, .field = path, .need = need,
                .found = json_is_string(type) ? FMT("\"%s\"", QUOTE(json_string_value(type), json_string_length(type))) : "no type");
}

/* ---- model: vocabulary and merges ---- */

static bool load_vocab(struct tokenizer *t, const char *file, json_t *vocab, size_t n_added, struct unmask_err *err)
{
    const char *text;
    json_t *id;
    if (!json_is_object(vocab)) return tokenizer_wrong_field(file, "$.model.vocab", vocab, "an object of texts and ids", err);
    if (!vocab_init(&t->vocab, json_object_size(vocab) + n_added, err)) return false;
    json_object_foreach(vocab, text, id) {
        if (!json_is_integer(id))
            return tokenizer_wrong_field(file, FMT("$.model.vocab[\"%s\"]", QUOTE(text, strlen(text))), id, "an integer", err);
        if (!vocab_add(&t->vocab, json_integer_value(id), str_of(text), TOKEN_NORMAL, file, "$.model.vocab", err)) return false;
    }
    return true;
}

static bool load_merges(struct tokenizer *t, const char *file, const json_t *merges, struct unmask_err *err)
{
    if (!json_is_array(merges)) return tokenizer_wrong_field(file, "$.model.merges", merges, "an array", err);
    const size_t n = json_array_size(merges);
    if (n > BPE_PAIRS)
        return fail(err, E_TOK_MANY, .file = file, .field = "$.model.merges", .found = FMT("%zu merges", n),
                    .need = FMT("at most %d", BPE_PAIRS));
    if (!bpe_init(&t->bpe, n, err)) return false;
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(merges, i);            /* "a b" or ["a","b"] */
        const bool pair = json_array_size(m) == 2 && json_is_string(json_array_get(m, 0)) && json_is_string(json_array_get(m, 1));
        struct str left, right;
        struct err_text where;
        err_fmt(&where, "$.model.merges[%zu]", i);
        if (pair) {
            left = string_of(json_array_get(m, 0));
            right = string_of(json_array_get(m, 1));
        } else if (!json_is_string(m) || !merge_parts(string_of(m), &left, &right)) {
            return fail(err, E_TOK_MERGE, .file = file, .field = where.s, .need = "\"a b\" or [\"a\", \"b\"]",
                        .found = json_is_string(m) ? FMT("\"%s\"", QUOTE(json_string_value(m), json_string_length(m))) : "something else");
        }
        if (!tokenizer_add_merge(t, left, right, file, where.s, err)) return false;
    }
    return true;
}

/* Settings of the model that must be off. */
static bool check_model(const char *file, const json_t *model, struct unmask_err *err)
{
    static const char *const affixes[] = { "continuing_subword_prefix", "end_of_word_suffix" };
    if (!json_is_object(model)) return tokenizer_wrong_field(file, "$.model", model, "an object", err);
    if (!is(json_object_get(model, "type"), "BPE"))
        return unsupported(file, "$.model.type", json_object_get(model, "type"), "\"BPE\" (byte-level)", err);
    for (size_t i = 0; i < 2; i++) {
        const json_t *v = json_object_get(model, affixes[i]);
        if (!is_null(v) && !is(v, "")) return tokenizer_wrong_field(file, FMT("$.model.%s", affixes[i]), v, "null", err);
    }
    const json_t *dropout = json_object_get(model, "dropout");
    if (!is_null(dropout) && !(json_is_number(dropout) && json_number_value(dropout) == 0))
        return tokenizer_wrong_field(file, "$.model.dropout", dropout, "null", err);
    return need_flag(file, model, "byte_fallback", "$.model", false, false, err);
}

static bool load_model(struct tokenizer *t, const char *file, const json_t *model, size_t n_added, struct unmask_err *err)
{
    if (!check_model(file, model, err)) return false;
    const json_t *ignore = json_object_get(model, "ignore_merges");
    if (ignore && !json_is_boolean(ignore))
        return tokenizer_wrong_field(file, "$.model.ignore_merges", ignore, "true or false", err);
    t->ignore_merges = json_is_true(ignore);
    if (t->bpe.pairs) return true;              /* tokenizer_load_flat() has read the rest */
    return load_vocab(t, file, json_object_get(model, "vocab"), n_added, err)
        && load_merges(t, file, json_object_get(model, "merges"), err);
}

/* ---- added tokens ---- */

/* Ordinary added tokens are found in all text, so that a condition on what stands around them would change ids. */
static bool check_conditions(const char *file, const json_t *a, const char *where, struct unmask_err *err)
{
    static const char *const conditions[] = { "single_word", "lstrip", "rstrip" };
    for (size_t i = 0; i < 3; i++)
        if (!need_flag(file, a, conditions[i], where, false, false, err)) return false;
    return true;
}

bool tokenizer_add_token(struct tokenizer *t, int64_t id, const json_t *a, const char *file, const char *where,
                         struct unmask_err *err)
{
    const json_t *content = json_object_get(a, "content"), *special = json_object_get(a, "special");
    if (!json_is_string(content)) return tokenizer_wrong_field(file, FMT("%s.content", where), content, "a string", err);
    if (special && !json_is_boolean(special))
        return tokenizer_wrong_field(file, FMT("%s.special", where), special, "true or false", err);
    const struct str text = string_of(content);
    const bool known = id >= 0 && vocab_find(&t->vocab, text.s, text.n) == id;
    if (known && t->vocab.tokens[id].type != TOKEN_NORMAL) return true;         /* as the file says that lists it first */
    if (!json_is_true(special) && !check_conditions(file, a, where, err)) return false;
    const enum token_type type = json_is_true(special) ? TOKEN_CONTROL : TOKEN_USER;
    if (!known) return vocab_add(&t->vocab, id, text, type, file, where, err);
    t->vocab.tokens[id].type = (uint8_t)type;
    return true;
}

static bool load_added(struct tokenizer *t, const char *file, const json_t *added, struct unmask_err *err)
{
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *a = json_array_get(added, i), *id = json_object_get(a, "id"), *content = json_object_get(a, "content");
        struct err_text where;
        err_fmt(&where, "$.added_tokens[%zu]", i);
        if (!json_is_object(a)) return tokenizer_wrong_field(file, where.s, a, "an object", err);
        if (!json_is_integer(id)) return tokenizer_wrong_field(file, FMT("%s.id", where.s), id, "an integer", err);
        const int32_t known = json_is_string(content) ? vocab_find(&t->vocab, json_string_value(content), json_string_length(content)) : -1;
        if (known >= 0 && known == json_integer_value(id) && t->vocab.tokens[known].type != TOKEN_NORMAL)
            return fail(err, E_TOK_TWICE, .file = file, .field = where.s,
                        .found = FMT("%s again", QUOTE(json_string_value(content), json_string_length(content))));
        if (!tokenizer_add_token(t, json_integer_value(id), a, file, where.s, err)) return false;
    }
    return true;
}

/* ---- normalizer, pre-tokenizer, decoder ---- */

static bool load_normalizer(struct tokenizer *t, const char *file, const json_t *n, struct unmask_err *err)
{
    const json_t *type = json_object_get(n, "type");
    t->nfc = is(type, "NFC");
    return is_null(n) || t->nfc || unsupported(file, "$.normalizer", type, "null or NFC", err);
}

/* {"type":"Split","pattern":{"Regex":...},"behavior":"Isolated"}; keeping the matches and removing the rest, which is
 * empty with these patterns, is the same. */
static bool load_split(struct tokenizer *t, const char *file, const char *path, const json_t *split, struct unmask_err *err)
{
    const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
    const json_t *behavior = json_object_get(split, "behavior");
    if (!json_is_string(regex)) return tokenizer_wrong_field(file, FMT("%s.pattern.Regex", path), regex, "a string", err);
    if (!is(behavior, "Isolated") && !is(behavior, "Removed"))
        return tokenizer_wrong_field(file, FMT("%s.behavior", path), behavior, "\"Isolated\"", err);
    if (!need_flag(file, split, "invert", path, false, is(behavior, "Removed"), err)) return false;
    t->pre = pretokenizer_by_text(string_of(regex));
    return t->pre || fail(err, E_TOK_PATTERN, .file = file, .field = FMT("%s.pattern.Regex", path),
                          .found = QUOTE(json_string_value(regex), json_string_length(regex)),
                          .need = FMT("the pattern of one of %s", PRETOKENIZERS));
}

/* ByteLevel alone cuts with its own pattern; after a Split it only changes the alphabet. */
static bool load_byte_level(struct tokenizer *t, const char *file, const char *path, const json_t *step, struct unmask_err *err)
{
    if (!is(json_object_get(step, "type"), "ByteLevel"))
        return unsupported(file, path, json_object_get(step, "type"), "\"ByteLevel\"", err);
    if (!need_flag(file, step, "add_prefix_space", path, true, false, err)) return false;
    if (t->pre) return need_flag(file, step, "use_regex", path, true, false, err);
    t->pre = pretokenizer_byte_level();
    return need_flag(file, step, "use_regex", path, true, true, err);
}

static bool load_pretokenizer(struct tokenizer *t, const char *file, const json_t *pre, struct unmask_err *err)
{
    if (!is(json_object_get(pre, "type"), "Sequence")) return load_byte_level(t, file, "$.pre_tokenizer", pre, err);
    const json_t *steps = json_object_get(pre, "pretokenizers"), *first = json_array_get(steps, 0);
    const size_t n = json_array_size(steps);
    if (n < 1 || n > 2) return tokenizer_wrong_field(file, "$.pre_tokenizer.pretokenizers", steps, "Split and ByteLevel", err);
    if (n == 2 && !is(json_object_get(first, "type"), "Split"))
        return unsupported(file, "$.pre_tokenizer.pretokenizers[0]", json_object_get(first, "type"), "\"Split\"", err);
    if (n == 2 && !load_split(t, file, "$.pre_tokenizer.pretokenizers[0]", first, err)) return false;
    return load_byte_level(t, file, FMT("$.pre_tokenizer.pretokenizers[%zu]", n - 1), json_array_get(steps, n - 1), err);
}

static bool check_decoder(const char *file, const json_t *decoder, struct unmask_err *err)
{
    const json_t *type = json_object_get(decoder, "type");
    return is_null(decoder) || is(type, "ByteLevel") || unsupported(file, "$.decoder", type, "\"ByteLevel\"", err);
}

static bool load_tree(struct tokenizer *t, const char *file, const json_t *root, struct unmask_err *err)
{
    const json_t *added = json_object_get(root, "added_tokens");
    if (!json_is_object(root)) return tokenizer_wrong_field(file, "$", root, "an object", err);
    if (!is_null(added) && !json_is_array(added)) return tokenizer_wrong_field(file, "$.added_tokens", added, "an array", err);
    return load_normalizer(t, file, json_object_get(root, "normalizer"), err)
        && load_pretokenizer(t, file, json_object_get(root, "pre_tokenizer"), err)
        && check_decoder(file, json_object_get(root, "decoder"), err)
        && load_model(t, file, json_object_get(root, "model"), json_array_size(added), err)
        && load_added(t, file, added, err);
}

static bool load_text(struct tokenizer *t, const char *file, char *text, size_t n, struct unmask_err *err)
{
    char *rest = NULL;
    size_t n_rest;
    json_t *root = NULL;
    if (tokenizer_load_flat(t, (struct str){ text, n }, &rest, &n_rest)
        && !(root = json_parse(rest, n_rest, file, JSON_DEPTH, NULL))) {
        vocab_free(&t->vocab);                  /* its offsets are not the file's: let the whole text be refused */
        bpe_free(&t->bpe);
    }
    mem_free(rest);
    if (!root) root = json_parse(text, n, file, JSON_DEPTH, err);
    const bool ok = root && load_tree(t, file, root, err);
    json_decref(root);
    return ok;
}

bool tokenizer_load_json(struct tokenizer *t, const char *folder, struct unmask_err *err)
{
    struct stat st;
    char *file = file_path(folder, "tokenizer.json", err), *text = NULL;
    size_t n;
    if (!file) return false;
    const bool ok = (stat(file, &st) == 0 || errno != ENOENT || stat(folder, &st) != 0
                     || fail(err, E_TOK_NONE, .file = folder, .found = "no tokenizer.json",
                             .hint = "Copy it from where the model was published; other tokenizer files are not read"))
        && file_slurp(file, JSON_BYTES, &text, &n, err) && load_text(t, file, text, n, err);
    mem_free(text);
    mem_free(file);
    return ok;
}
