/* test_faults.c - quantize while things go wrong: the n-th write, fsync, rename or allocation fails, for every n; the process
 * is killed there, and at random moments.  Whatever happens, the target is its old self or the complete new file.
 * Allocations are those of our own code: libraries keep the system's.
 * The linker puts the functions __wrap_... of this file in the place of the system's (Makefile). */
#include "testing.h"

#include <dirent.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <sys/wait.h>

#include "checkpoint.h"
#include "quantize.h"
#include "unmask.h"
#include "verify.h"

#define FROM "tests/data/checkpoints/llada-tied"

/* ---- faults ------------------------------------------------------------------------------------------ */

enum op { ALLOC, WRITE, PWRITE, FSYNC, RENAME, OPS };
enum effect { COUNT, FAIL, HALF, DIE_BEFORE, DIE_AFTER };
static const char op_letters[] = "awpfr";

/* What happens at call number `at` (from 0) of a kind; `log` keeps the order of all but allocations. */
static struct {
    enum op op;
    enum effect effect;
    int why;
    atomic_int at, seen[OPS], live;
    int fill;                                   /* what fresh memory holds */
    char log[512];
    atomic_int n_log;
    bool armed;
} fault;

static void arm(enum op op, enum effect effect, int at, int why)
{
    fault.op = op, fault.effect = effect, fault.why = why, fault.armed = true;
    atomic_store(&fault.at, at);
    atomic_store(&fault.n_log, 0);
    memset(fault.log, 0, sizeof fault.log);
    for (int i = 0; i < OPS; i++) atomic_store(&fault.seen[i], 0);
}

static enum effect here(enum op op)
{
    if (!fault.armed) return COUNT;
    const int n = atomic_fetch_add(&fault.seen[op], 1);
    if (op != ALLOC) {
        const int i = atomic_fetch_add(&fault.n_log, 1);
        if (i < (int)sizeof fault.log - 1) fault.log[i] = op_letters[op];
    }
    return op == fault.op && n == atomic_load(&fault.at) ? fault.effect : COUNT;
}

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
int __real_posix_memalign(void **p, size_t align, size_t n);
void __real_free(void *p);
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __real_pwrite64(int fd, const void *p, size_t n, off_t at);
int __real_fsync(int fd);
int __real_renameat(int from, const char *a, int to, const char *b);

void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
int __wrap_posix_memalign(void **p, size_t align, size_t n);
void __wrap_free(void *p);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at);
int __wrap_fsync(int fd);
int __wrap_renameat(int from, const char *a, int to, const char *b);

static void *fresh(void *p, size_t n)
{
    if (!p) return NULL;
    atomic_fetch_add(&fault.live, 1);
    return memset(p, fault.fill, n);
}

void *__wrap_malloc(size_t n) { return here(ALLOC) == FAIL ? NULL : fresh(__real_malloc(n), n); }

void *__wrap_calloc(size_t n, size_t size)
{
    void *p = here(ALLOC) == FAIL ? NULL : __real_calloc(n, size);
    if (p) atomic_fetch_add(&fault.live, 1);
    return p;
}

void *__wrap_realloc(void *p, size_t n)         /* always to a new place, so that what is new is known */
{
    if (!p) return __wrap_malloc(n);
    if (here(ALLOC) == FAIL) return NULL;
    const size_t had = malloc_usable_size(p);
    void *q = __real_malloc(n);
    if (!q) return NULL;
    memset(q, fault.fill, n);
    memcpy(q, p, had < n ? had : n);
    __real_free(p);
    return q;
}

int __wrap_posix_memalign(void **p, size_t align, size_t n)
{
    if (here(ALLOC) == FAIL) return ENOMEM;
    const int status = __real_posix_memalign(p, align, n);
    if (status == 0) fresh(*p, n);
    return status;
}

void __wrap_free(void *p)
{
    if (p) atomic_fetch_sub(&fault.live, 1);
    __real_free(p);
}

static void die(void) { raise(SIGKILL); }

