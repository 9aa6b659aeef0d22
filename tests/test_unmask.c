/* test_unmask.c - the public face: arguments, properties of every run, results, cancellation. */
#include "testing.h"

#include <math.h>

#include "rng.h"
#include "unmask.h"

static struct unmask_model *m;
static struct unmask_session *s;
static struct unmask_model_info info;
static const int32_t prompt[] = { 480, 506, 308, 269, 507, 10, 10, 49 };
enum { N_PROMPT = 8 };

static int open_all(void **state)
{
    (void)state;
    struct unmask_err err;
    OK(unmask_open(&m, "tests/data/checkpoints/llada-tiny", NULL, &err), err);
    OK(unmask_session_open(&s, m, 2, &err), err);
    unmask_model_get_info(m, &info);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    unmask_session_close(s);
    unmask_close(m);
    scratch_remove();
    return 0;
}

static struct unmask_options plain(int gen, int block, int steps)
{
    struct unmask_options o;
    unmask_options_default(m, &o);
    o.gen_length = gen;
    o.block_length = block;
    o.steps = steps;
    o.threshold = 0;
    o.early_stop = false;
    return o;
}

static void model_info(void **state)
{
    (void)state;
    assert_string_equal(info.architecture, "llada");
    assert_int_equal(info.n_vocab, 512);
    assert_int_equal(info.mask_id, 500);
    assert_int_equal(info.eos_id, 481);
    assert_int_equal(info.eot_id, 508);          /* from the chat template's token */
    assert_int_equal(info.context_length, 256);
    assert_true(info.has_tokenizer);
    assert_string_equal(info.weight_format, "f32");
}

/* Of any run: no mask is left or chosen, every evaluation commits, positions are committed once, in block order. */
struct watch { int steps, committed, n_canvas; bool empty_step; bool seen[256]; };

static bool watch_step(void *user, const struct unmask_step *st)
{
    struct watch *w = user;
    if (st->step != w->steps++) fail_msg("step %d comes as number %d", st->step, w->steps - 1);
    if (st->step > 0 && st->n_committed == 0) w->empty_step = true;
    for (int i = 0; i < st->n_committed; i++) {
        assert_true(st->margin[i] >= 0 && st->entropy[i] >= 0 && (double)st->entropy[i] <= log(512) + 1e-4);
        assert_false(w->seen[st->committed[i]]);
        assert_int_not_equal(st->canvas[st->committed[i]], info.mask_id);
        w->seen[st->committed[i]] = true;
    }
    w->committed += st->n_committed;
    w->n_canvas = st->n_canvas;
    int masks = 0;
    for (int i = 0; i < st->n_canvas; i++) masks += st->canvas[i] == info.mask_id;
    assert_int_equal(masks, st->n_masked);
    return true;
}

static void every_run_fills_the_canvas(void **state)
{
    (void)state;
    static const struct { int gen, block, steps; float threshold, factor, temperature, cfg; enum unmask_remasking remasking; } runs[] = {
        { 16, 8, 8, 0, 0, 0, 0, UNMASK_LOW_CONFIDENCE }, { 17, 5, 6, 0, 0, 0, 0, UNMASK_LOW_CONFIDENCE },
        { 1, 1, 1, 0, 0, 0, 0, UNMASK_LOW_CONFIDENCE },
        { 3, 32, 1, 0, 0, 0, 0, UNMASK_LOW_CONFIDENCE }, { 12, 4, 100, 0, 0, 0, 0, UNMASK_LOW_CONFIDENCE },
        { 24, 8, 0, 1.0f, 0, 0, 0, UNMASK_LOW_CONFIDENCE },
        { 24, 7, 0, 0.0001f, 0, 0, 0, UNMASK_LOW_CONFIDENCE }, { 24, 8, 0, 0, 3.0f, 0.8f, 0, UNMASK_LOW_CONFIDENCE },
        { 16, 16, 5, 0, 0, 1.0f, 0, UNMASK_RANDOM }, { 16, 8, 4, 0, 0, 0.5f, 1.5f, UNMASK_LOW_CONFIDENCE },
        { 20, 20, 0, 0, 0, 0, 0, UNMASK_LOW_CONFIDENCE },
    };
    for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
        struct unmask_err err;
        struct unmask_result r;
        struct watch w = { 0 };
        struct unmask_options o = plain(runs[i].gen, runs[i].block, runs[i].steps);
        o.threshold = runs[i].threshold;
        o.factor = runs[i].factor;
        o.temperature = runs[i].temperature;
        o.cfg_scale = runs[i].cfg;
        o.remasking = runs[i].remasking;
        OK(unmask_generate(s, prompt, N_PROMPT, &o, watch_step, &w, &r, &err), err);
        assert_int_equal(w.committed, runs[i].gen);
        assert_int_equal(r.n_canvas, N_PROMPT + runs[i].gen);
        assert_int_equal(r.n_ids, runs[i].gen);
        assert_int_equal(r.finish, UNMASK_FINISH_LENGTH);
        assert_memory_equal(r.canvas, prompt, sizeof prompt);
        if (runs[i].steps <= runs[i].gen) assert_false(w.empty_step);
        assert_true(r.passes <= runs[i].gen * (runs[i].cfg > 0 ? 2 : 1));
        for (int k = 0; k < r.n_canvas; k++) {
            assert_int_not_equal(r.canvas[k], info.mask_id);
            assert_true(isnan(r.confidence[k]) == (k < N_PROMPT));
        }
        unmask_result_free(&r);
    }
}

