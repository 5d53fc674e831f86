/* tests/db/test_chunk.c: chunks of random tables read back value by value, their statistics counted
 * again by a twin that goes row by row, limits, and what the reader makes of damage (K1 to K4). */
#include "tests/base/check.h"
#include "tests/base/guard.h"

#include "base/bytes.h"
#include "db/chunk_internal.h"
#include "db/value_crc.h"
#include "tests/db/chunk_kit.h"

static db_chunk_writer *writer;
static db_chunk_head *head;
static db_chunk_column *column, *column2;
static db_chunk_runs *runs;
static volatile unsigned touched; /* keeps reads that are only to be survived */

static int setup(void **state)
{
    return db_chunk_writer_new(&writer) || db_chunk_head_new(&head) ||
           db_chunk_column_new(&column) || db_chunk_column_new(&column2) ||
           db_chunk_runs_new(&runs);
}

static int teardown(void **state)
{
    db_chunk_writer_free(writer);
    db_chunk_head_free(head);
    db_chunk_column_free(column);
    db_chunk_column_free(column2);
    db_chunk_runs_free(runs);
    return 0;
}

/* -- The twin -----------------------------------------------------------------------------------*/

static int compare(const struct db_value *a, const struct db_value *b)
{
    if (db_type_is_bytes(a->type))
        return chr_slice_cmp(a->bytes, b->bytes);
    if (a->type == DB_FLOAT) {
        if (isnan(a->f64) || isnan(b->f64))
            return (isnan(a->f64) != 0) - (isnan(b->f64) != 0);
        return (a->f64 > b->f64) - (a->f64 < b->f64);
    }
    if (a->type == DB_BOOLEAN)
        return a->boolean - b->boolean;
    return (a->i64 > b->i64) - (a->i64 < b->i64);
}

static bool earlier(const struct kit_table *t, uint32_t a, uint32_t b)
{
    if (t->time_us[a] != t->time_us[b])
        return t->time_us[a] < t->time_us[b];
    if (t->entry[a] != t->entry[b])
        return t->entry[a] < t->entry[b];
    return t->ordinal[a] < t->ordinal[b];
}

/* Statistics of rows [from, to) of the table against what the chunk says of them. */
static void check_stats(const struct kit_table *t, const struct kit_column *c, uint32_t from,
                        uint32_t to, const struct db_chunk_stats *stats)
{
    const struct db_column_stats *s = &stats->s;
    struct db_value min = {0}, max = {0};
    uint32_t first = 0, last = 0;
    uint64_t count = 0;
    __int128 sum_i = 0;
    double sum_f = 0, magnitude = 0;
    for (uint32_t row = from; row < to; row++) {
        struct db_value v = kit_value(c, row);
        if (v.null)
            continue;
        if (count == 0 || compare(&v, &min) < 0)
            min = v;
        if (count == 0 || compare(&v, &max) > 0)
            max = v;
        if (count == 0 || earlier(t, row, first))
            first = row;
        if (count == 0 || earlier(t, last, row))
            last = row;
        count++;
        if (c->type == DB_INT)
            sum_i += v.i64;
        if (c->type == DB_FLOAT) {
            sum_f += v.f64;
            magnitude += fabs(v.f64);
        }
    }
    assert_int_equal(s->count, count);
    assert_int_equal(s->nulls, to - from - count);
    assert_int_equal(s->has_sum, c->type == DB_INT || c->type == DB_FLOAT);
    if (count == 0) {
        assert_true(s->min.null && s->max.null && s->first.null && s->last.null);
        return;
    }
    assert_int_equal(s->first_time_us, t->time_us[first]);
    assert_int_equal(s->last_time_us, t->time_us[last]);
    if (stats->bounds_exact)
        assert_true(!s->min.null && !s->max.null && compare(&s->min, &min) == 0 &&
                    compare(&s->max, &max) == 0);
    else
        assert_true((s->min.null || compare(&s->min, &min) <= 0) &&
                    (s->max.null || compare(&s->max, &max) >= 0));
    struct db_value first_value = kit_value(c, first), last_value = kit_value(c, last);
    if (stats->ends_exact)
        assert_true(!s->first.null && !s->last.null && compare(&s->first, &first_value) == 0 &&
                    compare(&s->last, &last_value) == 0);
    else
        assert_true(first_value.bytes.len > DB_CHUNK_STATS_BYTES_MAX ||
                    last_value.bytes.len > DB_CHUNK_STATS_BYTES_MAX);
    if (!db_type_is_bytes(c->type))
        assert_true(stats->bounds_exact && stats->ends_exact);
    if (c->type == DB_INT)
        assert_true(s->sum_i128 == sum_i);
    if (c->type == DB_FLOAT && isfinite(sum_f) && isfinite(s->sum_f64))
        assert_true(fabs(s->sum_f64 - sum_f) <= magnitude * 1e-9);
    if (c->type == DB_FLOAT && isfinite(magnitude))
        assert_true(isfinite(s->sum_f64));
}

