/* bench_model.c - GGUF files of real shapes with random weights, for measurements: such a file loads, takes the time and the
 * memory of a trained one, and means nothing.  Keys and names as of llama.cpp's llada files, so that it loads there too. */
#include "bench.h"

#include <stdio.h>
#include <string.h>

#include "arch.h"
#include "byte_alphabet.h"
#include "gguf.h"
#include "mem.h"
#include "rng.h"
#include "utf8.h"

static const struct shape { const char *name; int n_layer, n_embd, n_head, n_ff, n_vocab, n_ctx; float rope_theta; } shapes[] = {
    { "llada-8b", 32, 4096, 32, 12288, 126464, 4096, 500000 },          /* LLaDA-8B's config.json */
    { "0.5b", 24, 1024, 16, 2816, 32768, 4096, 500000 },
    { "demo", 6, 256, 4, 512, 4096, 256, 10000 },                       /* the embedded model     */
};

/* ---- the file ---- */

struct make {
    const struct shape *shape;
    const struct arch *arch;
    struct hparams h;
    const struct quant_format *f;
    struct gguf_writer *writer;
    struct progress progress;
    uint64_t written;
    struct outfile out;
    uint8_t *buffer;
};

/* Byte-level tokens, one merge, and as many names as the shape has ids; the last three are begin, end and mask. */
static bool put_tokenizer(struct make *k, struct unmask_err *err)
{
    enum { NAME = 16, CONTROL = 3, NORMAL = 1 };
    const int n = k->h.n_vocab;
    char *names = mem_zalloc((size_t)n, NAME, err);
    struct str *tokens = mem_zalloc((size_t)n, sizeof *tokens, err);
    int32_t *types = mem_zalloc((size_t)n, sizeof *types, err);
    const struct str merge = str_of("t h");
    bool ok = names && tokens && types;
    for (int i = 0; ok && i < n; i++) {
        char *name = names + (size_t)i * NAME;
        const size_t len = i < 256 ? utf8_encode(byte_to_char((uint8_t)i), name) : (size_t)snprintf(name, NAME, i == 256 ? "th" : "t%d", i);
        tokens[i] = (struct str){ name, len };
        types[i] = i < n - 3 ? NORMAL : CONTROL;
    }
    struct gguf_writer *w = k->writer;
    ok = ok && gguf_put_str(w, "tokenizer.ggml.model", str_of("gpt2"), err)
        && gguf_put_str(w, "tokenizer.ggml.pre", str_of("gpt-2"), err)
        && gguf_put_strs(w, "tokenizer.ggml.tokens", tokens, (size_t)n, err)
        && gguf_put_i32s(w, "tokenizer.ggml.token_type", types, (size_t)n, err)
        && gguf_put_strs(w, "tokenizer.ggml.merges", &merge, 1, err)
        && gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)n - 3, err)
        && gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)n - 2, err)
        && gguf_put_u32(w, "tokenizer.ggml.mask_token_id", (uint32_t)n - 1, err)
        && gguf_put_bool(w, "tokenizer.ggml.add_bos_token", false, err);
    mem_free(names);
    mem_free(tokens);
    mem_free(types);
    return ok;
}

static bool put_hparams(struct make *k, struct unmask_err *err)
{
    const struct hparams *h = &k->h;
    const uint32_t heads = (uint32_t)h->n_head, width = (uint32_t)h->n_embd;
    const char *name = FMT("random %s", k->shape->name);
    struct gguf_writer *w = k->writer;
    return gguf_put_str(w, "general.architecture", str_of("llada"), err)
        && gguf_put_str(w, "general.name", str_of(name), err)
        && gguf_put_u32(w, "general.file_type", k->f->gguf_file_type, err)
        && gguf_put_u32(w, "llada.block_count", (uint32_t)h->n_layer, err)
        && gguf_put_u32(w, "llada.context_length", (uint32_t)h->n_ctx, err) && gguf_put_u32(w, "llada.embedding_length", width, err)
        && gguf_put_u32(w, "llada.feed_forward_length", (uint32_t)h->n_ff, err)
        && gguf_put_u32(w, "llada.attention.head_count", heads, err)
        && gguf_put_u32(w, "llada.attention.head_count_kv", heads, err)
        && gguf_put_f32(w, "llada.attention.layer_norm_rms_epsilon", h->norm_eps, err)
        && gguf_put_bool(w, "llada.attention.causal", false, err) && gguf_put_f32(w, "llada.rope.freq_base", h->rope_theta, err)
        && gguf_put_u32(w, "llada.rope.dimension_count", width / heads, err)
        && gguf_put_u32(w, "llada.vocab_size", (uint32_t)h->n_vocab, err)
        && gguf_put_bool(w, "diffusion.shift_logits", false, err);
}

