/* attend_x86.h - attention for AVX2 and AVX-512 (kernels.h: attend, attend_bf16; the online softmax of flash attention, Dao et al.,
 * arXiv:2205.14135, in a fixed order of operations).
 *
 * GROUP query rows pass over the keys together.  For a tile of 64 keys, each block of keys meets all rows while it lies in L1,
 * then each block of the values does.  A step holds ROWS rows x NV registers of sums; the first steps of a tile fetch the next
 * one, which the caches' own prefetchers do not foresee in time.
 *
 * With the products of AVX512-BF16 (PAIRS) a lane of 32 bits holds two neighbours in bf16, the first one in its upper half, which
 * vdpbf16ps takes first: two elements of a head in queries and keys, two keys in probabilities and values.  Otherwise a lane is one
 * number, so that the same loops go over the lanes of both. */
#ifndef ATTEND_X86_H
#define ATTEND_X86_H

#include <math.h>
#include <stdbool.h>

#include "vectors.h"

enum numbers { FLOAT32, SINGLES, PAIRS };       /* bf16: one number a lane, or two */
enum { STEP_ROWS = 6, WIDE = LANES_V == 16 ? 4 : 2, GROUP = 64, LINE = 64 };

INLINE int least(int a, int b) { return a < b ? a : b; }

struct attend_state {
    float s[GROUP][KEY_TILE];                   /* scores, then probabilities, of one tile    */
    float acc[GROUP][MAX_HEAD_DIM + LANES_V];   /* room for the last register of an odd width */
    float l[GROUP][LANES], m[GROUP];
    float c[GROUP];                             /* exp(old maximum - new one)                 */
    int32_t out[KEY_TILE];                      /* all ones: this key is masked or absent     */
} __attribute__((aligned(64)));

/* What PAIRS makes of the arguments: the queries of a group, a tile's keys, then its values. */
struct attend_pairs {
    float q[GROUP][MAX_HEAD_DIM / 2];
    float tile[KEY_TILE * MAX_HEAD_DIM / 2 + LANES_V];
} __attribute__((aligned(64)));

/* bf16 numbers two by two: those of `first` in the upper halves. */
INLINE vfloat pair_f(vfloat first, vfloat second) { return float_of(or_v(bits_f(first), upper_half(bits_f(second)))); }

#ifdef __AVX512BF16__
INLINE vfloat fma_pairs(vfloat x, vfloat y, vfloat sum) { return _mm512_dpbf16_ps(sum, (__m512bh)bits_f(x), (__m512bh)bits_f(y)); }
/* The numbers of `low`, then those of `high`, each with its neighbour. */
INLINE vfloat neighbours(vfloat low, vfloat high) { return float_of(_mm512_rol_epi32((vint)_mm512_cvtne2ps_pbh(high, low), 16)); }
#else                                           /* here none asks for PAIRS */
INLINE vfloat fma_pairs(vfloat x, vfloat y, vfloat sum) { return fma_f(x, y, sum); }
INLINE vfloat neighbours(vfloat low, vfloat high) { return pair_f(low, high); }
#endif

INLINE vfloat fma_lanes(const enum numbers N, vfloat x, vfloat y, vfloat sum)
{
    return N == PAIRS ? fma_pairs(x, y, sum) : fma_f(x, y, sum);
}

INLINE void pair_queries(struct attend_pairs *pairs, const struct attend_args *a, int row, int rows)
{
    for (int r = 0; r < rows; r++) {
        const float *q = a->q + (size_t)(row + r) * a->ldq;
        for (int d = 0; d < a->head_dim; d += 2 * LANES_V) {
            const int left = a->head_dim - d;
            const vfloat high = left > LANES_V ? load_lanes(q + d + LANES_V, least(left - LANES_V, LANES_V)) : zero_f();
            store_f(pairs->q[r] + d / 2, neighbours(load_lanes(q + d, least(left, LANES_V)), high));
        }
    }
}

