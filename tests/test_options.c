/* test_options.c - flags, environment and defaults become settings, or a sentence; configuration files are in test_yaml.c. */
#include "testing.h"

#include <float.h>
#include <sys/stat.h>

#include "mem.h"
#include "options.h"

static struct arena arena;
static struct settings s;
static struct unmask_err err;

/* Settings of `unmask COMMAND flags...`, the flags separated by single spaces ('_' in a flag stands for a space inside it). */
static bool settings(unsigned command, const char *flags)
{
    static char text[4096];
    char *argv[64];
    int argc = 0;
    snprintf(text, sizeof text, "%s", flags);
    for (char *at = text; *at; ) {
        argv[argc++] = at;
        char *space = strchr(at, ' ');
        at = space ? space + 1 : at + strlen(at);
        if (space) *space = 0;
    }
    arena_free(&arena);
    return settings_open(&s, &arena, command, "run", argc, argv, &err);
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

static void refused(const char *flags, const char *id, const char *part, const char *part2)
{
    if (settings(CMD_RUN, flags)) fail_msg("accepted: %s", flags);
    expect_err(&err, id, part, part2, NULL);
    assert_int_equal(err.status, UNMASK_EUSAGE);
}

static void values_of_every_type(void **state)
{
    (void)state;
    OK(settings(CMD_RUN, "--gen-length 40 --steps=20 --temperature 0.5 --remasking random --early-stop off "
                         "--logits-eos-inf --seed 18446744073709551615"
                         " --stop a --stop=b -m x.gguf hello"), err);
    assert_int_equal(s.gen_length, 40);
    assert_int_equal(s.steps, 20);
    assert_true(s.temperature == 0.5);
    assert_int_equal(s.remasking, 1);
    assert_false(s.early_stop);
    assert_true(s.logits_eos_inf);
    assert_true(s.seed == UINT64_MAX);
    assert_int_equal(s.n_stop, 2);
    assert_string_equal(s.stop[0], "a");
    assert_string_equal(s.stop[1], "b");
    assert_string_equal(s.model, "x.gguf");
    assert_int_equal(s.n_args, 1);
    assert_string_equal(s.args[0], "hello");
}

static void defaults_stand_when_nothing_is_given(void **state)
{
    (void)state;
    OK(settings(CMD_RUN, ""), err);
    assert_true(s.early_stop);
    assert_int_equal(s.threads, 0);
    assert_string_equal(s.isa, "auto");
    assert_int_equal(s.origin[OPT_STEPS], FROM_DEFAULT);
    assert_true(s.seed == 0);
}

static void familiar_spellings_are_accepted(void **state)
{
    (void)state;
    const char *const lengths[] = { "-n 7", "-n7", "--max-tokens 7", "--n-predict=7", "--predict 7" };
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        OK(settings(CMD_RUN, lengths[i]), err);
        assert_int_equal(s.gen_length, 7);
    }
    OK(settings(CMD_RUN, "--diffusion-steps 3 --diffusion-block-length 8 --temp 1 -sys x -t2"), err);
    assert_int_equal(s.steps, 3);
    assert_int_equal(s.block_length, 8);
    assert_string_equal(s.system, "x");
    assert_int_equal(s.threads, 2);
}

static void the_last_of_two_counts_and_is_noted(void **state)
{
    (void)state;
    OK(settings(CMD_RUN, "--steps 3 --steps 4 --stop a --stop b"), err);
    assert_int_equal(s.steps, 4);
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    options_notes(&s, f);
    fclose(f);
    assert_string_equal(text, "unmask: note: --steps was given 2 times; the last one counts\n");
    free(text);
}

