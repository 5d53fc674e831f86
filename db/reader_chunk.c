/* db/reader_chunk.c: a reader in a chunk: leaving out what statistics and series rule out, columns
 * decoded block by block when asked for.
 *
 * The LMDB transaction lives from the opening of the chunk to the reader's next morsel (R10). */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/chunk.h"
#include "db/chunk_open.h"
#include "db/scan_internal.h"
#include "db/store.h"

/* A run of so many rows is looked into for the times that are wanted; below, decoding it whole is
 * about as quick. (Less in debug builds: the model test's chunks are small.) */
#ifdef CHR_DEBUG
#define NARROW_ROWS_MIN 8
#else
#define NARROW_ROWS_MIN (4 * DB_VECTOR_ROWS)
#endif
#define HEAD_BIT 63 /* in db__chunk.verified; columns take the bits of their place below it */

/* A column of the chunk that is open, or could be. */
struct open_column {
    db_chunk_column *column;
    bool open;
    uint32_t block; /* decoded into vector; UINT32_MAX: none */
    struct db_vector vector;
};

struct db__reader_chunk {
    db_kv_txn *txn; /* NULL: no chunk is open */
    struct db__chunk *chunk;
    db_chunk_head *head;
    struct open_column *columns; /* by slot, then time, entry, ordinal */
    uint32_t columns_count;
    uint32_t blocks_wanted; /* bit per block: may hold rows that meet the bounds */
    uint32_t dead_count;
    uint64_t dead[DB_BIT_WORDS(DB_CHUNK_ROWS_MAX)];
};
_Static_assert(DB_CHUNK_BLOCKS_MAX <= 32, "a bit per block");

enum { EXTRA_TIME, EXTRA_ENTRY, EXTRA_ORDINAL, EXTRA_SERIES, EXTRAS };

static struct open_column *extra(const db_reader *r, int which)
{
    return &r->chunk->columns[r->scan->slots_count + (uint32_t)which];
}

static chr_err chunk_new(db_reader *r)
{
    struct db__reader_chunk *c = calloc(1, sizeof *c);
    r->chunk = c;
    if (!c)
        return CHR_ENOMEM;
    c->columns_count = r->scan->slots_count + EXTRAS;
    c->columns = calloc(c->columns_count, sizeof *c->columns);
    return c->columns ? db_chunk_head_new(&c->head) : CHR_ENOMEM;
}

void db__reader_chunk_close(db_reader *r)
{
    struct db__reader_chunk *c = r->chunk;
    if (!c || !c->txn)
        return;
    const struct db_kv *kv = &r->scan->read->d->kv;
    kv->abort(kv->ctx, c->txn);
    c->txn = NULL;
    for (uint32_t i = 0; i < c->columns_count; i++) {
        c->columns[i].open = false;
        c->columns[i].block = UINT32_MAX;
    }
}

void db__reader_chunk_free(db_reader *r)
{
    struct db__reader_chunk *c = r->chunk;
    if (!c)
        return;
    db__reader_chunk_close(r);
    for (uint32_t i = 0; c->columns && i < c->columns_count; i++)
        db_chunk_column_free(c->columns[i].column);
    free(c->columns);
    db_chunk_head_free(c->head);
    free(c);
    r->chunk = NULL;
}

/* -- Columns ------------------------------------------------------------------------------------*/

static bool is_verified(struct db__chunk *chunk, uint32_t bit)
{
    return bit <= HEAD_BIT &&
           (atomic_load_explicit(&chunk->verified, memory_order_relaxed) >> bit & 1);
}

static void set_verified(struct db__chunk *chunk, uint32_t bit)
{
    if (bit <= HEAD_BIT)
        atomic_fetch_or_explicit(&chunk->verified, UINT64_C(1) << bit, memory_order_relaxed);
}

static chr_err damaged(const db_reader *r, chr_err err, uint32_t column, struct chr_errmsg *msg)
{
    return db__chunk_damaged(err, r->scan->def, r->chunk->chunk, column, msg);
}

/* The block of the column with this id, decoded. *vector NULL: the chunk does not have the column.
 */
