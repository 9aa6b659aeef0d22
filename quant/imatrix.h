/* imatrix.h - importance files of llama.cpp: how large the inputs of each matrix are, column by column, as mean squares over a
 * calibration text.  Read in both forms, the older binary one (.dat) and GGUF; written as GGUF. */
#ifndef IMATRIX_H
#define IMATRIX_H

#include "names.h"
#include "outfile.h"

struct imatrix_entry { char name[64]; float *squares; size_t k; };      /* name: of the matrix, "blk.0.attn_q.weight" */

struct imatrix {
    struct imatrix_entry *entries; size_t n;
    struct names names;                         /* of the entries */
    char dataset[128];                          /* name of the text, or empty */
    uint32_t chunks, chunk_size;                /* texts read, and their length in tokens; 0: not known */
};

bool imatrix_read(struct imatrix *m, const char *path, struct unmask_err *err);
bool imatrix_write(const struct imatrix *m, struct outfile *o, struct unmask_err *err);
/* Room for n entries in one that has none; what is known about the text stays. */
bool imatrix_init(struct imatrix *m, size_t n, struct unmask_err *err);
/* One that is in it already is refused. */
bool imatrix_add(struct imatrix *m, const char *name, const float *squares, size_t k, struct unmask_err *err);
const struct imatrix_entry *imatrix_find(const struct imatrix *m, const char *name);   /* NULL: none */
void imatrix_free(struct imatrix *m);           /* a zeroed struct is fine */

#endif