static void threads_and_sets_give_the_same_tokens(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_options o = plain(40, 20, 20);
    o.temperature = 0.7f;
    int32_t first[64];
    for (int t = 1; t <= 4; t++) {
        struct unmask_model *m2;
        struct unmask_session *s2;
        struct unmask_result r;
        OK(unmask_open(&m2, "tests/data/checkpoints/llada-tiny",
                       &(struct unmask_open_options){ .isa = t == 4 ? "scalar" : "auto", .threads = t }, &err), err);
        OK(unmask_session_open(&s2, m2, t, &err), err);
        OK(unmask_generate(s2, prompt, N_PROMPT, &o, NULL, NULL, &r, &err), err);
        if (t == 1) memcpy(first, r.canvas, sizeof(int32_t) * 48);
        else assert_memory_equal(first, r.canvas, sizeof(int32_t) * 48);
        unmask_result_free(&r);
        unmask_session_close(s2);
        unmask_close(m2);
    }
}

static void early_stop_ends_at_the_first_end_token(void **state)
{
    (void)state;
    struct unmask_err err;
    int stopped = 0;
    for (int seed = 0; seed < 60; seed++) {
        struct unmask_result r, all;
        struct unmask_options o = plain(24, 4, 24);
        o.temperature = 1.5f;
        o.seed = (uint64_t)seed;
        OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &all, &err), err);
        o.early_stop = true;
        OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err), err);
        int end = -1;
        for (int i = 0; i < all.n_ids && end < 0; i++)
            if (all.ids[i] == info.eos_id || all.ids[i] == info.eot_id) end = i;
        assert_int_equal(r.finish, end >= 0 ? UNMASK_FINISH_STOP : UNMASK_FINISH_LENGTH);
        assert_int_equal(r.n_ids, end >= 0 ? end + 1 : 24);
        assert_memory_equal(r.ids, all.ids, (size_t)r.n_ids * sizeof *r.ids);
        stopped += end >= 0 && r.passes < all.passes;
        unmask_result_free(&r);
        unmask_result_free(&all);
    }
    assert_true(stopped > 0);
}

static void infill_changes_only_the_masks(void **state)
{
    (void)state;
    struct unmask_err err;
    int32_t canvas[20];
    for (int block = 0; block <= 3; block++)
        for (int steps = 0; steps <= 5; steps += 5) {
            struct unmask_result r;
            struct watch w = { 0 };
            struct unmask_options o = plain(0, block, steps);
            int masks = 0;
            for (int i = 0; i < 20; i++) masks += (canvas[i] = i % 3 == 1 ? info.mask_id : 17 * i % 400) == info.mask_id;
            OK(unmask_infill(s, canvas, 20, &o, watch_step, &w, &r, &err), err);
            assert_int_equal(w.committed, masks);
            assert_int_equal(r.n_blocks, block ? (masks + block - 1) / block : 1);
            for (int i = 0; i < 20; i++)
                if (canvas[i] != info.mask_id) assert_int_equal(r.canvas[i], canvas[i]);
                else assert_int_not_equal(r.canvas[i], info.mask_id);
            unmask_result_free(&r);
        }
    struct unmask_result r;
    struct unmask_options o = plain(0, 0, 0);
    assert_false(unmask_infill(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err));
    expect_err(&err, "E-GEN-004", NULL);
}

