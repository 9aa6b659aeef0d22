/* head.h - the output head: logits of some rows, whole, or reduced where they are made. */
#ifndef HEAD_H
#define HEAD_H

#include "logits.h"
#include "products.h"

struct head {
    const struct unmask_model *m;               /* whose head is in memory              */
    struct logit_stats *parts;  /* [parts of the vocabulary][LOGIT_ROWS] */
    float *scratch;             /* [workers][LOGIT_ROWS][LOGIT_PART]     */
};

/* Work space of the head of m for `workers` threads; as mem_lay(). */
void head_lay(struct head *h, const struct unmask_model *m, uint8_t *base, size_t *used, int workers);

/* Logits of n_rows <= LOGIT_ROWS rows that went through the final norm: rows of logits ld floats apart (at least padded(n_vocab)). */
void head_logits(const struct head *h, const struct stages *s, const struct input *rows, int n_rows, float *logits, size_t ld);

/* The same without keeping a logit: stats and values [n_rows] as logit_row() would give them. */
void head_stats(const struct head *h, const struct stages *s, const struct input *rows, int n_rows, const struct logit_apart *apart,
                struct logit_apart_values *values, struct logit_stats *stats);

#endif
