/* q4_k.c - Q4_K rows: super-blocks of 256 nibbles; each 32 of them have a scale and a minimum of 6 bits, and those an f16
 * scale each.  The layout is ggml's; the quantizer is our own: scale and minimum of each 32 by least weighted error, then the
 * same for their 6-bit codes. */
#include "format.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "f16.h"
#include "scale_search.h"

_Static_assert(sizeof(struct block_q4_k) == 144, "a Q4_K block is 144 bytes in files");

enum { GROUPS = KBLOCK / QBLOCK, HIGH = 15, MOST = 63, STEPS = 20 };    /* MOST: of the code of a scale or minimum */

/* value = scale * code - minimum */
struct line { float scale, minimum; };

void q4_k_get_codes(const struct block_q4_k *b, int group, int *scale, int *minimum)
{
    const uint8_t *c = b->codes;
    const int j = group % 4;
    *scale = group < 4 ? c[j] & 63 : (c[8 + j] & 15) | c[j] >> 6 << 4;
    *minimum = group < 4 ? c[4 + j] & 63 : c[8 + j] >> 4 | c[4 + j] >> 6 << 4;
}

void q4_k_set_codes(struct block_q4_k *b, int group, int scale, int minimum)
{
    uint8_t *c = b->codes;
    const int j = group % 4;
    c[j] |= (uint8_t)(group < 4 ? scale : scale >> 4 << 6);
    c[4 + j] |= (uint8_t)(group < 4 ? minimum : minimum >> 4 << 6);
    if (group >= 4) c[8 + j] = (uint8_t)((scale & 15) | (minimum & 15) << 4);
}

/* For given codes q the best line solves two linear equations; the search goes over the codes of lines around the one from the
 * lowest value to the highest.  The minimum is never negative: zero is among the values that a group can hold. */
static struct line best_line(const float *x, const float *w)
{
    float low = 0, high = 0, sw = 0, swx = 0, best = -1;
    for (int i = 0; i < QBLOCK; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        sw += w[i];
        swx += w[i] * x[i];
    }
    struct line line = { (high - low) / HIGH, -low };
    for (int step = 0; step <= STEPS; step++) {
        const float inverse = inverse_scale(high - low) * (HIGH - 1 + 0.2f * (float)step);
        float swq = 0, swqq = 0, swqx = 0;
        for (int i = 0; i < QBLOCK; i++) {
            const float q = nearest_code(x[i] - low, inverse, 0, HIGH), wq = w[i] * q;
            swq += wq;
            swqq += wq * q;
            swqx += wq * x[i];
        }
        const float det = sw * swqq - swq * swq;
        if (!(det > 0)) continue;
        struct line l = { (sw * swqx - swq * swx) / det, (swq * swqx - swqq * swx) / det };
        if (!(l.minimum >= 0)) l = (struct line){ swqx / swqq, 0 };
        const float gain = l.scale * swqx - l.minimum * swx;            /* sum w x^2 less the error of these codes */
        if (l.scale > 0 && gain > best) {
            best = gain;
            line = l;
        }
    }
    return line;
}

static float line_error(const float *x, const float *w, struct line l)
{
    const float inverse = inverse_scale(l.scale);
    float sum = 0;
    for (int i = 0; i < QBLOCK; i++) {
        const float e = x[i] - (l.scale * nearest_code(x[i] + l.minimum, inverse, 0, HIGH) - l.minimum);
        sum += w[i] * e * e;
    }
    return sum;
}

/* The codes of a group's line: the nearest ones or neighbours of them, whichever lose least. */
static void line_codes(const float *x, const float *w, struct line wanted, struct line unit, int *scale, int *minimum)
{
    const int s0 = (int)nearest_code(wanted.scale, inverse_scale(unit.scale), 0, MOST);
    const int m0 = (int)nearest_code(wanted.minimum, inverse_scale(unit.minimum), 0, MOST);
    float least = INFINITY;
    *scale = s0;
    *minimum = m0;
    for (int s = s0 - 1; s <= s0 + 1; s++)
        for (int m = m0 - 1; m <= m0 + 1; m++) {
            if (s < 0 || s > MOST || m < 0 || m > MOST) continue;
            const float error = line_error(x, w, (struct line){ unit.scale * (float)s, unit.minimum * (float)m });
            if (error < least) {
                least = error;
                *scale = s;
                *minimum = m;
            }
        }
}

