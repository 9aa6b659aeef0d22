/* tokenizer_open.c - makes, checks, describes and frees a tokenizer; the loaders fill it. */
#include "tokenizer_parts.h"

#include <stdlib.h>

#include "byte_alphabet.h"
#include "utf8.h"

static int by_text(const void *a, const void *b)
{
    const struct str x = ((const struct literal *)a)->text, y = ((const struct literal *)b)->text;
    const int order = memcmp(x.s, y.s, x.n < y.n ? x.n : y.n);
    return order ? order : (x.n > y.n) - (x.n < y.n);
}

static bool is_literal(const struct token *k, bool control)
{
    return k->type == TOKEN_USER || (control && k->type == TOKEN_CONTROL);
}

/* Literals are looked for at every byte of a text: long ones would make that as many comparisons. */
static bool collect(struct literals *l, const struct tokenizer *t, bool control, struct unmask_err *err)
{
    enum { MOST_BYTES = 512 };
    const struct vocab *v = &t->vocab;
    size_t n = 0;
    for (int id = 0; id < v->size; id++) n += is_literal(&v->tokens[id], control);
    if (!(l->items = mem_zalloc(n, sizeof *l->items, err))) return false;
    for (int id = 0; id < v->size; id++) {
        const struct token *k = &v->tokens[id];
        if (!is_literal(k, control)) continue;
        if (k->n > MOST_BYTES)
            return fail(err, E_TOK_TEXT, .file = t->path, .field = FMT("added token %d", id), .found = FMT("%d bytes", k->n),
                        .need = FMT("1 to %d", MOST_BYTES));
        l->items[l->n++] = (struct literal){ { k->s, k->n }, id };
    }
    qsort(l->items, l->n, sizeof *l->items, by_text);
    return true;
}

/* Where the files name no end of turn: the token that ends a turn in the templates of these models. */
static int32_t find_eot(const struct vocab *v)
{
    static const char *const names[] = { "<|eot_id|>", "<|im_end|>", "<|role_end|>" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const int32_t id = vocab_find(v, names[i], strlen(names[i]));
        if (id >= 0 && v->tokens[id].type == TOKEN_CONTROL) return id;
    }
    return -1;
}

/* A token with a role is never found in a user's text, even if the file calls it an ordinary added token; nor is the
 * mask, even if the file calls it a word (which others may be: some pad with "!"). */
static void protect(struct vocab *v, int32_t id, bool mask)
{
    if (id < 0 || id >= v->size) return;
    const uint8_t type = v->tokens[id].type;
    if (type == TOKEN_USER || (mask && type == TOKEN_NORMAL)) v->tokens[id].type = TOKEN_CONTROL;
}

/* Nor are the pieces of a text ever joined to one. */
static void part_special(struct bpe *b, const struct vocab *v)
{
    for (size_t i = 0; i < b->n; i++)
        if (v->tokens[b->pairs[i].result].type == TOKEN_CONTROL) b->pairs[i].result = BPE_NEVER;
}

bool tokenizer_finish(struct tokenizer *t, struct unmask_err *err)
{
    const int32_t roles[] = { t->ids.bos, t->ids.eos, t->ids.eot, t->ids.pad };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) protect(&t->vocab, roles[i], false);
    protect(&t->vocab, t->ids.mask, true);
    part_special(&t->bpe, &t->vocab);
    for (int b = 0; b < 256; b++) {
        char c[4];
        t->byte_ids[b] = vocab_find(&t->vocab, c, utf8_encode(byte_to_char((uint8_t)b), c));
    }
    if (t->ids.eot < 0) t->ids.eot = find_eot(&t->vocab);
    return splitter_new(&t->splitter, t->pre, err) && collect(&t->user, t, false, err)
        && collect(&t->special, t, true, err);
}

static struct tokenizer *tokenizer_new(const char *path, struct unmask_err *err)
{
    struct tokenizer *t = mem_zalloc(1, sizeof *t, err);
    if (!t) return NULL;
    t->ids = (struct token_ids){ -1, -1, -1, -1, -1 };
    if ((t->path = mem_strndup(path, strlen(path), err))) return t;
    tokenizer_close(t);
    return NULL;
}

bool tokenizer_open_folder(struct tokenizer **out, const char *path, struct unmask_err *err)
{
    struct tokenizer *t = tokenizer_new(path, err);
    if (!t) return false;
    if (tokenizer_load_json(t, path, err) && tokenizer_load_config(t, path, err) && tokenizer_finish(t, err)) {
        *out = t;
        return true;
    }
    tokenizer_close(t);
    return false;
}

bool tokenizer_open(struct tokenizer **out, const struct checkpoint *c, struct unmask_err *err)
{
    if (c->kind == CHECKPOINT_FOLDER) return tokenizer_open_folder(out, c->path, err);
    struct tokenizer *t = tokenizer_new(c->path, err);
    if (!t) return false;
    if (tokenizer_load_gguf(t, c, err) && tokenizer_finish(t, err)) {
        *out = t;
        return true;
    }
    tokenizer_close(t);
    return false;
}

void tokenizer_close(struct tokenizer *t)
{
    if (!t) return;
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    splitter_free(t->splitter);
    mem_free(t->user.items);
    mem_free(t->special.items);
    mem_free(t->chat_template);
    mem_free(t->path);
    mem_free(t);
}

const char *tokenizer_file(const struct tokenizer *t) { return t->path; }
int tokenizer_size(const struct tokenizer *t) { return t->vocab.size; }

struct str tokenizer_token(const struct tokenizer *t, int32_t id, enum token_type *type)
{
    const struct token *k = id >= 0 && id < t->vocab.size ? &t->vocab.tokens[id] : NULL;
    if (type) *type = k && k->type ? (enum token_type)k->type : TOKEN_UNUSED;
    return k && k->type ? (struct str){ k->s, k->n } : (struct str){ "", 0 };
}

int32_t tokenizer_find(const struct tokenizer *t, const char *token) { return vocab_find(&t->vocab, token, strlen(token)); }
struct token_ids tokenizer_ids(const struct tokenizer *t) { return t->ids; }
const char *tokenizer_pre(const struct tokenizer *t) { return t->pre->names[0]; }
struct str tokenizer_chat_template(const struct tokenizer *t) { return (struct str){ t->chat_template, t->n_chat_template }; }
size_t tokenizer_n_merges(const struct tokenizer *t) { return t->bpe.n; }
bool tokenizer_ignores_merges(const struct tokenizer *t) { return t->ignore_merges; }
bool tokenizer_normalizes(const struct tokenizer *t) { return t->nfc; }

bool tokenizer_merge(const struct tokenizer *t, size_t i, struct text_out *out, struct unmask_err *err)
{
    if (i >= t->bpe.n) return fail(err, E_INTERNAL, .found = FMT("merge %zu", i), .need = FMT("below %zu", t->bpe.n));
    const struct token *a = &t->vocab.tokens[t->bpe.pairs[i].left], *b = &t->vocab.tokens[t->bpe.pairs[i].right];
    return text_put(out, a->s, a->n, err) && text_put(out, " ", 1, err) && text_put(out, b->s, b->n, err);
}
