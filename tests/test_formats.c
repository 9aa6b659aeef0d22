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

/* Blocks of few different values, in which opposite ones tie, and of zeros of both signs. */
static void q4_0_first_extreme_counts(void **state)
{
    (void)state;
    struct block_q4_0 b;
    float x[QBLOCK];
    for (uint32_t n = 0; n < 20000; n++) {
        float extreme = 0;
        for (uint32_t i = 0, bits = n; i < QBLOCK; i++) {
            bits = bits * 1664525 + 1013904223;
            const int span = (int)(n % 5), v = (int)(bits >> 16) % (2 * span + 1) - span;
            x[i] = v || bits >> 31 ? (float)v : -0.0f;
            if (fabsf(x[i]) > fabsf(extreme)) extreme = x[i];
        }
        format_q4_0.quantize_row(&b, x, QBLOCK);
        assert_int_equal(b.d, f32_to_f16(extreme / -8));
    }
}

/* Eight 6-bit scales and minimums spread over 12 bytes, as the drawing in format.h says, written by hand. */
static void q4_k_golden_block(void **state)
{
    (void)state;
    static const int scale[8] = { 1, 2, 3, 4, 21, 63, 40, 17 }, minimum[8] = { 0, 1, 2, 63, 50, 33, 7, 16 };
    struct block_q4_k b = { .d = 0x3800, .dmin = 0x3400,        /* 1/2 and 1/4 */
                            .codes = { 0x41, 0xC2, 0x83, 0x44, 0xC0, 0x81, 0x02, 0x7F, 0x25, 0x1F, 0x78, 0x01 } };
    float y[KBLOCK];
    for (int i = 0; i < KBLOCK / 2; i++) b.q[i] = (uint8_t)(i * 7 + 3);
    format_q4_k.dequantize_row(y, &b, KBLOCK);
    for (int chunk = 0; chunk < 4; chunk++)     /* 64 values share 32 bytes: the low nibbles first, then the high ones */
        for (int i = 0; i < 32; i++) {
            const int byte = (chunk * 32 + i) * 7 + 3, g = 2 * chunk;
            assert_true(y[chunk * 64 + i] == 0.5f * (float)scale[g] * (float)(byte & 15) - 0.25f * (float)minimum[g]);
            assert_true(y[chunk * 64 + 32 + i] == 0.5f * (float)scale[g + 1] * (float)(byte >> 4 & 15) - 0.25f * (float)minimum[g + 1]);
        }
    for (int g = 0; g < 8; g++) {
        int s, m;
        q4_k_get_codes(&b, g, &s, &m);
        assert_int_equal(s, scale[g]);
        assert_int_equal(m, minimum[g]);
    }
    assert_true(y[0] == 0.5f * 3 && y[32] == 0 - 0.25f && y[255] == 0.5f * 17 * 7 - 0.25f * 16);        /* bytes 0x03 and 0x7C */
}

static void q6_k_golden_block(void **state)
{
    (void)state;
    struct block_q6_k b = { .d = 0x3000 };      /* 1/8 */
    float y[KBLOCK];
    for (int i = 0; i < 128; i++) b.low[i] = (uint8_t)(i * 11 + 5);
    for (int i = 0; i < 64; i++) b.high[i] = (uint8_t)(i * 29 + 7);
    for (int g = 0; g < 16; g++) b.scale[g] = (int8_t)(g == 0 ? -128 : g == 15 ? 127 : g * 5 - 30);
    format_q6_k.dequantize_row(y, &b, KBLOCK);
    for (int half = 0; half < 2; half++)        /* a byte of high serves four values, 32 apart */
        for (int l = 0; l < 32; l++) {
            const int a = b.low[half * 64 + l], c = b.low[half * 64 + 32 + l], h = b.high[half * 32 + l];
            const int code[4] = { (a & 15) + h % 4 * 16, (c & 15) + h / 4 % 4 * 16, (a >> 4) + h / 16 % 4 * 16, (c >> 4) + h / 64 * 16 };
            for (int s = 0; s < 4; s++)
                assert_true(y[half * 128 + s * 32 + l] == 0.125f * (float)b.scale[half * 8 + s * 2 + l / 16] * (float)(code[s] - 32));
        }
    assert_true(y[0] == 0.125f * -128 * (5 + 48 - 32));         /* nibble 5 of 0x05, bits 3 of 0x07 */
}

