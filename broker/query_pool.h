/* broker/query_pool.h: SQL on worker threads, so that a long scan never delays an acknowledgement.
 *
 *     surface ──query_submit──▶ client's queue ─▶ ready clients ─▶ worker: sql_execute
 *        ▲                                                            │ emit(part)…, done(outcome)
 *        └────────────── a mail to the loop, a wake of the HTTP thread ┘
 *
 * A client (one MQTT connection, one HTTP request) has one SQL session; its requests run one after
 * the other in the order they came, clients take turns. At most query_threads statements compute at
 * a time; a worker that waits (for its write to be committed, for a reader to take a part) lends
 * its place to another, so that a held disk or a slow reader does not keep others from asking.
 * Threads start when there is work for them.
 *
 * Bounds: query_queue_max requests in all, requests_max per client (CHR_EFULL, 53300), memory and
 * time per statement (sql_limits), bytes of an answer not yet taken (struct query_credit). */
#ifndef CHR_BROKER_QUERY_POOL_H
#define CHR_BROKER_QUERY_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "base/list.h"
#include "base/slice.h"
#include "db/op.h"
#include "sqlfront/result/writer.h"
#include "sqlfront/sql.h"

struct broker_node;
struct principal; /* auth/auth.h */
struct query_pool;
struct query_client; /* from query_client_new, to query_client_close */
struct query_request;

CHR_MUST_USE chr_err query_pool_start(struct broker_node *node, struct query_pool **out);
/* Cancels what runs, refuses what waits (done() is called for all), joins the workers. Committer
 * and loops still run. Accepts NULL. */
void query_pool_stop(struct query_pool *pool);
void query_pool_free(struct query_pool *pool); /* after the loops ended; accepts NULL */

struct query_client_options {
    bool read_only;        /* writes: 42501 */
    uint32_t requests_max; /* waiting and running; 0: only the pool's limit */
};
/* Any thread. */
CHR_MUST_USE chr_err query_client_new(struct query_pool *pool,
                                      const struct query_client_options *options,
                                      struct query_client **out);
/* Any thread. Cancels all of its requests; done() still comes for each. Accepts NULL. */
void query_client_close(struct query_client *client);
/* Any thread. Nothing more is asked; what was is executed, done() comes for each. Accepts NULL. */
void query_client_finish(struct query_client *client);

/* What became of a request. */
struct query_outcome {
    chr_err err;            /* 0: all statements were executed. CHR_ECLOSED: shutting down */
    struct sql_error error; /* when err: what the last part said */
    bool duplicate;         /* a write that had been done before (R2) */
};

/* Filled in by the asker and its until done() was called; what slices point at as well. */
struct query_request {
    chr_slice text;
    enum sql_format format;    /* when the text does not say; DEFAULT: JSON */
    size_t part_bytes;         /* see struct sql_writer_options */
    bool no_header, last_only; /* likewise */
    /* Who asks; a reference of the asker's, until done(). NULL: the node itself, an admin. */
    struct principal *principal;
    chr_slice idempotency_key; /* empty: none (R2) */
    bool guarded;              /* a write's entry carries guard: SQL over QoS 2 (R2) */
    struct db_guard guard;
    /* Worker thread; may block if it does so in query_credit_take. Non-zero ends the statement. */
    chr_err (*emit)(struct query_request *request, const struct sql_part *part);
    /* Worker thread (or the one that stops the pool); last touch of the request by the pool. Must
     * not block. */
    void (*done)(struct query_request *request, const struct query_outcome *outcome);

    /* The pool's from here on. */
    struct query_client *client;
    struct chr_list link;
    atomic_bool cancelled;
    const struct sql_error *error; /* for emit: what a part with `error` set is about */
};

/* Any thread. CHR_EFULL: too many waiting (53300); CHR_ECLOSED: shutting down. Then done() is not
 * called. */
CHR_MUST_USE chr_err query_submit(struct query_client *client, struct query_request *request);
/* Any thread, until done() was called. Waiting: done() comes with CHR_ECANCELLED; running: it ends
 * with 57014 soon. */
void query_cancel(struct query_request *request);

/* -- Flow control: parts of an answer that nobody took yet -------------------------------------*/

/* Reference-counted, because messages outlive the request that made them. */
struct query_credit;

/* bytes_max: unsent bytes at which emit waits (a single larger part passes when nothing else is
 * out). One reference, the caller's. NULL: no memory. */
struct query_credit *query_credit_new(uint64_t bytes_max);
void query_credit_ref(struct query_credit *credit);
void query_credit_unref(struct query_credit *credit); /* accepts NULL */
/* Worker thread, in emit. Waits until there is room. CHR_ECANCELLED; CHR_ETIMEDOUT: nothing was
 * taken for stall_ms. */
CHR_MUST_USE chr_err query_credit_take(struct query_credit *credit, struct query_request *request,
                                       uint64_t bytes, uint32_t stall_ms);
/* Any thread: bytes were sent or dropped. */
void query_credit_give(struct query_credit *credit, uint64_t bytes);

struct query_pool_stats {
    uint64_t requests, failed, cancelled, refused;
    uint32_t waiting, running, blocked, threads;
};
void query_pool_stats(struct query_pool *pool, struct query_pool_stats *out); /* any thread */

#endif
