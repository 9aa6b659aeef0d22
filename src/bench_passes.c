/* bench_passes.c - time whole passes over a model, without tokenizer or sampling: forward_pass() and the logits of the last
 * rows, as a denoising step needs them. */
#include "bench.h"

#include <time.h>

#include "cmd.h"
#include "forward.h"
#include "json.h"
#include "mem.h"

enum { LEAST_RUNS = 3, MOST_RUNS = 1000, WARM_UP = 8 };
static const double case_seconds = 2;           /* what a case may take beyond LEAST_RUNS */

struct bench {
    const struct settings *s;
    const struct unmask_model *m;
    struct pool *pool;
    json_t *rows;
    double load_seconds;
    struct progress progress;
};

/* One row of the result: passes over n_tokens ids with the logits of the last n_logits of them. */
struct passes {
    int n_tokens, n_logits;
    struct forward *f;
    struct row_store *store;
    int32_t *ids;
    int *need;                  /* the last n_logits rows */
    float *x, *logits;
    struct stage_seconds stages;
    double read_seconds[MOST_RUNS]; uint64_t bytes_read;        /* of a pass over streamed weights, without arithmetic */
    double seconds[MOST_RUNS], cpu_seconds[MOST_RUNS]; int n_runs;      /* by the clock; of all threads */
};

static bool still_wanted(void *user, int layer, const float *x)
{
    (void)user, (void)layer, (void)x;
    return term_signal() == 0;
}

static bool pass(struct passes *p, const struct unmask_model *m, int n_tokens)
{
    const int n_logits = p->n_logits < n_tokens ? p->n_logits : n_tokens;
    for (int i = 0; i < n_logits; i++) p->need[i] = n_tokens - n_logits + i;
    if (!forward_pass(p->f, &(struct pass){ .n_branches = 1, .ids = { p->ids }, .store = { p->store },
                                            .n_keys = n_tokens, .n_rows = n_tokens, .need = p->need, .n_need = n_logits,
                                            .x = p->x, .on_layer = still_wanted })) return false;
    for (int at = 0; at < n_logits; at += LOGIT_ROWS)
        forward_logits(p->f, p->x, p->need + at, n_logits - at < LOGIT_ROWS ? n_logits - at : LOGIT_ROWS, p->logits, logits_stride(m));
    return true;
}

/* Processor time of all threads: what a pass costs when other programs take part of the machine. */
static double cpu_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool measure(struct passes *p, struct bench *b, struct unmask_err *err)
{
    const size_t n = (size_t)p->n_tokens;
    if (!forward_open(&p->f, b->m, p->n_tokens, 1, b->pool, err) || !(p->ids = mem_zalloc(n, sizeof *p->ids, err))
        || !row_store_open(&p->store, forward_store_kind(b->m), &b->m->h, p->n_tokens, (struct store_layers){ .n = 0 }, err)
        || !(p->need = mem_zalloc(n, sizeof *p->need, err))
        || !(p->x = mem_aligned(n * (size_t)b->m->h.n_embd * sizeof(float), err))
        || !(p->logits = mem_aligned(LOGIT_ROWS * logits_stride(b->m) * sizeof(float), err))) return false;
    for (int i = 0; i < p->n_tokens; i++) p->ids[i] = (int32_t)((i * 7919LL + 13) % b->m->h.n_vocab);
    if (!pass(p, b->m, p->n_tokens < WARM_UP ? p->n_tokens : WARM_UP)) return fail(err, E_CANCELLED, .hint = NULL);
    forward_measure(p->f, &p->stages);
    for (double sum = 0; p->n_runs < MOST_RUNS && (p->n_runs < LEAST_RUNS || sum < case_seconds); sum += p->seconds[p->n_runs++]) {
        progress_show(&b->progress, p->n_runs, LEAST_RUNS, "passes", FMT("%d tokens", p->n_tokens));
        const uint64_t before = forward_bytes_read(p->f);
        const double start = timing_now(), cpu_start = cpu_now();
        if (!pass(p, b->m, p->n_tokens)) return !forward_failed(p->f, err) && fail(err, E_CANCELLED, .hint = NULL);
        p->seconds[p->n_runs] = timing_now() - start;
        p->cpu_seconds[p->n_runs] = cpu_now() - cpu_start;
        p->bytes_read += forward_bytes_read(p->f) - before;
        if (!b->m->n_stream) continue;
        const double read_start = timing_now();
        if (!forward_drain(p->f)) return !forward_failed(p->f, err);
        p->read_seconds[p->n_runs] = timing_now() - read_start;
    }
    forward_measure(p->f, NULL);
    return true;
}

