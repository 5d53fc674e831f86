/* tests/db/test_durable_model.c: what outlives connections (db/durable.h) against a naive twin.
 *
 * Each seed lives a life: sessions open, close and expire, subscribe, acknowledge; messages are
 * published with all options, retained, expire; wills fall due and are taken, twice, too; clients
 * move between nodes, which are declared down; between them checkpoints (some fail, some lose
 * power), restarts with replays, moves to another store by a snapshot. After each entry the results
 * and all that can be read are compared with the twin (durable_twin.h).
 *
 *     CHR_SEED=17 test_db_durable_model      lives one life
 *     CHR_SEEDS=10000 test_db_durable_model  lives more of them */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/random.h"
#include "db/digest.h"
#include "db/durable.h"
#include "tests/db/durable_twin.h"
#include "tests/db/snapshot_kit.h"
#include "tests/sim/fake_kv.h"

/* -- A life -------------------------------------------------------------------------------------*/

struct life {
    uint64_t seed;
    struct chr_random random;
    fake_kv *store;
    struct db_kv kv;
    db *d;
    struct twin *twin;
    chr_hlc hlc;
    struct logged {
        uint8_t *bytes;
        size_t len;
        chr_hlc hlc;
    } log[ENTRIES + 1];
    struct transfer transfer;
    uint64_t queued, checkpoints, reopened, wills_taken, moved, lost;
};

static struct life *living;

#define REQUIRE(cond)                                                                              \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "seed %llu, index %llu, %s:%d: %s\n",                                  \
                    (unsigned long long)living->seed, (unsigned long long)living->twin->index,     \
                    __FILE__, __LINE__, #cond);                                                    \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static uint64_t below(struct life *l, uint64_t bound)
{
    return chr_random_below(&l->random, bound);
}

static bool chance(struct life *l, uint64_t percent)
{
    return below(l, 100) < percent;
}

static chr_slice payload_of(const struct tmessage *m)
{
    static uint8_t bytes[4096];
    memset(bytes, m->payload, m->payload_len);
    return chr_slice_of(bytes, m->payload_len);
}

static const char *random_topic(struct life *l)
{
    return filters[below(l, 5)];
}

static void some_session(struct life *l, struct top *op)
{
    op->epoch = 77;
    op->generation = 1;
    if (!l->twin->sessions_count || chance(l, 3))
        return;
    const struct tsession *s = l->twin->sessions[below(l, l->twin->sessions_count)];
    strcpy(op->client, s->client);
    op->epoch = s->epoch;
    op->generation = s->generation - (chance(l, 4) ? 1 : 0) + (chance(l, 2) ? 1 : 0);
}

static void random_subs(struct life *l, struct top *op)
{
    op->count = 1 + (uint32_t)below(l, 3);
    for (uint32_t i = 0; i < op->count; i++) {
        struct tsub *s = &op->subs[i];
        strcpy(s->filter, filters[below(l, FILTERS)]);
        strcpy(s->group, groups[chance(l, 30) ? 1 + below(l, 2) : 0]);
        if (op->type == DB_OP_UNSUBSCRIBE)
            continue;
        s->qos = (uint8_t)below(l, 3);
        s->handling = (uint8_t)below(l, 3);
        s->no_local = !s->group[0] && chance(l, 20);
        s->as_published = chance(l, 50);
        s->id = chance(l, 50) ? 1 + (uint32_t)below(l, 9) : 0;
    }
}

/* Of three nodes, one of which is none, and two starts of each. */
static void random_node(struct life *l, struct top *op)
{
    op->node = below(l, 3) * UINT64_C(0x1000000000000001);
    op->boot = op->node ? 1 + below(l, 2) : 0;
}

