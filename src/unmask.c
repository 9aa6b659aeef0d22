/* unmask.c - the public interface: argument checks, and results that outlive their session. */
#include "unmask.h"

#include <math.h>
#include <string.h>

#include "denoise.h"
#include "likelihood.h"
#include "mem.h"
#include "plan.h"
#include "timing.h"

/* Return with an error from a public function where a pointer is NULL. */
#define NEED(pointer) do { if (!(pointer)) return fail(err, E_RUN_NULL, .field = #pointer); } while (0)

static bool not_negative(const char *field, int found, struct unmask_err *err)
{
    return found >= 0 || fail(err, E_GEN_VALUE, .field = field, .found = FMT("%d", found), .need = "0 or more");
}

/* ---- model ---- */

bool unmask_open(struct unmask_model **out, const char *path, const struct unmask_open_options *opts, struct unmask_err *err)
{
    static const struct unmask_open_options none;
    struct unmask_model *m;
    NEED(out);
    *out = NULL;
    NEED(path);
    if (!opts) opts = &none;
    if (!not_negative("threads", opts->threads, err) || !not_negative("context", opts->context, err)
        || !not_negative("sessions", opts->sessions, err) || !not_negative("logit_rows", opts->logit_rows, err)) return false;
    if (!session_check_open(opts, err) || !model_prepare(&m, path, opts, err)) return false;
    const struct plan_need need = plan_need_of(m, opts);
    const struct memory_plan plan = plan_memory(m, &need, opts->memory_budget);
    m->budget = plan.budget;
    m->taken = plan.program + plan.resident + plan.kept;
    const bool ok = (plan.fits || plan_refuse(&plan, path, err)) && model_load(m, plan.ring_asked, opts->threads, err);
    if (ok) *out = m;
    else model_close(m);
    return ok;
}

void unmask_close(struct unmask_model *m) { model_close(m); }

void unmask_model_get_info(const struct unmask_model *m, struct unmask_model_info *info)
{
    if (!info) return;
    *info = (struct unmask_model_info){ .mask_id = -1, .eos_id = -1, .eot_id = -1, .bos_id = -1 };
    if (!m) return;
    const struct hparams *h = &m->h;
    *info = (struct unmask_model_info){
        .name = m->name, .architecture = m->arch->name, .isa = m->isa, .weight_format = m->weight_format,
        .parameters = m->parameters, .weight_bytes = m->weight_bytes, .n_layer = h->n_layer, .n_embd = h->n_embd, .n_vocab = h->n_vocab,
        .context_length = h->n_ctx, .mask_id = h->mask_id, .eos_id = h->eos_id, .eot_id = h->eot_id, .bos_id = h->bos_id,
        .has_tokenizer = m->tokenizer != NULL,
    };
}

/* ---- text ---- */

static bool need_tokenizer(const struct unmask_model *m, struct unmask_err *err)
{
    return m->tokenizer || fail(err, E_GEN_NO_TOKENIZER, .file = m->path);
}

/* What is given for ids when there are none. */
static void no_ids(int32_t **ids, size_t *n)
{
    if (ids) *ids = NULL;
    if (n) *n = 0;
}

bool unmask_tokenize(const struct unmask_model *m, const char *text, size_t len, unsigned flags,
                     int32_t **ids, size_t *n, struct unmask_err *err)
{
    no_ids(ids, n);
    NEED(ids);
    NEED(n);
    NEED(m);
    NEED(text || !len);
    if (need_tokenizer(m, err) && tokenizer_encode(m->tokenizer, text, len, flags & UNMASK_SPECIAL, ids, n, err)) return true;
    mem_free(*ids);
    no_ids(ids, n);
    return false;
}

