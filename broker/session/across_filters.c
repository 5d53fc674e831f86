/* broker/session/across_filters.c: who hears which filters have subscribers where (interest.h).
 *
 *     TELL_ALL ─▶ TELL_WALK ─last part─▶ TELL_CHANGES ◀─┐ new versions
 *         ▲          │ it lost track         │          ├─┘
 *         └──────────┴───────────────────────┴ changes are not kept any more
 *
 * Each telling has a number, which the peer repeats in its acknowledgements: those of an earlier
 * one are nobody's any more. A connection that was lost may have taken messages with it; the peer
 * is then asked, by changes that may be none, whether it still knows what it has acknowledged. */
#include "base/bytes.h"
#include "base/log.h"
#include "broker/session/across_internal.h"

/* ---- Telling ----------------------------------------------------------------------------------
 */

static void begin_walk(struct across *a, struct across_peer *p)
{
    p->telling = TELL_WALK;
    p->telling_number = ++a->tellings;
    p->walk_from = own_interest_version(a->own);
    p->part = 0;
    p->cursor = 0;
    p->unacknowledged = 0;
    p->version_known = p->version_sent = 0;
    p->probe = false;
}

static chr_err tell_part(struct across *a, struct across_peer *p)
{
    uint32_t cursor = p->cursor;
    struct deliver_filters head = {.type = DELIVER_FILTERS,
                                   .boot = a->boot,
                                   .telling = p->telling_number,
                                   .from = p->walk_from,
                                   .to = p->part};
    chr_buf_reset(&a->buf);
    deliver_filters_put(&a->buf, &head);
    chr_err err = own_interest_walk(a->own, &cursor, ACROSS_GATHER_BYTES, &a->buf);
    if (err)
        return err;
    a->buf.ptr[DELIVER_FILTERS_LAST] = cursor == 0;
    err = across__send_gathered(a, p);
    if (err)
        return err;
    p->cursor = cursor;
    p->part++;
    if (cursor == 0) {
        p->telling = TELL_CHANGES;
        p->version_sent = p->walk_from;
    }
    return CHR_OK;
}

static chr_err tell_changes(struct across *a, struct across_peer *p)
{
    struct deliver_filters head = {.type = DELIVER_CHANGES,
                                   .boot = a->boot,
                                   .telling = p->telling_number,
                                   .from = p->version_sent};
    uint64_t to;
    chr_buf_reset(&a->buf);
    deliver_filters_put(&a->buf, &head);
    chr_err err = own_interest_changes(a->own, p->version_sent, ACROSS_GATHER_BYTES, &a->buf, &to);
    if (err)
        return err;
    chr_put_u64le(a->buf.ptr + DELIVER_FILTERS_TO, to);
    err = across__send_gathered(a, p);
    if (!err) {
        p->version_sent = to;
        p->probe = false;
    }
    return err;
}

static bool something_to_tell(const struct across *a, const struct across_peer *p)
{
    return p->telling != TELL_CHANGES || p->probe || p->version_sent < own_interest_version(a->own);
}

/* CONTROL */
static void acknowledge(struct across *a, struct across_peer *p)
{
    uint8_t bytes[DELIVERED_BYTES];
    delivered_put(&(struct delivered){.type = DELIVER_FILTERS,
                                      .again = p->all_wanted,
                                      .boot = p->boot,
                                      .telling = p->telling_heard,
                                      .up_to = p->version_heard,
                                      .receiver_boot = a->boot},
                  bytes);
    chr_slice part = chr_slice_of(bytes, sizeof bytes);
    if (peers_send(a->peers, p->node, PEERS_CONTROL, PEERS_DELIVERED, &part, 1) == CHR_OK)
        p->filters_ack_owed = false;
}

void across__filters_send(struct across *a, struct across_peer *p)
{
    if (p->filters_ack_owed)
        acknowledge(a, p);
    while (p->up[PEERS_BULK] && p->unacknowledged < ACROSS_TELLING_MAX && something_to_tell(a, p)) {
        if (p->telling == TELL_ALL)
            begin_walk(a, p);
        chr_err err = p->telling == TELL_WALK ? tell_part(a, p) : tell_changes(a, p);
        if (err == CHR_ENOTFOUND && p->telling == TELL_CHANGES) {
            p->telling = TELL_ALL;
            continue;
        }
        if (err)
            return; /* goes on when there is room, or a connection, or memory */
        if (p->unacknowledged++ == 0)
            p->told_us = chr_clock_mono_us(a->node->clock);
    }
}

