/* The door between clients and nodes (R17): what says it is a node's lane leaves the loop, what is
 * none does not come near what nodes say to each other. */
#include "tests/base/check.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "base/buf.h"
#include "bridge/peers.h"
#include "proto/mqtt/encode.h"
#include "tests/fuzz/session_node.h"

/* Node 1 is the one with loops; node 2 is its peer, and never takes anybody in. */
static struct {
    struct peers *one, *two;
    _Atomic bool up[PEERS_LANES];
    _Atomic int came;
    int listening;
} d;

static void ours(void *ctx, struct peers_message *message)
{
    (void)ctx;
    assert_true(message->from == 2 && message->kind == PEERS_RAFT);
    assert_int_equal(message->bytes.len, 5);
    d.came++;
    peers_release(d.one, message);
}
static void theirs(void *ctx, struct peers_message *message)
{
    (void)ctx;
    peers_release(d.two, message);
}
static void ours_changed(void *ctx, uint64_t node, enum peers_lane lane, bool up)
{
    (void)ctx, (void)node, (void)lane, (void)up;
}
static void theirs_changed(void *ctx, uint64_t node, enum peers_lane lane, bool up)
{
    (void)ctx, (void)node;
    d.up[lane] = up;
}
static void writable(void *ctx, uint64_t node, enum peers_lane lane)
{
    (void)ctx, (void)node, (void)lane;
}

static struct peers *start_peers(uint64_t self, uint64_t other, uint16_t port)
{
    struct peers *peers;
    struct chr_errmsg msg;
    struct peers_peer peer = {other, "127.0.0.1", port};
    struct peers_options o = {.self = self,
                              .secret = CHR_LIT("secret"),
                              .peers = &peer,
                              .peers_count = 1,
                              .received = self == 1 ? ours : theirs,
                              .changed = self == 1 ? ours_changed : theirs_changed,
                              .writable = writable};
    assert_int_equal(peers_start(&o, &peers, &msg), CHR_OK);
    return peers;
}

