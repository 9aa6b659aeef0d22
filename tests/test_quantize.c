/* test_quantize.c - from folders and GGUF files to GGUF files: values, blocks, metadata, and that nothing is ever lost. */
#include "testing.h"

#include <dirent.h>
#include <math.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "arch.h"
#include "f16.h"
#include "gguf.h"
#include "quantize.h"
#include "tokenizer.h"
#include "verify.h"

#define DATA "tests/data/checkpoints/"

/* ---- helpers ---------------------------------------------------------------------------------- */

static struct quantize_report report;

static bool run(const char *in, const char *out, const struct quant_format *f, int threads, bool force, struct unmask_err *err)
{
    const struct quantize_options o = { .format = f, .threads = threads, .force = force };
    return quantize_file(in, out, &o, &report, err);
}

static void make(const char *in, const char *out, const struct quant_format *f)
{
    struct unmask_err err;
    unlink(out);
    OK(run(in, out, f, 2, false, &err), err);
}

static void refused(const char *in, const struct quant_format *f, const char *id, const char *part, const char *part2)
{
    struct unmask_err err;
    const char *out = scratch("refused.gguf");
    unlink(out);
    if (run(in, out, f, 2, false, &err)) fail_msg("%s was quantized; expected %s", in, id);
    expect_err(&err, id, part, part2, NULL);
    assert_int_equal(access(out, F_OK), -1);
}

static size_t parts_left(void)                  /* temporary files in the scratch folder */
{
    size_t n = 0;
    DIR *d = opendir(scratch_path);
    for (const struct dirent *e; (e = readdir(d)); ) n += strstr(e->d_name, ".part") != NULL;
    closedir(d);
    return n;
}

/* A LLaDA folder of any shape with the tokenizer of llada-tiny (512 rows).  Value i of the file is value(i). */
struct shape { int d, heads, kv, ff; bool bias; };
static const struct shape odd = { 40, 5, 5, 72, true }, plain = { 64, 4, 4, 96, false };

static float wave(size_t i) { return (float)((i * 7919) % 1009) / 1009 - 0.5f; }

static void add_tensor(char **header, char *end, size_t *at, bool *first, const char *name, int rows, int columns)
{
    char shape[40];
    const size_t n = (size_t)rows * (size_t)(columns ? columns : 1);
    snprintf(shape, sizeof shape, columns ? "[%d,%d]" : "[%d]", rows, columns);
    *header += snprintf(*header, (size_t)(end - *header), "%s\"model.transformer.%s\":{\"dtype\":\"F32\",\"shape\":%s,"
                        "\"data_offsets\":[%zu,%zu]}",
                        *first ? "{" : ",", name, shape, *at * 4, (*at + n) * 4);
    *at += n;
    *first = false;
}

static const char *make_folder(const char *name, const struct shape *s, size_t bad, float bad_value, const char *extra)
{
    static char header[8192];
    char *h = header, *end = header + sizeof header, path[300], command[900];
    const int kv = s->d / s->heads * s->kv;
    size_t n = 0;
    bool first = true;
    scratch("");
    snprintf(command, sizeof command, "rm -rf %s/%s && mkdir %s/%s && cp " DATA "llada-tiny/tokenizer*.json %s/%s/",
             scratch_path, name, scratch_path, name, scratch_path, name);
    assert_int_equal(system(command), 0);
    add_tensor(&h, end, &n, &first, "wte.weight", 512, s->d);
    add_tensor(&h, end, &n, &first, "blocks.0.attn_norm.weight", s->d, 0);
    add_tensor(&h, end, &n, &first, "blocks.0.q_proj.weight", s->d, s->d);
    add_tensor(&h, end, &n, &first, "blocks.0.k_proj.weight", kv, s->d);
    add_tensor(&h, end, &n, &first, "blocks.0.v_proj.weight", kv, s->d);
    if (s->bias) {
        add_tensor(&h, end, &n, &first, "blocks.0.q_proj.bias", s->d, 0);
        add_tensor(&h, end, &n, &first, "blocks.0.k_proj.bias", kv, 0);
        add_tensor(&h, end, &n, &first, "blocks.0.v_proj.bias", kv, 0);
    }
    add_tensor(&h, end, &n, &first, "blocks.0.attn_out.weight", s->d, s->d);
    add_tensor(&h, end, &n, &first, "blocks.0.ff_norm.weight", s->d, 0);
    add_tensor(&h, end, &n, &first, "blocks.0.ff_proj.weight", s->ff, s->d);
    add_tensor(&h, end, &n, &first, "blocks.0.up_proj.weight", s->ff, s->d);
    add_tensor(&h, end, &n, &first, "blocks.0.ff_out.weight", s->d, s->ff);
    add_tensor(&h, end, &n, &first, "ln_f.weight", s->d, 0);
    if (extra) add_tensor(&h, end, &n, &first, extra, 3, 0);
    *h++ = '}';
    const size_t n_header = (size_t)(h - header);
    uint8_t *file = test_calloc(1, 8 + n_header + n * 4);
    for (int i = 0; i < 8; i++) file[i] = (uint8_t)((uint64_t)n_header >> 8 * i);
    memcpy(file + 8, header, n_header);
    for (size_t i = 0; i < n; i++) {
        const float x = bad && i + 1 >= bad && i < bad + 2 ? bad_value : wave(i);       /* three values in a row */
        memcpy(file + 8 + n_header + i * 4, &x, 4);
    }
    snprintf(path, sizeof path, "%s/model.safetensors", name);
    scratch_write(path, file, 8 + n_header + n * 4);
    test_free(file);
    char config[600];
    const int m = snprintf(config, sizeof config,
        "{\"architectures\":[\"LLaDAModelLM\"],\"d_model\":%d,\"n_layers\":1,\"n_heads\":%d,\"n_kv_heads\":%d,\"mlp_hidden_size\":%d,"
        "\"vocab_size\":512,\"max_sequence_length\":64,\"rope_theta\":10000.0,\"rms_norm_eps\":1e-5,\"weight_tying\":true,"
        "\"include_qkv_bias\":%s,\"mask_token_id\":500,\"eos_token_id\":481}",
        s->d, s->heads, s->kv, s->ff, s->bias ? "true" : "false");
    snprintf(path, sizeof path, "%s/config.json", name);
    scratch_write(path, config, (size_t)m);
    return scratch(name);
}

