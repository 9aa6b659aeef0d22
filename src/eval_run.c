/* eval_run.c - see eval_run.h. */
#include "eval_run.h"

#include <string.h>

#include "mem.h"

bool eval_tick(struct eval_clock *c)
{
    progress_show(&c->progress, c->done, c->total, "lines", c->what);
    return term_signal() == 0;
}

bool eval_on_draw(void *clock, int draws)
{
    (void)draws;
    return eval_tick(clock);
}

struct recorder { struct eval_run *e; struct eval_clock *clock; int block, first; };

static bool on_step(void *user, const struct unmask_step *step)
{
    struct recorder *r = user;
    if (step->step == 1 || step->block != r->block) {
        r->block = step->block;
        r->first = step->step;
    }
    for (int i = 0; i < step->n_committed; i++) {
        r->e->step_of[step->committed[i]] = step->step;
        r->e->block_step[step->committed[i]] = r->first;
    }
    return eval_tick(r->clock);
}

bool eval_run(struct eval_run *e, struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const struct unmask_options *o,
              struct eval_clock *clock, struct unmask_err *err)
{
    *e = (struct eval_run){ .step_of = NULL };
    const size_t most = n_prompt + (size_t)(o->gen_length > 0 ? o->gen_length : s->m->defaults.gen_length);
    struct recorder r = { .e = e, .clock = clock };
    if (!(e->step_of = mem_zalloc(2 * most, sizeof *e->step_of, err))) return false;
    e->block_step = e->step_of + most;
    if (!unmask_generate(s, prompt, n_prompt, o, on_step, &r, &e->r, err)) {
        eval_run_free(e);
        return false;
    }
    const int end = denoise_end(s->m, e->r.canvas, e->r.n_prompt, e->r.n_canvas);
    e->n_ids = (end < 0 ? e->r.n_canvas : end + 1) - e->r.n_prompt;
    return true;
}

void eval_run_free(struct eval_run *e)
{
    unmask_result_free(&e->r);
    mem_free(e->step_of);
    *e = (struct eval_run){ .step_of = NULL };
}

static bool text_prompt(const struct unmask_model *m, const struct eval_line *l, size_t most,
                        int32_t **ids, size_t *n, struct unmask_err *err)
{
    int32_t *text, *grown;
    size_t n_text;
    if (!unmask_tokenize(m, l->text, l->n_text, 0, &text, &n_text, err)) return false;
    const size_t begin = m->h.bos_id >= 0;
    if (n_text > most - begin) n_text = most - begin;
    if (!(grown = mem_resize(text, n_text + begin + 1, sizeof *grown, err))) {
        mem_free(text);
        return false;
    }
    memmove(grown + begin, grown, n_text * sizeof *grown);
    if (begin) grown[0] = m->h.bos_id;
    *ids = grown;
    *n = n_text + begin;
    return true;
}

bool eval_prompt(const struct unmask_model *m, const struct eval_line *l, size_t most, int32_t **ids, size_t *n, struct unmask_err *err)
{
    const struct unmask_message message = { "user", l->text, l->n_text };
    *ids = NULL;
    return l->answer ? unmask_chat_ids(m, &message, 1, ids, n, err) : text_prompt(m, l, most, ids, n, err);
}

enum { QUESTION = 64, TEXT = 128, BLOCK = 32 };         /* answer positions, and those of a block */

int eval_block(const struct settings *s)
{
    const int answer = s->origin[OPT_GEN_LENGTH] ? s->gen_length : TEXT, block = s->origin[OPT_BLOCK_LENGTH] ? s->block_length : BLOCK;
    return block < answer ? block : answer;
}

void eval_options(const struct settings *s, const struct unmask_model *m, bool questions, struct unmask_options *o)
{
    settings_generation(s, m, o);
    o->stop = term_signal_flag();
    if (!s->origin[OPT_GEN_LENGTH]) o->gen_length = questions ? QUESTION : TEXT;
    if (!s->origin[OPT_BLOCK_LENGTH]) o->block_length = BLOCK;
    if (!s->origin[OPT_EARLY_STOP]) o->early_stop = questions;
    if (s->origin[OPT_THRESHOLD] || s->origin[OPT_FACTOR] || s->origin[OPT_STEPS]) return;
    o->threshold = questions ? 0.9f : 0;
    o->factor = 0;
    o->steps = questions ? 0 : (o->gen_length + 1) / 2;
}

void eval_agreement(const struct eval_run *a, const struct eval_run *b, double *equal, double *positions)
{
    const int32_t *x = a->r.canvas + a->r.n_prompt, *y = b->r.canvas + b->r.n_prompt;
    const int shorter = a->n_ids < b->n_ids ? a->n_ids : b->n_ids;
    for (int i = 0; i < shorter; i++) *equal += x[i] == y[i];
    *positions += a->n_ids + b->n_ids - shorter;
}

int eval_first_difference(const struct eval_run *a, const struct eval_run *b)
{
    int first = 0;
    for (int i = 0; i < a->r.n_canvas && i < b->r.n_canvas; i++) {
        const int s = a->step_of[i], t = b->step_of[i], at = s && (!t || s < t) ? s : t;
        if ((s != t || a->r.canvas[i] != b->r.canvas[i]) && (!first || at < first)) first = at;
    }
    return first;
}

bool eval_right(const struct unmask_model *m, const struct eval_run *e, const struct eval_line *l, bool *right, struct unmask_err *err)
{
    char *text;
    size_t n;
    if (!unmask_detokenize(m, e->r.canvas + e->r.n_prompt, (size_t)e->n_ids, 0, &text, &n, err)) return false;
    *right = n == l->n_answer && !memcmp(text, l->answer, n);
    unmask_free(text);
    return true;
}
