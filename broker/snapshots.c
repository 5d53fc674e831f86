#include "broker/snapshots.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/priority.h"
#include "base/wake.h"
#include "bridge/peers.h"
#include "broker/checkpointer.h"
#include "broker/cluster.h"
#include "broker/install.h"
#include "broker/node.h"
#include "broker/snapshot_pin.h"

/* A part: u64 number, u64 how many there are, the part. A reply: u64 snapshot id, u64 the part that
 * is wanted next, u64 status. docs/formats.md, "Between nodes". */
#define PART_HEAD_BYTES 16u
#define REPLY_BYTES     24u
enum reply_status {
    REPLY_WANTS = 0, /* the part of that number */
    REPLY_WHOLE = 1, /* it has all of it, durably */
    REPLY_CANT = 2,  /* begin anew, later */
};

#define LOOK_US     INT64_C(20000)
#define PATIENCE_US INT64_C(1000000)  /* no reply: from the part that was wanted last, again */
#define GIVE_UP_US  INT64_C(60000000) /* no reply at all */
#define RETRY_US    INT64_C(1000000)  /* after a failure */
#define REFUSED_MAX 5u                /* a node that can't take one is tried after 2, 4 … 32 s */

struct sending {
    uint64_t to; /* 0: nothing is sent */
    db_snapshot *snapshot;
    struct db_snapshot_info info;
    uint64_t next, wanted; /* parts: to be sent next; the receiver wants */
    int64_t replied_us, sent_us;
    int64_t budget_bytes; /* may be sent by now; negative: more was */
    int64_t budget_us;    /* as of */
    int64_t retry_us;     /* nothing before */
    /* The node that refused last, how often in a row, and when it is asked again: all parts would
     * go to a full disk once a second. Others do not wait for it. */
    uint64_t refused_by;
    uint32_t refused;
    int64_t refused_retry_us;
    struct chr_buf part;
};

struct snapshots {
    struct broker_node *node;
    struct peers *peers;
    pthread_t thread;
    bool running;
    _Atomic bool stopping;
    struct chr_wake wake;
    pthread_mutex_t lock;
    struct peers_message *inbox, *inbox_last;
    uint64_t wanted[PEERS_MAX]; /* nodes, each once */
    uint32_t wanted_count;
    struct snapshots_stats stats;
    /* The thread's */
    struct sending sending;
    install *install;
    uint64_t from; /* whose snapshot is received */
};

chr_err snapshots_open(struct broker_node *node, struct peers *peers, struct snapshots **out)
{
    struct snapshots *s = calloc(1, sizeof *s);
    if (!s)
        return CHR_ENOMEM;
    s->node = node;
    s->peers = peers;
    pthread_mutex_init(&s->lock, NULL);
    chr_wake_init(&s->wake);
    chr_buf_init(&s->sending.part, DB_SNAPSHOT_PART_BYTES_MAX);
    *out = s;
    return CHR_OK;
}

void snapshots_wanted(struct snapshots *s, uint64_t node)
{
    pthread_mutex_lock(&s->lock);
    bool known = false;
    for (uint32_t i = 0; i < s->wanted_count; i++)
        known |= s->wanted[i] == node;
    if (!known && s->wanted_count < PEERS_MAX)
        s->wanted[s->wanted_count++] = node;
    pthread_mutex_unlock(&s->lock);
    chr_wake_signal(&s->wake);
}

void snapshots_received(struct snapshots *s, struct peers_message *message)
{
    message->next = NULL;
    pthread_mutex_lock(&s->lock);
    if (s->inbox_last)
        s->inbox_last->next = message;
    else
        s->inbox = message;
    s->inbox_last = message;
    pthread_mutex_unlock(&s->lock);
    chr_wake_signal(&s->wake);
}

void snapshots_stats(struct snapshots *s, struct snapshots_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = s->stats;
    pthread_mutex_unlock(&s->lock);
}

static int64_t now_us(const struct snapshots *s)
{
    return chr_clock_mono_us(s->node->clock);
}

