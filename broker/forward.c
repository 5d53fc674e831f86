/* broker/forward.c: entries of a node that does not lead, and of one that leads no more (R18).
 *
 *     rings, workers ─▶ numbered [first, next) ─replicator─▶ leader ─▶ its log ─▶ … ─▶ applied here
 *                            ▲      │ another leader, a lost message, a gap              │
 *                            │      └─▶ sent = first: again, in order                   done()
 *                        again ◀── known not to be committed ◀── unsure ◀── taken out of our log
 *
 * The leader's answer is its log: this node applies what it forwarded like everything else, and
 * answers then. The numbers are checked at apply (db/origin.h), so sending twice is harmless, and
 * what comes out of order is not applied.
 *
 *   F1  What this node forwarded is applied once each, in the order of its numbers.
 *   F2  What it proposed itself while it led, and then lost from its log, is proposed again only
 * when an entry of a later term has been committed and it was not before it: no leader can have it
 *       then (every later log holds that entry, and terms do not fall within a log).
 *   F3  Nothing new is numbered or proposed while some of F2 is open: proposals of one loop keep
 *       their order. */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "broker/committer_internal.h"

#define FORWARD_HEAD_BYTES 16u /* u64 boot, u64 the lowest number not applied */
/* Nothing of what was sent has been applied for so long: it, or the news of it, was lost. */
#define FORWARD_PATIENCE_US INT64_C(500000)

void committer__forward_init(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    pthread_mutex_init(&f->lock, NULL);
    chr_list_init(&f->again);
    f->first = f->sent = f->next = 1;
}

void committer__forward_free(struct broker_committer *c)
{
    pthread_mutex_destroy(&c->forward.lock);
    free(c->forward.unsure);
}

static struct forward_slot *slot_of(struct forward *f, uint64_t sequence)
{
    return &f->slots[sequence & (FORWARD_SLOTS - 1)];
}

/* ---- Numbering --------------------------------------------------------------------------------
 */

/* Entries of our own in our log whose fate is open (F3)? */
static bool own_open(const struct broker_committer *c)
{
    for (uint32_t i = 0; i < c->waiting_count; i++)
        if (c->waiting[i]->own)
            return true;
    return c->gathering->own;
}

static bool room(const struct forward *f)
{
    return f->next - f->first < FORWARD_SLOTS && f->bytes < FORWARD_BYTES_MAX;
}

static void number(struct broker_committer *c, struct broker_proposal *p)
{
    struct forward *f = &c->forward;
    if (f->first == f->next)
        f->progress_us = chr_clock_mono_us(c->options.clock);
    slot_of(f, f->next++)->proposal = p;
    f->bytes += p->bytes.len;
    atomic_fetch_add_explicit(&c->forwarded, 1, memory_order_relaxed);
}

static struct broker_proposal *pop_submitted(struct broker_committer *c)
{
    struct broker_proposal *p = NULL;
    pthread_mutex_lock(&c->submit_lock);
    if (!chr_list_empty(&c->submitted)) {
        p = CHR_CONTAINER_OF(c->submitted.next, struct broker_proposal, link);
        chr_list_remove(&p->link);
        c->submitted_count--;
    }
    pthread_mutex_unlock(&c->submit_lock);
    return p;
}

/* The next proposal in line; loops and workers in turn. */
static struct broker_proposal *pop_proposal(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    if (!chr_list_empty(&f->again)) {
        struct chr_list *first = f->again.next;
        chr_list_remove(first);
        return CHR_CONTAINER_OF(first, struct broker_proposal, link);
    }
    uint32_t sources = c->options.loops + 1;
    for (uint32_t i = 0; i < sources; i++) {
        uint32_t at = f->next_source;
        f->next_source = (f->next_source + 1) % sources;
        struct broker_proposal *p =
            at < c->options.loops ? chr_ring_pop(&c->rings[at]) : pop_submitted(c);
        if (p)
            return p;
    }
    return NULL;
}

static bool may_number(struct broker_committer *c)
{
    return c->raft.role != RAFT_LEADER && c->raft.leader && !own_open(c);
}

/* What an ended term of office had taken from others: they send it to the next leader. */
static void drop_taken(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    while (f->taken) {
        struct peers_message *next = f->taken->next;
        peers_release(c->cluster.peers, f->taken);
        f->taken = next;
    }
    f->taken_last = NULL;
}

bool committer__forward_take(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    if (f->taken)
        drop_taken(c);
    if (!may_number(c))
        return false;
    bool taken = false;
    pthread_mutex_lock(&f->lock);
    while (f->unsure_count == 0 && room(f)) {
        struct broker_proposal *p = pop_proposal(c);
        if (!p)
            break;
        number(c, p);
        taken = true;
    }
    pthread_mutex_unlock(&f->lock);
    if (taken)
        chr_wake_signal(&c->replicator_wake);
    return taken;
}

