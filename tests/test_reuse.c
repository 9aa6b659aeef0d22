/* test_reuse.c - row plans: what each method computes, and that a plan which refreshes everything is the full recomputation. */
#include "testing.h"

#include <math.h>

#include "audit.h"
#include "model.h"
#include "row_store.h"
#include "unmask.h"

enum { N = 40, PROMPT = 8, MOST = 512, LAYERS = 6 };
static bool changed[MOST], is_mask[MOST];
static int age[MOST], computed[MOST], mark[MOST], rows[MOST], need[MOST];
static struct reuse_rank rank[MOST];
static float confidence[MOST];
static struct reuse_state r = { .changed = changed, .age = age, .computed = computed, .confidence = confidence,
                                .mark = mark, .rank = rank };
static struct span span[MOST];
static struct reuse_rows out = { .rows = rows, .need = need, .span = span };

static struct reuse_profile profile;

static void begin(const char *text)
{
    struct unmask_err err;
    OK(reuse_profile_read(text, &profile, &err), err);
    reuse_begin(&r, &profile, N, LAYERS);
    for (int i = 0; i < N; i++) is_mask[i] = i >= PROMPT;
}

/* Layers that a position's row goes through; none where it is not computed. */
static struct span span_of(int position)
{
    for (int i = 0; i < out.n_rows; i++)
        if (rows[i] == position) return span[i];
    return (struct span){ 0, 0 };
}

static bool has_row(int position) { return span_of(position).to > 0; }
static bool has_whole_row(int position) { return span_of(position).from == 0 && span_of(position).to == LAYERS; }

static void step(int start, int end, int in_block)
{
    reuse_plan(&r, is_mask, (struct reuse_block){ start, end, in_block, 0 }, &out);
    for (int i = 1; i < out.n_rows; i++) assert_true(rows[i] > rows[i - 1]);
    for (int i = 0; i < out.n_need; i++)
        assert_true(need[i] < out.n_rows && (i == 0 || need[i] > need[i - 1]) && has_whole_row(rows[need[i]]));
    reuse_passed(&r, &out);
    reuse_stepped(&r);
}

static void commit(int position)
{
    is_mask[position] = false;
    reuse_committed(&r, position);
}

static void exact_computes_every_row_and_needs_the_masks(void **state)
{
    (void)state;
    begin("exact");
    for (int k = 0; k < 3; k++) {
        step(8, 24, k);
        assert_int_equal(out.n_rows, N);
        assert_int_equal(out.n_need, 16 - k);
        commit(8 + k);
    }
    begin("none");
    step(8, 24, 0);
    assert_int_equal(out.n_need, N);
}

static void dual_computes_the_block(void **state)
{
    (void)state;
    begin("dual");
    step(8, 24, 0);
    assert_int_equal(out.n_rows, N);
    commit(9);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 16);
    assert_true(has_row(8) && has_row(9) && has_row(23) && !has_row(7) && !has_row(24));
    assert_int_equal(out.n_need, 15);
    step(24, 40, 0);
    assert_int_equal(out.n_rows, N);
    begin("prefix");
    step(8, 24, 0);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 32);
    assert_true(!has_row(7) && has_row(39));
    begin("vicinity");
    for (int k = 0; k < 4; k++) {
        step(8, 24, k);
        assert_true(out.full);
    }
    step(8, 24, 4);
    assert_int_equal(out.n_rows, 40);           /* 16 rows on either side, as far as there are */
}

static void dkv_keeps_what_was_decoded_a_step_ago(void **state)
{
    (void)state;
    begin("dkv");
    step(8, 24, 0);
    step(8, 24, 1);
    assert_true(out.full);                      /* the first two steps */
    commit(10);
    commit(12);
    step(8, 24, 2);
    assert_int_equal(out.n_rows, 32);           /* all masks, and the two just decoded */
    assert_true(has_row(10) && has_row(12) && !has_row(0));
    commit(11);
    step(8, 24, 3);
    assert_true(has_row(11) && !has_row(10) && !has_row(12));
    for (int k = 4; k < 8; k++) step(8, 24, k);
    step(8, 24, 8);
    assert_int_equal(out.n_rows, N);
}

static void fast_takes_the_surest_and_the_leftmost(void **state)
{
    (void)state;
    begin("fast");
    step(8, 24, 0);
    assert_true(out.full);
    for (int i = 8; i < 24; i++) confidence[i] = (float)i;
    commit(23);
    step(8, 24, 1);
    assert_int_equal(out.n_need, 7);            /* 22 .. 17, and 8 */
    assert_true(has_row(23) && has_row(22) && has_row(17) && has_row(8) && !has_row(16) && !has_row(9));
    assert_int_equal(out.n_rows, 8);
    for (int i = 8; i < 23; i++) commit(i);
    memset(changed, 0, sizeof changed);
    step(24, 40, 0);                            /* a new block: its rows, some before it, the first positions */
    assert_false(out.full);
    assert_true(has_row(3) && !has_row(4) && !has_row(19) && has_row(20));
    assert_int_equal(out.n_rows, 4 + 4 + 16);
    assert_int_equal(out.n_need, 16);
}

static void changed_rows_are_never_left_out(void **state)
{
    (void)state;
    size_t n_profiles = 0;
    const char *const parts[] = { "fast,deep=3,thin=1", "balanced,thin=50,depth=90", "dual,deep=1,thin=30,depth=1" };
    while (reuse_profiles[n_profiles].name) n_profiles++;
    for (size_t p = 0; p < n_profiles + ARRAY_LEN(parts); p++) {
        begin(p < n_profiles ? reuse_profiles[p].name : parts[p - n_profiles]);
        unsigned random = 12345;
        for (int block = 0; block < 2; block++)
            for (int k = 0, left = 16; left > 0; k++) {
                bool was_changed[MOST];
                memcpy(was_changed, changed, sizeof changed);
                step(8 + 16 * block, 24 + 16 * block, k);
                for (int i = 0; i < N; i++)
                    if (was_changed[i]) assert_true(has_whole_row(i));
                assert_true(out.n_need > 0);
                random = random * 1664525u + 1013904223u;
                const int position = rows[need[random / 65536 % (unsigned)out.n_need]];
                if (is_mask[position] && position < 24 + 16 * block) {
                    commit(position);
                    left--;
                }
            }
    }
}

