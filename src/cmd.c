/* cmd.c - what several subcommands share; see cmd.h. */
#include "cmd.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "datafiles.h"
#include "file.h"
#include "limits.h"
#include "mem.h"
#include "session.h"
#include "utf8.h"

#define EMBEDDED_MODEL "unmask-demo-6M-v1.0-Q8_0.gguf"
enum { MAX_PROMPT = 16 << 20 };

bool cmd_model_path(const struct settings *s, char path[1024], struct unmask_err *err)
{
    if (s->model) {
        if (!*s->model)
            return fail(err, E_CLI_VALUE, .field = "--model", .found = "an empty path", .need = "a GGUF file or a model folder");
        const bool fits = snprintf(path, 1024, "%s", s->model) < 1024;
        return fits || fail(err, E_CLI_VALUE, .field = "--model", .found = "a path of more than 1023 bytes", .need = "a shorter one");
    }
    if (datafile_find("models", EMBEDDED_MODEL, path)) return true;
    return fail(err, E_CLI_NO_MODEL, .need = "-m FILE, UNMASK_MODEL, or the embedded model " EMBEDDED_MODEL " beside the program");
}

bool cmd_model_argument(const struct settings *s, char path[1024], struct unmask_err *err)
{
    struct settings named = *s;
    if (!cmd_expect_args(s, 1, err)) return false;
    if (s->n_args && s->origin[OPT_MODEL] == FROM_FLAG)
        return fail(err, E_CLI_CONFLICT, .field = "FILE, --model", .found = "both", .need = "one of them");
    if (s->n_args) named.model = s->args[0];
    return cmd_model_path(&named, path, err);
}

bool cmd_spare_model(const char *model, const char *flag, const char *out, struct unmask_err *err)
{
    struct checkpoint *c = NULL;
    if (!out || access(out, F_OK) != 0) return true;
    /* a model that cannot be opened ends the run before anything is written */
    const bool same = file_same(model, out) || (checkpoint_open(&c, model, NULL) && checkpoint_has_file(c, out));
    checkpoint_close(c);
    return !same || fail(err, E_QNT_SAME, .file = out, .field = flag, .found = "a file of the model", .need = "another path");
}

/* Threads as asked for, but not more than four per core: more only get in each other's way. */
static int thread_count(const struct settings *s)
{
    const int most = 4 * limits_cores();
    if (s->threads <= most) return s->threads;
    if (!s->quiet) fprintf(stderr, "unmask: note: --threads %d: %d are used, 4 per core\n", s->threads, most);
    return most;
}

struct unmask_open_options cmd_open_options(const struct settings *s, bool without_tokenizer)
{
    enum { PROMPT = 128, LEAST = 512 };         /* positions that are kept for a prompt; and in all */
    const bool rows = s->temperature > 0 || !strcmp(s->command, "forward") || !strcmp(s->command, "eval");
    const int length = s->gen_length + PROMPT;
    return (struct unmask_open_options){
        .isa = s->isa, .threads = thread_count(s), .without_tokenizer = without_tokenizer,
        .context = s->context ? s->context : length > LEAST ? length : LEAST,
        .memory_budget = s->memory > 100 ? s->memory : limits_memory() / 100 * s->memory,
        .guidance = s->cfg_scale > 0, .logits = rows, .reuse = s->reuse, .store = s->store };
}

static bool on_load(void *user, uint64_t done, uint64_t total)
{
    progress_show(user, (double)done / 1e6, (double)total / 1e6, "MB", "loading");
    return term_signal() == 0;
}

bool cmd_load(const struct settings *s, const struct term *t, const char *path, struct unmask_open_options *o,
              struct unmask_model **m, struct unmask_err *err)
{
    struct progress progress;
    progress_start(&progress, s, t);
    o->on_load = on_load;
    o->user = &progress;
    const bool ok = unmask_open(m, path, o, err);
    progress_end(&progress);
    return ok;
}

/* A limit of processes makes a run slow, not wrong. */
static void tell_threads(const struct settings *s, int threads, int wanted)
{
    if (threads < wanted && !s->quiet)
        fprintf(stderr, "unmask: note: %d of %d threads; the system refused more\n", threads, wanted);
}

