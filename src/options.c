/* options.c - see options.h. */
#include "options.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "mem.h"
#include "configfile.h"

enum option_type { FLAG, ONOFF, INT, REAL, SEED, TEXT, CHOICE, LIST };

struct option {
    const char *flag, *aliases, *key;
    enum option_type type;
    size_t offset;
    double min, max;
    const char *choices;
    unsigned commands;
    const char *arg, *help;
};

static const struct option options[OPT_COUNT] = {
#define X(id, flag, aliases, key, type, member, min, max, choices, commands, arg, help) \
    [OPT_##id] = { flag, aliases, key, type, offsetof(struct settings, member), min, max, choices, commands, arg, help },
#include "options.def"
#undef X
};

static const struct settings defaults = { .isa = "auto", .early_stop = true, .mc = 128 };

/* ---- strict numbers ---- */

bool parse_int(const char *text, int64_t min, int64_t max, int64_t *v)
{
    const bool minus = *text == '-';
    const char *p = text + minus;
    uint64_t u = 0;
    if (!*p) return false;
    for (; *p; p++)
        if (*p < '0' || *p > '9' || !u64_mul(u, 10, &u) || !u64_add(u, (uint64_t)(*p - '0'), &u)) return false;
    if (u > (uint64_t)INT64_MAX) return false;
    const int64_t x = minus ? -(int64_t)u : (int64_t)u;
    if (x < min || x > max) return false;
    *v = x;
    return true;
}

bool parse_real(const char *text, double min, double max, double *v)
{
    const char *p = text + (*text == '-' || *text == '+');
    double x = 0, scale = 1;
    int digits = 0, exponent = 0;
    for (; *p >= '0' && *p <= '9'; p++, digits++) x = x * 10 + (*p - '0');
    if (*p == '.')
        for (p++; *p >= '0' && *p <= '9'; p++, digits++) {
            x = x * 10 + (*p - '0');
            scale *= 10;
        }
    if (digits == 0 || digits > 15) return false;
    if (*p == 'e' || *p == 'E') {
        const char *sign = ++p;
        if (*p == '-' || *p == '+') p++;
        if (*p < '0' || *p > '9') return false;
        for (; *p >= '0' && *p <= '9' && exponent < 1000; p++) exponent = exponent * 10 + (*p - '0');
        if (*sign == '-') exponent = -exponent;
    }
    if (*p || exponent > 30 || exponent < -30) return false;
    x /= scale;
    for (; exponent > 0; exponent--) x *= 10;
    for (; exponent < 0; exponent++) x /= 10;
    if (*text == '-') x = -x;
    if (!(x >= min && x <= max)) return false;
    *v = x;
    return true;
}

static bool parse_seed(const char *text, uint64_t *v)
{
    if (!strcmp(text, "-1")) {                  /* random: from the system, and reported with -v and --json */
        FILE *f = fopen("/dev/urandom", "rb");
        const bool ok = f && fread(v, sizeof *v, 1, f) == 1;
        if (f) fclose(f);
        *v &= INT64_MAX;
        return ok;
    }
    uint64_t u = 0;
    if (!*text) return false;
    for (; *text; text++)
        if (*text < '0' || *text > '9' || !u64_mul(u, 10, &u) || !u64_add(u, (uint64_t)(*text - '0'), &u)) return false;
    *v = u;
    return true;
}

bool parse_ids(const char *text, const char *flag, int32_t **ids, size_t *n, struct unmask_err *err)
{
    for (const char *p = text; *p; ) {
        if (*p == ',' || *p == ' ' || *p == '\t' || *p == '\n' || *p == '\r') {
            p++;
            continue;
        }
        char word[16];
        int64_t id;
        const size_t len = strcspn(p, ", \t\n\r");
        if (len < sizeof word) {
            memcpy(word, p, len);
            word[len] = 0;
        }
        if (len >= sizeof word || !parse_int(word, 0, INT32_MAX, &id))
            return fail(err, E_CLI_VALUE, .field = flag, .found = QUOTE(p, len), .need = "token ids separated by commas, like 3,17,42");
        int32_t *grown = mem_resize(*ids, *n + 1, sizeof **ids, err);
        if (!grown) return false;
        *ids = grown;
        grown[(*n)++] = (int32_t)id;
        p += len;
    }
    return true;
}

/* ---- suggestions ---- */

static int distance(const char *a, const char *b)
{
    enum { MOST = 40 };
    const size_t na = strlen(a), nb = strlen(b);
    int row[MOST + 1];
    if (na > MOST || nb > MOST) return MOST;
    for (size_t j = 0; j <= nb; j++) row[j] = (int)j;
    for (size_t i = 1; i <= na; i++) {
        int diagonal = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= nb; j++) {
            const int up = row[j], replace = diagonal + (a[i - 1] != b[j - 1]);
            int best = up + 1 < row[j - 1] + 1 ? up + 1 : row[j - 1] + 1;
            if (replace < best) best = replace;
            diagonal = up;
            row[j] = best;
        }
    }
    return row[nb];
}