/* ---- Sending ----------------------------------------------------------------------------------
 */

struct described {
    struct cluster *cluster;
    uint8_t bytes[RAFT_MEMBERS_BYTES_MAX];
};

static chr_err describe_members(void *ctx, uint64_t index, uint64_t *members_index,
                                chr_slice *bytes)
{
    struct described *d = ctx;
    struct raft_members members;
    uint64_t cluster;
    cluster_describe(d->cluster, &cluster, members_index, &members);
    /* Perhaps of an entry that was applied after the checkpoint: it is committed, and to count a
     * committed change from an earlier entry on is to have heard of it early. */
    *members_index = CHR_MIN(*members_index, index);
    *bytes = chr_slice_of(d->bytes, raft_members_encode(&members, d->bytes));
    return CHR_OK;
}

static void send_end(struct snapshots *s, bool ok)
{
    struct sending *out = &s->sending;
    if (!out->to)
        return;
    db_snapshot_end(out->snapshot);
    out->snapshot = NULL;
    broker_committer_snapshot_sent(s->node->committer, out->to, ok);
    chr_log_notice("snapshot", ok ? "sent" : "not sent", CHR_KV_U("to", out->to),
                   CHR_KV_U("index", out->info.index), CHR_KV_U("parts", out->info.parts));
    out->to = 0;
    out->retry_us = now_us(s) + RETRY_US; /* also after one that was sent: it starts anew now */
    pthread_mutex_lock(&s->lock);
    s->stats.sent += ok;
    s->stats.sending_to = s->stats.sending_part = s->stats.sending_parts = 0;
    pthread_mutex_unlock(&s->lock);
}

static void note_refusal(struct snapshots *s)
{
    struct sending *out = &s->sending;
    out->refused = out->refused_by == out->to ? CHR_MIN(out->refused + 1, REFUSED_MAX) : 1;
    out->refused_by = out->to;
    out->refused_retry_us = now_us(s) + (RETRY_US << out->refused);
}

static bool leads(const struct snapshots *s)
{
    return broker_committer_leader(s->node->committer) == cluster_self(s->node->cluster);
}

static void send_begin(struct snapshots *s, uint64_t to)
{
    struct sending *out = &s->sending;
    struct broker_node *node = s->node;
    struct chr_errmsg msg = {{0}};
    struct described described = {.cluster = node->cluster};
    struct snapshot_pin_options options = {.db = node->db,
                                           .log = node->log,
                                           .dir = &node->dir,
                                           .members = describe_members,
                                           .ctx = &described};
    chr_err err = snapshot_pin(&options, &out->snapshot, &msg);
    if (err == CHR_ENOTFOUND) /* no checkpoint yet: the log has everything, or soon one is made */
        (void)!checkpointer_request(atomic_load(&node->checkpointer));
    if (err) {
        if (err != CHR_ENOTFOUND)
            chr_log_error("snapshot", "can't begin one", CHR_KV_C("detail", msg.text));
        out->retry_us = now_us(s) + RETRY_US;
        return;
    }
    const struct db_snapshot_info *info = db_snapshot_info(out->snapshot);
    out->info = *info;
    out->to = to;
    out->next = out->wanted = 0;
    out->replied_us = out->sent_us = out->budget_us = now_us(s);
    out->budget_bytes = 0;
    broker_committer_snapshot_started(node->committer, to, info->index);
    chr_log_notice("snapshot", "being sent", CHR_KV_U("to", to), CHR_KV_U("index", info->index),
                   CHR_KV_U("parts", info->parts), CHR_KV_U("bytes", info->bytes));
}

/* How many bytes may go now. */
static bool within_rate(struct snapshots *s, int64_t now)
{
    struct sending *out = &s->sending;
    int64_t rate = (int64_t)s->node->config->cluster.snapshot_rate;
    int64_t earned = (now - out->budget_us) * (rate / 1000) / 1000;
    if (earned > 0) {
        out->budget_bytes = CHR_MIN(out->budget_bytes + earned, rate / 10);
        out->budget_us = now;
    }
    return out->budget_bytes >= 0;
}

