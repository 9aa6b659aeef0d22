/* test_gguf.c - the GGUF reader on good and bad files, each made here, and the writer through the reader. */
#include "testing.h"

#include <inttypes.h>

#include "checkpoint.h"
#include "gguf.h"

/* ---- a builder of files, right or wrong --------------------------------------------------------- */

struct build { uint8_t b[1 << 16]; size_t n; };
static struct build g;          /* the file under construction */

static void raw(const void *p, size_t n) { assert_true(n <= sizeof g.b - g.n); memcpy(g.b + g.n, p, n); g.n += n; }
static void num(uint64_t v, int bytes) { for (int i = 0; i < bytes; i++) raw(&(uint8_t){ (uint8_t)(v >> 8 * i) }, 1); }
static void u32(uint32_t v) { num(v, 4); }
static void u64(uint64_t v) { num(v, 8); }
static void text(const char *s) { u64(strlen(s)); raw(s, strlen(s)); }
static void header(uint32_t version, uint64_t n_tensors, uint64_t n_metas)
{
    g.n = 0;
    raw("GGUF", 4);
    u32(version);
    u64(n_tensors);
    u64(n_metas);
}
static void key(const char *s, uint32_t type) { text(s); u32(type); }
static void key_u32(const char *s, uint32_t v) { key(s, META_U32); u32(v); }
static void tensor(const char *name, uint32_t format, uint64_t offset, uint32_t n_dims, uint64_t a, uint64_t b, uint64_t c,
                   uint64_t d)
{
    const uint64_t dims[4] = { a, b, c, d };
    text(name);
    u32(n_dims);
    for (uint32_t i = 0; i < n_dims && i < 4; i++) u64(dims[i]);
    u32(format);
    u64(offset);
}
static void align_to(size_t n) { while (g.n % n) num(0, 1); }
static void zeros(size_t n) { while (n--) num(0, 1); }

enum { F32 = 0, F16 = 1, Q4_0 = 2, Q8_0 = 8 };

/* A small valid file with every type of value and three tensors. */
static void valid_file(void)
{
    header(3, 3, 16);
    key("general.architecture", META_STRING); text("llada");
    key("a.u8", META_U8); num(200, 1);
    key("a.i8", META_I8); num(0xFE, 1);
    key("a.u16", META_U16); num(60000, 2);
    key("a.i16", META_I16); num((uint16_t)-300, 2);
    key_u32("a.u32", 4000000000u);
    key("a.i32", META_I32); u32((uint32_t)-5);
    key("a.f32", META_F32); u32(0x3FC00000);
    key("a.bool", META_BOOL); num(1, 1);
    key("a.u64", META_U64); u64(UINT64_MAX);
    key("a.i64", META_I64); u64((uint64_t)-7);
    key("a.f64", META_F64); u64(0x4004000000000000u);
    key("a.strings", META_ARRAY); u32(META_STRING); u64(3); text("x"); text(""); text("yz");
    key("a.ints", META_ARRAY); u32(META_I32); u64(2); u32(1); u32(2);
    key("a.bools", META_ARRAY); u32(META_BOOL); u64(2); num(0, 1); num(1, 1);
    key_u32("general.alignment", 64);
    tensor("w.weight", F32, 0, 2, 3, 5, 1, 1);      /* 60 bytes */
    tensor("q.weight", Q8_0, 64, 2, 64, 2, 1, 1);   /* 136 bytes */
    tensor("n.weight", F16, 256, 1, 7, 1, 1, 1);    /* 14 bytes */
    align_to(64);
    for (int i = 0; i < 256 + 14; i++) num((uint64_t)i, 1);
}

static struct unmask_err err;

static struct checkpoint *try_open(void)
{
    struct checkpoint *c = NULL;
    memset(&err, 0, sizeof err);
    return checkpoint_open(&c, scratch_write("t.gguf", g.b, g.n), &err) ? c : NULL;
}

static void refused(const char *id, const char *part1, const char *part2)
{
    struct checkpoint *c = try_open();
    if (c) {
        checkpoint_close(c);
        fail_msg("accepted; expected %s %s", id, part1);
    }
    expect_err(&err, id, "t.gguf", part1, part2, NULL);
    assert_int_equal(err.status, UNMASK_EMODEL);
}

static void accepted_with_spare(uint64_t bytes)
{
    struct checkpoint *c = NULL;
    OK(checkpoint_open(&c, scratch_write("t.gguf", g.b, g.n), &err), err);
    assert_int_equal(c->spare_bytes, bytes);
    checkpoint_close(c);
}
static void accepted(void) { accepted_with_spare(0); }

/* ---- valid files ---------------------------------------------------------------------------------- */

