/* sqlfront/result/csv.c: RFC 4180. NULL is empty, the empty string is "". */
#include "sqlfront/result/format.h"

static void field(struct chr_buf *out, chr_slice s)
{
    bool quote = s.len == 0;
    for (size_t i = 0; i < s.len && !quote; i++)
        quote = s.ptr[i] == ',' || s.ptr[i] == '"' || s.ptr[i] == '\n' || s.ptr[i] == '\r';
    if (!quote) {
        chr_buf_add_slice(out, s);
        return;
    }
    chr_buf_add_u8(out, '"');
    size_t start = 0;
    for (size_t i = 0; i < s.len; i++)
        if (s.ptr[i] == '"') {
            chr_buf_add(out, s.ptr + start, i + 1 - start);
            start = i; /* the quote again */
        }
    chr_buf_add(out, s.ptr + start, s.len - start);
    chr_buf_add_u8(out, '"');
}

void sql__csv_header(struct chr_buf *out, const struct sql_column *columns, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            chr_buf_add_u8(out, ',');
        field(out, columns[i].name);
    }
    chr_buf_add_cstr(out, "\r\n");
}

void sql__csv_row(struct chr_buf *out, const struct db_vector *const *vectors, uint32_t count,
                  uint32_t row)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct db_vector *v = vectors[i];
        if (i)
            chr_buf_add_u8(out, ',');
        if (!db_vector_valid(v, row))
            continue;
        if (v->type == DB_STRING)
            field(out, v->str[db_vector_at(v, row)]);
        else
            sql__value_text(out, v, row);
    }
    chr_buf_add_cstr(out, "\r\n");
}
