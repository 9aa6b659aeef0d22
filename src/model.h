/* model.h - weights, packed for the kernels, with what is needed to run them: all in memory, or of a packed file a part, the rest
 * being read when a pass needs it (stream.h).  Immutable once loaded. */
#ifndef MODEL_H
#define MODEL_H

#include "arch.h"
#include "chat.h"
#include "kernels.h"
#include "pack.h"
#include "pool.h"
#include "stream.h"
#include "tokenizer.h"

/* A matrix of n output channels by k inputs as packed tiles (pack.h): borrowed from the model's one block of memory, or where
 * tiles is NULL, part number `part` of its stream. */
struct weight { const struct pack_format *pack; const uint8_t *tiles; int n, k, part; };
static inline size_t padded(int n) { return (size_t)tiles_of(n) * TILE_N; }     /* floats that a product with n channels writes of a row */

struct layer {
    struct weight q, k, v, o, gate, up, down;
    const float *attn_norm, *ffn_norm;          /* [n_embd]              */
    const float *q_bias, *k_bias, *v_bias;      /* [n], or NULL for none */
};

struct unmask_model {
    const struct arch *arch;
    struct hparams h;                           /* mask_id is always set here; eos and eot where anything names them */
    struct kernels kernels;
    const char *isa;
    struct weight embed, head;                  /* the same tiles where the head is tied; else embed has none ... */
    const struct quant_format *embed_format;    /* ... but rows of this format, one after the other               */
    const uint8_t *embed_rows;                  /* NULL: in the file, from ... */
    const struct file *embed_file; uint64_t embed_offset;
    const float *out_norm;                      /* [n_embd] */
    struct layer *layers;                       /* [n_layer] */
    struct tokenizer *tokenizer;                /* NULL when opened without */
    const struct chat_template *chat;           /* NULL: the model has no known template ...             */
    struct unmask_err chat_err;                 /* ... and this says why, to whoever asks for a chat     */
    struct unmask_options defaults;             /* diffusion.* keys of the file over our own             */
    char *name, *path;                          /* for people; of the file or folder, for errors        */
    const struct pack_format *k_pack;           /* of the keys' matrices                           */
    const char *weight_format;                  /* format of most of the weight bytes */
    uint64_t parameters, weight_bytes;          /* bytes: of all weights, wherever they are */
    uint8_t *memory;                            /* the weights that stay */
    struct stream_part *stream; int n_stream;   /* the others, in the order of a pass; none: everything stays */
    size_t ring_bytes;                          /* for the stream of a session */
    struct file *files; size_t n_files;         /* that the others are in */
    uint64_t budget, taken;                     /* of the process's memory: all that it may take (0: no limit), and what it
                                                   has, this model's weights included and no session's */
    _Atomic uint64_t *in_sessions;              /* bytes that its sessions may take */
    struct loader *loader;                      /* between model_prepare() and model_load() */
};

/* Of the best set that this CPU has, or E_RUN_CPU. */
bool model_kernels(struct kernels *k, struct unmask_err *err);

/* Everything but the weights, which are found and measured. */
bool model_prepare(struct unmask_model **out, const char *path, const struct unmask_open_options *opts, struct unmask_err *err);
/* Which weights stay in memory: all, or where they are more than `limit` bytes and the file is a packed one, evenly spaced
 * matrices up to it, but never less than the norms, the head, and what is not packed.  model_load() does what the last call
 * decided. */
struct model_share { uint64_t resident, streamed, in_file; };           /* bytes: in memory; read by every pass; looked up in the file */
struct model_share model_divide(struct unmask_model *m, uint64_t limit);
/* The matrices of a layer, and the head, of a model that is prepared; without tiles and vectors. */
struct layer model_shape(const struct unmask_model *m, struct weight *head);
uint64_t model_least(const struct unmask_model *m);             /* what stays at least, if the file is packed, or were it */
bool model_packed(const struct unmask_model *m);
bool model_load(struct unmask_model *m, size_t ring_bytes, int threads, struct unmask_err *err);
/* One layer as a model of one layer that has no embedding, head or tokenizer: for passes through a model that is not in memory. */
bool model_open_layer(struct unmask_model **out, const struct arch *a, const struct checkpoint *c, const struct hparams *h, int layer,
                      int threads, struct unmask_err *err);
/* What loading would take, from the descriptions of the tensors alone; fails where loading would. */
bool model_plan(const struct arch *a, const struct checkpoint *c, const struct hparams *h, uint64_t *weight_bytes, uint64_t *parameters,
                struct unmask_err *err);
/* The error of a model that computes numbers which are none: E_MODEL_OUTPUT. */
bool model_fail_output(const struct unmask_model *m, const char *where, const char *found, struct unmask_err *err);
void model_close(struct unmask_model *m);

/* Row `id` of an embedding in memory as float32: out[n_embd].  scratch: model_embed_scratch() bytes, those of a row. */
void model_embed(const struct unmask_model *m, int32_t id, float *out, void *scratch);
size_t model_embed_scratch(const struct unmask_model *m);      /* 0 without embedding */

#endif