static void random_op(struct life *l, struct top *op, uint32_t guards)
{
    uint64_t kind = below(l, 100);
    memset(op, 0, sizeof *op);
    op->guard = UINT32_MAX;
    if (kind < 10 || !l->twin->sessions_count) {
        op->type = DB_OP_SESSION_OPEN;
        snprintf(op->client, sizeof op->client, "c%u", (unsigned)below(l, CLIENTS));
        op->clean = chance(l, 20);
        static const char *const owners[] = {NULL, "", "ann", "bob"};
        op->owner = owners[chance(l, 70) ? 2 : below(l, 4)];
        op->expiry_s = chance(l, 20) ? UINT32_MAX : chance(l, 10) ? 0 : 1 + (uint32_t)below(l, 60);
        random_node(l, op);
        op->messages_max = chance(l, 50) ? 1 + (uint32_t)below(l, 8) : 0;
        op->window = (uint32_t)below(l, 4);
        op->bytes_max = chance(l, 30) ? 100 + below(l, 2000) : 0;
        op->total_max = chance(l, 20) ? 100 + below(l, 6000) : 0;
        op->drop_oldest = chance(l, 50);
        op->has_will = chance(l, 50);
        strcpy(op->will.topic, random_topic(l));
        op->will.qos = (uint8_t)below(l, 3);
        op->will.retain = chance(l, 30);
        op->will.delay_s = chance(l, 50) ? (uint32_t)below(l, 40) : 0;
        op->will.expiry_s = chance(l, 50) ? UINT32_MAX : (uint32_t)below(l, 20);
    } else if (kind < 20) {
        op->type = DB_OP_SESSION_CLOSE;
        some_session(l, op);
        op->expiry_s = chance(l, 15) ? 0 : chance(l, 30) ? UINT32_MAX : 1 + (uint32_t)below(l, 60);
        op->keep = chance(l, 70);
        op->sent = below(l, 20);
    } else if (kind < 22) {
        op->type = DB_OP_NODE_DOWN;
        random_node(l, op);
    } else if (kind < 35) {
        op->type = DB_OP_SUBSCRIBE;
        some_session(l, op);
        random_subs(l, op);
    } else if (kind < 39) {
        op->type = DB_OP_UNSUBSCRIBE;
        some_session(l, op);
        random_subs(l, op);
    } else if (kind < 80) {
        op->type = DB_OP_MESSAGE;
        strcpy(op->message.topic, random_topic(l));
        op->message.payload = (uint8_t)below(l, 256);
        op->message.payload_len = chance(l, 10) ? 0 : chance(l, 5) ? below(l, 4096) : below(l, 40);
        op->message.qos = (uint8_t)below(l, 3);
        op->message.retain = chance(l, 30);
        op->message_expiry_s = chance(l, 60) ? UINT32_MAX : (uint32_t)below(l, 30);
        if (chance(l, 50))
            op->message.publisher = l->twin->sessions[below(l, l->twin->sessions_count)]->epoch;
        if (guards && chance(l, 60))
            op->guard = (uint32_t)below(l, guards);
    } else {
        op->type = DB_OP_QUEUE_ACK;
        some_session(l, op);
        const struct tsession *s = by_epoch(l->twin, op->epoch);
        uint64_t first = s && s->items_count ? s->items[0].sequence : 1;
        op->count = 1 + (uint32_t)below(l, 3);
        op->done_count = (uint32_t)below(l, op->count + 1);
        for (uint32_t i = 0; i < op->count; i++) {
            op->ranges[i].first = first + below(l, 4);
            op->ranges[i].last = op->ranges[i].first + (chance(l, 80) ? 0 : below(l, 200));
        }
    }
}

/* A GUARDS for wills, mostly due ones. */
static void random_guards(struct life *l, struct top *op)
{
    memset(op, 0, sizeof *op);
    op->type = DB_OP_GUARDS;
    op->count = 1 + (uint32_t)below(l, 2);
    for (uint32_t i = 0; i < op->count; i++) {
        op->guards[i] = (struct db_guard){.epoch = 5, .generation = 1};
        if (l->twin->wills_count) {
            const struct twill *w = &l->twin->wills[below(l, l->twin->wills_count)];
            op->guards[i] = (struct db_guard){.epoch = w->epoch, .generation = w->generation};
            l->wills_taken += w->due;
        }
    }
}

