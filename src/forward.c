/* forward.c - see forward.h.  A layer reads like the paper:
 *     store k, v = rope(K(norm(x))), V(norm(x))                for all rows of the pass
 *     x += O(attend(rope(Q(norm(x))), stored k, v));  x += Down(silu(Gate(norm(x))) * Up(norm(x)))
 * FORWARD_CHUNK rows at a time, so that work space beside x and the store does not grow with the canvas; all rows at once where
 * weights are streamed, so that each is read once for all rows.  Steps of one row or head that follow each other are one stage,
 * since all threads wait for each other between two.  Each number has one owner, so results do not depend on the number of threads. */
#include "forward.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "head.h"
#include "mem.h"
#include "products.h"
#include "sleef_scalar.h"

struct forward {
    const struct unmask_model *m;
    struct stages stages;
    int max_tokens, max_branches, threads;
    int chunk;                  /* rows at a time, a multiple of ROW_GROUP                         */
    float *cos, *sin;           /* [max_tokens][head_dim/2]                                        */
    float *q, *kv;              /* [chunk][n_head*head_dim], [2][chunk][n_head_kv*head_dim] padded */
    float *out;                 /* [chunk][n_embd] padded: what O and Down give                    */
    float *gate, *up;           /* [chunk][n_ff] padded                                            */
    /* Inputs of Q K V Gate Up, where `out` was; of O, where q was; of Down, where gate was. */
    struct input normed, attended, inner;
    uint8_t *memory;            /* all of the above                                                */
    uint8_t *embed_scratch; size_t embed_scratch_each;          /* per worker                      */
    struct head head;
    struct stream *stream;      /* weights that do not stay in memory; NULL: all do                */
    int *active;                /* [max_branches * max_tokens]: rows of x in a layer, where spans differ */
    int32_t *kept_ids; uint8_t *kept;           /* [KEPT_ROWS] of an embedding in the file: id + 1, row */
    bool failed; struct unmask_err err;         /* of reading                                      */
    _Atomic int32_t bad_id;     /* a token whose embedding is not finite, and one more; 0: none    */

    /* the pass that runs, and where it is */
    const struct pass *p;
    const float *x_in;          /* rows that norm_row reads                                        */
    const int *list;            /* the rows of x that a stage works on; NULL: all               */
    int row0, n_rows;           /* the chunk: entries row0 .. row0 + n_rows - 1 of the list        */
    int attend_rows;            /* rows of an item of attention                                    */
    int layer_index;
    const struct layer *layer;
    struct store_view view[MAX_BRANCHES];
    int branch;                 /* whose keys and values are made of its rows                      */
    bool q_with_kv;             /* one chunk holds all rows: their norm serves K, V and Q          */
};

static int q_width(const struct hparams *h) { return h->n_head * h->head_dim; }
static int kv_width(const struct hparams *h) { return h->n_head_kv * h->head_dim; }

/* ---- work space ---- */

enum { KEPT_ROWS = 512 };       /* of an embedding in the file */

static size_t lay_out(struct forward *f, uint8_t *base, struct away away)
{
    const struct hparams *h = &f->m->h;
    const size_t n = (size_t)f->max_tokens, d = (size_t)h->head_dim, rows = (size_t)f->chunk, F = sizeof(float);
    size_t used = 0, other;
    f->cos = mem_lay(base, &used, n * d / 2 * F);
    f->sin = mem_lay(base, &used, n * d / 2 * F);
    f->out = mem_lay(base, &used, rows * padded(h->n_embd) * F);
    f->normed = input_lay(f->out, padded(h->n_embd), base, &used, rows, h->n_embd);
    head_lay(&f->head, f->m, base, &used, f->threads);
    f->embed_scratch = mem_lay(base, &used, (size_t)f->threads * f->embed_scratch_each);
    f->active = mem_lay(base, &used, (size_t)f->max_branches * n * sizeof *f->active);
    f->kept_ids = mem_lay(base, &used, away.embedding ? KEPT_ROWS * sizeof *f->kept_ids : 0);
    f->kept = mem_lay(base, &used, away.embedding ? KEPT_ROWS * f->embed_scratch_each : 0);
    other = used;                               /* what attention needs is used up before the rest of the layer begins */
    f->q = mem_lay(base, &used, rows * padded(q_width(h)) * F);
    f->kv = mem_lay(base, &used, 2 * rows * padded(kv_width(h)) * F);
    f->attended = input_lay(f->q, padded(q_width(h)), base, &used, rows, q_width(h));
    f->gate = mem_lay(base, &other, rows * padded(h->n_ff) * F);
    f->up = mem_lay(base, &other, rows * padded(h->n_ff) * F);
    f->inner = input_lay(f->gate, padded(h->n_ff), base, &other, rows, h->n_ff);
    return used > other ? used : other;
}

