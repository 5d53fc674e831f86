/* broker/session/lifecycle.c: sessions come, are parked, and go. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "broker/session/authorize.h"
#include "broker/session/internal.h"
#include "broker/session/sent_aliases.h"
#include "broker/session/sql_request.h"
#include "broker/session/will.h"
#include "db/durable.h"

/* A durable session is kept this long after its expiry, so that the log, which goes by replicated
 * time, has most likely ended it by then. Whether it goes on is the log's to say, whatever is still
 * in memory: a client that comes back asks it (handle_connect.c). */
#define EXPIRY_GRACE_US INT64_C(10000000)

static void grow_numbers(struct loop_session_state *state)
{
    size_t count = (state->by_number_mask + 1) * 2;
    struct session **buckets = calloc(count, sizeof(struct session *));
    if (!buckets)
        return;
    for (size_t i = 0; i <= state->by_number_mask; i++) {
        while (state->by_number[i]) {
            struct session *s = state->by_number[i];
            state->by_number[i] = s->number_next;
            s->number_next = buckets[s->number & (count - 1)];
            buckets[s->number & (count - 1)] = s;
        }
    }
    free((void *)state->by_number);
    state->by_number = buckets;
    state->by_number_mask = count - 1;
}

struct session *session_new(struct broker_loop *loop, chr_slice client_id)
{
    struct loop_session_state *state = state_of(loop);
    struct session *s = calloc(1, sizeof *s);
    uint8_t *id = malloc(client_id.len + 1);
    if (!s || !id) {
        free(s);
        free(id);
        return NULL;
    }
    if (client_id.len)
        memcpy(id, client_id.ptr, client_id.len);
    s->client_id = chr_slice_of(id, client_id.len);
    s->loop = loop;
    s->number = registry_next_number(loop->node->registry);
    s->version = MQTT_V311;
    s->max_packet_bytes = MQTT_PACKET_BYTES_MAX;
    s->receive_maximum = 65535;
    s->expires_mono_us = INT64_MAX;
    s->opener = s->next = CONN_REF_NONE;
    if (state->sessions_count > state->by_number_mask)
        grow_numbers(state);
    struct session **bucket = &state->by_number[s->number & state->by_number_mask];
    s->number_next = *bucket;
    *bucket = s;
    state->sessions_count++;
    chr_list_push_back(&state->sessions, &s->loop_link);
    return s;
}

void session_clear(struct session *s)
{
    subscriptions_remove_all(s->loop->node->subscriptions, s);
    if (!atomic_load_explicit(&s->loop->stopping, memory_order_relaxed))
        session_outgoing_pass_on(s);
    session_outgoing_free(s);
    session_stored_clear(s);
    incoming_clear(&s->incoming);
    s->plain_in_log = false;
    s->present = false;
}

void session_free(struct session *s)
{
    struct loop_session_state *state = state_of(s->loop);
    CHR_ASSERT(!s->conn);
    CHR_ASSERT(s->log_ops == 0);
    session_clear(s);
    sql_client_close(s, true);
    will_drop(s);
    aliases_clear(&s->aliases);
    if (s->listed)
        wakeups_remove(s->loop->node->wakeups, s);
    message_unref(s->log_will);
    principal_unref(s->principal);
    registry_remove(s->loop->node->registry, s);
    session__unreserve(s);
    struct session **at = &state->by_number[s->number & state->by_number_mask];
    while (*at != s)
        at = &(*at)->number_next;
    *at = s->number_next;
    state->sessions_count--;
    chr_list_remove(&s->loop_link);
    free((void *)(uintptr_t)s->client_id.ptr);
    free(s);
}

