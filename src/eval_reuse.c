/* eval_reuse.c - see eval_reuse.h.  Every line is answered under the profile, under the one it is compared with, and under
 * "none", in turn, so that seconds are measured side by side. */
#include "eval_reuse.h"

#include <math.h>

#include "eval_figures.h"
#include "eval_replay.h"
#include "likelihood.h"
#include "mem.h"

enum side_id { OTHER, REFERENCE, NONE, FEWER, SIDES };  /* FEWER: the reference with as few steps as the profile has seconds */

/* A profile, and what its answers to one set of lines add up to. */
struct side {
    struct unmask_session *session;
    struct unmask_options o;
    struct eval_run run;                        /* of the line in work */
    double seconds, rows, positions, passes, steps, right, bytes_read;
    double audits, disagreements, refreshes, largest;
    double *nats, *tokens;                      /* [lines]: likelihood bound of each text */
    double distinct, pairs;
};

struct eval_reuse {
    const struct settings *s;
    const struct unmask_model *m;
    struct unmask_session *own, *others;        /* of OTHER; of all the rest, and of likelihood under full passes */
    struct eval_set set;
    struct side side[SIDES];
    struct eval_clock clock;
    double equal, positions, whole, differing, first_sum;       /* free-running agreement */
    double both;                                /* questions that profile and reference answer right */
    struct replay replay;
    int fewer_steps;
};

static bool run_side(struct eval_reuse *e, struct side *side, const struct eval_line *l, const int32_t *ids, size_t n,
                     bool counts, struct unmask_err *err)
{
    const uint64_t before = session_bytes_read(side->session);
    eval_run_free(&side->run);
    if (!eval_run(&side->run, side->session, ids, n, &side->o, &e->clock, err)) return jsonl_at(l->path, l->number, err);
    if (!counts) return true;
    const struct unmask_result *r = &side->run.r;
    side->seconds += r->seconds;
    side->rows += (double)r->rows;
    side->positions += r->n_canvas - r->n_prompt;
    side->passes += r->passes;
    side->steps += r->steps;
    side->bytes_read += (double)(session_bytes_read(side->session) - before);
    side->audits += r->audit.audits;
    side->disagreements += r->audit.disagreements;
    side->refreshes += r->audit.refreshes;
    side->largest = fmax(side->largest, (double)r->audit.largest);
    return true;
}

static void compare_answers(struct eval_reuse *e)
{
    const struct eval_run *a = &e->side[OTHER].run, *b = &e->side[REFERENCE].run;
    const double equal = e->equal, positions = e->positions;
    const int first = eval_first_difference(a, b);
    eval_agreement(a, b, &e->equal, &e->positions);
    e->whole += e->equal - equal == e->positions - positions;
    e->differing += first > 0;
    e->first_sum += first;
}

static bool score(struct eval_reuse *e, const struct eval_line *l, struct unmask_err *err)
{
    bool right[SIDES];
    for (int i = OTHER; i <= REFERENCE; i++) {
        if (!eval_right(e->m, &e->side[i].run, l, &right[i], err)) return jsonl_at(l->path, l->number, err);
        e->side[i].right += right[i];
    }
    e->both += right[OTHER] && right[REFERENCE];
    return true;
}

/* The text's likelihood bound under full passes, its masks those of every other side, and its word pairs. */
static bool quality(struct eval_reuse *e, struct side *side, size_t line, struct unmask_err *err)
{
    const struct eval_run *run = &side->run;
    const int32_t *answer = run->r.canvas + run->r.n_prompt;
    size_t distinct, pairs, n_text;
    char *text;
    double nats;
    if (!likelihood(e->others, run->r.canvas, (size_t)run->r.n_prompt, answer, (size_t)run->n_ids, e->s->mc, 0, e->s->seed + line,
                    eval_on_draw, &e->clock, &nats, err)
        || !unmask_detokenize(e->m, answer, (size_t)run->n_ids, 0, &text, &n_text, err)) return false;
    side->nats[line] = -nats;
    side->tokens[line] = run->n_ids;
    const bool ok = eval_distinct_pairs(text, n_text, &distinct, &pairs, err);
    unmask_free(text);
    side->distinct += (double)distinct;
    side->pairs += (double)pairs;
    return ok;
}

