/* broker/committer_core.c: a turn of the core: what the log has saved and what peers said go in,
 * what it answers is carried out. It touches no file and waits for nobody. */
#include <stdlib.h>
#include <string.h>

#include "base/arena.h"
#include "base/array.h"
#include "base/assert.h"
#include "base/log.h"
#include "bridge/peer_codec.h"
#include "broker/committer_internal.h"

/* ---- Effects ----------------------------------------------------------------------------------
 */

static void send_message(struct broker_committer *c, const struct raft_message *m)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 1024);
    if (!peer_raft_encode(m, &buf)) {
        chr_slice bytes = chr_buf_slice(&buf);
        /* What can't be sent now is lost, which Raft allows. */
        (void)!peers_send(c->cluster.peers, m->to, PEERS_CONTROL, PEERS_RAFT, &bytes, 1);
    }
    chr_buf_free(&buf);
}

/* Term and vote are fsynced before any word of them leaves (thesis 3.8). */
static bool hard_state_pending(const struct broker_committer *c)
{
    return atomic_load(&c->hard_saved) < c->hard_wanted;
}

static bool send_held(struct broker_committer *c)
{
    if (c->held_count == 0 || hard_state_pending(c))
        return false;
    for (uint32_t i = 0; i < c->held_count; i++)
        send_message(c, &c->held[i]);
    c->held_count = 0;
    return true;
}

static void send_messages(struct broker_committer *c)
{
    for (uint32_t i = 0; i < c->effects.messages_count; i++) {
        if (!hard_state_pending(c) && c->held_count == 0)
            send_message(c, &c->effects.messages[i]);
        else if (c->held_count < COMMITTER_HELD_MAX)
            c->held[c->held_count++] = c->effects.messages[i];
    }
}

static void note_leader(struct broker_committer *c)
{
    const struct raft *raft = &c->raft;
    atomic_store_explicit(&c->elections, raft->counters.elections, memory_order_relaxed);
    atomic_store_explicit(&c->elections_won, raft->counters.elections_won, memory_order_relaxed);
    if (c->term_seen == raft->term && c->leader_seen == raft->leader &&
        atomic_load_explicit(&c->role, memory_order_relaxed) == (int)raft->role)
        return;
    bool news = raft->leader && (c->leader_seen != raft->leader || c->term_seen != raft->term);
    c->term_seen = raft->term;
    c->leader_seen = raft->leader;
    atomic_store(&c->term, raft->term);
    atomic_store(&c->role, (int)raft->role);
    atomic_store(&c->leader, raft->leader);
    if (c->alone)
        return;
    if (news)
        chr_log_notice("raft", raft->leader == raft->config.self ? "leads" : "follows",
                       CHR_KV_U("term", raft->term), CHR_KV_U("leader", raft->leader));
    if (c->cluster.leader_changed)
        c->cluster.leader_changed(c->cluster.ctx, raft->term, raft->leader);
    c->turn_again = true; /* what waited for a leader has one, or the other way round */
    chr_wake_signal(&c->replicator_wake);
}

static void want_snapshots(struct broker_committer *c)
{
    uint32_t bits = c->effects.snapshot_to;
    for (uint32_t i = 0; bits; i++, bits >>= 1)
        if ((bits & 1) && c->cluster.snapshot_wanted)
            c->cluster.snapshot_wanted(c->cluster.ctx, c->raft.peers[i].member.id);
}

