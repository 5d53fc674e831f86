/* tests/sim/raft_cluster/step.c: a step of the core, and its effects carried out. */
#include "tests/sim/raft_cluster/world.h"

#include "base/assert.h"

static void send_appends(struct world *w, struct node *n, uint32_t bits)
{
    for (uint32_t slot = 0; slot < n->raft.peers_count; slot++) {
        struct raft_message m;
        uint64_t last;
        for (int burst = 0; burst < 4 && (bits >> slot & 1); burst++) {
            if (!raft_next_append(&n->raft, slot, &m, &last))
                break;
            struct packet p = {.to = m.to, .from = n->id, .m = m};
            uint64_t max = w->one_by_one && !w->healing ? 1 : 1 + below(w, 8), bytes = 0,
                     index = m.index;
            while (index < last && p.entries.count < max) {
                const struct item *i = cluster__item_at(n, index + 1);
                CHR_ASSERT(i);
                struct raft_entry e = cluster__entry_of(i);
                cluster__items_add(&p.entries, &e);
                bytes += i->len + 64;
                index++;
            }
            raft_append_sent(&n->raft, slot, index, bytes);
            cluster__transmit(w, p);
        }
    }
}

static void send_snapshots(struct world *w, struct node *n, uint32_t bits)
{
    for (uint32_t slot = 0; slot < n->raft.peers_count; slot++) {
        if (!(bits >> slot & 1))
            continue;
        uint64_t to = n->raft.peers[slot].member.id;
        CHR_ASSERT(n->snapshot.index >= n->raft.base_index);
        raft_snapshot_started(&n->raft, slot, n->snapshot.index);
        n->snapshot_due[to] = w->now + 400000;
        cluster__transmit(
            w,
            (struct packet){.to = to, .from = n->id, .is_snapshot = true, .snapshot = n->snapshot});
    }
}

bool cluster__step(struct world *w, struct node *n, struct raft_event event)
{
    event.now_us = cluster__local(w, n);
    event.wall_ms = (uint64_t)(1700000000000 + (w->now + n->wall_offset) / 1000);
    event.random = chr_random_u64(&w->random);
    struct raft_effects effects;
    chr_err err = raft_step(&n->raft, &event, &effects);
    if (err == CHR_EPROTO && w->options->plant == RAFT_CLUSTER_SOUND)
        return cluster__broken(w, "node %llu: a message contradicts what is committed",
                               (unsigned long long)n->id);
    if (effects.truncate && goes_wrong(w, RAFT_CLUSTER_SLOW_DISKS, 300)) {
        n->disk_us = 100000; /* what was taken back, and what comes instead, is long on its way */
        if (goes_wrong(w, RAFT_CLUSTER_BLACKOUTS, w->profile->slow_disks ? 300 : 1000))
            w->blackout = w->now + (int64_t)below(w, 100000);
    }
    if (effects.truncate) {
        n->entries.count = effects.truncate_to - n->entries_base;
        cluster__save_queue(w, n, (struct save){.truncate = true, .to = effects.truncate_to});
    }
    if (effects.hard_state_changed && w->options->plant != RAFT_CLUSTER_FORGET_HARD_STATE &&
        raft_log_set_hard_state(n->log, effects.hard_state)) {
        cluster__crash(w, n, true, 50000);
        return true; /* nothing of it was said */
    }
    if (effects.hard_state_changed && n->raft.vote != 0 && n->raft.vote != n->id)
        cluster__has_voted(w, n);
    if (effects.save_count) {
        struct save s = {.sequence = effects.save_sequence};
        for (size_t i = 0; i < effects.save_count; i++) {
            cluster__items_add(&s.entries, &effects.save[i]);
            cluster__items_add(&n->entries, &effects.save[i]);
        }
        cluster__save_queue(w, n, s);
    }
    for (uint32_t i = 0; i < effects.messages_count; i++)
        cluster__transmit(
            w,
            (struct packet){.to = effects.messages[i].to, .from = n->id, .m = effects.messages[i]});
    send_appends(w, n, effects.append_to);
    send_snapshots(w, n, effects.snapshot_to);
    cluster__take_read_effects(n, &effects);
    if (n->entries_base + n->entries.count != n->raft.last_index)
        return cluster__broken(w, "node %llu: the core's last entry is %llu, the log's %llu",
                               (unsigned long long)n->id, (unsigned long long)n->raft.last_index,
                               (unsigned long long)(n->entries_base + n->entries.count));
    if (w->options->plant == RAFT_CLUSTER_ACKNOWLEDGE_EARLY && effects.save_count &&
        !cluster__step(w, n,
                       (struct raft_event){.type = RAFT_EVENT_SAVED,
                                           .sequence = effects.save_sequence,
                                           .saved_index = n->raft.last_index}))
        return false;
    if ((effects.truncate || event.type == RAFT_EVENT_INSTALLED) && !cluster__check_members(w, n))
        return false;
    return cluster__check_leader(w, n) && cluster__apply(w, n, effects.commit_index) &&
           cluster__serve_reads(w, n);
}
