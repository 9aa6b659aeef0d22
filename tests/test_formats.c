/* test_formats.c - number formats: exact rounding, golden blocks, round trips, error bounds, the table. */
#include "testing.h"

#include <math.h>
#include "f16.h"
#include "format.h"

/* The value nearest to x among all finite halves, by the definition: search, ties to the even pattern. */
static uint16_t nearest_half(float x)
{
    const uint16_t sign = signbit(x) ? 0x8000 : 0;
    const double a = fabs((double)x);
    if (a >= 65520) return sign | 0x7C00;
    uint16_t lo = 0, hi = 0x7BFF;
    while (lo < hi) {                           /* largest half that is <= a */
        const uint16_t mid = (uint16_t)((lo + hi + 1) / 2);
        if ((double)f16_to_f32(mid) <= a) lo = mid;
        else hi = (uint16_t)(mid - 1);
    }
    const double below = a - (double)f16_to_f32(lo);
    const double above = (lo == 0x7BFF ? 65536.0 : (double)f16_to_f32((uint16_t)(lo + 1))) - a;
    return sign | (uint16_t)(above < below || (above == below && (lo & 1)) ? lo + 1 : lo);
}

/* Widening is checked against the definition of the format, not against code. */
static void every_half_widens_to_its_definition_and_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const int e = (int)(h >> 10 & 31), m = (int)(h & 1023);
        const float x = f16_to_f32((uint16_t)h);
        if (e == 31 && m) {
            assert_true(isnan(x));
            assert_true(isnan(f16_to_f32(f32_to_f16(x))));
            continue;
        }
        const double want = e == 31 ? INFINITY : e ? ldexp(1024 + m, e - 25) : ldexp(m, -24);
        assert_true((double)fabsf(x) == want && !signbit(x) == !(h & 0x8000));
        assert_int_equal(f32_to_f16(x), h);
    }
}

static void floats_round_to_the_nearest_half(void **state)
{
    (void)state;
    /* Every half, the midpoint above it, and the floats on both sides of each: all places where rounding can go wrong. */
    for (uint32_t h = 0; h < 0x7C00; h++) {
        const float at = f16_to_f32((uint16_t)h);
        const float next = h == 0x7BFF ? 65536.0f : f16_to_f32((uint16_t)(h + 1));
        const float places[2] = { at, (at + next) / 2 };
        for (int i = 0; i < 2; i++)
            for (int s = -1; s <= 1; s += 2) {
                const float x = (float)s * places[i];
                const float around[3] = { x, nextafterf(x, INFINITY), nextafterf(x, -INFINITY) };
                for (int j = 0; j < 3; j++)
                    if (f32_to_f16(around[j]) != nearest_half(around[j]))
                        fail_msg("%a: %04x, need %04x", (double)around[j], f32_to_f16(around[j]), nearest_half(around[j]));
            }
    }
    assert_int_equal(f32_to_f16(INFINITY), 0x7C00);
    assert_int_equal(f32_to_f16(3e38f), 0x7C00);
    assert_int_equal(f32_to_f16(-1e-30f), 0x8000);
}

static void bfloat16_rounds_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x10000; h++) {
        const uint32_t low[] = { 0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF };
        const float x = bf16_to_f32((uint16_t)h);
        if (isnan(x)) {
            assert_true(isnan(bf16_to_f32(f32_to_bf16(x))));
            assert_true(isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(h << 16 | 0xFFFF)))));
            continue;
        }
        assert_int_equal(f32_bits(x), h << 16);
        if (isinf(x)) continue;
        for (size_t i = 0; i < ARRAY_LEN(low); i++) {
            const uint32_t up = low[i] > 0x8000 || (low[i] == 0x8000 && (h & 1));
            assert_int_equal(f32_to_bf16(f32_from_bits(h << 16 | low[i])), h + up);
        }
    }
    assert_true(isnan(bf16_to_f32(f32_to_bf16(f32_from_bits(0x7F800001)))));
}

/* max|x| = 127 makes the scale 1, so that the rounding itself is seen: half away from zero. */
static void q8_0_golden_block(void **state)
{
    (void)state;
    const float x[QBLOCK] = { 127, -127, 0.5f, -0.5f, 1.5f, -1.5f, 2.5f, 0.49f, 126.5f, -0.0f, 100.25f, -3.75f };
    const int8_t q[QBLOCK] = { 127, -127, 1, -1, 2, -2, 3, 0, 127, 0, 100, -4 };
    struct block_q8_0 b;
    format_q8_0.quantize_row(&b, x, QBLOCK);
    assert_int_equal(b.d, 0x3C00);
    assert_memory_equal(b.q, q, sizeof q);
}

