/* eval_replay.h - teacher forcing: one profile's steps on the states that another profile's run went through, so that an early
 * difference does not spread, and logits can be compared position by position. */
#ifndef EVAL_REPLAY_H
#define EVAL_REPLAY_H

#include "eval_run.h"

/* Candidate rows by age: steps since the last pass over every row, in bins 0, 1, 2-3, 4-7, 8-15, ... */
enum { REPLAY_AGES = 10 };
struct replay_sum {
    double rows, equal, kl;     /* rows compared: masks of the block whose logits the other's step needs; of them with the same best
                                   token; sum of KL(reference || other)                                                 */
    double steps, overlap;      /* steps; sum of |A and B| / |A or B|, A and B what the two would commit: positions with tokens  */
    double committed, right;    /* positions that the reference commits; of them those that the other computes in the same step
                                   with the same best token                                                             */
};
struct replay { struct replay_sum age[REPLAY_AGES]; };

/* Replay `run`, made with the options `reference`, in both sessions, and add what differs under `other`. */
bool eval_replay(struct replay *r, const struct eval_run *run,
                 struct unmask_session *reference_session, const struct unmask_options *reference,
                 struct unmask_session *session, const struct unmask_options *other, struct eval_clock *clock, struct unmask_err *err);
struct replay_sum replay_total(const struct replay *r);
int replay_youngest(int bin);                   /* least age of a bin */

#endif
