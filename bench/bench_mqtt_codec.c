/* bench/bench_mqtt_codec.c: ns per PUBLISH, decoded and encoded.
 *
 *     bench_mqtt_codec [packets] [seed]
 * A buffer of PUBLISH packets as a fleet sends them (QoS 1, JSON of two metrics, topics of a
 * thousand devices) is framed and decoded again and again; every result is used. Beside it a floor:
 * the same walk with no check at all. For callgrind: `valgrind --tool=callgrind … 100000`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/random.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"

enum { PACKETS_IN_BUFFER = 4096, BUFFER_BYTES = 1 << 20 };

static uint8_t buffer[BUFFER_BYTES];
static size_t buffer_bytes;
static volatile uint64_t sink;

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void fill(enum mqtt_version version, bool properties, struct chr_random *random)
{
    buffer_bytes = 0;
    for (unsigned i = 0; i < PACKETS_IN_BUFFER; i++) {
        char topic[64], payload[128];
        uint8_t block[64];
        struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
        if (properties) {
            mqtt_put_number(&w, MQTT_PROPERTY_PAYLOAD_FORMAT_INDICATOR, 1);
            mqtt_put_bytes(&w, MQTT_PROPERTY_CONTENT_TYPE, CHR_LIT("application/json"));
            mqtt_put_user(&w, CHR_LIT("fw"), CHR_LIT("1.2.3"));
        }
        int topic_len = snprintf(topic, sizeof topic, "farm/north/esp-%04u/env",
                                 (unsigned)chr_random_below(random, 1000));
        int payload_len = snprintf(payload, sizeof payload, "{\"temp\":%.2f,\"humidity\":%.1f}",
                                   chr_random_f64(random) * 40, chr_random_f64(random) * 100);
        struct mqtt_publish publish = {
            .topic = chr_slice_of(topic, (size_t)topic_len),
            .payload = chr_slice_of(payload, (size_t)payload_len),
            .packet_id = (uint16_t)(i + 1),
            .qos = 1,
            .properties.raw = mqtt_property_block(&w),
        };
        buffer_bytes += mqtt_encode_publish(buffer + buffer_bytes, BUFFER_BYTES - buffer_bytes,
                                            version, &publish);
    }
}

static uint64_t decode_all(enum mqtt_version version)
{
    chr_slice in = chr_slice_of(buffer, buffer_bytes);
    uint64_t sum = 0;
    while (in.len) {
        struct mqtt_frame frame;
        struct mqtt_publish publish;
        struct mqtt_fault fault;
        int used = mqtt_frame(in, 1 << 20, &frame);
        if (used <= 0 || mqtt_decode_publish(&frame, version, &publish, &fault))
            abort();
        sum += publish.packet_id + publish.payload.len + publish.topic.len +
               publish.properties.topic_alias;
        in = chr_slice_of(in.ptr + used, in.len - (size_t)used);
    }
    return sum;
}

/* No check at all, one-byte lengths only: what reading the headers costs. */
static uint64_t decode_floor(void)
{
    const uint8_t *at = buffer, *end = buffer + buffer_bytes;
    uint64_t sum = 0;
    while (at < end) {
        size_t topic = chr_get_u16be(at + 2);
        sum += topic + at[1] + chr_get_u16be(at + 4 + topic);
        at += 2 + at[1];
    }
    return sum;
}

static uint64_t encode_all(enum mqtt_version version, const struct mqtt_publish *publish)
{
    static uint8_t out[512];
    uint64_t sum = 0;
    for (unsigned i = 0; i < PACKETS_IN_BUFFER; i++)
        sum += mqtt_encode_publish(out, sizeof out, version, publish) + out[i % 32];
    return sum;
}

static uint64_t encode_acks(void)
{
    static uint8_t out[MQTT_ACK_BYTES_MAX * PACKETS_IN_BUFFER];
    size_t len = 0;
    for (unsigned i = 0; i < PACKETS_IN_BUFFER; i++)
        len += mqtt_encode_puback(out + len, MQTT_V5, (uint16_t)(i + 1), MQTT_REASON_SUCCESS);
    return len + out[len / 2];
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Times `pass` until `packets` are through; prints the quickest and the median pass. */
#define MEASURE(name, packets, pass)                                                               \
    do {                                                                                           \
        unsigned passes = (unsigned)((packets) / PACKETS_IN_BUFFER) + 1;                           \
        double *ns = (double *)malloc(passes * sizeof *ns);                                        \
        for (unsigned p = 0; p < passes; p++) {                                                    \
            double from = now_ns();                                                                \
            sink += (pass);                                                                        \
            ns[p] = (now_ns() - from) / PACKETS_IN_BUFFER;                                         \
        }                                                                                          \
        qsort(ns, passes, sizeof *ns, by_value);                                                   \
        printf("%-40s %7.1f ns min %7.1f ns p50 %7.1f ns p99\n", name, ns[0], ns[passes / 2],      \
               ns[passes * 99 / 100]);                                                             \
        free(ns);                                                                                  \
    } while (0)

static void print_machine(uint64_t packets, uint64_t seed)
{
    char line[256] = "";
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "model name", 10))
            break;
    if (f)
        fclose(f);
    printf("%s%llu packets a line, seed %llu, %s\n", line, (unsigned long long)packets,
           (unsigned long long)seed, __VERSION__);
}

int main(int argc, char **argv)
{
    uint64_t packets = argc > 1 ? strtoull(argv[1], NULL, 0) : 4000000;
    struct chr_random random = {argc > 2 ? strtoull(argv[2], NULL, 0) : 1};
    print_machine(packets, random.state);

    fill(MQTT_V311, false, &random);
    MEASURE("floor: walk the headers, check nothing", packets, decode_floor());
    MEASURE("decode PUBLISH 3.1.1", packets, decode_all(MQTT_V311));
    fill(MQTT_V5, false, &random);
    MEASURE("decode PUBLISH 5.0", packets, decode_all(MQTT_V5));
    fill(MQTT_V5, true, &random);
    MEASURE("decode PUBLISH 5.0, three properties", packets, decode_all(MQTT_V5));

    struct mqtt_publish publish = {
        .topic = CHR_LIT("farm/north/esp-0001/env"),
        .payload = CHR_LIT("{\"temp\":21.52,\"humidity\":40.2}"),
        .packet_id = 7,
        .qos = 1,
    };
    MEASURE("encode PUBLISH 3.1.1", packets, encode_all(MQTT_V311, &publish));
    MEASURE("encode PUBLISH 5.0", packets, encode_all(MQTT_V5, &publish));
    MEASURE("encode PUBACK", packets, encode_acks());
    return 0;
}
