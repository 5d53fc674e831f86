/* tests/db/test_model.c: random entries against a naive twin.
 *
 * Each seed lives a life: tables come and go, rows are inserted in all modes, updated, deleted and
 * expire, sessions and their guards, request keys, atomic entries; between them checkpoints with
 * tiny chunks (some fail), reads pinned and looked at much later, crashes and replays from the
 * store; some move house by a snapshot (db/snapshot.h) while they go on. After each step what can
 * be seen is compared row for row with the twin, ids, system columns and statistics included.
 *
 *     CHR_SEED=17 test_db_model      lives one life
 *     CHR_SEEDS=10000 test_db_model  lives more of them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#include "base/arena.h"
#include "base/log.h"
#include "base/random.h"
#include "db/check_internal.h"
#include "db/digest.h"
#include "db/scan.h"
#include "tests/db/snapshot_kit.h"
#include "tests/db/twin.h"
#include "tests/sim/fake_kv.h"

#define PINS_MAX 4

struct life {
    uint64_t seed;
    struct chr_random random;
    fake_kv *store;
    struct db_kv kv;
    struct db_options options;
    db *d;
    struct twin twin;
    chr_hlc hlc;
    struct logged {
        uint8_t *bytes;
        size_t len;
        uint64_t digest; /* of the results */
    } * log;             /* by index - 1 */
    size_t log_count;
    db_read *pins[PINS_MAX];
    uint32_t favourite; /* table */
    int applies_left;   /* while a checkpoint waits */
    struct transfer transfer;
    uint64_t stats_answered, chunks_seen, checkpoints, reopened, moved;
};

static struct life *living;

#define REQUIRE(cond, ...)                                                                         \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr,                                                                        \
                    "seed %llu, index %llu, %s:%d: %s: ", (unsigned long long)living->seed,        \
                    (unsigned long long)living->twin.index, __FILE__, __LINE__, #cond);            \
            fprintf(stderr, " " __VA_ARGS__);                                                      \
            fprintf(stderr, "\n");                                                                 \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t below(struct life *l, uint64_t bound)
{
    return chr_random_below(&l->random, bound);
}

static bool chance(struct life *l, uint64_t percent)
{
    return below(l, 100) < percent;
}

/* -- Random values ------------------------------------------------------------------------------*/

static const char *const words[] = {"",      "a",    "b",     "dev-1",     "dev-2", "dev-3",
                                    "dev-4", "temp", "humid", "\xc3\xa4x", "zebra", "dev-10"};

static struct db_value random_value(struct life *l, enum db_type type, bool key)
{
    struct db_value v = {.type = type};
    static uint8_t big[8][400];
    static int which;
    switch (type) {
    case DB_INT:
        v.i64 = chance(l, 95) ? (int64_t)below(l, 12) - 3 : (int64_t)chr_random_u64(&l->random);
        break;
    case DB_FLOAT: {
        static const double specials[] = {0.0, -0.0, 1e300, -1e-300, 21.5, 0.1};
        uint64_t nan_bits = UINT64_C(0x7ff8000000000000) | below(l, 3);
        v.f64 = chance(l, 70) ? (double)((int64_t)below(l, 200) - 100) / 4 : specials[below(l, 6)];
        if (chance(l, 4))
            memcpy(&v.f64, &nan_bits, 8);
        break;
    }
    case DB_BOOLEAN:
        v.boolean = chance(l, 50);
        break;
    case DB_TIMESTAMP: {
        int64_t now = chr_hlc_unix_us(l->hlc);
        uint64_t kind = below(l, 10);
        if (key) { /* a few times, again and again */
            v.i64 = now / 4000000 * 4000000 - (int64_t)below(l, 8) * 1000000;
            break;
        }
        v.i64 = kind < 6   ? now + (int64_t)below(l, 5) * 1000
                : kind < 9 ? now - (int64_t)below(l, 40) * 1000000
                           : (int64_t)below(l, 6) - 2;
        break;
    }
    case DB_STRING:
    case DB_BLOB:
        v.bytes = chr_slice_cstr(words[below(l, sizeof words / sizeof words[0])]);
        if (!key && chance(l, 3)) {
            uint8_t *p = big[which++ & 7];
            size_t len = below(l, 400);
            for (size_t i = 0; i < len; i++)
                p[i] = type == DB_BLOB ? (uint8_t)below(l, 256) : (uint8_t)('a' + below(l, 20));
            v.bytes = chr_slice_of(p, len);
        }
        break;
    }
    return v;
}

/* -- Random operations --------------------------------------------------------------------------*/

static struct twin_table *random_table(struct life *l, bool user)
{
    /* A life has a favourite for a while, so that things happen to the same rows. */
    struct twin_table *favourite = twin_living_table(&l->twin, l->favourite);
    if (!favourite || chance(l, 2))
        l->favourite = l->twin.tables[below(l, l->twin.tables_count)].id;
    favourite = twin_living_table(&l->twin, l->favourite);
    if (favourite && !twin_def(favourite)->system && chance(l, 70))
        return favourite;
    for (int i = 0; i < 20; i++) {
        struct twin_table *t = &l->twin.tables[below(l, l->twin.tables_count)];
        if (!t->dropped && !(user && twin_def(t)->system))
            return t;
    }
    return twin_table(&l->twin, 1);
}

