/* cmd_trace.c - see cmd_trace.h. */
#include "cmd_trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "file.h"

/* How every trace begins.  "step" alone would not do: logs of other programs have steps, too. */
static const char first_line[] = "{\"step\":0,\"canvas\":[";

/* Is there a file that a new trace may replace without being asked to?  (file_open() waits for no pipe.) */
static bool replaceable(const char *path)
{
    struct file f;
    char head[sizeof first_line] = "";
    if (!file_open(&f, path, NULL)) return false;
    const size_t n = f.size < sizeof head ? (size_t)f.size : sizeof head - 1;
    const bool ok = file_read(&f, 0, head, n, NULL) && (n == 0 || !strcmp(head, first_line));
    file_close(&f);
    return ok;
}

bool trace_open(struct outfile *o, const char *path, bool force, struct unmask_err *err)
{
    return outfile_open(o, path, force || replaceable(path), 0, err);
}

/* A line on its way to the file, in pieces. */
struct line { struct outfile *out; char s[4096]; size_t n; bool ok; struct unmask_err *err; };

static void flush(struct line *l)
{
    l->ok = l->ok && outfile_write(l->out, l->s, l->n, l->err);
    l->n = 0;
}

__attribute__((format(printf, 2, 3))) static void put(struct line *l, const char *fmt, ...)
{
    enum { LONGEST = 64 };
    if (l->n + LONGEST > sizeof l->s) flush(l);
    va_list ap;
    va_start(ap, fmt);
    l->n += (size_t)vsnprintf(l->s + l->n, LONGEST, fmt, ap);
    va_end(ap);
}

bool trace_step(struct outfile *o, const struct unmask_step *step, struct unmask_err *err)
{
    struct line l = { .out = o, .ok = true, .err = err };
    put(&l, "{\"step\":%d,\"canvas\":[", step->step);
    for (int i = 0; i < step->n_canvas; i++) put(&l, "%s%d", i ? "," : "", step->canvas[i]);
    put(&l, "],\"committed\":[");
    for (int i = 0; i < step->n_committed; i++) put(&l, "%s%d", i ? "," : "", step->committed[i]);
    put(&l, "],\"confidence\":[");
    for (int i = 0; i < step->n_committed; i++) put(&l, "%s%.9g", i ? "," : "", (double)step->confidence[i]);
    put(&l, "]}\n");
    flush(&l);
    return l.ok;
}
