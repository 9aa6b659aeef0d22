/* test_outfile.c - whatever happens while a file is written, its path holds the old content or the complete new one. */
#include "testing.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "outfile.h"

static struct unmask_err err;
static struct outfile o;

static void expect_content(const char *path, const char *want)
{
    char b[64] = "";
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s is missing", path);
    b[fread(b, 1, sizeof b - 1, f)] = 0;
    fclose(f);
    assert_string_equal(b, want);
}

/* Entries of the scratch folder whose name starts so. */
static int count(const char *prefix)
{
    int n = 0;
    DIR *d = opendir(scratch("."));
    for (const struct dirent *e; (e = readdir(d)); ) n += strncmp(e->d_name, prefix, strlen(prefix)) == 0;
    closedir(d);
    return n;
}

static const char *path_of(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s", scratch(name));
    return path;
}

static void a_new_file(void **state)
{
    (void)state;
    const char *path = path_of("new");
    OK(outfile_open(&o, path, false, 0, &err), err);
    assert_non_null(strstr(o.temp, "/.unmask-new-"));
    OK(outfile_write(&o, "ab", 2, &err), err);
    OK(outfile_write(&o, "", 0, &err), err);
    OK(outfile_write(&o, "cd", 2, &err), err);
    assert_int_equal(o.written, 4);
    assert_int_equal(access(path, F_OK), -1);                    /* nothing under its name before it is complete */
    expect_content(o.temp, "abcd");
    OK(outfile_commit(&o, &err), err);
    expect_content(path, "abcd");
    assert_int_equal(count(".unmask-"), 0);
    outfile_abort(&o);                                           /* after the end: nothing happens */
    expect_content(path, "abcd");
}

static void an_existing_file_needs_force(void **state)
{
    (void)state;
    const char *path = path_of("old");
    scratch_write("old", "old", 3);
    assert_false(outfile_open(&o, path, false, 0, &err));
    expect_err(&err, "E-FILE-008", path, "exists already", "--force", NULL);
    assert_int_equal(err.status, UNMASK_EUSAGE);
    OK(outfile_open(&o, path, true, 0, &err), err);
    OK(outfile_write(&o, "new", 3, &err), err);
    expect_content(path, "old");
    outfile_abort(&o);
    expect_content(path, "old");
    assert_int_equal(count(".unmask-"), 0);
    OK(outfile_open(&o, path, true, 0, &err), err);
    OK(outfile_write(&o, "new", 3, &err), err);
    OK(outfile_commit(&o, &err), err);
    expect_content(path, "new");
}

/* Whatever the umask: a private file stays private, also while it is written, and a shared one stays shared. */
static void a_file_that_is_replaced_leaves_its_mode(void **state)
{
    (void)state;
    static const mode_t modes[] = { 0600, 0664, 0666, 0755, 0444 };
    struct stat st;
    const char *path = path_of("mode");
    const mode_t mask = umask(022);
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        unlink(path);
        scratch_write("mode", "old", 3);
        assert_int_equal(chmod(path, modes[i]), 0);
        OK(outfile_open(&o, path, true, 0, &err), err);
        assert_int_equal(stat(o.temp, &st), 0);
        assert_int_equal(st.st_mode & 07777, modes[i]);
        OK(outfile_write(&o, "new", 3, &err), err);
        OK(outfile_commit(&o, &err), err);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, modes[i]);
    }
    unlink(path);
    OK(outfile_open(&o, path, true, 0, &err), err);
    OK(outfile_commit(&o, &err), err);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0644);
    umask(mask);
}

static void a_file_in_the_working_folder(void **state)
{
    (void)state;
    const int here = open(".", O_RDONLY | O_DIRECTORY);
    assert_int_equal(chdir(scratch(".")), 0);
    OK(outfile_open(&o, "bare", false, 0, &err), err);
    OK(outfile_commit(&o, &err), err);
    assert_int_equal(access("bare", F_OK), 0);
    assert_int_equal(fchdir(here), 0);
    close(here);
}

static void what_cannot_be_a_target(void **state)
{
    (void)state;
    const char *const bad[] = { "-", "", "/dev/null", ".", "..", "/", scratch("."), "x/" };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_false(outfile_open(&o, bad[i], true, 0, &err));
        expect_err(&err, "E-FILE-007", "the path of a file", NULL);
        assert_int_equal(err.status, UNMASK_EUSAGE);
    }
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    assert_false(outfile_open(&o, path_of("fifo"), true, 0, &err));
    expect_err(&err, "E-FILE-007", "a device or a pipe", NULL);
    char missing[600];
    snprintf(missing, sizeof missing, "%s/x.gguf", scratch("none"));
    assert_false(outfile_open(&o, missing, false, 0, &err));
    expect_err(&err, "E-FILE-006", "none", "No such file", "Make the folder first", NULL);
    assert_int_equal(err.status, UNMASK_EIO);
    scratch_write("plain", "", 0);
    snprintf(missing, sizeof missing, "%s/x.gguf", scratch("plain"));
    assert_false(outfile_open(&o, missing, false, 0, &err));
    expect_err(&err, "E-FILE-006", "Not a directory", NULL);
}

