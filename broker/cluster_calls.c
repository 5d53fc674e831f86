/* broker/cluster_calls.c: calls on their way: asked here, passed on, answered. What the leader does
 * for them is in cluster_change.c. */
#include "broker/cluster_calls.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "bridge/peers.h"
#include "broker/cluster.h"
#include "broker/cluster_change.h"
#include "broker/node.h"

#define ASK_US       INT64_C(30000000) /* longer than the leader may take: CLUSTER_CHANGE_US */
#define ASK_NODES_US INT64_C(1000000)
#define NO_LEADER_US INT64_C(10000000) /* an election is waited for, not more */
#define LOOK_US      INT64_C(20000)
#define JOBS_MAX     16u

/* For the leader's thread. */
struct job {
    struct call call;
    uint64_t from;       /* node; 0: asked here */
    struct asked *asked; /* of `from` 0, under calls->lock; NULL: nobody waits any more */
    struct job *next;
};

/* Somebody waits here. On its stack; in the list while it waits. */
struct asked {
    uint64_t number;
    bool done;
    struct call_reply *reply;
    struct asked *next;
};

struct cluster_calls {
    struct broker_node *node;
    struct cluster *cluster;
    struct peers *peers;
    pthread_t thread;
    bool running;
    _Atomic bool stopping;
    pthread_mutex_t lock; /* all below */
    pthread_cond_t changed;
    struct job *jobs, *jobs_last;
    uint32_t jobs_count;
    struct asked *asked;
    uint64_t numbers;
};

static int64_t now_us(const struct cluster_calls *c)
{
    return chr_clock_mono_us(c->node->clock);
}

/* lock. Until something changed, or for a moment. */
static void wait_a_moment(struct cluster_calls *c)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += LOOK_US * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(&c->changed, &c->lock, &until);
}

/* ---- Who there is -----------------------------------------------------------------------------
 */

static enum call_role role_of(const struct cluster_member *m,
                              const struct broker_cluster_status *status)
{
    if (!m->member)
        return CALL_ROLE_NONE;
    if (m->leader)
        return CALL_ROLE_LEADER;
    if (!m->voter)
        return CALL_ROLE_LEARNER;
    bool candidate =
        m->self && (status->role == RAFT_CANDIDATE || status->role == RAFT_PRE_CANDIDATE);
    return candidate ? CALL_ROLE_CANDIDATE : CALL_ROLE_FOLLOWER;
}

static uint32_t nodes_here(struct cluster_calls *c, struct call_node out[CALL_NODES_MAX])
{
    struct cluster_member members[CLUSTER_MEMBERS_MAX];
    struct broker_cluster_status status;
    uint32_t count = cluster_members(c->cluster, members, &status);
    for (uint32_t i = 0; i < count; i++) {
        const struct cluster_member *m = &members[i];
        struct call_node *n = &out[i];
        *n = (struct call_node){.node = m->node,
                                .role = role_of(m, &status),
                                .voter = m->voter,
                                .member = m->member,
                                .up = m->up,
                                .term = status.term,
                                .progress = m->lag != UINT64_MAX,
                                .match = m->match,
                                .lag = m->lag,
                                .commit_index = CHR_MIN(status.commit_index, m->match),
                                .heard = m->heard,
                                .clock = m->self || m->skew_us != INT64_MIN,
                                .skew_ms = m->skew_us / 1000};
        if (m->self && !n->progress) { /* of itself each node knows that much */
            n->progress = true;
            n->match = status.last_index;
            n->commit_index = status.commit_index;
            n->lag = status.last_index - status.commit_index;
        }
        if (m->self)
            n->skew_ms = 0;
        if (m->heard && !m->self)
            n->heard_ms = (uint64_t)(m->heard_us_ago / 1000);
        memcpy(n->name, m->name, sizeof n->name);
        memcpy(n->address, m->address, sizeof n->address);
        memcpy(n->version, m->version, sizeof n->version);
    }
    return count;
}

