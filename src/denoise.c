/* denoise.c - see denoise.h. */
#include "denoise.h"

#include <math.h>
#include <string.h>

#include "commit.h"
#include "mem.h"
#include "rng.h"
#include "sleef_scalar.h"

/* The mask, end-of-text and end-of-turn tokens, and what becomes of each. */
struct apart { struct logit_apart tokens; bool chosen[LOGIT_APART], counted[LOGIT_APART]; };

struct denoise_work {
    bool cfg;                   /* guidance: a second branch, whose prompt is masked                */
    float *x;                   /* [branches * max_tokens][n_embd]                                  */
    float *logits, *uncond;     /* [LOGIT_ROWS][logits_stride]; NULL where nobody needs whole rows; uncond only with guidance */
    struct apart apart;
    struct logit_stats *stats; struct logit_apart_values *values;       /* [LOGIT_ROWS]             */
    struct candidate *candidates, *stale;       /* [max_tokens]                                     */
    int *head_rows;             /* [LOGIT_ROWS]                                                     */
    int *committed;             /* [max_tokens]                                                     */
    struct reuse_state reuse;
    struct reuse_rows plan;
    int *need;                  /* [branches * max_tokens]: plan.need for every branch              */
    float *confidence, *margin, *entropy;       /* [max_tokens]: of the tokens committed            */
    int32_t *unprompted;        /* [max_tokens]: the canvas with its prompt masked, for guidance    */
    bool *was_mask, *is_mask;   /* [max_tokens]: masks of the start canvas, and now                 */
    uint8_t *keys;              /* [max_tokens]: positions that a pass attends to                   */
    uint8_t *memory;
};

struct denoise_need denoise_need_of(const struct denoise *d)
{
    const bool cfg = d->o->cfg_scale > 0;
    return (struct denoise_need){ cfg, cfg || d->o->temperature > 0 || d->on_candidate };
}

static size_t lay_out(struct denoise_work *w, uint8_t *base, const struct unmask_model *m, int max_tokens, struct denoise_need need)
{
    const size_t n = (size_t)max_tokens, branches = need.cfg ? 2 : 1, l = LOGIT_ROWS * logits_stride(m) * sizeof(float);
    size_t used = 0;
    w->cfg = need.cfg;
    w->x = mem_lay(base, &used, branches * n * (size_t)m->h.n_embd * sizeof(float));
    w->logits = need.logits ? mem_lay(base, &used, l) : NULL;
    w->uncond = need.cfg ? mem_lay(base, &used, l) : NULL;
    w->stats = mem_lay(base, &used, LOGIT_ROWS * sizeof *w->stats);
    w->values = mem_lay(base, &used, LOGIT_ROWS * sizeof *w->values);
    w->candidates = mem_lay(base, &used, n * sizeof *w->candidates);
    w->stale = mem_lay(base, &used, n * sizeof *w->stale);
    w->head_rows = mem_lay(base, &used, LOGIT_ROWS * sizeof *w->head_rows);
    reuse_lay_out(&w->reuse, &w->plan, base, &used, max_tokens);
    w->need = mem_lay(base, &used, branches * n * sizeof *w->need);
    w->committed = mem_lay(base, &used, n * sizeof *w->committed);
    w->confidence = mem_lay(base, &used, n * sizeof *w->confidence);
    w->margin = mem_lay(base, &used, n * sizeof *w->margin);
    w->entropy = mem_lay(base, &used, n * sizeof *w->entropy);
    w->unprompted = mem_lay(base, &used, n * sizeof *w->unprompted);
    w->was_mask = mem_lay(base, &used, n * sizeof *w->was_mask);
    w->is_mask = mem_lay(base, &used, n * sizeof *w->is_mask);
    w->keys = mem_lay(base, &used, n);
    return used;
}

size_t denoise_work_bytes(const struct unmask_model *m, int max_tokens, struct denoise_need need)
{
    struct denoise_work w = { .cfg = false };
    return lay_out(&w, NULL, m, max_tokens, need);
}

bool denoise_work_open(struct denoise_work **out, const struct unmask_model *m, int max_tokens,
                       struct denoise_need need, struct unmask_err *err)
{
    struct denoise_work *w = mem_zalloc(1, sizeof *w, err);
    if (!w) return false;
    if (!(w->memory = mem_aligned(lay_out(w, NULL, m, max_tokens, need), err))) {
        mem_free(w);
        return false;
    }
    lay_out(w, w->memory, m, max_tokens, need);
    *out = w;
    return true;
}