/* -- Reading back -------------------------------------------------------------------------------*/

static void check_vector(const struct kit_column *c, uint32_t row, const struct db_vector *v)
{
    assert_int_equal(v->type, c->type);
    if (v->form == DB_VECTOR_DICT)
        assert_true(db_type_is_bytes(c->type) && v->dict_id != 0 && v->dict_count > 0);
    for (uint32_t i = 0; i < v->count; i++) {
        struct db_value want = kit_value(c, row + i);
        assert_int_equal(db_vector_valid(v, i), !want.null);
        uint32_t at = db_vector_at(v, i);
        if (v->form == DB_VECTOR_DICT) {
            assert_true(v->codes[i] < v->dict_count);
            if (want.null)
                assert_int_equal(v->codes[i], 0);
        }
        if (want.null) {
            /* Nothing particular, but a value of the type: reading it must be fine. */
            if (c->type == DB_BOOLEAN)
                assert_true(v->b8[at] <= 1);
            else if (db_type_is_bytes(c->type))
                touched += v->str[at].len ? v->str[at].ptr[v->str[at].len - 1] : 0;
            continue;
        }
        if (db_type_is_bytes(c->type))
            assert_true(chr_slice_eq(v->str[at], want.bytes));
        else if (c->type == DB_FLOAT)
            assert_memory_equal(&v->f64[at], &want.f64, 8);
        else if (c->type == DB_BOOLEAN)
            assert_int_equal(v->b8[at], want.boolean);
        else
            assert_int_equal(v->i64[at], want.i64);
    }
}

static void check_columns(const struct kit_table *t, const struct kit_chunk *k, uint32_t first,
                          struct chr_random *r)
{
    struct chr_errmsg msg;
    const struct db_chunk_info *info = db_chunk_head_info(head);
    chr_err err;
    const struct db_chunk_run *run = db_chunk_head_runs(head, &err, &msg);
    assert_int_equal(err, 0);
    assert_int_equal(info->columns_count, t->columns_count + 2);
    for (uint32_t c = 0; c < t->columns_count; c++) {
        const struct kit_column *of = &t->columns[c];
        int at = db_chunk_head_find(head, of->id);
        assert_true(at >= 0);
        assert_int_equal(db_chunk_head_column(head, (uint32_t)at), of->id);
        assert_int_equal(db_chunk_head_type(head, (uint32_t)at), of->type);
        uint16_t stored = db_chunk_head_stored_in(head, (uint32_t)at);
        assert_true(stored == of->id || (of->id == DB_COLUMN_HLC && stored == DB_COLUMN_ENTRY));
        chr_slice value = kit_part(k, DB_CHUNK_COLUMN, stored);
        assert_non_null(value.ptr);
        /* Ending at a page that cannot be read. */
        value = guarded(value.ptr, value.len);
        assert_int_equal(db_chunk_column_open(column, head, (uint32_t)at, value, true, &msg), 0);
        for (uint32_t b = 0; b < info->blocks; b++) {
            uint32_t block = (b * 7 + (uint32_t)chr_random_below(r, info->blocks)) % info->blocks;
            struct db_vector v;
            assert_int_equal(db_chunk_column_decode(column, block, &v, &msg), 0);
            assert_int_equal(
                v.count, CHR_MIN(info->rows - block * DB_VECTOR_ROWS, (uint32_t)DB_VECTOR_ROWS));
            check_vector(of, first + block * DB_VECTOR_ROWS, &v);
            assert_string_not_equal(db_chunk_column_codec(column, block), "damaged");
        }
        struct db_chunk_stats stats;
        assert_int_equal(db_chunk_head_stats(head, (uint32_t)at, &stats, &msg), 0);
        check_stats(t, of, first, first + info->rows, &stats);
        if (!db_chunk_head_has_run_stats(head, (uint32_t)at))
            continue;
        assert_non_null(run);
        value = kit_part(k, DB_CHUNK_RUNS, of->id);
        value = guarded(value.ptr, value.len);
        assert_int_equal(db_chunk_runs_open(runs, head, (uint32_t)at, value, true, &msg), 0);
        for (uint32_t i = 0; i < info->runs_count; i++) {
            db_chunk_runs_get(runs, i, &stats);
            check_stats(t, of, first + run[i].first, first + run[i].first + run[i].rows, &stats);
        }
    }
}