static bool cancel_at_3(void *user, const struct unmask_step *st) { (void)user; return st->step < 3; }

static void a_callback_can_cancel(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_result r;
    struct unmask_options o = plain(16, 16, 16);
    assert_false(unmask_generate(s, prompt, N_PROMPT, &o, cancel_at_3, NULL, &r, &err));
    expect_err(&err, "E-RUN-001", NULL);
    assert_int_equal(err.status, UNMASK_ECANCELLED);
    assert_int_equal(r.finish, UNMASK_FINISH_CANCELLED);
    assert_int_equal(r.steps, 3);
    int left = 0;
    for (int i = 0; i < r.n_canvas; i++) left += r.canvas[i] == info.mask_id;
    assert_int_equal(left, 13);
    unmask_result_free(&r);
}

static bool cancel_at_end(void *user, const struct unmask_step *st)
{
    const int32_t *ends = user;
    for (int i = st->n_prompt; i < st->n_canvas; i++)
        if (st->canvas[i] == ends[0] || st->canvas[i] == ends[1]) return false;
    return true;
}

/* On the step that completes an answer, too. */
static void a_callback_can_cancel_the_last_step(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_result r;
    struct unmask_model *demo;
    struct unmask_session *of_demo;
    struct unmask_model_info about;
    struct unmask_options o;
    int32_t *ids;
    size_t n;
    OK(unmask_open(&demo, "models/unmask-demo-6M-v1.0-Q8_0.gguf", NULL, &err) && unmask_session_open(&of_demo, demo, 2, &err), err);
    unmask_model_get_info(demo, &about);
    unmask_options_default(demo, &o);
    o.gen_length = 32;
    OK(unmask_chat_ids(demo, &(struct unmask_message){ "user", "turn on the kitchen light", 25 }, 1, &ids, &n, &err), err);
    int32_t ends[] = { about.eos_id, about.eot_id };
    OK(unmask_generate(of_demo, ids, n, &o, NULL, NULL, &r, &err), err);
    assert_int_equal(r.finish, UNMASK_FINISH_STOP);
    unmask_result_free(&r);
    assert_false(unmask_generate(of_demo, ids, n, &o, cancel_at_end, ends, &r, &err));
    assert_int_equal(err.status, UNMASK_ECANCELLED);
    assert_int_equal(r.finish, UNMASK_FINISH_CANCELLED);
    unmask_result_free(&r);
    unmask_free(ids);
    unmask_session_close(of_demo);
    unmask_close(demo);
}

static volatile sig_atomic_t stop;
static bool stop_after_2(void *user, const struct unmask_step *st)
{
    (void)user;
    if (st->step == 2) stop = 1;
    return true;
}

/* Between the layers of the third pass: two steps are done, and the session goes on as if nothing had been. */
static void a_flag_ends_a_pass(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_result whole, r;
    struct unmask_options o = plain(16, 16, 16);
    o.stop = &stop;
    stop = 0;
    OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &whole, &err), err);
    assert_false(unmask_generate(s, prompt, N_PROMPT, &o, stop_after_2, NULL, &r, &err));
    expect_err(&err, "E-RUN-001", NULL);
    assert_int_equal(r.finish, UNMASK_FINISH_CANCELLED);
    assert_int_equal(r.steps, 2);
    assert_int_equal(r.passes, 2);
    unmask_result_free(&r);
    stop = 0;
    OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err), err);
    assert_memory_equal(r.canvas, whole.canvas, sizeof *r.canvas * (size_t)r.n_canvas);
    unmask_result_free(&r);
    unmask_result_free(&whole);
}

