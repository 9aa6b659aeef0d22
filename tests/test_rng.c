/* test_rng.c - the generator against the test vectors of its specification (tests/data/noise.json). */
#include "testing.h"

#include <inttypes.h>
#include <jansson.h>

#include "rng.h"

static uint64_t field(json_t *o, const char *name) { return (uint64_t)json_integer_value(json_object_get(o, name)); }

static void vectors(void **state)
{
    (void)state;
    json_t *all = json_load_file("tests/data/noise.json", 0, NULL), *one;
    size_t i;
    assert_non_null(all);
    json_array_foreach(json_object_get(all, "cases"), i, one) {
        const uint64_t prefix = noise_prefix(field(one, "seed"), (enum noise_stream)field(one, "stream"), field(one, "step"), field(one, "row"), field(one, "pos"));
        const uint64_t bits = noise_bits(prefix, field(one, "vocab"));
        char hex[17];
        snprintf(hex, sizeof hex, "%016" PRIx64, bits);
        assert_string_equal(hex, json_string_value(json_object_get(one, "bits_hex")));
        assert_true(noise_f64(bits) == json_real_value(json_object_get(one, "uniform64")));
        assert_true((double)noise_f32(noise_bits(prefix, 0)) == json_real_value(json_object_get(one, "uniform32_vocab0")));
    }
    assert_int_equal(i, 24);
    json_decref(all);
}

static void ranges(void **state)
{
    (void)state;
    assert_true(noise_f64(0) == 0 && noise_f64(UINT64_MAX) < 1 && noise_f32(0) == 0 && noise_f32(UINT64_MAX) < 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(vectors), cmocka_unit_test(ranges) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