#define FAULTY(op, failed, call, half_call) do { \
    const enum effect effect = here(op); \
    if (effect == FAIL) { errno = fault.why; return failed; } \
    if (effect == DIE_BEFORE) die(); \
    const __typeof__(failed) result = effect == HALF ? half_call : call; \
    if (effect == DIE_AFTER) die(); \
    return result; \
} while (0)

ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    FAULTY(WRITE, (ssize_t)-1, __real_write(fd, p, n), __real_write(fd, p, (n + 1) / 2));
}

ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
    FAULTY(PWRITE, (ssize_t)-1, __real_pwrite(fd, p, n, at), __real_pwrite(fd, p, (n + 1) / 2, at));
}

ssize_t __wrap_pwrite64(int fd, const void *p, size_t n, off_t at)
{
    FAULTY(PWRITE, (ssize_t)-1, __real_pwrite64(fd, p, n, at), __real_pwrite64(fd, p, (n + 1) / 2, at));
}

int __wrap_fsync(int fd) { FAULTY(FSYNC, -1, __real_fsync(fd), __real_fsync(fd)); }

int __wrap_renameat(int from, const char *a, int to, const char *b)
{
    FAULTY(RENAME, -1, __real_renameat(from, a, to, b), __real_renameat(from, a, to, b));
}

/* ---- what is written, and what must be there ------------------------------------------------------- */

struct content { char *bytes; size_t n; };
static struct content old_file, new_file;
static const char *from = FROM;
static uint64_t own_text;                       /* tokens to calibrate on; 0: plain rounding */

static struct content slurp(const char *path)
{
    struct content c = { NULL, 0 };
    FILE *f = fopen(path, "rb");
    if (!f) return c;
    fseek(f, 0, SEEK_END);
    c.n = (size_t)ftell(f);
    rewind(f);
    c.bytes = test_malloc(c.n + 1);
    assert_int_equal(fread(c.bytes, 1, c.n, f), c.n);
    fclose(f);
    return c;
}

static bool same(const struct content *a, const struct content *b) { return a->bytes && a->n == b->n && !memcmp(a->bytes, b->bytes, a->n); }

static bool quantize_to(const char *out, uint64_t split_bytes, int threads, struct unmask_err *err)
{
    struct quantize_report report;
    const struct quantize_options o = { .format = &format_q4_0, .threads = threads, .force = true,
                                        .split_bytes = split_bytes, .own_text = own_text };
    return quantize_file(from, out, &o, &report, err);
}

static void put_old(void) { scratch_write("t.gguf", old_file.bytes, old_file.n); }

/* 'o' old, 'n' new, or a failed test. */
static char state_of_target(const char *when, int n)
{
    struct content c = slurp(scratch("t.gguf"));
    const char state = same(&c, &old_file) ? 'o' : same(&c, &new_file) ? 'n' : '?';
    if (c.bytes) test_free(c.bytes);
    if (state == '?') fail_msg("%s, call %d: the target is neither the old file nor the new one", when, n);
    return state;
}

static int parts_left(bool remove_them)
{
    int n = 0;
    DIR *d = opendir(scratch_path);
    for (const struct dirent *e; (e = readdir(d)); ) {
        if (strncmp(e->d_name, ".unmask-", 8) != 0) continue;
        n++;
        if (remove_them) unlink(scratch(e->d_name));
    }
    closedir(d);
    return n;
}

static int make_files(void **state)
{
    (void)state;
    struct unmask_err err;
    struct quantize_report report;
    OK(quantize_file(FROM, scratch("old.gguf"), &(struct quantize_options){ .format = &format_f16, .threads = 1 }, &report, &err), err);
    OK(quantize_to(scratch("new.gguf"), 0, 1, &err), err);
    old_file = slurp(scratch("old.gguf"));
    new_file = slurp(scratch("new.gguf"));
    return 0;
}

static int clean(void **state)
{
    (void)state;
    test_free(old_file.bytes);
    test_free(new_file.bytes);
    scratch_remove();
    return 0;
}

/* ---- tests ------------------------------------------------------------------------------------------- */

