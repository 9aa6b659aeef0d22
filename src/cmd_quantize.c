/* cmd_quantize.c - unmask quantize: a checkpoint becomes a smaller GGUF file.  Says first what it will do, then how far it is
 * (work of more than two seconds), then what came out; the work itself is quantize.h's. */
#define _FILE_OFFSET_BITS 64
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <sys/statvfs.h>

#include "cmd.h"
#include "cmd_card.h"
#include "calibration_text.h"
#include "gguf.h"
#include "json.h"
#include "mem.h"
#include "recipe.h"
#include "utf8.h"

struct run {
    const struct settings *s;
    const char *in, *out;
    char *first;                                /* the file that is written, of several the first one */
    struct recipe recipe;
    bool keep;
    uint64_t split_bytes;
    struct progress progress;
    double start, converted;                    /* times: begun, and all tensors written but not yet verified */
    struct outfile card, report;                /* open from the start: what would fail at the end fails before the work */
    struct outfile imatrix_out;
    struct reading_set texts;
    struct imatrix importance, found;           /* of --imatrix; of --save-imatrix */
    json_t *tensors;                            /* for the report, or NULL */
    double out_error2, out_plain2; int n_measured;              /* sums of squared relative output errors */
    double worst; char worst_name[64];          /* the tensor with the largest relative error */
};

/* A path, or the name of a recipe, as a terminal may see it. */
#define SHOWN(text) QUOTE((text), strlen(text))

static bool own_text(const struct settings *s) { return s->calibrate && !strcmp(s->calibrate, "self"); }

/* Free bytes where the output goes; below 0 if unknown. */
static double free_space(const char *out)
{
    char folder[1024];
    struct statvfs fs;
    const char *slash = strrchr(out, '/');
    const size_t n = slash ? (size_t)(slash - out) : 0;
    if (n >= sizeof folder) return -1;
    memcpy(folder, out, n);
    folder[n] = 0;
    return statvfs(!slash ? "." : n ? folder : "/", &fs) == 0 ? (double)fs.f_bavail * (double)fs.f_frsize : -1;
}

/* What a mix is made of, and what does not fit it. */
static void print_formats(const struct run *r, const struct quantize_report *q)
{
    int shown = 0;
    for (int i = 0; r->recipe.n_rules && quant_formats[i]; i++)
        if (q->n_of[i]) fprintf(stderr, "%s%zu tensors as %s", shown++ ? ", " : "", q->n_of[i], quant_formats[i]->name);
    if (shown) fputc('\n', stderr);
    if (q->n_fallback)
        fprintf(stderr, "%zu matrices have rows that are no multiple of the %d values of a %s block and become q8_0, "
                "or f16 where 32 does not fit either (the first: %s, %s)\n",
                q->n_fallback, q->wanted->block, q->wanted->name, q->fallback, q->got->name);
    if (q->n_requantized) fprintf(stderr, "%zu matrices are rounded a second time: --requantize\n", q->n_requantized);
}

static void print_plan(const struct run *r, const struct quantize_report *q)
{
    const double left = free_space(r->out);
    fprintf(stderr, "%s: %s in %zu tensors -> %s: %s as %s (%s)\n", SHOWN(r->in), SIZE(q->in_bytes), q->n_tensors, SHOWN(r->out),
            SIZE(q->out_bytes), r->keep ? FMT("%s, unchanged", r->recipe.name) : SHOWN(r->recipe.name),
            left < 0 ? "free space unknown" : FMT("%s free", SIZE(left)));
    print_formats(r, q);
    if (q->n_files > 1) fprintf(stderr, "%zu files of at most %s of tensors each\n", q->n_files, SIZE(r->split_bytes));
    if (strcmp(file_name(r->out), q->file_name) != 0) fprintf(stderr, "name by GGUF's rule: %s\n", q->file_name);
    if (q->n_kept) fprintf(stderr, "%zu matrices stay in formats of more bits: the file is %s already\n", q->n_kept, r->recipe.name);
    if (r->s->imatrix) fprintf(stderr, "importance for %zu of %zu matrices\n", q->n_important, q->n_matrices);
    if ((r->s->imatrix || r->s->search) && !q->n_chosen)
        fprintf(stderr, "no matrix here is rounded by what %s finds\n", r->s->imatrix ? "--imatrix" : "--search");
    if (r->s->calibrate && !q->n_calibrated) fprintf(stderr, "no matrix here is rounded by what --calibrate reads\n");
    else if (r->s->calibrate)
        fprintf(stderr, "calibrated on %s, at most %d tokens of it\n",
                own_text(r->s) ? "text that the model writes itself" : SHOWN(r->s->calibrate), r->s->calibrate_tokens);
    if (q->random_ids) fprintf(stderr, "calibrated on %" PRIu64 " random ids, which go through the model\n", q->random_ids);
    fprintf(stderr, "%s of memory for the work%s\n", SIZE(q->memory_bytes), r->s->dry_run ? "; nothing is written: --dry-run" : "");
}

