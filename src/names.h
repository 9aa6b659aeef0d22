/* names.h - a hash table from names in a file to their numbers.
 * The seed is drawn at random for each table, so that no file can be made whose names all collide. */
#ifndef NAMES_H
#define NAMES_H

#include "err.h"

struct name_slot { const char *s; size_t n; size_t value; };    /* s == NULL: free */
struct names { struct name_slot *slots; size_t n_slots; uint64_t seed; };

/* A number that a file's writer cannot know; salt: an address, for where the system gives none yet. */
uint64_t names_seed(const void *salt);
/* Room for n names, which stay borrowed. */
bool names_init(struct names *t, size_t n, struct unmask_err *err);
/* False if the name is there already; *value then becomes its number. */
bool names_add(struct names *t, const char *s, size_t n, size_t *value);
bool names_find(const struct names *t, const char *s, size_t n, size_t *value);
void names_free(struct names *t);               /* a zeroed struct is fine, and is empty */

#endif
