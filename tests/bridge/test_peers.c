/* tests/bridge/test_peers.c: nodes in one process that talk over loopback, and strangers that try
 * to. Nothing here asks how long something took: each wait is for what has to happen. */
#include "tests/base/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/bytes.h"
#include "base/log.h"
#include "bridge/peer_wire.h"
#include "bridge/peers.h"
#include "proto/mqtt/decode.h"
#include "proto/mqtt/encode.h"

#define NODES_MAX 4
#define FDS_MAX   64
/* Far more than anything takes, under any sanitizer: then a test has failed. */
#define PATIENCE_S 60

/* ---- A node -------------------------------------------------------------------------------------
 */

struct node {
    uint64_t number;
    struct peers *peers;
    int listening;
    uint16_t port;
    pthread_t acceptor;
    _Atomic bool stopping;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct peers_message *first, *last; /* received, not looked at */
    _Atomic bool release_at_once;       /* and only counted */
    _Atomic uint64_t counted[PEERS_LANES], counted_bytes[PEERS_LANES];
    bool up[NODES_MAX + 1][PEERS_LANES];
    int downs[NODES_MAX + 1][PEERS_LANES];
    int writables[PEERS_LANES];
    int fds[FDS_MAX]; /* copies of what was adopted, to cut it */
    int fds_count;
};

/* A copy of a descriptor keeps its connection open: only in tests that cut it. */
static _Atomic bool cuttable;

static void received(void *ctx, struct peers_message *message)
{
    struct node *n = ctx;
    pthread_mutex_lock(&n->lock);
    n->counted[message->lane]++;
    n->counted_bytes[message->lane] += message->bytes.len;
    bool release = n->release_at_once;
    if (!release) {
        message->next = NULL;
        if (n->last)
            n->last->next = message;
        else
            n->first = message;
        n->last = message;
    }
    pthread_cond_broadcast(&n->cond);
    pthread_mutex_unlock(&n->lock);
    if (release)
        peers_release(n->peers, message);
}

static void changed(void *ctx, uint64_t node, enum peers_lane lane, bool up)
{
    struct node *n = ctx;
    pthread_mutex_lock(&n->lock);
    n->up[node][lane] = up;
    n->downs[node][lane] += !up;
    pthread_cond_broadcast(&n->cond);
    pthread_mutex_unlock(&n->lock);
}

static void writable(void *ctx, uint64_t node, enum peers_lane lane)
{
    struct node *n = ctx;
    (void)node;
    pthread_mutex_lock(&n->lock);
    n->writables[lane]++;
    pthread_cond_broadcast(&n->cond);
    pthread_mutex_unlock(&n->lock);
}

/* Under the lock. */
static void wait_some(struct node *n)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    if (pthread_cond_timedwait(&n->cond, &n->lock, &until) == ETIMEDOUT)
        fail_msg("nothing happens");
}

#define WAIT_FOR(n, condition)                                                                     \
    do {                                                                                           \
        pthread_mutex_lock(&(n)->lock);                                                            \
        while (!(condition))                                                                       \
            wait_some(n);                                                                          \
        pthread_mutex_unlock(&(n)->lock);                                                          \
    } while (0)

static int listen_on_loopback(uint16_t *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(fd, 64), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

/* What a loop does: takes whole packets apart, hands over what is a peer's. */
static void *accept_main(void *arg)
{
    struct node *n = arg;
    while (!n->stopping) {
        struct pollfd p = {.fd = n->listening, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0)
            continue;
        int fd = accept4(n->listening, NULL, NULL, SOCK_CLOEXEC);
        uint8_t bytes[4096];
        ssize_t got = fd >= 0 ? recv(fd, bytes, sizeof bytes, 0) : -1;
        if (got <= 0) {
            close(fd);
            continue;
        }
        pthread_mutex_lock(&n->lock);
        if (cuttable && n->fds_count < FDS_MAX)
            n->fds[n->fds_count++] = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        pthread_mutex_unlock(&n->lock);
        peers_adopt(n->peers, fd, chr_slice_of(bytes, (size_t)got), NULL);
    }
    return NULL;
}

static void cut(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    for (int i = 0; i < n->fds_count; i++) {
        shutdown(n->fds[i], SHUT_RDWR);
        close(n->fds[i]);
    }
    n->fds_count = 0;
    pthread_mutex_unlock(&n->lock);
}

static void node_listen(struct node *n, uint64_t number)
{
    *n = (struct node){.number = number};
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->cond, NULL);
    n->listening = listen_on_loopback(&n->port);
}

static void node_start(struct node *n, const char *secret, uint64_t window,
                       const struct peers_peer *list, uint32_t count)
{
    struct chr_errmsg msg;
    struct peers_options o = {.self = n->number,
                              .secret = chr_slice_cstr(secret),
                              .peers = list,
                              .peers_count = count,
                              .window_bytes = window,
                              .compress = PEERS_COMPRESS_ALWAYS,
                              .clock = chr_clock_system(),
                              .ctx = n,
                              .received = received,
                              .changed = changed,
                              .writable = writable};
    assert_int_equal(peers_start(&o, &n->peers, &msg), CHR_OK);
    assert_int_equal(pthread_create(&n->acceptor, NULL, accept_main, n), 0);
}

