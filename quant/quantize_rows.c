/* quantize_rows.c - convert tensors and append them to the output, a chunk of rows at a time.  Workers read their own rows
 * of the chunk; chunks and items are cut by size alone, so that sums and bytes are the same on any number of threads. */
#include "quantize_parts.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "mem.h"

enum {
    ITEM_VALUES = 1 << 15,      /* what a worker takes at a time, in values: at least one row */
    CHUNK_VALUES = 1 << 20,     /* what lies in memory at a time                              */
};

/* Values that cannot be written: how many, and the first one. */
struct bad_values { uint64_t n, first; float value; };

struct item {
    struct bad_values nonfinite, overflow;
    double error2, sum2;
    bool ok;
    struct unmask_err err;
};

struct scratch { uint8_t *raw; float *x, *y; };

struct chunk {
    const struct piece *p;
    int head_dim;
    uint64_t row0, n_rows, item_rows;
    uint8_t *out;               /* n_rows in the output's format and order */
    struct item *items;
    struct scratch *scratch;    /* by worker */
};

static uint64_t row_bytes(const struct quant_format *f, uint64_t k) { return k / (uint64_t)f->block * (uint64_t)f->block_bytes; }
static uint64_t item_rows(const struct piece *p) { return p->k < ITEM_VALUES ? ITEM_VALUES / p->k : 1; }

/* Rows move inside their head, so a chunk of rotated rows holds whole heads. */
static uint64_t chunk_rows(const struct piece *p, int head_dim)
{
    const uint64_t unit = p->rotate ? (uint64_t)head_dim : 1, rows = p->k < CHUNK_VALUES ? CHUNK_VALUES / p->k : 1;
    return rows < unit ? unit : rows / unit * unit;
}

static void find_nonfinite(const float *x, uint64_t k, const float *source, uint64_t first, struct bad_values *bad)
{
    for (uint64_t i = 0; i < k; i++)
        if (!isfinite(x[i]) && bad->n++ == 0) {
            bad->first = first + i;
            bad->value = source[i];
        }
}

static void convert_row(const struct piece *p, uint64_t row, const uint8_t *raw, uint8_t *dst, const struct scratch *s, struct item *it)
{
    const uint64_t bad_before = it->nonfinite.n;
    const bool same = p->from->format == p->to;
    p->from->format->dequantize_row(s->x, raw, (size_t)p->k);
    find_nonfinite(s->x, p->k, s->x, row * p->k, &it->nonfinite);
    if (it->nonfinite.n > bad_before) return;
    if (same) memcpy(dst, raw, (size_t)row_bytes(p->to, p->k));
    else p->to->quantize_row(dst, s->x, (size_t)p->k);
    p->to->dequantize_row(s->y, dst, (size_t)p->k);
    find_nonfinite(s->y, p->k, s->x, row * p->k, &it->overflow);
    for (uint64_t i = 0; p->matrix && i < p->k; i++) {
        const double x = (double)s->x[i], e = (double)s->y[i] - x;
        it->error2 += e * e;
        it->sum2 += x * x;
    }
}

static void convert_item(void *arg, int item, int worker)
{
    const struct chunk *c = arg;
    const struct piece *p = c->p;
    const struct scratch *s = &c->scratch[worker];
    struct item *it = &c->items[item];
    const uint64_t first = (uint64_t)item * c->item_rows, left = c->n_rows - first, n = left < c->item_rows ? left : c->item_rows;
    const uint64_t in_bytes = row_bytes(p->from->format, p->k), out_bytes = row_bytes(p->to, p->k);
    *it = (struct item){ 0 };
    it->ok = checkpoint_read(p->from, (c->row0 + first) * in_bytes, s->raw, (size_t)(n * in_bytes), &it->err);
    for (uint64_t r = first; it->ok && r < first + n; r++) {
        const uint64_t to = p->rotate ? (uint64_t)arch_rotated_row((int)r, c->head_dim) : r;
        convert_row(p, c->row0 + r, s->raw + (r - first) * in_bytes, c->out + to * out_bytes, s, it);
    }
}

static void add_bad(struct bad_values *sum, const struct bad_values *b)
{
    const uint64_t n = sum->n + b->n;
    if (sum->n == 0) *sum = *b;
    sum->n = n;
}

