/* cmd_verify.c - unmask verify: is a model file whole?  Exit 3: its structure is broken; 8: its bytes are not those that were
 * written, numbers in it are not finite, or, under --strict, bytes of it belong to no tensor.  The checks are checkpoint.h's and
 * verify.h's. */
#include <inttypes.h>
#include <string.h>

#include "arch.h"
#include "cmd.h"
#include "json.h"
#include "mem.h"
#include "verify.h"

struct run { const struct settings *s; struct progress progress; };

static bool on_progress(void *user, uint64_t done, uint64_t total)
{
    struct run *r = user;
    progress_show(&r->progress, (double)done / 1e6, (double)total / 1e6, "MB", "verifying");
    return term_signal() == 0;
}

static json_t *json_of(const struct tensor *t, const struct verify_tensor *f)
{
    static const char *const sums[] = { [VERIFY_NO_SUM] = "none", [VERIFY_SAME] = "same", [VERIFY_DIFFERENT] = "different" };
    return json_pack("{s:o,s:s,s:I}", "name", json_cstr(t->name), "checksum", sums[f->sum], "nonfinite", (json_int_t)f->n_nonfinite);
}

static void print_json(const struct checkpoint *c, const struct verify_tensor *found, bool ok)
{
    json_t *tensors = json_array(), *o = json_pack("{s:o,s:b,s:I,s:o}", "file", json_cstr(c->path), "ok", ok, "spare_bytes",
                                                           (json_int_t)c->spare_bytes, "tensors", tensors);
    for (size_t i = 0; o && i < c->n_tensors; i++) json_array_append_new(tensors, json_of(&c->tensors[i], &found[i]));
    if (o) json_dumpf(o, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(o);
}

static void print_good(const struct checkpoint *c, const struct verify_tensor *found)
{
    uint64_t bytes = 0;
    char path[512];
    err_printable(path, sizeof path, c->path, strlen(c->path));
    for (size_t i = 0; i < c->n_tensors; i++) bytes += c->tensors[i].bytes;
    printf("%s: good: structure, %zu tensors of %s, all numbers finite", path, c->n_tensors, SIZE(bytes));
    if (c->n_tensors && found[0].sum == VERIFY_SAME) puts(", SHA-256 of every tensor as written");
    else puts("; it holds no checksums, so damage that leaves numbers finite cannot be seen");
    if (c->spare_bytes)
        printf("bytes that belong to no tensor: %" PRIu64 ", which are ignored (--strict refuses them)\n", c->spare_bytes);
}

/* Bytes that nothing describes are no damage, but a checksum does not see them. */
static bool check_spare(const struct settings *s, const struct checkpoint *c, struct unmask_err *err)
{
    return !s->strict || c->spare_bytes == 0
        || fail(err, E_VFY_SPARE, .file = c->path, .found = FMT("%" PRIu64 " bytes", c->spare_bytes), .need = "none, under --strict");
}

/* Of a model that we know every tensor must be there: where its checksum is gone as well, nothing else tells. */
static bool check_tensors(const struct checkpoint *c, struct unmask_err *err)
{
    struct hparams h;
    bool *used = NULL;
    const struct arch *a = arch_of(c, NULL);
    const bool ok = !a || (arch_hparams(a, c, &h, err) && arch_used(a, c, &h, &used, err));
    mem_free(used);
    return ok;
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct run r = { .s = s };
    struct checkpoint *c;
    char path[1024];
    if (!cmd_model_argument(s, path, err) || !checkpoint_open(&c, path, err)) return false;
    struct verify_tensor *found = mem_zalloc(c->n_tensors, sizeof *found, err);
    progress_start(&r.progress, s, t);
    const struct verify_options o = { .threads = s->threads, .on_progress = on_progress, .user = &r };
    const bool ok = found && verify_checkpoint(c, &o, found, err) && check_tensors(c, err) && check_spare(s, c, err);
    progress_end(&r.progress);
    if (s->json && found && (ok || err->status == UNMASK_ECHECK)) print_json(c, found, ok);
    else if (ok && !s->quiet) print_good(c, found);
    mem_free(found);
    checkpoint_close(c);
    return ok;
}

const struct command cmd_verify = {
    "verify", CMD_VERIFY, run, "verify [MODEL] [--strict] [-t N] [--json] [-q]", "check a model file: structure, checksums, numbers",
    "  unmask verify LLaDA-8B-Instruct-v1.0-Q4_0.gguf\n  unmask verify model.gguf --json\n"
};
