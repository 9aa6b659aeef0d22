/* term.h - the terminal and the process around a command: colours, width, progress, peak memory, interruption. */
#ifndef TERM_H
#define TERM_H

#include "options.h"
#include "timing.h"

struct term {
    bool out_tty, err_tty;      /* standard output and error are terminals       */
    bool color;                 /* may colour what goes to a terminal             */
    bool live;                  /* may redraw: a terminal that moves its cursor   */
};
void term_init(struct term *t, const struct settings *s);
int term_width(void);           /* columns of the terminal, at least 1; 80 if unknown */
int term_height(void);          /* rows of the terminal, at least 1; 24 if unknown    */

/* SIGINT, SIGTERM and SIGHUP end the program at once, after removing half-written files and restoring the terminal.  While
 * they are held, the first one only sets a flag that the work polls, so that it can leave what it has; the second ends it. */
void term_catch_signals(void);
void term_hold_signals(bool hold);
const volatile sig_atomic_t *term_signal_flag(void);     /* what term_signal() reads, for unmask_options.stop */
int term_signal(void);          /* 0, or the number of the signal that came while held */
void term_clear_signal(void);   /* a chat goes on after Ctrl-C in an answer */

/* What a terminal shows in place of a character of model output: itself, or a symbol for one that would steer the terminal. */
uint32_t term_visible(uint32_t cp);
/* Write model output: raw to a file or pipe; to a terminal control bytes become visible symbols. */
void term_put_text(FILE *out, const char *text, size_t n, bool tty);

/* A line on standard error that is redrawn in place for work that takes more than two seconds; silent unless a terminal. */
struct progress { double start, last; bool shown, enabled; };
void progress_start(struct progress *p, const struct settings *s, const struct term *t);
void progress_show(struct progress *p, double done, double total, const char *unit, const char *what);
void progress_end(struct progress *p);

uint64_t term_peak_rss(void);   /* bytes; VmHWM */

#endif
