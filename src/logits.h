/* logits.h - what the choice of a token needs to know of a row of logits, so that the row itself need not be kept: built up
 * part by part of the vocabulary, in an order that depends on nothing else. */
#ifndef LOGITS_H
#define LOGITS_H

#include "kernels.h"

enum {
    LOGIT_ROWS = 32,            /* rows whose logits are made together, at most: bounds rows x vocabulary            */
    LOGIT_PART = 512,           /* tokens of a part; a multiple of TILE_N                                            */
    LOGIT_APART = 3             /* tokens that rules treat specially (mask, end of text, end of turn), at most      */
};

/* Statistics over the tokens that are not apart:  sum = sum of e^(l - top),  moment = sum of e^(l - top) (l - top). */
struct logit_stats {
    int32_t best;               /* lowest token with the largest logit; -1: none above -inf */
    float max, second;          /* the largest logit and the next (equal where two share it); -inf: none */
    float top, sum, moment;     /* top: the largest logit in the sums, which are NAN where a logit is */
};
extern const struct logit_stats logit_none;     /* of no token */

/* Tokens that stay out of the statistics, and their logits in a row. */
struct logit_apart { int32_t token[LOGIT_APART]; int n; };
struct logit_apart_values { float l[LOGIT_APART]; };

/* Statistics of tokens first .. first + n - 1, n <= LOGIT_PART, whose logits are l[n]; l is as before afterwards.  Logits of
 * the tokens apart that are among them go to *values. */
void logit_part(const struct kernels *k, float *l, int first, int n, const struct logit_apart *apart, struct logit_apart_values *values,
                struct logit_stats *stats);
/* Add the next part to the statistics of the parts before it. */
void logit_add(struct logit_stats *all, const struct logit_stats *part);
/* Statistics of a whole row of n logits: the same bits as part by part. */
void logit_row(const struct kernels *k, float *l, int n,
               const struct logit_apart *apart, struct logit_apart_values *values, struct logit_stats *stats);

/* Take a token that stood apart into the choice, and into the sums. */
void logit_choose(struct logit_stats *s, int32_t token, float logit);
void logit_count(struct logit_stats *s, float logit);

/* Entropy of the softmax over the tokens in the sums, nats. */
float logit_entropy(const struct logit_stats *s);

#endif
