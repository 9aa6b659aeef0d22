/* calibration_text.c - see calibration_text.h.  The order in which texts are taken is that of random keys, so that any number of
 * them is a fair sample of the file, and the same one every time. */
#include "calibration_text.h"

#include <string.h>

#include "chat.h"
#include "eval_set.h"
#include "mem.h"
#include "rng.h"
#include "utf8.h"

/* Answers are filled up with end tokens to a multiple of ANSWER_UNIT, as blocks are. */
enum { MOST_BYTES = 256 << 20, ANSWER_UNIT = 16 };

struct source {
    struct reading_set *set;
    struct tokenizer *t;
    const struct chat_template *chat;
    int longest;
    int32_t bos, end;                           /* end: of the text, or of a turn, which every template has */
    uint64_t most;
    int32_t *ids; size_t n;                     /* of a plain text */
};

static struct noise_rank *shuffle(size_t n, struct unmask_err *err)
{
    struct noise_rank *order = mem_zalloc(n, sizeof *order, err);
    if (order) noise_shuffle(order, n, 0, NOISE_CALIBRATION, 0, 0);
    return order;
}

/* Behind a begin token. */
static bool add_window(struct source *s, const int32_t *ids, size_t n, struct unmask_err *err)
{
    int32_t row[READING_LENGTH];
    const int given = s->bos >= 0, room = s->longest - given, take = n < (size_t)room ? (int)n : room;
    if (take == 0) return true;                 /* an empty text has no ids, not even a place for them */
    if (given) row[0] = s->bos;
    memcpy(row + given, ids, (size_t)take * sizeof *ids);
    return reading_set_add(s->set, row, given + take, given, err);
}

/* A question that leaves no room for an answer is passed over. */
static bool add_question(struct source *s, const struct eval_line *l, struct unmask_err *err)
{
    int32_t *ids = NULL;
    size_t n = 0;
    bool ok = s->chat || chat_template_of(s->t, err);
    ok = ok && chat_encode(s->chat, s->t, &(struct chat_message){ .role = "user", .text = l->text, .n_text = l->n_text }, 1, &ids, &n, err);
    const size_t given = n;
    ok = ok && tokenizer_encode(s->t, l->answer, l->n_answer, false, &ids, &n, err);
    const size_t full = given + (n - given + ANSWER_UNIT) / ANSWER_UNIT * ANSWER_UNIT;
    if (ok && full <= (size_t)s->longest) {
        int32_t *grown = mem_resize(ids, full, sizeof *ids, err);
        ok = grown != NULL;
        if (ok) ids = grown;
        for (; ok && n < full; n++) ids[n] = s->end;
        ok = ok && reading_set_add(s->set, ids, (int)full, (int)given, err);
    }
    mem_free(ids);
    return ok;
}

static bool add_line(struct source *s, const struct eval_set *e, size_t i, struct unmask_err *err)
{
    const struct eval_line *l = i < e->n_questions ? &e->questions[i] : &e->texts[i - e->n_questions];
    if (l->answer) return add_question(s, l, err) || jsonl_at(l->path, l->number, err);
    s->n = 0;
    return (tokenizer_encode(s->t, l->text, l->n_text, false, &s->ids, &s->n, err) && add_window(s, s->ids, s->n, err))
        || jsonl_at(l->path, l->number, err);
}

static bool read_lines(struct source *s, const char *path, struct unmask_err *err)
{
    struct eval_set e;
    if (!eval_set_read(&e, path, 0, err)) return false;
    const size_t n = e.n_questions + e.n_texts;
    struct noise_rank *order = shuffle(n, err);
    bool ok = order != NULL;
    for (size_t i = 0; ok && i < n && s->set->n_ids < s->most; i++) ok = add_line(s, &e, order[i].index, err);
    mem_free(order);
    eval_set_free(&e);
    return ok;
}

static bool read_plain(struct source *s, const char *text, size_t n_text, struct unmask_err *err)
{
    if (!tokenizer_encode(s->t, text, n_text, false, &s->ids, &s->n, err)) return false;
    const size_t room = (size_t)(s->longest - (s->bos >= 0)), n = (s->n + room - 1) / room;
    struct noise_rank *order = shuffle(n, err);
    bool ok = order != NULL;
    for (size_t i = 0; ok && i < n && s->set->n_ids < s->most; i++)
        ok = add_window(s, s->ids + order[i].index * room, s->n - order[i].index * room, err);
    mem_free(order);
    return ok;
}

static bool read_texts(struct source *s, const char *path, struct unmask_err *err)
{
    char *text;
    size_t n;
    if (!file_slurp(path, MOST_BYTES, &text, &n, err)) return false;
    const size_t mark = utf8_mark(text, n);
    const bool lines = text[mark + strspn(text + mark, " \t\r\n")] == '{';
    const bool ok = lines || read_plain(s, text + mark, n - mark, err);
    mem_free(text);
    return ok && (!lines || read_lines(s, path, err));
}

bool calibration_text_read(struct reading_set *set, const char *model, const char *path, uint64_t most, struct unmask_err *err)
{
    struct checkpoint *c = NULL;
    struct hparams h;
    struct source s = { .set = set, .most = most };
    const struct arch *a;
    *set = (struct reading_set){ 0 };
    bool ok = checkpoint_open(&c, model, err) && (a = arch_of(c, err)) && arch_hparams(a, c, &h, err) && tokenizer_open(&s.t, c, err)
        && arch_settle_ids(&h, c, s.t, err);
    if (ok) {
        s.chat = chat_template_of(s.t, NULL);
        s.longest = h.n_ctx < READING_LENGTH ? h.n_ctx : READING_LENGTH;
        s.bos = h.bos_id;
        s.end = h.eos_id >= 0 ? h.eos_id : h.eot_id;
        ok = s.longest > (s.bos >= 0) || fail(err, E_QNT_TEXT, .file = model, .what = "the context is too short for a text to calibrate on",
                                              .found = FMT("%d position", h.n_ctx), .need = "one more, behind the begin token");
        ok = ok && read_texts(&s, path, err);
    }
    if (ok && set->n_ids == 0)
        ok = fail(err, E_QNT_TEXT, .file = path, .found = "nothing that the model could read",
                  .need = "text, or JSON lines of {\"q\", \"a\"} or {\"text\"}");
    mem_free(s.ids);
    tokenizer_close(s.t);
    checkpoint_close(c);
    return ok;
}
