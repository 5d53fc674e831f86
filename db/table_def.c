/* db/table_def.c: definitions of tables: what follows from what, what is allowed, bytes and back.
 *
 * A definition read from the log or the store goes through the same checks as one that SQL has just
 * made: nothing below ever meets a definition that was not completed. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/utf8.h"
#include "db/catalog_internal.h"
#include "proto/catalog.pb-c.h"

#define TOPIC_BYTES_MAX     1024 /* of a template */
#define TOPICS_MAX          64   /* of a table */
#define TABLE_DEF_BYTES_MAX (256u << 10)

int db_table_column(const struct db_table_def *table, chr_slice name)
{
    for (int i = 0; i < table->columns_count; i++)
        if (chr_slice_eq(chr_slice_cstr(table->columns[i].name), name))
            return i;
    return -1;
}

int db_table_column_by_id(const struct db_table_def *table, uint16_t id)
{
    for (int i = 0; i < table->columns_count; i++)
        if (table->columns[i].id == id)
            return i;
    return -1;
}

/* -- Topics -------------------------------------------------------------------------------------*/

/* Adds the columns a template captures to the series columns, in order of appearance. */
static chr_err complete_topic(struct db_table_def *t, const char *topic, bool into_series,
                              struct chr_errmsg *msg)
{
    chr_slice rest = chr_slice_cstr(topic);
    if (rest.len == 0 || rest.len > TOPIC_BYTES_MAX || !chr_utf8_valid_mqtt(rest))
        return chr_fail(msg, CHR_EINVAL, "a topic has 1 to %d bytes of UTF-8", TOPIC_BYTES_MAX);
    if (rest.ptr[0] == '$')
        return chr_fail(msg, CHR_EINVAL, "topic \"%.100s\": topics under $ are the broker's own",
                        topic);
    uint64_t captured[DB_BIT_WORDS(DB_COLUMNS_MAX)] = {0};
    for (bool last = false; !last;) {
        const uint8_t *slash = memchr(rest.ptr, '/', rest.len);
        chr_slice level = chr_slice_of(rest.ptr, slash ? (size_t)(slash - rest.ptr) : rest.len);
        last = !slash;
        if (slash)
            rest = chr_slice_of(slash + 1, rest.len - level.len - 1);
        if (chr_slice_eq(level, CHR_LIT("+")))
            continue;
        if (chr_slice_eq(level, CHR_LIT("#"))) {
            if (last)
                continue;
            return chr_fail(msg, CHR_EINVAL, "topic \"%.100s\": # is only the last level", topic);
        }
        bool brace = level.len >= 2 && level.ptr[0] == '{' && level.ptr[level.len - 1] == '}';
        if (!brace) {
            if (memchr(level.ptr, '+', level.len) || memchr(level.ptr, '#', level.len) ||
                memchr(level.ptr, '{', level.len) || memchr(level.ptr, '}', level.len))
                return chr_fail(msg, CHR_EINVAL,
                                "topic \"%.100s\": +, # and {name} take a whole level", topic);
            continue;
        }
        chr_slice name = chr_slice_of(level.ptr + 1, level.len - 2);
        int column = db_table_column(t, name);
        if (column < 0)
            return chr_fail(msg, CHR_EINVAL,
                            "topic \"%.100s\" captures \"%.*s\", which is no column", topic,
                            CHR_SLICE_ARGS(name));
        if (db_bit_get(captured, (uint32_t)column))
            return chr_fail(msg, CHR_EINVAL, "topic \"%.100s\" captures \"%.*s\" twice", topic,
                            CHR_SLICE_ARGS(name));
        db_bit_set(captured, (uint32_t)column);
        if (!into_series)
            continue;
        bool known = false;
        for (uint16_t i = 0; i < t->series_count; i++)
            known = known || t->series_columns[i] == column;
        if (known)
            continue;
        if (t->series_count == DB_KEY_COLUMNS_MAX)
            return chr_fail(msg, CHR_EINVAL, "topics capture more than %d columns",
                            DB_KEY_COLUMNS_MAX);
        t->series_columns[t->series_count++] = (uint16_t)column;
    }
    return CHR_OK;
}

