/* reading.h - many short texts through a model that is not in memory: all of them through one layer, then through the next, so
 * that a layer's weights are there once and no two layers' at a time.  No text attends to another. */
#ifndef READING_H
#define READING_H

#include "forward.h"

enum { READING_LENGTH = 512 };  /* ids of a text, at most */

/* Ids at .. at + n - 1 of the set, of which the first n_given are never masked. */
struct reading_text { size_t at; int n, n_given; };
/* Texts one after the other. */
struct reading_set { int32_t *ids; size_t n_ids; struct reading_text *texts; size_t n_texts; };
bool reading_set_add(struct reading_set *s, const int32_t *ids, int n, int n_given, struct unmask_err *err);
void reading_set_free(struct reading_set *s);   /* a zeroed struct is fine */

struct reading {
    const struct arch *arch;
    const struct checkpoint *c;
    const struct hparams *h;
    struct pool *pool;
    struct kernels kernels;
    const struct reading_set *set;
    float *x;                                   /* [set->n_ids][n_embd]: what the next layer reads */
    /* Called between texts; false stops with E_CANCELLED.  NULL: nobody asks. */
    bool (*go_on)(void *user); void *user;
};

/* c, h and the set stay borrowed; the caller sets go_on. */
bool reading_open(struct reading *r, const struct arch *arch, const struct checkpoint *c, const struct hparams *h, struct pool *pool,
                  const struct reading_set *set, struct unmask_err *err);
void reading_close(struct reading *r);          /* a zeroed struct is fine */
uint64_t reading_bytes(const struct hparams *h, uint64_t n_rows, uint64_t layer_bytes, int workers);

/* x = the embeddings of ids, [set->n_ids], which may differ from the set's. */
bool reading_embed(struct reading *r, const int32_t *ids, struct unmask_err *err);
/* x through a layer; on_input as in struct pass, or NULL. */
typedef void reading_input(void *user, enum tensor_role role, const float *rows, size_t ld, int n);
bool reading_layer(struct reading *r, int layer, reading_input *on_input, void *user,
                   struct unmask_err *err);
/* The rows of x that are listed, normed for the head, to y [n][n_embd], which may be x where the list ascends. */
bool reading_head_input(struct reading *r, const size_t *rows, size_t n, float *y, struct unmask_err *err);

#endif
