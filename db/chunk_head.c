/* db/chunk_head.c: the head of a chunk, written and read; layout in chunk_internal.h.
 *
 * A head is what a scan looks at for each chunk, so opening one checks sizes and nothing else:
 * statistics are read when asked for, runs and HLC table are unpacked at the first question. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "db/chunk_internal.h"
#include "db/value_crc.h"

/* -- Writing ------------------------------------------------------------------------------------*/

chr_slice db__bound_lower(chr_slice s, bool *cut)
{
    *cut = s.len > DB_CHUNK_STATS_BYTES_MAX;
    return chr_slice_of(s.ptr, CHR_MIN(s.len, (size_t)DB_CHUNK_STATS_BYTES_MAX));
}

bool db__bound_upper(chr_slice s, uint8_t *buffer, chr_slice *bound, bool *cut)
{
    *cut = s.len > DB_CHUNK_STATS_BYTES_MAX;
    *bound = s;
    if (!*cut)
        return true;
    size_t n = DB_CHUNK_STATS_BYTES_MAX;
    memcpy(buffer, s.ptr, n);
    while (n > 0 && buffer[n - 1] == 0xff)
        n--;
    if (n == 0)
        return false;
    buffer[n - 1]++;
    *bound = chr_slice_of(buffer, n);
    return true;
}

static void put_string(chr_slice s, bool known, struct chr_buf *out)
{
    chr_buf_add_u8(out, known ? (uint8_t)s.len : DB_HEAD_STRING_UNKNOWN);
    if (known)
        chr_buf_add_slice(out, s);
}

/* Returns the flags of the directory. */
static uint8_t put_string_stats(const struct db_chunk_rows *rows,
                                const struct db_chunk_column_in *column,
                                const struct db_stats_acc *acc, bool strings, struct chr_buf *out)
{
    uint8_t buffer[DB_CHUNK_STATS_BYTES_MAX];
    bool cut_min = true, cut_max = true;
    chr_slice min = {0}, max = {0};
    bool known = strings && acc->bounds_known, has_max = false;
    if (known) {
        min = db__bound_lower(acc->min_s, &cut_min);
        has_max = db__bound_upper(acc->max_s, buffer, &max, &cut_max);
    }
    put_string(min, known, out);
    put_string(max, has_max, out);
    chr_slice first = db__row_string(column, rows->first + acc->first_row);
    chr_slice last = db__row_string(column, rows->first + acc->last_row);
    bool ends =
        strings && first.len <= DB_CHUNK_STATS_BYTES_MAX && last.len <= DB_CHUNK_STATS_BYTES_MAX;
    put_string(first, ends, out);
    put_string(last, ends, out);
    return (uint8_t)((known && !cut_min && !cut_max ? DB_HEAD_BOUNDS_EXACT : 0) |
                     (ends ? DB_HEAD_ENDS_EXACT : 0));
}

static uint8_t put_stats(const struct db_chunk_rows *rows, const struct db_chunk_column_in *column,
                         const struct db_stats_acc *acc, bool strings, struct chr_buf *out)
{
    uint32_t first = rows->first + acc->first_row, last = rows->first + acc->last_row;
    chr_buf_add_u64le(out, (uint64_t)rows->in->time_us[first]);
    chr_buf_add_u64le(out, (uint64_t)rows->in->time_us[last]);
    if (db_type_is_bytes(column->type))
        return put_string_stats(rows, column, acc, strings, out);
    chr_buf_add_u64le(out, (uint64_t)db__stats_min_bits(acc, column->type));
    chr_buf_add_u64le(out, (uint64_t)db__stats_max_bits(acc, column->type));
    chr_buf_add_u64le(out, (uint64_t)db__row_bits(column, first));
    chr_buf_add_u64le(out, (uint64_t)db__row_bits(column, last));
    if (column->type == DB_INT)
        chr_buf_add(out, &acc->sum_i, 16);
    if (column->type == DB_FLOAT)
        chr_buf_add(out, &acc->sum_f, 8);
    return DB_HEAD_BOUNDS_EXACT | DB_HEAD_ENDS_EXACT;
}

