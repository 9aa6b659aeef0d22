/* names.c - see names.h.  Open addressing with linear probing, at most half full. */
#include "names.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "mem.h"
#include "rng.h"

uint64_t names_seed(const void *salt)
{
    uint64_t seed;
    if (getrandom(&seed, sizeof seed, GRND_NONBLOCK) == (ssize_t)sizeof seed) return seed;
    struct timespec now;                        /* early in boot: harder to guess than a constant */
    clock_gettime(CLOCK_MONOTONIC, &now);
    return noise_mix((uint64_t)now.tv_nsec ^ (uintptr_t)salt);
}

static uint64_t hash(uint64_t seed, const char *s, size_t n)
{
    uint64_t h = noise_mix(seed + n), word;
    for (; n >= 8; s += 8, n -= 8) {
        memcpy(&word, s, 8);
        h = noise_mix(h ^ word) + seed;
    }
    word = 0;
    if (n) memcpy(&word, s, n);
    return noise_mix(h ^ word);
}

/* The slot of a name, or the free slot where it belongs. */
static struct name_slot *slot_of(const struct names *t, const char *s, size_t n)
{
    size_t i = (size_t)hash(t->seed, s, n) & (t->n_slots - 1);
    while (t->slots[i].s && (t->slots[i].n != n || memcmp(t->slots[i].s, s, n) != 0)) i = (i + 1) & (t->n_slots - 1);
    return &t->slots[i];
}

bool names_init(struct names *t, size_t n, struct unmask_err *err)
{
    size_t n_slots = 16;
    while (n_slots / 2 < n && n_slots <= SIZE_MAX / 2) n_slots *= 2;
    struct name_slot *slots = mem_zalloc(n_slots, sizeof *slots, err);
    if (!slots) return false;
    *t = (struct names){ slots, n_slots, names_seed(slots) };
    return true;
}

bool names_add(struct names *t, const char *s, size_t n, size_t *value)
{
    struct name_slot *slot = slot_of(t, s, n);
    if (slot->s) {
        *value = slot->value;
        return false;
    }
    *slot = (struct name_slot){ s, n, *value };
    return true;
}

bool names_find(const struct names *t, const char *s, size_t n, size_t *value)
{
    const struct name_slot *slot = t->slots ? slot_of(t, s, n) : NULL;
    if (slot && slot->s) *value = slot->value;
    return slot && slot->s;
}

void names_free(struct names *t)
{
    mem_free(t->slots);
    *t = (struct names){ 0 };
}
