/* verify.c - see verify.h.  A worker takes a whole tensor, because its checksum is a chain over all of its bytes. */
#include "verify.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "checksum.h"
#include "f16.h"
#include "mem.h"
#include "pool.h"

enum { CHUNK_VALUES = 1 << 16 };                /* read and looked through at a time; a multiple of every block; tiles: one at a time */

struct job {
    const struct checkpoint *c;
    const struct verify_options *o;
    struct verify_tensor *found;
    struct unmask_err *errs;                    /* by tensor: why it could not be read */
    bool *read;
    uint8_t **raw; float **values;              /* by worker */
    uint64_t total;
    _Atomic uint64_t done;
    atomic_bool stop;                           /* cancelled, or a tensor could not be read */
};

static void find_nonfinite(const float *x, size_t n, uint64_t first, struct verify_tensor *f)
{
    for (size_t i = 0; (i = f32_nonfinite(x, i, n)) < n; i++)
        if (f->n_nonfinite++ == 0) f->first_nonfinite = first + i;
}

/* Go on?  The caller's thread, which is worker 0, asks him. */
static bool tell(struct job *j, int worker, uint64_t bytes)
{
    const uint64_t done = atomic_fetch_add(&j->done, bytes) + bytes;
    if (worker == 0 && j->o->on_progress && !j->o->on_progress(j->o->user, done, j->total)) atomic_store(&j->stop, true);
    return !atomic_load(&j->stop);
}

static const char *stored_sum(const struct checkpoint *c, const char *tensor)
{
    const struct meta *m = checkpoint_meta(c, FMT(CHECKSUM_PREFIX "%s", tensor));
    return m && m->type == META_STRING && m->v.s.n == CHECKSUM_DIGITS ? m->v.s.s : NULL;
}

/* Bytes to read at a time, and the values in them. */
static uint64_t bytes_at_once(const struct tensor *t)
{
    return t->packed ? t->packed->tile_bytes((int)t->shape[0]) : quant_row_bytes(t->format, CHUNK_VALUES);
}

/* Look for values that are not finite in n bytes of the tensor; the number of the first value is `first`.  Returns how many there are. */
static uint64_t check_values(struct job *j, const struct tensor *t, uint64_t n, uint64_t first, int worker, struct verify_tensor *found)
{
    const struct quant_format *f = t->format;
    if (!t->packed) {
        const size_t k = (size_t)(n / (uint64_t)f->block_bytes) * (size_t)f->block;
        f->dequantize_row(j->values[worker], j->raw[worker], k);
        find_nonfinite(j->values[worker], k, first, found);
        return k;
    }
    uint8_t *row = j->raw[worker] + n;          /* behind the tile: room for a row */
    uint64_t r = first / t->shape[0], values = 0;
    for (int c = 0; c < TILE_N && r < t->shape[1]; c++, r++, values += t->shape[0]) {
        t->packed->unpack_row(row, j->raw[worker], c, (int)t->shape[0]);
        f->dequantize_row(j->values[worker], row, (size_t)t->shape[0]);
        find_nonfinite(j->values[worker], (size_t)t->shape[0], first + values, found);
    }
    return values;
}

static void check_tensor(void *arg, int item, int worker)
{
    struct job *j = arg;
    const struct tensor *t = &j->c->tensors[item];
    struct verify_tensor *found = &j->found[item];
    const uint64_t each = bytes_at_once(t);
    const char *want = stored_sum(j->c, t->name);
    struct checksum_text text;
    struct sha256_ctx sha;
    uint64_t values = 0;
    sha256_init(&sha);
    for (uint64_t at = 0, n; at < t->bytes; at += n) {
        n = t->bytes - at < each ? t->bytes - at : each;
        if (!checkpoint_read(t, at, j->raw[worker], (size_t)n, &j->errs[item])) {
            atomic_store(&j->stop, true);
            return;
        }
        if (want) sha256_update(&sha, (size_t)n, j->raw[worker]);
        values += check_values(j, t, n, values, worker, found);
        if (!tell(j, worker, n)) return;
    }
    if (want) found->sum = memcmp(checksum_end(&sha, &text), want, CHECKSUM_DIGITS) == 0 ? VERIFY_SAME : VERIFY_DIFFERENT;
    j->read[item] = true;
}

