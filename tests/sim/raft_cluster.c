#include "tests/sim/raft_cluster.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/buf.h"
#include "base/bytes.h"
#include "base/hash.h"
#include "raft/raft.h"
#include "tests/sim/fake_disk.h"

#define NODES_MAX     7u /* five voters, and two that come and go */
#define SEGMENT_BYTES 16384u
#define READS_MAX     64u
#define BYTES_MAX     400u

struct item { /* an entry with bytes of its own */
    uint64_t index, term;
    chr_hlc hlc;
    enum raft_entry_type type;
    uint32_t len;
    uint8_t bytes[BYTES_MAX];
};

struct items {
    struct item *at;
    size_t count, capacity;
};

struct save { /* for the log writer */
    bool truncate;
    uint64_t to; /* truncate */
    uint64_t sequence;
    struct items entries;
};

struct snapshot {
    uint64_t index, term;
    chr_hlc hlc;
    uint64_t chain;
    struct raft_members members;
};

enum read_kind { READ_LEASE, READ_ROUND, READ_ASKED, READ_WAITS };
struct pending_read {
    enum read_kind kind;
    uint64_t number, round, index;
    uint64_t floor;    /* acknowledged before it was asked */
    uint64_t pinned;   /* LEASE: applied when it was asked … */
    int64_t answer_at; /* … and when the answer leaves */
};

struct node {
    uint64_t id, incarnation;
    bool exists, up;
    struct fake_disk disk;
    raft_log *log;
    struct raft raft;
    struct snapshot snapshot; /* durable */
    struct items entries;     /* of the log, above entries_base */
    uint64_t entries_base;
    struct save *saves; /* a queue */
    size_t saves_count, saves_capacity;
    int64_t save_due;
    int64_t disk_us; /* how slow it is */
    uint64_t applied, chain;
    struct raft_members applied_members;
    int64_t paused_until;
    int64_t up_at; /* down: restarts then */
    double rate;   /* of its clock */
    int64_t offset, wall_offset;
    struct pending_read reads[READS_MAX];
    uint32_t reads_count;
    uint64_t read_number;
    int64_t snapshot_due[NODES_MAX + 1]; /* being sent to; gives up then */
    uint64_t boots;
};

struct packet {
    int64_t at;
    uint64_t to;
    bool is_snapshot, is_snapshot_reply, ok;
    struct raft_message m;
    struct items entries;
    struct snapshot snapshot;
    uint64_t from;
};

struct applied { /* what the whole cluster has agreed on */
    uint64_t term, hash, chain;
    uint64_t
        known_in; /* the term in which it was first applied: it was committed in it or before */
    bool acknowledged;
};

struct proposal {
    uint64_t index, term, node, boot, id;
};

struct world {
    const struct raft_cluster_options *options;
    struct raft_cluster_report *report;
    struct chr_random random;
    int64_t now;
    struct node nodes[NODES_MAX + 1]; /* by id */
    uint32_t voters;
    struct packet *packets;
    size_t packets_count, packets_capacity;
    bool cut[NODES_MAX + 1][NODES_MAX + 1]; /* [from][to] */
    struct applied *history;
    size_t history_count, history_capacity; /* history[i] is of entry i + 1 */
    uint64_t *leaders;                      /* by term */
    size_t leaders_count;
    struct proposal *proposals;
    size_t proposals_count, proposals_capacity;
    uint64_t acknowledged; /* the highest index */
    uint64_t next_id;
    int64_t next_fault, next_client, next_read, next_compact;
    int64_t blackout; /* INT64_MAX: none */
    bool eager;       /* the operator is next */
    bool one_by_one;  /* an append has one entry */
    bool healing;
    uint64_t wiped; /* a node that waits to be taken in again; 0: none */
};

/* ---- Helpers ----------------------------------------------------------------------------------
 */

static bool CHR_PRINTF(2, 3) broken(struct world *w, const char *format, ...)
{
    if (w->report->broken[0])
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(w->report->broken, sizeof w->report->broken, format, args);
    va_end(args);
    return false;
}

static bool sound(const struct world *w)
{
    return w->report->broken[0] == 0;
}

static uint64_t below(struct world *w, uint64_t bound)
{
    return chr_random_below(&w->random, bound);
}

static bool chance(struct world *w, uint32_t in_1000)
{
    return below(w, 1000) < in_1000;
}

static void *grow(void *at, size_t *capacity, size_t count, size_t bytes)
{
    if (count <= *capacity)
        return at;
    *capacity = CHR_MAX(count, *capacity * 2 + 8);
    at = realloc(at, *capacity * bytes);
    CHR_ASSERT(at);
    return at;
}

static void items_add(struct items *items, const struct raft_entry *e)
{
    items->at = grow(items->at, &items->capacity, items->count + 1, sizeof *items->at);
    struct item *i = &items->at[items->count++];
    CHR_ASSERT(e->bytes.len <= BYTES_MAX);
    *i = (struct item){e->index, e->term, e->hlc, e->type, (uint32_t)e->bytes.len, {0}};
    if (e->bytes.len)
        memcpy(i->bytes, e->bytes.ptr, e->bytes.len);
}

static struct raft_entry entry_of(const struct item *i)
{
    return (struct raft_entry){i->index, i->term, i->hlc, i->type, chr_slice_of(i->bytes, i->len)};
}

static void items_free(struct items *items)
{
    free(items->at);
    *items = (struct items){0};
}

static int64_t local(const struct world *w, const struct node *n)
{
    return n->offset + (int64_t)((double)w->now * n->rate);
}

/* When the node's clock shows local_us. */
static int64_t global(const struct node *n, int64_t local_us)
{
    return (int64_t)((double)(local_us - n->offset) / n->rate) + 1;
}

static void trace(struct world *w, const struct node *n, const char *what, uint64_t a, uint64_t b)
{
    if (w->options->verbose)
        printf(
            "%10lld node %llu %s %llu %llu (term %llu role %d last %llu saved %llu commit %llu)\n",
            (long long)w->now, (unsigned long long)n->id, what, (unsigned long long)a,
            (unsigned long long)b, (unsigned long long)n->raft.term, (int)n->raft.role,
            (unsigned long long)n->raft.last_index, (unsigned long long)n->raft.saved_index,
            (unsigned long long)n->raft.commit_index);
}

