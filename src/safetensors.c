/* safetensors.c - the tensors of one *.safetensors file (huggingface/safetensors, README, "Format"):
 *
 *     u64 n    n bytes of JSON, padded with spaces    tensors' bytes, without gaps, up to the end of the file
 *     {"__metadata__": {string: string}, NAME: {"dtype": "F32", "shape": [rows, columns], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the end of the JSON.  The header is checked whole before any tensor of it is used. */
#include "safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "json.h"
#include "reader.h"

enum {
    MOST_HEADER_BYTES = 16 << 20,       /* the format allows 100,000,000; a 100B model needs under 4 MiB */
    MOST_TENSORS = 65536, MOST_NAME_BYTES = 255, MOST_DIMS = 4, MOST_DEPTH = 4, LENGTH_BYTES = 8,
};

struct header {
    const struct file *file;
    const char *text; size_t n;         /* JSON, NUL-terminated                                          */
    uint64_t data, data_bytes;          /* where the tensors' bytes begin, and how many there are        */
    const char *name; size_t n_name;    /* of the entry in hand, for messages                            */
};

/* Where the entry in hand stands in the file: jansson does not say, so its key is searched; 0 if it is written with escapes. */
static uint64_t entry_offset(const struct header *h)
{
    const char *end = h->text + h->n;
    for (const char *p = h->text; (p = memchr(p, '"', (size_t)(end - p))); p++)
        if ((size_t)(end - p) > h->n_name + 1 && p[h->n_name + 1] == '"' && !memcmp(p + 1, h->name, h->n_name))
            return LENGTH_BYTES + (uint64_t)(p - h->text);
    return 0;
}

#define ENTRY(h) .file = (h)->file->path, .field = QUOTE((h)->name, (h)->n_name), .byte = { entry_offset(h) > 0, entry_offset(h) }

static bool read_header_text(struct header *h, char **text, struct unmask_err *err)
{
    static const char lfs[] = "version https://git-lfs";
    uint8_t start[sizeof lfs - 1];
    uint64_t n = 0;
    const struct file *f = h->file;
    if (f->size >= sizeof start) {
        if (!file_read(f, 0, start, sizeof start, err)) return false;
        if (!memcmp(start, lfs, sizeof start))
            return fail(err, E_ST_POINTER, .file = f->path, .found = FMT("%" PRIu64 " bytes of text", f->size),
                        .need = "the weights it stands for", .hint = "Fetch them: git lfs pull");
    }
    if (f->size < LENGTH_BYTES + 2)
        return fail(err, E_ST_END, .file = f->path, .byte = AT(f->size), .found = FMT("%" PRIu64 " bytes", f->size), .need = "a header",
                    .hint = "It is cut short or damaged: fetch it again");
    if (!file_read(f, 0, start, LENGTH_BYTES, err)) return false;
    struct cursor in = cursor_over(start, LENGTH_BYTES);
    cursor_u64(&in, &n);
    if (n > MOST_HEADER_BYTES)
        return fail(err, E_ST_LIMIT, .file = f->path, .field = "header length", .byte = AT(0), .found = FMT("%" PRIu64 " bytes", n),
                    .need = FMT("at most %d", MOST_HEADER_BYTES), .hint = "Perhaps this is no safetensors file");
    if (n > f->size - LENGTH_BYTES)
        return fail(err, E_ST_END, .file = f->path, .field = "header length", .byte = AT(0), .found = FMT("%" PRIu64, n),
                    .need = FMT("at most %" PRIu64 ", the bytes that follow", f->size - LENGTH_BYTES),
                    .hint = "It is cut short or damaged: fetch it again");
    if (n < 2)
        return fail(err, E_ST_HEADER, .file = f->path, .field = "header length", .byte = AT(0), .found = FMT("%" PRIu64, n),
                    .need = "at least 2");
    if (!(*text = mem_zalloc((size_t)n + 1, 1, err)) || !file_read(f, LENGTH_BYTES, *text, (size_t)n, err)) return false;
    h->text = *text;
    h->n = (size_t)n;
    h->data = LENGTH_BYTES + n;
    h->data_bytes = f->size - h->data;
    if (**text != '{')
        return fail(err, E_ST_HEADER, .file = f->path, .byte = AT(LENGTH_BYTES), .found = QUOTE(*text, 1), .need = "'{'",
                    .hint = "Perhaps this is no safetensors file");
    return true;
}

