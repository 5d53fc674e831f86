/* raft/log_index.c: what memory knows of the log: one entry per ~64 KiB of records, the runs of
 * equal terms, the truncations whose dead entries are still in a file. Callers hold the lock. */
#include <string.h>

#include "raft/log_internal.h"

struct raft__segment *raft__segment_by_id(const raft_log *log, uint64_t id)
{
    if (log->segments.count == 0 || id < log->segments.items[0]->id)
        return NULL;
    uint64_t i = id - log->segments.items[0]->id;
    return i < log->segments.count ? log->segments.items[i] : NULL;
}

bool raft__index_reserve(raft_log *log, size_t entries)
{
    return CHR_ARRAY_RESERVE(&log->sparse, entries) && CHR_ARRAY_RESERVE(&log->terms, entries);
}

bool raft__index_add(raft_log *log, const struct raft__record *record, raft__pos pos)
{
    if (!raft__index_reserve(log, 1))
        return false;
    /* The first entry of a segment is always in: a cut must leave a way to what remains. */
    const struct raft__sparse *last =
        log->sparse.count ? &log->sparse.items[log->sparse.count - 1] : NULL;
    if (!last || log->sparse_bytes >= RAFT__INDEX_EVERY ||
        raft__pos_segment(last->pos) != raft__pos_segment(pos)) {
        log->sparse.items[log->sparse.count++] =
            (struct raft__sparse){.index = record->index, .hlc = record->hlc, .pos = pos};
        log->sparse_bytes = 0;
    }
    log->sparse_bytes += raft__record_space(record->body.len);
    if (log->terms.count == 0 || log->terms.items[log->terms.count - 1].term != record->term)
        log->terms.items[log->terms.count++] =
            (struct raft_term_run){.first_index = record->index, .term = record->term};
    return true;
}

bool raft__index_truncate(raft_log *log, const struct raft__record *record, raft__pos pos)
{
    if (!CHR_ARRAY_RESERVE(&log->cuts, 1))
        return false;
    log->cuts.items[log->cuts.count++] = (struct raft__cut){.pos = pos, .index = record->index};
    while (log->sparse.count && log->sparse.items[log->sparse.count - 1].index > record->index)
        log->sparse.count--;
    /* The next entry gets a sparse entry of its own: between it and the one before lie dead ones.
     */
    log->sparse_bytes = RAFT__INDEX_EVERY;
    while (log->terms.count && log->terms.items[log->terms.count - 1].first_index > record->index)
        log->terms.count--;
    return true;
}

void raft__lower_first(raft_log *log, const struct raft__record *record)
{
    for (size_t i = log->segments.count; i-- > 0;) {
        struct raft__segment *segment = log->segments.items[i];
        if (segment->first_index <= record->index + 1)
            break; /* they rise */
        segment->first_index = record->index + 1;
        segment->base_term = record->term;
        segment->base_hlc = record->hlc;
    }
}

/* Drops the first n items. */
#define DROP_FIRST(array, n)                                                                       \
    do {                                                                                           \
        if ((n) > 0) {                                                                             \
            (array)->count -= (n);                                                                 \
            memmove((array)->items, (array)->items + (n),                                          \
                    (array)->count * sizeof *(array)->items);                                      \
        }                                                                                          \
    } while (0)

void raft__index_cut(raft_log *log)
{
    const struct raft__segment *first = log->segments.items[0];
    size_t n = 0;
    while (n < log->sparse.count && raft__pos_segment(log->sparse.items[n].pos) < first->id)
        n++;
    DROP_FIRST(&log->sparse, n);
    n = 0; /* the run that holds first_index stays */
    while (n + 1 < log->terms.count && log->terms.items[n + 1].first_index <= first->first_index)
        n++;
    DROP_FIRST(&log->terms, n);
    n = 0;
    while (n < log->cuts.count && raft__pos_segment(log->cuts.items[n].pos) < first->id)
        n++;
    DROP_FIRST(&log->cuts, n);
}

bool raft__is_dead(const raft_log *log, uint64_t index, raft__pos pos)
{
    for (size_t i = log->cuts.count; i-- > 0 && log->cuts.items[i].pos > pos;)
        if (index > log->cuts.items[i].index)
            return true;
    return false;
}

const struct raft__sparse *raft__index_seek(const raft_log *log, uint64_t index)
{
    size_t low = 0, high = log->sparse.count; /* the answer is in [low - 1, high - 1] */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (log->sparse.items[mid].index <= index)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? &log->sparse.items[low - 1] : NULL;
}

uint64_t raft__index_term(const raft_log *log, uint64_t index)
{
    size_t low = 0, high = log->terms.count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (log->terms.items[mid].first_index <= index)
            low = mid + 1;
        else
            high = mid;
    }
    return low ? log->terms.items[low - 1].term : 0;
}
