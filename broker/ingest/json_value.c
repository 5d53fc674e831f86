/* broker/ingest/json_value.c: JSON values off the fast road, and what is skipped.
 *
 * A value that is skipped is checked like one that is used: a payload is JSON or it is rejected. */
#include "broker/ingest/convert.h"
#include "broker/ingest/keys.h"
#include "broker/ingest/row.h"

/* -- Strings */

static int hex4(const uint8_t *p)
{
    int v = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t c = p[i], letter = c | 0x20;
        if (ingest_is_digit(c))
            v = v * 16 + (c - '0');
        else if (letter >= 'a' && letter <= 'f')
            v = v * 16 + (letter - 'a' + 10);
        else
            return -1;
    }
    return v;
}

const uint8_t *ingest__json_string(struct ingest_message *m, const uint8_t *p, bool *escaped)
{
    for (;;) {
        p = ingest_string_run(p);
        if (*p == '"')
            return p;
        if (*p != '\\') {
            ingest__fail_json(m, p, "control character in a string");
            return NULL;
        }
        *escaped = true;
        switch (p[1]) {
        case '"':
        case '\\':
        case '/':
        case 'b':
        case 'f':
        case 'n':
        case 'r':
        case 't':
            p += 2;
            break;
        case 'u':
            if (hex4(p + 2) >= 0) {
                p += 6;
                break;
            }
            /* fall through */
        default:
            ingest__fail_json(m, p + 1 < m->end ? p : m->end, "unknown escape in a string");
            return NULL;
        }
    }
}

static uint8_t *put_utf8(uint8_t *out, uint32_t c)
{
    if (c < 0x80) {
        *out++ = (uint8_t)c;
    } else if (c < 0x800) {
        *out++ = (uint8_t)(0xc0 | c >> 6);
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        *out++ = (uint8_t)(0xe0 | c >> 12);
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    } else {
        *out++ = (uint8_t)(0xf0 | c >> 18);
        *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        *out++ = (uint8_t)(0x80 | (c & 0x3f));
    }
    return out;
}

chr_err ingest__json_unescape(chr_slice raw, uint8_t *out, size_t *len)
{
    const uint8_t *p = raw.ptr, *end = p + raw.len;
    uint8_t *at = out;
    while (p < end) {
        if (*p != '\\') {
            *at++ = *p++;
            continue;
        }
        p += 2;
        switch (p[-1]) {
        case 'b':
            *at++ = '\b';
            break;
        case 'f':
            *at++ = '\f';
            break;
        case 'n':
            *at++ = '\n';
            break;
        case 'r':
            *at++ = '\r';
            break;
        case 't':
            *at++ = '\t';
            break;
        case 'u': {
            uint32_t c = (uint32_t)hex4(p);
            p += 4;
            if (c >= 0xd800 && c < 0xe000) {
                /* A pair is one character: high half, then low half. */
                if (c >= 0xdc00 || end - p < 6 || p[0] != '\\' || p[1] != 'u')
                    return CHR_EMALFORMED;
                uint32_t low = (uint32_t)hex4(p + 2);
                if (low < 0xdc00 || low >= 0xe000)
                    return CHR_EMALFORMED;
                c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
                p += 6;
            }
            at = put_utf8(at, c);
            break;
        }
        default: /* quote, backslash, slash */
            *at++ = p[-1];
        }
    }
    *len = (size_t)(at - out);
    return CHR_OK;
}

/* -- Numbers and literals: where they end */

static const uint8_t *digits_end(const uint8_t *p)
{
    while (ingest_is_digit(*p))
        p++;
    return p;
}

static const uint8_t *number_end(struct ingest_message *m, const uint8_t *begin)
{
    const uint8_t *p = begin + (*begin == '-');
    const uint8_t *q = digits_end(p);
    bool good = q > p && (*p != '0' || q == p + 1);
    if (good && *q == '.') {
        p = q + 1;
        q = digits_end(p);
        good = q > p;
    }
    if (good && (*q | 0x20) == 'e') {
        p = q + 1;
        p += *p == '+' || *p == '-';
        q = digits_end(p);
        good = q > p;
    }
    if (good)
        return q;
    ingest__fail_json(m, q < m->end ? begin : q, "not a number");
    return NULL;
}

static const uint8_t *literal_end(struct ingest_message *m, const uint8_t *p)
{
    if (memcmp(p, "true", 4) == 0 || memcmp(p, "null", 4) == 0)
        return p + 4;
    if (memcmp(p, "false", 5) == 0)
        return p + 5;
    ingest__fail_json(m, p, "expected a value");
    return NULL;
}

/* -- Skipping */

/* After '{' or ',' of an object: its next key and the colon. Returns at the value. */
static const uint8_t *skip_key(struct ingest_message *m, const uint8_t *p)
{
    bool escaped = false;
    if (*p != '"') {
        ingest__fail_json(m, p, "expected a key in double quotes");
        return NULL;
    }
    p = ingest__json_string(m, p + 1, &escaped);
    if (!p)
        return NULL;
    p = ingest_space(p + 1);
    if (*p != ':') {
        ingest__fail_json(m, p, "expected ':' after a key");
        return NULL;
    }
    return ingest_space(p + 1);
}

