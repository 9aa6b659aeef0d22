/* gguf.c - read the structure of a GGUF file (ggml docs/gguf.md), versions 2 and 3, little-endian.
 *
 *     "GGUF"  u32 version  u64 n_tensors  u64 n_metas
 *     n_metas    x  string key, u32 type, value            string: u64 length, bytes
 *     n_tensors  x  string name, u32 n_dims, u64 dims[n_dims], u32 format, u64 offset in the data
 *     zero bytes up to a multiple of general.alignment, then the data
 *
 * All numbers are checked here, before anything uses them: what the file declares is compared with what it holds, so that
 * no count in it can make us allocate, read or compute beyond that.  What the keys mean is arch.c's matter. */
#include "gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "f16.h"
#include "reader.h"
#include "utf8.h"

enum {
    MOST_METAS = 65536, MOST_TENSORS = 65536,
    MOST_KEY_BYTES = 65535, MOST_NAME_BYTES = 63,       /* ggml keeps names in 64 bytes */
    MOST_STRING_BYTES = 64 << 20, MOST_ITEMS = 16 << 20,
    LEAST_ALIGNMENT = 8, DEFAULT_ALIGNMENT = 32, MOST_ALIGNMENT = 65536,
    FIRST_WINDOW = 1 << 20, MOST_WINDOW = 256 << 20,
    MOST_PACKED = 1 << 24,                              /* rows and columns of a packed matrix */
    LEAST_META_BYTES = 8 + 1 + 4 + 1,                   /* one-byte key, one-byte value      */
    LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8,         /* one-byte name, one dimension      */
};

struct parser {
    struct checkpoint *c;
    const struct file *file;
    struct cursor in;           /* over the window: the first bytes of the file             */
    bool wants_more;            /* failed where the window ends, not the file               */
    uint64_t alignment;
    char part[64];              /* what is being parsed, for messages: "metadata entry 3 of 20" */
    struct err_text field;      /* its key or name, as far as known                         */
};

#define HERE(p) .file = (p)->file->path, .field = (p)->field.s, .byte = AT(cursor_offset(&(p)->in))
#define BYTE(p, at) .file = (p)->file->path, .field = (p)->field.s, .byte = AT(at)

static uint64_t file_left(const struct parser *p) { return p->file->size - cursor_offset(&p->in); }

/* n bytes from here are not in the window: the file is too short for them, or the window is. */
static bool ends_early(struct parser *p, uint64_t n, struct unmask_err *err)
{
    p->wants_more = n <= file_left(p);
    if (p->wants_more && n > MOST_WINDOW - cursor_offset(&p->in)) {
        p->wants_more = false;
        return fail(err, E_GGUF_LIMIT, HERE(p), .what = "there is too much metadata",
                    .need = FMT("at most %d bytes", MOST_WINDOW));
    }
    return fail(err, E_GGUF_END, HERE(p), .what = FMT("the file ends inside %s", p->part),
                .found = FMT("%" PRIu64 " bytes in the file", p->file->size), .need = FMT("%" PRIu64 " more from here", n),
                .hint = "It is cut short or damaged: fetch it again");
}

/* ---- values ----------------------------------------------------------------------------------- */

static const uint8_t *take(struct parser *p, uint64_t n, struct unmask_err *err)
{
    const uint8_t *at = cursor_take(&p->in, n);
    if (!at) ends_early(p, n, err);
    return at;
}

static bool take_u32(struct parser *p, uint32_t *v, struct unmask_err *err)
{
    return cursor_u32(&p->in, v) || ends_early(p, 4, err);
}

static bool take_u64(struct parser *p, uint64_t *v, struct unmask_err *err)
{
    return cursor_u64(&p->in, v) || ends_early(p, 8, err);
}

static bool take_string(struct parser *p, struct str *out, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    uint64_t n;
    if (!take_u64(p, &n, err)) return false;
    if (n > MOST_STRING_BYTES)
        return fail(err, E_GGUF_LIMIT, BYTE(p, at), .what = "a string is too long", .found = FMT("%" PRIu64 " bytes", n),
                    .need = FMT("at most %d", MOST_STRING_BYTES));
    const uint8_t *s = take(p, n, err);
    if (s) *out = (struct str){ (const char *)s, (size_t)n };
    return s != NULL;
}

