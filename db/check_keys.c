/* db/check_keys.c: no PRIMARY KEY twice among the rows that are visible.
 *
 * A key is the series and, in most tables, the time; a chunk is sorted by them. So the space of
 * keys is cut into windows at places noted every few thousand rows, and of each chunk a window
 * reads the stretch of rows that two binary searches find: each row is read once, and equal keys
 * are in the same window. There they are compared as 128-bit hashes. */
#include <stdlib.h>
#include <string.h>

#include "db/check_internal.h"
#include "db/series_key.h"

#define PLACE_SERIES_MAX 256 /* longer series are no places to cut at: memory stays small */

/* A place in the order of rows; before all rows of that series and time. */
struct place {
    chr_slice series; /* db/series_key.h */
    int64_t time_us;
};

struct keys {
    struct db__check *check;
    const struct db_table_def *def;
    const struct db__view *view;
    bool timed; /* the key holds the time column */
    struct db__chunk_open open;
    struct chr_buf series;
    struct place *places; /* noted, then those that bound windows */
    size_t count, capacity;
    const struct place *low, *high; /* the window; NULL: no bound */
    struct db__hashes hashes;
    uint64_t dead[DB_BIT_WORDS(DB_CHUNK_ROWS_MAX)];
};

static int place_cmp(const void *a, const void *b)
{
    const struct place *x = a, *y = b;
    int c = chr_slice_cmp(x->series, y->series);
    return c ? c : (x->time_us > y->time_us) - (x->time_us < y->time_us);
}

/* Where a row stands. The series lives in k->series. */
static chr_err read_place(struct keys *k, uint32_t row, struct place *place)
{
    const struct db_table_def *def = k->def;
    struct chr_errmsg msg;
    struct db_value v;
    chr_err err = CHR_OK;
    chr_buf_reset(&k->series);
    for (uint16_t i = 0; i < def->series_count && !err; i++) {
        const struct db_column_def *column = &def->columns[def->series_columns[i]];
        err = db__chunk_open_value(k->check->d, &k->open, column->id, column->type, row, &v, &msg);
        if (!err)
            db__series_add(&k->series, &v);
    }
    place->time_us = 0;
    if (!err && k->timed) {
        err = db__chunk_open_value(k->check->d, &k->open, db__check_time_id(def), DB_TIMESTAMP, row,
                                   &v, &msg);
        place->time_us = v.null ? INT64_MAX : v.i64;
    }
    place->series = chr_buf_slice(&k->series);
    return !err && k->series.failed ? CHR_ENOMEM : err;
}

/* -- Where to cut -------------------------------------------------------------------------------*/

static chr_err note_place(struct keys *k, struct place place)
{
    if (place.series.len > PLACE_SERIES_MAX)
        return CHR_OK;
    if (k->count == k->capacity) {
        size_t capacity = k->capacity ? k->capacity * 2 : 256;
        void *places = realloc(k->places, capacity * sizeof *k->places);
        if (!places)
            return CHR_ENOMEM;
        k->places = places;
        k->capacity = capacity;
    }
    uint8_t *copy = malloc(place.series.len + 1);
    if (!copy)
        return CHR_ENOMEM;
    if (place.series.len)
        memcpy(copy, place.series.ptr, place.series.len);
    place.series.ptr = copy;
    k->places[k->count++] = place;
    return CHR_OK;
}

static chr_err note_chunk(struct keys *k, struct db__chunk *chunk)
{
    db_kv_txn *txn;
    chr_err err = db__check_open(k->check, chunk, &k->open, &txn);
    if (err)
        return err == CHR_ECORRUPT ? CHR_OK : err;
    for (uint32_t row = 0; row < chunk->rows && !err; row += db__check_limits.sample_rows) {
        struct place place;
        err = read_place(k, row, &place);
        if (!err)
            err = note_place(k, place);
    }
    db__check_close(k->check, &k->open, txn);
    return err == CHR_ECORRUPT ? CHR_OK : err; /* reported already */
}

