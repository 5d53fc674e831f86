/* db/check_ids.c: no row id is there twice in a table: in two chunks, in one, in a chunk and among
 * hot rows; and no chunk holds rows that a replay of the log would add once more.
 *
 * An id is (log entry, ordinal). First the entries of the table are cut into blocks of 2^shift, and
 * the highest ordinal of each block is noted; then each id has a place in a bitmap: where its block
 * begins + entry in the block * ordinals + ordinal. For rows as they come from the log that is
 * about a bit per row. Windows of blocks are as large as the bitmap may be, and a window reads only
 * the chunks whose records say that they reach into it, so that each chunk is read once, or a few
 * times when its rows are of entries far apart. A block that does not fit the bitmap by itself (few
 * ids far between) is done by hashes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/check_internal.h"

struct ids {
    struct db__check *check;
    const struct db_table_def *def;
    const struct db__view *view;
    struct db__chunk_open open;
    uint64_t base, top; /* lowest and highest entry */
    unsigned shift;
    uint32_t blocks;
    uint32_t *ordinals; /* [blocks] highest + 1 in the block, 0: no row; saturates */
    uint64_t *begin;    /* [blocks] of the window: where in the bitmap */
    uint64_t *bits;
    uint64_t bits_words;
    uint32_t from, to; /* the window */
    struct db__hashes hashes;
    bool hashing;
    uint64_t twice;
    struct db_row_id first;
    char first_where[48];
};

/* -- Visiting all ids of a window ---------------------------------------------------------------*/

typedef chr_err (*visit_fn)(struct ids *ids, const int64_t *entry, const int64_t *ordinal,
                            uint32_t count, const struct db__chunk *chunk);

static const int64_t *flat(const struct db_vector *v, int64_t *out)
{
    if (v->form == DB_VECTOR_FLAT)
        return v->i64;
    for (uint32_t i = 0; i < v->count; i++)
        out[i] = v->i64[db_vector_at(v, i)];
    return out;
}

static chr_err visit_chunk(struct ids *ids, struct db__chunk *chunk, visit_fn visit)
{
    struct db *d = ids->check->d;
    int64_t entries[DB_VECTOR_ROWS], ordinals[DB_VECTOR_ROWS];
    db_kv_txn *txn;
    chr_err err = db__check_open(ids->check, chunk, &ids->open, &txn);
    if (err)
        return err == CHR_ECORRUPT ? CHR_OK : err;
    for (uint32_t row = 0; row < chunk->rows && !err; row += DB_VECTOR_ROWS) {
        const struct db_vector *e, *o;
        struct chr_errmsg msg;
        uint32_t block = row / DB_VECTOR_ROWS;
        err = db__chunk_open_decode(d, &ids->open, DB_COLUMN_ENTRY, block, &e, &msg);
        if (!err)
            err = db__chunk_open_decode(d, &ids->open, DB_COLUMN_ORDINAL, block, &o, &msg);
        if (!err && (!e || !o || e->count != o->count))
            err = CHR_ECORRUPT;
        if (!err)
            err = visit(ids, flat(e, entries), flat(o, ordinals), e->count, chunk);
    }
    db__check_close(ids->check, &ids->open, txn);
    return err == CHR_ECORRUPT ? CHR_OK : err; /* reported already */
}

static chr_err visit_hot(struct ids *ids, visit_fn visit)
{
    int64_t entries[DB_VECTOR_ROWS], ordinals[DB_VECTOR_ROWS];
    for (uint32_t s = 0; s < ids->view->hot_count; s++) {
        struct db__hot_block *b =
            atomic_load_explicit(&ids->view->hot[s]->first, memory_order_acquire);
        for (; b; b = atomic_load_explicit(&b->next, memory_order_acquire)) {
            uint32_t rows = db__hot_rows_at(b, ids->check->read->index);
            for (uint32_t row = 0; row < rows; row += DB_VECTOR_ROWS) {
                uint32_t count = CHR_MIN(rows - row, DB_VECTOR_ROWS);
                for (uint32_t i = 0; i < count; i++) {
                    struct db_row_id id = db__hot_row_id(b, row + i);
                    entries[i] = (int64_t)id.entry;
                    ordinals[i] = (int64_t)id.ordinal;
                }
                chr_err err = visit(ids, entries, ordinals, count, NULL);
                if (err)
                    return err;
            }
        }
    }
    return CHR_OK;
}

