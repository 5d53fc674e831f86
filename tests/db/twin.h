/* tests/db/twin.h: a database that is right by looking at it.
 *
 * Plain arrays of rows, every version of each kept for ever with the index it came and went at; so
 * what any read at any index must see is a loop. It applies the same operations as db/, described
 * as structs instead of bytes. */
#ifndef CHR_TESTS_DB_TWIN_H
#define CHR_TESTS_DB_TWIN_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "db/db.h"
#include "db/op.h"

#define TWIN_COLUMNS 12

struct twin_row {
    struct db_row_id id;
    chr_hlc hlc;
    uint64_t deleted;                         /* 0: alive */
    struct db_value values[TWIN_COLUMNS + 1]; /* by column id - 1; received_at at 0 below */
    struct db_value received_at;
};

struct twin_table {
    uint32_t id;
    uint64_t created, dropped; /* indexes; dropped 0: not */
    struct twin_def {
        uint64_t from; /* index */
        struct db_table_def *def;
    } * defs;
    size_t defs_count;
    struct twin_row *rows;
    size_t count, capacity;
};

struct twin_session {
    char client[16];
    uint64_t epoch;
    uint32_t generation;
    bool connected, gone;
    uint32_t expiry_s;
    uint64_t node;
    int64_t expires_us;
    bool guards[65536 / 64]; /* tests use small packet ids */
};

struct twin_key {
    char key[16];
    int64_t time_us;
};

struct twin {
    struct twin_table *tables;
    size_t tables_count;
    uint32_t next_table_id;
    struct twin_session *sessions;
    size_t sessions_count;
    struct twin_key *keys;
    size_t keys_count;
    chr_hlc *hlcs; /* by index */
    uint64_t index;
    uint64_t catalog_version, mapping_version;
};

/* A cell of a row to be inserted. */
struct twin_cell {
    bool named; /* else the row does not mention the column */
    struct db_value value;
};

struct twin_op {
    enum db_op_type type;
    uint8_t flags;
    uint32_t table_id;
    enum db_rows_mode mode;
    uint32_t schema_version;
    uint32_t rows;
    struct twin_cell (*cells)[TWIN_COLUMNS + 1]; /* [rows] by table column */
    int64_t *received_at;
    uint32_t *guards; /* of rows; NULL: not guarded */
    struct db_row_id *ids;
    struct db_table_def *def;
    char client[16];
    bool clean_start;
    uint32_t expiry_s;
    uint64_t epoch, node;
    uint32_t generation;
    struct db_guard *items;
    struct db_reject reject;
    char key[16];
    bool malformed; /* bytes of nobody's making: CHR_ECORRUPT */
};

struct twin_result {
    chr_err err;
    uint32_t rows;
    uint64_t epoch;
    uint32_t generation;
    bool session_present;
};

/* -- Values -------------------------------------------------------------------------------------*/

static inline struct db_value twin_value_copy(struct db_value v)
{
    if (!v.null && db_type_is_bytes(v.type)) {
        uint8_t *p = malloc(v.bytes.len + 1);
        if (v.bytes.len)
            memcpy(p, v.bytes.ptr, v.bytes.len);
        v.bytes.ptr = p;
    }
    return v;
}

static inline void twin_value_free(struct db_value *v)
{
    if (!v->null && db_type_is_bytes(v->type))
        free((void *)v->bytes.ptr);
}

/* Bit for bit. */
static inline bool twin_value_same(const struct db_value *a, const struct db_value *b)
{
    if (a->null || b->null)
        return a->null && b->null;
    if (a->type != b->type)
        return false;
    if (db_type_is_bytes(a->type))
        return chr_slice_eq(a->bytes, b->bytes);
    if (a->type == DB_BOOLEAN)
        return a->boolean == b->boolean;
    return a->i64 == b->i64;
}

