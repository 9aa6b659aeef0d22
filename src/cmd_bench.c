/* cmd_bench.c - measure speed and memory: whole passes or single kernels, as a Markdown table or JSON, against earlier results;
 * and write models of real shapes to measure with. */
#include <jansson.h>
#include <string.h>

#include "bench.h"
#include "cmd.h"
#include "cpu.h"
#include "format.h"
#include "json.h"
#include "kernels.h"
#include "limits.h"

/* ---- tables: one column per key of the first row; objects are tables of their own ---- */

static void print_cell(const json_t *v)
{
    if (json_is_integer(v)) printf(" %" JSON_INTEGER_FORMAT " |", json_integer_value(v));
    else if (json_is_real(v)) printf(" %.4g |", json_real_value(v));
    else printf(" %s |", QUOTE(json_string_value(v), json_string_length(v)));       /* a name out of a file; empty for what is no string */
}

static void print_header(json_t *o)
{
    const char *key;
    json_t *v;
    int n = 0;
    fputs("\n|", stdout);
    json_object_foreach(o, key, v)
        if (!json_is_object(v)) n += printf(" %s |", key) > 0;
    fputs("\n|", stdout);
    while (n-- > 0) fputs("---|", stdout);
    putchar('\n');
}

static void print_table(const json_t *rows)
{
    size_t i;
    json_t *row, *v;
    const char *key;
    json_array_foreach(rows, i, row) {
        if (i == 0) print_header(row);
        putchar('|');
        json_object_foreach(row, key, v)
            if (!json_is_object(v)) print_cell(v);
        putchar('\n');
    }
}

/* Per cent of the time by kernel: a line per kernel, a column per row of the result. */
static void print_shares(const json_t *rows)
{
    size_t i;
    json_t *row, *v;
    const char *key;
    json_t *first = json_object_get(json_array_get(rows, 0), "share_by_kernel");
    if (!first) return;
    fputs("\n| share of time, per cent |", stdout);
    json_array_foreach(rows, i, row)
        printf(" %" JSON_INTEGER_FORMAT " tokens |", json_integer_value(json_object_get(row, "tokens")));
    fputs("\n|---|", stdout);
    for (i = 0; i < json_array_size(rows); i++) fputs("---|", stdout);
    putchar('\n');
    json_object_foreach(first, key, v) {
        printf("| %s |", key);
        json_array_foreach(rows, i, row)
            printf(" %.1f |", 100 * json_real_value(json_object_get(json_object_get(row, "share_by_kernel"), key)));
        putchar('\n');
    }
}

static void print_machine(void)
{
    char cpu[128];
    struct kernels k;
    cpu_model_name(cpu, sizeof cpu);
    printf("%s, %d cores, %s; unmask %s\n", cpu, limits_cores(), kernels_init(&k, "auto"), UNMASK_VERSION);
}

/* ---- earlier results ---- */

static const double slower = 1.1;               /* ratio of times from which on a row counts as slower */

static bool has_times(const json_t *rows)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
        if (json_number_value(json_object_get(row, "gops")) > 0) return true;
    return false;
}

/* Before anything is measured.  NULL: why it is no baseline. */
static json_t *read_baseline(const char *path, struct unmask_err *err)
{
    struct unmask_err why;
    json_t *rows = json_read(path, &why);
    if (rows && has_times(rows)) return rows;
    if (rows) fail(err, E_BENCH_FILE, .file = path, .need = "what `unmask bench --json` printed");
    else if (why.status != UNMASK_EMODEL) *err = why;
    else fail(err, E_BENCH_FILE, .file = path, .byte = { why.has_offset, why.offset }, .found = why.found, .need = why.need);
    json_decref(rows);
    return NULL;
}

/* Rows measure the same if they agree in what was asked for. */
static bool same_case(const json_t *a, const json_t *b)
{
    static const char *const keys[] = { "test", "model", "kernel", "format", "isa", "tokens", "logit_rows", "m", "k", "n", "threads" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        const json_t *x = json_object_get(a, keys[i]), *y = json_object_get(b, keys[i]);
        if ((x || y) && !json_equal(x, y)) return false;
    }
    return true;
}

/* Time of a row over that of the same case in the baseline; 0 if that has none. */
static double ratio_of(const json_t *row, const json_t *baseline)
{
    size_t i;
    json_t *old;
    json_array_foreach(baseline, i, old) {
        const double before = json_number_value(json_object_get(old, "gops"));
        const double after = json_number_value(json_object_get(row, "gops"));
        if (same_case(row, old) && before > 0 && after > 0) return before / after;
    }
    return 0;
}

