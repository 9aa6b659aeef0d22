/* store_kv_i8.c - keys and values in int8 with one scale per head and position: a quarter of the memory of kv_f32.
 * scale = max|x| / 127, q = round-to-even(x / scale).  Layout of a layer: keys [head][tile][head_dim][LANES], values
 * [head][tile][LANES][head_dim], key scales and value scales [head][tile][LANES]. */
#include <math.h>

#include "row_store.h"

static size_t rows_of(const struct store_shape *s) { return (size_t)s->n_head_kv * (size_t)s->n_tiles * LANES; }
static size_t layer_bytes(const struct store_shape *s) { return 2 * rows_of(s) * ((size_t)s->head_dim + sizeof(float)); }

struct layer { int8_t *k, *v; float *k_scale, *v_scale; };

static struct layer divide(const struct store_shape *s, const void *bytes)
{
    int8_t *k = (int8_t *)(uintptr_t)bytes, *v = k + rows_of(s) * (size_t)s->head_dim;
    float *scale = (float *)(void *)(v + rows_of(s) * (size_t)s->head_dim);
    return (struct layer){ k, v, scale, scale + rows_of(s) };
}

static float quantize(int8_t *q, size_t stride, const float *x, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    /* Adding 1.5 * 2^23 leaves no room for a fraction: round to even without a call. */
    const float inverse = most > 1e-30f ? 127.0f / most : 0, round = 12582912.0f;
    for (size_t i = 0; i < n; i++) q[i * stride] = (int8_t)((x[i] * inverse + round) - round);
    return inverse > 0 ? most / 127.0f : 0;
}

static void put(const struct store_shape *s, void *bytes, int position, const float *k, const float *v)
{
    const struct layer l = divide(s, bytes);
    const size_t d = (size_t)s->head_dim;
    for (size_t h = 0; h < (size_t)s->n_head_kv; h++) {
        const size_t tile = h * (size_t)s->n_tiles + (size_t)position / LANES, lane = (size_t)position % LANES;
        l.k_scale[tile * LANES + lane] = quantize(l.k + tile * d * LANES + lane, LANES, k + h * d, d);
        l.v_scale[tile * LANES + lane] = quantize(l.v + (tile * LANES + lane) * d, 1, v + h * d, d);
    }
}

static void get(const struct store_shape *s, const void *bytes, int head, int tile, float *k, float *v)
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

const struct store_kind store_kv_i8 = { .name = "kv_i8", .layer_bytes = layer_bytes, .put = put, .get = get };
