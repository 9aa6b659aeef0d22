/* quantize_layout.c - the packed layout of an output: matrices as tiles (pack.h), in the order in which a pass over a layer uses
 * them, without permuted rows; an embedding that is only looked up stays as rows. */
#include "quantize_parts.h"

enum { PACKED_ALIGNMENT = 16 << 10 };           /* the largest page of the systems we run on */

static const enum tensor_role standard_order[] = {
    T_ATTN_NORM, T_Q, T_K, T_V, T_O, T_Q_BIAS, T_K_BIAS, T_V_BIAS, T_FFN_NORM, T_GATE, T_UP, T_DOWN,
};
static const enum tensor_role packed_order[] = {
    T_ATTN_NORM, T_Q_BIAS, T_K_BIAS, T_V_BIAS, T_K, T_V, T_Q, T_O, T_FFN_NORM, T_GATE, T_UP, T_DOWN,
};
_Static_assert(sizeof standard_order == LAYER_ROLES * sizeof *standard_order
               && sizeof packed_order == sizeof standard_order, "a role is missing");

const enum tensor_role *layout_order(const struct quantize_job *j) { return j->o->packed ? packed_order : standard_order; }

bool layout_choose(const struct quantize_job *j, struct piece *p, enum tensor_role role, struct unmask_err *err)
{
    const struct arch_tensor *at = &j->arch->tensors[role];
    const bool permuted = at->rotated && j->in->kind == CHECKPOINT_GGUF && !j->in->packed, permute = at->rotated && !j->o->packed;
    p->rotate = permute && !permuted;
    p->unrotate = permuted && !permute;
    if (!j->o->packed || !at->matrix || (role == T_EMBED && !j->h.tied_head)) return true;
    return (p->packed = pack_format_of(p->to)) != NULL
        || fail(err, E_TENSOR_TYPE, .file = p->from->file->path, .field = p->from->name,
                .found = p->to->name, .need = "a format that has kernels, to be packed");
}

uint64_t layout_bytes(const struct piece *p)
{
    if (p->packed) return (p->n_rows + TILE_N - 1) / TILE_N * p->packed->tile_bytes((int)p->k);
    return p->n_rows * quant_row_bytes(p->to, p->k);
}

/* Rows move inside their head and tiles hold TILE_N of them: chunks hold whole heads and whole tiles. */
uint64_t layout_unit(const struct piece *p, int head_dim)
{
    uint64_t unit = p->rotate || p->unrotate ? (uint64_t)head_dim : 1;
    while (p->packed && unit % TILE_N) unit *= 2;
    return unit;
}

uint64_t layout_row(const struct piece *p, uint64_t r, int head_dim)
{
    const uint64_t head = r - r % (uint64_t)head_dim, i = r - head;
    if (p->unrotate) return head + i % 2 * ((uint64_t)head_dim / 2) + i / 2;
    return p->rotate ? (uint64_t)arch_rotated_row((int)r, head_dim) : r;
}

bool layout_align(const struct quantize_job *j, struct gguf_writer *w, struct unmask_err *err)
{
    return !j->o->packed || gguf_writer_align(w, PACKED_ALIGNMENT, err);
}

bool layout_put(const struct piece *p, struct gguf_writer *w, struct unmask_err *err)
{
    return p->packed ? gguf_put_packed(w, p->name, p->packed, p->from->shape, err)
                     : gguf_put_tensor(w, p->name, p->to, p->from->n_dims, p->from->shape, err);
}

struct pack_job { const struct piece *p; const uint8_t *rows; uint64_t n_rows; uint8_t *tiles; };

static void pack_item(void *arg, int tile, int worker)
{
    (void)worker;
    const struct pack_job *j = arg;
    const struct piece *p = j->p;
    const size_t row_bytes = quant_row_bytes(p->to, p->k);
    const void *rows[TILE_N];
    for (uint64_t c = 0, r = (uint64_t)tile * TILE_N; c < TILE_N; c++, r++) rows[c] = r < j->n_rows ? j->rows + r * row_bytes : NULL;
    p->packed->pack_tile(j->tiles + (size_t)tile * p->packed->tile_bytes((int)p->k), rows, (int)p->k);
}

size_t layout_pack(struct quantize_job *j, const struct piece *p, const uint8_t *rows, uint64_t n_rows, uint8_t *tiles)
{
    const int n = (int)((n_rows + TILE_N - 1) / TILE_N);
    pool_run(j->pool, pack_item, &(struct pack_job){ p, rows, n_rows, tiles }, n);
    return (size_t)n * p->packed->tile_bytes((int)p->k);
}