static void deep_rows_start_at_depth(void **state)
{
    (void)state;
    begin("fast,deep=2,depth=33");
    step(8, 24, 0);
    assert_true(out.full && out.row_layers == N * LAYERS);
    commit(23);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 8);            /* the candidates, and the changed one */
    assert_true(out.row_layers == 8 * LAYERS && !reuse_in_parts(&r, &out));
    commit(8);
    step(8, 24, 2);
    assert_int_equal(out.n_rows, N);
    assert_int_equal(out.n_need, 7);
    assert_true(has_whole_row(8) && span_of(0).from == 2 && span_of(39).from == 2 && span_of(0).to == LAYERS && !out.full);
    assert_true(out.row_layers == 8 * LAYERS + (N - 8) * (LAYERS - 2) && reuse_in_parts(&r, &out));
    step(24, 40, 0);                            /* a block begins: its rows, the first ones, the masks left; and the others */
    assert_true(has_whole_row(20) && has_whole_row(39) && has_whole_row(0) && span_of(7).from == 2);
    const struct { const char *text; int layers, state; } want[] = {
        { "exact,deep=2", 0, 0 }, { "fast", LAYERS, 0 }, { "fast,thin=50", LAYERS, 0 },
        { "fast,deep=2", LAYERS, 3 }, { "fast,deep=2,depth=1", LAYERS, 1 }, { "fast,deep=2,depth=99", LAYERS, LAYERS - 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        begin(want[i].text);
        const struct store_layers l = reuse_layers(&profile, LAYERS);
        assert_true(l.n == want[i].layers && l.state == want[i].state);
    }
}

static void thin_rows_end_at_depth(void **state)
{
    (void)state;
    begin("fast,candidates=9,thin=50,depth=33,left=2");
    step(8, 24, 0);
    for (int i = 8; i < 24; i++) confidence[i] = (float)i / 24;
    commit(23);
    step(8, 24, 1);                             /* 8, 15 .. 22, changed 23, near 6 and 7: 10 rows may end, 5 do */
    assert_int_equal(out.n_rows, 12);
    assert_int_equal(out.n_need, 1 + 5);
    for (int i = 18; i < 24; i++) assert_true(has_whole_row(i));
    assert_true(has_whole_row(8) && span_of(17).to == 2 && span_of(15).to == 2 && span_of(6).to == 2 && span_of(17).from == 0);
    assert_true(out.row_layers == 7 * LAYERS + 5 * 2);
    assert_true(computed[18] == 1 && computed[17] == 0);        /* a row that ended is as old as it was */
    for (int i = 18; i < 23; i++) commit(i);
    step(8, 24, 2);                             /* six go on at least, where five were committed */
    assert_true(out.n_need >= 7);
    step(24, 40, 0);
    assert_false(reuse_in_parts(&r, &out));     /* the beginning of a block is whole */
    begin("fast,candidates=3,settle=9,masks=1,thin=10,depth=33");
    step(8, 24, 0);
    for (int i = 8; i < 24; i++) confidence[i] = (float)i / 24;
    commit(23);
    step(8, 24, 1);
    step(8, 24, 2);                             /* four go on beside the leftmost: how sure a token was that is committed is no reason */
    assert_true(has_whole_row(8) && has_whole_row(19) && has_whole_row(22) && span_of(18).to == 2 && span_of(23).to == 2);
}

/* Steps over some rows see the leftmost masks and all that is no mask; a step over every row sees every position. */
static void far_masks_are_not_seen(void **state)
{
    (void)state;
    uint8_t keys[N];
    begin("window,far=3");
    commit(9);
    commit(30);
    for (int k = 0; k < 2; k++) {
        step(8, 24, k);
        assert_int_equal(out.full, k == 0);
        memset(keys, 2, sizeof keys);
        reuse_keys(&r, is_mask, &out, keys);
        for (int i = 0; i < N; i++) assert_int_equal(keys[i], out.full || i < PROMPT + 4 || i == 30);     /* masks 8, 10, 11 */
    }
    begin("window,far=0");
    step(8, 24, 0);
    step(8, 24, 1);
    reuse_keys(&r, is_mask, &out, keys);
    for (int i = 0; i < N; i++) assert_int_equal(keys[i], 1);
}

/* Where blocks begin like other steps, what was committed settles until every row was computed, and periods go on across blocks. */
static void a_window_moves_with_its_phase(void **state)
{
    (void)state;
    begin("window,every=4,candidates=2");
    step(8, 24, 0);
    commit(20);
    for (int k = 1; k < 4; k++) {
        step(k < 3 ? 8 : 24, k < 3 ? 24 : 40, k % 3);
        assert_true(!out.full && out.n_rows == 3 && has_row(20) && has_row(8) && has_row(9));
    }
    step(24, 40, 1);
    assert_true(out.full && out.period);
    step(24, 40, 2);
    assert_true(!out.full && !has_row(20));
}

/* What an earlier run left in the caller's arrays is not taken for this one's. */
static void a_run_begins_anew(void **state)
{
    (void)state;
    struct unmask_err err;
    OK(reuse_profile_read("faithful,every=5", &profile, &err), err);
    memset(changed, 1, sizeof changed);
    memset(age, 0, sizeof age);
    for (int i = 0; i < N; i++) {
        computed[i] = 99;
        confidence[i] = 0.5f;
    }
    r.steps = r.since_full = r.period = 77;
    reuse_begin(&r, &profile, N, LAYERS);
    assert_true(r.steps == 0 && r.since_full == 0 && r.period == 5);
    for (int i = 0; i < N; i++) {
        assert_true(!changed[i] && computed[i] == 0 && confidence[i] == 0);
        assert_true(age[i] >= MOST);            /* nothing was just committed */
    }
}

/* A period that audits prolong ends by its own count, whatever the block; a step over most rows is one over all. */
static void periods_end_and_large_steps_are_whole(void **state)
{
    (void)state;
    begin("faithful,every=4,whole=0");
    step(8, 24, 0);
    r.period = 6;
    for (int k = 1; k < 14; k++) {
        step(8, 24, k);
        assert_true(out.full == (k % 6 == 0) && out.period == out.full);
    }
    begin("faithful,every=0,whole=0");          /* no period: only what begins a block */
    for (int k = 0; k < 4; k++) {
        step(8, 24, k);
        assert_int_equal(out.full, k == 0);
    }
    for (int whole = 39; whole <= 40; whole++) {                /* 16 rows of 40 */
        begin(whole == 39 ? "dual,whole=39" : "dual,whole=40");
        step(8, 24, 0);
        step(8, 24, 1);
        assert_true(out.full == (whole == 39));
    }
    begin("fast,deep=1");
    step(8, 24, 0);
    reuse_plan_lean(&r, is_mask, (struct reuse_block){ 8, 24, 1, 0 }, &out);
    assert_int_equal(out.n_rows, 7);            /* what an audit compares is a step like those before it */
    reuse_plan_full(&r, is_mask, (struct reuse_block){ 8, 24, 1, 0 }, &out);
    assert_int_equal(out.n_rows, N);
}