/* Call visit for every tensor of the file, in its order: embedding, layers, final norm, head. */
typedef bool visit_tensor(struct make *k, enum tensor_role role, int layer, struct unmask_err *err);
static bool each_tensor(struct make *k, visit_tensor *visit, struct unmask_err *err)
{
    static const enum tensor_role in_layer[] = { T_ATTN_NORM, T_Q, T_K, T_V, T_O, T_FFN_NORM, T_GATE, T_UP, T_DOWN };
    bool ok = visit(k, T_EMBED, 0, err);
    for (int layer = 0; layer < k->h.n_layer; layer++)
        for (size_t i = 0; ok && i < sizeof in_layer / sizeof *in_layer; i++) ok = visit(k, in_layer[i], layer, err);
    return ok && visit(k, T_OUT_NORM, 0, err) && visit(k, T_HEAD, 0, err);
}

static bool describe(struct make *k, enum tensor_role role, int layer, struct unmask_err *err)
{
    const struct arch_tensor *t = &k->arch->tensors[role];
    char name[64];
    int n, columns;
    arch_shape(&k->h, role, &n, &columns);
    snprintf(name, sizeof name, t->gguf, layer);
    if (!t->matrix) return gguf_put_tensor(k->writer, name, &format_f32, 1, (const uint64_t[4]){ (uint64_t)n, 1, 1, 1 }, err);
    return gguf_put_tensor(k->writer, name, k->f, 2, (const uint64_t[4]){ (uint64_t)columns, (uint64_t)n, 1, 1 }, err);
}

enum { BUFFER = 1 << 20 };

static bool write_ones(struct make *k, size_t n, struct unmask_err *err)
{
    const float one = 1;
    for (size_t i = 0; i < n; i++) memcpy(k->buffer + i * sizeof one, &one, sizeof one);
    return outfile_write(&k->out, k->buffer, n * sizeof one, err);
}

static bool write_tensor(struct make *k, enum tensor_role role, int layer, struct unmask_err *err)
{
    int n, columns;
    arch_shape(&k->h, role, &n, &columns);
    if (!k->arch->tensors[role].matrix) return write_ones(k, (size_t)n, err) && gguf_write_padding(k->writer, &k->out, err);
    const size_t at_once = (size_t)(BUFFER / k->f->block_bytes);
    const uint64_t blocks = (uint64_t)n * (uint64_t)columns / (uint64_t)k->f->block;
    const uint64_t prefix = noise_prefix(0, NOISE_WEIGHTS, (uint64_t)role, (uint64_t)layer, 0);
    for (uint64_t at = 0; at < blocks; at += at_once) {
        const size_t now = blocks - at < at_once ? (size_t)(blocks - at) : at_once;
        bench_fill_of(k->f)(k->buffer, prefix, at, now);
        if (term_signal()) return fail(err, E_CANCELLED, .file = k->out.path);
        if (!outfile_write(&k->out, k->buffer, now * (size_t)k->f->block_bytes, err)) return false;
        k->written += now * (size_t)k->f->block_bytes;
        progress_show(&k->progress, (double)k->written / 1e6, (double)gguf_writer_bytes(k->writer) / 1e6, "MB", "random weights");
    }
    return gguf_write_padding(k->writer, &k->out, err);
}

static const struct shape *shape_of(const char *name, struct unmask_err *err)
{
    struct err_text known = { "" };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        if (!strcmp(shapes[i].name, name)) return &shapes[i];
        err_list(&known, shapes[i].name);
    }
    fail(err, E_CLI_VALUE, .field = "--make-model", .found = QUOTE(name, strlen(name)), .need = FMT("one of %s", known.s));
    return NULL;
}

bool bench_make_model(const struct settings *s, const struct term *t, const struct quant_format *f, const char *out,
                      uint64_t *bytes, struct unmask_err *err)
{
    struct make k = { .f = f, .arch = archs[0] };
    progress_start(&k.progress, s, t);
    for (int i = 0; archs[i]; i++)
        if (!strcmp(archs[i]->name, "llada")) k.arch = archs[i];
    if (!(k.shape = shape_of(s->make_model, err))) return false;
    if (!bench_fill_of(f)) return fail(err, E_QNT_FORMAT, .found = f->name, .need = bench_fill_names);
    const struct shape *z = k.shape;
    k.h = (struct hparams){ .n_layer = z->n_layer, .n_embd = z->n_embd, .n_head = z->n_head, .n_head_kv = z->n_head,
                            .head_dim = z->n_embd / z->n_head, .n_ff = z->n_ff, .n_vocab = z->n_vocab, .n_ctx = z->n_ctx,
                            .rope_theta = z->rope_theta, .norm_eps = 1e-5f };
    const bool ok = (k.buffer = mem_aligned(BUFFER, err)) && gguf_writer_new(&k.writer, err) && put_hparams(&k, err)
        && put_tokenizer(&k, err) && each_tensor(&k, describe, err) && outfile_open(&k.out, out, s->force, gguf_writer_bytes(k.writer), err)
        && gguf_write_header(k.writer, &k.out, err) && each_tensor(&k, write_tensor, err) && outfile_commit(&k.out, err);
    progress_end(&k.progress);
    if (!ok) outfile_abort(&k.out);
    else *bytes = gguf_writer_bytes(k.writer);
    gguf_writer_free(k.writer);
    mem_free(k.buffer);
    return ok;
}
