/* tests/db/durable_twin.h: what outlives connections, right by looking at it.
 *
 * Sessions, subscriptions, queues, retained messages and wills in plain arrays, filters matched
 * level by level: what db/ must hold after the same operations, told as structs instead of bytes.
 * Messages are never forgotten; whoever holds one names its place. */
#ifndef CHR_TESTS_DB_DURABLE_TWIN_H
#define CHR_TESTS_DB_DURABLE_TWIN_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "db/durable.h"

#define ENTRIES  400
#define CLIENTS  6
#define OPS_MAX  4
#define IDS_MAX  16
#define OVERHEAD 64 /* of a message, for limits */
#define SWEEP_US INT64_C(10000000)

struct tmessage {
    char topic[16];
    uint8_t payload;
    size_t payload_len;
    uint8_t qos;
    bool retain;
    int64_t expires_us;
    uint64_t publisher, id;
};
struct titem {
    uint64_t sequence;
    size_t message;
    uint8_t qos;
    bool retain, received;
    uint32_t ids[IDS_MAX], ids_count;
};
struct tsub {
    char filter[16], group[4];
    uint8_t qos, handling;
    bool no_local, as_published;
    uint32_t id;
    uint32_t number;
    uint64_t served;
};
struct twill {
    uint64_t epoch;
    uint32_t generation, delay_s, expiry_s;
    char topic[16];
    uint8_t qos;
    bool retain, due;
    uint64_t node, boot;
    int64_t due_us; /* INT64_MAX: pending */
    uint64_t order;
};
struct tsession {
    char client[4];
    const char *owner; /* NULL: not said */
    uint64_t epoch;
    uint32_t generation, expiry_s;
    bool connected;
    uint64_t node, boot;
    int64_t expires_us, sweep_us;
    uint32_t messages_max, window;
    uint64_t bytes_max, total_max;
    bool drop_oldest;
    uint64_t next_sequence, sent, dropped, expired;
    uint32_t next_number;
    struct tsub subs[64];
    size_t subs_count;
    struct titem items[2048];
    size_t items_count;
};
struct twin {
    struct tsession *sessions[64];
    size_t sessions_count;
    struct tmessage messages[ENTRIES * OPS_MAX + 1];
    size_t messages_count;
    size_t retained[16];
    size_t retained_count;
    struct twill wills[128];
    size_t wills_count;
    uint64_t will_order;
    uint64_t index;
    int64_t now_us;
    /* of the entry */
    uint64_t woken[64];
    size_t woken_count;
    struct twill due[128];
    size_t due_count;
    struct db_lost_session lost[128];
    size_t lost_count;
};

static bool match(const char *f, const char *t)
{
    if (strcmp(f, "#") == 0)
        return true;
    if (strcmp(f, "/#") == 0 && !*t)
        return true;
    if (f[0] == '+') {
        size_t n = strcspn(t, "/");
        if (!f[1])
            return !t[n];
        if (!t[n])
            return strcmp(f + 1, "/#") == 0;
        return match(f + 2, t + n + 1);
    }
    size_t nf = strcspn(f, "/"), nt = strcspn(t, "/");
    if (nf != nt || memcmp(f, t, nf) != 0)
        return false;
    if (!f[nf] || !t[nt])
        return !t[nt] && (!f[nf] || strcmp(f + nf, "/#") == 0);
    return match(f + nf + 1, t + nt + 1);
}

static bool matches(const char *f, const char *t)
{
    return !(t[0] == '$' && (f[0] == '+' || f[0] == '#')) && match(f, t);
}

static uint64_t size_of(const struct twin *t, size_t m)
{
    return strlen(t->messages[m].topic) + t->messages[m].payload_len + 1 + OVERHEAD;
}

static uint64_t bytes_of(const struct twin *t, const struct tsession *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->items_count; i++)
        sum += size_of(t, s->items[i].message);
    return sum;
}

