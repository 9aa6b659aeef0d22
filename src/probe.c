/* probe.c - see probe.h. */
#include "probe.h"

#include <string.h>

#include "mem.h"
#include "timing.h"

enum { HEAD_SHARE = 8 };        /* the head may take so much of the memory: its rows are cut to fit */
static const double case_seconds = 0.15;
/* Of norms and biases.  Made-up weights are all of one sign, in Q4_K some hundreds: with ones here sums would grow beyond what
 * forward_pass() takes for numbers of a model, and no later pass would run. */
static const float small = 0x1p-20f;

struct probe {
    const struct unmask_model *real;
    struct unmask_model m;      /* fewer layers, a smaller vocabulary, made-up weights */
    uint8_t *region; uint64_t region_bytes, used;
    float *vector;              /* of `small` */
    struct pool *pool;
    struct forward *f;
    struct row_store *store;
    int n_keys, *rows, *need;   /* [n_keys] */
    int32_t *ids;
    float *x, *logits;
};

static uint64_t matrix_bytes(const struct weight *w) { return (uint64_t)tiles_of(w->n) * w->pack->tile_bytes(w->k); }

/* A place for a matrix; places are used again where there is not enough. */
static void place(struct probe *p, struct weight *w)
{
    if (p->used + matrix_bytes(w) > p->region_bytes) p->used = 0;
    w->tiles = p->region + p->used;
    p->used += matrix_bytes(w);
}

#define EACH_MATRIX(l, w) \
    for (struct weight *const all_[] = { &(l)->k, &(l)->v, &(l)->q, &(l)->o, &(l)->gate, &(l)->up, &(l)->down }, \
                       *const *at_ = all_, *w; \
         at_ < all_ + 7 && (w = *at_); at_++)

/* Choose how many layers and how much of the head to make up. */
static bool shape(struct probe *p, uint64_t most_bytes, struct unmask_err *err)
{
    struct unmask_model *m = &p->m;
    struct weight head;
    struct layer one = model_shape(p->real, &head);
    uint64_t layer = 0, largest = 0;
    EACH_MATRIX(&one, w) {
        layer += matrix_bytes(w);
        if (matrix_bytes(w) > largest) largest = matrix_bytes(w);
    }
    const uint64_t fit = most_bytes / (layer ? layer : 1);
    const uint64_t tile = head.pack->tile_bytes(head.k), head_tiles = most_bytes / HEAD_SHARE / tile;
    m->h.n_layer = fit < 1 ? 1 : fit < (uint64_t)m->h.n_layer ? (int)fit : m->h.n_layer;
    if (head_tiles < (uint64_t)tiles_of(head.n)) m->h.n_vocab = head.n = (int)(head_tiles < 64 ? 64 : head_tiles) * TILE_N;
    if (m->h.n_vocab > p->real->h.n_vocab) m->h.n_vocab = head.n = p->real->h.n_vocab;
    p->region_bytes = (uint64_t)m->h.n_layer * layer + matrix_bytes(&head);
    if (p->region_bytes > most_bytes) p->region_bytes = most_bytes;
    if (p->region_bytes < largest) p->region_bytes = largest;
    if (p->region_bytes < matrix_bytes(&head)) p->region_bytes = matrix_bytes(&head);
    if (!(p->region = mem_aligned((size_t)p->region_bytes, err))
        || !(m->layers = mem_zalloc((size_t)m->h.n_layer, sizeof *m->layers, err))) return false;
    memset(p->region, 0x3C, (size_t)p->region_bytes);          /* in every format ordinary numbers */
    for (int i = 0; i < m->h.n_layer; i++) {
        m->layers[i] = one;
        EACH_MATRIX(&m->layers[i], w) place(p, w);
        m->layers[i].attn_norm = m->layers[i].ffn_norm = p->vector;
        if (m->h.qkv_bias) m->layers[i].q_bias = m->layers[i].k_bias = m->layers[i].v_bias = p->vector;
    }
    place(p, &head);
    m->head = m->embed = head;
    m->out_norm = p->vector;
    m->embed_rows = m->h.tied_head ? NULL : p->region;
    return true;
}

