/* test_golden.c - the engine against numbers and trajectories of the published PyTorch code and its numpy oracle
 * (tests/data/goldens: five tiny dense LLaDA checkpoints).  --isa NAME and -t THREADS run it on one instruction set. */
#include "testing.h"

#include <jansson.h>
#include <math.h>
#include <sleef.h>

#include "file.h"
#include "likelihood.h"
#include "mem.h"
#include "quantize.h"

#define LOGITS_HASH 0x05d1466860470cf3u

static const char *const checkpoints[] = { "llada-tiny", "llada-tiny-bf16", "llada-gqa", "llada-tied", "llada-k256" };
static const char *isa = "auto";
static int n_threads = 2;

struct fixture { const char *name; struct unmask_model *m; struct unmask_session *s; };

static const char *golden(const char *checkpoint, const char *file)
{
    static char path[256];
    snprintf(path, sizeof path, "tests/data/goldens/%s/%s", checkpoint, file);
    return path;
}

static int id_of(json_t *ids, const char *name) { return (int)json_integer_value(json_object_get(ids, name)); }

static struct fixture fixture_open(const char *name)
{
    char path[256];
    struct unmask_err err;
    struct fixture f = { .name = name };
    snprintf(path, sizeof path, "tests/data/checkpoints/%s", name);
    OK(unmask_open(&f.m, path, &(struct unmask_open_options){ .isa = isa, .threads = n_threads, .without_tokenizer = true }, &err), err);
    OK(unmask_session_open(&f.s, f.m, n_threads, &err), err);
    snprintf(path, sizeof path, "tests/data/checkpoints/%s/special_ids.json", name);
    json_t *ids = json_load_file(path, 0, NULL);
    assert_non_null(ids);
    assert_int_equal(f.m->h.mask_id, id_of(ids, "mask"));
    assert_int_equal(f.m->h.eos_id, id_of(ids, "eos"));
    f.m->h.eot_id = id_of(ids, "eot");          /* the tokenizer would say */
    json_decref(ids);
    return f;
}

static void fixture_close(struct fixture *f)
{
    unmask_session_close(f->s);
    unmask_close(f->m);
}

static int read_ids(json_t *array, int32_t *ids)
{
    const int n = (int)json_array_size(array);
    for (int i = 0; i < n; i++) ids[i] = (int32_t)json_integer_value(json_array_get(array, (size_t)i));
    return n;
}

/* Data of a float32 npy file of version 1.0 in C order; the caller frees it.  *n: number of floats. */
static float *read_npy(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s: cannot open", path);
    unsigned char head[10];
    assert_int_equal(fread(head, 1, 10, f), 10);
    const long at = 10 + head[8] + head[9] * 256;
    fseek(f, 0, SEEK_END);
    *n = (size_t)(ftell(f) - at) / sizeof(float);
    float *x = malloc(*n * sizeof *x);
    fseek(f, at, SEEK_SET);
    assert_int_equal(fread(x, sizeof *x, *n, f), *n);
    fclose(f);
    return x;
}

/* ---- forward ---- */

struct seen { float *logits, *hidden; size_t n, d, v; };

static bool see_hidden(void *user, int layer, const float *rows)
{
    struct seen *s = user;
    memcpy(s->hidden + (size_t)layer * s->n * s->d, rows, s->n * s->d * sizeof(float));
    return true;
}

static bool see_logits(void *user, int position, const float *row)
{
    struct seen *s = user;
    memcpy(s->logits + (size_t)position * s->v, row, s->v * sizeof(float));
    return true;
}

static struct seen run_forward(struct fixture *f, const int32_t *ids, int n, const uint8_t *key_mask)
{
    struct unmask_err err;
    struct seen s = { .n = (size_t)n, .d = (size_t)f->m->h.n_embd, .v = (size_t)f->m->h.n_vocab };
    s.logits = malloc(s.n * s.v * sizeof(float));
    s.hidden = malloc(s.n * s.d * sizeof(float) * (size_t)f->m->h.n_layer);
    OK(unmask_forward(f->s, ids, s.n, key_mask, &(struct unmask_taps){ &s, see_hidden, see_logits }, &err), err);
    return s;
}

