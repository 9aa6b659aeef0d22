/* self_text.c - see self_text.h.  LLaDA's sampling in few steps at temperature 1 (Gumbel noise), all texts at once: a step is one
 * pass through the model, after which every text keeps a share of its masks' tokens, the most confident ones. */
#include "self_text.h"

#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "rng.h"
#include "sleef_scalar.h"

enum {
    PLAIN_IDS = 128, QUESTION_IDS = 12, ANSWER_IDS = 40,        /* masks of a text; of a question and its answer */
    HEAD_ROWS = 512, ITEM_ROWS = 64,                            /* rows of the head, and of x, that are multiplied at a time */
};

/* What may stand in the place of a mask. */
enum place { GIVEN, ANY_TEXT, NO_CONTROL };     /* NO_CONTROL: a question, which does not end */
enum bar { OPEN, CONTROL, BARRED };

/* The best token so far of a masked row, and the softmax that it is part of. */
struct choice { double score, sum; float logit, max; int32_t id; };

struct writing {
    struct reading r;
    struct reading_set *set;
    uint8_t *place;                             /* [n_ids] enum place */
    uint8_t *bar;                               /* [n_vocab] enum bar */
    size_t *masked, n_masked;                   /* rows that are masked still */
    struct choice *best;                     /* [n_masked] */
    uint64_t seed;
    int step;
    float *logits;                              /* [workers][ITEM_ROWS][HEAD_ROWS] */
    float *head;                                /* HEAD_ROWS rows of it as tiles, from row head0 on */
    int head0, head_rows;
};

/* ---- canvases ---- */

static bool mark(struct writing *w, size_t was, enum place place, int from, int n, int32_t mask_id, struct unmask_err *err)
{
    uint8_t *grown = mem_resize(w->place, w->set->n_ids, 1, err);
    if (!grown) return false;
    w->place = grown;
    memset(grown + was, GIVEN, w->set->n_ids - was);
    for (size_t i = was; i < w->set->n_ids; i++)
        if (w->set->ids[i] == mask_id) grown[i] = (uint8_t)((int)(i - was) < from + n && (int)(i - was) >= from ? place : ANY_TEXT);
    return true;
}

static bool add_plain(struct writing *w, int32_t mask_id, int32_t bos, struct unmask_err *err)
{
    int32_t ids[PLAIN_IDS];
    const size_t was = w->set->n_ids;
    const int n = w->r.h->n_ctx < PLAIN_IDS ? w->r.h->n_ctx : PLAIN_IDS;
    for (int i = 0; i < n; i++) ids[i] = i == 0 && bos >= 0 ? bos : mask_id;
    return reading_set_add(w->set, ids, n, bos >= 0, err) && mark(w, was, ANY_TEXT, 0, 0, mask_id, err);
}

/* The template around a question, found as what two questions of one token have in common; n = 0: none. */
struct frame { int32_t *ids; size_t n, at; };

static bool find_frame(struct frame *f, const struct tokenizer *t, int most_ids, struct unmask_err *err)
{
    const struct chat_template *chat = t ? chat_template_of(t, NULL) : NULL;
    int32_t *other = NULL;
    size_t n = 0;
    if (!chat) return true;                     /* f->n stays 0 */
    const bool ok = chat_encode(chat, t, &(struct chat_message){ .role = "user", .text = "a", .n_text = 1 }, 1, &f->ids, &f->n, err)
        && chat_encode(chat, t, &(struct chat_message){ .role = "user", .text = "b", .n_text = 1 }, 1, &other, &n, err);
    while (ok && f->at < n && f->at < f->n && f->ids[f->at] == other[f->at]) f->at++;
    mem_free(other);
    if (n != f->n || f->at == n || n + QUESTION_IDS + ANSWER_IDS > (size_t)most_ids) f->n = 0;          /* no place for a question */
    return ok;
}

static bool add_chat(struct writing *w, const struct frame *f, int32_t mask_id, struct unmask_err *err)
{
    int32_t ids[READING_LENGTH];
    const size_t was = w->set->n_ids, behind = f->n - f->at - 1;
    size_t n = f->at;
    memcpy(ids, f->ids, n * sizeof *ids);
    for (int i = 0; i < QUESTION_IDS; i++) ids[n++] = mask_id;
    memcpy(ids + n, f->ids + f->at + 1, behind * sizeof *ids);
    n += behind;
    const size_t given = n;
    for (int i = 0; i < ANSWER_IDS; i++) ids[n++] = mask_id;
    return reading_set_add(w->set, ids, (int)n, (int)given, err) && mark(w, was, NO_CONTROL, (int)f->at, QUESTION_IDS, mask_id, err);
}

