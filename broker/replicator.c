/* broker/replicator.c: the thread that sends: a leader's entries to each peer, a follower's
 * forwarded ones to the leader.
 *
 * A peer's next entries are copied from the groups in memory under the core's lock, or read from
 * the log without it, and sent without it: compressing and the peers' sockets hold up nobody else.
 * The core decides what may be sent (its windows); the lane's window bounds what is on its way
 * altogether (R17). */
#include <stdlib.h>
#include <string.h>

#include "base/assert.h"
#include "base/log.h"
#include "bridge/peer_codec.h"
#include "broker/committer_internal.h"

/* While something forwarded is unanswered it is looked at so often. */
#define LOOK_US INT64_C(100000)

struct outgoing {
    struct raft_message message;
    uint64_t member;
    uint64_t last;      /* of the entries in it; message.index: none */
    uint64_t bytes;     /* of the entries */
    bool from_log;      /* they have to be read */
    uint64_t log_limit; /* up to here */
    struct chr_buf buf; /* the head, then entries as the wire has them */
};

static void put_entry(struct outgoing *out, const struct raft_entry *e)
{
    uint8_t head[PEER_ENTRY_HEAD_BYTES];
    peer_entry_head(e, head);
    chr_buf_add(&out->buf, head, sizeof head);
    chr_buf_add_slice(&out->buf, e->bytes);
    chr_buf_add_slice(&out->buf, peer_entry_pad(e->bytes.len));
    out->bytes += e->bytes.len + PEER_ENTRY_HEAD_BYTES;
    out->last = e->index;
}

static bool append_full(const struct outgoing *out, const struct raft_entry *next)
{
    return out->bytes &&
           (out->bytes + next->bytes.len > COMMITTER_APPEND_BYTES ||
            out->last - out->message.index >= COMMITTER_GROUP_ENTRIES / 2 - COMMITTER_OWN_ENTRIES);
}

/* core_lock. What peer slot is to be sent, copied. False: nothing. */
static bool prepare(struct broker_committer *c, uint32_t slot, struct outgoing *out)
{
    uint64_t last;
    if (!raft_next_append(&c->raft, slot, &out->message, &last))
        return false;
    out->member = c->raft.peers[slot].member.id;
    out->last = out->message.index;
    out->bytes = 0;
    out->from_log = false;
    chr_buf_reset(&out->buf);
    if (peer_append_head(&out->message, &out->buf))
        return false;
    for (uint64_t index = out->message.index + 1; index <= last; index++) {
        const struct raft_entry *e = committer__entry_at(c, index);
        if (!e) {
            out->from_log = out->bytes == 0;
            out->log_limit = CHR_MIN(last, c->raft.saved_index);
            break;
        }
        if (append_full(out, e))
            break;
        put_entry(out, e);
    }
    return !out->from_log || out->log_limit > out->message.index;
}

static bool read_from_log(struct broker_committer *c, struct outgoing *out)
{
    struct raft_entry *entries = calloc(COMMITTER_GROUP_ENTRIES / 2, sizeof *entries);
    struct chr_buf buf;
    chr_buf_init(&buf, COMMITTER_APPEND_BYTES + 2 * RAFT_ENTRY_BYTES_MAX);
    size_t count = 0;
    chr_err err =
        entries ? raft_log_read(c->options.log, out->message.index + 1, COMMITTER_APPEND_BYTES,
                                &buf, entries, COMMITTER_GROUP_ENTRIES / 2, &count)
                : CHR_ENOMEM;
    for (size_t i = 0; i < count && !err && entries[i].index <= out->log_limit; i++) {
        if (append_full(out, &entries[i]))
            break;
        put_entry(out, &entries[i]);
    }
    free(entries);
    chr_buf_free(&buf);
    /* CHR_ENOTFOUND: cut meanwhile; the core will see that a snapshot is needed. */
    int64_t now_us = chr_clock_mono_us(c->options.clock);
    if (err && err != CHR_ENOTFOUND && now_us - c->log_warned_us > INT64_C(1000000)) {
        c->log_warned_us = now_us;
        chr_log_warning("raft", "can't read the log for a peer",
                        CHR_KV_U("index", out->message.index + 1),
                        CHR_KV_C("error", chr_strerror(err)));
    }
    return !err && out->bytes > 0;
}

