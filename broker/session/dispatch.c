/* broker/session/dispatch.c: which handler a packet goes to; what runs once a turn and once a
 * second; start and stop. */
#include "broker/session/dispatch.h"

#include <stdlib.h>

#include "base/log.h"
#include "broker/session/across.h"
#include "broker/session/authorize.h"
#include "broker/session/enhanced.h"
#include "broker/session/internal.h"
#include "broker/session/redirect.h"
#include "broker/session/sql_request.h"
#include "broker/session/sys.h"
#include "broker/session/will.h"
#include "db/durable.h"
#include "proto/mqtt/encode.h"

/* A publisher whose packets wait for the log this long is told and let go (design 3.1). */
#define STALL_US_MAX INT64_C(120000000)
/* A client without a keep-alive that takes none of what it is sent for this long is let go. */
#define OUTPUT_STALL_US_MAX INT64_C(120000000)
/* Expired retained messages are given back this often. */
#define SWEEP_INTERVAL_S 60
#define NUMBERS_FIRST    64u

/* ---- Packets ----------------------------------------------------------------------------------
 */

static enum dispatch handle_ping(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_fault fault;
    if (mqtt_decode_ping(frame, conn->version, &fault))
        return session_fault(conn, &fault);
    if (session__publishes_wait(conn))
        return DISPATCH_AGAIN;
    uint8_t packet[2];
    conn_send(conn, chr_slice_of(packet, mqtt_encode_pingresp(packet)));
    return DISPATCH_DONE;
}

static enum dispatch unexpected(struct conn *conn, const struct mqtt_frame *frame)
{
    struct mqtt_fault fault;
    (void)mqtt_unexpected_packet(frame, conn->version, &fault);
    return session_fault(conn, &fault);
}

/* Until it has said CONNECT nobody knows its version, so nothing is answered [MQTT-3.1.0-1]. */
static enum dispatch not_connected(struct conn *conn, const struct mqtt_frame *frame)
{
    LOOP_COUNT(conn->loop, protocol_errors, 1);
    chr_log_notice(
        "mqtt", "the first packet is not CONNECT, closing", CHR_KV_C("address", conn->address),
        CHR_KV_C("packet", mqtt_packet_name(frame->type)), CHR_KV_C("rule", "MQTT-3.1.0-1"));
    return DISPATCH_CLOSE;
}

static enum dispatch limited_publish(struct conn *conn, struct slab *slab, chr_slice raw,
                                     const struct mqtt_frame *frame)
{
    enum dispatch outcome = session__rate_take(conn, raw.len);
    if (outcome != DISPATCH_DONE)
        return outcome;
    outcome = session__handle_publish(conn, slab, raw, frame);
    if (outcome == DISPATCH_AGAIN)
        session__rate_give_back(conn, raw.len);
    return outcome;
}

enum dispatch session_dispatch(struct conn *conn, struct slab *slab, chr_slice raw,
                               const struct mqtt_frame *frame)
{
    if (CHR_UNLIKELY(conn->state == CONN_NEW && conn->enhanced))
        return session__enhanced_packet(conn, frame);
    if (CHR_UNLIKELY(conn->state != CONN_OPEN))
        return frame->type == MQTT_CONNECT && conn->state == CONN_NEW
                   ? session__handle_connect(conn, raw, frame)
                   : not_connected(conn, frame);
    switch (frame->type) {
    case MQTT_PUBLISH:
        if (CHR_UNLIKELY(conn->loop->publish_limited))
            return limited_publish(conn, slab, raw, frame);
        return session__handle_publish(conn, slab, raw, frame);
    case MQTT_PUBACK:
        return session__handle_puback(conn, frame);
    case MQTT_PUBREC:
        return session__handle_pubrec(conn, frame);
    case MQTT_PUBREL:
        return session__handle_pubrel(conn, frame);
    case MQTT_PUBCOMP:
        return session__handle_pubcomp(conn, frame);
    case MQTT_SUBSCRIBE:
        return session__handle_subscribe(conn, frame);
    case MQTT_UNSUBSCRIBE:
        return session__handle_unsubscribe(conn, frame);
    case MQTT_PINGREQ:
        return handle_ping(conn, frame);
    case MQTT_DISCONNECT:
        return session__handle_disconnect(conn, frame);
    case MQTT_AUTH:
        return conn->enhanced ? session__handle_auth(conn, frame) : unexpected(conn, frame);
    default: /* CONNECT again, packets of servers */
        return unexpected(conn, frame);
    }
}