static void reads_every_type_and_tensor(void **state)
{
    (void)state;
    struct checkpoint *c;
    valid_file();
    OK(c = try_open(), err);
    assert_int_equal(c->kind, CHECKPOINT_GGUF);
    assert_int_equal(c->n_metas, 16);
    assert_int_equal(c->n_tensors, 3);
    assert_int_equal(checkpoint_meta(c, "a.u8")->v.u, 200);
    assert_int_equal(checkpoint_meta(c, "a.i8")->v.i, -2);
    assert_int_equal(checkpoint_meta(c, "a.u16")->v.u, 60000);
    assert_int_equal(checkpoint_meta(c, "a.i16")->v.i, -300);
    assert_int_equal(checkpoint_meta(c, "a.u32")->v.u, 4000000000u);
    assert_int_equal(checkpoint_meta(c, "a.i32")->v.i, -5);
    assert_true(checkpoint_meta(c, "a.f32")->v.f == 1.5);
    assert_true(checkpoint_meta(c, "a.bool")->v.b);
    assert_true(checkpoint_meta(c, "a.u64")->v.u == UINT64_MAX);
    assert_int_equal(checkpoint_meta(c, "a.i64")->v.i, -7);
    assert_true(checkpoint_meta(c, "a.f64")->v.f == 2.5);
    assert_null(checkpoint_meta(c, "a.none"));
    const struct meta *m = checkpoint_meta(c, "a.ints");
    assert_int_equal(m->item_type, META_I32);
    assert_int_equal(m->n_items, 2);
    assert_int_equal(m->items.n, 8);

    const struct tensor *t = checkpoint_tensor(c, "q.weight");
    assert_non_null(t);
    assert_string_equal(t->format->name, "q8_0");
    assert_int_equal(t->n_dims, 2);
    assert_true(t->shape[0] == 64 && t->shape[1] == 2 && t->shape[2] == 1 && t->shape[3] == 1);
    assert_int_equal(t->bytes, 136);
    assert_int_equal(t->offset % 64, 0);
    uint8_t bytes[136];
    OK(checkpoint_read(t, 0, bytes, sizeof bytes, &err), err);
    for (int i = 0; i < 136; i++) assert_int_equal(bytes[i], 64 + i);
    assert_false(checkpoint_read(t, 100, bytes, 37, &err));
    expect_err(&err, "E-INT-001", "q.weight", NULL);
    assert_null(checkpoint_tensor(c, "none"));
    checkpoint_close(c);
}

static void version_2_is_read(void **state)
{
    (void)state;
    valid_file();
    g.b[4] = 2;
    accepted();
}

