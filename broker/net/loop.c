/* broker/net/loop.c: the turn of an event loop.
 *
 * Sleeping: the loop says so (`sleeping`), looks once more at what other threads fill (returned
 * batches, mail), then waits in epoll. A poster publishes first and writes the eventfd only when it
 * finds the loop sleeping; both sides are sequentially consistent, so one of them sees the other.
 */
#include "broker/net/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/assert.h"
#include "base/bytes.h"
#include "base/log.h"
#include "bridge/peers.h"
#include "broker/auth/auth.h"
#include "broker/config.h"
#include "broker/ingest/ingest.h"
#include "broker/net/listener.h"
#include "broker/net/peer_stream.h"
#include "broker/net/transport.h"
#include "broker/node.h"
#include "broker/session/dispatch.h"

#define EVENTS_PER_TURN 256
#define SECOND_US       INT64_C(1000000)
/* At shutdown: how long clients get to take what is owed to them. */
#define STOP_LINGER_US (2 * SECOND_US)

/* ---- Waking and mail (any thread) -------------------------------------------------------------
 */

void loop_wake(struct broker_loop *loop)
{
    if (!atomic_exchange(&loop->sleeping, false))
        return;
    uint64_t one = 1;
    ssize_t n = write(loop->wake_fd, &one, sizeof one);
    (void)n; /* fails only at 2^64 wakes that nobody read */
}

void loop_post(struct broker_loop *loop, struct loop_mail *mail)
{
    mail->next = NULL;
    pthread_mutex_lock(&loop->mail_lock);
    if (loop->mail_tail)
        loop->mail_tail->next = mail;
    else
        loop->mail_head = mail;
    loop->mail_tail = mail;
    atomic_store(&loop->mail_waiting, true);
    pthread_mutex_unlock(&loop->mail_lock);
    loop_wake(loop);
}

static void answer_batches(struct broker_loop *loop);

static void take_mail(struct broker_loop *loop)
{
    if (!atomic_load(&loop->mail_waiting))
        return;
    pthread_mutex_lock(&loop->mail_lock);
    struct loop_mail *mail = loop->mail_head;
    loop->mail_head = loop->mail_tail = NULL;
    atomic_store(&loop->mail_waiting, false);
    pthread_mutex_unlock(&loop->mail_lock);
    answer_batches(loop); /* those before the letters: acknowledged before queues are served */
    while (mail) {
        struct loop_mail *next = mail->next; /* run() owns and may free it */
        mail->run(loop, mail);
        mail = next;
    }
}

/* ---- Connections ------------------------------------------------------------------------------
 */

struct conn *loop_conn(struct broker_loop *loop, struct conn_ref ref)
{
    if (ref.slot >= loop->conns_max)
        return NULL;
    struct conn *conn = loop->conns[ref.slot];
    return conn && conn->ref.generation == ref.generation ? conn : NULL;
}

static bool take_slot(struct broker_loop *loop, uint32_t *slot)
{
    if (loop->free_slots_count) {
        *slot = loop->free_slots[--loop->free_slots_count];
        return true;
    }
    if (loop->slots_used == loop->conns_max)
        return false;
    *slot = loop->slots_used++;
    return true;
}

struct adopt_mail {
    struct loop_mail mail;
    struct listener *listener;
    int fd;
    char address[64];
    /* What another loop has of it */
    bool moved;
    struct chr_buf in; /* received */
    struct transport *transport;
    char *certificate_user;
    struct principal *principal; /* who it is there; a reference */
    struct enhanced *enhanced;   /* its exchange; session layer's */
};

static void adopt(struct broker_loop *loop, struct loop_mail *mail)
{
    struct adopt_mail *letter = CHR_CONTAINER_OF(mail, struct adopt_mail, mail);
    uint32_t slot;
    struct conn *conn = NULL;
    bool fresh = !letter->moved && transport_needed(letter->listener);
    if (fresh)
        letter->transport = transport_new(letter->listener, letter->fd);
    else if (letter->transport)
        transport_set_fd(letter->transport, letter->fd);
    bool able = !fresh || letter->transport;
    if (able && !atomic_load(&loop->stopping) && take_slot(loop, &slot)) {
        struct conn_ref ref = {.slot = slot, .generation = ++loop->generations[slot]};
        conn =
            conn_new(loop, letter->listener, letter->fd, letter->transport, ref, letter->address);
        if (conn)
            loop->conns[slot] = conn;
        else
            loop->free_slots[loop->free_slots_count++] = slot;
    }
    if (conn) {
        if (!letter->moved) /* else it was counted where it comes from */
            LOOP_COUNT(loop, connections_total, 1);
        conn->principal = letter->principal;
        conn->certificate_user = letter->certificate_user;
        conn->enhanced = letter->enhanced;
        if (letter->in.len) {
            chr_buf_free(&conn->in);
            conn->in = letter->in;
            conn_partial_count(conn);
            chr_list_push_back(&loop->held, &conn->wait_link);
        }
    } else {
        transport_free(letter->transport);
        free(letter->certificate_user);
        close(letter->fd);
        chr_buf_free(&letter->in);
        principal_unref(letter->principal);
        session_enhanced_free(letter->enhanced);
        atomic_fetch_sub(&letter->listener->connections, 1);
        atomic_fetch_sub(&loop->conns_count, 1);
    }
    free(letter);
}

