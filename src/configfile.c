/* configfile.c - see configfile.h. */
#include "configfile.h"

#include <string.h>
#include <yaml.h>

#include "file.h"
#include "mem.h"
#include "utf8.h"

enum { MAX_BYTES = 64 << 10, MAX_DEPTH = 8, MAX_KEYS = 512, MAX_KEY = 256, MAX_TEXT = 4096 };

struct level { bool sequence; size_t key_length; bool have_key; int n_values; };        /* key_length: of the path up to this level */
struct seen { char *key; int line; };

struct reader {
    const char *path;
    struct level stack[MAX_DEPTH + 1]; int depth;
    char key[MAX_KEY + 1];                      /* path to the value that comes next */
    int key_line, key_column;
    struct seen seen[MAX_KEYS]; int n_seen;
    int documents;
    struct arena arena;
    bool (*fn)(void *user, const struct yaml_value *v, struct unmask_err *err);
    void *user;
};

static const char *place(struct err_text *t, const yaml_mark_t *m)
{
    return err_fmt(t, "line %zu, column %zu", m->line + 1, m->column + 1);
}
#define PLACE(m) place(&(struct err_text){ { 0 } }, (m))

static bool refuse(const struct reader *r, const yaml_event_t *e, const char *what, struct unmask_err *err)
{
    return fail(err, E_YAML_FEATURE, .file = r->path, .field = PLACE(&e->start_mark), .found = what, .need = "plain keys and values");
}

/* A mapping key: append it to the path, once per mapping. */
static bool take_key(struct reader *r, const yaml_event_t *e, struct unmask_err *err)
{
    struct level *l = &r->stack[r->depth];
    const char *text = (const char *)e->data.scalar.value;
    const size_t n = e->data.scalar.length;
    if (n == 0 || strlen(text) != n || l->key_length + n + 1 > MAX_KEY)
        return fail(err, E_YAML_LIMIT, .file = r->path, .field = PLACE(&e->start_mark), .found = FMT("a key of %zu bytes", n),
                    .need = FMT("1 to %d without NUL", MAX_KEY));
    if (n == 2 && !memcmp(text, "<<", 2)) return refuse(r, e, "a merge key", err);
    char *at = r->key + l->key_length;
    if (l->key_length) *at++ = '.';
    memcpy(at, text, n + 1);
    r->key_line = (int)e->start_mark.line + 1;
    r->key_column = (int)e->start_mark.column + 1;
    l->have_key = true;
    for (int i = 0; i < r->n_seen; i++)
        if (!strcmp(r->seen[i].key, r->key))
            return fail(err, E_YAML_DUPLICATE, .file = r->path, .field = r->key,
                        .found = FMT("lines %d and %d", r->seen[i].line, r->key_line), .need = "one of them");
    if (r->n_seen == MAX_KEYS)
        return fail(err, E_YAML_LIMIT, .file = r->path, .found = FMT("more than %d keys", MAX_KEYS), .need = "fewer");
    r->seen[r->n_seen].line = r->key_line;
    return (r->seen[r->n_seen++].key = arena_strndup(&r->arena, r->key, strlen(r->key), err));
}

static bool take_scalar(struct reader *r, const yaml_event_t *e, struct unmask_err *err)
{
    struct level *l = &r->stack[r->depth];
    if (e->data.scalar.anchor) return refuse(r, e, "an anchor", err);
    if (e->data.scalar.tag) return refuse(r, e, "a tag", err);
    if (r->depth == 0) {                        /* a document that is a lone scalar: empty is fine, text is not */
        if (e->data.scalar.length == 0) return true;
        return fail(err, E_YAML_SYNTAX, .file = r->path, .field = PLACE(&e->start_mark), .found = "text", .need = "lines of `key: value`");
    }
    if (!l->sequence && !l->have_key) return take_key(r, e, err);
    const char *text = (const char *)e->data.scalar.value;
    if (e->data.scalar.length > MAX_TEXT || strlen(text) != e->data.scalar.length)
        return fail(err, E_YAML_LIMIT, .file = r->path, .field = PLACE(&e->start_mark),
                    .found = FMT("a value of %zu bytes", e->data.scalar.length), .need = FMT("at most %d, without NUL", MAX_TEXT));
    const struct yaml_value v = { .key = r->key, .text = text, .quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE,
                                  .in_list = l->sequence, .line = r->key_line, .column = r->key_column };
    if (!l->sequence) l->have_key = false;
    l->n_values++;
    return r->fn(r->user, &v, err);
}