/* Blocks of LANES keys, n of them. */
INLINE void pair_keys(struct attend_pairs *pairs, const float *k, size_t dim, int n)
{
    for (size_t i = 0; i < (size_t)n * dim / 2 * LANES; i += LANES_V)
        store_f(pairs->tile + i, pair_f(load_f(k + 2 * i), load_f(k + 2 * i + LANES_V)));
}

INLINE void pair_values(struct attend_pairs *pairs, const float *v, size_t dim, int n)
{
    for (int j = 0; j < n; j += 2, v += 2 * dim)
        for (size_t d = 0; d < dim; d += LANES_V) {
            const int lanes = least((int)(dim - d), LANES_V);
            store_f(pairs->tile + (size_t)(j / 2) * dim + d,
                    pair_f(load_lanes(v + d, lanes), j + 1 < n ? load_lanes(v + dim + d, lanes) : zero_f()));
        }
}

INLINE void fetch(const enum numbers N, const char *next, size_t step)
{
    _mm_prefetch(next + step * LINE * (N == PAIRS ? 2 : 1), _MM_HINT_T1);
    if (N == PAIRS) _mm_prefetch(next + (2 * step + 1) * LINE, _MM_HINT_T1);
}

/* s = scale * q k for ROWS rows and the NV * LANES_V keys at k, whose heads have dim lanes; fetches as many lines from `next` on, of
 * pairs twice as many. */
INLINE void score_step(const enum numbers N, const int ROWS, const int NV, float *s, const float *q, size_t ldq, const float *k,
                       size_t dim, float scale, const char *next)
{
    const float *kn[WIDE];
    vfloat dot[STEP_ROWS][WIDE];
UNROLL
    for (int i = 0; i < NV; i++) kn[i] = LANES_V == LANES ? k + (size_t)i * dim * LANES : k + i * LANES_V;
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < NV; i++) dot[r][i] = zero_f();
    for (size_t d = 0; d < dim; d++) {
        vfloat keys[WIDE];
        fetch(N, next, d);
UNROLL
        for (int i = 0; i < NV; i++) keys[i] = load_f(kn[i] + d * LANES);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const vfloat x = broadcast_f(q[(size_t)r * ldq + d]);
UNROLL
            for (int i = 0; i < NV; i++) dot[r][i] = fma_lanes(N, x, keys[i], dot[r][i]);
        }
    }
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < NV; i++) store_f(s + r * KEY_TILE + i * LANES_V, mul_f(broadcast_f(scale), dot[r][i]));
}

/* acc += p v for ROWS rows, n keys or pairs of them, and elements of the head from v and acc on: NV registers, or `lanes` of
 * one; fetches n lines from `next` on, of pairs twice as many. */
INLINE void value_step(const enum numbers N, const int ROWS, const int NV, float (*acc)[MAX_HEAD_DIM + LANES_V], size_t d, const float *p,
                       const float *v, size_t dim, int n, int lanes, const char *next)
{
    vfloat sum[STEP_ROWS][WIDE];
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < NV; i++) sum[r][i] = load_f(acc[r] + d + LANES_V * i);
    for (int j = 0; j < n; j++, v += dim) {
        vfloat values[WIDE];
        fetch(N, next, (size_t)j);
UNROLL
        for (int i = 0; i < NV; i++) values[i] = NV > 1 ? load_f(v + LANES_V * i) : load_lanes(v, lanes);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const vfloat x = broadcast_f(p[r * KEY_TILE + j]);
UNROLL
            for (int i = 0; i < NV; i++) sum[r][i] = fma_lanes(N, x, values[i], sum[r][i]);
        }
    }
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < NV; i++) store_f(acc[r] + d + LANES_V * i, sum[r][i]);
}

#define BY_ROWS(rows, CALL) \
    switch (rows) { case 1: CALL(1); break; case 2: CALL(2); break; case 3: CALL(3); break; \
                    case 4: CALL(4); break; case 5: CALL(5); break; case 6: CALL(6); break; }