/* Values that the format can hold come back exactly where the scales are powers of two. */
static void k_quants_find_the_codes_of_exact_values(void **state)
{
    (void)state;
    float x[KBLOCK], y[KBLOCK];
    struct block_q4_k b4;
    struct block_q6_k b6;
    for (int i = 0; i < KBLOCK; i++) x[i] = 63.0f * (float)(i % 16) - (i / 32 == 2 ? 126.0f : 0.0f);
    format_q4_k.quantize_row(&b4, x, KBLOCK);
    format_q4_k.dequantize_row(y, &b4, KBLOCK);
    assert_int_equal(b4.d, 0x3C00);
    assert_int_equal(b4.dmin, 0x4000);          /* the one minimum, 126, is 63 times 2 */
    for (int i = 0; i < KBLOCK; i++) assert_true(y[i] == x[i]);
    for (int i = 0; i < KBLOCK; i++) x[i] = -127.0f * (float)((i * 5) % 64 - 32);
    for (int i = 0; i < KBLOCK; i += 16) x[i] = -127.0f * -32;  /* every group reaches its end, so that its scale is -127 */
    format_q6_k.quantize_row(&b6, x, KBLOCK);
    format_q6_k.dequantize_row(y, &b6, KBLOCK);
    assert_int_equal(b6.d, 0x3C00);
    for (int i = 0; i < KBLOCK; i++) assert_true(y[i] == x[i]);
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
        { &format_f32, 0 }, { &format_f16, 3e-4 }, { &format_bf16, 2e-3 }, { &format_q8_0, 6e-3 }, { &format_q6_k, 1.9e-2 },
        { &format_q4_k, 7.5e-2 }, { &format_q4_0, 9e-2 },
    };
    static float x[K], y[K];
    static unsigned char packed[K * 4 + 1], again[K * 4];
    uint64_t seed = 1;
    for (size_t i = 0; i < K; i++) x[i] = gaussian(&seed);
    for (size_t n = 0; n < ARRAY_LEN(bound); n++) {
        const struct quant_format *f = bound[n].f;
        const size_t bytes = quant_row_bytes(f, K);
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
            float x[KBLOCK] = { 0 }, y[KBLOCK];
            unsigned char block[KBLOCK * 4];
            x[5] = tiny[t];
            quant_formats[n]->quantize_row(block, x, KBLOCK);
            quant_formats[n]->dequantize_row(y, block, KBLOCK);
            for (int i = 0; i < KBLOCK; i++) assert_true(fabsf(y[i] - x[i]) <= fabsf(tiny[t]) + 1e-38f);
        }
}

/* A value too large for the format shows in what is read back, so that writers can refuse it. */
static void overflow_is_visible(void **state)
{
    (void)state;
    static const struct { const struct quant_format *f; float most, over; } limit[] = {
        { &format_f16, 65519, 65520 }, { &format_bf16, 3.38e38f, 3.4e38f },
        { &format_q8_0, 65519 * 127.0f, 65520 * 127.0f }, { &format_q4_0, 65519 * 8.0f, 65520 * 8.0f },
        { &format_q6_k, 2e8f, 3e8f }, { &format_q4_k, 5e7f, 7e7f },            /* about 65504 * 127 * 32 and 65504 * 63 * 15 */
    };
    for (size_t n = 0; n < ARRAY_LEN(limit); n++)
        for (int over = 0; over < 2; over++) {
            float x[KBLOCK] = { 0 }, y[KBLOCK];
            unsigned char block[KBLOCK * 4];
            bool finite = true;
            x[7] = over ? limit[n].over : limit[n].most;
            limit[n].f->quantize_row(block, x, KBLOCK);
            limit[n].f->dequantize_row(y, block, KBLOCK);
            for (int i = 0; i < KBLOCK; i++) finite = finite && isfinite(y[i]);
            assert_int_equal(finite, !over);
        }
}

