/* q4_0.c - Q4_0 rows: blocks of 32 nibbles with one f16 scale, as ggml's reference makes them: the value of largest
 * magnitude becomes nibble 0 (-8), so the scale carries its sign; the other side is clamped to 15 (+7).  Or, of the same
 * layout, with the scale that loses least (scale_search.h). */
#include "format.h"

#include <math.h>
#include <string.h>
#include "f16.h"
#include "scale_search.h"

_Static_assert(sizeof(struct block_q4_0) == 18, "a Q4_0 block is 18 bytes in files");

static uint8_t nibble(float x)          /* x = value / scale, in [-8, 8] */
{
    const int q = (int)(x + 8.5f);
    return (uint8_t)(q < 15 ? q : 15);
}

/* The first value of largest magnitude.  The largest and the least one side by side, which compilers turn into vectors, decide
 * it but where they are equally far from 0. */
static float extreme_of(const float *x)
{
    enum { LANES = 4 };
    float most[LANES] = { 0 }, least[LANES] = { 0 };
    for (int i = 0; i < QBLOCK; i += LANES)
        for (int l = 0; l < LANES; l++) {
            most[l] = x[i + l] > most[l] ? x[i + l] : most[l];
            least[l] = x[i + l] < least[l] ? x[i + l] : least[l];
        }
    for (int l = 1; l < LANES; l++) {
        most[0] = most[l] > most[0] ? most[l] : most[0];
        least[0] = least[l] < least[0] ? least[l] : least[0];
    }
    if (most[0] != -least[0]) return most[0] > -least[0] ? most[0] : least[0];
    int i = 0;
    while (most[0] > 0 && fabsf(x[i]) < most[0]) i++;
    return most[0] > 0 ? x[i] : 0;
}

static struct block_q4_0 quantize_block(const float *x)
{
    enum { HALF = QBLOCK / 2 };
    struct block_q4_0 b;
    const float d = extreme_of(x) / -8, inverse = 1 / d;
    const float id = isfinite(inverse) ? inverse : 0;   /* d is 0, or so small that its f16 is 0 whatever q is */
    b.d = f32_to_f16(d);
    for (int i = 0; i < HALF; i++) b.q[i] = (uint8_t)(nibble(x[i] * id) | nibble(x[i + HALF] * id) << 4);
    return b;
}

static void quantize_q4_0(void *dst, const float *src, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i += QBLOCK, out += sizeof(struct block_q4_0)) {
        const struct block_q4_0 b = quantize_block(src + i);
        memcpy(out, &b, sizeof b);
    }
}

enum { LOW = -8, HIGH = 7 };

static float put_value_q4_0(void *dst, int i, float x)
{
    enum { HALF = QBLOCK / 2 };
    struct block_q4_0 *b = dst;
    const float d = f16_to_f32(b->d), code = nearest_code(x, inverse_scale(d), LOW, HIGH);
    const int nibble = (int)code - LOW;
    if (i < HALF) b->q[i] = (uint8_t)((b->q[i] & 0xF0) | nibble);
    else b->q[i - HALF] = (uint8_t)((b->q[i - HALF] & 0x0F) | nibble << 4);
    return d * code;
}

static void fit_block_q4_0(void *dst, const float *x, const float *importance)
{
    struct block_q4_0 b = { .d = 0 };
    float w[QBLOCK];
    block_weights(w, importance, QBLOCK);
    b.d = f32_to_f16(search_scale(x, w, QBLOCK, LOW, HIGH));
    memcpy(dst, &b, sizeof b);
}

static void search_q4_0(void *dst, const float *src, const float *importance, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i += QBLOCK, out += sizeof(struct block_q4_0)) {
        struct block_q4_0 b;
        fit_block_q4_0(&b, src + i, importance ? importance + i : NULL);
        for (int j = 0; j < QBLOCK; j++) put_value_q4_0(&b, j, src[i + (size_t)j]);
        memcpy(out, &b, sizeof b);
    }
}

static void dequantize_q4_0(float *dst, const void *src, size_t k)
{
    enum { HALF = QBLOCK / 2 };
    const unsigned char *in = src;
    for (size_t i = 0; i < k; i += QBLOCK, in += sizeof(struct block_q4_0)) {
        struct block_q4_0 b;
        memcpy(&b, in, sizeof b);
        const float d = f16_to_f32(b.d);
        for (size_t j = 0; j < HALF; j++) {
            dst[i + j] = d * (float)((b.q[j] & 15) - 8);
            dst[i + j + HALF] = d * (float)((b.q[j] >> 4) - 8);
        }
    }
}

const struct quant_format format_q4_0 = {
    .name = "q4_0", .gguf_type = 2, .gguf_file_type = 2, .block = QBLOCK, .block_bytes = sizeof(struct block_q4_0),
    .quantize_row = quantize_q4_0, .dequantize_row = dequantize_q4_0, .search_row = search_q4_0,
    .fit_block = fit_block_q4_0, .put_value = put_value_q4_0,
};