static struct db_table_def *random_def(struct life *l)
{
    struct db_column_def columns[TWIN_COLUMNS] = {0};
    char *topics[1];
    struct db_table_def t = {.columns = columns, .topics = topics};
    snprintf(t.name, sizeof t.name, "t%u", (unsigned)below(l, 6));
    t.columns_count = (uint16_t)(2 + below(l, 5));
    static const enum db_type types[] = {DB_STRING, DB_TIMESTAMP, DB_INT,
                                         DB_FLOAT,  DB_BOOLEAN,   DB_BLOB};
    for (int i = 0; i < t.columns_count; i++) {
        columns[i].type = i == 0 && chance(l, 60)   ? DB_STRING
                          : i == 1 && chance(l, 60) ? DB_TIMESTAMP
                                                    : types[below(l, 6)];
        columns[i].not_null = chance(l, 10);
        snprintf(columns[i].name, sizeof columns[i].name, "c%d", i);
    }
    uint64_t kind = below(l, 5);
    if (kind == 1) {
        t.key_count = 2; /* perhaps (series, time) */
        t.key_columns[0] = 0;
        t.key_columns[1] = 1;
    } else if (kind == 2) {
        t.key_count = 1;
        t.key_columns[0] = (uint16_t)below(l, t.columns_count);
    } else if (kind == 3) {
        t.key_count = 2;
        t.key_columns[0] = (uint16_t)(t.columns_count - 1);
        t.key_columns[1] = 0;
    } else if (kind == 4) {
        topics[0] = "x/{c0}/y";
        t.topics_count = 1;
    }
    if (chance(l, 30))
        t.ttl_us = (int64_t)(1 + below(l, 60)) * 1000000;
    struct chr_errmsg msg;
    chr_err err = db_table_def_complete(&t, &msg);
    REQUIRE(!err, "%s", msg.text);
    return db__table_def_copy(&t);
}

/* A definition one ALTER away: a column more or one less, another TTL, another name. */
static struct db_table_def *random_alter(struct life *l, struct twin_table *table)
{
    struct db_table_def *was = twin_def(table);
    struct db_column_def columns[TWIN_COLUMNS + 1] = {0};
    struct db_table_def t = *was;
    t.columns = columns;
    memcpy(columns, was->columns, was->columns_count * sizeof *columns);
    t.schema_version += chance(l, 90) ? 1 : 2;
    uint64_t kind = below(l, 3);
    if (kind == 0 && was->next_column_id <= TWIN_COLUMNS) {
        struct db_column_def *c = &columns[t.columns_count++];
        c->type = (enum db_type)(1 + below(l, 6));
        if (c->type == DB_TIMESTAMP)
            c->type = DB_INT; /* might become the time column */
        snprintf(c->name, sizeof c->name, "c%d", was->next_column_id + 20);
    } else if (kind == 1 && was->columns_count > 2) {
        /* The last column, unless something hangs on it. */
        int last = was->columns_count - 1;
        bool used = last == was->time_column;
        for (int i = 0; i < was->key_count; i++)
            used = used || was->key_columns[i] == last;
        for (int i = 0; i < was->series_count; i++)
            used = used || was->series_columns[i] == last;
        if (!used)
            t.columns_count--;
    } else if (kind == 2) {
        t.ttl_us = chance(l, 50) ? 0 : (int64_t)(1 + below(l, 60)) * 1000000;
    }
    struct chr_errmsg msg;
    chr_err err = db_table_def_complete(&t, &msg);
    REQUIRE(!err, "%s", msg.text);
    return db__table_def_copy(&t);
}

static void random_rows(struct life *l, struct twin_table *table, struct twin_op *op, uint32_t rows)
{
    struct db_table_def *def = twin_def(table);
    op->table_id = table->id;
    op->schema_version = def->schema_version;
    op->rows = rows;
    op->cells = calloc(rows, sizeof *op->cells);
    op->received_at = calloc(rows, sizeof *op->received_at);
    bool constant[TWIN_COLUMNS + 1], never[TWIN_COLUMNS + 1];
    for (int c = 0; c < def->columns_count; c++) {
        constant[c] = chance(l, 20);
        never[c] = chance(l, 10);
    }
    for (uint32_t r = 0; r < rows; r++) {
        op->received_at[r] = chr_hlc_unix_us(l->hlc) + (int64_t)below(l, 3);
        for (int c = 0; c < def->columns_count; c++) {
            struct twin_cell *cell = &op->cells[r][c];
            bool key = false;
            for (int k = 0; k < def->key_count; k++)
                key = key || def->key_columns[k] == c;
            cell->value = (struct db_value){.type = def->columns[c].type, .null = true};
            bool must = def->columns[c].not_null;
            cell->named = must || (!never[c] && chance(l, 85));
            if (!cell->named)
                continue;
            if (constant[c] && r > 0 && op->cells[0][c].named)
                cell->value = twin_value_copy(op->cells[0][c].value);
            else if (must || chance(l, 92))
                cell->value = twin_value_copy(random_value(l, def->columns[c].type, key));
        }
    }
}

static void random_ids(struct life *l, struct twin_table *table, struct twin_op *op, uint32_t count)
{
    op->ids = calloc(count, sizeof *op->ids);
    op->rows = count;
    op->table_id = table->id;
    for (uint32_t i = 0; i < count; i++) {
        op->ids[i] = (struct db_row_id){1 + below(l, l->twin.index + 1), (uint32_t)below(l, 9)};
        if (!table->count)
            continue;
        /* Mostly a row that is alive and not wanted yet. */
        for (int try = 0; try < 8; try++) {
            struct twin_row *row = &table->rows[below(l, table->count)];
            op->ids[i] = row->id;
            bool twice = false;
            for (uint32_t k = 0; k < i; k++)
                twice = twice || memcmp(&op->ids[k], &row->id, sizeof row->id) == 0;
            if (twin_row_visible(&l->twin, table, row, l->twin.index) && !twice)
                break;
        }
    }
}

static void random_guards(struct life *l, struct twin_op *op, uint32_t count)
{
    op->items = calloc(count, sizeof *op->items);
    op->rows = count;
    for (uint32_t i = 0; i < count; i++) {
        struct db_guard *g = &op->items[i];
        g->packet_id = (uint16_t)(1 + below(l, 12));
        g->epoch = below(l, 1000);
        g->generation = 1;
        if (!l->twin.sessions_count || chance(l, 5))
            continue;
        struct twin_session *s = &l->twin.sessions[below(l, l->twin.sessions_count)];
        g->epoch = s->epoch;
        g->generation = chance(l, 90) ? s->generation : s->generation - 1;
    }
}

static uint32_t few(struct life *l)
{
    return (uint32_t)(chance(l, 70) ? 1 + below(l, 4) : 1 + below(l, 60));
}