void session_frame_error(struct conn *conn, chr_err err, const struct mqtt_frame *frame)
{
    if (conn->state != CONN_OPEN) {
        LOOP_COUNT(conn->loop, protocol_errors, 1);
        chr_log_notice("mqtt", "not an MQTT packet, closing", CHR_KV_C("address", conn->address),
                       CHR_KV_C("error", chr_strerror(err)));
        conn_close(conn);
        return;
    }
    (void)frame;
    if (err == CHR_ETOOBIG) {
        limit_hit(conn->loop, LIMIT_PACKET_SIZE, session_conn_client(conn), conn->address);
        (void)session_fault_of(conn, MQTT_REASON_PACKET_TOO_LARGE, "MQTT-3.2.2-15",
                               "larger than the Maximum Packet Size");
    } else {
        (void)session_fault_of(conn, MQTT_REASON_MALFORMED_PACKET, "MQTT-1.5.5-1",
                               "packet type or Remaining Length is malformed");
    }
}

void session_connection_lost(struct conn *conn)
{
    if (conn->connect)
        session__connect_abandon(conn);
    across_subscribe_end(conn);
    session__login_abandon(conn);
    struct session *s = conn->session;
    if (!s)
        return;
    if (conn->end == CONN_END_LOST)
        LOOP_COUNT(conn->loop, lost, 1);
    session__log_ended(conn, s);
    session_detach(s, false, false);
}

void session_output_drained(struct conn *conn)
{
    if (conn->session)
        session_pump(conn->session);
}

/* ---- Once a turn ------------------------------------------------------------------------------
 */

static void move_connections(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    for (uint32_t i = 0; i < state->moves_count; i++) {
        struct conn *conn = loop_conn(loop, state->moves[i].conn);
        if (!conn || conn->state != CONN_NEW)
            continue;
        if (state->moves[i].target)
            loop_move_conn(loop, conn, state->moves[i].target);
        else
            loop_hand_to_peers(loop, conn);
    }
    state->moves_count = 0;
}

static bool will_is_due(const struct loop_session_state *state)
{
    return !chr_list_empty(&state->wills) &&
           CHR_CONTAINER_OF(state->wills.next, struct will, link)->session == NULL;
}

/* What is not reported yet counts in the log's queue, so not too much of a small one may. */
static uint32_t acked_max(const struct broker_loop *loop)
{
    uint32_t most = loop->node->config->max_queued_messages;
    return most ? CHR_MIN(most / 4 + 1, STORED_ACKED_MAX) : STORED_ACKED_MAX;
}

void session_turn_end(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    if (CHR_UNLIKELY(loop->wake_us <= loop->now_mono_us))
        session__rate_continue(loop);
    if (state->stale_first)
        session__stale_continue(loop);
    /* With a batch that goes anyway, or when there are many. */
    if (!chr_list_empty(&state->acked) && (loop->batch || state->acked_waiting >= acked_max(loop)))
        session__stored_report_all(loop);
    if (!chr_list_empty(&state->log_ops))
        session__log_ops_continue(loop);
    if (state->releases_count)
        session__releases_continue(loop);
    if (will_is_due(state))
        wills_continue(loop);
    if (state->moves_count)
        move_connections(loop);
    session__outboxes_flush(loop);
}

/* ---- Once a second ----------------------------------------------------------------------------
 */

static void check_conn(struct broker_loop *loop, struct conn *conn)
{
    const struct broker_config *config = loop->node->config;
    int64_t now_us = loop->now_mono_us;
    struct session *s = conn->session;
    if (conn->state == CONN_NEW) {
        if (now_us - conn->opened_us > (int64_t)config->connect_timeout_s * 1000000) {
            chr_log_info("mqtt", "no CONNECT in time, closing", CHR_KV_C("address", conn->address));
            conn_close(conn);
        }
        return;
    }
    if (conn->state == CONN_CONNECTING && now_us - conn->opened_us > STALL_US_MAX) {
        /* Its client has given up long ago, and we, not reading, could not see it go. */
        (void)session_refuse_connect(conn, MQTT_REASON_SERVER_BUSY, "the log does not keep up");
        return;
    }
    if (conn->state != CONN_OPEN || !s)
        return;
    conn_rest(conn);
    session__check_expiry(conn);
    if (conn->state != CONN_OPEN)
        return;
    if (conn_partial_stuck(conn)) {
        limit_hit(loop, LIMIT_PARTIAL, s->client_id, conn->address);
        session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED,
                               "a packet that does not arrive held room that others wait for");
        return;
    }
    /* A client whose output is full is not read, so its keep-alive does not run; but if nobody is
     * there any more, nothing is taken either. */
    int64_t patience_us =
        conn->keep_alive_s ? (int64_t)conn->keep_alive_s * 1500000 : OUTPUT_STALL_US_MAX;
    if ((conn->paused & CONN_PAUSE_OUTPUT) &&
        now_us - CHR_MAX(conn->last_send_us, conn->last_receive_us) > patience_us) {
        chr_log_info("mqtt", "takes nothing of what it is sent, closing",
                     CHR_KV_S("client", s->client_id), CHR_KV_C("address", conn->address));
        session_end_connection(conn, MQTT_REASON_KEEP_ALIVE_TIMEOUT, NULL);
        return;
    }
    if (!(conn->paused & CONN_PAUSE_BATCH))
        s->stalled_since_us = 0;
    else if (s->stalled_since_us == 0)
        s->stalled_since_us = now_us;
    else if (now_us - s->stalled_since_us > STALL_US_MAX)
        session_end_connection(conn, MQTT_REASON_QUOTA_EXCEEDED, "the log does not keep up");
    /* While we don't read, it can't show that it is alive. 1.5 times [MQTT-3.1.2-22]. */
    if (conn->keep_alive_s && !conn->paused &&
        now_us - conn->last_receive_us > (int64_t)conn->keep_alive_s * 1500000) {
        session_end_connection(conn, MQTT_REASON_KEEP_ALIVE_TIMEOUT, NULL);
    }
}