static inline int twin_value_cmp(const struct db_value *a, const struct db_value *b)
{
    switch (a->type) {
    case DB_FLOAT:
        if (isnan(a->f64) || isnan(b->f64))
            return !!isnan(a->f64) - !!isnan(b->f64);
        return (a->f64 > b->f64) - (a->f64 < b->f64);
    case DB_BOOLEAN:
        return a->boolean - b->boolean;
    case DB_STRING:
    case DB_BLOB:
        return chr_slice_cmp(a->bytes, b->bytes);
    default:
        return (a->i64 > b->i64) - (a->i64 < b->i64);
    }
}

/* -- Looking ------------------------------------------------------------------------------------*/

static inline struct twin_table *twin_table(struct twin *t, uint32_t id)
{
    for (size_t i = 0; i < t->tables_count; i++)
        if (t->tables[i].id == id)
            return &t->tables[i];
    return NULL;
}

static inline struct twin_table *twin_living_table(struct twin *t, uint32_t id)
{
    struct twin_table *table = twin_table(t, id);
    return table && !table->dropped ? table : NULL;
}

static inline struct db_table_def *twin_def_at(struct twin_table *table, uint64_t index)
{
    struct db_table_def *def = NULL;
    for (size_t i = 0; i < table->defs_count; i++)
        if (table->defs[i].from <= index)
            def = table->defs[i].def;
    return def;
}

static inline struct db_table_def *twin_def(struct twin_table *table)
{
    return table->defs[table->defs_count - 1].def;
}

static inline const struct db_value *twin_row_value(const struct twin_row *row, uint16_t id)
{
    return id == DB_COLUMN_RECEIVED_AT ? &row->received_at : &row->values[id - 1];
}

static inline int64_t twin_row_time(const struct db_table_def *def, const struct twin_row *row,
                                    bool *null)
{
    const struct db_value *v = twin_row_value(
        row, def->time_column < 0 ? DB_COLUMN_RECEIVED_AT : def->columns[def->time_column].id);
    *null = v->null;
    return v->i64;
}

static inline bool twin_row_expired(const struct db_table_def *def, const struct twin_row *row,
                                    chr_hlc hlc)
{
    bool null;
    int64_t time = twin_row_time(def, row, &null);
    if (null)
        return false;
    if (def->ttl_floored && time <= def->ttl_floor_us)
        return true;
    return def->ttl_us && time <= chr_hlc_unix_us(hlc) - def->ttl_us;
}

static inline bool twin_row_visible(struct twin *t, struct twin_table *table,
                                    const struct twin_row *row, uint64_t index)
{
    if (row->id.entry > index || (row->deleted && row->deleted <= index))
        return false;
    return !twin_row_expired(twin_def_at(table, index), row, t->hlcs[index]);
}

/* The row of this id, whatever became of it. */
static inline struct twin_row *twin_row(struct twin_table *table, struct db_row_id id)
{
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct db_row_id *m = &table->rows[mid].id;
        if (m->entry < id.entry || (m->entry == id.entry && m->ordinal < id.ordinal))
            low = mid + 1;
        else
            high = mid;
    }
    if (low < table->count && table->rows[low].id.entry == id.entry &&
        table->rows[low].id.ordinal == id.ordinal)
        return &table->rows[low];
    return NULL;
}

/* -- Applying -----------------------------------------------------------------------------------*/

struct twin_undo {
    uint32_t table_id;
    size_t row;      /* marked deleted, or SIZE_MAX */
    size_t rows;     /* rows the table had, or SIZE_MAX */
    int session;     /* guard added */
    uint16_t packet; /* to it */
    bool created, dropped, altered, key;
};

struct twin_apply {
    struct twin *t;
    uint64_t index;
    chr_hlc hlc;
    uint32_t ordinal;
    struct twin_undo *undo;
    size_t undo_count;
    bool has_guards;
    uint32_t guards_count;
    bool *duplicate, *gone;
};

static inline struct twin_undo *twin_undo_push(struct twin_apply *a)
{
    a->undo = realloc(a->undo, (a->undo_count + 1) * sizeof *a->undo);
    a->undo[a->undo_count] = (struct twin_undo){.row = SIZE_MAX, .rows = SIZE_MAX, .session = -1};
    return &a->undo[a->undo_count++];
}

