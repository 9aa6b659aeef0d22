/* calibrate.c - see calibrate.h. */
#include "calibrate.h"

#include <string.h>

#include "mem.h"
#include "rng.h"

/* Matrices that multiply the same. */
enum input { IN_QKV, IN_O, IN_GATE_UP, IN_DOWN, IN_HEAD, INPUTS };

struct calibration {
    struct reading *r;
    size_t *masked, n_masked;                   /* rows whose logits count */
    struct moments *moments[INPUTS];
    float *squares[INPUTS];
    struct unmask_err err;                      /* of adding, which has no way to stop a pass */
    bool failed, down;
};

static int input_of(enum tensor_role role)
{
    switch (role) {
    case T_Q: case T_K: case T_V: return IN_QKV;
    case T_O: return IN_O;
    case T_GATE: case T_UP: return IN_GATE_UP;
    case T_DOWN: return IN_DOWN;
    case T_HEAD: return IN_HEAD;
    default: return -1;
    }
}

/* ---- masks ---- */

bool calibration_mask(const struct reading_set *set, int32_t mask_id, uint64_t seed, int32_t **ids, struct unmask_err *err)
{
    enum { LEVELS = 8, STRIDE = 5 };            /* neighbouring texts differ much */
    struct noise_rank order[READING_LENGTH];
    if (!(*ids = mem_zalloc(set->n_ids, sizeof **ids, err))) return false;
    memcpy(*ids, set->ids, set->n_ids * sizeof **ids);
    for (size_t i = 0; mask_id >= 0 && i < set->n_texts; i++) {
        const struct reading_text *t = &set->texts[i];
        const int open = t->n - t->n_given, level = (int)(i * STRIDE % LEVELS) + 1, count = (open * level + LEVELS - 1) / LEVELS;
        noise_shuffle(order, (size_t)open, seed, NOISE_CALIBRATION, i, 0);
        for (int k = 0; k < count; k++) (*ids)[t->at + (size_t)t->n_given + order[k].index] = mask_id;
    }
    return true;
}

bool calibration_draw(struct reading_set *set, const struct hparams *h, int32_t mask_id,
                      uint64_t seed, uint64_t n_ids, struct unmask_err *err)
{
    enum { LENGTH = 64 };
    const int n = h->n_ctx < LENGTH ? h->n_ctx : LENGTH;
    int32_t ids[LENGTH];
    if (h->n_vocab <= (mask_id >= 0))
        return fail(err, E_QNT_TEXT, .found = "a vocabulary of the mask alone", .need = "an id that can be drawn");
    while (set->n_ids < n_ids) {
        for (int i = 0; i < n; i++) {
            const uint64_t bits = noise_bits(noise_prefix(seed, NOISE_CALIBRATION, set->n_texts, 1, (uint64_t)i), 0);
            ids[i] = (int32_t)((bits >> 32) * (uint64_t)(h->n_vocab - (mask_id >= 0)) >> 32);
            ids[i] += mask_id >= 0 && ids[i] >= mask_id;  /* every id but the mask */
        }
        if (!reading_set_add(set, ids, n, 0, err)) return false;
    }
    return true;
}

/* ---- reading ---- */

bool calibration_open(struct calibration **out, struct reading *r, const int32_t *ids, int32_t mask_id, bool down, struct unmask_err *err)
{
    struct calibration *c = *out = mem_zalloc(1, sizeof *c, err);
    if (!c || !(c->masked = mem_zalloc(r->set->n_ids, sizeof *c->masked, err))) return false;
    c->r = r;
    c->down = down;
    for (size_t i = 0; i < r->set->n_ids; i++)
        if (ids[i] == mask_id) c->masked[c->n_masked++] = i;
    return reading_embed(r, ids, err);
}

static void forget(struct calibration *c)
{
    for (int i = 0; i < INPUTS; i++) {
        moments_close(c->moments[i]);
        mem_free(c->squares[i]);
        c->moments[i] = NULL;
        c->squares[i] = NULL;
    }
}

void calibration_close(struct calibration *c)
{
    if (!c) return;
    forget(c);
    mem_free(c->masked);
    mem_free(c);
}

static bool expect(struct calibration *c, enum tensor_role role, struct unmask_err *err)
{
    int n, k;
    const int i = input_of(role);
    arch_shape(c->r->h, role, &n, &k);
    return moments_open(&c->moments[i], k, err) && (c->squares[i] = mem_zalloc((size_t)k, sizeof(float), err));
}

static bool note_squares(struct calibration *c)
{
    for (int i = 0; i < INPUTS; i++)
        if (c->moments[i]) moments_squares(c->moments[i], c->squares[i]);
    return true;
}

static void on_input(void *user, enum tensor_role role, const float *rows, size_t ld, int n)
{
    struct calibration *c = user;
    struct moments *m = c->moments[input_of(role)];
    if (m && !c->failed && !moments_add(m, &c->r->kernels, c->r->pool, rows, ld, n, &c->err)) c->failed = true;
}

bool calibration_layer(struct calibration *c, int layer, struct unmask_err *err)
{
    forget(c);
    const bool ok = expect(c, T_Q, err) && expect(c, T_O, err) && expect(c, T_GATE, err) && (!c->down || expect(c, T_DOWN, err))
        && reading_layer(c->r, layer, on_input, c, err);
    if (ok && c->failed && err) *err = c->err;
    return ok && !c->failed && note_squares(c);
}

bool calibration_head(struct calibration *c, struct unmask_err *err)
{
    forget(c);
    const size_t d = (size_t)c->r->h->n_embd;
    bool ok = expect(c, T_HEAD, err) && reading_head_input(c->r, c->masked, c->n_masked, c->r->x, err);
    for (size_t i = 0; ok && i < c->n_masked; i += MOMENT_ROWS) {
        const size_t left = c->n_masked - i;
        ok = moments_add(c->moments[IN_HEAD], &c->r->kernels, c->r->pool, c->r->x + i * d, d,
                         left < MOMENT_ROWS ? (int)left : MOMENT_ROWS, err);
    }
    return ok && note_squares(c);
}

struct moments *calibration_moments(struct calibration *c, enum tensor_role role)
{
    return input_of(role) < 0 ? NULL : c->moments[input_of(role)];
}

const float *calibration_squares(const struct calibration *c, enum tensor_role role)
{
    return input_of(role) < 0 ? NULL : c->squares[input_of(role)];
}