static struct item *item_at(struct node *n, uint64_t index)
{
    if (index <= n->entries_base || index > n->entries_base + n->entries.count)
        return NULL;
    return &n->entries.at[index - n->entries_base - 1];
}

/* ---- Network ----------------------------------------------------------------------------------
 */

static void packet_add(struct world *w, struct packet p, int64_t delay_us)
{
    p.at = w->now + delay_us;
    w->packets = grow(w->packets, &w->packets_capacity, w->packets_count + 1, sizeof *w->packets);
    w->packets[w->packets_count++] = p;
}

static void packet_copy(struct packet *to, const struct packet *from)
{
    *to = *from;
    to->entries = (struct items){0};
    for (size_t i = 0; i < from->entries.count; i++) {
        struct raft_entry e = entry_of(&from->entries.at[i]);
        items_add(&to->entries, &e);
    }
}

/* From now on nothing reaches it; what is on its way still does. */
static void deafen(struct world *w, uint64_t id)
{
    for (uint64_t from = 1; from <= NODES_MAX; from++)
        w->cut[from][id] = true;
}

static void transmit(struct world *w, struct packet p)
{
    w->report->messages++;
    if (w->cut[p.from][p.to] || (!w->healing && chance(w, 20))) {
        w->report->lost++;
        items_free(&p.entries);
        return;
    }
    int64_t delay = 100 + (int64_t)below(w, 2000);
    if (!w->healing && chance(w, 30))
        delay += (int64_t)below(w, chance(w, 200) ? 1500000
                                                  : 200000); /* overtaken, or from another age */
    if (!w->healing && p.m.type == RAFT_MESSAGE_TIMEOUT_NOW && chance(w, 500))
        delay += (int64_t)below(w, 1500000); /* arrives long after the transfer was given up */
    if (!w->healing && p.m.type == RAFT_MESSAGE_TIMEOUT_NOW && chance(w, 500))
        deafen(w, p.from);
    if (!w->healing && p.m.type == RAFT_MESSAGE_VOTE && chance(w, 150))
        delay += (int64_t)below(w, 1000000); /* asks again who has forgotten its vote */
    if (!w->healing && chance(w, 20)) {
        struct packet twin;
        packet_copy(&twin, &p);
        packet_add(w, twin, delay + (int64_t)below(w, 400000));
        w->report->doubled++;
    }
    packet_add(w, p, delay);
}

/* ---- Log writer -------------------------------------------------------------------------------
 */

static void crash(struct world *w, struct node *n, bool power, int64_t down_us);

static void save_queue(struct world *w, struct node *n, struct save s)
{
    n->saves = grow(n->saves, &n->saves_capacity, n->saves_count + 1, sizeof *n->saves);
    if (n->saves_count == 0)
        n->save_due = w->now + 50 + (int64_t)below(w, (uint64_t)n->disk_us);
    n->saves[n->saves_count++] = s;
}

static bool step(struct world *w, struct node *n, struct raft_event event);

static bool write_next(struct world *w, struct node *n)
{
    struct chr_errmsg msg = {{0}};
    struct save s = n->saves[0];
    memmove(n->saves, n->saves + 1, --n->saves_count * sizeof *n->saves);
    chr_err err = CHR_OK;
    if (s.truncate) {
        err = raft_log_truncate_suffix(n->log, s.to);
    } else {
        for (size_t i = 0; !err && i < s.entries.count; i++) {
            struct raft_entry e = entry_of(&s.entries.at[i]);
            err = raft_log_append(n->log, &e, 1);
        }
        if (!err)
            err = raft_log_sync(n->log, &msg);
    }
    uint64_t last = s.entries.count ? s.entries.at[s.entries.count - 1].index : 0;
    items_free(&s.entries);
    if (n->saves_count)
        n->save_due = w->now + 50 + (int64_t)below(w, (uint64_t)n->disk_us);
    if (err) {
        if (err != CHR_EIO && err != CHR_EDOUBT && err != CHR_ENOSPC)
            return broken(w, "node %llu: the log refused: %s", (unsigned long long)n->id,
                          chr_strerror(err));
        crash(w, n, true, 50000);
        return true;
    }
    if (s.truncate || w->options->plant == RAFT_CLUSTER_ACKNOWLEDGE_EARLY)
        return true;
    return step(
        w, n,
        (struct raft_event){.type = RAFT_EVENT_SAVED, .sequence = s.sequence, .saved_index = last});
}

/* ---- State machine and its checks -------------------------------------------------------------
 */

static uint64_t hash_of(const struct item *i)
{
    return chr_hash_u64(chr_hash_bytes(i->bytes, i->len, 0) ^ chr_hash_u64(i->index) ^
                        chr_hash_u64(i->term * 31 + (uint64_t)i->type));
}

static void acknowledge(struct world *w, const struct node *n, uint64_t index, uint64_t term)
{
    for (size_t i = 0; i < w->proposals_count; i++) {
        struct proposal *p = &w->proposals[i];
        if (p->node != n->id || p->boot != n->boots || p->index > index)
            continue;
        if (p->index == index && p->term == term) {
            w->history[index - 1].acknowledged = true;
            w->acknowledged = CHR_MAX(w->acknowledged, index);
            w->report->acknowledged++;
        }
        w->proposals[i--] = w->proposals[--w->proposals_count];
    }
}

static bool apply_one(struct world *w, struct node *n, const struct item *i)
{
    uint64_t hash = hash_of(i);
    uint64_t chain = chr_hash_u64(n->chain * 1000003 + hash);
    if (i->index > w->history_count) {
        CHR_ASSERT(i->index == w->history_count + 1);
        w->history =
            grow(w->history, &w->history_capacity, w->history_count + 1, sizeof *w->history);
        w->history[w->history_count++] =
            (struct applied){i->term, hash, chain, n->raft.term, false};
        w->report->committed++;
    }
    const struct applied *a = &w->history[i->index - 1];
    if (a->hash != hash || a->chain != chain)
        return broken(w, "node %llu applied another entry %llu (term %llu, not %llu)",
                      (unsigned long long)n->id, (unsigned long long)i->index,
                      (unsigned long long)i->term, (unsigned long long)a->term);
    n->applied = i->index;
    n->chain = chain;
    if (i->type == RAFT_ENTRY_CONFIG &&
        raft_members_decode(chr_slice_of(i->bytes, i->len), &n->applied_members))
        return broken(w, "members of entry %llu can't be read", (unsigned long long)i->index);
    acknowledge(w, n, i->index, i->term);
    return true;
}

