/* session.h - one sequence at a time: threads and work space that grow to the largest canvas seen. */
#ifndef SESSION_H
#define SESSION_H

#include "denoise.h"

struct unmask_session {
    const struct unmask_model *m;
    struct pool *pool;
    struct forward *f;                          /* NULL until the first pass */
    struct denoise_work *work; int work_tokens; bool work_cfg;
};

/* Work space for passes over n tokens in s->f; n is checked against the model's context. */
bool session_room(struct unmask_session *s, int n, struct unmask_err *err);
bool session_check_ids(const struct unmask_session *s, const int32_t *ids, size_t n, struct unmask_err *err);

#endif
