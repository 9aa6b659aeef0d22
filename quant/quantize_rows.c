/* quantize_rows.c - convert tensors and append them to the output, a chunk of rows at a time.  Workers read their own rows
 * of the chunk; chunks and items are cut by size alone, so that sums and bytes are the same on any number of threads. */
#include "quantize_parts.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "f16.h"
#include "feedback.h"
#include "mem.h"

enum {
    ITEM_VALUES = 1 << 15,      /* what a worker takes at a time, in values: at least one row */
    CHUNK_VALUES = 1 << 20,     /* what lies in memory at a time ...                          */
    CHUNK_ITEMS = 8,            /* ... but so many items at least where rows are rounded with feedback */
};

/* Values that cannot be written: how many, and the first one. */
struct bad_values { uint64_t n, first; float value; };

/* Sums over values x as read and x + e as written; over outputs y of the calibration's inputs and their errors. */
struct loss { double ee, xx, xe, worst_ee; uint64_t worst_block; double out_ee, out_plain, out_yy; };

struct item {
    struct bad_values nonfinite, overflow;
    struct loss loss;
    bool ok;
    struct unmask_err err;
};

struct scratch { uint8_t *raw; float *x, *y; void *feedback; };

struct chunk {
    const struct piece *p;
    const struct kernels *kernels;              /* for feedback: with the factored moments of the piece */
    const struct moments *moments;
    const float *importance;                    /* [k], or NULL */
    bool measure;
    int head_dim;
    uint64_t row0, n_rows, item_rows;
    uint8_t *out, *tiles;       /* n_rows in the output's format and order; the same as tiles */
    struct item *items;
    struct scratch *scratch;    /* by worker */
};

static uint64_t item_rows(const struct piece *p)
{
    return p->method == BY_FEEDBACK ? FEEDBACK_ROWS : p->k < ITEM_VALUES ? ITEM_VALUES / p->k : 1;
}

static uint64_t chunk_rows(const struct piece *p, int head_dim)
{
    const uint64_t unit = layout_unit(p, head_dim), full = p->k < CHUNK_VALUES ? CHUNK_VALUES / p->k : 1;
    const uint64_t least = p->method == BY_FEEDBACK ? CHUNK_ITEMS * FEEDBACK_ROWS : 1, rows = full < least ? least : full;
    return rows < unit ? unit : rows / unit * unit;
}

static void find_nonfinite(const float *x, uint64_t k, const float *source, uint64_t first, struct bad_values *bad)
{
    for (size_t i = 0; (i = f32_nonfinite(x, i, (size_t)k)) < k; i++)
        if (bad->n++ == 0) {
            bad->first = first + i;
            bad->value = source[i];
        }
}

/* Values of a block in which the worst error is looked for. */
static uint64_t loss_block(const struct piece *p) { return p->to->block > 1 ? (uint64_t)p->to->block : QBLOCK; }

/* Four sums of each kind side by side, because one would wait for itself. */
struct sums { double ee[4], xx[4], xe[4]; };

static inline void add_value(struct sums *s, int lane, float x, float y)
{
    const double v = (double)x, e = (double)y - v;
    s->ee[lane] += e * e;
    s->xx[lane] += v * v;
    s->xe[lane] += v * e;
}

static double fold(const double s[4]) { return (s[0] + s[1]) + (s[2] + s[3]); }

/* One row, block by block. */
static void add_loss(struct loss *l, const float *x, const float *y, uint64_t k, uint64_t block, uint64_t first_block)
{
    for (uint64_t at = 0, b = first_block, n; at < k; at += n, b++) {
        struct sums s = { { 0 }, { 0 }, { 0 } };
        n = k - at < block ? k - at : block;
        uint64_t i = at;
        for (; at + n - i >= 4; i += 4)
            for (int lane = 0; lane < 4; lane++) add_value(&s, lane, x[i + (uint64_t)lane], y[i + (uint64_t)lane]);
        for (; i < at + n; i++) add_value(&s, 0, x[i], y[i]);
        const double ee = fold(s.ee);
        l->ee += ee;
        l->xx += fold(s.xx);
        l->xe += fold(s.xe);
        if (ee > l->worst_ee) {
            l->worst_ee = ee;
            l->worst_block = b;
        }
    }
}

