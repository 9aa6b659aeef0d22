/* tokenizer_decode.c - ids to text, token by token if need be: what comes out is always valid UTF-8. */
#include "tokenizer_parts.h"

#include "byte_alphabet.h"
#include "utf8.h"

static const char replacement[] = "\xEF\xBF\xBD";               /* U+FFFD */

bool text_put(struct text_out *out, const char *s, size_t n, struct unmask_err *err)
{
    if (!out->s || n >= out->cap - out->n) {
        const size_t cap = out->n + n + 1 + out->cap / 2;
        char *grown = mem_resize(out->s, cap, 1, err);
        if (!grown) return false;
        out->s = grown;
        out->cap = cap;
    }
    if (n) memcpy(out->s + out->n, s, n);
    out->n += n;
    out->s[out->n] = 0;
    return true;
}

/* May b follow as byte i of the character that begins with `lead` (Unicode 15, table 3-7)? */
static bool may_follow(uint8_t lead, int i, uint8_t b)
{
    if (i == 1) {
        if (lead == 0xE0) return b >= 0xA0 && b <= 0xBF;        /* no overlong forms   */
        if (lead == 0xED) return b >= 0x80 && b <= 0x9F;        /* no surrogates       */
        if (lead == 0xF0) return b >= 0x90 && b <= 0xBF;
        if (lead == 0xF4) return b >= 0x80 && b <= 0x8F;        /* not above U+10FFFF  */
    }
    return (b & 0xC0) == 0x80;
}

static int length_of(uint8_t lead)
{
    return lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

/* One U+FFFD for each longest beginning of a character that is not continued, as Unicode recommends. */
static bool put_byte(struct token_decoder *d, struct text_out *out, uint8_t b, struct unmask_err *err)
{
    if (d->n_held && !may_follow(d->held[0], d->n_held, b)) {
        d->n_held = 0;
        if (!text_put(out, replacement, 3, err)) return false;
    }
    if (!d->n_held && length_of(b) < 2) return text_put(out, length_of(b) ? (const char *)&b : replacement, length_of(b) ? 1 : 3, err);
    d->held[d->n_held++] = b;
    if (d->n_held < length_of(d->held[0])) return true;
    const size_t n = (size_t)d->n_held;
    d->n_held = 0;
    return text_put(out, (const char *)d->held, n, err);
}

static bool put_bytes(struct token_decoder *d, struct text_out *out, const char *s, size_t n, struct unmask_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!put_byte(d, out, (uint8_t)s[i], err)) return false;
    return true;
}

static bool in_alphabet(const struct token *k)
{
    uint32_t c = 0;
    for (size_t i = 0, len; i < k->n; i += len)
        if (!(len = utf8_decode(k->s + i, k->n - i, &c)) || char_to_byte(c) < 0) return false;
    return true;
}

/* A text with characters outside the alphabet stands for itself, as in Hugging Face's ByteLevel decoder. */
static bool put_normal(struct token_decoder *d, struct text_out *out, const struct token *k, struct unmask_err *err)
{
    if (!in_alphabet(k)) return put_bytes(d, out, k->s, k->n, err);
    uint32_t c = 0;
    for (size_t i = 0; i < k->n; ) {
        i += utf8_decode(k->s + i, k->n - i, &c);
        if (!put_byte(d, out, (uint8_t)char_to_byte(c), err)) return false;
    }
    return true;
}

static int hex(char c)          /* a digit: the loader has seen to it */
{
    return c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10;
}

bool tokenizer_decode(const struct tokenizer *t, struct token_decoder *d, const int32_t *ids, size_t n, bool special,
                      struct text_out *out, struct unmask_err *err)
{
    if (!text_put(out, "", 0, err)) return false;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= t->vocab.size)
            return fail(err, E_TOK_NO_ID, .found = FMT("id %d", ids[i]), .need = FMT("0 to %d", t->vocab.size - 1));
        const struct token *k = &t->vocab.tokens[ids[i]];
        bool ok = true;
        switch (k->type) {
        case TOKEN_NORMAL: case TOKEN_UNKNOWN: ok = put_normal(d, out, k, err); break;
        case TOKEN_CONTROL: ok = !special || put_bytes(d, out, k->s, k->n, err); break;
        case TOKEN_USER: ok = put_bytes(d, out, k->s, k->n, err); break;
        case TOKEN_BYTE: ok = put_byte(d, out, (uint8_t)(hex(k->s[3]) << 4 | hex(k->s[4])), err); break;        /* <0xHH> */
        default: break;                         /* a hole, or unused: no text */
        }
        if (!ok) return false;
    }
    return true;
}

bool tokenizer_decode_end(struct token_decoder *d, struct text_out *out, struct unmask_err *err)
{
    const bool cut = d->n_held > 0;
    d->n_held = 0;
    return text_put(out, cut ? replacement : "", cut ? 3 : 0, err);
}