static void bad_parameters_are_named(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_result r;
    struct unmask_options o;
#define BAD(field, value, id, word) do { o = plain(16, 8, 8); o.field = (value); \
        assert_false(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err)); \
        expect_err(&err, id, word, NULL); assert_null(r.canvas); } while (0)
    BAD(temperature, NAN, "E-GEN-001", "temperature");
    BAD(temperature, INFINITY, "E-GEN-001", "temperature");
    BAD(temperature, -0.1f, "E-GEN-001", "temperature");
    BAD(temperature, 2.1f, "E-GEN-001", "(temperature): found 2.1, need 0 to 2");
    BAD(gen_length, (1 << 24) + 1, "E-GEN-001", "found 16777217, need 0 to 16777216");
    BAD(factor, 1e7f, "E-GEN-001", "found 10000000, need 0 to 1000000");
    BAD(threshold, 1.1f, "E-GEN-001", "threshold");
    BAD(threshold, NAN, "E-GEN-001", "threshold");
    BAD(cfg_scale, -1, "E-GEN-001", "cfg_scale");
    BAD(factor, -1, "E-GEN-001", "factor");
    BAD(steps, -1, "E-GEN-001", "steps");
    BAD(gen_length, -3, "E-GEN-001", "gen_length");
    BAD(block_length, -3, "E-GEN-001", "block_length");
    BAD(store, "kv_i9", "E-GEN-001", "found kv_i9, need one of kv_f32, kv_f16, kv_i8, kv_i4, hidden");
    BAD(remasking, (enum unmask_remasking)77, "E-GEN-001", "remasking");
    double nats;
    const float guidance[] = { -1, NAN, INFINITY };
    for (int i = 0; i < 3; i++) {
        assert_false(unmask_likelihood(s, prompt, 4, prompt, 4, 1, guidance[i], 0, &nats, &err));
        expect_err(&err, "E-GEN-001", "cfg_scale", NULL);
    }
    struct unmask_model *model;
    assert_false(unmask_open(&model, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .context = -5 }, &err));
    expect_err(&err, "E-GEN-001", "context", "-5", NULL);
    assert_false(unmask_open(&model, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .threads = -5 }, &err));
    expect_err(&err, "E-GEN-001", "threads", "-5", NULL);
    assert_false(unmask_open(&model, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .sessions = -5 }, &err));
    expect_err(&err, "E-GEN-001", "sessions", "-5", NULL);
    assert_false(unmask_open(&model, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .logit_rows = -5 }, &err));
    expect_err(&err, "E-GEN-001", "logit_rows", "-5", NULL);
    o = plain(16, 8, 8);
    o.threshold = 0.5f;
    o.factor = 1;
    assert_false(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err));
    expect_err(&err, "E-GEN-001", "one commit rule", NULL);
    const int32_t wrong[] = { 3, 512 };
    o = plain(16, 8, 8);
    assert_false(unmask_generate(s, wrong, 2, &o, NULL, NULL, &r, &err));
    expect_err(&err, "E-GEN-003", "token 1", "512", "511", NULL);
}

static void the_context_is_never_cut_silently(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_result r;
    int32_t longer[256];
    for (int i = 0; i < 256; i++) longer[i] = i;
    struct unmask_options o = plain(64, 8, 8);
    assert_false(unmask_generate(s, longer, 250, &o, NULL, NULL, &r, &err));
    expect_err(&err, "E-GEN-002", "250", "256", NULL);
    assert_int_equal(err.status, UNMASK_ELIMIT);
    OK(unmask_generate(s, longer, 240, &o, NULL, NULL, &r, &err), err);      /* shortened to what is left, and said in the result */
    assert_int_equal(r.n_canvas - r.n_prompt, 16);
    unmask_result_free(&r);
    assert_false(unmask_forward(s, longer, 0, NULL, &(struct unmask_taps){ 0 }, &err));
    expect_err(&err, "E-GEN-002", NULL);
}

static void flags_that_need_a_token_say_so(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *bare;
    struct unmask_session *s2;
    struct unmask_result r;
    OK(unmask_open(&bare, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .without_tokenizer = true }, &err), err);
    OK(unmask_session_open(&s2, bare, 1, &err), err);
    struct unmask_options o = plain(8, 8, 8);
    o.confidence_eos_eot_inf = true;
    assert_false(unmask_generate(s2, prompt, N_PROMPT, &o, NULL, NULL, &r, &err));
    expect_err(&err, "E-GEN-005", "confidence_eos_eot_inf", "end-of-turn", NULL);
    int32_t *ids;
    size_t n;
    assert_false(unmask_tokenize(bare, "x", 1, 0, &ids, &n, &err));
    expect_err(&err, "E-GEN-006", NULL);
    unmask_session_close(s2);
    unmask_close(bare);
}

