/* folder.c - a Hugging Face folder as a checkpoint: fields of config.json as metadata, and the tensors of model.safetensors
 * or of the shards that model.safetensors.index.json names.  Every file is opened by its bare name inside the folder that
 * was opened once (links are followed: a download cache is made of them).  Tokenizer files are the tokenizer's business. */
#define _FILE_OFFSET_BITS 64
#include "safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "json.h"
#include "reader.h"

static const char config_name[] = "config.json", single_name[] = "model.safetensors", index_name[] = "model.safetensors.index.json";
static const char suffix[] = ".safetensors";
enum { MOST_SHARDS = 4096, MOST_FILE_NAME = 255 };

struct folder { struct checkpoint *c; int fd; const char *path; };

static bool exists(const struct folder *d, const char *name)
{
    struct stat st;
    return fstatat(d->fd, name, &st, 0) == 0 || errno != ENOENT;
}

static json_t *read_json(const struct folder *d, const char *name, struct unmask_err *err)
{
    struct file f;
    json_t *root = NULL;
    if (!file_open_in(&f, d->fd, d->path, name, err)) return NULL;
    if (f.size > JSON_BYTES)
        fail(err, E_JSON_LIMIT, .file = f.path, .found = FMT("%llu bytes", (unsigned long long)f.size),
             .need = FMT("at most %u", JSON_BYTES));
    else {
        char *text = mem_resize(NULL, (size_t)f.size + 1, 1, err);
        if (text && file_read(&f, 0, text, (size_t)f.size, err)) root = json_parse(text, (size_t)f.size, f.path, JSON_DEPTH, err);
        mem_free(text);
    }
    if (root && !json_is_object(root)) {
        fail(err, E_ST_CONFIG, .file = f.path, .found = "another value", .need = "an object: {...}");
        json_decref(root);
        root = NULL;
    }
    file_close(&f);
    return root;
}

/* ---- config.json ------------------------------------------------------------------------------ */

static bool copy_string(struct folder *d, const char *s, size_t n, struct str *out, struct unmask_err *err)
{
    *out = (struct str){ arena_strndup(&d->c->reader->arena, s, n, err), n };
    return out->s != NULL;
}

/* Arrays and objects are kept as arrays of a type that no getter reads, so that asking for them names the wrong type. */
static bool copy_value(struct folder *d, const json_t *v, struct meta *m, struct unmask_err *err)
{
    switch (json_typeof(v)) {
    case JSON_INTEGER: m->type = META_I64; m->v.i = json_integer_value(v); return true;
    case JSON_REAL:    m->type = META_F64; m->v.f = json_real_value(v); return true;
    case JSON_TRUE: case JSON_FALSE: m->type = META_BOOL; m->v.b = json_is_true(v); return true;
    case JSON_STRING:
        m->type = META_STRING;
        return copy_string(d, json_string_value(v), json_string_length(v), &m->v.s, err);
    default:
        m->type = META_ARRAY;
        m->item_type = META_U8;
        m->n_items = json_is_array(v) ? json_array_size(v) : json_object_size(v);
        return true;
    }
}

static bool read_config(struct folder *d, struct unmask_err *err)
{
    struct checkpoint *c = d->c;
    json_t *root = read_json(d, config_name, err), *v;
    const size_t n = root ? json_object_size(root) : 0;
    bool ok = root && names_init(&c->reader->meta_names, n, err) && (c->metas = mem_zalloc(n, sizeof *c->metas, err));
    const char *key;
    if (ok) json_object_foreach(root, key, v) {
        if (json_is_null(v)) continue;
        const bool first = !strcmp(key, "architectures") && json_is_string(json_array_get(v, 0));
        struct meta *m = &c->metas[c->n_metas];
        size_t at = c->n_metas;
        ok = copy_string(d, key, strlen(key), &m->key, err) && copy_value(d, first ? json_array_get(v, 0) : v, m, err);
        if (!ok) break;
        names_add(&c->reader->meta_names, m->key.s, m->key.n, &at);
        c->n_metas++;
    }
    json_decref(root);
    return ok;
}

