/* broker/query_pool.c: clients take turns on a few worker threads. */
#include "broker/query_pool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/cluster.h"
#include "broker/cluster_calls.h"
#include "broker/committer.h"
#include "broker/config.h"
#include "broker/node.h"
#include "broker/relations.h"
#include "broker/retry_rejects.h"
#include "broker/session/kick.h"

/* Workers beyond query_threads, for those that wait for the log or a reader: what waits costs a
 * stack, not a core. With more waiting, requests queue up. */
#define WAITING_WORKERS_MAX 32u
/* A waiting worker looks this often whether its request was cancelled. */
#define CREDIT_POLL_NS 20000000

struct query_pool {
    struct broker_node *node;
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct chr_list clients;
    struct chr_list ready; /* clients with a request and none running */
    pthread_t *threads;
    uint32_t threads_count, threads_max;
    uint32_t idle, running, blocked, waiting;
    bool stopping;
    uint64_t requests, failed, cancelled, refused;
};

struct query_client {
    struct query_pool *pool;
    struct chr_list link;          /* pool->clients */
    struct chr_list ready_link;    /* pool->ready */
    struct chr_list requests;      /* waiting */
    bool busy;                     /* a worker has it: no other takes its next request */
    struct query_request *running; /* what it executes; NULL before and after */
    uint32_t count;                /* waiting and running */
    uint32_t requests_max;
    bool closed; /* goes when its last request is done */
    bool read_only;
    sql_session *session; /* NULL until the first request; its worker's while one runs */
    struct sql_host host;
};

/* ---- What the executor asks of us (worker) ----------------------------------------------------
 */

static void block_begin(struct query_pool *pool);
static void block_end(struct query_pool *pool);

struct applied_copy {
    struct sql_applied *applied;
    db *db;
    bool filled;
};

/* Applier thread. */
static void copy_applied(void *arg, const struct db_apply_result *result)
{
    struct applied_copy *copy = arg;
    sql_applied_from(result, copy->applied);
    copy->applied->index = db_apply_index(copy->db);
    copy->filled = true;
}

static chr_err host_propose(void *ctx, chr_slice bytes, struct sql_applied *applied)
{
    struct query_client *client = ctx;
    struct query_pool *pool = client->pool;
    if (atomic_load(&client->running->cancelled))
        return CHR_ECANCELLED;
    struct applied_copy copy = {.applied = applied, .db = pool->node->db};
    block_begin(pool);
    /* Alone there is somebody who decides, however long the disk takes. */
    uint32_t timeout_ms = pool->node->cluster ? BROKER_ANSWER_TIMEOUT_MS : 0;
    chr_err err =
        broker_propose_wait(pool->node->committer, bytes, timeout_ms, copy_applied, &copy);
    block_end(pool);
    /* What became of the entry is told in *applied. */
    return copy.filled ? CHR_OK : err;
}

/* R2: what makes a repeated write do nothing. Each statement of a text is an entry of its own and
 * has a key of its own; a guard can name one only, so the asker lets one statement pass. */
static void host_entry_begin(void *ctx, struct db_entry *entry, uint32_t statement)
{
    struct query_client *client = ctx;
    const struct query_request *r = client->running;
    if (r->guarded)
        db_entry_add_guards(entry, &r->guard, 1);
    if (r->idempotency_key.len == 0)
        return;
    chr_slice user = r->principal ? r->principal->user : CHR_LIT("");
    if (statement == 0) {
        db_entry_add_request_key(entry, user, r->idempotency_key);
        return;
    }
    struct chr_buf key;
    chr_buf_init(&key, r->idempotency_key.len + 16);
    chr_buf_add_slice(&key, r->idempotency_key);
    chr_buf_addf(&key, "/%u", (unsigned)statement);
    if (key.failed)
        entry->bytes.failed = true; /* rather no write than one that can be doubled */
    else
        db_entry_add_request_key(entry, user, chr_buf_slice(&key));
    chr_buf_free(&key);
}

