/* broker/session/redirect.c: Use another server, Server moved, Server shutting down. */
#include "broker/session/redirect.h"

#include "base/log.h"
#include "broker/config.h"
#include "broker/net/loop.h"
#include "broker/node.h"
#include "broker/session/reason.h"

static uint8_t reason_of(const struct broker_config *config)
{
    return config->redirect == REDIRECT_SERVER_MOVED ? MQTT_REASON_SERVER_MOVED
                                                     : MQTT_REASON_USE_ANOTHER_SERVER;
}

bool redirect_wanted(const struct broker_config *config)
{
    return config->redirect != REDIRECT_NONE;
}

void redirect_connect(struct conn *conn, const struct broker_config *config)
{
    (void)session_redirect_connect(conn, reason_of(config), config->server_reference);
}

void redirect_second(struct broker_loop *loop)
{
    const struct broker_config *config = loop->node->config;
    if (!redirect_wanted(config))
        return;
    uint32_t count = 0;
    for (uint32_t i = 0; i < loop->slots_used && count < REDIRECTS_PER_SECOND; i++) {
        struct conn *conn = loop->conns[i];
        if (!conn || conn->state != CONN_OPEN)
            continue;
        session_send_redirect(conn, reason_of(config), config->server_reference);
        conn_close(conn);
        count++;
    }
    if (count)
        chr_log_notice(
            "mqtt", "clients sent to another server", CHR_KV_U("clients", count),
            CHR_KV_C("server", config->server_reference ? config->server_reference : "not named"));
}

void redirect_stopping(struct broker_loop *loop)
{
    const struct broker_config *config = loop->node->config;
    for (uint32_t i = 0; i < loop->slots_used; i++) {
        struct conn *conn = loop->conns[i];
        if (!conn || conn->state != CONN_OPEN || conn->version != MQTT_V5)
            continue;
        if (config->server_reference)
            session_send_redirect(conn, reason_of(config), config->server_reference);
        else
            session_send_redirect(conn, MQTT_REASON_SERVER_SHUTTING_DOWN, NULL);
    }
}
