/* cmd_forward.c - one bidirectional pass over given token ids: logits and hidden states as numpy files, or the five best
 * ids of every position.  For comparing runtimes and for tests; no tokenizer is loaded. */
#include <inttypes.h>
#include <string.h>

#include "cmd.h"
#include "json.h"
#include "mem.h"
#include "outfile.h"

enum { BEST = 5, MOST_DIMS = 3 };

/* A float32 array on its way to a file, row by row. */
struct npy { struct outfile file; bool open; };

struct pass {
    const struct settings *s;
    const int32_t *ids; size_t n_ids;
    struct unmask_model_info info;
    struct npy logits, hidden;                  /* [n_ids, n_vocab], [n_layer, n_ids, n_embd] */
    json_t *positions;                          /* with --json and no files */
    struct progress progress;
    struct unmask_err err;                      /* why a tap stopped the pass */
    bool failed;
};

/* Header of the numpy format 1.0 (numpy.lib.format): magic, version, length of what follows, a Python dict; all of it a
 * multiple of 64 bytes, so that the numbers start aligned. */
static size_t npy_header(char header[128], int n_dims, const uint64_t *shape)
{
    char dims[3 * 24] = "";
    for (int i = 0; i < n_dims; i++) snprintf(dims + strlen(dims), sizeof dims - strlen(dims), "%s%" PRIu64, i ? ", " : "", shape[i]);
    memset(header, ' ', 128);
    memcpy(header, "\x93NUMPY\x01\x00\x76\x00", 10);           /* 0x0076: 118 bytes follow */
    const int n = snprintf(header + 10, 118, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", dims);
    header[10 + n] = ' ';
    header[127] = '\n';
    return 128;
}

/* Before the model is loaded, whose shape tells how large the array is: a file that cannot be written is refused at once. */
static bool npy_open(struct npy *a, const char *path, bool force, struct unmask_err *err)
{
    return !path || (a->open = outfile_open(&a->file, path, force, 0, err));
}

static bool npy_begin(struct npy *a, int n_dims, const uint64_t *shape, struct unmask_err *err)
{
    if (!a->open) return true;
    char header[128];
    const size_t n = npy_header(header, n_dims, shape);
    uint64_t bytes = sizeof(float), total;
    bool fits = true;
    for (int i = 0; i < n_dims; i++) fits = fits && u64_mul(bytes, shape[i], &bytes);
    if (!fits || !u64_add(bytes, n, &total))
        return fail(err, E_CLI_VALUE, .file = a->file.path, .found = "more bytes than a file can have", .need = "fewer ids");
    return outfile_fits(&a->file, total, err) && outfile_write(&a->file, header, n, err);
}

static bool npy_commit(struct npy *a, struct unmask_err *err)
{
    if (!a->open) return true;
    a->open = false;
    return outfile_commit(&a->file, err);
}

/* ---- what the pass delivers ---- */

static bool keep(struct pass *p, struct npy *a, const float *rows, uint64_t n)
{
    if (term_signal()) return false;
    p->failed = a->open && !outfile_write(&a->file, rows, (size_t)n * sizeof *rows, &p->err);
    return !p->failed;
}

static bool on_hidden(void *user, int layer, const float *rows)
{
    struct pass *p = user;
    progress_show(&p->progress, layer + 1, p->info.n_layer, "layers", "pass");
    return keep(p, &p->hidden, rows, (uint64_t)p->n_ids * (uint64_t)p->info.n_embd);
}

/* The ids of the largest logits, largest first, the lower id first among equals. */
static int best_of(const float *row, int n, int best[BEST])
{
    int k = 0;
    for (int id = 0; id < n; id++) {
        int at = k;
        while (at > 0 && row[id] > row[best[at - 1]]) at--;
        if (at == BEST) continue;
        if (k < BEST) k++;
        memmove(&best[at + 1], &best[at], (size_t)(k - 1 - at) * sizeof *best);
        best[at] = id;
    }
    return k;
}

static bool on_logits(void *user, int position, const float *row)
{
    struct pass *p = user;
    progress_end(&p->progress);                 /* all layers are done; lines may follow */
    if (p->s->logits) return keep(p, &p->logits, row, (uint64_t)p->info.n_vocab);
    int best[BEST];
    const int k = best_of(row, p->info.n_vocab, best);
    json_t *list = p->positions ? json_array() : NULL;
    if (!list) printf("%6d  id %-7d", position, p->ids[position]);
    for (int i = 0; i < k; i++) {
        if (!list) printf("  %d (%.5f)", best[i], (double)row[best[i]]);
        else json_array_append_new(list, json_pack("{s:i,s:o}", "id", best[i], "logit", json_real((double)row[best[i]])));
    }
    if (!list) putchar('\n');
    else json_array_append_new(p->positions, json_pack("{s:i,s:o}", "id", p->ids[position], "best", list));
    return !term_signal();
}

/* ---- the command ---- */

static bool open_files(struct pass *p, struct unmask_err *err)
{
    const struct settings *s = p->s;
    char model[1024];
    return cmd_model_path(s, model, err) && cmd_spare_model(model, "--logits", s->logits, err)
        && cmd_spare_model(model, "--hidden", s->hidden, err)
        && npy_open(&p->logits, s->logits, s->force, err) && npy_open(&p->hidden, s->hidden, s->force, err);
}

static bool begin_files(struct pass *p, struct unmask_err *err)
{
    const uint64_t t = p->n_ids, v = (uint64_t)p->info.n_vocab, l = (uint64_t)p->info.n_layer, d = (uint64_t)p->info.n_embd;
    return npy_begin(&p->logits, 2, (const uint64_t[]){ t, v }, err) && npy_begin(&p->hidden, 3, (const uint64_t[]){ l, t, d }, err);
}

static bool run_pass(struct pass *p, struct unmask_session *session, struct unmask_err *err)
{
    const struct settings *s = p->s;
    const bool print = !s->logits && !s->hidden;
    const struct unmask_taps taps = { p, on_hidden, s->logits || print ? on_logits : NULL };
    if (print && s->json) p->positions = json_array();
    if (unmask_forward(session, p->ids, p->n_ids, NULL, &taps, err)) return npy_commit(&p->logits, err) && npy_commit(&p->hidden, err);
    if (p->failed && err) *err = p->err;
    return false;
}

static void print_json(const struct pass *p)
{
    json_t *o = json_pack("{s:I,s:o*,s:o*,s:O*}", "tokens", (json_int_t)p->n_ids, "logits", p->s->logits ? json_cstr(p->s->logits) : NULL,
                          "hidden", p->s->hidden ? json_cstr(p->s->hidden) : NULL, "positions", p->positions);
    json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    int32_t *ids = NULL;
    struct unmask_model *m = NULL;
    struct unmask_session *session = NULL;
    struct pass p = { .s = s };
    if (!cmd_expect_args(s, 0, err)) return false;
    if (!s->ids) return fail(err, E_CLI_MISSING, .field = "--ids", .need = "token ids separated by commas, like 3,17,42");
    if (s->logits && s->hidden && !strcmp(s->logits, s->hidden))
        return fail(err, E_CLI_CONFLICT, .field = "--logits, --hidden", .found = "the same file twice", .need = "two files");
    bool ok = parse_ids(s->ids, "--ids", &ids, &p.n_ids, err);
    if (ok && !p.n_ids)
        ok = fail(err, E_CLI_VALUE, .field = "--ids", .found = "no id", .need = "token ids separated by commas, like 3,17,42");
    if (ok && (ok = open_files(&p, err) && cmd_open_model(s, t, true, &m, &session, err))) {
        const double start = timing_now();
        p.ids = ids;
        unmask_model_get_info(m, &p.info);
        progress_start(&p.progress, s, t);
        ok = begin_files(&p, err) && run_pass(&p, session, err);
        progress_end(&p.progress);
        if (ok && s->json) print_json(&p);
        if (ok && s->verbose)
            fprintf(stderr, "%zu tokens in %.2f s, %s, peak memory %.1f MiB\n",
                    p.n_ids, timing_now() - start, p.info.isa, (double)term_peak_rss() / 0x1p20);
    }
    outfile_abort(&p.logits.file);
    outfile_abort(&p.hidden.file);
    json_decref(p.positions);
    unmask_session_close(session);
    unmask_close(m);
    mem_free(ids);
    return ok;
}

const struct command cmd_forward = {
    "forward", CMD_FORWARD, run, "forward -m MODEL --ids IDS [--logits OUT.npy] [--hidden OUT.npy]",
    "one pass over token ids: logits and hidden states",
    "  unmask forward -m model.gguf --ids 3,17,42\n  unmask forward -m model.gguf --ids 3,17,42 --logits logits.npy --hidden hidden.npy\n"
};
