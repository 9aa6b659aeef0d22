/* options.c - see options.h. */
#include "options.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "mem.h"
#include "configfile.h"
#include "datafiles.h"

#define SYSTEM_CONFIG "/etc/unmask/config.yaml"

enum option_type { SIZE, FLAG, ONOFF, INT, REAL, SEED, TEXT, CHOICE, LIST };

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

static const struct settings defaults = { .isa = "auto", .early_stop = true, .mc = 128, .calibrate_tokens = 32768, .logit_rows = 32 };

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

/* m * 10^e: rounded once when both factors are exact (m < 2^53, |e| <= 22). */
static double scale10(double m, int e)
{
    static const double power[] = { 1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
                                    1e17, 1e18, 1e19, 1e20, 1e21, 1e22 };
    for (; e > 22 && m <= 1e300; e -= 22) m *= power[22];
    for (; e < -22 && m > 0; e += 22) m /= power[22];
    return m == 0 || m > 1e300 ? m : e >= 0 ? m * power[e] : m / power[-e];
}

/* Up to 15 digits are rounded correctly; with more the double is off by two units in the last place at most, so that a float comes
 * back from whatever it was printed as. */
bool parse_real(const char *text, double min, double max, double *v)
{
    enum { DIGITS = 17, FAR = 10000 };
    const bool minus = *text == '-';
    uint64_t m = 0;
    int e = 0, digits = 0, exponent = 0;
    bool any = false, point = false;
    const char *p = text + minus;
    for (; (*p >= '0' && *p <= '9') || (*p == '.' && !point); p++) {
        if (*p == '.') { point = true; continue; }
        any = true;
        if (digits < DIGITS) {
            m = m * 10 + (uint64_t)(*p - '0');
            digits += m > 0;
            e -= point;
        } else e += !point && e < FAR;          /* digits that a double cannot hold */
    }
    if (!any) return false;
    if (*p == 'e' || *p == 'E') {
        const bool down = *++p == '-';
        p += *p == '-' || *p == '+';
        if (*p < '0' || *p > '9') return false;
        for (; *p >= '0' && *p <= '9'; p++) if (exponent < FAR) exponent = exponent * 10 + (*p - '0');
        e += down ? -exponent : exponent;
    }
    const double x = (minus ? -1 : 1) * scale10((double)m, e);
    if (*p || !(x >= min && x <= max)) return false;
    *v = x;
    return true;
}

