/* llama_pass.c - seconds of one bidirectional pass of a llada GGUF file through libllama, as `unmask bench` counts it: all tokens
 * in one batch, logits of the last rows, a short pass first.  Prints "load SECONDS", then a line per length:
 * TOKENS SECONDS PROCESSOR_SECONDS (medians).
 *
 *   llama_pass MODEL.gguf FOLDER_OF_BACKENDS THREADS LOGIT_ROWS TOKENS...
 *
 * For the one build that bench_peers.sh fetches, which comes without headers: the parameter structures are blocks of words, of
 * which a few are set by number.  Those that are, are compared with the defaults that they must hold, so that another layout is
 * noticed. */
#define _POSIX_C_SOURCE 200809L
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct params { uint32_t word[64]; };           /* at least as large as either structure; passed in memory, by value */
enum { N_CTX = 0, N_BATCH = 1, N_UBATCH = 2, N_THREADS = 7, N_THREADS_BATCH = 8 };
enum { DEFAULT_CTX = 512, DEFAULT_BATCH = 2048, DEFAULT_UBATCH = 512 };

struct llama_batch { int32_t n_tokens; int32_t *token; float *embd; int32_t *pos; int32_t *n_seq_id; int32_t **seq_id; int8_t *logits; };

extern void ggml_backend_load_all_from_path(const char *folder);
extern void llama_backend_init(void);
extern void llama_log_set(void (*log)(int level, const char *text, void *user), void *user);
extern struct params llama_model_default_params(void), llama_context_default_params(void);
extern void *llama_model_load_from_file(const char *path, struct params p);
extern void *llama_init_from_model(void *model, struct params p);
extern void llama_set_causal_attn(void *context, bool causal);
extern struct llama_batch llama_batch_init(int32_t n_tokens, int32_t embd, int32_t n_seq_max);
extern int32_t llama_decode(void *context, struct llama_batch batch);
extern void llama_synchronize(void *context);
extern float *llama_get_logits(void *context);
extern void *llama_get_memory(void *context);
extern void llama_memory_clear(void *memory, bool data);
extern void llama_free(void *context);

enum { LEAST_RUNS = 3, MOST_RUNS = 100, WARM_UP = 8 };
static const double case_seconds = 2, long_pass = 5;            /* a pass longer than this is run once */

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void quiet(int level, const char *text, void *user) { (void)level, (void)text, (void)user; }

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void die(const char *why)
{
    fprintf(stderr, "llama_pass: %s\n", why);
    exit(1);
}

static void *open_context(void *model, int n_tokens, int n_threads)
{
    struct params p = llama_context_default_params();
    if (p.word[N_CTX] != DEFAULT_CTX || p.word[N_BATCH] != DEFAULT_BATCH || p.word[N_UBATCH] != DEFAULT_UBATCH
        || p.word[N_THREADS] != p.word[N_THREADS_BATCH])
        die("this libllama has other context parameters");
    p.word[N_CTX] = p.word[N_BATCH] = p.word[N_UBATCH] = (uint32_t)(n_tokens < WARM_UP ? WARM_UP : n_tokens);
    p.word[N_THREADS] = p.word[N_THREADS_BATCH] = (uint32_t)n_threads;
    void *context = llama_init_from_model(model, p);
    if (!context) die("no context");
    llama_set_causal_attn(context, false);
    return context;
}

/* Seconds by the clock; *cpu: of all threads. */
static double pass(void *context, struct llama_batch b, int n_tokens, int n_logits, double *cpu)
{
    b.n_tokens = n_tokens;
    for (int i = 0; i < n_tokens; i++) {
        b.token[i] = (i * 7919 + 13) % 2000;
        b.pos[i] = i;
        b.n_seq_id[i] = 1;
        b.seq_id[i][0] = 0;
        b.logits[i] = i >= n_tokens - n_logits;
    }
    llama_memory_clear(llama_get_memory(context), true);
    const double start = seconds_of(CLOCK_MONOTONIC), cpu_start = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    if (llama_decode(context, b) != 0) die("the pass failed");
    llama_synchronize(context);
    if (!llama_get_logits(context)) die("no logits");
    *cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
    return seconds_of(CLOCK_MONOTONIC) - start;
}

static void one_case(void *model, int n_tokens, int n_logits, int n_threads)
{
    void *context = open_context(model, n_tokens, n_threads);
    struct llama_batch b = llama_batch_init(n_tokens < WARM_UP ? WARM_UP : n_tokens, 0, 1);
    double seconds[MOST_RUNS], cpu[MOST_RUNS], sum = 0;
    int n = 0;
    pass(context, b, WARM_UP, 1, cpu);
    for (; n < MOST_RUNS && (n < LEAST_RUNS || sum < case_seconds) && !(n > 0 && seconds[0] > long_pass); sum += seconds[n++])
        seconds[n] = pass(context, b, n_tokens, n_logits, &cpu[n]);
    qsort(seconds, (size_t)n, sizeof *seconds, compare);
    qsort(cpu, (size_t)n, sizeof *cpu, compare);
    printf("%d %.6f %.6f\n", n_tokens, seconds[n / 2], cpu[n / 2]);
    fflush(stdout);
    llama_free(context);
}

int main(int argc, char **argv)
{
    if (argc < 6) die("usage: llama_pass MODEL.gguf FOLDER_OF_BACKENDS THREADS LOGIT_ROWS TOKENS...");
    llama_log_set(quiet, NULL);
    ggml_backend_load_all_from_path(argv[2]);
    llama_backend_init();
    const double start = seconds_of(CLOCK_MONOTONIC);
    void *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    if (!model) die("the model does not load");
    printf("load %.3f\n", seconds_of(CLOCK_MONOTONIC) - start);
    const int n_threads = (int)strtol(argv[3], NULL, 10), n_logits = (int)strtol(argv[4], NULL, 10);
    for (int i = 5; i < argc; i++) one_case(model, (int)strtol(argv[i], NULL, 10), n_logits, n_threads);
    return 0;
}
