/* tokenizer_merges.c - a merge as files write it: two texts, or one that a space cuts. */
#include "tokenizer_parts.h"

#include <string.h>

#include "mem.h"

bool merge_parts(struct str s, struct str *left, struct str *right)
{
    const char *space = memchr(s.s, ' ', s.n);
    if (!space || space == s.s || space == s.s + s.n - 1) return false;
    *left = (struct str){ s.s, (size_t)(space - s.s) };
    *right = (struct str){ space + 1, s.n - left->n - 1 };
    return !memchr(right->s, ' ', right->n);
}

bool tokenizer_add_merge(struct tokenizer *t, struct str left, struct str right, const char *file, const char *where,
                         struct unmask_err *err)
{
    char joined[1024], *text = joined;
    const int32_t a = vocab_find(&t->vocab, left.s, left.n), b = vocab_find(&t->vocab, right.s, right.n);
    if (a < 0 || b < 0)
        return fail(err, E_TOK_MERGE, .file = file, .field = where,
                    .found = FMT("\"%s\"", a < 0 ? QUOTE(left.s, left.n) : QUOTE(right.s, right.n)),
                    .need = "a token of the vocabulary");
    const size_t n = left.n + right.n;          /* each at most TOKEN_BYTES */
    if (n > sizeof joined && !(text = mem_resize(NULL, n, 1, err))) return false;
    memcpy(text, left.s, left.n);
    memcpy(text + left.n, right.s, right.n);
    const int32_t result = vocab_find(&t->vocab, text, n);
    if (result >= 0) bpe_add(&t->bpe, (struct bpe_pair){ a, b, result });
    else fail(err, E_TOK_MERGE, .file = file, .field = where, .found = FMT("\"%s\"", QUOTE(text, n)),
              .need = "a token of the vocabulary");
    if (text != joined) mem_free(text);
    return result >= 0;
}
