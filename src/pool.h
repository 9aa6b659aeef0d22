/* pool.h - worker threads that share out numbered work items.
 * Items are handed out one by one as threads become free, so a busy core does not hold up the others.
 * An item may be computed by any thread: its result must not depend on which. */
#ifndef POOL_H
#define POOL_H

#include "err.h"

struct pool;

/* pool_size(n_threads) in all, the caller of pool_run() included.
 * When the system refuses a thread the pool has fewer. */
bool pool_open(struct pool **out, int n_threads, struct unmask_err *err);
void pool_close(struct pool *p);                /* NULL is fine */
int pool_threads(const struct pool *p);

/* Call fn(arg, item, worker) for every item in 0..n_items-1; worker is in 0..pool_threads()-1 and names scratch space.
 * Returns when all are done.  Not reentrant. */
void pool_run(struct pool *p, void (*fn)(void *arg, int item, int worker), void *arg, int n_items);

/* From now on add to *seconds what pool_run()'s caller waits for other threads; NULL (the default): do not measure. */
void pool_count_waiting(struct pool *p, double *seconds);

/* Threads of a pool for which n_threads are asked: at most 256; 0 = one per core that we may use (limits.h). */
int pool_size(int n_threads);

#endif
