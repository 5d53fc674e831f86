/* bridge/deliver_codec.c: see the header for the layouts. */
#include "bridge/deliver_codec.h"

#include <string.h>

#include "base/bytes.h"
#include "base/utf8.h"
#include "proto/mqtt/topic.h"

enum { MESSAGE_RETAIN = 1, MESSAGE_EXPIRES = 2, MESSAGE_PLAIN = 4 };
enum { FILTER_PRESENT = 1, FILTER_DURABLE = 2 };

static void add_zeros(struct chr_buf *out, size_t n)
{
    static const uint8_t zeros[8];
    chr_buf_add(out, zeros, n);
}

static bool zeros_at(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i])
            return false;
    return true;
}

/* ---- Messages ---------------------------------------------------------------------------------
 */

uint64_t deliver_group(const struct deliver_message *m, uint32_t i)
{
    return chr_get_u64le(m->groups + 8 * (size_t)i);
}

void deliver_head_put(struct chr_buf *out, const struct deliver_head *head)
{
    chr_buf_add_u8(out, DELIVER_MESSAGES);
    add_zeros(out, 7);
    chr_buf_add_u64le(out, head->from_boot);
    chr_buf_add_u64le(out, head->to_boot);
    chr_buf_add_u64le(out, head->first);
}

size_t deliver_message_bytes(const struct deliver_message *m)
{
    return DELIVER_MESSAGE_BYTES + 8 * (size_t)m->groups_count + m->topic.len + m->properties.len +
           m->payload.len;
}

void deliver_message_put(struct chr_buf *out, const struct deliver_message *m,
                         const uint64_t *groups)
{
    chr_buf_add_u32le(out, (uint32_t)deliver_message_bytes(m));
    chr_buf_add_u8(out, m->qos);
    chr_buf_add_u8(out,
                   (uint8_t)((m->retain ? MESSAGE_RETAIN : 0) | (m->expires ? MESSAGE_EXPIRES : 0) |
                             (m->plain ? MESSAGE_PLAIN : 0)));
    chr_buf_add_u16le(out, (uint16_t)m->groups_count);
    chr_buf_add_u64le(out, m->publisher);
    chr_buf_add_u64le(out, m->after);
    chr_buf_add_u64le(out, m->expires ? m->expires_ms : 0);
    chr_buf_add_u32le(out, (uint32_t)m->properties.len);
    chr_buf_add_u16le(out, (uint16_t)m->topic.len);
    add_zeros(out, 2);
    for (uint32_t i = 0; i < m->groups_count; i++)
        chr_buf_add_u64le(out, groups[i]);
    chr_buf_add_slice(out, m->topic);
    chr_buf_add_slice(out, m->properties);
    chr_buf_add_slice(out, m->payload);
}

chr_err deliver_head_take(chr_slice *bytes, struct deliver_head *out)
{
    const uint8_t *p = bytes->ptr;
    if (bytes->len < DELIVER_HEAD_BYTES || p[0] != DELIVER_MESSAGES || !zeros_at(p + 1, 7))
        return CHR_EMALFORMED;
    *out = (struct deliver_head){.from_boot = chr_get_u64le(p + 8),
                                 .to_boot = chr_get_u64le(p + 16),
                                 .first = chr_get_u64le(p + 24)};
    *bytes = chr_slice_of(p + DELIVER_HEAD_BYTES, bytes->len - DELIVER_HEAD_BYTES);
    return out->first ? CHR_OK : CHR_EMALFORMED;
}

chr_err deliver_message_take(chr_slice *bytes, struct deliver_message *out)
{
    const uint8_t *p = bytes->ptr;
    if (bytes->len < DELIVER_MESSAGE_BYTES)
        return CHR_EMALFORMED;
    uint64_t len = chr_get_u32le(p), properties = chr_get_u32le(p + 32);
    uint64_t topic = chr_get_u16le(p + 36);
    uint8_t flags = p[5];
    *out = (struct deliver_message){.qos = p[4],
                                    .retain = flags & MESSAGE_RETAIN,
                                    .expires = flags & MESSAGE_EXPIRES,
                                    .plain = flags & MESSAGE_PLAIN,
                                    .groups_count = chr_get_u16le(p + 6),
                                    .publisher = chr_get_u64le(p + 8),
                                    .after = chr_get_u64le(p + 16),
                                    .expires_ms = chr_get_u64le(p + 24)};
    uint64_t groups = 8 * (uint64_t)out->groups_count;
    if (out->qos > 2 || flags > 7 || !zeros_at(p + 38, 2) || (!out->expires && out->expires_ms) ||
        out->expires_ms > UINT64_C(0xffffffff) * 1000 || out->groups_count > DELIVER_GROUPS_MAX ||
        len > bytes->len || len < DELIVER_MESSAGE_BYTES + groups + topic + properties)
        return CHR_EMALFORMED;
    out->groups = p + DELIVER_MESSAGE_BYTES;
    out->topic = chr_slice_of(out->groups + groups, topic);
    out->properties = chr_slice_of(out->topic.ptr + topic, properties);
    out->payload = chr_slice_of(out->properties.ptr + properties,
                                len - DELIVER_MESSAGE_BYTES - groups - topic - properties);
    *bytes = chr_slice_of(p + len, bytes->len - len);
    return mqtt_topic_name_valid(out->topic) ? CHR_OK : CHR_EMALFORMED;
}

