/* tokenizer.h - byte-level BPE (GPT-2 byte alphabet) from a tokenizer.json folder or a GGUF file's metadata.
 * Pre-tokenizer patterns are known by exact text and run by PCRE2; NFC by utf8proc.  Text is UTF-8. */
#ifndef TOKENIZER_H
#define TOKENIZER_H

#include "checkpoint.h"

struct tokenizer;

/* GGUF token types. */
enum token_type { TOKEN_NORMAL = 1, TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER = 4, TOKEN_UNUSED = 5, TOKEN_BYTE = 6 };

bool tokenizer_open(struct tokenizer **out, const struct checkpoint *c, struct unmask_err *err);       /* either kind */
bool tokenizer_open_folder(struct tokenizer **out, const char *path, struct unmask_err *err);          /* needs tokenizer files only */
void tokenizer_close(struct tokenizer *t);      /* NULL is fine */

/* Ids of n bytes of text, appended to *ids (mem_resize'd; *n_ids in use).  Without `special`, text never gives a
 * control token.  Invalid UTF-8 is an error with the byte offset. */
bool tokenizer_encode(const struct tokenizer *t, const char *text, size_t n, bool special, int32_t **ids, size_t *n_ids,
                      struct unmask_err *err);

/* Decoding that may be fed token by token: bytes of an unfinished character are held back until complete;
 * invalid bytes become U+FFFD, so what comes out is always valid UTF-8. */
struct text_out { char *s; size_t n, cap; };    /* s: mem_free; NUL-terminated */
bool text_put(struct text_out *out, const char *s, size_t n, struct unmask_err *err);      /* appends n bytes */
struct token_decoder { uint8_t held[4]; int n_held; };
bool tokenizer_decode(const struct tokenizer *t, struct token_decoder *d, const int32_t *ids, size_t n, bool special,
                      struct text_out *out, struct unmask_err *err);
bool tokenizer_decode_end(struct token_decoder *d, struct text_out *out, struct unmask_err *err);

const char *tokenizer_file(const struct tokenizer *t);                         /* the file or folder that it was read from */
int tokenizer_size(const struct tokenizer *t);  /* highest id + 1, or the rows of the embedding where config.json names more */
/* Text of a token in the byte alphabet ("\xc4\xa0the"), as files store it; type TOKEN_UNUSED and "" for holes. */
struct str tokenizer_token(const struct tokenizer *t, int32_t id, enum token_type *type);
int32_t tokenizer_find(const struct tokenizer *t, const char *token);          /* id by exact text in the byte alphabet; -1: none */
/* Special ids named by the files (tokenizer_config.json, special_tokens_map.json, tokenizer.ggml.*); -1: none. */
struct token_ids { int32_t bos, eos, eot, pad, mask; };
struct token_ids tokenizer_ids(const struct tokenizer *t);

/* What a GGUF file needs to hold the same tokenizer; all borrowed. */
const char *tokenizer_pre(const struct tokenizer *t);                          /* tokenizer.ggml.pre: "llama-bpe", ... */
struct str tokenizer_chat_template(const struct tokenizer *t);                 /* Jinja text; n = 0: none */
size_t tokenizer_n_merges(const struct tokenizer *t);
bool tokenizer_merge(const struct tokenizer *t, size_t i, struct text_out *out, struct unmask_err *err);       /* "a b" into out */
/* Two settings that tokenizer.ggml.* has no key for; absent keys mean what llama.cpp (ignore_merges of "llama-bpe") or
 * the published files (NFC of "qwen2") take for granted. */
#define TOKENIZER_KEY_IGNORE_MERGES "tokenizer.ggml.ignore_merges"             /* bool */
#define TOKENIZER_KEY_NFC           "tokenizer.ggml.normalizer.nfc"            /* bool */
bool tokenizer_ignores_merges(const struct tokenizer *t);
bool tokenizer_normalizes(const struct tokenizer *t);

#endif
