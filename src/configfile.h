/* configfile.h - configuration files: libyaml events turned into ("section.key", value, place) triples, within limits that a hostile
 * file cannot exceed: 64 KiB, 8 levels, no anchors, aliases, tags or second document, no key twice. */
#ifndef CONFIGFILE_H
#define CONFIGFILE_H

#include "err.h"

struct yaml_value { const char *key, *text; bool quoted; int line, column; };   /* from 1; valid during the call */

/* Call fn for every scalar of the file; fn returns false with err set to stop. */
bool yaml_read(const char *path, bool (*fn)(void *user, const struct yaml_value *v, struct unmask_err *err), void *user, struct unmask_err *err);

#endif
