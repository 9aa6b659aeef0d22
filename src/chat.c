/* chat.c - see chat.h.  One row of the table is one template: what it is called, how its Jinja text is known, and the
 * function that writes it.  Control tokens come from here alone: roles and texts are encoded as ordinary text. */
#include "chat.h"

#include "mem.h"
#include "utf8.h"

struct chat_template {
    const char *name;
    const char *in_text[5];                     /* the Jinja text holds all of these, NULL-terminated   */
    const char *tokens[5];                      /* and the vocabulary these                             */
    const char *end_of_turn;
    bool (*encode)(const struct chat_template *c, const struct tokenizer *t, const struct chat_message *m, size_t n,
                   int32_t **ids, size_t *n_ids, struct unmask_err *err);
};

static bool put_id(int32_t **ids, size_t *n_ids, int32_t id, struct unmask_err *err)
{
    int32_t *grown = mem_resize(*ids, *n_ids + 1, sizeof *grown, err);
    if (!grown) return false;
    *ids = grown;
    grown[(*n_ids)++] = id;
    return true;
}

static bool put_token(const struct tokenizer *t, const char *text, int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    const int32_t id = tokenizer_find(t, text);
    return id >= 0 ? put_id(ids, n_ids, id, err) : fail(err, E_CHAT_TOKEN, .found = "no such token", .need = text);
}

/* What str.strip() of Python, hence Jinja's trim, takes away. */
static bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680
        || (c >= 0x2000 && c <= 0x200A)
        || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

static struct str trim(struct str s)
{
    uint32_t c;
    for (size_t len; s.n && (len = utf8_decode(s.s, s.n, &c)) && is_space(c); s.s += len) s.n -= len;
    while (s.n) {
        size_t len = 1;
        while (len < 4 && len < s.n && ((uint8_t)s.s[s.n - len] & 0xC0) == 0x80) len++;
        if (utf8_decode(s.s + s.n - len, len, &c) != len || !is_space(c)) break;
        s.n -= len;
    }
    return s;
}

/* ---- llada: ML-GSAI/LLaDA's template; Llama 3's is the same text ---- */

/* `<|start_header_id|>ROLE<|end_header_id|>`; the two line ends that follow belong to the text after them. */
static bool llada_header(const struct tokenizer *t, const char *role, int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    return put_token(t, "<|start_header_id|>", ids, n_ids, err) && tokenizer_encode(t, role, strlen(role), false, ids, n_ids, err)
        && put_token(t, "<|end_header_id|>", ids, n_ids, err);
}

/* Line ends and text are encoded as one, as they stand between two special tokens. */
static bool llada_text(const struct tokenizer *t, struct str text, int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    text = trim(text);
    char *whole = mem_resize(NULL, text.n + 2, 1, err);
    if (!whole) return false;
    memcpy(whole, "\n\n", 2);
    if (text.n) memcpy(whole + 2, text.s, text.n);
    const bool ok = tokenizer_encode(t, whole, text.n + 2, false, ids, n_ids, err);
    mem_free(whole);
    return ok;
}

static bool llada_encode(const struct chat_template *c, const struct tokenizer *t, const struct chat_message *m, size_t n,
                         int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    const int32_t bos = tokenizer_ids(t).bos, eot = chat_end_of_turn(c, t);
    if (bos < 0) return fail(err, E_CHAT_TOKEN, .found = "no bos token", .need = "one, for the start of the conversation");
    if (!put_id(ids, n_ids, bos, err)) return false;
    for (size_t i = 0; i < n; i++)
        if (!llada_header(t, m[i].role, ids, n_ids, err)
            || !llada_text(t, (struct str){ m[i].text, m[i].n_text }, ids, n_ids, err)
            || !put_id(ids, n_ids, eot, err)) return false;
    return llada_header(t, "assistant", ids, n_ids, err) && tokenizer_encode(t, "\n\n", 2, false, ids, n_ids, err);
}

static const struct chat_template table[] = {
    { "llada", { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "trim" },
      { "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" }, "<|eot_id|>", llada_encode },
};
enum { N_TABLE = sizeof table / sizeof *table };

/* ---- the table's users ---- */

static bool contains(struct str text, const char *part)
{
    const size_t n = strlen(part);
    for (const char *at = text.s, *end = text.s + text.n; (size_t)(end - at) >= n; at++) {
        at = memchr(at, part[0], (size_t)(end - at) - n + 1);
        if (!at) return false;
        if (memcmp(at, part, n) == 0) return true;
    }
    return false;
}

static bool fits(const struct chat_template *c, struct str text)
{
    for (const char *const *part = c->in_text; *part; part++)
        if (!contains(text, *part)) return false;
    return true;
}

static const char *known(struct err_text *t)
{
    for (int i = 0; i < N_TABLE; i++) err_list(t, table[i].name);
    return t->s;
}

const struct chat_template *chat_template_of(const struct tokenizer *t, struct unmask_err *err)
{
    const struct str text = tokenizer_chat_template(t);
    const struct chat_template *c = NULL;
    if (text.n == 0) {
        fail(err, E_CHAT_NONE, .file = tokenizer_file(t),
             .hint = "Give it plain text to continue, or use a model that was tuned for conversation");
        return NULL;
    }
    for (int i = 0; i < N_TABLE && !c; i++)
        if (fits(&table[i], text)) c = &table[i];
    if (!c) {
        fail(err, E_CHAT_UNKNOWN, .file = tokenizer_file(t), .found = QUOTE(text.s, text.n),
             .need = FMT("a template of these: %s", known(&(struct err_text){ { 0 } })),
             .hint = "Give it plain text to continue");
        return NULL;
    }
    for (const char *const *token = c->tokens; *token; token++)
        if (tokenizer_find(t, *token) < 0) {
            fail(err, E_CHAT_TOKEN, .file = tokenizer_file(t), .field = c->name, .found = "no such token", .need = *token);
            return NULL;
        }
    return c;
}

const char *chat_template_name(const struct chat_template *c) { return c->name; }

int32_t chat_end_of_turn(const struct chat_template *c, const struct tokenizer *t) { return tokenizer_find(t, c->end_of_turn); }

bool chat_encode(const struct chat_template *c, const struct tokenizer *t, const struct chat_message *messages, size_t n_messages,
                 int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    for (size_t i = 0; i < n_messages; i++) {
        const char *role = messages[i].role, *text = messages[i].text;
        const size_t n = messages[i].n_text, valid = utf8_valid(text, n);
        if (strcmp(role, "system") != 0 && strcmp(role, "user") != 0 && strcmp(role, "assistant") != 0)
            return fail(err, E_CHAT_ROLE, .field = FMT("message %zu", i + 1), .found = FMT("\"%s\"", QUOTE(role, strlen(role))),
                        .need = "system, user or assistant");
        if (valid < n)                          /* here, where a byte is counted in the caller's text and not in the template's */
            return fail(err, E_TOK_UTF8, .field = FMT("message %zu, %s", i + 1, role), .byte = AT(valid),
                        .found = FMT("0x%02X", (uint8_t)text[valid]), .need = "UTF-8");
    }
    const size_t before = *n_ids;
    if (c->encode(c, t, messages, n_messages, ids, n_ids, err)) return true;
    *n_ids = before;
    return false;
}