/* message: whose entries the step was about; kept when they are saved. True: it was. */
static bool carry_out(struct broker_committer *c, struct peers_message *message)
{
    const struct raft_effects *e = &c->effects;
    bool kept = false;
    if (e->truncate)
        committer__groups_truncate(c, e->truncate_to);
    if (e->hard_state_changed) {
        c->hard_state = e->hard_state;
        atomic_store(&c->hard_wanted_now, ++c->hard_wanted);
    }
    if (e->save_count) {
        kept = message != NULL && e->save != &c->raft.own_entry;
        committer__group_save(c, e->save, e->save_count, e->save_sequence, kept ? message : NULL);
    }
    /* Before any peer hears of it: a reader here must not see less than one there (R19). */
    atomic_store(&c->commit_index, c->raft.commit_index);
    /* Before anybody is told to campaign against us (R19): on another node that may be over before
     * this thread goes on. */
    if (raft_lease_until_us(&c->raft) == INT64_MIN)
        atomic_store(&c->lease_until_us, INT64_MIN);
    if (e->messages_count)
        send_messages(c);
    committer__pass_committed(c, e->commit_index);
    atomic_store_explicit(&c->last_index, c->raft.last_index, memory_order_relaxed);
    if (c->alone) {
        note_leader(c);
        return kept;
    }
    if (e->snapshot_to)
        want_snapshots(c);
    atomic_store(&c->lease_until_us, raft_lease_until_us(&c->raft)); /* after commit_index */
    note_leader(c);
    committer__reads_step(c);
    atomic_store(&c->raft_due_us, raft_next_due_us(&c->raft));
    if (e->append_to)
        chr_wake_signal(&c->replicator_wake);
    return kept;
}

static chr_err step_with(struct broker_committer *c, struct raft_event event,
                         struct peers_message *message, bool *kept)
{
    event.now_us = chr_clock_mono_us(c->options.clock);
    event.wall_ms = (uint64_t)(chr_clock_wall_us(c->options.clock) / 1000);
    event.random = chr_random_u64(&c->random);
    chr_err err = raft_step(&c->raft, &event, &c->effects);
    *kept = carry_out(c, message);
    return err;
}