/* One chunk takes all rows of a pass where weights are streamed, since they are read once for each. */
static void size_up(struct forward *f, const struct unmask_model *m, int max_tokens, int max_branches, struct away away, int threads)
{
    const int rows = (max_tokens * max_branches + ROW_GROUP - 1) / ROW_GROUP * ROW_GROUP, least = LOGIT_ROWS;
    *f = (struct forward){ .m = m, .max_tokens = max_tokens, .max_branches = max_branches, .threads = threads };
    f->chunk = rows < least ? least : away.matrices || rows < FORWARD_CHUNK ? rows : FORWARD_CHUNK;  /* the head's rows use it too */
    f->embed_scratch_each = (model_embed_scratch(m) + 63) & ~(size_t)63;
}

struct away forward_away(const struct unmask_model *m) { return (struct away){ m->n_stream > 0, m->embed_file != NULL }; }

size_t forward_bytes(const struct unmask_model *m, int max_tokens, int max_branches, struct away away, int threads)
{
    struct forward f;
    size_up(&f, m, max_tokens, max_branches, away, threads);
    return lay_out(&f, NULL, away);
}

/* Angles as the reference computes them, in float32: position * theta^(-2i/d). */
static void fill_rope(struct forward *f)
{
    const int half = f->m->h.head_dim / 2;
    for (int i = 0; i < half; i++) {
        const float power = (float)Sleef_finz_powd1_u10purecfma((double)f->m->h.rope_theta, (double)i / half), inv = 1.0f / power;
        for (int p = 0; p < f->max_tokens; p++) {
            f->cos[(size_t)p * (size_t)half + (size_t)i] = Sleef_finz_cosf1_u10purecfma((float)p * inv);
            f->sin[(size_t)p * (size_t)half + (size_t)i] = Sleef_finz_sinf1_u10purecfma((float)p * inv);
        }
    }
}

bool forward_open(struct forward **out, const struct unmask_model *m, int max_tokens, int max_branches,
                  struct pool *pool, struct unmask_err *err)
{
    const struct away away = forward_away(m);
    struct forward *f = mem_zalloc(1, sizeof *f, err);
    if (!f) return false;
    size_up(f, m, max_tokens, max_branches, away, pool_threads(pool));
    f->stages.pool = pool;
    const size_t bytes = lay_out(f, NULL, away);
    if (!(f->memory = mem_aligned(bytes, err)) || (away.matrices && !stream_open(&f->stream, m->stream, m->n_stream, m->ring_bytes, err))) {
        forward_close(f);
        return false;
    }
    memset(f->memory, 0, bytes);                /* padding of quantized rows and of keys is readable from the start */
    lay_out(f, f->memory, away);
    fill_rope(f);
    *out = f;
    return true;
}

void forward_close(struct forward *f)
{
    if (!f) return;
    stream_close(f->stream);
    mem_free(f->memory);
    mem_free(f);
}

int forward_max_branches(const struct forward *f) { return f->max_branches; }
int forward_max_tokens(const struct forward *f) { return f->max_tokens; }

const struct store_kind *forward_store_kind(const struct unmask_model *m)
{
    return m->k_pack->gemm_int8 ? &store_kv_i8 : &store_kv_f32;
}

void forward_measure(struct forward *f, struct stage_seconds *seconds) { stages_measure(&f->stages, seconds); }

/* ---- stages over rows; ROW_GROUP rows are one item, since they share cache lines of struct q8rows and of row stores ---- */