static void on_tensor(void *user, const struct quantize_tensor *t)
{
    struct run *r = user;
    if (t->relative_error > r->worst) {
        r->worst = t->relative_error;
        snprintf(r->worst_name, sizeof r->worst_name, "%s", t->name);
    }
    json_t *o = !r->tensors ? NULL
              : json_pack("{s:o,s:s,s:s,s:s,s:s,s:I,s:f,s:f,s:f,s:I,s:f}", "name", json_cstr(t->name),
                          "from", t->from->name, "to", t->to->name, "why", t->why, "method", t->method,
                          "bytes", (json_int_t)t->bytes,
                          "rmse", t->rmse, "relative_error", t->relative_error, "cosine", t->cosine,
                          "worst_block", (json_int_t)t->worst_block, "worst_block_rmse", t->worst_rmse);
    if (t->output_error >= 0) {
        r->n_measured++;
        r->out_error2 += t->output_error * t->output_error;
        r->out_plain2 += t->output_error_plain * t->output_error_plain;
        if (o) json_object_set_new(o, "output_error", json_real(t->output_error));
        if (o) json_object_set_new(o, "output_error_plain", json_real(t->output_error_plain));
    }
    if (o) json_array_append_new(r->tensors, o);
}

static bool on_progress(void *user, const struct quantize_progress *p)
{
    struct run *r = user;
    if (p->stage == QUANTIZE_PLANNED) {
        if (!r->s->quiet && !r->s->json) print_plan(r, p->report);
        return true;
    }
    if (p->stage == QUANTIZE_CALIBRATING) {
        progress_show(&r->progress, (double)p->done / 1e6, (double)p->total / 1e6, "MB", p->tensor);
        return term_signal() == 0;
    }
    if (p->stage == QUANTIZE_VERIFYING && r->converted == 0) r->converted = timing_now();
    progress_show(&r->progress, (double)p->done / 1e6, (double)p->total / 1e6, "MB",
                  p->stage == QUANTIZE_VERIFYING ? "verifying" : p->tensor);
    return term_signal() == 0;
}

/* File i of the output. */
static char *path_of(const struct run *r, const struct quantize_report *q, size_t i, struct unmask_err *err)
{
    return q->n_files > 1 ? gguf_part_path(r->out, i, q->n_files, err) : mem_strndup(r->out, strlen(r->out), err);
}

static json_t *list_outputs(const struct run *r, const struct quantize_report *q)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < q->n_files; i++) {
        char *path = path_of(r, q, i, NULL);
        if (path) json_array_append_new(list, json_cstr(path));
        mem_free(path);
    }
    return list;
}

static json_t *json_of(const struct run *r, const struct quantize_report *q, double seconds)
{
    json_t *o = json_pack("{s:o,s:o,s:o,s:o,s:I,s:I,s:i,s:i,s:i,s:i,s:s,s:b,s:I,s:f}",
                          "input", json_cstr(r->in), "output", json_cstr(r->first), "outputs", list_outputs(r, q),
                          "format", json_cstr(r->recipe.name),
                          "input_bytes", (json_int_t)q->in_bytes, "output_bytes", (json_int_t)q->out_bytes,
                          "files", (int)q->n_files, "tensors", (int)q->n_tensors,
                          "fallback_tensors", (int)q->n_fallback, "requantized_tensors", (int)q->n_requantized,
                          "file_name", q->file_name, "dry_run", r->s->dry_run,
                          "memory_bytes", (json_int_t)q->memory_bytes, "seconds", seconds);
    if (o && !r->s->dry_run) {
        json_object_set_new(o, "seconds_before_verification", json_real(r->converted - r->start));
        json_object_set_new(o, "relative_error", json_real(q->relative_error));
    }
    return o;
}

