/* bf16.c - BF16 rows: bfloat16 (the upper half of a float32), rounded to nearest even. */
#include "format.h"

#include "f16.h"

static void quantize_bf16(void *dst, const float *src, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i++) {
        const uint16_t h = f32_to_bf16(src[i]);
        memcpy(out + i * sizeof h, &h, sizeof h);
    }
}

static void dequantize_bf16(float *dst, const void *src, size_t k)
{
    const unsigned char *in = src;
    for (size_t i = 0; i < k; i++) {
        uint16_t h;
        memcpy(&h, in + i * sizeof h, sizeof h);
        dst[i] = bf16_to_f32(h);
    }
}

const struct quant_format format_bf16 = {
    .name = "bf16", .safetensors = "BF16", .gguf_type = 30, .gguf_file_type = 32, .block = 1, .block_bytes = 2,
    .quantize_row = quantize_bf16, .dequantize_row = dequantize_bf16,
};
