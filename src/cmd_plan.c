/* cmd_plan.c - unmask plan: what a run would take, before anything is loaded: memory by part, seconds by kind of step, and what
 * to change where it does not fit (exit 5).  The plan is plan.h's, which unmask_open() follows; the seconds are probe.h's. */
#include <string.h>

#include "cmd.h"
#include "cpu.h"
#include "json.h"
#include "limits.h"
#include "mem.h"
#include "probe.h"

static const double commits_a_step = 3;         /* of the threshold rule on ordinary text, for the estimate of an answer */

/* Rows that a step computes, rows whose logits it needs, and its seconds. */
struct step { int rows, logits; double compute, seconds; };
enum { FULL, BLOCK, LEAN, KINDS };
static const char *const kinds[KINDS] = { "full", "block", "lean" };

struct planning {
    const struct settings *s;
    struct unmask_model *m;
    struct plan_need need;
    struct memory_plan plan;
    struct reuse_profile reuse;
    uint64_t code;                              /* resident bytes before the model was looked at */
    struct step steps[KINDS];
    int gen_length, block_length, n_steps;
    double read_rate, answer_seconds;
    int fill;                                   /* rows that a lean step could compute while it waits for the disk */
};

/* ---- steps ---- */

static void plan_step(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *rows, struct step *out)
{
    reuse_plan(r, is_mask, b, rows);
    out->rows = (int)((rows->row_layers + r->n_layer - 1) / r->n_layer);
    out->logits = rows->n_need;
    reuse_passed(r, rows);
    reuse_stepped(r);
}

static void commit(struct reuse_state *r, bool *is_mask, int from, int to)
{
    for (int i = from; i < to; i++) {
        if (is_mask[i]) reuse_committed(r, i);
        is_mask[i] = false;
    }
}

/* Let the profile plan the first steps of an answer: all rows, a step within a block, and one that begins a block. */
static bool plan_steps(struct planning *p, struct unmask_err *err)
{
    const int n = p->need.n_tokens, start = n - p->gen_length, block = p->block_length, end = start + block < n ? start + block : n;
    struct reuse_state r = { .n = 0 };
    struct reuse_rows rows = { .n_rows = 0 };
    size_t used = 0;
    reuse_lay_out(&r, &rows, NULL, &used, n);
    bool *is_mask = mem_zalloc((size_t)n, sizeof *is_mask, err);
    uint8_t *memory = is_mask ? mem_aligned(used, err) : NULL;
    const bool ok = memory != NULL;
    if (ok) {
        used = 0;
        reuse_lay_out(&r, &rows, memory, &used, n);
        for (int i = start; i < n; i++) is_mask[i] = true;
        reuse_begin(&r, &p->reuse, n, p->m->h.n_layer);
        plan_step(&r, is_mask, (struct reuse_block){ start, end, 0, (int)commits_a_step }, &rows, &p->steps[FULL]);
        commit(&r, is_mask, start, start + (int)commits_a_step < end ? start + (int)commits_a_step : end);
        plan_step(&r, is_mask, (struct reuse_block){ start, end, 1, (int)commits_a_step }, &rows, &p->steps[LEAN]);
        commit(&r, is_mask, start, end);
        p->steps[BLOCK] = p->steps[FULL];
        if (end < n) {
            const struct reuse_block next = { end, end + block < n ? end + block : n, 0, (int)commits_a_step };
            plan_step(&r, is_mask, next, &rows, &p->steps[BLOCK]);
        }
    }
    mem_free(is_mask);
    mem_free(memory);
    return ok;
}

static bool time_steps(struct planning *p, struct unmask_err *err)
{
    enum { MOST = 64 << 20, SHARE = 4 };        /* memory for the probe: so much, or that share of the budget */
    const uint64_t share = p->plan.budget / SHARE;
    struct probe *probe;
    if (!probe_reading(p->m, p->plan.ring_asked, 0.4, &p->read_rate, err)
        || !probe_open(&probe, p->m, &p->need, share < MOST ? share : MOST, err)) return false;
    const double io = p->read_rate > 0 ? (double)p->plan.streamed / p->read_rate : 0;
    const int branches = p->need.guidance ? 2 : 1;
    bool ok = true;
    for (int i = 0; ok && i < KINDS; i++) {
        struct step *s = &p->steps[i];
        ok = probe_pass(probe, s->rows, s->logits, &s->compute, err);
        s->compute *= branches;
        s->seconds = s->compute > io ? s->compute : io;
    }
    probe_close(probe);
    if (!ok) return false;
    const struct step *lean = &p->steps[LEAN], *full = &p->steps[FULL];
    if (full->rows > lean->rows && io > lean->compute)
        p->fill = (int)((io - lean->compute) * (full->rows - lean->rows) / (full->compute - lean->compute));
    if (p->fill > full->rows - lean->rows || full->compute <= lean->compute) p->fill = 0;
    const int blocks = (p->gen_length + p->block_length - 1) / p->block_length, rest = p->n_steps - blocks > 0 ? p->n_steps - blocks : 0;
    p->answer_seconds = p->steps[FULL].seconds + (blocks - 1) * p->steps[BLOCK].seconds + rest * p->steps[LEAN].seconds;
    return true;
}

/* ---- what is told ---- */