typedef void row_stage(struct forward *f, int row, int worker);
struct row_job { struct forward *f; row_stage *row; int n_rows; };

static void row_group(void *arg, int item, int worker)
{
    const struct row_job *j = arg;
    const int end = (item + 1) * ROW_GROUP < j->n_rows ? (item + 1) * ROW_GROUP : j->n_rows;
    for (int r = item * ROW_GROUP; r < end; r++) j->row(j->f, r, worker);
}

static void each_row(struct forward *f, enum stage stage, row_stage *row, int n_rows)
{
    stage_run(&f->stages, stage, row_group, &(struct row_job){ f, row, n_rows }, (n_rows + ROW_GROUP - 1) / ROW_GROUP);
}

static bool any_int8(const struct weight *const *w, int n)
{
    for (int i = 0; i < n; i++)
        if (w[i]->pack->gemm_int8) return true;
    return false;
}

/* Row of x that entry r of the chunk stands for; its branch and its position in the canvas. */
static int row_of(const struct forward *f, int r) { return f->list ? f->list[f->row0 + r] : f->row0 + r; }
static int branch_of(const struct forward *f, int r) { return row_of(f, r) / f->p->n_rows; }
static int position_of(const struct forward *f, int r)
{
    const int i = row_of(f, r) % f->p->n_rows;
    return f->p->rows ? f->p->rows[i] : i;
}

static float *x_row(const struct forward *f, int r) { return f->p->x + (size_t)row_of(f, r) * (size_t)f->m->h.n_embd; }

static void norm_row(struct forward *f, int r, const float *weights, const struct weight *const *in, int n)
{
    const int d = f->m->h.n_embd;
    float *y = f->normed.x + (size_t)r * f->normed.ld;
    f->m->kernels.rms_norm(y, f->x_in + (size_t)row_of(f, r) * (size_t)d, weights, d, f->m->h.norm_eps);
    if (any_int8(in, n)) f->m->kernels.quantize_q8(&f->normed.q, r, y);
}

static void attn_norm_row(struct forward *f, int r, int worker)
{
    (void)worker;
    norm_row(f, r, f->layer->attn_norm, (const struct weight *[]){ &f->layer->q, &f->layer->k, &f->layer->v }, 3);
}

static void residual_row(struct forward *f, int r, int worker)
{
    (void)worker;
    const int d = f->m->h.n_embd;
    f->m->kernels.add(x_row(f, r), f->out + (size_t)r * padded(d), d);
}

static void residual_ffn_norm_row(struct forward *f, int r, int worker)
{
    residual_row(f, r, worker);
    norm_row(f, r, f->layer->ffn_norm, (const struct weight *[]){ &f->layer->gate, &f->layer->up }, 2);
}

static void head_norm_row(struct forward *f, int r, int worker)
{
    (void)worker;
    norm_row(f, r, f->m->out_norm, (const struct weight *[]){ &f->m->head }, 1);
}

/* Bias (or NULL) and rotation of heads of one row that lie side by side, in place. */
static void rotate(const struct forward *f, float *heads, const float *bias, int n_heads, int position)
{
    const int d = f->m->h.head_dim, half = d / 2;
    if (bias) f->m->kernels.add(heads, bias, n_heads * d);
    for (int i = 0; i < n_heads; i++)
        f->m->kernels.rope(heads + (size_t)i * (size_t)d, f->cos + (size_t)position * (size_t)half,
                           f->sin + (size_t)position * (size_t)half, half);
}

/* Key and value of row r as they are stored, from what the matrices gave; in place. */
struct key_value { float *k, *v; };
static struct key_value key_value_of(const struct forward *f, int r, int position)
{
    const struct hparams *h = &f->m->h;
    const size_t ld = padded(kv_width(h));
    const struct key_value kv = { f->kv + (size_t)r * ld, f->kv + ((size_t)f->chunk + (size_t)r) * ld };
    rotate(f, kv.k, f->layer->k_bias, h->n_head_kv, position);
    if (f->layer->v_bias) f->m->kernels.add(kv.v, f->layer->v_bias, kv_width(h));
    return kv;
}

