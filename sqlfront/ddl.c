/* sqlfront/ddl.c: CREATE TABLE with its options, DROP TABLE, TRUNCATE. */
#include <strings.h>

#include "sqlfront/internal.h"
#include "sqlfront/relation.h"

struct create {
    struct sql_query *q;
    struct db_table_def def;
    uint32_t topics_capacity;
    bool seen_ttl, seen_format, seen_ack;
};

static bool set_name(struct sql_query *q, char to[DB_NAME_BYTES_MAX + 1], chr_slice name,
                     uint32_t pos)
{
    if (name.len > DB_NAME_BYTES_MAX)
        return sql__fail(q, "42622", pos, "name \"%.*s…\" is longer than %d bytes", 20,
                         (const char *)name.ptr, DB_NAME_BYTES_MAX);
    memcpy(to, name.ptr, name.len);
    to[name.len] = '\0';
    return true;
}

static int column_named(const struct db_table_def *def, chr_slice name)
{
    for (int i = 0; i < def->columns_count; i++)
        if (chr_slice_eq(chr_slice_cstr(def->columns[i].name), name))
            return i;
    return -1;
}

static bool add_columns(struct create *c, const struct sql_stmt *stmt)
{
    struct sql_query *q = c->q;
    uint32_t count = 0;
    for (const struct sql_column_ast *a = stmt->table_columns; a; a = a->next)
        count++;
    if (count > DB_COLUMNS_MAX)
        return sql__fail(q, "54011", stmt->table_pos, "tables can have at most %d columns",
                         DB_COLUMNS_MAX);
    c->def.columns = SQL_ARRAY(q, struct db_column_def, count);
    if (!c->def.columns)
        return false;
    for (const struct sql_column_ast *a = stmt->table_columns; a; a = a->next) {
        struct db_column_def *d = &c->def.columns[c->def.columns_count];
        if (!set_name(q, d->name, a->name, a->pos))
            return false;
        if (column_named(&c->def, a->name) >= 0)
            return sql__fail(q, "42701", a->pos, "column \"%.*s\" specified more than once",
                             CHR_SLICE_ARGS(a->name));
        if (chr_slice_eq(a->name, CHR_LIT("_received_at")) ||
            chr_slice_eq(a->name, CHR_LIT("_hlc")))
            return sql__fail(q, "42701", a->pos,
                             "column name \"%.*s\" conflicts with a system column name",
                             CHR_SLICE_ARGS(a->name));
        enum db_type type = sql__type_parse(a->type);
        if (type == SQL_TYPE_UNKNOWN) {
            static const char *const types[] = {"int",  "bigint",  "float",   "double",    "string",
                                                "text", "varchar", "boolean", "timestamp", "blob"};
            sql__fail(q, "42704", a->type_pos, "type \"%.*s\" does not exist",
                      CHR_SLICE_ARGS(a->type));
            const char *near = sql__nearest(a->type, types, CHR_COUNT_OF(types));
            if (near)
                sql__hint(q, "Did you mean \"%s\"?", near);
            else
                sql__hint(q, "Types are INT, FLOAT, STRING, BOOLEAN, TIMESTAMP and BLOB.");
            return false;
        }
        if (type == SQL_TYPE_INTERVAL)
            return sql__fail(q, "0A000", a->type_pos, "columns of type INTERVAL are not supported");
        d->type = type;
        d->not_null = a->not_null || a->primary_key;
        if (a->primary_key) {
            if (c->def.key_count || stmt->primary_key.count)
                return sql__fail(q, "42P16", a->pos,
                                 "multiple primary keys for table \"%s\" are not allowed",
                                 c->def.name);
            c->def.key_columns[c->def.key_count++] = c->def.columns_count;
        }
        c->def.columns_count++;
    }
    return true;
}