const char *nearest_word(const char *word, const char *const *words)
{
    const char *best = NULL;
    int least = 3;
    for (; *words; words++) {
        const int d = distance(word, *words);
        if (d < least) {
            least = d;
            best = *words;
        }
    }
    return best;
}

static const char *nearest_option(const char *word, bool keys, unsigned command)
{
    const char *words[OPT_COUNT + 1];
    int n = 0;
    for (int i = 0; i < OPT_COUNT; i++)
        if (keys ? options[i].key != NULL : (options[i].commands & command) != 0) words[n++] = keys ? options[i].key : options[i].flag;
    words[n] = NULL;
    const char *found = nearest_word(word, words);
    for (int i = 0; keys && !found && i < n; i++) {             /* the right key in the wrong section */
        const char *a = strrchr(word, '.'), *b = strrchr(words[i], '.');
        if (distance(a ? a + 1 : word, b ? b + 1 : words[i]) < 2) found = words[i];
    }
    return found;
}

/* ---- one value ---- */

static const char *need_of(const struct option *o, struct err_text *t)
{
    switch (o->type) {
    case FLAG: return "true or false";
    case ONOFF: return "on or off";
    case INT: return err_fmt(t, "a whole number from %.0f to %.0f", o->min, o->max);
    case REAL: return err_fmt(t, "a number from %g to %g", o->min, o->max);
    case SEED: return "a whole number from 0 to 18446744073709551615, or -1 for a random one";
    case CHOICE: return err_fmt(t, "one of %s", o->choices);
    default: return err_fmt(t, "text");
    }
}

static int choice_of(const char *choices, const char *text)
{
    const size_t n = strlen(text);
    int i = 0;
    for (const char *p = choices; ; p = strchr(p, '|') + 1, i++) {
        if (strcspn(p, "|") == n && !memcmp(p, text, n)) return i;
        if (!strchr(p, '|')) return -1;
    }
}

/* What a LIST option fills. */
struct list { const char **texts; int *n, most; };

static struct list list_of(struct settings *s, const struct option *o)
{
    return o == &options[OPT_SET] ? (struct list){ s->set, &s->n_set, MAX_SET } : (struct list){ s->stop, &s->n_stop, MAX_STOPS };
}

/* Store text as the option's value; false: it is not one. */
static bool store(struct settings *s, const struct option *o, const char *text, struct unmask_err *err)
{
    char *member = (char *)s + o->offset;
    int64_t i;
    int choice;
    switch (o->type) {
    case FLAG:
    case ONOFF: {
        const char *yes = o->type == FLAG ? "true" : "on", *no = o->type == FLAG ? "false" : "off";
        const bool on = !strcmp(text, yes) || !strcmp(text, "true");
        if (!on && strcmp(text, no) && strcmp(text, "false")) return false;
        *(bool *)member = on;
        return true;
    }
    case INT:
        if (!parse_int(text, (int64_t)o->min, (int64_t)o->max, &i)) return false;
        *(int *)(void *)member = (int)i;
        return true;
    case REAL: return parse_real(text, o->min, o->max, (double *)(void *)member);
    case SEED: return parse_seed(text, (uint64_t *)(void *)member);
    case CHOICE:
        if ((choice = choice_of(o->choices, text)) < 0) return false;
        *(int *)(void *)member = choice;
        return true;
    case LIST: {
        const struct list list = list_of(s, o);
        if (strlen(text) < (size_t)o->min || strlen(text) > (size_t)o->max || *list.n == list.most) return false;
        return (list.texts[(*list.n)++] = arena_strndup(s->arena, text, strlen(text), err));
    }
    case TEXT: return (*(const char **)(void *)member = arena_strndup(s->arena, text, strlen(text), err));
    }
    return false;
}

