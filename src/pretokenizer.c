/* pretokenizer.c - see pretokenizer.h.  Patterns as in llama.cpp src/llama-vocab.cpp and in the published tokenizer.json files.
 *
 * PCRE2 runs with UTF and UCP, so that \p{L} and (?i:) mean Unicode; its \s would then include U+180E, which Unicode
 * no longer counts as white space, so the set is written out.  The interpreter is fast enough (over 20 MB/s), and no
 * JIT means no memory that is both writable and executable. */
#include "pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "mem.h"

#define SPACE "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
#define SPACES_AT_END "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"       /* \s+(?!\S)|\s+ */
#define OTHER "[^" SPACE "\\p{L}\\p{N}]"                                /* [^\s\p{L}\p{N}] */
#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"

static const struct pretokenizer table[] = {
    { { "llama-bpe", "llama3", "llama-v3" },
      { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
        "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
      CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?" OTHER "+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|" SPACES_AT_END,
      .ignore_merges = true },
    { { "qwen2" },
      { "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
        "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+" },
      CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?" OTHER "+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|" SPACES_AT_END,
      .nfc = true },
    { { "bailingmoe2", "bailingmoe", "llada-moe" },
      { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
        "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+" },
      "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?" OTHER "++[\\r\\n]*|[" SPACE "]*[\\r\\n]|" SPACES_AT_END,
      .ignore_merges = false },
    { { "gpt-2" },              /* the last row: pretokenizer_byte_level() */
      { "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
        "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
      "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" OTHER "+|" SPACES_AT_END,
      .ignore_merges = false },
};
enum { N_TABLE = sizeof table / sizeof *table };

static bool in(const char *const *list, struct str text)
{
    for (; *list; list++)
        if (strlen(*list) == text.n && memcmp(*list, text.s, text.n) == 0) return true;
    return false;
}

const struct pretokenizer *pretokenizer_by_name(struct str name)
{
    for (int i = 0; i < N_TABLE; i++)
        if (in(table[i].names, name)) return &table[i];
    return NULL;
}

const struct pretokenizer *pretokenizer_by_text(struct str text)
{
    for (int i = 0; i < N_TABLE; i++)
        if (in(table[i].texts, text)) return &table[i];
    return NULL;
}

const struct pretokenizer *pretokenizer_byte_level(void) { return &table[N_TABLE - 1]; }

const char *pretokenizer_known(struct err_text *t)
{
    for (int i = 0; i < N_TABLE; i++) err_list(t, table[i].names[0]);
    return t->s;
}

struct splitter { pcre2_code *code; };

bool splitter_new(struct splitter **out, const struct pretokenizer *p, struct unmask_err *err)
{
    int code;
    PCRE2_SIZE at;
    struct splitter *s = mem_zalloc(1, sizeof *s, err);
    if (!s) return false;
    s->code = pcre2_compile((PCRE2_SPTR)p->pattern, PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &at, NULL);
    if (!s->code) {
        splitter_free(s);
        return fail(err, E_INTERNAL, .what = "a pre-tokenizer pattern does not compile", .field = p->names[0], .byte = AT(at),
                    .found = FMT("PCRE2 error %d", code));
    }
    *out = s;
    return true;
}

void splitter_free(struct splitter *s)
{
    if (s) pcre2_code_free(s->code);
    mem_free(s);
}

bool split_work_init(struct split_work *w, const struct splitter *s, size_t n, struct unmask_err *err)
{
    enum { HEAP_KIB = 64 << 10 };
    w->match = pcre2_match_data_create_from_pattern(s->code, NULL);
    w->limits = pcre2_match_context_create(NULL);
    if (!w->match || !w->limits) return fail(err, E_MEMORY, .need = "work space to cut text into pieces");
    /* The patterns are linear: a run of n blanks is given back character by character at most. */
    pcre2_set_match_limit(w->limits, n < UINT32_MAX / 8 ? (uint32_t)n * 8 + 10000 : UINT32_MAX);
    pcre2_set_heap_limit(w->limits, HEAP_KIB);
    return true;
}

bool split_next(const struct splitter *s, struct split_work *w, const char *text, size_t n, size_t at, size_t *end,
                struct unmask_err *err)
{
    const int found = pcre2_match(s->code, (PCRE2_SPTR)text, n, at, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, w->match, w->limits);
    if (found == PCRE2_ERROR_NOMEMORY) return fail(err, E_MEMORY, .need = "work space to cut text into pieces");
    *end = found > 0 ? pcre2_get_ovector_pointer(w->match)[1] : at;
    /* Every character is white space, a letter, a number or none of them: some alternative takes it. */
    return *end > at || fail(err, E_INTERNAL, .what = "the pre-tokenizer stopped", .byte = AT(at),
                             .found = FMT("PCRE2 result %d", found));
}

void split_work_free(struct split_work *w)
{
    pcre2_match_data_free(w->match);
    pcre2_match_context_free(w->limits);
    *w = (struct split_work){ 0 };
}
