/* outfile.h - the only way this program writes a file: beside the target under a temporary name, then verified,
 * synced and renamed, so that the target is always its old self or complete. */
#ifndef OUTFILE_H
#define OUTFILE_H

#include "err.h"

/* temp: path of the file until it is complete */
struct outfile { int fd, folder_fd; char *path, *temp; uint64_t written; bool force, kept; };

/* path must not exist unless force, and then its mode stays; of a link, the file that it leads to is written.
 * bytes (0 = unknown) must fit as outfile_fits() says. */
bool outfile_open(struct outfile *o, const char *path, bool force, uint64_t bytes, struct unmask_err *err);
/* The disk has room for so many bytes now.  For a size that is known only once the file is open. */
bool outfile_fits(const struct outfile *o, uint64_t bytes, struct unmask_err *err);
bool outfile_write(struct outfile *o, const void *p, size_t n, struct unmask_err *err);        /* appends */
/* Other bytes in place of some that were written already. */
bool outfile_rewrite(struct outfile *o, uint64_t at, const void *p, size_t n, struct unmask_err *err);
/* All bytes are on the disk, and what is read next comes from there, not out of the system's memory. */
bool outfile_settle(struct outfile *o, struct unmask_err *err);
/* For several files that belong together, once they are settled and before the first of them is committed: from here on the temporary
 * file, which is complete, stays: o->temp, with the ending .done, which no later run takes for a leftover. */
void outfile_keep(struct outfile *o);
/* fsync, rename over the target, fsync of the folder; closes o.  If only the rename fails, the file is kept as by
 * outfile_keep(), and the error tells its name. */
bool outfile_commit(struct outfile *o, struct unmask_err *err);
void outfile_abort(struct outfile *o);          /* removes the temporary file, unless it is kept; a zeroed struct is fine */

/* Remove the temporary files of all open outfiles; async-signal-safe, for SIGINT and SIGTERM handlers. */
void outfile_abort_all(void);

#endif
