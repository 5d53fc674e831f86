/* db/session.c: sessions, their generations and the packet ids they remember. */
#include "db/session.h"

#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/hash.h"
#include "db/internal.h"

/* -- The set of sessions ------------------------------------------------------------------------*/

static void session_free(struct db__session *s)
{
    free((void *)s->client_id.ptr);
    free((void *)s->owner.ptr);
    free(s->guards);
    db__queue_free(&s->queue);
    free(s);
}

void db__sessions_free(struct db__sessions *ss)
{
    for (size_t i = 0; i < ss->capacity; i++)
        if (ss->by_id[i])
            session_free(ss->by_id[i]);
    free(ss->by_id);
    free(ss->by_epoch);
    free(ss->by_expiry);
    free(ss->starts);
    free(ss->ended);
    memset(ss, 0, sizeof *ss);
}

static size_t home_of_id(const struct db__sessions *ss, chr_slice client_id)
{
    return (size_t)chr_hash_slice(client_id, chr_hash_seed()) & (ss->capacity - 1);
}

static size_t home_of_epoch(const struct db__sessions *ss, uint64_t epoch)
{
    return (size_t)chr_hash_u64(epoch) & (ss->capacity - 1);
}

struct db__session *db__session_find(const struct db__sessions *ss, chr_slice client_id)
{
    if (!ss->capacity)
        return NULL;
    for (size_t i = home_of_id(ss, client_id); ss->by_id[i]; i = (i + 1) & (ss->capacity - 1))
        if (chr_slice_eq(ss->by_id[i]->client_id, client_id))
            return ss->by_id[i];
    return NULL;
}

struct db__session *db__session_by_epoch(const struct db__sessions *ss, uint64_t epoch)
{
    if (!ss->capacity)
        return NULL;
    for (size_t i = home_of_epoch(ss, epoch); ss->by_epoch[i]; i = (i + 1) & (ss->capacity - 1))
        if (ss->by_epoch[i]->epoch == epoch)
            return ss->by_epoch[i];
    return NULL;
}

static void put_both(struct db__sessions *ss, struct db__session *s)
{
    size_t i = home_of_id(ss, s->client_id), mask = ss->capacity - 1;
    while (ss->by_id[i])
        i = (i + 1) & mask;
    ss->by_id[i] = s;
    i = home_of_epoch(ss, s->epoch);
    while (ss->by_epoch[i])
        i = (i + 1) & mask;
    ss->by_epoch[i] = s;
}

static void insert(struct db__sessions *ss, struct db__session *s)
{
    if (ss->count + 1 > ss->capacity / 2) {
        struct db__session **old = ss->by_id;
        size_t old_capacity = ss->capacity;
        free(ss->by_epoch);
        ss->capacity = old_capacity ? old_capacity * 2 : 16;
        ss->by_id = db__must_calloc(ss->capacity, sizeof *ss->by_id);
        ss->by_epoch = db__must_calloc(ss->capacity, sizeof *ss->by_epoch);
        for (size_t i = 0; i < old_capacity; i++)
            if (old[i])
                put_both(ss, old[i]);
        free(old);
    }
    ss->count++;
    put_both(ss, s);
}

/* Removes from an open-addressed array by moving back what would no longer be found. */
static void table_remove(struct db__sessions *ss, struct db__session **slots,
                         const struct db__session *s, bool by_id)
{
    size_t mask = ss->capacity - 1;
    size_t i = by_id ? home_of_id(ss, s->client_id) : home_of_epoch(ss, s->epoch);
    while (slots[i] != s)
        i = (i + 1) & mask;
    for (size_t j = (i + 1) & mask; slots[j]; j = (j + 1) & mask) {
        size_t home =
            by_id ? home_of_id(ss, slots[j]->client_id) : home_of_epoch(ss, slots[j]->epoch);
        if (((j - home) & mask) >= ((j - i) & mask)) {
            slots[i] = slots[j];
            i = j;
        }
    }
    slots[i] = NULL;
}

