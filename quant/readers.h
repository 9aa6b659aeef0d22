/* readers.h - what an error in the embedding costs: the second moments of the rows that multiply it first, those of the first
 * layer's matrices times the norm before them.  Of the weights alone: no text is read. */
#ifndef READERS_H
#define READERS_H

#include "arch.h"
#include "moments.h"

/* H [n_embd][n_embd], so that an error e of an embedding costs e H e^T; moments_close(*out) also after a failure. */
bool readers_moments(struct moments **out, const struct arch *arch, const struct checkpoint *c, const struct hparams *h,
                     const struct kernels *kernels, struct pool *pool, struct unmask_err *err);

#endif
