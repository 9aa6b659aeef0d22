/* bench.h - the parts of `unmask bench`.  Measurements come as JSON rows, one object each, which cmd_bench.c prints as a table
 * or as they are, and compares with earlier ones. */
#ifndef BENCH_H
#define BENCH_H

#include <jansson.h>

#include "format.h"
#include "options.h"
#include "term.h"

/* Whole passes over the model of --model: a row per entry of --tokens, appended to rows. */
bool bench_passes(const struct settings *s, const struct term *t, json_t *rows, struct unmask_err *err);

/* The matrix products alone, without a model: a row per format, shape and entry of --tokens. */
bool bench_kernels(const struct settings *s, json_t *rows, struct unmask_err *err);

/* A case of each size in the list of --tokens, 1 to `most`; without it of each in `usual` that is one.  need: what an error says
 * behind that range. */
typedef bool bench_case(void *user, int size, struct unmask_err *err);
bool bench_each_size(const char *tokens, const char *usual, int most, const char *need, bench_case *one, void *user,
                     struct unmask_err *err);

/* Write a model of the shape --make-model with random weights, the same bytes every time, for measurements; *bytes: its size. */
bool bench_make_model(const struct settings *s, const struct term *t, const struct quant_format *f, const char *out,
                      uint64_t *bytes, struct unmask_err *err);

/* Blocks first .. first + n of random weights to dst; prefix: of the noise.  NULL: not a format of bench_fill_names. */
typedef void bench_fill(uint8_t *dst, uint64_t prefix, uint64_t first, size_t n);
bench_fill *bench_fill_of(const struct quant_format *f);
extern const char bench_fill_names[];

#endif
