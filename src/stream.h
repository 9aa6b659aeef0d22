/* stream.h - matrices that do not stay in memory: reader threads bring them from their file into a ring, unit by unit (some
 * tiles of one matrix), in the order in which every pass uses them and ahead of it.  The file is read past the page cache
 * (O_DIRECT) where its system allows that; elsewhere through it, and what was read is dropped from it at once.
 *
 * One thread at a time drives a stream (seek); any number may take and give units that lie between two seeks. */
#ifndef STREAM_H
#define STREAM_H

#include "file.h"

/* A matrix in the order of use. */
struct stream_part { const struct file *file; uint64_t offset; size_t tile_bytes; int n_tiles; };

struct stream;
/* parts [n_parts]: the caller's, for the life of the stream.  Reading begins at part 0 and goes round for ever. */
bool stream_open(struct stream **out, const struct stream_part *parts, int n_parts, size_t ring_bytes, struct unmask_err *err);
void stream_close(struct stream *s);            /* NULL is fine */
/* The memory that a ring of at least ring_bytes takes, and the least that streams these parts well. */
size_t stream_bytes(const struct stream_part *parts, int n_parts, size_t ring_bytes);

/* Tiles of a part that lie side by side in the ring: tiles u * unit .. (u + 1) * unit - 1 for every u. */
int stream_unit(const struct stream *s, int part);

/* Use up a whole round without doing anything with it: the time that reading takes. */
bool stream_drain(struct stream *s);

/* The next part that will be used; what lies before it is not wanted this time. */
void stream_seek(struct stream *s, int part);
/* Where tile `tile` of the part lies, valid with the rest of its unit until given back; waits for it.  NULL: reading failed. */
const uint8_t *stream_take(struct stream *s, int part, int tile);
/* A share of the unit's work is done, `done` of `all`: when they are all, its place is used again. */
void stream_give(struct stream *s, int part, int tile, uint64_t done, uint64_t all);

/* What went wrong, if anything did; a failed stream stays so. */
bool stream_failed(struct stream *s, struct unmask_err *err);
/* The files are still those that were opened. */
bool stream_unchanged(struct stream *s, struct unmask_err *err);
uint64_t stream_bytes_read(struct stream *s);

#endif