/* What 512 positions of the LLaDA-8B shape take, beside one layer in attention's layout. */
static void stores_are_small(void **state)
{
    (void)state;
    const struct hparams h = { .n_layer = 32, .n_head = 32, .n_head_kv = 32, .head_dim = 128, .n_embd = 4096 };
    const struct { const char *kind; double most_mib; } want[] = {
        { "hidden", 72 }, { "kv_i4", 73 }, { "kv_i8", 134 }, { "kv_f16", 256.1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const double mib = (double)row_store_bytes(store_kind_by_name(want[i].kind), &h, 512, (struct store_layers){ .n = 32 }) / 0x1p20
                           - 2 * 512 * 4096 * 4 / 0x1p20;
        print_message("%s: %.1f MiB\n", want[i].kind, mib);
        assert_true(mib <= want[i].most_mib);
    }
}

/* A put row comes back within the format's rounding, and that of bf16 on a long canvas, whatever lies beside it. */
static void stores_round(void **state)
{
    (void)state;
    const struct hparams h = { .n_layer = 2, .n_head = 2, .n_head_kv = 2, .head_dim = 36, .n_embd = 200 };
    enum { WIDTH = 72, EMBD = 200, POSITION = 21, LONG = 257 };
    const struct { const char *kind; float error; } want[] = {
        { "kv_f32", 0 }, { "kv_f16", 0.001f }, { "kv_i8", 0.004f }, { "kv_i4", 0.08f },
    };
    float x[EMBD], back[EMBD];
    struct unmask_err err;
    struct pool *pool;
    struct row_store *s;
    OK(pool_open(&pool, 2, &err), err);
    for (int i = 0; i < EMBD; i++) x[i] = (float)((i * 37) % 101 - 50) / (i / 36 % 2 ? 500.0f : 50.0f);     /* heads of different size */
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        OK(row_store_open(&s, store_kind_by_name(want[i].kind), &h, LONG, (struct store_layers){ .n = 2 }, &err), err);
        row_store_put(s, 1, POSITION, x, x + 8);
        const int tiles = row_store_max_tokens(s) / LANES;
        for (int length = 40; length <= LONG; length += LONG - 40) {
            const struct store_view view = row_store_view(s, 1, length, pool);
            assert_int_equal(view.bf16, length == LONG && want[i].error > 0.001f);
            const float error = want[i].error + (view.bf16 ? 0.002f : 0);
            for (int head = 0; head < 2; head++)
                for (int j = 0; j < 36; j++) {
                    const float k = view.k[((head * tiles + POSITION / LANES) * 36 + j) * LANES + POSITION % LANES];
                    const float v = view.v[(head * tiles * LANES + POSITION) * 36 + j];
                    if (view.bf16) assert_true(k == bf16_near(k) && v == bf16_near(v));
                    assert_true(fabsf(k - x[head * 36 + j]) <= error && fabsf(v - x[8 + head * 36 + j]) <= error);
                }
        }
        assert_false(row_store_view(s, 1, LONG - 1, pool).bf16);
        row_store_close(s);
    }
    OK(row_store_open(&s, store_kind_by_name("hidden"), &h, 40, (struct store_layers){ .n = 2 }, &err), err);
    assert_true(row_store_keeps_rows(s));
    for (int i = 128; i < EMBD; i++) x[i] /= 100;               /* a group of its own scale */
    row_store_put_row(s, 1, POSITION, x);
    row_store_get_row(s, 1, POSITION, back);
    for (int i = 0; i < EMBD; i++) assert_true(fabsf(back[i] - x[i]) <= (i < 128 ? 0.004f : 0.00004f));
    row_store_close(s);
    pool_close(pool);
}

/* What is no number becomes one, and nothing beside it is changed; numbers so small that their scale is hardly a half float stay within
 * a few of its steps. */
static void stores_hold_numbers_beyond_half_floats(void **state)
{
    (void)state;
    enum { WIDTH = 64 };
    const struct hparams h = { .n_layer = 1, .n_head = 2, .n_head_kv = 2, .head_dim = WIDTH / 2, .n_embd = WIDTH };
    static const struct { const char *kind; float most; } kinds[] = { { "kv_f16", 65504 }, { "kv_i4", 7 * 65504.0f } };
    float x[WIDTH];
    struct unmask_err err;
    struct pool *pool;
    struct row_store *s;
    OK(pool_open(&pool, 1, &err), err);
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        OK(row_store_open(&s, store_kind_by_name(kinds[i].kind), &h, 1, (struct store_layers){ .n = 1 }, &err), err);
        for (int j = 0; j < WIDTH; j++) x[j] = j % 3 == 0 ? 0 : j % 3 == 1 ? 1e6f : -1e6f;
        row_store_put(s, 0, 0, x, x);
        const struct store_view view = row_store_view(s, 0, 1, pool);
        for (int j = 0; j < WIDTH; j++) {
            const float want = j % 3 == 0 ? 0 : j % 3 == 1 ? kinds[i].most : -kinds[i].most;
            assert_true(view.k[j * LANES] == want);
            assert_true(view.v[j / h.head_dim * row_store_max_tokens(s) * h.head_dim + j % h.head_dim] == want);
        }
        row_store_close(s);
    }
    pool_close(pool);
}

static void stores_hold_only_numbers(void **state)
{
    (void)state;
    enum { WIDTH = 72, POSITION = 37, KEYS = 40 };        /* in the last tile, which is not full */
    const struct hparams h = { .n_layer = 2, .n_head = 2, .n_head_kv = 2, .head_dim = 36, .n_embd = 200 };
    const struct store_layers layers = { .n = 2 };
    const char *const coarse[] = { "kv_i8", "kv_i4" };
    float x[WIDTH];
    struct unmask_err err;
    struct pool *pool;
    struct row_store *s;
    OK(pool_open(&pool, 2, &err), err);
    for (size_t i = 0; i < ARRAY_LEN(coarse); i++) {
        OK(row_store_open(&s, store_kind_by_name(coarse[i]), &h, KEYS, layers, &err), err);
        const int tiles = row_store_max_tokens(s) / LANES;
        for (int tiny = 0; tiny < 2; tiny++) {
            for (int j = 0; j < WIDTH; j++)
                if (tiny) x[j] = (j % 3 ? 1 : 0.8f) * (j % 2 ? -6e-7f : 6e-7f);
                else x[j] = j % 7 == 3 ? NAN : (float)(j % 11 - 5) / 5;
            row_store_put(s, 1, POSITION, x, x);
            const struct store_view view = row_store_view(s, 1, KEYS, pool);
            for (int j = 0; j < WIDTH; j++) {
                const int head = j / 36, at = j % 36;
                const float k = view.k[((head * tiles + POSITION / LANES) * 36 + at) * LANES + POSITION % LANES];
                const float v = view.v[(head * tiles * LANES + POSITION) * 36 + at];
                assert_true(k == v);
                if (isnan(x[j])) assert_true(fabsf(k) <= 1.01f);
                else assert_true(fabsf(k - x[j]) <= (tiny ? 2e-7f : 0.08f));
            }
        }
        row_store_close(s);
    }
    pool_close(pool);
}