/* A cluster of one may always answer. A cancel that came before the statement began is seen here.
 */
static chr_err host_read_barrier(void *ctx)
{
    const struct query_client *client = ctx;
    if (atomic_load(&client->running->cancelled))
        return CHR_ECANCELLED;
    struct broker_node *node = client->pool->node;
    if (!node->cluster)
        return CHR_OK;
    block_begin(client->pool);
    chr_err err = broker_committer_read_barrier(node->committer, BROKER_ANSWER_TIMEOUT_MS);
    block_end(client->pool);
    return err;
}

static chr_err host_retry_rejects(void *ctx, const struct db_table_def *table,
                                  const atomic_bool *cancel, uint64_t *retried, uint64_t *failed,
                                  struct chr_errmsg *msg)
{
    struct query_client *client = ctx;
    block_begin(client->pool);
    chr_err err = retry_rejects(client->pool->node, table, cancel, retried, failed, msg);
    block_end(client->pool);
    return err;
}

static chr_err host_read_relation(void *ctx, const struct sql_relation *relation,
                                  struct sql_relation_rows *rows, const struct sql_host_wait *wait,
                                  struct chr_errmsg *msg)
{
    struct query_client *client = ctx;
    (void)msg;
    block_begin(client->pool);
    chr_err err = broker_relation_read(client->pool->node, relation, rows, wait);
    block_end(client->pool);
    return err;
}

static chr_err host_kill_client(void *ctx, chr_slice client_id, const struct sql_host_wait *wait)
{
    struct query_client *client = ctx;
    block_begin(client->pool);
    chr_err err = kick_client(client->pool->node, client_id, wait);
    block_end(client->pool);
    return err;
}

static chr_err host_alter_cluster(void *ctx, enum sql_cluster_action action, chr_slice name,
                                  chr_slice address, const struct sql_host_wait *wait,
                                  struct chr_errmsg *msg)
{
    static const enum call_kind kinds[] = {[SQL_CLUSTER_ADD] = CALL_ADD,
                                           [SQL_CLUSTER_PROMOTE] = CALL_PROMOTE,
                                           [SQL_CLUSTER_REMOVE] = CALL_REMOVE,
                                           [SQL_CLUSTER_TRANSFER] = CALL_TRANSFER};
    struct query_client *client = ctx;
    block_begin(client->pool);
    chr_err err = cluster_call(cluster_calls(client->pool->node->cluster), kinds[action], name,
                               address, wait, msg);
    block_end(client->pool);
    return err;
}

/* ---- Running one request (worker) -------------------------------------------------------------
 */

/* Passes everything on to the writer and remembers how it ended. */
struct watcher {
    const struct sql_sink *to;
    struct query_request *request;
    struct query_outcome *outcome;
};

static chr_err watch_statement(void *ctx, const struct sql_statement_info *info)
{
    const struct watcher *w = ctx;
    return w->to->statement ? w->to->statement(w->to->ctx, info) : CHR_OK;
}

static chr_err watch_begin(void *ctx, const struct sql_column *columns, uint32_t columns_count)
{
    const struct watcher *w = ctx;
    return w->to->begin(w->to->ctx, columns, columns_count);
}

static chr_err watch_rows(void *ctx, const struct db_vector *const *vectors, uint32_t columns_count,
                          const uint16_t *sel, uint32_t count)
{
    const struct watcher *w = ctx;
    return w->to->rows(w->to->ctx, vectors, columns_count, sel, count);
}

static chr_err watch_end(void *ctx, const struct sql_done *done)
{
    struct watcher *w = ctx;
    w->outcome->duplicate |= done->duplicate;
    return w->to->end(w->to->ctx, done);
}

static void watch_error(void *ctx, const struct sql_error *error)
{
    struct watcher *w = ctx;
    if (error != &w->outcome->error)
        w->outcome->error = *error;
    w->request->error = &w->outcome->error;
    w->to->error(w->to->ctx, error);
}

