/* recipe.h - what `unmask quantize` makes: the name of a number format, or a recipe that mixes them (configs/quant/NAME.yaml):
 *     format: q4_k               of every matrix that no rule fits
 *     file_type: 15              general.file_type, the number by which other programs know the mix (that of the format)
 *     rules: [REGEX=FORMAT]      the first that fits a matrix's name counts (quantize.h) ...
 *     more_bits: [REGEX=FORMAT]  ... of both lists, in the order of the file; these only in the layers that get more bits */
#ifndef RECIPE_H
#define RECIPE_H

#include "options.h"
#include "quantize.h"

enum { MAX_RULES = 64 };

struct recipe {
    char name[64];                              /* "q4_k_m" */
    const struct quant_format *format;
    int64_t file_type;
    struct quantize_rule rules[MAX_RULES]; size_t n_rules;
};

/* The rules of --keep, then those of `type`: a format, a recipe that comes with the program, or the path of a file.  Texts live
 * in the settings' arena. */
bool recipe_read(struct recipe *r, const struct settings *s, const char *type, struct unmask_err *err);
/* A format, a recipe that comes with the program, or the name of a file (.yaml) beside us: nothing that a model would be called. */
bool recipe_is_type(const char *text);

#endif
