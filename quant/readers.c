/* readers.c - see readers.h.  The first layer stands for all: a row of the embedding is in what each layer reads, but the first
 * one's matrices are the only ones that it meets alone.  Those of all layers together gained 2.5 points more on the demo model's
 * questions, lost 0.8 on stories, and would have to be read twice. */
#include "readers.h"

#include "mem.h"

struct readers {
    const struct arch *arch;
    const struct checkpoint *c;
    const struct hparams *h;
    const struct kernels *kernels;
    struct pool *pool;
    struct moments *moments;
    float *norm, *rows;                         /* [n_embd] and [MOMENT_ROWS][n_embd] */
    uint8_t *raw;
};

static bool read_norm(struct readers *r, enum tensor_role role, struct unmask_err *err)
{
    const struct tensor *t = arch_tensor(r->arch, r->c, r->h, role, 0, err);
    if (!t || !checkpoint_read(t, 0, r->raw, (size_t)t->bytes, err)) return false;
    t->format->dequantize_row(r->norm, r->raw, (size_t)r->h->n_embd);
    return true;
}

static bool add_reader(struct readers *r, enum tensor_role role, struct unmask_err *err)
{
    const struct tensor *t = arch_tensor(r->arch, r->c, r->h, role, 0, err);
    const size_t k = (size_t)r->h->n_embd;
    const uint64_t n_rows = t ? tensor_rows(t) : 0;
    bool ok = t != NULL;
    for (uint64_t row = 0, n; ok && row < n_rows; row += n) {
        n = n_rows - row < MOMENT_ROWS ? n_rows - row : MOMENT_ROWS;
        if (!checkpoint_read_rows(t, row, n, r->raw, err)) return false;
        t->format->dequantize_row(r->rows, r->raw, (size_t)n * k);
        for (size_t i = 0; i < (size_t)n * k; i++) r->rows[i] *= r->norm[i % k];
        ok = moments_add(r->moments, r->kernels, r->pool, r->rows, k, (int)n, err);
    }
    return ok;
}

bool readers_moments(struct moments **out, const struct arch *arch, const struct checkpoint *c, const struct hparams *h,
                     const struct kernels *kernels, struct pool *pool, struct unmask_err *err)
{
    struct readers r = { .arch = arch, .c = c, .h = h, .kernels = kernels, .pool = pool };
    const size_t k = (size_t)h->n_embd;
    *out = NULL;
    const bool ok = moments_open(out, h->n_embd, err) && (r.moments = *out) && (r.norm = mem_zalloc(k, sizeof *r.norm, err))
        && (r.rows = mem_zalloc(MOMENT_ROWS * k, sizeof *r.rows, err)) && (r.raw = mem_zalloc(MOMENT_ROWS * k, sizeof(float), err))
        && read_norm(&r, T_ATTN_NORM, err) && add_reader(&r, T_Q, err) && add_reader(&r, T_K, err) && add_reader(&r, T_V, err)
        && read_norm(&r, T_FFN_NORM, err) && add_reader(&r, T_GATE, err) && add_reader(&r, T_UP, err);
    mem_free(r.raw);
    mem_free(r.rows);
    mem_free(r.norm);
    return ok;
}
