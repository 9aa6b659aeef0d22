/* forward.h - the Transformer pass over a canvas, and the output head over chosen rows of it. */
#ifndef FORWARD_H
#define FORWARD_H

#include "logits.h"
#include "model.h"
#include "row_store.h"
#include "stage.h"

enum { FORWARD_CHUNK = 128 };   /* rows that go through a layer's stages together; a multiple of ROW_GROUP */

/* Work space of passes over canvases of up to max_tokens positions, in up to max_branches branches. */
struct forward;
bool forward_open(struct forward **out, const struct unmask_model *m, int max_tokens, int max_branches,
                  struct pool *pool, struct unmask_err *err);
/* What of the weights stays in the file: matrices that every pass reads, an embedding whose rows are looked up. */
struct away { bool matrices, embedding; };
struct away forward_away(const struct unmask_model *m);
/* Bytes that it takes for such a model; the ring is not counted. */
size_t forward_bytes(const struct unmask_model *m, int max_tokens, int max_branches, struct away away, int threads);
void forward_close(struct forward *f);          /* NULL is fine */
int forward_max_tokens(const struct forward *f);
int forward_max_branches(const struct forward *f);

enum { MAX_BRANCHES = 2 };      /* canvases of one length that go through the layers together: guidance needs two */

/* Layers that a row goes through: from .. to-1.  One that starts later than layer 0 starts with what the store kept there; one that
 * leaves before the end keeps its older keys and values behind. */
struct span { int from, to; };

/* One bidirectional pass: some rows of one or two canvases through all layers, on top of what the stores hold of the
 * other rows.  Row r of branch b is row b * n_rows + r of x. */
struct pass {
    int n_branches;
    const int32_t *ids[MAX_BRANCHES];           /* [n_keys] each, in [0, n_vocab)                                  */
    struct row_store *store[MAX_BRANCHES];      /* keys and values of all positions; the pass replaces its rows'   */
    int n_keys;                                 /* positions of the canvas, at most max_tokens                     */
    const uint8_t *key_mask;                    /* n_keys bytes, 0 = padding that no row attends to; NULL = none   */
    const int *rows; int n_rows;                /* positions to compute, ascending; rows NULL: 0 .. n_keys - 1     */
    const struct span *span;                    /* [n_rows]: layers of each row; NULL: all of them.  Needed rows go to the end */
    const int *need; int n_need;                /* rows (indexes into rows, ascending) whose output is wanted: the
                                                   last layer computes only keys and values of the others; NULL: all */
    float *x;                                   /* [n_branches * n_rows][n_embd]: output of the last block, before
                                                   the final norm; unspecified for rows that are not needed        */
    /* Sees x after every block; false ends the pass early.  NULL: nobody looks. */
    bool (*on_layer)(void *user, int layer, const float *x);
    /* Sees what matrices multiply, a chunk of n rows of k floats at a time, ld apart (FORWARD_CHUNK rows at most, all where weights are
     * streamed): role T_Q (of K and V too), T_O, T_GATE (of Up too) or T_DOWN.  NULL: nobody looks. */
    void (*on_input)(void *user, enum tensor_role role, const float *rows, size_t ld, int n);
    bool resume;                                /* x holds what the first layer reads; ids are not looked at       */
    void *user;
};

/* The store of a model whose user asks for none: kv_i8 beside int8 weights, kv_f32 beside float weights, whose numbers are
 * compared with references. */
const struct store_kind *forward_store_kind(const struct unmask_model *m);

/* False when on_layer says so; or where streamed weights could not be read, a file has changed, an embedding is not finite, or a row
 * that went through the last layer is not or is too large for a norm: then forward_failed() tells why. */
bool forward_pass(struct forward *f, const struct pass *p);
bool forward_failed(const struct forward *f, struct unmask_err *err);
/* Read what a pass reads, and nothing else, for measurements; true where nothing is streamed.  False: forward_failed(). */
bool forward_drain(struct forward *f);
uint64_t forward_bytes_read(const struct forward *f);           /* of streamed weights, so far */

/* logits[i][0..n_vocab), rows ld floats apart (ld a multiple of 16, at least n_vocab), of row rows[i] of x; n_rows <= LOGIT_ROWS, 0 too. */
void forward_logits(struct forward *f, const float *x, const int *rows, int n_rows, float *logits, size_t ld);

/* The same rows without keeping a logit: the head's products are reduced part by part of the vocabulary, where they are.  stats
 * and values [n_rows]: as logit_row() would give them for the row. */
void forward_head(struct forward *f, const float *x, const int *rows, int n_rows,
                  const struct logit_apart *apart, struct logit_apart_values *values, struct logit_stats *stats);

/* Adds to *seconds what passes take from now on.  NULL (the default): nothing is measured. */
void forward_measure(struct forward *f, struct stage_seconds *seconds);

static inline size_t logits_stride(const struct unmask_model *m) { return padded(m->h.n_vocab); }

#endif
