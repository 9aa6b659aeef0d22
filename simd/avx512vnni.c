/* avx512vnni.c - kernels for AVX-512 with VNNI: vpdpbusd on 512-bit registers, and the float kernels that gain from them. */
#include <stdbool.h>

#include "vectors.h"

/* vpdpbusd adds four products of an unsigned and a signed byte to each lane: w without its sign bit's meaning, 128 higher. */
INLINE vint q8_weights(vint w) { return flip_signs(w); }
INLINE vint dot_start(const bool bytes, int32_t offset) { return bytes ? _mm512_slli_epi32(all_4(offset), 4) : all_4(offset); }
INLINE vint dot(const bool bytes, vint sum, vint w, vint x)
{
    (void)bytes;
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));         /* gcc 12 copies and spills the sums of the intrinsic */
    return sum;
}
INLINE vint dot_end(const bool bytes, vint sum, int32_t offset) { (void)bytes, (void)offset; return sum; }
INLINE vfloat sum_to_float(vint sum) { return to_float(sum); }
enum { Q4_PANEL = 16, Q8_PANEL = 24, Q4K_PANEL = 16, Q6K_PANEL = 12 };

/* Codes of Q6_K: 16 products stay below 2^17, times their scale below 2^23: floats hold both halves and their sum exactly. */
enum { QUADS_6 = 4 };
typedef vfloat sum_6;
struct scales_6 { vfloat half[2]; };
INLINE struct scales_6 scales_6_of(vint pairs)
{
    return (struct scales_6){ { to_float(_mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16)), to_float(_mm512_srai_epi32(pairs, 16)) } };
}
INLINE sum_6 start_6(const int16_t *offsets, const struct scales_6 *s) { (void)offsets, (void)s; return zero_f(); }
INLINE sum_6 dot_6(const int half, sum_6 sum, const vint w[QUADS_6], const vint x[QUADS_6], const int16_t *offsets, const struct scales_6 *s)
{
    vint part = madd_16(broadcast_4(offsets), all_4(half ? 4 << 16 : 4));
UNROLL
    for (int i = 0; i < QUADS_6; i++) part = dot(false, part, w[i], x[i]);
    return fma_f(sum_to_float(part), s->half[half], sum);
}
INLINE vfloat end_6(sum_6 sum) { return sum; }

#include "attend_x86.h"
#include "gemm_x86.h"
#include "plain_x86.h"
#include "rows_x86.h"

GEMM_BLOCKS(q4, Q4) GEMM_BLOCKS(q8, Q8) GEMM_BLOCKS(q4k, Q4K) GEMM_BLOCKS(q6k, Q6K)

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
static void attend_avx512vnni(const struct attend_args *a) { attend_rows(a); }

static const struct gemm_float gemm_f32 = { gemm_f32_avx512vnni }, gemm_f16 = { gemm_f16_avx512vnni }, gemm_bf16 = { gemm_bf16_avx512vnni };

const struct kernels kernels_avx512vnni = {
    .gemm_q4 = &gemm_q4, .gemm_q8 = &gemm_q8, .gemm_q4k = &gemm_q4k, .gemm_q6k = &gemm_q6k, .gemm_f32 = &gemm_f32, .gemm_f16 = &gemm_f16, .gemm_bf16 = &gemm_bf16,
    .swiglu = swiglu_avx512vnni, .attend = attend_avx512vnni, .sum_exp = sum_exp_avx512vnni,
};
