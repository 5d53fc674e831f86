/* bridge/lane.c: the thread of a lane: one turn is letters, links, inbounds, then poll.
 *
 * Sleeping is as in broker/net/loop.c: the thread says so, looks at its queues once more, then
 * polls; a waker publishes its work and writes the eventfd only when it finds the thread sleeping.
 * Both sides are sequentially consistent, so one of them sees the other. */
#include <mosquitto.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/priority.h"
#include "bridge/peers_internal.h"

/* Its own eventfd, a link to each peer, an inbound from each (and the one it replaces), those that
 * have proved nothing. */
#define POLLS_MAX (1u + PEERS_MAX + 2u * PEERS_MAX + PEERS_UNPROVED_MAX + 1u)
/* Nothing is due later than that, so that no timer that was forgotten is forgotten for long. */
#define SLEEP_US_MAX INT64_C(1000000)

void peers__lane_wake(struct lane *lane)
{
    if (!atomic_exchange(&lane->sleeping, false))
        return;
    uint64_t one = 1;
    ssize_t n = write(lane->wake_fd, &one, sizeof one);
    (void)n; /* fails only at 2^64 wakes that nobody read */
}

static void take_letters(struct lane *lane)
{
    pthread_mutex_lock(&lane->peers->lock);
    struct letter *newest = lane->letters, *letter = NULL;
    lane->letters = NULL;
    lane->letters_count = 0;
    pthread_mutex_unlock(&lane->peers->lock);
    while (newest) { /* turned round: oldest first */
        struct letter *next = newest->next;
        newest->next = letter;
        letter = newest;
        newest = next;
    }
    while (letter) {
        struct letter *next = letter->next;
        peers__inbound_open(lane, letter);
        letter = next;
    }
}

/* A peer that was removed: when both lanes are done with it, its place is free. */
static void let_go(struct link *l)
{
    struct peers *peers = l->lane->peers;
    struct account *accounts[PEERS_LANES] = {NULL};
    peers__link_stop(l);
    pthread_mutex_lock(&peers->lock);
    struct slot *s = l->slot;
    if (!s->wanted) { /* not set again meanwhile */
        l->used = false;
        bool used = false;
        for (unsigned i = 0; i < PEERS_LANES; i++)
            used |= s->links[i].used;
        for (unsigned i = 0; i < PEERS_LANES && !used; i++) {
            struct link *link = &s->links[i];
            accounts[i] = link->account;
            link->account = NULL;
            link->messages_sent = link->bytes_sent = link->wire_bytes_sent = 0;
            link->connects = link->full = 0;
            s->node = 0;
        }
    }
    pthread_mutex_unlock(&peers->lock);
    for (unsigned i = 0; i < PEERS_LANES; i++)
        peers__account_unref(accounts[i]);
}

/* True: somebody has more to send at once. */
static bool turn_links(struct lane *lane)
{
    struct peers *peers = lane->peers;
    bool more = false;
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct slot *s = &peers->slots[i];
        struct link *l = &s->links[lane->number];
        pthread_mutex_lock(&peers->lock);
        bool used = l->used, wanted = s->wanted;
        pthread_mutex_unlock(&peers->lock);
        if (used && wanted)
            more |= peers__link_turn(l);
        else if (used)
            let_go(l);
    }
    return more;
}

/* Something came between the last look and `sleeping`? */
static bool work_waits(struct lane *lane)
{
    struct peers *peers = lane->peers;
    pthread_mutex_lock(&peers->lock);
    bool waits = lane->letters || atomic_load(&lane->stopping);
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        const struct link *l = &peers->slots[i].links[lane->number];
        /* What waits for its socket is not work. */
        waits |= l->used && (l->changed || !peers->slots[i].wanted ||
                             (l->first && !mosquitto_want_write(l->mosq)));
    }
    pthread_mutex_unlock(&peers->lock);
    return waits;
}

static int timeout_ms(const struct lane *lane)
{
    int64_t until_us = lane->now_us + SLEEP_US_MAX;
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        peers__link_due(&lane->peers->slots[i].links[lane->number], &until_us);
    peers__inbounds_due(lane, &until_us);
    return until_us <= lane->now_us ? 0 : (int)((until_us - lane->now_us + 999) / 1000);
}

static void turn(struct lane *lane)
{
    struct pollfd polls[POLLS_MAX];
    take_letters(lane);
    bool more = turn_links(lane);
    peers__inbounds_turn(lane);

    nfds_t count = 0;
    polls[count++] = (struct pollfd){.fd = lane->wake_fd, .events = POLLIN};
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct link *l = &lane->peers->slots[i].links[lane->number];
        l->poll = peers__link_poll(l, &polls[count]) ? &polls[count++] : NULL;
    }
    count += peers__inbounds_poll(lane, &polls[count]);
    CHR_ASSERT(count <= POLLS_MAX);

    int wait_ms = more ? 0 : timeout_ms(lane);
    if (wait_ms) {
        atomic_store(&lane->sleeping, true);
        if (work_waits(lane))
            wait_ms = 0;
    }
    int ready = poll(polls, count, wait_ms);
    atomic_store(&lane->sleeping, false);
    lane->now_us = chr_clock_mono_us(lane->peers->clock);
    if (ready <= 0)
        return;
    if (polls[0].revents) {
        uint64_t wakes;
        ssize_t n = read(lane->wake_fd, &wakes, sizeof wakes);
        (void)n; /* it may have been counted before */
    }
    for (uint32_t i = 0; i < PEERS_MAX; i++) {
        struct link *l = &lane->peers->slots[i].links[lane->number];
        if (l->poll && l->poll->revents)
            peers__link_event(l, l->poll->revents);
    }
    peers__inbounds_events(lane);
}

void *peers__lane_main(void *arg)
{
    struct lane *lane = arg;
    char name[16];
    snprintf(name, sizeof name, "peers-%s", peer_lane_name(lane->number));
    pthread_setname_np(pthread_self(), name);
    if (lane->number == PEERS_CONTROL)
        chr_priority_set(CHR_PRIORITY_URGENT); /* R17: a leader is not to seem dead for a load */
    /* libmosquitto writes to sockets as to files. */
    sigset_t pipe_set;
    sigemptyset(&pipe_set);
    sigaddset(&pipe_set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_set, NULL);
    lane->now_us = chr_clock_mono_us(lane->peers->clock);
    while (!atomic_load_explicit(&lane->stopping, memory_order_relaxed))
        turn(lane);
    take_letters(lane);
    for (uint32_t i = 0; i < PEERS_MAX; i++)
        peers__link_stop(&lane->peers->slots[i].links[lane->number]);
    peers__inbounds_stop(lane);
    return NULL;
}
