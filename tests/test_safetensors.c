/* test_safetensors.c - Hugging Face folders: what is read, and that everything malformed is refused with its place. */
#include "testing.h"

#include <sys/stat.h>
#include <time.h>
#include "checkpoint.h"

static const char config[] = "{\"architectures\": [\"LLaDAModelLM\", \"x\"], \"d_model\": 64, \"eps\": 1e-5, \"tied\": false, "
                             "\"none\": null, \"list\": [1], "
                             "\"wide\": 1000000000000000019884624838656, \"name\": \"a b\"}";

/* A fresh folder NAME with the config. */
static const char *folder(const char *name)
{
    char path[300];
    scratch("");                                /* creates the scratch folder */
    snprintf(path, sizeof path, "%s", scratch(name));
    mkdir(path, 0777);
    snprintf(path, sizeof path, "%s/config.json", name);
    scratch_write(path, config, sizeof config - 1);
    return scratch(name);
}

static void add(const char *name, const char *file, const void *bytes, size_t n)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", name, file);
    scratch_write(path, bytes, n);
}

/* A safetensors file of this header (n_header bytes, or its length when 0) and n_data bytes of data. */
static void shard(const char *name, const char *file, const char *header, size_t n_header, size_t n_data)
{
    const size_t n = n_header ? n_header : strlen(header);
    uint8_t *b = test_calloc(1, 8 + n + n_data);
    for (int i = 0; i < 8; i++) b[i] = (uint8_t)((uint64_t)n >> 8 * i);
    memcpy(b + 8, header, n);
    for (size_t i = 0; i < n_data; i++) b[8 + n + i] = (uint8_t)i;
    add(name, file, b, 8 + n + n_data);
    test_free(b);
}

static void remove_file(const char *name, const char *file)
{
    char path[300];
    snprintf(path, sizeof path, "%s/%s", name, file);
    unlink(scratch(path));
}

static void opens(const char *name, size_t n_tensors)
{
    struct unmask_err err;
    struct checkpoint *c;
    OK(checkpoint_open(&c, scratch(name), &err), err);
    assert_int_equal(c->n_tensors, n_tensors);
    checkpoint_close(c);
}

static void refuses(const char *name, const char *id, const char *part, const char *part2)
{
    struct unmask_err err;
    struct checkpoint *c;
    if (checkpoint_open(&c, scratch(name), &err)) fail_msg("%s was accepted; expected %s", name, id);
    expect_err(&err, id, part, part2, NULL);
}

/* One header over n_data bytes is refused. */
static void header_refused(const char *header, size_t n_data, const char *id, const char *part)
{
    folder("bad");
    shard("bad", "model.safetensors", header, 0, n_data);
    refuses("bad", id, part ? part : "model.safetensors", "model.safetensors");
}

static const char two[] = "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[16,28]},"
                          "\"a\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}}   ";

static void tensors_and_config_are_read(void **state)
{
    (void)state;
    struct unmask_err err;
    struct checkpoint *c;
    folder("good");
    shard("good", "model.safetensors", two, 0, 28);
    OK(checkpoint_open(&c, scratch("good"), &err), err);
    assert_int_equal(c->kind, CHECKPOINT_FOLDER);
    assert_int_equal(c->n_tensors, 2);
    assert_string_equal(c->tensors[0].name, "a");
    const struct tensor *b = checkpoint_tensor(c, "b");
    assert_ptr_equal(b, &c->tensors[1]);
    assert_ptr_equal(b->format, &format_bf16);
    assert_int_equal(b->n_dims, 2);
    assert_int_equal(b->shape[0], 3);           /* fastest first */
    assert_int_equal(b->shape[1], 2);
    assert_int_equal(tensor_rows(b), 2);
    assert_int_equal(b->bytes, 12);
    uint8_t byte;
    OK(checkpoint_read(b, 5, &byte, 1, &err), err);
    assert_int_equal(byte, 21);
    assert_null(checkpoint_tensor(c, "c"));

    int64_t d = 0;
    double x = 0;
    bool flag = true;
    struct str s;
    OK(meta_int(c, "d_model", 1, 100, true, &d, &err) && meta_float(c, "eps", 0, 1, true, &x, &err)
       && meta_bool(c, "tied", true, &flag, &err), err);
    assert_true(d == 64 && x == 1e-5 && !flag);
    OK(meta_str(c, "architectures", true, &s, &err), err);
    assert_int_equal(s.n, strlen("LLaDAModelLM"));
    assert_null(checkpoint_meta(c, "none"));
    assert_false(meta_int(c, "list", 0, 9, true, &d, &err));
    expect_err(&err, "E-META-002", "config.json", "list", "array", NULL);
    assert_false(meta_int(c, "wide", 0, 9, true, &d, &err));
    expect_err(&err, "E-META-002", "wide", NULL);
    checkpoint_close(c);
}