static uint64_t hash_of(uint64_t hash, const struct seen *s)
{
    for (size_t i = 0; i < s->n * s->v; i++) {
        uint32_t bits;
        memcpy(&bits, &s->logits[i], 4);
        for (int b = 0; b < 32; b += 8) hash = (hash ^ (bits >> b & 255)) * 0x100000001B3u;
    }
    return hash;
}

static void close_to(const char *what, const float *got, const char *npy, size_t n)
{
    size_t n_want;
    float *want = read_npy(npy, &n_want);
    assert_int_equal(n, n_want);
    double most = 0, diff = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        const double e = (double)got[i] - (double)want[i];
        if (!(fabs(e) <= most)) most = fabs(e);
        diff += e * e;
        norm += (double)want[i] * (double)want[i];
    }
    free(want);
    if (!(most <= 1e-3) || !(sqrt(diff / norm) <= 1e-4)) fail_msg("%s: max abs %g, relative %g", what, most, sqrt(diff / norm));
}

static void forward_meets_goldens(void **state)
{
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(checkpoints); c++) {
        struct fixture f = fixture_open(checkpoints[c]);
        json_t *all = json_load_file(golden(f.name, "forward.json"), 0, NULL), *one;
        size_t i;
        json_array_foreach(json_object_get(all, "cases"), i, one) {
            int32_t ids[512], mask[512];
            uint8_t key_mask[512];
            char what[128];
            const int n = read_ids(json_object_get(one, "tokens"), ids);
            const bool masked = json_is_array(json_object_get(one, "attention_mask"));
            if (masked) read_ids(json_object_get(one, "attention_mask"), mask);
            for (int k = 0; k < n; k++) key_mask[k] = !masked || mask[k];
            struct seen s = run_forward(&f, ids, n, masked ? key_mask : NULL);
            snprintf(what, sizeof what, "%s %s", f.name, json_string_value(json_object_get(one, "name")));
            close_to(what, s.logits, golden(f.name, json_string_value(json_object_get(one, "logits"))), s.n * s.v);
            if (json_is_string(json_object_get(one, "hidden")))
                close_to(what, s.hidden, golden(f.name, json_string_value(json_object_get(one, "hidden"))),
                         s.n * s.d * (size_t)f.m->h.n_layer);
            free(s.logits);
            free(s.hidden);
        }
        assert_true(i >= 6);
        json_decref(all);
        fixture_close(&f);
    }
}

static void attention_is_bidirectional(void **state)
{
    (void)state;
    struct fixture f = fixture_open("llada-tiny");
    int32_t ids[20];
    for (int i = 0; i < 20; i++) ids[i] = 17 * i % 400;
    struct seen a = run_forward(&f, ids, 20, NULL);
    ids[19]++;
    struct seen b = run_forward(&f, ids, 20, NULL);
    assert_memory_not_equal(a.logits, b.logits, a.v * sizeof(float));
    free(a.logits); free(a.hidden); free(b.logits); free(b.hidden);
    fixture_close(&f);
}

/* A row's result depends neither on its neighbours in memory nor on the number of threads: FNV-1a of all logits. */
static void threads_change_no_bit(void **state)
{
    (void)state;
    const int before = n_threads;
    struct seen s[3];
    int32_t ids[150];
    for (int i = 0; i < 150; i++) ids[i] = 31 * i % 480;
    for (int t = 0; t < 3; t++) {
        n_threads = t + 1;
        struct fixture f = fixture_open("llada-gqa");
        s[t] = run_forward(&f, ids, 150, NULL);
        fixture_close(&f);
    }
    n_threads = before;
    for (int t = 1; t < 3; t++) assert_memory_equal(s[0].logits, s[t].logits, s[0].n * s[0].v * sizeof(float));
    for (int t = 0; t < 3; t++) {
        free(s[t].logits);
        free(s[t].hidden);
    }
}

/* ---- quantized weights, int8 activations ---- */

