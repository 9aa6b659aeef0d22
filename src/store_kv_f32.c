/* store_kv_f32.c - keys and values as float32, in the layout that attention reads: for float weights, whose numbers are
 * compared with references. */
#include "row_store.h"

#include <string.h>

static size_t layer_bytes(const struct store_shape *s) { return 2 * store_numbers(s) * sizeof(float); }

static void put(const struct store_shape *s, void *layer, int position, const float *k, const float *v)
{
    const size_t d = (size_t)s->head_dim, tile = (size_t)position / LANES, lane = (size_t)position % LANES, tiles = (size_t)s->n_tiles;
    float *keys = layer, *values = keys + store_numbers(s);
    for (size_t h = 0; h < (size_t)s->n_head_kv; h++) {
        float *to = keys + (h * tiles + tile) * d * LANES + lane;
        for (size_t i = 0; i < d; i++) to[i * LANES] = k[h * d + i];
        memcpy(values + ((h * tiles + tile) * LANES + lane) * d, v + h * d, d * sizeof(float));
    }
}

const struct store_kind store_kv_f32 = { .name = "kv_f32", .layer_bytes = layer_bytes, .put = put };
