/* eval_reuse.h - what a reuse profile changes: answers, text quality and cost against another profile of the same model. */
#ifndef EVAL_REUSE_H
#define EVAL_REUSE_H

#include "eval_run.h"

enum { EVAL_REUSE_SESSIONS = 2 };       /* as many as run side by side, where a run is replayed under the other profile */

/* Profile s->reuse against s->against on the sets of s->data; prints the report.  sessions: of one model. */
bool eval_reuse(const struct settings *s, const struct term *t, struct unmask_session *const sessions[EVAL_REUSE_SESSIONS],
                struct unmask_err *err);

#endif