static void random_op(struct life *l, struct twin_op *op, bool atomic, uint32_t guards)
{
    memset(op, 0, sizeof *op);
    struct twin_table *table = random_table(l, true);
    uint64_t kind = below(l, atomic ? 82 : 100);
    if (kind < 48) {
        op->type = DB_OP_ROWS;
        op->mode = (enum db_rows_mode)(1 + below(l, 4));
        random_rows(l, table, op, few(l));
        if (guards && chance(l, 70)) {
            op->guards = calloc(op->rows, sizeof *op->guards);
            for (uint32_t r = 0; r < op->rows; r++)
                op->guards[r] = chance(l, 90) ? (uint32_t)below(l, guards) : UINT32_MAX;
        }
        if (chance(l, 2))
            op->schema_version += 50;
    } else if (kind < 58) {
        op->type = DB_OP_DELETE;
        random_ids(l, chance(l, 10) ? random_table(l, false) : table, op,
                   1 + (uint32_t)below(l, 5));
    } else if (kind < 72) {
        op->type = DB_OP_UPDATE;
        op->mode = DB_ROWS_INSERT;
        uint32_t count = 1 + (uint32_t)below(l, 5);
        random_rows(l, table, op, count);
        random_ids(l, table, op, count);
    } else if (kind < 78) {
        op->type = DB_OP_CREATE_TABLE;
        op->def = random_def(l);
        op->flags = chance(l, 50) ? DB_OP_IF_EXISTENCE : 0;
    } else if (kind < 80) {
        op->type = DB_OP_DROP_TABLE;
        op->table_id = chance(l, 10) ? 99999 : random_table(l, chance(l, 95))->id;
        if (op->table_id == 1)
            op->table_id = 2; /* keep one user table */
    } else if (kind < 82) {
        op->type = DB_OP_ALTER_TABLE;
        op->table_id = table->id;
        op->def = random_alter(l, table);
    } else if (kind < 87) {
        op->type = DB_OP_SESSION_OPEN;
        snprintf(op->client, sizeof op->client, "client-%u", (unsigned)below(l, 5));
        op->clean_start = chance(l, 20);
        op->expiry_s = chance(l, 50) ? UINT32_MAX : 10;
        op->node = below(l, 3);
    } else if (kind < 88) {
        op->type = DB_OP_NODE_DOWN;
        op->node = 1 + below(l, 2);
    } else if (kind < 90) {
        op->type = DB_OP_SESSION_CLOSE;
        snprintf(op->client, sizeof op->client, "client-%u", (unsigned)below(l, 5));
        struct twin_session *s = twin_session(&l->twin, op->client);
        op->epoch = s ? s->epoch : 77;
        op->generation = s && chance(l, 90) ? s->generation : 0;
        op->expiry_s = chance(l, 20) ? 0 : chance(l, 30) ? UINT32_MAX : (uint32_t)below(l, 30);
    } else if (kind < 93) {
        op->type = DB_OP_RELEASE;
        random_guards(l, op, 1 + (uint32_t)below(l, 4));
    } else if (kind < 97) {
        op->type = DB_OP_REJECT;
        op->table_id = chance(l, 80) ? table->id : 55555;
        op->reject = (struct db_reject){
            .table_id = op->table_id,
            .guard = guards && chance(l, 50) ? (uint32_t)below(l, guards) : UINT32_MAX,
            .topic = twin_value_copy(random_value(l, DB_STRING, true)).bytes,
            .payload = twin_value_copy(random_value(l, DB_BLOB, false)).bytes,
            .reason = twin_value_copy(random_value(l, DB_STRING, true)).bytes,
            .received_at_us = chr_hlc_unix_us(l->hlc)};
    } else {
        op->type = DB_OP_DROP_TABLE;
        op->malformed = true; /* with a body; made below */
    }
}

static void free_op(struct twin_op *op)
{
    for (uint32_t r = 0; op->cells && r < op->rows; r++)
        for (int c = 0; c < TWIN_COLUMNS; c++)
            if (op->cells[r][c].named)
                twin_value_free(&op->cells[r][c].value);
    free(op->cells);
    free(op->received_at);
    free(op->guards);
    free(op->ids);
    free(op->items);
    db_table_def_free(op->def);
    if (op->type == DB_OP_REJECT) {
        free((void *)op->reject.topic.ptr);
        free((void *)op->reject.payload.ptr);
        free((void *)op->reject.reason.ptr);
    }
}

/* -- Operations to bytes ------------------------------------------------------------------------*/

static void build_rows(struct life *l, struct twin_op *op, struct db_entry *entry)
{
    struct db_table_def *def = twin_def(twin_table(&l->twin, op->table_id));
    struct db_table_def with_version = *def;
    with_version.schema_version = op->schema_version;
    struct db_rows_builder b;
    struct chr_errmsg msg;
    REQUIRE(!db_rows_init(&b, &with_version, op->rows + 2));
    for (uint32_t r = 0; r < op->rows; r++) {
        if (chance(l, 5)) { /* a message that fails half way */
            struct db_rows_mark mark = db_rows_mark(&b);
            for (uint16_t c = 0; c < def->columns_count; c++)
                if (db_type_is_bytes(def->columns[c].type))
                    REQUIRE(!db_rows_put_bytes(&b, c, CHR_LIT("garbage")));
                else
                    db_rows_put_null(&b, c);
            db_rows_rollback(&b, mark);
        }
        for (uint16_t c = 0; c < def->columns_count; c++) {
            const struct twin_cell *cell = &op->cells[r][c];
            if (!cell->named)
                continue;
            if (cell->value.null)
                db_rows_put_null(&b, c);
            else if (db_type_is_bytes(cell->value.type))
                REQUIRE(!db_rows_put_bytes(&b, c, cell->value.bytes));
            else if (cell->value.type == DB_FLOAT)
                db_rows_put_f64(&b, c, cell->value.f64);
            else if (cell->value.type == DB_BOOLEAN)
                db_rows_put_bool(&b, c, cell->value.boolean);
            else
                db_rows_put_i64(&b, c, cell->value.i64);
            REQUIRE(db_rows_has(&b, c));
        }
        if (op->guards)
            db_rows_guard(&b, op->guards[r]);
        REQUIRE(!db_rows_end(&b, op->received_at[r], &msg), "%s", msg.text);
    }
    if (op->type == DB_OP_UPDATE)
        db_entry_add_update(entry, &b, op->ids);
    else
        db_rows_finish(&b, op->mode, entry);
    db_rows_free(&b);
}

