/* db/checkpoint_swap.c: new chunks take the place of the rows they were made of.
 *
 * Under apply_lock, so between two entries: rows deleted since the cut are marked in the new chunks
 * with the index they went at, then one new version is published. Reads that pinned the old version
 * go on with the old places. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/checkpoint.h"

/* A mark set on a source row since the cut. */
struct carried {
    uint64_t index;
    uint32_t row; /* of the job's output */
};

struct carry {
    const struct db__seal_job *job;
    const struct db__seal_block *block;
    struct carried *marks;
    size_t count, capacity;
};

static void carry_add(struct carry *c, uint32_t row_in_block, uint64_t index)
{
    uint32_t row = c->block->dest[row_in_block];
    /* A row left out as expired may have been deleted since, by an entry that could not see it? No:
     * what is expired is gone for apply, too. */
    CHR_ASSERT(row != UINT32_MAX);
    DB__RESERVE(c->marks, c->count, c->capacity);
    c->marks[c->count++] = (struct carried){.index = index, .row = row};
}

static void carry_chunk_mark(void *arg, uint32_t row, uint64_t index)
{
    struct carry *c = arg;
    if (row >= c->block->chunk_row && row - c->block->chunk_row < c->block->rows)
        carry_add(c, row - c->block->chunk_row, index);
}

static int carried_cmp(const void *a, const void *b)
{
    const struct carried *x = a, *y = b;
    if (x->index != y->index)
        return x->index < y->index ? -1 : 1;
    return (x->row > y->row) - (x->row < y->row);
}

static void carry_marks(const struct db__seal_job *job)
{
    struct carry c = {.job = job};
    for (uint32_t b = 0; b < job->blocks_count; b++) {
        c.block = &job->blocks[b];
        struct db__hot_block *hot = c.block->hot;
        bool any = hot && atomic_load_explicit(&hot->deleted, memory_order_relaxed);
        for (uint32_t r = 0; any && r < c.block->rows; r++) {
            uint64_t at = db__hot_deleted(hot, r);
            if (at > job->index)
                carry_add(&c, r, at);
        }
        if (!hot)
            db__marks_each_after(&c.block->chunk->marks, job->index, carry_chunk_mark, &c);
    }
    /* Recent marks stand in order of index. */
    if (c.count)
        qsort(c.marks, c.count, sizeof *c.marks, carried_cmp);
    for (size_t i = 0; i < c.count; i++) {
        uint32_t k = job->made_count - 1;
        while (job->made_first[k] > c.marks[i].row)
            k--;
        db__marks_add(&job->made[k]->marks, c.marks[i].row - job->made_first[k], c.marks[i].index,
                      0);
    }
    for (uint32_t k = 0; k < job->made_count; k++)
        db__marks_publish(&job->made[k]->marks);
    free(c.marks);
}

static bool among(struct db__chunk *const *chunks, uint32_t count, const struct db__chunk *chunk)
{
    for (uint32_t i = 0; i < count; i++)
        if (chunks[i] == chunk)
            return true;
    return false;
}

static struct db__chunk_list *next_chunks(const struct db__job *job)
{
    const struct db__chunk_list *old = job->table->view->chunks;
    uint32_t n = 0;
    struct db__chunk **all = db__must_malloc(((old ? old->count : 0) + job->seal.made_count) *
                                             sizeof(struct db__chunk *));
    for (uint32_t i = 0; old && i < old->count; i++)
        if (!among(job->removed, job->removed_count, old->chunks[i]))
            all[n++] = old->chunks[i];
    for (uint32_t i = 0; i < job->seal.made_count; i++)
        all[n++] = job->seal.made[i]; /* ids rise: in order */
    struct db__chunk_list *list = n ? db__chunk_list_new(all, n) : NULL;
    free(all);
    return list;
}

static void swap_job(struct db *d, struct db__job *job)
{
    struct db__table *table = job->table;
    struct db__view *view = table->view;
    const struct db__seal_job *s = &job->seal;
    carry_marks(s);
    struct db__hot_set **hot = db__must_malloc(view->hot_count * sizeof *hot);
    uint32_t hot_count = 0;
    for (uint32_t i = 0; i < view->hot_count; i++) {
        bool sealed = false;
        for (uint32_t k = 0; k < s->sets_count; k++)
            sealed = sealed || s->sets[k] == view->hot[i];
        if (!sealed) {
            hot[hot_count++] = view->hot[i];
            continue;
        }
        atomic_fetch_sub_explicit(&d->hot_bytes,
                                  atomic_load_explicit(&view->hot[i]->bytes, memory_order_relaxed),
                                  memory_order_relaxed);
    }
    struct db__chunk_list *chunks = next_chunks(job);
    struct db__view *next = db__view_new(table->id, chunks, hot, hot_count);
    db__chunk_list_release(chunks);
    free(hot);
    db__table_set_view(table, next);
    for (uint32_t i = 0; i < s->made_count; i++)
        table->sealed_time_max = CHR_MAX(table->sealed_time_max, s->made[i]->max_time_us);
}

void db__checkpoint_swap(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    for (size_t j = 0; j < cp->jobs_count; j++)
        swap_job(d, &cp->jobs[j]);
    db__publish(d, d->pin_index, d->pin_hlc, db__version_new(d));
    atomic_store_explicit(&d->durable_index, cp->read->index, memory_order_release);
}
