/* model_name.c - see model_name.h. */
#include "model_name.h"

#include <stdio.h>
#include <string.h>

static bool is_digit(char c) { return c >= '0' && c <= '9'; }
static char upper(char c) { return c >= 'a' && c <= 'z' ? (char)(c - 32) : c; }
static bool is_letter(char c) { return upper(c) >= 'A' && upper(c) <= 'Z'; }

static bool in_names(char c) { return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '+'; }

/* Digits with at most one point in them; returns how many bytes. */
static size_t number(const char *s)
{
    size_t n = strspn(s, "0123456789");
    if (n && s[n] == '.' && is_digit(s[n + 1])) n += 1 + strspn(s + n + 1, "0123456789");
    return n;
}

/* "8B", "0.5b", "8x7B", "7B-A1B" in parts of its own */
static bool is_size(const char *s)
{
    size_t n = number(s);
    if (n && upper(s[n]) == 'X') {
        const size_t m = number(s + n + 1);
        n = m ? n + 1 + m : 0;
    }
    return n && s[n] && strchr("KMBT", upper(s[n])) && !s[n + 1];
}

static bool is_version(const char *s)           /* "v1.0", "v2" */
{
    return upper(s[0]) == 'V' && is_digit(s[1]) && s[1 + strspn(s + 1, "0123456789.")] == 0;
}

static bool is_finetune(const char *s)          /* where no size tells the name from what was done to the model */
{
    static const char *const words[] = { "Instruct", "Base", "Chat" };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(s, words[i])) return true;
    return false;
}

static void append(char *dst, size_t size, const char *part)
{
    const size_t n = strlen(dst);
    snprintf(dst + n, size - n, "%s%s", n ? "-" : "", part);
}

void model_name_parse(struct model_name *m, struct str name)
{
    bool sized = false;
    *m = (struct model_name){ { 0 }, { 0 }, { 0 }, { 0 } };
    for (size_t i = 0, n; i < name.n; i += n + 1) {
        char part[64];
        size_t used = 0;
        for (n = 0; i + n < name.n; n++) {
            const char c = name.s[i + n];
            if (!in_names(c)) break;
            if (used + 1 < sizeof part) part[used++] = c;
        }
        part[used] = 0;
        if (!used) continue;
        if (!sized && m->base[0] && is_size(part)) {
            for (size_t k = 0; k <= used && k < sizeof m->size - 1; k++) m->size[k] = upper(part[k]);
            sized = true;
        } else if (is_version(part)) snprintf(m->version, sizeof m->version, "v%.14s", part + 1);
        else if (sized || (m->base[0] && is_finetune(part))) append(m->finetune, sizeof m->finetune, part);
        else append(m->base, sizeof m->base, part);
    }
}

void model_name_size(struct model_name *m, uint64_t parameters)
{
    static const char units[] = "KMBT";
    double v = (double)parameters / 1e3;
    int u = 0;
    for (; v >= 1000 && units[u + 1]; u++) v /= 1e3;
    snprintf(m->size, sizeof m->size, v < 9.95 ? "%.1f%c" : "%.0f%c", v, units[u]);
}

const char *model_name_encoding(struct err_text *t, const char *format)
{
    err_fmt(t, "%s", format);
    for (char *c = t->s; *c; c++) *c = upper(*c);
    return t->s;
}

void model_name_file(const struct model_name *m, const char *encoding, char file[256])
{
    static const char end[] = ".gguf";
    const char *const parts[] = { m->base[0] ? m->base : "model", m->size, m->finetune, m->version[0] ? m->version : "v1.0",
                                  ENCODING(encoding) };
    const size_t n_parts = sizeof parts / sizeof *parts, room = 256 - sizeof end;
    size_t n = 0;
    for (size_t i = 0; i < n_parts; i++) {
        if (n && parts[i][0] && n < room) file[n++] = '-';
        for (const char *p = parts[i]; *p && n < room; p++) {
            const bool other = !in_names(*p);
            if (other && (n == 0 || file[n - 1] == '-')) continue;
            file[n++] = other ? '-' : *p;
        }
    }
    memcpy(file + n, end, sizeof end);
}