static bool add_key(struct create *c, const struct sql_stmt *stmt)
{
    struct sql_query *q = c->q;
    if (stmt->primary_key.count > DB_KEY_COLUMNS_MAX)
        return sql__fail(q, "54011", stmt->primary_key_pos, "a primary key has at most %d columns",
                         DB_KEY_COLUMNS_MAX);
    for (const struct sql_name *n = stmt->primary_key.first; n; n = n->next) {
        int i = column_named(&c->def, n->text);
        if (i < 0)
            return sql__fail(q, "42703", n->pos, "column \"%.*s\" named in key does not exist",
                             CHR_SLICE_ARGS(n->text));
        for (uint32_t k = 0; k < c->def.key_count; k++)
            if (c->def.key_columns[k] == i)
                return sql__fail(q, "42701", n->pos,
                                 "column \"%.*s\" appears twice in primary key constraint",
                                 CHR_SLICE_ARGS(n->text));
        c->def.key_columns[c->def.key_count++] = (uint16_t)i;
        c->def.columns[i].not_null = true;
    }
    return true;
}

/* -- Options -----------------------------------------------------------------------------------*/

static bool one_value(struct create *c, const struct sql_option *o, chr_slice *value)
{
    if (o->values.count != 1)
        return sql__fail(c->q, "42601", o->pos, "option %.*s takes one value",
                         CHR_SLICE_ARGS(o->name));
    *value = o->values.first->text;
    return true;
}

static bool option_ttl(struct create *c, const struct sql_option *o)
{
    chr_slice v = {0};
    if (!one_value(c, o, &v))
        return false;
    if (c->seen_ttl)
        return sql__fail(c->q, "42601", o->pos, "option TTL is given twice");
    c->seen_ttl = true;
    int64_t us = 0;
    struct sql_interval iv;
    if (chr_parse_duration_us(v, &us) != CHR_OK) {
        if (!sql__interval_parse(v, &iv) || sql__interval_us(iv) > INT64_MAX)
            return sql__fail(c->q, "22023", o->value_pos,
                             "TTL takes a duration such as 7d, 12h or '30 days', not \"%.*s\"",
                             CHR_SLICE_ARGS(v));
        us = (int64_t)sql__interval_us(iv);
    }
    if (us <= 0)
        return sql__fail(c->q, "22023", o->value_pos, "TTL must be greater than zero");
    c->def.ttl_us = us;
    return true;
}

static bool option_topic(struct create *c, const struct sql_option *o)
{
    for (const struct sql_name *n = o->values.first; n; n = n->next) {
        if (o->kind != SQL_VALUE_STRING)
            return sql__fail(c->q, "22023", n->pos,
                             "TOPIC takes a string such as 'farm/{device_id}/env'");
        if (c->def.topics_count == c->topics_capacity) {
            uint32_t capacity = c->topics_capacity ? 2 * c->topics_capacity : 8;
            char **topics = SQL_ARRAY(c->q, char *, capacity);
            if (!topics)
                return false;
            if (c->def.topics_count)
                memcpy(topics, c->def.topics, c->def.topics_count * sizeof *topics);
            c->def.topics = topics;
            c->topics_capacity = capacity;
        }
        char *copy = chr_arena_cstr(&c->q->arena, n->text);
        if (!copy)
            return sql__fail_memory(c->q);
        c->def.topics[c->def.topics_count++] = copy;
    }
    return true;
}

static bool option_format(struct create *c, const struct sql_option *o)
{
    static const char *const names[] = {"auto", "json", "csv", "number", "text"};
    chr_slice v = {0};
    if (!one_value(c, o, &v))
        return false;
    if (c->seen_format)
        return sql__fail(c->q, "42601", o->pos, "option FORMAT is given twice");
    c->seen_format = true;
    for (size_t i = 0; i < CHR_COUNT_OF(names); i++)
        if (strlen(names[i]) == v.len && strncasecmp(names[i], (const char *)v.ptr, v.len) == 0) {
            c->def.format = (enum db_payload_format)i;
            return true;
        }
    return sql__fail(c->q, "22023", o->value_pos,
                     "unknown FORMAT \"%.*s\": auto, json, csv, number or text", CHR_SLICE_ARGS(v));
}