/* A key or a tensor's name: 1 to most bytes of UTF-8 without control characters. */
static bool take_name(struct parser *p, const char *kind, uint64_t most, struct str *out, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    uint64_t n;
    if (!take_u64(p, &n, err)) return false;
    if (n == 0 || n > most)
        return fail(err, E_GGUF_NAME, BYTE(p, at), .what = FMT("%s of a length that is not allowed", kind),
                    .found = FMT("%" PRIu64 " bytes", n), .need = FMT("1 to %" PRIu64, most));
    const uint8_t *s = take(p, n, err);
    if (!s) return false;
    *out = (struct str){ (const char *)s, (size_t)n };
    err_quote(&p->field, out->s, out->n);
    bool plain = utf8_valid(out->s, out->n) == out->n;
    for (size_t i = 0; i < out->n; i++) plain = plain && s[i] >= 0x20 && s[i] != 0x7F;
    return plain || fail(err, E_GGUF_NAME, BYTE(p, at + 8), .what = FMT("%s that is not plain text", kind),
                         .need = "UTF-8 without control characters");
}

static bool take_type(struct parser *p, enum meta_type *type, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    uint32_t v;
    if (!take_u32(p, &v, err)) return false;
    if (v > META_F64) return fail(err, E_GGUF_TYPE, BYTE(p, at), .found = FMT("type %" PRIu32, v),
                                  .need = FMT("0 to %d", META_F64));
    *type = (enum meta_type)v;
    return true;
}

static bool check_bools(struct parser *p, const uint8_t *b, uint64_t n, struct unmask_err *err)
{
    for (uint64_t i = 0; i < n; i++)
        if (b[i] > 1) return fail(err, E_GGUF_BOOL, BYTE(p, (uint64_t)(b + i - p->in.base)), .found = FMT("%d", b[i]),
                                  .need = "0 or 1");
    return true;
}

static bool take_array(struct parser *p, struct meta *m, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    if (!take_type(p, &m->item_type, err)) return false;
    if (m->item_type == META_ARRAY) return fail(err, E_GGUF_ARRAY, BYTE(p, at));
    if (!take_u64(p, &m->n_items, err)) return false;
    if (m->n_items > MOST_ITEMS)
        return fail(err, E_GGUF_LIMIT, BYTE(p, at + 4), .what = "an array is too long",
                    .found = FMT("%" PRIu64 " items", m->n_items),
                    .need = FMT("at most %d", MOST_ITEMS));
    const uint8_t *items = p->in.p;
    if (m->item_type == META_STRING) {
        struct str s;
        for (uint64_t i = 0; i < m->n_items; i++)
            if (!take_string(p, &s, err)) return false;
    } else if (!take(p, m->n_items * meta_type_bytes(m->item_type), err)) return false;
    m->items = (struct str){ (const char *)items, (size_t)(p->in.p - items) };
    return m->item_type != META_BOOL || check_bools(p, items, m->n_items, err);
}

static bool take_scalar(struct parser *p, struct meta *m, struct unmask_err *err)
{
    const size_t n = meta_type_bytes(m->type);
    const uint8_t *b = take(p, n, err);
    if (!b) return false;
    uint64_t bits = 0;
    for (size_t i = 0; i < n; i++) bits |= (uint64_t)b[i] << 8 * i;
    switch (m->type) {
    case META_I8:  m->v.i = (int8_t)bits; break;
    case META_I16: m->v.i = (int16_t)bits; break;
    case META_I32: m->v.i = (int32_t)bits; break;
    case META_I64: m->v.i = (int64_t)bits; break;
    case META_F32: m->v.f = (double)f32_from_bits((uint32_t)bits); break;
    case META_F64: memcpy(&m->v.f, &bits, sizeof bits); break;
    case META_BOOL: m->v.b = bits != 0; return check_bools(p, b, 1, err);
    default: m->v.u = bits;
    }
    return true;
}

