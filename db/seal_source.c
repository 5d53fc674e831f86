/* db/seal_source.c: hot blocks and chunks side by side, as columns of blocks. Hot blocks are used
 * where they lie; chunks are decoded into the arena of the job. */
#include <stdlib.h>
#include <string.h>

#include "db/seal.h"

#define ARENA_BLOCK_BYTES (1u << 20)

static bool add_block(struct db__seal_job *job, struct db__seal_block block)
{
    if (job->blocks_count == job->blocks_capacity) {
        uint32_t capacity = job->blocks_capacity ? job->blocks_capacity * 2 : 16;
        void *blocks = realloc(job->blocks, capacity * sizeof *job->blocks);
        if (!blocks)
            return false;
        job->blocks = blocks;
        job->blocks_capacity = capacity;
    }
    block.dest = malloc(block.rows * sizeof *block.dest);
    if (!block.dest)
        return false;
    memset(block.dest, 0xff, block.rows * sizeof *block.dest);
    job->blocks[job->blocks_count++] = block;
    return true;
}

static chr_err list_blocks(struct db__seal_job *job)
{
    for (uint32_t s = 0; s < job->sets_count; s++) {
        struct db__hot_block *b = atomic_load_explicit(&job->sets[s]->first, memory_order_acquire);
        for (; b; b = atomic_load_explicit(&b->next, memory_order_acquire)) {
            uint32_t rows = atomic_load_explicit(&b->rows, memory_order_acquire);
            if (rows && !add_block(job, (struct db__seal_block){.rows = rows, .hot = b}))
                return CHR_ENOMEM;
        }
    }
    for (uint32_t c = 0; c < job->sources_count; c++) {
        struct db__chunk *chunk = job->sources[c];
        for (uint32_t row = 0; row < chunk->rows; row += DB__HOT_BLOCK_ROWS_MAX) {
            uint32_t rows = CHR_MIN(chunk->rows - row, DB__HOT_BLOCK_ROWS_MAX);
            if (!add_block(job,
                           (struct db__seal_block){.rows = rows, .chunk = chunk, .chunk_row = row}))
                return CHR_ENOMEM;
        }
    }
    return CHR_OK;
}

/* -- Hot blocks ---------------------------------------------------------------------------------*/

static void hot_column(const struct db__hot_block *b, uint16_t id, struct db__seal_column *out)
{
    int at = db__hot_column(b, id);
    if (at < 0) {
        out->absent = true;
        return;
    }
    const struct db__hot_column *c = &b->columns[at];
    if (atomic_load_explicit(&((struct db__hot_column *)c)->null_from, memory_order_acquire) !=
        UINT32_MAX)
        out->validity = (const uint64_t *)(const void *)c->validity; /* frozen: nobody writes */
    if (db_type_is_bytes(c->type)) {
        out->ends = c->ends;
        out->heap = c->heap;
    } else {
        out->data = c->data;
    }
}

static uint64_t *hot_dead(struct db__seal_sources *s, const struct db__hot_block *b, uint32_t rows,
                          uint64_t index, chr_err *err)
{
    uint64_t *bits = NULL;
    for (uint32_t r = 0; r < rows; r++) {
        uint64_t at = db__hot_deleted(b, r);
        if (at == 0 || at > index)
            continue;
        if (!bits && !(bits = CHR_ARENA_ARRAY(&s->arena, uint64_t, DB_BIT_WORDS(rows)))) {
            *err = CHR_ENOMEM;
            return NULL;
        }
        db_bit_set(bits, r);
    }
    return bits;
}

/* -- Chunks -------------------------------------------------------------------------------------*/

static void *alloc(struct db__seal_sources *s, size_t bytes)
{
    return chr_arena_alloc(&s->arena, bytes ? bytes : 1);
}