static void build_op(struct life *l, struct twin_op *op, struct db_entry *entry)
{
    size_t at = entry->bytes.len;
    switch (op->type) {
    case DB_OP_GRANT:     /* tests/db/test_grant.c */
    case DB_OP_SUBSCRIBE: /* tests/db/test_durable_model.c */
    case DB_OP_UNSUBSCRIBE:
    case DB_OP_MESSAGE:
    case DB_OP_QUEUE_ACK:
        break;
    case DB_OP_ROWS:
    case DB_OP_UPDATE:
        build_rows(l, op, entry);
        break;
    case DB_OP_DELETE:
        db_entry_add_delete(entry, op->table_id, op->ids, op->rows);
        break;
    case DB_OP_CREATE_TABLE:
        REQUIRE(!db_entry_add_create_table(entry, op->def, op->flags & DB_OP_IF_EXISTENCE));
        break;
    case DB_OP_ALTER_TABLE:
        REQUIRE(!db_entry_add_alter_table(entry, op->def));
        break;
    case DB_OP_DROP_TABLE:
        db_entry_add_drop_table(entry, op->table_id);
        if (op->malformed)
            entry->bytes.ptr[at + 5] = 0x80; /* an unknown flag */
        break;
    case DB_OP_SESSION_OPEN:
        db_entry_add_session_open(entry,
                                  &(struct db_session_open){.client_id = chr_slice_cstr(op->client),
                                                            .clean_start = op->clean_start,
                                                            .expiry_s = op->expiry_s,
                                                            .node = op->node,
                                                            .boot = op->node});
        break;
    case DB_OP_NODE_DOWN:
        db_entry_add_node_down(entry, op->node, op->node);
        break;
    case DB_OP_SESSION_CLOSE:
        db_entry_add_session_close(
            entry, &(struct db_session_close){.client_id = chr_slice_cstr(op->client),
                                              .epoch = op->epoch,
                                              .generation = op->generation,
                                              .expiry_s = op->expiry_s});
        break;
    case DB_OP_GUARDS:
        db_entry_add_guards(entry, op->items, op->rows);
        break;
    case DB_OP_RELEASE:
        db_entry_add_release(entry, op->items, op->rows);
        break;
    case DB_OP_REJECT:
        db_entry_add_reject(entry, &op->reject);
        break;
    case DB_OP_REQUEST_KEY:
        db_entry_add_request_key(entry, CHR_LIT("user"), chr_slice_cstr(op->key));
        break;
    }
}

/* -- Comparing ----------------------------------------------------------------------------------*/

static struct db_value vector_value(const struct db_vector *v, uint32_t row)
{
    struct db_value out = {.type = v->type, .null = !db_vector_valid(v, row)};
    uint32_t at = db_vector_at(v, row);
    if (out.null)
        return out;
    if (db_type_is_bytes(v->type))
        out.bytes = v->str[at];
    else if (v->type == DB_BOOLEAN)
        out.boolean = v->b8[at];
    else
        out.i64 = v->i64[at];
    return out;
}

/* Counts a column anew from its vectors and compares with what the morsel's statistics say. */
struct recount {
    bool has;
    struct db_column_stats said;
    uint64_t count, nulls;
    struct db_value min, max, first, last;
    struct db_row_id first_id, last_id;
    int64_t first_time, last_time;
    __int128 sum;
    double sum_f64, sum_abs;
};

static struct chr_arena recount_arena;

static bool id_before(struct db_row_id a, struct db_row_id b)
{
    return a.entry != b.entry ? a.entry < b.entry : a.ordinal < b.ordinal;
}

static void recount_value(struct recount *c, const struct db_value *v, int64_t time,
                          struct db_row_id id)
{
    if (v->null) {
        c->nulls++;
        return;
    }
    struct db_value copy = *v;
    if (db_type_is_bytes(v->type))
        copy.bytes = chr_arena_dup(&recount_arena, v->bytes);
    if (!c->count || twin_value_cmp(v, &c->min) < 0)
        c->min = copy;
    if (!c->count || twin_value_cmp(v, &c->max) > 0)
        c->max = copy;
    if (!c->count || time < c->first_time ||
        (time == c->first_time && id_before(id, c->first_id))) {
        c->first = copy;
        c->first_time = time;
        c->first_id = id;
    }
    if (!c->count || time > c->last_time || (time == c->last_time && id_before(c->last_id, id))) {
        c->last = copy;
        c->last_time = time;
        c->last_id = id;
    }
    c->count++;
    if (v->type == DB_INT)
        c->sum += v->i64;
    if (v->type == DB_FLOAT) {
        c->sum_f64 += v->f64;
        c->sum_abs += fabs(v->f64);
    }
}

static void recount_compare(const struct recount *c, const struct db_table_def *def, uint32_t slot)
{
    const struct db_column_stats *s = &c->said;
    if (!c->has)
        return;
    living->stats_answered++;
    REQUIRE(s->count == c->count && s->nulls == c->nulls, "%s column %u: %llu/%llu, is %llu/%llu",
            def->name, slot, (unsigned long long)s->count, (unsigned long long)s->nulls,
            (unsigned long long)c->count, (unsigned long long)c->nulls);
    REQUIRE(s->min.null == (c->count == 0) && s->max.null == (c->count == 0));
    if (!c->count)
        return;
    REQUIRE(twin_value_cmp(&s->min, &c->min) == 0 && twin_value_cmp(&s->max, &c->max) == 0);
    REQUIRE(twin_value_same(&s->first, &c->first), "%s column %u", def->name, slot);
    REQUIRE(twin_value_same(&s->last, &c->last), "%s column %u", def->name, slot);
    if (c->min.type == DB_INT)
        REQUIRE(s->has_sum && s->sum_i128 == c->sum);
    if (c->min.type == DB_FLOAT && isfinite(c->sum_abs))
        REQUIRE(s->has_sum && fabs(s->sum_f64 - c->sum_f64) <= c->sum_abs * 1e-9);
}