static struct checkpoint *open_checkpoint(const char *path)
{
    struct unmask_err err;
    struct checkpoint *c;
    OK(checkpoint_open(&c, path, &err), err);
    return c;
}

static float *values_of(const struct tensor *t)
{
    struct unmask_err err;
    const size_t n = (size_t)(t->shape[0] * tensor_rows(t));
    uint8_t *raw = test_malloc((size_t)t->bytes);
    float *x = test_malloc(n * sizeof *x);
    OK(checkpoint_read(t, 0, raw, (size_t)t->bytes, &err), err);
    t->format->dequantize_row(x, raw, n);
    test_free(raw);
    return x;
}

/* Row of the source that row r of a permuted GGUF tensor holds: new row h*d + 2i + j = old row h*d + j*(d/2) + i. */
static int source_row(int r, int d) { return r - r % d + r % d % 2 * (d / 2) + r % d / 2; }

/* Every tensor of the GGUF file at `out` holds the source's rows, as format f (matrices) or F32 would write them. */
static void holds_the_source(const char *in, const char *out, const struct quant_format *f)
{
    struct checkpoint *a = open_checkpoint(in), *b = open_checkpoint(out);
    struct unmask_err err;
    struct hparams h;
    const struct arch *arch = arch_of(a, &err);
    OK(arch && arch_hparams(arch, a, &h, &err), err);
    size_t seen = 0;
    for (int role = 0; role < TENSOR_ROLES; role++)
        for (int layer = 0; arch_has(&h, role) && layer < (arch->tensors[role].per_layer ? h.n_layer : 1); layer++, seen++) {
            const struct tensor *s = arch_tensor(arch, a, &h, role, layer, &err), *t = arch_tensor(arch, b, &h, role, layer, &err);
            OK(s && t, err);
            const struct quant_format *fallback = s->shape[0] % QBLOCK ? &format_f16 : &format_q8_0;
            const struct quant_format *want = !arch->tensors[role].matrix ? &format_f32 : s->shape[0] % (uint64_t)f->block ? fallback : f;
            assert_ptr_equal(t->format, want);
            assert_memory_equal(s->shape, t->shape, sizeof s->shape);
            const bool vector = !arch->tensors[role].matrix, rotated = arch->tensors[role].rotated;
            const size_t k = vector ? 1 : (size_t)s->shape[0], rows = (size_t)(s->shape[0] * tensor_rows(s)) / k;
            const size_t bytes = quant_row_bytes(want, k);
            float *x = values_of(s);
            uint8_t *row = test_malloc(bytes), *got = test_malloc(bytes);
            for (size_t r = 0; r < rows; r++) {
                want->quantize_row(row, x + k * (rotated ? (size_t)source_row((int)r, h.head_dim) : r), k);
                OK(checkpoint_read(t, r * bytes, got, bytes, &err), err);
                if (memcmp(row, got, bytes)) fail_msg("%s, row %zu differs from its source", t->name, r);
            }
            test_free(x);
            test_free(row);
            test_free(got);
        }
    assert_int_equal(seen, b->n_tensors);
    checkpoint_close(a);
    checkpoint_close(b);
}

/* ---- values ----------------------------------------------------------------------------------- */

static const char *const names[] = { "llada-tiny", "llada-tied", "llada-gqa", "llada-tiny-bf16" };

static void every_format_holds_the_source(void **state)
{
    (void)state;
    char in[100];
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        for (size_t f = 0; quant_formats[f]; f++) {
            snprintf(in, sizeof in, DATA "%s", names[i]);
            make(in, scratch("a.gguf"), quant_formats[f]);
            assert_int_equal(report.n_fallback > 0, quant_formats[f]->block == KBLOCK);         /* rows of 64 and 160 */
            holds_the_source(in, scratch("a.gguf"), quant_formats[f]);
            assert_true(report.relative_error < (quant_formats[f] == &format_q4_0 ? 0.12 : 0.01));
            if (quant_formats[f] == &format_f32) assert_true(report.relative_error == 0);
        }
}

static void biases_and_odd_rows_are_kept(void **state)
{
    (void)state;
    make_folder("odd", &odd, 0, 0, NULL);
    make(scratch("odd"), scratch("odd.gguf"), &format_q4_0);
    assert_int_equal(report.n_fallback, 8);     /* every row has 40 or 72 values */
    assert_string_equal(report.fallback, "token_embd.weight");
    holds_the_source(scratch("odd"), scratch("odd.gguf"), &format_q4_0);
}

static bool keep_row(void *user, int position, const float *row)
{
    memcpy((float *)user + (size_t)position * 512, row, 512 * sizeof *row);
    return true;
}

static void logits_of(const char *path, float *out)
{
    static const int32_t ids[] = { 480, 17, 42, 500, 500, 300, 500 };
    struct unmask_err err;
    struct unmask_model *m;
    struct unmask_session *s;
    OK(unmask_open(&m, path, NULL, &err), err);
    OK(unmask_session_open(&s, m, 1, &err), err);
    const struct unmask_taps taps = { .user = out, .logits = keep_row };
    OK(unmask_forward(s, ids, ARRAY_LEN(ids), NULL, &taps, &err), err);
    unmask_session_close(s);
    unmask_close(m);
}

/* The same weights, permuted in one file and not in the other, give the same bits. */
static void a_folder_and_its_file_compute_the_same(void **state)
{
    (void)state;
    static float a[7 * 512], b[7 * 512];
    char in[100];
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(in, sizeof in, DATA "%s", names[i]);
        make(in, scratch("a.gguf"), i == 3 ? &format_bf16 : &format_f32);
        logits_of(in, a);
        logits_of(scratch("a.gguf"), b);
        assert_memory_equal(a, b, sizeof a);
    }
}

/* ---- metadata --------------------------------------------------------------------------------- */

static void expect_text(const struct checkpoint *c, const char *key, const char *want)
{
    struct unmask_err err;
    struct str s;
    OK(meta_str(c, key, true, &s, &err), err);
    if (s.n != strlen(want) || memcmp(s.s, want, s.n)) fail_msg("%s is \"%.*s\", need \"%s\"", key, (int)s.n, s.s, want);
}