/* Metadata larger than the first window of the reader. */
static void metadata_of_several_megabytes(void **state)
{
    (void)state;
    enum { STRINGS = 300000 };
    struct gguf_writer *w;
    struct outfile o;
    struct str *s = calloc(STRINGS, sizeof *s);
    struct checkpoint *c;
    for (int i = 0; i < STRINGS; i++) s[i] = (struct str){ &"0123456789"[i % 5], (size_t)(i % 6) };
    OK(gguf_writer_new(&w, &err), err);
    OK(gguf_put_strs(w, "many", s, STRINGS, &err), err);
    OK(gguf_put_u32(w, "last", 7, &err), err);
    const char *path = scratch("big.gguf");
    OK(outfile_open(&o, path, true, gguf_writer_bytes(w), &err), err);
    OK(gguf_write_header(w, &o, &err), err);
    OK(outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    OK(checkpoint_open(&c, path, &err), err);
    uint64_t at = 0;
    struct str item;
    for (int i = 0; i < STRINGS; i++) {
        if (!meta_next_string(checkpoint_meta(c, "many"), &at, &item)) fail_msg("string %d", i);
        if (item.n != s[i].n || memcmp(item.s, s[i].s, item.n)) fail_msg("string %d", i);
    }
    assert_false(meta_next_string(checkpoint_meta(c, "many"), &at, &item));
    assert_int_equal(checkpoint_meta(c, "last")->v.u, 7);
    checkpoint_close(c);
    free(s);
}

/* The first window of the reader (1 MiB) ends at any place of metadata or tensor list: both are parsed anew, once. */
static void windows_end_anywhere(void **state)
{
    (void)state;
    enum { WINDOW = 1 << 20, PAD = 8 + 3 + 4 + 8 };              /* a first key "pad" moves everything else */
    struct checkpoint *c;
    valid_file();
    const size_t metadata = g.n - (256 + 14);
    uint8_t *b = malloc(WINDOW + g.n + PAD);
    for (size_t before = 0; before < metadata + 64; before += 64) {     /* bytes of the small file before the window's end */
        const size_t moved = (size_t)WINDOW - before;            /* a multiple of 64, so that the data stays aligned */
        struct build small = g;
        memset(b, 'x', WINDOW + g.n);
        header(3, 3, 17);
        key("pad", META_STRING);
        u64(moved - PAD);
        memcpy(b, g.b, g.n);
        g = small;
        memcpy(b + 24 + moved, g.b + 24, g.n - 24);
        OK(checkpoint_open(&c, scratch_write("moved.gguf", b, moved + g.n), &err), err);
        assert_int_equal(c->n_metas, 17);
        assert_int_equal(checkpoint_meta(c, "a.i64")->v.i, -7);
        uint8_t bytes[14];
        OK(checkpoint_read(checkpoint_tensor(c, "n.weight"), 0, bytes, sizeof bytes, &err), err);
        for (int i = 0; i < 14; i++) assert_int_equal(bytes[i], i);
        checkpoint_close(c);
    }
    free(b);
}

/* ---- header ---------------------------------------------------------------------------------------- */

static void other_files_are_named(void **state)
{
    (void)state;
    static const struct { const char *bytes; size_t n; const char *part1, *part2; } cases[] = {
        { "", 0, "the file is empty (0 bytes)", "" },
        { "XYZW9999", 8, "found \"XYZW\"", "need \"GGUF\"" },
        { "\x01\x02\x03\x04zz", 6, "\\x01\\x02\\x03\\x04", "byte 0" },
        { "PK\3\4aaaaaaaa", 12, "zip archive", "Unpack" },
        { "\x40\0\0\0\0\0\0\0{\"a\":1}", 15, "safetensors", "folder" },
        { "<!DOCTYPE html><html>", 21, "HTML page", "fetch the file itself" },
        { "<html><body>", 12, "HTML page", "" },
        { "version https://git-lfs.github.com/spec/v1\noid", 46, "Git LFS pointer", "git lfs pull" },
        { "\x1f\x8b\x08\0\0", 5, "gzip", "unpack it first" },
        { "\x28\xb5\x2f\xfd\0", 5, "zstd", "unpack it first" },
        { "\xfd" "7zXZ\0\0", 7, "xz data", "unpack it first" },
        { "BZh91AY", 7, "bzip2", "unpack it first" },
        { "\0\0\0\0\0\0\0\0", 8, "zeros", "did not finish" },
        { "tjgg\1\0\0\0", 8, "GGJT", "Convert" },
        { "{\"a\": 1}", 8, "JSON", "folder" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        g.n = 0;
        raw(cases[i].bytes, cases[i].n);
        refused("E-GGUF-001", cases[i].part1, cases[i].part2);
    }
}

static void header_numbers(void **state)
{
    (void)state;
    for (size_t n = 1; n <= 4; n++) {
        g.n = 0;
        raw("GGUF", n);
        refused("E-GGUF-003", "ends inside the header", n < 4 ? "byte 0" : "byte 4");
    }
    g.n = 0;
    raw("GGUF", 4);
    zeros(100);
    refused("E-GGUF-002", "the header is zeroed", "did not finish");
    static const uint32_t bad[] = { 0, 1, 4, 0xFFFFFFFF };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char found[32];
        snprintf(found, sizeof found, "version %" PRIu32, bad[i]);
        header(bad[i], 1, 1);
        refused("E-GGUF-002", found, "need 2 or 3");
    }
    header(0x03000000, 1, 1);
    refused("E-GGUF-002", "big-endian", "Convert");
    static const uint64_t counts[] = { UINT64_MAX, 1u << 31, UINT64_C(1) << 63, 65537 };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
        header(3, counts[i], 0);
        refused("E-GGUF-004", "too many tensors", "65536");
        header(3, 0, counts[i]);
        refused("E-GGUF-004", "too many metadata entries", "65536");
    }
    header(3, 65536, 0);
    zeros(1000);
    refused("E-GGUF-003", "too short for its tensors", "byte 8");
    header(3, 0, 65536);
    zeros(1000);
    refused("E-GGUF-003", "too short for its metadata entries", "byte 16");
    header(3, 0, 2);
    key_u32("a.key.of.some.length", 1);
    refused("E-GGUF-003", "metadata entry 2 of 2", "byte 60");
}

/* ---- metadata --------------------------------------------------------------------------------------- */

static void keys(void **state)
{
    (void)state;
    static const uint64_t lengths[] = { 0, 65536, UINT64_C(1) << 63, UINT64_MAX };
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        header(3, 0, 1);
        u64(lengths[i]);
        zeros(64);
        refused("E-GGUF-005", "a key of a length that is not allowed", "byte 24");
    }
    static const struct { const char *s; size_t n; const char *shown; } bad[] = {
        { "a\0b", 3, "a\\x00b" }, { "a\nb", 3, "a\\x0ab" }, { "a\x1b[2J", 5, "a\\x1b[2J" }, { "\xff" "ab", 3, "\\xffab" },
        { "\xc0\x80", 2, "\\xc0\\x80" },
        { "x\x7f", 2, "x\\x7f" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        header(3, 0, 1);
        u64(bad[i].n);
        raw(bad[i].s, bad[i].n);
        u32(META_U32);
        u32(1);
        refused("E-GGUF-005", "not plain text", bad[i].shown);
    }
    for (uint32_t second = 1; second < 3; second++) {           /* equal and unequal values */
        header(3, 0, 3);
        key_u32("twice", 1);
        key_u32("other", 1);
        key_u32("twice", second);
        refused("E-GGUF-006", "twice, byte 66", "byte 24");
    }
}

