/* checkpoint_open.c - find the reader of a path by what it is, and let it fill a checkpoint. */
#define _FILE_OFFSET_BITS 64
#include <string.h>
#include <sys/stat.h>

#include "checkpoint.h"
#include "gguf.h"
#include "reader.h"
#include "safetensors.h"

static bool open_first(struct checkpoint *c, const char *path, struct unmask_err *err)
{
    struct file f;
    if (!file_open(&f, path, err)) return false;
    if (gguf_open(c, &f, err)) return true;
    file_close(&f);
    return false;
}

static bool open_file(struct checkpoint *c, const char *path, struct unmask_err *err)
{
    return open_first(c, path, err) && gguf_join_parts(c, NULL, 0, err);
}

static bool (*const readers[])(struct checkpoint *c, const char *path, struct unmask_err *err) = {
    [CHECKPOINT_GGUF] = open_file,
    [CHECKPOINT_FOLDER] = safetensors_open_folder,
};

static struct checkpoint *new_checkpoint(const char *path, struct unmask_err *err)
{
    struct checkpoint *c = mem_zalloc(1, sizeof *c, err);
    if (c && (c->path = mem_strndup(path, strlen(path), err)) && (c->reader = mem_zalloc(1, sizeof *c->reader, err))) return c;
    checkpoint_close(c);
    return NULL;
}

bool checkpoint_open(struct checkpoint **out, const char *path, struct unmask_err *err)
{
    struct stat st;
    struct checkpoint *c = new_checkpoint(path, err);
    if (!c) return false;
    c->kind = stat(path, &st) == 0 && S_ISDIR(st.st_mode) ? CHECKPOINT_FOLDER : CHECKPOINT_GGUF;
    const bool ok = readers[c->kind](c, path, err);
    if (ok) *out = c;
    else checkpoint_close(c);
    return ok;
}

bool checkpoint_open_parts(struct checkpoint **out, const char *const *paths, size_t n, struct unmask_err *err)
{
    struct checkpoint *c = new_checkpoint(paths[0], err);
    if (!c) return false;
    const bool ok = open_first(c, paths[0], err) && gguf_join_parts(c, paths, n, err);
    if (ok) *out = c;
    else checkpoint_close(c);
    return ok;
}

bool checkpoint_has_file(const struct checkpoint *c, const char *path)
{
    struct stat st;
    if (stat(path, &st) != 0) return false;
    for (size_t i = 0; i < c->reader->n_files; i++)
        if (c->reader->files[i].device == (uint64_t)st.st_dev && c->reader->files[i].inode == (uint64_t)st.st_ino) return true;
    return c->kind == CHECKPOINT_FOLDER && safetensors_folder_has(c->path, path);
}
