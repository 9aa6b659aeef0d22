/* test_rng.c - the generator against the test vectors of its specification (tests/data/noise.txt). */
#include "testing.h"

#include <inttypes.h>

#include "rng.h"

static void vectors(void **state)
{
    (void)state;
    FILE *f = fopen("tests/data/noise.txt", "r");
    char line[256];
    int n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        uint64_t seed, step, row, position, token, want;
        unsigned stream;
        double u64, u32;
        if (line[0] == '#') continue;
        assert_int_equal(sscanf(line, "%" SCNu64 " %u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNx64 " %lf %lf", &seed, &stream, &step,
                                &row, &position, &token, &want, &u64, &u32), 9);
        const uint64_t prefix = noise_prefix(seed, (enum noise_stream)stream, step, row, position), bits = noise_bits(prefix, token);
        assert_true(bits == want);
        assert_true(noise_f64(bits) == u64);
        assert_true(noise_f32(noise_bits(prefix, 0)) == (float)u32);
        n++;
    }
    assert_int_equal(n, 24);
    fclose(f);
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