void session_loop_second(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    state->reject_tokens = REJECTS_PER_SECOND;
    state->reject_bytes = REJECT_BYTES_PER_SECOND;
    for (uint32_t i = 0; i < loop->slots_used; i++)
        if (loop->conns[i])
            check_conn(loop, loop->conns[i]);
    redirect_second(loop);
    uint64_t parked = 0, inflight = 0;
    CHR_LIST_FOR_SAFE (link, next, &state->sessions) {
        struct session *s = CHR_CONTAINER_OF(link, struct session, loop_link);
        parked += !s->conn && s->present && !s->ended;
        inflight += s->inflight_open + s->stored.open;
        if (!s->conn)
            session_expire(s);
        else if (s->durable && !s->listed && session__check_lost(s))
            continue;
        else if (s->durable && (s->stored.more || !s->listed))
            session_stored_more(s); /* what memory or a read denied before */
    }
    atomic_store_explicit(&state->parked_now, parked, memory_order_relaxed);
    atomic_store_explicit(&state->inflight_now, inflight, memory_order_relaxed);
    session__stored_report_all(loop);
    wills_continue(loop);
    if (loop->number == 0 && state->seconds % SWEEP_INTERVAL_S == SWEEP_INTERVAL_S - 1)
        retained_sweep(loop->node->retained, loop->now_mono_us);
    uint32_t sys_interval_s = loop->node->config->sys_interval_s;
    if (state->sys && sys_interval_s &&
        atomic_load_explicit(&loop->node->serving, memory_order_acquire) &&
        (state->seconds == 0 || state->seconds % sys_interval_s == sys_interval_s - 1))
        sys_refresh(state->sys, loop);
    state->seconds++;
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

/* Sessions that the log remembers: parked, or about to be. */
static chr_err recover(struct broker_loop *loop)
{
    struct registry *registry = loop->node->registry;
    struct recovered_session *list =
        registry_take_recovered(registry, loop->number, loop->node->config->loops);
    chr_err err = CHR_OK;
    while (list) {
        struct recovered_session *r = list;
        struct broker_loop *owner;
        struct session *s =
            err ? NULL : session_new(loop, chr_slice_of(r->client_id, r->client_len));
        if (s) {
            s->durable = true;
            s->present = r->expiry_s != 0;
            s->ended = !s->present;
            if (s->present)
                atomic_fetch_add_explicit(&state_of(loop)->parked_now, 1, memory_order_relaxed);
            s->epoch = r->epoch;
            s->generation = r->generation;
            s->expiry_s = r->expiry_s;
            s->stored.sent = r->sent;
            s->listed = wakeups_add(loop->node->wakeups, s) == CHR_OK;
            /* From now on, not from when it was parked: the log ends it in time, this is memory. */
            if (r->expiry_s != UINT32_MAX)
                s->expires_mono_us = loop->now_mono_us + (int64_t)r->expiry_s * 1000000;
            struct session *there = registry_claim(registry, s->client_id, s, &owner);
            (void)there;
            err = session__restore_subscriptions(s);
            if (r->connected) /* lost with the node */
                session__log_close(s, s->expiry_s, true);
        } else {
            err = CHR_ENOMEM;
        }
        list = r->next;
        free(r);
    }
    return err;
}

chr_err session_loop_init(struct broker_loop *loop)
{
    struct loop_session_state *state = calloc(1, sizeof *state);
    if (!state)
        return CHR_ENOMEM;
    loop->session_state = state;
    chr_list_init(&state->sessions);
    chr_list_init(&state->log_ops);
    chr_list_init(&state->log_ops_out);
    chr_list_init(&state->acked);
    chr_list_init(&state->wills);
    chr_list_init(&state->rate_waiting);
    state->reject_tokens = REJECTS_PER_SECOND;
    state->reject_bytes = REJECT_BYTES_PER_SECOND;
    state->by_number = calloc(NUMBERS_FIRST, sizeof(struct session *));
    state->by_number_mask = NUMBERS_FIRST - 1;
    state->outboxes = calloc(loop->node->config->loops, sizeof(struct outbox *));
    if (!state->by_number || !state->outboxes)
        return CHR_ENOMEM;
    chr_err err = routes_init(&state->routes, loop);
    if (!err && loop->number == 0)
        err = sys_new(&state->sys);
    if (!err)
        err = recover(loop);
    if (!err)
        wakeups_loop_start(loop->node->wakeups, loop);
    if (!err && state->sys &&
        loop->node->config->sys_interval_s) /* there from the first subscription on */
        sys_refresh(state->sys, loop);
    return err;
}

void session_loop_free(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    if (!state)
        return;
    wakeups_loop_end(loop->node->wakeups, loop);
    session__log_ops_free(loop);
    while (!chr_list_empty(&state->sessions)) {
        struct session *s = CHR_CONTAINER_OF(state->sessions.next, struct session, loop_link);
        s->log_ops = 0; /* whatever was on its way is answered or never will be */
        session_free(s);
    }
    wills_free(loop);
    session__stale_free(loop);
    session__outboxes_free(loop);
    if (state->routes.slots)
        routes_free(&state->routes);
    sys_free(state->sys);
    free((void *)state->by_number);
    free(state->moves);
    free(state->releases);
    free(state);
    loop->session_state = NULL;
}

void session_loop_stopping(struct broker_loop *loop)
{
    redirect_stopping(loop);
}

/* Applier thread, so that no session changes meanwhile. */
struct recovery {
    struct broker_node *node;
    chr_err err;
};

static void recover_session(void *arg, const struct db_session_info *info)
{
    struct recovery *r = arg;
    if (!r->err)
        r->err = registry_recovered(r->node->registry, info);
}

static void recover_will(void *arg, const struct db_due_will *will)
{
    struct recovery *r = arg;
    wakeups_will(r->node->wakeups, will);
}

static void recover_sessions(void *arg, const struct db_apply_result *result)
{
    struct recovery *r = arg;
    (void)result;
    db_sessions_read(r->node->db, recover_session, r);
    db_wills_read(r->node->db, recover_will, r);
}

static bool leads(void *ctx)
{
    const struct broker_node *node = ctx;
    return broker_committer_leader(node->committer) == node->dir.node;
}

chr_err session_node_init(struct broker_node *node)
{
    const struct broker_config *config = node->config;
    chr_err err = registry_new(&node->registry);
    if (!err)
        err = subscriptions_new(&node->subscriptions);
    if (!err)
        err = retained_new(config->max_retained_messages, config->max_retained_bytes,
                           &node->retained);
    struct wakeups *wakeups = NULL;
    struct wakeups_cluster cluster = {node->dir.node, node->dir.boot, leads, node};
    if (!err)
        err = wakeups_new(config->loops, node->cluster ? &cluster : NULL, &wakeups);
    if (err)
        return err;
    atomic_store_explicit(&node->wakeups, wakeups, memory_order_release);
    if (node->peers) {
        struct across *across = NULL;
        err = across_new(node, &across);
        if (err)
            return err;
        atomic_store_explicit(&node->across, across, memory_order_release);
    }
    /* Sessions come to the node that their client connects to; those that were connected by this
     * one are closed by the leader, which hears that it has started anew, and looks after wills. */
    if (node->cluster)
        return CHR_OK;
    /* An entry without operations, for the sake of being called on the applier. */
    struct db_entry entry;
    db_entry_init(&entry, 1024);
    db_entry_begin(&entry, 0, 0);
    err = db_entry_end(&entry);
    struct recovery recovery = {.node = node};
    if (!err)
        err = broker_propose_wait(node->committer, chr_buf_slice(&entry.bytes), 0, recover_sessions,
                                  &recovery);
    db_entry_free(&entry);
    return err ? err : recovery.err;
}

void session_node_free(struct broker_node *node)
{
    retained_free(node->retained);
    subscriptions_free(node->subscriptions);
    across_free(across_of(node));
    node->across = NULL;
    registry_free(node->registry);
    wakeups_free(node->wakeups);
    node->wakeups = NULL;
    node->retained = NULL;
    node->subscriptions = NULL;
    node->registry = NULL;
}
