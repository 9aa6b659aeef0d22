/* cmd_generate.h - what run, chat and infill share: a model with its settings, one denoising run with canvas, trace and
 * interruption, and what is told of it. */
#ifndef CMD_GENERATE_H
#define CMD_GENERATE_H

#include "cmd.h"
#include "outfile.h"
#include "tokenizer.h"

struct generator {
    const struct settings *s;
    const struct term *t;
    struct unmask_model *m;
    struct unmask_session *session;
    struct unmask_model_info info;
    struct unmask_options o;
    struct outfile trace;       /* of the one run that --trace allows; completed by generate() */
};
bool generator_open(struct generator *g, const struct settings *s, const struct term *t, bool without_tokenizer,
                    struct unmask_err *err);
void generator_close(struct generator *g);      /* a zeroed one is fine */

/* A finished or interrupted run.  Zero-initialise; answer_free(). */
struct answer {
    struct unmask_result r;
    char *text; size_t n_text;  /* NULL without a tokenizer                                        */
    int n_tokens;               /* that survive: up to and including the first end token, no masks */
    float confidence_min;       /* of those; NAN: none                                             */
    const char *finish;         /* "stop", "length", "cancelled"                                   */
};
void answer_free(struct answer *a);

/* Continue ids (or fill their masks: infill).  With E_CANCELLED the answer holds what there was. */
bool generate(struct generator *g, const int32_t *ids, size_t n, bool infill, struct answer *a, struct unmask_err *err);
/* Fill in text, n_tokens, confidence_min and finish from the answer's ids: text up to the first end token or --stop, which
 * leaves the fewest ids that spell it. */
bool answer_read(const struct generator *g, struct answer *a, struct unmask_err *err);
/* Text of ids up to the first end token; special tokens and masks give none.  mem_free. */
bool text_of_ids(const struct generator *g, const int32_t *ids, size_t n, char **text, size_t *n_text, struct unmask_err *err);
/* Ids before the first end token, or all n. */
size_t ids_before_end(const struct generator *g, const int32_t *ids, size_t n);

void print_text(const struct generator *g, const char *text, size_t n);        /* with a line end */
/* Parts of a JSON object on standard output. */
void print_json_ids(const int32_t *ids, size_t n);
/* "usage":{...},"x_diffusion":{...} */
void print_json_figures(const struct generator *g, const struct answer *a, size_t n_prompt);
/* {"text","ids","finish_reason","usage","x_diffusion"} or the text; then, with -v, the summary. */
void answer_print(const struct generator *g, const struct answer *a);
void answer_summary(const struct generator *g, const struct answer *a);        /* one line on standard error */

/* "unmask: note: ..." on standard error, unless -q. */
void note(const struct settings *s, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
