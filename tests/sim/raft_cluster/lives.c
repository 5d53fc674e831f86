/* tests/sim/raft_cluster/lives.c: nodes start, crash, lose their disks and get a snapshot. */
#include "tests/sim/raft_cluster/world.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"

void cluster__close_node(struct node *n)
{
    raft_log_close(n->log);
    n->log = NULL;
    raft_free(&n->raft);
    cluster__items_free(&n->entries);
    for (size_t i = 0; i < n->saves_count; i++)
        cluster__items_free(&n->saves[i].entries);
    n->saves_count = 0;
    n->reads_count = 0;
    memset(n->snapshot_due, 0, sizeof n->snapshot_due);
    n->up = false;
    n->doomed_at = INT64_MAX;
    n->reach = UINT32_MAX;
}

void cluster__crash(struct world *w, struct node *n, bool power, int64_t down_us)
{
    cluster__trace(w, n, "crashes", power, 0);
    fake_disk_off(&n->disk);
    cluster__close_node(n);
    if (power)
        fake_disk_crash(&n->disk);
    else
        fake_disk_kill(&n->disk);
    n->up_at = w->now + down_us;
    w->report->crashes++;
}

static bool read_log(struct world *w, struct node *n, struct items *changes)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 8u << 20);
    struct raft_entry entries[64];
    size_t count = 1;
    n->entries_base = raft_log_first(n->log) - 1;
    for (uint64_t next = n->entries_base + 1; count && next <= raft_log_last(n->log);
         next += count) {
        chr_buf_reset(&buf);
        if (raft_log_read(n->log, next, 1u << 20, &buf, entries, 64, &count)) {
            chr_buf_free(&buf);
            return cluster__broken(w, "node %llu can't read its log at %llu",
                                   (unsigned long long)n->id, (unsigned long long)next);
        }
        for (size_t i = 0; i < count; i++) {
            cluster__items_add(&n->entries, &entries[i]);
            if (entries[i].type == RAFT_ENTRY_CONFIG && entries[i].index > n->snapshot.index)
                cluster__items_add(changes, &entries[i]);
        }
    }
    chr_buf_free(&buf);
    return true;
}

static bool start_core(struct world *w, struct node *n, const struct raft_log_recovery *recovery)
{
    struct items changes = {0};
    if (!read_log(w, n, &changes))
        return false;
    struct raft_term_run *runs = calloc(n->entries.count + 1, sizeof *runs);
    struct raft_entry *entries = calloc(changes.count + 1, sizeof *entries);
    CHR_ASSERT(runs && entries);
    size_t runs_count = 0;
    for (size_t i = 0; i < n->entries.count; i++)
        if (runs_count == 0 || runs[runs_count - 1].term != n->entries.at[i].term)
            runs[runs_count++] =
                (struct raft_term_run){n->entries.at[i].index, n->entries.at[i].term};
    for (size_t i = 0; i < changes.count; i++)
        entries[i] = cluster__entry_of(&changes.at[i]);
    struct raft_config config = {.self = n->id,
                                 .incarnation = n->incarnation,
                                 .election_max_us = w->profile->ties ? 310000 : 0, /* of 300 */
                                 .inflight_bytes_max = 4096};
    struct raft_stored stored = {
        .hard_state = recovery->hard_state,
        .base_index = n->entries_base,
        .base_term = n->entries_base == n->snapshot.index
                         ? n->snapshot.term
                         : raft_log_term_of(n->log, n->entries_base),
        .last_index = raft_log_last(n->log),
        .last_hlc = CHR_MAX(recovery->last_hlc, n->snapshot.hlc),
        .commit_index = n->snapshot.index,
        .members = n->snapshot.members,
        .members_index = n->snapshot.index,
        .runs = runs,
        .runs_count = runs_count,
        .changes = entries,
        .changes_count = changes.count,
    };
    chr_err err = raft_init(&n->raft, &config, &stored);
    free(runs);
    free(entries);
    cluster__items_free(&changes);
    if (err)
        return cluster__broken(
            w, "node %llu can't start: %s (base %llu last %llu commit %llu)",
            (unsigned long long)n->id, chr_strerror(err), (unsigned long long)stored.base_index,
            (unsigned long long)stored.last_index, (unsigned long long)stored.commit_index);
    n->applied = n->snapshot.index;
    n->chain = n->snapshot.chain;
    n->applied_members = n->snapshot.members;
    return true;
}