/* -- The definition as a whole ------------------------------------------------------------------*/

static chr_err check_name(const char *name, const char *what, struct chr_errmsg *msg)
{
    size_t len = strnlen(name, DB_NAME_BYTES_MAX + 1);
    if (len == 0 || len > DB_NAME_BYTES_MAX)
        return chr_fail(msg, CHR_EINVAL, "a name of a %s has 1 to %d bytes", what,
                        DB_NAME_BYTES_MAX);
    if (!chr_utf8_valid_mqtt(chr_slice_of(name, len)))
        return chr_fail(msg, CHR_EINVAL, "the name of a %s is not UTF-8", what);
    return CHR_OK;
}

static chr_err complete_columns(struct db_table_def *t, struct chr_errmsg *msg)
{
    if (t->columns_count == 0 || t->columns_count > DB_COLUMNS_MAX)
        return chr_fail(msg, CHR_EINVAL, "a table has 1 to %d columns", DB_COLUMNS_MAX);
    uint32_t next = CHR_MAX(t->next_column_id, 1);
    for (uint16_t i = 0; i < t->columns_count; i++)
        if (t->columns[i].id >= next)
            next = (uint32_t)t->columns[i].id + 1;
    for (uint16_t i = 0; i < t->columns_count; i++) {
        struct db_column_def *c = &t->columns[i];
        chr_err err = check_name(c->name, "column", msg);
        if (err)
            return err;
        if (c->type <= 0 || c->type >= DB_TYPES_END)
            return chr_fail(msg, CHR_EINVAL, "column \"%s\" has no known type", c->name);
        if (strcmp(c->name, "_received_at") == 0 || strcmp(c->name, "_hlc") == 0)
            return chr_fail(msg, CHR_EINVAL, "\"%s\" is the name of a system column", c->name);
        if (db_table_column(t, chr_slice_cstr(c->name)) != i)
            return chr_fail(msg, CHR_EEXIST, "column \"%s\" is there twice", c->name);
        if (c->id == 0)
            c->id = (uint16_t)next++;
        if (db_table_column_by_id(t, c->id) != i)
            return chr_fail(msg, CHR_EINVAL, "column id %u is there twice", c->id);
    }
    if (next >= DB_COLUMN_RECEIVED_AT)
        return chr_fail(msg, CHR_EINVAL, "the table has used up its column ids");
    t->next_column_id = (uint16_t)next;
    return CHR_OK;
}

static chr_err complete_key(struct db_table_def *t, struct chr_errmsg *msg)
{
    if (t->key_count > DB_KEY_COLUMNS_MAX)
        return chr_fail(msg, CHR_EINVAL, "a PRIMARY KEY has at most %d columns",
                        DB_KEY_COLUMNS_MAX);
    for (uint16_t i = 0; i < t->key_count; i++) {
        if (t->key_columns[i] >= t->columns_count)
            return chr_fail(msg, CHR_EINVAL, "a column of the PRIMARY KEY does not exist");
        for (uint16_t j = 0; j < i; j++)
            if (t->key_columns[j] == t->key_columns[i])
                return chr_fail(msg, CHR_EINVAL, "\"%s\" is in the PRIMARY KEY twice",
                                t->columns[t->key_columns[i]].name);
        t->columns[t->key_columns[i]].not_null = true;
    }
    return CHR_OK;
}

static chr_err complete_time(struct db_table_def *t, struct chr_errmsg *msg)
{
    if (t->time_is_option) {
        if (t->time_column < 0 || t->time_column >= t->columns_count)
            return chr_fail(msg, CHR_EINVAL, "TIME names no column");
        if (t->columns[t->time_column].type != DB_TIMESTAMP)
            return chr_fail(msg, CHR_EINVAL, "TIME names \"%s\", which is no TIMESTAMP",
                            t->columns[t->time_column].name);
        return CHR_OK;
    }
    t->time_column = -1;
    for (uint16_t i = 0; i < t->columns_count && t->time_column < 0; i++)
        if (t->columns[i].type == DB_TIMESTAMP)
            t->time_column = i;
    return CHR_OK;
}

