/* quantize_plan.c - which tensors the output holds, in which order and format. */
#include "quantize_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "mem.h"

static bool has_suffix(const char *s, const char *tail)
{
    const size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

const char *quantize_type(const struct quantize_options *o) { return o->type ? o->type : o->format->name; }
uint32_t quantize_file_type(const struct quantize_options *o) { return o->type ? o->file_type : o->format->gguf_file_type; }

/* The input says of itself that it is of the wanted type. */
static bool same_type(const struct quantize_job *j)
{
    int64_t type = -1;
    return j->in->kind == CHECKPOINT_GGUF && meta_int(j->in, "general.file_type", 0, UINT32_MAX, false, &type, NULL)
        && type == quantize_file_type(j->o);
}

/* What the rules, or the type, want for a matrix. */
static bool wanted_format(struct quantize_job *j, struct piece *p, int layer, struct unmask_err *err)
{
    const struct quantize_rule *rule;
    if (!rules_find(j->rules, p->name, layer, &j->h, &rule, err)) return false;
    const struct quant_format *from = p->from->format, *to = rule ? rule->to : j->o->format;
    const bool kept = (j->o->keep || (from->block > 1 && same_type(j))) && !(rule && rule->required);
    p->to = kept ? from : to;
    p->why = kept ? "kept" : rule ? "rule" : "type";
    j->report->n_kept += kept && !j->o->keep && from != to;
    return true;
}

/* From a blocked format to the same one blocks are copied, and F32 loses nothing; to any other, rounding twice is worse than
 * rounding the original once. */
static bool check_twice(struct quantize_job *j, const struct piece *p, struct unmask_err *err)
{
    const struct quant_format *from = p->from->format;
    if (from->block == 1 || from == p->to || p->to == &format_f32) return true;
    j->report->n_requantized++;
    return j->o->requantize
        || fail(err, E_QNT_TWICE, .file = j->in->path, .field = p->from->name, .found = from->name,
                .need = p->to->block == 1 ? "weights in f32, f16 or bf16" : FMT("weights in f32, f16, bf16 or %s", p->to->name),
                .hint = "Quantize from the original weights; --requantize does it all the same, at a loss");
}

static bool choose_format(struct quantize_job *j, struct piece *p, int layer, struct unmask_err *err)
{
    struct quantize_report *r = j->report;
    p->to = &format_f32;
    p->why = "vector";
    if (!p->matrix) return true;
    if (!wanted_format(j, p, layer, err)) return false;
    const struct quant_format *wanted = p->to;
    if (p->from->shape[0] % (uint64_t)wanted->block != 0) {
        p->to = p->from->shape[0] % QBLOCK == 0 ? &format_q8_0 : &format_f16;
        p->why = "fallback";
        if (r->n_fallback++ == 0) {
            snprintf(r->fallback, sizeof r->fallback, "%s", p->name);
            r->wanted = wanted;
            r->got = p->to;
        }
    }
    return check_twice(j, p, err);
}

const char *const quantize_methods[] = {
    [BY_PLAIN] = "plain", [BY_SEARCH] = "search", [BY_IMPORTANCE] = "importance", [BY_FEEDBACK] = "feedback"
};

/* How a matrix is rounded.  What is copied, or is of a format that rounds each value alone, is rounded plainly. */
static enum quantize_method method_of(const struct quantize_job *j, const struct piece *p)
{
    const struct quantize_options *o = j->o;
    if (!p->matrix || p->from->format == p->to || !p->to->search_row) return BY_PLAIN;
    if (o->importance && imatrix_find(o->importance, p->name)) return BY_IMPORTANCE;
    if (quantize_has_moments(o, p->role)) return p->to->fit_block ? BY_FEEDBACK : BY_IMPORTANCE;
    const bool only_embedding = p->role == T_EMBED && !j->h.tied_head;          /* a tied one is read by the head, too */
    if (quantize_calibrates(o) && only_embedding && p->to->fit_block) return BY_FEEDBACK;
    return o->search || o->importance || quantize_calibrates(o) ? BY_SEARCH : BY_PLAIN;
}

static bool check_importance(const struct quantize_job *j, const struct piece *p, struct unmask_err *err)
{
    const struct imatrix_entry *e = j->o->importance && p->matrix ? imatrix_find(j->o->importance, p->name) : NULL;
    return !e || e->k == p->from->shape[0]
        || fail(err, E_QNT_IMATRIX, .field = p->name, .found = FMT("%zu columns", e->k),
                .need = FMT("%" PRIu64 ", as the matrix has", p->from->shape[0]), .hint = "It was made for another model");
}

static void count_format(struct quantize_report *r, const struct quant_format *f)
{
    for (int i = 0; i < QUANTIZE_FORMATS && quant_formats[i]; i++) r->n_of[i] += quant_formats[i] == f;
}

static bool add_piece(struct quantize_job *j, enum tensor_role role, int layer, struct unmask_err *err)
{
    const struct arch_tensor *at = &j->arch->tensors[role];
    struct piece *p = &j->pieces[j->n_pieces];
    if (!arch_has(&j->h, role)) return true;
    snprintf(p->name, sizeof p->name, at->gguf, layer);
    p->matrix = at->matrix;
    p->role = role;
    p->layer = at->per_layer ? layer : -1;
    if (!(p->from = arch_tensor(j->arch, j->in, &j->h, role, layer, err))
        || !choose_format(j, p, p->layer, err) || !check_importance(j, p, err) || !layout_choose(j, p, role, err)) return false;
    const uint64_t row = p->from->shape[0];
    const bool moves = p->rotate || p->unrotate;
    p->n_rows = p->matrix ? tensor_rows(p->from) : moves ? row : 1;
    p->k = p->matrix || !moves ? row : 1;
    p->bytes = layout_bytes(p);
    j->report->in_bytes += p->from->bytes;
    p->method = method_of(j, p);
    j->report->n_matrices += p->matrix;
    j->report->n_chosen += p->method != BY_PLAIN;
    j->report->n_important += p->matrix && j->o->importance && imatrix_find(j->o->importance, p->name);
    count_format(j->report, p->to);
    j->n_pieces++;
    return true;
}

/* A tensor that no role takes would be lost silently.  A head beside tied embeddings is never used, nor is a stored table of
 * rotary frequencies: both follow from the hyperparameters. */
static bool check_left_over(const struct quantize_job *j, struct unmask_err *err)
{
    const struct checkpoint *c = j->in;
    const struct arch_tensor *head = &j->arch->tensors[T_HEAD];
    bool *used = mem_zalloc(c->n_tensors, sizeof *used, err), ok = used != NULL;
    for (size_t i = 0; ok && i < j->n_pieces; i++) used[j->pieces[i].from - c->tensors] = true;
    for (size_t i = 0; ok && i < c->n_tensors; i++) {
        const char *name = c->tensors[i].name;
        if (used[i] || has_suffix(name, "rotary_emb.inv_freq")
            || !strcmp(name, c->kind == CHECKPOINT_GGUF ? head->gguf : head->folder)) continue;
        ok = fail(err, E_QNT_TENSOR, .file = c->tensors[i].file->path, .field = name,
                  .need = FMT("tensors of the architecture %s only", j->arch->name));
    }
    mem_free(used);
    return ok;
}

bool quantize_plan(struct quantize_job *j, struct unmask_err *err)
{
    const size_t most = (size_t)(j->h.n_layer + 1) * TENSOR_ROLES;
    if (!rules_open(&j->rules, j->o, err) || !(j->pieces = mem_zalloc(most, sizeof *j->pieces, err))
        || !add_piece(j, T_EMBED, 0, err)) return false;
    for (int layer = 0; layer < j->h.n_layer; layer++)
        for (int i = 0; i < LAYER_ROLES; i++)
            if (!add_piece(j, layout_order(j)[i], layer, err)) return false;
    if (!add_piece(j, T_OUT_NORM, 0, err) || !add_piece(j, T_HEAD, 0, err)) return false;
    j->report->n_tensors = j->n_pieces;
    if (j->o->importance && !j->report->n_important)
        return fail(err, E_QNT_IMATRIX, .field = j->o->calibration_name, .found = "no matrix of this model", .need = "its matrices",
                    .hint = "It was made for another model");
    return check_left_over(j, err) && rules_all_used(j->rules, err);
}