bool unmask_detokenize(const struct unmask_model *m, const int32_t *ids, size_t n, unsigned flags,
                       char **text, size_t *len, struct unmask_err *err)
{
    struct token_decoder d = { .n_held = 0 };
    struct text_out out = { NULL, 0, 0 };
    if (text) *text = NULL;
    if (len) *len = 0;
    NEED(text);
    NEED(len);
    NEED(m);
    NEED(ids || !n);
    if (!need_tokenizer(m, err) || !tokenizer_decode(m->tokenizer, &d, ids, n, flags & UNMASK_SPECIAL, &out, err)
        || !tokenizer_decode_end(&d, &out, err) || (!out.s && !(out.s = mem_zalloc(1, 1, err)))) {
        mem_free(out.s);
        return false;
    }
    *text = out.s;
    *len = out.n;
    return true;
}

bool unmask_chat_ids(const struct unmask_model *m, const struct unmask_message *messages, size_t n_messages, int32_t **ids, size_t *n,
                     struct unmask_err *err)
{
    no_ids(ids, n);
    NEED(ids);
    NEED(n);
    NEED(m);
    NEED(messages || !n_messages);
    for (size_t i = 0; i < n_messages; i++) {
        NEED(messages[i].role);
        NEED(messages[i].content);
    }
    if (!need_tokenizer(m, err)) return false;
    if (!m->chat) {
        if (err) *err = m->chat_err;
        return false;
    }
    struct chat_message *list = mem_zalloc(n_messages, sizeof *list, err);
    if (!list) return false;
    for (size_t i = 0; i < n_messages; i++)
        list[i] = (struct chat_message){ .role = messages[i].role, .text = messages[i].content,
                                         .n_text = messages[i].n_content ? messages[i].n_content : strlen(messages[i].content) };
    const bool ok = chat_encode(m->chat, m->tokenizer, list, n_messages, ids, n, err);
    mem_free(list);
    if (!ok) {
        mem_free(*ids);
        no_ids(ids, n);
    }
    return ok;
}

void unmask_free(void *p) { mem_free(p); }

/* ---- sessions ---- */

bool unmask_session_open(struct unmask_session **out, const struct unmask_model *m, int threads, struct unmask_err *err)
{
    NEED(out);
    *out = NULL;
    NEED(m);
    if (!not_negative("threads", threads, err)) return false;
    struct unmask_session *s = mem_zalloc(1, sizeof *s, err);
    if (!s) return false;
    s->m = m;
    if (!pool_open(&s->pool, threads, err)) {
        mem_free(s);
        return false;
    }
    *out = s;
    return true;
}

void unmask_session_close(struct unmask_session *s)
{
    if (!s) return;
    session_release(s);
    pool_close(s->pool);
    mem_free(s);
}

/* ---- generation ---- */

void unmask_options_default(const struct unmask_model *m, struct unmask_options *o)
{
    if (o) *o = m ? m->defaults : (struct unmask_options){ .gen_length = 0 };
}

static bool in_range(const char *name, double v, double min, double max, struct unmask_err *err)
{
    return (v >= min && v <= max)
        || fail(err, E_GEN_VALUE, .field = name, .found = FMT(v == rint(v) ? "%.10g" : "%g", v), .need = FMT("%.10g to %.10g", min, max));
}

static bool check_options(const struct unmask_model *m, const struct unmask_options *o, struct unmask_err *err)
{
    if (!in_range("gen_length", o->gen_length, 0, 1 << 24, err) || !in_range("block_length", o->block_length, 0, 1 << 24, err)
        || !in_range("steps", o->steps, 0, 1 << 24, err) || !in_range("temperature", (double)o->temperature, 0, 2, err)
        || !in_range("cfg_scale", (double)o->cfg_scale, 0, 100, err) || !in_range("threshold", (double)o->threshold, 0, 1, err)
        || !in_range("factor", (double)o->factor, 0, 1e6, err)
        || !in_range("remasking", o->remasking, UNMASK_LOW_CONFIDENCE, UNMASK_RANDOM, err)) return false;
    if (o->threshold > 0 && o->factor > 0)
        return fail(err, E_GEN_VALUE, .field = "threshold, factor", .found = "both", .need = "one commit rule at a time");
    if (!session_check_names(o->reuse, o->store, err)) return false;
    if ((o->logits_eos_inf || o->confidence_eos_eot_inf) && m->h.eos_id < 0)
        return fail(err, E_GEN_NO_TOKEN, .field = o->logits_eos_inf ? "logits_eos_inf" : "confidence_eos_eot_inf",
                    .need = "an end-of-text token");
    if (o->confidence_eos_eot_inf && m->h.eot_id < 0)
        return fail(err, E_GEN_NO_TOKEN, .field = "confidence_eos_eot_inf", .need = "an end-of-turn token");
    return true;
}

