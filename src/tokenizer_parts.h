/* tokenizer_parts.h - the inside of a tokenizer, for the files that load and run it. */
#ifndef TOKENIZER_PARTS_H
#define TOKENIZER_PARTS_H

#include "bpe.h"
#include "json.h"
#include "pretokenizer.h"
#include "tokenizer.h"
#include "vocab.h"

/* Tokens that are found in text before it is cut into pieces, sorted by text. */
struct literal { struct str text; int32_t id; };
struct literals { struct literal *items; size_t n; };

struct tokenizer {
    char *path;                                 /* of the folder or file, for messages           */
    struct vocab vocab;
    struct bpe bpe;
    const struct pretokenizer *pre;
    struct splitter *splitter;
    bool nfc, ignore_merges;
    struct token_ids ids;
    char *chat_template; size_t n_chat_template;
    /* Made by tokenizer_finish(): */
    int32_t byte_ids[256];                      /* -1: the vocabulary lacks the byte             */
    struct literals user, special;              /* user-defined tokens; these and control tokens */
};

/* The files of a folder. */
bool tokenizer_load_json(struct tokenizer *t, const char *folder, struct unmask_err *err);             /* tokenizer.json */
bool tokenizer_load_config(struct tokenizer *t, const char *folder, struct unmask_err *err);    /* the others, if present */
bool tokenizer_load_gguf(struct tokenizer *t, const struct checkpoint *c, struct unmask_err *err);

/* The vocabulary and merges of tokenizer.json's text, if they are as plain as they usually are; *rest (mem_free) is then the
 * text without them.  False: nothing is loaded. */
bool tokenizer_load_flat(struct tokenizer *t, struct str text, char **rest, size_t *n_rest);

/* The first space of s cuts a merge into its two parts; false unless there is exactly one, inside. */
bool merge_parts(struct str s, struct str *left, struct str *right);
/* Add a merge given as two texts; `where` says in messages which one. */
bool tokenizer_add_merge(struct tokenizer *t, struct str left, struct str right, const char *file, const char *where,
                         struct unmask_err *err);
/* Add a token that tokenizer.json or tokenizer_config.json lists beside the vocabulary: { "content": ..., "special": true };
 * the vocabulary may hold it already, and an ordinary word of it becomes what the list says. */
bool tokenizer_add_token(struct tokenizer *t, int64_t id, const json_t *a, const char *file, const char *where,
                         struct unmask_err *err);
/* Derive the tables above and check what only the whole shows. */
bool tokenizer_finish(struct tokenizer *t, struct unmask_err *err);

/* A JSON value at `path` has the wrong type or value; NULL: it is missing. */
bool tokenizer_wrong_field(const char *file, const char *path, const json_t *found, const char *need, struct unmask_err *err);

#endif
