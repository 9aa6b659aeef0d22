/* holes.c - see holes.h. */
#include "holes.h"

#include <string.h>

#include "mem.h"

enum { MAX_PARTS = 2 * MAX_HOLES + 1 };

/* What stands between [[ and ]]. */
struct hole_text { const char *s; size_t n, at; };

static bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static bool not_a_hole(const struct hole_text *t, struct unmask_err *err)
{
    return fail(err, E_HOLE_FORM, .byte = AT(t->at), .found = FMT("[[%s", QUOTE(t->s, t->n)), .need = "[[8]] or [[name:8]]",
                .hint = "\\[[ writes [[ itself");
}

/* NAME:LENGTH or LENGTH. */
static bool read_hole(struct hole_part *p, const struct hole_text *t, struct unmask_err *err)
{
    const char *colon = memchr(t->s, ':', t->n);
    const size_t n_name = colon ? (size_t)(colon - t->s) : 0;
    if (colon && (n_name == 0 || !is_letter(t->s[0]))) return not_a_hole(t, err);
    for (size_t i = 0; i < n_name; i++)
        if (!is_letter(t->s[i]) && !is_digit(t->s[i]) && t->s[i] != '-') return not_a_hole(t, err);
    if (n_name > MAX_HOLE_NAME)
        return fail(err, E_HOLE_LIMIT, .byte = AT(t->at), .found = FMT("a name of %zu bytes", n_name),
                    .need = FMT("at most %d", MAX_HOLE_NAME));
    size_t i = n_name + (colon != NULL);
    if (i == t->n) return not_a_hole(t, err);
    for (; i < t->n; i++) {
        if (!is_digit(t->s[i])) return not_a_hole(t, err);
        p->length = p->length * 10 + (t->s[i] - '0');
        if (p->length > MAX_HOLE_LENGTH)
            return fail(err, E_HOLE_LIMIT, .byte = AT(t->at), .found = FMT("[[%s]]", QUOTE(t->s, t->n)),
                        .need = FMT("at most %d tokens", MAX_HOLE_LENGTH));
    }
    memcpy(p->name, t->s, n_name);
    return true;
}

static bool same_name(const struct holes *h, struct hole_part *p, const struct hole_text *t, struct unmask_err *err)
{
    p->same_as = -1;
    for (int i = 0; i < h->n && p->name[0]; i++) {
        if (h->parts[i].text || strcmp(h->parts[i].name, p->name)) continue;
        if (h->parts[i].length != p->length)
            return fail(err, E_HOLE_SAME, .field = p->name, .byte = AT(t->at), .found = FMT("%d tokens", p->length),
                        .need = FMT("%d, as before", h->parts[i].length));
        p->same_as = i;
        return true;
    }
    return true;
}

static bool add_hole(struct holes *h, int *n_holes, const struct hole_text *t, struct unmask_err *err)
{
    struct hole_part p = { .text = NULL }, *last = h->n ? &h->parts[h->n - 1] : NULL;
    if (!read_hole(&p, t, err) || !same_name(h, &p, t, err)) return false;
    if (last && !last->text && !last->name[0] && !p.name[0] && last->length + p.length <= MAX_HOLE_LENGTH) {
        last->length += p.length;
        return true;
    }
    if (++*n_holes > MAX_HOLES)
        return fail(err, E_HOLE_LIMIT, .byte = AT(t->at), .found = "one hole more", .need = FMT("at most %d", MAX_HOLES));
    h->parts[h->n++] = p;
    return true;
}

/* Append `count` such bytes of fixed text at *end, where the last part's text ends if it is one. */
static void add_bytes(struct holes *h, char **end, char c, size_t count)
{
    if (count == 0) return;
    if (h->n == 0 || !h->parts[h->n - 1].text) h->parts[h->n++] = (struct hole_part){ .text = *end, .same_as = -1 };
    memset(*end, c, count);
    *end += count;
    h->parts[h->n - 1].n_text += count;
}

static size_t run_of(char c, const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && s[i] == c) i++;
    return i;
}

/* The hole at [[, which is text[at]; returns the bytes that it takes, or 0. */
static size_t take_hole(struct holes *h, int *n_holes, const char *text, size_t n, size_t at, struct unmask_err *err)
{
    struct hole_text t = { text + at + 2, 0, at };
    const size_t left = n - at - 2;
    while (t.n < left && t.s[t.n] != ']') t.n++;
    if (left - t.n < 2 || t.s[t.n + 1] != ']') not_a_hole(&t, err);
    else if (add_hole(h, n_holes, &t, err)) return t.n + 4;
    return 0;
}

static bool parse(struct holes *h, const char *text, size_t n, struct unmask_err *err)
{
    char *end = h->text;
    int n_holes = 0;
    for (size_t i = 0; i < n; ) {
        const size_t slashes = run_of('\\', text + i, n - i), open = run_of('[', text + i + slashes, n - i - slashes);
        const bool literal = open >= 2 && slashes % 2;
        add_bytes(h, &end, '\\', open >= 2 ? slashes / 2 : slashes);
        i += slashes;
        if (literal || open == 1) {
            add_bytes(h, &end, '[', literal ? 2 : 1);
            i += literal ? 2 : 1;
        } else if (open) {                      /* the last two of them open the hole */
            add_bytes(h, &end, '[', open - 2);
            i += open - 2;
            const size_t taken = take_hole(h, &n_holes, text, n, i, err);
            if (!taken) return false;
            i += taken;
        } else if (i < n) add_bytes(h, &end, text[i++], 1);
    }
    return n_holes > 0 || fail(err, E_HOLE_NONE, .need = "[[8]] or [[name:8]] somewhere in it", .hint = "`unmask run` continues a text");
}

bool holes_parse(struct holes *h, const char *text, size_t n, struct unmask_err *err)
{
    *h = (struct holes){ .parts = mem_zalloc(MAX_PARTS, sizeof *h->parts, err), .text = mem_zalloc(n + 1, 1, err) };
    if (h->parts && h->text && parse(h, text, n, err)) return true;
    holes_free(h);
    return false;
}

void holes_free(struct holes *h)
{
    mem_free(h->parts);
    mem_free(h->text);
    *h = (struct holes){ .parts = NULL };
}
