/* feedback.h - rows of weights rounded one after the other column, each rounding error being handed on to the columns that
 * follow so that the products with typical inputs change least (GPTQ, arXiv:2210.17323, in the form of LDLQ, arXiv:2307.13304). */
#ifndef FEEDBACK_H
#define FEEDBACK_H

#include "moments.h"

enum { FEEDBACK_ROWS = 64 };    /* rows at a time, at most */

/* Rows [n][k] of w, which stay as they are, to dst[r], in a format that has fit_block; m is factored.  scratch:
 * feedback_scratch() bytes, 64-byte aligned.  *ee grows by the sum over the rows of the mean square, over the inputs, of what the
 * errors give. */
size_t feedback_scratch(const struct quant_format *to, int k);
void feedback_rows(const struct moments *m, const struct kernels *kernels, const struct quant_format *to, const float *w, int n, int k,
                   uint8_t *const *dst, void *scratch, double *ee);

/* The sum over rows e [n][k] of the mean square, over the inputs, of what they give: what errors cost, or how large outputs are. */
double feedback_cost(const struct moments *m, const struct kernels *kernels, const float *e, int n, int k, void *scratch);

#endif
