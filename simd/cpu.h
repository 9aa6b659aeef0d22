/* cpu.h - which instruction sets this CPU and operating system offer. */
#ifndef CPU_H
#define CPU_H

enum cpu_feature {
    CPU_AVX2 = 1,               /* AVX2, FMA and F16C together    */
    CPU_AVXVNNI = 2,
    CPU_AVX512VNNI = 4,         /* F, BW, VL and VNNI together    */
    CPU_NEON = 8,               /* ARMv8.0 Advanced SIMD          */
    CPU_DOTPROD = 16,
    CPU_I8MM = 32,
    CPU_AMX = 64,               /* tiles, their products of bytes, and GFNI */
    CPU_AMD = 128,              /* made by AMD                    */
    CPU_AVX512BF16 = 256
};

/* The features as a bit set; the same at every call.  Asks Linux for the tiles of AMX, once for the whole process. */
unsigned cpu_detect(void);
/* "AMD EPYC ..." where the system tells, else the architecture; NUL-terminated, cut at size. */
void cpu_model_name(char *buf, int size);

#endif