/* Runs of the test model. */
struct runs { struct unmask_model *m; struct unmask_session *s; };
static const int32_t given[] = { 480, 506, 308, 269, 507, 10, 10, 49 };
enum { MASK_ID = 500, GEN = 48 };

static void runs_open(struct runs *runs)
{
    struct unmask_err err;
    OK(unmask_open(&runs->m, "tests/data/checkpoints/llada-gqa", NULL, &err), err);
    OK(unmask_session_open(&runs->s, runs->m, 2, &err), err);
}

static void runs_close(struct runs *runs)
{
    unmask_session_close(runs->s);
    unmask_close(runs->m);
}

/* Three blocks of 16 behind what is given, to the end, two commits a step. */
static struct unmask_options run_options(const struct runs *runs, const char *reuse)
{
    struct unmask_options o;
    unmask_options_default(runs->m, &o);
    o.gen_length = GEN;
    o.block_length = 16;
    o.steps = GEN / 2;
    o.threshold = o.factor = 0;
    o.early_stop = false;
    o.reuse = reuse;
    return o;
}

static void run(struct unmask_session *s, const struct unmask_options *o, struct unmask_result *res)
{
    struct unmask_err err;
    OK(unmask_generate(s, given, ARRAY_LEN(given), o, NULL, NULL, res, &err), err);
    for (int i = 0; i < res->n_canvas; i++) assert_int_not_equal(res->canvas[i], MASK_ID);
}

/* Every profile fills the canvas; those that compute every row agree to the bit, confidences included, whatever the kind
 * of store is that both use and the number of threads. */
static void profiles_run(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_session *other;
    struct unmask_result res;
    struct runs runs;
    runs_open(&runs);
    OK(unmask_session_open(&other, runs.m, 3, &err), err);
    for (size_t kind = 0; store_kinds[kind]; kind++)
        for (int cfg = 0; cfg < 2; cfg++) {
            struct unmask_result yardstick = { 0 };
            for (const struct reuse_profile *p = reuse_profiles; p->name; p++) {
                struct unmask_options o = run_options(&runs, p->name);
                o.steps = 0;
                o.threshold = 0.3f;
                o.cfg_scale = (float)cfg;
                o.store = store_kinds[kind]->name;
                run(p->all_logits ? other : runs.s, &o, &res);
                if (p->all_logits) {
                    yardstick = res;
                    continue;
                }
                const uint64_t all = (uint64_t)res.passes * (uint64_t)res.n_canvas;
                if (p->every == 1) {
                    assert_memory_equal(res.canvas, yardstick.canvas, (size_t)res.n_canvas * sizeof *res.canvas);
                    assert_memory_equal(res.confidence, yardstick.confidence, (size_t)res.n_canvas * sizeof *res.confidence);
                } else assert_true(res.rows < all || (res.rows == all && !p->candidates));
                unmask_result_free(&res);
            }
            unmask_result_free(&yardstick);
        }
    const struct unmask_options o = run_options(&runs, "nothing");
    assert_false(unmask_generate(runs.s, given, ARRAY_LEN(given), &o, NULL, NULL, &res, &err));
    expect_err(&err, "E-GEN-001", "reuse", "nothing", "balanced", NULL);
    unmask_session_close(other);
    runs_close(&runs);
}

/* Where a step is to commit more than a profile has candidates for, it has more candidates: the schedule stays what it is.  Nor do
 * other rows of a step, which thin ranks among them, take their place. */
static void few_steps_fill_the_canvas(void **state)
{
    (void)state;
    struct unmask_result res;
    struct runs runs;
    runs_open(&runs);
    for (const struct reuse_profile *p = reuse_profiles; p->name; p++)
        for (int thin = 0; thin < 2; thin++)
            for (int blocks = 1; blocks <= 2; blocks++)
                for (int steps = 1; steps <= 8; steps++) {
                    char text[64];
                    snprintf(text, sizeof text, "%s%s", p->name, thin ? ",thin=10" : "");
                    struct unmask_options o = run_options(&runs, text);
                    o.block_length = GEN / blocks;
                    o.steps = steps * blocks;
                    run(runs.s, &o, &res);
                    assert_int_equal(res.steps, o.steps);
                    unmask_result_free(&res);
                }
    runs_close(&runs);
}

/* Fast-dLLM's caches are refreshed by the second step of a block: it counts, also where the first one filled the block. */
static void a_block_takes_its_least_steps(void **state)
{
    (void)state;
    struct unmask_result res;
    struct runs runs;
    runs_open(&runs);
    for (int least = 1; least <= 2; least++) {
        struct unmask_options o = run_options(&runs, least == 1 ? "vicinity" : "dual");
        o.steps = 0;
        o.threshold = 1e-9f;
        run(runs.s, &o, &res);
        assert_true(res.steps == 3 * least && res.passes == 3);
        unmask_result_free(&res);
    }
    runs_close(&runs);
}

/* A session's next run is as if it were its first, whatever ran before; what steps do not see they do not use. */
static void runs_are_independent(void **state)
{
    (void)state;
    struct unmask_result first, again;
    struct runs runs;
    const char *const names[] = { "exact", "faithful", "balanced", "fast", "dual", "dkv", "window", "window,leftmost=0,candidates=3" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const char *const others[] = { "window,far=1,candidates=3", "faithful,every=4,spare=5000" };
        struct unmask_options o;
        runs_open(&runs);
        o = run_options(&runs, names[i]);
        run(runs.s, &o, &first);
        for (size_t k = 0; k < ARRAY_LEN(others); k++) {
            o = run_options(&runs, others[k]);
            run(runs.s, &o, &again);
            unmask_result_free(&again);
        }
        o = run_options(&runs, names[i]);
        run(runs.s, &o, &again);
        assert_memory_equal(first.canvas, again.canvas, (size_t)first.n_canvas * sizeof *first.canvas);
        assert_memory_equal(first.confidence, again.confidence, (size_t)first.n_canvas * sizeof *first.confidence);
        assert_true(first.rows == again.rows && first.passes == again.passes && first.audit.audits == again.audit.audits);
        unmask_result_free(&first);
        unmask_result_free(&again);
        runs_close(&runs);
    }
    runs_open(&runs);
    struct unmask_options o = run_options(&runs, "window,far=1");
    run(runs.s, &o, &first);
    o = run_options(&runs, "window,far=0");
    run(runs.s, &o, &again);
    assert_true(memcmp(first.confidence, again.confidence, (size_t)first.n_canvas * sizeof *first.confidence) != 0);
    unmask_result_free(&first);
    unmask_result_free(&again);
    runs_close(&runs);
}

