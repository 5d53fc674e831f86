/* The decoder beside its plain twin (naive.h) on random payloads, at the edge of a page that cannot
 * be read. CHR_SEED picks another life, CHR_ROUNDS a longer one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "tests/broker/ingest/naive.h"

static const char *const tables[] = {
    "env (site STRING, device_id STRING, ts TIMESTAMP, temp FLOAT, humidity FLOAT) "
    "TOPIC x/{site}/{device_id} FORMAT json",
    "all (line INT, i INT, f FLOAT, b BOOLEAN, t TIMESTAMP, s STRING, raw BLOB, \"g.lat\" FLOAT, "
    "\"g.s\" STRING, \"g.in.n\" INT, g STRING, \"Temp\" FLOAT, temp INT, "
    "abcdefghijklmnopqrstuvw INT, abcdefghijklmnopqrstuvx INT) TOPIC x/{line}/+ FORMAT json",
    "strict (s STRING NOT NULL, f FLOAT NOT NULL, n INT) TOPIC x/+/+ FORMAT json",
};
static const char *const keys[] = {"ts",
                                   "temp",
                                   "humidity",
                                   "site",
                                   "device_id",
                                   "line",
                                   "i",
                                   "f",
                                   "b",
                                   "t",
                                   "s",
                                   "raw",
                                   "g",
                                   "g.lat",
                                   "lat",
                                   "in",
                                   "n",
                                   "Temp",
                                   "TEMP",
                                   "abcdefghijklmnopqrstuvw",
                                   "abcdefghijklmnopqrstuvx",
                                   "unknown",
                                   "",
                                   "S",
                                   "F",
                                   "g.in",
                                   "in.n",
                                   "abcdefghijklmnopqrstuvy",
                                   "x\\u0041",
                                   "\\u0074emp",
                                   "t\\u0073",
                                   "\\ud800",
                                   "grün"};
static const char *const values[] = {"0",
                                     "-0",
                                     "1",
                                     "-1",
                                     "21.53",
                                     "40.2",
                                     "1733858000",
                                     "1733858000123",
                                     "1733858000123456",
                                     "1733858000123456789",
                                     "-1733858000",
                                     "12345678",
                                     "123456789",
                                     "1234567890123456",
                                     "12345678901234567",
                                     "123456789012345678",
                                     "1234567890123456789",
                                     "9223372036854775807",
                                     "9223372036854775808",
                                     "-9223372036854775808",
                                     "0.1",
                                     "0.12345678",
                                     "1e3",
                                     "1E-3",
                                     "15e-1",
                                     "2.50e1",
                                     "1e400",
                                     "1e-400",
                                     "true",
                                     "false",
                                     "null",
                                     "\"\"",
                                     "\"a\"",
                                     "\"21.5\"",
                                     "\"21\"",
                                     "\"true\"",
                                     "\"off\"",
                                     "\"nan\"",
                                     "\"-Infinity\"",
                                     "\" 7 \"",
                                     "\"2024-12-10T19:13:20Z\"",
                                     "\"2024-12-10\"",
                                     "\"\\\\x00ff\"",
                                     "\"\\\\x0\"",
                                     "\"\\u0041\\n\"",
                                     "\"\\ud83d\\ude00\"",
                                     "\"\\ud83d\"",
                                     "\"\\u0000\"",
                                     "\"fifteen bytes..\"",
                                     "\"sixteen bytes ..\"",
                                     "\"seventeen bytes..\"",
                                     "\"a text of more than thirty-two bytes, to be sure\"",
                                     "\"grün €\"",
                                     "\"say \\\"hi\\\" \\\\ \\/\"",
                                     "[]",
                                     "{}",
                                     "[1,2,[3,{}]]",
                                     "{\"lat\":1}",
                                     "north",
                                     "01",
                                     "+1",
                                     "1.",
                                     ".5",
                                     "-",
                                     "nul",
                                     "NaN",
                                     "\"unterminated",
                                     "\"bad \\q\""};

static void add(struct helper_text *t, struct chr_random *r, const char *s)
{
    if (chr_random_below(r, 40) == 0)
        helper_adds(t, chr_random_below(r, 2) ? " " : "\r\n\t");
    helper_adds(t, s);
}

static void add_number(struct helper_text *t, struct chr_random *r)
{
    char text[64];
    size_t len = 0;
    if (chr_random_below(r, 4) == 0)
        text[len++] = '-';
    unsigned whole = 1 + (unsigned)chr_random_below(r, 20);
    for (unsigned i = 0; i < whole; i++)
        text[len++] = (char)('0' + (i ? chr_random_below(r, 10) : 1 + chr_random_below(r, 9)));
    if (chr_random_below(r, 2)) {
        text[len++] = '.';
        for (unsigned i = 0, n = 1 + (unsigned)chr_random_below(r, 20); i < n; i++)
            text[len++] = (char)('0' + chr_random_below(r, 10));
    }
    if (chr_random_below(r, 5) == 0)
        len += (size_t)sprintf(text + len, "e%d", (int)chr_random_below(r, 60) - 30);
    helper_add(t, text, len);
}

static void add_object(struct helper_text *t, struct chr_random *r, unsigned depth);

/* wild: anything; else mostly what fits. */
static void add_value(struct helper_text *t, struct chr_random *r, unsigned depth)
{
    uint64_t kind = chr_random_below(r, 20);
    size_t good = 28; /* the first ones are numbers */
    if (kind < 2 && depth < 4) {
        add_object(t, r, depth + 1);
    } else if (kind < 3 && depth < 4) {
        helper_adds(t, "[");
        for (uint64_t i = 0, n = chr_random_below(r, 4); i < n; i++) {
            if (i)
                add(t, r, ",");
            add_value(t, r, depth + 1);
        }
        helper_adds(t, "]");
    } else if (kind < 6) {
        add_number(t, r);
    } else if (kind < 15) {
        helper_adds(t, values[chr_random_below(r, good)]);
    } else if (kind < 19) {
        helper_adds(t, values[chr_random_below(r, CHR_COUNT_OF(values) - 10)]);
    } else {
        helper_adds(t, values[chr_random_below(r, CHR_COUNT_OF(values))]);
    }
}