/* All numbers of a header are non-negative integers: a sign outside strings is an error, "-0" too. */
static bool refuse_signs(const struct header *h, struct unmask_err *err)
{
    bool in_string = false;
    for (size_t i = 0; i < h->n; i++) {
        if (h->text[i] == '"') in_string = !in_string;
        else if (in_string && h->text[i] == '\\') i++;
        else if (!in_string && h->text[i] == '-')
            return fail(err, E_ST_HEADER, .file = h->file->path, .byte = AT(LENGTH_BYTES + i),
                        .found = "a negative number", .need = "sizes and offsets");
    }
    return true;
}

/* Sizes and offsets: an array of `least` to `most` integers. */
static bool read_integers(const struct header *h, const json_t *a, const char *what, size_t least, size_t most,
                          uint64_t *v, struct unmask_err *err)
{
    const size_t n = json_array_size(a);
    if (!json_is_array(a) || n < least || n > most)
        return fail(err, E_ST_HEADER, ENTRY(h), .what = FMT("%s is malformed", what),
                    .found = json_is_array(a) ? FMT("%zu numbers", n) : a ? "no array" : "nothing",
                    .need = least == most ? FMT("an array of %zu numbers", most) : FMT("an array of at most %zu numbers", most));
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(a, i);
        if (!json_is_integer(item) || json_integer_value(item) < 0)
            return fail(err, E_ST_HEADER, ENTRY(h), .what = FMT("%s is malformed", what),
                        .found = "something else", .need = "integers from 0 to 2^63 - 1");
        v[i] = (uint64_t)json_integer_value(item);
    }
    return true;
}

static bool read_format(const struct header *h, const json_t *dtype, struct tensor *t, struct unmask_err *err)
{
    const char *s = json_is_string(dtype) ? json_string_value(dtype) : "";
    const size_t n = strlen(s);
    if ((t->format = quant_format_by_safetensors(s, n))) return true;
    return fail(err, E_ST_DTYPE, ENTRY(h), .found = json_is_string(dtype) ? QUOTE(s, n) : "no dtype", .need = "F32, F16 or BF16");
}

/* The shape is written slowest first; struct tensor has the fastest first. */
static bool read_shape(const struct header *h, const json_t *shape, struct tensor *t, struct unmask_err *err)
{
    uint64_t dims[MOST_DIMS], count = 1;
    if (!read_integers(h, shape, "shape", 0, MOST_DIMS, dims, err)) return false;
    t->n_dims = (int)json_array_size(shape);
    for (int i = 0; i < MOST_DIMS; i++) {
        t->shape[i] = i < t->n_dims ? dims[t->n_dims - 1 - i] : 1;
        if (!u64_mul(count, t->shape[i], &count))
            return fail(err, E_ST_HEADER, ENTRY(h), .what = "shape is too large", .need = "fewer than 2^64 numbers");
    }
    if (!u64_mul(count, (uint64_t)t->format->block_bytes, &t->bytes))
        return fail(err, E_ST_HEADER, ENTRY(h), .what = "shape is too large", .need = "fewer than 2^64 bytes");
    return true;
}

static bool read_entry(const struct header *h, const json_t *entry, struct tensor *t, struct unmask_err *err)
{
    uint64_t range[2];
    if (!json_is_object(entry) || json_object_size(entry) != 3)
        return fail(err, E_ST_HEADER, ENTRY(h), .what = "an entry is malformed", .need = "an object of dtype, shape and data_offsets");
    if (!read_format(h, json_object_get(entry, "dtype"), t, err) || !read_shape(h, json_object_get(entry, "shape"), t, err)
        || !read_integers(h, json_object_get(entry, "data_offsets"), "data_offsets", 2, 2, range, err)) return false;
    if (range[0] > range[1] || range[1] - range[0] != t->bytes)
        return fail(err, E_ST_RANGE, ENTRY(h), .found = FMT("bytes %" PRIu64 " to %" PRIu64, range[0], range[1]),
                    .need = FMT("%" PRIu64 " bytes for its shape", t->bytes));
    if (range[1] > h->data_bytes)
        return fail(err, E_ST_END, ENTRY(h), .found = FMT("%" PRIu64 " bytes of tensors", h->data_bytes), .need = FMT("%" PRIu64, range[1]),
                    .hint = "The file is cut short or damaged: fetch it again");
    t->offset = h->data + range[0];
    return true;
}

