/* The n-th allocation fails, for every n until none does: what was pending stays as it was, nothing
 * leaks or crashes, and afterwards the same messages are decoded.
 *
 * malloc and its kin are replaced in this program, which sanitizers do themselves: there the test
 * is left out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/broker/ingest/helper.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define REPLACED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define REPLACED 0
#endif
#endif
#ifndef REPLACED
#define REPLACED 1
#endif

static long countdown = -1; /* allocations until one fails; -1: none does */

static long live; /* blocks not freed */

#if REPLACED
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void __libc_free(void *old);

static bool fails(void)
{
    return countdown >= 0 && countdown-- == 0;
}

void *malloc(size_t bytes)
{
    void *p = fails() ? NULL : __libc_malloc(bytes);
    live += p != NULL;
    return p;
}

void *calloc(size_t count, size_t bytes)
{
    void *p = fails() ? NULL : __libc_calloc(count, bytes);
    live += p != NULL;
    return p;
}

void *realloc(void *old, size_t bytes)
{
    void *p = fails() ? NULL : __libc_realloc(old, bytes);
    live += p != NULL && !old;
    return p;
}

void free(void *old)
{
    live -= old != NULL;
    __libc_free(old);
}
#endif

static const char *const topics[] = {"all/7", "all/7",  "sensors/a", "csv/1",
                                     "both",  "many/x", "bad/x",     "$none"};
static const char *const payloads[] = {
    "{\"s\":\"a string \\u0041 that is longer than sixteen "
    "bytes\",\"raw\":\"\\\\x00ff\",\"f\":1e5}",
    "[{\"f\":1,\"s\":\"x\"},{\"f\":2,\"g\":{\"l\\u0061t\":\"3\"}},{\"\\u0066\":3}]",
    "{\"ts\":1,\"metrics\":{\"a\":1,\"b\":{\"c\":2,\"d\":3},\"e\\u0041\":4}}",
    "1733858000,\"quoted \"\"text\"\"\",\\x00\n1733858001,b,c\n",
    "text",
    "{\"metrics\":{\"a\":1,\"b\":1,\"c\":1,\"d\":1,\"e\":1,\"f\":1,\"g\":1,\"h\":1,\"i\":1,\"j\":1,"
    "\"k\":1,\"l\":1,\"m\":1,\"n\":1,\"o\":1,\"p\":1,\"q\":1,\"a\":2}}",
    "1",
    "1",
};

/* Everything once. Returns CHR_ENOMEM when some allocation failed. */
static chr_err life(const struct db_table_def *const *tables, uint32_t tables_count)
{
    ingest_mappings *mappings = NULL;
    ingest_decoder *decoder = NULL;
    ingest_route *route = NULL;
    chr_err err = ingest__mappings_of_tables(tables, tables_count, 1, &mappings);
    if (!err)
        err = ingest_decoder_new(1 << 20, &decoder);
    if (!err)
        err = ingest_decoder_use(decoder, mappings);
    for (int round = 0; round < 70 && !err; round++) { /* past the first growth of the builders */
        for (size_t i = 0; i < CHR_COUNT_OF(topics) && !err; i++) {
            struct ingest_reject why;
            err = ingest_route_make(mappings, chr_slice_cstr(topics[i]), &route);
            if (err || !route)
                continue;
            size_t rows = ingest_pending_rows(decoder), bytes = ingest_pending_bytes(decoder);
            err = ingest_decode(decoder, route, chr_slice_cstr(payloads[i]), 1, UINT32_MAX, &why);
            if (err) {
                assert_int_equal(ingest_pending_rows(decoder), rows);
                assert_int_equal(ingest_pending_bytes(decoder), bytes);
            }
            if (err == CHR_ETYPE && i == 6)
                err = CHR_OK; /* the one that is to be rejected */
            /* Memory is there again: so is the message. */
            if (err == CHR_ENOMEM && countdown < 0) {
                chr_err again =
                    ingest_decode(decoder, route, chr_slice_cstr(payloads[i]), 1, UINT32_MAX, &why);
                assert_int_equal(again, i == 6 ? CHR_ETYPE : CHR_OK);
                assert_int_equal(ingest_pending_rows(decoder) > rows, i != 6);
            }
            ingest_route_free(route);
        }
    }
    ingest_decoder_free(decoder);
    ingest_mappings_release(mappings);
    return err;
}

static void test_nth_allocation_fails(void **state)
{
    if (!REPLACED)
        skip();
    static const char *const texts[] = {
        "all (line INT, f FLOAT, s STRING, raw BLOB, \"g.lat\" FLOAT) TOPIC all/{line}",
        "bad (n INT, v FLOAT) TOPIC bad/{n}",
        "both1 (s STRING) TOPIC both",
        "both2 (s STRING, ts TIMESTAMP) TOPIC both",
        "csv (id INT, ts TIMESTAMP, s STRING, b BLOB) TOPIC csv/{id} FORMAT csv",
        "many (id STRING, metric STRING, value FLOAT) TOPIC many/{id}",
        "readings (device_id STRING, metric STRING, value FLOAT) TOPIC sensors/{device_id}",
    };
    const struct db_table_def *tables[CHR_COUNT_OF(texts)];
    for (uint32_t i = 0; i < CHR_COUNT_OF(texts); i++)
        tables[i] = helper_table(texts[i], 100 + i);
    long n = 0;
    for (;; n++) {
        long before = live;
        countdown = n;
        chr_err err = life(tables, CHR_COUNT_OF(texts));
        bool none_failed = countdown >= 0;
        countdown = -1;
        assert_int_equal(live, before);
        if (none_failed) {
            assert_int_equal(err, CHR_OK);
            break;
        }
        assert_int_equal(err, CHR_ENOMEM);
        assert_true(n < 100000);
    }
    printf("%ld allocations, each failed once\n", n);
    assert_true(n > 100);
    for (uint32_t i = 0; i < CHR_COUNT_OF(texts); i++)
        helper_free_table((struct db_table_def *)tables[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_nth_allocation_fails)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
