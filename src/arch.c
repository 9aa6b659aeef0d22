/* arch.c - see arch.h.  What all families share: GGUF keys, checks of hyperparameters, shapes. */
#include "arch.h"

#include <stdio.h>
#include <string.h>

#include "chat.h"
#include "kernels.h"
#include "mem.h"

extern const struct arch arch_llada;
const struct arch *const archs[] = { &arch_llada, NULL };

const struct arch *arch_of(const struct checkpoint *c, struct unmask_err *err)
{
    const bool gguf = c->kind == CHECKPOINT_GGUF;
    const char *key = gguf ? "general.architecture" : "architectures";
    struct str name;
    if (!meta_str(c, key, true, &name, err)) return NULL;
    struct err_text known = { "" };
    for (const struct arch *const *a = archs; *a; a++) {
        const char *n = gguf ? (*a)->name : (*a)->folder_class;
        if (strlen(n) == name.n && !memcmp(n, name.s, name.n)) return *a;
        err_list(&known, n);
    }
    fail(err, E_ARCH_UNKNOWN, .file = c->path, .field = key, .found = QUOTE(name.s, name.n), .need = FMT("one of %s", known.s),
         .hint = gguf ? NULL : "Model code in the folder is never run");
    return NULL;
}

/* One integer key "ARCH.name" of a GGUF file. */
static bool arch_int(const struct arch *a, const struct checkpoint *c, const char *name, int64_t min, int64_t max, bool required,
                     int *v, struct unmask_err *err)
{
    char key[96];
    int64_t x = *v;
    snprintf(key, sizeof key, "%s.%s", a->name, name);
    if (!meta_int(c, key, min, max, required, &x, err)) return false;
    *v = (int)x;
    return true;
}

static bool token_id(const struct checkpoint *c, const char *key, int32_t *id, struct unmask_err *err)
{
    int64_t x = *id;
    if (!meta_int(c, key, 0, MAX_VOCAB - 1, false, &x, err)) return false;
    *id = (int32_t)x;
    return true;
}

static bool read_gguf(const struct arch *a, const struct checkpoint *c, struct hparams *h, struct unmask_err *err)
{
    char key[96];
    double theta = 10000, eps;
    if (!arch_int(a, c, "block_count", 1, MAX_LAYERS, true, &h->n_layer, err)
        || !arch_int(a, c, "embedding_length", 1, MAX_WIDTH, true, &h->n_embd, err)
        || !arch_int(a, c, "feed_forward_length", 1, MAX_WIDTH, true, &h->n_ff, err)
        || !arch_int(a, c, "context_length", 1, MAX_CONTEXT, true, &h->n_ctx, err)
        || !arch_int(a, c, "attention.head_count", 1, MAX_HEADS, true, &h->n_head, err)) return false;
    h->n_head_kv = h->n_head;
    if (!arch_int(a, c, "attention.head_count_kv", 1, MAX_HEADS, false, &h->n_head_kv, err)) return false;
    snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", a->name);
    if (!meta_float(c, key, 1e-12, 1, true, &eps, err)) return false;
    snprintf(key, sizeof key, "%s.rope.freq_base", a->name);
    if (!meta_float(c, key, 1, 1e12, false, &theta, err)) return false;
    h->norm_eps = (float)eps;
    h->rope_theta = (float)theta;

    int rotated = h->head_dim = h->n_embd / h->n_head;
    if (!arch_int(a, c, "attention.key_length", 1, MAX_WIDTH, false, &h->head_dim, err)
        || !arch_int(a, c, "rope.dimension_count", 1, MAX_WIDTH, false, &rotated, err)) return false;
    if (rotated != h->head_dim)
        return fail(err, E_ARCH_VALUE, .file = c->path, .field = "rope.dimension_count", .found = FMT("%d", rotated),
                    .need = FMT("%d, the size of a head", h->head_dim));
    bool causal = false;
    snprintf(key, sizeof key, "%s.attention.causal", a->name);
    if (!meta_bool(c, key, false, &causal, err)) return false;
    if (causal)
        return fail(err, E_ARCH_FEATURE, .file = c->path, .field = key, .found = "true", .need = "false: attention is bidirectional");
    bool shift = a->shift_logits;
    if (!meta_bool(c, "diffusion.shift_logits", false, &shift, err)) return false;
    if (shift != a->shift_logits)
        return fail(err, E_ARCH_FEATURE, .file = c->path, .field = "diffusion.shift_logits", .found = shift ? "true" : "false",
                    .need = FMT("%s for %s", a->shift_logits ? "true" : "false", a->name));

    h->tied_head = !checkpoint_tensor(c, a->tensors[T_HEAD].gguf);
    h->qkv_bias = a->tensors[T_Q_BIAS].gguf && checkpoint_tensor(c, "blk.0.attn_q.bias");
    const struct tensor *embed = checkpoint_tensor(c, a->tensors[T_EMBED].gguf);
    h->n_vocab = embed ? (int)(embed->shape[1] < MAX_VOCAB ? embed->shape[1] : MAX_VOCAB) : 0;
    return arch_int(a, c, "vocab_size", 1, MAX_VOCAB, !embed, &h->n_vocab, err)
        && token_id(c, "tokenizer.ggml.mask_token_id", &h->mask_id, err) && token_id(c, "tokenizer.ggml.eos_token_id", &h->eos_id, err)
        && token_id(c, "tokenizer.ggml.bos_token_id", &h->bos_id, err) && token_id(c, "tokenizer.ggml.eot_token_id", &h->eot_id, err);
}