/* Every checksum is of a tensor in the file, and looks like one; either all tensors have one or none. */
static bool check_keys(const struct checkpoint *c, struct unmask_err *err)
{
    size_t n = 0;
    const size_t prefix = strlen(CHECKSUM_PREFIX);
    for (size_t i = 0; i < c->n_metas; i++) {
        const struct meta *m = &c->metas[i];
        if (!checksum_key(m->key.s, m->key.n)) continue;
        const char *name = QUOTE(m->key.s + prefix, m->key.n - prefix), *key = QUOTE(m->key.s, m->key.n);
        if (m->type != META_STRING || m->v.s.n != CHECKSUM_DIGITS)
            return fail(err, E_VFY_COVER, .file = c->path, .field = key, .byte = AT(m->offset), .found = meta_type_name(m->type),
                        .need = FMT("a text of %d hexadecimal digits", CHECKSUM_DIGITS));
        if (!checkpoint_tensor(c, FMT("%.*s", (int)(m->key.n - prefix), m->key.s + prefix)))
            return fail(err, E_VFY_COVER, .file = c->path, .field = key, .byte = AT(m->offset),
                        .found = "no such tensor", .need = FMT("the tensor %s", name),
                        .hint = "The file was changed after it was made");
        n++;
    }
    for (size_t i = 0; n > 0 && n < c->n_tensors && i < c->n_tensors; i++)
        if (!stored_sum(c, c->tensors[i].name))
            return fail(err, E_VFY_COVER, .file = c->path, .field = c->tensors[i].name,
                        .found = FMT("checksums of %zu tensors, not of this one", n),
                        .need = FMT("all %zu", c->n_tensors), .hint = "The file was changed after it was made");
    return true;
}

/* The first thing that is wrong, and how many tensors there are with which something is. */
static bool judge(const struct job *j, struct unmask_err *err)
{
    const struct checkpoint *c = j->c;
    size_t n = 0, first = 0;
    for (size_t i = 0; i < c->n_tensors; i++)
        if ((j->found[i].sum == VERIFY_DIFFERENT || j->found[i].n_nonfinite) && n++ == 0) first = i;
    if (!n) return true;
    const struct tensor *t = &c->tensors[first];
    const struct verify_tensor *f = &j->found[first];
    const char *others = n > 1 ? FMT("; %zu more tensors are damaged", n - 1) : "";
    if (f->sum == VERIFY_DIFFERENT)
        return fail(err, E_VFY_SUM, .file = t->file->path, .field = t->name, .byte = AT(t->offset),
                    .found = FMT("another SHA-256%s", others),
                    .need = FMT("%.*s", CHECKSUM_DIGITS, stored_sum(c, t->name)),
                    .hint = n > c->n_tensors / 2
                            ? "Fetch or make it again; if another program has converted it, the checksums are of what it was"
                            : "The file is damaged: fetch or make it again");
    return fail(err, E_VFY_VALUE, .file = t->file->path, .field = t->name,
                .found = FMT("%" PRIu64 " such values, the first at row %" PRIu64 ", column %" PRIu64 "%s", f->n_nonfinite,
                             f->first_nonfinite / t->shape[0], f->first_nonfinite % t->shape[0], others),
                .need = "finite numbers", .hint = "The weights are damaged: fetch or make them again");
}

static bool run(struct job *j, struct pool *pool, struct unmask_err *err)
{
    const size_t n_tensors = j->c->n_tensors, workers = (size_t)pool_threads(pool);
    if (!(j->errs = mem_zalloc(n_tensors, sizeof *j->errs, err)) || !(j->read = mem_zalloc(n_tensors, sizeof *j->read, err))
        || !(j->raw = mem_zalloc(workers, sizeof *j->raw, err)) || !(j->values = mem_zalloc(workers, sizeof *j->values, err))) return false;
    size_t raw = CHUNK_VALUES * sizeof(float), values = CHUNK_VALUES;           /* no format takes more than four bytes a value */
    for (size_t i = 0; i < n_tensors; i++) {
        const struct tensor *t = &j->c->tensors[i];
        if (!t->packed) continue;
        const size_t k = (size_t)t->shape[0], bytes = (size_t)bytes_at_once(t) + k * sizeof(float);
        if (bytes > raw) raw = bytes;
        if (k > values) values = k;
    }
    for (size_t w = 0; w < workers; w++)
        if (!(j->raw[w] = mem_aligned(raw, err)) || !(j->values[w] = mem_aligned(values * sizeof(float), err))) return false;
    pool_run(pool, check_tensor, j, (int)n_tensors);
    for (size_t i = 0; i < n_tensors; i++) {
        if (!j->errs[i].id[0]) continue;
        if (err) *err = j->errs[i];
        return false;
    }
    for (size_t i = 0; i < n_tensors; i++)
        if (!j->read[i]) return fail(err, E_CANCELLED, .file = j->c->path);
    return check_keys(j->c, err) && judge(j, err);
}

bool verify_checkpoint(const struct checkpoint *c, const struct verify_options *o, struct verify_tensor *found, struct unmask_err *err)
{
    struct job j = { .c = c, .o = o, .found = found };
    struct pool *pool = NULL;
    memset(found, 0, c->n_tensors * sizeof *found);
    for (size_t i = 0; i < c->n_tensors; i++) j.total += c->tensors[i].bytes;
    const bool ok = pool_open(&pool, o->threads, err) && run(&j, pool, err);
    for (int w = 0; pool && w < pool_threads(pool); w++) {
        if (j.raw) mem_free(j.raw[w]);
        if (j.values) mem_free(j.values[w]);
    }
    mem_free(j.raw);
    mem_free(j.values);
    mem_free(j.read);
    mem_free(j.errs);
    pool_close(pool);
    return ok;
}
