/* logits.c - see logits.h.  Sums of parts are brought to the larger reference before they are added. */
#include "logits.h"

#include <math.h>

#include "sleef_scalar.h"

const struct logit_stats logit_none = { .best = -1, .max = -INFINITY, .second = -INFINITY, .top = -INFINITY };

/* The same sums relative to another reference: e^(l - to) = e^(l - top) e^(top - to). */
static void refer(struct logit_stats *s, float to)
{
    if (s->top == to) return;
    const float shift = s->top - to, c = s->top > -INFINITY ? Sleef_finz_expf1_u10purecfma(shift) : 0;
    s->moment = c > 0 ? c * fmaf(shift, s->sum, s->moment) : 0;
    s->sum *= c;
    s->top = to;
}

void logit_part(const struct kernels *k, float *l, int first, int n, const struct logit_apart *apart, struct logit_apart_values *values,
                struct logit_stats *stats)
{
    for (int i = 0; i < apart->n; i++) {
        const int at = apart->token[i] - first;
        if (at < 0 || at >= n) continue;
        values->l[i] = l[at];
        l[at] = -INFINITY;
    }
    int32_t best, next;
    stats->max = stats->top = k->argmax(l, n, &best);
    stats->best = best < 0 ? -1 : first + best;
    stats->second = -INFINITY;
    /* Relative to 0 where nothing is above -inf: a NAN still shows in the sum. */
    stats->sum = k->sum_exp(l, n, best < 0 ? 0 : stats->top, &stats->moment);
    if (best >= 0) {
        l[best] = -INFINITY;
        stats->second = k->argmax(l, n, &next);
        l[best] = stats->max;
    }
    for (int i = 0; i < apart->n; i++) {
        const int at = apart->token[i] - first;
        if (at >= 0 && at < n) l[at] = values->l[i];
    }
}

static void choose(struct logit_stats *s, int32_t best, float max, float second)
{
    if (max > s->max || (max == s->max && best >= 0 && (s->best < 0 || best < s->best))) {
        s->second = s->max > second ? s->max : second;
        s->max = max;
        s->best = best;
    } else if (max > s->second) s->second = max;
}

void logit_add(struct logit_stats *all, const struct logit_stats *part)
{
    struct logit_stats p = *part;
    const float top = all->top > p.top ? all->top : p.top;
    choose(all, p.best, p.max, p.second);
    refer(all, top);
    refer(&p, top);
    all->sum += p.sum;
    all->moment += p.moment;
}

void logit_row(const struct kernels *k, float *l, int n,
               const struct logit_apart *apart, struct logit_apart_values *values, struct logit_stats *stats)
{
    *stats = logit_none;
    for (int first = 0; first < n; first += LOGIT_PART) {
        struct logit_stats part;
        logit_part(k, l + first, first, n - first < LOGIT_PART ? n - first : LOGIT_PART, apart, values, &part);
        logit_add(stats, &part);
    }
}

void logit_choose(struct logit_stats *s, int32_t token, float logit) { choose(s, token, logit, -INFINITY); }

void logit_count(struct logit_stats *s, float logit)
{
    refer(s, s->top > logit ? s->top : logit);
    const float t = logit - s->top, e = Sleef_finz_expf1_u10purecfma(t);
    s->sum += e;
    s->moment += e > 0 ? e * t : 0;
}

float logit_entropy(const struct logit_stats *s)
{
    return (float)Sleef_finz_logd1_u10purecfma((double)s->sum) - s->moment / s->sum;
}
