/* model.c - see model.h.  Tensors are read a few rows at a time and packed at once, by all cores; no weight is ever held
 * twice. */
#include "model.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "limits.h"
#include "mem.h"
#include "reader.h"

enum { READ_BYTES = 256 << 10, MAX_FORMATS = 32 };       /* what a worker reads at a time; rows of pack_formats[] */

/* A tensor to be packed (matrix) or converted to float32 (vector) to its place in the model's memory. */
struct part {
    const struct tensor *t;
    const struct pack_format *pack;             /* NULL: a vector, or an embedding that stays rows */
    bool matrix, rotated;                       /* rotated: rows are permuted per head in the file */
    bool away;                                  /* stays in the file: */
    int stream;                                 /* number in the model's stream */
    uint64_t bytes, at;                         /* size and offset in memory */
    int n, k;
};

struct loader {
    struct unmask_model *m;
    const struct checkpoint *c;
    bool layer_only;                            /* one layer, of a checkpoint of the caller's: nothing outside of it */
    int first_layer;                            /* of the checkpoint, that is layer 0 of m                         */
    uint64_t memory_bytes;                      /* of the parts that stay                                          */
    struct part *parts;                         /* [n_layer + 1][TENSOR_ROLES]; the last row: roles outside layers */
    const struct part *now;                     /* the part that load_tiles works on */
    int tiles_at_once;
    uint8_t *scratch; size_t scratch_each;      /* per worker */
    unmask_load_fn *on_load; void *user;        /* NULL: nobody is told */
    uint64_t loaded;                            /* bytes of memory_bytes */
    atomic_bool failed;
    struct unmask_err err;                      /* of the first worker that failed */
};

static struct part *part_of(const struct loader *l, enum tensor_role role, int layer)
{
    const int row = l->m->arch->tensors[role].per_layer ? layer : l->m->h.n_layer;
    return &l->parts[row * TENSOR_ROLES + (int)role];
}

static size_t row_bytes(const struct tensor *t) { return quant_row_bytes(t->format, t->shape[0]); }

static bool refuse_format(const struct checkpoint *c, const struct tensor *t, struct unmask_err *err)
{
    struct err_text known = { "" };
    for (const struct pack_format *p = pack_formats; p->format; p++) err_list(&known, p->format->name);
    return fail(err, E_TENSOR_TYPE, .file = c->path, .field = t->name, .found = t->format->name, .need = FMT("one of %s", known.s),
                .hint = "Quantize the model to one of these");
}

/* Find every tensor and its size in memory; *bytes: of all. */
static bool plan_parts(struct loader *l, uint64_t *bytes, struct unmask_err *err)
{
    const struct hparams *h = &l->m->h;
    uint64_t by_format[MAX_FORMATS] = { 0 }, most = 0;
    *bytes = 0;
    for (int role = 0; role < TENSOR_ROLES; role++) {
        const struct arch_tensor *at = &l->m->arch->tensors[role];
        if (l->layer_only && !at->per_layer) continue;
        for (int layer = 0; arch_has(h, role) && layer < (at->per_layer ? h->n_layer : 1); layer++) {
            struct part *p = part_of(l, role, layer);
            if (!(p->t = arch_tensor(l->m->arch, l->c, h, role, l->first_layer + layer, err))) return false;
            arch_shape(h, role, &p->n, &p->k);
            p->matrix = at->matrix;
            p->rotated = at->rotated && l->c->kind == CHECKPOINT_GGUF && !l->c->packed;
            uint64_t size = (uint64_t)p->n * sizeof(float);
            if (role == T_EMBED && !h->tied_head) size = (uint64_t)p->n * row_bytes(p->t);
            else if (at->matrix) {
                if (!(p->pack = pack_format_of(p->t->format))) return refuse_format(l->c, p->t, err);
                size = (uint64_t)tiles_of(p->n) * p->pack->tile_bytes(p->k);
                uint64_t *sum = &by_format[p->pack - pack_formats];
                *sum += size;
                if (*sum > most) {
                    most = *sum;
                    l->m->weight_format = p->t->format->name;
                }
            }
            *bytes += p->bytes = (size + 63) & ~(uint64_t)63;
            l->m->parameters += (uint64_t)p->n * (uint64_t)(p->k ? p->k : 1);
        }
    }
    return true;
}

