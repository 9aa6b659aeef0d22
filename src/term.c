/* term.c - see term.h. */
#define _DEFAULT_SOURCE         /* ioctl TIOCGWINSZ */
#include "term.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "outfile.h"
#include "utf8.h"

/* The only mutable state of the program: a signal handler can speak through nothing else. */
static volatile sig_atomic_t caught, held;
static struct termios at_start;                 /* of the terminal on standard input, before anything changed it */
static volatile sig_atomic_t have_terminal;

static void end_now(int sig)
{
    const char *restore = held ? "\033[0m\n" : "\n";        /* a drawing may have left its colour; a fresh line */
    outfile_abort_all();
    if (have_terminal) tcsetattr(STDIN_FILENO, TCSANOW, &at_start);
    const int shown_on = isatty(STDERR_FILENO) ? STDERR_FILENO : isatty(STDOUT_FILENO) ? STDOUT_FILENO : -1;
    if (shown_on >= 0 && write(shown_on, restore, strlen(restore)) < 0) _exit(128 + sig);
    _exit(128 + sig);
}

static void on_signal(int sig)
{
    if (!held || caught) end_now(sig);
    caught = sig;
}

void term_catch_signals(void)
{
    const int ends[] = { SIGINT, SIGTERM, SIGHUP };
    struct sigaction sa = { .sa_handler = on_signal };      /* no SA_RESTART: reads return, so that a prompt notices */
    have_terminal = tcgetattr(STDIN_FILENO, &at_start) == 0;
    sigfillset(&sa.sa_mask);
    for (int i = 0; i < 3; i++) {
        struct sigaction old;
        if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(ends[i], &sa, NULL);     /* nohup stays */
    }
    sa.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &sa, NULL);                          /* a reader that goes away is a write error */
    sigaction(SIGXFSZ, &sa, NULL);                          /* so is a file-size limit */
}

void term_hold_signals(bool hold) { held = hold; }
const volatile sig_atomic_t *term_signal_flag(void) { return &caught; }
int term_signal(void) { return caught; }
void term_clear_signal(void) { caught = 0; }

void term_init(struct term *t, const struct settings *s)
{
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    const bool dumb = !term || !*term || !strcmp(term, "dumb");
    *t = (struct term){ .out_tty = isatty(STDOUT_FILENO), .err_tty = isatty(STDERR_FILENO) };
    t->color = s->color == ON || (s->color == AUTO && t->out_tty && !dumb && !(no_color && *no_color));
    t->live = !dumb;
}

static struct winsize window(void)
{
    struct winsize w = { 0 };
    if ((ioctl(STDERR_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_col == 0) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) != 0) w.ws_col = w.ws_row = 0;
    return w;
}

int term_width(void)
{
    const int columns = window().ws_col;
    return columns > 0 ? columns : 80;
}

int term_height(void)
{
    const int rows = window().ws_row;
    return rows > 0 ? rows : 24;
}

uint32_t term_visible(uint32_t cp)
{
    if (utf8_shown(cp)) return cp;
    return cp < 0x20 ? 0x2400 + cp : 0xFFFD;    /* U+2400...: pictures of control codes */
}

void term_put_text(FILE *out, const char *text, size_t n, bool tty)
{
    if (!tty) {
        fwrite(text, 1, n, out);
        return;
    }
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        len = utf8_decode(text + i, n - i, &cp);
        if (!len) len = 1, cp = 0xFFFD;
        char shown[4];
        const uint32_t as = cp == '\n' || cp == '\t' ? cp : term_visible(cp);
        fwrite(shown, 1, utf8_encode(as, shown), out);
    }
}

void progress_start(struct progress *p, const struct settings *s, const struct term *t)
{
    *p = (struct progress){ .start = timing_now(), .enabled = t->err_tty && t->live && !s->quiet };
}

void progress_show(struct progress *p, double done, double total, const char *unit, const char *what)
{
    const double now = timing_now(), spent = now - p->start;
    if (!p->enabled || spent < 2 || now - p->last < 0.1 || total <= 0 || done <= 0) return;
    const double left = spent * (total - done) / done;
    const int seconds = left < 1e8 ? (int)left : 100000000;
    char line[256], shown[96];
    err_printable(shown, sizeof shown, what, strlen(what));     /* a name out of a file */
    snprintf(line, sizeof line, "%3.0f %%  %.1f %s/s  %d:%02d left  %s",
             100 * done / total, done / spent, unit, seconds / 60, seconds % 60, shown);
    int width = term_width() - 1;
    if (width < (int)strlen(line))
        while (width > 0 && ((unsigned char)line[width] & 0xC0) == 0x80) width--;       /* not inside a character */
    fprintf(stderr, "\r\033[K%.*s", width, line);
    fflush(stderr);
    p->last = now;
    p->shown = true;
}

void progress_end(struct progress *p)
{
    if (p->shown) fputs("\r\033[K", stderr);
    p->shown = false;
}

uint64_t term_peak_rss(void)
{
    FILE *f = fopen("/proc/self/status", "r");
    char line[128];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %llu", &kib) == 1) break;
    if (f) fclose(f);
    return kib * 1024;
}
