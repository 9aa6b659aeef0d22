/* gemm_once.c - one matrix product, a given number of times: for counting the instructions that a kernel executes.
 *     gemm_once SET q4|q8 ROWS K TILES TIMES */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pack.h"

int main(int argc, char **argv)
{
    if (argc != 7) return fprintf(stderr, "usage: gemm_once SET q4|q8 ROWS K TILES TIMES\n"), 2;
    const int rows = (int)strtol(argv[3], NULL, 10), k = (int)strtol(argv[4], NULL, 10), n_tiles = (int)strtol(argv[5], NULL, 10);
    const bool q4 = !strcmp(argv[2], "q4");
    const struct quant_format *format = q4 ? &format_q4_0 : &format_q8_0;
    const size_t blocks = (size_t)((rows + ROW_GROUP - 1) / ROW_GROUP * ROW_GROUP) * (size_t)(k / QBLOCK);
    struct kernels kernels;
    struct q8rows x = { calloc(blocks, QBLOCK), calloc(blocks, sizeof(float)), calloc(blocks, sizeof(int32_t)), k };
    const void *w = calloc((size_t)n_tiles, pack_format_of(format)->tile_bytes(k));
    float *y = calloc((size_t)rows * (size_t)n_tiles * TILE_N, sizeof *y);
    if (!x.q || !x.scale || !x.offset || !w || !y || !kernels_init(&kernels, argv[1])) return 1;
    const struct gemm_int8 *gemm = q4 ? kernels.gemm_q4 : kernels.gemm_q8;
    for (long times = strtol(argv[6], NULL, 10); times > 0; times--)
        gemm->run(y, (size_t)n_tiles * TILE_N, &x, 0, rows, w, n_tiles);
    return 0;
}