static void store_kv_row(struct forward *f, int r, int worker)
{
    (void)worker;
    const struct key_value kv = key_value_of(f, r, position_of(f, r));
    row_store_put(f->p->store[branch_of(f, r)], f->layer_index, position_of(f, r), kv.k, kv.v);
}

/* Does this row start at this layer, with what was kept there? */
static bool resumes(const struct forward *f, int row)
{
    return f->p->span && f->layer_index > 0 && f->p->span[row % f->p->n_rows].from == f->layer_index;
}

/* Where the store keeps what enters a layer: a row of the chunk is kept, or taken from there. */
static void keep_row(struct forward *f, int r, int worker)
{
    (void)worker;
    struct row_store *s = f->p->store[branch_of(f, r)];
    if (resumes(f, row_of(f, r))) row_store_get_row(s, f->layer_index, position_of(f, r), x_row(f, r));
    else row_store_put_row(s, f->layer_index, position_of(f, r), x_row(f, r));
}

/* The kept row of position row0 + r gives key and value. */
static void kept_norm_row(struct forward *f, int r, int worker)
{
    (void)worker;
    const int d = f->m->h.n_embd;
    float *y = f->normed.x + (size_t)r * f->normed.ld;
    row_store_get_row(f->p->store[f->branch], f->layer_index, f->row0 + r, y);
    f->m->kernels.rms_norm(y, y, f->layer->attn_norm, d, f->m->h.norm_eps);
    if (any_int8((const struct weight *[]){ &f->layer->k, &f->layer->v }, 2)) f->m->kernels.quantize_q8(&f->normed.q, r, y);
}

static void show_kv_row(struct forward *f, int r, int worker)
{
    (void)worker;
    const struct key_value kv = key_value_of(f, r, f->row0 + r);
    row_store_show(f->p->store[f->branch], f->row0 + r, kv.k, kv.v);
}

/* Item of attention: one head and so many rows of the chunk that its keys and values are seldom read, but that there are items
 * for every thread; their queries are rotated here, where they are used. */
enum { LEAST_ATTEND_ROWS = 16, MOST_ATTEND_ROWS = 64, ITEMS_PER_THREAD = 4 };
static int items_of_head(const struct forward *f) { return (f->n_rows + f->attend_rows - 1) / f->attend_rows; }
static void choose_attend_rows(struct forward *f)
{
    for (f->attend_rows = MOST_ATTEND_ROWS; f->attend_rows > LEAST_ATTEND_ROWS; f->attend_rows /= 2)
        if (f->m->h.n_head * items_of_head(f) >= ITEMS_PER_THREAD * f->threads) break;
}

static void attend_item(void *arg, int item, int worker)
{
    (void)worker;
    struct forward *f = arg;
    const struct hparams *h = &f->m->h;
    const int of_head = items_of_head(f);
    const int head = item / of_head, kv_head = head / (h->n_head / h->n_head_kv), first = item % of_head * f->attend_rows;
    const int end = first + f->attend_rows < f->n_rows ? first + f->attend_rows : f->n_rows;
    const size_t d = (size_t)h->head_dim, ldq = padded(q_width(h)), ldy = f->attended.ld;
    float *q = f->q + (size_t)head * d;
    const float *bias = f->layer->q_bias ? f->layer->q_bias + (size_t)head * d : NULL;
    for (int row = first; row < end; row++) {
        rotate(f, q + (size_t)row * ldq, bias, 1, position_of(f, row));
        if (f->view[0].bf16) bf16_near_all(q + (size_t)row * ldq, d);
    }
    for (int row = first, next; row < end; row = next) {         /* rows of one branch at a time */
        const int branch = branch_of(f, row);
        const size_t kv = (size_t)kv_head * (size_t)row_store_max_tokens(f->p->store[branch]) * d;
        for (next = row + 1; next < end && branch_of(f, next) == branch; ) next++;
        const struct store_view *view = &f->view[branch];
        (view->bf16 ? f->m->kernels.attend_bf16 : f->m->kernels.attend)(&(struct attend_args){
            .y = f->attended.x + (size_t)row * ldy + (size_t)head * d, .ldy = ldy, .q = q + (size_t)row * ldq, .ldq = ldq,
            .k = view->k + kv, .v = view->v + kv, .mask = f->p->key_mask, .scale = 1.0f / sqrtf((float)h->head_dim),
            .n_rows = next - row, .n_keys = f->p->n_keys, .head_dim = h->head_dim });
    }
}