void denoise_work_close(struct denoise_work *w)
{
    if (!w) return;
    mem_free(w->memory);
    mem_free(w);
}

int denoise_end(const struct unmask_model *m, const int32_t *canvas, int n_prompt, int n_canvas)
{
    for (int i = n_prompt; i < n_canvas && canvas[i] != m->h.mask_id; i++)
        if (canvas[i] == m->h.eos_id || canvas[i] == m->h.eot_id) return i;
    return -1;
}

/* ---- choice of a token and its confidence, from one row of logits ---- */

/* Whether each of the tokens apart may be chosen, and whether it counts in the softmax.  The mask is never chosen but counts;
 * generate.py overwrites logits for confidence_eos_eot_inf after the choice, those of EOS only where its noisy array is the
 * same object, at temperature 0. */
static struct apart apart_of(const struct hparams *h, const struct unmask_options *o)
{
    const struct { int32_t token; bool chosen, counted; } all[LOGIT_APART] = {
        { h->mask_id, false, true },
        { h->eos_id, !o->logits_eos_inf, !o->logits_eos_inf && !(o->confidence_eos_eot_inf && o->temperature == 0) },
        { h->eot_id, true, !o->confidence_eos_eot_inf },
    };
    struct apart a = { .tokens.n = 0 };
    for (int i = 0; i < LOGIT_APART; i++) {
        int at = 0;
        if (all[i].token < 0) continue;
        while (at < a.tokens.n && a.tokens.token[at] != all[i].token) at++;
        const bool again = at < a.tokens.n;     /* one token in two roles: what either role forbids is forbidden */
        a.tokens.token[at] = all[i].token;
        a.chosen[at] = all[i].chosen && (!again || a.chosen[at]);
        a.counted[at] = all[i].counted && (!again || a.counted[at]);
        a.tokens.n += !again;
    }
    return a;
}

struct gumbel { uint64_t prefix; double temperature; };

static double noisy_score(const struct gumbel *g, float logit, int32_t token)
{
    const double u = noise_f64(noise_bits(g->prefix, (uint64_t)token));
    return (double)logit - g->temperature * Sleef_finz_logd1_u10purecfma(-Sleef_finz_logd1_u10purecfma(u));
}

static bool may_choose(const struct apart *a, int32_t token)
{
    for (int i = 0; i < a->tokens.n; i++)
        if (a->tokens.token[i] == token) return a->chosen[i];
    return true;
}

/* Token with the best score l - T log(-log u), u uniform per vocabulary entry, in float64: the log form of Gumbel-max
 * sampling, whose argmax is that of generate.py's exp(l) / (-log u)^T but cannot overflow.  Ties go to the lowest id. */
static int32_t choose_noisy(const struct denoise *d, const float *l, int32_t greedy, int position)
{
    const struct gumbel g = { noise_prefix(d->o->seed, NOISE_GUMBEL, (uint64_t)d->steps, (uint64_t)d->row, (uint64_t)position),
                              (double)d->o->temperature };
    /* u <= 1 - 2^-53, so the noise never exceeds T * 36.74: most tokens are too far below the best score to win. */
    const double most = g.temperature * 36.75;
    int32_t token = greedy;
    double best = noisy_score(&g, l[greedy], greedy);
    for (int32_t i = 0; i < d->m->h.n_vocab; i++) {
        if ((double)l[i] + most < best || i == greedy || !may_choose(&d->work->apart, i)) continue;
        const double score = noisy_score(&g, l[i], i);
        if (score > best || (score == best && i < token)) {
            best = score;
            token = i;
        }
    }
    return token;
}

/* Does a token count in the softmax? */
static bool counts(const struct apart *a, int32_t token)
{
    for (int i = 0; i < a->tokens.n; i++)
        if (a->tokens.token[i] == token) return a->counted[i];
    return true;
}

