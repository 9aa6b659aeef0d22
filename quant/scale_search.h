/* scale_search.h - the scale of a block that loses least, and the weights that say what a loss costs. */
#ifndef SCALE_SEARCH_H
#define SCALE_SEARCH_H

/* The code of x at scale 1/inverse, less low and before what follows the point is cut off: between 0 and high - low. */
static inline float code_place(float x, float inverse, float low, float high)
{
    const float t = x * inverse + (0.5f - low), top = high - low, above = t > 0 ? t : 0;
    return above < top ? above : top;
}

/* The code of x at scale 1/inverse: x * inverse rounded (halves up) and clamped to [low, high]; NaN gives low. */
static inline float nearest_code(float x, float inverse, float low, float high)
{
    return (float)(int)code_place(x, inverse, low, high) + low;
}

/* 1 / scale, or 0 where that is infinite: all codes are 0 then. */
float inverse_scale(float scale);

/* What an error of each of n values costs: its importance over the block's mean; all 1 for NULL and for blocks
 * whose importance is no positive finite number. */
void block_weights(float *w, const float *importance, int n);

/* A scale s near the minimum of sum w[i] (x[i] - s q[i])^2 over s and the codes q[i] in [low, high], low < 0 < high.
 * |s| may exceed what the file's format of scales can hold; 0 for a block of zeros. */
float search_scale(const float *x, const float *w, int n, int low, int high);

#endif
