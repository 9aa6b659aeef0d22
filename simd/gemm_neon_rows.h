/* gemm_neon_rows.h - panels of gemm_neon.h for sets whose dot products take one row at a time. */
#ifndef GEMM_NEON_ROWS_H
#define GEMM_NEON_ROWS_H

#include <arm_neon.h>

typedef float32x4_t factor;
static inline factor factor_of(float32x4_t v) { return v; }

#include "gemm_neon.h"

/* Rows are taken as they lie, but for offset * scale. */
INLINE struct rows rows_as_they_are(struct room *room, const struct q8rows *x, size_t at, int n_blocks, int rows, bool offsets)
{
    (void)rows;
    for (int b = 0; offsets && b < n_blocks; b++)
        for (int r = 0; r < PANEL_ROWS; r += 4) {
            const size_t from = at + (size_t)(b * ROW_GROUP + r);
            vst1q_f32(room->offset + b * PANEL_ROWS + r, vmulq_f32(to_float(vld1q_s32(x->offset + from)), vld1q_f32(x->scale + from)));
        }
    return (struct rows){ x->q + at * QBLOCK, x->scale + at, room->offset };
}

/* One row of a block: sums over the 32 products of each channel, as floats. */
typedef float32x4_t dot_fn(const struct weights *w, const int8_t *x, const struct scales *s);

INLINE void panel_by_rows(const struct panel *p, int rows, const bool unpacked, const struct layout l, dot_fn *dot, load_fn *load,
                          scales_fn *scales, super_fn *super)
{
    float32x4_t acc[PANEL_ROWS];
    const int8_t *q = p->rows.q;
    const float *scale = p->rows.scale, *offset = p->rows.offset;
    struct super now = no_super(NULL);
    struct scales own;
    load_sums(acc, p, rows);
    for (int b = 0; b < p->n_blocks; b++) {
        const struct weights w = unpacked ? load_unpacked(&p->unpacked->weights[b]) : load(p->packed.w + b * l.block);
        if (!unpacked) scales_at(&own, &p->packed, l, b, &now, scales, super);
        const struct scales *s = unpacked ? &p->unpacked->scales[b] : &own;
        UNROLL for (int r = 0; r < rows; r++) {
            acc[r] = vfmaq_f32(acc[r], dot(&w, q + r * QBLOCK, s), vmulq_n_f32(s->d, scale[r]));
            if (l.min) acc[r] = vfmaq_n_f32(acc[r], s->min, offset[r]);
        }
        q += ROW_GROUP * QBLOCK;
        scale += ROW_GROUP;
        offset += PANEL_ROWS;
    }
    store_sums(acc, p, rows);
}

enum { LEAST = 1 };
#define PANEL panel_by_rows
#define ROWS rows_as_they_are

#endif