/* One line under the sides from..to; the first line is run twice, so that no side pays for the start. */
static bool measure_line(struct eval_reuse *e, const struct eval_line *l, size_t line,
                         enum side_id from, enum side_id to, struct unmask_err *err)
{
    int32_t *ids;
    size_t n;
    if (!eval_prompt(e->m, l, EVAL_PROMPT, &ids, &n, err)) return jsonl_at(l->path, l->number, err);
    bool ok = true;
    for (int pass = line == 0 ? 0 : 1; ok && pass < 2; pass++)
        for (int i = from; ok && i <= (int)to; i++) ok = run_side(e, &e->side[i], l, ids, n, pass == 1, err);
    unmask_free(ids);
    return ok;
}

static bool begin(struct eval_reuse *e, bool questions, size_t lines, struct unmask_err *err)
{
    const char *const profile[SIDES] = { e->s->reuse ? e->s->reuse : "exact", e->s->against, "none", e->s->against };
    for (int i = 0; i < SIDES; i++) {
        struct side *side = &e->side[i];
        *side = (struct side){ .session = i == OTHER ? e->own : e->others };
        if (!(side->nats = mem_zalloc(2 * lines, sizeof *side->nats, err))) return false;
        side->tokens = side->nats + lines;
        eval_options(e->s, e->m, questions, &side->o);
        side->o.reuse = profile[i];
    }
    e->equal = e->positions = e->whole = e->differing = e->first_sum = e->both = 0;
    e->clock.done = 0;
    e->clock.total = (double)lines;
    return true;
}

static void end(struct eval_reuse *e)
{
    for (int i = 0; i < SIDES; i++) {
        eval_run_free(&e->side[i].run);
        mem_free(e->side[i].nats);
        e->side[i].nats = NULL;
    }
}

/* ---- the report ---- */

static double ratio(double a, double b) { return b > 0 ? a / b : NAN; }

static void put_cost(json_t *o, const struct eval_reuse *e)
{
    const struct side *a = &e->side[OTHER], *b = &e->side[REFERENCE], *none = &e->side[NONE];
    figure_put(o, "rows_per_place", ratio(a->rows, a->positions));
    figure_put(o, "rows_per_place_exact", ratio(b->rows, b->positions));
    figure_put(o, "passes", a->passes);
    figure_put(o, "passes_exact", b->passes);
    figure_put(o, "bytes_read", a->bytes_read);
    figure_put(o, "bytes_read_exact", b->bytes_read);
    json_object_set_new(o, "audit", json_pack("{s:f,s:f,s:f,s:f}", "audits", a->audits, "disagreements", a->disagreements,
                                              "refreshes", a->refreshes, "largest_error", a->largest));
    figure_put(o, "seconds", a->seconds);
    figure_put(o, "seconds_exact", b->seconds);
    figure_put(o, "seconds_none", none->seconds);
    figure_put(o, "speedup", ratio(none->seconds, a->seconds));
}

static void put_agreement(json_t *o, const struct eval_reuse *e, size_t n)
{
    figure_put(o, "agreement_free", ratio(e->equal, e->positions));
    json_object_set_new(o, "n", json_integer((json_int_t)n));
    json_object_set_new(o, "whole", json_integer((json_int_t)e->whole));
    figure_put(o, "first_difference", ratio(e->first_sum, e->differing));      /* mean step, over the answers that differ */
}

static bool questions(struct eval_reuse *e, json_t *report, struct unmask_err *err)
{
    const size_t n = e->set.n_questions;
    bool ok = begin(e, true, n, err);
    for (size_t i = 0; ok && i < n; i++) {
        ok = measure_line(e, &e->set.questions[i], i, OTHER, NONE, err) && score(e, &e->set.questions[i], err);
        if (ok) compare_answers(e);
        e->clock.done++;
    }
    if (ok) {
        json_t *o = json_object();
        const double a = e->side[OTHER].right, b = e->side[REFERENCE].right, count = (double)n;
        put_agreement(o, e, n);
        figure_put(o, "score", a / count);
        figure_put(o, "score_exact", b / count);
        figure_put_interval(o, "score_interval", eval_wilson(a, count));
        figure_put_interval(o, "score_difference_interval", eval_paired_shares(e->both, a - e->both, b - e->both, count));
        put_cost(o, e);
        json_object_set_new(report, "assistant", o);
    }
    end(e);
    return ok;
}

static double sum(const double *x, size_t n)
{
    double s = 0;
    for (size_t i = 0; i < n; i++) s += x[i];
    return s;
}

static double nll(const struct side *s, size_t n) { return ratio(sum(s->nats, n), sum(s->tokens, n)); }

