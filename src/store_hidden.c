/* store_hidden.c - no keys and values: the rows that enter a layer, in int8 with a scale for every GROUP values; keys and values
 * are computed from them when they are attended.  Half the memory of kv_i8 on multi-head models, for two matrix products
 * over all positions in every pass.  Layout of a layer: values [position][n_embd], then scales. */
#include "int8_run.h"
#include "row_store.h"

enum { GROUP = 128 };

static size_t groups_of(const struct store_shape *s) { return ((size_t)s->n_embd + GROUP - 1) / GROUP; }
static size_t scales_at(const struct store_shape *s) { return (store_positions(s) * (size_t)s->n_embd + 63) & ~(size_t)63; }
static size_t layer_bytes(const struct store_shape *s) { return scales_at(s) + store_positions(s) * groups_of(s) * sizeof(float); }

static void put_row(const struct store_shape *s, void *layer, int position, const float *x)
{
    const size_t d = (size_t)s->n_embd;
    int8_t *q = (int8_t *)layer + (size_t)position * d;
    float *scale = (float *)(void *)((uint8_t *)layer + scales_at(s)) + (size_t)position * groups_of(s);
    for (size_t at = 0; at < d; at += GROUP) *scale++ = int8_run(q + at, x + at, d - at < GROUP ? d - at : GROUP);
}

static void get_row(const struct store_shape *s, const void *layer, int position, float *x)
{
    const size_t d = (size_t)s->n_embd;
    const int8_t *q = (const int8_t *)layer + (size_t)position * d;
    const float *scale = (const float *)(const void *)((const uint8_t *)layer + scales_at(s)) + (size_t)position * groups_of(s);
    for (size_t i = 0; i < d; i++) x[i] = (float)q[i] * scale[i / GROUP];
}

const struct store_kind store_hidden = {
    .name = "hidden", .bf16 = true, .layer_bytes = layer_bytes, .put_row = put_row, .get_row = get_row
};
