/* Life and death of nodes. */
#include "broker/session/across.h"
#include "tests/sim/session_life/world.h"

uint64_t life_number(uint32_t i)
{
    return 101 + i;
}

bool life_runs(const struct life_node *n)
{
    return n->up && n->paused_until_us <= n->w->now_us;
}

#define WALL_US INT64_C(1700000000000000)
#define MONO_US INT64_C(1000000000)

void life_set_clocks(struct world *w)
{
    for (uint32_t i = 0; i < w->nodes_count; i++) {
        struct fake_clock *clock = &w->nodes[i].base.clock;
        clock->wall_us = WALL_US + w->now_us + w->nodes[i].skew_us;
        clock->mono_us = MONO_US + w->now_us;
    }
}

static void queues_init(struct life_node *n)
{
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        chr_list_init(&n->proposals[i]);
}

void life_start(struct life_node *n)
{
    struct world *w = n->w;
    struct broker_node *node = &n->base.node;
    n->boot++;
    *node = (struct broker_node){.committer = (broker_committer *)(void *)n};
    if (w->nodes_count > 1) {
        node->cluster = (struct cluster *)(void *)n;
        node->peers = (struct peers *)(void *)n;
        node->dir.node = life_number(n->i);
        node->dir.boot = n->boot;
    }
    queues_init(n);
    life_set_clocks(w);
    fake_kv_reopen(n->base.fake);
    session_node_open(&n->base);
    n->applied = db_apply_index(node->db);
    if (n->applied > w->entries_count) {
        life_broken(w, "node %u has entry %llu, the log %llu", n->i, (unsigned long long)n->applied,
                    (unsigned long long)w->entries_count);
        n->applied = w->entries_count;
    }
    /* A node alone knows all that is committed; one among others what it was told. */
    uint64_t behind = w->entries_count - n->applied;
    uint64_t most = w->nodes_count > 1 ? chr_random_below(&w->random, behind + 1) : behind;
    life_say(w, "node %u starts, boot %llu, at %llu, replays %llu of %llu", n->i,
             (unsigned long long)n->boot, (unsigned long long)n->applied, (unsigned long long)most,
             (unsigned long long)behind);
    n->up = true;
    n->up_at_us = w->now_us;
    n->paused_until_us = 0;
    log_apply(n, most);
    session_node_start(&n->base);
    if (w->nodes_count > 1)
        lanes_started(n);
}

void life_kill(struct life_node *n)
{
    struct world *w = n->w;
    if (!n->up)
        return;
    life_say(w, "node %u is killed", n->i);
    w->report->kills++;
    for (uint32_t i = 0; i < w->clients_count; i++) {
        struct client *c = &w->clients[i];
        if (c->state != DOWN && c->node == n->i)
            client_lose(c, life_chance(w, 5000));
    }
    for (uint32_t i = 0; i < w->nodes_count; i++)
        lanes_cut(w, n->i, i);
    if (w->leader == n->i)
        w->leader = NODES_MAX;
    n->dying = true;
    session_node_stopping(&n->base);
    log_forget(n);
    session_node_stop(&n->base);
    session_node_close(&n->base);
    n->dying = n->up = false;
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

void life_checkpoint(struct life_node *n)
{
    struct chr_errmsg msg = {{0}};
    chr_err err = db_checkpoint(n->base.node.db, DB_CHECKPOINT_REQUEST, synced, n,
                                n->base.clock.mono_us, &msg);
    if (err)
        life_broken(n->w, "checkpoint of node %u: %s: %s", n->i, chr_strerror(err), msg.text);
    n->w->report->checkpoints++;
}
