/* tests/sim/cluster_life/workload.c: what is proposed, and what is answered.
 *
 * Each entry has a row of its own in the table `all`, with a number that no other has, so that
 * entries are known by their bytes and counted by their rows. Whatever else it does comes after
 * that. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "tests/sim/cluster_life/world.h"

/* ---- Operations -------------------------------------------------------------------------------
 */

static struct op *new_op(struct world *w, struct node *n, enum op_kind kind, uint32_t loop)
{
    struct op *op = calloc(1, sizeof *op);
    CHR_ASSERT(op);
    w->ops = life__grow(w->ops, &w->ops_capacity, w->ops_count + 2, sizeof *w->ops);
    op->number = ++w->ops_count;
    w->ops[op->number] = op;
    op->kind = kind;
    op->node = n;
    op->life = n->life;
    op->loop = loop;
    op->ts_us = life__wall(n);
    return op;
}

struct op *life__op_new(struct node *n, enum op_kind kind, uint32_t loop)
{
    life__leave();
    struct op *op = new_op(life__world, n, kind, loop);
    life__enter();
    db_entry_init(&op->entry, 64u << 10);
    db_entry_begin(&op->entry, 0, 0);
    life__op_row(op, "everything", op->number, op->number, NO_GUARD);
    return op;
}

void life__op_row(struct op *op, const char *table, uint64_t number, uint64_t value, uint32_t guard)
{
    struct chr_errmsg msg;
    const db_catalog *catalog = db_catalog_acquire(op->node->db);
    const struct db_table_def *t = db_catalog_find(catalog, chr_slice_cstr(table));
    struct db_rows_builder rows;
    if (t && !db_rows_init(&rows, t, 4)) {
        if (guard != NO_GUARD)
            db_rows_guard(&rows, guard);
        db_rows_put_i64(&rows, 0, (int64_t)number);
        db_rows_put_i64(&rows, 1, (int64_t)value);
        db_rows_put_i64(&rows, 2, op->ts_us);
        if (db_rows_end(&rows, op->ts_us, &msg))
            CHR_ASSERT(false);
        if (op->kind == OP_UPDATE && op->entry.ops_count)
            db_entry_add_update(&op->entry, &rows, &life__world->ops[op->key]->row);
        else
            db_rows_finish(&rows,
                           op->kind == OP_WRITE && op->entry.ops_count   ? DB_ROWS_REPLACE
                           : op->kind == OP_CLAIM && op->entry.ops_count ? DB_ROWS_INSERT
                                                                         : DB_ROWS_MERGE,
                           &op->entry);
        db_rows_free(&rows);
    }
    db_catalog_release(catalog);
}

static void table(struct op *op, const char *name, bool keyed, int64_t ttl_us)
{
    struct chr_errmsg msg;
    struct db_column_def columns[3] = {{.type = DB_INT, .name = "n"},
                                       {.type = DB_INT, .name = "v"},
                                       {.type = DB_TIMESTAMP, .name = "ts"}};
    struct db_table_def def = {.columns = columns,
                               .columns_count = 3,
                               .key_count = keyed ? 1 : 0,
                               .time_column = 2,
                               .ttl_us = ttl_us};
    strcpy(def.name, name);
    columns[0].not_null = keyed;
    if (db_table_def_complete(&def, &msg) || db_entry_add_create_table(&op->entry, &def, true))
        CHR_ASSERT(false);
}

static struct op *tables_op(struct node *n)
{
    struct op *op = life__op_new(n, OP_TABLES, LOOPS);
    table(op, "everything", false, 0);
    table(op, "brief", false, BRIEF_TTL_US);
    table(op, "sure", false, 0);
    table(op, "registers", true, 0);
    table(op, "claims", true, 0);
    return op;
}

bool life__has_tables(struct node *n)
{
    const db_catalog *catalog = db_catalog_acquire(n->db);
    bool has = db_catalog_find(catalog, CHR_LIT("claims")) != NULL;
    db_catalog_release(catalog);
    return has;
}

/* ---- By their bytes ---------------------------------------------------------------------------
 */

static void index_op(struct world *w, struct op *op)
{
    if (2 * (w->ops_count + 1) > w->by_hash_capacity) {
        w->by_hash_capacity = w->by_hash_capacity ? 2 * w->by_hash_capacity : 1024;
        free(w->by_hash);
        w->by_hash = calloc(w->by_hash_capacity, sizeof *w->by_hash);
        CHR_ASSERT(w->by_hash);
        for (size_t i = 1; i <= w->ops_count; i++)
            if (w->ops[i] != op && w->ops[i]->hash && w->ops[i]->kind != OP_TABLES)
                index_op(w, w->ops[i]);
    }
    size_t at = op->hash & (w->by_hash_capacity - 1);
    while (w->by_hash[at])
        at = (at + 1) & (w->by_hash_capacity - 1);
    w->by_hash[at] = op->number;
}