static chr_err decode_plain(db_reader *r, struct open_column *oc, uint16_t id, uint32_t block,
                            struct db_vector **vector, struct chr_errmsg *msg)
{
    struct db__reader_chunk *c = r->chunk;
    chr_err err;
    *vector = NULL;
    if (!oc->open) {
        int at = db_chunk_head_find(c->head, id);
        if (at < 0)
            return CHR_OK;
        chr_slice value;
        uint32_t bit = (uint32_t)at < HEAD_BIT ? (uint32_t)at : HEAD_BIT + 1;
        const struct db_kv *kv = &r->scan->read->d->kv;
        uint16_t stored = db_chunk_head_stored_in(c->head, (uint32_t)at);
        if (!oc->column && (err = db_chunk_column_new(&oc->column)))
            return err;
        err = db__store_part(kv, c->txn, c->chunk->id, DB_CHUNK_COLUMN, stored, &value, msg);
        if (!err)
            err = db_chunk_column_open(oc->column, c->head, (uint32_t)at, value,
                                       !is_verified(c->chunk, bit), msg);
        if (err)
            return err;
        set_verified(c->chunk, bit);
        oc->open = true;
        oc->block = UINT32_MAX;
    }
    if (oc->block != block) {
        err = db_chunk_column_decode(oc->column, block, &oc->vector, msg);
        if (err)
            return err;
        oc->block = block;
    }
    *vector = &oc->vector;
    return CHR_OK;
}

static chr_err decode(db_reader *r, struct open_column *oc, uint16_t id, uint32_t block,
                      struct db_vector **vector, struct chr_errmsg *msg)
{
    chr_err err = decode_plain(r, oc, id, block, vector, msg);
    return CHR_LIKELY(!err) ? err : damaged(r, err, id, msg);
}

chr_err db__reader_chunk_column(db_reader *r, uint32_t slot, struct chr_errmsg *msg)
{
    const struct db__scan_slot *want = &r->scan->slots[slot];
    struct db__reader_slot *s = &r->slots[slot];
    struct db_vector *vector;
    chr_err err =
        decode(r, &r->chunk->columns[slot], want->id, r->row / DB_VECTOR_ROWS, &vector, msg);
    if (err)
        return err;
    if (vector) {
        if (vector->type != want->type || vector->count != r->batch_rows)
            return damaged(r, chr_fail(msg, CHR_ECORRUPT, "another type or length"), want->id, msg);
        s->vector = *vector;
    } else if (!db__reader_null(s, want->type, r->batch_rows)) {
        return CHR_ENOMEM;
    }
    s->ready = true;
    return CHR_OK;
}

chr_err db__reader_chunk_ids(db_reader *r, struct db_row_id *out, struct chr_errmsg *msg)
{
    uint32_t block = r->row / DB_VECTOR_ROWS;
    struct db_vector *entry, *ordinal;
    chr_err err = decode(r, extra(r, EXTRA_ENTRY), DB_COLUMN_ENTRY, block, &entry, msg);
    if (!err)
        err = decode(r, extra(r, EXTRA_ORDINAL), DB_COLUMN_ORDINAL, block, &ordinal, msg);
    if (err)
        return err;
    if (!entry || !ordinal)
        return damaged(r, chr_fail(msg, CHR_ECORRUPT, "it has no row ids"), DB__COLUMN_NONE, msg);
    for (uint32_t i = 0; i < r->batch_rows; i++)
        out[i] = (struct db_row_id){(uint64_t)entry->i64[db_vector_at(entry, i)],
                                    (uint32_t)ordinal->i64[db_vector_at(ordinal, i)]};
    return CHR_OK;
}

/* -- What need not be read ----------------------------------------------------------------------*/

static bool above_high(const struct db_bound *b, const struct db_value *low)
{
    int c = b->has_high ? db__value_cmp(low, &b->high) : -1;
    return c > 0 || (c == 0 && !b->high_inclusive);
}

static bool below_low(const struct db_bound *b, const struct db_value *high)
{
    int c = b->has_low ? db__value_cmp(high, &b->low) : 1;
    return c < 0 || (c == 0 && !b->low_inclusive);
}

/* By what memory knows of the chunk alone. */
static bool prune_by_record(const db_scan *scan, const struct db__chunk *chunk)
{
    bool has_times = chunk->min_time_us <= chunk->max_time_us;
    if (!chunk->null_times && has_times && scan->expiry_limit_us != INT64_MIN &&
        chunk->max_time_us <= scan->expiry_limit_us)
        return true;
    for (uint32_t i = 0; i < scan->bounds_count; i++) {
        if (scan->bound_ids[i] != scan->time_id)
            continue;
        struct db_value min = {.type = DB_TIMESTAMP, .i64 = chunk->min_time_us};
        struct db_value max = {.type = DB_TIMESTAMP, .i64 = chunk->max_time_us};
        if (!has_times || above_high(&scan->bounds[i], &min) || below_low(&scan->bounds[i], &max))
            return true;
    }
    return false;
}

