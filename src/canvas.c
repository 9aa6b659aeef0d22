/* canvas.c - see canvas.h. */
#include "canvas.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "mem.h"
#include "utf8.h"

enum style { PLAIN, DIM, FRESH };

/* Does the terminal show UTF-8?  Only a locale that says otherwise speaks against it. */
static bool shows_utf8(void)
{
    static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *v = getenv(names[i]);
        if (v && *v) return strstr(v, "UTF-8") || strstr(v, "utf8") || strstr(v, "utf-8") || strstr(v, "UTF8");
    }
    return true;
}

void canvas_open(struct canvas *c, const struct settings *s, const struct term *t, const struct unmask_model *m, int steps)
{
    const bool shown = s->watch == ON || (s->watch == AUTO && t->out_tty && t->live && !s->json && !s->quiet);
    *c = (struct canvas){ .out = !shown ? NULL : t->out_tty ? stdout : stderr, .m = m, .steps = steps, .color = t->color,
                          .mask = shows_utf8() ? "\xe2\x96\x91" : ".", .start = timing_now() };      /* U+2591 LIGHT SHADE */
}

/* ---- layout: characters into rows ---- */

/* First everything is counted, then the rows from `top` on are written. */
struct layout {
    struct canvas *c;
    int columns, row, column, focus;            /* focus: row of the first masked position, -1 while there is none */
    int top, n_shown;                           /* rows to write; 0: only count                                    */
    enum style style;                           /* of what was written last                                        */
    bool ok;
};

static bool visible(const struct layout *l) { return l->row >= l->top && l->row < l->top + l->n_shown; }

static void emit(struct layout *l, const char *s, size_t n) { l->ok = l->ok && text_put(&l->c->frame, s, n, NULL); }

static void set_style(struct layout *l, enum style style)
{
    static const char *const codes[] = { "\033[0m", "\033[0;2m", "\033[0;1;32m" };
    if (l->c->color && style != l->style && visible(l)) emit(l, codes[style], strlen(codes[style]));
    l->style = style;
}

static void end_row(struct layout *l)
{
    set_style(l, PLAIN);
    if (visible(l)) {
        l->c->width[l->c->n_rows++] = l->column;
        if (l->row + 1 < l->top + l->n_shown) emit(l, "\n", 1);
    }
    l->row++;
    l->column = 0;
}

/* One character of n bytes and `width` columns; a new row where it does not fit. */
static void put_char(struct layout *l, const char *s, size_t n, int width, enum style style)
{
    if (width > l->columns) s = "\xef\xbf\xbd", n = 3, width = 1;
    if (l->column + width > l->columns) end_row(l);
    set_style(l, style);
    if (visible(l)) emit(l, s, n);
    l->column += width;
}

static void put_text(struct layout *l, const char *s, size_t n, enum style style)
{
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp;
        char shown[4];
        if (!(len = utf8_decode(s + i, n - i, &cp))) len = 1, cp = 0xFFFD;
        if (cp == '\n') end_row(l);
        else if (cp == '\t') put_char(l, " ", 1, 1, style);
        else {
            const uint32_t as = term_visible(cp);
            put_char(l, shown, utf8_encode(as, shown), utf8proc_charwidth((utf8proc_int32_t)as), style);
        }
    }
}

/* Text that token `id` adds; end = true: what the last one left unfinished, before a masked position. */
static void put_token(struct layout *l, struct token_decoder *d, int32_t id, bool end, enum style style)
{
    struct canvas *c = l->c;
    c->token.n = 0;
    l->ok = l->ok && (end ? tokenizer_decode_end(d, &c->token, NULL)
                          : tokenizer_decode(c->m->tokenizer, d, &id, 1, false, &c->token, NULL));
    if (l->ok) put_text(l, c->token.s, c->token.n, style);
}

static void lay_out(struct layout *l, const struct unmask_step *step)
{
    struct token_decoder d = { .n_held = 0 };
    for (int i = step->n_prompt; l->ok && i < step->n_canvas; i++) {
        const int32_t id = step->canvas[i];
        const enum style style = l->c->fresh[i] ? FRESH : PLAIN;
        if (id == l->c->m->h.mask_id) {
            if (d.n_held) put_token(l, &d, 0, true, PLAIN);
            if (l->focus < 0) l->focus = l->row;
            put_char(l, l->c->mask, strlen(l->c->mask), 1, DIM);
        } else if (l->c->m->tokenizer) put_token(l, &d, id, false, style);
        else {                                  /* without a tokenizer the ids are all there is to show */
            char number[16];
            put_text(l, number, (size_t)snprintf(number, sizeof number, "%d ", id), style);
        }
    }
    if (d.n_held) put_token(l, &d, 0, true, PLAIN);
    end_row(l);
}

