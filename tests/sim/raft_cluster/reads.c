/* tests/sim/raft_cluster/reads.c: clients that read, and what they must see. */
#include "tests/sim/raft_cluster/world.h"

#include "base/assert.h"

static bool read_served(struct world *w, const struct node *n, const struct pending_read *r,
                        uint64_t version, const char *how)
{
    w->report->reads++;
    cluster__read_ends(w, r->key, r->asked_at, version);
    if (version < r->floor)
        return cluster__broken(
            w, "node %llu answered a read at %llu by %s, %llu was acknowledged before it",
            (unsigned long long)n->id, (unsigned long long)version, how,
            (unsigned long long)r->floor);
    return true;
}

bool cluster__serve_reads(struct world *w, struct node *n)
{
    for (uint32_t i = 0; i < n->reads_count; i++) {
        struct pending_read *r = &n->reads[i];
        if (r->kind == READ_LEASE && w->now >= r->answer_at) {
            /* R19: pinned, then the clock, then the answer. */
            if (cluster__local(w, n) < raft_lease_until_us(&n->raft)) {
                w->report->lease_reads++;
                if (!read_served(w, n, r, r->pinned, "its lease"))
                    return false;
            }
        } else if (r->kind == READ_WAITS && n->applied >= r->index) {
            if (!read_served(w, n, r, n->applied, "its index"))
                return false;
        } else {
            continue;
        }
        n->reads[i--] = n->reads[--n->reads_count];
    }
    return true;
}

void cluster__take_read_effects(struct node *n, const struct raft_effects *effects)
{
    for (uint32_t i = 0; i < n->reads_count; i++) {
        struct pending_read *r = &n->reads[i];
        if (r->kind == READ_ROUND && effects->reads_lost) {
            n->reads[i--] = n->reads[--n->reads_count];
            continue;
        }
        if (r->kind == READ_ROUND && n->raft.role == RAFT_LEADER &&
            effects->read_confirmed >= r->round)
            r->kind = READ_WAITS;
        if (r->kind == READ_ASKED && effects->read_answered >= r->number) {
            r->kind = READ_WAITS;
            r->index = effects->read_answer;
        }
    }
}

bool cluster__ask(struct world *w)
{
    struct node *n = cluster__some_node(w, chance(w, 500));
    if (!n || n->reads_count == READS_MAX)
        return true;
    struct pending_read r = {.number = ++n->read_number,
                             .floor = w->acknowledged,
                             .asked_at = w->now,
                             .key = below(w, KEYS)};
    if (w->options->plant == RAFT_CLUSTER_NO_LEASE && n->raft.role == RAFT_LEADER)
        return read_served(w, n, &r, n->applied, "its office");
    uint64_t pinned = n->applied;
    struct raft_event event = {.type = RAFT_EVENT_READ, .read_number = r.number};
    event.now_us = cluster__local(w, n);
    event.random = chr_random_u64(&w->random);
    struct raft_effects effects;
    chr_err err = raft_step(&n->raft, &event, &effects);
    CHR_ASSERT(!err);
    for (uint32_t i = 0; i < effects.messages_count; i++)
        cluster__transmit(
            w,
            (struct packet){.to = effects.messages[i].to, .from = n->id, .m = effects.messages[i]});
    r.index = effects.read_index;
    switch (effects.read) {
    case RAFT_READ_NOW:
        r.kind = pinned >= r.index ? READ_LEASE : READ_WAITS;
        r.pinned = pinned;
        /* The process may be stopped between the two. */
        r.answer_at = w->now + (chance(w, 300) ? (int64_t)below(w, 2000000) : 0);
        break;
    case RAFT_READ_ROUND:
        r.kind = READ_ROUND;
        r.round = effects.read_round;
        break;
    case RAFT_READ_ASKED:
        r.kind = READ_ASKED;
        break;
    default:
        return true;
    }
    n->reads[n->reads_count++] = r;
    cluster__take_read_effects(n, &effects);
    return cluster__serve_reads(w, n);
}
