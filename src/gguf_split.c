/* gguf_split.c - join the parts of a split model into one checkpoint; see gguf.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "gguf.h"
#include "reader.h"

enum { SUFFIX_BYTES = sizeof "-00001-of-00003.gguf" - 1 };

static void part_suffix(char suffix[SUFFIX_BYTES + 1], size_t i, size_t n)
{
    snprintf(suffix, SUFFIX_BYTES + 1, "-%05u-of-%05u.gguf", (unsigned)(i + 1) % 100000u, (unsigned)n % 100000u);
}

char *gguf_part_path(const char *whole, size_t i, size_t n, struct unmask_err *err)
{
    static const char end[] = ".gguf";
    const size_t n_end = sizeof end - 1, n_whole = strlen(whole);
    const size_t stem = n_whole > n_end && strcmp(whole + n_whole - n_end, end) == 0 ? n_whole - n_end : n_whole;
    char *path = mem_zalloc(stem + SUFFIX_BYTES + 1, 1, err);
    if (!path) return NULL;
    memcpy(path, whole, stem);
    part_suffix(path + stem, i, n);
    return path;
}

#define PLACE(c, key) .file = (c)->path, .field = (key), .byte = AT(checkpoint_meta((c), (key))->offset)

/* Which part of how many; of a model that is not split, and of one whose parts were merged again, the only one. */
static bool read_place(const struct checkpoint *c, int64_t *no, int64_t *count, struct unmask_err *err)
{
    *no = 0;
    *count = 1;
    if (!meta_int(c, "split.count", 0, UINT16_MAX, false, count, err)) return false;
    if (*count > GGUF_MOST_PARTS)
        return fail(err, E_GGUF_SPLIT, PLACE(c, "split.count"), .found = FMT("%" PRId64 " parts", *count),
                    .need = FMT("at most %d", GGUF_MOST_PARTS), .hint = "Merge them first (llama-gguf-split --merge)");
    return *count < 2 || meta_int(c, "split.no", 0, *count - 1, true, no, err);
}

/* The paths of all parts, beside the first; those that are missing are named, all at once. */
static bool find_parts(struct checkpoint *c, char **paths, size_t n, struct unmask_err *err)
{
    char suffix[SUFFIX_BYTES + 1], missing[200] = "";
    const size_t n_path = strlen(c->path), folder = strrchr(c->path, '/') ? (size_t)(strrchr(c->path, '/') - c->path) + 1 : 0;
    size_t n_missing = 0;
    part_suffix(suffix, 0, n);
    if (n_path < SUFFIX_BYTES || strcmp(c->path + n_path - SUFFIX_BYTES, suffix) != 0)
        return fail(err, E_GGUF_SPLIT, PLACE(c, "split.count"), .found = FMT("%zu parts", n),
                    .need = FMT("a file name that ends in %s", suffix),
                    .hint = "Give the parts their names back: the others are found by them");
    char *whole = arena_strndup(&c->reader->arena, c->path, n_path - SUFFIX_BYTES, err);
    if (!whole) return false;
    for (size_t i = 1; i < n; i++) {
        if (!(paths[i] = gguf_part_path(whole, i, n, err))) return false;
        if (access(paths[i], F_OK) == 0) continue;
        snprintf(missing + strlen(missing), sizeof missing - strlen(missing), "%s%s", n_missing++ ? ", " : "", paths[i] + folder);
    }
    return n_missing == 0
           || fail(err, E_GGUF_SPLIT, PLACE(c, "split.count"), .what = FMT("%zu of %zu parts are missing", n_missing, n),
                   .found = "no such files", .need = missing, .hint = "Fetch them into the same folder");
}

/* What a part says of itself must be what the first one says of it. */
static bool check_part(const struct checkpoint *first, const struct checkpoint *part, size_t i, size_t n, struct unmask_err *err)
{
    int64_t no, count;
    struct str a = { "", 0 }, b;
    if (!read_place(part, &no, &count, err)) return false;
    if (no != (int64_t)i || count != (int64_t)n)
        return fail(err, E_GGUF_SPLIT, .file = part->path, .found = FMT("part %" PRId64 " of %" PRId64, no + 1, count),
                    .need = FMT("part %zu of %zu", i + 1, n),
                    .hint = FMT("It does not belong to %.200s", first->path));
    if (!meta_str(first, "general.architecture", false, &a, err)) return false;
    b = a;
    if (!meta_str(part, "general.architecture", false, &b, err)) return false;
    return (a.n == b.n && !memcmp(a.s, b.s, a.n))
           || fail(err, E_GGUF_SPLIT, PLACE(part, "general.architecture"),
                   .what = "parts of two models", .found = QUOTE(b.s, b.n), .need = QUOTE(a.s, a.n));
}

