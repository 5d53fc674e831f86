/* broker/session/handle_auth.c: AUTH (3.15) and enhanced authentication (4.12). */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "broker/auth/exchange.h"
#include "broker/session/authorize.h"
#include "broker/session/enhanced.h"

#define METHOD CHR_LIT(EXCHANGE_METHOD)
/* server-first of the longest nonces and salt, method, and what is around them. */
#define AUTH_BYTES_MAX 1024

/* Memory of exchanges that are going on, of all loops: somebody who has proved nothing makes us
 * keep a CONNECT. Beyond it others are told to come back later. */
#define EXCHANGES_BYTES_MAX (64u << 20)
#define EXCHANGE_BYTES      2048u /* of one, besides CONNECT */
static _Atomic uint64_t exchanges_bytes;

enum phase {
    PHASE_IDLE,  /* none is going on */
    PHASE_FIRST, /* client-first has to come */
    PHASE_FINAL, /* client-final has to come */
    PHASE_DONE,  /* CONNECT's has succeeded; CONNACK is to come */
};

/* conn->enhanced; from CONNECT to the end of the connection. */
struct enhanced {
    enum phase phase;
    struct exchange *exchange; /* PHASE_FINAL, PHASE_DONE */
    chr_slice answer;          /* PHASE_DONE: server-final; in exchange */
    size_t connect_bytes;
    uint8_t *connect; /* the packet, until CONNACK */
};

static void end_exchange(struct enhanced *e)
{
    exchange_free(e->exchange);
    e->exchange = NULL;
    e->answer = CHR_LIT("");
    e->phase = PHASE_IDLE;
}

static void drop_connect(struct enhanced *e)
{
    if (!e->connect)
        return;
    explicit_bzero(e->connect, e->connect_bytes);
    free(e->connect);
    e->connect = NULL;
    atomic_fetch_sub_explicit(&exchanges_bytes, e->connect_bytes + EXCHANGE_BYTES,
                              memory_order_relaxed);
}

void session_enhanced_free(struct enhanced *e)
{
    if (!e)
        return;
    end_exchange(e);
    drop_connect(e);
    free(e);
}

/* ---- Out ----------------------------------------------------------------------------------------
 */

static bool fits(const struct conn *conn, size_t n)
{
    return !conn->client_packet_bytes_max || n <= conn->client_packet_bytes_max;
}

/* False: it does not fit the client's Maximum Packet Size. */
static bool send_auth(struct conn *conn, uint8_t reason_code, chr_slice data)
{
    uint8_t block[AUTH_BYTES_MAX], packet[AUTH_BYTES_MAX + 16];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    mqtt_put_bytes(&w, MQTT_PROPERTY_AUTHENTICATION_METHOD, METHOD); /* [MQTT-4.12.0-5] */
    if (data.len)
        mqtt_put_bytes(&w, MQTT_PROPERTY_AUTHENTICATION_DATA, data);
    CHR_ASSERT(!w.failed);
    struct mqtt_auth auth = {.reason_code = reason_code};
    auth.properties.raw = mqtt_property_block(&w);
    size_t n = mqtt_encode_auth(packet, sizeof packet, &auth);
    CHR_ASSERT(n > 0);
    if (!fits(conn, n))
        return false;
    conn_send(conn, chr_slice_of(packet, n));
    return true;
}

/* CONNACK before the connection is open, DISCONNECT after; then it ends [MQTT-4.12.0-4,
 * MQTT-4.12.1-2]. */
static enum dispatch refuse(struct conn *conn, uint8_t reason_code, const char *text)
{
    if (conn->state == CONN_NEW)
        return session_refuse_connect(conn, reason_code, text);
    session_end_connection(conn, reason_code, text);
    return DISPATCH_CLOSE;
}

static enum dispatch refuse_for(struct conn *conn, enum auth_outcome outcome)
{
    switch (outcome) {
    case AUTH_BACKOFF:
        return refuse(conn, MQTT_REASON_CONNECTION_RATE_EXCEEDED,
                      "too many failed logins, try again later");
    case AUTH_BUSY:
        return refuse(conn, MQTT_REASON_SERVER_BUSY, "too many clients are authenticating");
    case AUTH_NO_MEMORY:
        return refuse(conn, MQTT_REASON_QUOTA_EXCEEDED, "out of memory");
    default:
        return refuse(conn, MQTT_REASON_NOT_AUTHORIZED, "authentication failed");
    }
}

