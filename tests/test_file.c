/* test_file.c - reading files by offset: what is refused, and what happens when a file changes under us. */
#include "testing.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "file.h"
#include "mem.h"

static struct unmask_err err;
static struct file f;

static void reads_by_offset(void **state)
{
    (void)state;
    char b[8];
    const char *path = scratch_write("a", "0123456789", 10);
    OK(file_open(&f, path, &err), err);
    assert_int_equal(f.size, 10);
    assert_string_equal(f.path, path);
    OK(file_read(&f, 3, b, 4, &err), err);
    assert_memory_equal(b, "3456", 4);
    OK(file_read(&f, 10, b, 0, &err), err);
    OK(file_unchanged(&f, &err), err);
    assert_false(file_read(&f, 8, b, 3, &err));
    expect_err(&err, "E-FILE-003", path, "byte 8", "found 10 bytes", "need 3 from here", NULL);
    assert_false(file_read(&f, 11, b, 1, &err));
    expect_err(&err, "E-FILE-003", "byte 11", NULL);
    assert_false(file_read(&f, UINT64_MAX, b, 8, &err));
    expect_err(&err, "E-FILE-003", "byte 18446744073709551615", NULL);
    file_close(&f);
    assert_null(f.path);
    file_close(&f);
}

static void only_regular_files(void **state)
{
    (void)state;
    assert_false(file_open(&f, scratch("missing"), &err));
    expect_err(&err, "E-FILE-001", "missing", "cannot open", "No such file", "spelling", NULL);
    assert_int_equal(err.status, UNMASK_EIO);
    assert_false(file_open(&f, scratch("."), &err));
    expect_err(&err, "E-FILE-002", "not a regular file", "a folder", NULL);
    assert_false(file_open(&f, "/dev/zero", &err));
    expect_err(&err, "E-FILE-002", "a device", NULL);
    assert_int_equal(mkfifo(scratch("fifo"), 0600), 0);
    assert_false(file_open(&f, scratch("fifo"), &err));         /* nobody writes to it: opening must not wait */
    expect_err(&err, "E-FILE-002", "a pipe", NULL);
    assert_false(file_open(&f, "", &err));
    expect_err(&err, "E-FILE-001", NULL);
}

static void symbolic_links(void **state)
{
    (void)state;
    char target[512];
    snprintf(target, sizeof target, "%s", scratch_write("target", "abc", 3));
    assert_int_equal(symlink(target, scratch("link")), 0);
    OK(file_open(&f, scratch("link"), &err), err);
    assert_int_equal(f.size, 3);
    file_close(&f);
    assert_int_equal(symlink("nowhere", scratch("dangling")), 0);
    assert_false(file_open(&f, scratch("dangling"), &err));
    expect_err(&err, "E-FILE-001", "dangling", NULL);
    assert_int_equal(symlink("loop", scratch("loop")), 0);
    assert_false(file_open(&f, scratch("loop"), &err));
    expect_err(&err, "E-FILE-001", "symbolic links", NULL);
}

static void inside_a_folder(void **state)
{
    (void)state;
    char folder[512];
    scratch_write("inside", "xy", 2);
    snprintf(folder, sizeof folder, "%s", scratch("."));
    const int fd = open(folder, O_RDONLY | O_DIRECTORY);
    OK(file_open_in(&f, fd, folder, "inside", &err), err);
    assert_int_equal(f.size, 2);
    assert_non_null(strstr(f.path, "/./inside"));
    file_close(&f);
    assert_false(file_open_in(&f, fd, folder, "../inside", &err));
    expect_err(&err, "E-FILE-001", "../inside", "without '/'", NULL);
    assert_false(file_open_in(&f, fd, folder, "absent", &err));
    expect_err(&err, "E-FILE-001", "absent", NULL);
    close(fd);
}

static void changes_are_noticed(void **state)
{
    (void)state;
    char b[8];
    char path[512];
    snprintf(path, sizeof path, "%s", scratch_write("c", "01234567", 8));
    OK(file_open(&f, path, &err), err);
    assert_int_equal(truncate(path, 5), 0);
    assert_false(file_unchanged(&f, &err));
    expect_err(&err, "E-FILE-004", "found 5 bytes", "need 8", NULL);
    assert_false(file_read(&f, 0, b, 8, &err));
    expect_err(&err, "E-FILE-004", "byte 5", "the end of the file", NULL);
    file_close(&f);

    OK(file_open(&f, path, &err), err);
    const struct timespec old[2] = { { .tv_sec = 1000000000 }, { .tv_sec = 1000000000 } };
    assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    assert_false(file_unchanged(&f, &err));
    expect_err(&err, "E-FILE-004", "time of change", NULL);
    file_close(&f);

    OK(file_open(&f, path, &err), err);                          /* another file under the name: we keep ours */
    scratch_write("d", "other", 5);
    assert_int_equal(rename(scratch("d"), path), 0);
    OK(file_read(&f, 0, b, 5, &err), err);
    assert_memory_equal(b, "01234", 5);
    OK(file_unchanged(&f, &err), err);
    file_close(&f);
}

static void slurp(void **state)
{
    (void)state;
    char *text;
    size_t n;
    const char *path = scratch_write("s", "hello", 5);
    OK(file_slurp(path, 5, &text, &n, &err), err);
    assert_int_equal(n, 5);
    assert_string_equal(text, "hello");
    mem_free(text);
    assert_false(file_slurp(path, 4, &text, &n, &err));
    expect_err(&err, "E-FILE-005", "found 5 bytes", "at most 4", NULL);
    assert_int_equal(err.status, UNMASK_ELIMIT);
    OK(file_slurp(scratch_write("e", "", 0), 0, &text, &n, &err), err);
    assert_string_equal(text, "");
    mem_free(text);
    assert_false(file_slurp(scratch("missing"), 4, &text, &n, &err));
    expect_err(&err, "E-FILE-001", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_by_offset),
        cmocka_unit_test(only_regular_files),
        cmocka_unit_test(symbolic_links),
        cmocka_unit_test(inside_a_folder),
        cmocka_unit_test(changes_are_noticed),
        cmocka_unit_test(slurp),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
