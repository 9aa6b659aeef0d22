/* tokenizer_config.c - the small files beside tokenizer.json: tokenizer_config.json, special_tokens_map.json and
 * chat_template.jinja name special tokens and the template; config.json knows ids and the rows of the embedding. */
#include "tokenizer_parts.h"

#include <errno.h>
#include <sys/stat.h>

#include "file.h"

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 || errno != ENOENT;
}

/* special_token: "text", {"content": "text"} or null; fills *id unless it is known already. */
static bool named(struct tokenizer *t, const char *file, const json_t *root, const char *key, int32_t *id, struct unmask_err *err)
{
    const json_t *v = json_object_get(root, key), *text = json_is_object(v) ? json_object_get(v, "content") : v;
    if (!v || json_is_null(v)) return true;
    if (!json_is_string(text)) return tokenizer_wrong_field(file, FMT("$.%s", key), text, "the text of a token", err);
    const int32_t found = vocab_find(&t->vocab, json_string_value(text), json_string_length(text));
    if (found < 0)
        return fail(err, E_TOK_SPECIAL, .file = file, .field = FMT("$.%s", key),
                    .found = FMT("\"%s\"", QUOTE(json_string_value(text), json_string_length(text))),
                    .need = "a token of the vocabulary");
    if (*id < 0) *id = found;
    return true;
}

static bool named_all(struct tokenizer *t, const char *file, const json_t *root, struct unmask_err *err)
{
    struct token_ids *ids = &t->ids;
    if (!json_is_object(root)) return tokenizer_wrong_field(file, "$", root, "an object", err);
    return named(t, file, root, "bos_token", &ids->bos, err) && named(t, file, root, "eos_token", &ids->eos, err)
        && named(t, file, root, "eot_token", &ids->eot, err) && named(t, file, root, "pad_token", &ids->pad, err)
        && named(t, file, root, "mask_token", &ids->mask, err);
}

static bool set_template(struct tokenizer *t, const char *s, size_t n, struct unmask_err *err)
{
    if (!(t->chat_template = mem_strndup(s, n, err))) return false;
    t->n_chat_template = n;
    return true;
}

/* "chat_template": text, or a list of named ones of which "default" counts. */
static bool load_template(struct tokenizer *t, const char *file, const json_t *root, struct unmask_err *err)
{
    const json_t *v = json_object_get(root, "chat_template");
    for (size_t i = 0; json_is_array(v) && i < json_array_size(v); i++) {
        const json_t *one = json_array_get(v, i), *name = json_object_get(one, "name");
        if (json_is_string(name) && !strcmp(json_string_value(name), "default")) v = json_object_get(one, "template");
    }
    if (!v || json_is_null(v) || json_is_array(v)) return true;
    if (!json_is_string(v)) return tokenizer_wrong_field(file, "$.chat_template", v, "a string", err);
    return set_template(t, json_string_value(v), json_string_length(v), err);
}

/* "added_tokens_decoder": { "480": { "content": ..., "special": true }, ... } may list tokens that tokenizer.json
 * lacks, or has among the ordinary ones. */
static bool load_decoder(struct tokenizer *t, const char *file, json_t *decoder, struct unmask_err *err)
{
    const char *key;
    json_t *a;
    json_object_foreach(decoder, key, a) {
        struct err_text where;
        err_fmt(&where, "$.added_tokens_decoder[\"%s\"]", QUOTE(key, strlen(key)));
        int64_t id = 0;
        size_t digits = 0;
        for (; key[digits] >= '0' && key[digits] <= '9' && digits < 10; digits++) id = id * 10 + (key[digits] - '0');
        if (digits == 0 || key[digits])
            return fail(err, E_TOK_FIELD, .file = file, .field = where.s, .found = "this key", .need = "an id");
        if (!tokenizer_add_token(t, id, a, file, where.s, err)) return false;
    }
    return true;
}

static bool load_tokenizer_config(struct tokenizer *t, const char *file, json_t *root, struct unmask_err *err)
{
    if (!json_is_object(root)) return tokenizer_wrong_field(file, "$", root, "an object", err);
    return load_decoder(t, file, json_object_get(root, "added_tokens_decoder"), err) && named_all(t, file, root, err)
        && load_template(t, file, root, err);
}

static bool load_special_map(struct tokenizer *t, const char *file, json_t *root, struct unmask_err *err)
{
    return named_all(t, file, root, err);
}

/* Ids of the model's own config.json, where the tokenizer's files do not say; eos_token_id may be a list.  Rows of the
 * embedding beyond the last token are ids without a text. */
static bool load_model_config(struct tokenizer *t, const char *file, json_t *root, struct unmask_err *err)
{
    const struct { const char *key; int32_t *id; } rows[] = {
        { "bos_token_id", &t->ids.bos }, { "eos_token_id", &t->ids.eos }, { "pad_token_id", &t->ids.pad },
        { "mask_token_id", &t->ids.mask } };
    if (!json_is_object(root)) return tokenizer_wrong_field(file, "$", root, "an object", err);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const json_t *v = json_object_get(root, rows[i].key);
        if (json_is_array(v)) v = json_array_get(v, 0);
        if (*rows[i].id >= 0 || !v || json_is_null(v)) continue;
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) >= VOCAB_IDS)
            return tokenizer_wrong_field(file, FMT("$.%s", rows[i].key), v, "a token id", err);
        *rows[i].id = (int32_t)json_integer_value(v);
    }
    const json_t *n = json_object_get(root, "embedding_size");
    if (!json_is_integer(n)) n = json_object_get(root, "vocab_size");
    const json_int_t n_rows = json_integer_value(n);
    return n_rows <= t->vocab.size || n_rows > VOCAB_IDS || vocab_grow(&t->vocab, (int)n_rows, err);
}

static bool with_file(struct tokenizer *t, const char *folder, const char *name, struct unmask_err *err,
                      bool (*load)(struct tokenizer *, const char *, json_t *, struct unmask_err *))
{
    char *file = file_path(folder, name, err);
    if (!file) return false;
    bool ok = true;
    if (exists(file)) {
        json_t *root = json_read(file, err);
        ok = root && load(t, file, root, err);
        json_decref(root);
    }
    mem_free(file);
    return ok;
}

/* Newer folders hold the template as a file of its own, which then counts. */
static bool load_jinja(struct tokenizer *t, const char *folder, struct unmask_err *err)
{
    char *file = file_path(folder, "chat_template.jinja", err), *text = NULL;
    size_t n;
    bool ok = file != NULL;
    if (ok && exists(file) && (ok = file_slurp(file, JSON_BYTES, &text, &n, err))) {
        mem_free(t->chat_template);
        ok = set_template(t, text, n, err);
    }
    mem_free(text);
    mem_free(file);
    return ok;
}

bool tokenizer_load_config(struct tokenizer *t, const char *folder, struct unmask_err *err)
{
    return with_file(t, folder, "tokenizer_config.json", err, load_tokenizer_config)
        && with_file(t, folder, "special_tokens_map.json", err, load_special_map) && load_jinja(t, folder, err)
        && with_file(t, folder, "config.json", err, load_model_config);
}
