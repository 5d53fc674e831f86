/* broker/ingest/metrics.c: {"device_id":…, "ts":…, "metrics":{"temp":30.5,"humidity":40.2}}, one
 * row per metric.
 *
 * What stands beside `metrics`, before and after it, belongs to every row. So its members are only
 * remembered while the object is read; then the row being built is completed once per member, and
 * each next row begins as a copy of the one before. A metric that is an object is flattened to
 * "gps.lat", as nested keys are elsewhere. Of equal names the last wins. */
#include <stdlib.h>

#include "base/hash.h"
#include "broker/ingest/row.h"

/* Names are compared one with another up to this many, then through a table. */
#define PAIRWISE_MAX 16

static chr_slice name_of(const struct ingest_decoder *d, const struct ingest_metric *metric)
{
    const uint8_t *ptr = metric->name ? metric->name : d->names.ptr + metric->name_at;
    return chr_slice_of(ptr, metric->name_len);
}

static bool add_metric(struct ingest_message *m, const struct ingest_metric *metric)
{
    struct ingest_decoder *d = m->decoder;
    if (d->metrics_count == d->metrics_capacity) {
        uint32_t capacity = d->metrics_capacity ? d->metrics_capacity * 2 : 16;
        struct ingest_metric *grown = realloc(d->metrics, capacity * sizeof *grown);
        if (!grown) {
            m->err = CHR_ENOMEM;
            return false;
        }
        d->metrics = grown;
        d->metrics_capacity = capacity;
    }
    d->metrics[d->metrics_count++] = *metric;
    return true;
}

/* prefix "." raw, unescaped, at the end of the decoder's names. */
static bool compose(struct ingest_message *m, uint32_t prefix_at, uint32_t prefix_len,
                    chr_slice raw, struct ingest_metric *metric)
{
    struct ingest_decoder *d = m->decoder;
    size_t need = d->names_len + prefix_len + 1 + raw.len;
    if (!ingest__room(m, &d->names, need))
        return false;
    uint8_t *out = d->names.ptr + d->names_len, *at = out;
    if (prefix_len) {
        memcpy(at, d->names.ptr + prefix_at, prefix_len);
        at += prefix_len;
        *at++ = '.';
    }
    size_t len;
    if (ingest__json_unescape(raw, at, &len)) {
        ingest__fail(m, CHR_EMALFORMED, raw.ptr, "a metric's name has half of a surrogate pair");
        return false;
    }
    at += len;
    metric->name = NULL;
    metric->name_at = (uint32_t)d->names_len;
    metric->name_len = (uint32_t)(at - out);
    d->names_len += metric->name_len;
    /* Deep nesting repeats the outer names: 64 levels of a long name must not fill the memory. */
    if (d->names_len > INGEST_PAYLOAD_BYTES_MAX) {
        ingest__fail(m, CHR_ETOOBIG, raw.ptr, "the names of the metrics are too long");
        return false;
    }
    return true;
}

