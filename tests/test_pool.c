/* test_pool.c - every item runs exactly once, whatever the number of threads and jobs. */
#define _GNU_SOURCE             /* setgroups */
#include "testing.h"

#include <grp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "limits.h"
#include "pool.h"

enum { MOST = 1000 };
static atomic_int runs[MOST];
static atomic_int bad_worker;

static void count(void *arg, int item, int worker)
{
    if (worker < 0 || worker >= *(int *)arg) atomic_fetch_add(&bad_worker, 1);
    atomic_fetch_add(&runs[item], 1);
}

static void every_item_runs_once(void **state)
{
    (void)state;
    struct unmask_err err;
    for (int n_threads = 0; n_threads <= 9; n_threads++) {
        struct pool *p;
        OK(pool_open(&p, n_threads, &err), err);
        int n = pool_threads(p);
        if (n_threads) assert_int_equal(n, n_threads);
        for (int job = 0; job < 300; job++) {
            const int n_items = job % 7 == 0 ? MOST : job % 23;
            memset(runs, 0, sizeof runs);
            pool_run(p, count, &n, n_items);
            for (int i = 0; i < MOST; i++) assert_int_equal(atomic_load(&runs[i]), i < n_items);
            /* Let the workers fall asleep in between. */
            if (job % 100 == 99) nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
        }
        pool_close(p);
    }
    assert_int_equal(atomic_load(&bad_worker), 0);
    pool_close(NULL);
    assert_int_equal(pool_size(0), limits_cores());
    assert_int_equal(pool_size(3), 3);
    assert_int_equal(pool_size(1000000), 256);
}

static void open_and_close_at_once(void **state)
{
    (void)state;
    struct unmask_err err;
    for (int i = 0; i < 200; i++) {
        struct pool *p;
        OK(pool_open(&p, 4, &err), err);
        pool_close(p);
    }
    assert_true(limits_cores() >= 1);
}

struct opening { bool ok; struct unmask_err err; };

static void *open_one(void *arg)
{
    struct opening *o = arg;
    struct pool *p;
    if ((o->ok = pool_open(&p, 1, &o->err))) pool_close(p);
    return NULL;
}

/* Whatever the limit of the process: a thread has a stack of its own size, on which it will work. */
static void a_thread_with_a_small_stack_is_refused(void **state)
{
    (void)state;
    for (int kib = 160; kib <= 256; kib += 96) {
        struct opening o;
        pthread_attr_t attr;
        pthread_t thread;
        void *stack;                            /* ours: the system gives larger ones of ended threads again */
        assert_int_equal(posix_memalign(&stack, 1 << 16, (size_t)kib << 10), 0);
        pthread_attr_init(&attr);
        assert_int_equal(pthread_attr_setstack(&attr, stack, (size_t)kib << 10), 0);
        assert_int_equal(pthread_create(&thread, &attr, open_one, &o), 0);
        pthread_attr_destroy(&attr);
        pthread_join(thread, NULL);
        free(stack);
        if (kib == 256) OK(o.ok, o.err);
        else expect_err(&o.err, "E-RUN-005", "KiB, need 256 KiB", "thread", NULL);
        assert_int_equal(o.ok, kib == 256);
    }
}

/* The system lists them where it tells how much memory a process has, in front. */
static void a_user_may_be_in_many_groups(void **state)
{
    (void)state;
    enum { GROUPS = 1000, REFUSED = 9 };
    static gid_t groups[GROUPS];
    int how;
    assert_true(limits_memory_taken() > 0);
    for (int i = 0; i < GROUPS; i++) groups[i] = 1234560000u + (gid_t)i;
    const pid_t child = fork();
    if (child == 0) _exit(setgroups(GROUPS, groups) != 0 ? REFUSED : limits_memory_taken() > 0 ? 0 : 1);
    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFEXITED(how) && WEXITSTATUS(how) == REFUSED) skip();  /* only root may */
    assert_int_equal(how, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_item_runs_once), cmocka_unit_test(open_and_close_at_once),
                                        cmocka_unit_test(a_thread_with_a_small_stack_is_refused),
                                        cmocka_unit_test(a_user_may_be_in_many_groups) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
