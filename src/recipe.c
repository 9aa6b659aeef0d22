/* recipe.c - see recipe.h. */
#include "recipe.h"

#include <stdio.h>
#include <string.h>

#include "configfile.h"
#include "datafiles.h"
#include "mem.h"

enum { MAX_FILE_TYPE = 1023 };

struct source { struct recipe *r; const struct settings *s; const char *path; };

static const char *format_names(struct err_text *t)
{
    for (size_t i = 0; quant_formats[i]; i++) err_list(t, quant_formats[i]->name);
    return t->s;
}
#define FORMAT_NAMES format_names(&(struct err_text){ { 0 } })

/* "REGEX=FORMAT"; a pattern may hold '=' itself.  file: the recipe that it stands in, or NULL. */
static bool add_rule(struct recipe *r, const struct settings *s, const char *text, const char *file, bool more_bits, struct unmask_err *err)
{
    const char *eq = strrchr(text, '=');
    const struct quant_format *f = eq ? quant_format_by_name(eq + 1) : NULL;
    if (!f || eq == text)
        return fail(err, E_QNT_RULE, .file = file, .field = QUOTE(text, strlen(text)),
                    .found = !eq ? "no =" : eq == text ? "no pattern" : QUOTE(eq + 1, strlen(eq + 1)),
                    .need = FMT("REGEX=FORMAT, a format being one of %s", FORMAT_NAMES));
    if (r->n_rules == MAX_RULES) return fail(err, E_QNT_RULE, .file = file, .found = FMT("more than %d rules", MAX_RULES), .need = "fewer");
    char *pattern = arena_strndup(s->arena, text, (size_t)(eq - text), err);
    r->rules[r->n_rules++] = (struct quantize_rule){ .pattern = pattern, .to = f, .more_bits = more_bits, .required = !file };
    return pattern;
}

static bool take(void *user, const struct yaml_value *v, struct unmask_err *err)
{
    const struct source *src = user;
    struct recipe *r = src->r;
    const bool format = !strcmp(v->key, "format"), more_bits = !strcmp(v->key, "more_bits"), rules = more_bits || !strcmp(v->key, "rules");
    if (rules && v->in_list) return add_rule(r, src->s, v->text, src->path, more_bits, err);
    if (rules && v->empty_collection) return true;
    if (format && !v->in_list && (r->format = quant_format_by_name(v->text))) return true;
    if (!strcmp(v->key, "file_type") && !v->in_list && parse_int(v->text, 0, MAX_FILE_TYPE, &r->file_type)) return true;
    return fail(err, E_QNT_RECIPE, .file = src->path, .field = FMT("%s, line %d, column %d", v->key, v->line, v->column),
                .found = v->in_list ? "a list" : QUOTE(v->text, strlen(v->text)),
                .need = format ? FORMAT_NAMES : "format: NAME, file_type: NUMBER, and lists of REGEX=FORMAT under rules and more_bits");
}

/* The name of a recipe is that of its file. */
static void name_of_file(char name[64], const char *path)
{
    const char *base = file_name(path), *dot = strrchr(base, '.');
    snprintf(name, 64, "%.*s", (int)(dot ? dot - base : 60), base);
}

static bool find_file(const char *type, char path[1024])
{
    char file[80];
    size_t n = 0;
    const char *dot = strrchr(type, '.');
    if (strchr(type, '/') || (dot && !strcmp(dot, ".yaml"))) return snprintf(path, 1024, "%s", type) < 1024;
    for (; type[n] && n < 64; n++) file[n] = type[n] >= 'A' && type[n] <= 'Z' ? (char)(type[n] + 32) : type[n];
    memcpy(file + n, ".yaml", sizeof ".yaml");
    return !type[n] && datafile_find("configs/quant", file, path);
}

bool recipe_is_type(const char *text)
{
    char path[1024];
    return quant_format_by_name(text) || (!strchr(text, '/') && find_file(text, path));
}

bool recipe_read(struct recipe *r, const struct settings *s, const char *type, struct unmask_err *err)
{
    char path[1024];
    *r = (struct recipe){ .format = quant_format_by_name(type), .file_type = -1 };
    for (int i = 0; i < s->n_keep; i++)
        if (!add_rule(r, s, s->keep[i], NULL, false, err)) return false;
    if (r->format) snprintf(r->name, sizeof r->name, "%s", r->format->name);
    else {
        if (!find_file(type, path))
            return fail(err, E_QNT_FORMAT, .found = QUOTE(type, strlen(type)),
                        .need = FMT("%s, q4_k_m, or the path of a recipe (.yaml)", FORMAT_NAMES));
        name_of_file(r->name, path);
        if (!yaml_read(path, take, &(struct source){ r, s, path }, err)) return false;
        if (!r->format)
            return fail(err, E_QNT_RECIPE, .file = path, .found = "no format", .need = "format: NAME, for the matrices that no rule fits");
    }
    if (r->file_type < 0) r->file_type = r->format->gguf_file_type;
    return true;
}
