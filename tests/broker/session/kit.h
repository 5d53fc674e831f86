/* tests/broker/session/kit.h: loops, sessions and connections without threads, sockets or a
 * database. What is sent stands in conn->out. */
#ifndef CHR_TESTS_SESSION_KIT_H
#define CHR_TESTS_SESSION_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
/* cmocka wants those before it */
#include <cmocka.h>

#include "base/bytes.h"
#include "base/random.h"
#include "broker/config.h"
#include "broker/net/listener.h"
#include "broker/session/internal.h"

#define KIT_LOOPS 2

struct kit {
    struct broker_config config;
    struct broker_node node;
    struct broker_loop *loops[KIT_LOOPS];
    struct listener listener;
};

static inline void kit_init(struct kit *kit)
{
    memset(kit, 0, sizeof *kit);
    broker_config_default(&kit->config);
    kit->config.loops = KIT_LOOPS;
    kit->node.config = &kit->config;
    kit->node.loops = kit->loops;
    kit->node.loops_count = KIT_LOOPS;
    kit->listener.config = &kit->config.listeners[0];
    kit->node.listeners = &kit->listener;
    kit->node.listeners_count = 1;
    assert_int_equal(registry_new(&kit->node.registry), CHR_OK);
    assert_int_equal(subscriptions_new(&kit->node.subscriptions), CHR_OK);
    assert_int_equal(retained_new(1000, 1 << 20, &kit->node.retained), CHR_OK);
    for (uint32_t i = 0; i < KIT_LOOPS; i++) {
        struct broker_loop *loop =
            aligned_alloc(CHR_CACHE_LINE, chr_round_up(sizeof *loop, CHR_CACHE_LINE));
        memset(loop, 0, sizeof *loop);
        loop->node = &kit->node;
        loop->number = i;
        loop->epoll_fd = -1;
        loop->listener_counters = calloc(1, sizeof *loop->listener_counters);
        loop->now_mono_us = 1000000000;
        chr_list_init(&loop->flush);
        chr_list_init(&loop->waiting);
        chr_list_init(&loop->held);
        chr_list_init(&loop->closing);
        kit->loops[i] = loop;
        assert_int_equal(session_loop_init(loop), CHR_OK);
    }
}

static inline void kit_free(struct kit *kit)
{
    for (uint32_t i = 0; i < KIT_LOOPS; i++) {
        atomic_store(&kit->loops[i]->stopping, true);
        session_loop_free(kit->loops[i]);
        free(kit->loops[i]->listener_counters);
        free(kit->loops[i]);
    }
    session_node_free(&kit->node);
}

static inline struct session *kit_session(struct kit *kit, uint32_t loop, const char *client_id)
{
    struct broker_loop *owner;
    struct session *s = session_new(kit->loops[loop], chr_slice_cstr(client_id));
    assert_non_null(s);
    assert_ptr_equal(registry_claim(kit->node.registry, s->client_id, s, &owner), s);
    s->expiry_s = UINT32_MAX;
    return s;
}

static inline struct conn *kit_connect(struct session *s, enum mqtt_version version)
{
    struct conn *conn = calloc(1, sizeof *conn);
    conn->listener = s->loop->node->listeners;
    conn->loop = s->loop;
    conn->fd = -1;
    conn->max_packet_size = s->loop->node->config->max_packet_size;
    conn->receive_maximum = s->loop->node->config->receive_maximum;
    conn->topic_alias_maximum = s->loop->node->config->topic_alias_maximum;
    conn->state = CONN_OPEN;
    conn->version = s->version = version;
    chr_buf_init(&conn->in, 1 << 20);
    chr_buf_init(&conn->out, (size_t)s->loop->node->config->max_output_bytes * 2);
    chr_list_init(&conn->flush_link);
    chr_list_init(&conn->wait_link);
    conn->session = s;
    s->conn = conn;
    atomic_store(&s->connected, true);
    atomic_fetch_add(&state_of(s->loop)->connected_now, 1);
    return conn;
}

static inline void kit_disconnect(struct session *s)
{
    struct conn *conn = s->conn;
    session_detach(s, false, false);
    chr_list_remove(&conn->flush_link);
    chr_list_remove(&conn->wait_link);
    while (conn->shared_first) {
        /* the first member is the next one; the second the message */
        struct {
            void *next;
            struct message *message;
        } *shared = (void *)conn->shared_first;
        conn->shared_first = shared->next;
        message_unref(shared->message);
        free(shared);
    }
    chr_buf_free(&conn->out);
    chr_buf_free(&conn->in);
    free(conn->acks);
    free(conn);
}

/* The next packet in conn->out, whose payload was not shared; false: none. */
static inline bool kit_sent(struct conn *conn, struct mqtt_frame *frame)
{
    chr_slice out = chr_slice_of(conn->out.ptr + conn->out_sent, conn->out.len - conn->out_sent);
    if (out.len == 0)
        return false;
    int n = mqtt_frame_from_server(out, 0, frame);
    assert_true(n > 0);
    conn->out_sent += (size_t)n;
    return true;
}

static inline struct message *kit_message(const char *topic, const char *payload, uint8_t qos)
{
    return message_new(chr_slice_cstr(topic), CHR_LIT(""), chr_slice_cstr(payload), qos, false, 0);
}

/* A seed of the environment or of the clock, printed. */
static inline struct chr_random kit_random(void)
{
    const char *given = getenv("CHR_SEED");
    uint64_t seed;
    if (given)
        seed = strtoull(given, NULL, 0);
    else
        chr_random_bytes(&seed, sizeof seed);
    print_message("CHR_SEED=%llu\n", (unsigned long long)seed);
    return (struct chr_random){seed};
}

/* Few levels from few letters, so that names and filters meet. */
static inline size_t kit_topic(struct chr_random *random, char *out, bool filter)
{
    static const char *const names[] = {"a", "b", "c", "", "$S", "long-level-name"};
    size_t at = 0, levels = 1 + chr_random_below(random, 4);
    for (size_t i = 0; i < levels; i++) {
        if (i)
            out[at++] = '/';
        uint64_t kind = filter ? chr_random_below(random, 10) : 9;
        const char *level = kind < 2 ? "+" : names[chr_random_below(random, 6)];
        if (kind == 2 && i + 1 == levels)
            level = "#";
        at += (size_t)sprintf(out + at, "%s", level);
    }
    if (at == 0)
        out[at++] = 'x';
    out[at] = 0;
    return at;
}

#endif