chr_err loop_adopt(struct broker_loop *loop, struct listener *listener, int fd, const char *address)
{
    struct adopt_mail *letter = calloc(1, sizeof *letter);
    if (!letter)
        return CHR_ENOMEM;
    letter->mail.run = adopt;
    letter->listener = listener;
    letter->fd = fd;
    snprintf(letter->address, sizeof letter->address, "%s", address);
    atomic_fetch_add(&loop->conns_count, 1);
    atomic_fetch_add(&listener->connections, 1);
    loop_post(loop, &letter->mail);
    return CHR_OK;
}

static void forget_conn(struct broker_loop *loop, struct conn *conn)
{
    loop->conns[conn->ref.slot] = NULL;
    loop->free_slots[loop->free_slots_count++] = conn->ref.slot;
    atomic_fetch_sub(&loop->conns_count, 1);
    atomic_fetch_sub(&conn->listener->connections, 1);
    conn_free(conn);
}

void loop_move_conn(struct broker_loop *loop, struct conn *conn, struct broker_loop *target)
{
    struct adopt_mail *letter = calloc(1, sizeof *letter);
    int fd = letter ? fcntl(conn->fd, F_DUPFD_CLOEXEC, 0) : -1;
    if (fd < 0) {
        free(letter);
        conn_close(conn);
        return;
    }
    /* The copy of the descriptor keeps the socket open, so epoll must be told. */
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    letter->mail.run = adopt;
    letter->listener = conn->listener;
    letter->fd = fd;
    snprintf(letter->address, sizeof letter->address, "%s", conn->address);
    letter->moved = true;
    letter->in = conn->in;
    conn->in = (struct chr_buf){0};
    letter->principal = conn->principal;
    conn->principal = NULL;
    letter->transport = conn->transport;
    conn->transport = NULL;
    letter->certificate_user = conn->certificate_user;
    conn->certificate_user = NULL;
    conn_partial_count(conn);
    letter->enhanced = conn->enhanced;
    conn->enhanced = NULL;
    atomic_fetch_add(&target->conns_count, 1);
    atomic_fetch_add(&conn->listener->connections, 1); /* forgetting takes it off again */
    forget_conn(loop, conn);
    loop_post(target, &letter->mail);
}

void loop_hand_to_peers(struct broker_loop *loop, struct conn *conn)
{
    CHR_ASSERT(loop->node->peers && peer_stream_possible(conn));
    int fd = fcntl(conn->fd, F_DUPFD_CLOEXEC, 0); /* conn's own is closed with it */
    if (fd < 0) {
        conn_close(conn);
        return;
    }
    (void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, conn->fd, NULL);
    struct peers_stream stream = peer_stream_take(conn, fd);
    peers_adopt(loop->node->peers, fd, chr_buf_slice(&conn->in), &stream);
    forget_conn(loop, conn);
}

static void remove_conn(struct broker_loop *loop, struct conn *conn)
{
    session_connection_lost(conn);
    forget_conn(loop, conn);
}

/* ---- A turn -----------------------------------------------------------------------------------
 */

static void read_clock(struct broker_loop *loop)
{
    loop->now_mono_us = chr_clock_mono_us(loop->node->clock);
    loop->now_wall_us = chr_clock_wall_us(loop->node->clock);
}

static void answer_batches(struct broker_loop *loop)
{
    struct batch *batch;
    while ((batch = chr_ring_pop(&loop->returned)))
        batch_answer(batch);
}

/* Connections that waited for a batch read again, oldest first, while there are batches. */
static void resume_waiting(struct broker_loop *loop)
{
    if (chr_list_empty(&loop->waiting) || (!loop->batch && !loop->batch_free))
        return;
    /* Each gets one chance: who needs another batch queues up behind the others. */
    struct chr_list round;
    chr_list_take(&round, &loop->waiting);
    while (!chr_list_empty(&round)) {
        struct conn *conn = CHR_CONTAINER_OF(round.next, struct conn, wait_link);
        if (!loop->batch && !loop->batch_free) {
            struct chr_list *link = round.next;
            chr_list_remove(link);
            chr_list_push_back(&loop->waiting, link);
            continue;
        }
        conn_resume(conn, CONN_PAUSE_BATCH); /* unlinks */
        if (!chr_list_empty(&conn->wait_link))
            chr_list_remove(&conn->wait_link); /* from `held`: done right here */
        conn_process_held(conn);
    }
}

