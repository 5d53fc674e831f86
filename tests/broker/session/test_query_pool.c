/* The worker pool: every request is done once, in its client's order, whatever is closed meanwhile;
 * credit: bounded, given back, cancelled, timed out. Requests hold no statement, so nothing below
 * is asked. */
#include <pthread.h>
#include <unistd.h>

#include "broker/query_pool.h"
#include "tests/broker/session/kit.h"

struct probe {
    struct query_request request;
    _Atomic int done;
    chr_err err;
    uint32_t order;
};
static _Atomic uint32_t finished;

static void probe_done(struct query_request *request, const struct query_outcome *outcome)
{
    struct probe *p = CHR_CONTAINER_OF(request, struct probe, request);
    p->err = outcome->err;
    p->order = atomic_fetch_add(&finished, 1);
    atomic_fetch_add(&p->done, 1);
}

static chr_err probe_emit(struct query_request *request, const struct sql_part *part)
{
    (void)request;
    (void)part;
    return CHR_OK;
}

static void probe_init(struct probe *p)
{
    memset(p, 0, sizeof *p);
    p->request.emit = probe_emit;
    p->request.done = probe_done;
    p->request.part_bytes = 4096;
}

static void wait_done(struct probe *probes, int count)
{
    for (int i = 0; i < count; i++)
        while (!atomic_load(&probes[i].done))
            usleep(100); /* until another thread gets there */
}

struct pool_kit {
    struct broker_config config;
    struct broker_node node;
    struct query_pool *pool;
};

static void pool_init(struct pool_kit *k, uint32_t threads, uint32_t queue_max)
{
    memset(k, 0, sizeof *k);
    broker_config_default(&k->config);
    k->config.query_threads = threads;
    k->config.query_queue_max = queue_max;
    k->node.config = &k->config;
    k->node.clock = chr_clock_system();
    assert_int_equal(query_pool_start(&k->node, &k->pool), CHR_OK);
    atomic_store(&finished, 0);
}

static void test_each_is_done_once_in_order(void **state)
{
    (void)state;
    enum { CLIENTS = 4, EACH = 200 };
    struct pool_kit k;
    pool_init(&k, 2, 10000);
    struct probe *probes = calloc(CLIENTS * EACH, sizeof *probes);
    struct query_client *clients[CLIENTS];
    struct query_client_options options = {0};
    for (int c = 0; c < CLIENTS; c++)
        assert_int_equal(query_client_new(k.pool, &options, &clients[c]), CHR_OK);
    for (int i = 0; i < EACH; i++) {
        for (int c = 0; c < CLIENTS; c++) {
            struct probe *p = &probes[c * EACH + i];
            probe_init(p);
            assert_int_equal(query_submit(clients[c], &p->request), CHR_OK);
        }
    }
    wait_done(probes, CLIENTS * EACH);
    struct query_pool_stats stats;
    query_pool_stats(k.pool, &stats);
    assert_int_equal(stats.requests, CLIENTS * EACH);
    assert_int_equal(stats.waiting, 0);
    for (int c = 0; c < CLIENTS; c++)
        query_client_close(clients[c]);
    query_pool_stop(k.pool);
    query_pool_free(k.pool);
    for (int c = 0; c < CLIENTS; c++)
        for (int i = 1; i < EACH; i++)
            assert_true(probes[c * EACH + i].order > probes[c * EACH + i - 1].order);
    for (int i = 0; i < CLIENTS * EACH; i++) {
        assert_int_equal(atomic_load(&probes[i].done), 1);
        assert_int_equal(probes[i].err, CHR_OK);
    }
    free(probes);
}