void across__filters_acknowledged(struct across *a, struct across_peer *p,
                                  const struct delivered *d)
{
    if (d->telling != p->telling_number)
        return;
    p->told_us = chr_clock_mono_us(a->node->clock);
    if (p->unacknowledged)
        p->unacknowledged--;
    if (d->again)
        p->telling = TELL_ALL;
    else if (d->up_to > p->version_known)
        p->version_known = d->up_to;
    across__filters_send(a, p);
    chr_wake_signal(&a->wake);
}

void across__filters_lane_up(struct across *a, struct across_peer *p)
{
    p->unacknowledged = 0;
    p->told_us = chr_clock_mono_us(a->node->clock);
    if (p->telling == TELL_CHANGES && p->version_known) {
        p->version_sent = p->version_known;
        p->probe = true;
    } else {
        p->telling = TELL_ALL;
    }
}

void across__filters_tick(struct across *a, struct across_peer *p, int64_t now_us)
{
    if (p->up[PEERS_BULK] && p->unacknowledged && now_us - p->told_us > ACROSS_TELL_AGAIN_US)
        across__filters_lane_up(a, p);
}

bool across__filters_known(const struct across *a, uint64_t version)
{
    for (uint32_t i = 0; i < a->count; i++)
        if (a->list[i].up[PEERS_BULK] && a->list[i].version_known < version)
            return false;
    return true;
}

/* ---- Hearing ----------------------------------------------------------------------------------
 */

static void lost_track(struct across_peer *p)
{
    peer_interest_free(p->building);
    p->building = NULL;
    p->all_wanted = true;
}

void across__filters_forget(struct across *a, struct across_peer *p)
{
    subscriptions_peer_replace(a->node->subscriptions, across__index(a, p), NULL);
    lost_track(p);
    p->version_heard = 0;
    p->telling = TELL_ALL;
}

static void new_process(struct across *a, struct across_peer *p, uint64_t boot)
{
    if (p->boot) {
        subscriptions_peer_replace(a->node->subscriptions, across__index(a, p), NULL);
        across__messages_new_process(a, p);
    }
    lost_track(p);
    p->boot = boot;
    p->telling_heard = p->version_heard = 0;
}

static chr_err take_items(struct peer_interest *interest, chr_slice bytes)
{
    struct deliver_filter filter;
    chr_err err = CHR_OK;
    bool changed;
    while (!err && bytes.len) {
        err = deliver_filter_take(&bytes, &filter);
        if (!err)
            err = peer_interest_set(interest, &filter, &changed);
    }
    return err;
}

static void hear_part(struct across *a, struct across_peer *p, const struct deliver_filters *head,
                      chr_slice items)
{
    if (head->to == 0) {
        lost_track(p);
        p->telling_heard = head->telling;
        p->building_from = head->from;
        p->building_part = 0;
        p->version_heard = 0;
        if (peer_interest_new(&p->building))
            return;
        p->all_wanted = false;
    }
    if (p->building && head->to < p->building_part)
        return; /* had it */
    if (!p->building || head->telling != p->telling_heard || head->to > p->building_part ||
        take_items(p->building, items)) {
        lost_track(p);
        p->telling_heard = head->telling;
        return;
    }
    p->building_part++;
    if (!head->last)
        return;
    chr_log_debug("cluster", "a peer's filters are known", CHR_KV_U("node", p->node),
                  CHR_KV_U("filters", p->building->count));
    subscriptions_peer_replace(a->node->subscriptions, across__index(a, p), p->building);
    p->building = NULL;
    p->version_heard = p->building_from;
}

static void hear_changes(struct across *a, struct across_peer *p,
                         const struct deliver_filters *head, chr_slice items)
{
    if (head->telling != p->telling_heard || !p->version_heard || head->from > p->version_heard) {
        p->all_wanted = true;
        p->telling_heard = head->telling;
        return;
    }
    if (head->to <= p->version_heard)
        return; /* had them (I2) */
    if (subscriptions_peer_changed(a->node->subscriptions, across__index(a, p), items)) {
        lost_track(p);
        return;
    }
    p->version_heard = head->to;
}

void across__filters_received(struct across *a, struct across_peer *p, chr_slice bytes)
{
    struct deliver_filters head;
    if (deliver_filters_take(&bytes, &head) || head.boot < p->boot)
        return;
    if (head.boot > p->boot)
        new_process(a, p, head.boot);
    if (head.telling < p->telling_heard)
        return; /* of a connection that is gone */
    if (head.type == DELIVER_FILTERS)
        hear_part(a, p, &head, bytes);
    else
        hear_changes(a, p, &head, bytes);
    p->filters_ack_owed = true;
    acknowledge(a, p);
}
