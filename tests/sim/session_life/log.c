/* One log for all nodes: ideal, so that what goes wrong is the sessions'. */
#include <string.h>

#include "base/assert.h"
#include "broker/committer.h"
#include "broker/session/across.h"
#include "broker/session/wakeups.h"
#include "db/durable.h"
#include "db/op.h"
#include "tests/sim/session_life/world.h"

/* A node that is not heard of for so long is declared down. */
#define NODE_TIMEOUT_US INT64_C(3000000)

struct db *log_oracle(const struct world *w)
{
    return w->oracle.node.db;
}

int64_t log_time_us(const struct world *w)
{
    return chr_hlc_unix_us(w->hlc);
}

bool log_majority(const struct world *w)
{
    uint32_t running = 0;
    for (uint32_t i = 0; i < w->nodes_count; i++)
        running += life_runs(&w->nodes[i]);
    return w->leader < NODES_MAX && life_runs(&w->nodes[w->leader]) && running > w->nodes_count / 2;
}

/* ---- Entries ----------------------------------------------------------------------------------
 */

static struct life_entry *append(struct world *w, chr_slice bytes)
{
    if (w->entries_count == w->entries_max) {
        w->entries_max = w->entries_max ? w->entries_max * 2 : 1024;
        w->entries = realloc(w->entries, w->entries_max * sizeof *w->entries);
        REQUIRE(w->entries);
    }
    uint32_t by = w->leader < NODES_MAX ? w->leader : 0;
    w->hlc = chr_hlc_next(w->hlc, (uint64_t)(w->nodes[by].base.clock.wall_us / 1000));
    struct life_entry *e = &w->entries[w->entries_count++];
    *e = (struct life_entry){.hlc = w->hlc, .bytes = malloc(bytes.len + 1), .len = bytes.len};
    REQUIRE(e->bytes);
    if (bytes.len)
        memcpy(e->bytes, bytes.ptr, bytes.len);
    struct db_apply_result result = {0};
    db_apply(log_oracle(w), w->entries_count, w->hlc, bytes, &result);
    model_committed(w, w->entries_count, bytes, &result);
    w->report->entries++;
    return e;
}

bool log_commit(struct life_node *n)
{
    struct world *w = n->w;
    uint32_t first = life_below(w, SESSION_NODE_LOOPS);
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++) {
        struct chr_list *list = &n->proposals[(first + i) % SESSION_NODE_LOOPS];
        if (chr_list_empty(list))
            continue;
        struct broker_proposal *p = CHR_CONTAINER_OF(list->next, struct broker_proposal, link);
        chr_list_remove(&p->link);
        struct life_entry *e = append(w, p->bytes);
        e->node = n->i;
        e->boot = n->boot;
        e->proposal = p;
        return true;
    }
    return false;
}

bool log_commit_orphan(struct world *w)
{
    struct orphan *o = w->orphans;
    if (!o)
        return false;
    w->orphans = o->next;
    if (!w->orphans)
        w->orphans_last = NULL;
    life_say(w, "an entry of a dead process is committed: %llu",
             (unsigned long long)w->entries_count + 1);
    (void)append(w, chr_slice_of(o->bytes, o->len));
    free(o);
    return true;
}

static void keep_orphan(struct world *w, chr_slice bytes)
{
    struct orphan *o = malloc(sizeof *o + bytes.len);
    REQUIRE(o);
    *o = (struct orphan){.len = bytes.len};
    memcpy(o->bytes, bytes.ptr, bytes.len);
    if (w->orphans_last)
        w->orphans_last->next = o;
    else
        w->orphans = o;
    w->orphans_last = o;
}

void log_forget(struct life_node *n)
{
    struct world *w = n->w;
    for (uint64_t i = n->applied; i < w->entries_count; i++) {
        struct life_entry *e = &w->entries[i];
        if (e->proposal && e->node == n->i && e->boot == n->boot)
            e->proposal->done(e->proposal, CHR_ECLOSED, NULL);
        if (e->node == n->i && e->boot == n->boot)
            e->proposal = NULL;
    }
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++) {
        /* In the order they were proposed: some of them were on their way, the others were not. */
        uint32_t kept = life_below(w, 4);
        while (!chr_list_empty(&n->proposals[i])) {
            struct broker_proposal *p =
                CHR_CONTAINER_OF(n->proposals[i].next, struct broker_proposal, link);
            chr_list_remove(&p->link);
            if (kept && kept-- && w->nodes_count > 1)
                keep_orphan(w, p->bytes);
            p->done(p, CHR_ECLOSED, NULL);
        }
    }
}

void log_free(struct world *w)
{
    for (uint64_t i = 0; i < w->entries_count; i++)
        free(w->entries[i].bytes);
    free(w->entries);
    while (w->orphans) {
        struct orphan *next = w->orphans->next;
        free(w->orphans);
        w->orphans = next;
    }
}

/* ---- Applying: as broker/applier.c and broker/node.c ------------------------------------------
 */

static void apply_next(struct life_node *n)
{
    struct world *w = n->w;
    struct life_entry *e = &w->entries[n->applied++];
    struct broker_node *node = &n->base.node;
    struct db_apply_result result = {0};
    chr_slice bytes = chr_slice_of(e->bytes, e->len);
    db_apply(node->db, n->applied, e->hlc, bytes, &result);
    struct broker_proposal *p = e->node == n->i && e->boot == n->boot ? e->proposal : NULL;
    if (p) {
        e->proposal = NULL;
        p->index = n->applied;
        p->hlc = e->hlc;
        p->done(p, CHR_OK, &result);
    }
    struct across *across = across_of(node);
    if (across && !p && bytes.len)
        across_entry_applied(across, bytes, &result);
    if (node->wakeups && result.woken_count + result.wills_count + result.lost_count)
        wakeups_applied(node->wakeups, &result);
    if (across)
        across_applied(across);
}