static void take(struct tsession *s, size_t i)
{
    memmove(s->items + i, s->items + i + 1, (--s->items_count - i) * sizeof *s->items);
}

static void sweep_at(const struct twin *t, struct tsession *s, int64_t us)
{
    if (us == INT64_MAX)
        return;
    us = us > t->now_us ? us : t->now_us;
    us = (us / SWEEP_US + 1) * SWEEP_US;
    s->sweep_us = us < s->sweep_us ? us : s->sweep_us;
}

/* Sent before: it stays also when it expires. */
static bool goes_on(const struct tsession *s, const struct titem *item)
{
    return item->received || item->sequence <= s->sent;
}

static void sweep(const struct twin *t, struct tsession *s)
{
    s->sweep_us = INT64_MAX;
    for (size_t i = 0; i < s->items_count;) {
        int64_t us = t->messages[s->items[i].message].expires_us;
        if (!goes_on(s, &s->items[i]) && us <= t->now_us) {
            take(s, i);
            s->expired++;
            continue;
        }
        if (!goes_on(s, &s->items[i]))
            sweep_at(t, s, us);
        i++;
    }
}

static bool room(const struct twin *t, const struct tsession *s, uint64_t bytes)
{
    uint64_t total = 0;
    for (size_t i = 0; i < t->sessions_count; i++)
        total += bytes_of(t, t->sessions[i]);
    return (!s->messages_max ||
            s->items_count < s->messages_max + (s->connected ? s->window : 0)) &&
           (!s->bytes_max || bytes_of(t, s) + bytes <= s->bytes_max) &&
           (!s->total_max || total + bytes <= s->total_max);
}

static bool append(struct twin *t, struct tsession *s, const struct titem *item)
{
    uint64_t bytes = size_of(t, item->message);
    if (!room(t, s, bytes) && s->sweep_us != INT64_MAX)
        sweep(t, s);
    for (size_t i = 0; i < s->items_count && s->drop_oldest && !room(t, s, bytes);) {
        if (s->bytes_max && bytes > s->bytes_max)
            break;
        if (s->items[i].received) {
            i++;
            continue;
        }
        take(s, i);
        s->dropped++;
    }
    if (!room(t, s, bytes)) {
        s->dropped++;
        return false;
    }
    s->items[s->items_count] = *item;
    s->items[s->items_count++].sequence = s->next_sequence++;
    sweep_at(t, s, t->messages[item->message].expires_us);
    size_t at = 0;
    while (at < t->woken_count && t->woken[at] < s->epoch)
        at++;
    if (at == t->woken_count || t->woken[at] != s->epoch) {
        memmove(t->woken + at + 1, t->woken + at, (t->woken_count++ - at) * sizeof *t->woken);
        t->woken[at] = s->epoch;
    }
    return true;
}

static void will_due(struct twin *t, size_t w)
{
    t->wills[w].due = true;
    t->wills[w].due_us = INT64_MAX;
    t->wills[w].order = t->will_order++;
    t->due[t->due_count++] = t->wills[w];
}

static void will_gone(struct twin *t, size_t w)
{
    memmove(t->wills + w, t->wills + w + 1, (--t->wills_count - w) * sizeof *t->wills);
}

/* The will of a session that is not due yet; SIZE_MAX. */
static size_t will_of(const struct twin *t, uint64_t epoch)
{
    for (size_t w = 0; w < t->wills_count; w++)
        if (t->wills[w].epoch == epoch && !t->wills[w].due)
            return w;
    return SIZE_MAX;
}

static struct tsession *by_epoch(const struct twin *t, uint64_t epoch)
{
    for (size_t i = 0; i < t->sessions_count; i++)
        if (t->sessions[i]->epoch == epoch)
            return t->sessions[i];
    return NULL;
}

static struct tsession *by_client(const struct twin *t, const char *client)
{
    for (size_t i = 0; i < t->sessions_count; i++)
        if (strcmp(t->sessions[i]->client, client) == 0)
            return t->sessions[i];
    return NULL;
}

