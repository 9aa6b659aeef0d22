/* Text with holes: what is fixed, what is a hole, and what is refused. */
#include "testing.h"

#include "holes.h"
#include "mem.h"

/* "text" "[name:length]" "[name:length=part]" ... of a parsed text, to compare. */
static void expect_parts(const char *text, const char *parts)
{
    struct holes h;
    struct unmask_err err;
    char shown[512] = "";
    OK(holes_parse(&h, text, strlen(text), &err), err);
    for (int i = 0; i < h.n; i++) {
        const struct hole_part *p = &h.parts[i];
        char *at = shown + strlen(shown);
        const size_t room = sizeof shown - strlen(shown);
        if (p->text) snprintf(at, room, "%s<%.*s>", i ? " " : "", (int)p->n_text, p->text);
        else if (p->same_as >= 0) snprintf(at, room, "%s[%s:%d=%d]", i ? " " : "", p->name, p->length, p->same_as);
        else snprintf(at, room, "%s[%s:%d]", i ? " " : "", p->name, p->length);
    }
    assert_string_equal(shown, parts);
    holes_free(&h);
}

static void refuse(const char *text, const char *id, const char *part)
{
    struct holes h;
    struct unmask_err err;
    assert_false(holes_parse(&h, text, strlen(text), &err));
    expect_err(&err, id, part, NULL);
    assert_null(h.parts);
}

static void fixed_text_and_holes_alternate(void **state)
{
    (void)state;
    expect_parts("Tom had a [[4]] and was [[2]].", "<Tom had a > [:4] < and was > [:2] <.>");
    expect_parts("[[1]] a [[20]]", "[:1] < a > [:20]");
    expect_parts("[[8]]", "[:8]");
    expect_parts("[[0]]x", "[:0] <x>");
    expect_parts("\xc3\xa9[[3]]\xe2\x96\x91", "<\xc3\xa9> [:3] <\xe2\x96\x91>");
}

static void a_name_comes_back_with_the_same_text(void **state)
{
    (void)state;
    expect_parts("[[name:2]] and [[other-1:3]], [[name:2]]", "[name:2] < and > [other-1:3] <, > [name:2=0]");
    expect_parts("[[a:2]][[a:2]][[a:2]]", "[a:2] [a:2=0] [a:2=0]");
    refuse("[[name:2]] [[name:3]]", "E-GEN-011", "name, byte 11");
}

static void only_unnamed_neighbours_merge(void **state)
{
    (void)state;
    expect_parts("x[[2]][[3]][[4]]y", "<x> [:9] <y>");
    expect_parts("[[2]] [[3]]", "[:2] < > [:3]");
    expect_parts("[[2]][[n:3]][[4]][[5]]", "[:2] [n:3] [:9]");
    expect_parts("[[65536]][[1]]", "[:65536] [:1]");
}

static void brackets_can_be_written(void **state)
{
    (void)state;
    expect_parts("\\[[8]] [[1]]", "<[[8]] > [:1]");
    expect_parts("a\\b \\[x] [1] ]] [[1]]\\", "<a\\b \\[x] [1] ]] > [:1] <\\>");
    expect_parts("\\[[[[1]]", "<[[> [:1]");
}

static void a_bracket_may_stand_before_a_hole(void **state)
{
    (void)state;
    expect_parts("[[[2]]]", "<[> [:2] <]>");
    expect_parts("a[[[[n:2]]]]", "<a[[> [n:2] <]]>");
    expect_parts("[[1]][[[2]]", "[:1] <[> [:2]");
    expect_parts("\\[[[[[1]]", "<[[[> [:1]");
    refuse("\\[[[1]]", "E-GEN-008", "no hole");
    refuse("ab[[[x]]", "E-GEN-009", "byte 3");
    refuse("[[[", "E-GEN-009", "byte 1");
}

/* Directly before [[ only: two write one, and one that is left makes it text. */
static void a_backslash_may_stand_before_a_hole(void **state)
{
    (void)state;
    expect_parts("\\\\[[2]]", "<\\> [:2]");
    expect_parts("\\\\[[[2]]]", "<\\[> [:2] <]>");
    expect_parts("\\\\\\\\[[2]]", "<\\\\> [:2]");
    expect_parts("\\\\\\[[2]] [[1]]", "<\\[[2]] > [:1]");
    expect_parts("\\\\ \\\\[ \\ [[1]]\\\\", "<\\\\ \\\\[ \\ > [:1] <\\\\>");
}

static void what_is_no_hole_is_refused_with_its_place(void **state)
{
    (void)state;
    static const char *const bad[] = { "ab[[", "ab[[8", "ab[[8]", "ab[[]]", "ab[[x]]", "ab[[:8]]", "ab[[x:]]", "ab[[ 8]]",
                                       "ab[[8 ]]", "ab[[-1]]", "ab[[1-3]]", "ab[[a|b]]", "ab[[1x:3]]", "ab[[a b:3]]",
                                       "ab[[x:0x4]]", "ab[[8] ]" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) refuse(bad[i], "E-GEN-009", "byte 2");
    refuse("plain text", "E-GEN-008", "no hole");
    refuse("", "E-GEN-008", "no hole");
    refuse("\\[[8]]", "E-GEN-008", "no hole");
}

static void limits_have_numbers(void **state)
{
    (void)state;
    char text[300 * 8] = "";
    refuse("[[65537]]", "E-GEN-010", "at most 65536");
    refuse("[[99999999999999999999999]]", "E-GEN-010", "at most 65536");
    char name[100];
    memset(name, 'n', sizeof name);
    memcpy(name, "[[", 2);
    memcpy(name + 67, ":1]]", 5);
    refuse(name, "E-GEN-010", "65 bytes");
    memcpy(name + 66, ":1]]", 5);
    name[66 + 4] = 0;
    struct holes h;
    struct unmask_err err;
    OK(holes_parse(&h, name, strlen(name), &err), err);
    holes_free(&h);
    for (int i = 0; i < MAX_HOLES; i++) strcat(text, "[[1]]x");
    OK(holes_parse(&h, text, strlen(text), &err), err);
    assert_int_equal(h.n, 2 * MAX_HOLES);
    holes_free(&h);
    strcat(text, "[[1]]");
    refuse(text, "E-GEN-010", "at most 256");
}

/* A NUL is text like any other byte, and every beginning of a text is a text. */
static void every_prefix_ends_well(void **state)
{
    (void)state;
    static const char text[] = "a\0b[[name:12]]\\[[ [[3]][[4]] \\\\[[[[name:12]]";
    for (size_t n = 0; n < sizeof text; n++) {
        char *exact = mem_zalloc(n ? n : 1, 1, NULL);           /* no byte behind it, for the sanitizer */
        struct holes h;
        struct unmask_err err;
        memcpy(exact, text, n);
        if (holes_parse(&h, exact, n, &err)) {
            assert_int_equal(h.parts[0].n_text, 3);
            holes_free(&h);
        }
        mem_free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed_text_and_holes_alternate), cmocka_unit_test(a_name_comes_back_with_the_same_text),
        cmocka_unit_test(only_unnamed_neighbours_merge), cmocka_unit_test(brackets_can_be_written),
        cmocka_unit_test(a_bracket_may_stand_before_a_hole), cmocka_unit_test(a_backslash_may_stand_before_a_hole),
        cmocka_unit_test(what_is_no_hole_is_refused_with_its_place),
        cmocka_unit_test(limits_have_numbers), cmocka_unit_test(every_prefix_ends_well),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
