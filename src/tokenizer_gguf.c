/* tokenizer_gguf.c - the tokenizer in a GGUF file's metadata: tokenizer.ggml.* as llama.cpp's converter writes them. */
#include "tokenizer_parts.h"

/* A required array; file order is id order, or rank order. */
static const struct meta *array(const struct checkpoint *c, const char *key, enum meta_type item, const char *need,
                                struct unmask_err *err)
{
    const struct meta *m = checkpoint_meta(c, key);
    if (!m) fail(err, E_TOK_NONE, .file = c->path, .field = key, .found = "no such key", .need = need);
    else if (m->type != META_ARRAY || m->item_type != item)
        fail(err, E_TOK_FIELD, .file = c->path, .field = key, .byte = AT(m->offset), .found = "another type", .need = need);
    else return m;
    return NULL;
}

static int hex_digit(char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f'); }

/* "<0xHH>", with exactly two digits. */
static bool is_byte_token(struct str s)
{
    return s.n == 6 && !memcmp(s.s, "<0x", 3) && hex_digit(s.s[3]) && hex_digit(s.s[4]) && s.s[5] == '>';
}

/* The converter fills ids without a token as "[PAD480]". */
static bool is_hole(struct str s, int type)
{
    return type == TOKEN_UNUSED && (s.n == 0 || (s.n > 5 && !memcmp(s.s, "[PAD", 4) && s.s[s.n - 1] == ']'));
}

static bool load_tokens(struct tokenizer *t, const struct checkpoint *c, struct unmask_err *err)
{
    static const char key[] = "tokenizer.ggml.tokens", types_key[] = "tokenizer.ggml.token_type";
    const struct meta *tokens = array(c, key, META_STRING, "an array of texts", err), *types = checkpoint_meta(c, types_key);
    if (!tokens || (types && !(types = array(c, types_key, META_I32, "an array of 32-bit integers", err)))) return false;
    if (types && types->n_items != tokens->n_items)
        return fail(err, E_TOK_FIELD, .file = c->path, .field = types_key, .byte = AT(types->offset),
                    .found = FMT("%llu items", (unsigned long long)types->n_items),
                    .need = FMT("one for each of %llu tokens", (unsigned long long)tokens->n_items));
    if (tokens->n_items > VOCAB_IDS)
        return fail(err, E_TOK_MANY, .file = c->path, .field = key,
                    .found = FMT("%llu tokens", (unsigned long long)tokens->n_items), .need = FMT("at most %d", VOCAB_IDS));
    if (!vocab_init(&t->vocab, (size_t)tokens->n_items, err) || !vocab_grow(&t->vocab, (int)tokens->n_items, err)) return false;
    struct cursor type_at = types ? cursor_over(types->items.s, types->items.n) : (struct cursor){ 0 };
    struct str text;
    uint64_t at = 0;
    for (int64_t id = 0; meta_next_string(tokens, &at, &text); id++) {
        uint32_t type = TOKEN_NORMAL;
        if (types && !cursor_u32(&type_at, &type)) return fail(err, E_INTERNAL, .field = types_key);
        if (type < TOKEN_NORMAL || type > TOKEN_BYTE)
            return fail(err, E_TOK_FIELD, .file = c->path, .field = types_key, .byte = AT(types->offset),
                        .found = FMT("%u for id %lld", type, (long long)id), .need = "1 to 6");
        if (is_hole(text, (int)type)) continue;
        if (type == TOKEN_BYTE && !is_byte_token(text))
            return fail(err, E_TOK_TEXT, .file = c->path, .field = key,
                        .found = FMT("\"%s\" for byte token %lld", QUOTE(text.s, text.n), (long long)id), .need = "<0x00> to <0xFF>");
        if (!vocab_add(&t->vocab, id, text, (int)type, c->path, key, err)) return false;
    }
    return true;
}

static bool load_merges(struct tokenizer *t, const struct checkpoint *c, struct unmask_err *err)
{
    static const char key[] = "tokenizer.ggml.merges";
    const struct meta *merges = array(c, key, META_STRING, "an array of \"a b\"", err);
    if (!merges) return false;
    if (merges->n_items > BPE_PAIRS)
        return fail(err, E_TOK_MANY, .file = c->path, .field = key,
                    .found = FMT("%llu merges", (unsigned long long)merges->n_items), .need = FMT("at most %d", BPE_PAIRS));
    if (!bpe_init(&t->bpe, (size_t)merges->n_items, err)) return false;
    struct str text, left, right;
    uint64_t at = 0;
    for (size_t i = 0; meta_next_string(merges, &at, &text); i++) {
        struct err_text where;
        err_fmt(&where, "%s[%zu]", key, i);
        if (!merge_parts(text, &left, &right))
            return fail(err, E_TOK_MERGE, .file = c->path, .field = where.s, .found = FMT("\"%s\"", QUOTE(text.s, text.n)),
                        .need = "\"a b\"");
        if (!tokenizer_add_merge(t, left, right, c->path, where.s, err)) return false;
    }
    return true;
}

static bool load_settings(struct tokenizer *t, const struct checkpoint *c, struct unmask_err *err)
{
    struct str model = { 0 }, pre = { 0 }, template = { 0 };
    if (!checkpoint_meta(c, "tokenizer.ggml.model"))
        return fail(err, E_TOK_NONE, .file = c->path, .field = "tokenizer.ggml.model", .found = "no such key",
                    .hint = "Convert the model again with its tokenizer");
    if (!meta_str(c, "tokenizer.ggml.model", true, &model, err)) return false;
    if (model.n != 4 || memcmp(model.s, "gpt2", 4) != 0)
        return fail(err, E_TOK_KIND, .file = c->path, .field = "tokenizer.ggml.model",
                    .found = FMT("\"%s\"", QUOTE(model.s, model.n)), .need = "\"gpt2\" (byte-level BPE)");
    if (!meta_str(c, "tokenizer.ggml.pre", false, &pre, err)) return false;
    if (!(t->pre = pretokenizer_by_name(pre)))
        return fail(err, E_TOK_PATTERN, .file = c->path, .field = "tokenizer.ggml.pre",
                    .found = pre.s ? FMT("\"%s\"", QUOTE(pre.s, pre.n)) : "no such key",
                    .need = FMT("one of %s", PRETOKENIZERS));
    t->ignore_merges = t->pre->ignore_merges;
    t->nfc = t->pre->nfc;
    if (!meta_bool(c, TOKENIZER_KEY_IGNORE_MERGES, false, &t->ignore_merges, err)
        || !meta_bool(c, TOKENIZER_KEY_NFC, false, &t->nfc, err)
        || !meta_str(c, "tokenizer.chat_template", false, &template, err)) return false;
    if (!template.s) return true;
    t->n_chat_template = template.n;
    return (t->chat_template = mem_strndup(template.s, template.n, err)) != NULL;
}

/* Without token types, the tokens with a role are the only control tokens that we know of. */
static bool load_id(struct tokenizer *t, const struct checkpoint *c, const char *key, int32_t *id, struct unmask_err *err)
{
    int64_t v = -1;
    if (!meta_int(c, key, 0, t->vocab.size - 1, false, &v, err)) return false;
    *id = (int32_t)v;
    if (v >= 0 && t->vocab.tokens[v].type == TOKEN_NORMAL && !checkpoint_meta(c, "tokenizer.ggml.token_type"))
        t->vocab.tokens[v].type = TOKEN_CONTROL;
    return true;
}

bool tokenizer_load_gguf(struct tokenizer *t, const struct checkpoint *c, struct unmask_err *err)
{
    return load_settings(t, c, err) && load_tokens(t, c, err) && load_merges(t, c, err)
        && load_id(t, c, "tokenizer.ggml.bos_token_id", &t->ids.bos, err)
        && load_id(t, c, "tokenizer.ggml.eos_token_id", &t->ids.eos, err)
        && load_id(t, c, "tokenizer.ggml.eot_token_id", &t->ids.eot, err)
        && load_id(t, c, "tokenizer.ggml.padding_token_id", &t->ids.pad, err)
        && load_id(t, c, "tokenizer.ggml.mask_token_id", &t->ids.mask, err);
}