static void process_held(struct broker_loop *loop)
{
    struct chr_list round;
    chr_list_take(&round, &loop->held);
    while (!chr_list_empty(&round)) {
        struct conn *conn = CHR_CONTAINER_OF(round.next, struct conn, wait_link);
        chr_list_remove(&conn->wait_link);
        conn_process_held(conn);
    }
}

static void handle_event(const struct epoll_event *event)
{
    if (event->data.ptr == NULL)
        return; /* woken; edge-triggered, so that nobody has to read the counter */
    struct conn *conn = event->data.ptr;
    if (event->events & EPOLLOUT)
        conn_flush(conn);
    /* TLS may have to write before it can read on. */
    if ((event->events & EPOLLIN) ||
        ((event->events & EPOLLOUT) && conn->transport && conn->transport->wants_write))
        conn_read(conn);
    /* A paused connection is not read, so a reset would be reported for ever. */
    if ((event->events & (EPOLLHUP | EPOLLERR)) && (conn->paused || !(event->events & EPOLLIN))) {
        conn->eof = true;
        conn_close(conn);
    }
}

/* Each once: what a flush lets out of a queue goes with the next turn, or a client that reads as
 * fast as we write would keep the others waiting until its queue is empty. */
static void flush_outputs(struct broker_loop *loop)
{
    struct chr_list round;
    chr_list_take(&round, &loop->flush);
    while (!chr_list_empty(&round)) {
        struct conn *conn = CHR_CONTAINER_OF(round.next, struct conn, flush_link);
        chr_list_remove(&conn->flush_link);
        conn->flush_queued = false;
        conn_flush(conn);
    }
}

/* After the flush, so that a DISCONNECT is on its way before its connection goes. */
static void remove_closing(struct broker_loop *loop)
{
    while (!chr_list_empty(&loop->closing)) {
        struct conn *conn = CHR_CONTAINER_OF(loop->closing.next, struct conn, wait_link);
        chr_list_remove(&conn->wait_link);
        remove_conn(loop, conn);
        loop->go_on = true; /* its will, the end of its session */
    }
}

static void propose_open_batch(struct broker_loop *loop)
{
    if (loop->batch && (loop->batch->messages || loop->batch->waits_count ||
                        loop->batch->entry.ops_count || loop->batch->rejects_count))
        batch_propose(loop->batch);
}

static int wait_ms(struct broker_loop *loop)
{
    bool go_on = loop->go_on;
    loop->go_on = false;
    if (go_on || !chr_list_empty(&loop->held) || !chr_list_empty(&loop->closing) ||
        !chr_list_empty(&loop->flush))
        return 0;
    int64_t left_us =
        CHR_MIN(loop->next_second_us, loop->wake_us) - chr_clock_mono_us(loop->node->clock);
    return left_us <= 0 ? 0 : (int)(left_us / 1000 + 1);
}

static void turn(struct broker_loop *loop)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int timeout_ms = wait_ms(loop);
    if (timeout_ms) {
        atomic_store(&loop->sleeping, true);
        if (!chr_ring_empty(&loop->returned) || atomic_load(&loop->mail_waiting) ||
            (atomic_load(&loop->stopping) && !loop->winding_down))
            timeout_ms = 0;
    }
    int count = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, timeout_ms);
    atomic_store(&loop->sleeping, false);
    read_clock(loop);

    answer_batches(loop);
    take_mail(loop);
    resume_waiting(loop);
    process_held(loop);
    for (int i = 0; i < count; i++)
        handle_event(&events[i]);
    if (loop->now_mono_us >= loop->next_second_us) {
        loop->next_second_us = loop->now_mono_us + SECOND_US;
        limits_refresh(loop);
        slab_pool_trim(&loop->slabs);
        session_loop_second(loop);
    }
    session_turn_end(loop);
    propose_open_batch(loop);
    flush_outputs(loop);
    remove_closing(loop);
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static bool batches_out(const struct broker_loop *loop)
{
    return loop->batches_inflight > 0;
}