struct op *life__op_of(struct world *w, chr_slice bytes)
{
    uint64_t hash = chr_hash_bytes(bytes.ptr, bytes.len, 7) | 1;
    if (!w->by_hash_capacity)
        return NULL;
    for (size_t at = hash & (w->by_hash_capacity - 1); w->by_hash[at];
         at = (at + 1) & (w->by_hash_capacity - 1))
        if (w->ops[w->by_hash[at]]->hash == hash)
            return w->ops[w->by_hash[at]];
    return NULL;
}

/* ---- Proposed, answered -----------------------------------------------------------------------
 */

static void count_answer(struct world *w, struct op *op, chr_err err)
{
    if (op->state != OP_PROPOSED)
        (void)life__broken(w, "H3: proposal %llu was answered twice",
                           (unsigned long long)op->number);
    op->state = err == CHR_OK ? OP_ANSWERED : err == CHR_ECLOSED ? OP_CLOSED : OP_REFUSED;
    w->report->answered += err == CHR_OK;
    w->report->closed += err == CHR_ECLOSED;
    w->report->refused += op->state == OP_REFUSED;
    w->open--;
    op->node->loops[op->loop].in_flight--;
}

/* Nothing is wrong, and nobody else has to be asked: only who was not woken waits so long. */
static void check_wait(struct world *w, const struct op *op)
{
    if (w->alone && w->healing && op->invoked > w->healed_at + 5000000 &&
        w->now > op->invoked + 1000000)
        (void)life__broken(w, "proposal %llu waited for %lld us, and nothing was wrong",
                           (unsigned long long)op->number, (long long)(w->now - op->invoked));
}

static void done(struct broker_proposal *p, chr_err err, const struct db_apply_result *result)
{
    struct op *op = CHR_CONTAINER_OF(p, struct op, proposal);
    life__leave();
    count_answer(life__world, op, err);
    check_wait(life__world, op);
    if (!err && op->kind != OP_TABLES)
        life__check_answer(op, result);
    else if (op->state == OP_REFUSED && op->index)
        (void)life__broken(life__world, "H3: proposal %llu was refused, and applied at %llu",
                           (unsigned long long)op->number, (unsigned long long)op->index);
    if (op->answered)
        op->answered(op, err, result);
    life__enter();
    db_entry_free(&op->entry);
    if (op->waited)
        life__wake(op, true);
}

static void give_up(struct op *op)
{
    op->state = OP_REFUSED;
    db_entry_free(&op->entry);
}

bool life__propose(struct op *op)
{
    struct world *w = life__world;
    struct node *n = op->node;
    if (db_entry_end(&op->entry) || n->stopping) {
        give_up(op);
        return false;
    }
    op->proposal = (struct broker_proposal){
        .bytes = chr_buf_slice(&op->entry.bytes), .type = RAFT_ENTRY_DATA, .done = done};
    life__leave();
    op->hash = chr_hash_bytes(op->proposal.bytes.ptr, op->proposal.bytes.len, 7) | 1;
    if (op->kind != OP_TABLES) /* they all look alike */
        index_op(w, op);
    op->invoked = w->now;
    op->place = ++n->loops[op->loop].places;
    if (op->kind == OP_WRITE)
        life__write_begins(w, op);
    life__enter();
    n->loops[op->loop].in_flight++;
    w->open++;
    w->report->proposed++;
    if (op->loop < LOOPS) {
        broker_propose_from_loop(n->committer, op->loop, &op->proposal);
        return true;
    }
    if (broker_propose(n->committer, &op->proposal) == CHR_OK)
        return true;
    n->loops[op->loop].in_flight--;
    w->open--;
    w->report->proposed--;
    give_up(op);
    return false;
}

bool life__propose_wait(struct op *op)
{
    op->waited = true;
    if (!life__propose(op))
        return false;
    while (op->state == OP_PROPOSED)
        life__block(op, NEVER);
    return op->state == OP_ANSWERED;
}

/* Its process is gone: nobody will hear of them. */
void life__ops_lost(struct world *w, struct node *n)
{
    for (size_t i = w->ops_count; i > 0; i--) {
        struct op *op = w->ops[i];
        if (op->node != n || op->life != n->life || op->state != OP_PROPOSED)
            continue;
        op->state = OP_CLOSED;
        if (op->hash) {
            w->open--;
            w->report->unanswered++;
        }
    }
    for (uint32_t i = 0; i <= LOOPS; i++)
        n->loops[i].in_flight = 0;
}

/* ---- Who proposes -----------------------------------------------------------------------------
 */

