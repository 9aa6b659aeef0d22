/* row_store.c - see row_store.h. */
#include "row_store.h"

#include <string.h>

#include "mem.h"

const struct store_kind *const store_kinds[] = { &store_kv_f32, &store_kv_f16, &store_kv_i8, &store_kv_i4, &store_hidden, NULL };

/* Over fewer keys attention takes 3 % of a pass at most, and float32 costs nothing. */
enum { SHORT_CANVAS = 256 };

struct row_store {
    const struct store_kind *kind;
    struct store_shape shape;
    struct store_layers keep;
    int n_layers;               /* keep.n, or 1: every layer's rows replace those of the one before */
    size_t layer_bytes;
    uint8_t *layers, *state;    /* [n_layers]; what entered layer keep.state, unless the kind keeps rows of every layer */
    float *view;                /* one layer in attention's layout; NULL where the layers lie so already */
    uint8_t *memory;
};

const struct store_kind *store_kind_by_name(const char *name)
{
    for (int i = 0; store_kinds[i]; i++)
        if (!strcmp(store_kinds[i]->name, name)) return store_kinds[i];
    return NULL;
}

static struct store_shape shape_of(const struct hparams *h, int max_tokens)
{
    return (struct store_shape){ h->n_head_kv, h->head_dim, (max_tokens + LANES - 1) / LANES, h->n_embd };
}

static size_t lay_out(struct row_store *s, uint8_t *base)
{
    size_t used = 0;
    s->layer_bytes = (s->kind->layer_bytes(&s->shape) + 63) & ~(size_t)63;
    s->n_layers = s->keep.n ? s->keep.n : 1;
    s->layers = mem_lay(base, &used, (size_t)s->n_layers * s->layer_bytes);
    s->state = mem_lay(base, &used, s->keep.state && !s->kind->put_row ? store_hidden.layer_bytes(&s->shape) : 0);
    s->view = s->kind->get || s->kind->put_row ? mem_lay(base, &used, 2 * store_numbers(&s->shape) * sizeof(float)) : NULL;
    return used;
}

size_t row_store_bytes(const struct store_kind *kind, const struct hparams *h, int max_tokens, struct store_layers layers)
{
    struct row_store s = { .kind = kind, .shape = shape_of(h, max_tokens), .keep = layers };
    return lay_out(&s, NULL);
}

bool row_store_open(struct row_store **out, const struct store_kind *kind, const struct hparams *h, int max_tokens,
                    struct store_layers layers, struct unmask_err *err)
{
    struct row_store *s = mem_zalloc(1, sizeof *s, err);
    if (!s) return false;
    *s = (struct row_store){ .kind = kind, .shape = shape_of(h, max_tokens), .keep = layers };
    const size_t bytes = lay_out(s, NULL);
    if (!(s->memory = mem_aligned(bytes, err))) {
        mem_free(s);
        return false;
    }
    memset(s->memory, 0, bytes);                /* the tail of the last tile is read, and must be finite */
    lay_out(s, s->memory);
    *out = s;
    return true;
}

void row_store_close(struct row_store *s)
{
    if (!s) return;
    mem_free(s->memory);
    mem_free(s);
}

int row_store_max_tokens(const struct row_store *s) { return s->shape.n_tiles * LANES; }

static uint8_t *layer_of(const struct row_store *s, int layer) { return s->layers + (size_t)(layer % s->n_layers) * s->layer_bytes; }

void row_store_put(struct row_store *s, int layer, int position, const float *k, const float *v)
{
    s->kind->put(&s->shape, layer_of(s, layer), position, k, v);
}

bool row_store_keeps_rows(const struct row_store *s) { return s->kind->put_row; }

/* The rows that entered a layer; NULL: they are not kept. */
static uint8_t *state_of(const struct row_store *s, int layer)
{
    if (s->kind->put_row) return layer_of(s, layer);
    return s->keep.state && s->keep.state == layer ? s->state : NULL;
}

static const struct store_kind *state_kind(const struct row_store *s) { return s->kind->put_row ? s->kind : &store_hidden; }

bool row_store_keeps_state(const struct row_store *s, int layer) { return state_of(s, layer); }

void row_store_put_row(struct row_store *s, int layer, int position, const float *x)
{
    state_kind(s)->put_row(&s->shape, state_of(s, layer), position, x);
}

void row_store_get_row(const struct row_store *s, int layer, int position, float *x)
{
    state_kind(s)->get_row(&s->shape, state_of(s, layer), position, x);
}

void row_store_show(struct row_store *s, int position, const float *k, const float *v)
{
    store_kv_f32.put(&s->shape, s->view, position, k, v);
}

struct unpack { struct row_store *s; const uint8_t *layer; bool bf16; };

static void unpack_head(void *arg, int item, int worker)
{
    (void)worker;
    const struct unpack *u = arg;
    const struct store_shape *shape = &u->s->shape;
    const int head = item % shape->n_head_kv, tile = item / shape->n_head_kv;
    const size_t at = ((size_t)head * (size_t)shape->n_tiles + (size_t)tile) * LANES * (size_t)shape->head_dim;
    float *k = u->s->view + at, *v = k + store_numbers(shape);
    if (u->s->kind->get) u->s->kind->get(shape, u->layer, head, tile, k, v);
    if (u->bf16) {
        bf16_near_all(k, LANES * (size_t)shape->head_dim);
        bf16_near_all(v, LANES * (size_t)shape->head_dim);
    }
}

struct store_view row_store_view(struct row_store *s, int layer, int n_keys, struct pool *pool)
{
    const float *at = s->view;
    const bool bf16 = s->kind->bf16 && n_keys > SHORT_CANVAS;
    if (s->kind->get || bf16)
        pool_run(pool, unpack_head, &(struct unpack){ s, layer_of(s, layer), bf16 }, s->shape.n_head_kv * ((n_keys + LANES - 1) / LANES));
    if (!s->view) at = (const float *)(const void *)layer_of(s, layer);
    return (struct store_view){ at, at + store_numbers(&s->shape), bf16 };
}
