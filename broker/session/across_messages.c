/* broker/session/across_messages.c: messages that go to a peer directly, and those that come so
 * (numbered.h). */
#include <stdlib.h>

#include "base/log.h"
#include "bridge/peer_codec.h"
#include "broker/cluster.h"
#include "broker/session/across_internal.h"
#include "broker/session/internal.h"

/* ---- Out --------------------------------------------------------------------------------------
 */

/* Who published it, by a number that is the same on every road (session__publisher). */
static uint64_t publisher_of(const struct broker_loop *loop, const struct message *message)
{
    const struct session *s =
        message->publisher ? session__by_number(loop, message->publisher) : NULL;
    return s ? session__publisher(s) : message->publisher;
}

/* lock. One numbered message: no more groups than it may bear. */
static chr_err push(struct across *a, const struct route *route, struct message *message,
                    uint64_t publisher, uint32_t peer, bool plain, const uint64_t *groups,
                    uint32_t groups_count)
{
    size_t bytes_max = cluster_format(a->node->cluster) >= PEER_FORMAT_LARGE
                           ? ACROSS_MESSAGE_BYTES_MAX
                           : ACROSS_MESSAGE_BYTES_MAX_1;
    if (a->list[peer].forgotten || /* meanwhile */
        message_bytes(message) + groups_count * sizeof *groups > bytes_max)
        return CHR_EFULL;
    return numbered_push(&a->list[peer].out, message, publisher, route->logged_index, plain, groups,
                         groups_count);
}

void across_send(struct broker_loop *loop, const struct route *route, struct message *message,
                 uint32_t peer, bool plain, const uint64_t *groups, uint32_t groups_count)
{
    struct across *a = across_of(loop->node);
    uint64_t publisher = publisher_of(loop, message);
    uint32_t from = 0;
    bool any = false;
    chr_err err;
    pthread_mutex_lock(&a->lock);
    do {
        uint32_t count = CHR_MIN(groups_count - from, DELIVER_GROUPS_MAX);
        err = push(a, route, message, publisher, peer, plain && from == 0,
                   groups ? groups + from : NULL, count);
        from += count;
        any |= !err;
    } while (!err && from < groups_count);
    pthread_mutex_unlock(&a->lock);
    if (err)
        LOOP_COUNT_DROP(loop, err == CHR_ENOMEM ? DROP_MEMORY : DROP_PEER);
    if (any)
        atomic_fetch_or_explicit(&a->pending, 1u << peer, memory_order_relaxed);
}

void across_flush(struct across *a)
{
    if (CHR_LIKELY(atomic_load_explicit(&a->pending, memory_order_relaxed) == 0))
        return;
    uint32_t pending = atomic_exchange_explicit(&a->pending, 0, memory_order_relaxed);
    pthread_mutex_lock(&a->lock);
    for (uint32_t i = 0; i < a->count; i++)
        if ((pending >> i & 1) && !a->list[i].forgotten)
            across__messages_send(a, &a->list[i]);
    pthread_mutex_unlock(&a->lock);
}

static void put_item(struct across *a, const struct numbered_item *item, int64_t now_us)
{
    const struct message *m = item->message;
    int64_t left_us = m->has_expiry ? CHR_MAX(m->expires_mono_us - now_us, 0) : 0;
    deliver_message_put(&a->buf,
                        &(struct deliver_message){.qos = m->qos,
                                                  .retain = m->retain,
                                                  .expires = m->has_expiry,
                                                  .expires_ms = (uint64_t)(left_us + 999) / 1000,
                                                  .plain = item->plain,
                                                  .publisher = item->publisher,
                                                  .after = item->after,
                                                  .groups_count = item->groups_count,
                                                  .topic = m->topic,
                                                  .properties = m->properties,
                                                  .payload = m->payload},
                        item->groups);
}

/* May it be sent, too? One goes whatever its size. */
static bool has_room(const struct numbered_out *out, size_t gathered,
                     const struct numbered_item *item)
{
    uint64_t bytes = out->sent_bytes + gathered;
    return bytes == 0 || bytes + message_bytes(item->message) <= ACROSS_SENT_BYTES_MAX;
}

void across__messages_send(struct across *a, struct across_peer *p)
{
    struct numbered_out *out = &p->out;
    int64_t now_us = out->unsent ? chr_clock_mono_us(a->node->clock) : 0;
    while (out->unsent && p->up[PEERS_BULK] && has_room(out, 0, out->unsent)) {
        uint32_t count = 0;
        chr_buf_reset(&a->buf);
        deliver_head_put(&a->buf, &(struct deliver_head){.from_boot = a->boot,
                                                         .to_boot = p->boot,
                                                         .first = out->unsent_number});
        const struct numbered_item *item = out->unsent;
        for (; item && a->buf.len < ACROSS_GATHER_BYTES &&
               (count == 0 || has_room(out, a->buf.len, item));
             item = item->next, count++)
            put_item(a, item, now_us);
        if (across__send_gathered(a, p))
            return; /* goes on when there is room, or a connection, or memory */
        if (out->sent_bytes == 0) {
            p->sent_us = now_us;
            p->sent_mark = 0;
        }
        while (count--)
            numbered_sent(out);
    }
}

