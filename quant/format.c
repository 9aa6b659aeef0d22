/* format.c - the table of number formats and look-ups in it; each format has its own file. */
#include "format.h"

#include <string.h>
#include <strings.h>

const struct quant_format *const quant_formats[] = {
    &format_f32, &format_f16, &format_bf16, &format_q8_0, &format_q6_k, &format_q4_k, &format_q4_0, NULL
};

const struct quant_format *quant_format_by_name(const char *name)
{
    for (size_t i = 0; quant_formats[i]; i++)
        if (!strcasecmp(quant_formats[i]->name, name)) return quant_formats[i];
    return NULL;
}

const struct quant_format *quant_format_by_gguf_type(uint32_t type)
{
    for (size_t i = 0; quant_formats[i]; i++)
        if (quant_formats[i]->gguf_type == type) return quant_formats[i];
    return NULL;
}

const struct quant_format *quant_format_by_safetensors(const char *dtype, size_t n)
{
    for (size_t i = 0; quant_formats[i]; i++) {
        const char *own = quant_formats[i]->safetensors;
        if (own && strlen(own) == n && !memcmp(own, dtype, n)) return quant_formats[i];
    }
    return NULL;
}