static bool apply(struct world *w, struct node *n, uint64_t commit_index)
{
    while (n->applied < commit_index) {
        const struct item *i = item_at(n, n->applied + 1);
        if (!i)
            return broken(w, "node %llu has no entry %llu, which is committed",
                          (unsigned long long)n->id, (unsigned long long)n->applied + 1);
        if (!apply_one(w, n, i))
            return false;
    }
    return true;
}

/* The worst moment for a leader not to hear that there is another one: leases must have run out. */
static void deafen_old_leader(struct world *w, const struct node *n)
{
    for (uint64_t id = 1; !w->healing && id <= NODES_MAX && chance(w, 900); id++) {
        const struct node *old = &w->nodes[id];
        if (old != n && old->up && old->raft.role == RAFT_LEADER)
            deafen(w, id);
    }
    w->next_client = CHR_MIN(w->next_client, w->now + 5000);
    if (!w->healing && chance(w, 150)) /* … or is gone again when it has hardly begun … */
        w->blackout = w->now + (int64_t)below(w, 30000);
    w->eager = chance(w, 300); /* … or is asked for a change of members at once */
}

static bool check_leader(struct world *w, struct node *n)
{
    const struct raft *r = &n->raft;
    if (r->role != RAFT_LEADER)
        return true;
    if (r->term >= w->leaders_count) {
        size_t count = r->term + 64;
        w->leaders = realloc(w->leaders, count * sizeof *w->leaders);
        CHR_ASSERT(w->leaders);
        memset(w->leaders + w->leaders_count, 0, (count - w->leaders_count) * sizeof *w->leaders);
        w->leaders_count = count;
    }
    uint64_t *leader = &w->leaders[r->term];
    if (*leader == n->id)
        return true;
    if (*leader)
        return broken(w, "two leaders of term %llu: %llu and %llu", (unsigned long long)r->term,
                      (unsigned long long)*leader, (unsigned long long)n->id);
    *leader = n->id;
    w->report->elections++;
    deafen_old_leader(w, n);
    /* Leader completeness (thesis 3.6.3): everything that was committed in a term before. (A leader
     * can also be elected late, by votes that were long on their way.) */
    uint64_t last = w->history_count;
    while (last > 0 && w->history[last - 1].known_in >= r->term)
        last--;
    if (last > r->base_index && raft_term_of(r, last) != w->history[last - 1].term)
        return broken(w, "the leader of term %llu (node %llu) lacks entry %llu",
                      (unsigned long long)r->term, (unsigned long long)n->id,
                      (unsigned long long)last);
    if (r->base_index > w->history_count)
        return broken(w, "node %llu has compacted what nobody applied", (unsigned long long)n->id);
    return true;
}

/* Entries that are equal have equal entries before them. */
static bool check_logs(struct world *w, struct node *a)
{
    for (uint64_t id = 1; id <= NODES_MAX; id++) {
        struct node *b = &w->nodes[id];
        if (!b->up || b == a)
            continue;
        uint64_t low = CHR_MAX(a->entries_base, b->entries_base);
        uint64_t i = CHR_MIN(a->raft.last_index, b->raft.last_index);
        bool equal = false;
        for (; i > low; i--) {
            struct item *x = item_at(a, i), *y = item_at(b, i);
            if (x->term == y->term && (x->len != y->len || memcmp(x->bytes, y->bytes, x->len)))
                return broken(w, "nodes %llu and %llu have different entries %llu of term %llu",
                              (unsigned long long)a->id, (unsigned long long)b->id,
                              (unsigned long long)i, (unsigned long long)x->term);
            if (equal && x->term != y->term)
                return broken(w, "nodes %llu and %llu agree above entry %llu and not at it",
                              (unsigned long long)a->id, (unsigned long long)b->id,
                              (unsigned long long)i);
            equal |= x->term == y->term;
        }
    }
    return true;
}

/* ---- Reads ------------------------------------------------------------------------------------
 */

static bool read_served(struct world *w, const struct node *n, const struct pending_read *r,
                        uint64_t version, const char *how)
{
    w->report->reads++;
    if (version < r->floor)
        return broken(w, "node %llu answered a read at %llu by %s, %llu was acknowledged before it",
                      (unsigned long long)n->id, (unsigned long long)version, how,
                      (unsigned long long)r->floor);
    return true;
}

static bool serve_reads(struct world *w, struct node *n)
{
    for (uint32_t i = 0; i < n->reads_count; i++) {
        struct pending_read *r = &n->reads[i];
        if (r->kind == READ_LEASE && w->now >= r->answer_at) {
            /* R19: pinned, then the clock, then the answer. */
            if (local(w, n) < raft_lease_until_us(&n->raft)) {
                w->report->lease_reads++;
                if (!read_served(w, n, r, r->pinned, "its lease"))
                    return false;
            }
        } else if (r->kind == READ_WAITS && n->applied >= r->index) {
            if (!read_served(w, n, r, n->applied, "its index"))
                return false;
        } else {
            continue;
        }
        n->reads[i--] = n->reads[--n->reads_count];
    }
    return true;
}

static void take_read_effects(struct node *n, const struct raft_effects *effects)
{
    for (uint32_t i = 0; i < n->reads_count; i++) {
        struct pending_read *r = &n->reads[i];
        if (r->kind == READ_ROUND && effects->reads_lost) {
            n->reads[i--] = n->reads[--n->reads_count];
            continue;
        }
        if (r->kind == READ_ROUND && n->raft.role == RAFT_LEADER &&
            effects->read_confirmed >= r->round)
            r->kind = READ_WAITS;
        if (r->kind == READ_ASKED && effects->read_answered >= r->number) {
            r->kind = READ_WAITS;
            r->index = effects->read_answer;
        }
    }
}

/* ---- A step of the core, and its effects ------------------------------------------------------
 */