/* A row that goes through one layer of three counts as a third, in every kind of store and with guidance; and the canvas is filled. */
static void parts_count_as_shares(void **state)
{
    (void)state;
    struct unmask_result res;
    struct runs runs;
    runs_open(&runs);
    for (size_t kind = 0; store_kinds[kind]; kind++)
        for (int cfg = 0; cfg < 2; cfg++) {
            struct unmask_options o = run_options(&runs, "dual,deep=1,depth=67");
            o.cfg_scale = (float)cfg;
            o.store = store_kinds[kind]->name;
            run(runs.s, &o, &res);
            const int full = 3 * 56 * 3, others = (24 - 3) * (16 * 3 + 40 * 1);     /* layers: three steps over all rows, and the others */
            assert_int_equal(res.rows, ((full + others) * (1 + cfg) + 1) / 3);
            unmask_result_free(&res);
        }
    runs_close(&runs);
}

/* Rows per position of an answer of 128 behind a prompt of 384, blocks of 32, `commits` a step, the first pass over all rows
 * included: whatever the weights, since doubts may cost no pass of this length. */
static double rows_per_position(const char *name, int prompt, int commits)
{
    const int n = prompt + 128;
    int all = 0;
    struct reuse_profile p;
    struct unmask_err err;
    OK(reuse_profile_read(name, &p, &err), err);
    reuse_begin(&r, &p, n, LAYERS);
    for (int i = 0; i < n; i++) is_mask[i] = i >= prompt;
    assert_true(r.p->spare < n && r.p->extra == 0);
    for (int start = prompt; start < n; start += 32)
        for (int left = 32, k = 0; left > 0; k++) {
            reuse_plan(&r, is_mask, (struct reuse_block){ start, start + 32, k, commits }, &out);
            all += out.n_rows;
            reuse_passed(&r, &out);
            reuse_stepped(&r);
            for (int c = 0; c < commits && left > 0; c++, left--) {         /* any of those computed: here, the ones in the middle */
                int at = out.n_need / 2;
                while (!is_mask[rows[need[at]]]) at = (at + 1) % out.n_need;
                commit(rows[need[at]]);
            }
        }
    return all / 128.0;
}

static void few_rows_are_computed(void **state)
{
    (void)state;
    const struct { const char *name; int prompt, commits; double most; } want[] = {
        { "balanced", 384, 3, 11.1 }, { "fast", 384, 3, 8 },
        { "balanced", 128, 2, 10.8 }, { "fast", 128, 2, 8 }, { "balanced", 128, 3, 9.1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        const double got = rows_per_position(want[i].name, want[i].prompt, want[i].commits);
        print_message("%s, %d + 128, %d commits a step: %.2f rows a position\n", want[i].name, want[i].prompt, want[i].commits, got);
        assert_true(got <= want[i].most);
    }
}

static void the_oldest_rows_fill_a_step(void **state)
{
    (void)state;
    begin("fast,fill=5");
    step(8, 24, 0);
    step(8, 24, 1);
    assert_int_equal(out.n_rows, 7 + 5);        /* all equally old: the first positions */
    assert_true(has_row(0) && has_row(4) && !has_row(5));
    step(8, 24, 2);
    assert_true(!has_row(4) && has_row(5));
}

static void profiles_are_read_with_knobs(void **state)
{
    (void)state;
    struct reuse_profile p;
    struct unmask_err err;
    OK(reuse_profile_read("balanced,candidates=16,left=24,right=0", &p, &err), err);
    assert_true(p.candidates == 16 && p.left == 24 && p.right == 0 && p.start == START_PART && !strcmp(p.name, "balanced"));
    const struct { const char *text, *found, *need; } bad[] = {
        { "", "", "balanced" }, { "fast,candidates", "candidates", "candidates=0 to" },
        { "fastest", "fastest", "one of none, exact, faithful, balanced, fast, prefix, dual, dkv, vicinity, window" },
        { "fast,candidates=", "candidates=", "candidates=0 to" }, { "fast,candidates=x", "candidates=x", "candidates=0 to" },
        { "fast,candidates=-1", "candidates=-1", "candidates=0 to" }, { "fast,start=3", "start=3", "start=0 to 2" },
        { "fast,extra=99999999999999", "extra=99999999999999", "extra=0 to 100" },
        { "fast,every=4294967297", "every=4294967297", "every=0 to " },
        { "fast,speed=1", "speed", "one of every, start, " }, { "fast,", "", ", audit, longest" },
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(reuse_profile_read(bad[i].text, &p, &err));
        expect_err(&err, "E-GEN-001", "reuse", bad[i].found, bad[i].need, NULL);
    }
    assert_false(reuse_profile_read("fast,", &p, &err));
    expect_err(&err, "E-GEN-001", "found an empty name", NULL);
    const char *const cache[] = { "dllm-cache", "dLLM-Cache", "dllm_cache", "DLLMCACHE" };
    for (size_t i = 0; i < ARRAY_LEN(cache); i++) {
        assert_false(reuse_profile_read(cache[i], &p, &err));
        expect_err(&err, "E-GEN-001", "reuse", cache[i], "four tensors", "balanced", NULL);
    }
}

/* ---- audits ---- */

static void decisions_within_the_error_are_doubted(void **state)
{
    (void)state;
    struct reuse_profile p;
    struct unmask_err err;
    struct audit a;
    struct candidate clear[] = { { 3, 7, 0.95f, 4, 0 }, { 5, 8, 0.6f, 2, 0 } },
                     close[] = { { 3, 7, 0.95f, 0.01f, 0 }, { 5, 8, 0.6f, 2, 0 } },
                     tied[] = { { 3, 7, 0.601f, 4, 0 }, { 5, 8, 0.6f, 2, 0 } };
    OK(reuse_profile_read("faithful,margin=100,spare=80,extra=10", &p, &err), err);
    audit_begin(&a, &p, 40);
    assert_false(audit_doubts(&a, 1, &commit_fixed, 0, clear, 2, 1));
    assert_true(audit_doubts(&a, 1, &commit_fixed, 0, close, 2, 1));
    assert_true(audit_doubts(&a, 1, &commit_fixed, 0, tied, 2, 1));
    assert_false(audit_doubts(&a, 1, &commit_fixed, 0, tied, 2, 2));        /* both are committed, whatever their order */
    struct candidate bar[] = { { 3, 7, 0.95f, 4, 0 }, { 5, 8, 0.899f, 2, 0 } };
    assert_true(audit_doubts(&a, 1, &commit_threshold, 0.9f, bar, 2, 1));
    assert_false(audit_doubts(&a, 1, &commit_threshold, 0.8f, bar, 2, 2));
    struct candidate sure[] = { { 3, 7, 0.9901f, 4, 0 }, { 5, 8, 0.99f, 2, 0 } };
    assert_false(audit_doubts(&a, 1, &commit_fixed, 0, sure, 2, 1));        /* the other one goes in the next step */
    audit_spend(&a);
    audit_spend(&a);
    assert_false(audit_doubts(&a, 1, &commit_fixed, 0, close, 2, 1));       /* nothing is left to spend */
    for (int i = 0; i < 10; i++) audit_step(&a);
    assert_true(audit_doubts(&a, 1, &commit_fixed, 0, close, 2, 1));
    for (int i = 0; i < 1000; i++) audit_step(&a);
    assert_true(a.credit == 4 * 40);            /* saved up for four passes at most */
    a.credit = 1000;                            /* what a profile gives at the beginning may be more */
    audit_step(&a);
    assert_true(a.credit == 1000);
}

static void audits_measure_and_adapt(void **state)
{
    (void)state;
    struct reuse_profile p;
    struct unmask_err err;
    struct audit a;
    int period = 4;
    OK(reuse_profile_read("faithful,every=4,longest=16", &p, &err), err);
    audit_begin(&a, &p, 40);
    for (int i = 0; i < 16; i++) {
        struct candidate stale[] = { { 9, 7, 0.95f, 4, 0 }, { 5, 8, 0.6f, 2, 0 } },
                         fresh[] = { { 5, 8, 0.6f, 2.25f, 0 }, { 7, 1, 0.2f, 1, 0 }, { 9, 7, 0.95f, 4, 0 } };
        audit_compare(&a, 2, stale, 2, 1, fresh, 3, &period);
    }
    assert_int_equal(period, 16);               /* doubled by eight agreeing audits, twice */
    assert_true(a.audits == 16 && a.disagreements == 0 && a.kl < 1e-9);
    assert_true(fabsf(a.largest - 0.25f) < 1e-6f);
    struct candidate stale[] = { { 9, 7, 0.95f, 4, 0 } }, fresh[] = { { 9, 6, 0.5f, 1, 0 } };
    audit_compare(&a, 2, stale, 1, 1, fresh, 1, &period);
    assert_int_equal(period, 8);                /* halved by one that disagrees; the lead went from 4 to -1 */
    assert_true(a.disagreements == 1 && fabsf(a.largest - 5) < 1e-6f && a.kl > 0);
}

static double two_way_kl(double p, double q) { return p * log(p / q) + (1 - p) * log((1 - p) / (1 - q)); }

/* The fresh distribution comes first in the divergence; an audit of nothing counts for nothing. */
static void audits_diverge_from_the_fresh_pass(void **state)
{
    (void)state;
    struct reuse_profile p;
    struct unmask_err err;
    struct audit a;
    int period = 8;
    struct candidate stale[] = { { 9, 7, 0.5f, 4, 0 }, { 5, 8, 0.25f, 2, 0 } }, fresh[] = { { 5, 8, 0.25f, 2, 0 }, { 9, 7, 0.9f, 4, 0 } };
    OK(reuse_profile_read("faithful,every=4", &p, &err), err);
    audit_begin(&a, &p, 40);
    audit_compare(&a, 1, stale, 0, 0, fresh, 2, &period);
    assert_true(a.audits == 0 && a.age[0].n == 0 && a.kl == 0 && period == 8);
    audit_compare(&a, 1, stale, 2, 1, fresh, 2, &period);
    assert_true(fabs(a.kl - two_way_kl(0.9, 0.5) / 2) < 1e-6);
    assert_int_equal(period, 4);                /* the same tokens, but too far from it */
    /* All of them committed: the least sure of them decides what counts. */
    struct candidate both[] = { { 9, 7, 0.5f, 4, 0 }, { 5, 8, 0.25f, 2, 0 } }, other[] = { { 5, 8, 0.5f, 1, 0 }, { 9, 7, 0.5f, 4, 0 } };
    audit_compare(&a, 8, both, 2, 2, other, 2, &period);
    assert_true(a.age[3].n == 1 && a.age[3].last[0].margin == 1 && a.age[3].last[0].confidence == 0.25f);
}

/* A period grows by audits that agree closely, eight for each time; certainty of the same token is no distance. */
static void periods_grow_by_close_audits(void **state)
{
    (void)state;
    const struct { float stale, fresh; int audits, period; } want[] = {
        { 0.5f, 0.55f, 20, 4 }, { 0.5f, 0.5f, 7, 4 }, { 0.5f, 0.5f, 15, 8 }, { 1, 1, 16, 16 }, { 0, 0, 16, 16 },
    };
    struct reuse_profile p;
    struct unmask_err err;
    OK(reuse_profile_read("faithful,every=4,longest=64", &p, &err), err);
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        struct audit a;
        int period = 4;
        audit_begin(&a, &p, 40);
        for (int k = 0; k < want[i].audits; k++) {
            struct candidate stale[] = { { 9, 7, want[i].stale, 4, 0 } }, fresh[] = { { 9, 7, want[i].fresh, 4, 0 } };
            audit_compare(&a, 1, stale, 1, 1, fresh, 1, &period);
        }
        assert_int_equal(period, want[i].period);
        assert_true(a.disagreements == 0 && a.agreed < 8);
    }
}