static bool option_ack(struct create *c, const struct sql_option *o)
{
    chr_slice v = {0};
    if (!one_value(c, o, &v))
        return false;
    if (c->seen_ack)
        return sql__fail(c->q, "42601", o->pos, "option ACK is given twice");
    c->seen_ack = true;
    int ack = db_ack_class_parse(v);
    if (ack < 0)
        return sql__fail(c->q, "22023", o->value_pos,
                         "unknown ACK \"%.*s\": quorum, local or memory", CHR_SLICE_ARGS(v));
    c->def.ack = (enum db_ack_class)ack;
    return true;
}

static bool option_time(struct create *c, const struct sql_option *o)
{
    chr_slice v = {0};
    if (!one_value(c, o, &v))
        return false;
    if (c->def.time_is_option)
        return sql__fail(c->q, "42601", o->pos, "option TIME is given twice");
    int i = column_named(&c->def, v);
    if (i < 0)
        return sql__fail(c->q, "42703", o->value_pos,
                         "column \"%.*s\" named in TIME does not exist", CHR_SLICE_ARGS(v));
    if (c->def.columns[i].type != DB_TIMESTAMP)
        return sql__fail(c->q, "42804", o->value_pos,
                         "TIME takes a TIMESTAMP column, and \"%.*s\" is of type %s",
                         CHR_SLICE_ARGS(v), sql__type_name(c->def.columns[i].type));
    c->def.time_column = i;
    c->def.time_is_option = true;
    return true;
}

static bool add_options(struct create *c, const struct sql_stmt *stmt)
{
    static const struct {
        const char *name;
        bool (*set)(struct create *c, const struct sql_option *o); /* NULL: a later step */
    } options[] = {
        {"ttl", option_ttl},   {"topic", option_topic}, {"format", option_format},
        {"time", option_time}, {"ack", option_ack},     {"max_future", NULL},
        {"max_age", NULL},
    };
    for (const struct sql_option *o = stmt->options; o; o = o->next) {
        size_t i = 0;
        while (i < CHR_COUNT_OF(options) && !chr_slice_eq(o->name, chr_slice_cstr(options[i].name)))
            i++;
        if (i == CHR_COUNT_OF(options)) {
            const char *names[CHR_COUNT_OF(options)];
            for (size_t k = 0; k < CHR_COUNT_OF(options); k++)
                names[k] = options[k].name;
            const char *near = sql__nearest(o->name, names, CHR_COUNT_OF(names));
            sql__fail(c->q, "42704", o->pos, "unknown table option \"%.*s\"",
                      CHR_SLICE_ARGS(o->name));
            if (near)
                sql__hint(c->q, "Did you mean \"%s\"?", near);
            else
                sql__hint(c->q, "Options are TTL, TOPIC, FORMAT, TIME and ACK.");
            return false;
        }
        if (!options[i].set) {
            char upper[16];
            size_t n = 0;
            for (; options[i].name[n]; n++)
                upper[n] = (char)(options[i].name[n] == '_' ? '_' : options[i].name[n] - 32);
            upper[n] = '\0';
            return sql__fail(c->q, "0A000", o->pos, "table option %s is not supported yet", upper);
        }
        if (!options[i].set(c, o))
            return false;
    }
    return true;
}

/* Where in the text to point when the catalog refuses the definition as a whole. */
static uint32_t option_pos(const struct sql_stmt *stmt, const char *name, uint32_t otherwise)
{
    for (const struct sql_option *o = stmt->options; o; o = o->next)
        if (chr_slice_eq(o->name, chr_slice_cstr(name)))
            return o->value_pos;
    return otherwise;
}

