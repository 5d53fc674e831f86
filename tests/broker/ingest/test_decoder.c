/* The batch around the messages: limits, all or nothing, guards, flushing, memory. */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "db/op_format.h"
#include "tests/broker/ingest/helper.h"

static struct helper h;
static ingest_route *route;
static struct ingest_reject why;

static void begin(const char *table, const char *topic, size_t bytes_max)
{
    helper_add_table(&h, table);
    helper_compile(&h, bytes_max);
    assert_int_equal(ingest_route_make(h.mappings, chr_slice_cstr(topic), &route), CHR_OK);
    assert_non_null(route);
}

static void end(void)
{
    ingest_route_free(route);
    helper_free(&h);
}

static chr_err decode(const char *payload, uint32_t guard)
{
    return ingest_decode(h.decoder, route, chr_slice_cstr(payload), HELPER_ARRIVAL, guard, &why);
}

static char *pending(void)
{
    struct helper_text t = {0};
    helper_adds(&t, "");
    helper_add_pending(&t, &h);
    return t.ptr;
}

/* Flushes and returns the number of operations; the entry has all rows that were pending. */
static uint32_t flush(size_t *bytes)
{
    struct db_entry entry;
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&entry, 0, ingest_mappings_version(h.mappings));
    ingest_flush(h.decoder, &entry);
    assert_int_equal(db_entry_end(&entry), CHR_OK);
    if (bytes)
        *bytes = entry.bytes.len;
    uint32_t ops = entry.ops_count;
    db_entry_free(&entry);
    assert_int_equal(ingest_pending_rows(h.decoder), 0);
    assert_int_equal(ingest_pending_bytes(h.decoder), 0);
    return ops;
}

/* The batch is full: nothing is added, and after a flush the same message fits. */
static void test_full(void **state)
{
    begin("t (id STRING, v FLOAT, s STRING) TOPIC t/{id}", "t/a", 2000);
    static const char message[] = "{\"v\":1.5,\"s\":\"a string of thirty-odd characters\"}";
    unsigned messages = 0;
    chr_err err;
    while ((err = decode(message, UINT32_MAX)) == CHR_OK)
        messages++;
    assert_int_equal(err, CHR_EFULL);
    assert_true(messages > 10 && messages < 50);
    assert_int_equal(ingest_pending_rows(h.decoder), messages);
    size_t bytes = ingest_pending_bytes(h.decoder);
    assert_true(bytes <= 2000 && bytes > 1900);
    assert_int_equal(decode("[{\"v\":1},{\"v\":2},{\"v\":3},{\"v\":4}]", UINT32_MAX), CHR_EFULL);
    assert_int_equal(ingest_pending_rows(h.decoder), messages);
    assert_int_equal(ingest_pending_bytes(h.decoder), bytes);
    size_t entry_bytes;
    assert_int_equal(flush(&entry_bytes), 1);
    assert_true(entry_bytes < 2000 + 16);
    assert_int_equal(decode(message, UINT32_MAX), CHR_OK);
    flush(NULL);
    end();
}

/* The entry has other things in it: rows have what is left, an empty decoder, too. */
static void test_room(void **state)
{
    begin("t (id STRING, v FLOAT, s STRING) TOPIC t/{id}", "t/a", 1u << 20);
    static char payload[3 << 20];
    sprintf(payload, "{\"s\":\"%01000000d\"}", 0);
    ingest_decoder_room(h.decoder, 1000000);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_EFULL);
    assert_int_equal(ingest_pending_rows(h.decoder), 0);
    assert_int_equal(ingest_pending_bytes(h.decoder), 0);
    ingest_decoder_room(h.decoder, 1100000);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_OK);
    assert_true(ingest_pending_bytes(h.decoder) <= 1100000);
    flush(NULL);
    /* What is too large for any entry is so whatever the room. */
    sprintf(payload, "{\"s\":\"%02621440d\"}", 0);
    payload[2621439] = 0;
    strcat(payload, "\"}");
    ingest_decoder_room(h.decoder, 0);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    assert_int_equal(decode("{\"v\":1}", UINT32_MAX), CHR_EFULL);
    ingest_decoder_room(h.decoder, SIZE_MAX);
    assert_int_equal(decode("{\"v\":1}", UINT32_MAX), CHR_OK);
    flush(NULL);
    end();
}

