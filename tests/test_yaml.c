/* test_yaml.c - configuration files: what is read, and what is refused with its place. */
#include "testing.h"

#include <sys/stat.h>

#include "configfile.h"
#include "mem.h"
#include "options.h"

static struct arena arena;
static struct settings s;
static struct unmask_err err;

static bool read_file(const char *path)
{
    char flag[] = "-c", name[600], *argv[] = { flag, name };
    snprintf(name, sizeof name, "%s", path);
    arena_free(&arena);
    return settings_open(&s, &arena, CMD_RUN, "run", 2, argv, &err);
}

static bool read_bytes(const char *text, size_t n) { return read_file(scratch_write("config.yaml", text, n)); }
static bool read_yaml(const char *text) { return read_bytes(text, strlen(text)); }

static void refused(const char *text, const char *id, const char *part, const char *part2)
{
    if (read_yaml(text)) fail_msg("accepted: %s", text);
    expect_err(&err, id, "config.yaml", part, part2, NULL);
    assert_int_equal(err.status, UNMASK_EUSAGE);
}

static int no_files(void **state)
{
    (void)state;
    setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
    return 0;
}

static int cleanup(void **state)
{
    (void)state;
    arena_free(&arena);
    scratch_remove();
    return 0;
}

static void sections_become_settings(void **state)
{
    (void)state;
    OK(read_yaml("# comment\nmodel:\n  path: \"a model.gguf\"\ndiffusion: { gen_length: 64, threshold: 0.8, early_stop: false }\n"
                 "sampling:\n  temperature: .5\n  seed: -1\nterminal:\n  watch: off\n"), err);
    assert_string_equal(s.model, "a model.gguf");
    assert_int_equal(s.gen_length, 64);
    assert_true(s.threshold == 0.8 && s.temperature == 0.5);
    assert_false(s.early_stop);
    assert_int_equal(s.watch, OFF);
    assert_int_equal(s.origin[OPT_GEN_LENGTH], FROM_YAML);
}

static void empty_files_leave_the_defaults(void **state)
{
    (void)state;
    const char *const texts[] = { "", "\n\n", "# only a comment\n", "---\n", "---\n...\n",
                                  "\xEF\xBB\xBF", "\xEF\xBB\xBF# with a byte order mark\n",
                                  "diffusion:\n  # steps: 4\nsampling:\n", "diffusion: {}\n" };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        OK(read_yaml(texts[i]), err);
        assert_int_equal(s.origin[OPT_STEPS], FROM_DEFAULT);
    }
    OK(read_yaml("\xEF\xBB\xBF" "diffusion:\n  steps: 4\n"), err);
    assert_int_equal(s.steps, 4);
}

static void unknown_keys_have_a_place_and_a_suggestion(void **state)
{
    (void)state;
    refused("model:\n  path: x\ncompute:\n  thread: 4\n", "E-YAML-005", "compute.thread, line 4, column 3",
            "Did you mean `compute.threads`?");
    refused("thread: 4\n", "E-YAML-005", "line 1, column 1", "Did you mean `compute.threads`?");
    refused("difusion:\n  steps: 4\n", "E-YAML-005", "line 2, column 3", "Did you mean `diffusion.steps`?");
    refused("a: {}\n", "E-YAML-005", "line 1", NULL);
    refused("zzzzzzzz: 1\n", "E-YAML-005", "zzzzzzzz, line 1, column 1", NULL);
    refused("\"a\\x1bb\": 1\n", "E-YAML-005", "a\\x1bb", NULL);
}

static void duplicate_keys_name_both_lines(void **state)
{
    (void)state;
    refused("diffusion:\n  steps: 4\n  steps: 5\n", "E-YAML-004", "diffusion.steps", "lines 2 and 3");
    refused("diffusion:\n  steps: 4\nsampling:\n  seed: 1\ndiffusion:\n  factor: 1\n", "E-YAML-004", "diffusion", "lines 1 and 5");
}

