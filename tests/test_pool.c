/* test_pool.c - every item runs exactly once, whatever the number of threads and jobs. */
#include "testing.h"

#include <stdatomic.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_item_runs_once), cmocka_unit_test(open_and_close_at_once) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