/* Fail call after call of a kind, until a run has no call of that number; returns how many there were. */
static int fail_each(enum op op, enum effect effect, int why, int step)
{
    struct unmask_err err;
    for (int n = 0; ; n += step) {
        put_old();
        const int live = atomic_load(&fault.live);
        arm(op, effect, n, why);
        const bool ok = quantize_to(scratch("t.gguf"), 0, 1, &err);
        fault.armed = false;
        if (atomic_load(&fault.live) != live)
            fail_msg("call %d of %c: %d allocations are not given back", n, op_letters[op], atomic_load(&fault.live) - live);
        const char state = state_of_target("a call that fails", n);
        if (ok) assert_int_equal(state, 'n');
        else {
            const bool renamed = op == FSYNC && n == 2;         /* of the folder: the file has its name already */
            assert_int_equal(state, renamed ? 'n' : 'o');
            if (err.status != (op == ALLOC ? UNMASK_EMEMORY : UNMASK_EIO)) expect_err(&err, "another status", NULL);
            assert_true(err.file[0] || op == ALLOC);
        }
        assert_int_equal(parts_left(false), !ok && op == RENAME ? 1 : 0);       /* the work of hours keeps its temporary name */
        parts_left(true);
        if (atomic_load(&fault.seen[op]) <= n) return n;
    }
}

static void a_failing_write_keeps_the_old_file(void **state)
{
    (void)state;
    assert_true(fail_each(WRITE, FAIL, ENOSPC, 1) > 26);
    assert_int_equal(fail_each(PWRITE, FAIL, EIO, 1), 1);
    struct unmask_err err;
    put_old();
    arm(WRITE, FAIL, 5, ENOSPC);
    assert_false(quantize_to(scratch("t.gguf"), 0, 1, &err));
    fault.armed = false;
    expect_err(&err, "E-FILE-006", "No space left", "Free some space", NULL);
}

static void a_short_write_is_completed(void **state)
{
    (void)state;
    assert_true(fail_each(WRITE, HALF, 0, 1) > 26);
    assert_true(fail_each(PWRITE, HALF, 0, 1) >= 1);
    fail_each(WRITE, FAIL, EINTR, 1);
}

static void a_failing_fsync_or_rename_is_told(void **state)
{
    (void)state;
    struct unmask_err err;
    assert_int_equal(fail_each(FSYNC, FAIL, EIO, 1), 3);
    assert_int_equal(fail_each(RENAME, FAIL, EXDEV, 1), 1);
    put_old();
    arm(RENAME, FAIL, 0, EACCES);
    assert_false(quantize_to(scratch("t.gguf"), 0, 1, &err));
    fault.armed = false;
    expect_err(&err, "E-FILE-011", "Permission denied", "The result is", ".done", NULL);
    DIR *d = opendir(scratch_path);
    for (const struct dirent *e; (e = readdir(d)); )
        if (strstr(e->d_name, ".done")) {
            struct content kept = slurp(scratch(e->d_name));
            assert_true(same(&kept, &new_file));
            test_free(kept.bytes);
        }
    closedir(d);
    parts_left(true);
}

static void memory_that_runs_out_keeps_the_old_file(void **state)
{
    (void)state;
    assert_true(fail_each(ALLOC, FAIL, ENOMEM, 1) > 100);
    struct unmask_err err;
    struct quantize_report report;
    char parts[512];
    const struct quantize_options o = { .format = &format_f32, .threads = 1, .split_bytes = 200000 };
    OK(quantize_file(FROM, scratch("in.gguf"), &o, &report, &err), err);
    assert_true(report.n_files > 2);
    snprintf(parts, sizeof parts, "%s-00001-of-%05zu.gguf", scratch("in"), report.n_files);
    from = parts;                               /* the same model out of several GGUF files gives the same bytes */
    assert_true(fail_each(ALLOC, FAIL, ENOMEM, 1) > 60);
    from = FROM;
}

