/* rng.c - see rng.h. */
#include "rng.h"

#include <stdlib.h>

static int by_key(const void *a, const void *b)
{
    const struct noise_rank *x = a, *y = b;
    return x->key != y->key ? (x->key > y->key) - (x->key < y->key) : (x->index > y->index) - (x->index < y->index);
}

void noise_shuffle(struct noise_rank *order, size_t n, uint64_t seed, enum noise_stream stream, uint64_t step, uint64_t row)
{
    for (size_t i = 0; i < n; i++) order[i] = (struct noise_rank){ noise_bits(noise_prefix(seed, stream, step, row, i), 0), i };
    qsort(order, n, sizeof *order, by_key);
}
