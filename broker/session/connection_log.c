/* broker/session/connection_log.c: a client's connection as operators read of it: one line when it
 * has connected, one when that ended, with who ended it and why. What went wrong on the way (a rule
 * that was broken, a login that failed) has a line of its own where it is found. */
#include "base/log.h"
#include "broker/auth/auth.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/session/internal.h"

static bool wanted(const struct conn *conn)
{
    return conn->loop->node->config->connection_messages && chr_log_enabled(CHR_LOG_INFO);
}

static chr_slice user_of(const struct conn *conn)
{
    return conn->principal ? conn->principal->user : CHR_LIT("");
}

void session__log_connected(const struct conn *conn, bool session_present)
{
    const struct session *s = conn->session;
    if (!wanted(conn))
        return;
    chr_log_info("mqtt", "client connected", CHR_KV_S("client", s->client_id),
                 CHR_KV_C("address", conn->address), CHR_KV_S("user", user_of(conn)),
                 CHR_KV_C("listener", conn->listener->bound),
                 CHR_KV_C("version", conn->version == MQTT_V5 ? "5" : "3.1.1"),
                 CHR_KV_U("keep_alive_s", conn->keep_alive_s),
                 CHR_KV_U("clean_start", conn->clean_start), CHR_KV_U("expiry_s", s->expiry_s),
                 CHR_KV_U("present", session_present));
}

void session__log_ended(const struct conn *conn, const struct session *s)
{
    static const char *const ends[] = {"", "client", "server"};
    if (!wanted(conn))
        return;
    if (conn->end == CONN_END_LOST) {
        chr_log_info("mqtt", "client disconnected", CHR_KV_S("client", s->client_id),
                     CHR_KV_C("address", conn->address), CHR_KV_S("user", user_of(conn)),
                     CHR_KV_C("reason", "connection lost"));
        return;
    }
    const char *reason = conn->end_code ? mqtt_reason_text(conn->end_code) : "Normal disconnection";
    chr_log_info("mqtt", "client disconnected", CHR_KV_S("client", s->client_id),
                 CHR_KV_C("address", conn->address), CHR_KV_S("user", user_of(conn)),
                 CHR_KV_C("reason", reason), CHR_KV_C("by", ends[conn->end]),
                 CHR_KV_U("code", conn->end_code));
}