static chr_err emit(void *ctx, const struct sql_part *part)
{
    struct query_request *request = ctx;
    return request->emit(request, part);
}

static void set_error(struct query_outcome *outcome, chr_err err)
{
    outcome->err = err;
    sql_error_set(&outcome->error, sql_sqlstate_of(err), 0, "%s", chr_strerror(err));
}

static bool make_session(struct query_client *client)
{
    if (client->session)
        return true;
    const struct broker_config *config = client->pool->node->config;
    struct sql_limits limits;
    sql_limits_default(&limits);
    limits.memory_bytes = config->query_memory_bytes;
    limits.timeout_us = (int64_t)config->query_timeout_ms * 1000;
    sql_session *session = sql_session_new(client->pool->node->db, &client->host, &limits);
    if (session && client->read_only)
        sql_session_set_read_only(session, true);
    pthread_mutex_lock(&client->pool->lock);
    client->session = session;
    pthread_mutex_unlock(&client->pool->lock);
    return session != NULL;
}

static void run(struct query_client *client, struct query_request *request,
                struct query_outcome *outcome)
{
    struct sql_writer_options options = {.format = request->format,
                                         .part_bytes = request->part_bytes,
                                         .no_header = request->no_header,
                                         .last_only = request->last_only};
    sql_writer *writer = make_session(client) ? sql_writer_new(&options, emit, request) : NULL;
    if (!writer) {
        set_error(outcome, CHR_ENOMEM);
        return;
    }
    struct watcher watcher = {
        .to = sql_writer_sink(writer), .request = request, .outcome = outcome};
    struct sql_sink sink = {.ctx = &watcher,
                            .statement = watch_statement,
                            .begin = watch_begin,
                            .rows = watch_rows,
                            .end = watch_end,
                            .error = watch_error};
    if (atomic_load(&request->cancelled)) { /* before its turn came */
        set_error(outcome, CHR_ECANCELLED);
        watch_error(&watcher, &outcome->error);
    } else {
        const struct principal *p = request->principal;
        sql_session_set_user(client->session, p ? p->user : CHR_LIT(""),
                             p ? p->role : DB_ROLE_ADMIN);
        outcome->err = sql_execute(client->session, request->text, &sink);
    }
    if (outcome->err && !outcome->error.sqlstate[0])
        set_error(outcome, outcome->err);
    sql_writer_free(writer);
}

/* ---- Workers ----------------------------------------------------------------------------------
 */

static void *worker_main(void *arg);

/* With the lock. Is there a thread for one more ready client? */
static bool staff(struct query_pool *pool)
{
    if (chr_list_empty(&pool->ready) || pool->running >= pool->node->config->query_threads)
        return true; /* whoever finishes takes it */
    if (pool->idle) {
        pthread_cond_signal(&pool->work);
        return true;
    }
    if (pool->threads_count == pool->threads_max)
        return pool->threads_count > 0;
    if (pthread_create(&pool->threads[pool->threads_count], NULL, worker_main, pool))
        return pool->threads_count > 0;
    pool->threads_count++;
    return true;
}

static void block_begin(struct query_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->running--;
    pool->blocked++;
    (void)staff(pool);
    pthread_mutex_unlock(&pool->lock);
}

static void block_end(struct query_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    pool->blocked--;
    pool->running++; /* for a moment there may be more than query_threads */
    pthread_mutex_unlock(&pool->lock);
}

static void client_free(struct query_client *client)
{
    sql_session_free(client->session);
    free(client);
}

