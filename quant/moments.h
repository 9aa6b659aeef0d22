/* moments.h - second moments of what a matrix multiplies: H = sum over inputs x of x^T x, k by k, symmetric; and its factor,
 * from which rounding errors of some weights are made good by the weights that follow (feedback.h).
 * Only the upper triangle is kept, in float32: 2 k^2 bytes.  Sums have one order, whatever the machine and its threads. */
#ifndef MOMENTS_H
#define MOMENTS_H

#include "err.h"
#include "kernels.h"
#include "pool.h"

enum { MOMENT_ROWS = 128 };     /* inputs that are added at a time, at most */

struct moments;
bool moments_open(struct moments **out, int k, struct unmask_err *err);
void moments_close(struct moments *m);          /* NULL is fine */
uint64_t moments_bytes(int k, int workers);     /* memory of one, with what adding and factoring take */

/* x: n rows of k floats, ld apart. */
bool moments_add(struct moments *m, const struct kernels *kernels, struct pool *pool, const float *x, size_t ld, int n,
                 struct unmask_err *err);
/* out[k]: the mean square of each input. */
void moments_squares(const struct moments *m, float *out);

/* H + damping * (mean of its diagonal) = U D U^T with U upper triangular, ones on its diagonal: replaces H. */
bool moments_factor(struct moments *m, const struct kernels *kernels, struct pool *pool, double damping, struct unmask_err *err);

/* What feedback needs of a factored m.  U as tiles of TILE_N columns, [row][TILE_N], rows 0 .. TILE_N * (tile + 1) - 1. */
const float *moments_tile(const struct moments *m, int tile);
const float *moments_d(const struct moments *m);               /* [k rounded up to TILE_N] the diagonal D, over the number of inputs */

#endif