/* Add the ratio to every row; worst: the largest. */
static bool compare(const char *path, const json_t *baseline, json_t *rows, double *worst, struct unmask_err *err)
{
    json_t *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        const double ratio = ratio_of(row, baseline);
        json_object_set_new(row, "time_over_baseline", ratio > 0 ? json_real(ratio) : json_null());
        if (ratio > *worst) *worst = ratio;
    }
    return *worst > 0 || fail(err, E_BENCH_BASELINE, .file = path,
                              .need = "the JSON of a run with the same model, sizes, threads and instruction set");
}

/* ---- the command ---- */

static bool make_model(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    if (s->n_args < 2) return fail(err, E_CLI_MISSING, .found = s->n_args ? "one argument" : "none",
                                   .need = "a format and OUT: unmask bench --make-model 0.5b q4_0 OUT.gguf");
    if (!cmd_expect_args(s, 2, err)) return false;
    const struct quant_format *f = quant_format_by_name(s->args[0]);
    if (!f) return fail(err, E_QNT_FORMAT, .found = QUOTE(s->args[0], strlen(s->args[0])), .need = bench_fill_names);
    uint64_t bytes;
    if (!bench_make_model(s, t, f, s->args[1], &bytes, err)) return false;
    if (!s->json) return true;
    json_t *o = json_pack("{s:o,s:I,s:s,s:s}", "file", json_cstr(s->args[1]), "bytes", (json_int_t)bytes,
                          "shape", s->make_model, "type", f->name);
    if (o) json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
    return true;
}

static bool measure(const struct settings *s, const struct term *t, const json_t *baseline, json_t *rows, struct unmask_err *err)
{
    double worst = 0;
    if (!(s->kernels ? bench_kernels(s, rows, err) : bench_passes(s, t, rows, err))) return false;
    if (baseline && !compare(s->baseline, baseline, rows, &worst, err)) return false;
    if (s->json) {
        json_dumpf(rows, stdout, JSON_REAL_PRECISION(6));
        putchar('\n');
    } else {
        print_machine();
        print_table(rows);
        print_shares(rows);
    }
    return worst <= slower || fail(err, E_BENCH_SLOWER, .file = s->baseline,
                                   .found = FMT("%.2f times its time", worst), .need = FMT("at most %.2f", slower));
}

/* Flags that only some of the three kinds of run act on. */
static bool check_flags(const struct settings *s, struct unmask_err *err)
{
    static const struct { enum option_id id; const char *flag; bool kernels, make; } only[] = {
        { OPT_LOGIT_ROWS, "--logit-rows", false, false },
        { OPT_MEMORY, "--memory", false, false }, { OPT_CONTEXT, "--context", false, false },
        { OPT_TOKENS, "--tokens", true, false }, { OPT_BASELINE, "--baseline", true, false },
    };
    for (size_t i = 0; i < sizeof only / sizeof *only; i++)
        if (s->origin[only[i].id] == FROM_FLAG && ((s->kernels && !only[i].kernels) || (s->make_model && !only[i].make)))
            return fail(err, E_CLI_CONFLICT, .field = FMT("%s, %s", s->kernels ? "--kernels" : "--make-model", only[i].flag),
                        .need = "one of them");
    return true;
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    const bool model = s->origin[OPT_MODEL] == FROM_FLAG;
    if (s->kernels + model + (s->make_model != NULL) > 1)
        return fail(err, E_CLI_CONFLICT, .field = "--kernels, --model, --make-model", .need = "one of them");
    if (!check_flags(s, err)) return false;
    if (s->make_model) return make_model(s, t, err);
    json_t *rows = json_array(), *baseline = NULL;
    const bool ok = cmd_expect_args(s, 0, err) && (!s->baseline || (baseline = read_baseline(s->baseline, err)))
        && measure(s, t, baseline, rows, err);
    json_decref(rows);
    json_decref(baseline);
    return ok;
}

const struct command cmd_bench = {
    "bench", CMD_BENCH, run, "bench [-m MODEL | --kernels] [--tokens 32,128,512] [--logit-rows 32] [-t N] [--baseline FILE] [--json]",
    "measure speed and memory",
    "  unmask bench -m model.gguf --tokens 128\n"
    "  unmask bench --json > before.json;  unmask bench --baseline before.json\n"
    "  unmask bench --kernels --isa avx2 --tokens 32,128     matrix products alone, and their share of the peak\n"
    "  unmask bench --make-model 0.5b q4_0 random.gguf       random weights of a real shape: llada-8b, 0.5b, demo\n"
};