static void text_goes_round(void **state)
{
    (void)state;
    struct unmask_err err;
    const char text[] = "the cat, 42 \xc3\xa9\xf0\x9f\x98\x80 <|mdm_mask|>\n";
    int32_t *ids;
    size_t n, len;
    char *back;
    OK(unmask_tokenize(m, text, sizeof text - 1, 0, &ids, &n, &err), err);
    for (size_t i = 0; i < n; i++) assert_int_not_equal(ids[i], info.mask_id);
    OK(unmask_detokenize(m, ids, n, 0, &back, &len, &err), err);
    assert_int_equal(len, sizeof text - 1);
    assert_string_equal(back, text);
    unmask_free(ids);
    unmask_free(back);
    const struct unmask_message hello = { "user", "  hello ", 8 };
    OK(unmask_chat_ids(m, &hello, 1, &ids, &n, &err), err);
    assert_int_equal(ids[0], info.bos_id);
    for (size_t i = 1; i < n; i++) assert_int_not_equal(ids[i], info.bos_id);
    unmask_free(ids);
}

static float logits[512];

static bool last_row(void *user, int position, const float *row)
{
    double *p = *(double **)user, max = -INFINITY, sum = 0;
    if (position != N_PROMPT) return true;
    memcpy(logits, row, (size_t)info.n_vocab * sizeof *row);
    for (int i = 0; i < info.n_vocab; i++)
        if (i != info.mask_id && (double)row[i] > max) max = (double)row[i];
    for (int i = 0; i < info.n_vocab; i++) sum += p[i] = i == info.mask_id ? 0 : exp(((double)row[i] - max) / 2);
    for (int i = 0; i < info.n_vocab; i++) p[i] /= sum;
    return true;
}

/* The token whose logit with its noise is the largest, when none is skipped but the mask and `other`. */
static int32_t best_with_noise(uint64_t seed, double temperature, int32_t other)
{
    const uint64_t prefix = noise_prefix(seed, NOISE_GUMBEL, 0, 0, N_PROMPT);
    int32_t best = -1;
    double most = -INFINITY;
    for (int32_t i = 0; i < info.n_vocab; i++) {
        const double score = (double)logits[i] - temperature * log(-log(noise_f64(noise_bits(prefix, (uint64_t)i))));
        if (i == info.mask_id || i == other || score <= most) continue;
        most = score;
        best = i;
    }
    return best;
}

/* Token frequencies of Gumbel sampling at temperature T are softmax(l / T): chi-square over many seeds of one position. */
static void gumbel_samples_the_softmax(void **state)
{
    (void)state;
    struct unmask_err err;
    enum { DRAWS = 3000, MOST = 512 };
    static int count[MOST];
    double p[MOST];
    struct unmask_options o = plain(1, 1, 1);
    o.temperature = 2;
    for (int i = 0; i < DRAWS; i++) {
        struct unmask_result r;
        o.seed = (uint64_t)i;
        OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err), err);
        count[r.ids[0]]++;
        unmask_result_free(&r);
    }
    int32_t canvas[N_PROMPT + 1];
    memcpy(canvas, prompt, sizeof prompt);
    canvas[N_PROMPT] = info.mask_id;
    struct { double *p; } want = { p };
    OK(unmask_forward(s, canvas, N_PROMPT + 1, NULL, &(struct unmask_taps){ &want, NULL, last_row }, &err), err);
    double chi = 0, rest_want = 0, rest_got = 0;
    int cells = 0;
    for (int i = 0; i < MOST; i++) {
        if (p[i] * DRAWS < 5) {
            rest_want += p[i] * DRAWS;
            rest_got += count[i];
            continue;
        }
        chi += (count[i] - p[i] * DRAWS) * (count[i] - p[i] * DRAWS) / (p[i] * DRAWS);
        cells++;
    }
    if (rest_want > 5) {
        chi += (rest_got - rest_want) * (rest_got - rest_want) / rest_want;
        cells++;
    }
    assert_true(cells > 3);
    assert_true(chi < cells + 4 * sqrt(2.0 * cells));            /* about four standard deviations */
    /* Draw by draw: no token is skipped that could have won, and none is taken that may not be chosen. */
    for (int flat = 0; flat < 2; flat++)
        for (int i = 0; i < DRAWS / 2; i++) {
            struct unmask_result r;
            o.seed = (uint64_t)i;
            o.temperature = flat ? 2 : 0.25f;
            o.logits_eos_inf = flat;
            OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, &err), err);
            assert_int_equal(r.ids[0], best_with_noise(o.seed, flat ? 2 : 0.25, flat ? info.eos_id : -1));
            unmask_result_free(&r);
        }
}

