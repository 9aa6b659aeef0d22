/* quantize_meta.c - the metadata of the output: copied from a GGUF file, made from a folder's configuration and tokenizer
 * with the keys that llama.cpp's converter writes. */
#include "quantize_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "tokenizer.h"
#include "utf8.h"

/* ---- general.*: what the caller sets, and what follows from the format ---------------------------- */

static const char file_type_key[] = "general.file_type", version_key[] = "general.quantization_version";
static const char base_count_key[] = "general.base_model.count";
enum { QUANTIZATION_VERSION = 2 };              /* of ggml's block layouts */

static bool key_is(struct str key, const char *name) { return key.n == strlen(name) && !memcmp(key.s, name, key.n); }

/* "KEY=TEXT" in two; keys that say what the file is made of are not the caller's to choose, and some hold no text. */
static bool split_setting(const char *setting, struct str *key, struct str *value, struct unmask_err *err)
{
    static const char *const ours[] = { "general.architecture", file_type_key, version_key, "general.alignment", base_count_key,
                                        "general.tags", "general.languages", "general.datasets", "general.dataset.count" };
    const char *eq = strchr(setting, '=');
    *key = (struct str){ setting, eq ? (size_t)(eq - setting) : strlen(setting) };
    *value = str_of(eq ? eq + 1 : "");
    bool ok = eq && key->n > 8 && !memcmp(key->s, "general.", 8) && utf8_valid(setting, strlen(setting)) == strlen(setting);
    for (size_t i = 8; ok && i < key->n; i++) ok = strchr("abcdefghijklmnopqrstuvwxyz0123456789_.", key->s[i]) != NULL;
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) ok = ok && !key_is(*key, ours[i]);
    return ok
        || fail(err, E_QNT_SET, .found = QUOTE(setting, strlen(setting)),
                .need = "general.KEY=TEXT, such as general.license=apache-2.0",
                .hint = "Keys that hold lists or numbers, or say how the file is made, cannot be set");
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
        if (key.n >= sizeof name)
            return fail(err, E_QNT_SET, .found = FMT("a key of %zu bytes", key.n), .need = FMT("at most %zu", sizeof name - 1));
        bool again = j->in->kind == CHECKPOINT_GGUF && checkpoint_meta(j->in, name);
        for (size_t k = 0; k < i && !again; k++) again = split_setting(o->set[k], &other, &value, NULL) && key_is(other, name);
        if (again) continue;
        setting_of(o, key, &value);
        if (!gguf_put_str(j->shards[0].writer, name, value, err)) return false;
    }
    return true;
}

/* general.base_model.N.* count for nothing where their number does not stand beside them: the number that those of the caller need. */
static uint32_t bases_set(const struct quantize_options *o)
{
    enum { MOST_BASES = 1000 };
    static const char prefix[] = "general.base_model.";
    uint32_t n = 0;
    for (size_t i = 0; i < o->n_set; i++) {
        char *end;
        if (strncmp(o->set[i], prefix, sizeof prefix - 1) != 0) continue;
        const unsigned long at = strtoul(o->set[i] + sizeof prefix - 1, &end, 10);
        if (*end == '.' && at < MOST_BASES && at >= n) n = (uint32_t)at + 1;
    }
    return n;
}

/* Does the input count fewer than the caller names? */
static bool more_bases(const struct quantize_job *j)
{
    int64_t counted = UINT32_MAX;
    return meta_int(j->in, base_count_key, 0, UINT32_MAX, false, &counted, NULL) && counted < bases_set(j->o);
}

static bool put_base_count(struct quantize_job *j, struct unmask_err *err)
{
    const uint32_t n = bases_set(j->o);
    return !n || (j->in->kind == CHECKPOINT_GGUF && checkpoint_meta(j->in, base_count_key) && !more_bases(j))
        || gguf_put_u32(j->shards[0].writer, base_count_key, n, err);
}

/* ---- what the quantization did ----------------------------------------------------------------------- */

static const char requantized_key[] = "unmask.requantized";

static const char method_key[] = "unmask.quantize.method", source_key[] = "unmask.calibration.source",
                  tokens_key[] = "unmask.calibration.tokens";

/* Notes on how an input was made, ours and llama.cpp's, which are not true of the output; a copy keeps them. */
static bool is_method_key(const struct quantize_job *j, struct str key)
{
    static const char theirs[] = "quantize.imatrix.";
    bool copied = true;
    for (size_t i = 0; i < j->n_pieces; i++) copied = copied && j->pieces[i].from->format == j->pieces[i].to;
    return !copied && (key_is(key, method_key) || key_is(key, source_key) || key_is(key, tokens_key)
                       || (key.n > sizeof theirs - 1 && !memcmp(key.s, theirs, sizeof theirs - 1)));
}