/* Leaves those places that cut all rows into windows of about key_rows. */
static chr_err choose_places(struct keys *k, uint64_t rows)
{
    chr_err err = CHR_OK;
    uint64_t windows = rows / db__check_limits.key_rows + 1;
    for (uint32_t i = 0; windows > 1 && i < db__view_chunks(k->view) && !err; i++)
        err = note_chunk(k, k->view->chunks->chunks[i]);
    if (err || k->count == 0)
        return err;
    qsort(k->places, k->count, sizeof *k->places, place_cmp);
    size_t kept = 0;
    uint64_t window = 1;
    for (size_t i = 0; i < k->count; i++) {
        struct place *p = &k->places[i];
        bool keep = window < windows && i >= window * k->count / windows &&
                    (kept == 0 || place_cmp(&k->places[kept - 1], p) < 0);
        if (!keep) {
            free((void *)p->series.ptr);
            continue;
        }
        k->places[kept++] = *p;
        while (window < windows && i >= window * k->count / windows)
            window++;
    }
    k->count = kept;
    return CHR_OK;
}

/* -- One window ---------------------------------------------------------------------------------*/

static bool in_window(const struct keys *k, const struct place *place)
{
    return (!k->low || place_cmp(place, k->low) >= 0) &&
           (!k->high || place_cmp(place, k->high) < 0);
}

static chr_err add_key(struct keys *k, const struct place *place)
{
    uint64_t t = (uint64_t)place->time_us;
    return db__hashes_add(
        &k->hashes,
        (struct db__hash128){
            chr_hash_u64(chr_hash_slice(place->series, 1) ^ t * UINT64_C(0x9e3779b97f4a7c15)),
            chr_hash_u64(chr_hash_slice(place->series, 2) ^ t * UINT64_C(0xc2b2ae3d27d4eb4f))});
}

