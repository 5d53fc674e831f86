/* broker/session/log_op.c: what the log is told about sessions that outlive their connection (R5,
 * R8): opened and closed, subscriptions, acknowledgements of their queues.
 *
 * Operations of a loop go into its batches in the order they arise; when no batch is free they wait
 * here. Those of a stale batch (R9) come back to their places, and until they have, none goes past
 * them into a batch under newer mappings. A session is kept while one of its operations is on its
 * way, so a client that comes back at once meets its old session and waits its turn. After a stop
 * of the node nothing is told: sessions that were connected are closed when it starts again, or, in
 * a cluster, when the others hear of its end. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/session/internal.h"
#include "broker/session/stored.h"
#include "broker/session/will.h"

enum log_op_kind {
    LOG_OPEN,
    LOG_CLOSE,
    LOG_SUBSCRIBE,
    LOG_UNSUBSCRIBE,
    LOG_ACKED,
    LOG_RECEIVED,
};

struct log_op {
    struct chr_list link;     /* in state->log_ops while it waits, else in state->log_ops_out */
    uint64_t serial;          /* of the loop, rising; both lists are in its order */
    uint64_t mapping_version; /* of the batch that it is out in */
    struct session *session;
    struct conn_ref conn; /* open, subscribe, unsubscribe: for which */
    enum log_op_kind kind;
    uint64_t epoch; /* all but open */
    uint32_t generation;
    union {
        struct {
            bool clean_start;
            uint32_t expiry_s;
            uint32_t window;
            struct will *will; /* owned; NULL: none */
            uint8_t *owner;    /* owned; name of the user; NULL: not known */
            size_t owner_len;
        } open;
        struct {
            uint32_t expiry_s;
            bool keep_will;
            uint64_t sent;
        } close;
        struct log_subscribe *subscribe; /* owned */
        struct {
            struct db_sequence_range *ranges; /* owned */
            uint32_t count;
        } acked;
        uint64_t received;
    };
};

static void op_free(struct log_op *op)
{
    if (op->kind == LOG_OPEN) {
        free(op->open.owner);
        if (op->open.will)
            will_free_unlisted(op->open.will);
    } else if (op->kind == LOG_SUBSCRIBE || op->kind == LOG_UNSUBSCRIBE)
        free(op->subscribe);
    else if (op->kind == LOG_ACKED)
        free(op->acked.ranges);
    free(op);
}

static struct log_op *of_link(struct chr_list *link)
{
    return CHR_CONTAINER_OF(link, struct log_op, link);
}

/* At its place by serial, looked for from the end: most belong there. */
static void insert(struct chr_list *list, struct log_op *op)
{
    struct chr_list *after = list->prev;
    while (after != list && of_link(after)->serial > op->serial)
        after = after->prev;
    chr_list_push_front(after, &op->link); /* behind `after`, which may be the head */
}

static void answered(struct conn *conn, void *arg, const struct db_op_result *result)
{
    struct log_op *op = arg;
    struct session *s = op->session;
    chr_list_remove(&op->link);
    if (result->err == CHR_ESTALE) { /* R9: nothing of its batch was applied */
        insert(&state_of(s->loop)->log_ops, op);
        return;
    }
    switch (op->kind) { /* log_ops keeps the session meanwhile */
    case LOG_OPEN:
        message_unref(s->log_will);
        s->log_will = op->open.will && !result->err ? op->open.will->message : NULL;
        if (s->log_will)
            message_ref(s->log_will);
        session__opened(s, conn, result);
        break;
    case LOG_CLOSE:
        if (result->err && result->err != CHR_ECLOSED)
            chr_log_error("mqtt", "the log refused the end of a connection",
                          CHR_KV_S("client", s->client_id),
                          CHR_KV_C("error", chr_strerror(result->err)));
        break;
    case LOG_SUBSCRIBE:
        session__subscribed(s, conn, op->subscribe, result);
        break;
    case LOG_UNSUBSCRIBE:
        session__unsubscribed(s, conn, op->subscribe, result);
        break;
    case LOG_ACKED:
        break;
    case LOG_RECEIVED:
        if (result->err == CHR_OK && s->epoch == op->epoch && s->generation == op->generation)
            session_stored_release(s, op->received);
        break;
    }
    op_free(op);
    s->log_ops--;
    session_expire(s);
}