static void metadata_is_what_other_readers_need(void **state)
{
    (void)state;
    static const struct { const char *key; int64_t value; } numbers[] = {
        { "llada.vocab_size", 512 }, { "llada.context_length", 256 }, { "llada.embedding_length", 64 }, { "llada.block_count", 3 },
        { "llada.feed_forward_length", 160 }, { "llada.attention.head_count", 4 }, { "llada.attention.head_count_kv", 2 },
        { "llada.rope.dimension_count", 16 }, { "general.quantization_version", 2 }, { "general.file_type", 2 },
        { "tokenizer.ggml.bos_token_id", 480 }, { "tokenizer.ggml.eos_token_id", 481 }, { "tokenizer.ggml.eot_token_id", 508 },
        { "tokenizer.ggml.padding_token_id", 481 }, { "tokenizer.ggml.mask_token_id", 500 },
    };
    static const struct { const char *key; bool value; } flags[] = {
        { "llada.attention.causal", false }, { "diffusion.shift_logits", false }, { "tokenizer.ggml.add_bos_token", true },
    };
    struct unmask_err err;
    make(DATA "llada-gqa", scratch("m.gguf"), &format_q4_0);
    struct checkpoint *c = open_checkpoint(scratch("m.gguf"));
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        int64_t v = -1;
        OK(meta_int(c, numbers[i].key, 0, 1 << 20, true, &v, &err), err);
        if (v != numbers[i].value) fail_msg("%s is %lld", numbers[i].key, (long long)v);
        assert_int_equal(checkpoint_meta(c, numbers[i].key)->type, META_U32);
    }
    for (size_t i = 0; i < ARRAY_LEN(flags); i++) {
        bool v = !flags[i].value;
        OK(meta_bool(c, flags[i].key, true, &v, &err), err);
        assert_int_equal(v, flags[i].value);
    }
    double eps = 0, theta = 0;
    OK(meta_float(c, "llada.attention.layer_norm_rms_epsilon", 0, 1, true, &eps, &err)
       && meta_float(c, "llada.rope.freq_base", 0, 1e9, true, &theta, &err), err);
    assert_true((float)eps == 1e-5f && theta == 500000);
    assert_int_equal(checkpoint_meta(c, "llada.rope.freq_base")->type, META_F32);
    expect_text(c, "general.architecture", "llada");
    expect_text(c, "general.name", "llada-gqa");
    expect_text(c, "tokenizer.ggml.model", "gpt2");
    assert_true(c->metas[0].key.n == 20 && !memcmp(c->metas[0].key.s, "general.architecture", 20));
    assert_non_null(checkpoint_meta(c, "tokenizer.ggml.pre"));
    assert_non_null(checkpoint_meta(c, "tokenizer.chat_template"));
    const struct meta *tokens = checkpoint_meta(c, "tokenizer.ggml.tokens"), *types = checkpoint_meta(c, "tokenizer.ggml.token_type");
    assert_int_equal(tokens->n_items, 512);
    assert_true(types->n_items == 512 && types->item_type == META_I32);
    checkpoint_close(c);
}

/* The tokenizer of the file is the tokenizer of the folder. */
static void tokenizer_survives(void **state)
{
    (void)state;
    static const char text[] = "Hello world 123,  turn on the light\n\xc3\xa9\xe4\xb8\xad";
    struct unmask_err err;
    make(DATA "llada-tiny", scratch("t.gguf"), &format_q8_0);
    struct checkpoint *c[2] = { open_checkpoint(DATA "llada-tiny"), open_checkpoint(scratch("t.gguf")) };
    struct tokenizer *t[2];
    int32_t *ids[2] = { NULL, NULL };
    size_t n[2] = { 0, 0 };
    for (int i = 0; i < 2; i++) {
        OK(tokenizer_open(&t[i], c[i], &err), err);
        OK(tokenizer_encode(t[i], text, sizeof text - 1, true, &ids[i], &n[i], &err), err);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof *ids[0]);
    assert_int_equal(tokenizer_size(t[0]), tokenizer_size(t[1]));
    for (int32_t id = 0; id < tokenizer_size(t[0]); id++) {
        enum token_type type[2];
        const struct str a = tokenizer_token(t[0], id, &type[0]), b = tokenizer_token(t[1], id, &type[1]);
        assert_int_equal(type[0], type[1]);
        assert_int_equal(a.n, b.n);
        assert_memory_equal(a.s, b.s, a.n);
    }
    for (int i = 0; i < 2; i++) {
        unmask_free(ids[i]);
        tokenizer_close(t[i]);
        checkpoint_close(c[i]);
    }
}

static void metadata_can_be_set(void **state)
{
    (void)state;
    static const char *const first[] = { "general.license=apache-2.0", "general.name=A", "general.name=B = C" };
    static const char *const second[] = { "general.name=D", "general.url=https://example.org" };
    static const char *const bad[] = { "general.license", "=x", "llada.block_count=9", "general.=x", "general.architecture=x",
                                       "general.file_type=7", "general.tags=a", "general.alignment=8", "general.quantization_version=3",
                                       "general.base_model.count=1", "general.Name=x", "general.a b=x", "general.name=\xff" };
    struct quantize_options o = { .format = &format_f32, .set = first, .n_set = 3, .force = true };
    struct unmask_err err;
    OK(quantize_file(DATA "llada-tiny", scratch("s.gguf"), &o, &report, &err), err);
    struct checkpoint *c = open_checkpoint(scratch("s.gguf"));
    expect_text(c, "general.license", "apache-2.0");
    expect_text(c, "general.name", "B = C");
    checkpoint_close(c);
    o = (struct quantize_options){ .format = &format_q8_0, .set = second, .n_set = 2, .force = true };
    OK(quantize_file(scratch("s.gguf"), scratch("s2.gguf"), &o, &report, &err), err);
    c = open_checkpoint(scratch("s2.gguf"));
    expect_text(c, "general.license", "apache-2.0");
    expect_text(c, "general.name", "D");
    expect_text(c, "general.url", "https://example.org");
    checkpoint_close(c);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        for (int gguf = 0; gguf < 2; gguf++) {
            o = (struct quantize_options){ .format = &format_f32, .set = &bad[i], .n_set = 1, .force = true };
            if (quantize_file(gguf ? scratch("s.gguf") : DATA "llada-tiny", scratch("s3.gguf"), &o, &report, &err))
                fail_msg("%s was accepted", bad[i]);
            expect_err(&err, "E-QNT-006", "general.KEY=TEXT", NULL);
        }
}