bool model_plan(const struct arch *a, const struct checkpoint *c, const struct hparams *h, uint64_t *weight_bytes, uint64_t *parameters,
                struct unmask_err *err)
{
    struct unmask_model m = { .arch = a, .h = *h };
    struct loader l = { .m = &m, .c = c, .parts = mem_zalloc((size_t)(h->n_layer + 1) * TENSOR_ROLES, sizeof *l.parts, err) };
    const bool ok = l.parts && plan_parts(&l, weight_bytes, err);
    *parameters = m.parameters;
    mem_free(l.parts);
    return ok;
}

/* ---- what stays ---- */

/* Matrices of a layer in the order in which a pass uses them. */
static const enum tensor_role pass_order[] = { T_K, T_V, T_Q, T_O, T_GATE, T_UP, T_DOWN };
enum { LAYER_MATRICES = sizeof pass_order / sizeof *pass_order };

static struct part *matrix_of(const struct loader *l, int i) { return part_of(l, pass_order[i % LAYER_MATRICES], i / LAYER_MATRICES); }
static int n_matrices(const struct loader *l) { return l->m->h.n_layer * LAYER_MATRICES; }

/* Of the matrices that a pass reads as they lie in the file, keep as many as `room` holds, spaced so that reading and computing
 * overlap all along. */
static void keep_some(struct loader *l, uint64_t room)
{
    uint64_t all = 0;
    double credit = 0;
    for (int i = 0; i < n_matrices(l); i++) all += matrix_of(l, i)->t->packed ? matrix_of(l, i)->bytes : 0;
    const double share = all && room < all ? (double)room / (double)all : 1;
    for (int i = 0; i < n_matrices(l); i++) {
        struct part *p = matrix_of(l, i);
        if (!p->t->packed) continue;
        credit += share * (double)p->bytes;
        p->away = credit < (double)p->bytes && share < 1;
        if (!p->away) credit -= (double)p->bytes;
    }
}

struct model_share model_divide(struct unmask_model *m, uint64_t limit)
{
    struct loader *l = m->loader;
    const int n_parts = (m->h.n_layer + 1) * TENSOR_ROLES;
    struct part *embed = part_of(l, T_EMBED, 0);
    struct model_share s = { 0, 0, 0 };
    uint64_t all = 0, must = 0;
    for (int i = 0; i < n_parts; i++) {
        l->parts[i].away = false;
        all += l->parts[i].bytes;
    }
    if (limit < all && l->c->packed) {
        embed->away = !embed->pack && !embed->t->packed;        /* rows, which are looked up one by one */
        must = all - (embed->away ? embed->bytes : 0);
        for (int i = 0; i < n_matrices(l); i++) must -= matrix_of(l, i)->t->packed ? matrix_of(l, i)->bytes : 0;
        keep_some(l, limit > must ? limit - must : 0);
    }
    for (int i = 0; i < n_parts; i++) {
        struct part *p = &l->parts[i];
        p->at = s.resident;
        *(p->away ? p == embed ? &s.in_file : &s.streamed : &s.resident) += p->bytes;
    }
    l->memory_bytes = s.resident;
    m->n_stream = 0;
    for (int i = 0; i < n_matrices(l); i++) {
        struct part *p = matrix_of(l, i);
        if (!p->away) continue;
        p->stream = m->n_stream;
        m->stream[m->n_stream++] = (struct stream_part){ p->t->file, p->t->offset, p->pack->tile_bytes(p->k), tiles_of(p->n) };
    }
    return s;
}

static struct weight shape_of(const struct loader *l, enum tensor_role role)
{
    const struct part *p = part_of(l, role, 0);
    return (struct weight){ p->pack, NULL, p->n, p->k, 0 };
}

struct layer model_shape(const struct unmask_model *m, struct weight *head)
{
    const struct loader *l = m->loader;
    *head = shape_of(l, m->h.tied_head ? T_EMBED : T_HEAD);
    return (struct layer){ .q = shape_of(l, T_Q), .k = shape_of(l, T_K), .v = shape_of(l, T_V), .o = shape_of(l, T_O),
                           .gate = shape_of(l, T_GATE), .up = shape_of(l, T_UP), .down = shape_of(l, T_DOWN) };
}