void unmask_result_free(struct unmask_result *r)
{
    if (!r) return;
    mem_free(r->canvas);
    mem_free(r->confidence);
    *r = (struct unmask_result){ .canvas = NULL };
}

/* Run d, whose canvas stands in r, and finish r.  block_end is freed. */
static bool run(struct unmask_session *s, struct denoise *d, int *block_end, struct unmask_result *r, struct unmask_err *err)
{
    const double start = timing_now();
    d->canvas = r->canvas;
    d->n_canvas = r->n_canvas;
    bool ok = block_end && (r->confidence = mem_resize(NULL, (size_t)r->n_canvas, sizeof(float), err)) && session_denoise(s, d, err);
    bool cancelled = false;
    if (ok) {
        for (int i = 0; i < r->n_canvas; i++) r->confidence[i] = NAN;
        d->confidence = r->confidence;
        d->block_end = block_end;
        ok = denoise_run(d, &r->finish, err);
        cancelled = !ok && r->finish == UNMASK_FINISH_CANCELLED;
    }
    mem_free(block_end);
    if (!ok && !cancelled) {
        unmask_result_free(r);
        return false;
    }
    const int end = d->o->early_stop ? denoise_end(s->m, r->canvas, r->n_prompt, r->n_canvas) : -1;
    r->ids = r->canvas + r->n_prompt;
    r->n_ids = (end < 0 ? r->n_canvas - 1 : end) + 1 - r->n_prompt;
    r->steps = d->steps;
    r->passes = d->passes;
    r->rows = (d->row_layers + (uint64_t)s->m->h.n_layer / 2) / (uint64_t)s->m->h.n_layer;
    r->n_blocks = d->n_blocks;
    r->audit = (struct unmask_audit){ d->audit.audits, d->audit.disagreements, d->audit.refreshes, d->audit.largest,
                                      d->audit.audits ? d->audit.kl / d->audit.audits : 0 };
    r->seconds = timing_now() - start;
    return ok;
}

/* One call at a time: a callback, or another thread, that calls again would pull the work space from under the first. */
static bool enter(struct unmask_session *s, struct unmask_err *err)
{
    return !atomic_exchange(&s->busy, true)
        || fail(err, E_RUN_BUSY, .need = "one call at a time, also from callbacks", .hint = "Open a session for each thread or task");
}

static bool leave(struct unmask_session *s, bool ok)
{
    atomic_store(&s->busy, false);
    return ok;
}

static bool generate(struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const struct unmask_options *options,
                     unmask_step_fn *on_step, void *user, struct unmask_result *r, struct unmask_err *err)
{
    struct unmask_options o = *options;
    if (!check_options(s->m, &o, err) || !session_check_ids(s, prompt, n_prompt, err)) return false;
    if (!o.gen_length) o.gen_length = s->m->defaults.gen_length;
    if (!o.block_length) o.block_length = s->m->defaults.block_length;
    if (o.block_length > o.gen_length) o.block_length = o.gen_length;
    const size_t ctx = (size_t)s->m->h.n_ctx, room = n_prompt < ctx ? ctx - n_prompt : 0;
    if (room < (size_t)o.block_length)
        return fail(err, E_GEN_CONTEXT, .found = FMT("%zu prompt tokens and a block of %d", n_prompt, o.block_length),
                    .need = FMT("at most %zu together, the model's context", ctx), .hint = "Shorten the prompt or the block length");
    if ((size_t)o.gen_length > room) o.gen_length = (int)room;
    if (!o.steps && o.threshold <= 0 && o.factor <= 0) o.steps = o.gen_length;

    r->n_prompt = (int)n_prompt;
    r->n_canvas = (int)n_prompt + o.gen_length;
    const int n_blocks = (o.gen_length + o.block_length - 1) / o.block_length;
    int *block_end = mem_zalloc((size_t)n_blocks, sizeof *block_end, err);
    if (!block_end || !(r->canvas = mem_resize(NULL, (size_t)r->n_canvas, sizeof(int32_t), err))) {
        mem_free(block_end);
        return false;
    }
    if (n_prompt) memcpy(r->canvas, prompt, n_prompt * sizeof *prompt);
    for (int i = r->n_prompt; i < r->n_canvas; i++) r->canvas[i] = s->m->h.mask_id;
    for (int b = 0; b < n_blocks; b++) block_end[b] = b + 1 < n_blocks ? r->n_prompt + (b + 1) * o.block_length : r->n_canvas;
    struct denoise d = { .o = &o, .n_prompt = r->n_prompt, .n_blocks = n_blocks, .block_start = r->n_prompt,
                         .on_step = on_step, .user = user };
    return run(s, &d, block_end, r, err);
}