static struct db_subscription sub_public(const struct tsub *s)
{
    return (struct db_subscription){.filter = chr_slice_cstr(s->filter),
                                    .group = chr_slice_cstr(s->group),
                                    .qos = s->qos,
                                    .no_local = s->no_local,
                                    .retain_as_published = s->as_published,
                                    .retain_handling = s->handling,
                                    .id = s->id};
}

static void add_op(struct db_entry *entry, const struct top *op)
{
    struct db_subscription subs[3];
    for (uint32_t i = 0; i < 3; i++)
        subs[i] = sub_public(&op->subs[i]);
    switch (op->type) {
    case DB_OP_SESSION_OPEN: {
        struct db_will will = {.topic = chr_slice_cstr(op->will.topic),
                               .properties = CHR_LIT("p"),
                               .payload = CHR_LIT("will"),
                               .qos = op->will.qos,
                               .retain = op->will.retain,
                               .delay_s = op->will.delay_s,
                               .message_expiry_s = op->will.expiry_s};
        struct db_session_open open = {.client_id = chr_slice_cstr(op->client),
                                       .clean_start = op->clean,
                                       .expiry_s = op->expiry_s,
                                       .will = op->has_will ? &will : NULL,
                                       .queue_messages_max = op->messages_max,
                                       .window = op->window,
                                       .queue_bytes_max = op->bytes_max,
                                       .queues_bytes_max = op->total_max,
                                       .drop_oldest = op->drop_oldest,
                                       .has_owner = op->owner != NULL,
                                       .owner = chr_slice_cstr(op->owner),
                                       .node = op->node,
                                       .boot = op->boot};
        db_entry_add_session_open(entry, &open);
        break;
    }
    case DB_OP_SESSION_CLOSE:
        db_entry_add_session_close(
            entry, &(struct db_session_close){.client_id = chr_slice_cstr(op->client),
                                              .epoch = op->epoch,
                                              .generation = op->generation,
                                              .expiry_s = op->expiry_s,
                                              .will = op->keep ? DB_WILL_KEEP : DB_WILL_DROP,
                                              .sent = op->sent});
        break;
    case DB_OP_NODE_DOWN:
        db_entry_add_node_down(entry, op->node, op->boot);
        break;
    case DB_OP_SUBSCRIBE:
        db_entry_add_subscribe(entry, op->epoch, op->generation, subs, op->count);
        break;
    case DB_OP_UNSUBSCRIBE:
        db_entry_add_unsubscribe(entry, op->epoch, op->generation, subs, op->count);
        break;
    case DB_OP_GUARDS:
        db_entry_add_guards(entry, op->guards, op->count);
        break;
    case DB_OP_MESSAGE:
        db_entry_add_message(entry, &(struct db_publish){.topic = chr_slice_cstr(op->message.topic),
                                                         .properties = CHR_LIT("q"),
                                                         .payload = payload_of(&op->message),
                                                         .qos = op->message.qos,
                                                         .retain = op->message.retain,
                                                         .expiry_s = op->message_expiry_s,
                                                         .publisher = op->message.publisher,
                                                         .guard = op->guard});
        break;
    default:
        db_entry_add_queue_ack(entry, op->epoch, op->generation, op->ranges, op->done_count,
                               op->ranges + op->done_count, op->count - op->done_count);
        break;
    }
}

/* -- Comparing ----------------------------------------------------------------------------------*/

static void same_message(const struct twin *t, size_t m, const struct db_message *got)
{
    const struct tmessage *want = &t->messages[m];
    REQUIRE(chr_slice_eq(got->topic, chr_slice_cstr(want->topic)));
    REQUIRE(chr_slice_eq(got->properties, CHR_LIT("q")));
    REQUIRE(chr_slice_eq(got->payload, payload_of(want)));
    REQUIRE(got->qos == want->qos && got->retain == want->retain);
    REQUIRE(got->expires_us == want->expires_us && got->publisher == want->publisher);
}

