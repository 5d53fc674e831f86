/* broker/ingest/convert.c: see convert.h for what is accepted. */
#include "broker/ingest/convert.h"

#include <string.h>

#include "base/num.h"
#include "base/timestamp.h"

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static chr_slice trim(chr_slice s)
{
    while (s.len && is_blank(s.ptr[0])) {
        s.ptr++;
        s.len--;
    }
    while (s.len && is_blank(s.ptr[s.len - 1]))
        s.len--;
    return s;
}

static chr_err complain(const char **complaint, chr_err err, const char *text)
{
    *complaint = text;
    return err;
}

/* A decimal with fraction or exponent as an integer: exactly, or not at all. A double would make
 * ...992 of 9007199254740993.0. text is a number that chr_parse_f64 takes.
 *
 * The value is D * 10^exponent, D the digits from the first to the last that is not zero, of which
 * there are `count`: so an exponent below 0 means a fraction that is not zero. */
static chr_err decimal_to_i64(chr_slice text, int64_t *out)
{
    const uint8_t *p = text.ptr, *end = p + text.len;
    bool negative = *p == '-', point = false;
    p += *p == '-' || *p == '+';
    uint64_t digits = 0;
    int64_t count = 0, zeros = 0, after_point = 0, exponent = 0;
    for (; p < end && (*p | 0x20) != 'e'; p++) {
        if (*p == '.') {
            point = true;
            continue;
        }
        after_point += point;
        if (*p == '0') {
            zeros += count > 0;
            continue;
        }
        count += zeros + 1;
        if (count <= 19) {
            for (; zeros > 0; zeros--)
                digits *= 10;
            digits = digits * 10 + (uint64_t)(*p - '0');
        }
        zeros = 0;
    }
    if (count == 0) {
        *out = 0;
        return CHR_OK;
    }
    if (p < end && chr_parse_i64(chr_slice_of(p + 1, (size_t)(end - p - 1)), &exponent) < 0)
        return p[1] == '-' ? CHR_ETYPE : CHR_ERANGE;
    if (exponent > INT32_MAX || exponent < INT32_MIN)
        return exponent < 0 ? CHR_ETYPE : CHR_ERANGE;
    exponent += zeros - after_point;
    if (exponent < 0)
        return CHR_ETYPE;
    if (count + exponent > 19)
        return CHR_ERANGE;
    for (; exponent > 0; exponent--)
        digits *= 10; /* at most 19 digits: below 2^64 */
    if (digits > (uint64_t)INT64_MAX + negative)
        return CHR_ERANGE;
    *out = (int64_t)(negative ? -digits : digits);
    return CHR_OK;
}

static chr_err to_int(chr_slice text, struct db_value *out, const char **complaint)
{
    int used = chr_parse_i64(text, &out->i64);
    if (used >= 0 && (size_t)used == text.len)
        return CHR_OK;
    chr_err err = CHR_ETYPE;
    double f64;
    int number = chr_parse_f64(text, &f64);
    /* A decimal: neither "inf" nor followed by something. */
    if (number == CHR_ERANGE || (number > 0 && (size_t)number == text.len && f64 - f64 == 0))
        err = decimal_to_i64(text, &out->i64);
    if (err == CHR_ERANGE)
        return complain(complaint, err, "is out of range for INT");
    if (err)
        return complain(complaint, err, "is not an integer");
    return CHR_OK;
}

static chr_err to_float(chr_slice text, struct db_value *out, const char **complaint)
{
    int used = chr_parse_f64(text, &out->f64);
    if (used == CHR_ERANGE)
        return complain(complaint, CHR_ERANGE, "is out of range for FLOAT");
    if (used <= 0 || (size_t)used != text.len)
        return complain(complaint, CHR_ETYPE, "is not a number");
    return CHR_OK;
}

