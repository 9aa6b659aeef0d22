/* reading.c - see reading.h. */
#include "reading.h"

#include <string.h>

#include "mem.h"

bool reading_set_add(struct reading_set *s, const int32_t *ids, int n, int n_given, struct unmask_err *err)
{
    struct reading_text *texts = mem_resize(s->texts, s->n_texts + 1, sizeof *texts, err);
    if (!texts) return false;
    s->texts = texts;
    int32_t *all = mem_resize(s->ids, s->n_ids + (size_t)n, sizeof *all, err);
    if (!all) return false;
    s->ids = all;
    texts[s->n_texts++] = (struct reading_text){ s->n_ids, n, n_given };
    memcpy(all + s->n_ids, ids, (size_t)n * sizeof *all);
    s->n_ids += (size_t)n;
    return true;
}

void reading_set_free(struct reading_set *s)
{
    mem_free(s->ids);
    mem_free(s->texts);
    *s = (struct reading_set){ 0 };
}

bool reading_open(struct reading *r, const struct arch *arch, const struct checkpoint *c, const struct hparams *h, struct pool *pool,
                  const struct reading_set *set, struct unmask_err *err)
{
    *r = (struct reading){ .arch = arch, .c = c, .h = h, .pool = pool, .set = set };
    if (!model_kernels(&r->kernels, err)) return false;
    size_t bytes;
    if (!size_mul(set->n_ids, (size_t)h->n_embd * sizeof *r->x, &bytes)) return fail(err, E_MEMORY, .need = "less text");
    return (r->x = mem_aligned(bytes, err));
}

void reading_close(struct reading *r) { mem_free(r->x); }

uint64_t reading_bytes(const struct hparams *h, uint64_t n_rows, uint64_t layer_bytes, int workers)
{
    const uint64_t chunk = FORWARD_CHUNK * sizeof(float) * (uint64_t)(6 * h->n_embd + 4 * h->n_ff), read = (uint64_t)workers << 20;
    return n_rows * (uint64_t)h->n_embd * sizeof(float) + layer_bytes + chunk + read
        + row_store_bytes(&store_kv_f32, h, READING_LENGTH, (struct store_layers){ .n = 0 });
}

bool reading_embed(struct reading *r, const int32_t *ids, struct unmask_err *err)
{
    const struct tensor *t = arch_tensor(r->arch, r->c, r->h, T_EMBED, 0, err);
    const size_t k = (size_t)r->h->n_embd, bytes = t ? quant_row_bytes(t->format, k) : 0;
    uint8_t *raw = mem_zalloc(bytes, 1, err);
    bool ok = t && raw;
    for (size_t i = 0; ok && i < r->set->n_ids; i++) {
        ok = checkpoint_read_rows(t, (uint64_t)ids[i], 1, raw, err);
        if (ok) t->format->dequantize_row(r->x + i * k, raw, k);
    }
    mem_free(raw);
    return ok;
}

static int longest(const struct reading *r)
{
    int most = 1;
    for (size_t i = 0; i < r->set->n_texts; i++) most = r->set->texts[i].n > most ? r->set->texts[i].n : most;
    return most;
}

bool reading_layer(struct reading *r, int layer, reading_input *on_input, void *user,
                   struct unmask_err *err)
{
    struct unmask_model *m = NULL;
    struct forward *f = NULL;
    struct row_store *store = NULL;
    bool ok = model_open_layer(&m, r->arch, r->c, r->h, layer, pool_threads(r->pool), err)
        && forward_open(&f, m, longest(r), 1, r->pool, err)
        && row_store_open(&store, &store_kv_f32, &m->h, longest(r), (struct store_layers){ .n = 0 }, err);
    for (size_t i = 0; ok && i < r->set->n_texts; i++) {
        const struct reading_text *t = &r->set->texts[i];
        const struct pass pass = { .n_branches = 1, .ids = { r->set->ids + t->at }, .store = { store }, .n_keys = t->n, .n_rows = t->n,
                                   .x = r->x + t->at * (size_t)r->h->n_embd, .resume = true, .on_input = on_input, .user = user };
        if (!forward_pass(f, &pass)) {          /* no later text would pass either: the rest would be read from the first ones alone */
            forward_failed(f, err);
            ok = err_within(err, r->c->path);
        } else ok = !r->go_on || r->go_on(r->user) || fail(err, E_CANCELLED, .hint = NULL);
    }
    row_store_close(store);
    forward_close(f);
    model_close(m);
    return ok;
}

bool reading_head_input(struct reading *r, const size_t *rows, size_t n, float *y, struct unmask_err *err)
{
    const struct tensor *t = arch_tensor(r->arch, r->c, r->h, T_OUT_NORM, 0, err);
    const size_t k = (size_t)r->h->n_embd;
    float *w = mem_zalloc(k, sizeof *w, err);
    uint8_t *raw = mem_zalloc(k, sizeof(float), err);
    bool ok = t && w && raw && checkpoint_read(t, 0, raw, (size_t)t->bytes, err);
    if (ok) t->format->dequantize_row(w, raw, k);
    for (size_t i = 0; ok && i < n; i++) r->kernels.rms_norm(y + i * k, r->x + rows[i] * k, w, r->h->n_embd, r->h->norm_eps);
    mem_free(raw);
    mem_free(w);
    return ok;
}