static bool meets(const struct db_bound *b, const struct db_value *v)
{
    if (v->null)
        return false;
    if (b->has_low) {
        int c = twin_value_cmp(v, &b->low);
        if (c < 0 || (c == 0 && !b->low_inclusive))
            return false;
    }
    if (b->has_high) {
        int c = twin_value_cmp(v, &b->high);
        if (c > 0 || (c == 0 && !b->high_inclusive))
            return false;
    }
    return true;
}

static const struct db_value *row_value_at(const struct db_table_def *def,
                                           const struct twin_row *row, uint16_t column,
                                           struct db_value *hlc)
{
    if (column < def->columns_count)
        return &row->values[def->columns[column].id - 1];
    if (column == def->columns_count)
        return &row->received_at;
    *hlc = (struct db_value){.type = DB_INT, .i64 = (int64_t)row->hlc};
    return hlc;
}

static void compare_table(struct life *l, db_read *read, struct twin_table *table, bool bounded)
{
    uint64_t index = db_read_index(read);
    struct db_table_def *def = twin_def_at(table, index);
    const struct db_table_def *real = db_catalog_find_id(db_read_catalog(read), table->id);
    REQUIRE(real && strcmp(real->name, def->name) == 0 &&
            real->schema_version == def->schema_version);
    uint32_t slots = (uint32_t)def->columns_count + 2;
    uint16_t columns[TWIN_COLUMNS + 2];
    for (uint16_t i = 0; i < slots; i++)
        columns[i] = i;
    struct db_bound bounds[2] = {0};
    uint32_t bounds_count = 0;
    while (bounded && bounds_count < 2 && chance(l, 70)) {
        struct db_bound *b = &bounds[bounds_count++];
        b->column = (uint16_t)below(l, slots);
        if (def->series_count && chance(l, 40))
            b->column = def->series_columns[0];
        if (def->time_column >= 0 && chance(l, 20))
            b->column = (uint16_t)def->time_column;
        enum db_type type = b->column < def->columns_count    ? def->columns[b->column].type
                            : b->column == def->columns_count ? DB_TIMESTAMP
                                                              : DB_INT;
        b->has_low = chance(l, 70);
        b->has_high = chance(l, 70);
        b->low_inclusive = chance(l, 50);
        b->high_inclusive = chance(l, 50);
        b->low = b->high = random_value(l, type, true);
        if (b->column == slots - 1)
            b->low.i64 = b->high.i64 = (int64_t)l->hlc - (int64_t)below(l, 100000);
        if (chance(l, 50))
            b->high = random_value(l, type, true);
        else
            b->low_inclusive = b->high_inclusive = true;
    }
    db_scan *scan;
    db_reader *reader;
    struct chr_errmsg msg;
    REQUIRE(!db_scan_open(read, real, columns, slots, bounds, bounds_count, &scan));
    REQUIRE(!db_reader_open(scan, &reader));
    size_t expected = 0, found = 0;
    bool *seen = calloc(table->count + 1, sizeof *seen);
    struct db_row_id *ids = malloc(DB_VECTOR_ROWS * sizeof *ids);
    for (size_t i = 0; i < table->count; i++) {
        bool wanted = twin_row_visible(&l->twin, table, &table->rows[i], index);
        struct db_value hlc;
        for (uint32_t b = 0; b < bounds_count && wanted; b++)
            wanted = meets(&bounds[b], row_value_at(def, &table->rows[i], bounds[b].column, &hlc));
        expected += wanted;
    }
    struct db_morsel m;
    int more;
    while ((more = db_reader_next_morsel(reader, &m, &msg)) > 0) {
        struct recount counts[TWIN_COLUMNS + 2] = {0};
        uint32_t rows = 0;
        l->chunks_seen += m.chunk;
        for (uint32_t s = 0; s < slots; s++)
            counts[s].has = db_reader_stats(reader, s, &counts[s].said);
        struct db_batch batch;
        while ((more = db_reader_next_batch(reader, &batch, &msg)) > 0) {
            REQUIRE(batch.rows > 0 && batch.rows <= DB_VECTOR_ROWS && batch.sel_count > 0);
            REQUIRE(!m.exact || !batch.sel);
            rows += batch.rows;
            struct db_vector *v[TWIN_COLUMNS + 2];
            for (uint32_t s = 0; s < slots; s++) {
                chr_err err;
                v[s] = db_reader_column(reader, s, &err, &msg);
                REQUIRE(v[s] && v[s]->count == batch.rows, "%s", msg.text);
            }
            REQUIRE(!db_reader_row_ids(reader, ids, &msg));
            for (uint32_t i = 0; i < batch.sel_count; i++) {
                uint32_t r = batch.sel ? batch.sel[i] : i;
                struct twin_row *row = twin_row(table, ids[r]);
                REQUIRE(row, "%s has a row %llu/%u that never was", def->name,
                        (unsigned long long)ids[r].entry, ids[r].ordinal);
                REQUIRE(twin_row_visible(&l->twin, table, row, index),
                        "%s shows row %llu/%u at %llu, deleted %llu", def->name,
                        (unsigned long long)ids[r].entry, ids[r].ordinal, (unsigned long long)index,
                        (unsigned long long)row->deleted);
                REQUIRE(!seen[row - table->rows], "%s shows row %llu/%u twice", def->name,
                        (unsigned long long)ids[r].entry, ids[r].ordinal);
                seen[row - table->rows] = true;
                bool wanted = true;
                struct db_value hlc;
                for (uint32_t b = 0; b < bounds_count && wanted; b++)
                    wanted = meets(&bounds[b], row_value_at(def, row, bounds[b].column, &hlc));
                found += wanted;
                bool null;
                int64_t time = twin_row_time(def, row, &null);
                for (uint32_t s = 0; s < slots; s++) {
                    struct db_value value = vector_value(v[s], r);
                    const struct db_value *want = row_value_at(def, row, (uint16_t)s, &hlc);
                    REQUIRE(twin_value_same(&value, want), "%s row %llu/%u column %u", def->name,
                            (unsigned long long)ids[r].entry, ids[r].ordinal, s);
                    if (counts[s].has)
                        recount_value(&counts[s], &value, null ? INT64_MAX : time, ids[r]);
                }
            }
        }
        REQUIRE(more == 0, "%s", msg.text);
        for (uint32_t s = 0; s < slots && rows == m.rows; s++)
            recount_compare(&counts[s], def, s);
        chr_arena_reset(&recount_arena);
    }
    REQUIRE(more == 0, "%s", msg.text);
    REQUIRE(found == expected, "%s at %llu: %zu rows, expected %zu", def->name,
            (unsigned long long)index, found, expected);
    free(seen);
    free(ids);
    db_reader_close(reader);
    db_scan_close(scan);
}