/* ---- header, metadata, tensor list --------------------------------------------------------------- */

/* What files that people confuse with GGUF begin with. */
static const struct { const char *bytes; size_t n, at; const char *name, *hint; } lookalikes[] = {
    { "\0\0\0\0", 4, 0, "zeros: the program that wrote it did not finish", "Make or fetch the file again" },
    { "version https://git-lfs", 23, 0, "a Git LFS pointer", "Fetch the real file: git lfs pull" },
    { "\x1f\x8b", 2, 0, "gzip data", "It is compressed: unpack it first (gunzip)" },
    { "\x28\xb5\x2f\xfd", 4, 0, "zstd data", "It is compressed: unpack it first (unzstd)" },
    { "\xfd" "7zXZ\0", 6, 0, "xz data", "It is compressed: unpack it first (unxz)" },
    { "BZh", 3, 0, "bzip2 data", "It is compressed: unpack it first (bunzip2)" },
    { "7z\xbc\xaf", 4, 0, "a 7z archive", "It is compressed: unpack it first" },
    { "PK\3\4", 4, 0, "a zip archive or a PyTorch checkpoint", "Unpack it, or use the safetensors form of the model" },
    { "ustar", 5, 257, "a tar archive", "Unpack it first" },
    { "<!", 2, 0, "an HTML page", "The download gave a web page instead of the model: fetch the file itself" },
    { "<html", 5, 0, "an HTML page", "The download gave a web page instead of the model: fetch the file itself" },
    { "{\"", 2, 8, "a safetensors file", "Give the folder that holds it and its config.json" },
    { "tjgg", 4, 0, "a GGJT file, the format before GGUF", "Convert the model again" },
    { "fmgg", 4, 0, "a GGMF file, the format before GGUF", "Convert the model again" },
    { "lmgg", 4, 0, "a GGML file, the format before GGUF", "Convert the model again" },
    { "{", 1, 0, "JSON text", "Give the folder that holds it, or a GGUF file" },
};

static bool check_magic(struct parser *p, struct unmask_err *err)
{
    const uint8_t *b = p->in.base;
    const size_t n = (size_t)cursor_left(&p->in), n_magic = n < 4 ? n : 4;
    if (n == 0) return fail(err, E_GGUF_MAGIC, .file = p->file->path, .what = "the file is empty (0 bytes)",
                            .hint = "Fetch it again");
    if (memcmp(b, "GGUF", n_magic) == 0) return true;   /* fewer than 4: the header then ends early */
    for (size_t i = 0; i < sizeof lookalikes / sizeof *lookalikes; i++)
        if (lookalikes[i].at + lookalikes[i].n <= n && memcmp(b + lookalikes[i].at, lookalikes[i].bytes, lookalikes[i].n) == 0)
            return fail(err, E_GGUF_MAGIC, HERE(p), .found = lookalikes[i].name, .need = "\"GGUF\"", .hint = lookalikes[i].hint);
    return fail(err, E_GGUF_MAGIC, HERE(p), .found = FMT("\"%s\"", QUOTE((const char *)b, n_magic)), .need = "\"GGUF\"");
}

static bool check_version(struct parser *p, uint32_t version, uint64_t n_tensors, uint64_t n_metas, struct unmask_err *err)
{
    if (version == 2 || version == 3) return true;
    if (version == 0 && n_tensors == 0 && n_metas == 0)
        return fail(err, E_GGUF_VERSION, BYTE(p, 4), .what = "the header is zeroed: the program that wrote it did not finish",
                    .hint = "Make or fetch the file again");
    if ((version & 0xFFFF) == 0 && version != 0)
        return fail(err, E_GGUF_VERSION, BYTE(p, 4), .what = "a big-endian GGUF file",
                    .found = FMT("version 0x%08" PRIx32, version),
                    .need = "a little-endian file", .hint = "Convert it (gguf-py has gguf-convert-endian)");
    return fail(err, E_GGUF_VERSION, BYTE(p, 4), .found = FMT("version %" PRIu32, version), .need = "2 or 3");
}

