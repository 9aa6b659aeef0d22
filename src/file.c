/* file.c - see file.h. */
#define _FILE_OFFSET_BITS 64
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem.h"

const char *file_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool file_same(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

char *file_path(const char *folder, const char *name, struct unmask_err *err)
{
    const size_t n = strlen(folder), m = strlen(name);
    char *path = mem_resize(NULL, n + m + 2, 1, err);
    if (!path) return NULL;
    memcpy(path, folder, n);
    path[n] = '/';
    memcpy(path + n + 1, name, m + 1);
    return path;
}

static int64_t mtime_ns(const struct stat *st)
{
    return (int64_t)((uint64_t)st->st_mtim.tv_sec * 1000000000u + (uint64_t)st->st_mtim.tv_nsec);
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a pipe" : S_ISCHR(mode) || S_ISBLK(mode) ? "a device" :
           S_ISSOCK(mode) ? "a socket" : "something else";
}

/* Open name in a folder; O_NONBLOCK so that a FIFO without a writer does not hang us before we can refuse it. */
static bool open_at(struct file *f, int folder_fd, const char *name, const char *path, struct unmask_err *err)
{
    struct stat st;
    *f = (struct file){ .fd = openat(folder_fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC) };
    const int why = errno;
    if (f->fd < 0)
        return fail(err, E_FILE_OPEN, .file = path, .found = ERRNO(why),
                    .hint = *path == '~' ? "~ is not replaced by the home folder here: write that out"
                          : why == ENOENT ? "Check the spelling of the path" : NULL);
    bool ok = fstat(f->fd, &st) == 0 || fail(err, E_FILE_OPEN, .file = path, .found = ERRNO(errno));
    ok = ok && (S_ISREG(st.st_mode) || fail(err, E_FILE_KIND, .file = path, .found = kind_of(st.st_mode)));
    ok = ok && (f->path = mem_strndup(path, strlen(path), err)) != NULL;
    if (!ok) {
        close(f->fd);
        *f = (struct file){ 0 };
        return false;
    }
    f->size = (uint64_t)st.st_size;
    f->device = (uint64_t)st.st_dev;
    f->inode = (uint64_t)st.st_ino;
    f->mtime_ns = mtime_ns(&st);
    return true;
}

bool file_open(struct file *f, const char *path, struct unmask_err *err) { return open_at(f, AT_FDCWD, path, path, err); }

bool file_open_in(struct file *f, int folder_fd, const char *folder, const char *name, struct unmask_err *err)
{
    *f = (struct file){ 0 };
    if (strchr(name, '/')) return fail(err, E_FILE_OPEN, .file = folder, .field = QUOTE(name, strlen(name)),
                                       .need = "a file name without '/'");
    char *path = file_path(folder, name, err);
    if (!path) return false;
    const bool ok = open_at(f, folder_fd, name, path, err);
    mem_free(path);
    return ok;
}

bool file_read(const struct file *f, uint64_t offset, void *dst, size_t n, struct unmask_err *err)
{
    if (offset > f->size || n > f->size - offset)
        return fail(err, E_FILE_READ, .file = f->path, .byte = AT(offset), .found = FMT("%" PRIu64 " bytes", f->size),
                    .need = FMT("%zu from here", n));
    for (size_t done = 0; done < n; ) {
        const ssize_t got = pread(f->fd, (char *)dst + done, n - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0)
            return fail(err, E_FILE_READ, .file = f->path, .byte = AT(offset + done), .found = ERRNO(errno),
                        .need = FMT("bytes %" PRIu64 " to %" PRIu64, offset, offset + n));
        if (got == 0)
            return fail(err, E_FILE_CHANGED, .file = f->path, .byte = AT(offset + done), .found = "the end of the file",
                        .need = FMT("%" PRIu64 " bytes as when it was opened", f->size));
        done += (size_t)got;
    }
    if (f->once) file_forget(f, offset, n);
    return true;
}

void file_forget(const struct file *f, uint64_t offset, uint64_t n)
{
    const uint64_t page = 16384, start = offset / page * page;          /* only whole pages go, of whatever size they are */
    posix_fadvise(f->fd, (off_t)start, n ? (off_t)((offset + n + page - 1) / page * page - start) : 0, POSIX_FADV_DONTNEED);
}

bool file_unchanged(const struct file *f, struct unmask_err *err)
{
    struct stat st;
    if (fstat(f->fd, &st) != 0) return fail(err, E_FILE_READ, .file = f->path, .found = ERRNO(errno));
    if ((uint64_t)st.st_size != f->size)
        return fail(err, E_FILE_CHANGED, .file = f->path, .found = FMT("%" PRIu64 " bytes", (uint64_t)st.st_size),
                    .need = FMT("%" PRIu64 " as when it was opened", f->size));
    if (mtime_ns(&st) != f->mtime_ns || (uint64_t)st.st_dev != f->device || (uint64_t)st.st_ino != f->inode)
        return fail(err, E_FILE_CHANGED, .file = f->path, .found = "another time of change",
                    .need = "that of when it was opened");
    return true;
}

bool file_dup(struct file *to, const struct file *from, struct unmask_err *err)
{
    *to = *from;
    if (!(to->path = mem_strndup(from->path, strlen(from->path), err))) return false;
    if ((to->fd = fcntl(from->fd, F_DUPFD_CLOEXEC, 3)) >= 0) return true;
    mem_free(to->path);
    *to = (struct file){ 0 };
    return fail(err, E_FILE_OPEN, .file = from->path, .found = ERRNO(errno));
}

void file_close(struct file *f)
{
    if (f->path) close(f->fd);
    mem_free(f->path);
    *f = (struct file){ 0 };
}

bool file_slurp(const char *path, uint64_t limit, char **text, size_t *n, struct unmask_err *err)
{
    struct file f;
    if (!file_open(&f, path, err)) return false;
    bool ok = f.size <= limit || fail(err, E_FILE_SIZE, .file = path, .found = FMT("%" PRIu64 " bytes", f.size),
                                      .need = FMT("at most %" PRIu64, limit));
    char *t = ok ? mem_resize(NULL, (size_t)f.size + 1, 1, err) : NULL;
    ok = t && file_read(&f, 0, t, (size_t)f.size, err);
    if (ok) {
        t[f.size] = 0;
        *text = t;
        *n = (size_t)f.size;
    } else mem_free(t);
    file_close(&f);
    return ok;
}
