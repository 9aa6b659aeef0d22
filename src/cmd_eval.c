/* cmd_eval.c - measure a model on a file of JSON lines: the share of questions answered exactly, with Wilson's interval, or
 * the likelihood bound of given answers (ML-GSAI/LLaDA get_log_likelihood.py), with an interval by the error over lines. */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>

#include "cmd.h"
#include "cmd_compare.h"
#include "eval_reuse.h"
#include "eval_stats.h"
#include "jsonl.h"
#include "likelihood.h"
#include "mem.h"
#include "reuse.h"

/* A line of --likelihood. */
struct line { json_t *o; int number; };

struct eval {
    const struct settings *s;
    struct eval_set set;                        /* of --exact-match */
    const char *path;                           /* of --likelihood, and its lines */
    struct line *lines; size_t n_lines;
    bool without_tokenizer;
    struct unmask_model *m;
    struct unmask_session *session;
    struct eval_clock clock;
    double start;
    size_t done;                                /* lines that are finished */
};

/* ---- exact match ---- */

static bool answers(struct eval *e, const struct eval_line *l, const struct unmask_options *o, bool *right, struct unmask_err *err)
{
    struct eval_run run = { .step_of = NULL };
    int32_t *ids = NULL;
    size_t n;
    const bool ok = eval_prompt(e->m, l, EVAL_PROMPT, &ids, &n, err) && eval_run(&run, e->session, ids, n, o, &e->clock, err)
        && eval_right(e->m, &run, l, right, err);
    unmask_free(ids);
    eval_run_free(&run);
    return ok || jsonl_at(l->path, l->number, err);
}

static bool exact_match(struct eval *e, struct unmask_err *err)
{
    struct unmask_options o;
    const int n = (int)e->set.n_questions;
    int correct = 0;
    settings_generation(e->s, e->m, &o);
    o.stop = term_signal_flag();
    for (int i = 0; i < n; i++, e->clock.done++) {
        bool right = false;
        if (!answers(e, &e->set.questions[i], &o, &right, err)) return false;
        correct += right;
    }
    const struct interval i = eval_wilson(correct, n);
    const double share = (double)correct / n;
    progress_end(&e->clock.progress);
    if (e->s->json)
        printf("{\"exact_match\":{\"n\":%d,\"correct\":%d,\"share\":%.17g,\"low\":%.17g,\"high\":%.17g},\"seconds\":%.3f}\n",
               n, correct, share, i.low, i.high, timing_now() - e->start);
    else printf("exact match  %.1f %%  (%d of %d; 95 %% interval %.1f to %.1f %%)\n", 100 * share, correct, n, 100 * i.low, 100 * i.high);
    return true;
}

/* ---- likelihood ---- */

static bool refuse_line(const struct eval *e, int number, const char *found, const char *need, struct unmask_err *err)
{
    return fail(err, E_CLI_LINE, .file = e->path, .field = FMT("line %d", number), .found = found, .need = need);
}

static bool is_text(const json_t *o, const char *key) { return json_is_string(json_object_get(o, key)); }
static bool is_list(const json_t *o, const char *key) { return json_is_array(json_object_get(o, key)); }

static bool check_line(struct eval *e, const struct line *l, struct unmask_err *err)
{
    const bool ids = is_list(l->o, "prompt_ids") && is_list(l->o, "answer_ids"), texts = is_text(l->o, "prompt") && is_text(l->o, "answer");
    e->without_tokenizer = e->without_tokenizer && ids;
    return ids || texts
        || refuse_line(e, l->number, "other fields",
                       "the texts \"prompt\" and \"answer\", or the lists \"prompt_ids\" and \"answer_ids\"", err);
}

static bool add_line(struct eval *e, json_t *o, int number, struct unmask_err *err)
{
    struct line *grown = mem_resize(e->lines, e->n_lines + 1, sizeof *grown, err);
    if (!grown) {
        json_decref(o);
        return false;
    }
    e->lines = grown;
    grown[e->n_lines] = (struct line){ o, number };
    return check_line(e, &grown[e->n_lines++], err);
}

static bool read_lines(struct eval *e, struct unmask_err *err)
{
    struct jsonl j;
    json_t *o = NULL;
    if (!jsonl_open(&j, e->path, err)) return false;
    bool ok = true;
    e->path = j.name;
    e->without_tokenizer = true;
    do ok = jsonl_next(&j, &o, err) && (!o || add_line(e, o, (int)j.number, err));
    while (ok && o && e->n_lines != (size_t)e->s->limit);       /* limit 0: never */
    jsonl_close(&j);
    return ok && (e->n_lines > 0 || fail(err, E_CLI_LINE, .file = e->path, .found = "no line", .need = "JSON objects, one a line"));
}

