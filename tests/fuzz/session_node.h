/* tests/fuzz/session_node.h: one node alone (tests/sim/session_node), its proposals in a list until
 * they are applied, in order, to its database. */
#ifndef CHR_TESTS_FUZZ_SESSION_NODE_H
#define CHR_TESTS_FUZZ_SESSION_NODE_H

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hlc.h"
#include "base/log.h"
#include "broker/cluster.h"
#include "broker/committer.h"
#include "broker/net/loop.h"
#include "broker/session/wakeups.h"
#include "tests/sim/session_node/session_node.h"

#define LOOPS SESSION_NODE_LOOPS

static struct session_node n;

/* What was proposed, and how far it was applied. */
static struct {
    struct chr_list proposals; /* broker_proposal.link */
    bool apply_at_once;
    uint64_t index;
    chr_hlc hlc;
} node_log;

static void apply_bytes(chr_slice bytes, struct db_apply_result *result)
{
    node_log.index++;
    node_log.hlc = chr_hlc_next(node_log.hlc, (uint64_t)(n.clock.wall_us / 1000));
    *result = (struct db_apply_result){0};
    db_apply(n.node.db, node_log.index, node_log.hlc, bytes, result);
}

static void tell(const struct db_apply_result *result)
{
    if (result->woken_count + result->wills_count + result->lost_count && n.node.wakeups)
        wakeups_applied(n.node.wakeups, result);
}

/* The oldest proposal. False: there is none. */
static bool node_apply_one(void)
{
    if (chr_list_empty(&node_log.proposals))
        return false;
    struct broker_proposal *p =
        CHR_CONTAINER_OF(node_log.proposals.next, struct broker_proposal, link);
    chr_list_remove(&p->link);
    struct db_apply_result result;
    apply_bytes(p->bytes, &result);
    p->index = node_log.index;
    p->hlc = node_log.hlc;
    p->done(p, CHR_OK, &result);
    tell(&result);
    return true;
}

static void node_apply_all(void)
{
    while (node_apply_one()) {
    }
}

/* What has fallen due by replicated time (R13). */
static void node_tick(void)
{
    if (db_next_due_us(n.node.db) > n.clock.wall_us)
        return;
    struct db_apply_result result;
    apply_bytes(CHR_LIT(""), &result);
    tell(&result);
}

void broker_propose_from_loop(broker_committer *committer, uint32_t loop,
                              struct broker_proposal *proposal)
{
    (void)committer, (void)loop;
    chr_list_push_back(&node_log.proposals, &proposal->link);
}

void broker_committer_kick(broker_committer *committer)
{
    (void)committer;
    if (node_log.apply_at_once)
        node_apply_all();
}

chr_err broker_propose(broker_committer *committer, struct broker_proposal *proposal)
{
    broker_propose_from_loop(committer, 0, proposal);
    broker_committer_kick(committer);
    return CHR_OK;
}

chr_err broker_propose_wait(broker_committer *committer, chr_slice bytes, uint32_t timeout_ms,
                            void (*copy)(void *arg, const struct db_apply_result *result),
                            void *arg)
{
    (void)committer, (void)timeout_ms;
    node_apply_all();
    struct db_apply_result result;
    apply_bytes(bytes, &result);
    if (copy)
        copy(arg, &result);
    tell(&result);
    return result.err;
}

/* It is a node alone. */
uint64_t broker_committer_leader(const broker_committer *committer)
{
    (void)committer;
    return 0;
}

void cluster_tell(struct cluster *cluster, enum peers_kind kind, const chr_slice *parts,
                  uint32_t parts_count)
{
    (void)cluster, (void)kind, (void)parts, (void)parts_count;
}

static void node_begin(void)
{
    memset(&node_log, 0, sizeof node_log);
    chr_list_init(&node_log.proposals);
    session_node_config(&n);
    session_node_open(&n);
    session_node_start(&n);
}

static void node_turn(void)
{
    session_node_turn(&n);
}

static void node_end(void)
{
    node_log.apply_at_once = true;
    session_node_stopping(&n);
    node_apply_all();
    session_node_stop(&n);
    session_node_close(&n);
    fake_kv_free(n.fake);
}

#endif
