/* cmd_run.c - one answer to one prompt. */
#include <string.h>

#include "cmd_generate.h"
#include "mem.h"

struct prompt { char *text; size_t n_text; int32_t *ids; size_t n_ids; };

static bool blank(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n && strchr(" \t\r\n", s[i]) && s[i]) i++;
    return i == n;
}

static bool conflict(const char *a, const char *b, struct unmask_err *err)
{
    return fail(err, E_CLI_CONFLICT, .field = FMT("%s, %s", a, b), .need = "one of them");
}

static bool check_flags(const struct settings *s, struct unmask_err *err)
{
    const bool system = s->origin[OPT_SYSTEM] == FROM_FLAG;
    if (s->n_args > 1)
        return fail(err, E_CLI_EXTRA, .field = QUOTE(s->args[1], strlen(s->args[1])), .need = "one prompt",
                    .hint = "Put the prompt in quotes");
    if (s->prompt && s->n_args) return conflict("--prompt", "the prompt as an argument", err);
    if (s->prompt_ids && s->n_args) return conflict("--prompt-ids", "the prompt as an argument", err);
    if (s->prompt_ids && system) return conflict("--prompt-ids", "--system", err);
    if (s->prompt_ids && s->n_stop) return conflict("--prompt-ids", "--stop", err);
    return true;
}

static bool read_prompt(const struct settings *s, struct prompt *p, struct unmask_err *err)
{
    if (s->prompt_ids) {
        if (!parse_ids(s->prompt_ids, "--prompt-ids", &p->ids, &p->n_ids, err)) return false;
        return p->n_ids || fail(err, E_GEN_EMPTY, .field = "--prompt-ids", .need = "at least one token id");
    }
    if (!cmd_read_text(s->prompt ? s->prompt : s->n_args ? s->args[0] : NULL, "prompt", &p->text, &p->n_text, err)) return false;
    const bool empty = s->raw ? p->n_text == 0 : blank(p->text, p->n_text);
    return !empty || fail(err, E_GEN_EMPTY, .need = "a text to answer");
}

/* Ids that the answer continues: those given, the text as it is, or a conversation in the chat template. */
static bool encode(struct generator *g, struct prompt *p, struct unmask_err *err)
{
    if (g->s->prompt_ids) return true;
    if (g->s->raw) return unmask_tokenize(g->m, p->text, p->n_text, 0, &p->ids, &p->n_ids, err);
    const bool system = g->s->system && *g->s->system;
    const struct unmask_message messages[] = { { "system", g->s->system, 0 }, { "user", p->text, p->n_text } };
    if (unmask_chat_ids(g->m, messages + !system, 1 + system, &p->ids, &p->n_ids, err)) return true;
    if (err->status == UNMASK_EMODEL) snprintf(err->hint, sizeof err->hint, "--raw continues the prompt as plain text");
    return false;
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct generator g = { .s = s };
    struct prompt p = { .text = NULL };
    struct answer a = { .text = NULL };
    bool ok = check_flags(s, err) && read_prompt(s, &p, err) && generator_open(&g, s, t, s->prompt_ids != NULL, err)
           && encode(&g, &p, err) && generate(&g, p.ids, p.n_ids, false, &a, err);
    if (a.r.canvas) {                           /* an interrupted run leaves what it has */
        struct unmask_err unread;
        if (answer_read(&g, &a, ok ? err : &unread)) answer_print(&g, &a);
        else ok = false;
    }
    answer_free(&a);
    mem_free(p.text);
    mem_free(p.ids);
    generator_close(&g);
    return ok;
}

const struct command cmd_run = {
    "run", CMD_RUN, run, "run [PROMPT] [flags]", "answer one prompt",
    "  unmask run \"turn on the kitchen light\"\n"
    "  unmask run -p @question.txt --json\n"
    "  echo \"wake me up at 6:30 am\" | unmask run\n"
    "  unmask run --raw \"Once upon a time\" --gen-length 64 --temperature 0.4\n"
    "  unmask run \"@@alice says hi\"                          @ names a file, @@ is an @ itself\n"
};
