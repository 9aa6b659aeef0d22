/* test_arch.c - hyperparameters and tensors of a model: every required key missing, of every wrong type, out of range;
 * tensors missing, of another shape, of a type their role cannot have; the same for config.json. */
#include "testing.h"

#include <math.h>

#include "gguf.h"
#include "mem.h"
#include "model.h"

enum { D = 32, FF = 64, V = 96, LAYERS = 2, HEADS = 4 };

/* What to change in the small valid file: a key left out, of another type, or with another value; a tensor likewise. */
struct change {
    const char *key;
    enum { LEAVE_OUT = 1, AS_STR, AS_F32, AS_U32, AS_BOOL } how;
    uint32_t u; float f;
    const char *s;
    const char *tensor;
    enum { DROP = 1, TRANSPOSE, QUANTIZE, ADD, BAD_SCALE, NAN_F32, NAN_F16, NAN_BF16 } tensor_how;
};

static bool number(struct gguf_writer *w, const struct change *c, const char *key, bool real, uint32_t u, float f, struct unmask_err *err)
{
    if (!c->key || strcmp(c->key, key)) return real ? gguf_put_f32(w, key, f, err) : gguf_put_u32(w, key, u, err);
    switch (c->how) {
    case AS_STR: return gguf_put_str(w, key, str_of("7"), err);
    case AS_F32: return gguf_put_f32(w, key, c->f, err);
    case AS_U32: return gguf_put_u32(w, key, c->u, err);
    case AS_BOOL: return gguf_put_bool(w, key, true, err);
    default: return true;
    }
}

