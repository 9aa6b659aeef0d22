/* q8_0.c - Q8_0 rows: blocks of 32 signed bytes with one f16 scale; rounding as in ggml's reference (half away from zero). */
#include "format.h"

#include <math.h>
#include "f16.h"

_Static_assert(sizeof(struct block_q8_0) == 34, "a Q8_0 block is 34 bytes in files");

/* roundf() of |x| < 2^23 (half away from zero), inline: the C library's is a call, and five times slower here. */
static int8_t round_away(float x)
{
    const int whole = (int)x;
    const float rest = x - (float)whole;        /* exact */
    return (int8_t)(whole + (rest >= 0.5f) - (rest <= -0.5f));
}

static struct block_q8_0 quantize_block(const float *x)
{
    struct block_q8_0 b;
    float amax = 0;
    for (int i = 0; i < QBLOCK; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    const float d = amax / 127, inverse = 1 / d;
    const float id = isfinite(inverse) ? inverse : 0;   /* d is 0, or so small that its f16 is 0 whatever q is */
    b.d = f32_to_f16(d);
    for (int i = 0; i < QBLOCK; i++) b.q[i] = round_away(x[i] * id);
    return b;
}

static void quantize_q8_0(void *dst, const float *src, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i += QBLOCK, out += sizeof(struct block_q8_0)) {
        const struct block_q8_0 b = quantize_block(src + i);
        memcpy(out, &b, sizeof b);
    }
}

static void dequantize_q8_0(float *dst, const void *src, size_t k)
{
    const unsigned char *in = src;
    for (size_t i = 0; i < k; i += QBLOCK, in += sizeof(struct block_q8_0)) {
        struct block_q8_0 b;
        memcpy(&b, in, sizeof b);
        const float d = f16_to_f32(b.d);
        for (int j = 0; j < QBLOCK; j++) dst[i + (size_t)j] = d * (float)b.q[j];
    }
}

const struct quant_format format_q8_0 = {
    .name = "q8_0", .gguf_type = 8, .gguf_file_type = 7, .block = QBLOCK, .block_bytes = sizeof(struct block_q8_0),
    .quantize_row = quantize_q8_0, .dequantize_row = dequantize_q8_0,
};
