/* cmd_detokenize.c - ids to text. */
#include <jansson.h>

#include "cmd.h"
#include "mem.h"
#include "tokenizer.h"

/* Ids of all arguments, or of standard input. */
static bool read_ids(const struct settings *s, int32_t **ids, size_t *n, struct unmask_err *err)
{
    char *text;
    size_t n_text;
    for (int i = 0; i < s->n_args; i++)
        if (!parse_ids(s->args[i], "IDS", ids, n, err)) return false;
    if (s->n_args) return true;
    if (!cmd_read_text(NULL, "ids", &text, &n_text, err)) return false;
    const bool ok = strlen(text) == n_text ? parse_ids(text, "IDS", ids, n, err)
                  : fail(err, E_CLI_TEXT, .field = "ids", .byte = AT(strlen(text)), .found = "a NUL byte", .need = "numbers");
    mem_free(text);
    return ok;
}

static bool print_text(const struct text_out *text, const struct settings *s, const struct term *term, struct unmask_err *err)
{
    if (s->json) {
        json_t *o = json_pack("{s:s%}", "text", text->s, text->n);
        const bool ok = o && json_dumpf(o, stdout, JSON_COMPACT) == 0;
        json_decref(o);
        if (!ok && !ferror(stdout)) return fail(err, E_MEMORY, .field = "text");
    } else term_put_text(stdout, text->s, text->n, term->out_tty);
    putchar('\n');
    return true;
}

static bool run(const struct settings *s, const struct term *term, struct unmask_err *err)
{
    struct tokenizer *t = NULL;
    struct token_decoder d = { 0 };
    struct text_out text = { 0 };
    int32_t *ids = NULL;
    size_t n = 0;
    const bool ok = read_ids(s, &ids, &n, err) && cmd_open_tokenizer(s, &t, err)
        && tokenizer_decode(t, &d, ids, n, s->special, &text, err)
        && tokenizer_decode_end(&d, &text, err) && print_text(&text, s, term, err);
    tokenizer_close(t);
    mem_free(text.s);
    mem_free(ids);
    return ok;
}

const struct command cmd_detokenize = {
    "detokenize", CMD_DETOKENIZE, run, "detokenize [-m MODEL] [--special] IDS...", "print the text of token ids",
    "  unmask detokenize 4080 64 70                           separated by blanks or commas\n"
    "  unmask tokenize \"Hi there\" | unmask detokenize\n"
};
