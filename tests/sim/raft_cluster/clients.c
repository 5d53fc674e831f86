/* tests/sim/raft_cluster/clients.c: what clients did and saw, as histories of registers.
 *
 * Each entry with data is a write of its number to register number % KEYS; a read returns what the
 * register holds in the version it was served. Registers are checked one by one, which is as good
 * as checking them together, and exponentially cheaper (linearizability is local: Herlihy & Wing,
 * 1990). That says more than the comparison with what was acknowledged before the read was asked
 * (reads.c): what one client has seen, no later one may miss. */
#include "tests/sim/raft_cluster/world.h"

#include <stdlib.h>

#include "base/assert.h"

/* A thousandth of it is the rule; a disk that was slow for long, with all its writes at once, may
 * need more than anybody has: that is reported, and the comparison in reads.c still stands. */
#define WORK_MAX 100000u

static struct linearizable_op *op_add(struct world *w, uint64_t key, struct linearizable_op op)
{
    struct client_ops *ops = &w->ops[key];
    ops->at = cluster__grow(ops->at, &ops->capacity, ops->count + 1, sizeof *ops->at);
    ops->at[ops->count] = op;
    return &ops->at[ops->count++];
}

size_t cluster__write_begins(struct world *w, uint64_t number)
{
    uint64_t key = number % KEYS;
    op_add(w, key,
           (struct linearizable_op){
               .invoked = w->now, .unknown = true, .kind = LINEARIZABLE_WRITE, .argument = number});
    return w->ops[key].count - 1;
}

void cluster__write_ends(struct world *w, uint64_t number, size_t op)
{
    struct linearizable_op *o = &w->ops[number % KEYS].at[op];
    CHR_ASSERT(o->argument == number);
    o->unknown = false;
    o->returned = w->now;
}

void cluster__read_ends(struct world *w, uint64_t key, int64_t invoked, uint64_t version)
{
    uint64_t value = 0;
    for (uint64_t i = version; i > 0 && value == 0; i--)
        if (w->history[i - 1].number && w->history[i - 1].number % KEYS == key)
            value = w->history[i - 1].number;
    op_add(w, key,
           (struct linearizable_op){
               .invoked = invoked, .returned = w->now, .kind = LINEARIZABLE_READ, .result = value});
}

/* A write that was not answered was made before the first read that saw it returned; and when
 * nobody saw it, it may just as well never have been. So none without an outcome is left, which
 * would overlap with everything after it. */
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

bool cluster__check_clients(struct world *w)
{
    for (uint64_t key = 0; key < KEYS; key++) {
        struct client_ops *ops = &w->ops[key];
        cluster__read_ends(w, key, w->now, w->history_count);
        settle_unanswered(ops);
        switch (linearizable_check(&linearizable_register, ops->at, ops->count, WORK_MAX)) {
        case LINEARIZABLE_NO:
            return cluster__broken(w,
                                   "no order of the reads and writes of register %llu explains "
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