/* Copies one decoded vector to rows [at, …) of a column being put together. */
static chr_err copy_vector(struct db__seal_sources *s, const struct db_vector *v, enum db_type type,
                           uint32_t at, void *data, chr_slice *str, uint64_t *validity)
{
    for (uint32_t i = 0; i < v->count; i++) {
        if (!db_vector_valid(v, i)) {
            if (str)
                str[at + i] = (chr_slice){0};
            else if (type == DB_BOOLEAN)
                ((uint8_t *)data)[at + i] = 0;
            else
                ((int64_t *)data)[at + i] = 0;
            continue;
        }
        uint32_t from = db_vector_at(v, i);
        db_bit_set(validity, at + i);
        if (str)
            str[at + i] = v->str[from];
        else if (type == DB_BOOLEAN)
            ((uint8_t *)data)[at + i] = v->b8[from];
        else
            ((int64_t *)data)[at + i] = v->i64[from];
    }
    /* A dictionary's strings lie in the value or the column for as long as the chunk is open here;
     * one decode's heap only until the next. */
    if (!str)
        return CHR_OK;
    size_t bytes = 0;
    for (uint32_t i = 0; i < v->count; i++)
        bytes += str[at + i].len;
    uint8_t *heap = alloc(s, bytes);
    if (!heap)
        return CHR_ENOMEM;
    for (uint32_t i = 0; i < v->count; i++) {
        if (str[at + i].len)
            memcpy(heap, str[at + i].ptr, str[at + i].len);
        str[at + i].ptr = heap;
        heap += str[at + i].len;
    }
    return CHR_OK;
}

/* Rows of one column of one block of a chunk. */
static chr_err chunk_column(struct db *d, struct db__seal_sources *s,
                            const struct db__seal_block *b, uint16_t id, enum db_type type,
                            struct db__seal_column *out, struct chr_errmsg *msg)
{
    void *data = NULL;
    chr_slice *str = NULL;
    if (db_type_is_bytes(type))
        str = alloc(s, b->rows * sizeof *str);
    else
        data = alloc(s, (size_t)b->rows * (type == DB_BOOLEAN ? 1 : 8));
    uint64_t *validity = CHR_ARENA_ARRAY(&s->arena, uint64_t, DB_BIT_WORDS(b->rows));
    if ((!data && !str) || !validity)
        return CHR_ENOMEM;
    for (uint32_t row = 0; row < b->rows; row += DB_VECTOR_ROWS) {
        const struct db_vector *v;
        uint32_t block = (b->chunk_row + row) / DB_VECTOR_ROWS;
        chr_err err = db__chunk_open_decode(d, &s->open, id, block, &v, msg);
        if (err)
            return err;
        if (!v) {
            out->absent = true;
            return CHR_OK;
        }
        if (v->type != type || v->count != CHR_MIN(b->rows - row, DB_VECTOR_ROWS))
            return chr_fail(msg, CHR_ECORRUPT, "chunk %llu, column %u: another type or length",
                            (unsigned long long)b->chunk->id, id);
        err = copy_vector(s, v, type, row, data, str, validity);
        if (err)
            return err;
    }
    out->data = data;
    out->str = str;
    out->validity = validity;
    return CHR_OK;
}

static chr_err chunk_ids(struct db *d, struct db__seal_sources *s, const struct db__seal_block *b,
                         struct db__seal_ids *ids, struct chr_errmsg *msg)
{
    struct db__seal_column entry = {0}, ordinal = {0}, hlc = {0};
    chr_err err = chunk_column(d, s, b, DB_COLUMN_ENTRY, DB_INT, &entry, msg);
    if (!err)
        err = chunk_column(d, s, b, DB_COLUMN_ORDINAL, DB_INT, &ordinal, msg);
    if (!err)
        err = chunk_column(d, s, b, DB_COLUMN_HLC, DB_INT, &hlc, msg);
    if (err)
        return err;
    if (entry.absent || ordinal.absent || hlc.absent)
        return chr_fail(msg, CHR_ECORRUPT, "chunk %llu has no row ids",
                        (unsigned long long)b->chunk->id);
    uint32_t *narrow = alloc(s, b->rows * sizeof *narrow);
    if (!narrow)
        return CHR_ENOMEM;
    for (uint32_t r = 0; r < b->rows; r++)
        narrow[r] = (uint32_t)((const int64_t *)ordinal.data)[r];
    ids->entry = entry.data;
    ids->ordinal = narrow;
    ids->hlc = hlc.data;
    return CHR_OK;
}