void session_detach(struct session *s, bool taken_over, bool new_clean)
{
    struct broker_loop *loop = s->loop;
    struct conn *conn = s->conn;
    CHR_ASSERT(conn);
    conn->session = NULL;
    s->conn = NULL;
    atomic_store_explicit(&s->connected, false, memory_order_relaxed);
    atomic_fetch_sub_explicit(&state_of(loop)->connected_now, 1, memory_order_relaxed);
    sql_client_close(s, !s->left);
    bool left = s->left || s->will_revoked;
    s->left = false;
    aliases_clear(&s->aliases);
    sent_aliases_free(s->sent_aliases); /* [MQTT-3.3.2-7] */
    s->sent_aliases = NULL;
    s->sent_aliases_max = 0;
    s->stalled_since_us = 0;
    s->plain_in_log = false;
    bool ends = s->expiry_s == 0 || (taken_over && new_clean);
    if (s->will && !session__may_publish_will(s, s->will->message))
        will_drop(s);
    bool keep_will = !left && s->log_will && session__may_publish_will(s, s->log_will);
    message_unref(s->log_will);
    s->log_will = NULL;
    if (s->will)
        will_connection_lost(s, ends, taken_over);
    /* A newer connection's SESSION_OPEN says it all, unless the session was to end with this, or
     * its client has said good-bye, which drops the will. */
    if (s->durable && (!taken_over || s->expiry_s == 0 || left))
        session__log_close(s, s->expiry_s, keep_will);
    if (ends)
        session_clear(s);
    else
        session_outgoing_offline(s);
    s->expires_mono_us =
        s->expiry_s == UINT32_MAX ? INT64_MAX : loop->now_mono_us + (int64_t)s->expiry_s * 1000000;
    if (s->expiry_s == 0 && !taken_over) {
        s->ended = true;
        session_expire(s);
    }
}

void session__let_go(struct session *s)
{
    struct conn *conn = s->conn;
    struct db_session_info info;
    session_stored_report(s); /* what the client has is not sent again elsewhere */
    bool closed = db_session_read(s->loop->node->db, s->epoch, &info) && !info.connected;
    uint8_t code = closed ? MQTT_REASON_SERVER_BUSY : MQTT_REASON_SESSION_TAKEN_OVER;
    if (s->listed)
        wakeups_remove(s->loop->node->wakeups, s);
    s->listed = s->durable = false; /* nothing more of it is logged */
    if (conn) {
        conn->end = CONN_END_SERVER;
        conn->end_code = code;
        session__log_ended(conn, s);
        session_detach(s, true, true);
        session_end_connection(conn, code, closed ? "this node was taken for dead" : NULL);
    }
    session_clear(s);
    s->ended = true;
    session_expire(s);
}

void session_is_history(struct conn *conn)
{
    if (conn->state == CONN_CLOSING || (conn->session && session__check_lost(conn->session)))
        return;
    conn_close(conn);
}

bool session__check_lost(struct session *s)
{
    struct db_session_info info;
    if (!s->durable || s->opening) /* session__opened looks again */
        return false;
    if (db_session_read(s->loop->node->db, s->epoch, &info) && info.generation == s->generation)
        return false;
    session__let_go(s);
    return true;
}

/* A durable session ends by replicated time, later than by our clock when the log is behind. Until
 * then its client may come back to it, and what is published for it has to find its subscriptions.
 */
static bool lives_in_log(const struct session *s)
{
    struct db_session_info info;
    return s->durable && db_session_read(s->loop->node->db, s->epoch, &info) &&
           info.generation == s->generation;
}

void session_expire(struct session *s)
{
    struct broker_loop *loop = s->loop;
    if (s->conn || s->opening || loop_conn(loop, s->next))
        return;
    if (!s->ended && (s->expires_mono_us > loop->now_mono_us || lives_in_log(s)))
        return;
    if (!s->ended) {
        /* A session's end publishes a will that is still delayed (3.1.3.2.2). */
        will_due_now(s);
        session_clear(s);
        s->ended = true;
        atomic_fetch_add_explicit(&state_of(loop)->expired_total, 1, memory_order_relaxed);
    }
    bool grace =
        s->durable && s->expiry_s != 0 && loop->now_mono_us - EXPIRY_GRACE_US < s->expires_mono_us;
    if (s->log_ops == 0 && !grace)
        session_free(s);
}
