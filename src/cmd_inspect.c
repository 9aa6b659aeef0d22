/* cmd_inspect.c - what a checkpoint is, what it takes to run it, and what keeps it from running; from the descriptions in
 * its files: no weight is read. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "chat.h"
#include "cmd.h"
#include "json.h"
#include "limits.h"
#include "mem.h"
#include "model.h"
#include "model_name.h"

/* ---- what the descriptions say ---- */

struct facts {
    struct str name;                            /* general.name, or that of the file or folder          */
    const struct arch *arch;                    /* NULL: not one that runs, and nothing below is known  */
    struct hparams h;
    uint64_t bytes, parameters, available;      /* of the weights, once loaded; memory that is there now */
    bool *used;                                 /* [tensors] has a role in the model                    */
    struct tokenizer *tokenizer;                /* NULL: there is none that works                       */
    char no_tokenizer[1024], why_not[1024];     /* why there is none, and why the model does not run    */
};

/* It also knows special ids that config.json leaves open.  A model without one runs on ids, but not with one that is broken. */
static void open_tokenizer(const struct checkpoint *c, struct facts *f)
{
    struct unmask_err err;
    if (tokenizer_open(&f->tokenizer, c, &err)) return;
    unmask_err_message(&err, f->no_tokenizer, sizeof f->no_tokenizer);
    if (!err_is(&err, E_TOK_NONE)) memcpy(f->why_not, f->no_tokenizer, sizeof f->why_not);
}

static void find_facts(const struct checkpoint *c, struct facts *f)
{
    struct unmask_err err;
    const struct arch *a = arch_of(c, &err);
    f->name = checkpoint_name(c);
    if (!a || !arch_hparams(a, c, &f->h, &err) || !model_plan(a, c, &f->h, &f->bytes, &f->parameters, &err)
        || !arch_used(a, c, &f->h, &f->used, &err)) {
        unmask_err_message(&err, f->why_not, sizeof f->why_not);
        return;
    }
    f->arch = a;
    f->available = limits_memory();
    open_tokenizer(c, f);
    if (*f->why_not) return;
    if (!arch_settle_ids(&f->h, c, f->tokenizer, &err)) unmask_err_message(&err, f->why_not, sizeof f->why_not);
    else if (f->bytes > f->available)
        snprintf(f->why_not, sizeof f->why_not, "not in the memory that is available now; `unmask quantize` makes it smaller");
}

/* The tensors of one format. */
struct share { uint64_t bytes; size_t n, packed; };
static struct share share_of(const struct checkpoint *c, const struct quant_format *f)
{
    struct share s = { 0 };
    for (size_t i = 0; i < c->n_tensors; i++)
        if (c->tensors[i].format == f) s.bytes += c->tensors[i].bytes, s.n++, s.packed += c->tensors[i].packed != NULL;
    return s;
}

/* ---- JSON, written as it is read: vocabularies are long ---- */

static void put_string(struct str s) { json_print_text(s.s, s.n); }
static void put_text(const char *s) { put_string(str_of(s)); }

static void put_real(double v)
{
    if (isfinite(v)) printf("%.17g", v);
    else fputs("null", stdout);                 /* JSON has no such number */
}

static uint64_t little_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    while (n--) v = v << 8 | p[n];
    return v;
}

/* An item of an array of numbers, as it lies in the file. */
static void put_item(enum meta_type type, const uint8_t *p)
{
    const size_t n = meta_type_bytes(type);
    const uint64_t u = little_endian(p, n);
    const uint32_t low = (uint32_t)u;
    float f;
    double d;
    switch (type) {
    case META_F32: memcpy(&f, &low, sizeof f); put_real((double)f); break;
    case META_F64: memcpy(&d, &u, sizeof d); put_real(d); break;
    case META_BOOL: fputs(u ? "true" : "false", stdout); break;
    case META_I8: case META_I16: case META_I32: case META_I64: {
        const unsigned unused = 64 - 8 * (unsigned)n;
        printf("%" PRId64, (int64_t)(u << unused) >> unused);
        break;
    }
    default: printf("%" PRIu64, u);
    }
}