static void end(struct twin *t, struct tsession *s)
{
    size_t w = will_of(t, s->epoch), i = 0;
    if (w != SIZE_MAX)
        will_due(t, w);
    while (t->sessions[i] != s)
        i++;
    t->sessions[i] = t->sessions[--t->sessions_count];
    free(s);
}

static void expire(struct twin *t)
{
    for (;;) { /* wills, by time, then epoch */
        size_t best = SIZE_MAX;
        for (size_t w = 0; w < t->wills_count; w++)
            if (t->wills[w].due_us <= t->now_us &&
                (best == SIZE_MAX || t->wills[w].due_us < t->wills[best].due_us ||
                 (t->wills[w].due_us == t->wills[best].due_us &&
                  t->wills[w].epoch < t->wills[best].epoch)))
                best = w;
        if (best == SIZE_MAX)
            break;
        will_due(t, best);
    }
    for (size_t i = 0; i < t->retained_count;)
        if (t->messages[t->retained[i]].expires_us <= t->now_us)
            t->retained[i] = t->retained[--t->retained_count];
        else
            i++;
    for (size_t i = 0; i < t->sessions_count; i++)
        if (t->sessions[i]->sweep_us <= t->now_us)
            sweep(t, t->sessions[i]);
    for (;;) {
        struct tsession *best = NULL;
        for (size_t i = 0; i < t->sessions_count; i++) {
            struct tsession *s = t->sessions[i];
            if (s->expires_us <= t->now_us &&
                (!best || s->expires_us < best->expires_us ||
                 (s->expires_us == best->expires_us && s->epoch < best->epoch)))
                best = s;
        }
        if (!best)
            break;
        end(t, best);
    }
}

static int64_t after(const struct twin *t, uint32_t s)
{
    return s == UINT32_MAX ? INT64_MAX : t->now_us + (int64_t)s * 1000000;
}

/* Operations with everything they need. */
struct top {
    enum db_op_type type;
    char client[4];
    const char *owner; /* NULL: not said */
    bool clean, has_will;
    struct twill will;
    uint32_t expiry_s, messages_max, window;
    uint64_t bytes_max, total_max;
    bool drop_oldest;
    uint64_t epoch, sent;
    uint32_t generation;
    bool keep;
    uint64_t node, boot;
    struct tsub subs[3];
    uint32_t count; /* of subs, guards, ranges */
    struct tmessage message;
    uint32_t message_expiry_s, guard;
    struct db_guard guards[2];
    struct db_sequence_range ranges[3];
    uint32_t done_count;
};
struct tresult {
    chr_err err;
    uint32_t rows, generation;
    uint64_t epoch;
    bool present;
};

static void twin_open(struct twin *t, const struct top *op, uint32_t ordinal, struct tresult *r)
{
    struct tsession *s = by_client(t, op->client);
    bool foreign = s && s->owner && op->owner && strcmp(s->owner, op->owner) != 0;
    bool moves = s && (s->node != op->node || s->boot != op->boot);
    uint64_t old_epoch = s ? s->epoch : 0;
    if (s && (op->clean || foreign)) {
        end(t, s);
        s = NULL;
    }
    r->present = s != NULL;
    if (!s) {
        s = calloc(1, sizeof *s);
        t->sessions[t->sessions_count++] = s;
        strcpy(s->client, op->client);
        s->epoch = t->index << 16 | ordinal;
        s->next_sequence = s->next_number = 1;
        s->sweep_us = INT64_MAX;
    } else {
        size_t w = will_of(t, s->epoch);
        if (w != SIZE_MAX && s->connected && t->wills[w].delay_s == 0)
            will_due(t, w);
        else if (w != SIZE_MAX)
            will_gone(t, w);
        if (moves && s->connected)
            s->sent = s->next_sequence - 1;
    }
    if (!s->owner)
        s->owner = op->owner;
    s->generation++;
    if (moves)
        t->lost[t->lost_count++] = (struct db_lost_session){old_epoch, s->epoch, s->generation};
    s->node = op->node;
    s->boot = op->boot;
    s->expiry_s = op->expiry_s;
    s->messages_max = op->messages_max;
    s->window = op->window;
    s->bytes_max = op->bytes_max;
    s->total_max = op->total_max;
    s->drop_oldest = op->drop_oldest;
    s->connected = true;
    s->expires_us = INT64_MAX;
    if (op->has_will) {
        struct twill *w = &t->wills[t->wills_count++];
        *w = op->will;
        w->epoch = s->epoch;
        w->generation = s->generation;
        w->node = s->node;
        w->boot = s->boot;
        w->due_us = INT64_MAX;
        w->due = false;
    }
    r->epoch = s->epoch;
    r->generation = s->generation;
}