static inline void twin_row_free(struct twin_row *row)
{
    for (int i = 0; i <= TWIN_COLUMNS; i++)
        twin_value_free(&row->values[i]);
}

static inline void twin_undo_to(struct twin_apply *a, size_t count)
{
    while (a->undo_count > count) {
        struct twin_undo u = a->undo[--a->undo_count];
        struct twin_table *table = twin_table(a->t, u.table_id);
        if (u.row != SIZE_MAX)
            table->rows[u.row].deleted = 0;
        if (u.rows != SIZE_MAX)
            while (table->count > u.rows)
                twin_row_free(&table->rows[--table->count]);
        if (u.session >= 0)
            a->t->sessions[u.session].guards[u.packet] = false;
        if (u.created) {
            free(table->rows);
            db_table_def_free(table->defs[0].def);
            free(table->defs);
            a->t->tables_count--;
            a->t->next_table_id--;
        }
        if (u.altered)
            db_table_def_free(table->defs[--table->defs_count].def);
        if (u.dropped)
            table->dropped = 0;
        if (u.created || u.altered || u.dropped) {
            a->t->catalog_version--;
            if (u.row == SIZE_MAX && u.packet)
                a->t->mapping_version--;
        }
        if (u.key)
            a->t->keys_count--;
    }
}

static inline struct twin_row *twin_push_row(struct twin_apply *a, struct twin_table *table,
                                             uint32_t ordinal)
{
    struct twin_undo *u = twin_undo_push(a);
    u->table_id = table->id;
    u->rows = table->count;
    if (table->count == table->capacity) {
        table->capacity = table->capacity ? table->capacity * 2 : 16;
        table->rows = realloc(table->rows, table->capacity * sizeof *table->rows);
    }
    struct twin_row *row = &table->rows[table->count++];
    memset(row, 0, sizeof *row);
    for (int i = 0; i <= TWIN_COLUMNS; i++)
        row->values[i].null = true;
    row->id = (struct db_row_id){a->index, ordinal};
    row->hlc = a->hlc;
    return row;
}

static inline void twin_mark(struct twin_apply *a, struct twin_table *table, struct twin_row *row)
{
    struct twin_undo *u = twin_undo_push(a);
    u->table_id = table->id;
    u->row = (size_t)(row - table->rows);
    row->deleted = a->index;
}

static inline struct twin_row *twin_find_key(struct twin_apply *a, struct twin_table *table,
                                             const struct twin_cell *cells)
{
    struct db_table_def *def = twin_def(table);
    for (size_t i = table->count; i-- > 0;) {
        struct twin_row *row = &table->rows[i];
        bool equal = !row->deleted && !twin_row_expired(def, row, a->hlc);
        for (int k = 0; k < def->key_count && equal; k++) {
            const struct db_value *v = twin_row_value(row, def->columns[def->key_columns[k]].id);
            equal = twin_value_cmp(v, &cells[def->key_columns[k]].value) == 0;
        }
        if (equal)
            return row;
    }
    return NULL;
}

static inline void twin_set(struct twin_row *row, uint16_t id, const struct db_value *v)
{
    twin_value_free(&row->values[id - 1]);
    row->values[id - 1] = twin_value_copy(*v);
}