static void same_queue(struct life *l, const struct tsession *s)
{
    static struct db_queue_item items[2048];
    size_t n = db_queue_read(l->d, s->epoch, 0, items, 2048, UINT64_MAX), at = 0;
    for (size_t i = 0; i < s->items_count; i++) {
        const struct titem *want = &s->items[i];
        if (!goes_on(s, want) && l->twin->messages[want->message].expires_us <= l->twin->now_us)
            continue;
        REQUIRE(at < n);
        struct db_queue_item *got = &items[at++];
        REQUIRE(got->message && !got->error);
        REQUIRE(got->sequence == want->sequence && got->qos == want->qos);
        REQUIRE(got->retain == want->retain && got->received == want->received);
        REQUIRE(got->ids_count == want->ids_count);
        REQUIRE(!want->ids_count ||
                memcmp(got->ids, want->ids, want->ids_count * sizeof *want->ids) == 0);
        same_message(l->twin, want->message, got->message);
        db_message_unref(got->message);
        free(got->ids);
    }
    REQUIRE(at == n);
    if (n < 2) /* in part: from the second one, one at a time */
        return;
    uint64_t from = items[1].sequence;
    REQUIRE(db_queue_read(l->d, s->epoch, from, items, 9, 1) == 1 && items[0].sequence == from);
    db_message_unref(items[0].message);
    free(items[0].ids);
}

struct count {
    const struct tsession *session;
    struct life *life;
    size_t n;
    const char *filter;
};

static void same_session(void *arg, const struct db_session_info *got)
{
    struct count *c = arg;
    const struct tsession *s = by_epoch(c->life->twin, got->epoch);
    REQUIRE(s && chr_slice_eq(got->client_id, chr_slice_cstr(s->client)));
    REQUIRE(got->generation == s->generation && got->expiry_s == s->expiry_s);
    REQUIRE(got->connected == s->connected && got->expires_us == s->expires_us);
    REQUIRE(got->node == s->node && got->boot == s->boot);
    REQUIRE(got->sent == s->sent && got->next_sequence == s->next_sequence);
    REQUIRE(got->subscriptions_count == s->subs_count && got->queued_count == s->items_count);
    REQUIRE(got->queued_bytes == bytes_of(c->life->twin, s));
    REQUIRE(got->dropped == s->dropped && got->expired == s->expired);
    c->n++;
}

static void same_sub(void *arg, const struct db_subscription *got)
{
    struct count *c = arg;
    struct tsub like = {0};
    memcpy(like.filter, got->filter.ptr, got->filter.len);
    if (got->group.len)
        memcpy(like.group, got->group.ptr, got->group.len);
    const struct tsub *s = sub_of((struct tsession *)c->session, &like);
    REQUIRE(s && got->qos == s->qos && got->no_local == s->no_local && got->id == s->id);
    REQUIRE(got->retain_as_published == s->as_published && got->retain_handling == s->handling);
    c->n++;
}

static bool same_retained(void *arg, struct db_message *got)
{
    struct count *c = arg;
    const struct twin *t = c->life->twin;
    for (size_t i = 0; i < t->retained_count; i++)
        if (chr_slice_eq(got->topic, chr_slice_cstr(t->messages[t->retained[i]].topic))) {
            same_message(t, t->retained[i], got);
            REQUIRE(matches(c->filter, t->messages[t->retained[i]].topic));
            c->n++;
            return true;
        }
    REQUIRE(!"retained");
    return true;
}

static void same_will(void *arg, const struct db_due_will *got)
{
    struct count *c = arg;
    const struct twin *t = c->life->twin;
    const struct twill *want = NULL; /* the next in order */
    size_t at = 0;
    for (uint64_t order = 0; order < t->will_order && !want; order++)
        for (size_t w = 0; w < t->wills_count; w++)
            if (t->wills[w].due && t->wills[w].order == order && at++ == c->n)
                want = &t->wills[w];
    REQUIRE(want && got->epoch == want->epoch && got->generation == want->generation);
    REQUIRE(got->message_expiry_s == want->expiry_s && got->message->qos == want->qos);
    REQUIRE(chr_slice_eq(got->message->topic, chr_slice_cstr(want->topic)));
    REQUIRE(chr_slice_eq(got->message->payload, CHR_LIT("will")));
    REQUIRE(got->message->retain == want->retain && got->message->publisher == want->epoch);
    REQUIRE(got->node == want->node && got->boot == want->boot);
    c->n++;
}