static void values(void **state)
{
    (void)state;
    static const uint32_t types[] = { 13, UINT32_MAX, UINT32_C(1) << 31 };
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        header(3, 0, 1);
        key("k", types[i]);
        zeros(64);
        refused("E-GGUF-007", "(k, byte 33)", "need 0 to 12");
        header(3, 0, 1);
        key("k", META_ARRAY);
        u32(types[i]);
        zeros(64);
        refused("E-GGUF-007", "(k, byte 37)", "need 0 to 12");
    }
    header(3, 0, 1);
    key("k", META_ARRAY);
    for (int i = 0; i < 1000; i++) { u32(META_ARRAY); u64(1); }
    refused("E-GGUF-008", "nested arrays are not allowed", "(k, byte 37)");
    static const uint64_t too_many[] = { UINT64_C(1) << 30, UINT64_C(1) << 61, UINT64_MAX };
    for (uint32_t type = 0; type <= META_F64; type++) {
        if (type == META_ARRAY) continue;
        for (size_t i = 0; i < ARRAY_LEN(too_many); i++) {
            header(3, 0, 1);
            key("k", META_ARRAY);
            u32(type);
            u64(too_many[i]);
            zeros(64);
            refused("E-GGUF-004", "an array is too long", "(k, byte 41)");
        }
        header(3, 0, 1);
        key("k", META_ARRAY);
        u32(type);
        u64(100);
        zeros(64);
        refused("E-GGUF-003", "ends inside metadata entry 1 of 1", "(k, byte");
    }
    header(3, 0, 1);
    key("k", META_STRING);
    u64(1 << 30);
    zeros(64);
    refused("E-GGUF-004", "a string is too long", "1073741824");
    header(3, 0, 1);
    key("k", META_STRING);
    u64(1 << 20);
    zeros(64);
    refused("E-GGUF-003", "ends inside metadata entry 1 of 1", "need 1048576 more");
    static const uint8_t not_bool[] = { 2, 255 };
    for (size_t i = 0; i < 2; i++) {
        header(3, 0, 1);
        key("k", META_BOOL);
        num(not_bool[i], 1);
        refused("E-GGUF-009", "(k, byte 37)", "need 0 or 1");
        header(3, 0, 1);
        key("k", META_ARRAY);
        u32(META_BOOL);
        u64(3);
        num(1, 1); num(0, 1); num(not_bool[i], 1);
        refused("E-GGUF-009", "(k, byte 51)", "need 0 or 1");
    }
}

static void layout_keys(void **state)
{
    (void)state;
    static const uint32_t bad[] = { 0, 3, 1, 4, 48, 131072, UINT32_C(1) << 31, UINT32_MAX };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        header(3, 0, 1);
        key_u32("general.alignment", bad[i]);
        refused("E-GGUF-010", "general.alignment", "a power of two from 8 to 65536");
    }
    header(3, 0, 1);
    key("general.alignment", META_U64); u64(32);
    refused("E-GGUF-010", "found u64", "need u32");
    header(3, 0, 1);
    key("general.alignment", META_STRING); text("32");
    refused("E-GGUF-010", "found string", "need u32");
    header(3, 0, 2);
    key_u32("general.alignment", 32);
    key_u32("general.alignment", 32);
    refused("E-GGUF-006", "general.alignment", "given twice");
    for (uint32_t a = 8; a <= 65536; a *= 2) {
        header(3, 1, 1);
        key_u32("general.alignment", a);
        tensor("w", F32, 0, 1, 1, 1, 1, 1);
        if (a > 8192) { refused("E-GGUF-003", "before the end of tensor", "w"); continue; }
        align_to(a);
        zeros(4);
        accepted();
    }
    header(3, 0, 1);
    key("split.count", META_U16); num(3, 2);
    refused("E-META-001", "split.no", "missing");
    header(3, 0, 1);
    key("split.count", META_STRING); text("3");
    refused("E-META-002", "split.count", "found string");
    for (uint32_t parts = 0; parts < 2; parts++) {
        header(3, 0, 1);
        key_u32("split.count", parts);
        accepted();
    }
}

static void keys_by_the_million(void **state)
{
    (void)state;
    enum { KEYS = 65536 };
    const size_t size = 24 + (size_t)KEYS * (8 + 8 + 4 + 4);
    uint8_t *b = malloc(size), *p = b;
    header(3, 0, KEYS);
    memcpy(p, g.b, 24);
    p += 24;
    for (uint32_t i = 0; i < KEYS; i++, p += 24) {
        char name[16];
        snprintf(name, sizeof name, "key%05u", i);
        memcpy(p, (uint8_t[]){ 8, 0, 0, 0, 0, 0, 0, 0 }, 8);
        memcpy(p + 8, name, 8);
        memcpy(p + 16, (uint8_t[]){ META_U32, 0, 0, 0, (uint8_t)i, (uint8_t)(i >> 8), 0, 0 }, 8);
    }
    struct checkpoint *c;
    const char *path = scratch_write("keys.gguf", b, size);
    OK(checkpoint_open(&c, path, &err), err);
    for (uint32_t i = 0; i < KEYS; i += 101) {
        char name[16];
        snprintf(name, sizeof name, "key%05u", i);
        assert_int_equal(checkpoint_meta(c, name)->v.u, i);
    }
    checkpoint_close(c);
    free(b);
}