static void check_row_ids(const struct kit_table *t, const struct kit_chunk *k, uint32_t first)
{
    struct chr_errmsg msg;
    struct db_row_id ids[DB_VECTOR_ROWS];
    const struct db_chunk_info *info = db_chunk_head_info(head);
    int e = db_chunk_head_find(head, DB_COLUMN_ENTRY);
    int o = db_chunk_head_find(head, DB_COLUMN_ORDINAL);
    assert_int_equal(db_chunk_column_open(column, head, (uint32_t)e,
                                          kit_part(k, DB_CHUNK_COLUMN, DB_COLUMN_ENTRY), true,
                                          &msg),
                     0);
    assert_int_equal(db_chunk_column_open(column2, head, (uint32_t)o,
                                          kit_part(k, DB_CHUNK_COLUMN, DB_COLUMN_ORDINAL), true,
                                          &msg),
                     0);
    for (uint32_t b = 0; b < info->blocks; b++) {
        assert_int_equal(db_chunk_row_ids(column, column2, b, ids, &msg), 0);
        for (uint32_t i = 0; i < DB_VECTOR_ROWS && b * DB_VECTOR_ROWS + i < info->rows; i++) {
            uint32_t row = first + b * DB_VECTOR_ROWS + i;
            assert_int_equal(ids[i].entry, t->entry[row]);
            assert_int_equal(ids[i].ordinal, t->ordinal[row]);
        }
    }
}

static void check_runs(const struct kit_table *t, uint32_t first)
{
    struct chr_errmsg msg;
    chr_err err;
    const struct db_chunk_info *info = db_chunk_head_info(head);
    const struct db_chunk_run *run = db_chunk_head_runs(head, &err, &msg);
    uint32_t listed = 0, row = first;
    for (uint32_t s = 0; info->runs_count && s < t->runs_count && row < first + info->rows; s++) {
        uint32_t end = s + 1 < t->runs_count ? t->starts[s + 1] : t->rows;
        if (end <= row)
            continue;
        end = CHR_MIN(end, first + info->rows);
        assert_int_equal(run[listed].first, row - first);
        assert_int_equal(run[listed].rows, end - row);
        assert_int_equal(run[listed].first_time_us, t->time_us[row]);
        assert_int_equal(run[listed].last_time_us, t->time_us[end - 1]);
        listed++;
        row = end;
    }
    assert_int_equal(listed, info->runs_count);
}

static void check_head(const struct kit_table *t, uint32_t first, const struct db_chunk_output *out)
{
    const struct db_chunk_info *info = db_chunk_head_info(head);
    uint64_t entry_min = UINT64_MAX, entry_max = 0, hlc_min = UINT64_MAX, hlc_max = 0;
    int64_t time_min = INT64_MAX, time_max = INT64_MIN;
    const struct kit_column *hlc = &t->columns[t->columns_count - 1];
    for (uint32_t i = first; i < first + out->rows; i++) {
        uint64_t h = (uint64_t)kit_value(hlc, i).i64;
        entry_min = CHR_MIN(entry_min, t->entry[i]);
        entry_max = CHR_MAX(entry_max, t->entry[i]);
        hlc_min = CHR_MIN(hlc_min, h);
        hlc_max = CHR_MAX(hlc_max, h);
        time_min = CHR_MIN(time_min, t->time_us[i]);
        time_max = CHR_MAX(time_max, t->time_us[i]);
    }
    assert_int_equal(info->rows, out->rows);
    assert_int_equal(info->blocks, (out->rows + DB_VECTOR_ROWS - 1) / DB_VECTOR_ROWS);
    assert_int_equal(info->table_id, 7);
    assert_int_equal(info->schema_version, 3);
    assert_true(info->entry_min == entry_min && out->entry_min == entry_min);
    assert_true(info->entry_max == entry_max && out->entry_max == entry_max);
    assert_true(info->hlc_min == hlc_min && out->hlc_min == hlc_min);
    assert_true(info->hlc_max == hlc_max && out->hlc_max == hlc_max);
    assert_true(info->time_min_us == time_min && out->time_min_us == time_min);
    assert_true(info->time_max_us == time_max && out->time_max_us == time_max);
    assert_int_equal(db_chunk_head_find(head, 3), -1); /* ids in between are not there */
    assert_int_equal(db_chunk_head_find(head, 0), -1);
}

/* Writes all of a table and reads it back. Returns the number of chunks. */
static uint32_t round_trip(struct kit_table *t, uint32_t rows_max, struct chr_random *r)
{
    struct chr_errmsg msg;
    struct db_chunk_output out;
    struct db_chunk_input in = kit_input(t);
    uint32_t chunks = 0;
    in.rows_max = rows_max;
    for (in.first = 0; in.first < in.rows; in.first += out.rows, chunks++) {
        assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
        assert_in_range(out.rows, 1, rows_max);
        uint64_t bytes = 0;
        for (uint32_t p = 0; p < out.parts_count; p++) {
            assert_true(out.parts[p].value.len <= DB_CHUNK_VALUE_BYTES_MAX ||
                        out.rows == 1); /* K2 */
            bytes += out.parts[p].value.len;
        }
        assert_int_equal(bytes, out.bytes);
        struct kit_chunk k = kit_keep(&out);
        chr_slice value = kit_part(&k, DB_CHUNK_HEAD, 0);
        assert_int_equal(db_chunk_head_open(head, value, true, &msg), 0);
        check_head(t, in.first, &out);
        check_runs(t, in.first);
        check_columns(t, &k, in.first, r);
        check_row_ids(t, &k, in.first);
        struct kit_check check = {.chunk = &k};
        assert_int_equal(db_chunk_check(value, KIT_TIME, kit_get, kit_report, &check), 0);
        if (check.findings)
            fail_msg("%u findings, the first: %s", check.findings, check.first);
        kit_drop(&k);
    }
    return chunks;
}

