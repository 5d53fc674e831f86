/* bench/fleet.h: the readings that benches publish, and what they must add up to.
 *
 * A fleet is `connections` slices of `slice_rows` distinct readings, all made from one seed: the
 * same seed gives the same readings in every program, so what a node stored can be compared with
 * arithmetic, with SQLite and with plain arrays. Each reading is kept twice: as numbers, and as a
 * finished PUBLISH packet in one run of bytes per connection, so that publishing a thousand of them
 * is one send() from where they lie.
 *
 * A connection goes over its slice again and again, a "lap" each time. Lap n moves every time stamp
 * by n * FLEET_LAP_MS: (device, ts) never repeats, and only the first seven of the thirteen digits
 * of a time stamp change, all alike for one lap. fleet_stamp() patches them.
 *
 * Packet identifiers are 1 + position in the slice and so never patched: one is free again after
 * slice_rows messages, far more than a window.
 *
 * Values are chosen so that sums can be checked exactly: temperatures are hundredths (21.53, as
 * sensors print them), humidities quarters (40.25), whose double sums are exact in any order. */
#ifndef CHR_BENCH_FLEET_H
#define CHR_BENCH_FLEET_H

#include <stddef.h>
#include <stdint.h>

/* 1,000,000 ms, so that a lap is six decimal digits; lap 0 starts at 2024-12-10T19:13:20Z. */
#define FLEET_LAP_MS    1000000
#define FLEET_LAP_FIRST 1733858
/* Slices hold at most as many readings as there are packet identifiers. */
#define FLEET_SLICE_MAX 65535

enum fleet_payload {
    FLEET_JSON,   /* {"ts":1733858000123,"temp":21.53,"humidity":40.25}, keys in any order */
    FLEET_CSV,    /* 1733858000123,21.53,40.25 */
    FLEET_NUMBER, /* 21.53 */
};

struct fleet_config {
    uint64_t seed;
    uint32_t connections;
    uint32_t slice_rows;    /* per connection, 1 .. FLEET_SLICE_MAX */
    uint32_t slice_devices; /* per connection; devices of two connections are different ones */
    const char *topic;      /* borrowed for fleet_create; {site} and {device} are filled in */
    enum fleet_payload payload;
    int mqtt_version; /* 4: MQTT 3.1.1, 5 */
    int qos;          /* 0 .. 2 */
};

struct fleet_reading {
    uint32_t device;    /* 0 .. connections * slice_devices */
    uint32_t offset_ms; /* within the lap; grows with the position for each device */
    int32_t temp_centi;
    int32_t humidity_quarters;
};

/* One connection's readings, numbers and packets side by side. */
struct fleet_slice {
    const struct fleet_reading *readings;
    uint8_t *packets;
    const uint32_t *starts; /* of packet i; starts[rows] is the end of the last one */
    const uint32_t *stamps; /* where the digits of the time start; 0: the payload has none */
    uint32_t rows;
};

struct fleet_sums {
    uint64_t rows;
    int64_t temp_centi;
    int64_t humidity_quarters;
    int64_t ts_ms_min, ts_ms_max; /* of no rows: INT64_MAX, INT64_MIN */
};

typedef struct fleet fleet;

/* Renders all packets. NULL with a message on stderr when the configuration makes no sense or
 * memory is short. */
fleet *fleet_create(const struct fleet_config *config);
void fleet_destroy(fleet *f); /* NULL is fine */

/* Borrowed until fleet_destroy. */
struct fleet_slice fleet_slice_of(const fleet *f, uint32_t connection);
uint32_t fleet_devices(const fleet *f);
/* The names that stand in topics: "site-3" and "dev-0417". At most 24 bytes with the zero. */
void fleet_site_name(uint32_t device, char out[24]);
void fleet_device_name(uint32_t device, char out[24]);

/* Writes a lap's digits into the packets [first, first + count) of a slice. */
void fleet_stamp(const struct fleet_slice *slice, uint32_t first, uint32_t count, uint32_t lap);

/* Time stamp of a reading in a lap. */
int64_t fleet_ts_ms(const struct fleet_reading *reading, uint32_t lap);

/* Adds up the first `rows` readings that a connection publishes, beginning with `first_lap`; into
 * `total`, and unless NULL into by_device[device]. */
void fleet_add_sums(const fleet *f, uint32_t connection, uint32_t first_lap, uint64_t rows,
                    struct fleet_sums *total, struct fleet_sums *by_device);
struct fleet_sums fleet_sums_none(void);

#endif
