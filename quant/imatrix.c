/* imatrix.c - see imatrix.h.  The binary form, all little-endian:
 *     i32 entries; each: i32 length, name, i32 calls, i32 columns, f32 squares[columns] (times calls)
 *     and in newer files  i32 chunks; i32 length, name of the text
 * In GGUF: general.type "imatrix", imatrix.datasets, .chunk_count, .chunk_size; for each matrix NAME.in_sum2, sums of squares, and
 * NAME.counts, how many inputs they are of. */
#include "imatrix.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "gguf.h"
#include "mem.h"

enum { MOST_BYTES = 256 << 20, MOST_COLUMNS = 1 << 24, LEAST_ENTRY = 16 };     /* bytes: lengths, and one square */

static const char sums[] = ".in_sum2", counts[] = ".counts";

void imatrix_free(struct imatrix *m)
{
    for (size_t i = 0; i < m->n; i++) mem_free(m->entries[i].squares);
    mem_free(m->entries);
    names_free(&m->names);
    *m = (struct imatrix){ 0 };
}

const struct imatrix_entry *imatrix_find(const struct imatrix *m, const char *name)
{
    size_t i;
    return names_find(&m->names, name, strlen(name), &i) ? &m->entries[i] : NULL;
}

bool imatrix_init(struct imatrix *m, size_t n, struct unmask_err *err)
{
    return (m->entries = mem_zalloc(n, sizeof *m->entries, err)) && names_init(&m->names, n, err);
}

bool imatrix_add(struct imatrix *m, const char *name, const float *squares, size_t k, struct unmask_err *err)
{
    struct imatrix_entry *e = &m->entries[m->n];
    size_t i = m->n;
    *e = (struct imatrix_entry){ .k = k };
    snprintf(e->name, sizeof e->name, "%s", name);
    if (!names_add(&m->names, e->name, strlen(e->name), &i))
        return fail(err, E_QNT_IMATRIX, .field = name, .found = FMT("entries %zu and %zu of this name", i + 1, m->n + 1),
                    .need = "each name once");
    if (!(e->squares = mem_resize(NULL, k, sizeof *squares, err))) return false;
    memcpy(e->squares, squares, k * sizeof *squares);
    m->n++;
    return true;
}

static bool check_values(const char *path, const char *name, const float *x, size_t k, struct unmask_err *err)
{
    for (size_t i = 0; i < k; i++)
        if (!(x[i] >= 0 && x[i] < INFINITY))
            return fail(err, E_QNT_IMATRIX, .file = path, .field = name,
                        .found = FMT("%g at column %zu", (double)x[i], i), .need = "finite numbers, none below 0");
    return true;
}

/* ---- the binary form ---- */

static bool short_name(struct cursor *c, char *dst, size_t size)
{
    uint32_t n = 0;
    const uint8_t *text = cursor_u32(c, &n) && n < size ? cursor_take(c, n) : NULL;
    if (!text || memchr(text, 0, n)) return false;
    memcpy(dst, text, n);
    dst[n] = 0;
    return true;
}

static bool cut_short(const char *path, const struct cursor *c, struct unmask_err *err)
{
    return fail(err, E_QNT_IMATRIX, .file = path, .byte = AT(cursor_offset(c)),
                .found = "an entry that is cut short or no entry", .need = "an importance file of llama.cpp: .dat or GGUF");
}

static bool read_entry(struct imatrix *m, struct cursor *c, const char *path, struct unmask_err *err)
{
    struct imatrix_entry e;
    uint32_t calls, k;
    if (!short_name(c, e.name, sizeof e.name) || !cursor_u32(c, &calls) || !cursor_u32(c, &k)
        || k == 0 || k > MOST_COLUMNS || cursor_left(c) < (uint64_t)k * sizeof(float))
        return cut_short(path, c, err);
    float *x = mem_resize(NULL, k, sizeof *x, err);
    if (!x) return false;
    cursor_bytes(c, x, k * sizeof *x);
    for (uint32_t i = 0; calls > 1 && i < k; i++) x[i] /= (float)calls;
    const bool ok = check_values(path, e.name, x, k, err) && (imatrix_add(m, e.name, x, k, err) || err_within(err, path));
    mem_free(x);
    return ok;
}

static bool read_binary(struct imatrix *m, const char *path, struct unmask_err *err)
{
    char *text;
    size_t size;
    uint32_t n = 0;
    if (!file_slurp(path, MOST_BYTES, &text, &size, err)) return false;
    struct cursor c = cursor_over(text, size);
    bool ok = (cursor_u32(&c, &n) && n > 0 && n < 1 << 20 && n <= cursor_left(&c) / LEAST_ENTRY) || cut_short(path, &c, err);
    ok = ok && imatrix_init(m, n, err);
    for (uint32_t i = 0; ok && i < n; i++) ok = read_entry(m, &c, path, err);
    if (ok && cursor_left(&c) > 0 && (!cursor_u32(&c, &m->chunks) || !short_name(&c, m->dataset, sizeof m->dataset)))
        ok = cut_short(path, &c, err);
    mem_free(text);
    return ok;
}

/* ---- GGUF ---- */

static bool read_floats(const struct tensor *t, const char *path, float **x, size_t *n, struct unmask_err *err)
{
    *n = (size_t)(t->bytes / sizeof **x);
    if (t->format != &format_f32 || *n == 0 || *n > MOST_COLUMNS)
        return fail(err, E_QNT_IMATRIX, .file = path, .field = t->name, .found = t->format->name, .need = "float32 numbers");
    return (*x = mem_resize(NULL, *n, sizeof **x, err)) && checkpoint_read(t, 0, *x, *n * sizeof **x, err);
}

