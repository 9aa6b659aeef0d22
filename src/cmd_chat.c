/* cmd_chat.c - a conversation: questions from the terminal (through libedit) or line by line from a pipe.  Earlier answers go
 * back into the chat template as text. */
#include <errno.h>
#include <histedit.h>
#include <locale.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#include "cmd_generate.h"
#include "mem.h"

enum { MAX_LINE = 16 << 20, HISTORY = 100 };

struct turn { char *question, *answer; size_t n_question, n_answer; };

struct chat {
    struct generator g;
    char *system;
    struct turn *turns; int n_turns;
    struct answer last;         /* what /stats tells of */
    bool interactive;
    bool interrupted;           /* the last line, by Ctrl-C */
    EditLine *edit; History *history;           /* NULL: plain lines */
    char *line; size_t n_line, line_bytes;      /* the last line read; room for it */
};

/* ---- lines ---- */

static char *prompt(EditLine *edit)
{
    static char text[] = "> ";
    (void)edit;
    return text;
}

/* A key, for libedit, which by itself reads on after a signal. */
static int read_key(EditLine *edit, wchar_t *key)
{
    mbstate_t state = { 0 };
    (void)edit;
    for (;;) {
        char b;
        const ssize_t n = read(STDIN_FILENO, &b, 1);
        if (n < 0 && errno == EINTR && !term_signal()) continue;
        if (n <= 0) return (int)n;
        const size_t bytes = mbrtowc(key, &b, 1, &state);
        if (bytes == (size_t)-1) memset(&state, 0, sizeof state);               /* not a character: as if not typed */
        else if (bytes != (size_t)-2) return 1;
    }
}

static bool open_editor(struct chat *c, struct unmask_err *err)
{
    HistEvent event;
    /* Only what a character is, for libedit; numbers stay as they are everywhere. */
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    c->edit = el_init("unmask", stdin, stdout, stderr);
    c->history = history_init();
    if (!c->edit || !c->history) return fail(err, E_MEMORY, .field = "line editor");
    history(c->history, &event, H_SETSIZE, HISTORY);
    el_set(c->edit, EL_EDITOR, "emacs");
    el_set(c->edit, EL_PROMPT, prompt);
    el_set(c->edit, EL_HIST, history, c->history);
    el_set(c->edit, EL_GETCFN, read_key);
    return true;
}

static bool keep_line(struct chat *c, const char *s, size_t n, struct unmask_err *err)
{
    if (c->n_line + n + 1 > c->line_bytes) {
        const size_t bytes = 2 * (c->n_line + n + 1);
        char *grown = mem_resize(c->line, bytes, 1, err);
        if (!grown) return false;
        c->line = grown;
        c->line_bytes = bytes;
    }
    memcpy(c->line + c->n_line, s, n);
    c->n_line += n;
    c->line[c->n_line] = 0;
    return c->n_line <= MAX_LINE
        || fail(err, E_CLI_TOO_LONG, .field = "question", .found = FMT("more than %d bytes", MAX_LINE), .need = "less");
}

static bool read_edited(struct chat *c, bool *end, struct unmask_err *err)
{
    int n = 0;
    HistEvent event;
    el_resize(c->edit);
    const char *s = el_gets(c->edit, &n);
    if (term_signal()) {
        const LineInfo *typed = el_line(c->edit);
        return keep_line(c, typed->buffer, (size_t)(typed->lastchar - typed->buffer), err);
    }
    *end = !s || n <= 0;
    if (!*end && n > 1) history(c->history, &event, H_ENTER, s);
    return *end || keep_line(c, s, (size_t)n - (s[n - 1] == '\n'), err);
}

static bool read_plain(struct chat *c, bool *end, struct unmask_err *err)
{
    if (c->interactive) fputs("> ", stdout), fflush(stdout);
    int b;
    while ((b = getchar()) != EOF && b != '\n')
        if (!keep_line(c, &(char){ (char)b }, 1, err)) return false;
    if (term_signal()) {
        clearerr(stdin);
        return true;
    }
    *end = b == EOF && c->n_line == 0;
    return !ferror(stdin) || fail(err, E_FILE_READ, .file = "standard input", .found = ERRNO(errno));
}

/* A line without its end in c->line; *end: there is none any more.  On a terminal Ctrl-C gives an empty one, and where nothing had
 * been typed since the Ctrl-C before it, the end. */
static bool read_line(struct chat *c, bool *end, struct unmask_err *err)
{
    c->n_line = 0;
    if (!keep_line(c, "", 0, err)) return false;
    if (c->interactive) term_hold_signals(true);
    const bool ok = c->edit ? read_edited(c, end, err) : read_plain(c, end, err);
    if (c->interactive) term_hold_signals(false);
    const bool again = c->interrupted && c->n_line == 0;
    c->interrupted = term_signal() == SIGINT;
    if (!ok || !term_signal()) return ok;
    c->n_line = 0;
    c->line[0] = 0;
    if (!c->interrupted) return true;           /* another signal ends the conversation */
    term_clear_signal();
    *end = again;
    if (again) return true;
    fputc('\n', stderr);
    note(c->g.s, "Ctrl-C once more ends, as do Ctrl-D and /quit");
    return true;
}

