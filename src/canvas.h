/* canvas.h - the live picture of a denoising run on a terminal: masked positions as blocks, tokens that this step committed
 * highlighted, settled ones plain, under one line of status; redrawn in place and erased at the end. */
#ifndef CANVAS_H
#define CANVAS_H

#include "model.h"
#include "term.h"

enum { CANVAS_ROWS = 256 };     /* rows shown at most, however tall the terminal */

struct canvas {
    FILE *out;                  /* NULL: nothing is shown                                    */
    const struct unmask_model *m;
    int steps;                  /* of the schedule; 0: as many as the rule takes             */
    bool color;
    const char *mask;           /* what stands for a masked position                         */
    double start;               /* timing_now()                                              */
    uint8_t *fresh; int n_fresh;                /* per canvas position: committed by this step       */
    struct text_out frame, token;
    int width[CANVAS_ROWS], n_rows;             /* columns of the rows of the last frame             */
};

/* Shown on standard output where that is a terminal, and not with --json or -q.  --watch=on shows it always: then on standard
 * error where standard output is none, which carries the answer alone. */
void canvas_open(struct canvas *c, const struct settings *s, const struct term *t, const struct unmask_model *m, int steps);
void canvas_draw(struct canvas *c, const struct unmask_step *step);
void canvas_close(struct canvas *c);            /* erases it */

/* Compose a frame for a terminal of width x height into c->frame (canvas_draw() does, and writes it); false: no memory. */
bool canvas_compose(struct canvas *c, const struct unmask_step *step, int width, int height, double seconds);

#endif
