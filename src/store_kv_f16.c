/* store_kv_f16.c - keys and values as half floats: half the memory of kv_f32.  Larger ones than 65504 become that. */
#include "f16.h"
#include "row_store.h"

static size_t layer_bytes(const struct store_shape *s) { return 2 * store_numbers(s) * sizeof(uint16_t); }

static void put(const struct store_shape *s, void *layer, int position, const float *k, const float *v)
{
    const size_t d = (size_t)s->head_dim, tile = (size_t)position / LANES, lane = (size_t)position % LANES, tiles = (size_t)s->n_tiles;
    uint16_t *keys = layer, *values = keys + store_numbers(s);
    for (size_t h = 0; h < (size_t)s->n_head_kv; h++)
        for (size_t i = 0; i < d; i++) {
            keys[((h * tiles + tile) * d + i) * LANES + lane] = f32_to_f16_number(k[h * d + i]);
            values[((h * tiles + tile) * LANES + lane) * d + i] = f32_to_f16_number(v[h * d + i]);
        }
}

static void get(const struct store_shape *s, const void *layer, int head, int tile, float *k, float *v)
{
    const size_t n = LANES * (size_t)s->head_dim, at = ((size_t)head * (size_t)s->n_tiles + (size_t)tile) * n;
    const uint16_t *keys = (const uint16_t *)layer + at, *values = keys + store_numbers(s);
    for (size_t i = 0; i < n; i++) k[i] = f16_to_f32(keys[i]);
    for (size_t i = 0; i < n; i++) v[i] = f16_to_f32(values[i]);
}

const struct store_kind store_kv_f16 = { .name = "kv_f16", .layer_bytes = layer_bytes, .put = put, .get = get };