/* It does not fit even an empty batch: a reject, not an endless "flush and try again". */
static void test_too_big(void **state)
{
    begin("t (id STRING, v FLOAT, s STRING, u STRING) TOPIC t/{id}", "t/a", 1000);
    static char payload[4 << 20];
    sprintf(payload, "[{\"s\":\"%0900000d\"},{\"s\":\"%0900000d\"}]", 0, 1);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_OK); /* alone it may be larger than a batch */
    assert_int_equal(decode("{\"v\":1}", UINT32_MAX), CHR_EFULL);
    size_t bytes;
    flush(&bytes);
    assert_true(bytes > 1800000 && bytes < INGEST_MESSAGE_BYTES_MAX);
    assert_int_equal(decode("{\"v\":1}", UINT32_MAX), CHR_OK);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_EFULL);
    flush(NULL);
    end();

    begin("t (s STRING, metric STRING, value FLOAT) TOPIC t", "t", 1000);
    sprintf(payload, "{\"s\":\"%01000000d\",\"metrics\":{\"a\":1,\"b\":2,\"c\":3}}", 0);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    assert_non_null(strstr(why.reason.text, "do not fit"));
    assert_int_equal(why.table_id, h.tables[0]->id);
    assert_int_equal(ingest_pending_rows(h.decoder), 0);
    assert_int_equal(ingest_pending_bytes(h.decoder), 0);
    /* The same behind another message: first no room, then too big. */
    assert_int_equal(decode("{\"value\":1}", UINT32_MAX), CHR_OK);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_EFULL);
    flush(NULL);
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    end();

    /* More elements than a builder takes. */
    begin("t (b BOOLEAN) TOPIC t", "t", 3u << 20);
    char *at = payload;
    *at++ = '[';
    for (int i = 0; i < INGEST_TABLE_ROWS_MAX + 1; i++)
        at += sprintf(at, "%s{}", i ? "," : "");
    strcpy(at, "]");
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    assert_int_equal(ingest_pending_rows(h.decoder), 0);
    *at = '\0';
    strcpy(payload + strlen(payload) - 3, "]");
    assert_int_equal(decode(payload, UINT32_MAX), CHR_OK);
    assert_int_equal(ingest_pending_rows(h.decoder), INGEST_TABLE_ROWS_MAX);
    assert_int_equal(decode("{}", UINT32_MAX), CHR_EFULL);
    assert_int_equal(ingest_pending_rows(h.decoder), INGEST_TABLE_ROWS_MAX);
    flush(NULL);
    assert_int_equal(decode("{}", UINT32_MAX), CHR_OK);

    /* A payload beyond the limit is not even looked at. */
    memset(payload, ' ', sizeof payload - 1);
    payload[sizeof payload - 1] = '\0';
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    assert_non_null(strstr(why.reason.text, "bytes"));
    end();
}

/* A long string next to many metrics: rows multiply, memory does not. */
static void test_amplification(void **state)
{
    begin("t (s STRING, metric STRING, value FLOAT) TOPIC t", "t", 3u << 20);
    static char payload[2 << 20];
    char *at = payload + sprintf(payload, "{\"s\":\"%0200000d\",\"metrics\":{", 0);
    for (int i = 0; i < 10000; i++)
        at += sprintf(at, "%s\"m%d\":%d", i ? "," : "", i, i);
    strcpy(at, "}}");
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    assert_int_equal(ingest_pending_rows(h.decoder), 0);
    /* Names of deep objects, each repeating the long one around it. */
    at = payload + sprintf(payload, "{\"metrics\":{\"%0100000d\":{", 0);
    for (int i = 0; i < 1000; i++)
        at += sprintf(at, "%s\"m%d\":%d", i ? "," : "", i, i);
    strcpy(at, "}}}");
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETOOBIG);
    /* A hundred thousand equal names: one row, at once. */
    at = payload + sprintf(payload, "{\"metrics\":{");
    for (int i = 0; i < 100000; i++)
        at += sprintf(at, "%s\"m\":%d", i ? "," : "", i);
    strcpy(at, "}}");
    assert_int_equal(decode(payload, UINT32_MAX), CHR_OK);
    char *text = pending();
    assert_string_equal(text, "t metric=m value=99999\n");
    free(text);
    end();
}