uint64_t model_least(const struct unmask_model *m)
{
    const struct loader *l = m->loader;
    uint64_t least = m->weight_bytes - (m->h.tied_head ? 0 : part_of(l, T_EMBED, 0)->bytes);
    for (int i = 0; i < n_matrices(l); i++) least -= matrix_of(l, i)->bytes;
    return least;
}

bool model_packed(const struct unmask_model *m) { return m->loader->c->packed; }

/* ---- reading ---- */

static bool read_rows(const struct part *p, const struct hparams *h, int row0, int n_rows, uint8_t *dst, struct unmask_err *err)
{
    if (!p->rotated) return checkpoint_read_rows(p->t, (uint64_t)row0, (uint64_t)n_rows, dst, err);
    for (int r = 0; r < n_rows; r++)
        if (!checkpoint_read_rows(p->t, (uint64_t)arch_rotated_row(row0 + r, h->head_dim), 1,
                                  dst + (size_t)r * row_bytes(p->t), err)) return false;
    return true;
}

/* n_rows rows from row0 on become tiles; those of a packed file are there already. */
static bool make_tiles(struct loader *l, const struct part *p, int row0, int n_rows, uint8_t *rows, uint8_t *tiles, struct unmask_err *err)
{
    const size_t tile_bytes = p->pack->tile_bytes(p->k);
    if (p->t->packed)
        return checkpoint_read(p->t, (uint64_t)(row0 / TILE_N) * tile_bytes, tiles, (size_t)tiles_of(n_rows) * tile_bytes, err);
    if (!read_rows(p, &l->m->h, row0, n_rows, rows, err)) return false;
    for (int r = 0; r < n_rows; r += TILE_N) {
        const void *source[TILE_N];
        for (int c = 0; c < TILE_N; c++) source[c] = r + c < n_rows ? rows + (size_t)(r + c) * row_bytes(p->t) : NULL;
        p->pack->pack_tile(tiles + (size_t)(r / TILE_N) * tile_bytes, source, p->k);
    }
    return true;
}

static bool not_finite(const struct loader *l, const struct part *p, const char *where, struct unmask_err *err)
{
    return fail(err, E_TENSOR_VALUE, .file = l->c->path, .field = p->t->name, .found = where, .need = "finite numbers",
                .hint = "The file is damaged; fetch it again");
}

static bool tiles_good(const struct loader *l, const struct part *p, int row0, const uint8_t *tiles, int n_tiles, struct unmask_err *err)
{
    for (int i = 0; i < n_tiles; i++) {
        const int r = row0 + i * TILE_N;
        if (!p->pack->finite(tiles + (size_t)i * p->pack->tile_bytes(p->k), p->k))
            return not_finite(l, p, FMT("a %s in rows %d to %d", p->pack->gemm_int8 ? "scale" : "weight", r, r + TILE_N - 1), err);
    }
    return true;
}

/* Pack tiles_at_once tiles of l->now. */
static void load_tiles(void *arg, int item, int worker)
{
    struct loader *l = arg;
    const struct part *p = l->now;
    if (atomic_load(&l->failed)) return;
    struct unmask_err err;
    uint8_t *rows = l->scratch + (size_t)worker * l->scratch_each;
    const int row0 = item * l->tiles_at_once * TILE_N, left = p->n - row0;
    const int n_rows = left < l->tiles_at_once * TILE_N ? left : l->tiles_at_once * TILE_N;
    const size_t tile_bytes = p->pack->tile_bytes(p->k);
    uint8_t *tiles = l->m->memory + p->at + (size_t)(row0 / TILE_N) * tile_bytes;
    bool ok = make_tiles(l, p, row0, n_rows, rows, tiles, &err);
    ok = ok && tiles_good(l, p, row0, tiles, tiles_of(n_rows), &err);
    if (!ok && !atomic_exchange(&l->failed, true)) l->err = err;
}

