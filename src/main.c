/* main.c - the table of commands; start, and how a command's end becomes an exit code. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"
#include "mem.h"
#include "reuse.h"

static const struct command *const commands[] = {
    &cmd_run,
    &cmd_chat,
    &cmd_infill,
    &cmd_quantize,
    &cmd_inspect,
    &cmd_verify,
    &cmd_plan,
    &cmd_forward,
    &cmd_eval,
    &cmd_tokenize,
    &cmd_detokenize,
    &cmd_bench,
    &cmd_version,
    NULL
};

static void help(FILE *out)
{
    fputs("Unmask runs masked-diffusion language models on this computer's CPU.\n\n"
          "  unmask run \"turn on the kitchen light\"               one answer of the embedded model\n"
          "  unmask chat -m model.gguf                            a conversation\n"
          "  unmask infill \"Tom had a [[4]] and was [[2]].\"        fill holes, with text on both sides\n"
          "  unmask quantize FOLDER model-q8_0.gguf q8_0          make a checkpoint small\n\nCommands:\n", out);
    for (const struct command *const *c = commands; *c; c++) fprintf(out, "  %-12s %s\n", (*c)->name, (*c)->summary);
    fputs("\n`unmask COMMAND -h` tells more.\n", out);
}

/* The settings of --reuse, whose names stand behind a profile's. */
static void knobs_help(FILE *out)
{
    fputs("\nProfiles of --reuse, and knobs that change them, as in --reuse balanced,candidates=16,left=24:\n", out);
    for (const struct reuse_profile *p = reuse_profiles; p->name; p++) fprintf(out, "  %-14s %s\n", p->name, p->what);
    for (const struct reuse_knob *k = reuse_knobs; k->name; k++) fprintf(out, "  %-12s=N %s\n", k->name, k->what);
}

static void command_help(FILE *out, const struct command *c)
{
    fprintf(out, "%s\n\n%s\nUsage: unmask %s\n\n", c->summary, c->examples, c->synopsis);
    options_help(out, c->bit);
    if (c->bit & CMD_GENERATES) knobs_help(out);
}

static const struct command *find(const char *name)
{
    for (const struct command *const *c = commands; *c; c++)
        if (!strcmp((*c)->name, name)) return *c;
    return NULL;
}

static const struct unmask_err *unknown_command(const char *name, struct unmask_err *err)
{
    const char *words[sizeof commands / sizeof *commands + 1] = { NULL };
    for (int i = 0; commands[i]; i++) words[i] = commands[i]->name;
    const char *near = nearest_word(name, words);
    fail(err, E_CLI_COMMAND, .field = QUOTE(name, strlen(name)),
         .hint = near ? FMT("Did you mean `unmask %s`?", near) : "`unmask help` lists the commands");
    return err;
}

static int report(const struct unmask_err *err, bool json)
{
    if (err->status == UNMASK_ECANCELLED) return term_signal() ? 128 + term_signal() : UNMASK_ECANCELLED;
    cmd_print_error(err, json);
    return (int)err->status;
}

/* What was printed must have arrived; a reader that went away wanted no more. */
static int finish(int status, bool json)
{
    errno = 0;
    bool ok = fflush(stdout) == 0;
    int why = errno;
    if (ok && !ferror(stdout)) return status;
    if (ok && write(STDOUT_FILENO, "\n", 1) < 0) why = errno;          /* it failed before: once more, to learn why */
    if (why == EPIPE) return status;
    struct unmask_err err;
    fail(&err, E_CLI_WRITE, .found = why ? ERRNO(why) : "an error");
    return report(&err, json);
}

/* Known before the flags are read, for what is wrong with them. */
static bool asks_for_json(int argc, char **argv)
{
    bool json = false;
    for (int i = 2; i < argc && strcmp(argv[i], "--"); i++)
        if (!strcmp(argv[i], "--json") || !strncmp(argv[i], "--json=", 7)) json = strcmp(argv[i], "--json=false") != 0;
    return json;
}

static bool is_help(const char *word) { return !strcmp(word, "-h") || !strcmp(word, "--help"); }

/* `unmask help COMMAND`; a word that is none is an error unless a flag asked for help. */
static int help_on(const char *word, bool by_flag, bool json)
{
    struct unmask_err err;
    const struct command *c = find(word);
    if (!c && !by_flag && !is_help(word) && strcmp(word, "help")) return report(unknown_command(word, &err), json);
    if (c) command_help(stdout, c);
    else help(stdout);
    return 0;
}

static int run(int argc, char **argv, bool json)
{
    struct unmask_err err;
    if (argc < 2) {
        help(stderr);
        return UNMASK_EUSAGE;
    }
    const char *name = argv[1];
    const bool version = !strcmp(name, "--version") || (argc > 2 && !strcmp(name, "help") && !strcmp(argv[2], "--version"));
    const struct command *c = version ? &cmd_version : find(name);
    bool by_flag = false;
    for (int i = 1; !c && i < argc; i++) by_flag |= is_help(argv[i]);
    if (!c && (by_flag || !strcmp(name, "help"))) return help_on(argc > 2 ? argv[2] : "help", by_flag, json);
    if (!c) return report(unknown_command(name, &err), json);
    struct settings s;
    struct term t;
    struct arena arena = { NULL };
    int status = 0;
    if (!settings_open(&s, &arena, c->bit, c->name, argc - 2, argv + 2, &err)) status = report(&err, json);
    else if (s.help) command_help(stdout, c);
    else {
        term_init(&t, &s);
        if (s.verbose) options_notes(&s, stderr);
        if (!(s.version ? &cmd_version : c)->run(&s, &t, &err)) {
            settings_blame(&s, &err);
            status = report(&err, json);
        }
    }
    arena_free(&arena);
    return status;
}

int main(int argc, char **argv)
{
    /* A closed standard stream must not become somebody else's file.  Opened the wrong way round, it fails as a closed one does. */
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd) return UNMASK_EIO;
    term_catch_signals();
    const bool json = asks_for_json(argc, argv);
    return finish(run(argc, argv, json), json);
}