struct again { struct unmask_err err; struct unmask_result *outer; };

static bool again(void *user, const struct unmask_step *step)
{
    struct again *a = user;
    struct unmask_err *err = &a->err;
    struct unmask_result r;
    double nats;
    const struct unmask_options o = plain(64, 64, 4);
    if (step->step != 2) return true;
    assert_false(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &r, err));
    expect_err(err, "E-RUN-003", "one call at a time", NULL);
    assert_null(r.canvas);
    assert_false(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, a->outer, err));
    unmask_result_free(a->outer);
    assert_false(unmask_infill(s, step->canvas, (size_t)step->n_canvas, &o, NULL, NULL, &r, err));
    assert_false(unmask_forward(s, prompt, N_PROMPT, NULL, &(struct unmask_taps){ NULL, NULL, NULL }, err));
    assert_false(unmask_likelihood(s, prompt, 4, prompt, 4, 1, 0, 0, &nats, err));
    expect_err(err, "E-RUN-003", NULL);
    return true;
}

/* A callback that uses its own session again is refused, and the run goes on as if nothing had been. */
static void a_session_does_one_thing_at_a_time(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_result a, b;
    struct again inner = { .outer = &b };
    const struct unmask_options o = plain(16, 16, 8);
    OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &a, &err), err);
    OK(unmask_generate(s, prompt, N_PROMPT, &o, again, &inner, &b, &err), err);
    assert_int_equal(a.n_canvas, b.n_canvas);
    assert_memory_equal(a.canvas, b.canvas, (size_t)a.n_canvas * sizeof *a.canvas);
    unmask_result_free(&a);
    unmask_result_free(&b);
    const struct unmask_options bad = plain(1000, 1000, 8);
    assert_false(unmask_generate(s, prompt, N_PROMPT, &bad, NULL, NULL, &a, &err));     /* an error ends the call, too */
    OK(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, &a, &err), err);
    unmask_result_free(&a);
}

#define NO_POINTER(call, name) do { assert_false(call); expect_err(&err, "E-RUN-004", name, NULL); } while (0)

/* ... and what the caller's variables hold is not what they were given. */
#define NO_IDS(call, name) do { n = 1; ids = words; text = line; NO_POINTER(call, name); assert_true((!ids || !text) && !n); } while (0)