static void send_appends(struct world *w, struct node *n, uint32_t bits)
{
    for (uint32_t slot = 0; slot < n->raft.peers_count; slot++) {
        struct raft_message m;
        uint64_t last;
        for (int burst = 0; burst < 4 && (bits >> slot & 1); burst++) {
            if (!raft_next_append(&n->raft, slot, &m, &last))
                break;
            struct packet p = {.to = m.to, .from = n->id, .m = m};
            uint64_t max = w->one_by_one ? 1 : 1 + below(w, 8), bytes = 0, index = m.index;
            while (index < last && p.entries.count < max) {
                const struct item *i = item_at(n, index + 1);
                CHR_ASSERT(i);
                struct raft_entry e = entry_of(i);
                items_add(&p.entries, &e);
                bytes += i->len + 64;
                index++;
            }
            raft_append_sent(&n->raft, slot, index, bytes);
            transmit(w, p);
        }
    }
}

static void send_snapshots(struct world *w, struct node *n, uint32_t bits)
{
    for (uint32_t slot = 0; slot < n->raft.peers_count; slot++) {
        if (!(bits >> slot & 1))
            continue;
        uint64_t to = n->raft.peers[slot].member.id;
        CHR_ASSERT(n->snapshot.index >= n->raft.base_index);
        raft_snapshot_started(&n->raft, slot, n->snapshot.index);
        n->snapshot_due[to] = w->now + 400000;
        transmit(w, (struct packet){
                        .to = to, .from = n->id, .is_snapshot = true, .snapshot = n->snapshot});
    }
}

static bool step(struct world *w, struct node *n, struct raft_event event)
{
    event.now_us = local(w, n);
    event.wall_ms = (uint64_t)(1700000000000 + (w->now + n->wall_offset) / 1000);
    event.random = chr_random_u64(&w->random);
    struct raft_effects effects;
    chr_err err = raft_step(&n->raft, &event, &effects);
    if (err == CHR_EPROTO && w->options->plant == RAFT_CLUSTER_SOUND)
        return broken(w, "node %llu: a message contradicts what is committed",
                      (unsigned long long)n->id);
    if (effects.truncate && !w->healing && chance(w, 300)) {
        n->disk_us = 100000; /* what was taken back, and what comes instead, is long on its way */
        w->blackout = w->now + (int64_t)below(w, 100000);
    }
    if (effects.truncate) {
        n->entries.count = effects.truncate_to - n->entries_base;
        save_queue(w, n, (struct save){.truncate = true, .to = effects.truncate_to});
    }
    if (effects.hard_state_changed && w->options->plant != RAFT_CLUSTER_FORGET_HARD_STATE &&
        raft_log_set_hard_state(n->log, effects.hard_state)) {
        crash(w, n, true, 50000);
        return true; /* nothing of it was said */
    }
    if (effects.save_count) {
        struct save s = {.sequence = effects.save_sequence};
        for (size_t i = 0; i < effects.save_count; i++) {
            items_add(&s.entries, &effects.save[i]);
            items_add(&n->entries, &effects.save[i]);
        }
        save_queue(w, n, s);
    }
    for (uint32_t i = 0; i < effects.messages_count; i++)
        transmit(w, (struct packet){
                        .to = effects.messages[i].to, .from = n->id, .m = effects.messages[i]});
    send_appends(w, n, effects.append_to);
    send_snapshots(w, n, effects.snapshot_to);
    take_read_effects(n, &effects);
    if (n->entries_base + n->entries.count != n->raft.last_index)
        return broken(w, "node %llu: the core's last entry is %llu, the log's %llu",
                      (unsigned long long)n->id, (unsigned long long)n->raft.last_index,
                      (unsigned long long)(n->entries_base + n->entries.count));
    if (w->options->plant == RAFT_CLUSTER_ACKNOWLEDGE_EARLY && effects.save_count &&
        !step(w, n,
              (struct raft_event){.type = RAFT_EVENT_SAVED,
                                  .sequence = effects.save_sequence,
                                  .saved_index = n->raft.last_index}))
        return false;
    return check_leader(w, n) && apply(w, n, effects.commit_index) && serve_reads(w, n);
}

/* ---- Lives of nodes ---------------------------------------------------------------------------
 */

static void close_node(struct node *n)
{
    raft_log_close(n->log);
    n->log = NULL;
    raft_free(&n->raft);
    items_free(&n->entries);
    for (size_t i = 0; i < n->saves_count; i++)
        items_free(&n->saves[i].entries);
    n->saves_count = 0;
    n->reads_count = 0;
    memset(n->snapshot_due, 0, sizeof n->snapshot_due);
    n->up = false;
}

static void crash(struct world *w, struct node *n, bool power, int64_t down_us)
{
    trace(w, n, "crashes", power, 0);
    fake_disk_off(&n->disk);
    close_node(n);
    if (power)
        fake_disk_crash(&n->disk);
    else
        fake_disk_kill(&n->disk);
    n->up_at = w->now + down_us;
    w->report->crashes++;
}

static bool read_log(struct world *w, struct node *n, struct items *changes)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 8u << 20);
    struct raft_entry entries[64];
    size_t count = 1;
    n->entries_base = raft_log_first(n->log) - 1;
    for (uint64_t next = n->entries_base + 1; count && next <= raft_log_last(n->log);
         next += count) {
        chr_buf_reset(&buf);
        if (raft_log_read(n->log, next, 1u << 20, &buf, entries, 64, &count)) {
            chr_buf_free(&buf);
            return broken(w, "node %llu can't read its log at %llu", (unsigned long long)n->id,
                          (unsigned long long)next);
        }
        for (size_t i = 0; i < count; i++) {
            items_add(&n->entries, &entries[i]);
            if (entries[i].type == RAFT_ENTRY_CONFIG && entries[i].index > n->snapshot.index)
                items_add(changes, &entries[i]);
        }
    }
    chr_buf_free(&buf);
    return true;
}