bool unmask_generate(struct unmask_session *session, const int32_t *prompt, size_t n_prompt, const struct unmask_options *options,
                     unmask_step_fn *on_step, void *user, struct unmask_result *result, struct unmask_err *err)
{
    NEED(result);
    *result = (struct unmask_result){ .canvas = NULL };
    NEED(session);
    NEED(prompt || !n_prompt);
    NEED(options);
    struct unmask_result r = { .canvas = NULL };                /* not in the caller's hands while callbacks run */
    const bool ok = enter(session, err) && leave(session, generate(session, prompt, n_prompt, options, on_step, user, &r, err));
    *result = r;
    return ok;
}

static bool infill(struct unmask_session *s, const int32_t *canvas, size_t n_canvas, const struct unmask_options *options,
                   unmask_step_fn *on_step, void *user, struct unmask_result *r, struct unmask_err *err)
{
    struct unmask_options o = *options;
    o.early_stop = false;
    if (!check_options(s->m, &o, err) || !session_check_ids(s, canvas, n_canvas, err)) return false;
    if (n_canvas > (size_t)s->m->h.n_ctx)
        return fail(err, E_GEN_CONTEXT, .found = FMT("a canvas of %zu tokens", n_canvas), .need = FMT("at most %d", s->m->h.n_ctx));
    int masks = 0;
    for (size_t i = 0; i < n_canvas; i++) masks += canvas[i] == s->m->h.mask_id;
    if (!masks) return fail(err, E_GEN_NO_MASK, .found = FMT("%zu tokens, none of them %d", n_canvas, s->m->h.mask_id));
    if (!o.block_length || o.block_length > masks) o.block_length = masks;
    if (!o.steps && o.threshold <= 0 && o.factor <= 0) o.steps = masks;

    r->n_canvas = (int)n_canvas;
    const int n_blocks = (masks + o.block_length - 1) / o.block_length;
    int *block_end = mem_zalloc((size_t)n_blocks, sizeof *block_end, err);
    if (!block_end || !(r->canvas = mem_resize(NULL, n_canvas, sizeof *canvas, err))) {
        mem_free(block_end);
        return false;
    }
    memcpy(r->canvas, canvas, n_canvas * sizeof *canvas);
    for (int i = 0, seen = 0; i < r->n_canvas; i++)
        if (canvas[i] == s->m->h.mask_id) block_end[seen++ / o.block_length] = i + 1;
    struct denoise d = { .o = &o, .n_blocks = n_blocks, .on_step = on_step, .user = user };
    return run(s, &d, block_end, r, err);
}

bool unmask_infill(struct unmask_session *session, const int32_t *canvas, size_t n_canvas, const struct unmask_options *options,
                   unmask_step_fn *on_step, void *user, struct unmask_result *result, struct unmask_err *err)
{
    NEED(result);
    *result = (struct unmask_result){ .canvas = NULL };
    NEED(session);
    NEED(canvas || !n_canvas);
    NEED(options);
    struct unmask_result r = { .canvas = NULL };                /* not in the caller's hands while callbacks run */
    const bool ok = enter(session, err) && leave(session, infill(session, canvas, n_canvas, options, on_step, user, &r, err));
    *result = r;
    return ok;
}