/* core_lock. It is on its way; unless the core has changed its mind meanwhile, and then it does not
 * count it, which does no harm. */
static void note_sent(struct broker_committer *c, uint32_t slot, const struct outgoing *out)
{
    const struct raft *raft = &c->raft;
    if (raft->role == RAFT_LEADER && raft->term == out->message.term && slot < raft->peers_count &&
        raft->peers[slot].member.id == out->member &&
        raft->peers[slot].state != RAFT_PEER_SNAPSHOT && out->last + 1 >= raft->peers[slot].next &&
        raft->peers[slot].next == out->message.index + 1)
        raft_append_sent(&c->raft, slot, out->last, out->bytes);
}

/* Another leader may have put its own entries where ours were read from: they are not ours to send
 * in the name of our term. */
static bool still_leads(struct broker_committer *c, const struct outgoing *out)
{
    pthread_mutex_lock(&c->core_lock);
    bool leads = c->raft.role == RAFT_LEADER && c->raft.term == out->message.term;
    pthread_mutex_unlock(&c->core_lock);
    return leads;
}

/* False: nothing to send to it now. */
static bool send_to(struct broker_committer *c, uint32_t slot, struct outgoing *out)
{
    if (atomic_load(&c->blocked) & (UINT64_C(1) << slot))
        return false;
    pthread_mutex_lock(&c->core_lock);
    bool due = slot < c->raft.peers_count && atomic_load(&c->hard_saved) == c->hard_wanted &&
               prepare(c, slot, out);
    pthread_mutex_unlock(&c->core_lock);
    if (!due)
        return false;
    uint64_t news = atomic_load(&c->lane_news);
    if ((out->from_log && !read_from_log(c, out)) || out->buf.failed) {
        atomic_fetch_or(&c->blocked, UINT64_C(1) << slot); /* for a moment */
        return false;
    }
    if (out->from_log && !still_leads(c, out))
        return false;
    chr_slice part = chr_buf_slice(&out->buf);
    chr_err err = peers_send(c->cluster.peers, out->member, PEERS_BULK, PEERS_APPEND, &part, 1);
    if (err) {
        atomic_fetch_or(&c->blocked, UINT64_C(1) << slot); /* until the lane says otherwise */
        if (atomic_load(&c->lane_news) != news)            /* which it has done meanwhile */
            atomic_fetch_and(&c->blocked, ~(UINT64_C(1) << slot));
        return false;
    }
    pthread_mutex_lock(&c->core_lock);
    note_sent(c, slot, out);
    pthread_mutex_unlock(&c->core_lock);
    return true;
}

static bool work_waits(struct broker_committer *c)
{
    pthread_mutex_lock(&c->core_lock);
    bool waits = false;
    struct raft_message m;
    uint64_t last;
    bool ready = c->raft.role == RAFT_LEADER && atomic_load(&c->hard_saved) == c->hard_wanted;
    for (uint32_t i = 0; ready && i < c->raft.peers_count; i++)
        waits |= !(atomic_load(&c->blocked) & (UINT64_C(1) << i)) &&
                 raft_next_append(&c->raft, i, &m, &last);
    pthread_mutex_unlock(&c->core_lock);
    return waits || committer__forward_sendable(c);
}

void *committer__replicator_main(void *arg)
{
    struct broker_committer *c = arg;
    pthread_setname_np(pthread_self(), "replicator");
    struct outgoing out = {0};
    chr_buf_init(&out.buf, PEERS_MESSAGE_BYTES_MAX);
    while (!atomic_load(&c->replicator_stop)) {
        bool sent = false;
        for (uint32_t slot = 0; slot < RAFT_MEMBERS_MAX; slot++)
            sent |= send_to(c, slot, &out);
        sent |= committer__forward_send(c);
        if (sent)
            continue;
        uint32_t ticket = chr_wake_prepare(&c->replicator_wake);
        if (atomic_load(&c->replicator_stop) || work_waits(c)) {
            chr_wake_cancel(&c->replicator_wake);
            /* Something waits that could not be sent just now (a log that is being read, say). */
            continue;
        }
        chr_wake_wait(&c->replicator_wake, ticket, LOOK_US);
        atomic_store(&c->blocked, 0);
        committer__forward_look_again(c);
    }
    chr_buf_free(&out.buf);
    return NULL;
}