static void same_start(void *arg, uint64_t node, uint64_t boot, uint64_t connected)
{
    struct count *c = arg;
    uint64_t want = 0;
    for (size_t i = 0; i < c->life->twin->sessions_count; i++) {
        const struct tsession *s = c->life->twin->sessions[i];
        want += s->connected && s->node == node && s->boot == boot;
    }
    REQUIRE(connected && connected == want);
    c->n += connected;
}

static void compare(struct life *l)
{
    const struct twin *t = l->twin;
    struct count c = {.life = l};
    struct db_durable_stats stats;
    uint64_t queued = 0, subscriptions = 0, connected = 0, lasting = 0;
    int64_t due_us = INT64_MAX;
    db_sessions_read(l->d, same_session, &c);
    REQUIRE(c.n == t->sessions_count);
    for (size_t i = 0; i < t->sessions_count; i++) {
        const struct tsession *s = t->sessions[i];
        c = (struct count){.life = l, .session = s};
        db_subscriptions_read(l->d, s->epoch, same_sub, &c);
        REQUIRE(c.n == s->subs_count);
        same_queue(l, s);
        queued += s->items_count;
        subscriptions += s->subs_count;
        connected += s->connected;
        lasting += s->expiry_s > 0;
        due_us = s->expires_us < due_us ? s->expires_us : due_us;
        due_us = s->sweep_us < due_us ? s->sweep_us : due_us;
    }
    for (size_t f = 0; f < FILTERS; f++) {
        size_t want = 0;
        c = (struct count){.life = l, .filter = filters[f]};
        db_retained_read(l->d, chr_slice_cstr(filters[f]), t->now_us, same_retained, &c);
        for (size_t i = 0; i < t->retained_count; i++)
            want += matches(filters[f], t->messages[t->retained[i]].topic) &&
                    t->messages[t->retained[i]].expires_us > t->now_us;
        REQUIRE(c.n == want);
    }
    for (size_t i = 0; i < t->retained_count; i++)
        due_us = t->messages[t->retained[i]].expires_us < due_us
                     ? t->messages[t->retained[i]].expires_us
                     : due_us;
    c = (struct count){.life = l};
    db_wills_read(l->d, same_will, &c);
    for (size_t w = 0; w < t->wills_count; w++) {
        c.n -= t->wills[w].due;
        due_us = t->wills[w].due_us < due_us ? t->wills[w].due_us : due_us;
    }
    REQUIRE(c.n == 0);
    REQUIRE(db_next_due_us(l->d) == due_us);
    db_durable_stats(l->d, &stats);
    REQUIRE(stats.queued_count == queued && stats.subscriptions == subscriptions);
    REQUIRE(stats.connected == connected && stats.retained_count == t->retained_count);
    REQUIRE(stats.wills == t->wills_count && stats.sessions == t->sessions_count);
    REQUIRE(stats.lasting == lasting);
    c = (struct count){.life = l};
    db_node_starts_read(l->d, same_start, &c);
    REQUIRE(c.n == connected);
}

static void check(struct life *l)
{
    uint64_t findings;
    REQUIRE(!db_check(l->d, NULL, NULL, &findings));
    REQUIRE(findings == 0);
}

/* -- Living -------------------------------------------------------------------------------------*/

