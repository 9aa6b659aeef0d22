/* vocab.h - tokens by id and by text.  Says nothing about what the texts mean. */
#ifndef VOCAB_H
#define VOCAB_H

#include "cursor.h"
#include "mem.h"
#include "names.h"

enum { VOCAB_IDS = 1 << 22, TOKEN_BYTES = UINT16_MAX };

struct token { const char *s; uint16_t n; uint8_t type; };      /* type: enum token_type; 0: no token has this id */

struct vocab {
    struct token *tokens; int size, cap;        /* ids are [0, size) */
    size_t longest;                             /* bytes of the longest text */
    struct names by_text; size_t used, room;
    struct arena texts;
};

/* Expect about n tokens. */
bool vocab_init(struct vocab *v, size_t n, struct unmask_err *err);
/* Copies the text.  Refuses ids outside [0, VOCAB_IDS), texts that are empty or longer than TOKEN_BYTES, and a second
 * token of the same id or text; file and field say in messages where the token stands. */
bool vocab_add(struct vocab *v, int64_t id, struct str text, int type, const char *file, const char *field,
               struct unmask_err *err);
/* Ids up to n without a token, if there are fewer. */
bool vocab_grow(struct vocab *v, int n, struct unmask_err *err);
int32_t vocab_find(const struct vocab *v, const char *s, size_t n);     /* -1: none */
void vocab_free(struct vocab *v);               /* a zeroed struct is fine */

#endif
