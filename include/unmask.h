/* unmask.h - run masked-diffusion language models (LLaDA and its relatives) on a CPU.
 *
 * A model writes by denoising: the answer starts as a canvas of mask tokens, every denoising step
 * runs a bidirectional Transformer over the canvas, and the positions the model is surest of are
 * unmasked (LLaDA, arXiv:2502.09992).
 *
 *     struct unmask_err err;
 *     struct unmask_model *m;
 *     struct unmask_session *s;
 *     struct unmask_options o;
 *     struct unmask_result r;
 *     if (!unmask_open(&m, "model.gguf", NULL, &err) || !unmask_session_open(&s, m, 0, &err)) ...
 *     unmask_options_default(m, &o);
 *     struct unmask_message hello = { "user", "turn on the kitchen light", 0 };
 *     int32_t *ids; size_t n;
 *     unmask_chat_ids(m, &hello, 1, &ids, &n, &err);
 *     unmask_generate(s, ids, n, &o, NULL, NULL, &r, &err);
 *     char *text; size_t len;
 *     unmask_detokenize(m, r.ids, r.n_ids, 0, &text, &len, &err);
 *
 * Every function that can fail returns false and fills err (which may be NULL); see struct
 * unmask_err; a NULL where something is needed is such a failure.  What it was to give is NULL then
 * (a number of ids or bytes 0, a likelihood NAN), and the session or model that it was called with
 * can be used again.  The library prints nothing, installs no signal handler and never exits.  A
 * model is immutable and may be shared between threads; a session belongs to one thread at a time,
 * which needs 256 KiB of stack.
 * A child that was forked may close what its parent opened, and must open its own to run anything.
 * The same file, prompt, options and seed give the same tokens on every CPU and for every thread
 * count.  Until version 1.0 the structures below may grow from one minor version to the next, and the
 * shared library's name changes with it. */
#ifndef UNMASK_H
#define UNMASK_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define UNMASK_VERSION "0.1.0"

/* What kind of failure; the number is the exit code of the unmask program. */
enum unmask_status {
    UNMASK_OK = 0,
    UNMASK_EINTERNAL = 1,       /* our bug: an internal check failed                            */
    UNMASK_EUSAGE = 2,          /* wrong use: flag, parameter, YAML                             */
    UNMASK_EMODEL = 3,          /* bad or unsupported model, tokenizer or checkpoint            */
    UNMASK_EIO = 4,             /* cannot read or write: missing, permission, disk full         */
    UNMASK_EMEMORY = 5,         /* does not fit in memory                                       */
    UNMASK_ELIMIT = 6,          /* refused by a limit: prompt too long, too many items          */
    UNMASK_ECHECK = 8,          /* a requested check failed                                     */
    UNMASK_ECANCELLED = 130     /* stopped by a callback or a signal                            */
};

/* Why a call failed, in parts.  Text fields are NUL-terminated UTF-8 without control bytes; an
 * unknown part is "".  unmask_err_message() makes the one-line sentence out of them. */
struct unmask_err {
    enum unmask_status status;
    char id[16];                /* "E-GGUF-004": stable, listed in src/errors.def               */
    char file[256];             /* the file concerned                                           */
    char what[256];             /* what is wrong                                                */
    char field[128];            /* tensor, key, flag or JSON path                               */
    bool has_offset;
    uint64_t offset;            /* byte offset in file, when has_offset                         */
    char found[256], need[256];
    char hint[320];             /* what to do                                                   */
};

/* Write "FILE: WHAT (FIELD, byte OFFSET): found X, need Y. HINT [ID]" to buf (always terminated,
 * cut at size); returns buf. */
const char *unmask_err_message(const struct unmask_err *err, char *buf, size_t size);

/* ---- model --------------------------------------------------------------------------------- */

struct unmask_model;

/* Told again and again how far loading is, bytes of the weights that stay in memory.  False cancels (UNMASK_ECANCELLED). */
typedef bool unmask_load_fn(void *user, uint64_t done, uint64_t total);

/* Zero means default in every member. */
struct unmask_open_options {
    const char *isa;            /* "auto" or the name of an instruction set this CPU has        */
    int threads;                /* threads that pack weights; 0 = all cores we may run on       */
    bool without_tokenizer;     /* do not load (or require) a tokenizer                         */
    uint64_t memory_budget;     /* bytes of resident memory that the process may take; a packed file that
                                   is larger is read while it runs.  0 = 75 % of what is available */
    int context;                /* positions for which the budget keeps room; 0 = 512, or the model's */
    int sessions;               /* ... in so many sessions at a time; 0 = 1                      */
    int logit_rows;             /* ... beside so many rows of logits that the caller keeps       */
    bool guidance, logits;      /* ... with classifier-free guidance; with whole rows of logits (a temperature,
                                   unmask_forward(), likelihoods)                               */
    const char *reuse, *store;  /* ... and under these (struct unmask_options)                  */
    unmask_load_fn *on_load; void *user;        /* NULL: nobody is told                          */
};

