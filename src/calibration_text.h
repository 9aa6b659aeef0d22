/* calibration_text.h - a user's texts as a model reads them: of JSON lines {"q", "a"} the question in the chat template and the
 * answer, which alone is masked; of {"text"} and of plain text windows of ids. */
#ifndef CALIBRATION_TEXT_H
#define CALIBRATION_TEXT_H

#include "reading.h"

/* At most about `most` ids, spread over the whole file; the model is opened for its tokenizer alone. */
bool calibration_text_read(struct reading_set *set, const char *model, const char *path, uint64_t most, struct unmask_err *err);

#endif
