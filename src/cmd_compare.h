/* cmd_compare.h - eval --compare: what a change of the weights changes: two models of one vocabulary on the same questions and texts. */
#ifndef CMD_COMPARE_H
#define CMD_COMPARE_H

#include "eval_run.h"

/* Model s->compare (A) against model s->args[0] (B) on the sets of s->data; prints the report.  One is in memory at a time:
 * what A gave at the masks waits in a temporary file ($TMPDIR, else /var/tmp). */
bool cmd_compare(const struct settings *s, const struct term *t, struct unmask_err *err);

#endif
