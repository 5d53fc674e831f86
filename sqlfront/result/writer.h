/* sqlfront/result/writer.h: answers as bytes: JSON, CSV, NDJSON or a framed table (design 2.2).
 *
 * A writer is a sink. It fills one buffer; when an answer passes part_bytes it is split between
 * rows into numbered parts, so that nothing is ever cut off silently:
 *   JSON    each part is a complete document with the fields "part" (from 1) and "last"; the
 *           columns are in each, row_count (of the whole answer) and elapsed_us in the last
 *   CSV     the header row in the first part only; parts concatenate to the whole file
 *   NDJSON  parts concatenate
 *   table   each part is a framed table of its own; the last one says how many rows there were
 * A row that alone is larger than part_bytes is an error 54000. An error ends an answer: when
 * nothing was emitted yet it is the answer, else it is the last part. Errors are JSON, except in
 * the table form, where they are lines of text. */
#ifndef CHR_SQLFRONT_RESULT_WRITER_H
#define CHR_SQLFRONT_RESULT_WRITER_H

#include "sqlfront/sql.h"

struct sql_part {
    chr_slice bytes;        /* borrowed until emit returns */
    uint32_t part;          /* from 1 */
    bool last;              /* of its answer */
    bool split;             /* the answer has several parts */
    bool error;             /* this part holds an error */
    enum sql_format format; /* what the bytes are */
    uint32_t statement;     /* which one of the text, from 0 */
};

struct sql_writer_options {
    enum sql_format format; /* when the statement does not say; DEFAULT means JSON */
    size_t part_bytes;      /* 8 MiB or the client's Maximum Packet Size less its overhead */
    bool no_header;         /* CSV */
    bool last_only;         /* a text of several statements is answered by its last one (or its
                               error) alone: one request, one answer */
};

typedef struct sql_writer sql_writer; /* opaque; from sql_writer_new, to sql_writer_free */

/* emit is called on the executing thread, once per part; non-zero ends the statement. options are
 * copied. NULL when out of memory. */
sql_writer *sql_writer_new(const struct sql_writer_options *options,
                           chr_err (*emit)(void *ctx, const struct sql_part *part), void *ctx);
void sql_writer_free(sql_writer *writer); /* accepts NULL */
/* For the next request of the same client. */
void sql_writer_reset(sql_writer *writer, const struct sql_writer_options *options);
/* The sink to hand to sql_execute; borrowed from the writer. */
const struct sql_sink *sql_writer_sink(sql_writer *writer);

/* An error document (JSON) for surfaces that fail before there is a session. Appends. */
struct chr_buf;
void sql_error_json(const struct sql_error *error, struct chr_buf *out);

#endif
