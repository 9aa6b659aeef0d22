/* f32.c - F32 rows: IEEE 754 single precision, copied. */
#include "format.h"

#include <string.h>

static void quantize_f32(void *dst, const float *src, size_t k) { memcpy(dst, src, k * sizeof *src); }
static void dequantize_f32(float *dst, const void *src, size_t k) { memcpy(dst, src, k * sizeof *dst); }

const struct quant_format format_f32 = {
    .name = "f32", .safetensors = "F32", .gguf_type = 0, .gguf_file_type = 0, .block = 1, .block_bytes = 4,
    .quantize_row = quantize_f32, .dequantize_row = dequantize_f32,
};