/* The most thorough method that any matrix is rounded by, and what it went by. */
static bool put_method(struct quantize_job *j, struct unmask_err *err)
{
    const struct quantize_options *o = j->o;
    struct gguf_writer *w = j->shards[0].writer;
    enum quantize_method most = BY_PLAIN;
    for (size_t i = 0; i < j->n_pieces; i++) most = j->pieces[i].method > most ? j->pieces[i].method : most;
    if (most == BY_PLAIN) return true;
    if (!gguf_put_str(w, method_key, str_of(quantize_methods[most]), err)) return false;
    if (most == BY_SEARCH || !quantize_calibrate_source(o)) return true;
    return gguf_put_str(w, source_key, str_of(quantize_calibrate_source(o)), err)
        && (!quantize_calibrates(o) || gguf_put_u32(w, tokens_key, (uint32_t)quantize_calibrate_ids(o), err));
}

/* Of an input that says so already the note stays, whatever is done now. */
static bool put_history(struct quantize_job *j, struct unmask_err *err)
{
    if (!put_method(j, err)) return false;
    if (j->report->n_requantized == 0 || (j->in->kind == CHECKPOINT_GGUF && checkpoint_meta(j->in, requantized_key))) return true;
    return gguf_put_u32(j->shards[0].writer, requantized_key, (uint32_t)j->report->n_requantized, err);
}

/* ---- from a GGUF file ------------------------------------------------------------------------------ */

static bool is_split_key(struct str key)
{
    return key_is(key, "split.no") || key_is(key, "split.count") || key_is(key, "split.tensors.count");
}

static bool copy_metas(struct quantize_job *j, struct unmask_err *err)
{
    bool typed = false, versioned = false;
    for (size_t i = 0; i < j->in->n_metas; i++) {
        const struct meta *m = &j->in->metas[i];
        struct str value;
        bool ok;
        /* Of other bytes, of other files. */
        if (checksum_key(m->key.s, m->key.n) || is_split_key(m->key) || is_method_key(j, m->key)) continue;
        if (key_is(m->key, base_count_key) && more_bases(j)) continue;
        if (key_is(m->key, file_type_key) && !j->o->keep)
            typed = ok = gguf_put_u32(j->shards[0].writer, file_type_key, quantize_file_type(j->o), err);
        else if (key_is(m->key, version_key)) versioned = ok = gguf_put_u32(j->shards[0].writer, version_key, QUANTIZATION_VERSION, err);
        else if (setting_of(j->o, m->key, &value)) ok = gguf_put_str(j->shards[0].writer, FMT("%.*s", (int)m->key.n, m->key.s), value, err);
        else ok = gguf_put_meta(j->shards[0].writer, m, err);
        if (!ok) return false;
    }
    return put_new_settings(j, err) && put_base_count(j, err)
        && (typed || j->o->keep || gguf_put_u32(j->shards[0].writer, file_type_key, quantize_file_type(j->o), err))
        && (versioned || gguf_put_u32(j->shards[0].writer, version_key, QUANTIZATION_VERSION, err));
}

/* ---- from a folder ----------------------------------------------------------------------------------- */

/* The folder's name, or nothing where it says nothing (".") or metadata cannot hold it. */
static struct str folder_name(const struct checkpoint *c)
{
    const struct str name = checkpoint_name(c);
    return name.s[0] == '.' || name.s[0] == '/' || utf8_valid(name.s, name.n) != name.n ? (struct str){ "", 0 } : name;
}

/* A text that follows from the input, unless the caller sets another one or there is none. */
static bool put_known(struct quantize_job *j, const char *key, struct str value, struct unmask_err *err)
{
    struct str set;
    return value.n == 0 || setting_of(j->o, str_of(key), &set) || gguf_put_str(j->shards[0].writer, key, value, err);
}

