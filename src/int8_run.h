/* int8_run.h - numbers in int8 that share one scale, for the kinds of row store that keep them so.
 * Both loops take WIDE numbers at a time, a width that the compiler knows: it makes vectors of them. */
#ifndef INT8_RUN_H
#define INT8_RUN_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>

static inline float larger(float a, float b) { return a > b ? a : b; }

/* Adding 1.5 * 2^23 leaves no room for a fraction: round to even without a call.  The maximum is for what is no number, which has no
 * integer: it compares false. */
static inline int8_t int8_rounded(float x) { return (int8_t)(int)larger((x + 12582912.0f) - 12582912.0f, -127); }

/* q = round-to-even(x / scale), scale = max|x| / 127, which is returned; all 0 where no |x| is above 1e-30. */
static inline float int8_run(int8_t *restrict q, const float *restrict x, size_t n)
{
    enum { WIDE = 16 };
    float most[WIDE] = { 0 };
    size_t i = 0;
    for (; i + WIDE <= n; i += WIDE)
        for (size_t j = 0; j < WIDE; j++) most[j] = larger(fabsf(x[i + j]), most[j]);
    for (; i < n; i++) most[0] = larger(fabsf(x[i]), most[0]);
    for (size_t j = 1; j < WIDE; j++) most[0] = larger(most[j], most[0]);
    const float inverse = most[0] > 1e-30f ? 127.0f / most[0] : 0;
    for (i = 0; i + WIDE <= n; i += WIDE)
        for (size_t j = 0; j < WIDE; j++) q[i + j] = int8_rounded(x[i + j] * inverse);
    for (; i < n; i++) q[i] = int8_rounded(x[i] * inverse);
    return inverse > 0 ? most[0] / 127.0f : 0;
}

#endif
