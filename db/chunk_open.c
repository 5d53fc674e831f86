/* db/chunk_open.c: one chunk open for single rows. */
#include "db/chunk_open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/store.h"

#define HEAD_BIT 63 /* as in reader_chunk.c */

/* -- What is damaged ----------------------------------------------------------------------------*/

static const char *column_name(const struct db_table_def *def, uint32_t column)
{
    switch (column) {
    case DB_COLUMN_RECEIVED_AT:
        return "_received_at";
    case DB_COLUMN_HLC:
        return "_hlc";
    case DB_COLUMN_ENTRY:
        return "_entry"; /* not to be selected; but it is a row's id that cannot be read */
    case DB_COLUMN_ORDINAL:
        return "_ordinal";
    }
    for (uint16_t i = 0; def && i < def->columns_count; i++)
        if (def->columns[i].id == column)
            return def->columns[i].name;
    return NULL;
}

chr_err db__chunk_damaged(chr_err err, const struct db_table_def *def,
                          const struct db__chunk *chunk, uint32_t column, struct chr_errmsg *msg)
{
    if ((err != CHR_ECORRUPT && err != CHR_EVERSION) || !msg)
        return err;
    char of[40] = "", table[DB_NAME_BYTES_MAX + 16];
    struct chr_errmsg was = *msg;
    const char *name = column_name(def, column);
    if (def)
        snprintf(table, sizeof table, "\"%s\"", def->name);
    else
        snprintf(table, sizeof table, "%u", chunk->table_id);
    if (column != DB__COLUMN_NONE && !name)
        snprintf(of, sizeof of, ", column %u", column);
    return chr_fail(msg, err, "table %s, chunk %llu%s%s%s: %s", table,
                    (unsigned long long)chunk->id, name ? ", column \"" : of, name ? name : "",
                    name ? "\"" : "", was.text);
}

chr_err db__chunk_damaged_in(chr_err err, struct db *d, const struct db__chunk *chunk,
                             uint32_t column, struct chr_errmsg *msg)
{
    if (err != CHR_ECORRUPT && err != CHR_EVERSION)
        return err;
    const db_catalog *catalog = db_catalog_acquire(d);
    err = db__chunk_damaged(err, db_catalog_find_id(catalog, chunk->table_id), chunk, column, msg);
    db_catalog_release(catalog);
    return err;
}

/* -- Open ---------------------------------------------------------------------------------------*/

void db__chunk_open_close(struct db__chunk_open *o)
{
    o->chunk = NULL;
    o->txn = NULL;
    o->columns_count = 0;
}

void db__chunk_open_free(struct db__chunk_open *o)
{
    for (uint32_t i = 0; i < o->columns_capacity && o->columns[i]; i++) {
        db_chunk_column_free(o->columns[i]->column);
        free(o->columns[i]);
    }
    free(o->columns);
    db_chunk_head_free(o->head);
    memset(o, 0, sizeof *o);
}

chr_err db__chunk_open(struct db *d, struct db__chunk_open *o, db_kv_txn *txn,
                       struct db__chunk *chunk, struct chr_errmsg *msg)
{
    chr_slice value;
    db__chunk_open_close(o);
    chr_err err = o->head ? CHR_OK : db_chunk_head_new(&o->head);
    if (!err)
        err = db__store_part(&d->kv, txn, chunk->id, DB_CHUNK_HEAD, 0, &value, msg);
    bool verified = atomic_load_explicit(&chunk->verified, memory_order_relaxed) >> HEAD_BIT & 1;
    if (!err)
        err = db_chunk_head_open(o->head, value, !verified, msg);
    if (!err && db_chunk_head_info(o->head)->rows != chunk->rows)
        err = chr_fail(msg, CHR_ECORRUPT, "it is not the one its record describes");
    if (err)
        return db__chunk_damaged_in(err, d, chunk, DB__COLUMN_NONE, msg);
    atomic_fetch_or_explicit(&chunk->verified, UINT64_C(1) << HEAD_BIT, memory_order_relaxed);
    o->chunk = chunk;
    o->txn = txn;
    return CHR_OK;
}