/* R3 over tables: the second refuses, the first has nothing; rows before stay as they are. */
static void test_tables_together(void **state)
{
    helper_add_table(&h, "a (v FLOAT, s STRING) TOPIC t");
    begin("b (v INT, s STRING) TOPIC t", "t", 3u << 20);
    assert_int_equal(decode("{\"v\":1,\"s\":\"one\"}", UINT32_MAX), CHR_OK);
    char *before = pending();
    assert_string_equal(before, "a v=1 s=one\nb v=1 s=one\n");
    size_t bytes = ingest_pending_bytes(h.decoder);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(
            decode("[{\"v\":2,\"s\":\"two\"},{\"v\":2.5,\"s\":\"three\"}]", UINT32_MAX), CHR_ETYPE);
        assert_string_equal(why.reason.text,
                            "element 2: column v: 2.5 is not an integer (at byte 24)");
        assert_int_equal(why.table_id, h.tables[1]->id);
        char *after = pending();
        assert_string_equal(after, before);
        free(after);
        assert_int_equal(ingest_pending_rows(h.decoder), 2);
        assert_int_equal(ingest_pending_bytes(h.decoder), bytes);
    }
    assert_int_equal(decode("{\"v\":null,\"s\":null}", UINT32_MAX), CHR_OK);
    char *after = pending();
    assert_string_equal(after, "a v=1 s=one\na v=null s=null\nb v=1 s=one\nb v=null s=null\n");
    free(after);
    free(before);
    assert_int_equal(flush(NULL), 2);
    end();
}

/* Guarded and plain rows keep their order: they share a builder, and a key's last value wins. */
static void test_guards(void **state)
{
    begin("t (id STRING, v FLOAT) KEY (id) TOPIC t/{id}", "t/a", 3u << 20);
    assert_int_equal(decode("1", UINT32_MAX), CHR_OK);
    assert_int_equal(decode("2", 0), CHR_OK);
    assert_int_equal(decode("[{\"v\":3},{\"v\":4}]", 1), CHR_OK);
    assert_int_equal(decode("x", 2), CHR_ETYPE);
    assert_int_equal(decode("5", UINT32_MAX), CHR_OK);
    char *text = pending();
    assert_string_equal(text, "t id=a v=1\nt id=a v=2 guard=0\nt id=a v=3 guard=1\n"
                              "t id=a v=4 guard=1\nt id=a v=5\n");
    free(text);
    assert_int_equal(flush(NULL), 1);
    assert_int_equal(decode("6", UINT32_MAX), CHR_OK);
    assert_false(h.decoder->builders[0]->guarded);
    /* A guarded message that is rejected leaves no guard behind. */
    assert_int_equal(decode("x", 3), CHR_ETYPE);
    assert_int_equal(decode("7", UINT32_MAX), CHR_OK);
    text = pending();
    assert_string_equal(text, "t id=a v=6\nt id=a v=7\n");
    free(text);
    end();
}

/* The bytes counted are about the bytes written: a batch below its limit makes an entry below its.
 */
static void test_bytes(void **state)
{
    begin("t (id STRING, ts TIMESTAMP, v FLOAT, s STRING, b BOOLEAN) TOPIC t/{id}", "t/device",
          3u << 20);
    char payload[256];
    unsigned messages = 0;
    for (;; messages++) {
        sprintf(payload, "{\"ts\":%u,\"v\":%u.5,\"s\":\"%u\",\"b\":%s}", messages * 7919, messages,
                messages, messages % 3 ? "true" : "null");
        if (decode(payload, messages % 5 ? UINT32_MAX : messages) != CHR_OK)
            break;
    }
    assert_true(messages > 10000);
    size_t counted = ingest_pending_bytes(h.decoder), bytes;
    flush(&bytes);
    assert_true(bytes < counted + 1024);
    assert_true(bytes > counted / 2);
    assert_true(bytes < DB_ENTRY_BYTES_MAX);
    end();
}

/* A table of a hundred columns of which each message gives one: every row writes a hundred. */
static void test_sparse_bytes(void **state)
{
    struct helper_text def = {0};
    helper_adds(&def, "t (c0 FLOAT");
    for (int i = 1; i < 100; i++) {
        char column[32];
        sprintf(column, ", c%d %s", i, i % 3 ? "INT" : i % 2 ? "STRING" : "BOOLEAN");
        helper_adds(&def, column);
    }
    helper_adds(&def, ") TOPIC t");
    begin(def.ptr, "t", 1 << 20);
    free(def.ptr);
    char payload[256];
    unsigned messages = 0;
    chr_err err = CHR_OK;
    for (; !err; messages++) {
        unsigned c = messages % 100;
        sprintf(payload, "{\"c%u\":%u}", c, c % 3 == 0 && c % 2 == 0 && c ? 1 : messages);
        err = decode(payload, UINT32_MAX);
    }
    assert_int_equal(err, CHR_EFULL);
    size_t counted = ingest_pending_bytes(h.decoder), bytes;
    flush(&bytes);
    assert_true(bytes < counted + 1024);
    assert_true(bytes > counted / 2);
    end();
}

