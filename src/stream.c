/* stream.c - see stream.h.  Units have sequence numbers that grow for ever; unit number q lies in slot q modulo the number of
 * slots.  Those from `first` on are not used up; readers claim number `next` as soon as it is less than first + n_slots. */
#define _GNU_SOURCE             /* O_DIRECT */
#define _FILE_OFFSET_BITS 64
#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mem.h"

enum {
    READERS = 4,                /* reads under way at a time */
    STACK = 128 << 10,          /* the least that AArch64's glibc takes */
    SECTOR = 4096,              /* to which reads past the page cache are aligned: no device asks for more */
    UNIT_BYTES = 1 << 20,       /* at most, but for a matrix whose two tiles are larger                    */
    LEAST_SLOTS = 8,
};

enum slot_state { FREE, READING, READY };
struct slot { uint64_t number, used; enum slot_state state; uint8_t *memory; const uint8_t *tiles; };

/* The model's file opened again, since advice and flags belong to an open file: once through the page cache, once past it. */
struct source { const struct file *file; int fd, direct_fd; atomic_bool direct; };

struct stream {
    const struct stream_part *parts; int n_parts;
    int *unit;                  /* [n_parts] tiles in a unit                          */
    uint64_t *first_unit;       /* [n_parts + 1] units before a part; the last: all   */
    struct source *sources; int n_sources;
    int *source_of;             /* [n_parts]                                          */
    uint8_t *memory; size_t slot_bytes;
    struct slot *slots; int n_slots;
    uint64_t first, next, bytes_read;
    bool stop, failed;
    struct unmask_err err;
    pthread_mutex_t lock;       /* of everything from slots on                        */
    pthread_cond_t may_read, is_ready;
    pthread_t threads[READERS]; int n_threads;
    pid_t process;              /* a child that was forked has no readers */
};

/* ---- sizes ---- */

static int unit_tiles(const struct stream_part *p, size_t ring_bytes)
{
    const size_t share = ring_bytes / (2 * LEAST_SLOTS), most = share < UNIT_BYTES ? share : UNIT_BYTES;
    const int n = (int)(most / p->tile_bytes) & ~1;             /* pairs, since wide kernels take two at a time */
    return n < 2 ? 2 : n;
}

static size_t slot_bytes(const struct stream_part *parts, int n_parts, size_t ring_bytes)
{
    size_t most = 0;
    for (int i = 0; i < n_parts; i++) {
        const size_t bytes = (size_t)unit_tiles(&parts[i], ring_bytes) * parts[i].tile_bytes;
        if (bytes > most) most = bytes;
    }
    return (most + 3 * SECTOR - 1) / SECTOR * SECTOR;           /* and what alignment adds on both sides */
}

static size_t slots_of(size_t slot, size_t ring_bytes) { return ring_bytes / slot > LEAST_SLOTS ? ring_bytes / slot : LEAST_SLOTS; }

size_t stream_bytes(const struct stream_part *parts, int n_parts, size_t ring_bytes)
{
    const size_t slot = slot_bytes(parts, n_parts, ring_bytes);
    return slots_of(slot, ring_bytes) * slot;
}

int stream_unit(const struct stream *s, int part) { return s->unit[part]; }

/* ---- reading ---- */

struct extent { uint64_t start, end; };         /* bytes of a file */

static int part_of_unit(const struct stream *s, uint64_t unit)
{
    int low = 0, high = s->n_parts - 1;
    while (low < high) {
        const int middle = (low + high + 1) / 2;
        if (s->first_unit[middle] <= unit) low = middle;
        else high = middle - 1;
    }
    return low;
}

static struct extent extent_of(const struct stream *s, int part, uint64_t unit)
{
    const struct stream_part *p = &s->parts[part];
    const uint64_t tile = (unit - s->first_unit[part]) * (uint64_t)s->unit[part], left = (uint64_t)p->n_tiles - tile;
    const uint64_t n = left < (uint64_t)s->unit[part] ? left : (uint64_t)s->unit[part];
    return (struct extent){ p->offset + tile * p->tile_bytes, p->offset + (tile + n) * p->tile_bytes };
}

/* One read past the page cache.  False where it gives less than asked for, whatever the reason: the other way finds out. */
static bool read_direct(struct source *src, uint8_t *to, struct extent aligned, uint64_t needed_end)
{
    ssize_t got;
    do got = pread(src->direct_fd, to, (size_t)(aligned.end - aligned.start), (off_t)aligned.start);
    while (got < 0 && errno == EINTR);
    if (got < 0 && errno == EINVAL) atomic_store(&src->direct, false);          /* not on this file system after all */
    return got > 0 && aligned.start + (uint64_t)got >= needed_end;
}

static bool read_cached(struct source *src, uint8_t *to, struct extent e, struct unmask_err *err)
{
    const struct file through = { .fd = src->fd, .path = src->file->path, .size = src->file->size, .once = true };
    return file_read(&through, e.start, to, (size_t)(e.end - e.start), err);
}

