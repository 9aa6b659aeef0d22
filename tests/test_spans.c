/* test_spans.c - passes whose rows go through a part of the layers: they start with what was kept, end where they are told to, and
 * every row that they compute gets the bits that a pass made of whole layers gives. */
#include "testing.h"

#include "forward.h"
#include "reuse.h"
#include "session.h"

enum { N = 40, CUT = 2, EMBD = 256 };           /* CUT: of three layers, where rows start or end */

/* A model; the same without its first layers, whose passes take what enters layer CUT; and where both keep their rows. */
struct fixture {
    struct unmask_model *m, top;
    struct pool *pool;
    struct forward *f, *f_top;
    struct row_store *store[2], *store_top;
};

static void fixture_open(struct fixture *f, const char *kind)
{
    struct unmask_err err;
    *f = (struct fixture){ .m = NULL };
    OK(unmask_open(&f->m, "tests/data/checkpoints/llada-gqa", NULL, &err), err);
    assert_true(f->m->h.n_layer > CUT && f->m->h.n_embd <= EMBD);
    f->top = *f->m;
    f->top.layers += CUT;
    f->top.h.n_layer -= CUT;
    const struct store_kind *k = store_kind_by_name(kind);
    const struct store_layers all = { .n = f->m->h.n_layer, .state = CUT }, above = { .n = f->top.h.n_layer };
    OK(pool_open(&f->pool, 2, &err) && forward_open(&f->f, f->m, N, 2, f->pool, &err)
       && forward_open(&f->f_top, &f->top, N, 1, f->pool, &err), err);
    for (int b = 0; b < 2; b++) OK(row_store_open(&f->store[b], k, &f->m->h, N, all, &err), err);
    OK(row_store_open(&f->store_top, k, &f->m->h, N, above, &err), err);
}

static void fixture_close(struct fixture *x)
{
    for (int b = 0; b < 2; b++) row_store_close(x->store[b]);
    row_store_close(x->store_top);
    forward_close(x->f);
    forward_close(x->f_top);
    pool_close(x->pool);
    unmask_close(x->m);
}

/* Every row in both branches, which hold the same ids and must give the same; out[N][n_embd], and what entered layer CUT. */
static float entered[N * EMBD];
static bool note_entered(void *user, int layer, const float *x)
{
    const struct fixture *f = user;
    if (layer == CUT - 1) memcpy(entered, x, (size_t)(N * f->m->h.n_embd) * sizeof *x);
    return true;
}

static void pass(struct fixture *x, const int32_t *ids, const struct span *span, float *out)
{
    static float both[2 * N * EMBD];
    const size_t n = (size_t)(N * x->m->h.n_embd);
    assert_true(forward_pass(x->f, &(struct pass){ .n_branches = 2, .ids = { ids, ids }, .store = { x->store[0], x->store[1] },
                                                   .n_keys = N, .n_rows = N, .span = span, .x = both, .on_layer = note_entered,
                                                   .user = x }));
    memcpy(out, both, n * sizeof *out);
    for (int r = 0; r < N; r++)
        if (!span || span[r].to == x->m->h.n_layer)
            assert_memory_equal(both + r * x->m->h.n_embd, both + n + (size_t)(r * x->m->h.n_embd), (size_t)x->m->h.n_embd * sizeof *both);
}

/* Listed rows through the upper layers, in place. */
static void pass_top(struct fixture *x, const int *rows, int n, float *in_out)
{
    static const int32_t ids[N];
    assert_true(forward_pass(x->f_top, &(struct pass){ .n_branches = 1, .ids = { ids }, .store = { x->store_top },
                                                       .n_keys = N, .rows = rows, .n_rows = n, .x = in_out, .resume = true }));
}

static void fill(int32_t *ids)
{
    for (int i = 0; i < N; i++) ids[i] = (i * 31) % 480;
}

static const char *const kinds[] = { "kv_f32", "kv_f16", "kv_i8", "kv_i4", "hidden" };

/* Rows that start at CUT give what a whole pass gives whose state there is rounded as the store rounds it, and so do the
 * rows beside them that started at the first layer. */
