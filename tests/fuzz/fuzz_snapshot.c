/* tests/fuzz/fuzz_snapshot.c: parts of a snapshot from a stranger.
 *
 *     u16 length, bytes; u16 length, bytes; …      each the part after its head's first 12 bytes
 *
 * Magic, checksum and length are made right, and so are the checksums of the values in it, so that
 * what is behind them is reached (S5). The parts go to a receiver that stores and to one that does
 * not: both must say the same. When they are taken for a whole snapshot the store is opened, which
 * ends in a database, and a check of it, or in an error.
 * CHR_FUZZ_SEEDS=directory writes parts of a small snapshot as a corpus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "db/op.h"
#include "db/snapshot_format.h"
#include "db/value_crc.h"
#include "tests/sim/fake_kv.h"

#define KEPT_BYTES 12u /* of a head: magic, checksum, length */

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct chr_buf part;

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond))                                                                               \
            abort();                                                                               \
    } while (0)

/* -- Seeds --------------------------------------------------------------------------------------*/

static chr_err no_wait(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static chr_err describe(void *arg, uint64_t index, struct db_snapshot_origin *origin)
{
    (void)arg, (void)index;
    *origin = (struct db_snapshot_origin){.cluster = 1, .term = 1, .members = CHR_LIT("m")};
    return CHR_OK;
}

static void write_seed(const char *dir, db_snapshot *snapshot, uint32_t part_bytes)
{
    char path[512];
    struct chr_errmsg msg;
    snprintf(path, sizeof path, "%s/parts-of-%u", dir, part_bytes);
    FILE *f = fopen(path, "wb");
    REQUIRE(f);
    for (uint64_t i = 0; i < db_snapshot_info(snapshot)->parts; i++) {
        uint8_t length[2];
        REQUIRE(!db_snapshot_part(snapshot, i, &part, &msg));
        chr_put_u16le(length, (uint16_t)(part.len - KEPT_BYTES));
        REQUIRE(fwrite(length, 1, 2, f) == 2);
        REQUIRE(fwrite(part.ptr + KEPT_BYTES, 1, part.len - KEPT_BYTES, f) ==
                part.len - KEPT_BYTES);
    }
    fclose(f);
}

static void write_seeds(const char *dir)
{
    struct db_options options;
    struct chr_errmsg msg;
    struct db_apply_result result;
    struct db_entry entry;
    db *d;
    fake_kv *store = fake_kv_new(1);
    struct db_kv kv = fake_kv_seam(store);
    db_options_default(&options);
    REQUIRE(!db_open(&kv, &options, &d, &msg));
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    for (uint64_t index = 1; index <= 2; index++) {
        db_entry_begin(&entry, 0, 0);
        if (index == 1) {
            struct db_session_open open = {.client_id = CHR_LIT("c"), .expiry_s = 100};
            struct db_subscription sub = {.filter = CHR_LIT("a/#"), .qos = 1};
            db_entry_add_session_open(&entry, &open);
            db_entry_add_subscribe(&entry, 1, 1, &sub, 1);
        } else {
            db_entry_add_message(&entry, &(struct db_publish){.topic = CHR_LIT("a/b"),
                                                              .payload = CHR_LIT("x"),
                                                              .qos = 1,
                                                              .retain = true,
                                                              .expiry_s = UINT32_MAX,
                                                              .guard = UINT32_MAX});
            const db_catalog *catalog = db_catalog_acquire(d);
            struct db_rows_builder b;
            REQUIRE(!db_rows_init(&b, db_catalog_find(catalog, CHR_LIT("readings")), 1));
            REQUIRE(!db_rows_put_bytes(&b, 1, CHR_LIT("d")));
            REQUIRE(!db_rows_end(&b, 1, NULL));
            db_rows_finish(&b, DB_ROWS_INSERT, &entry);
            db_rows_free(&b);
            db_catalog_release(catalog);
        }
        REQUIRE(!db_entry_end(&entry));
        db_apply(d, index, (UINT64_C(1700000000000) + index) << 16, chr_buf_slice(&entry.bytes),
                 &result);
    }
    db_entry_free(&entry);
    REQUIRE(!db_checkpoint(d, DB_CHECKPOINT_REQUEST, no_wait, NULL, 0, &msg));
    static const uint32_t sizes[] = {64, 700, 65000};
    for (size_t i = 0; i < CHR_COUNT_OF(sizes); i++) {
        db_snapshot *snapshot;
        db__snapshot_limits.part_bytes = sizes[i];
        int fd = memfd_create("spool", MFD_CLOEXEC);
        REQUIRE(!db_snapshot_begin(d, fd, describe, NULL, &snapshot, &msg));
        write_seed(dir, snapshot, sizes[i]);
        db_snapshot_end(snapshot);
    }
    db_close(d);
    fake_kv_free(store);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *dir = getenv("CHR_FUZZ_SEEDS");
    (void)argc;
    (void)argv;
    chr_log_set_level(CHR_LOG_ERROR + 1);
    chr_buf_init(&part, DB_SNAPSHOT_PART_BYTES_MAX);
    if (dir) {
        write_seeds(dir);
        exit(0);
    }
    return 0;
}

/* -- One input ----------------------------------------------------------------------------------*/

/* Checksums of the values, as far as the records make sense. */
static void seal_values(uint8_t *body, size_t len)
{
    size_t at = 0;
    chr_slice key, value;
    while (db__snapshot_record_next(chr_slice_of(body, len), &at, &key, &value) > 0)
        if (value.len >= DB_VALUE_HEAD_BYTES)
            chr_put_u32le(body + (value.ptr - body), chr_crc32c(0, value.ptr + 4, value.len - 4));
}

static void make_part(const uint8_t *bytes, size_t len)
{
    static const uint8_t zeros[DB_SNAPSHOT_HEAD_BYTES];
    chr_buf_reset(&part);
    chr_buf_add(&part, zeros, KEPT_BYTES);
    chr_buf_add(&part, bytes, len);
    if (part.len < DB_SNAPSHOT_HEAD_BYTES)
        chr_buf_add(&part, zeros, DB_SNAPSHOT_HEAD_BYTES - part.len);
    uint8_t *p = part.ptr;
    if (p[12] == DB__SNAPSHOT_RECORDS)
        seal_values(p + DB_SNAPSHOT_HEAD_BYTES, part.len - DB_SNAPSHOT_HEAD_BYTES);
    chr_put_u32le(p, DB__SNAPSHOT_MAGIC);
    chr_put_u32le(p + 8, (uint32_t)part.len);
    chr_put_u32le(p + 4, chr_crc32c(0, p + 8, part.len - 8));
}

static void open_it(const struct db_kv *kv)
{
    struct db_options options;
    struct chr_errmsg msg;
    uint64_t findings;
    db *d;
    db_options_default(&options);
    if (db_open(kv, &options, &d, &msg))
        return;
    (void)!db_check(d, NULL, NULL, &findings);
    db_close(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct chr_errmsg msg;
    db_snapshot_receiver *stores, *looks;
    fake_kv *store = fake_kv_new(1);
    struct db_kv kv = fake_kv_seam(store);
    fake_kv_faults(store)->no_poison = true;
    db__snapshot_limits.commit_bytes = 200;
    REQUIRE(!db_snapshot_receiver_begin(&kv, &stores, &msg));
    REQUIRE(!db_snapshot_receiver_begin(NULL, &looks, &msg));
    while (len >= 2) {
        size_t part_len = CHR_MIN((size_t)chr_get_u16le(data), len - 2);
        make_part(data + 2, part_len);
        data += 2 + part_len;
        len -= 2 + part_len;
        REQUIRE(db_snapshot_part_bytes(part.ptr) == part.len);
        chr_err a = db_snapshot_receiver_put(stores, chr_buf_slice(&part), &msg);
        chr_err b = db_snapshot_receiver_put(looks, chr_buf_slice(&part), &msg);
        REQUIRE(a == b);
        REQUIRE(db_snapshot_receiver_next(stores) == db_snapshot_receiver_next(looks));
        if (a || len % 3)
            continue;
        db_snapshot_receiver_end(stores); /* from what was committed on */
        REQUIRE(!db_snapshot_receiver_begin(&kv, &stores, &msg));
        if (db_snapshot_receiver_next(stores) != db_snapshot_receiver_next(looks))
            break;
    }
    chr_err a = db_snapshot_receiver_finish(stores, &msg);
    chr_err b = db_snapshot_receiver_finish(looks, &msg);
    REQUIRE(a == b || db_snapshot_receiver_next(stores) != db_snapshot_receiver_next(looks));
    db_snapshot_receiver_end(stores);
    db_snapshot_receiver_end(looks);
    if (!a)
        open_it(&kv);
    fake_kv_free(store);
    return 0;
}