static void malformed_files_have_a_place(void **state)
{
    (void)state;
    refused("diffusion:\n\tsteps: 4\n", "E-YAML-001", "line 2, column 1", "column 1): found character that cannot start any token");
    refused("diffusion:\n  steps: 4\n bad: 5\n", "E-YAML-001", "line 3", NULL);
    refused("model:\n  path: \"x\n", "E-YAML-001", "line 3", NULL);
    refused("diffusion: {steps: 4\n", "E-YAML-001", "line 2", NULL);
    refused("just text\n", "E-YAML-001", "line 1, column 1", "lines of `key: value`");
    refused("- a\n- b\n", "E-YAML-001", "a list", "lines of `key: value`");
    refused("a: \x01\n", "E-YAML-001", "line 1, column 4", "byte 0x01");
    refused("\xC3\xA4: 1 # \xFF\n", "E-YAML-001", "line 1, column 8", "byte 0xff");
    refused("model:\n  path: \xED\xA0\x80\n", "E-YAML-001", "line 2, column 9", "byte 0xed");
    refused("\xFF\xFE" "a", "E-YAML-001", "line 1, column 1", "byte 0xff");
    assert_false(read_bytes("a: b\0c\n", 7));
    expect_err(&err, "E-YAML-001", "line 1, column 5", "byte 0x00", NULL);
    assert_false(read_bytes("a\0:\0 \0", 6));    /* UTF-16 */
    expect_err(&err, "E-YAML-001", "line 1, column 2", NULL);
}

static void features_beyond_keys_and_values(void **state)
{
    (void)state;
    refused("diffusion: &a\n  steps: 4\n", "E-YAML-002", "line 1", "anchor");
    refused("model:\n  path: &a x\n", "E-YAML-002", "line 2, column 9", "anchor");
    refused("model:\n  path: *a\n", "E-YAML-002", "line 2, column 9", "alias");
    refused("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n", "E-YAML-002", "line 1", "anchor");
    refused("diffusion:\n  <<: { steps: 4 }\n", "E-YAML-002", "line 2, column 3", "merge key");
    refused("diffusion:\n  steps: !!int 4\n", "E-YAML-002", "line 2, column 10", "tag");
    refused("model:\n  path: !!binary aGk=\n", "E-YAML-002", "line 2", "tag");
    refused("model: !mine\n  path: x\n", "E-YAML-002", "line 1", "tag");
    refused("diffusion:\n  steps: 4\n---\ndiffusion:\n  steps: 5\n", "E-YAML-002", "line 3", "second document");
    refused("? [a, b]\n: 1\n", "E-YAML-002", "line 1", "not a word");
    refused("a: [{b: 1}]\n", "E-YAML-002", "line 1, column 5", "a mapping in a list");
    refused("a: [[c]]\n", "E-YAML-002", "line 1, column 5", "a list in a list");
}

/* libyaml itself has no limit on depth. */
static void deep_files_are_refused_at_the_ninth_level(void **state)
{
    (void)state;
    refused("a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}\n", "E-YAML-003", "more than 8 levels", NULL);
    static char deep[60000];
    for (size_t i = 0; i < sizeof deep; i++) deep[i] = "{a: "[i % 4];
    assert_false(read_bytes(deep + 1, sizeof deep - 1));
    expect_err(&err, "E-YAML-003", "more than 8 levels", NULL);
}

static void large_files_are_refused(void **state)
{
    (void)state;
    static char big[66 << 10];
    memset(big, '#', sizeof big);
    OK(read_bytes(big, 64 << 10), err);
    assert_false(read_bytes(big, 65 << 10));
    expect_err(&err, "E-YAML-003", "config.yaml", "at most 65536 bytes", NULL);
    assert_int_equal(err.status, UNMASK_EUSAGE);
    const char *sparse = scratch("sparse.yaml");
    FILE *f = fopen(sparse, "wb");
    assert_true(f && ftruncate(fileno(f), 1 << 30) == 0 && fclose(f) == 0);
    assert_false(read_file(sparse));
    assert_int_equal(err.status, UNMASK_EUSAGE);

    memset(big, 'k', 300);
    memcpy(big + 300, ": 1\n", 5);
    refused(big, "E-YAML-003", "a key of 300 bytes", NULL);
    memcpy(big, "model:\n  path: ", 15);
    memset(big + 15, 'v', 5000);
    big[5015] = 0;
    refused(big, "E-YAML-003", "a value of 5000 bytes", NULL);
}

static bool any(void *user, const struct yaml_value *v, struct unmask_err *e)
{
    (void)v;
    (void)e;
    ++*(int *)user;
    return true;
}

static void at_most_512_keys(void **state)
{
    (void)state;
    static char text[20000];
    size_t n = 0;
    int count = 0;
    for (int i = 0; i < 512; i++) n += (size_t)snprintf(text + n, sizeof text - n, "k%d: %d\n", i, i);
    OK(yaml_read(scratch_write("keys.yaml", text, n), any, &count, &err), err);
    assert_int_equal(count, 512);
    n += (size_t)snprintf(text + n, sizeof text - n, "k512: 0\n");
    assert_false(yaml_read(scratch_write("keys.yaml", text, n), any, &count, &err));
    expect_err(&err, "E-YAML-003", "more than 512 keys", NULL);
}

