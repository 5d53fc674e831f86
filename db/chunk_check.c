/* db/chunk_check.c: a chunk read as a whole and each of its statistics counted again, row by row:
 * the slow, obvious way, so that it shares no mistake with the writer. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "db/chunk_internal.h"

/* What rows of a run, or of the chunk, come to. Strings are copies in the arena. */
struct counted {
    uint64_t count;
    struct db_value min, max, first, last;
    uint32_t first_row, last_row;
    __int128 sum_i;
    double sum_f, sum_magnitude;
};

struct check {
    db_chunk_head *head;
    db_chunk_column *column;
    db_chunk_runs *runs;
    const struct db_chunk_info *info;
    const struct db_chunk_run *run; /* [info->runs_count]; NULL: not listed */
    bool sorted;                    /* the rows of each run are in order */
    int64_t *times;                 /* by row */
    struct db_row_id *ids;          /* by row */
    struct counted *per_run;
    struct chr_arena arena;
    chr_err (*get)(void *arg, enum db_chunk_part_kind kind, uint16_t column, chr_slice *value);
    void (*report)(void *arg, const char *finding);
    void *arg;
};

CHR_PRINTF(2, 3) static void finding(struct check *c, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->report(c->arg, text);
}

/* What its bytes are said to be wrong with; a checksum knows no column. */
static void column_finding(struct check *c, uint16_t column, const struct chr_errmsg *msg)
{
    if (strncmp(msg->text, "column ", 7) == 0)
        finding(c, "%s", msg->text);
    else
        finding(c, "column %u: %s", column, msg->text);
}

/* Order of values as statistics have it: NaN above all numbers and equal to itself. */
static int compare(const struct db_value *a, const struct db_value *b)
{
    if (db_type_is_bytes(a->type))
        return chr_slice_cmp(a->bytes, b->bytes);
    if (a->type == DB_FLOAT) {
        if (isnan(a->f64) || isnan(b->f64))
            return isnan(a->f64) - isnan(b->f64);
        return (a->f64 > b->f64) - (a->f64 < b->f64);
    }
    if (a->type == DB_BOOLEAN)
        return (int)a->boolean - (int)b->boolean;
    return (a->i64 > b->i64) - (a->i64 < b->i64);
}

static bool same(const struct db_value *a, const struct db_value *b)
{
    return a->null == b->null && (a->null || compare(a, b) == 0);
}

static struct db_value value_at(const struct db_vector *v, uint32_t row)
{
    uint32_t at = db_vector_at(v, row);
    struct db_value value = {.type = v->type, .null = false};
    if (db_type_is_bytes(v->type))
        value.bytes = v->str[at];
    else if (v->type == DB_FLOAT)
        value.f64 = v->f64[at];
    else if (v->type == DB_BOOLEAN)
        value.boolean = v->b8[at] != 0;
    else
        value.i64 = v->i64[at];
    return value;
}

CHR_INLINE bool row_before(const struct check *c, uint32_t a, uint32_t b)
{
    if (c->times[a] != c->times[b])
        return c->times[a] < c->times[b];
    if (c->ids[a].entry != c->ids[b].entry)
        return c->ids[a].entry < c->ids[b].entry;
    return c->ids[a].ordinal < c->ids[b].ordinal;
}

static bool keep(struct check *c, struct db_value *to, const struct db_value *from)
{
    *to = *from;
    if (db_type_is_bytes(from->type) && from->bytes.len) {
        to->bytes = chr_arena_dup(&c->arena, from->bytes);
        return to->bytes.ptr != NULL;
    }
    return true;
}

/* Adds what some rows come to. */
static bool count_add(struct check *c, struct counted *to, const struct counted *n)
{
    bool ok = true, first = to->count == 0;
    if (n->count == 0)
        return true;
    if (first || compare(&n->min, &to->min) < 0)
        ok &= keep(c, &to->min, &n->min);
    if (first || compare(&n->max, &to->max) > 0)
        ok &= keep(c, &to->max, &n->max);
    if (first || row_before(c, n->first_row, to->first_row)) {
        ok &= keep(c, &to->first, &n->first);
        to->first_row = n->first_row;
    }
    if (first || row_before(c, to->last_row, n->last_row)) {
        ok &= keep(c, &to->last, &n->last);
        to->last_row = n->last_row;
    }
    to->sum_i += n->sum_i;
    to->sum_f += n->sum_f;
    to->sum_magnitude += n->sum_magnitude;
    to->count += n->count;
    return ok;
}

