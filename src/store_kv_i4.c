/* store_kv_i4.c - keys and values in 4 bits, a half-float scale for every GROUP values of a head and position: a seventh of
 * the memory of kv_f32.  scale = max|x| / 7, q = round-to-even(x / scale), two to a byte, the first one low, 8 added;
 * larger ones than 7 * 65504 become that.
 * Layout of a layer: keys, then values, as rows [head][position] of bytes and scales. */
#include <math.h>

#include "f16.h"
#include "row_store.h"

enum { GROUP = 32, MOST = 7, ZERO = 8 };

static size_t groups_of(const struct store_shape *s) { return ((size_t)s->head_dim + GROUP - 1) / GROUP; }
static size_t row_bytes(const struct store_shape *s) { return groups_of(s) * (GROUP / 2 + sizeof(uint16_t)); }
static size_t half_bytes(const struct store_shape *s) { return store_rows(s) * row_bytes(s); }
static size_t layer_bytes(const struct store_shape *s) { return 2 * half_bytes(s); }

static size_t row_at(const struct store_shape *s, size_t head, size_t position)
{
    return (head * store_positions(s) + position) * row_bytes(s);
}

/* A group: scale, then bytes; n values of it exist. */
static void pack_group(uint8_t *to, const float *x, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) most = fabsf(x[i]) > most ? fabsf(x[i]) : most;         /* what is no number becomes 0 */
    const uint16_t half = f32_to_f16_number(most / MOST);
    const float scale = f16_to_f32(half), inverse = scale > 0 ? 1 / scale : 0, round = 12582912.0f;        /* 1.5 * 2^23: to even */
    to[0] = (uint8_t)(half & 255);
    to[1] = (uint8_t)(half >> 8);
    for (size_t i = 0; i < GROUP; i += 2) {
        int q[2] = { ZERO, ZERO };
        for (size_t j = 0; j < 2 && i + j < n; j++) {
            const float v = (x[i + j] * inverse + round) - round;
            q[j] = v != v ? ZERO : ZERO + (int)(v > MOST ? MOST : v < -MOST ? -MOST : v);
        }
        to[2 + i / 2] = (uint8_t)(q[0] | q[1] << 4);
    }
}

static void pack_row(const struct store_shape *s, uint8_t *to, const float *x)
{
    const size_t d = (size_t)s->head_dim;
    for (size_t at = 0; at < d; at += GROUP, to += GROUP / 2 + sizeof(uint16_t)) pack_group(to, x + at, d - at < GROUP ? d - at : GROUP);
}

static void unpack_row(const struct store_shape *s, const uint8_t *from, float *x, size_t stride)
{
    const size_t d = (size_t)s->head_dim;
    for (size_t i = 0; i < d; i++) {
        const uint8_t *group = from + i / GROUP * (GROUP / 2 + sizeof(uint16_t)), byte = group[2 + i % GROUP / 2];
        x[i * stride] = (float)((i & 1 ? byte >> 4 : byte & 15) - ZERO) * f16_to_f32((uint16_t)(group[0] | group[1] << 8));
    }
}

static void put(const struct store_shape *s, void *layer, int position, const float *k, const float *v)
{
    uint8_t *keys = layer, *values = keys + half_bytes(s);
    for (size_t h = 0; h < (size_t)s->n_head_kv; h++) {
        const size_t at = row_at(s, h, (size_t)position);
        pack_row(s, keys + at, k + h * (size_t)s->head_dim);
        pack_row(s, values + at, v + h * (size_t)s->head_dim);
    }
}

static void get(const struct store_shape *s, const void *layer, int head, int tile, float *k, float *v)
{
    const uint8_t *keys = layer, *values = keys + half_bytes(s);
    for (size_t j = 0; j < LANES; j++) {
        const size_t at = row_at(s, (size_t)head, (size_t)tile * LANES + j);
        unpack_row(s, keys + at, k + j, LANES);
        unpack_row(s, values + at, v + j * (size_t)s->head_dim, 1);
    }
}

const struct store_kind store_kv_i4 = { .name = "kv_i4", .bf16 = true, .layer_bytes = layer_bytes, .put = put, .get = get };
