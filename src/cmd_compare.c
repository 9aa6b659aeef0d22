/* cmd_compare.c - see cmd_compare.h.  A goes through all lines, then B through the same; every line gives
 *     teacher-forced   the line itself with a quarter, a half, three quarters and all of it masked: the best token and
 *                      KL(A || B) at every mask
 *     likelihood       the bound of the line under both, from the same masks (ML-GSAI/LLaDA get_log_likelihood.py)
 *     free-running     what each model writes, under the same options; for questions whether it is the wanted answer */
#include "cmd_compare.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "eval_figures.h"
#include "json.h"
#include "likelihood.h"
#include "mem.h"
#include "model.h"

enum { LEVELS = 4, GIVEN = 256, TEACHER_BATCH = 1 << 20 };     /* ids of a text that are looked at; a batch that likelihood() never draws */

/* One line, as both models see it. */
struct item {
    const struct eval_line *line;
    int32_t *ids; int n_prompt, n;              /* what is given, and behind it what is masked                  */
    struct eval_run run[2];                     /* free-running answers; of A only ids and lengths outlive A    */
    bool right[2];
    double nats[2];                             /* bound of -log p(ids behind the prompt | prompt)              */
    double kl, rows;                            /* sums over its masks                                          */
};

struct level { double rows, equal, kl; };

struct side {
    struct unmask_model *m; struct unmask_session *session;
    char name[1024]; uint64_t weight_bytes; int n_vocab; int32_t mask_id;
    double seconds;
};

struct compare {
    const struct settings *s; const struct term *t;
    struct eval_set set;
    struct item *items; size_t n_items;         /* questions, then texts */
    struct side side[2];
    int now;                                    /* the side that runs */
    FILE *kept;                                 /* A's logits, in the order of their masks */
    float *row;                                 /* [n_vocab] */
    struct item *item;                          /* the one in work, its level in sums[kind][level] */
    struct level sums[2][LEVELS], *level;
    struct eval_clock clock;
};

/* ---- logits that wait for the other model ---- */

static bool keep_failed(struct unmask_err *err)
{
    return fail(err, E_FILE_WRITE, .file = "the temporary file of --compare", .found = ERRNO(errno),
                .hint = "Set TMPDIR to a folder with more room, or use a smaller --limit");
}

static bool open_kept(struct compare *c, struct unmask_err *err)
{
    const char *folder = getenv("TMPDIR");
    char path[1024];
    snprintf(path, sizeof path, "%.1000s/unmask-XXXXXX", folder && *folder ? folder : "/var/tmp");
    const int fd = mkstemp(path);
    if (fd >= 0) unlink(path);
    if (fd >= 0 && (c->kept = fdopen(fd, "w+b"))) return true;
    if (fd >= 0) close(fd);
    return keep_failed(err);
}

static int32_t best(const struct unmask_model *m, const float *l)
{
    int32_t at;
    m->kernels.argmax(l, m->h.n_vocab, &at);
    return at;
}

static bool on_row(void *user, int position, const float *logits, struct unmask_err *err)
{
    (void)position;
    struct compare *c = user;
    const struct unmask_model *m = c->side[c->now].m;
    const size_t n = (size_t)m->h.n_vocab;
    if (c->now == 0) return fwrite(logits, sizeof *logits, n, c->kept) == n || keep_failed(err);
    if (fread(c->row, sizeof *c->row, n, c->kept) != n) return keep_failed(err);
    const double kl = eval_kl(c->row, logits, m->h.n_vocab);
    *c->level = (struct level){ c->level->rows + 1, c->level->equal + (best(m, c->row) == best(m, logits)), c->level->kl + kl };
    c->item->kl += kl;
    c->item->rows++;
    return true;
}

/* ---- one line under one model ---- */

/* Question and answer in the chat template with the end of the turn, or the begin token and the text. */
static bool given(const struct unmask_model *m, const struct eval_line *l, int32_t **ids, int *n_prompt, int *n, struct unmask_err *err)
{
    int32_t *answer = NULL, *grown;
    size_t n_first, n_answer = 0;
    if (!eval_prompt(m, l, GIVEN < m->h.n_ctx ? GIVEN : (size_t)m->h.n_ctx, ids, &n_first, err)) return false;
    *n_prompt = l->answer ? (int)n_first : m->h.bos_id >= 0;
    *n = (int)n_first;
    if (!l->answer) return true;
    bool ok = unmask_tokenize(m, l->answer, l->n_answer, 0, &answer, &n_answer, err)
        && (grown = mem_resize(*ids, n_first + n_answer + 1, sizeof *grown, err));
    if (ok) {
        *ids = grown;
        if (n_answer) memcpy(grown + n_first, answer, n_answer * sizeof *answer);
        *n += (int)n_answer;
        if (m->h.eot_id >= 0) grown[(*n)++] = m->h.eot_id;
    }
    unmask_free(answer);
    if (!ok) unmask_free(*ids);
    return ok;
}