bool committer__forward_waits(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    bool leads = c->raft.role == RAFT_LEADER;
    bool may = leads || may_number(c);
    pthread_mutex_lock(&f->lock);
    bool waits =
        leads ? (f->unsure_count == 0 && (f->sent < f->next || f->sent_term != c->raft.term ||
                                          !chr_list_empty(&f->again) || f->taken))
              : may && f->unsure_count == 0 && room(f);
    if (leads && f->first == f->next && chr_list_empty(&f->again) && !f->taken)
        waits = false;
    pthread_mutex_unlock(&f->lock);
    return waits;
}

bool committer__forward_holds(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    pthread_mutex_lock(&f->lock);
    bool holds = f->unsure_count > 0;
    pthread_mutex_unlock(&f->lock);
    return holds;
}

void committer__forward_refused(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    for (uint32_t i = 0; i < f->origins_count; i++)
        f->origins[i].term = 0; /* they begin again with what has not been applied */
    pthread_mutex_lock(&f->lock);
    f->sent = f->first;
    pthread_mutex_unlock(&f->lock);
}

bool committer__forward_sendable(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    uint64_t leader = atomic_load(&c->leader), term = atomic_load(&c->term);
    if (leader == 0 || leader == c->cluster.self || !peers_up(c->cluster.peers, leader, PEERS_BULK))
        return false;
    pthread_mutex_lock(&f->lock);
    bool due = (f->sent < f->next || (f->sent_term != term && f->first < f->next)) && !f->full;
    pthread_mutex_unlock(&f->lock);
    return due;
}

void committer__forward_look_again(struct broker_committer *c)
{
    pthread_mutex_lock(&c->forward.lock);
    c->forward.full = false;
    pthread_mutex_unlock(&c->forward.lock);
}

bool committer__forward_idle(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    pthread_mutex_lock(&f->lock);
    bool idle = f->first == f->next && f->unsure_count == 0 && chr_list_empty(&f->again);
    pthread_mutex_unlock(&f->lock);
    return idle && !own_open(c);
}

/* ---- To the leader ----------------------------------------------------------------------------
 */

static void put_origin(struct broker_committer *c, uint64_t sequence, uint8_t *out)
{
    chr_put_u64le(out, c->origin);
    chr_put_u64le(out + 8, c->cluster.boot);
    chr_put_u64le(out + 16, sequence);
}

bool committer__forward_send(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    pthread_mutex_lock(&c->core_lock);
    uint64_t leader = c->raft.leader, term = c->raft.term;
    pthread_mutex_unlock(&c->core_lock);
    if (leader == 0 || leader == c->cluster.self)
        return false;
    uint64_t news = atomic_load(&c->lane_news);
    int64_t now_us = chr_clock_mono_us(c->options.clock);
    pthread_mutex_lock(&f->lock);
    bool lost = f->first < f->sent && now_us - f->progress_us > FORWARD_PATIENCE_US;
    if (f->sent_term != term || lost) {
        if (f->sent > f->first)
            atomic_fetch_add_explicit(&c->forwarded_again, f->sent - f->first,
                                      memory_order_relaxed);
        f->sent = f->first;
        f->sent_term = term;
        f->progress_us = now_us;
    }
    uint64_t sequence = f->sent, first = f->first;
    if (sequence == f->next) {
        pthread_mutex_unlock(&f->lock);
        return false;
    }
    /* A copy: once the leader has it, its proposer may get it back at any time. */
    chr_slice bytes = slot_of(f, sequence)->proposal->bytes;
    size_t len = FORWARD_HEAD_BYTES + RAFT_ORIGIN_BYTES + bytes.len;
    uint8_t *copy = malloc(len);
    if (copy) {
        chr_put_u64le(copy, c->cluster.boot);
        chr_put_u64le(copy + 8, first);
        put_origin(c, sequence, copy + FORWARD_HEAD_BYTES);
        memcpy(copy + FORWARD_HEAD_BYTES + RAFT_ORIGIN_BYTES, bytes.ptr, bytes.len);
    }
    pthread_mutex_unlock(&f->lock);
    if (!copy)
        return false;
    chr_slice part = chr_slice_of(copy, len);
    chr_err err = peers_send(c->cluster.peers, leader, PEERS_BULK, PEERS_FORWARD, &part, 1);
    free(copy);
    pthread_mutex_lock(&f->lock);
    f->full = err && atomic_load(&c->lane_news) == news; /* until the lane says otherwise */
    if (!err && f->sent == sequence && f->sent_term == term) {
        f->sent++;
        f->progress_us = now_us;
    }
    pthread_mutex_unlock(&f->lock);
    return !err;
}