static bool start_core(struct world *w, struct node *n, const struct raft_log_recovery *recovery)
{
    struct items changes = {0};
    if (!read_log(w, n, &changes))
        return false;
    struct raft_term_run *runs = calloc(n->entries.count + 1, sizeof *runs);
    struct raft_entry *entries = calloc(changes.count + 1, sizeof *entries);
    CHR_ASSERT(runs && entries);
    size_t runs_count = 0;
    for (size_t i = 0; i < n->entries.count; i++)
        if (runs_count == 0 || runs[runs_count - 1].term != n->entries.at[i].term)
            runs[runs_count++] =
                (struct raft_term_run){n->entries.at[i].index, n->entries.at[i].term};
    for (size_t i = 0; i < changes.count; i++)
        entries[i] = entry_of(&changes.at[i]);
    struct raft_config config = {
        .self = n->id, .incarnation = n->incarnation, .inflight_bytes_max = 4096};
    struct raft_stored stored = {
        .hard_state = recovery->hard_state,
        .base_index = n->entries_base,
        .base_term = n->entries_base == n->snapshot.index
                         ? n->snapshot.term
                         : raft_log_term_of(n->log, n->entries_base),
        .last_index = raft_log_last(n->log),
        .last_hlc = CHR_MAX(recovery->last_hlc, n->snapshot.hlc),
        .commit_index = n->snapshot.index,
        .members = n->snapshot.members,
        .members_index = n->snapshot.index,
        .runs = runs,
        .runs_count = runs_count,
        .changes = entries,
        .changes_count = changes.count,
    };
    chr_err err = raft_init(&n->raft, &config, &stored);
    free(runs);
    free(entries);
    items_free(&changes);
    if (err)
        return broken(w, "node %llu can't start: %s (base %llu last %llu commit %llu)",
                      (unsigned long long)n->id, chr_strerror(err),
                      (unsigned long long)stored.base_index, (unsigned long long)stored.last_index,
                      (unsigned long long)stored.commit_index);
    n->applied = n->snapshot.index;
    n->chain = n->snapshot.chain;
    n->applied_members = n->snapshot.members;
    return true;
}

static bool boot(struct world *w, struct node *n)
{
    struct raft_log_options options = {.segment_bytes = SEGMENT_BYTES,
                                       .first_segment_bytes = SEGMENT_BYTES,
                                       .recycle_max = 1,
                                       .fsync = RAFT_FSYNC_BATCH,
                                       .incarnation = n->incarnation};
    struct raft_log_recovery recovery;
    struct chr_errmsg msg = {{0}};
    n->boots++;
    chr_err err =
        raft_log_open(&n->disk.io, &options, n->snapshot.index + 1, &n->log, &recovery, &msg);
    if (err)
        return broken(w, "node %llu can't open its log: %s", (unsigned long long)n->id, msg.text);
    n->up = true;
    if (!start_core(w, n, &recovery))
        return false;
    trace(w, n, "starts", n->snapshot.index, n->boots);
    return step(w, n, (struct raft_event){.type = RAFT_EVENT_TICK});
}

static void wipe(struct world *w, struct node *n)
{
    if (n->up)
        crash(w, n, true, (int64_t)below(w, 300000));
    fake_disk_close(&n->disk);
    fake_disk_open(&n->disk, chr_random_u64(&w->random));
    n->disk.faults.sync_lies = w->options->plant == RAFT_CLUSTER_SKIP_SYNC;
    n->snapshot = (struct snapshot){0}; /* it knows no members until a leader tells it (R20) */
    if (w->options->plant == RAFT_CLUSTER_WIPED_VOTES) {
        for (uint32_t v = 1; v <= w->voters; v++) {
            chr_err err = raft_members_add(&n->snapshot.members,
                                           (struct raft_member){v, w->nodes[v].incarnation, true});
            CHR_ASSERT(!err);
        }
    } else {
        n->incarnation = chr_random_u64(&w->random) | 1;
    }
    w->wiped = n->id;
    w->report->wipes++;
    trace(w, n, "is wiped", 0, 0);
}

static void install(struct world *w, struct node *n, const struct snapshot *s)
{
    struct raft_hard_state hard_state = {n->raft.term, n->raft.vote};
    for (size_t i = 0; i < n->saves_count; i++)
        items_free(&n->saves[i].entries);
    n->saves_count = 0;
    raft_log_close(n->log);
    fake_disk_close(&n->disk);
    fake_disk_open(&n->disk, chr_random_u64(&w->random));
    n->disk.faults.sync_lies = w->options->plant == RAFT_CLUSTER_SKIP_SYNC;
    n->snapshot = *s;
    struct raft_log_options options = {.segment_bytes = SEGMENT_BYTES,
                                       .first_segment_bytes = SEGMENT_BYTES,
                                       .recycle_max = 1,
                                       .incarnation = n->incarnation};
    struct raft_log_recovery recovery;
    struct chr_errmsg msg = {{0}};
    chr_err err = raft_log_open(&n->disk.io, &options, s->index + 1, &n->log, &recovery, &msg);
    if (!err)
        err = raft_log_set_hard_state(n->log, hard_state);
    CHR_ASSERT(!err);
    n->entries.count = 0;
    n->entries_base = s->index;
    n->applied = s->index;
    n->chain = s->chain;
    n->applied_members = s->members;
    w->report->snapshots++;
    trace(w, n, "installs", s->index, s->term);
}

/* ---- What happens -----------------------------------------------------------------------------
 */

static bool take_snapshot_packet(struct world *w, struct node *n, const struct packet *p)
{
    const struct snapshot *s = &p->snapshot;
    bool has = s->index <= n->raft.commit_index ||
               (s->index <= n->raft.last_index && raft_term_of(&n->raft, s->index) == s->term);
    struct packet reply = {.to = p->from, .from = n->id, .is_snapshot_reply = true, .ok = true};
    if (!has) {
        if (w->history[s->index - 1].chain != s->chain)
            return broken(w, "a snapshot of something else");
        install(w, n, s);
        if (!step(w, n,
                  (struct raft_event){.type = RAFT_EVENT_INSTALLED,
                                      .index = s->index,
                                      .log_term = s->term,
                                      .hlc = s->hlc,
                                      .members = &s->members}))
            return false;
    }
    transmit(w, reply);
    return true;
}