/* ---- diagnostics ---- */

struct tap { const struct unmask_taps *t; bool stopped; };

static bool logits_finite(const struct unmask_session *s, const float *row, int position, struct unmask_err *err)
{
    for (int i = 0; i < s->m->h.n_vocab; i++)
        if (!isfinite(row[i]))
            return model_fail_output(s->m, FMT("position %d, token %d", position, i), FMT("%f", (double)row[i]), err);
    return true;
}

static bool tap_layer(void *user, int layer, const float *x)
{
    struct tap *tap = user;
    tap->stopped = !tap->t->hidden(tap->t->user, layer, x);
    return !tap->stopped;
}

static bool forward(struct unmask_session *s, const int32_t *ids, size_t n, const uint8_t *key_mask, const struct unmask_taps *taps,
                    struct unmask_err *err)
{
    if (n < 1 || n > (size_t)s->m->h.n_ctx)
        return fail(err, E_GEN_CONTEXT, .what = "a canvas that is no pass",
                    .found = FMT("%zu tokens", n), .need = FMT("1 to %d", s->m->h.n_ctx));
    if (!session_check_ids(s, ids, n, err)
        || !session_room(s, &(struct session_need){ .n_tokens = (int)n, .n_branches = 1, .work.logits = true }, err)) return false;
    const size_t ld = logits_stride(s->m), x_floats = n * (size_t)s->m->h.n_embd;
    float *x = mem_aligned((x_floats + LOGIT_ROWS * ld) * sizeof(float) + 64, err);
    if (!x) return false;
    float *logits = x + ((x_floats + LANES - 1) & ~(size_t)(LANES - 1));
    struct tap tap = { taps, false };
    forward_pass(s->f, &(struct pass){ .n_branches = 1, .ids = { ids }, .store = { s->store[0] }, .n_keys = (int)n,
                                       .key_mask = key_mask, .n_rows = (int)n, .x = x,
                                       .on_layer = taps->hidden ? tap_layer : NULL, .user = &tap });
    bool failed = forward_failed(s->f, err);
    for (int i = 0; taps->logits && !tap.stopped && !failed && i < (int)n; i += LOGIT_ROWS) {
        int rows[LOGIT_ROWS];
        const int k = (int)n - i < LOGIT_ROWS ? (int)n - i : LOGIT_ROWS;
        for (int r = 0; r < k; r++) rows[r] = i + r;
        forward_logits(s->f, x, rows, k, logits, ld);
        for (int r = 0; r < k && !tap.stopped && !failed; r++) {
            const float *row = logits + (size_t)r * ld;
            failed = !logits_finite(s, row, i + r, err);
            tap.stopped = !failed && !taps->logits(taps->user, i + r, row);
        }
    }
    mem_free(x);
    return !failed && (!tap.stopped || fail(err, E_CANCELLED, .hint = NULL));
}

bool unmask_forward(struct unmask_session *session, const int32_t *ids, size_t n, const uint8_t *key_mask, const struct unmask_taps *taps,
                    struct unmask_err *err)
{
    NEED(session);
    NEED(ids || !n);
    NEED(taps);
    return enter(session, err) && leave(session, forward(session, ids, n, key_mask, taps, err));
}

bool unmask_likelihood(struct unmask_session *session, const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer,
                       int mc, float cfg_scale, uint64_t seed, double *nats, struct unmask_err *err)
{
    NEED(nats);
    *nats = NAN;
    NEED(session);
    NEED(prompt || !n_prompt);
    NEED(answer || !n_answer);
    return in_range("cfg_scale", (double)cfg_scale, 0, 100, err) && enter(session, err)
        && leave(session, likelihood(session, prompt, n_prompt, answer, n_answer, mc, cfg_scale, seed, NULL, NULL, nats, err));
}
