/* broker/session/log_op.c: sessions that outlive their connection, told to the log (R5).
 *
 * SESSION_OPEN and SESSION_CLOSE of a loop go into its batches in the order they arise; when no
 * batch is free they wait here. A session is kept while one of its operations is on its way, so a
 * client that comes back at once meets its old session and waits its turn. After a stop of the node
 * nothing is told: sessions that were connected are closed when it starts again. */
#include <stdlib.h>

#include "base/log.h"
#include "broker/session/internal.h"

struct log_op {
    struct chr_list link; /* state->log_ops while it waits */
    struct session *session;
    struct conn_ref conn; /* open: for which */
    bool open, clean_start;
    uint32_t expiry_s;
    uint64_t epoch; /* close */
    uint32_t generation;
};

static void answered(struct conn *conn, void *arg, const struct db_op_result *result)
{
    struct log_op *op = arg;
    struct session *s = op->session;
    if (result->err == CHR_ESTALE) { /* R9: nothing of its batch was applied */
        chr_list_push_front(&state_of(s->loop)->log_ops, &op->link);
        return;
    }
    s->log_ops--;
    if (op->open) {
        session__opened(s, conn, result);
    } else {
        if (result->err && result->err != CHR_ECLOSED)
            chr_log_error("mqtt", "the log refused the end of a connection",
                          CHR_KV_S("client", s->client_id),
                          CHR_KV_C("error", chr_strerror(result->err)));
        session_expire(s);
    }
    free(op);
}

/* False: no batch or no memory now. */
static bool add_to_batch(struct broker_loop *loop, struct log_op *op)
{
    struct batch *batch = session__batch(loop);
    if (!batch || batch_wait_next_op(batch, loop_conn(loop, op->conn), answered, op))
        return false;
    if (op->open) {
        struct db_session_open open = {.client_id = op->session->client_id,
                                       .clean_start = op->clean_start,
                                       .expiry_s = op->expiry_s};
        db_entry_add_session_open(&batch->entry, &open);
    } else {
        struct db_session_close close = {.client_id = op->session->client_id,
                                         .epoch = op->epoch,
                                         .generation = op->generation,
                                         .expiry_s = op->expiry_s};
        db_entry_add_session_close(&batch->entry, &close);
    }
    if (batch_full(batch))
        batch_propose(batch);
    return true;
}

void session__log_ops_continue(struct broker_loop *loop)
{
    struct chr_list *ops = &state_of(loop)->log_ops;
    while (!chr_list_empty(ops)) {
        struct chr_list *link = ops->next;
        if (!add_to_batch(loop, CHR_CONTAINER_OF(link, struct log_op, link)))
            return;
        chr_list_remove(link);
    }
}

static void submit(struct broker_loop *loop, struct log_op *op)
{
    op->session->log_ops++;
    chr_list_push_back(&state_of(loop)->log_ops, &op->link);
    session__log_ops_continue(loop);
}

chr_err session__log_open(struct session *s, struct conn *conn, bool clean_start, uint32_t expiry_s)
{
    struct log_op *op = calloc(1, sizeof *op);
    if (!op)
        return CHR_ENOMEM;
    op->session = s;
    op->conn = conn->ref;
    op->open = true;
    op->clean_start = clean_start;
    op->expiry_s = expiry_s;
    submit(s->loop, op);
    return CHR_OK;
}

void session__log_close(struct session *s, uint32_t expiry_s)
{
    if (atomic_load_explicit(&s->loop->stopping, memory_order_relaxed))
        return;
    struct log_op *op = calloc(1, sizeof *op);
    if (!op) {
        chr_log_error("mqtt", "out of memory; the session's expiry begins at the next start",
                      CHR_KV_S("client", s->client_id));
        return;
    }
    op->session = s;
    op->conn = CONN_REF_NONE;
    op->expiry_s = expiry_s;
    op->epoch = s->epoch;
    op->generation = s->generation;
    submit(s->loop, op);
}

void session__log_ops_free(struct broker_loop *loop)
{
    while (!chr_list_empty(&state_of(loop)->log_ops)) {
        struct chr_list *link = state_of(loop)->log_ops.next;
        struct log_op *op = CHR_CONTAINER_OF(link, struct log_op, link);
        chr_list_remove(link);
        op->session->log_ops--;
        free(op);
    }
}
