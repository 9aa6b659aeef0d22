/* store_kv_i8.c - keys and values in int8 with one scale per head and position: a quarter of the memory of kv_f32.
 * Layout of a layer: keys [head][tile][head_dim][LANES], values [head][tile][LANES][head_dim], key scales and value scales
 * [head][tile][LANES]. */
#include "int8_run.h"
#include "row_store.h"

static size_t layer_bytes(const struct store_shape *s) { return 2 * store_rows(s) * ((size_t)s->head_dim + sizeof(float)); }

struct layer { int8_t *k, *v; float *k_scale, *v_scale; };

static struct layer divide(const struct store_shape *s, const void *bytes)
{
    int8_t *k = (int8_t *)(uintptr_t)bytes, *v = k + store_numbers(s);
    float *scale = (float *)(void *)(v + store_numbers(s));
    return (struct layer){ k, v, scale, scale + store_rows(s) };
}

static void put(const struct store_shape *s, void *bytes, int position, const float *k, const float *v)
{
    const struct layer l = divide(s, bytes);
    const size_t d = (size_t)s->head_dim;
    for (size_t h = 0; h < (size_t)s->n_head_kv; h++) {
        const size_t tile = h * (size_t)s->n_tiles + (size_t)position / LANES, lane = (size_t)position % LANES;
        int8_t *keys = l.k + tile * d * LANES + lane, key[MAX_HEAD_DIM];
        l.k_scale[tile * LANES + lane] = int8_run(key, k + h * d, d);
        for (size_t i = 0; i < d; i++) keys[i * LANES] = key[i];
        l.v_scale[tile * LANES + lane] = int8_run(l.v + (tile * LANES + lane) * d, v + h * d, d);
    }
}

static void get(const struct store_shape *s, const void *bytes, int head, int tile, float *restrict k, float *restrict v)
{
    const struct layer l = divide(s, bytes);
    const size_t d = (size_t)s->head_dim, at = (size_t)head * (size_t)s->n_tiles + (size_t)tile;
    const int8_t *qk = l.k + at * d * LANES, *qv = l.v + at * d * LANES;
    const float *k_scale = l.k_scale + at * LANES, *v_scale = l.v_scale + at * LANES;
    for (size_t i = 0; i < d; i++)
        for (size_t j = 0; j < LANES; j++) k[i * LANES + j] = (float)qk[i * LANES + j] * k_scale[j];
    for (size_t j = 0; j < LANES; j++)
        for (size_t i = 0; i < d; i++) v[j * d + i] = (float)qv[j * d + i] * v_scale[j];
}

const struct store_kind store_kv_i8 = { .name = "kv_i8", .bf16 = true, .layer_bytes = layer_bytes, .put = put, .get = get };