static json_t *ages(const struct replay *r)
{
    json_t *list = json_array();
    for (int i = 0; i < REPLAY_AGES; i++) {
        const struct replay_sum *s = &r->age[i];
        if (s->rows > 0)
            json_array_append_new(list, json_pack("{s:i,s:f,s:f,s:f,s:o}", "age", replay_youngest(i), "rows", s->rows,
                                                  "agreement", s->equal / s->rows, "commit_overlap", s->overlap / s->steps,
                                                  "kl", figure(s->kl / s->rows)));
    }
    return list;
}

static void put_texts(json_t *o, const struct eval_reuse *e, size_t n, double *difference)
{
    const struct side *a = &e->side[OTHER], *b = &e->side[REFERENCE], *fewer = &e->side[FEWER];
    const struct replay_sum t = replay_total(&e->replay);
    double mean;
    put_agreement(o, e, n);
    figure_put(o, "agreement_teacher", ratio(t.equal, t.rows));
    figure_put(o, "agreement_committed", ratio(t.right, t.committed));
    figure_put(o, "commit_overlap", ratio(t.overlap, t.steps));
    figure_put(o, "kl", ratio(t.kl, t.rows));
    json_object_set_new(o, "by_age", ages(&e->replay));
    figure_put(o, "nll", nll(a, n));
    figure_put(o, "nll_exact", nll(b, n));
    figure_put(o, "nll_fewer_steps", nll(fewer, n));
    for (size_t i = 0; i < n; i++) difference[i] = a->nats[i] / a->tokens[i] - b->nats[i] / b->tokens[i];
    figure_put_interval(o, "nll_difference_interval", eval_mean(difference, n, &mean));
    figure_put(o, "distinct", ratio(a->distinct, a->pairs));
    figure_put(o, "distinct_exact", ratio(b->distinct, b->pairs));
    figure_put(o, "distinct_fewer_steps", ratio(fewer->distinct, fewer->pairs));
    put_cost(o, e);
    json_object_set_new(o, "steps_fewer_steps", json_integer(e->fewer_steps));
    figure_put(o, "seconds_fewer_steps", fewer->seconds);
}

/* Steps of the reference that take as long as the profile took; at least one a block. */
static bool fewer_steps(struct eval_reuse *e, struct unmask_err *err)
{
    struct side *fewer = &e->side[FEWER];
    const struct side *a = &e->side[OTHER], *b = &e->side[REFERENCE];
    const size_t n = e->set.n_texts;
    const double steps = floor(b->steps / (double)n * a->seconds / b->seconds + 0.5);
    const int blocks = (fewer->o.gen_length + fewer->o.block_length - 1) / fewer->o.block_length;
    e->fewer_steps = steps > blocks ? (int)steps : blocks;
    fewer->o.steps = e->fewer_steps;
    fewer->o.threshold = fewer->o.factor = 0;
    for (size_t i = 0; i < n; i++) {
        const struct eval_line *l = &e->set.texts[i];
        if (!measure_line(e, l, i, FEWER, FEWER, err)) return false;
        if (!quality(e, fewer, i, err)) return jsonl_at(l->path, l->number, err);
    }
    return true;
}

static bool texts(struct eval_reuse *e, json_t *report, struct unmask_err *err)
{
    const size_t n = e->set.n_texts;
    bool ok = begin(e, false, n, err);
    for (size_t i = 0; ok && i < n; i++) {
        const struct eval_line *l = &e->set.texts[i];
        struct side *a = &e->side[OTHER], *b = &e->side[REFERENCE];
        ok = measure_line(e, l, i, OTHER, NONE, err);
        if (ok) compare_answers(e);
        if (ok)
            ok = (quality(e, a, i, err) && quality(e, b, i, err)
                  && eval_replay(&e->replay, &b->run, b->session, &b->o, a->session, &a->o, &e->clock, err))
                 || jsonl_at(l->path, l->number, err);
        e->clock.done++;
    }
    double *difference = ok ? mem_zalloc(n, sizeof *difference, err) : NULL;
    ok = difference && fewer_steps(e, err);
    if (ok) {
        json_t *o = json_object();
        put_texts(o, e, n, difference);
        json_object_set_new(report, "stories", o);
    }
    mem_free(difference);
    end(e);
    return ok;
}