static bool push(struct reader *r, const yaml_event_t *e, bool sequence, bool decorated, struct unmask_err *err)
{
    if (decorated) return refuse(r, e, "an anchor or a tag", err);
    if (r->stack[r->depth].sequence) return refuse(r, e, sequence ? "a list in a list" : "a mapping in a list", err);
    if (r->depth > 0 && !r->stack[r->depth].have_key) return refuse(r, e, "a key that is not a word", err);
    if (r->depth == 0 && sequence)
        return fail(err, E_YAML_SYNTAX, .file = r->path, .field = PLACE(&e->start_mark), .found = "a list",
                    .need = "lines of `key: value`");
    if (r->depth == MAX_DEPTH)
        return fail(err, E_YAML_LIMIT, .file = r->path, .field = PLACE(&e->start_mark), .found = FMT("more than %d levels", MAX_DEPTH),
                    .need = "fewer");
    const size_t key_length = r->depth ? strlen(r->key) : 0;
    r->stack[++r->depth] = (struct level){ .sequence = sequence, .key_length = key_length };
    return true;
}

static bool pop(struct reader *r, struct unmask_err *err)
{
    const struct level *l = &r->stack[r->depth--];
    r->stack[r->depth].have_key = false;
    r->stack[r->depth].n_values++;
    r->key[l->key_length] = 0;
    const struct yaml_value v = { .key = r->key, .text = "", .empty_collection = true, .line = r->key_line, .column = r->key_column };
    return l->n_values > 0 || r->depth == 0 || r->fn(r->user, &v, err);
}

static bool take_event(struct reader *r, const yaml_event_t *e, struct unmask_err *err)
{
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT: return r->documents++ == 0 || refuse(r, e, "a second document", err);
    case YAML_ALIAS_EVENT: return refuse(r, e, "an alias", err);
    case YAML_SCALAR_EVENT: return take_scalar(r, e, err);
    case YAML_MAPPING_START_EVENT: return push(r, e, false, e->data.mapping_start.anchor || e->data.mapping_start.tag, err);
    case YAML_SEQUENCE_START_EVENT: return push(r, e, true, e->data.sequence_start.anchor || e->data.sequence_start.tag, err);
    case YAML_MAPPING_END_EVENT: case YAML_SEQUENCE_END_EVENT: return pop(r, err);
    default: return true;
    }
}

static bool syntax_error(const struct reader *r, const yaml_parser_t *p, struct unmask_err *err)
{
    static const char found[] = "found ";       /* so some of libyaml's words begin, as ours do by themselves */
    const char *problem = p->problem ? p->problem : "something that is not YAML";
    const size_t skip = strncmp(problem, found, sizeof found - 1) ? 0 : sizeof found - 1;
    return fail(err, E_YAML_SYNTAX, .file = r->path, .field = PLACE(&p->problem_mark), .found = problem + skip,
                .need = p->context ? FMT("well-formed YAML (%s)", p->context) : "well-formed YAML");
}

/* libyaml reports bytes that are no text without their line, so they are looked for first. */
static bool check_text(const char *text, size_t n, const char *path, struct unmask_err *err)
{
    const size_t valid = utf8_valid(text, n);
    int line = 1, column = 1;
    for (size_t i = 0; i < n; i++) {
        const unsigned char b = (unsigned char)text[i];
        if (i == valid || (b < 0x20 && b != '\n' && b != '\r' && b != '\t') || b == 0x7F)
            return fail(err, E_YAML_SYNTAX, .file = path, .field = FMT("line %d, column %d", line, column), .found = FMT("byte 0x%02x", b),
                        .need = "UTF-8 text without control bytes");
        if (b == '\n') line++, column = 1;
        else if ((b & 0xC0) != 0x80) column++;
    }
    return true;
}

static bool read_text(const char *path, char **text, size_t *n, struct unmask_err *err)
{
    if (!file_slurp(path, MAX_BYTES, text, n, err))
        return err && err->status == UNMASK_ELIMIT
               ? fail(err, E_YAML_LIMIT, .file = path, .found = "a larger file", .need = FMT("at most %d bytes", MAX_BYTES)) : false;
    if (check_text(*text, *n, path, err)) return true;
    mem_free(*text);
    return false;
}

bool yaml_read(const char *path, bool (*fn)(void *user, const struct yaml_value *v, struct unmask_err *err),
               void *user, struct unmask_err *err)
{
    char *text;
    size_t n;
    if (!read_text(path, &text, &n, err)) return false;
    struct reader *r = mem_zalloc(1, sizeof *r, err);
    yaml_parser_t parser;
    bool ok = r && (yaml_parser_initialize(&parser) || fail(err, E_MEMORY, .file = path));
    if (!ok) {
        mem_free(r);
        mem_free(text);
        return false;
    }
    r->path = path;
    r->fn = fn;
    r->user = user;
    yaml_parser_set_encoding(&parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    for (bool end = false; ok && !end; ) {
        yaml_event_t e;
        if (!yaml_parser_parse(&parser, &e)) {
            ok = syntax_error(r, &parser, err);
            break;
        }
        end = e.type == YAML_STREAM_END_EVENT;
        ok = take_event(r, &e, err);
        yaml_event_delete(&e);
    }
    yaml_parser_delete(&parser);
    arena_free(&r->arena);
    mem_free(r);
    mem_free(text);
    return ok;
}