chr_err committer__step(struct broker_committer *c, struct raft_event event)
{
    bool kept;
    return step_with(c, event, NULL, &kept);
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static bool take_saved(struct broker_committer *c)
{
    struct committer_group *g = c->writing;
    if (!g || atomic_load_explicit(&c->to_write, memory_order_acquire) != NULL)
        return false;
    c->writing = NULL;
    uint64_t sequence = g->save_sequence, last = g->first_index + g->count - 1;
    bool entries = g->count > 0;
    committer__group_written(c, g);
    if (entries) {
        /* The group may be passed on by this, and be gone. */
        chr_err err = committer__step(c, (struct raft_event){.type = RAFT_EVENT_SAVED,
                                                             .sequence = sequence,
                                                             .saved_index = last});
        CHR_ASSERT(err == CHR_OK);
    }
    return true;
}

/* Nothing of such an append is taken, so nothing is acknowledged: the node stays where it is until
 * it runs a version that knows what it is sent. The leader sends again and again. */
static void note_newer(struct broker_committer *c, uint64_t from)
{
    if (c->newer_logged)
        return;
    c->newer_logged = true;
    chr_log_error("raft",
                  "the leader sends entries in a format that this version does not know; nothing "
                  "of them is taken: run the version that the other nodes run",
                  CHR_KV_U("from", from), CHR_KV_U("knows_format", PEER_FORMAT));
}

/* An append. False: no room for it yet. */
static bool take_append(struct broker_committer *c, struct peers_message *message)
{
    if (committer__held_by_hot_limit(c))
        return false; /* the leader sees that nothing is acknowledged, and waits */
    if (c->gathering->count >= COMMITTER_GROUP_ENTRIES / 2 && !committer__hand_over(c))
        return false;
    struct raft_message m;
    size_t count = 0;
    chr_err err =
        peer_append_decode(message->bytes, &m, c->inbox_entries, COMMITTER_GROUP_ENTRIES, &count);
    if (!err && !committer__group_room(c, count) && c->gathering->count > 0)
        return false;
    bool kept = false;
    if (!err) {
        m.entries = c->inbox_entries;
        m.entries_count = CHR_MIN(count, COMMITTER_GROUP_ENTRIES - COMMITTER_OWN_ENTRIES -
                                             (size_t)c->gathering->count);
        err = m.from == message->from
                  ? step_with(c, (struct raft_event){.type = RAFT_EVENT_MESSAGE, .message = &m},
                              message, &kept)
                  : CHR_EACCES;
    }
    if (err == CHR_EVERSION)
        note_newer(c, message->from);
    else if (err && err != CHR_EBUSY)
        chr_log_warning("raft", "an append was refused", CHR_KV_U("from", message->from),
                        CHR_KV_C("error", chr_strerror(err)));
    if (!kept)
        peers_release(c->cluster.peers, message);
    committer__groups_relieve(c);
    return true;
}

static bool take_inbox(struct broker_committer *c)
{
    bool worked = false;
    for (;;) {
        pthread_mutex_lock(&c->inbox_lock);
        struct peers_message *message = c->inbox;
        pthread_mutex_unlock(&c->inbox_lock);
        if (!message)
            return worked;
        /* Only the core takes from it, and it is ours now: its next may change, it may not. */
        struct peers_message *next;
        if (message->kind == PEERS_APPEND) {
            pthread_mutex_lock(&c->inbox_lock);
            next = message->next;
            c->inbox = next;
            if (!next)
                c->inbox_last = NULL;
            pthread_mutex_unlock(&c->inbox_lock);
            if (!take_append(c, message)) {
                pthread_mutex_lock(&c->inbox_lock);
                message->next = c->inbox;
                c->inbox = message;
                if (!c->inbox_last)
                    c->inbox_last = message;
                pthread_mutex_unlock(&c->inbox_lock);
                return worked;
            }
        } else {
            pthread_mutex_lock(&c->inbox_lock);
            c->inbox = message->next;
            if (!c->inbox)
                c->inbox_last = NULL;
            pthread_mutex_unlock(&c->inbox_lock);
            committer__forward_received(c, message);
        }
        worked = true;
    }
}

static bool take_tick(struct broker_committer *c)
{
    if (c->alone || chr_clock_mono_us(c->options.clock) < raft_next_due_us(&c->raft))
        return false;
    chr_err err = committer__step(c, (struct raft_event){.type = RAFT_EVENT_TICK});
    if (err)
        chr_log_warning("raft", "a tick failed", CHR_KV_C("error", chr_strerror(err)));
    return true;
}

static bool leads(const struct broker_committer *c)
{
    return c->raft.role == RAFT_LEADER;
}

bool committer__core_turn(struct broker_committer *c)
{
    pthread_mutex_lock(&c->core_lock);
    bool worked = false;
    if (c->ended) {
        pthread_mutex_unlock(&c->core_lock);
        return false;
    }
    do {
        c->turn_again = false;
        worked |= take_saved(c);
        if (!c->alone) {
            worked |= take_tick(c);
            worked |= send_held(c);
            worked |= take_inbox(c);
            /* Not with the ticks: a follower that hears its leader has none. */
            committer__reads_again(c);
            if (!leads(c))
                worked |= committer__forward_take(c);
        }
        worked |= committer__gather(c);
        worked |= committer__hand_over(c);
    } while (c->turn_again);
    pthread_mutex_unlock(&c->core_lock);
    return worked;
}

/* ---- What waits -------------------------------------------------------------------------------
 */

/* Something expires and no entry has moved replicated time past it (R13). */
bool committer__tick_due(struct broker_committer *c)
{
    int64_t due_us = db_next_due_us(c->options.db);
    /* Whole milliseconds, as the entry will be stamped: else ticks would follow each other, all
     * stamped before it, until the next one. */
    int64_t stamp_us = chr_clock_wall_us(c->options.clock) / 1000 * 1000;
    return due_us != INT64_MAX && leads(c) && c->waiting_count == 0 && due_us <= stamp_us &&
           chr_hlc_unix_us(db_replicated_time(c->options.db)) < due_us;
}

/* Asked between prepare and wait, so that no signal is lost. */
bool committer__core_work_waits(struct broker_committer *c)
{
    pthread_mutex_lock(&c->core_lock);
    bool free_writer = atomic_load(&c->to_write) == NULL;
    bool waits = c->writing && free_writer;
    if (c->ended) {
        pthread_mutex_unlock(&c->core_lock);
        return false;
    }
    if (!waits && free_writer && committer__can_hand_over(c)) {
        waits = c->gathering->count > 0 || c->gathering->truncate;
        if (leads(c) && !c->raft.transfer_to && committer__may_gather(c) &&
            !committer__held_by_hot_limit(c) && (c->alone || !committer__forward_holds(c)))
            waits |= committer__proposals_wait(c) || committer__tick_due(c) ||
                     (!c->alone && committer__forward_waits(c));
        pthread_mutex_lock(&c->inbox_lock);
        waits |= c->inbox && (c->inbox->kind != PEERS_APPEND || !committer__held_by_hot_limit(c));
        pthread_mutex_unlock(&c->inbox_lock);
    }
    if (!c->alone && !waits)
        waits = (c->held_count && !hard_state_pending(c)) ||
                (!leads(c) && c->raft.leader && committer__proposals_wait(c) &&
                 committer__forward_waits(c));
    pthread_mutex_unlock(&c->core_lock);
    return waits;
}

void committer__wake_others(struct broker_committer *c)
{
    if (atomic_load(&c->to_write) != NULL ||
        atomic_load(&c->hard_wanted_now) > atomic_load(&c->hard_saved))
        chr_wake_signal(&c->writer_wake);
    if (committer__apply_waits(c))
        chr_wake_signal(&c->applier_wake);
    int64_t until_us = atomic_load(&c->sleeps_until_mono_us);
    if (until_us != INT64_MIN && atomic_load(&c->raft_due_us) < until_us)
        chr_wake_signal(&c->wake);
}

/* ---- What peers say ---------------------------------------------------------------------------
 */

static void received_raft(struct broker_committer *c, struct peers_message *message)
{
    struct raft_message m;
    chr_err err = peer_raft_decode(message->bytes, &m);
    if (!err && m.from != message->from)
        err = CHR_EACCES;
    pthread_mutex_lock(&c->core_lock);
    if (c->ended)
        err = CHR_ECLOSED;
    /* A vote may be asked of us, or a campaign won: one entry and a change of term, which the
     * gathering group always has room for. */
    if (!err)
        err = committer__step(c, (struct raft_event){.type = RAFT_EVENT_MESSAGE, .message = &m});
    pthread_mutex_unlock(&c->core_lock);
    if (err)
        chr_log_debug("raft", "a message was refused", CHR_KV_U("from", message->from),
                      CHR_KV_C("error", chr_strerror(err)));
    peers_release(c->cluster.peers, message);
}

void broker_committer_received(broker_committer *c, struct peers_message *message)
{
    if (message->kind == PEERS_RAFT) {
        received_raft(c, message);
    } else if (message->kind == PEERS_FORWARDED) {
        committer__forward_reply(c, message);
        peers_release(c->cluster.peers, message);
    } else {
        message->next = NULL;
        pthread_mutex_lock(&c->inbox_lock);
        if (c->inbox_last)
            c->inbox_last->next = message;
        else
            c->inbox = message;
        c->inbox_last = message;
        pthread_mutex_unlock(&c->inbox_lock);
    }
    (void)committer__core_turn(c);
    committer__wake_others(c);
}

void broker_committer_lane(broker_committer *c)
{
    atomic_fetch_add(&c->lane_news, 1);
    atomic_store(&c->blocked, 0);
    committer__forward_look_again(c);
    chr_wake_signal(&c->replicator_wake);
}

/* ---- Start ------------------------------------------------------------------------------------
 */

struct changes {
    CHR_ARRAY(struct raft_entry) found;
    struct chr_arena arena; /* their bytes */
};

/* The changes of members above what the database has applied. */
static chr_err find_changes(struct broker_committer *c, struct changes *changes)
{
    uint64_t next = CHR_MAX(db_apply_index(c->options.db) + 1, raft_log_first(c->options.log));
    struct chr_buf buf;
    chr_buf_init(&buf, 16u << 20);
    struct raft_entry *entries = calloc(COMMITTER_GROUP_ENTRIES, sizeof *entries);
    chr_err err = entries ? CHR_OK : CHR_ENOMEM;
    while (!err && next <= raft_log_last(c->options.log)) {
        size_t n = 0;
        chr_buf_reset(&buf);
        err = raft_log_read(c->options.log, next, 4u << 20, &buf, entries, COMMITTER_GROUP_ENTRIES,
                            &n);
        if (err || n == 0)
            break;
        for (size_t i = 0; i < n && !err; i++) {
            if (entries[i].type != RAFT_ENTRY_CONFIG)
                continue;
            struct raft_entry change = entries[i];
            change.bytes = chr_arena_dup(&changes->arena, change.bytes);
            if (!change.bytes.ptr || !CHR_ARRAY_RESERVE(&changes->found, 1))
                err = CHR_ENOMEM;
            else
                changes->found.items[changes->found.count++] = change;
        }
        next = entries[n - 1].index + 1;
    }
    free(entries);
    chr_buf_free(&buf);
    return err;
}

static chr_err init_with(struct broker_committer *c, const struct raft_config *config,
                         struct raft_stored *stored, struct chr_errmsg *msg)
{
    raft_log *log = c->options.log;
    size_t runs_count = raft_log_terms(log, NULL, 0);
    struct raft_term_run *runs = calloc(runs_count + 1, sizeof *runs);
    if (!runs)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    (void)raft_log_terms(log, runs, runs_count);
    stored->runs = runs;
    stored->runs_count = runs_count;
    chr_err err = stored->commit_index < stored->base_index
                      ? chr_fail(msg, CHR_ECORRUPT,
                                 "the log begins at entry %llu, but the checkpoint ends at %llu: "
                                 "entries between them are missing",
                                 (unsigned long long)stored->base_index + 1,
                                 (unsigned long long)stored->commit_index)
                      : CHR_OK;
    if (!err) {
        err = raft_init(&c->raft, config, stored);
        if (err)
            (void)chr_fail(msg, err, "can't start the consensus core: %s", chr_strerror(err));
    }
    free(runs);
    return err;
}

chr_err committer__core_init(struct broker_committer *c, struct chr_errmsg *msg)
{
    raft_log *log = c->options.log;
    const struct raft_log_recovery *recovery = c->options.recovery;
    const struct broker_cluster *cluster = &c->cluster;
    struct raft_config config = {
        .self = c->alone ? 1 : cluster->self,
        .incarnation = c->alone ? recovery->incarnation : cluster->incarnation,
        .election_min_us = cluster->election_min_us,
        .election_max_us = cluster->election_max_us,
        .heartbeat_us = cluster->heartbeat_us,
        .inflight_bytes_max = 8u << 20,
        /* a new disk has nothing to lose */
        .lost_tail = !c->alone && cluster->lost_tail && raft_log_last(log) > 0,
    };
    struct raft_stored stored = {
        .hard_state = recovery->hard_state,
        .base_index = raft_log_first(log) - 1,
        .base_term = raft_log_term_of(log, raft_log_first(log) - 1),
        .last_index = raft_log_last(log),
        .last_hlc = CHR_MAX(recovery->last_hlc, db_replicated_time(c->options.db)),
        .commit_index = db_apply_index(c->options.db),
    };
    struct changes changes = {0};
    chr_arena_init(&changes.arena, 4096, 0);
    chr_err err = CHR_OK;
    if (c->alone) {
        stored.members =
            (struct raft_members){.items = {{config.self, config.incarnation, true}}, .count = 1};
    } else {
        stored.members = cluster->members;
        stored.members_index = CHR_MIN(cluster->members_index, stored.commit_index);
        err = find_changes(c, &changes);
        stored.changes = changes.found.items;
        stored.changes_count = changes.found.count;
        if (err)
            (void)chr_fail(msg, err, "can't read the log: %s", chr_strerror(err));
    }
    if (!err)
        err = init_with(c, &config, &stored, msg);
    free(changes.found.items);
    chr_arena_free(&changes.arena);
    c->hard_state = recovery->hard_state;
    return err;
}
