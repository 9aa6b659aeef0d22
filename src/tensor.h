/* tensor.h - a named array in a checkpoint file; the numbers stay in the file until they are read. */
#ifndef TENSOR_H
#define TENSOR_H

#include "file.h"
#include "pack.h"

struct tensor {
    const char *name;                           /* borrowed from the checkpoint                          */
    const struct quant_format *format;
    const struct pack_format *packed;           /* a matrix that lies in tiles (pack.h); NULL: row by row */
    int n_dims;
    uint64_t shape[4];                          /* shape[0] is the fastest (row length k); unused dims are 1 */
    uint64_t bytes;
    const struct file *file;
    uint64_t offset;                            /* from the start of file                                */
};

static inline uint64_t tensor_rows(const struct tensor *t) { return t->shape[1] * t->shape[2] * t->shape[3]; }

#endif
