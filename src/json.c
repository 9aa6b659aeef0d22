/* json.c - JSON from outside; see json.h.  A pre-scan holds depth and size to our limits before jansson, which recurses and
 * allocates for every value, sees the text; the grammar itself is jansson's business. */
#include "json.h"

#include <stdio.h>
#include <string.h>
#include "file.h"
#include "mem.h"
#include "utf8.h"

enum {
    MOST_VALUES = 3 << 20,      /* real tokenizers of 150,000 entries have under a million */
    INT64_DIGITS = 19,          /* of 9223372036854775807                                  */
};

static size_t string_end(const char *s, size_t n, size_t at)    /* at: the opening quote; offset of the closing one, or n */
{
    for (at++; at < n && s[at] != '"'; at++)
        if (s[at] == '\\') at++;
    return at < n ? at : n;
}

static size_t number_end(const char *s, size_t n, size_t at)
{
    while (at < n && s[at] && strchr("0123456789+-.eE", s[at])) at++;
    return at;
}

/* Whether s[0, n) is an integer beyond int64. */
static bool is_wide_integer(const char *s, size_t n)
{
    if (n && *s == '-') s++, n--;
    if (n < INT64_DIGITS || *s == '0') return false;
    for (size_t i = 0; i < n; i++)
        if (s[i] < '0' || s[i] > '9') return false;
    return n > INT64_DIGITS || memcmp(s, "9223372036854775807", INT64_DIGITS) > 0;
}

/* Rewrite the digits of such an integer, in their place, as a real number: 1000...000 -> 1.000...e30. */
static void make_real(char *s, size_t n)
{
    char exponent[24];
    if (*s == '-') s++, n--;
    const size_t tail = (size_t)snprintf(exponent, sizeof exponent, "e%zu", n - 1);
    memmove(s + 2, s + 1, n - 2);
    s[1] = '.';
    memcpy(s + n - tail, exponent, tail);
}

/* Count depth and values of text[0, n), and its integers beyond int64 in *n_wide.  When the text is ours to change, `mine` is
 * the same text and they are made real. */
static bool prescan(const char *text, char *mine, size_t n, const char *file, int depth, size_t *n_wide, struct unmask_err *err)
{
    size_t values = 0, end;
    int level = 0;
    for (size_t i = 0; i < n; i = end) {
        const char c = text[i];
        end = i + 1;
        if (c == '"') end = string_end(text, n, i) + 1;
        else if (c == '{' || c == '[') level++, values++;
        else if (c == '}' || c == ']') level--;
        else if (c == ',') values++;
        else if (c == '-' || (c >= '0' && c <= '9')) {
            end = number_end(text, n, i);
            if (is_wide_integer(text + i, end - i)) {
                ++*n_wide;
                if (mine) make_real(mine + i, end - i);
            }
        }
        if (level > depth)
            return fail(err, E_JSON_DEPTH, .file = file, .byte = AT(i), .found = FMT("%d levels", level), .need = FMT("at most %d", depth));
        if (values > MOST_VALUES)
            return fail(err, E_JSON_LIMIT, .file = file, .byte = AT(i), .found = "more values",
                        .need = FMT("at most %d values", MOST_VALUES));
    }
    return true;
}

/* jansson's own words are about its flags. */
static const char *place_of_nul(enum json_error_code code)
{
    return code == json_error_null_character ? "\\u0000 in a string" : code == json_error_null_byte_in_key ? "\\u0000 in a key" : NULL;
}

static json_t *load(const char *text, size_t n, const char *file, size_t flags, struct unmask_err *err)
{
    json_error_t e;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES | flags, &e);
    if (root) return root;
    const char *nul = place_of_nul(json_error_code(&e));
    if (json_error_code(&e) == json_error_out_of_memory || !e.text[0]) fail(err, E_MEMORY, .file = file);
    else fail(err, E_JSON_SYNTAX, .file = file, .byte = AT((uint64_t)e.position), .found = nul ? nul : QUOTE(e.text, strlen(e.text)),
              .need = nul ? "text without NUL" : "JSON as in RFC 8259, in UTF-8 without byte order mark, no key twice");
    return NULL;
}

static json_t *parse(const char *text, size_t n, const char *file, int depth, size_t flags, struct unmask_err *err)
{
    size_t n_wide = 0;
    if (n > JSON_BYTES) {
        fail(err, E_JSON_LIMIT, .file = file, .found = FMT("%zu bytes", n), .need = FMT("at most %u", JSON_BYTES));
        return NULL;
    }
    if (!prescan(text, NULL, n, file, depth, &n_wide, err)) return NULL;
    if (!n_wide) return load(text, n, file, flags, err);
    /* jansson refuses integers beyond int64, but tokenizer_config.json says "no limit" with one of 31 digits. */
    char *copy = mem_strndup(text, n, err);
    json_t *root = copy && prescan(copy, copy, n, file, depth, &n_wide, err) ? load(copy, n, file, flags, err) : NULL;
    mem_free(copy);
    return root;
}

json_t *json_parse(const char *text, size_t n, const char *file, int depth, struct unmask_err *err)
{
    return parse(text, n, file, depth, 0, err);
}

json_t *json_parse_data(const char *text, size_t n, const char *file, struct unmask_err *err)
{
    return parse(text, n, file, JSON_DEPTH, JSON_ALLOW_NUL, err);
}

json_t *json_read(const char *path, struct unmask_err *err)
{
    char *text;
    size_t n;
    if (!file_slurp(path, JSON_BYTES, &text, &n, err)) return NULL;
    json_t *root = json_parse(text, n, path, JSON_DEPTH, err);
    mem_free(text);
    return root;
}

/* ---- strings of ours ---- */

json_t *json_text(const char *s, size_t n)
{
    enum { MOST = 3 };                          /* bytes of U+FFFD, in the place of one */
    size_t i = utf8_valid(s, n), used = i;
    if (i == n) return json_stringn(s, n);
    char *valid = mem_zalloc(n, MOST, NULL);
    if (!valid) return NULL;
    memcpy(valid, s, i);
    while (i < n) {
        uint32_t cp;
        const size_t len = utf8_decode(s + i, n - i, &cp);
        used += utf8_encode(len ? cp : 0xFFFD, valid + used);
        i += len ? len : 1;
    }
    json_t *text = json_stringn(valid, used);
    mem_free(valid);
    return text;
}

json_t *json_cstr(const char *s) { return json_text(s, strlen(s)); }

void json_print_text(const char *s, size_t n)
{
    json_t *text = json_text(s, n);
    if (text) json_dumpf(text, stdout, JSON_ENCODE_ANY);
    else fputs("null", stdout);                 /* out of memory: still JSON */
    json_decref(text);
}