static bool add_texts(struct writing *w, const struct tokenizer *t, int32_t mask_id, uint64_t n_ids, struct unmask_err *err)
{
    struct frame f = { NULL, 0, 0 };
    const int32_t bos = t ? tokenizer_ids(t).bos : -1;
    bool ok = find_frame(&f, t, w->r.h->n_ctx < READING_LENGTH ? w->r.h->n_ctx : READING_LENGTH, err);
    for (uint64_t asked = 0; ok && w->set->n_ids < n_ids; ) {
        const size_t was = w->set->n_ids;
        const bool ask = f.n && asked * 2 <= was;
        ok = ask ? add_chat(w, &f, mask_id, err) : add_plain(w, mask_id, bos, err);
        if (ask) asked += w->set->n_ids - was;
    }
    mem_free(f.ids);
    return ok;
}

static bool bar_ids(struct writing *w, const struct tokenizer *t, int32_t mask_id, struct unmask_err *err)
{
    const int n = w->r.h->n_vocab;
    if (!(w->bar = mem_zalloc((size_t)n, 1, err))) return false;
    for (int id = 0; t && id < n; id++) {
        enum token_type type = TOKEN_UNUSED;
        if (id < tokenizer_size(t)) tokenizer_token(t, id, &type);
        w->bar[id] = type == TOKEN_UNUSED || type == TOKEN_UNKNOWN ? BARRED : type == TOKEN_CONTROL ? CONTROL : OPEN;
    }
    w->bar[mask_id] = BARRED;
    return true;
}

/* ---- the head, HEAD_ROWS of its rows at a time ---- */

static bool load_head(struct writing *w, const struct tensor *t, uint8_t *raw, float *row, struct unmask_err *err)
{
    const size_t k = (size_t)w->r.h->n_embd, bytes = quant_row_bytes(t->format, k);
    if (!checkpoint_read_rows(t, (uint64_t)w->head0, (uint64_t)w->head_rows, raw, err)) return false;
    memset(w->head, 0, HEAD_ROWS * k * sizeof *w->head);
    for (int r = 0; r < w->head_rows; r++) {
        float *tile = w->head + (size_t)(r / TILE_N) * k * TILE_N + r % TILE_N;
        t->format->dequantize_row(row, raw + (size_t)r * bytes, k);
        for (size_t i = 0; i < k; i++) tile[i * TILE_N] = row[i];
    }
    return true;
}

/* The softmax and the noisy maximum go on over more tokens.  Noise is at most MOST_NOISE, so that most tokens need none. */
static void take_logits(const struct writing *w, struct choice *c, size_t row, const float *logits)
{
    static const double MOST_NOISE = 17.4;      /* -log(-log(1 - 2^-25)) = 17.33 */
    int32_t at;
    float moment;
    const float max = w->r.kernels.argmax(logits, w->head_rows, &at);
    const uint64_t prefix = noise_prefix(w->seed, NOISE_CALIBRATION, (uint64_t)w->step + 1, row, 0);
    const int least = w->place[row] == NO_CONTROL ? CONTROL : BARRED;
    if (max > c->max) {
        c->sum *= (double)Sleef_finz_expf1_u10purecfma(c->max - max);
        c->max = max;
    }
    c->sum += (double)w->r.kernels.sum_exp(logits, w->head_rows, c->max, &moment);
    for (int i = 0; i < w->head_rows; i++) {
        const int32_t id = w->head0 + i;
        if ((double)logits[i] + MOST_NOISE <= c->score || w->bar[id] >= least) continue;
        const double u = ((double)(noise_bits(prefix, (uint64_t)id) >> 40) + 0.5) * 0x1p-24;
        const double score = (double)logits[i] - Sleef_finz_logd1_u10purecfma(-Sleef_finz_logd1_u10purecfma(u));
        if (score <= c->score) continue;
        c->score = score;
        c->logit = logits[i];
        c->id = id;
    }
}

static void head_item(void *arg, int item, int worker)
{
    const struct writing *w = arg;
    const size_t first = (size_t)item * ITEM_ROWS, left = w->n_masked - first, n = left < ITEM_ROWS ? left : ITEM_ROWS;
    const size_t k = (size_t)w->r.h->n_embd;
    float *logits = w->logits + (size_t)worker * ITEM_ROWS * HEAD_ROWS;
    w->r.kernels.gemm_f32->run(logits, HEAD_ROWS, w->r.x + first * k, k, 0, (int)n, w->head, (w->head_rows + TILE_N - 1) / TILE_N, (int)k);
    for (size_t i = 0; i < n; i++) take_logits(w, &w->best[first + i], w->masked[first + i], logits + i * HEAD_ROWS);
}