/* A block whose scale is not a power of two: 0.1 * 37i mod 32 - 16; bytes computed in numpy by the same definition. */
static void q8_0_golden_block_with_an_odd_scale(void **state)
{
    (void)state;
    static const int8_t q[QBLOCK] = {
        -127, -87, -48, -8, 32, 71, 111, -103, -64, -24, 16, 56, 95, -119, -79, -40,
        0, 40, 79, 119, -95, -56, -16, 24, 64, 103, -111, -71, -32, 8, 48, 87,
    };
    float x[QBLOCK];
    struct block_q8_0 b;
    for (int i = 0; i < QBLOCK; i++) x[i] = (float)(i * 37 % 32 - 16) * 0.1f;
    format_q8_0.quantize_row(&b, x, QBLOCK);
    assert_int_equal(b.d, 0x2273);
    assert_memory_equal(b.q, q, sizeof q);
}

/* -8 makes the scale 1: value v becomes nibble min(15, floor(v + 8.5)). */
static void q4_0_golden_block(void **state)
{
    (void)state;
    float x[QBLOCK] = { -8, 8, 7.5f, 7.4f, 0.5f, -0.5f, 0.49f, -7.6f, 1, 2, 3, 4, 5, 6, 7, 0 };
    static const uint8_t low[16] = { 0, 15, 15, 15, 9, 8, 8, 0, 9, 10, 11, 12, 13, 14, 15, 8 };
    struct block_q4_0 b;
    for (int i = 0; i < 16; i++) x[16 + i] = (float)-i / 2;
    static const uint8_t high[16] = { 8, 8, 7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1 };
    format_q4_0.quantize_row(&b, x, QBLOCK);
    assert_int_equal(b.d, 0x3C00);
    for (int i = 0; i < 16; i++) assert_int_equal(b.q[i], low[i] | high[i] << 4);
}

/* The first value of largest magnitude gives the sign of the scale: +4 makes it -0.5. */
static void q4_0_scale_carries_the_sign(void **state)
{
    (void)state;
    const float x[QBLOCK] = { 4, -4, 1, -1, 0.25f };
    struct block_q4_0 b;
    float y[QBLOCK];
    format_q4_0.quantize_row(&b, x, QBLOCK);
    assert_int_equal(b.d, 0xB800);
    format_q4_0.dequantize_row(y, &b, QBLOCK);
    assert_true(y[0] == 4 && y[1] == -3.5f && y[2] == 1 && y[3] == -1 && y[5] == 0);
}

static float gaussian(uint64_t *s)              /* sum of 12 uniforms: close enough to weights */
{
    float sum = -6;
    for (int i = 0; i < 12; i++) {
        *s = *s * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(*s >> 40) * 0x1p-24f;
    }
    return sum;
}

static void errors_stay_in_their_bounds(void **state)
{
    (void)state;
    enum { K = 4096 };
    static const struct { const struct quant_format *f; double rmse; } bound[] = {
        { &format_f32, 0 }, { &format_f16, 3e-4 }, { &format_bf16, 2e-3 }, { &format_q8_0, 6e-3 }, { &format_q4_0, 9e-2 },
    };
    static float x[K], y[K];
    static unsigned char packed[K * 4 + 1], again[K * 4];
    uint64_t seed = 1;
    for (size_t i = 0; i < K; i++) x[i] = gaussian(&seed);
    for (size_t n = 0; n < ARRAY_LEN(bound); n++) {
        const struct quant_format *f = bound[n].f;
        const size_t bytes = K / (size_t)f->block * (size_t)f->block_bytes;
        double sum = 0;
        f->quantize_row(packed + 1, x, K);      /* at an odd address */
        f->dequantize_row(y, packed + 1, K);
        for (size_t i = 0; i < K; i++) sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
        if (sqrt(sum / K) > bound[n].rmse) fail_msg("%s: rmse %g, bound %g", f->name, sqrt(sum / K), bound[n].rmse);
        f->quantize_row(again, y, K);
        if (f->block == 1) assert_memory_equal(again, packed + 1, bytes);    /* a value of the format stays itself */
    }
}