static bool set(struct settings *s, int id, const char *text, enum origin from, const char *file, const char *name, struct unmask_err *err)
{
    const struct option *o = &options[id];
    if (from < s->origin[id]) return true;
    if (o->type == LIST && from > s->origin[id]) *list_of(s, o).n = 0;
    if (!store(s, o, text, err)) {
        struct err_text need;
        return fail(err, from == FROM_YAML ? E_YAML_VALUE : E_CLI_VALUE, .file = file, .field = name, .found = *text ? QUOTE(text, strlen(text)) : "nothing",
                    .need = o->type == LIST ? FMT("at most %d texts of %.0f to %.0f bytes", list_of(s, o).most, o->min, o->max) : need_of(o, &need));
    }
    s->origin[id] = from;
    return true;
}

/* ---- sources ---- */

struct yaml_source { struct settings *s; const char *path; };

static bool set_from_yaml(void *user, const struct yaml_value *v, struct unmask_err *err)
{
    const struct yaml_source *src = user;
    struct err_text where;
    err_fmt(&where, "%s, line %d, column %d", v->key, v->line, v->column);
    for (int i = 0; i < OPT_COUNT; i++)
        if (options[i].key && !strcmp(options[i].key, v->key)) return set(src->s, i, v->text, FROM_YAML, src->path, where.s, err);
    const char *near = nearest_option(v->key, true, 0);
    return fail(err, E_YAML_UNKNOWN, .file = src->path, .field = where.s, .hint = near ? FMT("Did you mean `%s`?", near) : NULL);
}

static bool read_yaml(struct settings *s, const char *path, struct unmask_err *err)
{
    return yaml_read(path, set_from_yaml, &(struct yaml_source){ s, path }, err);
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* -c NAME: ./NAME, ./NAME.yaml, or those in the installed folder or in configs/ beside the build. */
static bool read_named(struct settings *s, const char *name, struct unmask_err *err)
{
    const char *const patterns[] = { "%s", "%s.yaml", DATADIR "/configs/%s", DATADIR "/configs/%s.yaml", "configs/%s", "configs/%s.yaml" };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        char path[1024];
        if (i >= 2 && strchr(name, '/')) break;
        if (snprintf(path, sizeof path, patterns[i], name) < (int)sizeof path && exists(path)) return read_yaml(s, path, err);
    }
    return read_yaml(s, name, err);
}

static bool read_files(struct settings *s, struct unmask_err *err)
{
    if (s->no_config) return true;
    char path[1024];
    const char *xdg = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");
    const bool named = xdg && *xdg;
    if (named || (home && *home)) {
        const int n = snprintf(path, sizeof path, "%s%s/unmask/config.yaml", named ? xdg : home, named ? "" : "/.config");
        if (n < (int)sizeof path && exists(path) && !read_yaml(s, path, err)) return false;
    }
    return !s->config || read_named(s, s->config, err);
}

/* UNMASK_ and the YAML key in capitals, "." as "_"; UNMASK_MODEL for the model. */
static bool read_environment(struct settings *s, struct unmask_err *err)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        if (!options[i].key) continue;
        char name[96];
        int n = snprintf(name, sizeof name, "UNMASK_%s", i == OPT_MODEL ? "MODEL" : options[i].key);
        for (char *p = name; *p && n > 0; p++) *p = *p == '.' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
        const char *v = getenv(name);
        if (v && *v && !set(s, i, v, FROM_ENVIRONMENT, NULL, name, err)) return false;
    }
    return true;
}

static bool spelled(const struct option *o, const char *flag, size_t n)
{
    if (strlen(o->flag) == n && !memcmp(o->flag, flag, n)) return true;
    for (const char *p = o->aliases; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, flag, n)) return true;
    return false;
}