static void print_end(const struct run *r, const struct quantize_report *q, double seconds)
{
    if (r->s->json) {
        json_t *o = json_of(r, q, seconds);
        if (o) json_dumpf(o, stdout, JSON_COMPACT);
        putchar('\n');
        json_decref(o);
    }
    if (r->s->quiet || r->s->json || r->s->dry_run) return;
    if (q->n_files > 1) fprintf(stderr, "%s and %zu more: ", SHOWN(r->first), q->n_files - 1);
    else fprintf(stderr, "%s: ", SHOWN(r->first));
    fprintf(stderr, "%s written and verified in %.1f s; relative error of the weights %.2g",
            SIZE(q->out_bytes), seconds, q->relative_error);
    if (r->worst_name[0]) fprintf(stderr, " (worst tensor: %s, %.2g)", r->worst_name, r->worst);
    fputc('\n', stderr);
    if (r->n_measured)
        fprintf(stderr, "error of the %d calibrated matrices' outputs: %.4f; by plain rounding it would be %.4f\n",
                r->n_measured, sqrt(r->out_error2 / r->n_measured), sqrt(r->out_plain2 / r->n_measured));
}

/* ---- the files beside the model ---- */

/* --force is no leave to write over what this run reads.  (That no two outputs are one file is outfile_open()'s business.) */
static bool spare_inputs(const struct run *r, const char *flag, const char *out, struct unmask_err *err)
{
    const struct settings *s = r->s;
    const struct { const char *what, *path; } inputs[] = {
        { "the text of --calibrate", own_text(s) ? NULL : s->calibrate }, { "the file of --imatrix", s->imatrix },
        { "the recipe", s->n_args == 3 ? s->args[2] : NULL } };
    if (!out) return true;
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        if (inputs[i].path && file_same(inputs[i].path, out))
            return fail(err, E_QNT_SAME, .file = out, .field = flag, .found = inputs[i].what, .need = "another path");
    return cmd_spare_model(r->in, flag, out, err);
}

/* Before anything is read, which may take long. */
static bool check_outputs(const struct run *r, struct unmask_err *err)
{
    const struct settings *s = r->s;
    char *card = s->card ? card_path(r->out, err) : NULL;
    const bool ok = (!s->card || card) && spare_inputs(r, "OUT", r->out, err) && spare_inputs(r, "--report", s->report, err)
        && spare_inputs(r, "--save-imatrix", s->save_imatrix, err) && spare_inputs(r, "--card", card, err);
    mem_free(card);
    return ok;
}

static bool open_extras(struct run *r, struct unmask_err *err)
{
    const struct settings *s = r->s;
    if (s->report && (!outfile_open(&r->report, s->report, s->force, 0, err) || !(r->tensors = json_array()))) return false;
    if (s->save_imatrix && !outfile_open(&r->imatrix_out, s->save_imatrix, s->force, 0, err)) return false;
    if (!s->card) return true;
    char *path = card_path(r->out, err);
    const bool ok = path && outfile_open(&r->card, path, s->force, 0, err);
    mem_free(path);
    return ok;
}

static bool write_report(struct run *r, const struct quantize_report *q, double seconds, struct unmask_err *err)
{
    json_t *o = json_of(r, q, seconds);
    if (o) json_object_set(o, "tensors", r->tensors);
    char *text = o ? json_dumps(o, JSON_INDENT(1)) : NULL;
    json_decref(o);
    const bool ok = text ? outfile_write(&r->report, text, strlen(text), err) && outfile_write(&r->report, "\n", 1, err)
                           && outfile_commit(&r->report, err)
                         : fail(err, E_MEMORY, .need = "a smaller report");
    unmask_free(text);
    return ok;
}

