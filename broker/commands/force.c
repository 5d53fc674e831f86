#include "broker/commands/force.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "base/hlc.h"
#include "base/log.h"
#include "base/random.h"
#include "broker/cluster.h"
#include "broker/commands/offline.h"
#include "broker/install.h"
#include "broker/node.h"
#include "raft/raft.h"

/* Peers connect again after 2 s at most, and a leader is heard at once then. */
#define PATIENCE_US  INT64_C(6000000)
#define PATIENCE_ELS 4 /* and so many election timeouts, when those are long */
#define LOOK_NS      50000000

/* ---- Is there a leader? -----------------------------------------------------------------------
 */

enum heard { HEARD_NOBODY, HEARD_LEADER, HEARD_ALONE };

static enum heard look(struct broker_node *node, struct cluster_member *members, uint32_t *count,
                       struct broker_cluster_status *status)
{
    *count = cluster_members(node->cluster, members, status);
    bool alone = status->peers_count == 1 && status->peers[0].member.id == members[0].node;
    return !status->leader ? HEARD_NOBODY : alone ? HEARD_ALONE : HEARD_LEADER;
}

static void warn_of(const struct cluster_member *members, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++)
        if (members[i].heard && members[i].up)
            chr_log_warning("force",
                            "this node is alive: it is left out. Stop it, and empty its data "
                            "directory before it is added again",
                            CHR_KV_C("node", members[i].name));
}

/* The node runs as ever meanwhile. */
static chr_err listen_for_leader(struct broker_node *node, bool *alone, struct chr_errmsg *msg)
{
    static struct cluster_member members[CLUSTER_MEMBERS_MAX];
    static struct broker_cluster_status status;
    const struct broker_config *config = node->config;
    const struct timespec moment = {.tv_nsec = LOOK_NS};
    uint32_t count = 0;
    int64_t elections_us = (int64_t)config->cluster.election_ms * 2000 * PATIENCE_ELS;
    int64_t until_us = chr_clock_mono_us(node->clock) + CHR_MAX(PATIENCE_US, elections_us);
    enum heard heard = HEARD_NOBODY;
    while (heard == HEARD_NOBODY && chr_clock_mono_us(node->clock) < until_us) {
        nanosleep(&moment, NULL);
        heard = look(node, members, &count, &status);
    }
    *alone = heard == HEARD_ALONE;
    if (heard == HEARD_LEADER) {
        char name[80];
        cluster_name(node->cluster, status.leader, name);
        return chr_fail(msg, CHR_EBUSY,
                        "force-new-cluster: refused: the cluster has a leader (%s), and nothing is "
                        "to be forced; start this node without it",
                        name);
    }
    if (heard == HEARD_NOBODY)
        warn_of(members, count);
    return CHR_OK;
}

/* ---- A new cluster ----------------------------------------------------------------------------
 */

static uint64_t random_id(void)
{
    uint64_t id = 0;
    while (id == 0)
        chr_random_bytes(&id, sizeof id);
    return id;
}

static chr_err fork_state(const struct broker_config *config, struct chr_errmsg *msg)
{
    struct offline o;
    chr_err err = offline_open(&o, config->data_dir, config->map_bytes, true, msg);
    uint64_t before = err ? 0 : db_apply_index(o.db);
    if (!err)
        err = offline_apply(&o, raft_log_last(o.log), msg);
    if (!err)
        err = offline_checkpoint(&o, msg);
    uint64_t index = err ? 0 : db_durable_index(o.db);
    if (!err && index != db_apply_index(o.db))
        err = chr_fail(msg, CHR_EIO, "the checkpoint does not hold all that was applied");
    if (!err) {
        const struct raft_log_base base = {
            .term = raft_log_term_of(o.log, index),
            .hlc = CHR_MAX(o.recovery.last_hlc, db_replicated_time(o.db)),
            .hard_state = o.recovery.hard_state};
        struct data_dir next = o.dir;
        next.cluster = random_id();
        next.incarnation = random_id();
        next.log_parent = raft_log_incarnation(o.log);
        next.log_fork = index;
        next.boot = o.dir.boot + 2; /* not below the start that puts it in place */
        next.founders.count = 1;
        next.founders.items[0] = (struct raft_member){next.node, next.incarnation, true};
        next.members.count = next.peers_count = 0;
        next.members_index = next.members_term = 0;
        err = install_fork(config->data_dir, &next, index, &base, msg);
        if (!err)
            chr_log_warning("force",
                            "a new cluster of this node alone: its state is that of its own log, "
                            "uncommitted entries included",
                            CHR_KV_U("cluster", next.cluster), CHR_KV_U("entry", index),
                            CHR_KV_U("perhaps_uncommitted", index - before));
    }
    offline_close(&o);
    return err;
}

/* Of the directory, without starting anything. */
static chr_err check_dir(const struct broker_config *config, struct chr_errmsg *msg)
{
    struct data_dir dir;
    chr_err err = data_dir_open(config->data_dir, false, &dir, msg);
    if (err)
        return err;
    if (dir.node == 1 || !dir.cluster)
        err =
            chr_fail(msg, CHR_EINVAL, "force-new-cluster: %s is not that of a member of a cluster",
                     config->data_dir);
    data_dir_close(&dir);
    return err;
}

chr_err force_new_cluster(const struct broker_config *config, struct chr_errmsg *msg)
{
    struct broker_node *node = NULL;
    bool alone = false;
    chr_err err = check_dir(config, msg);
    if (err)
        return err;
    chr_log_warning("force",
                    "--force-new-cluster: this node is to go on WITHOUT the others, as a new "
                    "cluster. Whatever only they have is LOST, acknowledged readings among it. "
                    "None of them may come back with its old data directory. Listening for a "
                    "leader first");
    err = node_start(config, chr_clock_system(), &node, msg);
    if (err)
        return err;
    err = listen_for_leader(node, &alone, msg);
    node_stop(node);
    node_free(node);
    if (err)
        return err;
    if (alone) {
        chr_log_notice("force", "this node is a cluster of one already: nothing is forced; take "
                                "--force-new-cluster out of its settings");
        return CHR_OK;
    }
    return fork_state(config, msg);
}