static void step(struct life *l)
{
    struct top ops[OPS_MAX];
    struct tresult results[OPS_MAX];
    struct db_apply_result got;
    struct db_entry entry;
    uint32_t count = 0, wanted = 1 + (uint32_t)below(l, OPS_MAX), guards = 0;
    if (chance(l, 15)) {
        random_guards(l, &ops[count]);
        guards = ops[count++].count;
    }
    while (count < wanted)
        random_op(l, &ops[count++], guards);
    if (chance(l, 3))
        count = 0; /* a tick */
    db_entry_init(&entry, DB_ENTRY_BYTES_MAX);
    db_entry_begin(&entry, 0, 0);
    for (uint32_t i = 0; i < count; i++)
        add_op(&entry, &ops[i]);
    REQUIRE(!db_entry_end(&entry));
    uint64_t pause_ms = chance(l, 80) ? below(l, 300) : below(l, 20000);
    l->hlc = ((l->hlc >> 16) + 1 + pause_ms) << 16;
    struct logged *e = &l->log[l->twin->index];
    e->len = count ? entry.bytes.len : 0;
    e->bytes = malloc(e->len + 1);
    memcpy(e->bytes, entry.bytes.ptr, e->len);
    e->hlc = l->hlc;
    twin_apply(l->twin, chr_hlc_unix_us(l->hlc), ops, count, results);
    db_apply(l->d, l->twin->index, l->hlc, chr_slice_of(e->bytes, e->len), &got);
    REQUIRE(!got.err && got.ops_count == count);
    for (uint32_t i = 0; i < count; i++) {
        REQUIRE(got.ops[i].err == results[i].err && got.ops[i].rows == results[i].rows);
        REQUIRE(got.ops[i].epoch == results[i].epoch);
        REQUIRE(got.ops[i].generation == results[i].generation);
        REQUIRE(got.ops[i].session_present == results[i].present);
        l->queued += ops[i].type == DB_OP_MESSAGE ? results[i].rows : 0;
    }
    REQUIRE(got.woken_count == l->twin->woken_count);
    REQUIRE(!got.woken_count ||
            memcmp(got.woken, l->twin->woken, got.woken_count * sizeof *got.woken) == 0);
    REQUIRE(got.wills_count == l->twin->due_count);
    for (uint32_t i = 0; i < got.wills_count; i++)
        REQUIRE(got.wills[i].epoch == l->twin->due[i].epoch &&
                got.wills[i].generation == l->twin->due[i].generation &&
                chr_slice_eq(got.wills[i].message->topic, chr_slice_cstr(l->twin->due[i].topic)));
    REQUIRE(got.lost_count == l->twin->lost_count);
    for (uint32_t i = 0; i < got.lost_count; i++)
        REQUIRE(got.lost[i].epoch == l->twin->lost[i].epoch &&
                got.lost[i].new_epoch == l->twin->lost[i].new_epoch &&
                got.lost[i].generation == l->twin->lost[i].generation);
    l->lost += got.lost_count;
    db_entry_free(&entry);
}

static chr_err synced(void *arg, uint64_t index)
{
    (void)arg, (void)index;
    return CHR_OK;
}

static void open_db(struct life *l)
{
    struct db_options options;
    struct chr_errmsg msg = {.text = ""};
    struct db_apply_result got;
    db_options_default(&options);
    chr_err err = db_open(&l->kv, &options, &l->d, &msg);
    if (err)
        fprintf(stderr, "%s\n", msg.text);
    REQUIRE(!err);
    for (uint64_t i = db_apply_index(l->d); i < l->twin->index; i++)
        db_apply(l->d, i + 1, l->log[i].hlc, chr_slice_of(l->log[i].bytes, l->log[i].len), &got);
}

static void checkpoint(struct life *l)
{
    struct chr_errmsg msg;
    struct fake_kv_faults *faults = fake_kv_faults(l->store);
    uint64_t at = fake_kv_commits(l->store) + 1 + below(l, 3);
    if (chance(l, 15))
        faults->crash_at = at;
    else if (chance(l, 15))
        faults->enospc_at = at;
    l->checkpoints += !db_checkpoint(l->d, DB_CHECKPOINT_REQUEST, synced, NULL, 0, &msg);
    *faults = (struct fake_kv_faults){0};
    if (fake_kv_crashed(l->store) || chance(l, 40)) {
        transfer_end(&l->transfer);
        db_close(l->d);
        fake_kv_reopen(l->store);
        l->reopened++;
        open_db(l);
    }
    check(l);
    compare(l);
}