static void put_array(const struct meta *m)
{
    const size_t each = meta_type_bytes(m->item_type);
    uint64_t at = 0;
    struct str s;
    putchar('[');
    for (uint64_t i = 0; i < m->n_items; i++) {
        if (i) putchar(',');
        if (m->item_type == META_STRING) put_string(meta_next_string(m, &at, &s) ? s : (struct str){ "", 0 });
        else put_item(m->item_type, (const uint8_t *)m->items.s + i * each);
    }
    putchar(']');
}

static void put_meta(const struct meta *m)
{
    switch (m->type) {
    case META_STRING: put_string(m->v.s); break;
    case META_ARRAY: put_array(m); break;
    case META_BOOL: fputs(m->v.b ? "true" : "false", stdout); break;
    case META_F32: case META_F64: put_real(m->v.f); break;
    case META_I8: case META_I16: case META_I32: case META_I64: printf("%" PRId64, m->v.i); break;
    default: printf("%" PRIu64, m->v.u);
    }
}

/* Of a folder, or a later part of a split model. */
static bool in_other_file(const struct checkpoint *c, const struct tensor *t) { return strcmp(t->file->path, c->path) != 0; }

static void put_tensor(const struct checkpoint *c, const struct tensor *t)
{
    fputs("{\"name\":", stdout);
    put_text(t->name);
    printf(",\"type\":\"%s\",\"shape\":[", ENCODING(t->format->name));
    for (int d = 0; d < t->n_dims; d++) printf("%s%" PRIu64, d ? "," : "", t->shape[d]);
    printf("],\"offset\":%" PRIu64, t->offset);
    if (t->packed) fputs(",\"layout\":\"packed\"", stdout);
    if (in_other_file(c, t)) {
        fputs(",\"file\":", stdout);
        put_text(file_name(t->file->path));
    }
    putchar('}');
}

/* Fields of config.json as they stand there, arrays and objects too, which the checkpoint does not keep. */
static bool put_config(const struct checkpoint *c, struct unmask_err *err)
{
    char *path = file_path(c->path, "config.json", err);
    json_t *config = path ? json_read(path, err) : NULL;
    mem_free(path);
    if (config) json_dumpf(config, stdout, JSON_COMPACT);
    json_decref(config);
    return config != NULL;
}

static void put_formats(const struct checkpoint *c)
{
    bool first = true;
    fputs(",\"formats\":[", stdout);
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        const struct share s = share_of(c, *f);
        if (!s.n) continue;
        printf("%s{\"type\":\"%s\",\"tensors\":%zu,\"packed\":%zu,\"bytes\":%" PRIu64 "}", first ? "" : ",",
               ENCODING((*f)->name), s.n, s.packed, s.bytes);
        first = false;
    }
    putchar(']');
}

static void put_id(const char *key, int32_t id)
{
    if (id >= 0) printf(",\"%s\":%d", key, id);
}

static void put_unused(const struct checkpoint *c, const struct facts *f)
{
    bool first = true;
    fputs(",\"unused_tensors\":[", stdout);
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (f->used[i]) continue;
        if (!first) putchar(',');
        put_text(c->tensors[i].name);
        first = false;
    }
    putchar(']');
}

static void put_model(const struct facts *f)
{
    const struct hparams *h = &f->h;
    printf(",\"architecture\":\"%s\",\"parameters\":%" PRIu64 ",\"layers\":%d,\"width\":%d,\"heads\":%d,\"heads_kv\":%d,\"head_width\":%d,"
           "\"feed_forward\":%d,\"context\":%d,\"vocabulary\":%d",
           f->arch->name, f->parameters, h->n_layer, h->n_embd, h->n_head, h->n_head_kv, h->head_dim,
           h->n_ff, h->n_ctx, h->n_vocab);
    put_id("mask_id", h->mask_id);
    put_id("eos_id", h->eos_id);
    put_id("eot_id", h->eot_id);
    put_id("bos_id", h->bos_id);
    printf(",\"weights_bytes\":%" PRIu64 ",\"available_bytes\":%" PRIu64, f->bytes, f->available);
}