/* Until an age has been measured a typical error is believed besides; then the largest of the last audits is. */
static void the_largest_of_the_last_audits_is_the_error(void **state)
{
    (void)state;
    enum { FEW = 8, OLDEST = 1 << 20 };
    struct reuse_profile p;
    struct unmask_err err;
    struct audit a;
    int period = 4;
    OK(reuse_profile_read("faithful,every=4,margin=100,spare=80,extra=0", &p, &err), err);
    audit_begin(&a, &p, 40);                    /* two passes may be spent: the whole error counts */
    struct candidate c[] = { { 3, 7, 0.95f, 0.29f, 0 }, { 5, 8, 0.5f, 2, 0 } };
    assert_true(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1));
    c[0].margin = 0.31f;
    assert_false(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1));
    a.credit = 40;                              /* half of it where one may */
    c[0].margin = 0.16f;
    assert_false(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1));
    a.credit = 39;                              /* none where not even one may */
    c[0].margin = 0;
    assert_false(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1));
    a.credit = 80;
    for (int i = 0; i < FEW + AUDIT_MEMORY; i++) {
        const float error = i == FEW - 1 ? 0.125f : 0;
        struct candidate stale[] = { { 3, 7, 0.5f, 4, 0 } }, fresh[] = { { 3, 7, 0.5f + error / 2, 4 + error, 0 } };
        c[0] = (struct candidate){ 3, 7, 0.95f, 0.1f, 0 };
        c[1].confidence = 0.5f;
        assert_true(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1));
        c[0].margin = 4;                        /* the order by half the step: 0.025 */
        c[1].confidence = 0.9f;
        assert_int_equal(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1), i >= FEW);
        audit_compare(&a, OLDEST, stale, 1, 1, fresh, 1, &period);
    }
    c[0].margin = 0.01f;
    assert_false(audit_doubts(&a, OLDEST, &commit_fixed, 0, c, 2, 1));      /* forgotten */
    assert_true(a.age[AUDIT_AGES - 1].n == FEW + AUDIT_MEMORY && a.age[0].n == 0);
}

