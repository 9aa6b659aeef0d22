/* audit.h - how far the logits of a pass over some rows are from those of a pass over every row, measured where both were run
 * on the same state; and from that: whether what a step would commit stands clear of the error, and how long a period of
 * passes over some rows may be. */
#ifndef AUDIT_H
#define AUDIT_H

#include "commit.h"
#include "reuse.h"

/* Errors are kept by age, steps since every row was computed: 0-1, 2-3, 4-7, ... */
enum { AUDIT_AGES = 6, AUDIT_MEMORY = 32 };
struct audit_error { float margin, confidence; };
struct audit_age { struct audit_error last[AUDIT_MEMORY]; int n; };     /* the largest error of each of the last audits */

struct audit {
    const struct reuse_profile *p;
    struct audit_age age[AUDIT_AGES];
    int agreed;                                 /* audits in a row whose best tokens all agreed            */
    int due;                                    /* periods that ended                                      */
    int n; float credit;                        /* rows of a pass over every row; rows that may be spent on margins */
    int audits, disagreements, refreshes;       /* out: compared; with another best token; for a margin    */
    float largest;                              /* out: of all margin errors                               */
    double kl;                                  /* out: sum over audits of the mean over candidates of
                                                   KL(fresh || stale), nats, best token against all others  */
};
void audit_begin(struct audit *a, const struct reuse_profile *p, int n);
/* Once a step: what it may spend; and that it spent a pass over every row on a margin. */
void audit_step(struct audit *a);
void audit_spend(struct audit *a);
/* A period ends: shall its pass over every row be preceded by one over some, to be compared? */
bool audit_due(struct audit *a);

/* May passes over some rows have turned the decision to commit the first k of c[n], sorted by `rule`? */
bool audit_doubts(const struct audit *a, int age, const struct commit_rule *rule, float parameter, const struct candidate *c, int n, int k);

/* The same state both ways: stale[n], sorted by the rule, of which the first k would be committed; fresh[n_fresh] in any
 * order, which holds every position of stale.  Both are sorted by position afterwards.  Adapts *period. */
void audit_compare(struct audit *a, int age, struct candidate *stale, int n, int k, struct candidate *fresh, int n_fresh, int *period);

#endif
