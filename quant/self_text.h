/* self_text.h - texts that a model writes itself, out of masks: what it is calibrated on where no text is given. */
#ifndef SELF_TEXT_H
#define SELF_TEXT_H

#include "chat.h"
#include "reading.h"

enum { SELF_TEXT_STEPS = 4 };   /* passes through the model */

/* Texts of about n_ids ids together, half of them as questions and answers where the model has a chat template; reading_set_free()
 * also after a failure.  t may be NULL: any id but the mask may occur then.  The same texts on every machine. */
bool self_text(struct reading_set *set, const struct arch *arch, const struct checkpoint *c, const struct hparams *h,
               const struct tokenizer *t, struct pool *pool, uint64_t seed, uint64_t n_ids,
               bool (*go_on)(void *user), void *user, struct unmask_err *err);

#endif
