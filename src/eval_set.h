/* eval_set.h - questions and texts that models are measured on: JSON lines of {"q", "a"} or of {"text"}. */
#ifndef EVAL_SET_H
#define EVAL_SET_H

#include "jsonl.h"

struct eval_line { const char *text, *answer; size_t n_text, n_answer; int number; };       /* answer: NULL for a text */

struct eval_set {
    const char *path;                           /* for messages */
    struct eval_line *questions, *texts; size_t n_questions, n_texts;
    json_t *lines;                              /* owns the strings */
    char where[1024];
};

/* The first `limit` (0: all) questions and as many texts of the file; path NULL: of the two sets that come with the program. */
bool eval_set_read(struct eval_set *e, const char *path, int limit, struct unmask_err *err);
void eval_set_free(struct eval_set *e);         /* a zeroed struct is fine */

/* Name the line in an error of the engine, which knows nothing of files of data.  Returns false. */
bool eval_set_at(const struct eval_set *e, const struct eval_line *l, struct unmask_err *err);

#endif
