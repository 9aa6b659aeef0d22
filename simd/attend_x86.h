/* attend_x86.h - attention for AVX2 and AVX-512 (kernels.h: attend; the online softmax of flash attention, Dao et al.,
 * arXiv:2205.14135, in a fixed order of operations).
 *
 * GROUP query rows pass over the keys together.  For a tile of 64 keys, each block of keys meets all rows while it lies in L1,
 * then each block of the values does.  A step holds ROWS rows x NV registers of sums; the first steps of a tile fetch the next
 * one, which the caches' own prefetchers do not foresee in time. */
#ifndef ATTEND_X86_H
#define ATTEND_X86_H

#include <math.h>
#include <stdbool.h>

#include "vectors.h"

enum { STEP_ROWS = 6, WIDE = LANES_V == 16 ? 4 : 2, GROUP = 64, LINE = 64 };

struct attend_state {
    float s[GROUP][KEY_TILE];                   /* scores, then probabilities, of one tile    */
    float acc[GROUP][MAX_HEAD_DIM + LANES_V];   /* room for the last register of an odd width */
    float l[GROUP][LANES], m[GROUP];
    float c[GROUP];                             /* exp(old maximum - new one)                 */
    int32_t out[KEY_TILE];                      /* all ones: this key is masked or absent     */
} __attribute__((aligned(64)));

/* s = scale * q k for ROWS rows and the NV * LANES_V keys at k; fetches dim lines from `next` on. */
INLINE void score_step(const int ROWS, const int NV, float *s, const float *q, size_t ldq, const float *k, size_t dim, float scale,
                       const char *next)
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
        _mm_prefetch(next + d * LINE, _MM_HINT_T1);
UNROLL
        for (int i = 0; i < NV; i++) keys[i] = load_f(kn[i] + d * LANES);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const vfloat x = broadcast_f(q[(size_t)r * ldq + d]);
UNROLL
            for (int i = 0; i < NV; i++) dot[r][i] = fma_f(x, keys[i], dot[r][i]);
        }
    }
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < NV; i++) store_f(s + r * KEY_TILE + i * LANES_V, mul_f(broadcast_f(scale), dot[r][i]));
}

/* acc = acc * c + p v for ROWS rows, n keys, and elements of the head from v and acc on: NV registers, or `lanes` of one;
 * fetches n lines from `next` on. */