static void put_directory(const struct db_chunk_rows *rows,
                          const struct db_chunk_column_in *const *columns,
                          const struct db_encoded *const *encoded, uint32_t columns_count,
                          bool strings, struct chr_buf *out)
{
    size_t directory = out->len;
    for (uint32_t c = 0; c < columns_count * (DB_HEAD_DIRECTORY_BYTES / 8); c++)
        chr_buf_add_u64le(out, 0);
    for (uint32_t c = 0; c < columns_count && !out->failed; c++) {
        size_t offset = out->len;
        uint8_t flags = encoded[c]->runs.len ? DB_HEAD_RUN_STATS : 0;
        if (encoded[c]->total.count)
            flags |= put_stats(rows, columns[c], &encoded[c]->total, strings, out);
        if (out->failed)
            return;
        uint8_t *d = out->ptr + directory + (size_t)c * DB_HEAD_DIRECTORY_BYTES;
        chr_put_u16le(d, columns[c]->id);
        d[2] = (uint8_t)columns[c]->type;
        d[3] = flags;
        chr_put_u32le(d + 4, encoded[c]->total.count);
        chr_put_u32le(d + 8, encoded[c]->total.count ? (uint32_t)offset : 0);
        chr_put_u32le(d + 12, (uint32_t)encoded[c]->column.len);
    }
}

/* Returns how many runs are listed. */
static uint32_t put_runs(struct db_encoder *e, const struct db_chunk_rows *rows,
                         struct chr_buf *out)
{
    uint32_t n = rows->runs_count;
    if (n > 1 && n > rows->count / DB_RUN_ROWS_MIN)
        return 0;
    const int64_t *time_us = rows->in->time_us + rows->first;
    size_t begin = out->len;
    for (uint32_t r = 0; r < n; r++)
        e->array[r] = rows->starts[r];
    db__int_array_put(&e->ints, e->array, n, out);
    for (uint32_t r = 0; r < n; r++)
        e->array[r] = time_us[rows->starts[r]];
    db__int_array_put(&e->ints, e->array, n, out);
    for (uint32_t r = 0; r < n; r++)
        e->array[r] = (int64_t)((uint64_t)time_us[rows->starts[r + 1] - 1] -
                                (uint64_t)time_us[rows->starts[r]]);
    db__int_array_put(&e->ints, e->array, n, out);
    if (out->len - begin > DB_HEAD_RUNS_BYTES_MAX) {
        out->len = begin;
        return 0;
    }
    return n;
}

void db__head_put(struct db_encoder *e, const struct db_chunk_rows *rows,
                  const struct db_chunk_column_in *const *columns,
                  const struct db_encoded *const *encoded, uint32_t columns_count,
                  const int64_t *hlc, uint32_t hlc_count, const struct db_chunk_output *ranges,
                  struct chr_buf *out)
{
    uint8_t fixed[DB_HEAD_FIXED_BYTES] = {0};
    chr_buf_reset(out);
    chr_buf_add(out, fixed, sizeof fixed);
    put_directory(rows, columns, encoded, columns_count, true, out);
    if (out->len > DB_HEAD_STATS_BYTES_MAX) {
        out->len = sizeof fixed;
        put_directory(rows, columns, encoded, columns_count, false, out);
    }
    uint32_t runs_offset = (uint32_t)out->len;
    uint32_t runs = put_runs(e, rows, out);
    CHR_ASSERT(runs || !rows->run_stats);
    uint32_t hlc_offset = (uint32_t)out->len;
    db__int_array_put(&e->ints, hlc, hlc_count, out);
    if (out->failed)
        return;

    chr_put_u32le(fixed + 8, rows->count);
    chr_put_u32le(fixed + 12, rows->in->table_id);
    chr_put_u32le(fixed + 16, rows->in->schema_version);
    chr_put_u16le(fixed + 20, (uint16_t)columns_count);
    chr_put_u64le(fixed + 24, ranges->entry_min);
    chr_put_u64le(fixed + 32, ranges->entry_max);
    chr_put_u64le(fixed + 40, ranges->hlc_min);
    chr_put_u64le(fixed + 48, ranges->hlc_max);
    chr_put_u64le(fixed + 56, (uint64_t)ranges->time_min_us);
    chr_put_u64le(fixed + 64, (uint64_t)ranges->time_max_us);
    chr_put_u32le(fixed + 72, runs);
    chr_put_u32le(fixed + 76, runs ? runs_offset : 0);
    chr_put_u32le(fixed + 80, hlc_count ? hlc_offset : 0);
    memcpy(out->ptr, fixed, sizeof fixed);
    db_value_seal(out->ptr, out->len, DB_CHUNK_HEAD, DB_CHUNK_VERSION);
}

