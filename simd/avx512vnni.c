/* avx512vnni.c - kernels for AVX-512 with VNNI: vpdpbusd on 512-bit registers, and the float kernels that gain from them. */
enum { Q4_PANEL = 16, Q8_PANEL = 24, Q4K_PANEL = 16, Q6K_PANEL = 12, PACKED_CHUNK = 16 };

#include "attend_x86.h"
#include "gemm_vnni_512.h"
#include "plain_x86.h"
#include "rows_x86.h"

double int8_peak_avx512vnni(long rounds);
double int8_peak_avx512vnni(long rounds) { return dot_peak(rounds); }

static void gemm_f32_avx512vnni(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(F32, y, ldy, x, ldx, row0, row1, w, n_tiles, k);
}
static void gemm_f16_avx512vnni(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(F16, y, ldy, x, ldx, row0, row1, w, n_tiles, k);
}
static void gemm_bf16_avx512vnni(float *y, size_t ldy, const float *x, size_t ldx, int row0, int row1, const void *w, int n_tiles, int k)
{
    gemm_plain(BF16, y, ldy, x, ldx, row0, row1, w, n_tiles, k);
}

static void swiglu_avx512vnni(float *y, const float *gate, const float *up, int n) { swiglu_row(y, gate, up, n); }
static float sum_exp_avx512vnni(const float *x, int n, float max, float *moment) { return sum_exp_row(x, n, max, moment); }
static void attend_avx512vnni(const struct attend_args *a) { attend_rows(FLOAT32, a); }
static void attend_bf16_avx512vnni(const struct attend_args *a) { attend_rows(SINGLES, a); }

static const struct gemm_float gemm_f32 = { gemm_f32_avx512vnni }, gemm_f16 = { gemm_f16_avx512vnni }, gemm_bf16 = { gemm_bf16_avx512vnni };

const struct kernels kernels_avx512vnni = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k,
    .gemm_f32 = &gemm_f32, .gemm_f16 = &gemm_f16, .gemm_bf16 = &gemm_bf16,
    .swiglu = swiglu_avx512vnni, .attend = attend_avx512vnni, .attend_bf16 = attend_bf16_avx512vnni, .sum_exp = sum_exp_avx512vnni,
};