/* ---- the same bytes --------------------------------------------------------------------------- */

static void threads_and_routes_give_the_same_bytes(void **state)
{
    (void)state;
    struct unmask_err err;
    OK(run(DATA "llada-gqa", scratch("one.gguf"), &format_q8_0, 1, true, &err), err);
    const double error = report.relative_error;
    OK(run(DATA "llada-gqa/", scratch("three.gguf"), &format_q8_0, 3, true, &err), err);
    assert_true(report.relative_error == error);
    same_file(scratch("one.gguf"), scratch("three.gguf"));
    OK(run(DATA "llada-gqa", scratch("f32.gguf"), &format_f32, 2, true, &err), err);
    OK(run(scratch("f32.gguf"), scratch("two-steps.gguf"), &format_q8_0, 2, true, &err), err);
    same_file(scratch("one.gguf"), scratch("two-steps.gguf"));
    OK(run(scratch("one.gguf"), scratch("copy.gguf"), &format_q8_0, 2, true, &err), err);       /* blocks as they are */
    same_file(scratch("one.gguf"), scratch("copy.gguf"));
}

static void lay(const char *in, const char *out, const struct quant_format *f, bool packed)
{
    struct unmask_err err;
    const struct quantize_options o = { .format = f, .threads = 2, .force = true, .packed = packed };
    OK(quantize_file(in, out, &o, &report, &err), err);
}

static void make_odd(const char *name, const struct shape *s) { make_folder(name, s, 0, 0, NULL); }

/* From the source or from a standard file a packed file is the same; back, the standard file is again what it was; and all
 * compute the same: rows of heads are permuted in the one layout only. */
static void packed_files_hold_the_same(void **state)
{
    (void)state;
    static float a[7 * 512], b[7 * 512];
    static const struct shape biased = { 96, 4, 2, 96, true };          /* heads of 24: tiles and heads end apart */
    char in[100];
    struct unmask_err err;
    struct verify_tensor found[64];
    make_odd("biased", &biased);
    make_odd("odd", &odd);
    for (size_t i = 0; i < ARRAY_LEN(names) + 2; i++)
        for (size_t f = 0; quant_formats[f]; f++) {
            if (!pack_format_of(quant_formats[f])) continue;
            if (i < ARRAY_LEN(names)) snprintf(in, sizeof in, DATA "%s", names[i]);
            else snprintf(in, sizeof in, "%s", scratch(i == ARRAY_LEN(names) ? "biased" : "odd"));
            lay(in, scratch("s.gguf"), quant_formats[f], false);
            lay(in, scratch("p.gguf"), quant_formats[f], true);
            lay(scratch("s.gguf"), scratch("p2.gguf"), quant_formats[f], true);
            assert_true(report.relative_error == 0);
            same_file(scratch("p.gguf"), scratch("p2.gguf"));
            lay(scratch("p.gguf"), scratch("s2.gguf"), quant_formats[f], false);
            same_file(scratch("s.gguf"), scratch("s2.gguf"));
            logits_of(scratch("s.gguf"), a);
            logits_of(scratch("p.gguf"), b);
            assert_memory_equal(a, b, sizeof a);
            struct checkpoint *c = open_checkpoint(scratch("p.gguf"));
            OK(verify_checkpoint(c, &(struct verify_options){ .threads = 2 }, found, &err), err);
            for (size_t t = 0; t < c->n_tensors; t++) {
                const bool matrix = c->tensors[t].n_dims == 2 && strcmp(c->tensors[t].name, "token_embd.weight");
                assert_int_equal(found[t].sum, VERIFY_SAME);
                assert_int_equal(c->tensors[t].offset % 16384, 0);
                if (matrix) assert_non_null(c->tensors[t].packed);
                if (t) assert_true(c->tensors[t].offset > c->tensors[t - 1].offset);
            }
            /* A tied head is multiplied with. */
            assert_int_equal(c->tensors[0].packed != NULL, checkpoint_tensor(c, "output.weight") == NULL);
            checkpoint_close(c);
        }
}

static void damage_in_tiles_is_found(void **state)
{
    (void)state;
    struct unmask_err err;
    struct verify_tensor found[64];
    lay(DATA "llada-tiny", scratch("tiles.gguf"), &format_q8_0, true);
    struct checkpoint *c = open_checkpoint(scratch("tiles.gguf"));
    const struct tensor t = *checkpoint_tensor(c, "blk.1.ffn_up.weight");
    const long scale = (long)t.offset + (long)t.shape[0] * TILE_N + 2 * 3;      /* of channel 3, first block */
    checkpoint_close(c);
    FILE *f = fopen(scratch("tiles.gguf"), "r+b");
    fseek(f, scale, SEEK_SET);
    fwrite("\0\x7c", 1, 2, f);
    fclose(f);
    struct unmask_model *m;
    assert_false(unmask_open(&m, scratch("tiles.gguf"), NULL, &err));
    expect_err(&err, "E-ARCH-007", "blk.1.ffn_up.weight", NULL);
    c = open_checkpoint(scratch("tiles.gguf"));
    assert_false(verify_checkpoint(c, &(struct verify_options){ .threads = 2 }, found, &err));
    expect_err(&err, "E-VFY-001", "blk.1.ffn_up.weight", NULL);
    const size_t at = (size_t)(checkpoint_tensor(c, "blk.1.ffn_up.weight") - c->tensors);
    assert_int_equal(found[at].n_nonfinite, QBLOCK);
    assert_int_equal(found[at].first_nonfinite, 3 * t.shape[0]);
    checkpoint_close(c);
}