/* False: not now. */
static bool send_part(struct snapshots *s)
{
    struct sending *out = &s->sending;
    struct chr_errmsg msg = {{0}};
    int64_t now = now_us(s);
    if (!leads(s) || now - out->replied_us > GIVE_UP_US) {
        send_end(s, false);
        return false;
    }
    if (now - CHR_MAX(out->replied_us, out->sent_us) > PATIENCE_US) {
        out->next = out->wanted; /* parts, or the replies to them, were lost */
        out->sent_us = now;
        if (out->next == out->info.parts)
            out->next = out->info.parts - 1; /* it says again that it has all */
    }
    if (out->next >= out->info.parts || out->next - out->wanted >= SNAPSHOTS_AHEAD ||
        !within_rate(s, now))
        return false;
    if (db_snapshot_part(out->snapshot, out->next, &out->part, &msg)) {
        chr_log_error("snapshot", "can't read a part", CHR_KV_U("part", out->next),
                      CHR_KV_C("detail", msg.text));
        send_end(s, false);
        return false;
    }
    uint8_t head[PART_HEAD_BYTES];
    chr_put_u64le(head, out->next);
    chr_put_u64le(head + 8, out->info.parts);
    chr_slice parts[] = {chr_slice_of(head, sizeof head), chr_buf_slice(&out->part)};
    if (peers_send(s->peers, out->to, PEERS_BULK, PEERS_SNAPSHOT, parts, 2))
        return false; /* the lane is full, or away: later */
    out->budget_bytes -= (int64_t)out->part.len;
    out->sent_us = now;
    out->next++;
    pthread_mutex_lock(&s->lock);
    s->stats.sent_bytes += out->part.len;
    s->stats.sending_to = out->to;
    s->stats.sending_part = out->next;
    s->stats.sending_parts = out->info.parts;
    pthread_mutex_unlock(&s->lock);
    return true;
}

static void take_reply(struct snapshots *s, const struct peers_message *m)
{
    struct sending *out = &s->sending;
    if (m->bytes.len != REPLY_BYTES || m->from != out->to)
        return;
    uint64_t id = chr_get_u64le(m->bytes.ptr);
    uint64_t wanted = chr_get_u64le(m->bytes.ptr + 8);
    uint64_t status = chr_get_u64le(m->bytes.ptr + 16);
    if (id != out->info.id)
        return;
    out->replied_us = now_us(s);
    if (status == REPLY_WHOLE || status == REPLY_CANT) {
        if (status == REPLY_CANT)
            note_refusal(s);
        else if (out->refused_by == out->to)
            out->refused_by = 0;
        send_end(s, status == REPLY_WHOLE);
        return;
    }
    if (wanted > out->info.parts)
        return;
    if (wanted < out->wanted || wanted > out->next)
        out->next = wanted; /* it has been opened anew, or has more than we know */
    out->wanted = wanted;
}

/* ---- Receiving --------------------------------------------------------------------------------
 */

static void reply(struct snapshots *s, uint64_t to, uint64_t id, uint64_t next,
                  enum reply_status status)
{
    uint8_t bytes[REPLY_BYTES];
    chr_put_u64le(bytes, id);
    chr_put_u64le(bytes + 8, next);
    chr_put_u64le(bytes + 16, status);
    chr_slice part = chr_slice_of(bytes, sizeof bytes);
    (void)!peers_send(s->peers, to, PEERS_CONTROL, PEERS_SNAPSHOT_REPLY, &part, 1);
}

static void close_install(struct snapshots *s)
{
    install_close(s->install);
    s->install = NULL;
    pthread_mutex_lock(&s->lock);
    s->stats.receiving_part = s->stats.receiving_parts = 0;
    pthread_mutex_unlock(&s->lock);
}

