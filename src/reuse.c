/* reuse.c - see reuse.h. */
#include "reuse.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "mem.h"

enum { ANY = 1 << 24, OLD = 1 << 28, SINKS = 4 };       /* SINKS: first positions, which every row attends to */

const struct reuse_profile reuse_profiles[] = {
    { .name = "none", .what = "every row, every layer, every logit: the yardstick", .every = 1, .all_logits = true },
    { .name = "exact", .what = "only what cannot change a token is left out", .every = 1 },
    { .name = "faithful", .what = "the block and 16 rows on either side; all rows before a decision that the measured error could turn",
      .every = 16, .longest = 64, .start = START_FULL, .settle = 4, .left = 16, .right = 16, .block_rows = 1, .whole = 60, .margin = 60,
      .spare = 512, .extra = 22, .audit = 1 },
    { .name = "balanced", .what = "12 candidates and what was committed in the last 3 steps; the block and 16 more rows when it begins",
      .start = START_PART, .back = 16, .candidates = 12, .settle = 3, .margin = 60, .spare = 128 },
    { .name = "fast", .what = "7 candidates; the block and 4 more rows when it begins",
      .start = START_PART, .back = 4, .candidates = 7, .settle = 1 },
    { .name = "prefix", .what = "Fast-dLLM: keys and values before the block are kept",
      .start = START_FULL, .right = ANY, .block_rows = 1, .least_steps = 2 },
    { .name = "dual", .what = "Fast-dLLM: keys and values on both sides of the block are kept",
      .start = START_FULL, .block_rows = 1, .least_steps = 2 },
    { .name = "dkv", .what = "dKV-Cache-Decode: positions decoded a step ago are kept; all rows every 8 steps",
      .every = 8, .start = START_FULL, .first = 2, .settle = 1, .mask_rows = 1 },
    { .name = "vicinity", .what = "dInfer: the block and 16 rows on either side, after 4 steps over all",
      .start = START_FULL, .warm = 4, .left = 16, .right = 16, .block_rows = 1 },
    { .name = "window",
      .what = "Window-Diffusion: the 16 leftmost masks and what was decoded since all rows were, every 32 steps; 64 masks are seen",
      .every = 32, .start = START_NOTHING, .candidates = 16, .leftmost = 1, .far = 64, .settle = 32 },
    { .name = NULL },
};

#define KNOB(name, member, max, what) { name, offsetof(struct reuse_profile, member), max, what }
const struct reuse_knob reuse_knobs[] = {
    KNOB("every", every, ANY, "all rows every N steps of a block; 0: only where start says so"),
    KNOB("start", start, 2, "a block begins with: 0 a step like others, 1 its rows and `back` before it, 2 all rows"),
    KNOB("back", back, ANY, "positions before the block where start is 1"),
    KNOB("first", first, ANY, "all rows in the first N steps of a block"),
    KNOB("warm", warm, ANY, "all rows in the first N steps of a run"),
    KNOB("whole", whole, 100, "all rows where a step would compute more than N % of them; 0: never"),
    KNOB("candidates", candidates, ANY, "N masks of the block in a step (more where it is to commit more), surest first; 0: all"),
    KNOB("leftmost", leftmost, 1, "1: the leftmost masks instead of the surest"),
    KNOB("far", far, ANY, "steps over some rows attend to the N leftmost masks only; 0: to all"),
    KNOB("settle", settle, ANY, "positions committed within the last N steps"),
    KNOB("left", left, ANY, "N positions before the block"),
    KNOB("right", right, ANY, "N positions after the block"),
    KNOB("fill", fill, ANY, "the N positions that were computed longest ago"),
    KNOB("depth", depth, 99, "percent of the layers: deep rows start there, and rows that thin leaves out end there; 0: half"),
    KNOB("deep", deep, ANY, "every N steps of a block the other rows too, from `depth` on; 0: never"),
    KNOB("thin", thin, 100, "N percent of the rows of a step go on beyond `depth`, the surest masks; 0: all"),
    KNOB("block", block_rows, 1, "1: every position of the block"),
    KNOB("masks", mask_rows, 1, "1: every mask of the canvas"),
    KNOB("margin", margin, 10000, "all rows again where a decision is within N % of the measured error"),
    KNOB("spare", spare, ANY, "what doubts may cost: N rows, and"),
    KNOB("extra", extra, 100, "a pass over all rows for N steps of a hundred"),
    KNOB("audit", audit, ANY, "every N-th period ends with both passes, compared; 0: none"),
    KNOB("longest", longest, ANY, "longest period that agreeing audits lead to"),
    { .name = NULL },
};