/* ---- turns ---- */

static void drop_turns(struct chat *c, int from, int n)
{
    for (int i = from; i < from + n; i++) {
        mem_free(c->turns[i].question);
        mem_free(c->turns[i].answer);
    }
    const int after = c->n_turns - from - n;
    if (n && after) memmove(c->turns + from, c->turns + from + n, (size_t)after * sizeof *c->turns);
    c->n_turns -= n;
}

static bool add_turn(struct chat *c, const char *question, size_t n, struct unmask_err *err)
{
    struct turn *grown = mem_resize(c->turns, (size_t)c->n_turns + 1, sizeof *grown, err);
    if (!grown) return false;
    c->turns = grown;
    grown[c->n_turns] = (struct turn){ .question = mem_strndup(question, n, err), .n_question = n };
    if (!grown[c->n_turns].question) return false;
    c->n_turns++;
    return true;
}

/* Ids of the conversation from turn `from` on, up to where the last turn's answer begins. */
static bool encode(const struct chat *c, int from, int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    struct unmask_message *messages = mem_zalloc(2 * (size_t)c->n_turns + 1, sizeof *messages, err);
    if (!messages) return false;
    size_t n = 0;
    if (c->system && *c->system) messages[n++] = (struct unmask_message){ "system", c->system, 0 };
    for (int i = from; i < c->n_turns; i++) {
        messages[n++] = (struct unmask_message){ "user", c->turns[i].question, c->turns[i].n_question };
        if (i + 1 < c->n_turns) messages[n++] = (struct unmask_message){ "assistant", c->turns[i].answer, c->turns[i].n_answer };
    }
    const bool ok = unmask_chat_ids(c->g.m, messages, n, ids, n_ids, err);
    mem_free(messages);
    return ok;
}

/* The same, without the oldest turns where they and one block do not fit the context.  What is dropped is told, even with -q:
 * the model answers without it. */
static bool encode_fitting(struct chat *c, int32_t **ids, size_t *n_ids, struct unmask_err *err)
{
    const struct unmask_options *o = &c->g.o;
    const size_t block = (size_t)(o->block_length && o->block_length < o->gen_length ? o->block_length : o->gen_length);
    for (int from = 0; ; from++) {
        if (!encode(c, from, ids, n_ids, err)) return false;
        if (*n_ids + block <= (size_t)c->g.info.context_length || from + 1 >= c->n_turns) {
            if (from)
                fprintf(stderr, "unmask: note: the conversation and a block of %zu no longer fit the context of %d tokens; "
                        "the oldest %d of %d turns %s forgotten\n",
                        block, c->g.info.context_length, from, c->n_turns, from == 1 ? "is" : "are");
            drop_turns(c, 0, from);
            return true;
        }
        mem_free(*ids);
        *ids = NULL;
    }
}

/* Answer the last turn.  Where Ctrl-C ends an answer on a terminal, what there is of it stands as the answer. */
static bool answer_turn(struct chat *c, struct unmask_err *err)
{
    int32_t *ids = NULL;
    size_t n_ids;
    answer_free(&c->last);
    bool ok = encode_fitting(c, &ids, &n_ids, err) && generate(&c->g, ids, n_ids, false, &c->last, err);
    mem_free(ids);
    if (c->last.r.canvas) {
        struct unmask_err unread;
        if (answer_read(&c->g, &c->last, ok ? err : &unread)) answer_print(&c->g, &c->last);
        else ok = false;
    }
    struct turn *turn = &c->turns[c->n_turns - 1];
    if (c->interactive && term_signal() == SIGINT) {
        term_clear_signal();
        ok = ok || err->status == UNMASK_ECANCELLED;
    }
    if (!ok) return false;
    mem_free(turn->answer);
    turn->n_answer = c->last.n_text;
    return (turn->answer = mem_strndup(c->last.text ? c->last.text : "", c->last.n_text, err));
}

static bool ask(struct chat *c, const char *question, size_t n, struct unmask_err *err)
{
    if (!add_turn(c, question, n, err)) return false;
    if (answer_turn(c, err)) return true;
    drop_turns(c, c->n_turns - 1, 1);
    return false;
}

/* ---- commands ---- */

static const char help_text[] =
    "/redo         answer the last question again, with the next seed\n"
    "/system TEXT  set the system message; without TEXT there is none\n"
    "/stats        figures of the last answer\n"
    "/quit         end (so do Ctrl-D, and Ctrl-C twice); Ctrl-C ends an answer or clears the line\n";