/* A count of the header: within our limit, and not of more entries than the rest of the file can hold. */
static bool check_count(struct parser *p, uint64_t at, const char *what, uint64_t n, uint64_t most, uint64_t least_bytes,
                        struct unmask_err *err)
{
    if (n > most)
        return fail(err, E_GGUF_LIMIT, BYTE(p, at), .what = FMT("too many %s", what), .found = FMT("%" PRIu64, n),
                    .need = FMT("at most %" PRIu64, most));
    if (n * least_bytes > file_left(p))
        return fail(err, E_GGUF_END, BYTE(p, at), .what = FMT("the file is too short for its %s", what),
                    .found = FMT("%" PRIu64 " bytes in the file", p->file->size),
                    .need = FMT("at least %" PRIu64 " for %" PRIu64 " %s", n * least_bytes, n, what),
                    .hint = "It is cut short or damaged: fetch it again");
    return true;
}

static bool parse_header(struct parser *p, struct unmask_err *err)
{
    uint32_t version;
    uint64_t n_tensors, n_metas;
    snprintf(p->part, sizeof p->part, "the header");
    if (!check_magic(p, err) || !take(p, 4, err) || !take_u32(p, &version, err) || !take_u64(p, &n_tensors, err) ||
        !take_u64(p, &n_metas, err))
        return false;
    if (!check_version(p, version, n_tensors, n_metas, err)) return false;
    if (!check_count(p, 8, "tensors", n_tensors, MOST_TENSORS, LEAST_TENSOR_BYTES, err)) return false;
    if (!check_count(p, 16, "metadata entries", n_metas, MOST_METAS, LEAST_META_BYTES, err)) return false;
    p->c->n_tensors = (size_t)n_tensors;
    p->c->n_metas = (size_t)n_metas;
    return true;
}

static bool parse_meta(struct parser *p, struct meta *m, struct unmask_err *err)
{
    m->offset = cursor_offset(&p->in);
    if (!take_name(p, "a key", MOST_KEY_BYTES, &m->key, err) || !take_type(p, &m->type, err)) return false;
    if (m->type == META_STRING) return take_string(p, &m->v.s, err);
    return m->type == META_ARRAY ? take_array(p, m, err) : take_scalar(p, m, err);
}

static bool parse_metas(struct parser *p, struct unmask_err *err)
{
    struct checkpoint *c = p->c;
    struct names *names = &c->reader->meta_names;
    if (!(c->metas = mem_zalloc(c->n_metas, sizeof *c->metas, err)) || !names_init(names, c->n_metas, err)) return false;
    for (size_t i = 0; i < c->n_metas; i++) {
        struct meta *m = &c->metas[i];
        size_t same = i;
        snprintf(p->part, sizeof p->part, "metadata entry %zu of %zu", i + 1, c->n_metas);
        p->field.s[0] = 0;
        if (!parse_meta(p, m, err)) return false;
        if (!names_add(names, m->key.s, m->key.n, &same))
            return fail(err, E_GGUF_DUPLICATE, BYTE(p, m->offset), .what = "the key is given twice",
                        .found = FMT("the same key at byte %" PRIu64, c->metas[same].offset), .need = "each key once");
    }
    p->field.s[0] = 0;
    return true;
}

static bool read_alignment(struct parser *p, struct unmask_err *err)
{
    const struct meta *m = checkpoint_meta(p->c, "general.alignment");
    p->alignment = DEFAULT_ALIGNMENT;
    if (m) {
        const uint64_t a = m->v.u;
        if (m->type != META_U32)
            return fail(err, E_GGUF_ALIGNMENT, .file = p->file->path, .field = "general.alignment", .byte = AT(m->offset),
                        .found = meta_type_name(m->type), .need = "u32");
        if (a < LEAST_ALIGNMENT || a > MOST_ALIGNMENT || (a & (a - 1)))
            return fail(err, E_GGUF_ALIGNMENT, .file = p->file->path, .field = "general.alignment", .byte = AT(m->offset),
                        .found = FMT("%" PRIu64, a),
                        .need = FMT("a power of two from %d to %d", LEAST_ALIGNMENT, MOST_ALIGNMENT));
        p->alignment = a;
    }
    return true;
}

