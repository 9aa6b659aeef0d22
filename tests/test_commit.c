/* test_commit.c - quotas and transfer rules. */
#include "testing.h"

#include "commit.h"

static void quotas_sum_to_the_masks(void **state)
{
    (void)state;
    for (int masks = 0; masks <= 40; masks++)
        for (int steps = 1; steps <= 45; steps++) {
            int sum = 0;
            for (int s = 0; s < steps; s++) {
                const int q = commit_quota(masks, steps, s);
                assert_true(s == 0 || q <= commit_quota(masks, steps, s - 1));   /* the remainder goes to the first steps */
                assert_true(q == masks / steps || q == masks / steps + 1);
                sum += q;
            }
            assert_int_equal(sum, masks);
        }
}

static int select_of(const struct commit_rule *r, const float *conf, int n, int quota, float parameter, int *positions)
{
    struct candidate c[16];
    for (int i = 0; i < n; i++) c[i] = (struct candidate){ .position = 100 + i, .confidence = conf[i] };
    const int k = r->select(c, n, quota, parameter);
    for (int i = 0; i < k; i++) positions[i] = c[i].position - 100;
    return k;
}

static void fixed_takes_the_best_lowest_first(void **state)
{
    (void)state;
    const float conf[] = { 0.5f, 0.9f, 0.5f, 0.9f, 0.1f };
    int p[16];
    assert_int_equal(select_of(&commit_fixed, conf, 5, 3, 0, p), 3);
    assert_true(p[0] == 1 && p[1] == 3 && p[2] == 0);
    assert_int_equal(select_of(&commit_fixed, conf, 5, 9, 0, p), 5);
    assert_int_equal(select_of(&commit_fixed, conf, 5, 0, 0, p), 0);
}

static void threshold_takes_the_best_always(void **state)
{
    (void)state;
    const float conf[] = { 0.2f, 0.5f, 0.75f, 0.5f };
    int p[16];
    assert_int_equal(select_of(&commit_threshold, conf, 4, 1, 1.0f, p), 1);
    assert_int_equal(p[0], 2);
    assert_int_equal(select_of(&commit_threshold, conf, 4, 1, 0.5f, p), 3);      /* equal to the threshold counts */
    assert_true(p[0] == 2 && p[1] == 1 && p[2] == 3);
    assert_int_equal(select_of(&commit_threshold, conf, 4, 1, 0.0f, p), 4);
    assert_int_equal(select_of(&commit_threshold, conf, 0, 1, 0.5f, p), 0);
}

static void factor_takes_the_longest_prefix(void **state)
{
    (void)state;
    const float conf[] = { 0.3f, 0.8f, 0.74f, 0.95f };        /* sorted: .95 .8 .74 .3; bounds at factor 1: -, 2/3, 3/4, 4/5 */
    int p[16];
    assert_int_equal(select_of(&commit_factor, conf, 4, 1, 1.0f, p), 2);
    assert_true(p[0] == 3 && p[1] == 1);
    assert_int_equal(select_of(&commit_factor, conf, 4, 1, 1.1f, p), 3);
    const float at_its_bar[] = { 0.3f, 0.8f, 0.75f, 0.95f };
    assert_int_equal(select_of(&commit_factor, at_its_bar, 4, 1, 1.0f, p), 3);
    assert_int_equal(select_of(&commit_factor, conf, 1, 1, 0.001f, p), 1);
}

static void options_choose_the_rule(void **state)
{
    (void)state;
    float parameter;
    assert_ptr_equal(commit_rule_of(&(struct unmask_options){ .steps = 4 }, &parameter), &commit_fixed);
    assert_ptr_equal(commit_rule_of(&(struct unmask_options){ .threshold = 0.5f, .steps = 4 }, &parameter), &commit_threshold);
    assert_true(parameter == 0.5f);
    assert_ptr_equal(commit_rule_of(&(struct unmask_options){ .factor = 2 }, &parameter), &commit_factor);
    assert_true(parameter == 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quotas_sum_to_the_masks), cmocka_unit_test(fixed_takes_the_best_lowest_first),
        cmocka_unit_test(threshold_takes_the_best_always),
        cmocka_unit_test(factor_takes_the_longest_prefix), cmocka_unit_test(options_choose_the_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