static void memory_that_runs_out_while_calibrating_keeps_it_too(void **state)
{
    (void)state;
    struct unmask_err err;
    const struct content plain = new_file;
    own_text = 100;
    OK(quantize_to(scratch("new.gguf"), 0, 1, &err), err);
    new_file = slurp(scratch("new.gguf"));
    assert_false(same(&plain, &new_file));
    assert_true(fail_each(ALLOC, FAIL, ENOMEM, 3) > 300);
    own_text = 0;
    test_free(new_file.bytes);
    new_file = plain;
}

/* What a machine that loses power may not reorder: all writes, fsync of the file, its name, fsync of the folder. */
static void names_come_after_the_bytes(void **state)
{
    (void)state;
    struct unmask_err err;
    put_old();
    arm(OPS, COUNT, 0, 0);
    OK(quantize_to(scratch("t.gguf"), 0, 2, &err), err);
    fault.armed = false;
    const size_t n = strlen(fault.log);
    assert_true(n > 30 && strcmp(fault.log + n - 5, "pffrf") == 0 && strspn(fault.log, "w") == n - 5);
}

static void run_child(enum op op, enum effect effect, int at)
{
    struct unmask_err err;
    arm(op, effect, at, 0);
    _exit(quantize_to(scratch("t.gguf"), 0, 1, &err) ? 0 : 1);
}

static void killed_at_every_call(void **state)
{
    (void)state;
    static const struct { enum op op; enum effect effect; } rows[] = {
        { WRITE, DIE_BEFORE }, { PWRITE, DIE_BEFORE }, { PWRITE, DIE_AFTER },
        { FSYNC, DIE_BEFORE }, { FSYNC, DIE_AFTER }, { RENAME, DIE_BEFORE }, { RENAME, DIE_AFTER },
    };
    for (size_t r = 0; r < ARRAY_LEN(rows); r++)
        for (int n = 0; ; n++) {
            int status;
            put_old();
            const pid_t child = fork();
            if (child == 0) run_child(rows[r].op, rows[r].effect, n);
            assert_int_equal(waitpid(child, &status, 0), child);
            const char now = state_of_target("killed", n);
            if (!WIFSIGNALED(status)) {
                assert_int_equal(WEXITSTATUS(status), 0);
                assert_int_equal(now, 'n');
                break;
            }
            const bool renamed = (rows[r].op == RENAME && rows[r].effect == DIE_AFTER) || (rows[r].op == FSYNC && n == 2);
            assert_int_equal(now, renamed ? 'n' : 'o');
        }
    struct unmask_err err;
    OK(quantize_to(scratch("t.gguf"), 0, 1, &err), err);
    assert_int_equal(parts_left(false), 0);     /* the next run clears up after killed ones */
}

static void killed_at_200_random_moments(void **state)
{
    (void)state;
    struct timespec t0, t1;
    struct unmask_err err;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    OK(quantize_to(scratch("t.gguf"), 0, 2, &err), err);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    const double whole = (double)(t1.tv_sec - t0.tv_sec) * 1e9 + (double)(t1.tv_nsec - t0.tv_nsec);
    uint32_t random = 20;
    int killed = 0, old = 0;
    for (int i = 0; i < 200; i++) {
        int status;
        random = random * 1664525 + 1013904223;
        const long ns = (long)(whole * 1.3 * (double)(random >> 8) / 16777216.0);
        put_old();
        const pid_t child = fork();
        if (child == 0) _exit(quantize_to(scratch("t.gguf"), 0, 2, &err) ? 0 : 1);
        nanosleep(&(struct timespec){ ns / 1000000000, ns % 1000000000 }, NULL);
        kill(child, SIGKILL);
        assert_int_equal(waitpid(child, &status, 0), child);
        killed += WIFSIGNALED(status);
        old += state_of_target("killed at a random moment", i) == 'o';
    }
    print_message("killed %d of 200 runs, the old file was left %d times\n", killed, old);
    OK(quantize_to(scratch("t.gguf"), 0, 1, &err), err);
    assert_int_equal(parts_left(false), 0);
}