/* Names of ggml's other formats, for messages. */
static const char *const ggml_types[] = {
    [3] = "q4_1", [6] = "q5_0", [7] = "q5_1", [9] = "q8_1", [10] = "q2_K", [11] = "q3_K", [13] = "q5_K",
    [15] = "q8_K", [16] = "iq2_xxs", [17] = "iq2_xs", [18] = "iq3_xxs", [19] = "iq1_s", [20] = "iq4_nl",
    [21] = "iq3_s", [22] = "iq2_s", [23] = "iq4_xs", [24] = "i8", [25] = "i16", [26] = "i32", [27] = "i64", [28] = "f64",
    [29] = "iq1_m", [34] = "tq1_0", [35] = "tq2_0", [39] = "mxfp4",
};

static bool take_format(struct parser *p, struct tensor *t, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    struct err_text known = { "" };
    uint32_t v;
    if (!take_u32(p, &v, err)) return false;
    t->packed = pack_format_by_gguf_type(v);
    if ((t->format = t->packed ? t->packed->format : quant_format_by_gguf_type(v))) return true;
    for (const struct quant_format *const *f = quant_formats; *f; f++) err_list(&known, (*f)->name);
    const char *name = v < sizeof ggml_types / sizeof *ggml_types ? ggml_types[v] : NULL;
    return fail(err, E_GGUF_FORMAT, BYTE(p, at),
                .found = FMT("type %" PRIu32 "%s%s%s", v, name ? " (" : "", name ? name : "", name ? ")" : ""),
                .need = FMT("one of %s", known.s));
}

static bool take_shape(struct parser *p, struct tensor *t, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    uint32_t n_dims;
    uint64_t values = 1;
    if (!take_u32(p, &n_dims, err)) return false;
    if (n_dims < 1 || n_dims > 4)
        return fail(err, E_GGUF_SHAPE, BYTE(p, at), .found = FMT("%" PRIu32 " dimensions", n_dims), .need = "1 to 4");
    t->n_dims = (int)n_dims;
    for (uint32_t i = 0; i < 4; i++) {
        t->shape[i] = 1;
        if (i < n_dims && !take_u64(p, &t->shape[i], err)) return false;
        if (t->shape[i] == 0 || t->shape[i] > INT64_MAX || !u64_mul(values, t->shape[i], &values))
            return fail(err, E_GGUF_SHAPE, BYTE(p, at + 4 + 8 * i),
                        .found = FMT("dimension %" PRIu32 " of %" PRIu64, i, t->shape[i]),
                        .need = "dimensions of at least 1 whose product is below 2^64");
    }
    return true;
}

/* Bytes of a matrix in tiles. */
static bool measure_packed(struct parser *p, uint64_t at, struct tensor *t, struct unmask_err *err)
{
    if (t->n_dims != 2 || t->shape[0] > MOST_PACKED || t->shape[1] > MOST_PACKED)
        return fail(err, E_GGUF_SHAPE, BYTE(p, at), .what = "not the shape of a packed matrix",
                    .found = FMT("%d dimensions, rows of %" PRIu64, t->n_dims, t->shape[0]),
                    .need = FMT("2 dimensions of at most %d", MOST_PACKED));
    p->c->packed = true;
    return u64_mul((t->shape[1] + TILE_N - 1) / TILE_N, t->packed->tile_bytes((int)t->shape[0]), &t->bytes);    /* below 2^56 */
}

/* Bytes of the tensor out of shape and format. */
static bool measure(struct parser *p, uint64_t at, struct tensor *t, struct unmask_err *err)
{
    const uint64_t block = (uint64_t)t->format->block;
    if (t->shape[0] % block)
        return fail(err, E_GGUF_SHAPE, BYTE(p, at), .what = "rows do not divide into blocks",
                    .found = FMT("rows of %" PRIu64, t->shape[0]),
                    .need = FMT("a multiple of %" PRIu64 " for %s", block, t->format->name));
    if (t->packed) return measure_packed(p, at, t, err);
    /* rows x blocks cannot wrap: at most the number of values, which did not */
    if (!u64_mul(t->shape[0] / block * tensor_rows(t), (uint64_t)t->format->block_bytes, &t->bytes))
        return fail(err, E_GGUF_SHAPE, BYTE(p, at), .what = "the tensor's size does not fit in 64 bits",
                    .need = "less than 2^64 bytes");
    return true;
}

