/* calibrate.h - what the matrices of a model multiply while it reads half-masked text, which is what a diffusion model sees: the
 * second moments of their inputs (moments.h), one layer at a time. */
#ifndef CALIBRATE_H
#define CALIBRATE_H

#include "moments.h"
#include "reading.h"

/* The ids of a set with an eighth, two eighths, ... of those that are not given masked, all of them in every eighth text: mem_free.
 * mask_id -1: a copy. */
bool calibration_mask(const struct reading_set *set, int32_t mask_id, uint64_t seed, int32_t **ids, struct unmask_err *err);

/* Texts of about n_ids ids drawn from the whole vocabulary but the mask; reading_set_free() also after a failure. */
bool calibration_draw(struct reading_set *set, const struct hparams *h, int32_t mask_id,
                      uint64_t seed, uint64_t n_ids, struct unmask_err *err);

struct calibration;
/* Everything given stays borrowed; ids as calibration_mask() makes them.  down: of T_DOWN too, whose moments are the largest. */
bool calibration_open(struct calibration **out, struct reading *r, const int32_t *ids, int32_t mask_id, bool down, struct unmask_err *err);
void calibration_close(struct calibration *c);  /* NULL is fine */

/* Go on to a layer (the next one), or behind the last one to the head. */
bool calibration_layer(struct calibration *c, int layer, struct unmask_err *err);
bool calibration_head(struct calibration *c, struct unmask_err *err);
/* Of what the matrix of that role multiplies in the layer in hand; NULL for those that multiply nothing. */
struct moments *calibration_moments(struct calibration *c, enum tensor_role role);
/* [k] mean squares, also when the moments are factored. */
const float *calibration_squares(const struct calibration *c, enum tensor_role role);

#endif
