/* cpu.c - which instruction sets this CPU and operating system offer.
 * CPUID by hand, because clang 14 knows no __builtin_cpu_supports("avxvnni") (Intel SDM vol. 2A, CPUID; vol. 1, 13.2). */
#define _GNU_SOURCE             /* syscall */
#include "cpu.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#if defined __x86_64__
#include <cpuid.h>
#if defined __linux__
#include <sys/syscall.h>
#include <unistd.h>
#endif

struct regs { unsigned a, b, c, d; };

/* All zero where the CPU has no such leaf. */
static struct regs cpuid(unsigned leaf, unsigned subleaf)
{
    struct regs r = { 0, 0, 0, 0 };
    if (!__get_cpuid_count(leaf, subleaf, &r.a, &r.b, &r.c, &r.d)) memset(&r, 0, sizeof r);
    return r;
}

/* Register state that the operating system saves: XCR0. */
static unsigned os_saves(void)
{
    unsigned low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* Linux saves tiles only for processes that have asked for it (Documentation/arch/x86/xstate.rst). */
static bool tiles_permitted(void)
{
#if defined __linux__
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

static unsigned all(unsigned word, unsigned bits) { return (word & bits) == bits; }

unsigned cpu_detect(void)
{
    enum { FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28, F16C = 1u << 29 };               /* leaf 1, ecx   */
    enum { AVX2 = 1u << 5, AVX512F = 1u << 16, AVX512BW = 1u << 30 };                           /* leaf 7.0, ebx */
    const unsigned AVX512VL = 1u << 31, AVX512VNNI = 1u << 11, AVXVNNI = 1u << 4, AVX512BF16 = 1u << 5;     /* ebx, ecx; 7.1 eax */
    enum { AMX_TILE = 1u << 24, AMX_INT8 = 1u << 25, GFNI = 1u << 8 };                          /* leaf 7.0, edx; ecx */
    const unsigned YMM = 0x6, ZMM = 0xE6, TILES = 0x60000;                                      /* XCR0          */
    const struct regs one = cpuid(1, 0), seven = cpuid(7, 0);
    if (!all(one.c, OSXSAVE | AVX | FMA | F16C) || !all(seven.b, AVX2) || !all(os_saves(), YMM)) return 0;
    unsigned set = CPU_AVX2;
    if (cpuid(0, 0).b == signature_AMD_ebx) set |= CPU_AMD;
    if (seven.a >= 1 && all(cpuid(7, 1).a, AVXVNNI)) set |= CPU_AVXVNNI;
    if (all(seven.b, AVX512F | AVX512BW | AVX512VL) && all(seven.c, AVX512VNNI) && all(os_saves(), ZMM)) set |= CPU_AVX512VNNI;
    if (seven.a >= 1 && all(cpuid(7, 1).a, AVX512BF16)) set |= CPU_AVX512BF16;
    if (all(seven.d, AMX_TILE | AMX_INT8) && all(seven.c, GFNI) && all(os_saves(), TILES) && tiles_permitted()) set |= CPU_AMX;
    return set;
}

void cpu_model_name(char *buf, int size)
{
    char brand[49] = "x86_64";
    if (cpuid(0x80000000u, 0).a >= 0x80000004u)
        for (unsigned i = 0; i < 3; i++) {
            const struct regs r = cpuid(0x80000002u + i, 0);
            memcpy(brand + 16 * i, &r, sizeof r);
        }
    brand[48] = 0;
    snprintf(buf, (size_t)size, "%s", brand + strspn(brand, " "));
    for (size_t n = strlen(buf); n > 0 && buf[n - 1] == ' '; ) buf[--n] = 0;
}

#elif defined __aarch64__ && defined __linux__
#include <sys/auxv.h>

unsigned cpu_detect(void)
{
    const unsigned long ASIMDDP = 1ul << 20, I8MM = 1ul << 13;          /* bits of AT_HWCAP and AT_HWCAP2 */
    unsigned set = CPU_NEON;                                            /* part of every AArch64 */
    if (getauxval(AT_HWCAP) & ASIMDDP) set |= CPU_DOTPROD;
    if (getauxval(AT_HWCAP2) & I8MM) set |= CPU_I8MM;
    return set;
}

/* The board's name, as in "Raspberry Pi 5 Model B Rev 1.0": ARM CPUs carry no name of their own. */
void cpu_model_name(char *buf, int size)
{
    snprintf(buf, (size_t)size, "aarch64");
    FILE *f = fopen("/proc/device-tree/model", "r");
    if (!f) return;
    char model[64] = "";
    const size_t n = fread(model, 1, sizeof model - 1, f);
    fclose(f);
    if (n > 0 && model[0]) snprintf(buf, (size_t)size, "%s", model);
}

#else

unsigned cpu_detect(void) { return 0; }
void cpu_model_name(char *buf, int size) { snprintf(buf, (size_t)size, "unknown CPU"); }

#endif
