/* bench_blocks.c - random weights as they lie in files, with a standard deviation of about 0.02. */
#include "bench.h"

#include <string.h>

#include "f16.h"
#include "rng.h"

static void put_words(uint8_t *dst, uint64_t prefix, uint64_t at, size_t n)
{
    for (size_t i = 0; i < n; i++) memcpy(dst + 8 * i, &(uint64_t){ noise_bits(prefix, at + i) }, 8);
}

static void put_scale(uint8_t *dst, float scale) { memcpy(dst, &(uint16_t){ f32_to_f16(scale) }, 2); }

static void fill_q4_0(uint8_t *dst, uint64_t prefix, uint64_t first, size_t n)
{
    for (size_t i = 0; i < n; i++, dst += sizeof(struct block_q4_0)) {
        put_scale(dst, 0.0043f);
        put_words(dst + 2, prefix, (first + i) * 2, 2);
    }
}

static void fill_q8_0(uint8_t *dst, uint64_t prefix, uint64_t first, size_t n)
{
    for (size_t i = 0; i < n; i++, dst += sizeof(struct block_q8_0)) {
        put_scale(dst, 0.00027f);
        put_words(dst + 2, prefix, (first + i) * 4, 4);
    }
}

/* Codes of scales, minimums and weights at random: the minimums take 7.5 scales from weights whose mean is 7.5. */
static void fill_q4_k(uint8_t *dst, uint64_t prefix, uint64_t first, size_t n)
{
    enum { WORDS = sizeof(struct block_q4_k) / 8 };
    for (size_t i = 0; i < n; i++, dst += sizeof(struct block_q4_k)) {
        put_words(dst, prefix, (first + i) * WORDS, WORDS);
        put_scale(dst + offsetof(struct block_q4_k, d), 0.000078f);
        put_scale(dst + offsetof(struct block_q4_k, dmin), 0.000078f * 7.5f);
    }
}

static void fill_q6_k(uint8_t *dst, uint64_t prefix, uint64_t first, size_t n)
{
    enum { WORDS = offsetof(struct block_q6_k, d) / 8 };
    for (size_t i = 0; i < n; i++, dst += sizeof(struct block_q6_k)) {
        put_words(dst, prefix, (first + i) * WORDS, WORDS);
        put_scale(dst + offsetof(struct block_q6_k, d), 0.0000146f);
    }
}

static void fill_f16(uint8_t *dst, uint64_t prefix, uint64_t first, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        const int16_t x = (int16_t)(noise_bits(prefix, first + i) >> 48);
        put_scale(dst + 2 * i, (float)x * (0.035f / 32768));
    }
}

static const struct { const struct quant_format *format; bench_fill *fill; } fills[] = {
    { &format_q4_0, fill_q4_0 }, { &format_q4_k, fill_q4_k }, { &format_q6_k, fill_q6_k },
    { &format_q8_0, fill_q8_0 }, { &format_f16, fill_f16 },
};
const char bench_fill_names[] = "q4_0, q4_k, q6_k, q8_0 or f16";

bench_fill *bench_fill_of(const struct quant_format *f)
{
    for (size_t i = 0; i < sizeof fills / sizeof *fills; i++)
        if (fills[i].format == f) return fills[i].fill;
    return NULL;
}