static void park(struct twin *t, struct tsession *s, uint32_t expiry_s, uint64_t sent)
{
    size_t w = will_of(t, s->epoch);
    if (expiry_s == 0) {
        end(t, s);
        return;
    }
    s->connected = false;
    s->expiry_s = expiry_s;
    s->sent = sent > s->sent ? sent : s->sent;
    s->expires_us = after(t, expiry_s);
    if (w != SIZE_MAX && t->wills[w].delay_s == 0)
        will_due(t, w);
    else if (w != SIZE_MAX)
        t->wills[w].due_us = after(t, t->wills[w].delay_s);
}

static void twin_close(struct twin *t, const struct top *op, struct tresult *r)
{
    struct tsession *s = by_client(t, op->client);
    if (!s || s->epoch != op->epoch || s->generation != op->generation)
        return;
    r->epoch = s->epoch;
    r->generation = s->generation;
    size_t w = will_of(t, s->epoch);
    if (!op->keep && w != SIZE_MAX)
        will_gone(t, w);
    park(t, s, op->expiry_s, op->sent);
}

static void twin_node_down(struct twin *t, const struct top *op, struct tresult *r)
{
    uint64_t last = 0; /* by epoch */
    for (;;) {
        struct tsession *next = NULL;
        for (size_t i = 0; i < t->sessions_count; i++) {
            struct tsession *s = t->sessions[i];
            if (s->connected && s->node == op->node && s->boot <= op->boot && s->epoch > last &&
                (!next || s->epoch < next->epoch))
                next = s;
        }
        if (!next)
            return;
        last = next->epoch;
        next->generation++;
        t->lost[t->lost_count++] = (struct db_lost_session){
            next->epoch, next->expiry_s ? next->epoch : 0, next->generation};
        size_t w = will_of(t, next->epoch);
        if (w != SIZE_MAX)
            t->wills[w].node = t->wills[w].boot = 0;
        park(t, next, next->expiry_s, next->next_sequence - 1);
        r->rows++;
    }
}

static struct tsub *sub_of(struct tsession *s, const struct tsub *like)
{
    for (size_t i = 0; i < s->subs_count; i++)
        if (strcmp(s->subs[i].filter, like->filter) == 0 &&
            strcmp(s->subs[i].group, like->group) == 0)
            return &s->subs[i];
    return NULL;
}