/* ---- profiles as text ---- */

static bool unknown(const char *found, size_t n, const struct err_text *known, struct unmask_err *err)
{
    return fail(err, E_GEN_VALUE, .field = "reuse", .found = n ? QUOTE(found, n) : "an empty name", .need = FMT("one of %s", known->s));
}

/* dLLM-Cache in any spelling: its letters alone. */
static bool is_dllm_cache(const char *text, size_t n)
{
    const char *want = "dllmcache";
    for (size_t i = 0; i < n; i++) {
        const char c = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + ('a' - 'A')) : text[i];
        if (c < 'a' || c > 'z') continue;
        if (c != *want) return false;
        want++;
    }
    return *want == 0;
}

static bool read_name(const char *text, size_t n, struct reuse_profile *p, struct unmask_err *err)
{
    for (const struct reuse_profile *known = reuse_profiles; known->name; known++)
        if (strlen(known->name) == n && !memcmp(known->name, text, n)) {
            *p = *known;
            return true;
        }
    if (is_dllm_cache(text, n))
        return fail(err, E_GEN_VALUE, .field = "reuse", .found = QUOTE(text, n), .need = "a method that keeps keys and values",
                    .hint = "dLLM-Cache stores four tensors a layer (keys, values, attention and feed-forward outputs), "
                            "twice the memory of this engine's rows; "
                            "\"balanced\" is for the same purpose, \"dual\" and \"dkv\" are published methods");
    struct err_text names = { "" };
    for (const struct reuse_profile *r = reuse_profiles; r->name; r++) err_list(&names, r->name);
    return unknown(text, n, &names, err);
}

/* "candidates=16" */
static bool read_knob(const char *text, size_t n, struct reuse_profile *p, struct unmask_err *err)
{
    const char *equals = memchr(text, '=', n);
    const size_t n_name = equals ? (size_t)(equals - text) : n;
    for (const struct reuse_knob *k = reuse_knobs; k->name; k++) {
        if (strlen(k->name) != n_name || memcmp(k->name, text, n_name)) continue;
        int v = 0;
        const char *c = equals ? equals + 1 : text + n;
        bool ok = c < text + n;
        for (; ok && c < text + n; c++) {
            ok = *c >= '0' && *c <= '9' && v <= k->max / 10;
            v = ok ? 10 * v + (*c - '0') : 0;
        }
        if (!ok || v > k->max)
            return fail(err, E_GEN_VALUE, .field = FMT("reuse, %s", k->name), .found = QUOTE(text, n),
                        .need = FMT("%s=0 to %d", k->name, k->max));
        memcpy((char *)p + k->offset, &v, sizeof v);
        return true;
    }
    struct err_text names = { "" };
    for (const struct reuse_knob *k = reuse_knobs; k->name; k++) err_list(&names, k->name);
    return unknown(text, n_name, &names, err);
}

bool reuse_profile_read(const char *text, struct reuse_profile *p, struct unmask_err *err)
{
    size_t n = strcspn(text, ",");
    if (!read_name(text, n, p, err)) return false;
    while (text[n]) {
        text += n + 1;
        n = strcspn(text, ",");
        if (!read_knob(text, n, p, err)) return false;
    }
    return true;
}

/* ---- plans ---- */

/* The layer at `depth`; not the first, which nothing is kept for. */
static int layer_at_depth(const struct reuse_profile *p, int n_layer)
{
    const int layer = (int)(((int64_t)n_layer * (p->depth ? p->depth : 50) + 50) / 100), most = layer < n_layer ? layer : n_layer - 1;
    return most > 1 ? most : 1;
}

struct store_layers reuse_layers(const struct reuse_profile *p, int n_layer)
{
    if (p->every == 1) return (struct store_layers){ .n = 0 };
    return (struct store_layers){ .n = n_layer, .state = p->deep ? layer_at_depth(p, n_layer) : 0 };
}

void reuse_lay_out(struct reuse_state *r, struct reuse_rows *rows, uint8_t *base, size_t *used, int n)
{
    const size_t count = (size_t)n;
    r->changed = mem_lay(base, used, count * sizeof *r->changed);
    r->age = mem_lay(base, used, count * sizeof *r->age);
    r->computed = mem_lay(base, used, count * sizeof *r->computed);
    r->confidence = mem_lay(base, used, count * sizeof *r->confidence);
    r->mark = mem_lay(base, used, count * sizeof *r->mark);
    r->rank = mem_lay(base, used, count * sizeof *r->rank);
    rows->rows = mem_lay(base, used, count * sizeof *rows->rows);
    rows->need = mem_lay(base, used, count * sizeof *rows->need);
    rows->span = mem_lay(base, used, count * sizeof *rows->span);
}

