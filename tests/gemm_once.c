/* gemm_once.c - one matrix product, a given number of times: for counting the instructions that a kernel executes.
 *     gemm_once SET q4|q4k|q6k|q8 ROWS K TILES TIMES */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pack.h"

int main(int argc, char **argv)
{
    if (argc != 7) return fprintf(stderr, "usage: gemm_once SET q4|q4k|q6k|q8 ROWS K TILES TIMES\n"), 2;
    const int rows = (int)strtol(argv[3], NULL, 10), k = (int)strtol(argv[4], NULL, 10), n_tiles = (int)strtol(argv[5], NULL, 10);
    const struct pack_format *pack = pack_formats;
    while (pack->format && (!pack->gemm_int8 || strcmp(pack->kernel + strlen("gemm_"), argv[2]) != 0)) pack++;
    if (!pack->format) return fprintf(stderr, "gemm_once: no such product: %s\n", argv[2]), 2;
    const size_t blocks = (size_t)((rows + ROW_GROUP - 1) / ROW_GROUP * ROW_GROUP) * (size_t)(k / QBLOCK);
    struct kernels kernels;
    struct q8rows x = { calloc(blocks, QBLOCK), calloc(blocks, sizeof(float)),
                        calloc(blocks, sizeof(int32_t)), calloc(blocks, 2 * sizeof(int16_t)), k };
    const void *w = calloc((size_t)n_tiles, pack->tile_bytes(k));
    float *y = calloc((size_t)rows * (size_t)n_tiles * TILE_N, sizeof *y);
    if (!x.q || !x.scale || !x.offset || !x.halves || !w || !y || !kernels_init(&kernels, argv[1])) return 1;
    for (long times = strtol(argv[6], NULL, 10); times > 0; times--)
        pack->gemm_int8(&kernels)->run(y, (size_t)n_tiles * TILE_N, &x, 0, rows, w, n_tiles);
    return 0;
}
