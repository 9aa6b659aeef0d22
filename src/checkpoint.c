/* checkpoint.c - look-ups in an open checkpoint; see checkpoint.h.  Opening is in checkpoint_open.c. */
#include "checkpoint.h"

#include <inttypes.h>
#include <string.h>

#include "reader.h"

static const struct { const char *name; size_t bytes; } types[] = {
    [META_U8] = { "u8", 1 },      [META_I8] = { "i8", 1 },     [META_U16] = { "u16", 2 },      [META_I16] = { "i16", 2 },
    [META_U32] = { "u32", 4 },    [META_I32] = { "i32", 4 },   [META_F32] = { "f32", 4 },      [META_BOOL] = { "bool", 1 },
    [META_STRING] = { "string", 0 }, [META_ARRAY] = { "array", 0 }, [META_U64] = { "u64", 8 }, [META_I64] = { "i64", 8 },
    [META_F64] = { "f64", 8 },
};

const char *meta_type_name(enum meta_type type) { return types[type].name; }
size_t meta_type_bytes(enum meta_type type) { return types[type].bytes; }

void checkpoint_clear(struct checkpoint *c)
{
    struct checkpoint_reader *r = c->reader;
    for (size_t i = 0; i < r->n_files; i++) file_close(&r->files[i]);
    mem_free(r->files);
    mem_free(r->bytes);
    arena_free(&r->arena);
    names_free(&r->tensor_names);
    names_free(&r->meta_names);
    mem_free(c->tensors);
    mem_free(c->metas);
}

void checkpoint_close(struct checkpoint *c)
{
    if (!c) return;
    if (c->reader) checkpoint_clear(c);
    mem_free(c->reader);
    mem_free((char *)c->path);
    mem_free(c);
}

const struct tensor *checkpoint_tensor(const struct checkpoint *c, const char *name)
{
    size_t i;
    return names_find(&c->reader->tensor_names, name, strlen(name), &i) ? &c->tensors[i] : NULL;
}

const struct meta *checkpoint_meta(const struct checkpoint *c, const char *key)
{
    size_t i;
    return names_find(&c->reader->meta_names, key, strlen(key), &i) ? &c->metas[i] : NULL;
}

bool checkpoint_read(const struct tensor *t, uint64_t offset, void *dst, size_t n, struct unmask_err *err)
{
    if (offset > t->bytes || n > t->bytes - offset)
        return fail(err, E_INTERNAL, .file = t->file->path, .field = t->name, .found = FMT("bytes %" PRIu64 " + %zu", offset, n),
                    .need = FMT("at most %" PRIu64, t->bytes));
    return file_read(t->file, t->offset + offset, dst, n, err);
}

bool checkpoint_read_rows(const struct tensor *t, uint64_t row0, uint64_t n_rows, void *dst, struct unmask_err *err)
{
    const uint64_t row_bytes = quant_row_bytes(t->format, t->shape[0]);
    if (!t->packed) return checkpoint_read(t, row0 * row_bytes, dst, (size_t)(n_rows * row_bytes), err);
    const int k = (int)t->shape[0];             /* fits: the reader has checked it */
    const size_t tile_bytes = t->packed->tile_bytes(k);
    uint8_t *tile = mem_aligned(tile_bytes, err);
    bool ok = tile != NULL;
    for (uint64_t r = row0; ok && r < row0 + n_rows; r++) {
        if (r == row0 || r % TILE_N == 0) ok = checkpoint_read(t, r / TILE_N * tile_bytes, tile, tile_bytes, err);
        if (ok) t->packed->unpack_row((uint8_t *)dst + (r - row0) * row_bytes, tile, (int)(r % TILE_N), k);
    }
    mem_free(tile);
    return ok;
}

/* ---- typed getters -------------------------------------------------------------------------- */

/* File and place of a key, as errors name them: config.json has no offsets. */
#define META_PLACE(c, key, m) \
    .file = (c)->kind == CHECKPOINT_FOLDER ? FMT("%s/config.json", (c)->path) : (c)->path, .field = (key), \
    .byte = { (m) && (c)->kind == CHECKPOINT_GGUF, (m) ? (m)->offset : 0 }

