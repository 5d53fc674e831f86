/* broker/session/handle_connect.c: CONNECT and CONNACK (3.1, 3.2).
 *
 *     decode ─▶ a node's? ──yes──▶ its socket goes to the lanes between nodes
 *                   │ no
 *                   ▼
 *               refuse? ─▶ whose loop? ──another's─▶ move the connection there
 *                             │ ours
 *                             ▼
 *     take over an older connection ─▶ the session outlives it, or did? ──no──▶ CONNACK
 *                                              │ yes
 *                                              ▼
 *                        SESSION_OPEN committed (R5), reading paused ─▶ CONNACK
 *
 * One SESSION_OPEN per session is on its way at a time, so that the generation the log gave last is
 * the one its connection knows: a CONNECT that finds one waits for its turn (session->next). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "base/random.h"
#include "base/utf8.h"
#include "bridge/peers.h"
#include "broker/auth/exchange.h"
#include "broker/net/listener.h"
#include "broker/net/peer_stream.h"
#include "broker/session/authorize.h"
#include "broker/session/elsewhere.h"
#include "broker/session/enhanced.h"
#include "broker/session/internal.h"
#include "broker/session/redirect.h"
#include "broker/session/will.h"
#include "db/durable.h"
#include "proto/mqtt/encode.h"
#include "proto/mqtt/topic.h"

#define CONNACK_BYTES_MAX (320 + ENHANCED_CONNACK_BYTES)

/* A CONNECT being answered: conn->connect. */
struct pending {
    struct session *session;
    struct mqtt_connect connect; /* points into bytes */
    bool id_assigned;
    bool foreign; /* the session there is another user's: it ends */
    char assigned[AUTO_ID_PREFIX_MAX + 32];
    size_t len;
    uint8_t bytes[]; /* the packet */
};

static void pending_free(struct conn *conn)
{
    free(conn->connect);
    conn->connect = NULL;
}

/* ---- Refusals ---------------------------------------------------------------------------------
 */

static enum dispatch refuse(struct conn *conn, const struct mqtt_connect *connect,
                            uint8_t reason_code, const char *text)
{
    chr_log_notice("mqtt", "connection refused", CHR_KV_S("client", connect->client_id),
                   CHR_KV_C("address", conn->address), CHR_KV_C("reason", text));
    return session_refuse_connect(conn, reason_code, text);
}

static bool names_method(const struct mqtt_connect *connect)
{
    return connect->version == MQTT_V5 &&
           mqtt_has(&connect->properties, MQTT_PROPERTY_AUTHENTICATION_METHOD);
}

/* Where certificates say who a client is, nothing else does. */
static bool method_offered(const struct conn *conn, const struct mqtt_connect *connect)
{
    const struct listener_config *listener = conn->listener->config;
    return chr_slice_eq(connect->properties.authentication_method, CHR_LIT(EXCHANGE_METHOD)) &&
           !listener->use_identity_as_username && !listener->use_subject_as_username &&
           exchange_offered(conn->loop->node->authority);
}

