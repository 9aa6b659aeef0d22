/* quantize_rules.c - which format a matrix takes by its name: rules with PCRE2 patterns, of which the first that fits counts. */
#include "quantize_parts.h"

#include <string.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "mem.h"

enum { MATCH_LIMIT = 100000, HEAP_KIB = 4096 };         /* names have less than 64 bytes: a pattern that takes more is a mistake */

struct rule { pcre2_code *code; bool used; };

struct rules {
    const struct quantize_rule *from; size_t n;
    struct rule *rule;                          /* [n] */
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

static bool refuse(const struct quantize_rule *r, const char *found, struct unmask_err *err)
{
    return fail(err, E_QNT_RULE, .field = QUOTE(r->pattern, strlen(r->pattern)), .found = found,
                .need = "REGEX=FORMAT, such as 'ffn_down=q6_k'; `unmask inspect --tensors` lists the names");
}

static bool compile(struct rule *out, const struct quantize_rule *r, struct unmask_err *err)
{
    int code;
    PCRE2_SIZE at;
    PCRE2_UCHAR why[120];
    if ((out->code = pcre2_compile((PCRE2_SPTR)r->pattern, PCRE2_ZERO_TERMINATED, PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL))) return true;
    pcre2_get_error_message(code, why, sizeof why);
    return refuse(r, FMT("%s, at character %zu", (const char *)why, (size_t)at + 1), err);
}

bool rules_open(struct rules **out, const struct quantize_options *o, struct unmask_err *err)
{
    struct rules *r = *out = mem_zalloc(1, sizeof *r, err);
    if (!r || !(r->rule = mem_zalloc(o->n_rules, sizeof *r->rule, err))) return false;
    r->from = o->rules;
    r->n = o->n_rules;
    for (size_t i = 0; i < r->n; i++)
        if (!compile(&r->rule[i], &r->from[i], err)) return false;
    if (!(r->match = pcre2_match_data_create(1, NULL)) || !(r->limits = pcre2_match_context_create(NULL)))
        return fail(err, E_MEMORY, .need = "room for patterns");
    pcre2_set_match_limit(r->limits, MATCH_LIMIT);
    pcre2_set_heap_limit(r->limits, HEAP_KIB);
    return true;
}

void rules_close(struct rules *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) pcre2_code_free(r->rule[i].code);
    pcre2_match_data_free(r->match);
    pcre2_match_context_free(r->limits);
    mem_free(r->rule);
    mem_free(r);
}

/* llama.cpp's use_more_bits(). */
static bool gets_more_bits(int layer, int n) { return layer >= 0 && (layer < n / 8 || layer >= 7 * n / 8 || (layer - n / 8) % 3 == 2); }

bool rules_find(struct rules *r, const char *name, int layer, const struct hparams *h,
                const struct quantize_rule **rule, struct unmask_err *err)
{
    const char *const names[] = { name, h->tied_head && layer < 0 && !strcmp(name, "token_embd.weight") ? "output.weight" : NULL };
    *rule = NULL;
    for (size_t i = 0; i < r->n && !*rule; i++) {
        if (r->from[i].more_bits && !gets_more_bits(layer, h->n_layer)) continue;
        for (int k = 0; k < 2 && names[k]; k++) {
            const int found = pcre2_match(r->rule[i].code, (PCRE2_SPTR)names[k], strlen(names[k]), 0, 0, r->match, r->limits);
            if (found < 0 && found != PCRE2_ERROR_NOMATCH)
                return refuse(&r->from[i], FMT("a pattern that takes too long on %s", names[k]), err);
            if (found >= 0) {
                *rule = &r->from[i];
                r->rule[i].used = true;
            }
        }
    }
    return true;
}

bool rules_all_used(const struct rules *r, struct unmask_err *err)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->from[i].required && !r->rule[i].used)
            return refuse(&r->from[i], "no matrix of that name that an earlier rule leaves to it", err);
    return true;
}
