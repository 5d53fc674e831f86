/* sqlfront/result/writer.c: the sink that turns an answer into one or several parts of bytes. */
#include <stdlib.h>

#include "base/utf8.h"
#include "sqlfront/result/format.h"

/* What may follow the rows of a JSON part: "part", "last", counts. */
#define JSON_FOOT_BYTES 160
/* An error or a command's answer fits whatever the client takes. */
#define SMALL_ANSWER_BYTES 4096

static chr_err out_of_room(struct sql_writer *w)
{
    return w->buf.failed || w->row.failed || w->head.failed ? CHR_ENOMEM : CHR_OK;
}

static chr_err emit(struct sql_writer *w, bool last, bool error)
{
    struct sql_part part = {.bytes = chr_buf_slice(&w->buf),
                            .part = ++w->part,
                            .last = last,
                            .split = !last || w->part > 1,
                            .error = error,
                            .format = w->format,
                            .statement = w->info.index};
    chr_err err = w->emit(w->ctx, &part);
    chr_buf_reset(&w->buf);
    w->part_rows = 0;
    return err;
}

static void forget_answer(struct sql_writer *w)
{
    free(w->columns);
    free(w->names);
    free(w->widths);
    w->columns = NULL;
    w->names = NULL;
    w->widths = w->new_widths = NULL;
    w->columns_count = 0;
    w->has_columns = false;
    w->cells_count = 0;
    w->part = 0;
    w->part_rows = w->row_count = 0;
    chr_buf_reset(&w->head);
    chr_buf_reset(&w->buf);
    chr_buf_reset(&w->row);
}

static chr_err on_statement(void *ctx, const struct sql_statement_info *info)
{
    struct sql_writer *w = ctx;
    forget_answer(w);
    w->info = *info;
    w->format = info->format ? info->format : w->options.format;
    if (w->format == SQL_FORMAT_DEFAULT)
        w->format = SQL_FORMAT_JSON;
    w->discard = w->options.last_only && info->index + 1 < info->count;
    return CHR_OK;
}

static void begin_part(struct sql_writer *w)
{
    if (w->format == SQL_FORMAT_JSON)
        chr_buf_add_slice(&w->buf, chr_buf_slice(&w->head));
    else if (w->format == SQL_FORMAT_CSV && w->part == 0 && !w->options.no_header)
        sql__csv_header(&w->buf, w->columns, w->columns_count);
}

static chr_err on_begin(void *ctx, const struct sql_column *columns, uint32_t count)
{
    struct sql_writer *w = ctx;
    if (w->discard)
        return CHR_OK;
    size_t bytes = 0;
    for (uint32_t i = 0; i < count; i++)
        bytes += columns[i].name.len;
    w->columns = calloc(count + 1, sizeof *w->columns);
    w->names = malloc(bytes + 1);
    w->widths = calloc(2 * (size_t)count + 1, sizeof *w->widths);
    if (!w->columns || !w->names || !w->widths)
        return CHR_ENOMEM;
    w->new_widths = w->widths + count;
    uint8_t *at = w->names;
    for (uint32_t i = 0; i < count; i++) {
        w->columns[i] = columns[i];
        if (columns[i].name.len)
            memcpy(at, columns[i].name.ptr, columns[i].name.len);
        w->columns[i].name.ptr = at;
        at += columns[i].name.len;
        w->widths[i] = (uint32_t)chr_utf8_length(w->columns[i].name);
    }
    w->columns_count = count;
    w->has_columns = true;
    if (w->format == SQL_FORMAT_JSON)
        sql__json_columns(&w->head, w->columns, count);
    begin_part(w);
    return out_of_room(w);
}

/* Ends the part that is full; more follow. */
static chr_err flush(struct sql_writer *w)
{
    if (w->format == SQL_FORMAT_JSON)
        chr_buf_addf(&w->buf, "],\"part\":%u,\"last\":false}", w->part + 1);
    else if (w->format == SQL_FORMAT_TABLE)
        sql__table_layout(w);
    if (w->buf.failed)
        return CHR_ENOMEM;
    chr_err err = emit(w, false, false);
    begin_part(w);
    return err;
}

static chr_err add_row(struct sql_writer *w, const struct db_vector *const *vectors, uint32_t row)
{
    chr_err err = CHR_OK;
    if (w->format == SQL_FORMAT_TABLE) {
        if (!sql__table_add(w, vectors, row, &err) && !err) {
            err = flush(w);
            if (!err && !sql__table_add(w, vectors, row, &err) && !err)
                err = CHR_ETOOBIG;
        }
        w->part_rows++;
        return err;
    }
    chr_buf_reset(&w->row);
    size_t foot = 0;
    if (w->format == SQL_FORMAT_JSON) {
        sql__json_row(&w->row, vectors, w->columns_count, row);
        foot = JSON_FOOT_BYTES;
    } else if (w->format == SQL_FORMAT_CSV) {
        sql__csv_row(&w->row, vectors, w->columns_count, row);
    } else {
        sql__ndjson_row(&w->row, w->columns, vectors, w->columns_count, row);
    }
    if (w->row.failed)
        return CHR_ETOOBIG; /* a row that fits no part */
    if (w->part_rows && w->buf.len + 1 + w->row.len + foot > w->options.part_bytes &&
        (err = flush(w)))
        return err;
    if (w->format == SQL_FORMAT_JSON && w->part_rows)
        chr_buf_add_u8(&w->buf, ',');
    if (w->buf.len + w->row.len + foot > w->options.part_bytes)
        return CHR_ETOOBIG; /* a row that fits no part */
    chr_buf_add_slice(&w->buf, chr_buf_slice(&w->row));
    w->part_rows++;
    return w->buf.failed ? CHR_ENOMEM : CHR_OK;
}