static chr_err begin_anew(struct snapshots *s, struct chr_errmsg *msg)
{
    close_install(s);
    chr_err err = install_discard(s->node->config->data_dir, msg);
    return err ? err
               : install_open(s->node->config->data_dir, s->node->config->map_bytes, &s->install,
                              msg);
}

/* The main thread stops the node and starts it again. */
static void want_restart(struct snapshots *s)
{
    if (atomic_exchange(&s->node->restart_wanted, true))
        return;
    chr_log_notice("snapshot", "received; starting again on it");
    (void)kill(getpid(), SIGUSR2);
}

/* Half of one must not fill the disk: the log, term and vote need it. */
static void give_room(struct snapshots *s, uint64_t to, uint64_t id, const char *detail)
{
    struct chr_errmsg msg = {{0}};
    chr_log_error("snapshot", "no room for it; it is asked for again later",
                  CHR_KV_C("detail", detail));
    close_install(s);
    if (install_discard(s->node->config->data_dir, &msg))
        chr_log_error("snapshot", "what came of it can't be removed", CHR_KV_C("detail", msg.text));
    reply(s, to, id, 0, REPLY_CANT);
}

static chr_err take_part(struct snapshots *s, chr_slice part, struct chr_errmsg *msg)
{
    chr_err err = CHR_OK;
    if (!s->install) {
        err = install_open(s->node->config->data_dir, s->node->config->map_bytes, &s->install, msg);
        if (err == CHR_ECORRUPT)
            err = begin_anew(s, msg);
    }
    if (!err)
        err = install_put(s->install, part, msg);
    if (err == CHR_EFOREIGN) { /* of another snapshot: that one counts from now on */
        err = begin_anew(s, msg);
        if (!err)
            err = install_put(s->install, part, msg);
    }
    return err;
}

/* What came is what the database has, or less. */
static bool of_no_use(struct snapshots *s)
{
    const struct db_snapshot_info *info = install_info(s->install);
    return info && info->index <= db_apply_index(s->node->db);
}

static void receive_part(struct snapshots *s, const struct peers_message *m)
{
    struct chr_errmsg msg = {{0}};
    if (m->bytes.len < PART_HEAD_BYTES + DB_SNAPSHOT_HEAD_BYTES || leads(s))
        return;
    uint64_t id = chr_get_u64le(m->bytes.ptr + PART_HEAD_BYTES + 24);
    if (atomic_load(&s->node->restart_wanted)) {
        reply(s, m->from, id, chr_get_u64le(m->bytes.ptr + 8), REPLY_WHOLE);
        return;
    }
    chr_slice part = chr_slice_of(m->bytes.ptr + PART_HEAD_BYTES, m->bytes.len - PART_HEAD_BYTES);
    chr_err err = take_part(s, part, &msg);
    if (err == CHR_ENOSPC) {
        give_room(s, m->from, id, msg.text);
        return;
    }
    if (err && err != CHR_EEXIST && err != CHR_ENOTFOUND) {
        chr_log_error("snapshot", "a part was refused", CHR_KV_C("detail", msg.text));
        reply(s, m->from, id, s->install ? install_next(s->install) : 0,
              err == CHR_ENOMEM ? REPLY_WANTS : REPLY_CANT);
        return;
    }
    const struct db_snapshot_info *info = install_info(s->install);
    uint64_t next = install_next(s->install), parts = info ? info->parts : 0;
    pthread_mutex_lock(&s->lock);
    s->stats.received_bytes += part.len;
    s->stats.receiving_part = next;
    s->stats.receiving_parts = parts;
    pthread_mutex_unlock(&s->lock);
    if (of_no_use(s)) {
        close_install(s);
        (void)!install_discard(s->node->config->data_dir, &msg);
        reply(s, m->from, id, parts, REPLY_WHOLE);
        return;
    }
    if (!info || next < parts) {
        reply(s, m->from, id, info && info->id == id ? next : 0, REPLY_WANTS);
        return;
    }
    err = install_commit(s->install, INSTALL_FOLLOWER, false, &msg);
    if (err == CHR_ENOSPC) {
        give_room(s, m->from, id, msg.text);
        return;
    }
    close_install(s);
    if (err) {
        chr_log_error("snapshot", "can't be used", CHR_KV_C("detail", msg.text));
        if (err == CHR_ECORRUPT || err == CHR_EMALFORMED)
            (void)!install_discard(s->node->config->data_dir, &msg);
        reply(s, m->from, id, 0, REPLY_CANT);
        return;
    }
    pthread_mutex_lock(&s->lock);
    s->stats.received++;
    pthread_mutex_unlock(&s->lock);
    reply(s, m->from, id, parts, REPLY_WHOLE);
    want_restart(s);
}

