/* arch_llada.c - LLaDA-8B, LLaDA-1.5 and smaller models of that family (ML-GSAI/LLaDA, arXiv:2502.09992): a Llama block
 * with bidirectional attention, SwiGLU and RMSNorm.  GGUF names and keys as llama.cpp's converter writes them. */
#include "arch.h"

#include <string.h>

static const struct arch_tensor tensors[TENSOR_ROLES] = {
    /* GGUF, folder, per layer, matrix, rotated */
    [T_EMBED]     = { "token_embd.weight", "model.transformer.wte.weight", false, true, false },
    [T_OUT_NORM]  = { "output_norm.weight", "model.transformer.ln_f.weight", false, false, false },
    [T_HEAD]      = { "output.weight", "model.transformer.ff_out.weight", false, true, false },
    [T_ATTN_NORM] = { "blk.%d.attn_norm.weight", "model.transformer.blocks.%d.attn_norm.weight", true, false, false },
    [T_Q]         = { "blk.%d.attn_q.weight", "model.transformer.blocks.%d.q_proj.weight", true, true, true },
    [T_K]         = { "blk.%d.attn_k.weight", "model.transformer.blocks.%d.k_proj.weight", true, true, true },
    [T_V]         = { "blk.%d.attn_v.weight", "model.transformer.blocks.%d.v_proj.weight", true, true, false },
    [T_O]         = { "blk.%d.attn_output.weight", "model.transformer.blocks.%d.attn_out.weight", true, true, false },
    [T_Q_BIAS]    = { "blk.%d.attn_q.bias", "model.transformer.blocks.%d.q_proj.bias", true, false, true },
    [T_K_BIAS]    = { "blk.%d.attn_k.bias", "model.transformer.blocks.%d.k_proj.bias", true, false, true },
    [T_V_BIAS]    = { "blk.%d.attn_v.bias", "model.transformer.blocks.%d.v_proj.bias", true, false, false },
    [T_FFN_NORM]  = { "blk.%d.ffn_norm.weight", "model.transformer.blocks.%d.ff_norm.weight", true, false, false },
    [T_GATE]      = { "blk.%d.ffn_gate.weight", "model.transformer.blocks.%d.ff_proj.weight", true, true, false },
    [T_UP]        = { "blk.%d.ffn_up.weight", "model.transformer.blocks.%d.up_proj.weight", true, true, false },
    [T_DOWN]      = { "blk.%d.ffn_down.weight", "model.transformer.blocks.%d.ff_out.weight", true, true, false },
};

/* config.json switches whose other value changes the arithmetic: refused, never ignored. */
static bool check_features(const struct checkpoint *c, struct unmask_err *err)
{
    static const struct { const char *key; bool need; } flags[] = {
        { "rope", true }, { "alibi", false }, { "include_bias", false }, { "bias_for_layer_norm", false }, { "input_emb_norm", false },
        { "scale_logits", false }, { "attention_layer_norm", false },
    };
    static const struct { const char *key, *need; } words[] = {
        { "block_type", "llama" }, { "layer_norm_type", "rms" }, { "activation_type", "silu" },
    };
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
        bool v = flags[i].need;
        if (!meta_bool(c, flags[i].key, false, &v, err)) return false;
        if (v != flags[i].need)
            return fail(err, E_ARCH_FEATURE, .file = c->path, .field = FMT("$.%s", flags[i].key), .found = v ? "true" : "false",
                        .need = flags[i].need ? "true" : "false");
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        struct str v = str_of(words[i].need);
        if (!meta_str(c, words[i].key, false, &v, err)) return false;
        if (v.n != strlen(words[i].need) || memcmp(v.s, words[i].need, v.n))
            return fail(err, E_ARCH_FEATURE, .file = c->path, .field = FMT("$.%s", words[i].key),
                        .found = QUOTE(v.s, v.n), .need = words[i].need);
    }
    return true;
}

/* ML-GSAI/LLaDA configuration_llada.py, without its class defaults: the released models differ from them. */
static bool read_folder(struct hparams *h, const struct checkpoint *c, struct unmask_err *err)
{
    int64_t d, layers, heads, kv, ff, vocab, rows, ctx, ratio = 4, mask = -1, eos = -1;
    double theta = 10000, eps = 1e-5;
    bool multi_query = false;
    if (!check_features(c, err) || !meta_int(c, "d_model", 1, MAX_WIDTH, true, &d, err)
        || !meta_int(c, "n_layers", 1, MAX_LAYERS, true, &layers, err) || !meta_int(c, "n_heads", 1, MAX_HEADS, true, &heads, err)
        || !meta_bool(c, "multi_query_attention", false, &multi_query, err)) return false;
    kv = multi_query ? 1 : heads;
    if (!meta_int(c, "n_kv_heads", 1, MAX_HEADS, false, &kv, err) || !meta_int(c, "mlp_ratio", 1, 64, false, &ratio, err)) return false;
    ff = ratio * d;
    if (!meta_int(c, "mlp_hidden_size", 1, MAX_WIDTH, false, &ff, err)
        || !meta_int(c, "vocab_size", 1, MAX_VOCAB, true, &vocab, err)) return false;
    rows = vocab;
    if (!meta_int(c, "embedding_size", vocab, MAX_VOCAB, false, &rows, err)
        || !meta_int(c, "max_sequence_length", 1, MAX_CONTEXT, true, &ctx, err)
        || !meta_float(c, "rope_theta", 1, 1e12, true, &theta, err) || !meta_float(c, "rms_norm_eps", 1e-12, 1, true, &eps, err)
        || !meta_bool(c, "weight_tying", false, &h->tied_head, err) || !meta_bool(c, "include_qkv_bias", false, &h->qkv_bias, err)
        || !meta_int(c, "mask_token_id", 0, MAX_VOCAB - 1, false, &mask, err)
        || !meta_int(c, "eos_token_id", 0, MAX_VOCAB - 1, false, &eos, err)) return false;
    h->n_embd = (int)d;
    h->n_layer = (int)layers;
    h->n_head = (int)heads;
    h->n_head_kv = (int)kv;
    h->head_dim = (int)(d / heads);
    h->n_ff = (int)ff;
    h->n_vocab = (int)rows;
    h->n_ctx = (int)ctx;
    h->rope_theta = (float)theta;
    h->norm_eps = (float)eps;
    h->mask_id = (int32_t)mask;
    h->eos_id = (int32_t)eos;
    return true;
}

const struct arch arch_llada = {
    .name = "llada", .folder_class = "LLaDAModelLM", .shift_logits = false, .tensors = tensors, .read_folder = read_folder,
};