static void release_all(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    struct peers_message *m = n->first;
    n->first = n->last = NULL;
    pthread_mutex_unlock(&n->lock);
    while (m) {
        struct peers_message *next = m->next;
        peers_release(n->peers, m);
        m = next;
    }
}

static void node_stop(struct node *n)
{
    n->stopping = true;
    pthread_join(n->acceptor, NULL);
    peers_stop(n->peers);
    release_all(n); /* later than stop */
    peers_free(n->peers);
    cut(n);
    cuttable = false;
    close(n->listening);
    pthread_mutex_destroy(&n->lock);
    pthread_cond_destroy(&n->cond);
}

static void start_cluster(struct node *nodes, unsigned count, const char *secret, uint64_t window)
{
    for (unsigned i = 0; i < count; i++)
        node_listen(&nodes[i], i + 1);
    for (unsigned i = 0; i < count; i++) {
        struct peers_peer list[NODES_MAX];
        uint32_t n = 0;
        for (unsigned j = 0; j < count; j++)
            if (j != i)
                list[n++] =
                    (struct peers_peer){.node = j + 1, .host = "127.0.0.1", .port = nodes[j].port};
        node_start(&nodes[i], secret, window, list, n);
    }
}

static void wait_up(struct node *n, uint64_t to)
{
    WAIT_FOR(n, n->up[to][PEERS_CONTROL] && n->up[to][PEERS_BULK]);
}

static chr_err send_one(struct node *n, uint64_t to, enum peers_lane lane, uint8_t kind,
                        const void *bytes, size_t len)
{
    chr_slice parts[2] = {chr_slice_of(bytes, len / 2),
                          chr_slice_of((const uint8_t *)bytes + len / 2, len - len / 2)};
    return peers_send(n->peers, to, lane, kind, parts, 2);
}

/* Waits out a full window. */
static void send_surely(struct node *n, uint64_t to, enum peers_lane lane, uint8_t kind,
                        const void *bytes, size_t len)
{
    for (;;) {
        pthread_mutex_lock(&n->lock);
        int before = n->writables[lane];
        pthread_mutex_unlock(&n->lock);
        chr_err err = send_one(n, to, lane, kind, bytes, len);
        if (!err)
            return;
        assert_int_equal(err, CHR_EAGAIN);
        WAIT_FOR(n, n->writables[lane] != before);
    }
}

static struct peers_message *next_message(struct node *n)
{
    pthread_mutex_lock(&n->lock);
    while (!n->first)
        wait_some(n);
    struct peers_message *m = n->first;
    n->first = m->next;
    if (!n->first)
        n->last = NULL;
    pthread_mutex_unlock(&n->lock);
    return m;
}

static struct peers_lane_stats stats_of(struct node *n, uint64_t node, enum peers_lane lane)
{
    struct peers_lane_stats s;
    assert_int_equal(peers_lane_stats(n->peers, node, lane, &s), CHR_OK);
    return s;
}

/* Bytes that follow from a number; some can be compressed. */
static void fill(uint8_t *bytes, size_t len, uint64_t number)
{
    struct chr_random r = {.state = number};
    for (size_t i = 0; i < len; i += 8) {
        uint64_t v = number % 3 == 0 ? number + i / 64 : chr_random_u64(&r);
        memcpy(bytes + i, &v, CHR_MIN(len - i, 8));
    }
}

/* ---- Messages -----------------------------------------------------------------------------------
 */

struct sender {
    struct node *from;
    enum peers_lane lane;
    uint64_t count;
    uint64_t seed;
};

static size_t size_of(uint64_t seed, uint64_t number, enum peers_lane lane)
{
    struct chr_random r = {.state = seed ^ number};
    uint64_t kind = chr_random_below(&r, 50);
    size_t most = lane == PEERS_CONTROL ? 200 : kind == 0 ? 700000 : kind < 10 ? 70000 : 300;
    return 8 + chr_random_below(&r, most);
}

static void *send_many(void *arg)
{
    struct sender *s = arg;
    uint8_t *bytes = malloc(1 << 20);
    for (uint64_t i = 0; i < s->count; i++) {
        size_t len = size_of(s->seed, i, s->lane);
        fill(bytes, len, i);
        memcpy(bytes, &i, 8);
        send_surely(s->from, 2, s->lane, (uint8_t)(1 + i % 200), bytes, len);
    }
    free(bytes);
    return NULL;
}