/* Scores of the group's rows and the n keys of a tile from j0 on; -inf for masked and absent ones. */
INLINE void score_tile(const enum numbers N, struct attend_state *st, struct attend_pairs *pairs, const struct attend_args *a, int row,
                       int rows, int j0, int n)
{
    const size_t dim = (size_t)a->head_dim, lanes = N == PAIRS ? dim / 2 : dim, ldq = N == PAIRS ? MAX_HEAD_DIM / 2 : a->ldq;
    const float *tile = a->k + (size_t)(j0 / LANES) * dim * LANES, *keys = N == PAIRS ? pairs->tile : tile;
    const float *queries = N == PAIRS ? pairs->q[0] : a->q + (size_t)row * a->ldq;
    const int next_keys = least(a->n_keys - j0 - n, KEY_TILE);
    int fetched = 0;                                                        /* blocks of 16 keys of the next tile */
    if (N == PAIRS) pair_keys(pairs, tile, dim, (n + LANES - 1) / LANES);
    for (int j = 0, wide; j < n; j += wide * LANES_V) {
        const int left = LANES_V == LANES ? (n - j + LANES - 1) / LANES : WIDE;
        const float *k = keys + (size_t)(j / LANES) * lanes * LANES;
        wide = left >= WIDE ? WIDE : left >= 2 ? 2 : 1;
        for (int r = 0; r < rows; r += STEP_ROWS, fetched++) {
            const float *q = queries + (size_t)r * ldq;
            const char *next = (const char *)(fetched * LANES < next_keys
                                              ? tile + (size_t)(KEY_TILE / LANES + fetched) * dim * LANES : tile);
            float *s = st->s[r] + j;
#define SCORES(m, nv) score_step(N, m, nv, s, q, ldq, k, lanes, a->scale, next)
#define WIDEST(m) SCORES(m, WIDE)
#define PAIR(m) SCORES(m, 2)
#define SINGLE(m) SCORES(m, 1)
            const int m = least(rows - r, STEP_ROWS);
            if (wide == WIDE) { BY_ROWS(m, WIDEST) }
            else if (wide == 2) { BY_ROWS(m, PAIR) }
            else { BY_ROWS(m, SINGLE) }
        }
    }
    if (!a->mask && n == KEY_TILE) return;
    for (int j = 0; j < KEY_TILE; j++) st->out[j] = -(j >= n || (a->mask && !a->mask[j0 + j]));
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < KEY_TILE; j += LANES_V)
            store_f(st->s[r] + j, choose(load_v(st->out + j), broadcast_f(-INFINITY), load_f(st->s[r] + j)));
}

/* Scores to probabilities, with the running maxima, and the sums brought to them; false if no key was attended so far.  The mask is
 * common to all rows, so that they are all without keys or none is. */
INLINE bool softmax_tile(const enum numbers N, struct attend_state *st, int rows, size_t dim)
{
    const float LEAST = N == FLOAT32 ? EXP_LEAST : EXP_LEAST_BF16;
    float fall[GROUP] __attribute__((aligned(64))) = { 0 };            /* old maximum - new one */
    for (int r = 0; r < rows; r++) {
        vfloat max = load_f(st->s[r]);
        for (int j = LANES_V; j < KEY_TILE; j += LANES_V) max = max_f(max, load_f(st->s[r] + j));
        const float tile_max = largest(max), m = st->m[r] > tile_max ? st->m[r] : tile_max;
        if (m == -INFINITY) return false;
        fall[r] = st->m[r] - m;
        st->m[r] = m;
    }
    for (int r = 0; r < rows; r += LANES_V) store_f(st->c + r, exp_or_0(LEAST, load_f(fall + r)));
    for (int r = 0; r < rows; r++) {
        float *s = st->s[r], *l = st->l[r];
        if (st->c[r] != 1) {                    /* the maximum has risen */
            const vfloat c = broadcast_f(st->c[r]);
            for (int i = 0; i < LANES; i += LANES_V) store_f(l + i, mul_f(load_f(l + i), c));
            for (size_t d = 0; d < dim; d += LANES_V) {
                const vfloat acc = mul_f(load_f(st->acc[r] + d), c);
                store_f(st->acc[r] + d, N == FLOAT32 ? acc : zero_small(SUM_LEAST, acc));
            }
        }
        for (int j = 0; j < KEY_TILE; j += LANES_V) {
            const vfloat e = exp_or_0(LEAST, sub_f(load_f(s + j), broadcast_f(st->m[r]))), p = N == FLOAT32 ? e : bf16_near_v(e);
            store_f(s + j, p);
            store_f(l + j % LANES, add_f(load_f(l + j % LANES), p));
        }
        for (int j = 0; N == PAIRS && j < KEY_TILE; j += 2 * LANES_V)
            store_f(s + j / 2, neighbours(load_f(s + j), load_f(s + j + LANES_V)));
    }
    return true;
}

