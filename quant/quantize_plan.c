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

/* From a blocked format only the same format (blocks are copied) and F32 (nothing is lost) can be reached: rounding twice
 * is worse than rounding the original once. */
static bool choose_format(struct quantize_job *j, struct piece *p, struct unmask_err *err)
{
    const struct quant_format *from = p->from->format, *want = j->o->format;
    p->to = &format_f32;
    if (!p->matrix) return true;
    p->to = want;
    if (from->block > 1 && from != want && want != &format_f32)
        return fail(err, E_QNT_TWICE, .file = j->in->path, .field = p->from->name, .found = from->name, .need = FMT("f32, f16, bf16 or %s", want->name),
                    .hint = "Quantize from the original weights");
    if (p->from->shape[0] % (uint64_t)want->block == 0) return true;
    p->to = &format_f16;
    if (j->report->n_fallback++ == 0) snprintf(j->report->fallback, sizeof j->report->fallback, "%s", p->name);
    return true;
}

static bool add_piece(struct quantize_job *j, enum tensor_role role, int layer, struct unmask_err *err)
{
    const struct arch_tensor *at = &j->arch->tensors[role];
    struct piece *p = &j->pieces[j->n_pieces];
    if (!arch_has(&j->h, role)) return true;
    snprintf(p->name, sizeof p->name, at->gguf, layer);
    p->matrix = at->matrix;
    p->rotate = at->rotated && j->in->kind == CHECKPOINT_FOLDER;
    if (!(p->from = arch_tensor(j->arch, j->in, &j->h, role, layer, err)) || !choose_format(j, p, err)) return false;
    const uint64_t row = p->from->shape[0];
    p->n_rows = p->matrix ? tensor_rows(p->from) : p->rotate ? row : 1;
    p->k = p->matrix || !p->rotate ? row : 1;
    p->bytes = p->n_rows * (p->k / (uint64_t)p->to->block) * (uint64_t)p->to->block_bytes;
    j->report->in_bytes += p->from->bytes;
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
        if (used[i] || has_suffix(name, "rotary_emb.inv_freq") || !strcmp(name, c->kind == CHECKPOINT_GGUF ? head->gguf : head->folder)) continue;
        ok = fail(err, E_QNT_TENSOR, .file = c->tensors[i].file->path, .field = name, .need = FMT("tensors of the architecture %s only", j->arch->name));
    }
    mem_free(used);
    return ok;
}

bool quantize_plan(struct quantize_job *j, struct unmask_err *err)
{
    const size_t most = (size_t)(j->h.n_layer + 1) * TENSOR_ROLES;
    if (!(j->pieces = mem_zalloc(most, sizeof *j->pieces, err)) || !add_piece(j, T_EMBED, 0, err)) return false;
    for (int layer = 0; layer < j->h.n_layer; layer++)
        for (int role = 0; role < TENSOR_ROLES; role++)
            if (j->arch->tensors[role].per_layer && !add_piece(j, role, layer, err)) return false;
    if (!add_piece(j, T_OUT_NORM, 0, err) || !add_piece(j, T_HEAD, 0, err)) return false;
    j->report->n_tensors = j->n_pieces;
    return check_left_over(j, err);
}
