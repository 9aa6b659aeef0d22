/* commit.c - see commit.h. */
#include "commit.h"

#include <math.h>
#include <stdlib.h>

static int by_confidence(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;
    return x->confidence != y->confidence ? (x->confidence < y->confidence) - (x->confidence > y->confidence)
                                          : (x->position > y->position) - (x->position < y->position);
}

static int select_fixed(struct candidate *c, int n, int quota, float parameter)
{
    (void)parameter;
    qsort(c, (size_t)n, sizeof *c, by_confidence);
    return quota < n ? quota : n;
}

/* Half the step from the last selected to the first that is not: both may move. */
static float slack_order(const struct candidate *c, int n, int k)
{
    return k > 0 && k < n ? (c[k - 1].confidence - c[k].confidence) / 2 : INFINITY;
}

static float slack_fixed(const struct candidate *c, int n, int k, float parameter)
{
    (void)parameter;
    return slack_order(c, n, k);
}

static int select_threshold(struct candidate *c, int n, int quota, float threshold)
{
    (void)quota;
    qsort(c, (size_t)n, sizeof *c, by_confidence);
    int k = n > 0;
    while (k < n && c[k].confidence >= threshold) k++;
    return k;
}

/* The best is selected whatever its bar, as long as it is the best; the others as far as they reach their bars. */
static float slack_of_bars(const struct candidate *c, int n, int k, float (*bar)(int i, float parameter), float parameter)
{
    float slack = k == 1 ? slack_order(c, n, k) : INFINITY;
    for (int i = 1; i < k; i++) slack = fminf(slack, c[i].confidence - bar(i, parameter));
    return k < n ? fminf(slack, bar(k, parameter) - c[k].confidence) : slack;
}

static float threshold_bar(int i, float threshold)
{
    (void)i;
    return threshold;
}

static float slack_threshold(const struct candidate *c, int n, int k, float threshold)
{
    return slack_of_bars(c, n, k, threshold_bar, threshold);
}

static float factor_bar(int i, float factor) { return (float)(1.0 - (double)factor / (i + 2.0)); }

static int select_factor(struct candidate *c, int n, int quota, float factor)
{
    (void)quota;
    qsort(c, (size_t)n, sizeof *c, by_confidence);
    int k = n > 0;
    while (k < n && c[k].confidence >= factor_bar(k, factor)) k++;
    return k;
}

static float slack_factor(const struct candidate *c, int n, int k, float factor) { return slack_of_bars(c, n, k, factor_bar, factor); }

const struct commit_rule commit_fixed = { select_fixed, slack_fixed }, commit_threshold = { select_threshold, slack_threshold },
                         commit_factor = { select_factor, slack_factor };

const struct commit_rule *commit_rule_of(const struct unmask_options *o, float *parameter)
{
    *parameter = o->factor > 0 ? o->factor : o->threshold;
    return o->factor > 0 ? &commit_factor : o->threshold > 0 ? &commit_threshold : &commit_fixed;
}

int commit_quota(int n_masked, int steps, int step) { return n_masked / steps + (step < n_masked % steps); }