/* A's ids, or a check that B has the same. */
static bool tokenize(struct compare *c, struct item *i, struct unmask_err *err)
{
    int32_t *ids;
    int n_prompt, n;
    if (!given(c->side[c->now].m, i->line, &ids, &n_prompt, &n, err)) return false;
    if (c->now == 0) {
        *i = (struct item){ .line = i->line, .ids = ids, .n_prompt = n_prompt, .n = n };
        return n > n_prompt || fail(err, E_CLI_LINE, .found = "an empty text", .need = "at least one token");
    }
    const bool same = n == i->n && n_prompt == i->n_prompt && !memcmp(ids, i->ids, (size_t)n * sizeof *ids);
    unmask_free(ids);
    return same || fail(err, E_EVAL_MODELS, .found = "another tokenizer", .need = FMT("that of %.100s", c->side[0].name));
}

static bool teacher_forced(struct compare *c, struct item *i, uint64_t seed, struct unmask_err *err)
{
    const struct side *side = &c->side[c->now];
    const int answer = i->n - i->n_prompt;
    int32_t *noisy = mem_zalloc((size_t)i->n, sizeof *noisy, err);
    bool ok = noisy != NULL;
    for (int level = 0; ok && level < LEVELS; level++) {
        memcpy(noisy, i->ids, (size_t)i->n * sizeof *noisy);
        c->level = &c->sums[i->line->answer == NULL][level];
        c->item = i;
        ok = mask_some(seed, TEACHER_BATCH + level, 0, noisy + i->n_prompt, answer, (answer * (level + 1) + LEVELS - 1) / LEVELS,
                       side->m->h.mask_id, err)
            && masked_logits(side->session, noisy, i->n, i->n_prompt, 0, on_row, c, err);
    }
    mem_free(noisy);
    return ok;
}

static bool generate(struct compare *c, struct item *i, struct unmask_err *err)
{
    const struct side *side = &c->side[c->now];
    struct unmask_options o;
    int32_t *ids;
    size_t n;
    eval_options(c->s, side->m, i->line->answer != NULL, &o);
    if (!eval_prompt(side->m, i->line, EVAL_PROMPT, &ids, &n, err)) return false;
    bool ok = eval_run(&i->run[c->now], side->session, ids, n, &o, &c->clock, err);
    unmask_free(ids);
    return ok && (!i->line->answer || eval_right(side->m, &i->run[c->now], i->line, &i->right[c->now], err));
}

static bool measure_item(struct compare *c, struct item *i, size_t number, struct unmask_err *err)
{
    const uint64_t seed = c->s->seed + number;
    const struct side *side = &c->side[c->now];
    return tokenize(c, i, err) && teacher_forced(c, i, seed, err)
        && likelihood(side->session, i->ids, (size_t)i->n_prompt, i->ids + i->n_prompt, (size_t)(i->n - i->n_prompt), c->s->mc, 0, seed,
                      eval_on_draw, &c->clock, &i->nats[c->now], err)
        && generate(c, i, err);
}

/* ---- one model over all lines ---- */

/* Before A works for hours: both are there, can be run, and are of one vocabulary. */
static bool describe_side(struct side *side, const struct side *a, const struct settings *s, const char *path, struct unmask_err *err)
{
    const struct unmask_open_options o = cmd_open_options(s, false);
    struct unmask_model *m;
    if (!model_prepare(&m, path, &o, err)) return false;
    snprintf(side->name, sizeof side->name, "%s", path);
    side->weight_bytes = m->weight_bytes;
    side->n_vocab = m->h.n_vocab;
    side->mask_id = m->h.mask_id;
    model_close(m);
    if (side->n_vocab == a->n_vocab && side->mask_id == a->mask_id) return true;
    return fail(err, E_EVAL_MODELS, .file = path, .found = FMT("%d tokens, mask %d", side->n_vocab, side->mask_id),
                .need = FMT("%d and %d, those of %.100s", a->n_vocab, a->mask_id, a->name));
}

static bool run_side(struct compare *c, struct unmask_err *err)
{
    struct settings s = *c->s;
    struct side *side = &c->side[c->now];
    c->clock.what = s.model = side->name;
    bool ok = cmd_open_model(&s, c->t, false, &side->m, &side->session, err);
    const double start = timing_now();
    if (ok && !c->row) ok = (c->row = mem_zalloc((size_t)side->n_vocab, sizeof *c->row, err)) != NULL;
    if (ok && c->now == 1) ok = (fflush(c->kept) == 0 && fseek(c->kept, 0, SEEK_SET) == 0) || keep_failed(err);
    for (size_t i = 0; ok && i < c->n_items; i++) {
        ok = measure_item(c, &c->items[i], i, err) || jsonl_at(c->items[i].line->path, c->items[i].line->number, err);
        if (!ok && !err->file[0]) err_within(err, side->name);          /* no fault of the line: of which model? */
        c->clock.done++;
    }
    side->seconds = timing_now() - start;
    unmask_session_close(side->session);
    unmask_close(side->m);
    side->session = NULL;
    side->m = NULL;
    return ok;
}