static void add_object(struct helper_text *t, struct chr_random *r, unsigned depth)
{
    add(t, r, "{");
    for (uint64_t i = 0, n = chr_random_below(r, depth ? 4 : 7); i < n; i++) {
        if (i)
            add(t, r, ",");
        add(t, r, "\"");
        helper_adds(t, keys[chr_random_below(r, CHR_COUNT_OF(keys))]);
        helper_adds(t, "\"");
        add(t, r, ":");
        add_value(t, r, depth);
        add(t, r, "");
    }
    add(t, r, "}");
}

static void make_payload(struct helper_text *t, struct chr_random *r)
{
    t->len = 0;
    helper_adds(t, "");
    uint64_t kind = chr_random_below(r, 10);
    uint64_t count = kind < 7 ? 1 : chr_random_below(r, 5);
    if (kind >= 8)
        add(t, r, "[");
    for (uint64_t i = 0; i < count; i++) {
        if (i)
            add(t, r, kind >= 8 ? "," : "\n");
        add_object(t, r, 0);
    }
    if (kind >= 8)
        add(t, r, "]");
    /* A damaged byte, a lost end. */
    static const char telling[] = "\"{}[]:,\\0e.-x ";
    if (t->len && chr_random_below(r, 8) == 0) {
        char byte = telling[chr_random_below(r, sizeof telling - 1)];
        if (chr_random_below(r, 4) == 0)
            byte = (char)chr_random_below(r, 256);
        t->ptr[chr_random_below(r, t->len)] = byte;
    }
    if (t->len && chr_random_below(r, 20) == 0)
        t->len = chr_random_below(r, t->len);
}

static void test_same_as_naive(void **state)
{
    uint64_t seed = getenv("CHR_SEED") ? strtoull(getenv("CHR_SEED"), NULL, 0) : 1;
    uint64_t rounds = getenv("CHR_ROUNDS") ? strtoull(getenv("CHR_ROUNDS"), NULL, 0) : 100000;
    static struct naive naive;
    struct helper_guard page;
    struct helper_text payload = {0}, rows = {0};
    helper_guard_init(&page, 1 << 16);
    uint64_t accepted = 0, rejected = 0;
    for (unsigned t = 0; t < CHR_COUNT_OF(tables); t++) {
        struct chr_random r = {.state = seed * 1000 + t};
        struct helper h = {0};
        helper_add_table(&h, tables[t]);
        helper_compile(&h, 3u << 20);
        ingest_route *route;
        assert_int_equal(ingest_route_make(h.mappings, CHR_LIT("x/7/dev"), &route), CHR_OK);
        assert_non_null(route);
        for (uint64_t i = 0; i < rounds / CHR_COUNT_OF(tables); i++) {
            make_payload(&payload, &r);
            chr_slice bytes = helper_guarded(&page, chr_slice_of(payload.ptr, payload.len));
            struct ingest_reject why = {0};
            uint64_t unknown = ingest_unknown_keys(h.decoder);
            chr_err err = ingest_decode(h.decoder, route, bytes, HELPER_ARRIVAL, UINT32_MAX, &why);
            bool good = naive_decode(&naive, h.tables[0], route, bytes);
            rows.len = 0;
            helper_adds(&rows, "");
            helper_add_pending(&rows, &h);
            if ((err == CHR_OK) != good || (good && strcmp(rows.ptr, naive.rows.ptr) != 0) ||
                (!good && rows.len) ||
                (good && ingest_unknown_keys(h.decoder) - unknown != naive.unknown)) {
                fprintf(
                    stderr,
                    "seed %llu, table %u, payload %llu:\n%.*s\ndecoder: %s %s\n%s(%llu unknown)\n"
                    "naive: %s\n%s(%llu unknown)\n",
                    (unsigned long long)seed, t, (unsigned long long)i, (int)payload.len,
                    payload.ptr, chr_strerror(err), why.reason.text, rows.ptr,
                    (unsigned long long)(ingest_unknown_keys(h.decoder) - unknown),
                    good ? "accepted" : "rejected", naive.rows.ptr,
                    (unsigned long long)naive.unknown);
                fail();
            }
            if (err) {
                rejected++;
                assert_int_equal(why.table_id, h.tables[0]->id);
                assert_true(chr_utf8_valid_mqtt(chr_slice_cstr(why.reason.text)));
                assert_true(strlen(why.reason.text) > 0);
            } else {
                accepted++;
            }
            ingest_discard(h.decoder);
        }
        ingest_route_free(route);
        helper_free(&h);
    }
    printf("seed %llu: %llu accepted, %llu rejected\n", (unsigned long long)seed,
           (unsigned long long)accepted, (unsigned long long)rejected);
    assert_true(accepted > rounds / 10);
    assert_true(rejected > rounds / 10);
    naive_clear(&naive);
    free(naive.rows.ptr);
    free(payload.ptr);
    free(rows.ptr);
    helper_guard_free(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_same_as_naive)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
