/* tests/fuzz/session_node.h: loops, sessions and database of a node, in one thread.
 *
 * loop.c is compiled in here, without its threads and without sleeping; its turns are called. In
 * place of the committer proposals wait in a list until they are applied, in order, to the real
 * database on a store in memory; in place of the query pool requests wait until they are answered.
 * The linker finds these functions before those of the library. Time stands until it is moved. */
#ifndef CHR_TESTS_FUZZ_SESSION_NODE_H
#define CHR_TESTS_FUZZ_SESSION_NODE_H

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hlc.h"
#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/cluster.h"
#include "broker/committer.h"
#include "broker/config.h"
#include "broker/query_pool.h"
#include "broker/session/wakeups.h"
#include "tests/sim/fake_clock.h"
#include "tests/sim/fake_kv.h"

#define pthread_create(thread, attr, run, arg) ((void)(run), 0)
#define pthread_join(thread, result)           ((void)(thread))
#define epoll_wait(fd, events, count, timeout) epoll_wait(fd, events, count, 0)
#include "broker/net/loop.c"
#undef pthread_create
#undef pthread_join
#undef epoll_wait

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#define LOOPS 2

static struct {
    struct broker_config config;
    struct fake_clock clock;
    fake_kv *fake;
    struct broker_node node;
    struct broker_loop *loops[LOOPS];
    struct listener listener;
    struct chr_list proposals; /* broker_proposal.link */
    bool apply_at_once;
    uint64_t index;
    chr_hlc hlc;
    struct chr_list queries; /* query_request.link */
} n;

/* ---- The log ----------------------------------------------------------------------------------
 */

static void apply_bytes(chr_slice bytes, struct db_apply_result *result)
{
    n.index++;
    n.hlc = chr_hlc_next(n.hlc, (uint64_t)(n.clock.wall_us / 1000));
    *result = (struct db_apply_result){0};
    db_apply(n.node.db, n.index, n.hlc, bytes, result);
}

static void tell(const struct db_apply_result *result)
{
    if (result->woken_count + result->wills_count + result->lost_count && n.node.wakeups)
        wakeups_applied(n.node.wakeups, result);
}

/* The oldest proposal. False: there is none. */
static bool node_apply_one(void)
{
    if (chr_list_empty(&n.proposals))
        return false;
    struct broker_proposal *p = CHR_CONTAINER_OF(n.proposals.next, struct broker_proposal, link);
    chr_list_remove(&p->link);
    struct db_apply_result result;
    apply_bytes(p->bytes, &result);
    p->index = n.index;
    p->hlc = n.hlc;
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
    chr_list_push_back(&n.proposals, &proposal->link);
}

