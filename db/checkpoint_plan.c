/* db/checkpoint_plan.c: what a checkpoint has to seal and to rewrite.
 *
 * Per table: one job for frozen rows and the tail they replace; others for chunks that are small
 * and many, or have too many marks. Chunks whose rows are all deleted or expired just go. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "db/checkpoint.h"

static struct db__job *job_add(struct db *d, struct db__table *table)
{
    struct db__checkpoint *cp = d->checkpoint;
    DB__RESERVE(cp->jobs, cp->jobs_count, cp->jobs_capacity);
    struct db__job *job = &cp->jobs[cp->jobs_count++];
    memset(job, 0, sizeof *job);
    job->table = table;
    job->seal.def = table->def; /* of the catalog that cp->read holds */
    job->seal.index = cp->read->index;
    job->seal.limit_us = db__expiry_limit(table->def, db_read_time_us(cp->read));
    return job;
}

static void job_remove(struct db__job *job, struct db__chunk *chunk)
{
    DB__RESERVE(job->removed, job->removed_count, job->removed_capacity);
    job->removed[job->removed_count++] = chunk;
    db__chunk_retain(chunk);
}

static void job_source(struct db__job *job, struct db__chunk *chunk)
{
    struct db__seal_job *s = &job->seal;
    s->sources = db__must_realloc(s->sources, (s->sources_count + 1) * sizeof *s->sources);
    s->sources[s->sources_count++] = chunk;
    db__chunk_retain(chunk);
    job_remove(job, chunk);
}

/* Nothing of the chunk is visible at the cut or later. */
static bool chunk_gone(const struct db__chunk *chunk, uint32_t marks, int64_t limit_us)
{
    bool timed = !chunk->null_times && chunk->min_time_us <= chunk->max_time_us;
    bool expired = timed && limit_us != INT64_MIN && chunk->max_time_us <= limit_us;
    return marks == chunk->rows || expired;
}

/* Few rows and not because they are so wide that no more of them fit: rewriting those would be for
 * nothing, each time. The writer fills the widest column's value to two fifths at least, when it
 * has rows enough. */
static bool chunk_small(const struct db__chunk *chunk, uint32_t rows_max)
{
    return chunk->rows < rows_max / 2 && chunk->bytes < DB_CHUNK_VALUE_BYTES_MAX / 4;
}

/* What one checkpoint may rewrite. */
struct budget {
    uint64_t rows, bytes;
};

/* The first one always is, however wide. */
static bool affordable(const struct budget *b, const struct db__chunk *chunk)
{
    return chunk->rows <= b->rows &&
           (chunk->bytes <= b->bytes || b->bytes == DB__REWRITE_BYTES_MAX);
}

/* The table's hot rows get a new active set; the old ones are what the job seals. */
static void freeze(struct db__table *table, struct db__job *job)
{
    struct db__view *view = table->view;
    if (table->active->rows) {
        struct db__hot_set **hot = db__must_malloc((view->hot_count + 1) * sizeof *hot);
        memcpy(hot, view->hot, view->hot_count * sizeof *hot);
        hot[view->hot_count] = db__hot_set_new();
        struct db__view *next = db__view_new(table->id, view->chunks, hot, view->hot_count + 1);
        db__hot_set_release(hot[view->hot_count]);
        free(hot);
        db__table_set_view(table, next);
        view = next;
    }
    struct db__seal_job *s = &job->seal;
    s->sets_count = view->hot_count - 1;
    s->sets = db__must_malloc(s->sets_count * sizeof *s->sets);
    for (uint32_t i = 0; i < s->sets_count; i++) {
        s->sets[i] = view->hot[i];
        db__hot_set_retain(view->hot[i]);
    }
}

static void plan_table(struct db *d, struct db__table *table, struct budget *budget)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct db__chunk_list *chunks = table->view->chunks;
    uint32_t rows_max = d->options.chunk_rows_max, small = 0, count = chunks ? chunks->count : 0;
    bool hot = table->active->rows || table->view->hot_count > 1;
    if (!hot && !count)
        return;
    struct db__job *main = NULL, *other = NULL;
    size_t main_at = SIZE_MAX, other_at = SIZE_MAX;
    if (hot) {
        main = job_add(d, table);
        main_at = cp->jobs_count - 1;
        freeze(table, main);
    }
    for (uint32_t i = 0; i < count; i++)
        small += !chunks->chunks[i]->tail && chunk_small(chunks->chunks[i], rows_max);
    uint64_t rows = 0, bytes = 0; /* of the other job */
    for (uint32_t i = 0; i < count; i++) {
        struct db__chunk *chunk = chunks->chunks[i];
        int64_t limit_us = db__expiry_limit(table->def, db_read_time_us(cp->read));
        uint32_t marks = db__marks_count_at(&chunk->marks, cp->read->index);
        bool gone = chunk_gone(chunk, marks, limit_us);
        bool rewrite = (uint64_t)marks * DB__MARKS_PART > chunk->rows ||
                       (small >= DB__SMALL_CHUNKS_MAX && chunk_small(chunk, rows_max));
        if (chunk->left_alone && !gone)
            continue;
        if (chunk->tail && main_at != SIZE_MAX && !gone) {
            job_source(&cp->jobs[main_at], chunk);
            continue;
        }
        if (!gone && (!rewrite || !affordable(budget, chunk)))
            continue;
        /* At most two chunks' worth a job: all of it is decoded at once. */
        if (other_at == SIZE_MAX || (!gone && (rows + chunk->rows > 2 * (uint64_t)rows_max ||
                                               bytes + chunk->bytes > DB__JOB_BYTES_MAX))) {
            other = job_add(d, table);
            other_at = cp->jobs_count - 1;
            rows = bytes = 0;
        }
        other = &cp->jobs[other_at];
        if (gone) {
            job_remove(other, chunk);
        } else {
            job_source(other, chunk);
            rows += chunk->rows;
            bytes += chunk->bytes;
            budget->rows -= chunk->rows;
            budget->bytes -= CHR_MIN(chunk->bytes, budget->bytes);
        }
    }
}

chr_err db__checkpoint_plan(struct db *d)
{
    struct db__checkpoint *cp = d->checkpoint;
    struct budget budget = {.rows = (uint64_t)d->options.chunk_rows_max * DB__REWRITE_CHUNKS_MAX,
                            .bytes = DB__REWRITE_BYTES_MAX};
    chr_err err = db_read_begin(d, &cp->read);
    if (err)
        return err;
    for (size_t i = 0; i < d->tables_count; i++)
        plan_table(d, d->tables[i], &budget);
    db__publish(d, d->pin_index, d->pin_hlc, db__version_new(d));
    return CHR_OK;
}