/* With the lock, which it lets go of meanwhile. */
static void serve(struct query_pool *pool, struct query_client *client)
{
    struct query_request *request =
        CHR_CONTAINER_OF(client->requests.next, struct query_request, link);
    chr_list_remove(&request->link);
    client->busy = true;
    client->running = request;
    pool->waiting--;
    pool->running++;
    pthread_mutex_unlock(&pool->lock);

    struct query_outcome outcome = {.err = CHR_OK};
    run(client, request, &outcome);

    pthread_mutex_lock(&pool->lock);
    client->running = NULL; /* nobody can cancel it any more */
    pool->running--;
    pool->failed += outcome.err != CHR_OK;
    pool->cancelled += outcome.err == CHR_ECANCELLED;
    pthread_mutex_unlock(&pool->lock);
    request->done(request, &outcome); /* not ours any more; before the next one is begun */

    pthread_mutex_lock(&pool->lock);
    client->busy = false;
    client->count--;
    if (!chr_list_empty(&client->requests)) {
        chr_list_push_back(&pool->ready, &client->ready_link);
        (void)staff(pool);
    } else if (client->closed) {
        chr_list_remove(&client->link);
        pthread_mutex_unlock(&pool->lock);
        client_free(client);
        pthread_mutex_lock(&pool->lock);
    }
}

