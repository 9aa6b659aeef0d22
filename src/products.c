/* products.c - see products.h.  An item is some tiles of one of the products and some rows. */
#include "products.h"

#include "mem.h"

struct input input_lay(float *x, size_t ld, uint8_t *base, size_t *used, size_t rows, int k)
{
    const size_t blocks = rows * (size_t)((k + QBLOCK - 1) / QBLOCK);
    struct q8rows q = { .k = k };
    q.q = mem_lay(base, used, blocks * QBLOCK);
    q.scale = mem_lay(base, used, blocks * sizeof(float));
    q.offset = mem_lay(base, used, blocks * sizeof(int32_t));
    q.halves = mem_lay(base, used, blocks * 2 * sizeof(int16_t));
    return (struct input){ x, ld, q };
}

enum { ITEM_ROWS = 128 };       /* a multiple of ROW_GROUP.  Large enough to keep the matrix kernels busy */

static int row_items(int rows) { return (rows + ITEM_ROWS - 1) / ITEM_ROWS; }

struct products {
    const struct kernels *k;
    struct stream *stream;
    const struct product *p;
    int rows;
    int tile_step[3], unit[3];  /* tiles of an item, and tiles that lie together in memory: items end where these end */
    int first_item[4];
};

void multiply(const struct kernels *k, const struct weight *w, const uint8_t *tiles, int n_tiles,
              const struct input *in, int row0, int row1, float *y, size_t ldy)
{
    if (w->pack->gemm_int8) w->pack->gemm_int8(k)->run(y, ldy, &in->q, row0, row1, tiles, n_tiles);
    else w->pack->gemm_float(k)->run(y, ldy, in->x, in->ld, row0, row1, tiles, n_tiles, w->k);
}

static void product_item(void *arg, int item, int worker)
{
    (void)worker;
    const struct products *all = arg;
    int which = 0;
    while (item >= all->first_item[which + 1]) which++;
    const struct product *p = &all->p[which];
    const struct weight *w = p->w;
    const int rows = row_items(all->rows), step = all->tile_step[which], unit = all->unit[which], n = tiles_of(w->n);
    const int at = item - all->first_item[which], row0 = at % rows * ITEM_ROWS;
    const int row1 = row0 + ITEM_ROWS < all->rows ? row0 + ITEM_ROWS : all->rows;
    const int steps = (unit + step - 1) / step, unit0 = at / rows / steps * unit, unit1 = unit0 + unit < n ? unit0 + unit : n;
    const int tile0 = unit0 + at / rows % steps * step, tile1 = tile0 + step < unit1 ? tile0 + step : unit1;
    if (tile0 >= tile1) return;                 /* the matrix ends within the unit */
    const uint8_t *tiles = w->tiles ? w->tiles + (size_t)tile0 * w->pack->tile_bytes(w->k) : stream_take(all->stream, w->part, tile0);
    if (!tiles) return;                         /* it could not be read: the pass is void */
    multiply(all->k, w, tiles, tile1 - tile0, p->in, row0, row1, p->y + (size_t)tile0 * TILE_N, p->ldy);
    if (!w->tiles)
        stream_give(all->stream, w->part, tile0, (uint64_t)(tile1 - tile0) * (uint64_t)(row1 - row0),
                    (uint64_t)(unit1 - unit0) * (uint64_t)all->rows);
}

/* Tiles of w in an item: about ITEM_MACS multiply-accumulates, some tens of microseconds, which is worth handing out; but
 * THREAD_ITEMS items for every thread of a small matrix.  Pairs of tiles, since wide kernels take two at a time. */
static int tiles_of_item(const struct weight *w, int rows, int threads)
{
    enum { ITEM_MACS = 4 << 20, THREAD_ITEMS = 4 };
    const int large = (int)(ITEM_MACS / ((int64_t)rows * TILE_N * w->k)), fair = tiles_of(w->n) / (THREAD_ITEMS * threads);
    const int step = (large < fair ? large : fair) & ~1;
    return step < 2 ? 2 : step;
}

void products_run(const struct stages *s, enum stage stage, const struct kernels *k, struct stream *stream,
                  const struct product *p, int n, int rows)
{
    struct products all = { .k = k, .stream = stream, .p = p, .rows = rows };
    bool sought = false;
    for (int i = 0; i < n; i++) {
        all.tile_step[i] = tiles_of_item(p[i].w, rows < ITEM_ROWS ? rows : ITEM_ROWS, pool_threads(s->pool));
        const int tiles = tiles_of(p[i].w->n), unit = all.unit[i] = p[i].w->tiles ? tiles : stream_unit(stream, p[i].w->part);
        all.first_item[i + 1] = all.first_item[i]
                                + row_items(rows) * ((tiles + unit - 1) / unit) * ((unit + all.tile_step[i] - 1) / all.tile_step[i]);
        if (!p[i].w->tiles && !sought) {
            stream_seek(stream, p[i].w->part);
            sought = true;
        }
    }
    stage_run(s, stage, product_item, &all, all.first_item[n]);
}