static bool redo(struct chat *c, struct unmask_err *err)
{
    if (c->n_turns == 0) {
        note(c->g.s, "there is no question yet");
        return true;
    }
    c->g.o.seed++;
    if (c->g.o.temperature <= 0 && c->g.o.remasking == UNMASK_LOW_CONFIDENCE)
        note(c->g.s, "the seed plays no part at temperature 0; --temperature 0.4 varies the answers");
    return answer_turn(c, err);
}

static void stats(const struct chat *c)
{
    if (!c->last.r.canvas) {
        note(c->g.s, "there is no answer yet");
        return;
    }
    answer_summary(&c->g, &c->last);
    fprintf(stderr, "unmask: %d turns, %d of %d tokens of context\n", c->n_turns, c->last.r.n_prompt + c->last.n_tokens,
            c->g.info.context_length);
}

static bool set_system(struct chat *c, const char *text, struct unmask_err *err)
{
    mem_free(c->system);
    return (c->system = mem_strndup(text, strlen(text), err));
}

static bool command(struct chat *c, bool *end, struct unmask_err *err)
{
    static const char *const names[] = { "/help", "/redo", "/stats", "/quit", "/system", NULL };
    const size_t n = strcspn(c->line, " \t");
    const char *rest = c->line + n + strspn(c->line + n, " \t");
    char name[16];
    snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name - 1), c->line);
    if (!strcmp(name, "/redo")) return redo(c, err);
    if (!strcmp(name, "/system")) return set_system(c, rest, err);
    if (!strcmp(name, "/quit")) *end = true;
    else if (!strcmp(name, "/stats")) stats(c);
    else if (!strcmp(name, "/help")) fputs(help_text, stderr);
    else {
        const char *near = nearest_word(name, names);
        fprintf(stderr, "unmask: there is no %s here; %s%s\n", QUOTE(c->line, n), near ? "did you mean " : "/help lists the commands",
                near ? near : "");
    }
    return true;
}

/* ---- the conversation ---- */

/* Nothing that one question does wrong ends a conversation on a terminal. */
static bool goes_on(const struct chat *c, const struct unmask_err *err)
{
    if (!c->interactive || (err->status != UNMASK_EUSAGE && err->status != UNMASK_ELIMIT)) return false;
    cmd_print_error(err, c->g.s->json);
    return true;
}

static bool converse(struct chat *c, struct unmask_err *err)
{
    for (bool end = false; !end; ) {
        if (term_signal()) return fail(err, E_CANCELLED, .hint = NULL);         /* it came with the last words of an answer */
        if (!read_line(c, &end, err)) return false;
        if (end && c->interactive) fputc('\n', stderr);
        if (end || strspn(c->line, " \t\r") == c->n_line) continue;
        const bool ok = c->line[0] == '/' ? command(c, &end, err) : ask(c, c->line, c->n_line, err);
        if (!ok && !goes_on(c, err)) return false;
        end = end || fflush(stdout) != 0;       /* nobody reads the answers: main() tells why, if there is something to tell */
    }
    return true;
}

/* A model without a known chat template is refused before anybody types a question. */
static bool check_template(const struct chat *c, struct unmask_err *err)
{
    int32_t *ids;
    size_t n;
    if (!unmask_chat_ids(c->g.m, &(struct unmask_message){ "user", "", 0 }, 1, &ids, &n, err)) return false;
    mem_free(ids);
    return true;
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct chat c = { .interactive = isatty(STDIN_FILENO) && t->out_tty };
    if (s->n_args) return fail(err, E_CLI_EXTRA, .field = QUOTE(s->args[0], strlen(s->args[0])), .need = "questions on standard input");
    bool ok = set_system(&c, s->system ? s->system : "", err) && generator_open(&c.g, s, t, false, err) && check_template(&c, err);
    if (ok && c.interactive && !s->quiet)
        fprintf(stderr, "%s.  /help lists the commands, Ctrl-D ends.\n", QUOTE(c.g.info.name, strlen(c.g.info.name)));
    ok = ok && (!c.interactive || !t->live || open_editor(&c, err)) && converse(&c, err);
    if (c.edit) el_end(c.edit);
    if (c.history) history_end(c.history);
    drop_turns(&c, 0, c.n_turns);
    answer_free(&c.last);
    mem_free(c.turns);
    mem_free(c.system);
    mem_free(c.line);
    generator_close(&c.g);
    return ok;
}

const struct command cmd_chat = {
    "chat", CMD_CHAT, run, "chat [flags]", "a conversation",
    "  unmask chat\n"
    "  unmask chat -m model.gguf --system \"Answer in one sentence.\" --temperature 0.4\n"
    "  unmask chat --json < questions.txt\n\n"
    "Commands in a conversation: /help /redo /system TEXT /stats /quit\n"
};
