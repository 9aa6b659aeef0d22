/* err.h - how a function fails: one row of errors.def, plus what is known about the place.
 *
 *     return fail(err, E_GGUF_MAGIC, .file = path, .field = "magic", .byte = AT(0), .found = FMT("%.4s", p));
 *
 * Texts are copied and made printable, so locals may be passed.  Always returns false. */
#ifndef ERR_H
#define ERR_H

#include "unmask.h"

enum err_id {
#define X(name, id, status, what) name,
#include "errors.def"
#undef X
    ERR_COUNT
};

struct err_byte { bool known; uint64_t at; };
#define AT(o) ((struct err_byte){ true, (o) })

struct err_info {
    const char *file, *what, *field;    /* what: NULL = the text of errors.def */
    struct err_byte byte;
    const char *found, *need, *hint;
};

struct err_text { char s[256]; };
const char *err_fmt(struct err_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
#define FMT(...) err_fmt(&(struct err_text){ { 0 } }, __VA_ARGS__)

/* Append a name to a list of what would do, which begins empty: "q4_0, q8_0".  What no longer fits is left out. */
void err_list(struct err_text *list, const char *name);

bool err_set(struct unmask_err *err, enum err_id id, const struct err_info *info);
#define fail(err, id, ...) err_set((err), (id), &(struct err_info){ __VA_ARGS__ })

/* Is it this row's error? */
bool err_is(const struct unmask_err *err, enum err_id id);

/* Name a place before the file that an error names, if it names one: whoever found it knew nothing of that place.
 * Made printable as all texts are.  Always returns false. */
bool err_within(struct unmask_err *err, const char *place);

/* The last failing system call in words ("No space left on device"), thread-safe. */
const char *err_errno(struct err_text *t, int errnum);
#define ERRNO(e) err_errno(&(struct err_text){ { 0 } }, (e))

/* Bytes as people read them: "5.3 MiB". */
const char *err_size(struct err_text *t, double bytes);
#define SIZE(n) err_size(&(struct err_text){ { 0 } }, (double)(n))

/* Copy n bytes of untrusted text to dst[size]: control bytes and invalid UTF-8 become \xNN, cut at size - 1
 * (and at 80 characters with "..." when cut). */
void err_printable(char *dst, size_t size, const char *text, size_t n);
#define QUOTE(p, n) err_quote(&(struct err_text){ { 0 } }, (p), (n))
const char *err_quote(struct err_text *t, const char *p, size_t n);

/* A path as a word of a command to type: in quotes where it needs them, MODEL where it is too long or strange for a message. */
const char *err_word(struct err_text *t, const char *path);
#define WORD(path) err_word(&(struct err_text){ { 0 } }, (path))

#endif
