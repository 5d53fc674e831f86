/* tests/sim/cluster_life/network.c: bridge/peers.h without sockets: the linker finds these
 * functions before the library's.
 *
 * Each lane from one node to another is a connection: up or not, by itself. It ends when either
 * process does, when its link is cut and something was to go through, or for no reason; then all
 * that is on its way is lost, and it comes up again later. What goes on BULK comes in order. On
 * CONTROL messages are lost, late, out of order and doubled besides, which is more than the real
 * lanes do, and less than Raft bears. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

#define MESSAGE_COST 128u
/* As shipped: well above what a committer keeps of a peer's messages until they are committed. */
#define WINDOW_BYTES (16u << 20)

static struct connection *link_of(struct world *w, uint64_t from, uint64_t to, enum peers_lane lane)
{
    return &w->links[from][to][lane];
}

/* ---- Up and down ------------------------------------------------------------------------------
 */

static void tell_lane(struct node *n, enum peers_lane lane)
{
    n->lanes[lane].news = true;
    life__wake(&n->lanes[lane], true);
}

static void drop_packets(struct world *w, uint64_t from, uint64_t to, enum peers_lane lane)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->packets_count; i++) {
        struct packet *p = &w->packets[i];
        if (p->from == from && p->to == to && p->lane == lane)
            free(p->bytes);
        else
            w->packets[kept++] = *p;
    }
    w->packets_count = kept;
}

static void go_down(struct world *w, uint64_t from, uint64_t to, enum peers_lane lane)
{
    struct connection *c = link_of(w, from, to, lane);
    drop_packets(w, from, to, lane);
    c->up = false;
    c->outstanding = 0;
    c->full = false;
    c->retry_at = w->now + 2000 + (int64_t)below(w, chance(w, 200) ? 500000 : 40000);
}

void life__break(struct world *w, uint64_t from, uint64_t to, enum peers_lane lane)
{
    if (!link_of(w, from, to, lane)->up)
        return;
    w->report->breaks++;
    go_down(w, from, to, lane);
}

void life__disconnect(struct world *w, struct node *n)
{
    for (uint64_t id = 1; id <= NODES_MAX; id++)
        for (int lane = 0; lane < PEERS_LANES; lane++) {
            go_down(w, id, n->id, (enum peers_lane)lane);
            go_down(w, n->id, id, (enum peers_lane)lane);
        }
    for (int lane = 0; lane < PEERS_LANES; lane++)
        n->lanes[lane] = (struct lane){0};
}

static bool may_connect(const struct world *w, uint64_t from, uint64_t to)
{
    return from != to && w->nodes[from].serving && w->nodes[to].serving && !w->cut[from][to];
}

int64_t life__next_connect(struct world *w)
{
    int64_t at = NEVER;
    for (uint64_t from = 1; from <= NODES_MAX; from++)
        for (uint64_t to = 1; to <= NODES_MAX; to++)
            for (int lane = 0; lane < PEERS_LANES && may_connect(w, from, to); lane++) {
                const struct connection *c = &w->links[from][to][lane];
                at = CHR_MIN(at, !c->up ? c->retry_at : c->full ? c->room_at : NEVER);
            }
    return at;
}

void life__connect(struct world *w)
{
    for (uint64_t from = 1; from <= NODES_MAX; from++)
        for (uint64_t to = 1; to <= NODES_MAX; to++)
            for (int lane = 0; lane < PEERS_LANES && may_connect(w, from, to); lane++) {
                struct connection *c = &w->links[from][to][lane];
                if (c->up ? !c->full || c->room_at > w->now : c->retry_at > w->now)
                    continue;
                if (!c->up)
                    c->last_at = w->now;
                c->up = true;
                c->full = false;
                tell_lane(&w->nodes[from], (enum peers_lane)lane);
            }
}

/* ---- Cuts -------------------------------------------------------------------------------------
 */

void life__heal_network(struct world *w)
{
    memset(w->cut, 0, sizeof w->cut);
    w->heal_at = NEVER;
}

static void cut_halves(struct world *w)
{
    uint64_t side = chr_random_u64(&w->random);
    for (uint32_t a = 1; a <= NODES_MAX; a++)
        for (uint32_t b = 1; b <= NODES_MAX; b++)
            w->cut[a][b] = (side >> a & 1) != (side >> b & 1);
}

/* Hears and is not heard, or the other way round. */
static void cut_one_way(struct world *w, uint64_t id, bool hears)
{
    for (uint32_t other = 1; other <= NODES_MAX; other++)
        w->cut[hears ? id : other][hears ? other : id] = true;
}

void life__mute(struct world *w, const struct node *n)
{
    life__heal_network(w);
    w->report->cuts++;
    cut_one_way(w, n->id, true);
}