bool cmd_open_model(const struct settings *s, const struct term *t, bool without_tokenizer, struct unmask_model **m,
                    struct unmask_session **session, struct unmask_err *err)
{
    char path[1024];
    struct unmask_open_options o = cmd_open_options(s, without_tokenizer);
    if (!cmd_model_path(s, path, err) || !cmd_load(s, t, path, &o, m, err)) return false;
    if (unmask_session_open(session, *m, o.threads, err)) {
        tell_threads(s, pool_threads((*session)->pool), pool_size(o.threads));
        return true;
    }
    unmask_close(*m);
    *m = NULL;
    return false;
}

bool cmd_expect_args(const struct settings *s, int most, struct unmask_err *err)
{
    if (s->n_args <= most) return true;
    const char *extra = s->args[most];
    return fail(err, E_CLI_EXTRA, .found = QUOTE(extra, strlen(extra)), .hint = FMT("`unmask %s -h` tells more", s->command));
}

void cmd_print_error(const struct unmask_err *err, bool json)
{
    char line[2048];
    unmask_err_message(err, line, sizeof line);
    if (!json) {
        fprintf(stderr, "unmask: error: %s\n", line);
        return;
    }
    json_t *e = json_pack("{s:{s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:s,s:i}}", "error",
                          "id", err->id, "message", line, "file", err->file, "what", err->what, "field", err->field,
                          "found", err->found, "need", err->need, "hint", err->hint, "exit", (int)err->status);
    if (e && err->has_offset) json_object_set_new(json_object_get(e, "error"), "offset", json_integer((json_int_t)err->offset));
    if (e) json_dumpf(e, stderr, JSON_COMPACT);
    fputc('\n', stderr);
    json_decref(e);
}

static bool read_stream(FILE *f, const char *what, char **text, size_t *n, struct unmask_err *err)
{
    char *buf = NULL;
    size_t used = 0, cap = 0;
    errno = 0;
    for (size_t got = 1; got > 0; used += got) {
        if (cap - used < 4096) {
            char *grown = mem_resize(buf, cap ? 2 * cap : 16384, 1, err);
            if (!grown) {
                mem_free(buf);
                return false;
            }
            buf = grown;
            cap = cap ? 2 * cap : 16384;
        }
        got = fread(buf + used, 1, cap - used - 1, f);
        if (used + got > MAX_PROMPT) {
            mem_free(buf);
            return fail(err, E_CLI_TOO_LONG, .field = what, .found = FMT("more than %d bytes", MAX_PROMPT), .need = "less");
        }
    }
    if (ferror(f)) {
        const int why = errno;
        mem_free(buf);
        return fail(err, E_FILE_READ, .file = "standard input", .found = ERRNO(why));
    }
    buf[used] = 0;
    *text = buf;
    *n = used;
    return true;
}

bool cmd_check_text(const char *text, size_t n, const char *what, struct unmask_err *err)
{
    const size_t bad = utf8_valid(text, n);
    return bad == n || fail(err, E_CLI_TEXT, .field = what, .byte = AT(bad), .found = FMT("byte 0x%02x", (unsigned char)text[bad]),
                            .need = "UTF-8 text");
}

/* What @FILE names. */
static bool read_named(const char *path, char **text, size_t *n, struct unmask_err *err)
{
    if (file_slurp(path, MAX_PROMPT, text, n, err)) return true;
    if (err->status == UNMASK_EIO && *path != '~')
        snprintf(err->hint, sizeof err->hint, "An argument that begins with @ names a file; write @@ for the character itself");
    return false;
}

bool cmd_read_text(const char *arg, const char *what, char **text, size_t *n, struct unmask_err *err)
{
    if (!arg && isatty(STDIN_FILENO)) return fail(err, E_CLI_MISSING, .field = what, .need = "text as an argument, @FILE, - or a pipe");
    if (!arg || !strcmp(arg, "-")) {
        if (!read_stream(stdin, what, text, n, err)) return false;
    } else if (arg[0] == '@' && arg[1] != '@') {
        if (!read_named(arg + 1, text, n, err)) return false;
    } else {
        arg += arg[0] == '@';
        *n = strlen(arg);
        if (!(*text = mem_strndup(arg, *n, err))) return false;
    }
    if (cmd_check_text(*text, *n, what, err)) return true;
    mem_free(*text);
    *text = NULL;
    return false;
}
