/* cmd_generate.c - see cmd_generate.h. */
#include "cmd_generate.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "canvas.h"
#include "cmd_trace.h"
#include "json.h"
#include "mem.h"

bool generator_open(struct generator *g, const struct settings *s, const struct term *t, bool without_tokenizer,
                    struct unmask_err *err)
{
    char model[1024];
    *g = (struct generator){ .s = s, .t = t };
    for (int i = 0; i < s->n_stop; i++)
        if (!cmd_check_text(s->stop[i], strlen(s->stop[i]), "--stop", err)) return false;
    if (!cmd_model_path(s, model, err) || !cmd_spare_model(model, "--trace", s->trace, err)) return false;
    if (s->trace && !trace_open(&g->trace, s->trace, s->force, err)) return false;
    if (!cmd_open_model(s, t, without_tokenizer, &g->m, &g->session, err)) return false;
    unmask_model_get_info(g->m, &g->info);
    settings_generation(s, g->m, &g->o);
    g->o.stop = term_signal_flag();
    if (s->seed_drawn && !s->json && !s->verbose) note(s, "seed %" PRIu64, g->o.seed);       /* those tell it with the answer */
    return true;
}

void generator_close(struct generator *g)
{
    outfile_abort(&g->trace);
    unmask_session_close(g->session);
    unmask_close(g->m);
    *g = (struct generator){ .s = NULL };
}

void answer_free(struct answer *a)
{
    unmask_result_free(&a->r);
    mem_free(a->text);
    *a = (struct answer){ .text = NULL };
}