/* It hears the leader, and is not heard by it. */
void life__hold_up_a_follower(struct world *w)
{
    const struct node *leader = life__leader(w);
    uint64_t id = 1 + below(w, w->voters);
    life__heal_network(w);
    if (!leader || leader->id == id)
        return;
    w->report->cuts++;
    w->cut[id][leader->id] = true;
    w->heal_at = w->now + 200000 + (int64_t)below(w, 900000);
}

void life__mute_leader(struct world *w)
{
    const struct node *leader = life__leader(w);
    life__heal_network(w);
    if (!leader)
        return;
    life__mute(w, leader);
    w->heal_at = w->now + 20000 + (int64_t)below(w, 300000);
}

void life__cut_network(struct world *w)
{
    const struct node *leader = life__leader(w);
    uint64_t id = leader && chance(w, 500) ? leader->id : 1 + below(w, NODES_MAX);
    w->report->cuts++;
    life__heal_network(w);
    switch (below(w, 5)) {
    case 0:
        cut_halves(w);
        break;
    case 1:
        cut_one_way(w, id, chance(w, 500));
        break;
    case 2: /* alone */
        cut_one_way(w, id, true);
        cut_one_way(w, id, false);
        break;
    case 3: { /* two that don't hear each other; the rest hears both */
        uint64_t other = 1 + below(w, w->voters);
        w->cut[id][other] = w->cut[other][id] = true;
        break;
    }
    default:
        for (uint32_t i = 0; i < NODES_MAX; i++)
            w->cut[1 + below(w, NODES_MAX)][1 + below(w, NODES_MAX)] = true;
    }
}

/* ---- On the way -------------------------------------------------------------------------------
 */

static void put_on_the_way(struct world *w, struct packet p, int64_t delay_us)
{
    p.at = w->now + delay_us;
    if (p.lane == PEERS_BULK) {
        struct connection *c = link_of(w, p.from, p.to, p.lane);
        p.at = c->last_at = CHR_MAX(c->last_at + 1, p.at);
    }
    w->packets =
        life__grow(w->packets, &w->packets_capacity, w->packets_count + 1, sizeof *w->packets);
    w->packets[w->packets_count++] = p;
}

static void transmit(struct world *w, struct packet p)
{
    int64_t delay = 60 + (int64_t)below(w, 600);
    w->report->messages++;
    if (p.lane == PEERS_CONTROL) {
        if (goes_wrong(w, CLUSTER_LIFE_LOSS, 20)) {
            w->report->lost++;
            link_of(w, p.from, p.to, p.lane)->outstanding -= p.len + MESSAGE_COST;
            free(p.bytes);
            return;
        }
        if (goes_wrong(w, CLUSTER_LIFE_LATENESS, 30))
            delay += (int64_t)below(w, chance(w, 200) ? 1500000 : 150000);
        if (goes_wrong(w, CLUSTER_LIFE_DOUBLING, 20)) {
            struct packet twin = p;
            twin.bytes = malloc(p.len + 1);
            CHR_ASSERT(twin.bytes);
            memcpy(twin.bytes, p.bytes, p.len);
            link_of(w, p.from, p.to, p.lane)->outstanding += p.len + MESSAGE_COST;
            put_on_the_way(w, twin, delay + (int64_t)below(w, 300000));
            w->report->doubled++;
        }
    } else if (goes_wrong(w, CLUSTER_LIFE_LATENESS, 10)) {
        delay += (int64_t)below(w, 100000);
    }
    put_on_the_way(w, p, delay);
    if (goes_wrong(w, CLUSTER_LIFE_BREAKS, w->profile->breaks ? 20 : 1))
        life__break(w, p.from, p.to, p.lane);
}

/* The message is the process's, and goes with it. */
static void hand_to_lane(struct node *n, const struct packet *p)
{
    struct peers_message *m = malloc(sizeof *m + p->len);
    CHR_ASSERT(m);
    life__memory_add(&n->memory, m);
    uint8_t *bytes = (uint8_t *)(m + 1);
    memcpy(bytes, p->bytes, p->len);
    *m = (struct peers_message){.from = p->from,
                                .lane = p->lane,
                                .kind = p->kind,
                                .bytes = chr_slice_of(bytes, p->len),
                                .cost = p->len + MESSAGE_COST};
    struct lane *lane = &n->lanes[p->lane];
    if (lane->last)
        lane->last->next = m;
    else
        lane->first = m;
    lane->last = m;
    life__wake(lane, true);
}

void life__arrive(struct world *w, size_t packet)
{
    struct packet p = w->packets[packet];
    memmove(w->packets + packet, w->packets + packet + 1,
            (--w->packets_count - packet) * sizeof *w->packets);
    if (w->cut[p.from][p.to]) {
        w->report->lost++;
        life__break(w, p.from, p.to, p.lane);
    } else {
        hand_to_lane(&w->nodes[p.to], &p);
    }
    free(p.bytes);
}

/* ---- The thread of a lane ---------------------------------------------------------------------
 */

struct lane_thread {
    struct node *node;
    enum peers_lane lane;
};