struct unmask_model_info {
    const char *name, *architecture, *isa, *weight_format;     /* live as long as the model     */
    uint64_t parameters, weight_bytes;
    int n_layer, n_embd, n_vocab, context_length;
    int32_t mask_id, eos_id, eot_id, bos_id;                    /* -1: the model has none        */
    bool has_tokenizer;
};

/* Open a GGUF file or a Hugging Face folder (config.json, *.safetensors, tokenizer.json), check it and
 * pack its weights for this CPU.  On success *out is the caller's, to be given to unmask_close(). */
bool unmask_open(struct unmask_model **out, const char *path, const struct unmask_open_options *opts,
                 struct unmask_err *err);
void unmask_close(struct unmask_model *m);                      /* NULL is fine                  */
void unmask_model_get_info(const struct unmask_model *m, struct unmask_model_info *info);

/* ---- text ---------------------------------------------------------------------------------- */

enum { UNMASK_SPECIAL = 1 };    /* tokenize: recognise special tokens in the text.
                                   detokenize: write special tokens too (default: skip them)    */

/* UTF-8 text <-> token ids.  *ids and *text are the caller's, to be given to unmask_free(); *text is
 * NUL-terminated valid UTF-8 (an incomplete character becomes U+FFFD).  No bos token is added. */
bool unmask_tokenize(const struct unmask_model *m, const char *text, size_t len, unsigned flags, int32_t **ids,
                     size_t *n, struct unmask_err *err);
bool unmask_detokenize(const struct unmask_model *m, const int32_t *ids, size_t n, unsigned flags, char **text,
                       size_t *len, struct unmask_err *err);

struct unmask_message {
    const char *role, *content; /* role: system, user, assistant                                */
    size_t n_content;           /* bytes; 0: up to the NUL that ends content                    */
};

/* Token ids of a conversation in the model's chat template, up to where the assistant's answer
 * begins.  Message text never becomes a special token. */
bool unmask_chat_ids(const struct unmask_model *m, const struct unmask_message *messages, size_t n_messages,
                     int32_t **ids, size_t *n, struct unmask_err *err);

/* For ids and text of the functions above; NULL is fine. */
void unmask_free(void *p);

/* ---- generation ---------------------------------------------------------------------------- */

enum unmask_remasking { UNMASK_LOW_CONFIDENCE, UNMASK_RANDOM };

/* Names and meaning follow ML-GSAI/LLaDA generate.py and Fast-dLLM.  unmask_options_default() fills it. */
struct unmask_options {
    int gen_length;             /* answer positions, cut to what the context leaves; 0 = the model's default */
    int block_length;           /* positions of a block, filled left to right; 0 = the model's default */
    int steps;                  /* denoising steps of the fixed schedule, split over the blocks by quota; 0 = as many as
                                   answer positions.  Plays no role where threshold or factor is set */
    enum unmask_remasking remasking;
    float temperature;          /* 0 = greedy; Gumbel noise otherwise; 0..2                      */
    float cfg_scale;            /* classifier-free guidance; 0 = off; 0..100                     */
    float threshold;            /* commit every position at least this sure; 0 = off; 0..1       */
    float factor;               /* Fast-dLLM factor rule; 0 = off; 0..1e6; not beside threshold  */
    bool logits_eos_inf, confidence_eos_eot_inf;
    bool early_stop;            /* end at the first end token with nothing masked before it      */
    uint64_t seed;
    const char *reuse;          /* which rows a step computes: "none", "exact", "faithful", "balanced", "fast", or a published
                                   method: "prefix", "dual", "dkv", "vicinity", "window"; with changes behind the name, as in
                                   "balanced,candidates=16,left=24"; NULL = "exact"               */
    const volatile sig_atomic_t *stop;  /* what a signal handler may set: a number other than 0 cancels the run at the next layer
                                   of a pass, where the step callback would at the end of the step; NULL = nothing does */
    const char *store;          /* how rows are kept: "kv_f32", "kv_f16", "kv_i8", "kv_i4"; "hidden": no keys
                                   and values but the rows they are made of; NULL = by the weights */
};

/* The defaults of this model: its diffusion.* metadata, else threshold 0.9 in blocks of 32. */
void unmask_options_default(const struct unmask_model *m, struct unmask_options *o);