static const uint8_t *skip_scalar(struct ingest_message *m, const uint8_t *p)
{
    if (*p == '"') {
        bool escaped = false;
        p = ingest__json_string(m, p + 1, &escaped);
        return p ? p + 1 : NULL;
    }
    if (*p == '-' || ingest_is_digit(*p))
        return number_end(m, p);
    return literal_end(m, p);
}

/* No recursion: a bit per level says whether it is an object. */
_Static_assert(INGEST_JSON_DEPTH_MAX <= 64, "levels are bits of a word");

const uint8_t *ingest__json_skip(struct ingest_message *m, const uint8_t *p, unsigned depth)
{
    uint64_t objects = 0;
    unsigned level = 0;
    for (;;) {
        if (*p == '{' || *p == '[') {
            bool is_object = *p == '{';
            if (depth + level >= INGEST_JSON_DEPTH_MAX) {
                ingest__fail(m, CHR_ETOOBIG, p, "the JSON is nested deeper than %d levels",
                             INGEST_JSON_DEPTH_MAX);
                return NULL;
            }
            p = ingest_space(p + 1);
            if (*p != (is_object ? '}' : ']')) {
                objects = objects << 1 | is_object;
                level++;
                if (is_object && !(p = skip_key(m, p)))
                    return NULL;
                continue;
            }
            p++;
        } else if (!(p = skip_scalar(m, p))) {
            return NULL;
        }
        for (;;) { /* after a value */
            if (level == 0)
                return p;
            bool in_object = objects & 1;
            p = ingest_space(p);
            if (*p == ',') {
                p = ingest_space(p + 1);
                if (in_object && !(p = skip_key(m, p)))
                    return NULL;
                break;
            }
            if (*p != (in_object ? '}' : ']')) {
                ingest__fail_json(m, p,
                                  in_object ? "expected ',' or '}' after a value"
                                            : "expected ',' or ']' after an element");
                return NULL;
            }
            p++;
            objects >>= 1;
            level--;
        }
    }
}

/* -- Values for columns */

chr_err ingest__put_value(struct db_rows_builder *b, uint16_t column, const struct db_value *v)
{
    if (v->null) {
        db_rows_put_null(b, column);
        return CHR_OK;
    }
    switch (v->type) {
    case DB_INT:
    case DB_TIMESTAMP:
        db_rows_put_i64(b, column, v->i64);
        return CHR_OK;
    case DB_FLOAT:
        db_rows_put_f64(b, column, v->f64);
        return CHR_OK;
    case DB_BOOLEAN:
        db_rows_put_bool(b, column, v->boolean);
        return CHR_OK;
    case DB_STRING:
    case DB_BLOB:
        return db_rows_put_bytes(b, column, v->bytes);
    }
    return CHR_EINVAL;
}

/* What a value that is neither text nor number says about itself. */
static const char *not_a(enum db_type type)
{
    switch (type) {
    case DB_INT:
        return "is not an integer";
    case DB_FLOAT:
        return "is not a number";
    case DB_BOOLEAN:
        return "is not a boolean";
    case DB_TIMESTAMP:
        return "is not a timestamp";
    case DB_STRING:
    case DB_BLOB:
        break;
    }
    return "is not a string";
}

/* The value at p as one of `type`. A string is unescaped into the decoder's text; hexadecimal goes
 * there too. A STRING takes every other value as it stands: 17, true, {"lat":45.2}.
 * NULL: the JSON is malformed (m->err), or *err and *complaint say why the type does not take it;
 * then *end is where it ends. */
static bool read_value(struct ingest_message *m, enum db_type type, const uint8_t *p,
                       unsigned depth, const uint8_t **end, struct db_value *out, chr_err *err,
                       const char **complaint)
{
    *out = (struct db_value){.type = type};
    *err = CHR_OK;
    if (*p == '"') {
        bool escaped = false;
        const uint8_t *quote = ingest__json_string(m, p + 1, &escaped);
        if (!quote)
            return false;
        *end = quote + 1;
        chr_slice text = chr_slice_of(p + 1, (size_t)(quote - p - 1));
        if (escaped || type == DB_BLOB) {
            struct ingest_bytes *room = &m->decoder->text;
            if (!ingest__room(m, room, text.len))
                return false;
            size_t len;
            if (escaped) {
                *err = ingest__json_unescape(text, room->ptr, &len);
                if (*err) {
                    *complaint = "has half of a surrogate pair";
                    return true;
                }
                text = chr_slice_of(room->ptr, len);
            }
        }
        *err = ingest__convert_text(type, text, m->decoder->text.ptr, out, complaint);
        return true;
    }
    if (*p == '-' || ingest_is_digit(*p)) {
        *end = number_end(m, p);
        if (!*end)
            return false;
        *err = ingest__convert_number(type, chr_slice_of(p, (size_t)(*end - p)), out, complaint);
        return true;
    }
    *end = ingest__json_skip(m, p, depth);
    if (!*end)
        return false;
    chr_slice raw = chr_slice_of(p, (size_t)(*end - p));
    if (*p == 'n') {
        out->null = true;
    } else if (type == DB_STRING) {
        out->bytes = raw;
    } else if (type == DB_BOOLEAN && (*p == 't' || *p == 'f')) {
        out->boolean = *p == 't';
    } else {
        *err = CHR_ETYPE;
        *complaint = not_a(type);
    }
    return true;
}

