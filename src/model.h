/* model.h - weights in memory, packed for the kernels, with what is needed to run them.  Immutable after model_open. */
#ifndef MODEL_H
#define MODEL_H

#include "arch.h"
#include "chat.h"
#include "kernels.h"
#include "pack.h"
#include "pool.h"
#include "tokenizer.h"

/* A matrix of n output channels by k inputs as packed tiles (pack.h), borrowed from the model's one block of memory. */
struct weight { const struct pack_format *pack; const uint8_t *tiles; int n, k; };

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
    const uint8_t *embed_rows;
    const float *out_norm;                      /* [n_embd] */
    struct layer *layers;                       /* [n_layer] */
    struct tokenizer *tokenizer;                /* NULL when opened without */
    const struct chat_template *chat;           /* NULL: the model has no known template ...             */
    struct unmask_err chat_err;                 /* ... and this says why, to whoever asks for a chat     */
    struct unmask_options defaults;             /* diffusion.* keys of the file over our own             */
    char *name;
    const char *weight_format;                  /* format of most of the weight bytes */
    uint64_t parameters, weight_bytes;
    uint8_t *memory;                            /* all weights */
};

bool model_open(struct unmask_model **out, const char *path, const struct unmask_open_options *opts, struct unmask_err *err);
/* One layer as a model of one layer that has no embedding, head or tokenizer: for passes through a model that is not in memory. */
bool model_open_layer(struct unmask_model **out, const struct arch *a, const struct checkpoint *c, const struct hparams *h, int layer, int threads,
                      struct unmask_err *err);
/* What loading would take, from the descriptions of the tensors alone; fails where loading would. */
bool model_plan(const struct arch *a, const struct checkpoint *c, const struct hparams *h, uint64_t *weight_bytes, uint64_t *parameters,
                struct unmask_err *err);
void model_close(struct unmask_model *m);

/* Row `id` of the embedding as float32: out[n_embd].  scratch: model_embed_scratch() bytes. */
void model_embed(const struct unmask_model *m, int32_t id, float *out, void *scratch);
size_t model_embed_scratch(const struct unmask_model *m);      /* 0 without embedding */

#endif