/* ---- The leader's side ------------------------------------------------------------------------
 */

static void reply_to(struct cluster_calls *c, uint64_t to, const struct call_reply *reply)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 65536);
    if (!call_reply_encode(reply, &buf)) {
        chr_slice bytes = chr_buf_slice(&buf);
        (void)!peers_send(c->peers, to, PEERS_CONTROL, PEERS_CALL_REPLY, &bytes, 1);
    }
    chr_buf_free(&buf);
}

static chr_err enqueue(struct cluster_calls *c, const struct call *call, uint64_t from,
                       struct asked *asked)
{
    struct job *job = calloc(1, sizeof *job);
    if (!job)
        return CHR_ENOMEM;
    job->call = *call;
    job->from = from;
    job->asked = asked;
    chr_err err = CHR_OK;
    pthread_mutex_lock(&c->lock);
    if (c->jobs_count == JOBS_MAX || atomic_load(&c->stopping))
        err = CHR_EBUSY;
    if (!err && c->jobs_last)
        c->jobs_last->next = job;
    else if (!err)
        c->jobs = job;
    if (!err) {
        c->jobs_last = job;
        c->jobs_count++;
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    if (err)
        free(job);
    return err;
}

static void answer(struct cluster_calls *c, struct job *job, struct call_reply *reply)
{
    reply->number = job->call.number;
    if (job->from) {
        reply_to(c, job->from, reply);
        return;
    }
    pthread_mutex_lock(&c->lock);
    for (struct asked *a = c->asked; a; a = a->next)
        if (a == job->asked && a->number == reply->number) {
            *a->reply = *reply;
            a->done = true;
        }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void *calls_main(void *arg)
{
    struct cluster_calls *c = arg;
    struct call_reply reply;
    pthread_setname_np(pthread_self(), "calls");
    for (;;) {
        pthread_mutex_lock(&c->lock);
        while (!c->jobs && !atomic_load(&c->stopping))
            pthread_cond_wait(&c->changed, &c->lock);
        struct job *job = c->jobs;
        if (job) {
            c->jobs = job->next;
            c->jobs_count--;
            if (!c->jobs)
                c->jobs_last = NULL;
        }
        pthread_mutex_unlock(&c->lock);
        if (!job)
            return NULL;
        memset(&reply, 0, sizeof reply);
        cluster_change(c->node, c->cluster, &job->call, &c->stopping, &reply);
        answer(c, job, &reply);
        free(job);
    }
}

/* ---- What peers send --------------------------------------------------------------------------
 */

static void call_received(struct cluster_calls *c, uint64_t from, const struct call *call)
{
    struct call_reply reply = {.number = call->number, .status = CALL_ELSEWHERE};
    if (broker_committer_leader(c->node->committer) == cluster_self(c->cluster)) {
        if (call->kind == CALL_NODES) {
            reply.status = CALL_DONE;
            reply.nodes_count = nodes_here(c, reply.nodes);
        } else {
            reply.err = enqueue(c, call, from, NULL);
            reply.status = CALL_FAILED;
            if (!reply.err)
                return;
            snprintf(reply.text, sizeof reply.text, "the leader is busy with other changes");
        }
    }
    reply_to(c, from, &reply);
}

static void reply_received(struct cluster_calls *c, const struct call_reply *reply)
{
    pthread_mutex_lock(&c->lock);
    for (struct asked *a = c->asked; a; a = a->next)
        if (a->number == reply->number) {
            *a->reply = *reply;
            a->done = true;
        }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void cluster_calls_received(struct cluster_calls *c, const struct peers_message *message)
{
    struct call call;
    if (message->kind == PEERS_CALL) {
        if (!call_decode(message->bytes, &call))
            call_received(c, message->from, &call);
        return;
    }
    struct call_reply *reply = malloc(sizeof *reply);
    if (reply && !call_reply_decode(message->bytes, reply))
        reply_received(c, reply);
    free(reply);
}

/* ---- Asking -----------------------------------------------------------------------------------
 */

static void begin(struct cluster_calls *c, struct asked *asked, struct call *call)
{
    pthread_mutex_lock(&c->lock);
    if (!c->numbers) /* not those of an earlier life */
        c->numbers = c->node->dir.boot << 32;
    asked->number = call->number = ++c->numbers;
    asked->done = false;
    asked->next = c->asked;
    c->asked = asked;
    pthread_mutex_unlock(&c->lock);
}

static void end(struct cluster_calls *c, const struct asked *asked)
{
    pthread_mutex_lock(&c->lock);
    struct asked **at = &c->asked;
    while (*at != asked)
        at = &(*at)->next;
    *at = asked->next;
    pthread_mutex_unlock(&c->lock);
}

static chr_err interrupted(struct cluster_calls *c, const struct sql_host_wait *wait)
{
    if (atomic_load(&c->stopping))
        return CHR_ECLOSED;
    if (wait && atomic_load_explicit(wait->cancel, memory_order_relaxed))
        return CHR_ECANCELLED;
    return wait && wait->deadline_us && now_us(c) > wait->deadline_us ? CHR_ETIMEDOUT : CHR_OK;
}

static chr_err await(struct cluster_calls *c, const struct asked *asked, int64_t until_us,
                     const struct sql_host_wait *wait)
{
    chr_err err = CHR_OK;
    pthread_mutex_lock(&c->lock);
    while (!asked->done && !err) {
        err = now_us(c) > until_us ? CHR_ETIMEDOUT : interrupted(c, wait);
        if (!err)
            wait_a_moment(c);
    }
    bool done = asked->done;
    pthread_mutex_unlock(&c->lock);
    return done ? CHR_OK : err;
}

static chr_err send_call(struct cluster_calls *c, uint64_t to, const struct call *call)
{
    struct chr_buf buf;
    chr_buf_init(&buf, 4096);
    chr_err err = call_encode(call, &buf);
    chr_slice bytes = chr_buf_slice(&buf);
    if (!err)
        err = peers_send(c->peers, to, PEERS_CONTROL, PEERS_CALL, &bytes, 1);
    chr_buf_free(&buf);
    return err;
}

/* Asks whoever leads now. CHR_EAGAIN: nobody could be asked, or it was not the leader: nothing was
 * begun. */
static chr_err ask_leader(struct cluster_calls *c, struct call *call, int64_t until_us,
                          const struct sql_host_wait *wait, struct call_reply *reply)
{
    struct asked asked = {.reply = reply};
    uint64_t leader = broker_committer_leader(c->node->committer);
    if (!leader)
        return CHR_EAGAIN;
    begin(c, &asked, call);
    chr_err err = leader == cluster_self(c->cluster) ? enqueue(c, call, 0, &asked)
                                                     : send_call(c, leader, call);
    if (err)
        err = err == CHR_ENOMEM || err == CHR_EBUSY ? err : CHR_EAGAIN;
    else
        err = await(c, &asked, until_us, wait);
    end(c, &asked);
    return !err && reply->status == CALL_ELSEWHERE ? CHR_EAGAIN : err;
}

/* lock is not held. */
static chr_err pause_for(struct cluster_calls *c, const struct sql_host_wait *wait)
{
    pthread_mutex_lock(&c->lock);
    wait_a_moment(c);
    pthread_mutex_unlock(&c->lock);
    return interrupted(c, wait);
}

static chr_err failed(const struct call *call, chr_err err, struct chr_errmsg *out)
{
    switch (err) {
    case CHR_EAGAIN:
        return chr_fail(out, CHR_ECLOSED,
                        "no leader can be reached: nothing was done. A cluster that has lost more "
                        "than half of its voters has none");
    case CHR_ETIMEDOUT:
        return chr_fail(out, err,
                        "the leader did not answer in time: whether it happened is not known; "
                        "chronos_nodes shows it");
    case CHR_EBUSY:
        return chr_fail(out, err, "other changes are under way; try again");
    default:
        return chr_fail(out, err, "%s: %s", call->name, chr_strerror(err));
    }
}

static bool fits(chr_slice text, char *out, size_t size)
{
    if (text.len >= size)
        return false;
    memset(out, 0, size);
    if (text.len)
        memcpy(out, text.ptr, text.len);
    return strlen(out) == text.len;
}

chr_err cluster_call(struct cluster_calls *c, enum call_kind kind, chr_slice name,
                     chr_slice address, const struct sql_host_wait *wait, struct chr_errmsg *out)
{
    struct call call = {.kind = (uint32_t)kind};
    if (!fits(name, call.name, sizeof call.name) || !roster_name_valid(call.name) ||
        !fits(address, call.address, sizeof call.address))
        return chr_fail(out, CHR_EINVAL, "\"%.*s\" is no name of a node, or its address is none",
                        (int)CHR_MIN(name.len, 80), (const char *)name.ptr);
    struct call_reply *reply = calloc(1, sizeof *reply);
    if (!reply)
        return failed(&call, CHR_ENOMEM, out);
    int64_t begun_us = now_us(c);
    chr_err err;
    while ((err = ask_leader(c, &call, begun_us + ASK_US, wait, reply)) == CHR_EAGAIN &&
           now_us(c) - begun_us < NO_LEADER_US) {
        chr_err stop = pause_for(c, wait);
        if (stop) {
            err = stop;
            break;
        }
    }
    if (err)
        err = failed(&call, err, out);
    else
        err = chr_fail(out, reply->status == CALL_DONE ? CHR_OK : reply->err, "%s", reply->text);
    free(reply);
    return err;
}

chr_err cluster_call_nodes(struct cluster_calls *c, const struct sql_host_wait *wait,
                           struct call_node out[CALL_NODES_MAX], uint32_t *count)
{
    struct call call = {.kind = CALL_NODES};
    struct call_reply *reply = calloc(1, sizeof *reply);
    if (!reply)
        return CHR_ENOMEM;
    bool ours = broker_committer_leader(c->node->committer) == cluster_self(c->cluster);
    chr_err err = ours ? CHR_EAGAIN : ask_leader(c, &call, now_us(c) + ASK_NODES_US, wait, reply);
    if (err == CHR_ECANCELLED) {
        free(reply);
        return err;
    }
    if (err || reply->status != CALL_DONE || reply->nodes_count == 0) {
        *count = nodes_here(c, out);
    } else {
        *count = reply->nodes_count;
        memcpy(out, reply->nodes, *count * sizeof out[0]);
    }
    free(reply);
    return CHR_OK;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

chr_err cluster_calls_open(struct broker_node *node, struct cluster *cluster, struct peers *peers,
                           struct cluster_calls **out)
{
    struct cluster_calls *c = calloc(1, sizeof *c);
    if (!c)
        return CHR_ENOMEM;
    c->node = node;
    c->cluster = cluster;
    c->peers = peers;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = c;
    return CHR_OK;
}

chr_err cluster_calls_start(struct cluster_calls *c)
{
    if (pthread_create(&c->thread, NULL, calls_main, c))
        return CHR_ENOMEM;
    c->running = true;
    return CHR_OK;
}

void cluster_calls_stop(struct cluster_calls *c)
{
    if (!c || !c->running)
        return;
    pthread_mutex_lock(&c->lock);
    atomic_store(&c->stopping, true);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->thread, NULL);
    c->running = false;
}

void cluster_calls_free(struct cluster_calls *c)
{
    if (!c)
        return;
    while (c->jobs) {
        struct job *next = c->jobs->next;
        free(c->jobs);
        c->jobs = next;
    }
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