static void tables_come_back(void **state)
{
    struct chr_random r = test_random(20);
    static const uint32_t sizes[] = {1, 2, 3, 63, 64, 65, 500, 2047, 2048, 2049, 4100, 9000};
    for (unsigned round = 0; round < 60; round++) {
        struct kit_shape shape = {
            .rows = sizes[round % CHR_COUNT_OF(sizes)],
            .run_rows = (uint32_t[]){0, 1, 3, 20, 300, 3000}[chr_random_below(&r, 6)],
            .columns_count = 1 + (uint32_t)chr_random_below(&r, 12),
            .string_bytes = round % 10 == 7 ? 65536 : 40,
            .foreign_hlc = round & 1,
            .wild = round & 2,
            .regular_times = round & 4,
        };
        struct kit_table *t = kit_table_new(&r, &shape);
        round_trip(t, round % 3 ? DB_CHUNK_ROWS_MAX : 1 + (uint32_t)chr_random_below(&r, 5000), &r);
        kit_table_free(t);
    }
}

static void full_chunks_come_back(void **state)
{
    struct chr_random r = test_random(21);
    for (unsigned round = 0; round < 4; round++) {
        struct kit_shape shape = {
            .rows = round == 3 ? 150000 : DB_CHUNK_ROWS_MAX,
            .run_rows = (uint32_t[]){0, 65, 700, 20}[round],
            .columns_count = 12,
            .string_bytes = round == 2 ? 65536 : 40,
            .wild = round & 1,
            .regular_times = round != 3,
        };
        struct kit_table *t = kit_table_new(&r, &shape);
        round_trip(t, DB_CHUNK_ROWS_MAX, &r);
        kit_table_free(t);
    }
}

/* -- Limits -------------------------------------------------------------------------------------*/

/* A table of one column, made by hand. */
static struct kit_table *table_of(uint32_t rows, enum db_type type)
{
    struct chr_random r = {.state = 5};
    struct kit_table *t = kit_table_new(&r, &(struct kit_shape){.rows = rows, .string_bytes = 40});
    struct kit_column *c = &t->columns[t->columns_count++];
    *c = (struct kit_column){.id = 2, .type = type};
    c->data = kit_alloc(rows * (db_type_is_bytes(type) ? sizeof(chr_slice) : 8));
    struct kit_column hlc = t->columns[2];
    t->columns[2] = *c; /* check_head looks for the HLC in the last place */
    *c = hlc;
    kit_finish(t);
    return t;
}

static void *data_of(struct kit_table *t)
{
    return t->columns[2].data;
}

static void write_all(struct kit_table *t, uint32_t *chunks, uint32_t *smallest)
{
    struct chr_errmsg msg;
    struct db_chunk_output out;
    struct db_chunk_input in = kit_input(t);
    struct chr_random r = {.state = 6};
    *chunks = 0;
    *smallest = UINT32_MAX;
    for (in.first = 0; in.first < in.rows; in.first += out.rows, (*chunks)++) {
        assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
        for (uint32_t p = 0; p < out.parts_count; p++)
            assert_true(out.parts[p].value.len <= DB_CHUNK_VALUE_BYTES_MAX || out.rows == 1);
        struct kit_chunk k = kit_keep(&out);
        assert_int_equal(db_chunk_head_open(head, kit_part(&k, DB_CHUNK_HEAD, 0), true, &msg), 0);
        check_columns(t, &k, in.first, &r);
        check_row_ids(t, &k, in.first);
        struct kit_check check = {.chunk = &k};
        assert_int_equal(
            db_chunk_check(kit_part(&k, DB_CHUNK_HEAD, 0), KIT_TIME, kit_get, kit_report, &check),
            0);
        assert_int_equal(check.findings, 0);
        if (in.first + out.rows < in.rows)
            *smallest = CHR_MIN(*smallest, out.rows);
        kit_drop(&k);
    }
}

static void noise_makes_chunks_smaller(void **state)
{
    struct chr_random r = test_random(22);
    struct kit_table *t = table_of(150000, DB_INT);
    uint32_t chunks, smallest;
    for (uint32_t i = 0; i < t->rows; i++)
        ((int64_t *)data_of(t))[i] = (int64_t)chr_random_u64(&r);
    write_all(t, &chunks, &smallest);
    /* 256 KiB hold 32,768 of them, less the table of blocks: nearly that many are taken. */
    assert_in_range(smallest, 28000, 32767);
    assert_in_range(chunks, 5, 6);
    kit_table_free(t);
}

