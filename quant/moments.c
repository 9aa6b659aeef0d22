/* moments.c - see moments.h.  Everything that takes time is a product of the float kernels, whose order of sums is fixed.
 *
 * The factor goes from the last tile of columns to the first (Cholesky, reversed; as LDLQ of QuIP, arXiv:2307.13304, which equals
 * GPTQ, arXiv:2210.17323, without inverting H): the tile's own square, then the rows above it, then what they take from the
 * columns before.  Damping bounds every pivot from below; rounding may not, so the bound is kept. */
#include "moments.h"

#include <math.h>
#include <string.h>

#include "mem.h"

enum { ITEM_ROWS = 512 };       /* rows of a tile in one item: its results stay in the cache */

struct moments {
    int k, n_tiles;             /* tiles of TILE_N columns */
    uint64_t rows;
    float *h;                   /* tiles after each other (moments_tile) */
    float *d;                   /* [n_tiles * TILE_N] */
};

/* The work of one call. */
struct work {
    struct moments *m;
    const struct kernels *kernels;
    const float *x; size_t ld; int n;           /* adding: the inputs */
    float *rows, *tiles;        /* [n_tiles*TILE_N][n] and [n_tiles][n][TILE_N]: the same numbers, as a product takes its two sides */
    float *scratch;             /* [workers][ITEM_ROWS][TILE_N] */
    int tile;                   /* factoring: where it is */
    const float *square;        /* its own square, factored: [TILE_N][TILE_N] */
    float sign;                 /* of what a product adds to H */
};

static size_t tile_at(int t) { return (size_t)TILE_N * TILE_N * (size_t)t * (size_t)(t + 1) / 2; }
static size_t tile_floats(int n_tiles) { return tile_at(n_tiles); }

const float *moments_tile(const struct moments *m, int tile) { return m->h + tile_at(tile); }
const float *moments_d(const struct moments *m) { return m->d; }

bool moments_open(struct moments **out, int k, struct unmask_err *err)
{
    struct moments *m = *out = mem_zalloc(1, sizeof *m, err);
    if (!m) return false;
    m->k = k;
    m->n_tiles = (k + TILE_N - 1) / TILE_N;
    const size_t bytes = tile_floats(m->n_tiles) * sizeof *m->h;
    if (!(m->h = mem_aligned(bytes, err)) || !(m->d = mem_zalloc((size_t)m->n_tiles * TILE_N, sizeof *m->d, err))) return false;
    memset(m->h, 0, bytes);
    return true;
}

void moments_close(struct moments *m)
{
    if (!m) return;
    mem_free(m->h);
    mem_free(m->d);
    mem_free(m);
}

static size_t work_floats(const struct moments *m, int n, int workers)
{
    return 2 * (size_t)m->n_tiles * TILE_N * (size_t)n + (size_t)workers * ITEM_ROWS * TILE_N;
}

uint64_t moments_bytes(int k, int workers)
{
    const struct moments m = { .n_tiles = (k + TILE_N - 1) / TILE_N };
    return (tile_floats(m.n_tiles) + work_floats(&m, MOMENT_ROWS, workers)) * sizeof(float);
}

static bool start(struct work *w, struct pool *pool, struct unmask_err *err)
{
    const size_t side = (size_t)w->m->n_tiles * TILE_N * (size_t)w->n;
    if (!(w->rows = mem_aligned(work_floats(w->m, w->n, pool_threads(pool)) * sizeof(float), err))) return false;
    w->tiles = w->rows + side;
    w->scratch = w->tiles + side;
    return true;
}

/* ---- h += sign * rows x tiles, the upper triangle of the first `tiles` tiles ---- */

/* Items of a tile: ITEM_ROWS rows each; tiles before it have that many. */
static int items_of(int tile) { return (TILE_N * (tile + 1) + ITEM_ROWS - 1) / ITEM_ROWS; }

/* Rows of a tile; their width is known, so that compilers turn the loop into vectors. */
static void add_rows(float *restrict h, float sign, const float *restrict y, int n)
{
    for (int r = 0; r < n; r++)
        for (int c = 0; c < TILE_N; c++) h[r * TILE_N + c] += sign * y[r * TILE_N + c];
}

static void product_item(void *arg, int item, int worker)
{
    const struct work *w = arg;
    int t = 0;
    while (item >= items_of(t)) item -= items_of(t++);
    float *y = w->scratch + (size_t)worker * ITEM_ROWS * TILE_N, *h = w->m->h + tile_at(t);
    const int first = item * ITEM_ROWS, end = TILE_N * (t + 1) < first + ITEM_ROWS ? TILE_N * (t + 1) : first + ITEM_ROWS;
    w->kernels->gemm_f32->run(y, TILE_N, w->rows + (size_t)first * (size_t)w->n, (size_t)w->n, 0, end - first,
                              w->tiles + (size_t)t * (size_t)w->n * TILE_N, 1, w->n);
    add_rows(h + (size_t)first * TILE_N, w->sign, y, end - first);
}

