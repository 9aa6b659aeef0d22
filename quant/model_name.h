/* model_name.h - names of models and their files by GGUF's naming rule (ggml docs/gguf.md):
 * BaseName-SizeLabel-FineTune-Version-Encoding.gguf, such as LLaDA-8B-Instruct-v1.0-Q4_0.gguf. */
#ifndef MODEL_NAME_H
#define MODEL_NAME_H

#include "cursor.h"
#include "err.h"

/* Parts that a name does not have are empty. */
struct model_name { char base[96], size[16], finetune[64], version[16]; };

/* Out of a name such as that of a folder: "LLaDA-8B-Instruct".  Bytes that no file name should have become '-'. */
void model_name_parse(struct model_name *m, struct str name);
/* A size label for a number of parameters: "8.0B", "6.0M". */
void model_name_size(struct model_name *m, uint64_t parameters);
/* A number format as names of files and people spell it: "Q4_0". */
const char *model_name_encoding(struct err_text *t, const char *format);
#define ENCODING(format) model_name_encoding(&(struct err_text){ { 0 } }, (format))
/* The file name; encoding: "q4_0", written in capitals; a version that is missing is v1.0. */
void model_name_file(const struct model_name *m, const char *encoding, char file[256]);

#endif