static enum dispatch fault(struct conn *conn, const char *rule, const char *text)
{
    return session_fault_of(conn, MQTT_REASON_PROTOCOL_ERROR, rule, text);
}

/* ---- The exchange -------------------------------------------------------------------------------
 */

static struct exchange_client client_of(const struct conn *conn, chr_slice client_id)
{
    return (struct exchange_client){.client_id = client_id, .address = conn->address};
}

static enum dispatch take_first(struct conn *conn, chr_slice client_id,
                                const struct mqtt_properties *properties)
{
    struct enhanced *e = conn->enhanced;
    chr_slice answer = CHR_LIT("");
    if (!mqtt_has(properties, MQTT_PROPERTY_AUTHENTICATION_DATA)) {
        e->phase = PHASE_FIRST;
    } else {
        struct exchange_client client = client_of(conn, client_id);
        enum auth_outcome outcome =
            exchange_begin(conn->loop->node->authority, &client, properties->authentication_data,
                           &e->exchange, &answer);
        if (outcome != AUTH_OK)
            return refuse_for(conn, outcome);
        e->phase = PHASE_FINAL;
    }
    if (!send_auth(conn, MQTT_REASON_CONTINUE_AUTHENTICATION, answer)) /* [MQTT-4.12.0-2] */
        return refuse(conn, MQTT_REASON_PACKET_TOO_LARGE,
                      "AUTH is larger than the client's Maximum Packet Size");
    return DISPATCH_DONE;
}

/* DISPATCH_DONE: *principal is set. */
static enum dispatch take_final(struct conn *conn, chr_slice client_id,
                                const struct mqtt_properties *properties,
                                struct principal **principal)
{
    struct enhanced *e = conn->enhanced;
    struct exchange_client client = client_of(conn, client_id);
    enum auth_outcome outcome = exchange_finish(
        e->exchange, &client, properties->authentication_data, &e->answer, principal);
    return outcome == AUTH_OK ? DISPATCH_DONE : refuse_for(conn, outcome);
}

/* What holds for each AUTH. DISPATCH_DONE: go on. */
static enum dispatch read_auth(struct conn *conn, const struct mqtt_frame *frame,
                               struct mqtt_auth *auth)
{
    struct mqtt_fault what;
    if (mqtt_decode_auth(frame, MQTT_V5, auth, &what))
        return session_fault(conn, &what);
    if (!chr_slice_eq(auth->properties.authentication_method, METHOD))
        return fault(conn, "MQTT-4.12.0-5", "AUTH with another Authentication Method than CONNECT");
    return DISPATCH_DONE;
}

/* ---- Before CONNACK -----------------------------------------------------------------------------
 */

static struct mqtt_connect saved_connect(const struct enhanced *e, struct mqtt_frame *frame)
{
    struct mqtt_connect connect;
    struct mqtt_fault what;
    int n = mqtt_frame(chr_slice_of(e->connect, e->connect_bytes), 0, frame);
    CHR_ASSERT(n > 0);
    chr_err err = mqtt_decode_connect(frame, &connect, &what);
    CHR_ASSERT(err == CHR_OK); /* the same bytes as before */
    return connect;
}

enum dispatch session__enhanced_begin(struct conn *conn, const struct mqtt_connect *connect,
                                      chr_slice raw)
{
    CHR_ASSERT(!conn->enhanced);
    uint64_t bytes = raw.len + EXCHANGE_BYTES;
    bool room = atomic_fetch_add_explicit(&exchanges_bytes, bytes, memory_order_relaxed) + bytes <=
                EXCHANGES_BYTES_MAX;
    struct enhanced *e = room ? calloc(1, sizeof *e) : NULL;
    if (!e || !(e->connect = malloc(raw.len))) {
        atomic_fetch_sub_explicit(&exchanges_bytes, bytes, memory_order_relaxed);
        free(e);
        return refuse_for(conn, room ? AUTH_NO_MEMORY : AUTH_BUSY);
    }
    memcpy(e->connect, raw.ptr, raw.len);
    e->connect_bytes = raw.len;
    conn->enhanced = e;
    return take_first(conn, connect->client_id, &connect->properties);
}

