/* tokenizer_encode.c - text to ids: special tokens, then NFC, then pieces, then byte pair encoding. */
#include "tokenizer_parts.h"

#include "byte_alphabet.h"
#include "nfc.h"
#include "utf8.h"

enum { TEXT_BYTES = 1 << 30 };                  /* so that ids are counted and positions queued in 32 bits */

struct encoder {
    const struct tokenizer *t;
    struct split_work split;
    struct bpe_work bpe;
    char *piece;                                /* a piece in the byte alphabet, at most vocab.longest bytes */
    int32_t *ids; size_t n, cap;
};

static bool ids_room(struct encoder *e, size_t more, struct unmask_err *err)
{
    if (more <= e->cap - e->n) return true;
    const size_t cap = e->n + more + e->cap / 2;
    int32_t *ids = mem_resize(e->ids, cap, sizeof *ids, err);
    if (!ids) return false;
    e->ids = ids;
    e->cap = cap;
    return true;
}

/* The longest literal that text begins with, or NULL.  The sorted range of candidates narrows with every byte. */
static const struct literal *literal_at(const struct literals *l, const char *text, size_t n)
{
    const struct literal *found = NULL, *lo = l->items, *hi = lo + l->n;
    for (size_t d = 0; lo < hi; d++) {
        if (lo->text.n == d) found = lo++;      /* its whole text has matched */
        if (d == n || lo == hi) break;
        const unsigned char want = (unsigned char)text[d];
        for (const struct literal *end = hi; lo < end; ) {      /* first candidate whose byte d is not below */
            const struct literal *mid = lo + (end - lo) / 2;
            if ((unsigned char)mid->text.s[d] < want) lo = mid + 1;
            else end = mid;
        }
        for (const struct literal *start = lo; start < hi; ) {  /* first candidate whose byte d is above */
            const struct literal *mid = start + (hi - start) / 2;
            if ((unsigned char)mid->text.s[d] <= want) start = mid + 1;
            else hi = mid;
        }
    }
    return found;
}

/* The id of a piece that is itself a token, or -1 (Llama 3's ignore_merges).  Text never becomes a special token. */
static int32_t whole_piece(struct encoder *e, const char *s, size_t n)
{
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        char c[4];
        const size_t len = utf8_encode(byte_to_char((uint8_t)s[i]), c);
        if (len > e->t->vocab.longest - used) return -1;
        memcpy(e->piece + used, c, len);
        used += len;
    }
    const int32_t id = vocab_find(&e->t->vocab, e->piece, used);
    return id >= 0 && e->t->vocab.tokens[id].type == TOKEN_CONTROL ? -1 : id;
}

static bool encode_piece(struct encoder *e, const char *s, size_t n, struct unmask_err *err)
{
    if (!ids_room(e, n, err)) return false;
    int32_t *ids = e->ids + e->n;
    if (e->t->ignore_merges && (ids[0] = whole_piece(e, s, n)) >= 0) {
        e->n++;
        return true;
    }
    for (size_t i = 0; i < n; i++) {
        ids[i] = e->t->byte_ids[(uint8_t)s[i]];
        if (ids[i] < 0)
            return fail(err, E_TOK_BYTE, .file = e->t->path, .found = FMT("byte 0x%02X in the text", (uint8_t)s[i]),
                        .need = "a token for every byte of the text");
    }
    size_t left = n;
    if (n > 1 && !bpe_merge(&e->t->bpe, &e->bpe, ids, &left, err)) return false;
    e->n += left;
    return true;
}

/* Text between special tokens. */
static bool encode_plain(struct encoder *e, const char *s, size_t n, struct unmask_err *err)
{
    char *normal = NULL;
    if (e->t->nfc && !nfc_normalize(s, n, &normal, &n, err)) return false;
    if (normal) s = normal;
    bool ok = true;
    for (size_t at = 0, end; ok && at < n; at = end)
        ok = split_next(e->t->splitter, &e->split, s, n, at, &end, err) && encode_piece(e, s + at, end - at, err);
    mem_free(normal);
    return ok;
}

static bool encode(struct encoder *e, const char *text, size_t n, const struct literals *l, struct unmask_err *err)
{
    size_t plain = 0;                           /* where text begins that is not encoded yet */
    for (size_t i = 0; i < n; ) {
        const struct literal *found = l->n ? literal_at(l, text + i, n - i) : NULL;
        if (!found && l->n) { i++; continue; }
        if (!found) break;
        if (!encode_plain(e, text + plain, i - plain, err) || !ids_room(e, 1, err)) return false;
        e->ids[e->n++] = found->id;
        plain = i += found->text.n;
    }
    return encode_plain(e, text + plain, n - plain, err);
}

bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool special, int32_t **ids, size_t *n_ids,
                      struct unmask_err *err)
{
    if (n > TEXT_BYTES) return fail(err, E_TOK_LONG, .found = FMT("%zu bytes", n), .need = FMT("at most %d", TEXT_BYTES));
    const size_t valid = utf8_valid(text, n);
    if (valid < n)
        return fail(err, E_TOK_UTF8, .byte = AT(valid), .found = FMT("0x%02X", (uint8_t)text[valid]), .need = "UTF-8");
    struct encoder e = { .t = t, .ids = *ids, .n = *n_ids, .cap = *n_ids };
    const bool ok = split_work_init(&e.split, t->splitter, n, err) && (e.piece = mem_zalloc(t->vocab.longest, 1, err)) != NULL
        && encode(&e, text, n, special ? &t->special : &t->user, err);
    split_work_free(&e.split);
    bpe_work_free(&e.bpe);
    mem_free(e.piece);
    *ids = e.ids;                               /* it may have moved */
    if (ok) *n_ids = e.n;
    return ok;
}