/* A file in `format` made from another, opened. */
static struct fixture converted(const char *name, const char *in, const char *out, const struct quant_format *format)
{
    struct unmask_err err;
    struct quantize_report report;
    struct fixture f = { .name = name };
    OK(quantize_file(in, out, &(struct quantize_options){ .format = format, .threads = n_threads, .force = true }, &report, &err), err);
    OK(unmask_open(&f.m, out, &(struct unmask_open_options){ .isa = isa, .threads = n_threads, .without_tokenizer = true }, &err), err);
    OK(unmask_session_open(&f.s, f.m, n_threads, &err), err);
    return f;
}

/* The same with room for 512 positions, which none of the checkpoints has. */
static struct fixture lengthened(const char *name, const struct quant_format *format)
{
    static const char key[] = "llada.context_length\x04\0\0";         /* an unsigned number of 32 bits, all but a last 0 of its type */
    char in[256], *bytes;
    size_t n;
    struct unmask_err err;
    struct quantize_report report;
    struct fixture f = { .name = name };
    snprintf(in, sizeof in, "tests/data/checkpoints/%s", name);
    const struct quantize_options o = { .format = format, .threads = 1, .force = true };
    OK(quantize_file(in, scratch("long.gguf"), &o, &report, &err), err);
    OK(file_slurp(scratch("long.gguf"), 1u << 24, &bytes, &n, &err), err);
    char *at = NULL;
    for (size_t i = 0; !at && i + sizeof key + 4 < n; i++) at = memcmp(bytes + i, key, sizeof key) ? NULL : bytes + i + sizeof key;
    assert_non_null(at);
    memcpy(at, &(uint32_t){ 512 }, 4);
    scratch_write("long.gguf", bytes, n);
    mem_free(bytes);
    OK(unmask_open(&f.m, scratch("long.gguf"), &(struct unmask_open_options){ .isa = isa, .threads = n_threads, .without_tokenizer = true },
                   &err), err);
    OK(unmask_session_open(&f.s, f.m, n_threads, &err), err);
    return f;
}

/* Over more than 256 positions attention takes rows that are stored in int8 as bf16. */
enum { LONG_CANVAS = 300 };
static struct seen run_long(const struct quant_format *format)
{
    int32_t ids[LONG_CANVAS];
    for (int i = 0; i < LONG_CANVAS; i++) ids[i] = 53 * i % 479;
    struct fixture f = lengthened("llada-gqa", format);
    struct seen s = run_forward(&f, ids, LONG_CANVAS, NULL);
    fixture_close(&f);
    return s;
}

static struct fixture quantized(const char *name, const struct quant_format *format)
{
    char in[256];
    snprintf(in, sizeof in, "tests/data/checkpoints/%s", name);
    return converted(name, in, scratch("quantized.gguf"), format);
}

/* Against float32 arithmetic on the same rounded weights, the int8 activations of the kernels cost what they cost in the
 * oracle's simulation: mean cosine 0.9994 to 0.9998, mean KL below 0.007 on these models. */
static void logits_are_near(const char *what, const struct seen *s, const float *want, double least_cosine, double most_kl)
{
    double cosine = 0, kl = 0;
    for (size_t r = 0; r < s->n; r++) {
        const float *a = want + r * s->v, *b = s->logits + r * s->v;
        double ab = 0, aa = 0, bb = 0, ea = 0, eb = 0, sum = 0;
        for (size_t i = 0; i < s->v; i++) {
            ab += (double)a[i] * (double)b[i];
            aa += (double)a[i] * (double)a[i];
            bb += (double)b[i] * (double)b[i];
            ea += exp((double)a[i]);
            eb += exp((double)b[i]);
        }
        for (size_t i = 0; i < s->v; i++) sum += exp((double)a[i]) / ea * ((double)a[i] - (double)b[i]);
        cosine += ab / sqrt(aa * bb) / (double)s->n;
        kl += (sum - log(ea) + log(eb)) / (double)s->n;
    }
    if (!(cosine > least_cosine) || !(kl < most_kl)) fail_msg("%s: mean cosine %.6f, mean KL %.5f", what, cosine, kl);
}

