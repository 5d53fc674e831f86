/* bench/fleet.c: readings from a seed, as numbers and as PUBLISH packets. */
#include "bench/fleet.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/random.h"

/* The largest packet: topics up to 512 bytes, the longest payload below 100. */
#define PACKET_MAX 700
#define TOPIC_MAX  512

struct fleet {
    struct fleet_config config;
    struct fleet_reading *readings; /* connections * slice_rows */
    uint32_t *starts;               /* connections * (slice_rows + 1) */
    uint32_t *stamps;               /* connections * slice_rows */
    uint8_t **packets;              /* connections */
};

static void *alloc_array(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size);
    if (!p) {
        fprintf(stderr, "fleet: out of memory\n");
        exit(1);
    }
    return p;
}

void fleet_site_name(uint32_t device, char out[24])
{
    snprintf(out, 24, "site-%u", device / 100);
}

void fleet_device_name(uint32_t device, char out[24])
{
    snprintf(out, 24, "dev-%04u", device);
}

/* Fills {site} and {device}; other text stays. Returns the length, 0 when it does not fit. */
static size_t render_topic(const char *template, uint32_t device, char out[TOPIC_MAX])
{
    size_t len = 0;
    char name[24];
    for (const char *p = template; *p;) {
        const char *piece = p;
        size_t piece_len = 1;
        if (strncmp(p, "{site}", 6) == 0) {
            fleet_site_name(device, name);
            piece = name;
            piece_len = strlen(name);
            p += 6;
        } else if (strncmp(p, "{device}", 8) == 0) {
            fleet_device_name(device, name);
            piece = name;
            piece_len = strlen(name);
            p += 8;
        } else {
            p++;
        }
        if (len + piece_len >= TOPIC_MAX)
            return 0;
        memcpy(out + len, piece, piece_len);
        len += piece_len;
    }
    return len;
}

/* A fixed-point number the way a JSON writer prints the double: 21.53, 21.5, 21, -0.07. */
static size_t render_fixed(int32_t hundredths, char *out)
{
    uint32_t magnitude = (uint32_t)(hundredths < 0 ? -hundredths : hundredths);
    int len =
        sprintf(out, "%s%u.%02u", hundredths < 0 ? "-" : "", magnitude / 100, magnitude % 100);
    while (out[len - 1] == '0')
        len--;
    if (out[len - 1] == '.')
        len--;
    return (size_t)len;
}

