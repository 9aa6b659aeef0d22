/* kernels.h - the table of vector kernels: what each computes, on which shapes, in which order.
 *
 * scalar.c defines every result bit for bit, floats included; the other sets return the same bits, and
 * tests/checkasm.c holds them to it.  That rests on:
 *   - dot products of integers are exact; floats are combined by fmaf(), lane by lane, a lane being one output;
 *   - sums over a row use 16 running sums, sum j taking elements j, j+16, ..., then fold 16->8->4->2->1
 *     (s[i] += s[i + half]);
 *   - max(a, b) is a > b ? a : b; exp is SLEEF's finz_expf u10;
 *   - nothing is contracted (-ffp-contract=off) and no result depends on the other rows of a call.
 * Kernels never allocate, never fail, and touch nothing outside the extents given here. */
#ifndef KERNELS_H
#define KERNELS_H

#include <stddef.h>
#include <stdint.h>
#include "f16.h"
#include "format.h"

enum {
    TILE_N = 16,                /* output channels that are interleaved in packed weights          */
    ROW_GROUP = 16,             /* activation rows that are interleaved in struct q8rows           */
    EXP_LEAST = -87,            /* exp of less is, or nearly, subnormal: e() in attend_args        */
    EXP_LEAST_BF16 = -38,       /* exp of less is below BF16_LEAST                                 */
    KEY_TILE = 64,              /* keys that attention takes before it rescales its running sums   */
    MAX_HEAD_DIM = 256,         /* width of a head that attention takes, at most                   */
    LANES = 16
};

/* Activations in int8: rows of k values (k a multiple of 32), quantized per block of 32, in groups of 16
 * rows so that a kernel finds row r of the group at a constant distance:
 *     q      [group][k/32][16][32]      -127..127; -128 never occurs
 *     scale  [group][k/32][16]          value = scale * q
 *     offset [group][k/32][16]          -8 * (sum of the 32 q): where a sum over unsigned nibbles starts
 *     halves [group][k/32][16][2]       -8 * (sum of the first 16 q), -8 * (sum of the others)
 * Rows past the last one of the last group hold anything readable. */
struct q8rows { int8_t *q; float *scale; int32_t *offset; int16_t *halves; int k; };

/* The index of scale and offset; of q in units of 32, of halves of 2. */
static inline size_t q8_index(const struct q8rows *x, int row, int block)
{
    return ((size_t)(row / ROW_GROUP) * (size_t)(x->k / QBLOCK) + (size_t)block) * ROW_GROUP + (size_t)(row % ROW_GROUP);
}

/* A matrix product y = x w^T over packed weights.  One layout per weight format, the same in every set
 * (pack.h), so a descriptor is chosen by the weight's format and a variant by the CPU. */
struct gemm_int8 {
    /* y[r][c], r in [row0, row1), c in [0, n_tiles*16): rows of x times the channels of n_tiles packed tiles that
     * follow each other at w.  y points at row 0, column 0 of the block; rows are ldy floats apart (a multiple of 16).
     * row0 is a multiple of ROW_GROUP.  Per output, blocks of 32 in order, with isum = sum over the block of w_int * x_int:
     *     q4, q8   acc = fmaf((float)isum, scale_w * scale_x, acc)
     *     q4k      acc = fmaf((float)isum, (d * scale_code) * scale_x, acc), w_int being the nibble, then
     *              acc = fmaf((float)offset * scale_x, (dmin / 8) * minimum_code, acc)
     *     q6k      acc = fmaf((float)isum, d * scale_x, acc), w_int being scale_code * (code - 32): |isum| < 2^24
     * q4k and q6k take k in multiples of 256.  What multiplies codes is exact, and so are the floats of isum and offset. */
    void (*run)(float *y, size_t ldy, const struct q8rows *x, int row0, int row1, const void *w, int n_tiles);
};
struct gemm_float {
    /* The same with float32 activations, x rows ldx floats apart, any k >= 1:  acc = fmaf(x[k], w[k], acc), k in order. */
    void (*run)(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k);
};

/* Attention in bf16: numbers of 8 bits of mantissa, of which none but 0 lies below BF16_LEAST, and sums that are brought to 0 below
 * SUM_LEAST before more is added: products are then multiples of 2^-124, sums too, and no CPU meets a subnormal number. */
#define BF16_LEAST 0x1p-55f
#define SUM_LEAST  0x1p-100f
/* The nearest such number, of two that are as near the larger one. */
static inline float bf16_near(float x)
{
    const uint32_t u = f32_bits(x);
    const int32_t least = (127 - 55) << 23;
    return f32_from_bits((int32_t)(u & 0x7fffffff) < least ? 0 : (u + 0x8000) & 0xffff0000);
}
/* The same for n numbers in place, n a multiple of 8. */
static inline void bf16_near_all(float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 8)
        for (size_t j = 0; j < 8; j++) x[i + j] = bf16_near(x[i + j]);
}

