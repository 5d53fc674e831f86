/* tests/sim/cluster_life/readers.c: reads by broker_committer_read_barrier, on any node, and what
 * they must see: as histories of registers, each of which is linearizable by itself or not (see
 * tests/sim/raft_cluster/clients.c), and compared with what was acknowledged before. */
#include <stdlib.h>

#include "base/assert.h"
#include "tests/sim/cluster_life/world.h"

#define WORK_MAX 100000u

static struct linearizable_op *op_add(struct world *w, uint64_t key, struct linearizable_op op)
{
    struct client_ops *ops = &w->registers[key];
    ops->at = life__grow(ops->at, &ops->capacity, ops->count + 1, sizeof *ops->at);
    ops->at[ops->count] = op;
    return &ops->at[ops->count++];
}

void life__write_begins(struct world *w, struct op *op)
{
    op_add(w, op->key,
           (struct linearizable_op){.invoked = w->now,
                                    .unknown = true,
                                    .kind = LINEARIZABLE_WRITE,
                                    .argument = op->number});
    op->register_op = w->registers[op->key].count - 1;
}

void life__write_ends(struct world *w, struct op *op)
{
    struct linearizable_op *o = &w->registers[op->key].at[op->register_op];
    o->unknown = false;
    o->returned = w->now;
}

static void read_ended(struct world *w, uint64_t key, int64_t invoked, uint64_t value)
{
    w->report->reads++;
    op_add(w, key,
           (struct linearizable_op){
               .invoked = invoked, .returned = w->now, .kind = LINEARIZABLE_READ, .result = value});
}

static bool read_once(struct node *n)
{
    struct world *w = life__world;
    uint64_t key = below(w, KEYS), floor = w->acknowledged, value, index;
    int64_t invoked = w->now;
    if (w->profile->stale && goes_wrong(w, CLUSTER_LIFE_PAUSES, 300))
        life__lag(2, (int64_t)below(w, 700000)); /* between the lease, its index and the time */
    chr_err err = broker_committer_read_barrier(n->committer, 1500);
    if (err || !life__register(n, key, &value, &index))
        return true;
    life__leave();
    read_ended(w, key, invoked, value);
    life__enter();
    if (index < floor)
        return life__broken(w,
                            "H8: node %llu answers a read as of %llu, and %llu was acknowledged "
                            "before it was asked",
                            (unsigned long long)n->id, (unsigned long long)index,
                            (unsigned long long)floor);
    return true;
}

/* A write that was not answered was made before the first read that saw it returned; and when
 * nobody saw it, it may just as well never have been. */
static void settle_unanswered(struct client_ops *ops)
{
    size_t kept = 0;
    for (size_t i = 0; i < ops->count; i++) {
        struct linearizable_op o = ops->at[i];
        for (size_t r = 0; o.unknown && r < ops->count; r++)
            if (ops->at[r].kind == LINEARIZABLE_READ && ops->at[r].result == o.argument &&
                ops->at[r].returned >= o.invoked)
                o = (struct linearizable_op){.invoked = o.invoked,
                                             .returned = ops->at[r].returned,
                                             .kind = LINEARIZABLE_WRITE,
                                             .argument = o.argument};
        if (!o.unknown)
            ops->at[kept++] = o;
    }
    ops->count = kept;
}

bool life__check_clients(struct world *w)
{
    for (uint64_t key = 0; key < KEYS; key++) {
        struct client_ops *ops = &w->registers[key];
        settle_unanswered(ops);
        switch (linearizable_check(&linearizable_register, ops->at, ops->count, WORK_MAX)) {
        case LINEARIZABLE_NO:
            return life__broken(w,
                                "H8: no order of the reads and writes of register %llu explains "
                                "what they returned",
                                (unsigned long long)key);
        case LINEARIZABLE_GAVE_UP:
            w->report->undecided++;
            break;
        case LINEARIZABLE_YES:
            w->report->registers++;
        }
    }
    return true;
}

void *life__readers_main(void *arg)
{
    struct node *n = arg;
    struct world *w = life__world;
    while (!n->stopping) {
        life__sleep(500 + (int64_t)below(w, 40000) * CHR_MAX(w->profile->pace, 1u));
        if (n->stopping || (w->closing && chance(w, 900)))
            continue;
        uint32_t dice = (uint32_t)below(w, 1000);
        if (dice < 10 && !(w->options->without >> CLUSTER_LIFE_CHECKPOINTS & 1)) {
            w->report->checkpoints++;
            (void)checkpointer_request(n->checkpointer);
        } else if (dice < 14) {
            (void)life__look(n);
        } else {
            (void)read_once(n);
        }
    }
    return NULL;
}