void reuse_begin(struct reuse_state *r, const struct reuse_profile *p, int n, int n_layer)
{
    r->p = p;
    r->n = n;
    r->n_layer = n_layer;
    r->steps = r->since_full = 0;
    r->period = p->every;
    for (int i = 0; i < n; i++) {
        r->changed[i] = false;
        r->age[i] = OLD;
        r->computed[i] = 0;
        r->confidence[i] = 0;
    }
}

static int by_key(const void *a, const void *b)
{
    const struct reuse_rank *x = a, *y = b;
    return x->key != y->key ? (x->key < y->key) - (x->key > y->key) : x->position - y->position;
}

/* What mark[] says of a position: its row is computed, its logits are needed, it starts or ends at `depth`. */
enum { ROW = 1, NEED = 2, DEEP = 4, ENDS = 8 };

/* Mark the masks whose logits this step needs: the leftmost, so that none starves, and the surest; all where
 * every one of them is computed. */
static void mark_candidates(struct reuse_state *r, const bool *is_mask, struct reuse_block b, bool all)
{
    int n = 0;
    memset(r->mark, 0, (size_t)r->n * sizeof *r->mark);
    for (int i = 0; i < b.end; i++)
        if (is_mask[i]) r->rank[n++] = (struct reuse_rank){ r->p->leftmost ? 0 : r->confidence[i], i };
    const int wanted = r->p->candidates > b.quota ? r->p->candidates : b.quota;
    const int most = all || !r->p->candidates || wanted > n ? n : wanted;
    if (most < n) qsort(r->rank + 1, (size_t)n - 1, sizeof *r->rank, by_key);          /* behind the leftmost */
    for (int i = 0; i < most; i++) r->mark[r->rank[i].position] = NEED;
}

static bool in_range(int i, int from, int to) { return i >= from && i < to; }

enum why { DUE, FULL, LEAN };

/* Does a step compute every row, whether a period ends or not? */
static bool is_full(const struct reuse_state *r, struct reuse_block b, enum why why)
{
    const struct reuse_profile *p = r->p;
    return why == FULL
           || (why == DUE && (p->every == 1 || r->steps == 0 || (b.step == 0 && p->start == START_FULL)
                              || b.step < p->first || r->steps < p->warm));
}

static bool period_ends(const struct reuse_state *r, struct reuse_block b)
{
    const struct reuse_profile *p = r->p;
    if (p->longest) return r->period && r->since_full >= r->period;
    return p->every && (p->start == START_NOTHING ? r->steps : b.step) % p->every == 0;
}

/* Add the rows computed longest ago to those marked. */
static void mark_fill(struct reuse_state *r)
{
    int n = 0;
    for (int i = 0; i < r->n; i++)
        if (!r->mark[i]) r->rank[n++] = (struct reuse_rank){ (float)(r->steps - r->computed[i]), i };
    qsort(r->rank, (size_t)n, sizeof *r->rank, by_key);
    for (int i = 0; i < n && i < r->p->fill; i++) r->mark[r->rank[i].position] = ROW;
}

/* Which of the rows of a step go on first: those that may be committed, the surest of them, before all others. */
static float thin_key(const struct reuse_state *r, const bool *is_mask, int i)
{
    const float confidence = is_mask[i] ? r->confidence[i] : 0;
    return r->mark[i] & NEED ? 1 + confidence : confidence;
}

/* Of the rows marked, all but the changed ones, the leftmost mask and the surest of the rest end at `depth`.  As many stay
 * as are to be committed, and two more than were last: so many can be again. */
static void mark_thin(struct reuse_state *r, const bool *is_mask, struct reuse_block b)
{
    int n = 0, committed = 0, leftmost = 0;
    while (leftmost < r->n && !(r->mark[leftmost] && is_mask[leftmost])) leftmost++;
    for (int i = 0; i < r->n; i++) {
        committed += r->age[i] == 0;
        if (r->mark[i] && !r->changed[i] && i != leftmost) r->rank[n++] = (struct reuse_rank){ thin_key(r, is_mask, i), i };
    }
    const int share = (n * r->p->thin + 99) / 100, most = committed + 1 > b.quota ? committed + 1 : b.quota;
    const int keep = share > most ? share : most;
    qsort(r->rank, (size_t)n, sizeof *r->rank, by_key);
    for (int i = keep; i < n; i++) r->mark[r->rank[i].position] = ROW | ENDS;
}