/* *stamp: where the time's digits start, from the start of the payload; -1 for none. */
static size_t render_payload(enum fleet_payload kind, const struct fleet_reading *r, uint32_t order,
                             char *out, int *stamp)
{
    static const uint8_t orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                         {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    char *p = out;
    *stamp = -1;
    if (kind == FLEET_NUMBER)
        return render_fixed(r->temp_centi, out);
    if (kind == FLEET_CSV)
        order = 0;
    else
        *p++ = '{';
    for (int i = 0; i < 3; i++) {
        static const char *const keys[3] = {"\"ts\":", "\"temp\":", "\"humidity\":"};
        uint8_t field = orders[order][i];
        if (i)
            *p++ = ',';
        if (kind == FLEET_JSON)
            p = stpcpy(p, keys[field]);
        if (field == 0) {
            *stamp = (int)(p - out);
            p += sprintf(p, "%lld", (long long)fleet_ts_ms(r, 0));
        } else if (field == 1) {
            p += render_fixed(r->temp_centi, p);
        } else {
            p += render_fixed(r->humidity_quarters * 25, p);
        }
    }
    if (kind == FLEET_JSON)
        *p++ = '}';
    return (size_t)(p - out);
}

static size_t put_varint(uint8_t *out, size_t v)
{
    size_t n = 0;
    do {
        out[n] = (uint8_t)(v & 127);
        v >>= 7;
        if (v)
            out[n] |= 128;
        n++;
    } while (v);
    return n;
}

/* One PUBLISH [MQTT-3.3]; returns its length, *stamp from the start of the packet or 0. */
static size_t render_packet(const struct fleet_config *c, const char *topic, size_t topic_len,
                            const struct fleet_reading *r, uint32_t order, uint16_t packet_id,
                            uint8_t out[PACKET_MAX], uint32_t *stamp)
{
    char payload[128];
    int payload_stamp;
    size_t payload_len = render_payload(c->payload, r, order, payload, &payload_stamp);
    size_t rest = 2 + topic_len + (c->qos ? 2 : 0) + (c->mqtt_version == 5 ? 1 : 0) + payload_len;
    uint8_t *p = out;
    *p++ = (uint8_t)(0x30 | c->qos << 1);
    p += put_varint(p, rest);
    chr_put_u16be(p, (uint16_t)topic_len);
    p += 2;
    memcpy(p, topic, topic_len);
    p += topic_len;
    if (c->qos) {
        chr_put_u16be(p, packet_id);
        p += 2;
    }
    if (c->mqtt_version == 5)
        *p++ = 0; /* no properties */
    memcpy(p, payload, payload_len);
    *stamp = payload_stamp < 0 ? 0 : (uint32_t)(p - out) + (uint32_t)payload_stamp;
    return (size_t)(p - out) + payload_len;
}

static int32_t clamp(int32_t v, int32_t min, int32_t max)
{
    return v < min ? min : v > max ? max : v;
}

/* Readings of one connection: its devices take turns in an order shuffled each round; every device
 * walks at random from its own start, and ticks once per round with some jitter. */
static void make_readings(const struct fleet_config *c, uint32_t connection,
                          struct fleet_reading *readings, struct chr_random *random)
{
    uint32_t devices = c->slice_devices;
    uint32_t rounds = (c->slice_rows + devices - 1) / devices;
    uint32_t interval_ms = FLEET_LAP_MS / rounds;
    int32_t *temp = alloc_array(devices, sizeof *temp);
    int32_t *humidity = alloc_array(devices, sizeof *humidity);
    uint32_t *turn = alloc_array(devices, sizeof *turn);
    for (uint32_t d = 0; d < devices; d++) {
        temp[d] = (int32_t)chr_random_below(random, 3500);
        humidity[d] = 120 + (int32_t)chr_random_below(random, 200);
        turn[d] = d;
    }
    for (uint32_t i = 0; i < c->slice_rows; i++) {
        if (i % devices == 0)
            for (uint32_t d = devices - 1; d > 0; d--) {
                uint32_t other = (uint32_t)chr_random_below(random, d + 1);
                uint32_t t = turn[d];
                turn[d] = turn[other];
                turn[other] = t;
            }
        uint32_t d = turn[i % devices];
        temp[d] = clamp(temp[d] + (int32_t)chr_random_below(random, 41) - 20, -1500, 4500);
        humidity[d] = clamp(humidity[d] + (int32_t)chr_random_below(random, 9) - 4, 40, 400);
        readings[i] = (struct fleet_reading){
            .device = connection * devices + d,
            .offset_ms =
                i / devices * interval_ms + (uint32_t)chr_random_below(random, interval_ms),
            .temp_centi = temp[d],
            .humidity_quarters = humidity[d],
        };
    }
    free(temp);
    free(humidity);
    free(turn);
}

static bool make_packets(fleet *f, uint32_t connection, struct chr_random *random)
{
    const struct fleet_config *c = &f->config;
    struct fleet_slice slice = fleet_slice_of(f, connection);
    uint32_t *starts = f->starts + (size_t)connection * (c->slice_rows + 1);
    uint32_t *stamps = f->stamps + (size_t)connection * c->slice_rows;
    size_t used = 0, room = (size_t)c->slice_rows * 96 + PACKET_MAX;
    uint8_t *packets = alloc_array(room, 1);
    for (uint32_t i = 0; i < c->slice_rows; i++) {
        if (room - used < PACKET_MAX) {
            room += room / 2;
            packets = realloc(packets, room);
            if (!packets)
                return false;
        }
        char topic[TOPIC_MAX];
        size_t topic_len = render_topic(c->topic, slice.readings[i].device, topic);
        if (topic_len == 0) {
            fprintf(stderr, "fleet: topic empty or longer than %d bytes\n", TOPIC_MAX);
            free(packets);
            return false;
        }
        uint32_t stamp, order = (uint32_t)chr_random_below(random, 6);
        size_t len = render_packet(c, topic, topic_len, &slice.readings[i], order,
                                   (uint16_t)(i + 1), packets + used, &stamp);
        starts[i] = (uint32_t)used;
        stamps[i] = stamp ? (uint32_t)used + stamp : 0;
        used += len;
    }
    starts[c->slice_rows] = (uint32_t)used;
    f->packets[connection] = packets;
    return true;
}

fleet *fleet_create(const struct fleet_config *config)
{
    if (config->connections == 0 || config->slice_rows == 0 ||
        config->slice_rows > FLEET_SLICE_MAX || config->slice_devices == 0 ||
        config->slice_devices > config->slice_rows) {
        fprintf(stderr,
                "fleet: need connections, 1 to %d rows for each, and as many devices at "
                "most\n",
                FLEET_SLICE_MAX);
        return NULL;
    }
    fleet *f = alloc_array(1, sizeof *f);
    f->config = *config;
    size_t connections = config->connections, rows = config->slice_rows;
    f->readings = alloc_array(connections * rows, sizeof *f->readings);
    f->starts = alloc_array(connections * (rows + 1), sizeof *f->starts);
    f->stamps = alloc_array(connections * rows, sizeof *f->stamps);
    f->packets = alloc_array(connections, sizeof *f->packets);
    struct chr_random random = {.state = config->seed};
    for (uint32_t i = 0; i < config->connections; i++) {
        /* Numbers and packets draw from two sequences, so that other topics, payloads or versions
         * leave the readings as they are. */
        struct chr_random shape = {.state = chr_random_u64(&random)};
        struct chr_random values = {.state = chr_random_u64(&random)};
        make_readings(config, i, f->readings + i * rows, &values);
        if (!make_packets(f, i, &shape)) {
            fleet_destroy(f);
            return NULL;
        }
    }
    return f;
}

void fleet_destroy(fleet *f)
{
    if (!f)
        return;
    for (uint32_t i = 0; i < f->config.connections; i++)
        free(f->packets[i]);
    free(f->packets);
    free(f->readings);
    free(f->starts);
    free(f->stamps);
    free(f);
}

struct fleet_slice fleet_slice_of(const fleet *f, uint32_t connection)
{
    size_t rows = f->config.slice_rows;
    return (struct fleet_slice){
        .readings = f->readings + connection * rows,
        .packets = f->packets[connection],
        .starts = f->starts + connection * (rows + 1),
        .stamps = f->stamps + connection * rows,
        .rows = f->config.slice_rows,
    };
}

uint32_t fleet_devices(const fleet *f)
{
    return f->config.connections * f->config.slice_devices;
}

int64_t fleet_ts_ms(const struct fleet_reading *reading, uint32_t lap)
{
    return ((int64_t)FLEET_LAP_FIRST + lap) * FLEET_LAP_MS + reading->offset_ms;
}

void fleet_stamp(const struct fleet_slice *slice, uint32_t first, uint32_t count, uint32_t lap)
{
    char digits[16];
    snprintf(digits, sizeof digits, "%07u", (FLEET_LAP_FIRST + lap) % 10000000);
    uint8_t *packets = slice->packets;
    const uint32_t *stamps = slice->stamps + first;
    if (count == 0 || stamps[0] == 0)
        return;
    for (uint32_t i = 0; i < count; i++)
        memcpy(packets + stamps[i], digits, 7);
}

struct fleet_sums fleet_sums_none(void)
{
    return (struct fleet_sums){.ts_ms_min = INT64_MAX, .ts_ms_max = INT64_MIN};
}

static void add_reading(struct fleet_sums *sums, const struct fleet_reading *r, uint64_t times,
                        uint32_t lap_min, uint32_t lap_max)
{
    int64_t min = fleet_ts_ms(r, lap_min), max = fleet_ts_ms(r, lap_max);
    sums->rows += times;
    sums->temp_centi += (int64_t)times * r->temp_centi;
    sums->humidity_quarters += (int64_t)times * r->humidity_quarters;
    sums->ts_ms_min = min < sums->ts_ms_min ? min : sums->ts_ms_min;
    sums->ts_ms_max = max > sums->ts_ms_max ? max : sums->ts_ms_max;
}

void fleet_add_sums(const fleet *f, uint32_t connection, uint32_t first_lap, uint64_t rows,
                    struct fleet_sums *total, struct fleet_sums *by_device)
{
    struct fleet_slice slice = fleet_slice_of(f, connection);
    for (uint32_t i = 0; i < slice.rows; i++) {
        uint64_t times = rows / slice.rows + (i < rows % slice.rows);
        if (times == 0)
            break;
        const struct fleet_reading *r = &slice.readings[i];
        uint32_t last_lap = first_lap + (uint32_t)(times - 1);
        add_reading(total, r, times, first_lap, last_lap);
        if (by_device)
            add_reading(&by_device[r->device], r, times, first_lap, last_lap);
    }
}