static bool check_value(const struct checkpoint *c, bool ok, const char *field, int found, const char *need, struct unmask_err *err)
{
    return ok || fail(err, E_ARCH_VALUE, .file = c->path, .field = field, .found = FMT("%d", found), .need = need);
}

/* Of the special ids those that are known: none outside the vocabulary, and no end of anything that is the mask, which is never
 * chosen: an answer could not end. */
static bool check_ids(const struct checkpoint *c, const struct hparams *h, struct unmask_err *err)
{
    const struct { const char *name; int32_t id; bool end; } ids[] = {
        { "mask", h->mask_id, false }, { "eos", h->eos_id, true }, { "bos", h->bos_id, false }, { "eot", h->eot_id, true },
    };
    for (size_t i = 0; i < sizeof ids / sizeof *ids; i++) {
        if (ids[i].id >= h->n_vocab)
            return fail(err, E_TOKEN_ID, .file = c->path, .field = FMT("%s token id", ids[i].name), .found = FMT("%d", ids[i].id),
                        .need = FMT("less than %d, the rows of the embedding", h->n_vocab));
        if (ids[i].end && h->mask_id >= 0 && h->mask_id == ids[i].id)
            return fail(err, E_ARCH_VALUE, .file = c->path, .field = "mask token id", .need = "an id of its own",
                        .found = FMT("%d, which is also the %s id", h->mask_id, ids[i].name));
    }
    return true;
}

/* What the kernels and the forward pass rely on, whichever file the numbers come from. */
static bool check(const struct checkpoint *c, const struct hparams *h, struct unmask_err *err)
{
    return check_ids(c, h, err) && check_value(c, h->n_head % h->n_head_kv == 0, "attention heads", h->n_head,
                       FMT("a multiple of the %d key/value heads", h->n_head_kv), err)
        && check_value(c, h->n_embd == h->head_dim * h->n_head, "hidden size", h->n_embd,
                       FMT("%d heads of %d", h->n_head, h->head_dim), err)
        && check_value(c, h->head_dim % 8 == 0 && h->head_dim <= MAX_HEAD_DIM, "head size", h->head_dim,
                       FMT("a multiple of 8, at most %d", MAX_HEAD_DIM), err);
}

bool arch_used(const struct arch *a, const struct checkpoint *c, const struct hparams *h, bool **used, struct unmask_err *err)
{
    if (!(*used = mem_zalloc(c->n_tensors, sizeof **used, err))) return false;
    for (int role = 0; role < TENSOR_ROLES; role++)
        for (int layer = 0; arch_has(h, role) && layer < (a->tensors[role].per_layer ? h->n_layer : 1); layer++) {
            char name[128];
            snprintf(name, sizeof name, c->kind == CHECKPOINT_GGUF ? a->tensors[role].gguf : a->tensors[role].folder, layer);
            const struct tensor *t = checkpoint_tensor(c, name);
            if (t) (*used)[t - c->tensors] = true;
        }
    return true;
}

/* A bias that the forward pass would not add must not be ignored; other tensors that no role names are. */
static bool check_extra(const struct arch *a, const struct checkpoint *c, const struct hparams *h, struct unmask_err *err)
{
    bool *used, ok = arch_used(a, c, h, &used, err);
    for (size_t i = 0; ok && i < c->n_tensors; i++) {
        const char *name = c->tensors[i].name;
        const size_t n = strlen(name);
        if (!used[i] && n >= 5 && !strcmp(name + n - 5, ".bias"))
            ok = fail(err, E_ARCH_FEATURE, .file = c->path, .field = QUOTE(name, n), .found = "a bias",
                      .need = "biases on q, k and v only");
    }
    mem_free(used);
    return ok;
}

/* A file with a layer more than its metadata say is another model than they describe. */
static bool check_last_layer(const struct arch *a, const struct checkpoint *c, const struct hparams *h, struct unmask_err *err)
{
    for (int role = 0; role < TENSOR_ROLES; role++) {
        const char *pattern = c->kind == CHECKPOINT_GGUF ? a->tensors[role].gguf : a->tensors[role].folder;
        char name[128];
        if (!pattern || !a->tensors[role].per_layer) continue;
        snprintf(name, sizeof name, pattern, h->n_layer);
        if (checkpoint_tensor(c, name))
            return fail(err, E_ARCH_VALUE, .file = c->path, .field = "number of layers",
                        .found = FMT("%d, and a tensor %s", h->n_layer, name), .need = "as many as there are tensors of");
    }
    return true;
}

