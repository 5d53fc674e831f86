/* broker/ingest/mappings.c: all templates of one catalog. */
#include <stdlib.h>

#include "broker/ingest/internal.h"

/* A bound against a catalog of ten thousand wide tables; an ordinary one takes kilobytes. */
#define MAPPINGS_BYTES_MAX ((size_t)1 << 30)
#define MAPPINGS_BLOCK     8192

chr_err ingest__mappings_of_tables(const struct db_table_def *const *tables, uint32_t tables_count,
                                   uint64_t version, ingest_mappings **out)
{
    ingest_mappings *m = calloc(1, sizeof *m);
    if (!m)
        return CHR_ENOMEM;
    atomic_init(&m->references, 1);
    m->version = version;
    chr_arena_init(&m->arena, MAPPINGS_BLOCK, MAPPINGS_BYTES_MAX);
    size_t templates = 0;
    for (uint32_t i = 0; i < tables_count; i++)
        templates += tables[i]->topics_count;
    chr_err err = CHR_ENOMEM;
    m->tables = CHR_ARENA_ARRAY(&m->arena, const struct db_table_def *, tables_count + 1);
    m->plans = CHR_ARENA_ARRAY(&m->arena, struct ingest_plan, templates + 1);
    if (!m->tables || !m->plans)
        goto fail;
    for (uint32_t i = 0; i < tables_count; i++) {
        if (tables[i]->system)
            continue;
        uint32_t slot = m->tables_count++;
        m->tables[slot] = tables[i];
        for (uint16_t t = 0; t < tables[i]->topics_count; t++) {
            err = ingest__plan_compile(&m->arena, tables[i], slot, t, &m->plans[m->plans_count]);
            if (err)
                goto fail;
            m->plans_count++;
        }
    }
    qsort(m->plans, m->plans_count, sizeof *m->plans, ingest__plan_compare);
    *out = m;
    return CHR_OK;
fail:
    ingest_mappings_release(m);
    return err;
}

chr_err ingest_mappings_compile(const db_catalog *catalog, ingest_mappings **out)
{
    uint32_t count = (uint32_t)db_catalog_tables_count(catalog);
    const struct db_table_def **tables = calloc((size_t)count + 1, sizeof *tables);
    if (!tables)
        return CHR_ENOMEM;
    for (uint32_t i = 0; i < count; i++)
        tables[i] = db_catalog_table_at(catalog, i);
    chr_err err =
        ingest__mappings_of_tables(tables, count, db_catalog_mapping_version(catalog), out);
    free(tables);
    if (!err) {
        db_catalog_retain(catalog);
        (*out)->catalog = catalog;
    }
    return err;
}

void ingest_mappings_retain(ingest_mappings *m)
{
    atomic_fetch_add_explicit(&m->references, 1, memory_order_relaxed);
}

void ingest_mappings_release(ingest_mappings *m)
{
    if (!m || atomic_fetch_sub_explicit(&m->references, 1, memory_order_acq_rel) != 1)
        return;
    if (m->catalog)
        db_catalog_release(m->catalog);
    chr_arena_free(&m->arena);
    free(m);
}

uint64_t ingest_mappings_version(const ingest_mappings *m)
{
    return m->version;
}

const db_catalog *ingest_mappings_catalog(const ingest_mappings *m)
{
    return m->catalog;
}