chr_err db_table_def_complete(struct db_table_def *t, struct chr_errmsg *msg)
{
    chr_err err = check_name(t->name, "table", msg);
    if (!err)
        err = complete_columns(t, msg);
    if (!err)
        err = complete_key(t, msg);
    if (!err)
        err = complete_time(t, msg);
    if (err)
        return err;
    if ((unsigned)t->ack >= DB_ACK_CLASSES)
        return chr_fail(msg, CHR_EINVAL, "unknown durability class %u", (unsigned)t->ack);
    if (t->ttl_us < 0)
        return chr_fail(msg, CHR_EINVAL, "TTL is below zero");
    if ((unsigned)t->format > DB_PAYLOAD_TEXT)
        return chr_fail(msg, CHR_EINVAL, "unknown payload format");
    if (t->topics_count > TOPICS_MAX)
        return chr_fail(msg, CHR_EINVAL, "a table has at most %d topics", TOPICS_MAX);
    t->series_count = 0;
    for (uint16_t i = 0; i < t->key_count; i++)
        if (t->key_columns[i] != t->time_column)
            t->series_columns[t->series_count++] = t->key_columns[i];
    for (uint16_t i = 0; i < t->topics_count && !err; i++)
        err = complete_topic(t, t->topics[i], t->key_count == 0, msg);
    return err;
}

/* -- Bytes --------------------------------------------------------------------------------------*/

chr_err db_table_def_encode(const struct db_table_def *t, struct chr_buf *out)
{
    Chronos__Catalog__TableDef pb = CHRONOS__CATALOG__TABLE_DEF__INIT;
    Chronos__Catalog__ColumnDef *columns = calloc(t->columns_count, sizeof *columns);
    Chronos__Catalog__ColumnDef **pointers = calloc(t->columns_count, sizeof(void *));
    Chronos__Catalog__Grant *grants = calloc(t->grants_count + 1u, sizeof *grants);
    Chronos__Catalog__Grant **grant_pointers = calloc(t->grants_count + 1u, sizeof(void *));
    uint32_t key[DB_KEY_COLUMNS_MAX], series[DB_KEY_COLUMNS_MAX];
    chr_err err = CHR_ENOMEM;
    if (!columns || !pointers || !grants || !grant_pointers)
        goto out;
    for (uint16_t i = 0; i < t->columns_count; i++) {
        chronos__catalog__column_def__init(&columns[i]);
        columns[i].id = t->columns[i].id;
        columns[i].type = (uint32_t)t->columns[i].type;
        columns[i].not_null = t->columns[i].not_null;
        columns[i].name = t->columns[i].name;
        pointers[i] = &columns[i];
    }
    for (uint16_t i = 0; i < t->key_count; i++)
        key[i] = t->key_columns[i];
    for (uint16_t i = 0; i < t->series_count; i++)
        series[i] = t->series_columns[i];
    pb.id = t->id;
    pb.schema_version = t->schema_version;
    pb.name = (char *)t->name;
    pb.system = t->system;
    pb.columns = pointers;
    pb.n_columns = t->columns_count;
    pb.key_columns = key;
    pb.n_key_columns = t->key_count;
    pb.series_columns = series;
    pb.n_series_columns = t->series_count;
    pb.time_column = t->time_column;
    pb.time_is_option = t->time_is_option;
    pb.ttl_us = t->ttl_us;
    pb.topics = t->topics;
    pb.n_topics = t->topics_count;
    pb.format = (uint32_t)t->format;
    pb.created_index = t->created_index;
    pb.next_column_id = t->next_column_id;
    pb.ttl_floored = t->ttl_floored;
    pb.ttl_floor_us = t->ttl_floor_us;
    pb.ack = (uint32_t)t->ack;
    pb.grants = grant_pointers;
    pb.n_grants = t->grants_count;
    for (uint32_t i = 0; i < t->grants_count; i++) {
        chronos__catalog__grant__init(&grants[i]);
        grants[i].kind = (uint32_t)t->grants[i].kind;
        grants[i].privileges = t->grants[i].privileges;
        grants[i].name = (char *)t->grants[i].name;
        grant_pointers[i] = &grants[i];
    }
    size_t len = chronos__catalog__table_def__get_packed_size(&pb);
    err = len > TABLE_DEF_BYTES_MAX ? CHR_ETOOBIG : chr_buf_reserve(out, len);
    if (err)
        goto out;
    out->len += chronos__catalog__table_def__pack(&pb, out->ptr + out->len);
out:
    free(columns);
    free(pointers);
    free(grants);
    free((void *)grant_pointers);
    return err;
}

