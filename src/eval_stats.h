/* eval_stats.h - statistics of measurements: intervals at 95 %, all of them closed forms, so that the same data give the same. */
#ifndef EVAL_STATS_H
#define EVAL_STATS_H

#include "err.h"

struct interval { double low, high; };

/* Wilson's score interval of k successes in n trials. */
struct interval eval_wilson(double k, double n);
/* Difference of two shares measured on the same n items, both right in `both`, only the first in `first`, only the second in
 * `second` of them: Newcombe 1998, method 10 (Wilson's intervals squared and added, with the correlation of the pairs). */
struct interval eval_paired_shares(double both, double first, double second, double n);
/* Mean of n differences (normal; n = 1 has no spread: NAN). */
struct interval eval_mean(const double *x, size_t n, double *mean);
/* Half the interval of  sum of x / sum of weights  over n items: standard error of the residuals (linearization); n = 1: NAN. */
double eval_ratio_half(const double *x, const double *weights, size_t n);

/* KL(p || q) of two rows of logits over n tokens, nats; exactly 0 for equal rows. */
double eval_kl(const float *p, const float *q, int n);

/* Share of distinct pairs among the pairs of neighbouring words of a text (words: what white space separates); *pairs may be
 * 0, then the share is 0 and nothing is learned. */
bool eval_distinct_pairs(const char *text, size_t n, size_t *distinct, size_t *pairs, struct unmask_err *err);

#endif
