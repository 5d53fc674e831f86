/* tests/sim/cluster_life/faults.c: what goes wrong. */
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

const char *const cluster_life_fault_names[CLUSTER_LIFE_FAULTS] = {
    "loss",      "lateness",    "doubling",   "breaks",  "cuts",     "crashes", "blackouts",
    "stops",     "pauses",      "slow-disks", "full",    "bad",      "stores",  "clocks",
    "transfers", "checkpoints", "wipes",      "changes", "stumbles",
};

static void black_out(struct world *w)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (w->nodes[id].up) {
            w->report->power_cuts++;
            life__kill(w, &w->nodes[id], true, 1000 + (int64_t)below(w, 500000));
        }
}

static void crash(struct world *w, struct node *n)
{
    bool power = chance(w, 600);
    if (!n || !n->up)
        return;
    w->report->kills += !power;
    w->report->power_cuts += power;
    life__kill(w, n, power, 1000 + (int64_t)below(w, chance(w, 200) ? 3000000 : 300000));
}

static void wall_clock(struct world *w, struct node *n)
{
    w->report->jumps++;
    if (w->profile->tables || chance(w, 100)) /* an hour, of which nothing may expire early */
        n->wall_offset += chance(w, 500) ? INT64_C(3600000000) : INT64_C(-3600000000);
    else
        n->wall_offset = (int64_t)below(w, 4000000) - 2000000;
}

static void fill_disk(struct world *w, struct node *n)
{
    n->disk.faults.capacity = fake_disk_used(&n->disk) + below(w, 8192);
    n->sick_until = w->now + 50000 + (int64_t)below(w, 2500000);
}

static void spoil_disk(struct world *w, struct node *n)
{
    struct fake_disk_faults *f = &n->disk.faults;
    if (chance(w, 500))
        f->sync_eio = 3000;
    else if (chance(w, 500))
        f->write_eio = 1000;
    else
        f->write_enospc = 3000;
    n->sick_until = w->now + (int64_t)below(w, 500000);
}

static void spoil_store(struct world *w, struct node *n)
{
    struct fake_kv_faults *f = fake_kv_faults(n->store);
    uint64_t at = fake_kv_commits(n->store) + 1 + below(w, 4);
    switch (below(w, 3)) {
    case 0:
        f->enospc_at = at;
        break;
    case 1:
        f->eio_at = at;
        break;
    default:
        f->crash_at = at;
    }
}

/* What is wrong with a disk does not stay so. */
static void recover(struct world *w)
{
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (n->exists && n->sick_until <= w->now)
            n->disk.faults = (struct fake_disk_faults){.garbage = n->disk.faults.garbage};
        if (n->in_doubt && n->up && chance(w, 300)) /* its operator starts it again */
            crash(w, n);
    }
}

static void strike(struct world *w, enum cluster_life_fault kind, struct node *n)
{
    switch (kind) {
    case CLUSTER_LIFE_BLACKOUTS:
        black_out(w);
        break;
    case CLUSTER_LIFE_CRASHES:
        crash(w, chance(w, 500) ? n : life__leader(w));
        break;
    case CLUSTER_LIFE_STOPS:
        life__stop(w, n);
        break;
    case CLUSTER_LIFE_PAUSES:
        w->report->pauses++;
        n->paused_until = w->now + (int64_t)below(w, 1500000);
        break;
    case CLUSTER_LIFE_CUTS:
        life__cut_network(w);
        break;
    case CLUSTER_LIFE_BREAKS:
        life__break(w, n->id, 1 + below(w, NODES_MAX), PEERS_BULK);
        break;
    case CLUSTER_LIFE_SLOW_DISKS:
        n->disk_us = 200 + (int64_t)below(w, chance(w, 200) ? 300000 : 20000);
        n->store_us = 200 + (int64_t)below(w, chance(w, 200) ? 300000 : 20000);
        break;
    case CLUSTER_LIFE_FULL_DISKS:
        fill_disk(w, n);
        break;
    case CLUSTER_LIFE_BAD_DISKS:
        spoil_disk(w, n);
        break;
    case CLUSTER_LIFE_STORES:
        spoil_store(w, n);
        break;
    case CLUSTER_LIFE_CLOCKS:
        wall_clock(w, n);
        break;
    case CLUSTER_LIFE_WIPES:
        life__wipe(w, n);
        break;
    default: /* what was cut comes back */
        life__heal_network(w);
    }
}

void life__fault(struct world *w)
{
    static const enum cluster_life_fault kinds[] = {
        CLUSTER_LIFE_BLACKOUTS, CLUSTER_LIFE_CRASHES,    CLUSTER_LIFE_CRASHES,
        CLUSTER_LIFE_STOPS,     CLUSTER_LIFE_PAUSES,     CLUSTER_LIFE_CUTS,
        CLUSTER_LIFE_CUTS,      CLUSTER_LIFE_FAULTS,     CLUSTER_LIFE_FAULTS,
        CLUSTER_LIFE_BREAKS,    CLUSTER_LIFE_SLOW_DISKS, CLUSTER_LIFE_FULL_DISKS,
        CLUSTER_LIFE_BAD_DISKS, CLUSTER_LIFE_STORES,     CLUSTER_LIFE_CLOCKS,
        CLUSTER_LIFE_WIPES};
    struct node *n = &w->nodes[1 + below(w, w->voters)];
    enum cluster_life_fault kind = kinds[below(w, CHR_COUNT_OF(kinds))];
    w->next_fault = w->now + 20000 + (int64_t)below(w, chance(w, 500) ? 150000 : 900000);
    recover(w);
    if ((w->profile->eights || w->profile->comebacks) && chance(w, 850))
        return; /* leaders have enough to bear */
    if (w->profile->restarts && chance(w, 400))
        kind = CLUSTER_LIFE_CRASHES;
    if (w->profile->crowds && chance(w, 700) && !(w->options->without >> CLUSTER_LIFE_CUTS & 1)) {
        life__mute_leader(w);
        return;
    }
    if (w->profile->roams && chance(w, 700) && !(w->options->without >> CLUSTER_LIFE_CUTS & 1)) {
        life__hold_up_a_follower(w);
        return;
    }
    if (n->exists && !(w->options->without >> kind & 1))
        strike(w, kind, n);
}