static void long_strings_make_chunks_smaller(void **state)
{
    struct chr_random r = test_random(23);
    struct kit_table *t = table_of(3000, DB_BLOB);
    size_t bytes = 16 << 20;
    uint8_t *noise = kit_alloc(bytes);
    for (size_t i = 0; i + 8 <= bytes; i += 8)
        chr_put_u64le(noise + i, chr_random_u64(&r));
    chr_slice *v = data_of(t);
    for (uint32_t i = 0; i < t->rows; i++) {
        size_t len = chr_random_below(&r, i % 50 ? 2000 : 65537);
        v[i] = chr_slice_of(noise + chr_random_below(&r, bytes - len), len);
    }
    v[777] = chr_slice_of(noise, 4 << 20); /* alone larger than any value: a chunk of one row */
    uint32_t chunks, smallest;
    write_all(t, &chunks, &smallest);
    assert_true(chunks > 10 && chunks < 60);
    assert_int_equal(smallest, 1);

    v[5] = chr_slice_of(noise, (16u << 20) + 1);
    noise = realloc(noise, bytes + 1);
    for (uint32_t i = 0; i < t->rows; i++)
        v[i] = chr_slice_of(noise, i == 5 ? bytes + 1 : 10);
    struct db_chunk_input in = kit_input(t);
    struct db_chunk_output out;
    struct chr_errmsg msg;
    in.first = 5;
    in.rows_max = 1;
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), CHR_ETOOBIG);
    free(noise);
    kit_table_free(t);
}

/* A dictionary that alone would not fit, and one of 65,536 entries that does. */
static void large_dictionaries(void **state)
{
    struct kit_table *t = table_of(DB_CHUNK_ROWS_MAX * 2, DB_STRING);
    for (unsigned length = 3; length <= 40; length += 37) {
        uint8_t *text = kit_alloc((size_t)t->rows * length);
        chr_slice *v = data_of(t);
        for (uint32_t i = 0; i < t->rows; i++) {
            uint8_t *p = text + (size_t)(i / 2) * length;
            memset(p, 'x', length);
            memcpy(p, &(uint32_t){i / 2}, 3);
            v[i] = chr_slice_of(p, length);
        }
        uint32_t chunks, smallest;
        write_all(t, &chunks, &smallest);
        assert_in_range(chunks, 2, 60);
        free(text);
    }
    kit_table_free(t);
}

static void many_columns(void **state)
{
    struct chr_errmsg msg;
    struct db_chunk_output out;
    struct kit_table *t = table_of(100, DB_STRING);
    static struct db_chunk_column_in in_columns[DB_COLUMNS_MAX + 2];
    uint8_t text[60];
    memset(text, 'q', sizeof text);
    for (uint32_t i = 0; i < t->rows; i++)
        ((chr_slice *)data_of(t))[i] = chr_slice_of(text, 50 + i % 10);
    for (uint32_t c = 0; c < DB_COLUMNS_MAX; c++) {
        in_columns[c] = t->in[c == 0 ? 0 : 2];
        in_columns[c].id = (uint16_t)(c + 1);
    }
    in_columns[DB_COLUMNS_MAX] = t->in[1];
    in_columns[DB_COLUMNS_MAX + 1] = t->in[3];
    struct db_chunk_input in = kit_input(t);
    in.columns = in_columns;
    in.columns_count = DB_COLUMNS_MAX + 2;
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
    struct kit_chunk k = kit_keep(&out);
    chr_slice value = kit_part(&k, DB_CHUNK_HEAD, 0);
    assert_true(value.len <= DB_CHUNK_VALUE_BYTES_MAX); /* K2: without the strings' statistics */
    struct kit_check check = {.chunk = &k};
    assert_int_equal(db_chunk_check(value, KIT_TIME, kit_get, kit_report, &check), 0);
    if (check.findings)
        fail_msg("%s", check.first);
    kit_drop(&k);
    kit_table_free(t);
}

