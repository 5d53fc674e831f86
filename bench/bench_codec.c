/* bench/bench_codec.c: chunks: ns per value written and read, bytes per value.
 *
 *     bench_codec [rows] [seed]                 a made fleet: decimals, counters, times, states
 *     bench_codec --csv FILE [--series COLUMN]  a CSV with a header row, sorted by that column;
 * times are row numbers. NULL: empty or NA
 *
 * Written: all columns of chunks of 65,536 rows together, statistics included, as the sealer does.
 * Read: each column block by block, every value of the vector summed once (a loop like an
 * aggregation's), best of several rounds. Floor: the same loop over a plain array. */
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>

#include "base/random.h"
#include "db/catalog.h"
#include "db/chunk.h"
#include "db/codec/kernels.h"

/* The consumer's loop is to cost what an executor's does, not what -O2 of gcc makes of it. */
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("O3")
#endif

enum { COLUMNS_MAX = 40, ROUNDS = 5, CHUNKS_MAX = 512 };

struct column {
    char name[64];
    struct db_chunk_column_in in;
    uint64_t bytes, run_bytes;
    double read_ns;
    char codecs[96];
};

static struct column columns[COLUMNS_MAX];
static uint32_t columns_count, rows_count, runs_count;
static uint64_t *entry;
static uint32_t *ordinal, *starts;
static int64_t *times;
static volatile double sink;

static double now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *must(size_t bytes)
{
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p)
        abort();
    return p;
}

static struct column *add(const char *name, uint16_t id, enum db_type type, void *data)
{
    struct column *c = &columns[columns_count++];
    snprintf(c->name, sizeof c->name, "%s", name);
    c->in = (struct db_chunk_column_in){.id = id, .type = type, .data = data};
    return c;
}

/* Row ids, HLC and arrival times as a node that commits every few milliseconds makes them. */
static void add_system(struct chr_random *random)
{
    int64_t *hlc = must((size_t)rows_count * 8), *received = must((size_t)rows_count * 8);
    entry = must((size_t)rows_count * 8);
    ordinal = must((size_t)rows_count * 4);
    for (uint32_t r = 0; r < runs_count; r++) {
        uint32_t end = r + 1 < runs_count ? starts[r + 1] : rows_count;
        uint64_t at = 1000;
        uint32_t last = 0;
        for (uint32_t i = starts[r]; i < end; i++) {
            at += 1 + chr_random_below(random, 3);
            last = (uint32_t)chr_random_below(random, 1000);
            entry[i] = at;
            ordinal[i] = last;
            hlc[i] = (int64_t)((UINT64_C(1733000000000) + at * 5) << 16);
            received[i] = 1733000000000000 + (int64_t)at * 5000 + (int64_t)(at * 7919 % 500);
        }
    }
    add("_received_at", DB_COLUMN_RECEIVED_AT, DB_TIMESTAMP, received);
    add("_hlc", DB_COLUMN_HLC, DB_INT, hlc);
}

/* -- A made fleet -------------------------------------------------------------------------------*/