bool probe_open(struct probe **out, const struct unmask_model *m, const struct plan_need *need, uint64_t most_bytes, struct unmask_err *err)
{
    struct probe *p = mem_zalloc(1, sizeof *p, err);
    const int all_heads = m->h.n_head * m->h.head_dim;
    const size_t n = (size_t)need->n_tokens, wide = (size_t)(all_heads > m->h.n_embd ? all_heads : m->h.n_embd);
    if (!p) return false;
    p->real = m;
    p->n_keys = need->n_tokens;
    p->m = (struct unmask_model){ .arch = m->arch, .h = m->h, .kernels = m->kernels, .isa = m->isa,
                                  .k_pack = m->k_pack, .embed_format = m->embed_format };
    bool ok = (p->vector = mem_zalloc(wide, sizeof *p->vector, err)) != NULL;
    for (size_t i = 0; ok && i < wide; i++) p->vector[i] = small;
    ok = ok && shape(p, most_bytes, err) && pool_open(&p->pool, need->threads, err)
        && forward_open(&p->f, &p->m, need->n_tokens, 1, p->pool, err)
        && row_store_open(&p->store, need->kind, &p->m.h, need->n_tokens, (struct store_layers){ .n = 0 }, err)
        && (p->rows = mem_zalloc(n, sizeof *p->rows, err))
        && (p->need = mem_zalloc(n, sizeof *p->need, err)) && (p->ids = mem_zalloc(n, sizeof *p->ids, err))
        && (p->x = mem_aligned(n * (size_t)m->h.n_embd * sizeof *p->x, err))
        && (p->logits = mem_aligned(LOGIT_ROWS * logits_stride(&p->m) * sizeof *p->logits, err));
    for (size_t i = 0; ok && i < n; i++) p->rows[i] = p->need[i] = (int)i;
    if (ok) *out = p;
    else probe_close(p);
    return ok;
}

void probe_close(struct probe *p)
{
    if (!p) return;
    row_store_close(p->store);
    forward_close(p->f);
    pool_close(p->pool);
    mem_free(p->m.layers);
    mem_free(p->region);
    mem_free(p->vector);
    mem_free(p->rows);
    mem_free(p->need);
    mem_free(p->ids);
    mem_free(p->x);
    mem_free(p->logits);
    mem_free(p);
}

/* Seconds of a pass that holds such a piece of rows `times` times, and of rows of logits `head_times` times. */
static bool pass(struct probe *p, int n_rows, int n_logits, double times, double head_times, double *seconds, struct unmask_err *err)
{
    const double start = timing_now();
    const bool whole = p->m.h.n_layer == p->real->h.n_layer;   /* then the last layer is as short as it will be */
    if (!forward_pass(p->f, &(struct pass){ .n_branches = 1, .ids = { p->ids }, .store = { p->store }, .n_keys = p->n_keys,
                                            .rows = p->rows, .n_rows = n_rows, .need = whole ? p->need : NULL, .n_need = n_logits,
                                            .x = p->x })) return !forward_failed(p->f, err);
    const double layers = timing_now() - start;
    for (int at = 0; at < n_logits; at += LOGIT_ROWS)
        forward_logits(p->f, p->x, p->need + at, n_logits - at < LOGIT_ROWS ? n_logits - at : LOGIT_ROWS, p->logits, logits_stride(&p->m));
    *seconds = times * layers * p->real->h.n_layer / p->m.h.n_layer
             + head_times * (timing_now() - start - layers) * p->real->h.n_vocab / p->m.h.n_vocab;
    return true;
}

bool probe_pass(struct probe *p, int n_rows, int n_logits, double *seconds, struct unmask_err *err)
{
    const int now = n_rows < FORWARD_CHUNK ? n_rows : FORWARD_CHUNK;          /* longer passes take such pieces */
    const int logits = n_logits < now ? n_logits : now, few = now < ROW_GROUP ? now : ROW_GROUP;
    double all[32], start = timing_now();
    int n = 0;
    if (!pass(p, few, few, 1, 1, seconds, err)) return false;                 /* threads wake up, pages are there */
    do if (!pass(p, now, logits, (double)n_rows / now, logits ? (double)n_logits / logits : 0, &all[n++], err)) return false;
    while (n < 32 && timing_now() - start < case_seconds);
    *seconds = timing_median(all, n);
    return true;
}

bool probe_reading(const struct unmask_model *m, size_t ring_bytes, double seconds, double *rate, struct unmask_err *err)
{
    struct stream *s;
    uint64_t bytes = 0;
    *rate = 0;
    if (!m->n_stream) return true;
    if (!stream_open(&s, m->stream, m->n_stream, ring_bytes, err)) return false;
    const double start = timing_now();
    double past = 0;
    bool ok = true;
    for (int part = 0; ok && part < m->n_stream && past < seconds; part++)
        for (int tile = 0; ok && tile < m->stream[part].n_tiles && past < seconds; tile += stream_unit(s, part)) {
            ok = stream_take(s, part, tile) != NULL;
            if (ok) stream_give(s, part, tile, 1, 1);
            const int left = m->stream[part].n_tiles - tile, now = left < stream_unit(s, part) ? left : stream_unit(s, part);
            bytes += (uint64_t)now * m->stream[part].tile_bytes;
            past = timing_now() - start;
        }
    ok = !stream_failed(s, err) && ok;
    if (past > 0) *rate = (double)bytes / past;
    stream_close(s);
    return ok;
}
