/* cmd_card.c - see cmd_card.h.  Texts out of metadata are written as JSON strings, which YAML reads as what they are. */
#include "cmd_card.h"

#include <string.h>

#include "checkpoint.h"
#include "json.h"
#include "mem.h"
#include "model_name.h"

struct card { struct outfile *o; const struct checkpoint *c; struct unmask_err *err; bool ok; };

char *card_path(const char *model, struct unmask_err *err)
{
    static const char end[] = ".gguf";
    const size_t n = strlen(model), n_end = sizeof end - 1, stem = n > n_end && !strcmp(model + n - n_end, end) ? n - n_end : n;
    char *path = mem_zalloc(stem + 4, 1, err);
    if (!path) return NULL;
    memcpy(path, model, stem);
    memcpy(path + stem, ".md", 3);
    return path;
}

static void put(struct card *card, const char *text) { card->ok = card->ok && outfile_write(card->o, text, strlen(text), card->err); }

/* A text of the metadata; empty when there is none. */
static struct str text_of(const struct card *card, const char *key)
{
    struct str v = { "", 0 };
    return meta_str(card->c, key, false, &v, NULL) ? v : (struct str){ "", 0 };
}

/* One line of front matter, when the metadata hold its value. */
static void put_field(struct card *card, const char *name, struct str value)
{
    json_t *s = value.n ? json_text(value.s, value.n) : NULL;
    char *quoted = s ? json_dumps(s, JSON_ENCODE_ANY) : NULL;
    if (quoted) {
        put(card, name);
        put(card, ": ");
        put(card, quoted);
        put(card, "\n");
    }
    unmask_free(quoted);
    json_decref(s);
}

/* "https://hub/owner/model" -> "owner/model", which is what the field base_model holds. */
static struct str repository(struct str url)
{
    size_t slashes = 0, at = url.n;
    while (at > 0 && (url.s[at - 1] != '/' || ++slashes < 2)) at--;
    return slashes < 2 ? url : (struct str){ url.s + at, url.n - at };
}

static struct str base_model(const struct card *card)
{
    const struct str url = text_of(card, "general.base_model.0.repo_url");
    return url.n ? repository(url) : text_of(card, "general.base_model.0.name");
}

/* Text in the body: one line, without what Markdown or HTML would act on. */
static const char *plain(struct err_text *t, struct str s)
{
    err_printable(t->s, sizeof t->s, s.s, s.n);
    for (char *p = t->s; *p; p++)
        if (strchr("<>|`[]*\\", *p)) *p = ' ';
    return t->s;
}
#define PLAIN(s) plain(&(struct err_text){ { 0 } }, (s))

static void put_front_matter(struct card *card, const char *format)
{
    const struct str base = base_model(card);
    put(card, "---\n");
    put_field(card, "base_model", base);
    if (base.n) put(card, "base_model_relation: quantized\n");
    put_field(card, "license", text_of(card, "general.license"));
    put_field(card, "license_link", text_of(card, "general.license.link"));
    put(card, "pipeline_tag: text-generation\n");
    put_field(card, "quantized_by", text_of(card, "general.quantized_by"));
    put(card, FMT("tags:\n- gguf\n- %s\n- masked-diffusion\n", format));
    put(card, FMT("- %s\n---\n", PLAIN(text_of(card, "general.architecture"))));
}

static void put_body(struct card *card, const struct card_facts *f, const char *format)
{
    const char *file = file_name(card->c->path);
    const struct str shown = str_of(file), name = text_of(card, "general.name");
    put(card, FMT("# %s\n\n", PLAIN(name.n ? name : shown)));
    put(card, "A masked-diffusion language model in GGUF, quantized by `unmask quantize`.\n\n"
        "| file | format | size | weights' relative error |\n|---|---|---|---|\n");
    put(card, FMT("| `%s`", PLAIN(shown)));
    if (f->n_files > 1) put(card, FMT(" and %zu more", f->n_files - 1));
    put(card, FMT(" | %s | %s | %.2g |\n\n", format, SIZE(f->bytes), f->relative_error));
    const struct str method = text_of(card, "unmask.quantize.method"), source = text_of(card, "unmask.calibration.source");
    if (method.n) put(card, FMT("Rounding: by %s%s%s.\n\n", PLAIN(method), source.n ? " on " : "", PLAIN(source)));
    put(card, "The metadata hold a SHA-256 of every tensor; `unmask verify` checks them.\n\n```\n");
    put(card, FMT("unmask run -m %s \"...\"\nunmask verify %s\n```\n", PLAIN(shown), PLAIN(shown)));
}

bool card_write(struct outfile *o, const char *model, const struct card_facts *facts, struct unmask_err *err)
{
    struct checkpoint *c;
    const char *format = ENCODING(facts->format);
    if (!checkpoint_open(&c, model, err)) return false;
    struct card card = { .o = o, .c = c, .err = err, .ok = true };
    put_front_matter(&card, format);
    put_body(&card, facts, format);
    checkpoint_close(c);
    return card.ok;
}
