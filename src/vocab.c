/* vocab.c - see vocab.h. */
#include "vocab.h"

bool vocab_init(struct vocab *v, size_t n, struct unmask_err *err)
{
    if (n > VOCAB_IDS) return fail(err, E_TOK_MANY, .found = FMT("%zu tokens", n), .need = FMT("at most %d", VOCAB_IDS));
    v->room = n;
    return names_init(&v->by_text, n, err);
}

/* Make the table by text anew with twice the room. */
static bool more_room(struct vocab *v, struct unmask_err *err)
{
    struct names grown;
    const size_t room = 2 * v->room + 16;
    if (!names_init(&grown, room, err)) return false;
    for (size_t id = 0; id < (size_t)v->size; id++) {
        size_t number = id;
        if (v->tokens[id].type) names_add(&grown, v->tokens[id].s, v->tokens[id].n, &number);
    }
    names_free(&v->by_text);
    v->by_text = grown;
    v->room = room;
    return true;
}

bool vocab_grow(struct vocab *v, int n, struct unmask_err *err)
{
    if (n > v->cap) {
        const int cap = n > v->cap * 2 ? n : v->cap * 2;
        struct token *tokens = mem_resize(v->tokens, (size_t)cap, sizeof *tokens, err);
        if (!tokens) return false;
        memset(tokens + v->cap, 0, (size_t)(cap - v->cap) * sizeof *tokens);
        v->tokens = tokens;
        v->cap = cap;
    }
    if (n > v->size) v->size = n;
    return true;
}

bool vocab_add(struct vocab *v, int64_t id, struct str text, int type, const char *file, const char *field,
               struct unmask_err *err)
{
    if (id < 0 || id >= VOCAB_IDS)
        return fail(err, E_TOK_RANGE, .file = file, .field = field,
                    .found = FMT("id %lld for %s", (long long)id, QUOTE(text.s, text.n)),
                    .need = FMT("0 to %d", VOCAB_IDS - 1));
    if (text.n == 0 || text.n > TOKEN_BYTES)
        return fail(err, E_TOK_TEXT, .file = file, .field = field, .found = FMT("%zu bytes for id %lld", text.n, (long long)id),
                    .need = FMT("1 to %d", TOKEN_BYTES));
    if (id < v->size && v->tokens[id].type) {
        const struct token *other = &v->tokens[id];
        return fail(err, E_TOK_TWICE, .file = file, .field = field,
                    .found = FMT("id %lld is \"%s\" and \"%s\"", (long long)id, QUOTE(other->s, other->n),
                                 QUOTE(text.s, text.n)));
    }
    if (!vocab_grow(v, (int)id + 1, err) || (v->used == v->room && !more_room(v, err))) return false;
    char *s = arena_strndup(&v->texts, text.s, text.n, err);
    if (!s) return false;
    size_t number = (size_t)id;
    if (!names_add(&v->by_text, s, text.n, &number))
        return fail(err, E_TOK_TWICE, .file = file, .field = field,
                    .found = FMT("\"%s\" has ids %zu and %lld", QUOTE(text.s, text.n), number, (long long)id));
    v->used++;
    v->tokens[id] = (struct token){ s, (uint16_t)text.n, (uint8_t)type };
    if (text.n > v->longest) v->longest = text.n;
    return true;
}

int32_t vocab_find(const struct vocab *v, const char *s, size_t n)
{
    size_t id;
    return names_find(&v->by_text, s, n, &id) ? (int32_t)id : -1;
}

void vocab_free(struct vocab *v)
{
    mem_free(v->tokens);
    names_free(&v->by_text);
    arena_free(&v->texts);
    *v = (struct vocab){ 0 };
}
