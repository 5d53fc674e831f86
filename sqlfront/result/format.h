/* sqlfront/result/format.h: values and rows as text, one function per form; inside result/ only. */
#ifndef CHR_SQLFRONT_RESULT_FORMAT_H
#define CHR_SQLFRONT_RESULT_FORMAT_H

#include "base/buf.h"
#include "sqlfront/result/writer.h"

struct sql__cell { /* of the table form */
    uint32_t offset, len;
    uint32_t width; /* characters */
};

struct sql_writer {
    struct sql_writer_options options;
    chr_err (*emit)(void *ctx, const struct sql_part *part);
    void *ctx;
    struct sql_sink sink;

    struct sql_statement_info info;
    enum sql_format format;
    bool discard; /* not the statement whose answer is wanted */
    bool has_columns;
    struct chr_buf head; /* JSON: the columns, as each part begins */
    struct chr_buf buf;  /* the part being filled */
    struct chr_buf row;  /* the row being added */
    uint32_t part;       /* parts emitted */
    uint64_t part_rows;
    uint64_t row_count;

    /* columns of the answer; names in one block */
    struct sql_column *columns;
    uint32_t columns_count;
    uint8_t *names;

    /* table form: cells of the part, laid out when it is full */
    struct sql__cell *cells;
    size_t cells_count, cells_capacity;
    uint32_t *widths, *new_widths; /* [columns_count] */
    struct sql_error error;        /* scratch for the writer's own */
};

/* Plain text of a value that is not NULL. */
void sql__value_text(struct chr_buf *out, const struct db_vector *v, uint32_t row);
void sql__json_string(struct chr_buf *out, chr_slice s);
void sql__json_value(struct chr_buf *out, const struct db_vector *v, uint32_t row);
void sql__json_columns(struct chr_buf *out, const struct sql_column *columns, uint32_t count);
/* [1,"a"] and {"id":1,"name":"a"} */
void sql__json_row(struct chr_buf *out, const struct db_vector *const *vectors, uint32_t count,
                   uint32_t row);
void sql__ndjson_row(struct chr_buf *out, const struct sql_column *columns,
                     const struct db_vector *const *vectors, uint32_t count, uint32_t row);
void sql__json_done(struct chr_buf *out, const struct sql_done *done); /* the fields behind rows */
void sql__json_command(struct chr_buf *out, const struct sql_done *done);
void sql__csv_header(struct chr_buf *out, const struct sql_column *columns, uint32_t count);
void sql__csv_row(struct chr_buf *out, const struct db_vector *const *vectors, uint32_t count,
                  uint32_t row);
/* Collects a row's cells; false: the part is full without it, flush and add it again. CHR_ETOOBIG
 * in *err: it does not fit a part at all. */
bool sql__table_add(struct sql_writer *w, const struct db_vector *const *vectors, uint32_t row,
                    chr_err *err);
/* Lays out the frame into w->buf and forgets the cells. */
void sql__table_layout(struct sql_writer *w);
void sql__error_text(const struct sql_error *error, struct chr_buf *out);
/* "INSERT 2", "CREATE TABLE" */
void sql__command_tag(const struct sql_done *done, struct chr_buf *out);

#endif
