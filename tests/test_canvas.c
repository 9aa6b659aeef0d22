/* The live canvas, drawn on a terminal of our own: whatever its size and the text, frames replace each other and what stood
 * above them stays. */
#include "testing.h"

#include "canvas.h"
#include "utf8.h"

enum { MOST = 128, MASK = 4085 };

/* ---- a terminal: cells hold code points; row 0 is the top of the screen ---- */

struct screen {
    int width, height, x, y;
    uint32_t cell[MOST][MOST];
    int scrolled;               /* rows that left at the top */
    bool pending;               /* the cursor stands behind the last column */
};

static void feed_line(struct screen *s)
{
    if (s->y + 1 < s->height) {
        s->y++;
        return;
    }
    memmove(s->cell[0], s->cell[1], sizeof s->cell[0] * (MOST - 1));
    memset(s->cell[s->height - 1], 0, sizeof s->cell[0]);
    s->scrolled++;
}

static void put_cell(struct screen *s, uint32_t cp, int width)
{
    if (s->pending || s->x + width > s->width) {
        s->x = 0;
        s->pending = false;
        feed_line(s);
    }
    s->cell[s->y][s->x] = cp;
    s->x += width;
    if (s->x >= s->width) {
        s->x = s->width - 1;
        s->pending = true;
    }
}

static void escape(struct screen *s, int number, char what)
{
    if (what == 'A') {
        s->y = s->y > number ? s->y - number : 0;
        s->pending = false;
    } else if (what == 'J') {
        memset(&s->cell[s->y][s->x], 0, sizeof(uint32_t) * (size_t)(MOST - s->x));
        for (int y = s->y + 1; y < MOST; y++) memset(s->cell[y], 0, sizeof s->cell[y]);
    } else assert_int_equal(what, 'm');
}

static void show(struct screen *s, const char *text, size_t n)
{
    for (size_t i = 0, len; i < n; i += len) {
        uint32_t cp = 0;
        len = utf8_decode(text + i, n - i, &cp);
        assert_int_not_equal(len, 0);
        if (cp == '\r') s->x = 0, s->pending = false;
        else if (cp == '\n') s->x = 0, s->pending = false, feed_line(s);
        else if (cp == 033) {
            assert_int_equal(text[i + 1], '[');
            int number = 0;
            for (len = 2; text[i + len] >= '0' && text[i + len] <= ';'; len++)
                number = text[i + len] == ';' ? 0 : number * 10 + text[i + len] - '0';
            escape(s, number, text[i + len++]);
        } else {
            assert_true(cp >= 0x20 && cp != 0x7F && cp != 0x9B && cp != 0x202E);
            put_cell(s, cp, (cp >= 0x3000 && cp < 0xA000) || cp >= 0x1F000 ? 2 : 1);
        }
    }
}

static bool is_empty_below(const struct screen *s, int row)
{
    for (int y = row; y < s->height; y++)
        for (int x = 0; x < s->width; x++)
            if (s->cell[y][x]) return false;
    return true;
}

static void expect_row(const struct screen *s, int y, const char *text)
{
    char row[4 * MOST + 1];
    size_t n = 0;
    for (int x = 0; x < s->width; x++)
        if (s->cell[y][x]) n += utf8_encode(s->cell[y][x], row + n);
    row[n] = 0;
    assert_string_equal(row, text);
}

/* ---- canvases ---- */

static struct unmask_model *model;

static struct canvas canvas(bool color)
{
    return (struct canvas){ .m = model, .color = color, .mask = "\xe2\x96\x91" };
}

static void frame(struct canvas *c, struct screen *s, const struct unmask_step *step)
{
    assert_true(canvas_compose(c, step, s->width, s->height, 1.94));
    show(s, c->frame.s, c->frame.n);
}

