/* Statistics of rows of logits: against plain sums in float64, by parts and whole, and as the fused head gives them. */
#include "testing.h"

#include <math.h>

#include "logits.h"
#include "mem.h"
#include "session.h"

enum { MOST = 1700 };
static struct kernels k;
static uint32_t state = 1;
static float draw(void) { return (float)((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-24f * 30 - 15; }

/* The same by definition. */
struct plain { int32_t best; double max, second, sum, entropy; };
static struct plain plain(const float *l, int n, const struct logit_apart *apart, const bool *chosen, const bool *counted)
{
    struct plain p = { -1, -INFINITY, -INFINITY, 0, 0 };
    double top = -INFINITY, moment = 0;
    for (int pass = 0; pass < 2; pass++)
        for (int i = 0; i < n; i++) {
            bool choose = true, count = true;
            for (int a = 0; a < apart->n; a++)
                if (apart->token[a] == i) {
                    choose = chosen[a];
                    count = counted[a];
                }
            if (pass == 0 && count && (double)l[i] > top) top = (double)l[i];
            if (pass == 1 && count) {
                p.sum += exp((double)l[i] - top);
                moment += exp((double)l[i] - top) * ((double)l[i] - top);
            }
            if (pass == 0 || !choose) continue;
            if ((double)l[i] > p.max) {
                p.second = p.max;
                p.max = (double)l[i];
                p.best = i;
            } else if ((double)l[i] > p.second) p.second = (double)l[i];
        }
    p.entropy = log(p.sum) - moment / p.sum;
    return p;
}

static void rows_agree_with_plain_sums(void **unused)
{
    (void)unused;
    static const int lengths[] = { 1, 2, 15, 16, 17, 511, 512, 513, 1024, 1300, MOST };
    for (size_t at = 0; at < ARRAY_LEN(lengths); at++)
        for (int round = 0; round < 24; round++) {
            const int n = lengths[at];
            float l[MOST], before[MOST];
            for (int i = 0; i < n; i++) before[i] = l[i] = draw();
            if (round % 3 == 1) before[n / 2] = l[n / 2] = l[n - 1];    /* often two that share the largest */
            if (round % 3 == 1) before[0] = l[0] = before[n - 1] = l[n - 1] = 20;
            const struct logit_apart apart = { { 0, n / 2, n - 1 }, n > 2 ? round % 4 : 0 };
            const bool chosen[] = { round & 1, round & 2, round & 4 }, counted[] = { true, round & 2, round & 8 };
            struct logit_apart_values values;
            struct logit_stats s;
            logit_row(&k, l, n, &apart, &values, &s);
            assert_memory_equal(l, before, (size_t)n * sizeof *l);
            for (int a = 0; a < apart.n; a++) {
                assert_true(values.l[a] == l[apart.token[a]]);
                if (chosen[a]) logit_choose(&s, apart.token[a], values.l[a]);
                if (counted[a]) logit_count(&s, values.l[a]);
            }
            const struct plain p = plain(l, n, &apart, chosen, counted);
            assert_int_equal(s.best, p.best);
            assert_true((double)s.max == p.max && (double)s.second == p.second);
            assert_true(fabs((double)s.sum - p.sum) < 1e-4 * p.sum);
            assert_true(fabs((double)logit_entropy(&s) - p.entropy) < 1e-3);
        }
}

static void damaged_rows_show(void **unused)
{
    (void)unused;
    const struct logit_apart none = { .n = 0 };
    struct logit_apart_values values;
    struct logit_stats s;
    float l[600];
    for (int i = 0; i < 600; i++) l[i] = -INFINITY;
    logit_row(&k, l, 600, &none, &values, &s);
    assert_true(s.best == -1 && s.sum == 0);
    l[3] = 1;                                   /* one token, the other part empty */
    logit_row(&k, l, 600, &none, &values, &s);
    assert_true(s.best == 3 && s.sum == 1 && s.moment == 0 && isinf(s.second));
    l[599] = NAN;
    logit_row(&k, l, 600, &none, &values, &s);
    assert_true(isnan(s.sum));
    l[599] = INFINITY;
    logit_row(&k, l, 600, &none, &values, &s);
    assert_true(isnan(s.sum));
}

/* The head that keeps no logit gives the bits of rows that are kept. */
static void fused_head_is_the_same(void **unused)
{
    (void)unused;
    static const char *const models[] = { "models/unmask-demo-6M-v1.0-Q8_0.gguf", "tests/data/checkpoints/llada-tiny",
                                          "tests/data/checkpoints/llada-tied" };
    for (size_t m = 0; m < ARRAY_LEN(models); m++)
        for (int threads = 1; threads <= 3; threads += 2) {
            struct unmask_model *model;
            struct unmask_session *session;
            struct unmask_err err;
            enum { N = 40 };
            int32_t ids[N];
            int rows[LOGIT_ROWS];
            OK(unmask_open(&model, models[m], NULL, &err), err);
            OK(unmask_session_open(&session, model, threads, &err), err);
            OK(session_room(session, &(struct session_need){ .n_tokens = N, .n_branches = 1 }, &err), err);
            const size_t ld = logits_stride(model);
            float *x = mem_aligned((size_t)N * (size_t)model->h.n_embd * sizeof *x, &err);
            float *l = mem_aligned(LOGIT_ROWS * ld * sizeof *l, &err);
            const struct logit_apart apart = { { model->h.mask_id, 7 }, 2 };
            struct logit_apart_values whole, values[LOGIT_ROWS];
            struct logit_stats row, stats[LOGIT_ROWS];
            for (int i = 0; i < N; i++) ids[i] = i % 3 ? model->h.mask_id : i;
            for (int i = 0; i < LOGIT_ROWS; i++) rows[i] = i + 3;
            forward_pass(session->f, &(struct pass){ .n_branches = 1, .ids = { ids }, .store = { session->store[0] },
                                                     .n_keys = N, .n_rows = N, .x = x });
            for (int n = 1; n <= LOGIT_ROWS; n += 31) {
                forward_logits(session->f, x, rows, n, l, ld);
                forward_head(session->f, x, rows, n, &apart, values, stats);
                for (int r = 0; r < n; r++) {
                    logit_row(&model->kernels, l + (size_t)r * ld, model->h.n_vocab, &apart, &whole, &row);
                    assert_memory_equal(&row, &stats[r], sizeof row);
                    assert_memory_equal(&whole, &values[r], 2 * sizeof(float));
                }
            }
            mem_free(l);
            mem_free(x);
            unmask_session_close(session);
            unmask_close(model);
        }
}

static bool take_row(void *user, int position, const float *row)
{
    (void)user, (void)position, (void)row;
    return true;
}

/* Numbers that are not finite are an error of the model, not an answer, nor a likelihood. */
static void damaged_weights_are_an_error(void **unused)
{
    (void)unused;
    struct unmask_model *model;
    struct unmask_session *session;
    struct unmask_options o;
    struct unmask_result r;
    struct unmask_err err;
    double nats;
    const int32_t ids[] = { 5, 6, 7, 8, 9, 10, 11, 12 };
    OK(unmask_open(&model, "tests/data/checkpoints/llada-tiny", NULL, &err), err);
    OK(unmask_session_open(&session, model, 2, &err), err);
    const size_t at = (size_t)((const uint8_t *)model->out_norm - model->memory);
    const float nan = NAN;
    memcpy(model->memory + at, &nan, sizeof nan);
    unmask_options_default(model, &o);
    o.gen_length = o.block_length = 8;
    for (int noisy = 0; noisy < 2; noisy++) {
        o.temperature = (float)noisy;
        assert_false(unmask_generate(session, ids, 4, &o, NULL, NULL, &r, &err));
        expect_err(&err, "E-ARCH-010", "finite", "fetch the file again", NULL);
        assert_null(r.canvas);
    }
    assert_false(unmask_likelihood(session, ids, 4, ids + 4, 4, 2, 0, 0, &nats, &err));
    expect_err(&err, "E-ARCH-010", "finite", NULL);
    assert_false(unmask_forward(session, ids, 4, NULL, &(struct unmask_taps){ .logits = take_row }, &err));
    expect_err(&err, "E-ARCH-010", "finite numbers", NULL);
    memset(model->memory + at, 0, sizeof nan);
    OK(unmask_forward(session, ids, 4, NULL, &(struct unmask_taps){ .logits = take_row }, &err), err);
    float *row = (float *)(void *)(model->memory + (size_t)(model->embed_rows - model->memory) + 6 * model_embed_scratch(model));
    for (int i = 0; i < model->h.n_embd; i++) {                 /* wherever in the row, which is summed several numbers at a time */
        const float was = row[i];
        row[i] = i % 2 ? NAN : INFINITY;
        OK(unmask_forward(session, ids, 1, NULL, &(struct unmask_taps){ .logits = take_row }, &err), err);
        assert_false(unmask_forward(session, ids, 2, NULL, &(struct unmask_taps){ .logits = take_row }, &err));
        expect_err(&err, "E-ARCH-007", "embedding of token 6", NULL);
        row[i] = was;
    }
    OK(unmask_forward(session, ids, 1, NULL, &(struct unmask_taps){ .logits = take_row }, &err), err);
    unmask_session_close(session);
    unmask_close(model);
}

int main(void)
{
    if (!kernels_init(&k, "auto")) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_agree_with_plain_sums), cmocka_unit_test(damaged_rows_show), cmocka_unit_test(fused_head_is_the_same),
        cmocka_unit_test(damaged_weights_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
