/* safetensors.h - Hugging Face folders: config.json and *.safetensors (one file, or shards with an index).
 * Rules of huggingface/safetensors: strict header, ranges contiguous, no holes, no overlaps. */
#ifndef SAFETENSORS_H
#define SAFETENSORS_H

#include "checkpoint.h"

bool safetensors_open_folder(struct checkpoint *c, const char *path, struct unmask_err *err);

#endif
