/* cmd.h - the subcommands.  Each returns true, or false with err set; main() prints the error and exits with its status. */
#ifndef CMD_H
#define CMD_H

#include "options.h"
#include "term.h"

struct command {
    const char *name;
    unsigned bit;
    bool (*run)(const struct settings *s, const struct term *t, struct unmask_err *err);
    const char *synopsis, *summary;
    const char *examples;       /* lines for the help text */
};

extern const struct command cmd_run, cmd_chat, cmd_infill, cmd_quantize, cmd_inspect, cmd_verify, cmd_plan, cmd_forward,
                            cmd_tokenize, cmd_detokenize, cmd_eval, cmd_bench, cmd_version;

/* The model that these settings name: --model, UNMASK_MODEL, YAML, else the embedded one (beside the build or installed). */
bool cmd_model_path(const struct settings *s, char path[1024], struct unmask_err *err);
/* The same for a command whose one argument may name it instead. */
bool cmd_model_argument(const struct settings *s, char path[1024], struct unmask_err *err);
/* --force is no leave to write `out`, the file that a flag names (NULL: none), over a file of the model. */
bool cmd_spare_model(const char *model, const char *flag, const char *out, struct unmask_err *err);
/* How the settings want a model opened. */
struct unmask_open_options cmd_open_options(const struct settings *s, bool without_tokenizer);
/* Open a model so, with progress on a terminal; a signal cancels. */
bool cmd_load(const struct settings *s, const struct term *t, const char *path, struct unmask_open_options *o,
              struct unmask_model **m, struct unmask_err *err);
bool cmd_open_model(const struct settings *s, const struct term *t, bool without_tokenizer, struct unmask_model **m,
                    struct unmask_session **session, struct unmask_err *err);

/* One line on standard error. */
void cmd_print_error(const struct unmask_err *err, bool json);

/* At most this many positional arguments. */
bool cmd_expect_args(const struct settings *s, int most, struct unmask_err *err);

/* The tokenizer alone; the model may be a folder that holds nothing else. */
struct tokenizer;
bool cmd_open_tokenizer(const struct settings *s, struct tokenizer **t, struct unmask_err *err);

/* Text of an argument: itself, @FILE, @@ for an @ that begins a text, or - for standard input, which is also read when there is
 * no argument and standard input is not a terminal.  mem_free.  At most 16 MiB of UTF-8. */
bool cmd_read_text(const char *arg, const char *what, char **text, size_t *n, struct unmask_err *err);
/* It is UTF-8. */
bool cmd_check_text(const char *text, size_t n, const char *what, struct unmask_err *err);

#endif
