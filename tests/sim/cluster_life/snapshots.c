/* tests/sim/cluster_life/snapshots.c: a node that is too far behind for the log gets the state, by
 * db/snapshot.h, part by part over the BULK lane.
 *
 * It stands for broker/snapshots.c and broker/install.c, which work on real directories, and keeps
 * to what they do: a whole snapshot takes the place of the old state at the next start, all of it
 * or nothing; the node keeps its term and vote; a log that turns out to hold the snapshot's last
 * entry goes on instead. What it leaves out: parts that came are not kept over a restart. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "broker/committer_internal.h"
#include "tests/sim/cluster_life/world.h"

#define PATIENCE_US INT64_C(1500000) /* between two replies */
#define RETRY_US    100000
#define HEAD_BYTES  8u /* u64 number of the part */

struct incoming {
    fake_kv *store;
    struct db_kv kv;
    db_snapshot_receiver *receiver; /* NULL: it is whole */
    struct db_snapshot_info info;
    struct raft_members members;
};

/* ---- Sending: inside --------------------------------------------------------------------------
 */

struct outgoing {
    struct node *node;
    uint64_t to;
    db_snapshot *snapshot;
    struct chr_buf part;
    uint8_t members[RAFT_MEMBERS_BYTES_MAX];
};

static chr_err describe(void *arg, uint64_t index, struct db_snapshot_origin *origin)
{
    struct outgoing *out = arg;
    const struct node *n = out->node;
    *origin = (struct db_snapshot_origin){
        .cluster = 1,
        .incarnation = raft_log_incarnation(n->log),
        .term = raft_log_term_of(n->log, index),
        .members_index = CHR_MIN(n->members_index, index),
        .members = chr_slice_of(out->members, raft_members_encode(&n->members, out->members)),
    };
    return origin->term ? CHR_OK : CHR_ENOTFOUND; /* a checkpoint whose log is gone: the next one */
}

/* One part, when the lane takes it, and until the other side says what it wants next. */
static bool send_part(struct outgoing *out, uint64_t number)
{
    struct node *n = out->node;
    struct chr_errmsg msg;
    uint8_t head[HEAD_BYTES];
    if (db_snapshot_part(out->snapshot, number, &out->part, &msg))
        return false;
    chr_put_u64le(head, number);
    chr_slice parts[] = {chr_slice_of(head, sizeof head), chr_buf_slice(&out->part)};
    int64_t until = life__world->now + PATIENCE_US;
    chr_err err;
    while ((err = peers_send(&n->peers, out->to, PEERS_BULK, PEERS_SNAPSHOT, parts, 2)) ==
           CHR_EAGAIN) {
        if (life__world->now > until || n->stopping)
            return false;
        life__sleep(2000);
    }
    while (!err && n->wanted_part[out->to] <= number) {
        if (life__world->now > until || n->stopping)
            return false;
        life__block(&n->wanted_part[out->to], until);
    }
    return !err;
}

static void send_all(struct node *n, uint64_t to)
{
    struct outgoing out = {.node = n, .to = to};
    struct chr_errmsg msg;
    n->spool_fd = memfd_create("spool", MFD_CLOEXEC);
    CHR_ASSERT(n->spool_fd >= 0);
    chr_err err = db_snapshot_begin(n->db, n->spool_fd, describe, &out, &out.snapshot, &msg);
    if (err) {
        n->spool_fd = -1; /* closed */
        return;
    }
    const struct db_snapshot_info *info = db_snapshot_info(out.snapshot);
    broker_committer_snapshot_started(n->committer, to, info->index);
    life__trace(life__world, n, "sends a snapshot of %llu to %llu", (unsigned long long)info->index,
                (unsigned long long)to);
    chr_buf_init(&out.part, DB_SNAPSHOT_PART_BYTES_MAX);
    n->wanted_part[to] = 0;
    bool ok = true;
    for (uint64_t i = 0; ok && i < info->parts; i++)
        ok = send_part(&out, i);
    db_snapshot_end(out.snapshot);
    n->spool_fd = -1;
    chr_buf_free(&out.part);
    broker_committer_snapshot_sent(n->committer, to, ok);
}