static chr_err prune_by_head(const db_reader *r, bool *pruned, struct chr_errmsg *msg)
{
    const db_scan *scan = r->scan;
    *pruned = false;
    for (uint32_t i = 0; i < scan->bounds_count && !*pruned; i++) {
        int at = db_chunk_head_find(r->chunk->head, scan->bound_ids[i]);
        struct db_chunk_stats stats;
        if (at < 0) {
            *pruned = true; /* NULL everywhere, which meets no bound */
            continue;
        }
        chr_err err = db_chunk_head_stats(r->chunk->head, (uint32_t)at, &stats, msg);
        if (err)
            return damaged(r, err, scan->bound_ids[i], msg);
        *pruned = stats.s.count == 0 ||
                  (!stats.s.min.null && above_high(&scan->bounds[i], &stats.s.min)) ||
                  (!stats.s.max.null && below_low(&scan->bounds[i], &stats.s.max));
    }
    return CHR_OK;
}

/* One value, of the leading series column or of time. */
static chr_err value_of_row(db_reader *r, int which, uint16_t id, uint32_t row,
                            struct db_value *out, struct chr_errmsg *msg)
{
    struct db_vector *v;
    chr_err err = decode(r, extra(r, which), id, row / DB_VECTOR_ROWS, &v, msg);
    if (err)
        return err;
    out->null = true;
    if (!v)
        return CHR_OK;
    uint32_t i = row % DB_VECTOR_ROWS, at = db_vector_at(v, i);
    *out = (struct db_value){.type = v->type, .null = !db_vector_valid(v, i)};
    if (out->null)
        return CHR_OK;
    if (db_type_is_bytes(v->type))
        out->bytes = v->str[at];
    else if (v->type == DB_BOOLEAN)
        out->boolean = v->b8[at];
    else
        out->i64 = v->i64[at];
    return CHR_OK;
}

/* First run whose series is not before the bound's low (or, above: whose series is beyond its
 * high). Runs are in order of the leading series column, NULLs last. */
static chr_err search_runs(db_reader *r, uint16_t id, const struct db_bound *b, bool above,
                           const struct db_chunk_run *runs, uint32_t count, uint32_t *out,
                           struct chr_errmsg *msg)
{
    uint32_t low = 0, high = count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        struct db_value v;
        chr_err err = value_of_row(r, EXTRA_SERIES, id, runs[mid].first, &v, msg);
        if (err)
            return err;
        bool left = above ? !v.null && !above_high(b, &v) : !v.null && below_low(b, &v);
        if (left)
            low = mid + 1;
        else
            high = mid;
    }
    *out = low;
    return CHR_OK;
}

/* Rows [*from, *to) of a run that may meet a bound on time, whose order they are in. */
static chr_err narrow_run(db_reader *r, const struct db_bound *b, uint32_t *from, uint32_t *to,
                          struct chr_errmsg *msg)
{
    for (int above = 0; above < 2; above++) {
        uint32_t low = *from, high = *to;
        while (low < high) {
            uint32_t mid = (low + high) / 2;
            struct db_value v;
            chr_err err = value_of_row(r, EXTRA_TIME, r->scan->time_id, mid, &v, msg);
            if (err)
                return err;
            /* NULLs stand last. */
            bool left = !v.null && (above ? !above_high(b, &v) : below_low(b, &v));
            if (left)
                low = mid + 1;
            else
                high = mid;
        }
        if (above)
            *to = low;
        else
            *from = low;
    }
    return CHR_OK;
}

/* Blocks in which a run may meet the bounds on the leading series column and on time. */
static chr_err want_blocks(db_reader *r, struct chr_errmsg *msg)
{
    const db_scan *scan = r->scan;
    struct db__reader_chunk *c = r->chunk;
    const struct db_chunk_info *info = db_chunk_head_info(c->head);
    const struct db_bound *series = NULL, *time = NULL;
    uint16_t id = 0;
    c->blocks_wanted = UINT32_MAX;
    if (scan->def->series_count)
        id = scan->def->columns[scan->def->series_columns[0]].id;
    for (uint32_t i = 0; i < scan->bounds_count; i++) {
        if (scan->def->series_count && scan->bound_ids[i] == id)
            series = &scan->bounds[i];
        if (scan->bound_ids[i] == scan->time_id)
            time = &scan->bounds[i];
    }
    if ((!series && !time) || info->runs_count == 0)
        return CHR_OK;
    chr_err err = CHR_OK;
    const struct db_chunk_run *runs = db_chunk_head_runs(c->head, &err, msg);
    uint32_t from = 0, to = info->runs_count;
    if (err)
        return damaged(r, err, DB__COLUMN_NONE, msg);
    if (series && series->has_low)
        err = search_runs(r, id, series, false, runs, info->runs_count, &from, msg);
    if (series && !err)
        err = search_runs(r, id, series, true, runs, info->runs_count, &to, msg);
    if (err)
        return err;
    c->blocks_wanted = 0;
    for (uint32_t i = from; i < to; i++) {
        struct db_value first = {.type = DB_TIMESTAMP, .i64 = runs[i].first_time_us};
        struct db_value last = {.type = DB_TIMESTAMP, .i64 = runs[i].last_time_us};
        if (time && (above_high(time, &first) || below_low(time, &last)))
            continue;
        uint32_t a = runs[i].first, b = a + runs[i].rows;
        if (time && runs[i].rows >= NARROW_ROWS_MIN && (err = narrow_run(r, time, &a, &b, msg)))
            return err;
        for (uint32_t k = a / DB_VECTOR_ROWS; a < b && k <= (b - 1) / DB_VECTOR_ROWS; k++)
            c->blocks_wanted |= UINT32_C(1) << k;
    }
    return CHR_OK;
}

