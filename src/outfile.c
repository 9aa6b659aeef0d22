/* outfile.c - see outfile.h.
 * The temporary name is .unmask-NAME-PID.part, in the folder of the target so that the rename is atomic; a lock on it (flock)
 * tells a run that is still writing from what a killed one left, which the next run for the same target removes.  What is complete and
 * only lacks its name is .unmask-NAME-PID.done, or where that is taken .unmask-NAME-PID.N.done, and stays. */
#define _FILE_OFFSET_BITS 64
#define _DEFAULT_SOURCE         /* flock */
#include "outfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>
#include <unistd.h>

#include "file.h"
#include "mem.h"

/* ---- temporary files that a signal must remove ----------------------------------------------------- */

enum { MOST_OPEN = 160, NAME_BYTES = 256, PREFIX_BYTES = 210 };
enum { MOST_KEPT = 99, KEPT_DIGITS = 3 };       /* results without their name, by one process number: .1.done to .99.done */
enum { SLOT_FREE, SLOT_TAKEN, SLOT_OPEN };

/* A signal handler gets no argument: these names are the one thing that it must find by itself. */
static struct { atomic_int state; int folder_fd; char name[NAME_BYTES]; } open_temps[MOST_OPEN];

static bool register_temp(int folder_fd, const char *name)
{
    for (int i = 0; i < MOST_OPEN; i++) {
        int expected = SLOT_FREE;
        if (!atomic_compare_exchange_strong(&open_temps[i].state, &expected, SLOT_TAKEN)) continue;
        open_temps[i].folder_fd = folder_fd;
        snprintf(open_temps[i].name, NAME_BYTES, "%s", name);
        atomic_store(&open_temps[i].state, SLOT_OPEN);
        return true;
    }
    return false;
}

static void unregister_temp(int folder_fd)
{
    for (int i = 0; i < MOST_OPEN; i++)
        if (atomic_load(&open_temps[i].state) == SLOT_OPEN && open_temps[i].folder_fd == folder_fd)
            atomic_store(&open_temps[i].state, SLOT_FREE);
}

void outfile_abort_all(void)
{
    for (int i = 0; i < MOST_OPEN; i++)
        if (atomic_load(&open_temps[i].state) == SLOT_OPEN) unlinkat(open_temps[i].folder_fd, open_temps[i].name, 0);
}

/* ---- names ----------------------------------------------------------------------------------------- */

/* The target's folder as text, to open or to print. */
static char *folder_of(const char *path, struct unmask_err *err)
{
    const size_t n = (size_t)(file_name(path) - path);
    return n == 0 ? mem_strndup(".", 1, err) : mem_strndup(path, n > 1 ? n - 1 : n, err);
}

/* The beginning of all temporary names of a target; of a long one the middle is cut out so that the whole fits a directory
 * entry, and parts of a model, which differ at their end, do not become one. */
static void temp_prefix(char prefix[PREFIX_BYTES], const char *name)
{
    enum { HALF = 100 };
    const size_t n = strlen(name), head = n > 2 * HALF ? HALF : n;
    snprintf(prefix, PREFIX_BYTES, ".unmask-%.*s%s-", (int)head, name, n > head ? name + n - HALF : "");
}

static bool is_temp_of(const char *entry, const char *prefix)
{
    const size_t n = strlen(prefix);
    if (strncmp(entry, prefix, n) != 0) return false;
    const size_t digits = strspn(entry + n, "0123456789");
    return digits > 0 && strcmp(entry + n + digits, ".part") == 0;
}

/* ---- opening --------------------------------------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

/* Would the rename take the name of what this run prints, and with it what is printed? */
static bool printed_there(const struct stat *st)
{
    struct stat printed;
    return (fstat(STDOUT_FILENO, &printed) == 0 && same_file(st, &printed))
           || (fstat(STDERR_FILENO, &printed) == 0 && same_file(st, &printed));
}

static bool another_output(const char *path, struct unmask_err *err)
{
    return fail(err, E_FILE_TARGET, .file = path, .found = "another output of this run", .need = "a path of its own for each output");
}

/* Before the folder is opened: a link to a device need not lie where one may look. */
static bool check_target(const char *path, bool force, struct unmask_err *err)
{
    struct stat st;
    if (lstat(path, &st) != 0) return true;
    const bool leads = stat(path, &st) == 0;
    if (!leads || !S_ISREG(st.st_mode))
        return fail(err, E_FILE_TARGET, .file = path,
                    .found = !leads ? "a link to nothing" : S_ISDIR(st.st_mode) ? "a folder" : "a device or a pipe",
                    .need = "the path of a file",
                    .hint = "The format needs a file that can be completed before it gets its name");
    if (printed_there(&st)) return another_output(path, err);
    return force || fail(err, E_FILE_EXISTS, .file = path, .hint = "Give another path, or --force to replace it");
}

/* The path to write: that of the file behind a link, for the link stays one. */
static char *behind_links(const char *path, struct unmask_err *err)
{
    char real[PATH_MAX];
    struct stat st;
    const bool link = lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
    if (link && !realpath(path, real)) {
        fail(err, E_FILE_WRITE, .file = path, .found = ERRNO(errno));
        return NULL;
    }
    const char *to = link ? real : path;
    return mem_strndup(to, strlen(to), err);
}

