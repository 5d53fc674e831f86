/* tests/sim/raft_cluster/happenings.c: what happens without anything going wrong: packets arrive,
 * clients propose, logs are compacted, an operator changes the members. */
#include "tests/sim/raft_cluster/world.h"

#include <stdio.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"

static bool take_snapshot_packet(struct world *w, struct node *n, const struct packet *p)
{
    const struct snapshot *s = &p->snapshot;
    bool has = s->index <= n->raft.commit_index ||
               (s->index <= n->raft.last_index && raft_term_of(&n->raft, s->index) == s->term);
    struct packet reply = {.to = p->from, .from = n->id, .is_snapshot_reply = true, .ok = true};
    if (!has) {
        if (w->history[s->index - 1].chain != s->chain)
            return cluster__broken(w, "a snapshot of something else");
        cluster__install(w, n, s);
        if (goes_wrong(w, RAFT_CLUSTER_CRASHES, 200)) { /* before the core is told */
            cluster__crash(w, n, chance(w, 700), 1000 + (int64_t)below(w, 100000));
            return true;
        }
        if (!cluster__step(w, n,
                           (struct raft_event){.type = RAFT_EVENT_INSTALLED,
                                               .index = s->index,
                                               .log_term = s->term,
                                               .hlc = s->hlc,
                                               .members = &s->members}))
            return false;
    }
    cluster__transmit(w, reply);
    return true;
}

bool cluster__deliver(struct world *w, struct packet *p)
{
    struct node *n = &w->nodes[p->to];
    if (!n->up)
        return true;
    if (p->is_snapshot)
        return take_snapshot_packet(w, n, p);
    if (p->is_snapshot_reply) {
        n->snapshot_due[p->from] = 0;
        return cluster__step(
            w, n,
            (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = p->from, .ok = p->ok});
    }
    struct raft_entry entries[16];
    CHR_ASSERT(p->entries.count <= CHR_COUNT_OF(entries));
    for (size_t i = 0; i < p->entries.count; i++)
        entries[i] = cluster__entry_of(&p->entries.at[i]);
    p->m.entries = entries;
    p->m.entries_count = p->entries.count;
    if (w->options->verbose)
        printf("%10lld %llu ─▶ %llu: message %d term %llu index %llu/%llu commit %llu match %llu n "
               "%zu\n",
               (long long)w->now, (unsigned long long)p->from, (unsigned long long)p->to,
               (int)p->m.type, (unsigned long long)p->m.term, (unsigned long long)p->m.index,
               (unsigned long long)p->m.log_term, (unsigned long long)p->m.commit,
               (unsigned long long)p->m.match, p->entries.count);
    return cluster__step(w, n, (struct raft_event){.type = RAFT_EVENT_MESSAGE, .message = &p->m});
}

bool cluster__propose(struct world *w)
{
    struct node *n = cluster__some_node(w, !chance(w, 50));
    if (!n)
        return true;
    struct raft_entry entries[6];
    uint8_t bytes[6][64];
    size_t count = 1 + below(w, 6);
    for (size_t i = 0; i < count; i++) {
        memset(bytes[i], 0, sizeof bytes[i]);
        chr_put_u64le(bytes[i], ++w->next_number);
        entries[i] = (struct raft_entry){.type = RAFT_ENTRY_DATA,
                                         .bytes = chr_slice_of(bytes[i], 8 + below(w, 56))};
    }
    if (n->raft.role != RAFT_LEADER)
        return cluster__step(w, n,
                             (struct raft_event){.type = RAFT_EVENT_PROPOSE,
                                                 .entries = entries,
                                                 .entries_count = count});
    /* Noted before the step: alone, it may be applied within. */
    for (size_t i = 0; i < count && !n->raft.transfer_to; i++) {
        uint64_t number = w->next_number - count + 1 + i;
        w->proposals = cluster__grow(w->proposals, &w->proposals_capacity, w->proposals_count + 1,
                                     sizeof *w->proposals);
        w->proposals[w->proposals_count++] = (struct proposal){
            n->raft.last_index + 1 + i,      n->raft.term, n->id, n->boots, number,
            cluster__write_begins(w, number)};
    }
    return cluster__step(w, n,
                         (struct raft_event){.type = RAFT_EVENT_PROPOSE,
                                             .entries = entries,
                                             .entries_count = count});
}

/* Takes a snapshot of what is applied and lets the log go before it. */
bool cluster__compact(struct world *w)
{
    struct node *n = cluster__some_node(w, false);
    if (!n || n->applied <= n->snapshot.index)
        return true;
    const struct item *i = cluster__item_at(n, n->applied);
    if (!i)
        return true;
    n->snapshot = (struct snapshot){n->applied, i->term, i->hlc, n->chain, n->applied_members};
    if (n->saves_count)
        return true;
    uint64_t keep = below(w, 40);
    chr_err err = raft_log_cut_prefix(n->log, n->applied - CHR_MIN(n->applied, keep));
    if (err) {
        cluster__crash(w, n, true, 50000);
        return true;
    }
    uint64_t base = raft_log_first(n->log) - 1;
    if (base > n->entries_base) {
        size_t gone = base - n->entries_base;
        n->entries.count -= gone;
        memmove(n->entries.at, n->entries.at + gone, n->entries.count * sizeof *n->entries.at);
        n->entries_base = base;
    }
    return cluster__step(w, n, (struct raft_event){.type = RAFT_EVENT_COMPACTED, .index = base});
}

/* The operator: a wiped node is removed and comes back as a learner; spare nodes come and go. */
bool cluster__administer(struct world *w)
{
    struct node *leader = cluster__some_node(w, true);
    if (!leader)
        return true;
    struct raft_event event = {.type = RAFT_EVENT_CHANGE};
    const struct raft_members *now = raft_members_now(&leader->raft);
    uint64_t id = w->voters + 1 + below(w, 2);
    if (w->profile->changes && !w->healing)
        id = 1 + below(w, w->voters + 2);
    if (w->wiped)
        id = w->wiped;
    struct node *n = &w->nodes[id];
    const struct raft_member *m = raft_members_find(now, id);
    event.member = (struct raft_member){.id = id, .incarnation = n->incarnation};
    if (m && m->incarnation != n->incarnation)
        event.change = RAFT_CHANGE_REMOVE;
    else if (!m)
        event.change = RAFT_CHANGE_ADD_LEARNER;
    else if (!m->voter)
        event.change = RAFT_CHANGE_PROMOTE;
    else if (id > w->voters ||
             (w->profile->changes && !w->healing &&
              raft_members_voters(now) > (w->voters == 2 || chance(w, 100) ? 1 : 3)))
        event.change = RAFT_CHANGE_REMOVE;
    else {
        if (leader->raft.changes[leader->raft.changes_count - 1].index <= leader->raft.commit_index)
            w->wiped = 0; /* it is a voter again */
        return true;
    }
    if (event.change == RAFT_CHANGE_ADD_LEARNER && !n->exists) {
        n->exists = true;
        n->up_at = w->now;
    }
    uint64_t last = leader->raft.last_index;
    cluster__asked_to_change(w, leader);
    bool ok = cluster__step(w, leader, event);
    w->report->changes += leader->up && leader->raft.last_index > last;
    return ok;
}
