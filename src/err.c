/* err.c - see err.h. */
#include "err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "utf8.h"

static const struct { char id[16]; enum unmask_status status; const char *what; } rows[] = {
#define X(name, id, status, what) { id, status, what },
#include "errors.def"
#undef X
};

const char *err_fmt(struct err_text *t, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(t->s, sizeof t->s, fmt, ap);
    va_end(ap);
    return t->s;
}

const char *err_errno(struct err_text *t, int errnum)
{
    if (strerror_r(errnum, t->s, sizeof t->s) != 0) snprintf(t->s, sizeof t->s, "error %d", errnum);
    return t->s;
}

const char *err_size(struct err_text *t, double bytes)
{
    static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
    size_t u = 0;
    for (; bytes >= 1024 && u + 1 < sizeof units / sizeof *units; u++) bytes /= 1024;
    return err_fmt(t, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
}

void err_list(struct err_text *list, const char *name)
{
    const size_t n = strlen(list->s);
    snprintf(list->s + n, sizeof list->s - n, "%s%s", n ? ", " : "", name);
}

/* Length of the character at text[0..n) if it may be shown as it is, else 0. */
static size_t plain_char(const char *text, size_t n)
{
    uint32_t cp = 0;
    const size_t len = utf8_decode(text, n, &cp);
    return len > 0 && utf8_shown(cp) ? len : 0;
}

static void escape(char dst[4], unsigned char b)
{
    static const char hex[] = "0123456789abcdef";
    const char esc[4] = { '\\', 'x', hex[b >> 4], hex[b & 15] };
    memcpy(dst, esc, 4);
}

void err_printable(char *dst, size_t size, const char *text, size_t n)
{
    const size_t most = size - 1 < 80 ? size - 1 : 80;
    size_t used = 0;
    for (size_t i = 0; i < n; ) {
        const size_t plain = plain_char(text + i, n - i), len = plain ? plain : 1, room = plain ? plain : 4;
        if (used + room + (i + len < n ? 3 : 0) > most) {
            memcpy(dst + used, "...", 3);
            used += 3;
            break;
        }
        if (plain) memcpy(dst + used, text + i, len);
        else escape(dst + used, (unsigned char)text[i]);
        used += room;
        i += len;
    }
    dst[used] = 0;
}

const char *err_quote(struct err_text *t, const char *p, size_t n)
{
    err_printable(t->s, sizeof t->s, p, n);
    return t->s;
}

/* Copy a text that we composed, on one line; a path may hold anything. */
static void put(char *dst, size_t size, const char *s)
{
    size_t used = 0;
    for (const char *end = s ? s + strlen(s) : s; s < end && used + 4 < size; ) {
        const size_t plain = plain_char(s, (size_t)(end - s));
        if (plain) memcpy(dst + used, s, plain);
        else escape(dst + used, (unsigned char)*s);
        used += plain ? plain : 4;
        s += plain ? plain : 1;
    }
    dst[used] = 0;
}

const char *err_word(struct err_text *t, const char *path)
{
    enum { MOST = 160 };
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:@%/";
    const size_t n = strlen(path);
    size_t used = 0;
    for (size_t i = 0, len; i < n; i += len) {
        len = plain_char(path + i, n - i);
        if (!len || n > MOST) return "MODEL";
    }
    if (n && strspn(path, safe) == n) return memcpy(t->s, path, n + 1);
    t->s[used++] = '\'';
    for (size_t i = 0; i < n && used + 6 < sizeof t->s; i++)            /* a quote is left, written and opened again */
        used += (size_t)snprintf(t->s + used, sizeof t->s - used, path[i] == '\'' ? "'\\''" : "%c", path[i]);
    memcpy(t->s + used, "'", 2);
    return t->s;
}

bool err_set(struct unmask_err *err, enum err_id id, const struct err_info *info)
{
    if (!err) return false;
    memset(err, 0, sizeof *err);
    err->status = rows[id].status;
    memcpy(err->id, rows[id].id, sizeof err->id);
    put(err->file, sizeof err->file, info->file);
    put(err->what, sizeof err->what, info->what ? info->what : rows[id].what);
    put(err->field, sizeof err->field, info->field);
    put(err->found, sizeof err->found, info->found);
    put(err->need, sizeof err->need, info->need);
    put(err->hint, sizeof err->hint, info->hint);
    err->has_offset = info->byte.known;
    err->offset = info->byte.at;
    return false;
}

bool err_is(const struct unmask_err *err, enum err_id id) { return !strcmp(err->id, rows[id].id); }

bool err_within(struct unmask_err *err, const char *place)
{
    char whole[2 * sizeof err->file + sizeof ": "];
    if (!err) return false;
    snprintf(whole, sizeof whole, "%.*s%s%s", (int)sizeof err->file, place, err->file[0] ? ": " : "", err->file);
    put(err->file, sizeof err->file, whole);
    return false;
}

const char *unmask_err_message(const struct unmask_err *e, char *buf, size_t size)
{
    char where[200] = "", values[540] = "", byte[40] = "";
    static const struct unmask_err none = { .what = "no error was given" };
    if (!e) e = &none;
    if (e->has_offset) snprintf(byte, sizeof byte, "byte %llu", (unsigned long long)e->offset);
    if (e->field[0] || byte[0])
        snprintf(where, sizeof where, " (%s%s%s)", e->field, e->field[0] && byte[0] ? ", " : "", byte);
    if (e->found[0] || e->need[0])
        snprintf(values, sizeof values, ": %s%s%s%s%s", e->found[0] ? "found " : "", e->found, e->found[0] && e->need[0] ? ", " : "",
                 e->need[0] ? "need " : "", e->need);
    snprintf(buf, size, "%s%s%s%s%s%s%s [%s]",
             e->file, e->file[0] ? ": " : "", e->what, where, values, e->hint[0] ? ". " : "", e->hint, e->id);
    return buf;
}