/* Zeros, values below every scale, single subnormals: finite results, nothing undefined. */
static void zero_and_tiny_rows_are_harmless(void **state)
{
    (void)state;
    const float tiny[] = { 0, -0.0f, 0x1p-149f, -0x1p-149f, 1e-38f, 1e-20f, 6e-8f, -6e-8f };
    for (size_t t = 0; t < ARRAY_LEN(tiny); t++)
        for (size_t n = 0; quant_formats[n]; n++) {
            float x[QBLOCK] = { 0 }, y[QBLOCK];
            unsigned char block[QBLOCK * 4];
            x[5] = tiny[t];
            quant_formats[n]->quantize_row(block, x, QBLOCK);
            quant_formats[n]->dequantize_row(y, block, QBLOCK);
            for (int i = 0; i < QBLOCK; i++) assert_true(fabsf(y[i] - x[i]) <= fabsf(tiny[t]) + 1e-38f);
        }
}

/* A value too large for the format shows in what is read back, so that writers can refuse it. */
static void overflow_is_visible(void **state)
{
    (void)state;
    static const struct { const struct quant_format *f; float most, over; } limit[] = {
        { &format_f16, 65519, 65520 }, { &format_bf16, 3.38e38f, 3.4e38f },
        { &format_q8_0, 65519 * 127.0f, 65520 * 127.0f }, { &format_q4_0, 65519 * 8.0f, 65520 * 8.0f },
    };
    for (size_t n = 0; n < ARRAY_LEN(limit); n++)
        for (int over = 0; over < 2; over++) {
            float x[QBLOCK] = { 0 }, y[QBLOCK];
            unsigned char block[QBLOCK * 4];
            bool finite = true;
            x[7] = over ? limit[n].over : limit[n].most;
            limit[n].f->quantize_row(block, x, QBLOCK);
            limit[n].f->dequantize_row(y, block, QBLOCK);
            for (int i = 0; i < QBLOCK; i++) finite = finite && isfinite(y[i]);
            assert_int_equal(finite, !over);
        }
}

static void q8_0_reads_every_byte_value(void **state)
{
    (void)state;
    for (int q = -128; q < 128; q++) {
        struct block_q8_0 b = { .d = 0xB800 };  /* -0.5 */
        float y[QBLOCK];
        b.q[31] = (int8_t)q;
        format_q8_0.dequantize_row(y, &b, QBLOCK);
        assert_true(y[31] == -0.5f * (float)q && y[0] == 0);
    }
}

static void table_is_consistent(void **state)
{
    (void)state;
    size_t n = 0;
    for (; quant_formats[n]; n++) {
        const struct quant_format *f = quant_formats[n];
        assert_ptr_equal(quant_format_by_name(f->name), f);
        assert_ptr_equal(quant_format_by_gguf_type(f->gguf_type), f);
        assert_true(f->block > 0 && f->block_bytes > 0 && f->quantize_row && f->dequantize_row);
        if (f->safetensors) assert_ptr_equal(quant_format_by_safetensors(f->safetensors, strlen(f->safetensors)), f);
    }
    assert_int_equal(n, 5);
    assert_ptr_equal(quant_format_by_name("Q8_0"), &format_q8_0);
    assert_null(quant_format_by_name("q8"));
    assert_null(quant_format_by_gguf_type(4));  /* a hole in ggml's enumeration */
    assert_null(quant_format_by_safetensors("f32", 3));
    assert_null(quant_format_by_safetensors("F3", 2));
    assert_null(quant_format_by_safetensors("F32 ", 4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_widens_to_its_definition_and_back),
        cmocka_unit_test(floats_round_to_the_nearest_half),
        cmocka_unit_test(bfloat16_rounds_to_nearest_even),
        cmocka_unit_test(q8_0_golden_block),
        cmocka_unit_test(q8_0_golden_block_with_an_odd_scale),
        cmocka_unit_test(q4_0_golden_block),
        cmocka_unit_test(q4_0_scale_carries_the_sign),
        cmocka_unit_test(errors_stay_in_their_bounds),
        cmocka_unit_test(zero_and_tiny_rows_are_harmless),
        cmocka_unit_test(overflow_is_visible),
        cmocka_unit_test(q8_0_reads_every_byte_value),
        cmocka_unit_test(table_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