static void what_is_no_regular_file(void **state)
{
    (void)state;
    const char *const places[] = { "/dev/zero", "/tmp", "/nonexistent/config.yaml" };
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        assert_false(read_file(places[i]));
        assert_int_equal(err.status, UNMASK_EIO);
    }
    const char *fifo = scratch("fifo");
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_false(read_file(fifo));
    expect_err(&err, "E-FILE-002", fifo, NULL);
    const char *link = scratch("dangling");
    assert_int_equal(symlink("/nonexistent", link), 0);
    assert_false(read_file(link));
    assert_int_equal(err.status, UNMASK_EIO);
}

static void values_are_strict(void **state)
{
    (void)state;
    static const char *const numbers[] = { "no", "on", "0o17", "1_000", "1e3", ".nan", "~", "null", "",
                                           "\"4\"", "0x10", "4.0", "+4", "[4]", "{}", "[]" };
    char text[200];
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        snprintf(text, sizeof text, "diffusion:\n  steps: %s\n", numbers[i]);
        refused(text, "E-YAML-006", "diffusion.steps, line 2, column 3", NULL);
    }
    refused("diffusion:\n  steps: 1_000\n", "E-YAML-006", "found 1_000", "a whole number from 1 to");
    refused("diffusion:\n  steps: [4, 5]\n", "E-YAML-006", "found a list", NULL);
    refused("sampling:\n  temperature: \"0.7\"\n", "E-YAML-006", "\"0.7\" in quotes", "a number from 0 to 2");
    refused("sampling:\n  temperature: .inf\n", "E-YAML-006", "found .inf", "a number from 0 to 2");
    refused("diffusion:\n  early_stop: on\n", "E-YAML-006", "found on", "true or false");
    refused("diffusion:\n  logits_eos_inf: yes\n", "E-YAML-006", "found yes", "true or false");
    refused("diffusion: 4\n", "E-YAML-006", "diffusion, line 1, column 1", "need keys below it");
    refused("diffusion: [4]\n", "E-YAML-006", "diffusion, line 1, column 1", "need keys below it");
    refused("model:\n  path: ~\n", "E-YAML-006", "found no value", NULL);
}

/* Every configuration that comes along is read without complaint. */
static void shipped_configurations(void **state)
{
    (void)state;
    const char *const names[] = { "default", "laptop", "raspberry-pi-5", "raspberry-pi-4" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char path[100];
        snprintf(path, sizeof path, "configs/%s.yaml", names[i]);
        OK(read_file(path), err);
    }
}

/* configs/default.yaml holds every key, and says what holds anyway. */
static void the_default_configuration_is_the_default(void **state)
{
    (void)state;
    static const char *const keys[] = {
#define X(id, flag, aliases, key, ...) key,
#include "options.def"
#undef X
    };
    static char text[20000];
    FILE *f = fopen("configs/default.yaml", "rb");
    assert_non_null(f);
    const size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char line[80];
        if (!keys[i]) continue;
        snprintf(line, sizeof line, " %s:", strchr(keys[i], '.') + 1);
        if (!strstr(text, line)) fail_msg("configs/default.yaml lacks %s", keys[i]);
    }
    OK(read_file("configs/default.yaml"), err);
    const struct settings with = s;
    struct arena other = { NULL };
    OK(settings_open(&s, &other, CMD_RUN, "run", 0, NULL, &err), err);
    assert_true(with.threads == s.threads && !strcmp(with.isa, s.isa) && with.remasking == s.remasking && with.cfg_scale == s.cfg_scale
                && with.logits_eos_inf == s.logits_eos_inf && with.confidence_eos_eot_inf == s.confidence_eos_eot_inf
                && with.early_stop == s.early_stop && with.temperature == s.temperature && with.seed == s.seed && with.color == s.color
                && with.watch == s.watch && with.gen_length == s.gen_length && with.threshold == s.threshold && with.steps == s.steps);
    arena_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sections_become_settings), cmocka_unit_test(empty_files_leave_the_defaults),
        cmocka_unit_test(unknown_keys_have_a_place_and_a_suggestion), cmocka_unit_test(duplicate_keys_name_both_lines),
        cmocka_unit_test(malformed_files_have_a_place), cmocka_unit_test(features_beyond_keys_and_values),
        cmocka_unit_test(deep_files_are_refused_at_the_ninth_level), cmocka_unit_test(large_files_are_refused),
        cmocka_unit_test(at_most_512_keys), cmocka_unit_test(what_is_no_regular_file), cmocka_unit_test(values_are_strict),
        cmocka_unit_test(shipped_configurations), cmocka_unit_test(the_default_configuration_is_the_default),
    };
    return cmocka_run_group_tests(tests, no_files, cleanup);
}
