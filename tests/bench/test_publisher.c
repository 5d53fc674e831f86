/* A bench must not believe a server: acknowledgements that come twice, out of order, for nothing or
 * with a refusal are noticed, however they are cut into reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bench/net.h"
#include "bench/publisher.h"

struct scene {
    int listener, server;
    struct publisher_run run;
    struct publisher publisher;
    fleet *fleet;
};

static void *accept_one(void *arg)
{
    struct scene *s = arg;
    uint8_t connect[256];
    struct pollfd ready = {.fd = s->listener, .events = POLLIN};
    poll(&ready, 1, -1);
    s->server = accept(s->listener, NULL, NULL);
    if (recv(s->server, connect, sizeof connect, 0) > 0)
        send(s->server, "\x20\x02\0\0", 4, 0);
    return NULL;
}

static struct scene *open_scene(int qos, uint32_t window)
{
    struct scene *s = calloc(1, sizeof *s);
    struct fleet_config config = {.seed = 1,
                                  .connections = 1,
                                  .slice_rows = 8,
                                  .slice_devices = 2,
                                  .topic = "t/{device}",
                                  .mqtt_version = 4,
                                  .qos = qos};
    s->fleet = fleet_create(&config);
    s->run = (struct publisher_run){
        .mqtt_version = 4, .qos = qos, .window = window, .refill = 1, .connections = 1};
    s->run.inbox = malloc(PUBLISHER_INBOX);
    uint16_t port;
    char address[32];
    s->listener = net_listen("127.0.0.1:0", &port);
    snprintf(address, sizeof address, "127.0.0.1:%u", port);
    pthread_t thread;
    pthread_create(&thread, NULL, accept_one, s);
    assert_int_equal(
        publisher_open(&s->publisher, &s->run, 0, fleet_slice_of(s->fleet, 0), address, "p"), 0);
    pthread_join(thread, NULL);
    return s;
}

static void close_scene(struct scene *s)
{
    publisher_close(&s->publisher);
    close(s->server);
    close(s->listener);
    free(s->run.inbox);
    fleet_destroy(s->fleet);
    free(s);
}

/* The server's bytes, seen by the publisher at once. */
static int64_t answer(struct scene *s, const char *bytes, size_t len)
{
    assert_int_equal(send(s->server, bytes, len, 0), len);
    struct pollfd ready = {.fd = s->publisher.fd, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 5000), 1);
    return publisher_drain(&s->publisher);
}
#define ANSWER(s, literal) answer(s, literal, sizeof(literal) - 1)

static void window_opens_by_acknowledgement(void **state)
{
    (void)state;
    struct scene *s = open_scene(1, 3);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(s->publisher.queued, 3);
    assert_int_equal(ANSWER(s, "\x40\x02\0\1\x40\x02\0\2"), 2);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(s->publisher.queued, 5);
    assert_int_equal(ANSWER(s, "\x40\x02\0\3\x40\x02\0\4\x40\x02\0\5"), 3);
    /* Over the end of the slice: identifiers 6, 7, 8 and then 1 again. */
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(ANSWER(s, "\x40\x02\0\6\x40\x02\0\7\x40\x02\0\x8"), 3);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(ANSWER(s, "\x40\x02\0\1"), 1);
    assert_int_equal(s->publisher.acked, 9);
    close_scene(s);
}

static void cut_into_bytes(void **state)
{
    (void)state;
    struct scene *s = open_scene(1, 4);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    /* As MQTT 5 has them too: with a reason, with a reason and properties. */
    static const char bytes[] = "\x40\x02\0\1\x40\x03\0\2\x10\x40\x04\0\3\0\0\x40\x02\0\4";
    int64_t acked = 0;
    for (size_t i = 0; i < sizeof bytes - 1; i++) {
        int64_t n = answer(s, bytes + i, 1);
        assert_true(n >= 0);
        acked += n;
    }
    assert_int_equal(acked, 4);
    assert_int_equal(s->publisher.refused, 0);
    close_scene(s);
}

static void wrong_acknowledgements(void **state)
{
    (void)state;
    static const struct {
        const char *what, *bytes;
        size_t len;
    } cases[] = {
        {"twice", "\x40\x02\0\1\x40\x02\0\1", 8},
        {"out of order", "\x40\x02\0\2", 4},
        {"more than published", "\x40\x02\0\1\x40\x02\0\2\x40\x02\0\3\x40\x02\0\4", 16},
        {"of another QoS", "\x50\x02\0\1", 4},
        {"another packet", "\xE0\0", 2},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct scene *s = open_scene(1, 3);
        print_message("%s\n", cases[i].what);
        assert_int_equal(publisher_pump(&s->publisher, 0), 0);
        assert_int_equal(answer(s, cases[i].bytes, cases[i].len), -1);
        close_scene(s);
    }
}

static void refusals_are_counted(void **state)
{
    (void)state;
    struct scene *s = open_scene(1, 3);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(ANSWER(s, "\x40\x03\0\1\x99\x40\x02\0\2"), 2);
    assert_int_equal(s->publisher.refused, 1);
    assert_int_equal(s->publisher.refused_reason, 0x99);
    close_scene(s);
}

static void qos2_in_two_steps(void **state)
{
    (void)state;
    struct scene *s = open_scene(2, 2);
    uint8_t got[1024];
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_true(recv(s->server, got, sizeof got, 0) > 0);
    assert_int_equal(ANSWER(s, "\x50\x02\0\1\x50\x02\0\2"), 0);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(recv(s->server, got, sizeof got, 0), 8);
    assert_memory_equal(got, "\x62\x02\0\1\x62\x02\0\2", 8);
    assert_int_equal(ANSWER(s, "\x70\x02\0\1"), 1);
    /* A PUBCOMP again for the first. */
    assert_int_equal(ANSWER(s, "\x70\x02\0\1"), -1);
    close_scene(s);
}

static void completed_before_received(void **state)
{
    (void)state;
    struct scene *s = open_scene(2, 2);
    assert_int_equal(publisher_pump(&s->publisher, 0), 0);
    assert_int_equal(ANSWER(s, "\x70\x02\0\1"), -1);
    close_scene(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(window_opens_by_acknowledgement),
        cmocka_unit_test(cut_into_bytes),
        cmocka_unit_test(wrong_acknowledgements),
        cmocka_unit_test(refusals_are_counted),
        cmocka_unit_test(qos2_in_two_steps),
        cmocka_unit_test(completed_before_received),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
