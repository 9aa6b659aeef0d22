/* eval_run.h - whole generations for comparison: the answer, and the order in which it was written. */
#ifndef EVAL_RUN_H
#define EVAL_RUN_H

#include "eval_set.h"
#include "session.h"
#include "term.h"

/* Progress of a measurement, and the place where it notices that it shall stop. */
struct eval_clock { struct progress progress; double done, total; const char *what; };
bool eval_tick(struct eval_clock *c);           /* false: a signal came */
bool eval_on_draw(void *clock, int draws);      /* the same, as likelihood() asks */

struct eval_run {
    struct unmask_result r;
    int n_ids;                  /* answer up to and including its first end token, also where the run went on behind it */
    int *step_of;               /* [n_canvas] the step that committed a position; 0: none          */
    int *block_step;            /* [n_canvas] the first step of the block that committed it        */
};
bool eval_run(struct eval_run *e, struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const struct unmask_options *o,
              struct eval_clock *clock, struct unmask_err *err);
void eval_run_free(struct eval_run *e);         /* a zeroed struct is fine */

/* Ids of a question in the chat template, or of the begin token and the start of a text (at most `most` ids).  unmask_free. */
bool eval_prompt(const struct unmask_model *m, const struct eval_line *l, size_t most, int32_t **ids, size_t *n, struct unmask_err *err);
/* Options for questions (64 masks, threshold 0.9, early stop) or texts (128 masks, 2 commits a step), under what the user set. */
void eval_options(const struct settings *s, const struct unmask_model *m, bool questions, struct unmask_options *o);
enum { EVAL_PROMPT = 128 };     /* ids of a text that are given */
/* Positions of their blocks, at most. */
int eval_block(const struct settings *s);

/* Equal positions over the longer of two answers, added to *equal and *positions. */
void eval_agreement(const struct eval_run *a, const struct eval_run *b, double *equal, double *positions);
/* The first step that commits otherwise; 0: none. */
int eval_first_difference(const struct eval_run *a, const struct eval_run *b);
/* The answer is, byte for byte, the wanted one. */
bool eval_right(const struct unmask_model *m, const struct eval_run *e, const struct eval_line *l, bool *right, struct unmask_err *err);

#endif