/* Move the part's tensors and its file to the end of c's. */
static bool take_over(struct checkpoint *c, struct checkpoint *part, struct unmask_err *err)
{
    struct checkpoint_reader *r = c->reader;
    struct file *file = &r->files[r->n_files];
    struct tensor *tensors = mem_resize(c->tensors, c->n_tensors + part->n_tensors, sizeof *tensors, err);
    if (!tensors) return false;
    c->tensors = tensors;
    for (size_t i = 0; i < part->n_tensors; i++) {
        struct tensor *t = &tensors[c->n_tensors];
        *t = part->tensors[i];
        t->file = file;
        if (!(t->name = arena_strndup(&r->arena, t->name, strlen(t->name), err))) return false;
        c->n_tensors++;
    }
    c->packed = c->packed || part->packed;
    c->spare_bytes += part->spare_bytes;
    *file = part->reader->files[0];
    part->reader->n_files = 0;
    r->n_files++;
    return true;
}

static bool join(struct checkpoint *c, size_t i, size_t n, const char *path, struct unmask_err *err)
{
    struct checkpoint part = { .path = path, .reader = &(struct checkpoint_reader){ 0 } };
    struct file f;
    if (!file_open(&f, path, err)) return false;
    bool ok = gguf_open(&part, &f, err);
    if (!ok) file_close(&f);
    ok = ok && check_part(c, &part, i, n, err) && take_over(c, &part, err);
    checkpoint_clear(&part);
    return ok;
}

/* Room for the files of n parts; the tensors of the first point at its new place. */
static bool make_room(struct checkpoint *c, size_t n, struct unmask_err *err)
{
    struct checkpoint_reader *r = c->reader;
    struct file *files = mem_zalloc(n, sizeof *files, err);
    if (!files) return false;
    files[0] = r->files[0];
    mem_free(r->files);
    r->files = files;
    for (size_t i = 0; i < c->n_tensors; i++) c->tensors[i].file = files;
    return true;
}

/* Find tensors by name again, now that all are there; and they must be all. */
static bool index_tensors(struct checkpoint *c, struct unmask_err *err)
{
    struct names *names = &c->reader->tensor_names;
    int64_t n = (int64_t)c->n_tensors;
    names_free(names);
    if (!names_init(names, c->n_tensors, err)) return false;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        size_t same = i;
        if (!names_add(names, t->name, strlen(t->name), &same))
            return fail(err, E_GGUF_DUPLICATE, .file = t->file->path, .field = t->name, .what = "the tensor is in two parts",
                        .found = FMT("it in %s too", c->tensors[same].file->path), .need = "each name once");
    }
    if (!meta_int(c, "split.tensors.count", 0, INT32_MAX, false, &n, err)) return false;
    return n == (int64_t)c->n_tensors
           || fail(err, E_GGUF_SPLIT, PLACE(c, "split.tensors.count"),
                   .what = "the parts do not hold all tensors", .found = FMT("%zu tensors", c->n_tensors), .need = FMT("%" PRId64, n));
}

bool gguf_join_parts(struct checkpoint *c, const char *const *paths, size_t n, struct unmask_err *err)
{
    char *beside[GGUF_MOST_PARTS] = { NULL };
    int64_t no, count;
    if (!read_place(c, &no, &count, err)) return false;
    if (paths && (int64_t)n != count)
        return fail(err, E_INTERNAL, .file = c->path, .found = FMT("%" PRId64 " parts", count), .need = FMT("%zu", n));
    if (count < 2) return true;
    if (no != 0)
        return fail(err, E_GGUF_SPLIT, PLACE(c, "split.no"), .found = FMT("part %" PRId64 " of %" PRId64, no + 1, count),
                    .need = "the first part",
                    .hint = FMT("Give the file whose name ends in -00001-of-%05d.gguf", (int)count));
    n = (size_t)count;
    bool ok = (paths || find_parts(c, beside, n, err)) && make_room(c, n, err);
    for (size_t i = 1; ok && i < n; i++) ok = join(c, i, n, paths ? paths[i] : beside[i], err);
    for (size_t i = 1; i < n; i++) mem_free(beside[i]);
    return ok && index_tensors(c, err);
}
