/* What databases have. */
#include "db/digest.h"
#include "db/durable.h"
#include "db/scan.h"
#include "tests/sim/session_life/world.h"

static bool count_batch(struct world *w, db_reader *reader, const struct db_batch *batch,
                        uint32_t *rows)
{
    struct chr_errmsg msg = {{0}};
    chr_err err = CHR_OK;
    struct db_vector *id = db_reader_column(reader, 0, &err, &msg);
    for (uint32_t i = 0; id && i < batch->sel_count; i++) {
        uint32_t row = batch->sel ? batch->sel[i] : i;
        uint32_t number = model_number(id->str[db_vector_at(id, row)]);
        if (number == 0 || number >= w->messages_count)
            return false;
        rows[number]++;
    }
    return id != NULL;
}

bool compare_count_rows(struct world *w, struct db *d, uint32_t *rows)
{
    db_read *read = NULL;
    db_scan *scan = NULL;
    db_reader *reader = NULL;
    struct chr_errmsg msg = {{0}};
    bool ok = db_read_begin(d, &read) == CHR_OK;
    const struct db_table_def *table =
        ok ? db_catalog_find(db_read_catalog(read), CHR_LIT("readings")) : NULL;
    uint16_t column = table ? (uint16_t)db_table_column(table, CHR_LIT("reading_id")) : 0;
    ok = table && db_scan_open(read, table, &column, 1, NULL, 0, &scan) == CHR_OK &&
         db_reader_open(scan, &reader) == CHR_OK;
    struct db_morsel morsel;
    int more = 0;
    while (ok && (more = db_reader_next_morsel(reader, &morsel, &msg)) > 0) {
        struct db_batch batch;
        int some = 0;
        while (ok && (some = db_reader_next_batch(reader, &batch, &msg)) > 0)
            ok = count_batch(w, reader, &batch, rows);
        ok = ok && some == 0;
    }
    ok = ok && more == 0;
    db_reader_close(reader);
    db_scan_close(scan);
    db_read_end(read);
    return ok;
}

static bool take_number(void *arg, struct db_message *message)
{
    *(uint32_t *)arg = model_number(message->payload);
    return false;
}

uint32_t compare_retained(struct world *w, struct db *d, chr_slice topic)
{
    uint32_t number = 0;
    db_retained_read(d, topic, log_time_us(w), take_number, &number);
    return number;
}

static void add(uint64_t *sum, const struct db_digest *d)
{
    *sum = (*sum ^ d->count) * 0x9e3779b97f4a7c15 + d->sum;
}

uint64_t compare_digest(struct world *w, struct db *d)
{
    struct chr_errmsg msg = {{0}};
    struct db_digest digest = {0};
    uint64_t sum = 1;
    db_read *read = NULL;
    static const char *const tables[] = {"readings", "chronos_rejects"};
    if (db_read_begin(d, &read) != CHR_OK) {
        life_broken(w, "no memory to read");
        return 0;
    }
    for (size_t i = 0; i < CHR_COUNT_OF(tables); i++) {
        const struct db_table_def *t =
            db_catalog_find(db_read_catalog(read), chr_slice_cstr(tables[i]));
        if (!t || db_digest_table(read, t, &digest, &msg))
            life_broken(w, "S6: table %s can't be read: %s", tables[i], msg.text);
        add(&sum, &digest);
    }
    db_read_end(read);
    if (db_digest_sessions(d, &digest, &msg))
        life_broken(w, "S6: sessions can't be read: %s", msg.text);
    add(&sum, &digest);
    db_digest_retained(d, &digest);
    add(&sum, &digest);
    return sum;
}
