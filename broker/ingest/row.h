/* broker/ingest/row.h: putting values into the row being built, inline.
 *
 * A builder always has room for the row being built (db/rows_builder.c), so numbers are one store
 * and one bit. */
#ifndef CHR_BROKER_INGEST_ROW_H
#define CHR_BROKER_INGEST_ROW_H

#include "broker/ingest/message.h"
#include "broker/ingest/reason.h"

CHR_INLINE void ingest_put_i64(struct db_rows_builder *b, uint16_t column, int64_t v)
{
    struct db_rows_column *c = &b->columns[column];
    c->i64[b->rows] = v;
    db_bit_set(c->validity, b->rows);
}

CHR_INLINE void ingest_put_f64(struct db_rows_builder *b, uint16_t column, double v)
{
    struct db_rows_column *c = &b->columns[column];
    c->f64[b->rows] = v;
    db_bit_set(c->validity, b->rows);
}

CHR_INLINE bool ingest_is_number_kind(unsigned kind)
{
    return (1u << kind) & (1u << DB_INT | 1u << DB_FLOAT | 1u << DB_TIMESTAMP);
}

/* For a column of number kind. False: not exactly the column's as it stands; ingest__convert_text
 * decides. */
CHR_INLINE bool ingest_put_decimal(struct db_rows_builder *b, uint16_t column, unsigned kind,
                                   const struct ingest_decimal *d)
{
    if (kind == DB_FLOAT) {
        double v;
        if (!ingest_decimal_f64(d, &v))
            return false;
        ingest_put_f64(b, column, v);
        return true;
    }
    if (d->fraction)
        return false;
    int64_t v = (int64_t)d->digits;
    if (kind == DB_INT) {
        ingest_put_i64(b, column, d->negative ? -v : v);
        return true;
    }
    /* Design 2.3: seconds, milliseconds or microseconds by magnitude; others by the book. */
    if (d->negative || v >= INT64_C(100000000000000000))
        return false;
    v *= v < INT64_C(100000000000) ? 1000000 : v < INT64_C(100000000000000) ? 1000 : 1;
    ingest_put_i64(b, column, v);
    return true;
}

/* 16 bytes are readable at ptr. Short strings take no call: 16 bytes are copied whatever their
 * number where the heap has the room. */
CHR_INLINE chr_err ingest_put_short(struct db_rows_builder *b, uint16_t column, const uint8_t *ptr,
                                    size_t len)
{
    struct db_rows_column *c = &b->columns[column];
    uint32_t row = b->rows, begin = row ? c->ends[row - 1] : 0;
    if (CHR_UNLIKELY(len > 16 || (uint64_t)begin + 16 > c->heap_capacity))
        return db_rows_put_bytes(b, column, chr_slice_of(ptr, len));
    memcpy(c->heap + begin, ptr, 16);
    c->heap_len = c->ends[row] = begin + (uint32_t)len;
    db_bit_set(c->validity, row);
    return CHR_OK;
}

/* Of the column's type; null: says NULL explicitly. */
chr_err ingest__put_value(struct db_rows_builder *b, uint16_t column, const struct db_value *v);

/* Adds what the topic says and the arrival time, and completes the row. */
CHR_INLINE chr_err ingest_row_end(struct ingest_message *m)
{
    struct db_rows_builder *b = m->rows;
    const struct ingest_target *t = m->target;
    for (uint32_t i = 0; i < t->captures_count; i++) {
        const struct ingest_capture *c = &t->captures[i];
        chr_err err = CHR_LIKELY(c->value.type == DB_STRING)
                          ? ingest_put_short(b, c->column, c->value.bytes.ptr, c->value.bytes.len)
                          : ingest__put_value(b, c->column, &c->value);
        if (CHR_UNLIKELY(err))
            return ingest__fail_store(m, err, NULL);
    }
    int32_t time = m->plan->time_column;
    if (time >= 0 && !db_bit_get(b->columns[time].validity, b->rows))
        ingest_put_i64(b, (uint16_t)time, m->received_at_us);
    if (CHR_UNLIKELY(m->guard != UINT32_MAX))
        db_rows_guard(b, m->guard);
    struct chr_errmsg msg;
    chr_err err = db_rows_end(b, m->received_at_us, &msg);
    if (CHR_UNLIKELY(err))
        return ingest__fail_store(m, err, &msg);
    return CHR_OK;
}

#endif