static bool print_json(const struct checkpoint *c, const struct facts *f, struct unmask_err *err)
{
    fputs("{\"file\":", stdout);
    put_text(c->path);
    printf(",\"kind\":\"%s\",\"name\":", c->kind == CHECKPOINT_GGUF ? "gguf" : "folder");
    put_string(f->name);
    printf(",\"runs\":%s,\"why_not\":", *f->why_not ? "false" : "true");
    if (*f->why_not) put_text(f->why_not);
    else fputs("null", stdout);
    put_formats(c);
    if (f->arch) {
        put_model(f);
        put_unused(c, f);
    }
    printf(",\"spare_bytes\":%" PRIu64, c->spare_bytes);
    fputs(",\"metadata\":", stdout);
    if (c->kind == CHECKPOINT_GGUF) {
        putchar('{');
        for (size_t i = 0; i < c->n_metas; i++) {
            if (i) putchar(',');
            put_string(c->metas[i].key);
            putchar(':');
            put_meta(&c->metas[i]);
        }
        putchar('}');
    } else if (!put_config(c, err)) return false;
    fputs(",\"tensors\":[", stdout);
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (i) putchar(',');
        put_tensor(c, &c->tensors[i]);
    }
    puts("]}");
    return true;
}

/* ---- for people ---- */

static void print_file(const struct checkpoint *c)
{
    uint64_t bytes = 0;
    char path[512];
    err_printable(path, sizeof path, c->path, strlen(c->path));
    for (size_t i = 0; i < c->n_tensors; i++) bytes += c->tensors[i].bytes;
    printf("File        %s\nKind        %s, %zu tensors of %s, %zu %s\n", path,
           c->kind == CHECKPOINT_GGUF ? "GGUF" : "Hugging Face folder (safetensors)", c->n_tensors, SIZE(bytes),
           c->n_metas, c->kind == CHECKPOINT_GGUF ? "metadata keys" : "fields in config.json");
}

static void print_formats(const struct checkpoint *c)
{
    const char *head = "Formats   ";
    for (const struct quant_format *const *f = quant_formats; *f; f++) {
        const struct share s = share_of(c, *f);
        if (!s.n) continue;
        printf("%s  %-5s %zu tensors, %s, %.2f bits a weight%s\n", head, ENCODING((*f)->name), s.n, SIZE(s.bytes),
               8.0 * (*f)->block_bytes / (*f)->block, s.packed == s.n ? ", packed" : s.packed ? ", some packed" : "");
        head = "          ";
    }
}

/* What lies in the files and no pass reads. */
static void print_unused(const struct checkpoint *c, const struct facts *f)
{
    size_t n = 0;
    const char *first = NULL;
    for (size_t i = 0; f->arch && i < c->n_tensors; i++)
        if (!f->used[i] && n++ == 0) first = c->tensors[i].name;
    if (n) {
        char name[256];
        err_printable(name, sizeof name, first, strlen(first));
        printf("Not used    %zu tensor%s without a role in %s models: %s%s\n", n, n > 1 ? "s" : "", f->arch->name, name,
               n > 1 ? ", ..." : "");
    }
    if (c->spare_bytes) printf("Not used    bytes that belong to no tensor: %" PRIu64 "\n", c->spare_bytes);
}