static const char *build(const struct change *c)
{
    struct unmask_err err;
    struct gguf_writer *w;
    struct outfile o;
    static struct { char name[64]; uint64_t shape[2]; int n_dims; const struct quant_format *f; } t[LAYERS * 12 + 8];
    int n = 0;
    OK(gguf_writer_new(&w, &err), err);
    const bool arch_changed = c->key && !strcmp(c->key, "general.architecture");
    if (arch_changed && c->how == AS_U32) OK(gguf_put_u32(w, "general.architecture", 1, &err), err);
    else if (!arch_changed || c->how != LEAVE_OUT) {
        const char *name = arch_changed ? c->s : "llada";
        OK(gguf_put_str(w, "general.architecture", str_of(name), &err), err);
    }
    const struct { const char *key; bool real; uint32_t u; float f; } numbers[] = {
        { "llada.block_count", false, LAYERS, 0 }, { "llada.embedding_length", false, D, 0 },
        { "llada.feed_forward_length", false, FF, 0 }, { "llada.context_length", false, 64, 0 },
        { "llada.attention.head_count", false, HEADS, 0 }, { "llada.attention.head_count_kv", false, 2, 0 },
        { "llada.attention.layer_norm_rms_epsilon", true, 0, 1e-5f }, { "llada.rope.freq_base", true, 0, 10000 },
        { "llada.rope.dimension_count", false, D / HEADS, 0 }, { "llada.vocab_size", false, V, 0 },
        { "tokenizer.ggml.mask_token_id", false, 90, 0 }, { "tokenizer.ggml.eos_token_id", false, 91, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        OK(number(w, c, numbers[i].key, numbers[i].real, numbers[i].u, numbers[i].f, &err), err);
    if (c->key && !strcmp(c->key, "llada.attention.causal")) OK(gguf_put_bool(w, c->key, c->u, &err), err);
    if (c->key && !strcmp(c->key, "diffusion.shift_logits")) OK(gguf_put_bool(w, c->key, c->u, &err), err);

    struct hparams h = { .n_layer = LAYERS, .n_embd = D, .n_head = HEADS, .n_head_kv = 2, .head_dim = D / HEADS, .n_ff = FF, .n_vocab = V };
    for (int role = 0; role < TENSOR_ROLES; role++)
        for (int layer = 0; arch_has(&h, role) && layer < (archs[0]->tensors[role].per_layer ? LAYERS : 1); layer++, n++) {
            int rows, k;
            snprintf(t[n].name, sizeof t[n].name, archs[0]->tensors[role].gguf, layer);
            arch_shape(&h, role, &rows, &k);
            t[n].n_dims = k ? 2 : 1;
            t[n].shape[0] = (uint64_t)(k ? k : rows);
            t[n].shape[1] = (uint64_t)(k ? rows : 1);
            t[n].f = k ? &format_q8_0 : &format_f32;
            if (!c->tensor || strcmp(c->tensor, t[n].name)) continue;
            if (c->tensor_how == DROP) n--;
            else if (c->tensor_how == TRANSPOSE) {
                const uint64_t was = t[n].shape[0];
                t[n].shape[0] = t[n].shape[1];
                t[n].shape[1] = was;
            } else if (c->tensor_how == QUANTIZE) t[n].f = &format_q8_0;
            else if (c->tensor_how >= NAN_F32)
                t[n].f = c->tensor_how == NAN_F32 ? &format_f32 : c->tensor_how == NAN_F16 ? &format_f16 : &format_bf16;
        }
    if (c->tensor_how == ADD) {
        snprintf(t[n].name, sizeof t[n].name, "%s", c->tensor);
        t[n].n_dims = 1;
        t[n].shape[0] = D;
        t[n].shape[1] = 1;
        t[n++].f = &format_f32;
    }
    for (int i = 0; i < n; i++)
        OK(gguf_put_tensor(w, t[i].name, t[i].f, t[i].n_dims, (uint64_t[4]){ t[i].shape[0], t[i].shape[1], 1, 1 }, &err), err);
    const char *path = scratch("model.gguf");
    OK(outfile_open(&o, path, true, 0, &err), err);
    OK(gguf_write_header(w, &o, &err), err);
    for (int i = 0; i < n; i++) {
        static float row[FF > V ? FF : V];
        static uint8_t bytes[(FF > V ? FF : V) * 4];
        for (int r = 0; r < (int)t[i].shape[1]; r++) {
            for (int k = 0; k < (int)t[i].shape[0]; k++) row[k] = 0.1f * (float)((k * 7 + r * 3 + i) % 11) - 0.5f;
            if (c->tensor_how >= NAN_F32 && !strcmp(c->tensor, t[i].name) && r == (t[i].n_dims == 1 ? 0 : 5)) row[3] = NAN;
            t[i].f->quantize_row(bytes, row, t[i].shape[0]);
            /* The first scale becomes infinite. */
            if (c->tensor_how == BAD_SCALE && !strcmp(c->tensor, t[i].name) && r == 5) bytes[1] = 0x7C;
            OK(outfile_write(&o, bytes, quant_row_bytes(t[i].f, t[i].shape[0]), &err), err);
        }
        OK(gguf_write_padding(w, &o, &err), err);
    }
    OK(outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    return path;
}

static bool open_changed(const struct change *c, struct unmask_model **m, struct unmask_err *err)
{
    return unmask_open(m, build(c), &(struct unmask_open_options){ .without_tokenizer = true, .threads = 2 }, err);
}

static void the_unchanged_file_opens(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *m;
    OK(open_changed(&(struct change){ .key = NULL }, &m, &err), err);
    assert_int_equal(m->h.n_vocab, V);
    assert_int_equal(m->h.mask_id, 90);
    assert_string_equal(m->weight_format, "q8_0");
    unmask_close(m);
    OK(open_changed(&(struct change){ .tensor = "output.weight", .tensor_how = DROP }, &m, &err), err);      /* a tied head */
    assert_true(m->h.tied_head && m->head.tiles == m->embed.tiles);
    unmask_close(m);
    OK(open_changed(&(struct change){ .tensor = "something.else.weight", .tensor_how = ADD }, &m, &err), err);
    unmask_close(m);
}

static void unused_tensors_are_told(void **state)
{
    (void)state;
    struct unmask_err err;
    struct checkpoint *c;
    struct hparams h;
    bool *used;
    OK(checkpoint_open(&c, build(&(struct change){ .tensor = "something.else.weight", .tensor_how = ADD }), &err), err);
    OK(arch_hparams(archs[0], c, &h, &err) && arch_used(archs[0], c, &h, &used, &err), err);
    for (size_t i = 0; i < c->n_tensors; i++) assert_true(used[i] == (strcmp(c->tensors[i].name, "something.else.weight") != 0));
    unmask_free(used);
    checkpoint_close(c);
}

static void keys_are_checked(void **state)
{
    (void)state;
    static const struct { struct change c; const char *id, *word; } cases[] = {
        { { .key = "general.architecture", .how = LEAVE_OUT, .s = "" }, "E-META-001", "general.architecture" },
        { { .key = "general.architecture", .how = AS_U32, .s = "" }, NULL, "general.architecture" },
        { { .key = "general.architecture", .how = AS_STR, .s = "gpt9" }, "E-ARCH-001", "llada" },
        { { .key = "general.architecture", .how = AS_STR, .s = "" }, "E-ARCH-001", "llada" },
        { { .key = "llada.block_count", .how = LEAVE_OUT }, "E-META-001", "llada.block_count" },
        { { .key = "llada.embedding_length", .how = LEAVE_OUT }, "E-META-001", "llada.embedding_length" },
        { { .key = "llada.feed_forward_length", .how = LEAVE_OUT }, "E-META-001", "llada.feed_forward_length" },
        { { .key = "llada.context_length", .how = LEAVE_OUT }, "E-META-001", "llada.context_length" },
        { { .key = "llada.attention.head_count", .how = LEAVE_OUT }, "E-META-001", "llada.attention.head_count" },
        { { .key = "llada.attention.layer_norm_rms_epsilon", .how = LEAVE_OUT }, "E-META-001", "layer_norm_rms_epsilon" },
        { { .key = "tokenizer.ggml.mask_token_id", .how = LEAVE_OUT }, "E-ARCH-008", "tokenizer.ggml.mask_token_id" },
        { { .key = "llada.block_count", .how = AS_U32, .u = 0 }, NULL, "llada.block_count" },
        { { .key = "llada.block_count", .how = AS_U32, .u = 1025 }, NULL, "llada.block_count" },
        { { .key = "llada.block_count", .how = AS_U32, .u = UINT32_MAX }, NULL, "llada.block_count" },
        { { .key = "llada.block_count", .how = AS_U32, .u = 3 }, "E-ARCH-004", "blk.2." },
        { { .key = "llada.block_count", .how = AS_U32, .u = LAYERS - 1 }, "E-ARCH-003", "found 1, and a tensor blk.1.attn" },
        { { .key = "llada.attention.head_count", .how = AS_U32, .u = 0 }, NULL, "head_count" },
        { { .key = "llada.attention.head_count", .how = AS_U32, .u = 3 }, NULL, "head" },
        { { .key = "llada.attention.head_count_kv", .how = AS_U32, .u = 0 }, NULL, "head_count_kv" },
        { { .key = "llada.attention.head_count_kv", .how = AS_U32, .u = 3 }, "E-ARCH-003", "multiple" },
        { { .key = "llada.embedding_length", .how = AS_U32, .u = 33 }, NULL, NULL },
        { { .key = "llada.rope.dimension_count", .how = AS_U32, .u = 7 }, "E-ARCH-003", "rope.dimension_count" },
        { { .key = "llada.rope.dimension_count", .how = AS_U32, .u = 16 }, "E-ARCH-003", "rope.dimension_count" },
        { { .key = "llada.context_length", .how = AS_U32, .u = 0 }, NULL, "context_length" },
        { { .key = "llada.attention.layer_norm_rms_epsilon", .how = AS_F32, .f = 0 }, NULL, "epsilon" },
        { { .key = "llada.attention.layer_norm_rms_epsilon", .how = AS_F32, .f = -1 }, NULL, "epsilon" },
        { { .key = "llada.attention.layer_norm_rms_epsilon", .how = AS_F32, .f = NAN }, NULL, "epsilon" },
        { { .key = "llada.attention.layer_norm_rms_epsilon", .how = AS_F32, .f = INFINITY }, NULL, "epsilon" },
        { { .key = "llada.rope.freq_base", .how = AS_F32, .f = 0 }, NULL, "freq_base" },
        { { .key = "llada.rope.freq_base", .how = AS_F32, .f = NAN }, NULL, "freq_base" },
        { { .key = "llada.vocab_size", .how = AS_U32, .u = 0 }, NULL, "vocab_size" },
        { { .key = "llada.vocab_size", .how = AS_U32, .u = V + 1 }, "E-ARCH-005", "token_embd.weight" },
        { { .key = "tokenizer.ggml.mask_token_id", .how = AS_U32, .u = V }, "E-ARCH-009", "mask" },
        { { .key = "tokenizer.ggml.mask_token_id", .how = AS_U32, .u = 91 }, "E-ARCH-003", "eos" },
        { { .key = "tokenizer.ggml.eos_token_id", .how = AS_U32, .u = 5000 }, "E-ARCH-009", "eos" },
        { { .key = "llada.attention.causal", .how = AS_BOOL, .u = 1 }, "E-ARCH-002", "bidirectional" },
        { { .key = "diffusion.shift_logits", .how = AS_BOOL, .u = 1 }, "E-ARCH-002", "shift_logits" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct unmask_err err;
        struct unmask_model *m;
        if (open_changed(&cases[i].c, &m, &err)) fail_msg("case %zu (%s) opens", i, cases[i].c.key);
        if (cases[i].id) expect_err(&err, cases[i].id, "model.gguf", cases[i].word, NULL);
        else expect_err(&err, err.id, "model.gguf", cases[i].word, NULL);
        assert_int_equal(err.status, UNMASK_EMODEL);
    }
}

/* Every number as a string, a float and a boolean. */
static void keys_of_another_type_are_errors(void **state)
{
    (void)state;
    static const char *const integers[] = { "block_count", "embedding_length", "feed_forward_length", "context_length",
                                            "attention.head_count", "attention.head_count_kv", "rope.dimension_count", "vocab_size" };
    for (size_t i = 0; i < ARRAY_LEN(integers); i++)
        for (int how = AS_STR; how <= AS_BOOL; how++) {
            char key[64];
            struct unmask_err err;
            struct unmask_model *m;
            if (how == AS_U32) continue;
            snprintf(key, sizeof key, "llada.%s", integers[i]);
            assert_false(open_changed(&(struct change){ .key = key, .how = how, .f = 2.5f }, &m, &err));
            assert_int_equal(err.status, UNMASK_EMODEL);
            expect_err(&err, err.id, key, NULL);
        }
}

static void tensors_are_checked(void **state)
{
    (void)state;
    static const struct { struct change c; const char *id; } cases[] = {
        { { .tensor = "token_embd.weight", .tensor_how = DROP }, "E-ARCH-004" },
        { { .tensor = "output_norm.weight", .tensor_how = DROP }, "E-ARCH-004" },
        { { .tensor = "blk.1.ffn_down.weight", .tensor_how = DROP }, "E-ARCH-004" },
        { { .tensor = "blk.0.attn_q.weight", .tensor_how = DROP }, "E-ARCH-004" },
        { { .tensor = "blk.0.ffn_up.weight", .tensor_how = TRANSPOSE }, "E-ARCH-005" },
        { { .tensor = "output.weight", .tensor_how = TRANSPOSE }, "E-ARCH-005" },
        { { .tensor = "blk.1.attn_norm.weight", .tensor_how = QUANTIZE }, "E-ARCH-006" },
        { { .tensor = "blk.0.attn_output.bias", .tensor_how = ADD }, "E-ARCH-002" },
        { { .tensor = "blk.1.attn_v.weight", .tensor_how = BAD_SCALE }, "E-ARCH-007" },
        { { .tensor = "blk.1.attn_norm.weight", .tensor_how = NAN_F32 }, "E-ARCH-007" },
        { { .tensor = "output_norm.weight", .tensor_how = NAN_F16 }, "E-ARCH-007" },
        { { .tensor = "blk.0.ffn_up.weight", .tensor_how = NAN_F32 }, "E-ARCH-007" },
        { { .tensor = "blk.0.ffn_up.weight", .tensor_how = NAN_F16 }, "E-ARCH-007" },
        { { .tensor = "blk.0.ffn_up.weight", .tensor_how = NAN_BF16 }, "E-ARCH-007" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct unmask_err err;
        struct unmask_model *m;
        if (open_changed(&cases[i].c, &m, &err)) fail_msg("%s opens", cases[i].c.tensor);
        expect_err(&err, cases[i].id, "model.gguf", cases[i].c.tensor, NULL);
        assert_int_equal(err.status, UNMASK_EMODEL);
    }
}

/* ---- config.json ---- */

static bool open_folder(const char *from, const char *to, struct unmask_err *err)
{
    static char text[8192];
    char cmd[512];
    snprintf(cmd, sizeof cmd, "mkdir -p %s && cp tests/data/checkpoints/llada-tiny/* %s/ && chmod -R u+w %s",
             scratch("folder"), scratch("folder"), scratch("folder"));
    assert_int_equal(system(cmd), 0);
    FILE *f = fopen("tests/data/checkpoints/llada-tiny/config.json", "rb");
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    char *at = strstr(text, from);
    if (!at) fail_msg("%s is not in config.json", from);
    f = fopen(scratch("folder/config.json"), "wb");
    fprintf(f, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    fclose(f);
    struct unmask_model *m = NULL;
    const bool ok = unmask_open(&m, scratch("folder"), &(struct unmask_open_options){ .without_tokenizer = true }, err);
    unmask_close(m);
    return ok;
}

static void config_is_checked(void **state)
{
    (void)state;
    static const struct { const char *from, *to, *word; } cases[] = {
        { "\"alibi\": false", "\"alibi\": true", "alibi" }, { "\"include_bias\": false", "\"include_bias\": true", "include_bias" },
        { "\"input_emb_norm\": false", "\"input_emb_norm\": true", "input_emb_norm" },
        { "\"scale_logits\": false", "\"scale_logits\": true", "scale_logits" },
        { "\"rope\": true", "\"rope\": false", "rope" }, { "\"block_type\": \"llama\"", "\"block_type\": \"sequential\"", "block_type" },
        { "\"layer_norm_type\": \"rms\"", "\"layer_norm_type\": \"default\"", "layer_norm_type" },
        { "\"activation_type\": \"silu\"", "\"activation_type\": \"gelu\"", "activation_type" },
        { "\"LLaDAModelLM\"", "\"LLaDAMoEModelLM\"", "LLaDAModelLM" }, { "\"d_model\": 64", "\"d_model\": \"64\"", "d_model" },
        { "\"d_model\": 64", "\"d_model\": 64.5", "d_model" }, { "\"d_model\": 64", "\"d_model\": -64", "d_model" },
        { "\"d_model\": 64", "\"d_model\": null", "d_model" }, { "\"d_model\": 64", "\"d_model\": [64]", "d_model" },
        { "\"d_model\": 64", "\"d_model\": 128", NULL },
        { "\"n_heads\": 4", "\"n_heads\": 0", "n_heads" }, { "\"n_heads\": 4", "\"n_heads\": 5", NULL },
        { "\"n_layers\": 3", "\"n_layers\": 4", "blocks.3." }, { "\"n_layers\": 3", "\"n_layers\": 1e30", "n_layers" },
        { "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": 0", "rms_norm_eps" },
        { "\"rope_theta\": 500000.0", "\"rope_theta\": true", "rope_theta" },
        { "\"weight_tying\": false", "\"weight_tying\": 0", "weight_tying" },
        { "\"mask_token_id\": 500", "\"mask_token_id\": 512", "mask" },
        { "\"mask_token_id\": 500", "\"mask_token_id\": null", "mask_token_id" },
        { "\"include_qkv_bias\": false", "\"include_qkv_bias\": true", "bias" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct unmask_err err;
        if (open_folder(cases[i].from, cases[i].to, &err)) fail_msg("%s opens", cases[i].to);
        expect_err(&err, err.id, cases[i].word, NULL);
        assert_int_equal(err.status, UNMASK_EMODEL);
    }
    struct unmask_err err;
    /* Ignored: no code is run. */
    OK(open_folder("\"rope\": true", "\"rope\": true, \"auto_map\": {\"AutoModel\": \"evil.Model\"}", &err), err);
}

static void rotated_rows_are_a_permutation(void **state)
{
    (void)state;
    bool seen[64] = { false };
    for (int r = 0; r < 64; r++) {
        const int g = arch_rotated_row(r, 16);
        assert_true(g / 16 == r / 16 && !seen[g]);
        seen[g] = true;
        assert_int_equal(g % 16, (r % 16) % 8 * 2 + (r % 16) / 8);
    }
}

static int clean(void **state) { (void)state; scratch_remove(); return 0; }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_unchanged_file_opens), cmocka_unit_test(unused_tensors_are_told),
        cmocka_unit_test(keys_are_checked), cmocka_unit_test(keys_of_another_type_are_errors),
        cmocka_unit_test(tensors_are_checked), cmocka_unit_test(config_is_checked), cmocka_unit_test(rotated_rows_are_a_permutation),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