static void a_real_folder_opens(void **state)
{
    (void)state;
    struct unmask_err err;
    struct checkpoint *c;
    OK(checkpoint_open(&c, "tests/data/checkpoints/llada-tiny-bf16", &err), err);
    assert_int_equal(c->n_tensors, 3 * 9 + 3);
    const struct tensor *t = checkpoint_tensor(c, "model.transformer.blocks.0.ff_proj.weight");
    assert_non_null(t);
    assert_ptr_equal(t->format, &format_bf16);
    assert_int_equal(t->shape[0], 64);
    assert_int_equal(t->shape[1], 160);
    checkpoint_close(c);
}

static void header_length_is_checked(void **state)              /* S1, S2 */
{
    (void)state;
    static const uint64_t lengths[] = { 0, 1, 3, 100, 16777217, 100000001, 1ull << 63, UINT64_MAX };
    folder("bad");
    for (size_t n = 0; n < 8; n++) {
        add("bad", "model.safetensors", "\2\0\0\0\0\0\0", n);
        refuses("bad", "E-ST-004", "cut short", FMT("byte %zu", n));
    }
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        uint8_t b[10] = { 0, 0, 0, 0, 0, 0, 0, 0, '{', '}' };
        for (int k = 0; k < 8; k++) b[k] = (uint8_t)(lengths[i] >> 8 * k);
        add("bad", "model.safetensors", b, sizeof b);
        refuses("bad", lengths[i] < 2 ? "E-ST-005" : lengths[i] <= 100 ? "E-ST-004" : "E-ST-006", "byte 0",
                FMT("found %llu", (unsigned long long)lengths[i]));
    }
}

static void header_is_strict_json(void **state)                 /* S3, S4, S5, S7, S8 */
{
    (void)state;
    static const struct { const char *header, *id, *part; } bad[] = {
        { " {}", "E-ST-005", "byte 8" }, { "\xef\xbb\xbf{}", "E-ST-005", "byte 8" },
        { "[]", "E-ST-005", NULL }, { "{}}", "E-JSON-001", "byte 1" },
        { "{\"\xff\":1}", "E-JSON-001", "byte 1" }, { "{\"\\ud800\":1}", "E-JSON-001", NULL }, { "{\"\xc0\xaf\":1}", "E-JSON-001", NULL },
        { "{,}", "E-JSON-001", NULL }, { "{} //", "E-JSON-001", NULL }, { "{'a':1}", "E-JSON-001", NULL },
        { "{\"a\":{},\"a\":{}}", "E-JSON-001", "duplicate" },
        { "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", "E-JSON-001", "duplicate" },
        { "{\"__metadata__\":{},\"__metadata__\":{}}", "E-JSON-001", "duplicate" },
        { "{\"__metadata__\":{\"a\":1}}", "E-ST-005", "__metadata__" }, { "{\"__metadata__\":{\"a\":null}}", "E-ST-005", NULL },
        { "{\"__metadata__\":{\"a\":{}}}", "E-ST-005", NULL }, { "{\"__metadata__\":[]}", "E-ST-005", NULL },
        { "{\"__metadata__\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", "E-ST-005", NULL },
        { "{\"a\":1}", "E-ST-005", "byte 9" }, { "{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", "E-ST-005", "(a, byte 9)" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4],\"x\":0}}", "E-ST-005", NULL },
        { "{\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", "E-ST-005", "0 bytes" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) header_refused(bad[i].header, 0, bad[i].id, bad[i].part);
    folder("bad");
    shard("bad", "model.safetensors", "{}\0\0", 4, 0);
    refuses("bad", "E-JSON-001", "model.safetensors", NULL);
    shard("bad", "model.safetensors", "{}  ", 4, 0);
    opens("bad", 0);
}