static void quantize_attended_row(struct forward *f, int r, int worker)
{
    (void)worker;
    f->m->kernels.quantize_q8(&f->attended.q, r, f->attended.x + (size_t)r * f->attended.ld);
}

static void swiglu_row(struct forward *f, int r, int worker)
{
    (void)worker;
    const size_t ld = padded(f->m->h.n_ff);
    float *y = f->inner.x + (size_t)r * f->inner.ld;
    f->m->kernels.swiglu(y, f->gate + (size_t)r * ld, f->up + (size_t)r * ld, f->m->h.n_ff);
    if (any_int8((const struct weight *[]){ &f->layer->down }, 1)) f->m->kernels.quantize_q8(&f->inner.q, r, y);
}

/* A number times 0 is 0, unless it is not finite. */
static bool row_finite(const float *x, int n)
{
    enum { WIDE = 16 };
    float sums[WIDE] = { 0 };
    int i = 0;
    for (; i + WIDE <= n; i += WIDE)
        for (int j = 0; j < WIDE; j++) sums[j] += x[i + j] * 0;
    for (; i < n; i++) sums[0] += x[i] * 0;
    for (int j = 1; j < WIDE; j++) sums[0] += sums[j];
    return sums[0] == 0;
}

static int32_t id_of(const struct forward *f, int r) { return f->p->ids[branch_of(f, r)][position_of(f, r)]; }

static void embed_row(struct forward *f, int r, int worker)
{
    const int32_t id = id_of(f, r);
    model_embed(f->m, id, x_row(f, r), f->embed_scratch + (size_t)worker * f->embed_scratch_each);
    if (!row_finite(x_row(f, r), f->m->h.n_embd)) atomic_store(&f->bad_id, id + 1);
}

/* ---- the pass ---- */

static void run_products(struct forward *f, enum stage stage, const struct product *p, int n)
{
    products_run(&f->stages, stage, &f->m->kernels, f->stream, p, n, f->n_rows);
}

static void show_input(const struct forward *f, enum tensor_role role, const struct input *in)
{
    if (f->p->on_input) f->p->on_input(f->p->user, role, in->x, in->ld, f->n_rows);
}

static void chunk_kv(struct forward *f)
{
    const struct layer *l = f->layer;
    const size_t ld = padded(kv_width(&f->m->h));
    const struct product kvq[] = { { &l->k, &f->normed, f->kv, ld }, { &l->v, &f->normed, f->kv + (size_t)f->chunk * ld, ld },
                                   { &l->q, &f->normed, f->q, padded(q_width(&f->m->h)) } };
    each_row(f, STAGE_NORM, attn_norm_row, f->n_rows);
    show_input(f, T_Q, &f->normed);
    run_products(f, STAGE_QKV, kvq, f->q_with_kv ? 3 : 2);
    each_row(f, STAGE_STORE, store_kv_row, f->n_rows);
}

static void chunk_keep(struct forward *f) { each_row(f, STAGE_STORE, keep_row, f->n_rows); }

static void chunk_show(struct forward *f)
{
    const struct layer *l = f->layer;
    const size_t ld = padded(kv_width(&f->m->h));
    const struct product kv[] = { { &l->k, &f->normed, f->kv, ld }, { &l->v, &f->normed, f->kv + (size_t)f->chunk * ld, ld } };
    each_row(f, STAGE_NORM, kept_norm_row, f->n_rows);
    run_products(f, STAGE_QKV, kv, 2);
    each_row(f, STAGE_STORE, show_kv_row, f->n_rows);
}

