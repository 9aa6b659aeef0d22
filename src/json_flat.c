/* json_flat.c - see json_flat.h. */
#include "json_flat.h"

#include "utf8.h"

void json_flat_end(struct json_flat *f)
{
    json_decref(f->decoded);
    f->decoded = NULL;
}

static void skip_space(struct json_flat *f)
{
    while (f->p < f->end && (*f->p == ' ' || *f->p == '\n' || *f->p == '\r' || *f->p == '\t')) f->p++;
}

bool json_flat_take(struct json_flat *f, char c)
{
    skip_space(f);
    if (f->p == f->end || *f->p != c) return false;
    f->p++;
    return true;
}

/* Step over a string whose opening quote has been taken; true if it is closed.  *escaped: it holds a backslash. */
static bool to_closing_quote(struct json_flat *f, bool *escaped)
{
    for (; f->p < f->end; f->p++) {
        if (*f->p == '"') { f->p++; return true; }
        if (*f->p != '\\') continue;
        *escaped = true;
        if (++f->p == f->end) return false;
    }
    return false;
}

bool json_flat_string(struct json_flat *f, struct str *s)
{
    bool escaped = false;
    if (!json_flat_take(f, '"')) return false;
    const char *start = f->p;
    if (!to_closing_quote(f, &escaped)) return false;
    *s = (struct str){ start, (size_t)(f->p - 1 - start) };
    if (escaped) {
        json_decref(f->decoded);
        f->decoded = json_loadb(start - 1, s->n + 2, JSON_DECODE_ANY, NULL);
        *s = (struct str){ json_string_value(f->decoded), json_string_length(f->decoded) };
        return f->decoded != NULL;
    }
    for (size_t i = 0; i < s->n; i++)
        if ((unsigned char)s->s[i] < 0x20) return false;
    return utf8_valid(s->s, s->n) == s->n;
}

bool json_flat_key(struct json_flat *f, struct str *s) { return json_flat_string(f, s) && json_flat_take(f, ':'); }

bool json_flat_int(struct json_flat *f, int64_t *v)
{
    enum { DIGITS = 10 };
    const bool negative = json_flat_take(f, '-');       /* it has skipped white space: "- 1" ends at the blank */
    const char *start = f->p;
    int64_t n = 0;
    for (; f->p < f->end && *f->p >= '0' && *f->p <= '9' && f->p - start < DIGITS; f->p++) n = n * 10 + (*f->p - '0');
    *v = negative ? -n : n;
    if (f->p == start || (*start == '0' && f->p - start > 1)) return false;
    return f->p < f->end && (*f->p == ',' || *f->p == '}' || *f->p == ']' || *f->p == ' ' || *f->p == '\n' || *f->p == '\r'
                             || *f->p == '\t');
}

bool json_flat_skip(struct json_flat *f, struct str *value, size_t *n_items)
{
    skip_space(f);
    const char *start = f->p;
    int level = 0;
    bool escaped;
    *n_items = 1;
    while (f->p < f->end) {
        const char c = *f->p;
        if (level == 0 && (c == ',' || c == '}' || c == ']')) break;            /* behind a number or a word */
        f->p++;
        if (c == '"' && !to_closing_quote(f, &escaped)) return false;
        if (c == '{' || c == '[') level++;
        if (c == '}' || c == ']') level--;
        if (c == ',' && level == 1) ++*n_items;
        if (level == 0 && (c == '"' || c == '}' || c == ']')) break;            /* the end of the value */
    }
    *value = (struct str){ start, (size_t)(f->p - start) };
    return level == 0 && f->p > start;
}