static bool write_card(struct run *r, const struct quantize_report *q, struct unmask_err *err)
{
    const struct card_facts facts = { .relative_error = q->relative_error, .bytes = q->out_bytes,
                                      .format = r->recipe.name, .n_files = q->n_files };
    return card_write(&r->card, r->first, &facts, err) && outfile_commit(&r->card, err);
}

static bool write_extras(struct run *r, const struct quantize_report *q, double seconds, struct unmask_err *err)
{
    return r->s->dry_run || ((!r->s->report || write_report(r, q, seconds, err)) && (!r->s->card || write_card(r, q, err))
                              && (!r->s->save_imatrix || (imatrix_write(&r->found, &r->imatrix_out, err)
                                                          && outfile_commit(&r->imatrix_out, err))));
}

/* ---- arguments ---- */

/* "500M", "4G": powers of 1000, as gguf-split counts. */
static bool read_size(const char *text, uint64_t *bytes, struct unmask_err *err)
{
    enum { MOST_PERCENT = 100 };                /* of what? */
    return (parse_size(text, 1000, bytes) && *bytes > MOST_PERCENT)
        || fail(err, E_CLI_VALUE, .field = "--split-size", .found = QUOTE(text, strlen(text)), .need = "a size such as 500M or 4G");
}

/* The format that most of a file's numbers are in. */
static const char *main_format(const struct checkpoint *c)
{
    uint64_t most = 0;
    const char *name = "q4_0";
    for (size_t f = 0; quant_formats[f]; f++) {
        uint64_t bytes = 0;
        for (size_t i = 0; i < c->n_tensors; i++) bytes += c->tensors[i].format == quant_formats[f] ? c->tensors[i].bytes : 0;
        if (bytes > most) most = bytes, name = quant_formats[f]->name;
    }
    return name;
}

/* Without a type: q4_0; but --layout alone keeps a GGUF file what it is. */
static const char *default_type(const struct settings *s, bool *keep)
{
    enum { Q4_K_M = 15 };                       /* the mix that we have a recipe for */
    const char *name = "q4_0";
    int64_t type = -1;
    struct checkpoint *c;
    if (!s->times[OPT_LAYOUT] || !checkpoint_open(&c, s->args[0], NULL)) return name;           /* quantize_file() will say why */
    if (c->kind == CHECKPOINT_GGUF) {
        *keep = true;
        name = meta_int(c, "general.file_type", 0, UINT32_MAX, false, &type, NULL) && type == Q4_K_M ? "q4_k_m" : main_format(c);
    }
    checkpoint_close(c);
    return name;
}

static bool read_arguments(const struct settings *s, struct run *r, struct unmask_err *err)
{
    static const char need[] = "IN and OUT: unmask quantize FOLDER model-Q4_0.gguf q4_0";
    if (s->n_args < 2) return fail(err, E_CLI_MISSING, .found = s->n_args ? "one argument" : "none", .need = need);
    if (s->n_args == 2 && recipe_is_type(s->args[1]))
        return fail(err, E_CLI_MISSING, .field = "OUT", .found = FMT("%s, which is a type", QUOTE(s->args[1], strlen(s->args[1]))),
                    .need = need);
    if (s->n_args > 3) return fail(err, E_CLI_EXTRA, .found = QUOTE(s->args[3], strlen(s->args[3])), .need = "IN, OUT and a type");
    r->in = s->args[0];
    r->out = s->args[1];
    return recipe_read(&r->recipe, s, s->n_args == 3 ? s->args[2] : default_type(s, &r->keep), err)
        && (!s->split_size || read_size(s->split_size, &r->split_bytes, err));
}

/* A file's name for metadata, which are UTF-8. */
static const char *text_name(const char *path)
{
    const char *name = file_name(path);
    return utf8_valid(name, strlen(name)) == strlen(name) ? name : "a file whose name is not UTF-8";
}

