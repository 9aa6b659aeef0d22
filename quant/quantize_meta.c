/* quantize_meta.c - the metadata of the output: copied from a GGUF file, made from a folder's configuration and tokenizer
 * with the keys that llama.cpp's converter writes. */
#include "quantize_parts.h"

#include <stdio.h>
#include <string.h>

#include "chat.h"
#include "mem.h"
#include "utf8.h"

static struct str str_of(const char *s) { return (struct str){ s, strlen(s) }; }

/* ---- general.*: what the caller sets, and what follows from the format ---------------------------- */

static const char file_type_key[] = "general.file_type", version_key[] = "general.quantization_version";
enum { QUANTIZATION_VERSION = 2 };              /* of ggml's block layouts */

static bool key_is(struct str key, const char *name) { return key.n == strlen(name) && !memcmp(key.s, name, key.n); }

/* "KEY=TEXT" in two; keys that say what the file is made of are not the caller's to choose. */
static bool split_setting(const char *setting, struct str *key, struct str *value, struct unmask_err *err)
{
    static const char *const ours[] = { "general.architecture", file_type_key, version_key, "general.alignment" };
    const char *eq = strchr(setting, '=');
    *key = (struct str){ setting, eq ? (size_t)(eq - setting) : strlen(setting) };
    *value = str_of(eq ? eq + 1 : "");
    bool ok = eq && key->n > 8 && !memcmp(key->s, "general.", 8) && utf8_valid(setting, strlen(setting)) == strlen(setting);
    for (size_t i = 8; ok && i < key->n; i++) ok = strchr("abcdefghijklmnopqrstuvwxyz0123456789_.", key->s[i]) != NULL;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) ok = ok && !key_is(*key, ours[i]);
    return ok || fail(err, E_QNT_SET, .found = QUOTE(setting, strlen(setting)), .need = "general.KEY=TEXT, such as general.license=apache-2.0",
                      .hint = "The keys that say how the file is made are written by the program");
}

/* The text that the caller gives for a key (the last one counts); false: none. */
static bool setting_of(const struct quantize_options *o, struct str key, struct str *value)
{
    bool found = false;
    for (size_t i = 0; i < o->n_set; i++) {
        struct str k, v;
        if (!split_setting(o->set[i], &k, &v, NULL) || k.n != key.n || memcmp(k.s, key.s, k.n) != 0) continue;
        *value = v;
        found = true;
    }
    return found;
}

/* Settings for keys that the input does not have; each key once, in the order given. */
static bool put_new_settings(struct quantize_job *j, struct unmask_err *err)
{
    const struct quantize_options *o = j->o;
    for (size_t i = 0; i < o->n_set; i++) {
        struct str key, value, other;
        char name[128];
        if (!split_setting(o->set[i], &key, &value, err)) return false;
        snprintf(name, sizeof name, "%.*s", (int)key.n, key.s);
        if (key.n >= sizeof name) return fail(err, E_QNT_SET, .found = FMT("a key of %zu bytes", key.n), .need = FMT("at most %zu", sizeof name - 1));
        bool again = j->in->kind == CHECKPOINT_GGUF && checkpoint_meta(j->in, name);
        for (size_t k = 0; k < i && !again; k++) again = split_setting(o->set[k], &other, &value, NULL) && key_is(other, name);
        if (again) continue;
        setting_of(o, key, &value);
        if (!gguf_put_str(j->shards[0].writer, name, value, err)) return false;
    }
    return true;
}

/* ---- from a GGUF file ------------------------------------------------------------------------------ */

static bool is_split_key(struct str key) { return key_is(key, "split.no") || key_is(key, "split.count") || key_is(key, "split.tensors.count"); }

static bool copy_metas(struct quantize_job *j, struct unmask_err *err)
{
    bool typed = false, versioned = false;
    for (size_t i = 0; i < j->in->n_metas; i++) {
        const struct meta *m = &j->in->metas[i];
        struct str value;
        bool ok;
        if (checksum_key(m->key.s, m->key.n) || is_split_key(m->key)) continue;        /* of other bytes, of other files */
        if (key_is(m->key, file_type_key)) typed = ok = gguf_put_u32(j->shards[0].writer, file_type_key, j->o->format->gguf_file_type, err);
        else if (key_is(m->key, version_key)) versioned = ok = gguf_put_u32(j->shards[0].writer, version_key, QUANTIZATION_VERSION, err);
        else if (setting_of(j->o, m->key, &value)) ok = gguf_put_str(j->shards[0].writer, FMT("%.*s", (int)m->key.n, m->key.s), value, err);
        else ok = gguf_put_meta(j->shards[0].writer, m, err);
        if (!ok) return false;
    }
    return put_new_settings(j, err) && (typed || gguf_put_u32(j->shards[0].writer, file_type_key, j->o->format->gguf_file_type, err))
        && (versioned || gguf_put_u32(j->shards[0].writer, version_key, QUANTIZATION_VERSION, err));
}

