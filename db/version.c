/* db/version.c: counted, immutable descriptions of where all rows are. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/internal.h"

static void retain(_Atomic uint32_t *refs)
{
    atomic_fetch_add_explicit(refs, 1, memory_order_relaxed);
}

static bool release(_Atomic uint32_t *refs)
{
    uint32_t before = atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel);
    CHR_ASSERT(before > 0);
    return before == 1;
}

void db__chunk_retain(struct db__chunk *chunk)
{
    retain(&chunk->refs);
}

void db__chunk_release(struct db__chunk *chunk)
{
    if (!chunk || !release(&chunk->refs))
        return;
    free((void *)chunk->min_series.ptr);
    free((void *)chunk->max_series.ptr);
    db__marks_free(&chunk->marks);
    free(chunk);
}

struct db__chunk_list *db__chunk_list_new(struct db__chunk *const *chunks, uint32_t count)
{
    struct db__chunk_list *list =
        db__must_malloc(sizeof *list + count * sizeof(struct db__chunk *));
    list->refs = 1;
    list->count = count;
    for (uint32_t i = 0; i < count; i++) {
        list->chunks[i] = chunks[i];
        db__chunk_retain(chunks[i]);
    }
    return list;
}

void db__chunk_list_retain(struct db__chunk_list *list)
{
    if (list)
        retain(&list->refs);
}

void db__chunk_list_release(struct db__chunk_list *list)
{
    if (!list || !release(&list->refs))
        return;
    for (uint32_t i = 0; i < list->count; i++)
        db__chunk_release(list->chunks[i]);
    free(list);
}

struct db__view *db__view_new(uint32_t table_id, struct db__chunk_list *chunks,
                              struct db__hot_set *const *hot, uint32_t hot_count)
{
    CHR_ASSERT(hot_count > 0);
    struct db__view *v = db__must_malloc(sizeof *v + hot_count * sizeof(struct db__hot_set *));
    v->refs = 1;
    v->table_id = table_id;
    v->chunks = chunks;
    db__chunk_list_retain(chunks);
    v->hot_count = hot_count;
    for (uint32_t i = 0; i < hot_count; i++) {
        v->hot[i] = hot[i];
        db__hot_set_retain(hot[i]);
    }
    return v;
}

void db__view_release(struct db__view *view)
{
    if (!view || !release(&view->refs))
        return;
    db__chunk_list_release(view->chunks);
    for (uint32_t i = 0; i < view->hot_count; i++)
        db__hot_set_release(view->hot[i]);
    free(view);
}

struct db__version *db__version_new(const struct db *d)
{
    struct db__version *v =
        db__must_malloc(sizeof *v + d->tables_count * sizeof(struct db__view *));
    v->refs = 1;
    v->catalog = d->catalog;
    db_catalog_retain(d->catalog);
    v->count = d->tables_count;
    for (size_t i = 0; i < v->count; i++) {
        v->views[i] = d->tables[i]->view;
        retain(&v->views[i]->refs);
    }
    return v;
}

void db__version_release(struct db__version *version)
{
    if (!version || !release(&version->refs))
        return;
    for (size_t i = 0; i < version->count; i++)
        db__view_release(version->views[i]);
    db_catalog_release(version->catalog);
    free(version);
}

const struct db__view *db__version_find(const struct db__version *version, uint32_t table_id)
{
    size_t low = 0, high = version->count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (version->views[mid]->table_id == table_id)
            return version->views[mid];
        if (version->views[mid]->table_id < table_id)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

void db__publish(struct db *d, uint64_t index, chr_hlc hlc, struct db__version *version)
{
    pthread_mutex_lock(&d->pin_lock);
    struct db__version *old = version ? d->version : NULL;
    if (version)
        d->version = version;
    d->pin_index = index;
    d->pin_hlc = hlc;
    pthread_mutex_unlock(&d->pin_lock);
    if (version) {
        atomic_store_explicit(&d->catalog_version, db_catalog_version(version->catalog),
                              memory_order_release);
        atomic_store_explicit(&d->mapping_version, db_catalog_mapping_version(version->catalog),
                              memory_order_release);
    }
    atomic_store_explicit(&d->hlc, hlc, memory_order_release);
    atomic_store_explicit(&d->apply_index, index, memory_order_release);
    db__version_release(old);
}

uint64_t db__pinned_index(struct db *d)
{
    pthread_mutex_lock(&d->pin_lock);
    uint64_t index = d->pin_index;
    if (!chr_list_empty(&d->reads))
        index = CHR_CONTAINER_OF(d->reads.next, struct db_read, node)->index;
    pthread_mutex_unlock(&d->pin_lock);
    return index;
}

chr_err db_read_begin(db *d, db_read **out)
{
    struct db_read *read = malloc(sizeof *read);
    *out = read;
    if (!read)
        return CHR_ENOMEM;
    read->d = d;
    pthread_mutex_lock(&d->pin_lock);
    read->version = d->version;
    retain(&read->version->refs);
    read->index = d->pin_index;
    read->hlc = d->pin_hlc;
    chr_list_push_back(&d->reads, &read->node); /* indexes only rise: the list is in order */
    pthread_mutex_unlock(&d->pin_lock);
    return CHR_OK;
}

void db_read_end(db_read *read)
{
    if (!read)
        return;
    pthread_mutex_lock(&read->d->pin_lock);
    chr_list_remove(&read->node);
    pthread_mutex_unlock(&read->d->pin_lock);
    db__version_release(read->version);
    free(read);
}

uint64_t db_read_index(const db_read *read)
{
    return read->index;
}

int64_t db_read_time_us(const db_read *read)
{
    return chr_hlc_unix_us(read->hlc);
}

const db_catalog *db_read_catalog(const db_read *read)
{
    return read->version->catalog;
}

const db_catalog *db_catalog_acquire(db *d)
{
    pthread_mutex_lock(&d->pin_lock);
    const db_catalog *catalog = d->version->catalog;
    db_catalog_retain(catalog);
    pthread_mutex_unlock(&d->pin_lock);
    return catalog;
}
