/* configfile.h - configuration files: libyaml events turned into ("section.key", value, place) triples, within limits that a hostile
 * file cannot exceed: 64 KiB, 8 levels, no anchors, aliases, tags or second document, no key twice. */
#ifndef CONFIGFILE_H
#define CONFIGFILE_H

#include "err.h"

/* Lines and columns count from 1; everything is valid during the call only. */
struct yaml_value {
    const char *key, *text;
    bool quoted;                /* the text stood in quotes                               */
    bool in_list;               /* an item of the list under key                          */
    bool empty_collection;      /* {} or [], text is ""                                   */
    int line, column;           /* of the key                                             */
};

/* Call fn for every value of the file; fn returns false with err set to stop. */
bool yaml_read(const char *path, bool (*fn)(void *user, const struct yaml_value *v, struct unmask_err *err),
               void *user, struct unmask_err *err);

#endif