static void merge_loss(struct loss *sum, const struct loss *l)
{
    sum->ee += l->ee;
    sum->xx += l->xx;
    sum->xe += l->xe;
    if (l->worst_ee > sum->worst_ee) {
        sum->worst_ee = l->worst_ee;
        sum->worst_block = l->worst_block;
    }
    sum->out_ee += l->out_ee;
    sum->out_plain += l->out_plain;
    sum->out_yy += l->out_yy;
}

static void tell_loss(struct quantize_job *j, const struct piece *p, const struct loss *l)
{
    const double n = (double)(p->n_rows * p->k), yy = l->xx + 2 * l->xe + l->ee;       /* |x + e|^2 */
    if (p->matrix) {
        j->error2 += l->ee;
        j->sum2 += l->xx;
    }
    if (!j->o->on_tensor) return;
    j->o->on_tensor(j->o->user, &(struct quantize_tensor){
        .name = p->name, .from = p->from->format, .to = p->to, .why = p->why,
        .method = quantize_methods[p->method], .bytes = p->bytes, .rmse = sqrt(l->ee / n),
        .relative_error = l->xx > 0 ? sqrt(l->ee / l->xx) : 0, .cosine = l->xx > 0 && yy > 0 ? (l->xx + l->xe) / sqrt(l->xx * yy) : 1,
        .output_error = l->out_yy > 0 ? sqrt(l->out_ee / l->out_yy) : (double)NAN,
        .output_error_plain = l->out_yy > 0 ? sqrt(l->out_plain / l->out_yy) : (double)NAN,
        .worst_rmse = sqrt(l->worst_ee / (double)loss_block(p)), .worst_block = l->worst_block });
}

/* False: there are values in x that are no numbers. */
static bool read_row(const struct piece *p, uint64_t row, const uint8_t *raw, float *x, struct item *it)
{
    const uint64_t bad_before = it->nonfinite.n;
    p->from->format->dequantize_row(x, raw, (size_t)p->k);
    find_nonfinite(x, p->k, x, row * p->k, &it->nonfinite);
    return it->nonfinite.n == bad_before;
}

static void look_at_row(const struct piece *p, uint64_t row, const uint8_t *dst, const float *x, float *y, struct item *it)
{
    p->to->dequantize_row(y, dst, (size_t)p->k);
    find_nonfinite(y, p->k, x, row * p->k, &it->overflow);
    add_loss(&it->loss, x, y, p->k, loss_block(p), row * ((p->k + loss_block(p) - 1) / loss_block(p)));
}

static void convert_row(const struct chunk *c, uint64_t row, const uint8_t *raw, uint8_t *dst, const struct scratch *s, struct item *it)
{
    const struct piece *p = c->p;
    if (!read_row(p, row, raw, s->x, it)) return;
    if (p->from->format == p->to) memcpy(dst, raw, quant_row_bytes(p->to, p->k));
    else if (p->method == BY_PLAIN) p->to->quantize_row(dst, s->x, (size_t)p->k);
    else p->to->search_row(dst, s->x, p->method == BY_IMPORTANCE ? c->importance : NULL, (size_t)p->k);
    look_at_row(p, row, dst, s->x, s->y, it);
}

/* What the rows give, and what plain rounding would do to that; dst is lent for the blocks. */
static void measure_plain(const struct chunk *c, int n, uint8_t *block_row, const struct scratch *s, struct item *it)
{
    const struct piece *p = c->p;
    const size_t k = (size_t)p->k;
    it->loss.out_yy += feedback_cost(c->moments, c->kernels, s->x, n, (int)k, s->feedback);
    for (size_t r = 0; r < (size_t)n; r++) {
        p->to->quantize_row(block_row, s->x + r * k, k);
        p->to->dequantize_row(s->y, block_row, k);
        for (size_t i = 0; i < k; i++) s->x[r * k + i] -= s->y[i];
    }
    it->loss.out_plain += feedback_cost(c->moments, c->kernels, s->x, n, (int)k, s->feedback);
}