/* -- Opening, statistics, visibility ------------------------------------------------------------*/

static chr_err open_head(db_reader *r, struct db__chunk *chunk, struct chr_errmsg *msg)
{
    struct db__reader_chunk *c = r->chunk;
    const struct db_kv *kv = &r->scan->read->d->kv;
    chr_slice value;
    chr_err err = kv->begin(kv->ctx, false, &c->txn);
    if (err) {
        c->txn = NULL;
        return err;
    }
    err = db__store_part(kv, c->txn, chunk->id, DB_CHUNK_HEAD, 0, &value, msg);
    if (!err)
        err = db_chunk_head_open(c->head, value, !is_verified(chunk, HEAD_BIT), msg);
    const struct db_chunk_info *info = db_chunk_head_info(c->head);
    if (!err && (info->rows != chunk->rows || info->table_id != chunk->table_id))
        err = chr_fail(msg, CHR_ECORRUPT, "it is not the one its record describes");
    if (err)
        return damaged(r, err, DB__COLUMN_NONE, msg);
    set_verified(chunk, HEAD_BIT);
    return CHR_OK;
}

int db__reader_chunk_open(db_reader *r, struct db__chunk *chunk, struct chr_errmsg *msg)
{
    const db_scan *scan = r->scan;
    bool pruned;
    if (prune_by_record(scan, chunk))
        return 0;
    chr_err err = r->chunk ? CHR_OK : chunk_new(r);
    if (err)
        return err;
    r->chunk->chunk = chunk;
    err = open_head(r, chunk, msg);
    if (!err)
        err = prune_by_head(r, &pruned, msg);
    if (!err && !pruned)
        err = want_blocks(r, msg);
    if (err || pruned || r->chunk->blocks_wanted == 0) {
        db__reader_chunk_close(r);
        return err;
    }
    r->rows = chunk->rows;
    r->chunk->dead_count = db__marks_at(&chunk->marks, scan->read->index, r->chunk->dead);
    bool may_expire =
        chunk->min_time_us <= chunk->max_time_us && chunk->min_time_us <= scan->expiry_limit_us;
    r->exact = r->chunk->dead_count == 0 && !may_expire; /* R11 */
    return 1;
}

bool db__reader_chunk_stats(db_reader *r, uint32_t slot, struct db_column_stats *stats)
{
    struct db_chunk_stats s;
    int at = db_chunk_head_find(r->chunk->head, r->scan->slots[slot].id);
    if (at < 0) {
        enum db_type type = r->scan->slots[slot].type;
        struct db_value null = {.type = type, .null = true};
        *stats = (struct db_column_stats){.nulls = r->rows,
                                          .min = null,
                                          .max = null,
                                          .first = null,
                                          .last = null,
                                          .has_sum = type == DB_INT || type == DB_FLOAT};
        return true;
    }
    if (db_chunk_head_stats(r->chunk->head, (uint32_t)at, &s, NULL) || !s.bounds_exact ||
        !s.ends_exact)
        return false;
    *stats = s.s;
    return true;
}

bool db__reader_chunk_wants(const db_reader *r)
{
    return r->chunk->blocks_wanted >> (r->row / DB_VECTOR_ROWS) & 1;
}

chr_err db__reader_chunk_select(db_reader *r, bool *all, uint32_t *count, struct chr_errmsg *msg)
{
    struct db_vector *times = NULL;
    const uint64_t *dead = NULL;
    if (r->chunk->dead_count) {
        uint64_t any = 0;
        dead = r->chunk->dead + r->row / 64;
        for (uint32_t w = 0; w < DB_BIT_WORDS(r->batch_rows); w++)
            any |= dead[w];
        if (!any)
            dead = NULL;
    }
    if (r->scan->expiry_limit_us != INT64_MIN) {
        chr_err err =
            decode(r, extra(r, EXTRA_TIME), r->scan->time_id, r->row / DB_VECTOR_ROWS, &times, msg);
        if (err)
            return err;
    }
    *all = !dead && !times;
    if (!*all) {
        *count = db__reader_select(r, times, dead);
        *all = *count == r->batch_rows;
    }
    return CHR_OK;
}
