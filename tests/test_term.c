/* test_term.c - what a terminal is shown, colours and live drawing, peak memory. */
#include "testing.h"

#include "term.h"

static void shown(const char *text, size_t n, bool tty, const char *need)
{
    char *got = NULL;
    size_t n_got;
    FILE *f = open_memstream(&got, &n_got);
    term_put_text(f, text, n, tty);
    fclose(f);
    if (n_got != strlen(need) || memcmp(got, need, n_got)) fail_msg("\"%s\", need \"%s\"", got, need);
    free(got);
}

/* Nothing that a model writes steers the terminal: colours, the bell, the clipboard (OSC 52), reordered text. */
static void control_characters_are_shown_not_obeyed(void **state)
{
    (void)state;
    shown("a\033[31mb\a", 8, true, "a\xE2\x90\x9B[31mb\xE2\x90\x87");
    shown("\033]52;c;eA==\a", 12, true, "\xE2\x90\x9B]52;c;eA==\xE2\x90\x87");
    shown("x\0y\r\x7F", 5, true, "x\xE2\x90\x80y\xE2\x90\x8D\xEF\xBF\xBD");
    shown("\xE2\x80\xAE" "abc\xC2\x9B", 8, true, "\xEF\xBF\xBD" "abc\xEF\xBF\xBD");
    shown("tab\tline\n\xC3\xA4\xF0\x9F\x98\x80", 15, true, "tab\tline\n\xC3\xA4\xF0\x9F\x98\x80");
    shown("\xFFz", 2, true, "\xEF\xBF\xBDz");
}

static void files_and_pipes_get_the_bytes(void **state)
{
    (void)state;
    shown("a\033[31mb\a\xFF", 9, false, "a\033[31mb\a\xFF");
}

static void colours_follow_settings_and_environment(void **state)
{
    (void)state;
    struct settings s = { .color = ON };
    struct term t;
    setenv("TERM", "xterm", 1);
    term_init(&t, &s);
    assert_true(t.color && t.live);
    s.color = OFF;
    term_init(&t, &s);
    assert_false(t.color);
    setenv("TERM", "dumb", 1);
    s.color = AUTO;
    term_init(&t, &s);
    assert_false(t.color || t.live);
    unsetenv("TERM");
    term_init(&t, &s);
    assert_false(t.live);
}

static void sizes_are_never_zero(void **state)
{
    (void)state;
    assert_true(term_width() >= 1 && term_height() >= 1);
    if (access("/proc/self/status", R_OK) == 0) assert_true(term_peak_rss() > 100 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_characters_are_shown_not_obeyed), cmocka_unit_test(files_and_pipes_get_the_bytes),
        cmocka_unit_test(colours_follow_settings_and_environment), cmocka_unit_test(sizes_are_never_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
