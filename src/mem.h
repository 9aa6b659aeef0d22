/* mem.h - allocation with checked sizes; the only module that calls malloc and free. */
#ifndef MEM_H
#define MEM_H

#include "err.h"

/* False, and *out untouched, when the result does not fit. */
bool size_mul(size_t a, size_t b, size_t *out);
bool size_add(size_t a, size_t b, size_t *out);
bool u64_mul(uint64_t a, uint64_t b, uint64_t *out);
bool u64_add(uint64_t a, uint64_t b, uint64_t *out);

/* n * size zeroed bytes; NULL and E_MEMORY when there is no memory.  n * size == 0 gives a valid pointer. */
void *mem_zalloc(size_t n, size_t size, struct unmask_err *err);
/* Grow or shrink p (may be NULL) to n * size bytes; on failure p stays valid. */
void *mem_resize(void *p, size_t n, size_t size, struct unmask_err *err);
/* Uninitialised bytes on a 64-byte boundary, in huge pages where the system offers them; for weights and work space. */
void *mem_aligned(size_t bytes, struct unmask_err *err);
/* The same on a page boundary, for reads that bypass the system's cache. */
void *mem_pages(size_t bytes, struct unmask_err *err);
/* Take the next `bytes` (rounded up to 64) of a block that is being laid out; with base NULL only *used is counted, so that
 * one function serves to size a block and to divide it. */
void *mem_lay(uint8_t *base, size_t *used, size_t bytes);
char *mem_strndup(const char *s, size_t n, struct unmask_err *err);
void mem_free(void *p);                         /* for all of the above; NULL is fine */

/* From now on large blocks go back to the system whenever they are freed.  For a program that opens and closes many within a budget:
 * the C library would soon keep them, in pieces that fit nothing else. */
void mem_keep_nothing(void);

/* A growing pool of small objects that are freed together.  Zero-initialise; arena_free() at the end. */
struct arena { struct arena_block *blocks; };
void *arena_alloc(struct arena *a, size_t bytes, struct unmask_err *err);       /* zeroed, 16-byte aligned */
char *arena_strndup(struct arena *a, const char *s, size_t n, struct unmask_err *err);
void arena_free(struct arena *a);

#endif