/* ---- tensors ---------------------------------------------------------------------------------------- */

static void one_tensor(const char *name, uint32_t format, uint64_t offset, uint32_t n_dims, uint64_t a, uint64_t b, uint64_t c,
                       uint64_t d)
{
    header(3, 1, 0);
    tensor(name, format, offset, n_dims, a, b, c, d);
    align_to(32);
    zeros(128);
}

static void tensor_names(void **state)
{
    (void)state;
    char name[65] = "";
    memset(name, 'a', 64);
    one_tensor("", F32, 0, 1, 1, 1, 1, 1);
    refused("E-GGUF-005", "a tensor name of a length", "found 0 bytes");
    one_tensor(name, F32, 0, 1, 1, 1, 1, 1);
    refused("E-GGUF-005", "a tensor name of a length", "found 64 bytes");
    one_tensor(name + 1, F32, 0, 1, 1, 1, 1, 1);
    accepted_with_spare(96);
    header(3, 1, 0);
    u64(1 << 20);
    zeros(64);
    refused("E-GGUF-005", "a tensor name of a length", "found 1048576 bytes");
    one_tensor("../x", F32, 0, 1, 1, 1, 1, 1);
    refused("E-GGUF-005", "looks like a path", "../x");
    one_tensor("a\x01", F32, 0, 1, 1, 1, 1, 1);
    refused("E-GGUF-005", "not plain text", "a\\x01");
    header(3, 2, 0);
    tensor("w", F32, 0, 1, 1, 1, 1, 1);
    tensor("w", F32, 32, 1, 1, 1, 1, 1);
    align_to(32);
    zeros(64);
    refused("E-GGUF-006", "listed twice", "entries 1 and 2");
}

static void tensor_shapes(void **state)
{
    (void)state;
    static const uint32_t dims[] = { 0, 5, UINT32_MAX };
    for (size_t i = 0; i < ARRAY_LEN(dims); i++) {
        one_tensor("w", F32, 0, dims[i], 1, 1, 1, 1);
        refused("E-GGUF-011", "(w, byte 33)", "need 1 to 4");
    }
    static const uint64_t bad[] = { 0, UINT64_MAX, UINT64_C(1) << 63 };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        one_tensor("w", F32, 0, 1, bad[i], 1, 1, 1);
        refused("E-GGUF-011", "(w, byte 37)", "dimension 0");
        one_tensor("w", F32, 0, 2, 1, bad[i], 1, 1);
        refused("E-GGUF-011", "(w, byte 45)", "dimension 1");
    }
    one_tensor("w", F32, 0, 4, UINT64_C(1) << 32, UINT64_C(1) << 31, 2, 1);
    refused("E-GGUF-011", "(w, byte 53)", "below 2^64");
    one_tensor("w", F32, 0, 1, INT64_MAX, 1, 1, 1);              /* 2^63 - 1 values, x 4 bytes */
    refused("E-GGUF-011", "does not fit in 64 bits", "(w, byte 33)");
    one_tensor("w", F32, 0, 2, UINT64_C(1) << 31, UINT64_C(1) << 31, 1, 1);
    refused("E-GGUF-011", "does not fit in 64 bits", "");
    one_tensor("w", Q4_0, 0, 1, 48, 1, 1, 1);
    refused("E-GGUF-011", "found rows of 48", "a multiple of 32 for q4_0");
    one_tensor("w", format_q4_k.gguf_type, 0, 1, 288, 1, 1, 1);
    refused("E-GGUF-011", "found rows of 288", "a multiple of 256 for q4_k");
    static const uint32_t formats[] = { UINT32_MAX, 4, 5, 10, 1000000 };
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        one_tensor("w", formats[i], 0, 1, 256, 1, 1, 1);
        refused("E-GGUF-012", formats[i] == 10 ? "type 10 (q2_K)" : "(w, byte 45)", "one of f32, f16");
    }
}

static void tensor_places(void **state)
{
    (void)state;
    one_tensor("w", F32, 16, 1, 1, 1, 1, 1);
    refused("E-GGUF-013", "not aligned", "a multiple of 32");
    one_tensor("w", F32, 96, 1, 8, 1, 1, 1);                     /* ends with the file */
    accepted_with_spare(96);
    one_tensor("w", F32, 96, 1, 9, 1, 1, 1);
    refused("E-GGUF-003", "before the end of tensor 1 of 1", "need bytes 160 to 196");
    one_tensor("w", F32, 128, 1, 1, 1, 1, 1);
    refused("E-GGUF-003", "before the end of tensor 1 of 1", "found 192 bytes in the file");
    one_tensor("w", F32, UINT64_MAX - 31, 1, 1, 1, 1, 1);        /* data + offset wraps */
    refused("E-GGUF-013", "an end below 2^64", "w");
    one_tensor("w", F32, UINT64_MAX - 127, 1, 16, 1, 1, 1);       /* data + offset fits, + bytes wraps */
    refused("E-GGUF-013", "an end below 2^64", "w");
    header(3, 40, 0);                                            /* the sum of the sizes wraps */
    for (int i = 0; i < 40; i++) {
        char name[16];
        snprintf(name, sizeof name, "w%d", i);
        tensor(name, F32, 0, 1, UINT64_C(1) << 60, 1, 1, 1);
    }
    refused("E-GGUF-003", "before the end of tensor 1 of 40", "w0");
    header(3, 1, 0);
    tensor("w", F32, 0, 1, 1, 1, 1, 1);                          /* no data at all */
    refused("E-GGUF-003", "before the end of tensor 1 of 1", "It is cut short");
}