static bool copy_name(char out[DB_NAME_BYTES_MAX + 1], const char *name)
{
    size_t len = strlen(name);
    if (len > DB_NAME_BYTES_MAX)
        return false;
    memcpy(out, name, len + 1);
    return true;
}

static chr_err decode_fields(struct db_table_def *t, const Chronos__Catalog__TableDef *pb,
                             struct chr_errmsg *msg)
{
    t->id = pb->id;
    t->schema_version = pb->schema_version;
    t->system = pb->system;
    t->time_column = pb->time_column;
    t->time_is_option = pb->time_is_option;
    t->ttl_us = pb->ttl_us;
    t->format = (enum db_payload_format)pb->format;
    t->created_index = pb->created_index;
    t->next_column_id = (uint16_t)pb->next_column_id;
    t->ttl_floored = pb->ttl_floored;
    t->ttl_floor_us = pb->ttl_floor_us;
    t->ack = (enum db_ack_class)pb->ack;
    if (!copy_name(t->name, pb->name) || pb->next_column_id >= DB_COLUMN_RECEIVED_AT)
        return chr_fail(msg, CHR_EINVAL, "name of the table or a column id is out of range");
    for (size_t i = 0; i < pb->n_columns; i++) {
        struct db_column_def *c = &t->columns[i];
        const Chronos__Catalog__ColumnDef *p = pb->columns[i];
        if (p->id >= DB_COLUMN_RECEIVED_AT || p->type >= DB_TYPES_END ||
            !copy_name(c->name, p->name))
            return chr_fail(msg, CHR_EINVAL, "column %zu is out of range", i);
        c->id = (uint16_t)p->id;
        c->type = (enum db_type)p->type;
        c->not_null = p->not_null;
    }
    if (pb->n_key_columns > DB_KEY_COLUMNS_MAX)
        return chr_fail(msg, CHR_EINVAL, "too many columns in the PRIMARY KEY");
    t->key_count = (uint16_t)pb->n_key_columns;
    for (size_t i = 0; i < pb->n_key_columns; i++) {
        if (pb->key_columns[i] >= t->columns_count)
            return chr_fail(msg, CHR_EINVAL, "a column of the PRIMARY KEY does not exist");
        t->key_columns[i] = (uint16_t)pb->key_columns[i];
    }
    return CHR_OK;
}

static chr_err decode_grants(struct db_table_def *t, const Chronos__Catalog__TableDef *pb)
{
    if (pb->n_grants == 0)
        return CHR_OK;
    if (pb->n_grants > DB_GRANTS_MAX)
        return CHR_EMALFORMED;
    t->grants = calloc(pb->n_grants, sizeof *t->grants);
    if (!t->grants)
        return CHR_ENOMEM;
    for (size_t i = 0; i < pb->n_grants; i++) {
        const Chronos__Catalog__Grant *g = pb->grants[i];
        size_t len = strlen(g->name);
        if (g->kind > DB_GRANTEE_PUBLIC || g->privileges > DB_PRIVILEGES_ALL ||
            len > DB_GRANTEE_BYTES_MAX)
            return CHR_EMALFORMED;
        t->grants[i].kind = (enum db_grantee_kind)g->kind;
        t->grants[i].privileges = (uint8_t)g->privileges;
        memcpy(t->grants[i].name, g->name, len + 1);
        t->grants_count++;
    }
    return CHR_OK;
}