/* Values of known kinds come in the forms that cost nothing to hand on. */
static void forms_are_what_they_should_be(void **state)
{
    struct chr_errmsg msg;
    struct db_chunk_output out;
    struct db_vector v;
    struct kit_table *t = table_of(DB_CHUNK_ROWS_MAX, DB_FLOAT);
    for (uint32_t i = 0; i < t->rows; i++)
        ((double *)data_of(t))[i] = 21.5;
    struct db_chunk_input in = kit_input(t);
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
    struct kit_chunk k = kit_keep(&out);
    assert_int_equal(db_chunk_head_open(head, kit_part(&k, DB_CHUNK_HEAD, 0), true, &msg), 0);
    chr_slice value = kit_part(&k, DB_CHUNK_COLUMN, 2);
    assert_true(value.len < 64); /* one block for all 32 */
    uint32_t at = (uint32_t)db_chunk_head_find(head, 2);
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), 0);
    assert_int_equal(db_chunk_column_decode(column, 31, &v, &msg), 0);
    assert_true(v.form == DB_VECTOR_CONSTANT && v.f64[0] == 21.5 && v.count == DB_VECTOR_ROWS);
    kit_drop(&k);

    /* All NULL. */
    t->in[2].validity = kit_alloc(t->rows / 8);
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
    k = kit_keep(&out);
    assert_int_equal(db_chunk_head_open(head, kit_part(&k, DB_CHUNK_HEAD, 0), true, &msg), 0);
    value = kit_part(&k, DB_CHUNK_COLUMN, 2);
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), 0);
    assert_int_equal(db_chunk_column_decode(column, 5, &v, &msg), 0);
    assert_true(v.form == DB_VECTOR_CONSTANT && !db_vector_valid(&v, 77));
    assert_string_equal(db_chunk_column_codec(column, 5), "null");
    free((void *)(uintptr_t)t->in[2].validity);
    kit_drop(&k);
    kit_table_free(t);

    /* A column of the series key: a dictionary whose entries point into the value, few bytes. */
    t = table_of(DB_CHUNK_ROWS_MAX, DB_STRING);
    static char names[1000][16];
    static chr_slice dict[1000];
    uint32_t *ids = kit_alloc(t->rows * 4);
    free(t->starts);
    t->starts = kit_alloc(1000 * 4);
    t->runs_count = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(names[i], sizeof names[i], "sensor-%04u", i);
        dict[i] = chr_slice_cstr(names[i]);
    }
    for (uint32_t i = 0; i < t->rows; i++) {
        ids[i] = i / 66;
        if (i % 66 == 0)
            t->starts[t->runs_count++] = i;
    }
    t->in[2].dict = dict;
    t->in[2].dict_count = 1000;
    t->in[2].ids = ids;
    in = kit_input(t);
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
    k = kit_keep(&out);
    assert_int_equal(db_chunk_head_open(head, kit_part(&k, DB_CHUNK_HEAD, 0), true, &msg), 0);
    value = kit_part(&k, DB_CHUNK_COLUMN, 2);
    assert_true(value.len < 20000);
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), 0);
    assert_int_equal(db_chunk_column_decode(column, 3, &v, &msg), 0);
    assert_int_equal(v.form, DB_VECTOR_DICT);
    uint64_t id = v.dict_id;
    assert_int_equal(db_chunk_column_decode(column, 4, &v, &msg), 0);
    assert_true(v.dict_id == id); /* a consumer's cache lives as long as the column is open */
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), 0);
    assert_int_equal(db_chunk_column_decode(column, 4, &v, &msg), 0);
    assert_true(v.dict_id != id);
    /* Each run's key without decoding a row. */
    chr_slice of_runs = kit_part(&k, DB_CHUNK_RUNS, 2);
    assert_int_equal(db_chunk_runs_open(runs, head, at, of_runs, true, &msg), 0);
    for (uint32_t i = 0; i < t->runs_count; i++) {
        struct db_chunk_stats stats;
        db_chunk_runs_get(runs, i, &stats);
        assert_true(stats.bounds_exact && chr_slice_eq(stats.s.min.bytes, dict[i]) &&
                    chr_slice_eq(stats.s.max.bytes, dict[i]));
    }
    kit_drop(&k);
    free(ids);
    kit_table_free(t);
}

/* -- Damage -------------------------------------------------------------------------------------*/

/* Opens whatever a chunk claims to be and reads all of it. Returns whether anything was refused. */
static bool read_all(const struct kit_chunk *k)
{
    struct chr_errmsg msg;
    struct db_vector v;
    struct db_chunk_stats stats;
    bool refused = false;
    chr_err err;
    if (db_chunk_head_open(head, kit_part(k, DB_CHUNK_HEAD, 0), true, &msg))
        return true;
    const struct db_chunk_info *info = db_chunk_head_info(head);
    refused |= !db_chunk_head_runs(head, &err, &msg) && err;
    for (uint32_t at = 0; at < info->columns_count; at++) {
        uint16_t id = db_chunk_head_column(head, at);
        refused |= db_chunk_head_stats(head, at, &stats, &msg) != 0;
        chr_slice value = kit_part(k, DB_CHUNK_COLUMN, db_chunk_head_stored_in(head, at));
        if (!value.ptr || db_chunk_column_open(column, head, at, value, true, &msg)) {
            refused = true;
        } else {
            for (uint32_t b = 0; b < info->blocks; b++) {
                if (db_chunk_column_decode(column, b, &v, &msg)) {
                    refused = true;
                    continue;
                }
                db_chunk_column_codec(column, b);
                for (uint32_t i = 0; i < v.count; i++) {
                    if (db_type_is_bytes(v.type) && db_vector_valid(&v, i)) {
                        chr_slice s = v.str[db_vector_at(&v, i)];
                        if (s.len) /* both ends can be read */
                            touched += s.ptr[0] + s.ptr[s.len - 1];
                    }
                }
            }
        }
        value = kit_part(k, DB_CHUNK_RUNS, id);
        if (value.ptr && db_chunk_head_has_run_stats(head, at)) {
            if (db_chunk_runs_open(runs, head, at, value, true, &msg)) {
                refused = true;
                continue;
            }
            for (uint32_t i = 0; i < info->runs_count; i++)
                db_chunk_runs_get(runs, i, &stats);
        }
    }
    return refused;
}

