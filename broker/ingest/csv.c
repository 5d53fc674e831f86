/* broker/ingest/csv.c: lines of comma-separated fields (RFC 4180), a row each.
 *
 * Fields go, in order, to the columns that the topic does not capture, one field for each. An empty
 * field is no value; `""` is the empty string. Line breaks may stand in quotes; a quote inside an
 * unquoted field is an error. Empty lines are skipped, the last line needs no end. */
#include "broker/ingest/convert.h"
#include "broker/ingest/row.h"

static bool ends_field(const struct ingest_message *m, const uint8_t *p)
{
    return *p == ',' || *p == '\n' || *p == '\r' || p == m->end;
}

static chr_err too_many(struct ingest_message *m, const uint8_t *p)
{
    return ingest__fail(m, CHR_EMALFORMED, p, "there are more fields than the %u columns left",
                        m->plan->fields_count);
}

static chr_err put_text(struct ingest_message *m, uint16_t column, chr_slice text, chr_slice shown)
{
    enum db_type type = m->plan->table->columns[column].type;
    struct db_value value;
    const char *complaint;
    if (type == DB_BLOB && !ingest__room(m, &m->decoder->text, text.len))
        return m->err;
    chr_err err = ingest__convert_text(type, text, m->decoder->text.ptr, &value, &complaint);
    if (err)
        return ingest__fail_value(m, err, column, shown, true, complaint);
    err = ingest__put_value(m->rows, column, &value);
    return err ? ingest__fail_store(m, err, NULL) : CHR_OK;
}

/* p: after the opening quote. Doubled quotes are one; then the text is put together apart. */
static const uint8_t *quoted(struct ingest_message *m, uint16_t column, const uint8_t *p)
{
    const uint8_t *begin = p;
    bool doubled = false;
    for (;;) {
        p = memchr(p, '"', (size_t)(m->end - p));
        if (!p) {
            ingest__fail(m, CHR_EMALFORMED, begin - 1, "a quoted field does not end");
            return NULL;
        }
        if (p[1] != '"')
            break;
        doubled = true;
        p += 2;
    }
    if (!ends_field(m, p + 1)) {
        ingest__fail(m, CHR_EMALFORMED, p + 1, "something follows a quoted field");
        return NULL;
    }
    chr_slice text = chr_slice_of(begin, (size_t)(p - begin)), shown = text;
    if (doubled) {
        if (!ingest__room(m, &m->decoder->text, text.len))
            return NULL;
        uint8_t *out = m->decoder->text.ptr;
        for (const uint8_t *q = begin; q < p; q++) {
            *out++ = *q;
            q += *q == '"';
        }
        text = chr_slice_of(m->decoder->text.ptr, (size_t)(out - m->decoder->text.ptr));
    }
    return put_text(m, column, text, shown) ? NULL : p + 1;
}

static const uint8_t *field(struct ingest_message *m, uint16_t column, const uint8_t *p)
{
    if (*p == '"')
        return quoted(m, column, p + 1);
    struct ingest_decimal d;
    enum db_type type = m->plan->table->columns[column].type;
    const uint8_t *end;
    if (ingest_is_number_kind(type) && (end = ingest_scan_decimal(p, &d)) && ends_field(m, end) &&
        ingest_put_decimal(m->rows, column, type, &d))
        return end;
    for (end = p; !ends_field(m, end); end++) {
        if (*end == '"') {
            ingest__fail(m, CHR_EMALFORMED, end, "a quote inside a field that is not quoted");
            return NULL;
        }
    }
    chr_slice text = chr_slice_of(p, (size_t)(end - p));
    if (text.len == 0)
        return end;
    return put_text(m, column, text, text) ? NULL : end;
}

static const uint8_t *line_end(const struct ingest_message *m, const uint8_t *p)
{
    p += *p == '\r' && p[1] == '\n';
    return p + (p < m->end && (*p == '\n' || *p == '\r'));
}

/* Returns the start of the next line. */
static const uint8_t *line(struct ingest_message *m, const uint8_t *p)
{
    uint32_t count = m->plan->fields_count;
    for (uint32_t i = 0;; i++) {
        if (i == count) {
            too_many(m, p);
            return NULL;
        }
        p = field(m, m->plan->fields[i], p);
        if (!p)
            return NULL;
        if (*p == ',' && p < m->end) {
            p++;
            continue;
        }
        if (i + 1 < count) {
            ingest__fail(m, CHR_EMALFORMED, p, "%u field%s for %u columns", i + 1, i ? "s" : "",
                         count);
            return NULL;
        }
        return ingest_row_end(m) ? NULL : line_end(m, p);
    }
}

chr_err ingest__csv(struct ingest_message *m)
{
    if (!m->ascii && !ingest__check_utf8(m))
        return m->err;
    m->part = "line";
    const uint8_t *p = m->begin;
    const uint8_t *first_end = memchr(p, '\n', (size_t)(m->end - p));
    bool several = first_end && first_end + 1 < m->end;
    uint32_t number = 0;
    bool any = false;
    while (p < m->end) {
        number++;
        m->element = several ? number : 0;
        if (*p == '\n' || *p == '\r') {
            p = line_end(m, p);
            continue;
        }
        const uint8_t *begin = p;
        p = line(m, p);
        if (!p)
            return m->err;
        any = true;
        for (const uint8_t *q = begin; several && q + 1 < p; q++)
            number += *q == '\n'; /* lines inside quotes */
    }
    m->element = 0;
    if (!any)
        return ingest__fail(m, CHR_EMALFORMED, NULL, "the payload has no line of fields");
    return CHR_OK;
}