/* Several files: the whole old model, none that can be opened, or the whole new one. */
static void split_models_are_never_mixed(void **state)
{
    (void)state;
    enum { SPLIT = 40000 };
    struct unmask_err err;
    static const struct { enum op op; enum effect effect; } rows[] = {
        { WRITE, FAIL }, { PWRITE, FAIL }, { FSYNC, FAIL }, { RENAME, FAIL },
    };
    for (size_t r = 0; r < ARRAY_LEN(rows); r++)
        for (int n = 0, more = 1; more; n += rows[r].op == WRITE ? 5 : 1) {
            const struct quantize_options older = { .format = &format_q4_0, .threads = 1, .force = true, .split_bytes = SPLIT,
                                                    .set = (const char *const[]){ "general.name=older" }, .n_set = 1 };
            struct quantize_report report;
            OK(quantize_file(FROM, scratch("s.gguf"), &older, &report, &err), err);
            arm(rows[r].op, rows[r].effect, n, EIO);
            const bool ok = quantize_to(scratch("s.gguf"), SPLIT, 1, &err);
            fault.armed = false;
            more = atomic_load(&fault.seen[rows[r].op]) > n;
            assert_true(ok || more);
            struct checkpoint *c;
            char first[64];
            snprintf(first, sizeof first, "s-00001-of-%05zu.gguf", report.n_files);
            parts_left(true);
            if (access(scratch(first), F_OK) != 0) continue;
            struct verify_tensor found[64];
            OK(checkpoint_open(&c, scratch(first), &err), err);
            OK(verify_checkpoint(c, &(struct verify_options){ .threads = 1 }, found, &err), err);
            const struct meta *m = checkpoint_meta(c, "general.name");
            assert_true(m && (ok ? memcmp(m->v.s.s, "llada-tied", 10) == 0 : m->v.s.n > 0));
            checkpoint_close(c);
        }
}

/* Not one part of the result is lost where one cannot get its name: whoever has them can finish the work. */
static void parts_without_their_names_stay(void **state)
{
    (void)state;
    enum { SPLIT = 20000 };
    struct unmask_err err;
    const struct quantize_options o = { .format = &format_q4_0, .threads = 1, .force = true, .split_bytes = SPLIT };
    struct quantize_report report;
    OK(quantize_file(FROM, scratch("n.gguf"), &o, &report, &err), err);
    const int parts = (int)report.n_files;
    assert_true(parts >= 3);
    for (int named = 0; named < parts; named++) {
        arm(RENAME, FAIL, parts + named, EIO);                  /* `parts` renames keep them, then each gets its name */
        assert_false(quantize_to(scratch("n.gguf"), SPLIT, 1, &err));
        fault.armed = false;
        expect_err(&err, "E-FILE-011", ".done",
                   named < parts - 1 ? FMT("The parts 1 to %d of the result", parts - named) : "The result is", NULL);
        assert_int_equal(parts_left(false), parts - named);
        OK(quantize_to(scratch("n.gguf"), SPLIT, 1, &err), err);                /* it takes nothing away */
        assert_int_equal(parts_left(true), parts - named);
    }
}

/* Memory that nobody wrote to holds other bytes in each run: if one of them came into a file, the files would differ. */
static void no_byte_of_fresh_memory_is_written(void **state)
{
    (void)state;
    static const struct { const char *from; const struct quant_format *to; uint64_t own_text; } rows[] = {
        { FROM, &format_q4_0, 0 }, { FROM, &format_q8_0, 0 }, { FROM, &format_f16, 0 }, { FROM, &format_f32, 0 },
        { "tests/data/checkpoints/llada-gqa", &format_q4_0, 0 }, { "tests/data/checkpoints/llada-tiny-bf16", &format_bf16, 0 },
        { "tests/data/checkpoints/llada-k256", &format_q8_0, 0 }, { FROM, &format_q4_0, 300 },
        { "tests/data/checkpoints/llada-k256", &format_q4_k, 300 }, { "tests/data/checkpoints/llada-k256", &format_q6_k, 0 },
    };
    struct unmask_err err;
    struct quantize_report report;
    for (size_t r = 0; r < ARRAY_LEN(rows); r++) {
        static const int fills[] = { 0x00, 0xA5, 0x5A };
        struct content c[ARRAY_LEN(fills)];
        for (size_t f = 0; f < ARRAY_LEN(fills); f++) {
            fault.fill = fills[f];
            const struct quantize_options o = { .format = rows[r].to, .threads = 2, .force = true, .own_text = rows[r].own_text };
            OK(quantize_file(rows[r].from, scratch("canary.gguf"), &o, &report, &err), err);
            c[f] = slurp(scratch("canary.gguf"));
            assert_true(same(&c[0], &c[f]));
        }
        fault.fill = 0;
        for (size_t f = 0; f < ARRAY_LEN(fills); f++) test_free(c[f].bytes);
    }
}