void broker_committer_kick(broker_committer *committer)
{
    (void)committer;
    if (n.apply_at_once)
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

/* ---- Queries ----------------------------------------------------------------------------------
 */

struct query_client {
    uint32_t requests;
    bool closed;
};

static void query_client_gone(struct query_client *client)
{
    if (client->closed && client->requests == 0)
        free(client);
}

chr_err query_client_new(struct query_pool *pool, const struct query_client_options *options,
                         struct query_client **out)
{
    (void)pool, (void)options;
    *out = calloc(1, sizeof **out);
    return *out ? CHR_OK : CHR_ENOMEM;
}

void query_client_finish(struct query_client *client)
{
    if (!client)
        return;
    client->closed = true;
    query_client_gone(client);
}

void query_client_close(struct query_client *client)
{
    if (!client)
        return;
    CHR_LIST_FOR_SAFE (link, next, &n.queries) {
        struct query_request *r = CHR_CONTAINER_OF(link, struct query_request, link);
        if (r->client == client)
            query_cancel(r);
    }
    query_client_finish(client);
}

chr_err query_submit(struct query_client *client, struct query_request *request)
{
    request->client = client;
    request->error = NULL;
    atomic_init(&request->cancelled, false);
    client->requests++;
    chr_list_push_back(&n.queries, &request->link);
    return CHR_OK;
}

void query_cancel(struct query_request *request)
{
    atomic_store(&request->cancelled, true);
}

/* The oldest request; parts: how many parts its answer has, 0: an error. False: there is none. */
static bool node_answer_query(uint32_t parts)
{
    if (chr_list_empty(&n.queries))
        return false;
    struct query_request *r = CHR_CONTAINER_OF(n.queries.next, struct query_request, link);
    struct query_client *client = r->client;
    chr_list_remove(&r->link);
    struct query_outcome outcome = {0};
    if (atomic_load(&r->cancelled) || parts == 0) {
        outcome.err = atomic_load(&r->cancelled) ? CHR_ECANCELLED : CHR_EINVAL;
        strcpy(outcome.error.sqlstate, "57014");
        strcpy(outcome.error.message, "no");
        r->error = &outcome.error;
        struct sql_part part = {.bytes = CHR_LIT("{\"error\":1}"), .part = 1, .last = true};
        part.error = true;
        (void)!r->emit(r, &part);
    }
    for (uint32_t i = 1; !outcome.err && i <= parts; i++) {
        struct sql_part part = {.bytes = CHR_LIT("{\"rows\":[]}"),
                                .part = i,
                                .last = i == parts,
                                .split = parts > 1,
                                .format = SQL_FORMAT_JSON};
        outcome.err = r->emit(r, &part);
    }
    r->done(r, &outcome);
    client->requests--;
    query_client_gone(client);
    return true;
}

struct query_credit {
    _Atomic uint32_t refs;
};

struct query_credit *query_credit_new(uint64_t bytes_max)
{
    (void)bytes_max;
    struct query_credit *credit = calloc(1, sizeof *credit);
    if (credit)
        credit->refs = 1;
    return credit;
}

void query_credit_ref(struct query_credit *credit)
{
    credit->refs++;
}

void query_credit_unref(struct query_credit *credit)
{
    if (credit && --credit->refs == 0)
        free(credit);
}

chr_err query_credit_take(struct query_credit *credit, struct query_request *request,
                          uint64_t bytes, uint32_t stall_ms)
{
    (void)credit, (void)request, (void)bytes, (void)stall_ms;
    return CHR_OK;
}

void query_credit_give(struct query_credit *credit, uint64_t bytes)
{
    (void)credit, (void)bytes;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static void node_begin(void)
{
    memset(&n, 0, sizeof n);
    chr_list_init(&n.proposals);
    chr_list_init(&n.queries);
    fake_clock_init(&n.clock, INT64_C(1700000000000000), INT64_C(1000000000));
    broker_config_default(&n.config);
    n.config.loops = LOOPS;
    n.config.allow_anonymous = true;
    n.config.max_connections = 64;
    n.config.batches_per_loop = 4;
    n.config.batch_bytes_max = 64 << 10;
    n.config.batch_rows_max = 64;
    n.config.receive_maximum = 20;
    n.config.max_inflight_messages = 5;
    n.config.max_queued_messages = 20;
    n.config.max_queued_bytes = 64 << 10;
    n.config.max_packet_size = 64 << 10;
    n.config.max_output_bytes = 256 << 10;
    n.config.topic_aliases_sent = 3;
    n.config.topic_alias_maximum = 8;
    n.config.max_retained_messages = 8;
    n.config.max_subscriptions_per_client = 16;
    struct chr_errmsg msg = {{0}};
    n.fake = fake_kv_new(1);
    fake_kv_faults(n.fake)->no_poison = true;
    n.node.kv = fake_kv_seam(n.fake);
    n.node.config = &n.config;
    n.node.clock = &n.clock.clock;
    n.listener.config = &n.config.listeners[0];
    n.node.listeners = &n.listener;
    n.node.listeners_count = 1;
    struct db_options options;
    db_options_default(&options);
    REQUIRE(!db_open(&n.node.kv, &options, &n.node.db, &msg));
    /* One for all runs: it has threads, which are slow to make, and nobody logs in by password. */
    static struct authority *authority;
    if (!authority) {
        struct auth *auth;
        REQUIRE(!auth_load(&n.config, &auth, &msg));
        REQUIRE(!authority_new(auth, n.node.clock, 0, &authority));
    }
    n.node.authority = authority;
    REQUIRE(!session_node_init(&n.node));
    n.node.loops = n.loops;
    for (uint32_t i = 0; i < LOOPS; i++) {
        REQUIRE(!loop_start(&n.node, i, &n.loops[i], &msg));
        n.node.loops_count++;
    }
}

static void node_turn(void)
{
    for (uint32_t i = 0; i < LOOPS; i++)
        turn(n.loops[i]);
}

static void node_end(void)
{
    n.apply_at_once = true;
    n.node.stopping = true;
    while (node_answer_query(0)) {
    }
    for (uint32_t i = 0; i < LOOPS; i++)
        atomic_store(&n.loops[i]->stopping, true);
    node_apply_all();
    for (uint32_t i = 0; i < LOOPS; i++)
        wind_down(n.loops[i]);
    for (uint32_t i = 0; i < LOOPS; i++)
        loop_take_last_mail(n.loops[i]);
    for (uint32_t i = 0; i < LOOPS; i++)
        loop_free(n.loops[i]);
    n.node.loops_count = 0;
    while (node_answer_query(0)) {
    }
    session_node_free(&n.node);
    db_close(n.node.db);
    fake_kv_free(n.fake);
}

#endif
