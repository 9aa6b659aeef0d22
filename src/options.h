/* options.h - every setting of the program, in one table: flag, YAML key, environment variable, type, range, default, help.
 * A value comes from the flag, else the environment (UNMASK_SECTION_KEY), else a YAML file, else the default. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdio.h>

#include "err.h"

enum command_bit {
    CMD_RUN = 1, CMD_CHAT = 2, CMD_INFILL = 4, CMD_QUANTIZE = 8, CMD_INSPECT = 16, CMD_FORWARD = 32,
    CMD_TOKENIZE = 64, CMD_DETOKENIZE = 128,
    CMD_EVAL = 256, CMD_BENCH = 512, CMD_VERSION = 1024, CMD_VERIFY = 2048, CMD_PLAN = 4096,
    CMD_GENERATES = CMD_RUN | CMD_CHAT | CMD_INFILL | CMD_EVAL | CMD_PLAN,
    CMD_USES_MODEL = CMD_GENERATES | CMD_INSPECT | CMD_VERIFY | CMD_FORWARD | CMD_TOKENIZE | CMD_DETOKENIZE | CMD_BENCH,
    CMD_RUNS_MODEL = CMD_GENERATES | CMD_FORWARD | CMD_BENCH,
    CMD_ALL = 8191
};

enum option_id {
#define X(name, ...) OPT_##name,
#include "options.def"
#undef X
    OPT_COUNT
};

enum tristate { AUTO, ON, OFF };                /* --watch=auto|on|off */
enum { MAX_STOPS = 16, MAX_SET = 16, MAX_KEEP = 32 };

/* Where a value came from, lowest first. */
enum origin { FROM_DEFAULT, FROM_YAML, FROM_ENVIRONMENT, FROM_FLAG };

struct settings {
    const char *command;
    const char **args; int n_args;              /* positional arguments */
    enum origin origin[OPT_COUNT];
    const char *file[OPT_COUNT];                /* NULL: not from one */
    const char *place[OPT_COUNT];               /* key, line and column in it, else the environment variable or the flag */
    int times[OPT_COUNT];                       /* how often it was given as a flag */

    const char *model, *config;
    bool no_config;
    int threads;
    const char *isa;
    bool json, quiet;
    int verbose;                                /* 0 or 1 */
    int color, watch;                           /* enum tristate */

    const char *prompt, *system, *prompt_ids, *trace;
    const char *stop[MAX_STOPS]; int n_stop;
    bool raw, chat_template;

    int gen_length, block_length, steps, remasking;
    double temperature, cfg_scale, threshold, factor;
    bool logits_eos_inf, confidence_eos_eot_inf, early_stop;
    const char *reuse, *store;
    uint64_t memory;                            /* bytes; up to 100: per cent of what is available; 0: the default */
    int context, fill;
    uint64_t seed; bool seed_drawn;             /* after settings_open: never "random", but what was drawn */

    const char *ids, *logits, *hidden;          /* forward */
    bool special; const char *jsonl;            /* tokenize */
    const char *likelihood, *exact_match, *against, *compare, *data; int limit, mc;        /* eval */
    bool force;                                 /* quantize */
    bool dry_run, card; const char *report, *split_size;
    const char *set[MAX_SET], *keep[MAX_KEEP]; int n_set, n_keep;
    bool requantize, search; const char *calibrate, *imatrix, *save_imatrix; int calibrate_tokens;
    int layout;                                 /* 0 standard, 1 packed */
    bool show_tensors;                          /* inspect */
    bool strict;                                /* verify  */
    bool kernels; const char *tokens, *baseline, *make_model; int logit_rows;   /* bench */
    bool help, version;

    struct arena *arena;                        /* owns the strings */
};

/* Settings of `command` from everything that main() was given after it.  The strings live in arena. */
bool settings_open(struct settings *s, struct arena *arena, unsigned command_bit, const char *command,
                   int argc, char **argv, struct unmask_err *err);

/* The generation parameters: what the user set over what the model says. */
struct unmask_model;
void settings_generation(const struct settings *s, const struct unmask_model *m, struct unmask_options *o);

/* An error of a command that is about a setting's value, or about the model that one names, tells where the setting came from. */
void settings_blame(const struct settings *s, struct unmask_err *err);

/* What -v says about flags that were given more than once. */
void options_notes(const struct settings *s, FILE *out);
/* Print the flags that a command takes, from the table. */
void options_help(FILE *out, unsigned command_bit);

/* The word of a NULL-terminated list that is nearest to `word` (a few edits away, by its length, or NULL): for "did you mean". */
const char *nearest_word(const char *word, const char *const *words);

/* Strict numbers: the whole text, decimal, no locale. */
bool parse_int(const char *text, int64_t min, int64_t max, int64_t *v);
bool parse_real(const char *text, double min, double max, double *v);
/* Bytes, more than 100: a number with K, M, G or T, powers of `power` (KB, MB, ... are powers of 1000, KiB, ... of 1024);
 * or P%, as P. */
bool parse_size(const char *text, int power, uint64_t *v);
/* Ids separated by commas or white space, appended to *ids (mem_resize); false and E_CLI_VALUE for anything else. */
bool parse_ids(const char *text, const char *flag, int32_t **ids, size_t *n, struct unmask_err *err);

#endif