static void wrong_numbers_are_refused(void **state)
{
    (void)state;
    static const struct { const char *flag, *values, *need; } rows[] = {
        { "--threads", "-1|257|1024|99999999999|4x|0x4|+4|4.0|1e1|AUTO", "a whole number from 0 to 256, or auto" },
        { "--steps", "0|-1|2147483648|99999999999999999999|x", "a whole number from 1 to" },
        { "--gen-length", "0|-1|2147483648", "a whole number from 1 to" },
        { "--block-length", "0|-8", "a whole number from 1 to" },
        { "--temperature", "nan|inf|-inf|-0.1|1e30|2.0001|0,5|0.5x|.|e1|1e|true|null|\"0.7\"", "a number from 0 to 2" },
        { "--threshold", "nan|-0.1|0|1.1", "a number from 1e-06 to 1" },
        { "--cfg-scale", "-1|1e9|nan", "a number from 0 to 100" },
        { "--seed", "18446744073709551616|-2|x|1.5|0x1", "or -1 for a random one" },
        { "--remasking", "low|RANDOM|1", "one of low_confidence|random" },
        { "--early-stop", "yes|1|ON", "on or off" },
        { "--watch", "always", "one of auto|on|off" },
        { "--color", "yes|true", "one of auto|on|off|always|never" },
        { "--memory", "2048|60|1048575|0.5|101%|1.9%|12X", "a size such as 900M or 1.5G" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        for (const char *at = rows[i].values; *at; ) {
            char flags[128];
            const int n = (int)strcspn(at, "|");
            snprintf(flags, sizeof flags, "%s %.*s", rows[i].flag, n, at);
            refused(flags, "E-CLI-004", rows[i].flag, rows[i].need);
            at += n + (at[n] == '|');
        }
    char with_space[] = " 4", name[] = "--threads", *argv[] = { name, with_space };
    assert_false(settings_open(&s, &arena, CMD_RUN, "run", 2, argv, &err));
    expect_err(&err, "E-CLI-004", "--threads", NULL);
}

static bool environment(const char *name, const char *value)
{
    setenv(name, value, 1);
    const bool ok = settings(CMD_RUN, "");
    unsetenv(name);
    return ok;
}

/* The same words in a flag, a file and the environment. */
static bool everywhere(const char *flag, const char *key, const char *name, const char *value, bool (*is)(void))
{
    char text[128], flags[600];
    const char *dot = strchr(key, '.');
    snprintf(text, sizeof text, "%.*s:\n  %s: %s\n", (int)(dot - key), key, dot + 1, value);
    snprintf(flags, sizeof flags, "-c %s", scratch_write("word.yaml", text, strlen(text)));
    if (!settings(CMD_RUN, flags) || !is() || !environment(name, value) || !is()) return false;
    snprintf(flags, sizeof flags, "%s %s", flag, value);
    return settings(CMD_RUN, flags) && is();
}

static bool color_on(void) { return s.color == ON; }
static bool color_off(void) { return s.color == OFF; }
static bool threads_0(void) { return s.origin[OPT_THREADS] != FROM_DEFAULT && s.threads == 0; }
static bool a_million_bytes(void) { return s.memory == 1 << 20; }
static bool one_per_cent(void) { return s.memory == 1; }
static bool few_units(void) { return s.memory == 512 << 10; }

static void words_that_other_programs_use(void **state)
{
    (void)state;
    static const struct { const char *flag, *key, *name, *value; bool (*is)(void); } rows[] = {
        { "--color", "terminal.color", "UNMASK_TERMINAL_COLOR", "on", color_on },
        { "--color", "terminal.color", "UNMASK_TERMINAL_COLOR", "always", color_on },
        { "--color", "terminal.color", "UNMASK_TERMINAL_COLOR", "never", color_off },
        { "--threads", "compute.threads", "UNMASK_COMPUTE_THREADS", "auto", threads_0 },
        { "--threads", "compute.threads", "UNMASK_COMPUTE_THREADS", "0", threads_0 },
        { "--memory", "memory.budget", "UNMASK_MEMORY_BUDGET", "1048576", a_million_bytes },
        { "--memory", "memory.budget", "UNMASK_MEMORY_BUDGET", "1M", a_million_bytes },
        { "--memory", "memory.budget", "UNMASK_MEMORY_BUDGET", "512K", few_units },
        { "--memory", "memory.budget", "UNMASK_MEMORY_BUDGET", "1%", one_per_cent },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (!everywhere(rows[i].flag, rows[i].key, rows[i].name, rows[i].value, rows[i].is))
            fail_msg("%s %s: %s", rows[i].flag, rows[i].value, err.found);
}

/* A variable of the environment is 1 or 0 with many programs. */
static void switches_of_the_environment(void **state)
{
    (void)state;
    static const struct { const char *value; bool on; } rows[] = { { "1", true }, { "0", false }, { "true", true }, { "false", false } };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(environment("UNMASK_DIFFUSION_LOGITS_EOS_INF", rows[i].value) && s.logits_eos_inf == rows[i].on);
        assert_true(environment("UNMASK_DIFFUSION_EARLY_STOP", rows[i].value) && s.early_stop == rows[i].on);
    }
    assert_false(environment("UNMASK_DIFFUSION_LOGITS_EOS_INF", "on"));
    expect_err(&err, "E-CLI-004", "UNMASK_DIFFUSION_LOGITS_EOS_INF", "true or false", NULL);
    assert_false(environment("UNMASK_DIFFUSION_LOGITS_EOS_INF", "2"));
    assert_false(environment("UNMASK_MEMORY_BUDGET", "2048"));
    expect_err(&err, "E-CLI-004", "UNMASK_MEMORY_BUDGET", "found 2048", "a size such as 900M or 1.5G", NULL);
}

static void reals_are_exact(void **state)
{
    (void)state;
    static const struct { const char *text; double v; } rows[] = {
        { "0", 0 }, { "-0", 0 }, { "1", 1 }, { ".5", 0.5 }, { "5.", 5 }, { "1e-3", 1e-3 }, { "1E+2", 100 }, { "0.1", 0.1 }, { "0.9", 0.9 },
        { "123456.789", 123456.789 }, { "1e22", 1e22 }, { "0.000000001", 1e-9 }, { "00000000000000000000000000001.50", 1.5 },
        { "1e-400", 0 }, { "100000000000000000000e-20", 1 }
    };
    double v;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_true(parse_real(rows[i].text, -1e300, 1e300, &v));
        if (v != rows[i].v) fail_msg("%s: %.17g", rows[i].text, v);
    }
    assert_false(parse_real("1e400", -1e300, 1e300, &v));
    assert_false(parse_real("1e99999999999999999999", -1e300, 1e300, &v));
    for (uint32_t x = 12345, i = 0; i < 20000; i++) {           /* floats, printed with the digits that bring them back */
        x = x * 1664525u + 1013904223u;
        const uint32_t bits = x & 0x7FFFFFFF;
        float f;
        char text[64];
        memcpy(&f, &bits, sizeof f);
        if (!(f <= FLT_MAX && f >= FLT_MIN)) continue;
        snprintf(text, sizeof text, i % 2 ? "%.9g" : "%.17g", (double)f);
        assert_true(parse_real(text, 0, 1e300, &v));
        if ((float)v != f) fail_msg("%s: %.17g", text, v);
    }
}

static void flags_that_do_not_exist_get_a_suggestion(void **state)
{
    (void)state;
    refused("--step 4", "E-CLI-002", "--step", "Did you mean --steps?");
    refused("--gen_length 4", "E-CLI-002", "--gen_length", "Did you mean --gen-length?");
    refused("--threshhold=1", "E-CLI-002", "--threshhold", "Did you mean --threshold?");
    refused("--zzzzzzzz", "E-CLI-002", "--zzzzzzzz", "goes after --");
    refused("-Z", "E-CLI-002", "-Z", "goes after --");
    refused("--exact-match x", "E-CLI-002", "--exact-match", "other commands");
    refused("--a\033b", "E-CLI-002", "--a\\x1bb", NULL);
}

static void flags_without_their_value(void **state)
{
    (void)state;
    refused("--steps", "E-CLI-003", "--steps", "need N");
    refused("--steps=", "E-CLI-003", "--steps", NULL);
    refused("--json=maybe", "E-CLI-004", "--json", "true or false");
    refused("--json=1", "E-CLI-004", "--json", "true or false");
    refused("--stop=", "E-CLI-003", "--stop", NULL);
}

static void stop_texts_are_limited(void **state)
{
    (void)state;
    char flags[2000] = "";
    for (int i = 0; i < 17; i++) strcat(flags, i ? " --stop x" : "--stop x");
    refused(flags, "E-CLI-004", "--stop", "at most 16 texts of 1 to 128 bytes");
    char longest[200] = "--stop ";
    memset(longest + 7, 'a', 128);
    OK(settings(CMD_RUN, longest), err);
    longest[7 + 128] = 'a';
    refused(longest, "E-CLI-004", "--stop", "1 to 128 bytes");
}

static void settings_that_exclude_each_other(void **state)
{
    (void)state;
    refused("--threshold 0.9 --factor 1", "E-CLI-010", "--threshold, --factor", NULL);
    refused("-v -q", "E-CLI-010", "--verbose, --quiet", NULL);
    refused("--raw --system x", "E-CLI-010", "--raw, --system", NULL);
    refused("--prompt x --prompt-ids 1", "E-CLI-010", "--prompt, --prompt-ids", NULL);
    refused("--no-config -c x", "E-CLI-010", "--config, --no-config", NULL);
}

static void arguments_and_flags_mix(void **state)
{
    (void)state;
    OK(settings(CMD_RUN, "one --steps 3 - -- --two -5"), err);
    assert_int_equal(s.n_args, 4);
    assert_string_equal(s.args[0], "one");
    assert_string_equal(s.args[1], "-");
    assert_string_equal(s.args[2], "--two");
    assert_string_equal(s.args[3], "-5");
}

static void help_is_given_whatever_else_is_wrong(void **state)
{
    (void)state;
    OK(settings(CMD_RUN, "--garbage --steps x -h"), err);
    assert_true(s.help);
}

static void environment_stands_between_file_and_flag(void **state)
{
    (void)state;
    char flags[600];
    const char *file = scratch_write("c.yaml", "diffusion:\n  gen_length: 1\n  block_length: 1\ncompute:\n  threads: 1\n", 66);
    setenv("UNMASK_DIFFUSION_GEN_LENGTH", "2", 1);
    setenv("UNMASK_COMPUTE_THREADS", "2", 1);
    setenv("UNMASK_MODEL", "m.gguf", 1);
    setenv("UNMASK_SAMPLING_SEED", "", 1);      /* empty: as if not set */
    snprintf(flags, sizeof flags, "-c %s -t 3", file);
    OK(settings(CMD_RUN, flags), err);
    assert_int_equal(s.block_length, 1);
    assert_int_equal(s.gen_length, 2);
    assert_int_equal(s.threads, 3);
    assert_string_equal(s.model, "m.gguf");
    assert_int_equal(s.origin[OPT_BLOCK_LENGTH], FROM_YAML);
    assert_int_equal(s.origin[OPT_GEN_LENGTH], FROM_ENVIRONMENT);
    assert_int_equal(s.origin[OPT_THREADS], FROM_FLAG);
    assert_int_equal(s.origin[OPT_SEED], FROM_DEFAULT);
    setenv("UNMASK_COMPUTE_THREADS", "many", 1);
    for (int i = 0; i < 2; i++) {               /* also where a flag overrides it */
        assert_false(settings(CMD_RUN, i ? "" : flags));
        expect_err(&err, "E-CLI-004", "not a value of this environment variable", "UNMASK_COMPUTE_THREADS", "found many", NULL);
    }
    unsetenv("UNMASK_COMPUTE_THREADS");
    scratch_write("c.yaml", "diffusion:\n  gen_length: banana\n", 32);
    assert_false(settings(CMD_RUN, flags));     /* what a file says, under the environment's value */
    expect_err(&err, "E-YAML-006", "c.yaml", "diffusion.gen_length, line 2, column 3", "found banana", NULL);
    unsetenv("UNMASK_DIFFUSION_GEN_LENGTH");
    unsetenv("UNMASK_MODEL");
    unsetenv("UNMASK_SAMPLING_SEED");
}

static void a_rule_of_a_stronger_source_replaces_the_weaker(void **state)
{
    (void)state;
    char flags[600];
    const char *file = scratch_write("r.yaml", "diffusion:\n  threshold: 0.8\n", 28);
    snprintf(flags, sizeof flags, "-c %s", file);
    OK(settings(CMD_RUN, flags), err);
    assert_true(s.threshold == 0.8);
    snprintf(flags, sizeof flags, "-c %s --steps 40", file);
    OK(settings(CMD_RUN, flags), err);
    assert_true(s.threshold == 0);
    assert_int_equal(s.origin[OPT_THRESHOLD], FROM_DEFAULT);
    assert_int_equal(s.steps, 40);
    snprintf(flags, sizeof flags, "-c %s --factor 1", file);
    OK(settings(CMD_RUN, flags), err);
    assert_true(s.factor == 1 && s.threshold == 0);
    OK(settings(CMD_RUN, "--threshold 0.5 --steps 16"), err);           /* same source: the rule, with the steps beside it */
    assert_true(s.threshold == 0.5);
    assert_int_equal(s.steps, 16);
}

/* Two rules of one source exclude each other, and are named as that source spells them. */
static void two_rules_are_named_where_they_stand(void **state)
{
    (void)state;
    char flags[600];
    snprintf(flags, sizeof flags, "-c %s", scratch_write("two.yaml", "diffusion:\n  threshold: 0.8\n  factor: 2\n", 40));
    refused(flags, "E-CLI-010", "two.yaml: settings that exclude each other (diffusion.threshold, diffusion.factor): need one", NULL);
    setenv("UNMASK_DIFFUSION_THRESHOLD", "0.8", 1);
    setenv("UNMASK_DIFFUSION_FACTOR", "2", 1);
    refused("", "E-CLI-010", "settings that exclude each other (UNMASK_DIFFUSION_THRESHOLD, UNMASK_DIFFUSION_FACTOR)", NULL);
    unsetenv("UNMASK_DIFFUSION_THRESHOLD");
    unsetenv("UNMASK_DIFFUSION_FACTOR");
}

static void a_file_that_is_read_later_is_stronger(void **state)
{
    (void)state;
    char flags[600], folder[600];
    const char *users = "diffusion:\n  threshold: 0.8\n", *named = "diffusion:\n  factor: 2\n";
    snprintf(folder, sizeof folder, "%s", scratch("unmask"));
    assert_int_equal(mkdir(folder, 0700), 0);
    scratch_write("unmask/config.yaml", users, strlen(users));
    *strrchr(folder, '/') = 0;
    setenv("XDG_CONFIG_HOME", folder, 1);
    snprintf(flags, sizeof flags, "-c %s", scratch_write("factor.yaml", named, strlen(named)));
    OK(settings(CMD_RUN, flags), err);
    assert_true(s.factor == 2 && s.threshold == 0);
    strcat(flags, " --threshold 0.5");
    OK(settings(CMD_RUN, flags), err);                                  /* a flag is stronger still */
    assert_true(s.factor == 0 && s.threshold == 0.5);
    OK(settings(CMD_RUN, ""), err);
    assert_true(s.factor == 0 && s.threshold == 0.8);
    setenv("XDG_CONFIG_HOME", "/nonexistent", 1);
}

/* --fill is put behind --reuse, however much that says. */
static void fill_is_a_knob_of_reuse(void **state)
{
    (void)state;
    char flags[600] = "--fill 65536 --reuse balanced", want[600];
    OK(settings(CMD_RUN, "--fill 3"), err);
    assert_string_equal(s.reuse, "exact,fill=3");
    while (strlen(flags) < 400) strcat(flags, ",candidates=16");
    snprintf(want, sizeof want, "%s,fill=65536", strstr(flags, "balanced"));
    OK(settings(CMD_RUN, flags), err);
    assert_string_equal(s.reuse, want);
}

static void random_seeds_differ(void **state)
{
    (void)state;
    OK(settings(CMD_RUN, "--seed -1"), err);
    const uint64_t first = s.seed;
    OK(settings(CMD_RUN, "--seed -1"), err);
    assert_true(first != s.seed);
}

static void ids_are_numbers_with_commas(void **state)
{
    (void)state;
    int32_t *ids = NULL;
    size_t n = 0;
    OK(parse_ids("3,17, 42", "--ids", &ids, &n, &err), err);
    assert_int_equal(n, 3);
    assert_int_equal(ids[0] + 1000 * ids[1] + 100000 * ids[2], 3 + 17000 + 4200000);
    const char *const bad[] = { "3,x", "3;4", "-1", "2147483648", "99999999999999999999", "1.5" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(parse_ids(bad[i], "--ids", &ids, &n, &err));
        expect_err(&err, "E-CLI-004", "--ids", "token ids separated by commas", NULL);
    }
    mem_free(ids);
}

/* Help is made from the table: every flag of a command, with its YAML key. */
static void help_lists_what_a_command_takes(void **state)
{
    (void)state;
    char *text = NULL;
    size_t n;
    FILE *f = open_memstream(&text, &n);
    options_help(f, CMD_RUN);
    fclose(f);
    assert_non_null(strstr(text, "-n, --gen-length N"));
    assert_non_null(strstr(text, "[diffusion.gen_length]"));
    assert_non_null(strstr(text, "--prompt-ids IDS"));
    assert_null(strstr(text, "--exact-match"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_type), cmocka_unit_test(defaults_stand_when_nothing_is_given),
        cmocka_unit_test(familiar_spellings_are_accepted), cmocka_unit_test(the_last_of_two_counts_and_is_noted),
        cmocka_unit_test(wrong_numbers_are_refused), cmocka_unit_test(words_that_other_programs_use),
        cmocka_unit_test(switches_of_the_environment), cmocka_unit_test(reals_are_exact),
        cmocka_unit_test(flags_that_do_not_exist_get_a_suggestion), cmocka_unit_test(flags_without_their_value),
        cmocka_unit_test(stop_texts_are_limited),
        cmocka_unit_test(settings_that_exclude_each_other), cmocka_unit_test(arguments_and_flags_mix),
        cmocka_unit_test(help_is_given_whatever_else_is_wrong), cmocka_unit_test(environment_stands_between_file_and_flag),
        cmocka_unit_test(a_rule_of_a_stronger_source_replaces_the_weaker), cmocka_unit_test(two_rules_are_named_where_they_stand),
        cmocka_unit_test(a_file_that_is_read_later_is_stronger),
        cmocka_unit_test(fill_is_a_knob_of_reuse), cmocka_unit_test(random_seeds_differ),
        cmocka_unit_test(ids_are_numbers_with_commas), cmocka_unit_test(help_lists_what_a_command_takes),
    };
    return cmocka_run_group_tests(tests, no_files, cleanup);
}
