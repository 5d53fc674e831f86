/* sqlfront/result/value.c: a value as text, the same in every form (design 2.2). */
#include "base/num.h"
#include "base/timestamp.h"
#include "sqlfront/result/format.h"

void sql__value_text(struct chr_buf *out, const struct db_vector *v, uint32_t row)
{
    uint32_t at = db_vector_at(v, row);
    char
        text[CHR_NUM_TEXT_MAX > CHR_TIMESTAMP_TEXT_MAX ? CHR_NUM_TEXT_MAX : CHR_TIMESTAMP_TEXT_MAX];
    switch (v->type) {
    case DB_INT:
        chr_buf_add(out, text, chr_format_i64(v->i64[at], text));
        break;
    case DB_FLOAT:
        chr_buf_add(out, text, chr_format_f64(v->f64[at], text));
        break;
    case DB_BOOLEAN:
        chr_buf_add_cstr(out, v->b8[at] ? "true" : "false");
        break;
    case DB_TIMESTAMP:
        chr_buf_add(out, text, chr_timestamp_format(v->i64[at], text));
        break;
    case DB_STRING:
        chr_buf_add_slice(out, v->str[at]);
        break;
    case DB_BLOB: {
        static const char digits[] = "0123456789abcdef";
        chr_slice s = v->str[at];
        chr_buf_add(out, "\\x", 2);
        if (chr_buf_reserve(out, 2 * s.len) != CHR_OK) {
            out->failed = true;
            break;
        }
        for (size_t i = 0; i < s.len; i++) {
            out->ptr[out->len++] = (uint8_t)digits[s.ptr[i] >> 4];
            out->ptr[out->len++] = (uint8_t)digits[s.ptr[i] & 15];
        }
        break;
    }
    }
}
