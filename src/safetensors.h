/* safetensors.h - Hugging Face folders: config.json and *.safetensors (one file, or shards with an index). */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "checkpoint.h"

/* Fill c from the folder at path: fields of config.json as metas, tensors of all its *.safetensors files. */
bool safetensors_open_folder(struct checkpoint *c, const char *path, struct unmask_err *err);

/* Does a path lead to a file of the folder that belongs to a model by its name: weights, index, configurations, tokenizer? */
bool safetensors_folder_has(const char *folder, const char *path);

/* Append the tensors of one *.safetensors file, in the order of their bytes.  Rules of huggingface/safetensors: strict
 * header, ranges contiguous, no holes, no overlaps, nothing behind the last one.  f must live as long as c. */
bool safetensors_append(struct checkpoint *c, const struct file *f, struct unmask_err *err);

#endif