/* Once grown, a steady stream allocates nothing; R9's replacement of mappings starts afresh. */
static void test_steady_memory(void **state)
{
    begin("t (id STRING, ts TIMESTAMP, v FLOAT, s STRING) TOPIC t/{id}", "t/device", 3u << 20);
    struct db_entry entry;
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    size_t grown = 0;
    for (int round = 0; round < 20; round++) {
        db_entry_begin(&entry, 0, 7);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(
                decode("{\"v\":21.5,\"ts\":1733858000123,\"s\":\"text \\u0041\"}", UINT32_MAX),
                CHR_OK);
        ingest_flush(h.decoder, &entry);
        assert_int_equal(db_entry_end(&entry), CHR_OK);
        struct mallinfo2 info = mallinfo2();
        if (round == 1)
            grown = info.uordblks;
        else if (round > 1)
            assert_int_equal(info.uordblks, grown);
    }
    db_entry_free(&entry);
    end();
}

/* Builders of tables that fell silent are given back. */
static void test_sweep(void **state)
{
    helper_add_table(&h, "a (v FLOAT) TOPIC a");
    begin("b (v FLOAT) TOPIC b", "a", 3u << 20);
    assert_int_equal(decode("1", UINT32_MAX), CHR_OK);
    flush(NULL);
    assert_non_null(h.decoder->builders[0]);
    ingest_route_free(route);
    assert_int_equal(ingest_route_make(h.mappings, CHR_LIT("b"), &route), CHR_OK);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(decode("1", UINT32_MAX), CHR_OK);
        flush(NULL);
    }
    assert_null(h.decoder->builders[0]);
    assert_non_null(h.decoder->builders[1]);
    end();
}

/* discard: as if nothing had been decoded. */
static void test_discard(void **state)
{
    begin("t (id STRING, v FLOAT) TOPIC t/{id}", "t/a", 3u << 20);
    assert_int_equal(decode("1", 4), CHR_OK);
    assert_int_equal(decode("{\"v\":null}", UINT32_MAX), CHR_OK);
    ingest_discard(h.decoder);
    assert_int_equal(ingest_pending_rows(h.decoder), 0);
    assert_int_equal(flush(NULL), 0);
    assert_int_equal(decode("{}", UINT32_MAX), CHR_OK);
    char *text = pending();
    assert_string_equal(text, "t id=a\n");
    free(text);
    end();
}

/* The reason stays a sentence of proper UTF-8 whatever names and values are. */
static void test_long_reason(void **state)
{
    begin("t (ts TIMESTAMP, \"a_name_of_sixty_three_bytes_that_is_as_long_as_a_name_can_be_xx\" "
          "INT, "
          "metric STRING, value INT) TOPIC t",
          "t", 3u << 20);
    static char payload[4096];
    sprintf(
        payload,
        "[{},{\"a_name_of_sixty_three_bytes_that_is_as_long_as_a_name_can_be_xx\":\"%0500dx\"}]",
        0);
    assert_true(decode(payload, UINT32_MAX) < 0);
    assert_true(strlen(why.reason.text) < sizeof why.reason.text - 1);
    assert_non_null(strstr(why.reason.text, "(at byte "));
    char *at = payload + sprintf(payload, "[{\"metrics\":{\"");
    for (int i = 0; i < 200; i++)
        at += sprintf(at, "\xf0\x9f\x98\x80\xc3\xa4x");
    sprintf(
        at,
        "\":\"\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80"
        "\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\xf0\x9f\x98\x80\"}}]");
    assert_int_equal(decode(payload, UINT32_MAX), CHR_ETYPE);
    assert_true(strlen(why.reason.text) < sizeof why.reason.text - 1);
    assert_non_null(strstr(why.reason.text, "is not an integer (at byte "));
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_too_big),
        cmocka_unit_test(test_amplification),
        cmocka_unit_test(test_tables_together),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_sparse_bytes),
        cmocka_unit_test(test_steady_memory),
        cmocka_unit_test(test_sweep),
        cmocka_unit_test(test_discard),
        cmocka_unit_test(test_long_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