static void list_rows(const struct reuse_state *r, struct reuse_rows *out)
{
    const int depth = layer_at_depth(r->p, r->n_layer);
    out->n_rows = out->n_need = 0;
    out->row_layers = 0;
    for (int i = 0; i < r->n; i++) {
        if (!r->mark[i]) continue;
        if (r->mark[i] & NEED) out->need[out->n_need++] = out->n_rows;
        out->rows[out->n_rows] = i;
        const struct span s = { r->mark[i] & DEEP ? depth : 0, r->mark[i] & ENDS ? depth : r->n_layer };
        out->span[out->n_rows++] = s;
        out->row_layers += s.to - s.from;
    }
}

/* Does a block that starts in part begin with this row? */
static bool begins_with(const struct reuse_state *r, struct reuse_block b, int i)
{
    return i < SINKS || in_range(i, b.start - r->p->back, b.end);
}

/* Is it one of the rows that every step computes, besides changed ones and candidates? */
static bool in_a_class(const struct reuse_state *r, const bool *is_mask, struct reuse_block b, int i)
{
    const struct reuse_profile *p = r->p;
    const bool settles = r->age[i] < p->settle && (p->start != START_NOTHING || r->age[i] < r->since_full);
    return settles || (p->mask_rows && is_mask[i]) || (p->block_rows && in_range(i, b.start, b.end))
        || in_range(i, b.start - p->left, b.start) || in_range(i, b.end, b.end + p->right);
}

static void plan(struct reuse_state *r, const bool *is_mask, struct reuse_block b, enum why why, struct reuse_rows *out)
{
    const struct reuse_profile *p = r->p;
    const bool full = is_full(r, b, why);
    out->period = why == DUE && !full && period_ends(r, b);
    out->full = full || out->period;
    const bool part = !out->full && b.step == 0 && p->start == START_PART;
    const bool deep = !out->full && why != LEAN && p->deep && b.step % p->deep == 0;
    mark_candidates(r, is_mask, b, out->full || part);
    for (int i = 0; i < r->n; i++) {
        const bool need = r->mark[i] || p->all_logits;
        const bool row = out->full || r->changed[i] || (part ? begins_with(r, b, i) : in_a_class(r, is_mask, b, i));
        r->mark[i] = need ? ROW | NEED : row ? ROW : 0;
    }
    if (p->fill && !out->full) mark_fill(r);
    if (p->thin && !out->full && !part) mark_thin(r, is_mask, b);
    for (int i = 0; deep && i < r->n; i++)
        if (!r->mark[i]) r->mark[i] = ROW | DEEP;
    list_rows(r, out);
}

void reuse_plan(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out)
{
    plan(r, is_mask, b, DUE, out);
    if (!out->full && r->p->whole && out->row_layers * 100 > (int64_t)r->n * r->n_layer * r->p->whole) plan(r, is_mask, b, FULL, out);
}

void reuse_plan_full(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out)
{
    plan(r, is_mask, b, FULL, out);
}

void reuse_plan_lean(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out)
{
    plan(r, is_mask, b, LEAN, out);
}

void reuse_keys(const struct reuse_state *r, const bool *is_mask, const struct reuse_rows *rows, uint8_t *keys)
{
    for (int i = 0, masks = 0; i < r->n; i++) {
        keys[i] = !r->p->far || rows->full || !is_mask[i] || masks < r->p->far;
        masks += is_mask[i];
    }
}

void reuse_passed(struct reuse_state *r, const struct reuse_rows *rows)
{
    for (int i = 0; i < rows->n_rows; i++) {
        r->changed[rows->rows[i]] = false;
        if (rows->span[i].to == r->n_layer) r->computed[rows->rows[i]] = r->steps;
    }
    if (rows->full) r->since_full = 0;
}

void reuse_stepped(struct reuse_state *r)
{
    for (int i = 0; i < r->n; i++) r->age[i] += r->age[i] < OLD;
    r->steps++;
    r->since_full++;
}

void reuse_committed(struct reuse_state *r, int position)
{
    r->changed[position] = true;
    r->age[position] = 0;
}
