/* byte_alphabet.h - the printable stand-in of each byte in the vocabulary of a byte-level BPE (GPT-2 encoder.py,
 * bytes_to_unicode): visible Latin-1 characters stand for themselves, the other 68 bytes for U+0100, U+0101, ... */
#ifndef BYTE_ALPHABET_H
#define BYTE_ALPHABET_H

#include <stdint.h>

static inline uint32_t byte_to_char(uint8_t b)
{
    if (b <= 0x20) return 0x100u + b;                           /* 33 bytes: U+0100..U+0120 */
    if (b >= 0x7F && b <= 0xA0) return 0x121u + (b - 0x7Fu);    /* 34 bytes: U+0121..U+0142 */
    return b == 0xAD ? 0x143u : b;                              /* soft hyphen              */
}

/* -1: not a character of the alphabet. */
static inline int char_to_byte(uint32_t c)
{
    if (c >= 0x100 && c <= 0x120) return (int)(c - 0x100);
    if (c >= 0x121 && c <= 0x142) return (int)(c - 0x121 + 0x7F);
    if (c == 0x143) return 0xAD;
    return (c > 0x20 && c < 0x7F) || (c > 0xA0 && c <= 0xFF && c != 0xAD) ? (int)c : -1;
}

#endif
