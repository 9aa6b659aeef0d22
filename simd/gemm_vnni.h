/* gemm_vnni.h - matrix products over blocks of 32 by vpdpbusd, for 256 and 512 bits (gemm_x86.h has the loops).
 *
 * The file that includes this one defines dot(), sum_to_float(), the rows of panels and PACKED_CHUNK as gemm_x86.h says, and
 *     vint sum_of(vint start)                              what dot() goes on from when a sum starts at an integer below 2^22 */
#ifndef GEMM_VNNI_H
#define GEMM_VNNI_H

#include <stdbool.h>

#include "vectors.h"

/* Bytes lose their sign bit's meaning, which makes them 128 higher. */
INLINE vint q8_weights(vint w) { return flip_signs(w); }
INLINE vint dot_start(const bool bytes, int32_t offset) { return sum_of(bytes ? times_16(all_4(offset)) : all_4(offset)); }
INLINE vint dot_end(const bool bytes, vint sum, int32_t offset) { (void)bytes, (void)offset; return sum; }

/* Codes of Q6_K: 16 products stay below 2^17, times their scale below 2^23: floats hold both halves and their sum exactly. */
enum { QUADS_6 = 4 };
typedef vfloat sum_6;
struct scales_6 { vfloat half[2]; };
INLINE struct scales_6 scales_6_of(vint pairs)
{
    return (struct scales_6){ { to_float(low_halves(pairs)), to_float(high_halves(pairs)) } };
}
INLINE sum_6 start_6(const int16_t *offsets, const struct scales_6 *s) { (void)offsets, (void)s; return zero_f(); }
INLINE sum_6 dot_6(const int half, sum_6 sum, const vint w[QUADS_6], const vint x[QUADS_6],
                   const int16_t *offsets, const struct scales_6 *s)
{
    vint part = sum_of(madd_16(broadcast_4(offsets), all_4(half ? 4 << 16 : 4)));
UNROLL
    for (int i = 0; i < QUADS_6; i++) part = dot(false, part, w[i], x[i]);
    return fma_f(sum_to_float(part), s->half[half], sum);
}
INLINE vfloat end_6(sum_6 sum) { return sum; }

#include "gemm_x86.h"

#endif