static bool check_metadata(const struct header *h, const json_t *object, struct unmask_err *err)
{
    const char *key;
    json_t *v;
    bool ok = json_is_object(object);
    json_object_foreach((json_t *)object, key, v) ok = ok && json_is_string(v);
    return ok || fail(err, E_ST_HEADER, ENTRY(h), .what = "__metadata__ is malformed", .need = "an object of strings");
}

static int by_place(const void *a, const void *b)
{
    const struct tensor *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

/* Sorted by place, the tensors must fill the data without overlap, hole or rest. */
static bool check_ranges(struct header *h, const struct tensor *t, size_t n, struct unmask_err *err)
{
    uint64_t at = h->data;
    for (size_t i = 0; i < n; at = t[i].offset + t[i].bytes, i++) {
        if (t[i].offset == at) continue;
        h->name = t[i].name;
        h->n_name = strlen(t[i].name);
        return fail(err, E_ST_RANGE, ENTRY(h),
                    .what = t[i].offset < at ? "its bytes overlap those of another tensor" : "there is a hole before its bytes",
                    .found = FMT("begin at byte %" PRIu64 " of the file", t[i].offset), .need = FMT("%" PRIu64, at));
    }
    return at == h->file->size
           || fail(err, E_ST_RANGE, .file = h->file->path, .what = "bytes follow the last tensor", .byte = AT(at),
                   .found = FMT("%" PRIu64 " bytes", h->file->size - at), .need = "none");
}

static bool append_entries(struct checkpoint *c, struct header *h, json_t *root, struct unmask_err *err)
{
    const size_t first = c->n_tensors, n = json_object_size(root);
    if (first + n > MOST_TENSORS)
        return fail(err, E_ST_LIMIT, .file = h->file->path, .what = "too many tensors",
                    .found = FMT("%zu", first + n), .need = FMT("at most %d", MOST_TENSORS));
    struct tensor *t = mem_resize(c->tensors, first + n, sizeof *t, err);
    if (!t) return false;
    c->tensors = t;
    json_t *entry;
    json_object_foreach(root, h->name, entry) {
        h->n_name = strlen(h->name);
        if (!strcmp(h->name, "__metadata__")) {
            if (!check_metadata(h, entry, err)) return false;
            continue;
        }
        if (h->n_name == 0 || h->n_name > MOST_NAME_BYTES)
            return fail(err, E_ST_HEADER, ENTRY(h), .what = "a tensor's name has a bad length",
                        .found = FMT("%zu bytes", h->n_name), .need = FMT("1 to %d", MOST_NAME_BYTES));
        struct tensor *new = &t[c->n_tensors];
        *new = (struct tensor){ .file = h->file, .name = arena_strndup(&c->reader->arena, h->name, h->n_name, err) };
        if (!new->name || !read_entry(h, entry, new, err)) return false;
        c->n_tensors++;
    }
    qsort(t + first, c->n_tensors - first, sizeof *t, by_place);
    return check_ranges(h, t + first, c->n_tensors - first, err);
}

bool safetensors_append(struct checkpoint *c, const struct file *f, struct unmask_err *err)
{
    struct header h = { .file = f };
    char *text = NULL;
    json_t *root = NULL;
    bool ok = read_header_text(&h, &text, err) && (root = json_parse(text, h.n, f->path, MOST_DEPTH, err)) != NULL;
    if (text && !ok && err && !strncmp(err->id, "E-JSON", 6)) err->offset += LENGTH_BYTES;      /* from the start of the file */
    ok = ok && refuse_signs(&h, err) && append_entries(c, &h, root, err);
    json_decref(root);
    mem_free(text);
    return ok;
}