/* One entry of the tensor list; t->offset is relative to the data until place_tensors(). */
static bool parse_tensor(struct parser *p, struct tensor *t, struct str *name, struct unmask_err *err)
{
    const uint64_t at = cursor_offset(&p->in);
    if (!take_name(p, "a tensor name", MOST_NAME_BYTES, name, err)) return false;
    if (memchr(name->s, '/', name->n) || memchr(name->s, '\\', name->n))
        return fail(err, E_GGUF_NAME, BYTE(p, at + 8), .what = "a tensor name that looks like a path",
                    .need = "a name without / and \\");
    if (!(t->name = arena_strndup(&p->c->reader->arena, name->s, name->n, err))) return false;
    const uint64_t shape_at = cursor_offset(&p->in);
    if (!take_shape(p, t, err) || !take_format(p, t, err) || !measure(p, shape_at, t, err)) return false;
    const uint64_t offset_at = cursor_offset(&p->in);
    if (!take_u64(p, &t->offset, err)) return false;
    if (t->offset % p->alignment)
        return fail(err, E_GGUF_OFFSET, BYTE(p, offset_at), .what = "the tensor's offset is not aligned",
                    .found = FMT("%" PRIu64, t->offset),
                    .need = FMT("a multiple of %" PRIu64, p->alignment));
    t->file = p->c->reader->files;
    return true;
}

static bool parse_tensors(struct parser *p, struct unmask_err *err)
{
    struct checkpoint *c = p->c;
    struct names *names = &c->reader->tensor_names;
    if (!(c->tensors = mem_zalloc(c->n_tensors, sizeof *c->tensors, err)) || !names_init(names, c->n_tensors, err)) return false;
    for (size_t i = 0; i < c->n_tensors; i++) {
        struct tensor *t = &c->tensors[i];
        const uint64_t at = cursor_offset(&p->in);
        struct str name;
        size_t same = i;
        snprintf(p->part, sizeof p->part, "tensor entry %zu of %zu", i + 1, c->n_tensors);
        p->field.s[0] = 0;
        if (!parse_tensor(p, t, &name, err)) return false;
        if (!names_add(names, t->name, name.n, &same))
            return fail(err, E_GGUF_DUPLICATE, BYTE(p, at), .what = "the tensor is listed twice",
                        .found = FMT("entries %zu and %zu", same + 1, i + 1), .need = "each name once");
    }
    return true;
}

/* ---- where the tensors lie ----------------------------------------------------------------------- */

static uint64_t align(uint64_t offset, uint64_t alignment) { return offset + (alignment - offset % alignment) % alignment; }

static int by_offset(const void *a, const void *b)
{
    const struct tensor *s = *(const struct tensor *const *)a, *t = *(const struct tensor *const *)b;
    return s->offset != t->offset ? (s->offset < t->offset ? -1 : 1) : 0;
}

/* No two tensors on the same bytes; what lies between them and after the last one is counted. */
static bool check_gaps(struct parser *p, uint64_t data, struct unmask_err *err)
{
    struct checkpoint *c = p->c;
    const struct tensor **sorted = mem_zalloc(c->n_tensors, sizeof *sorted, err);
    if (!sorted) return false;
    for (size_t i = 0; i < c->n_tensors; i++) sorted[i] = &c->tensors[i];
    qsort(sorted, c->n_tensors, sizeof *sorted, by_offset);
    bool ok = true;
    uint64_t free_from = data;
    for (size_t i = 0; ok && i < c->n_tensors; i++) {
        const struct tensor *s = i ? sorted[i - 1] : NULL, *t = sorted[i];
        if (s && t->offset - s->offset < s->bytes)
            ok = fail(err, E_GGUF_OVERLAP, .file = p->file->path, .field = t->name, .byte = AT(t->offset),
                      .found = FMT("%s at bytes %" PRIu64 " to %" PRIu64, s->name, s->offset, s->offset + s->bytes),
                      .need = "bytes of its own");
        else c->spare_bytes += t->offset - free_from;
        free_from = align(t->offset + t->bytes, p->alignment);
    }
    if (ok && p->file->size > free_from) c->spare_bytes += p->file->size - free_from;
    mem_free(sorted);
    return ok;
}