bool outfile_fits(const struct outfile *o, uint64_t bytes, struct unmask_err *err)
{
    struct statvfs fs;
    uint64_t left;
    if (fstatvfs(o->folder_fd, &fs) != 0 || !u64_mul(fs.f_bavail, fs.f_frsize, &left) || bytes <= left) return true;
    return fail(err, E_FILE_SPACE, .file = o->path, .found = SIZE(left), .need = SIZE(bytes),
                .hint = "Free some space or write to another disk");
}

/* Is this temporary file, in the folder of o, one that this process writes? */
static bool writes_itself(const struct outfile *o, const char *temp)
{
    struct stat here, there;
    for (int i = 0; i < MOST_OPEN; i++)
        if (atomic_load(&open_temps[i].state) == SLOT_OPEN && strcmp(open_temps[i].name, temp) == 0 && fstat(o->folder_fd, &here) == 0
            && fstat(open_temps[i].folder_fd, &there) == 0 && same_file(&here, &there)) return true;
    return false;
}

static bool locked(const struct outfile *o, const char *temp, struct unmask_err *err)
{
    if (writes_itself(o, temp)) return another_output(o->path, err);
    return fail(err, E_FILE_LOCKED, .file = o->path, .found = temp, .hint = "Wait until it is done, or choose another path");
}