/* DISPATCH_DONE: nothing is wrong with it. */
static enum dispatch check(struct conn *conn, const struct mqtt_connect *connect)
{
    const struct broker_config *config = conn->loop->node->config;
    if (redirect_wanted(config)) {
        redirect_connect(conn, config);
        return DISPATCH_CLOSE;
    }
    if (names_method(connect) && !method_offered(conn, connect)) /* [MQTT-4.12.0-1] */
        return refuse(conn, connect, MQTT_REASON_BAD_AUTHENTICATION_METHOD,
                      "the Authentication Method is not offered");
    if (connect->client_id.len == 0 && !config->allow_zero_length_clientid)
        return refuse(conn, connect, MQTT_REASON_CLIENT_ID_NOT_VALID,
                      "client ids are not assigned here (allow_zero_length_clientid)");
    if (connect->client_id.len && config->clientid_prefixes &&
        !chr_slice_starts(connect->client_id, chr_slice_cstr(config->clientid_prefixes)))
        return refuse(conn, connect, MQTT_REASON_NOT_AUTHORIZED,
                      "the client id has not the prefix that is asked for (clientid_prefixes)");
    if (connect->has_will && connect->will.retain && !config->retain_available)
        return refuse(conn, connect, MQTT_REASON_RETAIN_NOT_SUPPORTED,
                      "retained messages are not taken (retain_available)"); /* [MQTT-3.2.2-13] */
    if (connect->client_id.len == 0 && connect->version == MQTT_V311 && !connect->clean_start)
        return refuse(conn, connect, MQTT_REASON_CLIENT_ID_NOT_VALID,
                      "an empty client id needs a clean session"); /* [MQTT-3.1.3-8] of 3.1.1 */
    if (connect->has_will && connect->will.qos > conn->listener->config->max_qos)
        return refuse(conn, connect, MQTT_REASON_QOS_NOT_SUPPORTED,
                      "the QoS of the will is above max_qos"); /* [MQTT-3.2.2-12] */
    if (connect->has_will && connect->will.topic.ptr[0] == '$')
        return refuse(conn, connect, MQTT_REASON_NOT_AUTHORIZED,
                      "clients may not publish to the topic of the will");
    if (connect->has_will &&
        mqtt_topic_levels(connect->will.topic) > conn->loop->node->config->max_topic_levels) {
        limit_hit(conn->loop, LIMIT_TOPIC_LEVELS, connect->client_id, conn->address);
        return refuse(conn, connect, MQTT_REASON_TOPIC_NAME_INVALID,
                      "the topic of the will has more levels than max_topic_levels");
    }
    if (connect->has_will && connect->will.properties.payload_format_indicator == 1 &&
        !chr_utf8_valid(connect->will.payload)) /* 3.1.3.2.3 */
        return refuse(conn, connect, MQTT_REASON_PAYLOAD_FORMAT_INVALID,
                      "the will is not UTF-8, which its Payload Format Indicator says it is");
    return DISPATCH_DONE;
}

/* A will that could not be published is refused now, when its client can still be told. */
static enum dispatch check_will(struct conn *conn, const struct mqtt_connect *connect)
{
    struct acl_reason why = {0};
    if (!connect->has_will || principal_may_publish(conn->principal, connect->will.topic, &why))
        return DISPATCH_DONE;
    audit_denied(conn->loop->node->authority, conn->principal, conn->address, "will",
                 connect->will.topic, &why);
    return refuse(conn, connect, MQTT_REASON_NOT_AUTHORIZED,
                  "the client may not publish to the topic of its will");
}

/* ---- CONNACK ----------------------------------------------------------------------------------
 */

static uint32_t wanted_expiry(const struct broker_loop *loop, const struct mqtt_connect *connect)
{
    uint32_t most = loop->node->config->max_session_expiry_s;
    uint32_t wanted = connect->version == MQTT_V5 ? connect->properties.session_expiry_s
                      : connect->clean_start      ? 0
                                                  : UINT32_MAX;
    return CHR_MIN(wanted, most);
}

static uint16_t granted_keep_alive(const struct broker_loop *loop,
                                   const struct mqtt_connect *connect)
{
    uint16_t most = loop->node->config->max_keepalive_s;
    if (most == 0 || most == UINT16_MAX)
        return connect->keep_alive_s;
    return connect->keep_alive_s == 0 || connect->keep_alive_s > most ? most
                                                                      : connect->keep_alive_s;
}

static uint32_t receive_maximum_of(const struct broker_loop *loop,
                                   const struct mqtt_connect *connect)
{
    uint32_t own = loop->node->config->max_inflight_messages;
    if (connect->version == MQTT_V5)
        return connect->properties.receive_maximum;
    return own ? own : 65535;
}