/* p: after '{'. prefix_len 0: the members of `metrics` itself. */
static const uint8_t *members(struct ingest_message *m, const uint8_t *p, unsigned depth,
                              uint32_t prefix_at, uint32_t prefix_len, bool nested)
{
    p = ingest_space(p);
    if (*p == '}')
        return p + 1;
    for (;;) {
        if (*p != '"') {
            ingest__fail_json(m, p, "expected a key in double quotes");
            return NULL;
        }
        bool escaped = false;
        const uint8_t *quote = ingest__json_string(m, p + 1, &escaped);
        if (!quote)
            return NULL;
        chr_slice raw = chr_slice_of(p + 1, (size_t)(quote - p - 1));
        p = ingest_space(quote + 1);
        if (*p != ':') {
            ingest__fail_json(m, p, "expected ':' after a key");
            return NULL;
        }
        p = ingest_space(p + 1);
        struct ingest_metric metric = {.name = raw.ptr, .name_len = (uint32_t)raw.len, .value = p};
        bool is_object = *p == '{' && depth < INGEST_JSON_DEPTH_MAX;
        if ((escaped || nested || is_object) &&
            !compose(m, prefix_at, nested ? prefix_len : 0, raw, &metric))
            return NULL;
        if (is_object) {
            p = members(m, p + 1, depth + 1, metric.name_at, metric.name_len, true);
        } else {
            p = ingest__json_skip(m, p, depth);
            if (p && !add_metric(m, &metric))
                return NULL;
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

const uint8_t *ingest__metrics_collect(struct ingest_message *m, const uint8_t *p, unsigned depth)
{
    m->metrics_seen = true;
    m->decoder->metrics_count = 0;
    m->decoder->names_len = 0;
    if (*p == '{')
        return members(m, p + 1, depth + 1, 0, 0, false);
    const uint8_t *end = ingest__json_skip(m, p, depth);
    if (end && *p != 'n') {
        ingest__fail(m, CHR_ETYPE, p, "metrics is not an object");
        return NULL;
    }
    return end;
}

static void drop_if_equal(struct ingest_decoder *d, uint32_t earlier, uint32_t later)
{
    if (d->metrics[earlier].value &&
        chr_slice_eq(name_of(d, &d->metrics[earlier]), name_of(d, &d->metrics[later])))
        d->metrics[earlier].value = NULL;
}

/* Of equal names only the last keeps its value. */
static chr_err drop_repeated(struct ingest_decoder *d)
{
    uint32_t count = d->metrics_count;
    if (count <= PAIRWISE_MAX) {
        for (uint32_t i = 1; i < count; i++)
            for (uint32_t k = 0; k < i; k++)
                drop_if_equal(d, k, i);
        return CHR_OK;
    }
    uint32_t size = 64;
    while (size < count * 2)
        size *= 2;
    uint32_t *table = calloc(size, sizeof *table); /* index + 1 */
    if (!table)
        return CHR_ENOMEM;
    uint64_t seed = chr_hash_seed();
    for (uint32_t i = 0; i < count; i++) {
        chr_slice name = name_of(d, &d->metrics[i]);
        uint32_t at = (uint32_t)chr_hash_slice(name, seed) & (size - 1);
        for (; table[at]; at = (at + 1) & (size - 1)) {
            uint32_t other = table[at] - 1;
            if (chr_slice_eq(name_of(d, &d->metrics[other]), name)) {
                d->metrics[other].value = NULL;
                break;
            }
        }
        table[at] = i + 1;
    }
    free(table);
    return CHR_OK;
}

/* The row being built takes what the row before has in the columns that payloads fill. */
static chr_err copy_row(struct ingest_message *m)
{
    struct db_rows_builder *b = m->rows;
    uint32_t row = b->rows, from = row - 1;
    for (uint32_t i = 0; i < m->plan->fields_count; i++) {
        uint16_t column = m->plan->fields[i];
        struct db_rows_column *c = &b->columns[column];
        if (column == m->plan->metric_column || column == m->plan->value_column)
            continue;
        if (!db_bit_get(c->validity, from)) {
            if (c->has_named && db_bit_get(c->named, from))
                db_rows_put_null(b, column);
            continue;
        }
        if (c->type == DB_BOOLEAN) {
            db_rows_put_bool(b, column, c->b8[from]);
        } else if (!db_type_is_bytes(c->type)) {
            ingest_put_i64(b, column, c->i64[from]); /* a double's bits as well */
        } else {
            uint32_t begin = from ? c->ends[from - 1] : 0, len = c->ends[from] - begin;
            /* No heap yet: all strings so far are empty. */
            chr_slice bytes = chr_slice_of(c->heap ? c->heap + begin : NULL, len);
            if (len > c->heap_capacity - c->ends[from]) {
                /* The heap will move: not while it is read. */
                if (!ingest__room(m, &m->decoder->text, len))
                    return m->err;
                memcpy(m->decoder->text.ptr, bytes.ptr, len);
                bytes.ptr = m->decoder->text.ptr;
            }
            chr_err err = db_rows_put_bytes(b, column, bytes);
            if (err)
                return ingest__fail_store(m, err, NULL);
        }
    }
    return CHR_OK;
}

static chr_err put_metric(struct ingest_message *m, const struct ingest_metric *metric)
{
    struct db_rows_builder *b = m->rows;
    uint16_t value = m->plan->value_column;
    if (memchr(m->metric.ptr, 0, m->metric.len))
        return ingest__fail(m, CHR_ETYPE, metric->value, "its name contains U+0000");
    chr_err err = db_rows_put_bytes(b, m->plan->metric_column, m->metric);
    if (err)
        return ingest__fail_store(m, err, NULL);
    enum db_type type = m->plan->table->columns[value].type;
    struct ingest_decimal d;
    if (!ingest_is_number_kind(type) || !ingest_scan_decimal(metric->value, &d) ||
        !ingest_put_decimal(b, value, type, &d)) {
        struct ingest_key key = {.column = value, .kind = (uint8_t)type};
        if (!ingest__json_put(m, &key, metric->value, 1))
            return m->err;
    }
    return ingest_row_end(m);
}

chr_err ingest__metrics_rows(struct ingest_message *m)
{
    struct ingest_decoder *d = m->decoder;
    if (drop_repeated(d)) {
        m->err = CHR_ENOMEM;
        return m->err;
    }
    bool first = true;
    for (uint32_t i = 0; i < d->metrics_count; i++) {
        const struct ingest_metric *metric = &d->metrics[i];
        if (!metric->value)
            continue;
        m->metric = name_of(d, metric);
        chr_err err = first ? CHR_OK : copy_row(m);
        if (!err)
            err = put_metric(m, metric);
        if (err)
            return err;
        first = false;
    }
    m->metric = chr_slice_of(NULL, 0);
    if (first) /* {"metrics":{}}: no row; forget what stands beside it */
        db_rows_rollback(m->rows, db_rows_mark(m->rows));
    return CHR_OK;
}
