/* commit.c - see commit.h. */
#include "commit.h"

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

static int select_threshold(struct candidate *c, int n, int quota, float threshold)
{
    (void)quota;
    qsort(c, (size_t)n, sizeof *c, by_confidence);
    int k = n > 0;
    while (k < n && c[k].confidence >= threshold) k++;
    return k;
}

static int select_factor(struct candidate *c, int n, int quota, float factor)
{
    (void)quota;
    qsort(c, (size_t)n, sizeof *c, by_confidence);
    int k = n > 0;
    while (k < n && c[k].confidence >= (float)(1.0 - (double)factor / (k + 2.0))) k++;
    return k;
}

const struct commit_rule commit_fixed = { "fixed", select_fixed }, commit_threshold = { "threshold", select_threshold },
                         commit_factor = { "factor", select_factor };

const struct commit_rule *commit_rule_of(const struct unmask_options *o, float *parameter)
{
    *parameter = o->factor > 0 ? o->factor : o->threshold;
    return o->factor > 0 ? &commit_factor : o->threshold > 0 ? &commit_threshold : &commit_fixed;
}

int commit_quota(int n_masked, int steps, int step) { return n_masked / steps + (step < n_masked % steps); }