static chr_err chunk_dead(struct db__seal_sources *s, const struct db__seal_block *b,
                          uint64_t index, uint64_t **out)
{
    uint32_t words = (uint32_t)DB_BIT_WORDS(b->chunk->rows);
    *out = NULL;
    uint64_t *all = alloc(s, words * sizeof *all);
    if (!all)
        return CHR_ENOMEM;
    if (db__marks_at(&b->chunk->marks, index, all))
        *out = all + b->chunk_row / 64; /* blocks begin on a word */
    return CHR_OK;
}

/* -- Both ---------------------------------------------------------------------------------------*/

static chr_err open_block(struct db *d, struct db__seal_sources *s, struct db__seal_job *job,
                          uint32_t at, db_kv_txn *txn, struct chr_errmsg *msg)
{
    const struct db__seal_block *b = &job->blocks[at];
    const struct db_table_def *def = job->def;
    chr_err err = CHR_OK;
    if (b->chunk && s->open.chunk != b->chunk)
        err = db__chunk_open(d, &s->open, txn, b->chunk, msg);
    for (uint32_t c = 0; c < s->columns_count && !err; c++) {
        uint16_t id = c < def->columns_count ? def->columns[c].id : DB_COLUMN_RECEIVED_AT;
        enum db_type type = c < def->columns_count ? def->columns[c].type : DB_TIMESTAMP;
        if (b->hot)
            hot_column(b->hot, id, &s->columns[c][at]);
        else
            err = chunk_column(d, s, b, id, type, &s->columns[c][at], msg);
    }
    if (err)
        return err;
    if (b->chunk) {
        err = chunk_ids(d, s, b, &s->ids[at], msg);
        return err ? err : chunk_dead(s, b, job->index, &s->dead[at]);
    }
    s->ids[at].runs = db__hot_runs(b->hot, 0, b->rows, &s->ids[at].runs_count);
    s->dead[at] = hot_dead(s, b->hot, b->rows, job->index, &err);
    return err;
}

chr_err db__seal_open(struct db *d, struct db__seal_sources *s, struct db__seal_job *job,
                      db_kv_txn *txn, struct chr_errmsg *msg)
{
    memset(s, 0, sizeof *s);
    chr_arena_init(&s->arena, ARENA_BLOCK_BYTES, 0);
    s->columns_count = (uint32_t)job->def->columns_count + 1;
    chr_err err = list_blocks(job);
    if (err)
        return err;
    s->columns = CHR_ARENA_ARRAY(&s->arena, struct db__seal_column *, s->columns_count);
    s->ids = CHR_ARENA_ARRAY(&s->arena, struct db__seal_ids, job->blocks_count + 1);
    s->dead = CHR_ARENA_ARRAY(&s->arena, uint64_t *, job->blocks_count + 1);
    if (!s->columns || !s->ids || !s->dead)
        return CHR_ENOMEM;
    for (uint32_t c = 0; c < s->columns_count; c++) {
        s->columns[c] = CHR_ARENA_ARRAY(&s->arena, struct db__seal_column, job->blocks_count + 1);
        if (!s->columns[c])
            return CHR_ENOMEM;
    }
    for (uint32_t b = 0; b < job->blocks_count && !err; b++)
        err = open_block(d, s, job, b, txn, msg);
    return err;
}

void db__seal_close(struct db__seal_sources *s)
{
    db__chunk_open_free(&s->open);
    chr_arena_free(&s->arena);
}

struct db_row_id db__seal_row_id(const struct db__seal_sources *s, uint32_t block, uint32_t row,
                                 chr_hlc *hlc)
{
    const struct db__seal_ids *ids = &s->ids[block];
    if (ids->entry) {
        *hlc = ids->hlc[row];
        return (struct db_row_id){ids->entry[row], ids->ordinal[row]};
    }
    uint32_t low = 0, high = ids->runs_count; /* runs[low].row <= row */
    while (high - low > 1) {
        uint32_t mid = (low + high) / 2;
        if (ids->runs[mid].row <= row)
            low = mid;
        else
            high = mid;
    }
    *hlc = ids->runs[low].hlc;
    return (struct db_row_id){ids->runs[low].entry,
                              ids->runs[low].ordinal + (row - ids->runs[low].row)};
}