static bool load_vector(struct loader *l, const struct part *p, struct unmask_err *err)
{
    const struct quant_format *f = p->t->format;
    float *dst = (float *)(void *)(l->m->memory + p->at);
    uint8_t *raw = mem_resize(NULL, (size_t)p->t->bytes, 1, err);
    bool ok = raw && checkpoint_read(p->t, 0, raw, (size_t)p->t->bytes, err);
    for (int i = 0; ok && i < p->n; i++) {
        const int from = p->rotated ? arch_rotated_row(i, l->m->h.head_dim) : i;
        f->dequantize_row(&dst[i], raw + (size_t)from * (size_t)f->block_bytes, 1);
        ok = isfinite(dst[i]) || not_finite(l, p, FMT("%f at %d", (double)dst[i], from), err);
    }
    mem_free(raw);
    return ok;
}

static bool tell(struct loader *l, uint64_t bytes, struct unmask_err *err)
{
    l->loaded += bytes;
    return !l->on_load || l->on_load(l->user, l->loaded, l->memory_bytes) || fail(err, E_CANCELLED, .hint = NULL);
}

/* One matrix out of a stream of them. */
static bool copy_part(struct loader *l, struct stream *s, int number, const struct part *p, struct unmask_err *err)
{
    const int n = tiles_of(p->n), unit = stream_unit(s, number);
    const size_t tile_bytes = p->pack->tile_bytes(p->k);
    for (int tile = 0; tile < n; tile += unit) {
        const int now = n - tile < unit ? n - tile : unit;
        uint8_t *to = l->m->memory + p->at + (size_t)tile * tile_bytes;
        const uint8_t *from = stream_take(s, number, tile);
        if (!from) return !stream_failed(s, err);
        memcpy(to, from, (size_t)now * tile_bytes);
        stream_give(s, number, tile, 1, 1);
        if (!tiles_good(l, p, tile * TILE_N, to, now, err) || !tell(l, (uint64_t)now * tile_bytes, err)) return false;
    }
    return true;
}

/* Packed matrices that stay, past the system's cache, which may not hold them besides us: by the readers of a stream. */
static bool copy_packed(struct loader *l, struct unmask_err *err)
{
    enum { SHARE = 64, LEAST = 64 << 10, MOST = 8 << 20 };      /* less than a session will take, since it comes on top */
    const uint64_t share = l->memory_bytes / SHARE;
    const size_t ring = share < LEAST ? LEAST : share > MOST ? MOST : (size_t)share;
    const int most = (l->m->h.n_layer + 1) * TENSOR_ROLES;
    struct stream_part *list = mem_zalloc((size_t)most, sizeof *list, err);
    struct part **part = mem_zalloc((size_t)most, sizeof *part, err);
    struct stream *s = NULL;
    int n = 0;
    bool ok = list && part;
    for (int i = 0; ok && i < most; i++) {
        struct part *p = &l->parts[i];
        if (!p->t || p->away || !p->pack || !p->t->packed) continue;
        part[n] = p;
        list[n++] = (struct stream_part){ p->t->file, p->t->offset, p->pack->tile_bytes(p->k), tiles_of(p->n) };
    }
    ok = ok && (n == 0 || stream_open(&s, list, n, ring, err));
    for (int i = 0; ok && i < n; i++) ok = copy_part(l, s, i, part[i], err);
    stream_close(s);
    mem_free(part);
    mem_free(list);
    return ok;
}

static bool load_parts(struct loader *l, struct pool *pool, struct unmask_err *err)
{
    const bool copied = l->c->packed && l->c->reader->files[0].once;
    if (copied && !copy_packed(l, err)) return false;
    size_t most = 0;
    const int n_parts = (l->m->h.n_layer + 1) * TENSOR_ROLES;
    for (int i = 0; i < n_parts; i++) {
        const struct part *p = &l->parts[i];
        if (p->pack && row_bytes(p->t) * TILE_N > most) most = row_bytes(p->t) * TILE_N;
    }
    l->scratch_each = most > READ_BYTES ? most : READ_BYTES;
    for (int i = 0; i < n_parts; i++) {
        const struct part *p = &l->parts[i];
        if (!p->t || p->away || (copied && p->pack && p->t->packed)) continue;
        if (!p->pack) {
            if (!(p->matrix ? checkpoint_read_rows(p->t, 0, (uint64_t)p->n, l->m->memory + p->at, err)
                            : load_vector(l, p, err))) return false;
            if (!tell(l, p->bytes, err)) return false;
            continue;
        }
        if (!l->scratch && !(l->scratch = mem_aligned((size_t)pool_threads(pool) * l->scratch_each, err))) return false;
        l->now = p;
        l->tiles_at_once = (int)(l->scratch_each / (row_bytes(p->t) * TILE_N));
        pool_run(pool, load_tiles, l, (tiles_of(p->n) + l->tiles_at_once - 1) / l->tiles_at_once);
        if (atomic_load(&l->failed)) {
            if (err) *err = l->err;
            return false;
        }
        if (!tell(l, p->bytes, err)) return false;
    }
    return true;
}

