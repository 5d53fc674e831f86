/* broker/session/message.c: making and dropping messages. */
#include "broker/session/message.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"

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
    if (message->released)
        message->released(message->released_arg);
    free(message);
}

size_t message_bytes(const struct message *message)
{
    return sizeof *message + message->topic.len + message->properties.len + message->payload.len;
}