/* What an audit finds, candidate by candidate: only those at least as sure as the surest that was left count as errors. */
static void audits_count_what_decided(void **state)
{
    (void)state;
    struct reuse_profile p;
    struct unmask_err err;
    struct audit a;
    int period = 4;
    OK(reuse_profile_read("faithful,every=4,longest=10,audit=2", &p, &err), err);
    audit_begin(&a, &p, 40);
    assert_true(audit_due(&a) && !audit_due(&a) && audit_due(&a));          /* the first period, and every second one */
    struct candidate stale[] = { { 9, 7, 0.9f, 4, 0 }, { 5, 8, 0.6f, 2, 0 }, { 6, 8, 0.5f, 2, 0 }, { 7, 8, 0.1f, 1, 0 } },
                     fresh[] = { { 9, 7, 0.9f, 3.5f, 0 }, { 5, 8, 0.5f, 1, 0 }, { 6, 8, 0.1f, 0.5f, 0 }, { 7, 8, 0.9f, 9, 0 } };
    audit_compare(&a, 1, stale, 4, 1, fresh, 4, &period);
    assert_true(a.age[0].n == 1 && a.age[0].last[0].margin == 1 && fabsf(a.age[0].last[0].confidence - 0.1f) < 1e-6f && a.largest == 8);
    audit_begin(&a, &p, 40);
    for (int i = 0; i < 16; i++) {              /* another token every eighth time, of which nobody was sure */
        struct candidate x[] = { { 9, 7, 0.95f, 4, 0 }, { 5, i % 8 == 3 ? 3 : 8, 1e-5f, 2, 0 } },
                         y[] = { { 9, 7, 0.95f, 4, 0 }, { 5, 8, 1e-5f, 2, 0 } };
        audit_compare(&a, 1, x, 2, 1, y, 2, &period);
    }
    assert_true(period == 4 && a.disagreements == 2 && a.kl / 16 < 1e-3);   /* seven that agree in a row are not enough */
    for (int i = 0; i < 16; i++) {
        struct candidate x[] = { { 9, 7, 0.95f, 4, 0 } }, y[] = { { 9, 7, 0.95f, 4, 0 } };
        audit_compare(&a, 1, x, 1, 1, y, 1, &period);
    }
    assert_int_equal(period, 10);               /* 8, then the longest */
    const int want[] = { 5, 4, 4 };
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        struct candidate x[] = { { 9, 7, 0.95f, 4, 0 } }, y[] = { { 9, 6, 0.95f, 4, 0 } };
        const double kl = a.kl;
        audit_compare(&a, 1, x, 1, 1, y, 1, &period);
        assert_int_equal(period, want[i]);
        assert_true(a.kl - kl > 1);             /* equally sure of another token */
    }
}

/* A doubted decision is taken on fresh rows: with nothing but doubts and no bound, every token is the full recomputation's. */
static void endless_doubts_are_the_full_recomputation(void **state)
{
    (void)state;
    const char *const profiles[] = { "exact", "fast,candidates=0,margin=10000,spare=16000000,extra=100", "fast,candidates=0",
                                     "fast,candidates=0,margin=10000,spare=0,extra=100" };
    struct unmask_result res[ARRAY_LEN(profiles)];
    struct runs runs;
    runs_open(&runs);
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++) {
        const struct unmask_options o = run_options(&runs, profiles[i]);
        run(runs.s, &o, &res[i]);
    }
    const size_t n = (size_t)res[0].n_canvas;
    assert_memory_equal(res[0].canvas, res[1].canvas, n * sizeof *res[0].canvas);
    assert_memory_equal(res[0].confidence, res[1].confidence, n * sizeof(float));
    assert_true(res[1].audit.refreshes > 10 && res[1].audit.audits == res[1].audit.refreshes && res[1].audit.largest > 0);
    assert_true(memcmp(res[0].confidence, res[2].confidence, n * sizeof(float)) && res[2].audit.audits == 0);
    assert_true(res[3].audit.refreshes == res[3].steps - 1);    /* every step saves up for one */
    assert_memory_equal(res[0].confidence, res[3].confidence, n * sizeof(float));
    for (size_t i = 0; i < ARRAY_LEN(profiles); i++) unmask_result_free(&res[i]);
    runs_close(&runs);
}

/* One decision of a whole block is doubted: what is measured is the divergence of the stale pass, whose commits the run without
 * doubts makes, from the fresh one. */
static void a_run_measures_the_stale_pass(void **state)
{
    (void)state;
    const char *const profiles[] = { "fast,candidates=0", "fast,candidates=0,margin=10000,spare=16000000" };
    struct unmask_result res[2];
    struct runs runs;
    double kl = 0;
    runs_open(&runs);
    for (int i = 0; i < 2; i++) {
        struct unmask_options o = run_options(&runs, profiles[i]);
        o.steps = 0;
        o.threshold = 1e-9f;
        o.gen_length = 32;
        run(runs.s, &o, &res[i]);
        assert_int_equal(res[i].steps, 2);      /* the first over every row, the second over some */
    }
    for (int i = res[0].n_canvas - 16; i < res[0].n_canvas; i++)
        kl += two_way_kl((double)res[1].confidence[i], res[0].canvas[i] == res[1].canvas[i] ? (double)res[0].confidence[i] : 1e-12) / 16;
    assert_true(res[1].audit.audits == 1 && res[1].audit.refreshes == 1 && kl > 0 && fabs(res[1].audit.kl - kl) < 1e-4 * kl);
    for (int i = 0; i < 2; i++) unmask_result_free(&res[i]);
    runs_close(&runs);
}

/* Periods of a run end with an audit, every second one where a knob says so, and the next candidates are the surest of the last step. */
static void runs_audit_and_remember(void **state)
{
    (void)state;
    struct unmask_result res[2];
    struct runs runs;
    runs_open(&runs);
    for (int audit = 0; audit < 3; audit++) {
        char text[64];
        snprintf(text, sizeof text, "faithful,every=2,longest=2,whole=0,margin=0,audit=%d", audit);
        const struct unmask_options o = run_options(&runs, text);
        run(runs.s, &o, &res[0]);
        assert_true(res[0].audit.refreshes == 0 && res[0].passes == res[0].steps + res[0].audit.audits);
        assert_int_equal(res[0].audit.audits, audit == 0 ? 0 : 9 / audit + 9 % audit);        /* three in each block of eight steps */
        unmask_result_free(&res[0]);
    }
    for (int leftmost = 0; leftmost < 2; leftmost++) {
        const struct unmask_options o = run_options(&runs, leftmost ? "fast,candidates=4,leftmost=1" : "fast,candidates=4");
        run(runs.s, &o, &res[leftmost]);
    }
    assert_true(memcmp(res[0].confidence, res[1].confidence, (size_t)res[0].n_canvas * sizeof(float)));
    for (int i = 0; i < 2; i++) unmask_result_free(&res[i]);
    runs_close(&runs);
}