struct unmask_session;

/* A session for one sequence at a time; threads 0 = all cores we may run on.  The model must outlive it.  One call at a
 * time: a second one, from another thread or from a callback of the first, is refused (UNMASK_EUSAGE).  Sessions of one
 * model are independent, and share its memory budget. */
bool unmask_session_open(struct unmask_session **out, const struct unmask_model *m, int threads,
                         struct unmask_err *err);
void unmask_session_close(struct unmask_session *s);           /* NULL is fine; not during a call, nor in its callbacks */

/* What a step callback sees.  Pointers are valid during the call only. */
struct unmask_step {
    int step;                   /* 0: start canvas, before any evaluation; then 1, 2, ...         */
    int block, n_blocks;
    const int32_t *canvas;      /* n_canvas ids, masks included                                  */
    int n_canvas, n_prompt;     /* the answer is canvas[n_prompt .. n_canvas)                    */
    const int *committed;       /* positions committed by this step                              */
    const float *confidence;    /* what the commit rule compared, same order                     */
    const float *margin;        /* best logit minus the next, same order                         */
    const float *entropy;       /* of the softmax that the token was chosen from, nats           */
    int n_committed, n_masked;  /* n_masked: masks left in the whole canvas                      */
};
typedef bool unmask_step_fn(void *user, const struct unmask_step *step);       /* false = cancel */

enum unmask_finish { UNMASK_FINISH_STOP, UNMASK_FINISH_LENGTH, UNMASK_FINISH_CANCELLED };

/* Owned by the caller after success or UNMASK_ECANCELLED; give it to unmask_result_free(). */
struct unmask_result {
    int32_t *canvas;            /* the whole canvas; masks only where a run was cancelled or ended early, or the prompt
                                   held some, for which a fixed schedule may have too few steps       */
    int n_canvas, n_prompt;
    const int32_t *ids;         /* the answer inside canvas: up to and including the first end token
                                   (early stop), else every answer position                      */
    int n_ids;
    float *confidence;          /* per canvas position when it was committed; NAN elsewhere      */
    enum unmask_finish finish;
    int steps, passes, n_blocks;/* steps of the schedule, evaluations run, blocks                */
    uint64_t rows;              /* rows that went through the layers, all passes; one that went
                                   through some of them counts as that share                  */
    double seconds;
    /* What comparisons of passes over some rows with passes over all rows of the same state found (reuse "faithful"). */
    struct unmask_audit {
        int audits, disagreements;      /* comparisons; those where some best token differed            */
        int refreshes;                  /* passes over all rows because a decision was in doubt         */
        float largest;                  /* error of a best logit's lead over the next                   */
        double kl;                      /* mean over audits, nats, best token against all others        */
    } audit;
};

/* Continue prompt (n_prompt ids; it may hold mask tokens, filled as generate.py does) by
 * options->gen_length positions.  UNMASK_ELIMIT when the prompt leaves no room. */
bool unmask_generate(struct unmask_session *s, const int32_t *prompt, size_t n_prompt,
                     const struct unmask_options *options, unmask_step_fn *on_step, void *user,
                     struct unmask_result *result, struct unmask_err *err);

/* Fill the mask tokens of a canvas, wherever they are; blocks are runs of block_length masks, left to
 * right (0 = all masks at once).  gen_length and early_stop play no role. */
bool unmask_infill(struct unmask_session *s, const int32_t *canvas, size_t n_canvas,
                   const struct unmask_options *options, unmask_step_fn *on_step, void *user,
                   struct unmask_result *result, struct unmask_err *err);
void unmask_result_free(struct unmask_result *r);

/* ---- diagnostics --------------------------------------------------------------------------- */

/* Receives rows as they are computed; a NULL member is not computed or not reported.  False stops. */
struct unmask_taps {
    void *user;
    bool (*hidden)(void *user, int layer, const float *rows);   /* [n][n_embd], output of the layer */
    bool (*logits)(void *user, int position, const float *row); /* [n_vocab]                        */
};

/* One bidirectional pass over n ids.  key_mask (or NULL): n bytes, 0 = padding, never attended. */
bool unmask_forward(struct unmask_session *s, const int32_t *ids, size_t n, const uint8_t *key_mask,
                    const struct unmask_taps *taps, struct unmask_err *err);

/* Monte-Carlo lower bound of log p(answer | prompt), nats (LLaDA get_log_likelihood.py): mc draws,
 * masks from stream 6 of the generator under seed. */
bool unmask_likelihood(struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const int32_t *answer,
                       size_t n_answer, int mc, float cfg_scale, uint64_t seed, double *nats,
                       struct unmask_err *err);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
