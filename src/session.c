/* session.c - see session.h. */
#include "session.h"

#include <string.h>

#include "mem.h"

/* ---- what a caller asks for ---- */

static bool unknown_store(const char *found, struct unmask_err *err)
{
    struct err_text known = { "" };
    for (int i = 0; store_kinds[i]; i++) err_list(&known, store_kinds[i]->name);
    return fail(err, E_GEN_VALUE, .field = "store", .found = QUOTE(found, strlen(found)), .need = FMT("one of %s", known.s));
}

bool session_check_names(const char *reuse, const char *store, struct unmask_err *err)
{
    struct reuse_profile profile;
    if (reuse && !reuse_profile_read(reuse, &profile, err)) return false;
    return !store || store_kind_by_name(store) || unknown_store(store, err);
}

bool session_check_open(const struct unmask_open_options *o, struct unmask_err *err)
{
    return session_check_names(o->reuse, o->store, err);
}

bool session_check_ids(const struct unmask_session *s, const int32_t *ids, size_t n, struct unmask_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->m->h.n_vocab)
            return fail(err, E_GEN_TOKEN, .field = FMT("token %zu", i), .found = FMT("%d", ids[i]),
                        .need = FMT("0 to %d", s->m->h.n_vocab - 1));
    return true;
}

/* ---- the budget ---- */

/* The next one counts what it reads from nought. */
static void close_forward(struct unmask_session *s)
{
    if (s->f) s->bytes_read += forward_bytes_read(s->f);
    forward_close(s->f);
    s->f = NULL;
}

uint64_t session_bytes_read(const struct unmask_session *s) { return s->bytes_read + (s->f ? forward_bytes_read(s->f) : 0); }

static void work_close(struct unmask_session *s)
{
    denoise_work_close(s->work);
    s->work = NULL;
}

void session_release(struct unmask_session *s)
{
    work_close(s);
    for (int b = 0; b < MAX_BRANCHES; b++) {
        row_store_close(s->store[b]);
        s->store[b] = NULL;
    }
    close_forward(s);
    atomic_fetch_sub(s->m->in_sessions, s->bytes);
    s->bytes = 0;
}

static uint64_t bytes_of(const struct unmask_session *s, const struct session_need *need)
{
    const struct unmask_model *m = s->m;
    const struct store_kind *kind = need->kind ? need->kind : forward_store_kind(m);
    return (uint64_t)need->n_branches * row_store_bytes(kind, &m->h, need->n_tokens, need->layers)
        + forward_bytes(m, need->n_tokens, need->n_branches, forward_away(m), pool_threads(s->pool))
        + denoise_work_bytes(m, need->n_tokens, need->work)
        + (m->n_stream ? stream_bytes(m->stream, m->n_stream, m->ring_bytes) : 0);
}

/* What is needed beside what the session has from earlier runs: at most. */
static struct session_need with_held(const struct unmask_session *s, const struct session_need *need)
{
    struct session_need all = *need;
    if (s->f && forward_max_tokens(s->f) > all.n_tokens) all.n_tokens = forward_max_tokens(s->f);
    if (s->f && forward_max_branches(s->f) > all.n_branches) all.n_branches = forward_max_branches(s->f);
    for (int b = 0; b < MAX_BRANCHES; b++) {
        if (!s->store[b]) continue;             /* one of an earlier guided run stays open */
        if (b >= all.n_branches) all.n_branches = b + 1;
        if (s->store_tokens[b] > all.n_tokens) all.n_tokens = s->store_tokens[b];
    }
    if (s->work && s->work_tokens > all.n_tokens) all.n_tokens = s->work_tokens;
    all.work.cfg |= s->work && s->work_need.cfg;
    all.work.logits |= s->work && s->work_need.logits;
    return all;
}

/* Let a session have so many bytes instead of what it had, if the budget has them.  Sessions of other threads ask at the same
 * time: nobody sees what is asked for in vain. */
static bool grant(struct unmask_session *s, uint64_t bytes)
{
    const struct unmask_model *m = s->m;
    uint64_t before = atomic_load(m->in_sessions), after;
    do {
        after = before - s->bytes + bytes;
        if (m->budget && m->taken + after > m->budget) return false;
    } while (!atomic_compare_exchange_weak(m->in_sessions, &before, after));
    s->bytes = bytes;
    return true;
}