static void make_fleet(uint32_t rows, uint64_t seed)
{
    struct chr_random random = {.state = seed};
    enum { DEVICES = 1000 };
    static char names[DEVICES][16];
    static chr_slice dict[DEVICES];
    rows_count = rows;
    starts = must((DEVICES + 1) * sizeof *starts);
    times = must((size_t)rows * 8);
    double *temperature = must((size_t)rows * 8), *humidity = must((size_t)rows * 8);
    double *noise = must((size_t)rows * 8), *battery = must((size_t)rows * 8);
    int64_t *sequence = must((size_t)rows * 8), *rssi = must((size_t)rows * 8);
    uint8_t *alarm = must(rows);
    uint32_t *ids = must((size_t)rows * 4), *state = must((size_t)rows * 4);
    static const char *const states[] = {"ok", "low battery", "calibrating", "sensor fault"};
    static chr_slice state_dict[4];
    for (unsigned i = 0; i < 4; i++)
        state_dict[i] = chr_slice_cstr(states[i]);
    for (unsigned d = 0; d < DEVICES; d++) {
        snprintf(names[d], sizeof names[d], "esp-%04u", d);
        dict[d] = chr_slice_cstr(names[d]);
        uint32_t from = (uint32_t)((uint64_t)rows * d / DEVICES);
        uint32_t to = (uint32_t)((uint64_t)rows * (d + 1) / DEVICES);
        if (from == to)
            continue;
        starts[runs_count++] = from;
        int64_t t = 1733000000000000 + (int64_t)chr_random_below(&random, 10000) * 1000;
        double walk = 15 + chr_random_f64(&random) * 10, volts = 4.1;
        for (uint32_t i = from; i < to; i++) {
            /* Every 10 s by a clock of milliseconds, some of them jitter, the odd one lost. */
            t += chr_random_below(&random, 200) ? 10000000 : 20000000;
            times[i] = t + (int64_t)chr_random_below(&random, 4) * 1000;
            walk += (chr_random_f64(&random) - 0.5) / 2;
            temperature[i] = round(walk * 10) / 10;
            humidity[i] = round((40 + chr_random_f64(&random) * 20) * 100) / 100;
            noise[i] = chr_random_f64(&random);
            battery[i] = round((volts -= 0.00001) * 1000) / 1000;
            sequence[i] = i - from + 100;
            rssi[i] = -60 - (int64_t)chr_random_below(&random, 40);
            alarm[i] = chr_random_below(&random, 500) == 0;
            ids[i] = d;
            state[i] = chr_random_below(&random, 300) ? 0 : (uint32_t)chr_random_below(&random, 4);
        }
    }
    struct column *c = add("device_id", 1, DB_STRING, NULL);
    c->in.dict = dict;
    c->in.dict_count = DEVICES;
    c->in.ids = ids;
    add("ts", 2, DB_TIMESTAMP, times);
    add("seq", 3, DB_INT, sequence);
    add("temp", 4, DB_FLOAT, temperature);
    add("humidity", 5, DB_FLOAT, humidity);
    add("battery", 6, DB_FLOAT, battery);
    add("noise", 7, DB_FLOAT, noise);
    add("rssi", 8, DB_INT, rssi);
    add("alarm", 9, DB_BOOLEAN, alarm);
    c = add("state", 10, DB_STRING, NULL);
    c->in.dict = state_dict;
    c->in.dict_count = 4;
    c->in.ids = state;
    add_system(&random);
}

/* -- A CSV --------------------------------------------------------------------------------------*/

struct cell {
    chr_slice text;
    bool null;
};

static struct cell *cells; /* [row][csv column] */
static uint32_t csv_columns;
static uint32_t sort_column;

/* One field of RFC 4180, its quotes undone in place. */
static char *field(char *p, struct cell *cell)
{
    char *from = p, *to = p;
    if (*p == '"') {
        from = to = ++p;
        while (*p && !(p[0] == '"' && p[1] != '"')) {
            if (*p == '"')
                p++;
            *to++ = *p++;
        }
        if (*p)
            p++;
    } else {
        while (*p && *p != ',' && *p != '\n' && *p != '\r')
            p++;
        to = p;
    }
    cell->text = chr_slice_of(from, (size_t)(to - from));
    cell->null = cell->text.len == 0 || chr_slice_eq(cell->text, CHR_LIT("NA"));
    return p;
}

static int by_series(const void *a, const void *b)
{
    const struct cell *x = a, *y = b;
    int c = chr_slice_cmp(x[sort_column].text, y[sort_column].text);
    return c ? c : (x < y ? -1 : x > y);
}

static enum db_type type_of(uint32_t column)
{
    enum db_type type = DB_INT;
    for (uint32_t i = 0; i < rows_count; i++) {
        const struct cell *c = &cells[(size_t)i * csv_columns + column];
        char text[64], *end;
        if (c->null)
            continue;
        if (c->text.len >= sizeof text || c->text.len == 0)
            return DB_STRING;
        memcpy(text, c->text.ptr, c->text.len);
        text[c->text.len] = 0;
        strtoll(text, &end, 10);
        if (*end == 0)
            continue;
        strtod(text, &end);
        if (*end)
            return DB_STRING;
        type = DB_FLOAT;
    }
    return type;
}

