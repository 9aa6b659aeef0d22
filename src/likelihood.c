/* likelihood.c - see likelihood.h. */
#include "likelihood.h"

#include <math.h>
#include <string.h>

#include "mem.h"
#include "rng.h"
#include "sleef_scalar.h"

double cross_entropy(const struct unmask_model *m, const float *l, int32_t token)
{
    int32_t at;
    const float max = m->kernels.argmax(l, m->h.n_vocab, &at);
    float moment;
    return Sleef_finz_logd1_u10purecfma((double)m->kernels.sum_exp(l, m->h.n_vocab, max, &moment)) - (double)(l[token] - max);
}

/* Work space of one evaluation. */
struct space { float *x, *x_uncond, *logits, *uncond; int32_t *unprompted; };

static size_t lay_out(struct space *w, uint8_t *base, const struct unmask_model *m, int n, bool cfg)
{
    const size_t x_bytes = (size_t)n * (size_t)m->h.n_embd * sizeof(float), l_bytes = LOGIT_ROWS * logits_stride(m) * sizeof(float);
    size_t used = 0;
    w->x = mem_lay(base, &used, x_bytes);
    w->logits = mem_lay(base, &used, l_bytes);
    w->x_uncond = cfg ? mem_lay(base, &used, x_bytes) : NULL;
    w->uncond = cfg ? mem_lay(base, &used, l_bytes) : NULL;
    w->unprompted = cfg ? mem_lay(base, &used, (size_t)n * sizeof *w->unprompted) : NULL;
    return used;
}

static void pass(struct unmask_session *s, const int32_t *ids, int n, float *x)
{
    forward_pass(s->f, &(struct pass){ .n_branches = 1, .ids = { ids }, .store = { s->store[0] }, .n_keys = n, .n_rows = n, .x = x });
}

bool masked_logits(struct unmask_session *s, const int32_t *noisy, int n, int n_prompt, float cfg_scale, masked_row_fn *on_row, void *user,
                   struct unmask_err *err)
{
    const struct hparams *h = &s->m->h;
    const size_t ld = logits_stride(s->m);
    const bool cfg = cfg_scale > 0;
    struct space w;
    uint8_t *base;
    if (!session_room(s, &(struct session_need){ .n_tokens = n, .n_branches = 1, .work = { cfg, true } }, err)
        || !(base = mem_aligned(lay_out(&w, NULL, s->m, n, cfg), err))) return false;
    lay_out(&w, base, s->m, n, cfg);
    for (int i = 0; cfg && i < n; i++) w.unprompted[i] = i < n_prompt ? h->mask_id : noisy[i];
    if (cfg) pass(s, w.unprompted, n, w.x_uncond);
    pass(s, noisy, n, w.x);
    bool ok = !forward_failed(s->f, err);
    for (int i = 0; ok && i < n; ) {
        int rows[LOGIT_ROWS], k = 0;
        for (; i < n && k < LOGIT_ROWS; i++)
            if (noisy[i] == h->mask_id) rows[k++] = i;
        if (cfg) forward_logits(s->f, w.x_uncond, rows, k, w.uncond, ld);
        forward_logits(s->f, w.x, rows, k, w.logits, ld);
        for (int r = 0; ok && r < k; r++) {
            float *l = w.logits + (size_t)r * ld;
            const float *u = cfg ? w.uncond + (size_t)r * ld : NULL;
            for (int t = 0; cfg && t < h->n_vocab; t++) l[t] = u[t] + (cfg_scale + 1) * (l[t] - u[t]);
            ok = on_row(user, rows[r], l, err);
        }
    }
    mem_free(base);
    return ok;
}

struct draw { const struct unmask_model *m; const int32_t *ids; double p_mask, sum; };

static bool add_loss(void *user, int position, const float *logits, struct unmask_err *err)
{
    (void)err;
    struct draw *d = user;
    d->sum += cross_entropy(d->m, logits, d->ids[position]) / d->p_mask;
    return true;
}

bool likelihood_draw(struct unmask_session *s, const int32_t *ids, const int32_t *noisy, int n, int n_prompt,
                     double p_mask, float cfg_scale, double *loss, struct unmask_err *err)
{
    struct draw d = { s->m, ids, p_mask, 0 };
    if (!masked_logits(s, noisy, n, n_prompt, cfg_scale, add_loss, &d, err)) return false;
    *loss = d.sum;
    return true;
}

bool mask_some(uint64_t seed, int batch, int row, int32_t *answer, int n_answer, int count, int32_t mask_id, struct unmask_err *err)
{
    struct noise_rank *order = mem_zalloc((size_t)n_answer, sizeof *order, err);
    if (!order) return false;
    noise_shuffle(order, (size_t)n_answer, seed, NOISE_LIKELIHOOD, (uint64_t)batch, (uint64_t)row + 1);
    for (int i = 0; i < count; i++) answer[order[i].index] = mask_id;
    mem_free(order);
    return true;
}

/* How many masks draw `row` of a batch has: stratified over 1..n_answer from a uniform start that the batch shares. */
static int masks_of_draw(uint64_t seed, int batch, int row, int n_answer)
{
    const double u = noise_f64(noise_bits(noise_prefix(seed, NOISE_LIKELIHOOD, (uint64_t)batch, 0, 0), 0));
    const double start = 1 + floor(u * n_answer), at = start + row * ((double)n_answer / LIKELIHOOD_BATCH);
    return ((int)nearbyint(at) - 1) % n_answer + 1;
}

bool likelihood(struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer, int mc,
                float cfg_scale, uint64_t seed, bool (*on_draw)(void *user, int draws), void *user, double *nats, struct unmask_err *err)
{
    const size_t ctx = (size_t)s->m->h.n_ctx, n = n_prompt + n_answer;
    if (mc < 1 || mc > 1 << 20) return fail(err, E_GEN_VALUE, .field = "mc", .found = FMT("%d", mc), .need = "1 to 1048576");
    if (n_answer < 1 || n > ctx)
        return fail(err, E_GEN_CONTEXT, .what = "no answer whose likelihood could be measured",
                    .found = FMT("%zu prompt and %zu answer tokens", n_prompt, n_answer),
                    .need = FMT("an answer, and at most %zu together", ctx));
    if (!session_check_ids(s, prompt, n_prompt, err) || !session_check_ids(s, answer, n_answer, err)) return false;
    int32_t *ids = mem_zalloc(2 * n, sizeof *ids, err);
    bool ok = ids != NULL;
    double total = 0;
    if (ok) {
        if (n_prompt) memcpy(ids, prompt, n_prompt * sizeof *ids);
        memcpy(ids + n_prompt, answer, n_answer * sizeof *ids);
    }
    for (int i = 0; ok && i < mc; i++) {
        double loss = 0;
        int32_t *noisy = ids + n;
        memcpy(noisy, ids, n * sizeof *ids);
        const int batch = i / LIKELIHOOD_BATCH, row = i % LIKELIHOOD_BATCH, count = masks_of_draw(seed, batch, row, (int)n_answer);
        ok = mask_some(seed, batch, row, noisy + n_prompt, (int)n_answer, count, s->m->h.mask_id, err)
            && likelihood_draw(s, ids, noisy, (int)n, (int)n_prompt, (double)count / (double)n_answer, cfg_scale, &loss, err);
        total += loss;
        if (ok && on_draw && !on_draw(user, i + 1)) ok = fail(err, E_CANCELLED, .hint = NULL);
    }
    mem_free(ids);
    if (ok && !isfinite(total))
        ok = model_fail_output(s->m, "logits", NULL, err);
    if (ok) *nats = -total / mc;
    return ok;
}
