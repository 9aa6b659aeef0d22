/* denoise.h - the denoising loop: forward, choose, commit, block by block (LLaDA, arXiv:2502.09992; order of decisions as
 * in ML-GSAI/LLaDA generate.py and NVlabs/Fast-dLLM llada/generate.py). */
#ifndef DENOISE_H
#define DENOISE_H

#include "forward.h"
#include "audit.h"

/* A run over one canvas.  Everything is the caller's; denoise_run() allocates nothing. */
struct denoise {
    const struct unmask_model *m;
    struct forward *f;
    struct pool *pool;
    const struct unmask_options *o;             /* settled: steps > 0 where the fixed rule runs            */
    int32_t *canvas; int n_canvas;              /* filled in place                                         */
    int n_prompt;                               /* early stop looks behind these                           */
    const int *block_end; int n_blocks;         /* canvas positions where blocks end, ascending; block 0
                                                   starts at block_start                                   */
    int block_start;
    int row;                                    /* number of this sequence in a batch: keys the noise      */
    const uint8_t *key_mask;                    /* n_canvas bytes or NULL                                  */
    const struct reuse_profile *reuse;
    struct row_store *store[MAX_BRANCHES];      /* as many as there are branches; of reuse_layers()       */
    struct denoise_work *work;                  /* denoise_work_open()                                     */
    float *confidence;                          /* per position, when committed; or NULL                   */
    unmask_step_fn *on_step; void *user;
    /* Sees every candidate of a step, its logits (guided where there is guidance) and the token chosen.  Set before the work
     * space is opened; NULL: nobody looks. */
    void (*on_candidate)(void *user, int position, int32_t token, const float *logits);

    /* The candidates of this step come again, computed on fresh rows.  NULL: nobody wants to know. */
    void (*on_again)(void *user);

    struct audit audit;                         /* out: what shadow passes measured                        */
    bool stopped;                               /* out: by o->stop                                         */
    int steps, passes;                          /* out */
    uint64_t row_layers;                        /* out: layers that rows went through, both branches counted */
};

/* Buffers for canvases of up to max_tokens positions. */
struct denoise_work;
struct denoise_need {
    bool cfg;                                   /* guidance needs the state of two passes                  */
    bool logits;                                /* whole rows of logits: for noise, guidance, on_candidate */
};
struct denoise_need denoise_need_of(const struct denoise *d);
bool denoise_work_open(struct denoise_work **out, const struct unmask_model *m, int max_tokens,
                       struct denoise_need need, struct unmask_err *err);
size_t denoise_work_bytes(const struct unmask_model *m, int max_tokens, struct denoise_need need);
void denoise_work_close(struct denoise_work *w);

/* *finish says why it ended; false with E_CANCELLED when on_step or o->stop says so, and where a pass failed or gave a number that
 * is not finite. */
bool denoise_run(struct denoise *d, enum unmask_finish *finish, struct unmask_err *err);

/* The same loop in the caller's hands, for a run whose commits are given: begin, then evaluate a step of a block that
 * will commit block.quota (its candidates go to on_candidate, nothing is committed yet) and commit what the caller decides, in turn.
 * choice[n_choice]: what the rule would commit, borrowed until the next step. */
void denoise_begin(struct denoise *d);
bool denoise_evaluate(struct denoise *d, struct reuse_block block, const struct candidate **choice, int *n_choice, struct unmask_err *err);
void denoise_commit(struct denoise *d, int position, int32_t token);

/* First position from n_prompt on that holds an end token with no mask before it; -1: none. */
int denoise_end(const struct unmask_model *m, const int32_t *canvas, int n_prompt, int n_canvas);

#endif
