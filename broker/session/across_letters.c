/* broker/session/across_letters.c: what came from other nodes, directly or by the log, to the
 * loops.
 *
 * Each publisher's messages go to one loop, which knows it by its number, so they keep their order
 * whatever road they come on: one that was sent after a message in the log says so by that entry's
 * index and waits here until it was applied. That loop delivers as if a client of its own had
 * published, but to this node's subscribers alone. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/hash.h"
#include "base/log.h"
#include "broker/config.h"
#include "broker/session/across_internal.h"
#include "broker/session/internal.h"
#include "db/durable.h"

/* Arrivals for one loop. */
struct letter {
    struct loop_mail mail;
    struct arrivals list;
    uint32_t dropped;
};

/* ---- Arrivals ---------------------------------------------------------------------------------
 */

static uint64_t bytes_of(const struct arrival *r)
{
    return sizeof *r + r->groups_count * sizeof r->groups[0] + message_bytes(r->message);
}

struct arrival *across__arrival(struct across *a, struct message *message, uint64_t publisher,
                                const struct deliver_message *from)
{
    uint32_t groups = from ? from->groups_count : 0;
    struct arrival *r = message ? malloc(sizeof *r + groups * sizeof r->groups[0]) : NULL;
    if (!r) {
        chr_log_error("cluster", "out of memory for a message of another node");
        message_unref(message);
        return NULL;
    }
    *r = (struct arrival){.message = message,
                          .after = from ? from->after : 0,
                          .since_us = chr_clock_mono_us(a->node->clock),
                          .loop = (uint32_t)(chr_hash_u64(publisher) % a->node->config->loops),
                          .plain = !from || from->plain,
                          .groups_count = groups};
    for (uint32_t i = 0; i < groups; i++)
        r->groups[i] = deliver_group(from, i);
    return r;
}

void across__arrivals_add(struct arrivals *list, struct arrival *r)
{
    if (!r)
        return;
    r->next = NULL;
    if (list->last)
        list->last->next = r;
    else
        list->first = r;
    list->last = r;
    list->bytes += bytes_of(r);
}

static struct arrival *take_first(struct arrivals *list)
{
    struct arrival *r = list->first;
    list->first = r->next;
    if (!list->first)
        list->last = NULL;
    list->bytes -= bytes_of(r);
    return r;
}

static void arrival_free(struct arrival *r)
{
    message_unref(r->message);
    free(r);
}

static void arrivals_free(struct arrivals *list)
{
    while (list->first)
        arrival_free(take_first(list));
}

/* ---- Letters ----------------------------------------------------------------------------------
 */

static void open_letter(struct broker_loop *loop, struct loop_mail *mail)
{
    struct letter *letter = CHR_CONTAINER_OF(mail, struct letter, mail);
    atomic_fetch_sub(&state_of(loop)->inbox_bytes, letter->list.bytes);
    for (; letter->dropped; letter->dropped--)
        LOOP_COUNT_DROP(loop, DROP_INBOX);
    while (letter->list.first) {
        struct arrival *r = take_first(&letter->list);
        session__deliver_arrived(loop, r->message, r->plain, r->groups, r->groups_count);
        arrival_free(r);
    }
    free(letter);
}

/* post_lock. To their loops, at once. */
static void post(struct across *a, struct arrivals *list)
{
    uint32_t loops = a->node->config->loops;
    if (!a->open) {
        arrivals_free(list);
        return;
    }
    while (list->first) {
        /* Those for one loop together; most lists are for one. */
        uint32_t number = list->first->loop % loops;
        struct broker_loop *loop = a->node->loops[number];
        struct letter *letter = calloc(1, sizeof *letter);
        struct arrivals others = {0};
        uint64_t room = INBOX_BYTES_MAX - CHR_MIN((uint64_t)INBOX_BYTES_MAX,
                                                  atomic_load_explicit(&state_of(loop)->inbox_bytes,
                                                                       memory_order_relaxed));
        while (list->first) {
            struct arrival *r = take_first(list);
            if (r->loop % loops != number) {
                across__arrivals_add(&others, r);
            } else if (letter && letter->list.bytes + bytes_of(r) <= room) {
                across__arrivals_add(&letter->list, r);
            } else {
                if (letter)
                    letter->dropped++;
                arrival_free(r);
            }
        }
        *list = others;
        if (!letter)
            continue;
        letter->mail.run = open_letter;
        atomic_fetch_add_explicit(&state_of(loop)->inbox_bytes, letter->list.bytes,
                                  memory_order_relaxed);
        loop_post(loop, &letter->mail);
    }
}