static bool deliver(struct world *w, struct packet *p)
{
    struct node *n = &w->nodes[p->to];
    if (!n->up)
        return true;
    if (p->is_snapshot)
        return take_snapshot_packet(w, n, p);
    if (p->is_snapshot_reply) {
        n->snapshot_due[p->from] = 0;
        return step(
            w, n,
            (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = p->from, .ok = p->ok});
    }
    struct raft_entry entries[16];
    CHR_ASSERT(p->entries.count <= CHR_COUNT_OF(entries));
    for (size_t i = 0; i < p->entries.count; i++)
        entries[i] = entry_of(&p->entries.at[i]);
    p->m.entries = entries;
    p->m.entries_count = p->entries.count;
    if (w->options->verbose)
        printf("%10lld %llu ─▶ %llu: message %d term %llu index %llu/%llu commit %llu match %llu n "
               "%zu\n",
               (long long)w->now, (unsigned long long)p->from, (unsigned long long)p->to,
               (int)p->m.type, (unsigned long long)p->m.term, (unsigned long long)p->m.index,
               (unsigned long long)p->m.log_term, (unsigned long long)p->m.commit,
               (unsigned long long)p->m.match, p->entries.count);
    return step(w, n, (struct raft_event){.type = RAFT_EVENT_MESSAGE, .message = &p->m});
}

static struct node *some_node(struct world *w, bool leader)
{
    uint32_t from = 1 + (uint32_t)below(w, NODES_MAX);
    for (uint32_t i = 0; i < NODES_MAX; i++) {
        struct node *n = &w->nodes[1 + (from + i) % NODES_MAX];
        if (n->up && n->paused_until <= w->now && (!leader || n->raft.role == RAFT_LEADER))
            return n;
    }
    return NULL;
}

static bool propose(struct world *w)
{
    struct node *n = some_node(w, !chance(w, 50));
    if (!n)
        return true;
    struct raft_entry entries[6];
    uint8_t bytes[6][64];
    size_t count = 1 + below(w, 6);
    for (size_t i = 0; i < count; i++) {
        memset(bytes[i], 0, sizeof bytes[i]);
        chr_put_u64le(bytes[i], ++w->next_id);
        entries[i] = (struct raft_entry){.type = RAFT_ENTRY_DATA,
                                         .bytes = chr_slice_of(bytes[i], 8 + below(w, 56))};
    }
    if (n->raft.role != RAFT_LEADER)
        return step(w, n,
                    (struct raft_event){
                        .type = RAFT_EVENT_PROPOSE, .entries = entries, .entries_count = count});
    /* Noted before the step: alone, it may be applied within. */
    for (size_t i = 0; i < count && !n->raft.transfer_to; i++) {
        w->proposals = grow(w->proposals, &w->proposals_capacity, w->proposals_count + 1,
                            sizeof *w->proposals);
        w->proposals[w->proposals_count++] = (struct proposal){
            n->raft.last_index + 1 + i, n->raft.term, n->id, n->boots, w->next_id - count + 1 + i};
    }
    return step(w, n,
                (struct raft_event){
                    .type = RAFT_EVENT_PROPOSE, .entries = entries, .entries_count = count});
}

static bool ask(struct world *w)
{
    struct node *n = some_node(w, chance(w, 500));
    if (!n || n->reads_count == READS_MAX)
        return true;
    struct pending_read r = {.number = ++n->read_number, .floor = w->acknowledged};
    if (w->options->plant == RAFT_CLUSTER_NO_LEASE && n->raft.role == RAFT_LEADER)
        return read_served(w, n, &r, n->applied, "its office");
    uint64_t pinned = n->applied;
    struct raft_event event = {.type = RAFT_EVENT_READ, .read_number = r.number};
    event.now_us = local(w, n);
    event.random = chr_random_u64(&w->random);
    struct raft_effects effects;
    chr_err err = raft_step(&n->raft, &event, &effects);
    CHR_ASSERT(!err);
    for (uint32_t i = 0; i < effects.messages_count; i++)
        transmit(w, (struct packet){
                        .to = effects.messages[i].to, .from = n->id, .m = effects.messages[i]});
    r.index = effects.read_index;
    switch (effects.read) {
    case RAFT_READ_NOW:
        r.kind = pinned >= r.index ? READ_LEASE : READ_WAITS;
        r.pinned = pinned;
        /* The process may be stopped between the two. */
        r.answer_at = w->now + (chance(w, 300) ? (int64_t)below(w, 2000000) : 0);
        break;
    case RAFT_READ_ROUND:
        r.kind = READ_ROUND;
        r.round = effects.read_round;
        break;
    case RAFT_READ_ASKED:
        r.kind = READ_ASKED;
        break;
    default:
        return true;
    }
    n->reads[n->reads_count++] = r;
    take_read_effects(n, &effects);
    return serve_reads(w, n);
}

/* Takes a snapshot of what is applied and lets the log go before it. */
static bool compact(struct world *w)
{
    struct node *n = some_node(w, false);
    if (!n || n->applied <= n->snapshot.index)
        return true;
    const struct item *i = item_at(n, n->applied);
    if (!i)
        return true;
    n->snapshot = (struct snapshot){n->applied, i->term, i->hlc, n->chain, n->applied_members};
    if (n->saves_count)
        return true;
    uint64_t keep = below(w, 40);
    chr_err err = raft_log_cut_prefix(n->log, n->applied - CHR_MIN(n->applied, keep));
    if (err) {
        crash(w, n, true, 50000);
        return true;
    }
    uint64_t base = raft_log_first(n->log) - 1;
    if (base > n->entries_base) {
        size_t gone = base - n->entries_base;
        n->entries.count -= gone;
        memmove(n->entries.at, n->entries.at + gone, n->entries.count * sizeof *n->entries.at);
        n->entries_base = base;
    }
    return step(w, n, (struct raft_event){.type = RAFT_EVENT_COMPACTED, .index = base});
}

/* The operator: a wiped node is removed and comes back as a learner; spare nodes come and go. */
static bool administer(struct world *w)
{
    struct node *leader = some_node(w, true);
    if (!leader)
        return true;
    struct raft_event event = {.type = RAFT_EVENT_CHANGE};
    const struct raft_members *now = raft_members_now(&leader->raft);
    uint64_t id = w->wiped ? w->wiped : w->voters + 1 + below(w, 2);
    struct node *n = &w->nodes[id];
    const struct raft_member *m = raft_members_find(now, id);
    event.member = (struct raft_member){.id = id, .incarnation = n->incarnation};
    if (m && m->incarnation != n->incarnation)
        event.change = RAFT_CHANGE_REMOVE;
    else if (!m)
        event.change = RAFT_CHANGE_ADD_LEARNER;
    else if (!m->voter)
        event.change = RAFT_CHANGE_PROMOTE;
    else if (id > w->voters)
        event.change = RAFT_CHANGE_REMOVE;
    else {
        if (leader->raft.changes[leader->raft.changes_count - 1].index <= leader->raft.commit_index)
            w->wiped = 0; /* it is a voter again */
        return true;
    }
    if (event.change == RAFT_CHANGE_ADD_LEARNER && !n->exists) {
        n->exists = true;
        n->up_at = w->now;
    }
    uint64_t last = leader->raft.last_index;
    bool ok = step(w, leader, event);
    w->report->changes += leader->up && leader->raft.last_index > last;
    return ok;
}

