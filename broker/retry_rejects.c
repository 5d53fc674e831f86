/* broker/retry_rejects.c: what did not fit once may fit now: a column was added, a type widened.
 *
 * Rejects are read at one apply index, decoded like any message (their arrival time is that of the
 * first time) and stored in atomic entries that hold the rows and the deletion of the rejects they
 * came from: no crash can double or lose one. An entry that comes back stale (R9) or in conflict
 * (somebody else retried) is forgotten and the table read anew. */
#include "broker/retry_rejects.h"

#include <stdlib.h>
#include <string.h>

#include "broker/committer.h"
#include "broker/config.h"
#include "broker/ingest/ingest.h"
#include "broker/node.h"
#include "db/scan.h"

#define REJECTS_TABLE "chronos_rejects"
/* Rejects of one entry: bounds what is decoded in vain when it comes back stale. */
#define ENTRY_REJECTS_MAX 1024u
#define ROUNDS_MAX        16

enum { SLOT_TABLE, SLOT_TOPIC, SLOT_PAYLOAD, SLOT_RECEIVED_AT, SLOTS };
static const char *const slot_names[SLOTS] = {"reject_table", "topic", "payload", "received_at"};

struct round {
    struct broker_node *node;
    const struct db_table_def *table;
    const atomic_bool *cancel;
    ingest_mappings *mappings;
    ingest_decoder *decoder;
    struct db_entry entry;
    uint32_t rejects_table_id;
    struct db_row_id ids[ENTRY_REJECTS_MAX]; /* of the open entry's rejects */
    uint32_t ids_count;
    struct db_row_id row_ids[DB_VECTOR_ROWS];
    uint64_t retried, failed;
    bool again; /* an entry had no effect: read the table anew */
};

struct applied {
    chr_err err, op_err;
};

/* Applier thread. */
static void copy_applied(void *arg, const struct db_apply_result *result)
{
    struct applied *applied = arg;
    applied->err = result->err;
    for (uint32_t i = 0; i < result->ops_count && !applied->op_err; i++)
        if (result->ops[i].err != CHR_ECANCELLED)
            applied->op_err = result->ops[i].err;
}

/* Passes on the rows decoded so far together with the deletion of their rejects. */
static chr_err store(struct round *r, struct chr_errmsg *msg)
{
    if (r->ids_count == 0)
        return CHR_OK;
    db_entry_begin(&r->entry, DB_ENTRY_ATOMIC, ingest_mappings_version(r->mappings));
    ingest_flush(r->decoder, &r->entry);
    db_entry_add_delete(&r->entry, r->rejects_table_id, r->ids, r->ids_count);
    uint32_t count = r->ids_count;
    r->ids_count = 0;
    chr_err err = db_entry_end(&r->entry);
    struct applied applied = {0};
    if (!err)
        err = broker_propose_wait(r->node->committer, chr_buf_slice(&r->entry.bytes),
                                  r->node->cluster ? BROKER_ANSWER_TIMEOUT_MS : 0, copy_applied,
                                  &applied);
    if (err)
        return chr_fail(msg, err, "can't store retried messages: %s", chr_strerror(err));
    if (applied.err || applied.op_err)
        r->again = true;
    else
        r->retried += count;
    return CHR_OK;
}

static chr_slice text_at(const struct db_vector *v, uint32_t row)
{
    return db_vector_valid(v, row) ? v->str[db_vector_at(v, row)] : CHR_LIT("");
}

static chr_err retry_one(struct round *r, const struct db_vector *const *columns, uint32_t row,
                         struct chr_errmsg *msg)
{
    if (!chr_slice_eq(text_at(columns[SLOT_TABLE], row), chr_slice_cstr(r->table->name)))
        return CHR_OK;
    ingest_route *route = NULL;
    chr_err err = ingest_route_make(r->mappings, text_at(columns[SLOT_TOPIC], row), &route);
    if (err)
        return chr_fail(msg, err, "%s", chr_strerror(err));
    if (!route) { /* nothing is mapped to its topic now */
        r->failed++;
        return CHR_OK;
    }
    const struct db_vector *times = columns[SLOT_RECEIVED_AT];
    int64_t received_at_us = db_vector_valid(times, row) ? times->i64[db_vector_at(times, row)] : 0;
    chr_slice payload = text_at(columns[SLOT_PAYLOAD], row);
    struct ingest_reject why;
    err = ingest_decode(r->decoder, route, payload, received_at_us, UINT32_MAX, &why);
    if (err == CHR_EFULL) {
        err = store(r, msg);
        if (!err)
            err = ingest_decode(r->decoder, route, payload, received_at_us, UINT32_MAX, &why);
    }
    ingest_route_free(route);
    if (err == CHR_ENOMEM)
        return chr_fail(msg, err, "%s", chr_strerror(err));
    if (err) {
        r->failed++;
        return CHR_OK;
    }
    r->ids[r->ids_count++] = r->row_ids[row];
    return r->ids_count == ENTRY_REJECTS_MAX ? store(r, msg) : CHR_OK;
}

