/* broker/session/message.c: making and dropping messages. */
#include "broker/session/message.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

/* Of the process: all loops of its one node. */
static _Atomic uint64_t queued_bytes;

struct message *message_new(chr_slice topic, chr_slice properties, chr_slice payload, uint8_t qos,
                            bool retain, uint64_t publisher)
{
    struct message *m = malloc(sizeof *m + topic.len + properties.len + payload.len);
    if (!m)
        return NULL;
    memset(m, 0, sizeof *m);
    atomic_init(&m->refs, 1);
    m->qos = qos;
    m->retain = retain;
    m->publisher = publisher;
    uint8_t *at = m->bytes;
    const chr_slice *parts[] = {&topic, &properties, &payload};
    chr_slice *places[] = {&m->topic, &m->properties, &m->payload};
    for (size_t i = 0; i < CHR_COUNT_OF(parts); i++) {
        *places[i] = chr_slice_of(at, parts[i]->len);
        if (parts[i]->len)
            memcpy(at, parts[i]->ptr, parts[i]->len);
        at += parts[i]->len;
    }
    return m;
}

void message_ref(struct message *message)
{
    atomic_fetch_add_explicit(&message->refs, 1, memory_order_relaxed);
}

void message_unref(struct message *message)
{
    if (!message)
        return;
    /* Release, so that all reads of the other holders come before the free; acquire for whoever
     * frees. */
    uint32_t before = atomic_fetch_sub_explicit(&message->refs, 1, memory_order_acq_rel);
    CHR_ASSERT(before > 0);
    if (before > 1)
        return;
    if (atomic_load_explicit(&message->counted, memory_order_relaxed))
        atomic_fetch_sub_explicit(&queued_bytes, message_bytes(message), memory_order_relaxed);
    if (message->released)
        message->released(message->released_arg);
    free(message);
}

void message_queued(struct message *message, size_t record_bytes)
{
    if (message && !atomic_exchange_explicit(&message->counted, true, memory_order_relaxed))
        record_bytes += message_bytes(message);
    atomic_fetch_add_explicit(&queued_bytes, record_bytes, memory_order_relaxed);
}

void message_unqueued(size_t record_bytes)
{
    atomic_fetch_sub_explicit(&queued_bytes, record_bytes, memory_order_relaxed);
}

uint64_t messages_queued_bytes(void)
{
    return atomic_load_explicit(&queued_bytes, memory_order_relaxed);
}

size_t message_bytes(const struct message *message)
{
    return sizeof *message + message->topic.len + message->properties.len + message->payload.len;
}