/* -- By time of end -----------------------------------------------------------------------------*/

static void heap_put(struct db__sessions *ss, size_t at, struct db__session *s)
{
    ss->by_expiry[at - 1] = s;
    s->heap_at = at;
}

/* Equal times are told apart by epoch, so that every node ends sessions in the same order. */
static bool sooner(const struct db__session *a, const struct db__session *b)
{
    return a->expires_us < b->expires_us || (a->expires_us == b->expires_us && a->epoch < b->epoch);
}

static void heap_settle(struct db__sessions *ss, size_t at)
{
    struct db__session *s = ss->by_expiry[at - 1];
    while (at > 1 && sooner(s, ss->by_expiry[at / 2 - 1])) {
        heap_put(ss, at, ss->by_expiry[at / 2 - 1]);
        at /= 2;
    }
    for (size_t child; (child = at * 2) <= ss->expiry_count; at = child) {
        if (child < ss->expiry_count && sooner(ss->by_expiry[child], ss->by_expiry[child - 1]))
            child++;
        if (!sooner(ss->by_expiry[child - 1], s))
            break;
        heap_put(ss, at, ss->by_expiry[child - 1]);
    }
    heap_put(ss, at, s);
}

static void heap_remove(struct db__sessions *ss, struct db__session *s)
{
    size_t at = s->heap_at;
    if (!at)
        return;
    s->heap_at = 0;
    struct db__session *last = ss->by_expiry[--ss->expiry_count];
    if (last != s) {
        heap_put(ss, at, last);
        heap_settle(ss, at);
    }
}

static void set_expiry(struct db__sessions *ss, struct db__session *s, int64_t expires_us)
{
    heap_remove(ss, s);
    s->expires_us = expires_us;
    if (expires_us == INT64_MAX)
        return;
    DB__RESERVE(ss->by_expiry, ss->expiry_count, ss->expiry_capacity);
    ss->by_expiry[ss->expiry_count++] = s;
    s->heap_at = ss->expiry_count;
    heap_settle(ss, ss->expiry_count);
}

static void start_count(struct db__sessions *ss, uint64_t node, uint64_t boot, bool one_more)
{
    size_t i = 0;
    while (i < ss->starts_count && (ss->starts[i].node != node || ss->starts[i].boot != boot))
        i++;
    if (i == ss->starts_count) {
        DB__RESERVE(ss->starts, ss->starts_count, ss->starts_capacity);
        ss->starts[ss->starts_count++] = (struct db__node_start){.node = node, .boot = boot};
    }
    ss->starts[i].connected += one_more ? 1 : UINT64_MAX;
    if (ss->starts[i].connected == 0)
        ss->starts[i] = ss->starts[--ss->starts_count];
}

static void set_connected(struct db *d, struct db__session *s, bool connected)
{
    if (s->connected)
        start_count(&d->sessions, s->node, s->boot, false);
    if (connected)
        start_count(&d->sessions, s->node, s->boot, true);
    d->durable.stats.connected += (uint64_t)connected - (uint64_t)s->connected;
    s->connected = connected;
}

static void set_expiry_s(struct db__sessions *ss, struct db__session *s, uint32_t expiry_s)
{
    ss->lasting += (size_t)(expiry_s != 0) - (size_t)(s->expiry_s != 0);
    s->expiry_s = expiry_s;
}

static chr_slice copy_of(chr_slice bytes)
{
    uint8_t *copy = db__must_malloc(bytes.len);
    if (bytes.len)
        memcpy(copy, bytes.ptr, bytes.len);
    return chr_slice_of(copy, bytes.len);
}

void db__session_set_owner(struct db__session *s, chr_slice owner)
{
    free((void *)s->owner.ptr);
    s->owner = copy_of(owner);
    s->has_owner = true;
}

