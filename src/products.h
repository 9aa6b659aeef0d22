/* products.h - matrix products as stages of a pass: rows times weights, whose tiles are in memory or come through a stream. */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "model.h"
#include "stage.h"

/* The input of matrix products: rows of floats, ld apart, and, where a product has int8 weights, the same rows quantized. */
struct input { float *x; size_t ld; struct q8rows q; };
/* Rows of k floats that lie at x already, and room for them quantized, as by mem_lay(). */
struct input input_lay(float *x, size_t ld, uint8_t *base, size_t *used, size_t rows, int k);

/* y = in times w^T, rows of y ldy floats apart (at least padded(w->n)). */
struct product { const struct weight *w; const struct input *in; float *y; size_t ldy; };

/* Up to three products of the same number of rows, side by side.  Those of streamed weights use parts of it that follow each other; where
 * reading fails y is unspecified, and the stream tells. */
void products_run(const struct stages *s, enum stage stage, const struct kernels *k, struct stream *stream,
                  const struct product *p, int n, int rows);

/* y = rows row0 .. row1 - 1 of in times some tiles of w; y points at row 0 and the first of the tiles. */
void multiply(const struct kernels *k, const struct weight *w, const uint8_t *tiles, int n_tiles,
              const struct input *in, int row0, int row1, float *y, size_t ldy);

#endif