static inline chr_err twin_insert(struct twin_apply *a, struct twin_table *table,
                                  const struct twin_op *op, struct twin_result *result)
{
    struct db_table_def *def = twin_def(table);
    for (uint32_t r = 0; r < op->rows; r++) {
        if (op->guards && op->guards[r] != UINT32_MAX &&
            (a->duplicate[op->guards[r]] || a->gone[op->guards[r]]))
            continue;
        struct twin_row *there = NULL;
        if (def->key_count)
            there = twin_find_key(a, table, op->cells[r]);
        if (there && op->mode == DB_ROWS_INSERT)
            return CHR_EDUPKEY;
        if (there && op->mode == DB_ROWS_IGNORE)
            continue;
        size_t there_at = there ? (size_t)(there - table->rows) : 0;
        if (there)
            twin_mark(a, table, there);
        struct twin_row *row = twin_push_row(a, table, a->ordinal + r);
        for (int i = 0; there && i <= TWIN_COLUMNS; i++)
            row->values[i] = twin_value_copy(table->rows[there_at].values[i]);
        for (int c = 0; c < def->columns_count; c++)
            if (op->cells[r][c].named)
                twin_set(row, def->columns[c].id, &op->cells[r][c].value);
        /* A column that was dropped meanwhile is in no new version. */
        for (int i = 0; there && i <= TWIN_COLUMNS; i++)
            if (db_table_column_by_id(def, (uint16_t)(i + 1)) < 0) {
                twin_value_free(&row->values[i]);
                row->values[i] = (struct db_value){.null = true};
            }
        row->received_at = (struct db_value){.type = DB_TIMESTAMP, .i64 = op->received_at[r]};
        result->rows++;
    }
    return CHR_OK;
}

static inline chr_err twin_delete(struct twin_apply *a, struct twin_table *table,
                                  const struct twin_op *op)
{
    for (uint32_t i = 0; i < op->rows; i++) {
        struct twin_row *row = twin_row(table, op->ids[i]);
        if (!row || row->deleted || twin_row_expired(twin_def(table), row, a->hlc))
            return CHR_ECONFLICT;
        twin_mark(a, table, row);
    }
    return CHR_OK;
}

static inline chr_err twin_check_rows(struct twin_table *table, const struct twin_op *op)
{
    if (!table)
        return CHR_ENOTFOUND;
    struct db_table_def *def = twin_def(table);
    if (def->system)
        return CHR_EACCES;
    if (op->schema_version != def->schema_version)
        return CHR_ECONFLICT;
    for (uint32_t r = 0; r < op->rows; r++)
        for (int c = 0; c < def->columns_count; c++)
            if (def->columns[c].not_null && (!op->cells[r][c].named || op->cells[r][c].value.null))
                return CHR_ENOTNULL;
    return CHR_OK;
}

struct db_table_def *db__table_def_copy(const struct db_table_def *from);

static inline void twin_add_def(struct twin_table *table, uint64_t from, struct db_table_def *def)
{
    table->defs = realloc(table->defs, (table->defs_count + 1) * sizeof *table->defs);
    table->defs[table->defs_count++] = (struct twin_def){from, def};
}

static inline struct twin_table *twin_add_table(struct twin *t, uint64_t index,
                                                struct db_table_def *def)
{
    t->tables = realloc(t->tables, (t->tables_count + 1) * sizeof *t->tables);
    struct twin_table *table = &t->tables[t->tables_count++];
    memset(table, 0, sizeof *table);
    table->id = def->id;
    table->created = index;
    twin_add_def(table, index, def);
    return table;
}

static inline struct twin_table *twin_by_name(struct twin *t, const char *name)
{
    for (size_t i = 0; i < t->tables_count; i++)
        if (!t->tables[i].dropped && strcmp(twin_def(&t->tables[i])->name, name) == 0)
            return &t->tables[i];
    return NULL;
}

static inline void twin_changed(struct twin_apply *a, struct twin_undo *u, bool mapped)
{
    a->t->catalog_version++;
    a->t->mapping_version += mapped;
    u->packet = mapped;
}

static inline struct twin_session *twin_session(struct twin *t, const char *client)
{
    for (size_t i = 0; i < t->sessions_count; i++)
        if (!t->sessions[i].gone && strcmp(t->sessions[i].client, client) == 0)
            return &t->sessions[i];
    return NULL;
}

static inline struct twin_session *twin_session_epoch(struct twin *t, uint64_t epoch)
{
    for (size_t i = 0; i < t->sessions_count; i++)
        if (!t->sessions[i].gone && t->sessions[i].epoch == epoch)
            return &t->sessions[i];
    return NULL;
}

