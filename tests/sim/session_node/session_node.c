#include "tests/sim/session_node/session_node.h"

#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "broker/auth/auth.h"
#include "broker/cluster.h"
#include "broker/query_pool.h"

#define pthread_create(thread, attr, run, arg) ((void)(run), 0)
#define pthread_join(thread, result)           ((void)(thread))
#define epoll_wait(fd, events, count, timeout) epoll_wait(fd, events, count, 0)
#include "broker/net/loop.c"
#undef pthread_create
#undef pthread_join
#undef epoll_wait

/* ---- Queries ----------------------------------------------------------------------------------
 */

struct query_client {
    struct session_node *node;
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
    (void)options;
    *out = calloc(1, sizeof **out);
    if (!*out)
        return CHR_ENOMEM;
    (*out)->node = (struct session_node *)(void *)pool;
    return CHR_OK;
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
    CHR_LIST_FOR_SAFE (link, next, &client->node->queries) {
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
    chr_list_push_back(&client->node->queries, &request->link);
    return CHR_OK;
}

void query_cancel(struct query_request *request)
{
    atomic_store(&request->cancelled, true);
}

bool session_node_answer_query(struct session_node *n, uint32_t parts)
{
    if (chr_list_empty(&n->queries))
        return false;
    struct query_request *r = CHR_CONTAINER_OF(n->queries.next, struct query_request, link);
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

void session_node_config(struct session_node *n)
{
    memset(n, 0, sizeof *n);
    chr_list_init(&n->queries);
    fake_clock_init(&n->clock, INT64_C(1700000000000000), INT64_C(1000000000));
    broker_config_default(&n->config);
    n->config.loops = SESSION_NODE_LOOPS;
    n->config.allow_anonymous = true;
    n->config.max_connections = 64;
    n->config.batches_per_loop = 4;
    n->config.batch_bytes_max = 64 << 10;
    n->config.batch_rows_max = 64;
    n->config.receive_maximum = 20;
    n->config.max_inflight_messages = 5;
    n->config.max_queued_messages = 20;
    n->config.max_queued_bytes = 64 << 10;
    n->config.max_packet_size = 64 << 10;
    n->config.max_output_bytes = 256 << 10;
    n->config.topic_aliases_sent = 3;
    n->config.topic_alias_maximum = 8;
    n->config.max_retained_messages = 8;
    n->config.max_subscriptions_per_client = 16;
    n->fake = fake_kv_new(1);
    REQUIRE(n->fake);
    fake_kv_faults(n->fake)->no_poison = true;
}

/* One for all nodes and runs: it has threads, which are slow to make, and nobody logs in by
 * password. Its clock is the system's, which nothing here depends on. */
static struct authority *authority_of_all(const struct broker_config *config)
{
    static struct authority *authority;
    struct chr_errmsg msg = {{0}};
    struct auth *auth;
    if (authority)
        return authority;
    REQUIRE(!auth_load(config, &auth, &msg));
    REQUIRE(!authority_new(auth, chr_clock_system(), 0, &authority));
    return authority;
}

void session_node_open(struct session_node *n)
{
    struct broker_node *node = &n->node;
    struct chr_errmsg msg = {{0}};
    node->kv = fake_kv_seam(n->fake);
    node->config = &n->config;
    node->clock = &n->clock.clock;
    n->listener = (struct listener){.config = &n->config.listeners[0]};
    node->listeners = &n->listener;
    node->listeners_count = 1;
    node->queries = (struct query_pool *)(void *)n;
    struct db_options options;
    db_options_default(&options);
    REQUIRE(!db_open(&node->kv, &options, &node->db, &msg));
    node->authority = authority_of_all(&n->config);
}

void session_node_start(struct session_node *n)
{
    struct chr_errmsg msg = {{0}};
    n->node.started_wall_us = n->clock.wall_us;
    REQUIRE(!session_node_init(&n->node));
    n->node.loops = n->loops;
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++) {
        REQUIRE(!loop_start(&n->node, i, &n->loops[i], &msg));
        n->node.loops_count++;
    }
}

void session_node_turn(struct session_node *n)
{
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        turn(n->loops[i]);
}

void session_node_stopping(struct session_node *n)
{
    n->node.stopping = true;
    while (session_node_answer_query(n, 0)) {
    }
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        atomic_store(&n->loops[i]->stopping, true);
}

void session_node_stop(struct session_node *n)
{
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        wind_down(n->loops[i]);
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        loop_take_last_mail(n->loops[i]);
    for (uint32_t i = 0; i < SESSION_NODE_LOOPS; i++)
        loop_free(n->loops[i]);
    n->node.loops_count = 0;
    while (session_node_answer_query(n, 0)) {
    }
    session_node_free(&n->node);
}

void session_node_close(struct session_node *n)
{
    db_close(n->node.db);
    n->node.db = NULL;
}

void session_node_adopt(struct session_node *n, unsigned loop, int fd)
{
    REQUIRE(!loop_adopt(n->loops[loop % SESSION_NODE_LOOPS], &n->listener, fd, "test"));
}
