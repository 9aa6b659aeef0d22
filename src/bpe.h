/* bpe.h - byte pair encoding: the pair of neighbours with the lowest rank is joined first, then the next, until no
 * neighbours can be joined (Sennrich et al., arXiv:1508.07909).  Works on ids; knows nothing about text. */
#ifndef BPE_H
#define BPE_H

#include "mem.h"

enum { BPE_PAIRS = 1 << 21, BPE_NEVER = -1 };

struct bpe_pair { int32_t left, right, result; };               /* its index is its rank; result BPE_NEVER: never joined */
struct bpe { struct bpe_pair *pairs; size_t n; uint32_t *slots; size_t n_slots; uint64_t seed; };      /* slots: rank + 1, 0 = free */

/* Room for n pairs, at most BPE_PAIRS. */
bool bpe_init(struct bpe *b, size_t n, struct unmask_err *err);
/* The next rank.  A pair that is there already gets the new rank, as in Hugging Face's tokenizers. */
void bpe_add(struct bpe *b, struct bpe_pair pair);
void bpe_free(struct bpe *b);                   /* a zeroed struct is fine */

/* Work space that is kept from call to call; zero-initialise, bpe_work_free() at the end. */
struct bpe_work { uint16_t *span; uint64_t *heap; size_t cap_span, n_heap, cap_heap; };

/* Join ids[0..*n) in place; *n becomes the number that is left.  Every symbol covers at most UINT16_MAX of the ids that
 * were given.  Time n log n, memory about 10 bytes per id. */
bool bpe_merge(const struct bpe *b, struct bpe_work *w, int32_t *ids, size_t *n, struct unmask_err *err);
void bpe_work_free(struct bpe_work *w);

#endif
