/* jsonl.c - see jsonl.h. */
#include "jsonl.h"

#include <errno.h>
#include <string.h>

#include "mem.h"
#include "utf8.h"

bool jsonl_open(struct jsonl *j, const char *path, struct unmask_err *err)
{
    *j = (struct jsonl){ .name = path };
    if (!strcmp(path, "-")) {
        j->name = "standard input";
        j->in = stdin;
    } else if (!(j->in = fopen(path, "rb"))) return fail(err, E_FILE_OPEN, .file = path, .found = ERRNO(errno));
    return true;
}

/* Read up to a line end, which is not kept; *end: there was nothing more. */
static bool read_line(struct jsonl *j, bool *end, struct unmask_err *err)
{
    int c;
    errno = 0;
    for (j->n = 0; (c = getc_unlocked(j->in)) != EOF && c != '\n'; ) {
        if (j->n == JSON_BYTES)
            return fail(err, E_CLI_LINE, .file = j->name, .field = FMT("line %llu", (unsigned long long)j->number + 1),
                        .found = "a longer line", .need = FMT("at most %u bytes", JSON_BYTES));
        if (j->n == j->cap) {
            const size_t cap = j->cap ? 2 * j->cap : 4096;
            char *line = mem_resize(j->line, cap, 1, err);
            if (!line) return false;
            j->line = line;
            j->cap = cap;
        }
        j->line[j->n++] = (char)c;
    }
    if (ferror(j->in)) return fail(err, E_FILE_READ, .file = j->name, .found = ERRNO(errno));
    *end = c == EOF && j->n == 0;
    j->number++;
    return true;
}

/* A byte order mark, which editors put before the first line, becomes blanks: places of errors stay those of the file. */
static void blank_out_mark(struct jsonl *j)
{
    const size_t n = j->number == 1 ? utf8_mark(j->line, j->n) : 0;
    if (n) memset(j->line, ' ', n);
}

static bool blank(const struct jsonl *j)
{
    for (size_t i = 0; i < j->n; i++)
        if (!strchr(" \t\r", j->line[i]) || !j->line[i]) return false;
    return true;
}

bool jsonl_next(struct jsonl *j, json_t **object, struct unmask_err *err)
{
    struct unmask_err why;
    bool end = false;
    *object = NULL;
    do {
        if (!read_line(j, &end, err)) return false;
        if (end) return true;
        blank_out_mark(j);
    } while (blank(j));
    *object = json_parse_data(j->line, j->n, j->name, &why);
    if (json_is_object(*object)) return true;
    if (*object) fail(err, E_CLI_LINE, .file = j->name, .field = FMT("line %llu", (unsigned long long)j->number),
                      .need = "a JSON object");
    else if (why.status == UNMASK_EMEMORY) fail(err, E_MEMORY, .file = j->name);
    else fail(err, E_CLI_LINE, .file = j->name, .field = FMT("line %llu", (unsigned long long)j->number),
              .byte = { why.has_offset, why.offset },
              .found = why.found[0] ? why.found : why.what, .need = "a JSON object");
    json_decref(*object);
    *object = NULL;
    return false;
}

const json_t *jsonl_string(const struct jsonl *j, const json_t *object, const char *key, struct unmask_err *err)
{
    const json_t *v = json_object_get(object, key);
    if (json_is_string(v)) return v;
    fail(err, E_CLI_LINE, .file = j->name, .field = FMT("line %llu", (unsigned long long)j->number),
         .found = v ? "another type" : "no such field", .need = FMT("a text under \"%s\"", key));
    return NULL;
}

bool jsonl_at(const char *path, uint64_t number, struct unmask_err *err)
{
    const bool of_model = err && err->status == UNMASK_EMODEL && !err_is(err, E_TOK_BYTE);     /* that byte is the line's */
    return !of_model && err_within(err, FMT("%.200s, line %llu", path, (unsigned long long)number));
}

void jsonl_close(struct jsonl *j)
{
    if (j->in && j->in != stdin) fclose(j->in);
    mem_free(j->line);
    *j = (struct jsonl){ 0 };
}