/* A row that is there, as far as this node can know; NULL: none was found. */
static struct op *some_row(struct node *n)
{
    struct world *w = life__world;
    for (int tries = 0; tries < 8 && w->ops_count > 10; tries++) {
        size_t back = below(w, CHR_MIN(w->ops_count - 1, (uint64_t)200));
        struct op *op = w->ops[w->ops_count - back];
        if (op->index && op->row.entry <= life__applied_index(n) && !op->deleted)
            return op;
    }
    return NULL;
}

static struct op *some_op(struct node *n, uint32_t loop)
{
    static const enum op_kind kinds[] = {OP_PLAIN, OP_PLAIN, OP_PLAIN,  OP_PLAIN,  OP_BRIEF,
                                         OP_BRIEF, OP_WRITE, OP_WRITE,  OP_WRITE,  OP_WRITE,
                                         OP_CLAIM, OP_CLAIM, OP_DELETE, OP_UPDATE, OP_DELETE};
    struct world *w = life__world;
    enum op_kind kind = kinds[below(w, CHR_COUNT_OF(kinds))];
    if (w->profile->tables && chance(w, 500))
        kind = OP_BRIEF;
    struct op *other = kind == OP_DELETE || kind == OP_UPDATE ? some_row(n) : NULL;
    if ((kind == OP_DELETE || kind == OP_UPDATE) && !other)
        kind = OP_PLAIN;
    struct op *op = life__op_new(n, kind, loop);
    if (kind == OP_BRIEF) {
        life__op_row(op, "brief", op->number, op->number, NO_GUARD);
    } else if (kind == OP_WRITE) {
        op->key = below(w, KEYS);
        life__op_row(op, "registers", op->key, op->number, NO_GUARD);
    } else if (kind == OP_CLAIM) {
        op->key = below(w, CHR_COUNT_OF(w->claims));
        life__op_row(op, "claims", op->key, op->number, NO_GUARD);
    } else if (other) {
        op->key = other->number;
        if (kind == OP_UPDATE)
            life__op_row(op, "everything", other->number, op->number, NO_GUARD);
        else
            life__op_delete(op);
    }
    return op;
}

void life__op_delete(struct op *op)
{
    const db_catalog *catalog = db_catalog_acquire(op->node->db);
    const struct db_table_def *t = db_catalog_find(catalog, CHR_LIT("everything"));
    db_entry_add_delete(&op->entry, t->id, &life__world->ops[op->key]->row, 1);
    db_catalog_release(catalog);
}

static int64_t pause_us(struct node *n)
{
    struct world *w = life__world;
    int64_t us = 1000 + (int64_t)below(w, chance(w, 50) ? 1000000 : 60000);
    bool leads = life__leader(w) == n;
    if (w->profile->far_writers && leads)
        us *= 20;
    if (w->profile->crowds)
        us /= 2;
    return CHR_MIN(us * CHR_MAX(w->profile->pace, 1u), 20000000); /* stops are waited for */
}

static void *loop_main(void *arg)
{
    struct node *n = arg;
    struct world *w = life__world;
    uint32_t loop = n->next_loop++ % LOOPS;
    while (!n->stopping) {
        life__sleep(pause_us(n));
        if (w->closing || !life__has_tables(n) || n->stopping)
            continue;
        uint64_t count = 1 + below(w, chance(w, 100) ? 8 : 3);
        while (count-- && n->loops[loop].in_flight < LOOP_BATCHES && !n->stopping)
            (void)life__propose(some_op(n, loop));
        if (w->group_bytes < 4096 && chance(w, 100)) /* a fleet that connects again */
            for (count = 24; count && n->loops[loop].in_flight < LOOP_BATCHES && !n->stopping;)
                count -= life__propose(some_op(n, loop));
        broker_committer_kick(n->committer);
    }
    return NULL;
}

static void *worker_main(void *arg)
{
    struct node *n = arg;
    struct world *w = life__world;
    while (!n->stopping) {
        life__sleep(pause_us(n));
        if (n->stopping || w->closing)
            continue;
        if (!life__has_tables(n)) {
            (void)life__propose_wait(tables_op(n));
            continue;
        }
        while (life__propose_wait(some_op(n, LOOPS)) && w->profile->quiet && !n->stopping &&
               !w->closing && chance(w, 970))
            continue;
    }
    return NULL;
}

void life__add_user(struct node *n, const char *name, void *(*run)(void *))
{
    CHR_ASSERT(n->users_count < CHR_COUNT_OF(n->users));
    n->users[n->users_count++] = life__spawn(n, name, run, n);
}

void life__clients_start(struct node *n)
{
    for (uint32_t i = 0; i < LOOPS; i++)
        life__add_user(n, "loop", loop_main);
    life__add_user(n, "worker", worker_main);
    life__add_user(n, "sessions", life__sessions_main);
    life__add_user(n, "reader", life__readers_main);
    life__add_user(n, "reader", life__readers_main);
    life__add_user(n, "snapshots", life__snapshot_main);
    life__add_user(n, "operator", life__operator_main);
}