/* ---- Faults -----------------------------------------------------------------------------------
 */

static void heal_network(struct world *w)
{
    memset(w->cut, 0, sizeof w->cut);
}

static void cut_network(struct world *w)
{
    w->report->cuts++;
    heal_network(w);
    switch (below(w, 6)) {
    case 4: /* the leader and one other do not hear each other, and the rest hears both … */
    case 5: /* … or has no answer for the leader */
    {
        const struct node *leader = some_node(w, true);
        uint64_t other = 1 + below(w, NODES_MAX);
        if (!leader)
            break;
        w->cut[leader->id][other] = w->cut[other][leader->id] = true;
        bool answers = chance(w, 500);
        for (uint64_t id = 1; id <= NODES_MAX; id++)
            w->cut[id][leader->id] |= !answers;
        break;
    }
    case 0: /* two halves */
    {
        uint64_t side = chr_random_u64(&w->random);
        for (uint32_t a = 1; a <= NODES_MAX; a++)
            for (uint32_t b = 1; b <= NODES_MAX; b++)
                w->cut[a][b] = (side >> a & 1) != (side >> b & 1);
        break;
    }
    case 1: /* one node hears, and is not heard */
    case 2: /* … or the other way round */
    {
        uint32_t id = 1 + (uint32_t)below(w, NODES_MAX);
        bool hears = chance(w, 500);
        for (uint32_t b = 1; b <= NODES_MAX; b++)
            w->cut[hears ? id : b][hears ? b : id] = true;
        break;
    }
    default: /* some links, each way by itself */
        for (uint32_t i = 0; i < NODES_MAX; i++)
            w->cut[1 + below(w, NODES_MAX)][1 + below(w, NODES_MAX)] = true;
    }
}

static uint32_t voters_down(const struct world *w)
{
    uint32_t down = 0;
    for (uint32_t id = 1; id <= w->voters; id++)
        down += !w->nodes[id].up;
    return down;
}

/* The building has no power. */
static void black_out(struct world *w)
{
    w->blackout = INT64_MAX;
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (w->nodes[id].up)
            crash(w, &w->nodes[id], true, 1000 + (int64_t)below(w, 500000));
}

static bool fault(struct world *w)
{
    struct node *n = &w->nodes[1 + below(w, NODES_MAX)];
    if (!n->exists)
        return true;
    switch (below(w, 12)) {
    case 0:
        black_out(w);
        break;
    case 1:
        if (n->up)
            crash(w, n, chance(w, 700),
                  1000 + (int64_t)below(w, chance(w, 200) ? 4000000 : 300000));
        break;
    case 2: /* the leader */
        n = some_node(w, true);
        if (n)
            crash(w, n, chance(w, 700), 1000 + (int64_t)below(w, 800000));
        break;
    case 3:
        w->report->pauses++;
        n->paused_until = w->now + (int64_t)below(w, 1500000);
        break;
    case 4:
    case 5:
        cut_network(w);
        break;
    case 6:
    case 7:
        heal_network(w);
        break;
    case 8:
        n->disk_us = chance(w, 300) ? 400000 : 200 + (int64_t)below(w, 30000);
        break;
    case 9:
        n->wall_offset = (int64_t)below(w, 20000000) - 10000000;
        break;
    case 10:
        n = some_node(w, true);
        if (n) {
            w->report->transfers++;
            return step(
                w, n,
                (struct raft_event){.type = RAFT_EVENT_TRANSFER, .peer = 1 + below(w, NODES_MAX)});
        }
        break;
    default: /* a wiped disk, if that leaves a majority that remembers */
        if (w->voters > 1 && w->wiped == 0 && n->id <= w->voters && voters_down(w) == 0)
            wipe(w, n);
    }
    return true;
}

/* ---- Time -------------------------------------------------------------------------------------
 */

enum next_type {
    NEXT_PACKET,
    NEXT_TICK,
    NEXT_SAVE,
    NEXT_BOOT,
    NEXT_READ,
    NEXT_SNAPSHOT_LOST,
    NEXT_WORLD
};
struct next {
    int64_t at;
    enum next_type type;
    size_t packet;
    struct node *node;
    uint64_t peer;
};

static void consider(struct next *next, struct next other)
{
    if (other.at < next->at)
        *next = other;
}

static void consider_node(const struct world *w, struct node *n, struct next *next)
{
    if (!n->exists)
        return;
    if (!n->up) {
        consider(next, (struct next){.at = n->up_at, .type = NEXT_BOOT, .node = n});
        return;
    }
    int64_t least = n->paused_until;
    int64_t due = raft_next_due_us(&n->raft);
    if (due != INT64_MAX)
        consider(next,
                 (struct next){.at = CHR_MAX(least, global(n, due)), .type = NEXT_TICK, .node = n});
    if (n->saves_count)
        consider(next,
                 (struct next){.at = CHR_MAX(least, n->save_due), .type = NEXT_SAVE, .node = n});
    for (uint32_t i = 0; i < n->reads_count; i++)
        if (n->reads[i].kind == READ_LEASE)
            consider(next, (struct next){.at = CHR_MAX(least, n->reads[i].answer_at),
                                         .type = NEXT_READ,
                                         .node = n});
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        if (n->snapshot_due[id])
            consider(next, (struct next){.at = CHR_MAX(least, n->snapshot_due[id]),
                                         .type = NEXT_SNAPSHOT_LOST,
                                         .node = n,
                                         .peer = id});
    (void)w;
}