static void print_hparams(const struct arch *a, const struct hparams *h, uint64_t parameters)
{
    printf("Model       %s, %.2f %s parameters\n", a->name,
           (double)parameters / (parameters >= 1000000000 ? 1e9 : 1e6), parameters >= 1000000000 ? "billion" : "million");
    printf("Layers      %d of width %d, %d heads of %d", h->n_layer, h->n_embd, h->n_head, h->head_dim);
    if (h->n_head_kv != h->n_head) printf(" (%d for keys and values)", h->n_head_kv);
    printf(", feed-forward %d%s%s\n", h->n_ff, h->qkv_bias ? ", q, k, v biases" : "", h->tied_head ? ", tied head" : "");
    printf("Context     %d tokens, RoPE base %g, RMSNorm epsilon %g\n", h->n_ctx, (double)h->rope_theta, (double)h->norm_eps);
}

static void print_id(const char *what, int32_t id)
{
    if (id >= 0) printf(", %s %d", what, id);
}

static void print_tokenizer(const struct facts *f)
{
    struct unmask_err err;
    const struct tokenizer *t = f->tokenizer;
    if (!t) {
        printf("Tokenizer   none: %s\n", f->no_tokenizer);
        return;
    }
    const struct chat_template *chat = chat_template_of(t, &err);
    printf("Tokenizer   byte-level BPE (%s), %d ids, %zu merges; chat template: %s\n",
           tokenizer_pre(t), tokenizer_size(t), tokenizer_n_merges(t), chat ? chat_template_name(chat) : "none that is known");
}

static void print_vocabulary(const struct hparams *h)
{
    printf("Vocabulary  %d", h->n_vocab);
    print_id("mask", h->mask_id);
    print_id("end of text", h->eos_id);
    print_id("end of turn", h->eot_id);
    print_id("begin", h->bos_id);
    putchar('\n');
}

static void print_model(const struct facts *f)
{
    if (f->arch) {
        print_hparams(f->arch, &f->h, f->parameters);
        print_tokenizer(f);
        print_vocabulary(&f->h);
        printf("Memory      %s for the weights, once loaded (%s available now)\n", SIZE(f->bytes), SIZE(f->available));
    }
    printf("Runs        %s%s\n", *f->why_not ? "no: " : f->arch && !f->tokenizer ? "on token ids" : "yes", f->why_not);
}

static void print_tensors(const struct checkpoint *c)
{
    puts("\nTensors (name, format, shape with the row length first, offset, bytes)");
    for (size_t i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        char name[256], file[256] = "", shape[96] = "";
        err_printable(name, sizeof name, t->name, strlen(t->name));
        if (in_other_file(c, t)) err_printable(file, sizeof file, file_name(t->file->path), strlen(file_name(t->file->path)));
        for (int d = 0; d < t->n_dims; d++)
            snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%" PRIu64, d ? " x " : "", t->shape[d]);
        printf("  %-44s %-5s %-18s %12" PRIu64 " %12" PRIu64 "%s%s%s\n", name, ENCODING(t->format->name), shape,
               t->offset, t->bytes, t->packed ? "  packed" : "", *file ? "  " : "", file);
    }
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    (void)t;
    struct checkpoint *c;
    char path[1024];
    if (!cmd_model_argument(s, path, err) || !checkpoint_open(&c, path, err)) return false;
    bool ok = true;
    struct facts f = { .arch = NULL };
    find_facts(c, &f);
    if (s->json) ok = print_json(c, &f, err);
    else {
        print_file(c);
        print_formats(c);
        print_unused(c, &f);
        print_model(&f);
        if (s->show_tensors) print_tensors(c);
    }
    mem_free(f.used);
    tokenizer_close(f.tokenizer);
    checkpoint_close(c);
    return ok;
}

const struct command cmd_inspect = {
    "inspect", CMD_INSPECT, run, "inspect [MODEL] [--tensors] [--json]", "what a model file is and whether it runs here",
    "  unmask inspect model.gguf\n  unmask inspect checkpoint-folder --tensors\n  unmask inspect model.gguf --json\n"
};
