/* sqlfront/result/json.c: answers and errors as JSON, and rows as NDJSON. */
#include <math.h>

#include "sqlfront/result/format.h"

void sql__json_string(struct chr_buf *out, chr_slice s)
{
    static const char digits[] = "0123456789abcdef";
    chr_buf_add_u8(out, '"');
    size_t start = 0;
    for (size_t i = 0; i < s.len; i++) {
        uint8_t c = s.ptr[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        chr_buf_add(out, s.ptr + start, i - start);
        start = i + 1;
        char escape[6] = {'\\', 0, '0', '0', 0, 0};
        switch (c) {
        case '"':
        case '\\':
            escape[1] = (char)c;
            break;
        case '\n':
            escape[1] = 'n';
            break;
        case '\r':
            escape[1] = 'r';
            break;
        case '\t':
            escape[1] = 't';
            break;
        default:
            escape[1] = 'u';
            escape[4] = digits[c >> 4];
            escape[5] = digits[c & 15];
        }
        chr_buf_add(out, escape, escape[1] == 'u' ? 6 : 2);
    }
    chr_buf_add(out, s.ptr + start, s.len - start);
    chr_buf_add_u8(out, '"');
}

void sql__json_value(struct chr_buf *out, const struct db_vector *v, uint32_t row)
{
    if (!db_vector_valid(v, row)) {
        chr_buf_add(out, "null", 4);
        return;
    }
    switch (v->type) {
    case DB_STRING:
        sql__json_string(out, v->str[db_vector_at(v, row)]);
        return;
    case DB_FLOAT:
        if (isfinite(v->f64[db_vector_at(v, row)]))
            break;
        goto quoted; /* NaN and infinities are strings */
    case DB_BLOB:
        chr_buf_add(out, "\"\\", 2); /* the backslash of \x is escaped */
        sql__value_text(out, v, row);
        chr_buf_add_u8(out, '"');
        return;
    case DB_TIMESTAMP:
    quoted:
        chr_buf_add_u8(out, '"');
        sql__value_text(out, v, row);
        chr_buf_add_u8(out, '"');
        return;
    default:
        break;
    }
    sql__value_text(out, v, row);
}

void sql__json_columns(struct chr_buf *out, const struct sql_column *columns, uint32_t count)
{
    chr_buf_add_cstr(out, "{\"columns\":[");
    for (uint32_t i = 0; i < count; i++) {
        chr_buf_add_cstr(out, i ? ",{\"name\":" : "{\"name\":");
        sql__json_string(out, columns[i].name);
        chr_buf_addf(out, ",\"type\":\"%s\"}", db_type_name(columns[i].type));
    }
    chr_buf_add_cstr(out, "],\"rows\":[");
}

void sql__json_row(struct chr_buf *out, const struct db_vector *const *vectors, uint32_t count,
                   uint32_t row)
{
    chr_buf_add_u8(out, '[');
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            chr_buf_add_u8(out, ',');
        sql__json_value(out, vectors[i], row);
    }
    chr_buf_add_u8(out, ']');
}

void sql__ndjson_row(struct chr_buf *out, const struct sql_column *columns,
                     const struct db_vector *const *vectors, uint32_t count, uint32_t row)
{
    chr_buf_add_u8(out, '{');
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            chr_buf_add_u8(out, ',');
        sql__json_string(out, columns[i].name);
        chr_buf_add_u8(out, ':');
        sql__json_value(out, vectors[i], row);
    }
    chr_buf_add_cstr(out, "}\n");
}

void sql__json_done(struct chr_buf *out, const struct sql_done *done)
{
    chr_buf_addf(out, "\"row_count\":%llu,\"elapsed_us\":%lld", (unsigned long long)done->row_count,
                 (long long)done->elapsed_us);
    if (done->stale_us >= 0)
        chr_buf_addf(out, ",\"stale_us\":%lld", (long long)done->stale_us);
    if (done->duplicate)
        chr_buf_add_cstr(out, ",\"duplicate\":true");
    chr_buf_add_u8(out, '}');
}

void sql__json_command(struct chr_buf *out, const struct sql_done *done)
{
    chr_buf_addf(out, "{\"command\":\"%s\",", done->command);
    sql__json_done(out, done);
}

void sql_error_json(const struct sql_error *error, struct chr_buf *out)
{
    chr_buf_addf(out, "{\"error\":{\"code\":\"%s\",\"message\":", error->sqlstate);
    sql__json_string(out, chr_slice_cstr(error->message));
    if (error->position)
        chr_buf_addf(out, ",\"position\":%u", error->position);
    if (error->detail[0]) {
        chr_buf_add_cstr(out, ",\"detail\":");
        sql__json_string(out, chr_slice_cstr(error->detail));
    }
    if (error->hint[0]) {
        chr_buf_add_cstr(out, ",\"hint\":");
        sql__json_string(out, chr_slice_cstr(error->hint));
    }
    chr_buf_add_cstr(out, "}}");
}