static int find_flag(unsigned command, const char *flag, size_t n)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if ((options[i].commands & command) && spelled(&options[i], flag, n)) return i;
    return -1;
}

static bool is_flag(const char *arg) { return arg[0] == '-' && arg[1] && !(arg[1] >= '0' && arg[1] <= '9'); }

static bool read_flags(struct settings *s, unsigned command, int argc, char **argv, struct unmask_err *err)
{
    bool only_args = false;
    if (!(s->args = arena_alloc(s->arena, (size_t)(argc + 1) * sizeof *s->args, err))) return false;
    for (int a = 0; a < argc; a++) {
        if (only_args || !is_flag(argv[a])) {
            s->args[s->n_args++] = argv[a];
            continue;
        }
        if (!strcmp(argv[a], "--")) {
            only_args = true;
            continue;
        }
        const char *equals = argv[a][1] == '-' ? strchr(argv[a], '=') : NULL;
        const size_t n = equals ? (size_t)(equals - argv[a]) : strlen(argv[a]);
        const int id = find_flag(command, argv[a], n);
        if (id < 0) {
            char word[64];
            snprintf(word, sizeof word, "%.*s", (int)(n < 60 ? n : 60), argv[a]);
            const char *near = nearest_option(word, false, command);
            return fail(err, E_CLI_FLAG, .field = QUOTE(argv[a], n), .hint = near ? FMT("Did you mean %s? `unmask %s -h` lists the flags", near, s->command)
                                                                             : FMT("`unmask %s -h` lists the flags", s->command));
        }
        const char *value = equals ? equals + 1 : options[id].type == FLAG ? "true" : a + 1 < argc ? argv[++a] : NULL;
        if (!value || (equals && !*value && options[id].type != TEXT))
            return fail(err, E_CLI_NO_VALUE, .field = options[id].flag, .need = options[id].arg ? options[id].arg : "true or false");
        if (!set(s, id, value, FROM_FLAG, NULL, options[id].flag, err)) return false;
    }
    return true;
}

bool settings_open(struct settings *s, struct arena *arena, unsigned command_bit, const char *command, int argc, char **argv, struct unmask_err *err)
{
    *s = defaults;
    s->arena = arena;
    s->command = command;
    return read_flags(s, command_bit, argc, argv, err) && (s->help || s->version || (read_files(s, err) && read_environment(s, err)));
}

void options_help(FILE *out, unsigned command_bit)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option *o = &options[i];
        if (!(o->commands & command_bit)) continue;
        char left[64];
        const bool is_short = o->aliases[0] == '-' && o->aliases[1] != '-' && (o->aliases[2] == 0 || o->aliases[2] == ',');
        snprintf(left, sizeof left, "%s%s%s%s%s", is_short ? (const char[]){ o->aliases[0], o->aliases[1], 0 } : "", is_short ? ", " : "    ", o->flag,
                 o->arg ? " " : "", o->arg ? o->arg : "");
        fprintf(out, "  %-32s %s\n", left, o->help);
    }
}

void settings_generation(const struct settings *s, const struct unmask_model *m, struct unmask_options *o)
{
    unmask_options_default(m, o);
    if (s->origin[OPT_GEN_LENGTH]) o->gen_length = s->gen_length;
    if (s->origin[OPT_BLOCK_LENGTH]) o->block_length = s->block_length;
    /* A commit rule of the user's replaces the model's; --steps means the fixed schedule unless a rule is given too. */
    if (s->origin[OPT_THRESHOLD] || s->origin[OPT_FACTOR] || s->origin[OPT_STEPS]) {
        o->threshold = (float)s->threshold;
        o->factor = (float)s->factor;
        o->steps = s->steps;
    }
    o->remasking = s->remasking == 1 ? UNMASK_RANDOM : UNMASK_LOW_CONFIDENCE;
    o->temperature = (float)s->temperature;
    o->cfg_scale = (float)s->cfg_scale;
    o->logits_eos_inf = s->logits_eos_inf;
    o->confidence_eos_eot_inf = s->confidence_eos_eot_inf;
    o->early_stop = s->early_stop;
    o->seed = s->seed;
}