static void chunk_rest(struct forward *f)
{
    const struct layer *l = f->layer;
    const struct hparams *h = &f->m->h;
    const struct product gate_up[] = { { &l->gate, &f->normed, f->gate, padded(h->n_ff) }, { &l->up, &f->normed, f->up, padded(h->n_ff) } };
    if (!f->q_with_kv) {
        each_row(f, STAGE_NORM, attn_norm_row, f->n_rows);
        run_products(f, STAGE_QKV, &(struct product){ &l->q, &f->normed, f->q, padded(q_width(h)) }, 1);
    }
    choose_attend_rows(f);
    stage_run(&f->stages, STAGE_ATTENTION, attend_item, f, h->n_head * items_of_head(f));
    if (any_int8((const struct weight *[]){ &l->o }, 1)) each_row(f, STAGE_QUANTIZE, quantize_attended_row, f->n_rows);
    show_input(f, T_O, &f->attended);
    run_products(f, STAGE_O, &(struct product){ &l->o, &f->attended, f->out, padded(h->n_embd) }, 1);
    each_row(f, STAGE_NORM, residual_ffn_norm_row, f->n_rows);
    show_input(f, T_GATE, &f->normed);
    run_products(f, STAGE_GATE_UP, gate_up, 2);
    each_row(f, STAGE_SWIGLU, swiglu_row, f->n_rows);
    show_input(f, T_DOWN, &f->inner);
    run_products(f, STAGE_DOWN, &(struct product){ &l->down, &f->inner, f->out, padded(h->n_embd) }, 1);
    each_row(f, STAGE_RESIDUAL, residual_row, f->n_rows);
}

/* A stage over the listed rows of x (list NULL: the first n), a chunk at a time. */
static void each_chunk(struct forward *f, void (*stage)(struct forward *f), const int *list, int n)
{
    f->list = list;
    for (f->row0 = 0; f->row0 < n; f->row0 += f->chunk) {
        f->n_rows = n - f->row0 < f->chunk ? n - f->row0 : f->chunk;
        stage(f);
    }
}

/* A row of an embedding that is left in the file; those used last are kept. */
static bool embed_from_file(struct forward *f, int r)
{
    const int32_t id = id_of(f, r);
    const size_t bytes = model_embed_scratch(f->m), place = (size_t)id % KEPT_ROWS;
    uint8_t *row = f->kept + place * f->embed_scratch_each;
    if (f->kept_ids[place] != id + 1) {
        f->kept_ids[place] = 0;
        if (!file_read(f->m->embed_file, f->m->embed_offset + (uint64_t)id * bytes, row, bytes, &f->err)) return false;
        f->kept_ids[place] = id + 1;
    }
    f->m->embed_format->dequantize_row(x_row(f, r), row, (size_t)f->m->h.n_embd);
    if (!row_finite(x_row(f, r), f->m->h.n_embd)) f->bad_id = id + 1;
    return true;
}

/* Rows are looked at where they are used: to look at all of them would take as long as to load them. */
static void embed_chunk(struct forward *f)
{
    if (!f->m->embed_file) each_row(f, STAGE_EMBED, embed_row, f->n_rows);
    else for (int r = 0; r < f->n_rows && !f->failed; r++) f->failed = !embed_from_file(f, r);
    if (f->failed || !f->bad_id) return;
    f->failed = true;
    fail(&f->err, E_TENSOR_VALUE, .file = f->m->path, .field = FMT("embedding of token %d", f->bad_id - 1), .need = "finite numbers",
         .hint = "The file is damaged; fetch it again");
}

/* Number of those that lead the n at x and have squares whose sum is finite, as a norm needs it. */
static int usable(const float *x, int n)
{
    const float most = 0x1p53f;                 /* 2^106 times MAX_WIDTH is below the largest float */
    bool good = true;
    int i = 0;
    for (int j = 0; j < n; j++) good &= fabsf(x[j]) <= most;
    while (!good && fabsf(x[i]) <= most) i++;
    return good ? n : i;
}

/* Rounding to int8 takes what is not finite for some number: an overflow would end as logits that look like any others. */
static bool check_rows(struct forward *f, const int *list, int n)
{
    const int d = f->m->h.n_embd;
    for (int i = 0; i < n && !f->failed; i++) {
        const int row = list ? list[i] : i, position = row % f->p->n_rows;
        const float *x = f->p->x + (size_t)row * (size_t)d;
        const int good = usable(x, d);
        if (good < d)
            f->failed = !model_fail_output(f->m, FMT("position %d", f->p->rows ? f->p->rows[position] : position),
                                           FMT("%g after the last layer", (double)x[good]), &f->err);
    }
    return !f->failed;
}