struct db__session *db__session_new(chr_slice client_id, uint64_t epoch)
{
    struct db__session *s = db__must_calloc(1, sizeof *s);
    s->client_id = copy_of(client_id);
    s->epoch = epoch;
    s->expires_us = INT64_MAX;
    s->next_sequence = 1;
    s->next_subscription = 1;
    chr_list_init(&s->subscriptions);
    s->sweep = (struct db__due){.us = INT64_MAX, .tie = epoch, .kind = DB__DUE_SWEEP};
    return s;
}

/* Its will, if there still is one, is due: no delay is longer than the session. */
static void session_end(struct db *d, struct db__session *s)
{
    struct db__sessions *ss = &d->sessions;
    db__durable_write(d);
    if (s->will)
        db__will_due(d, s->will);
    while (!chr_list_empty(&s->subscriptions))
        db__subscription_remove(
            d, CHR_CONTAINER_OF(s->subscriptions.next, struct db__subscription, of_session));
    db__queue_drop_all(d, s);
    set_connected(d, s, false);
    heap_remove(ss, s);
    table_remove(ss, ss->by_id, s, true);
    table_remove(ss, ss->by_epoch, s, false);
    ss->count--;
    ss->lasting -= s->expiry_s != 0;
    ss->guards_count -= s->guards_count;
    DB__RESERVE(ss->ended, ss->ended_count, ss->ended_capacity);
    ss->ended[ss->ended_count++] = s->epoch;
    session_free(s);
}

void db__sessions_expire(struct db *d, int64_t now_us)
{
    while (d->sessions.expiry_count && d->sessions.by_expiry[0]->expires_us <= now_us)
        session_end(d, d->sessions.by_expiry[0]);
}

int64_t db__sessions_due(const struct db__sessions *ss)
{
    return ss->expiry_count ? ss->by_expiry[0]->expires_us : INT64_MAX;
}

void db__session_load(struct db__sessions *ss, struct db__session *s)
{
    int64_t expires_us = s->expires_us;
    s->heap_at = 0;
    insert(ss, s);
    ss->lasting += s->expiry_s != 0;
    if (s->connected)
        start_count(ss, s->node, s->boot, true);
    ss->guards_count += s->guards_count;
    set_expiry(ss, s, expires_us);
}

void db_sessions_each(const struct db *d,
                      void (*each)(void *arg, chr_slice client_id, uint64_t epoch,
                                   uint32_t generation, uint32_t expiry_s, bool connected),
                      void *arg)
{
    for (size_t i = 0; i < d->sessions.capacity; i++) {
        const struct db__session *s = d->sessions.by_id[i];
        if (s)
            each(arg, s->client_id, s->epoch, s->generation, s->expiry_s, s->connected);
    }
}

/* -- Packet ids ---------------------------------------------------------------------------------*/

