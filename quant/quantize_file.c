/* quantize_file.c - see quantize.h: open, plan, write, read back, and only then give the file its name. */
#include "quantize_parts.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "mem.h"
#include "reader.h"

/* ---- steps ----------------------------------------------------------------------------------------- */

bool quantize_tell(struct quantize_job *j, enum quantize_stage stage, const char *tensor, struct unmask_err *err)
{
    const struct quantize_progress p = { stage, tensor, j->done, j->total, j->report };
    return !j->o->on_progress || j->o->on_progress(j->o->user, &p) || fail(err, E_CANCELLED, .file = j->out.path);
}

/* Writing over what is being read would lose it, whatever the paths look like. */
static bool refuse_same_file(const struct quantize_job *j, const char *out, struct unmask_err *err)
{
    struct stat st;
    if (stat(out, &st) != 0) return true;
    for (size_t i = 0; i < j->in->reader->n_files; i++) {
        const struct file *f = &j->in->reader->files[i];
        if (f->device == (uint64_t)st.st_dev && f->inode == (uint64_t)st.st_ino)
            return fail(err, E_QNT_SAME, .file = out, .found = FMT("the input %s", f->path), .need = "another path");
    }
    return true;
}

static bool input_unchanged(const struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->in->reader->n_files; i++)
        if (!file_unchanged(&j->in->reader->files[i], err)) return false;
    return true;
}

static bool verify_tensor(struct quantize_job *j, const struct tensor *t, const struct piece *p, uint8_t *buffer, size_t size, struct unmask_err *err)
{
    struct sha256_ctx sha;
    struct checksum_text text;
    bool same = !strcmp(t->name, p->name) && t->format == p->to && t->bytes == p->bytes && !memcmp(t->shape, p->from->shape, sizeof t->shape);
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
           || fail(err, E_QNT_VERIFY, .file = j->out.path, .field = p->name, .hint = "Check the disk, then try again");
}

static bool same_hparams(const struct hparams *a, const struct hparams *b)
{
    return a->n_layer == b->n_layer && a->n_embd == b->n_embd && a->n_head == b->n_head && a->n_head_kv == b->n_head_kv && a->head_dim == b->head_dim
        && a->n_ff == b->n_ff && a->n_vocab == b->n_vocab && a->n_ctx == b->n_ctx && a->rope_theta == b->rope_theta && a->norm_eps == b->norm_eps
        && a->mask_id == b->mask_id && a->eos_id == b->eos_id && a->bos_id == b->bos_id && a->eot_id == b->eot_id && a->tied_head == b->tied_head
        && a->qkv_bias == b->qkv_bias;
}

/* The file on disk, opened like any model, must mean what was meant, tensor by tensor. */
static bool verify(struct quantize_job *j, struct unmask_err *err)
{
    enum { BUFFER = 1 << 20 };
    struct checkpoint *c = NULL;
    struct tokenizer *t = NULL;
    struct hparams h;
    uint8_t *buffer = mem_resize(NULL, BUFFER, 1, err);
    bool ok = buffer && checkpoint_open(&c, j->out.temp, err) && arch_hparams(j->arch, c, &h, err);
    if (ok && j->in->kind == CHECKPOINT_FOLDER) ok = tokenizer_open(&t, c, err);        /* of a GGUF file it was copied */
    if (ok && (c->n_tensors != j->n_pieces || !same_hparams(&h, &j->h))) ok = fail(err, E_QNT_VERIFY, .file = j->out.path, .field = "metadata");
    for (size_t i = 0; ok && i < j->n_pieces; i++) ok = verify_tensor(j, &c->tensors[i], &j->pieces[i], buffer, BUFFER, err);
    tokenizer_close(t);
    checkpoint_close(c);
    mem_free(buffer);
    return ok;
}

/* The checksums, now that all are known, in their places in the metadata. */
static bool write_checksums(struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->n_pieces; i++) gguf_fill(j->writer, j->pieces[i].sha256_place, j->pieces[i].sha256.s, CHECKSUM_DIGITS);
    return gguf_rewrite_metas(j->writer, &j->out, err);
}

static bool write_file(struct quantize_job *j, const char *out, struct unmask_err *err)
{
    const uint64_t bytes = j->report->out_bytes;
    j->total = j->report->in_bytes;
    for (size_t i = 0; i < j->n_pieces; i++) j->total += j->pieces[i].bytes;
    return outfile_open(&j->out, out, j->o->force, bytes, err) && quantize_tell(j, QUANTIZE_PLANNED, NULL, err)
        && pool_open(&j->pool, j->o->threads, err) && gguf_write_header(j->writer, &j->out, err) && quantize_rows(j, err)
        && (j->out.written == bytes || fail(err, E_INTERNAL, .file = out, .found = FMT("%" PRIu64 " bytes", j->out.written), .need = FMT("%" PRIu64, bytes)))
        && write_checksums(j, err) && input_unchanged(j, err) && verify(j, err) && outfile_commit(&j->out, err);
}

bool quantize_file(const char *in, const char *out, const struct quantize_options *o, struct quantize_report *report, struct unmask_err *err)
{
    struct quantize_job j = { .o = o, .report = report };
    *report = (struct quantize_report){ 0 };
    const bool ok = checkpoint_open(&j.in, in, err) && refuse_same_file(&j, out, err) && (j.arch = arch_of(j.in, err)) != NULL
        && arch_hparams(j.arch, j.in, &j.h, err) && quantize_plan(&j, err) && quantize_describe(&j, in, err) && write_file(&j, out, err);
    if (!ok) outfile_abort(&j.out);
    pool_close(j.pool);
    gguf_writer_free(j.writer);
    mem_free(j.pieces);
    checkpoint_close(j.in);
    return ok;
}