static bool on_draw(void *user, int draws)
{
    struct eval *e = user;
    e->clock.done = (double)e->done + (double)draws / e->s->mc;
    return eval_tick(&e->clock);
}

/* Ids of a field: "prompt_ids", or the text "prompt" as ordinary text.  mem_free. */
static bool ids_of(const struct eval *e, const struct line *l, const char *list_key, const char *text_key,
                   int32_t **ids, size_t *n, struct unmask_err *err)
{
    const json_t *list = json_object_get(l->o, list_key), *text = json_object_get(l->o, text_key);
    if (!json_is_array(list))
        return unmask_tokenize(e->m, json_string_value(text), json_string_length(text), 0, ids, n, err)
            || jsonl_at(e->path, l->number, err);
    *n = json_array_size(list);
    if (!(*ids = mem_zalloc(*n, sizeof **ids, err))) return false;
    for (size_t i = 0; i < *n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return refuse_line(e, l->number, FMT("another value in \"%s\"", list_key), "token ids", err);
        (*ids)[i] = (int32_t)json_integer_value(v);
    }
    return true;
}

/* Bound of -log p(answer | prompt) of one line, nats.  Each line has its own noise, so that errors are independent. */
static bool line_nats(struct eval *e, const struct line *l, uint64_t seed, double *nats, size_t *n_tokens, struct unmask_err *err)
{
    int32_t *prompt = NULL, *answer = NULL;
    size_t n_prompt;
    bool ok = ids_of(e, l, "prompt_ids", "prompt", &prompt, &n_prompt, err) && ids_of(e, l, "answer_ids", "answer", &answer, n_tokens, err);
    if (ok) {
        ok = likelihood(e->session, prompt, n_prompt, answer, *n_tokens, e->s->mc, (float)e->s->cfg_scale, seed, on_draw, e, nats, err)
            || jsonl_at(e->path, l->number, err);
        *nats = -*nats;
    }
    mem_free(prompt);
    mem_free(answer);
    return ok;
}

/* A number of JSON, which has none that is not finite. */
static const char *number(struct err_text *t, double v) { return isfinite(v) ? err_fmt(t, "%.17g", v) : "null"; }
#define NUMBER(v) number(&(struct err_text){ { 0 } }, (v))

static bool likelihood_of_lines(struct eval *e, struct unmask_err *err)
{
    const size_t n = e->n_lines;
    double *nats = mem_zalloc(2 * n, sizeof *nats, err), *tokens = nats + n, all_nats = 0, all_tokens = 0;
    if (!nats) return false;
    for (; e->done < n; e->done++) {
        size_t n_tokens;
        if (!line_nats(e, &e->lines[e->done], e->s->seed + e->done, &nats[e->done], &n_tokens, err)) {
            mem_free(nats);
            return false;
        }
        tokens[e->done] = (double)n_tokens;
        all_nats += nats[e->done];
        all_tokens += tokens[e->done];
    }
    const double ratio = all_nats / all_tokens, half = eval_ratio_half(nats, tokens, n);
    mem_free(nats);
    progress_end(&e->clock.progress);
    if (e->s->json) {
        printf("{\"likelihood\":{\"n\":%zu,\"tokens\":%.0f,\"nats_per_token\":%.17g,\"low\":%s,\"high\":%s,"
               "\"mc\":%d,\"seed\":%" PRIu64 ",\"perplexity\":%s},\"seconds\":%.3f}\n",
               n, all_tokens, ratio, NUMBER(ratio - half), NUMBER(ratio + half),
               e->s->mc, e->s->seed, NUMBER(exp(ratio)), timing_now() - e->start);
        return true;
    }
    printf("likelihood  at most %.4f nats per token", ratio);
    if (n > 1) printf(" (95 %% interval %.4f to %.4f)", ratio - half, ratio + half);
    printf(", perplexity bound %.4f; %zu lines, %.0f tokens, mc %d, seed %" PRIu64 "\n", exp(ratio), n, all_tokens, e->s->mc, e->s->seed);
    return true;
}

/* ---- the command ---- */

static bool measure(struct eval *e, const struct term *t, struct unmask_err *err)
{
    const size_t n = e->s->exact_match ? e->set.n_questions : e->n_lines;
    e->clock.total = (double)n;
    e->clock.what = e->s->exact_match ? e->set.name : e->path;
    progress_start(&e->clock.progress, e->s, t);
    e->start = timing_now();
    const bool ok = e->s->exact_match ? exact_match(e, err) : likelihood_of_lines(e, err);
    progress_end(&e->clock.progress);
    if (ok && e->s->verbose)
        fprintf(stderr, "%zu lines in %.1f s, peak memory %.1f MiB\n", n, timing_now() - e->start, (double)term_peak_rss() / 0x1p20);
    return ok;
}

