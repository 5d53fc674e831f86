/* db/ttl.c: rows that replicated time has passed (R13).
 *
 * A row is gone once its time + TTL is at or below the replicated time of the reader's index; a row
 * without a time stays. Nothing is done at that moment: reads leave such rows out, and a checkpoint
 * drops chunks that have nothing else. An idle leader ticks so that they go in time, but rather in
 * steps than row by row: at most a 64th of the TTL late, and not oftener than once a second. */
#include "base/assert.h"
#include "db/internal.h"

#define STEP_PER_TTL 64
#define STEP_US_MIN  INT64_C(1000000)
#define STEP_US_MAX  INT64_C(60000000)

int64_t db__expiry_limit(const struct db_table_def *def, int64_t now_us)
{
    int64_t floor = def->ttl_floored ? def->ttl_floor_us : INT64_MIN;
    if (!def->ttl_us || now_us < INT64_MIN + def->ttl_us)
        return floor;
    return CHR_MAX(floor, now_us - def->ttl_us);
}

bool db__expired(const struct db_table_def *def, int64_t time_us, int64_t now_us)
{
    int64_t limit_us = db__expiry_limit(def, now_us);
    return limit_us != INT64_MIN && time_us != INT64_MAX && time_us <= limit_us;
}

static int64_t table_due(const struct db__table *t, int64_t now_us)
{
    if (!t->def->ttl_us || t->time_max == INT64_MIN || t->time_max == INT64_MAX ||
        t->time_max > INT64_MAX - t->def->ttl_us)
        return INT64_MAX;
    int64_t last = t->time_max + t->def->ttl_us; /* the last row goes */
    if (last <= now_us)
        return INT64_MAX;
    int64_t step = CHR_MAX(CHR_MIN(t->def->ttl_us / STEP_PER_TTL, STEP_US_MAX), STEP_US_MIN);
    return CHR_MIN(last, now_us + step);
}

void db__due_rows(struct db *d, struct db__table *table, int64_t time_us)
{
    if (time_us == INT64_MAX)
        return;
    table->time_max = CHR_MAX(table->time_max, time_us);
    d->ttl_due_us = CHR_MIN(d->ttl_due_us, table_due(table, d->apply.now_us));
}

void db__due_update(struct db *d)
{
    if (d->ttl_due_us <= d->apply.now_us) {
        d->ttl_due_us = INT64_MAX;
        for (size_t i = 0; i < d->tables_count; i++)
            d->ttl_due_us = CHR_MIN(d->ttl_due_us, table_due(d->tables[i], d->apply.now_us));
    }
    int64_t due_us = CHR_MIN(db__sessions_due(&d->sessions), db__durable_due(d));
    /* Sequentially consistent: whoever sleeps until then looks again after saying so. */
    atomic_store(&d->next_due_us, CHR_MIN(d->ttl_due_us, due_us));
}

int64_t db_next_due_us(const db *d)
{
    return atomic_load(&d->next_due_us);
}