bool arch_hparams(const struct arch *a, const struct checkpoint *c, struct hparams *h, struct unmask_err *err)
{
    *h = (struct hparams){ .mask_id = -1, .eos_id = -1, .bos_id = -1, .eot_id = -1 };
    if (!(c->kind == CHECKPOINT_GGUF ? read_gguf(a, c, h, err) : a->read_folder(h, c, err)) || !check(c, h, err)
        || !check_extra(a, c, h, err)) return false;
    for (int role = 0; role < TENSOR_ROLES; role++)
        for (int layer = 0; arch_has(h, role) && layer < (a->tensors[role].per_layer ? h->n_layer : 1); layer++)
            if (!arch_tensor(a, c, h, role, layer, err)) return false;
    return check_last_layer(a, c, h, err);
}

bool arch_settle_ids(struct hparams *h, const struct checkpoint *c, const struct tokenizer *t, struct unmask_err *err)
{
    if (t) {
        const struct token_ids ids = tokenizer_ids(t);
        const struct chat_template *chat = chat_template_of(t, NULL);
        if (tokenizer_size(t) > h->n_vocab)
            return fail(err, E_TOKEN_ID, .file = c->path, .field = "tokenizer", .found = FMT("%d token ids", tokenizer_size(t)),
                        .need = FMT("at most %d, the rows of the embedding", h->n_vocab));
        if (h->mask_id < 0) h->mask_id = ids.mask;
        if (h->eos_id < 0) h->eos_id = ids.eos;
        if (h->bos_id < 0) h->bos_id = ids.bos;
        if (chat) h->eot_id = chat_end_of_turn(chat, t);        /* what the model was tuned with, whatever the files name */
        if (h->eot_id < 0) h->eot_id = ids.eot;
    }
    if (h->mask_id < 0)
        return fail(err, E_MASK_MISSING, .file = c->path,
                    .need = c->kind == CHECKPOINT_GGUF ? "key tokenizer.ggml.mask_token_id"
                                                       : "mask_token_id in config.json or a mask_token in the tokenizer files");
    return check_ids(c, h, err);
}

bool arch_has(const struct hparams *h, enum tensor_role role)
{
    switch (role) {
    case T_HEAD: return !h->tied_head;
    case T_Q_BIAS: case T_K_BIAS: case T_V_BIAS: return h->qkv_bias;
    default: return true;
    }
}

void arch_shape(const struct hparams *h, enum tensor_role role, int *n, int *k)
{
    const int q = h->n_head * h->head_dim, kv = h->n_head_kv * h->head_dim;
    *k = 0;
    switch (role) {
    case T_EMBED: case T_HEAD: *n = h->n_vocab; *k = h->n_embd; break;
    case T_OUT_NORM: case T_ATTN_NORM: case T_FFN_NORM: *n = h->n_embd; break;
    case T_Q: *n = q; *k = h->n_embd; break;
    case T_K: case T_V: *n = kv; *k = h->n_embd; break;
    case T_O: *n = h->n_embd; *k = q; break;
    case T_Q_BIAS: *n = q; break;
    case T_K_BIAS: case T_V_BIAS: *n = kv; break;
    case T_GATE: case T_UP: *n = h->n_ff; *k = h->n_embd; break;
    case T_DOWN: *n = h->n_embd; *k = h->n_ff; break;
    case TENSOR_ROLES: *n = 0; break;
    }
}

const struct tensor *arch_tensor(const struct arch *a, const struct checkpoint *c, const struct hparams *h, enum tensor_role role,
                                 int layer, struct unmask_err *err)
{
    const struct arch_tensor *at = &a->tensors[role];
    char name[128];
    snprintf(name, sizeof name, c->kind == CHECKPOINT_GGUF ? at->gguf : at->folder, layer);
    const struct tensor *t = checkpoint_tensor(c, name);
    if (!t) {
        fail(err, E_TENSOR_MISSING, .file = c->path, .field = name, .hint = "The file is incomplete, or of another architecture");
        return NULL;
    }
    int n, k;
    arch_shape(h, role, &n, &k);
    const uint64_t want0 = (uint64_t)(at->matrix ? k : n), want1 = (uint64_t)(at->matrix ? n : 1);
    if (t->shape[0] != want0 || tensor_rows(t) != want1) {
        const unsigned long long rows = tensor_rows(t), row = t->shape[0], need_rows = want1, need_row = want0;
        fail(err, E_TENSOR_SHAPE, .file = c->path, .field = name, .found = FMT("%llu rows of %llu", rows, row),
             .need = FMT("%llu rows of %llu", need_rows, need_row));
        return NULL;
    }
    if (!at->matrix && t->format->block != 1) {
        fail(err, E_TENSOR_TYPE, .file = c->path, .field = name, .found = t->format->name, .need = "f32, f16 or bf16");
        return NULL;
    }
    return t;
}

int arch_rotated_row(int r, int head_dim)
{
    const int in_head = r % head_dim, half = head_dim / 2;
    return r - in_head + 2 * (in_head % half) + in_head / half;
}
