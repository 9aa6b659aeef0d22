/* cmd_quantize.c - unmask quantize: a checkpoint becomes a smaller GGUF file.  Says first what it will do, then how far it is
 * (work of more than two seconds), then what came out; the work itself is quantize.h's. */
#define _FILE_OFFSET_BITS 64
#include <jansson.h>
#include <string.h>
#include <sys/statvfs.h>

#include "cmd.h"
#include "quantize.h"

struct run {
    const struct settings *s;
    const char *in, *out;
    const struct quant_format *format;
    struct progress progress;
};

/* Free bytes where the output goes; 0 if unknown. */
static double free_space(const char *out)
{
    char folder[1024];
    struct statvfs fs;
    const char *slash = strrchr(out, '/');
    const size_t n = slash ? (size_t)(slash - out) : 0;
    if (n >= sizeof folder) return 0;
    memcpy(folder, out, n);
    folder[n] = 0;
    return statvfs(!slash ? "." : n ? folder : "/", &fs) == 0 ? (double)fs.f_bavail * (double)fs.f_frsize : 0;
}

static bool on_progress(void *user, const struct quantize_progress *p)
{
    struct run *r = user;
    if (p->stage == QUANTIZE_PLANNED) {
        if (!r->s->quiet && !r->s->json)
            fprintf(stderr, "%s: %s in %zu tensors -> %s: %s as %s (%s free)\n", r->in, SIZE(p->report->in_bytes), p->report->n_tensors, r->out,
                    SIZE(p->report->out_bytes), r->format->name, SIZE(free_space(r->out)));
        return true;
    }
    progress_show(&r->progress, (double)p->done / 1e6, (double)p->total / 1e6, "MB", p->stage == QUANTIZE_VERIFYING ? "verifying" : p->tensor);
    return term_signal() == 0;
}

static void print_json(const struct run *r, const struct quantize_report *q, double seconds)
{
    json_t *o = json_pack("{s:s,s:s,s:s,s:I,s:I,s:i,s:i,s:f,s:f}", "input", r->in, "output", r->out, "format", r->format->name, "input_bytes", (json_int_t)q->in_bytes,
                          "output_bytes", (json_int_t)q->out_bytes, "tensors", (int)q->n_tensors, "fallback_tensors", (int)q->n_fallback, "relative_error", q->relative_error,
                          "seconds", seconds);
    if (o) json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static void print_end(const struct run *r, const struct quantize_report *q, double seconds)
{
    if (r->s->json) print_json(r, q, seconds);
    if (r->s->quiet || r->s->json) return;
    if (q->n_fallback)
        fprintf(stderr, "%zu matrices are F16: their rows are no multiple of %d (the first: %s)\n", q->n_fallback, r->format->block, q->fallback);
    fprintf(stderr, "%s: %s written and verified in %.1f s; relative error of the weights %.2g\n", r->out, SIZE(q->out_bytes), seconds, q->relative_error);
}

static bool read_arguments(const struct settings *s, struct run *r, struct unmask_err *err)
{
    static const char formats[] = "q8_0, q4_0, f16, bf16 or f32";
    if (s->n_args < 2) return fail(err, E_CLI_MISSING, .found = FMT("%d arguments", s->n_args), .need = "IN and OUT: unmask quantize FOLDER model-Q8_0.gguf q8_0");
    if (s->n_args > 3) return fail(err, E_CLI_EXTRA, .found = QUOTE(s->args[3], strlen(s->args[3])), .need = "IN, OUT and a format");
    r->in = s->args[0];
    r->out = s->args[1];
    r->format = s->n_args == 3 ? quant_format_by_name(s->args[2]) : &format_q8_0;
    return r->format || fail(err, E_QNT_FORMAT, .found = QUOTE(s->args[2], strlen(s->args[2])), .need = formats);
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct run r = { .s = s };
    struct quantize_report report;
    if (!read_arguments(s, &r, err)) return false;
    progress_start(&r.progress, s, t);
    const double start = term_now();
    const struct quantize_options o = { .format = r.format, .threads = s->threads, .force = s->force, .set = s->set, .n_set = (size_t)s->n_set,
                                        .on_progress = on_progress, .user = &r };
    const bool ok = quantize_file(r.in, r.out, &o, &report, err);
    progress_end(&r.progress);
    if (ok) print_end(&r, &report, term_now() - start);
    return ok;
}

const struct command cmd_quantize = {
    "quantize", CMD_QUANTIZE, run, "quantize IN OUT.gguf [q8_0|q4_0|f16|bf16|f32] [--force] [--set general.KEY=TEXT] [-t N] [-q]",
    "make a GGUF file in a smaller number format",
    "  unmask quantize LLaDA-8B-Instruct/ LLaDA-8B-Instruct-v1.0-Q4_0.gguf q4_0\n"
    "  unmask quantize model-F32.gguf model-Q8_0.gguf --set general.license=apache-2.0\n"
};
