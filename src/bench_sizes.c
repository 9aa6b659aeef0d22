/* bench_sizes.c - the sizes that a list such as 32,128,512 names, one case of a measurement each. */
#include "bench.h"

#include <string.h>

/* The number that a list begins with. */
static bool read_size(const char *list, int most, int64_t *size)
{
    const size_t n = strcspn(list, ",");
    char word[16] = "";
    if (n < sizeof word) memcpy(word, list, n);
    return parse_int(word, 1, most, size);
}

static const char *behind_comma(const char *list)
{
    const char *comma = strchr(list, ',');
    return comma ? comma + 1 : NULL;
}

bool bench_each_size(const char *tokens, const char *usual, int most, const char *need, bench_case *one, void *user,
                     struct unmask_err *err)
{
    int64_t size;
    for (const char *p = tokens; p; p = behind_comma(p))        /* all of it before the first case, which may take minutes */
        if (!read_size(p, most, &size))
            return fail(err, E_CLI_VALUE, .field = "--tokens", .found = *p && *p != ',' ? QUOTE(p, strcspn(p, ",")) : "no number",
                        .need = FMT("numbers from 1 to %d%s", most, need));
    for (const char *p = tokens ? tokens : usual; p; p = behind_comma(p))
        if (read_size(p, most, &size) && !one(user, (int)size, err)) return false;
    return true;
}
