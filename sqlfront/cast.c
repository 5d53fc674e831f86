/* sqlfront/cast.c: types by name, values to text and back, and casts between types.
 *
 * Text comes in as PostgreSQL takes it (blanks around it are ignored) and goes out as answers show
 * it. A cast is a function of one value; the executor runs it over vectors and, for columns with a
 * dictionary, once per entry. */
#include <math.h>
#include <stdlib.h>

#include "base/timestamp.h"
#include "base/utf8.h"
#include "sqlfront/functions.h"
#include "sqlfront/internal.h"

const char *sql__type_name(enum db_type type)
{
    return type == SQL_TYPE_UNKNOWN    ? "unknown"
           : type == SQL_TYPE_INTERVAL ? "INTERVAL"
                                       : db_type_name(type);
}

enum db_type sql__type_parse(chr_slice name)
{
    static const struct {
        const char *name;
        enum db_type type;
    } names[] = {
        {"int", DB_INT},
        {"bigint", DB_INT},
        {"integer", DB_INT},
        {"int8", DB_INT},
        {"int4", DB_INT},
        {"smallint", DB_INT},
        {"int2", DB_INT},
        {"float", DB_FLOAT},
        {"double", DB_FLOAT},
        {"real", DB_FLOAT},
        {"float8", DB_FLOAT},
        {"float4", DB_FLOAT},
        {"string", DB_STRING},
        {"text", DB_STRING},
        {"varchar", DB_STRING},
        {"boolean", DB_BOOLEAN},
        {"bool", DB_BOOLEAN},
        {"timestamp", DB_TIMESTAMP},
        {"timestamptz", DB_TIMESTAMP},
        {"blob", DB_BLOB},
        {"bytea", DB_BLOB},
        {"interval", SQL_TYPE_INTERVAL},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (chr_slice_eq(name, chr_slice_cstr(names[i].name)))
            return names[i].type;
    return SQL_TYPE_UNKNOWN;
}

static chr_slice trimmed(chr_slice s)
{
    while (s.len && (s.ptr[0] == ' ' || (s.ptr[0] >= '\t' && s.ptr[0] <= '\r'))) {
        s.ptr++;
        s.len--;
    }
    while (s.len &&
           (s.ptr[s.len - 1] == ' ' || (s.ptr[s.len - 1] >= '\t' && s.ptr[s.len - 1] <= '\r')))
        s.len--;
    return s;
}

static bool bad_text(sql_call *c, const char *sqlstate, const char *what, chr_slice s)
{
    size_t len = s.len;
    if (len > 80)
        for (len = 80; len > 0 && (s.ptr[len] & 0xc0) == 0x80;)
            len--;
    return sql__call_fail(c, sqlstate, "invalid %s: \"%.*s%s\"", what, (int)len,
                          (const char *)s.ptr, len < s.len ? "…" : "");
}

static bool text_to_int(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = trimmed(a->s);
    int used = s.len ? chr_parse_i64(s, &out->i) : CHR_EMALFORMED;
    if (used == CHR_ERANGE)
        return sql__call_fail(c, "22003", "value \"%.*s\" is out of range for INT",
                              (int)CHR_MIN(s.len, (size_t)80), (const char *)s.ptr);
    if (used < 0 || (size_t)used != s.len)
        return bad_text(c, "22P02", "INT", a->s);
    return true;
}

static bool text_to_float(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = trimmed(a->s);
    int used = s.len ? chr_parse_f64(s, &out->f) : CHR_EMALFORMED;
    if (used == CHR_ERANGE)
        return sql__call_fail(c, "22003", "value \"%.*s\" is out of range for FLOAT",
                              (int)CHR_MIN(s.len, (size_t)80), (const char *)s.ptr);
    if (used < 0 || (size_t)used != s.len)
        return bad_text(c, "22P02", "FLOAT", a->s);
    return true;
}

static bool text_to_bool(sql_call *c, const sql_val *a, sql_val *out)
{
    static const struct {
        const char *text;
        uint8_t value;
    } words[] = {{"t", 1}, {"true", 1},  {"y", 1}, {"yes", 1}, {"on", 1},  {"1", 1},
                 {"f", 0}, {"false", 0}, {"n", 0}, {"no", 0},  {"off", 0}, {"0", 0}};
    chr_slice s = trimmed(a->s);
    for (size_t i = 0; i < CHR_COUNT_OF(words); i++)
        if (strlen(words[i].text) == s.len &&
            strncasecmp(words[i].text, (const char *)s.ptr, s.len) == 0) {
            out->b = words[i].value;
            return true;
        }
    return bad_text(c, "22P02", "BOOLEAN", a->s);
}

static bool text_to_timestamp(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = trimmed(a->s);
    chr_err err = chr_timestamp_parse(s, &out->i);
    if (err == CHR_OK)
        return true;
    return err == CHR_ERANGE ? bad_text(c, "22008", "TIMESTAMP, out of range", a->s)
                             : bad_text(c, "22007", "TIMESTAMP", a->s);
}

static bool text_to_interval(sql_call *c, const sql_val *a, sql_val *out)
{
    struct sql_interval iv;
    if (!sql__interval_parse(trimmed(a->s), &iv))
        return bad_text(c, "22007", "INTERVAL", a->s);
    out->iv = iv;
    return true;
}

static int hex_digit(uint8_t ch)
{
    return ch >= '0' && ch <= '9'   ? ch - '0'
           : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
           : ch >= 'A' && ch <= 'F' ? ch - 'A' + 10
                                    : -1;
}

/* '\x00ff' is hexadecimal; any other text is its own bytes. */
static bool text_to_blob(sql_call *c, const sql_val *a, sql_val *out)
{
    chr_slice s = a->s;
    if (s.len < 2 || s.ptr[0] != '\\' || s.ptr[1] != 'x') {
        out->s = s;
        return true;
    }
    size_t len = (s.len - 2) / 2;
    uint8_t *bytes = sql__call_bytes(c, len);
    if (!bytes)
        return false;
    if (s.len % 2)
        return bad_text(c, "22P02", "BLOB", s);
    for (size_t i = 0; i < len; i++) {
        int high = hex_digit(s.ptr[2 + 2 * i]), low = hex_digit(s.ptr[3 + 2 * i]);
        if (high < 0 || low < 0)
            return bad_text(c, "22P02", "BLOB", s);
        bytes[i] = (uint8_t)(high << 4 | low);
    }
    out->s = chr_slice_of(bytes, len);
    return true;
}

static bool put_text(sql_call *c, const char *text, size_t len, sql_val *out)
{
    uint8_t *bytes = sql__call_bytes(c, len);
    if (!bytes)
        return false;
    memcpy(bytes, text, len);
    out->s = chr_slice_of(bytes, len);
    return true;
}

static bool int_to_text(sql_call *c, const sql_val *a, sql_val *out)
{
    char text[CHR_NUM_TEXT_MAX];
    return put_text(c, text, chr_format_i64(a->i, text), out);
}
static bool float_to_text(sql_call *c, const sql_val *a, sql_val *out)
{
    char text[CHR_NUM_TEXT_MAX];
    return put_text(c, text, chr_format_f64(a->f, text), out);
}
static bool bool_to_text(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->s = a->b ? CHR_LIT("true") : CHR_LIT("false");
    return true;
}
static bool timestamp_to_text(sql_call *c, const sql_val *a, sql_val *out)
{
    char text[CHR_TIMESTAMP_TEXT_MAX];
    return put_text(c, text, chr_timestamp_format(a->i, text), out);
}
static bool interval_to_text(sql_call *c, const sql_val *a, sql_val *out)
{
    char text[SQL_INTERVAL_TEXT_MAX];
    return put_text(c, text, sql__interval_format(a->iv, text), out);
}
static bool blob_to_text(sql_call *c, const sql_val *a, sql_val *out)
{
    static const char digits[] = "0123456789abcdef";
    chr_slice s = a->s; /* out may be a */
    uint8_t *bytes = sql__call_bytes(c, 2 + 2 * s.len);
    if (!bytes)
        return false;
    bytes[0] = '\\';
    bytes[1] = 'x';
    for (size_t i = 0; i < s.len; i++) {
        bytes[2 + 2 * i] = (uint8_t)digits[s.ptr[i] >> 4];
        bytes[3 + 2 * i] = (uint8_t)digits[s.ptr[i] & 15];
    }
    out->s = chr_slice_of(bytes, 2 + 2 * s.len);
    return true;
}

static bool int_to_float(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->f = (double)a->i;
    return true;
}
static bool int_to_bool(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->b = a->i != 0;
    return true;
}
static bool int_to_timestamp(sql_call *c, const sql_val *a, sql_val *out)
{
    if (chr_timestamp_from_i64(a->i, &out->i) != CHR_OK)
        return sql__call_fail(c, "22008", "timestamp out of range");
    return true;
}
static bool float_to_timestamp(sql_call *c, const sql_val *a, sql_val *out)
{
    if (chr_timestamp_from_f64(a->f, &out->i) != CHR_OK)
        return sql__call_fail(c, "22008", "timestamp out of range");
    return true;
}
static bool float_to_int(sql_call *c, const sql_val *a, sql_val *out)
{
    double v = nearbyint(a->f); /* half to even, as PostgreSQL rounds float8 */
    if (!(v >= -9223372036854775808.0 && v < 9223372036854775808.0))
        return sql__call_fail(c, "22003", "value is out of range for INT");
    out->i = (int64_t)v;
    return true;
}
static bool bool_to_int(sql_call *c, const sql_val *a, sql_val *out)
{
    (void)c;
    out->i = a->b;
    return true;
}

sql_row_fn sql__cast_fn(enum db_type from, enum db_type to)
{
    /* [from][to]; UNKNOWN casts like STRING */
    static const sql_row_fn table[DB_TYPES_END + 1][DB_TYPES_END + 1] = {
        [DB_STRING] = {[DB_INT] = text_to_int,
                       [DB_FLOAT] = text_to_float,
                       [DB_BOOLEAN] = text_to_bool,
                       [DB_TIMESTAMP] = text_to_timestamp,
                       [DB_BLOB] = text_to_blob,
                       [DB_TYPES_END] = text_to_interval},
        [DB_INT] = {[DB_FLOAT] = int_to_float,
                    [DB_STRING] = int_to_text,
                    [DB_BOOLEAN] = int_to_bool,
                    [DB_TIMESTAMP] = int_to_timestamp},
        [DB_FLOAT] = {[DB_INT] = float_to_int,
                      [DB_STRING] = float_to_text,
                      [DB_TIMESTAMP] = float_to_timestamp},
        [DB_BOOLEAN] = {[DB_INT] = bool_to_int, [DB_STRING] = bool_to_text},
        [DB_TIMESTAMP] = {[DB_STRING] = timestamp_to_text},
        [DB_BLOB] = {[DB_STRING] = blob_to_text},
        [DB_TYPES_END] = {[DB_STRING] = interval_to_text},
    };
    if (from == SQL_TYPE_UNKNOWN)
        from = DB_STRING;
    return table[from][to];
}

int sql__val_cmp(enum db_type type, const sql_val *a, const sql_val *b)
{
    switch ((int)type) {
    case DB_INT:
    case DB_TIMESTAMP:
        return (a->i > b->i) - (a->i < b->i);
    case DB_FLOAT:
        return sql__f64_cmp(a->f, b->f);
    case DB_BOOLEAN:
        return a->b - b->b;
    case DB_TYPES_END: {
        __int128 x = sql__interval_us(a->iv), y = sql__interval_us(b->iv);
        return (x > y) - (x < y);
    }
    default:
        return chr_slice_cmp(a->s, b->s);
    }
}

chr_slice sql__datum_text(struct sql_query *q, const struct sql_datum *d)
{
    if (d->null)
        return CHR_LIT("NULL");
    char text[SQL_INTERVAL_TEXT_MAX];
    size_t len;
    switch ((int)d->type) {
    case DB_INT:
        len = chr_format_i64(d->v.i, text);
        break;
    case DB_FLOAT:
        len = chr_format_f64(d->v.f, text);
        break;
    case DB_BOOLEAN:
        return d->v.b ? CHR_LIT("true") : CHR_LIT("false");
    case DB_TIMESTAMP:
        len = chr_timestamp_format(d->v.i, text);
        break;
    case DB_TYPES_END:
        len = sql__interval_format(d->v.iv, text);
        break;
    default: {
        char *quoted = chr_arena_printf(&q->arena, "'%.*s%s'", (int)CHR_MIN(d->v.s.len, (size_t)60),
                                        d->v.s.len ? (const char *)d->v.s.ptr : "",
                                        d->v.s.len > 60 ? "…" : "");
        return chr_slice_cstr(quoted ? quoted : "…");
    }
    }
    return chr_arena_dup(&q->arena, chr_slice_of(text, len));
}

unsigned sql__edit_distance(chr_slice a, chr_slice b, unsigned limit)
{
    unsigned row[DB_NAME_BYTES_MAX + 2];
    if (a.len > DB_NAME_BYTES_MAX || b.len > DB_NAME_BYTES_MAX)
        return limit + 1;
    for (unsigned j = 0; j <= b.len; j++)
        row[j] = j;
    for (unsigned i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = i;
        for (unsigned j = 1; j <= b.len; j++) {
            unsigned change = diagonal + (a.ptr[i - 1] != b.ptr[j - 1]);
            diagonal = row[j];
            row[j] = CHR_MIN(change, CHR_MIN(row[j], row[j - 1]) + 1);
        }
    }
    return CHR_MIN(row[b.len], limit + 1);
}

const char *sql__nearest(chr_slice wanted, const char *const *names, size_t count)
{
    const char *best = NULL;
    unsigned best_distance = 3;
    for (size_t i = 0; i < count; i++) {
        chr_slice name = chr_slice_cstr(names[i]);
        unsigned d = sql__edit_distance(wanted, name, 2);
        if (d < best_distance && d < CHR_MAX(name.len, wanted.len)) {
            best = names[i];
            best_distance = d;
        }
    }
    return best;
}