static chr_err to_boolean(chr_slice text, struct db_value *out, const char **complaint)
{
    static const struct {
        const char *word;
        bool value;
    } words[] = {
        {"true", true}, {"false", false}, {"t", true}, {"f", false},
        {"yes", true},  {"no", false},    {"y", true}, {"n", false},
        {"on", true},   {"off", false},   {"1", true}, {"0", false},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(words); i++) {
        size_t len = strlen(words[i].word), k = 0;
        for (;
             k < len && k < text.len && (text.ptr[k] | 0x20) == (uint8_t)(words[i].word[k] | 0x20);
             k++)
            ;
        if (k == len && len == text.len) {
            out->boolean = words[i].value;
            return CHR_OK;
        }
    }
    return complain(complaint, CHR_ETYPE, "is not a boolean");
}

static chr_err to_timestamp(chr_slice text, struct db_value *out, const char **complaint)
{
    double f64;
    int64_t i64;
    chr_err err;
    int used = chr_parse_i64(text, &i64);
    if (used > 0 && (size_t)used == text.len) {
        err = chr_timestamp_from_i64(i64, &out->i64);
    } else {
        used = chr_parse_f64(text, &f64);
        if (used > 0 && (size_t)used == text.len)
            err = chr_timestamp_from_f64(f64, &out->i64);
        else if (used == CHR_ERANGE)
            err = CHR_ERANGE;
        else
            err = chr_timestamp_parse(text, &out->i64);
    }
    if (err == CHR_ERANGE)
        return complain(complaint, err, "is out of range for TIMESTAMP");
    if (err)
        return complain(complaint, CHR_ETYPE, "is not a timestamp");
    return CHR_OK;
}

static int hex_digit(uint8_t c)
{
    if ((unsigned)(c - '0') <= 9)
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* hex may be text.ptr: a byte is written after both its digits were read. */
static chr_err to_blob(chr_slice text, uint8_t *hex, struct db_value *out, const char **complaint)
{
    if (text.len < 2 || text.ptr[0] != '\\' || text.ptr[1] != 'x') {
        out->bytes = text;
        return CHR_OK;
    }
    if (text.len % 2)
        return complain(complaint, CHR_ETYPE, "has an odd number of hexadecimal digits");
    size_t len = text.len / 2 - 1;
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(text.ptr[2 + 2 * i]), low = hex_digit(text.ptr[3 + 2 * i]);
        if (high < 0 || low < 0)
            return complain(complaint, CHR_ETYPE, "is not hexadecimal");
        hex[i] = (uint8_t)(high << 4 | low);
    }
    out->bytes = chr_slice_of(hex, len);
    return CHR_OK;
}

chr_err ingest__convert_text(enum db_type type, chr_slice text, uint8_t *hex, struct db_value *out,
                             const char **complaint)
{
    *out = (struct db_value){.type = type};
    switch (type) {
    case DB_INT:
        return to_int(trim(text), out, complaint);
    case DB_FLOAT:
        return to_float(trim(text), out, complaint);
    case DB_BOOLEAN:
        return to_boolean(trim(text), out, complaint);
    case DB_TIMESTAMP:
        return to_timestamp(trim(text), out, complaint);
    case DB_STRING:
        if (text.len && memchr(text.ptr, 0, text.len))
            return complain(complaint, CHR_ETYPE, "contains U+0000");
        out->bytes = text;
        return CHR_OK;
    case DB_BLOB:
        return to_blob(text, hex, out, complaint);
    }
    return complain(complaint, CHR_ETYPE, "has no type");
}

chr_err ingest__convert_number(enum db_type type, chr_slice number, struct db_value *out,
                               const char **complaint)
{
    if (type == DB_BLOB)
        return complain(complaint, CHR_ETYPE, "is not a string");
    return ingest__convert_text(type, number, NULL, out, complaint);
}

bool ingest__values_equal(const struct db_value *a, const struct db_value *b)
{
    switch (a->type) {
    case DB_FLOAT:
        return a->f64 == b->f64 || (a->f64 != a->f64 && b->f64 != b->f64);
    case DB_BOOLEAN:
        return a->boolean == b->boolean;
    case DB_STRING:
    case DB_BLOB:
        return chr_slice_eq(a->bytes, b->bytes);
    case DB_INT:
    case DB_TIMESTAMP:
        return a->i64 == b->i64;
    }
    return false;
}