/* ---- from a folder ----------------------------------------------------------------------------------- */

/* The last part of the input's path, or nothing. */
static struct str folder_name(const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    size_t at = n;
    while (at > 0 && path[at - 1] != '/') at--;
    const struct str name = { path + at, n - at };
    return name.s[0] == '.' || utf8_valid(name.s, name.n) != name.n ? (struct str){ "", 0 } : name;
}

static bool put_general(struct quantize_job *j, const char *in, struct unmask_err *err)
{
    struct str name = folder_name(in), set;
    const bool named = setting_of(j->o, str_of("general.name"), &set);
    return gguf_put_str(j->shards[0].writer, "general.architecture", str_of(j->arch->name), err)
        && (named || name.n == 0 || gguf_put_str(j->shards[0].writer, "general.name", name, err)) && put_new_settings(j, err)
        && gguf_put_u32(j->shards[0].writer, file_type_key, j->o->format->gguf_file_type, err)
        && gguf_put_u32(j->shards[0].writer, version_key, QUANTIZATION_VERSION, err);
}

static bool put_hparams(struct quantize_job *j, struct unmask_err *err)
{
    const struct hparams *h = &j->h;
    const struct { const char *name; int v; } numbers[] = {
        { "vocab_size", h->n_vocab }, { "context_length", h->n_ctx }, { "embedding_length", h->n_embd }, { "block_count", h->n_layer },
        { "feed_forward_length", h->n_ff }, { "rope.dimension_count", h->head_dim }, { "attention.head_count", h->n_head },
        { "attention.head_count_kv", h->n_head_kv },
    };
    const char *a = j->arch->name;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (!gguf_put_u32(j->shards[0].writer, FMT("%s.%s", a, numbers[i].name), (uint32_t)numbers[i].v, err)) return false;
    return gguf_put_f32(j->shards[0].writer, FMT("%s.attention.layer_norm_rms_epsilon", a), h->norm_eps, err)
        && gguf_put_f32(j->shards[0].writer, FMT("%s.rope.freq_base", a), h->rope_theta, err)
        && gguf_put_bool(j->shards[0].writer, FMT("%s.attention.causal", a), false, err)
        && gguf_put_bool(j->shards[0].writer, "diffusion.shift_logits", j->arch->shift_logits, err);      /* llama.cpp takes an absent key for true */
}

/* One token for every row of the embedding; rows without a token become "[PAD480]". */
static bool put_tokens(struct quantize_job *j, const struct tokenizer *t, struct unmask_err *err)
{
    enum { HOLE_BYTES = 24 };
    const int n = j->h.n_vocab;
    struct str *texts = mem_zalloc((size_t)n, sizeof *texts, err);
    int32_t *types = mem_zalloc((size_t)n, sizeof *types, err);
    char (*holes)[HOLE_BYTES] = mem_zalloc((size_t)n, HOLE_BYTES, err);
    const bool ok = texts && types && holes;
    for (int id = 0; ok && id < n; id++) {
        enum token_type type = TOKEN_UNUSED;
        texts[id] = id < tokenizer_size(t) ? tokenizer_token(t, id, &type) : (struct str){ "", 0 };
        types[id] = type;
        if (texts[id].n == 0) texts[id] = (struct str){ holes[id], (size_t)snprintf(holes[id], HOLE_BYTES, "[PAD%d]", id) };
    }
    const bool put = ok && gguf_put_strs(j->shards[0].writer, "tokenizer.ggml.tokens", texts, (size_t)n, err)
                     && gguf_put_i32s(j->shards[0].writer, "tokenizer.ggml.token_type", types, (size_t)n, err);
    mem_free(texts);
    mem_free(types);
    mem_free(holes);
    return put;
}