/* -- Rows of one block and one run --------------------------------------------------------------*/

/* Extremes and sums of the values [from, to) of a vector, of which n->count are not NULL. A loop
 * per type: this is what a check of a large database spends its time in. */
static void count_ints(const struct db_vector *v, uint32_t from, uint32_t to, struct counted *n)
{
    int64_t min = INT64_MAX, max = INT64_MIN;
    __int128 sum = 0;
    for (uint32_t i = from; i < to; i++) {
        if (v->validity && !db_bit_get(v->validity, i))
            continue;
        int64_t x = v->i64[db_vector_at(v, i)];
        min = CHR_MIN(min, x);
        max = CHR_MAX(max, x);
        sum += x;
    }
    n->min.i64 = min;
    n->max.i64 = max;
    n->sum_i = v->type == DB_INT ? sum : 0;
}

static void count_floats(const struct db_vector *v, uint32_t from, uint32_t to, struct counted *n)
{
    double min = NAN, max = NAN, nan = NAN;
    bool some_nan = false;
    for (uint32_t i = from; i < to; i++) {
        if (v->validity && !db_bit_get(v->validity, i))
            continue;
        double x = v->f64[db_vector_at(v, i)];
        n->sum_f += x;
        n->sum_magnitude += fabs(x);
        if (isnan(x)) {
            some_nan = true;
            continue;
        }
        min = x >= min ? min : x; /* the first one, min being NaN, is kept as well */
        max = x <= max ? max : x;
    }
    n->min.f64 = min;
    n->max.f64 = some_nan ? nan : max;
}

static void count_others(const struct db_vector *v, uint32_t from, uint32_t to, struct counted *n)
{
    bool first = true;
    uint32_t last_at = UINT32_MAX;
    for (uint32_t i = from; i < to; i++) {
        if (v->validity && !db_bit_get(v->validity, i))
            continue;
        uint32_t at = db_vector_at(v, i);
        if (at == last_at)
            continue; /* strings of a dictionary repeat */
        last_at = at;
        struct db_value value = value_at(v, i);
        if (first || compare(&value, &n->min) < 0)
            n->min = value;
        if (first || compare(&value, &n->max) > 0)
            n->max = value;
        first = false;
    }
}

/* First and last by time among the values [from, to); row: that of the vector's first. */
static void count_ends(const struct check *c, const struct db_vector *v, uint32_t row,
                       uint32_t from, uint32_t to, struct counted *n)
{
    uint32_t first = DB_NO_ROW, last = DB_NO_ROW;
    for (uint32_t i = from; i < to; i++) {
        if (!db_vector_valid(v, i))
            continue;
        if (first == DB_NO_ROW || (!c->sorted && row_before(c, row + i, row + first)))
            first = i;
        if (last == DB_NO_ROW || c->sorted || row_before(c, row + last, row + i))
            last = i;
    }
    n->first = value_at(v, first);
    n->last = value_at(v, last);
    n->first_row = row + first;
    n->last_row = row + last;
}

static void count_rows(const struct check *c, const struct db_vector *v, uint32_t row,
                       uint32_t from, uint32_t to, struct counted *n)
{
    *n = (struct counted){.min.type = v->type, .max.type = v->type};
    struct db_vector flat = *v;
    uint64_t all_null[DB_BIT_WORDS(DB_VECTOR_ROWS)];
    if (v->form == DB_VECTOR_CONSTANT) {
        /* Its one validity bit stands for all rows. */
        if (v->validity && !db_bit_get(v->validity, 0)) {
            memset(all_null, 0, sizeof all_null);
            flat.validity = all_null;
        } else {
            flat.validity = NULL;
        }
    }
    for (uint32_t i = from; i < to; i++)
        n->count += !flat.validity || db_bit_get(flat.validity, i);
    if (n->count == 0)
        return;
    if (v->type == DB_INT || v->type == DB_TIMESTAMP)
        count_ints(&flat, from, to, n);
    else if (v->type == DB_FLOAT)
        count_floats(&flat, from, to, n);
    else
        count_others(&flat, from, to, n);
    count_ends(c, v, row, from, to, n);
}

