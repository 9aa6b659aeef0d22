/* plan.h - what goes where in memory, before anything is loaded, computed by the functions that allocate it. */
#ifndef PLAN_H
#define PLAN_H

#include <math.h>

#include "session.h"

/* What shall run. */
struct plan_need {
    int n_tokens;                               /* positions of the canvas    */
    bool guidance, logits;                      /* as in struct denoise_need  */
    struct store_layers layers;                 /* as in struct session_need  */
    const struct store_kind *kind;
    int threads;
    int sessions;                               /* of that size at a time     */
    int logit_rows;                             /* that the caller keeps, counted as work */
};

/* Bytes; ring, store and work of all sessions together.  total = program + resident + ring + store + work. */
struct memory_plan {
    uint64_t budget; bool scarce;               /* as asked for, or less: all that there is                           */
    uint64_t program;                           /* what the process has already: code, libraries, tokenizer, metadata */
    uint64_t weights, resident, streamed;       /* all; in memory; read by every pass                                 */
    uint64_t in_file;                           /* an embedding whose rows are read one by one                        */
    uint64_t ring, store, work, total;
    uint64_t kept;                              /* of work: the rows of logits that the caller keeps                  */
    size_t ring_asked;                          /* what stream_open() is told for the ring of one session            */
    uint64_t least;                             /* the smallest budget that works with this file ...                  */
    uint64_t least_packed;                      /* ... and with this file packed                                      */
    bool fits, packed;
    bool rounded;                               /* weights are in a format of few bits already */
};

/* Of a model that is prepared and not loaded; decides what model_load() leaves in the file.  budget 0: plan_default_budget();
 * more than the system can give counts as what it can. */
struct memory_plan plan_memory(struct unmask_model *m, const struct plan_need *need, uint64_t budget);
uint64_t plan_default_budget(void);
/* What unmask_open() plans for, by its options. */
struct plan_need plan_need_of(const struct unmask_model *m, const struct unmask_open_options *opts);
/* The error of a plan that does not fit. */
bool plan_refuse(const struct memory_plan *p, const char *path, struct unmask_err *err);

/* For messages: what is there is rounded down, what is needed up, so that it suffices as --memory reads it. */
#define MIB_DOWN(n) FMT("%.1f MiB", floor((double)(n) / 0x1p20 * 10) / 10)
#define MIB_UP(n) FMT("%.1f MiB", ceil((double)(n) / 0x1p20 * 10) / 10)

/* What the store and the work space of one session take. */
uint64_t plan_store_bytes(const struct unmask_model *m, const struct plan_need *need);
uint64_t plan_work_bytes(const struct unmask_model *m, const struct plan_need *need, struct away away);

#endif