static chr_err visit_all(struct ids *ids, visit_fn visit)
{
    uint64_t low = ids->base + ((uint64_t)ids->from << ids->shift);
    uint64_t high = ids->base + (((uint64_t)ids->to << ids->shift) - 1);
    chr_err err = visit_hot(ids, visit);
    for (uint32_t i = 0; i < db__view_chunks(ids->view) && !err; i++) {
        struct db__chunk *chunk = ids->view->chunks->chunks[i];
        if (chunk->max_entry < low || chunk->min_entry > high)
            continue;
        err = visit_chunk(ids, chunk, visit);
        if (ids->from == 0 || chunk->min_entry >= low) /* once per chunk */
            db__check_progress(ids->check, ids->def, chunk->rows);
    }
    return err;
}

/* -- What is done with them ---------------------------------------------------------------------*/

static chr_err note_ordinals(struct ids *ids, const int64_t *entry, const int64_t *ordinal,
                             uint32_t count, const struct db__chunk *chunk)
{
    (void)chunk;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t e = (uint64_t)entry[i] - ids->base;
        if (e > ids->top - ids->base)
            continue; /* not what its record says: reported already */
        uint32_t o = (uint32_t)ordinal[i];
        uint32_t *highest = &ids->ordinals[e >> ids->shift];
        if (o >= *highest)
            *highest = o == UINT32_MAX ? o : o + 1;
    }
    return CHR_OK;
}

static void found_twice(struct ids *ids, struct db_row_id id, const struct db__chunk *chunk)
{
    if (ids->twice++)
        return;
    ids->first = id;
    if (chunk)
        snprintf(ids->first_where, sizeof ids->first_where, "in chunk %llu",
                 (unsigned long long)chunk->id);
    else
        snprintf(ids->first_where, sizeof ids->first_where, "among hot rows");
}

static chr_err mark(struct ids *ids, const int64_t *entry, const int64_t *ordinal, uint32_t count,
                    const struct db__chunk *chunk)
{
    uint64_t within = (UINT64_C(1) << ids->shift) - 1;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t e = (uint64_t)entry[i] - ids->base, block = e >> ids->shift;
        if (e > ids->top - ids->base || block < ids->from || block >= ids->to)
            continue;
        uint64_t at = ids->begin[block] + (e & within) * ids->ordinals[block];
        at += (uint32_t)ordinal[i];
        uint64_t *word = &ids->bits[at / 64], bit = UINT64_C(1) << (at % 64);
        if (CHR_UNLIKELY(*word & bit))
            found_twice(ids, (struct db_row_id){(uint64_t)entry[i], (uint32_t)ordinal[i]}, chunk);
        *word |= bit;
    }
    return CHR_OK;
}

static chr_err add_hash(struct ids *ids, const int64_t *entry, const int64_t *ordinal,
                        uint32_t count, const struct db__chunk *chunk)
{
    chr_err err = CHR_OK;
    (void)chunk;
    for (uint32_t i = 0; i < count && !err; i++) {
        uint64_t e = (uint64_t)entry[i], o = (uint32_t)ordinal[i];
        uint64_t block = (e - ids->base) >> ids->shift;
        if (e - ids->base > ids->top - ids->base || block < ids->from || block >= ids->to)
            continue;
        /* Two odd multipliers: what differs in the id differs in the pair. */
        err = db__hashes_add(&ids->hashes, (struct db__hash128){
                                               chr_hash_u64(e ^ o * UINT64_C(0x9e3779b97f4a7c15)),
                                               chr_hash_u64(o ^ e * UINT64_C(0xc2b2ae3d27d4eb4f)),
                                           });
    }
    return err;
}

/* -- Windows ------------------------------------------------------------------------------------*/

/* Places of a window from block `from` on, as far as the bitmap goes. */
static uint64_t lay_out(struct ids *ids)
{
    uint64_t bits = 0;
    for (ids->to = ids->from; ids->to < ids->blocks; ids->to++) {
        uint64_t more = (uint64_t)ids->ordinals[ids->to] << ids->shift;
        if (more > db__check_limits.id_bits - bits)
            break;
        ids->begin[ids->to] = bits;
        bits += more;
    }
    return bits;
}