static const struct ingest_capture *captured(const struct ingest_message *m, uint16_t column)
{
    for (uint32_t i = 0; i < m->target->captures_count; i++)
        if (m->target->captures[i].column == column)
            return &m->target->captures[i];
    return NULL;
}

const uint8_t *ingest__json_put(struct ingest_message *m, const struct ingest_key *key,
                                const uint8_t *p, unsigned depth)
{
    if (key->kind == INGEST_KEY_METRICS)
        return ingest__metrics_collect(m, p, depth);
    const uint8_t *end;
    if (key->prefix && *p == '{') {
        /* A column "a" beside "a.b" takes the object as text, if it takes text. */
        if (key->kind != INGEST_KEY_PREFIX &&
            m->plan->table->columns[key->column].type == DB_STRING &&
            key->kind != INGEST_KEY_CAPTURED) {
            end = ingest__json_skip(m, p, depth);
            if (!end)
                return NULL;
            chr_err err =
                db_rows_put_bytes(m->rows, key->column, chr_slice_of(p, (size_t)(end - p)));
            if (err) {
                ingest__fail_store(m, err, NULL);
                return NULL;
            }
        }
        if (depth >= INGEST_JSON_DEPTH_MAX)
            return ingest__json_skip(m, p, depth);
        uint8_t outer[sizeof m->path];
        uint32_t outer_len = m->path_len;
        memcpy(outer, m->path, sizeof outer);
        memcpy(m->path, key->name, key->len);
        m->path_len = key->len;
        end = ingest__json_nested(m, p + 1, depth + 1);
        memcpy(m->path, outer, sizeof outer);
        m->path_len = outer_len;
        return end;
    }
    if (key->kind == INGEST_KEY_PREFIX) {
        m->unknown_keys += *p != 'n';
        return ingest__json_skip(m, p, depth);
    }
    struct db_value value;
    chr_err err;
    const char *complaint;
    enum db_type type = m->plan->table->columns[key->column].type;
    if (!read_value(m, type, p, depth, &end, &value, &err, &complaint))
        return NULL;
    chr_slice raw = chr_slice_of(p, (size_t)(end - p));
    if (err) {
        ingest__fail_value(m, err, key->column, raw, false, complaint);
        return NULL;
    }
    if (key->kind == INGEST_KEY_CAPTURED) {
        const struct ingest_capture *c = captured(m, key->column);
        if (value.null || !c || ingest__values_equal(&value, &c->value))
            return end;
        ingest__fail_captured(m, key->column, raw);
        return NULL;
    }
    /* No time is a missing time: the arrival. */
    if (value.null && key->column == m->plan->time_column)
        return end;
    err = ingest__put_value(m->rows, key->column, &value);
    if (err) {
        ingest__fail_store(m, err, NULL);
        return NULL;
    }
    return end;
}

/* Recursion is bounded by INGEST_JSON_DEPTH_MAX, and by the dots in column names. */
const uint8_t *ingest__json_nested(struct ingest_message *m, const uint8_t *p, unsigned depth)
{
    uint32_t prefix = m->path_len;
    p = ingest_space(p);
    if (*p == '}')
        return p + 1;
    for (;;) {
        const uint8_t *name = p + 1;
        p = skip_key(m, p);
        if (!p)
            return NULL;
        /* The key ends at the last quote before the value. */
        const uint8_t *quote = p;
        while (*--quote != '"')
            ;
        size_t len = (size_t)(quote - name);
        const struct ingest_key *key = NULL;
        if (memchr(name, '\\', len)) {
            if (!ingest__room(m, &m->decoder->text, len))
                return NULL;
            if (ingest__json_unescape(chr_slice_of(name, len), m->decoder->text.ptr, &len))
                len = DB_NAME_BYTES_MAX; /* too long below: unknown */
            name = m->decoder->text.ptr;
        }
        if (prefix + 1 + len <= DB_NAME_BYTES_MAX) {
            m->path[prefix] = '.';
            memcpy(m->path + prefix + 1, name, len);
            key = ingest__key_find_folded(&m->plan->keys, m->path, prefix + 1 + len);
        }
        if (key) {
            p = ingest__json_put(m, key, p, depth);
        } else {
            m->unknown_keys++;
            p = ingest__json_skip(m, p, depth);
        }
        if (!p)
            return NULL;
        p = ingest_space(p);
        if (*p == '}')
            return p + 1;
        if (*p != ',') {
            ingest__fail_json(m, p, "expected ',' or '}' after a value");
            return NULL;
        }
        p = ingest_space(p + 1);
    }
}
