/* Statistics of measurements: values that can be worked out by hand, and how often intervals hold the truth. */
#include "testing.h"

#include <math.h>

#include "eval_stats.h"

static uint32_t state = 7;
static double uniform(void) { return (double)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24; }
static void near_to(double a, double b, double tolerance) { if (!(fabs(a - b) <= tolerance)) fail_msg("%.9g instead of %.9g", a, b); }

static void wilson(void **unused)
{
    (void)unused;
    struct interval i = eval_wilson(8, 10);
    near_to(i.low, 0.490162, 1e-5);
    near_to(i.high, 0.943318, 1e-5);
    i = eval_wilson(0, 20);
    assert_true(i.low == 0);
    near_to(i.high, 3.841459 / (20 + 3.841459), 1e-5);
    i = eval_wilson(20, 20);
    assert_true(i.high == 1);
    near_to(i.low, 20 / (20 + 3.841459), 1e-5);
}

/* Two answerers of the same questions: the interval of the difference is antisymmetric, holds it, shrinks when they agree. */
static void paired_shares(void **unused)
{
    (void)unused;
    const struct interval a = eval_paired_shares(40, 7, 3, 60), b = eval_paired_shares(40, 3, 7, 60);
    near_to(a.low, -b.high, 1e-12);
    near_to(a.high, -b.low, 1e-12);
    assert_true(a.low < 4.0 / 60 && 4.0 / 60 < a.high && a.low < 0);
    const struct interval apart = eval_paired_shares(20, 27, 10, 60), same = eval_paired_shares(47, 0, 0, 60);
    assert_true(apart.low > 0.05);
    assert_true(same.low < 0 && same.high > 0 && same.high - same.low < a.high - a.low);
    int held = 0;
    enum { ROUNDS = 4000, N = 60 };
    for (int round = 0; round < ROUNDS; round++) {                      /* both right 0.6, only one of them 0.15 and 0.05 */
        double both = 0, first = 0, second = 0;
        for (int i = 0; i < N; i++) {
            const double u = uniform();
            both += u < 0.6;
            first += u >= 0.6 && u < 0.75;
            second += u >= 0.75 && u < 0.8;
        }
        const struct interval i = eval_paired_shares(both, first, second, N);
        held += i.low <= 0.1 && 0.1 <= i.high;
    }
    if (held < 0.935 * ROUNDS || held > 0.985 * ROUNDS) fail_msg("the interval holds the difference in %d of %d draws", held, ROUNDS);
}

static void means_and_ratios(void **unused)
{
    (void)unused;
    static const double x[] = { 1, 2, 3, 6 }, w[] = { 1, 1, 1, 1 }, w2[] = { 2, 4, 6, 12 };
    double mean;
    const struct interval i = eval_mean(x, 4, &mean);
    assert_true(mean == 3);
    const double half = 1.959963984540054 * sqrt(14.0 / 3 / 4);        /* squares 4 + 1 + 0 + 9 */
    near_to(i.high - mean, half, 1e-12);
    near_to(mean - i.low, half, 1e-12);
    near_to(eval_ratio_half(x, w, 4), half, 1e-12);                     /* equal weights: the mean */
    near_to(eval_ratio_half(x, w2, 4), 0, 1e-12);                       /* x in proportion to the weights */
    assert_true(isnan(eval_ratio_half(x, w, 1)));
    assert_true(isnan(eval_mean(x, 1, &mean).low) && mean == 1);
}

static void divergence(void **unused)
{
    (void)unused;
    static const float p[] = { 0, 0, 0, 0 }, q[] = { 0, 0.693147181f, 0, 0 }, shifted[] = { 5, 5, 5, 5 }, sure[] = { 100, 0, 0, 0 };
    near_to(eval_kl(p, p, 4), 0, 0);
    near_to(eval_kl(p, shifted, 4), 0, 1e-7);                           /* a constant changes no softmax */
    near_to(eval_kl(p, q, 4), log(5) - log(4) - log(2) / 4, 1e-6);
    near_to(eval_kl(sure, p, 4), log(4), 1e-6);
    assert_true(eval_kl(p, sure, 4) > 70);
}

static void word_pairs(void **unused)
{
    (void)unused;
    struct unmask_err err;
    size_t distinct, pairs;
    const char *text = "the cat saw the \n cat  and the cat";
    OK(eval_distinct_pairs(text, strlen(text), &distinct, &pairs, &err), err);
    assert_int_equal(pairs, 7);                 /* the cat, cat saw, saw the, the cat, cat and, and the, the cat */
    assert_int_equal(distinct, 5);
    OK(eval_distinct_pairs("one", 3, &distinct, &pairs, &err), err);
    assert_int_equal(pairs, 0);
    OK(eval_distinct_pairs("  ", 2, &distinct, &pairs, &err), err);
    assert_int_equal(pairs + distinct, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wilson), cmocka_unit_test(paired_shares), cmocka_unit_test(means_and_ratios), cmocka_unit_test(divergence),
        cmocka_unit_test(word_pairs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