static void compare_read(struct life *l, db_read *read, bool bounded)
{
    uint64_t index = db_read_index(read);
    size_t tables = 0;
    for (size_t i = 0; i < l->twin.tables_count; i++) {
        struct twin_table *t = &l->twin.tables[i];
        if (t->created > index || (t->dropped && t->dropped <= index))
            continue;
        tables++;
        compare_table(l, read, t, bounded);
    }
    REQUIRE(tables == db_catalog_tables_count(db_read_catalog(read)));
}

static void compare_now(struct life *l, bool bounded)
{
    db_read *read;
    REQUIRE(!db_read_begin(l->d, &read));
    REQUIRE(db_read_index(read) == l->twin.index);
    REQUIRE(db_read_time_us(read) == chr_hlc_unix_us(l->twin.hlcs[l->twin.index]));
    compare_read(l, read, bounded);
    db_read_end(read);
    REQUIRE(db_catalog_version_now(l->d) == l->twin.catalog_version);
    REQUIRE(db_mapping_version_now(l->d) == l->twin.mapping_version);
}

/* -- Living -------------------------------------------------------------------------------------*/

static uint64_t digest_of(const struct db_apply_result *r)
{
    uint64_t h = (uint64_t)r->err * 31 + r->ops_count;
    for (uint32_t i = 0; i < r->ops_count; i++) {
        const struct db_op_result *o = &r->ops[i];
        h = h * 1099511628211u + (uint64_t)o->err;
        h = h * 1099511628211u + o->rows;
        h = h * 1099511628211u + o->epoch;
        h = h * 1099511628211u + o->generation + o->session_present;
    }
    for (uint32_t i = 0; i < r->guards_count; i++)
        h = h * 3 + db_bit_get(r->duplicates, i) + 7 * db_bit_get(r->gone, i);
    return h;
}

static void apply_random(struct life *l)
{
    struct twin_op ops[8];
    struct twin_result results[8];
    struct db_entry entry;
    bool atomic = chance(l, 30);
    uint32_t count = 0, guards = 0, wanted = (uint32_t)below(l, 5);
    l->hlc += (chr_hlc)(chance(l, 90) ? below(l, 3) : below(l, 20000)) << 16 | 1;
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    uint64_t mapping = chance(l, 30) ? l->twin.mapping_version : 0;
    if (chance(l, 2))
        mapping = l->twin.mapping_version + 1;
    db_entry_begin(&entry, atomic ? DB_ENTRY_ATOMIC : 0, mapping);
    if (atomic && chance(l, 40)) {
        memset(&ops[count], 0, sizeof ops[0]);
        ops[count].type = DB_OP_REQUEST_KEY;
        snprintf(ops[count].key, sizeof ops[0].key, "key-%u", (unsigned)below(l, 40));
        build_op(l, &ops[count++], &entry);
    }
    if (chance(l, 30)) {
        memset(&ops[count], 0, sizeof ops[0]);
        ops[count].type = DB_OP_GUARDS;
        guards = 1 + (uint32_t)below(l, 5);
        random_guards(l, &ops[count], guards);
        build_op(l, &ops[count++], &entry);
    }
    while (wanted-- && count < 8) {
        random_op(l, &ops[count], atomic, guards);
        build_op(l, &ops[count++], &entry);
    }
    REQUIRE(!db_entry_end(&entry));
    bool tick = count == 0 && chance(l, 50);
    struct twin_apply a = {0};
    chr_err err = twin_apply(&l->twin, l->hlc, atomic, tick ? 0 : mapping, ops, count, results, &a);
    struct db_apply_result r;
    chr_slice bytes = tick ? (chr_slice){0} : chr_buf_slice(&entry.bytes);
    db_apply(l->d, l->twin.index, l->hlc, bytes, &r);
    REQUIRE(r.err == err, "%s, expected %s", chr_errname(r.err), chr_errname(err));
    if (err != CHR_ESTALE)
        REQUIRE(r.ops_count == count);
    bool same = true;
    for (uint32_t i = 0; i < r.ops_count; i++)
        same = same && r.ops[i].err == results[i].err && r.ops[i].rows == results[i].rows;
    for (uint32_t i = 0; i < r.ops_count && !same; i++)
        fprintf(stderr, "op %u type %d table %u mode %d rows %u: %s %u, expected %s %u\n", i,
                ops[i].type, ops[i].table_id, ops[i].mode, ops[i].rows, chr_errname(r.ops[i].err),
                r.ops[i].rows, chr_errname(results[i].err), results[i].rows);
    for (uint32_t i = 0; i < r.ops_count; i++) {
        REQUIRE(r.ops[i].err == results[i].err, "op %u of type %d: %s, expected %s", i, ops[i].type,
                chr_errname(r.ops[i].err), chr_errname(results[i].err));
        REQUIRE(r.ops[i].rows == results[i].rows, "op %u of type %d: %u rows, expected %u", i,
                ops[i].type, r.ops[i].rows, results[i].rows);
        REQUIRE(r.ops[i].epoch == results[i].epoch, "op %u of type %d", i, ops[i].type);
        REQUIRE(r.ops[i].generation == results[i].generation);
        REQUIRE(r.ops[i].session_present == results[i].session_present);
        REQUIRE((r.ops[i].err == CHR_EDUPKEY) == (r.ops[i].detail.len > 0));
    }
    REQUIRE(r.guards_count == (a.has_guards ? a.guards_count : 0));
    for (uint32_t g = 0; g < r.guards_count; g++)
        REQUIRE(db_bit_get(r.duplicates, g) == a.duplicate[g] &&
                db_bit_get(r.gone, g) == a.gone[g]);
    free(a.duplicate);
    free(a.gone);
    l->log = realloc(l->log, (l->log_count + 1) * sizeof *l->log);
    struct logged *logged = &l->log[l->log_count++];
    *logged = (struct logged){.bytes = malloc(bytes.len + 1), .len = bytes.len};
    if (bytes.len)
        memcpy(logged->bytes, bytes.ptr, bytes.len);
    logged->digest = digest_of(&r);
    for (uint32_t i = 0; i < count; i++)
        free_op(&ops[i]);
    db_entry_free(&entry);
}