/* ---- shards ----------------------------------------------------------------------------------- */

static bool is_shard_name(const char *s)
{
    const size_t n = strlen(s), tail = sizeof suffix - 1;
    return n > tail && n <= MOST_FILE_NAME && !strchr(s, '/') && !strcmp(s + n - tail, suffix);
}

/* Distinct file names of the index, in the order of their first tensor. */
static bool list_shards(struct folder *d, json_t *weight_map, const char ***list, size_t *n_list, struct unmask_err *err)
{
    const size_t n = json_object_size(weight_map);
    struct names seen = { 0 };
    const char *tensor, **out = mem_zalloc(n, sizeof *out, err);
    json_t *v;
    bool ok = out && names_init(&seen, n, err);
    *n_list = 0;
    if (ok) json_object_foreach(weight_map, tensor, v) {
        const char *name = json_is_string(v) ? json_string_value(v) : "";
        size_t at = *n_list;
        if (!(ok = is_shard_name(name))) {
            fail(err, E_ST_INDEX, .file = FMT("%s/%s", d->path, index_name), .field = QUOTE(tensor, strlen(tensor)),
                 .found = QUOTE(name, strlen(name)), .need = "the bare name of a *.safetensors file in the same folder");
            break;
        }
        if (names_add(&seen, name, strlen(name), &at)) out[(*n_list)++] = name;
    }
    names_free(&seen);
    if (ok && (*n_list == 0 || *n_list > MOST_SHARDS))
        ok = fail(err, E_ST_INDEX, .file = FMT("%s/%s", d->path, index_name), .field = "weight_map",
                  .found = FMT("%zu files", *n_list), .need = FMT("1 to %d", MOST_SHARDS));
    if (ok) *list = out;
    else mem_free(out);
    return ok;
}

/* Name every missing shard at once, and say so when a download was left unfinished. */
static bool refuse_missing(const struct folder *d, const char *const *list, size_t n, struct unmask_err *err)
{
    char missing[200] = "", part[MOST_FILE_NAME + 16];
    size_t n_missing = 0;
    bool unfinished = false;
    for (size_t i = 0; i < n; i++) {
        if (exists(d, list[i])) continue;
        const size_t used = strlen(missing);
        if (used + strlen(list[i]) + 3 < sizeof missing) snprintf(missing + used, sizeof missing - used, "%s%s", used ? ", " : "", list[i]);
        snprintf(part, sizeof part, "%s.incomplete", list[i]);
        unfinished = unfinished || exists(d, part);
        n_missing++;
    }
    return n_missing == 0
           || fail(err, E_ST_SHARD, .file = d->path, .field = missing,
                   .found = FMT("%zu of %zu files", n - n_missing, n), .need = "all of them",
                   .hint = unfinished ? "A download was not finished: run it again" : "Fetch them again");
}

/* Every shard is opened before the first is read, so that a missing permission shows before any work. */
static bool open_shards(struct folder *d, const char *const *list, size_t n, struct unmask_err *err)
{
    struct checkpoint_reader *r = d->c->reader;
    if (!refuse_missing(d, list, n, err) || !(r->files = mem_zalloc(n, sizeof *r->files, err))) return false;
    for (; r->n_files < n; r->n_files++)
        if (!file_open_in(&r->files[r->n_files], d->fd, d->path, list[r->n_files], err)) return false;
    for (size_t i = 0; i < n; i++)
        if (!safetensors_append(d->c, &r->files[i], err)) return false;
    return true;
}

