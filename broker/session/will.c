#include "broker/session/will.h"

#include <stdlib.h>

#include "broker/session/authorize.h"
#include "broker/session/internal.h"
#include "db/durable.h"

void will_free_unlisted(struct will *will)
{
    if (will->counted)
        atomic_fetch_sub(will->counted, 1);
    message_unref(will->message);
    free(will);
}

static void will_free(struct will *will)
{
    chr_list_remove(&will->link);
    will_free_unlisted(will);
}

struct will *will_new(struct session *s, const struct mqtt_connect *connect)
{
    struct will *will = calloc(1, sizeof *will);
    uint8_t *block = NULL;
    chr_slice forwarded = {0};
    if (!will || session__forwarded(&connect->will.properties, &block, &forwarded)) {
        free(will);
        return NULL;
    }
    will->message = message_new(connect->will.topic, forwarded, connect->will.payload,
                                connect->will.qos, connect->will.retain, s->number);
    free(block);
    if (!will->message) {
        free(will);
        return NULL;
    }
    chr_list_init(&will->link);
    will->session = s;
    will->delay_s = connect->will.properties.will_delay_s;
    will->expiry_s = connect->will.properties.message_expiry_s;
    return will;
}

struct db_will will_for_log(const struct will *will)
{
    const struct message *m = will->message;
    return (struct db_will){.topic = m->topic,
                            .properties = m->properties,
                            .payload = m->payload,
                            .qos = m->qos,
                            .retain = m->retain,
                            .delay_s = will->delay_s,
                            .message_expiry_s = will->expiry_s};
}

struct will *will_stored(const struct db_due_will *due)
{
    const struct db_message *m = due->message;
    struct will *will = calloc(1, sizeof *will);
    if (!will)
        return NULL;
    will->message = message_new(m->topic, m->properties, m->payload, m->qos, m->retain, 0);
    if (!will->message) {
        free(will);
        return NULL;
    }
    chr_list_init(&will->link);
    will->expiry_s = due->message_expiry_s;
    will->guard = (struct db_guard){due->epoch, due->generation, 0};
    return will;
}

chr_err will_set(struct session *s, const struct mqtt_connect *connect)
{
    will_drop(s);
    if (!connect->has_will)
        return CHR_OK;
    s->will = will_new(s, connect);
    return s->will ? CHR_OK : CHR_ENOMEM;
}

void will_drop(struct session *s)
{
    if (!s->will)
        return;
    will_free(s->will);
    s->will = NULL;
}

/* From now on it is the loop's alone. */
static void make_due(struct broker_loop *loop, struct will *will)
{
    if (will->session)
        will->session->will = NULL;
    will->session = NULL;
    will->due_mono_us = loop->now_mono_us;
    if (will->expiry_s != UINT32_MAX) {
        will->message->has_expiry = true;
        will->message->expires_mono_us = loop->now_mono_us + (int64_t)will->expiry_s * 1000000;
    }
    chr_list_remove(&will->link);
    chr_list_push_front(&state_of(loop)->wills, &will->link);
}

void will_connection_lost(struct session *s, bool session_ends, bool taken_over)
{
    struct broker_loop *loop = s->loop;
    struct will *will = s->will;
    if (atomic_load_explicit(&loop->stopping, memory_order_relaxed)) {
        will_drop(s); /* we left, not the client */
        return;
    }
    if (session_ends || will->delay_s == 0) {
        make_due(loop, will);
        return;
    }
    if (taken_over) {
        will_drop(s); /* back before the delay has passed [MQTT-3.1.3-9] */
        return;
    }
    uint32_t delay_s = CHR_MIN(will->delay_s, s->expiry_s);
    will->due_mono_us = loop->now_mono_us + (int64_t)delay_s * 1000000;
    chr_list_push_back(&state_of(loop)->wills, &will->link);
}

void will_due_now(struct session *s)
{
    if (s->will)
        make_due(s->loop, s->will);
}

void wills_take(struct broker_loop *loop, struct will *wills)
{
    while (wills) {
        struct will *next = wills->next;
        make_due(loop, wills);
        wills = next;
    }
}

/* Rights may have changed since its client connected. A session that did not live to see that, or
 * that only the log remembers since the node started, has nobody to be asked about. */
static void judge(struct broker_loop *loop, struct will *will)
{
    struct session *s = will->owner ? session__by_number(loop, will->owner) : NULL;
    will->judged = true;
    will->denied = s && s->epoch == will->guard.epoch &&
                   (s->will_revoked || !session__may_publish_will(s, will->message));
}

/* Out of the log, published nowhere: a batch with nothing but its guard. False: none is free. */
static bool take_silently(struct broker_loop *loop, const struct will *will)
{
    struct batch *batch = session__batch(loop);
    if (batch &&
        (batch->messages || batch->waits_count || batch->entry.ops_count || batch->rejects_count)) {
        batch_propose(batch);
        batch = session__batch(loop);
    }
    if (!batch || batch_add_guard(batch, &will->guard) == UINT32_MAX)
        return false;
    batch_propose(batch);
    return true;
}

void wills_continue(struct broker_loop *loop)
{
    CHR_LIST_FOR_SAFE (link, next, &state_of(loop)->wills) {
        struct will *will = CHR_CONTAINER_OF(link, struct will, link);
        if (will->due_mono_us > loop->now_mono_us)
            continue;
        if (will->session)
            make_due(loop, will);
        if (will->guard.epoch && !will->judged)
            judge(loop, will);
        if (will->denied) {
            if (!take_silently(loop, will))
                return;
            will_free(will);
            continue;
        }
        chr_err err =
            session__publish(loop, will->message, will->guard.epoch ? &will->guard : NULL);
        if (err == CHR_EFULL || (err && will->guard.epoch))
            return; /* no batch free: in a later turn */
        atomic_fetch_add_explicit(&state_of(loop)->wills_total, 1, memory_order_relaxed);
        will_free(will);
    }
}

void wills_free(struct broker_loop *loop)
{
    while (!chr_list_empty(&state_of(loop)->wills)) {
        struct will *will = CHR_CONTAINER_OF(state_of(loop)->wills.next, struct will, link);
        if (will->session)
            will->session->will = NULL;
        will_free(will);
    }
}