/* Files are read, not mapped: one that was rewritten meanwhile would give weights of two models. */
static bool files_unchanged(const struct checkpoint *c, struct unmask_err *err)
{
    const struct file *last = NULL;
    for (size_t i = 0; i < c->n_tensors; i++) {
        if (c->tensors[i].file != last && !file_unchanged(c->tensors[i].file, err)) return false;
        last = c->tensors[i].file;
    }
    return true;
}

static struct weight weight_of(const struct loader *l, enum tensor_role role, int layer)
{
    const struct part *p = part_of(l, role, layer);
    return (struct weight){ p->pack, p->away ? NULL : l->m->memory + p->at, p->n, p->k, p->stream };
}

static const float *vector_of(const struct loader *l, enum tensor_role role, int layer)
{
    return arch_has(&l->m->h, role) ? (const float *)(const void *)(l->m->memory + part_of(l, role, layer)->at) : NULL;
}

static void bind_outside(struct loader *l)
{
    struct unmask_model *m = l->m;
    m->embed = weight_of(l, T_EMBED, 0);
    m->embed_rows = m->h.tied_head || part_of(l, T_EMBED, 0)->away ? NULL : m->memory + part_of(l, T_EMBED, 0)->at;
    m->head = m->h.tied_head ? m->embed : weight_of(l, T_HEAD, 0);
    m->out_norm = vector_of(l, T_OUT_NORM, 0);
}

static void bind_layers(struct loader *l)
{
    struct unmask_model *m = l->m;
    for (int i = 0; i < m->h.n_layer; i++)
        m->layers[i] = (struct layer){
            .q = weight_of(l, T_Q, i), .k = weight_of(l, T_K, i), .v = weight_of(l, T_V, i), .o = weight_of(l, T_O, i),
            .gate = weight_of(l, T_GATE, i), .up = weight_of(l, T_UP, i), .down = weight_of(l, T_DOWN, i),
            .attn_norm = vector_of(l, T_ATTN_NORM, i), .ffn_norm = vector_of(l, T_FFN_NORM, i),
            .q_bias = vector_of(l, T_Q_BIAS, i), .k_bias = vector_of(l, T_K_BIAS, i), .v_bias = vector_of(l, T_V_BIAS, i),
        };
}

/* The files that weights stay in outlive the checkpoint: keep descriptors of our own. */
static bool keep_files(struct unmask_model *m, const struct checkpoint *c, struct unmask_err *err)
{
    if (!(m->files = mem_zalloc(c->reader->n_files, sizeof *m->files, err))) return false;
    for (; m->n_files < c->reader->n_files; m->n_files++)
        if (!file_dup(&m->files[m->n_files], &c->reader->files[m->n_files], err)) return false;
    return true;
}

/* Point what stays in the file at descriptors that last. */
static bool bind_files(struct loader *l, struct unmask_err *err)
{
    struct unmask_model *m = l->m;
    const struct part *embed = part_of(l, T_EMBED, 0);
    if (!m->n_stream && !embed->away) return true;
    if (!keep_files(m, l->c, err)) return false;
    if (embed->away) {
        m->embed_file = &m->files[embed->t->file - l->c->reader->files];
        m->embed_offset = embed->t->offset;
    }
    for (int i = 0; i < m->n_stream; i++) m->stream[i].file = &m->files[m->stream[i].file - l->c->reader->files];
    return true;
}