/* Several files hold the tensors and metadata of one, are read back as one, and take the place of older ones. */
static void split_files_are_one_model(void **state)
{
    (void)state;
    struct unmask_err err;
    struct quantize_options o = { .format = &format_q8_0, .threads = 2, .force = true };
    OK(quantize_file(DATA "llada-tiny", scratch("whole.gguf"), &o, &report, &err), err);
    assert_int_equal(report.n_files, 1);
    o.split_bytes = 60000;
    for (int again = 0; again < 2; again++) {
        OK(quantize_file(DATA "llada-tiny", scratch("split.gguf"), &o, &report, &err), err);
        assert_int_equal(report.n_files, 5);
        assert_int_equal(access(scratch("split.gguf"), F_OK), -1);
    }
    assert_int_equal(parts_left(), 0);
    struct checkpoint *c;
    struct verify_tensor found[64];
    OK(checkpoint_open(&c, scratch("split-00001-of-00005.gguf"), &err), err);
    OK(verify_checkpoint(c, &(struct verify_options){ .threads = 2 }, found, &err), err);
    assert_int_equal(found[c->n_tensors - 1].sum, VERIFY_SAME);
    assert_string_equal(c->tensors[c->n_tensors - 1].file->path, scratch("split-00005-of-00005.gguf"));
    checkpoint_close(c);
    o.packed = true;                            /* each of them is aligned */
    OK(quantize_file(scratch("whole.gguf"), scratch("packs.gguf"), &o, &report, &err), err);
    assert_int_equal(report.n_files, 5);
    c = open_checkpoint(scratch("packs-00001-of-00005.gguf"));
    assert_true(c->packed);
    for (size_t i = 0; i < c->n_tensors; i++) assert_int_equal(c->tensors[i].offset % 16384, 0);
    OK(verify_checkpoint(c, &(struct verify_options){ .threads = 2 }, found, &err), err);
    checkpoint_close(c);
    o.packed = false;
    o.split_bytes = 0;
    OK(quantize_file(scratch("packs-00001-of-00005.gguf"), scratch("whole2.gguf"), &o, &report, &err), err);
    same_file(scratch("whole.gguf"), scratch("whole2.gguf"));
    OK(quantize_file(scratch("split-00001-of-00005.gguf"), scratch("merged.gguf"), &o, &report, &err), err);
    same_file(scratch("whole.gguf"), scratch("merged.gguf"));
    o.split_bytes = 1;                          /* a file for every tensor */
    OK(quantize_file(DATA "llada-tiny", scratch("each"), &o, &report, &err), err);
    assert_int_equal(report.n_files, 30);
    assert_int_equal(access(scratch("each-00030-of-00030.gguf"), F_OK), 0);
    o.split_bytes = 60000;                      /* onto a part of the input */
    assert_false(quantize_file(scratch("split-00001-of-00005.gguf"), scratch("split.gguf"), &o, &report, &err));
    expect_err(&err, "E-QNT-001", "split-00001-of-00005.gguf", NULL);
}

