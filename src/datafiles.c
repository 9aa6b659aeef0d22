/* datafiles.c - see datafiles.h.  DATADIR is PREFIX/share/unmask, from the Makefile. */
#include "datafiles.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool datafile_find(const char *folder, const char *name, char path[1024])
{
    static const char *const ways[] = { "/..", "/../share/unmask" };
    char here[800];
    const ssize_t n = readlink("/proc/self/exe", here, sizeof here - 1);        /* the real path, through links */
    here[n > 0 ? n : 0] = 0;
    char *slash = strrchr(here, '/');
    if (slash) *slash = 0;
    for (int i = 0; i < 2 && slash; i++)
        if (snprintf(path, 1024, "%s%s/%s/%s", here, ways[i], folder, name) < 1024 && access(path, F_OK) == 0) return true;
    return snprintf(path, 1024, "%s/%s/%s", DATADIR, folder, name) < 1024 && access(path, F_OK) == 0;
}