void across__messages_acknowledged(struct across *a, struct across_peer *p,
                                   const struct delivered *d)
{
    if (d->receiver_boot != p->boot)
        return;
    if (numbered_acknowledged(&p->out, d->up_to)) {
        p->sent_us = chr_clock_mono_us(a->node->clock);
        p->sent_mark = 0;
    }
    if (d->again)
        (void)numbered_rewind(&p->out);
    across__messages_send(a, p);
}

void across__messages_lane_up(struct across *a, struct across_peer *p)
{
    (void)a;
    (void)numbered_rewind(&p->out);
    p->sent_mark = 0; /* of the connection before */
}

/* What is still on its way is not lost, however long a slow link takes: sending it again would only
 * take its place. Once the peer has taken all that the lane had been given by now, an
 * acknowledgement is due. */
void across__messages_tick(struct across *a, struct across_peer *p, int64_t now_us)
{
    struct peers_lane_stats lane;
    if (!p->up[PEERS_BULK] || !p->out.sent_bytes || now_us - p->sent_us <= ACROSS_SEND_AGAIN_US ||
        peers_lane_stats(a->peers, p->node, PEERS_BULK, &lane))
        return;
    if (!p->sent_mark) {
        p->sent_mark = lane.cost_sent;
    } else if (lane.cost_taken >= p->sent_mark) {
        p->sent_us = now_us;
        p->sent_mark = 0;
        (void)numbered_rewind(&p->out);
    }
}

void across__messages_new_process(struct across *a, struct across_peer *p)
{
    uint64_t count = numbered_out_clear(&p->out);
    (void)a;
    if (count)
        chr_log_info("cluster", "messages for subscribers of a process that ended are dropped",
                     CHR_KV_U("node", p->node), CHR_KV_U("messages", count));
}

/* ---- In ---------------------------------------------------------------------------------------
 */

void across__messages_ack(struct across *a, struct across_peer *p)
{
    if (!p->ack_owed)
        return;
    uint8_t bytes[DELIVERED_BYTES];
    delivered_put(&(struct delivered){.type = DELIVER_MESSAGES,
                                      .again = p->gap_told,
                                      .boot = p->in.boot,
                                      .up_to = p->in.last,
                                      .receiver_boot = a->boot},
                  bytes);
    chr_slice part = chr_slice_of(bytes, sizeof bytes);
    if (peers_send(a->peers, p->node, PEERS_CONTROL, PEERS_DELIVERED, &part, 1) == CHR_OK)
        p->ack_owed = false;
}

static struct message *message_of(struct across *a, const struct deliver_message *d)
{
    struct message *m =
        message_new(d->topic, d->properties, d->payload, d->qos, d->retain, /* publisher */ 0);
    if (!m)
        return NULL;
    m->local = true; /* A1 */
    m->has_expiry = d->expires;
    if (d->expires)
        m->expires_mono_us = chr_clock_mono_us(a->node->clock) + (int64_t)d->expires_ms * 1000;
    return m;
}

void across__messages_received(struct across *a, struct across_peer *p, chr_slice bytes)
{
    struct deliver_head head;
    struct deliver_message d;
    struct arrivals list = {0};
    if (deliver_head_take(&bytes, &head) || head.to_boot != a->boot)
        return;
    uint64_t number = head.first;
    bool gap = false;
    for (; bytes.len && !gap; number++) {
        if (deliver_message_take(&bytes, &d)) {
            chr_log_error("cluster", "a message from a peer is malformed; it is dropped",
                          CHR_KV_U("node", p->node));
            break;
        }
        switch (numbered_take(&p->in, head.from_boot, number)) {
        case NUMBERED_TAKE:
            across__arrivals_add(&list, across__arrival(a, message_of(a, &d), d.publisher, &d));
            p->gap_told = false;
            break;
        case NUMBERED_HAD:
            break;
        case NUMBERED_GAP:
            gap = true;
            break;
        case NUMBERED_OLD:
            return;
        }
    }
    across__arrivals_post(a, p, &list);
    /* Once for a gap: everything behind it says the same. */
    if (gap && p->gap_told)
        return;
    p->gap_told = gap;
    p->ack_owed = true;
    across__messages_ack(a, p);
}
