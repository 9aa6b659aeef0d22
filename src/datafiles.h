/* datafiles.h - where the files that come with the program lie: models/ and configs/. */
#ifndef DATAFILES_H
#define DATAFILES_H

#include <stdbool.h>

/* Path of folder/name beside the build (build/unmask: ../models), beside an installed program (../share/unmask/models), or where
 * `make install` puts it.  False, with the last place that was tried in path, if there is none. */
bool datafile_find(const char *folder, const char *name, char path[1024]);

/* Call fn(user, NAME) for every folder/NAME.SUFFIX in all these places. */
void datafile_list(const char *folder, const char *suffix, void (*fn)(void *user, const char *name), void *user);

#endif