static void add(struct db_entry *entry, const struct log_op *op)
{
    const struct session *s = op->session;
    const struct broker_config *config = s->loop->node->config;
    switch (op->kind) {
    case LOG_OPEN: {
        struct db_will will;
        struct db_session_open open = {.client_id = s->client_id,
                                       .clean_start = op->open.clean_start,
                                       .expiry_s = op->open.expiry_s,
                                       .queue_messages_max = config->max_queued_messages,
                                       .queue_bytes_max = config->max_queued_bytes,
                                       .queues_bytes_max = config->max_queues_bytes,
                                       .drop_oldest = config->queue_drop == QUEUE_DROP_OLDEST,
                                       .window = op->open.window,
                                       .has_owner = op->open.owner != NULL,
                                       .owner = chr_slice_of(op->open.owner, op->open.owner_len)};
        if (s->loop->node->cluster) {
            open.node = s->loop->node->dir.node;
            open.boot = s->loop->node->dir.boot;
        }
        if (op->open.will) {
            will = will_for_log(op->open.will);
            open.will = &will;
        }
        db_entry_add_session_open(entry, &open);
        return;
    }
    case LOG_CLOSE: {
        struct db_session_close close = {.client_id = s->client_id,
                                         .epoch = op->epoch,
                                         .generation = op->generation,
                                         .expiry_s = op->close.expiry_s,
                                         .will = op->close.keep_will ? DB_WILL_KEEP : DB_WILL_DROP,
                                         .sent = op->close.sent};
        db_entry_add_session_close(entry, &close);
        return;
    }
    case LOG_SUBSCRIBE:
        db_entry_add_subscribe(entry, op->epoch, op->generation, op->subscribe->items,
                               op->subscribe->count);
        return;
    case LOG_UNSUBSCRIBE:
        db_entry_add_unsubscribe(entry, op->epoch, op->generation, op->subscribe->items,
                                 op->subscribe->count);
        return;
    case LOG_ACKED:
        db_entry_add_queue_ack(entry, op->epoch, op->generation, op->acked.ranges, op->acked.count,
                               NULL, 0);
        return;
    case LOG_RECEIVED: {
        struct db_sequence_range range = {op->received, op->received};
        db_entry_add_queue_ack(entry, op->epoch, op->generation, NULL, 0, &range, 1);
        return;
    }
    }
}

/* What it takes in an entry, at most. */
static size_t bytes_of(const struct log_op *op)
{
    size_t bytes = 128;
    switch (op->kind) {
    case LOG_OPEN:
        bytes += op->session->client_id.len;
        if (op->open.will) {
            struct db_will will = will_for_log(op->open.will);
            bytes += will.topic.len + will.properties.len + will.payload.len;
        }
        break;
    case LOG_CLOSE:
        bytes += op->session->client_id.len;
        break;
    case LOG_SUBSCRIBE:
    case LOG_UNSUBSCRIBE:
        bytes += log_subscribe_bytes(op->subscribe->count, op->subscribe->text_bytes);
        break;
    case LOG_ACKED:
        bytes += op->acked.count * sizeof(struct db_sequence_range);
        break;
    case LOG_RECEIVED:
        break;
    }
    return bytes;
}

/* Is an older one out that may come back stale, when this one's batch would not? */
static bool older_out(struct loop_session_state *state, const struct log_op *op, uint64_t version)
{
    bool any = false;
    CHR_LIST_FOR (link, &state->log_ops_out) {
        if (of_link(link)->mapping_version == version)
            continue;
        if (of_link(link)->serial < op->serial)
            return true;
        any = true;
    }
    state->log_ops_fenced = any;
    return false;
}

/* False: no batch or no memory now, or not yet. */
static bool add_to_batch(struct broker_loop *loop, struct log_op *op)
{
    struct loop_session_state *state = state_of(loop);
    struct batch *batch = session__batch(loop);
    if (!batch)
        return false;
    /* The messages of a batch stand at its end. What came after them goes into the next one, so
     * that a will does not overtake what its client published, nor UNSUBSCRIBE a message. */
    if (batch->publishes_count || !batch_room(batch, bytes_of(op))) {
        batch_propose(batch);
        batch = session__batch(loop);
        if (!batch)
            return false;
    }
    if (CHR_UNLIKELY(batch->mapping_version != state->log_ops_version)) {
        state->log_ops_version = batch->mapping_version;
        state->log_ops_fenced = true;
    }
    if (CHR_UNLIKELY(state->log_ops_fenced) && older_out(state, op, batch->mapping_version))
        return false;
    if (batch_wait_next_op(batch, loop_conn(loop, op->conn), answered, op))
        return false;
    add(&batch->entry, op);
    op->mapping_version = batch->mapping_version;
    chr_list_remove(&op->link);
    insert(&state->log_ops_out, op);
    if (batch_full(batch))
        batch_propose(batch);
    return true;
}

