/* reader.h - what a checkpoint owns, filled by gguf.c or safetensors.c.  checkpoint_close() frees all of it, also when
 * the reader failed half way. */
#ifndef READER_H
#define READER_H

#include "file.h"
#include "mem.h"
#include "names.h"

struct checkpoint_reader {
    struct file *files; size_t n_files;         /* tensors point at them: allocated once (n_files: those open) */
    void *bytes;                                /* metadata as it lies in the file, or NULL; strs point into it */
    struct arena arena;                         /* names and strings that do not lie in bytes   */
    struct names tensor_names, meta_names;      /* to the index in tensors and metas            */
};

/* Close the files and free what a checkpoint holds, but for the two structs and the path. */
struct checkpoint;
void checkpoint_clear(struct checkpoint *c);

#endif
