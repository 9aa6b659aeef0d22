/* test_gguf_split.c - models in several GGUF files: joined into one checkpoint, or refused with the part that is wrong. */
#include "testing.h"

#include "checkpoint.h"
#include "f16.h"
#include "gguf.h"

static struct unmask_err err;

/* Part `no` of `count`, as it says itself; one tensor of 4 values, all `value`. */
struct part { int no, count, total; const char *tensor, *arch; float value; };

static void put_small(struct gguf_writer *w, const char *key, enum meta_type type, int v)
{
    const struct meta m = { .key = str_of(key), .type = type, .v.i = v };
    OK(gguf_put_meta(w, &m, &err), err);
}

static void write_part(const char *path, const struct part *p)
{
    struct gguf_writer *w;
    struct outfile o;
    float x[4];
    for (int i = 0; i < 4; i++) x[i] = p->value;
    unlink(path);
    OK(gguf_writer_new(&w, &err), err);
    if (p->arch) OK(gguf_put_str(w, "general.architecture", str_of(p->arch), &err), err);
    put_small(w, "split.no", META_U16, p->no);
    put_small(w, "split.count", META_U16, p->count);
    if (p->total) put_small(w, "split.tensors.count", META_I32, p->total);
    OK(gguf_put_tensor(w, p->tensor, &format_f32, 1, (uint64_t[4]){ 4, 1, 1, 1 }, &err), err);
    OK(outfile_open(&o, path, true, 0, &err) && gguf_write_header(w, &o, &err), err);
    OK(outfile_write(&o, x, sizeof x, &err) && gguf_write_padding(w, &o, &err) && outfile_commit(&o, &err), err);
    gguf_writer_free(w);
}

static const char *first_path(void) { return scratch("m-00001-of-00003.gguf"); }
static const struct part good[3] = { { 0, 3, 3, "a", "llada", 1 }, { 1, 3, 0, "b", NULL, 2 }, { 2, 3, 3, "c", NULL, 3 } };

/* A model of three parts, of which `which` is another one (or left out when p is NULL). */
static void write_parts(int which, const struct part *p)
{
    for (int i = 0; i < 3; i++) {
        char *path = gguf_part_path(scratch("m.gguf"), (size_t)i, 3, &err);
        assert_non_null(path);
        if (i != which) write_part(path, &good[i]);
        else if (p) write_part(path, p);
        else unlink(path);
        unmask_free(path);
    }
}

static void refused(const char *path, const char *id, const char *part, const char *part2)
{
    struct checkpoint *c;
    if (checkpoint_open(&c, path, &err)) fail_msg("accepted; expected %s %s", id, part);
    expect_err(&err, id, part, part2, NULL);
    assert_int_equal(err.status, UNMASK_EMODEL);
}

static void check_joined(struct checkpoint *c)
{
    assert_int_equal(c->n_tensors, 3);
    for (int i = 0; i < 3; i++) {
        float x[4];
        const struct tensor *t = checkpoint_tensor(c, good[i].tensor);
        assert_ptr_equal(t, &c->tensors[i]);
        OK(checkpoint_read(t, 0, x, sizeof x, &err), err);
        assert_true(x[0] == good[i].value && x[3] == good[i].value);
    }
    assert_non_null(checkpoint_meta(c, "general.architecture"));
    checkpoint_close(c);
}

static void parts_become_one(void **state)
{
    (void)state;
    struct checkpoint *c;
    write_parts(-1, NULL);
    OK(checkpoint_open(&c, first_path(), &err), err);
    assert_int_equal(c->spare_bytes, 0);
    check_joined(c);
    write_parts(1, &(struct part){ 1, 3, 0, "b", "llada", 2 });
    FILE *f = fopen(scratch("m-00002-of-00003.gguf"), "ab");
    assert_true(f && fwrite("more", 1, 4, f) == 4 && fclose(f) == 0);
    OK(checkpoint_open(&c, first_path(), &err), err);
    assert_int_equal(c->spare_bytes, 4);
    check_joined(c);
}

static void parts_of_any_name_become_one(void **state)
{
    (void)state;
    struct checkpoint *c;
    char paths[3][512];
    const char *list[3];
    for (int i = 0; i < 3; i++) {
        snprintf(paths[i], sizeof paths[i], "%s%d", scratch("piece"), i);
        write_part(paths[i], &good[i]);
        list[i] = paths[i];
    }
    OK(checkpoint_open_parts(&c, list, 3, &err), err);
    check_joined(c);
    assert_false(checkpoint_open_parts(&c, list, 2, &err));
    list[1] = scratch("piece0");
    assert_false(checkpoint_open_parts(&c, list, 3, &err));
    expect_err(&err, "E-GGUF-015", "part 1 of 3", "part 2 of 3", NULL);
}

static void parts_that_do_not_belong_together(void **state)
{
    (void)state;
    write_parts(1, NULL);
    refused(first_path(), "E-GGUF-015", "1 of 3 parts are missing", "need m-00002-of-00003.gguf");
    unlink(scratch("m-00003-of-00003.gguf"));
    refused(first_path(), "E-GGUF-015", "2 of 3 parts are missing", "need m-00002-of-00003.gguf, m-00003-of-00003.gguf");
    const struct { int which; struct part p; const char *id, *part, *part2; } rows[] = {
        { 1, { 2, 3, 3, "b", NULL, 2 }, "E-GGUF-015", "m-00002-of-00003.gguf", "found part 3 of 3, need part 2 of 3" },
        { 1, { 1, 2, 3, "b", NULL, 2 }, "E-GGUF-015", "found part 2 of 2, need part 2 of 3", "does not belong" },
        { 1, { 0, 0, 3, "b", NULL, 2 }, "E-GGUF-015", "found part 1 of 0", "part 2 of 3" },
        { 2, { 2, 3, 3, "b", NULL, 2 }, "E-GGUF-006", "m-00003-of-00003.gguf", "it in" },
        { 2, { 2, 3, 3, "c", "dream", 2 }, "E-GGUF-015", "parts of two models", "found dream, need llada" },
        { 2, { 3, 3, 3, "c", NULL, 2 }, "E-META-003", "split.no", "0 to 2" },
        { 0, { 0, 3, 4, "a", "llada", 2 }, "E-GGUF-015", "do not hold all tensors", "found 3 tensors, need 4" },
        { 0, { 0, 30000, 4, "a", "llada", 2 }, "E-GGUF-015", "30000 parts", "at most 128" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        write_parts(rows[i].which, &rows[i].p);
        refused(first_path(), rows[i].id, rows[i].part, rows[i].part2);
    }
    write_parts(1, NULL);
    scratch_write("m-00002-of-00003.gguf", "GGUF", 4);
    refused(first_path(), "E-GGUF-003", "m-00002-of-00003.gguf", "ends inside the header");
}

static void another_part_than_the_first(void **state)
{
    (void)state;
    write_parts(-1, NULL);
    refused(scratch("m-00002-of-00003.gguf"), "E-GGUF-015", "found part 2 of 3", "-00001-of-00003.gguf");
    assert_int_equal(rename(first_path(), scratch("other.gguf")), 0);
    refused(scratch("other.gguf"), "E-GGUF-015", "found 3 parts", "a file name that ends in -00001-of-00003.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_become_one),
        cmocka_unit_test(parts_of_any_name_become_one),
        cmocka_unit_test(parts_that_do_not_belong_together),
        cmocka_unit_test(another_part_than_the_first),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
