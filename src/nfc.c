/* nfc.c - see nfc.h. */
#include "nfc.h"

#include <string.h>
#include <utf8proc.h>

#include "mem.h"
#include "utf8.h"

struct text { char *s; size_t n, cap; };
struct points { int32_t *c, *spare; size_t n, cap; };           /* code points; spare: as many, for sorting */

static bool text_room(struct text *t, size_t more, struct unmask_err *err)
{
    if (more <= t->cap - t->n) return true;
    const size_t cap = t->n + more + t->cap / 4;
    char *s = mem_resize(t->s, cap, 1, err);
    if (!s) return false;
    t->s = s;
    t->cap = cap;
    return true;
}

static bool points_room(struct points *p, size_t more, struct unmask_err *err)
{
    if (more <= p->cap - p->n) return true;
    const size_t cap = p->n + more + p->cap / 4;
    int32_t *c = mem_resize(p->c, cap, sizeof *c, err);
    if (c) p->c = c;
    int32_t *spare = c ? mem_resize(p->spare, cap, sizeof *spare, err) : NULL;
    if (!spare) return false;
    p->spare = spare;
    p->cap = cap;
    return true;
}

static int combining_class(int32_t c) { return utf8proc_get_property(c)->combining_class; }

/* Put n combining marks in the order of their classes (1 to 255), equal ones as they stand: one counting sort.
 * utf8proc's own insertion would take n^2 steps. */
static void sort_marks(int32_t *c, int32_t *spare, size_t n)
{
    size_t at[257] = { 0 };
    for (size_t i = 0; i < n; i++) at[combining_class(c[i]) + 1]++;
    for (int k = 0; k < 256; k++) at[k + 1] += at[k];
    for (size_t i = 0; i < n; i++) spare[at[combining_class(c[i])]++] = c[i];
    memcpy(c, spare, n * sizeof *c);
}

/* Canonical decomposition of s[0..n) with marks in canonical order. */
static bool decompose(struct points *p, const char *s, size_t n, struct unmask_err *err)
{
    enum { MOST = 8 };          /* a character decomposes into at most 4 */
    size_t marks = 0;           /* combining marks at the end of p */
    p->n = 0;
    for (size_t i = 0; i < n; ) {
        uint32_t cp = 0;
        int class_of_last = 0;
        i += utf8_decode(s + i, n - i, &cp);
        if (!points_room(p, MOST, err)) return false;
        const utf8proc_ssize_t got = utf8proc_decompose_char((int32_t)cp, p->c + p->n, MOST, UTF8PROC_STABLE | UTF8PROC_COMPOSE,
                                                             &class_of_last);
        if (got < 0 || got > MOST)
            return fail(err, E_INTERNAL, .what = utf8proc_errmsg(got), .found = FMT("U+%04X", (unsigned)cp));
        for (const size_t end = p->n + (size_t)got; p->n < end; p->n++) {
            if (combining_class(p->c[p->n]) > 0) { marks++; continue; }
            if (marks > 1) sort_marks(p->c + p->n - marks, p->spare, marks);
            marks = 0;
        }
    }
    if (marks > 1) sort_marks(p->c + p->n - marks, p->spare, marks);
    return true;
}

static bool put_normal(struct text *out, struct points *p, const char *s, size_t n, struct unmask_err *err)
{
    if (!decompose(p, s, n, err)) return false;
    const utf8proc_ssize_t left = utf8proc_normalize_utf32(p->c, (utf8proc_ssize_t)p->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (left < 0) return fail(err, E_INTERNAL, .what = utf8proc_errmsg(left));
    if (!text_room(out, (size_t)left * 4, err)) return false;
    for (utf8proc_ssize_t i = 0; i < left; i++) out->n += utf8_encode((uint32_t)p->c[i], out->s + out->n);
    return true;
}

static size_t ascii_run(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && (unsigned char)s[i] < 0x80) i++;
    return i;
}

/* ASCII is copied.  A run of other characters is normalized together with the one ASCII character before it, which
 * they may combine with; what follows the run is ASCII again and combines with nothing before it. */
bool nfc_normalize(const char *s, size_t n, char **out, size_t *n_out, struct unmask_err *err)
{
    struct text t = { 0 };
    struct points p = { 0 };
    bool ok = true;
    *out = NULL;
    if (ascii_run(s, n) == n) return true;
    ok = text_room(&t, n + n / 8, err);
    for (size_t i = 0; ok && i < n; ) {
        const size_t plain = ascii_run(s + i, n - i), copied = plain && i + plain < n ? plain - 1 : plain;
        ok = text_room(&t, copied, err);
        if (!ok) break;
        memcpy(t.s + t.n, s + i, copied);
        t.n += copied;
        i += copied;
        size_t end = i + (i < n);
        while (end < n && (unsigned char)s[end] >= 0x80) end++;
        if (end > i) ok = put_normal(&t, &p, s + i, end - i, err);
        i = end;
    }
    mem_free(p.c);
    mem_free(p.spare);
    if (!ok) {
        mem_free(t.s);
        return false;
    }
    *out = t.s;
    *n_out = t.n;
    return true;
}