static bool parse_seed(const char *text, uint64_t *v)
{
    if (!strcmp(text, "-1")) {                  /* random: from the system */
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

bool parse_size(const char *text, int power, uint64_t *v)
{
    static const char units[] = "KMGT";
    char number[32];
    double x;
    const size_t n = strspn(text, "0123456789.");
    if (n == 0 || n >= sizeof number) return false;
    memcpy(number, text, n);
    number[n] = 0;
    if (!parse_real(number, 0, 1e15, &x)) return false;
    text += n;
    if (!strcmp(text, "%")) {
        *v = (uint64_t)x;
        return x >= 1 && x <= 100 && x == (double)*v;
    }
    const char *unit = *text ? strchr(units, *text >= 'a' && *text <= 'z' ? *text - 32 : *text) : NULL;
    const bool decimal = unit && !strcmp(text + 1, "B"), binary = unit && !strcmp(text + 1, "iB");
    if (*text && (!unit || (text[1] && !decimal && !binary))) return false;
    for (const char *u = units; unit && u <= unit; u++) x *= decimal ? 1000 : binary ? 1024 : power;
    if (x <= 100 || x >= 1e18) return false;
    *v = (uint64_t)x;
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

/* Letters to insert, remove, change, or swap with their neighbour; a large number for words that are long. */
static int distance(const char *a, const char *b)
{
    enum { MOST = 48 };
    const size_t na = strlen(a), nb = strlen(b);
    int rows[3][MOST + 1];                      /* rows i - 2, i - 1 and i of the table, by i % 3 */
    if (na > MOST || nb > MOST) return MOST;
    for (size_t i = 0; i <= na; i++)
        for (size_t j = 0; j <= nb; j++) {
            int *to = &rows[i % 3][j];
            if (i == 0 || j == 0) { *to = (int)(i + j); continue; }
            const int *up = rows[(i + 2) % 3], left = rows[i % 3][j - 1];
            *to = up[j - 1] + (a[i - 1] != b[j - 1]);
            if (up[j] + 1 < *to) *to = up[j] + 1;
            if (left + 1 < *to) *to = left + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && rows[(i + 1) % 3][j - 2] + 1 < *to)
                *to = rows[(i + 1) % 3][j - 2] + 1;
        }
    return rows[na % 3][nb];
}

const char *nearest_word(const char *word, const char *const *words)
{
    const size_t n = strlen(word);
    const char *best = NULL;
    int least = n < 4 ? 4 : n < 9 ? 6 : 8;      /* twice the edits, so that half a step can prefer a word that goes on */
    for (; *words; words++) {
        const int d = 2 * distance(word, *words) + (strncmp(word, *words, n) != 0);
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

static const char *need_of(const struct option *o, enum origin from, struct err_text *t)
{
    switch (o->type) {
    case FLAG: return from == FROM_ENVIRONMENT ? "true or false, or 1 or 0" : "true or false";
    case ONOFF: return from == FROM_YAML ? "true or false" : "on or off";
    case INT:
        return err_fmt(t, "a whole number from %.0f to %.0f%s%s", o->min, o->max, o->choices ? ", or " : "", o->choices ? o->choices : "");
    case REAL: return err_fmt(t, "a number from %g to %g", o->min, o->max);
    case SIZE: return "a size such as 900M or 1.5G, or 1% to 100%";
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

/* What a LIST option, a flag alone, fills. */
struct list { const char **texts; int *n, most; };

static struct list list_of(struct settings *s, const struct option *o)
{
    return o == &options[OPT_SET] ? (struct list){ s->set, &s->n_set, MAX_SET }
         : o == &options[OPT_KEEP] ? (struct list){ s->keep, &s->n_keep, MAX_KEEP }
         : (struct list){ s->stop, &s->n_stop, MAX_STOPS };
}

/* true or false, as YAML 1.2 says; elsewhere on or off where an option wants them, and 1 or 0 as variables of the environment do. */
static bool parse_bool(const char *text, bool on_off, enum origin from, bool *v)
{
    const bool word = on_off && from != FROM_YAML, digit = from == FROM_ENVIRONMENT;
    *v = !strcmp(text, "true") || (word && !strcmp(text, "on")) || (digit && !strcmp(text, "1"));
    return *v || !strcmp(text, "false") || (word && !strcmp(text, "off")) || (digit && !strcmp(text, "0"));
}

/* A plain number is bytes, and so few of them were meant to be another unit's. */
static bool parse_memory(const char *text, uint64_t *v)
{
    const bool plain = text[strspn(text, "0123456789.")] == 0;
    return parse_size(text, 1024, v) && (!plain || *v >= 1 << 20);
}

/* Store text as the option's value; false: it is not one. */
static bool store(struct settings *s, const struct option *o, const char *text, enum origin from, struct unmask_err *err)
{
    char *member = (char *)s + o->offset;
    int64_t i;
    int choice;
    switch (o->type) {
    case FLAG:
    case ONOFF: return parse_bool(text, o->type == ONOFF, from, (bool *)member);
    case INT:
        if (o->choices && !strcmp(text, o->choices)) i = 0;
        else if (!parse_int(text, (int64_t)o->min, (int64_t)o->max, &i)) return false;
        *(int *)(void *)member = (int)i;
        return true;
    case REAL: return parse_real(text, o->min, o->max, (double *)(void *)member);
    case SIZE: return parse_memory(text, (uint64_t *)(void *)member);
    case SEED:
        s->seed_drawn = !strcmp(text, "-1");
        return parse_seed(text, (uint64_t *)(void *)member);
    case CHOICE:
        if ((choice = choice_of(o->choices, text)) < 0) return false;
        *(int *)(void *)member = o == &options[OPT_COLOR] && choice > OFF ? choice - 2 : choice;      /* always is on, never off */
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

static const char *const not_a_value[] = {
    [FROM_YAML] = "not a value of this key", [FROM_ENVIRONMENT] = "not a value of this environment variable",
    [FROM_FLAG] = "not a value of this flag"
};

static bool set(struct settings *s, int id, const char *text, enum origin from, const char *file, const char *name, struct unmask_err *err)
{
    const struct option *o = &options[id];
    struct settings unused = *s;                /* what a stronger source overrides must be a value too */
    const bool counts = from >= s->origin[id];
    if (!store(counts ? s : &unused, o, text, from, err)) {
        struct err_text need;
        return fail(err, from == FROM_YAML ? E_YAML_VALUE : E_CLI_VALUE, .file = file,
                    .what = not_a_value[from], .field = name, .found = *text ? QUOTE(text, strlen(text)) : "nothing",
                    .need = o->type == LIST ? FMT("at most %d texts of %.0f to %.0f bytes", list_of(s, o).most, o->min, o->max)
                                            : need_of(o, from, &need));
    }
    if (!counts) return true;
    s->origin[id] = from;
    s->file[id] = file;
    return (s->place[id] = arena_strndup(s->arena, name, strlen(name), err)) != NULL;
}

/* ---- sources ---- */

static bool is_section(const char *word)
{
    const size_t n = strlen(word);
    for (int i = 0; i < OPT_COUNT; i++)
        if (options[i].key && !strncmp(options[i].key, word, n) && options[i].key[n] == '.') return true;
    return false;
}

struct yaml_source { struct settings *s; const char *path; };

static bool set_from_yaml(void *user, const struct yaml_value *v, struct unmask_err *err)
{
    const struct yaml_source *src = user;
    struct err_text where;
    err_fmt(&where, "%s, line %d, column %d", v->key, v->line, v->column);
    int id = 0;
    while (id < OPT_COUNT && (!options[id].key || strcmp(options[id].key, v->key))) id++;
    if (id < OPT_COUNT) {
        const enum option_type type = options[id].type;
        const bool null = !v->quoted && (!*v->text || !strcmp(v->text, "~") || !strcmp(v->text, "null"));
        if (v->empty_collection || null)
            return fail(err, E_YAML_VALUE, .file = src->path, .field = where.s, .found = "no value",
                        .hint = "Give it one or remove the line");
        if (v->in_list || (v->quoted && type != TEXT && type != CHOICE)) {
            struct err_text need;
            return fail(err, E_YAML_VALUE, .file = src->path, .field = where.s, .need = need_of(&options[id], FROM_YAML, &need),
                        .found = v->in_list ? "a list" : FMT("\"%s\" in quotes", QUOTE(v->text, strlen(v->text))));
        }
        return set(src->s, id, v->text, FROM_YAML, src->path, where.s, err);
    }
    if (is_section(v->key)) {
        if (!*v->text && !v->quoted) return true;                       /* all its lines are comments */
        return fail(err, E_YAML_VALUE, .file = src->path, .field = where.s, .found = QUOTE(v->text, strlen(v->text)),
                    .need = "keys below it");
    }
    const char *near = nearest_option(v->key, true, 0);
    return fail(err, E_YAML_UNKNOWN, .file = src->path, .field = where.s, .hint = near ? FMT("Did you mean `%s`?", near) : NULL);
}

/* A commit rule of a stronger source replaces what weaker ones say: `--steps 40` switches off a file's threshold, and a file the
 * rules of those that were read before it. */
static const enum option_id rules[] = { OPT_THRESHOLD, OPT_FACTOR, OPT_STEPS };
enum { N_RULES = sizeof rules / sizeof *rules };

static void rules_of_other_files_off(struct settings *s, const char *file)
{
    bool any = false;
    for (int i = 0; i < N_RULES; i++) any |= s->origin[rules[i]] == FROM_YAML && s->file[rules[i]] == file;
    for (int i = 0; i < N_RULES && any; i++)
        if (s->origin[rules[i]] == FROM_YAML && s->file[rules[i]] != file) s->origin[rules[i]] = FROM_DEFAULT;
}

static bool read_yaml(struct settings *s, const char *path, struct unmask_err *err)
{
    const char *kept = arena_strndup(s->arena, path, strlen(path), err);       /* settings name it */
    if (!kept || !yaml_read(path, set_from_yaml, &(struct yaml_source){ s, kept }, err)) return false;
    rules_of_other_files_off(s, kept);
    return true;
}

static bool exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0;
}

/* Names of the configurations that come with the program, each once. */
enum { MOST_INSTALLED = 64 };
struct installed { struct arena *arena; const char *names[MOST_INSTALLED + 1]; int n; };

static void add_installed(void *user, const char *name)
{
    struct installed *all = user;
    const char *shown = QUOTE(name, strlen(name));
    for (int i = 0; i < all->n; i++) if (!strcmp(all->names[i], shown)) return;
    const char *kept = all->n < MOST_INSTALLED ? arena_strndup(all->arena, shown, strlen(shown), NULL) : NULL;
    if (kept) all->names[all->n++] = kept;
}

static int by_name(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* There is no configuration of this name: tell which there are. */
static bool suggest_installed(const struct settings *s, const char *name, struct unmask_err *err)
{
    struct installed all = { .arena = s->arena };
    struct err_text list = { "" };
    datafile_list("configs", ".yaml", add_installed, &all);
    const char *near = nearest_word(name, all.names);
    qsort(all.names, (size_t)all.n, sizeof *all.names, by_name);
    for (int i = 0; i < all.n; i++) err_list(&list, all.names[i]);
    if (near) snprintf(err->hint, sizeof err->hint, "Did you mean `-c %s`?", near);
    else if (all.n) snprintf(err->hint, sizeof err->hint, "Installed are %s", list.s);
    return false;
}

/* -c NAME: ./NAME, ./NAME.yaml, or a configuration that comes with the program. */
static bool read_named(struct settings *s, const char *name, struct unmask_err *err)
{
    if (!*name)
        return fail(err, E_CLI_VALUE, .field = "--config", .found = "an empty name", .need = "a YAML file or the name of an installed one");
    for (int i = 0; i < 4; i++) {
        char path[1024], file[300];
        if (snprintf(file, sizeof file, "%s%s", name, i % 2 ? ".yaml" : "") >= (int)sizeof file) break;
        if (i < 2 ? exists(file) : !strchr(name, '/') && datafile_find("configs", file, path))
            return read_yaml(s, i < 2 ? file : path, err);
    }
    const bool bare = !exists(name) && !strchr(name, '/');
    return read_yaml(s, name, err) || (bare && suggest_installed(s, name, err));        /* opening it gives the sentence */
}

/* Later ones go first: the system's file, the user's, the one that a flag names. */
static bool read_files(struct settings *s, struct unmask_err *err)
{
    if (s->no_config && s->config)
        return fail(err, E_CLI_CONFLICT, .field = "--config, --no-config", .need = "one of them");
    if (s->no_config) return true;
    if (exists(SYSTEM_CONFIG) && !read_yaml(s, SYSTEM_CONFIG, err)) return false;
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
static const char *environment_name(struct err_text *t, int id)
{
    err_fmt(t, "UNMASK_%s", id == OPT_MODEL ? "MODEL" : options[id].key);
    for (char *p = t->s; *p; p++) *p = *p == '.' ? '_' : *p >= 'a' && *p <= 'z' ? (char)(*p - 32) : *p;
    return t->s;
}

static bool read_environment(struct settings *s, struct unmask_err *err)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        struct err_text name;
        const char *v = options[i].key ? getenv(environment_name(&name, i)) : NULL;
        if (v && *v && !set(s, i, v, FROM_ENVIRONMENT, NULL, name.s, err)) return false;
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

static bool unknown_flag(const struct settings *s, unsigned command, const char *flag, size_t n, struct unmask_err *err)
{
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)(n < 60 ? n : 60), flag);
    const char *near = nearest_option(word, false, command);
    const bool elsewhere = find_flag(CMD_ALL, flag, n) >= 0;
    return fail(err, E_CLI_FLAG, .field = QUOTE(flag, n),
                .hint = elsewhere ? FMT("It belongs to other commands; `unmask %s -h` lists the flags", s->command)
                        : near ? FMT("Did you mean %s? `unmask %s -h` lists the flags", near, s->command)
                        : FMT("`unmask %s -h` lists the flags; text that begins with - goes after --", s->command));
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
        int id = find_flag(command, argv[a], n);
        const bool attached = id < 0 && argv[a][1] != '-' && n > 2;             /* -t4 */
        if (attached && (id = find_flag(command, argv[a], 2)) >= 0 && options[id].type == FLAG) id = -1;
        if (id < 0) return unknown_flag(s, command, argv[a], n, err);
        const char *value = attached ? argv[a] + 2 : equals ? equals + 1
                          : options[id].type == FLAG ? "true" : a + 1 < argc ? argv[++a] : NULL;
        if (!value || (equals && !*value && options[id].type != TEXT))
            return fail(err, E_CLI_NO_VALUE, .field = options[id].flag, .need = options[id].arg ? options[id].arg : "true or false");
        if (!set(s, id, value, FROM_FLAG, NULL, options[id].flag, err)) return false;
        s->times[id]++;
    }
    return true;
}

static void weaker_rules_off(struct settings *s)
{
    enum origin strongest = FROM_DEFAULT;
    for (int i = 0; i < N_RULES; i++) if (s->origin[rules[i]] > strongest) strongest = s->origin[rules[i]];
    for (int i = 0; i < N_RULES; i++) if (s->origin[rules[i]] < strongest) s->origin[rules[i]] = FROM_DEFAULT;
    if (!s->origin[OPT_THRESHOLD]) s->threshold = 0;
    if (!s->origin[OPT_FACTOR]) s->factor = 0;
    if (!s->origin[OPT_STEPS]) s->steps = 0;
}

/* As whoever set it spelled it. */
static const char *spelling(const struct settings *s, enum option_id id, struct err_text *t)
{
    return s->origin[id] == FROM_YAML ? options[id].key : s->origin[id] == FROM_ENVIRONMENT ? environment_name(t, id) : options[id].flag;
}

static bool refuse_two_rules(const struct settings *s, struct unmask_err *err)
{
    struct err_text threshold, factor;
    return fail(err, E_CLI_CONFLICT, .file = s->file[OPT_FACTOR],
                .what = s->origin[OPT_FACTOR] == FROM_FLAG ? NULL : "settings that exclude each other",
                .field = FMT("%s, %s", spelling(s, OPT_THRESHOLD, &threshold), spelling(s, OPT_FACTOR, &factor)), .need = "one of them");
}

static bool check_conflicts(struct settings *s, struct unmask_err *err)
{
    weaker_rules_off(s);
    if (s->threshold > 0 && s->factor > 0) return refuse_two_rules(s, err);
    if (s->verbose && s->quiet) return fail(err, E_CLI_CONFLICT, .field = "--verbose, --quiet", .need = "one of them");
    if (s->raw && s->system && s->origin[OPT_SYSTEM] == FROM_FLAG)
        return fail(err, E_CLI_CONFLICT, .field = "--raw, --system", .need = "one of them",
                    .hint = "A system message needs the chat template");
    if (s->prompt && s->prompt_ids) return fail(err, E_CLI_CONFLICT, .field = "--prompt, --prompt-ids", .need = "one of them");
    return true;
}

/* --fill N is one of the knobs of --reuse. */
static bool fill_reuse(struct settings *s, struct unmask_err *err)
{
    if (!s->fill) return true;
    const char *reuse = s->reuse ? s->reuse : "exact";
    const size_t size = strlen(reuse) + sizeof ",fill=65536";
    char *text = arena_alloc(s->arena, size, err);
    if (text) snprintf(text, size, "%s,fill=%d", reuse, s->fill);
    return (s->reuse = text) != NULL;
}

bool settings_open(struct settings *s, struct arena *arena, unsigned command_bit, const char *command,
                   int argc, char **argv, struct unmask_err *err)
{
    *s = defaults;
    s->arena = arena;
    s->command = command;
    for (int i = 0; i < argc && strcmp(argv[i], "--"); i++)         /* help is given whatever else is wrong */
        if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) return (s->help = true);
    if (!read_flags(s, command_bit, argc, argv, err)) return false;
    if (s->help || s->version || command_bit == CMD_VERSION) return true;      /* of use where a file or the environment is broken, too */
    return read_files(s, err) && read_environment(s, err) && check_conflicts(s, err) && fill_reuse(s, err);
}

/* ---- errors that only the work with a value shows ---- */

/* The option that the engine calls so: its key's last word. */
static int option_of_parameter(const char *name, size_t n)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const char *last = options[i].key ? strrchr(options[i].key, '.') + 1 : "";
        if (strlen(last) == n && !memcmp(last, name, n)) return i;
    }
    return -1;
}

/* The setting whose value an error refuses; -1: none. */
static int refused_setting(const struct settings *s, const struct unmask_err *err)
{
    const int id = err->file[0] ? -1 : err_is(err, E_GEN_VALUE) ? option_of_parameter(err->field, strcspn(err->field, ","))
                 : err_is(err, E_CLI_VALUE) && !strcmp(err->field, options[OPT_MODEL].flag) ? OPT_MODEL : -1;
    return id >= 0 && s->origin[id] != FROM_DEFAULT ? id : -1;
}

/* The error names a file of the model and no place in it, and no flag named the model. */
static bool about_model(const struct settings *s, const struct unmask_err *err)
{
    return s->origin[OPT_MODEL] != FROM_DEFAULT && s->origin[OPT_MODEL] != FROM_FLAG && *s->model && !err->field[0] && !err->has_offset
        && !strncmp(err->file, s->model, strlen(s->model));
}

void settings_blame(const struct settings *s, struct unmask_err *err)
{
    const struct unmask_err was = *err;
    const int id = refused_setting(s, err);
    if (id >= 0)
        fail(err, err_is(&was, E_GEN_VALUE) ? E_GEN_VALUE : E_CLI_VALUE, .file = s->file[id], .what = not_a_value[s->origin[id]],
             .field = FMT("%s%s", s->place[id], was.field + strcspn(was.field, ",")), .found = was.found, .need = was.need,
             .hint = was.hint);
    else if (about_model(s, err)) {
        const char *file = s->file[OPT_MODEL];
        snprintf(err->field, sizeof err->field, "%s%s%s", s->place[OPT_MODEL], file ? " of " : "", file ? QUOTE(file, strlen(file)) : "");
    }
}

void options_notes(const struct settings *s, FILE *out)
{
    for (int i = 0; i < OPT_COUNT; i++)
        if (s->times[i] > 1 && options[i].type != LIST)
            fprintf(out, "unmask: note: %s was given %d times; the last one counts\n", options[i].flag, s->times[i]);
    if (s->origin[OPT_STEPS] == FROM_FLAG && (s->threshold > 0 || s->factor > 0))
        fprintf(out, "unmask: note: --steps plays no role beside %s\n", s->threshold > 0 ? "--threshold" : "--factor");
}

void options_help(FILE *out, unsigned command_bit)
{
    for (int i = 0; i < OPT_COUNT; i++) {
        const struct option *o = &options[i];
        if (!(o->commands & command_bit)) continue;
        char left[64];
        const bool is_short = o->aliases[0] == '-' && o->aliases[1] != '-' && (o->aliases[2] == 0 || o->aliases[2] == ',');
        snprintf(left, sizeof left, "%.2s%s%s%s%s",
                 is_short ? o->aliases : "", is_short ? ", " : "    ", o->flag, o->arg ? " " : "", o->arg ? o->arg : "");
        fprintf(out, "  %-32s %s%s%s%s\n", left, o->help, o->key ? "  [" : "", o->key ? o->key : "", o->key ? "]" : "");
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
    o->reuse = s->reuse;
    o->store = s->store;
}
