/* scale_search.c - see scale_search.h.  For given codes the best scale is a quotient of two sums, so the search goes over
 * codes: those of scales around the one that the largest value asks for.  Plain float32 in a fixed order: the same bits on
 * every machine. */
#include "scale_search.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>

enum { STEPS = 16, LANES_S = 4 };       /* candidates on each side; running sums */

float inverse_scale(float scale)
{
    const float inverse = 1 / scale;
    return isfinite(inverse) ? inverse : 0;
}

void block_weights(float *w, const float *importance, int n)
{
    double sum = 0;
    for (int i = 0; importance && i < n; i++) sum += importance[i] >= 0 ? (double)importance[i] : NAN;
    const bool usable = sum > 0 && sum <= (double)FLT_MAX;
    for (int i = 0; i < n; i++) w[i] = usable ? (float)((double)importance[i] * n / sum) : 1;
}

/* sum w x q and sum w q q, q the codes at 1 / inverse. */
static void code_sums(const float *x, const float *w, int n, float inverse, float low, float high, float *wxq, float *wqq)
{
    float xq[LANES_S] = { 0 }, qq[LANES_S] = { 0 };
    for (int i = 0; i < n; i += LANES_S) {
        float place[LANES_S];
        for (int l = 0; l < LANES_S; l++) place[l] = code_place(x[i + l], inverse, low, high);
        for (int l = 0; l < LANES_S; l++) {         /* a loop of its own: compilers turn both into vectors */
            const float q = (float)(int)place[l] + low, wq = w[i + l] * q;
            xq[l] += wq * x[i + l];
            qq[l] += wq * q;
        }
    }
    *wxq = (xq[0] + xq[2]) + (xq[1] + xq[3]);
    *wqq = (qq[0] + qq[2]) + (qq[1] + qq[3]);
}

float search_scale(const float *x, const float *w, int n, int low, int high)
{
    float extreme = 0, scale = 0, best = -1;
    for (int i = 0; i < n; i++) extreme = fabsf(x[i]) > fabsf(extreme) ? x[i] : extreme;
    for (int side = 0; side < 2; side++)                /* the largest value may become the lowest code or the highest */
        for (int step = 0; step <= STEPS; step++) {
            const float code = (float)(side ? high : low), reach = 0.8f + 0.6f * (float)step / STEPS;
            float wxq, wqq;
            code_sums(x, w, n, inverse_scale(extreme) * code * reach, (float)low, (float)high, &wxq, &wqq);
            const float gain = wqq > 0 ? wxq / wqq * wxq : 0;           /* sum w x^2 less the error of these codes */
            if (gain > best) {
                best = gain;
                scale = wqq > 0 ? wxq / wqq : 0;
            }
        }
    return isfinite(scale) ? scale : extreme / (float)low;
}