static void add_csv_column(uint32_t column, const char *name)
{
    enum db_type type = type_of(column);
    chr_slice *strings = must((size_t)rows_count * sizeof *strings);
    int64_t *ints = must((size_t)rows_count * 8);
    double *floats = must((size_t)rows_count * 8);
    uint64_t *validity = must(DB_BIT_WORDS(rows_count) * 8);
    bool nulls = false;
    for (uint32_t i = 0; i < rows_count; i++) {
        const struct cell *c = &cells[(size_t)i * csv_columns + column];
        char text[64] = {0};
        if (c->null) {
            nulls = true;
            continue;
        }
        db_bit_set(validity, i);
        strings[i] = c->text;
        if (type == DB_STRING)
            continue;
        memcpy(text, c->text.ptr, c->text.len);
        ints[i] = strtoll(text, NULL, 10);
        floats[i] = strtod(text, NULL);
    }
    void *data = type == DB_STRING ? (void *)strings : type == DB_INT ? (void *)ints : floats;
    struct column *c = add(name, (uint16_t)(column + 1), type, data);
    c->in.validity = nulls ? validity : NULL;
}

static void read_csv(const char *path, const char *series)
{
    FILE *f = fopen(path, "r");
    if (!f || fseek(f, 0, SEEK_END))
        abort();
    size_t bytes = (size_t)ftell(f);
    char *text = must(bytes + 1);
    rewind(f);
    if (fread(text, 1, bytes, f) != bytes)
        abort();
    fclose(f);
    struct cell header[COLUMNS_MAX];
    char *p = text;
    while (csv_columns < COLUMNS_MAX - 4) {
        p = field(p, &header[csv_columns++]);
        if (*p != ',')
            break;
        p++;
    }
    uint32_t capacity = 1 << 20;
    cells = must((size_t)capacity * csv_columns * sizeof *cells);
    while (*p && rows_count < capacity) {
        while (*p == '\n' || *p == '\r')
            p++;
        if (!*p)
            break;
        for (uint32_t c = 0; c < csv_columns; c++) {
            p = field(p, &cells[(size_t)rows_count * csv_columns + c]);
            if (*p == ',')
                p++;
        }
        rows_count++;
    }
    starts = must((size_t)rows_count * sizeof *starts + 4);
    runs_count = 1;
    for (uint32_t c = 0; series && c < csv_columns; c++) {
        if (!chr_slice_eq(header[c].text, chr_slice_cstr(series)))
            continue;
        sort_column = c;
        qsort(cells, rows_count, csv_columns * sizeof *cells, by_series);
        for (uint32_t i = 1; i < rows_count; i++) {
            if (!chr_slice_eq(cells[(size_t)i * csv_columns + c].text,
                              cells[((size_t)i - 1) * csv_columns + c].text))
                starts[runs_count++] = i;
        }
    }
    times = must((size_t)rows_count * 8);
    for (uint32_t r = 0; r < runs_count; r++) {
        uint32_t end = r + 1 < runs_count ? starts[r + 1] : rows_count;
        for (uint32_t i = starts[r]; i < end; i++)
            times[i] = 1733000000000000 + (int64_t)(i - starts[r]) * 1000000;
    }
    for (uint32_t c = 0; c < csv_columns; c++) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", CHR_SLICE_ARGS(header[c].text));
        add_csv_column(c, name);
    }
    struct chr_random random = {.state = 1};
    add_system(&random);
}

/* -- Measuring ----------------------------------------------------------------------------------*/

struct chunk {
    struct db_chunk_part *parts;
    uint32_t parts_count, rows;
};
static struct chunk chunks[CHUNKS_MAX];
static uint32_t chunks_count;

static void keep(const struct db_chunk_output *out)
{
    struct chunk *k = &chunks[chunks_count++];
    k->rows = out->rows;
    k->parts_count = out->parts_count;
    k->parts = must(out->parts_count * sizeof *k->parts);
    for (uint32_t i = 0; i < out->parts_count; i++) {
        uint8_t *copy = must(out->parts[i].value.len);
        memcpy(copy, out->parts[i].value.ptr, out->parts[i].value.len);
        k->parts[i] = out->parts[i];
        k->parts[i].value.ptr = copy;
    }
}

static chr_slice part(const struct chunk *k, enum db_chunk_part_kind kind, uint16_t column)
{
    for (uint32_t i = 0; i < k->parts_count; i++) {
        if (k->parts[i].kind == kind && k->parts[i].column == column)
            return k->parts[i].value;
    }
    return chr_slice_of(NULL, 0);
}

