/* nfc.h - Unicode normalization form C (UAX 15), through utf8proc. */
#ifndef NFC_H
#define NFC_H

#include "err.h"

/* The normal form of n bytes of valid UTF-8 in *out (mem_free); *out = NULL when the text is ASCII, hence normal.
 * Linear in n whatever the text: long runs of combining marks are sorted, not bubbled. */
bool nfc_normalize(const char *s, size_t n, char **out, size_t *n_out, struct unmask_err *err);

#endif