void session__log_ops_continue(struct broker_loop *loop)
{
    struct chr_list *ops = &state_of(loop)->log_ops;
    while (!chr_list_empty(ops))
        if (!add_to_batch(loop, of_link(ops->next)))
            return;
}

bool session__log_ops_wait(struct conn *conn)
{
    const struct loop_session_state *state = state_of(conn->loop);
    if (CHR_LIKELY(chr_list_empty(&state->log_ops)))
        return false;
    session__log_ops_continue(conn->loop);
    if (chr_list_empty(&state->log_ops))
        return false;
    conn_pause(conn, CONN_PAUSE_BATCH);
    return true;
}

static struct log_op *op_new(struct session *s, enum log_op_kind kind)
{
    struct log_op *op = calloc(1, sizeof *op);
    if (!op)
        return NULL;
    op->session = s;
    op->kind = kind;
    op->conn = CONN_REF_NONE;
    op->epoch = s->epoch;
    op->generation = s->generation;
    return op;
}

static void submit(struct log_op *op)
{
    struct broker_loop *loop = op->session->loop;
    op->session->log_ops++;
    op->serial = ++state_of(loop)->log_ops_serial;
    chr_list_push_back(&state_of(loop)->log_ops, &op->link);
    session__log_ops_continue(loop);
}

chr_err session__log_open(struct session *s, struct conn *conn, const struct mqtt_connect *connect,
                          bool clean_start, uint32_t expiry_s, uint32_t window)
{
    if (s->durable)
        session_stored_report(s); /* W3 */
    struct log_op *op = op_new(s, LOG_OPEN);
    if (!op)
        return CHR_ENOMEM;
    chr_slice owner = conn->principal ? conn->principal->user : CHR_LIT("");
    if (conn->principal && (op->open.owner = malloc(owner.len + 1)) != NULL) {
        op->open.owner_len = owner.len;
        if (owner.len)
            memcpy(op->open.owner, owner.ptr, owner.len);
    }
    if ((conn->principal && !op->open.owner) ||
        (connect->has_will && !(op->open.will = will_new(s, connect)))) {
        op_free(op);
        return CHR_ENOMEM;
    }
    op->conn = conn->ref;
    op->open.clean_start = clean_start;
    op->open.expiry_s = expiry_s;
    op->open.window = window;
    submit(op);
    return CHR_OK;
}

void session__log_close(struct session *s, uint32_t expiry_s, bool keep_will)
{
    if (atomic_load_explicit(&s->loop->stopping, memory_order_relaxed))
        return;
    session_stored_report(s); /* W3 */
    struct log_op *op = op_new(s, LOG_CLOSE);
    if (!op) {
        chr_log_error("mqtt", "out of memory; the session's expiry begins at the next start",
                      CHR_KV_S("client", s->client_id));
        return;
    }
    op->close.expiry_s = expiry_s;
    op->close.keep_will = keep_will;
    op->close.sent = s->stored.sent;
    submit(op);
}

static chr_err log_subscribe(struct conn *conn, enum log_op_kind kind, struct log_subscribe *what)
{
    struct log_op *op = op_new(conn->session, kind);
    if (!op)
        return CHR_ENOMEM;
    op->conn = conn->ref;
    op->subscribe = what;
    submit(op);
    return CHR_OK;
}

chr_err session__log_subscribe(struct conn *conn, struct log_subscribe *what)
{
    return log_subscribe(conn, LOG_SUBSCRIBE, what);
}

chr_err session__log_unsubscribe(struct conn *conn, struct log_subscribe *what)
{
    return log_subscribe(conn, LOG_UNSUBSCRIBE, what);
}

chr_err session__log_acked(struct session *s, struct db_sequence_range *ranges, uint32_t count)
{
    struct log_op *op = op_new(s, LOG_ACKED);
    if (!op)
        return CHR_ENOMEM;
    op->acked.ranges = ranges;
    op->acked.count = count;
    submit(op);
    return CHR_OK;
}

chr_err session__log_received(struct session *s, uint64_t sequence)
{
    struct log_op *op = op_new(s, LOG_RECEIVED);
    if (!op)
        return CHR_ENOMEM;
    op->received = sequence;
    submit(op);
    return CHR_OK;
}

void session__log_ops_free(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    while (!chr_list_empty(&state->log_ops) || !chr_list_empty(&state->log_ops_out)) {
        struct log_op *op = of_link(chr_list_empty(&state->log_ops) ? state->log_ops_out.next
                                                                    : state->log_ops.next);
        chr_list_remove(&op->link);
        op->session->log_ops--;
        op_free(op);
    }
}