static void rows_restart_from_what_was_kept(void **state)
{
    (void)state;
    static float out[N * EMBD], want[N * EMBD];
    int32_t ids[N];
    int all[N];
    struct span span[N];
    struct unmask_err err;
    fill(ids);
    for (size_t kind = 0; kind < ARRAY_LEN(kinds); kind++)
        for (int every = 1; every <= 3; every++) {
            struct fixture x;
            fixture_open(&x, kinds[kind]);
            const int d = x.m->h.n_embd;
            struct row_store *rounding;
            OK(row_store_open(&rounding, &store_hidden, &x.m->h, N, (struct store_layers){ .n = 0 }, &err), err);
            pass(&x, ids, NULL, out);
            memcpy(want, entered, sizeof want);
            for (int i = 0; i < N; i++) {
                all[i] = i;
                span[i] = (struct span){ i % every ? 0 : CUT, x.m->h.n_layer };
                if (i % every) continue;
                row_store_put_row(rounding, 0, i, want + i * d);
                row_store_get_row(rounding, 0, i, want + i * d);
            }
            pass_top(&x, all, N, want);
            assert_true(memcmp(out, want, (size_t)(N * d) * sizeof *out) != 0);     /* rounding is seen */
            pass(&x, ids, span, out);
            assert_memory_equal(out, want, (size_t)(N * d) * sizeof *out);
            row_store_close(rounding);
            fixture_close(&x);
        }
}

/* Rows that end at CUT are as if the upper layers had not been told of the change: their older keys and values are attended. */
static void rows_end_and_leave_older_keys(void **state)
{
    (void)state;
    static float out[N * EMBD], want[N * EMBD], whole[N * EMBD];
    int32_t ids[N];
    int all[N], rest[N], n_rest = 0;
    struct span span[N];
    for (size_t kind = 0; kind < ARRAY_LEN(kinds); kind++, n_rest = 0) {
        struct fixture x;
        fixture_open(&x, kinds[kind]);
        const int d = x.m->h.n_embd;
        fill(ids);
        for (int i = 0; i < N; i++) {
            all[i] = i;
            span[i] = (struct span){ 0, i % 3 ? x.m->h.n_layer : CUT };
        }
        pass(&x, ids, NULL, out);
        memcpy(want, entered, sizeof want);
        pass_top(&x, all, N, want);
        assert_memory_equal(out, want, (size_t)(N * d) * sizeof *out);
        for (int i = 0; i < N; i += 5) ids[i] = (ids[i] + 7) % 480;
        pass(&x, ids, span, out);
        for (int i = 0; i < N; i++)
            if (i % 3) {
                memcpy(want + n_rest * d, entered + i * d, (size_t)d * sizeof *want);
                rest[n_rest++] = i;
            }
        pass_top(&x, rest, n_rest, want);
        pass(&x, ids, NULL, whole);
        bool differs = false;
        for (int i = 0; i < n_rest; i++) {
            assert_memory_equal(out + rest[i] * d, want + i * d, (size_t)d * sizeof *out);
            differs |= memcmp(out + rest[i] * d, whole + rest[i] * d, (size_t)d * sizeof *out) != 0;
        }
        assert_true(differs);
        fixture_close(&x);
    }
}

/* Of the rows of a pass one is too large for a norm: its position and the number are told, whichever branch it is in. */
static void a_row_that_is_too_large_is_named(void **state)
{
    (void)state;
    static const int rows[] = { 3, 17, 29 };
    enum { ROWS = 3, LARGE = 5 };
    static float rows_of_both[2 * ROWS * EMBD];
    static const int32_t ids[N];
    for (int bad = 0; bad < 2 * ROWS; bad++) {
        struct unmask_err err;
        struct fixture x;
        fixture_open(&x, "kv_f32");
        const int d = x.m->h.n_embd;
        char position[32];
        memset(rows_of_both, 0, sizeof rows_of_both);
        rows_of_both[bad * d + LARGE] = 0x1p60f;
        assert_false(forward_pass(x.f, &(struct pass){ .n_branches = 2, .ids = { ids, ids }, .store = { x.store[0], x.store[1] },
                                                       .n_keys = N, .rows = rows, .n_rows = ROWS, .x = rows_of_both, .resume = true }));
        assert_true(forward_failed(x.f, &err));
        snprintf(position, sizeof position, "position %d", rows[bad % ROWS]);
        expect_err(&err, "E-ARCH-010", position, "1.15292e+18 after the last layer", NULL);
        fixture_close(&x);
    }
}

/* What enters a layer of the LLaDA-8B shape takes 4 KiB a position and its scales, and nothing in a store that keeps rows anyway. */
static void a_state_is_small(void **state)
{
    (void)state;
    const struct hparams h = { .n_layer = 32, .n_head = 32, .n_head_kv = 32, .head_dim = 128, .n_embd = 4096 };
    const struct store_layers plain = { .n = 32 }, kept = { .n = 32, .state = 16 };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        const struct store_kind *k = store_kind_by_name(kinds[i]);
        const size_t none = row_store_bytes(k, &h, 512, plain), state_bytes = strcmp(kinds[i], "hidden") ? 512 * (4096 + 32 * 4) : 0;
        assert_int_equal(row_store_bytes(k, &h, 512, kept) - none, state_bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_restart_from_what_was_kept), cmocka_unit_test(rows_end_and_leave_older_keys),
        cmocka_unit_test(a_row_that_is_too_large_is_named), cmocka_unit_test(a_state_is_small),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
