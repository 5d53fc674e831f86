/* tests/fuzz/fuzz_chunk.c: arbitrary bytes in the place of one value of a chunk.
 *
 *     byte 0  which of the made chunks      byte 1  which part of it is replaced, 255: round trip
 *     bytes 2 .. the value
 *
 * The checksum is made right, so that what is behind it is reached (K3). Every block of the column,
 * all statistics and runs are then read, and strings touched at both ends. With 255 the bytes are
 * taken as integers and as doubles and must come back from the codecs (C1).
 * CHR_FUZZ_SEEDS=directory writes the parts as a corpus. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/chunk_internal.h"
#include "db/value_crc.h"
#include "tests/db/chunk_kit.h"

#define CHUNKS 6

static struct kit_chunk chunks[CHUNKS];
static db_chunk_head *head;
static db_chunk_column *column;
static db_chunk_runs *runs;
static struct db_ints *ints;
static struct chr_buf encoded;
static volatile unsigned touched;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void write_seeds(const char *dir)
{
    for (unsigned c = 0; c < CHUNKS; c++) {
        for (uint32_t p = 0; p < chunks[c].parts_count; p++) {
            char path[512];
            snprintf(path, sizeof path, "%s/part-%u-%u", dir, c, p);
            FILE *f = fopen(path, "wb");
            uint8_t which[2] = {(uint8_t)c, (uint8_t)p};
            if (!f || fwrite(which, 1, 2, f) != 2 ||
                fwrite(chunks[c].parts[p].value.ptr, 1, chunks[c].parts[p].value.len, f) !=
                    chunks[c].parts[p].value.len)
                abort();
            fclose(f);
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    struct chr_random random = {.state = 77};
    db_chunk_writer *writer;
    (void)argc;
    (void)argv;
    ints = aligned_alloc(64, (sizeof *ints + 63) / 64 * 64);
    chr_buf_init(&encoded, 1 << 20);
    if (!ints || db_chunk_writer_new(&writer) || db_chunk_head_new(&head) ||
        db_chunk_column_new(&column) || db_chunk_runs_new(&runs))
        abort();
    for (unsigned c = 0; c < CHUNKS; c++) {
        struct kit_shape shape = {.rows = c < 3 ? 200 + c * 50 : 2100,
                                  .run_rows = (uint32_t[]){40, 5, 0, 60, 300, 20}[c],
                                  .columns_count = 14,
                                  .string_bytes = 90,
                                  .foreign_hlc = c & 1,
                                  .wild = c >= 4};
        struct kit_table *table = kit_table_new(&random, &shape);
        struct db_chunk_input in = kit_input(table);
        struct db_chunk_output out;
        if (db_chunk_write(writer, &in, &out, NULL))
            abort();
        chunks[c] = kit_keep(&out);
        kit_table_free(table);
    }
    db_chunk_writer_free(writer);
    if (getenv("CHR_FUZZ_SEEDS"))
        write_seeds(getenv("CHR_FUZZ_SEEDS"));
    return 0;
}

static void touch(const struct db_vector *v)
{
    for (uint32_t i = 0; i < v->count; i++) {
        if (!db_type_is_bytes(v->type) || !db_vector_valid(v, i))
            continue;
        chr_slice s = v->str[db_vector_at(v, i)];
        if (s.len)
            touched += s.ptr[0] + s.ptr[s.len - 1];
    }
}

static void read_column(uint32_t at, chr_slice value)
{
    struct db_vector v;
    struct chr_errmsg msg;
    if (db_chunk_column_open(column, head, at, value, true, &msg))
        return;
    for (uint32_t b = 0; b < db_chunk_head_info(head)->blocks; b++) {
        if (db_chunk_column_decode(column, b, &v, &msg) == 0)
            touch(&v);
        touched += (unsigned char)db_chunk_column_codec(column, b)[0];
    }
}

static void touch_value(const struct db_value *v)
{
    if (!v->null && db_type_is_bytes(v->type) && v->bytes.len)
        touched += v->bytes.ptr[0] + v->bytes.ptr[v->bytes.len - 1];
}

static void touch_stats(const struct db_chunk_stats *stats)
{
    touch_value(&stats->s.min);
    touch_value(&stats->s.max);
    touch_value(&stats->s.first);
    touch_value(&stats->s.last);
}

static void read_runs(uint32_t at, chr_slice value)
{
    struct db_chunk_stats stats;
    struct chr_errmsg msg;
    if (db_chunk_runs_open(runs, head, at, value, true, &msg))
        return;
    for (uint32_t r = 0; r < db_chunk_head_info(head)->runs_count; r++) {
        db_chunk_runs_get(runs, r, &stats);
        touch_stats(&stats);
    }
}

static void read_all(const struct kit_chunk *k)
{
    struct db_chunk_stats stats;
    struct chr_errmsg msg;
    chr_err err;
    const struct db_chunk_run *run = db_chunk_head_runs(head, &err, &msg);
    for (uint32_t r = 0; run && r < db_chunk_head_info(head)->runs_count; r++)
        touched += run[r].first;
    for (uint32_t at = 0; at < db_chunk_head_info(head)->columns_count; at++) {
        uint16_t id = db_chunk_head_column(head, at);
        if (db_chunk_head_stats(head, at, &stats, &msg) == 0)
            touch_stats(&stats);
        chr_slice value = kit_part(k, DB_CHUNK_COLUMN, db_chunk_head_stored_in(head, at));
        if (value.ptr)
            read_column(at, value);
        value = kit_part(k, DB_CHUNK_RUNS, id);
        if (value.ptr)
            read_runs(at, value);
    }
}

static void round_trip(const uint8_t *data, size_t len)
{
    int64_t values[DB_VECTOR_ROWS] CHR_ALIGNED(64), back[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    double floats[DB_VECTOR_ROWS] CHR_ALIGNED(64), floats_back[DB_VECTOR_ROWS] CHR_ALIGNED(64);
    uint32_t count = (uint32_t)CHR_MIN(len / 8, (size_t)DB_VECTOR_ROWS);
    bool constant;
    enum db_codec codec;
    if (count == 0)
        return;
    memcpy(values, data, count * 8);
    memcpy(floats, data, count * 8);
    chr_buf_reset(&encoded);
    db__ints_encode(ints, values, count, &encoded);
    struct db_cursor in = db__cursor_of(chr_buf_slice(&encoded));
    CHR_ASSERT(db__ints_decode(&in, count, back, &constant, &codec) == 0);
    for (uint32_t i = 0; i < count; i++)
        CHR_ASSERT(back[constant ? 0 : i] == values[i]);
    chr_buf_reset(&encoded);
    db__floats_encode(ints, floats, count, &encoded);
    in = db__cursor_of(chr_buf_slice(&encoded));
    unsigned mapping = db__cursor_u8(&in);
    CHR_ASSERT(db__floats_decode(&in, (enum db_mapping)mapping, count, floats_back, &constant,
                                 &codec) == 0);
    for (uint32_t i = 0; i < count; i++)
        CHR_ASSERT(memcmp(&floats_back[constant ? 0 : i], &floats[i], 8) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len < 2)
        return 0;
    struct kit_chunk *k = &chunks[data[0] % CHUNKS];
    if (data[1] == 255) {
        round_trip(data + 2, len - 2);
        return 0;
    }
    struct db_chunk_part *p = &k->parts[data[1] % k->parts_count];
    chr_slice original = p->value;
    len -= 2;
    uint8_t *bytes = malloc(len ? len : 1); /* its end is watched by the sanitizer */
    if (!bytes)
        return 0;
    memcpy(bytes, data + 2, len);
    if (len >= DB_VALUE_HEAD_BYTES)
        db_value_seal(bytes, len, (uint8_t)p->kind, DB_CHUNK_VERSION);
    p->value = chr_slice_of(bytes, len);
    if (db_chunk_head_open(head, kit_part(k, DB_CHUNK_HEAD, 0), true, NULL) == 0) {
        if (p->kind == DB_CHUNK_HEAD) {
            read_all(k);
        } else {
            for (uint32_t at = 0; at < db_chunk_head_info(head)->columns_count; at++) {
                if (p->kind == DB_CHUNK_COLUMN && db_chunk_head_stored_in(head, at) == p->column)
                    read_column(at, p->value);
                if (p->kind == DB_CHUNK_RUNS && db_chunk_head_column(head, at) == p->column)
                    read_runs(at, p->value);
            }
        }
    }
    p->value = original;
    free(bytes);
    return 0;
}