static bool choose(struct writing *w, struct unmask_err *err)
{
    const struct reading *r = &w->r;
    const struct tensor *t = arch_tensor(r->arch, r->c, r->h, r->h->tied_head ? T_EMBED : T_HEAD, 0, err);
    const size_t k = (size_t)r->h->n_embd;
    uint8_t *raw = mem_zalloc(HEAD_ROWS, k * sizeof(float), err);
    float *row = mem_zalloc(k, sizeof *row, err);
    bool ok = t && raw && row && reading_head_input(&w->r, w->masked, w->n_masked, w->r.x, err);
    for (size_t i = 0; ok && i < w->n_masked; i++) w->best[i] = (struct choice){ .score = -1e300, .max = -3e38f };
    for (w->head0 = 0; ok && w->head0 < r->h->n_vocab; w->head0 += HEAD_ROWS) {
        w->head_rows = r->h->n_vocab - w->head0 < HEAD_ROWS ? r->h->n_vocab - w->head0 : HEAD_ROWS;
        ok = load_head(w, t, raw, row, err);
        if (ok) pool_run(r->pool, head_item, w, (int)((w->n_masked + ITEM_ROWS - 1) / ITEM_ROWS));
    }
    mem_free(row);
    mem_free(raw);
    return ok;
}

/* ---- steps ---- */

struct ranked { double confidence; size_t row; int32_t id; };
static int by_confidence(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->confidence != y->confidence ? (x->confidence < y->confidence) - (x->confidence > y->confidence)
                                          : (x->row > y->row) - (x->row < y->row);
}

static void commit(struct writing *w)
{
    struct ranked order[READING_LENGTH];
    size_t at = 0;
    for (size_t i = 0; i < w->set->n_texts; i++) {
        const struct reading_text *t = &w->set->texts[i];
        size_t n = 0;
        for (; at < w->n_masked && w->masked[at] < t->at + (size_t)t->n; at++, n++) {
            const struct choice *c = &w->best[at];
            order[n] = (struct ranked){ (double)Sleef_finz_expf1_u10purecfma(c->logit - c->max) / c->sum, w->masked[at], c->id };
        }
        const size_t left = (size_t)(SELF_TEXT_STEPS - w->step), count = (n + left - 1) / left;
        qsort(order, n, sizeof *order, by_confidence);
        for (size_t k = 0; k < count; k++) w->set->ids[order[k].row] = order[k].id;
    }
}

static bool step(struct writing *w, int32_t mask_id, struct unmask_err *err)
{
    w->n_masked = 0;
    for (size_t i = 0; i < w->set->n_ids; i++)
        if (w->place[i] != GIVEN && w->set->ids[i] == mask_id) w->masked[w->n_masked++] = i;
    bool ok = reading_embed(&w->r, w->set->ids, err);
    for (int layer = 0; ok && layer < w->r.h->n_layer; layer++) ok = reading_layer(&w->r, layer, NULL, NULL, err);
    ok = ok && choose(w, err);
    if (ok) commit(w);
    return ok;
}

bool self_text(struct reading_set *set, const struct arch *arch, const struct checkpoint *c, const struct hparams *h,
               const struct tokenizer *t, struct pool *pool, uint64_t seed, uint64_t n_ids,
               bool (*go_on)(void *user), void *user, struct unmask_err *err)
{
    struct writing w = { .r.h = h, .set = set, .seed = seed };
    const int32_t mask_id = h->mask_id;
    *set = (struct reading_set){ 0 };
    bool ok = add_texts(&w, t, mask_id, n_ids, err) && reading_open(&w.r, arch, c, h, pool, set, err) && bar_ids(&w, t, mask_id, err)
        && (w.masked = mem_zalloc(set->n_ids, sizeof *w.masked, err)) && (w.best = mem_zalloc(set->n_ids, sizeof *w.best, err))
        && (w.logits = mem_aligned((size_t)pool_threads(pool) * ITEM_ROWS * HEAD_ROWS * sizeof(float), err))
        && (w.head = mem_aligned(HEAD_ROWS * (size_t)h->n_embd * sizeof(float), err));
    w.r.go_on = go_on;
    w.r.user = user;
    for (w.step = 0; ok && w.step < SELF_TEXT_STEPS; w.step++) ok = step(&w, mask_id, err);
    mem_free(w.head);
    mem_free(w.logits);
    mem_free(w.best);
    mem_free(w.masked);
    mem_free(w.bar);
    mem_free(w.place);
    reading_close(&w.r);
    return ok;
}