/* Attention of n_rows query rows of one head against n_keys keys of its key/value head, online softmax over
 * tiles of KEY_TILE keys from key 0.  With s_j = scale * sum_d q[d] k_j[d] (fmaf from 0, d in order; -inf where
 * mask[j] == 0), running maximum m, 16 running sums l and acc[head_dim], a tile does
 *     m' = max(m, max_j s_j); skip the tile if m' = -inf;  c = e(m - m'); l[i] *= c; acc[d] *= c;
 *     p_j = e(s_j - m'); l[j % 16] += p_j; acc[d] = fmaf(p_j, v_j[d], acc[d])          j in order
 * and at the end y[d] = acc[d] / fold(l); zeros if every key is masked.  e(x) = exp(x), but 0 for x < EXP_LEAST: subnormal
 * numbers would come out, each of which costs Intel's cores some hundred cycles.
 * attend_bf16 takes q, k and v that are bf16_near() numbers, and does the same but for e(x) = 0 for x < EXP_LEAST_BF16,
 * p_j = bf16_near(e(s_j - m')), and acc[d] * c = 0 below SUM_LEAST where c < 1: what CPUs with products of bf16 do at twice the speed.
 * q, k, v and the scores are finite; where they are not, y is unspecified (and nothing else is touched).  y may be q. */
struct attend_args {
    float *y; size_t ldy;       /* [n_rows][head_dim], rows ldy floats apart                        */
    const float *q; size_t ldq; /* [n_rows][head_dim], rows ldq floats apart, rotated               */
    const float *k;             /* [ceil(n_keys/16)][head_dim][16]: 16 keys side by side; the tail of
                                   the last 16 holds anything readable                              */
    const float *v;             /* [n_keys][head_dim]                                               */
    const uint8_t *mask;        /* n_keys bytes, 0 = never attended; NULL = all attended            */
    float scale;
    int n_rows, n_keys, head_dim;       /* head_dim: a multiple of 8, at most MAX_HEAD_DIM          */
};

struct kernels {
    const struct gemm_int8 *gemm_q4;    /* packed Q4_0 */
    const struct gemm_int8 *gemm_q8;    /* packed Q8_0 */
    const struct gemm_int8 *gemm_q4k;   /* packed Q4_K */
    const struct gemm_int8 *gemm_q6k;   /* packed Q6_K */
    const struct gemm_float *gemm_f32, *gemm_f16, *gemm_bf16;

    /* Row `row` of y = blocks of x[y->k].  scale = max|x| / 127, q = round-to-even(x * (127 / max|x|)) clamped to
     * +-127; a block with max|x| < 1e-30 is all zero.  NaN counts as 0 and +-infinity as +-FLT_MAX. */
    void (*quantize_q8)(struct q8rows *y, int row, const float *x);

    /* y[i] = (x[i] * r) * w[i], y may be x,  r = 1 / sqrtf(sum(x^2) / n + eps); squares by fmaf into the 16 running sums. */
    void (*rms_norm)(float *y, const float *x, const float *w, int n, float eps);

    /* Half-split rotation in place (Su et al., arXiv:2104.09864, rotate-half form): for i < half, with a = x[i] and
     * b = x[i + half]:  x[i] = a*cos[i] - b*sin[i],  x[i + half] = b*cos[i] + a*sin[i]
     * computed as fmaf(a, cos, -(b*sin)) and fmaf(b, cos, a*sin). */
    void (*rope)(float *x, const float *cos, const float *sin, int half);

    /* y[i] = gate[i] / (1 + exp(-gate[i])) * up[i]   (Shazeer, arXiv:2002.05202); y may be gate or up. */
    void (*swiglu)(float *y, const float *gate, const float *up, int n);

    void (*add)(float *y, const float *x, int n);                       /* y[i] += x[i]                     */
    void (*attend)(const struct attend_args *a);
    void (*attend_bf16)(const struct attend_args *a);

    /* Largest x[i] and the lowest index that has it; NaN is never chosen; *index = -1 (and -inf) if nothing is
     * above -inf. */
    float (*argmax)(const float *x, int n, int32_t *index);
    /* Sum of e = exp(x[i] - max); *moment: sum of e * t, t = max(x[i] - max, -128), by fmaf.  With both the entropy of the
     * softmax is log(sum) - moment / sum. */
    float (*sum_exp)(const float *x, int n, float max, float *moment);
};

/* One line per kernel: dispatch, tests and benches walk this list. */
#define KERNELS(X) X(gemm_q4) X(gemm_q8) X(gemm_q4k) X(gemm_q6k) X(gemm_f32) X(gemm_f16) X(gemm_bf16) X(quantize_q8) \
    X(rms_norm) X(rope) X(swiglu) X(add) X(attend) X(attend_bf16) X(argmax) X(sum_exp)
#define COUNT_ONE(m) +1
_Static_assert(sizeof(struct kernels) == (0 KERNELS(COUNT_ONE)) * sizeof(void *), "a kernel is missing from KERNELS");

/* An instruction set: a NULL kernel means that the set has nothing faster than the sets before it. */
struct kernel_set {
    const char *name;
    unsigned needs;
    const struct kernels *kernels;
    /* What gemm_q4 can reach at best: `rounds` rounds of its dot products, and of the sums that they need, on registers
     * alone; returns the operations done, two for a multiply-add.  NULL: not measured for this set. */
    double (*int8_peak)(long rounds);
};
extern const struct kernel_set kernel_sets[];   /* slowest first, a NULL name ends it */

/* Fill k with the fastest kernels among the sets up to and including `isa` ("auto" or NULL: all that the CPU has);
 * returns the name of the last set taken, or NULL if isa is unknown or the CPU lacks it. */
const char *kernels_init(struct kernels *k, const char *isa);

#endif
