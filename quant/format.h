/* format.h - number formats of weights as they lie in files, one table row each.
 * A row of k values is k / block blocks of block_bytes bytes.  The layouts are ggml's. */
#ifndef FORMAT_H
#define FORMAT_H

#include <stddef.h>
#include <stdint.h>

enum { QBLOCK = 32 };

/* Q8_0: value[i] = d * q[i], -128 <= q <= 127        34 bytes for 32 values
 * Q4_0: value[i] = d * (nibble[i] - 8)               18 bytes for 32 values
 *       nibble i: low half of q[i] for i < 16, high half of q[i - 16] above */
struct block_q8_0 { uint16_t d; int8_t q[QBLOCK]; };
struct block_q4_0 { uint16_t d; uint8_t q[QBLOCK / 2]; };

struct quant_format {
    const char *name;                   /* "q8_0": command line, reports                              */
    const char *safetensors;            /* dtype name, or NULL                                        */
    uint32_t gguf_type, gguf_file_type; /* ggml tensor type id; general.file_type of a file mostly of it */
    int block, block_bytes;             /* values and bytes of a block                                */
    /* k: a multiple of block; src finite; rows may lie at any address.  What is too large for the format comes back from
     * dequantize_row as an infinity or NaN: whoever writes files checks that. */
    void (*quantize_row)(void *dst, const float *src, size_t k);
    void (*dequantize_row)(float *dst, const void *src, size_t k);
};

extern const struct quant_format *const quant_formats[];        /* ends with NULL; formats are compared by address */
extern const struct quant_format format_f32, format_f16, format_bf16, format_q8_0, format_q4_0;

const struct quant_format *quant_format_by_name(const char *name);      /* case is ignored; NULL: unknown */
const struct quant_format *quant_format_by_gguf_type(uint32_t type);
const struct quant_format *quant_format_by_safetensors(const char *dtype, size_t n);

#endif