static struct kit_chunk chunk_to_damage(struct chr_random *r, unsigned round)
{
    struct chr_errmsg msg;
    struct db_chunk_output out;
    struct kit_shape shape = {.rows = round & 1 ? 2600 : 300,
                              .run_rows = round & 2 ? 40 : 5,
                              .columns_count = 14,
                              .string_bytes = 100,
                              .foreign_hlc = round & 4,
                              .wild = round & 8};
    struct kit_table *t = kit_table_new(r, &shape);
    struct db_chunk_input in = kit_input(t);
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
    struct kit_chunk k = kit_keep(&out);
    kit_table_free(t);
    return k;
}

/* Any one bit: the checksum says so. */
static void flipped_bits_are_refused(void **state)
{
    struct chr_random r = test_random(24);
    struct kit_chunk k = chunk_to_damage(&r, 3);
    for (unsigned round = 0; round < 600; round++) {
        struct db_chunk_part *p = &k.parts[chr_random_below(&r, k.parts_count)];
        uint8_t *bytes = (uint8_t *)(uintptr_t)p->value.ptr;
        uint64_t bit = chr_random_below(&r, p->value.len * 8);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit & 7));
        assert_true(read_all(&k));
        struct kit_check check = {.chunk = &k};
        assert_int_equal(
            db_chunk_check(kit_part(&k, DB_CHUNK_HEAD, 0), KIT_TIME, kit_get, kit_report, &check),
            0);
        assert_true(check.findings > 0);
        bytes[bit / 8] ^= (uint8_t)(1u << (bit & 7));
    }
    assert_false(read_all(&k));
    kit_drop(&k);
}

/* Changed bytes under a checksum made right again: errors or values, never outside the bounds (K3).
 * Each value stands before a page that cannot be read. */