static chr_err on_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns_count,
                       const uint16_t *sel, uint32_t count)
{
    struct sql_writer *w = ctx;
    (void)columns_count;
    if (w->discard)
        return CHR_OK;
    for (uint32_t j = 0; j < count; j++) {
        chr_err err = add_row(w, vectors, sel ? sel[j] : j);
        if (err)
            return err;
        w->row_count++;
    }
    return CHR_OK;
}

static chr_err on_end(void *ctx, const struct sql_done *done)
{
    struct sql_writer *w = ctx;
    if (w->discard) {
        forget_answer(w);
        return CHR_OK;
    }
    struct chr_buf *b = &w->buf;
    if (!w->has_columns) {
        switch (w->format) {
        case SQL_FORMAT_TABLE:
            sql__command_tag(done, b);
            chr_buf_add_u8(b, '\n');
            break;
        case SQL_FORMAT_CSV:
            if (!w->options.no_header)
                chr_buf_add_cstr(b, "command,row_count\r\n");
            chr_buf_addf(b, "%s,%llu\r\n", done->command, (unsigned long long)done->row_count);
            break;
        default:
            sql__json_command(b, done);
            if (w->format == SQL_FORMAT_NDJSON)
                chr_buf_add_u8(b, '\n');
        }
    } else if (w->format == SQL_FORMAT_JSON) {
        chr_buf_add_cstr(b, "],");
        if (w->part)
            chr_buf_addf(b, "\"part\":%u,\"last\":true,", w->part + 1);
        sql__json_done(b, done);
    } else if (w->format == SQL_FORMAT_TABLE) {
        sql__table_layout(w);
        chr_buf_addf(b, "(%llu row%s)\n", (unsigned long long)done->row_count,
                     done->row_count == 1 ? "" : "s");
    }
    if (b->failed)
        return CHR_ENOMEM;
    chr_err err = emit(w, true, false);
    forget_answer(w);
    return err;
}

static void on_error(void *ctx, const struct sql_error *error)
{
    struct sql_writer *w = ctx;
    chr_buf_reset(&w->buf);
    if (w->format == SQL_FORMAT_TABLE) {
        sql__error_text(error, &w->buf);
    } else {
        sql_error_json(error, &w->buf);
        if (w->part && w->format == SQL_FORMAT_JSON) { /* the last part of what has begun */
            w->buf.len--;
            chr_buf_addf(&w->buf, ",\"part\":%u,\"last\":true}", w->part + 1);
        }
        if (w->format == SQL_FORMAT_NDJSON)
            chr_buf_add_u8(&w->buf, '\n');
    }
    (void)emit(w, true, true);
    forget_answer(w);
}

sql_writer *sql_writer_new(const struct sql_writer_options *options,
                           chr_err (*emit_fn)(void *ctx, const struct sql_part *part), void *ctx)
{
    sql_writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->emit = emit_fn;
    w->ctx = ctx;
    w->sink = (struct sql_sink){.ctx = w,
                                .statement = on_statement,
                                .begin = on_begin,
                                .rows = on_rows,
                                .end = on_end,
                                .error = on_error};
    sql_writer_reset(w, options);
    return w;
}

void sql_writer_reset(sql_writer *w, const struct sql_writer_options *options)
{
    size_t max = CHR_MAX(options->part_bytes, (size_t)SMALL_ANSWER_BYTES) + SMALL_ANSWER_BYTES;
    struct chr_buf *buffers[] = {&w->head, &w->buf, &w->row};
    forget_answer(w);
    for (size_t i = 0; i < CHR_COUNT_OF(buffers); i++) {
        chr_buf_free(buffers[i]);
        chr_buf_init(buffers[i], max);
    }
    w->options = *options;
    w->format = options->format ? options->format : SQL_FORMAT_JSON;
    w->discard = false;
}

void sql_writer_free(sql_writer *w)
{
    if (!w)
        return;
    forget_answer(w);
    chr_buf_free(&w->head);
    chr_buf_free(&w->buf);
    chr_buf_free(&w->row);
    free(w->cells);
    free(w);
}

const struct sql_sink *sql_writer_sink(sql_writer *w)
{
    return &w->sink;
}