static struct block_q4_k quantize_block(const float *x, const float *importance)
{
    struct block_q4_k b = { .d = 0 };
    struct line line[GROUPS], most = { 0, 0 };
    float w[KBLOCK];
    for (int g = 0; g < GROUPS; g++) {
        block_weights(w + g * QBLOCK, importance ? importance + g * QBLOCK : NULL, QBLOCK);
        line[g] = best_line(x + g * QBLOCK, w + g * QBLOCK);
        most.scale = line[g].scale > most.scale ? line[g].scale : most.scale;
        most.minimum = line[g].minimum > most.minimum ? line[g].minimum : most.minimum;
    }
    b.d = f32_to_f16(most.scale / MOST);
    b.dmin = f32_to_f16(most.minimum / MOST);
    const struct line unit = { f16_to_f32(b.d), f16_to_f32(b.dmin) };
    const bool fits = isfinite(unit.scale) && isfinite(unit.minimum);
    for (int g = 0; g < GROUPS; g++) {
        const float *xg = x + g * QBLOCK;
        int scale = MOST, minimum = MOST;
        if (fits) line_codes(xg, w + g * QBLOCK, line[g], unit, &scale, &minimum);
        q4_k_set_codes(&b, g, scale, minimum);
        const float inverse = inverse_scale(unit.scale * (float)scale), m = unit.minimum * (float)minimum;
        for (int i = 0; i < QBLOCK; i++)
            b.q[g / 2 * QBLOCK + i] |= (uint8_t)((int)nearest_code(xg[i] + m, inverse, 0, HIGH) << g % 2 * 4);
    }
    return b;
}

static void fit_block_q4_k(void *dst, const float *x, const float *importance)
{
    const struct block_q4_k b = quantize_block(x, importance);
    memcpy(dst, &b, sizeof b);
}

static float put_value_q4_k(void *dst, int i, float x)
{
    struct block_q4_k *b = dst;
    const int g = i / QBLOCK, shift = g % 2 * 4;
    int scale, minimum;
    q4_k_get_codes(b, g, &scale, &minimum);
    const float d = f16_to_f32(b->d) * (float)scale, m = f16_to_f32(b->dmin) * (float)minimum;
    const float code = nearest_code(x + m, inverse_scale(d), 0, HIGH);
    uint8_t *q = &b->q[g / 2 * QBLOCK + i % QBLOCK];
    *q = (uint8_t)((*q & ~(15 << shift)) | (int)code << shift);
    return d * code - m;
}

static void search_q4_k(void *dst, const float *src, const float *importance, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i += KBLOCK, out += sizeof(struct block_q4_k)) {
        const struct block_q4_k b = quantize_block(src + i, importance ? importance + i : NULL);
        memcpy(out, &b, sizeof b);
    }
}

static void quantize_q4_k(void *dst, const float *src, size_t k) { search_q4_k(dst, src, NULL, k); }

static void dequantize_q4_k(float *dst, const void *src, size_t k)
{
    const unsigned char *in = src;
    for (; k >= KBLOCK; k -= KBLOCK, in += sizeof(struct block_q4_k)) {
        struct block_q4_k b;
        memcpy(&b, in, sizeof b);
        for (int g = 0; g < GROUPS; g++) {
            int scale, minimum;
            q4_k_get_codes(&b, g, &scale, &minimum);
            const float d = f16_to_f32(b.d) * (float)scale, m = f16_to_f32(b.dmin) * (float)minimum;
            for (int i = 0; i < QBLOCK; i++) *dst++ = d * (float)(b.q[g / 2 * QBLOCK + i] >> g % 2 * 4 & 15) - m;
        }
    }
}

const struct quant_format format_q4_k = {
    .name = "q4_k", .gguf_type = 12, .gguf_file_type = 14, .block = KBLOCK, .block_bytes = sizeof(struct block_q4_k),
    .quantize_row = quantize_q4_k, .dequantize_row = dequantize_q4_k, .search_row = search_q4_k,
    .fit_block = fit_block_q4_k, .put_value = put_value_q4_k,
};