static void forged_values_do_no_harm(void **state)
{
    struct chr_random r = test_random(25);
    unsigned refused = 0, read = 0;
    size_t page = 4096;
    for (unsigned round = 0; round < 16; round++) {
        struct kit_chunk k = chunk_to_damage(&r, round);
        for (uint32_t p = 0; p < k.parts_count; p++) {
            chr_slice original = k.parts[p].value;
            size_t room = (original.len + page - 1) / page * page;
            uint8_t *area =
                mmap(NULL, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            assert_true(area != MAP_FAILED && mprotect(area + room, page, PROT_NONE) == 0);
            for (unsigned change = 0; change < 40; change++) {
                size_t len =
                    change % 8 == 7 ? chr_random_below(&r, original.len) + 1 : original.len;
                uint8_t *bytes = area + room - len;
                memcpy(bytes, original.ptr, len);
                for (unsigned n = 0; n < 1 + change % 3 && len > 8; n++) {
                    /* Mostly where lengths and offsets are. */
                    size_t near = chr_random_below(&r, 2) ? CHR_MIN(len, (size_t)160) : len;
                    size_t at = 8 + chr_random_below(&r, near - 8 ? near - 8 : 1);
                    bytes[CHR_MIN(at, len - 1)] = (uint8_t)(chr_random_u64(&r) >> (change & 7) * 8);
                }
                if (len >= 8)
                    db_value_seal(bytes, len, bytes[5], bytes[4]);
                k.parts[p].value = chr_slice_of(bytes, len);
                if (read_all(&k))
                    refused++;
                else
                    read++;
                if (change % 10 == 0) {
                    struct kit_check check = {.chunk = &k};
                    chr_err err = db_chunk_check(kit_part(&k, DB_CHUNK_HEAD, 0), KIT_TIME, kit_get,
                                                 kit_report, &check);
                    assert_true(err == 0 || err == CHR_ENOMEM);
                }
            }
            k.parts[p].value = original;
            munmap(area, room + page);
        }
        kit_drop(&k);
    }
    print_message("%u refused, %u read\n", refused, read);
    assert_true(refused > 1000 && read > 1000);
}

static uint64_t *stats_word(struct kit_chunk *k, uint32_t at, size_t word)
{
    uint8_t *value = (uint8_t *)(uintptr_t)kit_part(k, DB_CHUNK_HEAD, 0).ptr;
    uint8_t *directory = value + DB_HEAD_FIXED_BYTES + (size_t)at * DB_HEAD_DIRECTORY_BYTES;
    return (uint64_t *)(void *)(value + chr_get_u32le(directory + 8) + word * 8);
}

/* A statistic that is wrong under a right checksum: the check counts again. */
static void wrong_statistics_are_found(void **state)
{
    struct chr_errmsg msg;
    struct db_chunk_output out;
    struct kit_table *t = table_of(5000, DB_INT);
    for (uint32_t i = 0; i < t->rows; i++)
        ((int64_t *)data_of(t))[i] = i % 77;
    struct db_chunk_input in = kit_input(t);
    assert_int_equal(db_chunk_write(writer, &in, &out, &msg), 0);
    struct kit_chunk k = kit_keep(&out);
    chr_slice value = kit_part(&k, DB_CHUNK_HEAD, 0);
    assert_int_equal(db_chunk_head_open(head, value, true, &msg), 0);
    uint32_t at = (uint32_t)db_chunk_head_find(head, 2);
    /* first time, last time, min, max, first, last, sum */
    for (size_t word = 0; word < 7; word++) {
        uint64_t was, now;
        uint8_t *p = (uint8_t *)stats_word(&k, at, word);
        was = chr_get_u64le(p);
        now = was + 1;
        chr_put_u64le(p, now);
        db_value_seal((uint8_t *)(uintptr_t)value.ptr, value.len, DB_CHUNK_HEAD, DB_CHUNK_VERSION);
        struct kit_check check = {.chunk = &k};
        assert_int_equal(db_chunk_check(value, KIT_TIME, kit_get, kit_report, &check), 0);
        assert_int_equal(check.findings, 1);
        chr_put_u64le(p, was);
    }
    /* A part that is missing. */
    db_value_seal((uint8_t *)(uintptr_t)value.ptr, value.len, DB_CHUNK_HEAD, DB_CHUNK_VERSION);
    for (uint32_t p = 0; p < k.parts_count; p++) {
        if (k.parts[p].kind == DB_CHUNK_COLUMN && k.parts[p].column == 2)
            k.parts[p].column = 999;
    }
    struct kit_check check = {.chunk = &k};
    assert_int_equal(db_chunk_check(value, KIT_TIME, kit_get, kit_report, &check), 0);
    assert_int_equal(check.findings, 1);
    assert_non_null(strstr(check.first, "missing"));
    kit_drop(&k);
    kit_table_free(t);
}

/* Messages say which column and where. */
static void messages_name_the_place(void **state)
{
    struct chr_random r = test_random(26);
    struct chr_errmsg msg;
    struct kit_chunk k = chunk_to_damage(&r, 1);
    assert_int_equal(db_chunk_head_open(head, kit_part(&k, DB_CHUNK_HEAD, 0), true, &msg), 0);
    chr_slice value = kit_part(&k, DB_CHUNK_COLUMN, KIT_TIME);
    uint8_t *bytes = (uint8_t *)(uintptr_t)value.ptr;
    uint32_t begin = DB_COLUMN_FIXED_BYTES + 4 * 2;
    bytes[begin + 2] = 99; /* the codec of block 0 */
    uint32_t at = (uint32_t)db_chunk_head_find(head, KIT_TIME);
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), CHR_ECORRUPT);
    assert_non_null(strstr(msg.text, "checksum"));
    db_value_seal(bytes, value.len, DB_CHUNK_COLUMN, DB_CHUNK_VERSION);
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), 0);
    struct db_vector v;
    assert_int_equal(db_chunk_column_decode(column, 0, &v, &msg), CHR_ECORRUPT);
    assert_non_null(strstr(msg.text, "column 1, block 0, offset"));
    assert_non_null(strstr(msg.text, "unknown codec"));
    assert_int_equal(db_chunk_column_decode(column, 1, &v, &msg), 0); /* the others are fine */
    db_value_seal(bytes, value.len, DB_CHUNK_COLUMN, 2);
    assert_int_equal(db_chunk_column_open(column, head, at, value, true, &msg), CHR_EVERSION);
    /* A value under a wrong key. */
    assert_int_equal(db_chunk_column_open(column, head, at,
                                          kit_part(&k, DB_CHUNK_COLUMN, DB_COLUMN_RECEIVED_AT),
                                          true, &msg),
                     CHR_ECORRUPT);
    assert_non_null(strstr(msg.text, "value is of column"));
    kit_drop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_come_back),
        cmocka_unit_test(full_chunks_come_back),
        cmocka_unit_test(noise_makes_chunks_smaller),
        cmocka_unit_test(long_strings_make_chunks_smaller),
        cmocka_unit_test(large_dictionaries),
        cmocka_unit_test(many_columns),
        cmocka_unit_test(forms_are_what_they_should_be),
        cmocka_unit_test(flipped_bits_are_refused),
        cmocka_unit_test(forged_values_do_no_harm),
        cmocka_unit_test(wrong_statistics_are_found),
        cmocka_unit_test(messages_name_the_place),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