/* Fill everything but the position of a candidate from the statistics of its row; l: the row, where there is noise. */
static void choose(const struct denoise *d, struct logit_stats *s, const struct logit_apart_values *values,
                   const float *l, struct candidate *c)
{
    const struct apart *a = &d->work->apart;
    for (int i = 0; i < a->tokens.n; i++) {
        if (a->chosen[i]) logit_choose(s, a->tokens.token[i], values->l[i]);
        if (a->counted[i]) logit_count(s, values->l[i]);
    }
    c->token = s->best;
    c->margin = s->max - s->second;
    c->entropy = logit_entropy(s);
    if (d->o->temperature > 0 && c->token >= 0) c->token = choose_noisy(d, l, c->token, c->position);
    if (c->token < 0 || isnan(s->sum)) c->confidence = NAN;
    else if (d->o->remasking == UNMASK_RANDOM)
        c->confidence = noise_f32(noise_bits(noise_prefix(d->o->seed, NOISE_REMASK, (uint64_t)d->steps, (uint64_t)d->row,
                                                          (uint64_t)c->position), 0));
    else c->confidence = counts(a, c->token)
                         ? Sleef_finz_expf1_u10purecfma((c->token == s->best ? s->max : l[c->token]) - s->top) / s->sum : 0 / s->sum;
}

/* ---- one evaluation ---- */

struct decision { const struct commit_rule *rule; float parameter; };

struct choose_job { const struct denoise *d; struct candidate *c; size_t stride; };

static void choose_item(void *arg, int i, int worker)
{
    (void)worker;
    const struct choose_job *j = arg;
    const struct denoise_work *w = j->d->work;
    float *l = w->logits + (size_t)i * j->stride;
    if (w->uncond) {                            /* guidance: l = u + (s + 1) (l - u), generate.py */
        const float *u = w->uncond + (size_t)i * j->stride, s = j->d->o->cfg_scale + 1;
        for (int t = 0; t < j->d->m->h.n_vocab; t++) l[t] = u[t] + s * (l[t] - u[t]);
    }
    logit_row(&j->d->m->kernels, l, j->d->m->h.n_vocab, &w->apart.tokens, &w->values[i], &w->stats[i]);
    choose(j->d, &w->stats[i], &w->values[i], l, &j->c[i]);
}

/* Fill c[chosen], the candidates of the first of `rows` rows listed in head_rows.  Whole rows of logits only where needed. */
static void choose_rows(struct denoise *d, struct candidate *c, int chosen, int rows)
{
    struct denoise_work *w = d->work;
    const size_t stride = logits_stride(d->m);
    if (!w->logits) {
        forward_head(d->f, w->x, w->head_rows, rows, &w->apart.tokens, w->values, w->stats);
        for (int i = 0; i < chosen; i++) choose(d, &w->stats[i], &w->values[i], NULL, &c[i]);
        return;
    }
    forward_logits(d->f, w->x, w->head_rows, rows, w->logits, stride);
    for (int r = 0; w->cfg && r < rows; r++) w->head_rows[r] += w->plan.n_rows;
    if (w->cfg) forward_logits(d->f, w->x, w->head_rows, rows, w->uncond, stride);
    pool_run(d->pool, choose_item, &(struct choose_job){ d, c, stride }, chosen);
    for (int i = 0; d->on_candidate && i < chosen; i++) d->on_candidate(d->user, c[i].position, c[i].token, w->logits + (size_t)i * stride);
}

static bool not_stopped(void *user, int layer, const float *x)
{
    (void)layer, (void)x;
    const struct denoise *d = user;
    return *d->o->stop == 0;
}

/* The planned rows go through the layers, in both branches with guidance. */
static bool pass_over_rows(struct denoise *d, struct unmask_err *err)
{
    struct denoise_work *w = d->work;
    const int branches = w->cfg ? 2 : 1;
    for (int b = 0; b < branches; b++)
        for (int i = 0; i < w->plan.n_need; i++) w->need[b * w->plan.n_need + i] = b * w->plan.n_rows + w->plan.need[i];
    for (int i = 0; w->cfg && i < d->n_canvas; i++) w->unprompted[i] = w->was_mask[i] ? d->canvas[i] : d->m->h.mask_id;
    reuse_keys(&w->reuse, w->is_mask, &w->plan, w->keys);
    for (int i = 0; d->key_mask && i < d->n_canvas; i++) w->keys[i] &= d->key_mask[i] != 0;
    const bool ok = forward_pass(d->f, &(struct pass){
        .n_branches = branches, .ids = { d->canvas, w->unprompted }, .store = { d->store[0], d->store[1] },
        .n_keys = d->n_canvas, .key_mask = d->key_mask || d->reuse->far ? w->keys : NULL,
        .span = reuse_in_parts(&w->reuse, &w->plan) ? w->plan.span : NULL, .rows = w->plan.rows, .n_rows = w->plan.n_rows,
        .need = d->reuse->all_logits ? NULL : w->need, .n_need = branches * w->plan.n_need, .x = w->x,
        .on_layer = d->o->stop ? not_stopped : NULL, .user = d });
    d->stopped = !ok && !forward_failed(d->f, err);
    if (d->stopped) fail(err, E_CANCELLED, .hint = NULL);
    if (!ok) return false;
    reuse_passed(&w->reuse, &w->plan);
    d->passes += branches;
    d->row_layers += (uint64_t)(branches * w->plan.row_layers);
    return true;
}

