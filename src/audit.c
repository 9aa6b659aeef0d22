/* audit.c - see audit.h. */
#include "audit.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sleef_scalar.h"

/* Believed besides what was measured until there are FEW audits of an age; typical of the embedded model. */
static const struct audit_error unmeasured = { 0.3f, 0.02f };
enum { FEW = 8 };

void audit_begin(struct audit *a, const struct reuse_profile *p, int n)
{
    memset(a, 0, sizeof *a);
    a->p = p;
    a->n = n;
    a->credit = (float)p->spare;
}

void audit_step(struct audit *a)
{
    const float most = 4 * (float)a->n, grown = a->credit + (float)a->p->extra / 100 * (float)a->n;
    if (a->credit < most) a->credit = fminf(grown, most);
}

void audit_spend(struct audit *a)
{
    a->credit -= (float)a->n;
    a->refreshes++;
}

bool audit_due(struct audit *a) { return a->p->audit && a->due++ % a->p->audit == 0; }

static int age_of(int steps)
{
    int i = 0;
    for (; steps > 1 && i < AUDIT_AGES - 1; steps >>= 1) i++;
    return i;
}

static struct audit_error error_at(const struct audit *a, int age)
{
    const struct audit_age *at = &a->age[age_of(age)];
    const int n = at->n < AUDIT_MEMORY ? at->n : AUDIT_MEMORY;
    struct audit_error e = n < FEW ? unmeasured : (struct audit_error){ 0, 0 };
    for (int i = 0; i < n; i++) {
        e.margin = fmaxf(e.margin, at->last[i].margin);
        e.confidence = fmaxf(e.confidence, at->last[i].confidence);
    }
    return e;
}

/* The more credit there is, the smaller a doubt may be: the whole measured error counts where two passes may be spent. */
bool audit_doubts(const struct audit *a, int age, const struct commit_rule *rule, float parameter, const struct candidate *c, int n, int k)
{
    const float sure = 0.98f;
    const struct audit_error e = error_at(a, age);
    const float times = (float)a->p->margin / 100 * a->credit / (2 * (float)a->n);
    if (!a->p->margin || a->credit < (float)a->n) return false;
    for (int i = 0; i < k; i++)
        if (c[i].margin < times * e.margin) return true;
    if (k < n && c[k].confidence > sure) return false;          /* whichever of two sure tokens goes first, the other follows */
    return rule->slack(c, n, k, parameter) < times * e.confidence;
}

static int by_position(const void *a, const void *b)
{
    return ((const struct candidate *)a)->position - ((const struct candidate *)b)->position;
}

/* KL(p || q) of two choices with probabilities p, 1 - p and q, 1 - q. */
static double two_way_kl(float p, float q)
{
    const double least = 1e-12, a = fmin(fmax((double)p, least), 1 - least), b = fmin(fmax((double)q, least), 1 - least);
    return a * Sleef_finz_logd1_u10purecfma(a / b) + (1 - a) * Sleef_finz_logd1_u10purecfma((1 - a) / (1 - b));
}

void audit_compare(struct audit *a, int age, struct candidate *stale, int n, int k, struct candidate *fresh, int n_fresh, int *period)
{
    enum { ENOUGH = 8 };                        /* agreeing audits in a row, for twice the period */
    const double kl_low = 1e-3, kl_high = 2e-2;
    struct audit_error most = { 0, 0 };
    bool agree = true;
    double kl = 0;
    /* At least this sure: what the decision was about. */
    const float edge = k < n ? stale[k].confidence : 0;
    if (n == 0) return;
    qsort(stale, (size_t)n, sizeof *stale, by_position);
    qsort(fresh, (size_t)n_fresh, sizeof *fresh, by_position);
    for (int i = 0, j = 0; i < n; i++) {
        while (j < n_fresh && fresh[j].position < stale[i].position) j++;
        const struct candidate *s = &stale[i], *f = &fresh[j];
        const bool same = s->token == f->token;
        const float margin = same ? fabsf(s->margin - f->margin) : s->margin + f->margin, confidence = fabsf(s->confidence - f->confidence);
        agree &= same;
        kl += two_way_kl(f->confidence, same ? s->confidence : 0) / n;
        a->largest = fmaxf(a->largest, margin);
        if (s->confidence < edge) continue;
        most.margin = fmaxf(most.margin, margin);
        most.confidence = fmaxf(most.confidence, confidence);
    }
    struct audit_age *at = &a->age[age_of(age)];
    at->last[at->n++ % AUDIT_MEMORY] = most;
    a->audits++;
    a->disagreements += !agree;
    a->kl += kl;
    a->agreed = agree && kl < kl_low ? a->agreed + 1 : 0;
    if (a->agreed >= ENOUGH && *period < a->p->longest) {
        *period = 2 * *period < a->p->longest ? 2 * *period : a->p->longest;
        a->agreed = 0;
    }
    if ((!agree || kl > kl_high) && *period > a->p->every) *period = *period / 2 > a->p->every ? *period / 2 : a->p->every;
}