static void digests(struct life *l, struct db_digest out[2])
{
    struct chr_errmsg msg;
    REQUIRE(!db_digest_sessions(l->d, &out[0], &msg));
    db_digest_retained(l->d, &out[1]);
    REQUIRE(out[0].count == l->twin->sessions_count);
}

/* A snapshot is pinned, carried over while life goes on, and lived in afterwards. */
static void move(struct life *l)
{
    struct transfer *t = &l->transfer;
    if (!t->snapshot) {
        kit_small_limits(&l->random);
        chr_err err = transfer_begin(t, l->d, below(l, UINT64_MAX));
        REQUIRE(!err || (err == CHR_ENOTFOUND && db_durable_index(l->d) == 0));
        return;
    }
    if (!transfer_pump(t, &l->random, 1 + below(l, 60)))
        return;
    fake_kv *old = l->store;
    struct db_digest before[2], after[2];
    digests(l, before);
    l->store = transfer_finish(t);
    l->kv = fake_kv_seam(l->store);
    db_close(l->d);
    fake_kv_free(old);
    open_db(l);
    digests(l, after);
    REQUIRE(memcmp(before, after, sizeof before) == 0);
    l->moved++;
    check(l);
    compare(l);
}

static void live(uint64_t seed, uint64_t sums[6])
{
    struct life *l = calloc(1, sizeof *l);
    living = l;
    l->seed = seed;
    l->random.state = seed;
    l->twin = calloc(1, sizeof *l->twin);
    l->store = fake_kv_new(seed);
    l->kv = fake_kv_seam(l->store);
    l->hlc = (chr_hlc)UINT64_C(1700000000000) << 16;
    open_db(l);
    while (l->twin->index < ENTRIES && l->twin->wills_count < 100) {
        step(l);
        compare(l);
        if (chance(l, 6))
            checkpoint(l);
        if (chance(l, 8))
            move(l);
    }
    transfer_end(&l->transfer);
    db_close(l->d);
    fake_kv_reopen(l->store);
    open_db(l);
    compare(l);
    check(l);
    sums[0] += l->queued;
    sums[1] += l->checkpoints;
    sums[2] += l->reopened;
    sums[3] += l->wills_taken;
    sums[4] += l->moved;
    sums[5] += l->lost;
    db_close(l->d);
    fake_kv_free(l->store);
    for (size_t i = 0; i < ENTRIES; i++)
        free(l->log[i].bytes);
    for (size_t i = 0; i < l->twin->sessions_count; i++)
        free(l->twin->sessions[i]);
    free(l->twin);
    free(l);
}

static void test_lives(void **state)
{
    (void)state;
    const char *seed = getenv("CHR_SEED"), *seeds = getenv("CHR_SEEDS");
    uint64_t sums[6] = {0}, count = seeds ? strtoull(seeds, NULL, 10) : 100;
    chr_log_set_level(CHR_LOG_ERROR);
    count = count > 100 && !getenv("LONG") ? 100 : count; /* these lives are longer than others */
    if (seed) {
        live(strtoull(seed, NULL, 10), sums);
        return;
    }
    for (uint64_t s = 1; s <= count; s++)
        live(s, sums);
    printf(
        "%llu queued, %llu checkpoints, %llu restarts, %llu wills taken, %llu moves, %llu sessions "
        "moved\n",
        (unsigned long long)sums[0], (unsigned long long)sums[1], (unsigned long long)sums[2],
        (unsigned long long)sums[3], (unsigned long long)sums[4], (unsigned long long)sums[5]);
    if (count >= 20) { /* the lives were not empty */
        assert_true(sums[0] > count * 50);
        assert_true(sums[1] > count * 5);
        assert_true(sums[3] > count);
        assert_true(sums[4] > count);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lives)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