/* A pass over the planned rows; then its candidates, the masks before the block's end among them, each with token and confidence. */
static bool pass_candidates(struct denoise *d, struct reuse_block block, int *n_candidates, struct unmask_err *err)
{
    struct denoise_work *w = d->work;
    int n = 0;
    if (!pass_over_rows(d, err)) return false;
    for (int at = 0; at < w->plan.n_need; ) {
        const int first = n;
        int rows = 0, chosen = 0;
        for (; at < w->plan.n_need && rows < LOGIT_ROWS; at++) {         /* rows that may be committed lead, for choose_item */
            const int position = w->plan.rows[w->plan.need[at]];
            if (position < block.end && w->is_mask[position]) {
                w->head_rows[rows] = w->head_rows[chosen];
                w->head_rows[chosen++] = w->plan.need[at];
                w->candidates[n++].position = position;
            } else w->head_rows[rows] = w->plan.need[at];
            rows++;
        }
        choose_rows(d, w->candidates + first, chosen, rows);
    }
    for (int i = 0; i < n; i++) {
        if (isnan(w->candidates[i].confidence))
            return model_fail_output(d->m, FMT("logits of position %d", w->candidates[i].position), NULL, err);
        w->reuse.confidence[w->candidates[i].position] = w->candidates[i].confidence;
    }
    *n_candidates = n;
    return true;
}

/* Candidates of a step, and how many of them, sorted, its rule would commit.  A decision that stale rows may have turned is
 * taken again on fresh ones, and both are compared. */
static bool evaluate(struct denoise *d, struct reuse_block block, const struct decision *by, int *n, int *k, struct unmask_err *err)
{
    struct denoise_work *w = d->work;
    struct audit *a = &d->audit;
    const int age = w->reuse.since_full;
    for (int i = 0; i < d->n_canvas; i++) w->is_mask[i] = d->canvas[i] == d->m->h.mask_id;
    audit_step(a);
    reuse_plan(&w->reuse, w->is_mask, block, &w->plan);
    const bool audited = w->plan.period && audit_due(a);
    if (audited) reuse_plan_lean(&w->reuse, w->is_mask, block, &w->plan);
    if (!pass_candidates(d, block, n, err)) return false;
    *k = by->rule->select(w->candidates, *n, block.quota, by->parameter);
    const bool doubts = !audited && !w->plan.full && audit_doubts(a, age, by->rule, by->parameter, w->candidates, *n, *k);
    if (audited || doubts) {
        const int n_stale = *n, k_stale = *k;
        memcpy(w->stale, w->candidates, (size_t)n_stale * sizeof *w->stale);
        if (d->on_again) d->on_again(d->user);
        reuse_plan_full(&w->reuse, w->is_mask, block, &w->plan);
        if (!pass_candidates(d, block, n, err)) return false;
        audit_compare(a, age, w->stale, n_stale, k_stale, w->candidates, *n, &w->reuse.period);
        if (doubts) audit_spend(a);
        *k = by->rule->select(w->candidates, *n, block.quota, by->parameter);
    }
    reuse_stepped(&w->reuse);
    return true;
}

/* ---- the loop ---- */

static int count_masks(const struct denoise *d, int from, int to)
{
    int n = 0;
    for (int i = from; i < to; i++) n += d->canvas[i] == d->m->h.mask_id;
    return n;
}

