/* tests/fuzz/fuzz_ingest.c: payloads and topics from anyone, against tables of every shape.
 *
 * Input: one byte picks the route, one a guard; a topic up to the first zero byte for route 0; the
 * rest is the payload. Beyond "no crash": a reject leaves the batch as it was (I1) and has a reason
 * in proper UTF-8; JSON for route 1 and 2 is accepted exactly when the plain twin accepts it, with
 * the same rows. */
#include "tests/broker/ingest/naive.h"

#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const tables[] = {
    "all (line INT, i INT, f FLOAT, b BOOLEAN, t TIMESTAMP, s STRING, raw BLOB, \"g.lat\" FLOAT, "
    "\"g.in.n\" INT, g STRING, \"Temp\" FLOAT, temp INT) TOPIC all/{line}/+ FORMAT json",
    "env (site STRING, device_id STRING, ts TIMESTAMP, temp FLOAT, humidity FLOAT) "
    "TOPIC farm/{site}/{device_id}/env FORMAT json",
    "log (id STRING, msg STRING NOT NULL) TOPIC log/{id} TOPIC both",
    "num (id STRING, v FLOAT) TOPIC num/{id} TOPIC both FORMAT number",
    "raw (id STRING, b BLOB) TOPIC raw/{id} FORMAT text",
    "readings (reading_id STRING, device_id STRING, ts TIMESTAMP, seq INT, metric STRING, value "
    "FLOAT) "
    "TOPIC sensors/{device_id}/{metric} TOPIC sensors/{device_id} TOPIC both",
    "table_csv (id INT, ts TIMESTAMP, f FLOAT, n INT, s STRING, raw BLOB, b BOOLEAN) TOPIC "
    "csv/{id} "
    "FORMAT csv",
};
static const char *const topics[] = {NULL,    "all/7/x",   "farm/a/b/env",   "log/a", "num/a",
                                     "raw/a", "sensors/a", "sensors/a/temp", "csv/7", "both"};

static struct helper h;
static ingest_route *routes[CHR_COUNT_OF(topics)];
static struct naive naive;

static void prepare(void)
{
    for (size_t i = 0; i < CHR_COUNT_OF(tables); i++)
        helper_add_table(&h, tables[i]);
    helper_compile(&h, 1 << 20);
    for (size_t i = 1; i < CHR_COUNT_OF(topics); i++)
        CHR_ASSERT(ingest_route_make(h.mappings, chr_slice_cstr(topics[i]), &routes[i]) == CHR_OK);
}

static const struct db_table_def *table_named(const char *name)
{
    for (uint32_t i = 0; i < h.tables_count; i++)
        if (strcmp(h.tables[i]->name, name) == 0)
            return h.tables[i];
    abort();
}

/* Room for numbers the twin writes out in full is bounded: longer ones are not compared. */
static bool comparable(chr_slice payload)
{
    size_t digits = 0, nodes = 0;
    for (size_t i = 0; i < payload.len; i++) {
        nodes += payload.ptr[i] == ',' || payload.ptr[i] == '{' || payload.ptr[i] == '[' ||
                 payload.ptr[i] == ':';
        digits = isdigit(payload.ptr[i]) || payload.ptr[i] == '.' ? digits + 1 : 0;
        if (digits > 900)
            return false;
        if ((payload.ptr[i] | 0x20) == 'e' && i + 4 < payload.len) {
            size_t n = 0;
            for (size_t k = i + 2; k < payload.len && isdigit(payload.ptr[k]); k++)
                n++;
            if (n > 2)
                return false; /* 1e-400 and beyond: tested by hand */
        }
    }
    return nodes < 10000 && payload.len < 60000;
}

static void compare(size_t which, chr_slice payload, chr_err err, uint64_t unknown)
{
    static struct helper_text rows;
    const struct db_table_def *table = table_named(which == 1 ? "all" : "env");
    bool good = naive_decode(&naive, table, routes[which], payload);
    CHR_ASSERT(good == (err == CHR_OK));
    if (!good)
        return;
    rows.len = 0;
    helper_adds(&rows, "");
    helper_add_pending(&rows, &h);
    CHR_ASSERT(strcmp(rows.ptr, naive.rows.ptr) == 0);
    CHR_ASSERT(unknown == naive.unknown);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!h.mappings)
        prepare();
    if (size < 2)
        return 0;
    size_t which = data[0] % CHR_COUNT_OF(topics);
    uint32_t guard = data[1] < 128 ? UINT32_MAX : data[1] - 128u;
    data += 2;
    size -= 2;
    ingest_route *own = NULL, *route = routes[which];
    if (which == 0) {
        size_t topic_len = strnlen((const char *)data, size);
        CHR_ASSERT(ingest_route_make(h.mappings, chr_slice_of(data, topic_len), &own) == CHR_OK);
        route = own;
        data += topic_len;
        size -= topic_len;
        if (!route)
            return 0;
    }
    /* A block of its own, so that ASan sees a byte too far. */
    uint8_t *payload = malloc(size ? size : 1);
    if (size)
        memcpy(payload, data, size);
    chr_slice bytes = chr_slice_of(payload, size);
    struct ingest_reject why = {0};
    uint64_t unknown = ingest_unknown_keys(h.decoder);
    chr_err err = ingest_decode(h.decoder, route, bytes, HELPER_ARRIVAL, guard, &why);
    if (err) {
        CHR_ASSERT(err != CHR_EFULL && err != CHR_ENOMEM);
        CHR_ASSERT(ingest_pending_rows(h.decoder) == 0 && ingest_pending_bytes(h.decoder) == 0);
        CHR_ASSERT(why.table_id >= 100 && why.reason.text[0]);
        CHR_ASSERT(strlen(why.reason.text) < sizeof why.reason.text - 1);
        CHR_ASSERT(chr_utf8_valid_mqtt(chr_slice_cstr(why.reason.text)));
    }
    if ((which == 1 || which == 2) && guard == UINT32_MAX && comparable(bytes))
        compare(which, bytes, err, ingest_unknown_keys(h.decoder) - unknown);
    struct db_entry entry;
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&entry, 0, 7);
    ingest_flush(h.decoder, &entry);
    CHR_ASSERT(db_entry_end(&entry) == CHR_OK);
    CHR_ASSERT(!err || entry.ops_count == 0);
    db_entry_free(&entry);
    ingest_route_free(own);
    free(payload);
    return 0;
}