static bool read_unit(struct stream *s, struct slot *slot, uint64_t unit, struct unmask_err *err)
{
    const int part = part_of_unit(s, unit);
    struct source *src = &s->sources[s->source_of[part]];
    const struct extent e = extent_of(s, part, unit);
    const struct extent aligned = { e.start / SECTOR * SECTOR, (e.end + SECTOR - 1) / SECTOR * SECTOR };
    slot->tiles = slot->memory + (e.start - aligned.start);
    if (atomic_load(&src->direct) && read_direct(src, slot->memory, aligned, e.end)) return true;
    return read_cached(src, slot->memory + (e.start - aligned.start), e, err);
}

static void *read_units(void *arg)
{
    struct stream *s = arg;
    struct unmask_err err;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stop && (s->failed || s->next >= s->first + (uint64_t)s->n_slots)) pthread_cond_wait(&s->may_read, &s->lock);
        if (s->stop) break;
        const uint64_t number = s->next++;
        struct slot *slot = &s->slots[number % (uint64_t)s->n_slots];
        slot->number = number;
        slot->used = 0;
        slot->state = READING;
        pthread_mutex_unlock(&s->lock);
        const uint64_t unit = number % s->first_unit[s->n_parts];
        const bool ok = read_unit(s, slot, unit, &err);
        const struct extent e = extent_of(s, part_of_unit(s, unit), unit);
        pthread_mutex_lock(&s->lock);
        slot->state = READY;
        s->bytes_read += e.end - e.start;
        if (!ok && !s->failed) {
            s->failed = true;
            s->err = err;
        }
        pthread_cond_broadcast(&s->is_ready);
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* ---- opening ---- */

/* The file once more; under its name there may be another one by now. */
static int open_again(const struct file *f, int flags)
{
    struct stat st;
    const int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | flags);
    if (fd < 0) return -1;
    if (fstat(fd, &st) == 0 && (uint64_t)st.st_dev == f->device && (uint64_t)st.st_ino == f->inode) return fd;
    close(fd);
    return -1;
}

static bool open_source(struct source *src, const struct file *f, struct unmask_err *err)
{
    src->file = f;
    src->direct_fd = open_again(f, O_DIRECT);
    atomic_store(&src->direct, src->direct_fd >= 0);
    if ((src->fd = open_again(f, 0)) < 0 && (src->fd = fcntl(f->fd, F_DUPFD_CLOEXEC, 3)) < 0)
        return fail(err, E_FILE_OPEN, .file = f->path, .found = ERRNO(errno));
    posix_fadvise(src->fd, 0, 0, POSIX_FADV_RANDOM);            /* we read ahead ourselves */
    return true;
}

static bool open_sources(struct stream *s, struct unmask_err *err)
{
    for (int i = 0; i < s->n_parts; i++) {
        int at = 0;
        while (at < s->n_sources && s->sources[at].file != s->parts[i].file) at++;
        s->source_of[i] = at;
        if (at < s->n_sources) continue;
        s->n_sources++;
        s->sources[at] = (struct source){ .fd = -1, .direct_fd = -1 };
        if (!open_source(&s->sources[at], s->parts[i].file, err)) return false;
    }
    return true;
}

static bool lay_ring(struct stream *s, size_t ring_bytes, struct unmask_err *err)
{
    for (int i = 0; i < s->n_parts; i++) {
        s->unit[i] = unit_tiles(&s->parts[i], ring_bytes);
        s->first_unit[i + 1] = s->first_unit[i] + (uint64_t)((s->parts[i].n_tiles + s->unit[i] - 1) / s->unit[i]);
    }
    s->slot_bytes = slot_bytes(s->parts, s->n_parts, ring_bytes);
    s->n_slots = (int)slots_of(s->slot_bytes, ring_bytes);
    if (!(s->slots = mem_zalloc((size_t)s->n_slots, sizeof *s->slots, err))
        || !(s->memory = mem_pages((size_t)s->n_slots * s->slot_bytes, err))) return false;
    for (int i = 0; i < s->n_slots; i++) s->slots[i].memory = s->memory + (size_t)i * s->slot_bytes;
    return true;
}

static bool start_readers(struct stream *s, struct unmask_err *err)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    while (s->n_threads < READERS && pthread_create(&s->threads[s->n_threads], &attr, read_units, s) == 0) s->n_threads++;
    pthread_attr_destroy(&attr);
    return s->n_threads > 0 || fail(err, E_MEMORY, .need = "a thread that reads weights");
}

