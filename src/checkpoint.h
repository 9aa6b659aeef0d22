/* checkpoint.h - one face for model files: GGUF, and Hugging Face folders of safetensors.
 * Open finds out what a path is by its content, checks all of its structure and reads no weights. */
#ifndef CHECKPOINT_H
#define CHECKPOINT_H

#include "cursor.h"
#include "tensor.h"

/* Value types of metadata; the numbers are GGUF's. */
enum meta_type { META_U8, META_I8, META_U16, META_I16, META_U32, META_I32, META_F32, META_BOOL, META_STRING, META_ARRAY,
                 META_U64, META_I64, META_F64 };

/* A key of a GGUF file, or a top-level field of config.json (null fields are absent; the first string of
 * "architectures" stands under that name). */
struct meta {
    struct str key;
    enum meta_type type;
    union { uint64_t u; int64_t i; double f; bool b; struct str s; } v;         /* by type; all widths of a kind share a member */
    enum meta_type item_type;                   /* META_ARRAY: type of the items ...      */
    uint64_t n_items;                           /* ... their number ...                   */
    struct str items;                           /* ... and their bytes as in a GGUF file  */
    uint64_t offset;                            /* of the key in the file                 */
};

const char *meta_type_name(enum meta_type type);
size_t meta_type_bytes(enum meta_type type);    /* of one value in a GGUF file; 0 for META_STRING and META_ARRAY */

enum checkpoint_kind { CHECKPOINT_GGUF, CHECKPOINT_FOLDER };

struct checkpoint {
    enum checkpoint_kind kind;
    const char *path;
    struct tensor *tensors; size_t n_tensors;   /* in file order, names unique            */
    bool packed;                                /* some tensors are; then no rows are permuted (arch_rotated_row) */
    uint64_t spare_bytes;                       /* of its files that are neither metadata nor a tensor nor alignment */
    struct meta *metas; size_t n_metas;
    struct checkpoint_reader *reader;           /* private                                */
};

/* Of a split GGUF model path is the first part; the others lie beside it. */
bool checkpoint_open(struct checkpoint **out, const char *path, struct unmask_err *err);
/* GGUF files that are the parts of one model, whatever their names; one file is a whole model. */
bool checkpoint_open_parts(struct checkpoint **out, const char *const *paths, size_t n, struct unmask_err *err);
/* Does a path lead to one of its files, of a folder also to one that is not read here, such as the tokenizer's? */
bool checkpoint_has_file(const struct checkpoint *c, const char *path);
void checkpoint_close(struct checkpoint *c);    /* NULL is fine; every tensor and str borrowed from it ends here */

const struct tensor *checkpoint_tensor(const struct checkpoint *c, const char *name);  /* NULL: none; by hash */
bool checkpoint_read(const struct tensor *t, uint64_t offset, void *dst, size_t n, struct unmask_err *err);
/* Rows as the tensor's format has them, of packed tensors too. */
bool checkpoint_read_rows(const struct tensor *t, uint64_t row0, uint64_t n_rows, void *dst, struct unmask_err *err);

const struct meta *checkpoint_meta(const struct checkpoint *c, const char *key);        /* NULL: none; by hash */
/* Typed getters.  An absent key leaves *v alone and succeeds unless `required`; another type or a value outside
 * [min, max] is an error that names key, offset, found and need. */
bool meta_int(const struct checkpoint *c, const char *key, int64_t min, int64_t max, bool required, int64_t *v, struct unmask_err *err);
bool meta_float(const struct checkpoint *c, const char *key, double min, double max, bool required, double *v, struct unmask_err *err);
bool meta_bool(const struct checkpoint *c, const char *key, bool required, bool *v, struct unmask_err *err);
bool meta_str(const struct checkpoint *c, const char *key, bool required, struct str *v, struct unmask_err *err);
/* What a model is called: general.name of a GGUF file, else the last part of its path, "llada-tiny" of "models/llada-tiny/". */
struct str checkpoint_name(const struct checkpoint *c);
/* Items of an array of strings; start with *at = 0; false at the end. */
bool meta_next_string(const struct meta *array, uint64_t *at, struct str *item);

#endif
