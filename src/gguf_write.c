/* gguf_write.c - write GGUF files, version 3, little-endian; layout in gguf.c.
 * Metadata and tensor list are kept as the bytes that the file will hold. */
#include <string.h>

#include "f16.h"
#include "gguf.h"
#include "mem.h"

enum { ALIGNMENT = 32, HEADER_BYTES = 4 + 4 + 8 + 8 };

struct bytes { uint8_t *p; size_t n, cap; };

struct gguf_writer {
    struct bytes metas, tensors;
    uint64_t n_metas, n_tensors;
    uint64_t data_bytes;                        /* of the tensors so far, padding included */
    uint32_t alignment;
};

/* ---- appending to bytes: one flag is checked at the end of an entry ------------------------------- */

struct entry { struct bytes *to; size_t start; bool ok; struct unmask_err *err; };

static struct entry entry_begin(struct bytes *to, struct unmask_err *err) { return (struct entry){ to, to->n, true, err }; }

static bool entry_end(struct entry *e, uint64_t *count)
{
    if (e->ok) ++*count;
    else e->to->n = e->start;
    return e->ok;
}

static void put(struct entry *e, const void *p, size_t n)
{
    struct bytes *b = e->to;
    size_t need;
    if (!e->ok) return;
    if (!size_add(b->n, n, &need) || need > SIZE_MAX / 2) {
        e->ok = fail(e->err, E_MEMORY, .need = "less metadata");
        return;
    }
    if (need > b->cap) {
        const size_t cap = need * 2 < 4096 ? 4096 : need * 2;
        uint8_t *q = mem_resize(b->p, cap, 1, e->err);
        if (!(e->ok = q != NULL)) return;
        b->p = q;
        b->cap = cap;
    }
    if (n) memcpy(b->p + b->n, p, n);
    b->n = need;
}

static void put_number(struct entry *e, uint64_t v, size_t n)
{
    uint8_t b[8];
    for (size_t i = 0; i < n; i++) b[i] = (uint8_t)(v >> 8 * i);
    put(e, b, n);
}
static void put_u32(struct entry *e, uint32_t v) { put_number(e, v, 4); }
static void put_u64(struct entry *e, uint64_t v) { put_number(e, v, 8); }

static void put_string(struct entry *e, struct str s)
{
    put_u64(e, s.n);
    put(e, s.s, s.n);
}

static struct entry meta_begin(struct gguf_writer *w, struct str key, enum meta_type type, struct unmask_err *err)
{
    struct entry e = entry_begin(&w->metas, err);
    put_string(&e, key);
    put_u32(&e, type);
    return e;
}

/* ---- metadata and tensor list ---------------------------------------------------------------------- */

bool gguf_writer_new(struct gguf_writer **out, struct unmask_err *err)
{
    struct gguf_writer *w = mem_zalloc(1, sizeof *w, err);
    if (!w) return false;
    w->alignment = ALIGNMENT;
    *out = w;
    return true;
}

void gguf_writer_free(struct gguf_writer *w)
{
    if (!w) return;
    mem_free(w->metas.p);
    mem_free(w->tensors.p);
    mem_free(w);
}

bool gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v, struct unmask_err *err)
{
    struct entry e = meta_begin(w, str_of(key), META_U32, err);
    put_u32(&e, v);
    return entry_end(&e, &w->n_metas);
}

bool gguf_put_f32(struct gguf_writer *w, const char *key, float v, struct unmask_err *err)
{
    struct entry e = meta_begin(w, str_of(key), META_F32, err);
    put_u32(&e, f32_bits(v));
    return entry_end(&e, &w->n_metas);
}

bool gguf_put_bool(struct gguf_writer *w, const char *key, bool v, struct unmask_err *err)
{
    struct entry e = meta_begin(w, str_of(key), META_BOOL, err);
    put_number(&e, v, 1);
    return entry_end(&e, &w->n_metas);
}

bool gguf_put_str(struct gguf_writer *w, const char *key, struct str v, struct unmask_err *err)
{
    struct entry e = meta_begin(w, str_of(key), META_STRING, err);
    put_string(&e, v);
    return entry_end(&e, &w->n_metas);
}

bool gguf_reserve_str(struct gguf_writer *w, const char *key, size_t n, size_t *place, struct unmask_err *err)
{
    static const char zeros[64];
    struct entry e = meta_begin(w, str_of(key), META_STRING, err);
    put_u64(&e, n);
    *place = w->metas.n;
    for (size_t done = 0, part; done < n; done += part) {
        part = n - done < sizeof zeros ? n - done : sizeof zeros;
        put(&e, zeros, part);
    }
    return entry_end(&e, &w->n_metas);
}

void gguf_fill(struct gguf_writer *w, size_t place, const char *text, size_t n) { memcpy(w->metas.p + place, text, n); }

static struct entry array_begin(struct gguf_writer *w, struct str key, enum meta_type item, uint64_t n, struct unmask_err *err)
{
    struct entry e = meta_begin(w, key, META_ARRAY, err);
    put_u32(&e, item);
    put_u64(&e, n);
    return e;
}

bool gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n, struct unmask_err *err)
{
    struct entry e = array_begin(w, str_of(key), META_I32, n, err);
    for (size_t i = 0; i < n; i++) put_u32(&e, (uint32_t)v[i]);
    return entry_end(&e, &w->n_metas);
}