void committer__forward_reply(struct broker_committer *c, const struct peers_message *message)
{
    struct forward *f = &c->forward;
    if (message->bytes.len != 24 || chr_get_u64le(message->bytes.ptr) != c->cluster.boot)
        return;
    uint64_t term = chr_get_u64le(message->bytes.ptr + 8);
    uint64_t expected = chr_get_u64le(message->bytes.ptr + 16);
    pthread_mutex_lock(&f->lock);
    if (term == f->sent_term && expected < f->sent)
        f->sent = CHR_MAX(f->first, expected);
    pthread_mutex_unlock(&f->lock);
    chr_wake_signal(&c->replicator_wake);
}

/* ---- The leader's side ------------------------------------------------------------------------
 */

static struct forward_origin *origin_of(struct forward *f, uint64_t node)
{
    for (uint32_t i = 0; i < f->origins_count; i++)
        if (f->origins[i].node == node)
            return &f->origins[i];
    uint32_t at = f->origins_count < PEERS_MAX ? f->origins_count++ : 0;
    f->origins[at] = (struct forward_origin){.node = node};
    return &f->origins[at];
}

/* What we are waiting for, so that it does not have to find out by its patience. */
static void tell_expected(struct broker_committer *c, uint64_t node, uint64_t boot,
                          uint64_t expected)
{
    uint8_t bytes[24];
    chr_put_u64le(bytes, boot);
    chr_put_u64le(bytes + 8, c->raft.term);
    chr_put_u64le(bytes + 16, expected);
    chr_slice part = chr_slice_of(bytes, sizeof bytes);
    (void)!peers_send(c->cluster.peers, node, PEERS_CONTROL, PEERS_FORWARDED, &part, 1);
}

/* Is it the next one of its origin? */
static bool expected(struct broker_committer *c, const struct peers_message *m)
{
    const uint8_t *p = m->bytes.ptr;
    if (c->raft.role != RAFT_LEADER || m->bytes.len < FORWARD_HEAD_BYTES + RAFT_ORIGIN_BYTES ||
        m->bytes.len > FORWARD_HEAD_BYTES + RAFT_ENTRY_BYTES_MAX)
        return false;
    uint64_t boot = chr_get_u64le(p), first = chr_get_u64le(p + 8);
    uint64_t sequence = chr_get_u64le(p + FORWARD_HEAD_BYTES + 16);
    if (chr_get_u64le(p + FORWARD_HEAD_BYTES) == 0 ||
        chr_get_u64le(p + FORWARD_HEAD_BYTES + 8) != boot)
        return false;
    struct forward_origin *o = origin_of(&c->forward, m->from);
    if (o->term != c->raft.term || o->boot != boot)
        *o = (struct forward_origin){
            .node = m->from, .boot = boot, .term = c->raft.term, .next = first};
    /* What an older leader had of it has been applied there, so it is in our log: no need to hear
     * of it again. */
    o->next = CHR_MAX(o->next, first);
    if (sequence == o->next) {
        o->next++;
        return true;
    }
    if (sequence > o->next)
        tell_expected(c, m->from, boot, o->next);
    return false;
}

void committer__forward_received(struct broker_committer *c, struct peers_message *message)
{
    struct forward *f = &c->forward;
    if (message->kind != PEERS_FORWARD || !expected(c, message)) {
        peers_release(c->cluster.peers, message);
        return;
    }
    message->next = NULL;
    if (f->taken_last)
        f->taken_last->next = message;
    else
        f->taken = message;
    f->taken_last = message;
}

void committer__forward_gather_taken(struct broker_committer *c, struct committer_group *g,
                                     size_t *bytes)
{
    struct forward *f = &c->forward;
    while (f->taken && committer__group_gathers(c, g, *bytes)) {
        struct peers_message *m = f->taken;
        f->taken = m->next;
        if (!f->taken)
            f->taken_last = NULL;
        committer__group_add(
            g, NULL, RAFT_ENTRY_FORWARDED,
            chr_slice_of(m->bytes.ptr + FORWARD_HEAD_BYTES, m->bytes.len - FORWARD_HEAD_BYTES),
            bytes);
        m->next = g->messages;
        g->messages = m;
    }
}

