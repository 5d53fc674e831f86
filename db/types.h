/* db/types.h: the types of values and the vectors in which they travel.
 *
 * Rows never exist one by one: from the decoder of a payload to the result of a query, values sit
 * in arrays of one type with a validity bitmap beside them. */
#ifndef CHR_DB_TYPES_H
#define CHR_DB_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/slice.h"

/* Numbers are stored: never renumber. */
enum db_type {
    DB_INT = 1,       /* 64-bit signed */
    DB_FLOAT = 2,     /* IEEE 754 double, NaN and -0.0 included */
    DB_BOOLEAN = 3,   /* 0 or 1 */
    DB_TIMESTAMP = 4, /* microseconds since 1970 UTC, signed */
    DB_STRING = 5,    /* UTF-8 without U+0000 */
    DB_BLOB = 6,
};
#define DB_TYPES_END 7

CHR_INLINE bool db_type_is_bytes(enum db_type t)
{
    return t == DB_STRING || t == DB_BLOB;
}
/* "INT", "FLOAT", … as answers name them. Static. */
const char *db_type_name(enum db_type type);

/* A single value, for constants, statistics and defaults. */
struct db_value {
    enum db_type type;
    bool null;
    union {
        int64_t i64; /* INT, TIMESTAMP */
        double f64;
        bool boolean;
        chr_slice bytes; /* STRING, BLOB; owner as the context says */
    };
};

/* Values an executor handles at a time. 2,048 doubles are 16 KiB: a few columns fit the L1/L2
 * cache, and a selection index fits 16 bits. */
#define DB_VECTOR_ROWS 2048

enum db_vector_form {
    DB_VECTOR_FLAT,     /* data[row] */
    DB_VECTOR_CONSTANT, /* data[0] for every row; validity bit 0 */
    DB_VECTOR_DICT,     /* data[codes[row]]; validity is per row, codes of NULL rows are 0 */
};

/* One column of a batch. Everything it points to belongs to whoever produced the vector and lives
 * until that producer's next batch. */
struct db_vector {
    enum db_type type;
    enum db_vector_form form;
    uint32_t count;      /* rows */
    uint32_t dict_count; /* DICT: entries in data */
    uint64_t *validity;  /* bit (row & 63) of word (row >> 6): 1 = not NULL. NULL: no NULLs */
    union {
        void *data;
        int64_t *i64; /* INT, TIMESTAMP */
        double *f64;
        uint8_t *b8;    /* BOOLEAN: 0 or 1 */
        chr_slice *str; /* STRING, BLOB */
    };
    uint16_t *codes; /* DICT */
    /* DICT: identifies the dictionary (chunk and column), so that a consumer may cache what it
     * computed per entry while the id stays the same; 0: do not cache. */
    uint64_t dict_id;
};

CHR_INLINE bool db_bit_get(const uint64_t *bits, uint32_t i)
{
    return (bits[i >> 6] >> (i & 63)) & 1;
}
CHR_INLINE void db_bit_set(uint64_t *bits, uint32_t i)
{
    bits[i >> 6] |= UINT64_C(1) << (i & 63);
}
CHR_INLINE void db_bit_clear(uint64_t *bits, uint32_t i)
{
    bits[i >> 6] &= ~(UINT64_C(1) << (i & 63));
}
#define DB_BIT_WORDS(count) (((size_t)(count) + 63) / 64)

CHR_INLINE bool db_vector_valid(const struct db_vector *v, uint32_t row)
{
    return !v->validity || db_bit_get(v->validity, v->form == DB_VECTOR_CONSTANT ? 0 : row);
}
/* Where in data the value of a row is. */
CHR_INLINE uint32_t db_vector_at(const struct db_vector *v, uint32_t row)
{
    return v->form == DB_VECTOR_FLAT ? row : v->form == DB_VECTOR_DICT ? v->codes[row] : 0;
}

/* Logical identity of a row: the same on every node, never a position in a file (design 1). */
struct db_row_id {
    uint64_t entry;   /* log index of the entry that inserted it */
    uint32_t ordinal; /* row within that entry, counted over all its operations */
};

#endif
