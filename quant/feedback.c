/* feedback.c - see feedback.h.  With H = U D U^T the error e of a row costs e H e^T = sum over columns c of D[c] r[c]^2, where
 * r[c] = e[c] + sum over i < c of e[i] U[i][c]; so each weight is rounded to make r small: it aims at w[c] + that sum, and D is
 * what a miss costs.  A block's scales are fitted to what its columns aim at when its first one is due. */
#include "feedback.h"

#include <string.h>

#include "mem.h"

/* e: [FEEDBACK_ROWS][k], errors w - written of the columns that are done; aim: [FEEDBACK_ROWS][block], block rounded up to TILE_N. */
struct room { float *e, *aim; size_t ld; };

static size_t lay(struct room *r, uint8_t *base, const struct quant_format *to, int k)
{
    size_t used = 0;
    r->ld = (size_t)(to->block + TILE_N - 1) / TILE_N * TILE_N;
    r->e = mem_lay(base, &used, FEEDBACK_ROWS * (size_t)k * sizeof(float));
    r->aim = mem_lay(base, &used, FEEDBACK_ROWS * r->ld * sizeof(float));
    return used;
}

size_t feedback_scratch(const struct quant_format *to, int k)
{
    struct room r;
    return lay(&r, NULL, to, k);
}

/* To a tile of columns; its width is known, so that compilers turn the loop into vectors. */
static void pass_on(float *restrict aim, float error, const float *restrict u)
{
    for (int i = 0; i < TILE_N; i++) aim[i] += error * u[i];
}

/* One row of a block at column `first`; its errors become known one by one and move what the columns behind aim at. */
static void round_block(const struct moments *m, const struct quant_format *to, const float *w, float *aim, float *e,
                        int first, uint8_t *dst, double *ee)
{
    const float *d = moments_d(m) + first;
    to->fit_block(dst, aim, d);
    for (int c = 0; c < to->block; c++) {
        const float v = to->put_value(dst, c, aim[c]), miss = aim[c] - v, error = w[c] - v;
        *ee += (double)d[c] * (double)miss * (double)miss;
        e[c] = error;
        int t = (first + c) / TILE_N;
        const float *u = moments_tile(m, t) + (size_t)(first + c) * TILE_N;
        for (int i = first + c + 1 - t * TILE_N; i < TILE_N; i++) aim[t * TILE_N - first + i] += error * u[i];
        while (++t * TILE_N < first + to->block)
            pass_on(aim + t * TILE_N - first, error, moments_tile(m, t) + (size_t)(first + c) * TILE_N);
    }
}

void feedback_rows(const struct moments *m, const struct kernels *kernels, const struct quant_format *to, const float *w, int n, int k,
                   uint8_t *const *dst, void *scratch, double *ee)
{
    struct room room;
    lay(&room, scratch, to, k);
    for (int first = 0; first < k; first += to->block) {
        const size_t at = quant_row_bytes(to, (uint64_t)first);
        if (first == 0) memset(room.aim, 0, FEEDBACK_ROWS * room.ld * sizeof *room.aim);
        for (int t = 0; first > 0 && t * TILE_N < to->block; t++)       /* what the errors so far ask of these columns */
            kernels->gemm_f32->run(room.aim + t * TILE_N, room.ld, room.e, (size_t)k, 0, n, moments_tile(m, first / TILE_N + t), 1, first);
        for (int r = 0; r < n; r++) {
            const float *wr = w + (size_t)r * (size_t)k + first;
            float *aim = room.aim + (size_t)r * room.ld;
            for (int c = 0; c < to->block; c++) aim[c] += wr[c];
            round_block(m, to, wr, aim, room.e + (size_t)r * (size_t)k + first, first, dst[r] + at, ee);
        }
    }
}

double feedback_cost(const struct moments *m, const struct kernels *kernels, const float *e, int n, int k, void *scratch)
{
    const float *d = moments_d(m);
    float *y = scratch;                         /* [n][TILE_N] */
    double sum = 0;
    for (int c = 0; c < k; c += TILE_N) {
        const int rows = k - c < TILE_N ? k : c + TILE_N;
        kernels->gemm_f32->run(y, TILE_N, e, (size_t)k, 0, n, moments_tile(m, c / TILE_N), 1, rows);
        for (int i = 0; i < n * TILE_N; i++) sum += (double)d[c + i % TILE_N] * (double)y[i] * (double)y[i];
    }
    return sum;
}