/* Stops reading, waits for the batches on their way, then for the sockets to take the answers. */
static void wind_down(struct broker_loop *loop)
{
    loop->winding_down = true;
    for (uint32_t i = 0; i < loop->slots_used; i++) {
        struct conn *conn = loop->conns[i];
        if (conn)
            conn_pause(conn, CONN_PAUSE_STOPPING);
    }
    while (batches_out(loop) || loop->batch) {
        /* Without a majority, or before a snapshot, what is out may never be answered. */
        if (loop->node->cluster && (atomic_load(&loop->node->restart_wanted) ||
                                    broker_committer_given_up(loop->node->committer)))
            break;
        turn(loop);
        if (loop->batch && !batches_out(loop) && !loop->batch->messages &&
            !loop->batch->waits_count)
            batch_release(loop->batch);
    }
    session_loop_stopping(loop);
    flush_outputs(loop);
    int64_t until_us = loop->now_mono_us + STOP_LINGER_US;
    for (;;) {
        bool unsent = false;
        for (uint32_t i = 0; i < loop->slots_used; i++)
            unsent |= loop->conns[i] && conn_out_bytes(loop->conns[i]) > 0;
        if (!unsent || loop->now_mono_us > until_us)
            break;
        turn(loop);
    }
    for (uint32_t i = 0; i < loop->slots_used; i++) {
        if (loop->conns[i])
            conn_close(loop->conns[i]);
    }
    remove_closing(loop);
}

static void *loop_main(void *arg)
{
    struct broker_loop *loop = arg;
    char name[16];
    snprintf(name, sizeof name, "loop-%u", loop->number % 1000);
    pthread_setname_np(pthread_self(), name);
    while (!atomic_load_explicit(&loop->stopping, memory_order_relaxed))
        turn(loop);
    wind_down(loop);
    return NULL;
}

/* max_connections may change while the node runs, the limit of descriptors doesn't. */
static uint32_t descriptors_max(void)
{
    struct rlimit limit = {.rlim_cur = 1024};
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur > (1u << 20) ? 1u << 20 : (uint32_t)limit.rlim_cur;
}

void loop_free(struct broker_loop *loop)
{
    if (loop->session_state)
        session_loop_free(loop);
    batches_free(loop);
    slab_unref(loop->slab);
    slab_pool_free(&loop->slabs);
    ingest_decoder_free(loop->decoder);
    ingest_mappings_release(loop->mappings);
    chr_ring_free(&loop->returned);
    pthread_mutex_destroy(&loop->mail_lock);
    if (loop->epoll_fd >= 0)
        close(loop->epoll_fd);
    if (loop->wake_fd >= 0)
        close(loop->wake_fd);
    free(loop->listener_counters);
    free(loop->conns);
    free(loop->generations);
    free(loop->free_slots);
    free(loop);
}

chr_err loop_start(struct broker_node *node, uint32_t number, struct broker_loop **out,
                   struct chr_errmsg *msg)
{
    struct broker_loop *loop = aligned_alloc(CHR_CACHE_LINE, chr_round_up(sizeof *loop, 64));
    if (!loop)
        return chr_fail(msg, CHR_ENOMEM, "out of memory");
    memset(loop, 0, sizeof *loop);
    loop->node = node;
    loop->number = number;
    pthread_mutex_init(&loop->mail_lock, NULL);
    chr_list_init(&loop->flush);
    chr_list_init(&loop->waiting);
    chr_list_init(&loop->held);
    chr_list_init(&loop->closing);
    chr_list_init(&loop->partial_waiting);
    loop->wake_us = INT64_MAX;
    limits_refresh(loop);
    /* The largest packet must fit beside others, or it could never be received. */
    slab_pool_init(&loop->slabs, CHR_MAX(node->config->receive_bytes_per_loop,
                                         2 * (uint64_t)node->config->max_packet_size));
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    loop->conns_max = descriptors_max();
    loop->conns = calloc(loop->conns_max, sizeof *loop->conns);
    loop->generations = calloc(loop->conns_max, sizeof *loop->generations);
    loop->free_slots = calloc(loop->conns_max, sizeof *loop->free_slots);
    loop->listener_counters = calloc(node->listeners_count, sizeof *loop->listener_counters);
    read_clock(loop);
    loop->next_second_us = loop->now_mono_us + SECOND_US;

    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.ptr = NULL};
    chr_err err = CHR_OK;
    if (!loop->conns || !loop->generations || !loop->free_slots || !loop->listener_counters)
        err = CHR_ENOMEM;
    else if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
             epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &event))
        err = chr_err_from_errno(errno);
    if (!err)
        err = batches_init(loop, node->config->batches_per_loop);
    if (!err)
        err = ingest_decoder_new(node->config->batch_bytes_max, &loop->decoder);
    if (!err)
        err = session_loop_init(loop);
    if (!err && pthread_create(&loop->thread, NULL, loop_main, loop))
        err = CHR_ENOMEM;
    if (err) {
        loop_free(loop);
        return chr_fail(msg, err, "can't start event loop %u: %s", number, chr_strerror(err));
    }
    *out = loop;
    return CHR_OK;
}

void loop_stop(struct broker_loop *loop)
{
    atomic_store(&loop->stopping, true);
    loop_wake(loop);
}

void loop_join(struct broker_loop *loop)
{
    pthread_join(loop->thread, NULL);
}

void loop_take_last_mail(struct broker_loop *loop)
{
    take_mail(loop); /* letters own things: let them free those */
}
