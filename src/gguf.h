/* gguf.h - GGUF files (ggml docs/gguf.md): read versions 2 and 3, write version 3.  Little-endian only. */
#ifndef GGUF_H
#define GGUF_H

#include "checkpoint.h"
#include "outfile.h"

/* Open f's file as a checkpoint; takes f over on success.  Of a split model it is one part. */
bool gguf_open(struct checkpoint *c, struct file *f, struct unmask_err *err);

/* Split models, as llama.cpp's gguf-split makes them: the first part holds all metadata, every part split.no, split.count and
 * split.tensors.count; their names end in -00001-of-00003.gguf. */
enum { GGUF_MOST_PARTS = 128 };
/* c holds the first part, opened by gguf_open(): join the others to it, out of paths[n], or, where paths is NULL, those beside
 * it.  Does nothing to a model that is not split. */
bool gguf_join_parts(struct checkpoint *c, const char *const *paths, size_t n, struct unmask_err *err);
/* The path of part i of n, from that of the whole ("model.gguf" or "model"); mem_free. */
char *gguf_part_path(const char *whole, size_t i, size_t n, struct unmask_err *err);

/* Writing: collect metadata (each key once) and tensor descriptions, then write header, then the tensors' bytes in order. */
struct gguf_writer;
bool gguf_writer_new(struct gguf_writer **out, struct unmask_err *err);
bool gguf_put_u32(struct gguf_writer *w, const char *key, uint32_t v, struct unmask_err *err);
bool gguf_put_f32(struct gguf_writer *w, const char *key, float v, struct unmask_err *err);
bool gguf_put_bool(struct gguf_writer *w, const char *key, bool v, struct unmask_err *err);
bool gguf_put_str(struct gguf_writer *w, const char *key, struct str v, struct unmask_err *err);
bool gguf_put_i32s(struct gguf_writer *w, const char *key, const int32_t *v, size_t n, struct unmask_err *err);
bool gguf_put_strs(struct gguf_writer *w, const char *key, const struct str *v, size_t n, struct unmask_err *err);
/* A text of n bytes that is known only later: zeros until gguf_fill(), which gguf_rewrite_metas() brings into the file. */
bool gguf_reserve_str(struct gguf_writer *w, const char *key, size_t n, size_t *place, struct unmask_err *err);
void gguf_fill(struct gguf_writer *w, size_t place, const char *text, size_t n);
/* As it stands in another GGUF file; its general.alignment is left out (gguf_writer_align). */
bool gguf_put_meta(struct gguf_writer *w, const struct meta *m, struct unmask_err *err);
/* Where tensors start: 32 unless another power of two is set, before the first of them. */
bool gguf_writer_align(struct gguf_writer *w, uint32_t alignment, struct unmask_err *err);
bool gguf_put_packed(struct gguf_writer *w, const char *name, const struct pack_format *p, const uint64_t shape[4], struct unmask_err *err);
bool gguf_put_tensor(struct gguf_writer *w, const char *name, const struct quant_format *f, int n_dims,
                     const uint64_t shape[4], struct unmask_err *err);
uint64_t gguf_writer_bytes(const struct gguf_writer *w);       /* size of the finished file */
bool gguf_write_header(struct gguf_writer *w, struct outfile *o, struct unmask_err *err);
bool gguf_rewrite_metas(struct gguf_writer *w, struct outfile *o, struct unmask_err *err);
/* Zero bytes after each tensor, the last one too, so that the next starts aligned. */
bool gguf_write_padding(const struct gguf_writer *w, struct outfile *o, struct unmask_err *err);
void gguf_writer_free(struct gguf_writer *w);

#endif
