/* quantize_file.c - see quantize.h: open, plan, write, read back, and only then give the file its name. */
#include "quantize_parts.h"

#include <string.h>

#include "mem.h"
#include "reader.h"

/* ---- steps ----------------------------------------------------------------------------------------- */

static bool input_unchanged(const struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->in->reader->n_files; i++)
        if (!file_unchanged(&j->in->reader->files[i], err)) return false;
    return true;
}

static bool verify_tensor(struct quantize_job *j, const struct tensor *t, const struct piece *p,
                          uint8_t *buffer, size_t size, struct unmask_err *err)
{
    struct sha256_ctx sha;
    struct checksum_text text;
    bool same = !strcmp(t->name, p->name) && t->format == p->to && t->packed == p->packed
        && t->bytes == p->bytes && !memcmp(t->shape, p->from->shape, sizeof t->shape);
    sha256_init(&sha);
    for (uint64_t at = 0; same && at < t->bytes; ) {
        const size_t n = t->bytes - at < size ? (size_t)(t->bytes - at) : size;
        if (!checkpoint_read(t, at, buffer, n, err)) return false;
        sha256_update(&sha, n, buffer);
        at += n;
        j->done += n;
        if (!quantize_tell(j, QUANTIZE_VERIFYING, p->name, err)) return false;
    }
    return (same && !strcmp(checksum_end(&sha, &text), p->sha256.s))
           || fail(err, E_QNT_VERIFY, .file = j->shards[p->shard].path, .field = p->name, .hint = "Check the disk, then try again");
}

static bool same_hparams(const struct hparams *a, const struct hparams *b)
{
    return a->n_layer == b->n_layer && a->n_embd == b->n_embd && a->n_head == b->n_head && a->n_head_kv == b->n_head_kv
        && a->head_dim == b->head_dim && a->n_ff == b->n_ff && a->n_vocab == b->n_vocab && a->n_ctx == b->n_ctx
        && a->rope_theta == b->rope_theta && a->norm_eps == b->norm_eps
        && a->mask_id == b->mask_id && a->eos_id == b->eos_id && a->bos_id == b->bos_id && a->eot_id == b->eot_id
        && a->tied_head == b->tied_head && a->qkv_bias == b->qkv_bias;
}

/* The file on disk, opened like any model, must mean what was meant, tensor by tensor. */
static bool verify(struct quantize_job *j, struct unmask_err *err)
{
    enum { BUFFER = 1 << 20 };
    struct checkpoint *c = NULL;
    struct tokenizer *t = NULL;
    struct hparams h;
    uint8_t *buffer = mem_resize(NULL, BUFFER, 1, err);
    bool ok = buffer && quantize_shards_reopen(j, &c, err) && arch_hparams(j->arch, c, &h, err);
    if (ok && j->in->kind == CHECKPOINT_FOLDER) ok = tokenizer_open(&t, c, err);        /* of a GGUF file it was copied */
    if (ok && (c->n_tensors != j->n_pieces || !same_hparams(&h, &j->h)))
        ok = fail(err, E_QNT_VERIFY, .file = j->shards[0].path, .field = "metadata");
    for (size_t i = 0; ok && i < j->n_pieces; i++) ok = verify_tensor(j, &c->tensors[i], &j->pieces[i], buffer, BUFFER, err);
    tokenizer_close(t);
    checkpoint_close(c);
    mem_free(buffer);
    return ok;
}

static bool write_files(struct quantize_job *j, struct unmask_err *err)
{
    const int workers = pool_size(j->o->threads);
    j->total = j->report->in_bytes;
    for (size_t i = 0; i < j->n_pieces; i++) j->total += j->pieces[i].bytes;
    j->total += quantize_calibrate_work(j);
    j->report->memory_bytes = quantize_rows_memory(j, workers) + quantize_calibrate_memory(j, workers);
    j->report->n_calibrated = quantize_n_calibrated(j);
    j->report->random_ids = quantize_random_ids(j);
    if (!quantize_shards_open(j, err) || !quantize_tell(j, QUANTIZE_PLANNED, NULL, err)) return false;
    return j->o->dry_run || (pool_open(&j->pool, j->o->threads, err) && quantize_shards_headers(j, err)
                             && quantize_calibrate_open(j, err) && quantize_rows(j, err)
                             && quantize_shards_complete(j, err) && input_unchanged(j, err)
                             && verify(j, err) && quantize_shards_commit(j, err));
}

bool quantize_file(const char *in, const char *out, const struct quantize_options *o,
                   struct quantize_report *report, struct unmask_err *err)
{
    struct quantize_job j = { .o = o, .report = report };
    *report = (struct quantize_report){ 0 };
    const bool ok = checkpoint_open(&j.in, in, err) && (j.arch = arch_of(j.in, err)) != NULL && arch_hparams(j.arch, j.in, &j.h, err)
        && quantize_plan(&j, err) && quantize_shards_plan(&j, out, err) && quantize_describe(&j, err) && write_files(&j, err);
    quantize_shards_free(&j);
    quantize_calibrate_close(&j);
    pool_close(j.pool);
    rules_close(j.rules);
    mem_free(j.pieces);
    checkpoint_close(j.in);
    return ok;
}
