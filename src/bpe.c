/* bpe.c - see bpe.h. */
#include "bpe.h"

#include "names.h"
#include "rng.h"

bool bpe_init(struct bpe *b, size_t n, struct unmask_err *err)
{
    size_t n_slots = 16;
    while (n_slots < 2 * n) n_slots *= 2;
    *b = (struct bpe){ .n_slots = n_slots, .seed = names_seed(b) };
    b->pairs = mem_zalloc(n, sizeof *b->pairs, err);
    b->slots = b->pairs ? mem_zalloc(n_slots, sizeof *b->slots, err) : NULL;
    return b->slots != NULL;
}

/* The slot of a pair, or the free slot where it belongs.  Ids come out of a file, which must not choose where they collide. */
static uint32_t *slot_of(const struct bpe *b, int32_t left, int32_t right)
{
    size_t i = (size_t)noise_mix(b->seed ^ ((uint64_t)(uint32_t)left << 32 | (uint32_t)right)) & (b->n_slots - 1);
    for (; b->slots[i]; i = (i + 1) & (b->n_slots - 1)) {
        const struct bpe_pair *p = &b->pairs[b->slots[i] - 1];
        if (p->left == left && p->right == right) break;
    }
    return &b->slots[i];
}

void bpe_add(struct bpe *b, struct bpe_pair pair)
{
    uint32_t *slot = slot_of(b, pair.left, pair.right);
    b->pairs[b->n] = pair;
    *slot = (uint32_t)++b->n;
}

void bpe_free(struct bpe *b)
{
    mem_free(b->pairs);
    mem_free(b->slots);
    *b = (struct bpe){ 0 };
}

/* A binary heap of rank << 32 | position of the left symbol: lowest rank first, then leftmost. */
static bool heap_push(struct bpe_work *w, uint64_t key, struct unmask_err *err)
{
    if (w->n_heap == w->cap_heap) {
        const size_t cap = w->cap_heap + w->cap_heap / 8 + 64;
        uint64_t *heap = mem_resize(w->heap, cap, sizeof *heap, err);
        if (!heap) return false;
        w->heap = heap;
        w->cap_heap = cap;
    }
    size_t i = w->n_heap++;
    for (; i > 0 && w->heap[(i - 1) / 2] > key; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = key;
    return true;
}

static uint64_t heap_pop(struct bpe_work *w)
{
    const uint64_t top = w->heap[0], key = w->heap[--w->n_heap];
    size_t i = 0, child;
    while ((child = 2 * i + 1) < w->n_heap) {
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= key) break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = key;
    return top;
}

/* Queue the symbols at `at` and `next` if they can be joined. */
static bool queue(const struct bpe *b, struct bpe_work *w, const int32_t *ids, size_t at, size_t next, struct unmask_err *err)
{
    const uint32_t rank = *slot_of(b, ids[at], ids[next]);
    return !rank || b->pairs[rank - 1].result == BPE_NEVER || heap_push(w, (uint64_t)rank << 32 | at, err);
}

static bool reserve(struct bpe_work *w, size_t n, struct unmask_err *err)
{
    if (n <= w->cap_span) return true;
    uint16_t *span = mem_resize(w->span, n, sizeof *span, err);
    if (span) w->span = span;
    uint64_t *heap = span && n > w->cap_heap ? mem_resize(w->heap, n, sizeof *heap, err) : w->heap;
    if (!heap) return false;
    if (n > w->cap_heap) w->cap_heap = n;
    w->heap = heap;
    w->cap_span = n;
    return true;
}

/* A symbol is known by where it starts: ids[start] >= 0, and its length stands at both its ends, in span[start] and
 * span[start + length - 1], so that both neighbours can be reached.  ids inside a symbol are -1. */
bool bpe_merge(const struct bpe *b, struct bpe_work *w, int32_t *ids, size_t *n, struct unmask_err *err)
{
    if (!reserve(w, *n, err)) return false;
    w->n_heap = 0;
    for (size_t i = 0; i < *n; i++) w->span[i] = 1;
    for (size_t i = 0; i + 1 < *n; i++)
        if (!queue(b, w, ids, i, i + 1, err)) return false;
    while (w->n_heap) {
        const uint64_t key = heap_pop(w);
        const size_t at = (uint32_t)key;
        if (ids[at] < 0) continue;
        const size_t next = at + w->span[at];
        if (next >= *n || *slot_of(b, ids[at], ids[next]) != key >> 32) continue;       /* a neighbour has changed since */
        const size_t end = next + w->span[next];
        ids[at] = b->pairs[(key >> 32) - 1].result;
        ids[next] = -1;
        w->span[at] = w->span[end - 1] = (uint16_t)(end - at);
        if (end < *n && !queue(b, w, ids, at, end, err)) return false;
        const size_t before = at > 0 ? at - w->span[at - 1] : at;
        if (at > 0 && !queue(b, w, ids, before, at, err)) return false;
    }
    size_t left = 0;
    for (size_t i = 0; i < *n; i += w->span[i]) ids[left++] = ids[i];
    *n = left;
    return true;
}

void bpe_work_free(struct bpe_work *w)
{
    mem_free(w->span);
    mem_free(w->heap);
    *w = (struct bpe_work){ 0 };
}