static bool put_merges(struct quantize_job *j, const struct tokenizer *t, struct unmask_err *err)
{
    const size_t n = tokenizer_n_merges(t);
    struct text_out all = { 0 };
    struct str *merges = mem_zalloc(n, sizeof *merges, err);
    size_t *ends = mem_zalloc(n, sizeof *ends, err);
    bool ok = merges && ends;
    for (size_t i = 0; ok && i < n; i++) {
        ok = tokenizer_merge(t, i, &all, err);
        ends[i] = all.n;
    }
    for (size_t i = 0; ok && i < n; i++) {      /* only now: all.s moves while it grows */
        const size_t start = i ? ends[i - 1] : 0;
        merges[i] = (struct str){ all.s + start, ends[i] - start };
    }
    ok = ok && gguf_put_strs(j->shards[0].writer, "tokenizer.ggml.merges", merges, n, err);
    mem_free(merges);
    mem_free(ends);
    mem_free(all.s);
    return ok;
}

/* Ids of the configuration come first, then those of the tokenizer's files, then the end of turn that its template writes. */
static bool put_token_ids(struct quantize_job *j, const struct tokenizer *t, struct unmask_err *err)
{
    struct hparams *h = &j->h;
    const struct token_ids ids = tokenizer_ids(t);
    const struct chat_template *chat = chat_template_of(t, NULL);
    if (h->mask_id < 0) h->mask_id = ids.mask;
    if (h->eos_id < 0) h->eos_id = ids.eos;
    if (h->bos_id < 0) h->bos_id = ids.bos;
    if (h->eot_id < 0) h->eot_id = ids.eot;
    if (h->eot_id < 0 && chat) h->eot_id = chat_end_of_turn(chat, t);
    if (h->mask_id < 0) return fail(err, E_MASK_MISSING, .file = j->in->path, .field = "mask_token_id");
    const struct { const char *key; int32_t id; } rows[] = {
        { "tokenizer.ggml.bos_token_id", h->bos_id }, { "tokenizer.ggml.eos_token_id", h->eos_id }, { "tokenizer.ggml.eot_token_id", h->eot_id },
        { "tokenizer.ggml.padding_token_id", ids.pad }, { "tokenizer.ggml.mask_token_id", h->mask_id },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].id >= h->n_vocab)
            return fail(err, E_TOKEN_ID, .file = j->in->path, .field = rows[i].key, .found = FMT("%d", rows[i].id), .need = FMT("less than %d, the rows of the embedding", h->n_vocab));
        if (rows[i].id >= 0 && !gguf_put_u32(j->shards[0].writer, rows[i].key, (uint32_t)rows[i].id, err)) return false;
    }
    return gguf_put_bool(j->shards[0].writer, "tokenizer.ggml.add_bos_token", h->bos_id >= 0, err);
}

static bool put_tokenizer(struct quantize_job *j, const struct tokenizer *t, struct unmask_err *err)
{
    const struct str template = tokenizer_chat_template(t);
    if (tokenizer_size(t) > j->h.n_vocab)
        return fail(err, E_TOKEN_ID, .file = j->in->path, .field = "tokenizer", .found = FMT("%d tokens", tokenizer_size(t)),
                    .need = FMT("at most %d, the rows of the embedding", j->h.n_vocab));
    return gguf_put_str(j->shards[0].writer, "tokenizer.ggml.model", str_of("gpt2"), err)
        && gguf_put_str(j->shards[0].writer, "tokenizer.ggml.pre", str_of(tokenizer_pre(t)), err)
        && gguf_put_bool(j->shards[0].writer, TOKENIZER_KEY_IGNORE_MERGES, tokenizer_ignores_merges(t), err)
        && gguf_put_bool(j->shards[0].writer, TOKENIZER_KEY_NFC, tokenizer_normalizes(t), err)
        && put_tokens(j, t, err) && put_merges(j, t, err) && put_token_ids(j, t, err)
        && (template.n == 0 || gguf_put_str(j->shards[0].writer, "tokenizer.chat_template", template, err));
}

static bool describe_folder(struct quantize_job *j, const char *in, struct unmask_err *err)
{
    struct tokenizer *t = NULL;
    const bool ok = put_general(j, in, err) && put_hparams(j, err) && tokenizer_open(&t, j->in, err) && put_tokenizer(j, t, err);
    tokenizer_close(t);
    return ok;
}

bool quantize_describe(struct quantize_job *j, const char *in, struct unmask_err *err)
{
    return (j->in->kind == CHECKPOINT_GGUF ? copy_metas(j, err) : describe_folder(j, in, err)) && quantize_shards_describe(j, err);
}