static void unpin_all(struct life *l)
{
    for (int i = 0; i < PINS_MAX; i++) {
        db_read_end(l->pins[i]);
        l->pins[i] = NULL;
    }
}

/* Entries come while the checkpoint is between its cut and its save. */
static chr_err waits(void *arg, uint64_t index)
{
    struct life *l = arg;
    REQUIRE(index <= l->twin.index);
    for (; l->applies_left > 0; l->applies_left--) {
        apply_random(l);
        db_read **pin = &l->pins[below(l, PINS_MAX)];
        if (chance(l, 80))
            continue;
        db_read_end(*pin);
        *pin = NULL;
        REQUIRE(!db_read_begin(l->d, pin));
    }
    return CHR_OK;
}

/* Of all tables: wherever their rows are, they are the same rows. */
static uint64_t digest_all(struct life *l)
{
    struct chr_errmsg msg = {.text = ""};
    struct db_digest digest;
    db_read *read;
    uint64_t all = 0;
    REQUIRE(!db_read_begin(l->d, &read));
    const db_catalog *catalog = db_read_catalog(read);
    for (size_t i = 0; i < db_catalog_tables_count(catalog); i++) {
        const struct db_table_def *def = db_catalog_table_at(catalog, i);
        REQUIRE(!db_digest_table(read, def, &digest, &msg), "%s", msg.text);
        REQUIRE((digest.count == 0) == (digest.sum == 0));
        all = all * 31 + digest.count + digest.sum;
    }
    db_read_end(read);
    return all;
}

static void reopen(struct life *l)
{
    struct chr_errmsg msg = {.text = ""};
    unpin_all(l);
    transfer_end(&l->transfer);
    db_close(l->d);
    fake_kv_reopen(l->store);
    *fake_kv_faults(l->store) = (struct fake_kv_faults){0};
    chr_err err = db_open(&l->kv, &l->options, &l->d, &msg);
    REQUIRE(!err, "%s: %s", chr_errname(err), msg.text);
    uint64_t from = db_durable_index(l->d);
    REQUIRE(from == db_apply_index(l->d) && from <= l->twin.index);
    for (uint64_t i = from + 1; i <= l->twin.index; i++) {
        struct db_apply_result r;
        db_apply(l->d, i, l->twin.hlcs[i], chr_slice_of(l->log[i - 1].bytes, l->log[i - 1].len),
                 &r);
        REQUIRE(digest_of(&r) == l->log[i - 1].digest, "replay of %llu differs",
                (unsigned long long)i);
    }
    l->reopened++;
    compare_now(l, false);
}

static void print_finding(void *arg, const char *finding)
{
    (void)arg;
    fprintf(stderr, "finding: %s\n", finding);
}

static void check(struct life *l)
{
    uint64_t findings = 0;
    static struct db__check_limits usual;
    if (usual.hashes == 0)
        usual = db__check_limits;
    db__check_limits = usual;
    if (chance(l, 50)) /* many small windows */
        db__check_limits = (struct db__check_limits){.id_bits = 1 + below(l, 2000),
                                                     .id_blocks = (uint32_t)(1 + below(l, 100)),
                                                     .key_rows = (uint32_t)(1 + below(l, 200)),
                                                     .sample_rows = (uint32_t)(1 + below(l, 100)),
                                                     .hashes = 1 + below(l, 300)};
    REQUIRE(!db_check(l->d, print_finding, NULL, &findings));
    REQUIRE(findings == 0);
}

static void checkpoint(struct life *l)
{
    struct fake_kv_faults *faults = fake_kv_faults(l->store);
    uint64_t commits = fake_kv_commits(l->store);
    struct chr_errmsg msg = {.text = ""};
    bool crash = false;
    *faults = (struct fake_kv_faults){0};
    if (chance(l, 10))
        faults->enospc_at = commits + 1 + below(l, 5);
    else if ((crash = chance(l, 10)))
        faults->crash_at = commits + 1 + below(l, 6);
    uint64_t cut = l->twin.index;
    l->applies_left = chance(l, 50) ? (int)below(l, 6) : 0;
    chr_err err = db_checkpoint(l->d, DB_CHECKPOINT_REQUEST, waits, l, 0, &msg);
    l->checkpoints++;
    if (fake_kv_crashed(l->store)) {
        reopen(l);
        return;
    }
    REQUIRE(!err || err == CHR_ENOSPC, "%s: %s", chr_errname(err), msg.text);
    *faults = (struct fake_kv_faults){0};
    if (!err)
        REQUIRE(db_durable_index(l->d) == cut);
}