void *life__snapshot_main(void *arg)
{
    struct node *n = arg;
    while (!n->stopping) {
        uint32_t wants = n->wants_snapshot;
        if (!wants) {
            life__block(&n->wants_snapshot, life__world->now + 500000);
            continue;
        }
        uint64_t to = (uint64_t)__builtin_ctz(wants);
        n->wants_snapshot &= ~(1u << to);
        send_all(n, to);
        life__sleep(RETRY_US);
    }
    return NULL;
}

/* ---- Receiving --------------------------------------------------------------------------------
 */

static void drop(struct node *n)
{
    struct incoming *in = n->incoming;
    if (!in)
        return;
    db_snapshot_receiver_end(in->receiver);
    fake_kv_free(in->store);
    free(in);
    n->incoming = NULL;
}

static bool begin(struct node *n)
{
    struct chr_errmsg msg;
    drop(n);
    struct incoming *in = calloc(1, sizeof *in);
    CHR_ASSERT(in);
    n->incoming = in;
    in->store = fake_kv_new(chr_random_u64(&life__world->random));
    fake_kv_faults(in->store)->no_poison = true;
    in->kv = fake_kv_seam(in->store);
    return db_snapshot_receiver_begin(&in->kv, &in->receiver, &msg) == CHR_OK;
}

/* True: it is whole. */
static bool finish(struct node *n)
{
    struct incoming *in = n->incoming;
    struct chr_errmsg msg = {{0}};
    in->info = *db_snapshot_receiver_info(in->receiver);
    struct db_snapshot_info first; /* with the members, which live in part 0 */
    if (db_snapshot_part_info(db_snapshot_receiver_first(in->receiver), &first, &msg) ||
        raft_members_decode(first.origin.members, &in->members) ||
        db_snapshot_receiver_finish(in->receiver, &msg))
        return life__broken(life__world, "node %llu: a snapshot makes no sense: %s",
                            (unsigned long long)n->id, msg.text);
    db_snapshot_receiver_end(in->receiver);
    in->receiver = NULL;
    return true;
}

/* Outside. The number of the part that is wanted next; *whole: none. */
static uint64_t take_part(struct node *n, chr_slice bytes, bool *whole)
{
    struct chr_errmsg msg;
    *whole = false;
    if (n->install || bytes.len < HEAD_BYTES)
        return UINT64_MAX;
    uint64_t number = chr_get_u64le(bytes.ptr);
    if (number == 0 && !begin(n))
        return 0;
    if (!n->incoming)
        return 0;
    chr_err err = db_snapshot_receiver_put(
        n->incoming->receiver, chr_slice_of(bytes.ptr + HEAD_BYTES, bytes.len - HEAD_BYTES), &msg);
    if (err && err != CHR_EEXIST)
        return 0;
    uint64_t next = db_snapshot_receiver_next(n->incoming->receiver);
    const struct db_snapshot_info *info = db_snapshot_receiver_info(n->incoming->receiver);
    if (next == info->parts)
        *whole = finish(n);
    return next;
}

/* It is bound to happen; the node starts again, in an orderly way or not. */
static void install_soon(struct node *n)
{
    struct world *w = life__world;
    n->install = true;
    life__trace(w, n, "has a snapshot of %llu", (unsigned long long)n->incoming->info.index);
    if (chance(w, 500))
        life__stop(w, n);
    else
        n->doomed_at = w->now + 1000 + (int64_t)below(w, 50000);
    n->restarts = true;
}

