/* stage.h - the stages of a pass: each is shared out over the threads, and all wait for its end. */
#ifndef STAGE_H
#define STAGE_H

#include "pool.h"

/* Kinds of work in a pass, for measurements: X(id, name). */
#define STAGES(X) X(STAGE_EMBED, "embed") X(STAGE_NORM, "norm+quantize") X(STAGE_QKV, "gemm qkv") X(STAGE_STORE, "rope+store") \
    X(STAGE_VIEW, "read store") X(STAGE_ATTENTION, "attention") X(STAGE_QUANTIZE, "quantize") X(STAGE_O, "gemm o") \
    X(STAGE_GATE_UP, "gemm gate+up") X(STAGE_SWIGLU, "swiglu+quantize") X(STAGE_DOWN, "gemm down") \
    X(STAGE_RESIDUAL, "residual") X(STAGE_HEAD, "head")
enum stage {
#define X(id, name) id,
    STAGES(X)
#undef X
    N_STAGES
};

/* Seconds that passes took, added up as the calling thread sees them: its own work by stage, and at the ends of stages
 * what it waited for other threads. */
struct stage_seconds { double of[N_STAGES], waiting; };

/* Whose threads the stages run on, and where their time is noted.  Both belong to the caller. */
struct stages { struct pool *pool; struct stage_seconds *seconds; };    /* seconds NULL: nobody measures */

void stages_measure(struct stages *s, struct stage_seconds *seconds);
/* pool_run(), measured. */
void stage_run(const struct stages *s, enum stage stage, void (*item)(void *arg, int item, int worker), void *arg, int n_items);

/* For work that shares itself out: begin before it, end after it. */
struct lap { double start, waited; };
struct lap stage_begin(const struct stages *s);
void stage_end(const struct stages *s, enum stage stage, struct lap l);

#endif
