/* broker/ingest/scalar.c: payloads that are one number or one text.
 *
 * Which column they go to was decided when the table was created (plan.c). */
#include "base/num.h"
#include "base/utf8.h"
#include "broker/ingest/convert.h"
#include "broker/ingest/row.h"

/* A number as a whole, blanks around it aside; words such as "nan" are text. */
static bool is_number(chr_slice payload)
{
    const uint8_t *p = payload.ptr, *end = p + payload.len;
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r' || end[-1] == '\n'))
        end--;
    const uint8_t *digit = p + (p < end && (*p == '-' || *p == '+'));
    digit += digit < end && *digit == '.';
    if (digit == end || !ingest_is_digit(*digit))
        return false;
    double v;
    int used = chr_parse_f64(chr_slice_of(p, (size_t)(end - p)), &v);
    return used == CHR_ERANGE || (used > 0 && used == end - p);
}

static chr_err no_column(struct ingest_message *m, bool number)
{
    if (m->begin == m->end)
        return ingest__fail(m, CHR_EMALFORMED, NULL, "the payload is empty");
    return ingest__fail(m, CHR_ETYPE, NULL,
                        "the payload is %s, and table %s has no single column for it",
                        number ? "a number" : "text", m->plan->table->name);
}

/* Nothing at all, for a table with nothing to fill: "device x was here". */
static bool is_heartbeat(const struct ingest_message *m)
{
    const struct ingest_plan *plan = m->plan;
    return m->begin == m->end &&
           (plan->fields_count == 0 ||
            (plan->fields_count == 1 && plan->fields[0] == plan->time_column));
}

chr_err ingest__scalar(struct ingest_message *m, enum db_payload_format format)
{
    const struct ingest_plan *plan = m->plan;
    int32_t column = plan->scalar_column;
    struct ingest_decimal d;
    const uint8_t *end;
    /* The bare number of `sensors/esp-001/temp`. */
    if (format != DB_PAYLOAD_TEXT && column >= 0 &&
        ingest_is_number_kind(plan->table->columns[column].type) &&
        (end = ingest_scan_decimal(m->begin, &d)) && end == m->end &&
        ingest_put_decimal(m->rows, (uint16_t)column, plan->table->columns[column].type, &d))
        return ingest_row_end(m);
    if (format != DB_PAYLOAD_NUMBER && is_heartbeat(m))
        return ingest_row_end(m);
    chr_slice text = chr_slice_of(m->begin, (size_t)(m->end - m->begin));
    bool number = format != DB_PAYLOAD_TEXT && is_number(text);
    if (format == DB_PAYLOAD_NUMBER && !number)
        return ingest__fail(m, CHR_ETYPE, NULL, "the payload is not a number");
    if (column < 0)
        return no_column(m, number);
    enum db_type type = plan->table->columns[column].type;
    struct db_value value = {.type = type};
    const char *complaint;
    chr_err err = CHR_OK;
    if (type == DB_STRING && !m->ascii && !ingest__check_utf8(m))
        return m->err;
    if (type == DB_BLOB)
        value.bytes = text; /* bytes as they are */
    else
        err = ingest__convert_text(type, text, NULL, &value, &complaint);
    if (err)
        return ingest__fail_value(m, err, (uint16_t)column, text, true, complaint);
    err = ingest__put_value(m->rows, (uint16_t)column, &value);
    return err ? ingest__fail_store(m, err, NULL) : ingest_row_end(m);
}
