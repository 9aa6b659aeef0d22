/* file.h - read-only access to a regular file by offset.  Files are read, never mapped: a model that is cut
 * short or overwritten while we run gives an error, not a fault. */
#ifndef FILE_H
#define FILE_H

#include "err.h"

struct file { int fd; char *path; uint64_t size; uint64_t device, inode; int64_t mtime_ns;
              bool once; };     /* what is read leaves the system's cache at once */

/* The last part of a path. */
const char *file_name(const char *path);

/* Do both paths lead to one file, whatever they look like? */
bool file_same(const char *a, const char *b);

/* "folder/name" (mem_free). */
char *file_path(const char *folder, const char *name, struct unmask_err *err);

/* Open a regular file (symbolic links are followed; a FIFO or device is refused without blocking). */
bool file_open(struct file *f, const char *path, struct unmask_err *err);
/* The same for a bare file name inside an open folder; name may not contain '/'.  Path is used in messages. */
bool file_open_in(struct file *f, int folder_fd, const char *folder, const char *name, struct unmask_err *err);
/* Exactly n bytes from offset, or an error. */
bool file_read(const struct file *f, uint64_t offset, void *dst, size_t n, struct unmask_err *err);
/* Drop n bytes from the system's cache; 0: everything from offset on. */
void file_forget(const struct file *f, uint64_t offset, uint64_t n);
/* Size, time and identity are still those of file_open(). */
bool file_unchanged(const struct file *f, struct unmask_err *err);
/* The same open file under a descriptor of its own. */
bool file_dup(struct file *to, const struct file *from, struct unmask_err *err);
void file_close(struct file *f);                /* a zeroed struct is fine */

/* A whole small file as one NUL-terminated allocation (mem_free); at most limit bytes. */
bool file_slurp(const char *path, uint64_t limit, char **text, size_t *n, struct unmask_err *err);

#endif
