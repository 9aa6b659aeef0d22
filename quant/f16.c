/* f16.c - F16 rows: IEEE 754 half precision, rounded to nearest even; beyond 65504 becomes an infinity. */
#include "format.h"

#include "f16.h"

static void quantize_f16(void *dst, const float *src, size_t k)
{
    unsigned char *out = dst;
    for (size_t i = 0; i < k; i++) {
        const uint16_t h = f32_to_f16(src[i]);
        memcpy(out + i * sizeof h, &h, sizeof h);
    }
}

static void dequantize_f16(float *dst, const void *src, size_t k)
{
    const unsigned char *in = src;
    for (size_t i = 0; i < k; i++) {
        uint16_t h;
        memcpy(&h, in + i * sizeof h, sizeof h);
        dst[i] = f16_to_f32(h);
    }
}

const struct quant_format format_f16 = {
    .name = "f16", .safetensors = "F16", .gguf_type = 1, .gguf_file_type = 1, .block = 1, .block_bytes = 2,
    .quantize_row = quantize_f16, .dequantize_row = dequantize_f16,
};
