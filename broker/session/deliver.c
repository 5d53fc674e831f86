/* broker/session/deliver.c: one message to all who want it.
 *
 * Sessions of this loop are served at once. A loop that has recipients of its own gets the message
 * once, by mail, and matches it itself; the mail of a turn goes out as one letter per loop, so
 * messages of one publisher reach each loop in order. Shared subscriptions are decided here: one
 * member, wherever it lives, is named in the letter.
 *
 * In a cluster the same is done for other nodes (across.h): each that has recipients gets the
 * message once, unless it has it from the log, and a group that has members elsewhere is served
 * there when it is that node's turn. */
#include <stdlib.h>

#include "broker/session/across.h"
#include "broker/session/authorize.h"
#include "broker/session/encoded.h"
#include "broker/session/internal.h"
#include "proto/mqtt/encode.h"

#define OUTBOX_ITEMS_FIRST 16u
#define PICKS_STACK        8u

struct outbox_item {
    struct message *message; /* a reference */
    uint64_t session_number; /* 0: whoever of the loop has subscribed */
    uint32_t id;
    uint32_t share; /* group that named the session */
    uint8_t qos;
    bool retain;
};

/* A letter with the messages of a turn. */
struct outbox {
    struct loop_mail mail;
    uint64_t bytes;
    uint32_t count, max;
    struct outbox_item items[];
};

struct session *session__by_number(const struct broker_loop *loop, uint64_t number)
{
    const struct loop_session_state *state = state_of(loop);
    struct session *s = state->by_number[number & state->by_number_mask];
    while (s && s->number != number)
        s = s->number_next;
    return s;
}

/* ---- Here -------------------------------------------------------------------------------------
 */

/* Above QoS 0 what clients publish comes to durable sessions from the log's queue. */
static bool from_the_log(const struct message *message)
{
    return message->qos > 0 && !(message->topic.len && message->topic.ptr[0] == '$');
}

/* A match without any has no block of them. */
static chr_slice ids_at(const struct match *match, uint32_t at, uint32_t len)
{
    return len ? chr_slice_of(match->ids + at, len) : CHR_LIT("");
}

static void deliver_own(struct message *message, const struct match *match)
{
    bool stored = from_the_log(message);
    struct encoded encoded;
    encoded_init(&encoded, match->own_count > 1 ? message : NULL);
    for (uint32_t i = 0; i < match->own_count; i++) {
        const struct recipient *r = &match->own[i];
        if (CHR_UNLIKELY(message->publisher == r->session->number)) {
            if (r->qos_local == 0xff)
                continue; /* No Local [MQTT-3.8.3-3] */
            if (stored && r->session->durable && r->qos_local)
                continue;
            session_deliver(r->session, message, CHR_MIN(r->qos_local, message->qos),
                            message->retain && r->retain_as_published_local,
                            ids_at(match, r->local_ids_at, r->local_ids_len));
            continue;
        }
        if (stored && r->session->durable && r->qos)
            continue;
        uint8_t qos = CHR_MIN(r->qos, message->qos);
        bool retain = message->retain && r->retain_as_published;
        if (qos == 0 && r->ids_len == 0 && session_deliver_encoded(r->session, &encoded, retain))
            continue;
        session_deliver(r->session, message, qos, retain, ids_at(match, r->ids_at, r->ids_len));
    }
}

static void deliver_to(struct session *session, struct message *message, uint8_t qos, bool retain,
                       uint32_t id, uint32_t share)
{
    if (!session__may_read(session, message->topic))
        return;
    uint8_t block[8];
    struct mqtt_property_writer w = mqtt_property_writer(block, sizeof block);
    if (id)
        mqtt_put_number(&w, MQTT_PROPERTY_SUBSCRIPTION_IDENTIFIER, id);
    session_deliver_shared(session, message, qos, retain, mqtt_property_block(&w), share);
}

/* ---- There ------------------------------------------------------------------------------------
 */

static void open_letter(struct broker_loop *loop, struct loop_mail *mail)
{
    struct outbox *box = CHR_CONTAINER_OF(mail, struct outbox, mail);
    struct routes *routes = &state_of(loop)->routes;
    for (uint32_t i = 0; i < box->count; i++) {
        const struct outbox_item *item = &box->items[i];
        if (item->session_number) {
            struct session *s = session__by_number(loop, item->session_number);
            if (s)
                deliver_to(s, item->message, item->qos, item->retain, item->id, item->share);
        } else {
            struct route *route = routes_get(routes, item->message->topic);
            const struct match *match = route ? route_match(routes, route) : NULL;
            if (match)
                deliver_own(item->message, match);
        }
        message_unref(item->message);
    }
    atomic_fetch_sub(&state_of(loop)->inbox_bytes, box->bytes);
    free(box);
}