static void a_frame_shows_status_masks_and_text(void **state)
{
    (void)state;
    int32_t ids[8] = { 1, 2, MASK, MASK, MASK, MASK, MASK, MASK }, *text;
    size_t n;
    struct unmask_err err;
    struct screen s = { .width = 80, .height = 10 };
    struct canvas c = canvas(true);
    c.steps = 16;
    frame(&c, &s, &(struct unmask_step){ .n_blocks = 2, .canvas = ids, .n_canvas = 8, .n_prompt = 2 });
    expect_row(&s, 0, "step 0/16  block 1/2  masked 6  new 0  settled 0   1.9 s");
    expect_row(&s, 1, "\xe2\x96\x91\xe2\x96\x91\xe2\x96\x91\xe2\x96\x91\xe2\x96\x91\xe2\x96\x91");
    OK(unmask_tokenize(model, " cat", 4, 0, &text, &n, &err), err);
    assert_int_equal(n, 1);
    ids[3] = text[0];
    unmask_free(text);
    frame(&c, &s, &(struct unmask_step){ .step = 1, .block = 1, .n_blocks = 2, .canvas = ids, .n_canvas = 8, .n_prompt = 2,
                                         .committed = (int[]){ 3 }, .n_committed = 1 });
    expect_row(&s, 0, "step 1/16  block 2/2  masked 5  new 1  settled 1   1.9 s");
    expect_row(&s, 1, "\xe2\x96\x91 cat\xe2\x96\x91\xe2\x96\x91\xe2\x96\x91\xe2\x96\x91");
    assert_non_null(strstr(c.frame.s, "\033[0;1;32m cat\033[0;2m"));
    assert_true(is_empty_below(&s, 2));
    canvas_close(&c);

    c = canvas(false);                          /* without colours: no codes but those that move and clear */
    memset(&s.cell, 0, sizeof s.cell);
    s.x = s.y = 0;
    frame(&c, &s, &(struct unmask_step){ .step = 3, .n_blocks = 1, .canvas = ids, .n_canvas = 8, .n_prompt = 2,
                                         .committed = (int[]){ 3 }, .n_committed = 1 });
    expect_row(&s, 0, "step 3  block 1/1  masked 5  new 1  settled 1   1.9 s");
    assert_null(strchr(c.frame.s, 033));
    canvas_close(&c);
}

/* A text of every kind of character, as ids. */
static int32_t *sample(size_t *n)
{
    static const char text[] = "The cat\nsat on \xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\t\x1b[31m red \x07\xc2\x9b \xe2\x80\xae"
                               "evil\xe2\x80\xac."
                               "\r\n\n A long word: "
                               "abcdefghijklmnopqrstuvwxyz \xf0\x9f\x98\x80\xe3\x81\x82 the end.";
    int32_t *ids;
    struct unmask_err err;
    OK(unmask_tokenize(model, text, sizeof text - 1, 0, &ids, n, &err), err);
    return ids;
}

/* Unmask a text in random order on a screen with a line above, at every size, also when it gets narrower in between. */
static void what_stands_above_a_canvas_stays(void **state)
{
    (void)state;
    size_t n;
    int32_t *text = sample(&n), *ids = calloc(n, sizeof *ids);
    uint64_t random = 20240607;
    print_message("seed %llu\n", (unsigned long long)random);
    for (int width = 1; width <= 100; width += width < 12 ? 1 : 11)
        for (int height = 2; height <= 12; height++) {
            struct screen s = { .width = width, .height = height, .y = (width + height) % (height - 1) };
            struct canvas c = canvas(true);
            for (size_t i = 0; i < n; i++) ids[i] = MASK;
            for (int x = 0; x < width; x++) s.cell[s.y][x] = '#';
            const int above = s.y;
            show(&s, "\n", 1);
            for (int step = 0, left = (int)n; ; step++) {
                int committed[4], k = 0;
                while (step && k < 4 && left > 0) {
                    random = random * 6364136223846793005u + 1442695040888963407u;
                    const size_t at = (size_t)(random >> 33) % n;
                    if (ids[at] != MASK) continue;
                    ids[at] = text[at];
                    committed[k++] = (int)at;
                    left--;
                }
                frame(&c, &s, &(struct unmask_step){ .step = step, .n_blocks = 1, .canvas = ids, .n_canvas = (int)n,
                                                     .committed = committed, .n_committed = k });
                assert_true(c.n_rows <= height - 1);
                assert_true(above - s.scrolled >= 0);
                assert_int_equal(s.cell[above - s.scrolled][0], '#');
                if (left == 0) break;
            }
            /* An empty frame in its place: nothing of the last one is left. */
            frame(&c, &s, &(struct unmask_step){ .n_blocks = 1 });
            assert_int_equal(s.cell[above - s.scrolled][0], '#');
            assert_true(is_empty_below(&s, above - s.scrolled + 3));
            canvas_close(&c);
        }
    free(ids);
    unmask_free(text);
}