/* -- Reading ------------------------------------------------------------------------------------*/

struct db_chunk_head {
    chr_slice value; /* the whole of it: offsets count from its start */
    struct db_chunk_info info;
    uint32_t runs_offset, runs_stored, hlc_offset;

    bool runs_ready, hlc_ready;
    struct db_chunk_run *runs;
    size_t runs_capacity;
    int64_t *arrays; /* scratch of the runs */
    size_t arrays_capacity;
    int64_t *hlc;
    size_t hlc_capacity;
};

chr_err db_chunk_head_new(db_chunk_head **head)
{
    *head = calloc(1, sizeof **head);
    return *head ? CHR_OK : CHR_ENOMEM;
}

void db_chunk_head_free(db_chunk_head *head)
{
    if (!head)
        return;
    free(head->runs);
    free(head->arrays);
    free(head->hlc);
    free(head);
}

static const uint8_t *directory_at(const db_chunk_head *head, uint32_t at)
{
    return head->value.ptr + DB_HEAD_FIXED_BYTES + (size_t)at * DB_HEAD_DIRECTORY_BYTES;
}

static chr_err check_directory(const db_chunk_head *head, struct chr_errmsg *msg)
{
    int before = -1;
    for (uint32_t c = 0; c < head->info.columns_count; c++) {
        const uint8_t *d = directory_at(head, c);
        uint16_t id = chr_get_u16le(d);
        if (id <= before)
            return chr_fail(msg, CHR_ECORRUPT, "chunk head: column ids do not rise at entry %u", c);
        before = id;
        if (d[2] == 0 || d[2] >= DB_TYPES_END)
            return chr_fail(msg, CHR_ECORRUPT, "chunk head: column %u has unknown type %u", id,
                            d[2]);
        uint32_t count = chr_get_u32le(d + 4), offset = chr_get_u32le(d + 8);
        if (count > head->info.rows || (count == 0) != (offset == 0) || offset > head->value.len)
            return chr_fail(msg, CHR_ECORRUPT,
                            "chunk head: column %u has %u of %u rows, statistics at %u of %zu", id,
                            count, head->info.rows, offset, head->value.len);
    }
    return CHR_OK;
}

chr_err db_chunk_head_open(db_chunk_head *head, chr_slice value, bool verify,
                           struct chr_errmsg *msg)
{
    chr_slice body;
    chr_err err = db_value_open(value, DB_CHUNK_HEAD, DB_CHUNK_VERSION, verify, &body, msg);
    if (err)
        return err;
    if (value.len < DB_HEAD_FIXED_BYTES)
        return chr_fail(msg, CHR_ECORRUPT, "chunk head of %zu bytes is too short", value.len);
    const uint8_t *p = value.ptr;
    head->value = value;
    head->runs_ready = head->hlc_ready = false;
    head->info = (struct db_chunk_info){
        .rows = chr_get_u32le(p + 8),
        .table_id = chr_get_u32le(p + 12),
        .schema_version = chr_get_u32le(p + 16),
        .columns_count = chr_get_u16le(p + 20),
        .entry_min = chr_get_u64le(p + 24),
        .entry_max = chr_get_u64le(p + 32),
        .hlc_min = chr_get_u64le(p + 40),
        .hlc_max = chr_get_u64le(p + 48),
        .time_min_us = (int64_t)chr_get_u64le(p + 56),
        .time_max_us = (int64_t)chr_get_u64le(p + 64),
        .runs_count = chr_get_u32le(p + 72),
    };
    head->runs_offset = chr_get_u32le(p + 76);
    head->hlc_offset = chr_get_u32le(p + 80);
    struct db_chunk_info *info = &head->info;
    info->blocks = (info->rows + DB_VECTOR_ROWS - 1) / DB_VECTOR_ROWS;
    if (info->rows == 0 || info->rows > DB_CHUNK_ROWS_MAX)
        return chr_fail(msg, CHR_ECORRUPT, "chunk head: %u rows", info->rows);
    if (info->runs_count > info->rows || head->runs_offset > value.len ||
        (info->runs_count == 0) != (head->runs_offset == 0))
        return chr_fail(msg, CHR_ECORRUPT, "chunk head: %u runs at %u of %zu", info->runs_count,
                        head->runs_offset, value.len);
    if (info->entry_min > info->entry_max || head->hlc_offset > value.len ||
        (head->hlc_offset && info->entry_max - info->entry_min >= DB_CHUNK_ROWS_MAX))
        return chr_fail(msg, CHR_ECORRUPT, "chunk head: HLC table of entries %llu to %llu at %u",
                        (unsigned long long)info->entry_min, (unsigned long long)info->entry_max,
                        head->hlc_offset);
    if (DB_HEAD_FIXED_BYTES + (size_t)info->columns_count * DB_HEAD_DIRECTORY_BYTES > value.len)
        return chr_fail(msg, CHR_ECORRUPT, "chunk head of %zu bytes for %u columns", value.len,
                        info->columns_count);
    return check_directory(head, msg);
}

