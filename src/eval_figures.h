/* eval_figures.h - the figures of a measurement as JSON, from which both reports are printed: the object and the text. */
#ifndef EVAL_FIGURES_H
#define EVAL_FIGURES_H

#include <jansson.h>
#include <math.h>
#include <stdio.h>

#include "eval_stats.h"

/* A new reference; null for what is not a finite number. */
static inline json_t *figure(double v) { return isfinite(v) ? json_real(v) : json_null(); }

static inline void figure_put(json_t *o, const char *key, double v) { json_object_set_new(o, key, figure(v)); }
static inline void figure_put_interval(json_t *o, const char *key, struct interval i)
{
    json_object_set_new(o, key, json_pack("[o,o]", figure(i.low), figure(i.high)));
}

/* 0 where there is none. */
static inline double figure_get(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }
/* False where there is none: of a single line. */
static inline bool figure_get_interval(const json_t *o, const char *key, struct interval *i)
{
    const json_t *low = json_array_get(json_object_get(o, key), 0), *high = json_array_get(json_object_get(o, key), 1);
    *i = (struct interval){ json_number_value(low), json_number_value(high) };
    return json_is_number(low) && json_is_number(high);
}

static inline void figures_write(const json_t *report)
{
    json_dumpf(report, stdout, JSON_COMPACT | JSON_REAL_PRECISION(17));
    putchar('\n');
}

#endif
