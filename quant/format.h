/* format.h - number formats of weights as they lie in files, one table row each.
 * A row of k values is k / block blocks of block_bytes bytes.  The layouts are ggml's. */
#ifndef FORMAT_H
#define FORMAT_H

#include <stddef.h>
#include <stdint.h>

enum { QBLOCK = 32, KBLOCK = 256 };

/* Q8_0: value[i] = d * q[i], -128 <= q <= 127        34 bytes for 32 values
 * Q4_0: value[i] = d * (nibble[i] - 8)               18 bytes for 32 values
 *       nibble i: low half of q[i] for i < 16, high half of q[i - 16] above */
struct block_q8_0 { uint16_t d; int8_t q[QBLOCK]; };
struct block_q4_0 { uint16_t d; uint8_t q[QBLOCK / 2]; };

/* Q4_K: value[i] = d * scale[g] * nibble[i] - dmin * minimum[g], g = i / 32           144 bytes for 256 values
 *       nibble i: half g % 2 (0: low) of q[g/2 * 32 + i % 32]
 *       scale and minimum, 6 bits each, in 12 bytes (b: bits 5 4 of a value, nnnn: bits 3 2 1 0):
 *         codes[0..3]    bb of scale[4..7],   scale[0..3]
 *         codes[4..7]    bb of minimum[4..7], minimum[0..3]
 *         codes[8..11]   nnnn of minimum[4..7], nnnn of scale[4..7]
 * Q6_K: value[i] = d * scale[i / 16] * (code[i] - 32)                                  210 bytes for 256 values
 *       code i, 6 bits, with h = i / 128, s = i % 128 / 32:  bits 3..0 are half s / 2 of low[64h + 32(s % 2) + i % 32],
 *       bits 5..4 are bits 2s+1, 2s of high[32h + i % 32] */
struct block_q4_k { uint16_t d, dmin; uint8_t codes[12], q[KBLOCK / 2]; };
struct block_q6_k { uint8_t low[KBLOCK / 2], high[KBLOCK / 4]; int8_t scale[KBLOCK / 16]; uint16_t d; };

/* scale[group] and minimum[group] of a Q4_K block, 0 to 63; set once each in a block of zero codes. */
void q4_k_get_codes(const struct block_q4_k *b, int group, int *scale, int *minimum);
void q4_k_set_codes(struct block_q4_k *b, int group, int scale, int minimum);

struct quant_format {
    const char *name;                   /* "q8_0": command line, reports                              */
    const char *safetensors;            /* dtype name, or NULL                                        */
    uint32_t gguf_type, gguf_file_type; /* ggml tensor type id; general.file_type of a file mostly of it */
    int block, block_bytes;             /* values and bytes of a block                                */
    /* k: a multiple of block; src finite; rows may lie at any address.  What is too large for the format comes back from
     * dequantize_row as an infinity or NaN: whoever writes files checks that. */
    void (*quantize_row)(void *dst, const float *src, size_t k);
    void (*dequantize_row)(float *dst, const void *src, size_t k);
    /* Like quantize_row, with scales searched for the least sum of importance[i] * error[i]^2 in each block (NULL: all count the
     * same); slower.  NULL for formats whose scales are not searched. */
    void (*search_row)(void *dst, const float *src, const float *importance, size_t k);
    /* The same in two steps, for rounding with feedback (feedback.h): the scales of one block fitted to x, w[i] > 0 being what an
     * error costs; then its codes one by one, in order, each the nearest to x: returns the value that it gives.  dst on an even address. */
    void (*fit_block)(void *dst, const float *x, const float *w);
    float (*put_value)(void *dst, int i, float x);
};

extern const struct quant_format *const quant_formats[];        /* ends with NULL; formats are compared by address */
extern const struct quant_format format_f32, format_f16, format_bf16, format_q8_0, format_q6_k, format_q4_k, format_q4_0;

/* Bytes of k values of a row; k: a multiple of block. */
static inline size_t quant_row_bytes(const struct quant_format *f, uint64_t k)
{
    return (size_t)(k / (uint64_t)f->block) * (size_t)f->block_bytes;
}

const struct quant_format *quant_format_by_name(const char *name);      /* case is ignored; NULL: unknown */
const struct quant_format *quant_format_by_gguf_type(uint32_t type);
const struct quant_format *quant_format_by_safetensors(const char *dtype, size_t n);

#endif
