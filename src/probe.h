/* probe.h - how long passes take on this machine, before any weights are loaded: real passes over a few layers of the model's
 * shape with made-up weights, and reads of the file itself by the readers that streaming uses. */
#ifndef PROBE_H
#define PROBE_H

#include "plan.h"

struct probe;
/* m: prepared, not loaded.  most_bytes: of memory for made-up weights, at least one matrix. */
bool probe_open(struct probe **out, const struct unmask_model *m, const struct plan_need *need,
                uint64_t most_bytes, struct unmask_err *err);
void probe_close(struct probe *p);              /* NULL is fine */
/* Seconds of a pass of n_rows rows over a full canvas and of the head over n_logits of them; false where it did not run to its end. */
bool probe_pass(struct probe *p, int n_rows, int n_logits, double *seconds, struct unmask_err *err);
/* Bytes a second that the streamed weights of m come in, by reading for about `seconds`; 0: nothing is streamed. */
bool probe_reading(const struct unmask_model *m, size_t ring_bytes, double seconds, double *rate, struct unmask_err *err);

#endif