/* Rows that are rounded together; dst of each. */
static void convert_rows(const struct chunk *c, uint64_t row, int n, uint8_t *const *dst, const struct scratch *s, struct item *it)
{
    const struct piece *p = c->p;
    const uint64_t bytes = quant_row_bytes(p->from->format, p->k);
    bool ok = true;
    for (int r = 0; r < n; r++) ok &= read_row(p, row + (uint64_t)r, s->raw + (uint64_t)r * bytes, s->x + (uint64_t)r * p->k, it);
    if (!ok) return;
    feedback_rows(c->moments, c->kernels, p->to, s->x, n, (int)p->k, dst, s->feedback, &it->loss.out_ee);
    for (int r = 0; r < n; r++) look_at_row(p, row + (uint64_t)r, dst[r], s->x + (uint64_t)r * p->k, s->y, it);
    if (c->measure) measure_plain(c, n, s->raw, s, it);
}

static void convert_item(void *arg, int item, int worker)
{
    const struct chunk *c = arg;
    const struct piece *p = c->p;
    const struct scratch *s = &c->scratch[worker];
    struct item *it = &c->items[item];
    const uint64_t first = (uint64_t)item * c->item_rows, left = c->n_rows - first, n = left < c->item_rows ? left : c->item_rows;
    const uint64_t in_bytes = quant_row_bytes(p->from->format, p->k), out_bytes = quant_row_bytes(p->to, p->k);
    *it = (struct item){ 0 };
    it->ok = p->matrix ? checkpoint_read_rows(p->from, c->row0 + first, n, s->raw, &it->err)
                       : checkpoint_read(p->from, (c->row0 + first) * in_bytes, s->raw, (size_t)(n * in_bytes), &it->err);
    uint8_t *dst[FEEDBACK_ROWS];
    for (uint64_t r = first; it->ok && r < first + n; r++) {
        uint8_t *at = c->out + layout_row(p, r, c->head_dim) * out_bytes;
        if (p->method == BY_FEEDBACK) dst[r - first] = at;
        else convert_row(c, c->row0 + r, s->raw + (r - first) * in_bytes, at, s, it);
    }
    if (it->ok && p->method == BY_FEEDBACK) convert_rows(c, c->row0 + first, (int)n, dst, s, it);
}

static void add_bad(struct bad_values *sum, const struct bad_values *b)
{
    const uint64_t n = sum->n + b->n;
    if (sum->n == 0) *sum = *b;
    sum->n = n;
}

static bool refuse(const struct piece *p, const struct item *sum, struct unmask_err *err)
{
    const bool overflow = !sum->nonfinite.n;
    const struct bad_values *b = overflow ? &sum->overflow : &sum->nonfinite;
    const uint64_t row = b->first / p->from->shape[0], column = b->first % p->from->shape[0];
    if (!b->n) return true;
    return fail(err, overflow ? E_QNT_OVERFLOW : E_TENSOR_VALUE, .file = p->from->file->path, .field = p->from->name,
                .found = FMT("%g at row %" PRIu64 ", column %" PRIu64 "; %" PRIu64 " such values", (double)b->value, row, column, b->n),
                .need = overflow ? FMT("values that %s can hold", p->to->name) : "finite numbers",
                .hint = overflow ? (p->to->block > 1 || p->to == &format_f16 ? "Choose bf16 or f32" : "Choose f32")
                                 : "The weights are damaged: fetch them again");
}