static void put_connack_properties(struct mqtt_property_writer *w, const struct conn *conn,
                                   const struct pending *p)
{
    const struct broker_config *config = conn->loop->node->config;
    const struct mqtt_connect *connect = &p->connect;
    uint32_t expiry = wanted_expiry(conn->loop, connect);
    if (expiry != connect->properties.session_expiry_s)
        mqtt_put_number(w, MQTT_PROPERTY_SESSION_EXPIRY_INTERVAL, expiry);
    if (conn->receive_maximum != 65535)
        mqtt_put_number(w, MQTT_PROPERTY_RECEIVE_MAXIMUM, conn->receive_maximum);
    if (conn->listener->config->max_qos < 2) /* [MQTT-3.2.2-9] */
        mqtt_put_number(w, MQTT_PROPERTY_MAXIMUM_QOS, conn->listener->config->max_qos);
    mqtt_put_number(w, MQTT_PROPERTY_MAXIMUM_PACKET_SIZE, conn->max_packet_size);
    if (!config->retain_available)
        mqtt_put_number(w, MQTT_PROPERTY_RETAIN_AVAILABLE, 0);
    if (p->id_assigned)
        mqtt_put_bytes(w, MQTT_PROPERTY_ASSIGNED_CLIENT_IDENTIFIER, p->session->client_id);
    if (conn->topic_alias_maximum)
        mqtt_put_number(w, MQTT_PROPERTY_TOPIC_ALIAS_MAXIMUM, conn->topic_alias_maximum);
    if (conn->keep_alive_s != connect->keep_alive_s)
        mqtt_put_number(w, MQTT_PROPERTY_SERVER_KEEP_ALIVE, conn->keep_alive_s);
    if (connect->properties.request_response_information) {
        /* Where answers of SQL may go, and unlikely to be anybody else's. */
        uint8_t random[12];
        char topic[64];
        chr_random_bytes(random, sizeof random);
        char *at = topic + snprintf(topic, sizeof topic, "$chronos/result/");
        for (size_t i = 0; i < sizeof random; i++)
            at += snprintf(at, 3, "%02x", random[i]);
        mqtt_put_bytes(w, MQTT_PROPERTY_RESPONSE_INFORMATION, chr_slice_cstr(topic));
    }
    session__enhanced_put_connack(w, conn);
}

/* Into packet; 0: it is larger than the client takes. */
static size_t write_connack(uint8_t packet[static CONNACK_BYTES_MAX], const struct conn *conn,
                            const struct pending *p, bool session_present)
{
    uint8_t block[256 + ENHANCED_CONNACK_BYTES];
    struct mqtt_connack connack = {.session_present = session_present};
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (conn->version == MQTT_V5) {
        put_connack_properties(&w, conn, p);
        CHR_ASSERT(!w.failed);
        connack.properties.raw = mqtt_property_block(&w);
    }
    size_t n = mqtt_encode_connack(packet, CONNACK_BYTES_MAX, conn->version, &connack);
    CHR_ASSERT(n > 0);
    return conn->version == MQTT_V5 && n > p->connect.properties.maximum_packet_size ? 0 : n;
}

/* Over all loops, for $SYS. */
static void note_maximum(struct broker_node *node)
{
    uint64_t now = 0, most = atomic_load_explicit(&node->clients_max, memory_order_relaxed);
    for (uint32_t i = 0; i < node->loops_count; i++)
        now += atomic_load_explicit(&state_of(node->loops[i])->connected_now, memory_order_relaxed);
    while (now > most && !atomic_compare_exchange_weak(&node->clients_max, &most, now))
        ;
}

