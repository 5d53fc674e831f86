/* tests/sim/cluster_life/rows.c: what is in the tables, read as a query reads it. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "db/digest.h"
#include "db/scan.h"
#include "tests/sim/cluster_life/world.h"

/* Calls each(arg, n, v, ts) for every row of a table that `read` sees. */
static chr_err each_row(db_read *read, const char *name,
                        void (*each)(void *arg, uint64_t n, uint64_t v), void *arg)
{
    static const uint16_t columns[] = {0, 1};
    struct chr_errmsg msg = {{0}};
    db_scan *scan = NULL;
    db_reader *reader = NULL;
    const struct db_table_def *t = db_catalog_find(db_read_catalog(read), chr_slice_cstr(name));
    if (!t)
        return CHR_OK;
    chr_err err = db_scan_open(read, t, columns, 2, NULL, 0, &scan);
    if (!err)
        err = db_reader_open(scan, &reader);
    struct db_morsel morsel;
    struct db_batch batch;
    int more = 0, rows = 0;
    while (!err && (more = db_reader_next_morsel(reader, &morsel, &msg)) > 0) {
        while (!err && (rows = db_reader_next_batch(reader, &batch, &msg)) > 0) {
            struct db_vector *n = db_reader_column(reader, 0, &err, &msg);
            struct db_vector *v = n ? db_reader_column(reader, 1, &err, &msg) : NULL;
            for (uint32_t i = 0; v && i < batch.sel_count; i++) {
                uint32_t row = batch.sel ? batch.sel[i] : i;
                each(arg, (uint64_t)n->i64[db_vector_at(n, row)],
                     (uint64_t)v->i64[db_vector_at(v, row)]);
            }
        }
        err = rows < 0 ? (chr_err)rows : err;
    }
    err = more < 0 ? (chr_err)more : err;
    db_reader_close(reader);
    db_scan_close(scan);
    return err;
}

/* ---- All of them ------------------------------------------------------------------------------
 */

struct seen {
    uint8_t *counts; /* by number */
    uint64_t *values;
    uint64_t max;
    bool strange;
};

static void count_row(void *arg, uint64_t n, uint64_t v)
{
    struct seen *seen = arg;
    if (n > seen->max) {
        seen->strange = true;
        return;
    }
    seen->values[n] = v;
    if (seen->counts[n] < 255)
        seen->counts[n]++;
}

static chr_err see(db_read *read, const char *table, uint64_t max, struct seen *seen)
{
    *seen = (struct seen){
        .counts = calloc(max + 1, 1), .values = calloc(max + 1, sizeof *seen->values), .max = max};
    CHR_ASSERT(seen->counts && seen->values);
    return each_row(read, table, count_row, seen);
}

static void unsee(struct seen *seen)
{
    free(seen->counts);
    free(seen->values);
}

static bool wrong(const struct node *n, const char *table, uint64_t number, uint32_t count,
                  uint32_t wanted, uint64_t index)
{
    return life__broken(life__world,
                        "H6: node %llu at %llu: row %llu of %s is there %u times, not %u",
                        (unsigned long long)n->id, (unsigned long long)index,
                        (unsigned long long)number, table, count, wanted);
}

static bool look_at_ops(struct node *n, db_read *read, uint64_t index)
{
    struct world *w = life__world;
    struct seen all, brief;
    uint64_t ops_count = w->ops_count;
    chr_err err = see(read, "everything", ops_count, &all);
    chr_err err2 = see(read, "brief", ops_count, &brief);
    int64_t time_us = db_read_time_us(read);
    bool ok = !err && !err2 && !all.strange && !brief.strange;
    if (!ok && err != CHR_EIO && err2 != CHR_EIO)
        (void)life__broken(w, "H6: node %llu: can't read the tables, or rows that nobody wrote",
                           (unsigned long long)n->id);
    for (uint64_t i = 1; ok && i <= ops_count; i++) {
        const struct op *op = w->ops[i];
        bool there = op->index && op->index <= index && op->kind != OP_TABLES;
        bool stays = there && !(op->deleted && op->deleted <= index);
        if (all.counts[i] != stays)
            ok = wrong(n, "everything", i, all.counts[i], stays, index);
        else if (stays && op->updated <= index && all.values[i] != op->value)
            ok = life__broken(w, "H6: node %llu at %llu: row %llu holds %llu, not %llu",
                              (unsigned long long)n->id, (unsigned long long)index,
                              (unsigned long long)i, (unsigned long long)all.values[i],
                              (unsigned long long)op->value);
        bool lives = there && op->kind == OP_BRIEF && op->ts_us + BRIEF_TTL_US > time_us;
        if (ok && brief.counts[i] != lives)
            ok = wrong(n, "brief", i, brief.counts[i], lives, index);
        w->report->expired += there && op->kind == OP_BRIEF && !lives;
    }
    unsee(&all);
    unsee(&brief);
    return ok;
}

static bool look_at_messages(struct node *n, db_read *read, uint64_t index)
{
    struct world *w = life__world;
    struct seen sure;
    uint64_t count = w->messages_count;
    bool ok = see(read, "sure", count, &sure) == CHR_OK && !sure.strange;
    for (uint64_t i = 1; ok && i <= count; i++) {
        bool there = w->messages[i].index && w->messages[i].index <= index;
        if (sure.counts[i] != there)
            ok = wrong(n, "sure", i, sure.counts[i], there, index);
    }
    unsee(&sure);
    return ok;
}

bool life__look(struct node *n)
{
    db_read *read = NULL;
    if (db_read_begin(n->db, &read))
        return true;
    uint64_t index = db_read_index(read);
    while (life__world->history_count < index) /* who applies it is about to say so */
        life__sleep(5);
    life__world->report->looks++;
    bool ok = look_at_ops(n, read, index) && look_at_messages(n, read, index);
    db_read_end(read);
    return ok || sound(life__world);
}

/* ---- Digests, registers -----------------------------------------------------------------------
 */

uint64_t life__digest(struct node *n)
{
    struct chr_errmsg msg;
    db_read *read = NULL;
    uint64_t hash = 0;
    if (db_read_begin(n->db, &read))
        return 0;
    const db_catalog *catalog = db_read_catalog(read);
    for (size_t i = 0; i < db_catalog_tables_count(catalog); i++) {
        struct db_digest digest = {0};
        if (db_digest_table(read, db_catalog_table_at(catalog, i), &digest, &msg))
            break; /* its disk fails: it is about to end */
        hash = chr_hash_u64(hash ^ chr_hash_u64(digest.count) ^ digest.sum);
    }
    db_read_end(read);
    struct db_digest sessions = {0};
    if (!db_digest_sessions(n->db, &sessions, &msg))
        hash = chr_hash_u64(hash ^ chr_hash_u64(sessions.count) ^ sessions.sum);
    return hash;
}

struct wanted {
    uint64_t key, value;
};

static void look_for(void *arg, uint64_t n, uint64_t v)
{
    struct wanted *wanted = arg;
    if (n == wanted->key)
        wanted->value = v;
}

bool life__register(struct node *n, uint64_t key, uint64_t *value, uint64_t *index)
{
    struct wanted wanted = {.key = key};
    db_read *read = NULL;
    if (db_read_begin(n->db, &read))
        return false;
    *index = db_read_index(read);
    chr_err err = each_row(read, "registers", look_for, &wanted);
    db_read_end(read);
    *value = wanted.value;
    return !err;
}
