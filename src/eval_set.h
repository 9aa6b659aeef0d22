/* eval_set.h - questions and texts that models are measured on: JSON lines of {"q", "a"} or of {"text"}. */
#ifndef EVAL_SET_H
#define EVAL_SET_H

#include "jsonl.h"

/* answer: NULL for a text; path and number: where it stands. */
struct eval_line { const char *text, *answer; size_t n_text, n_answer; const char *path; int number; };

struct eval_set {
    struct eval_line *questions, *texts; size_t n_questions, n_texts;
    json_t *lines;                              /* owns the strings */
    char where[2][1024];                        /* the sets that come with the program */
    const char *name;                           /* of the file that was read last, for messages */
};

/* The first `limit` (0: all) questions and as many texts of the file; path NULL: of the two sets that come with the program. */
bool eval_set_read(struct eval_set *e, const char *path, int limit, struct unmask_err *err);
/* The first `limit` lines (0: all) of a file of nothing but questions; what stands behind them is not looked at. */
bool eval_questions_read(struct eval_set *e, const char *path, int limit, struct unmask_err *err);
void eval_set_free(struct eval_set *e);         /* a zeroed struct is fine */

#endif