/* One logit of every row is no number: whichever rule looks at it, the run ends. */
static void a_logit_that_is_no_number_ends_a_run(void **state)
{
    (void)state;
    enum { TOKEN = 3 };
    struct unmask_err err;
    struct unmask_result res;
    struct runs runs;
    runs_open(&runs);
    const struct weight *head = &runs.m->head;
    float *tile = (float *)(uintptr_t)(head->tiles + TOKEN / TILE_N * head->pack->tile_bytes(head->k));
    tile[TOKEN % TILE_N] = NAN;                 /* of its first column */
    for (int temperature = 0; temperature < 2; temperature++)
        for (int remasking = UNMASK_LOW_CONFIDENCE; remasking <= UNMASK_RANDOM; remasking++) {
            struct unmask_options o = run_options(&runs, "exact");
            o.temperature = (float)temperature;
            o.remasking = (enum unmask_remasking)remasking;
            assert_false(unmask_generate(runs.s, given, ARRAY_LEN(given), &o, NULL, NULL, &res, &err));
            expect_err(&err, "E-ARCH-010", "need finite numbers", NULL);
            unmask_result_free(&res);
        }
    runs_close(&runs);
}

/* The mask, and the end where it is excluded, are not chosen though their logits be the largest by far: with noise and without. */
static void excluded_tokens_are_never_chosen(void **state)
{
    (void)state;
    struct runs runs;
    runs_open(&runs);
    const struct weight *head = &runs.m->head;
    const int32_t large[] = { MASK_ID, runs.m->h.eos_id };
    for (size_t i = 0; i < ARRAY_LEN(large); i++) {
        float *tile = (float *)(uintptr_t)(head->tiles + large[i] / TILE_N * head->pack->tile_bytes(head->k));
        for (int k = 0; k < head->k; k++) tile[k * TILE_N + large[i] % TILE_N] *= 100;
    }
    for (int temperature = 0; temperature < 2; temperature++) {
        struct unmask_options o = run_options(&runs, "exact");
        struct unmask_result res[3];
        for (int i = 0; i < 3; i++) {           /* with an end that may be chosen, without, and where it also ends turns */
            int ends = 0;
            o.temperature = (float)temperature;
            o.logits_eos_inf = i > 0;
            runs.m->h.eot_id = i == 2 ? runs.m->h.eos_id : -1;
            run(runs.s, &o, &res[i]);
            for (int k = 0; k < res[i].n_canvas; k++) ends += res[i].canvas[k] == runs.m->h.eos_id;
            assert_int_equal(ends > 0, i == 0);
        }
        assert_memory_equal(res[1].canvas, res[2].canvas, (size_t)res[1].n_canvas * sizeof *res[1].canvas);
        assert_memory_equal(res[1].confidence, res[2].confidence, (size_t)res[1].n_canvas * sizeof *res[1].confidence);
        for (int i = 0; i < 3; i++) unmask_result_free(&res[i]);
    }
    runs_close(&runs);
}

/* A weight so large that numbers overflow between the layers, where int8 rounds them to some number again. */
static void an_overflow_ends_a_run(void **state)
{
    (void)state;
    static const float large[] = { 1e11f, 1.7e38f, 2e38f };         /* the first: only squares overflow */
    struct unmask_err err;
    struct unmask_result res;
    struct runs runs;
    struct unmask_options o;
    double nats;
    OK(unmask_open(&runs.m, "models/unmask-demo-6M-v1.0-Q8_0.gguf", NULL, &err) && unmask_session_open(&runs.s, runs.m, 2, &err), err);
    unmask_options_default(runs.m, &o);
    o.gen_length = 32;
    for (int layer = 0; layer < runs.m->h.n_layer; layer += runs.m->h.n_layer - 1)
        for (size_t i = 0; i < ARRAY_LEN(large); i++) {
            float *weight = (float *)(uintptr_t)runs.m->layers[layer].ffn_norm, was = *weight;
            *weight = large[i];
            assert_false(unmask_generate(runs.s, given, ARRAY_LEN(given), &o, NULL, NULL, &res, &err));
            expect_err(&err, "E-ARCH-010", "Q8_0.gguf", "after the last layer", "damaged", NULL);
            unmask_result_free(&res);
            assert_false(unmask_likelihood(runs.s, given, 4, given, 4, 4, 0, 0, &nats, &err));
            expect_err(&err, "E-ARCH-010", NULL);
            *weight = was;
            OK(unmask_generate(runs.s, given, ARRAY_LEN(given), &o, NULL, NULL, &res, &err), err);
            unmask_result_free(&res);
        }
    runs_close(&runs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_computes_every_row_and_needs_the_masks), cmocka_unit_test(dual_computes_the_block),
        cmocka_unit_test(dkv_keeps_what_was_decoded_a_step_ago), cmocka_unit_test(fast_takes_the_surest_and_the_leftmost),
        cmocka_unit_test(changed_rows_are_never_left_out), cmocka_unit_test(profiles_run),
        cmocka_unit_test(few_steps_fill_the_canvas), cmocka_unit_test(stores_are_small), cmocka_unit_test(stores_round),
        cmocka_unit_test(few_rows_are_computed), cmocka_unit_test(the_oldest_rows_fill_a_step),
        cmocka_unit_test(deep_rows_start_at_depth), cmocka_unit_test(thin_rows_end_at_depth),
        cmocka_unit_test(parts_count_as_shares), cmocka_unit_test(profiles_are_read_with_knobs),
        cmocka_unit_test(decisions_within_the_error_are_doubted), cmocka_unit_test(audits_measure_and_adapt),
        cmocka_unit_test(audits_count_what_decided),
        cmocka_unit_test(endless_doubts_are_the_full_recomputation), cmocka_unit_test(a_logit_that_is_no_number_ends_a_run),
        cmocka_unit_test(an_overflow_ends_a_run), cmocka_unit_test(periods_end_and_large_steps_are_whole),
        cmocka_unit_test(runs_audit_and_remember), cmocka_unit_test(far_masks_are_not_seen),
        cmocka_unit_test(a_window_moves_with_its_phase), cmocka_unit_test(a_run_begins_anew), cmocka_unit_test(stores_hold_only_numbers),
        cmocka_unit_test(stores_hold_numbers_beyond_half_floats),
        cmocka_unit_test(a_block_takes_its_least_steps), cmocka_unit_test(runs_are_independent),
        cmocka_unit_test(audits_diverge_from_the_fresh_pass), cmocka_unit_test(the_largest_of_the_last_audits_is_the_error),
        cmocka_unit_test(periods_grow_by_close_audits),
        cmocka_unit_test(a_run_measures_the_stale_pass), cmocka_unit_test(excluded_tokens_are_never_chosen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