/* What questions and texts have in common, before what is their own and after it. */
static void print_agreement(const json_t *o)
{
    printf("  agreement     %.4f (%.0f of %.0f answers equal", figure_get(o, "agreement_free"), figure_get(o, "whole"), figure_get(o, "n"));
    if (figure_get(o, "whole") < figure_get(o, "n")) printf("; the others differ from step %.1f on", figure_get(o, "first_difference"));
    printf(")\n");
}

static void print_cost(const json_t *o, const char *a, const char *b)
{
    const json_t *audit = json_object_get(o, "audit");
    printf("  rows          %.2f per answer position, %s %.2f; passes %.0f and %.0f\n", figure_get(o, "rows_per_place"),
           b, figure_get(o, "rows_per_place_exact"), figure_get(o, "passes"), figure_get(o, "passes_exact"));
    if (figure_get(audit, "audits") > 0)
        printf("  audits        %.0f, another best token in %.0f, largest error of a lead %.3f; %.0f decisions taken again\n",
               figure_get(audit, "audits"), figure_get(audit, "disagreements"), figure_get(audit, "largest_error"),
               figure_get(audit, "refreshes"));
    printf("  seconds       %s %.2f, %s %.2f, none %.2f: %.2f times as fast as none\n", a, figure_get(o, "seconds"),
           b, figure_get(o, "seconds_exact"), figure_get(o, "seconds_none"), figure_get(o, "speedup"));
}

static void print_questions(const json_t *o, const char *b)
{
    struct interval difference;
    printf("  exact match   %.1f %%, %s %.1f %%", 100 * figure_get(o, "score"), b, 100 * figure_get(o, "score_exact"));
    if (figure_get_interval(o, "score_difference_interval", &difference))
        printf(" (95 %% interval of the difference %+.1f to %+.1f points)", 100 * difference.low, 100 * difference.high);
    putchar('\n');
}

static void print_texts(const json_t *o, const char *b)
{
    const json_t *age;
    size_t i;
    printf("  on the states of %s: best token equal %.4f (%.4f where it commits), overlap of what both commit %.4f, KL %.5f nats\n", b,
           figure_get(o, "agreement_teacher"), figure_get(o, "agreement_committed"), figure_get(o, "commit_overlap"), figure_get(o, "kl"));
    json_array_foreach(json_object_get(o, "by_age"), i, age)
        printf("    %3.0f steps and more since every row was computed: %.4f, %.5f (%.0f rows)\n", figure_get(age, "age"),
               figure_get(age, "agreement"), figure_get(age, "kl"), figure_get(age, "rows"));
    printf("  likelihood    %.4f nats per token, %s %.4f, %s in %.0f steps %.4f\n", figure_get(o, "nll"), b, figure_get(o, "nll_exact"), b,
           figure_get(o, "steps_fewer_steps"), figure_get(o, "nll_fewer_steps"));
    printf("  word pairs    %.3f distinct, %s %.3f\n", figure_get(o, "distinct"), b, figure_get(o, "distinct_exact"));
}

static void print_report(const struct eval_reuse *e, const json_t *report)
{
    const char *a = e->side[OTHER].o.reuse, *b = e->s->against;
    for (int k = 0; k < 2; k++) {
        const json_t *o = json_object_get(report, k ? "stories" : "assistant");
        if (!o) continue;
        printf("%s\n", k ? "texts" : "questions");
        print_agreement(o);
        if (k) print_texts(o, b);
        else print_questions(o, b);
        print_cost(o, a, b);
    }
    printf("peak memory %.1f MiB\n", figure_get(report, "peak_rss_bytes") / 0x1p20);
}

bool eval_reuse(const struct settings *s, const struct term *t, struct unmask_session *const sessions[EVAL_REUSE_SESSIONS],
                struct unmask_err *err)
{
    struct eval_reuse e = { .s = s, .m = sessions[0]->m, .own = sessions[0], .others = sessions[1],
                            .clock = { .what = s->reuse ? s->reuse : "exact" } };
    json_t *report = json_object();
    bool ok = report ? eval_set_read(&e.set, s->data, s->limit, err) : fail(err, E_MEMORY, .hint = NULL);
    progress_start(&e.clock.progress, s, t);
    ok = ok && (!e.set.n_questions || questions(&e, report, err));
    ok = ok && (!e.set.n_texts || texts(&e, report, err));
    progress_end(&e.clock.progress);
    if (ok) {
        json_object_set_new(report, "peak_rss_bytes", json_integer((json_int_t)term_peak_rss()));
        if (s->json) figures_write(report);
        else print_report(&e, report);
    }
    eval_set_free(&e.set);
    json_decref(report);
    return ok;
}
