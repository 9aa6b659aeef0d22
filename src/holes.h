/* holes.h - text with holes: [[8]] is a hole of 8 tokens, [[name:8]] a named one; the same name again holds the same text.
 * Holes without a name that touch are one hole, where it is no longer than a hole may be.  Of more than two [ the last two open
 * the hole.  \[[ writes [[ itself; so directly before [[ two backslashes write one, and elsewhere each is itself. */
#ifndef HOLES_H
#define HOLES_H

#include "err.h"

enum { MAX_HOLES = 256, MAX_HOLE_LENGTH = 65536, MAX_HOLE_NAME = 64 };

struct hole_part {
    const char *text; size_t n_text;            /* fixed text; NULL: a hole                         */
    char name[MAX_HOLE_NAME + 1];               /* "": without a name                               */
    int length;                                 /* tokens of a hole                                 */
    int same_as;                                /* part whose text it repeats, or -1                */
};

/* Fixed texts and holes in order; no two fixed texts touch, and none is empty. */
struct holes { struct hole_part *parts; int n; char *text; };

bool holes_parse(struct holes *h, const char *text, size_t n, struct unmask_err *err);
void holes_free(struct holes *h);               /* a zeroed one is fine */

#endif
