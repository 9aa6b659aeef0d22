/* commit.h - which positions a denoising step commits: a confidence measure times a transfer rule, one table row each. */
#ifndef COMMIT_H
#define COMMIT_H

#include <stdint.h>

#include "unmask.h"

/* A masked position that a step may commit, with the token chosen for it. */
struct candidate {
    int position; int32_t token;
    float confidence;           /* what the rules compare                                                   */
    float margin;               /* its best logit minus the next among the tokens that may be chosen        */
    float entropy;              /* of the softmax over the tokens that count, nats                          */
};

struct commit_rule {
    /* Sort c[n] so that the positions to commit come first, and say how many: 1..n for n > 0 and quota > 0 (fixed: quota
     * may be 0).  Higher confidence first, ties by lowest position. */
    int (*select)(struct candidate *c, int n, int quota, float parameter);
    /* How far confidences may move, each by so much, before other positions than the first k of c[n] would be selected. */
    float (*slack)(const struct candidate *c, int n, int k, float parameter);
};

/* fixed      the `quota` best                                       ML-GSAI/LLaDA generate.py
 * threshold  the best, and all with confidence >= parameter          NVlabs/Fast-dLLM
 * factor     the longest prefix with c_r >= 1 - parameter / (r + 1), r from 1; the best always */
extern const struct commit_rule commit_fixed, commit_threshold, commit_factor;

/* The rule that these options ask for, and its parameter: factor, else threshold, else the fixed schedule. */
const struct commit_rule *commit_rule_of(const struct unmask_options *o, float *parameter);

/* Tokens to commit in step `step` of `steps` when the block started with n_masked masks: as equal as can be, the
 * remainder going to the first steps (generate.py get_num_transfer_tokens). */
int commit_quota(int n_masked, int steps, int step);

#endif
