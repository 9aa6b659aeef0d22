/* checksum.c - see checksum.h. */
#include "checksum.h"

#include <string.h>

const char *checksum_end(struct sha256_ctx *sha, struct checksum_text *text)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t sum[SHA256_DIGEST_SIZE];
    sha256_digest(sha, sizeof sum, sum);
    for (int i = 0; i < SHA256_DIGEST_SIZE; i++) {
        text->s[2 * i] = digits[sum[i] >> 4];
        text->s[2 * i + 1] = digits[sum[i] & 15];
    }
    text->s[CHECKSUM_DIGITS] = 0;
    return text->s;
}

bool checksum_key(const char *key, size_t n)
{
    const size_t prefix = strlen(CHECKSUM_PREFIX);
    return n >= prefix && !memcmp(key, CHECKSUM_PREFIX, prefix);
}