/* The session is this connection's now. False: it was refused, and is to be abandoned. */
static bool finish(struct conn *conn, bool session_present)
{
    struct pending *p = conn->connect;
    struct session *s = p->session;
    struct broker_loop *loop = conn->loop;
    const struct mqtt_connect *connect = &p->connect;
    CHR_ASSERT(!s->conn);
    if (!session__still_welcome(conn)) {
        (void)refuse(conn, connect, MQTT_REASON_NOT_AUTHORIZED,
                     "the credentials are no longer valid");
        return false;
    }
    conn->keep_alive_s = granted_keep_alive(loop, connect);
    uint8_t connack[CONNACK_BYTES_MAX];
    size_t connack_bytes = write_connack(connack, conn, p, session_present);
    if (connack_bytes == 0) { /* [MQTT-3.1.2-24] */
        (void)refuse(conn, connect, MQTT_REASON_PACKET_TOO_LARGE,
                     "CONNACK is larger than the client's Maximum Packet Size");
        return false;
    }
    if (!session_present)
        session_clear(s);
    if (s->durable) { /* its will is in the log */
        will_drop(s);
        if (session_present && !s->subscriptions && session__restore_subscriptions(s)) {
            (void)refuse(conn, connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
            return false;
        }
    } else if (will_set(s, connect)) {
        (void)refuse(conn, connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        return false;
    }
    session__own(s, conn->principal);
    s->will_revoked = false;
    s->present = true;
    s->ended = false;
    s->conn = conn;
    conn->session = s;
    conn->state = CONN_OPEN;
    conn->clean_start = connect->clean_start;
    atomic_store_explicit(&s->connected, true, memory_order_relaxed);
    struct loop_session_state *state = state_of(loop);
    atomic_fetch_add_explicit(&state->connected_now, 1, memory_order_relaxed);
    note_maximum(loop->node);
    LOOP_COUNT(loop, connects_accepted, 1);
    s->version = conn->version;
    s->expiry_s = wanted_expiry(loop, connect);
    s->expires_mono_us = INT64_MAX;
    s->problem_information = connect->properties.request_problem_information;
    s->max_packet_bytes = connect->properties.maximum_packet_size;
    s->sent_aliases_max = /* 0 in 3.1.1 */
        CHR_MIN(connect->properties.topic_alias_maximum, loop->node->config->topic_aliases_sent);
    s->receive_maximum = receive_maximum_of(loop, connect);
    session__log_connected(conn, session_present);
    conn_send(conn, chr_slice_of(connack, connack_bytes));
    session__enhanced_connected(conn);
    if (loop->node->cluster && !p->id_assigned)
        elsewhere_tell(s);
    pending_free(conn);
    conn_resume(conn, CONN_PAUSE_CONNECT);
    if (s->durable)
        session_stored_rewind(s);
    session_redeliver(s);
    session_pump(s);
    return true;
}

/* ---- Opening ----------------------------------------------------------------------------------
 */

static void take_over(struct session *s, bool new_clean)
{
    struct conn *old = s->conn;
    old->end = CONN_END_SERVER;
    old->end_code = MQTT_REASON_SESSION_TAKEN_OVER;
    session__log_ended(old, s);
    session_detach(s, true, new_clean); /* [MQTT-3.1.4-3] */
    session_end_connection(old, MQTT_REASON_SESSION_TAKEN_OVER, NULL);
}

void session__unreserve(struct session *s)
{
    if (s->reserved)
        registry_unreserve(s->loop->node->registry);
    s->reserved = false;
}

/* Is there room for another session that outlives its connection? One that the log has is none. */
static bool reserve(struct session *s)
{
    struct broker_node *node = s->loop->node;
    uint32_t most = node->config->max_durable_sessions;
    struct db_durable_stats stats;
    if (s->reserved)
        return true;
    db_durable_stats(node->db, &stats);
    if (!registry_reserve(node->registry, stats.lasting, most))
        return db_session_known(node->db, s->client_id);
    s->reserved = true;
    return true;
}

/* Has the log to know of a connection whose session ends with it? So that its will is published
 * when this node dies, and because the database may know a session of this client that was never
 * here. */
static bool log_knows(const struct session *s, const struct mqtt_connect *connect)
{
    struct broker_node *node = s->loop->node;
    return node->cluster && (connect->has_will || db_session_known(node->db, s->client_id));
}

/* It is this connection's turn. False: it was refused, and is to be abandoned. */
static bool open_session(struct conn *conn)
{
    struct pending *p = conn->connect;
    struct session *s = p->session;
    const struct mqtt_connect *connect = &p->connect;
    p->foreign = session__is_foreign(s, conn->principal);
    bool clean_start = connect->clean_start || p->foreign;
    uint32_t expiry = wanted_expiry(conn->loop, connect);
    /* Before anything of an older connection is touched. */
    if (expiry && !reserve(s)) {
        limit_hit(conn->loop, LIMIT_SESSIONS, s->client_id, conn->address);
        (void)refuse(conn, connect, MQTT_REASON_QUOTA_EXCEEDED,
                     "there are as many durable sessions as max_durable_sessions allows");
        return false;
    }
    bool logged = expiry || s->durable || log_knows(s, connect);
    if (s->conn)
        take_over(s, clean_start);
    else if (s->will && clean_start)
        will_due_now(s); /* the session it belonged to ends now */
    else
        will_drop(s); /* [MQTT-3.1.3-9] */
    if (!logged)
        return finish(conn, s->present && !clean_start && !s->ended);
    /* The log knows the session or has to. With an expiry of 0 it ends with its connection, or when
     * the node starts again. */
    if (session__log_open(s, conn, connect, clean_start, expiry,
                          receive_maximum_of(conn->loop, connect))) {
        (void)refuse(conn, connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        session__unreserve(s);
        if (s->durable) /* a connection that was taken over left it to this one to say so */
            session__log_close(s, s->expiry_s, true);
        return false;
    }
    s->opening = true;
    s->opener = conn->ref;
    s->expiry_s = expiry; /* also when the client leaves before it is answered */
    return true;
}

/* The session is in the log as connected, but nobody is. A new one ends. */
static void close_opened(struct session *s, uint32_t expiry_s, bool keep_will)
{
    session__log_close(s, expiry_s, keep_will);
    s->expiry_s = expiry_s;
    s->ended |= expiry_s == 0;
    s->expires_mono_us =
        expiry_s == UINT32_MAX ? INT64_MAX : s->loop->now_mono_us + (int64_t)expiry_s * 1000000;
}

/* The log knows the session as result says. */
static void become(struct session *s, const struct db_op_result *result)
{
    struct wakeups *wakeups = s->loop->node->wakeups;
    bool same = s->durable && s->epoch == result->epoch;
    /* What is left of another epoch, from before the log knew it, or from before its client went to
     * another node, is history. */
    if (!same || result->generation != s->generation + 1)
        session_clear(s);
    s->generation = result->generation;
    if (same)
        return;
    if (s->listed)
        wakeups_remove(wakeups, s);
    s->durable = true;
    s->epoch = result->epoch;
    s->listed = wakeups_add(wakeups, s) == CHR_OK;
}

/* Has another node opened it since, or is it closed already? From wakeups_add on we are told. What
 * may have been sent is the log's to say, too: by our clock the session may have been over for a
 * moment, and be forgotten here. */
static bool superseded(struct session *s)
{
    struct db_session_info info;
    bool ours =
        db_session_read(s->loop->node->db, s->epoch, &info) && info.generation == s->generation;
    if (ours)
        s->stored.sent = CHR_MAX(s->stored.sent, info.sent);
    return !ours && s->loop->node->cluster;
}

void session__opened(struct session *s, struct conn *conn, const struct db_op_result *result)
{
    struct broker_loop *loop = s->loop;
    s->opening = false;
    s->opener = CONN_REF_NONE;
    session__unreserve(s);
    if (result->err == CHR_OK)
        become(s, result);
    if (result->err == CHR_OK && superseded(s)) {
        if (conn && conn->state == CONN_CONNECTING) {
            struct pending *p = conn->connect;
            (void)refuse(conn, &p->connect, MQTT_REASON_SERVER_BUSY, "session taken over");
            pending_free(conn);
        }
        struct conn *next = loop_conn(loop, s->next);
        s->next = CONN_REF_NONE;
        bool waits = next && next->state == CONN_CONNECTING;
        if (waits && open_session(next))
            return;
        if (waits)
            pending_free(next);
        session__let_go(s);
        return;
    }
    if (conn && conn->state == CONN_CONNECTING) {
        struct pending *p = conn->connect;
        if (result->err) {
            (void)refuse(conn, &p->connect, session_reason_of(result->err),
                         chr_strerror(result->err));
            if (s->durable) /* as in open_session */
                session__log_close(s, s->expiry_s, true);
            session__connect_abandon(conn);
            return;
        }
        /* The log's word counts, also after a restart, when only it remembers: what it holds (the
         * packet ids) is what the client must go on with. */
        if (!finish(conn, result->session_present)) {
            close_opened(s, result->session_present ? s->expiry_s : 0, false);
            session__connect_abandon(conn);
        }
        return;
    }
    struct conn *next = loop_conn(loop, s->next);
    s->next = CONN_REF_NONE;
    if (next && next->state == CONN_CONNECTING) {
        if (open_session(next))
            return;
        if (result->err == CHR_OK)
            close_opened(s, s->expiry_s, true);
        session__connect_abandon(next);
        return;
    }
    /* The client left before it was answered: as if it had been connected and lost. */
    if (result->err == CHR_OK)
        close_opened(s, s->expiry_s, true);
    session_expire(s);
}

/* At once, while the session is surely there: a second tick may end it before the connection is
 * forgotten. The session may be gone afterwards. */
void session__connect_abandon(struct conn *conn)
{
    struct pending *p = conn->connect;
    struct session *s = p->session;
    struct conn_ref ref = conn->ref;
    if (s->next.slot == ref.slot && s->next.generation == ref.generation)
        s->next = CONN_REF_NONE;
    pending_free(conn);
    /* One that is being opened hears of it in session__opened. */
    if (!s->conn && !s->opening && s->next.slot == UINT32_MAX) {
        if (!s->present)
            s->ended = true; /* it was only made for this */
        session_expire(s);
    }
}

/* ---- The packet -------------------------------------------------------------------------------
 */

static bool move_later(struct conn *conn, struct broker_loop *target)
{
    struct loop_session_state *state = state_of(conn->loop);
    if (state->moves_count == state->moves_max) {
        uint32_t max = state->moves_max ? state->moves_max * 2 : 16;
        struct move *bigger = realloc(state->moves, max * sizeof *bigger);
        if (!bigger)
            return false;
        state->moves = bigger;
        state->moves_max = max;
    }
    state->moves[state->moves_count++] = (struct move){conn->ref, target};
    return true;
}

static struct pending *pending_new(chr_slice raw)
{
    struct pending *p = calloc(1, sizeof *p + raw.len);
    if (!p)
        return NULL;
    p->len = raw.len;
    memcpy(p->bytes, raw.ptr, raw.len);
    struct mqtt_frame frame;
    struct mqtt_fault fault;
    int n = mqtt_frame(chr_slice_of(p->bytes, p->len), 0, &frame);
    CHR_ASSERT(n > 0);
    chr_err err = mqtt_decode_connect(&frame, &p->connect, &fault);
    CHR_ASSERT(err == CHR_OK); /* the same bytes as before */
    return p;
}

static void assign_id(struct pending *p, const char *prefix)
{
    uint8_t random[10];
    chr_random_bytes(random, sizeof random);
    char *at =
        p->assigned + snprintf(p->assigned, sizeof p->assigned, "%.*s", AUTO_ID_PREFIX_MAX, prefix);
    for (size_t i = 0; i < sizeof random; i++)
        at += snprintf(at, 3, "%02x", random[i]);
    p->connect.client_id = chr_slice_cstr(p->assigned);
    p->id_assigned = true;
}

/* The other end is a node, or says so (R17): the lanes make it prove that, and answer its CONNECT.
 * Nothing of a client applies to it: no login, no session, no limits. */
static enum dispatch hand_to_peers(struct conn *conn, const struct mqtt_connect *connect)
{
    struct peers *peers = conn->loop->node->peers;
    if (!peers)
        return refuse(conn, connect, MQTT_REASON_NOT_AUTHORIZED, "this node has no peers");
    if (!peer_stream_possible(conn)) {
        peers_count_stranger(peers);
        return refuse(conn, connect, MQTT_REASON_NOT_AUTHORIZED,
                      "peers come over TCP or TLS, not by WebSocket or a proxy");
    }
    conn_pause(conn, CONN_PAUSE_CONNECT);
    if (move_later(conn, NULL))
        return DISPATCH_AGAIN;
    return refuse(conn, connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
}

enum dispatch session__handle_connect(struct conn *conn, chr_slice raw,
                                      const struct mqtt_frame *frame)
{
    struct mqtt_connect connect;
    struct mqtt_fault fault;
    connect.properties = mqtt_properties_none;
    chr_err err = mqtt_decode_connect(frame, &connect, &fault);
    conn->version = connect.version;
    if (connect.version == MQTT_V5) /* also when what follows is malformed [MQTT-3.2.2-19] */
        conn->client_packet_bytes_max = connect.properties.maximum_packet_size;
    if (err)
        return session_fault(conn, &fault);
    if (CHR_UNLIKELY(chr_slice_starts(connect.client_id, CHR_LIT(PEERS_CLIENT_ID_PREFIX))))
        return hand_to_peers(conn, &connect);
    enum dispatch checked = check(conn, &connect);
    if (checked == DISPATCH_DONE && names_method(&connect) && !conn->principal)
        return session__enhanced_begin(conn, &connect, raw);
    if (checked == DISPATCH_DONE)
        checked = session__login(conn, &connect);
    if (checked == DISPATCH_DONE && connect.client_id.len)
        checked = check_will(conn, &connect);
    if (checked != DISPATCH_DONE)
        return checked;
    struct broker_loop *loop = conn->loop, *owner = NULL;
    struct registry *registry = loop->node->registry;
    struct session *s =
        connect.client_id.len ? registry_claim(registry, connect.client_id, NULL, &owner) : NULL;
    if (s && owner != loop) {
        conn_pause(conn, CONN_PAUSE_CONNECT);
        if (move_later(conn, owner))
            return DISPATCH_AGAIN;
        return refuse(conn, &connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
    }
    struct pending *p = pending_new(raw);
    if (!p)
        return refuse(conn, &connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
    if (p->connect.client_id.len == 0) {
        assign_id(p, conn->loop->node->config->auto_id_prefix);
        if (session__rename(conn, p->connect.client_id)) {
            free(p);
            return refuse(conn, &connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        }
        checked = check_will(conn, &p->connect); /* its rules may name the id */
        if (checked != DISPATCH_DONE) {
            free(p);
            return checked;
        }
    }
    if (!s) {
        struct session *made = session_new(loop, p->connect.client_id);
        if (!made) {
            free(p);
            return refuse(conn, &connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        }
        s = registry_claim(registry, p->connect.client_id, made, &owner);
        if (s != made) { /* another loop was quicker */
            session_free(made);
            free(p);
            conn_pause(conn, CONN_PAUSE_CONNECT);
            if (move_later(conn, owner))
                return DISPATCH_AGAIN;
            return refuse(conn, &connect, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
        }
    }
    p->session = s;
    conn->connect = p;
    conn->state = CONN_CONNECTING;
    conn_pause(conn, CONN_PAUSE_CONNECT);
    if (s->opening) {
        struct conn *waiting = loop_conn(loop, s->next);
        if (waiting && waiting->state == CONN_CONNECTING) {
            session_refuse_connect(waiting, MQTT_REASON_SERVER_BUSY, "session taken over");
            session__connect_abandon(waiting);
        }
        struct conn *opener = loop_conn(loop, s->opener);
        if (opener && opener->state == CONN_CONNECTING) {
            session_refuse_connect(opener, MQTT_REASON_SERVER_BUSY, "session taken over");
            session__connect_abandon(opener);
        }
        s->next = conn->ref;
        return DISPATCH_DONE;
    }
    if (!open_session(conn))
        session__connect_abandon(conn);
    return DISPATCH_DONE;
}
