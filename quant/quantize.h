/* quantize.h - a checkpoint (Hugging Face folder or GGUF) becomes a GGUF file in another number format.
 *
 * A matrix takes the format of the first rule that fits its name, else the one that is wanted for all, embedding and head
 * included; where its rows are no multiple of that format's block it takes Q8_0, where they are no multiple of 32 F16; norms and
 * biases are F32.  In a GGUF file that says it is of the wanted type, if that is a lossy one, every matrix stays what it is.
 * Blocks are copied bit for bit where the format stays the same.  Rows stream through a few MiB whatever the model's size.  The
 * file is read back and compared before it gets its name.  The same input and options give the same bytes, on any number of
 * threads. */
#ifndef QUANTIZE_H
#define QUANTIZE_H

#include "format.h"
#include "imatrix.h"
#include "reading.h"

enum { QUANTIZE_FORMATS = 16 };                 /* at most, in the table of formats */

struct quantize_report {
    uint64_t in_bytes, out_bytes;               /* of the tensors read; of the file written              */
    size_t n_files;                             /* written                                               */
    size_t n_tensors, n_fallback;               /* all; matrices whose rows do not fit the wanted format */
    char fallback[64];                          /* name of the first of them ...                         */
    const struct quant_format *wanted, *got;    /* ... and what became of it                             */
    size_t n_of[QUANTIZE_FORMATS];              /* tensors of quant_formats[i] in the output             */
    size_t n_requantized;                       /* from one lossy format to another                      */
    char file_name[256];                        /* of the output by GGUF's naming rule                   */
    size_t n_kept;                              /* matrices that keep another format, in a file of the wanted type */
    size_t n_matrices, n_chosen;                /* all; those that are not rounded plainly               */
    size_t n_calibrated, n_important;           /* those that are rounded by what the model reads; that the imatrix names */
    uint64_t random_ids;                        /* that the model reads, about; 0: it reads text, or nothing */
    uint64_t memory_bytes;                      /* that the work takes beside what the program is        */
    double relative_error;                      /* sqrt(sum (written - read)^2 / sum read^2), matrices   */
};

/* What a tensor lost.  Values are compared in float: as read, and as the output gives them back. */
struct quantize_tensor {
    const char *name;                           /* in the output; for the time of the call               */
    const struct quant_format *from, *to;
    const char *why;                            /* of `to`: "type", "rule", "fallback", "kept" (in a file of the wanted type), "vector" */
    uint64_t bytes;                             /* as written                                            */
    const char *method;                         /* "plain", "search", "importance", "feedback" (quantize_options)  */
    double output_error, output_error_plain;    /* relative, of the products with the calibration's inputs, with what was written and
                                                   with what plain rounding gives; NAN: not measured     */
    double rmse, relative_error, cosine;        /* relative: rmse over the root mean square of the input */
    double worst_rmse;                          /* of the block that lost most ...                       */
    uint64_t worst_block;                       /* ... in blocks of the output's format, or of 32 values */
};

enum quantize_stage { QUANTIZE_PLANNED, QUANTIZE_CALIBRATING, QUANTIZE_CONVERTING, QUANTIZE_VERIFYING };

struct quantize_progress {
    enum quantize_stage stage;                  /* PLANNED comes once, before anything is written        */
    const char *tensor;                         /* in hand, by its name in the output; NULL when planned */
    uint64_t done, total;                       /* bytes of both stages together                         */
    const struct quantize_report *report;       /* sizes and counts are known from PLANNED on            */
};

/* PCRE2 pattern, found anywhere in a matrix's name in the output ("blk.3.ffn_down.weight"; where embeddings are tied the
 * embedding goes by "output.weight" too). */
struct quantize_rule {
    const char *pattern;
    const struct quant_format *to;
    bool more_bits;             /* only in the layers that llama.cpp's mixes give more bits: the first and last eighth, each
                                   third between */
    bool required;              /* refuse a model in which it fits no matrix */
};

struct quantize_options {
    const struct quant_format *format;          /* of every matrix that no rule fits                     */
    bool keep;                                  /* ... but all keep the format that they have, and general.file_type stays what it is */
    const struct quantize_rule *rules; size_t n_rules;         /* the first one that fits counts         */
    const char *type;                           /* the mix's name: "q4_k_m"; NULL: the format's own name and file type */
    uint32_t file_type;                         /* general.file_type of the mix                          */
    /* How the numbers of block formats are chosen.  Nothing: as ggml's reference does, each block alone.  calibration, or own_text:
     * what the matrices multiply while the model reads these texts half masked (or texts that it writes itself, about own_text
     * ids) decides what an error costs; formats that allow it hand each rounding error on to the weights that follow, others weigh
     * errors by column.  search: the same by ids drawn at random, which tell what the weights before a matrix make of any
     * embeddings: no text, nothing is written.  importance: column weights from a file; of the matrices that it does not name, and
     * of those that no moments are there for, only the scales are searched for the least square error. */
    bool search, measure;                       /* measure: output errors, for the report                */
    const struct reading_set *calibration;
    const char *calibration_name;               /* where they come from, for the metadata                */
    uint64_t own_text;
    uint64_t seed;                              /* of masks and of own text                              */
    const struct imatrix *importance;
    struct imatrix *save_importance;            /* filled with the calibration's; NULL: nobody asks      */
    bool requantize;                            /* from one lossy format to another, too; the metadata say so */
    int threads;                                /* 0 = all cores that we may run on                      */
    bool force;                                 /* replace an existing file                              */
    bool packed;                                /* matrices as tiles (pack.h): loads at once, and runs where it does not fit in memory */
    uint64_t split_bytes;                       /* several files, of at most so many bytes of tensors (or one tensor); 0 = one */
    bool dry_run;                               /* PLANNED is told, nothing is written                   */
    const char *const *set; size_t n_set;       /* "general.KEY=TEXT": metadata to write, or to replace  */
    bool (*on_progress)(void *user, const struct quantize_progress *p);        /* may be NULL; false = cancel */
    void (*on_tensor)(void *user, const struct quantize_tensor *t);            /* each one, in order; may be NULL */
    void *user;
};

bool quantize_file(const char *in, const char *out, const struct quantize_options *o, struct quantize_report *report,
                   struct unmask_err *err);

#endif
