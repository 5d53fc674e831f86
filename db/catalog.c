/* db/catalog.c: immutable, reference-counted sets of table definitions. */
#include "db/catalog.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/catalog_internal.h"

/* A definition as several catalogs share it. */
struct shared_def {
    _Atomic uint32_t refs;
    struct db_table_def *def; /* owned */
};

struct db_catalog {
    _Atomic uint32_t refs;
    uint64_t version, mapping_version;
    size_t count;
    struct shared_def **by_name; /* [count], in order of name */
    struct shared_def **by_id;   /* [count], in order of id */
};

static void shared_release(struct shared_def *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) == 1) {
        db_table_def_free(s->def);
        free(s);
    }
}

uint64_t db_catalog_version(const db_catalog *catalog)
{
    return catalog->version;
}

uint64_t db_catalog_mapping_version(const db_catalog *catalog)
{
    return catalog->mapping_version;
}

size_t db_catalog_tables_count(const db_catalog *catalog)
{
    return catalog->count;
}

const struct db_table_def *db_catalog_table_at(const db_catalog *catalog, size_t i)
{
    CHR_ASSERT(i < catalog->count);
    return catalog->by_name[i]->def;
}

const struct db_table_def *db_catalog_find(const db_catalog *catalog, chr_slice name)
{
    size_t low = 0, high = catalog->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct db_table_def *def = catalog->by_name[mid]->def;
        int c = chr_slice_cmp(name, chr_slice_cstr(def->name));
        if (c == 0)
            return def;
        if (c < 0)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

const struct db_table_def *db_catalog_find_id(const db_catalog *catalog, uint32_t id)
{
    size_t low = 0, high = catalog->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const struct db_table_def *def = catalog->by_id[mid]->def;
        if (def->id == id)
            return def;
        if (id < def->id)
            high = mid;
        else
            low = mid + 1;
    }
    return NULL;
}

void db_catalog_retain(const db_catalog *catalog)
{
    atomic_fetch_add_explicit(&((db_catalog *)catalog)->refs, 1, memory_order_relaxed);
}

void db_catalog_release(const db_catalog *catalog)
{
    db_catalog *c = (db_catalog *)catalog;
    if (!c || atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < c->count; i++)
        shared_release(c->by_name[i]);
    free(c->by_name);
    free(c->by_id);
    free(c);
}

/* -- Making catalogs ----------------------------------------------------------------------------*/

static db_catalog *catalog_alloc(size_t room, uint64_t version, uint64_t mapping_version)
{
    db_catalog *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->refs = 1;
    c->version = version;
    c->mapping_version = mapping_version;
    c->by_name = calloc(room + 1, sizeof *c->by_name);
    c->by_id = calloc(room + 1, sizeof *c->by_id);
    if (!c->by_name || !c->by_id) {
        db_catalog_release(c);
        return NULL;
    }
    return c;
}

db_catalog *db__catalog_new(uint64_t version, uint64_t mapping_version)
{
    return catalog_alloc(0, version, mapping_version);
}

/* Takes a reference of `s` and puts it where it belongs. */
static void catalog_insert(db_catalog *c, struct shared_def *s)
{
    size_t n = c->count++, i = n;
    for (; i > 0 && strcmp(c->by_name[i - 1]->def->name, s->def->name) > 0; i--)
        c->by_name[i] = c->by_name[i - 1];
    c->by_name[i] = s;
    for (i = n; i > 0 && c->by_id[i - 1]->def->id > s->def->id; i--)
        c->by_id[i] = c->by_id[i - 1];
    c->by_id[i] = s;
}

/* Both arrays of `from` less one table: order is kept, so this is a copy, not an insertion sort. */
static void catalog_copy(db_catalog *to, const db_catalog *from, uint32_t without_id)
{
    size_t n = 0, m = 0;
    for (size_t i = 0; i < from->count; i++) {
        if (from->by_name[i]->def->id != without_id) {
            atomic_fetch_add_explicit(&from->by_name[i]->refs, 1, memory_order_relaxed);
            to->by_name[n++] = from->by_name[i];
        }
        if (from->by_id[i]->def->id != without_id)
            to->by_id[m++] = from->by_id[i];
    }
    CHR_ASSERT(n == m);
    to->count = n;
}

