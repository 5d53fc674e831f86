/* bench/bench_ingest_decode.c: nanoseconds from a payload in a receive buffer to its row in the
 * batch, flushing included.
 *
 *     bench_ingest_decode [seed [shape]]      shape: 0 is the first of the table; all without it
 *
 * Payloads vary and lie one after another in a buffer of some MiB, as a socket delivers them; keys
 * are shuffled. Beside each shape stands the plainest loop over the same bytes, memchr for line
 * ends, as the floor that memory sets. The best of several rounds is the figure, the median shows
 * how steady the machine was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "broker/ingest/ingest.h"
#include "broker/ingest/internal.h"

#define MESSAGES 65536
#define BATCH    2048
#define ROUNDS   15
#define DEVICES  64

static const char *const shapes[] = {
    "wide JSON, keys shuffled", "wide JSON, keys in order", "bare number",
    "metrics, two rows",        "JSON with a string",       "CSV line",
    "JSON, 8 unknown keys"};
enum { WIDE_SHUFFLED, WIDE, NUMBER, METRICS, STRING_FIELD, CSV, UNKNOWN, SHAPES };

static struct db_column_def wide_columns[] = {{.type = DB_STRING, .name = "site"},
                                              {.type = DB_STRING, .name = "device_id"},
                                              {.type = DB_TIMESTAMP, .name = "ts"},
                                              {.type = DB_FLOAT, .name = "temp"},
                                              {.type = DB_FLOAT, .name = "humidity"}};
static struct db_column_def readings_columns[] = {
    {.type = DB_STRING, .name = "reading_id"}, {.type = DB_STRING, .name = "device_id"},
    {.type = DB_TIMESTAMP, .name = "ts"},      {.type = DB_INT, .name = "seq"},
    {.type = DB_STRING, .name = "metric"},     {.type = DB_FLOAT, .name = "value"}};
static struct db_column_def string_columns[] = {{.type = DB_STRING, .name = "device_id"},
                                                {.type = DB_TIMESTAMP, .name = "ts"},
                                                {.type = DB_STRING, .name = "status"},
                                                {.type = DB_FLOAT, .name = "temp"},
                                                {.type = DB_BOOLEAN, .name = "on"}};
static char *wide_topics[] = {"farm/{site}/{device_id}/env"};
static char *csv_topics[] = {"csv/{site}/{device_id}/env"};
static char *readings_topics[] = {"sensors/{device_id}/{metric}", "sensors/{device_id}"};
static char *string_topics[] = {"state/{device_id}"};

#define TABLE(n, i, cols, tops, fmt)                                                               \
    {                                                                                              \
        .id = (i), .schema_version = 1, .name = n, .columns_count = sizeof(cols) / sizeof *(cols), \
        .columns = (cols), .time_column = -1, .topics_count = sizeof(tops) / sizeof *(tops),       \
        .topics = (tops), .format = (fmt),                                                         \
    }
static struct db_column_def csv_columns[5];
static struct db_table_def tables[] = {
    TABLE("csv", 1, csv_columns, csv_topics, DB_PAYLOAD_CSV),
    TABLE("env", 2, wide_columns, wide_topics, DB_PAYLOAD_AUTO),
    TABLE("readings", 3, readings_columns, readings_topics, DB_PAYLOAD_AUTO),
    TABLE("state", 4, string_columns, string_topics, DB_PAYLOAD_AUTO),
};

struct set {
    char *bytes;
    uint32_t starts[MESSAGES + 1];
    uint8_t devices[MESSAGES];
};

static int wide_payload(char *out, struct chr_random *r, bool shuffle)
{
    char parts[3][40];
    unsigned order[3] = {0, 1, 2};
    snprintf(parts[0], 40, "\"ts\":%llu",
             (unsigned long long)(UINT64_C(1733858000000) + chr_random_below(r, 1000000)));
    unsigned temp = (unsigned)chr_random_below(r, 4000), hum = (unsigned)chr_random_below(r, 1000);
    snprintf(parts[1], 40, "\"temp\":%u.%02u", temp / 100, temp % 100);
    snprintf(parts[2], 40, "\"humidity\":%u.%u", hum / 10, hum % 10);
    for (unsigned i = 2; i > 0 && shuffle; i--) {
        unsigned k = (unsigned)chr_random_below(r, i + 1), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    return sprintf(out, "{%s,%s,%s}", parts[order[0]], parts[order[1]], parts[order[2]]);
}

static int payload(char *out, struct chr_random *r, int shape)
{
    unsigned long long ms = UINT64_C(1733858000000) + chr_random_below(r, 1000000);
    unsigned a = (unsigned)chr_random_below(r, 4000), b = (unsigned)chr_random_below(r, 1000);
    static const char *const states[] = {"ok", "starting", "low battery", "offline"};
    switch (shape) {
    case NUMBER:
        return sprintf(out, "%u.%02u", a / 100, a % 100);
    case METRICS:
        return sprintf(out,
                       "{\"ts\":%llu,\"seq\":%u,\"metrics\":{\"temp\":%u.%02u,\"humidity\":%u.%u}}",
                       ms, b, a / 100, a % 100, b / 10, b % 10);
    case STRING_FIELD:
        return sprintf(out, "{\"ts\":%llu,\"status\":\"%s\",\"temp\":%u.%02u,\"on\":%s}", ms,
                       states[b % 4], a / 100, a % 100, b & 4 ? "true" : "false");
    case CSV:
        return sprintf(out, "%llu,%u.%02u,%u.%u", ms, a / 100, a % 100, b / 10, b % 10);
    case UNKNOWN:
        return sprintf(
            out,
            "{\"fw\":\"1.2.%u\",\"rssi\":-%u,\"ts\":%llu,\"up\":%u,\"temp\":%u.%02u,\"ok\":"
            "true,\"ch\":%u,\"humidity\":%u.%u,\"heap\":%u,\"ip\":\"10.0.0.%u\",\"err\":null}",
            b % 10, b % 90, ms, a, a / 100, a % 100, b % 13, b / 10, b % 10, a * 7, b % 250);
    default:
        return wide_payload(out, r, shape == WIDE_SHUFFLED);
    }
}

static void topic_of(char *out, int shape, unsigned device)
{
    static const char *const forms[SHAPES] = {
        "farm/site-%u/dev-%04u/env", "farm/site-%u/dev-%04u/env", "sensors/dev-%u%04u/temp",
        "sensors/dev-%u%04u",        "state/dev-%u%04u",          "csv/site-%u/dev-%04u/env",
        "farm/site-%u/dev-%04u/env"};
    sprintf(out, forms[shape], device % 4, device);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    int only = argc > 2 ? atoi(argv[2]) : -1;
    const struct chr_clock *clock = chr_clock_system();
    memcpy(csv_columns, wide_columns, sizeof csv_columns);
    const struct db_table_def *pointers[4];
    for (unsigned i = 0; i < 4; i++) {
        struct chr_errmsg msg;
        if (db_table_def_complete(&tables[i], &msg)) {
            fprintf(stderr, "%s\n", msg.text);
            return 1;
        }
        pointers[i] = &tables[i];
    }
    ingest_mappings *mappings;
    ingest_decoder *decoder;
    if (ingest__mappings_of_tables(pointers, 4, 1, &mappings) ||
        ingest_decoder_new(3u << 20, &decoder) || ingest_decoder_use(decoder, mappings))
        return 1;
    struct db_entry entry;
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    static struct set set;
    printf("seed %llu, %d messages of %d devices, batches of %d, %d rounds\n",
           (unsigned long long)seed, MESSAGES, DEVICES, BATCH, ROUNDS);
    printf("%-26s %8s %10s %10s %10s\n", "shape", "bytes", "best ns", "median ns", "scan ns");
    for (int shape = 0; shape < SHAPES; shape++) {
        if (only >= 0 && only != shape)
            continue;
        struct chr_random r = {.state = seed + (uint64_t)shape};
        set.bytes = malloc((size_t)MESSAGES * 256);
        ingest_route *routes[DEVICES];
        for (unsigned d = 0; d < DEVICES; d++) {
            char topic[64];
            topic_of(topic, shape, d);
            if (ingest_route_make(mappings, chr_slice_cstr(topic), &routes[d]) || !routes[d])
                return 1;
        }
        uint32_t at = 0;
        for (unsigned i = 0; i < MESSAGES; i++) {
            set.starts[i] = at;
            set.devices[i] = (uint8_t)chr_random_below(&r, DEVICES);
            at += (uint32_t)payload(set.bytes + at, &r, shape);
        }
        set.starts[MESSAGES] = at;
        double ns[ROUNDS], scan = 1e18;
        size_t ends = 0;
        for (unsigned round = 0; round < ROUNDS; round++) {
            int64_t begin = chr_clock_mono_us(clock);
            for (unsigned i = 0; i < MESSAGES; i++) {
                struct ingest_reject why;
                chr_slice p =
                    chr_slice_of(set.bytes + set.starts[i], set.starts[i + 1] - set.starts[i]);
                if (ingest_decode(decoder, routes[set.devices[i]], p, 1733858000000000, UINT32_MAX,
                                  &why)) {
                    fprintf(stderr, "rejected: %s\n", why.reason.text);
                    return 1;
                }
                if (i % BATCH == BATCH - 1) {
                    db_entry_begin(&entry, 0, 1);
                    ingest_flush(decoder, &entry);
                    if (db_entry_end(&entry))
                        return 1;
                }
            }
            ns[round] = (double)(chr_clock_mono_us(clock) - begin) * 1000 / MESSAGES;
            begin = chr_clock_mono_us(clock);
            for (unsigned i = 0; i < MESSAGES; i++)
                ends +=
                    memchr(set.bytes + set.starts[i], 1, set.starts[i + 1] - set.starts[i]) != NULL;
            double s = (double)(chr_clock_mono_us(clock) - begin) * 1000 / MESSAGES;
            scan = s < scan ? s : scan;
        }
        qsort(ns, ROUNDS, sizeof *ns, by_value);
        printf("%-26s %8.1f %10.1f %10.1f %10.1f%s\n", shapes[shape], (double)at / MESSAGES, ns[0],
               ns[ROUNDS / 2], scan, ends ? "!" : "");
        for (unsigned d = 0; d < DEVICES; d++)
            ingest_route_free(routes[d]);
        free(set.bytes);
    }
    db_entry_free(&entry);
    ingest_decoder_free(decoder);
    ingest_mappings_release(mappings);
    return 0;
}
