/* tests/fuzz/fuzz_op.c: entries of anybody's making, applied to a small database.
 *
 * The first byte says whether a checkpoint follows; the rest is the entry. Whatever it holds, apply
 * answers, the tables can be read, and the store checks clean. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "db/db.h"
#include "db/op.h"
#include "db/scan.h"
#include "tests/sim/fake_kv.h"

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static void create_table(struct db_entry *entry)
{
    struct db_column_def columns[4] = {{.type = DB_STRING, .name = "s"},
                                       {.type = DB_TIMESTAMP, .name = "ts"},
                                       {.type = DB_INT, .name = "v"},
                                       {.type = DB_BLOB, .name = "b"}};
    struct db_table_def t = {
        .name = "t", .columns = columns, .columns_count = 4, .key_count = 2, .key_columns = {0, 1}};
    REQUIRE(!db_table_def_complete(&t, NULL));
    REQUIRE(!db_entry_add_create_table(entry, &t, false));
}

static void put_rows(struct db *d, struct db_entry *entry)
{
    const db_catalog *catalog = db_catalog_acquire(d);
    struct db_rows_builder b;
    REQUIRE(!db_rows_init(&b, db_catalog_find(catalog, CHR_LIT("t")), 8));
    for (int i = 0; i < 4; i++) {
        REQUIRE(!db_rows_put_bytes(&b, 0, CHR_LIT("dev")));
        db_rows_put_i64(&b, 1, i);
        db_rows_put_i64(&b, 2, i);
        REQUIRE(!db_rows_end(&b, i, NULL));
    }
    db_rows_finish(&b, DB_ROWS_MERGE, entry);
    db_rows_free(&b);
    db_catalog_release(catalog);
}

static void read_all(struct db *d)
{
    db_read *read;
    struct chr_errmsg msg;
    REQUIRE(!db_read_begin(d, &read));
    const db_catalog *catalog = db_read_catalog(read);
    for (size_t i = 0; i < db_catalog_tables_count(catalog); i++) {
        const struct db_table_def *def = db_catalog_table_at(catalog, i);
        uint16_t columns[DB_COLUMNS_MAX + 2];
        uint32_t count = (uint32_t)def->columns_count + 2;
        db_scan *scan;
        db_reader *reader;
        struct db_morsel m;
        struct db_batch b;
        for (uint16_t c = 0; c < count; c++)
            columns[c] = c;
        REQUIRE(!db_scan_open(read, def, columns, count, NULL, 0, &scan));
        REQUIRE(!db_reader_open(scan, &reader));
        while (db_reader_next_morsel(reader, &m, &msg) > 0)
            while (db_reader_next_batch(reader, &b, &msg) > 0)
                for (uint32_t c = 0; c < count; c++) {
                    chr_err err;
                    REQUIRE(db_reader_column(reader, c, &err, &msg));
                }
        db_reader_close(reader);
        db_scan_close(scan);
    }
    db_read_end(read);
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct db_options options;
    struct db_apply_result r;
    struct chr_errmsg msg;
    struct db_entry entry;
    db *d;
    if (size == 0)
        return 0;
    chr_log_set_level(CHR_LOG_ERROR);
    fake_kv *store = fake_kv_new(1);
    struct db_kv kv = fake_kv_seam(store);
    db_options_default(&options);
    options.chunk_rows_max = 64;
    REQUIRE(!db_open(&kv, &options, &d, &msg));
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&entry, 0, 0);
    create_table(&entry);
    db_entry_add_session_open(
        &entry, &(struct db_session_open){.client_id = CHR_LIT("c"), .expiry_s = 100});
    REQUIRE(!db_entry_end(&entry));
    db_apply(d, 1, 1 << 16, chr_buf_slice(&entry.bytes), &r);
    db_entry_begin(&entry, 0, 0);
    put_rows(d, &entry);
    REQUIRE(!db_entry_end(&entry));
    db_apply(d, 2, 2 << 16, chr_buf_slice(&entry.bytes), &r);
    if (data[0] & 1)
        REQUIRE(!db_checkpoint(d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, &msg));
    db_apply(d, 3, 3 << 16, chr_slice_of(data + 1, size - 1), &r);
    read_all(d);
    if (data[0] & 2)
        REQUIRE(!db_checkpoint(d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, &msg));
    read_all(d);
    uint64_t findings;
    REQUIRE(!db_check(d, NULL, NULL, &findings) && findings == 0);
    db_entry_free(&entry);
    db_close(d);
    fake_kv_free(store);
    return 0;
}