static void two_tensors(uint64_t offset1, uint64_t offset2)
{
    header(3, 2, 0);
    tensor("a", F32, offset1, 1, 16, 1, 1, 1);
    tensor("b", F32, offset2, 1, 16, 1, 1, 1);
    align_to(32);
    zeros(256);
}

static void overlap_is_refused_holes_are_not(void **state)
{
    (void)state;
    two_tensors(0, 0);
    refused("E-GGUF-014", "share bytes", "");
    two_tensors(0, 32);
    refused("E-GGUF-014", "(b, byte", "found a at bytes");
    two_tensors(64, 32);
    refused("E-GGUF-014", "(a, byte", "found b at bytes");
    two_tensors(0, 64);                                          /* and bytes after the last tensor */
    accepted_with_spare(256 - 128);
    two_tensors(64, 192);                                        /* two holes */
    accepted_with_spare(64 + 64);
    two_tensors(192, 32);                                        /* another order */
    accepted_with_spare(32 + 96);
    two_tensors(0, 192);                                         /* what is left out at the end is no hole */
    g.n -= 32;
    refused("E-GGUF-003", "before the end of tensor 2 of 2", "");
}

/* ---- every truncation and mutation ------------------------------------------------------------------- */

static void every_truncation_is_refused(void **state)
{
    (void)state;
    valid_file();
    const size_t whole = g.n;
    accepted();
    for (size_t n = 0; n < whole; n++) {
        g.n = n;
        refused(n == 0 ? "E-GGUF-001" : "E-GGUF-003", n == 0 ? "empty" : "the file", "");
    }
}

/* Any value of one byte: an answer, never a crash; and whatever is accepted can be read. */
static void every_one_byte_change_gets_an_answer(void **state)
{
    (void)state;
    valid_file();
    const size_t metadata = g.n - (256 + 14);
    int n_accepted = 0, n_refused = 0;
    for (size_t i = 0; i < metadata; i++) {
        static const uint8_t flips[] = { 0x01, 0x02, 0x10, 0x80, 0xFF };
        for (size_t k = 0; k < ARRAY_LEN(flips); k++) {
            g.b[i] ^= flips[k];
            struct checkpoint *c = try_open();
            for (size_t t = 0; c && t < c->n_tensors; t++) {
                uint8_t bytes[512];
                assert_true(c->tensors[t].bytes <= sizeof bytes);
                OK(checkpoint_read(&c->tensors[t], 0, bytes, (size_t)c->tensors[t].bytes, &err), err);
            }
            if (!c) assert_true(err.id[0] && err.what[0]);
            *(c ? &n_accepted : &n_refused) += 1;
            checkpoint_close(c);
            g.b[i] ^= flips[k];
        }
    }
    assert_true(n_accepted > 100 && n_refused > 100);
}

/* ---- what is not a file, and files that change --------------------------------------------------------- */

static void a_huge_sparse_file_costs_nothing(void **state)
{
    (void)state;
    struct checkpoint *c;
    header(3, 0, 0);
    const char *path = scratch_write("sparse.gguf", g.b, g.n);
    if (truncate(path, (off_t)1 << 40) != 0) skip();             /* a file system without sparse files of 1 TiB */
    OK(checkpoint_open(&c, path, &err), err);
    assert_int_equal(c->n_tensors, 0);
    checkpoint_close(c);
    unlink(path);
}

static void too_much_metadata(void **state)
{
    (void)state;
    struct checkpoint *c;
    header(3, 0, 5);
    for (int i = 0; i < 5; i++) {                               /* five strings of 64 MiB are over the limit of 256 MiB */
        char name[8];
        snprintf(name, sizeof name, "k%d", i);
        key(name, META_STRING);
        u64(64 << 20);
        if (i == 0) break;
    }
    const char *path = scratch_write("much.gguf", g.b, g.n);
    FILE *f = fopen(path, "r+b");
    uint64_t at = g.n;
    for (int i = 1; i < 5; i++) {
        char name[16];
        at += 64 << 20;
        snprintf(name, sizeof name, "k%d", i);
        g.n = 0;
        key(name, META_STRING);
        u64(64 << 20);
        assert_int_equal(fseeko(f, (off_t)at, SEEK_SET), 0);
        assert_int_equal(fwrite(g.b, 1, g.n, f), g.n);
        at += g.n;
    }
    fclose(f);
    assert_int_equal(truncate(path, (off_t)at + (64 << 20)), 0);
    assert_false(checkpoint_open(&c, path, &err));
    expect_err(&err, "E-GGUF-004", "too much metadata", "268435456", NULL);
    unlink(path);
}