bool cluster__boot(struct world *w, struct node *n)
{
    struct raft_log_options options = {.segment_bytes = SEGMENT_BYTES,
                                       .first_segment_bytes = SEGMENT_BYTES,
                                       .recycle_max = 1,
                                       .fsync = RAFT_FSYNC_BATCH,
                                       .incarnation = n->incarnation};
    struct raft_log_recovery recovery;
    struct chr_errmsg msg = {{0}};
    n->boots++;
    chr_err err =
        raft_log_open(&n->disk.io, &options, n->snapshot.index + 1, &n->log, &recovery, &msg);
    if (err)
        return cluster__broken(w, "node %llu can't open its log: %s", (unsigned long long)n->id,
                               msg.text);
    n->up = true;
    if (!start_core(w, n, &recovery))
        return false;
    cluster__trace(w, n, "starts", n->snapshot.index, n->boots);
    return cluster__step(w, n, (struct raft_event){.type = RAFT_EVENT_TICK});
}

void cluster__wipe(struct world *w, struct node *n)
{
    if (n->up)
        cluster__crash(w, n, true, (int64_t)below(w, 300000));
    fake_disk_close(&n->disk);
    fake_disk_open(&n->disk, chr_random_u64(&w->random));
    n->disk.faults.sync_lies = w->options->plant == RAFT_CLUSTER_SKIP_SYNC;
    n->snapshot = (struct snapshot){0}; /* it knows no members until a leader tells it (R20) */
    if (w->options->plant == RAFT_CLUSTER_WIPED_VOTES) {
        for (uint32_t v = 1; v <= w->voters; v++) {
            chr_err err = raft_members_add(&n->snapshot.members,
                                           (struct raft_member){v, w->nodes[v].incarnation, true});
            CHR_ASSERT(!err);
        }
    } else {
        n->incarnation = chr_random_u64(&w->random) | 1;
    }
    w->wiped = n->id;
    w->report->wipes++;
    cluster__trace(w, n, "is wiped", 0, 0);
}

void cluster__install(struct world *w, struct node *n, const struct snapshot *s)
{
    struct raft_hard_state hard_state = {n->raft.term, n->raft.vote};
    for (size_t i = 0; i < n->saves_count; i++)
        cluster__items_free(&n->saves[i].entries);
    n->saves_count = 0;
    raft_log_close(n->log);
    fake_disk_close(&n->disk);
    fake_disk_open(&n->disk, chr_random_u64(&w->random));
    n->disk.faults.sync_lies = w->options->plant == RAFT_CLUSTER_SKIP_SYNC;
    n->snapshot = *s;
    struct raft_log_options options = {.segment_bytes = SEGMENT_BYTES,
                                       .first_segment_bytes = SEGMENT_BYTES,
                                       .recycle_max = 1,
                                       .incarnation = n->incarnation};
    struct raft_log_recovery recovery;
    struct chr_errmsg msg = {{0}};
    chr_err err = raft_log_open(&n->disk.io, &options, s->index + 1, &n->log, &recovery, &msg);
    if (!err)
        err = raft_log_set_hard_state(n->log, hard_state);
    CHR_ASSERT(!err);
    n->entries.count = 0;
    n->entries_base = s->index;
    n->applied = s->index;
    n->chain = s->chain;
    n->applied_members = s->members;
    w->report->snapshots++;
    cluster__trace(w, n, "installs", s->index, s->term);
}
