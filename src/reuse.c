/* reuse.c - see reuse.h. */
#include "reuse.h"

#include <stdlib.h>
#include <string.h>

enum { ANY = 1 << 28, OLD = 1 << 28, SINKS = 4 };       /* SINKS: first positions, which every row attends to */

const struct reuse_profile reuse_profiles[] = {
    { .name = "none", .what = "every row, every layer, every logit: the yardstick", .every = 1, .all_logits = true },
    { .name = "exact", .what = "only what cannot change a token is left out", .every = 1 },
    { .name = "balanced", .what = "12 candidates, 8 rows beside the block, part of the canvas at block start", .start = START_PART, .candidates = 12,
      .settle = 1, .left = 8 },
    { .name = "fast", .what = "8 candidates, nothing beside the block, part of the canvas at block start", .start = START_PART, .candidates = 8, .settle = 1 },
    { .name = "prefix", .what = "Fast-dLLM: keys and values before the block are kept", .start = START_FULL, .right = ANY, .block_rows = true, .least_steps = 2 },
    { .name = "dual", .what = "Fast-dLLM: keys and values on both sides of the block are kept", .start = START_FULL, .block_rows = true, .least_steps = 2 },
    { .name = "dkv", .what = "dKV-Cache-Decode: positions decoded a step ago are kept; all rows every 8 steps", .every = 8, .start = START_FULL,
      .settle = 1, .mask_rows = true },
    { .name = "vicinity", .what = "dInfer: the block and 16 rows on either side", .start = START_FULL, .left = 16, .right = 16, .block_rows = true },
    { .name = "window", .what = "Window-Diffusion: 16 candidates, all rows every 32 steps", .every = 32, .start = START_NOTHING, .candidates = 16, .settle = 32 },
    { .name = NULL },
};

const struct reuse_profile *reuse_profile_by_name(const char *name)
{
    for (const struct reuse_profile *p = reuse_profiles; p->name; p++)
        if (!strcmp(p->name, name)) return p;
    return NULL;
}

void reuse_begin(struct reuse_state *r, const struct reuse_profile *p, int n)
{
    r->p = p;
    r->n = n;
    r->steps = 0;
    for (int i = 0; i < n; i++) {
        r->changed[i] = false;
        r->age[i] = OLD;
        r->confidence[i] = 0;
    }
}

/* order[]: candidate positions; the surest first, ties by position.  qsort has no context, so positions carry their rank
 * in a pair. */
struct ranked { float confidence; int position; };
static int by_confidence(const void *a, const void *b)
{
    const struct ranked *x = a, *y = b;
    return x->confidence != y->confidence ? (x->confidence < y->confidence) - (x->confidence > y->confidence) : x->position - y->position;
}

/* Mark in order[] the masks whose logits this step needs. */
static void mark_candidates(struct reuse_state *r, const bool *is_mask, struct reuse_block b, bool full)
{
    enum { NEEDED = 1 };
    struct ranked top[64];
    const int most = r->p->candidates && r->p->candidates < (int)(sizeof top / sizeof *top) ? r->p->candidates : 0;
    memset(r->order, 0, (size_t)r->n * sizeof *r->order);
    int n = 0, kept = 0;
    for (int i = 0; i < b.end; i++) n += is_mask[i];
    for (int i = 0; i < b.end; i++) {
        if (!is_mask[i]) continue;
        if (full || !most || n <= most || i == 0) {
            r->order[i] = NEEDED;
            continue;
        }
        if (kept < most) top[kept++] = (struct ranked){ r->confidence[i], i };
        else {
            qsort(top, (size_t)kept, sizeof *top, by_confidence);
            if (r->confidence[i] > top[kept - 1].confidence) top[kept - 1] = (struct ranked){ r->confidence[i], i };
        }
    }
    for (int i = 0; i < kept; i++) r->order[top[i].position] = NEEDED;
    for (int i = 0; i < b.end; i++)
        if (is_mask[i]) {                       /* the leftmost, so that none starves */
            r->order[i] = NEEDED;
            break;
        }
}

static bool in_range(int i, int from, int to) { return i >= from && i < to; }

void reuse_plan(struct reuse_state *r, const bool *is_mask, struct reuse_block b, struct reuse_rows *out)
{
    const struct reuse_profile *p = r->p;
    out->full = p->every == 1 || r->steps == 0 || (b.step == 0 && p->start == START_FULL)
        || (p->every && (p->start == START_NOTHING ? r->steps : b.step) % p->every == 0);
    const bool part = !out->full && b.step == 0 && p->start == START_PART;
    const int block = b.end - b.start;
    mark_candidates(r, is_mask, b, out->full || part);
    out->n_rows = out->n_need = 0;
    for (int i = 0; i < r->n; i++) {
        const bool need = r->order[i] || p->all_logits;
        bool row = out->full || need || r->changed[i];
        if (part) row |= i < SINKS || in_range(i, b.start - block, b.end);       /* the previous block and the new one */
        else row |= r->age[i] < p->settle || (p->block_rows && in_range(i, b.start, b.end)) || (p->mask_rows && is_mask[i])
                    || in_range(i, b.start - p->left, b.start) || in_range(i, b.end, p->right < ANY ? b.end + p->right : r->n);
        if (!row) continue;
        if (need) out->need[out->n_need++] = out->n_rows;
        out->rows[out->n_rows++] = i;
    }
}

void reuse_passed(struct reuse_state *r, const struct reuse_rows *rows)
{
    for (int i = 0; i < rows->n_rows; i++) r->changed[rows->rows[i]] = false;
    for (int i = 0; i < r->n; i++) r->age[i] += r->age[i] < OLD;
    r->steps++;
}

void reuse_committed(struct reuse_state *r, int position)
{
    r->changed[position] = true;
    r->age[position] = 0;
}