static json_t *json_of(const struct planning *p)
{
    const struct memory_plan *m = &p->plan;
    json_t *o = json_pack("{s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:b,s:b,s:I,s:I,s:i,s:i}",
                          "model", json_cstr(p->m->name), "budget_bytes", (json_int_t)m->budget,
                          "weights_bytes", (json_int_t)m->weights, "resident_bytes", (json_int_t)m->resident,
                          "streamed_bytes", (json_int_t)m->streamed, "ring_bytes", (json_int_t)m->ring,
                          "store_bytes", (json_int_t)m->store, "work_bytes", (json_int_t)m->work,
                          "code_bytes", (json_int_t)p->code, "tokenizer_bytes", (json_int_t)(m->program - p->code),
                          "total_bytes", (json_int_t)m->total, "fits", m->fits, "packed", m->packed,
                          "smallest_budget_bytes", (json_int_t)m->least,
                          "smallest_budget_packed_bytes", (json_int_t)m->least_packed,
                          "context", p->need.n_tokens, "steps", p->n_steps);
    json_t *seconds = json_object(), *rows = json_object();
    for (int i = 0; i < KINDS; i++) {
        json_object_set_new(seconds, kinds[i], json_real(p->steps[i].seconds));
        json_object_set_new(rows, kinds[i], json_integer(p->steps[i].rows));
    }
    json_object_set_new(o, "seconds_per_step", seconds);
    json_object_set_new(o, "rows_per_step", rows);
    json_object_set_new(o, "seconds_per_answer", json_real(p->answer_seconds));
    json_object_set_new(o, "read_bytes_per_second", json_real(p->read_rate));
    json_object_set_new(o, "fill_rows", json_integer(p->fill));
    return o;
}

static void print_text(const struct planning *p)
{
    char cpu[128];
    const struct memory_plan *m = &p->plan;
    const struct hparams *h = &p->m->h;
    cpu_model_name(cpu, sizeof cpu);
    printf("Model    %s, %.2f billion parameters, %s%s, %s of weights\n", QUOTE(p->m->name, strlen(p->m->name)),
           (double)p->m->parameters / 1e9, p->m->weight_format, m->packed ? " packed" : "", SIZE(m->weights));
    printf("Machine  %s, %d threads, %s, %s of memory available\n", cpu, p->need.threads, p->m->isa, SIZE(limits_memory()));
    printf("Memory   weights %s, ring %s, store %s (%s, %d positions of %d), work %s, tokenizer %s, code %s: %s, %s in %s\n",
           SIZE(m->resident), SIZE(m->ring), SIZE(m->store), p->need.kind->name, p->need.n_tokens, h->n_ctx, SIZE(m->work),
           SIZE(m->program - p->code), SIZE(p->code), SIZE(m->total), m->fits ? "fits" : "does not fit", SIZE(m->budget));
    if (m->streamed)
        printf("Disk     %s of weights are read in every step, at %.0f MB/s: %.2f s\n",
               SIZE(m->streamed), p->read_rate / 1e6, (double)m->streamed / p->read_rate);
    printf("Steps    all rows (%d) %.3f s; first of a block (%d) %.3f s; others (%d) %.3f s\n",
           p->steps[FULL].rows, p->steps[FULL].seconds, p->steps[BLOCK].rows, p->steps[BLOCK].seconds,
           p->steps[LEAN].rows, p->steps[LEAN].seconds);
    printf("Answer   %d positions in %d steps%s under --reuse %s: about %.1f s\n", p->gen_length, p->n_steps,
           p->s->steps ? "" : " (three commits a step)", p->s->reuse ? p->s->reuse : "exact", p->answer_seconds);
    if (m->streamed) printf("Smallest a budget of %s works\n", MIB_UP(m->least));
    if (p->fill > 0 && p->need.layers.n)
        printf("Advice   --fill %d: so many more rows are computed while a step waits for the disk\n", p->fill);
    else if (m->streamed && !p->need.layers.n) printf("Advice   --reuse balanced computes fewer rows in a step\n");
}

static bool choose_steps(struct planning *p, struct unmask_err *err)
{
    struct unmask_options o;
    settings_generation(p->s, p->m, &o);
    p->gen_length = o.gen_length < p->need.n_tokens ? o.gen_length : p->need.n_tokens - 1;
    if (p->gen_length < 1) p->gen_length = 1;
    p->block_length = o.block_length < p->gen_length ? o.block_length : p->gen_length;
    p->n_steps = o.steps ? o.steps : (int)((p->gen_length + commits_a_step - 1) / commits_a_step);
    return reuse_profile_read(o.reuse ? o.reuse : "exact", &p->reuse, err);
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    (void)t;
    struct planning p = { .s = s, .code = limits_memory_taken() };
    char path[1024];
    const struct unmask_open_options o = cmd_open_options(s, false);
    if (!cmd_model_argument(s, path, err) || !session_check_open(&o, err) || !model_prepare(&p.m, path, &o, err)) return false;
    p.need = plan_need_of(p.m, &o);
    p.plan = plan_memory(p.m, &p.need, o.memory_budget);
    const bool ok = choose_steps(&p, err) && plan_steps(&p, err) && time_steps(&p, err);
    if (ok && s->json) {
        json_t *j = json_of(&p);
        json_dumpf(j, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
        putchar('\n');
        json_decref(j);
    } else if (ok) print_text(&p);
    model_close(p.m);
    return ok && (p.plan.fits || plan_refuse(&p.plan, path, err));
}

const struct command cmd_plan = {
    "plan", CMD_PLAN, run, "plan [MODEL] [--memory SIZE] [--context N] [-n N] [--reuse NAME] [--store KIND] [--json]",
    "memory and speed of a model here, before it is loaded",
    "  unmask plan model.gguf                               does it run here, and how fast?\n"
    "  unmask plan packed.gguf --memory 1.5G --reuse fast   a packed file may be larger than memory\n"
};