static void order_is_kept_on_each_lane(void **state)
{
    (void)state;
    struct node nodes[2];
    uint64_t seed = test_random(7).state;
    start_cluster(nodes, 2, "a secret", 1 << 20);
    wait_up(&nodes[0], 2);
    struct sender senders[2] = {{&nodes[0], PEERS_CONTROL, 20000, seed},
                                {&nodes[0], PEERS_BULK, 2000, seed}};
    pthread_t threads[2];
    uint64_t next[PEERS_LANES] = {0};
    uint8_t *right = malloc(1 << 20);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, send_many, &senders[i]);
    while (next[0] < senders[0].count || next[1] < senders[1].count) {
        struct peers_message *m = next_message(&nodes[1]);
        uint64_t i = next[m->lane]++;
        size_t len = size_of(seed, i, m->lane);
        fill(right, len, i);
        memcpy(right, &i, 8);
        assert_int_equal(m->from, 1);
        assert_int_equal(m->kind, 1 + i % 200);
        assert_int_equal(m->bytes.len, len);
        assert_memory_equal(m->bytes.ptr, right, len);
        peers_release(nodes[1].peers, m);
    }
    free(right);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    struct peers_lane_stats s = stats_of(&nodes[0], 2, PEERS_BULK);
    assert_int_equal(s.messages_sent, 2000);
    assert_true(s.bytes_sent > s.wire_bytes_sent); /* a third of it compresses well */
    assert_int_equal(stats_of(&nodes[1], 1, PEERS_CONTROL).messages_received, 20000);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