static bool fits(const struct checkpoint *c, uint64_t bytes, struct unmask_err *err)
{
    const uint64_t available = limits_memory();
    if (bytes <= available) return true;
    return fail(err, E_MODEL_MEMORY, .file = c->path, .found = FMT("%.1f GiB available", (double)available / 0x1p30),
                .need = FMT("%.1f GiB for its weights", (double)bytes / 0x1p30));
}

static void loader_free(struct loader *l)
{
    if (!l) return;
    if (!l->layer_only) checkpoint_close((struct checkpoint *)l->c);
    mem_free(l->parts);
    mem_free(l);
}

bool model_load(struct unmask_model *m, size_t ring_bytes, int threads, struct unmask_err *err)
{
    struct loader *l = m->loader;
    struct pool *pool = NULL;
    bool ok = (m->layers = mem_zalloc((size_t)m->h.n_layer, sizeof *m->layers, err)) && fits(l->c, l->memory_bytes, err)
        && (m->memory = mem_aligned((size_t)l->memory_bytes, err)) && pool_open(&pool, threads, err)
        && load_parts(l, pool, err) && files_unchanged(l->c, err);
    if (ok && !l->layer_only) bind_outside(l);
    if (ok) bind_layers(l);
    for (size_t i = 0; i < l->c->reader->n_files; i++)
        if (l->c->reader->files[i].once) file_forget(&l->c->reader->files[i], 0, 0);         /* what was read ahead, too */
    ok = ok && bind_files(l, err);
    m->ring_bytes = ring_bytes;
    pool_close(pool);
    mem_free(l->scratch);
    loader_free(l);
    m->loader = NULL;
    return ok;
}

/* The tokenizer, the ids that it knows, and the chat template, which only a chat needs. */
static bool read_tokenizer(struct unmask_model *m, const struct checkpoint *c, bool without, struct unmask_err *err)
{
    if (!without && !tokenizer_open(&m->tokenizer, c, err)) return false;
    if (m->tokenizer) m->chat = chat_template_of(m->tokenizer, &m->chat_err);
    return arch_settle_ids(&m->h, c, m->tokenizer, err);
}

/* Optional keys of ours; those of the same meaning elsewhere keep it. */
static bool read_defaults(struct unmask_model *m, const struct checkpoint *c, struct unmask_err *err)
{
    int64_t gen = 0, block = 0, steps = 0;
    double threshold = 0;
    if (!meta_int(c, "diffusion.gen_length", 1, m->h.n_ctx, false, &gen, err)
        || !meta_int(c, "diffusion.block_length", 1, m->h.n_ctx, false, &block, err)
        || !meta_int(c, "diffusion.steps", 1, 1 << 20, false, &steps, err)
        || !meta_float(c, "diffusion.threshold", 0, 1, false, &threshold, err))
        return false;
    m->defaults = (struct unmask_options){
        .gen_length = gen ? (int)gen : 128, .block_length = block ? (int)block : 32, .steps = (int)steps,
        .threshold = threshold > 0 ? (float)threshold : steps ? 0 : 0.9f, .early_stop = true,
    };
    return true;
}

static bool read_name(struct unmask_model *m, const struct checkpoint *c, struct unmask_err *err)
{
    const struct str name = checkpoint_name(c);
    return (m->name = mem_strndup(name.s, name.n, err)) && (m->path = mem_strndup(c->path, strlen(c->path), err));
}

bool model_kernels(struct kernels *k, struct unmask_err *err)
{
    return kernels_init(k, "auto")
        || fail(err, E_RUN_CPU, .need = "AVX2 and FMA, as Intel Core has since 2013 and AMD Ryzen since 2017");
}

static bool choose_kernels(struct unmask_model *m, const char *isa, struct unmask_err *err)
{
    if ((m->isa = kernels_init(&m->kernels, isa))) return true;
    if (!model_kernels(&m->kernels, err)) return false;
    return fail(err, E_GEN_VALUE, .field = "isa", .found = isa, .need = "a set that this CPU has", .hint = "`unmask version` lists them");
}