/* Turn offsets in the data into offsets in the file: every tensor inside it, no two on the same bytes.  Holes, any order and
 * bytes after the last tensor are allowed: other writers leave them. */
static bool place_tensors(struct parser *p, struct unmask_err *err)
{
    const uint64_t size = p->file->size, end = cursor_offset(&p->in);
    const uint64_t data = align(end, p->alignment);
    for (size_t i = 0; i < p->c->n_tensors; i++) {
        struct tensor *t = &p->c->tensors[i];
        uint64_t first, last;
        if (!u64_add(data, t->offset, &first) || !u64_add(first, t->bytes, &last))
            return fail(err, E_GGUF_OFFSET, .file = p->file->path, .field = t->name, .byte = AT(data),
                        .found = FMT("offset %" PRIu64 " and %" PRIu64 " bytes", t->offset, t->bytes),
                        .need = "an end below 2^64");
        if (last > size)
            return fail(err, E_GGUF_END, .file = p->file->path,
                        .what = FMT("the file ends before the end of tensor %zu of %zu", i + 1, p->c->n_tensors),
                        .field = t->name, .byte = AT(first),
                        .found = FMT("%" PRIu64 " bytes in the file", size),
                        .need = FMT("bytes %" PRIu64 " to %" PRIu64, first, last), .hint = "It is cut short: fetch it again");
        t->offset = first;
    }
    return check_gaps(p, data, err);
}

/* ---- opening ------------------------------------------------------------------------------------- */

static bool parse(struct parser *p, struct unmask_err *err)
{
    return parse_header(p, err) && parse_metas(p, err) && read_alignment(p, err) && parse_tensors(p, err) &&
           place_tensors(p, err);
}

/* Undo an attempt, before one with more of the file in memory. */
static void forget(struct checkpoint *c)
{
    mem_free(c->metas);
    mem_free(c->tensors);
    c->metas = NULL;
    c->tensors = NULL;
    c->n_metas = c->n_tensors = 0;
    c->packed = false;
    c->spare_bytes = 0;
    names_free(&c->reader->meta_names);
    names_free(&c->reader->tensor_names);
    arena_free(&c->reader->arena);
}

/* Only the file's beginning is read; how much of it is metadata shows while parsing, so a window that proves too small is
 * made four times as large and parsed again. */
static bool parse_growing(struct parser *p, struct unmask_err *err)
{
    for (uint64_t window = FIRST_WINDOW; ; window *= 4) {
        const size_t n = (size_t)(window < p->file->size ? window : p->file->size);
        void *bytes = mem_resize(p->c->reader->bytes, n, 1, err);
        if (!bytes) return false;
        p->c->reader->bytes = bytes;
        if (!file_read(p->file, 0, bytes, n, err)) return false;
        p->in = cursor_over(bytes, n);
        p->wants_more = false;
        if (parse(p, err)) return true;
        if (!p->wants_more) return false;       /* true only below MOST_WINDOW */
        forget(p->c);
    }
}

bool gguf_open(struct checkpoint *c, struct file *f, struct unmask_err *err)
{
    struct checkpoint_reader *r = c->reader;
    struct parser p = { .c = c };
    if (!(r->files = mem_zalloc(1, sizeof *r->files, err))) return false;
    r->files[0] = *f;
    p.file = &r->files[0];
    if (!parse_growing(&p, err)) return false;
    c->kind = CHECKPOINT_GGUF;
    r->n_files = 1;                             /* from here on the file is ours */
    return true;
}
