/* pretokenizer.h - cuts text into the pieces that byte pair encoding never joins.  A fixed table of known patterns:
 * a file names one or quotes its text exactly; text from a file never reaches the regex engine. */
#ifndef PRETOKENIZER_H
#define PRETOKENIZER_H

#include "cursor.h"
#include "err.h"

struct pretokenizer {
    const char *names[4];       /* values of tokenizer.ggml.pre, ours first, NULL-terminated                       */
    const char *texts[3];       /* pattern texts of tokenizer.json that mean this one, NULL-terminated             */
    const char *pattern;        /* ours: the same, with \s spelt out                                               */
    bool ignore_merges, nfc;    /* what a GGUF file means that names this pattern and says nothing about it        */
};

/* NULL: unknown. */
const struct pretokenizer *pretokenizer_by_name(struct str name);
const struct pretokenizer *pretokenizer_by_text(struct str text);
/* The pattern inside a ByteLevel step with use_regex. */
const struct pretokenizer *pretokenizer_byte_level(void);
/* Names of the known ones, separated by ", ". */
const char *pretokenizer_known(struct err_text *t);
#define PRETOKENIZERS pretokenizer_known(&(struct err_text){ { 0 } })

/* A compiled pattern; immutable. */
struct splitter;
bool splitter_new(struct splitter **out, const struct pretokenizer *p, struct unmask_err *err);
void splitter_free(struct splitter *s);         /* NULL is fine */

/* State of one caller. */
struct split_work { void *match, *limits; };    /* zero-initialise */
/* For texts of up to n bytes. */
bool split_work_init(struct split_work *w, const struct splitter *s, size_t n, struct unmask_err *err);
/* End of the piece that starts at `at` < n; text must be valid UTF-8. */
bool split_next(const struct splitter *s, struct split_work *w, const char *text, size_t n, size_t at, size_t *end,
                struct unmask_err *err);
void split_work_free(struct split_work *w);

#endif
