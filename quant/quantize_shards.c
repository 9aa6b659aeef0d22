/* quantize_shards.c - the files of the output: one, or several as llama.cpp's gguf-split makes them (gguf.h). */
#include "quantize_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "mem.h"
#include "reader.h"

/* Cut the pieces into shards of at most split_bytes of tensors, but of at least one tensor. */
static bool cut(struct quantize_job *j, struct unmask_err *err)
{
    const uint64_t most = j->o->split_bytes ? j->o->split_bytes : UINT64_MAX;
    uint64_t bytes = 0;
    if (!(j->shards = mem_zalloc(GGUF_MOST_PARTS, sizeof *j->shards, err))) return false;
    j->n_shards = 1;
    for (size_t i = 0; i < j->n_pieces; i++) {
        if (i && (bytes >= most || j->pieces[i].bytes > most - bytes)) {
            if (j->n_shards == GGUF_MOST_PARTS)
                return fail(err, E_QNT_SPLIT, .found = FMT("more than %d files of %" PRIu64 " bytes", GGUF_MOST_PARTS, most),
                            .need = "a larger --split-size");
            j->n_shards++;
            bytes = 0;
        }
        bytes += j->pieces[i].bytes;
        j->pieces[i].shard = j->n_shards - 1;
    }
    return true;
}

/* Writing over what is being read would lose it, whatever the paths look like. */
static bool refuse_same_file(const struct quantize_job *j, const char *out, struct unmask_err *err)
{
    return !checkpoint_has_file(j->in, out)
        || fail(err, E_QNT_SAME, .file = out, .found = FMT("a file of the input %s", j->in->path), .need = "another path");
}

bool quantize_shards_plan(struct quantize_job *j, const char *out, struct unmask_err *err)
{
    if (!cut(j, err)) return false;
    j->report->n_files = j->n_shards;
    for (size_t i = 0; i < j->n_shards; i++) {
        struct shard *s = &j->shards[i];
        s->path = j->n_shards == 1 ? mem_strndup(out, strlen(out), err) : gguf_part_path(out, i, j->n_shards, err);
        if (!s->path || !refuse_same_file(j, s->path, err) || !gguf_writer_new(&s->writer, err)) return false;
    }
    return true;
}

static bool put_small(struct gguf_writer *w, const char *key, enum meta_type type, size_t v, struct unmask_err *err)
{
    const struct meta m = { .key = str_of(key), .type = type, .v.u = v };
    return gguf_put_meta(w, &m, err);
}

/* Every shard says which one it is; the first one holds the checksums of all tensors. */
bool quantize_shards_describe(struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->n_shards; i++) {
        struct gguf_writer *w = j->shards[i].writer;
        if (!layout_align(j, w, err)) return false;
        if (j->n_shards == 1) break;
        if (!put_small(w, "split.no", META_U16, i, err) || !put_small(w, "split.count", META_U16, j->n_shards, err)
            || !put_small(w, "split.tensors.count", META_I32, j->n_pieces, err)) return false;
    }
    for (size_t i = 0; i < j->n_pieces; i++) {
        struct piece *p = &j->pieces[i];
        if (!gguf_reserve_str(j->shards[0].writer, FMT(CHECKSUM_PREFIX "%s", p->name), CHECKSUM_DIGITS, &p->sha256_place, err)
            || !layout_put(p, j->shards[p->shard].writer, err)) return false;
    }
    for (size_t i = 0; i < j->n_shards; i++) j->report->out_bytes += gguf_writer_bytes(j->shards[i].writer);
    return true;
}

bool quantize_shards_open(struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->n_shards; i++)    /* the first one asks for the space of all */
        if (!outfile_open(&j->shards[i].out, j->shards[i].path, j->o->force, i ? 0 : j->report->out_bytes, err)) return false;
    return true;
}

bool quantize_shards_headers(struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->n_shards; i++)
        if (!gguf_write_header(j->shards[i].writer, &j->shards[i].out, err)) return false;
    return true;
}

bool quantize_shards_complete(struct quantize_job *j, struct unmask_err *err)
{
    for (size_t i = 0; i < j->n_shards; i++) {
        const struct shard *s = &j->shards[i];
        const uint64_t need = gguf_writer_bytes(s->writer);
        if (s->out.written != need)
            return fail(err, E_INTERNAL, .file = s->path, .found = FMT("%" PRIu64 " bytes", s->out.written), .need = FMT("%" PRIu64, need));
    }
    for (size_t i = 0; i < j->n_pieces; i++)
        gguf_fill(j->shards[0].writer, j->pieces[i].sha256_place, j->pieces[i].sha256.s, CHECKSUM_DIGITS);
    return gguf_rewrite_metas(j->shards[0].writer, &j->shards[0].out, err);
}

bool quantize_shards_reopen(struct quantize_job *j, struct checkpoint **c, struct unmask_err *err)
{
    const char *temps[GGUF_MOST_PARTS];
    for (size_t i = 0; i < j->n_shards; i++) {
        if (!outfile_settle(&j->shards[i].out, err)) return false;
        temps[i] = j->shards[i].out.temp;
    }
    return checkpoint_open_parts(c, temps, j->n_shards, err);
}

/* Shards 0 to i have not got their names; all are there. */
static bool without_names(const struct quantize_job *j, size_t i, struct unmask_err *err)
{
    if (err && i > 0)
        snprintf(err->hint, sizeof err->hint, "The parts 1 to %zu of the result are %.150s and so on; give them their names", i + 1,
                 j->shards[0].out.temp);
    return false;
}

/* Several files cannot take the place of several others at once.  The first shard is the one by which a model is opened: the
 * old one goes before anything else and the new one comes last, so that never old and new ones are taken for one model. */
bool quantize_shards_commit(struct quantize_job *j, struct unmask_err *err)
{
    const struct outfile *first = &j->shards[0].out;
    for (size_t i = 0; j->n_shards > 1 && i < j->n_shards; i++) outfile_keep(&j->shards[i].out);
    if (j->n_shards > 1 && j->o->force) unlinkat(first->folder_fd, file_name(first->path), 0);
    for (size_t i = j->n_shards; i-- > 0; )
        if (!outfile_commit(&j->shards[i].out, err)) return without_names(j, i, err);
    return true;
}

void quantize_shards_free(struct quantize_job *j)
{
    for (size_t i = 0; j->shards && i < j->n_shards; i++) {
        outfile_abort(&j->shards[i].out);
        gguf_writer_free(j->shards[i].writer);
        mem_free(j->shards[i].path);
    }
    mem_free(j->shards);
}
