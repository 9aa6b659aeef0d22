/* mem.c - see mem.h. */
#define _GNU_SOURCE             /* madvise */
#include "mem.h"

#include <malloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

bool size_mul(size_t a, size_t b, size_t *out)
{
    if (a && b > SIZE_MAX / a) return false;
    *out = a * b;
    return true;
}

bool size_add(size_t a, size_t b, size_t *out)
{
    if (b > SIZE_MAX - a) return false;
    *out = a + b;
    return true;
}

bool u64_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a && b > UINT64_MAX / a) return false;
    *out = a * b;
    return true;
}

bool u64_add(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b > UINT64_MAX - a) return false;
    *out = a + b;
    return true;
}

static void *no_memory(size_t n, size_t size, struct unmask_err *err)
{
    if (n > 1 && size > 1) fail(err, E_MEMORY, .need = FMT("%zu x %zu bytes", n, size));
    else fail(err, E_MEMORY, .need = FMT("%zu bytes", n * size));
    return NULL;
}

void *mem_zalloc(size_t n, size_t size, struct unmask_err *err)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    return p ? p : no_memory(n, size, err);
}

void *mem_resize(void *p, size_t n, size_t size, struct unmask_err *err)
{
    size_t bytes;
    void *q = size_mul(n, size, &bytes) ? realloc(p, bytes ? bytes : 1) : NULL;
    return q ? q : no_memory(n, size, err);
}

static void *aligned_to(size_t least, size_t bytes, struct unmask_err *err)
{
    enum { HUGE_PAGE = 2 << 20 };
    void *p;
    const size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : least;
    if (posix_memalign(&p, align, bytes ? bytes : 1) != 0) return no_memory(1, bytes, err);
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p;
}

void mem_keep_nothing(void)
{
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 128 << 10);       /* where it begins; once set, it no longer grows */
#endif
}

void *mem_aligned(size_t bytes, struct unmask_err *err) { return aligned_to(64, bytes, err); }
void *mem_pages(size_t bytes, struct unmask_err *err) { return aligned_to(4096, bytes, err); }

void *mem_lay(uint8_t *base, size_t *used, size_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += (bytes + 63) & ~(size_t)63;
    return p;
}

char *mem_strndup(const char *s, size_t n, struct unmask_err *err)
{
    char *d = n < SIZE_MAX ? mem_resize(NULL, n + 1, 1, err) : no_memory(1, n, err);
    if (d) {
        memcpy(d, s, n);
        d[n] = 0;
    }
    return d;
}

void mem_free(void *p) { free(p); }

struct arena_block { struct arena_block *next; size_t used, size; _Alignas(16) unsigned char bytes[]; };

void *arena_alloc(struct arena *a, size_t bytes, struct unmask_err *err)
{
    enum { BLOCK = 64 << 10 };
    struct arena_block *b = a->blocks;
    size_t need;
    if (!size_add(bytes, 15, &need)) return no_memory(1, bytes, err);
    need &= ~(size_t)15;
    if (!b || b->size - b->used < need) {
        const size_t size = need > BLOCK ? need : BLOCK;
        size_t total;
        if (!size_add(sizeof *b, size, &total) || !(b = mem_zalloc(1, total, err))) return NULL;
        *b = (struct arena_block){ .next = a->blocks, .size = size };
        a->blocks = b;
    }
    void *p = b->bytes + b->used;
    b->used += need;
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n, struct unmask_err *err)
{
    char *d = n < SIZE_MAX ? arena_alloc(a, n + 1, err) : no_memory(1, n, err);
    if (d && n) memcpy(d, s, n);
    return d;
}

void arena_free(struct arena *a)
{
    for (struct arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    a->blocks = NULL;
}
