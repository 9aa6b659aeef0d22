/* checksum.h - SHA-256 of tensors as metadata: under "unmask.sha256.TENSOR" stand 64 hexadecimal digits, over the bytes that
 * the tensor has in the file.  The hash is nettle's. */
#ifndef CHECKSUM_H
#define CHECKSUM_H

#include <stdbool.h>
#include <nettle/sha2.h>

#define CHECKSUM_PREFIX "unmask.sha256."
enum { CHECKSUM_DIGITS = 2 * SHA256_DIGEST_SIZE };

struct checksum_text { char s[CHECKSUM_DIGITS + 1]; };

/* The digits of all that sha256_update() was given; the context starts anew. */
const char *checksum_end(struct sha256_ctx *sha, struct checksum_text *text);

/* Is this metadata key one of ours? */
bool checksum_key(const char *key, size_t n);

#endif