bool committer__forward_gather_own(struct broker_committer *c, struct committer_group *g,
                                   size_t *bytes)
{
    struct forward *f = &c->forward;
    pthread_mutex_lock(&f->lock);
    if (f->sent_term != c->raft.term) {
        f->sent = f->first;
        f->sent_term = c->raft.term;
    }
    while (f->unsure_count == 0 && f->sent < f->next && committer__group_gathers(c, g, *bytes)) {
        chr_slice from = slot_of(f, f->sent)->proposal->bytes;
        chr_slice copy = committer__group_own(g, RAFT_ORIGIN_BYTES + from.len);
        if (!copy.ptr)
            break;
        put_origin(c, f->sent, (uint8_t *)copy.ptr);
        memcpy((uint8_t *)copy.ptr + RAFT_ORIGIN_BYTES, from.ptr, from.len);
        committer__group_add(g, NULL, RAFT_ENTRY_FORWARDED, copy, bytes);
        f->sent++;
    }
    bool more = f->unsure_count > 0 || f->sent < f->next;
    pthread_mutex_unlock(&f->lock);
    return more;
}

/* ---- What became of them ----------------------------------------------------------------------
 */

void committer__forward_unsure(struct broker_committer *c, struct broker_proposal *proposal,
                               uint64_t index, uint64_t term)
{
    struct forward *f = &c->forward;
    pthread_mutex_lock(&f->lock);
    if (f->unsure_count == f->unsure_capacity) {
        uint32_t capacity = f->unsure_capacity ? 2 * f->unsure_capacity : 64;
        struct forward_unsure *more = realloc(f->unsure, capacity * sizeof *more);
        CHR_ASSERT(more); /* or whoever waits for it would wait for ever */
        f->unsure = more;
        f->unsure_capacity = capacity;
    }
    uint32_t at = f->unsure_count++;
    for (; at > 0 && f->unsure[at - 1].index > index; at--)
        f->unsure[at] = f->unsure[at - 1];
    f->unsure[at] = (struct forward_unsure){proposal, index, term, false};
    pthread_mutex_unlock(&f->lock);
}

/* F2. Returns the proposal of this very entry: it was committed after all. Those that were not go
 * before what waits to be proposed again already (F3): they were taken from the front of it. */
static struct broker_proposal *resolve(struct forward *f, const struct raft_entry *entry)
{
    struct broker_proposal *found = NULL;
    uint32_t kept = 0;
    bool open = false;
    for (uint32_t i = 0; i < f->unsure_count; i++) {
        struct forward_unsure *u = &f->unsure[i];
        if (u->index == entry->index && u->term == entry->term) {
            found = u->proposal;
            continue;
        }
        if (u->term < entry->term)
            u->lost = true;
        open |= !u->lost;
        f->unsure[kept++] = *u;
    }
    for (; kept > 0 && !open; kept--)
        chr_list_push_front(&f->again, &f->unsure[kept - 1].proposal->link);
    f->unsure_count = kept;
    return found;
}

bool committer__forward_applied(struct broker_committer *c, const struct raft_entry *entry,
                                const struct db_origin *origin,
                                const struct db_apply_result *result)
{
    struct forward *f = &c->forward;
    struct broker_proposal *p = NULL;
    bool kick = false;
    pthread_mutex_lock(&f->lock);
    if (f->unsure_count) {
        p = resolve(f, entry);
        kick = f->unsure_count == 0;
    }
    if (origin && origin->node == c->origin && origin->boot == c->cluster.boot) {
        if (result->origin == DB_ORIGIN_NEW) {
            CHR_ASSERT(origin->sequence == f->first && f->first < f->next); /* F1 */
            p = slot_of(f, f->first++)->proposal;
            f->bytes -= p->bytes.len;
            f->sent = CHR_MAX(f->sent, f->first);
            f->progress_us = chr_clock_mono_us(c->options.clock);
            kick = true;
        } else if (result->origin == DB_ORIGIN_GAP && origin->sequence < f->sent) {
            f->sent = f->first;
            chr_wake_signal(&c->replicator_wake);
        }
    }
    pthread_mutex_unlock(&f->lock);
    if (p) {
        p->index = entry->index;
        p->hlc = entry->hlc;
        p->done(p, CHR_OK, result);
    }
    if (kick)
        chr_wake_signal(&c->writer_wake); /* there is room, or an answer to what held it up */
    return p != NULL;
}

void committer__forward_abandon(struct broker_committer *c)
{
    struct forward *f = &c->forward;
    for (; f->first < f->next; f->first++) {
        struct broker_proposal *p = slot_of(f, f->first)->proposal;
        p->done(p, CHR_ECLOSED, NULL);
    }
    for (uint32_t i = 0; i < f->unsure_count; i++)
        f->unsure[i].proposal->done(f->unsure[i].proposal, CHR_ECLOSED, NULL);
    f->unsure_count = 0;
    struct chr_list again;
    chr_list_take(&again, &f->again);
    while (!chr_list_empty(&again)) {
        struct chr_list *first = again.next;
        chr_list_remove(first);
        struct broker_proposal *p = CHR_CONTAINER_OF(first, struct broker_proposal, link);
        p->done(p, CHR_ECLOSED, NULL);
    }
    drop_taken(c);
}
