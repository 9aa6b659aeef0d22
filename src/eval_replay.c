/* eval_replay.c - see eval_replay.h. */
#include "eval_replay.h"

#include <string.h>

#include "eval_stats.h"
#include "mem.h"

/* Logits of the reference at the candidates of one step, by position within the block. */
struct forced {
    int start, block, n_vocab;
    float *logits;                              /* [block][n_vocab]                      */
    int32_t *token;                             /* [block]; -1: no candidate              */
    struct replay_sum sum;
    const struct eval_run *run; int number;     /* of the step                            */
};

/* Does the reference's step commit this token there? */
static bool commits(const struct forced *s, int position, int32_t token)
{
    return s->run->step_of[position] == s->number && token == s->run->r.canvas[position];
}

static void keep(void *user, int position, int32_t token, const float *logits)
{
    struct forced *s = user;
    const int at = position - s->start;
    if (at < 0 || at >= s->block) return;
    s->token[at] = token;
    memcpy(s->logits + (size_t)at * (size_t)s->n_vocab, logits, (size_t)s->n_vocab * sizeof *logits);
}

static void compare(void *user, int position, int32_t token, const float *logits)
{
    struct forced *s = user;
    const int at = position - s->start;
    if (at < 0 || at >= s->block || s->token[at] < 0) return;
    s->sum.right += commits(s, position, token);
    s->sum.rows++;
    s->sum.equal += token == s->token[at];
    s->sum.kl += eval_kl(s->logits + (size_t)at * (size_t)s->n_vocab, logits, s->n_vocab);
}

static void again(void *user)
{
    struct forced *s = user;
    s->sum = (struct replay_sum){ 0 };
}

static void add(struct replay_sum *t, const struct replay_sum *s)
{
    t->rows += s->rows;
    t->equal += s->equal;
    t->kl += s->kl;
    t->steps += s->steps;
    t->overlap += s->overlap;
    t->committed += s->committed;
    t->right += s->right;
}

/* Jaccard index of what the reference's step commits, n positions, and what the other's would. */
static double overlap(const struct forced *s, int n, const struct candidate *choice, int n_choice)
{
    int both = 0;
    for (int i = 0; i < n_choice; i++) both += commits(s, choice[i].position, choice[i].token);
    return (double)both / (n + n_choice - both);
}

static int age_bin(int age)
{
    int bin = 0;
    for (; age > 0 && bin < REPLAY_AGES - 1; age >>= 1) bin++;
    return bin;
}

int replay_youngest(int bin) { return bin ? 1 << (bin - 1) : 0; }

struct replay_sum replay_total(const struct replay *r)
{
    struct replay_sum t = { 0 };
    for (int i = 0; i < REPLAY_AGES; i++) add(&t, &r->age[i]);
    return t;
}

/* One step on the state before it, in both, then its commits. */
static bool step(struct replay *r, struct denoise d[2], struct forced *forced, const struct eval_run *run, int number,
                 struct reuse_block block, int *age, struct unmask_err *err)
{
    forced->start = block.start;
    forced->run = run;
    forced->number = number;
    again(forced);
    memset(forced->token, -1, (size_t)forced->block * sizeof *forced->token);
    const uint64_t before = d[1].row_layers;
    const struct candidate *choice;             /* in the end, of the other                */
    int n_choice;
    for (int p = 0; p < run->r.n_canvas; p++) block.quota += run->step_of[p] == number;
    for (int i = 0; i < 2; i++) {
        d[i].steps = number - 1;
        if (!denoise_evaluate(&d[i], block, &choice, &n_choice, err)) return false;
    }
    const int branches = d[1].o->cfg_scale > 0 ? 2 : 1;
    *age = d[1].row_layers - before >= (uint64_t)branches * (uint64_t)d[1].n_canvas * (uint64_t)d[1].m->h.n_layer ? 0 : *age + 1;
    forced->sum.steps = 1;
    forced->sum.overlap = overlap(forced, block.quota, choice, n_choice);
    forced->sum.committed = block.quota;
    add(&r->age[age_bin(*age)], &forced->sum);
    for (int p = 0; p < run->r.n_canvas; p++)
        for (int i = 0; i < 2 && run->step_of[p] == number; i++) denoise_commit(&d[i], p, run->r.canvas[p]);
    return true;
}

static bool steps(struct replay *r, struct denoise d[2], struct forced *forced, const struct eval_run *run,
                  struct eval_clock *clock, struct unmask_err *err)
{
    const int n_prompt = run->r.n_prompt;
    int age = 0;
    for (int number = 1; number <= run->r.steps; number++) {
        int p = n_prompt;
        while (p < run->r.n_canvas && run->step_of[p] != number) p++;
        if (p == run->r.n_canvas) continue;     /* a step that committed nothing ran no pass */
        const int start = p - (p - n_prompt) % forced->block, end = start + forced->block;
        const struct reuse_block block = { start, end < run->r.n_canvas ? end : run->r.n_canvas, number - run->block_step[p], 0 };
        if (!eval_tick(clock)) return fail(err, E_CANCELLED, .hint = NULL);
        if (!step(r, d, forced, run, number, block, &age, err)) return false;
    }
    return true;
}

bool eval_replay(struct replay *r, const struct eval_run *run,
                 struct unmask_session *reference_session, const struct unmask_options *reference,
                 struct unmask_session *session, const struct unmask_options *other, struct eval_clock *clock, struct unmask_err *err)
{
    const size_t n = (size_t)run->r.n_canvas;
    const int answer = run->r.n_canvas - run->r.n_prompt, block = reference->block_length < answer ? reference->block_length : answer;
    struct forced forced = { .block = block, .n_vocab = session->m->h.n_vocab };
    int32_t *canvas = mem_zalloc(2 * n + (size_t)block, sizeof *canvas, err);
    forced.logits = canvas ? mem_aligned((size_t)block * (size_t)forced.n_vocab * sizeof(float), err) : NULL;
    bool ok = canvas && forced.logits;
    struct denoise d[2] = { { .o = reference, .on_candidate = keep }, { .o = other, .on_candidate = compare, .on_again = again } };
    for (int i = 0; ok && i < 2; i++) {
        d[i].canvas = canvas + (size_t)i * n;
        d[i].n_canvas = run->r.n_canvas;
        d[i].n_prompt = run->r.n_prompt;
        d[i].user = &forced;
        for (size_t p = 0; p < n; p++) d[i].canvas[p] = run->step_of[p] ? session->m->h.mask_id : run->r.canvas[p];
        ok = session_denoise(i ? session : reference_session, &d[i], err);
        if (ok) denoise_begin(&d[i]);
    }
    if (ok) {
        forced.token = canvas + 2 * n;
        ok = steps(r, d, &forced, run, clock, err);
    }
    mem_free(forced.logits);
    mem_free(canvas);
    return ok;
}