static chr_err check_window(struct ids *ids)
{
    uint64_t bits = lay_out(ids);
    if (ids->to > ids->from) {
        uint64_t words = bits / 64 + 1;
        if (words > ids->bits_words) {
            free(ids->bits);
            ids->bits = malloc(words * sizeof *ids->bits);
            ids->bits_words = ids->bits ? words : 0;
            if (!ids->bits)
                return CHR_ENOMEM;
        }
        memset(ids->bits, 0, words * sizeof *ids->bits);
        return visit_all(ids, mark);
    }
    /* One block that is too sparse for the bitmap. */
    ids->to = ids->from + 1;
    bool again;
    chr_err err;
    db__hashes_begin(&ids->hashes);
    do {
        err = visit_all(ids, add_hash);
        if (!err)
            err = db__hashes_again(&ids->hashes, &again);
    } while (!err && again);
    ids->twice += ids->hashes.twice;
    return err;
}

/* Lowest and highest entry; false: no rows at all. */
static bool range(struct ids *ids)
{
    ids->base = UINT64_MAX;
    ids->top = 0;
    for (uint32_t i = 0; i < db__view_chunks(ids->view); i++) {
        const struct db__chunk *chunk = ids->view->chunks->chunks[i];
        ids->base = CHR_MIN(ids->base, chunk->min_entry);
        ids->top = CHR_MAX(ids->top, chunk->max_entry);
    }
    for (uint32_t s = 0; s < ids->view->hot_count; s++) {
        struct db__hot_block *b =
            atomic_load_explicit(&ids->view->hot[s]->first, memory_order_acquire);
        for (; b; b = atomic_load_explicit(&b->next, memory_order_acquire)) {
            uint32_t rows = db__hot_rows_at(b, ids->check->read->index);
            if (rows == 0)
                continue;
            ids->base = CHR_MIN(ids->base, db__hot_row_id(b, 0).entry);
            ids->top = CHR_MAX(ids->top, db__hot_row_id(b, rows - 1).entry);
        }
    }
    return ids->base <= ids->top;
}

/* A checkpoint holds rows of entries up to its own and no others (V1). */
static void check_beyond(struct ids *ids)
{
    uint64_t durable = db_durable_index(ids->check->d);
    for (uint32_t i = 0; i < db__view_chunks(ids->view); i++) {
        const struct db__chunk *chunk = ids->view->chunks->chunks[i];
        if (chunk->max_entry > durable)
            db__check_found(
                ids->check,
                "table \"%s\", chunk %llu: holds rows of entry %llu, but its checkpoint "
                "is of entry %llu: the log holds them, too",
                ids->def->name, (unsigned long long)chunk->id, (unsigned long long)chunk->max_entry,
                (unsigned long long)durable);
    }
}

chr_err db__check_ids(struct db__check *c, const struct db_table_def *def,
                      const struct db__view *view)
{
    struct ids ids = {.check = c, .def = def, .view = view};
    chr_err err = CHR_OK;
    if (!range(&ids))
        return CHR_OK;
    check_beyond(&ids);
    while ((ids.top - ids.base) >> ids.shift >= db__check_limits.id_blocks)
        ids.shift++;
    ids.blocks = (uint32_t)((ids.top - ids.base) >> ids.shift) + 1;
    ids.ordinals = calloc(ids.blocks, sizeof *ids.ordinals);
    ids.begin = calloc(ids.blocks, sizeof *ids.begin);
    if (!ids.ordinals || !ids.begin)
        err = CHR_ENOMEM;
    if (!err) {
        ids.to = ids.blocks;
        err = visit_all(&ids, note_ordinals);
    }
    for (ids.from = 0; ids.from < ids.blocks && !err; ids.from = ids.to)
        err = check_window(&ids);
    if (!err && ids.twice && ids.first_where[0])
        db__check_found(c,
                        "table \"%s\": %llu row ids are there more than once; the first one "
                        "(entry %llu, ordinal %u) for the second time %s",
                        def->name, (unsigned long long)ids.twice,
                        (unsigned long long)ids.first.entry, ids.first.ordinal, ids.first_where);
    else if (!err && ids.twice)
        db__check_found(c, "table \"%s\": %llu row ids are there more than once", def->name,
                        (unsigned long long)ids.twice);
    free(ids.ordinals);
    free(ids.begin);
    free(ids.bits);
    db__hashes_free(&ids.hashes);
    db__chunk_open_free(&ids.open);
    return err;
}
