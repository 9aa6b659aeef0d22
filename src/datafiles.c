/* datafiles.c - see datafiles.h.  DATADIR is PREFIX/share/unmask, from the Makefile. */
#include "datafiles.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PLACES = 3 };

/* Where `folder` lies in the place of this number; false: nowhere, or its path is too long. */
static bool place_of(int i, const char *folder, char path[1024])
{
    static const char *const ways[] = { "/..", "/../share/unmask" };
    if (i == PLACES - 1) return snprintf(path, 1024, "%s/%s", DATADIR, folder) < 1024;
    char here[800];
    const ssize_t n = readlink("/proc/self/exe", here, sizeof here - 1);        /* the real path, through links */
    here[n > 0 ? n : 0] = 0;
    char *slash = strrchr(here, '/');
    if (slash) *slash = 0;
    return slash && snprintf(path, 1024, "%s%s/%s", here, ways[i], folder) < 1024;
}

bool datafile_find(const char *folder, const char *name, char path[1024])
{
    char place[1024];
    for (int i = 0; i < PLACES; i++)
        if (place_of(i, folder, place) && snprintf(path, 1024, "%s/%s", place, name) < 1024 && access(path, F_OK) == 0) return true;
    return false;
}

void datafile_list(const char *folder, const char *suffix, void (*fn)(void *user, const char *name), void *user)
{
    char place[1024], name[256];
    for (int i = 0; i < PLACES; i++) {
        DIR *d = place_of(i, folder, place) ? opendir(place) : NULL;
        for (const struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d)) {
            const size_t n = strlen(e->d_name), n_suffix = strlen(suffix);
            if (n <= n_suffix || strcmp(e->d_name + n - n_suffix, suffix) != 0) continue;
            snprintf(name, sizeof name, "%.*s", (int)(n - n_suffix), e->d_name);
            fn(user, name);
        }
        if (d) closedir(d);
    }
}
