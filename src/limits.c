/* limits.c - see limits.h. */
#define _GNU_SOURCE             /* sched_getaffinity */
#include "limits.h"

#include <fcntl.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "mem.h"

enum { MOST_TEXT = 4096, MOST_PATH = 1024 };

/* ---- numbers in small text files of the system ---- */

static bool read_text(const char *path, char text[MOST_TEXT])
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const ssize_t n = read(fd, text, MOST_TEXT - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* The number at p; UINT64_MAX where there is none: "max", -1. */
static uint64_t number_at(const char *p)
{
    while (*p == ' ') p++;
    if (*p < '0' || *p > '9') return UINT64_MAX;
    uint64_t v = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (!u64_mul(v, 10, &v) || !u64_add(v, (uint64_t)(*p - '0'), &v)) return UINT64_MAX;
    return v;
}

/* The number after the first `label` in a file; UINT64_MAX where there is none.  A file may be long: /proc/self/status lists all groups
 * of a user before the memory. */
static uint64_t number_in(const char *path, const char *label)
{
    enum { WHOLE = 64 };                        /* a label and its number end within so many bytes */
    char text[MOST_TEXT];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t v = UINT64_MAX;
    for (size_t n = 0; fd >= 0; ) {
        const ssize_t got = read(fd, text + n, MOST_TEXT - 1 - n);
        if (got > 0) n += (size_t)got;
        text[n] = 0;
        const char *p = strstr(text, label), *end = text + n, *from = p ? p : n > WHOLE ? end - WHOLE : text;
        if (p && (got <= 0 || end - p > WHOLE)) v = number_at(p + strlen(label));
        if (got <= 0 || (p && end - p > WHOLE)) break;
        n = (size_t)(end - from);
        memmove(text, from, n);
    }
    if (fd >= 0) close(fd);
    return v;
}

static uint64_t kib_in(const char *path, const char *label)
{
    const uint64_t kib = number_in(path, label);
    return kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
}

/* ---- control groups: ours and those above it, each of which limits us; a container may show its own as the root ---- */

struct hierarchy {
    const char *line, *root;                    /* in /proc/self/cgroup, before the path; where the groups are mounted */
    const char *limit, *used, *stat, *inactive, *active;        /* memory: files, and the labels in one of them        */
    const char *quota, *period;                 /* cores; no period: the second number of the quota                    */
};
static const struct hierarchy memory_v2 = { "0::", "/sys/fs/cgroup", .limit = "memory.max", .used = "memory.current",
                                            .stat = "memory.stat", .inactive = "inactive_file", .active = "\nactive_file" };
static const struct hierarchy memory_v1 = { ":memory:", "/sys/fs/cgroup/memory", .limit = "memory.limit_in_bytes",
                                            .used = "memory.usage_in_bytes", .stat = "memory.stat",
                                            .inactive = "total_inactive_file", .active = "total_active_file" };
static const struct hierarchy cpu_v2 = { "0::", "/sys/fs/cgroup", .quota = "cpu.max" };
static const struct hierarchy cpu_v1 = { ":cpu:", "/sys/fs/cgroup/cpu", .quota = "cpu.cfs_quota_us", .period = "cpu.cfs_period_us" };
static const struct hierarchy cpu_both_v1 = { ":cpu,cpuacct:", "/sys/fs/cgroup/cpu", .quota = "cpu.cfs_quota_us",
                                              .period = "cpu.cfs_period_us" };

typedef uint64_t group_value(const struct hierarchy *h, const char *group);

static const char *file_of(char path[MOST_PATH], const struct hierarchy *h, const char *group, const char *file)
{
    snprintf(path, MOST_PATH, "%s%s/%s", h->root, group, file);
    return path;
}

static uint64_t least_of_groups(const struct hierarchy *h, group_value *value)
{
    char text[MOST_TEXT], group[MOST_PATH / 2] = "";
    const char *line = read_text("/proc/self/cgroup", text) ? strstr(text, h->line) : NULL;
    if (line) {
        line += strlen(h->line);
        const size_t n = strcspn(line, "\n");
        if (n < sizeof group && *line == '/') memcpy(group, line, n);           /* else the root alone */
    }
    for (uint64_t least = UINT64_MAX; ; ) {
        char *end = strrchr(group, '/');
        if (end && end[1] == 0) *end = 0;       /* the root's path is "/" */
        const uint64_t v = value(h, group);
        if (v < least) least = v;
        if (!*group) return least;
        *strrchr(group, '/') = 0;
    }
}

/* ---- memory ---- */

static uint64_t room(uint64_t limit, uint64_t used)
{
    return limit == UINT64_MAX ? limit : used == UINT64_MAX || used > limit ? 0 : limit - used;
}

static uint64_t memory_of_group(const struct hierarchy *h, const char *group)
{
    char path[MOST_PATH];
    const uint64_t limit = number_in(file_of(path, h, group, h->limit), "");
    if (limit == UINT64_MAX) return limit;
    const uint64_t used = number_in(file_of(path, h, group, h->used), "");
    file_of(path, h, group, h->stat);
    const uint64_t inactive = number_in(path, h->inactive), active = number_in(path, h->active);
    const uint64_t files = (inactive == UINT64_MAX ? 0 : inactive) + (active == UINT64_MAX ? 0 : active);
    return room(limit, used == UINT64_MAX ? used : room(used, files));
}

static uint64_t room_below(int resource, const char *used)
{
    struct rlimit lim;
    if (getrlimit(resource, &lim) != 0 || lim.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return room(lim.rlim_cur, kib_in("/proc/self/status", used));
}

uint64_t limits_memory_taken(void)
{
    const uint64_t bytes = kib_in("/proc/self/status", "VmRSS:\t");
    return bytes == UINT64_MAX ? 0 : bytes;
}

uint64_t limits_memory(void)
{
    const uint64_t rooms[] = {
        kib_in("/proc/meminfo", "MemAvailable:"), least_of_groups(&memory_v2, memory_of_group),
        least_of_groups(&memory_v1, memory_of_group), room_below(RLIMIT_DATA, "VmData:\t"), room_below(RLIMIT_AS, "VmSize:\t"),
    };
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        if (rooms[i] < least) least = rooms[i];
    return least;
}

/* ---- cores ---- */

static uint64_t cores_of_group(const struct hierarchy *h, const char *group)
{
    char path[MOST_PATH];
    file_of(path, h, group, h->quota);
    const uint64_t quota = number_in(path, "");
    const uint64_t period = h->period ? number_in(file_of(path, h, group, h->period), "") : number_in(path, " ");
    return quota == UINT64_MAX || period == 0 || period == UINT64_MAX ? UINT64_MAX : quota / period + (quota % period != 0);
}

int limits_cores(void)
{
    static const struct hierarchy *const all[] = { &cpu_v2, &cpu_v1, &cpu_both_v1 };
    cpu_set_t set;
    uint64_t least = sched_getaffinity(0, sizeof set, &set) == 0 ? (uint64_t)CPU_COUNT(&set) : 1;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        const uint64_t cores = least_of_groups(all[i], cores_of_group);
        if (cores < least) least = cores;
    }
    return least < 1 ? 1 : (int)least;
}
