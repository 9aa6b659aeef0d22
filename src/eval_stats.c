/* eval_stats.c - see eval_stats.h. */
#include "eval_stats.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"
#include "sleef_scalar.h"

static const double z95 = 1.959963984540054;    /* 97.5 % quantile of the normal distribution */

struct interval eval_wilson(double k, double n)
{
    const double p = k / n, zz = z95 * z95, middle = (p + zz / (2 * n)) / (1 + zz / n);
    const double half = z95 / (1 + zz / n) * sqrt(p * (1 - p) / n + zz / (4 * n * n));
    return (struct interval){ k > 0 ? middle - half : 0, k < n ? middle + half : 1 };
}

struct interval eval_paired_shares(double both, double first, double second, double n)
{
    const double none = n - both - first - second, a = both + first, b = both + second, p = a / n, q = b / n, d = p - q;
    const struct interval i = eval_wilson(a, n), j = eval_wilson(b, n);
    const double margins = a * (n - a) * b * (n - b), product = both * none - first * second;
    const double corrected = product > 0 ? fmax(product - n / 2, 0) : product, phi = margins > 0 ? corrected / sqrt(margins) : 0;
    const double pl = p - i.low, pu = i.high - p, ql = q - j.low, qu = j.high - q;
    return (struct interval){ d - sqrt(fmax(pl * pl - 2 * phi * pl * qu + qu * qu, 0)),
                              d + sqrt(fmax(pu * pu - 2 * phi * pu * ql + ql * ql, 0)) };
}

struct interval eval_mean(const double *x, size_t n, double *mean)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++) sum += x[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) squares += (x[i] - *mean) * (x[i] - *mean);
    const double half = n > 1 ? z95 * sqrt(squares / ((double)(n - 1) * (double)n)) : NAN;
    return (struct interval){ *mean - half, *mean + half };
}

double eval_ratio_half(const double *x, const double *weights, size_t n)
{
    double all = 0, total = 0, sum = 0;
    if (n < 2) return NAN;
    for (size_t i = 0; i < n; i++) {
        all += x[i];
        total += weights[i];
    }
    for (size_t i = 0; i < n; i++) sum += (x[i] - all / total * weights[i]) * (x[i] - all / total * weights[i]);
    return z95 * sqrt(sum * (double)n / (double)(n - 1)) / total;
}

static float largest(const float *l, int n)
{
    float max = l[0];
    for (int i = 1; i < n; i++) max = l[i] > max ? l[i] : max;
    return max;
}

double eval_kl(const float *p, const float *q, int n)
{
    const float p_max = largest(p, n), q_max = largest(q, n);
    double p_sum = 0, q_sum = 0, gap = 0;       /* gap: sum of e^(p - p_max) ((p - p_max) - (q - q_max)) */
    for (int i = 0; i < n; i++) {
        const float e = Sleef_finz_expf1_u10purecfma(p[i] - p_max);
        p_sum += (double)e;
        q_sum += (double)Sleef_finz_expf1_u10purecfma(q[i] - q_max);
        if (e > 0) gap += (double)e * ((double)(p[i] - p_max) - (double)(q[i] - q_max));
    }
    return gap / p_sum - (Sleef_finz_logd1_u10purecfma(p_sum) - Sleef_finz_logd1_u10purecfma(q_sum));
}

/* ---- word pairs ---- */

struct words { const char *at; size_t n; };     /* from the start of one word to the end of the next */

static int by_text(const void *a, const void *b)
{
    const struct words *x = a, *y = b;
    const int order = memcmp(x->at, y->at, x->n < y->n ? x->n : y->n);
    return order ? order : (x->n > y->n) - (x->n < y->n);
}

static bool space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

bool eval_distinct_pairs(const char *text, size_t n, size_t *distinct, size_t *pairs, struct unmask_err *err)
{
    struct words *list = mem_zalloc(n / 2 + 1, sizeof *list, err);
    char *flat = mem_zalloc(n + 1, 1, err);     /* every gap as one space, so that pairs compare as bytes */
    size_t used = 0, words = 0;
    *distinct = *pairs = 0;
    if (list && flat) {
        for (size_t i = 0; i < n; ) {
            while (i < n && space(text[i])) i++;
            if (i == n) break;
            if (words) flat[used++] = ' ';
            const size_t start = used;
            while (i < n && !space(text[i])) flat[used++] = text[i++];
            if (words) list[words - 1].n = (size_t)(flat + used - list[words - 1].at);
            list[words++].at = flat + start;
        }
        *pairs = words ? words - 1 : 0;
        qsort(list, *pairs, sizeof *list, by_text);
        for (size_t i = 0; i < *pairs; i++) *distinct += i == 0 || by_text(&list[i - 1], &list[i]) != 0;
    }
    mem_free(list);
    mem_free(flat);
    return list && flat;
}