static void quantized_forward_meets_the_oracle(void **state)
{
    (void)state;
    for (size_t c = 0; c < ARRAY_LEN(checkpoints); c++) {
        json_t *all = json_load_file(golden(checkpoints[c], "quant.json"), 0, NULL), *one;
        size_t i, seen = 0;
        json_array_foreach(json_object_get(all, "cases"), i, one) {
            if (!json_is_true(json_object_get(one, "embeddings_and_head_quantised"))) continue;
            int32_t ids[512];
            const int n = read_ids(json_object_get(one, "tokens"), ids);
            struct fixture f = quantized(checkpoints[c], quant_format_by_name(json_string_value(json_object_get(one, "weights"))));
            struct seen s = run_forward(&f, ids, n, NULL);
            size_t n_want;
            char what[128];
            float *want = read_npy(golden(checkpoints[c], json_string_value(json_object_get(one, "logits"))), &n_want);
            snprintf(what, sizeof what, "%s %s", checkpoints[c], json_string_value(json_object_get(one, "name")));
            assert_int_equal(n_want, s.n * s.v);
            logits_are_near(what, &s, want, 0.999, 0.012);
            free(want);
            free(s.logits);
            free(s.hidden);
            fixture_close(&f);
            seen++;
        }
        assert_int_equal(seen, 2);
        json_decref(all);
    }
}

/* Q4_K and Q6_K against float32 arithmetic, which the tests above check, on the numbers that they stand for. */
static void k_quants_meet_their_numbers(void **state)
{
    (void)state;
    static const struct quant_format *const formats[] = { &format_q4_k, &format_q6_k };
    int32_t ids[90];
    for (int i = 0; i < 90; i++) ids[i] = 53 * i % 479;
    for (size_t i = 0; i < ARRAY_LEN(formats); i++) {
        char path[256];
        struct fixture f = quantized("llada-k256", formats[i]);
        snprintf(path, sizeof path, "%s", scratch("quantized.gguf"));
        struct fixture numbers = converted("llada-k256", path, scratch("numbers.gguf"), &format_f32);
        assert_string_equal(f.m->weight_format, formats[i]->name);
        assert_ptr_equal(f.m->head.pack->format, formats[i]);
        struct seen s = run_forward(&f, ids, 90, NULL), want = run_forward(&numbers, ids, 90, NULL);
        logits_are_near(formats[i]->name, &s, want.logits, 0.999, 0.012);
        free(s.logits); free(s.hidden); free(want.logits); free(want.hidden);
        fixture_close(&f);
        fixture_close(&numbers);
    }
}

/* A folder and the F32 and BF16 GGUF files made from it give the same bits: rows that files permute are put back. */
static void files_change_no_bit(void **state)
{
    (void)state;
    static const struct { const char *name; const struct quant_format *format; } cases[] = {
        { "llada-gqa", &format_f32 }, { "llada-tied", &format_f32 }, { "llada-tiny-bf16", &format_bf16 },
    };
    int32_t ids[40];
    for (int i = 0; i < 40; i++) ids[i] = 31 * i % 480;
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct fixture a = fixture_open(cases[c].name), b = quantized(cases[c].name, cases[c].format);
        struct seen x = run_forward(&a, ids, 40, NULL), y = run_forward(&b, ids, 40, NULL);
        assert_memory_equal(x.logits, y.logits, x.n * x.v * sizeof(float));
        free(x.logits); free(x.hidden); free(y.logits); free(y.hidden);
        fixture_close(&a);
        fixture_close(&b);
    }
}

/* Cosine 0.9985 and KL 0.022, as without bf16: what rounding the weights costs these. */
static void a_long_canvas_is_near_float32(void **state)
{
    (void)state;
    struct seen want = run_long(&format_f32), got = run_long(&format_q8_0);
    logits_are_near("a long canvas", &got, want.logits, 0.998, 0.03);
    free(want.logits); free(want.hidden); free(got.logits); free(got.hidden);
}

/* FNV-1a over the logits of every checkpoint in F32, Q8_0, Q4_0, and, where rows allow it, Q4_K and Q6_K, and of a long canvas: the
 * same on every instruction set, thread count, compiler and machine (with SLEEF 3.5, whose exp, sin, cos and pow are part of it). */