/* Column ids are never used again, and what a column is stays. */
static inline bool twin_columns_follow(const struct db_table_def *was,
                                       const struct db_table_def *def)
{
    for (int i = 0; i < def->columns_count; i++) {
        const struct db_column_def *c = &def->columns[i];
        int at = db_table_column_by_id(was, c->id);
        if (at < 0 ? c->id < was->next_column_id : was->columns[at].type != c->type)
            return false;
    }
    return def->next_column_id >= was->next_column_id;
}

static inline void twin_op_apply(struct twin_apply *a, const struct twin_op *op, uint32_t op_at,
                                 bool atomic, struct twin_result *result)
{
    struct twin *t = a->t;
    struct twin_table *table = twin_living_table(t, op->table_id);
    int64_t now_us = chr_hlc_unix_us(a->hlc);
    if (op->malformed) {
        result->err = CHR_ECORRUPT;
        return;
    }
    switch (op->type) {
    case DB_OP_GRANT:     /* tests/db/test_grant.c */
    case DB_OP_SUBSCRIBE: /* tests/db/test_durable_model.c */
    case DB_OP_UNSUBSCRIBE:
    case DB_OP_MESSAGE:
    case DB_OP_QUEUE_ACK:
        break;
    case DB_OP_ROWS:
        result->err = twin_check_rows(table, op);
        if (!result->err)
            result->err = twin_insert(a, table, op, result);
        break;
    case DB_OP_DELETE:
        result->err = table ? twin_delete(a, table, op) : CHR_ENOTFOUND;
        result->rows = op->rows;
        break;
    case DB_OP_UPDATE:
        result->err = twin_check_rows(table, op);
        if (!result->err)
            result->err = twin_delete(a, table, op);
        if (!result->err)
            result->err = twin_insert(a, table, op, result);
        break;
    case DB_OP_CREATE_TABLE: {
        struct twin_table *there = twin_by_name(t, op->def->name);
        if (there) {
            result->err = op->flags & DB_OP_IF_EXISTENCE ? CHR_OK : CHR_EEXIST;
            result->epoch = there->id;
            break;
        }
        struct db_table_def *def = db__table_def_copy(op->def);
        def->id = t->next_table_id++;
        def->schema_version = 1;
        def->created_index = a->index;
        result->epoch = def->id;
        twin_add_table(t, a->index, def);
        struct twin_undo *u = twin_undo_push(a);
        u->table_id = def->id;
        u->created = true;
        twin_changed(a, u, def->topics_count > 0);
        break;
    }
    case DB_OP_DROP_TABLE:
        if (!table) {
            result->err = CHR_ENOTFOUND;
        } else if (twin_def(table)->system) {
            result->err = CHR_EACCES;
        } else {
            result->epoch = table->id;
            table->dropped = a->index;
            struct twin_undo *u = twin_undo_push(a);
            u->table_id = table->id;
            u->dropped = true;
            twin_changed(a, u, twin_def(table)->topics_count > 0);
        }
        break;
    case DB_OP_ALTER_TABLE: {
        struct twin_table *other = twin_by_name(t, op->def->name);
        if (!table) {
            result->err = CHR_ENOTFOUND;
        } else if (op->def->schema_version != twin_def(table)->schema_version + 1) {
            result->err = CHR_ECONFLICT;
        } else if (other && other != table) {
            result->err = CHR_EEXIST;
        } else if (!twin_columns_follow(twin_def(table), op->def)) {
            result->err = CHR_EUNSUPPORTED;
        } else {
            struct db_table_def *was = twin_def(table), *def = db__table_def_copy(op->def);
            int64_t limit = was->ttl_us ? now_us - was->ttl_us : INT64_MIN;
            def->created_index = was->created_index;
            def->ttl_floored = was->ttl_floored || was->ttl_us;
            def->ttl_floor_us =
                was->ttl_floored && was->ttl_floor_us > limit ? was->ttl_floor_us : limit;
            result->epoch = table->id;
            twin_add_def(table, a->index, def);
            struct twin_undo *u = twin_undo_push(a);
            u->table_id = table->id;
            u->altered = true;
            twin_changed(a, u, true);
        }
        break;
    }
    case DB_OP_SESSION_OPEN: {
        struct twin_session *s = twin_session(t, op->client);
        if (s && op->clean_start) {
            s->gone = true;
            s = NULL;
        }
        result->session_present = s != NULL;
        if (!s) {
            t->sessions = realloc(t->sessions, (t->sessions_count + 1) * sizeof *t->sessions);
            s = &t->sessions[t->sessions_count++];
            memset(s, 0, sizeof *s);
            strcpy(s->client, op->client);
            s->epoch = a->index << 16 | op_at;
        }
        s->generation++;
        s->expiry_s = op->expiry_s;
        s->node = op->node;
        s->connected = true;
        s->expires_us = INT64_MAX;
        result->epoch = s->epoch;
        result->generation = s->generation;
        break;
    }
    case DB_OP_SESSION_CLOSE: {
        struct twin_session *s = twin_session(t, op->client);
        if (!s || s->epoch != op->epoch || s->generation != op->generation)
            break;
        result->epoch = s->epoch;
        result->generation = s->generation;
        s->connected = false;
        s->gone = op->expiry_s == 0;
        s->expires_us =
            op->expiry_s == UINT32_MAX ? INT64_MAX : now_us + (int64_t)op->expiry_s * 1000000;
        break;
    }
    case DB_OP_NODE_DOWN:
        for (size_t i = 0; i < t->sessions_count; i++) {
            struct twin_session *s = &t->sessions[i];
            if (s->gone || !s->connected || s->node != op->node)
                continue;
            s->generation++;
            s->connected = false;
            s->gone = s->expiry_s == 0;
            s->expires_us =
                s->expiry_s == UINT32_MAX ? INT64_MAX : now_us + (int64_t)s->expiry_s * 1000000;
            result->rows++;
        }
        break;
    case DB_OP_GUARDS:
        a->has_guards = true;
        a->guards_count = op->rows;
        a->duplicate = calloc(op->rows, sizeof(bool));
        a->gone = calloc(op->rows, sizeof(bool));
        for (uint32_t i = 0; i < op->rows; i++) {
            struct twin_session *s = twin_session_epoch(t, op->items[i].epoch);
            if (!s || s->generation != op->items[i].generation) {
                a->gone[i] = true;
            } else if (s->guards[op->items[i].packet_id]) {
                a->duplicate[i] = true;
            } else {
                s->guards[op->items[i].packet_id] = true;
                struct twin_undo *u = twin_undo_push(a);
                u->session = (int)(s - t->sessions);
                u->packet = op->items[i].packet_id;
            }
        }
        break;
    case DB_OP_RELEASE:
        for (uint32_t i = 0; i < op->rows; i++) {
            struct twin_session *s = twin_session_epoch(t, op->items[i].epoch);
            if (s && s->generation == op->items[i].generation)
                s->guards[op->items[i].packet_id] = false;
            else
                result->err = CHR_ENOTFOUND;
        }
        break;
    case DB_OP_REJECT: {
        struct twin_table *rejects = twin_table(t, 2);
        const struct db_reject *j = &op->reject;
        if (j->guard != UINT32_MAX && (a->duplicate[j->guard] || a->gone[j->guard]))
            break;
        struct twin_row *row = twin_push_row(a, rejects, a->ordinal);
        char name[DB_NAME_BYTES_MAX + 1];
        if (table)
            strcpy(name, twin_def(table)->name);
        else
            snprintf(name, sizeof name, "#%u", op->table_id);
        struct db_value v = {.type = DB_STRING, .bytes = chr_slice_cstr(name)};
        twin_set(row, 1, &v);
        v.bytes = j->topic;
        twin_set(row, 2, &v);
        v.bytes = j->reason;
        twin_set(row, 4, &v);
        v.type = DB_BLOB;
        v.bytes = j->payload;
        twin_set(row, 3, &v);
        row->received_at = (struct db_value){.type = DB_TIMESTAMP, .i64 = j->received_at_us};
        row->values[4] = row->received_at;
        result->rows = 1;
        break;
    }
    case DB_OP_REQUEST_KEY:
        for (size_t i = 0; i < t->keys_count; i++)
            if (strcmp(t->keys[i].key, op->key) == 0 &&
                t->keys[i].time_us > now_us - INT64_C(86400000000))
                result->err = CHR_EEXIST;
        if (!result->err) {
            t->keys = realloc(t->keys, (t->keys_count + 1) * sizeof *t->keys);
            strcpy(t->keys[t->keys_count].key, op->key);
            t->keys[t->keys_count++].time_us = now_us;
            twin_undo_push(a)->key = true;
        }
        break;
    }
    (void)atomic;
}