/* Before a line of data is blamed; --reuse is read where the model is opened. */
static bool check_against(const char *text, struct unmask_err *err)
{
    struct reuse_profile p;
    struct unmask_err why;
    return reuse_profile_read(text, &p, &why)
        || fail(err, E_GEN_VALUE, .field = "--against", .found = why.found, .need = why.need, .hint = why.hint);
}

/* Does one profile keep rows that the other does not?  Memory is planned for the one that keeps more.  What is no profile keeps none. */
static bool keeps_more(const char *a, const char *b)
{
    struct reuse_profile p, q;
    if (!a || !reuse_profile_read(a, &p, NULL)) return false;
    const bool other = b && reuse_profile_read(b, &q, NULL);
    const struct store_layers kept = reuse_layers(&p, 2), by_other = other ? reuse_layers(&q, 2) : (struct store_layers){ .n = 0 };
    return kept.n + (kept.state > 0) > by_other.n + (by_other.state > 0);
}

static bool run_reuse(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    char path[1024];
    struct unmask_model *m = NULL;
    struct unmask_session *sessions[EVAL_REUSE_SESSIONS] = { NULL };
    struct unmask_open_options o = cmd_open_options(s, false);
    o.sessions = EVAL_REUSE_SESSIONS;
    o.logit_rows = eval_block(s);
    mem_keep_nothing();
    bool ok = check_against(s->against, err) && cmd_model_path(s, path, err);
    if (keeps_more(s->against, s->reuse)) o.reuse = s->against;
    ok = ok && cmd_load(s, t, path, &o, &m, err);
    for (int i = 0; ok && i < EVAL_REUSE_SESSIONS; i++) ok = unmask_session_open(&sessions[i], m, o.threads, err);
    ok = ok && eval_reuse(s, t, sessions, err);
    for (int i = 0; i < EVAL_REUSE_SESSIONS; i++) unmask_session_close(sessions[i]);
    unmask_close(m);
    return ok;
}

static bool run_lines(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct eval e = { .s = s, .path = s->likelihood };
    const bool ok = (s->exact_match ? eval_questions_read(&e.set, s->exact_match, s->limit, err) : read_lines(&e, err))
        && cmd_open_model(s, t, s->likelihood && e.without_tokenizer, &e.m, &e.session, err) && measure(&e, t, err);
    unmask_session_close(e.session);
    unmask_close(e.m);
    for (size_t i = 0; i < e.n_lines; i++) json_decref(e.lines[i].o);
    mem_free(e.lines);
    eval_set_free(&e.set);
    return ok;
}

#define MEASURES "--likelihood, --exact-match, --against, --compare"

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    const int measures = (s->likelihood != NULL) + (s->exact_match != NULL) + (s->against != NULL) + (s->compare != NULL);
    if (!cmd_expect_args(s, s->compare ? 1 : 0, err)) return false;
    if (measures > 1) return fail(err, E_CLI_CONFLICT, .field = MEASURES, .found = "more than one", .need = "one of them");
    if (!measures) return fail(err, E_CLI_MISSING, .field = MEASURES, .need = "one of them");
    if (s->compare && s->origin[OPT_MODEL] == FROM_FLAG)
        return fail(err, E_CLI_CONFLICT, .field = "--compare, --model", .found = "both", .need = "one of them",
                    .hint = "--compare A B names both models");
    if (s->compare && s->n_args < 1) return fail(err, E_CLI_MISSING, .field = "--compare A B", .found = "one model", .need = "two");
    if (s->compare) return cmd_compare(s, t, err);
    return s->against ? run_reuse(s, t, err) : run_lines(s, t, err);
}

const struct command cmd_eval = {
    "eval", CMD_EVAL, run, "eval -m MODEL (--likelihood FILE | --exact-match FILE | --reuse A --against B | --compare A B) [options]",
    "measure a model on files of JSON lines",
    "  unmask eval --exact-match questions.jsonl            lines of {\"q\": ..., \"a\": ...}\n"
    "  unmask eval --likelihood texts.jsonl --mc 128        lines of {\"prompt\": ..., \"answer\": ...} or their ids\n"
    "  unmask eval --reuse fast --against exact             what a reuse profile changes: answers, likelihood, cost\n"
    "  unmask eval --compare f32.gguf q4_0.gguf             what quantizing changes: KL, likelihood, answers\n"
};