/* ns per row of all columns; keeps the chunks when asked. */
static double write_once(db_chunk_writer *writer, bool keeping)
{
    struct db_chunk_column_in in_columns[COLUMNS_MAX];
    struct db_chunk_output out;
    struct chr_errmsg msg;
    for (uint32_t c = 0; c < columns_count; c++)
        in_columns[c] = columns[c].in;
    struct db_chunk_input in = {.table_id = 1,
                                .rows = rows_count,
                                .rows_max = DB_CHUNK_ROWS_MAX,
                                .entry = entry,
                                .ordinal = ordinal,
                                .time_us = times,
                                .run_starts = starts,
                                .runs_count = runs_count,
                                .columns = in_columns,
                                .columns_count = columns_count};
    double spent = 0;
    for (in.first = 0; in.first < in.rows; in.first += out.rows) {
        double from = now_ns();
        if (db_chunk_write(writer, &in, &out, &msg)) {
            fprintf(stderr, "%s\n", msg.text);
            exit(1);
        }
        spent += now_ns() - from;
        if (keeping && chunks_count < CHUNKS_MAX)
            keep(&out);
    }
    return spent / rows_count;
}

/* What an aggregation does with a vector; strings: their codes or lengths. */
static double consume(const struct db_vector *v)
{
    double sum = 0;
    if (v->form == DB_VECTOR_CONSTANT)
        return v->count;
    if (v->form == DB_VECTOR_DICT) {
        uint32_t codes = 0;
        for (uint32_t i = 0; i < v->count; i++)
            codes += v->codes[i];
        return codes;
    }
    switch (v->type) {
    case DB_FLOAT: {
        double sums[8] = {0};
        for (uint32_t i = 0; i + 8 <= v->count; i += 8)
            for (unsigned j = 0; j < 8; j++)
                sums[j] += v->f64[i + j];
        for (unsigned j = 0; j < 8; j++)
            sum += sums[j];
        return sum;
    }
    case DB_BOOLEAN: {
        uint32_t ones = 0;
        for (uint32_t i = 0; i < v->count; i++)
            ones += v->b8[i];
        return ones;
    }
    case DB_STRING:
    case DB_BLOB: {
        size_t len = 0;
        for (uint32_t i = 0; i < v->count; i++)
            len += v->str[i].len;
        return (double)len;
    }
    default: {
        int64_t total = 0;
        for (uint32_t i = 0; i < v->count; i++)
            total = (int64_t)((uint64_t)total + (uint64_t)v->i64[i]);
        return (double)total;
    }
    }
}

static void note_codec(struct column *c, const char *name)
{
    size_t have = strlen(c->codecs);
    if (!strstr(c->codecs, name) && have + strlen(name) + 2 < sizeof c->codecs)
        snprintf(c->codecs + have, sizeof c->codecs - have, "%s%s", have ? " " : "", name);
}

/* ns per value, checksums and dictionaries included, or the decoding alone. */
static double read_column(struct column *c, uint16_t id, bool verify, uint64_t *bytes)
{
    db_chunk_head *head;
    db_chunk_column *column;
    struct chr_errmsg msg;
    double best = HUGE_VAL;
    if (db_chunk_head_new(&head) || db_chunk_column_new(&column))
        abort();
    for (unsigned round = 0; round < ROUNDS; round++) {
        double spent = 0, sum = 0;
        uint64_t values = 0;
        *bytes = 0;
        for (uint32_t k = 0; k < chunks_count; k++) {
            if (db_chunk_head_open(head, part(&chunks[k], DB_CHUNK_HEAD, 0), true, &msg))
                abort();
            uint32_t at = (uint32_t)db_chunk_head_find(head, id);
            uint16_t stored = db_chunk_head_stored_in(head, at);
            chr_slice value = part(&chunks[k], DB_CHUNK_COLUMN, stored);
            *bytes += stored == id ? value.len : 0;
            double from = now_ns();
            if (db_chunk_column_open(column, head, at, value, verify, &msg))
                abort();
            for (uint32_t b = 0; b * DB_VECTOR_ROWS < chunks[k].rows; b++) {
                struct db_vector v;
                if (db_chunk_column_decode(column, b, &v, &msg))
                    abort();
                sum += consume(&v);
                values += v.count;
            }
            spent += now_ns() - from;
            for (uint32_t b = 0; c && round == 0 && b * DB_VECTOR_ROWS < chunks[k].rows; b++)
                note_codec(c, db_chunk_column_codec(column, b));
        }
        sink = sum;
        if (spent / (double)values < best)
            best = spent / (double)values;
    }
    db_chunk_head_free(head);
    db_chunk_column_free(column);
    return best;
}

