/* tokenizer_flat.c - the vocabulary and merges of a tokenizer.json, read where they stand in its text (json_flat.h).
 * It says only whether it understood all of it; if not, tokenizer_json.c reads the file through jansson and names the fault. */
#include "tokenizer_parts.h"

#include "json_flat.h"

struct tables { struct str vocab, merges; size_t n_vocab, n_merges; };

/* Step into the member `name` of the object that begins here. */
static bool enter(struct json_flat *f, const char *name)
{
    struct str key, value;
    size_t n;
    if (!json_flat_take(f, '{')) return false;
    do {
        if (!json_flat_key(f, &key)) return false;
        if (key.n == strlen(name) && !memcmp(key.s, name, key.n)) return true;
    } while (json_flat_skip(f, &value, &n) && json_flat_take(f, ','));
    return false;
}

static bool find(struct str text, struct tables *found)
{
    struct json_flat f = json_flat_over(text);
    struct str key, value;
    size_t n;
    bool ok = enter(&f, "model") && json_flat_take(&f, '{');
    do {
        ok = ok && json_flat_key(&f, &key);
        const bool vocab = ok && key.n == 5 && !memcmp(key.s, "vocab", 5);
        const bool merges = ok && key.n == 6 && !memcmp(key.s, "merges", 6);
        ok = ok && json_flat_skip(&f, &value, &n);
        if (ok && vocab) { found->vocab = value; found->n_vocab = n; }
        if (ok && merges) { found->merges = value; found->n_merges = n; }
    } while (ok && json_flat_take(&f, ','));
    json_flat_end(&f);
    return ok && found->vocab.s && found->merges.s && found->n_merges <= BPE_PAIRS;
}

/* {"a": 0, "b": 1, ...} */
static bool read_vocab(struct tokenizer *t, const struct tables *from)
{
    struct json_flat f = json_flat_over(from->vocab);
    struct str text;
    int64_t id;
    bool ok = vocab_init(&t->vocab, from->n_vocab, NULL) && json_flat_take(&f, '{');
    do ok = ok && json_flat_key(&f, &text) && json_flat_int(&f, &id)
        && vocab_add(&t->vocab, id, text, TOKEN_NORMAL, NULL, NULL, NULL);
    while (ok && json_flat_take(&f, ','));
    ok = ok && json_flat_take(&f, '}') && f.p == f.end;
    json_flat_end(&f);
    return ok;
}

/* "a b", or ["a", "b"]: the left part is copied, since the right one may be decoded over it. */
static bool read_merge(struct tokenizer *t, struct json_flat *f)
{
    char copy[1024];
    struct str left, right;
    if (!json_flat_take(f, '['))
        return json_flat_string(f, &left) && merge_parts(left, &left, &right)
            && tokenizer_add_merge(t, left, right, NULL, NULL, NULL);
    if (!json_flat_string(f, &left) || left.n > sizeof copy) return false;
    memcpy(copy, left.s, left.n);
    left.s = copy;
    return json_flat_take(f, ',') && json_flat_string(f, &right) && json_flat_take(f, ']')
        && tokenizer_add_merge(t, left, right, NULL, NULL, NULL);
}

static bool read_merges(struct tokenizer *t, const struct tables *from)
{
    struct json_flat f = json_flat_over(from->merges);
    bool ok = bpe_init(&t->bpe, from->n_merges, NULL) && json_flat_take(&f, '[');
    do ok = ok && t->bpe.n < from->n_merges && read_merge(t, &f);
    while (ok && json_flat_take(&f, ','));
    ok = ok && json_flat_take(&f, ']') && f.p == f.end;
    json_flat_end(&f);
    return ok;
}

/* The text with empty tables: what is left for jansson to check. */
static char *without(struct str text, const struct tables *tables, size_t *n)
{
    const bool vocab_first = tables->vocab.s < tables->merges.s;
    const struct str a = vocab_first ? tables->vocab : tables->merges, b = vocab_first ? tables->merges : tables->vocab;
    const char *const empty[] = { "{}", "[]" };
    const struct str parts[] = {
        { text.s, (size_t)(a.s - text.s) }, { empty[!vocab_first], 2 },
        { a.s + a.n, (size_t)(b.s - a.s) - a.n }, { empty[vocab_first], 2 },
        { b.s + b.n, (size_t)(text.s + text.n - b.s) - b.n },
    };
    char *rest = mem_resize(NULL, text.n - a.n - b.n + 4, 1, NULL);
    *n = 0;
    for (int i = 0; rest && i < 5; i++) {
        memcpy(rest + *n, parts[i].s, parts[i].n);
        *n += parts[i].n;
    }
    return rest;
}

bool tokenizer_load_flat(struct tokenizer *t, struct str text, char **rest, size_t *n_rest)
{
    struct tables tables = { 0 };
    if (find(text, &tables) && read_vocab(t, &tables) && read_merges(t, &tables)
        && (*rest = without(text, &tables, n_rest))) return true;
    vocab_free(&t->vocab);
    bpe_free(&t->bpe);
    return false;
}