/* Applies an entry of these operations; results[ops] and the entry's own error. duplicate and gone
 * are the caller's to free. */
static inline chr_err twin_apply(struct twin *t, chr_hlc hlc, bool atomic, uint64_t mapping_version,
                                 const struct twin_op *ops, uint32_t ops_count,
                                 struct twin_result *results, struct twin_apply *out)
{
    struct twin_apply a = {.t = t, .index = t->index + 1, .hlc = hlc};
    chr_err err = CHR_OK;
    t->index++;
    t->hlcs = realloc(t->hlcs, (t->index + 1) * sizeof *t->hlcs);
    t->hlcs[t->index] = hlc;
    memset(results, 0, ops_count * sizeof *results);
    for (size_t i = 0; i < t->sessions_count; i++)
        if (!t->sessions[i].connected && t->sessions[i].expires_us <= chr_hlc_unix_us(hlc))
            t->sessions[i].gone = true;
    if (mapping_version && mapping_version != t->mapping_version) {
        err = CHR_ESTALE;
        goto out;
    }
    for (uint32_t i = 0; i < ops_count; i++) {
        size_t before = a.undo_count;
        twin_op_apply(&a, &ops[i], i, atomic, &results[i]);
        a.ordinal += ops[i].type == DB_OP_ROWS || ops[i].type == DB_OP_UPDATE ? ops[i].rows
                     : ops[i].type == DB_OP_REJECT                            ? 1
                                                                              : 0;
        bool refused = false;
        for (uint32_t g = 0; atomic && a.has_guards && g < a.guards_count; g++)
            refused = refused || a.duplicate[g] || a.gone[g];
        bool seen = ops[i].type == DB_OP_REQUEST_KEY && results[i].err == CHR_EEXIST;
        if (atomic && (seen || refused || results[i].err)) {
            chr_err failed = results[i].err;
            twin_undo_to(&a, 0);
            for (uint32_t k = 0; k < ops_count; k++) {
                bool cause = k == i && !seen && !refused;
                results[k] = (struct twin_result){.err = cause ? failed : CHR_ECANCELLED};
            }
            err = seen ? CHR_EEXIST : CHR_OK;
            break;
        }
        if (results[i].err) {
            results[i].rows = 0;
            results[i].epoch = 0;
            twin_undo_to(&a, before);
        }
    }
out:
    free(a.undo);
    a.undo = NULL;
    *out = a;
    return err;
}

static inline void twin_free(struct twin *t)
{
    for (size_t i = 0; i < t->tables_count; i++) {
        for (size_t r = 0; r < t->tables[i].count; r++)
            twin_row_free(&t->tables[i].rows[r]);
        for (size_t k = 0; k < t->tables[i].defs_count; k++)
            db_table_def_free(t->tables[i].defs[k].def);
        free(t->tables[i].defs);
        free(t->tables[i].rows);
    }
    free(t->tables);
    free(t->sessions);
    free(t->keys);
    free(t->hlcs);
}

#endif