/* One block, grants apart: the struct, columns, pointers to topics, topics. */
static struct db_table_def *def_alloc(size_t columns, size_t topics, size_t topic_bytes)
{
    struct db_table_def *t = calloc(1, sizeof *t + columns * sizeof *t->columns +
                                           topics * sizeof *t->topics + topic_bytes);
    if (!t)
        return NULL;
    t->topics = (char **)(void *)(t + 1);
    t->columns = (struct db_column_def *)(void *)(t->topics + topics);
    t->columns_count = (uint16_t)columns;
    t->topics_count = (uint16_t)topics;
    return t;
}

static void def_set_topics(struct db_table_def *t, char *const *topics)
{
    char *p = (char *)(t->columns + t->columns_count);
    for (uint16_t i = 0; i < t->topics_count; i++) {
        size_t len = strlen(topics[i]) + 1;
        t->topics[i] = memcpy(p, topics[i], len);
        p += len;
    }
}

chr_err db_table_def_decode(chr_slice bytes, struct db_table_def **out, struct chr_errmsg *msg)
{
    *out = NULL;
    if (bytes.len > TABLE_DEF_BYTES_MAX)
        return chr_fail(msg, CHR_EMALFORMED, "a table definition is too large");
    Chronos__Catalog__TableDef *pb =
        chronos__catalog__table_def__unpack(NULL, bytes.len, bytes.ptr);
    if (!pb)
        return chr_fail(msg, CHR_EMALFORMED, "not a table definition");
    struct db_table_def *t = NULL;
    chr_err err = CHR_EMALFORMED;
    if (pb->n_columns == 0 || pb->n_columns > DB_COLUMNS_MAX || pb->n_topics > TOPICS_MAX) {
        (void)chr_fail(msg, err, "a table definition has too many columns or topics, or none");
        goto out;
    }
    size_t topic_bytes = 0;
    for (size_t i = 0; i < pb->n_topics; i++)
        topic_bytes += strlen(pb->topics[i]) + 1;
    t = def_alloc(pb->n_columns, pb->n_topics, topic_bytes);
    err = CHR_ENOMEM;
    if (!t)
        goto out;
    def_set_topics(t, pb->topics);
    err = decode_grants(t, pb);
    if (err)
        goto out;
    if (decode_fields(t, pb, msg) || db_table_def_complete(t, msg)) {
        err = CHR_EMALFORMED;
        goto out;
    }
    *out = t;
    t = NULL;
    err = CHR_OK;
out:
    db_table_def_free(t);
    chronos__catalog__table_def__free_unpacked(pb, NULL);
    return err;
}

void db_table_def_free(struct db_table_def *table)
{
    if (table)
        free(table->grants);
    free(table);
}

struct db_table_def *db__table_def_copy(const struct db_table_def *from)
{
    size_t topic_bytes = 0;
    for (uint16_t i = 0; i < from->topics_count; i++)
        topic_bytes += strlen(from->topics[i]) + 1;
    struct db_table_def *t = def_alloc(from->columns_count, from->topics_count, topic_bytes);
    if (!t)
        return NULL;
    struct db_column_def *columns = t->columns;
    char **topics = t->topics;
    *t = *from;
    t->columns = columns;
    t->topics = topics;
    t->grants = NULL;
    if (from->grants_count) {
        t->grants = malloc(from->grants_count * sizeof *t->grants);
        if (!t->grants) {
            free(t);
            return NULL;
        }
        memcpy(t->grants, from->grants, from->grants_count * sizeof *t->grants);
    }
    memcpy(columns, from->columns, from->columns_count * sizeof *columns);
    def_set_topics(t, from->topics);
    return t;
}
