/* rng.h - counter-based random numbers: a pure function of (seed, stream, step, row, position, token), so
 * that no draw depends on the order of evaluation, on threads or on what else is computed.
 * Built from the splitmix64 finaliser; the specification is class Noise of the numpy oracle and
 * tests/data/noise.txt are its test vectors. */
#ifndef RNG_H
#define RNG_H

#include <stddef.h>
#include <stdint.h>

enum noise_stream {
    NOISE_GUMBEL = 0,           /* LLaDA token sampling          */
    NOISE_REMASK = 1,           /* random remasking              */
    NOISE_LIKELIHOOD = 6,       /* masks of the likelihood bound */
    NOISE_CALIBRATION = 8,      /* masks, and texts of its own, that a model is calibrated on */
    NOISE_WEIGHTS = 7           /* models for measurements       */
};

#define NOISE_GOLDEN 0x9E3779B97F4A7C15u

static inline uint64_t noise_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

/* Hash of all but the token: one call per position, then noise_bits() per token. */
static inline uint64_t noise_prefix(uint64_t seed, enum noise_stream stream, uint64_t step, uint64_t row, uint64_t position)
{
    uint64_t h = noise_mix(seed + NOISE_GOLDEN);
    h = noise_mix(h + NOISE_GOLDEN + (uint64_t)stream);
    h = noise_mix(h + NOISE_GOLDEN + step);
    h = noise_mix(h + NOISE_GOLDEN + row);
    return noise_mix(h + NOISE_GOLDEN + position);
}

static inline uint64_t noise_bits(uint64_t prefix, uint64_t token) { return noise_mix(prefix + NOISE_GOLDEN + token); }
static inline double noise_f64(uint64_t bits) { return (double)(bits >> 11) * 0x1p-53; }       /* [0, 1) */
static inline float noise_f32(uint64_t bits) { return (float)(bits >> 40) * 0x1p-24f; }        /* [0, 1) */

/* 0 .. n-1 in a random order: that of the keys of positions 0 .. n-1, so that the first few are a fair sample. */
struct noise_rank { uint64_t key; size_t index; };
void noise_shuffle(struct noise_rank *order, size_t n, uint64_t seed, enum noise_stream stream, uint64_t step, uint64_t row);

#endif
