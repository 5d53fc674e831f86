/* broker/admin/internal.h: what the files of admin/ share.
 *
 *     socket ─▶ libmicrohttpd ─▶ request.c: route, admit, collect the body ─▶ endpoint->handle
 *                                       ▲                                  │ true: answered
 *                                       └── resume ◀── admin__wake ◀── false: suspended
 *
 * Everything runs on the admin thread but what works for a request elsewhere (a query worker, the
 * applier), which holds a reference and calls admin__wake when there is something new. A request
 * whose connection ended is `gone`: it wakes nobody and lives on until its last reference. */
#ifndef CHR_BROKER_ADMIN_INTERNAL_H
#define CHR_BROKER_ADMIN_INTERNAL_H

#include <microhttpd.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "base/buf.h"
#include "base/list.h"
#include "broker/admin/admin.h"
#include "broker/auth/auth.h"
#include "broker/ingest/ingest.h"
#include "broker/node.h"
#include "sqlfront/sql.h"

#define ADMIN_CONNECTIONS_MAX 128
/* Of one connection: request line, headers, and what is read at a time. */
#define ADMIN_MEMORY_BYTES (32u << 10)
/* Neither side moved. Suspended connections are not counted. */
#define ADMIN_IDLE_S 30
/* From the first byte (or the end of the request before) to the last one, however it trickles. */
#define ADMIN_ARRIVAL_US INT64_C(60000000)
/* At a time: each holds chunks that the next checkpoints would delete. */
#define ADMIN_SNAPSHOTS_MAX 2u
/* A statement, as sql_limits has it. */
#define ADMIN_SQL_BYTES_MAX (4u << 20)

struct admin_request;

struct admin_endpoint {
    const char *path;
    const char *method; /* GET also answers HEAD */
    size_t body_bytes_max;
    bool ingest; /* only with enable_ingest */
    bool open;   /* for whoever asks; else a user is needed */
    bool admins; /* for admins alone */
    /* The request is whole, or something woke it: queues a response and returns true, or returns
     * false to wait for admin__wake. */
    bool (*handle)(struct admin_request *request);
    /* Nobody waits for the answer any more, or it was sent: ends work elsewhere, which keeps its
     * reference until it did. May be called twice. May be NULL. */
    void (*ended)(struct admin_request *request);
    /* Frees request->work with the last reference. May be NULL. */
    void (*free_work)(void *work);
    const char *summary;
};

/* A socket, for the time a request may take to arrive. */
struct admin_conn {
    struct chr_list link;
    int fd;
    int64_t receiving_since_us;    /* 0: a request is being worked on */
    struct admin_request *request; /* NULL: none */
    bool was_gone;                 /* the peer had hung up when we last looked */
};

struct admin_request {
    atomic_uint refs;
    struct admin *admin;
    struct MHD_Connection *connection; /* admin thread only */
    struct admin_conn *conn;
    const struct admin_endpoint *endpoint; /* NULL: refused, was answered already */
    struct chr_buf body;
    bool too_large;              /* the body is, and was not kept */
    bool suspended;              /* admin thread only */
    bool logging_in;             /* suspended before its body; admin thread only */
    bool streaming;              /* the answer is sent as it is made; admin thread only */
    unsigned status;             /* answered with; 0: not yet */
    void *work;                  /* the endpoint's */
    struct principal *principal; /* who asks; a reference; NULL: not known (yet) */
    struct admin_login *login;   /* being verified; NULL: none */
    char address[64];            /* of the peer */

    pthread_mutex_t lock;
    bool gone; /* the connection ended */

    struct admin_request *next_woken; /* under admin->lock */
    bool woken;
};

/* The thread that makes a snapshot. */
struct snapshot_place {
    bool used; /* admin thread only */
    atomic_bool finished;
    pthread_t thread;
};

struct admin {
    struct broker_node *node;
    struct MHD_Daemon *daemon;
    pthread_t thread;
    bool running;
    atomic_bool stopping;
    int wake_fd;   /* eventfd */
    int listen_fd; /* until the daemon has it, -1 then */
    struct chr_list conns;
    uint32_t conns_count;
    int64_t next_sweep_us;

    pthread_mutex_t lock;
    struct admin_request *woken;

    ingest_mappings *mappings; /* of POST /ingest; made when first needed */
    ingest_decoder *decoder;

    struct snapshot_place snapshots[ADMIN_SNAPSHOTS_MAX];

    uint64_t requests, refused; /* admin thread only */
};

/* request.c */
enum MHD_Result admin__on_request(void *cls, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_bytes, void **context);
void admin__on_completed(void *cls, struct MHD_Connection *connection, void **context,
                         enum MHD_RequestTerminationCode code);
void admin__ref(struct admin_request *request);
void admin__unref(struct admin_request *request);
/* Any thread. Hands the request back to the admin thread. */
void admin__wake(struct admin_request *request);
/* Admin thread: resumes all that were woken. */
void admin__resume_woken(struct admin *admin);

/* login.c: finds out who asks. Admin thread; may be called again after a wake. */
enum admin_login_state { ADMIN_LOGIN_DONE, ADMIN_LOGIN_WAITS, ADMIN_LOGIN_REFUSED };
enum admin_login_state admin__login(struct admin_request *request);
void admin__login_free(struct admin_login *login); /* accepts NULL; with the last reference */

/* reply.c: queue a response. content_type and header values are copied. */
void admin__reply(struct admin_request *request, unsigned status, const char *content_type,
                  chr_slice body);
void admin__reply_error(struct admin_request *request, unsigned status,
                        const struct sql_error *error);
/* A SQLSTATE's HTTP status. */
unsigned admin__status_of(const char *sqlstate);

/* One file each. */
bool admin__health(struct admin_request *request);
bool admin__metrics(struct admin_request *request);
bool admin__query(struct admin_request *request);
void admin__query_ended(struct admin_request *request);
void admin__query_free(void *work);
bool admin__ingest(struct admin_request *request);
void admin__ingest_free(void *work);

bool admin__snapshot(struct admin_request *request);
void admin__snapshot_ended(struct admin_request *request);
void admin__snapshot_free(void *work);
/* All of them have ended, or are about to. */
void admin__snapshots_join(struct admin *admin);

/* Text of the two: pure of HTTP, for tests. */
unsigned admin_health_text(const struct broker_node *node, bool stopping, struct chr_buf *out);
void admin_metrics_text(const struct broker_node *node, uint64_t requests, uint64_t refused,
                        uint32_t connections, struct chr_buf *out);

#endif