/* A snapshot is pinned, carried over while life goes on, and lived in afterwards. */
static void move(struct life *l)
{
    struct transfer *t = &l->transfer;
    if (!t->snapshot) {
        uint64_t durable = db_durable_index(l->d);
        kit_small_limits(&l->random);
        chr_err err = transfer_begin(t, l->d, below(l, UINT64_MAX));
        REQUIRE(!err || (err == CHR_ENOTFOUND && durable == 0), "%s", chr_errname(err));
        REQUIRE(err || db_snapshot_info(t->snapshot)->index == durable);
        return;
    }
    uint64_t index = db_snapshot_info(t->snapshot)->index;
    if (!transfer_pump(t, &l->random, 1 + below(l, 60)))
        return;
    fake_kv *old = l->store;
    uint64_t digest = digest_all(l);
    l->store = transfer_finish(t);
    l->kv = fake_kv_seam(l->store);
    unpin_all(l);
    db_close(l->d);
    fake_kv_free(old);
    l->d = NULL;
    reopen(l);
    REQUIRE(db_durable_index(l->d) == index);
    REQUIRE(digest_all(l) == digest);
    check(l);
    l->moved++;
}

static void count_finding(void *arg, const char *finding)
{
    (void)finding;
    ++*(int *)arg;
}

/* Each bit in the store matters: a flipped one is refused at open or found by the check. */
static void damage(struct life *l)
{
    struct chr_errmsg msg = {.text = ""};
    unpin_all(l);
    *fake_kv_faults(l->store) = (struct fake_kv_faults){0};
    l->applies_left = 0;
    REQUIRE(!db_checkpoint(l->d, DB_CHECKPOINT_REQUEST, waits, l, 0, &msg), "%s", msg.text);
    reopen(l);
    check(l);
    for (int i = 0; i < 2; i++) {
        fake_kv *copy = fake_kv_copy(l->store, l->seed * 8 + (uint64_t)i);
        struct db_kv kv = fake_kv_seam(copy);
        db *d = NULL;
        uint64_t findings = 0;
        int reports = 0;
        REQUIRE(fake_kv_flip_bit(copy));
        chr_err err = db_open(&kv, &l->options, &d, &msg);
        if (!err)
            err = db_check(d, count_finding, &reports, &findings);
        REQUIRE(err == CHR_ECORRUPT || err == CHR_EVERSION || (!err && findings > 0),
                "a flipped bit was not found: %s", chr_errname(err));
        REQUIRE((uint64_t)reports == findings);
        db_close(d);
        fake_kv_free(copy);
    }
}

static void live(uint64_t seed, int steps)
{
    struct life l = {.seed = seed, .random = {seed}, .hlc = UINT64_C(1700000000000) << 16};
    struct chr_errmsg msg;
    living = &l;
    l.store = fake_kv_new(seed);
    l.kv = fake_kv_seam(l.store);
    db_options_default(&l.options);
    l.options.chunk_rows_max =
        (uint32_t)(chance(&l, 50) ? 8 + below(&l, 40) : 100 + below(&l, 4000));
    l.options.hot_limit_bytes = 64 << 10;
    REQUIRE(!db_open(&l.kv, &l.options, &l.d, &msg), "%s", msg.text);
    l.twin.hlcs = calloc(1, sizeof *l.twin.hlcs);
    l.twin.next_table_id = 16;
    l.twin.catalog_version = l.twin.mapping_version = 1;
    const db_catalog *catalog = db_catalog_acquire(l.d);
    for (size_t i = 0; i < db_catalog_tables_count(catalog); i++)
        twin_add_table(&l.twin, 0, db__table_def_copy(db_catalog_table_at(catalog, i)));
    db_catalog_release(catalog);
    for (int step = 0; step < steps; step++) {
        uint64_t kind = below(&l, 100);
        if (kind < 70) {
            apply_random(&l);
        } else if (kind < 78) {
            compare_now(&l, chance(&l, 70));
        } else if (kind < 88) {
            checkpoint(&l);
        } else if (kind < 90) {
            reopen(&l);
        } else if (kind < 94) {
            move(&l);
        } else {
            db_read **pin = &l.pins[below(&l, PINS_MAX)];
            if (*pin)
                compare_read(&l, *pin, chance(&l, 30));
            if (chance(&l, 60)) {
                db_read_end(*pin);
                *pin = NULL;
                REQUIRE(!db_read_begin(l.d, pin));
            }
        }
    }
    for (int i = 0; i < PINS_MAX; i++)
        if (l.pins[i])
            compare_read(&l, l.pins[i], false);
    compare_now(&l, false);
    check(&l);
    damage(&l);
    if (getenv("CHR_VERBOSE"))
        printf("seed %llu: %llu entries, %llu checkpoints, %llu chunks seen, %llu statistics, "
               "%llu reopened, %llu moved\n",
               (unsigned long long)seed, (unsigned long long)l.twin.index,
               (unsigned long long)l.checkpoints, (unsigned long long)l.chunks_seen,
               (unsigned long long)l.stats_answered, (unsigned long long)l.reopened,
               (unsigned long long)l.moved);
    unpin_all(&l);
    transfer_end(&l.transfer);
    db_close(l.d);
    fake_kv_free(l.store);
    for (size_t i = 0; i < l.log_count; i++)
        free(l.log[i].bytes);
    free(l.log);
    twin_free(&l.twin);
}

static void test_lives(void **state)
{
    (void)state;
    const char *one = getenv("CHR_SEED"), *many = getenv("CHR_SEEDS");
    if (one) {
        live(strtoull(one, NULL, 0), 300);
        return;
    }
    uint64_t seeds = many ? strtoull(many, NULL, 0) : 300;
    for (uint64_t seed = 1; seed <= seeds; seed++)
        live(seed, 300);
    printf("%llu seeds\n", (unsigned long long)seeds);
}

int main(void)
{
    chr_log_set_level(CHR_LOG_ERROR);
    chr_arena_init(&recount_arena, 1 << 16, 0);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
