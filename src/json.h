/* json.h - JSON text from outside, through jansson, with our limits: strict RFC 8259, no duplicate keys,
 * bounded depth and size (a pre-scan counts before jansson builds anything). */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>
#include "err.h"

enum { JSON_DEPTH = 64 };
#define JSON_BYTES (64u << 20)

/* Parse n bytes of text; file names it in messages.  The caller owns the result: json_decref(). */
json_t *json_parse(const char *text, size_t n, const char *file, int depth, struct unmask_err *err);
/* Parse a whole file of at most JSON_BYTES. */
json_t *json_read(const char *path, struct unmask_err *err);

#endif