static void passes_free(struct passes *p)
{
    if (!p) return;
    forward_close(p->f);
    row_store_close(p->store);
    mem_free(p->need);
    mem_free(p->ids);
    mem_free(p->x);
    mem_free(p->logits);
    mem_free(p);
}

/* ---- the row of the result ---- */

/* Weights of the matrices that every token, and that every logit row, is multiplied by. */
static double layer_weights(const struct unmask_model *m)
{
    const struct hparams *h = &m->h;
    const double d = h->n_embd, q = (double)h->n_head * h->head_dim, kv = (double)h->n_head_kv * h->head_dim, ff = h->n_ff;
    return h->n_layer * (2 * d * q + 2 * d * kv + 3 * d * ff);
}
static double head_weights(const struct unmask_model *m) { return (double)m->h.n_embd * m->h.n_vocab; }

/* Bytes of packed weights that one pass needs: all matrices, less an embedding that is not the head too. */
static double bytes_of_pass(const struct unmask_model *m)
{
    const double embedding = m->h.tied_head ? 0 : (double)m->h.n_vocab * (double)model_embed_scratch(m);
    return (double)m->weight_bytes - embedding;
}

/* Shares of the time of all runs.  "other" is what lies between the stages. */
static json_t *shares(const struct passes *p)
{
    static const char *const names[] = {
#define X(id, name) name,
        STAGES(X)
#undef X
    };
    json_t *o = json_object();
    double all = 0, rest;
    for (int i = 0; i < p->n_runs; i++) all += p->seconds[i];
    rest = all - p->stages.waiting;
    for (int i = 0; i < N_STAGES; i++) {
        json_object_set_new(o, names[i], json_real(p->stages.of[i] / all));
        rest -= p->stages.of[i];
    }
    json_object_set_new(o, "sync", json_real(p->stages.waiting / all));
    json_object_set_new(o, "other", json_real(rest / all));
    return o;
}

static json_t *row_of(struct passes *p, const struct bench *b)
{
    const struct unmask_model *m = b->m;
    json_t *share = shares(p), *row;
    const double median = timing_median(p->seconds, p->n_runs), cpu = timing_median(p->cpu_seconds, p->n_runs);
    const double macs = layer_weights(m) * p->n_tokens + head_weights(m) * p->n_logits;
    row = json_pack("{s:s,s:o,s:s,s:s,s:i,s:i,s:i,s:i,s:f,s:f,s:f,s:f,s:f,s:f,s:I,s:o}",
                     "test", "pass", "model", json_cstr(m->name), "format", m->weight_format, "isa", m->isa,
                     "tokens", p->n_tokens, "logit_rows", p->n_logits, "threads", pool_threads(b->pool), "runs", p->n_runs,
                     "seconds", median,
                     "fastest", p->seconds[0], "cpu_seconds", cpu, "gops", 2e-9 * macs / median,
                     "weights_gbps", 1e-9 * bytes_of_pass(m) / median,
                     "load_seconds", b->load_seconds, "peak_rss_bytes", (json_int_t)term_peak_rss(), "share_by_kernel", share);
    if (row && m->n_stream) {
        json_object_set_new(row, "bytes_read", json_integer((json_int_t)(p->bytes_read / (uint64_t)p->n_runs)));
        json_object_set_new(row, "read_seconds", json_real(timing_median(p->read_seconds, p->n_runs)));
    }
    return row;
}

static bool one_case(void *user, int n_tokens, struct unmask_err *err)
{
    struct bench *b = user;
    struct passes *p = mem_zalloc(1, sizeof *p, err);
    if (!p) return false;
    p->n_tokens = n_tokens;
    p->n_logits = b->s->logit_rows < n_tokens ? b->s->logit_rows : n_tokens;
    const bool ok = measure(p, b, err);
    if (ok) json_array_append_new(b->rows, row_of(p, b));
    passes_free(p);
    return ok;
}

bool bench_passes(const struct settings *s, const struct term *t, json_t *rows, struct unmask_err *err)
{
    char path[1024];
    struct unmask_model *m = NULL;
    struct bench b = { .s = s, .rows = rows };
    struct unmask_open_options o = cmd_open_options(s, true);
    const double start = timing_now();
    bool ok = cmd_model_path(s, path, err) && cmd_load(s, t, path, &o, &m, err);
    b.load_seconds = timing_now() - start;
    b.m = m;
    progress_start(&b.progress, s, t);
    ok = ok && pool_open(&b.pool, s->threads, err)
        && bench_each_size(s->tokens, "32,128,512", m->h.n_ctx, ", the model's context, like 32,128,512", one_case, &b, err);
    progress_end(&b.progress);
    pool_close(b.pool);
    model_close(m);
    return ok;
}