static chr_err column_open(struct db *d, struct db__chunk_open *o, uint16_t id,
                           struct db__chunk_open_column **out, struct chr_errmsg *msg)
{
    for (uint32_t i = 0; i < o->columns_count; i++)
        if (o->columns[i]->id == id) {
            *out = o->columns[i];
            return CHR_OK;
        }
    if (o->columns_count == o->columns_capacity) {
        uint32_t capacity = o->columns_capacity ? o->columns_capacity * 2 : 8;
        void *columns = realloc(o->columns, capacity * sizeof *o->columns);
        if (!columns)
            return CHR_ENOMEM;
        o->columns = columns;
        memset(o->columns + o->columns_capacity, 0,
               (capacity - o->columns_capacity) * sizeof *o->columns);
        o->columns_capacity = capacity;
    }
    struct db__chunk_open_column *c = o->columns[o->columns_count];
    if (!c && !(c = o->columns[o->columns_count] = calloc(1, sizeof *c)))
        return CHR_ENOMEM;
    int at = db_chunk_head_find(o->head, id);
    c->block = UINT32_MAX;
    c->there = at >= 0;
    if (c->there) {
        chr_slice value;
        uint16_t stored = db_chunk_head_stored_in(o->head, (uint32_t)at);
        bool known = at < HEAD_BIT;
        bool verified =
            known && (atomic_load_explicit(&o->chunk->verified, memory_order_relaxed) >> at & 1);
        chr_err err = c->column ? CHR_OK : db_chunk_column_new(&c->column);
        if (!err)
            err =
                db__store_part(&d->kv, o->txn, o->chunk->id, DB_CHUNK_COLUMN, stored, &value, msg);
        if (!err)
            err = db_chunk_column_open(c->column, o->head, (uint32_t)at, value, !verified, msg);
        if (err)
            return db__chunk_damaged_in(err, d, o->chunk, id, msg);
        if (known)
            atomic_fetch_or_explicit(&o->chunk->verified, UINT64_C(1) << at, memory_order_relaxed);
    }
    c->id = id;
    o->columns_count++;
    *out = c;
    return CHR_OK;
}

chr_err db__chunk_open_decode(struct db *d, struct db__chunk_open *o, uint16_t id, uint32_t block,
                              const struct db_vector **vector, struct chr_errmsg *msg)
{
    struct db__chunk_open_column *c = NULL;
    chr_err err = column_open(d, o, id, &c, msg);
    *vector = NULL;
    if (err || !c || !c->there)
        return err;
    if (c->block != block) {
        c->block = UINT32_MAX;
        err = db_chunk_column_decode(c->column, block, &c->vector, msg);
        if (err)
            return db__chunk_damaged_in(err, d, o->chunk, id, msg);
        c->block = block;
    }
    *vector = &c->vector;
    return CHR_OK;
}

struct db_value db__vector_value(const struct db_vector *v, uint32_t row)
{
    struct db_value out = {.type = v->type, .null = !db_vector_valid(v, row)};
    uint32_t at = db_vector_at(v, row);
    if (out.null)
        return out;
    if (db_type_is_bytes(v->type))
        out.bytes = v->str[at];
    else if (v->type == DB_BOOLEAN)
        out.boolean = v->b8[at];
    else
        out.i64 = v->i64[at];
    return out;
}

chr_err db__chunk_open_value(struct db *d, struct db__chunk_open *o, uint16_t id, enum db_type type,
                             uint32_t row, struct db_value *value, struct chr_errmsg *msg)
{
    const struct db_vector *v;
    chr_err err = db__chunk_open_decode(d, o, id, row / DB_VECTOR_ROWS, &v, msg);
    *value = (struct db_value){.type = type, .null = true};
    if (!err && v)
        *value = db__vector_value(v, row % DB_VECTOR_ROWS);
    return err;
}