static void logits_hash(void **state)
{
    (void)state;
    uint64_t hash = 14695981039346656037u;
    const struct quant_format *const formats[] = { NULL, &format_q8_0, &format_q4_0, &format_q4_k, &format_q6_k };
    int32_t ids[70];
    for (int i = 0; i < 70; i++) ids[i] = 53 * i % 479;
    for (size_t c = 0; c < ARRAY_LEN(checkpoints); c++)
        for (size_t q = 0; q < ARRAY_LEN(formats); q++) {
            if (formats[q] && formats[q]->block == KBLOCK && strcmp(checkpoints[c], "llada-k256") != 0) continue;
            struct fixture f = formats[q] ? quantized(checkpoints[c], formats[q]) : fixture_open(checkpoints[c]);
            struct seen s = run_forward(&f, ids, 70, NULL);
            hash = hash_of(hash, &s);
            free(s.logits);
            free(s.hidden);
            fixture_close(&f);
        }
    struct seen s = run_long(&format_q8_0);
    hash = hash_of(hash, &s);
    free(s.logits); free(s.hidden);
    print_message("logits hash %016llx on %s, %d threads\n", (unsigned long long)hash, isa, n_threads);
    if (SLEEF_VERSION_MAJOR == 3 && SLEEF_VERSION_MINOR == 5) assert_true(hash == LOGITS_HASH);
    else print_message("(not compared: the stored hash was made with SLEEF 3.5)\n");
}

/* ---- trajectories ---- */

enum { MOST_STATES = 64, MOST_BATCH = 2, MOST_LENGTH = 128 };
struct trajectory {
    char name[64], cache[16];
    const char *reuse;
    struct unmask_options o;
    int states, batch, length, n_prompt;
    int32_t state[MOST_STATES][MOST_BATCH][MOST_LENGTH];
    uint8_t key_mask[MOST_BATCH][MOST_LENGTH];
    bool masked;
};

static int numbers(char *s, int32_t *v)
{
    int n = 0;
    for (char *save = NULL, *w = strtok_r(s, " \n", &save); w; w = strtok_r(NULL, " \n", &save)) v[n++] = atoi(w);
    return n;
}

static void set_option(struct trajectory *t, const char *name, const char *value)
{
    const double v = atof(value);
    if (!strcmp(name, "steps")) t->o.steps = atoi(value);
    else if (!strcmp(name, "gen_length")) t->o.gen_length = atoi(value);
    else if (!strcmp(name, "block_length")) t->o.block_length = atoi(value);
    else if (!strcmp(name, "temperature")) t->o.temperature = (float)v;
    else if (!strcmp(name, "cfg_scale")) t->o.cfg_scale = (float)v;
    else if (!strcmp(name, "threshold")) t->o.threshold = (float)v;
    else if (!strcmp(name, "factor")) t->o.factor = (float)v;
    else if (!strcmp(name, "remasking")) t->o.remasking = strcmp(value, "random") ? UNMASK_LOW_CONFIDENCE : UNMASK_RANDOM;
    else if (!strcmp(name, "logits_eos_inf")) t->o.logits_eos_inf = true;
    else if (!strcmp(name, "confidence_eos_eot_inf")) t->o.confidence_eos_eot_inf = true;
    else if (!strcmp(name, "cache")) snprintf(t->cache, sizeof t->cache, "%.15s", value);
    else fail_msg("unknown arg %s", name);
}

/* The next case of a trajectory file; false at its end. */
static bool next_case(FILE *file, struct trajectory *t)
{
    static char line[16384];
    char a[64], b[64];
    int row, n = 0, masks = 0, at;
    memset(t, 0, sizeof *t);
    while (fgets(line, sizeof line, file)) {
        if (!strcmp(line, "end\n")) return true;
        if (line[0] == '\n') continue;
        if (sscanf(line, "case %63s", t->name) == 1 || !strncmp(line, "sampler", 7) || !strncmp(line, "answer", 6)) continue;
        if (sscanf(line, "arg %63s %63s", a, b) == 2) set_option(t, a, b);
        else if (sscanf(line, "seed %63s", a) == 1) t->o.seed = (uint64_t)atoll(a);
        else if (sscanf(line, "dims %d %d %d", &t->states, &t->batch, &t->length) == 3)
            assert_true(t->states <= MOST_STATES && t->length <= MOST_LENGTH);
        else if (sscanf(line, "state %d %d %n", &n, &row, &at) == 2) assert_int_equal(numbers(line + at, t->state[n][row]), t->length);
        else if (!strncmp(line, "attention_mask ", 15)) {
            int32_t bits[MOST_LENGTH];
            const int k = numbers(line + 15, bits);
            for (int i = 0; i < t->length; i++) t->key_mask[masks][i] = i >= k || bits[i];
            t->masked = true;
            masks++;
        } else if (strncmp(line, "prompt ", 7)) fail_msg("unknown line %s", line);
    }
    return false;
}

