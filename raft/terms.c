/* raft/terms.c: which entry has which term. Terms never fall along the log, so it is a short list
 * of runs, however long the log is. */
#include <string.h>

#include "base/array.h"
#include "raft/internal.h"

chr_err raft__terms_reserve(struct raft *raft, size_t more)
{
    bool room = chr_array_reserve((void **)&raft->runs, &raft->runs_capacity,
                                  raft->runs_count + more, sizeof *raft->runs);
    return room ? CHR_OK : CHR_ENOMEM;
}

void raft__terms_add(struct raft *raft, uint64_t index, uint64_t term)
{
    if (raft->runs_count == 0 || raft->runs[raft->runs_count - 1].term != term)
        raft->runs[raft->runs_count++] = (struct raft_term_run){index, term};
}

void raft__terms_truncate(struct raft *raft, uint64_t last_index)
{
    while (raft->runs_count && raft->runs[raft->runs_count - 1].first_index > last_index)
        raft->runs_count--;
}

void raft__terms_compact(struct raft *raft, uint64_t base_index)
{
    if (base_index >= raft->last_index) {
        raft->runs_count = 0;
        return;
    }
    size_t gone = 0; /* runs that end at or below base_index */
    while (gone + 1 < raft->runs_count && raft->runs[gone + 1].first_index <= base_index + 1)
        gone++;
    raft->runs_count -= gone;
    memmove(raft->runs, raft->runs + gone, raft->runs_count * sizeof *raft->runs);
    raft->runs[0].first_index = base_index + 1;
}

static size_t run_of(const struct raft *raft, uint64_t index)
{
    size_t low = 0, high = raft->runs_count; /* the last run that begins at or before index */
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (raft->runs[middle].first_index <= index)
            low = middle;
        else
            high = middle;
    }
    return low;
}

uint64_t raft_term_of(const struct raft *raft, uint64_t index)
{
    if (index == raft->base_index)
        return raft->base_term;
    if (index < raft->base_index || index > raft->last_index || raft->runs_count == 0)
        return 0;
    return raft->runs[run_of(raft, index)].term;
}

uint64_t raft__terms_last_at_most(const struct raft *raft, uint64_t index, uint64_t term)
{
    index = CHR_MIN(index, raft->last_index);
    if (index <= raft->base_index || raft->runs_count == 0)
        return CHR_MIN(index, raft->base_index);
    size_t i = run_of(raft, index);
    if (raft->runs[i].term <= term)
        return index;
    while (i > 0 && raft->runs[i - 1].term > term)
        i--;
    return raft->runs[i].first_index - 1;
}
