/* quantize_calibrate.c - calibration as quantize needs it: in step with the pieces, whose order is that of the layers. */
#include "quantize_parts.h"

#include <string.h>

#include "mem.h"
#include "readers.h"
#include "self_text.h"

static const double DAMPING = 0.05;             /* of the mean of H's diagonal: for inputs that the texts hold too rarely */
enum { RANDOM_IDS = 4096 };                     /* that are read where there is no text */

struct quantize_calibration {
    struct quantize_job *j;
    struct reading_set own;                     /* texts that the model wrote */
    const struct reading_set *set;
    int32_t *ids, mask_id;                      /* of the set, some masked; -1: the model has no mask */
    struct reading reading;
    struct calibration *calibration;
    int layer;                                  /* that was read last; n_layer: the head */
    bool factored[TENSOR_ROLES];
    struct moments *readers;                    /* of the embedding, while it is in hand */
    const char *what;                           /* for progress */
    struct unmask_err *err;
};

static bool draws(const struct quantize_options *o) { return o->search && !o->calibration && !o->own_text && !o->importance; }
bool quantize_calibrates(const struct quantize_options *o) { return o->calibration || o->own_text || draws(o); }

uint64_t quantize_calibrate_ids(const struct quantize_options *o)
{
    return o->own_text ? o->own_text : o->calibration ? o->calibration->n_ids : draws(o) ? RANDOM_IDS : 0;
}

const char *quantize_calibrate_source(const struct quantize_options *o) { return draws(o) ? "random ids" : o->calibration_name; }

/* Of random ids, moments of the head and of `down` helped stories on other sets (KL to about -47 to -49 %) and hurt questions, for
 * which it was decided; they also take the most room. */
bool quantize_has_moments(const struct quantize_options *o, enum tensor_role role)
{
    return quantize_calibrates(o) && role != T_EMBED && !(draws(o) && (role == T_DOWN || role == T_HEAD));
}

static bool rounded_by_it(const struct piece *p) { return p->method == BY_FEEDBACK || p->method == BY_IMPORTANCE; }

size_t quantize_n_calibrated(const struct quantize_job *j)
{
    size_t n = 0;
    for (size_t i = 0; quantize_calibrates(j->o) && i < j->n_pieces; i++) n += rounded_by_it(&j->pieces[i]);
    return n;
}

bool quantize_needs_calibration(const struct quantize_job *j, const struct piece *p)
{
    return rounded_by_it(p) || (j->o->save_importance && p->matrix && p->role != T_EMBED);
}

/* Texts are not read for nothing: types whose numbers are rounded each alone need none. */
static bool reads(const struct quantize_job *j)
{
    bool any = false;
    for (size_t i = 0; i < j->n_pieces; i++) any = any || quantize_needs_calibration(j, &j->pieces[i]);
    return any && quantize_calibrates(j->o);
}

uint64_t quantize_random_ids(const struct quantize_job *j) { return draws(j->o) && reads(j) ? RANDOM_IDS : 0; }

static uint64_t layer_bytes(const struct quantize_job *j)
{
    uint64_t most = 0, sum = 0;
    for (size_t i = 0; i < j->n_pieces; i++) {
        if (j->pieces[i].layer < 0) continue;
        sum = i && j->pieces[i].layer == j->pieces[i - 1].layer ? sum + j->pieces[i].from->bytes : j->pieces[i].from->bytes;
        most = sum > most ? sum : most;
    }
    return most;
}

uint64_t quantize_calibrate_work(const struct quantize_job *j)
{
    const uint64_t passes = !reads(j) ? 0 : j->o->own_text ? SELF_TEXT_STEPS + 1 : 1;
    return passes * (uint64_t)j->h.n_layer * layer_bytes(j);
}

uint64_t quantize_calibrate_memory(const struct quantize_job *j, int workers)
{
    if (!reads(j)) return 0;
    const struct hparams *h = &j->h;
    return reading_bytes(h, quantize_calibrate_ids(j->o) + READING_LENGTH, layer_bytes(j), workers)
        + 2 * moments_bytes(h->n_embd, workers) + moments_bytes(h->n_head * h->head_dim, workers)
        + (draws(j->o) ? 0 : moments_bytes(h->n_ff, workers));
}

/* Between two texts. */
static bool go_on(void *user)
{
    struct quantize_calibration *c = user;
    c->j->done += layer_bytes(c->j) / c->reading.set->n_texts;
    return quantize_tell(c->j, QUANTIZE_CALIBRATING, c->what, NULL);
}

