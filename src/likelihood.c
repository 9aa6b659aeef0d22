/* likelihood.c - see likelihood.h. */
#include "likelihood.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "rng.h"
#include "sleef_scalar.h"

/* -log softmax(l)[token], in float64 from float32 exponentials. */
static double cross_entropy(const struct unmask_model *m, const float *l, int32_t token)
{
    int32_t at;
    const float max = m->kernels.argmax(l, m->h.n_vocab, &at);
    return Sleef_finz_logd1_u10purecfma((double)m->kernels.sum_exp(l, m->h.n_vocab, max)) - (double)(l[token] - max);
}

bool likelihood_draw(struct unmask_session *s, const int32_t *ids, const int32_t *noisy, int n, int n_prompt, double p_mask, float cfg_scale,
                     double *loss, struct unmask_err *err)
{
    const struct hparams *h = &s->m->h;
    const size_t ld = logits_stride(s->m), x_bytes = (size_t)n * (size_t)h->n_embd * sizeof(float), l_bytes = LOGIT_ROWS * ld * sizeof(float);
    struct { float *x, *x_uncond, *logits, *uncond; int32_t *unprompted; } w;
    size_t used = 0;
    uint8_t *base = NULL;
    for (int round = 0; round < 2; round++) {   /* size, then divide */
        used = 0;
        w.x = mem_lay(base, &used, x_bytes);
        w.x_uncond = mem_lay(base, &used, x_bytes);
        w.logits = mem_lay(base, &used, l_bytes);
        w.uncond = mem_lay(base, &used, l_bytes);
        w.unprompted = mem_lay(base, &used, (size_t)n * sizeof *noisy);
        if (round == 0 && !(base = mem_aligned(used, err))) return false;
    }
    if (!session_room(s, &(struct session_need){ .n_tokens = n, .n_branches = 1 }, err)) {
        mem_free(base);
        return false;
    }
    if (cfg_scale > 0) {
        for (int i = 0; i < n; i++) w.unprompted[i] = i < n_prompt ? h->mask_id : noisy[i];
        forward_pass(s->f, &(struct pass){ .n_branches = 1, .ids = { w.unprompted }, .store = { s->store[0] }, .n_keys = n, .n_rows = n, .x = w.x_uncond });
    }
    forward_pass(s->f, &(struct pass){ .n_branches = 1, .ids = { noisy }, .store = { s->store[0] }, .n_keys = n, .n_rows = n, .x = w.x });
    double sum = 0;
    for (int i = 0; i < n; ) {
        int rows[LOGIT_ROWS], k = 0;
        for (; i < n && k < LOGIT_ROWS; i++)
            if (noisy[i] == h->mask_id) rows[k++] = i;
        if (cfg_scale > 0) forward_logits(s->f, w.x_uncond, rows, k, w.uncond, ld);
        forward_logits(s->f, w.x, rows, k, w.logits, ld);
        for (int r = 0; r < k; r++) {
            float *l = w.logits + (size_t)r * ld;
            const float *u = w.uncond + (size_t)r * ld;
            for (int t = 0; cfg_scale > 0 && t < h->n_vocab; t++) l[t] = u[t] + (cfg_scale + 1) * (l[t] - u[t]);
            sum += cross_entropy(s->m, l, ids[rows[r]]) / p_mask;
        }
    }
    mem_free(base);
    *loss = sum;
    return true;
}

struct shuffled { uint64_t key; int index; };
static int by_key(const void *a, const void *b)
{
    const struct shuffled *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : x->index - y->index;
}

/* Masks of draw `row` of a batch: how many, stratified over 1..n_answer from a common uniform start; which, by the order of
 * random keys.  Everything from stream 6 of the generator. */
static int mask_answer(uint64_t seed, int batch, int row, int n_answer, struct shuffled *order, int32_t *answer, int32_t mask_id)
{
    const double u = noise_f64(noise_bits(noise_prefix(seed, NOISE_LIKELIHOOD, (uint64_t)batch, 0, 0), 0));
    const double start = 1 + floor(u * n_answer), at = start + row * ((double)n_answer / LIKELIHOOD_BATCH);
    const int count = ((int)nearbyint(at) - 1) % n_answer + 1;
    for (int i = 0; i < n_answer; i++)
        order[i] = (struct shuffled){ noise_bits(noise_prefix(seed, NOISE_LIKELIHOOD, (uint64_t)batch, (uint64_t)row + 1, (uint64_t)i), 0), i };
    qsort(order, (size_t)n_answer, sizeof *order, by_key);
    for (int i = 0; i < count; i++) answer[order[i].index] = mask_id;
    return count;
}

bool likelihood(struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer, int mc,
                float cfg_scale, uint64_t seed, bool (*on_draw)(void *user, int draws), void *user, double *nats, struct unmask_err *err)
{
    const size_t ctx = (size_t)s->m->h.n_ctx, n = n_prompt + n_answer;
    if (mc < 1 || mc > 1 << 20) return fail(err, E_GEN_VALUE, .field = "mc", .found = FMT("%d", mc), .need = "1 to 1048576");
    if (n_answer < 1 || n > ctx)
        return fail(err, E_GEN_CONTEXT, .found = FMT("%zu prompt and %zu answer tokens", n_prompt, n_answer), .need = FMT("an answer, and at most %zu together", ctx));
    if (!session_check_ids(s, prompt, n_prompt, err) || !session_check_ids(s, answer, n_answer, err)) return false;
    int32_t *ids = mem_zalloc(2 * n, sizeof *ids, err);
    struct shuffled *order = mem_zalloc(n_answer, sizeof *order, err);
    bool ok = ids && order;
    double total = 0;
    if (ok) {
        if (n_prompt) memcpy(ids, prompt, n_prompt * sizeof *ids);
        memcpy(ids + n_prompt, answer, n_answer * sizeof *ids);
    }
    for (int i = 0; ok && i < mc; i++) {
        double loss = 0;
        int32_t *noisy = ids + n;
        memcpy(noisy, ids, n * sizeof *ids);
        const int count = mask_answer(seed, i / LIKELIHOOD_BATCH, i % LIKELIHOOD_BATCH, (int)n_answer, order, noisy + n_prompt, s->m->h.mask_id);
        ok = likelihood_draw(s, ids, noisy, (int)n, (int)n_prompt, (double)count / (double)n_answer, cfg_scale, &loss, err);
        total += loss;
        if (ok && on_draw && !on_draw(user, i + 1)) ok = fail(err, E_CANCELLED, .hint = NULL);
    }
    mem_free(order);
    mem_free(ids);
    if (ok) *nats = -total / mc;
    return ok;
}
