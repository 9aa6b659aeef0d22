/* llama_logits.c - one bidirectional pass of a `llada` file through a published build of llama.cpp, against our logits.
 *   llama_logits MODEL.gguf BACKEND_FOLDER IDS LOGITS.npy LEAST_COSINE
 * IDS: "3,17,42"; LOGITS: [tokens, vocabulary] as `unmask forward --logits` writes them.  Prints the smallest cosine of a row
 * and the share of rows with the same best token; exit 1 where the cosine is below LEAST_COSINE.
 * llama.cpp's headers do not come with the build: what is used of them is declared here, parameters as words whose meaning is
 * checked by their defaults. */
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct params { uint32_t word[64]; };           /* passed by value, in memory: as large as any of theirs */
struct llama_batch { int32_t n_tokens; int32_t *token; float *embd; int32_t *pos; int32_t *n_seq_id; int32_t **seq_id; int8_t *logits; };
enum { N_CTX = 0, N_BATCH = 1, N_UBATCH = 2, N_THREADS = 7, N_THREADS_BATCH = 8, MOST_IDS = 4096 };

extern void ggml_backend_load_all_from_path(const char *folder);
extern void llama_backend_init(void);
extern void llama_log_set(void (*log)(int level, const char *text, void *user), void *user);
extern struct params llama_model_default_params(void), llama_context_default_params(void);
extern void *llama_model_load_from_file(const char *path, struct params p);
extern void *llama_init_from_model(void *model, struct params p);
extern struct llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
extern int32_t llama_decode(void *context, struct llama_batch batch);
extern void llama_set_causal_attn(void *context, bool causal);
extern float *llama_get_logits(void *context);
extern const void *llama_model_get_vocab(const void *model);
extern int32_t llama_vocab_n_tokens(const void *vocab);

static void log_errors(int level, const char *text, void *user)
{
    (void)user;
    if (level == 4) fputs(text, stderr);        /* GGML_LOG_LEVEL_ERROR */
}

static int die(const char *what)
{
    fprintf(stderr, "llama_logits: %s\n", what);
    exit(2);
}

static int read_ids(const char *text, int32_t *ids)
{
    int n = 0;
    for (const char *p = text; *p; n++) {
        char *end;
        if (n == MOST_IDS) die("too many ids");
        ids[n] = (int32_t)strtol(p, &end, 10);
        if (end == p) die("ids must be numbers with commas between");
        p = *end == ',' ? end + 1 : end;
    }
    return n;
}

/* The numbers of a .npy file of float32, version 1.0. */
static float *read_npy(const char *path, size_t n)
{
    unsigned char head[10];
    FILE *f = fopen(path, "rb");
    float *x = malloc(n * sizeof *x);
    if (!f || !x || fread(head, 1, sizeof head, f) != sizeof head || memcmp(head, "\x93NUMPY\x01", 7) != 0) die("no logits of ours");
    if (fseek(f, 10 + head[8] + 256 * head[9], SEEK_SET) != 0 || fread(x, sizeof *x, n, f) != n || fgetc(f) != EOF) die("our logits have another shape");
    fclose(f);
    return x;
}

static float *their_logits(const char *model_path, const char *backends, const int32_t *ids, int n, int *n_vocab)
{
    llama_log_set(log_errors, NULL);
    ggml_backend_load_all_from_path(backends);
    llama_backend_init();
    void *model = llama_model_load_from_file(model_path, llama_model_default_params());
    if (!model) die("llama.cpp does not load the file");
    *n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model));
    struct params p = llama_context_default_params();
    if (p.word[N_CTX] != 512 || p.word[N_BATCH] != 2048 || p.word[N_UBATCH] != 512) die("another build of llama.cpp: its parameters lie elsewhere");
    p.word[N_CTX] = p.word[N_BATCH] = p.word[N_UBATCH] = (uint32_t)n;
    p.word[N_THREADS] = p.word[N_THREADS_BATCH] = 2;
    void *context = llama_init_from_model(model, p);
    if (!context) die("no context");
    llama_set_causal_attn(context, false);
    struct llama_batch b = llama_batch_init(n, 0, 1);
    b.n_tokens = n;
    for (int i = 0; i < n; i++) {
        b.token[i] = ids[i];
        b.pos[i] = i;
        b.n_seq_id[i] = 1;
        b.seq_id[i][0] = 0;
        b.logits[i] = 1;
    }
    if (llama_decode(context, b) != 0) die("llama.cpp does not decode");
    return llama_get_logits(context);
}

static int best(const float *x, int n)
{
    int at = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[at]) at = i;
    return at;
}

int main(int argc, char **argv)
{
    static int32_t ids[MOST_IDS];
    int n_vocab, same = 0;
    double least = 1;
    if (argc != 6) die("MODEL.gguf BACKEND_FOLDER IDS LOGITS.npy LEAST_COSINE");
    const int n = read_ids(argv[3], ids);
    const float *theirs = their_logits(argv[1], argv[2], ids, n, &n_vocab);
    const float *ours = read_npy(argv[4], (size_t)n * (size_t)n_vocab);
    for (int row = 0; row < n; row++) {
        const float *a = ours + (size_t)row * (size_t)n_vocab, *b = theirs + (size_t)row * (size_t)n_vocab;
        double ab = 0, aa = 0, bb = 0;
        for (int i = 0; i < n_vocab; i++) {
            ab += (double)a[i] * (double)b[i];
            aa += (double)a[i] * (double)a[i];
            bb += (double)b[i] * (double)b[i];
        }
        const double cosine = ab / sqrt(aa * bb);
        if (!(cosine >= least)) least = cosine;
        same += best(a, n_vocab) == best(b, n_vocab);
    }
    printf("%d tokens: smallest cosine of a row %.6f, same best token in %d\n", n, least, same);
    fflush(stdout);
    _Exit(least >= strtod(argv[5], NULL) ? 0 : 1);
}