/* Takes in whoever knocks, and lets the loops run. */
static void turns(void)
{
    int fd = accept4(d.listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        assert_int_equal(loop_adopt(n.loops[0], &n.listener, fd, "test"), CHR_OK);
    node_turn();
    node_apply_all();
    usleep(200);
}

static int dial(void)
{
    struct sockaddr_in a = {0};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(getsockname(d.listening, (struct sockaddr *)&a, &len), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    return fd;
}

static void say(int fd, const uint8_t *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

/* What comes within so many turns, or until the end. */
static size_t hear(int fd, uint8_t *bytes, size_t room, bool *ended)
{
    size_t all = 0;
    *ended = false;
    for (int i = 0; i < 2000 && !*ended; i++) {
        turns();
        ssize_t got = recv(fd, bytes + all, room - all, MSG_DONTWAIT);
        if (got > 0)
            all += (size_t)got;
        *ended = got == 0 || (got < 0 && errno == ECONNRESET);
        if (got < 0 && all && i > 20)
            break;
    }
    return all;
}

static size_t put_connect(uint8_t *at, enum mqtt_version version, const char *id)
{
    struct mqtt_connect c = {.version = version,
                             .protocol_level = (uint8_t)version,
                             .clean_start = true,
                             .client_id = chr_slice_cstr(id),
                             .properties = mqtt_properties_none};
    return mqtt_encode_connect(at, 512, &c);
}

static int client(enum mqtt_version version)
{
    uint8_t b[512];
    bool ended;
    int fd = dial();
    say(fd, b, put_connect(b, version, "a sensor"));
    assert_true(hear(fd, b, sizeof b, &ended) >= 4);
    assert_int_equal(b[0], MQTT_CONNACK << 4);
    assert_int_equal(b[3], 0);
    return fd;
}

static void expect_end(int fd, enum mqtt_version version)
{
    uint8_t b[512];
    bool ended;
    size_t len = hear(fd, b, sizeof b, &ended);
    assert_true(ended);
    if (version == MQTT_V5) { /* DISCONNECT, not authorized */
        assert_true(len >= 3);
        assert_int_equal(b[0], MQTT_DISCONNECT << 4);
        assert_int_equal(b[2], MQTT_REASON_NOT_AUTHORIZED);
    } else {
        assert_int_equal(len, 0);
    }
    close(fd);
}

static void subscribe(int fd, enum mqtt_version version, const char *filter)
{
    uint8_t b[512];
    struct mqtt_subscribe s = {.packet_id = 1, .properties = mqtt_properties_none};
    struct mqtt_subscription one = {.filter = chr_slice_cstr(filter)};
    say(fd, b, mqtt_encode_subscribe(b, sizeof b, version, &s, &one, 1));
}

static void publish(int fd, enum mqtt_version version, const char *topic)
{
    uint8_t b[512];
    struct mqtt_publish p = {.topic = chr_slice_cstr(topic),
                             .payload = CHR_LIT("x"),
                             .properties = mqtt_properties_none};
    say(fd, b, mqtt_encode_publish(b, sizeof b, version, &p));
}

static void begin(bool with_peers)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    memset(&d, 0, sizeof d);
    chr_log_set_level(CHR_LOG_ERROR);
    d.listening = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(d.listening, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(d.listening, 16), 0);
    assert_int_equal(getsockname(d.listening, (struct sockaddr *)&a, &len), 0);
    node_begin();
    node_log.apply_at_once = true;
    node_tick();
    if (!with_peers)
        return;
    d.one = n.node.peers = start_peers(1, 2, 1);
    d.two = start_peers(2, 1, ntohs(a.sin_port));
}

static void end(void)
{
    if (d.one) {
        peers_stop(d.two);
        peers_stop(d.one);
    }
    node_end();
    peers_free(d.one);
    peers_free(d.two);
    close(d.listening);
}

static void a_peer_leaves_the_loop(void **state)
{
    (void)state;
    begin(true);
    while (!d.up[PEERS_CONTROL] || !d.up[PEERS_BULK])
        turns();
    chr_slice part = CHR_LIT("hello");
    for (int i = 0; i < 100; i++)
        assert_int_equal(peers_send(d.two, 1, PEERS_CONTROL, PEERS_RAFT, &part, 1), CHR_OK);
    while (d.came < 100)
        usleep(200); /* without a turn: the loops have nothing to do with it */
    for (int i = 0; i < LOOPS; i++)
        assert_int_equal(n.loops[i]->conns_count, 0);
    assert_int_equal(n.listener.connections, 0);
    assert_int_equal(peers_strangers(d.one), 0);
    end();
}

static void bytes_behind_connect_go_along(void **state)
{
    (void)state;
    begin(true);
    uint8_t b[2048];
    bool ended;
    int fd = dial();
    size_t len = put_connect(b, MQTT_V311, "$chronos-peer-bulk-0000000000000002");
    struct mqtt_subscribe s = {.packet_id = 1, .properties = mqtt_properties_none};
    struct mqtt_subscription one = {.filter = CHR_LIT("$chronos/peer/0000000000000002/bulk/#")};
    len += mqtt_encode_subscribe(b + len, sizeof b - len, MQTT_V311, &s, &one, 1);
    say(fd, b, len);
    len = hear(fd, b, sizeof b, &ended);
    assert_true(len > 4 + 5 + 40 && b[0] == MQTT_CONNACK << 4 && b[4] == MQTT_SUBACK << 4);
    assert_false(ended);
    close(fd);
    end();
}

static void clients_stay_away_from_peers(void **state)
{
    (void)state;
    static const enum mqtt_version versions[] = {MQTT_V311, MQTT_V5};
    static const char *const filters[] = {"$chronos/peer/#", "$chronos/peer", "$chronos/peer/+/x",
                                          "$share/g/$chronos/peer/#"};
    static const char *const topics[] = {"$chronos/peer/0000000000000001/bulk/m", "$chronos/peer"};
    uint64_t strangers = 0;
    begin(true);
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < CHR_COUNT_OF(filters); i++) {
            int fd = client(versions[v]);
            subscribe(fd, versions[v], filters[i]);
            expect_end(fd, versions[v]);
            assert_int_equal(peers_strangers(d.one), ++strangers);
        }
        for (size_t i = 0; i < CHR_COUNT_OF(topics); i++) {
            int fd = client(versions[v]);
            publish(fd, versions[v], topics[i]);
            expect_end(fd, versions[v]);
            assert_int_equal(peers_strangers(d.one), ++strangers);
        }
    }
    int fd = client(MQTT_V5); /* nobody's topic, and nothing to do with peers */
    publish(fd, MQTT_V5, "$chronos/peers");
    expect_end(fd, MQTT_V5);
    assert_int_equal(peers_strangers(d.one), strangers);
    end();
}

static void a_node_alone_takes_no_peer(void **state)
{
    (void)state;
    begin(false);
    uint8_t b[512];
    bool ended;
    int fd = dial();
    say(fd, b, put_connect(b, MQTT_V311, "$chronos-peer-bulk-0000000000000002"));
    assert_int_equal(hear(fd, b, sizeof b, &ended), 4);
    assert_true(ended && b[3] == 5); /* not authorized */
    close(fd);
    fd = client(MQTT_V5);
    subscribe(fd, MQTT_V5, "$chronos/peer/#");
    assert_true(hear(fd, b, sizeof b, &ended) >= 6 && !ended);
    assert_true(b[0] == MQTT_SUBACK << 4 && b[5] == MQTT_REASON_NOT_AUTHORIZED);
    close(fd);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peer_leaves_the_loop),
        cmocka_unit_test(bytes_behind_connect_go_along),
        cmocka_unit_test(clients_stay_away_from_peers),
        cmocka_unit_test(a_node_alone_takes_no_peer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