struct walk { const struct trajectory *t; int row, seen; const char *where; };

static bool compare_state(void *user, const struct unmask_step *s)
{
    struct walk *w = user;
    if (s->step < w->t->states) {
        for (int i = 0; i < s->n_canvas; i++)
            if (s->canvas[i] != w->t->state[s->step][w->row][i])
                fail_msg("%s %s row %d: state %d, position %d: %d, want %d", w->where, w->t->name, w->row, s->step, i, s->canvas[i],
                         w->t->state[s->step][w->row][i]);
        w->seen++;
    }
    return true;
}

static void run_trajectory(struct fixture *f, const struct trajectory *t)
{
    struct unmask_err err;
    for (int row = 0; row < t->batch; row++) {
        int32_t canvas[MOST_LENGTH];
        int block_end[MOST_LENGTH];
        struct walk w = { t, row, 0, f->name };
        struct denoise d = { .m = f->m, .f = NULL, .pool = f->s->pool, .o = &t->o, .canvas = canvas, .n_canvas = t->length,
                             .n_prompt = t->length - t->o.gen_length, .block_start = t->length - t->o.gen_length, .block_end = block_end,
                             .n_blocks = t->o.gen_length / t->o.block_length, .row = row, .key_mask = t->masked ? t->key_mask[row] : NULL,
                             .on_step = compare_state, .user = &w };
        memcpy(canvas, t->state[0][row], sizeof canvas);
        for (int b = 0; b < d.n_blocks; b++) block_end[b] = d.block_start + (b + 1) * t->o.block_length;
        struct reuse_profile profile;
        OK(reuse_profile_read(t->reuse, &profile, &err), err);
        d.reuse = &profile;
        const struct session_need need = { t->length, t->o.cfg_scale > 0 ? 2 : 1, NULL, reuse_layers(d.reuse, f->m->h.n_layer),
                                           { false, false }, false };
        OK(session_room(f->s, &need, &err), err);
        d.f = f->s->f;
        d.store[0] = f->s->store[0];
        d.store[1] = f->s->store[1];
        OK(denoise_work_open(&d.work, f->m, t->length, denoise_need_of(&d), &err), err);
        enum unmask_finish finish;
        OK(denoise_run(&d, &finish, &err), err);
        denoise_work_close(d.work);
        assert_int_equal(w.seen, t->states);
        assert_int_equal(finish, UNMASK_FINISH_LENGTH);
    }
}

static void trajectories_meet_goldens(const char *file, int least)
{
    static struct trajectory t;
    int n = 0;
    for (size_t c = 0; c < ARRAY_LEN(checkpoints); c++) {
        struct fixture f = fixture_open(checkpoints[c]);
        FILE *in = fopen(golden(f.name, file), "r");
        assert_non_null(in);
        while (next_case(in, &t)) {
            const char *const full[] = { "none", "exact" }, *const cached[] = { t.cache };
            const bool cache = t.cache[0] && strcmp(t.cache, "none");
            for (int i = 0; i < (cache ? 1 : 2); i++, n++) {
                t.reuse = (cache ? cached : full)[i];
                run_trajectory(&f, &t);
            }
        }
        fclose(in);
        fixture_close(&f);
    }
    print_message("%d trajectories identical\n", n);
    assert_true(n >= least);
}

static void llada_trajectories(void **state) { (void)state; trajectories_meet_goldens("llada.txt", 108); }
static void reuse_trajectories(void **state) { (void)state; trajectories_meet_goldens("reuse.txt", 30); }
static void fast_trajectories(void **state) { (void)state; trajectories_meet_goldens("fast.txt", 100); }

