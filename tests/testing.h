/* testing.h - what the test programs share: cmocka, scratch folders, expectations about errors. */
#ifndef TESTING_H
#define TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "err.h"
#undef fail                     /* cmocka has a macro of that name too; tests need cmocka's */
#include <cmocka.h>

#define ARRAY_LEN(a) (sizeof(a) / sizeof *(a))

/* The error has this id, and its sentence holds every given part (a NULL ends the list). */
static inline void expect_err(const struct unmask_err *err, const char *id, ...)
{
    char line[2048];
    unmask_err_message(err, line, sizeof line);
    if (strcmp(err->id, id)) fail_msg("expected %s, got: %s", id, line);
    va_list ap;
    va_start(ap, id);
    for (const char *part; (part = va_arg(ap, const char *)); )
        if (!strstr(line, part)) fail_msg("\"%s\" is not in: %s", part, line);
    va_end(ap);
}

/* Fail with the sentence when a call that must succeed does not. */
#define OK(call, err) do { \
        if (!(call)) { char line_[2048]; fail_msg("%s: %s", #call, unmask_err_message(&(err), line_, sizeof line_)); } \
    } while (0)

/* A scratch folder for this process: created on first use, removed by scratch_remove(). */
static char scratch_path[64];
static inline const char *scratch(const char *name)
{
    static char path[4][512];
    static int turn;
    if (!scratch_path[0]) {
        snprintf(scratch_path, sizeof scratch_path, "/tmp/unmask-test-XXXXXX");
        if (!mkdtemp(scratch_path)) abort();
    }
    turn = (turn + 1) & 3;
    snprintf(path[turn], sizeof path[turn], "%s/%s", scratch_path, name);
    return path[turn];
}
static inline void scratch_remove(void)
{
    char cmd[96];
    if (!scratch_path[0]) return;
    snprintf(cmd, sizeof cmd, "rm -rf %s", scratch_path);
    if (system(cmd) != 0) perror(cmd);
}
static inline const char *scratch_write(const char *name, const void *bytes, size_t n)
{
    const char *path = scratch(name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f)) abort();
    return path;
}

/* A whole file, NUL-terminated; test_free. */
static inline char *whole_file(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing", path);
    fseek(f, 0, SEEK_END);
    *n = (size_t)ftell(f);
    rewind(f);
    char *b = test_malloc(*n + 1);
    assert_int_equal(fread(b, 1, *n, f), *n);
    b[*n] = 0;
    fclose(f);
    return b;
}

static inline void same_file(const char *a, const char *b)
{
    size_t n, m;
    char *x = whole_file(a, &n), *y = whole_file(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    test_free(x);
    test_free(y);
}

#endif