static void entries_are_checked(void **state)                   /* S5, S9 to S13, S16 */
{
    (void)state;
    static const struct { const char *dtype, *shape, *range, *id, *part; } bad[] = {
        { "\"F64\"", "[1]", "[0,8]", "E-ST-007", "F32, F16 or BF16" }, { "\"f32\"", "[1]", "[0,4]", "E-ST-007", "f32" },
        { "\"F4\"", "[3]", "[0,1]", "E-ST-007", "F4" },
        { "3", "[1]", "[0,4]", "E-ST-007", NULL }, { "null", "[1]", "[0,4]", "E-ST-007", NULL },
        { "\"F32\"", "[-1]", "[0,4]", "E-ST-005", "negative" }, { "\"F32\"", "[-0]", "[0,0]", "E-ST-005", "negative" },
        { "\"F32\"", "[1.0]", "[0,4]", "E-ST-005", "integers" },
        { "\"F32\"", "[9223372036854775808]", "[0,4]", "E-ST-005", "integers" },
        { "\"F32\"", "[4611686018427387904]", "[0,4]", "E-ST-005", "too large" },
        { "\"F32\"", "[4294967296,4294967296]", "[0,0]", "E-ST-005", "too large" },
        { "\"F32\"", "[1,1,1,1,1,1,1,1,1]", "[0,4]", "E-ST-005", "9 numbers" },
        { "\"F32\"", "4", "[0,4]", "E-ST-005", "shape" }, { "\"F32\"", "null", "[0,4]", "E-ST-005", "shape" },
        { "\"F32\"", "[1]", "[0]", "E-ST-005", "1 numbers" }, { "\"F32\"", "[1]", "[0,4,8]", "E-ST-005", "3 numbers" },
        { "\"F32\"", "[1]", "[]", "E-ST-005", "data_offsets" },
        { "\"F32\"", "[1]", "{}", "E-ST-005", NULL }, { "\"F32\"", "[1]", "[\"0\",\"4\"]", "E-ST-005", NULL },
        { "\"F32\"", "[1]", "[0,4.0]", "E-ST-005", NULL },
        { "\"F32\"", "[1]", "[0,4e0]", "E-ST-005", NULL }, { "\"F32\"", "[1]", "[4,0]", "E-ST-008", NULL },
        { "\"F32\"", "[1]", "[0,3]", "E-ST-008", "need 4 bytes" },
        { "\"F32\"", "[1]", "[0,8]", "E-ST-008", "found bytes 0 to 8" }, { "\"F16\"", "[2,2]", "[0,4]", "E-ST-008", "need 8 bytes" },
        { "\"F32\"", "[1]", "[4,8]", "E-ST-004", "found 4 bytes" },
        { "\"F32\"", "[1]", "[9223372036854775803,9223372036854775807]", "E-ST-004", NULL },
        { "\"F32\"", "[1]", "[18446744073709551612,18446744073709551616]", "E-ST-005", NULL },
        { "\"F32\"", "[2]", "[0,8]", "E-ST-004", "need 8" },
    };
    char header[400];
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(header, sizeof header, "{\"a\":{\"dtype\":%s,\"shape\":%s,\"data_offsets\":%s}}",
                 bad[i].dtype, bad[i].shape, bad[i].range);
        header_refused(header, 4, bad[i].id, bad[i].part);
    }
    folder("good");
    shard("good", "model.safetensors", "{\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
          "\"none\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
          "\"end\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}", 0, 8);
    opens("good", 3);
}