static void add_product(struct work *w, struct pool *pool, int tiles)
{
    int items = 0;
    for (int t = 0; t < tiles; t++) items += items_of(t);
    pool_run(pool, product_item, w, items);
}

/* ---- adding ---- */

static void lay_item(void *arg, int t, int worker)
{
    (void)worker;
    const struct work *w = arg;
    float *tile = w->tiles + (size_t)t * (size_t)w->n * TILE_N, *rows = w->rows + (size_t)t * TILE_N * (size_t)w->n;
    for (int i = 0; i < w->n; i++)
        for (int c = 0; c < TILE_N; c++) {
            const int column = t * TILE_N + c;
            const float v = column < w->m->k ? w->x[(size_t)i * w->ld + (size_t)column] : 0;
            tile[i * TILE_N + c] = v;
            rows[c * w->n + i] = v;
        }
}

bool moments_add(struct moments *m, const struct kernels *kernels, struct pool *pool, const float *x, size_t ld, int n,
                 struct unmask_err *err)
{
    struct work w = { .m = m, .kernels = kernels, .x = x, .ld = ld, .n = n, .sign = 1 };
    if (!start(&w, pool, err)) return false;
    pool_run(pool, lay_item, &w, m->n_tiles);
    add_product(&w, pool, m->n_tiles);
    m->rows += (uint64_t)n;
    mem_free(w.rows);
    return true;
}

static float *diagonal(const struct moments *m, int i)
{
    const int t = i / TILE_N;
    return m->h + tile_at(t) + (size_t)i * TILE_N + i % TILE_N;
}

void moments_squares(const struct moments *m, float *out)
{
    for (int i = 0; i < m->k; i++) out[i] = m->rows ? *diagonal(m, i) / (float)m->rows : 0;
}

/* ---- factoring: below, C = U D^(1/2) ---- */

/* The square of a tile = C C^T, C upper triangular; pivots are at least `least`. */
static void factor_square(float *a, double least)
{
    double c[TILE_N][TILE_N];
    for (int j = TILE_N - 1; j >= 0; j--) {
        double pivot = (double)a[j * TILE_N + j];
        for (int m = j + 1; m < TILE_N; m++) pivot -= c[j][m] * c[j][m];
        c[j][j] = sqrt(pivot > least ? pivot : least);
        for (int i = 0; i < j; i++) {
            double v = (double)a[i * TILE_N + j];
            for (int m = j + 1; m < TILE_N; m++) v -= c[i][m] * c[j][m];
            c[i][j] = v / c[j][j];
        }
    }
    for (int i = 0; i < TILE_N; i++)
        for (int j = 0; j < TILE_N; j++) a[i * TILE_N + j] = j < i ? 0 : (float)c[i][j];
}

/* Rows of one tile's height above the square: theirs times C^T is what H holds; laid out as both sides of the product that
 * follows, and H gets U. */
static void solve_item(void *arg, int above, int worker)
{
    (void)worker;
    const struct work *w = arg;
    const float *c = w->square;
    float *h = w->m->h + tile_at(w->tile) + (size_t)above * TILE_N * TILE_N, *rows = w->rows + (size_t)above * TILE_N * TILE_N;
    float *tile = w->tiles + (size_t)above * TILE_N * TILE_N;
    for (int r = 0; r < TILE_N; r++) {
        float *x = rows + r * TILE_N;
        for (int j = TILE_N - 1; j >= 0; j--) {
            float v = h[r * TILE_N + j];
            for (int m = TILE_N - 1; m > j; m--) v -= x[m] * c[j * TILE_N + m];
            x[j] = v / c[j * TILE_N + j];
        }
        for (int j = 0; j < TILE_N; j++) {
            tile[j * TILE_N + r] = x[j];
            h[r * TILE_N + j] = x[j] / c[j * TILE_N + j];
        }
    }
}

bool moments_factor(struct moments *m, const struct kernels *kernels, struct pool *pool, double damping, struct unmask_err *err)
{
    struct work w = { .m = m, .kernels = kernels, .n = TILE_N, .sign = -1 };
    double sum = 0;
    for (int i = 0; i < m->k; i++) sum += (double)*diagonal(m, i);
    const double least = sum > 0 ? damping * sum / m->k : 1;    /* inputs that are always 0: nothing costs anything */
    if (!start(&w, pool, err)) return false;
    for (int i = 0; i < m->n_tiles * TILE_N; i++) *diagonal(m, i) += (float)least;
    for (w.tile = m->n_tiles - 1; w.tile >= 0; w.tile--) {
        float *square = m->h + tile_at(w.tile) + (size_t)w.tile * TILE_N * TILE_N;
        factor_square(square, least);
        w.square = square;
        pool_run(pool, solve_item, &w, w.tile);
        add_product(&w, pool, w.tile);
        for (int j = 0; j < TILE_N; j++) {
            const float c = square[j * TILE_N + j];
            m->d[w.tile * TILE_N + j] = c * c / (float)(m->rows ? m->rows : 1);
            for (int i = 0; i <= j; i++) square[i * TILE_N + j] /= c;
        }
    }
    mem_free(w.rows);
    return true;
}