enum dispatch session__enhanced_packet(struct conn *conn, const struct mqtt_frame *frame)
{
    struct enhanced *e = conn->enhanced;
    struct mqtt_frame connect_frame;
    conn->version = MQTT_V5; /* also when it has just moved here */
    if (frame->type == MQTT_DISCONNECT) {
        chr_log_info("mqtt", "client left while it was authenticating",
                     CHR_KV_C("address", conn->address));
        return DISPATCH_CLOSE;
    }
    if (frame->type != MQTT_AUTH) /* [MQTT-3.1.2-30] */
        return fault(conn, "MQTT-3.1.2-30", "nothing but AUTH and DISCONNECT before CONNACK");
    struct mqtt_connect connect = saved_connect(e, &connect_frame);
    conn->client_packet_bytes_max = connect.properties.maximum_packet_size;
    struct mqtt_auth auth;
    enum dispatch result = read_auth(conn, frame, &auth);
    if (result != DISPATCH_DONE)
        return result;
    if (auth.reason_code != MQTT_REASON_CONTINUE_AUTHENTICATION)
        return fault(conn, "MQTT-4.12.0-3", "AUTH before CONNACK has to bear 0x18");
    if (e->phase == PHASE_FIRST) {
        if (!mqtt_has(&auth.properties, MQTT_PROPERTY_AUTHENTICATION_DATA))
            return fault(conn, "4.12", "AUTH without Authentication Data");
        return take_first(conn, connect.client_id, &auth.properties);
    }
    if (e->phase == PHASE_FINAL) {
        result = take_final(conn, connect.client_id, &auth.properties, &conn->principal);
        if (result != DISPATCH_DONE)
            return result;
        e->phase = PHASE_DONE;
    }
    /* The packet stands for the CONNECT now: when that has to move to another loop, it comes again
     * there. */
    return session__handle_connect(conn, chr_slice_of(e->connect, e->connect_bytes),
                                   &connect_frame);
}

void session__enhanced_put_connack(struct mqtt_property_writer *w, const struct conn *conn)
{
    if (!conn->enhanced)
        return;
    mqtt_put_bytes(w, MQTT_PROPERTY_AUTHENTICATION_METHOD, METHOD);
    mqtt_put_bytes(w, MQTT_PROPERTY_AUTHENTICATION_DATA, conn->enhanced->answer);
}

void session__enhanced_connected(struct conn *conn)
{
    if (!conn->enhanced)
        return;
    end_exchange(conn->enhanced);
    drop_connect(conn->enhanced);
}

/* ---- Again --------------------------------------------------------------------------------------
 */

static enum dispatch authenticated_again(struct conn *conn, struct principal *principal)
{
    struct enhanced *e = conn->enhanced;
    if (conn->principal && conn->principal->number != principal->number) {
        principal_unref(principal);
        chr_log_notice("auth", "disconnected: it authenticated again as another user",
                       CHR_KV_S("client", session_conn_client(conn)),
                       CHR_KV_S("user", conn->principal->user), CHR_KV_C("address", conn->address));
        return refuse_for(conn, AUTH_REFUSED);
    }
    bool sent = send_auth(conn, MQTT_REASON_SUCCESS, e->answer);
    end_exchange(e);
    principal_unref(conn->principal);
    conn->principal = principal;
    session__own(conn->session, principal);
    return sent ? DISPATCH_DONE
                : refuse(conn, MQTT_REASON_PACKET_TOO_LARGE,
                         "AUTH is larger than the client's Maximum Packet Size");
}

enum dispatch session__handle_auth(struct conn *conn, const struct mqtt_frame *frame)
{
    struct enhanced *e = conn->enhanced;
    chr_slice client_id = session_conn_client(conn);
    struct principal *principal = NULL;
    struct mqtt_auth auth;
    enum dispatch result = read_auth(conn, frame, &auth);
    if (result != DISPATCH_DONE)
        return result;
    if (auth.reason_code == MQTT_REASON_RE_AUTHENTICATE) {
        if (e->phase != PHASE_IDLE)
            return fault(conn, "4.12.1", "AUTH 0x19 while authenticating");
        return take_first(conn, client_id, &auth.properties);
    }
    switch (e->phase) {
    case PHASE_FIRST:
        if (!mqtt_has(&auth.properties, MQTT_PROPERTY_AUTHENTICATION_DATA))
            return fault(conn, "4.12", "AUTH without Authentication Data");
        return take_first(conn, client_id, &auth.properties);
    case PHASE_FINAL:
        result = take_final(conn, client_id, &auth.properties, &principal);
        return result == DISPATCH_DONE ? authenticated_again(conn, principal) : result;
    default:
        return fault(conn, "4.12.1", "AUTH 0x18 without an exchange");
    }
}
