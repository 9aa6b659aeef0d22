/* quantize_parts.h - what the parts of quantize share: plan (which tensors, in which format), metadata, rows, driver. */
#ifndef QUANTIZE_PARTS_H
#define QUANTIZE_PARTS_H

#include "calibrate.h"
#include "checksum.h"
#include "gguf.h"
#include "model_name.h"
#include "pool.h"
#include "quantize.h"
#include "tokenizer.h"

enum quantize_method { BY_PLAIN, BY_SEARCH, BY_IMPORTANCE, BY_FEEDBACK };      /* from the least to the most thorough */
extern const char *const quantize_methods[];    /* their names */

/* A tensor of the output. */
struct piece {
    const struct tensor *from;
    const struct quant_format *to;
    const char *why;                            /* as in struct quantize_tensor */
    enum quantize_method method;
    enum tensor_role role;
    int layer;                                  /* -1: outside of layers */
    char name[64];
    const struct pack_format *packed;           /* NULL: row by row */
    bool matrix, rotate, unrotate;              /* rows change places in each head (arch_rotated_row), or change back */
    uint64_t n_rows, k;                         /* rows as they are converted; a vector is one row, or n rows of 1 to be rotated */
    uint64_t bytes;                             /* as written ... */
    struct checksum_text sha256;                /* ... and their checksum, with its place in the metadata */
    size_t sha256_place;
    size_t shard;                               /* the file that holds it */
};

/* A file of the output. */
struct shard { char *path; struct gguf_writer *writer; struct outfile out; };

struct quantize_job {
    const struct quantize_options *o;
    struct quantize_report *report;
    struct checkpoint *in;
    const struct arch *arch;
    struct hparams h;
    struct rules *rules;
    struct quantize_calibration *calibration;   /* NULL: none */
    struct piece *pieces; size_t n_pieces;      /* in the order of the file */
    struct shard *shards; size_t n_shards;      /* all metadata are in the first one */
    struct pool *pool;
    uint64_t done, total;                       /* progress, in bytes */
    double error2, sum2;                        /* sums of squares over the matrices */
    struct model_name name;                     /* of the model, as far as known */
};

/* quantize_plan.c: fill pieces and report; tensors that the output would lose are refused. */
bool quantize_plan(struct quantize_job *j, struct unmask_err *err);
const char *quantize_type(const struct quantize_options *o);            /* the name of what the output is made of */
uint32_t quantize_file_type(const struct quantize_options *o);

/* quantize_layout.c: the roles of a layer in the order of the file. */
enum { LAYER_ROLES = 12 };
const enum tensor_role *layout_order(const struct quantize_job *j);
/* Of a piece that has its format. */
bool layout_choose(const struct quantize_job *j, struct piece *p, enum tensor_role role, struct unmask_err *err);
uint64_t layout_bytes(const struct piece *p);
uint64_t layout_unit(const struct piece *p, int head_dim);              /* rows that must lie in one chunk */
uint64_t layout_row(const struct piece *p, uint64_t r, int head_dim);   /* where row r of the input goes: inside its unit */
bool layout_align(const struct quantize_job *j, struct gguf_writer *w, struct unmask_err *err);
bool layout_put(const struct piece *p, struct gguf_writer *w, struct unmask_err *err);
/* Tiles of a chunk of rows in the output's format; returns their bytes. */
size_t layout_pack(struct quantize_job *j, const struct piece *p, const uint8_t *rows, uint64_t n_rows, uint8_t *tiles);

/* quantize_rules.c: options->rules as compiled patterns. */
struct rules;
bool rules_open(struct rules **out, const struct quantize_options *o, struct unmask_err *err);
void rules_close(struct rules *r);              /* NULL is fine */
/* The rule that fits a matrix, or NULL in *rule.  layer: -1 outside of layers. */
bool rules_find(struct rules *r, const char *name, int layer, const struct hparams *h,
                const struct quantize_rule **rule, struct unmask_err *err);
/* After all tensors: a required rule that no matrix took or that only earlier ones took before it is an error. */
bool rules_all_used(const struct rules *r, struct unmask_err *err);

/* quantize_shards.c: in this order; the last one at the end, whatever happened. */
bool quantize_shards_plan(struct quantize_job *j, const char *out, struct unmask_err *err);
bool quantize_shards_describe(struct quantize_job *j, struct unmask_err *err);
bool quantize_shards_open(struct quantize_job *j, struct unmask_err *err);
bool quantize_shards_headers(struct quantize_job *j, struct unmask_err *err);
bool quantize_shards_complete(struct quantize_job *j, struct unmask_err *err);         /* checks sizes, writes checksums */
bool quantize_shards_reopen(struct quantize_job *j, struct checkpoint **c, struct unmask_err *err);
bool quantize_shards_commit(struct quantize_job *j, struct unmask_err *err);
void quantize_shards_free(struct quantize_job *j);

/* quantize_meta.c: metadata and tensor list for the writer.  For folders it opens the tokenizer and completes h's token ids. */
bool quantize_describe(struct quantize_job *j, struct unmask_err *err);

/* quantize_calibrate.c: read the texts up to the layer of a piece that needs it; both results stay valid until the next piece.
 * moments: factored, NULL without feedback; importance: [k]. */
bool quantize_calibrates(const struct quantize_options *o);             /* there are texts, or there will be, if only of random ids */
uint64_t quantize_calibrate_ids(const struct quantize_options *o);      /* that are read, about; 0: none */
size_t quantize_n_calibrated(const struct quantize_job *j);             /* matrices that are rounded by them */
uint64_t quantize_random_ids(const struct quantize_job *j);             /* of those; 0 also where no piece needs them */
const char *quantize_calibrate_source(const struct quantize_options *o);        /* where they, or a file's importance, come from;
                                                                                   NULL: nobody says */
bool quantize_has_moments(const struct quantize_options *o, enum tensor_role role);     /* and what the matrix multiplies becomes known */
bool quantize_needs_calibration(const struct quantize_job *j, const struct piece *p);   /* to be rounded, or to save its importance */
bool quantize_calibrate_open(struct quantize_job *j, struct unmask_err *err);
bool quantize_calibrate(struct quantize_job *j, const struct piece *p,
                        const struct moments **moments, const float **importance, struct unmask_err *err);
const struct kernels *quantize_kernels(const struct quantize_job *j);   /* once it is open */
uint64_t quantize_calibrate_memory(const struct quantize_job *j, int workers);
uint64_t quantize_calibrate_work(const struct quantize_job *j);        /* in the bytes of progress */
void quantize_calibrate_close(struct quantize_job *j);

/* quantize_rows.c: convert pieces one by one, append them to their shard, note their checksums. */
uint64_t quantize_rows_memory(const struct quantize_job *j, int workers);
bool quantize_rows(struct quantize_job *j, struct unmask_err *err);

/* Tell the caller how far it is; false and E_CANCELLED when they stop it. */
static inline bool quantize_tell(struct quantize_job *j, enum quantize_stage stage, const char *tensor, struct unmask_err *err)
{
    const struct quantize_progress p = { stage, tensor, j->done, j->total, j->report };
    return !j->o->on_progress || j->o->on_progress(j->o->user, &p) || fail(err, E_CANCELLED, .file = j->shards[0].path);
}

#endif