/* Sessions together never take more than the model's budget leaves; what a session has from other runs makes room. */
static bool within_budget(struct unmask_session *s, const struct session_need *need, struct unmask_err *err)
{
    const struct unmask_model *m = s->m;
    const struct session_need all = with_held(s, need);
    const uint64_t bytes = bytes_of(s, need);
    const bool alone = m->taken + bytes <= m->budget;           /* what is missing, others have */
    if (grant(s, bytes_of(s, &all))) return true;
    session_release(s);
    return grant(s, bytes)
        || fail(err, E_CANVAS_MEMORY, .file = m->path,
                .found = FMT("%d positions, for which %.0f MiB are needed", need->n_tokens,
                             (double)(m->taken + atomic_load(m->in_sessions) + bytes) / 0x1p20),
                .need = FMT("at most %.0f MiB, the budget", (double)m->budget / 0x1p20),
                .hint = alone ? "Other sessions of the model have the rest: plan for as many, or give more (--memory)"
                        : FMT("Keep room from the start (--context %d, and the run's guidance, temperature, reuse and store), "
                              "or give more (--memory)", need->n_tokens));
}

/* ---- room ---- */

static bool store_room(struct unmask_session *s, int branch, const struct session_need *need, struct unmask_err *err)
{
    const struct store_kind *kind = need->kind ? need->kind : forward_store_kind(s->m);
    if (kind != s->store_kind || memcmp(&need->layers, &s->store_layers, sizeof need->layers)) {
        for (int b = 0; b < MAX_BRANCHES; b++) {
            row_store_close(s->store[b]);
            s->store[b] = NULL;
        }
        s->store_kind = kind;
        s->store_layers = need->layers;
    }
    if (s->store[branch] && row_store_max_tokens(s->store[branch]) >= need->n_tokens) return true;
    row_store_close(s->store[branch]);
    s->store[branch] = NULL;
    s->store_tokens[branch] = need->n_tokens;
    return row_store_open(&s->store[branch], kind, &s->m->h, need->n_tokens, need->layers, err);
}

static bool open_rooms(struct unmask_session *s, const struct session_need *need, struct unmask_err *err)
{
    for (int b = 0; b < need->n_branches; b++)
        if (!store_room(s, b, need, err)) return false;
    if (s->f && forward_max_tokens(s->f) >= need->n_tokens && forward_max_branches(s->f) >= need->n_branches) return true;
    close_forward(s);
    return forward_open(&s->f, s->m, need->n_tokens, need->n_branches, s->pool, err);
}

/* What was granted to a session that then found no memory is for others to have. */
static bool without_room(struct unmask_session *s)
{
    session_release(s);
    return false;
}

bool session_room(struct unmask_session *s, const struct session_need *need, struct unmask_err *err)
{
    const int n = need->n_tokens;
    if (n > s->m->h.n_ctx)
        return fail(err, E_GEN_CONTEXT, .found = FMT("%d tokens", n), .need = FMT("at most %d, the model's context", s->m->h.n_ctx));
    if (!need->run) work_close(s);
    if (s->f && forward_failed(s->f, NULL)) close_forward(s);       /* what could not be read may be there again */
    return within_budget(s, need, err) && (open_rooms(s, need, err) || without_room(s));
}

static bool work_room(struct unmask_session *s, int n, struct denoise_need need, struct unmask_err *err)
{
    if (s->work && s->work_tokens >= n && s->work_need.cfg == need.cfg && s->work_need.logits == need.logits) return true;
    work_close(s);
    s->work_tokens = n;
    s->work_need = need;
    return denoise_work_open(&s->work, s->m, n, need, err);
}

bool session_denoise(struct unmask_session *s, struct denoise *d, struct unmask_err *err)
{
    const bool cfg = d->o->cfg_scale > 0;
    if (!reuse_profile_read(d->o->reuse ? d->o->reuse : "exact", &s->reuse, err)) return false;
    d->reuse = &s->reuse;
    const struct session_need need = { d->n_canvas, cfg ? 2 : 1, d->o->store ? store_kind_by_name(d->o->store) : NULL,
                                       reuse_layers(d->reuse, s->m->h.n_layer), denoise_need_of(d), true };
    if (!session_room(s, &need, err)) return false;
    if (!work_room(s, d->n_canvas, need.work, err)) return without_room(s);
    d->m = s->m;
    d->f = s->f;
    d->pool = s->pool;
    d->work = s->work;
    for (int b = 0; b < MAX_BRANCHES; b++) d->store[b] = s->store[b];
    return true;
}
