/* broker/session/reason.c: errors to reason codes, faults to the last packet of a connection. */
#include "broker/session/reason.h"

#include "base/log.h"
#include "broker/session/session.h"
#include "proto/mqtt/encode.h"

uint8_t session_reason_of(chr_err err)
{
    switch (err) {
    case CHR_OK:
        return MQTT_REASON_SUCCESS;
    case CHR_EMALFORMED:
        return MQTT_REASON_MALFORMED_PACKET;
    case CHR_EPROTO:
        return MQTT_REASON_PROTOCOL_ERROR;
    case CHR_ETOOBIG:
        return MQTT_REASON_PACKET_TOO_LARGE;
    case CHR_EACCES:
        return MQTT_REASON_NOT_AUTHORIZED;
    case CHR_ENOMEM:
    case CHR_EFULL:
    case CHR_ENOSPC:
        return MQTT_REASON_QUOTA_EXCEEDED;
    case CHR_EBUSY:
        return MQTT_REASON_SERVER_BUSY;
    case CHR_ECLOSED:
        return MQTT_REASON_SERVER_SHUTTING_DOWN;
    case CHR_EUNSUPPORTED:
        return MQTT_REASON_IMPLEMENTATION_SPECIFIC;
    default:
        return MQTT_REASON_UNSPECIFIED_ERROR;
    }
}

chr_slice session_conn_client(const struct conn *conn)
{
    return conn->session ? conn->session->client_id : CHR_LIT("");
}

/* Room for a Reason String of ours. */
#define REASON_BLOCK_BYTES 320

static chr_slice property_block(uint8_t *block, size_t size, enum mqtt_property_id id,
                                const char *text)
{
    struct mqtt_property_writer w = mqtt_property_writer(block, size);
    if (text)
        mqtt_put_bytes(&w, id, chr_slice_cstr(text));
    return w.failed ? CHR_LIT("") : mqtt_property_block(&w);
}

/* Does the client take a packet of n bytes? [MQTT-3.1.2-24] */
static bool fits(const struct conn *conn, size_t n)
{
    return !conn->client_packet_bytes_max || n <= conn->client_packet_bytes_max;
}

/* May we add a Reason String? [MQTT-3.1.2-29] speaks of packets other than PUBLISH, CONNACK and
 * DISCONNECT, so both of ours always may; only the client's Maximum Packet Size counts, and they
 * are short. */
static void send_disconnect(struct conn *conn, uint8_t reason_code, enum mqtt_property_id id,
                            const char *text)
{
    conn->end = CONN_END_SERVER;
    conn->end_code = reason_code;
    LOOP_ADD(&conn->loop->ends.by_server[reason_code], 1);
    if (conn->version == MQTT_V5 && conn->state == CONN_OPEN) {
        uint8_t block[REASON_BLOCK_BYTES], packet[REASON_BLOCK_BYTES + 16];
        struct mqtt_disconnect disconnect = {.reason_code = reason_code};
        disconnect.properties.raw = property_block(block, sizeof block, id, text);
        size_t n = mqtt_encode_disconnect(packet, sizeof packet, MQTT_V5, &disconnect);
        if (!fits(conn, n)) { /* [MQTT-3.14.2-3] */
            disconnect.properties.raw = CHR_LIT("");
            n = mqtt_encode_disconnect(packet, sizeof packet, MQTT_V5, &disconnect);
        }
        if (fits(conn, n))
            conn_send(conn, chr_slice_of(packet, n));
    }
}

void session_end_connection(struct conn *conn, uint8_t reason_code, const char *text)
{
    if (conn->state == CONN_CLOSING)
        return;
    send_disconnect(conn, reason_code, MQTT_PROPERTY_REASON_STRING, text);
    conn_close(conn);
}

void session_send_redirect(struct conn *conn, uint8_t reason_code, const char *reference)
{
    send_disconnect(conn, reason_code, MQTT_PROPERTY_SERVER_REFERENCE, reference);
}

static enum dispatch refuse_connect(struct conn *conn, uint8_t reason_code,
                                    enum mqtt_property_id id, const char *text)
{
    if (conn->state != CONN_CLOSING) {
        LOOP_ADD(&conn->loop->ends.refused[reason_code], 1);
        LOOP_COUNT(conn->loop, connects_refused, 1);
    }
    uint8_t block[REASON_BLOCK_BYTES], packet[REASON_BLOCK_BYTES + 16];
    struct mqtt_connack connack = {.reason_code = reason_code};
    if (conn->version == MQTT_V5)
        connack.properties.raw = property_block(block, sizeof block, id, text);
    size_t n = mqtt_encode_connack(packet, sizeof packet, conn->version, &connack);
    if (!fits(conn, n)) { /* [MQTT-3.2.2-19] */
        connack.properties.raw = CHR_LIT("");
        n = mqtt_encode_connack(packet, sizeof packet, conn->version, &connack);
    }
    if (n && fits(conn,
                  n)) /* 3.1.1 has no return code for some: then it is only closed [MQTT-3.2.2-6] */
        conn_send(conn, chr_slice_of(packet, n));
    conn_close(conn);
    return DISPATCH_CLOSE;
}

enum dispatch session_refuse_connect(struct conn *conn, uint8_t reason_code, const char *text)
{
    return refuse_connect(conn, reason_code, MQTT_PROPERTY_REASON_STRING, text);
}

enum dispatch session_redirect_connect(struct conn *conn, uint8_t reason_code,
                                       const char *reference)
{
    return refuse_connect(conn, reason_code, MQTT_PROPERTY_SERVER_REFERENCE, reference);
}

enum dispatch session_fault(struct conn *conn, const struct mqtt_fault *fault)
{
    if (conn->state == CONN_CLOSING)
        return DISPATCH_CLOSE;
    LOOP_COUNT(conn->loop, protocol_errors, 1);
    chr_log_notice("mqtt", "protocol error, disconnecting",
                   CHR_KV_S("client", session_conn_client(conn)),
                   CHR_KV_C("address", conn->address), CHR_KV_C("rule", fault->rule),
                   CHR_KV_C("reason", fault->text), CHR_KV_U("code", fault->reason_code));
    if (conn->state == CONN_NEW || conn->state == CONN_CONNECTING)
        return session_refuse_connect(conn, fault->reason_code, fault->text);
    session_end_connection(conn, fault->reason_code, fault->text);
    return DISPATCH_CLOSE;
}

enum dispatch session_fault_of(struct conn *conn, uint8_t reason_code, const char *rule,
                               const char *text)
{
    struct mqtt_fault fault = {.reason_code = reason_code, .rule = rule, .text = text};
    return session_fault(conn, &fault);
}
