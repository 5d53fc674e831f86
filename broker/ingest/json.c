/* broker/ingest/json.c: the fast road: objects of numbers and short strings, in one pass.
 *
 * A key is found by comparing 16 bytes with `"`, looked up by its first and last 8 bytes, and its
 * value goes from text to the column's array without stopping anywhere. What is not on this road
 * (escapes, nested objects, numbers in quotes, unknown keys …) is json_value.c's, at the same
 * place of the same message; what this road does not recognise is never wrong only because of that.
 *
 * Accepted: RFC 8259, depth INGEST_JSON_DEPTH_MAX; an object, an array of objects, or objects on
 * lines of their own (NDJSON). Of equal keys the last wins. */
#include "broker/ingest/keys.h"
#include "broker/ingest/row.h"

const uint64_t ingest_power_u64[20] = {
    1u,
    10u,
    100u,
    1000u,
    10000u,
    100000u,
    1000000u,
    10000000u,
    100000000u,
    1000000000u,
    10000000000u,
    100000000000u,
    1000000000000u,
    10000000000000u,
    100000000000000u,
    1000000000000000u,
    10000000000000000u,
    100000000000000000u,
    1000000000000000000u,
    10000000000000000000u,
};
const double ingest_power_f64[23] = {
    1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
    1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
};

/* A key with escapes. key: after the opening quote. Returns the closing one. */
static CHR_NOINLINE const uint8_t *escaped_key(struct ingest_message *m, const uint8_t *key,
                                               const struct ingest_key **found)
{
    bool escaped = false;
    *found = NULL;
    const uint8_t *quote = ingest__json_string(m, key, &escaped);
    if (!quote)
        return NULL;
    size_t raw = (size_t)(quote - key), len;
    if (!escaped) {
        *found = ingest__key_find_folded(&m->plan->keys, key, raw);
        return quote;
    }
    if (!ingest__room(m, &m->decoder->text, raw))
        return NULL;
    if (ingest__json_unescape(chr_slice_of(key, raw), m->decoder->text.ptr, &len) == CHR_OK)
        *found = ingest__key_find_folded(&m->plan->keys, m->decoder->text.ptr, len);
    return quote;
}

/* Puts the members of the outermost object of a row. p: after '{'. Returns after '}', NULL:
 * rejected. */
static const uint8_t *object(struct ingest_message *m, const uint8_t *p, unsigned depth)
{
    const struct ingest_keys *keys = &m->plan->keys;
    struct db_rows_builder *b = m->rows;
    p = ingest_space(p);
    if (*p == '}')
        return p + 1;
    for (;;) {
        if (CHR_UNLIKELY(*p != '"')) {
            ingest__fail_json(m, p, "expected a key in double quotes");
            return NULL;
        }
        const uint8_t *name = ++p;
        const struct ingest_key *key;
        uint32_t stops = ingest_string_stops(p);
        if (CHR_LIKELY(stops != 0) && p[__builtin_ctz(stops)] == '"') {
            size_t len = (size_t)__builtin_ctz(stops);
            key = ingest_key_find(keys, name, len);
            if (CHR_UNLIKELY(!key))
                key = ingest__key_find_folded(keys, name, len);
            p += len;
        } else {
            p = escaped_key(m, name, &key);
            if (!p)
                return NULL;
        }
        p++;
        if (CHR_UNLIKELY(*p != ':')) {
            p = ingest_space(p);
            if (*p != ':') {
                ingest__fail_json(m, p, "expected ':' after a key");
                return NULL;
            }
        }
        p++;
        if (*p <= ' ')
            p = ingest_space(p);
        if (CHR_UNLIKELY(!key)) {
            m->unknown_keys++;
            p = ingest__json_skip(m, p, depth);
        } else if (ingest_is_number_kind(key->kind)) {
            struct ingest_decimal d;
            const uint8_t *end = ingest_scan_decimal(p, &d);
            if (CHR_LIKELY(end && ingest_put_decimal(b, key->column, key->kind, &d)))
                p = end;
            else
                p = ingest__json_put(m, key, p, depth);
        } else if (key->kind == DB_STRING && *p == '"' && (stops = ingest_string_stops(p + 1)) &&
                   p[1 + __builtin_ctz(stops)] == '"') {
            size_t len = (size_t)__builtin_ctz(stops);
            chr_err err = ingest_put_short(b, key->column, p + 1, len);
            if (CHR_UNLIKELY(err)) {
                ingest__fail_store(m, err, NULL);
                return NULL;
            }
            p += len + 2;
        } else {
            p = ingest__json_put(m, key, p, depth);
        }
        if (CHR_UNLIKELY(!p))
            return NULL;
        if (*p <= ' ')
            p = ingest_space(p);
        if (*p == ',') {
            p++;
            if (*p <= ' ')
                p = ingest_space(p);
            continue;
        }
        if (CHR_LIKELY(*p == '}'))
            return p + 1;
        ingest__fail_json(m, p, "expected ',' or '}' after a value");
        return NULL;
    }
}

/* One element: its row, or its rows when it has `metrics`. p: at '{'. */
CHR_INLINE const uint8_t *element(struct ingest_message *m, const uint8_t *p, unsigned depth)
{
    m->metrics_seen = false;
    p = object(m, p + 1, depth);
    if (CHR_UNLIKELY(!p))
        return NULL;
    chr_err err = CHR_UNLIKELY(m->metrics_seen) ? ingest__metrics_rows(m) : ingest_row_end(m);
    return CHR_UNLIKELY(err) ? NULL : p;
}

static const uint8_t *array(struct ingest_message *m, const uint8_t *p)
{
    p = ingest_space(p + 1);
    if (*p == ']')
        return p + 1;
    for (m->element = 1;; m->element++) {
        if (*p != '{') {
            if (p >= m->end)
                ingest__fail_json(m, p, "");
            else
                ingest__fail(m, CHR_EMALFORMED, p, "not a JSON object");
            return NULL;
        }
        p = element(m, p, 2);
        if (!p)
            return NULL;
        p = ingest_space(p);
        if (*p == ']') {
            m->element = 0;
            return p + 1;
        }
        if (*p != ',') {
            ingest__fail_json(m, p, "expected ',' or ']' after an element");
            return NULL;
        }
        p = ingest_space(p + 1);
    }
}

/* After an object: the end, or another one on a later line. */
static const uint8_t *next_line(const uint8_t *p, bool *another)
{
    bool newline = false;
    for (; *p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'; p++)
        newline |= *p == '\n';
    *another = newline && *p == '{';
    return p;
}

chr_err ingest__json(struct ingest_message *m)
{
    if (!m->ascii && !ingest__check_utf8(m))
        return m->err;
    m->part = "element";
    const uint8_t *p = m->begin;
    if (*p <= ' ')
        p = ingest_space(p);
    if (CHR_LIKELY(*p == '{')) {
        uint32_t line = 1;
        for (bool another = true; another; line++) {
            m->element = line > 1 ? line : 0;
            p = element(m, p, 1);
            if (CHR_UNLIKELY(!p))
                return m->err;
            p = next_line(p, &another);
        }
        m->element = 0;
    } else if (*p == '[') {
        p = array(m, p);
        if (!p)
            return m->err;
        p = ingest_space(p);
    } else {
        return ingest__fail_json(m, p, "expected an object or an array of objects");
    }
    if (CHR_UNLIKELY(p != m->end))
        return ingest__fail_json(m, p, "something follows the value");
    return CHR_OK;
}