/* Nor does a run look at memory that nobody wrote to: padding, rows that no pass computed, what an earlier run would have left. */
static void no_byte_of_fresh_memory_is_computed_with(void **state)
{
    (void)state;
    static const struct { const char *model, *reuse, *store; float cfg; } runs[] = {
        { "tests/data/checkpoints/llada-gqa", "fast,deep=2", "kv_f32", 0 },
        { "tests/data/checkpoints/llada-gqa", "faithful,every=2", "kv_f16", 1 },
        { "models/unmask-demo-6M-v1.0-Q8_0.gguf", "fast,deep=2,thin=50", "kv_i8", 0 },
        { "models/unmask-demo-6M-v1.0-Q8_0.gguf", "balanced", "kv_i4", 1 }, { "models/unmask-demo-6M-v1.0-Q8_0.gguf", "fast", "hidden", 0 },
    };
    static const int32_t given[] = { 480, 506, 308, 269, 507 };
    static const int fills[] = { 0x00, 0xFF };
    for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
        struct unmask_result r[ARRAY_LEN(fills)];
        for (size_t f = 0; f < ARRAY_LEN(fills); f++) {
            struct unmask_err err;
            struct unmask_model *m;
            struct unmask_session *s;
            struct unmask_options o;
            fault.fill = fills[f];
            OK(unmask_open(&m, runs[i].model, NULL, &err) && unmask_session_open(&s, m, 2, &err), err);
            unmask_options_default(m, &o);
            o.gen_length = 24;
            o.block_length = 8;
            o.steps = 12;
            o.threshold = o.factor = 0;
            o.cfg_scale = runs[i].cfg;
            o.reuse = runs[i].reuse;
            o.store = runs[i].store;
            OK(unmask_generate(s, given, ARRAY_LEN(given), &o, NULL, NULL, &r[f], &err), err);
            unmask_session_close(s);
            unmask_close(m);
            fault.fill = 0;
        }
        assert_int_equal(r[0].n_canvas, r[1].n_canvas);
        assert_memory_equal(r[0].canvas, r[1].canvas, (size_t)r[0].n_canvas * sizeof *r[0].canvas);
        assert_memory_equal(r[0].confidence + ARRAY_LEN(given), r[1].confidence + ARRAY_LEN(given), 24 * sizeof(float));
        for (size_t f = 0; f < ARRAY_LEN(fills); f++) unmask_result_free(&r[f]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_write_keeps_the_old_file),
        cmocka_unit_test(a_short_write_is_completed),
        cmocka_unit_test(a_failing_fsync_or_rename_is_told),
        cmocka_unit_test(memory_that_runs_out_keeps_the_old_file),
        cmocka_unit_test(memory_that_runs_out_while_calibrating_keeps_it_too),
        cmocka_unit_test(names_come_after_the_bytes),
        cmocka_unit_test(killed_at_every_call),
        cmocka_unit_test(killed_at_200_random_moments),
        cmocka_unit_test(split_models_are_never_mixed),
        cmocka_unit_test(parts_without_their_names_stay),
        cmocka_unit_test(no_byte_of_fresh_memory_is_written), cmocka_unit_test(no_byte_of_fresh_memory_is_computed_with),
    };
    return cmocka_run_group_tests(tests, make_files, clean);
}