/* Nothing that a pass computed counts where it read from a file that failed, or changed meanwhile. */
static bool check_files(struct forward *f)
{
    f->failed = f->failed || (f->stream && (stream_failed(f->stream, &f->err) || !stream_unchanged(f->stream, &f->err)))
        || (f->m->embed_file && !file_unchanged(f->m->embed_file, &f->err));
    return !f->failed;
}

bool forward_failed(const struct forward *f, struct unmask_err *err)
{
    if (f->failed && err) *err = f->err;
    return f->failed;
}

bool forward_drain(struct forward *f)
{
    if (f->stream) stream_drain(f->stream);
    return check_files(f);
}

uint64_t forward_bytes_read(const struct forward *f) { return f->stream ? stream_bytes_read(f->stream) : 0; }

/* Rows of x that go through a layer, *n of them; NULL: all. */
static const int *rows_of_layer(struct forward *f, int layer, int *n)
{
    const int all = *n = f->p->n_branches * f->p->n_rows;
    if (!f->p->span) return NULL;
    *n = 0;
    for (int row = 0; row < all; row++) {
        const struct span s = f->p->span[row % f->p->n_rows];
        if (s.from <= layer && layer < s.to) f->active[(*n)++] = row;
    }
    return f->active;
}

static void view_store(struct forward *f, int branch)
{
    const struct lap l = stage_begin(&f->stages);
    f->view[branch] = row_store_view(f->p->store[branch], f->layer_index, f->p->n_keys, f->stages.pool);
    stage_end(&f->stages, STAGE_VIEW, l);
}

bool forward_pass(struct forward *f, const struct pass *p)
{
    const bool rows = row_store_keeps_rows(p->store[0]);
    f->p = p;
    f->x_in = p->x;
    int n;
    const int *list = rows_of_layer(f, 0, &n);
    if (!p->resume) each_chunk(f, embed_chunk, list, n);
    for (int i = 0; i < f->m->h.n_layer && !f->failed; i++) {
        const bool trim = p->need && i == f->m->h.n_layer - 1;
        list = rows_of_layer(f, i, &n);
        f->layer_index = i;
        f->layer = &f->m->layers[i];
        f->q_with_kv = n <= f->chunk && !trim && !rows;
        if (row_store_keeps_state(p->store[0], i)) each_chunk(f, chunk_keep, list, n);
        if (!rows) each_chunk(f, chunk_kv, list, n);
        for (f->branch = 0; rows && f->branch < p->n_branches; f->branch++) each_chunk(f, chunk_show, NULL, p->n_keys);
        for (int b = 0; b < p->n_branches; b++) view_store(f, b);
        each_chunk(f, chunk_rest, trim ? p->need : list, trim ? p->n_need : n);
        if (f->stream && stream_failed(f->stream, NULL)) break;
        if (p->on_layer && !p->on_layer(p->user, i, p->x)) return false;
        if (i == f->m->h.n_layer - 1 && !f->failed) check_rows(f, trim ? p->need : list, trim ? p->n_need : n);
    }
    return check_files(f);
}

static void norm_head_rows(struct forward *f, const float *x, const int *rows, int n_rows)
{
    f->x_in = x;
    f->list = rows;
    f->row0 = 0;
    each_row(f, STAGE_NORM, head_norm_row, n_rows);
}

void forward_logits(struct forward *f, const float *x, const int *rows, int n_rows, float *logits, size_t ld)
{
    if (n_rows == 0) return;
    norm_head_rows(f, x, rows, n_rows);
    head_logits(&f->head, &f->stages, &f->normed, n_rows, logits, ld);
}

void forward_head(struct forward *f, const float *x, const int *rows, int n_rows,
                  const struct logit_apart *apart, struct logit_apart_values *values, struct logit_stats *stats)
{
    if (n_rows == 0) return;
    norm_head_rows(f, x, rows, n_rows);
    head_stats(&f->head, &f->stages, &f->normed, n_rows, apart, values, stats);
}