static struct next find_next(struct world *w)
{
    struct next next = {.at = INT64_MAX};
    for (size_t i = 0; i < w->packets_count; i++) {
        int64_t at = CHR_MAX(w->packets[i].at, w->nodes[w->packets[i].to].paused_until);
        consider(&next, (struct next){.at = at, .type = NEXT_PACKET, .packet = i});
    }
    for (uint32_t id = 1; id <= NODES_MAX; id++)
        consider_node(w, &w->nodes[id], &next);
    int64_t world = CHR_MIN(CHR_MIN(w->next_client, w->next_read), w->next_compact);
    if (!w->healing)
        world = CHR_MIN(world, CHR_MIN(w->next_fault, w->blackout));
    consider(&next, (struct next){.at = world, .type = NEXT_WORLD});
    return next;
}

static bool world_turn(struct world *w)
{
    if (!w->healing && w->now >= w->blackout) {
        black_out(w);
        return true;
    }
    if (w->now >= w->next_client) {
        w->next_client = w->now + 500 + (int64_t)below(w, chance(w, 5) ? 1500000 : 15000);
        bool eager = w->eager;
        w->eager = false;
        return eager || chance(w, w->healing && w->wiped ? 200 : 30) ? administer(w) : propose(w);
    }
    if (w->now >= w->next_read) {
        w->next_read = w->now + 200 + (int64_t)below(w, 5000);
        return ask(w);
    }
    if (w->now >= w->next_compact) {
        w->next_compact = w->now + 10000 + (int64_t)below(w, 400000);
        return compact(w);
    }
    w->next_fault = w->now + 10000 + (int64_t)below(w, chance(w, 500) ? 60000 : 500000);
    return fault(w);
}

static bool turn(struct world *w)
{
    struct next next = find_next(w);
    w->now = CHR_MAX(w->now, next.at);
    w->report->steps++;
    struct node *n = next.node;
    switch (next.type) {
    case NEXT_PACKET: {
        struct packet p = w->packets[next.packet];
        w->packets[next.packet] = w->packets[--w->packets_count];
        bool ok = deliver(w, &p);
        items_free(&p.entries);
        return ok;
    }
    case NEXT_TICK:
        return step(w, n, (struct raft_event){.type = RAFT_EVENT_TICK});
    case NEXT_SAVE:
        return write_next(w, n);
    case NEXT_BOOT:
        return boot(w, n);
    case NEXT_READ:
        return serve_reads(w, n);
    case NEXT_SNAPSHOT_LOST:
        n->snapshot_due[next.peer] = 0;
        return step(w, n, (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_SENT, .peer = next.peer});
    case NEXT_WORLD:
        return world_turn(w);
    }
    return false;
}

/* ---- The end ----------------------------------------------------------------------------------
 */

static bool converged(struct world *w)
{
    struct node *leader = some_node(w, true);
    if (!leader || leader->applied < w->history_count)
        return false;
    const struct raft_members *members = raft_members_now(&leader->raft);
    for (uint32_t i = 0; i < members->count; i++)
        if (w->nodes[members->items[i].id].applied < w->history_count ||
            members->items[i].incarnation != w->nodes[members->items[i].id].incarnation)
            return false;
    return true;
}

/* Everything works from now on: within a minute there is one leader and all have everything. */
static bool heal(struct world *w)
{
    w->healing = true;
    heal_network(w);
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        n->paused_until = w->now;
        n->disk_us = 200;
        if (n->exists && !n->up)
            n->up_at = w->now;
    }
    int64_t end = w->now + 60000000;
    uint64_t goal = w->history_count + 20;
    while (w->now < end) {
        if (!turn(w) || !sound(w))
            return false;
        if (w->history_count >= goal && w->acknowledged + 10 >= goal && !w->wiped) {
            w->next_client = end; /* nothing new any more */
            if (converged(w))
                return true;
        }
    }
    struct node *leader = some_node(w, true);
    return broken(
        w, "a minute after everything was healed: leader %llu, %zu entries applied, %llu asked for",
        (unsigned long long)(leader ? leader->id : 0), w->history_count, (unsigned long long)goal);
}

static void start(struct world *w)
{
    static const uint32_t sizes[] = {1, 3, 3, 3, 5, 5, 5};
    chr_random_u64(&w->random);
    w->voters = w->options->voters ? w->options->voters : sizes[below(w, CHR_COUNT_OF(sizes))];
    struct raft_members members = {0};
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        n->id = id;
        n->incarnation = chr_random_u64(&w->random) | 1;
        n->rate = 0.92 + 0.16 * chr_random_f64(&w->random);
        n->offset = (int64_t)below(w, 1000000000);
        n->disk_us = 200 + (int64_t)below(w, 10000);
        fake_disk_open(&n->disk, chr_random_u64(&w->random));
        n->disk.faults.sync_lies = w->options->plant == RAFT_CLUSTER_SKIP_SYNC;
        n->exists = id <= w->voters;
        if (n->exists) {
            chr_err err =
                raft_members_add(&members, (struct raft_member){id, n->incarnation, true});
            CHR_ASSERT(!err);
        }
    }
    for (uint32_t id = 1; id <= w->voters; id++)
        w->nodes[id].snapshot.members = members;
}

bool raft_cluster_run(const struct raft_cluster_options *options,
                      struct raft_cluster_report *report)
{
    struct world *w = calloc(1, sizeof *w);
    CHR_ASSERT(w);
    *report = (struct raft_cluster_report){0};
    w->options = options;
    w->report = report;
    w->random.state = options->seed;
    w->blackout = INT64_MAX;
    w->one_by_one = chance(w, 200);
    start(w);
    while (sound(w) && report->steps < options->steps) {
        if (!turn(w))
            break;
        struct node *n = &w->nodes[1 + report->steps % NODES_MAX];
        if (report->steps % 16 == 0 && n->up && !check_logs(w, n))
            break;
    }
    if (sound(w))
        (void)heal(w);
    for (uint32_t id = 1; id <= NODES_MAX; id++) {
        struct node *n = &w->nodes[id];
        if (n->up) {
            fake_disk_off(&n->disk);
            close_node(n);
        }
        free(n->saves);
        fake_disk_close(&n->disk);
    }
    for (size_t i = 0; i < w->packets_count; i++)
        items_free(&w->packets[i].entries);
    free(w->packets);
    free(w->history);
    free(w->leaders);
    free(w->proposals);
    bool ok = sound(w);
    free(w);
    return ok;
}