static bool write_own(struct quantize_calibration *c, struct unmask_err *err)
{
    struct quantize_job *j = c->j;
    struct tokenizer *t = NULL;
    c->set = c->reading.set = &c->own;
    c->what = "own text";
    const bool ok = tokenizer_open(&t, j->in, err)
        && self_text(&c->own, j->arch, j->in, &j->h, t, j->pool, j->o->seed, j->o->own_text, go_on, c, err);
    tokenizer_close(t);
    return ok;
}

bool quantize_calibrate_open(struct quantize_job *j, struct unmask_err *err)
{
    if (!reads(j)) return true;
    struct quantize_calibration *c = j->calibration = mem_zalloc(1, sizeof *c, err);
    if (!c || (j->o->save_importance && !imatrix_init(j->o->save_importance, j->n_pieces, err))) return false;
    *c = (struct quantize_calibration){ .j = j, .layer = -1, .set = j->o->calibration };
    c->mask_id = j->h.mask_id;
    if (draws(j->o)) c->set = &c->own;
    else if (c->mask_id < 0) return fail(err, E_MASK_MISSING, .file = j->in->path, .need = "a mask token: calibration reads masked text");
    if (j->o->own_text && !write_own(c, err)) return false;
    if (draws(j->o) && !calibration_draw(&c->own, &j->h, c->mask_id, j->o->seed, RANDOM_IDS, err)) return false;
    if (!calibration_mask(c->set, c->mask_id, j->o->seed, &c->ids, err)
        || !reading_open(&c->reading, j->arch, j->in, &j->h, j->pool, c->set, err)) return false;
    c->reading.go_on = go_on;
    c->reading.user = c;
    c->what = draws(j->o) ? "random ids" : "calibration";
    return calibration_open(&c->calibration, &c->reading, c->ids, c->mask_id, !draws(j->o), err);
}

void quantize_calibrate_close(struct quantize_job *j)
{
    struct quantize_calibration *c = j->calibration;
    if (!c) return;
    moments_close(c->readers);
    calibration_close(c->calibration);
    reading_close(&c->reading);
    reading_set_free(&c->own);
    mem_free(c->ids);
    mem_free(c);
    j->calibration = NULL;
}

const struct kernels *quantize_kernels(const struct quantize_job *j) { return &j->calibration->reading.kernels; }

/* Bring the calibration to the layer of p. */
static bool reach(struct quantize_calibration *c, const struct piece *p, struct unmask_err *err)
{
    const int n_layer = c->j->h.n_layer, layer = p->layer < 0 ? n_layer : p->layer;
    moments_close(c->readers);
    c->readers = NULL;
    for (; c->layer < layer; c->layer++) {
        memset(c->factored, 0, sizeof c->factored);
        if (!(c->layer + 1 < n_layer ? calibration_layer(c->calibration, c->layer + 1, err)
                                     : calibration_head(c->calibration, err))) return false;
    }
    return true;
}

/* Of the matrices that multiply the same, the first one that is due has the moments factored. */
static enum tensor_role first_of(enum tensor_role role) { return role == T_K || role == T_V ? T_Q : role == T_UP ? T_GATE : role; }

/* No input: what an error costs is up to the matrices that read it. */
static bool embedding(struct quantize_calibration *c, const struct moments **moments, struct unmask_err *err)
{
    const struct reading *r = &c->reading;
    *moments = NULL;
    if (!readers_moments(&c->readers, r->arch, r->c, r->h, &r->kernels, r->pool, err)
        || !moments_factor(c->readers, &r->kernels, r->pool, DAMPING, err)) return false;
    *moments = c->readers;
    return true;
}

bool quantize_calibrate(struct quantize_job *j, const struct piece *p, const struct moments **moments,
                        const float **importance, struct unmask_err *err)
{
    struct quantize_calibration *c = j->calibration;
    const struct imatrix_entry *given = j->o->importance ? imatrix_find(j->o->importance, p->name) : NULL;
    *moments = NULL;
    *importance = given ? given->squares : NULL;
    if (!c || given) return true;
    if (p->role == T_EMBED) return embedding(c, moments, err);
    if (!reach(c, p, err)) return false;
    struct moments *m = calibration_moments(c->calibration, p->role);
    *importance = calibration_squares(c->calibration, p->role);
    if (j->o->save_importance && !imatrix_add(j->o->save_importance, p->name, *importance, p->k, err)) return false;
    if (p->method != BY_FEEDBACK) return true;
    bool *factored = &c->factored[first_of(p->role)];
    if (!*factored && !moments_factor(m, &c->reading.kernels, j->pool, DAMPING, err)) return false;
    *factored = true;
    *moments = m;
    return true;
}
