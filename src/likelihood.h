/* likelihood.h - Monte-Carlo bound of log p(answer | prompt) (ML-GSAI/LLaDA get_log_likelihood.py). */
#ifndef LIKELIHOOD_H
#define LIKELIHOOD_H

#include "session.h"

/* Mean over mc draws, in batches of LIKELIHOOD_BATCH whose mask counts are spread evenly (stratified), as in the reference.
 * on_draw (or NULL) is told how many draws are done; false cancels. */
enum { LIKELIHOOD_BATCH = 16 };
bool likelihood(struct unmask_session *s, const int32_t *prompt, size_t n_prompt, const int32_t *answer, size_t n_answer, int mc,
                float cfg_scale, uint64_t seed, bool (*on_draw)(void *user, int draws), void *user, double *nats, struct unmask_err *err);

/* One draw: cross-entropy of the true ids at the masked positions of noisy (n ids, the first n_prompt never masked),
 * summed and divided by p_mask, nats. */
bool likelihood_draw(struct unmask_session *s, const int32_t *ids, const int32_t *noisy, int n, int n_prompt,
                     double p_mask, float cfg_scale, double *loss, struct unmask_err *err);

/* Logits at every mask of noisy (n ids, the first n_prompt known to be given), guided where cfg_scale > 0: one pass, then
 * on_row for each in order of position; logits are valid during the call only.  False of on_row ends it with err as it left it. */
typedef bool masked_row_fn(void *user, int position, const float *logits, struct unmask_err *err);
bool masked_logits(struct unmask_session *s, const int32_t *noisy, int n, int n_prompt, float cfg_scale, masked_row_fn *on_row, void *user,
                   struct unmask_err *err);

/* Mask `count` of the n_answer ids, chosen by the order of random keys of stream 6: (seed, batch, row) name the draw. */
bool mask_some(uint64_t seed, int batch, int row, int32_t *answer, int n_answer, int count, int32_t mask_id, struct unmask_err *err);

/* -log softmax(l)[token], in float64 from float32 exponentials. */
double cross_entropy(const struct unmask_model *m, const float *l, int32_t token);

#endif
