/* tests/sim/raft_cluster/disk_writer.c: a node's thread that writes what the core asked to save, in
 * order, each as slowly as its disk is. */
#include "tests/sim/raft_cluster/world.h"

#include <string.h>

void cluster__save_queue(struct world *w, struct node *n, struct save s)
{
    n->saves = cluster__grow(n->saves, &n->saves_capacity, n->saves_count + 1, sizeof *n->saves);
    if (n->saves_count == 0)
        n->save_due = w->now + 50 + (int64_t)below(w, (uint64_t)n->disk_us);
    n->saves[n->saves_count++] = s;
}

bool cluster__write_next(struct world *w, struct node *n)
{
    struct chr_errmsg msg = {{0}};
    struct save s = n->saves[0];
    memmove(n->saves, n->saves + 1, --n->saves_count * sizeof *n->saves);
    chr_err err = CHR_OK;
    if (s.truncate) {
        err = raft_log_truncate_suffix(n->log, s.to);
    } else {
        for (size_t i = 0; !err && i < s.entries.count; i++) {
            struct raft_entry e = cluster__entry_of(&s.entries.at[i]);
            err = raft_log_append(n->log, &e, 1);
        }
        if (!err)
            err = raft_log_sync(n->log, &msg);
    }
    uint64_t last = s.entries.count ? s.entries.at[s.entries.count - 1].index : 0;
    cluster__items_free(&s.entries);
    if (n->saves_count)
        n->save_due = w->now + 50 + (int64_t)below(w, (uint64_t)n->disk_us);
    if (err) {
        if (err != CHR_EIO && err != CHR_EDOUBT && err != CHR_ENOSPC)
            return cluster__broken(w, "node %llu: the log refused: %s", (unsigned long long)n->id,
                                   chr_strerror(err));
        cluster__crash(w, n, true, 50000);
        return true;
    }
    if (s.truncate || w->options->plant == RAFT_CLUSTER_ACKNOWLEDGE_EARLY)
        return true;
    if (s.sequence <= n->raft.valid_from)
        cluster__late_news(w);
    return cluster__step(
        w, n,
        (struct raft_event){.type = RAFT_EVENT_SAVED, .sequence = s.sequence, .saved_index = last});
}