/* -- Comparing ----------------------------------------------------------------------------------*/

static bool sums_agree(enum db_type type, const struct counted *n, const struct db_column_stats *s)
{
    if (type == DB_INT)
        return n->sum_i == s->sum_i128;
    if (type != DB_FLOAT)
        return true;
    if (!isfinite(n->sum_f) || !isfinite(s->sum_f64))
        return true; /* order decides whether and when a sum overflows */
    return fabs(n->sum_f - s->sum_f64) <= n->sum_magnitude * 1e-9;
}

static void compare_stats(struct check *c, uint16_t column, enum db_type type, const char *what,
                          uint32_t run, uint64_t rows, const struct counted *n,
                          const struct db_chunk_stats *stats)
{
    const struct db_column_stats *s = &stats->s;
    char of[48];
    if (run == DB_NO_ROW)
        snprintf(of, sizeof of, "column %u", column);
    else
        snprintf(of, sizeof of, "column %u, run %u", column, run);
    if (s->count != n->count || s->nulls != rows - n->count)
        finding(c, "%s of %s: %llu values and %llu NULLs, counted %llu and %llu", what, of,
                (unsigned long long)s->count, (unsigned long long)s->nulls,
                (unsigned long long)n->count, (unsigned long long)(rows - n->count));
    if (n->count == 0 || s->count == 0)
        return;
    if (stats->bounds_exact ? !same(&s->min, &n->min) || !same(&s->max, &n->max)
                            : (!s->min.null && compare(&s->min, &n->min) > 0) ||
                                  (!s->max.null && compare(&s->max, &n->max) < 0))
        finding(c, "%s of %s: minimum or maximum is not that of the values", what, of);
    if (stats->ends_exact && (!same(&s->first, &n->first) || !same(&s->last, &n->last)))
        finding(c, "%s of %s: first or last is not that of the values", what, of);
    if (s->first_time_us != c->times[n->first_row] || s->last_time_us != c->times[n->last_row])
        finding(c, "%s of %s: time of the first or last value is wrong", what, of);
    if (!sums_agree(type, n, s))
        finding(c, "%s of %s: sum is not that of the values", what, of);
}

/* -- Columns ------------------------------------------------------------------------------------*/

/* Counts a column that is open. CHR_ECORRUPT (reported) or CHR_ENOMEM. */
static chr_err count_column(struct check *c, struct counted *total)
{
    uint32_t run = 0;
    struct chr_errmsg msg;
    for (uint32_t b = 0; b < c->info->blocks; b++) {
        struct db_vector v;
        chr_err err = db_chunk_column_decode(c->column, b, &v, &msg);
        if (err) {
            finding(c, "%s", msg.text);
            return err;
        }
        /* The rows of one run at a time; without runs, all of the block. */
        for (uint32_t from = 0, to; from < v.count; from = to) {
            uint32_t row = b * DB_VECTOR_ROWS;
            struct counted n;
            to = v.count;
            if (c->run) {
                while (row + from >= c->run[run].first + c->run[run].rows)
                    run++;
                to = CHR_MIN(to, c->run[run].first + c->run[run].rows - row);
            }
            count_rows(c, &v, row, from, to, &n);
            if (!count_add(c, total, &n) || (c->run && !count_add(c, &c->per_run[run], &n)))
                return CHR_ENOMEM;
        }
    }
    return CHR_OK;
}

static chr_err get_part(struct check *c, enum db_chunk_part_kind kind, uint16_t column,
                        chr_slice *value)
{
    chr_err err = c->get(c->arg, kind, column, value);
    if (err == CHR_ENOTFOUND)
        finding(c, "part '%c' of column %u is missing", kind, column);
    return err;
}