static bool index_names(struct folder *d, struct unmask_err *err)
{
    struct checkpoint *c = d->c;
    if (!names_init(&c->reader->tensor_names, c->n_tensors, err)) return false;
    for (size_t i = 0; i < c->n_tensors; i++) {
        const struct tensor *t = &c->tensors[i];
        size_t other = i;
        if (!names_add(&c->reader->tensor_names, t->name, strlen(t->name), &other))
            return fail(err, E_ST_TWICE, .file = t->file->path, .field = t->name,
                        .found = FMT("the same name in %s", c->tensors[other].file->path));
    }
    return true;
}

/* Each tensor that the index names must be there; in which file does not matter. */
static bool check_index(const struct folder *d, json_t *weight_map, struct unmask_err *err)
{
    const char *tensor;
    json_t *v;
    json_object_foreach(weight_map, tensor, v)
        if (!checkpoint_tensor(d->c, tensor))
            return fail(err, E_ST_INDEX, .file = FMT("%s/%s", d->path, index_name), .field = QUOTE(tensor, strlen(tensor)),
                        .found = "the tensor in no file", .need = json_string_value(v));
    return true;
}

static bool read_shards(struct folder *d, struct unmask_err *err)
{
    const char **list = NULL;
    size_t n;
    json_t *index = read_json(d, index_name, err);
    if (!index) return false;
    json_t *weight_map = json_object_get(index, "weight_map");
    bool ok = json_is_object(weight_map)
              || fail(err, E_ST_INDEX, .file = FMT("%s/%s", d->path, index_name), .field = "weight_map",
                      .found = weight_map ? "another value" : "nothing", .need = "an object");
    ok = ok && list_shards(d, weight_map, &list, &n, err) && open_shards(d, list, n, err)
        && index_names(d, err) && check_index(d, weight_map, err);
    mem_free(list);
    json_decref(index);
    return ok;
}

/* ---- the folder ------------------------------------------------------------------------------- */

/* What a folder lacks, all at once. */
static bool check_files(const struct folder *d, bool *sharded, struct unmask_err *err)
{
    static const char *const pickles[] = { "pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth" };
    const bool config = exists(d, config_name), single = exists(d, single_name);
    *sharded = !single && exists(d, index_name);
    if (config && (single || *sharded)) return true;
    for (size_t i = 0; !single && !*sharded && i < sizeof pickles / sizeof *pickles; i++)
        if (exists(d, pickles[i]))
            return fail(err, E_ST_PICKLE, .file = FMT("%s/%s", d->path, pickles[i]),
                        .need = single_name, .hint = "Convert it to safetensors");
    return fail(err, E_ST_FOLDER, .file = d->path,
                .found = !config && !single && !*sharded ? "neither config.json nor model.safetensors"
                         : config ? "no model.safetensors" : "no config.json",
                .need = "config.json, and model.safetensors or model.safetensors.index.json with its files");
}

bool safetensors_open_folder(struct checkpoint *c, const char *path, struct unmask_err *err)
{
    static const char *const single[] = { single_name };
    struct folder d = { c, open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), path };
    bool sharded;
    if (d.fd < 0) return fail(err, E_FILE_OPEN, .file = path, .found = ERRNO(errno));
    bool ok = check_files(&d, &sharded, err) && read_config(&d, err);
    ok = ok && (sharded ? read_shards(&d, err) : open_shards(&d, single, 1, err) && index_names(&d, err));
    close(d.fd);
    return ok;
}

static bool is_model_file(const char *name)
{
    static const char *const of_models[] = { "*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json",
        "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.*" };
    for (size_t i = 0; i < sizeof of_models / sizeof *of_models; i++)
        if (fnmatch(of_models[i], name, 0) == 0) return true;
    return false;
}

bool safetensors_folder_has(const char *folder, const char *path)
{
    bool found = false;
    DIR *dir = opendir(folder);
    for (const struct dirent *d; dir && !found && (d = readdir(dir)); ) {
        char *file = is_model_file(d->d_name) ? file_path(folder, d->d_name, NULL) : NULL;
        found = file && file_same(file, path);
        mem_free(file);
    }
    if (dir) closedir(dir);
    return found;
}
