/* eval_set.c - see eval_set.h. */
#include "eval_set.h"

#include "datafiles.h"
#include "mem.h"

static bool append(struct eval_line **list, size_t *n, const json_t *text, const json_t *answer,
                   const struct jsonl *j, struct unmask_err *err)
{
    struct eval_line *grown = mem_resize(*list, *n + 1, sizeof *grown, err);
    if (!grown) return false;
    grown[(*n)++] = (struct eval_line){ json_string_value(text), answer ? json_string_value(answer) : NULL, json_string_length(text),
                                        answer ? json_string_length(answer) : 0, j->name, (int)j->number };
    *list = grown;
    return true;
}

static bool add(struct eval_set *e, const struct jsonl *j, json_t *o, bool texts, int limit, struct unmask_err *err)
{
    const json_t *q = json_object_get(o, "q"), *a = json_object_get(o, "a"), *text = texts ? json_object_get(o, "text") : NULL;
    if (!(json_is_string(q) && json_is_string(a)) && !json_is_string(text))
        return fail(err, E_CLI_LINE, .file = j->name, .field = FMT("line %llu", (unsigned long long)j->number), .found = "other fields",
                    .need = texts ? "the texts \"q\" and \"a\", or \"text\"" : "the texts \"q\" and \"a\"");
    if (json_array_append(e->lines, o) < 0) return fail(err, E_MEMORY, .file = j->name);
    if (json_is_string(text)) return (limit && e->n_texts >= (size_t)limit) || append(&e->texts, &e->n_texts, text, NULL, j, err);
    return (limit && e->n_questions >= (size_t)limit) || append(&e->questions, &e->n_questions, q, a, j, err);
}

static bool read_file(struct eval_set *e, const char *path, bool texts, int limit, struct unmask_err *err)
{
    struct jsonl j;
    json_t *o = NULL;
    if (!jsonl_open(&j, path, err)) return false;
    bool ok = true, more = true;
    e->name = j.name;
    while (ok && more) {
        ok = jsonl_next(&j, &o, err) && (!o || add(e, &j, o, texts, limit, err));
        more = o && (texts || e->n_questions != (size_t)limit);         /* limit 0: never */
        json_decref(o);
    }
    jsonl_close(&j);
    return ok;
}

static bool set_new(struct eval_set *e, struct unmask_err *err)
{
    *e = (struct eval_set){ .lines = json_array() };
    return e->lines || fail(err, E_MEMORY, .hint = NULL);
}

/* What was read is the caller's, unless reading failed or gave nothing. */
static bool set_read(struct eval_set *e, bool ok, struct unmask_err *err)
{
    if (ok && e->n_questions + e->n_texts == 0)
        ok = fail(err, E_CLI_LINE, .file = e->name, .found = "no line", .need = "JSON objects, one a line");
    if (!ok) eval_set_free(e);
    return ok;
}

bool eval_set_read(struct eval_set *e, const char *path, int limit, struct unmask_err *err)
{
    bool ok = set_new(e, err);
    static const char *const own[] = { "assistant.jsonl", "stories.jsonl" };
    for (int i = 0; ok && !path && i < 2; i++) {
        ok = datafile_find("models/eval", own[i], e->where[i])
            || fail(err, E_CLI_MISSING, .file = e->where[i], .field = "--data",
                    .need = "a file of JSON lines, {\"q\", \"a\"} or {\"text\"}",
                    .hint = "The sets that come with the embedded model are not beside this program");
        ok = ok && read_file(e, e->where[i], true, limit, err);
    }
    ok = ok && (!path || read_file(e, path, true, limit, err));
    return set_read(e, ok, err);
}

bool eval_questions_read(struct eval_set *e, const char *path, int limit, struct unmask_err *err)
{
    return set_read(e, set_new(e, err) && read_file(e, path, false, limit, err), err);
}

void eval_set_free(struct eval_set *e)
{
    mem_free(e->questions);
    mem_free(e->texts);
    json_decref(e->lines);
    e->questions = e->texts = NULL;
    e->lines = NULL;
}