/* ---- the report ---- */

static void put_teacher(json_t *o, const struct compare *c, const struct item *items, size_t n, bool texts, double *work)
{
    struct level all = { 0, 0, 0 };
    json_t *list = json_array();
    for (int i = 0; i < LEVELS; i++) {
        const struct level *l = &c->sums[texts][i];
        all = (struct level){ all.rows + l->rows, all.equal + l->equal, all.kl + l->kl };
        json_array_append_new(list, json_pack("{s:f,s:f,s:o,s:o}", "masked", (double)(i + 1) / LEVELS, "rows", l->rows,
                                              "agreement", figure(l->equal / l->rows), "kl", figure(l->kl / l->rows)));
    }
    for (size_t i = 0; i < n; i++) {
        work[i] = items[i].kl;
        work[n + i] = items[i].rows;
    }
    const double kl = all.kl / all.rows, half = eval_ratio_half(work, work + n, n);
    figure_put(o, "rows", all.rows);
    figure_put(o, "agreement_teacher", all.equal / all.rows);
    figure_put(o, "kl", kl);
    figure_put_interval(o, "kl_interval", (struct interval){ kl - half, kl + half });
    json_object_set_new(o, "levels", list);
}

static void put_likelihood(json_t *o, const struct item *items, size_t n, double *work)
{
    double nats[2] = { 0, 0 }, tokens = 0;
    for (size_t i = 0; i < n; i++) {
        for (int k = 0; k < 2; k++) nats[k] -= items[i].nats[k];
        work[i] = items[i].nats[0] - items[i].nats[1];
        work[n + i] = items[i].n - items[i].n_prompt;
        tokens += work[n + i];
    }
    const double difference = (nats[1] - nats[0]) / tokens, half = eval_ratio_half(work, work + n, n);
    figure_put(o, "tokens", tokens);
    figure_put(o, "nll_a", nats[0] / tokens);
    figure_put(o, "nll_b", nats[1] / tokens);
    figure_put_interval(o, "nll_difference_interval", (struct interval){ difference - half, difference + half });
}

static void put_generation(json_t *o, const struct item *items, size_t n, bool texts)
{
    double equal = 0, positions = 0, right[2] = { 0, 0 }, both = 0, whole = 0;
    for (size_t i = 0; i < n; i++) {
        const double equal_before = equal, positions_before = positions;
        eval_agreement(&items[i].run[0], &items[i].run[1], &equal, &positions);
        whole += equal - equal_before == positions - positions_before;
        for (int k = 0; k < 2; k++) right[k] += items[i].right[k];
        both += items[i].right[0] && items[i].right[1];
    }
    const double count = (double)n;
    figure_put(o, "agreement_free", equal / positions);
    figure_put(o, "differing", 1 - equal / positions);
    json_object_set_new(o, "n", json_integer((json_int_t)n));
    json_object_set_new(o, "whole", json_integer((json_int_t)whole));
    if (texts) return;
    figure_put(o, "score_a", right[0] / count);
    figure_put(o, "score_b", right[1] / count);
    figure_put_interval(o, "score_a_interval", eval_wilson(right[0], count));
    figure_put_interval(o, "score_b_interval", eval_wilson(right[1], count));
    figure_put_interval(o, "score_difference_interval", eval_paired_shares(both, right[1] - both, right[0] - both, count));
}

static bool put_kind(json_t *report, const struct compare *c, bool texts, struct unmask_err *err)
{
    const struct item *items = c->items + (texts ? c->set.n_questions : 0);
    const size_t n = texts ? c->set.n_texts : c->set.n_questions;
    if (n == 0) return true;
    double *work = mem_zalloc(2 * n, sizeof *work, err);
    if (!work) return false;
    json_t *o = json_object();
    put_teacher(o, c, items, n, texts, work);
    put_likelihood(o, items, n, work);
    put_generation(o, items, n, texts);
    json_object_set_new(report, texts ? "stories" : "assistant", o);
    mem_free(work);
    return true;
}

