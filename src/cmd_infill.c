/* cmd_infill.c - fill the holes of a text, with text on both sides (see holes.h for how holes are written). */
#include <math.h>
#include <string.h>

#include "cmd_generate.h"
#include "holes.h"
#include "json.h"
#include "mem.h"
#include "model.h"

struct infill {
    struct generator g;
    char *text, *question;      /* with holes; the user's message before it (--chat -p) */
    size_t n_text, n_question;
    struct holes holes;
    size_t *start;              /* [holes.n] canvas position of a part */
    int32_t *ids; size_t n_ids; /* the canvas */
    size_t n_masks;
};

static bool check_flags(const struct settings *s, struct unmask_err *err)
{
    if (s->n_args > 1)
        return fail(err, E_CLI_EXTRA, .field = QUOTE(s->args[1], strlen(s->args[1])), .need = "one text", .hint = "Put the text in quotes");
    if (s->prompt && s->n_args && !s->chat_template)
        return fail(err, E_CLI_CONFLICT, .field = "--prompt, the text as an argument", .need = "one of them",
                    .hint = "With --chat, --prompt is the question and the argument its answer");
    return true;
}

static bool read_texts(struct infill *f, const struct settings *s, struct unmask_err *err)
{
    const bool both = s->prompt && s->n_args;
    const char *text = s->n_args ? s->args[0] : s->prompt;
    return (!both || cmd_read_text(s->prompt, "--prompt", &f->question, &f->n_question, err))
        && cmd_read_text(text, "text with holes", &f->text, &f->n_text, err) && holes_parse(&f->holes, f->text, f->n_text, err);
}

/* ---- the canvas ---- */

static int32_t *grow(struct infill *f, size_t n, struct unmask_err *err)
{
    int32_t *grown = mem_resize(f->ids, f->n_ids + n, sizeof *grown, err);
    if (!grown) return NULL;
    f->ids = grown;
    f->n_ids += n;
    return grown + f->n_ids - n;
}

static bool put_ids(struct infill *f, const int32_t *ids, size_t n, struct unmask_err *err)
{
    int32_t *at = n ? grow(f, n, err) : f->ids;
    if (n && at) memcpy(at, ids, n * sizeof *ids);
    return n == 0 || at;
}

/* Bytes of a fixed text that the canvas holds.  In byte-level BPE a space is the beginning of the word after it, so one
 * that stands before a hole is left to the hole: on its own it is a token that training never showed there. */
static size_t bytes_before_hole(const struct holes *h, int i)
{
    const struct hole_part *p = &h->parts[i];
    const bool space = i + 1 < h->n && h->parts[i + 1].length > 0 && p->text[p->n_text - 1] == ' ';
    return p->n_text - space;
}

/* Fixed text is encoded piece by piece; a hole is `length` masks. */
static bool put_part(struct infill *f, int i, struct unmask_err *err)
{
    const struct hole_part *p = &f->holes.parts[i];
    f->start[i] = f->n_ids;
    if (p->text) {
        int32_t *ids;
        size_t n;
        const bool ok = unmask_tokenize(f->g.m, p->text, bytes_before_hole(&f->holes, i), 0, &ids, &n, err) && put_ids(f, ids, n, err);
        mem_free(ids);
        return ok;
    }
    int32_t *at = p->length ? grow(f, (size_t)p->length, err) : NULL;
    if (p->length && !at) return false;
    for (int k = 0; k < p->length; k++) at[k] = f->g.info.mask_id;
    f->n_masks += (size_t)p->length;
    return true;
}

static bool put_parts(struct infill *f, struct unmask_err *err)
{
    if (!(f->start = mem_zalloc((size_t)f->holes.n, sizeof *f->start, err))) return false;
    for (int i = 0; i < f->holes.n; i++)
        if (!put_part(f, i, err)) return false;
    return true;
}

/* --chat: the text is the answer to --prompt, or, without one, itself the user's message: then it goes before the end of the
 * turn of an empty message. */
static bool put_canvas(struct infill *f, struct unmask_err *err)
{
    if (!f->g.s->chat_template) return put_parts(f, err);
    int32_t *ids;
    size_t n, at;
    const struct unmask_message message = { "user", f->question ? f->question : "", f->n_question };
    if (!unmask_chat_ids(f->g.m, &message, 1, &ids, &n, err)) return false;
    for (at = n; !f->question && at > 0 && ids[at - 1] != f->g.info.eot_id; ) at--;
    if (!f->question && at > 0) at--;
    const bool ok = put_ids(f, ids, at, err) && put_parts(f, err) && put_ids(f, ids + at, n - at, err);
    mem_free(ids);
    return ok;
}

/* ---- what came out ---- */

static bool hole_text(const struct infill *f, const struct answer *a, int i, char **text, size_t *n, struct unmask_err *err)
{
    return text_of_ids(&f->g, a->r.canvas + f->start[i], (size_t)f->holes.parts[i].length, text, n, err);
}

/* Does the text of a hole need the space that was left to it?  Not before a space or a mark that follows a word directly. */
static bool needs_space(const char *text, size_t n) { return n > 0 && !strchr(" \n\t,.;:!?)", text[0]); }