static double floor_ns(void)
{
    double best = HUGE_VAL;
    double *plain = must((size_t)rows_count * 8);
    for (unsigned round = 0; round < ROUNDS; round++) {
        double from = now_ns(), sum = 0;
        for (uint32_t at = 0; at + DB_VECTOR_ROWS <= rows_count; at += DB_VECTOR_ROWS) {
            struct db_vector v = {.type = DB_FLOAT, .count = DB_VECTOR_ROWS, .f64 = plain + at};
            sum += consume(&v);
        }
        sink = sum;
        double spent = (now_ns() - from) / rows_count;
        best = spent < best ? spent : best;
    }
    free(plain);
    return best;
}

static void report(void)
{
    uint64_t total = 0, user = 0, bytes, head_bytes = 0, run_bytes = 0;
    printf("%-22s %-10s %9s %9s %9s  %s\n", "column", "type", "bytes/val", "ns/val", "no crc",
           "codecs");
    for (uint32_t c = 0; c < columns_count + 2; c++) {
        bool row_id = c >= columns_count;
        uint16_t id = !row_id              ? columns[c].in.id
                      : c == columns_count ? DB_COLUMN_ENTRY
                                           : DB_COLUMN_ORDINAL;
        struct column none = {0}, *of = row_id ? &none : &columns[c];
        double verified = read_column(of, id, true, &bytes);
        double bare = read_column(NULL, id, false, &bytes);
        printf("%-22s %-10s %9.3f %9.3f %9.3f  %s\n",
               row_id ? c == columns_count ? "row id: entry" : "row id: ordinal" : of->name,
               db_type_name(row_id ? DB_INT : of->in.type), (double)bytes / rows_count, verified,
               bare, of->codecs);
        total += bytes;
        user += id < DB_COLUMN_RECEIVED_AT ? bytes : 0;
    }
    for (uint32_t k = 0; k < chunks_count; k++) {
        for (uint32_t p = 0; p < chunks[k].parts_count; p++) {
            if (chunks[k].parts[p].kind == DB_CHUNK_HEAD)
                head_bytes += chunks[k].parts[p].value.len;
            if (chunks[k].parts[p].kind == DB_CHUNK_RUNS)
                run_bytes += chunks[k].parts[p].value.len;
        }
    }
    printf("bytes per row: %.2f user columns, %.2f with system columns, heads %.2f, run statistics "
           "%.2f; %u chunks\n",
           (double)user / rows_count, (double)total / rows_count, (double)head_bytes / rows_count,
           (double)run_bytes / rows_count, chunks_count);
}

int main(int argc, char **argv)
{
    const char *csv = NULL, *series = NULL;
    uint32_t rows = 1000000;
    uint64_t seed = 1;
    for (int i = 1, plain = 0; i < argc; i++) {
        if (strcmp(argv[i], "--csv") == 0 && i + 1 < argc)
            csv = argv[++i];
        else if (strcmp(argv[i], "--series") == 0 && i + 1 < argc)
            series = argv[++i];
        else if (plain++ == 0)
            rows = (uint32_t)strtoul(argv[i], NULL, 10);
        else
            seed = strtoull(argv[i], NULL, 10);
    }
    struct utsname os;
    uname(&os);
    if (csv)
        read_csv(csv, series);
    else
        make_fleet(rows, seed);
    db_chunk_writer *writer;
    if (db_chunk_writer_new(&writer))
        abort();
    double written = write_once(writer, true);
    for (unsigned round = 1; round < ROUNDS; round++)
        written = fmin(written, write_once(writer, false));
    printf("%s %s, kernels %s, %u rows, %u series, %u columns, seed %llu\n", os.sysname, os.machine,
           db__kernels()->name, rows_count, runs_count, columns_count + 2,
           (unsigned long long)seed);
    printf("written: %.1f ns a row, %.2f ns a value, %.2f million rows/s\n", written,
           written / (columns_count + 2), 1e3 / written);
    printf("floor of reading: %.3f ns a value of a plain array\n", floor_ns());
    report();
    db_chunk_writer_free(writer);
    return 0;
}
