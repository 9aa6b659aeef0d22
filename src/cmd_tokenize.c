/* cmd_tokenize.c - text to ids: what a model sees of a text, without bos and without template. */
#include <string.h>
#include <sys/stat.h>

#include "cmd.h"
#include "jsonl.h"
#include "mem.h"
#include "tokenizer.h"

bool cmd_open_tokenizer(const struct settings *s, struct tokenizer **t, struct unmask_err *err)
{
    char path[1024];
    struct stat st;
    struct checkpoint *c;
    if (!cmd_model_path(s, path, err)) return false;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return tokenizer_open_folder(t, path, err);       /* needs no weights */
    if (!checkpoint_open(&c, path, err)) return false;
    const bool ok = tokenizer_open(t, c, err);
    checkpoint_close(c);
    return ok;
}

/* json: {"ids":[1,2]}, else 1 2. */
static void print_ids(const int32_t *ids, size_t n, bool json)
{
    if (json) fputs("{\"ids\":[", stdout);
    for (size_t i = 0; i < n; i++) printf("%s%d", i == 0 ? "" : json ? "," : " ", ids[i]);
    fputs(json ? "]}\n" : "\n", stdout);
}

static bool tokenize(const struct tokenizer *t, const char *text, size_t n, const struct settings *s, bool json,
                     struct unmask_err *err)
{
    int32_t *ids = NULL;
    size_t n_ids = 0;
    const bool ok = tokenizer_encode(t, text, n, s->special, &ids, &n_ids, err);
    if (ok) print_ids(ids, n_ids, json);
    mem_free(ids);
    return ok;
}

static bool tokenize_lines(const struct tokenizer *t, const struct settings *s, struct unmask_err *err)
{
    struct jsonl lines;
    json_t *object = NULL;
    bool ok = jsonl_open(&lines, s->jsonl, err);
    if (!ok) return false;
    while ((ok = jsonl_next(&lines, &object, err)) && object) {
        const json_t *text = jsonl_string(&lines, object, "text", err);
        ok = text && (tokenize(t, json_string_value(text), json_string_length(text), s, true, err)
                      || jsonl_at(lines.name, lines.number, err));
        json_decref(object);
        if (!ok) break;
    }
    jsonl_close(&lines);
    return ok;
}

static bool run(const struct settings *s, const struct term *term, struct unmask_err *err)
{
    (void)term;
    struct tokenizer *t;
    char *text = NULL;
    size_t n;
    if (s->n_args > (s->jsonl ? 0 : 1))
        return fail(err, E_CLI_EXTRA, .found = QUOTE(s->args[s->n_args - 1], strlen(s->args[s->n_args - 1])),
                    .need = s->jsonl ? "no text beside --jsonl" : "one text; put it in quotes");
    if (!s->jsonl && !cmd_read_text(s->n_args ? s->args[0] : NULL, "text", &text, &n, err)) return false;
    bool ok = cmd_open_tokenizer(s, &t, err);
    if (ok) {
        ok = s->jsonl ? tokenize_lines(t, s, err) : tokenize(t, text, n, s, s->json, err);
        tokenizer_close(t);
    }
    mem_free(text);
    return ok;
}

const struct command cmd_tokenize = {
    "tokenize", CMD_TOKENIZE, run, "tokenize [-m MODEL] [--special] [--jsonl FILE] [TEXT]", "print the token ids of a text",
    "  unmask tokenize \"turn on the kitchen light\"\n"
    "  unmask tokenize -m FOLDER --special \"Hi<|eot_id|>\"     special tokens are recognised\n"
    "  unmask tokenize -m FOLDER --jsonl texts.jsonl          one {\"text\"} in, one {\"ids\"} out per line\n"
    "  unmask tokenize @notes.txt                             the text of a file; @@ is an @ itself\n"
};