/* ---- writer --------------------------------------------------------------------------------------------- */

static const char *write_sample(const char *name, const struct checkpoint *copy)
{
    static const uint64_t shape[2][4] = { { 64, 3, 1, 1 }, { 5, 1, 1, 1 } };
    static const int32_t ints[] = { -1, 0, INT32_MAX };
    const struct str strs[] = { { "a", 1 }, { "", 0 }, { "b\0c", 3 } };
    uint8_t data[3 * 68];
    struct gguf_writer *w;
    struct outfile o;
    const char *path = scratch(name);
    OK(gguf_writer_new(&w, &err), err);
    if (copy)
        for (size_t i = 0; i < copy->n_metas; i++) OK(gguf_put_meta(w, &copy->metas[i], &err), err);
    else {
        OK(gguf_put_str(w, "general.architecture", str_of("llada"), &err), err);
        OK(gguf_put_u32(w, "u", 4000000000u, &err), err);
        OK(gguf_put_f32(w, "f", 1e-5f, &err), err);
        OK(gguf_put_bool(w, "b", true, &err), err);
        OK(gguf_put_i32s(w, "i", ints, 3, &err), err);
        OK(gguf_put_strs(w, "s", strs, 3, &err), err);
    }
    OK(gguf_put_tensor(w, "q.weight", quant_format_by_gguf_type(Q8_0), 2, shape[0], &err), err);
    OK(gguf_put_tensor(w, "n.weight", quant_format_by_gguf_type(F32), 1, shape[1], &err), err);
    OK(outfile_open(&o, path, true, gguf_writer_bytes(w), &err), err);
    OK(gguf_write_header(w, &o, &err), err);
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)(i * 7);
    OK(outfile_write(&o, data, sizeof data, &err), err);
    OK(gguf_write_padding(w, &o, &err), err);
    OK(outfile_write(&o, data, 20, &err), err);
    OK(gguf_write_padding(w, &o, &err), err);
    assert_int_equal(o.written, gguf_writer_bytes(w));
    OK(outfile_commit(&o, &err), err);
    gguf_writer_free(w);
    return path;
}

static void what_is_written_reads_back(void **state)
{
    (void)state;
    struct checkpoint *c;
    uint8_t data[3 * 68];
    OK(checkpoint_open(&c, write_sample("w.gguf", NULL), &err), err);
    assert_int_equal(checkpoint_meta(c, "u")->v.u, 4000000000u);
    assert_true(checkpoint_meta(c, "f")->v.f == (double)1e-5f);
    assert_true(checkpoint_meta(c, "b")->v.b);
    assert_int_equal(checkpoint_meta(c, "general.architecture")->v.s.n, 5);
    assert_int_equal(checkpoint_meta(c, "i")->n_items, 3);
    assert_memory_equal(checkpoint_meta(c, "i")->items.s, "\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\x7f", 12);
    uint64_t at = 0;
    struct str s;
    assert_true(meta_next_string(checkpoint_meta(c, "s"), &at, &s) && s.n == 1);
    assert_true(meta_next_string(checkpoint_meta(c, "s"), &at, &s) && s.n == 0);
    assert_true(meta_next_string(checkpoint_meta(c, "s"), &at, &s) && s.n == 3 && !memcmp(s.s, "b\0c", 3));
    assert_false(meta_next_string(checkpoint_meta(c, "s"), &at, &s));
    const struct tensor *t = checkpoint_tensor(c, "q.weight");
    assert_int_equal(t->bytes, 3 * 68);
    assert_int_equal(t->offset % 32, 0);
    OK(checkpoint_read(t, 0, data, sizeof data, &err), err);
    for (size_t i = 0; i < sizeof data; i++) assert_int_equal(data[i], (uint8_t)(i * 7));
    t = checkpoint_tensor(c, "n.weight");
    OK(checkpoint_read(t, 16, data, 4, &err), err);
    assert_memory_equal(data, ((uint8_t[]){ 112, 119, 126, 133 }), 4);
    checkpoint_close(c);
}

/* Copying the metadata of any file gives the same values; only the alignment is the writer's own. */
static void copied_metadata_is_the_same(void **state)
{
    (void)state;
    struct checkpoint *a, *b;
    valid_file();
    OK(a = try_open(), err);
    OK(checkpoint_open(&b, write_sample("copy.gguf", a), &err), err);
    assert_int_equal(b->n_metas, a->n_metas - 1);
    for (size_t i = 0; i < b->n_metas; i++) {
        const struct meta *x = &a->metas[i], *y = &b->metas[i];
        assert_true(x->key.n == y->key.n && !memcmp(x->key.s, y->key.s, x->key.n) && x->type == y->type);
        if (x->type == META_ARRAY) {
            assert_true(x->item_type == y->item_type && x->n_items == y->n_items && x->items.n == y->items.n);
            assert_memory_equal(x->items.s, y->items.s, x->items.n);
        } else if (x->type == META_STRING) assert_true(x->v.s.n == y->v.s.n && !memcmp(x->v.s.s, y->v.s.s, x->v.s.n));
        else assert_memory_equal(&x->v, &y->v, x->type == META_BOOL ? 1 : 8);
    }
    checkpoint_close(a);
    checkpoint_close(b);
}