/* ---- likelihood ---- */

static void likelihood_meets_goldens(void **state)
{
    (void)state;
    struct unmask_err err;
    for (size_t c = 0; c < ARRAY_LEN(checkpoints); c++) {
        struct fixture f = fixture_open(checkpoints[c]);
        json_t *all = json_load_file(golden(f.name, "likelihood.json"), 0, NULL), *one;
        size_t i;
        json_array_foreach(json_object_get(all, "cases"), i, one) {
            int32_t ids[256], noisy[256];
            const int n_prompt = read_ids(json_object_get(one, "prompt"), ids);
            const int n = n_prompt + read_ids(json_object_get(one, "answer"), ids + n_prompt);
            json_t *batches = json_object_get(one, "noisy"), *fractions = json_object_get(one, "p_mask");
            double mean = 0;
            for (size_t b = 0; b < json_array_size(batches); b++) {
                json_t *rows = json_array_get(batches, b);
                double sum = 0;
                for (size_t r = 0; r < json_array_size(rows); r++) {
                    double loss;
                    assert_int_equal(read_ids(json_array_get(rows, r), noisy), n);
                    OK(likelihood_draw(f.s, ids, noisy, n, n_prompt, json_number_value(json_array_get(json_array_get(fractions, b), r)),
                                       (float)json_number_value(json_object_get(one, "cfg_scale")), &loss, &err), err);
                    sum += loss;
                }
                mean += sum / (double)json_array_size(rows);
            }
            const double got = -mean / (double)json_array_size(batches), want = json_number_value(json_object_get(one, "value"));
            if (!(fabs(got - want) <= 1e-4 * fabs(want))) fail_msg("%s case %zu: %.6f, want %.6f", f.name, i, got, want);
        }
        assert_true(i >= 4);
        json_decref(all);
        fixture_close(&f);
    }
}

/* The estimator with its own masks: deterministic, and one masked token of one is its log-probability exactly. */
static void likelihood_estimator(void **state)
{
    (void)state;
    struct unmask_err err;
    struct fixture f = fixture_open("llada-tiny");
    const int32_t prompt[] = { 480, 17, 42, 9 }, answer[] = { 101, 102, 103, 104, 105 };
    double a, b, one, loss;
    OK(unmask_likelihood(f.s, prompt, 4, answer, 5, 32, 0, 7, &a, &err), err);
    OK(unmask_likelihood(f.s, prompt, 4, answer, 5, 32, 0, 7, &b, &err), err);
    assert_true(a == b && a < 0);
    OK(unmask_likelihood(f.s, prompt, 4, answer, 1, 3, 0, 7, &one, &err), err);
    const int32_t ids[] = { 480, 17, 42, 9, 101 }, noisy[] = { 480, 17, 42, 9, f.m->h.mask_id };
    OK(likelihood_draw(f.s, ids, noisy, 5, 4, 1, 0, &loss, &err), err);
    assert_true(fabs(one + loss) < 1e-9);
    fixture_close(&f);
}

static int clean(void **state) { (void)state; scratch_remove(); return 0; }

int main(int argc, char **argv)
{
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--isa")) isa = argv[i + 1];
        if (!strcmp(argv[i], "-t")) n_threads = atoi(argv[i + 1]);
        if (!strcmp(argv[i], "--only")) cmocka_set_test_filter(argv[i + 1]);
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_meets_goldens), cmocka_unit_test(attention_is_bidirectional), cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(quantized_forward_meets_the_oracle), cmocka_unit_test(k_quants_meet_their_numbers),
        cmocka_unit_test(files_change_no_bit), cmocka_unit_test(logits_hash), cmocka_unit_test(a_long_canvas_is_near_float32),
        cmocka_unit_test(llada_trajectories), cmocka_unit_test(fast_trajectories),
        cmocka_unit_test(reuse_trajectories), cmocka_unit_test(likelihood_meets_goldens),
        cmocka_unit_test(likelihood_estimator),
    };
    return cmocka_run_group_tests(tests, NULL, clean);
}
