/* sqlfront/result/table.c: a framed table, for eyes.
 *
 *     +-----------+-------+
 *     | device_id | value |
 *     +-----------+-------+
 *     | esp-001   |  21.5 |
 *     +-----------+-------+
 *
 * Widths need all rows of the part, so cells are collected as text first. A long cell makes every
 * row wide; what the frame will take is reckoned before a row is taken in. */
#include <stdlib.h>

#include "base/utf8.h"
#include "sqlfront/result/format.h"

/* Line breaks and other control characters would tear the frame. */
static void printable(struct chr_buf *out, size_t from)
{
    bool clean = true;
    for (size_t i = from; i < out->len && clean; i++)
        clean = out->ptr[i] >= 0x20 && out->ptr[i] != 0x7f;
    if (clean || out->failed)
        return;
    size_t len = out->len - from;
    uint8_t *copy = malloc(len);
    if (!copy) {
        out->failed = true;
        return;
    }
    memcpy(copy, out->ptr + from, len);
    out->len = from;
    for (size_t i = 0; i < len; i++) {
        if (copy[i] == '\n')
            chr_buf_add_cstr(out, "\\n");
        else if (copy[i] == '\t')
            chr_buf_add_cstr(out, "\\t");
        else if (copy[i] == '\r')
            chr_buf_add_cstr(out, "\\r");
        else if (copy[i] < 0x20 || copy[i] == 0x7f)
            chr_buf_addf(out, "\\x%02x", copy[i]);
        else
            chr_buf_add_u8(out, copy[i]);
    }
    free(copy);
}

static size_t line_bytes(const uint32_t *widths, uint32_t count)
{
    size_t bytes = 2;
    for (uint32_t c = 0; c < count; c++)
        bytes += widths[c] + 3u;
    return bytes;
}

bool sql__table_add(struct sql_writer *w, const struct db_vector *const *vectors, uint32_t row,
                    chr_err *err)
{
    uint32_t n = w->columns_count;
    *err = CHR_OK;
    if (w->cells_count + n > w->cells_capacity) {
        size_t capacity = CHR_MAX(2 * w->cells_capacity, (size_t)n * 64);
        void *p = realloc(w->cells, capacity * sizeof *w->cells);
        if (!p) {
            *err = CHR_ENOMEM;
            return true;
        }
        w->cells = p;
        w->cells_capacity = capacity;
    }
    /* Text of the cells gathers in w->row; widths are of characters, bytes may be more. */
    size_t mark = w->row.len, extra = 0;
    for (uint32_t c = 0; c < n; c++) {
        struct sql__cell *cell = &w->cells[w->cells_count + c];
        size_t from = w->row.len;
        if (db_vector_valid(vectors[c], row))
            sql__value_text(&w->row, vectors[c], row);
        else
            chr_buf_add_cstr(&w->row, "NULL");
        printable(&w->row, from);
        chr_slice text = chr_slice_of(w->row.ptr + from, w->row.len - from);
        cell->offset = (uint32_t)from;
        cell->len = (uint32_t)text.len;
        cell->width = (uint32_t)chr_utf8_length(text);
        extra += cell->len - cell->width;
        w->new_widths[c] = CHR_MAX(w->widths[c], cell->width);
    }
    size_t needed = line_bytes(w->new_widths, n) * (w->part_rows + 6) + extra + w->row.len;
    if (w->row.failed || needed > w->options.part_bytes) {
        w->row.len = mark;
        w->row.failed = false;
        if (w->part_rows == 0)
            *err = CHR_ETOOBIG;
        return false;
    }
    memcpy(w->widths, w->new_widths, n * sizeof *w->widths);
    w->cells_count += n;
    return true;
}

static void spaces(struct chr_buf *out, size_t n)
{
    static const char blank[] = "                                ";
    for (; n > 0; n -= CHR_MIN(n, sizeof blank - 1))
        chr_buf_add(out, blank, CHR_MIN(n, sizeof blank - 1));
}

static void rule(struct sql_writer *w)
{
    static const char dashes[] = "--------------------------------";
    for (uint32_t c = 0; c < w->columns_count; c++) {
        chr_buf_add_u8(&w->buf, '+');
        for (size_t n = w->widths[c] + 2u; n > 0; n -= CHR_MIN(n, sizeof dashes - 1))
            chr_buf_add(&w->buf, dashes, CHR_MIN(n, sizeof dashes - 1));
    }
    chr_buf_add_cstr(&w->buf, "+\n");
}

static void cell(struct sql_writer *w, uint32_t column, chr_slice text, size_t width, bool right)
{
    size_t pad = w->widths[column] > width ? w->widths[column] - width : 0;
    chr_buf_add_cstr(&w->buf, "| ");
    if (right)
        spaces(&w->buf, pad);
    chr_buf_add_slice(&w->buf, text);
    if (!right)
        spaces(&w->buf, pad);
    chr_buf_add_u8(&w->buf, ' ');
}

void sql__table_layout(struct sql_writer *w)
{
    rule(w);
    for (uint32_t c = 0; c < w->columns_count; c++)
        cell(w, c, w->columns[c].name, chr_utf8_length(w->columns[c].name), false);
    chr_buf_add_cstr(&w->buf, "|\n");
    rule(w);
    for (size_t i = 0; i < w->cells_count; i += w->columns_count) {
        for (uint32_t c = 0; c < w->columns_count; c++) {
            const struct sql__cell *x = &w->cells[i + c];
            bool right = w->columns[c].type == DB_INT || w->columns[c].type == DB_FLOAT;
            cell(w, c, chr_slice_of(w->row.ptr + x->offset, x->len), x->width, right);
        }
        chr_buf_add_cstr(&w->buf, "|\n");
    }
    if (w->cells_count)
        rule(w);
    w->cells_count = 0;
    chr_buf_reset(&w->row);
    for (uint32_t c = 0; c < w->columns_count; c++)
        w->widths[c] = (uint32_t)chr_utf8_length(w->columns[c].name);
}

void sql__error_text(const struct sql_error *error, struct chr_buf *out)
{
    chr_buf_addf(out, "ERROR %s: %s", error->sqlstate, error->message);
    if (error->position)
        chr_buf_addf(out, " (at character %u)", error->position);
    chr_buf_add_u8(out, '\n');
    if (error->detail[0])
        chr_buf_addf(out, "DETAIL: %s\n", error->detail);
    if (error->hint[0])
        chr_buf_addf(out, "HINT: %s\n", error->hint);
}

void sql__command_tag(const struct sql_done *done, struct chr_buf *out)
{
    bool counts = strcmp(done->command, "INSERT") == 0 || strcmp(done->command, "UPDATE") == 0 ||
                  strcmp(done->command, "DELETE") == 0;
    chr_buf_add_cstr(out, done->command);
    if (counts)
        chr_buf_addf(out, " %llu", (unsigned long long)done->row_count);
}
