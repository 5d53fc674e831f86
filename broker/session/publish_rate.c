/* broker/session/publish_rate.c: how often and how much one client may publish.
 *
 * Two token buckets per connection, of messages and of bytes, each a second's worth deep. A publish
 * passes while both hold something and may leave a debt behind (so a message larger than a second's
 * bytes passes, too); who is in debt is not read until it is paid: TCP slows the client down, and
 * nothing is lost. With publish_rate_action `disconnect` it gets 0x96 instead.
 *
 * The buckets are made with a client's first publish under a limit; without limits none of this
 * runs. Loops look at those who wait every RATE_TICK_US. */
#include <stdlib.h>

#include "broker/net/limits.h"
#include "broker/session/internal.h"

/* Waits are rounded up to it, so that a paused client costs 50 wake-ups a second at most, and
 * shares them with the others. */
#define RATE_TICK_US INT64_C(20000)
/* A token. Buckets are filled by rate x microseconds. */
#define TOKEN INT64_C(1000000)
/* Longer absences fill no more than a bucket holds, and must not overflow. */
#define ABSENCE_US_MAX INT64_C(2000000)

struct conn_rate {
    struct conn *conn;
    struct chr_list link; /* state->rate_waiting while paused */
    int64_t filled_us;
    int64_t messages, bytes; /* tokens x TOKEN; below zero: debt */
};

static int64_t fill(int64_t tokens, uint64_t rate, int64_t us)
{
    int64_t most = (int64_t)rate * TOKEN;
    tokens += (int64_t)rate * us;
    return CHR_MIN(tokens, most);
}

static void refill(struct conn_rate *r, const struct broker_config *config, int64_t now_us)
{
    int64_t us = CHR_MIN(now_us - r->filled_us, ABSENCE_US_MAX);
    r->messages = fill(r->messages, config->max_publish_rate, us);
    r->bytes = fill(r->bytes, config->max_publish_bytes, us);
    r->filled_us = now_us;
}

static struct conn_rate *rate_of(struct conn *conn)
{
    struct conn_rate *r = conn->rate;
    if (r)
        return r;
    const struct broker_config *config = conn->loop->node->config;
    r = conn->rate = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->conn = conn;
    chr_list_init(&r->link);
    r->filled_us = conn->loop->now_mono_us;
    r->messages = (int64_t)config->max_publish_rate * TOKEN;
    r->bytes = (int64_t)config->max_publish_bytes * TOKEN;
    return r;
}

static enum dispatch over(struct conn *conn, struct conn_rate *r)
{
    struct broker_loop *loop = conn->loop;
    const struct broker_config *config = loop->node->config;
    bool often = config->max_publish_rate && r->messages <= 0;
    limit_hit(loop, often ? LIMIT_PUBLISH_RATE : LIMIT_PUBLISH_BYTES, session_conn_client(conn),
              conn->address);
    if (config->publish_rate_action == PUBLISH_RATE_DISCONNECT) {
        session_end_connection(conn, MQTT_REASON_MESSAGE_RATE_TOO_HIGH,
                               often ? "more publishes per second than max_publish_rate"
                                     : "more bytes per second than max_publish_bytes");
        return DISPATCH_CLOSE;
    }
    struct loop_session_state *state = state_of(loop);
    chr_list_push_back(&state->rate_waiting, &r->link);
    loop->wake_us = CHR_MIN(loop->wake_us, loop->now_mono_us + RATE_TICK_US);
    conn_pause(conn, CONN_PAUSE_RATE);
    return DISPATCH_AGAIN;
}

enum dispatch session__rate_take(struct conn *conn, size_t bytes)
{
    const struct broker_config *config = conn->loop->node->config;
    struct conn_rate *r = rate_of(conn);
    if (!r)
        return DISPATCH_DONE; /* no memory: the limit on memory is the one that counts now */
    refill(r, config, conn->loop->now_mono_us);
    if ((config->max_publish_rate && r->messages <= 0) ||
        (config->max_publish_bytes && r->bytes <= 0))
        return over(conn, r);
    if (config->max_publish_rate)
        r->messages -= TOKEN;
    if (config->max_publish_bytes)
        r->bytes -= (int64_t)bytes * TOKEN;
    return DISPATCH_DONE;
}

void session__rate_give_back(struct conn *conn, size_t bytes)
{
    const struct broker_config *config = conn->loop->node->config;
    struct conn_rate *r = conn->rate;
    if (!r)
        return;
    if (config->max_publish_rate)
        r->messages += TOKEN;
    if (config->max_publish_bytes)
        r->bytes += (int64_t)bytes * TOKEN;
}

void session__rate_continue(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    const struct broker_config *config = loop->node->config;
    if (loop->now_mono_us < loop->wake_us)
        return;
    CHR_LIST_FOR_SAFE (link, next, &state->rate_waiting) {
        struct conn_rate *r = CHR_CONTAINER_OF(link, struct conn_rate, link);
        /* By the limits of now: a reload may have lifted them, or made them wider. */
        refill(r, config, loop->now_mono_us);
        if ((config->max_publish_rate && r->messages <= 0) ||
            (config->max_publish_bytes && r->bytes <= 0))
            continue;
        chr_list_remove(&r->link);
        conn_resume(r->conn, CONN_PAUSE_RATE);
    }
    loop->wake_us =
        chr_list_empty(&state->rate_waiting) ? INT64_MAX : loop->now_mono_us + RATE_TICK_US;
}

void session__rate_free(struct conn *conn)
{
    if (!conn->rate)
        return;
    chr_list_remove(&conn->rate->link);
    free(conn->rate);
    conn->rate = NULL;
}