static uint32_t guard_place(const struct db__session *s, uint16_t packet_id)
{
    uint32_t low = 0, high = s->guards_count;
    while (low < high) {
        uint32_t mid = (low + high) / 2;
        if (s->guards[mid] < packet_id)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* False when it is remembered already. */
bool db__guard_add(struct db__session *s, uint16_t packet_id)
{
    uint32_t at = guard_place(s, packet_id);
    if (at < s->guards_count && s->guards[at] == packet_id)
        return false;
    DB__RESERVE(s->guards, s->guards_count, s->guards_capacity);
    memmove(s->guards + at + 1, s->guards + at, (s->guards_count - at) * sizeof *s->guards);
    s->guards[at] = packet_id;
    s->guards_count++;
    return true;
}

static bool guard_remove(struct db__session *s, uint16_t packet_id)
{
    uint32_t at = guard_place(s, packet_id);
    if (at == s->guards_count || s->guards[at] != packet_id)
        return false;
    s->guards_count--;
    memmove(s->guards + at, s->guards + at + 1, (s->guards_count - at) * sizeof *s->guards);
    return true;
}

/* -- Operations ---------------------------------------------------------------------------------*/

/* A connection of a session that goes on takes the place of the last one: its will is dropped, but
 * when the connection was there until now and the will has no delay, its loss comes first. */
static void take_over(struct db *d, struct db__session *s)
{
    if (!s->will)
        return;
    if (s->connected && s->will->delay_s == 0)
        db__will_due(d, s->will);
    else
        db__will_drop(d, s->will);
}

static void lost(struct db *d, uint64_t epoch, uint64_t new_epoch, uint32_t generation)
{
    struct db__durable *u = &d->durable;
    DB__RESERVE(u->lost, u->lost_count, u->lost_capacity);
    u->lost[u->lost_count++] = (struct db_lost_session){epoch, new_epoch, generation};
}

void db__apply_session_open(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db_session_open open;
    struct db_will will;
    uint64_t ordinal = (uint64_t)(result - d->apply.results);
    if (op->flags & ~DB_OP_DURABLE || op->table_id || ordinal > UINT16_MAX ||
        db__session_open_decode(op, &open, &will)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    db__durable_write(d);
    struct db__session *s = db__session_find(&d->sessions, open.client_id);
    bool foreign = s && s->has_owner && open.has_owner && !chr_slice_eq(s->owner, open.owner);
    bool moves = s && (s->node != open.node || s->boot != open.boot);
    uint64_t old_epoch = s ? s->epoch : 0;
    if (s && (open.clean_start || foreign)) {
        session_end(d, s);
        s = NULL;
    }
    result->session_present = s != NULL;
    if (!s) {
        s = db__session_new(open.client_id, d->apply.index << 16 | ordinal);
        insert(&d->sessions, s);
    } else {
        take_over(d, s);
        if (moves && s->connected) /* nobody else knows what was sent there */
            s->sent = s->next_sequence - 1;
    }
    if (open.has_owner && !s->has_owner)
        db__session_set_owner(s, open.owner);
    s->generation++;
    if (moves)
        lost(d, old_epoch, s->epoch, s->generation);
    set_expiry_s(&d->sessions, s, open.expiry_s);
    s->queue_messages_max = open.queue_messages_max;
    s->window = open.window;
    s->queue_bytes_max = open.queue_bytes_max;
    s->queues_bytes_max = open.queues_bytes_max;
    s->drop_oldest = open.drop_oldest;
    s->dirty = true;
    set_connected(d, s, false);
    s->node = open.node;
    s->boot = open.boot;
    set_connected(d, s, true);
    set_expiry(&d->sessions, s, INT64_MAX);
    if (open.will)
        db__will_set(d, s, open.will);
    result->epoch = s->epoch;
    result->generation = s->generation;
}

/* Its connection is gone; expiry_s 0: so is the session. sent: the highest of its queue that may
 * have been. */
static void park(struct db *d, struct db__session *s, uint32_t expiry_s, uint64_t sent)
{
    if (expiry_s == 0) {
        session_end(d, s);
        return;
    }
    set_connected(d, s, false);
    set_expiry_s(&d->sessions, s, expiry_s);
    s->sent = CHR_MAX(s->sent, sent);
    s->dirty = true;
    if (s->will && s->will->delay_s == 0) {
        db__will_due(d, s->will);
    } else if (s->will) {
        s->will->dirty = true;
        db__due_set(&d->durable.dues, &s->will->due,
                    db__time_after(d->apply.now_us, s->will->delay_s));
    }
    set_expiry(&d->sessions, s, db__time_after(d->apply.now_us, expiry_s));
}

void db__apply_session_close(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db_session_close close;
    if (op->flags || op->table_id || db__session_close_decode(op->body, &close)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    struct db__session *s = db__session_find(&d->sessions, close.client_id);
    if (!s || s->epoch != close.epoch || s->generation != close.generation)
        return; /* somebody connected since: its end is none of this one's business */
    result->epoch = s->epoch;
    result->generation = s->generation;
    db__durable_write(d);
    if (close.will == DB_WILL_DROP)
        db__will_drop(d, s->will);
    park(d, s, close.expiry_s, close.sent);
}

static int by_epoch_cmp(const void *a, const void *b)
{
    const struct db__session *x = *(struct db__session *const *)a;
    const struct db__session *y = *(struct db__session *const *)b;
    return (x->epoch > y->epoch) - (x->epoch < y->epoch);
}

void db__apply_node_down(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__sessions *ss = &d->sessions;
    uint64_t node, boot, count = 0;
    if (db__node_down_decode(op, &node, &boot)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    for (size_t i = 0; i < ss->starts_count; i++)
        if (ss->starts[i].node == node && ss->starts[i].boot <= boot)
            count += ss->starts[i].connected;
    if (count == 0)
        return;
    db__durable_write(d);
    /* In the same order on every node: of what becomes due, and of what is said of it. */
    struct db__session **list = db__must_malloc(count * sizeof(struct db__session *));
    size_t n = 0;
    for (size_t i = 0; i < ss->capacity; i++) {
        struct db__session *s = ss->by_id[i];
        if (s && s->connected && s->node == node && s->boot <= boot)
            list[n++] = s;
    }
    CHR_ASSERT(n == count);
    qsort(list, n, sizeof(struct db__session *), by_epoch_cmp);
    for (size_t i = 0; i < n; i++) {
        struct db__session *s = list[i];
        s->generation++;
        lost(d, s->epoch, s->expiry_s ? s->epoch : 0, s->generation);
        if (s->will) /* there is nobody who would publish it before others */
            s->will->by_node = s->will->by_boot = 0;
        park(d, s, s->expiry_s, s->next_sequence - 1);
    }
    free(list);
    result->rows = (uint32_t)n;
}

static void guard_undo(struct db *d, const struct db__undo *item)
{
    struct db__session *s = item->a;
    bool removed = guard_remove(s, (uint16_t)item->x);
    CHR_ASSERT(removed);
    d->sessions.guards_count--;
}

void db__apply_guards(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    struct db__apply *a = &d->apply;
    if (a->has_guards || op->flags || op->table_id ||
        db__guards_check(op->body, op->count, !a->atomic)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    size_t words = DB_BIT_WORDS(op->count);
    if (words > a->guards_words_capacity) {
        a->duplicates = db__must_realloc(a->duplicates, words * sizeof(uint64_t));
        a->gone = db__must_realloc(a->gone, words * sizeof(uint64_t));
        a->guards_words_capacity = words;
    }
    memset(a->duplicates, 0, words * sizeof(uint64_t));
    memset(a->gone, 0, words * sizeof(uint64_t));
    a->has_guards = true;
    a->guards_count = op->count;
    for (uint32_t i = 0; i < op->count; i++) {
        struct db_guard g = db__guards_get(op->body, i);
        struct db__session *s = db__session_by_epoch(&d->sessions, g.epoch);
        if (g.packet_id == 0) { /* a will (M5); not in an atomic entry, which might be undone */
            if (!db__will_take(d, g.epoch, g.generation))
                db_bit_set(a->duplicates, i);
        } else if (!s || s->generation != g.generation) {
            db_bit_set(a->gone, i);
        } else if (!db__guard_add(s, g.packet_id)) {
            db_bit_set(a->duplicates, i);
        } else {
            s->dirty = true;
            d->sessions.guards_count++;
            struct db__undo *undo = db__undo_push(d, guard_undo);
            undo->a = s;
            undo->x = g.packet_id;
        }
    }
}

void db__apply_release(struct db *d, const struct db__op *op, struct db_op_result *result)
{
    if (op->flags || op->table_id || db__guards_check(op->body, op->count, false)) {
        result->err = CHR_ECORRUPT;
        return;
    }
    for (uint32_t i = 0; i < op->count; i++) {
        struct db_guard g = db__guards_get(op->body, i);
        struct db__session *s = db__session_by_epoch(&d->sessions, g.epoch);
        if (!s || s->generation != g.generation) {
            result->err = CHR_ENOTFOUND; /* its id is remembered: a PUBCOMP would free it */
        } else if (guard_remove(s, g.packet_id)) {
            s->dirty = true;
            d->sessions.guards_count--;
        }
    }
}