/* ---- Filters ----------------------------------------------------------------------------------
 */

void deliver_filters_put(struct chr_buf *out, const struct deliver_filters *head)
{
    chr_buf_add_u8(out, (uint8_t)head->type);
    chr_buf_add_u8(out, head->last);
    add_zeros(out, 6);
    chr_buf_add_u64le(out, head->boot);
    chr_buf_add_u64le(out, head->telling);
    chr_buf_add_u64le(out, head->from);
    chr_buf_add_u64le(out, head->to);
}

size_t deliver_filter_bytes(const struct deliver_filter *f)
{
    return DELIVER_FILTER_BYTES + f->group.len + f->filter.len;
}

void deliver_filter_put(struct chr_buf *out, const struct deliver_filter *f)
{
    chr_buf_add_u16le(out, (uint16_t)f->group.len);
    chr_buf_add_u16le(out, (uint16_t)f->filter.len);
    chr_buf_add_u8(
        out, (uint8_t)((f->present ? FILTER_PRESENT : 0) | (f->durable ? FILTER_DURABLE : 0)));
    add_zeros(out, 3);
    chr_buf_add_slice(out, f->group);
    chr_buf_add_slice(out, f->filter);
}

chr_err deliver_filters_take(chr_slice *bytes, struct deliver_filters *out)
{
    const uint8_t *p = bytes->ptr;
    if (bytes->len < DELIVER_FILTERS_BYTES ||
        (p[0] != DELIVER_FILTERS && (p[0] != DELIVER_CHANGES || p[1])) || p[1] > 1 ||
        !zeros_at(p + 2, 6))
        return CHR_EMALFORMED;
    *out = (struct deliver_filters){.type = (enum deliver_type)p[0],
                                    .last = p[1],
                                    .boot = chr_get_u64le(p + 8),
                                    .telling = chr_get_u64le(p + 16),
                                    .from = chr_get_u64le(p + 24),
                                    .to = chr_get_u64le(p + 32)};
    *bytes = chr_slice_of(p + DELIVER_FILTERS_BYTES, bytes->len - DELIVER_FILTERS_BYTES);
    return out->type == DELIVER_CHANGES && out->to < out->from ? CHR_EMALFORMED : CHR_OK;
}

chr_err deliver_filter_take(chr_slice *bytes, struct deliver_filter *out)
{
    const uint8_t *p = bytes->ptr;
    if (bytes->len < DELIVER_FILTER_BYTES)
        return CHR_EMALFORMED;
    size_t group = chr_get_u16le(p), filter = chr_get_u16le(p + 2);
    size_t len = DELIVER_FILTER_BYTES + group + filter;
    if (p[4] > 3 || p[4] == FILTER_DURABLE || !zeros_at(p + 5, 3) || len > bytes->len)
        return CHR_EMALFORMED;
    *out = (struct deliver_filter){.group = chr_slice_of(p + DELIVER_FILTER_BYTES, group),
                                   .filter = chr_slice_of(p + DELIVER_FILTER_BYTES + group, filter),
                                   .present = p[4] & FILTER_PRESENT,
                                   .durable = p[4] & FILTER_DURABLE};
    *bytes = chr_slice_of(p + len, bytes->len - len);
    return mqtt_topic_filter_valid(out->filter) &&
                   mqtt_topic_levels(out->filter) <= MQTT_TOPIC_LEVELS_MAX &&
                   chr_utf8_valid_mqtt(out->group)
               ? CHR_OK
               : CHR_EMALFORMED;
}

/* ---- Acknowledgements -------------------------------------------------------------------------
 */

void delivered_put(const struct delivered *d, uint8_t out[DELIVERED_BYTES])
{
    memset(out, 0, DELIVERED_BYTES);
    out[0] = (uint8_t)d->type;
    out[1] = d->again;
    bool messages = d->type == DELIVER_MESSAGES;
    chr_put_u64le(out + 8, d->boot);
    chr_put_u64le(out + 16, messages ? d->receiver_boot : d->telling);
    chr_put_u64le(out + 24, d->up_to);
    chr_put_u64le(out + 32, messages ? 0 : d->receiver_boot);
}

chr_err delivered_take(chr_slice bytes, struct delivered *out)
{
    const uint8_t *p = bytes.ptr;
    if (bytes.len != DELIVERED_BYTES || (p[0] != DELIVER_MESSAGES && p[0] != DELIVER_FILTERS) ||
        p[1] > 1 || !zeros_at(p + 2, 6))
        return CHR_EMALFORMED;
    bool messages = p[0] == DELIVER_MESSAGES;
    uint64_t third = chr_get_u64le(p + 16), last = chr_get_u64le(p + 32);
    *out = (struct delivered){.type = (enum deliver_type)p[0],
                              .again = p[1],
                              .boot = chr_get_u64le(p + 8),
                              .telling = messages ? 0 : third,
                              .up_to = chr_get_u64le(p + 24),
                              .receiver_boot = messages ? third : last};
    return messages && last ? CHR_EMALFORMED : CHR_OK;
}