static void received(struct node *n, struct peers_message *m)
{
    if (m->kind == PEERS_SNAPSHOT || m->kind == PEERS_SNAPSHOT_REPLY)
        life__snapshot_received(n, m);
    else
        broker_committer_received(n->committer, m);
}

static struct peers_message *take_message(struct lane *lane)
{
    struct peers_message *m = lane->first;
    lane->first = m->next;
    if (!lane->first)
        lane->last = NULL;
    m->next = NULL;
    return m;
}

static void *lane_main(void *arg)
{
    struct lane_thread *t = arg;
    struct node *n = t->node;
    struct lane *lane = &n->lanes[t->lane];
    while (!lane->stop) {
        if (lane->first) {
            received(n, take_message(lane));
        } else if (lane->news) {
            lane->news = false;
            broker_committer_lane(n->committer);
        } else {
            life__block(lane, NEVER);
        }
    }
    return NULL;
}

void life__lanes_start(struct node *n)
{
    static struct lane_thread threads[NODES_MAX + 1][PEERS_LANES];
    for (int lane = 0; lane < PEERS_LANES; lane++) {
        threads[n->id][lane] = (struct lane_thread){n, (enum peers_lane)lane};
        n->lanes[lane].thread = life__spawn(n, "lane", lane_main, &threads[n->id][lane]);
    }
}

/* As peers_stop: nothing comes in any more. */
void life__lanes_stop(struct node *n)
{
    for (int lane = 0; lane < PEERS_LANES; lane++) {
        n->lanes[lane].stop = true;
        life__wake(&n->lanes[lane], true);
        while (!life__ended(n->lanes[lane].thread))
            life__block(n->lanes[lane].thread, NEVER);
    }
    for (int lane = 0; lane < PEERS_LANES; lane++)
        while (n->lanes[lane].first)
            peers_release(&n->peers, take_message(&n->lanes[lane]));
    life__disconnect(life__world, n);
}

/* ---- bridge/peers.h ---------------------------------------------------------------------------
 */

/* For its window (T1), or for what else fills it. */
static bool is_full(struct world *w, struct connection *c, size_t cost)
{
    if (c->outstanding && c->outstanding + cost > WINDOW_BYTES) {
        c->full = true;
        c->room_at = NEVER; /* when something is released */
    } else if (w->profile->narrow && goes_wrong(w, CLUSTER_LIFE_LATENESS, 100)) {
        c->full = true;
        c->room_at = w->now + 100 + (int64_t)below(w, 30000);
    }
    return c->full;
}

chr_err peers_send(struct peers *peers, uint64_t node, enum peers_lane lane, uint8_t kind,
                   const chr_slice *parts, uint32_t parts_count)
{
    struct world *w = life__world;
    struct node *n = peers->node;
    if (node == 0 || node > NODES_MAX || node == n->id)
        return CHR_ENOTFOUND;
    const struct broker_committer *committer = n->committer;
    if (kind == PEERS_RAFT && committer &&
        (committer->hard_state.term != n->hard_state.term ||
         committer->hard_state.vote != n->hard_state.vote))
        (void)life__broken(w, "node %llu speaks of term %llu before its disk knows of it",
                           (unsigned long long)n->id,
                           (unsigned long long)committer->hard_state.term);
    life__breathe();
    struct connection *c = link_of(w, n->id, node, lane);
    if (!c->up)
        return CHR_ECLOSED;
    size_t len = 0;
    for (uint32_t i = 0; i < parts_count; i++)
        len += parts[i].len;
    if (len + MESSAGE_COST > PEERS_MESSAGE_BYTES_MAX)
        return CHR_ETOOBIG;
    if (c->full || is_full(w, c, len + MESSAGE_COST))
        return CHR_EAGAIN;
    life__leave();
    struct packet p = {.from = n->id, .to = node, .lane = lane, .kind = kind, .len = len};
    p.bytes = malloc(len + 1);
    CHR_ASSERT(p.bytes);
    for (size_t i = 0, at = 0; i < parts_count; at += parts[i++].len)
        if (parts[i].len)
            memcpy(p.bytes + at, parts[i].ptr, parts[i].len);
    c->outstanding += len + MESSAGE_COST;
    transmit(w, p);
    life__enter();
    return CHR_OK;
}

void peers_release(struct peers *peers, struct peers_message *message)
{
    struct world *w = life__world;
    struct connection *c = link_of(w, message->from, peers->node->id, message->lane);
    c->outstanding -= CHR_MIN(c->outstanding, message->cost);
    if (c->full && c->room_at == NEVER && c->outstanding < WINDOW_BYTES / 2) {
        c->full = false;
        tell_lane(&w->nodes[message->from], message->lane);
    }
    free(message);
}

bool peers_up(const struct peers *peers, uint64_t node, enum peers_lane lane)
{
    return node && node <= NODES_MAX && life__world->links[peers->node->id][node][lane].up;
}