static chr_err open_column(struct check *c, uint32_t at)
{
    chr_slice value;
    struct chr_errmsg msg;
    chr_err err = get_part(c, DB_CHUNK_COLUMN, db_chunk_head_stored_in(c->head, at), &value);
    if (err)
        return err;
    err = db_chunk_column_open(c->column, c->head, at, value, true, &msg);
    if (err && err != CHR_ENOMEM)
        column_finding(c, db_chunk_head_column(c->head, at), &msg);
    return err;
}

static chr_err check_runs(struct check *c, uint32_t at)
{
    chr_slice value;
    struct chr_errmsg msg;
    uint16_t column = db_chunk_head_column(c->head, at);
    chr_err err = get_part(c, DB_CHUNK_RUNS, column, &value);
    if (err)
        return err;
    err = db_chunk_runs_open(c->runs, c->head, at, value, true, &msg);
    if (err) {
        if (err != CHR_ENOMEM)
            column_finding(c, column, &msg);
        return err;
    }
    for (uint32_t r = 0; r < c->info->runs_count; r++) {
        struct db_chunk_stats stats;
        db_chunk_runs_get(c->runs, r, &stats);
        compare_stats(c, column, db_chunk_head_type(c->head, at), "run statistics", r,
                      c->run[r].rows, &c->per_run[r], &stats);
    }
    return CHR_OK;
}

static chr_err check_column(struct check *c, uint32_t at)
{
    struct counted total = {0};
    struct db_chunk_stats stats;
    struct chr_errmsg msg;
    uint16_t column = db_chunk_head_column(c->head, at);
    enum db_type type = db_chunk_head_type(c->head, at);
    memset(c->per_run, 0, ((size_t)c->info->runs_count + 1) * sizeof *c->per_run);
    chr_err err = open_column(c, at);
    if (!err)
        err = count_column(c, &total);
    if (err)
        return err;
    err = db_chunk_head_stats(c->head, at, &stats, &msg);
    if (err) {
        finding(c, "%s", msg.text);
        return err;
    }
    compare_stats(c, column, type, "statistics", DB_NO_ROW, c->info->rows, &total, &stats);
    uint64_t low = (uint64_t)total.min.i64, high = (uint64_t)total.max.i64;
    if (column == DB_COLUMN_ENTRY && (low != c->info->entry_min || high != c->info->entry_max))
        finding(c, "log indexes of the head are not those of the rows");
    if (column == DB_COLUMN_HLC && (low != c->info->hlc_min || high != c->info->hlc_max))
        finding(c, "HLCs of the head are not those of the rows");
    if (db_chunk_head_has_run_stats(c->head, at)) {
        if (c->run)
            return check_runs(c, at);
        finding(c, "column %u has run statistics, but no runs are listed", column);
    }
    return CHR_OK;
}

/* -- Rows ---------------------------------------------------------------------------------------*/

/* Copies a column of 64-bit numbers by row; NULL rows keep what `out` held. */
static chr_err copy_numbers(struct check *c, uint16_t column, int64_t *out)
{
    int at = db_chunk_head_find(c->head, column);
    if (at < 0) {
        finding(c, "column %u is missing", column);
        return CHR_ECORRUPT;
    }
    chr_err err = open_column(c, (uint32_t)at);
    for (uint32_t b = 0; !err && b < c->info->blocks; b++) {
        struct db_vector v;
        struct chr_errmsg msg;
        err = db_chunk_column_decode(c->column, b, &v, &msg);
        if (!err && v.type != DB_INT && v.type != DB_TIMESTAMP)
            err = chr_fail(&msg, CHR_ECORRUPT, "column %u is not of numbers", column);
        if (err) {
            finding(c, "%s", msg.text);
            return err;
        }
        for (uint32_t i = 0; i < v.count; i++) {
            if (db_vector_valid(&v, i))
                out[b * DB_VECTOR_ROWS + i] = v.i64[db_vector_at(&v, i)];
        }
    }
    return err;
}