static double weighted_error(const struct quant_format *f, const float *x, const float *importance, bool search, size_t k)
{
    static float y[4096];
    static unsigned char packed[4096 * 4];
    double sum = 0;
    if (search) f->search_row(packed, x, importance, k);
    else f->quantize_row(packed, x, k);
    f->dequantize_row(y, packed, k);
    for (size_t i = 0; i < k; i++)
        sum += (importance ? (double)importance[i] : 1) * ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

/* A searched scale loses less than that of the largest value; one searched by importance loses less of what is important. */
static void searched_scales_lose_less(void **state)
{
    (void)state;
    enum { K = 4096 };
    static float x[K], importance[K], none[K];
    uint64_t seed = 3;
    for (size_t i = 0; i < K; i++) x[i] = gaussian(&seed);
    for (size_t i = 0; i < K; i++) importance[i] = i % 8 ? 0.05f : 5;
    assert_true(weighted_error(&format_q4_0, x, NULL, true, K) < 0.92 * weighted_error(&format_q4_0, x, NULL, false, K));
    for (size_t n = 0; quant_formats[n]; n++) {
        const struct quant_format *f = quant_formats[n];
        if (!f->search_row) continue;
        assert_true(weighted_error(f, x, NULL, true, K) <= weighted_error(f, x, NULL, false, K));
        const float least = f == &format_q6_k ? 0.98f : 0.8f;
        if (!(weighted_error(f, x, importance, true, K) < (double)least * weighted_error(f, x, importance, false, K)))
            fail_msg("%s: %g, %g", f->name, weighted_error(f, x, importance, true, K), weighted_error(f, x, importance, false, K));
        assert_true(weighted_error(f, x, none, true, K) == 0);  /* importance of nothing but zeros: all count the same */
        unsigned char a[KBLOCK * 4], b[KBLOCK * 4];
        f->search_row(a, x, NULL, KBLOCK);
        f->search_row(b, x, none, KBLOCK);
        assert_memory_equal(a, b, KBLOCK / f->block * f->block_bytes);
    }
}

/* No input makes the search do anything undefined, and what cannot be held shows. */
static void the_search_survives_extreme_values(void **state)
{
    (void)state;
    static const float extremes[] = { 3.4e38f, -3.4e38f, 1e20f, -1e20f, 1e-45f, 0, 1 };
    uint64_t seed = 9;
    for (int round = 0; round < 200; round++)
        for (size_t n = 0; quant_formats[n]; n++) {
            float x[KBLOCK], importance[KBLOCK], y[KBLOCK], most = 0, held = 0;
            unsigned char block[KBLOCK * 4];
            if (!quant_formats[n]->search_row) continue;
            for (int i = 0; i < KBLOCK; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                x[i] = extremes[(seed >> 33) % ARRAY_LEN(extremes)];
                importance[i] = fabsf(extremes[(seed >> 40) % ARRAY_LEN(extremes)]);
                most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
            }
            quant_formats[n]->search_row(block, x, importance, KBLOCK);
            quant_formats[n]->dequantize_row(y, block, KBLOCK);
            for (int i = 0; i < KBLOCK; i++) held = isfinite(y[i]) ? held : INFINITY;
            if (most > 1e10f) assert_true(isinf(held));
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
    assert_int_equal(n, 7);
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
        cmocka_unit_test(q4_0_first_extreme_counts),
        cmocka_unit_test(q4_k_golden_block),
        cmocka_unit_test(q6_k_golden_block),
        cmocka_unit_test(k_quants_find_the_codes_of_exact_values),
        cmocka_unit_test(errors_stay_in_their_bounds),
        cmocka_unit_test(searched_scales_lose_less),
        cmocka_unit_test(the_search_survives_extreme_values),
        cmocka_unit_test(zero_and_tiny_rows_are_harmless),
        cmocka_unit_test(overflow_is_visible),
        cmocka_unit_test(q8_0_reads_every_byte_value),
        cmocka_unit_test(table_is_consistent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