bool stream_open(struct stream **out, const struct stream_part *parts, int n_parts, size_t ring_bytes, struct unmask_err *err)
{
    const size_t n = (size_t)n_parts;
    struct stream *s = mem_zalloc(1, sizeof *s, err);
    if (!s) return false;
    s->process = getpid();
    s->parts = parts;
    s->n_parts = n_parts;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->may_read, NULL);
    pthread_cond_init(&s->is_ready, NULL);
    const bool ok = (s->unit = mem_zalloc(n, sizeof *s->unit, err)) && (s->first_unit = mem_zalloc(n + 1, sizeof *s->first_unit, err))
        && (s->source_of = mem_zalloc(n, sizeof *s->source_of, err)) && (s->sources = mem_zalloc(n, sizeof *s->sources, err))
        && open_sources(s, err) && lay_ring(s, ring_bytes, err) && start_readers(s, err);
    if (ok) *out = s;
    else stream_close(s);
    return ok;
}

static void end_readers(struct stream *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->may_read);
    pthread_mutex_unlock(&s->lock);
    for (int i = 0; i < s->n_threads; i++) pthread_join(s->threads[i], NULL);
    pthread_cond_destroy(&s->is_ready);
    pthread_cond_destroy(&s->may_read);
    pthread_mutex_destroy(&s->lock);
}

void stream_close(struct stream *s)
{
    if (!s) return;
    if (s->process == getpid()) end_readers(s);
    for (int i = 0; i < s->n_sources; i++) {
        if (s->sources[i].fd >= 0) close(s->sources[i].fd);
        if (s->sources[i].direct_fd >= 0) close(s->sources[i].direct_fd);
    }
    mem_free(s->memory);
    mem_free(s->slots);
    mem_free(s->sources);
    mem_free(s->source_of);
    mem_free(s->first_unit);
    mem_free(s->unit);
    mem_free(s);
}

/* ---- using ---- */

static struct slot *slot_of(struct stream *s, uint64_t number) { return &s->slots[number % (uint64_t)s->n_slots]; }

/* The number of the next unit of that place in the round. */
static uint64_t number_of(const struct stream *s, int part, int tile)
{
    const uint64_t round = s->first_unit[s->n_parts], unit = s->first_unit[part] + (uint64_t)(tile / s->unit[part]);
    return s->first + (unit + round - s->first % round) % round;
}

void stream_seek(struct stream *s, int part)
{
    pthread_mutex_lock(&s->lock);
    const uint64_t to = number_of(s, part, 0);
    for (uint64_t q = s->first; q < to && q < s->next; q++)
        while (slot_of(s, q)->state == READING && slot_of(s, q)->number == q) pthread_cond_wait(&s->is_ready, &s->lock);
    s->first = to;
    if (s->next < to) s->next = to;
    pthread_cond_broadcast(&s->may_read);
    pthread_mutex_unlock(&s->lock);
}

const uint8_t *stream_take(struct stream *s, int part, int tile)
{
    pthread_mutex_lock(&s->lock);
    const uint64_t number = number_of(s, part, tile);
    const struct slot *slot = slot_of(s, number);
    while (!s->failed && (slot->number != number || slot->state != READY || number >= s->next)) pthread_cond_wait(&s->is_ready, &s->lock);
    const uint8_t *tiles = s->failed ? NULL : slot->tiles + (size_t)(tile % s->unit[part]) * s->parts[part].tile_bytes;
    pthread_mutex_unlock(&s->lock);
    return tiles;
}

void stream_give(struct stream *s, int part, int tile, uint64_t done, uint64_t all)
{
    pthread_mutex_lock(&s->lock);
    const uint64_t number = number_of(s, part, tile);
    struct slot *slot = slot_of(s, number);
    if ((slot->used += done) == all) slot->state = FREE;
    const uint64_t before = s->first;
    while (s->first < s->next && slot_of(s, s->first)->state == FREE) s->first++;
    if (s->first > before) pthread_cond_broadcast(&s->may_read);
    pthread_mutex_unlock(&s->lock);
}

bool stream_drain(struct stream *s)
{
    stream_seek(s, 0);
    for (int part = 0; part < s->n_parts; part++)
        for (int tile = 0; tile < s->parts[part].n_tiles; tile += s->unit[part]) {
            if (!stream_take(s, part, tile)) return false;
            stream_give(s, part, tile, 1, 1);
        }
    return true;
}

bool stream_failed(struct stream *s, struct unmask_err *err)
{
    pthread_mutex_lock(&s->lock);
    const bool failed = s->failed;
    if (failed && err) *err = s->err;
    pthread_mutex_unlock(&s->lock);
    return failed;
}

bool stream_unchanged(struct stream *s, struct unmask_err *err)
{
    for (int i = 0; i < s->n_sources; i++)
        if (!file_unchanged(s->sources[i].file, err)) return false;
    return true;
}

uint64_t stream_bytes_read(struct stream *s)
{
    pthread_mutex_lock(&s->lock);
    const uint64_t n = s->bytes_read;
    pthread_mutex_unlock(&s->lock);
    return n;
}
