/* bench_sizes.c - the sizes that a list such as 32,128,512 names, one case of a measurement each. */
#include "bench.h"

#include <string.h>

bool bench_each_size(const char *tokens, const char *usual, int most, const char *need, bench_case *one, void *user,
                     struct unmask_err *err)
{
    const char *list = tokens ? tokens : usual;
    for (const char *p = list; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        const size_t n = strcspn(p, ",");
        char word[16] = "";
        int64_t size;
        if (n < sizeof word) memcpy(word, p, n);
        const bool fits = parse_int(word, 1, most, &size);
        if (!fits && !tokens) continue;
        if (!fits) return fail(err, E_CLI_VALUE, .field = "--tokens", .found = QUOTE(p, n),
                               .need = FMT("numbers from 1 to %d%s", most, need));
        if (!one(user, (int)size, err)) return false;
    }
    return true;
}