const struct db_chunk_info *db_chunk_head_info(const db_chunk_head *head)
{
    return &head->info;
}

int db_chunk_head_find(const db_chunk_head *head, uint16_t column)
{
    uint32_t low = 0, high = head->info.columns_count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        uint16_t id = db_chunk_head_column(head, middle);
        if (id == column)
            return (int)middle;
        if (id < column)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

uint16_t db_chunk_head_column(const db_chunk_head *head, uint32_t at)
{
    CHR_ASSERT(at < head->info.columns_count);
    return chr_get_u16le(directory_at(head, at));
}

enum db_type db_chunk_head_type(const db_chunk_head *head, uint32_t at)
{
    CHR_ASSERT(at < head->info.columns_count);
    return (enum db_type)directory_at(head, at)[2];
}

uint16_t db_chunk_head_stored_in(const db_chunk_head *head, uint32_t at)
{
    uint16_t column = db_chunk_head_column(head, at);
    return column == DB_COLUMN_HLC && head->hlc_offset ? DB_COLUMN_ENTRY : column;
}

bool db_chunk_head_has_run_stats(const db_chunk_head *head, uint32_t at)
{
    CHR_ASSERT(at < head->info.columns_count);
    return directory_at(head, at)[3] & DB_HEAD_RUN_STATS;
}

static struct db_value string_value(enum db_type type, struct db_cursor *in)
{
    struct db_value v = {.type = type, .null = true};
    uint8_t len = db__cursor_u8(in);
    if (len == DB_HEAD_STRING_UNKNOWN)
        return v;
    const uint8_t *p = db__cursor_take(in, len);
    if (p) {
        v.null = false;
        v.bytes = chr_slice_of(p, len);
    }
    return v;
}

chr_err db_chunk_head_stats(const db_chunk_head *head, uint32_t at, struct db_chunk_stats *stats,
                            struct chr_errmsg *msg)
{
    const uint8_t *d = directory_at(head, at);
    enum db_type type = db_chunk_head_type(head, at);
    struct db_column_stats *s = &stats->s;
    memset(stats, 0, sizeof *stats);
    s->count = chr_get_u32le(d + 4);
    s->nulls = head->info.rows - s->count;
    s->has_sum = type == DB_INT || type == DB_FLOAT;
    s->min = s->max = s->first = s->last = (struct db_value){.type = type, .null = true};
    if (s->count == 0) {
        stats->bounds_exact = stats->ends_exact = true;
        return CHR_OK;
    }
    stats->bounds_exact = d[3] & DB_HEAD_BOUNDS_EXACT;
    stats->ends_exact = d[3] & DB_HEAD_ENDS_EXACT;
    uint32_t offset = chr_get_u32le(d + 8);
    struct db_cursor in =
        db__cursor_of(chr_slice_of(head->value.ptr + offset, head->value.len - offset));
    s->first_time_us = (int64_t)db__cursor_u64(&in);
    s->last_time_us = (int64_t)db__cursor_u64(&in);
    if (db_type_is_bytes(type)) {
        s->min = string_value(type, &in);
        s->max = string_value(type, &in);
        s->first = string_value(type, &in);
        s->last = string_value(type, &in);
        stats->bounds_exact = stats->bounds_exact && !s->min.null && !s->max.null;
        stats->ends_exact = stats->ends_exact && !s->first.null && !s->last.null;
    } else {
        s->min = db__value_of_bits(type, (int64_t)db__cursor_u64(&in));
        s->max = db__value_of_bits(type, (int64_t)db__cursor_u64(&in));
        s->first = db__value_of_bits(type, (int64_t)db__cursor_u64(&in));
        s->last = db__value_of_bits(type, (int64_t)db__cursor_u64(&in));
        if (type == DB_INT) {
            const uint8_t *p = db__cursor_take(&in, 16);
            if (p)
                memcpy(&s->sum_i128, p, 16);
        } else if (type == DB_FLOAT) {
            uint64_t bits = db__cursor_u64(&in);
            memcpy(&s->sum_f64, &bits, 8);
        }
    }
    if (in.why)
        return chr_fail(msg, CHR_ECORRUPT, "chunk head: statistics of column %u at %u: %s",
                        db_chunk_head_column(head, at), offset, in.why);
    return CHR_OK;
}

/* -- Runs and HLC table -------------------------------------------------------------------------*/

/* Room for n numbers rounded up to what decoders write, 64-byte aligned. */
static chr_err reserve(int64_t **array, size_t *capacity, size_t n)
{
    n = chr_round_up(n, DB_VECTOR_ROWS);
    if (n <= *capacity)
        return CHR_OK;
    int64_t *more = aligned_alloc(64, n * sizeof *more);
    if (!more)
        return CHR_ENOMEM;
    free(*array);
    *array = more;
    *capacity = n;
    return CHR_OK;
}

static chr_err unpack_runs(db_chunk_head *head, struct chr_errmsg *msg)
{
    uint32_t n = head->info.runs_count, rows = head->info.rows;
    size_t each = chr_round_up(n, DB_VECTOR_ROWS);
    if (reserve(&head->arrays, &head->arrays_capacity, 3 * each))
        return chr_fail(msg, CHR_ENOMEM, "no memory for %u runs", n);
    if (head->runs_capacity < n) {
        struct db_chunk_run *more = realloc(head->runs, n * sizeof *more);
        if (!more)
            return chr_fail(msg, CHR_ENOMEM, "no memory for %u runs", n);
        head->runs = more;
        head->runs_capacity = n;
    }
    int64_t *starts = head->arrays, *firsts = starts + each, *spans = firsts + each;
    struct db_cursor in = db__cursor_of(
        chr_slice_of(head->value.ptr + head->runs_offset, head->value.len - head->runs_offset));
    chr_err err = db__int_array_get(&in, n, starts);
    if (!err)
        err = db__int_array_get(&in, n, firsts);
    if (!err)
        err = db__int_array_get(&in, n, spans);
    if (err)
        return chr_fail(msg, err, "chunk head: runs at %u: %s", head->runs_offset, in.why);
    for (uint32_t r = 0; r < n; r++) {
        int64_t end = r + 1 < n ? starts[r + 1] : rows;
        if (starts[r] < 0 || starts[r] >= end || end > rows || (r == 0 && starts[0] != 0))
            return chr_fail(msg, CHR_ECORRUPT, "chunk head: run %u of %u begins at row %lld", r, n,
                            (long long)starts[r]);
        head->runs[r] = (struct db_chunk_run){
            .first = (uint32_t)starts[r],
            .rows = (uint32_t)(end - starts[r]),
            .first_time_us = firsts[r],
            .last_time_us = (int64_t)((uint64_t)firsts[r] + (uint64_t)spans[r]),
        };
    }
    return CHR_OK;
}

const struct db_chunk_run *db_chunk_head_runs(db_chunk_head *head, chr_err *err,
                                              struct chr_errmsg *msg)
{
    *err = CHR_OK;
    if (!head->runs_ready && (*err = unpack_runs(head, msg)) != CHR_OK)
        return NULL;
    head->runs_ready = true;
    return head->runs;
}

const int64_t *db__head_hlc(db_chunk_head *head, uint32_t *count, chr_err *err,
                            struct chr_errmsg *msg)
{
    *err = CHR_OK;
    *count = 0;
    if (head->hlc_offset == 0)
        return NULL;
    *count = (uint32_t)(head->info.entry_max - head->info.entry_min) + 1;
    if (head->hlc_ready)
        return head->hlc;
    if (reserve(&head->hlc, &head->hlc_capacity, *count)) {
        *err = chr_fail(msg, CHR_ENOMEM, "no memory for an HLC table of %u", *count);
        return NULL;
    }
    struct db_cursor in = db__cursor_of(
        chr_slice_of(head->value.ptr + head->hlc_offset, head->value.len - head->hlc_offset));
    *err = db__int_array_get(&in, *count, head->hlc);
    if (*err) {
        *err = chr_fail(msg, *err, "chunk head: HLC table at %u: %s", head->hlc_offset, in.why);
        return NULL;
    }
    head->hlc_ready = true;
    return head->hlc;
}