/* First row at or behind a place. */
static chr_err find_row(struct keys *k, const struct place *place, uint32_t rows, uint32_t *out)
{
    uint32_t low = 0, high = rows;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        struct place at;
        chr_err err = read_place(k, mid, &at);
        if (err)
            return err;
        if (place_cmp(&at, place) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *out = low;
    return CHR_OK;
}

/* Does memory know already that no row of the chunk is in the window? */
static bool beside(const struct keys *k, const struct db__chunk *chunk)
{
    if ((k->high && db__series_before(k->high->series, chunk->min_series)) ||
        (k->low && db__series_after(k->low->series, chunk->max_series)))
        return true;
    if (k->def->series_count || !k->timed || chunk->null_times)
        return false;
    return (k->high && k->high->time_us <= chunk->min_time_us) ||
           (k->low && k->low->time_us > chunk->max_time_us);
}

/* Adds visible rows [from, to) of the open chunk. Rows of a series stand together: its bytes are
 * made once, the time alone is looked at for each. */
static chr_err add_rows(struct keys *k, struct db__chunk *chunk, uint32_t from, uint32_t to)
{
    const struct db_table_def *def = k->def;
    struct db *d = k->check->d;
    int64_t now_us = db_read_time_us(k->check->read);
    bool expires = db__can_expire(def);
    bool marked = db__marks_at(&chunk->marks, k->check->read->index, k->dead) != 0;
    const struct db_vector *series[DB_KEY_COLUMNS_MAX], *time = NULL;
    struct place place = {0};
    struct chr_errmsg msg;
    chr_err err = CHR_OK;
    for (uint32_t row = from; row < to && !err;) {
        uint32_t block = row / DB_VECTOR_ROWS, end = CHR_MIN(to, (block + 1) * DB_VECTOR_ROWS);
        for (uint16_t i = 0; i < def->series_count && !err; i++)
            err = db__chunk_open_decode(d, &k->open, def->columns[def->series_columns[i]].id, block,
                                        &series[i], &msg);
        if (!err && (k->timed || expires))
            err = db__chunk_open_decode(d, &k->open, db__check_time_id(def), block, &time, &msg);
        bool fresh = true;
        for (; row < end && !err; row++) {
            uint32_t at = row % DB_VECTOR_ROWS;
            int64_t time_us = INT64_MAX;
            if (time && db_vector_valid(time, at))
                time_us = time->i64[db_vector_at(time, at)];
            bool same = !fresh;
            for (uint16_t i = 0; i < def->series_count && same; i++)
                same = series[i] && series[i]->form != DB_VECTOR_FLAT && !series[i]->validity &&
                       db_vector_at(series[i], at) == db_vector_at(series[i], at - 1);
            if (!same && (err = read_place(k, row, &place)))
                break;
            fresh = false;
            place.time_us = k->timed ? time_us : 0;
            if ((marked && db_bit_get(k->dead, row)) ||
                (expires && db__expired(def, time_us, now_us)))
                continue;
            err = add_key(k, &place);
        }
    }
    return err;
}

static chr_err add_chunk(struct keys *k, struct db__chunk *chunk)
{
    db_kv_txn *txn;
    uint32_t from = 0, to = chunk->rows;
    if (beside(k, chunk))
        return CHR_OK;
    chr_err err = db__check_open(k->check, chunk, &k->open, &txn);
    if (err)
        return err == CHR_ECORRUPT ? CHR_OK : err;
    if (k->low)
        err = find_row(k, k->low, chunk->rows, &from);
    if (!err && k->high)
        err = find_row(k, k->high, chunk->rows, &to);
    if (!err && from < to)
        err = add_rows(k, chunk, from, to);
    db__check_close(k->check, &k->open, txn);
    if (!err && from < to && k->hashes.pass == 0)
        db__check_progress(k->check, k->def, to - from);
    return err == CHR_ECORRUPT ? CHR_OK : err; /* reported already */
}

static chr_err add_hot_block(struct keys *k, struct db__hot_block *b)
{
    const struct db_table_def *def = k->def;
    int64_t now_us = db_read_time_us(k->check->read);
    uint32_t rows = db__hot_rows_at(b, k->check->read->index);
    int time_at = db__hot_column(b, db__check_time_id(def));
    chr_err err = CHR_OK;
    for (uint32_t row = 0; row < rows && !err; row++) {
        uint64_t deleted = db__hot_deleted(b, row);
        struct db_value v = {.null = true};
        if (time_at >= 0)
            v = db__hot_value(b, (uint32_t)time_at, row);
        int64_t time_us = v.null ? INT64_MAX : v.i64;
        if ((deleted && deleted <= k->check->read->index) ||
            (db__can_expire(def) && db__expired(def, time_us, now_us)))
            continue;
        chr_buf_reset(&k->series);
        for (uint16_t i = 0; i < def->series_count; i++) {
            const struct db_column_def *column = &def->columns[def->series_columns[i]];
            int at = db__hot_column(b, column->id);
            v = (struct db_value){.type = column->type, .null = true};
            if (at >= 0)
                v = db__hot_value(b, (uint32_t)at, row);
            db__series_add(&k->series, &v);
        }
        if (k->series.failed)
            return CHR_ENOMEM;
        struct place place = {chr_buf_slice(&k->series), k->timed ? time_us : 0};
        if (in_window(k, &place))
            err = add_key(k, &place);
    }
    return err;
}

static chr_err check_window(struct keys *k)
{
    bool again;
    chr_err err;
    db__hashes_begin(&k->hashes);
    do {
        err = CHR_OK;
        for (uint32_t i = 0; i < db__view_chunks(k->view) && !err; i++)
            err = add_chunk(k, k->view->chunks->chunks[i]);
        for (uint32_t s = 0; s < k->view->hot_count && !err; s++) {
            struct db__hot_block *b =
                atomic_load_explicit(&k->view->hot[s]->first, memory_order_acquire);
            for (; b && !err; b = atomic_load_explicit(&b->next, memory_order_acquire))
                err = add_hot_block(k, b);
        }
        if (!err)
            err = db__hashes_again(&k->hashes, &again);
    } while (!err && again);
    return err;
}

chr_err db__check_keys(struct db__check *c, const struct db_table_def *def,
                       const struct db__view *view)
{
    if (def->key_count == 0)
        return CHR_OK;
    struct keys *k = calloc(1, sizeof *k);
    if (!k)
        return CHR_ENOMEM;
    k->check = c;
    k->def = def;
    k->view = view;
    k->timed = def->key_count > def->series_count;
    chr_buf_init(&k->series, SIZE_MAX);
    uint64_t rows = 0, twice = 0;
    for (uint32_t i = 0; i < db__view_chunks(view); i++)
        rows += view->chunks->chunks[i]->rows;
    chr_err err = choose_places(k, rows);
    for (size_t i = 0; i <= k->count && !err; i++) {
        k->low = i ? &k->places[i - 1] : NULL;
        k->high = i < k->count ? &k->places[i] : NULL;
        err = check_window(k);
        twice += k->hashes.twice;
    }
    if (!err && twice)
        db__check_found(c, "table \"%s\": %llu rows have the PRIMARY KEY of another", def->name,
                        (unsigned long long)twice);
    for (size_t i = 0; i < k->count; i++)
        free((void *)k->places[i].series.ptr);
    free(k->places);
    db__hashes_free(&k->hashes);
    chr_buf_free(&k->series);
    db__chunk_open_free(&k->open);
    free(k);
    return err;
}