static void *worker_main(void *arg)
{
    struct query_pool *pool = arg;
    pthread_setname_np(pthread_self(), "query");
    pthread_mutex_lock(&pool->lock);
    while (!pool->stopping) {
        if (chr_list_empty(&pool->ready) || pool->running >= pool->node->config->query_threads) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
            continue;
        }
        struct chr_list *link = pool->ready.next;
        chr_list_remove(link);
        serve(pool, CHR_CONTAINER_OF(link, struct query_client, ready_link));
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* ---- Clients ----------------------------------------------------------------------------------
 */

chr_err query_client_new(struct query_pool *pool, const struct query_client_options *options,
                         struct query_client **out)
{
    struct query_client *client = calloc(1, sizeof *client);
    if (!client)
        return CHR_ENOMEM;
    client->pool = pool;
    client->requests_max = options->requests_max;
    client->read_only = options->read_only;
    chr_list_init(&client->requests);
    chr_list_init(&client->ready_link);
    client->host =
        (struct sql_host){.ctx = client,
                          .propose = host_propose,
                          .entry_begin = host_entry_begin,
                          .read_barrier = host_read_barrier,
                          .retry_rejects = host_retry_rejects,
                          .relations = broker_relations,
                          .relations_count = BROKER_RELATIONS,
                          .read_relation = host_read_relation,
                          .kill_client = host_kill_client,
                          .alter_cluster = pool->node->cluster ? host_alter_cluster : NULL,
                          .clock = pool->node->clock};
    pthread_mutex_lock(&pool->lock);
    chr_list_push_back(&pool->clients, &client->link);
    pthread_mutex_unlock(&pool->lock);
    *out = client;
    return CHR_OK;
}

/* With the lock: takes the waiting requests out of the pool's books. */
static void take_waiting(struct query_client *client, struct chr_list *taken)
{
    while (!chr_list_empty(&client->requests)) {
        struct chr_list *link = client->requests.next;
        chr_list_remove(link);
        chr_list_push_back(taken, link);
        client->count--;
        client->pool->waiting--;
    }
    chr_list_remove(&client->ready_link);
}

static void refuse_all(struct chr_list *taken, chr_err err)
{
    struct query_outcome outcome = {.err = CHR_OK};
    set_error(&outcome, err);
    while (!chr_list_empty(taken)) {
        struct chr_list *link = taken->next;
        chr_list_remove(link);
        struct query_request *request = CHR_CONTAINER_OF(link, struct query_request, link);
        request->done(request, &outcome);
    }
}

/* With the lock. */
static void cancel_running(struct query_client *client)
{
    if (!client->running)
        return;
    atomic_store(&client->running->cancelled, true);
    if (client->session)
        sql_session_cancel(client->session);
}

void query_client_close(struct query_client *client)
{
    if (!client)
        return;
    struct query_pool *pool = client->pool;
    struct chr_list taken;
    chr_list_init(&taken);
    pthread_mutex_lock(&pool->lock);
    take_waiting(client, &taken);
    client->closed = true;
    cancel_running(client);
    bool idle = !client->busy;
    if (idle)
        chr_list_remove(&client->link);
    pthread_mutex_unlock(&pool->lock);
    refuse_all(&taken, CHR_ECANCELLED);
    if (idle)
        client_free(client);
}

void query_client_finish(struct query_client *client)
{
    if (!client)
        return;
    struct query_pool *pool = client->pool;
    pthread_mutex_lock(&pool->lock);
    client->closed = true;
    bool idle = client->count == 0;
    if (idle)
        chr_list_remove(&client->link);
    pthread_mutex_unlock(&pool->lock);
    if (idle)
        client_free(client);
}

chr_err query_submit(struct query_client *client, struct query_request *request)
{
    struct query_pool *pool = client->pool;
    const struct broker_config *config = pool->node->config;
    request->client = client;
    atomic_init(&request->cancelled, false);
    chr_err err = CHR_OK;
    pthread_mutex_lock(&pool->lock);
    if (pool->stopping) {
        err = CHR_ECLOSED;
    } else if (pool->waiting >= config->query_queue_max ||
               (client->requests_max && client->count >= client->requests_max)) {
        err = CHR_EFULL;
        pool->refused++;
    } else {
        bool first = chr_list_empty(&client->requests) && !client->busy;
        chr_list_push_back(&client->requests, &request->link);
        client->count++;
        pool->waiting++;
        pool->requests++;
        if (first)
            chr_list_push_back(&pool->ready, &client->ready_link);
        if (!staff(pool)) { /* no thread can be made, and there is none */
            chr_list_remove(&request->link);
            client->count--;
            pool->waiting--;
            if (first)
                chr_list_remove(&client->ready_link);
            err = CHR_ENOMEM;
        }
    }
    pthread_mutex_unlock(&pool->lock);
    return err;
}

void query_cancel(struct query_request *request)
{
    struct query_client *client = request->client;
    pthread_mutex_lock(&client->pool->lock);
    atomic_store(&request->cancelled, true);
    if (client->running == request)
        cancel_running(client);
    pthread_mutex_unlock(&client->pool->lock);
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

chr_err query_pool_start(struct broker_node *node, struct query_pool **out)
{
    struct query_pool *pool = calloc(1, sizeof *pool);
    uint32_t max = node->config->query_threads + WAITING_WORKERS_MAX;
    pthread_t *threads = calloc(max, sizeof *threads);
    if (!pool || !threads) {
        free(pool);
        free(threads);
        return CHR_ENOMEM;
    }
    pool->node = node;
    pool->threads = threads;
    pool->threads_max = max;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    chr_list_init(&pool->clients);
    chr_list_init(&pool->ready);
    *out = pool;
    return CHR_OK;
}

void query_pool_stop(struct query_pool *pool)
{
    if (!pool)
        return;
    struct chr_list taken;
    chr_list_init(&taken);
    pthread_mutex_lock(&pool->lock);
    pool->stopping = true;
    CHR_LIST_FOR (link, &pool->clients) {
        struct query_client *client = CHR_CONTAINER_OF(link, struct query_client, link);
        take_waiting(client, &taken);
        cancel_running(client);
    }
    pthread_cond_broadcast(&pool->work);
    uint32_t threads = pool->threads_count;
    pthread_mutex_unlock(&pool->lock);
    refuse_all(&taken, CHR_ECLOSED);
    for (uint32_t i = 0; i < threads; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_mutex_lock(&pool->lock);
    pool->threads_count = 0;
    /* Whose last requests were taken away above, and nobody will close. */
    CHR_LIST_FOR_SAFE (link, next, &pool->clients) {
        struct query_client *client = CHR_CONTAINER_OF(link, struct query_client, link);
        if (!client->closed)
            continue;
        chr_list_remove(&client->link);
        client_free(client);
    }
    pthread_mutex_unlock(&pool->lock);
}

void query_pool_free(struct query_pool *pool)
{
    if (!pool)
        return;
    CHR_ASSERT(pool->threads_count == 0);
    CHR_ASSERT(chr_list_empty(&pool->clients));
    pthread_mutex_destroy(&pool->lock);
    pthread_cond_destroy(&pool->work);
    free(pool->threads);
    free(pool);
}

void query_pool_stats(struct query_pool *pool, struct query_pool_stats *out)
{
    pthread_mutex_lock(&pool->lock);
    *out = (struct query_pool_stats){.requests = pool->requests,
                                     .failed = pool->failed,
                                     .cancelled = pool->cancelled,
                                     .refused = pool->refused,
                                     .waiting = pool->waiting,
                                     .running = pool->running,
                                     .blocked = pool->blocked,
                                     .threads = pool->threads_count};
    pthread_mutex_unlock(&pool->lock);
}

/* ---- Flow control -----------------------------------------------------------------------------
 */

struct query_credit {
    _Atomic uint32_t refs;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint64_t out, max; /* bytes */
    uint64_t given;    /* in all: shows that something moves */
};

struct query_credit *query_credit_new(uint64_t bytes_max)
{
    struct query_credit *credit = calloc(1, sizeof *credit);
    if (!credit)
        return NULL;
    atomic_init(&credit->refs, 1);
    credit->max = bytes_max;
    pthread_mutex_init(&credit->lock, NULL);
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&credit->changed, &attributes);
    pthread_condattr_destroy(&attributes);
    return credit;
}

void query_credit_ref(struct query_credit *credit)
{
    atomic_fetch_add(&credit->refs, 1);
}

void query_credit_unref(struct query_credit *credit)
{
    if (!credit || atomic_fetch_sub(&credit->refs, 1) > 1)
        return;
    pthread_mutex_destroy(&credit->lock);
    pthread_cond_destroy(&credit->changed);
    free(credit);
}

static struct timespec monotonic_after(int64_t ns)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ns += t.tv_nsec;
    t.tv_sec += ns / 1000000000;
    t.tv_nsec = ns % 1000000000;
    return t;
}

chr_err query_credit_take(struct query_credit *credit, struct query_request *request,
                          uint64_t bytes, uint32_t stall_ms)
{
    chr_err err = CHR_OK;
    bool blocked = false;
    int64_t stalled_ns = 0;
    pthread_mutex_lock(&credit->lock);
    uint64_t given = credit->given;
    while (!err && credit->out && credit->out + bytes > credit->max) {
        if (!blocked) {
            /* The pool's lock is not taken under ours. */
            pthread_mutex_unlock(&credit->lock);
            block_begin(request->client->pool);
            blocked = true;
            pthread_mutex_lock(&credit->lock);
            continue;
        }
        struct timespec until = monotonic_after(CREDIT_POLL_NS);
        pthread_cond_timedwait(&credit->changed, &credit->lock, &until);
        stalled_ns = credit->given != given ? 0 : stalled_ns + CREDIT_POLL_NS;
        given = credit->given;
        if (atomic_load(&request->cancelled))
            err = CHR_ECANCELLED;
        else if (stalled_ns > (int64_t)stall_ms * 1000000)
            err = CHR_ETIMEDOUT;
    }
    if (!err)
        credit->out += bytes;
    pthread_mutex_unlock(&credit->lock);
    if (blocked)
        block_end(request->client->pool);
    return err;
}

void query_credit_give(struct query_credit *credit, uint64_t bytes)
{
    pthread_mutex_lock(&credit->lock);
    CHR_ASSERT(credit->out >= bytes);
    credit->out -= bytes;
    credit->given += bytes;
    pthread_cond_signal(&credit->changed);
    pthread_mutex_unlock(&credit->lock);
}