/* next_keys: of the tile that follows, up to KEY_TILE. */
INLINE void value_tile(const enum numbers N, struct attend_state *st, struct attend_pairs *pairs, const float *v, size_t dim, int rows,
                       int n, int next_keys)
{
    const size_t lines = (size_t)next_keys * dim / LANES;
    const float *values = N == PAIRS ? pairs->tile : v;
    const int steps = N == PAIRS ? (n + 1) / 2 : n;
    size_t fetched = 0;
    if (N == PAIRS) pair_values(pairs, v, dim, n);
    for (size_t d = 0, wide; d < dim; d += wide * LANES_V) {
        const size_t left = dim - d;
        wide = left >= WIDE * LANES_V ? WIDE : left >= 2 * LANES_V ? 2 : 1;
        for (int r = 0; r < rows; r += STEP_ROWS, fetched += (size_t)n) {
            const char *next = (const char *)v + (fetched < lines ? KEY_TILE * dim * sizeof *v + fetched * LINE : 0);
            const float *p = st->s[r];
#define VALUES(m, nv, lanes) value_step(N, m, nv, st->acc + r, d, p, values + d, dim, steps, lanes, next)
#define WIDEST_OF(m) VALUES(m, WIDE, LANES_V)
#define PAIR_OF(m) VALUES(m, 2, LANES_V)
#define REST_OF(m) VALUES(m, 1, least((int)left, LANES_V))
            const int m = least(rows - r, STEP_ROWS);
            if (wide == WIDE) { BY_ROWS(m, WIDEST_OF) }
            else if (wide == 2) { BY_ROWS(m, PAIR_OF) }
            else { BY_ROWS(m, REST_OF) }
        }
    }
}

INLINE void attend_group(const enum numbers N, const struct attend_args *a, int row, int rows)
{
    struct attend_state st;
    struct attend_pairs pairs;
    const size_t dim = (size_t)a->head_dim;
    for (int r = 0; r < rows; r++) {
        st.m[r] = -INFINITY;
        memset(st.l[r], 0, sizeof st.l[r]);
        memset(st.acc[r], 0, sizeof st.acc[r]);
    }
    if (N == PAIRS) pair_queries(&pairs, a, row, rows);
    for (int j0 = 0; j0 < a->n_keys; j0 += KEY_TILE) {
        const int n = least(a->n_keys - j0, KEY_TILE), next = least(a->n_keys - j0 - n, KEY_TILE);
        score_tile(N, &st, &pairs, a, row, rows, j0, n);
        if (softmax_tile(N, &st, rows, dim)) value_tile(N, &st, &pairs, a->v + (size_t)j0 * dim, dim, rows, n, next);
    }
    for (int r = 0; r < rows; r++) {
        float *y = a->y + (size_t)(row + r) * a->ldy;
        const vfloat sum = broadcast_f(fold(st.l[r]));
        for (size_t d = 0; d < dim; d += LANES_V)
            store_lanes(y + d, st.m[r] == -INFINITY ? zero_f() : div_f(load_f(st.acc[r] + d), sum), least((int)(dim - d), LANES_V));
    }
}

INLINE void attend_rows(const enum numbers N, const struct attend_args *a)
{
    for (int row = 0; row < a->n_rows; row += GROUP) attend_group(N, a, row, least(a->n_rows - row, GROUP));
}

#endif
