/* reuse.h - which rows of the canvas a denoising step computes: one engine, all methods are settings of it.  Rows that are
 * not computed keep the keys and values of their last pass (row_store.h). */
#ifndef REUSE_H
#define REUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "err.h"

/* What a step does besides computing every row.  A step's rows are
 *     changed    positions whose token changed since their keys were computed           (always)
 *     candidates masks of the block, surest of the last step first, the leftmost always; their logits are computed
 *     settle     positions committed within the last `settle` steps
 *     near       `left` positions before the block and `right` after it
 * or every row: at the first step, where `start` says so, and every `every` steps of a block. */
struct reuse_profile {
    const char *name, *what;            /* "dual"; one line for the help text                                     */
    int every;                          /* 1: every step computes every row; 0: only where `start` says so        */
    enum reuse_start { START_NOTHING, START_PART, START_FULL } start;
    int candidates;                     /* most masks whose rows are computed in a step; 0 = all of the block     */
    int settle, left, right;
    bool block_rows;                    /* every row of the block, committed or not                               */
    bool mask_rows;                     /* every mask of the canvas                                               */
    bool all_logits;                    /* logits of every row, needed or not: the yardstick                      */
    int least_steps;                    /* steps of a block, also when it is complete before                      */
};
extern const struct reuse_profile reuse_profiles[];     /* a NULL name ends it */
const struct reuse_profile *reuse_profile_by_name(const char *name);           /* NULL: unknown */

/* Does any step build on what an earlier one stored? */
static inline bool reuse_has_history(const struct reuse_profile *p) { return p->every != 1; }

/* What is remembered of every position; [n] entries each, the caller's. */
struct reuse_state {
    const struct reuse_profile *p;
    int n, steps;
    bool *changed;
    int *age;                           /* steps since its commit; large before                                   */
    float *confidence;                  /* of its candidate when last computed                                    */
    int *order;                         /* work space                                                             */
};
void reuse_begin(struct reuse_state *r, const struct reuse_profile *p, int n);

struct reuse_block { int start, end, step; };            /* positions; number of the step within the block, from 0 */

/* Positions to compute, ascending, into rows[n]; those of them whose logits are needed as indexes into rows, ascending, into
 * need[n].  Eligible: is_mask[i] and i < block.end. */
struct reuse_rows { int *rows, *need; int n_rows, n_need; bool full; };
void reuse_plan(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out);

/* After the pass over `rows`: rows are fresh; then, for each commit, its position. */
void reuse_passed(struct reuse_state *r, const struct reuse_rows *rows);
void reuse_committed(struct reuse_state *r, int position);

#endif
