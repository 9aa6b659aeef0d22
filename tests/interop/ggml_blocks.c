/* ggml_blocks.c - blocks of quantized numbers, written here and by a published build of ggml from the same numbers, give the
 * same values to both, bit for bit.  Exit 1 at the first that does not. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "format.h"

#define DECLARE(t) \
    extern void dequantize_row_##t(const void *x, float *y, int64_t k); \
    extern void quantize_row_##t##_ref(const float *x, void *y, int64_t k);
DECLARE(q4_0) DECLARE(q8_0) DECLARE(q4_K) DECLARE(q6_K)

static const struct {
    const char *name;
    void (*decode)(const void *x, float *y, int64_t k);
    void (*encode)(const float *x, void *y, int64_t k);
} theirs[] = {
    { "q4_0", dequantize_row_q4_0, quantize_row_q4_0_ref }, { "q8_0", dequantize_row_q8_0, quantize_row_q8_0_ref },
    { "q4_k", dequantize_row_q4_K, quantize_row_q4_K_ref }, { "q6_k", dequantize_row_q6_K, quantize_row_q6_K_ref },
};

enum { K = 4096, ROWS = 200 };

static double uniform(uint64_t *s)
{
    *s = *s * 6364136223846793005u + 1442695040888963407u;
    return (double)(*s >> 11) * 0x1p-53;
}

/* Normal numbers of many sizes, with outliers, zeros and whole blocks of zeros. */
static void fill(float *x, uint64_t *s)
{
    const double scale = exp(12 * uniform(s) - 10);
    const int kind = (int)(uniform(s) * 4);
    for (int i = 0; i < K; i++) {
        const double u = uniform(s) + 1e-18, v = sqrt(-2 * log(u)) * cos(6.283185307179586 * uniform(s));
        x[i] = (float)(v * scale * (kind == 1 && uniform(s) < 0.01 ? 20 : 1));
        if (kind == 2 && i / 512 % 2) x[i] = 0;
        if (kind == 3 && uniform(s) < 0.3) x[i] = 0;
    }
}

static int differ(const float *a, const float *b)
{
    for (int i = 0; i < K; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0 && !(a[i] == 0 && b[i] == 0)) return i;
    return -1;
}

int main(void)
{
    static float x[K], a[K], b[K];
    static unsigned char own[K * 4], other[K * 4];
    int status = 0;
    for (size_t f = 0; f < sizeof theirs / sizeof *theirs; f++) {
        const struct quant_format *q = quant_format_by_name(theirs[f].name);
        uint64_t seed = 1;
        int same_bytes = 0, at = -1;
        if (!q) {
            printf("skip  %s: not a format of this build\n", theirs[f].name);
            continue;
        }
        for (int row = 0; row < ROWS && at < 0; row++) {
            const size_t bytes = K / (size_t)q->block * (size_t)q->block_bytes;
            fill(x, &seed);
            q->quantize_row(own, x, K);
            theirs[f].encode(x, other, K);
            same_bytes += memcmp(own, other, bytes) == 0;
            q->dequantize_row(a, own, K);
            theirs[f].decode(own, b, K);
            at = differ(a, b);
            if (at >= 0) break;
            q->dequantize_row(a, other, K);
            theirs[f].decode(other, b, K);
            at = differ(a, b);
        }
        if (at >= 0) {
            printf("%s: value %d is %a here and %a there\n", q->name, at, (double)a[at], (double)b[at]);
            status = 1;
        } else printf("%s: %d rows of %d, written by both, give both the same values; %d rows have the same bytes\n", q->name, ROWS, K, same_bytes);
    }
    return status;
}
