/* json_flat.h - walks plain JSON text in place, without a tree: for the vocabulary and the merges of a tokenizer.json, whose
 * half a million values cost jansson several times the time and memory that the tokenizer itself takes.
 *
 * A shortcut, not a second reader: it accepts less than RFC 8259 allows (integers of up to 10 digits, strings that jansson
 * decodes where they hold an escape) and says only that it did not understand; the caller then takes the way through jansson,
 * which knows what is wrong and where. */
#ifndef JSON_FLAT_H
#define JSON_FLAT_H

#include "cursor.h"
#include "json.h"

struct json_flat { const char *p, *end; json_t *decoded; };     /* decoded: the last string with an escape */

static inline struct json_flat json_flat_over(struct str text) { return (struct json_flat){ text.s, text.s + text.n, NULL }; }
void json_flat_end(struct json_flat *f);

/* Each skips white space first.  False, at an unspecified place, when something else stands there. */
bool json_flat_take(struct json_flat *f, char c);               /* this character; if another stands there, it stays */
bool json_flat_string(struct json_flat *f, struct str *s);      /* valid UTF-8; borrowed until the next string */
bool json_flat_key(struct json_flat *f, struct str *s);         /* a string and the colon after it */
bool json_flat_int(struct json_flat *f, int64_t *v);
/* Any value, unchecked but for its brackets; its text, and the number of items if it is an array or object. */
bool json_flat_skip(struct json_flat *f, struct str *value, size_t *n_items);

#endif