static chr_err retry_batch(struct round *r, db_reader *reader, const struct db_batch *batch,
                           struct chr_errmsg *msg)
{
    const struct db_vector *columns[SLOTS];
    chr_err err = db_reader_row_ids(reader, r->row_ids, msg);
    for (uint32_t i = 0; !err && i < SLOTS; i++)
        columns[i] = db_reader_column(reader, i, &err, msg);
    for (uint32_t i = 0; !err && !r->again && i < batch->sel_count; i++) {
        if (atomic_load_explicit(r->cancel, memory_order_relaxed))
            return CHR_ECANCELLED;
        err = retry_one(r, columns, batch->sel ? batch->sel[i] : i, msg);
    }
    return err;
}

static chr_err scan_rejects(struct round *r, db_read *read, struct chr_errmsg *msg)
{
    const struct db_table_def *rejects =
        db_catalog_find(db_read_catalog(read), CHR_LIT(REJECTS_TABLE));
    if (!rejects)
        return chr_fail(msg, CHR_ENOTFOUND, "there is no table " REJECTS_TABLE);
    r->rejects_table_id = rejects->id;
    uint16_t columns[SLOTS];
    for (uint32_t i = 0; i < SLOTS; i++) {
        int column = db_table_column(rejects, chr_slice_cstr(slot_names[i]));
        if (column < 0)
            return chr_fail(msg, CHR_ENOTFOUND, REJECTS_TABLE " has no column %s", slot_names[i]);
        columns[i] = (uint16_t)column;
    }
    db_scan *scan = NULL;
    db_reader *reader = NULL;
    chr_err err = db_scan_open(read, rejects, columns, SLOTS, NULL, 0, &scan);
    if (!err)
        err = db_reader_open(scan, &reader);
    struct db_morsel morsel;
    int more = 0;
    while (!err && !r->again && (more = db_reader_next_morsel(reader, &morsel, msg)) > 0) {
        struct db_batch batch;
        int rows = 0;
        while (!err && !r->again && (rows = db_reader_next_batch(reader, &batch, msg)) > 0)
            err = retry_batch(r, reader, &batch, msg);
        if (!err && rows < 0)
            err = rows;
    }
    if (!err && more < 0)
        err = more;
    if (!err && !r->again)
        err = store(r, msg);
    db_reader_close(reader);
    db_scan_close(scan);
    return err;
}

/* Under the mappings of now, the rejects of now. */
static chr_err one_round(struct round *r, struct chr_errmsg *msg)
{
    r->again = false;
    r->failed = 0;
    r->ids_count = 0;
    ingest_discard(r->decoder);
    const db_catalog *catalog = db_catalog_acquire(r->node->db);
    ingest_mappings *mappings = NULL;
    chr_err err = ingest_mappings_compile(catalog, &mappings);
    db_catalog_release(catalog);
    if (!err)
        err = ingest_decoder_use(r->decoder, mappings);
    db_read *read = NULL;
    if (!err)
        err = db_read_begin(r->node->db, &read);
    r->mappings = mappings;
    if (!err)
        err = scan_rejects(r, read, msg);
    db_read_end(read);
    ingest_discard(r->decoder);
    ingest_mappings_release(mappings);
    return err;
}

chr_err retry_rejects(struct broker_node *node, const struct db_table_def *table,
                      const atomic_bool *cancel, uint64_t *retried, uint64_t *failed,
                      struct chr_errmsg *msg)
{
    struct round *r = calloc(1, sizeof *r);
    chr_err err = r ? ingest_decoder_new(node->config->batch_bytes_max, &r->decoder) : CHR_ENOMEM;
    if (!err) {
        r->node = node;
        r->table = table;
        r->cancel = cancel;
        db_entry_init(&r->entry, DB_ENTRY_BYTES_MAX);
        int rounds = 0;
        do {
            err = one_round(r, msg);
        } while (!err && r->again && ++rounds < ROUNDS_MAX);
        if (!err && r->again)
            err = chr_fail(msg, CHR_ECONFLICT, "rejects or mappings kept changing meanwhile");
        *retried = r->retried;
        *failed = r->failed;
        db_entry_free(&r->entry);
        ingest_decoder_free(r->decoder);
    }
    free(r);
    return err;
}
