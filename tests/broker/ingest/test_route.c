/* Routes beside mqtt_topic_matches() over all templates, one after another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "proto/mqtt/topic.h"
#include "tests/broker/ingest/helper.h"

#define SEED 7
static const char *const words[] = {"a", "b", "ab", "", "farm", "{x}", "{y}", "+"};

static void random_template(struct chr_random *r, char *out)
{
    *out = '\0';
    bool x = false, y = false;
    unsigned levels = 1 + (unsigned)chr_random_below(r, 4);
    for (unsigned i = 0; i < levels; i++) {
        const char *word = words[chr_random_below(r, CHR_COUNT_OF(words))];
        if ((strcmp(word, "{x}") == 0 && x) || (strcmp(word, "{y}") == 0 && y) ||
            (*word == '\0' && levels == 1))
            word = "a";
        x |= strcmp(word, "{x}") == 0;
        y |= strcmp(word, "{y}") == 0;
        strcat(out, i ? "/" : "");
        strcat(out, i && i + 1 == levels && chr_random_below(r, 5) == 0 ? "#" : word);
    }
}

/* A template as a plain filter: {name} is +. */
static void as_filter(const char *template, char *out)
{
    for (; *template; template ++) {
        if (*template == '{') {
            *out++ = '+';
            template = strchr(template, '}');
        } else {
            *out++ = *template;
        }
    }
    *out = '\0';
}

static void test_random_templates(void **state)
{
    struct chr_random r = {.state = SEED};
    unsigned matched = 0;
    for (int round = 0; round < 200; round++) {
        struct helper h = {0};
        int tables = 1 + (int)chr_random_below(&r, 30);
        for (int i = 0; i < tables; i++) {
            char def[512], template[64];
            int len = sprintf(def, "t%02d (x STRING, y STRING, v FLOAT)", i);
            for (uint64_t k = chr_random_below(&r, 4); k > 0; k--) {
                random_template(&r, template);
                len += sprintf(def + len, " TOPIC \"%s\"", template);
            }
            helper_add_table(&h, def);
        }
        helper_compile(&h, 1 << 20);
        for (int k = 0; k < 100; k++) {
            char topic[64];
            *topic = '\0';
            uint64_t levels = 1 + chr_random_below(&r, 5);
            for (uint64_t i = 0; i < levels; i++) {
                strcat(topic, i ? "/" : "");
                strcat(topic, i == 0 && chr_random_below(&r, 20) == 0
                                  ? "$a"
                                  : words[chr_random_below(&r, 5)]);
            }
            if (!*topic)
                continue;
            ingest_route *route;
            assert_int_equal(ingest_route_make(h.mappings, chr_slice_cstr(topic), &route), CHR_OK);
            uint32_t at = 0;
            for (uint32_t t = 0; t < h.tables_count; t++) {
                int first = -1;
                for (int i = 0; i < h.tables[t]->topics_count && first < 0; i++) {
                    char filter[64];
                    as_filter(h.tables[t]->topics[i], filter);
                    if (mqtt_topic_matches(chr_slice_cstr(filter), chr_slice_cstr(topic)))
                        first = i;
                }
                if (first < 0)
                    continue;
                assert_non_null(route);
                assert_true(at < ingest_route_tables_count(route));
                assert_ptr_equal(ingest_route_table(route, at), h.tables[t]);
                assert_int_equal(route->targets[at].plan->template_index, first);
                at++;
                matched++;
            }
            assert_int_equal(route ? ingest_route_tables_count(route) : 0, at);
            ingest_route_free(route);
        }
        helper_free(&h);
    }
    assert_true(matched > 5000);
}

/* Two thousand tables of one shape: all found, in little time. */
static void test_many_tables(void **state)
{
    struct helper h = {0};
    for (int i = 0; i < 2000; i++) {
        char def[128];
        sprintf(def, "t%04d (x STRING, v FLOAT) TOPIC site/%d/{x}/env", i, i);
        helper_add_table(&h, def);
    }
    helper_compile(&h, 1 << 20);
    for (int i = 0; i < 2000; i++) {
        char topic[64], name[16];
        ingest_route *route;
        sprintf(topic, "site/%d/dev-%d/env", i, i);
        sprintf(name, "t%04d", i);
        assert_int_equal(ingest_route_make(h.mappings, chr_slice_cstr(topic), &route), CHR_OK);
        assert_non_null(route);
        assert_int_equal(ingest_route_tables_count(route), 1);
        assert_string_equal(ingest_route_table(route, 0)->name, name);
        ingest_route_free(route);
    }
    helper_free(&h);
}

static void test_limits(void **state)
{
    struct helper h = {0};
    helper_add_table(&h, "t (v STRING) TOPIC #");
    helper_compile(&h, 1 << 20);
    static char topic[2 * MQTT_TOPIC_LEVELS_MAX + 8];
    ingest_route *route;
    memset(topic, '/', MQTT_TOPIC_LEVELS_MAX - 1);
    assert_int_equal(
        ingest_route_make(h.mappings, chr_slice_of(topic, MQTT_TOPIC_LEVELS_MAX - 1), &route),
        CHR_OK);
    assert_non_null(route);
    ingest_route_free(route);
    topic[MQTT_TOPIC_LEVELS_MAX - 1] = '/';
    assert_int_equal(
        ingest_route_make(h.mappings, chr_slice_of(topic, MQTT_TOPIC_LEVELS_MAX), &route), CHR_OK);
    assert_null(route);
    assert_int_equal(ingest_route_make_table(h.mappings, CHR_LIT("u"), DB_PAYLOAD_JSON, &route),
                     CHR_ENOTFOUND);
    assert_null(route);
    helper_free(&h);
}

/* A route outlives the mappings its loop has let go of. */
static void test_lifetime(void **state)
{
    struct helper h = {0};
    helper_add_table(&h, "t (v FLOAT) TOPIC a");
    helper_compile(&h, 1 << 20);
    ingest_route *old, *now;
    assert_int_equal(ingest_route_make(h.mappings, CHR_LIT("a"), &old), CHR_OK);
    helper_add_table(&h, "u (w FLOAT) TOPIC a");
    helper_compile(&h, 1 << 20);
    assert_int_equal(ingest_route_make(h.mappings, CHR_LIT("a"), &now), CHR_OK);
    assert_int_equal(ingest_route_tables_count(old), 1);
    assert_int_equal(ingest_route_tables_count(now), 2);
    assert_int_equal(ingest_mappings_version(h.mappings), 7);
    assert_string_equal(ingest_route_table(old, 0)->name, "t");
    ingest_route_free(old);
    ingest_route_free(now);
    helper_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_templates),
        cmocka_unit_test(test_many_tables),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_lifetime),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