/* post_lock. What need not wait any more; before_us: whatever came before that. */
static void release(struct across *a, struct across_peer *p, int64_t before_us)
{
    struct arrivals ready = {0};
    uint64_t applied = atomic_load(&a->applied);
    while (p->held.first &&
           (p->held.first->after <= applied || p->held.first->since_us < before_us ||
            p->held.bytes > ACROSS_HELD_BYTES_MAX)) {
        across__arrivals_add(&ready, take_first(&p->held));
        atomic_fetch_sub(&a->held_count, 1);
    }
    post(a, &ready);
}

void across__arrivals_post(struct across *a, struct across_peer *p, struct arrivals *list)
{
    pthread_mutex_lock(&a->post_lock);
    /* Counted before `applied` is looked at, and the other way round in across_applied: one of the
     * two sees the other. */
    while (list->first) {
        atomic_fetch_add(&a->held_count, 1);
        across__arrivals_add(&p->held, take_first(list));
    }
    release(a, p, INT64_MIN);
    pthread_mutex_unlock(&a->post_lock);
}

static void release_all(struct across *a, int64_t before_us)
{
    pthread_mutex_lock(&a->post_lock);
    for (uint32_t i = 0; i < SUBSCRIPTIONS_PEERS_MAX; i++)
        if (a->list[i].held.first)
            release(a, &a->list[i], before_us);
    pthread_mutex_unlock(&a->post_lock);
}

void across__held_tick(struct across *a, int64_t now_us)
{
    if (atomic_load(&a->held_count))
        release_all(a, now_us - ACROSS_HELD_US_MAX);
}

void across__held_free(struct across *a)
{
    for (uint32_t i = 0; i < SUBSCRIPTIONS_PEERS_MAX; i++)
        arrivals_free(&a->list[i].held);
}

/* ---- From the log -----------------------------------------------------------------------------
 */

struct from_log {
    struct across *a;
    struct arrivals list;
    int64_t age_us; /* of the entry */
};

static void take_logged(void *arg, const struct db_publish *publish)
{
    struct from_log *f = arg;
    if (publish->topic.ptr[0] == '$' ||
        !subscriptions_wanted(f->a->node->subscriptions, publish->topic))
        return;
    struct message *m = message_new(publish->topic, publish->properties, publish->payload,
                                    publish->qos, publish->retain, 0);
    if (m) {
        m->local = m->logged = true;
        m->has_expiry = publish->expiry_s != UINT32_MAX;
        if (m->has_expiry)
            m->expires_mono_us = chr_clock_mono_us(f->a->node->clock) - f->age_us +
                                 (int64_t)publish->expiry_s * 1000000;
    }
    across__arrivals_add(&f->list, across__arrival(f->a, m, publish->publisher, NULL));
}

void across_entry_applied(struct across *a, chr_slice operations,
                          const struct db_apply_result *result)
{
    struct broker_node *node = a->node;
    if (subscriptions_count(node->subscriptions) == 0)
        return;
    int64_t age_us = chr_clock_wall_us(node->clock) - chr_hlc_unix_us(db_replicated_time(node->db));
    struct from_log f = {.a = a, .age_us = CHR_MAX(age_us, 0)};
    db_entry_messages(operations, result, take_logged, &f);
    if (!f.list.first)
        return;
    pthread_mutex_lock(&a->post_lock);
    post(a, &f.list);
    pthread_mutex_unlock(&a->post_lock);
}

void across_applied(struct across *a)
{
    atomic_store(&a->applied, db_apply_index(a->node->db));
    if (atomic_load(&a->held_count))
        release_all(a, INT64_MIN);
}