bool gguf_put_strs(struct gguf_writer *w, const char *key, const struct str *v, size_t n, struct unmask_err *err)
{
    struct entry e = array_begin(w, str_of(key), META_STRING, n, err);
    for (size_t i = 0; i < n; i++) put_string(&e, v[i]);
    return entry_end(&e, &w->n_metas);
}

bool gguf_put_meta(struct gguf_writer *w, const struct meta *m, struct unmask_err *err)
{
    static const char alignment[] = "general.alignment";
    if (m->key.n == sizeof alignment - 1 && memcmp(m->key.s, alignment, m->key.n) == 0) return true;    /* gguf_writer_align() */
    if (m->type == META_ARRAY) {
        struct entry e = array_begin(w, m->key, m->item_type, m->n_items, err);
        put(&e, m->items.s, m->items.n);
        return entry_end(&e, &w->n_metas);
    }
    struct entry e = meta_begin(w, m->key, m->type, err);
    if (m->type == META_STRING) put_string(&e, m->v.s);
    else if (m->type == META_F32) put_u32(&e, f32_bits((float)m->v.f));
    else put_number(&e, m->type == META_BOOL ? m->v.b : m->v.u, meta_type_bytes(m->type));     /* integers and f64: their bits */
    return entry_end(&e, &w->n_metas);
}

bool gguf_writer_align(struct gguf_writer *w, uint32_t alignment, struct unmask_err *err)
{
    w->alignment = alignment;
    return gguf_put_u32(w, "general.alignment", alignment, err);
}

/* List a tensor of so many bytes; false without an error where they do not fit. */
static bool list_tensor(struct gguf_writer *w, const char *name, uint32_t type, int n_dims, const uint64_t shape[4], uint64_t bytes,
                        bool *fits, struct unmask_err *err)
{
    uint64_t end;
    *fits = u64_add(bytes, w->alignment - 1, &end);
    end -= end % w->alignment;
    if (!*fits || !(*fits = u64_add(w->data_bytes, end, &end))) return false;
    struct entry e = entry_begin(&w->tensors, err);
    put_string(&e, str_of(name));
    put_u32(&e, (uint32_t)n_dims);
    for (int i = 0; i < n_dims; i++) put_u64(&e, shape[i]);
    put_u32(&e, type);
    put_u64(&e, w->data_bytes);
    if (!entry_end(&e, &w->n_tensors)) return false;
    w->data_bytes = end;
    return true;
}

bool gguf_put_tensor(struct gguf_writer *w, const char *name, const struct quant_format *f, int n_dims, const uint64_t shape[4],
                     struct unmask_err *err)
{
    uint64_t bytes = (uint64_t)f->block_bytes;
    bool fits = shape[0] % (uint64_t)f->block == 0 && u64_mul(bytes, shape[0] / (uint64_t)f->block, &bytes);
    for (int i = 1; i < n_dims; i++) fits = fits && u64_mul(bytes, shape[i], &bytes);
    if (fits && list_tensor(w, name, f->gguf_type, n_dims, shape, bytes, &fits, err)) return true;
    return !fits && fail(err, E_INTERNAL, .field = name, .found = FMT("a shape that %s cannot hold", f->name));
}

bool gguf_put_packed(struct gguf_writer *w, const char *name, const struct pack_format *p, const uint64_t shape[4], struct unmask_err *err)
{
    bool fits;
    const uint64_t bytes = (shape[1] + TILE_N - 1) / TILE_N * p->tile_bytes((int)shape[0]);
    return list_tensor(w, name, pack_gguf_type(p), 2, shape, bytes, &fits, err)
        || (!fits && fail(err, E_INTERNAL, .field = name, .found = "more packed tensors than 64 bits address"));
}

/* ---- the file ------------------------------------------------------------------------------------ */

static uint64_t header_bytes(const struct gguf_writer *w)
{
    const uint64_t n = (uint64_t)HEADER_BYTES + w->metas.n + w->tensors.n;
    return (n + w->alignment - 1) / w->alignment * w->alignment;
}

uint64_t gguf_writer_bytes(const struct gguf_writer *w) { return header_bytes(w) + w->data_bytes; }

bool gguf_write_header(struct gguf_writer *w, struct outfile *o, struct unmask_err *err)
{
    struct bytes head = { 0 };
    struct entry e = entry_begin(&head, err);
    put(&e, "GGUF", 4);
    put_u32(&e, 3);
    put_u64(&e, w->n_tensors);
    put_u64(&e, w->n_metas);
    const bool ok = e.ok && outfile_write(o, head.p, head.n, err) && outfile_write(o, w->metas.p, w->metas.n, err) &&
                    outfile_write(o, w->tensors.p, w->tensors.n, err) && gguf_write_padding(w, o, err);
    mem_free(head.p);
    return ok;
}

bool gguf_rewrite_metas(struct gguf_writer *w, struct outfile *o, struct unmask_err *err)
{
    return outfile_rewrite(o, HEADER_BYTES, w->metas.p, w->metas.n, err);
}

bool gguf_write_padding(const struct gguf_writer *w, struct outfile *o, struct unmask_err *err)
{
    static const uint8_t zeros[4096];
    for (uint64_t left = (w->alignment - o->written % w->alignment) % w->alignment, n; left; left -= n) {
        n = left < sizeof zeros ? left : sizeof zeros;
        if (!outfile_write(o, zeros, (size_t)n, err)) return false;
    }
    return true;
}
