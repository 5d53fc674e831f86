/* Mappings of real catalogs: the tables an empty database begins with, and how they change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "db/catalog_internal.h"
#include "tests/broker/ingest/helper.h"

static void decode(struct helper *h, const char *topic, const char *payload, const char *expected)
{
    ingest_route *route;
    struct ingest_reject why;
    assert_int_equal(ingest_route_make(h->mappings, chr_slice_cstr(topic), &route), CHR_OK);
    if (!expected) {
        assert_null(route);
        return;
    }
    assert_non_null(route);
    assert_int_equal(
        ingest_decode(h->decoder, route, chr_slice_cstr(payload), HELPER_ARRIVAL, UINT32_MAX, &why),
        CHR_OK);
    struct helper_text t = {0};
    helper_adds(&t, "");
    helper_add_pending(&t, h);
    assert_string_equal(t.ptr, expected);
    free(t.ptr);
    ingest_discard(h->decoder);
    ingest_route_free(route);
}

static void use(struct helper *h, const db_catalog *catalog)
{
    ingest_mappings *mappings;
    assert_int_equal(ingest_mappings_compile(catalog, &mappings), CHR_OK);
    assert_ptr_equal(ingest_mappings_catalog(mappings), catalog);
    assert_int_equal(ingest_mappings_version(mappings), db_catalog_mapping_version(catalog));
    if (!h->decoder)
        assert_int_equal(ingest_decoder_new(1 << 20, &h->decoder), CHR_OK);
    assert_int_equal(ingest_decoder_use(h->decoder, mappings), CHR_OK);
    ingest_mappings_release(h->mappings);
    h->mappings = mappings;
}

/* `readings` is there out of the box (design 2.3). */
static void test_builtin(void **state)
{
    struct helper h = {0};
    db_catalog *catalog = db__catalog_builtin();
    assert_non_null(catalog);
    use(&h, catalog);
    decode(&h, "sensors/esp-001/temp", "21.5",
           "readings device_id=esp-001 ts=arrival metric=temp value=21.5\n");
    decode(&h, "sensors/esp-001",
           "{\"device_id\":\"esp-001\",\"ts\":1733858000,\"seq\":7,"
           "\"metrics\":{\"temp\":30.5,\"humidity\":40.2}}",
           "readings device_id=esp-001 ts=2024-12-10T19:13:20Z seq=7 metric=temp value=30.5\n"
           "readings device_id=esp-001 ts=2024-12-10T19:13:20Z seq=7 metric=humidity value=40.2\n");
    decode(&h, "plain/topic", "x", NULL);
    ingest_route *route;
    assert_int_equal(
        ingest_route_make_table(h.mappings, CHR_LIT("chronos_rejects"), DB_PAYLOAD_JSON, &route),
        CHR_ENOTFOUND);
    assert_int_equal(
        ingest_route_make_table(h.mappings, CHR_LIT("readings"), DB_PAYLOAD_JSON, &route), CHR_OK);
    ingest_route_free(route);
    helper_free(&h);
    db_catalog_release(catalog);
}

/* R9: a table comes, its rows come; it goes, its topic is a plain one again. Routes and decoders
 * keep the old catalog alive until they let go. */
static void test_changes(void **state)
{
    struct helper h = {0};
    db_catalog *first = db__catalog_builtin();
    struct db_table_def *own = helper_table("env (site STRING, v FLOAT) TOPIC farm/{site}", 16);
    struct db_table_def *copy = db__table_def_copy(own);
    helper_free_table(own);
    db_catalog *second = db__catalog_with(first, copy, 2, 2);
    db_catalog *third = db__catalog_without(second, 16, 3, 3);
    assert_non_null(second);
    assert_non_null(third);
    use(&h, first);
    decode(&h, "farm/a", "1", NULL);
    use(&h, second);
    decode(&h, "farm/a", "1", "env site=a v=1\n");
    ingest_route *kept;
    assert_int_equal(ingest_route_make(h.mappings, CHR_LIT("farm/a"), &kept), CHR_OK);
    db_catalog_release(second);
    use(&h, third);
    decode(&h, "farm/a", "1", NULL);
    assert_string_equal(ingest_route_table(kept, 0)->name, "env");
    ingest_route_free(kept);
    db_catalog_release(first);
    helper_free(&h);
    db_catalog_release(third);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_changes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