static void a_narrower_terminal_has_broken_the_rows(void **state)
{
    (void)state;
    int32_t ids[60];
    struct canvas c = canvas(false);
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) ids[i] = MASK;
    const struct unmask_step step = { .n_blocks = 1, .canvas = ids, .n_canvas = 60 };
    assert_true(canvas_compose(&c, &step, 80, 24, 0));
    assert_int_equal(c.n_rows, 2);              /* 51 and 60 columns: 3 + 3 rows where 20 fit */
    assert_true(canvas_compose(&c, &step, 20, 24, 0));
    assert_memory_equal(c.frame.s, "\r\033[5A\033[J", 8);
    assert_true(canvas_compose(&c, &step, 80, 24, 0));          /* 1 + 4 rows of 19 are no more when it is wide again */
    assert_memory_equal(c.frame.s, "\r\033[4A\033[J", 8);
    canvas_close(&c);
}

static void a_canvas_is_for_terminals(void **state)
{
    (void)state;
    static const struct { struct settings s; struct term t; bool shown, on_out; } cases[] = {
        { { .watch = AUTO }, { .out_tty = true, .live = true }, true, true },
        { { .watch = AUTO }, { .out_tty = true, .live = false }, false, false },        /* TERM=dumb */
        { { .watch = AUTO }, { .out_tty = false, .err_tty = true, .live = true }, false, false },
        { { .watch = AUTO, .json = true }, { .out_tty = true, .live = true }, false, false },
        { { .watch = AUTO, .quiet = true }, { .out_tty = true, .live = true }, false, false },
        { { .watch = OFF }, { .out_tty = true, .live = true }, false, false },
        { { .watch = ON }, { .out_tty = true, .live = false }, true, true },
        { { .watch = ON }, { .out_tty = false, .live = true }, true, false },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct canvas c;
        canvas_open(&c, &cases[i].s, &cases[i].t, model, 0);
        assert_ptr_equal(c.out, cases[i].shown ? cases[i].on_out ? stdout : stderr : NULL);
        canvas_close(&c);
    }
}

static void masks_are_dots_where_the_locale_has_no_utf8(void **state)
{
    (void)state;
    static const struct { const char *all, *ctype, *lang, *mask; } cases[] = {
        { "", "", "", "\xe2\x96\x91" }, { "C", "", "en_US.UTF-8", "." }, { "", "", "de_DE", "." },
        { "", "en_US.utf8", "C", "\xe2\x96\x91" }, { "C.UTF-8", "C", "C", "\xe2\x96\x91" },
    };
    const struct settings s = { .watch = ON };
    const struct term t = { .out_tty = true };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct canvas c;
        setenv("LC_ALL", cases[i].all, 1);
        setenv("LC_CTYPE", cases[i].ctype, 1);
        setenv("LANG", cases[i].lang, 1);
        canvas_open(&c, &s, &t, model, 0);
        assert_string_equal(c.mask, cases[i].mask);
        canvas_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frame_shows_status_masks_and_text), cmocka_unit_test(what_stands_above_a_canvas_stays),
        cmocka_unit_test(a_narrower_terminal_has_broken_the_rows), cmocka_unit_test(a_canvas_is_for_terminals),
        cmocka_unit_test(masks_are_dots_where_the_locale_has_no_utf8),
    };
    struct unmask_err err;
    if (!unmask_open(&model, "models/unmask-demo-6M-v1.0-Q8_0.gguf", NULL, &err)) return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unmask_close(model);
    return failed;
}