void log_apply(struct life_node *n, uint64_t most)
{
    for (uint64_t i = 0; i < most && n->applied < n->w->entries_count; i++)
        apply_next(n);
}

/* ---- The leader -------------------------------------------------------------------------------
 */

void log_elect(struct world *w)
{
    uint32_t running = 0, chosen = NODES_MAX;
    for (uint32_t i = 0; i < w->nodes_count; i++)
        if (life_runs(&w->nodes[i]) && life_below(w, ++running) == 0)
            chosen = i;
    if (w->hours_apart)
        chosen = life_runs(&w->nodes[0]) ? 0 : NODES_MAX;
    if (running <= w->nodes_count / 2 || chosen == w->leader || chosen == NODES_MAX)
        return;
    life_say(w, "node %u leads", chosen);
    w->leader = chosen;
    w->leads_since_us = w->now_us;
    w->wills_us = w->down_us = 0;
}

struct gone {
    struct world *w;
    uint64_t node, boot;
};

static void find_gone(void *arg, uint64_t node, uint64_t boot, uint64_t connected)
{
    struct gone *g = arg;
    struct world *w = g->w;
    const struct life_node *n = &w->nodes[node - life_number(0)];
    (void)connected;
    bool silent = !n->up || n->paused_until_us > w->now_us;
    bool long_enough = w->now_us - CHR_MAX(w->leads_since_us, n->up_at_us) > NODE_TIMEOUT_US;
    if ((n->up && n->boot > boot) || (silent && long_enough)) {
        g->node = node;
        g->boot = boot;
    }
}

static void declare_down(struct world *w)
{
    struct gone gone = {.w = w};
    db_node_starts_read(w->nodes[w->leader].base.node.db, find_gone, &gone);
    if (!gone.node)
        return;
    life_say(w, "node %llu, boot %llu, is declared down by entry %llu",
             (unsigned long long)(gone.node - life_number(0)), (unsigned long long)gone.boot,
             (unsigned long long)w->entries_count + 1);
    struct db_entry entry;
    db_entry_init(&entry, 4096);
    db_entry_begin(&entry, 0, 0);
    db_entry_add_node_down(&entry, gone.node, gone.boot);
    REQUIRE(!db_entry_end(&entry));
    (void)append(w, chr_buf_slice(&entry.bytes));
    db_entry_free(&entry);
}

void log_duties(struct world *w)
{
    if (!log_majority(w))
        return;
    struct life_node *leader = &w->nodes[w->leader];
    if (leader->applied < w->entries_count)
        return;
    if (db_next_due_us(leader->base.node.db) <= leader->base.clock.wall_us)
        (void)append(w, CHR_LIT(""));
    if (w->nodes_count == 1)
        return;
    if (w->now_us - w->wills_us > 1000000) {
        wakeups_wills_look(leader->base.node.wakeups, leader->base.node.db, w->wills_us != 0);
        w->wills_us = w->now_us;
    }
    if (w->now_us - w->down_us > 500000) {
        w->down_us = w->now_us;
        declare_down(w);
    }
}

/* ---- In place of the shipped committer --------------------------------------------------------
 */

static struct life_node *node_of(const broker_committer *committer)
{
    return (struct life_node *)(uintptr_t)(const void *)committer;
}

void broker_propose_from_loop(broker_committer *committer, uint32_t loop,
                              struct broker_proposal *proposal)
{
    struct life_node *n = node_of(committer);
    if (n->dying)
        proposal->done(proposal, CHR_ECLOSED, NULL);
    else
        chr_list_push_back(&n->proposals[loop], &proposal->link);
}

void broker_committer_kick(broker_committer *committer)
{
    (void)committer;
}

chr_err broker_propose(broker_committer *committer, struct broker_proposal *proposal)
{
    broker_propose_from_loop(committer, 0, proposal);
    return CHR_OK;
}

/* A node alone, at its start. */
chr_err broker_propose_wait(broker_committer *committer, chr_slice bytes, uint32_t timeout_ms,
                            void (*copy)(void *arg, const struct db_apply_result *result),
                            void *arg)
{
    struct life_node *n = node_of(committer);
    (void)timeout_ms;
    log_apply(n, UINT64_MAX);
    const struct life_entry *e = append(n->w, bytes);
    struct db_apply_result result = {0};
    db_apply(n->base.node.db, ++n->applied, e->hlc, bytes, &result);
    if (copy)
        copy(arg, &result);
    return result.err;
}

/* What was committed before is applied when it returns. */
chr_err broker_committer_read_barrier(broker_committer *committer, uint32_t timeout_ms)
{
    struct life_node *n = node_of(committer);
    (void)timeout_ms;
    if (!log_majority(n->w))
        return CHR_ETIMEDOUT;
    log_apply(n, UINT64_MAX);
    return CHR_OK;
}

uint64_t broker_committer_leader(const broker_committer *committer)
{
    const struct world *w = node_of(committer)->w;
    return w->leader < NODES_MAX ? life_number(w->leader) : 0;
}

bool broker_committer_given_up(const broker_committer *committer)
{
    (void)committer;
    return false;
}