static void a_read_only_folder(void **state)
{
    (void)state;
    char path[600] = "/sys/x";                                   /* where root cannot write either */
    if (geteuid() != 0) {
        assert_int_equal(mkdir(scratch("ro"), 0500), 0);
        snprintf(path, sizeof path, "%s/x", scratch("ro"));
    }
    assert_false(outfile_open(&o, path, false, 0, &err));
    expect_err(&err, "E-FILE-006", path, "Choose a folder that you may write to", NULL);
}

static void free_space_comes_first(void **state)
{
    (void)state;
    assert_false(outfile_open(&o, path_of("big"), false, UINT64_C(1) << 60, &err));
    expect_err(&err, "E-FILE-009", "big", "iB", "need 1.0 EiB", "Free some space", NULL);
    assert_int_equal(err.status, UNMASK_EIO);
    assert_int_equal(count(".unmask-big"), 0);
}

static void links(void **state)
{
    (void)state;
    char path[600];
    assert_int_equal(mkdir(scratch("real"), 0700), 0);           /* a folder behind a link */
    assert_int_equal(symlink("real", scratch("way")), 0);
    snprintf(path, sizeof path, "%s/x", scratch("way"));
    OK(outfile_open(&o, path, false, 0, &err), err);
    OK(outfile_write(&o, "x", 1, &err), err);
    OK(outfile_commit(&o, &err), err);
    expect_content(scratch("real/x"), "x");
    assert_int_equal(symlink("way/x", scratch("link")), 0);      /* a file behind two */
    assert_false(outfile_open(&o, path_of("link"), false, 0, &err));
    expect_err(&err, "E-FILE-008", "link", NULL);
    OK(outfile_open(&o, path_of("link"), true, 0, &err), err);
    OK(outfile_write(&o, "new", 3, &err), err);
    expect_content(scratch("real/x"), "x");
    OK(outfile_commit(&o, &err), err);
    expect_content(scratch("real/x"), "new");
    struct stat st;
    assert_int_equal(lstat(path_of("link"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    const char *const to[] = { "real/y", "/", "way", "pipe", "/dev/null", "loop" };
    assert_int_equal(mkfifo(scratch("pipe"), 0600), 0);
    for (size_t i = 0; i < ARRAY_LEN(to); i++) {                 /* what leads to no file is refused, forced or not, and stays */
        assert_int_equal(symlink(to[i], path_of("loop")), 0);
        for (int force = 0; force < 2; force++) {
            assert_false(outfile_open(&o, path_of("loop"), force, 0, &err));
            expect_err(&err, "E-FILE-007", "loop", to[i][0] == 'r' || to[i][0] == 'l' ? "a link to nothing" : "the path of a file", NULL);
        }
        assert_int_equal(lstat(path_of("loop"), &st), 0);
        assert_true(S_ISLNK(st.st_mode));
        assert_int_equal(unlink(path_of("loop")), 0);
    }
}

/* A rename over the file that standard output goes to would lose what is printed. */
static void the_file_of_standard_output(void **state)
{
    (void)state;
    const int was = dup(STDOUT_FILENO);
    scratch_write("printed", "", 0);
    const int to = open(path_of("printed"), O_WRONLY);
    assert_int_equal(dup2(to, STDOUT_FILENO), STDOUT_FILENO);
    const bool ok = outfile_open(&o, path_of("printed"), true, 0, &err);
    dup2(was, STDOUT_FILENO);
    close(was);
    close(to);
    assert_false(ok);
    expect_err(&err, "E-FILE-007", "printed", "another output of this run", NULL);
}

static void long_names(void **state)
{
    (void)state;
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    OK(outfile_open(&o, path_of(name), false, 0, &err), err);
    OK(outfile_commit(&o, &err), err);
    assert_int_equal(count(name), 1);
    /* Parts of a model differ at the end of their names alone. */
    struct outfile parts[2];
    for (int i = 0; i < 2; i++) {
        memcpy(name + 250, i ? "2.out" : "1.out", 5);
        OK(outfile_open(&parts[i], path_of(name), false, 0, &err), err);
    }
    for (int i = 0; i < 2; i++) OK(outfile_commit(&parts[i], &err), err);
    assert_int_equal(count(name), 1);
}

/* A limit on file sizes, as FAT32 has: EFBIG once SIGXFSZ is ignored. */
static void a_file_size_limit(void **state)
{
    (void)state;
    struct rlimit old, small;
    char bytes[1000] = { 0 };
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1500;
    setrlimit(RLIMIT_FSIZE, &small);
    scratch_write("limit", "old", 3);
    OK(outfile_open(&o, path_of("limit"), true, 0, &err), err);
    OK(outfile_write(&o, bytes, sizeof bytes, &err), err);
    const bool ok = outfile_write(&o, bytes, sizeof bytes, &err);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    assert_false(ok);
    expect_err(&err, "E-FILE-006", "byte 1500", "too large", "FAT32", NULL);
    outfile_abort(&o);
    expect_content(path_of("limit"), "old");
    assert_int_equal(count(".unmask-limit"), 0);
}

static void a_failed_sync_keeps_the_old_file(void **state)
{
    (void)state;
    scratch_write("sync", "old", 3);
    OK(outfile_open(&o, path_of("sync"), true, 0, &err), err);
    OK(outfile_write(&o, "new", 3, &err), err);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);                            /* a pipe cannot be synced: EINVAL from fsync */
    assert_int_equal(dup2(pipes[1], o.fd), o.fd);
    assert_false(outfile_commit(&o, &err));
    expect_err(&err, "E-FILE-006", "sync", "Invalid argument", NULL);
    close(pipes[0]);
    close(pipes[1]);
    expect_content(path_of("sync"), "old");
    assert_int_equal(count(".unmask-sync"), 0);
}

static void a_failed_write(void **state)
{
    (void)state;
    OK(outfile_open(&o, path_of("full"), true, 0, &err), err);
    const int full = open("/dev/full", O_WRONLY);
    if (full < 0) { outfile_abort(&o); skip(); }
    assert_int_equal(dup2(full, o.fd), o.fd);
    close(full);
    assert_false(outfile_write(&o, "x", 1, &err));
    expect_err(&err, "E-FILE-006", "No space left", "Free some space", "byte 0", NULL);
    outfile_abort(&o);
    assert_int_equal(count(".unmask-full"), 0);
    assert_int_equal(count("full"), 0);
}

static void a_result_without_its_name_is_kept(void **state)
{
    (void)state;
    char temp[600];
    OK(outfile_open(&o, path_of("late"), false, 0, &err), err);
    OK(outfile_write(&o, "work", 4, &err), err);
    snprintf(temp, sizeof temp, "%s", o.temp);
    scratch_write("late", "other", 5);                           /* somebody came first */
    assert_false(outfile_commit(&o, &err));
    expect_err(&err, "E-FILE-011", "another file has come there", "The result is", ".unmask-late-", ".done", NULL);
    expect_content(path_of("late"), "other");
    strcpy(temp + strlen(temp) - 5, ".done");
    expect_content(temp, "work");
    OK(outfile_open(&o, path_of("late"), true, 0, &err), err);   /* no leftover */
    outfile_abort(&o);
    expect_content(temp, "work");
    for (int i = 1; i <= 11; i++) {                              /* a process of the same number, as in containers */
        OK(outfile_open(&o, path_of("late"), true, 0, &err), err);
        OK(outfile_write(&o, "more", 4, &err), err);
        o.force = false;
        assert_false(outfile_commit(&o, &err));
        snprintf(temp + strlen(temp) - 5, 24, ".%d.done", i);
        assert_non_null(strstr(err.hint, temp));
        OK(outfile_open(&o, path_of("late"), true, 0, &err), err);
        outfile_abort(&o);
        expect_content(temp, "more");
        strcpy(strstr(temp, FMT(".%d.done", i)), ".done");
        expect_content(temp, "work");
    }

    OK(outfile_open(&o, path_of("folder"), true, 0, &err), err);
    OK(outfile_write(&o, "work", 4, &err), err);
    snprintf(temp, sizeof temp, "%s", o.temp);
    assert_int_equal(mkdir(path_of("folder"), 0700), 0);
    assert_false(outfile_commit(&o, &err));
    expect_err(&err, "E-FILE-011", "Is a directory", ".unmask-folder-", NULL);
    strcpy(temp + strlen(temp) - 5, ".done");
    assert_int_equal(err.status, UNMASK_EIO);
    expect_content(temp, "work");
    outfile_abort_all();                                         /* it is no longer ours to remove */
    expect_content(temp, "work");
}

static void two_runs_to_one_target(void **state)
{
    (void)state;
    struct outfile second;
    OK(outfile_open(&o, path_of("two"), true, 0, &err), err);
    assert_false(outfile_open(&second, path_of("two"), true, 0, &err));
    expect_err(&err, "E-FILE-007", "another output of this run", "a path of its own", NULL);
    OK(outfile_write(&o, "1", 1, &err), err);
    OK(outfile_commit(&o, &err), err);                           /* the first is not disturbed */
    expect_content(path_of("two"), "1");

    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {                                            /* another process, which has another temporary name */
        if (!outfile_open(&o, path_of("two"), true, 0, &err)) _exit(1);
        kill(getpid(), SIGSTOP);
        _exit(outfile_commit(&o, &err) ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    assert_true(WIFSTOPPED(status));
    assert_false(outfile_open(&second, path_of("two"), true, 0, &err));
    expect_err(&err, "E-FILE-010", "another run is writing this file", ".unmask-two-", NULL);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Kill a writer at any moment: the target is old or complete, and the next run removes what is left. */
static void kill_at_any_moment(void **state)
{
    (void)state;
    enum { KILLS = 60, SIZE = 1 << 20 };
    static char bytes[SIZE];
    struct stat st;
    scratch_write("victim", "old", 3);
    int n_old = 0;
    for (int k = 0; k < KILLS; k++) {
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            for (;;) {
                if (!outfile_open(&o, path_of("victim"), true, SIZE, &err)) _exit(1);
                for (int i = 0; i < 16; i++) outfile_write(&o, bytes, SIZE / 16, &err);
                if (!outfile_commit(&o, &err)) _exit(2);
            }
        }
        const struct timespec wait = { .tv_nsec = 20000L * k * k };      /* 0 to 70 ms */
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        assert_int_equal(stat(path_of("victim"), &st), 0);
        assert_true(st.st_size == 3 || st.st_size == SIZE);
        n_old += st.st_size == 3;
        assert_true(count(".unmask-victim") <= 1);
    }
    assert_true(n_old >= 1 && n_old < KILLS);
    OK(outfile_open(&o, path_of("victim"), true, 0, &err), err);
    assert_int_equal(count(".unmask-victim"), 1);                /* ours */
    outfile_abort(&o);
    assert_int_equal(count(".unmask-victim"), 0);
}

static void abort_all_removes_every_temporary_file(void **state)
{
    (void)state;
    struct outfile a, b;
    OK(outfile_open(&a, path_of("a1"), true, 0, &err), err);
    OK(outfile_open(&b, path_of("b1"), true, 0, &err), err);
    assert_int_equal(count(".unmask-a1") + count(".unmask-b1"), 2);
    outfile_abort_all();
    assert_int_equal(count(".unmask-a1") + count(".unmask-b1"), 0);
    outfile_abort(&a);
    assert_false(outfile_commit(&b, &err));                      /* the handler took it away */
    expect_err(&err, "E-FILE-011", "No such file", NULL);
}

static void not_too_many_at_once(void **state)
{
    (void)state;
    enum { MOST = 160 };
    struct outfile many[MOST + 1];
    char name[16];
    for (int i = 0; i < MOST; i++) {
        snprintf(name, sizeof name, "many%d", i);
        OK(outfile_open(&many[i], path_of(name), true, 0, &err), err);
    }
    assert_false(outfile_open(&many[MOST], path_of("more"), true, 0, &err));
    expect_err(&err, "E-INT-001", "at most 160 files", NULL);
    for (int i = 0; i < MOST; i++) outfile_abort(&many[i]);
    assert_int_equal(count(".unmask-many"), 0);
    struct outfile zero = { 0 };
    outfile_abort(&zero);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_file),
        cmocka_unit_test(an_existing_file_needs_force), cmocka_unit_test(a_file_that_is_replaced_leaves_its_mode),
        cmocka_unit_test(a_file_in_the_working_folder),
        cmocka_unit_test(what_cannot_be_a_target),
        cmocka_unit_test(a_read_only_folder),
        cmocka_unit_test(free_space_comes_first),
        cmocka_unit_test(links),
        cmocka_unit_test(the_file_of_standard_output),
        cmocka_unit_test(long_names),
        cmocka_unit_test(a_file_size_limit),
        cmocka_unit_test(a_failed_sync_keeps_the_old_file),
        cmocka_unit_test(a_failed_write),
        cmocka_unit_test(a_result_without_its_name_is_kept),
        cmocka_unit_test(two_runs_to_one_target),
        cmocka_unit_test(kill_at_any_moment),
        cmocka_unit_test(abort_all_removes_every_temporary_file),
        cmocka_unit_test(not_too_many_at_once),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    scratch_remove();
    return failed;
}
