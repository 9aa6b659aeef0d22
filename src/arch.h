/* arch.h - model architectures, one table row each: how files of a family name their numbers and tensors. */
#ifndef ARCH_H
#define ARCH_H

#include "checkpoint.h"

/* What a file may ask for. */
enum { MAX_LAYERS = 1024, MAX_HEADS = 1024, MAX_WIDTH = 1 << 20, MAX_VOCAB = 1 << 20, MAX_CONTEXT = 1 << 24 };

struct hparams {
    int n_layer, n_embd, n_head, n_head_kv, head_dim, n_ff, n_vocab, n_ctx;
    float rope_theta, norm_eps;
    int32_t mask_id, eos_id, bos_id, eot_id;    /* -1: not in the file (the tokenizer may know)           */
    bool tied_head, qkv_bias;
};

enum tensor_role { T_EMBED, T_OUT_NORM, T_HEAD, T_ATTN_NORM, T_Q, T_K, T_V, T_O, T_Q_BIAS, T_K_BIAS, T_V_BIAS, T_FFN_NORM,
                   T_GATE, T_UP, T_DOWN, TENSOR_ROLES };

struct arch_tensor {
    const char *gguf, *folder;                  /* names; "%d" is the layer                               */
    bool per_layer, matrix;                     /* matrix: may be quantized; else F32 in GGUF files       */
    bool rotated;                               /* rows (or a bias) are permuted in GGUF files, per head  */
};

struct arch {
    const char *name;                           /* general.architecture                                   */
    const char *folder_class;                   /* config.json "architectures"[0]                         */
    bool shift_logits;                          /* logits of row i predict position i + 1                 */
    const struct arch_tensor *tensors;          /* [TENSOR_ROLES]; a NULL name: the family has no such tensor */
    bool (*read_folder)(struct hparams *h, const struct checkpoint *c, struct unmask_err *err);   /* config.json */
};

extern const struct arch *const archs[];        /* NULL ends it */

/* The architecture of a checkpoint, or an error that lists the known ones. */
const struct arch *arch_of(const struct checkpoint *c, struct unmask_err *err);
/* Hyperparameters, all checked against each other and against the shapes of the tensors present. */
bool arch_hparams(const struct arch *a, const struct checkpoint *c, struct hparams *h, struct unmask_err *err);
/* Settle the special ids: those of the file come first, then those of the tokenizer (NULL: there is none), then the end of a turn
 * of its chat template.  From here on the mask is known, and all that the files give are ids of their own in the vocabulary. */
struct tokenizer;
bool arch_settle_ids(struct hparams *h, const struct checkpoint *c, const struct tokenizer *t, struct unmask_err *err);
/* Whether a model with these hparams has the tensor, and its shape: *k columns (0 for vectors: n values), *n rows. */
bool arch_has(const struct hparams *h, enum tensor_role role);
void arch_shape(const struct hparams *h, enum tensor_role role, int *n, int *k);
/* The tensor of a role (layer is ignored where it plays no role): NULL and an error if missing or of another shape. */
const struct tensor *arch_tensor(const struct arch *a, const struct checkpoint *c, const struct hparams *h,
                                 enum tensor_role role, int layer, struct unmask_err *err);
/* Which tensors of the checkpoint have a role in a model with these hparams: *used [n_tensors], the caller's to free. */
bool arch_used(const struct arch *a, const struct checkpoint *c, const struct hparams *h, bool **used, struct unmask_err *err);
/* Row of a GGUF file that holds row r of a `rotated` tensor: rows are permuted inside each head so that
 * interleaved rotary pairs give what half-split pairs give (contract of llama.cpp's llada files). */
int arch_rotated_row(int r, int head_dim);

#endif