static bool fill_report(json_t *report, const struct compare *c, struct unmask_err *err)
{
    for (int k = 0; k < 2; k++)
        json_object_set_new(report, k ? "b" : "a",
                            json_pack("{s:o,s:I,s:f}", "model", json_cstr(c->side[k].name),
                                      "weight_bytes", (json_int_t)c->side[k].weight_bytes, "seconds", c->side[k].seconds));
    if (!put_kind(report, c, false, err) || !put_kind(report, c, true, err)) return false;
    json_object_set_new(report, "mc", json_integer(c->s->mc));
    json_object_set_new(report, "seed", c->s->seed > INT64_MAX ? json_real((double)c->s->seed) : json_integer((json_int_t)c->s->seed));
    json_object_set_new(report, "peak_rss_bytes", json_integer((json_int_t)term_peak_rss()));
    return true;
}

static void print_kind(const json_t *o, bool texts)
{
    struct interval i95;
    const json_t *level;
    size_t i;
    printf("%s (%.0f)\n  at the masks of given lines: KL(A || B) %.5f nats",
           texts ? "texts" : "questions", figure_get(o, "n"), figure_get(o, "kl"));
    if (figure_get_interval(o, "kl_interval", &i95)) printf(" (95 %% interval %.5f to %.5f)", i95.low, i95.high);
    printf(", best token equal %.4f\n", figure_get(o, "agreement_teacher"));
    json_array_foreach(json_object_get(o, "levels"), i, level)
        printf("    %3.0f %% masked: %.5f, %.4f (%.0f rows)\n",
               100 * figure_get(level, "masked"), figure_get(level, "kl"), figure_get(level, "agreement"), figure_get(level, "rows"));
    printf("  likelihood    at most %.4f and %.4f nats per token", figure_get(o, "nll_a"), figure_get(o, "nll_b"));
    if (figure_get_interval(o, "nll_difference_interval", &i95))
        printf(" (95 %% interval of the difference %+.4f to %+.4f)", i95.low, i95.high);
    printf("\n  written       %.2f %% of the tokens differ; %.0f of %.0f answers are equal\n",
           100 * figure_get(o, "differing"), figure_get(o, "whole"), figure_get(o, "n"));
    if (texts) return;
    printf("  exact match   %.1f %% and %.1f %%", 100 * figure_get(o, "score_a"), 100 * figure_get(o, "score_b"));
    if (figure_get_interval(o, "score_difference_interval", &i95))
        printf(" (95 %% interval of the difference %+.1f to %+.1f points)", 100 * i95.low, 100 * i95.high);
    putchar('\n');
}

static void print_report(const json_t *report)
{
    for (int k = 0; k < 2; k++) {
        const json_t *o = json_object_get(report, k ? "b" : "a"), *name = json_object_get(o, "model");
        printf("%s  %s, %.1f MiB of weights\n", k ? "B" : "A", QUOTE(json_string_value(name), json_string_length(name)),
               figure_get(o, "weight_bytes") / 0x1p20);
    }
    for (int k = 0; k < 2; k++) {
        const json_t *o = json_object_get(report, k ? "stories" : "assistant");
        if (o) print_kind(o, k);
    }
    printf("peak memory %.1f MiB\n", figure_get(report, "peak_rss_bytes") / 0x1p20);
}

static bool describe_sides(struct compare *c, struct unmask_err *err)
{
    return describe_side(&c->side[0], &c->side[0], c->s, c->s->compare, err)
        && describe_side(&c->side[1], &c->side[0], c->s, c->s->args[0], err);
}

static bool list_items(struct compare *c, struct unmask_err *err)
{
    c->n_items = c->set.n_questions + c->set.n_texts;
    if (!(c->items = mem_zalloc(c->n_items, sizeof *c->items, err))) return false;
    for (size_t i = 0; i < c->n_items; i++)
        c->items[i].line = i < c->set.n_questions ? &c->set.questions[i] : &c->set.texts[i - c->set.n_questions];
    c->clock.total = 2 * (double)c->n_items;
    return true;
}

bool cmd_compare(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct compare c = { .s = s, .t = t };
    json_t *report = json_object();
    bool ok = (report || fail(err, E_MEMORY, .hint = NULL)) && eval_set_read(&c.set, s->data, s->limit, err) && describe_sides(&c, err)
        && list_items(&c, err) && open_kept(&c, err);
    progress_start(&c.clock.progress, s, t);
    for (c.now = 0; ok && c.now < 2; c.now++) ok = run_side(&c, err);
    progress_end(&c.clock.progress);
    if (ok && (ok = fill_report(report, &c, err))) {
        if (s->json) figures_write(report);
        else print_report(report);
    }
    for (size_t i = 0; i < c.n_items && c.items; i++) {
        for (int k = 0; k < 2; k++) eval_run_free(&c.items[i].run[k]);
        mem_free(c.items[i].ids);
    }
    if (c.kept) fclose(c.kept);
    mem_free(c.row);
    mem_free(c.items);
    eval_set_free(&c.set);
    json_decref(report);
    return ok;
}