static chr_err load_rows(struct check *c, uint16_t time_column)
{
    int64_t *numbers = malloc(c->info->rows * sizeof *numbers);
    if (!numbers)
        return CHR_ENOMEM;
    memset(numbers, 0, c->info->rows * sizeof *numbers);
    chr_err err = copy_numbers(c, DB_COLUMN_ENTRY, numbers);
    for (uint32_t i = 0; !err && i < c->info->rows; i++)
        c->ids[i].entry = (uint64_t)numbers[i];
    if (!err)
        err = copy_numbers(c, DB_COLUMN_ORDINAL, numbers);
    for (uint32_t i = 0; !err && i < c->info->rows; i++)
        c->ids[i].ordinal = (uint32_t)numbers[i];
    free(numbers);
    for (uint32_t i = 0; !err && i < c->info->rows; i++)
        c->times[i] = INT64_MAX; /* NULL sorts last */
    if (!err)
        err = copy_numbers(c, time_column, c->times);
    return err;
}

static void check_order(struct check *c)
{
    int64_t low = INT64_MAX, high = INT64_MIN;
    c->sorted = c->run != NULL;
    for (uint32_t i = 0; i < c->info->rows; i++) {
        low = CHR_MIN(low, c->times[i]);
        high = CHR_MAX(high, c->times[i]);
    }
    if (low != c->info->time_min_us || high != c->info->time_max_us)
        finding(c, "times of the head are not those of the rows");
    for (uint32_t r = 0; r < c->info->runs_count; r++) {
        const struct db_chunk_run *run = &c->run[r];
        for (uint32_t i = run->first + 1; i < run->first + run->rows; i++) {
            if (!row_before(c, i - 1, i)) {
                finding(c, "row %u of run %u is not behind the one before it", i, r);
                c->sorted = false;
                break;
            }
        }
        if (c->times[run->first] != run->first_time_us ||
            c->times[run->first + run->rows - 1] != run->last_time_us)
            finding(c, "times of run %u are not those of its rows", r);
    }
}

static chr_err check_chunk(struct check *c, uint16_t time_column)
{
    struct chr_errmsg msg;
    chr_err err = load_rows(c, time_column);
    if (err)
        return err;
    if (c->info->runs_count) {
        c->run = db_chunk_head_runs(c->head, &err, &msg);
        if (!c->run) {
            finding(c, "%s", msg.text);
            return err;
        }
    }
    check_order(c);
    for (uint32_t at = 0; at < c->info->columns_count; at++) {
        err = check_column(c, at);
        chr_arena_reset(&c->arena);
        if (err && err != CHR_ECORRUPT && err != CHR_EVERSION && err != CHR_ENOTFOUND)
            return err;
    }
    return CHR_OK;
}

chr_err db_chunk_check(chr_slice head_value, uint16_t time_column,
                       chr_err (*get)(void *arg, enum db_chunk_part_kind kind, uint16_t column,
                                      chr_slice *value),
                       void (*report)(void *arg, const char *finding), void *arg)
{
    struct check c = {.get = get, .report = report, .arg = arg};
    struct chr_errmsg msg;
    chr_arena_init(&c.arena, 64 << 10, 0);
    chr_err err = db_chunk_head_new(&c.head);
    if (!err)
        err = db_chunk_column_new(&c.column);
    if (!err)
        err = db_chunk_runs_new(&c.runs);
    if (err)
        goto out;
    err = db_chunk_head_open(c.head, head_value, true, &msg);
    if (err) {
        finding(&c, "%s", msg.text);
        goto out;
    }
    c.info = db_chunk_head_info(c.head);
    c.times = calloc(c.info->rows, sizeof *c.times);
    c.ids = calloc(c.info->rows, sizeof *c.ids);
    c.per_run = calloc((size_t)c.info->runs_count + 1, sizeof *c.per_run);
    err = c.times && c.ids && c.per_run ? check_chunk(&c, time_column) : CHR_ENOMEM;
out:
    free(c.times);
    free(c.ids);
    free(c.per_run);
    chr_arena_free(&c.arena);
    db_chunk_runs_free(c.runs);
    db_chunk_column_free(c.column);
    db_chunk_head_free(c.head);
    /* What is wrong with the chunk has been reported. */
    return err == CHR_ECORRUPT || err == CHR_EVERSION || err == CHR_ENOTFOUND ? CHR_OK : err;
}