static void twin_subscribe(struct twin *t, const struct top *op, struct tresult *r)
{
    struct tsession *s = by_epoch(t, op->epoch);
    if (!s || s->generation != op->generation) {
        r->err = CHR_ENOTFOUND;
        return;
    }
    for (uint32_t i = 0; i < op->count; i++) {
        const struct tsub *item = &op->subs[i];
        struct tsub *sub = sub_of(s, item);
        bool send = item->handling == 0 || (item->handling == 1 && !sub);
        if (sub) {
            uint64_t served = sub->served;
            uint32_t number = sub->number;
            *sub = *item;
            sub->served = served;
            sub->number = number;
        } else {
            s->subs[s->subs_count] = *item;
            s->subs[s->subs_count++].number = s->next_number++;
        }
        r->rows++;
        if (!send || !item->qos || item->group[0])
            continue;
        for (size_t m = 0; m < t->messages_count; m++) {
            bool is = false;
            for (size_t k = 0; k < t->retained_count; k++)
                is = is || t->retained[k] == m;
            const struct tmessage *message = &t->messages[m];
            if (!is || !message->qos || !matches(item->filter, message->topic) ||
                message->expires_us <= t->now_us ||
                (item->no_local && message->publisher == s->epoch))
                continue;
            struct titem queued = {.message = m,
                                   .qos = item->qos < message->qos ? item->qos : message->qos,
                                   .retain = true};
            if (item->id)
                queued.ids[queued.ids_count++] = item->id;
            append(t, s, &queued);
        }
    }
}

static void add_id(struct titem *item, uint32_t id)
{
    size_t at = 0;
    if (!id)
        return;
    while (at < item->ids_count && item->ids[at] < id)
        at++;
    memmove(item->ids + at + 1, item->ids + at, (item->ids_count++ - at) * sizeof *item->ids);
    item->ids[at] = id;
}

struct choice {
    struct tsession *session;
    uint32_t number;
    struct titem item;
};

