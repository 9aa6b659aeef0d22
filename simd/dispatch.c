/* dispatch.c - the list of instruction sets and the choice among them. */
#include "kernels.h"

#include <string.h>

#include "cpu.h"

extern const struct kernels kernels_scalar;
#if defined __x86_64__
extern const struct kernels kernels_avx2, kernels_avxvnni, kernels_avx512vl, kernels_avx512vnni, kernels_avx512zen, kernels_amx;
double int8_peak_avx2(long rounds), int8_peak_avxvnni(long rounds), int8_peak_avx512vl(long rounds),
       int8_peak_avx512vnni(long rounds), int8_peak_avx512zen(long rounds), int8_peak_amx(long rounds);
#elif defined __aarch64__
extern const struct kernels kernels_neon, kernels_neon_dotprod, kernels_neon_i8mm;
#endif

/* SLEEF's deterministic functions, on which every set relies, are AVX2 and FMA code on x86-64, the scalar ones too. */
#if defined __x86_64__
enum { CPU_SCALAR = CPU_AVX2 };
#else
enum { CPU_SCALAR = 0 };
#endif

const struct kernel_set kernel_sets[] = {
    { "scalar",     CPU_SCALAR,                             &kernels_scalar, NULL },
#if defined __x86_64__
    { "avx2",       CPU_AVX2,                               &kernels_avx2, int8_peak_avx2 },
    { "avxvnni",    CPU_AVX2 | CPU_AVXVNNI,                 &kernels_avxvnni, int8_peak_avxvnni },
    { "avx512vl",   CPU_AVX2 | CPU_AVX512VNNI,              &kernels_avx512vl, int8_peak_avx512vl },
    { "avx512vnni", CPU_AVX2 | CPU_AVX512VNNI,              &kernels_avx512vnni, int8_peak_avx512vnni },
    { "avx512zen",  CPU_AVX2 | CPU_AVX512VNNI | CPU_AVX512BF16 | CPU_AMD, &kernels_avx512zen, int8_peak_avx512zen },
    { "amx",        CPU_AVX2 | CPU_AVX512VNNI | CPU_AVX512BF16 | CPU_AMX, &kernels_amx, int8_peak_amx },
#elif defined __aarch64__
    { "neon",       CPU_NEON,                               &kernels_neon, NULL },
    { "dotprod",    CPU_NEON | CPU_DOTPROD,                 &kernels_neon_dotprod, NULL },
    { "i8mm",       CPU_NEON | CPU_DOTPROD | CPU_I8MM,      &kernels_neon_i8mm, NULL },
#endif
    { NULL, 0, NULL, NULL }
};

static void overlay(struct kernels *k, const struct kernels *set)
{
#define TAKE(m) if (set->m) k->m = set->m;
    KERNELS(TAKE)
}

const char *kernels_init(struct kernels *k, const char *isa)
{
    const unsigned cpu = cpu_detect();
    const struct kernel_set *last = NULL;
    for (const struct kernel_set *s = kernel_sets; s->name; s++)
        if ((s->needs & cpu) == s->needs && (!isa || !strcmp(isa, "auto") || !strcmp(isa, s->name))) last = s;
    if (!last) return NULL;
    for (const struct kernel_set *s = kernel_sets; s <= last; s++)
        if ((s->needs & cpu) == s->needs) overlay(k, s->kernels);
    return last->name;
}
