/* json.h - JSON text from outside, through jansson, with our limits: strict RFC 8259, no duplicate keys,
 * bounded depth and size (a pre-scan counts before jansson builds anything); and strings for JSON of ours. */
#ifndef JSON_H
#define JSON_H

#include <jansson.h>
#include "err.h"

enum { JSON_DEPTH = 64 };
#define JSON_BYTES (64u << 20)

/* Parse n bytes of text; file names it in messages.  The caller owns the result: json_decref(). */
json_t *json_parse(const char *text, size_t n, const char *file, int depth, struct unmask_err *err);
/* The same for texts that models read: a string may hold NUL, so that its length is json_string_length()'s. */
json_t *json_parse_data(const char *text, size_t n, const char *file, struct unmask_err *err);
/* Parse a whole file of at most JSON_BYTES. */
json_t *json_read(const char *path, struct unmask_err *err);

/* A string of n bytes that need not be UTF-8, which JSON must be: a path, a name out of a file.  Other bytes become U+FFFD.
 * The caller owns it; NULL: out of memory. */
json_t *json_text(const char *s, size_t n);
json_t *json_cstr(const char *s);             /* of strlen(s) bytes */
/* The same on standard output, quoted. */
void json_print_text(const char *s, size_t n);

#endif