void life__snapshot_received(struct node *n, struct peers_message *m)
{
    bool whole = false;
    uint8_t reply[HEAD_BYTES];
    uint64_t from = m->from, next;
    life__leave();
    if (m->kind == PEERS_SNAPSHOT_REPLY && m->bytes.len == HEAD_BYTES) {
        n->wanted_part[from] = chr_get_u64le(m->bytes.ptr);
        life__wake(&n->wanted_part[from], true);
        life__enter();
        peers_release(&n->peers, m);
        return;
    }
    next = take_part(n, m->bytes, &whole);
    life__enter();
    peers_release(&n->peers, m);
    chr_put_u64le(reply, next);
    chr_slice part = chr_slice_of(reply, sizeof reply);
    if (next)
        (void)!peers_send(&n->peers, from, PEERS_CONTROL, PEERS_SNAPSHOT_REPLY, &part, 1);
    life__leave();
    if (whole)
        install_soon(n);
    life__enter();
}

void life__snapshot_forget(struct node *n)
{
    if (n->spool_fd >= 0)
        close(n->spool_fd);
    n->spool_fd = -1;
    memset(n->wanted_part, 0, sizeof n->wanted_part);
    if (!n->install)
        drop(n);
}

/* ---- Installing -------------------------------------------------------------------------------
 */

/* As broker/install.c: what the node has promised, and whether its log holds the last entry. */
static bool log_goes_on(struct node *n, struct raft_hard_state *promised)
{
    const struct db_snapshot_info *info = &n->incoming->info;
    struct chr_errmsg msg = {{0}};
    struct raft_log_options options = {.read_only = true};
    struct raft_log_recovery found;
    raft_log *log = NULL;
    chr_err err = raft_log_open(&n->disk.io, &options, 0, &log, &found, &msg);
    if (err == CHR_ENOTFOUND)
        return false;
    if (err) {
        (void)life__broken(life__world, "node %llu can't read its log: %s",
                           (unsigned long long)n->id, msg.text);
        return true;
    }
    *promised = found.hard_state;
    bool goes_on = (info->index <= found.last_index &&
                    raft_log_term_of(log, info->index) == info->origin.term) ||
                   raft_log_first(log) > info->index + 1;
    raft_log_close(log);
    return goes_on;
}

static void new_log(struct node *n, struct raft_hard_state promised)
{
    const struct db_snapshot_info *info = &n->incoming->info;
    if (promised.term < info->origin.term) /* no vote was cast in a term it has not seen */
        promised = (struct raft_hard_state){.term = info->origin.term};
    fake_disk_close(&n->disk);
    fake_disk_open(&n->disk, chr_random_u64(&life__world->random));
    struct raft_log_options options = {
        .segment_bytes = SEGMENT_BYTES,
        .first_segment_bytes = SEGMENT_BYTES,
        .recycle_max = 1,
        .incarnation = n->incarnation,
        .base = {.term = info->origin.term, .hlc = info->hlc, .hard_state = promised}};
    struct raft_log_recovery found;
    struct chr_errmsg msg;
    raft_log *log = NULL;
    chr_err err = raft_log_open(&n->disk.io, &options, info->index + 1, &log, &found, &msg);
    CHR_ASSERT(!err);
    raft_log_close(log);
}

bool life__snapshot_install(struct world *w, struct node *n)
{
    struct incoming *in = n->incoming;
    struct raft_hard_state promised = {0};
    struct fake_disk_faults faults = n->disk.faults;
    n->disk.faults = (struct fake_disk_faults){0};
    bool goes_on = log_goes_on(n, &promised);
    if (!goes_on) {
        new_log(n, promised);
        fake_kv_free(n->store);
        n->store = in->store;
        in->store = NULL;
        n->members = in->members;
        n->members_index = in->info.origin.members_index;
        n->members_term = in->info.origin.term;
        life__trace(w, n, "is on a snapshot of %llu", (unsigned long long)in->info.index);
    }
    n->disk.faults = faults;
    fake_kv_free(in->store);
    free(in);
    n->incoming = NULL;
    return !goes_on;
}