static void messages_of_any_size(void **state)
{
    (void)state;
    struct node nodes[2];
    start_cluster(nodes, 2, "", 0);
    wait_up(&nodes[0], 2);
    size_t sizes[] = {0,
                      1,
                      511,
                      512,
                      16383,
                      16384,
                      PEER_PAYLOAD_BYTES_MAX - 17,
                      PEER_PAYLOAD_BYTES_MAX - 16,
                      PEER_PAYLOAD_BYTES_MAX - 15,
                      2 * (PEER_PAYLOAD_BYTES_MAX - 16),
                      1 << 20,
                      PEERS_MESSAGE_BYTES_MAX - 1,
                      PEERS_MESSAGE_BYTES_MAX};
    uint8_t *bytes = malloc(PEERS_MESSAGE_BYTES_MAX + 1);
    for (size_t i = 0; i < 3 * CHR_COUNT_OF(sizes); i++) {
        size_t len = sizes[i / 3];
        enum peers_lane lane = i % 2 ? PEERS_BULK : PEERS_CONTROL;
        fill(bytes, len, i);
        send_surely(&nodes[0], 2, lane, 9, bytes, len);
        struct peers_message *m = next_message(&nodes[1]);
        assert_int_equal(m->lane, lane);
        assert_int_equal(m->bytes.len, len);
        assert_true(len == 0 || memcmp(m->bytes.ptr, bytes, len) == 0);
        peers_release(nodes[1].peers, m);
    }
    assert_int_equal(send_one(&nodes[0], 2, PEERS_BULK, 9, bytes, PEERS_MESSAGE_BYTES_MAX + 1),
                     CHR_ETOOBIG);
    assert_int_equal(send_one(&nodes[0], 3, PEERS_BULK, 9, bytes, 1), CHR_ENOTFOUND);
    free(bytes);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

/* ---- Windows ------------------------------------------------------------------------------------
 */

#define WINDOW ((uint64_t)1 << 20)

static uint64_t fill_window(struct node *n, uint64_t to, enum peers_lane lane, size_t len)
{
    uint8_t *bytes = malloc(len);
    uint64_t sent = 0;
    fill(bytes, len, 1);
    chr_err err;
    while ((err = send_one(n, to, lane, 3, bytes, len)) == CHR_OK)
        sent++;
    assert_int_equal(err, CHR_EAGAIN);
    free(bytes);
    return sent;
}

static void a_full_window_says_so_and_opens_again(void **state)
{
    (void)state;
    struct node nodes[2];
    start_cluster(nodes, 2, "s", WINDOW);
    wait_up(&nodes[0], 2);
    for (int lane = 0; lane < (int)PEERS_LANES; lane++) {
        uint64_t before = nodes[1].counted[lane];
        for (int round = 1; round <= 3; round++) {
            /* Before: what the round before released may make room at any time. */
            pthread_mutex_lock(&nodes[0].lock);
            int writables = nodes[0].writables[lane];
            pthread_mutex_unlock(&nodes[0].lock);
            uint64_t sent = fill_window(&nodes[0], 2, (enum peers_lane)lane, 10000);
            assert_in_range(sent, 1, WINDOW / 10000);
            struct peers_lane_stats s = stats_of(&nodes[0], 2, (enum peers_lane)lane);
            assert_true(s.outstanding_bytes <= WINDOW);
            assert_true(s.full >= 1);
            before += sent;
            WAIT_FOR(&nodes[1], nodes[1].counted[lane] == before);
            release_all(&nodes[1]);
            WAIT_FOR(&nodes[0], nodes[0].writables[lane] > writables);
        }
    }
    uint8_t more[WINDOW] = {0};
    assert_int_equal(send_one(&nodes[0], 2, PEERS_BULK, 3, more, sizeof more), CHR_ETOOBIG);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

static void a_small_window_counts_for_both(void **state)
{
    (void)state;
    struct node nodes[2];
    for (unsigned i = 0; i < 2; i++)
        node_listen(&nodes[i], i + 1);
    for (unsigned i = 0; i < 2; i++) {
        struct peers_peer other = {2 - i, "127.0.0.1", nodes[1 - i].port};
        node_start(&nodes[i], "s", i ? 64 << 10 : 0, &other, 1);
    }
    wait_up(&nodes[0], 2);
    assert_in_range(fill_window(&nodes[0], 2, PEERS_BULK, 1000), 1, (64 << 10) / 1000);
    /* Nearly a whole window at a time: each waits until all of the one before was given back. */
    nodes[1].release_at_once = true;
    release_all(&nodes[1]);
    uint8_t bytes[60000] = {1};
    for (int i = 0; i < 50; i++)
        send_surely(&nodes[0], 2, PEERS_BULK, 1, bytes, sizeof bytes);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

static void unreleased_messages_count_over_connections(void **state)
{
    (void)state;
    cuttable = true;
    struct node nodes[2];
    start_cluster(nodes, 2, "s", WINDOW);
    wait_up(&nodes[0], 2);
    uint64_t held = 0;
    for (int round = 0; round < 5; round++) {
        held += fill_window(&nodes[0], 2, PEERS_BULK, 30000);
        /* What is on its way when the connection is cut may be lost. */
        int downs = round + 1;
        cut(&nodes[1]);
        WAIT_FOR(&nodes[0], nodes[0].downs[2][PEERS_BULK] >= downs && nodes[0].up[2][PEERS_BULK]);
        assert_true(nodes[1].counted[PEERS_BULK] * 30000 <= WINDOW);
        assert_true(stats_of(&nodes[0], 2, PEERS_BULK).outstanding_bytes <= WINDOW);
    }
    assert_true(nodes[1].counted[PEERS_BULK] <= held);
    release_all(&nodes[1]);
    send_surely(&nodes[0], 2, PEERS_BULK, 3, "x", 1);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

/* ---- Many ---------------------------------------------------------------------------------------
 */

struct flood {
    struct node *from;
    uint64_t to;
    _Atomic bool stop;
    _Atomic uint64_t sent;
};

static void *flood_main(void *arg)
{
    struct flood *f = arg;
    uint8_t *bytes = malloc(300000);
    fill(bytes, 300000, 1);
    while (!f->stop) {
        chr_err err = send_one(f->from, f->to, PEERS_BULK, 3, bytes, 300000);
        if (err == CHR_OK)
            f->sent++;
        else
            sched_yield();
    }
    free(bytes);
    return NULL;
}

static void control_flows_beside_bulk(void **state)
{
    (void)state;
    struct node nodes[3];
    start_cluster(nodes, 3, "s", 0);
    nodes[1].release_at_once = nodes[2].release_at_once = true;
    wait_up(&nodes[0], 2);
    wait_up(&nodes[0], 3);
    struct flood floods[2] = {{.from = &nodes[0], .to = 2}, {.from = &nodes[0], .to = 3}};
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, flood_main, &floods[i]);
    for (int i = 1; i <= 300; i++)
        for (int to = 1; to <= 2; to++) {
            send_surely(&nodes[0], (uint64_t)to + 1, PEERS_CONTROL, 2, "heartbeat", 9);
            WAIT_FOR(&nodes[to], nodes[to].counted[PEERS_CONTROL] >= (uint64_t)i);
        }
    for (int to = 1; to <= 2; to++) /* and bulk does so beside control */
        WAIT_FOR(&nodes[to], nodes[to].counted[PEERS_BULK] > 200);
    for (int i = 0; i < 2; i++)
        floods[i].stop = true;
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 3; i++)
        node_stop(&nodes[i]);
}

/* ---- Connections that come and go ---------------------------------------------------------------
 */

static void connections_come_back(void **state)
{
    (void)state;
    cuttable = true;
    struct node nodes[2];
    start_cluster(nodes, 2, "s", 0);
    nodes[1].release_at_once = true;
    for (int i = 1; i <= 10; i++) {
        wait_up(&nodes[0], 2);
        assert_true(peers_up(nodes[0].peers, 2, PEERS_BULK));
        uint64_t before = nodes[1].counted[PEERS_BULK];
        send_surely(&nodes[0], 2, PEERS_BULK, 1, "again", 5);
        WAIT_FOR(&nodes[1], nodes[1].counted[PEERS_BULK] > before);
        cut(&nodes[1]);
        WAIT_FOR(&nodes[0], nodes[0].downs[2][PEERS_BULK] >= i && nodes[0].downs[2][0] >= i);
    }
    wait_up(&nodes[0], 2);
    assert_int_equal(stats_of(&nodes[0], 2, PEERS_BULK).connects, 11);
    assert_int_equal(peers_strangers(nodes[1].peers), 0);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

static void peers_are_removed_and_moved(void **state)
{
    (void)state;
    struct node nodes[3];
    start_cluster(nodes, 3, "s", 0);
    wait_up(&nodes[0], 2);
    wait_up(&nodes[1], 1);
    peers_remove(nodes[0].peers, 2);
    assert_int_equal(send_one(&nodes[0], 2, PEERS_BULK, 1, "x", 1), CHR_ENOTFOUND);
    WAIT_FOR(&nodes[0], !nodes[0].up[2][0] && !nodes[0].up[2][1]);
    WAIT_FOR(&nodes[1], !nodes[1].up[1][0] && !nodes[1].up[1][1]); /* it is nobody there now */
    assert_int_equal(send_one(&nodes[1], 1, PEERS_BULK, 1, "x", 1), CHR_ECLOSED);
    struct peers_peer again = {2, "localhost", nodes[1].port};
    assert_int_equal(peers_set(nodes[0].peers, &again), CHR_OK);
    wait_up(&nodes[0], 2);
    wait_up(&nodes[1], 1);
    /* Where another node listens that is not the one meant: its proof is for itself. */
    again.port = nodes[2].port;
    uint64_t strangers = peers_strangers(nodes[2].peers);
    assert_int_equal(peers_set(nodes[0].peers, &again), CHR_OK);
    while (peers_strangers(nodes[2].peers) < strangers + 4)
        usleep(1000);
    assert_false(peers_up(nodes[0].peers, 2, PEERS_BULK));
    again.port = nodes[1].port;
    assert_int_equal(peers_set(nodes[0].peers, &again), CHR_OK);
    wait_up(&nodes[0], 2);
    for (uint64_t i = 100; i < 114; i++) {
        struct peers_peer p = {i, "127.0.0.1", 1};
        assert_int_equal(peers_set(nodes[0].peers, &p), CHR_OK);
    }
    struct peers_peer bad[] = {
        {500, "127.0.0.1", 1}, {0, "h", 1}, {1, "h", 1}, {5, "", 1}, {5, "h", 0}};
    assert_int_equal(peers_set(nodes[0].peers, &bad[0]), CHR_EFULL);
    for (size_t i = 1; i < CHR_COUNT_OF(bad); i++)
        assert_int_equal(peers_set(nodes[0].peers, &bad[i]), CHR_EINVAL);
    for (uint64_t i = 100; i < 114; i++)
        peers_remove(nodes[0].peers, i);
    while (peers_set(nodes[0].peers, &bad[0]) == CHR_EFULL)
        usleep(1000);
    for (int i = 0; i < 3; i++)
        node_stop(&nodes[i]);
}

/* ---- Strangers ----------------------------------------------------------------------------------
 */

static void a_wrong_secret_is_refused(void **state)
{
    (void)state;
    struct node nodes[2];
    for (unsigned i = 0; i < 2; i++)
        node_listen(&nodes[i], i + 1);
    for (unsigned i = 0; i < 2; i++) {
        struct peers_peer other = {2 - i, "127.0.0.1", nodes[1 - i].port};
        node_start(&nodes[i], i ? "right" : "wrong", 0, &other, 1);
    }
    for (unsigned i = 0; i < 2; i++)
        while (peers_strangers(nodes[i].peers) < 4)
            usleep(1000);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(stats_of(&nodes[i], 2 - i, PEERS_CONTROL).connects, 0);
        assert_int_equal(send_one(&nodes[i], 2 - i, PEERS_CONTROL, 1, "x", 1), CHR_ECLOSED);
    }
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

static int dial(uint16_t port)
{
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static size_t put_connect(uint8_t *at, size_t room, const char *id)
{
    struct mqtt_connect c = {.version = MQTT_V311,
                             .protocol_level = 4,
                             .clean_start = true,
                             .keep_alive_s = 5,
                             .client_id = chr_slice_cstr(id),
                             .properties = mqtt_properties_none};
    return mqtt_encode_connect(at, room, &c);
}

static size_t put_subscribe(uint8_t *at, size_t room, const char *filter)
{
    struct mqtt_subscribe s = {.packet_id = 1, .properties = mqtt_properties_none};
    struct mqtt_subscription one = {.filter = chr_slice_cstr(filter)};
    return mqtt_encode_subscribe(at, room, MQTT_V311, &s, &one, 1);
}

static size_t put_publish(uint8_t *at, size_t room, const char *topic, const void *bytes,
                          size_t len)
{
    struct mqtt_publish p = {.topic = chr_slice_cstr(topic),
                             .payload = chr_slice_of(bytes, len),
                             .properties = mqtt_properties_none};
    return mqtt_encode_publish(at, room, MQTT_V311, &p);
}

static void write_all(int fd, const uint8_t *bytes, size_t len)
{
    while (len) {
        ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);
        if (n <= 0)
            return; /* it was closed: that is seen elsewhere */
        bytes += n;
        len -= (size_t)n;
    }
}

/* Reads until the other side closes; returns how many bytes came. */
static size_t read_to_end(int fd)
{
    uint8_t bytes[4096];
    size_t all = 0;
    ssize_t n;
    while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0)
        all += (size_t)n;
    close(fd);
    return all;
}

static const char id_of_2[] = "$chronos-peer-bulk-0000000000000002";
static const char filter_of_2[] = "$chronos/peer/0000000000000002/bulk/#";

static void garbage_gets_nothing(void **state)
{
    (void)state;
    struct node nodes[1];
    node_listen(&nodes[0], 1);
    struct peers_peer other = {2, "127.0.0.1", 1};
    node_start(&nodes[0], "secret", 0, &other, 1);
    struct chr_random r = test_random(3);
    uint64_t tries = 0;
    uint8_t b[8192];
    for (int i = 0; i < 60; i++) {
        int fd = dial(nodes[0].port);
        size_t n = 0;
        size_t answered_max = 0;
        switch (i % 6) {
        case 0: /* noise */
            n = 1 + chr_random_below(&r, 2000);
            for (size_t j = 0; j < n; j++)
                b[j] = (uint8_t)chr_random_u64(&r);
            break;
        case 1: /* a client like any other */
            n = put_connect(b, sizeof b, "sensor");
            break;
        case 2: /* nobody's number */
            n = put_connect(b, sizeof b, "$chronos-peer-bulk-0000000000000007");
            break;
        case 3: /* noise after CONNECT */
            n = put_connect(b, sizeof b, id_of_2);
            for (size_t j = 0; j < 200; j++)
                b[n++] = (uint8_t)chr_random_u64(&r);
            b[n - 200] = 0; /* surely no packet */
            answered_max = 4;
            break;
        case 4: /* frames without a proof */
            n = put_connect(b, sizeof b, id_of_2);
            n += put_subscribe(b + n, sizeof b - n, filter_of_2);
            n += put_publish(b + n, sizeof b - n, "$chronos/peer/0000000000000001/bulk/m", b, 40);
            answered_max = 200;
            break;
        case 5: /* what is for others */
            n = put_connect(b, sizeof b, id_of_2);
            n += put_subscribe(b + n, sizeof b - n, "$chronos/peer/0000000000000003/bulk/#");
            answered_max = 4;
            break;
        }
        write_all(fd, b, n);
        shutdown(fd, SHUT_WR);
        assert_true(read_to_end(fd) <= answered_max);
        tries++;
        while (peers_strangers(nodes[0].peers) < tries)
            usleep(1000);
    }
    assert_int_equal(peers_strangers(nodes[0].peers), tries);
    assert_int_equal(nodes[0].counted[0] + nodes[0].counted[1], 0);
    node_stop(&nodes[0]);
}

static void those_who_say_nothing_make_room(void **state)
{
    (void)state;
    struct node nodes[2];
    int idle[100];
    uint8_t b[256];
    node_listen(&nodes[0], 1);
    node_listen(&nodes[1], 2);
    struct peers_peer other[2] = {{2, "127.0.0.1", nodes[1].port}, {1, "127.0.0.1", nodes[0].port}};
    node_start(&nodes[0], "secret", 0, &other[0], 1);
    for (int i = 0; i < 100; i++) {
        idle[i] = dial(nodes[0].port);
        write_all(idle[i], b, put_connect(b, sizeof b, id_of_2));
    }
    node_start(&nodes[1], "secret", 0, &other[1], 1);
    wait_up(&nodes[1], 1);
    assert_true(peers_strangers(nodes[0].peers) >= 60);
    for (int i = 0; i < 100; i++)
        close(idle[i]);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
}

/* A server at a peer's address, spoken by hand. */
struct impostor {
    int listening;
    const char *secret;
    _Atomic int proofs; /* it was sent */
    _Atomic bool stop;
    pthread_t thread;
    int fds[FDS_MAX];
    int fds_count;
};

/* Up to a packet of that type; its payload when it is a PUBLISH. False: closed. */
static bool read_packet(int fd, struct chr_buf *in, uint8_t type, uint8_t *payload, size_t size)
{
    for (;;) {
        struct mqtt_frame frame;
        int n = mqtt_frame(chr_buf_slice(in), 0, &frame);
        if (n > 0) {
            bool found = frame.type == type;
            struct mqtt_publish p;
            struct mqtt_fault fault;
            if (found && type == MQTT_PUBLISH &&
                mqtt_decode_publish(&frame, MQTT_V311, &p, &fault) == CHR_OK &&
                p.payload.len == size)
                memcpy(payload, p.payload.ptr, size);
            chr_buf_consume(in, (size_t)n);
            if (found)
                return true;
            continue;
        }
        uint8_t bytes[1024];
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got <= 0)
            return false;
        chr_buf_add(in, bytes, (size_t)got);
    }
}

/* Node 2, as far as the proof; then it reads nothing any more. */
static void play_peer(struct impostor *im, int fd)
{
    struct chr_buf in;
    uint8_t b[512], challenge[PEER_CHALLENGE_BYTES], bytes[PEER_PROOF_BYTES] = {0};
    struct peer_transcript t = {.connecting = 1, .accepting = 2, .lane = PEERS_BULK};
    struct peer_terms terms = {.window = 16 << 20};
    struct peer_proof proof;
    chr_buf_init(&in, 1 << 20);
    if (!read_packet(fd, &in, MQTT_CONNECT, NULL, 0))
        goto out;
    struct mqtt_connack connack = {.properties = mqtt_properties_none};
    write_all(fd, b, mqtt_encode_connack(b, sizeof b, MQTT_V311, &connack));
    if (!read_packet(fd, &in, MQTT_SUBSCRIBE, NULL, 0))
        goto out;
    struct mqtt_suback suback = {
        .packet_id = 1, .reason_codes = CHR_LIT("\0"), .properties = mqtt_properties_none};
    write_all(fd, b, mqtt_encode_suback(b, sizeof b, MQTT_V311, &suback));
    peer_challenge_encode(t.accepting_nonce, challenge);
    write_all(fd, b,
              put_publish(b, sizeof b, "$chronos/peer/0000000000000001/bulk/challenge", challenge,
                          sizeof challenge));
    if (!read_packet(fd, &in, MQTT_PUBLISH, bytes, sizeof bytes) ||
        peer_proof_decode(chr_slice_of(bytes, sizeof bytes), &proof))
        goto out;
    memcpy(t.connecting_nonce, proof.nonce, sizeof proof.nonce);
    uint8_t mac[PEER_MAC_BYTES], accepted[PEER_ACCEPTED_BYTES];
    if (peer_mac(chr_slice_cstr(im->secret), &t, &terms, mac)) {
        peer_accepted_encode(&terms, mac, accepted);
        write_all(fd, b,
                  put_publish(b, sizeof b, "$chronos/peer/0000000000000001/bulk/accepted", accepted,
                              sizeof accepted));
    }
    im->proofs++;
out:
    chr_buf_free(&in);
}

static void *impostor_main(void *arg)
{
    struct impostor *im = arg;
    while (!im->stop) {
        struct pollfd p = {.fd = im->listening, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0)
            continue;
        int fd = accept4(im->listening, NULL, NULL, SOCK_CLOEXEC);
        uint8_t b[64];
        /* The control lane is left alone. */
        ssize_t n = recv(fd, b, sizeof b, MSG_PEEK);
        if (n > 40 && memmem(b, (size_t)n, "bulk", 4))
            play_peer(im, fd);
        if (im->fds_count < FDS_MAX)
            im->fds[im->fds_count++] = fd;
        else
            close(fd);
    }
    for (int i = 0; i < im->fds_count; i++)
        close(im->fds[i]);
    return NULL;
}

static void a_server_without_the_secret_is_no_peer(void **state)
{
    (void)state;
    struct node n;
    struct impostor im = {.secret = "guess"};
    node_listen(&n, 1);
    uint16_t port;
    im.listening = listen_on_loopback(&port);
    pthread_create(&im.thread, NULL, impostor_main, &im);
    struct peers_peer other = {2, "127.0.0.1", port};
    node_start(&n, "secret", 0, &other, 1);
    while (im.proofs < 3)
        usleep(1000);
    assert_int_equal(stats_of(&n, 2, PEERS_BULK).connects, 0);
    assert_int_equal(send_one(&n, 2, PEERS_BULK, 1, "x", 1), CHR_ECLOSED);
    node_stop(&n);
    im.stop = true;
    pthread_join(im.thread, NULL);
    close(im.listening);
}

static void a_peer_that_reads_nothing_delays_nobody(void **state)
{
    (void)state;
    struct node nodes[2]; /* 1 and 3; 2 proves itself, then stands still */
    struct impostor im = {.secret = "secret"};
    node_listen(&nodes[0], 1);
    node_listen(&nodes[1], 3);
    uint16_t port;
    im.listening = listen_on_loopback(&port);
    pthread_create(&im.thread, NULL, impostor_main, &im);
    struct peers_peer others[2] = {{2, "127.0.0.1", port}, {3, "127.0.0.1", nodes[1].port}};
    struct peers_peer one = {1, "127.0.0.1", nodes[0].port};
    nodes[1].release_at_once = true;
    node_start(&nodes[0], "secret", 0, others, 2);
    node_start(&nodes[1], "secret", 0, &one, 1);
    WAIT_FOR(&nodes[0], nodes[0].up[2][PEERS_BULK] && nodes[0].up[3][PEERS_BULK]);
    /* More than the kernel takes; never more than the window. */
    assert_in_range(fill_window(&nodes[0], 2, PEERS_BULK, 100000), 160, 168);
    uint8_t *bytes = malloc(400000);
    fill(bytes, 400000, 1);
    for (int i = 0; i < 200; i++) {
        send_surely(&nodes[0], 3, PEERS_BULK, 1, bytes, 400000);
        struct peers_lane_stats s = stats_of(&nodes[0], 2, PEERS_BULK);
        assert_true(s.outstanding_bytes <= 16 << 20);
    }
    WAIT_FOR(&nodes[1], nodes[1].counted[PEERS_BULK] == 200);
    free(bytes);
    for (int i = 0; i < 2; i++)
        node_stop(&nodes[i]);
    im.stop = true;
    pthread_join(im.thread, NULL);
    close(im.listening);
}

static void a_peer_that_breaks_the_rules_is_cut_off(void **state)
{
    (void)state;
    struct node n;
    node_listen(&n, 1);
    struct peers_peer other = {2, "127.0.0.1", 1};
    node_start(&n, "secret", 1 << 20, &other, 1);
    uint8_t head[PEER_FRAME_HEAD_BYTES], *b = malloc(300 << 10);
    /* Each says what its frames are: raw, stored, body, more. */
    const struct {
        uint32_t raw, stored, body;
        bool more;
        int times;
    } tries[] = {
        {1000, 1000, 1000, true, 1},        /* goes on with nothing */
        {200000, 200000, 200000, false, 9}, /* more than the window */
        {1 << 20, 1 << 20, 1000, false, 1}, /* a message larger than it */
        {1000, 1000, 500, false, 2},        /* begins another before the end */
        {1000, 500, 500, false, 1},         /* LZ4 that is none */
        {1000, 1001, 1000, false, 1},       {8 << 20, 1000, 1000, false, 1},
    };
    for (size_t i = 0; i < CHR_COUNT_OF(tries); i++) {
        int fd = dial(n.port);
        struct chr_buf in;
        chr_buf_init(&in, 1 << 20);
        struct peer_transcript t = {.connecting = 2, .accepting = 1, .lane = PEERS_BULK};
        struct peer_proof proof = {.from = 2, .to = 1, .lane = PEERS_BULK, .nonce = {9}};
        uint8_t challenge[PEER_CHALLENGE_BYTES], bytes[PEER_PROOF_BYTES];
        size_t len = put_connect(b, 1000, id_of_2);
        len += put_subscribe(b + len, 1000, filter_of_2);
        write_all(fd, b, len);
        assert_true(read_packet(fd, &in, MQTT_PUBLISH, challenge, sizeof challenge));
        assert_int_equal(
            peer_challenge_decode(chr_slice_of(challenge, sizeof challenge), t.accepting_nonce),
            CHR_OK);
        memcpy(t.connecting_nonce, proof.nonce, sizeof proof.nonce);
        assert_true(peer_mac(CHR_LIT("secret"), &t, NULL, proof.mac));
        peer_proof_encode(&proof, bytes);
        write_all(
            fd, b,
            put_publish(b, 1000, "$chronos/peer/0000000000000001/bulk/proof", bytes, sizeof bytes));
        assert_true(read_packet(fd, &in, MQTT_PUBLISH, bytes, PEER_ACCEPTED_BYTES));
        uint8_t *payload = calloc(1, PEER_FRAME_HEAD_BYTES + tries[i].body);
        struct peer_frame f = {
            .raw = tries[i].raw, .stored = tries[i].stored, .kind = 1, .more = tries[i].more};
        peer_frame_head(&f, tries[i].body, head);
        memcpy(payload, head, sizeof head);
        for (int j = 0; j < tries[i].times; j++)
            write_all(fd, b,
                      put_publish(b, 300 << 10, "$chronos/peer/0000000000000001/bulk/m", payload,
                                  sizeof head + tries[i].body));
        read_to_end(fd); /* it ends */
        free(payload);
        chr_buf_free(&in);
        release_all(&n);
    }
    assert_true(n.counted_bytes[PEERS_BULK] <= 1 << 20);
    /* Nothing of all that is still counted. */
    free(b);
    node_stop(&n);
}

static void options_are_checked(void **state)
{
    (void)state;
    struct peers *peers;
    struct chr_errmsg msg;
    struct peers_peer self = {1, "h", 1};
    struct peers_options o = {.self = 0, .clock = chr_clock_system()};
    assert_int_equal(peers_start(&o, &peers, &msg), CHR_EINVAL);
    o.self = 1;
    o.window_bytes = 1000;
    assert_int_equal(peers_start(&o, &peers, &msg), CHR_EINVAL);
    o.window_bytes = 0;
    o.peers = &self;
    o.peers_count = 1;
    assert_int_equal(peers_start(&o, &peers, &msg), CHR_EINVAL);
    assert_non_null(strstr(msg.text, "peer 1"));
}

int main(void)
{
    chr_log_set_level(getenv("CHR_TEST_LOG") ? CHR_LOG_DEBUG : CHR_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order_is_kept_on_each_lane),
        cmocka_unit_test(messages_of_any_size),
        cmocka_unit_test(a_full_window_says_so_and_opens_again),
        cmocka_unit_test(a_small_window_counts_for_both),
        cmocka_unit_test(unreleased_messages_count_over_connections),
        cmocka_unit_test(control_flows_beside_bulk),
        cmocka_unit_test(connections_come_back),
        cmocka_unit_test(peers_are_removed_and_moved),
        cmocka_unit_test(a_wrong_secret_is_refused),
        cmocka_unit_test(garbage_gets_nothing),
        cmocka_unit_test(those_who_say_nothing_make_room),
        cmocka_unit_test(a_server_without_the_secret_is_no_peer),
        cmocka_unit_test(a_peer_that_reads_nothing_delays_nobody),
        cmocka_unit_test(a_peer_that_breaks_the_rules_is_cut_off),
        cmocka_unit_test(options_are_checked),
    };
    if (getenv("CHR_TEST_ONLY"))
        cmocka_set_test_filter(getenv("CHR_TEST_ONLY"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
