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
        assert_int_equal(sscanf(line, "%" SCNu64 " %u %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNx64 " %lf %lf",
                                &seed, &stream, &step, &row, &position, &token, &want, &u64, &u32), 9);
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

static void shuffled(void **state)
{
    (void)state;
    struct noise_rank order[100];
    bool seen[100] = { false };
    noise_shuffle(order, 100, 3, NOISE_CALIBRATION, 1, 2);
    for (int i = 0; i < 100; i++) {
        assert_true(order[i].index < 100 && !seen[order[i].index]);
        seen[order[i].index] = true;
        assert_true(order[i].key == noise_bits(noise_prefix(3, NOISE_CALIBRATION, 1, 2, order[i].index), 0));
        assert_true(i == 0 || order[i].key > order[i - 1].key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(vectors), cmocka_unit_test(ranges), cmocka_unit_test(shuffled) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