/* ---- The thread -------------------------------------------------------------------------------
 */

static struct peers_message *next_message(struct snapshots *s)
{
    pthread_mutex_lock(&s->lock);
    struct peers_message *m = s->inbox;
    if (m) {
        s->inbox = m->next;
        if (!s->inbox)
            s->inbox_last = NULL;
    }
    pthread_mutex_unlock(&s->lock);
    return m;
}

static uint64_t next_wanted(struct snapshots *s)
{
    const struct sending *out = &s->sending;
    uint64_t node = 0;
    int64_t now = now_us(s);
    if (now < out->retry_us)
        return 0;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < s->wanted_count && !node; i++) {
        if (s->wanted[i] == out->refused_by && now < out->refused_retry_us)
            continue;
        node = s->wanted[i];
        memmove(s->wanted + i, s->wanted + i + 1, (--s->wanted_count - i) * sizeof s->wanted[0]);
    }
    pthread_mutex_unlock(&s->lock);
    return node;
}

static bool snapshots_turn(struct snapshots *s)
{
    struct peers_message *m = next_message(s);
    if (m) {
        if (m->kind == PEERS_SNAPSHOT)
            receive_part(s, m);
        else
            take_reply(s, m);
        peers_release(s->peers, m);
        return true;
    }
    if (s->sending.to)
        return send_part(s);
    uint64_t node = next_wanted(s);
    if (node && leads(s) && peers_up(s->peers, node, PEERS_BULK))
        send_begin(s, node); /* else the core asks again */
    return s->sending.to != 0;
}

static void *snapshots_main(void *arg)
{
    struct snapshots *s = arg;
    pthread_setname_np(pthread_self(), "snapshots");
    chr_priority_set(CHR_PRIORITY_LOW);
    while (!atomic_load(&s->stopping)) {
        if (snapshots_turn(s))
            continue;
        uint32_t ticket = chr_wake_prepare(&s->wake);
        pthread_mutex_lock(&s->lock);
        bool waits = s->inbox != NULL;
        bool busy = s->wanted_count > 0;
        pthread_mutex_unlock(&s->lock);
        if (waits || atomic_load(&s->stopping))
            chr_wake_cancel(&s->wake);
        else
            chr_wake_wait(&s->wake, ticket, s->sending.to || busy ? LOOK_US : -1);
    }
    if (s->sending.to) {
        db_snapshot_end(s->sending.snapshot);
        s->sending.to = 0;
    }
    close_install(s);
    return NULL;
}

chr_err snapshots_start(struct snapshots *s)
{
    if (pthread_create(&s->thread, NULL, snapshots_main, s))
        return CHR_ENOMEM;
    s->running = true;
    return CHR_OK;
}

void snapshots_stop(struct snapshots *s)
{
    if (!s || !s->running)
        return;
    atomic_store(&s->stopping, true);
    chr_wake_signal(&s->wake);
    pthread_join(s->thread, NULL);
    s->running = false;
}

void snapshots_free(struct snapshots *s)
{
    if (!s)
        return;
    while (s->inbox) {
        struct peers_message *next = s->inbox->next;
        peers_release(s->peers, s->inbox);
        s->inbox = next;
    }
    chr_buf_free(&s->sending.part);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