/* A model of 16 layers, which are those of another one again and again: more tensors than there may be files. */
static const char *make_deep(void)
{
    enum { LAYERS = 16, MOST = 256 };
    struct unmask_err err;
    struct checkpoint *c;
    struct gguf_writer *w;
    struct outfile o;
    const struct tensor *from[MOST];
    size_t n = 0;
    make(DATA "llada-tiny", scratch("shallow.gguf"), &format_q8_0);
    OK(checkpoint_open(&c, scratch("shallow.gguf"), &err) && gguf_writer_new(&w, &err), err);
    for (size_t i = 0; i < c->n_metas; i++) {
        const struct str key = c->metas[i].key;
        if (key.n == 17 && !memcmp(key.s, "llada.block_count", 17)) OK(gguf_put_u32(w, "llada.block_count", LAYERS, &err), err);
        else if (memcmp(key.s, "unmask.", 7) != 0) OK(gguf_put_meta(w, &c->metas[i], &err), err);
    }
    for (int layer = 0; layer < LAYERS; layer++)
        for (size_t i = 0; i < c->n_tensors; i++) {
            const struct tensor *t = from[n] = &c->tensors[i];
            const bool in_layer = !memcmp(t->name, "blk.0.", 6);
            char name[80];
            if (!in_layer && (layer || !memcmp(t->name, "blk.", 4))) continue;
            snprintf(name, sizeof name, "blk.%d.%s", layer, t->name + (in_layer ? 6 : 0));
            OK(gguf_put_tensor(w, in_layer ? name : t->name, t->format, t->n_dims, t->shape, &err), err);
            assert_true(++n < MOST);
        }
    OK(outfile_open(&o, scratch("deep.gguf"), true, 0, &err) && gguf_write_header(w, &o, &err), err);
    for (size_t i = 0; i < n; i++) {
        uint8_t *b = test_malloc((size_t)from[i]->bytes);
        OK(checkpoint_read(from[i], 0, b, (size_t)from[i]->bytes, &err) && outfile_write(&o, b, (size_t)from[i]->bytes, &err), err);
        OK(gguf_write_padding(w, &o, &err), err);
        test_free(b);
    }
    OK(outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    checkpoint_close(c);
    return scratch("deep.gguf");
}

static void too_many_files_are_refused(void **state)
{
    (void)state;
    struct unmask_err err;
    struct quantize_options o = { .format = &format_q8_0, .threads = 2, .split_bytes = 1 };
    const char *deep = make_deep();
    assert_false(quantize_file(deep, scratch("many.gguf"), &o, &report, &err));
    expect_err(&err, "E-QNT-020", "more than 128 files of 1 bytes", "--split-size", NULL);
}

static void a_dry_run_writes_nothing(void **state)
{
    (void)state;
    struct unmask_err err;
    struct quantize_options o = { .format = &format_q8_0, .threads = 2, .dry_run = true };
    unlink(scratch("dry.gguf"));
    OK(quantize_file(DATA "llada-tiny", scratch("dry.gguf"), &o, &report, &err), err);
    assert_true(report.out_bytes > 200000 && report.n_tensors == 30);
    assert_int_equal(access(scratch("dry.gguf"), F_OK), -1);
    assert_int_equal(parts_left(), 0);
    scratch_write("dry.gguf", "old", 3);        /* what the real run would refuse */
    assert_false(quantize_file(DATA "llada-tiny", scratch("dry.gguf"), &o, &report, &err));
    expect_err(&err, "E-FILE-008", NULL);
}

static void blocks_are_not_rounded_twice(void **state)
{
    (void)state;
    struct unmask_err err;
    make(DATA "llada-tiny", scratch("q8.gguf"), &format_q8_0);
    refused(scratch("q8.gguf"), &format_q4_0, "E-QNT-002", "q8_0", "original weights");
    refused(scratch("q8.gguf"), &format_f16, "E-QNT-002", "token_embd.weight", NULL);
    make(scratch("q8.gguf"), scratch("wide.gguf"), &format_f32);       /* loses nothing */
    OK(run(scratch("wide.gguf"), scratch("again.gguf"), &format_q8_0, 2, true, &err), err);
    assert_true(report.relative_error < 1e-3);
}

/* ---- rules: which matrix takes which format ---------------------------------------------------- */

static struct quantize_options with_rules(const struct quant_format *f, const struct quantize_rule *rules, size_t n)
{
    return (struct quantize_options){ .format = f, .rules = rules, .n_rules = n,
                                      .type = "mixed", .file_type = 15, .threads = 2, .force = true };
}

static void expect_format(const struct checkpoint *c, const char *name, const struct quant_format *want)
{
    const struct tensor *t = checkpoint_tensor(c, name);
    assert_non_null(t);
    if (t->format != want) fail_msg("%s is %s, need %s", name, t->format->name, want->name);
}

static void the_first_rule_that_fits_counts(void **state)
{
    (void)state;
    static const struct quantize_rule rules[] = {
        { .pattern = "^blk\\.1\\.", .to = &format_f16 }, { .pattern = "attn_[kv]", .to = &format_q8_0 },
        { .pattern = "blk.1.attn_v", .to = &format_f32 },
    };
    struct unmask_err err;
    const struct quantize_options o = with_rules(&format_q4_0, rules, ARRAY_LEN(rules));
    OK(quantize_file(DATA "llada-tiny", scratch("mixed.gguf"), &o, &report, &err), err);
    assert_true(strstr(report.file_name, "-MIXED.gguf") != NULL);
    struct checkpoint *c = open_checkpoint(scratch("mixed.gguf"));
    expect_format(c, "blk.0.attn_q.weight", &format_q4_0);
    expect_format(c, "blk.0.attn_k.weight", &format_q8_0);
    expect_format(c, "blk.1.attn_v.weight", &format_f16);
    expect_format(c, "blk.1.attn_norm.weight", &format_f32);            /* vectors take no part */
    expect_format(c, "output.weight", &format_q4_0);
    int64_t type = 0;
    OK(meta_int(c, "general.file_type", 0, 100, true, &type, &err), err);
    assert_int_equal(type, 15);
    checkpoint_close(c);
}

static void rules_for_more_bits_and_for_tied_heads(void **state)
{
    (void)state;
    static const struct quantize_rule rules[] = {
        { .pattern = "ffn_down|token_embd", .to = &format_f32, .more_bits = true }, { .pattern = "^output", .to = &format_f16 },
    };
    static const bool more_of_16[] = { 1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1 };       /* (i - 2) % 3 == 2 between the eighths */
    struct unmask_err err;
    struct quantize_options o = with_rules(&format_q8_0, rules, ARRAY_LEN(rules));
    OK(quantize_file(DATA "llada-tied", scratch("tied.gguf"), &o, &report, &err), err);
    struct checkpoint *c = open_checkpoint(scratch("tied.gguf"));
    expect_format(c, "token_embd.weight", &format_f16);                 /* it is the head too */
    checkpoint_close(c);
    make_deep();
    o.n_rules = 1;
    OK(quantize_file(scratch("deep.gguf"), scratch("deep-mixed.gguf"), &o, &report, &err), err);
    c = open_checkpoint(scratch("deep-mixed.gguf"));
    for (int i = 0; i < 16; i++) {
        char name[40];
        snprintf(name, sizeof name, "blk.%d.ffn_down.weight", i);
        expect_format(c, name, more_of_16[i] ? &format_f32 : &format_q8_0);
    }
    checkpoint_close(c);
}

static void bad_rules_are_refused(void **state)
{
    (void)state;
    static const struct { const char *pattern, *part; } rows[] = {
        { "attn_(q", "parenthesis" }, { "no_such_tensor", "no matrix of that name" }, { "^(([^q]|[^x])+)+[0-9]$", "too long" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct unmask_err err;
        const struct quantize_rule rule = { .pattern = rows[i].pattern, .to = &format_q8_0, .required = true };
        const struct quantize_options o = with_rules(&format_q4_0, &rule, 1);
        assert_false(quantize_file(DATA "llada-tiny", scratch("refused.gguf"), &o, &report, &err));
        expect_err(&err, "E-QNT-008", rows[i].part, NULL);
    }
}

/* In a file of the wanted type quantized matrices stay what they are, whatever the type would make of them now. */
static void a_file_of_the_type_is_copied(void **state)
{
    (void)state;
    static const struct quantize_rule rules[] = { { .pattern = "attn_v", .to = &format_q8_0 } };
    struct unmask_err err;
    struct quantize_options o = with_rules(&format_q4_0, rules, 1);
    OK(quantize_file(DATA "llada-tiny", scratch("mixed.gguf"), &o, &report, &err), err);
    o.n_rules = 0;
    OK(quantize_file(scratch("mixed.gguf"), scratch("copy.gguf"), &o, &report, &err), err);
    same_file(scratch("mixed.gguf"), scratch("copy.gguf"));
    o.file_type = 2;                            /* another type: attn_v would be rounded twice */
    assert_false(quantize_file(scratch("mixed.gguf"), scratch("copy.gguf"), &o, &report, &err));
    expect_err(&err, "E-QNT-002", "attn_v", "--requantize", NULL);
}

static void requantized_files_say_so(void **state)
{
    (void)state;
    struct unmask_err err;
    make(DATA "llada-tiny", scratch("q8.gguf"), &format_q8_0);
    struct quantize_options o = { .format = &format_q4_0, .threads = 2, .force = true, .requantize = true };
    OK(quantize_file(scratch("q8.gguf"), scratch("q4.gguf"), &o, &report, &err), err);
    const size_t matrices = report.n_requantized;
    assert_true(matrices > 20);
    o.format = &format_f32;
    OK(quantize_file(scratch("q4.gguf"), scratch("wide.gguf"), &o, &report, &err), err);
    assert_int_equal(report.n_requantized, 0);
    struct checkpoint *c = open_checkpoint(scratch("wide.gguf"));       /* the note stays */
    int64_t n = 0;
    OK(meta_int(c, "unmask.requantized", 1, 1000, true, &n, &err), err);
    assert_int_equal(n, matrices);
    checkpoint_close(c);
}

/* ---- refusals --------------------------------------------------------------------------------- */

static void numbers_that_cannot_be_written_are_refused(void **state)
{
    (void)state;
    enum { V = 70 };                            /* row 1, columns 4 to 6 of the embedding */
    make_folder("bad", &plain, V, NAN, NULL);
    for (size_t f = 0; quant_formats[f]; f++)
        refused(scratch("bad"), quant_formats[f], "E-ARCH-007", "model.transformer.wte.weight",
                "found nan at row 1, column 5; 3 such values");
    make_folder("bad", &plain, V, -INFINITY, NULL);
    refused(scratch("bad"), &format_f32, "E-ARCH-007", "-inf at row 1, column 5", "model.safetensors");
    make_folder("bad", &plain, 512 * 64 + 3, INFINITY, NULL);          /* a norm */
    refused(scratch("bad"), &format_q8_0, "E-ARCH-007", "attn_norm", "column 2");
    make_folder("bad", &plain, V, 1e9f, NULL);
    refused(scratch("bad"), &format_f16, "E-QNT-004", "wte.weight", "1e+09 at row 1, column 5; 3 such values");
    refused(scratch("bad"), &format_q8_0, "E-QNT-004", "Choose bf16 or f32", "q8_0 can hold");
    refused(scratch("bad"), &format_q4_0, "E-QNT-004", "q4_0 can hold", NULL);
    make(scratch("bad"), scratch("ok.gguf"), &format_bf16);
    make_folder("bad", &plain, V, 3.4e38f, NULL);
    refused(scratch("bad"), &format_bf16, "E-QNT-004", "Choose f32", NULL);
    make(scratch("bad"), scratch("ok.gguf"), &format_f32);
    assert_int_equal(parts_left(), 0);
}

static void tensors_are_not_lost_silently(void **state)
{
    (void)state;
    make_folder("extra", &plain, 0, 0, "blocks.0.adapter.weight");
    refused(scratch("extra"), &format_q8_0, "E-QNT-003", "blocks.0.adapter.weight", "llada");
    make_folder("extra", &plain, 0, 0, "blocks.0.rotary_emb.inv_freq");
    make(scratch("extra"), scratch("ok.gguf"), &format_q8_0);
    make_folder("extra", &plain, 0, 0, "blocks.0.attn_out.bias");
    refused(scratch("extra"), &format_q8_0, "E-ARCH-002", "attn_out.bias", NULL);
}

static void bad_inputs_leave_nothing(void **state)
{
    (void)state;
    make_folder("cut", &plain, 0, 0, NULL);
    assert_int_equal(truncate(scratch("cut/model.safetensors"), 100000), 0);
    refused(scratch("cut"), &format_q8_0, "E-ST-004", "model.safetensors", NULL);
    make_folder("no", &plain, 0, 0, NULL);
    unlink(scratch("no/tokenizer.json"));
    refused(scratch("no"), &format_q8_0, "E-TOK-001", "tokenizer.json", NULL);
    refused(scratch("nothing"), &format_q8_0, "E-FILE-001", "nothing", NULL);
    make(DATA "llada-tiny", scratch("whole.gguf"), &format_f32);
    size_t n;
    char *bytes = whole_file(scratch("whole.gguf"), &n);
    scratch_write("half.gguf", bytes, n / 2);
    test_free(bytes);
    struct unmask_err err;
    assert_false(run(scratch("half.gguf"), scratch("x.gguf"), &format_q8_0, 1, false, &err));
    assert_int_equal(err.status, UNMASK_EMODEL);
    assert_int_equal(parts_left(), 0);
}

static void the_target_is_never_harmed(void **state)
{
    (void)state;
    struct unmask_err err;
    scratch_write("old.gguf", "precious", 8);
    assert_false(run(DATA "llada-tiny", scratch("old.gguf"), &format_q8_0, 2, false, &err));
    expect_err(&err, "E-FILE-008", "old.gguf", "--force", NULL);
    make_folder("bad", &plain, 9, NAN, NULL);
    assert_false(run(scratch("bad"), scratch("old.gguf"), &format_q8_0, 2, true, &err));
    size_t n;
    char *bytes = whole_file(scratch("old.gguf"), &n);
    assert_true(n == 8 && !memcmp(bytes, "precious", 8));
    test_free(bytes);
    OK(run(DATA "llada-tiny", scratch("old.gguf"), &format_q8_0, 2, true, &err), err);
    make(DATA "llada-tiny", scratch("new.gguf"), &format_q8_0);
    same_file(scratch("old.gguf"), scratch("new.gguf"));
    assert_false(run(DATA "llada-tiny", scratch_path, &format_q8_0, 2, true, &err));
    expect_err(&err, "E-FILE-007", "a folder", NULL);
}

static void the_input_is_never_the_output(void **state)
{
    (void)state;
    struct unmask_err err;
    make(DATA "llada-tiny", scratch("self.gguf"), &format_f32);
    unlink(scratch("hard.gguf"));
    unlink(scratch("soft.gguf"));
    assert_int_equal(link(scratch("self.gguf"), scratch("hard.gguf")), 0);
    assert_int_equal(symlink("self.gguf", scratch("soft.gguf")), 0);
    static const char *const same[] = { "self.gguf", "./self.gguf", "hard.gguf", "soft.gguf" };
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        assert_false(run(scratch("self.gguf"), scratch(same[i]), &format_q8_0, 2, true, &err));
        expect_err(&err, "E-QNT-001", "self.gguf", NULL);
    }
    make_folder("in", &plain, 0, 0, NULL);
    assert_false(run(scratch("in"), scratch("in/model.safetensors"), &format_q8_0, 2, true, &err));
    expect_err(&err, "E-QNT-001", "model.safetensors", NULL);
    assert_false(run(scratch("in"), scratch("in/config.json"), &format_q8_0, 2, true, &err));
    expect_err(&err, "E-QNT-001", "config.json", NULL);
}

/* ---- interruptions: at every step ------------------------------------------------------------- */

struct stop { int at, calls; const char *touch; bool flip; };

static bool count(void *user, const struct quantize_progress *p)
{
    (void)p;
    ++*(int *)user;
    return true;
}

static bool cancel(void *user, const struct quantize_progress *p)
{
    struct stop *s = user;
    (void)p;
    return s->calls++ != s->at;
}

static bool die(void *user, const struct quantize_progress *p)
{
    struct stop *s = user;
    (void)p;
    if (s->calls++ == s->at) raise(SIGKILL);
    return true;
}

static bool run_with(bool (*fn)(void *, const struct quantize_progress *), void *user,
                     const char *in, const char *out, struct unmask_err *err)
{
    const struct quantize_options o = { .format = &format_q8_0, .threads = 2, .force = true, .on_progress = fn, .user = user };
    return quantize_file(in, out, &o, &report, err);
}

static void a_stop_at_any_step_keeps_the_old_file(void **state)
{
    (void)state;
    struct unmask_err err;
    int steps = 0;
    size_t n;
    make(DATA "llada-tied", scratch("want.gguf"), &format_q8_0);
    OK(run_with(count, &steps, DATA "llada-tied", scratch("out.gguf"), &err), err);
    assert_true(steps > 2 * 26);                /* planned, converted, verified */
    scratch_write("out.gguf", "precious", 8);
    for (int at = 0; at < steps; at++) {
        struct stop s = { .at = at };
        assert_false(run_with(cancel, &s, DATA "llada-tied", scratch("out.gguf"), &err));
        expect_err(&err, "E-RUN-001", NULL);
        assert_int_equal(parts_left(), 0);
        const pid_t child = fork();
        if (child == 0) {
            s = (struct stop){ .at = at };
            run_with(die, &s, DATA "llada-tied", scratch("out.gguf"), &err);
            _exit(0);
        }
        int status;
        assert_true(waitpid(child, &status, 0) == child && WIFSIGNALED(status));
        char *bytes = whole_file(scratch("out.gguf"), &n);
        assert_true(n == 8 && !memcmp(bytes, "precious", 8));
        test_free(bytes);
    }
    OK(run_with(NULL, NULL, DATA "llada-tied", scratch("out.gguf"), &err), err);
    same_file(scratch("out.gguf"), scratch("want.gguf"));
    assert_int_equal(parts_left(), 0);          /* what the killed runs left is gone */
}

/* Change the input, or a byte of the temporary file that is already written. */
static bool disturb(void *user, const struct quantize_progress *p)
{
    struct stop *s = user;
    if (p->stage != QUANTIZE_CONVERTING || s->calls++ != 5) return true;
    char path[600];
    DIR *d = opendir(scratch_path);
    for (const struct dirent *e; s->flip && (e = readdir(d)); )
        if (strstr(e->d_name, ".part")) snprintf(path, sizeof path, "%s/%s", scratch_path, e->d_name);
    closedir(d);
    FILE *f = fopen(s->flip ? path : s->touch, "r+b");
    assert_non_null(f);
    fseek(f, s->flip ? 20000 : 0, s->flip ? SEEK_SET : SEEK_END);
    const int byte = s->flip ? fgetc(f) : 0;
    if (s->flip) fseek(f, 20000, SEEK_SET);
    fputc(byte ^ 1, f);
    fclose(f);
    return true;
}

static void damage_on_the_way_is_found(void **state)
{
    (void)state;
    struct unmask_err err;
    make_folder("moving", &plain, 0, 0, NULL);
    char touch[300];
    snprintf(touch, sizeof touch, "%s", scratch("moving/model.safetensors"));
    struct stop s = { .touch = touch };
    assert_false(run_with(disturb, &s, scratch("moving"), scratch("d.gguf"), &err));
    expect_err(&err, "E-FILE-004", "model.safetensors", NULL);
    make_folder("moving", &plain, 0, 0, NULL);
    s = (struct stop){ .flip = true };
    assert_false(run_with(disturb, &s, scratch("moving"), scratch("d.gguf"), &err));
    expect_err(&err, "E-QNT-005", "d.gguf", "token_embd.weight", NULL);
    assert_int_equal(access(scratch("d.gguf"), F_OK), -1);
    assert_int_equal(parts_left(), 0);
}

static int clean(void **state) { (void)state; scratch_remove(); return 0; }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_holds_the_source),
        cmocka_unit_test(biases_and_odd_rows_are_kept),
        cmocka_unit_test(a_folder_and_its_file_compute_the_same),
        cmocka_unit_test(metadata_is_what_other_readers_need),
        cmocka_unit_test(tokenizer_survives),
        cmocka_unit_test(metadata_can_be_set),
        cmocka_unit_test(threads_and_routes_give_the_same_bytes),
        cmocka_unit_test(packed_files_hold_the_same),
        cmocka_unit_test(damage_in_tiles_is_found),
        cmocka_unit_test(split_files_are_one_model),
        cmocka_unit_test(too_many_files_are_refused),
        cmocka_unit_test(a_dry_run_writes_nothing),
        cmocka_unit_test(blocks_are_not_rounded_twice),
        cmocka_unit_test(the_first_rule_that_fits_counts),
        cmocka_unit_test(rules_for_more_bits_and_for_tied_heads),
        cmocka_unit_test(bad_rules_are_refused),
        cmocka_unit_test(a_file_of_the_type_is_copied),
        cmocka_unit_test(requantized_files_say_so),
        cmocka_unit_test(numbers_that_cannot_be_written_are_refused),
        cmocka_unit_test(tensors_are_not_lost_silently),
        cmocka_unit_test(bad_inputs_leave_nothing),
        cmocka_unit_test(the_target_is_never_harmed),
        cmocka_unit_test(the_input_is_never_the_output),
        cmocka_unit_test(a_stop_at_any_step_keeps_the_old_file),
        cmocka_unit_test(damage_on_the_way_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