static bool refuse(const struct quantize_job *j, const struct piece *p, const struct item *sum, struct unmask_err *err)
{
    const bool overflow = !sum->nonfinite.n;
    const struct bad_values *b = overflow ? &sum->overflow : &sum->nonfinite;
    const uint64_t row = b->first / p->from->shape[0], column = b->first % p->from->shape[0];
    if (!b->n) return true;
    return fail(err, overflow ? E_QNT_OVERFLOW : E_TENSOR_VALUE, .file = p->from->file->path, .field = p->from->name,
                .found = FMT("%g at row %" PRIu64 ", column %" PRIu64 "; %" PRIu64 " such values", (double)b->value, row, column, b->n),
                .need = overflow ? FMT("values that %s can hold", p->to->name) : "finite numbers",
                .hint = overflow ? (j->o->format->block > 1 || p->to == &format_f16 ? "Choose bf16 or f32" : "Choose f32") : "The weights are damaged: fetch them again");
}

/* One tensor.  After a bad value the rest is still looked through, to say how many there are, and not written. */
static bool convert_piece(struct quantize_job *j, struct piece *p, struct chunk *c, struct unmask_err *err)
{
    const uint64_t most = chunk_rows(p, j->h.head_dim);
    struct sha256_ctx sha;
    struct outfile *out = &j->shards[p->shard].out;
    struct item sum = { 0 };
    sha256_init(&sha);
    c->p = p;
    c->item_rows = item_rows(p);
    for (c->row0 = 0; c->row0 < p->n_rows; c->row0 += c->n_rows) {
        c->n_rows = p->n_rows - c->row0 < most ? p->n_rows - c->row0 : most;
        const int n_items = (int)((c->n_rows + c->item_rows - 1) / c->item_rows);
        pool_run(j->pool, convert_item, c, n_items);
        for (int i = 0; i < n_items; i++) {
            const struct item *it = &c->items[i];
            if (!it->ok) {
                if (err) *err = it->err;
                return false;
            }
            add_bad(&sum.nonfinite, &it->nonfinite);
            add_bad(&sum.overflow, &it->overflow);
            j->error2 += it->error2;
            j->sum2 += it->sum2;
        }
        const size_t bytes = (size_t)(c->n_rows * row_bytes(p->to, p->k));
        if (!sum.nonfinite.n && !sum.overflow.n) {
            sha256_update(&sha, bytes, c->out);
            if (!outfile_write(out, c->out, bytes, err)) return false;
        }
        j->done += c->n_rows * row_bytes(p->from->format, p->k);
        if (!quantize_tell(j, QUANTIZE_CONVERTING, p->name, err)) return false;
    }
    checksum_end(&sha, &p->sha256);
    return refuse(j, p, &sum, err) && gguf_write_padding(out, err);
}

/* Memory for the largest chunk and, by worker, the largest item. */
static bool allocate(const struct quantize_job *j, struct chunk *c, struct unmask_err *err)
{
    uint64_t values = 0, out = 0, items = 0;
    const size_t workers = (size_t)pool_threads(j->pool);
    for (size_t i = 0; i < j->n_pieces; i++) {
        const struct piece *p = &j->pieces[i];
        const uint64_t each = item_rows(p), rows = chunk_rows(p, j->h.head_dim), bytes = rows * row_bytes(p->to, p->k);
        const uint64_t n = (rows + each - 1) / each;
        if (each * p->k > values) values = each * p->k;
        if (bytes > out) out = bytes;
        if (n > items) items = n;
    }
    c->head_dim = j->h.head_dim;
    if (!(c->out = mem_aligned((size_t)out, err)) || !(c->items = mem_zalloc((size_t)items, sizeof *c->items, err))
        || !(c->scratch = mem_zalloc(workers, sizeof *c->scratch, err))) return false;
    for (size_t w = 0; w < workers; w++) {
        float *x = mem_aligned((size_t)values * 3 * sizeof *x, err);            /* no format takes more than four bytes a value */
        if (!x) return false;
        c->scratch[w] = (struct scratch){ .x = x, .y = x + values, .raw = (uint8_t *)(x + 2 * values) };
    }
    return true;
}

bool quantize_rows(struct quantize_job *j, struct unmask_err *err)
{
    struct chunk c = { 0 };
    bool ok = allocate(j, &c, err);
    for (size_t i = 0; ok && i < j->n_pieces; i++) ok = convert_piece(j, &j->pieces[i], &c, err);
    for (int w = 0; c.scratch && w < pool_threads(j->pool); w++) mem_free(c.scratch[w].x);
    mem_free(c.scratch);
    mem_free(c.items);
    mem_free(c.out);
    j->report->relative_error = j->sum2 > 0 ? sqrt(j->error2 / j->sum2) : 0;
    return ok;
}
