/* forward.h - the Transformer pass over a canvas, and the output head over chosen rows of it. */
#ifndef FORWARD_H
#define FORWARD_H

#include "model.h"

enum { LOGIT_ROWS = 32 };       /* rows that forward_logits() takes at most: bounds rows x vocabulary */

/* Work space of passes over up to max_tokens positions. */
struct forward;
bool forward_open(struct forward **out, const struct unmask_model *m, int max_tokens, struct pool *pool, struct unmask_err *err);
void forward_close(struct forward *f);          /* NULL is fine */
int forward_max_tokens(const struct forward *f);

/* One bidirectional pass over n <= max_tokens ids, each in [0, n_vocab): x[n][n_embd] becomes the output of the last
 * block, before the final norm.  key_mask: n bytes, 0 = padding that no position attends to; NULL = none.  on_layer (or
 * NULL) sees x after every block; false ends the pass early and is returned. */
bool forward_pass(struct forward *f, const int32_t *ids, int n, const uint8_t *key_mask, float *x,
                  bool (*on_layer)(void *user, int layer, const float *x), void *user);

/* logits[i][0..n_vocab), rows ld floats apart (ld a multiple of 16, at least n_vocab), of row rows[i] of x; n_rows <= LOGIT_ROWS, 0 too. */
void forward_logits(struct forward *f, const float *x, const int *rows, int n_rows, float *logits, size_t ld);

/* Kinds of work in a pass, for measurements: X(id, name). */
#define STAGES(X) X(STAGE_EMBED, "embed") X(STAGE_NORM, "norm+quantize") X(STAGE_QKV, "gemm qkv") X(STAGE_ROPE, "rope+store") \
    X(STAGE_ATTENTION, "attention") X(STAGE_QUANTIZE, "quantize") X(STAGE_O, "gemm o") X(STAGE_GATE_UP, "gemm gate+up") \
    X(STAGE_SWIGLU, "swiglu+quantize") X(STAGE_DOWN, "gemm down") X(STAGE_RESIDUAL, "residual") X(STAGE_HEAD, "head")
enum stage {
#define X(id, name) id,
    STAGES(X)
#undef X
    N_STAGES
};

/* Seconds that passes took, added up as the calling thread sees them: its own work by stage, and at the ends of stages
 * what it waited for other threads.  NULL (the default): nothing is measured. */
struct stage_seconds { double of[N_STAGES], waiting; };
void forward_measure(struct forward *f, struct stage_seconds *seconds);

static inline size_t logits_stride(const struct unmask_model *m) { return (size_t)tiles_of(m->h.n_vocab) * TILE_N; }

#endif