INLINE void value_step(const int ROWS, const int NV, float (*acc)[MAX_HEAD_DIM + LANES_V], size_t d, const float *p, const float *c,
                       const float *v, size_t dim, int n, int lanes, const char *next)
{
    vfloat sum[STEP_ROWS][WIDE];
UNROLL
    for (int r = 0; r < ROWS; r++)
UNROLL
        for (int i = 0; i < NV; i++) sum[r][i] = mul_f(load_f(acc[r] + d + LANES_V * i), broadcast_f(c[r]));
    for (int j = 0; j < n; j++, v += dim) {
        vfloat values[WIDE];
        _mm_prefetch(next + (size_t)j * LINE, _MM_HINT_T1);
UNROLL
        for (int i = 0; i < NV; i++) values[i] = NV > 1 ? load_f(v + LANES_V * i) : load_lanes(v, lanes);
UNROLL
        for (int r = 0; r < ROWS; r++) {
            const vfloat x = broadcast_f(p[r * KEY_TILE + j]);
UNROLL
            for (int i = 0; i < NV; i++) sum[r][i] = fma_f(x, values[i], sum[r][i]);
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

INLINE int least(int a, int b) { return a < b ? a : b; }

/* Scores of the group's rows and the n keys of a tile from j0 on; -inf for masked and absent ones. */
INLINE void score_tile(struct attend_state *st, const struct attend_args *a, int row, int rows, int j0, int n)
{
    const size_t dim = (size_t)a->head_dim;
    const float *tile = a->k + (size_t)(j0 / LANES) * dim * LANES;
    const int next_keys = least(a->n_keys - j0 - n, KEY_TILE);
    int fetched = 0;                                                        /* blocks of 16 keys of the next tile */
    for (int j = 0, wide; j < n; j += wide * LANES_V) {
        const int left = LANES_V == LANES ? (n - j + LANES - 1) / LANES : WIDE;
        const float *k = tile + (size_t)(j / LANES) * dim * LANES;
        wide = left >= WIDE ? WIDE : left >= 2 ? 2 : 1;
        for (int r = 0; r < rows; r += STEP_ROWS, fetched++) {
            const float *q = a->q + (size_t)(row + r) * a->ldq;
            const char *next = (const char *)(fetched * LANES < next_keys
                                              ? tile + (size_t)(KEY_TILE / LANES + fetched) * dim * LANES : tile);
            float *s = st->s[r] + j;
#define SCORES(m, nv) score_step(m, nv, s, q, a->ldq, k, dim, a->scale, next)
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

/* Scores to probabilities, with the running maxima and sums; false if no key was attended so far.  The mask is common to all
 * rows, so that they are all without keys or none is. */
INLINE bool softmax_tile(struct attend_state *st, int rows)
{
    float fall[GROUP] __attribute__((aligned(64))) = { 0 };            /* old maximum - new one */
    for (int r = 0; r < rows; r++) {
        vfloat max = load_f(st->s[r]);
        for (int j = LANES_V; j < KEY_TILE; j += LANES_V) max = max_f(max, load_f(st->s[r] + j));
        const float tile_max = largest(max), m = st->m[r] > tile_max ? st->m[r] : tile_max;
        if (m == -INFINITY) return false;
        fall[r] = st->m[r] - m;
        st->m[r] = m;
    }
    for (int r = 0; r < rows; r += LANES_V) store_f(st->c + r, exp_or_0(load_f(fall + r)));
    for (int r = 0; r < rows; r++) {
        float *s = st->s[r], *l = st->l[r];
        for (int i = 0; i < LANES; i += LANES_V) store_f(l + i, mul_f(load_f(l + i), broadcast_f(st->c[r])));
        for (int j = 0; j < KEY_TILE; j += LANES_V) {
            const vfloat p = exp_or_0(sub_f(load_f(s + j), broadcast_f(st->m[r])));
            store_f(s + j, p);
            store_f(l + j % LANES, add_f(load_f(l + j % LANES), p));
        }
    }
    return true;
}

/* next_keys: of the tile that follows, up to KEY_TILE. */
INLINE void value_tile(struct attend_state *st, const float *v, size_t dim, int rows, int n, int next_keys)
{
    const size_t lines = (size_t)next_keys * dim / LANES;
    size_t fetched = 0;
    for (size_t d = 0, wide; d < dim; d += wide * LANES_V) {
        const size_t left = dim - d;
        wide = left >= WIDE * LANES_V ? WIDE : left >= 2 * LANES_V ? 2 : 1;
        for (int r = 0; r < rows; r += STEP_ROWS, fetched += (size_t)n) {
            const char *next = (const char *)v + (fetched < lines ? KEY_TILE * dim * sizeof *v + fetched * LINE : 0);
            const float *p = st->s[r], *c = st->c + r;
#define VALUES(m, nv, lanes) value_step(m, nv, st->acc + r, d, p, c, v + d, dim, n, lanes, next)
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

INLINE void attend_group(const struct attend_args *a, int row, int rows)
{
    struct attend_state st;
    const size_t dim = (size_t)a->head_dim;
    for (int r = 0; r < rows; r++) {
        st.m[r] = -INFINITY;
        memset(st.l[r], 0, sizeof st.l[r]);
        memset(st.acc[r], 0, sizeof st.acc[r]);
    }
    for (int j0 = 0; j0 < a->n_keys; j0 += KEY_TILE) {
        const int n = least(a->n_keys - j0, KEY_TILE);
        score_tile(&st, a, row, rows, j0, n);
        if (softmax_tile(&st, rows)) value_tile(&st, a->v + (size_t)j0 * dim, dim, rows, n, least(a->n_keys - j0 - n, KEY_TILE));
    }
    for (int r = 0; r < rows; r++) {
        float *y = a->y + (size_t)(row + r) * a->ldy;
        const vfloat sum = broadcast_f(fold(st.l[r]));
        for (size_t d = 0; d < dim; d += LANES_V)
            store_lanes(y + d, st.m[r] == -INFINITY ? zero_f() : div_f(load_f(st.acc[r] + d), sum), least((int)(dim - d), LANES_V));
    }
}

INLINE void attend_rows(const struct attend_args *a)
{
    for (int row = 0; row < a->n_rows; row += GROUP) attend_group(a, row, least(a->n_rows - row, GROUP));
}

#endif