static bool report(const struct denoise *d, int block, int n_committed)
{
    return !d->on_step || d->on_step(d->user, &(struct unmask_step){
        .step = d->steps, .block = block, .n_blocks = d->n_blocks, .canvas = d->canvas, .n_canvas = d->n_canvas, .n_prompt = d->n_prompt,
        .committed = d->work->committed, .confidence = d->work->confidence, .margin = d->work->margin, .entropy = d->work->entropy,
        .n_committed = n_committed, .n_masked = count_masks(d, 0, d->n_canvas) });
}

void denoise_begin(struct denoise *d)
{
    d->steps = d->passes = 0;
    d->row_layers = 0;
    d->work->apart = apart_of(&d->m->h, d->o);
    reuse_begin(&d->work->reuse, d->reuse, d->n_canvas, d->m->h.n_layer);
    audit_begin(&d->audit, d->reuse, d->n_canvas);
    for (int i = 0; i < d->n_canvas; i++) d->work->was_mask[i] = d->canvas[i] == d->m->h.mask_id;
}

bool denoise_evaluate(struct denoise *d, struct reuse_block block, const struct candidate **choice, int *n_choice, struct unmask_err *err)
{
    struct decision by;
    int n;
    by.rule = commit_rule_of(d->o, &by.parameter);
    if (by.rule != &commit_fixed) block.quota = 1;
    *choice = d->work->candidates;
    return evaluate(d, block, &by, &n, n_choice, err);
}

void denoise_commit(struct denoise *d, int position, int32_t token)
{
    d->canvas[position] = token;
    reuse_committed(&d->work->reuse, position);
}

/* One step of a block: evaluate and commit, or only count it where the quota is 0. */
static bool step(struct denoise *d, const struct decision *by, struct reuse_block block, int *n_committed, struct unmask_err *err)
{
    struct denoise_work *w = d->work;
    int n = 0, k = 0;
    if (block.quota > 0 && !evaluate(d, block, by, &n, &k, err)) return false;
    for (int i = 0; i < k; i++) {
        const struct candidate *c = &w->candidates[i];
        denoise_commit(d, c->position, c->token);
        w->committed[i] = c->position;
        w->confidence[i] = c->confidence;
        w->margin[i] = c->margin;
        w->entropy[i] = c->entropy;
        if (d->confidence) d->confidence[c->position] = c->confidence;
    }
    *n_committed = k;
    d->steps++;
    return true;
}

/* Steps of block b out of o->steps: in proportion to the masks, at least one; equal blocks get equal shares as in
 * generate.py.  before, in_block, total: masks of the start canvas. */
static int block_steps(int steps, int before, int in_block, int total)
{
    const int64_t s = steps, share = s * (before + in_block) / total - s * before / total;
    return share > 0 ? (int)share : 1;
}

bool denoise_run(struct denoise *d, enum unmask_finish *finish, struct unmask_err *err)
{
    struct decision by;
    by.rule = commit_rule_of(d->o, &by.parameter);
    const bool scheduled = by.rule == &commit_fixed;
    const int total = count_masks(d, d->block_start, d->n_canvas);
    *finish = UNMASK_FINISH_LENGTH;
    denoise_begin(d);
    bool go_on = report(d, 0, 0);
    for (int b = 0, start = d->block_start, before = 0; go_on && b < d->n_blocks; start = d->block_end[b++]) {
        const int end = d->block_end[b], masks = count_masks(d, start, end);
        const int steps = scheduled && masks ? block_steps(d->o->steps, before, masks, total) : 0;
        before += masks;
        for (int s = 0; go_on && (scheduled ? s < steps : count_masks(d, start, end) > 0 || s < d->reuse->least_steps); s++) {
            const int quota = scheduled ? commit_quota(masks, steps, s) : count_masks(d, start, end) > 0;
            int n_committed;
            if (!step(d, &by, (struct reuse_block){ start, end, s, quota }, &n_committed, err)) {
                if (d->stopped) *finish = UNMASK_FINISH_CANCELLED;
                return false;
            }
            go_on = report(d, b, n_committed);
            if (go_on && d->o->early_stop && denoise_end(d->m, d->canvas, d->n_prompt, d->n_canvas) >= 0) {
                *finish = UNMASK_FINISH_STOP;
                return true;
            }
        }
    }
    if (go_on) return true;
    *finish = UNMASK_FINISH_CANCELLED;
    return fail(err, E_CANCELLED, .hint = NULL);
}
