/* stage.c - see stage.h. */
#include "stage.h"

#include "timing.h"

void stages_measure(struct stages *s, struct stage_seconds *seconds)
{
    s->seconds = seconds;
    pool_count_waiting(s->pool, seconds ? &seconds->waiting : NULL);
}

struct lap stage_begin(const struct stages *s)
{
    return s->seconds ? (struct lap){ timing_now(), s->seconds->waiting } : (struct lap){ 0, 0 };
}

void stage_end(const struct stages *s, enum stage stage, struct lap l)
{
    if (s->seconds) s->seconds->of[stage] += timing_now() - l.start - (s->seconds->waiting - l.waited);
}

void stage_run(const struct stages *s, enum stage stage, void (*item)(void *arg, int item, int worker), void *arg, int n_items)
{
    const struct lap l = stage_begin(s);
    pool_run(s->pool, item, arg, n_items);
    stage_end(s, stage, l);
}
