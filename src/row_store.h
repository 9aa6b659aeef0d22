/* row_store.h - what the rows of a canvas expose to each other: per layer and position a rotated key and a value, kept
 * from pass to pass so that a later pass may compute only some rows.  The kind of store decides the number format; every
 * pass reads keys and values through it, its own rows too, so that "recompute everything" and "reuse what has not changed"
 * see the same numbers. */
#ifndef ROW_STORE_H
#define ROW_STORE_H

#include "arch.h"
#include "kernels.h"
#include "pool.h"

struct store_shape { int n_head_kv, head_dim, n_tiles, n_embd; };      /* n_tiles: of LANES positions */
static inline size_t store_positions(const struct store_shape *s) { return (size_t)s->n_tiles * LANES; }
/* A layer's keys, or its values: how many rows of head_dim numbers, and how many numbers. */
static inline size_t store_rows(const struct store_shape *s) { return (size_t)s->n_head_kv * store_positions(s); }
static inline size_t store_numbers(const struct store_shape *s) { return store_rows(s) * (size_t)s->head_dim; }

/* Attention reads a layer as  k [n_head_kv][n_tiles][head_dim][LANES]  and  v [n_head_kv][n_tiles * LANES][head_dim]. */
struct store_view { const float *k, *v; bool bf16; };           /* bf16: for attend_bf16, all of them bf16_near() */

/* A number format of stored rows, one table row and one file each. */
struct store_kind {
    const char *name;
    bool bf16;                                  /* its numbers are that coarse: on long canvases attention takes them in bf16 */
    size_t (*layer_bytes)(const struct store_shape *s);
    /* Keep key and value of a position: k, v [n_head_kv][head_dim].  Positions may be put by several threads at once. */
    void (*put)(const struct store_shape *s, void *layer, int position, const float *k, const float *v);
    /* One tile of a head in attention's layout: k [head_dim][LANES], v [LANES][head_dim].  NULL: the layer lies so already. */
    void (*get)(const struct store_shape *s, const void *layer, int head, int tile, float *k, float *v);
    /* Instead of these two, in a kind that keeps what enters a layer: x [n_embd]. */
    void (*put_row)(const struct store_shape *s, void *layer, int position, const float *x);
    void (*get_row)(const struct store_shape *s, const void *layer, int position, float *x);
};
extern const struct store_kind *const store_kinds[];            /* NULL ends it */
extern const struct store_kind store_kv_f32, store_kv_f16, store_kv_i8, store_kv_i4, store_hidden;
const struct store_kind *store_kind_by_name(const char *name); /* NULL: unknown */

/* What outlives a pass: the rows of all n layers of the model, or 0 where every pass computes every row; and what entered the layer
 * `state` (0: none), in the numbers of store_hidden, so that rows of a later pass may begin there. */
struct store_layers { int n, state; };

struct row_store;
bool row_store_open(struct row_store **out, const struct store_kind *kind, const struct hparams *h, int max_tokens,
                    struct store_layers layers, struct unmask_err *err);
void row_store_close(struct row_store *s);      /* NULL is fine */
size_t row_store_bytes(const struct store_kind *kind, const struct hparams *h, int max_tokens, struct store_layers layers);
int row_store_max_tokens(const struct row_store *s);            /* a multiple of LANES */

void row_store_put(struct row_store *s, int layer, int position, const float *k, const float *v);
/* Is it of a kind that keeps the rows that enter a layer?  Then those are put, and before a layer is viewed, keys and values made of
 * them are shown for every position. */
bool row_store_keeps_rows(const struct row_store *s);
/* Does it keep the rows that enter this layer, be it of such a kind or beside keys and values? */
bool row_store_keeps_state(const struct row_store *s, int layer);
void row_store_put_row(struct row_store *s, int layer, int position, const float *x);
void row_store_get_row(const struct row_store *s, int layer, int position, float *x);
void row_store_show(struct row_store *s, int position, const float *k, const float *v);
/* Positions 0 .. n_keys-1 of a layer as attention reads them, valid until the next call. */
struct store_view row_store_view(struct row_store *s, int layer, int n_keys, struct pool *pool);

#endif