static void pointers_are_checked(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *model;
    struct unmask_session *session;
    struct unmask_result r;
    const struct unmask_options o = plain(16, 16, 8);
    int32_t *ids;
    size_t n;
    double nats = 0;
    char *text, line[200];
    int32_t words[1];
    const struct unmask_message hello = { "user", "hello", 0 };
    NO_POINTER(unmask_open(&model, NULL, NULL, &err), "path");
    NO_POINTER(unmask_open(NULL, "x", NULL, &err), "out");
    NO_POINTER(unmask_session_open(&session, NULL, 1, &err), "m");
    assert_true(!model && !session);
    assert_false(unmask_session_open(&session, m, -1, &err));
    expect_err(&err, "E-GEN-001", "threads", "-1", NULL);
    NO_IDS(unmask_tokenize(m, NULL, 1, 0, &ids, &n, &err), "text");
    NO_IDS(unmask_tokenize(NULL, "x", 1, 0, &ids, &n, &err), "m");
    NO_IDS(unmask_detokenize(m, NULL, 1, 0, &text, &n, &err), "ids");
    NO_IDS(unmask_detokenize(NULL, prompt, 1, 0, &text, &n, &err), "m");
    NO_IDS(unmask_chat_ids(NULL, &hello, 1, &ids, &n, &err), "m");
    NO_IDS(unmask_chat_ids(m, NULL, 1, &ids, &n, &err), "messages");
    NO_IDS(unmask_chat_ids(m, &(struct unmask_message){ .content = "x" }, 1, &ids, &n, &err), "role");
    NO_IDS(unmask_chat_ids(m, &(struct unmask_message){ .role = "user" }, 1, &ids, &n, &err), "content");
    n = 1;
    ids = words;
    text = line;
    NO_POINTER(unmask_tokenize(m, "x", 1, 0, NULL, &n, &err), "ids");
    NO_POINTER(unmask_chat_ids(m, &hello, 1, &ids, NULL, &err), "n");
    NO_POINTER(unmask_detokenize(m, prompt, 1, 0, &text, NULL, &err), "len");
    assert_true(!ids && !text && !n);
    NO_POINTER(unmask_generate(NULL, prompt, N_PROMPT, &o, NULL, NULL, &r, &err), "session");
    NO_POINTER(unmask_generate(s, NULL, N_PROMPT, &o, NULL, NULL, &r, &err), "prompt");
    NO_POINTER(unmask_generate(s, prompt, N_PROMPT, NULL, NULL, NULL, &r, &err), "options");
    NO_POINTER(unmask_generate(s, prompt, N_PROMPT, &o, NULL, NULL, NULL, &err), "result");
    NO_POINTER(unmask_infill(s, prompt, N_PROMPT, NULL, NULL, NULL, &r, &err), "options");
    NO_POINTER(unmask_forward(s, prompt, N_PROMPT, NULL, NULL, &err), "taps");
    NO_POINTER(unmask_likelihood(s, prompt, 4, NULL, 4, 1, 0, 0, &nats, &err), "answer");
    assert_true(isnan(nats));
    struct unmask_model_info none;
    struct unmask_options zero;
    unmask_model_get_info(NULL, &none);
    unmask_options_default(NULL, &zero);
    assert_true(none.mask_id == -1 && !none.name && zero.steps == 0);
    assert_non_null(strstr(unmask_err_message(NULL, line, sizeof line), "no error"));
}

struct loading { uint64_t done, total; int calls, most; };

static bool on_load(void *user, uint64_t done, uint64_t total)
{
    struct loading *l = user;
    assert_true(done >= l->done && done <= total);
    l->done = done;
    l->total = total;
    return ++l->calls < l->most;
}

/* Whoever opens a model is told how far it is, and may stop it. */
static void loading_is_told(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *model;
    struct loading l = { .most = 1000 };
    const struct unmask_open_options o = { .on_load = on_load, .user = &l };
    OK(unmask_open(&model, "tests/data/checkpoints/llada-tiny", &o, &err), err);
    assert_true(l.calls > 20 && l.done == l.total);
    unmask_close(model);
    l = (struct loading){ .most = 3 };
    assert_false(unmask_open(&model, "tests/data/checkpoints/llada-tiny", &o, &err));
    expect_err(&err, "E-RUN-001", NULL);
    assert_int_equal(l.calls, 3);
    assert_null(model);
}

static void missing_files_are_errors(void **state)
{
    (void)state;
    struct unmask_err err;
    struct unmask_model *none;
    assert_false(unmask_open(&none, "/nonexistent/model.gguf", NULL, &err));
    assert_int_equal(err.status, UNMASK_EIO);
    assert_false(unmask_open(&none, "tests/data/checkpoints/llada-tiny", &(struct unmask_open_options){ .isa = "sse9" }, &err));
    expect_err(&err, "E-GEN-001", "sse9", NULL);
    assert_false(unmask_open(&none, "/nonexistent/model.gguf", NULL, NULL));     /* err may be NULL */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(model_info), cmocka_unit_test(every_run_fills_the_canvas), cmocka_unit_test(threads_and_sets_give_the_same_tokens),
        cmocka_unit_test(early_stop_ends_at_the_first_end_token), cmocka_unit_test(infill_changes_only_the_masks),
        cmocka_unit_test(a_callback_can_cancel), cmocka_unit_test(a_callback_can_cancel_the_last_step), cmocka_unit_test(a_flag_ends_a_pass),
        cmocka_unit_test(bad_parameters_are_named), cmocka_unit_test(the_context_is_never_cut_silently),
        cmocka_unit_test(flags_that_need_a_token_say_so),
        cmocka_unit_test(text_goes_round), cmocka_unit_test(gumbel_samples_the_softmax), cmocka_unit_test(missing_files_are_errors),
        cmocka_unit_test(loading_is_told),
        cmocka_unit_test(a_session_does_one_thing_at_a_time), cmocka_unit_test(pointers_are_checked),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