static int choice_cmp(const void *a, const void *b)
{
    const struct choice *x = a, *y = b;
    if (x->session->epoch != y->session->epoch)
        return x->session->epoch < y->session->epoch ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

static const char *const filters[] = {"a",   "a/b", "a/c", "b/x/y", "$s/a", "#",     "+",
                                      "a/+", "a/#", "+/b", "+/+",   "$s/#", "b/+/y", "/"};
#define FILTERS (sizeof filters / sizeof filters[0])
static const char *const groups[] = {"", "g", "h"};

static void twin_message(struct twin *t, const struct top *op, uint32_t ordinal,
                         const bool *duplicate, struct tresult *r)
{
    if (op->guard != UINT32_MAX && duplicate[op->guard])
        return;
    size_t m = t->messages_count++;
    t->messages[m] = op->message;
    t->messages[m].expires_us = after(t, op->message_expiry_s);
    t->messages[m].id = t->index << 20 | ordinal;
    const struct tmessage *p = &t->messages[m];
    if (p->retain) {
        for (size_t i = 0; i < t->retained_count; i++)
            if (strcmp(t->messages[t->retained[i]].topic, p->topic) == 0) {
                t->retained[i] = t->retained[--t->retained_count];
                break;
            }
        if (p->payload_len && op->message_expiry_s)
            t->retained[t->retained_count++] = m;
    }
    if (!p->qos)
        return;
    static struct choice choices[256];
    size_t n = 0;
    for (size_t i = 0; i < t->sessions_count; i++) {
        struct choice c = {.session = t->sessions[i], .item = {.message = m}};
        bool any = false;
        for (size_t k = 0; k < c.session->subs_count; k++) {
            const struct tsub *sub = &c.session->subs[k];
            if (sub->group[0] || !matches(sub->filter, p->topic) ||
                (sub->no_local && p->publisher && p->publisher == c.session->epoch))
                continue;
            any = true;
            c.item.qos = sub->qos > c.item.qos ? sub->qos : c.item.qos;
            c.item.retain = c.item.retain || (sub->as_published && p->retain);
            add_id(&c.item, sub->id);
        }
        if (any && c.item.qos)
            choices[n++] = c;
    }
    for (size_t f = 0; f < FILTERS; f++)
        for (size_t g = 1; g < 3; g++) {
            struct tsession *best = NULL;
            struct tsub *best_sub = NULL;
            struct tsub like = {0};
            strcpy(like.filter, filters[f]);
            strcpy(like.group, groups[g]);
            for (size_t i = 0; i < t->sessions_count && matches(filters[f], p->topic); i++) {
                struct tsession *s = t->sessions[i];
                struct tsub *sub = sub_of(s, &like);
                if (!sub || !sub->qos)
                    continue;
                bool wins = !best;
                if (best) {
                    bool a = room(t, s, size_of(t, m)), b = room(t, best, size_of(t, m));
                    if (a != b)
                        wins = a;
                    else if (s->connected != best->connected)
                        wins = s->connected;
                    else if (sub->served != best_sub->served)
                        wins = sub->served < best_sub->served;
                    else
                        wins = s->epoch < best->epoch;
                }
                if (wins) {
                    best = s;
                    best_sub = sub;
                }
            }
            if (!best)
                continue;
            choices[n] = (struct choice){.session = best,
                                         .number = best_sub->number,
                                         .item = {.message = m,
                                                  .qos = best_sub->qos,
                                                  .retain = best_sub->as_published && p->retain}};
            add_id(&choices[n++].item, best_sub->id);
            best_sub->served = p->id;
        }
    qsort(choices, n, sizeof *choices, choice_cmp);
    for (size_t i = 0; i < n; i++) {
        choices[i].item.qos = choices[i].item.qos < p->qos ? choices[i].item.qos : p->qos;
        r->rows += append(t, choices[i].session, &choices[i].item);
    }
}

static void twin_ack(struct twin *t, const struct top *op, struct tresult *r)
{
    struct tsession *s = by_epoch(t, op->epoch);
    if (!s || op->generation > s->generation) {
        r->err = CHR_ENOTFOUND;
        return;
    }
    for (uint32_t i = 0; i < op->count; i++)
        for (size_t k = 0; k < s->items_count;) {
            struct titem *item = &s->items[k];
            bool in = item->sequence >= op->ranges[i].first && item->sequence <= op->ranges[i].last;
            if (in && i < op->done_count) {
                take(s, k);
                r->rows++;
                continue;
            }
            if (in && item->qos == 2 && !item->received) {
                item->received = true;
                r->rows++;
            }
            k++;
        }
}

static void twin_apply(struct twin *t, int64_t now_us, const struct top *ops, uint32_t count,
                       struct tresult *results)
{
    bool duplicate[2] = {false, false};
    t->index++;
    t->now_us = now_us;
    t->woken_count = t->due_count = t->lost_count = 0;
    memset(results, 0, count * sizeof *results);
    expire(t);
    for (uint32_t i = 0; i < count; i++) {
        const struct top *op = &ops[i];
        struct tresult *r = &results[i];
        switch (op->type) {
        case DB_OP_SESSION_OPEN:
            twin_open(t, op, i, r);
            break;
        case DB_OP_SESSION_CLOSE:
            twin_close(t, op, r);
            break;
        case DB_OP_NODE_DOWN:
            twin_node_down(t, op, r);
            break;
        case DB_OP_SUBSCRIBE:
            twin_subscribe(t, op, r);
            break;
        case DB_OP_UNSUBSCRIBE: {
            struct tsession *s = by_epoch(t, op->epoch);
            if (!s || s->generation != op->generation) {
                r->err = CHR_ENOTFOUND;
                break;
            }
            for (uint32_t k = 0; k < op->count; k++) {
                struct tsub *sub = sub_of(s, &op->subs[k]);
                if (sub) {
                    *sub = s->subs[--s->subs_count];
                    r->rows++;
                }
            }
            break;
        }
        case DB_OP_GUARDS:
            for (uint32_t k = 0; k < op->count; k++) {
                duplicate[k] = true;
                for (size_t w = 0; w < t->wills_count; w++)
                    if (t->wills[w].due && t->wills[w].epoch == op->guards[k].epoch &&
                        t->wills[w].generation == op->guards[k].generation) {
                        will_gone(t, w);
                        duplicate[k] = false;
                        break;
                    }
            }
            break;
        case DB_OP_MESSAGE:
            twin_message(t, op, i, duplicate, r);
            break;
        default:
            twin_ack(t, op, r);
            break;
        }
    }
}

#endif