static bool put_general(struct quantize_job *j, struct unmask_err *err)
{
    struct gguf_writer *w = j->shards[0].writer;
    const struct str name = folder_name(j->in);
    struct model_name *m = &j->name;
    uint64_t parameters = 0;
    for (size_t i = 0; i < j->n_pieces; i++) parameters += j->pieces[i].n_rows * j->pieces[i].k;
    model_name_parse(m, name);
    if (!m->size[0]) model_name_size(m, parameters);
    return gguf_put_str(w, "general.architecture", str_of(j->arch->name), err) && put_known(j, "general.type", str_of("model"), err)
        && put_known(j, "general.name", name, err) && put_known(j, "general.basename", str_of(m->base), err)
        && put_known(j, "general.size_label", str_of(m->size), err) && put_known(j, "general.finetune", str_of(m->finetune), err)
        && put_known(j, "general.version", str_of(m->version), err) && put_new_settings(j, err) && put_base_count(j, err)
        && gguf_put_u32(w, file_type_key, quantize_file_type(j->o), err) && gguf_put_u32(w, version_key, QUANTIZATION_VERSION, err);
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
        /* llama.cpp takes an absent key for true. */
        && gguf_put_bool(j->shards[0].writer, "diffusion.shift_logits", j->arch->shift_logits, err);
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

/* The padding, which no run needs, is not among the ids that are settled. */
static bool put_token_ids(struct quantize_job *j, const struct tokenizer *t, struct unmask_err *err)
{
    const struct hparams *h = &j->h;
    const struct { const char *key; int32_t id; } rows[] = {
        { "tokenizer.ggml.bos_token_id", h->bos_id }, { "tokenizer.ggml.eos_token_id", h->eos_id },
        { "tokenizer.ggml.eot_token_id", h->eot_id },
        { "tokenizer.ggml.padding_token_id", tokenizer_ids(t).pad }, { "tokenizer.ggml.mask_token_id", h->mask_id },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].id >= h->n_vocab)
            return fail(err, E_TOKEN_ID, .file = j->in->path, .field = rows[i].key, .found = FMT("%d", rows[i].id),
                        .need = FMT("less than %d, the rows of the embedding", h->n_vocab));
        if (rows[i].id >= 0 && !gguf_put_u32(j->shards[0].writer, rows[i].key, (uint32_t)rows[i].id, err)) return false;
    }
    return gguf_put_bool(j->shards[0].writer, "tokenizer.ggml.add_bos_token", h->bos_id >= 0, err);
}

static bool put_tokenizer(struct quantize_job *j, const struct tokenizer *t, struct unmask_err *err)
{
    const struct str template = tokenizer_chat_template(t);
    return gguf_put_str(j->shards[0].writer, "tokenizer.ggml.model", str_of("gpt2"), err)
        && gguf_put_str(j->shards[0].writer, "tokenizer.ggml.pre", str_of(tokenizer_pre(t)), err)
        && gguf_put_bool(j->shards[0].writer, TOKENIZER_KEY_IGNORE_MERGES, tokenizer_ignores_merges(t), err)
        && gguf_put_bool(j->shards[0].writer, TOKENIZER_KEY_NFC, tokenizer_normalizes(t), err)
        && put_tokens(j, t, err) && put_merges(j, t, err) && put_token_ids(j, t, err)
        && (template.n == 0 || gguf_put_str(j->shards[0].writer, "tokenizer.chat_template", template, err));
}

static bool describe_folder(struct quantize_job *j, struct unmask_err *err)
{
    struct tokenizer *t = NULL;
    const bool ok = put_general(j, err) && put_hparams(j, err) && tokenizer_open(&t, j->in, err)
        && arch_settle_ids(&j->h, j->in, t, err) && put_tokenizer(j, t, err);
    tokenizer_close(t);
    return ok;
}

/* ---- the name that the file should have ----------------------------------------------------------- */

/* A text of the output: as the caller sets it, or as the input has it. */
static void output_text(const struct quantize_job *j, const char *key, char *dst, size_t size)
{
    struct str v = { "", 0 };
    if (!setting_of(j->o, str_of(key), &v) && (j->in->kind != CHECKPOINT_GGUF || !meta_str(j->in, key, false, &v, NULL))) return;
    if (v.n) snprintf(dst, size, "%.*s", (int)v.n, v.s);
}

/* Parts that metadata name are better than those that the model's name is taken apart into. */
static void name_file(struct quantize_job *j)
{
    struct model_name *m = &j->name;
    const struct model_name known = *m;
    char name[256] = "";
    output_text(j, "general.name", name, sizeof name);
    if (name[0]) model_name_parse(m, str_of(name));
    if (!m->size[0]) memcpy(m->size, known.size, sizeof m->size);
    output_text(j, "general.basename", m->base, sizeof m->base);
    output_text(j, "general.size_label", m->size, sizeof m->size);
    output_text(j, "general.finetune", m->finetune, sizeof m->finetune);
    output_text(j, "general.version", m->version, sizeof m->version);
    model_name_file(m, quantize_type(j->o), j->report->file_name);
}

bool quantize_describe(struct quantize_job *j, struct unmask_err *err)
{
    if (!(j->in->kind == CHECKPOINT_GGUF ? copy_metas(j, err) : describe_folder(j, err))) return false;
    if (!put_history(j, err)) return false;
    name_file(j);
    return quantize_shards_describe(j, err);
}
