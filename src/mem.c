/* mem.c - see mem.h. */
#define _GNU_SOURCE             /* madvise */
#include "mem.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

bool size_mul(size_t a, size_t b, size_t *out)
{
    if (a && b > SIZE_MAX / a) return false;
    *out = a * b;
    return true;
}

bool size_add(size_t a, size_t b, size_t *out)
{
    if (b > SIZE_MAX - a) return false;
    *out = a + b;
    return true;
}

bool u64_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    if (a && b > UINT64_MAX / a) return false;
    *out = a * b;
    return true;
}

bool u64_add(uint64_t a, uint64_t b, uint64_t *out)
{
    if (b > UINT64_MAX - a) return false;
    *out = a + b;
    return true;
}

static void *no_memory(size_t n, size_t size, struct unmask_err *err)
{
    if (n > 1 && size > 1) fail(err, E_MEMORY, .need = FMT("%zu x %zu bytes", n, size));
    else fail(err, E_MEMORY, .need = FMT("%zu bytes", n * size));
    return NULL;
}

void *mem_zalloc(size_t n, size_t size, struct unmask_err *err)
{
    void *p = calloc(n ? n : 1, size ? size : 1);
    return p ? p : no_memory(n, size, err);
}

void *mem_resize(void *p, size_t n, size_t size, struct unmask_err *err)
{
    size_t bytes;
    void *q = size_mul(n, size, &bytes) ? realloc(p, bytes ? bytes : 1) : NULL;
    return q ? q : no_memory(n, size, err);
}

static void *aligned_to(size_t least, size_t bytes, struct unmask_err *err)
{
    enum { HUGE_PAGE = 2 << 20 };
    void *p;
    const size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : least;
    if (posix_memalign(&p, align, bytes ? bytes : 1) != 0) return no_memory(1, bytes, err);
#ifdef MADV_HUGEPAGE
    if (align == HUGE_PAGE) madvise(p, bytes / HUGE_PAGE * HUGE_PAGE, MADV_HUGEPAGE);
#endif
    return p;
}

void *mem_aligned(size_t bytes, struct unmask_err *err) { return aligned_to(64, bytes, err); }
void *mem_pages(size_t bytes, struct unmask_err *err) { return aligned_to(4096, bytes, err); }

void *mem_lay(uint8_t *base, size_t *used, size_t bytes)
{
    void *p = base ? base + *used : NULL;
    *used += (bytes + 63) & ~(size_t)63;
    return p;
}

char *mem_strndup(const char *s, size_t n, struct unmask_err *err)
{
    char *d = n < SIZE_MAX ? mem_resize(NULL, n + 1, 1, err) : no_memory(1, n, err);
    if (d) {
        memcpy(d, s, n);
        d[n] = 0;
    }
    return d;
}

void mem_free(void *p) { free(p); }

/* The first number after `label` in a small text file of the system; UINT64_MAX when there is none. */
static uint64_t system_number(const char *path, const char *label)
{
    char text[4096];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return UINT64_MAX;
    const ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0) return UINT64_MAX;
    text[n] = 0;
    const char *p = strstr(text, label);
    if (!p) return UINT64_MAX;
    for (p += strlen(label); *p == ' '; p++) { }
    if (*p < '0' || *p > '9') return UINT64_MAX;        /* "max" */
    uint64_t v = 0;
    for (; *p >= '0' && *p <= '9'; p++)
        if (!u64_mul(v, 10, &v) || !u64_add(v, (uint64_t)(*p - '0'), &v)) return UINT64_MAX;
    return v;
}

/* Bytes of a line of /proc/self/status; UINT64_MAX when there is none. */
static uint64_t of_process(const char *label)
{
    const uint64_t kib = system_number("/proc/self/status", label);
    return kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
}

uint64_t mem_resident(void)
{
    const uint64_t bytes = of_process("VmRSS:\t");
    return bytes == UINT64_MAX ? 0 : bytes;
}

static uint64_t room(uint64_t limit, uint64_t used)
{
    return limit == UINT64_MAX ? limit : used == UINT64_MAX || used > limit ? 0 : limit - used;
}

/* Of a control group.  Pages of files count as used there, although they make room for whatever is asked for. */
static uint64_t room_in_group(const char *limit, const char *usage, const char *stat, const char *inactive, const char *active)
{
    const uint64_t most = system_number(limit, "");
    if (most == UINT64_MAX) return most;
    const uint64_t used = system_number(usage, ""), a = system_number(stat, inactive), b = system_number(stat, active);
    const uint64_t files = (a == UINT64_MAX ? 0 : a) + (b == UINT64_MAX ? 0 : b);
    return room(most, used == UINT64_MAX ? used : room(used, files));
}

static uint64_t room_below(int resource, const char *used)
{
    struct rlimit lim;
    if (getrlimit(resource, &lim) != 0 || lim.rlim_cur == RLIM_INFINITY) return UINT64_MAX;
    return room(lim.rlim_cur, of_process(used));
}

uint64_t mem_available(void)
{
#define GROUP "/sys/fs/cgroup/memory"
    const uint64_t kib = system_number("/proc/meminfo", "MemAvailable:");
    const uint64_t rooms[] = {
        kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024,
        room_in_group(GROUP ".max", GROUP ".current", GROUP ".stat", "inactive_file", "\nactive_file"),          /* version 2 */
        room_in_group(GROUP "/memory.limit_in_bytes", GROUP "/memory.usage_in_bytes", GROUP "/memory.stat",      /* version 1 */
                      "total_inactive_file", "total_active_file"),
        room_below(RLIMIT_DATA, "VmData:\t"),
        room_below(RLIMIT_AS, "VmSize:\t"),
    };
#undef GROUP
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < sizeof rooms / sizeof *rooms; i++)
        if (rooms[i] < least) least = rooms[i];
    return least;
}

struct arena_block { struct arena_block *next; size_t used, size; _Alignas(16) unsigned char bytes[]; };

void *arena_alloc(struct arena *a, size_t bytes, struct unmask_err *err)
{
    enum { BLOCK = 64 << 10 };
    struct arena_block *b = a->blocks;
    size_t need;
    if (!size_add(bytes, 15, &need)) return no_memory(1, bytes, err);
    need &= ~(size_t)15;
    if (!b || b->size - b->used < need) {
        const size_t size = need > BLOCK ? need : BLOCK;
        size_t total;
        if (!size_add(sizeof *b, size, &total) || !(b = mem_zalloc(1, total, err))) return NULL;
        *b = (struct arena_block){ .next = a->blocks, .size = size };
        a->blocks = b;
    }
    void *p = b->bytes + b->used;
    b->used += need;
    return p;
}

char *arena_strndup(struct arena *a, const char *s, size_t n, struct unmask_err *err)
{
    char *d = n < SIZE_MAX ? arena_alloc(a, n + 1, err) : no_memory(1, n, err);
    if (d && n) memcpy(d, s, n);
    return d;
}

void arena_free(struct arena *a)
{
    for (struct arena_block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        mem_free(b);
    }
    a->blocks = NULL;
}