/* Remove what killed runs left of this target; fail if a run is still writing it.  own: a name to leave alone. */
static bool clear_leftovers(const struct outfile *o, const char *prefix, const char *own, struct unmask_err *err)
{
    const int fd = openat(o->folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {                                 /* a folder that may be written but not listed */
        if (fd >= 0) close(fd);
        return true;
    }
    bool ok = true;
    for (const struct dirent *d; ok && (d = readdir(dir)); ) {
        if (!is_temp_of(d->d_name, prefix) || strcmp(d->d_name, own) == 0) continue;
        const int temp_fd = openat(o->folder_fd, d->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
        if (temp_fd < 0) continue;
        if (flock(temp_fd, LOCK_EX | LOCK_NB) == 0) unlinkat(o->folder_fd, d->d_name, 0);
        else if (errno == EWOULDBLOCK) ok = locked(o, d->d_name, err);
        close(temp_fd);
    }
    closedir(dir);
    return ok;
}

/* With the mode of the file that it replaces, from the start: what only its owner could read nobody else reads meanwhile. */
static bool create_temp(struct outfile *o, const char *own, struct unmask_err *err)
{
    struct stat st;
    const bool replaces = fstatat(o->folder_fd, file_name(o->path), &st, AT_SYMLINK_NOFOLLOW) == 0;
    const mode_t mode = replaces ? st.st_mode & 0777 : 0666;
    o->fd = openat(o->folder_fd, own, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    const int why = errno;
    if (o->fd >= 0 && replaces) fchmod(o->fd, mode);            /* what the umask took; some file systems have no modes */
    if (o->fd < 0 && why == EEXIST) return locked(o, own, err);
    if (o->fd < 0) return fail(err, E_FILE_WRITE, .file = o->path, .found = ERRNO(why),
                               .hint = "Choose a folder that you may write to");
    /* a file system without locks: two runs are not told apart, which no one can help */
    if ((flock(o->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) || (fstat(o->fd, &st) == 0 && st.st_nlink == 0))
        return locked(o, own, err);
    return true;
}

static bool open_folder(struct outfile *o, struct unmask_err *err)
{
    char *folder = folder_of(o->path, err);
    if (!folder) return false;
    o->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int why = errno;
    const bool ok = o->folder_fd >= 0 || fail(err, E_FILE_WRITE, .file = o->path, .field = folder, .found = ERRNO(why),
                                              .need = "a folder that exists",
                                              .hint = "Make the folder first, or check its spelling");
    mem_free(folder);
    return ok;
}

bool outfile_open(struct outfile *o, const char *path, bool force, uint64_t bytes, struct unmask_err *err)
{
    char prefix[PREFIX_BYTES], own[NAME_BYTES];
    const char *name = file_name(path);
    *o = (struct outfile){ .fd = -1, .folder_fd = -1, .force = force };
    if (!name[0] || strcmp(path, "-") == 0 || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return fail(err, E_FILE_TARGET, .file = path, .need = "the path of a file",
                    .hint = "The format needs a file that can be completed before it gets its name");
    if (!check_target(path, force, err) || !(o->path = behind_links(path, err))) return false;
    name = file_name(o->path);
    temp_prefix(prefix, name);
    snprintf(own, sizeof own, "%s%ld.part", prefix, (long)getpid());
    if (!open_folder(o, err)) goto fail;
    if (!clear_leftovers(o, prefix, "", err) || !outfile_fits(o, bytes, err)) goto fail;
    const size_t n_folder = (size_t)(name - o->path), n_own = strlen(own);
    if (!(o->temp = mem_zalloc(n_folder + n_own + KEPT_DIGITS + 1, 1, err))) goto fail;
    memcpy(o->temp, o->path, n_folder);
    memcpy(o->temp + n_folder, own, n_own);
    if (!create_temp(o, own, err)) goto fail;
    if (!clear_leftovers(o, prefix, own, err)) goto fail;       /* another run may have come in between */
    if (!register_temp(o->folder_fd, own)) {
        fail(err, E_INTERNAL, .file = path, .need = FMT("at most %d files being written", MOST_OPEN));
        goto fail;
    }
    return true;
fail:
    outfile_abort(o);
    return false;
}

/* ---- writing --------------------------------------------------------------------------------------- */

static bool write_failed(const struct outfile *o, uint64_t at, int why, struct unmask_err *err)
{
    return fail(err, E_FILE_WRITE, .file = o->path, .byte = AT(at), .found = ERRNO(why),
                .hint = why == EFBIG ? "FAT32 cannot hold files over 4 GiB; else see the limit of ulimit -f" :
                        why == ENOSPC || why == EDQUOT ? "Free some space or write to another disk" : NULL);
}

bool outfile_write(struct outfile *o, const void *p, size_t n, struct unmask_err *err)
{
    for (const uint8_t *from = p; n > 0; ) {
        const ssize_t put = write(o->fd, from, n);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return write_failed(o, o->written, put < 0 ? errno : ENOSPC, err);
        from += put;
        n -= (size_t)put;
        o->written += (uint64_t)put;
    }
    return true;
}

bool outfile_rewrite(struct outfile *o, uint64_t at, const void *p, size_t n, struct unmask_err *err)
{
    if (at > o->written || n > o->written - at)
        return fail(err, E_INTERNAL, .file = o->path, .byte = AT(at),
                    .found = FMT("%zu bytes", n), .need = "bytes that were written already");
    for (const uint8_t *from = p; n > 0; ) {
        const ssize_t put = pwrite(o->fd, from, n, (off_t)at);
        if (put < 0 && errno == EINTR) continue;
        if (put <= 0) return write_failed(o, at, put < 0 ? errno : ENOSPC, err);
        from += put;
        at += (uint64_t)put;
        n -= (size_t)put;
    }
    return true;
}

static void close_all(struct outfile *o)
{
    if (o->fd >= 0) close(o->fd);
    if (o->folder_fd >= 0) close(o->folder_fd);
    mem_free(o->path);
    mem_free(o->temp);
    *o = (struct outfile){ 0 };
}

void outfile_abort(struct outfile *o)
{
    if (!o->path) return;
    if (o->fd >= 0 && !o->kept) unlinkat(o->folder_fd, file_name(o->temp), 0);
    unregister_temp(o->folder_fd);
    close_all(o);
}

static bool sync_file(struct outfile *o, struct unmask_err *err)
{
    if (fsync(o->fd) == 0) return true;
    write_failed(o, o->written, errno, err);
    outfile_abort(o);
    return false;
}

bool outfile_settle(struct outfile *o, struct unmask_err *err)
{
    if (!sync_file(o, err)) return false;
    posix_fadvise(o->fd, 0, 0, POSIX_FADV_DONTNEED);
    return true;
}

void outfile_keep(struct outfile *o)
{
    char name[NAME_BYTES];
    char *part = o->temp + (file_name(o->temp) - o->temp);
    const int n = (int)(strlen(part) - strlen(".part"));
    struct stat earlier;                        /* of the same process number: in a container it is often the same */
    if (o->kept) return;
    o->kept = true;
    unregister_temp(o->folder_fd);
    for (int i = 0; i <= MOST_KEPT; i++) {
        if (i == 0) snprintf(name, sizeof name, "%.*s.done", n, part);
        else snprintf(name, sizeof name, "%.*s.%d.done", n, part, i);
        if (fstatat(o->folder_fd, name, &earlier, AT_SYMLINK_NOFOLLOW) == 0) continue;
        if (renameat(o->folder_fd, part, o->folder_fd, name) == 0) strcpy(part, name);
        return;
    }
}

/* It may be the work of hours. */
static bool without_name(struct outfile *o, const char *why, struct unmask_err *err)
{
    outfile_keep(o);
    return fail(err, E_FILE_RENAME, .file = o->path, .found = why, .hint = FMT("The result is %.200s", o->temp));
}

bool outfile_commit(struct outfile *o, struct unmask_err *err)
{
    const char *name = file_name(o->path);
    struct stat st;
    bool ok = true;
    if (!sync_file(o, err)) return false;
    if (!o->force && fstatat(o->folder_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
        ok = without_name(o, "another file has come there", err);
    else if (renameat(o->folder_fd, file_name(o->temp), o->folder_fd, name) != 0)
        ok = without_name(o, ERRNO(errno), err);
    else if (fsync(o->folder_fd) != 0 && errno != EINVAL && errno != EROFS)     /* some file systems cannot sync folders */
        ok = write_failed(o, o->written, errno, err);
    unregister_temp(o->folder_fd);
    close_all(o);
    return ok;
}