static void post_item(struct broker_loop *loop, struct broker_loop *target,
                      const struct outbox_item *item)
{
    struct loop_session_state *state = state_of(loop);
    struct loop_session_state *theirs = state_of(target);
    size_t bytes = message_bytes(item->message);
    if (!item->message->flow_controlled &&
        atomic_load_explicit(&theirs->inbox_bytes, memory_order_relaxed) + bytes >
            INBOX_BYTES_MAX) {
        LOOP_COUNT_DROP(loop, DROP_INBOX);
        return;
    }
    struct outbox *box = state->outboxes[target->number];
    if (!box || box->count == box->max) {
        uint32_t max = box ? box->max * 2 : OUTBOX_ITEMS_FIRST;
        struct outbox *bigger = realloc(box, sizeof *box + max * sizeof box->items[0]);
        if (!bigger) {
            LOOP_COUNT_DROP(loop, DROP_MEMORY);
            return;
        }
        if (!box)
            *bigger = (struct outbox){.mail = {.run = open_letter}};
        bigger->max = max;
        state->outboxes[target->number] = box = bigger;
    }
    message_ref(item->message);
    box->items[box->count++] = *item;
    box->bytes += bytes;
    atomic_fetch_add_explicit(&theirs->inbox_bytes, bytes, memory_order_relaxed);
}

void session__outboxes_flush(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    struct across *across = across_of(loop->node);
    if (CHR_UNLIKELY(across != NULL))
        across_flush(across);
    for (uint32_t i = 0; i < loop->node->config->loops; i++) {
        struct outbox *box = state->outboxes[i];
        if (!box)
            continue;
        state->outboxes[i] = NULL;
        loop_post(loop->node->loops[i], &box->mail);
    }
}

void session__outboxes_free(struct broker_loop *loop)
{
    struct loop_session_state *state = state_of(loop);
    for (uint32_t i = 0; state->outboxes && i < loop->node->config->loops; i++) {
        struct outbox *box = state->outboxes[i];
        for (uint32_t k = 0; box && k < box->count; k++)
            message_unref(box->items[k].message);
        free(box);
    }
    free((void *)state->outboxes);
    state->outboxes = NULL;
}

/* ---- Everyone ---------------------------------------------------------------------------------
 */

static void deliver_pick(struct broker_loop *loop, struct message *message,
                         const struct share_pick *p)
{
    struct outbox_item item = {.message = message,
                               .session_number = p->session_number,
                               .id = p->options.id,
                               .share = p->group,
                               .qos = CHR_MIN(p->options.qos, message->qos),
                               .retain = message->retain && p->options.retain_as_published};
    if (p->loop != loop) {
        post_item(loop, p->loop, &item);
        return;
    }
    struct session *s = session__by_number(loop, p->session_number);
    if (s)
        deliver_to(s, message, item.qos, item.retain, item.id, item.share);
}

void session__deliver_again(struct broker_loop *loop, struct message *message, uint32_t share)
{
    struct routes *routes = &state_of(loop)->routes;
    struct route *route = routes_get(routes, message->topic);
    struct share_pick pick = {0};
    const struct match *match;
    do
        match = route ? route_match(routes, route) : NULL;
    while (match && !subscriptions_pick_group(loop->node->subscriptions, message->topic, match,
                                              share, &pick));
    if (pick.loop)
        deliver_pick(loop, message, &pick);
    else
        LOOP_COUNT_DROP(loop, DROP_MEMBER);
}

/* ---- Other nodes ------------------------------------------------------------------------------
 */

static bool is_local(const struct message *message)
{
    return message->local || message->own || message->flow_controlled;
}

/* Whose turn it is in groups that have members on several nodes: one that can be reached, if there
 * is one. */
static void choose_nodes(struct broker_loop *loop, const struct message *message,
                         struct match *match)
{
    for (uint32_t i = 0; i < match->choices_count; i++) {
        struct share_choice *c = &match->choices[i];
        bool here = c->local != UINT32_MAX;
        if (is_local(message)) {
            c->chosen = SHARE_CHOSEN_HERE;
            continue;
        }
        if (c->durable && message->logged && from_the_log(message)) {
            c->chosen = SHARE_CHOSEN_NONE;
            continue;
        }
        uint32_t peers = c->peers & across_up(across_of(loop->node));
        if (!peers && !here)
            peers = c->peers;
        uint32_t count = (uint32_t)__builtin_popcount(peers) + here, turn = c->turn++ % count;
        if (here && turn-- == 0) {
            c->chosen = SHARE_CHOSEN_HERE;
            continue;
        }
        while (turn--)
            peers &= peers - 1;
        c->chosen = (uint32_t)__builtin_ctz(peers);
    }
}

/* Does another node, or the log, serve the group at that place of match->groups? */
static bool chosen_elsewhere(const struct match *match, uint32_t group)
{
    for (uint32_t i = 0; i < match->choices_count; i++)
        if (match->choices[i].local == group)
            return match->choices[i].chosen != SHARE_CHOSEN_HERE;
    return false;
}

