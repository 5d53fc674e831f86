/* The sums that a fleet promises are those of the bytes that its packets hold, lap after lap. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "bench/fleet.h"

/* What one packet says, read back by the plainest means there are. */
struct said {
    unsigned packet_id;
    char topic[64];
    long long ts_ms;
    long temp_centi, humidity_quarters;
};

static double number_after(const char *payload, const char *key)
{
    const char *at = strstr(payload, key);
    assert_non_null(at);
    return strtod(at + strlen(key), NULL);
}

static long to_integer(double v, double scale)
{
    double scaled = v * scale;
    return (long)(scaled + (scaled < 0 ? -0.5 : 0.5));
}

static struct said read_packet(const struct fleet_config *c, const uint8_t *p, size_t len)
{
    struct said s = {0};
    char payload[256];
    assert_int_equal(p[0], 0x30 | c->qos << 1);
    assert_true(len > 2 && p[1] < 128); /* short topics: one byte of length */
    assert_int_equal(p[1], len - 2);
    size_t topic = chr_get_u16be(p + 2), at = 4 + topic;
    assert_true(topic < sizeof s.topic);
    memcpy(s.topic, p + 4, topic);
    if (c->qos) {
        s.packet_id = chr_get_u16be(p + at);
        at += 2;
    }
    if (c->mqtt_version == 5)
        assert_int_equal(p[at++], 0);
    memcpy(payload, p + at, len - at);
    payload[len - at] = 0;
    if (c->payload == FLEET_JSON) {
        assert_int_equal(payload[0], '{');
        assert_int_equal(payload[len - at - 1], '}');
        s.ts_ms = (long long)number_after(payload, "\"ts\":");
        s.temp_centi = to_integer(number_after(payload, "\"temp\":"), 100);
        s.humidity_quarters = to_integer(number_after(payload, "\"humidity\":"), 4);
    } else {
        char *end;
        s.ts_ms = strtoll(payload, &end, 10);
        s.temp_centi = to_integer(strtod(end + 1, &end), 100);
        s.humidity_quarters = to_integer(strtod(end + 1, &end), 4);
        assert_int_equal(*end, 0);
    }
    return s;
}

static void check(struct fleet_config c, uint32_t first_lap, uint64_t rows)
{
    fleet *f = fleet_create(&c);
    assert_non_null(f);
    struct fleet_sums want = fleet_sums_none(), got = fleet_sums_none();
    struct fleet_sums *by_device = calloc(fleet_devices(f), sizeof *by_device);
    assert_non_null(by_device);
    for (uint32_t d = 0; d < fleet_devices(f); d++)
        by_device[d] = fleet_sums_none();
    for (uint32_t k = 0; k < c.connections; k++) {
        struct fleet_slice slice = fleet_slice_of(f, k);
        int64_t *last = calloc(fleet_devices(f), sizeof *last);
        fleet_add_sums(f, k, first_lap, rows, &got, by_device);
        for (uint64_t n = 0; n < rows; n++) {
            uint32_t pos = (uint32_t)(n % slice.rows);
            fleet_stamp(&slice, pos, 1, first_lap + (uint32_t)(n / slice.rows));
            struct said s = read_packet(&c, slice.packets + slice.starts[pos],
                                        slice.starts[pos + 1] - slice.starts[pos]);
            char site[24], device[24], topic[80];
            fleet_site_name(slice.readings[pos].device, site);
            fleet_device_name(slice.readings[pos].device, device);
            snprintf(topic, sizeof topic, "farm/%s/%s/env", site, device);
            assert_string_equal(s.topic, topic);
            if (c.qos)
                assert_int_equal(s.packet_id, pos + 1);
            want.rows++;
            want.temp_centi += s.temp_centi;
            want.humidity_quarters += s.humidity_quarters;
            want.ts_ms_min = s.ts_ms < want.ts_ms_min ? s.ts_ms : want.ts_ms_min;
            want.ts_ms_max = s.ts_ms > want.ts_ms_max ? s.ts_ms : want.ts_ms_max;
            /* (device, time) never repeats. */
            assert_true(s.ts_ms > last[slice.readings[pos].device]);
            last[slice.readings[pos].device] = s.ts_ms;
        }
        free(last);
    }
    assert_int_equal(got.rows, want.rows);
    assert_int_equal(got.temp_centi, want.temp_centi);
    assert_int_equal(got.humidity_quarters, want.humidity_quarters);
    assert_int_equal(got.ts_ms_min, want.ts_ms_min);
    assert_int_equal(got.ts_ms_max, want.ts_ms_max);
    struct fleet_sums devices = fleet_sums_none();
    for (uint32_t d = 0; d < fleet_devices(f); d++) {
        devices.rows += by_device[d].rows;
        devices.temp_centi += by_device[d].temp_centi;
        devices.humidity_quarters += by_device[d].humidity_quarters;
    }
    assert_int_equal(devices.rows, want.rows);
    assert_int_equal(devices.temp_centi, want.temp_centi);
    assert_int_equal(devices.humidity_quarters, want.humidity_quarters);
    free(by_device);
    fleet_destroy(f);
}

static struct fleet_config config(uint64_t seed)
{
    return (struct fleet_config){.seed = seed,
                                 .connections = 3,
                                 .slice_rows = 700,
                                 .slice_devices = 20,
                                 .topic = "farm/{site}/{device}/env",
                                 .payload = FLEET_JSON,
                                 .mqtt_version = 4,
                                 .qos = 1};
}

static void sums_match_packets(void **state)
{
    (void)state;
    check(config(1), 0, 5);       /* less than a lap */
    check(config(2), 0, 700);     /* one exactly */
    check(config(3), 0, 2555);    /* some and a part */
    check(config(4), 12345, 701); /* later ones */
    struct fleet_config c = config(5);
    c.mqtt_version = 5;
    c.payload = FLEET_CSV;
    c.slice_devices = 7; /* does not divide the rows */
    check(c, 3, 1500);
    c.qos = 0;
    check(c, 0, 1500);
}

static void same_seed_same_readings(void **state)
{
    (void)state;
    struct fleet_config a = config(7), b = config(7);
    b.payload = FLEET_NUMBER;
    b.mqtt_version = 5;
    fleet *fa = fleet_create(&a), *fb = fleet_create(&b);
    for (uint32_t k = 0; k < a.connections; k++)
        assert_memory_equal(fleet_slice_of(fa, k).readings, fleet_slice_of(fb, k).readings,
                            a.slice_rows * sizeof(struct fleet_reading));
    fleet_destroy(fa);
    fleet_destroy(fb);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_match_packets),
        cmocka_unit_test(same_seed_same_readings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