db_catalog *db__catalog_with(const db_catalog *from, struct db_table_def *def, uint64_t version,
                             uint64_t mapping_version)
{
    struct shared_def *s = malloc(sizeof *s);
    db_catalog *c = catalog_alloc(from->count + 1, version, mapping_version);
    if (!s || !c) {
        free(s);
        db_catalog_release(c);
        db_table_def_free(def);
        return NULL;
    }
    *s = (struct shared_def){.refs = 1, .def = def};
    catalog_copy(c, from, def->id);
    catalog_insert(c, s);
    return c;
}

db_catalog *db__catalog_without(const db_catalog *from, uint32_t id, uint64_t version,
                                uint64_t mapping_version)
{
    db_catalog *c = catalog_alloc(from->count, version, mapping_version);
    if (c)
        catalog_copy(c, from, id);
    return c;
}

/* -- Tables out of the box ----------------------------------------------------------------------*/

struct builtin_column {
    const char *name;
    enum db_type type;
};

static const struct builtin_column readings_columns[] = {
    {"reading_id", DB_STRING}, {"device_id", DB_STRING}, {"ts", DB_TIMESTAMP},
    {"seq", DB_INT},           {"metric", DB_STRING},    {"value", DB_FLOAT},
};
static const char *const readings_topics[] = {"sensors/{device_id}/{metric}",
                                              "sensors/{device_id}"};

static const struct builtin_column rejects_columns[] = {
    {"reject_table", DB_STRING}, {"topic", DB_STRING},          {"payload", DB_BLOB},
    {"reason", DB_STRING},       {"received_at", DB_TIMESTAMP},
};

static struct db_table_def *builtin(uint32_t id, const char *name, bool system,
                                    const struct builtin_column *columns, uint16_t columns_count,
                                    const char *const *topics, uint16_t topics_count)
{
    struct db_column_def defs[8] = {0};
    CHR_ASSERT(columns_count <= CHR_COUNT_OF(defs));
    for (uint16_t i = 0; i < columns_count; i++) {
        defs[i].type = columns[i].type;
        memcpy(defs[i].name, columns[i].name, strlen(columns[i].name) + 1);
    }
    struct db_table_def t = {.id = id,
                             .schema_version = 1,
                             .system = system,
                             .columns_count = columns_count,
                             .columns = defs,
                             .topics_count = topics_count,
                             .topics = (char **)(void *)topics};
    memcpy(t.name, name, strlen(name) + 1);
    struct chr_errmsg msg;
    chr_err err = db_table_def_complete(&t, &msg);
    CHR_ASSERT(err == CHR_OK);
    return db__table_def_copy(&t);
}

db_catalog *db__catalog_builtin(void)
{
    db_catalog *empty = db__catalog_new(1, 1);
    struct db_table_def *readings =
        builtin(DB__TABLE_ID_READINGS, "readings", false, readings_columns,
                CHR_COUNT_OF(readings_columns), readings_topics, CHR_COUNT_OF(readings_topics));
    struct db_table_def *rejects = builtin(DB__TABLE_ID_REJECTS, "chronos_rejects", true,
                                           rejects_columns, CHR_COUNT_OF(rejects_columns), NULL, 0);
    db_catalog *one = NULL, *two = NULL;
    if (empty && readings && rejects) {
        one = db__catalog_with(empty, readings, 1, 1);
        readings = NULL;
        if (one) {
            two = db__catalog_with(one, rejects, 1, 1);
            rejects = NULL;
        }
    }
    db_table_def_free(readings);
    db_table_def_free(rejects);
    db_catalog_release(empty);
    db_catalog_release(one);
    return two;
}
