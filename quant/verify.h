/* verify.h - is a checkpoint still what its writer made?  Its structure was checked when it was opened; here every tensor is
 * read, its bytes are compared with the checksum that the file holds of them, and its numbers must be finite. */
#ifndef VERIFY_H
#define VERIFY_H

#include "checkpoint.h"

enum verify_sum { VERIFY_NO_SUM, VERIFY_SAME, VERIFY_DIFFERENT };

struct verify_tensor {                          /* what was found out about a tensor */
    enum verify_sum sum;
    uint64_t n_nonfinite, first_nonfinite;      /* values that are infinite or NaN; index of the first */
};

struct verify_options {
    int threads;                                /* 0 = all cores that we may run on */
    bool (*on_progress)(void *user, uint64_t done, uint64_t total);     /* bytes; may be NULL; false = cancel */
    void *user;
};

/* Fill found[n_tensors], in the order of the tensors.  False, with E_VFY_..., when something is wrong with the file (found is
 * complete then; the error tells the first case), or when it cannot be read to its end. */
bool verify_checkpoint(const struct checkpoint *c, const struct verify_options *o, struct verify_tensor *found, struct unmask_err *err);

#endif
