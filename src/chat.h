/* chat.h - chat templates, one table row each.  Templates are known by name and recognised in a model's Jinja text by
 * what they must contain; Jinja is never run. */
#ifndef CHAT_H
#define CHAT_H

#include "tokenizer.h"

struct chat_template;

/* The template that fits the tokenizer's Jinja text and vocabulary, or an error that names the known ones. */
const struct chat_template *chat_template_of(const struct tokenizer *t, struct unmask_err *err);
const char *chat_template_name(const struct chat_template *c);

/* Ids of the conversation up to where the answer begins, with one bos.  Message text is encoded as ordinary text,
 * trimmed of white space at both ends. */
struct chat_message { const char *role, *text; size_t n_text; };
bool chat_encode(const struct chat_template *c, const struct tokenizer *t, const struct chat_message *messages, size_t n_messages,
                 int32_t **ids, size_t *n_ids, struct unmask_err *err);

/* The token that ends a turn in this template ("<|eot_id|>"); -1 when the vocabulary lacks it. */
int32_t chat_end_of_turn(const struct chat_template *c, const struct tokenizer *t);

#endif
