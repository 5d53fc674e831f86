/* db/op_decode.h: reading operations back, strictly: what passes here can be applied without a
 * further look at lengths. Everything points into the entry's bytes, which may lie at any address:
 * read integers with chr_get_*le. */
#ifndef CHR_DB_OP_DECODE_H
#define CHR_DB_OP_DECODE_H

#include "base/arena.h"
#include "db/op.h"
#include "db/op_format.h"

struct db__entry_view {
    uint16_t flags;
    uint32_t ops_count;
    uint64_t mapping_version;
    chr_slice ops;
};
/* The frame: header, and operations whose lengths fill the entry exactly. CHR_ECORRUPT. */
CHR_MUST_USE chr_err db__entry_decode(chr_slice bytes, struct db__entry_view *out);

struct db__op {
    enum db_op_type type; /* any number */
    uint8_t flags;
    uint32_t table_id;
    uint32_t count;
    chr_slice body;
};
/* Takes the next operation off `ops` of a decoded entry. False at the end. */
bool db__op_next(chr_slice *ops, struct db__op *op);

struct db__rows_col {
    uint16_t id;
    enum db_type type;
    enum db__rows_form form;
    const uint8_t *validity; /* words; NULL: all rows valid (or, form NULL, none) */
    const uint8_t *named;    /* words; NULL: no explicit NULLs (form NULL: all) */
    const uint8_t *values;   /* as db/op_format.h; ends for PLAIN bytes */
    const uint8_t *heap;     /* bytes types */
    uint32_t heap_len;
};
struct db__rows {
    enum db_rows_mode mode;
    uint32_t schema_version;
    uint32_t rows;
    uint16_t columns_count;
    struct db__rows_col *columns; /* from the arena; ids strictly rising */
    const uint8_t *guards;        /* u32[rows]; NULL: not guarded */
};
/* Checks all of it: lengths, types, ends rising, booleans 0 or 1, strings UTF-8 without U+0000,
 * no bit beyond the last row. CHR_ECORRUPT. */
CHR_MUST_USE chr_err db__rows_decode(chr_slice body, uint32_t rows, bool guarded,
                                     struct chr_arena *arena, struct db__rows *out);
/* Row ids in front of an UPDATE's rows or all of a DELETE's body. */
CHR_MUST_USE chr_err db__row_ids_decode(chr_slice *body, uint32_t count,
                                        const struct db_row_id **ids, struct chr_arena *arena);

CHR_INLINE bool db__rows_bit(const uint8_t *words, uint32_t row)
{
    return (words[row >> 3] >> (row & 7)) & 1;
}
CHR_INLINE bool db__rows_valid(const struct db__rows_col *c, uint32_t row)
{
    return c->form != DB__ROWS_NULL && (!c->validity || db__rows_bit(c->validity, row));
}
/* Does the row name this column (by a value or an explicit NULL)? */
CHR_INLINE bool db__rows_names(const struct db__rows_col *c, uint32_t row)
{
    return c->form == DB__ROWS_NULL || db__rows_valid(c, row) ||
           (c->named && db__rows_bit(c->named, row));
}
/* The value of a row, bytes borrowed from the entry. */
struct db_value db__rows_value(const struct db__rows_col *c, uint32_t row);

/* UTF-8, not empty, wildcards only where a filter may have them; a group may be empty. */
bool db__topic_proper(chr_slice topic);
bool db__filter_proper(chr_slice filter);
bool db__group_proper(chr_slice group);
/* out->will points at *will when there is one. */
CHR_MUST_USE chr_err db__session_open_decode(const struct db__op *op, struct db_session_open *out,
                                             struct db_will *will);
CHR_MUST_USE chr_err db__session_close_decode(chr_slice body, struct db_session_close *out);
CHR_MUST_USE chr_err db__node_down_decode(const struct db__op *op, uint64_t *node, uint64_t *boot);
/* SUBSCRIBE and UNSUBSCRIBE; filters and groups are proper. */
struct db__filters {
    uint64_t epoch;
    uint32_t generation;
    struct db_subscription *items; /* [op->count], from the arena */
};
CHR_MUST_USE chr_err db__filters_decode(const struct db__op *op, struct chr_arena *arena,
                                        struct db__filters *out);
CHR_MUST_USE chr_err db__message_decode(const struct db__op *op, struct db_publish *out);
struct db__queue_ack {
    uint64_t epoch;
    uint32_t generation;
    uint32_t done_count;   /* of the ranges, the first ones */
    const uint8_t *ranges; /* [op->count]; db__range_get */
};
CHR_MUST_USE chr_err db__queue_ack_decode(const struct db__op *op, struct db__queue_ack *out);
struct db_sequence_range db__range_get(const struct db__queue_ack *ack, uint32_t i);
/* Items of GUARDS or RELEASE; only the former may name wills (packet id 0). */
CHR_MUST_USE chr_err db__guards_check(chr_slice body, uint32_t count, bool wills);
struct db_guard db__guards_get(chr_slice body, uint32_t i);
CHR_MUST_USE chr_err db__reject_decode(const struct db__op *op, struct db_reject *out);
CHR_MUST_USE chr_err db__request_key_decode(chr_slice body, chr_slice *user, chr_slice *key);
CHR_MUST_USE chr_err db__grant_decode(chr_slice body, struct db_grant *grant, bool *revoke);
/* The protobuf of CREATE_TABLE and ALTER_TABLE. */
CHR_MUST_USE chr_err db__table_decode(chr_slice body, chr_slice *def);

#endif