/* Append a hole's text, which takes over the space at the end of a fixed text before it. */
static bool put_hole_text(const struct infill *f, const struct answer *a, int i, struct text_out *out, struct unmask_err *err)
{
    const struct hole_part *before = i > 0 ? &f->holes.parts[i - 1] : NULL;
    const bool left_space = before && before->text && bytes_before_hole(&f->holes, i - 1) < before->n_text;
    char *text;
    size_t n;
    if (!hole_text(f, a, i, &text, &n, err)) return false;
    const size_t skip = !before && n > 0 && text[0] == ' ';     /* nothing stands before the first word of the text */
    const bool ok = text_put(out, " ", left_space && needs_space(text, n), err) && text_put(out, text + skip, n - skip, err);
    mem_free(text);
    return ok;
}

static void count_tokens(const struct infill *f, struct answer *a, int i)
{
    for (size_t k = f->start[i], end = k + (size_t)f->holes.parts[i].length; k < end; k++) {
        a->n_tokens += a->r.canvas[k] != f->g.info.mask_id;
        a->confidence_min = fminf(a->confidence_min, a->r.confidence[k]);
    }
}

/* Give repeated holes the tokens of the first one, then put the text together and count. */
static bool read_holes(const struct infill *f, struct answer *a, struct unmask_err *err)
{
    struct text_out out = { NULL, 0, 0 };
    bool ok = text_put(&out, "", 0, err);
    a->confidence_min = NAN;
    if (a->r.finish == UNMASK_FINISH_CANCELLED) a->finish = "cancelled";
    for (int i = 0; ok && i < f->holes.n; i++) {
        const struct hole_part *p = &f->holes.parts[i];
        if (p->text) ok = text_put(&out, p->text, bytes_before_hole(&f->holes, i), err);
        else {
            const int32_t *first = a->r.canvas + f->start[p->same_as < 0 ? i : p->same_as];
            memmove(a->r.canvas + f->start[i], first, (size_t)p->length * sizeof *first);
            count_tokens(f, a, i);
            ok = put_hole_text(f, a, i, &out, err);
        }
    }
    a->text = out.s;
    a->n_text = out.n;
    return ok;
}

static bool print_holes(const struct infill *f, const struct answer *a, struct unmask_err *err)
{
    bool ok = true, first = true;
    fputs("\"holes\":[", stdout);
    for (int i = 0; ok && i < f->holes.n; i++) {
        const struct hole_part *p = &f->holes.parts[i];
        char *text;
        size_t n;
        if (p->text) continue;
        if (!(ok = hole_text(f, a, i, &text, &n, err))) break;
        fputs(first ? "{\"name\":" : ",{\"name\":", stdout);
        if (p->name[0]) json_print_text(p->name, strlen(p->name));
        else fputs("null", stdout);
        fputs(",\"text\":", stdout);
        json_print_text(text, n);
        fputs(",\"ids\":", stdout);
        print_json_ids(a->r.canvas + f->start[i], (size_t)p->length);
        putchar('}');
        mem_free(text);
        first = false;
    }
    fputs("],", stdout);
    return ok;
}

static bool print(const struct infill *f, struct answer *a, struct unmask_err *err)
{
    bool ok = read_holes(f, a, err);
    if (!ok) return false;
    if (f->g.s->json) {
        fputs("{\"text\":", stdout);
        json_print_text(a->text, a->n_text);
        putchar(',');
        ok = print_holes(f, a, err);
        printf("\"finish_reason\":\"%s\",", a->finish);
        print_json_figures(&f->g, a, f->n_ids - f->n_masks);
        fputs("}\n", stdout);
    } else print_text(&f->g, a->text, a->n_text);
    if (f->g.s->verbose) answer_summary(&f->g, a);
    return ok;
}

static bool run(const struct settings *s, const struct term *t, struct unmask_err *err)
{
    struct infill f = { .text = NULL };
    struct answer a = { .text = NULL };
    bool ok = check_flags(s, err) && read_texts(&f, s, err) && generator_open(&f.g, s, t, false, err) && put_canvas(&f, err);
    if (ok) {
        if (s->origin[OPT_BLOCK_LENGTH] < FROM_ENVIRONMENT) f.g.o.block_length = 0;     /* all holes at once, unless blocks are asked for */
        ok = generate(&f.g, f.ids, f.n_ids, true, &a, err);
    }
    if (a.r.canvas) {                           /* an interrupted run leaves what it has */
        struct unmask_err unread;
        if (!print(&f, &a, ok ? err : &unread)) ok = false;
    }
    answer_free(&a);
    holes_free(&f.holes);
    mem_free(f.text);
    mem_free(f.question);
    mem_free(f.start);
    mem_free(f.ids);
    generator_close(&f.g);
    return ok;
}

const struct command cmd_infill = {
    "infill", CMD_INFILL, run, "infill [TEXT] [flags]", "fill the holes of a text",
    "  unmask infill \"Tom had a red ball. One day [[8]] Tom was very sad.\"\n"
    "  unmask infill \"[[name:1]] had a cat. The cat of [[name:1]] was [[2]].\"\n"
    "  unmask infill --chat -p \"Tell me a story\" \"Once upon a time [[12]] The end.\"\n\n"
    "[[8]] is a hole of 8 tokens, [[name:8]] a named one.  All holes are filled together; then those that repeat a name get the\n"
    "text of its first.  A space before a hole is left to the hole's first word.\n"
    "\\[[ writes [[ itself and \\\\[[8]] a backslash before a hole; [[[8]]] is a hole in brackets.\n"
    "A text that begins with @ names a file; @@ is an @ itself.\n"
    "diffusion.block_length of a YAML file does not count here: only the flag or the environment asks for blocks.\n"
    "The text stands alone; with --chat it is the answer to --prompt in the model's chat template or, where there is no --prompt,\n"
    "the user's message.\n"
};