static bool read_calibration(struct run *r, struct unmask_err *err)
{
    const struct settings *s = r->s;
    const char *alone = s->save_imatrix ? "--save-imatrix" : s->times[OPT_CALIBRATE_N] ? "--calibrate-tokens" : NULL;
    if (alone && !s->calibrate) return fail(err, E_CLI_MISSING, .field = alone, .need = "--calibrate FILE, or --calibrate self");
    if ((s->imatrix != NULL) + (s->calibrate != NULL) + s->search > 1)          /* each says how all matrices are rounded */
        return fail(err, E_CLI_CONFLICT,
                    .field = !s->search ? "--imatrix, --calibrate" : s->imatrix ? "--imatrix, --search" : "--calibrate, --search",
                    .need = "one of them");
    if (s->imatrix && !imatrix_read(&r->importance, s->imatrix, err)) return false;
    snprintf(r->found.dataset, sizeof r->found.dataset, "%s", s->calibrate ? text_name(s->calibrate) : "");
    if (!s->calibrate || own_text(s)) return true;
    return calibration_text_read(&r->texts, r->in, s->calibrate, (uint64_t)s->calibrate_tokens, err);
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct run r = { .s = s };
    struct quantize_report report;
    bool ok = read_arguments(s, &r, err) && check_outputs(&r, err) && read_calibration(&r, err) && open_extras(&r, err);
    if (ok) {
        progress_start(&r.progress, s, t);
        r.start = timing_now();
        const struct quantize_options o = {
            .format = r.recipe.format, .keep = r.keep, .rules = r.recipe.rules, .n_rules = r.recipe.n_rules, .type = r.recipe.name,
            .file_type = (uint32_t)r.recipe.file_type,
            .requantize = s->requantize, .search = s->search, .measure = s->report != NULL,
            .calibration = r.texts.n_ids ? &r.texts : NULL, .own_text = own_text(s) ? (uint64_t)s->calibrate_tokens : 0,
            .calibration_name = s->calibrate ? text_name(s->calibrate) : s->imatrix ? text_name(s->imatrix) : NULL,
            .importance = s->imatrix ? &r.importance : NULL, .save_importance = s->save_imatrix ? &r.found : NULL,
            .threads = s->threads, .force = s->force, .packed = s->layout == 1, .split_bytes = r.split_bytes, .dry_run = s->dry_run,
            .set = s->set, .n_set = (size_t)s->n_set,
            .on_progress = on_progress, .on_tensor = on_tensor, .user = &r };
        ok = quantize_file(r.in, r.out, &o, &report, err);
        progress_end(&r.progress);
        const double seconds = timing_now() - r.start;
        ok = ok && (r.first = path_of(&r, &report, 0, err)) && write_extras(&r, &report, seconds, err);
        if (ok) print_end(&r, &report, seconds);
    }
    outfile_abort(&r.card);
    outfile_abort(&r.report);
    outfile_abort(&r.imatrix_out);
    reading_set_free(&r.texts);
    imatrix_free(&r.importance);
    imatrix_free(&r.found);
    json_decref(r.tensors);
    mem_free(r.first);
    return ok;
}

const struct command cmd_quantize = {
    "quantize", CMD_QUANTIZE, run,
    "quantize IN OUT.gguf [q4_0|q4_k_m|q6_k|q8_0|f16|bf16|f32|RECIPE.yaml] [--keep REGEX=FORMAT] [--calibrate FILE|self] "
    "[--layout standard|packed] [--dry-run] [--force] [--split-size SIZE] [--card] [--report FILE] [--set general.KEY=TEXT] "
    "[-t N] [-q]",
    "make a GGUF file in a smaller number format",
    "  unmask quantize LLaDA-8B-Instruct/ LLaDA-8B-Instruct-v1.0-Q4_0.gguf q4_0\n"
    "  unmask quantize model-F32.gguf model-Q8_0.gguf q8_0 --set general.license=apache-2.0\n"
    "  unmask quantize LLaDA-8B-Instruct/ model-Q4_K_M.gguf q4_k_m --keep 'blk\\.0\\.=q8_0'\n"
    "  unmask quantize LLaDA-8B-Instruct/ model-Q4_0.gguf q4_0 --calibrate self     about half the loss, no text needed; takes longer\n"
    "  unmask quantize LLaDA-8B-Instruct/ model-Q4_0.gguf q4_0 --search             by random ids: no text, the model writes none\n"
    "  unmask quantize model-Q4_0.gguf packed.gguf --layout packed      the same weights; loads at once, may be larger than memory\n"
};
