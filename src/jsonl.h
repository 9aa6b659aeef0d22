/* jsonl.h - files of one JSON object per line, read line by line, so that they may be of any length. */
#ifndef JSONL_H
#define JSONL_H

#include <stdio.h>
#include "json.h"

struct jsonl { FILE *in; const char *name; char *line; size_t n, cap; uint64_t number; };

/* path "-" is standard input; the path stays borrowed. */
bool jsonl_open(struct jsonl *j, const char *path, struct unmask_err *err);
/* The next line that is not blank, and without a byte order mark; strings in it may hold NUL; *object (json_decref) is NULL at the end. */
bool jsonl_next(struct jsonl *j, json_t **object, struct unmask_err *err);
/* The string under `key` of the line just read, or E_CLI_LINE. */
const json_t *jsonl_string(const struct jsonl *j, const json_t *object, const char *key, struct unmask_err *err);
/* Name the line in an error of the engine, which knows nothing of files of data; not where the model is at fault, whatever the
 * line.  Returns false. */
bool jsonl_at(const char *path, uint64_t number, struct unmask_err *err);
void jsonl_close(struct jsonl *j);              /* a zeroed struct is fine */

#endif