static bool is_unsigned(enum meta_type t) { return t == META_U8 || t == META_U16 || t == META_U32 || t == META_U64; }
static bool is_signed(enum meta_type t) { return t == META_I8 || t == META_I16 || t == META_I32 || t == META_I64; }
static bool is_integer(enum meta_type t) { return is_unsigned(t) || is_signed(t); }
static bool is_float(enum meta_type t) { return t == META_F32 || t == META_F64; }

/* The key, or NULL and *ok: whether its absence is fine. */
static const struct meta *get(const struct checkpoint *c, const char *key, bool required, bool *ok, struct unmask_err *err)
{
    const struct meta *m = checkpoint_meta(c, key);
    *ok = m || !required || fail(err, E_META_MISSING, META_PLACE(c, key, m));
    return m;
}

static bool wrong_type(const struct checkpoint *c, const char *key, const struct meta *m, const char *need, struct unmask_err *err)
{
    return fail(err, E_META_TYPE, META_PLACE(c, key, m), .found = meta_type_name(m->type), .need = need);
}

bool meta_int(const struct checkpoint *c, const char *key, int64_t min, int64_t max, bool required, int64_t *v, struct unmask_err *err)
{
    bool ok;
    const struct meta *m = get(c, key, required, &ok, err);
    if (!m) return ok;
    if (!is_integer(m->type)) return wrong_type(c, key, m, "an integer", err);
    const bool too_large = is_unsigned(m->type) && m->v.u > INT64_MAX;
    if (too_large || m->v.i < min || m->v.i > max)
        return fail(err, E_META_RANGE, META_PLACE(c, key, m),
                    .found = too_large ? FMT("%" PRIu64, m->v.u) : FMT("%" PRId64, m->v.i),
                    .need = FMT("%" PRId64 " to %" PRId64, min, max));
    *v = m->v.i;
    return true;
}

bool meta_float(const struct checkpoint *c, const char *key, double min, double max, bool required, double *v, struct unmask_err *err)
{
    bool ok;
    const struct meta *m = get(c, key, required, &ok, err);
    if (!m) return ok;
    const bool whole = c->kind == CHECKPOINT_FOLDER && is_integer(m->type);     /* JSON: "rope_theta": 10000 */
    if (!is_float(m->type) && !whole) return wrong_type(c, key, m, "a floating-point number", err);
    const double x = !whole ? m->v.f : is_unsigned(m->type) ? (double)m->v.u : (double)m->v.i;
    if (!(x >= min && x <= max))                /* NaN too */
        return fail(err, E_META_RANGE, META_PLACE(c, key, m), .found = FMT("%g", x), .need = FMT("%g to %g", min, max));
    *v = x;
    return true;
}

bool meta_bool(const struct checkpoint *c, const char *key, bool required, bool *v, struct unmask_err *err)
{
    bool ok;
    const struct meta *m = get(c, key, required, &ok, err);
    if (!m) return ok;
    if (m->type != META_BOOL) return wrong_type(c, key, m, "a boolean", err);
    *v = m->v.b;
    return true;
}

bool meta_str(const struct checkpoint *c, const char *key, bool required, struct str *v, struct unmask_err *err)
{
    bool ok;
    const struct meta *m = get(c, key, required, &ok, err);
    if (!m) return ok;
    if (m->type != META_STRING) return wrong_type(c, key, m, "a string", err);
    *v = m->v.s;
    return true;
}

struct str checkpoint_name(const struct checkpoint *c)
{
    struct str name = { "", 0 };
    if (c->kind == CHECKPOINT_GGUF) meta_str(c, "general.name", false, &name, NULL);
    if (name.n) return name;
    size_t n = strlen(c->path), at;
    while (n > 1 && c->path[n - 1] == '/') n--;
    for (at = n - 1; at > 0 && c->path[at - 1] != '/'; ) at--;
    return (struct str){ c->path + at, n - at };
}

bool meta_next_string(const struct meta *array, uint64_t *at, struct str *item)
{
    if (array->type != META_ARRAY || array->item_type != META_STRING || *at > array->items.n) return false;
    struct cursor in = cursor_over(array->items.s + *at, array->items.n - (size_t)*at);
    uint64_t n;
    const uint8_t *s = cursor_u64(&in, &n) ? cursor_take(&in, n) : NULL;
    if (!s) return false;
    *item = (struct str){ (const char *)s, (size_t)n };
    *at += cursor_offset(&in);
    return true;
}