/* Closing, finishing and stopping while requests wait and run. */
static void test_endings(void **state)
{
    (void)state;
    enum { EACH = 50 };
    for (int how = 0; how < 4; how++) {
        struct pool_kit k;
        pool_init(&k, 1, 10000);
        struct probe *probes = calloc(EACH, sizeof *probes);
        struct query_client *client;
        struct query_client_options options = {0};
        assert_int_equal(query_client_new(k.pool, &options, &client), CHR_OK);
        for (int i = 0; i < EACH; i++) {
            probe_init(&probes[i]);
            assert_int_equal(query_submit(client, &probes[i].request), CHR_OK);
        }
        if (how == 0) {
            query_client_close(client); /* the rest is cancelled */
        } else if (how == 1) {
            query_client_finish(client); /* the rest is executed */
            wait_done(probes, EACH);
            for (int i = 0; i < EACH; i++)
                assert_int_equal(probes[i].err, CHR_OK);
        } else if (how == 2) {
            query_client_finish(client); /* the stop comes first */
        }
        query_pool_stop(k.pool);
        for (int i = 0; i < EACH; i++) {
            assert_int_equal(atomic_load(&probes[i].done), 1);
            if (how == 0)
                assert_true(probes[i].err == CHR_OK || probes[i].err == CHR_ECANCELLED);
            else
                assert_true(probes[i].err == CHR_OK || probes[i].err == CHR_ECANCELLED ||
                            probes[i].err == CHR_ECLOSED);
        }
        if (how == 3) {
            struct probe late;
            probe_init(&late);
            assert_int_equal(query_submit(client, &late.request), CHR_ECLOSED);
            query_client_close(client);
        }
        query_pool_free(k.pool);
        free(probes);
    }
}

static void test_limits(void **state)
{
    (void)state;
    struct pool_kit k;
    pool_init(&k, 1, 1000);
    struct query_client *client;
    struct query_client_options options = {.requests_max = 2};
    assert_int_equal(query_client_new(k.pool, &options, &client), CHR_OK);
    struct probe probes[2000];
    int accepted = 0;
    for (int i = 0; i < 2000; i++) {
        probe_init(&probes[accepted]);
        chr_err err = query_submit(client, &probes[accepted].request);
        assert_true(err == CHR_OK || err == CHR_EFULL);
        accepted += err == CHR_OK;
    }
    wait_done(probes, accepted);
    struct query_pool_stats stats;
    query_pool_stats(k.pool, &stats);
    assert_int_equal(stats.requests, accepted);
    assert_int_equal(stats.refused, 2000 - accepted);
    query_client_close(client);
    query_pool_stop(k.pool);
    query_pool_free(k.pool);
}

/* ---- Credit -----------------------------------------------------------------------------------
 */

struct taker {
    struct query_credit *credit;
    struct query_request *request;
    uint32_t stall_ms;
    _Atomic bool done;
    chr_err err;
};

static void *take_100(void *arg)
{
    struct taker *t = arg;
    t->err = query_credit_take(t->credit, t->request, 100, t->stall_ms);
    atomic_store(&t->done, true);
    return NULL;
}

static void test_credit(void **state)
{
    (void)state;
    struct pool_kit k;
    pool_init(&k, 2, 1000);
    struct query_client *client;
    struct query_client_options options = {0};
    assert_int_equal(query_client_new(k.pool, &options, &client), CHR_OK);
    struct probe p;
    probe_init(&p);
    p.request.client = client;
    struct query_credit *credit = query_credit_new(150);
    assert_int_equal(query_credit_take(credit, &p.request, 1000, 10), CHR_OK); /* nothing is out */
    assert_int_equal(query_credit_take(credit, &p.request, 1, 30), CHR_ETIMEDOUT);
    query_credit_give(credit, 1000);
    assert_int_equal(query_credit_take(credit, &p.request, 100, 10), CHR_OK);
    assert_int_equal(query_credit_take(credit, &p.request, 50, 10), CHR_OK);

    /* waits until something is given back */
    struct taker t = {.credit = credit, .request = &p.request, .stall_ms = 60000};
    pthread_t thread;
    struct query_pool_stats stats;
    assert_int_equal(pthread_create(&thread, NULL, take_100, &t), 0);
    do
        query_pool_stats(k.pool, &stats);
    while (stats.blocked == 0);
    assert_false(atomic_load(&t.done));
    query_credit_give(credit, 100);
    pthread_join(thread, NULL);
    assert_int_equal(t.err, CHR_OK);

    /* or is cancelled */
    atomic_store(&t.done, false);
    assert_int_equal(pthread_create(&thread, NULL, take_100, &t), 0);
    do
        query_pool_stats(k.pool, &stats);
    while (stats.blocked == 0);
    query_cancel(&p.request);
    pthread_join(thread, NULL);
    assert_int_equal(t.err, CHR_ECANCELLED);
    query_pool_stats(k.pool, &stats);
    assert_int_equal(stats.blocked, 0);
    query_credit_give(credit, 150);
    query_credit_unref(credit);
    query_client_close(client);
    query_pool_stop(k.pool);
    query_pool_free(k.pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_is_done_once_in_order),
        cmocka_unit_test(test_endings),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_credit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