static void deliver_across(struct broker_loop *loop, struct message *message,
                           const struct route *route, const struct match *match)
{
    if (is_local(message))
        return;
    uint32_t peers = message->logged ? 0 : match->peers;
    for (uint32_t i = 0; i < match->choices_count; i++)
        if (match->choices[i].chosen < SUBSCRIPTIONS_PEERS_MAX)
            peers |= 1u << match->choices[i].chosen;
    while (peers) {
        uint32_t peer = (uint32_t)__builtin_ctz(peers), count = 0;
        uint64_t stack[PICKS_STACK], *groups = stack;
        peers &= peers - 1;
        if (match->choices_count > PICKS_STACK)
            groups = malloc(match->choices_count * sizeof *groups);
        if (!groups) {
            LOOP_COUNT_DROP(loop, DROP_MEMORY);
            continue;
        }
        for (uint32_t i = 0; i < match->choices_count; i++)
            if (match->choices[i].chosen == peer)
                groups[count++] = match->choices[i].group;
        across_send(loop, route, message, peer, !message->logged && (match->peers >> peer & 1),
                    groups, count);
        if (groups != stack)
            free(groups);
    }
}

/* ---- Shared -----------------------------------------------------------------------------------
 */

static void deliver_shared(struct broker_loop *loop, struct message *message, struct route *route,
                           const struct match *match)
{
    struct share_pick stack[PICKS_STACK], *picks = stack, *more = NULL;
    struct routes *routes = &state_of(loop)->routes;
    uint32_t room = PICKS_STACK;
    for (;;) {
        if (match->groups_count > room) {
            room = match->groups_count;
            picks = realloc(more, room * sizeof *picks);
            if (!picks)
                goto no_memory;
            more = picks;
        }
        if (subscriptions_pick(loop->node->subscriptions, message->topic, match, picks))
            break;
        /* Groups are told by the match; they changed meanwhile: look again. */
        match = route_match(routes, route);
        if (!match)
            goto no_memory;
    }
    if (CHR_UNLIKELY(match->choices_count))
        choose_nodes(loop, message, &route->match);
    for (uint32_t i = 0; i < match->groups_count; i++)
        /* Of what the log has, it picks among a group's durable members. What it has not (none was
         * durable when it was accepted, or it was too large) is anybody's. */
        if (!(picks[i].durable && message->logged && from_the_log(message)) &&
            !chosen_elsewhere(match, i))
            deliver_pick(loop, message, &picks[i]);
    free(more);
    return;
no_memory:
    LOOP_COUNT_DROP(loop, DROP_MEMORY);
    free(more);
}

void session__deliver(struct broker_loop *loop, struct message *message, struct route *route)
{
    if (message->retain && message->own) {
        /* The node's own stay in memory; others are retained by the log. What cannot be kept is
         * delivered all the same. */
        chr_err err = retained_set(loop->node->retained, message);
        (void)err;
    }
    const struct match *match = route_match(&state_of(loop)->routes, route);
    if (!match || !match_any(match))
        return;
    uint64_t others = match->others;
    uint32_t groups = match->groups_count;
    bool across = match->peers || match->choices_count;
    deliver_own(message, match);
    for (uint32_t i = 0; others && i < loop->node->config->loops; i++) {
        struct broker_loop *target = loop->node->loops[i];
        if ((others >> (i & 63) & 1) && target && target != loop)
            post_item(loop, target, &(struct outbox_item){.message = message});
    }
    if (groups)
        deliver_shared(loop, message, route, match);
    else if (CHR_UNLIKELY(match->choices_count))
        choose_nodes(loop, message, &route->match);
    if (CHR_UNLIKELY(across))
        deliver_across(loop, message, route, &route->match);
}

/* The member of a group of this node that another node has chosen it for. */
static void deliver_told(struct broker_loop *loop, struct message *message, struct route *route,
                         uint64_t group)
{
    struct routes *routes = &state_of(loop)->routes;
    struct share_pick pick = {0};
    const struct match *match;
    do
        match = route_match(routes, route);
    while (match && !subscriptions_pick_told(loop->node->subscriptions, message->topic, match,
                                             group, &pick));
    if (pick.loop)
        deliver_pick(loop, message, &pick);
    else
        LOOP_COUNT_DROP(loop, DROP_MEMBER);
}

void session__deliver_arrived(struct broker_loop *loop, struct message *message, bool plain,
                              const uint64_t *groups, uint32_t groups_count)
{
    struct routes *routes = &state_of(loop)->routes;
    struct route *route = routes_get(routes, message->topic);
    const struct match *match = route ? route_match(routes, route) : NULL;
    if (!match) {
        LOOP_COUNT_DROP(loop, DROP_MEMORY);
        return;
    }
    uint64_t others = plain ? match->others : 0;
    if (plain)
        deliver_own(message, match);
    for (uint32_t i = 0; others && i < loop->node->config->loops; i++) {
        struct broker_loop *target = loop->node->loops[i];
        if ((others >> (i & 63) & 1) && target && target != loop)
            post_item(loop, target, &(struct outbox_item){.message = message});
    }
    for (uint32_t i = 0; i < groups_count; i++)
        deliver_told(loop, message, route, groups[i]);
}

void session__deliver_topic(struct broker_loop *loop, struct message *message)
{
    struct route *route = routes_get(&state_of(loop)->routes, message->topic);
    if (route)
        session__deliver(loop, message, route);
}