void note(const struct settings *s, const char *fmt, ...)
{
    if (s->quiet) return;
    va_list ap;
    va_start(ap, fmt);
    fputs("unmask: note: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* ---- one run ---- */

struct watch {
    const struct generator *g;
    struct canvas canvas;
    struct progress progress;
    struct outfile *trace;      /* NULL: none */
    int masks;                  /* of the start canvas */
    struct unmask_err *err;     /* of the trace; the engine then reports a cancelled run */
    bool failed;
    int stopped;                /* answer tokens before the first mask when a stop text was among them; 0: not yet */
};

/* Where the first of the stop texts begins; n_text: none is there. */
static size_t find_stop(const struct settings *s, const char *text, size_t n_text)
{
    size_t first = n_text;
    for (int i = 0; i < s->n_stop; i++) {
        const size_t n = strlen(s->stop[i]);
        for (size_t at = 0; at < first && at + n <= n_text; at++)
            if (!memcmp(text + at, s->stop[i], n)) first = at;
    }
    return first;
}

/* A stop text stands before the first mask: nothing behind it will be seen. */
static bool reached_stop(struct watch *w, const struct unmask_step *step)
{
    const int32_t *answer = step->canvas + step->n_prompt;
    int n = 0;
    while (n < step->n_canvas - step->n_prompt && answer[n] != w->g->info.mask_id) n++;
    char *text;
    size_t n_text;
    if (!w->g->s->n_stop || !text_of_ids(w->g, answer, (size_t)n, &text, &n_text, NULL)) return false;
    if (find_stop(w->g->s, text, n_text) < n_text) w->stopped = n;
    mem_free(text);
    return w->stopped > 0;
}

static bool on_step(void *user, const struct unmask_step *step)
{
    struct watch *w = user;
    if (w->trace && !trace_step(w->trace, step, w->err)) {
        w->failed = true;
        return false;
    }
    if (step->step == 0) w->masks = step->n_masked;
    if (w->canvas.out) canvas_draw(&w->canvas, step);
    else progress_show(&w->progress, w->masks - step->n_masked, w->masks, "tokens", "denoising");
    return !term_signal() && !reached_stop(w, step);
}

static bool run_engine(struct generator *g, const int32_t *ids, size_t n, bool infill, struct watch *w, struct unmask_result *r,
                       struct unmask_err *err)
{
    const bool scheduled = g->o.steps > 0 && g->o.threshold <= 0 && g->o.factor <= 0;
    canvas_open(&w->canvas, g->s, g->t, g->m, scheduled ? g->o.steps : 0);
    progress_start(&w->progress, g->s, g->t);
    term_hold_signals(true);
    const bool ok = (infill ? unmask_infill : unmask_generate)(g->session, ids, n, &g->o, on_step, w, r, err);
    canvas_close(&w->canvas);
    progress_end(&w->progress);
    term_hold_signals(false);
    return ok;
}

bool generate(struct generator *g, const int32_t *ids, size_t n, bool infill, struct answer *a, struct unmask_err *err)
{
    struct unmask_err traced;
    struct watch w = { .g = g, .trace = g->s->trace ? &g->trace : NULL, .err = &traced };
    *a = (struct answer){ .finish = "length" };
    bool ok = run_engine(g, ids, n, infill, &w, &a->r, err);
    if (!ok && w.stopped) {                     /* what is behind the stop text was never needed */
        ok = true;
        a->r.finish = UNMASK_FINISH_STOP;
        a->r.n_ids = w.stopped;
    }
    if (w.failed) {
        if (err) *err = traced;
        answer_free(a);
    }
    const bool traceable = ok || a->r.finish == UNMASK_FINISH_CANCELLED;        /* what an interrupted run has, its trace tells of */
    if (w.trace && traceable && !w.failed && !outfile_commit(w.trace, err)) ok = false;
    const int length = a->r.n_canvas - a->r.n_prompt;
    const bool felt = g->s->origin[OPT_GEN_LENGTH] == FROM_FLAG || a->r.finish != UNMASK_FINISH_STOP;
    if (!infill && a->r.canvas && length < g->o.gen_length && felt)
        note(g->s, "answer cut to %d positions: %zu prompt tokens, and a context of %d", length, n, g->info.context_length);
    return ok;
}

/* ---- what came out ---- */

static bool is_end(const struct generator *g, int32_t id) { return id == g->info.eos_id || id == g->info.eot_id; }

size_t ids_before_end(const struct generator *g, const int32_t *ids, size_t n)
{
    size_t i = 0;
    while (i < n && !is_end(g, ids[i])) i++;
    return i;
}

bool text_of_ids(const struct generator *g, const int32_t *ids, size_t n, char **text, size_t *n_text, struct unmask_err *err)
{
    const size_t end = ids_before_end(g, ids, n);
    int32_t *kept = mem_resize(NULL, end + 1, sizeof *kept, err);
    if (!kept) return false;
    size_t n_kept = 0;
    for (size_t i = 0; i < end; i++)
        if (ids[i] != g->info.mask_id) kept[n_kept++] = ids[i];
    const bool ok = unmask_detokenize(g->m, kept, n_kept, 0, text, n_text, err);
    mem_free(kept);
    return ok;
}

/* Cut the text before the first of the stop texts that is in it, and the ids behind those that spell what is left. */
static bool cut_at_stop(const struct generator *g, struct answer *a, bool *cut, struct unmask_err *err)
{
    const size_t kept = find_stop(g->s, a->text, a->n_text);
    *cut = kept < a->n_text;
    a->n_text = kept;
    a->text[kept] = 0;
    for (int n = 0; *cut && n < a->r.n_ids; n++) {
        char *text;
        size_t n_text;
        if (!text_of_ids(g, a->r.ids, (size_t)n, &text, &n_text, err)) return false;
        if (n_text >= kept && !memcmp(text, a->text, kept)) a->r.n_ids = n;
        mem_free(text);
    }
    return true;
}

bool answer_read(const struct generator *g, struct answer *a, struct unmask_err *err)
{
    bool cut = false;
    if (g->info.has_tokenizer && (!text_of_ids(g, a->r.ids, (size_t)a->r.n_ids, &a->text, &a->n_text, err)
                                  || !cut_at_stop(g, a, &cut, err))) return false;
    const size_t n = (size_t)a->r.n_ids, before_end = ids_before_end(g, a->r.ids, n), n_counted = before_end < n ? before_end + 1 : n;
    const float *confidence = a->r.confidence + a->r.n_prompt;
    a->n_tokens = 0;
    a->confidence_min = NAN;
    for (size_t i = 0; i < n_counted; i++) {
        a->n_tokens += a->r.ids[i] != g->info.mask_id;
        a->confidence_min = fminf(a->confidence_min, confidence[i]);
    }
    a->finish = a->r.finish == UNMASK_FINISH_CANCELLED ? "cancelled" : cut || before_end < n ? "stop" : "length";
    return true;
}

/* ---- printing ---- */

void print_text(const struct generator *g, const char *text, size_t n)
{
    term_put_text(stdout, text, n, g->t->out_tty && !g->s->raw);
    if (n == 0 || text[n - 1] != '\n') putchar('\n');
}

void print_json_ids(const int32_t *ids, size_t n)
{
    putchar('[');
    for (size_t i = 0; i < n; i++) printf("%s%d", i ? "," : "", ids[i]);
    putchar(']');
}

void print_json_figures(const struct generator *g, const struct answer *a, size_t n_prompt)
{
    char confidence[32] = "null";
    if (!isnan(a->confidence_min)) snprintf(confidence, sizeof confidence, "%.9g", (double)a->confidence_min);
    printf("\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%d,\"total_tokens\":%zu},"
           "\"x_diffusion\":{\"steps\":%d,\"passes\":%d,\"blocks\":%d,\"seed\":%" PRIu64 ",\"ms_total\":%.3f,\"confidence_min\":%s,"
           "\"rows\":%" PRIu64 ",\"audit\":{\"audits\":%d,\"disagreements\":%d,\"refreshes\":%d,\"largest_error\":%.9g,\"kl\":%.9g},"
           "\"isa\":\"%s\",\"peak_rss_bytes\":%" PRIu64 "}",
           n_prompt, a->n_tokens, n_prompt + (size_t)a->n_tokens, a->r.steps, a->r.passes, a->r.n_blocks, g->o.seed, a->r.seconds * 1e3,
           confidence, a->r.rows, a->r.audit.audits, a->r.audit.disagreements, a->r.audit.refreshes,
           (double)a->r.audit.largest, a->r.audit.kl,
           g->info.isa, term_peak_rss());
}

void answer_summary(const struct generator *g, const struct answer *a)
{
    fprintf(stderr, "unmask: %d step%s, %d tokens in %.2f s, %.1f tokens/s, peak memory %.1f MiB, %s, seed %" PRIu64 "\n",
            a->r.steps, a->r.steps == 1 ? "" : "s", a->n_tokens,
            a->r.seconds, a->r.seconds > 0 ? a->n_tokens / a->r.seconds : 0,
            (double)term_peak_rss() / (1 << 20), g->info.isa, g->o.seed);
    const struct unmask_audit *audit = &a->r.audit;
    if (audit->audits)
        fprintf(stderr, "unmask: audits: %d, another best token in %d, largest error of a lead %.3f, KL %.5f nats; "
                "%d decisions taken again on fresh rows\n",
                audit->audits, audit->disagreements, (double)audit->largest, audit->kl, audit->refreshes);
}

void answer_print(const struct generator *g, const struct answer *a)
{
    if (g->s->json) {
        fputs("{\"text\":", stdout);
        if (a->text) json_print_text(a->text, a->n_text);
        else fputs("null", stdout);             /* ids went in, and no tokenizer was asked for */
        fputs(",\"ids\":", stdout);
        print_json_ids(a->r.ids, (size_t)a->r.n_ids);
        printf(",\"finish_reason\":\"%s\",", a->finish);
        print_json_figures(g, a, (size_t)a->r.n_prompt);
        fputs("}\n", stdout);
    } else if (a->text) print_text(g, a->text, a->n_text);
    else {
        for (int i = 0; i < a->r.n_ids; i++) printf("%s%d", i ? " " : "", a->r.ids[i]);
        putchar('\n');
    }
    if (g->s->verbose) answer_summary(g, a);
}
