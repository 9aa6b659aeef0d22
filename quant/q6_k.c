/* q6_k.c - Q6_K rows: super-blocks of 256 values of 6 bits, an 8-bit scale for each 16 of them, one f16 scale of the scales.
 * The layout is ggml's; the quantizer is our own: each scale by least weighted error, then the same for its 8-bit code. */
#include "format.h"

#include <math.h>
#include <string.h>
#include "f16.h"
#include "scale_search.h"

_Static_assert(sizeof(struct block_q6_k) == 210, "a Q6_K block is 210 bytes in files");

enum { GROUP = 16, GROUPS = KBLOCK / GROUP, LOW = -32, HIGH = 31, MOST = 127 };         /* MOST: of a scale's code */

/* Where the 6 bits of value i lie: a nibble of low, two bits of high. */
struct place { int low, low_shift, high, high_shift; };

static struct place place_of(int i)
{
    const int half = i / 128, quarter = i % 128 / 32, l = i % 32;
    return (struct place){ half * 64 + quarter % 2 * 32 + l, quarter / 2 * 4, half * 32 + l, quarter * 2 };
}

static void set_code(struct block_q6_k *b, int i, int q)
{
    const struct place p = place_of(i);
    b->low[p.low] |= (uint8_t)(((q - LOW) & 15) << p.low_shift);
    b->high[p.high] |= (uint8_t)((q - LOW) >> 4 << p.high_shift);
}

static int get_code(const struct block_q6_k *b, int i)
{
    const struct place p = place_of(i);
    return ((b->low[p.low] >> p.low_shift & 15) | (b->high[p.high] >> p.high_shift & 3) << 4) + LOW;
}

static float group_error(const float *x, const float *w, float scale)
{
    const float inverse = inverse_scale(scale);
    float sum = 0;
    for (int i = 0; i < GROUP; i++) {
        const float e = x[i] - scale * nearest_code(x[i], inverse, LOW, HIGH);
        sum += w[i] * e * e;
    }
    return sum;
}

/* The code of a group's scale: the nearest one or a neighbour, whichever loses least. */
static int scale_code(const float *x, const float *w, float wanted, float d)
{
    const int nearest = (int)nearest_code(wanted, inverse_scale(d), -MOST, MOST);
    int best = nearest;
    float least = INFINITY;
    for (int c = nearest - 1; c <= nearest + 1; c++) {
        const float error = c < -MOST || c > MOST ? INFINITY : group_error(x, w, d * (float)c);
        if (error < least) {
            least = error;
            best = c;
        }
    }
    return best;
}

static struct block_q6_k quantize_block(const float *x, const float *importance)
{
    struct block_q6_k b = { .d = 0 };
    float w[KBLOCK], scale[GROUPS], most = 0;
    for (int g = 0; g < GROUPS; g++) {
        block_weights(w + g * GROUP, importance ? importance + g * GROUP : NULL, GROUP);
        scale[g] = search_scale(x + g * GROUP, w + g * GROUP, GROUP, LOW, HIGH);
        most = fabsf(scale[g]) > most ? fabsf(scale[g]) : most;
    }
    b.d = f32_to_f16(most / MOST);
    const float d = f16_to_f32(b.d);
    for (int g = 0; g < GROUPS; g++) {
        b.scale[g] = (int8_t)(isfinite(d) ? scale_code(x + g * GROUP, w + g * GROUP, scale[g], d) : MOST);
        const float inverse = inverse_scale(d * (float)b.scale[g]);
        for (int i = g * GROUP; i < (g + 1) * GROUP; i++) set_code(&b, i, (int)nearest_code(x[i], inverse, LOW, HIGH));
    }
    return b;
}

static void fit_block_q6_k(void *dst, const float *x, const float *importance)
{
    const struct block_q6_k b = quantize_block(x, importance);
    memcpy(dst, &b, sizeof b);
}

static float put_value_q6_k(void *dst, int i, float x)
{
    struct block_q6_k *b = dst;
    const struct place p = place_of(i);
    const float d = f16_to_f32(b->d) * (float)b->scale[i / GROUP], code = nearest_code(x, inverse_scale(d), LOW, HIGH);
    b->low[p.low] = (uint8_t)(b->low[p.low] & ~(15 << p.low_shift));
    b->high[p.high] = (uint8_t)(b->high[p.high] & ~(3 << p.high_shift));
    set_code(b, i, (int)code);
    return d * code;
}

static void search_q6_k(void *dst, const float *src, const float *importance, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i += KBLOCK, out += sizeof(struct block_q6_k)) {
        const struct block_q6_k b = quantize_block(src + i, importance ? importance + i : NULL);
        memcpy(out, &b, sizeof b);
    }
}

static void quantize_q6_k(void *dst, const float *src, size_t k) { search_q6_k(dst, src, NULL, k); }

static void dequantize_q6_k(float *dst, const void *src, size_t k)
{
    const unsigned char *in = src;
    for (size_t i = 0; i < k; i += KBLOCK, in += sizeof(struct block_q6_k)) {
        struct block_q6_k b;
        memcpy(&b, in, sizeof b);
        const float d = f16_to_f32(b.d);
        for (int j = 0; j < KBLOCK; j++) dst[i + (size_t)j] = d * (float)b.scale[j / GROUP] * (float)get_code(&b, j);
    }
}

const struct quant_format format_q6_k = {
    .name = "q6_k", .gguf_type = 14, .gguf_file_type = 18, .block = KBLOCK, .block_bytes = sizeof(struct block_q6_k),
    .quantize_row = quantize_q6_k, .dequantize_row = dequantize_q6_k, .search_row = search_q6_k,
    .fit_block = fit_block_q6_k, .put_value = put_value_q6_k,
};