static void a_shape_the_format_cannot_hold_is_our_bug(void **state)
{
    (void)state;
    static const uint64_t odd[4] = { 33, 1, 1, 1 }, huge[4] = { UINT64_C(1) << 62, 16, 1, 1 };
    struct gguf_writer *w;
    OK(gguf_writer_new(&w, &err), err);
    assert_false(gguf_put_tensor(w, "w", quant_format_by_gguf_type(Q8_0), 2, odd, &err));
    expect_err(&err, "E-INT-001", "q8_0 cannot hold", NULL);
    assert_false(gguf_put_tensor(w, "w", quant_format_by_gguf_type(F32), 2, huge, &err));
    expect_err(&err, "E-INT-001", "f32 cannot hold", NULL);
    gguf_writer_free(w);
}

/* One packed matrix of 32 x 20, whose type and shape stand so far before the end of the header. */
static void packed_matrices(void **state)
{
    (void)state;
    const struct pack_format *p = pack_format_of(&format_q8_0);
    static const struct { long back; uint32_t value; const char *id, *part; } bad[] = {
        { 12, PACK_GGUF_TYPE + 0x100 + 8, "E-GGUF-012", "type 1431110152" }, { 12, PACK_GGUF_TYPE + 200, "E-GGUF-012", "need one of" },
        { 28, 1u << 25, "E-GGUF-011", "packed matrix" }, { 20, 1u << 25, "E-GGUF-011", "packed matrix" },
        { 28, 33, "E-GGUF-011", "multiple of 32" },
        { 20, 33, "E-GGUF-003", "ends before the end of tensor" },
    };
    for (size_t i = 0; i <= ARRAY_LEN(bad); i++) {
        static uint8_t tiles[2 * 32 * 17 * 2];
        struct gguf_writer *w;
        struct outfile o;
        struct checkpoint *c;
        uint64_t head;
        OK(gguf_writer_new(&w, &err) && gguf_writer_align(w, 64, &err)
           && gguf_put_packed(w, "w", p, (const uint64_t[4]){ 32, 20, 1, 1 }, &err), err);
        OK(outfile_open(&o, scratch("pack.gguf"), true, gguf_writer_bytes(w), &err) && gguf_write_header(w, &o, &err), err);
        head = 24 + 8 + 17 + 4 + 4 + 8 + 1 + 4 + 16 + 4 + 8;            /* one key, one tensor */
        OK(outfile_write(&o, tiles, 2 * p->tile_bytes(32), &err) && gguf_write_padding(w, &o, &err), err);
        assert_int_equal(o.written, gguf_writer_bytes(w));
        if (i < ARRAY_LEN(bad)) OK(outfile_rewrite(&o, head - (uint64_t)bad[i].back, &bad[i].value, 4, &err), err);
        OK(outfile_commit(&o, &err), err);
        gguf_writer_free(w);
        if (i < ARRAY_LEN(bad)) {
            assert_false(checkpoint_open(&c, scratch("pack.gguf"), &err));
            expect_err(&err, bad[i].id, bad[i].part, NULL);
            continue;
        }
        OK(checkpoint_open(&c, scratch("pack.gguf"), &err), err);
        assert_true(c->packed && c->tensors[0].packed == p && c->tensors[0].format == &format_q8_0);
        assert_int_equal(c->tensors[0].bytes, 2 * p->tile_bytes(32));
        assert_int_equal(c->tensors[0].offset % 64, 0);
        checkpoint_close(c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_type_and_tensor),
        cmocka_unit_test(version_2_is_read),
        cmocka_unit_test(metadata_of_several_megabytes),
        cmocka_unit_test(windows_end_anywhere),
        cmocka_unit_test(other_files_are_named),
        cmocka_unit_test(header_numbers),
        cmocka_unit_test(keys),
        cmocka_unit_test(values),
        cmocka_unit_test(layout_keys),
        cmocka_unit_test(keys_by_the_million),
        cmocka_unit_test(tensor_names),
        cmocka_unit_test(tensor_shapes),
        cmocka_unit_test(tensor_places),
        cmocka_unit_test(overlap_is_refused_holes_are_not),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_one_byte_change_gets_an_answer),
        cmocka_unit_test(a_huge_sparse_file_costs_nothing),
        cmocka_unit_test(too_much_metadata),
        cmocka_unit_test(what_is_written_reads_back),
        cmocka_unit_test(copied_metadata_is_the_same),
        cmocka_unit_test(a_shape_the_format_cannot_hold_is_our_bug),
        cmocka_unit_test(packed_matrices),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
