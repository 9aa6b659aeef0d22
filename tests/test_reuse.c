/* test_reuse.c - row plans: what each method computes, and that a plan which refreshes everything is the full recomputation. */
#include "testing.h"

#include "reuse.h"
#include "unmask.h"

enum { N = 40, PROMPT = 8 };
static bool changed[N], is_mask[N];
static int age[N], order[N], rows[N], need[N];
static float confidence[N];
static struct reuse_state r = { .changed = changed, .age = age, .confidence = confidence, .order = order };
static struct reuse_rows out = { .rows = rows, .need = need };

static void begin(const char *name)
{
    reuse_begin(&r, reuse_profile_by_name(name), N);
    for (int i = 0; i < N; i++) is_mask[i] = i >= PROMPT;
}

static void step(int start, int end, int in_block)
{
    reuse_plan(&r, is_mask, (struct reuse_block){ start, end, in_block }, &out);
    for (int i = 1; i < out.n_rows; i++) assert_true(rows[i] > rows[i - 1]);
    for (int i = 0; i < out.n_need; i++) assert_true(need[i] < out.n_rows && (i == 0 || need[i] > need[i - 1]));
    reuse_passed(&r, &out);
}

static void commit(int position)
{
    is_mask[position] = false;
    reuse_committed(&r, position);
}

static bool has_row(int position)
{
    for (int i = 0; i < out.n_rows; i++)
        if (rows[i] == position) return true;
    return false;
}

static void exact_computes_every_row_and_needs_the_masks(void **state)
{
    (void)state;
    begin("exact");
    for (int k = 0; k < 3; k++) {
        step(8, 24, k);
        assert_int_equal(out.n_rows, N);
        assert_int_equal(out.n_need, 16 - k);
        commit(8 + k);
    }
    begin("none");
    step(8, 24, 0);
    assert_int_equal(out.n_need, N);
}

static void dual_computes_the_block(void **state)
{
    (void)state;
    begin("dual");
    step(8, 24, 0);
    assert_int_equal(out.n_rows, N);
    commit(9);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 16);
    assert_true(has_row(8) && has_row(9) && has_row(23) && !has_row(7) && !has_row(24));
    assert_int_equal(out.n_need, 15);
    step(24, 40, 0);
    assert_int_equal(out.n_rows, N);
    begin("prefix");
    step(8, 24, 0);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 32);
    assert_true(!has_row(7) && has_row(39));
    begin("vicinity");
    step(8, 24, 0);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 40);           /* 16 rows on either side, as far as there are */
}

static void dkv_keeps_what_was_decoded_a_step_ago(void **state)
{
    (void)state;
    begin("dkv");
    step(8, 24, 0);
    commit(10);
    commit(12);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 32);           /* all masks, and the two just decoded */
    assert_true(has_row(10) && has_row(12) && !has_row(0));
    commit(11);
    step(8, 24, 2);
    assert_true(has_row(11) && !has_row(10) && !has_row(12));
    for (int k = 3; k < 8; k++) step(8, 24, k);
    step(8, 24, 8);
    assert_int_equal(out.n_rows, N);
}

static void fast_takes_the_surest_and_the_leftmost(void **state)
{
    (void)state;
    begin("fast");
    step(8, 24, 0);
    assert_true(out.full);
    for (int i = 8; i < 24; i++) confidence[i] = (float)i;
    commit(23);
    step(8, 24, 1);
    assert_int_equal(out.n_need, 9);            /* 22 .. 15, and 8 */
    assert_true(has_row(23) && has_row(22) && has_row(15) && has_row(8) && !has_row(14) && !has_row(9));
    assert_int_equal(out.n_rows, 10);
    for (int i = 8; i < 23; i++) commit(i);
    step(24, 40, 0);                            /* a new block: the previous block, the new one, the first positions */
    assert_false(out.full);
    assert_int_equal(out.n_rows, 4 + 32);
    assert_int_equal(out.n_need, 16);
}

static void changed_rows_are_never_left_out(void **state)
{
    (void)state;
    for (const struct reuse_profile *p = reuse_profiles; p->name; p++) {
        begin(p->name);
        unsigned random = 12345;
        for (int block = 0; block < 2; block++)
            for (int k = 0, left = 16; left > 0; k++) {
                bool was_changed[N];
                memcpy(was_changed, changed, sizeof changed);
                step(8 + 16 * block, 24 + 16 * block, k);
                for (int i = 0; i < N; i++)
                    if (was_changed[i]) assert_true(has_row(i));
                assert_true(out.n_need > 0);
                random = random * 1664525u + 1013904223u;
                const int position = rows[need[random / 65536 % (unsigned)out.n_need]];
                if (is_mask[position] && position < 24 + 16 * block) {
                    commit(position);
                    left--;
                }
            }
    }
}

/* Every profile fills the canvas; those that compute every row agree to the bit, confidences included, whatever the kind
 * of store is that both use. */
static void profiles_run(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *m;
    struct unmask_session *s;
    const int32_t prompt[] = { 480, 506, 308, 269, 507, 10, 10, 49 };
    OK(unmask_open(&m, "tests/data/checkpoints/llada-gqa", NULL, &err), err);
    OK(unmask_session_open(&s, m, 2, &err), err);
    const char *const kinds[] = { "kv_f32", "kv_f16", "kv_i8" };
    for (size_t kind = 0; kind < ARRAY_LEN(kinds); kind++)
        for (int cfg = 0; cfg < 2; cfg++) {
            struct unmask_result yardstick = { 0 };
            for (const struct reuse_profile *p = reuse_profiles; p->name; p++) {
                struct unmask_options o;
                struct unmask_result res;
                unmask_options_default(m, &o);
                o.gen_length = 48;
                o.block_length = 16;
                o.early_stop = false;
                o.threshold = 0.3f;
                o.cfg_scale = (float)cfg;
                o.reuse = p->name;
                o.store = kinds[kind];
                OK(unmask_generate(s, prompt, 8, &o, NULL, NULL, &res, &err), err);
                int32_t mask = 500;
                for (int i = 0; i < res.n_canvas; i++) assert_int_not_equal(res.canvas[i], mask);
                if (!strcmp(p->name, "none")) {
                    yardstick = res;
                    continue;
                }
                if (p->every == 1) {
                    assert_memory_equal(res.canvas, yardstick.canvas, (size_t)res.n_canvas * sizeof *res.canvas);
                    assert_memory_equal(res.confidence, yardstick.confidence, (size_t)res.n_canvas * sizeof *res.confidence);
                } else assert_true(res.rows < (uint64_t)res.passes * (uint64_t)res.n_canvas);
                unmask_result_free(&res);
            }
            unmask_result_free(&yardstick);
        }
    struct unmask_options o;
    struct unmask_result res;
    unmask_options_default(m, &o);
    o.reuse = "dllm-cache";
    assert_false(unmask_generate(s, prompt, 8, &o, NULL, NULL, &res, &err));
    expect_err(&err, "E-GEN-001", "reuse", "dllm-cache", "balanced", NULL);
    unmask_session_close(s);
    unmask_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_computes_every_row_and_needs_the_masks), cmocka_unit_test(dual_computes_the_block), cmocka_unit_test(dkv_keeps_what_was_decoded_a_step_ago),
        cmocka_unit_test(fast_takes_the_surest_and_the_leftmost), cmocka_unit_test(changed_rows_are_never_left_out), cmocka_unit_test(profiles_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