/* ---- frames ---- */

static void put_status(struct layout *l, const struct unmask_step *step, double seconds)
{
    char total[16] = "", line[160];
    const int steps = l->c->steps > step->step ? l->c->steps : step->step;
    int masked = 0;
    for (int i = step->n_prompt; i < step->n_canvas; i++) masked += step->canvas[i] == l->c->m->h.mask_id;
    if (l->c->steps) snprintf(total, sizeof total, "/%d", steps);
    const int settled = step->n_canvas - step->n_prompt - masked;
    const int n = snprintf(line, sizeof line, "step %d%s  block %d/%d  masked %d  new %d  settled %d   %.1f s", step->step, total,
                           step->block + 1, step->n_blocks, masked, step->n_committed, settled, seconds);
    put_text(l, line, (size_t)(n < l->columns ? n : l->columns), PLAIN);
    end_row(l);
}

/* Rows that the last frame takes now: a terminal that got narrower since has broken them. */
static int rows_on_screen(const struct canvas *c, int width)
{
    int rows = 0;
    for (int i = 0; i < c->n_rows; i++) rows += c->width[i] > width ? (c->width[i] + width - 1) / width : 1;
    return rows;
}

/* To the beginning of the last frame, and clear from there. */
static bool put_erase(struct canvas *c, int width)
{
    char up[32] = "\r";
    const int rows = rows_on_screen(c, width);
    if (rows == 0) return true;
    if (rows > 1) snprintf(up, sizeof up, "\r\033[%dA", rows - 1);
    c->n_rows = 0;
    return text_put(&c->frame, up, strlen(up), NULL) && text_put(&c->frame, "\033[J", 3, NULL);
}

static bool mark_fresh(struct canvas *c, const struct unmask_step *step)
{
    if (c->n_fresh < step->n_canvas) {
        uint8_t *grown = mem_resize(c->fresh, (size_t)step->n_canvas, 1, NULL);
        if (!grown) return false;
        c->fresh = grown;
        c->n_fresh = step->n_canvas;
    }
    memset(c->fresh, 0, (size_t)c->n_fresh);
    for (int i = 0; i < step->n_committed; i++) c->fresh[step->committed[i]] = 1;
    return true;
}

bool canvas_compose(struct canvas *c, const struct unmask_step *step, int width, int height, double seconds)
{
    /* The last column stays free: terminals differ in where the cursor goes after it. */
    struct layout l = { .c = c, .columns = width > 1 ? width - 1 : 1, .focus = -1, .ok = mark_fresh(c, step) };
    c->frame.n = 0;
    if (!l.ok || !put_erase(c, width)) return false;
    put_status(&l, step, seconds);
    lay_out(&l, step);
    const int rows = l.row, most = height - 2 < CANVAS_ROWS - 1 ? height - 2 : CANVAS_ROWS - 1;
    const bool roomy = most >= 1;               /* else the status alone; a row above the canvas is left alone */
    const int last = rows - 1 > most ? rows - most : 1;         /* last row to begin with that leaves no space empty */
    const int wanted = l.focus < 0 ? last : l.focus - most / 2;
    l = (struct layout){ .c = c, .columns = l.columns, .focus = -1, .ok = l.ok, .n_shown = roomy ? 2 : 1 };
    put_status(&l, step, seconds);
    if (roomy) {
        l.top = wanted < 1 ? 1 : wanted > last ? last : wanted;
        l.n_shown = rows - l.top < most ? rows - l.top : most;
        lay_out(&l, step);
    }
    return l.ok;
}

static void write_frame(struct canvas *c)
{
    fwrite(c->frame.s, 1, c->frame.n, c->out);
    fflush(c->out);
}

void canvas_draw(struct canvas *c, const struct unmask_step *step)
{
    if (c->out && canvas_compose(c, step, term_width(), term_height(), timing_now() - c->start)) write_frame(c);
}

void canvas_close(struct canvas *c)
{
    c->frame.n = 0;
    if (c->out && c->n_rows && put_erase(c, term_width())) write_frame(c);
    mem_free(c->fresh);
    mem_free(c->frame.s);
    mem_free(c->token.s);
    *c = (struct canvas){ .out = NULL };
}