static void ranges_fill_the_data_exactly(void **state)          /* S14, S15 */
{
    (void)state;
    static const char form[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                               "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[%d,%d]}}";
    char header[300];
    static const struct { int at; size_t data; const char *id, *part; } bad[] = {
        { 0, 16, "E-ST-008", "overlap" }, { 4, 16, "E-ST-008", "overlap" }, { 12, 20, "E-ST-008", "hole" }, { 8, 17, "E-ST-008", "follow" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(header, sizeof header, form, bad[i].at, bad[i].at + 8);
        header_refused(header, bad[i].data, bad[i].id, bad[i].part);
    }
    snprintf(header, sizeof header, form, 8, 16);
    folder("good");
    shard("good", "model.safetensors", header, 0, 16);
    opens("good", 2);
}

/* S6, S14: headers that would cost much memory or time are refused in a moment. */
static void bombs_are_refused(void **state)
{
    (void)state;
    enum { N = 12 << 20 };
    char *h = test_malloc(N);
    const clock_t start = clock();
    memset(h, '[', N);
    memcpy(h, "{\"a\":", 5);
    folder("bad");
    shard("bad", "model.safetensors", h, N, 0);
    refuses("bad", "E-JSON-002", "at most 4", NULL);
    memset(h, ' ', N);
    size_t n = 1, i;
    h[0] = '{';
    for (i = 0; n + 100 < N && i < 65537; i++)
        n += (size_t)snprintf(h + n, N - n, "%s\"t%zu\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}", i ? "," : "", i);
    h[n++] = '}';
    shard("bad", "model.safetensors", h, n, 16);
    refuses("bad", "E-ST-006", "65537", NULL);
    memset(h, 'x', N);
    memcpy(h, "{\"", 2);
    memcpy(h + N - 4, "\":1}", 4);
    shard("bad", "model.safetensors", h, N, 0);
    refuses("bad", "E-ST-005", "length", NULL);
    test_free(h);
    if ((double)(clock() - start) / CLOCKS_PER_SEC > 20) fail_msg("%s", "took more than 20 s of CPU");
}

static void index_shards_are_read(void **state)                 /* S17, S18 */
{
    (void)state;
    static const char a[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                      b[] = "{\"b\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]}}";
    static const char good[] = "{\"metadata\":{\"total_size\":6},\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}";
    static const char swapped[] = "{\"weight_map\":{\"b\":\"1.safetensors\",\"a\":\"2.safetensors\"}}";
    static const char index[] = "model.safetensors.index.json";
    folder("s");
    shard("s", "1.safetensors", a, 0, 4);
    shard("s", "2.safetensors", b, 0, 2);
    add("s", index, good, sizeof good - 1);
    opens("s", 2);
    add("s", index, swapped, sizeof swapped - 1);
    opens("s", 2);

    static const struct { const char *text, *id, *part; } bad[] = {
        { "[]", "E-ST-012", "object" }, { "{}", "E-ST-010", "weight_map" },
        { "{\"weight_map\":[]}", "E-ST-010", "object" }, { "{\"weight_map\":{}}", "E-ST-010", "0 files" },
        { "{\"weight_map\":{\"a\":1}}", "E-ST-010", "bare name" },
        { "{\"weight_map\":{\"a\":\"../../etc/passwd\"}}", "E-ST-010", "../../etc/passwd" },
        { "{\"weight_map\":{\"a\":\"/1.safetensors\"}}", "E-ST-010", "bare name" },
        { "{\"weight_map\":{\"a\":\"../s/1.safetensors\"}}", "E-ST-010", "bare name" },
        { "{\"weight_map\":{\"a\":\"config.json\"}}", "E-ST-010", "bare name" },
        { "{\"weight_map\":{\"a\":\".safetensors\"}}", "E-ST-010", "bare name" },
        { "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}", "E-ST-010", "the tensor in no file" },
        { "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\",\"c\":\"4.safetensors\"}}",
          "E-ST-011", "3.safetensors, 4.safetensors" },
        { "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"5.safetensors\"}}", "E-ST-009", "1.safetensors" },
    };
    shard("s", "5.safetensors", a, 0, 4);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        add("s", index, bad[i].text, strlen(bad[i].text));
        refuses("s", bad[i].id, bad[i].part, NULL);
    }
    add("s", "3.safetensors.incomplete", "", 0);
    add("s", index, bad[11].text, strlen(bad[11].text));
    refuses("s", "E-ST-011", "was not finished", "1 of 3");
    unlink(scratch("s/2.safetensors"));
    assert_int_equal(symlink("1.safetensors", scratch("s/2.safetensors")), 0);          /* one shard under two names */
    add("s", index, good, sizeof good - 1);
    refuses("s", "E-ST-009", "2.safetensors", "1.safetensors");
}

static void what_a_folder_lacks_is_named(void **state)          /* S19, S20, S23, S24, C6 */
{
    (void)state;
    static const char lfs[] = "version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 5\n";
    folder("f");
    refuses("f", "E-ST-001", "no model.safetensors", "model.safetensors.index.json");
    remove_file("f", "config.json");
    refuses("f", "E-ST-001", "neither config.json nor model.safetensors", NULL);
    shard("f", "model.safetensors", two, 0, 28);
    refuses("f", "E-ST-001", "no config.json", NULL);
    remove_file("f", "model.safetensors");
    add("f", "pytorch_model.bin", "", 0);
    refuses("f", "E-ST-002", "pickle", "Convert it to safetensors");
    folder("f");
    add("f", "model.safetensors", lfs, sizeof lfs - 1);
    refuses("f", "E-ST-003", "git lfs pull", NULL);
    remove_file("f", "model.safetensors");
    assert_int_equal(mkfifo(scratch("f/model.safetensors"), 0666), 0);
    refuses("f", "E-FILE-002", "a pipe", NULL);
    remove_file("f", "model.safetensors");
    assert_int_equal(symlink("model.safetensors", scratch("f/model.safetensors")), 0);
    refuses("f", "E-FILE-001", "model.safetensors", NULL);
    if (geteuid() != 0) {                       /* root may read everything */
        remove_file("f", "model.safetensors");
        shard("f", "model.safetensors", two, 0, 28);
        chmod(scratch("f/model.safetensors"), 0);
        refuses("f", "E-FILE-001", "Permission denied", NULL);
    }
    folder("g");
    shard("g", "model.safetensors", two, 0, 28);
    add("g", "config.json", "[1]", 3);
    refuses("g", "E-ST-012", "config.json", NULL);
    add("g", "config.json", "{\"d_model\": 1, \"d_model\": 2}", 28);
    refuses("g", "E-JSON-001", "config.json", "duplicate");
    assert_int_equal(truncate(scratch("g/config.json"), (off_t)65 << 20), 0);
    refuses("g", "E-JSON-003", "config.json", "67108864");
}

/* S22: every truncation is an error; every flipped bit is an error, or the file still means a complete set of tensors. */
static void damaged_headers_are_harmless(void **state)
{
    (void)state;
    enum { TENSORS = 26 };
    char header[4096];
    size_t n = 0;
    for (int i = 0; i < TENSORS; i++)
        n += (size_t)snprintf(header + n, sizeof header - n, "%s\"blocks.%d.q_proj.weight\":{\"dtype\":\"F32\",\"shape\":[2,2],"
                              "\"data_offsets\":[%d,%d]}",
                              i ? "," : "{", i, i * 16, i * 16 + 16);
    header[n++] = '}';
    assert_in_range(n, 1900, 2300);
    folder("d");
    shard("d", "model.safetensors", header, n, TENSORS * 16);
    opens("d", TENSORS);
    char path[300];
    snprintf(path, sizeof path, "%s", scratch("d/model.safetensors"));
    FILE *f = fopen(path, "r+b");
    uint8_t *good = test_malloc(n + 8);
    assert_int_equal(fread(good, 1, n + 8, f), n + 8);
    struct unmask_err err;
    struct checkpoint *c;
    size_t same = 0;
    for (size_t i = 0; i < n + 8; i++)
        for (int bit = 0; bit < 8; bit++) {
            const uint8_t b = (uint8_t)(good[i] ^ 1 << bit);
            assert_true(fseek(f, (long)i, SEEK_SET) == 0 && fwrite(&b, 1, 1, f) == 1 && fflush(f) == 0);
            if (checkpoint_open(&c, scratch("d"), &err)) {      /* only a name or a dtype can have changed */
                uint64_t bytes = 0;
                for (size_t k = 0; k < c->n_tensors; k++) bytes += c->tensors[k].bytes;
                assert_int_equal(c->n_tensors, TENSORS);
                assert_int_equal(bytes, TENSORS * 16);
                checkpoint_close(c);
                same++;
            } else assert_true(err.status == UNMASK_EMODEL);
            assert_true(fseek(f, (long)i, SEEK_SET) == 0 && fwrite(&good[i], 1, 1, f) == 1 && fflush(f) == 0);
        }
    assert_true(same > 0);
    for (size_t cut = n + 8 + TENSORS * 16; cut-- > 0; ) {
        assert_int_equal(truncate(path, (off_t)cut), 0);
        if (checkpoint_open(&c, scratch("d"), &err)) fail_msg("cut at %zu bytes was accepted", cut);
        assert_int_equal(err.status, UNMASK_EMODEL);
    }
    fclose(f);
    test_free(good);
}

static int clean(void **state) { (void)state; scratch_remove(); return 0; }

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_and_config_are_read),
        cmocka_unit_test(a_real_folder_opens),
        cmocka_unit_test(header_length_is_checked),
        cmocka_unit_test(header_is_strict_json),
        cmocka_unit_test(entries_are_checked),
        cmocka_unit_test(ranges_fill_the_data_exactly),
        cmocka_unit_test(bombs_are_refused),
        cmocka_unit_test(index_shards_are_read),
        cmocka_unit_test(what_a_folder_lacks_is_named),
        cmocka_unit_test(damaged_headers_are_harmless),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
