/* pool.c - see pool.h.
 * Workers wait for a job with a short spin, then on a condition: a pass of a small model has hundreds of jobs of a few
 * microseconds, which a sleeping thread would miss, and an idle program must not burn a core. */
#define _GNU_SOURCE             /* gettid, pthread_getattr_np */
#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <unistd.h>

#include "limits.h"
#include "mem.h"
#include "timing.h"

enum { MAX_THREADS = 256, STACK = 256 << 10, SPIN = 2000 };

/* The items still to hand out, and the number of the job they belong to, in one word: a thread that comes late can
 * neither take an item of a finished job nor mistake one job for the next.  An item that was taken keeps its job's fn and
 * arg in place, since the job is not done before it. */
typedef uint64_t ticket;
static inline uint32_t ticket_left(ticket t) { return (uint32_t)t; }
static inline ticket ticket_new(ticket t, uint32_t n_items) { return ((t >> 32) + 1) << 32 | n_items; }

struct pool {
    int n_workers;              /* threads besides the caller */
    pthread_t thread[MAX_THREADS];
    void (*fn)(void *arg, int item, int worker);
    void *arg;
    int n_items;
    double *waiting;            /* seconds; NULL: not measured */
    _Alignas(64) _Atomic ticket hand_out;
    _Alignas(64) atomic_int unfinished;         /* items of this job that are not done */
    _Alignas(64) atomic_int sleeping;           /* workers in pthread_cond_wait        */
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    pid_t process;              /* a child that was forked has the memory, but not the threads */
};

struct start { struct pool *pool; int worker; };

static inline void relax(void)
{
#if defined __x86_64__
    __builtin_ia32_pause();
#elif defined __aarch64__
    __asm__ volatile("yield");
#endif
}

static void take_items(struct pool *p, int worker)
{
    for (ticket t = atomic_load(&p->hand_out); ticket_left(t) > 0; ) {
        if (!atomic_compare_exchange_weak(&p->hand_out, &t, t - 1)) continue;
        p->fn(p->arg, p->n_items - (int)ticket_left(t), worker);
        if (atomic_fetch_sub(&p->unfinished, 1) == 1) {
            pthread_mutex_lock(&p->lock);
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
        t = atomic_load(&p->hand_out);
    }
}

static bool idle(struct pool *p) { return ticket_left(atomic_load(&p->hand_out)) == 0 && !atomic_load(&p->stop); }

static void wait_for_items(struct pool *p)
{
    for (int i = 0; i < SPIN; i++) {
        if (!idle(p)) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleeping, 1);
    while (idle(p)) pthread_cond_wait(&p->wake, &p->lock);
    atomic_fetch_sub(&p->sleeping, 1);
    pthread_mutex_unlock(&p->lock);
}

static void *work(void *arg)
{
    struct pool *p = ((struct start *)arg)->pool;
    const int worker = ((struct start *)arg)->worker;
    mem_free(arg);
    while (!atomic_load(&p->stop)) {
        take_items(p, worker);
        wait_for_items(p);
    }
    return NULL;
}

static void wake_sleepers(struct pool *p)
{
    if (!atomic_load(&p->sleeping)) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
}

static void wait_for_others(struct pool *p)
{
    for (int i = 0; i < SPIN; i++) {
        if (atomic_load(&p->unfinished) == 0) return;
        relax();
    }
    pthread_mutex_lock(&p->lock);
    while (atomic_load(&p->unfinished)) pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

void pool_run(struct pool *p, void (*fn)(void *arg, int item, int worker), void *arg, int n_items)
{
    if (n_items <= 1 || p->n_workers == 0) {
        for (int i = 0; i < n_items; i++) fn(arg, i, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_items = n_items;
    atomic_store(&p->unfinished, n_items);
    atomic_store(&p->hand_out, ticket_new(atomic_load(&p->hand_out), (uint32_t)n_items));
    wake_sleepers(p);
    take_items(p, 0);
    const double start = p->waiting ? timing_now() : 0;
    wait_for_others(p);
    if (p->waiting) *p->waiting += timing_now() - start;
}

void pool_count_waiting(struct pool *p, double *seconds) { p->waiting = seconds; }

int pool_size(int n_threads)
{
    const int n = n_threads > 0 ? n_threads : limits_cores();
    return n < MAX_THREADS ? n : MAX_THREADS;
}

/* The stack of a thread that the caller made has a size of its own; 0: that of the process's first one, or not known. */
static size_t own_stack(void)
{
    size_t bytes = 0;
#ifdef __linux__
    pthread_attr_t attr;
    if (gettid() == getpid() || pthread_getattr_np(pthread_self(), &attr) != 0) return 0;
    if (pthread_attr_getstacksize(&attr, &bytes) != 0) bytes = 0;
    pthread_attr_destroy(&attr);
#endif
    return bytes;
}

/* The caller's thread works too: matrix products and attention keep up to 160 KiB on its stack. */
static bool stack_suffices(struct unmask_err *err)
{
    enum { LEAST = 240 << 10 };                 /* of 256 KiB some may be a guard */
    struct rlimit limit;
    const size_t own = own_stack();
    const rlim_t bytes = own ? own : getrlimit(RLIMIT_STACK, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
    if (bytes == RLIM_INFINITY || bytes >= LEAST) return true;
    return fail(err, E_RUN_STACK, .found = FMT("%llu KiB", (unsigned long long)bytes >> 10), .need = "256 KiB",
                .hint = "`ulimit -s 8192` is usual; a thread has what its attributes say");
}

bool pool_open(struct pool **out, int n_threads, struct unmask_err *err)
{
    if (!stack_suffices(err)) return false;
    struct pool *p = mem_aligned(sizeof *p, err);
    if (!p) return false;
    *p = (struct pool){ .process = getpid() };
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    n_threads = pool_size(n_threads);
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    for (int i = 1; i < n_threads; i++) {
        struct start *s = mem_zalloc(1, sizeof *s, NULL);
        if (!s) break;
        *s = (struct start){ p, i };
        if (pthread_create(&p->thread[p->n_workers], &attr, work, s) != 0) {
            mem_free(s);
            break;
        }
        p->n_workers++;
    }
    pthread_attr_destroy(&attr);
    *out = p;
    return true;
}

static void end_workers(struct pool *p)
{
    atomic_store(&p->stop, true);
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_workers; i++) pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->lock);
}

void pool_close(struct pool *p)
{
    if (p && p->process == getpid()) end_workers(p);
    mem_free(p);
}

int pool_threads(const struct pool *p) { return p->n_workers + 1; }
