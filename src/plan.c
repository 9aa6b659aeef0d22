/* plan.c - see plan.h. */
#include "plan.h"

#include "limits.h"

enum { CONTEXT = 512, LEAST_RING = 64 << 10, MOST_RING = 48 << 20, RING_SHARE = 64 };
enum { VARIES = 256 << 10 };                    /* what the program itself takes more or less from one run to the next */

uint64_t plan_default_budget(void) { return limits_memory_taken() + limits_memory() / 4 * 3; }

struct plan_need plan_need_of(const struct unmask_model *m, const struct unmask_open_options *o)
{
    const int context = o->context ? o->context : CONTEXT;
    struct reuse_profile profile;
    const struct reuse_profile *reuse = o->reuse && reuse_profile_read(o->reuse, &profile, NULL) ? &profile : NULL;
    const struct store_kind *kind = o->store ? store_kind_by_name(o->store) : NULL;
    return (struct plan_need){ .n_tokens = context < m->h.n_ctx ? context : m->h.n_ctx, .guidance = o->guidance,
                               .logits = o->logits || o->guidance,
                               .layers = reuse ? reuse_layers(reuse, m->h.n_layer) : (struct store_layers){ .n = 0 },
                               .kind = kind ? kind : forward_store_kind(m),
                               .threads = pool_size(o->threads), .sessions = o->sessions > 0 ? o->sessions : 1,
                               .logit_rows = o->logit_rows };
}

uint64_t plan_store_bytes(const struct unmask_model *m, const struct plan_need *n)
{
    return (n->guidance ? 2 : 1) * (uint64_t)row_store_bytes(n->kind, &m->h, n->n_tokens, n->layers);
}

uint64_t plan_work_bytes(const struct unmask_model *m, const struct plan_need *n, struct away away)
{
    return forward_bytes(m, n->n_tokens, n->guidance ? 2 : 1, away, n->threads)
           + denoise_work_bytes(m, n->n_tokens, (struct denoise_need){ n->guidance, n->logits });
}

static uint64_t kept_bytes(const struct unmask_model *m, const struct plan_need *n)
{
    return (uint64_t)n->logit_rows * logits_stride(m) * sizeof(float);
}

static uint64_t all_work(const struct unmask_model *m, const struct plan_need *n, struct away away)
{
    return (uint64_t)n->sessions * plan_work_bytes(m, n, away) + kept_bytes(m, n);
}

static size_t ring_of(uint64_t weights)
{
    const uint64_t ring = weights / RING_SHARE;
    return ring < LEAST_RING ? LEAST_RING : ring > MOST_RING ? MOST_RING : (size_t)ring;
}

/* No budget makes more memory than there is. */
static uint64_t limited(uint64_t budget, bool *scarce)
{
    const uint64_t room = limits_memory(), taken = limits_memory_taken();
    *scarce = room < UINT64_MAX - taken && budget > taken + room;
    return *scarce ? taken + room : budget;
}

struct memory_plan plan_memory(struct unmask_model *m, const struct plan_need *need, uint64_t budget)
{
    bool scarce;
    const uint64_t most = limited(budget ? budget : plan_default_budget(), &scarce), sessions = (uint64_t)need->sessions;
    struct memory_plan p = { .budget = most, .scarce = scarce, .program = limits_memory_taken(), .weights = m->weight_bytes,
                             .packed = model_packed(m), .rounded = m->k_pack->format->block > 1 };
    const size_t ring = p.ring_asked = ring_of(m->weight_bytes);
    p.kept = kept_bytes(m, need);
    p.store = sessions * plan_store_bytes(m, need);
    p.work = all_work(m, need, (struct away){ false, false });
    p.resident = model_divide(m, UINT64_MAX).resident;
    p.total = p.program + p.resident + p.store + p.work;
    model_divide(m, 0);
    const uint64_t streaming = all_work(m, need, (struct away){ true, !m->h.tied_head });
    const uint64_t ring_bytes = sessions * (m->n_stream ? stream_bytes(m->stream, m->n_stream, ring) : ring);
    p.least_packed = p.program + model_least(m) + p.store + streaming + ring_bytes + VARIES;
    p.least = p.packed && p.least_packed < p.total + VARIES ? p.least_packed : p.total + VARIES;
    p.fits = p.total <= p.budget;
    if (p.fits || !p.packed || p.least != p.least_packed) {
        model_divide(m, UINT64_MAX);
        return p;
    }
    const uint64_t other = p.program + p.store + streaming + ring_bytes;
    const struct model_share s = model_divide(m, p.budget > other ? p.budget - other : 0);
    p.work = s.streamed ? streaming : all_work(m, need, (struct away){ false, s.in_file > 0 });
    p.ring = s.streamed ? sessions * stream_bytes(m->stream, m->n_stream, ring) : 0;
    p.resident = s.resident;
    p.streamed = s.streamed;
    p.in_file = s.in_file;
    p.total = p.program + p.resident + p.ring + p.store + p.work;
    p.fits = p.total <= p.budget;
    return p;
}

bool plan_refuse(const struct memory_plan *p, const char *path, struct unmask_err *err)
{
    return fail(err, E_MODEL_MEMORY, .file = path, .need = MIB_UP(p->least),
                .found = FMT(p->scarce ? "%s available" : "a budget of %s", MIB_DOWN(p->budget)),
                .hint = p->packed && p->scarce ? "Keep room for less (--context, --store), or make the model smaller"
                        : p->packed ? "Give it that much (--memory), or keep room for less (--context, --store)"
                        : p->rounded ? FMT("Packed it runs in %s: unmask quantize %s packed.gguf --layout packed",
                                           MIB_UP(p->least_packed), WORD(path))
                        : FMT("Make it smaller: unmask quantize %s model-q4_0.gguf q4_0 --layout packed", WORD(path)));
}