/* Of experts there are several rows; a model here has one. */
static bool read_pair(struct imatrix *m, const struct checkpoint *c, const struct tensor *t, struct unmask_err *err)
{
    char name[64], other[80];
    const size_t n_name = strlen(t->name) - (sizeof sums - 1);
    float *x = NULL, *count = NULL;
    size_t k = 0, one = 0;
    if (n_name >= sizeof name) return fail(err, E_QNT_IMATRIX, .file = c->path, .field = t->name, .found = "a name that is too long");
    snprintf(name, sizeof name, "%.*s", (int)n_name, t->name);
    snprintf(other, sizeof other, "%s%s", name, counts);
    const struct tensor *tc = checkpoint_tensor(c, other);
    bool ok = (tc && tc->bytes == sizeof(float))
              || fail(err, E_QNT_IMATRIX, .file = c->path, .field = other, .found = tc ? "several counts" : "no such tensor",
                      .need = "one count");
    ok = ok && read_floats(t, c->path, &x, &k, err) && read_floats(tc, c->path, &count, &one, err);
    if (ok && !(count[0] > 0 && count[0] < INFINITY))
        ok = fail(err, E_QNT_IMATRIX, .file = c->path, .field = other, .found = FMT("%g", (double)count[0]), .need = "a number above 0");
    for (size_t i = 0; ok && i < k; i++) x[i] /= count[0];
    ok = ok && check_values(c->path, t->name, x, k, err) && imatrix_add(m, name, x, k, err);
    mem_free(x);
    mem_free(count);
    return ok;
}

static bool read_gguf(struct imatrix *m, const char *path, struct unmask_err *err)
{
    struct checkpoint *c = NULL;
    struct str type = { "", 0 }, name;
    int64_t chunks = 0, size = 0;
    uint64_t at = 0;
    bool ok = checkpoint_open(&c, path, err) && meta_str(c, "general.type", false, &type, err)
        && meta_int(c, "imatrix.chunk_count", 0, UINT32_MAX, false, &chunks, err)
        && meta_int(c, "imatrix.chunk_size", 0, UINT32_MAX, false, &size, err);
    if (ok && (type.n != 7 || memcmp(type.s, "imatrix", 7) != 0))
        ok = fail(err, E_QNT_IMATRIX, .file = path, .field = "general.type",
                  .found = type.n ? QUOTE(type.s, type.n) : "a file without type", .need = "imatrix");
    ok = ok && imatrix_init(m, c->n_tensors, err);
    for (size_t i = 0; ok && i < c->n_tensors; i++) {
        const char *t = c->tensors[i].name;
        const size_t n = strlen(t), tail = sizeof sums - 1;
        if (n > tail && !strcmp(t + n - tail, sums)) ok = read_pair(m, c, &c->tensors[i], err);
    }
    const struct meta *sets = ok ? checkpoint_meta(c, "imatrix.datasets") : NULL;
    if (sets && sets->type == META_ARRAY && sets->item_type == META_STRING && meta_next_string(sets, &at, &name))
        snprintf(m->dataset, sizeof m->dataset, "%.*s", (int)(name.n < 120 ? name.n : 120), name.s);
    m->chunks = (uint32_t)chunks;
    m->chunk_size = (uint32_t)size;
    if (ok && m->n == 0) ok = fail(err, E_QNT_IMATRIX, .file = path, .found = "no importance of any matrix");
    checkpoint_close(c);
    return ok;
}

bool imatrix_read(struct imatrix *m, const char *path, struct unmask_err *err)
{
    struct file f;
    char magic[4] = "";
    *m = (struct imatrix){ 0 };
    if (!file_open(&f, path, err)) return false;
    const bool gguf = f.size >= 4 && file_read(&f, 0, magic, 4, err) && !memcmp(magic, "GGUF", 4);
    file_close(&f);
    const bool ok = gguf ? read_gguf(m, path, err) : read_binary(m, path, err);
    if (!ok) imatrix_free(m);
    return ok;
}

static bool put_metas(struct gguf_writer *w, const struct imatrix *m, struct unmask_err *err)
{
    const struct str set = str_of(m->dataset);
    return gguf_put_str(w, "general.type", str_of("imatrix"), err) && gguf_put_strs(w, "imatrix.datasets", &set, 1, err)
        && gguf_put_u32(w, "imatrix.chunk_count", m->chunks, err) && gguf_put_u32(w, "imatrix.chunk_size", m->chunk_size, err);
}

bool imatrix_write(const struct imatrix *m, struct outfile *o, struct unmask_err *err)
{
    static const float one = 1;
    struct gguf_writer *w = NULL;
    bool ok = gguf_writer_new(&w, err) && put_metas(w, m, err);
    for (size_t i = 0; ok && i < m->n; i++) {
        const uint64_t shape[4] = { m->entries[i].k, 1, 1, 1 }, single[4] = { 1, 1, 1, 1 };
        ok = gguf_put_tensor(w, FMT("%s%s", m->entries[i].name, sums), &format_f32, 2, shape, err)
            && gguf_put_tensor(w, FMT("%s%s", m->entries[i].name, counts), &format_f32, 2, single, err);
    }
    ok = ok && gguf_write_header(w, o, err);
    for (size_t i = 0; ok && i < m->n; i++)
        ok = outfile_write(o, m->entries[i].squares, m->entries[i].k * sizeof(float), err) && gguf_write_padding(w, o, err)
            && outfile_write(o, &one, sizeof one, err) && gguf_write_padding(w, o, err);
    gguf_writer_free(w);
    return ok;
}
