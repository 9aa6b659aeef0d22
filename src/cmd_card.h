/* cmd_card.h - the model card of a GGUF file: Markdown with the front matter that model hubs read. */
#ifndef CMD_CARD_H
#define CMD_CARD_H

#include "outfile.h"

struct card_facts { double relative_error; uint64_t bytes; const char *format; size_t n_files; };

/* Where the card of a model file belongs: its path with .md in place of .gguf; mem_free. */
char *card_path(const char *model, struct unmask_err *err);
/* Write the card of the file at `model` (the first, when there are several): names, licence and origin out of its metadata. */
bool card_write(struct outfile *o, const char *model, const struct card_facts *facts, struct unmask_err *err);

#endif
