/* session.h - one sequence at a time: threads and work space that grow to the largest canvas seen. */
#ifndef SESSION_H
#define SESSION_H

#include <stdatomic.h>

#include "denoise.h"

struct unmask_session {
    const struct unmask_model *m;
    atomic_bool busy;                           /* a call of the public interface is in work */
    uint64_t bytes;                             /* what it may take, in m->in_sessions       */
    struct reuse_profile reuse;                 /* of the run in work */
    struct pool *pool;
    struct forward *f;                          /* NULL until the first pass */
    uint64_t bytes_read;                        /* of streamed weights, by those before it */
    struct row_store *store[MAX_BRANCHES]; int store_tokens[MAX_BRANCHES];      /* what each was opened for */
    const struct store_kind *store_kind; struct store_layers store_layers;      /* of the stores that are open */
    struct denoise_work *work; int work_tokens; struct denoise_need work_need;
};

/* What a run needs of a session. */
struct session_need {
    int n_tokens;                               /* checked against the model's context                */
    int n_branches;
    const struct store_kind *kind;              /* NULL: kv_i8 for int8 weights, kv_f32 for others    */
    struct store_layers layers;                 /* what outlives a pass                               */
    struct denoise_need work;                   /* what rows of logits are allocated beside; by a run:   */
    bool run;                                   /* s->work, which makes room where something else is done */
};
/* Work space in s->f and s->store[0 .. n_branches-1], within the budget that all sessions of the model share. */
bool session_room(struct unmask_session *s, const struct session_need *need, struct unmask_err *err);
/* Give d, whose options, canvas and n_canvas are set, everything else that it takes from a session; the options are good. */
bool session_denoise(struct unmask_session *s, struct denoise *d, struct unmask_err *err);
/* Give back everything that grows with the canvas; the next call makes room anew. */
void session_release(struct unmask_session *s);
/* Bytes of streamed weights that were read for the session so far, ahead of its passes too; never less than before. */
uint64_t session_bytes_read(const struct unmask_session *s);
/* Names of a reuse profile and of a store; NULL is fine for both. */
bool session_check_names(const char *reuse, const char *store, struct unmask_err *err);
/* ... in the options of unmask_open(). */
bool session_check_open(const struct unmask_open_options *o, struct unmask_err *err);
bool session_check_ids(const struct unmask_session *s, const int32_t *ids, size_t n, struct unmask_err *err);

#endif
