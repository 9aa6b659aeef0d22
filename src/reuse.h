/* reuse.h - which rows of the canvas a denoising step computes: one engine, all methods are settings of it.  Rows that are
 * not computed keep the keys and values of their last pass (row_store.h). */
#ifndef REUSE_H
#define REUSE_H

#include <stdbool.h>
#include <stdint.h>

#include "forward.h"

/* What a step does besides computing every row.  A step's rows are
 *     changed    positions whose token changed since their keys were computed           (always)
 *     candidates masks of the block, the leftmost and the surest of the last step; their logits are computed
 *     settle     positions committed within the last `settle` steps; where blocks begin like other steps, and periods are
 *                phases, only those of the phase
 *     near       `left` positions before the block and `right` after it
 *     fill       the positions whose keys are oldest
 * or every row: at the first step, where `start` says so, and every `every` steps of a block.  A row may go through a part of the
 * layers:
 *     deep       every `deep` steps of a block the other rows too, from `depth` percent of the layers on, where they start with
 *                what their last pass through all layers kept there
 *     thin       in steps over some rows, of those that are neither changed nor the leftmost mask, only `thin` percent go on from
 *                `depth` percent of the layers on: the surest masks (ES-dLLM)
 * Numbers are whole so that each can be set by name, "fast,candidates=6": reuse_knobs. */
enum reuse_start { START_NOTHING, START_PART, START_FULL };     /* PART: the block, `back` positions before it, the first ones */
struct reuse_profile {
    const char *name, *what;            /* "dual"; one line for the help text                                     */
    int every;                          /* 1: every step computes every row; 0: only where `start` says so        */
    int start, back;                    /* enum reuse_start: what begins a block                                  */
    int candidates;                     /* masks whose rows are computed in a step, and as many as it is to commit; 0 = all of the block */
    int leftmost;                       /* 1: the candidates are the leftmost masks, not the surest               */
    int far;                            /* a step over some rows attends only to so many masks, the leftmost; 0: all */
    int first, warm;                    /* steps at the beginning of a block, and of a run, that compute every row */
    int whole;                          /* percent: a step that would compute more rows computes all              */
    int settle, left, right, fill;
    int depth, deep, thin;              /* percent of the layers, 0: half of them; steps, 0: none; percent, 0: all go on */
    int block_rows;                     /* 1: every row of the block, committed or not                            */
    int mask_rows;                      /* 1: every mask of the canvas                                            */
    int margin;                         /* percent of the measured error that a decision must be clear of, or all
                                           rows are computed first; 0: no decision is questioned                  */
    int spare, extra;                   /* what that may cost: so many rows, and a pass over all for `extra` steps
                                           of a hundred                                                           */
    int audit;                          /* every so many-th period ends with a comparison of both; 0: none         */
    int longest;                        /* above `every`: periods may grow so far while audits agree              */
    int least_steps;                    /* steps of a block, also when it is complete before                      */
    bool all_logits;                    /* logits of every row, needed or not: the yardstick                      */
};
extern const struct reuse_profile reuse_profiles[];     /* a NULL name ends it */

/* The settings of profiles by name. */
struct reuse_knob { const char *name; size_t offset; int max; const char *what; };
extern const struct reuse_knob reuse_knobs[];           /* a NULL name ends it */

/* A profile by its name, with or without changes behind it: "fast", "balanced,candidates=16,left=24". */
bool reuse_profile_read(const char *text, struct reuse_profile *p, struct unmask_err *err);

/* What steps build on that an earlier one stored. */
struct store_layers reuse_layers(const struct reuse_profile *p, int n_layer);

/* What is remembered of every position; [n] entries each, the caller's, who may have reuse_lay_out() place them. */
struct reuse_rank { float key; int position; };
struct reuse_state {
    const struct reuse_profile *p;
    int n, n_layer, steps;
    int period, since_full;             /* steps between passes over all rows (0: none are due); since the last   */
    bool *changed;
    int *age;                           /* steps since its commit; large before                                   */
    int *computed;                      /* step of its last pass                                                  */
    float *confidence;                  /* of its candidate when last computed                                    */
    int *mark; struct reuse_rank *rank; /* work space: what a plan says of every position; masks or rows to be sorted */
};
void reuse_begin(struct reuse_state *r, const struct reuse_profile *p, int n, int n_layer);

/* Positions; number of the step within the block, from 0; masks that the step is to commit. */
struct reuse_block { int start, end, step, quota; };

/* Positions to compute, ascending, into rows[n], and the layers of each into span[n]; those of them whose logits are needed as
 * indexes into rows, ascending, into need[n].  Eligible: is_mask[i] and i < block.end. */
struct reuse_rows {
    int *rows, *need;
    struct span *span;
    int n_rows, n_need;
    int64_t row_layers;                 /* what the rows cost: layers of each, added up */
    bool full, period;                  /* every row through every layer; since a period ended */
};

static inline bool reuse_in_parts(const struct reuse_state *r, const struct reuse_rows *rows)
{
    return rows->row_layers < (int64_t)rows->n_rows * r->n_layer;
}

/* The arrays of both for up to n positions at base + *used, which grows; base NULL: only count. */
void reuse_lay_out(struct reuse_state *r, struct reuse_rows *rows, uint8_t *base, size_t *used, int n);
void reuse_plan(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out);
/* The same, but every row, or as if none of the reasons for every row held. */
void reuse_plan_full(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out);
void reuse_plan_lean(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out);

/* Which positions a pass over these rows attends to, keys[n] of 0 or 1: all of them, but for the masks that are too far. */
void reuse_keys(const struct reuse_state *r, const bool *is_mask, const struct reuse_rows *rows, uint8_t *keys);

/* After the pass over `rows`: rows are fresh.  Once a step: it is over.  For each commit: its position. */
void reuse_passed(struct reuse_state *r, const struct reuse_rows *rows);
void reuse_stepped(struct reuse_state *r);
void reuse_committed(struct reuse_state *r, int position);

#endif