bool sql__run_create_table(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    struct create c = {.q = q, .def = {.time_column = -1}};
    struct chr_errmsg msg = {0};
    if (!sql__may_define(q, "CREATE TABLE", stmt->pos) || !sql__may_write(q, NULL, SQL_NO_POS) ||
        !set_name(q, c.def.name, stmt->table, stmt->table_pos) || !add_columns(&c, stmt) ||
        !add_key(&c, stmt) || !add_options(&c, stmt))
        return false;
    if (strncmp(c.def.name, "chronos_", 8) == 0)
        return sql__fail(q, "42939", stmt->table_pos,
                         "names that begin with \"chronos_\" are reserved");
    chr_err err = db_table_def_complete(&c.def, &msg);
    if (err)
        return sql__fail(q, sql_sqlstate_of(err), option_pos(stmt, "topic", stmt->table_pos), "%s",
                         msg.text[0] ? msg.text : chr_strerror(err));
    /* Whether the name is free is decided at apply; saying so early spares the log an entry. */
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    bool exists = db_catalog_find(catalog, stmt->table) != NULL;
    size_t tables = db_catalog_tables_count(catalog);
    db_catalog_release(catalog);
    if (exists) {
        if (stmt->if_existence)
            return true;
        return sql__fail(q, "42P07", stmt->table_pos, "table \"%s\" already exists", c.def.name);
    }
    if (tables >= DB_TABLES_MAX)
        return sql__fail(q, "54000", stmt->table_pos, "there are %d tables already", DB_TABLES_MAX);
    struct db_entry entry;
    struct sql_applied applied;
    sql__write_begin(q, &entry);
    err = db_entry_add_create_table(&entry, &c.def, stmt->if_existence);
    bool ok =
        err ? sql__fail_err(q, err, NULL)
            : sql__write_propose(q, &entry, &applied) && sql__write_check(q, &applied, &c.def);
    if (ok) {
        done->duplicate = applied.err == CHR_EEXIST;
        done->apply_index = applied.index;
    }
    db_entry_free(&entry);
    return ok;
}

/* DROP TABLE; TRUNCATE is a drop and the same table anew, in one entry. */
static bool drop(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done,
                 bool recreate)
{
    const db_catalog *catalog = db_catalog_acquire(q->session->db);
    const struct db_table_def *table = sql__find_relation(q, stmt->table);
    if (!table)
        table = db_catalog_find(catalog, stmt->table);
    bool ok = false;
    struct db_entry entry = {0};
    if (q->failed || !sql__may_define(q, recreate ? "TRUNCATE" : "DROP TABLE", stmt->pos) ||
        !sql__may_write(q, table, stmt->table_pos))
        goto out;
    if (!table) {
        ok =
            stmt->if_existence || sql__find_table(q, catalog, stmt->table, stmt->table_pos) != NULL;
        goto out;
    }
    struct sql_applied applied;
    sql__write_begin(q, &entry);
    db_entry_add_drop_table(&entry, table->id);
    if (recreate) {
        struct db_table_def again = *table;
        again.id = 0; /* it gets a new one */
        again.created_index = 0;
        chr_err err = db_entry_add_create_table(&entry, &again, false);
        if (err) {
            sql__fail_err(q, err, NULL);
            goto out;
        }
    }
    if (!sql__write_propose(q, &entry, &applied))
        goto out;
    if (applied.op_err == CHR_ENOTFOUND && stmt->if_existence)
        applied.op_err = CHR_OK;
    if (!sql__write_check(q, &applied, table))
        goto out;
    done->duplicate = applied.err == CHR_EEXIST;
    done->apply_index = applied.index;
    ok = true;
out:
    db_entry_free(&entry);
    db_catalog_release(catalog);
    return ok;
}

bool sql__run_drop_table(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    return drop(q, stmt, done, false);
}

bool sql__run_truncate(struct sql_query *q, const struct sql_stmt *stmt, struct sql_done *done)
{
    return drop(q, stmt, done, true);
}
