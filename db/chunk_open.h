/* db/chunk_open.h: one chunk open for looking at single rows or for taking all of it, within a
 * transaction of the caller's. For apply (chunk_find.c) and the sealer; scans have reader_chunk.c.
 */
#ifndef CHR_DB_CHUNK_OPEN_H
#define CHR_DB_CHUNK_OPEN_H

#include "db/chunk.h"
#include "db/internal.h"
#include "db/kv.h"

struct db__chunk_open {
    struct db__chunk *chunk; /* NULL: none */
    db_kv_txn *txn;          /* borrowed */
    db_chunk_head *head;
    /* By first use; each an allocation of its own, so that vectors stay where they are. */
    struct db__chunk_open_column {
        uint16_t id;
        bool there; /* the chunk has the column */
        uint32_t block;
        db_chunk_column *column;
        struct db_vector vector;
    } * *columns;
    uint32_t columns_count, columns_capacity;
};

/* Puts in front of the message of CHR_ECORRUPT or CHR_EVERSION which table, chunk and column was
 * read; returns err. def: NULL when only the table's id is at hand. column: its id, or
 * DB__COLUMN_NONE where it is about the chunk as a whole. */
#define DB__COLUMN_NONE UINT32_MAX
chr_err db__chunk_damaged(chr_err err, const struct db_table_def *def,
                          const struct db__chunk *chunk, uint32_t column, struct chr_errmsg *msg);
/* The same, by the table's present definition. */
chr_err db__chunk_damaged_in(chr_err err, struct db *d, const struct db__chunk *chunk,
                             uint32_t column, struct chr_errmsg *msg);

/* Opens another chunk, forgetting the one before; nothing of it may be in use. */
CHR_MUST_USE chr_err db__chunk_open(struct db *d, struct db__chunk_open *open, db_kv_txn *txn,
                                    struct db__chunk *chunk, struct chr_errmsg *msg);
/* Forgets the chunk; keeps buffers. */
void db__chunk_open_close(struct db__chunk_open *open);
void db__chunk_open_free(struct db__chunk_open *open);

/* The block of a column, decoded; *vector NULL when the chunk does not have the column. It lives
 * until another block of the same column is asked for. */
CHR_MUST_USE chr_err db__chunk_open_decode(struct db *d, struct db__chunk_open *open, uint16_t id,
                                           uint32_t block, const struct db_vector **vector,
                                           struct chr_errmsg *msg);
/* One value; bytes live as the vector does. */
CHR_MUST_USE chr_err db__chunk_open_value(struct db *d, struct db__chunk_open *open, uint16_t id,
                                          enum db_type type, uint32_t row, struct db_value *value,
                                          struct chr_errmsg *msg);
/* A value of a vector. */
struct db_value db__vector_value(const struct db_vector *vector, uint32_t row);

#endif