/* One tensor.  After a bad value the rest is still looked through, to say how many there are, and not written. */
static bool convert_piece(struct quantize_job *j, struct piece *p, struct chunk *c, struct unmask_err *err)
{
    const uint64_t most = chunk_rows(p, j->h.head_dim);
    struct sha256_ctx sha;
    struct outfile *out = &j->shards[p->shard].out;
    struct item sum = { 0 };
    sha256_init(&sha);
    if (quantize_needs_calibration(j, p) && !quantize_calibrate(j, p, &c->moments, &c->importance, err)) return false;
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
            merge_loss(&sum.loss, &it->loss);
        }
        if (!sum.nonfinite.n && !sum.overflow.n) {
            const size_t bytes = p->packed ? layout_pack(j, p, c->out, c->n_rows, c->tiles) : c->n_rows * quant_row_bytes(p->to, p->k);
            const uint8_t *from = p->packed ? c->tiles : c->out;
            sha256_update(&sha, bytes, from);
            if (!outfile_write(out, from, bytes, err)) return false;
        }
        j->done += c->n_rows * quant_row_bytes(p->from->format, p->k);
        if (!quantize_tell(j, QUANTIZE_CONVERTING, p->name, err)) return false;
    }
    checksum_end(&sha, &p->sha256);
    if (!refuse(p, &sum, err)) return false;
    tell_loss(j, p, &sum.loss);
    return gguf_write_padding(j->shards[p->shard].writer, out, err);
}

/* What the largest chunk needs, and the largest item. */
struct needs { uint64_t out, tiles, items, values, feedback; };

static struct needs measure(const struct quantize_job *j)
{
    struct needs most = { 0 };
    for (size_t i = 0; i < j->n_pieces; i++) {
        const struct piece *p = &j->pieces[i];
        const uint64_t each = item_rows(p), rows = chunk_rows(p, j->h.head_dim), bytes = rows * quant_row_bytes(p->to, p->k);
        const uint64_t n = (rows + each - 1) / each;
        const uint64_t tiles = p->packed ? (rows + TILE_N - 1) / TILE_N * p->packed->tile_bytes((int)p->k) : 0;
        if (tiles > most.tiles) most.tiles = tiles;
        if (each * p->k > most.values) most.values = each * p->k;
        if (bytes > most.out) most.out = bytes;
        if (n > most.items) most.items = n;
        const uint64_t feedback = p->method == BY_FEEDBACK ? feedback_scratch(p->to, (int)p->k) : 0;
        if (feedback > most.feedback) most.feedback = feedback;
    }
    return most;
}

/* By worker: x, y and the raw bytes of an item, of which no format takes more than four a value. */
static uint64_t scratch_bytes(const struct needs *n) { return ((n->values * 3 * sizeof(float) + 63) & ~(uint64_t)63) + n->feedback; }

uint64_t quantize_rows_memory(const struct quantize_job *j, int workers)
{
    const struct needs n = measure(j);
    return n.out + n.tiles + n.items * sizeof(struct item) + (uint64_t)workers * scratch_bytes(&n);
}

static bool allocate(const struct quantize_job *j, struct chunk *c, struct unmask_err *err)
{
    const struct needs n = measure(j);
    const size_t workers = (size_t)pool_threads(j->pool);
    c->head_dim = j->h.head_dim;
    c->measure = j->o->measure;
    c->kernels = j->calibration ? quantize_kernels(j) : NULL;
    if (!(c->out = mem_aligned((size_t)n.out, err)) || !(c->tiles = mem_aligned((size_t)n.tiles, err))
        || !(c->items = mem_zalloc((size_t)n.items, sizeof *c->items, err))
        || !(c->scratch = mem_zalloc(workers, sizeof *c->scratch, err))) return false;
    for (size_t w = 0; w < workers; w++) {
        float *x = mem_aligned((size_t)scratch_bytes(&n), err);
        if (!x) return false;
        c->scratch[w] = (struct scratch){ .x = x, .y = x + n.values, .raw = (uint8_t *)(x + 2 * n.values),
                                          .feedback = (uint8_t *)x + (scratch_bytes(&n) - n.feedback) };
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
    mem_free(c.tiles);
    mem_free(c.out);
    j->report->relative_error = j->sum2 > 0 ? sqrt(j->error2 / j->sum2) : 0;
    return ok;
}