/* layer: the only one, or -1 for the whole model, whose loader then closes the checkpoint. */
static bool find_weights(struct unmask_model *m, const struct checkpoint *c, int layer, struct unmask_err *err)
{
    struct loader *l = m->loader = mem_zalloc(1, sizeof *l, err);
    if (!l) return false;
    *l = (struct loader){ .m = m, .c = c, .layer_only = layer >= 0, .first_layer = layer < 0 ? 0 : layer };
    if (!(m->stream = mem_zalloc((size_t)m->h.n_layer * LAYER_MATRICES, sizeof *m->stream, err))
        || !(l->parts = mem_zalloc((size_t)(m->h.n_layer + 1) * TENSOR_ROLES, sizeof *l->parts, err))
        || !plan_parts(l, &m->weight_bytes, err)) return false;
    m->embed_format = l->layer_only ? NULL : part_of(l, T_EMBED, 0)->t->format;
    m->k_pack = part_of(l, T_K, 0)->pack;
    model_divide(m, UINT64_MAX);
    return true;
}

bool model_prepare(struct unmask_model **out, const char *path, const struct unmask_open_options *opts, struct unmask_err *err)
{
    static const struct unmask_open_options none;
    if (!opts) opts = &none;
    struct checkpoint *c = NULL;
    struct unmask_model *m = mem_zalloc(1, sizeof *m, err);
    bool ok = m && (m->in_sessions = mem_zalloc(1, sizeof *m->in_sessions, err))
        && checkpoint_open(&c, path, err) && choose_kernels(m, opts->isa, err);
    for (size_t i = 0; ok && opts->memory_budget && i < c->reader->n_files; i++) c->reader->files[i].once = true;
    ok = ok && (m->arch = arch_of(c, err)) && arch_hparams(m->arch, c, &m->h, err) && read_defaults(m, c, err) && read_name(m, c, err)
        && read_tokenizer(m, c, opts->without_tokenizer, err) && find_weights(m, c, -1, err);
    if (ok) {
        m->loader->on_load = opts->on_load;
        m->loader->user = opts->user;
        *out = m;
    } else {
        if (!m || !m->loader || !m->loader->c) checkpoint_close(c);             /* else the loader closes it */
        model_close(m);
    }
    return ok;
}

bool model_open_layer(struct unmask_model **out, const struct arch *a, const struct checkpoint *c, const struct hparams *h, int layer,
                      int threads, struct unmask_err *err)
{
    struct unmask_model *m = mem_zalloc(1, sizeof *m, err);
    bool ok = m != NULL;
    if (ok) {
        m->arch = a;
        m->h = *h;
        m->h.n_layer = 1;
        ok = choose_kernels(m, NULL, err) && find_weights(m, c, layer, err) && model_load(m, 0, threads, err);
    }
    if (ok) *out = m;
    else model_close(m);
    return ok;
}

bool model_fail_output(const struct unmask_model *m, const char *where, const char *found, struct unmask_err *err)
{
    return fail(err, E_MODEL_OUTPUT, .file = m->path, .field = where, .found = found, .need = "finite numbers",
                .hint = "The weights are damaged; fetch the file again");
}

void model_close(struct unmask_model *m)
{
    if (!m) return;
    loader_free(m->loader);
    tokenizer_close(m->tokenizer);
    for (size_t i = 0; i < m->n_files; i++) file_close(&m->files[i]);
    mem_free(m->files);
    mem_free(m->stream);
    mem_free(m->layers);
    mem_free(m->memory);
    mem_free(m->in_sessions);
    mem_free(m->name);
    mem_free(m->path);
    mem_free(m);
}

size_t model_embed_scratch(const struct unmask_model *m)
{
    return m->embed_format ? quant_row_bytes(m->embed_format, (uint64_t)m->h.n_embd) : 0;
}

void model_embed(const struct unmask_model *m, int32_t id, float *out, void *scratch)
{
    const struct weight *w = &m->embed;
    const uint8_t *row = scratch;
    if (m->embed_rows) row = m->embed_rows + (size_t)id * model_embed_scratch(m);
    else w->pack->unpack_row(scratch, w->tiles + (size_t)(id / TILE_N) * w->pack->tile_bytes(w->k), id % TILE_N, w->k);
    m->embed_format->dequantize_row(out, row, (size_t)m->h.n_embd);
}
