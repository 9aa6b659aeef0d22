/* head.c - see head.h.  Parts of the vocabulary are reduced as threads become free and added up in order, so that the statistics do not
 * depend on who reduced what. */
#include "head.h"

#include "mem.h"

static int parts_of(const struct unmask_model *m) { return (m->h.n_vocab + LOGIT_PART - 1) / LOGIT_PART; }

void head_lay(struct head *h, const struct unmask_model *m, uint8_t *base, size_t *used, int workers)
{
    h->m = m;
    h->parts = mem_lay(base, used, (size_t)parts_of(m) * LOGIT_ROWS * sizeof *h->parts);
    h->scratch = mem_lay(base, used, (size_t)workers * LOGIT_ROWS * LOGIT_PART * sizeof *h->scratch);
}

void head_logits(const struct head *h, const struct stages *s, const struct input *rows, int n_rows, float *logits, size_t ld)
{
    products_run(s, STAGE_HEAD, &h->m->kernels, NULL, &(struct product){ &h->m->head, rows, logits, ld }, 1, n_rows);
}

struct job {
    const struct head *h; const struct input *rows; int n_rows;
    const struct logit_apart *apart; struct logit_apart_values *values;
};

static void reduce_part(void *arg, int part, int worker)
{
    const struct job *j = arg;
    const struct kernels *k = &j->h->m->kernels;
    const struct weight *w = &j->h->m->head;
    const int first = part * LOGIT_PART, left = j->h->m->h.n_vocab - first, n = left < LOGIT_PART ? left : LOGIT_PART;
    float *l = j->h->scratch + (size_t)worker * LOGIT_ROWS * LOGIT_PART;
    multiply(k, w, w->tiles + (size_t)(first / TILE_N) * w->pack->tile_bytes(w->k), tiles_of(n), j->rows, 0, j->n_rows, l, LOGIT_PART);
    for (int r = 0; r < j->n_rows; r++)
        logit_part(k, l + (size_t)r * LOGIT_PART, first, n, j->apart, &j->values[r], &j->h->parts[(size_t)part * LOGIT_ROWS + (size_t)r]);
}

void head_stats(const struct head *h, const struct stages *s, const struct input *rows, int n_rows, const struct logit_apart *apart,
                struct logit_apart_values *values, struct logit_stats *stats)
{
    const int n_parts = parts_of(h->m);
    stage_run(s, STAGE_HEAD, reduce_part, &(struct job){ h, rows, n_rows, apart, values }, n_parts);
    for (int r = 0; r < n_rows; r++) {
        stats[r] = logit_none;
        for (int part = 0; part < n_parts; part++) logit_add(&stats[r], &h->parts[(size_t)part * LOGIT_ROWS + (size_t)r]);
    }
}
