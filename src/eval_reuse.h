/* eval_reuse.h - what a reuse profile changes: answers, text quality and cost against another profile of the same model. */
#ifndef EVAL_REUSE_H
#define EVAL_REUSE_H

#include "eval_run.h"

/* Profile s->reuse against s->against on the sets of s->data; prints the report.  judge: of the model; it
 * measures likelihood, every profile has a session of its own. */
bool eval_reuse(const struct settings *s, const struct term *t, struct unmask_session *judge, struct unmask_err *err);

#endif
